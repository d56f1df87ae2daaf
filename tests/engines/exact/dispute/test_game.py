"""Disputes: whoever lies loses, whichever side it is and however it goes on, within few moves of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
from benchmarks._dispute import Bent, bent, guide
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.engines.exact.dispute.kit import (
    VARIANTS,
    Answer,
    LyingProver,
    answer,
    changed,
    plain_cells,
    run,
    settle,
)
from tests.engines.exact.dispute.test_steps import aims, vectors

from assay.core.errors import BindingMismatch
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import dispute, most_exchanges
from assay.engines.exact.dispute.moves import MOST_BYTES, Challenge, Timeout, Turn
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Target, TokenTarget
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.sides import Challenger, Player, Prover, find_fault, play
from assay.engines.exact.dispute.steps import STEPS
from assay.engines.exact.record import CHUNK

NAMES = st.sampled_from(sorted(VARIANTS))
DICE = st.integers(0, 2**32).map(Random)
few = settings(deadline=None, max_examples=40)


@cache
def prover(one: Answer) -> Prover:
    """The honest one, which keeps the cells that it has expanded."""
    return Prover(one.own)


def targets(one: Answer, dice: Random) -> Target:
    """Some number of the response, each vector as likely as another, or a token."""
    position = dice.randrange(len(one.own.records))
    if dice.random() < 0.15:
        return TokenTarget(dice.randrange(one.own.prompt - 1, len(one.own.records)))
    start, size = one.shape.vector(*dice.choice(vectors(one.shape)))
    return NumberTarget(position, start + dice.choice([dice.randrange(size), size - 1]))


@given(NAMES, DICE)
@few
def test_an_honest_prover_is_never_convicted(name: str, dice: Random) -> None:
    """Whatever pass, number and cell a challenger leads to, and whatever chunk it has opened beside."""
    one = answer(name)
    target = targets(one, dice)
    cell = dice.choice([None, dice.randrange(Plan(one.shape, target, one.rules).count)])
    both = dice.choice([None, dice.randrange(1000)])
    outcome = settle(one.terms(), Prover(one.own), guide(one.shape, target, cell, both=both))
    assert outcome.winner == "prover"
    assert "follows from what is agreed" in outcome.reason


@pytest.mark.parametrize("name", VARIANTS)
def test_two_honest_sides_have_no_dispute(name: str) -> None:
    """There is nothing to challenge."""
    own = answer(name).own
    assert find_fault(own, own.leaves) is None


@given(NAMES, DICE)
@few
def test_wrong_numbers_are_found(name: str, dice: Random) -> None:
    """Wrong numbers in a receipt, whatever cells the prover shows for them: honest ones, ones that end as it wants,
    ones that are wrong somewhere, with or without their consequences."""
    one = answer(name)
    position = dice.randrange(len(one.own.records))
    record, wrong = changed(one.own, position, dice)
    assume(wrong)
    theirs = one.altered(position, record)
    strategy = dice.randrange(4)

    def change(plan: Plan) -> dict[int, bytes]:
        assert isinstance(plan.target, NumberTarget)
        assert plan.target.index == min(wrong, key=one.shape.rank)
        last = {plan.count - 1: plan.sections[-1].encode([int(record[plan.target.index])])}
        if strategy < 2:
            return last if strategy else {}
        at = dice.randrange(plan.count)
        return {at: bent(plan, at, plain_cells(one.own, plan.target)[at], dice)} | last

    challenge = find_fault(one.own, theirs.leaves)
    assert challenge == Challenge(position)
    liar = LyingProver(theirs, change, onwards=strategy == 3)
    outcome = settle(one.terms(theirs), liar, Challenger(one.own, challenge))
    assert outcome.winner == "challenger", outcome


@given(NAMES, DICE)
@few
def test_both_parts_of_a_record_are_compared(name: str, dice: Random) -> None:
    """A wrong input changes keys: what is computed first is disputed, wherever it stands in the record."""
    one = answer(name)
    position, layer = len(one.own.records) - 1, dice.randrange(len(one.shape.layers))
    record = one.own.records[position].copy()
    for vector in ("input", "keys", "gated"):
        record[one.shape.vector(layer, vector)[0]] ^= 1
    theirs = one.altered(position, record)
    outcome = settle(one.terms(theirs), Prover(theirs), Challenger(one.own, Challenge(position)))
    assert outcome.winner == "challenger"
    input_at = one.shape.vector(layer, "input")[0]
    seen: list[Target] = []
    target = play(dispute(one.terms(theirs)), Noting(Prover(theirs), seen), Challenger(one.own, Challenge(position)))
    assert target.winner == "challenger"
    assert seen[-1] == NumberTarget(position, input_at)


class Noting:
    """A player that notes what the cells are to lead to."""

    def __init__(self, player: Player, seen: list[Target]) -> None:
        self._player, self._seen = player, seen

    def move(self, turn: Turn) -> bytes | Timeout:
        """The player's move."""
        target = getattr(turn, "target", None)
        if target is not None:
            self._seen.append(target)
        return self._player.move(turn)


