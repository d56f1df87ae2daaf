"""Assay: ask machines you do not trust, and know what answered."""

from __future__ import annotations

__version__ = "0.1.0"
