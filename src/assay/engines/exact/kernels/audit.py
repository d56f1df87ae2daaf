"""W^T r for an auditor's random numbers r, as exact integers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numba import njit

from assay.engines.exact.kernels.simd import DOTS, LINE, Shape
from assay.engines.exact.kernels.tile import expand
from assay.engines.exact.kernels.transposed import cut, fetch, gather, join
from assay.engines.exact.packed import RECORD, TILE, UNTIED, Packed

RANDOM_BITS: Final = 31
"""Of the auditor's numbers."""
_TOGETHER: Final = 8
"""Tiles whose digits are kept while a record of each is read."""
_UNTIL: Final = 8192
"""Tiles after which 32-bit totals, of up to 4 * 255 * 128 a tile, are added to wider ones."""


def transpose_multiply(packed: Packed, r: np.ndarray) -> np.ndarray:
    """W^T r, times 2^fraction, for `r` int32 [rows], not negative.

    The result is int64 [3, columns]: a column's number is the sum of limb i times 2^(32 i); the first two limbs are
    0 .. 2^32 - 1, the last has the sign.

    Raises:
        ValueError: another type, shape or range.
    """
    if r.dtype != np.int32 or r.shape != (packed.rows,):
        raise ValueError(f"random numbers are {r.dtype} {r.shape}, not int32 [{packed.rows}]")
    if r.min() < 0:
        raise ValueError("a random number is negative")
    padded = np.zeros(packed.tiles * TILE, np.int32)
    padded[: packed.rows] = r
    out = np.zeros((3, packed.weights.shape[1] * RECORD), np.int64)
    # A bit more than magnitude and sign need: digits of -128 .. 127 do not reach quite as far as two's complement.
    limbs = 7 if (packed.reach >> packed.base).bit_length() + RANDOM_BITS + 2 <= 56 else 8
    fast = DOTS and packed.bits <= 8
    shape = Shape(packed.bits, packed.block, packed.scales, packed.tied != UNTIED, limbs if fast else 0)
    (_fast if fast else _plain)(shape.kind)(
        packed.weights, packed.scale, packed.unit, -packed.tied, packed.base, padded, out
    )  # fmt: skip
    return out[:, : packed.columns]


