"""What happens between products, compiled, is what the reference does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.engines.exact import reference, whole
from assay.engines.exact.kernels import vectors
from assay.engines.exact.reference import HEAD_BITS, RESIDUAL, STREAM_LIMIT, Gain, Model

SOME = settings(deadline=None, max_examples=150)
SEEDS = st.integers(0, 2**32)
FRACTIONS = st.integers(-60, 120) | st.integers(-(2**16), 2**16)
EPSILONS = st.sampled_from([0, 1, 42950, 2**31])
NO_GAIN, NO_BIAS, NO_WAVE = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64)


def numbers(dice: np.random.Generator, n: int, bits: int = 62) -> np.ndarray:
    """int64 [n]: numbers of about one size up to `bits` bits, with larger, smaller and extreme ones between them."""
    most = (1 << bits) - 1
    x = dice.integers(-most, most + 1, n) >> dice.integers(0, bits + 1)
    where = dice.random(n) < dice.choice([0, 0.1, 0.9])
    x[where] = dice.choice([0, 1, -1, most, -most, most >> 1, (1 << (bits - 8)) - 1], int(where.sum()))
    return x


def gain_of(dice: np.random.Generator, n: int) -> Gain:
    """Weights of any sign and size, seldom all of the largest one."""
    weight = dice.integers(-32767, 32768, n) >> dice.integers(0, 16)
    if dice.random() < 0.2:
        weight[:] = dice.choice([0, 32767, -32767])
    return Gain(weight, int(dice.integers(-80, 210)))


def wave(dice: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns, and sines and cosines of them."""
    turn = dice.integers(0, 2**64, n, np.uint64)
    turn[dice.random(n) < 0.3] = dice.choice(np.array([0, 2**62, 2**63, 2**64 - 1], np.uint64))
    return turn, *whole.sine_and_cosine(turn)


@SOME
@given(SEEDS, st.sampled_from([1, 16, 64, 2048]), FRACTIONS, EPSILONS)
def test_normalised(seed: int, n: int, fraction: int, epsilon: int) -> None:
    """The RMS norm, whatever the numbers, their fraction bits and epsilon."""
    dice = np.random.default_rng(seed)
    x, gain = numbers(dice, n), gain_of(dice, n)
    out = np.zeros(n, np.int16)
    expected, kept = reference.normalise(x.copy(), fraction, gain, epsilon)
    found = vectors.normalised(x, fraction, gain.weight.astype(np.int32), gain.fraction, epsilon,
                               np.zeros(n, np.int64), out)  # fmt: skip
    assert found == kept
    assert np.array_equal(out, expected)


def test_the_widest_normalisation() -> None:
    """8,192 numbers that all round up, beside the largest epsilon, fit into 62 bits."""
    n = 1 << 13
    for fraction in (16, 24, 62):
        x, gain = np.full(n, whole.SATURATED), Gain(np.full(n, 32767), 20)
        out = np.zeros(n, np.int16)
        expected, kept = reference.normalise(x, fraction, gain, 2**31)
        assert (
            vectors.normalised(x, fraction, gain.weight.astype(np.int32), 20, 2**31, np.zeros(n, np.int64), out) == kept
        )
        assert np.array_equal(out, expected)