@given(NAMES, DICE)
@few
def test_zeros_at_the_end_are_checked(name: str, dice: Random) -> None:
    """Numbers where a record has none lose, although nothing follows from them."""
    one = answer(name)
    position = dice.randrange(len(one.own.records))
    free = [i for i in range(one.shape.layout.chunks * CHUNK) if one.shape.place(i) is None]
    assume(free)
    record = one.own.records[position].copy()
    record[dice.choice(free)] = 5
    theirs = one.altered(position, record)
    outcome = settle(one.terms(theirs), Prover(theirs), Challenger(one.own, Challenge(position)))
    assert outcome.winner == "challenger"
    assert "zeros" in outcome.reason


@given(NAMES, DICE)
@few
def test_a_wrong_token_is_found(name: str, dice: Random) -> None:
    """A token that is not the best one, over honest numbers: cells that say otherwise do not help."""
    one = answer(name)
    own = one.own
    at = dice.randrange(own.prompt, len(own.tokens))
    tokens = [*own.tokens]
    tokens[at] = (tokens[at] + dice.randrange(1, 280)) % one.shape.head.rows
    # The passes before the wrong token are honest; those after it are not looked at.
    theirs = one.other(tokens=tokens[: at + 1])
    challenge = find_fault(theirs, theirs.leaves)
    assert challenge == Challenge(at - 1, token=True)

    def change(plan: Plan) -> dict[int, bytes]:
        index = dice.choice([plan.count - 1, dice.randrange(plan.count)])
        return {index: bent(plan, index, plain_cells(theirs, plan.target)[index], dice)}

    for prover in (Prover(theirs), LyingProver(theirs, change, onwards=True)):
        outcome = settle(one.terms(theirs), prover, Challenger(theirs, challenge))
        assert outcome.winner == "challenger"


def test_another_model_is_found() -> None:
    """A prover that computes all it says with other weights loses, because they are not under the model's root."""
    one, other = answer("llama"), Answer("llama", seed=5)
    theirs = other.own
    mine = one.other(tokens=theirs.tokens)
    challenge = find_fault(mine, theirs.leaves)
    assert challenge == Challenge(0)
    outcome = settle(one.terms(theirs), Prover(theirs), Challenger(mine, challenge))
    assert outcome.winner == "challenger"


def test_the_engine_with_one_weight_changed() -> None:
    """Whoever's model differs in one weight loses as well."""
    one = answer("gemma3")
    theirs = _with_other_weight(one)
    challenge = find_fault(one.own, theirs.leaves)
    assert challenge
    outcome = settle(one.terms(theirs), Prover(theirs), Challenger(one.own, challenge))
    assert outcome.winner == "challenger"


def _with_other_weight(one: Answer) -> Response:
    model = one.own.model
    down = model.layers[0].down
    down.q[3, 5] ^= 1
    try:
        tokens, records = run(model, one.own.tokens[: one.own.prompt], len(one.own.tokens))
    finally:
        down.q[3, 5] ^= 1
    return one.other(records=records, tokens=tokens)


SAMPLED = ("deficit", "count", "share", "total", "mass", "race")


