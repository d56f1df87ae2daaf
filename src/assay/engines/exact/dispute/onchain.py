"""Disputes as a chain plays them: the bytes of moves and states for `chain/contracts/Game.vy`, and a side that plays there.

A chain knows less than the referee of `game.py`: of a tree only one node, so that the prover shows a named node's
siblings with what is under it; of the model nothing but its root, so that numbers of chunks and cells are the prover's
word until the last move. Both sides follow the moves with a game of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, get_args

from assay.core.encoding import canonical
from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.core.keys import keccak256
from assay.core.profile import Profile
from assay.core.request import Opening
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import Terms, dispute
from assay.engines.exact.dispute.moves import (
    Branch,
    Challenge,
    Outcome,
    Shown,
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
    encode_indices,
)
from assay.engines.exact.dispute.plan import Kind, NumberTarget, Plan, Section, Target, TokenTarget
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.shape import NORMS, PRODUCTS, Shape
from assay.engines.exact.dispute.sides import Player, Prover
from assay.engines.exact.record import CHUNK, CHUNK_BYTES

PADDING: Final = bytes(1024)
"""Zeros behind a move, which the contract reads in pieces of constant size."""
OPENING_PADDING: Final = bytes(2624)
"""The same behind the opening of a step."""
MOST_WIDTH: Final = 320
"""Of heads, whose cells a contract can read."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""As contracts number them."""
USES: Final = ("", *PRODUCTS, "head", *NORMS, "norm")
REFEREES: Final = ("Products", "Stream", "Norms", "Heads", "Softmax", "Feed", "Draws")
"""Contracts that judge a step, as `Game` numbers them."""
JUDGE: Final = (
    "judge((bytes32,bytes32,bytes32,bytes32,uint256,uint256,bytes32,uint256,uint256,uint256,uint256,uint256,bool,"
    "uint256,uint256,bytes32,bytes32,uint256,int256,uint256,bytes32,uint256),bytes32,uint256,int256,uint256,bytes)"
)
"""What all of them have."""
STAGES: Final = (
    "tops", "branch", "nodes", "names", "chunks", "entry", "cells", "cell nodes", "cell names", "step"
)  # fmt: skip
_UNNAMED: Final = 2**64 - 1
_OFF: Final = 2**64 - 2
_NOBODY: Final = (1 << 32) - 1
_SELECTOR: Final = keccak256(JUDGE.encode())[:4]


class Descent(NamedTuple):
    """Where a descent in a tree is."""

    node: Digest
    """That is known."""
    count: int
    level: int
    """Of the node; `index`: its place in it."""
    index: int
    below: int
    """Level of the nodes under it that were shown."""
    named: int
    """The one of them that differs."""

    @property
    def on(self) -> bool:
        """Whether there is a descent in the tree."""
        return self.named != _OFF

    @property
    def first(self) -> int:
        """The first of the nodes that were shown."""
        return self.index << 4 * (self.level - self.below)


class State(NamedTuple):
    """What the contract hands from move to move."""

    stage: str
    """One of STAGES: what is wanted."""
    one: Descent
    """In keys and values, then in the cells."""
    other: Descent
    """In the inputs of products."""


def read_state(data: bytes) -> State:
    """A state as events carry it.

    Raises:
        EncodingError: it is none.
    """
    if len(data) != 14 * 32:
        raise EncodingError("a state of a dispute has 14 words")
    words = [data[i : i + 32] for i in range(0, len(data), 32)]
    stage, *numbers = (int.from_bytes(word, "big") for word in words)
    if stage >= len(STAGES):
        raise EncodingError("the state of a dispute is unknown")
    return State(STAGES[stage], Descent(words[2], *numbers[2:7]), Descent(words[8], *numbers[8:13]))


