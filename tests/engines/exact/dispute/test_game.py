"""Disputes: whoever lies loses, whichever side it is and however it goes on, within few moves of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.engines.exact.dispute.kit import (
    NONCE,
    VARIANTS,
    LyingProver,
    Response,
    bent,
    changed_row,
    guide,
    rerun,
    response,
    settle,
)

from assay.core.errors import BindingMismatch
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import Terms, dispute, most_exchanges
from assay.engines.exact.dispute.moves import MOST_BYTES, Challenge, Timeout, Turn
from assay.engines.exact.dispute.plan import FractionTarget, Plan, RowTarget, Target, TokenTarget
from assay.engines.exact.dispute.record import Record
from assay.engines.exact.dispute.sampling import Candidate, SampleStep
from assay.engines.exact.dispute.sides import Challenger, Player, Prover, find_fault, play
from assay.engines.exact.dispute.steps import STEPS

NAMES = st.sampled_from(sorted(VARIANTS))
DICE = st.integers(0, 2**32).map(Random)
SAMPLE = SampleStep()
few = settings(deadline=None, max_examples=40)


def targets(one: Response, dice: Random) -> Target:
    """Some number of the response."""
    position = dice.randrange(len(one.record.passes))
    kind = dice.randrange(4)
    if kind == 0 and position:
        return FractionTarget(position, dice.randrange(len(one.shape.layers)))
    if kind == 1 and one.record.passes[position].head is not None:
        return RowTarget(position, True, dice.randrange(one.shape.head.rows))
    if kind == 2 and one.record.passes[position].head is not None:
        return TokenTarget(position, dice.randrange(one.shape.head.rows))
    return RowTarget(position, False, dice.randrange(one.shape.body))


def challenged(one: Response, target: Target) -> int:
    """A position whose challenge can lead to a target."""
    return len(one.record.passes) - 1 if isinstance(target, FractionTarget) else target.position


@given(NAMES, DICE)
@few
def test_an_honest_prover_is_never_convicted(name: str, dice: Random) -> None:
    """Whatever pass, number and cell a challenger leads to."""
    one = response(name)
    target = targets(one, dice)
    position = challenged(one, target)
    if isinstance(target, FractionTarget) and target.position >= position:
        return
    if isinstance(target, TokenTarget) and target.rival == one.record.tokens[position + 1]:
        return
    cell = dice.choice([None, dice.randrange(Plan(one.shape, target).count)])
    outcome = settle(one.terms(), Prover(one.record), guide(one.terms(), target, cell, position))
    assert outcome.winner == "prover"
    assert "follows from what is agreed" in outcome.reason


@pytest.mark.parametrize("name", VARIANTS)
def test_two_honest_sides_have_no_dispute(name: str) -> None:
    """There is nothing to challenge."""
    own = response(name).record
    assert find_fault(own, own.leaves, SAMPLE) is None


@given(NAMES, DICE)
@few
def test_a_wrong_accumulator_is_found(name: str, dice: Random) -> None:
    """One wrong number in a receipt, whatever cells the prover shows for it: honest ones, ones that end as it wants,
    ones that are wrong somewhere, with or without their consequences."""
    one = response(name)
    position = dice.randrange(len(one.record.passes))
    head = one.record.passes[position].head is not None and dice.random() < 0.3
    wrong, index = changed_row(one.record.passes[position], dice, head=head)
    theirs = one.with_pass(position, wrong)
    claimed = int((wrong.head if head else wrong.body)[index])  # pyrefly: ignore
    strategy = dice.randrange(4)

    def change(plan: Plan) -> dict[int, bytes]:
        last = {plan.count - 1: plan.sections[-1].encode([claimed])}
        if strategy < 2:
            return last if strategy else {}
        at = dice.randrange(plan.count)
        return {at: bent(plan, at, rerun(plan, one.record, {}, onwards=False)[at], dice)} | last

    challenge = find_fault(one.record, theirs.leaves, SAMPLE)
    assert challenge == Challenge(position)
    liar = LyingProver(theirs, change, onwards=strategy == 3)
    outcome = settle(one.terms(theirs), liar, Challenger(one.record, challenge))
    assert outcome.winner == "challenger", outcome


@given(NAMES, DICE)
@few
def test_wrong_fractions_are_found(name: str, dice: Random) -> None:
    """A prover that covers a wrong number with wrong fraction bits of an earlier position loses over those."""
    one = response(name)
    position = dice.randrange(1, len(one.record.passes))
    wrong, _ = changed_row(one.record.passes[position], dice, head=False)
    theirs = one.with_pass(position, wrong)
    earlier = dice.randrange(position)
    bits = list(theirs.passes[earlier].fractions)
    bits[dice.randrange(len(bits))] += dice.choice([-1, 1, 7])
    passes = list(theirs.passes)
    passes[earlier] = replace(passes[earlier], fractions=tuple(bits))
    theirs = Record(theirs.parameters, theirs.tokens, theirs.prompt, passes, theirs.cache)
    challenge = find_fault(one.record, theirs.leaves, SAMPLE)
    assert challenge == Challenge(position)
    outcome = settle(one.terms(theirs), Prover(theirs), Challenger(one.record, challenge))
    assert outcome.winner == "challenger"


@given(NAMES, DICE)
@few
def test_a_wrong_token_is_found(name: str, dice: Random) -> None:
    """A token that is not the best one, over honest numbers: cells that say otherwise do not help."""
    one = response(name)
    own = one.record
    at = dice.randrange(own.prompt, len(own.tokens))
    tokens = [*own.tokens]
    tokens[at] = (tokens[at] + dice.randrange(1, 280)) % one.shape.head.rows
    # The passes before the wrong token are honest; those after it are not looked at.
    theirs = Record(own.parameters, tokens[: at + 1], own.prompt, own.passes[:at], own.cache)
    challenge = find_fault(theirs, theirs.leaves, SAMPLE)
    assert challenge
    assert challenge.position == at - 1

    def change(plan: Plan) -> dict[int, bytes]:
        index = dice.choice([plan.count - 1, dice.randrange(plan.count)])
        return {index: bent(plan, index, rerun(plan, theirs, {}, onwards=False)[index], dice)}

    for prover in (Prover(theirs), LyingProver(theirs, change, onwards=True)):
        outcome = settle(one.terms(theirs), prover, Challenger(theirs, challenge))
        assert outcome.winner == "challenger"


def test_another_model_is_found() -> None:
    """A prover that computes all it says with other weights loses, because they are not under the model's root."""
    one, other = response("llama"), Response("llama", seed=5)
    tokens, prompt = one.record.tokens, one.record.prompt
    theirs = other.record
    mine = Record(one.parameters, theirs.tokens, prompt, one.record.passes, one.record.cache)
    assert len(tokens) == len(theirs.tokens)
    challenge = find_fault(mine, theirs.leaves, SAMPLE)
    assert challenge == Challenge(0)
    outcome = settle(one.terms(theirs), Prover(theirs), Challenger(mine, challenge))
    assert outcome.winner == "challenger"


