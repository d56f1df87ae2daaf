"""A model's parameters as leaves of bounded size under one root, so that a step opens only what it computes with.

In order: the shape (see `Shape.encode`), then of each table its leaves. The tables are the embedding; of each layer
the seven matrices, the gains, the biases and the turns that it has; the last gain; the head. Numbers are big-endian.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np

from assay.core.hashing import Digest, digest
from assay.engines.exact.affine import Matrix
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.shape import NORMS, PRODUCTS, MatrixShape, Shape
from assay.engines.exact.reference import Gain, Model

COLUMNS: Final = 1024
"""Columns of a matrix's row, or numbers of a gain, in one leaf."""
Table: TypeAlias = tuple[int, str]
"""A layer, or ENDS, and the name of what it is in `reference.Layer` or `reference.Model`."""
ENDS: Final = -1
"""Instead of a layer: before the first one and after the last."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a table's leaves stand, and how long they are."""

    start: int
    rows: int
    lengths: tuple[int, ...]
    """Bytes of the leaves of one row."""

    @property
    def count(self) -> int:
        """Leaves."""
        return self.rows * len(self.lengths)


class Catalogue:
    """Where each parameter stands: a function of the shape."""

    def __init__(self, shape: Shape) -> None:
        self.heading: Final = shape.encode()
        """The first leaves."""
        self.tables: Final[dict[Table, Placed]] = {}
        """In order."""
        at = len(self.heading)
        for table, rows, lengths in _tables(shape):
            self.tables[table] = placed = Placed(at, rows, tuple(lengths))
            at += placed.count
        self.count: Final = at
        """All leaves."""
        self._starts: Final = [placed.start for placed in self.tables.values()]

    def leaf(self, table: Table, row: int, part: int = 0) -> tuple[int, int]:
        """Index and bytes of the leaf with part `part` of a row."""
        placed = self.tables[table]
        return placed.start + row * len(placed.lengths) + part, placed.lengths[part]

    def place(self, index: int) -> tuple[Table, int, int]:
        """Table, row and part of a leaf that is not one of the heading."""
        number = bisect_right(self._starts, index) - 1
        table = list(self.tables)[number]
        placed = self.tables[table]
        return table, *divmod(index - placed.start, len(placed.lengths))


class Parameters:
    """The leaves of a model that is there, and its root."""

    def __init__(self, model: Model) -> None:
        self.model: Final = model
        self.catalogue: Final = Catalogue(Shape.of(model))

    def leaf(self, table: Table, row: int, part: int = 0) -> bytes:
        """One leaf."""
        layer, name = table
        owner = self.model if layer == ENDS else self.model.layers[layer]
        item: Matrix | Gain | np.ndarray = getattr(owner, name)
        cut = slice(part * COLUMNS, (part + 1) * COLUMNS)
        if isinstance(item, Matrix):
            blocks = slice(cut.start // item.block, cut.stop // item.block)
            wide = ">u2" if item.q.dtype.itemsize == 2 else "u1"
            scales = np.concatenate([item.scale[row, blocks], item.offset[row, blocks]])
            return item.q[row, cut].astype(wide).tobytes() + scales.astype(">i4").tobytes()
        if isinstance(item, Gain):
            return item.weight[cut].astype(">i2").tobytes()
        if name == "turns":
            return item.astype(">u8").tobytes()
        width = self.model.head_width
        return item[row * width : (row + 1) * width].astype(">i8").tobytes()

    @cached_property
    def levels(self) -> Sequence[Sequence[Digest]]:
        """Of the tree over all leaves."""
        leaves = [parameter_digest(leaf) for leaf in self.catalogue.heading]
        for table, placed in self.catalogue.tables.items():
            parts = range(len(placed.lengths))
            leaves += [parameter_digest(self.leaf(table, row, part)) for row in range(placed.rows) for part in parts]
        return trees.levels_of(leaves)


def parameter_digest(leaf: bytes) -> Digest:
    """The digest of a leaf."""
    return digest("assay/exact-parameter/1", leaf)


def parameters_root(model: Model) -> Digest:
    """What a dispute knows the model by."""
    return trees.root_of(Parameters(model).levels)


def _tables(shape: Shape) -> Iterator[tuple[Table, int, list[int]]]:
    yield (ENDS, "embedding"), shape.embedding.rows, _row(shape.embedding)
    for number, layer in enumerate(shape.layers):
        for name, matrix in zip(PRODUCTS, layer.products, strict=True):
            yield (number, name), matrix.rows, _row(matrix)
        for name, fraction in zip(NORMS, layer.norms, strict=True):
            if fraction is not None:
                n = shape.head_width if name in ("query_norm", "key_norm") else shape.width
                yield (number, name), 1, [2 * size for size in _cut(n)]
        for name, there in zip(PRODUCTS, layer.biases, strict=False):
            if there:
                heads = shape.heads if name == "query" else shape.kv_heads
                yield (number, f"{name}_bias"), heads, [8 * shape.head_width]
        yield (number, "turns"), 1, [4 * shape.head_width]
    yield (ENDS, "norm"), 1, [2 * size for size in _cut(shape.width)]
    yield (ENDS, "head"), shape.head.rows, _row(shape.head)


def _row(matrix: MatrixShape) -> list[int]:
    return [size * (2 if matrix.wide else 1) + size // matrix.block * 8 for size in _cut(matrix.columns)]


def _cut(n: int) -> list[int]:
    return [min(COLUMNS, n - start) for start in range(0, n, COLUMNS)]
