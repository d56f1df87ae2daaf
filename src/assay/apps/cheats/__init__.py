"""Dishonest providers, for tests, demonstrations and sceptics: `assay serve --cheat NAME` (a developer option)."""

from __future__ import annotations

from assay.apps.cheats.catalogue import CHEATS, CaughtBy, Cheat, Dishonest, Workshop, make_cheat

__all__ = ["CHEATS", "CaughtBy", "Cheat", "Dishonest", "Workshop", "make_cheat"]
