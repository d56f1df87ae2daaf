"""Attention of one head over the KV cache, with pairs of 16-bit numbers multiplied side by side.

A query (or a softmax weight) of 15 bits is taken apart into 256 * high + low, low from -128 to 127, so that sums of
products fit into 32 bits: 128 * 32767 * 512 < 2^31.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types

from assay.engines.exact.kernels.scalars import Whole, compiled, divide, exp2_negative, generated, shifted
from assay.engines.exact.reference import SCORE_LIMIT
from assay.engines.exact.whole import LOG_FRACTION

LANES: Final = 16
"""Positions in a tile of keys, and dimensions in a step over values."""
MOST_POSITIONS_IN_A_SUM: Final = 256
"""Positions whose values are summed before 32 bits could overflow: 128 * 32767 * 256 < 2^31."""
_SHORT, _WORD, _LONG = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_SHORTS, _WORDS, _LONGS = ir.VectorType(_SHORT, 32), ir.VectorType(_WORD, 16), ir.VectorType(_LONG, 16)
_TWO_A_LANE = ir.VectorType(_WORD, 32)


def _pairs_times(builder: ir.IRBuilder, total: ir.Value, left: ir.Value, right: ir.Value) -> ir.Value:
    """total + left[2i] * right[2i] + left[2i+1] * right[2i+1]: one instruction of x86 (vpdpwssd), or two."""
    product = builder.mul(builder.sext(left, _TWO_A_LANE), builder.sext(right, _TWO_A_LANE))
    undefined = ir.Constant(_TWO_A_LANE, ir.Undefined)
    even, odd = (
        builder.shuffle_vector(product, undefined, ir.Constant(_WORDS, [2 * i + first for i in range(LANES)]))
        for first in (0, 1)
    )
    return builder.add(total, builder.add(even, odd))


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: Whole) -> ir.Value:
    loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
    loaded.align = align
    return loaded


def _both_halves(
    builder: ir.IRBuilder,
    count: ir.Value,
    vectors: Sequence[ir.Value],
    step: ir.Value,
    pairs: tuple[ir.Value, ir.Value],
    out: ir.Value,
    *,
    add: bool,
) -> None:
    """For each address v of `vectors`, into consecutive places of `out`, int64 [16] each: the sum over i < count of
    v[i] (int16 [16, 2], `step` bytes apart) times the pair 256 * high[i] + low[i].

    Several at once, because each waits for its own last sum.
    """
    four, one = ir.Constant(_LONG, 4), ir.Constant(_LONG, 1)
    before = builder.block
    loop = builder.append_basic_block("pairs")
    after = builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(_LONG)
    totals = [(builder.phi(_WORDS), builder.phi(_WORDS)) for _ in vectors]
    both: list[ir.Value] = []
    for address in pairs:
        pair = _load(builder, builder.add(address, builder.mul(index, four)), _WORD, 2)
        lane = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), pair, ir.Constant(_WORD, 0))
        lanes = builder.shuffle_vector(lane, lane, ir.Constant(_WORDS, [0] * LANES))
        both.append(builder.bitcast(lanes, _SHORTS))
    sums: list[tuple[ir.Value, ir.Value]] = []
    for address, (high, low) in zip(vectors, totals, strict=True):
        vector = _load(builder, builder.add(address, builder.mul(index, step)), _SHORTS, 2)
        sums.append((_pairs_times(builder, high, vector, both[0]), _pairs_times(builder, low, vector, both[1])))
    following = builder.add(index, one)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    index.add_incoming(ir.Constant(_LONG, 0), before)
    index.add_incoming(following, loop)
    for phis, values in zip(totals, sums, strict=True):
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(ir.Constant(_WORDS, [0] * LANES), before)
            phi.add_incoming(value, loop)
    builder.position_at_end(after)
    eight = ir.Constant(_LONGS, [8] * LANES)
    for number, (high, low) in enumerate(sums):
        total = builder.add(builder.shl(builder.sext(high, _LONGS), eight), builder.sext(low, _LONGS))
        target = builder.inttoptr(builder.add(out, ir.Constant(_LONG, 8 * LANES * number)), _LONGS.as_pointer())
        if add:
            earlier = builder.load(target)
            earlier.align = 8
            total = builder.add(earlier, total)
        builder.store(total, target).align = 8


def _sums(unroll: Whole, *, add: bool) -> Callable[..., Whole]:
    """An intrinsic over `unroll` vectors at once, `apart` bytes from one to the next."""

    @generated
    def intrinsic_sums(
        _typing: Any,
        data: Any,
        apart: Any,
        step: Any,
        count: Any,
        highs: Any,
        lows: Any,
        out: Any,
    ) -> tuple[Any, Callable[..., ir.Value]]:
        def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
            first, between, stride, pairs, high, low, target = arguments
            vectors = [builder.add(first, builder.mul(between, ir.Constant(_LONG, u))) for u in range(unroll)]
            _both_halves(builder, pairs, vectors, stride, (high, low), target, add=add)
            return ir.Constant(_LONG, 0)

        return types.int64(*[types.int64] * 7), codegen

    return intrinsic_sums


_score_one, _score_four = _sums(1, add=False), _sums(4, add=False)
_mix_one, _mix_four = _sums(1, add=True), _sums(4, add=True)


@compiled
def _exponents(scores: np.ndarray, key_fractions: np.ndarray, by: Whole, score_scale: Whole) -> Whole:
    """Sums of products into scores, in place; the largest."""
    least, most = np.int32(2**31 - 1), np.int32(-(2**31))
    for i in range(scores.size):
        least, most = min(least, key_fractions[i]), max(most, key_fractions[i])
    peak = np.int64(-SCORE_LIMIT)
    if by + least > 0 and by + most <= 62:  # always, but for absurd models
        for i in range(scores.size):
            shift = by + key_fractions[i]
            score = (scores[i] * score_scale + ((np.int64(1) << shift) >> 1)) >> shift
            score = min(max(score, -SCORE_LIMIT), SCORE_LIMIT)
            scores[i] = score
            peak = max(peak, score)
    else:
        for i in range(scores.size):
            score = shifted(scores[i] * score_scale, by + key_fractions[i])
            score = min(max(score, -SCORE_LIMIT), SCORE_LIMIT)
            scores[i] = score
            peak = max(peak, score)
    return peak


@compiled
def _weigh(
    scores: np.ndarray, peak: Whole, value_fractions: np.ndarray, lowest: Whole, highs: np.ndarray, lows: np.ndarray
) -> Whole:
    """Softmax weights, shifted to the lowest of the values' fraction bits, in halves; the sum of the unshifted."""
    weights = np.int64(0)
    for i in range(scores.size):
        weight = exp2_negative(peak - scores[i])
        weights += weight
        by = min(np.int64(value_fractions[i]) - lowest, 62)
        weight = (weight + ((np.int64(1) << by) >> 1)) >> by
        high = (weight + 128) >> 8
        highs[i] = high
        lows[i] = weight - (high << 8)
    return weights