@pytest.mark.parametrize("kind", sorted(STEPS))
@given(NAMES, DICE)
@settings(deadline=None, max_examples=12)
def test_each_kind_of_step(kind: str, name: str, dice: Random) -> None:
    """An honest opening holds; a wrong cell, honestly opened, does not, nor does an opening with one byte changed,
    one more or one less."""
    one = answer("drawn" if kind in SAMPLED else "qwen2" if kind == "biased" else name)
    plans = [Plan(one.shape, target, one.rules) for target in aims(one.shape, len(one.own.records) - 1)]
    sections = [(plan, section) for plan in plans for section in plan.sections if section.kind == kind]
    plan, section = dice.choice(sections)
    index = dice.choice([section.start, section.stop - 1, dice.randrange(section.start, section.stop)])
    leader = guide(one.shape, plan.target, index)
    honest = prover(one)
    assert settle(one.terms(), honest, leader).winner == "prover"
    outcome = settle(one.terms(), Bent(honest, plan, index, dice), leader)
    assert outcome.winner == "challenger"
    assert "does not follow" in outcome.reason
    for spoil in (_flipped, _longer, _shorter):
        outcome = settle(one.terms(), Spoiling(honest, spoil, outcome.exchanges, dice), leader)
        assert outcome.winner == "challenger"


class Spoiling:
    """A player that spoils its move number `when` (from 1), or does not make it."""

    def __init__(
        self, player: Player, spoil: Callable[[bytes, Random], bytes | Timeout], when: int, dice: Random
    ) -> None:
        self._player, self._spoil, self._dice = player, spoil, dice
        self._left = when

    def move(self, turn: Turn) -> bytes | Timeout:
        """The player's move, or a worse one."""
        self._left -= 1
        move = self._player.move(turn)
        assert isinstance(move, bytes)
        return move if self._left else self._spoil(move, self._dice)


def _flipped(move: bytes, dice: Random) -> bytes:
    if not move:
        return b"\0"
    at = dice.randrange(len(move))
    return move[:at] + bytes([move[at] ^ 1 << dice.randrange(8)]) + move[at + 1 :]


def _longer(move: bytes, dice: Random) -> bytes:
    return move + dice.randbytes(dice.choice([1, 32]))


def _shorter(move: bytes, dice: Random) -> bytes:
    return move[: -dice.choice([1, 32])] if move else b"\0"


def _huge(move: bytes, dice: Random) -> bytes:
    return bytes(MOST_BYTES + 1)


def _silent(move: bytes, dice: Random) -> Timeout:
    return Timeout()


@given(NAMES, st.sampled_from([_flipped, _longer, _shorter, _huge, _silent]), st.integers(1, 8), DICE)
@settings(deadline=None, max_examples=150)
def test_a_prover_that_moves_badly_loses(
    name: str, spoil: Callable[[bytes, Random], bytes | Timeout], when: int, dice: Random
) -> None:
    """Although its receipt is honest: changed, lengthened, shortened or endless bytes, or silence, at any move."""
    one = answer(name)
    target = targets(one, dice)
    # Changed digests of cells are another root, which only a challenger that has its own cells notices.
    cells = 2 if isinstance(target, TokenTarget) else 2 + trees.moves(max(_parts(one)))
    assume(spoil is not _flipped or when != cells)
    leader = guide(one.shape, target, None, both=dice.randrange(1000))
    outcome = play(dispute(one.terms()), Spoiling(Prover(one.own), spoil, when, dice), leader)
    assert outcome.winner == ("challenger" if outcome.exchanges >= when else "prover")


def _parts(one: Answer) -> tuple[int, int]:
    layout = one.shape.layout
    return layout.kept_chunks, layout.chunks - layout.kept_chunks


