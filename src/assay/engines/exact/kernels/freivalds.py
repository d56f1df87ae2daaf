"""Freivalds' test of a pass: Σ r · y over its accumulators is Σ v · x over its activations, for v = W^T r (1977).

Both are whole numbers, not taken modulo anything: modulo 2^64 an error of 2^46 is zero for every r that is a multiple
of 2^18. Here at most one of the 2^31 values of some entry of r makes both sides equal if any accumulator is wrong; the
activations follow from the accumulators, so that r has no say in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types

from assay.engines.exact.kernels.emit import add_pairs, compiled_for, declared, generated, place
from assay.engines.exact.kernels.packing import CHUNK
from assay.engines.exact.kernels.pointers import half_word_at, word_at
from assay.engines.exact.kernels.scalars import Whole, compiled

LOW_BITS: Final = 52
"""Of a product's lower part (vpmadd52luq)."""
DIGIT_BITS: Final = 12
"""Of v's digits, -2^11 to 2^11 - 1: eight sums of two products of 2^11 * 2^15 stay within 32 bits."""
FUSED: Final = compiled_for("avx512ifma")
_LOW: Final = (1 << LOW_BITS) - 1
_WORD, _LONG = ir.IntType(32), ir.IntType(64)
_SHORTS, _WORDS, _LONGS = ir.VectorType(ir.IntType(16), 32), ir.VectorType(_WORD, 16), ir.VectorType(_LONG, 8)


def _sum(builder: ir.IRBuilder, values: list[ir.Value]) -> ir.Value:
    while len(values) > 1:
        values = [
            builder.add(*values[i : i + 2]) if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)
        ]
    return values[0]


@generated
def _rows_fused(_typing: Any, _r: Any, _y: Any, _out: Any) -> tuple[Any, Callable[..., ir.Value]]:
    """`_rows_plain` by multiplying 52 bits by 52 (AVX-512 IFMA), for y of less than 52 bits."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        r_at, y_at, out = arguments
        low, high = (declared(builder, f"llvm.x86.avx512.vpmadd52{half}.uq.512", _LONGS, [_LONGS] * 3) for half in "lh")
        zero = ir.Constant(_LONGS, [0] * 8)
        lows: list[ir.Value] = [zero] * 4
        highs: list[ir.Value] = [zero] * 4
        negative: list[ir.Value] = [zero] * 2
        for i in range(CHUNK // 8):
            y = builder.load(place(builder, y_at, 64 * i, _LONGS), align=1)
            r = builder.load(place(builder, r_at, 32 * i, ir.VectorType(_WORD, 8)), align=1)
            r = builder.zext(r, _LONGS)
            lows[i % 4] = builder.call(low, [lows[i % 4], y, r])
            highs[i % 4] = builder.call(high, [highs[i % 4], y, r])
            # A negative y was read as y + 2^52.
            less = builder.sub(negative[i % 2], r)
            negative[i % 2] = builder.select(builder.icmp_signed("<", y, zero), less, negative[i % 2])
        for offset, values in ((0, lows), (64, [*highs, *negative])):
            pointer = place(builder, out, offset, _LONGS)
            builder.store(builder.add(builder.load(pointer, align=8), _sum(builder, values)), pointer, align=8)
        return ir.Constant(_LONG, 0)

    return types.int64(*[types.int64] * 3), codegen


@compiled
def _rows_plain(r: Whole, y: Whole, out: np.ndarray) -> None:
    low, high = np.int64(0), np.int64(0)
    for i in range(CHUNK):
        factor, number = half_word_at(r + 4 * i), word_at(y + 8 * i)
        below, above = factor * (number & 0xFFFFFFFF), factor * (number >> 32)
        low += (below & _LOW) + ((above & 0xFFFFF) << 32)
        high += (below >> LOW_BITS) + (above >> 20)
    out[0, 0] += low
    out[1, 0] += high


@compiled
def add_rows(r: Whole, y: Whole, width: Whole, out: np.ndarray) -> None:
    """Add Σ r · y to `out`, for `r` int32 [256] (not negative) and `y` int64 [256] at these addresses.

    Every y fits into `width` bytes. `out`, int64 [2, 8]: the sum is that of the first row and 2^52 times
    that of the second.
    """
    if FUSED and width < 7:
        _rows_fused(r, y, out.ctypes.data)
    else:
        _rows_plain(r, y, out)
    for lane in range(8):
        out[1, lane] += out[0, lane] >> LOW_BITS
        out[0, lane] &= _LOW


@generated
def _columns(_typing: Any, _v: Any, _x: Any) -> tuple[Any, Callable[..., ir.Value]]:
    """Σ v · x of two times int16 [256]."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        totals: list[ir.Value] = [ir.Constant(_WORDS, [0] * 16)] * 4
        for i in range(CHUNK // 32):
            one, other = (builder.load(place(builder, address, 64 * i, _SHORTS), align=1) for address in arguments)
            totals[i % 4] = add_pairs(builder, totals[i % 4], one, other)
        halves = builder.sext(_sum(builder, totals), ir.VectorType(_LONG, 16))
        return builder.call(declared(builder, "llvm.vector.reduce.add.v16i64", _LONG, [halves.type]), [halves])

    return types.int64(types.int64, types.int64), codegen


@compiled
def add_columns(v: np.ndarray, at: Whole, x: Whole, out: np.ndarray) -> None:
    """Add Σ v · x to `out`, for `v` int16 [digits, columns] from column `at` on, and `x`, the address of int16 [256].

    `out`, int64 [digits]: digit i counts 2^(12 i).
    """
    for digit in range(v.shape[0]):
        out[digit] += _columns(v[digit, at:].ctypes.data, x)
