"""Compiled functions of single numbers are those of `whole.py`, and Python's own."""

from __future__ import annotations

from math import isqrt

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay.engines.exact import whole
from assay.engines.exact.kernels import scalars
from assay.engines.exact.reference import into_32_bits

SOME = settings(deadline=None, max_examples=200)
EDGES = st.integers(0, 62).flatmap(lambda bits: st.integers((1 << bits) - 2, (1 << bits) + 1))
NUMBERS = (st.integers(-whole.SATURATED, whole.SATURATED) | EDGES | EDGES.map(lambda x: -x)).filter(
    lambda x: abs(x) <= whole.SATURATED
)
"""Everything that the semantics knows."""


@SOME
@given(NUMBERS, st.integers(-70, 70) | st.integers(-(2**20), 2**20))
def test_shifted(x: int, by: int) -> None:
    """Rounding to the right, saturation to the left, nothing left beyond 62 bits."""
    assert scalars.shifted(np.int64(x), by) == int(whole.round_shift(np.int64(x), by))


@SOME
@given(NUMBERS)
def test_saturated_and_length(x: int) -> None:
    """32 bits hold the one; the other is Python's count of bits."""
    assert scalars.saturated(np.int64(x)) == int(into_32_bits(np.array([x]))[0])
    assert scalars.length_of(np.int64(abs(x))) == abs(x).bit_length()


@SOME
@given(st.integers(1, 1 << 62) | EDGES.filter(lambda x: 0 < x <= 1 << 62))
@example(1 << 62)
@example((1 << 62) - 1)
def test_root(x: int) -> None:
    """The whole part of the square root."""
    assert scalars.root(np.int64(x)) == isqrt(x)


@SOME
@given(st.integers(0, 2**22) | st.integers(0, 2**41))
@example(0)
@example(2**41)
def test_exp2_negative(x: int) -> None:
    """The table's powers of two."""
    assert scalars.exp2_negative(np.int64(x)) == int(whole.exp2_negative(np.array([x]))[0])


@SOME
@given(st.integers(-(2**20) - 5, 2**20 + 5) | st.integers(-(2**40), 2**40))
def test_sigmoid(x: int) -> None:
    """The table's logistic function, flat beyond 16."""
    assert scalars.sigmoid(np.int64(x)) == int(whole.sigmoid(np.array([x]))[0])


@SOME
@given(st.integers(0, 2**64 - 1))
@example(2**64 - 1)
@example(2**62)
def test_sine(turn: int) -> None:
    """The table's sine."""
    assert scalars.sine(np.uint64(turn)) == int(whole.sine_and_cosine(np.array([turn], np.uint64))[0][0])


@SOME
@given(
    st.integers(8, 60).flatmap(lambda bits: st.lists(st.integers(-(2**bits), 2**bits), min_size=1, max_size=20)),
    st.integers(1, 2**40),
)
@example([2**50, 2**51 - 1, -(2**51)], 1)
@example([(2 * n + 1) * 12345 for n in range(-9, 9)], 2 * 12345)
def test_divide(values: list[int], by: int) -> None:
    """To the nearest, halves upwards: by way of float64 where it fits, and beyond."""
    x, out = np.array(values, np.int64), np.zeros(len(values), np.int64)
    scalars.divide(x, np.int64(by), out)
    assert out.tolist() == whole.divide(x, by).tolist()


@SOME
@given(st.lists(NUMBERS, min_size=1, max_size=40), st.integers(-500, 500))
@example([0, 0], 7)
@example([32767, -32768], 7)
@example([whole.SATURATED, -whole.SATURATED], 0)
def test_narrowed(values: list[int], fraction: int) -> None:
    """Activations and their fraction bits; the largest magnitude is found."""
    x, out = np.array(values, np.int64), np.zeros(len(values), np.int16)
    expected, kept = whole.narrow(x, fraction)
    assert scalars.largest(x) == np.abs(x).max()
    assert scalars.narrowed(x, fraction, out) == kept
    assert np.array_equal(out, expected)