@given(NAMES, st.sampled_from([_longer, _shorter, _huge, _silent]), st.integers(1, 8), DICE)
@settings(deadline=None, max_examples=150)
def test_a_challenger_that_moves_badly_loses(
    name: str, spoil: Callable[[bytes, Random], bytes | Timeout], when: int, dice: Random
) -> None:
    """Although there is a fault."""
    one = answer(name)
    record, wrong = changed(one.own, len(one.own.records) - 1, dice)
    assume(wrong)
    theirs = one.altered(len(one.own.records) - 1, record)
    challenge = find_fault(one.own, theirs.leaves)
    assert challenge
    spoiling = Spoiling(Challenger(one.own, challenge), spoil, when, dice)
    outcome = play(dispute(one.terms(theirs)), Prover(theirs), spoiling)
    assert outcome.winner == ("challenger" if spoiling._left > 0 else "prover")


@given(st.lists(st.binary(max_size=40), max_size=12), DICE)
@settings(deadline=None, max_examples=200)
def test_bytes_from_anywhere(moves: list[bytes], dice: Random) -> None:
    """No bytes of either side raise anything, and a dispute ends."""
    one = answer("llama")
    game = dispute(one.terms())
    honest = Prover(one.own)
    leader = guide(one.shape, targets(one, dice), None, both=0)
    turn = next(game)
    try:
        for move in [*moves, *[b""] * 20]:
            own = honest if turn.side == "prover" else leader
            turn = game.send(move if dice.random() < 0.3 else own.move(turn))
    except (StopIteration, AssertionError):  # a leader that was led astray gives up
        return
    pytest.fail("the dispute did not end")


@given(NAMES, DICE)
@few
def test_cells_without_sense(name: str, dice: Random) -> None:
    """Cells of random bytes, shifts by 2^60 among them: a step over them is judged, and nothing is raised."""
    one = answer(name)
    target = dice.choice(aims(one.shape, len(one.own.records) - 1))

    def change(plan: Plan) -> dict[int, bytes]:
        return {
            index: dice.randbytes(plan.at(index)[0].numbers(plan.at(index)[1]) * plan.at(index)[0].width)
            for index in range(plan.count)
        }

    prover = Careless(one.own, change)
    for _ in range(5):
        leader = guide(one.shape, target, dice.randrange(Plan(one.shape, target, one.rules).count))
        assert settle(one.terms(), prover, leader).winner == "challenger"


@given(NAMES, DICE)
@few
def test_records_without_sense(name: str, dice: Random) -> None:
    """Random numbers in all records, fraction bits among them, that no side computed: nothing is raised."""
    one = answer(name)
    noise = np.random.default_rng(dice.randrange(1 << 30))
    records = noise.integers(-32768, 32768, one.own.records.shape).astype(np.int16)
    for index in range(records.shape[1]):
        if one.shape.place(index) is None:
            records[:, index] = 0
    theirs = one.other(records=records)
    target = targets(one, dice)
    cell = dice.randrange(Plan(one.shape, target, one.rules).count)
    leader = guide(one.shape, target, cell)
    settle(one.terms(theirs), Careless(theirs, lambda _: {}), leader)


class Careless(LyingProver):
    """Opens what a step reads even where the step fails."""

    def opening(self, target: Target, index: int) -> bytes:
        try:
            return super().opening(target, index)
        except Exception:  # noqa: BLE001
            return self.expanded(target)[1][index]


def test_terms_are_checked() -> None:
    """There are a prompt and an answer."""
    terms = answer("llama").terms()
    for counts in ({"prompt": 0}, {"output": 0}):
        with pytest.raises(BindingMismatch):
            replace(terms, evidence=replace(terms.evidence, **counts))


def test_exchanges() -> None:
    """At most seven for 2^24 cells, where a record has up to 2^16 chunks; eight for 2^32."""
    assert most_exchanges(1 << 16, 1 << 24) == 7
    assert most_exchanges(1 << 16, 1 << 32) == 8
    assert [trees.moves(n) for n in (0, 1, 256, 257, 1 << 16, (1 << 16) + 1, 1 << 24)] == [1, 1, 1, 2, 2, 3, 3]
    one = answer("llama")
    outcome = settle(one.terms(), Prover(one.own), guide(one.shape, NumberTarget(3, 0), None))
    plan = Plan(one.shape, NumberTarget(3, 0))
    assert outcome.exchanges == most_exchanges(max(_parts(one)), plan.count) == 4
