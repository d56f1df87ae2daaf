"""Exact products of packed matrices with activations; `transpose_multiply` is the auditor's.

One thread computes a range of tiles; the compiled code holds no lock of the interpreter, so that several threads can
share a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numba import cfunc, types
from numba.core.ccallback import CFunc

from assay.engines.exact.kernels.audit import transpose_multiply
from assay.engines.exact.kernels.pointers import call, word_at
from assay.engines.exact.kernels.scalars import Whole, compiled
from assay.engines.exact.kernels.simd import DOTS, TOKENS, Shape
from assay.engines.exact.kernels.tile import SLOT, SUMS, copy, expand, product
from assay.engines.exact.packed import RECORD, TILE, UNTIED, WORD, Packed

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
        row = np.ascontiguousarray(x[token])
        lay_out(row, token, tokens, slots, slots.view(np.int16), slots.view(np.int32), shift)
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
    if not out.flags.writeable:
        raise ValueError("the result cannot be written")
    if not 0 <= first <= last <= packed.tiles:
        raise ValueError(f"tiles {first} to {last} of {packed.tiles}")
    _run_of(packed).ctypes(
        *packed.places, -packed.tied, packed.base, *packed.sizes, x.place, x.tokens,
        out.ctypes.data, out.strides[0], packed.rows, first, last,
    )  # fmt: skip
    if x.shifted:
        rows = slice(first * TILE, min(last * TILE, packed.rows))
        for token in np.flatnonzero(x.shift):
            out[token, rows] += packed.sums.reshape(-1)[rows] * x.shift[token]


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
    records = (x.size + RECORD - 1) // RECORD
    group = token // TOKENS * TOKENS
    together = min(TOKENS, tokens - group)
    take = np.int32(0)
    if DOTS:
        most = np.int16(0)
        for column in range(x.size):
            most = max(most, x[column])
        if most > EDGE:
            take = np.int32(RAISE)
    shift[token] = take
    for record in range(records):
        at = group * records + record * together + token - group
        part = x[record * RECORD : (record + 1) * RECORD]
        for half in range(2):
            total = np.int32(0)
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
    call(
        fields[RUN],
        (fields[4], fields[5], fields[6], fields[7], fields[8], fields[9], fields[10], fields[11],
         np.int64(slots.ctypes.data), np.int64(tokens), np.int64(out[0, at:].ctypes.data), np.int64(out.strides[0]),
         rows, np.int64(first), np.int64(last)),
    )  # fmt: skip
    for token in range(tokens):
        if shift[token]:
            for row in range(first * TILE, min(last * TILE, rows)):
                out[token, at + row] += word_at(fields[TOTALS] + 8 * row) * shift[token]


FRACTION, ROWS, RUN, TOTALS = range(4)
"""Places in what `describe` gives."""


def describe(packed: Packed) -> list[int]:
    """A matrix for `multiply_share`; what it points to must stay alive."""
    totals = packed.sums.ctypes.data
    run = _run_of(packed).address
    assert run is not None
    return [packed.fraction, packed.rows, run, totals, *packed.places, -packed.tied, packed.base, *packed.sizes]


def _run_of(packed: Packed) -> CFunc:
    return _compiled(Shape(packed.bits, packed.block, packed.scales, packed.tied != UNTIED).kind)


@cache
def _compiled(kind: int) -> CFunc:
    """The loop over tiles and groups of tokens for one kind of packed matrix."""
    shape = Shape.of(kind)
    bits, blocks, parts = shape.bits, RECORD // shape.block, shape.parts
    wide_kind = Shape(8, shape.block, WORD, shape.tied).kind

    @cfunc(types.void(*[types.int64] * 15), cache=True)
    def run(
        weights: int,
        scale: int,
        unit: int,
        minus: int,
        base: int,
        records: int,
        scale_step: int,
        unit_step: int,
        x: int,
        tokens: int,
        out: int,
        stride: int,
        rows: int,
        first: int,
        last: int,
    ) -> None:
        room = np.empty((TOKENS, TILE), np.int64)
        many = bits <= 8 and tokens > TOKENS
        expanded = np.empty(records * 512 if many else 0, np.uint8)
        words = np.empty(records * blocks * parts * TILE if many else 0, np.int32)
        for number in range(first, last):
            w = weights + number * records * bits * 64
            s = scale + number * scale_step
            u = unit + number * unit_step
            left = rows - number * TILE
            if many:
                expand(kind, (w, s, u, records, expanded.ctypes.data, words.ctypes.data))
                w, s = expanded.ctypes.data, words.ctypes.data
            for start in range(0, tokens, TOKENS):
                count = min(TOKENS, tokens - start)
                at = x + start * records * SLOT
                place = out + start * stride + number * TILE * 8
                to, step = (place, stride) if left >= TILE else (room.ctypes.data, TILE * 8)
                if many:
                    product(wide_kind, (count, w, s, u, minus, base, records, at, to, step))
                else:
                    product(kind, (count, w, s, u, minus, base, records, at, to, step))
                if left < TILE:
                    for token in range(count):
                        copy(kind, (to + token * TILE * 8, place + token * stride, left))

    return run
