"""What is deployed is what is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.chain import contracts
from assay.chain.contracts import NAMES
from assay.chain.contracts.compile import compiled

HERE = Path(contracts.__file__).parent
MOST_LINES, MOST_CODE = 1_400, 24_576


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_contract_is_that_of_its_source(name: str) -> None:
    """Byte for byte; `python -m assay.chain.contracts.compile` writes it anew."""
    kept = (HERE / "compiled" / f"{name}.json").read_text(encoding="utf-8")
    assert compiled(name) == kept, "run `python -m assay.chain.contracts.compile`"


def test_nothing_else_is_there_and_all_is_short() -> None:
    """Each source is compiled, each contract fits a chain (EIP-170), and all can be read in one evening."""
    sources = sorted(HERE.glob("*.vy"))
    assert [source.stem for source in sources] == sorted(NAMES)
    assert sum(len(source.read_text(encoding="utf-8").splitlines()) for source in sources) <= MOST_LINES
    for name in NAMES:
        assert len(contracts.artefact(name).code) <= MOST_CODE
