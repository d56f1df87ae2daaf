"""Checks of receipts against recomputed steps; pure, and never importing an engine."""
