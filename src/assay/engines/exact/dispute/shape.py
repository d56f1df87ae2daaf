"""What a referee knows of a model beside its parameters: sizes, counts of fraction bits, and which parts it has."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from assay.engines.exact.affine import Matrix
from assay.engines.exact.reference import Gain, Gate, Layer, Model

Product: TypeAlias = Literal["query", "key", "value", "output", "gate", "up", "down"]
"""The matrix products of a layer."""
PRODUCTS: Final[tuple[Product, ...]] = ("query", "key", "value", "output", "gate", "up", "down")
"""In the order in which a pass commits to them."""
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

    def norm(self, name: str) -> int | None:
        """The fraction bits of one of NORMS, if the layer has it."""
        return next(bits for norm, bits in zip(NORMS, self.norms, strict=True) if norm == name)

    @property
    def rows(self) -> int:
        """Accumulators of the layer."""
        return sum(matrix.rows for matrix in self.products)

    def offset(self, name: Product) -> int:
        """Where a product's accumulators begin among the layer's."""
        return sum(matrix.rows for matrix in self.products[: PRODUCTS.index(name)])


@dataclass(frozen=True, slots=True)
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
        )

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.embedding.columns

    @property
    def inner(self) -> int:
        """Of all heads side by side."""
        return self.heads * self.head_width

    @property
    def body(self) -> int:
        """Accumulators of all layers."""
        return sum(layer.rows for layer in self.layers)

    def offset(self, layer: int, name: Product) -> int:
        """Where a product's accumulators begin in the body."""
        return sum(before.rows for before in self.layers[:layer]) + self.layers[layer].offset(name)

    def product_at(self, index: int) -> tuple[int, Product, int]:
        """Layer, product and row of an accumulator of the body."""
        for number, layer in enumerate(self.layers):
            if index < layer.rows:
                for name in PRODUCTS:
                    if index < layer.product(name).rows:
                        return number, name, index
                    index -= layer.product(name).rows
            index -= layer.rows
        raise IndexError(f"the body ends {index} accumulators before")

    def seen_from(self, layer: int, position: int) -> int:
        """The first position that attention at `position` sees in a layer."""
        window = self.layers[layer].window
        return max(0, position + 1 - window) if window else 0

    def encode(self) -> list[bytes]:
        """What the first leaves of the parameters hold: one for the model, one for each layer; words of 8 bytes."""
        return [_words(self._all()), *(_words(_layer_words(layer)) for layer in self.layers)]

    def _all(self) -> Iterator[int]:
        yield from (len(self.layers), self.norm, self.heads, self.kv_heads, self.head_width, self.epsilon)
        yield from (self.score_scale, self.halves, self.gate == "gelu", self.embedding_scale)
        for matrix in (self.embedding, self.head):
            yield from _matrix_words(matrix)


def _layer_words(layer: LayerShape) -> Iterator[int]:
    for matrix in layer.products:
        yield from _matrix_words(matrix)
    for fraction in layer.norms:
        yield from (fraction is not None, fraction or 0)
    yield from (*layer.biases, layer.window)


def _matrix_words(matrix: MatrixShape) -> tuple[int, ...]:
    return matrix.rows, matrix.columns, matrix.block, matrix.fraction, matrix.wide


def _words(values: Iterator[int]) -> bytes:
    words = tuple(values)
    return struct.pack(f">{len(words)}q", *words)
