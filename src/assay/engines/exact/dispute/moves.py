"""Turns of a dispute: who is to move, what is wanted, and how it is written.

Moves of the challenger have a few bytes, those of the prover are digests or openings; both are checked as they are
read, and whatever is not exactly what is wanted loses. Integers are unsigned and big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple, TypeAlias

from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.engines.exact.dispute.plan import Target

Side: TypeAlias = Literal["prover", "challenger"]
"""Who signed the receipt, and who says that it is wrong."""
Tree: TypeAlias = Literal["kept", "inputs", "cells"]
"""What is descended in: the two parts of a pass's record, or the cells up to one number."""
MOST_BYTES: Final = 9 << 12
"""Of one move."""


_NONE: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Challenge:
    """What is said to be wrong: a pass, the first one that is; or the token that was drawn behind it."""

    position: int
    token: bool = False

    def encode(self) -> bytes:
        """5 bytes."""
        return struct.pack(">I?", self.position, self.token)

    @classmethod
    def decode(cls, data: bytes) -> Challenge:
        """Inverse of `encode`.

        Raises:
            EncodingError: not the encoding of a challenge.
        """
        if len(data) != 5 or data[4] > 1:
            raise EncodingError("a challenge is a position and whether it is about the token")
        return cls(*struct.unpack(">I?", data))


@dataclass(frozen=True, slots=True)
class Branch:
    """The first node that differs in each part of the record; None where all agree, and one is not None."""

    kept: int | None
    inputs: int | None

    def encode(self) -> bytes:
        """8 bytes; 2^32 - 1 is none."""
        return struct.pack(">II", *(_NONE if i is None else i for i in (self.kept, self.inputs)))

    @classmethod
    def decode(cls, data: bytes) -> Branch:
        """Inverse of `encode`.

        Raises:
            EncodingError: not the encoding of a branch.
        """
        if len(data) != 8 or data == b"\xff" * 8:
            raise EncodingError("a branch is two nodes, of which one can be none")
        kept, inputs = struct.unpack(">II", data)
        return cls(None if kept == _NONE else kept, None if inputs == _NONE else inputs)


def encode_indices(*indices: int) -> bytes:
    """4 bytes each: first nodes, or the first number, that differ."""
    return struct.pack(f">{len(indices)}I", *indices)


def decode_indices(data: bytes, count: int) -> tuple[int, ...]:
    """Inverse of `encode_indices`.

    Raises:
        EncodingError: another length.
    """
    if len(data) != 4 * count:
        raise EncodingError("an index has 4 bytes")
    return struct.unpack(f">{count}I", data)


def digests_of(data: bytes) -> list[Digest]:
    """Bytes as digests.

    Raises:
        EncodingError: not a whole number of them.
    """
    if len(data) % 32:
        raise EncodingError("digests have 32 bytes each")
    return [data[i : i + 32] for i in range(0, len(data), 32)]


class Span(NamedTuple):
    """Digests `start` to `stop` of one level of a tree."""

    tree: Tree
    level: int
    start: int
    stop: int


class Shown(NamedTuple):
    """Digests as the prover shows them, from `start` on."""

    tree: Tree
    level: int
    start: int
    nodes: Sequence[Digest]


class Chunk(NamedTuple):
    """A chunk of a record as the prover shows it."""

    index: int
    """Among all chunks of the record."""
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class WantChallenge:
    """The challenger says what is wrong: a `Challenge`."""

    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantTops:
    """The prover shows the first level of a descent in both parts of a record, then how the pass is committed to.

    Digests one behind the other.
    """

    challenge: Challenge
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantBranch:
    """The challenger chooses among those: a `Branch`."""

    challenge: Challenge
    kept: Sequence[Digest]
    inputs: Sequence[Digest]
    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantCells:
    """The prover shows the first level of a descent in the cells up to the target."""

    challenge: Challenge
    target: Target
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantNodes:
    """The prover shows what is under nodes, in both parts of a record at once."""

    challenge: Challenge
    target: Target | None
    """Of the cells."""
    spans: tuple[Span, ...]
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantNames:
    """The challenger names the first node of each that differs: indices within the levels."""

    challenge: Challenge
    target: Target | None
    shown: tuple[Shown, ...]
    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantChunks:
    """The prover shows chunks of a record, one or one of each part."""

    challenge: Challenge
    indices: tuple[int, ...]
    side: ClassVar[Side] = "prover"


@dataclass(frozen=True, slots=True)
class WantEntry:
    """The challenger names the number that is computed first of those that differ: its index in the record."""

    challenge: Challenge
    chunks: tuple[Chunk, ...]
    side: ClassVar[Side] = "challenger"


@dataclass(frozen=True, slots=True)
class WantStep:
    """The prover shows a cell, and opens all that it follows from."""

    challenge: Challenge
    target: Target
    index: int
    side: ClassVar[Side] = "prover"


Turn: TypeAlias = (
    WantChallenge | WantTops | WantBranch | WantCells | WantNodes | WantNames | WantChunks | WantEntry | WantStep
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
