"""Attention of heads that share keys and values, over the KV cache; pairs of 16-bit numbers are multiplied at once.

A query (or a softmax weight) of 15 bits is taken apart into 256 * high + low, low from -128 to 127, so that sums of
products fit into 32 bits: 128 * 32767 * 512 < 2^31.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types

from assay.engines.exact.kernels.emit import add_pairs, compiled_for, declared, generated
from assay.engines.exact.kernels.scalars import Whole, compiled, divide, exp2_negative, shifted
from assay.engines.exact.reference import SCORE_LIMIT
from assay.engines.exact.tables import EXP2_BITS, EXP2_STEPS, exp2_table
from assay.engines.exact.whole import LOG_FRACTION, WEIGHT_BITS

LANES: Final = 16
"""Positions in a tile of keys, and dimensions in a step over values."""
STEP: Final = 32
"""Positions that are weighed at a time: what is left over would cost as much again one by one."""
FUSED: Final = compiled_for("avx512f", "avx512bw")
_TABLES: Final = np.concatenate([exp2_table()[:-1], -np.diff(exp2_table())])
"""int32: the entries of `exp2_table`, then how much each is above the next one."""
_DROP: Final = LOG_FRACTION - EXP2_STEPS
_VANISHED: Final = WEIGHT_BITS + 2
"""The exponent from which on a weight is 0: 2^15 times 2^-17 is rounded to that."""
_NO_SCORE: Final = -(1 << 61)
"""Of which the weight is 0 beside every score."""
MOST_POSITIONS_IN_A_SUM: Final = 256
"""Positions whose values are summed before 32 bits could overflow: 128 * 32767 * 256 < 2^31."""
_SHORT, _WORD, _LONG = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_SHORTS, _WORDS, _LONGS = ir.VectorType(_SHORT, 32), ir.VectorType(_WORD, 16), ir.VectorType(_LONG, 16)
_EIGHT = ir.Constant(_LONGS, [8] * LANES)


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: Whole) -> ir.Value:
    loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
    loaded.align = align
    return loaded


def _words(value: int) -> ir.Constant:
    return ir.Constant(_WORDS, [value] * LANES)


def _splat(builder: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(first, first, _words(0))


def _sums(unroll: int, queries: int, *, add: bool) -> Callable[..., Whole]:
    """An intrinsic: for each query q and each u < `unroll`, to int64 [16] at out + q * out_step + 128 u, the sum over
    i < count of v[u, i] (int16 [16, 2] at data + u * apart + i * step) times the pair 256 * high[q, i] + low[q, i].

    `halves`: the address of int16 [2]'s for each i; those of the next half or query begin `halves_step` bytes behind.
    With `add`, sums are added to what is there. Several at once, because each waits for its own last sum.
    """

    @generated
    def sums(
        _typing: Any, data: Any, apart: Any, step: Any, count: Any, halves: Any, halves_step: Any, out: Any,
        out_step: Any,
    ) -> tuple[Any, Callable[..., ir.Value]]:  # fmt: skip
        def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
            first, between, stride, pairs, left, left_step, target, target_step = arguments
            times = [ir.Constant(_LONG, n) for n in range(max(unroll, 2 * queries))]
            vectors = [builder.add(first, builder.mul(between, times[u])) for u in range(unroll)]
            factors = [builder.add(left, builder.mul(left_step, times[half])) for half in range(2 * queries)]
            totals = _loop(builder, pairs, vectors, stride, factors)
            for q in range(queries):
                at = builder.add(target, builder.mul(target_step, times[q]))
                for u in range(unroll):
                    high, low = totals[2 * q][u], totals[2 * q + 1][u]
                    total = builder.add(builder.shl(builder.sext(high, _LONGS), _EIGHT), builder.sext(low, _LONGS))
                    place = builder.add(at, ir.Constant(_LONG, 8 * LANES * u))
                    pointer = builder.inttoptr(place, _LONGS.as_pointer())
                    if add:
                        total = builder.add(_load(builder, place, _LONGS, 8), total)
                    builder.store(total, pointer).align = 8
            return ir.Constant(_LONG, 0)

        return types.int64(*[types.int64] * 8), codegen

    return sums


def _loop(
    builder: ir.IRBuilder, count: ir.Value, vectors: Sequence[ir.Value], step: ir.Value, factors: Sequence[ir.Value]
) -> list[list[ir.Value]]:
    """For each factor and vector, the sums of `_sums`: int32 [16]."""
    before = builder.block
    loop, after = builder.append_basic_block("pairs"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(_LONG)
    totals = [[builder.phi(_WORDS) for _ in vectors] for _ in factors]
    loaded = [_load(builder, builder.add(vector, builder.mul(index, step)), _SHORTS, 2) for vector in vectors]
    sums: list[list[ir.Value]] = []
    for row, factor in zip(totals, factors, strict=True):
        pair = _load(builder, builder.add(factor, builder.mul(index, ir.Constant(_LONG, 4))), _WORD, 2)
        both = builder.bitcast(_splat(builder, pair, _WORDS), _SHORTS)
        sums.append([add_pairs(builder, total, vector, both) for total, vector in zip(row, loaded, strict=True)])
    following = builder.add(index, ir.Constant(_LONG, 1))
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    index.add_incoming(ir.Constant(_LONG, 0), before)
    index.add_incoming(following, loop)
    for phis, values in zip(totals, sums, strict=True):
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(_words(0), before)
            phi.add_incoming(value, loop)
    builder.position_at_end(after)
    return sums


TILES: Final = 4
"""Tiles of keys that are scored at once; those behind the last one are read, and what comes of them is not used."""
TOGETHER: Final = 3
"""Heads of queries for which keys and values are read once: with more, sums would not fit into registers."""
_score_1, _score_2, _score_3 = _sums(4, 1, add=False), _sums(4, 2, add=False), _sums(4, 3, add=False)
_mix_11, _mix_21, _mix_31 = _sums(1, 1, add=True), _sums(1, 2, add=True), _sums(1, 3, add=True)
_mix_14, _mix_24, _mix_34 = _sums(4, 1, add=True), _sums(4, 2, add=True), _sums(4, 3, add=True)


@compiled
def _score(
    heads: Whole, data: Whole, apart: Whole, step: Whole, count: Whole, left: Whole, left_step: Whole, out: Whole,
    out_step: Whole,
) -> None:  # fmt: skip
    if heads == 3:
        _score_3(data, apart, step, count, left, left_step, out, out_step)
    elif heads == 2:
        _score_2(data, apart, step, count, left, left_step, out, out_step)
    else:
        _score_1(data, apart, step, count, left, left_step, out, out_step)


@compiled
def _mix(
    heads: Whole, four: bool, data: Whole, apart: Whole, step: Whole, count: Whole, left: Whole, left_step: Whole,
    out: Whole, out_step: Whole,
) -> None:  # fmt: skip
    if heads == 3:
        if four:
            _mix_34(data, apart, step, count, left, left_step, out, out_step)
        else:
            _mix_31(data, apart, step, count, left, left_step, out, out_step)
    elif heads == 2:
        if four:
            _mix_24(data, apart, step, count, left, left_step, out, out_step)
        else:
            _mix_21(data, apart, step, count, left, left_step, out, out_step)
    elif four:
        _mix_14(data, apart, step, count, left, left_step, out, out_step)
    else:
        _mix_11(data, apart, step, count, left, left_step, out, out_step)


@compiled
def _exponents(scores: np.ndarray, key_fractions: np.ndarray, by: Whole, score_scale: Whole) -> Whole:
    """Sums of products into scores, in place; the largest. Both arrays go on for STEP; scores there have no weight."""
    count = scores.size
    least, most = np.int32(2**31 - 1), np.int32(-(2**31))
    for i in range(count):
        least, most = min(least, key_fractions[i]), max(most, key_fractions[i])
    peak = np.int64(-SCORE_LIMIT)
    end = (count + STEP - 1) // STEP * STEP
    if by + least > 0 and by + most <= 62:  # always, but for absurd models
        for i in range(end):
            shift = by + key_fractions[i] & 63
            score = (scores[i] * score_scale + ((np.int64(1) << shift) >> 1)) >> shift
            score = min(max(score, -SCORE_LIMIT), SCORE_LIMIT) if i < count else np.int64(_NO_SCORE)
            scores[i] = score
            peak = max(peak, score)
    else:
        for i in range(count):
            score = shifted(scores[i] * score_scale, by + key_fractions[i])
            score = min(max(score, -SCORE_LIMIT), SCORE_LIMIT)
            scores[i] = score
            peak = max(peak, score)
        for i in range(count, end):
            scores[i] = _NO_SCORE
    return peak


def _clipped(builder: ir.IRBuilder, x: ir.Value, kind: ir.VectorType, least: int | None, most: int) -> ir.Value:
    for name, limit in (("smax", least), ("smin", most)):
        if limit is not None:
            function = declared(builder, f"llvm.{name}.v{LANES}i{kind.element.width}", kind, [kind, kind])
            x = builder.call(function, [x, ir.Constant(kind, [limit] * LANES)])
    return x


def _entries(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    """int32 of a table at sixteen places."""
    mask, pointer = ir.VectorType(ir.IntType(1), LANES), ir.PointerType()
    kinds = [_WORDS, pointer, _WORDS, mask, _WORD]
    gather = declared(builder, "llvm.x86.avx512.mask.gather.dpi.512", _WORDS, kinds)
    every = ir.Constant(mask, [1] * LANES)
    return builder.call(gather, [_words(0), builder.inttoptr(table, pointer), index, every, ir.Constant(_WORD, 4)])


def _weights(builder: ir.IRBuilder, tables: ir.Value, distance: ir.Value) -> ir.Value:
    """`whole.exp2_negative` of int64 [16], as int32 [16]."""
    x = builder.trunc(_clipped(builder, distance, _LONGS, None, _VANISHED << LOG_FRACTION), _WORDS)
    whole = builder.ashr(x, _words(LOG_FRACTION))
    index = builder.and_(builder.ashr(x, _words(_DROP)), _words((1 << EXP2_STEPS) - 1))
    rest = builder.and_(x, _words((1 << _DROP) - 1))
    differences = builder.add(tables, ir.Constant(_LONG, 4 << EXP2_STEPS))
    below = builder.ashr(builder.mul(_entries(builder, differences, index), rest), _words(_DROP))
    fine = builder.sub(_entries(builder, tables, index), below)
    half = builder.shl(_words(1 << EXP2_BITS - WEIGHT_BITS - 1), whole)
    shift = builder.and_(builder.add(whole, _words(EXP2_BITS - WEIGHT_BITS)), _words(31))
    weight = _clipped(builder, builder.lshr(builder.add(fine, half), shift), _WORDS, None, (1 << WEIGHT_BITS) - 1)
    return builder.select(builder.icmp_signed("<", whole, _words(_VANISHED)), weight, _words(0))


@generated
def _weigh_fused(
    _typing: Any, _tables: Any, _scores: Any, _peak: Any, _fractions: Any, _lowest: Any, _highs: Any, _lows: Any
) -> tuple[Any, Callable[..., ir.Value]]:
    """`_weigh` for STEP positions at these addresses, in numbers of 32 bits; the sum of their weights."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        tables, scores, peak, fractions, lowest, highs, lows = arguments
        shorts = ir.VectorType(_SHORT, LANES)
        total: ir.Value = _words(0)
        for first in range(0, STEP, LANES):

            def at(address: ir.Value, size: int, first: int = first) -> ir.Value:
                return builder.add(address, ir.Constant(_LONG, first * size))

            distance = builder.sub(_splat(builder, peak, _LONGS), _load(builder, at(scores, 8), _LONGS, 8))
            weight = _weights(builder, tables, distance)
            total = builder.add(total, weight)
            low = _splat(builder, builder.trunc(lowest, _WORD), _WORDS)
            by = builder.sub(_load(builder, at(fractions, 4), _WORDS, 4), low)
            by = _clipped(builder, by, _WORDS, 0, WEIGHT_BITS + 1)
            half = builder.lshr(builder.shl(_words(1), by), _words(1))
            weight = builder.lshr(builder.add(weight, half), by)
            high = builder.ashr(builder.add(weight, _words(128)), _words(8))
            low = builder.sub(weight, builder.shl(high, _words(8)))
            for value, place in ((high, highs), (low, lows)):
                pointer = builder.inttoptr(at(place, 2), shorts.as_pointer())
                builder.store(builder.trunc(value, shorts), pointer).align = 2
        add = declared(builder, "llvm.vector.reduce.add.v16i32", _WORD, [_WORDS])
        return builder.zext(builder.call(add, [total]), _LONG)

    return types.int64(*[types.int64] * 7), codegen


