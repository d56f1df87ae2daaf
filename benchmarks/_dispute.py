"""Disputes over answers of the exact engine: how many moves, how large, and how often the referee is right.

All on one real answer. For each kind of step, an honest prover is led to random cells, and so is one that has bent the
cell; then whole receipts with wrong numbers or a wrong token meet an honest challenger; then sides fall silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Final

import numpy as np
from typing_extensions import override

from assay.apps.figures import Figure, Say
from assay.apps.wiring import find_model
from assay.core import tree16
from assay.core.hashing import Digest
from assay.core.request import SamplerSettings
from assay.engines.exact.convert import convert
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import Terms, dispute, most_exchanges
from assay.engines.exact.dispute.moves import (
    MOST_BYTES,
    Branch,
    Challenge,
    Outcome,
    Side,
    Timeout,
    Turn,
    WantBranch,
    WantChallenge,
    WantEntry,
    WantNames,
    WantStep,
    encode_indices,
)
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Rules, Section, Target, TokenTarget
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.shape import ENDS, VECTORS, Shape
from assay.engines.exact.dispute.sides import Challenger, Player, Prover, find_fault, play
from assay.engines.exact.parameters import Parameters
from assay.engines.exact.program import program_of
from assay.engines.exact.record import CHUNK
from assay.engines.exact.reference import Model
from assay.engines.exact.runner import Runner
from assay.engines.exact.sampling import draw

MODEL: Final = "smollm2-135m"
PROMPT: Final = 40
OUTPUT: Final = 8
SETTINGS: Final = SamplerSettings(temperature=800_000, top_k=50, top_p=950_000, min_p=10_000)
RUNS: Final = 20
"""Honest ones and dishonest ones of each kind of step."""
RECEIPTS: Final = 16
"""Wrong receipts."""
CELLS: Final = 1 << 24
"""For which exchanges are counted, with CHUNKS in a record."""
CHUNKS: Final = 1 << 16
MOST_EXCHANGES: Final = 8
NONCE: Final = bytes(32)


@dataclass
class _Tally:
    terms: Terms
    exchanges: int = 0
    opening: int = 0
    runs: Counter[str] = field(default_factory=Counter[str])
    wrong: Counter[str] = field(default_factory=Counter[str])

    def play(self, name: str, right: Side, prover: Player, challenger: Player, terms: Terms | None = None) -> Outcome:
        """Let two sides play, and note who won."""
        watched = Watched(prover)
        outcome = play(dispute(terms or self.terms), watched, challenger)
        self.exchanges = max(self.exchanges, outcome.exchanges)
        self.opening = max(self.opening, watched.opening)
        self.runs[name] += 1
        self.wrong[name] += outcome.winner != right
        return outcome


def dispute_figures(say: Say) -> Iterable[Figure]:
    """The figures of SmolLM2: about a minute."""
    return model_figures(say, convert(find_model(MODEL).path))


def model_figures(say: Say, model: Model, *, runs: int = RUNS, receipts: int = RECEIPTS) -> Iterator[Figure]:
    """The figures of a model."""
    own = answer_of(model)
    tally = _Tally(_terms(own))
    dice = Random(1)
    say("disputes: expanding the cells of some numbers")
    honest = Prover(own)
    plans = [honest.expanded(target)[0] for target in targets_of(own.shape, len(own.records) - 1)]
    kinds = _kinds(plans)
    for sections in kinds.values():
        for _ in range(runs):
            plan, section = dice.choice(sections)
            index = dice.randrange(section.start, section.stop)
            leader = guide(own.shape, plan.target, index)
            tally.play("honest", "prover", honest, leader)
            tally.play("bent", "challenger", Bent(honest, plan, index, dice), leader)
    say(f"disputes: {len(kinds)} kinds of steps, {tally.wrong['honest'] + tally.wrong['bent']} wrong verdicts")
    _receipts(tally, own, dice, receipts)
    _silent(tally, own, plans, honest)
    yield from _figures(tally, max(plan.count for plan in plans), len(kinds))


def _figures(tally: _Tally, cells: int, kinds: int) -> Iterator[Figure]:
    bound = most_exchanges(CHUNKS, CELLS)
    played = sum(tally.runs.values())
    yield Figure("dispute.exchanges", bound, "exchanges", MOST_EXCHANGES, bound <= MOST_EXCHANGES, CELLS)
    yield Figure("dispute.played", tally.exchanges, "exchanges", MOST_EXCHANGES, tally.exchanges <= bound, played)
    yield Figure("dispute.cells", cells, "cells", CELLS, cells <= CELLS, 1)
    yield Figure("dispute.opening", tally.opening, "bytes", MOST_BYTES, tally.opening <= MOST_BYTES, played)
    yield Figure("dispute.kinds", kinds, "kinds of steps", None, None, kinds)
    for name, runs in tally.runs.items():
        wrong = tally.wrong[name]
        yield Figure(f"dispute.wrong_verdicts.{name}", wrong, "disputes", 0, wrong == 0, runs)


def answer_of(model: Model) -> Response:
    """An answer of the engine to some tokens."""
    dice, rules = Random(0), Rules(SETTINGS, bytes(range(32)), PROMPT)
    tokens = [dice.randrange(model.head.shape[0]) for _ in range(PROMPT)]
    records: list[np.ndarray] = []
    runner = Runner(program_of(model), sequences=1, positions=PROMPT + OUTPUT, batch=PROMPT, threads=1)
    try:
        while len(tokens) < PROMPT + OUTPUT:
            part = tokens[len(records) :]
            last = len(part) - 1
            runner.decode(part, range(len(records), len(tokens)), 0, [n == last for n in range(len(part))])
            records += [runner.record(n).copy() for n in range(len(part))]
            tokens.append(draw(runner.logits(last), rules.settings, rules.seed, len(tokens) - PROMPT))
    finally:
        runner.close()
    return Response(model, Parameters(model), tokens, PROMPT, np.array(records), NONCE, rules)


def _terms(own: Response) -> Terms:
    root = own.parameters.parameters.root
    return Terms(own.shape, root, own.evidence, own.token_roots, own.rules.settings, own.rules.seed)


def targets_of(shape: Shape, position: int) -> list[Target]:
    """Numbers of each vector, of the last layer and of one in the middle, and a token."""
    last = len(shape.layers) - 1
    numbers = [shape.vector(layer, name)[0] + 3 for layer in {last, last // 2} for name in VECTORS[:-1]]
    numbers.append(shape.vector(ENDS, "head input")[0])
    return [*(NumberTarget(position, number) for number in numbers), TokenTarget(position)]


def _kinds(plans: Sequence[Plan]) -> dict[str, list[tuple[Plan, Section]]]:
    found: dict[str, list[tuple[Plan, Section]]] = {}
    for plan in plans:
        for section in plan.sections:
            found.setdefault(section.kind, []).append((plan, section))
    return found


def _receipts(tally: _Tally, own: Response, dice: Random, count: int) -> None:
    """Receipts over wrong numbers, and over a token that was not to be drawn, against an honest challenger."""
    for run in range(count):
        tokens, records = list(own.tokens), own.records
        if run % 4 == 0:
            at = dice.randrange(PROMPT, len(tokens))
            tokens = [*tokens[:at], (tokens[at] + 1) % own.shape.head.rows]
            records = records[:at]
        else:
            records = records.copy()
            kinds = [(layer, name) for layer in range(len(own.shape.layers)) for name in VECTORS[:-1]]
            start, size = own.shape.vector(*dice.choice(kinds))
            records[dice.randrange(len(records)), start + dice.randrange(size)] ^= 1 << dice.randrange(15)
        theirs, mine = (_with(own, tokens, numbers) for numbers in (records, own.records[: len(tokens) - 1]))
        challenge = find_fault(mine, theirs.leaves)
        assert challenge is not None
        tally.play("receipts", "challenger", Prover(theirs), Challenger(mine, challenge), _terms(theirs))


def _with(own: Response, tokens: Sequence[int], records: np.ndarray) -> Response:
    return Response(own.model, own.parameters.parameters, tokens, own.prompt, records, NONCE, own.rules)


def _silent(tally: _Tally, own: Response, plans: Sequence[Plan], honest: Prover) -> None:
    """Either side says nothing at one of its moves."""
    for plan in plans:
        leader = guide(own.shape, plan.target, plan.count // 2)
        moves = tally.play("honest", "prover", honest, leader).exchanges
        for when in range(moves):
            tally.play("timeout", "challenger", Silent(honest, when), leader)
            tally.play("timeout", "prover", honest, Silent(leader, when))


class Watched:
    """A player whose openings are measured."""

    def __init__(self, player: Player) -> None:
        self._player: Final = player
        self.opening = 0
        """Bytes of the largest opening."""
        self.most = 0
        """Bytes of the largest move."""

    def move(self, turn: Turn) -> bytes | Timeout:
        """The player's."""
        move = self._player.move(turn)
        if isinstance(move, bytes):
            self.most = max(self.most, len(move))
            if isinstance(turn, WantStep):
                self.opening = max(self.opening, len(move))
        return move


