"""Attention of one head, compiled, is that of the reference, for any window and any spread of fraction bits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.engines.exact import reference
from assay.engines.exact.kernels.attention import TOGETHER, attend
from assay.engines.exact.reference import Model

MOST = 640


def check(
    query: np.ndarray, fraction: int, keys: np.ndarray, key_fractions: np.ndarray, values: np.ndarray,
    value_fractions: np.ndarray, start: int, scale: int,
) -> None:  # fmt: skip
    """Compare both at the last position; keys and values int64 [positions, width]."""
    count, width = keys.shape
    model = cast("Model", SimpleNamespace(score_scale=scale))
    queries = [np.roll(query, h) for h in range(TOGETHER)]
    expected = [
        reference.attend(
            model, each, fraction,
            [(k, int(f)) for k, f in zip(keys[start:], key_fractions[start:], strict=True)],
            [(v, int(f)) for v, f in zip(values[start:], value_fractions[start:], strict=True)],
        )
        for each in queries
    ]  # fmt: skip
    room = -(-count // 16) * 16 + 128
    tiles = np.full((room // 16, width // 2, 16, 2), 77, np.int16)  # what is beyond the last position must not matter
    pairs = np.full((room // 2, width, 2), -77, np.int16)
    for p in range(count):
        tiles[p // 16, :, p % 16] = keys[p].reshape(-1, 2)
        pairs[p // 2, :, p % 2] = values[p]
    spare = np.full(room - count, -(2**20))
    fractions_of_keys = np.concatenate([key_fractions, spare]).astype(np.int32)
    fractions_of_values = np.concatenate([value_fractions, spare]).astype(np.int32)
    for heads in range(1, TOGETHER + 1):
        out, out_fractions = np.zeros((heads, width), np.int64), np.zeros(heads, np.int64)
        attend(
            np.stack(queries[:heads]).astype(np.int16), np.full(heads, fraction), tiles, fractions_of_keys, pairs,
            fractions_of_values, start, count - 1, scale, np.zeros((TOGETHER, room + 64), np.int64),
            np.zeros((TOGETHER, 2, room + width + 64), np.int16), np.zeros((TOGETHER, width), np.int64), out,
            out_fractions,
        )  # fmt: skip
        for h in range(heads):
            assert out_fractions[h] == expected[h][1]
            assert np.array_equal(out[h], expected[h][0])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 70) | st.sampled_from([255, 256, 257, 300, 513, MOST]),
    st.sampled_from([16, 32, 48, 64, 80, 128, 256, 512]),
    st.sampled_from([0, 1, 3, 80]),
    st.integers(-100, 100),
)
def test_random_heads(seed: int, count: int, width: int, spread: int, middle: int) -> None:
    """Any number of positions, any head width, any window."""
    dice = np.random.default_rng(seed)
    size = 15 - int(dice.integers(0, 8))
    query = dice.integers(-(1 << size) + 1, 1 << size, width)
    keys, values = dice.integers(-32767, 32768, (2, count, width))
    key_fractions, value_fractions = middle + dice.integers(-spread, spread + 1, (2, count))
    scale = int(dice.choice([1070144, 3026832, 6053664]))
    check(query, int(dice.integers(-20, 40)), keys, key_fractions, values, value_fractions,
          int(dice.integers(0, count)), scale)  # fmt: skip


@pytest.mark.parametrize("number", [32767, -32767, 32640, 32639, -128, 127, 0])
@pytest.mark.parametrize("count", [1, 2, 16, 17, 600])
def test_extreme_heads(number: int, count: int) -> None:
    """Queries, keys and values of one size throughout: sums of 32 bits hold them."""
    for other in (32767, -32767):
        for width in (16, 512):
            check(np.full(width, number), 15, np.full((count, width), other), np.full(count, 15),
                  np.full((count, width), other), np.full(count, 12), 0, 6053664)  # fmt: skip


def test_weights_that_vanish() -> None:
    """Positions far under the best one have no weight; values of far more fraction bits add nothing."""
    keys = np.zeros((20, 16), np.int64)
    keys[:, 0] = np.linspace(-32767, 32767, 20).astype(np.int64)
    values = np.full((20, 16), 32767)
    fractions = np.arange(20) * 5
    for fraction in (0, 10, 20, 40):
        check(np.full(16, 32767), fraction, keys, np.full(20, 10), values, fractions, 0, 6053664)
