"""The vector operations of `reference.py` between two matrix products, compiled."""

from __future__ import annotations

from typing import Final

import numpy as np

from assay.engines.exact.kernels.scalars import (
    Whole,
    compiled,
    largest,
    length_of,
    narrowed,
    root,
    saturated,
    shifted,
    sigmoid,
    sine,
)
from assay.engines.exact.reference import GELU_CUBE, GELU_SCALE, HEAD_BITS, NORM_BITS, RESIDUAL, STREAM_LIMIT
from assay.engines.exact.whole import LOG_FRACTION, SATURATED

_NEAR: Final = 1 << 20
_QUARTER: Final = 1 << 62


@compiled
def normalised(
    x: np.ndarray, fraction: Whole, gain: np.ndarray, gain_fraction: Whole, epsilon: Whole, scratch: np.ndarray,
    out: np.ndarray,
) -> Whole:  # fmt: skip
    """`reference.normalise` of int64 [n] into int16 [n]; the fraction bits of the result. `scratch`: int64 [n]."""
    wide = scratch[: x.size]
    return narrowed(wide, _normalised_wide(x, fraction, gain, gain_fraction, epsilon, wide), out)


@compiled
def _normalised_wide(
    x: np.ndarray, fraction: Whole, gain: np.ndarray, gain_fraction: Whole, epsilon: Whole, out: np.ndarray
) -> Whole:
    """`reference.normalise_wide` of int64 [n] into int64 [n]; the fraction bits of the result."""
    shift = max(0, length_of(largest(x)) - NORM_BITS, fraction - NORM_BITS)
    total = x.size * shifted(epsilon, 32 - 2 * (fraction - shift))
    if shift > 62:
        for i in range(x.size):
            out[i] = 0
    else:
        half = (np.int64(1) << shift) >> 1
        squares = np.int64(0)
        for i in range(x.size):
            value = (x[i] + half) >> shift
            out[i] = value
            squares += value * value
        total += squares
    if total == 0:  # then all of `out` is 0
        return 0
    up = (62 - length_of(total)) & ~1
    inverse = (np.int64(1) << 62) // root(total << up) >> 9
    for i in range(x.size):
        out[i] = out[i] * gain[i] * inverse
    return gain_fraction + 53 - up // 2


@compiled
def narrowed_down(x: np.ndarray, fraction: Whole, bits: Whole) -> Whole:
    """`reference.narrow_down` in place; the fraction bits of the result."""
    shift = max(0, length_of(largest(x)) - bits)
    if shift:
        half = np.int64(1) << (shift - 1)
        for i in range(x.size):
            x[i] = (x[i] + half) >> shift
    return fraction - shift


@compiled
def turned(x: np.ndarray, sines: np.ndarray, cosines: np.ndarray, halves: Whole) -> None:
    """`reference.turn_heads` in place."""
    pairs = x.size // 2
    for i in range(pairs):
        first, second = (i, i + pairs) if halves else (2 * i, 2 * i + 1)
        a, b = x[first], x[second]
        x[first] = (a * cosines[i] - b * sines[i] + (1 << 29)) >> 30
        x[second] = (a * sines[i] + b * cosines[i] + (1 << 29)) >> 30


@compiled
def angles(position: Whole, turns: np.ndarray, sines: np.ndarray, cosines: np.ndarray) -> None:
    """Sine and cosine, times 2^30, of each pair of a head at a position."""
    for i in range(turns.size):
        turn = np.uint64(position) * turns[i]
        sines[i] = sine(turn)
        cosines[i] = sine(turn + np.uint64(_QUARTER))


@compiled
def head(
    accumulators: np.ndarray, fraction: Whole, bias: np.ndarray, gain: np.ndarray, gain_fraction: Whole, epsilon: Whole,
    sines: np.ndarray, cosines: np.ndarray, halves: Whole, scratch: np.ndarray, out: np.ndarray,
) -> Whole:  # fmt: skip
    """One head of queries, keys or values from its accumulators, into int16 [width]; its fraction bits.

    Empty arrays stand for what a model or a kind does not have: `bias` int64, `gain` int32, `sines` (not turned).
    `scratch`: int64 [2, width or more].
    """
    x = scratch[0, : accumulators.size]
    if bias.size:
        for i in range(x.size):
            value = accumulators[i] + shifted(bias[i], RESIDUAL - fraction)
            x[i] = min(max(value, -SATURATED), SATURATED)
    else:
        for i in range(x.size):
            x[i] = accumulators[i]
    if gain.size:
        fraction = normalised(x, fraction, gain, gain_fraction, epsilon, scratch[1], out)
        if not sines.size:
            return fraction
        for i in range(x.size):
            x[i] = out[i]
    if sines.size:
        fraction = narrowed_down(x, fraction, HEAD_BITS)
        turned(x, sines, cosines, halves)
    return narrowed(x, fraction, out)


