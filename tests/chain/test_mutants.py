"""What `assay bench mutants` says of a contract with one thing changed."""

from __future__ import annotations

import pickle
from pathlib import Path
from random import Random

import pytest
from benchmarks._notes import HEAD
from benchmarks.mutants import Mutant, mutants, reached, survives
from tests.chain.tribunal import honest

from assay.chain.contracts import MODULES
from assay.chain.contracts.compile import HERE

LAST = "opening._settle(claimed, found)"
"""Of `judge`: that the cell is what follows."""


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """A call of one referee that it grants, and one that it refuses."""
    _, found, index = honest("gated", Random(1))
    section = found.plan.at(index)[0]
    lie = section.encode([number ^ 1 for number in section.decode(found.cells[index])])
    calls = [(found.case(index).data, b""), (found.exchanged({index: lie}).case(index).data, None)]
    path = tmp_path / "noted"
    path.write_bytes(pickle.dumps({"Feed": [(data[:HEAD], data[HEAD:], answer) for data, answer in calls]}))
    return path


def changed(old: str, new: str) -> Mutant:
    """Feed.vy, with one line changed."""
    text = (HERE / "Feed.vy").read_text(encoding="utf-8")
    assert text.count(old) == 1
    return Mutant("Feed", text[: text.index(old)].count("\n") + 1, text.replace(old, new), new)


@pytest.mark.slow
def test_who_survives(noted: Path) -> None:
    """Neither who grants a lie nor who refuses the truth, but who does as before. The same code is no mutant."""
    assert survives(changed(LAST, "pass"), noted) is False
    assert survives(changed(LAST, "raise"), noted) is False
    assert survives(changed("most = max(most, abs(n))", "most = abs(n)"), noted) is True
    assert survives(changed(LAST, f"{LAST}  # the same"), noted) is None
    assert survives(changed(LAST, "nonsense"), noted) is None


def test_modules_are_tried_where_they_run() -> None:
    """A contract is not compiled for a change in what it does not call."""
    found = reached("Products")
    assert {source for source, _ in found} == {"Products", "opening", "plan"}
    lines = (HERE / "opening.vy").read_text(encoding="utf-8").splitlines()
    at = {name: next(n for n, line in enumerate(lines, 1) if f"def {name}(" in line) for name in ("_leaves", "_token")}
    assert ("opening", at["_leaves"]) in found
    assert ("opening", at["_token"]) not in found


@pytest.mark.parametrize("module", MODULES)
def test_each_mutant_differs_in_one_line(module: str) -> None:
    """From the source, where it says so."""
    lines = (HERE / f"{module}.vy").read_text(encoding="utf-8").splitlines()
    found = list(mutants(module))
    assert len({mutant.text for mutant in found}) == len(found)
    for mutant in found:
        pairs = zip(lines, mutant.text.splitlines(), strict=True)
        assert [at for at, (one, other) in enumerate(pairs, 1) if one != other] == [mutant.line]
