"""Exact products of packed matrices with activations; `transpose_multiply` is the auditor's.

One thread computes a range of tiles; the compiled code holds no lock of the interpreter, so that several threads can
share a matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core.ccallback import CFunc

from assay.engines.exact.kernels.audit import transpose_multiply
from assay.engines.exact.kernels.scalars import Whole, compiled, generated
from assay.engines.exact.kernels.simd import DOTS, I64, SOURCES, TOKENS
from assay.engines.exact.kernels.tile import SLOT, SUMS, copy, expand, product
from assay.engines.exact.packed import RECORD, TILE, WORD, Packed

__all__ = ["Prepared", "multiply", "multiply_tiles", "prepare", "transpose_multiply"]

EDGE: Final = 32639
"""Largest activation whose two limbs fit signed bytes."""
RAISE: Final = 128
"""What is taken off the activations of a token that has larger ones; the rows' sums bring it back."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Activations as the kernels read them, of all matrices that share this input."""

    tokens: int
    columns: int
    slots: np.ndarray
    """int8 [tokens * records, 80]: groups of up to `TOKENS` tokens; in a group records in order, in these tokens."""
    shift: np.ndarray
    """int64 [tokens]: what was taken off each token's activations."""
    place: int
    """Address of `slots`."""
    shifted: bool
    """Whether any shift is not 0."""


