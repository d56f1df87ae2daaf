"""The exact semantics at speed: compiled with numba, equal to `reference.py` bit for bit."""
