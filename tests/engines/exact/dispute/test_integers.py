"""A referee's arithmetic in plain whole numbers is that of the semantics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import EncodingError
from assay.core.sampler import hashes_at, position_key
from assay.engines.exact import reference, sampling, whole
from assay.engines.exact.dispute import draws, integers

NUMBERS = st.integers(-(2**62) + 1, 2**62 - 1)
ACTIVATIONS = st.lists(st.integers(-(2**24), 2**24), min_size=2, max_size=32)


@given(NUMBERS, st.integers(-70, 100))
def test_round_shift(x: int, by: int) -> None:
    """Saturation and shifts beyond all bits included."""
    assert integers.round_shift(x, by) == int(whole.round_shift(np.int64(x), by))


@given(st.lists(NUMBERS, min_size=1, max_size=9), st.integers(-20, 60))
def test_narrow(x: list[int], fraction: int) -> None:
    """The numbers and their fraction bits."""
    mine, theirs = integers.narrow(x, fraction), whole.narrow(np.array(x), fraction)
    assert mine == (theirs[0].tolist(), theirs[1])


@given(ACTIVATIONS, st.integers(0, 30), st.integers(0, 2**24), st.data())
def test_normalise(x: list[int], fraction: int, epsilon: int, data: st.DataObject) -> None:
    """Of short vectors, zeros and no epsilon included."""
    weight = data.draw(st.lists(st.integers(-32767, 32767), min_size=len(x), max_size=len(x)))
    theirs = reference.normalise(np.array(x), fraction, reference.Gain(np.array(weight), 12), epsilon)
    assert integers.normalise(x, fraction, weight, 12, epsilon) == (theirs[0].tolist(), theirs[1])
    assert integers.normalise([0] * len(x), fraction, weight, 12, 0) == ([0] * len(x), 0)


@given(st.lists(st.integers(-(2**60), 2**60), min_size=4, max_size=4), st.integers(0, 2**64 - 1), st.booleans())
def test_turned(x: list[int], turn: int, halves: bool) -> None:
    """Both ways of pairing dimensions."""
    turns = [turn, turn * 7 % 2**64]
    narrowed, fraction = reference.narrow_down(np.array(x), 9, reference.HEAD_BITS)
    theirs = reference.turn_heads(narrowed, np.array(turns, dtype=np.uint64), halves=halves)
    assert integers.turned(x, 9, turns, halves=halves) == (theirs.tolist(), fraction)


@given(st.integers(0, 2**41), st.integers(-(2**31) + 1, 2**31 - 1), st.integers(1, 2**40), NUMBERS)
def test_functions(below: int, x: int, by: int, numerator: int) -> None:
    """exp2, the logistic function, both gates, and division."""
    assert integers.exp2_negative(below) == int(whole.exp2_negative(np.array([below]))[0])
    assert integers.sigmoid(x) == int(whole.sigmoid(np.array([x]))[0])
    for gate in ("silu", "gelu"):
        assert integers.activate(x, gate) == int(reference.activate(np.array([x]), gate)[0])
    assert integers.divide(numerator >> 2, by) == int(whole.divide(np.array([numerator >> 2]), by)[0])


def test_what_no_honest_side_states() -> None:
    """Sums that cannot be are refused, not computed with."""
    with pytest.raises(EncodingError):
        integers.divide(5, 0)
    for squares in (-1, 1 << 62):
        with pytest.raises(EncodingError):
            integers.inverse_root(squares, 4, 16, 0)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**50), st.integers(0, 2**22), st.integers(1, 2**38 - 1))
def test_draws(hashed: int, deficit: int, token: int, x: int) -> None:
    """Noise, weights, logarithms and hashes of the sampler."""
    assert draws.noise(hashed) == int(sampling.noise(np.array([hashed], dtype=np.uint64))[0])
    assert draws.weight(deficit) == int(sampling.weights(np.array([deficit]))[0])
    assert draws.log2(x) == int(sampling.log2(np.array([x]))[0])
    key = position_key(bytes(32), 5)
    assert draws.hash32(key, token) == int(hashes_at(bytes(32), 5, np.array([token]))[0])
