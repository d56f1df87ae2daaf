"""What a referee knows of a model beside its parameters: sizes, counts of fraction bits, and which parts it has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

from assay.engines.exact.affine import Matrix
from assay.engines.exact.record import CHUNK, RecordLayout
from assay.engines.exact.reference import Gain, Gate, Layer, Model

VERSION: Final = 1
"""Of the semantics, as `EXACT_REGIME` names it."""
WORD: Final = 32
"""Bytes of each of a model's or a layer's numbers."""
MODEL_BYTES: Final = 22 * WORD
"""Of a model's numbers."""
LAYER_BYTES: Final = 28 * WORD
"""Of a layer's numbers."""

Product: TypeAlias = Literal["query", "key", "value", "output", "gate", "up", "down"]
"""The matrix products of a layer."""
PRODUCTS: Final[tuple[Product, ...]] = ("query", "key", "value", "output", "gate", "up", "down")
"""In the order of their accumulators in a trace."""
Vector: TypeAlias = Literal["input", "keys", "values", "mixed", "feed", "gated", "head input"]
"""What a record has of a layer, and behind all: see `record.RecordLayout`."""
VECTORS: Final[tuple[Vector, ...]] = ("input", "keys", "values", "mixed", "feed", "gated", "head input")
"""In the order in which they are computed, in which a later one follows from earlier ones only."""
ENDS: Final = -1
"""Instead of a layer: before the first one and after the last."""
Norm: TypeAlias = Literal["attention_norm", "feed_norm", "query_norm", "key_norm", "attention_after", "feed_after"]
"""The normalisations of a layer, by the names of `reference.Layer`."""
NORMS: Final[tuple[Norm, ...]] = (
    "attention_norm",
    "feed_norm",
    "query_norm",
    "key_norm",
    "attention_after",
    "feed_after",
)


@dataclass(frozen=True, slots=True)
class MatrixShape:
    """A matrix without its weights; see `affine.Matrix`."""

    rows: int
    columns: int
    block: int
    fraction: int
    wide: bool
    """Whether its small numbers have 16 bits; otherwise 8."""

    @classmethod
    def of(cls, matrix: Matrix) -> MatrixShape:
        """That of a matrix."""
        return cls(*matrix.shape, matrix.block, matrix.fraction, matrix.q.dtype.itemsize == 2)

    @property
    def format(self) -> tuple[int, int, int]:
        """Block, fraction bits, and bytes of a small number."""
        return self.block, self.fraction, 2 if self.wide else 1


@dataclass(frozen=True, slots=True)
class LayerShape:
    """A layer without its weights."""

    products: tuple[MatrixShape, ...]
    """In the order of PRODUCTS."""
    norms: tuple[int | None, ...]
    """Fraction bits of the gains, in the order of NORMS; None where the model has no such normalisation."""
    biases: tuple[bool, bool, bool]
    """Whether query, key and value have one."""
    window: int

    @classmethod
    def of(cls, layer: Layer) -> LayerShape:
        """That of a layer."""
        gains: list[Gain | None] = [getattr(layer, name) for name in NORMS]
        return cls(
            tuple(MatrixShape.of(getattr(layer, name)) for name in PRODUCTS),
            tuple(None if gain is None else gain.fraction for gain in gains),
            (layer.query_bias is not None, layer.key_bias is not None, layer.value_bias is not None),
            layer.window,
        )

    def product(self, name: Product) -> MatrixShape:
        """One of the matrices."""
        return self.products[PRODUCTS.index(name)]

    def biased(self, name: Product) -> bool:
        """Whether a product has a bias."""
        return name in ("query", "key", "value") and self.biases[PRODUCTS.index(name)]

    def norm(self, name: str) -> int | None:
        """The fraction bits of one of NORMS, if the layer has it."""
        return next(bits for norm, bits in zip(NORMS, self.norms, strict=True) if norm == name)

    @property
    def presence(self) -> int:
        """What it has that not every model has, a bit each: NORMS from the third on, then the three biases."""
        there = [*(bits is not None for bits in self.norms[2:]), *self.biases]
        return sum(1 << bit for bit, has in enumerate(there) if has)

    @property
    def leaf(self) -> bytes:
        """Its numbers, LAYER_BYTES: see `parameters.py`."""
        gains = [fraction or 0 for fraction in self.norms]
        return _words(self.window, *gains, *(number for matrix in self.products for number in matrix.format))