@pytest.mark.parametrize("kind", sorted(STEPS))
@given(NAMES, DICE)
@settings(deadline=None, max_examples=12)
def test_each_kind_of_step(kind: str, name: str, dice: Random) -> None:
    """An honest opening holds; a wrong cell, honestly opened, does not, nor does an opening with one byte changed,
    one more or one less."""
    one = response(name)
    position = len(one.record.passes) - 1
    target: Target = RowTarget(position, True, dice.randrange(200))
    if kind == "sum":
        target = RowTarget(position, dice.random() < 0.2, dice.randrange(one.shape.body) % 256)
    if kind == "fraction":
        target = FractionTarget(dice.randrange(position), dice.randrange(len(one.shape.layers)))
    if kind == "drawn":
        target = TokenTarget(position, one.record.tokens[position + 1] ^ 1)
    plan = Plan(one.shape, target)
    sections = [section for section in plan.sections if section.kind == kind]
    section = dice.choice(sections)
    index = dice.choice([section.start, section.stop - 1, dice.randrange(section.start, section.stop)])
    leader = guide(one.terms(), target, index, position)
    assert settle(one.terms(), Prover(one.record), leader).winner == "prover"

    def change(plan: Plan) -> dict[int, bytes]:
        return {index: bent(plan, index, rerun(plan, one.record, {}, onwards=False)[index], dice)}

    outcome = settle(one.terms(), LyingProver(one.record, change), leader)
    assert outcome.winner == "challenger"
    assert "does not follow" in outcome.reason
    for spoil in (_flipped, _longer, _shorter):
        outcome = settle(one.terms(), Spoiling(Prover(one.record), spoil, outcome.exchanges, dice), leader)
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
    assume(spoil is not _flipped or when > 1)  # changed fraction bits are only seen by a challenger that has its own
    one = response(name)
    target = RowTarget(len(one.record.passes) - 1, False, dice.randrange(one.shape.body))
    leader = guide(one.terms(), target, None, target.position)
    outcome = play(dispute(one.terms()), Spoiling(Prover(one.record), spoil, when, dice), leader)
    assert outcome.winner == ("challenger" if outcome.exchanges >= when else "prover")


