"""How positions are written in an address: `3,7,10-12`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from assay.core.encoding import MAX_IDS
from assay.core.errors import InvalidRequest

MOST_PARTS: Final = 8192
"""Numbers and ranges of one list."""


def parse_positions(text: str) -> Collection[int] | None:
    """The positions that a list names, which rise; None for an empty text: all.

    Raises:
        InvalidRequest: it is not of that form, or too long.
    """
    if not text:
        return None
    found: list[int] = []
    parts = text.split(",", MOST_PARTS)
    for part in parts:
        first, dash, last = part.partition("-")
        start, end = _number(first), _number(last if dash else first)
        if len(parts) > MOST_PARTS or end < start or (found and start <= found[-1]):
            raise _refusal()
        found += range(start, end + 1)
    return found


def spell_positions(positions: Collection[int]) -> str:
    """Inverse of `parse_positions`."""
    parts: list[list[int]] = []
    for position in sorted(positions):
        if parts and parts[-1][-1] == position - 1:
            parts[-1][1:] = [position]
        else:
            parts.append([position])
    return ",".join("-".join(map(str, part)) for part in parts)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < MAX_IDS):
        raise _refusal()
    return int(text)


def _refusal() -> InvalidRequest:
    return InvalidRequest(
        f"`positions` is no list of at most {MOST_PARTS} numbers and ranges that rise",
        field="positions",
        remedy="write it as 3,7,10-12, or leave it out for all",
    )
