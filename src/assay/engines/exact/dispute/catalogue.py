"""Where a model's parameters stand among the leaves of `parameters.py`, as a referee knows it from the shape alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from assay.core.hashing import Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.shape import ENDS, NORMS, PRODUCTS, MatrixShape, Shape
from assay.engines.exact.parameters import FAN, SEGMENT, Parameters
from assay.engines.exact.record import digest_list
from assay.engines.exact.tables import exp2_table, log2_table, sigmoid_table, sine_table, tail_table

Table: TypeAlias = tuple[int, str]
"""A layer, or ENDS, and the name of what it is in `reference.Layer` or `reference.Model`."""
_LINE: Final = 64
_NUMBER: Final = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a tensor's leaves stand."""

    start: int
    rows: int
    parts: int
    """Leaves of a row; of a vector, all."""
    size: int
    """Bytes of a leaf."""


class Catalogue:
    """Where each tensor stands: a function of the shape."""

    def __init__(self, shape: Shape) -> None:
        self.tables: Final = dict[Table, Placed]()
        """In order."""
        at = sum(
            -(-len(table()) // SEGMENT) for table in (exp2_table, sigmoid_table, sine_table, log2_table, tail_table)
        )
        for table, rows, columns, size in _tensors(shape):
            self.tables[table] = placed = Placed(at, rows, -(-columns // SEGMENT), size)
            at += placed.rows * placed.parts
        if shape.tied:
            self.tables[ENDS, "embedding"] = self.tables[ENDS, "head"]
        self.count: Final = at
        """All leaves."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Some leaves of a row of a matrix: see `affine.Matrix`."""

    q: Sequence[int]
    scale: Sequence[int]
    offset: Sequence[int]
    block: int

    @classmethod
    def decode(cls, leaves: Sequence[bytes], matrix: MatrixShape) -> Weights:
        """From leaves that stand side by side; zeros behind the row's end included."""
        q, scale, offset = list[int](), list[int](), list[int]()
        blocks = SEGMENT // matrix.block
        for leaf in leaves:
            numbers = struct.unpack_from(f"<{SEGMENT}{'H' if matrix.wide else 'B'}{2 * blocks}i", leaf)
            q += numbers[:SEGMENT]
            scale += numbers[SEGMENT : SEGMENT + blocks]
            offset += numbers[SEGMENT + blocks :]
        return cls(q, scale, offset, matrix.block)

    def whole(self) -> list[int]:
        """The weights times 2^fraction."""
        return [q * self.scale[k // self.block] + self.offset[k // self.block] for k, q in enumerate(self.q)]

    def times(self, x: Sequence[int]) -> int:
        """The sum of products with as many numbers as there are columns."""
        total = 0
        for start in range(0, len(x), self.block):
            part, number = x[start : start + self.block], start // self.block
            total += self.scale[number] * sum(map(_product, self.q[start : start + self.block], part))
            total += self.offset[number] * sum(part)
        return total


def decode_numbers(leaves: Sequence[bytes]) -> list[int]:
    """A vector's numbers from leaves that stand side by side."""
    return [number for leaf in leaves for number in struct.unpack(f"<{SEGMENT}q", leaf)]


class Opened:
    """A model's numbers and parameters, to open runs of leaves from."""

    def __init__(self, parameters: Parameters, shape: Shape) -> None:
        self.parameters: Final = parameters
        self.catalogue: Final = Catalogue(shape)
        self._levels: list[list[Digest]] = []

    def numbers(self) -> bytes:
        """The model's, and the two roots that stand beside them under the model's."""
        return b"".join([self.parameters.numbers, *self.parameters.roots])

    def layer(self, number: int) -> list[Digest]:
        """The way from a layer's numbers up to the root over those of all layers."""
        return trees.prove(trees.levels_of(self.parameters.layers, FAN), number, number + 1, FAN)

    def path(self, start: int, stop: int) -> list[Digest]:
        """That from a run of leaves up to the root over all parameters."""
        if not self._levels:
            self._levels = trees.levels_of(digest_list(self.parameters.digests), FAN)
        return trees.prove(self._levels, start, stop, FAN)

    def leaf(self, table: Table, row: int, part: int) -> bytes:
        """One leaf's content."""
        layer, name = table
        if layer != ENDS:
            return self.parameters.leaf(f"{layer}.{name}", row, part)
        tied = name == "embedding" and "embedding" not in self.parameters.sections
        return self.parameters.leaf("head" if tied else name, row, part)


def _product(a: int, b: int) -> int:
    return a * b


def _tensors(shape: Shape) -> Iterator[tuple[Table, int, int, int]]:
    """Rows, columns and bytes of a leaf of each."""
    vector = SEGMENT * _NUMBER
    for number, layer in enumerate(shape.layers):
        for name, fraction in zip(NORMS, layer.norms, strict=True):
            if fraction is not None:
                n = shape.head_width if name in ("query_norm", "key_norm") else shape.width
                yield (number, name), 1, n, vector
        for name, there in zip(PRODUCTS, layer.biases, strict=False):
            if there:
                yield (number, f"{name}_bias"), 1, layer.product(name).rows, vector
        yield (number, "turns"), 1, shape.head_width // 2, vector
        for name, matrix in zip(PRODUCTS, layer.products, strict=True):
            yield (number, name), matrix.rows, matrix.columns, _matrix_leaf(matrix)
    yield (ENDS, "norm"), 1, shape.width, vector
    yield (ENDS, "head"), shape.head.rows, shape.head.columns, _matrix_leaf(shape.head)
    if not shape.tied:
        yield (ENDS, "embedding"), shape.embedding.rows, shape.embedding.columns, _matrix_leaf(shape.embedding)


def _matrix_leaf(matrix: MatrixShape) -> int:
    size = SEGMENT * (2 if matrix.wide else 1) + SEGMENT // matrix.block * 8
    return -(-size // _LINE) * _LINE
