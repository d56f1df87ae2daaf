"""W^T r for an auditor's random numbers r, as exact integers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numba import njit

from assay.engines.exact.kernels.simd import DOTS, SOURCES
from assay.engines.exact.kernels.tile import expand
from assay.engines.exact.kernels.transposed import cut, gather, join
from assay.engines.exact.packed import RECORD, TILE, Packed

LIMB: Final = 32
"""Bits of a limb of the result."""
RANDOM_BITS: Final = 31
"""Of the auditor's numbers."""
_TOGETHER: Final = 8
"""Tiles whose digits are kept while a record of each is read."""
_UNTIL: Final = 8192
"""Tiles after which 32-bit totals, of up to 4 * 255 * 128 a tile, are added to wider ones."""


def transpose_multiply(packed: Packed, r: np.ndarray) -> np.ndarray:
    """W^T r, times 2^fraction, for `r` int64 [rows] from 0 to 2^31 - 1.

    The result is int64 [3, columns]: a column's number is the sum of limb i times 2^(32 i); the first two limbs are
    0 .. 2^32 - 1, the last has the sign.

    Raises:
        ValueError: another type, shape or range.
    """
    if r.dtype != np.int64 or r.shape != (packed.rows,):
        raise ValueError(f"random numbers are {r.dtype} {r.shape}, not int64 [{packed.rows}]")
    if r.min() < 0 or r.max() >> RANDOM_BITS:
        raise ValueError(f"random numbers have more than {RANDOM_BITS} bits")
    padded = np.zeros(packed.tiles * TILE, np.int32)
    padded[: packed.rows] = r
    weights, scale, unit, _ = packed.places
    records, groups, parts = packed.weights.shape[1], *packed.unit.shape[1:3]
    out = np.zeros((3, records * RECORD), np.int64)
    # A digit more than the magnitude's bits and a sign would need: digits of -128 .. 127 do not reach quite as far.
    limbs = -(-((packed.reach >> packed.base).bit_length() + RANDOM_BITS + 2) // 8)
    kind = (packed.bits, packed.block, packed.scales, int(packed.tied >= 0), limbs)
    steps = (packed.scale.strides[0], groups * parts * 64)
    if DOTS and packed.bits <= 8:
        _fast(*kind)(
            weights, scale, unit, -packed.tied, packed.base, records, *steps, padded, packed.tiles, out
        )  # fmt: skip
    else:
        _plain(*kind[:4])(packed.weights, scale, unit, -packed.tied, packed.base, *steps, padded, out)
    return out[:, : packed.columns]


@cache
def _fast(bits: int, block: int, scales: int, tied: int, limbs: int) -> Callable[..., None]:
    """By dot products of bytes."""
    sources = SOURCES
    blocks = RECORD // block

    @njit(cache=True, nogil=True)
    def run(weights, scale, unit, minus, base, records, scale_step, unit_step, r, tiles, out):  # noqa: ANN001, ANN202
        sources  # noqa: B018
        digits = np.empty(_TOGETHER * blocks * limbs * 64, np.int8)
        totals = np.zeros((records, 8, limbs, 16), np.int32)
        constant = np.zeros((records, blocks, 2, 8), np.int64)
        both = np.empty((blocks, 2), np.int64)
        step = records * bits * 64
        since = 0
        for first in range(0, tiles, _TOGETHER):
            count = min(_TOGETHER, tiles - first)
            for record in range(records):
                cut(
                    bits, block, scales, tied, limbs,
                    scale + first * scale_step + record * (scale_step // records), scale_step,
                    unit + first * unit_step, unit_step, minus, record, r[first * TILE :].ctypes.data, count,
                    digits.ctypes.data, constant[record].ctypes.data,
                )  # fmt: skip
                gather(
                    bits, block, scales, tied, limbs, weights + first * step + record * bits * 64, step, count,
                    digits.ctypes.data, totals[record].ctypes.data,
                )  # fmt: skip
            since += count
            if since >= _UNTIL or first + count == tiles:
                for record in range(records):
                    for part in range(blocks):
                        for half in range(2):
                            both[part, half] = constant[record, part, half].sum()
                    join(
                        bits, block, scales, tied, limbs, totals[record].ctypes.data, both.ctypes.data,
                        out.ctypes.data + record * RECORD * 8, records * RECORD * 8,
                    )  # fmt: skip
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

    return run


@cache
def _plain(bits: int, block: int, scales: int, tied: int) -> Callable[..., None]:
    """In 64-bit numbers, for machines without dot products of bytes and for weights of 16 bits."""
    sources = SOURCES
    parts = 1 if tied else 2

    @njit(cache=True, nogil=True)
    def run(weights, scale, unit, minus, base, scale_step, unit_step, r, out):  # noqa: ANN001, ANN202
        sources  # noqa: B018
        tiles, records = weights.shape[:2]
        low = (1 << 32) - 1
        expanded = np.empty((records, 8, TILE, 4) if bits <= 8 else (0, 8, TILE, 4), np.uint8)
        words = np.empty((records * (RECORD // block), parts, TILE), np.int32)
        row = np.empty(records * RECORD, np.int64)
        for number in range(tiles):
            w = weights[number]
            expand(
                bits, block, scales, tied, w.ctypes.data, scale + number * scale_step, unit + number * unit_step,
                records, expanded.ctypes.data, words.ctypes.data,
            )  # fmt: skip
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
