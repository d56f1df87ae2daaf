"""Disputes that both sides play unattended, on the embedded chain with the real court, game and referees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.apps.dispute_kit import BOND, EVE, MINTER, PROVIDER, VALIDATOR, Stage, Wrong
from tests.chain.nodes import away, error, result

from assay.apps.disputes.seat import Seat, challenge_of, terms_of
from assay.apps.disputes.workbench import Workbench
from assay.chain.court import CourtClient
from assay.chain.court_events import CHALLENGER, PROVER, read_moved
from assay.chain.docket import Docket
from assay.chain.game import PADDING, read_state
from assay.core import tree16
from assay.core.bundle import Bundle
from assay.core.errors import ChainFailed
from assay.engines.exact.dispute import trees

WRONG = Wrong(position=5, index=70)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where model files are."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def stage(tmp_path: Path, models: Path) -> Iterator[Stage]:
    """All of it."""
    made = Stage(tmp_path, models=models)
    yield made
    made.close()


class Books:
    """Tokens of everybody, before and after."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        named = {"provider": PROVIDER, "validator": VALIDATOR, "eve": EVE, "pool": MINTER}
        court = self._stage.court(EVE)
        found = {
            name: court.client.token_balance(key.address) + court.credit(key.address) for name, key in named.items()
        }
        found["bond"] = court.stake(PROVIDER.address).bond
        found["burned"] = court.credit("0x" + "0" * 36 + "dead")
        return found

    @property
    def changes(self) -> dict[str, int]:
        """What has changed; it adds up to 0."""
        after = self._now()
        found = {name: after[name] - before for name, before in self._before.items() if after[name] != before}
        assert sum(found.values()) == 0
        return found


