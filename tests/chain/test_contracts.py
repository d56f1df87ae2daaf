"""What is deployed is what is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.chain.tables import artefact_of, code_of

from assay.chain import contracts
from assay.chain.contracts import MODULES, NAMES, REFEREES, TABLES

HERE = Path(contracts.__file__).parent
MOST_LINES, MOST_REFEREES, MOST_CODE = 2_100, 2_900, 24_576


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in (*REFEREES, "Game") else name for name in NAMES]
)
def test_the_compiled_contract_is_that_of_its_source(name: str) -> None:
    """Byte for byte; `python -m assay.chain.contracts.compile` writes it anew.

    The compiler keeps gigabytes for ever, so it has a process of its own.
    """
    kept = (HERE / "compiled" / f"{name}.json").read_text(encoding="utf-8")
    code = "import sys; from assay.chain.contracts.compile import compiled; sys.stdout.write(compiled(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    assert done.stdout == kept, "run `python -m assay.chain.contracts.compile`"


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_semantics(name: str) -> None:
    """To the last bit; and whoever calls one runs into a halt at its first byte, with or without an operand."""
    kept = (HERE / "compiled" / f"{name}.json").read_text(encoding="utf-8")
    assert artefact_of(name) == kept, "run `python -m tests.chain.tables`"
    assert code_of(name)[0] in (0x00, 0x40)


def test_nothing_else_is_there_and_all_is_short() -> None:
    """Each source is compiled, each contract fits a chain (EIP-170), and all can be read in one evening."""
    lines = {source.stem: len(source.read_text(encoding="utf-8").splitlines()) for source in HERE.glob("*.vy")}
    assert set(lines) == {*NAMES, *MODULES}
    assert {path.stem for path in (HERE / "compiled").iterdir()} == {*NAMES, *TABLES}
    referees = sum(lines[name] for name in (*REFEREES, *MODULES))
    assert referees <= MOST_REFEREES
    assert sum(lines.values()) - referees <= MOST_LINES
    for name in (*NAMES, *TABLES):
        assert len(contracts.artefact(name).code) <= MOST_CODE
