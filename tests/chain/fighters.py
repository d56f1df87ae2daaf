"""Those who fight: honest ones, and ones that know the contract and lie in every way that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

from tests.chain.arena import Case

from assay.apps.disputes.table import Table
from assay.chain import referees
from assay.chain.game import FILLING, PADDING, UNNAMED, Descent, State, step_move, word
from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.moves import encode_indices
from assay.engines.exact.dispute.plan import NumberTarget, Target, TokenTarget
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.sides import Player
from assay.engines.exact.record import CHUNK

NOBODY: Final = (1 << 32) - 1


class Side(Protocol):
    """Whoever moves on the chain."""

    def answers(self, state: State) -> list[bytes]:
        """Moves to try one after the other, until one is taken."""
        ...

    def follow(self, data: bytes) -> None:
        """The other side's move was taken."""
        ...


class Honest:
    """A player of the game in Python, who has one move."""

    def __init__(self, case: Case, player: Player) -> None:
        self.table = Table(case.terms, case.challenge)
        self.player = player

    def answers(self, state: State) -> list[bytes]:
        """The move; none, where it gives up."""
        try:
            return [self.table.answer(self.player, state)]
        except EncodingError:
            return []

    def follow(self, data: bytes) -> None:
        """The other side's move was taken."""
        self.table.follow(data)


