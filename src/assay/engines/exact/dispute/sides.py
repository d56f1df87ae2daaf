"""The two sides of a dispute, as they play when they are honest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from assay.core.hashing import Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import Game
from assay.engines.exact.dispute.moves import (
    Branch,
    Challenge,
    Outcome,
    Timeout,
    Tree,
    Turn,
    WantBranch,
    WantCells,
    WantChallenge,
    WantChunks,
    WantEntry,
    WantNames,
    WantNodes,
    WantStep,
    WantTops,
    encode_indices,
)
from assay.engines.exact.dispute.plan import Plan, Target, TokenTarget
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.response import OpeningReader, Response, expand
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.record import CHUNK


class Player(Protocol):
    """Whoever moves for a side."""

    def move(self, turn: Turn) -> bytes | Timeout:
        """What is wanted."""


class _Holder:
    """Whoever has the passes of a response."""

    def __init__(self, own: Response) -> None:
        self.own: Final = own
        self._cells: dict[Target, tuple[Plan, list[bytes], list[list[Digest]]]] = {}

    def cells(self, plan: Plan) -> list[bytes]:
        """All cells of a plan."""
        return expand(plan, self.own)

    def expanded(self, target: Target) -> tuple[Plan, list[bytes], list[list[Digest]]]:
        """The cells that lead to a target, and all levels of the tree over them."""
        if target not in self._cells:
            plan = Plan(self.own.shape, target, self.own.rules)
            cells = self.cells(plan)
            self._cells[target] = plan, cells, trees.levels_of([cell_digest(cell) for cell in cells])
        return self._cells[target]

    def levels(self, challenge: Challenge, tree: Tree, target: Target | None) -> list[list[Digest]]:
        """All levels of a tree."""
        if target is not None:
            return self.expanded(target)[2]
        return self.own.levels(challenge.position)[tree == "inputs"]

    def shown(self, challenge: Challenge, tree: Tree, target: Target | None = None) -> list[Digest]:
        """The level with which a descent in it begins."""
        levels = self.levels(challenge, tree, target)
        return levels[trees.first_level(len(levels[0]))]


class Prover(_Holder):
    """Whoever signed the receipt."""

    def move(self, turn: Turn) -> bytes:
        """What is wanted of the prover."""
        match turn:
            case WantTops(challenge):
                tops = [self.shown(challenge, "kept"), self.shown(challenge, "inputs")]
                return b"".join([digest for top in (*tops, self.own.path(challenge.position)) for digest in top])
            case WantCells(challenge, target):
                return b"".join(self.shown(challenge, "cells", target))
            case WantNodes(challenge, target, spans):
                parts = [self.levels(challenge, s.tree, target)[s.level][s.start : s.stop] for s in spans]
                return b"".join([digest for part in parts for digest in part])
            case WantChunks(challenge, indices):
                return b"".join([self.own.chunk(challenge.position, index) for index in indices])
            case WantStep(_, target, index):
                return self.opening(target, index)
            case _:
                raise AssertionError(turn)

    def opening(self, target: Target, index: int) -> bytes:
        """A cell, and all that it follows from."""
        plan, cells, levels = self.expanded(target)
        reader = OpeningReader(plan, self.own, cells, levels)
        reader.check_shape(plan.at(index)[0].layer)
        reader.show(cells[index])
        step(reader, index)
        reader.claimed(index)
        return reader.opening()


class Challenger(_Holder):
    """Whoever found a fault."""

    def __init__(self, own: Response, challenge: Challenge) -> None:
        super().__init__(own)
        self.challenge: Final = challenge

    def move(self, turn: Turn) -> bytes:
        """What is wanted of the challenger."""
        match turn:
            case WantChallenge():
                return self.challenge.encode()
            case WantBranch(challenge, kept, inputs):
                mine = self.shown(challenge, "kept"), self.shown(challenge, "inputs")
                return Branch(_difference(mine[0], kept), _difference(mine[1], inputs)).encode()
            case WantNames(challenge, target, shown):
                names: list[int] = []
                for tree, level, start, nodes in shown:
                    mine = self.levels(challenge, tree, target)[level][start : start + len(nodes)]
                    found = _difference(mine, nodes)  # where none differs, the last cell contradicts the receipt
                    names.append(start + (len(nodes) - 1 if found is None else found))
                return encode_indices(*names)
            case WantEntry(challenge, chunks):
                record, rank = self.own.records[challenge.position], self.own.shape.rank
                numbers = [(index * CHUNK + i, x) for index, chunk in chunks for i, x in enumerate(chunk)]
                return encode_indices(min((i for i, x in numbers if record[i] != x), key=rank))
            case _:
                raise AssertionError(turn)


def find_fault(own: Response, leaves: Sequence[Digest]) -> Challenge | None:
    """What is wrong with a response whose passes are committed to as `leaves`: the first thing, if there is one."""
    for position, (mine, theirs) in enumerate(zip(own.leaves, leaves, strict=True)):
        if mine != theirs:
            return Challenge(position)
        if position >= own.prompt - 1 and drawn(own, position) != own.tokens[position + 1]:
            return Challenge(position, token=True)
    return None


def drawn(own: Response, position: int) -> int:
    """The token that is to be drawn behind a pass."""
    plan = Plan(own.shape, TokenTarget(position), own.rules)
    return plan.sections[-1].decode(expand(plan, own)[-1])[0]


def play(game: Game, prover: Player, challenger: Player) -> Outcome:
    """Let two players finish a dispute."""
    turn = next(game)
    while True:
        try:
            turn = game.send((prover if turn.side == "prover" else challenger).move(turn))
        except StopIteration as end:
            outcome = end.value
            assert isinstance(outcome, Outcome)
            return outcome


def _difference(mine: Sequence[Digest], theirs: Sequence[Digest]) -> int | None:
    """Where they differ first."""
    return next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b), None)
