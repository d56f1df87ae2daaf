"""What a step may read, and where from: a side's own numbers, or an opening that a referee checks as it reads.

An opening is one string of bytes. Each read takes its content and then the tree's path from the front of what is left,
so there is nothing to name or to order, and a contract reads calldata in the same way.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from assay.core.errors import BindingMismatch, EncodingError
from assay.core.hashing import Digest, digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.commitment import (
    CHUNK,
    WIDTHS,
    Evidence,
    chunk_count,
    chunk_digest,
    decode_chunk,
    decode_fractions,
    fractions_digest,
    pass_leaf,
)
from assay.engines.exact.dispute.parameters import Catalogue, Table, parameter_digest
from assay.engines.exact.dispute.plan import Plan, Section
from assay.engines.exact.dispute.shape import MatrixShape


@dataclass(frozen=True, slots=True)
class Weights:
    """One leaf of a matrix: see `affine.Matrix`."""

    q: Sequence[int]
    scale: Sequence[int]
    offset: Sequence[int]
    block: int

    def whole(self) -> list[int]:
        """The weights times 2^fraction."""
        return [q * self.scale[k // self.block] + self.offset[k // self.block] for k, q in enumerate(self.q)]


class Reader(ABC):
    """Reads for the steps of one plan."""

    def __init__(self, plan: Plan, catalogue: Catalogue, tokens: Sequence[int]) -> None:
        self.plan: Final = plan
        self._catalogue: Final = catalogue
        self._tokens: Final = tokens

    @property
    def token(self) -> int:
        """The token whose pass it is."""
        return self._tokens[self.plan.target.position]

    @property
    def next_token(self) -> int:
        """The one after it."""
        return self._tokens[self.plan.target.position + 1]

    def cells(self, section: Section, i: int, count: int = 1) -> list[tuple[int, ...]]:
        """The numbers of cells `i` to `i` + `count` of a section."""
        return [section.decode(data) for data in self.raw_cells(section, i, count)]

    def cell(self, section: Section) -> tuple[int, ...]:
        """Those of a section's only cell."""
        return self.cells(section, 0)[0]

    def accumulators(self, start: int, stop: int, *, position: int | None = None, head: bool = False) -> list[int]:
        """Committed accumulators of a pass's body or head; of the disputed position, unless another one is named."""
        at = self.plan.target.position if position is None else position
        first, last = start // CHUNK, (stop - 1) // CHUNK
        chunks = self.raw_chunks(at, first, last - first + 1, head=head)
        numbers = [number for chunk in chunks for number in decode_chunk(chunk)]
        return numbers[start - first * CHUNK : stop - first * CHUNK]

    def fractions(self, position: int) -> tuple[int, ...]:
        """Of an earlier position, the fraction bits of each layer's first normalisation."""
        return decode_fractions(self.raw_fractions(position))

    def weights(self, table: Table, row: int, part: int, matrix: MatrixShape) -> Weights:
        """Part of a matrix's row."""
        data = self.raw_parameter(*self._catalogue.leaf(table, row, part))
        wide = 2 if matrix.wide else 1
        size = len(data) * matrix.block // (wide * matrix.block + 8)
        q = struct.unpack_from(f">{size}{'H' if matrix.wide else 'B'}", data)
        scales = struct.unpack_from(f">{2 * size // matrix.block}i", data, wide * size)
        half = len(scales) // 2
        return Weights(q, scales[:half], scales[half:], matrix.block)

    def numbers(self, table: Table, row: int, part: int, width: int) -> Sequence[int]:
        """Part of a gain, a bias or a layer's turns: numbers of `width` bytes."""
        data = self.raw_parameter(*self._catalogue.leaf(table, row, part))
        return struct.unpack(f">{len(data) // width}{'h' if width == 2 else 'q'}", data)

    @abstractmethod
    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        """Encoded cells."""

    @abstractmethod
    def raw_chunks(self, position: int, first: int, count: int, *, head: bool) -> Sequence[bytes]:
        """Encoded chunks of accumulators."""

    @abstractmethod
    def raw_fractions(self, position: int) -> bytes:
        """An encoded leaf of fraction bits."""

    @abstractmethod
    def raw_parameter(self, index: int, length: int) -> bytes:
        """A leaf of the parameters, of so many bytes."""