@compiled
def attend(
    query: np.ndarray,
    fraction: Whole,
    keys: np.ndarray,
    key_fractions: np.ndarray,
    values: np.ndarray,
    value_fractions: np.ndarray,
    start: Whole,
    position: Whole,
    score_scale: Whole,
    scores: np.ndarray,
    halves: np.ndarray,
    total: np.ndarray,
    out: np.ndarray,
) -> Whole:
    """`reference.attend` of one head at `position`, over positions from `start`; the fraction bits of `out`.

    `query` int16 [width]; `keys` int16 [tiles, width / 2, 16, 2] and `values` int16 [pairs, width, 2] of its KV head;
    fractions int32 [positions]. Scratch: `scores` int64 [positions + 16], `halves` int16 [2, positions + width + 2],
    `total` int64 [width rounded up to 16]. `out` int64 [width].
    """
    width = query.size
    for i in range(width):
        above = (np.int64(query[i]) + 128) >> 8
        halves[0, i] = above
        halves[1, i] = query[i] - (above << 8)
    high, low = halves[0].ctypes.data, halves[1].ctypes.data
    first, last = start // LANES, position // LANES
    tile, size = first, width * LANES * 2
    while tile <= last:
        data, to = keys[tile].ctypes.data, scores[(tile - first) * LANES :].ctypes.data
        if tile + 3 <= last:
            _score_four(data, size, 64, width // 2, high, low, to)
            tile += 4
        else:
            _score_one(data, size, 64, width // 2, high, low, to)
            tile += 1
    skip = start - first * LANES
    fractions = value_fractions[start : position + 1]
    least = fractions[0]
    for i in range(fractions.size):
        least = min(least, fractions[i])
    lowest = np.int64(least)
    seen = scores[skip : skip + fractions.size]
    peak = _exponents(seen, key_fractions[start : position + 1], fraction + 24 - LOG_FRACTION, score_scale)
    pair = start // 2
    before = start - 2 * pair  # the first pair may hold a position that is out of sight: its weight is 0
    halves[0, 0] = halves[1, 0] = 0
    end = before + fractions.size
    weights = _weigh(seen, peak, fractions, lowest, halves[0, before:end], halves[1, before:end])
    halves[0, end] = halves[1, end] = 0
    for i in range(total.size):
        total[i] = 0
    pairs = (end + 1) // 2
    for group in range(0, pairs, MOST_POSITIONS_IN_A_SUM // 2):
        lane = 0
        while lane < width:
            data, to = values[pair + group, lane:].ctypes.data, total[lane:].ctypes.data
            count = min(pairs - group, MOST_POSITIONS_IN_A_SUM // 2)
            if lane + 4 * LANES <= width:
                _mix_four(data, 64, width * 4, count, high + 4 * group, low + 4 * group, to)
                lane += 4 * LANES
            else:
                _mix_one(data, 64, width * 4, count, high + 4 * group, low + 4 * group, to)
                lane += LANES
    for i in range(width):
        total[i] <<= 8
    divide(total, weights, out)
    return lowest + 8
