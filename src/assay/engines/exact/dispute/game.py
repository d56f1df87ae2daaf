"""A dispute over one receipt: a generator that asks for moves, and says who is right.

The challenger names the first pass that is wrong. The prover shows its record as trees, and the challenger leads down
to the number that is computed first among those that differ from its own, so that all it follows from is agreed; then
down in the cells that lead to that number. The cell that is left follows, or does not follow, from agreed numbers by
one small step. docs/dispute.md says why no honest side loses.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from assay.core.errors import AssayError, BindingMismatch, EncodingError
from assay.core.hashing import Digest, digest
from assay.core.receipt import Receipt
from assay.core.request import Opening, SamplerSettings, read_rules
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.catalogue import Catalogue
from assay.engines.exact.dispute.evidence import Evidence, Tokens
from assay.engines.exact.dispute.moves import (
    MOST_BYTES,
    Branch,
    Challenge,
    Chunk,
    Outcome,
    Shown,
    Side,
    Span,
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
    decode_indices,
    digests_of,
)
from assay.engines.exact.dispute.plan import GREEDY, NumberTarget, Plan, Rules, Target, TokenTarget
from assay.engines.exact.dispute.reading import Commitments, OpenedReader, cell_digest
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.record import CHUNK, CHUNK_BYTES, both_parts


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agree on: the model, and what the receipt says."""

    shape: Shape
    parameters: Digest
    """The model root: see `parameters.py`."""
    evidence: Evidence
    tokens: Tokens
    settings: SamplerSettings = GREEDY.settings
    seed: bytes = GREEDY.seed
    """Of the draws: see `core/sampler.py`."""

    @classmethod
    def of(cls, receipt: Receipt, opening: Opening, shape: Shape, parameters: Digest) -> Terms:
        """Those of a receipt. `opening`: of the request that it covers.

        Raises:
            BindingMismatch: it is another request's, or the answer is under a grammar, or has no token.
            EncodingError: its rules are none.
        """
        if opening.digest != receipt.request:
            raise BindingMismatch("request", "the opened request is not the one that the receipt covers")
        settings, masked = read_rules(opening.rules)
        if masked:
            raise BindingMismatch("rules", "a grammar restricts the answer, and no step says how")
        evidence = Evidence(receipt.evidence, receipt.prompt_count, receipt.output_count)
        tokens = Tokens(receipt.prompt_tokens, receipt.output)
        return cls(shape, parameters, evidence, tokens, settings, opening.seed)

    @property
    def rules(self) -> Rules:
        """How tokens are drawn."""
        return Rules(self.settings, self.seed, self.evidence.prompt)

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            BindingMismatch: prompt or answer have no token.
        """
        if self.evidence.prompt < 1 or self.evidence.output < 1:
            raise BindingMismatch("counts", "without a token in prompt and answer there is nothing to dispute")


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

    `committed`: chunks of the larger part of a record; `cells`: of the tree that is expanded. First those, the chunks
    that differ, the cells, and the step.
    """
    return trees.moves(committed) + 1 + trees.moves(cells) + 1


