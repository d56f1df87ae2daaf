"""The history of a court: every case once, whatever the chain takes back, however it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apps.dispute_kit import EVE, VALIDATOR, Stage, Wrong
from tests.chain.nodes import away, error, result

from assay.chain.account import Accounts
from assay.chain.court_events import topic_of
from assay.chain.history import FRESH, History
from assay.core.errors import ChainFailed, ConfigError, NotFound

WRONG = Wrong(position=5, index=70)


class Watch:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


class Reader:
    """A history, each look of which is a new one."""

    def __init__(self, stage: Stage) -> None:
        court = stage.court(EVE)
        self.watch = Watch()
        self.history = History(lambda: court, clock=self.watch)

    def look(self) -> dict[str, str]:
        """States of cases by their names, the newest first."""
        self.watch.now += FRESH
        seen = self.history.look()
        assert seen.trouble is None
        return {case.name: case.state for case in seen.cases}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where model files are."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def stage(tmp_path: Path, models: Path) -> Iterator[Stage]:
    """A chain with a court."""
    made = Stage(tmp_path, models=models)
    yield made
    made.close()


def silence(stage: Stage, *wrongs: int) -> None:
    """Receipts under these numbers are disputed, and their provider says nothing."""
    found = [stage.answer(WRONG, sequence=number).receipt.digest for number in wrongs]
    stage.served = stage.serve
    accuser = stage.accuser()
    stage.play(lambda: accuser.look(found), turns=1)


def test_one_receipt_is_disputed_twice(stage: Stage) -> None:
    """The first dispute that is won makes the other void, whose deposit goes back; of both all is known."""
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    defender, accuser, eve = stage.defender(WRONG), stage.accuser(), stage.accuser(EVE)
    digest = bundle.receipt.digest
    stage.play(lambda: accuser.look([digest]), lambda: eve.look([digest]), defender.look)
    reader = Reader(stage)
    states = reader.look()
    assert sorted(states.values()) == ["challenger", "void"]
    for name, state in states.items():
        case = reader.history.case(name)
        assert (case.slashing is not None) == (state == "challenger")
        assert len(case.moved) == len(case.shown) - 1 == (case.dispute and case.dispute.moves)


def test_what_was_demanded_is_not_produced(stage: Stage) -> None:
    """A demand that is not answered slashes as a dispute does."""
    bundle = stage.answer(WRONG)
    accuser = stage.accuser()
    stage.play(lambda: accuser.look([bundle.receipt.digest]))
    reader = Reader(stage)
    assert reader.look() == {"1": "challenger"}
    case = reader.history.case("1")
    assert (case.kind, case.shown[0].state) == ("demand", b"")
    first, last = Accounts().of(stage.court(EVE), case)
    assert first.told.opening is not None
    assert first.told.opening.receipt["sequence"] == bundle.receipt.sequence
    assert last.told.stage == "demand"


def test_it_is_read_once_in_a_while(stage: Stage) -> None:
    """Within some seconds nobody is asked again; after them, only for what is new."""
    silence(stage, 1)
    reader = Reader(stage)
    assert reader.look() == {"1": "challenger"}
    before = len(stage.wire.asked)
    for _ in range(100):
        reader.history.look()
    assert len(stage.wire.asked) == before
    reader.look()
    assert len(stage.wire.asked) - before <= 7


def test_earlier_blocks_are_read_bit_by_bit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest cases are there at once, all in the end, and the same as if they were read in one go."""
    silence(stage, 1)
    silence(stage, 2)
    for _ in range(9):
        stage.pass_time(1)
    whole = Reader(stage)
    assert whole.look() == {"2": "challenger", "1": "challenger"}
    monkeypatch.setattr("assay.chain.history.MAX_BLOCKS", 5)
    reader, found = Reader(stage), list[dict[str, str]]()
    reader.history._clock = lambda: setattr(reader.watch, "now", reader.watch.now + FRESH) or reader.watch.now  # type: ignore[misc]
    while not reader.history.seen.whole:
        found.append(reader.look())
    assert found[0] == {}
    assert {"2": "challenger"} in found
    assert found[-1] == {"2": "challenger", "1": "challenger"}
    assert reader.history.seen.cases == whole.history.seen.cases
    assert reader.history.seen.back == 0


