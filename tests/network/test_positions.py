"""Positions in an address: one spelling, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.encoding import MAX_IDS
from assay.core.errors import InvalidRequest
from assay.network.positions import MOST_PARTS, parse_positions, spell_positions


@given(st.sets(st.integers(0, 300), min_size=1))
def test_spelled_and_read(positions: set[int]) -> None:
    """Reading gives back what was spelled, in order; neighbours are one range."""
    text = spell_positions(positions)
    assert parse_positions(text) == sorted(positions)
    assert all(int(b.split("-")[0]) > int(a.split("-")[-1]) + 1 for a, b in zip(text.split(","), text.split(",")[1:]))  # noqa: B905


def test_all() -> None:
    """An empty text is all of them."""
    assert parse_positions("") is None
    assert spell_positions([5, 3, 4, 9]) == "3-5,9"


@pytest.mark.parametrize(
    "text",
    [
        "x", "-", "1-", "-1", "1,", ",1", "1,,2", "2,1", "1,1", "5-3", "1-4,4", "1 ", "+1", "1_0", "٣", "1-2-3",
        f"{MAX_IDS}", f"0-{MAX_IDS}", "9" * 5000, ",".join(map(str, range(0, 2 * MOST_PARTS + 2, 2))),
    ],
)  # fmt: skip
def test_other_texts(text: str) -> None:
    """Everything else is refused with the field's name."""
    with pytest.raises(InvalidRequest) as refused:
        parse_positions(text)
    assert refused.value.field == "positions"
