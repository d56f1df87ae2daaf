"""Receipts, requests and verdicts at rest."""
