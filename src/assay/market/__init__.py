"""Prices, matching of asks with offers, and metering; pure."""