@compiled
def _weigh(
    scores: np.ndarray, peak: Whole, value_fractions: np.ndarray, lowest: Whole, highs: np.ndarray, lows: np.ndarray
) -> Whole:
    """Softmax weights, shifted to the lowest of the values' fraction bits, in halves; the sum of the unshifted.

    All arrays go on for STEP, with scores whose weights are 0.
    """
    weights = np.int64(0)
    if FUSED:
        tables = _TABLES.ctypes.data
        for i in range(0, scores.size, STEP):
            weights += _weigh_fused(
                tables, scores[i:].ctypes.data, peak, value_fractions[i:].ctypes.data, lowest, highs[i:].ctypes.data,
                lows[i:].ctypes.data,
            )  # fmt: skip
        return weights
    for i in range((scores.size + STEP - 1) // STEP * STEP):
        weight = exp2_negative(peak - scores[i])
        weights += weight
        by = min(max(np.int64(value_fractions[i]) - lowest, 0), 62)
        weight = (weight + ((np.int64(1) << by) >> 1)) >> by
        high = (weight + 128) >> 8
        highs[i] = high
        lows[i] = weight - (high << 8)
    return weights


@compiled
def attend(
    queries: np.ndarray,
    fractions: np.ndarray,
    keys: np.ndarray,
    key_fractions: np.ndarray,
    values: np.ndarray,
    value_fractions: np.ndarray,
    start: Whole,
    position: Whole,
    score_scale: Whole,
    scores: np.ndarray,
    halves: np.ndarray,
    totals: np.ndarray,
    out: np.ndarray,
    out_fractions: np.ndarray,
) -> None:
    """`reference.attend` of up to TOGETHER heads of one KV head at `position`, over positions from `start`.

    `queries` int16 [heads, width], `fractions` int64 [heads]; `keys` int16 [tiles + TILES, width / 2, 16, 2] and
    `values` int16 [pairs, width, 2] of the KV head, their fractions int32 [positions + STEP]. Scratch: `scores` int64
    [TOGETHER, positions + 64], `halves` int16 [TOGETHER, 2, positions + width + 64], `totals` int64 [TOGETHER, width
    rounded up to 16]. Results are `out` int64 [heads, width] and `out_fractions` int64 [heads].
    """
    heads, width = queries.shape
    for q in range(heads):
        for i in range(width):
            above = (np.int64(queries[q, i]) + 128) >> 8
            halves[q, 0, i] = above
            halves[q, 1, i] = queries[q, i] - (above << 8)
    left, left_step = halves.ctypes.data, halves.strides[1]
    first, last = start // LANES, position // LANES
    size = width * LANES * 2
    for tile in range(first, last + 1, TILES):
        data, to = keys[tile].ctypes.data, scores[0, (tile - first) * LANES :].ctypes.data
        _score(heads, data, size, 64, width // 2, left, left_step, to, scores.strides[0])
    skip = start - first * LANES
    count = position + 1 - start
    value_fractions = value_fractions[start : position + 1]
    least = value_fractions[0]
    for i in range(count):
        least = min(least, value_fractions[i])
    lowest = np.int64(least)
    pair = start // 2
    before = start - 2 * pair  # the first pair may hold a position that is out of sight: its weight is 0
    end = before + count
    for q in range(heads):
        seen = scores[q, skip : skip + count]
        by = fractions[q] + 24 - LOG_FRACTION
        peak = _exponents(seen, key_fractions[start : position + 1], by, score_scale)
        halves[q, 0, 0] = halves[q, 1, 0] = 0
        high, low = halves[q, 0, before:end], halves[q, 1, before:end]
        out_fractions[q] = _weigh(seen, peak, value_fractions, lowest, high, low)  # for the division below
        halves[q, 0, end] = halves[q, 1, end] = 0
        for i in range(totals.shape[1]):
            totals[q, i] = 0
    pairs = (end + 1) // 2
    for group in range(0, pairs, MOST_POSITIONS_IN_A_SUM // 2):
        lane = 0
        while lane < width:
            data, to = values[pair + group, lane:].ctypes.data, totals[0, lane:].ctypes.data
            many = min(pairs - group, MOST_POSITIONS_IN_A_SUM // 2)
            four = lane + 4 * LANES <= width
            _mix(heads, four, data, 64, width * 4, many, left + 4 * group, left_step, to, totals.strides[0])
            lane += 4 * LANES if four else LANES
    for q in range(heads):
        total = totals[q, :width]
        for i in range(width):
            total[i] <<= 8
        divide(total, out_fractions[q], out[q])
        out_fractions[q] = lowest + 8