class Silent:
    """A player that does not make its move number `when` (from 0)."""

    def __init__(self, player: Player, when: int) -> None:
        self._player: Final = player
        self._left = when

    def move(self, turn: Turn) -> bytes | Timeout:
        """The player's, or none."""
        self._left -= 1
        return Timeout() if self._left < 0 else self._player.move(turn)


class Bent(Prover):
    """An honest prover, but for one cell."""

    def __init__(self, honest: Prover, plan: Plan, index: int, dice: Random) -> None:
        super().__init__(honest.own)
        _, cells, levels = honest.expanded(plan.target)
        cells, levels = list(cells), [list(level) for level in levels]
        cells[index] = bent(plan, index, cells[index], dice)
        levels[0][index] = cell_digest(cells[index])
        for lower, upper in pairwise(levels):
            index //= tree16.FAN
            upper[index] = tree16.parents(lower[index * tree16.FAN : (index + 1) * tree16.FAN])[0]
        self._bent: Final = plan, cells, levels

    @override
    def expanded(self, target: Target) -> tuple[Plan, list[bytes], list[list[Digest]]]:
        """With the bent cell."""
        assert target == self._bent[0].target
        return self._bent


def bent(plan: Plan, index: int, cell: bytes, dice: Random) -> bytes:
    """A cell with one of its numbers changed by a little or a lot."""
    section, _ = plan.at(index)
    numbers = list(section.decode(cell))
    at, most = dice.randrange(len(numbers)), (1 << (8 * section.width - 1)) - 1
    new = numbers[at] + dice.choice([-1, 1, dice.randrange(-1000, 1000) or 5])
    numbers[at] = new if abs(new) <= most and new != numbers[at] else numbers[at] ^ 1
    return section.encode(numbers)