def exhibit(challenge: Challenge, parameters: Digest, opening: Opening, profile: Profile) -> bytes:
    """What a dispute is opened with. `parameters`: the model's root, which `profile.build` has."""
    head = '{"build":"' + profile.build
    rest = canonical(profile.to_json())[len(head) :]
    words = _word(challenge.position), _word(challenge.token), parameters, opening.body, opening.seed
    return b"".join([*words, opening.rules, rest])


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
        """Take in a move that the chain took."""
        self._last = data
        if not isinstance(self.turn, Outcome | WantStep):  # a step that the chain took ends the dispute
            self._moved(self._read(data))

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
                if data[:64] != b"".join(map(_word, self._counts)):
                    return b""
                nodes = sum(trees.sizes_of(count)[trees.first_level(count)] for count in self._counts)
                length = 32 * (nodes + self.terms.evidence.path_length(challenge.position))
                return data[64 + 32 * 13 :][:length]
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
                if data[:32] != _word(count):
                    return b""
                return data[32:][: 32 * trees.sizes_of(count)[trees.first_level(count)]]
            case _:
                raise EncodingError("this move ends a dispute")

    def _written(self, move: bytes, player: Player) -> bytes:
        match self.turn:
            case WantTops():
                return b"".join([*map(_word, self._counts), *self._facts(), move, PADDING])
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
                data = move + struct.pack(f"<{CHUNK}h", *numbers) + PADDING
                self._note_entry(data)
                return data
            case WantCells(_, target):
                return b"".join([_word(self._plan(target).count), move, PADDING])
            case WantStep(_, target, index):
                assert isinstance(player, Prover)
                plan, cells, _ = player.expanded(target)
                section, _ = plan.at(index)
                call = self._judgement(plan, section, index, cell_digest(cells[index]), move)
                return _step(referee_of(plan, section), call, self._siblings("cells", index))
            case _:
                return move + PADDING

    def _note_entry(self, data: bytes) -> None:
        """The disputed number's place, and what the prover committed to there."""
        (entry,) = decode_indices(data[:4], 1)
        self._entry = entry, *struct.unpack_from("<h", data, 4 + 2 * (entry % CHUNK))

    def _siblings(self, tree: Tree, index: int) -> bytes:
        """What is beside a node of the level that was shown last, and beside its parents, up to the known node."""
        _, _, start, nodes = self._shown[tree]
        return b"".join(trees.prove(trees.levels_of(nodes), index - start, index - start + 1))

    def _facts(self) -> list[bytes]:
        terms, settings, position = self.terms, self.terms.settings, self.challenge.position
        numbers = settings.temperature, settings.top_k, settings.top_p, settings.min_p, position, self.challenge.token
        counts = terms.evidence.prompt, terms.evidence.output
        return [
            terms.parameters, terms.evidence.root, *terms.tokens, *map(_word, counts), terms.seed, *map(_word, numbers)
        ]  # fmt: skip

    def _judgement(self, plan: Plan | None, section: Section | None, index: int, leaf: Digest, opening: bytes) -> bytes:
        """The call of a referee."""
        entry, claimed = self._entry
        count, root = self._cells
        kept, inputs = self._roots
        words = [
            *self._facts(), *map(_word, self._counts), kept, inputs, _word(entry), _word(claimed),
            _word(count), root, _word(index), leaf,
        ]  # fmt: skip
        if section is None:
            words += map(_word, (KINDS.index("number"), -1, 0))
        else:
            use = "" if section.kind == "embedded" else section.use
            words += map(_word, (KINDS.index(section.kind), section.layer, USES.index(use)))
        content = opening + OPENING_PADDING
        words += [_word(32 * 27), _word(len(content)), content, bytes(-len(content) % 32)]
        return _SELECTOR + b"".join(words)

    def _anyhow(self, player: Player, state: State) -> bytes:
        """A move where the other side has made one that loses in `game.py`, and which only the last move shows to be wrong.

        The challenger goes wherever it may. The prover is led to a number that is none, and shows that it is 0.
        """
        if state.stage == "branch":
            return encode_indices(0, _NOBODY) + PADDING
        if state.stage in ("names", "cell names"):
            open_ = [d.first for d in (state.one, state.other) if d.on and d.named == _UNNAMED]
            return encode_indices(*open_) + PADDING
        if state.stage == "entry":
            index = state.one.index if state.one.on else state.one.count + state.other.index
            return encode_indices(index * CHUNK) + self._last[:CHUNK_BYTES] + PADDING
        leaf = cell_digest(bytes(2))
        if state.stage == "cells":
            self._cells = 1, trees.root_over(1, [leaf])
            return _word(1) + leaf + PADDING
        if state.stage != "step" or not isinstance(player, Prover):
            raise EncodingError("there is nothing left to say in this dispute")
        opening = player.own.open_model()
        return _step("Stream", self._judgement(None, None, 0, leaf, opening), b"")


def referee_of(plan: Plan, section: Section) -> str:
    """Which of REFEREES judges the cells of a section."""
    kind, target = section.kind, "token" if isinstance(plan.target, TokenTarget) else plan.place()[1]
    if kind == "product":
        return "Products"
    if kind in ("peak", "square", "inverse", "top", "scale", "normed"):
        return "Norms"
    if target in ("keys", "values") or kind in ("biased", "query", "key", "value"):
        return "Heads"
    return {"mixed": "Softmax", "gated": "Feed", "token": "Draws"}.get(target, "Stream")


def _step(referee: str, call: bytes, siblings: bytes) -> bytes:
    return b"".join([_word(REFEREES.index(referee) | len(call) << 8), call, siblings, PADDING])


def _word(number: int) -> bytes:
    return int(number).to_bytes(32, "big", signed=number < 0)
