"""A dispute over one receipt: a generator that asks for moves, and says who is right.

The challenger names the first pass that is wrong. The prover shows its numbers as trees, and the challenger leads down
to the first one that differs from its own, so that all numbers before are agreed: first among the numbers that the
receipt commits to, then among the cells that lead to that number. The cell that is left follows, or does not follow,
from agreed numbers by one small step. docs/dispute.md says why no honest side loses.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from assay.core.errors import AssayError, BindingMismatch, EncodingError
from assay.core.hashing import ZERO, Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.commitment import (
    CHUNK,
    Evidence,
    chunk_count,
    chunk_digest,
    decode_chunk,
    decode_fractions,
    fractions_digest,
    pass_leaf,
)
from assay.engines.exact.dispute.moves import (
    MOST_BYTES,
    Branch,
    Challenge,
    Outcome,
    Side,
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
    decode_index,
    digests_of,
)
from assay.engines.exact.dispute.parameters import Catalogue
from assay.engines.exact.dispute.plan import FractionTarget, Plan, RowTarget, Target, TokenTarget
from assay.engines.exact.dispute.reading import Commitments, OpenedReader, cell_digest
from assay.engines.exact.dispute.sampling import Candidate, SampleStep
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.steps import step


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agree on: the model, and what the receipt says."""

    shape: Shape
    parameters: Digest
    """Root of the model's parameters, the shape among them."""
    evidence: Evidence
    tokens: tuple[int, ...]
    """Of prompt and answer."""
    sample: SampleStep = field(default_factory=SampleStep)

    def __post_init__(self) -> None:
        """Check the tokens against the model and the evidence.

        Raises:
            BindingMismatch: another number of them, or one that the model does not have.
        """
        if len(self.tokens) != self.evidence.prompt + self.evidence.output or self.evidence.prompt < 1:
            raise BindingMismatch("tokens", f"{len(self.tokens)} tokens are not those of the evidence")
        if not all(0 <= token < self.shape.embedding.rows for token in self.tokens):
            raise BindingMismatch("tokens", "a token is not in the vocabulary")


Game: TypeAlias = Generator[Turn, bytes | Timeout, Outcome]
"""A dispute that runs: `next` gives the first turn, `send` takes a move and gives the next turn, or ends."""


def dispute(terms: Terms) -> Game:
    """Run a dispute."""
    game = _Game(terms)
    try:
        return (yield from game.run())
    except _Lost as lost:
        winner: Side = "challenger" if lost.side == "prover" else "prover"
        return Outcome(winner, str(lost), game.exchanges)


def most_exchanges(committed: int, cells: int) -> int:
    """How many a dispute has at most.

    `committed`: leaves of the largest of the trees over chunks and over earlier positions; `cells`: of the one that is
    expanded. First those, the leaf that differs, the cells, and the step.
    """
    return trees.moves(committed) + 1 + trees.moves(cells) + 1


class _Lost(Exception):
    def __init__(self, side: Side, reason: str) -> None:
        super().__init__(reason)
        self.side: Side = side


@dataclass(frozen=True, slots=True)
class _Tops:
    fractions: Digest
    leaf: Digest


