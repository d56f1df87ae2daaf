"""The exact semantics' arithmetic on plain whole numbers: what `whole.py` and `reference.py` do, for one small step.

No numpy: a contract mirrors these functions line by line. All numbers fit 256 bits with a sign, most fit 64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from math import isqrt
from operator import mul
from typing import Final

from assay.core.errors import EncodingError
from assay.engines.exact.reference import GELU_CUBE, GELU_SCALE, HEAD_BITS, NORM_BITS, Gate
from assay.engines.exact.tables import (
    EXP2_BITS,
    EXP2_STEPS,
    SIGMOID_REACH,
    SIGMOID_STEPS,
    SINE_STEPS,
    exp2_table,
    sigmoid_table,
    sine_table,
)
from assay.engines.exact.whole import LIMIT, LOG_FRACTION, SATURATED, WEIGHT_BITS

MOST: Final = 2**31 - 1
"""Largest magnitude in 32 bits."""
MOST_SHIFT: Final = 62
"""Shifted further to the right, every number of the semantics is 0."""


def round_shift(x: int, by: int) -> int:
    """x / 2^by to the nearest whole number, halves upwards; x * 2^-by, saturated, where `by` is negative."""
    if by > 0:
        return (x + (1 << by >> 1)) >> by if by <= MOST_SHIFT else 0
    left = min(-by, MOST_SHIFT)
    return x << left if abs(x) <= SATURATED >> left else SATURATED if x > 0 else -SATURATED


def clip(x: int, most: int) -> int:
    """Saturate."""
    return max(-most, min(most, x))


def highest(x: Iterable[int]) -> int:
    """The largest magnitude; 0 of nothing."""
    return max(map(abs, x), default=0)


def dot(x: Sequence[int], y: Sequence[int]) -> int:
    """The sum of the products."""
    return sum(map(mul, x, y))


def narrow_scale(most: int, fraction: int) -> tuple[int, int]:
    """By how much `narrow` shifts numbers whose largest magnitude is `most`, and their fraction bits then."""
    length = int(most).bit_length()
    return (length - 15, fraction - (length - 15)) if length else (0, fraction)


def narrow(x: Sequence[int], fraction: int) -> tuple[list[int], int]:
    """A vector in 15 bits and sign, and its fraction bits: see `whole.narrow`."""
    shift, fraction = narrow_scale(highest(x), fraction)
    return [narrowed(n, shift) for n in x], fraction


def narrowed(x: int, shift: int) -> int:
    """One number of such a vector."""
    return clip(round_shift(x, shift), LIMIT)


def norm_shift(most: int, fraction: int) -> int:
    """By how much a vector is shifted to be normalised."""
    return max(0, int(most).bit_length() - NORM_BITS, fraction - NORM_BITS)


def inverse_root(squares: int, n: int, fraction: int, epsilon: int) -> tuple[int, int]:
    """1 / sqrt(mean(x^2) + epsilon), and 53 less its fraction bits, of n numbers shifted to have `fraction` bits.

    0 and 0 where all numbers and epsilon are 0. See `reference.normalise`.

    Raises:
        EncodingError: a sum that no such numbers have.
    """
    total = squares + n * round_shift(epsilon, 32 - 2 * fraction)
    if not 0 <= total < 1 << 62:
        raise EncodingError("a sum of squares is out of range")
    if total == 0:
        return 0, 0
    up = (62 - int(total).bit_length()) & ~1
    return (1 << 62) // isqrt(total << up) >> 9, 53 - up // 2


def normalise(x: Sequence[int], fraction: int, weight: Sequence[int], gain: int, epsilon: int) -> tuple[list[int], int]:
    """`reference.normalise` of a short vector; `gain` counts the weights' fraction bits."""
    shift = norm_shift(highest(x), fraction)
    x = [round_shift(n, shift) for n in x]
    inverse, bits = inverse_root(dot(x, x), len(x), fraction - shift, epsilon)
    return narrow([n * w * inverse for n, w in zip(x, weight, strict=True)], gain + bits if inverse else 0)


def turned(x: Sequence[int], fraction: int, turn: Sequence[int], *, halves: bool) -> tuple[list[int], int]:
    """One head in at most 30 bits, its pairs turned by `turn`, parts of 2^64: `reference.turn_heads`."""
    shift = max(0, int(highest(x)).bit_length() - HEAD_BITS)
    x = [round_shift(n, shift) for n in x]
    y, half = list(x), len(x) // 2
    for i, angle in enumerate(turn):
        a, b = (i, i + half) if halves else (2 * i, 2 * i + 1)
        sine, cosine = _wave(angle), _wave((angle + (1 << 62)) % (1 << 64))
        y[a] = round_shift(x[a] * cosine - x[b] * sine, 30)
        y[b] = round_shift(x[a] * sine + x[b] * cosine, 30)
    return y, fraction - shift


def exp2_negative(x: int) -> int:
    """2^(15 - x / 2^16), at most 2^15 - 1, for x >= 0."""
    table, drop = _exp2(), LOG_FRACTION - EXP2_STEPS
    part = x & ((1 << LOG_FRACTION) - 1)
    index, rest = part >> drop, part & ((1 << drop) - 1)
    fine = table[index] - ((table[index] - table[index + 1]) * rest >> drop)
    whole = min(x >> LOG_FRACTION, 40)
    return min(round_shift(fine, EXP2_BITS - WEIGHT_BITS + whole), (1 << WEIGHT_BITS) - 1)


def sigmoid(x: int) -> int:
    """2^24 / (1 + exp(-x / 2^16))."""
    table, drop = _sigmoid(), LOG_FRACTION - SIGMOID_STEPS
    size = min(abs(x), (SIGMOID_REACH << LOG_FRACTION) - 1)
    index, rest = size >> drop, size & ((1 << drop) - 1)
    positive = table[index] + ((table[index + 1] - table[index]) * rest >> drop)
    return (1 << 24) - positive if x < 0 else positive


def activate(x: int, gate: Gate) -> int:
    """The gate's function: `reference.activate`."""
    inner = x
    if gate == "gelu":
        near = clip(x, 1 << 20)
        cube = round_shift(round_shift(near * near, LOG_FRACTION) * near, LOG_FRACTION)
        inner = round_shift((near + round_shift(cube * GELU_CUBE, 30)) * GELU_SCALE, 30)
    return round_shift(x * sigmoid(inner), 24)


def divide(x: int, by: int) -> int:
    """x / by to the nearest whole number, halves upwards.

    Raises:
        EncodingError: `by` is not over 0.
    """
    if by <= 0:
        raise EncodingError("a sum of weights is out of range")
    return (2 * x + by) // (2 * by)


def _wave(turn: int) -> int:
    table = _sine()
    index, rest = turn >> (64 - SINE_STEPS), (turn >> (44 - SINE_STEPS)) & ((1 << 20) - 1)
    return table[index] + ((table[index + 1] - table[index]) * rest >> 20)


@cache
def _exp2() -> tuple[int, ...]:
    return tuple(exp2_table().tolist())


@cache
def _sigmoid() -> tuple[int, ...]:
    return tuple(sigmoid_table().tolist())


@cache
def _sine() -> tuple[int, ...]:
    return tuple(sine_table().tolist())
