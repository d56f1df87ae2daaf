"""Small responses of every variant, and sides that lie."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.models import write_model

from assay.engines.exact.convert import convert
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import Terms, dispute
from assay.engines.exact.dispute.moves import (
    Branch,
    Challenge,
    Outcome,
    Timeout,
    Turn,
    WantBranch,
    WantChallenge,
    WantEntry,
    WantNode,
    encode_index,
)
from assay.engines.exact.dispute.parameters import Parameters
from assay.engines.exact.dispute.plan import FractionTarget, Plan, RowTarget, Target
from assay.engines.exact.dispute.record import OwnReader, Pass, Record, run_pass
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.sides import Player, Prover, play
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.reference import Cache

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"layers": 2},
    "llama-tied-scaled": {"layers": 1, "tied": True, "factors": True, "kind": Kind.Q8_0},
    "llama-f16": {"layers": 1, "kind": Kind.F16},
    "llama-biased": {"layers": 1, "biases": True, "kind": Kind.Q5_1},
    "qwen2": {"layers": 1, "architecture": "qwen2", "kind": Kind.Q5_0},
    "qwen3": {"layers": 2, "architecture": "qwen3", "head_width": 32},
    "gemma3": {"layers": 2, "architecture": "gemma3", "head_width": 32, "kind": Kind.Q4_0, "tied": True, "window": 3},
    "wide": {"layers": 1, "width": 1280, "heads": 5, "kv_heads": 1, "head_width": 96, "feed": 1120},
    "wide-gemma3": {"layers": 1, "architecture": "gemma3", "width": 1056, "heads": 2, "feed": 64, "window": 40},
    "long": {"layers": 1, "heads": 2, "kv_heads": 1, "head_width": 512},
}
"""Rows wider than one step, heads that straddle spans and chunks, and more positions than one step sees."""
NONCE = bytes(range(32))


class Response:
    """A greedy answer of a small model."""

    def __init__(self, name: str, *, seed: int = 0) -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = convert(write_model(Path(folder) / "model.gguf", seed=seed, **VARIANTS[name]))
            self.parameters = Parameters(model)
        self.root = trees.root_of(self.parameters.levels)
        self.shape = Shape.of(model)
        dice = Random(1)
        prompt = 34 if name == "long" else 4
        tokens = [dice.randrange(3, 280) for _ in range(prompt)]
        cache, passes = Cache.of(model), list[Pass]()
        while len(tokens) < prompt + 3:
            one = run_pass(model, tokens[len(passes)], cache, head=len(passes) >= prompt - 1)
            passes.append(one)
            if one.head is not None:
                tokens.append(int(one.logits().argmax()))
        self.record = Record(self.parameters, tokens, prompt, passes, cache)

    def terms(self, theirs: Record | None = None) -> Terms:
        """Those of a receipt over a record, the honest one unless another is given."""
        theirs = theirs or self.record
        return Terms(self.shape, self.root, theirs.evidence(NONCE), theirs.tokens)

    def with_pass(self, position: int, one: Pass) -> Record:
        """The record with one pass exchanged."""
        own = self.record
        passes = [*own.passes[:position], one, *own.passes[position + 1 :]]
        return Record(own.parameters, own.tokens, own.prompt, passes, own.cache)


@cache
def response(name: str, *, seed: int = 0) -> Response:
    """The response of a variant, computed once."""
    return Response(name, seed=seed)


def rerun(plan: Plan, own: Record, changes: dict[int, bytes], *, onwards: bool) -> list[bytes]:
    """All cells with some changed; those after them follow from them, or are as they were."""
    cells: list[bytes] = []
    reader = OwnReader(plan, own, cells)
    plain: list[bytes] = []
    before = OwnReader(plan, own, plain)
    for section in plan.sections:
        for index in range(section.start, section.stop):
            plain.append(section.encode(step(before, index)))
            if index in changes:
                cells.append(changes[index])
                continue
            try:
                cells.append(section.encode(step(reader, index)) if onwards and changes else plain[-1])
            except Exception:  # noqa: BLE001 - no number follows from the lie: keep what was there
                cells.append(plain[-1])
    return cells


class LyingProver(Prover):
    """Changes cells before it commits to them."""

    def __init__(self, own: Record, change: Callable[[Plan], dict[int, bytes]], *, onwards: bool = False) -> None:
        super().__init__(own)
        self._change = change
        self._onwards = onwards

    def cells(self, plan: Plan) -> list[bytes]:
        return rerun(plan, self.own, self._change(plan), onwards=self._onwards)


def bent(plan: Plan, index: int, cell: bytes, dice: Random) -> bytes:
    """A cell with one of its numbers changed by a little or a lot."""
    section, _ = plan.at(index)
    numbers = list(section.decode(cell))
    at, most = dice.randrange(len(numbers)), (1 << (8 * section.width - 1)) - 1
    new = numbers[at] + dice.choice([-1, 1, dice.randrange(-1000, 1000) or 5])
    numbers[at] = new if abs(new) <= most and new != numbers[at] else numbers[at] ^ 1
    return section.encode(numbers)


class Guide:
    """A challenger that leads to a cell of its choice, whatever is shown."""

    def __init__(self, challenge: Challenge, branch: Branch, place: int, entry: int, cell: int | None) -> None:
        self._challenge, self._branch, self._place, self._entry = challenge, branch, place, entry
        self._cell = cell

    def move(self, turn: Turn) -> bytes:
        match turn:
            case WantChallenge():
                return self._challenge.encode()
            case WantBranch():
                return self._branch.encode()
            case WantEntry():
                return encode_index(self._entry)
            case WantNode(_, tree, _, level, start, nodes):
                leaf = self._cell if tree == "cells" else self._place
                last = start + len(nodes) - 1
                return encode_index(last if leaf is None else min(max(start, leaf // 16**level), last))
            case _:
                raise AssertionError(turn)


def guide(terms: Terms, target: Target, cell: int | None, position: int) -> Guide:
    """One that leads to a cell of a target (None: the last one), in a challenge of `position`."""
    challenge = Challenge(position)
    if isinstance(target, RowTarget):
        tree, leaf, entry = ("head" if target.head else "body"), *divmod(target.index, 256)
        rows = terms.shape.head.rows if target.head else terms.shape.body
        count = -(-rows // 256)
    elif isinstance(target, FractionTarget):
        tree, leaf, entry, count = "fractions", target.position, target.layer, position
    else:
        return Guide(Challenge(position, target.rival), Branch("cells", 0), 0, 0, cell)
    branch = Branch(tree, leaf // 16 ** trees.first_level(count))
    return Guide(challenge, branch, leaf, entry, cell)


class Watched:
    """A player whose moves are measured."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self.most = 0

    def move(self, turn: Turn) -> bytes | Timeout:
        move = self._player.move(turn)
        if isinstance(move, bytes):
            self.most = max(self.most, len(move))
        return move


def settle(terms: Terms, prover: Player, challenger: Player) -> Outcome:
    """Play, and check the bounds."""
    watched = Watched(prover)
    outcome = play(dispute(terms), watched, challenger)
    assert watched.most <= 1 << 15
    assert outcome.exchanges <= 8
    return outcome


def changed_row(one: Pass, dice: Random, *, head: bool) -> tuple[Pass, int]:
    """A pass with one accumulator wrong, by one, a little, or a lot; and which."""
    vector = one.head if head else one.body
    assert vector is not None
    wrong, index = vector.copy(), dice.randrange(len(vector))
    wrong[index] += np.int64(dice.choice([1, -1, dice.randrange(1, 1 << 40)]))
    pieces = (one.body, wrong) if head else (wrong, one.head)
    return Pass(*pieces, one.fractions, one.head_fraction), index