class _Game:
    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._shape = terms.shape
        self.exchanges = 0

    def run(self) -> Generator[Turn, bytes | Timeout, Outcome]:
        data = yield from self._move(WantChallenge())
        challenge = self._challenge(data)
        data = yield from self._move(WantTops(challenge))
        with _blaming("prover"):
            branch, tops = self._tops(challenge, data)
        data = yield from self._move(branch)
        target, claimed = yield from self._target(branch, data)
        plan = Plan(self._shape, target)
        data = yield from self._move(WantCells(challenge, target))
        with _blaming("prover"):
            nodes = digests_of(data)
            root = trees.root_over(plan.count, nodes)
        level = trees.first_level(plan.count)
        index = yield from self._name(WantNode(challenge, "cells", target, level, 0, nodes))
        index, leaf = yield from self._descend(challenge, "cells", target, plan.count, index, nodes)
        data = yield from self._move(WantStep(challenge, target, index))
        roots = Commitments(
            self._terms.parameters, self._terms.evidence, tops.leaf, challenge.position, tops.fractions, root
        )
        with _blaming("prover"):
            self._judge(plan, roots, index, leaf, claimed, data)
        raise _Lost("challenger", f"cell {index} follows from what is agreed")

    def _move(self, want: Turn) -> Generator[Turn, bytes | Timeout, bytes]:
        if want.side == "prover":
            self.exchanges += 1
        move = yield want
        if isinstance(move, Timeout):
            raise _Lost(want.side, "no move came in time")
        if len(move) > MOST_BYTES:
            raise _Lost(want.side, f"a move has over {MOST_BYTES} bytes")
        return move

    def _challenge(self, data: bytes) -> Challenge:
        with _blaming("challenger"):
            challenge = Challenge.decode(data)
            evidence, rival = self._terms.evidence, challenge.rival
            if challenge.position >= evidence.passes:
                raise EncodingError("the challenged pass is none of the receipt's")
            if rival is not None and (not evidence.has_head(challenge.position) or rival >= self._shape.head.rows):
                raise EncodingError("no token could be drawn like this")
        return challenge

    def _tops(self, challenge: Challenge, data: bytes) -> tuple[WantBranch, _Tops]:
        position, evidence = challenge.position, self._terms.evidence
        nodes, parts = digests_of(data), list[list[Digest]]()
        for tree in ("fractions", "body", "head"):
            size = self._shown(self._count(challenge, tree))
            parts.append(nodes[:size])
            nodes = nodes[size:]
        fractions, body, head = parts
        has_head = evidence.has_head(position)
        leaf = pass_leaf(
            trees.root_over(self._count(challenge, "body"), body),
            trees.root_over(self._count(challenge, "head"), head) if has_head else ZERO,
        )
        evidence.verify(position, leaf, nodes)
        tops = _Tops(trees.root_over(position, fractions), leaf)
        return WantBranch(challenge, fractions, body, head), tops

    def _target(self, want: WantBranch, data: bytes) -> Generator[Turn, bytes | Timeout, tuple[Target, int | None]]:
        """What the cells are to lead to, and what the prover says that it is."""
        challenge = want.challenge
        shown: dict[Tree, Sequence[Digest]] = {"fractions": want.fractions, "body": want.body, "head": want.head}
        with _blaming("challenger"):
            branch = Branch.decode(data)
            if branch.tree != "fractions" and (branch.tree == "cells") != (challenge.rival is not None):
                raise EncodingError("the branch is not one of the challenge")
            if branch.tree == "cells" and branch.index:
                raise EncodingError("the cells have no node yet")
            if branch.tree != "cells" and branch.index >= len(shown[branch.tree]):
                raise EncodingError("the branch has no such node")
        if branch.tree == "cells":
            assert challenge.rival is not None
            return TokenTarget(challenge.position, challenge.rival), None
        count, nodes = self._count(challenge, branch.tree), shown[branch.tree]
        index, leaf = yield from self._descend(challenge, branch.tree, None, count, branch.index, nodes)
        data = yield from self._move(WantLeaf(challenge, branch.tree, index))
        with _blaming("prover"):
            numbers = self._leaf(branch.tree, index, data, leaf)
        data = yield from self._move(WantEntry(challenge, branch.tree, index, numbers))
        with _blaming("challenger"):
            entry = decode_index(data)
            if entry >= len(numbers):
                raise EncodingError("the leaf has no such number")
        if branch.tree == "fractions":
            return FractionTarget(index, entry), numbers[entry]
        return RowTarget(challenge.position, branch.tree == "head", index * CHUNK + entry), numbers[entry]

    def _leaf(self, tree: Tree, index: int, data: bytes, leaf: Digest) -> Sequence[int]:
        """The numbers of a leaf of which the digest is known."""
        if tree == "fractions":
            if len(data) != 2 * len(self._shape.layers) or fractions_digest(data) != leaf:
                raise BindingMismatch("leaf", "these are not the fraction bits that were committed to")
            return decode_fractions(data)
        if chunk_digest(data) != leaf:
            raise BindingMismatch("leaf", "this is not the chunk that was committed to")
        numbers, size = decode_chunk(data), self._shape.head.rows if tree == "head" else self._shape.body
        there = size - index * len(numbers)
        if any(numbers[there:]) and there < len(numbers):
            raise EncodingError("the last chunk of accumulators is not filled up with zeros")
        return numbers[:there]

    def _name(self, want: WantNode) -> Generator[Turn, bytes | Timeout, int]:
        data = yield from self._move(want)
        with _blaming("challenger"):
            index = decode_index(data)
            if not want.start <= index < want.start + len(want.nodes):
                raise EncodingError("a node is named that was not shown")
        return index

    def _descend(
        self,
        challenge: Challenge,
        tree: Tree,
        target: Target | None,
        count: int,
        index: int,
        nodes: Sequence[Digest],
    ) -> Generator[Turn, bytes | Timeout, tuple[int, Digest]]:
        """From a node of the first level to a leaf, and its digest."""
        level, node = trees.first_level(count), nodes[index]
        while level:
            lower, start, stop = trees.below(count, level, index)
            data = yield from self._move(WantNodes(challenge, tree, target, lower, start, stop))
            with _blaming("prover"):
                nodes = digests_of(data)
                if len(nodes) != stop - start or trees.over(nodes, level - lower) != [node]:
                    raise BindingMismatch("nodes", "the digests are not those under the node")
            level = lower
            index = yield from self._name(WantNode(challenge, tree, target, level, start, nodes))
            node = nodes[index - start]
        return index, node

    def _judge(
        self, plan: Plan, roots: Commitments, index: int, leaf: Digest, claimed: int | None, data: bytes
    ) -> None:
        """Check the disputed cell; whatever is raised speaks against the prover."""
        terms, target = self._terms, plan.target
        reader = OpenedReader(plan, Catalogue(self._shape), terms.tokens, roots, index, data)
        section, i = plan.at(index)
        cell = reader.take(section.numbers(i) * section.width)
        if cell_digest(cell) != leaf:
            raise BindingMismatch("cell", "this is not the cell that was committed to")
        numbers = section.decode(cell)
        if step(reader, index) != numbers:
            raise BindingMismatch("cell", f"cell {index} ({section.kind}) does not follow from the cells before")
        reader.close()
        if index < plan.count - 1:
            return
        if claimed is not None and numbers != (claimed,):
            raise BindingMismatch("cell", "the cells do not lead to what was committed to")
        if isinstance(target, TokenTarget):
            drawn = Candidate(terms.tokens[target.position + 1], numbers[0])
            rival = Candidate(target.rival, numbers[1])
            if terms.sample.refutes(target.position + 1 - terms.evidence.prompt, rival, drawn):
                raise BindingMismatch("token", f"token {rival.token} was to be drawn, not {drawn.token}")

    def _count(self, challenge: Challenge, tree: Tree) -> int:
        """Leaves of a tree."""
        if tree == "fractions":
            return challenge.position
        if tree == "body":
            return chunk_count(self._shape.body)
        return chunk_count(self._shape.head.rows) if self._terms.evidence.has_head(challenge.position) else 0

    @staticmethod
    def _shown(count: int) -> int:
        return trees.sizes_of(count)[trees.first_level(count)]


@contextmanager
def _blaming(side: Side) -> Iterator[None]:
    """Whatever is wrong inside loses for a side."""
    try:
        yield
    except AssayError as error:
        raise _Lost(side, error.message) from error
