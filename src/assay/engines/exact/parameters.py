"""The model root: one digest of everything that decides what an integer model computes.

It is over the model's numbers, the root over the layers' numbers, and the root over the parameters. These are leaves of
at most SEGMENT entries, so that one step of a dispute opens a few hundred bytes of weights: the tables; of each layer
its vectors and its matrices; the last normalisation, the head and, unless it is the head itself, the embedding. Numbers
are words of 32 bytes (`dispute/shape.py`); every step needs them, so they stand where the way to the root is short.
Trees have FAN children a node: on a chain, a digest that is shown is dearer than one that is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from assay.core.hashing import Digest, digest
from assay.engines.exact.affine import Matrix
from assay.engines.exact.chunks import root_of
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.kernels.sha256 import tagged_digests
from assay.engines.exact.reference import Gain, Model
from assay.engines.exact.tables import exp2_table, log2_table, sigmoid_table, sine_table, tail_table

SEGMENT: Final = 256
"""Columns of a row, or entries of a vector, in one leaf."""
FAN: Final = 4
"""Children of a node of both trees, which are otherwise those of `core/tree16.py`."""
_LINE: Final = 64
_ROWS: Final = 4096
VECTORS: Final = (
    "attention_norm",
    "feed_norm",
    "query_norm",
    "key_norm",
    "attention_after",
    "feed_after",
    "query_bias",
    "key_bias",
    "value_bias",
)
"""Vectors of a layer, in the order of their leaves; what a variant does not have has none."""
MATRICES: Final = ("query", "key", "value", "output", "gate", "up", "down")
_Tensor: TypeAlias = Matrix | np.ndarray
"""A matrix, or a vector or table."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where the leaves of one tensor or table are."""

    name: str
    """Such as `3.query`, `head`, `exp2`."""
    start: int
    """Index of its first leaf."""
    per_row: int
    """Leaves of one row (of a vector: all of them)."""


class Parameters:
    """What a model's root is over."""

    def __init__(self, model: Model) -> None:
        """Hash everything: some seconds for a large model."""
        shape = Shape.of(model)
        self.numbers: Final = shape.leaf
        """Of the model."""
        self.layers: Final = tuple(layer_digest(layer.leaf) for layer in shape.layers)
        """Digests of the layers' numbers."""
        self.sections: Final[dict[str, Section]] = {}
        self._tensors: Final[dict[str, _Tensor]] = {}
        parts: list[np.ndarray] = []
        count = 0
        for name, tensor in _tensors(model):
            self.sections[name] = Section(name, count, _per_row(tensor))
            self._tensors[name] = tensor
            for encoded in _encoded(tensor):
                blocks = np.full(len(encoded), encoded.shape[1] // _LINE, np.uint8)
                parts.append(tagged_digests("assay/exact-parameter/1", encoded.reshape(-1), blocks))
                count += len(encoded)
        self.digests: Final = np.concatenate(parts)
        """Of the parameters, uint8 [leaves, 32]."""
        layers = np.frombuffer(b"".join(self.layers), np.uint8).reshape(-1, 32)
        self.roots: Final = root_of(layers, FAN), root_of(self.digests, FAN)
        """Over the layers' numbers, and over the parameters."""
        self.root: Final = root_over(self.numbers, *self.roots)

    def leaf(self, name: str, row: int, segment: int) -> bytes:
        """The content of one leaf: entries `segment` * 256 and on, of a row of a matrix or (row 0) of a vector."""
        tensor = self._tensors[name]
        if isinstance(tensor, Matrix):
            return _matrix_leaves(tensor, slice(row, row + 1))[segment].tobytes()
        return _vector_leaves(tensor)[segment].tobytes()


def model_root(model: Model) -> Digest:
    """The root over all of a model."""
    return Parameters(model).root


def root_over(numbers: bytes, layers: Digest, parameters: Digest) -> Digest:
    """The model root, given the model's numbers and the roots over those of the layers and over the parameters."""
    return digest("assay/exact-model/1", numbers, layers, parameters)


def layer_digest(numbers: bytes) -> Digest:
    """The leaf of one layer's numbers."""
    return digest("assay/exact-layer/1", numbers)


def _tensors(model: Model) -> Iterator[tuple[str, _Tensor]]:
    tables = {
        "exp2": exp2_table(), "sigmoid": sigmoid_table(), "sine": sine_table(), "log2": log2_table(),
        "tail": tail_table(),
    }  # fmt: skip
    for name, table in tables.items():
        yield name, table.astype(np.int64)
    for number, layer in enumerate(model.layers):
        for name in VECTORS:
            vector = getattr(layer, name)
            if vector is not None:
                yield f"{number}.{name}", vector.weight if isinstance(vector, Gain) else vector
        yield f"{number}.turns", layer.turns.view(np.int64)
        for name in MATRICES:
            yield f"{number}.{name}", getattr(layer, name)
    yield "norm", model.norm.weight
    yield "head", model.head
    if model.embedding is not model.head:
        yield "embedding", model.embedding


def _per_row(tensor: _Tensor) -> int:
    return -(-(tensor.shape[1] if isinstance(tensor, Matrix) else len(tensor)) // SEGMENT)


def _encoded(tensor: _Tensor) -> Iterator[np.ndarray]:
    """The leaves' contents, uint8 [leaves, bytes]: of one size in each piece."""
    if isinstance(tensor, Matrix):
        for start in range(0, tensor.shape[0], _ROWS):
            yield _matrix_leaves(tensor, slice(start, start + _ROWS))
    else:
        yield _vector_leaves(tensor)


def _matrix_leaves(matrix: Matrix, rows: slice) -> np.ndarray:
    """Of each segment of each row: q (one or two bytes each), scales and offsets (4 bytes each), little-endian."""
    q, scale, offset = matrix.q[rows], matrix.scale[rows], matrix.offset[rows]
    segments = -(-q.shape[1] // SEGMENT)
    parts = [
        _padded(part, segments * (SEGMENT // step)).astype(part.dtype.newbyteorder("<"))
        .reshape(len(q) * segments, -1).view(np.uint8)
        for part, step in ((q, 1), (scale, matrix.block), (offset, matrix.block))
    ]  # fmt: skip
    return _lines(np.concatenate(parts, axis=1))


def _vector_leaves(vector: np.ndarray) -> np.ndarray:
    """int64, little-endian."""
    segments = -(-len(vector) // SEGMENT)
    whole = _padded(vector[None].astype("<i8"), segments * SEGMENT).reshape(segments, SEGMENT)
    return _lines(np.ascontiguousarray(whole).view(np.uint8))


def _padded(part: np.ndarray, columns: int) -> np.ndarray:
    """Zeros up to so many columns. (`np.pad` takes several times as long as all the rest of a single leaf.)"""
    whole = np.zeros((len(part), columns), part.dtype)
    whole[:, : part.shape[1]] = part
    return whole


def _lines(content: np.ndarray) -> np.ndarray:
    """Zeros up to whole lines of 64 bytes."""
    return _padded(content, content.shape[1] + -content.shape[1] % _LINE)