@dataclass(frozen=True)
class Shape:
    """A model without its weights; the fields are those of `reference.Model`."""

    embedding: MatrixShape
    layers: tuple[LayerShape, ...]
    norm: int
    """Fraction bits of the last gain."""
    head: MatrixShape
    heads: int
    kv_heads: int
    head_width: int
    epsilon: int
    score_scale: int
    halves: bool
    gate: Gate
    embedding_scale: int
    tied: bool
    """Whether the head is the embedding."""

    @classmethod
    def of(cls, model: Model) -> Shape:
        """That of a converted model."""
        return cls(
            MatrixShape.of(model.embedding),
            tuple(LayerShape.of(layer) for layer in model.layers),
            model.norm.fraction,
            MatrixShape.of(model.head),
            model.heads,
            model.kv_heads,
            model.head_width,
            model.epsilon,
            model.score_scale,
            model.halves,
            model.gate,
            model.embedding_scale,
            model.embedding is model.head,
        )

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.embedding.columns

    @property
    def inner(self) -> int:
        """Of all heads side by side."""
        return self.heads * self.head_width

    @cached_property
    def layout(self) -> RecordLayout:
        """Of the records."""
        feed = self.layers[0].product("gate").rows
        return RecordLayout(len(self.layers), self.width, self.heads, self.kv_heads, self.head_width, feed)

    def vector(self, layer: int, name: Vector) -> tuple[int, int]:
        """Where a vector begins in a record, and how many numbers it has, fraction bits included."""
        layout = self.layout
        if name == "head input":
            return layout.kept_chunks * CHUNK + layout.layers * layout.inputs_step, self.width + 1
        start, size = layout.parts[name]
        return start + layer * (layout.kept_step if name in ("keys", "values") else layout.inputs_step), size

    def place(self, index: int) -> tuple[int, Vector, int] | None:
        """Layer and vector of a record's number, and which of its numbers it is; None for zeros at the end."""
        layer, found = self.layout.name(index)
        name = next((name for name in VECTORS if name == found), None)
        if name is None:
            return None
        number = ENDS if layer is None else layer
        return number, name, index - self.vector(number, name)[0]

    def rank(self, index: int) -> tuple[int, int, int]:
        """When a record's number is computed: all that it follows from has a lower rank."""
        found = self.place(index)
        if found is None:
            return len(self.layers) + 1, 0, index
        layer, name, at = found
        return len(self.layers) if layer == ENDS else layer, VECTORS.index(name), at

    def matrix(self, layer: int, name: Product | Literal["head"]) -> MatrixShape:
        """One of the matrices."""
        return self.head if name == "head" else self.layers[layer].product(name)

    def seen_from(self, layer: int, position: int) -> int:
        """The first position that attention at `position` sees in a layer."""
        window = self.layers[layer].window
        return max(0, position + 1 - window) if window else 0

    @cached_property
    def leaf(self) -> bytes:
        """The model's numbers, MODEL_BYTES: see `parameters.py`."""
        return _words(
            VERSION,
            len(self.layers),
            self.width,
            self.layers[0].product("gate").rows,
            self.heads,
            self.kv_heads,
            self.head_width,
            self.head.rows,
            self.epsilon,
            self.score_scale,
            self.halves,
            get_args(Gate).index(self.gate),
            self.embedding_scale,
            self.norm,
            self.tied,
            self.layers[0].presence,
            *self.head.format,
            *self.embedding.format,
        )


def _words(*numbers: int) -> bytes:
    """WORD bytes each, big-endian, two's complement."""
    return b"".join(int(number).to_bytes(WORD, "big", signed=True) for number in numbers)