def prepare(x: np.ndarray) -> Prepared:
    """Lay activations out: int16 [tokens, columns], magnitudes at most 32767.

    Raises:
        ValueError: another type or shape.
    """
    if x.dtype != np.int16 or x.ndim != 2 or not x.size:
        raise ValueError(f"activations are {x.dtype} {x.shape}, not int16 [tokens, columns]")
    tokens, columns = x.shape
    slots = np.empty((tokens * -(-columns // RECORD), SLOT), np.int8)
    shift = np.zeros(tokens, np.int64)
    for token in range(tokens):
        lay_out(np.ascontiguousarray(x[token]), token, tokens, slots, slots.view(np.int16), slots.view(np.int32), shift)
    return Prepared(tokens, columns, slots, shift, slots.ctypes.data, bool(shift.any()))


def multiply(packed: Packed, x: np.ndarray, out: np.ndarray) -> None:
    """Put the exact W x into `out`, int64 [tokens, rows], for `x` int16 [tokens, columns] of magnitudes up to 32767.

    Raises:
        ValueError: types or shapes do not fit.
    """
    multiply_tiles(packed, prepare(x), out, 0, packed.tiles)


def multiply_tiles(packed: Packed, x: Prepared, out: np.ndarray, first: int, last: int) -> None:
    """`multiply` for the rows of tiles `first` to `last` - 1; `out` may be a view whose rows are contiguous.

    Raises:
        ValueError: types or shapes do not fit.
    """
    if x.columns != packed.columns:
        raise ValueError(f"a matrix of {packed.columns} columns and {x.columns} activations")
    if out.dtype != np.int64 or out.shape != (x.tokens, packed.rows) or out.strides[1] != 8:
        raise ValueError(f"the result would be int64 [{x.tokens}, {packed.rows}], not {out.dtype} {out.shape}")
    if not 0 <= first <= last <= packed.tiles:
        raise ValueError(f"tiles {first} to {last} of {packed.tiles}")
    weights, scale, unit, sums = packed.places
    records, blocks, groups = packed.weights.shape[1], packed.scale.strides[0], packed.unit.shape[1]
    run = _run_of(packed).ctypes
    place, stride = out.ctypes.data, out.strides[0]
    run(
        weights, scale, unit, -packed.tied, packed.base, records, blocks, groups * packed.unit.shape[2] * 64,
        x.place, x.tokens, place, stride, packed.rows, first, last,
    )  # fmt: skip
    if x.shifted:
        _shift_back(packed.sums, x.shift, out, first * TILE, min(last * TILE, packed.rows))


@compiled
def lay_out(
    x: np.ndarray,
    token: Whole,
    tokens: Whole,
    slots: np.ndarray,
    halves: np.ndarray,
    words: np.ndarray,
    shift: np.ndarray,
) -> None:
    """Prepare one token of `tokens`: int16 [columns] into `slots` (see `Prepared`; `halves` and `words` are the same
    memory as int16 and int32) and `shift`."""
    columns = x.size
    records = (columns + RECORD - 1) // RECORD
    group = token // TOKENS * TOKENS
    together = min(TOKENS, tokens - group)
    take = np.int32(0)
    if DOTS:
        most = np.int16(0)
        for column in range(columns):
            most = max(most, x[column])
        if most > EDGE:
            take = np.int32(RAISE)
    shift[token] = take
    for record in range(records):
        at = group * records + record * together + token - group
        start = record * RECORD
        part = x[start : start + RECORD]
        for half in range(2):
            total = np.int32(0)
            if part.size == RECORD and DOTS:
                for column in range(16 * half, 16 * half + 16):
                    a = np.int32(part[column]) - take
                    total += a
                    high = (a + np.int32(128)) >> np.int32(8)
                    slots[at, column] = high
                    slots[at, 32 + column] = a - (high << np.int32(8))
            else:
                for column in range(16 * half, 16 * half + 16):
                    a = np.int32(part[column]) - take if column < part.size else np.int32(0)
                    total += a
                    if DOTS:
                        high = (a + np.int32(128)) >> np.int32(8)
                        slots[at, column] = high
                        slots[at, 32 + column] = a - (high << np.int32(8))
                    else:  # columns 0, 2, 1, 3 of each four
                        halves[at, column & ~3 | (column & 1) << 1 | column >> 1 & 1] = a
            words[at, SUMS // 4 + half] = total
        words[at, SUMS // 4 + 2] = words[at, SUMS // 4] + words[at, SUMS // 4 + 1]
        words[at, SUMS // 4 + 3] = 0


@compiled
def multiply_share(
    fields: np.ndarray, slots: np.ndarray, shift: np.ndarray, out: np.ndarray, at: Whole, thread: Whole, threads: Whole
) -> None:
    """One thread's share of a product: `multiply` into columns of `out` from `at` on, of the tokens that `shift` has.

    `fields`: what `describe` gave. `slots`, `shift`: prepared by `lay_out`.
    """
    tokens, rows = shift.size, fields[ROWS]
    tiles = (rows + TILE - 1) // TILE
    first, last = tiles * thread // threads, tiles * (thread + 1) // threads
    _call(
        fields[RUN],
        (fields[2], fields[3], fields[4], fields[5], fields[6], fields[7], fields[8], fields[9],
         np.int64(slots.ctypes.data), np.int64(tokens), np.int64(out[0, at:].ctypes.data), np.int64(out.strides[0]),
         rows, np.int64(first), np.int64(last)),
    )  # fmt: skip
    for token in range(tokens):
        if shift[token]:
            for row in range(first * TILE, min(last * TILE, rows)):
                out[token, at + row] += _sum_at(fields[SUMS_AT] + 8 * row) * shift[token]


FRACTION, ROWS, RUN, SUMS_AT = 0, 1, 10, 11
"""Places in what `describe` gives."""


def describe(packed: Packed) -> list[int]:
    """A matrix for `multiply_share`; what it points to must stay alive."""
    weights, scale, unit, sums = packed.places
    return [
        packed.fraction, packed.rows, weights, scale, unit, -packed.tied, packed.base, packed.weights.shape[1],
        packed.scale.strides[0], packed.unit.shape[1] * packed.unit.shape[2] * 64, _run_of(packed).address, sums,
    ]  # fmt: skip


@generated
def _call(_typing: Any, address: Any, arguments: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Call the function at an address with whole numbers."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:  # noqa: ANN401
        words = [builder.extract_value(values[1], i) for i in range(arguments.count)]
        kind = ir.FunctionType(ir.VoidType(), [I64] * arguments.count)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), words)
        return ir.Constant(I64, 0)

    return types.int64(types.int64, types.UniTuple(types.int64, arguments.count)), codegen


@generated
def _sum_at(_typing: Any, _address: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """The int64 at an address."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:  # noqa: ANN401
        return builder.load(builder.inttoptr(values[0], I64.as_pointer()))

    return types.int64(types.int64), codegen


@compiled
def _shift_back(sums: np.ndarray, shift: np.ndarray, out: np.ndarray, first: Whole, last: Whole) -> None:
    flat = sums.ravel()
    for token in range(out.shape[0]):
        if shift[token]:
            for row in range(first, last):
                out[token, row] += flat[row] * shift[token]


def _run_of(packed: Packed) -> CFunc:
    return _compiled(packed.bits, packed.block, packed.scales, int(packed.tied >= 0))


@cache
def _compiled(bits: int, block: int, scales: int, tied: int) -> CFunc:
    """The loop over tiles and groups of tokens for one kind of packed matrix."""
    sources = SOURCES
    parts = 1 if tied else 2

    @cfunc(types.void(*[types.int64] * 15), cache=True)
    def run(
        weights, scale, unit, minus, base, records, scale_step, unit_step, x, tokens, out, stride, rows, first, last
    ):  # noqa: ANN001, ANN202
        sources  # noqa: B018
        room = np.empty((TOKENS, TILE), np.int64)
        many = bits <= 8 and tokens > TOKENS
        expanded = np.empty(records * 512 if many else 0, np.uint8)
        words = np.empty(records * (RECORD // block) * parts * TILE if many else 0, np.int32)
        for number in range(first, last):
            w = weights + number * records * bits * 64
            s = scale + number * scale_step
            u = unit + number * unit_step
            left = rows - number * TILE
            if many:
                expand(bits, block, scales, tied, w, s, u, records, expanded.ctypes.data, words.ctypes.data)
                w, s = expanded.ctypes.data, words.ctypes.data
            for start in range(0, tokens, TOKENS):
                count = min(TOKENS, tokens - start)
                at = x + start * records * SLOT
                place = out + start * stride + number * TILE * 8
                to, step = (place, stride) if left >= TILE else (room.ctypes.data, TILE * 8)
                if many:
                    product(8, block, WORD, tied, TOKENS, count, w, s, u, minus, base, records, at, to, step)
                else:
                    product(bits, block, scales, tied, TOKENS, count, w, s, u, minus, base, records, at, to, step)
                if left < TILE:
                    for token in range(count):
                        copy(to + token * TILE * 8, place + token * stride, left)

    return run
