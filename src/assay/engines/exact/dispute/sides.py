"""The two sides of a dispute, as they play when they are honest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from assay.core.hashing import Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.commitment import CHUNK
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
    WantEntry,
    WantLeaf,
    WantNode,
    WantNodes,
    WantStep,
    WantTops,
    encode_index,
)
from assay.engines.exact.dispute.plan import Plan, Target
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.record import OpeningReader, Record, evidence_path, expand
from assay.engines.exact.dispute.sampling import Candidate, SampleStep
from assay.engines.exact.dispute.steps import step


class Player(Protocol):
    """Whoever moves for a side."""

    def move(self, turn: Turn) -> bytes | Timeout:
        """What is wanted."""


class _Holder:
    """Whoever has a record."""

    def __init__(self, own: Record) -> None:
        self.own: Final = own
        self._cells: dict[Target, tuple[Plan, list[bytes], list[list[Digest]]]] = {}

    def cells(self, plan: Plan) -> list[bytes]:
        """All cells of a plan."""
        return expand(plan, self.own)

    def expanded(self, target: Target) -> tuple[Plan, list[bytes], list[list[Digest]]]:
        """The cells that lead to a target, and all levels of the tree over them."""
        if target not in self._cells:
            plan = Plan(self.own.shape, target)
            cells = self.cells(plan)
            self._cells[target] = plan, cells, trees.levels_of([cell_digest(cell) for cell in cells])
        return self._cells[target]

    def levels(self, challenge: Challenge, tree: Tree, target: Target | None) -> list[list[Digest]]:
        """All levels of a tree."""
        if tree == "fractions":
            return self.own.fraction_levels(challenge.position)
        if target is not None:
            return self.expanded(target)[2]
        return self.own.vector(challenge.position, head=tree == "head")[1]

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
                tops = [self.shown(challenge, tree) for tree in ("fractions", "body", "head")]
                path = evidence_path(self.own, challenge.position)
                return b"".join([digest for top in (*tops, path) for digest in top])
            case WantCells(challenge, target):
                return b"".join(self.shown(challenge, "cells", target))
            case WantNodes(challenge, tree, target, level, start, stop):
                return b"".join(self.levels(challenge, tree, target)[level][start:stop])
            case WantLeaf(challenge, "fractions", index):
                return self.own.fractions(challenge.position)[index]
            case WantLeaf(challenge, tree, index):
                return self.own.vector(challenge.position, head=tree == "head")[0][index]
            case WantStep(challenge, target, index):
                return self.opening(challenge, target, index)
            case _:
                raise AssertionError(turn)

    def opening(self, challenge: Challenge, target: Target, index: int) -> bytes:
        """A cell, and all that it follows from."""
        plan, cells, levels = self.expanded(target)
        reader = OpeningReader(plan, self.own, cells, levels, challenge.position)
        step(reader, index)
        return cells[index] + reader.opening()


class Challenger(_Holder):
    """Whoever found a fault."""

    def __init__(self, own: Record, challenge: Challenge) -> None:
        super().__init__(own)
        self.challenge: Final = challenge

    def move(self, turn: Turn) -> bytes:
        """What is wanted of the challenger."""
        match turn:
            case WantChallenge():
                return self.challenge.encode()
            case WantBranch(challenge, fractions, body, head):
                theirs: dict[Tree, Sequence[Digest]] = {"fractions": fractions, "body": body, "head": head}
                for tree, nodes in theirs.items():
                    mine = self.shown(challenge, tree)
                    index = next((i for i, node in enumerate(nodes) if node != mine[i]), None)
                    if index is not None:
                        return Branch(tree, index).encode()
                return Branch("cells", 0).encode()
            case WantNode(challenge, tree, target, level, start, nodes):
                mine = self.levels(challenge, tree, target)[level][start : start + len(nodes)]
                return encode_index(start + _first(mine, nodes))
            case WantEntry(challenge, "fractions", index, numbers):
                return encode_index(_first(self.own.passes[index].fractions, numbers))
            case WantEntry(challenge, tree, index, numbers):
                one = self.own.passes[challenge.position]
                vector = one.head if tree == "head" else one.body
                assert vector is not None
                return encode_index(_first(vector[index * CHUNK : (index + 1) * CHUNK].tolist(), numbers))
            case _:
                raise AssertionError(turn)


def find_fault(own: Record, leaves: Sequence[Digest], sample: SampleStep) -> Challenge | None:
    """What is wrong with a response whose passes are committed to as `leaves`: the first thing, if there is one."""
    for position, (mine, theirs) in enumerate(zip(own.leaves, leaves, strict=True)):
        if mine != theirs:
            return Challenge(position)
        one = own.passes[position]
        if one.head is None:
            continue
        output = position + 1 - own.prompt
        candidates = [Candidate(token, logit) for token, logit in enumerate(one.logits().tolist())]
        drawn = candidates[own.tokens[position + 1]]
        for rival in candidates:
            if sample.refutes(output, rival, drawn):
                return Challenge(position, rival.token)
    return None


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


def _first(mine: Sequence[object], theirs: Sequence[object]) -> int:
    """Where they differ first; the last place where they do not, because there the cells meet what was committed to."""
    return next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b), len(theirs) - 1)