def shown(d: Descent) -> int:
    """How many nodes were."""
    wide = -(-d.count // 16**d.below)
    return min((d.index + 1) << 4 * (d.level - d.below), wide) - d.first


class Wild:
    """A challenger that leads anywhere: to numbers that are none, to one part, to both; after moves that are none."""

    def __init__(self, case: Case, dice: Random) -> None:
        self.case, self.dice = case, dice

    def answers(self, state: State) -> list[bytes]:
        """Bad ones, then one that the contract takes."""
        if state.stage == "branch":
            both = [self._any(state.one), self._any(state.other)]
            if self.dice.random() < 0.5:
                both[self.dice.randrange(2)] = NOBODY
            past = shown(self.dice.choice([state.one, state.other]))
            bad = [(NOBODY, NOBODY), (past, past), (NOBODY, 1 << 31), (NOBODY - 1, NOBODY)]
            return [encode_indices(*names) + FILLING for names in (*bad[: self.dice.randrange(5)], both)]
        if state.stage in ("names", "cell names"):
            open_ = [d for d in (state.one, state.other) if d.on and d.named == UNNAMED]
            bad_names = [d.first + shown(d) for d in open_], [d.first - 1 & NOBODY for d in open_]
            good = [self._any(d) for d in open_]
            return [encode_indices(*names) + FILLING for names in (*bad_names[: self.dice.randrange(3)], good)]
        assert state.stage == "entry"
        first = state.one.count
        choices = [d.index + offset for d, offset in ((state.one, 0), (state.other, first)) if d.on]
        chunk = self.dice.choice(choices)
        content = self.case.theirs.chunk(self.case.challenge.position, chunk)
        entry = chunk * CHUNK + self.dice.choice([0, CHUNK - 1, self.dice.randrange(CHUNK)])
        bad_entries = [(entry + (1 << 20), content), (entry, content[:-1] + bytes([content[-1] ^ 1]))]
        tries = (*bad_entries[: self.dice.randrange(3)], (entry, content))
        return [encode_indices(index) + data + FILLING for index, data in tries]

    def _any(self, d: Descent) -> int:
        return d.first + self.dice.choice([0, shown(d) - 1, self.dice.randrange(shown(d))])

    def follow(self, data: bytes) -> None:
        """It needs not know."""


class Forest:
    """All levels of a tree, most of whose leaves are the same one: no tree is too large."""

    def __init__(self, count: int, leaves: dict[int, Digest], other: Digest) -> None:
        self.count = count
        self._rows: list[tuple[int, dict[int, Digest], Digest, Digest]] = []
        size, some, usual, last = count, leaves, other, leaves.get(count - 1, other)
        while True:
            self._rows.append((size, some, usual, last))
            if size == 1:
                break
            above: dict[int, Digest] = {}
            for place in {index // 16 for index in some} | {(size - 1) // 16}:
                children = [self._node(index) for index in range(16 * place, min(16 * place + 16, size))]
                (above[place],) = trees.parents(children)
            (usual,) = trees.parents([usual] * 16)
            size, some = -(-size // 16), above
            last = some.get(size - 1, usual)

    def _node(self, index: int) -> Digest:
        size, some, usual, last = self._rows[-1]
        return last if index == size - 1 else some.get(index, usual)

    def part(self, level: int, start: int, stop: int) -> list[Digest]:
        """Some nodes of a level."""
        size, some, usual, last = self._rows[level]
        return [last if index == size - 1 else some.get(index, usual) for index in range(start, min(stop, size))]

    @property
    def top(self) -> Digest:
        """Without the seal."""
        return self.part(len(self._rows) - 1, 0, 1)[0]

    @property
    def root(self) -> Digest:
        """With it."""
        return trees.seal(self.count, self.top)

    def first(self) -> list[Digest]:
        """The level with which a descent begins."""
        return self.part(trees.first_level(self.count), 0, 256)

    def prove(self, index: int, below: int = 0, level: int | None = None) -> list[Digest]:
        """Siblings of a node of level `below` and of those over it, up to `level` or the top."""
        out: list[Digest] = []
        for each in range(below, len(self._rows) - 1 if level is None else level):
            left = index - index % 16
            out += self.part(each, left, index) + self.part(each, index + 1, left + 16)
            index //= 16
        return out

    def beside(self, d: Descent) -> list[Digest]:
        """Siblings of the named node, up to the known one."""
        return self.prove(d.named, d.below, d.level)

    def under(self, d: Descent) -> list[Digest]:
        """What is under the named node, at most two levels down."""
        down = min(2, d.below)
        return self.part(d.below - down, d.named << 4 * down, (d.named + 1) << 4 * down)


def forest(leaves: Sequence[Digest]) -> Forest:
    """A tree over just those."""
    return Forest(len(leaves), dict(enumerate(leaves)), bytes(32))


Calls = Callable[[referees.Terms, Digest, Target | None], list[tuple[str, bytes]]]
"""Last moves to try: referee, and what it is called with."""


class Liar:
    """A prover that shows trees of any size over anything, all of it as the contract takes it, and at the end tries
    whatever call may be taken."""

    def __init__(
        self,
        case: Case,
        record: tuple[Forest, Forest],
        chunk: Callable[[int], bytes],
        cells: Callable[[Target | None], Forest],
        calls: Calls,
    ) -> None:
        """`chunk`: content by its place in the record; `cells`: up to what is disputed."""
        self.case, self.record, self.chunk = case, record, chunk
        self._cells, self._calls = cells, calls
        self.cells: Forest | None = None
        self.target: Target | None = None
        self.entry = 0, 0
        self._last = b""

    def answers(self, state: State) -> list[bytes]:
        """Moves that the contract takes, but for the last one."""
        kept, inputs = self.record
        if state.stage == "tops":
            facts = referees.encode(self.terms(0))[: 13 * 32]
            path = self.case.theirs.path(self.case.challenge.position)
            return [
                b"".join([word(kept.count), word(inputs.count), facts, *kept.first(), *inputs.first(), *path])
                + 2 * PADDING
            ]
        if state.stage == "nodes":
            deep = [(tree, d) for tree, d in ((kept, state.one), (inputs, state.other)) if d.on and d.below > 0]
            nodes = [node for tree, d in deep for node in tree.under(d)]
            return [b"".join(nodes + [node for tree, d in deep for node in tree.beside(d)]) + PADDING]
        if state.stage == "chunks":
            pairs = [(tree, d, at) for tree, d, at in ((kept, state.one, 0), (inputs, state.other, kept.count)) if d.on]
            shows = [self.chunk(at + d.named) for _, d, at in pairs]
            return [b"".join(shows + [node for tree, d, _ in pairs for node in tree.beside(d)]) + PADDING]
        if state.stage == "cells":
            self.target = self._aim()
            self.cells = self._cells(self.target)
            return [word(self.cells.count) + b"".join(self.cells.first()) + PADDING]
        assert self.cells
        if state.stage == "cell nodes":
            return [b"".join(self.cells.under(state.one) + self.cells.beside(state.one)) + PADDING]
        assert state.stage == "step"
        leaf = self.cells.part(0, state.one.named, state.one.named + 1)[0]
        siblings = b"".join(self.cells.beside(state.one))
        calls = self._calls(self.terms(state.one.named), leaf, self.target)
        return [step_move(name, call, siblings) for name, call in calls]

    def _aim(self) -> Target | None:
        where = self.case.challenge
        if where.token:
            return TokenTarget(where.position)
        kept = self.case.theirs.shape.layout.kept_chunks
        entry = self.entry[0]
        if entry >= CHUNK * self.record[0].count:
            entry += CHUNK * (kept - self.record[0].count)
        return NumberTarget(where.position, entry) if self.case.theirs.shape.place(entry) else None

    def follow(self, data: bytes) -> None:
        """What the challenger says is the last thing about the record that matters."""
        self._last = data
        if len(data) == 4 + 2 * CHUNK + len(FILLING):
            entry = int.from_bytes(data[:4], "big")
            at = 4 + 2 * (entry % CHUNK)
            self.entry = entry, int.from_bytes(data[at : at + 2], "little", signed=True)

    def terms(self, index: int) -> referees.Terms:
        """What a step is judged by, if the lie is believed."""
        own, where = self.case.theirs, self.case.challenge
        settings, tokens = own.rules.settings, own.token_roots
        kept, inputs = self.record
        cells = (0, bytes(32)) if self.cells is None else (self.cells.count, self.cells.root)
        return referees.Terms(
            self.case.root, own.evidence.root, *tokens, own.evidence.prompt, own.evidence.output,
            own.rules.seed, settings.temperature, settings.top_k, settings.top_p, settings.min_p,
            where.position, where.token, kept.count, inputs.count, kept.root, inputs.root, *self.entry, *cells, index,
        )  # fmt: skip


def zero_leaf() -> Digest:
    """The cell of a number that is none."""
    return cell_digest(bytes(2))