def test_no_more_than_some_are_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones; older ones are not read again."""
    monkeypatch.setattr("assay.chain.history.MOST_CASES", 1)
    silence(stage, 1)
    reader = Reader(stage)
    assert reader.look() == {"1": "challenger"}
    silence(stage, 2)
    for _ in range(2):
        assert reader.look() == {"2": "challenger"}
    assert (len(reader.history._files), len(reader.history._cases)) == (1, 1)
    with pytest.raises(NotFound):
        reader.history.case("1")


@pytest.mark.parametrize("counted", [True, False], ids=["over what counted", "within what does not count"])
def test_blocks_are_taken_back(counted: bool, tmp_path: Path, models: Path) -> None:
    """Cases in them are no more, and what comes instead is told, as deep as it goes."""
    stage = Stage(tmp_path, models=models, confirmations=3)
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    reader, accuser, court = Reader(stage), stage.accuser(), stage.court(EVE)
    while court.count() == 0:
        assert reader.look() == {}
        accuser.look([bundle.receipt.digest])
        stage.outboxes[VALIDATOR].step()
        stage.pass_time(61)
    assert reader.look() == {"1": "open"}
    [opened] = court.happened("Opened", 0, stage.chain.head.number)
    for _ in range(4 if counted else 0):
        stage.pass_time(1)
    assert reader.look() == {"1": "open"}
    stage.take_back(stage.chain.head.number - opened.block + 1)
    for _ in range(6 if counted else 0):
        stage.pass_time(7)  # other blocks under the same numbers
    assert reader.look() == {}
    stage.close()


def test_a_chain_that_is_away(stage: Stage) -> None:
    """What was read stays, and the reason is told; a court that cannot be opened is tried again."""
    silence(stage, 1)
    reader = Reader(stage)
    reader.look()
    for rule in (away, lambda _: error("no"), lambda _: result("0x1")):
        stage.wire.rules["*"] = rule
        reader.watch.now += FRESH
        seen = reader.history.look()
        assert isinstance(seen.trouble, ChainFailed)
        assert [case.name for case in seen.cases] == ["1"]
    stage.wire.rules.clear()
    assert reader.look() == {"1": "challenger"}
    court, tries = stage.court(EVE), iter([ConfigError("no court", "name it")])

    def opened() -> Any:
        for each in tries:
            raise each
        return court

    watch = Watch()
    history = History(opened, clock=watch)
    assert isinstance(history.look().trouble, ConfigError)
    watch.now += FRESH
    assert [case.name for case in history.look().cases] == ["1"]


def test_events_that_make_no_sense(stage: Stage) -> None:
    """Of one dispute: the others are told."""
    silence(stage, 1)
    silence(stage, 2)

    def strange(params: Any) -> Any:
        found = stage.wire.provider.make_request("eth_getLogs", params)["result"]
        first = ["0x" + topic_of("Opened").hex(), "0x" + "1".rjust(64, "0")]
        return result([each | ({"data": "0x" + "ff" * 320} if each["topics"][:2] == first else {}) for each in found])

    stage.wire.rules["eth_getLogs"] = strange
    assert Reader(stage).look() == {"2": "challenger"}


def test_moves_that_nobody_can_read(stage: Stage) -> None:
    """Are told as far as states tell them: what was named, and under which digests."""
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    defender, accuser = stage.defender(WRONG), stage.accuser()
    stage.play(lambda: accuser.look([bundle.receipt.digest]), defender.look)
    reader = Reader(stage)
    reader.look()
    case, court = reader.history.case("1"), stage.court(EVE)
    plain = Accounts().of(court, case)
    stage.wire.rules["eth_getTransactionByHash"] = lambda params: result(
        {"hash": params[0], "to": EVE.address, "input": "0x"}
    )
    blind = Accounts().of(court, case)
    assert [step.told.stage for step in blind] == [step.told.stage for step in plain]
    assert blind[0].told.opening is None
    named = [node for step in plain for node in step.told.named]
    assert named
    assert [node for step in blind for node in step.told.named] == [node._replace(digest=None) for node in named]
    assert [step.told.roots for step in blind] == [step.told.roots for step in plain]
    assert all(step.told.entry is None and not step.told.pieces for step in blind)


def test_a_node_that_is_slow(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds nobody up for long: what it has told is remembered, and the rest is asked the next time."""
    silence(stage, 1)
    reader = Reader(stage)
    reader.look()
    case, court, accounts = reader.history.case("1"), stage.court(EVE), Accounts()
    monkeypatch.setattr("assay.chain.account._SECONDS", -1.0)
    with pytest.raises(ChainFailed, match="slowly"):
        accounts.of(court, case)
    monkeypatch.undo()
    before = len(stage.wire.asked)
    assert len(accounts.of(court, case)) == 2
    assert stage.wire.asked[before:].count("eth_getTransactionReceipt") == 1
