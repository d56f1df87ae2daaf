"""Rounding, narrowing and functions by table, against arbitrary precision."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from assay.engines.exact.whole import (
    bit_length,
    divide,
    exp2_negative,
    narrow,
    round_shift,
    sigmoid,
    sine_and_cosine,
)

NUMBERS = st.integers(-(2**60), 2**60)
VECTORS = st.lists(NUMBERS, min_size=1, max_size=20)


def nearest(x: Fraction) -> int:
    """The nearest whole number, halves upwards."""
    return math.floor(x + Fraction(1, 2))


@given(NUMBERS, st.integers(-2, 61))
def test_round_shift(x: int, by: int) -> None:
    """Division by a power of two, to the nearest, halves upwards."""
    assert int(round_shift(np.int64(x), by)) == nearest(Fraction(x) / Fraction(2) ** by)


@given(NUMBERS, st.integers(1, 2**40))
def test_divide(x: int, by: int) -> None:
    """Division by any positive number, to the nearest, halves upwards."""
    assert int(divide(np.array([x]), by)[0]) == nearest(Fraction(x, by))


@given(VECTORS, st.integers(-20, 60), st.sampled_from([15, 24, 30]))
def test_narrow(values: list[int], fraction: int, bits: int) -> None:
    """The largest magnitude uses the bits, no number is over them, and each is within half a unit of what it was."""
    x = np.array(values, dtype=np.int64)
    narrowed, kept = narrow(x, fraction, bits)
    most = 2**bits - 1
    assert np.abs(narrowed).max() <= most
    if x.any():
        assert 2 * np.abs(narrowed).max() > most
    for before, after in zip(values, narrowed.tolist(), strict=True):
        error = abs(Fraction(before) / Fraction(2) ** fraction - Fraction(after) / Fraction(2) ** kept)
        # Half a unit; one where rounding up would have left the range.
        assert error <= Fraction(1, 2**kept if kept >= 0 else 1) * (1 if abs(after) == most else Fraction(1, 2)) * (
            1 if kept >= 0 else 2**-kept
        )


def test_bit_length() -> None:
    """That of the largest magnitude."""
    assert [bit_length(np.array(x)) for x in ([0], [1, -2], [-4, 3], [2**62])] == [0, 2, 3, 63]


@given(st.integers(0, 2**26))
def test_exp2(x: int) -> None:
    """Within one unit of 2^(15 - x / 2^16), falling, and at most 2^15 - 1."""
    value = int(exp2_negative(np.array([x]))[0])
    assert abs(value - min(2.0 ** (15 - x / 65536), 32767)) <= 0.51
    assert value >= int(exp2_negative(np.array([x + 1]))[0])


@given(st.integers(-(2**31) + 1, 2**31 - 1))
def test_sigmoid(x: int) -> None:
    """Within five units of 2^24 / (1 + exp(-x / 2^16)), and its two sides add up to one."""
    value = int(sigmoid(np.array([x]))[0])
    exact = 2.0**24 / (1 + math.exp(-x / 65536)) if x > -40 * 65536 else 0.0
    assert abs(value - exact) <= 5
    assert value + int(sigmoid(np.array([-x]))[0]) == 2**24


@given(st.integers(0, 2**64 - 1))
def test_sine_and_cosine(turn: int) -> None:
    """Within 2^-21 of the functions."""
    sine, cosine = (int(part[0]) / 2.0**30 for part in sine_and_cosine(np.array([turn], dtype=np.uint64)))
    angle = 2 * math.pi * (turn / 2.0**64)
    assert abs(sine - math.sin(angle)) < 2.0**-21
    assert abs(cosine - math.cos(angle)) < 2.0**-21
