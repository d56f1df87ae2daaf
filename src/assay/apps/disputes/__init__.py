"""Disputes over exact receipts on a chain: whoever is disputed defends itself, and whoever finds a fault disputes."""