@dataclass(frozen=True, slots=True)
class Commitments:
    """What an opening is checked against."""

    parameters: Digest
    """Root of the model's parameters."""
    evidence: Evidence
    """Of the receipt."""
    leaf: Digest
    """Of the pass at the position that was challenged, checked before."""
    position: int
    """That position."""
    fractions: Digest
    """Root over the fraction bits of the positions before it, as the prover states them."""
    cells: Digest
    """Root over the cells, likewise."""


class OpenedReader(Reader):
    """Reads from an opening, and believes nothing of it.

    Every read raises:
        BindingMismatch: what is read is not what was committed to.
        EncodingError: the opening is too short, or is not the encoding of what is read.
    """

    def __init__(
        self,
        plan: Plan,
        catalogue: Catalogue,
        tokens: Sequence[int],
        commitments: Commitments,
        index: int,
        opening: bytes,
    ) -> None:
        super().__init__(plan, catalogue, tokens)
        self._roots = commitments
        self._index = index
        """The disputed cell."""
        self._rest = memoryview(opening)

    def take(self, length: int) -> bytes:
        """The next bytes."""
        if len(self._rest) < length:
            raise EncodingError("the opening ends too early")
        data, self._rest = bytes(self._rest[:length]), self._rest[length:]
        return data

    def close(self) -> None:
        """Check that all has been read."""
        if len(self._rest):
            raise EncodingError("the opening has more than the step reads")

    @override
    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        """The next bytes, under the root over the cells; earlier cells than the disputed one only."""
        start = section.start + i
        if not section.start <= start < start + count <= min(section.stop, self._index):
            raise BindingMismatch("cells", "a step reads earlier cells only")
        cells = [self.take(section.numbers(n) * section.width) for n in range(i, i + count)]
        self._bind(self._roots.cells, self.plan.count, start, [cell_digest(cell) for cell in cells])
        return cells

    @override
    def raw_chunks(self, position: int, first: int, count: int, *, head: bool) -> Sequence[bytes]:
        """Each chunk behind a byte that tells its width; path; root of the other vector; path of the pass."""
        shape = self.plan.shape
        size = chunk_count(shape.head.rows if head else shape.body)
        chunks = [self.take(CHUNK * self._width()) for _ in range(count)]
        digests = [chunk_digest(chunk) for chunk in chunks]
        root = trees.climb(size, first, digests, self._path(trees.path_length(size, first, first + count)))
        other = self.take(32)
        leaf = pass_leaf(other, root) if head else pass_leaf(root, other)
        if position == self._roots.position:
            if leaf != self._roots.leaf:
                raise BindingMismatch("leaf", "the chunks are not the challenged pass's")
        else:
            evidence = self._roots.evidence
            evidence.verify(position, leaf, self._path(evidence.path_length(position)))
        return chunks

    @override
    def raw_fractions(self, position: int) -> bytes:
        """The next bytes, under the root that the prover stated."""
        data = self.take(2 * len(self.plan.shape.layers))
        self._bind(self._roots.fractions, self._roots.position, position, [fractions_digest(data)])
        return data

    @override
    def raw_parameter(self, index: int, length: int) -> bytes:
        """The next bytes, under the root of the model."""
        data = self.take(length)
        self._bind(self._roots.parameters, self._catalogue.count, index, [parameter_digest(data)])
        return data

    def _bind(self, root: Digest, count: int, start: int, items: Sequence[Digest]) -> None:
        path = self._path(trees.path_length(count, start, start + len(items)))
        if trees.climb(count, start, items, path) != root:
            raise BindingMismatch("path", f"leaf {start} is not under its root")

    def _path(self, length: int) -> list[Digest]:
        return [self.take(32) for _ in range(length)]

    def _width(self) -> int:
        (width,) = self.take(1)
        if width not in WIDTHS:
            raise EncodingError("an accumulator's width is none of 4, 5, 6 and 8 bytes")
        return width


def cell_digest(cell: bytes) -> Digest:
    """The leaf of one encoded cell."""
    return digest("assay/exact-cell/1", cell)
