"""Arithmetic of the exact semantics on whole numbers: rounding, narrowing, and functions by table.

Everything is int64 on numpy arrays; nothing here may overflow for arguments within the stated widths.
"""

from __future__ import annotations

from typing import Final

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

LIMIT: Final = 32767
"""Largest magnitude of an activation."""
SATURATED: Final = (1 << 62) - 1
"""Largest magnitude of anything."""
LOG_FRACTION: Final = 16
"""Fraction bits of exponents and of gates."""
WEIGHT_BITS: Final = 15
"""Softmax weights are at most 2^15 - 1; the largest of a row is that."""


def round_shift(x: np.ndarray, by: np.ndarray | int) -> np.ndarray:
    """x / 2^by to the nearest whole number, halves upwards; x * 2^-by, saturated, where `by` is negative.

    |x| is at most SATURATED, and so is the result.
    """
    shift = np.asarray(by, dtype=np.int64)
    right, left = np.clip(shift, 0, 62), np.clip(-shift, 0, 62)
    half = (np.int64(1) << right) >> 1
    down = np.where(shift > 62, 0, (x + half) >> right)
    most = np.int64(SATURATED) >> left
    return np.where(shift > 0, down, np.where(np.abs(x) > most, np.sign(x) * np.int64(SATURATED), x << left))


def bit_length(x: np.ndarray) -> int:
    """Bits of the largest magnitude: 0 for zeros, n for 2^(n-1) .. 2^n - 1."""
    return int(np.abs(x).max(initial=0)).bit_length()


def narrow(x: np.ndarray, fraction: int, bits: int = 15) -> tuple[np.ndarray, int]:
    """A vector in `bits` bits and sign, by the power of two that its largest magnitude asks for.

    `x` has `fraction` fraction bits. Returns the numbers, each at most 2^bits - 1, and how many fraction bits they
    have. A vector of zeros keeps its fraction bits.
    """
    length = bit_length(x)
    if length == 0:
        return x, fraction
    shift = length - bits
    most = (1 << bits) - 1
    return np.clip(round_shift(x, shift), -most, most), fraction - shift


def exp2_negative(x: np.ndarray) -> np.ndarray:
    """2^(15 - x / 2^16), capped at 2^15 - 1, for x >= 0: from the table by linear interpolation, then rounded."""
    table = exp2_table().astype(np.int64)
    whole = np.minimum(x >> LOG_FRACTION, 40)
    part = x & ((1 << LOG_FRACTION) - 1)
    index, rest = part >> (LOG_FRACTION - EXP2_STEPS), part & ((1 << (LOG_FRACTION - EXP2_STEPS)) - 1)
    fine = table[index] - (((table[index] - table[index + 1]) * rest) >> (LOG_FRACTION - EXP2_STEPS))
    return np.minimum(round_shift(fine, EXP2_BITS - WEIGHT_BITS + whole), (1 << WEIGHT_BITS) - 1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """2^24 / (1 + exp(-x / 2^16)): from the table by linear interpolation."""
    table = sigmoid_table().astype(np.int64)
    drop = LOG_FRACTION - SIGMOID_STEPS
    size = np.minimum(np.abs(x), (SIGMOID_REACH << LOG_FRACTION) - 1)
    index, rest = size >> drop, size & ((1 << drop) - 1)
    positive = table[index] + (((table[index + 1] - table[index]) * rest) >> drop)
    return np.where(x < 0, (1 << 24) - positive, positive)


def sine_and_cosine(turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of angles in parts of 2^64 of a turn (uint64), times 2^30: from the table by linear interpolation."""
    return _wave(turn), _wave(turn + np.uint64(1 << 62))


def _wave(turn: np.ndarray) -> np.ndarray:
    table = sine_table().astype(np.int64)
    index = (turn >> np.uint64(64 - SINE_STEPS)).astype(np.int64)
    rest = ((turn >> np.uint64(64 - SINE_STEPS - 20)) & np.uint64((1 << 20) - 1)).astype(np.int64)
    return table[index] + (((table[index + 1] - table[index]) * rest) >> 20)


def divide(x: np.ndarray, by: int) -> np.ndarray:
    """x / by to the nearest whole number, halves upwards; by > 0."""
    return (2 * x + by) // (2 * by)