SLASHED = {"validator": BOND // 8, "bond": -BOND // 2, "pool": BOND // 4, "burned": BOND // 8}


def test_a_wrong_number_is_slashed(stage: Stage) -> None:
    """A provider with a wrong number in one pass serves no trace: what it committed to is demanded, then disputed; both
    play, the last step fails on the chain, and the bond is split to the last wei."""
    bundle = stage.answer(WRONG)
    books = Books(stage)
    defender, accuser = stage.defender(WRONG), stage.accuser()
    stage.play(lambda: accuser.look([bundle.receipt.digest]), defender.look)
    assert stage.counted.found == {
        (PROVER, "opened"): 2, (PROVER, "answered"): 1, (PROVER, "lost"): 1, (PROVER, "wei"): BOND // 2,
        (CHALLENGER, "opened"): 1, (CHALLENGER, "won"): 1, (CHALLENGER, "wei"): BOND // 2,
    }  # fmt: skip
    fee = stage.values.fee
    assert books.changes == SLASHED | {"validator": BOND // 8 - fee, "provider": fee}


WRONGS = {
    "of the prompt": ("llama", Wrong(position=0, index=3)),
    "of keys": ("qwen2", Wrong(position=4, index=1)),
    "of a normalisation": ("gemma3", Wrong(position=2, index=300)),
    "a token": ("llama", Wrong(token=1)),
    "a drawn token": ("drawn", Wrong(token=2)),
    "a token that is not there": ("llama", Wrong(token=1, by=100_000)),
}


@pytest.mark.parametrize("what", WRONGS)
def test_with_a_trace_nothing_is_demanded(what: str, tmp_path: Path, models: Path) -> None:
    """Where the trace's beginning is served, what is wrong is disputed at once, whatever it is."""
    name, wrong = WRONGS[what]
    stage = Stage(tmp_path, name, models=models)
    bundle = stage.answer(wrong, drawn=name == "drawn")
    stage.served = stage.serve
    books, defender, accuser = Books(stage), stage.defender(wrong), stage.accuser()
    stage.play(lambda: accuser.look([bundle.receipt.digest]), defender.look)
    assert stage.counted.found[CHALLENGER, "won"] == 1
    assert books.changes == SLASHED
    stage.close()


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_an_honest_provider_is_not_slashed(name: str, tmp_path: Path, models: Path) -> None:
    """A challenger that claims to have computed something else plays by the rules, and loses its deposit. The provider
    never reads what was moved: states tell."""
    stage = Stage(tmp_path, name, models=models)
    bundle = stage.answer()
    stage.served = stage.serve
    books, defender = Books(stage), stage.defender()
    asked = len(stage.wire.asked)
    eve = stage.accuser(EVE, Wrong(position=3, index=20))
    stage.play(lambda: eve.look([bundle.receipt.digest]), defender.look)
    assert stage.counted.found[PROVER, "won"] == 1
    deposit = stage.values.deposit
    assert books.changes == {"provider": deposit, "eve": -deposit}
    assert stage.outboxes[EVE].last("dispute/") is not None
    reads = [
        each for each in stage.wire.asked[asked:] if each in ("eth_getTransactionByHash", "debug_traceTransaction")
    ]
    assert len(reads) <= 7  # Eve's
    stage.close()


def test_a_provider_with_other_chunks(stage: Stage) -> None:
    """Whose records have a chunk of zeros more, and which is honest otherwise, can make every move but the last."""
    wrong = Wrong(padded=True)
    bundle = stage.answer(wrong)
    stage.served = stage.serve
    books, defender, accuser = Books(stage), stage.defender(wrong), stage.accuser()
    stages: list[str] = []
    watch(stage, stages)
    stage.play(lambda: accuser.look([bundle.receipt.digest]), defender.look)
    assert stages[-1] == "step"
    assert books.changes == SLASHED


def test_a_provider_with_other_cells(stage: Stage) -> None:
    """That shows a tree over a million cells, of which it has the first ones: the challenger, who cannot follow, names
    legal nodes until the provider has to show a step that leads there."""
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    books, accuser = Books(stage), stage.accuser()
    stages: list[str] = []
    watch(stage, stages)
    court = stage.court(PROVIDER)
    liar = CellLiar(court, stage.bench(WRONG), bundle)
    stage.play(lambda: accuser.look([bundle.receipt.digest]), liar.look)
    assert "cell nodes" in stages
    assert stages[-1] == "step"
    assert books.changes == SLASHED


def watch(stage: Stage, stages: list[str]) -> None:
    """Note which stages a dispute comes to."""
    before, court = stage.pass_time, CourtClient(stage.court(EVE).client)

    def passed(seconds: int) -> None:
        moved = court.happened("Moved", 1, stage.chain.head.number)
        stages[:] = [read_state(read_moved(entry).state).stage for entry in moved]
        before(seconds)

    stage.pass_time = passed  # type: ignore[method-assign]


class CellLiar:
    """A provider that plays by the rules up to the cells."""

    def __init__(self, court: CourtClient, bench: Workbench, bundle: Bundle) -> None:
        self._court, self._bundle, self._docket = court, bundle, Docket(court)
        self._own = bench.response(bundle)
        self._terms = terms_of(bundle, bench.shape, bench.root)
        self._seat: Seat | None = None
        dice = Random(7)
        digests = [[dice.randbytes(32) for _ in range(256)] for _ in range(3)]
        digests[1][0] = tree16.parents(digests[2][:16])[0]
        digests[0][0] = tree16.parents(tree16.parents(digests[1]))[0]
        self._shown = digests

    def look(self) -> None:
        """Move, if it is time to."""
        for case in self._docket.look():
            dispute = case.dispute
            if dispute.turn != PROVER or not case.complete:
                continue
            state = read_state(case.history[-1].state)
            top, middle, low = self._shown
            beside = lambda level: b"".join(trees.prove(trees.levels_of(level), 0, 1))  # noqa: E731
            if self._seat is None:
                self._seat = Seat(self._terms, challenge_of(self._terms, case.history[0]), self._own, PROVER)
            if state.stage == "cells":
                data = (1 << 20).to_bytes(32, "big") + b"".join(top)
            elif state.stage == "cell nodes":
                level, above = (middle, top) if state.one.level == 5 else (low[:16], middle)
                data = b"".join(level) + beside(above)
            elif state.stage == "step":
                continue
            else:
                data = self._seat.move(case.history, lambda *_: b"")
                name = f"{dispute.id}/{dispute.moves}"
                self._court.send(dispute.moving(case.history[-1].state, data), name)
                continue
            call = dispute.moving(case.history[-1].state, data + PADDING)
            self._court.send(call, f"{dispute.id}/{dispute.moves}")


def test_a_silent_provider_loses(stage: Stage) -> None:
    """To whoever disputes, or demands what it has committed to."""
    one, other = stage.answer(WRONG), stage.answer(WRONG, sequence=2)
    stage.served = lambda bundle: stage.serve(bundle) if bundle is one else stage._not_served(bundle)
    books, accuser = Books(stage), stage.accuser()
    failed = [one.receipt.digest, other.receipt.digest]
    stage.play(lambda: accuser.look(failed))
    assert stage.counted.found == {
        (CHALLENGER, "opened"): 2,
        (CHALLENGER, "won"): 2,
        (CHALLENGER, "wei"): BOND * 3 // 4,
    }
    assert books.changes["bond"] == -BOND * 3 // 4


def test_a_silent_challenger_loses(stage: Stage) -> None:
    """The provider ends the dispute itself, and collects the deposit."""
    bundle = stage.answer()
    stage.served = stage.serve
    books, defender = Books(stage), stage.defender()
    eve = stage.accuser(EVE, Wrong(position=3, index=20))
    looks = iter(range(5))

    def look() -> None:
        if next(looks, None) is not None:
            eve.look([bundle.receipt.digest])

    stage.play(look, defender.look)
    deposit = stage.values.deposit
    assert books.changes == {"provider": deposit, "eve": -deposit}
    assert stage.court(PROVIDER).running(PROVIDER.address) == 0


@pytest.mark.parametrize("honest", [True, False])
def test_both_sides_start_anew_before_each_look(honest: bool, stage: Stage) -> None:
    """What they know is on the chain, in their outboxes, and in the store of receipts."""
    bundle = stage.answer(None if honest else WRONG)
    books, lie = Books(stage), Wrong(position=3, index=20) if honest else None
    stage.play(
        lambda: stage.accuser(EVE if honest else VALIDATOR, lie).look([bundle.receipt.digest]),
        lambda: stage.defender(None if honest else WRONG).look(),
    )
    deposit, fee = stage.values.deposit, stage.values.fee
    if honest:
        assert books.changes == {"provider": deposit + fee, "eve": -deposit - fee}
    else:
        assert books.changes == SLASHED | {"validator": BOND // 8 - fee, "provider": fee}


@pytest.mark.parametrize(
    ("honest", "seed"),
    [(False, 1), *(pytest.param(honest, seed, marks=pytest.mark.slow) for honest in (True, False) for seed in (2, 3))],
)
def test_blocks_are_taken_back(honest: bool, seed: int, tmp_path: Path, models: Path) -> None:
    """Again and again the chain loses blocks that do not count yet; outboxes send again, and the right side wins."""
    dice, depth = Random(seed), 3
    stage = Stage(tmp_path, models=models, confirmations=depth)
    bundle = stage.answer(None if honest else WRONG)
    stage.served = stage.serve
    books, lie = Books(stage), Wrong(position=3, index=20) if honest else None
    accuser = stage.accuser(EVE if honest else VALIDATOR, lie)
    defender = stage.defender(None if honest else WRONG)

    def step() -> None:
        for each in stage.outboxes.values():
            for _ in range(6):
                each.step()

    def lose() -> None:
        step()
        if dice.random() < 0.3:
            stage.take_back(dice.randrange(1, depth + 1))
        stage.chain.pass_time(0)
        step()

    court, still, before = stage.court(EVE) if not honest else CourtClient(accuser._court.client), 0, None
    for _ in range(200):
        accuser.look([bundle.receipt.digest])
        lose()
        defender.look()
        lose()
        stage.pass_time(61)
        kept = court.dispute(1)
        if kept is None and court.count() == 1:
            break
        still = still + 1 if kept is not None and kept == before else 0
        before = kept
        if still == 15:  # the provider has nothing left to say
            assert not honest
            stage.pass_time(3601)
    for _ in range(8):
        accuser.look([bundle.receipt.digest])
        defender.look()
        step()
        stage.pass_time(61)
    deposit = stage.values.deposit
    assert books.changes == ({"provider": deposit, "eve": -deposit} if honest else SLASHED)
    stage.close()


def test_moves_through_another_contract(stage: Stage) -> None:
    """Are read from the node's trace of the transaction; where it traces nothing, that is waited for."""
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    provider, court = stage.wire.provider, stage.addresses.court
    plain = lambda name: provider.make_request("eth_getTransactionByHash", [name])["result"]  # noqa: E731

    def hidden(params: Any) -> Any:
        found = plain(params[0])
        moves = found and found["to"] == court and found["from"] == PROVIDER.address
        return result(found | {"to": EVE.address, "input": "0x"}) if moves else None

    def traced(params: Any) -> Any:
        own = plain(params[0])
        inner = {"type": "CALL", "to": court, "input": own["input"]}
        failed = inner | {"error": "execution reverted", "input": "0x00"}
        return result(
            {"type": "CALL", "to": EVE.address, "input": "0x", "calls": [failed, {"calls": [inner]} | failed, inner]}
        )

    stage.wire.rules["eth_getTransactionByHash"] = hidden
    stage.wire.rules["debug_traceTransaction"] = lambda _: error("the method does not exist", -32601)
    books, defender, accuser = Books(stage), stage.defender(WRONG), stage.accuser()
    for _ in range(6):
        accuser.look([bundle.receipt.digest])
        defender.look()
        stage.finish()
        stage.pass_time(61)
    assert stage.outboxes[VALIDATOR].last("dispute/") is None
    stage.wire.rules["debug_traceTransaction"] = traced
    stage.play(lambda: accuser.look([bundle.receipt.digest]), defender.look)
    assert books.changes == SLASHED


def test_moves_that_nobody_can_read(stage: Stage) -> None:
    """Cost the challenger its deposit at most: it goes on as long as there are legal moves."""
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    stage.wire.rules["eth_getTransactionByHash"] = lambda params: result(
        {"hash": params[0], "to": EVE.address, "input": "0x"}
    )
    books, defender, accuser = Books(stage), stage.defender(WRONG), stage.accuser()
    stage.play(lambda: accuser.look([bundle.receipt.digest]), defender.look, turns=120)
    deposit = stage.values.deposit
    assert books.changes == {"provider": deposit, "validator": -deposit}
    assert stage.outboxes[VALIDATOR].last("dispute/") is not None


def test_what_is_not_disputed(stage: Stage) -> None:
    """Honest answers, those that nobody has, old ones, more than fit into the budget or are open at once, and those of
    who has next to nothing at stake."""
    good, bad, second = stage.answer(), stage.answer(WRONG, sequence=2), stage.answer(WRONG, sequence=3)
    stage.served = stage.serve
    everything = [good.receipt.digest, bytes(32), bad.receipt.digest, second.receipt.digest]
    deposit = stage.values.deposit
    for limits in ({"budget": deposit - 1}, {"at_once": 0}, {"least": BOND // 8 + 1}):
        accuser = stage.accuser(**limits)
        for _ in range(4):
            accuser.look(everything)
            stage.finish()
            stage.pass_time(61)
    assert stage.court(EVE).count() == 0
    for limits in ({"budget": 2 * deposit - 1}, {"at_once": 1}):
        accuser = stage.accuser(**limits)
        for _ in range(4):
            accuser.look(everything)
            stage.finish()
            stage.pass_time(61)
        assert stage.court(EVE).count() == 1
    stage.pass_time(stage.values.age)
    accuser = stage.accuser()
    for _ in range(4):
        accuser.look(everything)
        stage.finish()
        stage.pass_time(61)
    assert stage.court(EVE).count() == 1


def test_who_cannot_pay(stage: Stage) -> None:
    """A validator without the deposit waits until it has it."""
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    court = stage.court(VALIDATOR)
    court.bond(court.client.token_balance(VALIDATOR.address), "all that it has")
    stage.finish()
    accuser = stage.accuser()
    for _ in range(3):
        accuser.look([bundle.receipt.digest])
        stage.finish()
        stage.pass_time(61)
    assert stage.court(EVE).count() == 0
    stage.devnet.fund(VALIDATOR.address)
    stage.play(lambda: accuser.look([bundle.receipt.digest]))
    assert stage.counted.found[CHALLENGER, "won"] == 1


def test_two_receipts_under_one_number(stage: Stage) -> None:
    """Are shown once, however often they are seen."""
    one, other = stage.answer(), stage.answer(WRONG)
    books = Books(stage)
    pair = one.receipt.digest, other.receipt.digest
    for _ in range(3):
        stage.play(lambda: stage.accuser().look([], [pair]), turns=1)
    assert books.changes == SLASHED


def test_a_node_that_is_away(stage: Stage) -> None:
    """Is asked again at the next look."""
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    books, defender, accuser = Books(stage), stage.defender(WRONG), stage.accuser()
    dice = Random(5)

    def shaky(look: Any) -> Any:
        def tried() -> None:
            left = dice.randrange(1, 40)

            def sometimes(params: Any) -> Any:
                nonlocal left
                left -= 1
                return away(params) if left < 0 else None

            stage.wire.rules["*"] = sometimes
            try:
                look()
            except ChainFailed:
                pass
            finally:
                del stage.wire.rules["*"]

        return tried

    stage.play(shaky(lambda: accuser.look([bundle.receipt.digest])), shaky(defender.look), turns=60)
    stage.play(lambda: accuser.look([bundle.receipt.digest]), defender.look, turns=1)
    assert books.changes == SLASHED


def test_a_node_that_gives_few_blocks_at_a_time(stage: Stage) -> None:
    """Is asked for fewer."""
    bundle = stage.answer(WRONG)
    for _ in range(40):
        stage.pass_time(1)

    def few(params: Any) -> Any:
        first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
        return error("query exceeds the range of blocks") if last - first > 7 else None

    stage.wire.rules["eth_getLogs"] = few
    books = Books(stage)
    stage.play(lambda: stage.accuser().look([bundle.receipt.digest]), lambda: stage.defender(WRONG).look())
    assert books.changes["bond"] == -BOND // 2


def test_a_dispute_of_some_time_ago(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is found again after a restart, however many blocks have come since."""
    monkeypatch.setattr("assay.chain.docket.MAX_BLOCKS", 3)
    bundle = stage.answer(WRONG)
    stage.served = stage.serve
    accuser, court = stage.accuser(), stage.court(EVE)
    while court.count() == 0:
        accuser.look([bundle.receipt.digest])
        stage.finish()
        stage.pass_time(61)
    for _ in range(20):
        stage.pass_time(1)
    defender = stage.defender(WRONG)
    assert defender.look() == stage.accuser().look([bundle.receipt.digest]) == 1
    stage.finish()
    assert len(court.happened("Moved", 1, stage.chain.head.number)) == 1


def test_an_event_that_makes_no_sense(stage: Stage) -> None:
    """Holds up its own dispute only."""
    one, other = stage.answer(WRONG), stage.answer(WRONG, sequence=2)
    stage.served = stage.serve

    def strange(params: Any) -> Any:
        topics = params[0]["topics"]
        if len(topics) < 2 or topics[1] != "0x" + "1".rjust(64, "0"):
            return None
        found = stage.wire.provider.make_request("eth_getLogs", params)["result"]
        return result([each | {"data": "0x" + "ff" * 320} for each in found])

    stage.wire.rules["eth_getLogs"] = strange
    defender, accuser = stage.defender(WRONG), stage.accuser()
    stage.play(lambda: accuser.look([one.receipt.digest, other.receipt.digest]), defender.look)
    court = stage.court(EVE)
    assert [court.is_slashed(each.receipt.digest) for each in (one, other)] == [False, True]
    del stage.wire.rules["eth_getLogs"]
    stage.play(lambda: accuser.look([one.receipt.digest, other.receipt.digest]), defender.look, turns=1)
    assert stage.court(EVE).is_slashed(one.receipt.digest)
