"""Turns of a dispute: who is to move, what is wanted, and how it is written.

Moves of the challenger have a few bytes, those of the prover are digests or openings; both are checked as they are
read, and whatever is not exactly what is wanted loses. Integers are unsigned and big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias

from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.engines.exact.dispute.plan import Target

Side: TypeAlias = Literal["prover", "challenger"]
"""Who signed the receipt, and who says that it is wrong."""
Tree: TypeAlias = Literal["fractions", "body", "head", "cells"]
"""What is descended in: fraction bits of earlier positions, a pass's accumulators, or the cells up to one number."""
TREES: Final[tuple[Tree, ...]] = ("fractions", "body", "head", "cells")
"""By their number in a `Branch`."""
MOST_BYTES: Final = 1 << 15
"""Of one move."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What is said to be wrong: a pass, the first one that is; or the token that follows it."""

    position: int
    rival: int | None = None
    """The token that should have been drawn; None: the pass is wrong."""

    def encode(self) -> bytes:
        """9 bytes: position, whether there is a rival, and which."""
        return struct.pack(">I?I", self.position, self.rival is not None, self.rival or 0)

    @classmethod
    def decode(cls, data: bytes) -> Challenge:
        """Inverse of `encode`.

        Raises:
            EncodingError: not the encoding of a challenge.
        """
        if len(data) != 9:
            raise EncodingError("a challenge has 9 bytes")
        position, there, rival = struct.unpack(">I?I", data)
        challenge = cls(position, rival if there else None)
        if challenge.encode() != data:
            raise EncodingError("not the encoding of a challenge")
        return challenge


@dataclass(frozen=True, slots=True)
class Branch:
    """The first node that differs, and in which tree; where all agree, the cells are next and `index` is 0."""

    tree: Tree
    index: int

    def encode(self) -> bytes:
        """5 bytes."""
        return struct.pack(">BI", TREES.index(self.tree), self.index)

    @classmethod
    def decode(cls, data: bytes) -> Branch:
        """Inverse of `encode`.

        Raises:
            EncodingError: not the encoding of a branch.
        """
        if len(data) != 5 or data[0] >= len(TREES):
            raise EncodingError("a branch has a tree's number and 4 bytes")
        return cls(TREES[data[0]], int.from_bytes(data[1:]))


def encode_index(index: int) -> bytes:
    """4 bytes: the first node, or the first number, that differs."""
    return index.to_bytes(4)


def decode_index(data: bytes) -> int:
    """Inverse of `encode_index`.

    Raises:
        EncodingError: another length.
    """
    if len(data) != 4:
        raise EncodingError("an index has 4 bytes")
    return int.from_bytes(data)


def digests_of(data: bytes) -> list[Digest]:
    """Bytes as digests.

    Raises:
        EncodingError: not a whole number of them.
    """
    if len(data) % 32:
        raise EncodingError("digests have 32 bytes each")
    return [data[i : i + 32] for i in range(0, len(data), 32)]


@dataclass(frozen=True, slots=True)
class WantChallenge:
    """The challenger says what is wrong: a `Challenge`."""

    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantTops:
    """The prover shows, each at the first level of a descent: fractions, body, head; then how its pass is committed to.

    Digests one behind the other; a head that is not there has none.
    """

    challenge: Challenge
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantBranch:
    """The challenger chooses among those: a `Branch`."""

    challenge: Challenge
    fractions: Sequence[Digest]
    body: Sequence[Digest]
    head: Sequence[Digest]
    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantCells:
    """The prover shows the first level of a descent in the cells up to the target."""

    challenge: Challenge
    target: Target
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantNodes:
    """The prover shows what is under a node: digests `start` to `stop` of a lower level."""

    challenge: Challenge
    tree: Tree
    target: Target | None
    """Of the cells."""
    level: int
    start: int
    stop: int
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantNode:
    """The challenger names the first node that differs: an index within the level."""

    challenge: Challenge
    tree: Tree
    target: Target | None
    level: int
    start: int
    nodes: Sequence[Digest]
    """From `start` on, as the prover shows them."""
    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantLeaf:
    """The prover shows a leaf's content: a chunk of accumulators, or a position's fraction bits."""

    challenge: Challenge
    tree: Tree
    index: int
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantEntry:
    """The challenger names the first number in it that differs: an index within the leaf."""

    challenge: Challenge
    tree: Tree
    index: int
    numbers: Sequence[int]
    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantStep:
    """The prover shows a cell, and opens all that it follows from."""

    challenge: Challenge
    target: Target
    index: int
    side: ClassVar[Side] = "prover"


Turn: TypeAlias = (
    WantChallenge | WantTops | WantBranch | WantCells | WantNodes | WantNode | WantLeaf | WantEntry | WantStep
)
"""What a dispute waits for."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """Instead of a move: none came in time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a dispute ended."""

    winner: Side
    reason: str
    exchanges: int
    """How often the prover was to move."""
