"""Accumulators to bytes and back, a whole vector at a time: what `chunks.py` specifies chunk by chunk.

Written as vectors of LLVM IR, which compile for any processor: numba's own loops are vectorised half as wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types

from assay.engines.exact.kernels.emit import declared, generated, place
from assay.engines.exact.kernels.scalars import Whole, compiled

CHUNK: Final = 256
"""Accumulators of one chunk, see `chunks.py`."""
_STEP: Final = 32
"""Accumulators that are taken at a time."""
_LONG: Final = ir.IntType(64)
_LONGS: Final = ir.VectorType(_LONG, _STEP)


def _integers(bits: int) -> ir.VectorType:
    return ir.VectorType(ir.IntType(bits), _STEP)


def _splat(value: int) -> ir.Constant:
    return ir.Constant(_LONGS, [value] * _STEP)


@generated
def _spread(context: Any, source: Any) -> tuple[Any, Callable[..., Any]]:
    """One int64 with a bit wherever a number of the int64 [256] at an address has one that differs from its sign."""

    def generate(target: Any, builder: ir.IRBuilder, _: Any, arguments: list[ir.Value]) -> ir.Value:
        total = _splat(0)
        for i in range(0, CHUNK, _STEP):
            x = builder.load(place(builder, arguments[0], 8 * i, _LONGS), align=1)
            total = builder.or_(total, builder.xor(x, builder.ashr(x, _splat(63))))
        return builder.call(declared(builder, f"llvm.vector.reduce.or.v{_STEP}i64", _LONG, [_LONGS]), [total])

    return types.int64(types.uintp), generate


def _writer(bits: int, shift: int) -> Callable[..., Any]:
    """An intrinsic: bits `shift` to `shift` + `bits` of the int64 [256] at one address, to another address."""

    @generated
    def write(context: Any, source: Any, out: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(target: Any, builder: ir.IRBuilder, _: Any, arguments: list[ir.Value]) -> ir.Value:
            kind = _integers(bits)
            for i in range(0, CHUNK, _STEP):
                x = builder.load(place(builder, arguments[0], 8 * i, _LONGS), align=1)
                part = builder.trunc(builder.lshr(x, _splat(shift)), kind)
                builder.store(part, place(builder, arguments[1], bits // 8 * i, kind), align=1)
            return target.get_dummy_value()

        return types.void(types.uintp, types.uintp), generate

    return write


def _reader(width: int) -> Callable[..., Any]:
    """An intrinsic: the chunk of this width at one address, as int64 [256], to another address."""

    @generated
    def read(context: Any, source: Any, out: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(target: Any, builder: ir.IRBuilder, _: Any, arguments: list[ir.Value]) -> ir.Value:
            words, above = _integers(32), _integers(8 * (width - 4))
            for i in range(0, CHUNK, _STEP):
                x = builder.load(place(builder, arguments[0], 4 * i, words), align=1)
                if width == 4:
                    x = builder.sext(x, _LONGS)
                else:
                    high = place(builder, arguments[0], 4 * CHUNK + (width - 4) * i, above)
                    signed = builder.shl(builder.sext(builder.load(high, align=1), _LONGS), _splat(32))
                    x = builder.or_(builder.zext(x, _LONGS), signed)
                builder.store(x, place(builder, arguments[1], 8 * i, _LONGS), align=1)
            return target.get_dummy_value()

        return types.void(types.uintp, types.uintp), generate

    return read


_write_low = _writer(32, 0)
_write_high8 = _writer(8, 32)
_write_high16 = _writer(16, 32)
_write_high32 = _writer(32, 32)
_read4 = _reader(4)
_read5 = _reader(5)
_read6 = _reader(6)
_read8 = _reader(8)


@compiled
def _width(spread: Whole) -> Whole:
    if spread < 1 << 31:
        return 4
    if spread < 1 << 39:
        return 5
    return 6 if spread < 1 << 47 else 8


@compiled
def pack(address: Whole, rest: Whole, widths: np.ndarray, out: np.ndarray) -> Whole:
    """Encode int64 [n] at an address; its last n % 256 are taken from `rest`, the address of int64 [256].

    Writes the bytes of each accumulator of chunk i to `widths[i]`, uint8 [ceil(n / 256)], and the chunks to `out`, of
    which uint8 [2048 for each chunk] are enough. Returns how many bytes were written there. Without a `rest`, 0, n is
    a multiple of 256.
    """
    begin = np.uintp(out.ctypes.data)
    at = begin
    for number in range(len(widths)):
        source = np.uintp(address) + np.uintp(8 * CHUNK * number)
        if rest != 0 and number == len(widths) - 1:
            source = np.uintp(rest)
        width = _width(_spread(source))
        widths[number] = width
        _write_low(source, at)
        high = at + np.uintp(4 * CHUNK)
        if width == 5:
            _write_high8(source, high)
        elif width == 6:
            _write_high16(source, high)
        elif width == 8:
            _write_high32(source, high)
        at += np.uintp(CHUNK * width)
    return np.int64(at - begin)


@compiled
def unpack(width: Whole, address: Whole, out: Whole) -> None:
    """Inverse of `pack` for one chunk of this width (4, 5, 6 or 8): int64 [256], from one address to another."""
    source, target = np.uintp(address), np.uintp(out)
    if width == 4:
        _read4(source, target)
    elif width == 5:
        _read5(source, target)
    elif width == 6:
        _read6(source, target)
    else:
        _read8(source, target)


@compiled
def unpack_all(widths: np.ndarray, address: Whole, out: np.ndarray) -> None:
    """All chunks at an address, of these widths, uint8 [n], into int64 [256 n]."""
    for number in range(len(widths)):
        width = np.int64(widths[number])
        unpack(width, address, out[CHUNK * number :].ctypes.data)
        address += CHUNK * width
