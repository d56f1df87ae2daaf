"""What a validator risks in disputes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """See `[validator]`."""

    budget: int
    """Wei of deposits in open disputes, in all."""
    at_once: int = 4
    """Open disputes."""
    least: int = 0
    """Wei of reward that a dispute has to promise, beyond its gas."""
