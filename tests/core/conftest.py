"""How hypothesis runs here: the same examples on every machine, and no stopwatch on busy ones."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("assay", deadline=None, derandomize=True)
settings.load_profile("assay")