@SOME
@given(SEEDS, st.sampled_from([16, 64, 512]), st.booleans())
def test_turned(seed: int, width: int, halves: bool) -> None:
    """Pairs of numbers of 30 bits, turned."""
    dice = np.random.default_rng(seed)
    x, _ = reference.narrow_down(numbers(dice, width), 0, HEAD_BITS)
    turn, sines, cosines = wave(dice, width // 2)
    expected = reference.turn_heads(x, turn, halves=halves)
    vectors.turned(x, sines, cosines, int(halves))
    assert np.array_equal(x, expected)


@SOME
@given(SEEDS, st.integers(0, 2**24))
def test_angles(seed: int, position: int) -> None:
    """Turns at a position, modulo the whole turn."""
    turns, sines, cosines = wave(np.random.default_rng(seed), 8)
    vectors.angles(position, turns, sines, cosines)
    expected = whole.sine_and_cosine(np.uint64(position) * turns)
    assert np.array_equal([sines, cosines], expected)


@SOME
@given(SEEDS, st.sampled_from([16, 128]), FRACTIONS, EPSILONS, st.integers(0, 15))
def test_head(seed: int, width: int, fraction: int, epsilon: int, parts: int) -> None:
    """A head of queries, keys or values with any of bias, gain and turn."""
    dice = np.random.default_rng(seed)
    y = numbers(dice, width)
    bias = numbers(dice, width, 31) if parts & 1 else None
    gain = gain_of(dice, width) if parts & 2 else None
    turn, sines, cosines = wave(dice, width // 2)
    x, f = y.copy(), fraction
    if bias is not None:
        x = np.clip(x + whole.round_shift(bias, RESIDUAL - f), -whole.SATURATED, whole.SATURATED)
    if gain is not None:
        x, f = reference.normalise(x, f, gain, epsilon)
    if parts & 4:
        x, f = reference.narrow_down(x, f, HEAD_BITS)
        x = reference.turn_heads(x, turn, halves=bool(parts & 8))
    expected, f = whole.narrow(x, f)
    out = np.zeros(width, np.int16)
    found = vectors.head(
        y, fraction, NO_BIAS if bias is None else bias, NO_GAIN if gain is None else gain.weight.astype(np.int32),
        0 if gain is None else gain.fraction, epsilon, sines if parts & 4 else NO_WAVE, cosines, int(bool(parts & 8)),
        np.zeros((2, width), np.int64), out,
    )  # fmt: skip
    assert found == f
    assert np.array_equal(out, expected)


@SOME
@given(SEEDS, st.integers(1, 9), st.integers(0, 90))
def test_joined(seed: int, heads: int, spread: int) -> None:
    """Heads of any fraction bits, side by side."""
    dice = np.random.default_rng(seed)
    parts = np.array([numbers(dice, 16, 23) for _ in range(heads)])
    fractions = dice.integers(-40, -40 + spread + 1, heads)
    expected, kept = reference.join(list(parts), [int(f) for f in fractions])
    out = np.zeros(parts.size, np.int16)
    assert vectors.joined(parts, fractions, np.zeros(parts.size, np.int64), out) == kept
    assert np.array_equal(out, expected)


@SOME
@given(SEEDS, FRACTIONS, FRACTIONS, st.booleans())
def test_gated(seed: int, fraction: int, other: int, gelu: bool) -> None:
    """The gate's function of one product, times the other."""
    dice = np.random.default_rng(seed)
    gate, up = numbers(dice, 32), numbers(dice, 32)
    g = reference.into_32_bits(whole.round_shift(gate, fraction - whole.LOG_FRACTION))
    u = reference.into_32_bits(whole.round_shift(up, other - whole.LOG_FRACTION))
    wide = whole.round_shift(reference.activate(g, "gelu" if gelu else "silu") * u, whole.LOG_FRACTION)
    expected, kept = whole.narrow(wide, whole.LOG_FRACTION)
    out = np.zeros(32, np.int16)
    assert vectors.gated(gate, fraction, up, other, int(gelu), np.zeros(32, np.int64), out) == kept
    assert np.array_equal(out, expected)


@SOME
@given(SEEDS, FRACTIONS, EPSILONS, st.booleans())
def test_added(seed: int, fraction: int, epsilon: int, normed: bool) -> None:
    """Onto the residual stream, normalised before or not, capped at 48 bits."""
    dice = np.random.default_rng(seed)
    stream, y = np.clip(numbers(dice, 64, 48), -STREAM_LIMIT, STREAM_LIMIT), numbers(dice, 64)
    after = gain_of(dice, 64) if normed else None
    model = cast("Model", SimpleNamespace(epsilon=epsilon))
    expected = reference.add(model, stream, y.copy(), fraction, after)
    vectors.added(stream, y, fraction, NO_GAIN if after is None else after.weight.astype(np.int32),
                  0 if after is None else after.fraction, epsilon, np.zeros((2, 64), np.int64))  # fmt: skip
    assert np.array_equal(stream, expected)


@SOME
@given(SEEDS, FRACTIONS)
def test_logits(seed: int, shift: int) -> None:
    """Rounded and saturated to 32 bits."""
    y, out = numbers(np.random.default_rng(seed), 40), np.zeros(40, np.int32)
    vectors.logits_of(y, shift, out)
    assert np.array_equal(out, reference.into_32_bits(whole.round_shift(y, shift)))
