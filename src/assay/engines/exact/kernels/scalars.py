"""`whole.py` for single numbers and for vectors, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

import numba
import numpy as np

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

Whole: TypeAlias = int | np.int64
"""A whole number of 64 bits."""
_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile at the first call, keep the result on disk, and let other threads run meanwhile.

    What is compiled allocates nothing and counts no references to its arrays, which took a fifth of the time: callers
    hold them.
    """
    options: Any = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    return cast("_Function", numba.njit(**options)(function))


def _with_steps(table: np.ndarray) -> np.ndarray:
    """Each entry above 32 bits that have how much is between it and the next one: gathered together."""
    wide = table.astype(np.int64)
    return (wide[:-1] << 32) + np.abs(np.diff(wide))


EXP2: Final = _with_steps(exp2_table())
SIGMOID: Final = _with_steps(sigmoid_table())
SINE: Final = sine_table().astype(np.int64)

_LOW_WORD: Final = 0xFFFFFFFF
_SIGMOID_DROP: Final = LOG_FRACTION - SIGMOID_STEPS
_SIGMOID_MOST: Final = (SIGMOID_REACH << LOG_FRACTION) - 1
_EXP2_DROP: Final = LOG_FRACTION - EXP2_STEPS
_FLOATS: Final = 1 << 53
"""Whole numbers up to here are exact in float64."""
_HALF_OF_32: Final = 2**31 - 1


@compiled
def shifted(x: Whole, by: Whole) -> Whole:
    """`whole.round_shift`."""
    if by > 62:
        return 0
    if by > 0:
        return (x + ((1 << by) >> 1)) >> by
    left = min(-by, 62)
    most = SATURATED >> left
    if x > most:
        return SATURATED
    if x < -most:
        return -SATURATED
    return x << left


@compiled
def saturated(x: Whole) -> Whole:
    """`reference.into_32_bits`."""
    return min(max(x, -_HALF_OF_32), _HALF_OF_32)


@compiled
def length_of(x: Whole) -> Whole:
    """Bits of a number that is not negative."""
    bits = 0
    for step in (32, 16, 8, 4, 2, 1):
        if x >> step:
            x >>= step
            bits += step
    return bits + (1 if x else 0)


@compiled
def largest(x: np.ndarray) -> Whole:
    """The largest magnitude of int64 [n]."""
    most = np.int64(0)
    for i in range(x.size):
        most = max(most, abs(x[i]))
    return most


@compiled
def narrowed(x: np.ndarray, fraction: Whole, out: np.ndarray) -> Whole:
    """`whole.narrow` of int64 [n] into int16 [n]; the fraction bits of the result."""
    bits = length_of(largest(x))
    shift = bits - 15 if bits else 0
    if shift > 0:
        half = np.int64(1) << (shift - 1)
        for i in range(x.size):
            out[i] = min(max((x[i] + half) >> shift, -LIMIT), LIMIT)
    else:
        for i in range(x.size):
            out[i] = x[i] << -shift
    return fraction - shift


@compiled
def root(x: Whole) -> Whole:
    """`math.isqrt`, for x from 1 to 2^62."""
    guess = np.int64(1) << ((length_of(x) + 1) // 2)
    while True:
        better = (guess + x // guess) >> 1
        if better >= guess:
            return guess
        guess = better


@compiled
def exp2_negative(x: Whole) -> Whole:
    """`whole.exp2_negative`."""
    whole = min(x >> LOG_FRACTION, 40)
    part = x & ((1 << LOG_FRACTION) - 1)
    index, rest = part >> _EXP2_DROP, part & ((1 << _EXP2_DROP) - 1)
    entry = EXP2[index]
    fine = (entry >> 32) - (((entry & _LOW_WORD) * rest) >> _EXP2_DROP)
    shift = EXP2_BITS - WEIGHT_BITS + whole
    return min((fine + ((np.int64(1) << shift) >> 1)) >> shift, (1 << WEIGHT_BITS) - 1)


@compiled
def sigmoid(x: Whole) -> Whole:
    """`whole.sigmoid`."""
    size = min(abs(x), _SIGMOID_MOST)
    index, rest = size >> _SIGMOID_DROP, size & ((1 << _SIGMOID_DROP) - 1)
    entry = SIGMOID[index]
    positive = (entry >> 32) + (((entry & _LOW_WORD) * rest) >> _SIGMOID_DROP)
    return (1 << 24) - positive if x < 0 else positive


@compiled
def sine(turn: Whole) -> Whole:
    """`whole.sine_and_cosine`'s sine, of parts of 2^64 of a turn (uint64)."""
    index = np.int64(turn >> np.uint64(64 - SINE_STEPS))
    rest = np.int64((turn >> np.uint64(64 - SINE_STEPS - 20)) & np.uint64((1 << 20) - 1))
    return SINE[index] + (((SINE[index + 1] - SINE[index]) * rest) >> 20)


@compiled
def divide(x: np.ndarray, by: Whole, out: np.ndarray) -> None:
    """`whole.divide` of int64 [n] into int64 [n]; |x| under 2^60."""
    by *= 2
    if by < _FLOATS and largest(x) < _FLOATS // 4:
        # A quotient of float64 is at most one off, and the remainder tells: processors divide those side by side.
        for i in range(x.size):
            above = 2 * x[i] + by // 2
            quotient = np.int64(np.floor(np.float64(above) / np.float64(by)))
            rest = above - quotient * by
            out[i] = quotient + (1 if rest >= by else 0) - (1 if rest < 0 else 0)
    else:
        for i in range(x.size):
            out[i] = (2 * x[i] + by // 2) // by
