"""One side's view of a dispute on a chain: it follows all moves, and writes the next one as the chain takes it.

A chain knows less than the referee of `game.py`: of a tree only one node, so that the prover shows a named node's
siblings with what is under it; of the model nothing but its root, so that numbers of chunks and cells are the prover's
word until the last move. So each side follows the moves with a game of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from assay.chain import referees
from assay.chain.game import FILLING, PADDING, UNNAMED, State, step_move, word
from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.core.keys import keccak256
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import Terms, dispute
from assay.engines.exact.dispute.moves import (
    Challenge,
    Outcome,
    Shown,
    Timeout,
    Tree,
    Turn,
    WantBranch,
    WantCells,
    WantChunks,
    WantEntry,
    WantNames,
    WantNodes,
    WantStep,
    WantTops,
    decode_indices,
    encode_indices,
)
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Target
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.shape import ENDS
from assay.engines.exact.dispute.sides import Player, Prover
from assay.engines.exact.record import CHUNK, CHUNK_BYTES

_FACTS: Final = 13 * 32
"""Bytes of what is known from the beginning on."""
_NOBODY: Final = (1 << 32) - 1


def challenge_in(terms: Terms, state: State) -> Challenge | None:
    """What a dispute over a receipt begins with, by its first state; None: it is not over this receipt."""
    head = referees.encode(_known(terms))
    for position in range(terms.evidence.passes):
        for token in (False, True):
            if keccak256(head + word(position) + word(token)) == state.facts:
                return Challenge(position, token)
    return None


def _known(terms: Terms) -> tuple[Digest, Digest, Digest, Digest, int, int, bytes, int, int, int, int]:
    """The facts that are known before a challenge, as `referees.Terms` begins with them."""
    evidence, settings = terms.evidence, terms.settings
    return (
        terms.parameters, evidence.root, terms.tokens.prompt, terms.tokens.output, evidence.prompt, evidence.output,
        terms.seed, settings.temperature, settings.top_k, settings.top_p, settings.min_p,
    )  # fmt: skip


class Table:
    """Follows the moves of a dispute; writes and reads them as the chain takes them."""

    def __init__(self, terms: Terms, challenge: Challenge) -> None:
        self.terms: Final = terms
        self.challenge: Final = challenge
        self._game: Final = dispute(terms)
        self._shown: Final[dict[Tree, Shown]] = {}
        self._roots = (bytes(32), bytes(32))
        self._cells = 0, bytes(32)
        self._entry = 0, 0
        self._last = b""
        next(self._game)
        self.turn: Turn | Outcome = self._send(challenge.encode())
        """What is wanted next, if both sides move as `game.py` asks; an outcome, where one did not."""

    def answer(self, player: Player, state: State) -> bytes:
        """The next move of a player, as the chain takes it; the table has moved then."""
        if isinstance(self.turn, Outcome):
            return self._anyhow(player, state)
        move = player.move(self.turn)
        assert not isinstance(move, Timeout)
        data = self._written(move, player)
        self._moved(move)
        return data

    def follow(self, data: bytes) -> None:
        """Take in a move that the chain took; empty: one that nobody can read, after which `game.py` does not go on."""
        self._last = data
        if not isinstance(self.turn, Outcome | WantStep):  # a step that the chain took ends the dispute
            self._moved(self._read(data))

    def overhear(self, before: State, after: State, own: Response) -> None:
        """Take in a move of the challenger's by what it changed: what was named is in the state, and the number that
        was chosen is one of those in chunks of ours. So it need not be read, which a challenger could prevent.

        Raises:
            EncodingError: the challenger has moved in no such way.
        """
        descents = list(zip((before.one, before.other), (after.one, after.other), strict=True))
        if before.stage == "branch":
            self.follow(encode_indices(*(d.named if d.on else _NOBODY for _, d in descents)))
        elif before.stage in ("names", "cell names"):
            self.follow(encode_indices(*(d.named for was, d in descents if was.on and was.named == UNNAMED)))
        else:
            self.follow(self._chosen(before, after, own))

    def _chosen(self, before: State, after: State, own: Response) -> bytes:
        """The move that chooses a number of the chunks that were shown last."""
        one, other = before.one, before.other
        for chunk in [one.index] * one.on + [one.count + other.index] * other.on:
            content = own.chunk(self.challenge.position, chunk)
            for i, number in enumerate(struct.unpack(f"<{CHUNK}h", content)):
                entry = chunk * CHUNK + i
                if keccak256(before.facts + word(entry) + word(number)) == after.facts:
                    move = encode_indices(entry) + content
                    self._note_entry(move)
                    return move
        raise EncodingError("the challenger has chosen no number of ours")

    def _send(self, move: bytes) -> Turn | Outcome:
        try:
            return self._game.send(move)
        except StopIteration as end:
            outcome = end.value
            assert isinstance(outcome, Outcome)
            return outcome

    def _moved(self, move: bytes) -> None:
        """The own game goes on; what was shown is kept."""
        before = self.turn
        self.turn = after = self._send(move)
        if isinstance(after, WantBranch):
            parts: tuple[tuple[Tree, Sequence[Digest]], ...] = (("kept", after.kept), ("inputs", after.inputs))
            for (tree, nodes), count in zip(parts, self._counts, strict=True):
                self._shown[tree] = Shown(tree, trees.first_level(count), 0, nodes)
            self._roots = self._part_roots(after.kept, after.inputs)
        if isinstance(after, WantCells) and isinstance(before, WantTops):
            kept, inputs = self._tops(move)
            self._roots = self._part_roots(kept, inputs)
        if isinstance(after, WantNames):
            self._shown.update({shown.tree: shown for shown in after.shown})
        if isinstance(before, WantCells) and isinstance(after, WantNames):
            count = self._plan(before.target).count
            self._cells = count, trees.root_over(count, after.shown[0].nodes)

    @property
    def _counts(self) -> tuple[int, int]:
        """Chunks of the two parts of a record."""
        layout = self.terms.shape.layout
        return layout.kept_chunks, layout.chunks - layout.kept_chunks

    def _plan(self, target: Target) -> Plan:
        return Plan(self.terms.shape, target, self.terms.rules)

    def _tops(self, move: bytes) -> tuple[list[Digest], list[Digest]]:
        """The nodes of both trees in that move."""
        nodes = [move[i : i + 32] for i in range(0, len(move), 32)]
        kept, inputs = (trees.sizes_of(count)[trees.first_level(count)] for count in self._counts)
        return nodes[:kept], nodes[kept : kept + inputs]

    def _part_roots(self, kept: Sequence[Digest], inputs: Sequence[Digest]) -> tuple[Digest, Digest]:
        counts = self._counts
        return trees.root_over(counts[0], kept), trees.root_over(counts[1], inputs)

    def _read(self, data: bytes) -> bytes:
        """The move that the chain took, as `game.py` takes it; nothing, which loses there, for what only it refuses."""
        match self.turn:
            case WantTops(challenge):
                if data[:64] != b"".join(map(word, self._counts)):
                    return b""
                nodes = sum(trees.sizes_of(count)[trees.first_level(count)] for count in self._counts)
                length = 32 * (nodes + self.terms.evidence.path_length(challenge.position))
                return data[64 + _FACTS :][:length]
            case WantBranch():
                return data[:8]
            case WantNames(_, _, shown):
                return data[: 4 * len(shown)]
            case WantNodes(_, _, spans):
                return data[: 32 * sum(span.stop - span.start for span in spans)]
            case WantChunks(_, indices):
                return data[: CHUNK_BYTES * len(indices)]
            case WantEntry():
                self._note_entry(data)
                return data[:4]
            case WantCells(_, target):
                count = self._plan(target).count
                if data[:32] != word(count):
                    return b""
                return data[32:][: 32 * trees.sizes_of(count)[trees.first_level(count)]]
            case _:
                raise EncodingError("this move ends a dispute")

    def _written(self, move: bytes, player: Player) -> bytes:
        match self.turn:
            case WantTops():
                facts = referees.encode(self._judged_by(0))[:_FACTS]
                return b"".join([*map(word, self._counts), facts, move, 2 * PADDING])
            case WantNodes(_, _, spans):
                beside = [self._siblings(s.tree, s.start >> 4 * (self._shown[s.tree].level - s.level)) for s in spans]
                return b"".join([move, *beside, PADDING])
            case WantChunks(_, indices):
                kept = self._counts[0]
                beside = [
                    self._siblings("kept", i) if i < kept else self._siblings("inputs", i - kept) for i in indices
                ]
                return b"".join([move, *beside, PADDING])
            case WantEntry(_, chunks):
                (entry,) = decode_indices(move, 1)
                numbers = next(numbers for index, numbers in chunks if index == entry // CHUNK)
                data = move + struct.pack(f"<{CHUNK}h", *numbers) + FILLING
                self._note_entry(data)
                return data
            case WantCells(_, target):
                return b"".join([word(self._plan(target).count), move, PADDING])
            case WantStep(_, target, index):
                assert isinstance(player, Prover)
                plan, cells, _ = player.expanded(target)
                section, _ = plan.at(index)
                vector = plan.place()[1] if isinstance(target, NumberTarget) else ""
                step = referees.step_of(section, vector)
                call = referees.encode_judge(self._judged_by(index), cell_digest(cells[index]), step, move)
                return step_move(step.referee, call, self._siblings("cells", index))
            case _:
                return move + FILLING

    def _first_wrong(self, chunk: int, content: bytes) -> tuple[int, bytes, bool]:
        """A number of a chunk that should be 0 and is not, if there is one; the chunk; whether there is."""
        numbers = struct.unpack(f"<{CHUNK}h", content)
        places = (chunk * CHUNK + i for i, x in enumerate(numbers) if x)
        wrong = next((place for place in places if self.terms.shape.place(place) is None), None)
        return chunk * CHUNK if wrong is None else wrong, content, wrong is not None

    def _note_entry(self, data: bytes) -> None:
        """The disputed number's place, and what the prover committed to there."""
        (entry,) = decode_indices(data[:4], 1)
        self._entry = entry, *struct.unpack_from("<h", data, 4 + 2 * (entry % CHUNK))

    def _siblings(self, tree: Tree, index: int) -> bytes:
        """What is beside a node of the level that was shown last, and beside its parents, up to the known node."""
        _, _, start, nodes = self._shown[tree]
        return b"".join(trees.prove(trees.levels_of(nodes), index - start, index - start + 1))

    def _judged_by(self, index: int) -> referees.Terms:
        """What a step is judged by."""
        return referees.Terms(
            *_known(self.terms), self.challenge.position, self.challenge.token,
            *self._counts, *self._roots, *self._entry, *self._cells, index,
        )  # fmt: skip

    def _anyhow(self, player: Player, state: State) -> bytes:
        """A move where the other side's loses in `game.py`, and only the last one shows that to the chain.

        The challenger goes wherever it may, but to a number that should be 0 where there is one that is not. The prover
        is led to a number that is none, and shows that it is 0.
        """
        if state.stage == "branch":
            return encode_indices(0, _NOBODY) + FILLING
        if state.stage in ("names", "cell names"):
            open_ = [d.first for d in (state.one, state.other) if d.on and d.named == UNNAMED]
            return encode_indices(*open_) + FILLING
        if state.stage == "entry":
            chunks = [d.index + at for d, at in ((state.one, 0), (state.other, state.one.count)) if d.on]
            if len(self._last) < CHUNK_BYTES * len(chunks):
                raise EncodingError("chunks that nobody can read were shown, and there is nothing left to say")
            shown = [self._last[n * CHUNK_BYTES :][:CHUNK_BYTES] for n in range(len(chunks))]
            entry, content = min(map(self._first_wrong, chunks, shown), key=lambda found: not found[2])[:2]
            return encode_indices(entry) + content + FILLING
        leaf = cell_digest(bytes(2))
        if state.stage == "cells":
            self._cells = 1, trees.root_over(1, [leaf])
            return word(1) + leaf + PADDING
        if state.stage != "step" or not isinstance(player, Prover):
            raise EncodingError("there is nothing left to say in this dispute")
        step = referees.Step("Stream", referees.KINDS.index("number"), ENDS, 0)
        return step_move(
            "Stream", referees.encode_judge(self._judged_by(0), leaf, step, player.own.parameters.numbers()), b""
        )
