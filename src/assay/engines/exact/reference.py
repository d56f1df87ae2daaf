"""The exact semantics, to be read: one token through one model, in whole numbers of stated widths.

A value is a whole number and a count of fraction bits: x with f fraction bits stands for x / 2^f. Activations, the
inputs of matrix products, have 15 bits and a sign, and each vector its own fraction bits, chosen from its largest
magnitude (`whole.narrow`). Products of matrices and activations are exact. The residual stream has RESIDUAL fraction
bits in 48. The fast kernels compute the same numbers; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Final, Literal, TypeAlias

import numpy as np

from assay.engines.exact.affine import Matrix
from assay.engines.exact.whole import (
    LOG_FRACTION,
    SATURATED,
    bit_length,
    divide,
    exp2_negative,
    narrow,
    round_shift,
    sigmoid,
    sine_and_cosine,
)

RESIDUAL: Final = 16
"""Fraction bits of the residual stream."""
STREAM_LIMIT: Final = (1 << 47) - 1
"""The residual stream is capped at this magnitude, 2^31 as a number: Gemma 3 has some of over 10^5 in it."""
NORM_BITS: Final = 24
"""A vector to be normalised is shifted until its largest magnitude has no more bits than this, nor more fraction."""
HEAD_BITS: Final = 30
"""Queries and keys before they are turned."""
SCORE_LIMIT: Final = 1 << 40
"""Attention scores (16 fraction bits, in powers of two) are capped at this magnitude."""
EMBEDDING_LIMIT: Final = (1 << 38) - 1
"""Embeddings that are multiplied with a number are capped at this magnitude before."""
LOGIT_FRACTION: Final = 16
"""Fraction bits of logits, which are held in 32 bits."""

Gate: TypeAlias = Literal["silu", "gelu"]
"""x sigmoid(x), or Gaussian error by its tanh form, which is x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3))."""


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """The weights of a normalisation, times the square root of how many there are."""

    weight: np.ndarray
    """int32 [n], at most 2^15 - 1 in magnitude."""
    fraction: int


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One block of the model; what a variant does not have is None."""

    attention_norm: Gain
    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    feed_norm: Gain
    gate: Matrix
    up: Matrix
    down: Matrix
    query_bias: np.ndarray | None = None
    """int64 [rows of `query`], RESIDUAL fraction bits; `key_bias` and `value_bias` alike."""
    key_bias: np.ndarray | None = None
    value_bias: np.ndarray | None = None
    query_norm: Gain | None = None
    """Over each head."""
    key_norm: Gain | None = None
    attention_after: Gain | None = None
    """Over what attention adds to the residual stream."""
    feed_after: Gain | None = None
    window: int = 0
    """Attention sees so many positions, itself included; 0: all."""
    turns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """uint64 [head width / 2]: see `tables.turns_per_position`."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A converted model."""

    embedding: Matrix
    layers: Sequence[Layer]
    norm: Gain
    head: Matrix
    heads: int
    kv_heads: int
    head_width: int
    epsilon: int
    """Of the normalisations, times 2^32."""
    score_scale: int
    """What a score is multiplied with, times log2(e) and 2^24."""
    halves: bool
    """Position pairs dimension i with i + width/2 (NeoX); otherwise 2i with 2i + 1."""
    gate: Gate = "silu"
    embedding_scale: int = 0
    """What embeddings are multiplied with, times 2^16; 0: nothing."""

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.embedding.shape[1]


@dataclass(slots=True, eq=False)
class Cache:
    """Keys and values of a sequence, per layer and position."""

    keys: list[list[tuple[np.ndarray, np.ndarray]]]
    """Activations int64 [kv heads, head width], and their fraction bits [kv heads]."""
    values: list[list[tuple[np.ndarray, np.ndarray]]]

    @classmethod
    def of(cls, model: Model) -> Cache:
        """An empty one."""
        return cls([[] for _ in model.layers], [[] for _ in model.layers])


def forward(model: Model, token: int, cache: Cache) -> np.ndarray:
    """Run one token after those in the cache; logits, int64 [vocabulary] with LOGIT_FRACTION fraction bits."""
    stream = embed(model, token)
    for number, layer in enumerate(model.layers):
        stream = attention_block(model, layer, stream, cache.keys[number], cache.values[number])
        stream = feed_block(model, layer, stream)
    x, fraction = normalise(stream, RESIDUAL, model.norm, model.epsilon)
    y, fraction = multiply(model.head, x, fraction)
    return into_32_bits(round_shift(y, fraction - LOGIT_FRACTION))


