"""The fault campaigns of the exact benchmark, small: what must be caught is, and honest answers raise no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.exact import cost, faults
from tests.engines.exact.models import write_model

from assay.apps.figures import Figure
from assay.engines.exact.convert import convert
from assay.engines.exact.program import Program, program_of


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A small model."""
    return program_of(convert(write_model(tmp_path_factory.mktemp("m") / "m.gguf", "qwen3", layers=2)))


def quiet(_line: str) -> None:
    """Progress is not looked at."""


def assert_all_hold(figures: list[Figure]) -> None:
    """Each has its bar, and keeps to it."""
    assert figures
    assert all(figure.holds for figure in figures), figures


def test_every_fault_is_caught_and_named(program: Program) -> None:
    """Each kind a few times."""
    assert_all_hold(list(faults._trials(quiet, "small", [program], 60)))


def test_nothing_passes_and_nobody_is_accused(program: Program) -> None:
    """Errors that were made to pass do not; honest answers do."""
    assert_all_hold(list(faults._search(quiet, [program], 25)))
    assert_all_hold(list(faults._honest(quiet, [program], 10)))


def test_a_wrong_table_is_caught(tmp_path: Path) -> None:
    """An answer by somebody whose sine is wrong in one place."""
    for name, given in faults.VARIANTS.items():
        write_model(tmp_path / name, **given)
    assert_all_hold(list(faults._tables(quiet, tmp_path, 2)))


def test_wide_models_are_cheaper_to_audit() -> None:
    """By count: the weights of a row, against one accumulator."""
    shapes = [cost.imagined(**shape) for shape in cost.LARGE.values()]
    shares = [each.accumulators / each.weights for each in shapes]
    assert shares == sorted(shares, reverse=True)
