"""Placeholder until the game is merged."""