class Guide:
    """A challenger that leads to a number and a cell of its choice, whatever is shown."""

    def __init__(self, challenge: Challenge, branch: Branch | None, entry: int, leaves: dict[str, int | None]) -> None:
        self._challenge, self._branch, self._entry, self._leaves = challenge, branch, entry, leaves

    def move(self, turn: Turn) -> bytes:
        """What leads there."""
        match turn:
            case WantChallenge():
                return self._challenge.encode()
            case WantBranch():
                assert self._branch
                return self._branch.encode()
            case WantEntry():
                return encode_indices(self._entry)
            case WantNames(_, _, shown):
                names: list[int] = []
                for tree, level, start, nodes in shown:
                    leaf, last = self._leaves[tree], start + len(nodes) - 1
                    names.append(last if leaf is None else min(max(start, leaf // tree16.FAN**level), last))
                return encode_indices(*names)
            case _:
                raise AssertionError(turn)


def guide(shape: Shape, target: Target, cell: int | None, *, both: int | None = None) -> Guide:
    """One that leads to a cell of a target (None: the last one). `both`: a chunk of the record's other part, beside."""
    if not isinstance(target, NumberTarget):
        return Guide(Challenge(target.position, token=True), None, 0, {"cells": cell})
    layout = shape.layout
    sizes = {"kept": layout.kept_chunks, "inputs": layout.chunks - layout.kept_chunks}
    leaf = target.index // CHUNK
    tree, other = ("kept", "inputs") if leaf < layout.kept_chunks else ("inputs", "kept")
    leaf -= 0 if tree == "kept" else layout.kept_chunks
    leaves: dict[str, int | None] = {"cells": cell, tree: leaf}
    if both is not None:
        leaves[other] = both % sizes[other]
    nodes: dict[str, int | None] = {"kept": None, "inputs": None}
    for name, size in sizes.items():
        chosen = leaves.get(name)
        if chosen is not None:
            nodes[name] = chosen // tree16.FAN ** trees.first_level(size)
    branch = Branch(nodes["kept"], nodes["inputs"])
    return Guide(Challenge(target.position), branch, target.index, leaves)
