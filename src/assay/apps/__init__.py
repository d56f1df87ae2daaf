"""The programs people run: wiring and presentation only."""
