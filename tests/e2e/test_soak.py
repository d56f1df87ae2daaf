"""Half an hour among people who mean harm, with providers killed and frozen: the bars of `assay bench soak`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.soak.hostile import Attackers
from benchmarks.soak.town import Town

from benchmarks import soak

pytestmark = pytest.mark.e2e


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Everybody honest."""
    with ExitStack() as stack:
        made = Town(tmp_path, stack)
        made.open("http://127.0.0.1:9")
        yield made
        assert made.traces() == []


@pytest.mark.slow
def test_nobody_holds_a_connection_for_ever(town: Town) -> None:
    """Whoever is attacked, and however slowly or loudly: the attacker is hung up on in good time."""
    attackers = Attackers({name: program.url for name, program in town.running.items()}, b"{}")
    pairs = [(kind, target) for kind in attackers.kinds for target in town.running]
    threads = [threading.Thread(target=attackers.attack, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not attackers.held


@pytest.mark.slow
def test_a_minute_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody dies, and the books agree; a minute is too short to say more."""
    monkeypatch.setenv("ASSAY_BENCH_SCALE", "0.03")
    figures = {figure.name: figure for figure in soak.measure(print)}
    for name in ("programs_that_ended_by_themselves", "errors_that_nobody_expected", "receipts_that_do_not_hold"):
        assert figures[name].holds, figures[name]
    assert figures["signed_but_not_claimed"].holds
    assert figures["neither_answer_nor_clear_error"].holds


@pytest.mark.long
def test_half_an_hour_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bar."""
    monkeypatch.delenv("ASSAY_BENCH_SCALE", raising=False)
    missed = [figure for figure in soak.measure(print) if figure.holds is False]
    assert missed == []
