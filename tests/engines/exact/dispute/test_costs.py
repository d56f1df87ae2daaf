"""No step is too large for a contract, and docs/dispute.md says how large they are."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.exact.dispute.meter import (
    SHAPES,
    costs,
    costs_rows,
    largest,
    longest_path,
    shape_of,
    sizes_row,
)

from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.moves import MOST_BYTES
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.steps import STEPS

PAGE = (Path(__file__).parents[4] / "docs" / "dispute.md").read_text(encoding="utf-8")
WIDEST = {
    f"{width} {head_width}": shape_of(
        width, 64, 16, 8, head_width, 32768, 262144, head_norms=True, after=True, biases=True, gate="gelu"
    )
    for width, head_width in product((8192,), (256, 512))
}
"""As wide as the converter takes them, with everything that a model can have."""


def rows(first: str) -> list[list[str]]:
    """The cells of the page's table whose head begins so."""
    lines = PAGE.split(f"| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@given(st.integers(1, 5000), st.integers(1, 40), st.sampled_from([4, 16]), st.data())
def test_longest_path(leaves: int, count: int, fan: int, data: st.DataObject) -> None:
    """No run of so many leaves has a longer one."""
    if count <= leaves:
        start = data.draw(st.integers(0, leaves - count))
        assert trees.path_length(leaves, start, start + count, fan) <= longest_path(leaves, count, fan)


@pytest.mark.slow
@pytest.mark.parametrize("shape", WIDEST.values(), ids=list(WIDEST))
def test_the_widest_models(shape: Shape) -> None:
    """Every kind of step is within the bounds, for 2^24 cells."""
    found = costs(shape, 120_000, 1000)
    assert largest(shape, 120_000, 1000) > 1 << 24
    assert set(found) == set(STEPS)
    for kind, cost in found.items():
        assert cost.size <= MOST_BYTES, kind
        assert cost.products <= max(2112, 6.51 * shape.head_width), kind


def test_the_page_has_the_steps() -> None:
    """With what each costs for SmolLM2."""
    assert [[row[0], *row[3:]] for row in rows("kind")] == costs_rows()


@pytest.mark.slow
def test_the_page_has_the_models() -> None:
    """With their sizes."""
    assert rows("model") == [sizes_row(name) for name in SHAPES]