@compiled
def joined(parts: np.ndarray, fractions: np.ndarray, scratch: np.ndarray, out: np.ndarray) -> Whole:
    """`reference.join` of int64 [heads, width] into int16 [heads * width]; the fraction bits of the result."""
    lowest = fractions[0]
    for h in range(parts.shape[0]):
        lowest = min(lowest, fractions[h])
    width = parts.shape[1]
    for h in range(parts.shape[0]):
        by = fractions[h] - lowest
        for i in range(width):
            scratch[h * width + i] = shifted(parts[h, i], by)
    return narrowed(scratch[: parts.size], lowest, out)


@compiled
def gated(
    gate: np.ndarray, gate_fraction: Whole, up: np.ndarray, up_fraction: Whole, gelu: Whole, scratch: np.ndarray,
    out: np.ndarray,
) -> Whole:  # fmt: skip
    """The input of a feed-forward part's last product, int16 [n], from two products' accumulators."""
    if 0 < gate_fraction - LOG_FRACTION <= 62 and 0 < up_fraction - LOG_FRACTION <= 62:  # but for absurd models
        one, other = gate_fraction - LOG_FRACTION, up_fraction - LOG_FRACTION
        half, other_half = np.int64(1) << (one - 1), np.int64(1) << (other - 1)
        for i in range(gate.size):
            x, y = saturated((gate[i] + half) >> one), saturated((up[i] + other_half) >> other)
            scratch[i] = (_times(_activated(x, gelu), y) + (1 << 15)) >> LOG_FRACTION
    else:
        for i in range(gate.size):
            x = saturated(shifted(gate[i], gate_fraction - LOG_FRACTION))
            y = saturated(shifted(up[i], up_fraction - LOG_FRACTION))
            scratch[i] = (_times(_activated(x, gelu), y) + (1 << 15)) >> LOG_FRACTION
    return narrowed(scratch[: gate.size], LOG_FRACTION, out)


@compiled
def _times(x: Whole, y: Whole) -> Whole:
    """The product of two numbers that fit into 32 bits, which is one instruction then."""
    return np.int64(np.int32(x)) * np.int64(np.int32(y))


@compiled
def _activated(x: Whole, gelu: Whole) -> Whole:
    """`reference.activate`."""
    inner = x
    if gelu:
        near = min(max(x, -_NEAR), _NEAR)
        square = (near * near + (1 << 15)) >> 16
        cube = (square * near + (1 << 15)) >> 16
        inner = ((near + ((cube * GELU_CUBE + (1 << 29)) >> 30)) * GELU_SCALE + (1 << 29)) >> 30
    return (_times(x, sigmoid(inner)) + (1 << 23)) >> 24


@compiled
def _held(x: Whole) -> Whole:
    """`reference.into_stream`."""
    return min(max(x, -STREAM_LIMIT), STREAM_LIMIT)


@compiled
def added(
    stream: np.ndarray, y: np.ndarray, fraction: Whole, gain: np.ndarray, gain_fraction: Whole, epsilon: Whole,
    scratch: np.ndarray,
) -> None:  # fmt: skip
    """`reference.add`, in place, of a product's accumulators; an empty `gain`: none. `scratch`: int64 [2, n]."""
    if gain.size:
        x, wide = scratch[0, : y.size], scratch[1, : y.size]
        for i in range(y.size):
            x[i] = y[i]
        fraction = narrowed_down(x, fraction, NORM_BITS)
        fraction = _normalised_wide(x, fraction, gain, gain_fraction, epsilon, wide)
        for i in range(y.size):
            stream[i] = _held(stream[i] + shifted(wide[i], fraction - RESIDUAL))
        return
    shift = fraction - RESIDUAL
    if 0 < shift <= 62:
        half = np.int64(1) << (shift - 1)
        for i in range(y.size):
            stream[i] = _held(stream[i] + ((y[i] + half) >> shift))
    else:
        for i in range(y.size):
            stream[i] = _held(stream[i] + shifted(y[i], shift))


@compiled
def logits_of(accumulators: np.ndarray, shift: Whole, out: np.ndarray) -> None:
    """The head's accumulators as int32 [n] logits; `shift`: their fraction bits less those of logits."""
    if 0 < shift <= 62:
        half = np.int64(1) << (shift - 1)
        for i in range(out.size):
            out[i] = saturated((accumulators[i] + half) >> shift)
    else:
        for i in range(out.size):
            out[i] = saturated(shifted(accumulators[i], shift))
