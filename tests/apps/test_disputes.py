"""Disputes that both sides play unattended, on the embedded chain with the real court, game and referees."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.apps.dispute_kit import BOND, VALIDATOR, Stage, Wrong

from assay.chain.court_events import CHALLENGER, PROVER


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where model files are."""
    return tmp_path_factory.mktemp("models")


def test_a_wrong_number_is_slashed(tmp_path: Path, models: Path) -> None:
    """A provider with a wrong number in one pass serves no trace: what it committed to is demanded, then disputed, both
    play, the last step fails on the chain, and the bond is split."""
    stage = Stage(tmp_path, models=models)
    wrong = Wrong(position=5, index=70)
    bundle = stage.answer(wrong)
    defender, accuser = stage.defender(wrong), stage.accuser()
    failed = [bundle.receipt.digest]
    before = stage.tokens(VALIDATOR.address)
    for seconds in [61] * 16 + [3601, 61, 61]:
        accuser.look(failed)
        stage.finish()
        defender.look()
        stage.finish()
        stage.pass_time(seconds)
    assert stage.counted.found[CHALLENGER, "won"] == 1
    assert stage.counted.found[PROVER, "lost"] == 1
    assert stage.tokens(VALIDATOR.address) == before - stage.fee + BOND // 2 // 4