def embed(model: Model, token: int) -> np.ndarray:
    """The token's row, int64 [width] with RESIDUAL fraction bits."""
    x = model.embedding.whole(token)
    if model.embedding_scale:
        x = np.clip(x, -EMBEDDING_LIMIT, EMBEDDING_LIMIT)
        return into_stream(round_shift(x * model.embedding_scale, model.embedding.fraction))
    return into_stream(round_shift(x, model.embedding.fraction - RESIDUAL))


def attention_block(
    model: Model,
    layer: Layer,
    stream: np.ndarray,
    keys: list[tuple[np.ndarray, np.ndarray]],
    values: list[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """The residual stream after a layer's attention; the token's keys and values are appended to the cache."""
    position = len(keys)
    x, fraction = normalise(stream, RESIDUAL, layer.attention_norm, model.epsilon)
    turn = np.uint64(position) * layer.turns

    def heads_of(
        matrix: Matrix, bias: np.ndarray | None, norm: Gain | None, count: int, *, turned: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        y, f = multiply(matrix, x, fraction, bias)
        parts: list[np.ndarray] = []
        fractions: list[int] = []
        for part in y.reshape(count, model.head_width):
            part_fraction = f
            if norm is not None:
                part, part_fraction = normalise(part, f, norm, model.epsilon)
            if turned:
                part, part_fraction = narrow_down(part, part_fraction, HEAD_BITS)
                part = turn_heads(part, turn, halves=model.halves)
            part, part_fraction = narrow(part, part_fraction)
            parts.append(part)
            fractions.append(part_fraction)
        return np.array(parts), np.array(fractions, dtype=np.int64)

    queries = heads_of(layer.query, layer.query_bias, layer.query_norm, model.heads, turned=True)
    keys.append(heads_of(layer.key, layer.key_bias, layer.key_norm, model.kv_heads, turned=True))
    values.append(heads_of(layer.value, layer.value_bias, None, model.kv_heads, turned=False))
    start = max(0, position + 1 - layer.window) if layer.window else 0
    group = model.heads // model.kv_heads
    mixed = [
        attend(model, queries[0][h], int(queries[1][h]), [(k[h // group], int(f[h // group])) for k, f in keys[start:]],
               [(v[h // group], int(f[h // group])) for v, f in values[start:]])
        for h in range(model.heads)
    ]  # fmt: skip
    x, fraction = join([part for part, _ in mixed], [f for _, f in mixed])
    y, fraction = multiply(layer.output, x, fraction)
    return add(model, stream, y, fraction, layer.attention_after)


def attend(
    model: Model,
    query: np.ndarray,
    fraction: int,
    keys: list[tuple[np.ndarray, int]],
    values: list[tuple[np.ndarray, int]],
) -> tuple[np.ndarray, int]:
    """One head: the mean of the values, weighted by the softmax of the scores."""
    scores = np.array(
        [
            int(round_shift((query @ key) * np.asarray(model.score_scale), fraction + f + 24 - LOG_FRACTION))
            for key, f in keys
        ]
    )
    scores = np.clip(scores, -SCORE_LIMIT, SCORE_LIMIT)
    weights = exp2_negative(scores.max() - scores)
    lowest = min(f for _, f in values)
    total = sum(round_shift(weight, f - lowest) * value for weight, (value, f) in zip(weights, values, strict=True))
    return divide(np.asarray(total) << 8, int(weights.sum())), lowest + 8


def join(parts: Sequence[np.ndarray], fractions: Sequence[int]) -> tuple[np.ndarray, int]:
    """The heads' results side by side, as activations."""
    lowest = min(fractions)
    return narrow(
        np.concatenate([round_shift(part, f - lowest) for part, f in zip(parts, fractions, strict=True)]), lowest
    )


def feed_block(model: Model, layer: Layer, stream: np.ndarray) -> np.ndarray:
    """The residual stream after a layer's feed-forward part."""
    x, fraction = normalise(stream, RESIDUAL, layer.feed_norm, model.epsilon)
    gate, f = multiply(layer.gate, x, fraction)
    gate = into_32_bits(round_shift(gate, f - LOG_FRACTION))
    up, f = multiply(layer.up, x, fraction)
    up = into_32_bits(round_shift(up, f - LOG_FRACTION))
    x, fraction = narrow(round_shift(activate(gate, model.gate) * up, LOG_FRACTION), LOG_FRACTION)
    y, fraction = multiply(layer.down, x, fraction)
    return add(model, stream, y, fraction, layer.feed_after)


def activate(x: np.ndarray, gate: Gate) -> np.ndarray:
    """The gate's function, of int64 numbers of 32 bits with LOG_FRACTION fraction bits."""
    inner = x
    if gate == "gelu":
        near = np.clip(x, -(1 << 20), 1 << 20)  # beyond 16 the logistic function is flat
        cube = round_shift(round_shift(near * near, LOG_FRACTION) * near, LOG_FRACTION)
        inner = round_shift((near + round_shift(cube * GELU_CUBE, 30)) * GELU_SCALE, 30)
    return round_shift(x * sigmoid(inner), 24)


GELU_CUBE: Final = 48012366
"""0.044715 * 2^30."""
GELU_SCALE: Final = 1713443940
"""2 sqrt(2 / pi) * 2^30."""


def normalise(x: np.ndarray, fraction: int, gain: Gain, epsilon: int) -> tuple[np.ndarray, int]:
    """`normalise_wide`, as activations."""
    return narrow(*normalise_wide(x, fraction, gain, epsilon))


def normalise_wide(x: np.ndarray, fraction: int, gain: Gain, epsilon: int) -> tuple[np.ndarray, int]:
    """RMS norm (arXiv:1910.07467): x g / sqrt(mean(x^2) + epsilon), under 2^62 in magnitude, and its fraction bits.

    `x`: int64 [n] with `fraction` fraction bits, n at most 2^13. Bits under 2^-24 do not count beside epsilon.
    """
    shift = max(0, bit_length(x) - NORM_BITS, fraction - NORM_BITS)
    x = round_shift(x, shift)
    # epsilon in units of x^2: 2^32 epsilon has 32 fraction bits, x^2 has 2 (fraction - shift).
    small = int(round_shift(np.asarray(epsilon), 32 - 2 * (fraction - shift)))
    total = int(x @ x) + len(x) * small
    if total == 0:
        return np.zeros_like(x), 0
    up = (62 - total.bit_length()) & ~1  # an even shift that brings the total just under 2^62
    inverse = (1 << 62) // isqrt(total << up) >> 9  # at most 2^23
    return x * gain.weight * inverse, gain.fraction + 53 - up // 2


def multiply(matrix: Matrix, x: np.ndarray, fraction: int, bias: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """A matrix product, exact: int64 [rows] and its fraction bits. This is what a trace commits to.

    A bias is added with the product's fraction bits.
    """
    y = matrix.whole() @ x
    fraction += matrix.fraction
    if bias is not None:
        y = np.clip(y + round_shift(bias, RESIDUAL - fraction), -SATURATED, SATURATED)
    return y, fraction


def add(model: Model, stream: np.ndarray, y: np.ndarray, fraction: int, after: Gain | None) -> np.ndarray:
    """The residual stream with a block's result added to it."""
    if after is not None:
        y, fraction = normalise_wide(*narrow_down(y, fraction, NORM_BITS), after, model.epsilon)
    return into_stream(stream + round_shift(y, fraction - RESIDUAL))


def turn_heads(x: np.ndarray, turn: np.ndarray, *, halves: bool) -> np.ndarray:
    """Rotary position encoding of one head: pairs of `x` (at most 30 bits) turned by `turn`, parts of 2^64."""
    sine, cosine = sine_and_cosine(turn)
    y = np.empty_like(x)
    first, second = (
        (slice(0, len(x) // 2), slice(len(x) // 2, None)) if halves else (slice(0, None, 2), slice(1, None, 2))
    )
    y[first] = round_shift(x[first] * cosine - x[second] * sine, 30)
    y[second] = round_shift(x[first] * sine + x[second] * cosine, 30)
    return y


def narrow_down(x: np.ndarray, fraction: int, bits: int) -> tuple[np.ndarray, int]:
    """Shift right until the largest magnitude has at most `bits` bits (or one more, by rounding)."""
    shift = max(0, bit_length(x) - bits)
    return round_shift(x, shift), fraction - shift


def into_32_bits(x: np.ndarray) -> np.ndarray:
    """Saturate what 32 bits cannot hold."""
    return np.clip(x, -(2**31 - 1), 2**31 - 1)


def into_stream(x: np.ndarray) -> np.ndarray:
    """Saturate what the residual stream cannot hold."""
    return np.clip(x, -STREAM_LIMIT, STREAM_LIMIT)