@given(NAMES, st.sampled_from([_longer, _shorter, _huge, _silent]), st.integers(1, 8), DICE)
@settings(deadline=None, max_examples=150)
def test_a_challenger_that_moves_badly_loses(
    name: str, spoil: Callable[[bytes, Random], bytes | Timeout], when: int, dice: Random
) -> None:
    """Although there is a fault."""
    one = response(name)
    wrong, _ = changed_row(one.record.passes[-1], dice, head=False)
    theirs = one.with_pass(len(one.record.passes) - 1, wrong)
    challenge = find_fault(one.record, theirs.leaves, SAMPLE)
    assert challenge
    spoiling = Spoiling(Challenger(one.record, challenge), spoil, when, dice)
    outcome = play(dispute(one.terms(theirs)), Prover(theirs), spoiling)
    assert outcome.winner == ("challenger" if spoiling._left > 0 else "prover")


@given(st.lists(st.binary(max_size=40), max_size=12), DICE)
@settings(deadline=None, max_examples=200)
def test_bytes_from_anywhere(moves: list[bytes], dice: Random) -> None:
    """No bytes of either side raise anything, and a dispute ends."""
    one = response("llama")
    game = dispute(one.terms())
    honest = Prover(one.record)
    leader = guide(one.terms(), targets(one, dice), None, 3)
    turn = next(game)
    try:
        for move in [*moves, *[b""] * 20]:
            own = honest if turn.side == "prover" else leader
            turn = game.send(move if dice.random() < 0.3 else own.move(turn))
    except StopIteration:
        return
    pytest.fail("the dispute did not end")


@given(NAMES, DICE)
@few
def test_cells_without_sense(name: str, dice: Random) -> None:
    """Cells of random bytes, shifts by 2^60 among them: a step over them is judged, and nothing is raised."""
    one = response(name)
    position = len(one.record.passes) - 1
    target = RowTarget(position, True, 3)

    def change(plan: Plan) -> dict[int, bytes]:
        return {
            index: dice.randbytes(plan.at(index)[0].numbers(plan.at(index)[1]) * plan.at(index)[0].width)
            for index in range(plan.count)
        }

    prover = Careless(one.record, change)
    for _ in range(5):
        leader = guide(one.terms(), target, dice.randrange(Plan(one.shape, target).count), position)
        assert settle(one.terms(), prover, leader).winner == "challenger"


class Careless(LyingProver):
    """Opens what a step reads even where the step fails."""

    def opening(self, challenge: Challenge, target: Target, index: int) -> bytes:
        try:
            return super().opening(challenge, target, index)
        except Exception:  # noqa: BLE001
            return self.expanded(target)[1][index]


def test_sampling_by_another_score() -> None:
    """A score may exclude tokens; the lowest one wins among equals."""
    step = SampleStep(lambda output, one: None if one.token == 3 else one.logit // 10 + output)
    two, three, four = Candidate(2, 15), Candidate(3, 99), Candidate(4, 19)
    assert step.refutes(0, two, four)
    assert not step.refutes(0, four, two)
    assert step.refutes(0, four, three)
    assert not step.refutes(0, three, four)


def test_terms_are_checked() -> None:
    """Tokens that the evidence is not over, or that the model does not have."""
    terms = response("llama").terms()
    for tokens in (terms.tokens[1:], (*terms.tokens[:-1], terms.shape.embedding.rows)):
        with pytest.raises(BindingMismatch):
            Terms(terms.shape, terms.parameters, terms.evidence, tokens)


def test_exchanges() -> None:
    """At most seven for 2^24 cells, where the receipt has up to 2^16 chunks a pass and as many positions."""
    assert most_exchanges(1 << 16, 1 << 24) == 7
    assert [trees.moves(n) for n in (0, 1, 256, 257, 1 << 16, (1 << 16) + 1, 1 << 24)] == [1, 1, 1, 2, 2, 3, 3]
    one = response("llama")
    outcome = settle(one.terms(), Prover(one.record), guide(one.terms(), RowTarget(3, False, 890), None, 3))
    assert outcome.exchanges == most_exchanges(-(-one.shape.body // 256), 200) == 4
    assert one.terms().evidence.nonce == NONCE
