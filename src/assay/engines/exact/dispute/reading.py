"""What a step may read, and where from: a side's own numbers, or an opening that a referee checks as it reads.

An opening is one string of bytes. Each read takes its content and then the tree's path from the front of what is left,
so there is nothing to name or to order, and a contract reads calldata in the same way. It has, in this order:

    numbers of the model, and the roots over those of the layers and over the parameters
    numbers of the cell's layer, if it has one
    the cell, without a path
    what its step reads
    if it is the last one and a token: the token that the receipt has
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from assay.core import tree16
from assay.core.completion import token_leaves
from assay.core.errors import BindingMismatch, EncodingError
from assay.core.hashing import ZERO, Digest, digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.catalogue import Catalogue, Table, Weights, decode_numbers
from assay.engines.exact.dispute.evidence import Evidence, Tokens
from assay.engines.exact.dispute.plan import LEAVES, Plan, Section, TokenTarget
from assay.engines.exact.dispute.shape import ENDS, LAYER_BYTES, MODEL_BYTES, MatrixShape, Vector
from assay.engines.exact.parameters import FAN, SEGMENT, layer_digest, root_over
from assay.engines.exact.record import CHUNK, CHUNK_BYTES, both_parts


class Reader(ABC):
    """Reads for the steps of one plan."""

    def __init__(self, plan: Plan, catalogue: Catalogue) -> None:
        self.plan: Final = plan
        self.catalogue: Final = catalogue

    def check_shape(self, layer: int) -> None:
        """Read the numbers of the model and, unless it is ENDS, of a layer, which are the shape's.

        Raises:
            BindingMismatch: they are others.
        """
        shape = self.plan.shape
        same = self.raw_model() == shape.leaf
        if layer != ENDS:
            same &= self.raw_layer(layer) == shape.layers[layer].leaf
        if not same:
            raise BindingMismatch("leaf", "the model has other numbers than was agreed")

    def claimed(self, index: int) -> int | None:
        """The token of the receipt, if cell `index` says which one was to be drawn."""
        target = self.plan.target
        last = index == self.plan.count - 1
        return self.token(target.position + 1) if last and isinstance(target, TokenTarget) else None

    def cells(self, section: Section, i: int, count: int = 1) -> list[tuple[int, ...]]:
        """The numbers of cells `i` to `i` + `count` of a section."""
        return [section.decode(data) for data in self.raw_cells(section, i, count)]

    def cell(self, section: Section) -> tuple[int, ...]:
        """Those of a section's only cell."""
        return self.cells(section, 0)[0]

    def numbers(self, layer: int, name: Vector, start: int, stop: int, position: int | None = None) -> list[int]:
        """Committed numbers of a vector: of the disputed pass, unless another position is named."""
        at = self.plan.shape.vector(layer, name)[0]
        first, last = (at + start) // CHUNK, (at + stop - 1) // CHUNK
        position = self.plan.target.position if position is None else position
        chunks = self.raw_chunks(position, first, last - first + 1)
        numbers = struct.unpack(f"<{len(chunks) * CHUNK}h", b"".join(chunks))
        return list(numbers[at + start - first * CHUNK : at + stop - first * CHUNK])

    def fraction(self, layer: int, name: Vector) -> int:
        """The fraction bits of an input of the disputed pass."""
        size = self.plan.shape.vector(layer, name)[1]
        return self.numbers(layer, name, size - 1, size)[0]

    def weights(self, table: Table, row: int, group: int, matrix: MatrixShape) -> Weights:
        """GROUP columns of a matrix's row."""
        return Weights.decode(self._leaves(table, row, group * LEAVES, LEAVES), matrix)

    def vector(self, table: Table, start: int, stop: int) -> list[int]:
        """Numbers of a gain, a bias or a layer's turns."""
        first, last = start // SEGMENT, (stop - 1) // SEGMENT
        numbers = decode_numbers(self._leaves(table, 0, first, last - first + 1))
        return numbers[start - first * SEGMENT : stop - first * SEGMENT]

    def _leaves(self, table: Table, row: int, part: int, count: int) -> Sequence[bytes]:
        """Leaves that stand side by side, as many as there are."""
        return self.raw_parameters(table, row, part, min(count, self.catalogue.tables[table].parts - part))

    @abstractmethod
    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        """Encoded cells."""

    @abstractmethod
    def raw_chunks(self, position: int, first: int, count: int) -> Sequence[bytes]:
        """Chunks of a record, all of one of its parts."""

    @abstractmethod
    def raw_model(self) -> bytes:
        """The model's numbers, which are read before anything else."""

    @abstractmethod
    def raw_layer(self, layer: int) -> bytes:
        """A layer's numbers."""

    @abstractmethod
    def raw_parameters(self, table: Table, row: int, part: int, count: int) -> Sequence[bytes]:
        """Leaves of the model's parameters."""

    @abstractmethod
    def token(self, position: int) -> int:
        """The token at a position of prompt or answer."""