@cache
def _fast(kind: int) -> Callable[..., None]:
    """By dot products of bytes."""
    shape = Shape.of(kind)
    bits, limbs, blocks = shape.bits, shape.limbs, RECORD // shape.block

    @njit(cache=True, nogil=True)
    def run(
        weights: np.ndarray,
        scale: np.ndarray,
        unit: np.ndarray,
        minus: int,
        base: int,
        r: np.ndarray,
        out: np.ndarray,
    ) -> None:
        tiles, records = weights.shape[:2]
        step, scale_step, unit_step = weights.strides[0], scale.strides[0], unit.strides[0]
        size, scale_size = bits * 64, scale_step // records
        digits = np.empty(_TOGETHER * blocks * limbs * 64, np.int8)
        totals = np.zeros((records, 8, limbs, 16), np.int32)
        constant = np.zeros((records, blocks, 2, 8), np.int64)
        both = np.empty((blocks, 2), np.int64)
        w, s, u, r_at = weights.ctypes.data, scale.ctypes.data, unit.ctypes.data, r.ctypes.data
        digits_at, totals_at, constant_at = digits.ctypes.data, totals.ctypes.data, constant.ctypes.data
        since = 0
        fetch(kind, (w, min(_TOGETHER, tiles) * step // LINE))
        fetch(kind, (s, min(_TOGETHER, tiles) * scale_step // LINE))
        for first in range(0, tiles, _TOGETHER):
            count = min(_TOGETHER, tiles - first)
            following = first + count
            share = min(_TOGETHER, tiles - following)
            for record in range(records):
                if share:  # while this is computed, what comes next arrives
                    fetch(kind, (w + following * step + record * share * size, share * bits))
                    part = share * scale_size
                    fetch(kind, (s + following * scale_step + record * part, (part + LINE - 1) // LINE))
                s_at, u_at = s + first * scale_step + record * scale_size, u + first * unit_step
                d_at, c_at = r_at + first * TILE * 4, constant_at + record * blocks * 128
                cut(kind, (s_at, scale_step, u_at, unit_step, minus, record, d_at, count, digits_at, c_at))
                w_at, t_at = w + first * step + record * size, totals_at + record * limbs * 512
                gather(kind, (w_at, step, count, digits_at, t_at))
            since += count
            if since >= _UNTIL or following == tiles:
                for record in range(records):
                    for block in range(blocks):
                        for half in range(2):
                            both[block, half] = constant[record, block, half].sum()
                    t_at, o_at = totals_at + record * limbs * 512, out.ctypes.data + record * RECORD * 8
                    join(kind, (t_at, both.ctypes.data, o_at, out.strides[0]))
                totals[:] = 0
                constant[:] = 0
                since = 0
        low = (1 << 24) - 1
        for column in range(out.shape[1]):
            a = out[0, column]
            b = out[1, column] + (a >> 24)
            c = out[2, column] + (b >> 24)
            a = (a & low) << base
            b = ((b & low) << base) + (a >> 24)
            c = (c << base) + (b >> 24)
            out[0, column] = a & low | (b & 255) << 24
            out[1, column] = b >> 8 & 0xFFFF | (c & 0xFFFF) << 16
            out[2, column] = c >> 16
        digits[0] = 0  # it has to live until here: its address, which is all that is used above, does not keep it

    return run


@cache
def _plain(kind: int) -> Callable[..., None]:
    """In 64-bit numbers, for machines without dot products of bytes and for weights of 16 bits."""
    shape = Shape.of(kind)
    bits, block, tied = shape.bits, shape.block, shape.tied

    @njit(cache=True, nogil=True)
    def run(
        weights: np.ndarray,
        scale: np.ndarray,
        unit: np.ndarray,
        minus: int,
        base: int,
        r: np.ndarray,
        out: np.ndarray,
    ) -> None:
        tiles, records = weights.shape[:2]
        low = (1 << 32) - 1
        expanded = np.empty((records, 8, TILE, 4) if bits <= 8 else (0, 8, TILE, 4), np.uint8)
        words = np.empty((records * (RECORD // block), scale.shape[2], TILE), np.int32)
        row = np.empty(records * RECORD, np.int64)
        for number in range(tiles):
            w = weights[number]
            s, u = scale.ctypes.data + number * scale.strides[0], unit.ctypes.data + number * unit.strides[0]
            expand(kind, (w.ctypes.data, s, u, records, expanded.ctypes.data, words.ctypes.data))
            wide = w.reshape(records, -1, TILE, 4) if bits > 8 else expanded
            for lane in range(TILE):
                random = np.int64(r[number * TILE + lane])
                for record in range(records):
                    for vector in range(8):
                        for part in range(4):
                            q = np.int64(wide[record, vector, lane, part])
                            if bits > 8:
                                q |= np.int64(wide[record, 8 + vector, lane, part]) << 8
                            row[record * RECORD + vector * 4 + part] = q
                for at in range(len(words)):
                    product = (np.int64(words[at, 0, lane]) << base) * random
                    constant = minus * product if tied else (np.int64(words[at, 1, lane]) << base) * random
                    for column in range(at * block, (at + 1) * block):
                        out[0, column] += (product & low) * row[column] + (constant & low)
                        out[1, column] += (product >> 32) * row[column] + (constant >> 32)
            if number % 1024 == 1023 or number == tiles - 1:
                for column in range(out.shape[1]):
                    out[1, column] += out[0, column] >> 32
                    out[0, column] &= low
        for column in range(out.shape[1]):
            out[2, column] = out[1, column] >> 32
            out[1, column] &= low

    return run