class _Lost(Exception):
    def __init__(self, side: Side, reason: str) -> None:
        super().__init__(reason)
        self.side: Side = side


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
            branch = self._tops(challenge, data)
        target: Target
        claimed: int | None
        if challenge.token:
            target, claimed = TokenTarget(challenge.position), None
        else:
            target, claimed = yield from self._number(branch)
        plan = Plan(self._shape, target, self._terms.rules)
        data = yield from self._move(WantCells(challenge, target))
        with _blaming("prover"):
            nodes = digests_of(data)
            root = trees.root_over(plan.count, nodes)
        top = Shown("cells", trees.first_level(plan.count), 0, nodes)
        (index,) = yield from self._name(WantNames(challenge, target, (top,)))
        ((index, leaf),) = yield from self._descend(challenge, target, (plan.count,), (top,), (index,))
        data = yield from self._move(WantStep(challenge, target, index))
        kept, inputs = self._roots(branch)
        terms = self._terms
        roots = Commitments(terms.parameters, terms.evidence, terms.tokens, challenge.position, kept, inputs, root)
        with _blaming("prover"):
            judge(plan, roots, index, leaf, claimed, data)
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
            if challenge.position >= self._terms.evidence.passes:
                raise EncodingError("the challenged pass is none of the receipt's")
            if challenge.token and not self._terms.evidence.draws(challenge.position):
                raise EncodingError("no token was drawn there")
        return challenge

    def _counts(self) -> tuple[int, int]:
        """Chunks of the two parts of a record."""
        layout = self._shape.layout
        return layout.kept_chunks, layout.chunks - layout.kept_chunks

    def _tops(self, challenge: Challenge, data: bytes) -> WantBranch:
        nodes, count = digests_of(data), self._counts()[0]
        size = trees.sizes_of(count)[trees.first_level(count)]
        inputs = self._counts()[1]
        stop = size + trees.sizes_of(inputs)[trees.first_level(inputs)]
        branch = WantBranch(challenge, nodes[:size], nodes[size:stop])
        self._terms.evidence.verify(challenge.position, both_parts(*self._roots(branch)), nodes[stop:])
        return branch

    def _roots(self, branch: WantBranch) -> tuple[Digest, Digest]:
        """Of the two parts of the challenged pass's record."""
        kept, inputs = self._counts()
        return trees.root_over(kept, branch.kept), trees.root_over(inputs, branch.inputs)

    def _number(self, want: WantBranch) -> Generator[Turn, bytes | Timeout, tuple[NumberTarget, int]]:
        """What the cells are to lead to, and what the prover says that it is."""
        data = yield from self._move(want)
        tops, counts, indices = list[Shown](), list[int](), list[int]()
        with _blaming("challenger"):
            branch = Branch.decode(data)
            parts: tuple[tuple[Tree, int | None, Sequence[Digest]], ...] = (
                ("kept", branch.kept, want.kept),
                ("inputs", branch.inputs, want.inputs),
            )
            for (tree, index, nodes), count in zip(parts, self._counts(), strict=True):
                if index is None:
                    continue
                if index >= len(nodes):
                    raise EncodingError("the branch has no such node")
                tops.append(Shown(tree, trees.first_level(count), 0, nodes))
                counts.append(count)
                indices.append(index)
        challenge = want.challenge
        found = yield from self._descend(challenge, None, tuple(counts), tuple(tops), tuple(indices))
        kept = self._counts()[0]
        chosen = tuple(
            index + (kept if top.tree == "inputs" else 0) for top, (index, _) in zip(tops, found, strict=True)
        )
        data = yield from self._move(WantChunks(challenge, chosen))
        with _blaming("prover"):
            chunks = self._chunks(chosen, [leaf for _, leaf in found], data)
        data = yield from self._move(WantEntry(challenge, chunks))
        with _blaming("challenger"):
            (entry,) = decode_indices(data, 1)
            claimed = next((each.numbers[entry % CHUNK] for each in chunks if each.index == entry // CHUNK), None)
            if claimed is None or self._shape.place(entry) is None:
                raise EncodingError("the chunks have no such number")
        return NumberTarget(challenge.position, entry), claimed

    def _chunks(self, indices: Sequence[int], leaves: Sequence[Digest], data: bytes) -> tuple[Chunk, ...]:
        """The numbers of chunks of which the digests are known."""
        if len(data) != len(indices) * CHUNK_BYTES:
            raise EncodingError(f"a chunk has {CHUNK_BYTES} bytes")
        chunks: list[Chunk] = []
        for n, (index, leaf) in enumerate(zip(indices, leaves, strict=True)):
            content = data[n * CHUNK_BYTES : (n + 1) * CHUNK_BYTES]
            if digest("assay/exact-chunk/1", content) != leaf:
                raise BindingMismatch("leaf", "this is not the chunk that was committed to")
            numbers = struct.unpack(f"<{CHUNK}h", content)
            if any(x and self._shape.place(index * CHUNK + i) is None for i, x in enumerate(numbers)):
                raise EncodingError("the last chunk is not filled up with zeros")
            chunks.append(Chunk(index, numbers))
        return tuple(chunks)

    def _name(self, want: WantNames) -> Generator[Turn, bytes | Timeout, tuple[int, ...]]:
        data = yield from self._move(want)
        with _blaming("challenger"):
            indices = decode_indices(data, len(want.shown))
            for index, shown in zip(indices, want.shown, strict=True):
                if not shown.start <= index < shown.start + len(shown.nodes):
                    raise EncodingError("a node is named that was not shown")
        return indices

    def _descend(
        self,
        challenge: Challenge,
        target: Target | None,
        counts: tuple[int, ...],
        tops: tuple[Shown, ...],
        indices: tuple[int, ...],
    ) -> Generator[Turn, bytes | Timeout, list[tuple[int, Digest]]]:
        """From a node of the first level of each tree to a leaf of each, and its digest."""
        at = [(top.level, index, top.nodes[index]) for top, index in zip(tops, indices, strict=True)]
        while any(level for level, _, _ in at):
            lower = [n for n, (level, _, _) in enumerate(at) if level]
            spans = tuple(Span(tops[n].tree, *trees.below(counts[n], *at[n][:2])) for n in lower)
            data = yield from self._move(WantNodes(challenge, target, spans))
            with _blaming("prover"):
                shown = _under(spans, [at[n] for n in lower], digests_of(data))
            named = yield from self._name(WantNames(challenge, target, shown))
            for n, index, each in zip(lower, named, shown, strict=True):
                at[n] = each.level, index, each.nodes[index - each.start]
        return [(index, node) for _, index, node in at]


def judge(plan: Plan, roots: Commitments, index: int, leaf: Digest, claimed: int | None, opening: bytes) -> None:
    """Check the disputed cell. `leaf`: its digest; `claimed`: what was committed to, None if a token is disputed.

    Raises:
        AssayError: the opening shows no such cell, or it does not follow, or leads elsewhere.
    """
    reader = OpenedReader(plan, Catalogue(plan.shape), roots, index, opening)
    section, i = plan.at(index)
    reader.check_shape(section.layer)
    cell = reader.take(section.numbers(i) * section.width)
    if cell_digest(cell) != leaf:
        raise BindingMismatch("cell", "this is not the cell that was committed to")
    numbers = section.decode(cell)
    if step(reader, index) != numbers:
        raise BindingMismatch("cell", f"cell {index} ({section.kind}) does not follow from the cells before")
    opened = reader.claimed(index)
    reader.close()
    claimed = opened if claimed is None else claimed
    if index == plan.count - 1 and numbers != (claimed,):
        raise BindingMismatch("cell", f"the cells lead to {numbers[0]}, not to {claimed} as was committed to")


def _under(
    spans: Sequence[Span], over: Sequence[tuple[int, int, Digest]], nodes: Sequence[Digest]
) -> tuple[Shown, ...]:
    """Digests as the levels that they are of, each under the node that is known of it."""
    if len(nodes) != sum(span.stop - span.start for span in spans):
        raise BindingMismatch("nodes", "another number of digests was asked for")
    shown: list[Shown] = []
    used = 0
    for span, (level, _, node) in zip(spans, over, strict=True):
        part = nodes[used : used + span.stop - span.start]
        used += len(part)
        if trees.over(part, level - span.level) != [node]:
            raise BindingMismatch("nodes", "the digests are not those under the node")
        shown.append(Shown(span.tree, span.level, span.start, part))
    return tuple(shown)


@contextmanager
def _blaming(side: Side) -> Iterator[None]:
    """Whatever is wrong inside loses for a side."""
    try:
        yield
    except AssayError as error:
        raise _Lost(side, error.message) from error