@dataclass(frozen=True, slots=True)
class Commitments:
    """What an opening is checked against."""

    parameters: Digest
    """The model root."""
    evidence: Evidence
    """Of the receipt."""
    tokens: Tokens
    """Likewise."""
    position: int
    """That was challenged."""
    kept: Digest
    """Root over the first part of the record there, checked before; `inputs`: over the second."""
    inputs: Digest
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
        commitments: Commitments,
        index: int,
        opening: bytes,
    ) -> None:
        super().__init__(plan, catalogue)
        self._roots = commitments
        self._index = index
        """The disputed cell."""
        self._rest = memoryview(opening)
        self._layers = self._parameters = ZERO
        """Roots that are read with the model's numbers."""

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
    def raw_chunks(self, position: int, first: int, count: int) -> Sequence[bytes]:
        """The next bytes; path; of another pass than the challenged one, the root of the other part and its path."""
        chunks = [self.take(CHUNK_BYTES) for _ in range(count)]
        layout, roots = self.plan.shape.layout, self._roots
        kept = first < layout.kept_chunks
        size = layout.kept_chunks if kept else layout.chunks - layout.kept_chunks
        first -= 0 if kept else layout.kept_chunks
        items = [digest("assay/exact-chunk/1", chunk) for chunk in chunks]
        root = trees.climb(size, first, items, self._path(trees.path_length(size, first, first + count)))
        if position == roots.position:
            if root != (roots.kept if kept else roots.inputs):
                raise BindingMismatch("leaf", "the chunks are not the challenged pass's")
            return chunks
        other = self.take(32)
        leaf = both_parts(root, other) if kept else both_parts(other, root)
        roots.evidence.verify(position, leaf, self._path(roots.evidence.path_length(position)))
        return chunks

    @override
    def raw_model(self) -> bytes:
        """The next bytes; then the two roots that are under the model's with them."""
        numbers, self._layers, self._parameters = self.take(MODEL_BYTES), self.take(32), self.take(32)
        if root_over(numbers, self._layers, self._parameters) != self._roots.parameters:
            raise BindingMismatch("leaf", "these are not the model's numbers")
        return numbers

    @override
    def raw_layer(self, layer: int) -> bytes:
        """The next bytes, under the root over the layers' numbers."""
        numbers = self.take(LAYER_BYTES)
        self._bind(self._layers, len(self.plan.shape.layers), layer, [layer_digest(numbers)], FAN)
        return numbers

    @override
    def raw_parameters(self, table: Table, row: int, part: int, count: int) -> Sequence[bytes]:
        """The next bytes, under the root over the parameters."""
        placed = self.catalogue.tables[table]
        leaves = [self.take(placed.size) for _ in range(count)]
        start = placed.start + row * placed.parts + part
        items = [digest("assay/exact-parameter/1", leaf) for leaf in leaves]
        self._bind(self._parameters, self.catalogue.count, start, items, FAN)
        return leaves

    @override
    def token(self, position: int) -> int:
        """The next bytes, of the vocabulary: token, salt, and path under the root of prompt or answer."""
        token, salt = int.from_bytes(self.take(4), "big"), self.take(32)
        evidence, roots = self._roots.evidence, self._roots.tokens
        root, count, index = roots.prompt, evidence.prompt, position
        if position >= evidence.prompt:
            root, count, index = roots.output, evidence.output, position - evidence.prompt
        self._bind(root, count, index, token_leaves([salt], [token]))
        if token >= self.plan.shape.embedding.rows:
            raise BindingMismatch("token", f"token {token} is not in the vocabulary")
        return token

    def _bind(self, root: Digest, count: int, start: int, items: Sequence[Digest], fan: int = tree16.FAN) -> None:
        path = self._path(trees.path_length(count, start, start + len(items), fan))
        if trees.climb(count, start, items, path, fan) != root:
            raise BindingMismatch("path", f"leaf {start} is not under its root")

    def _path(self, length: int) -> list[Digest]:
        return [self.take(32) for _ in range(length)]


def cell_digest(cell: bytes) -> Digest:
    """The leaf of one encoded cell."""
    return digest("assay/exact-cell/1", cell)
