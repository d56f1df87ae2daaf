"""A matrix as the kernels read it: tiles of 16 rows in records of 32 columns, no wider than its numbers need.

A record holds the 16 x 32 numbers q of a tile as vectors of 64 bytes. Byte vector v (0 .. 7) has in its 32-bit lane r
the columns 4 v .. 4 v + 3 of row r. With 4 bits, stored vector j has byte vector 2 j in the low halves of its bytes and
2 j + 1 in the high halves; a fifth bit is bit v of one more vector, a fifth and sixth are bits 2 (v % 4) and the next
of vector 4 + v // 4; 16 bits are eight vectors of low bytes, then eight of high ones. Scales and offsets lie in arrays
of their own, 16 rows side by side. Rows and columns that a tile or record lacks are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from assay.core.errors import ModelFileError
from assay.engines.exact.affine import Matrix

TILE: Final = 16
"""Rows of a tile."""
RECORD: Final = 32
"""Columns of a record."""
GROUP: Final = 8
"""Records that share a unit where scales are `LEVELS`: 256 columns, a super-block of llama.cpp's K formats."""

SHORT: Final = 0
"""int16, 12 bits and a shift: (s >> 4) << (s & 15), times 2^`base`. Holds float16 numbers over a range of 2^15."""
WORD: Final = 1
"""int32."""
LEVELS: Final = 2
"""int8, times an int32 unit for every 256 columns of a row."""
UNTIED: Final = -1

_DTYPES: Final[Mapping[int, np.dtype]] = {
    SHORT: np.dtype(np.int16),
    WORD: np.dtype(np.int32),
    LEVELS: np.dtype(np.int8),
}
_NUMBERS: Final = ("rows", "columns", "fraction", "bits", "block", "scales", "tied", "base", "reach")
_ALIGNMENT: Final = 64
_STEP: Final = 4096
"""Rows packed at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A packed matrix; see the module's docstring."""

    rows: int
    columns: int
    fraction: int
    """The weights are whole numbers of 2^-fraction."""
    bits: int
    """Of q as stored: 4, 5, 6, 8 or 16."""
    block: int
    """Columns that share a scale: 16 or 32."""
    scales: int
    """How scales and offsets are stored: `SHORT`, `WORD` or `LEVELS`."""
    tied: int
    """Every offset is -tied times its scale, and none is stored; `UNTIED`: offsets are stored."""
    base: int
    """All scales and offsets are stored divided by 2^base; 0 unless `SHORT`."""
    reach: int
    """The largest magnitude of a scale."""
    weights: np.ndarray
    """uint8 [tiles, records, 64 bits]."""
    scale: np.ndarray
    """[tiles, blocks, 1 or 2 (scale, offset), 16], of the type that `scales` says."""
    unit: np.ndarray
    """int32 [tiles, groups, 1 or 2, 16]; no groups unless scales are `LEVELS`."""
    sums: np.ndarray
    """int64 [tiles, 16]: the sum of each row's weights."""
    places: tuple[int, ...] = field(init=False, repr=False)
    """Addresses of weights, scales and units."""
    sizes: tuple[int, ...] = field(init=False, repr=False)
    """Records of a tile, and bytes of its scales and units."""

    def __post_init__(self) -> None:
        places = tuple(array.ctypes.data for array in (self.weights, self.scale, self.unit))
        object.__setattr__(self, "places", places)
        sizes = (self.weights.shape[1], *(array.nbytes // self.tiles for array in (self.scale, self.unit)))
        object.__setattr__(self, "sizes", sizes)

    @property
    def tiles(self) -> int:
        """How many tiles of 16 rows, the last one perhaps not full."""
        return len(self.weights)

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as named arrays, for a file; `from_arrays` takes them back."""
        return {
            "numbers": np.array([getattr(self, name) for name in _NUMBERS], np.int64),
            "weights": self.weights,
            "scale": self.scale,
            "unit": self.unit,
            "sums": self.sums,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Packed:
        """From what `arrays` gave, which may lie in a mapped file; fastest where aligned to 64 bytes.

        Kernels stay within the arrays whatever these hold. `sums` and `reach` are taken on trust.

        Raises:
            ModelFileError: shapes or types do not belong together.
        """
        try:
            numbers = arrays["numbers"]
            if numbers.dtype != np.int64 or numbers.shape != (len(_NUMBERS),):
                raise _damaged("its numbers")
            rows, columns, fraction, bits, block, scales, tied, base, reach = (int(n) for n in numbers)
            if not (
                0 < rows < 1 << 31
                and 0 < columns < 1 << 24
                and bits in (4, 5, 6, 8, 16)
                and block in (16, 32)
                and columns % block == 0
                and scales in _DTYPES
                and (tied == UNTIED or _can_tie(tied, bits))
                and abs(fraction) < 1 << 16
                and 0 <= base < 32
                and 0 <= reach <= 1 << 31
            ):
                raise _damaged("its numbers")
            shapes = _shapes(rows, columns, bits, block, scales, tied)
            for name, (shape, dtype) in shapes.items():
                array = arrays[name]
                if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                    raise _damaged(name)
        except KeyError as error:
            raise _damaged(str(error)) from None
        parts = {name: arrays[name] for name in shapes}
        return cls(rows, columns, fraction, bits, block, scales, tied, base, reach, **parts)


def pack(matrix: Matrix) -> Packed:
    """Bring a matrix into the kernels' form: the narrowest of those that hold it exactly, always the same one."""
    rows, columns = matrix.shape
    bits = 16 if matrix.q.dtype == np.uint16 else _bits(int(matrix.q.max(initial=0)))
    tied = _tie(matrix, bits)
    scales, base = _scales_for(matrix, tied)
    made = {
        name: _aligned(shape, dtype)
        for name, (shape, dtype) in _shapes(rows, columns, bits, matrix.block, scales, tied).items()
    }
    weights, scale, unit, sums = made["weights"], made["scale"], made["unit"], made["sums"]
    records = weights.shape[1]
    for start in range(0, rows, _STEP):
        part = slice(start, min(start + _STEP, rows))
        tiles = slice(start // TILE, -(-part.stop // TILE))
        weights[tiles] = _pack_bits(_padded(matrix.q[part], records * RECORD), bits)
        for which, numbers in enumerate((matrix.scale, matrix.offset)[: scale.shape[2]]):
            blocks = _padded(numbers[part].astype(np.int64) >> base, scale.shape[1])
            if scales == LEVELS:
                blocks, units = _split_levels(blocks, GROUP * RECORD // matrix.block)
                unit[tiles, :, which] = _side_by_side(units)
            elif scales == SHORT:
                blocks = _shorten(blocks)
            scale[tiles, :, which] = _side_by_side(blocks)
        sums[tiles] = _padded(matrix.whole(part).sum(-1)[:, None], 1).reshape(-1, TILE)
    reach = int(np.abs(matrix.scale.astype(np.int64)).max(initial=0))
    return Packed(
        rows, columns, matrix.fraction, bits, matrix.block, scales, tied, base, reach, weights, scale, unit, sums
    )


def unpack_row(packed: Packed, row: int) -> np.ndarray:
    """The weights of a row times 2^fraction, as `Matrix.whole(row)`: int64 [columns].

    Raises:
        IndexError: there is no such row.
    """
    if not 0 <= row < packed.rows:
        raise IndexError(f"row {row} of {packed.rows}")
    tile, lane = divmod(row, TILE)
    stored = packed.weights[tile].reshape(packed.weights.shape[1], -1, TILE, 4)[:, :, lane]
    q = _unpack_bits(stored, packed.bits).reshape(-1, packed.block)
    parts = packed.scale[tile, :, :, lane].astype(np.int64)
    if packed.scales == SHORT:
        parts = _lengthen(parts)
    elif packed.scales == LEVELS:
        per_unit = GROUP * RECORD // packed.block
        parts = parts * np.repeat(packed.unit[tile, :, :, lane].astype(np.int64), per_unit, 0)[: len(parts)]
    scale = parts[:, :1]
    offset = parts[:, 1:] if packed.tied == UNTIED else -packed.tied * scale
    return ((q * scale + offset) << packed.base).reshape(-1)[: packed.columns]


def _shapes(
    rows: int, columns: int, bits: int, block: int, scales: int, tied: int
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes and types of the arrays, by name."""
    tiles, records = -(-rows // TILE), -(-columns // RECORD)
    parts = 2 if tied == UNTIED else 1
    groups = -(-records // GROUP) if scales == LEVELS else 0
    return {
        "weights": ((tiles, records, bits * 64), np.dtype(np.uint8)),
        "scale": ((tiles, records * (RECORD // block), parts, TILE), _DTYPES[scales]),
        "unit": ((tiles, groups, parts, TILE), np.dtype(np.int32)),
        "sums": ((tiles, TILE), np.dtype(np.int64)),
    }


def _damaged(what: str) -> ModelFileError:
    return ModelFileError(f"a packed matrix is damaged: {what}", "remove the file, so that it is made again")


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that start at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def _bits(most: int) -> int:
    return next(bits for bits in (4, 5, 6, 8) if most < 1 << bits)


def _can_tie(factor: int, bits: int) -> bool:
    """Whether the kernels can take the offset from the sums of bytes: within 8 bits, or 16 with the lower 8 zero."""
    return 0 <= factor < 256 if bits < 16 else 0 <= factor < 65536 and factor % 256 == 0


def _tie(matrix: Matrix, bits: int) -> int:
    """The factor c where every offset is -c times the scale, as in formats that are symmetric around zero."""
    where = np.flatnonzero(matrix.scale)
    factor = 0
    if len(where):
        factor, rest = divmod(-int(matrix.offset.flat[where[0]]), int(matrix.scale.flat[where[0]]))
        if rest or not _can_tie(factor, bits):
            return UNTIED
    for start in range(0, len(matrix.scale), _STEP):
        part = slice(start, start + _STEP)
        if not np.array_equal(matrix.scale[part].astype(np.int64) * -factor, matrix.offset[part]):
            return UNTIED
    return factor


def _scales_for(matrix: Matrix, tied: int) -> tuple[int, int]:
    """The narrowest form that holds all scales and offsets, and `base`."""
    parts = (matrix.scale,) if tied != UNTIED else (matrix.scale, matrix.offset)
    bits = int(np.bitwise_or.reduce([np.bitwise_or.reduce(numbers, axis=None) for numbers in parts]))
    base = (bits & -bits).bit_length() - 1 if bits else 0
    pieces = [numbers[start : start + _STEP] for numbers in parts for start in range(0, len(numbers), _STEP)]
    if all(_fit_shorts(piece.astype(np.int64) >> base) for piece in pieces):
        return SHORT, base
    per_unit = GROUP * RECORD // matrix.block
    return (LEVELS if all(_fit_levels(piece.astype(np.int64), per_unit) for piece in pieces) else WORD), 0


def _fit_shorts(numbers: np.ndarray) -> bool:
    return np.array_equal(_lengthen(_shorten(numbers)), numbers)


def _fit_levels(blocks: np.ndarray, per_unit: int) -> bool:
    levels, units = _split_levels(blocks, per_unit)
    return bool(levels.min() >= -128 and levels.max() <= 127 and np.abs(units).max() < 1 << 31)


def _shorten(numbers: np.ndarray) -> np.ndarray:
    """int64 to `SHORT`; not every number comes back from that."""
    lowest = np.frexp((numbers & -numbers).astype(np.float64))[1] - 1
    shift = np.clip(lowest, 0, 15).astype(np.int64)
    return ((numbers >> shift) << 4 | shift).astype(np.int16)


def _lengthen(shorts: np.ndarray) -> np.ndarray:
    wide = shorts.astype(np.int64)
    return (wide >> 4) << (wide & 15)


def _split_levels(blocks: np.ndarray, per_unit: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [rows, blocks] as levels of the same shape, and units [rows, groups]: their greatest common divisors."""
    rows, count = blocks.shape
    grouped = np.pad(blocks, ((0, 0), (0, -count % per_unit))).reshape(rows, -1, per_unit)
    units = np.gcd.reduce(grouped, axis=-1)
    levels = grouped // np.maximum(units, 1)[..., None]
    turn = (levels.max(-1) > 127) & (levels.min(-1) >= -127)  # -128 fits, 128 does not
    units, levels = np.where(turn, -units, units), np.where(turn[..., None], -levels, levels)
    return levels.reshape(rows, -1)[:, :count], units


def _padded(numbers: np.ndarray, columns: int) -> np.ndarray:
    """[rows, n] with zeros up to whole tiles and to `columns`."""
    return np.pad(numbers, ((0, -len(numbers) % TILE), (0, columns - numbers.shape[1])))


def _side_by_side(numbers: np.ndarray) -> np.ndarray:
    """[rows, n] to [tiles, n, 16], with zeros for rows that lack."""
    padded = _padded(numbers, numbers.shape[1])
    return padded.reshape(-1, TILE, padded.shape[1]).swapaxes(1, 2)


def _pack_bits(q: np.ndarray, bits: int) -> np.ndarray:
    """[rows, columns] in whole tiles and records to uint8 [tiles, records, 64 bits]."""
    tiles, records = len(q) // TILE, q.shape[1] // RECORD
    vectors = q.reshape(tiles, TILE, records, 8, 4).transpose(0, 2, 3, 1, 4)  # [tiles, records, 8, 16, 4]
    if bits == 16:
        stored = np.concatenate([vectors & 255, vectors >> 8], axis=2).astype(np.uint8)
    elif bits == 8:
        stored = vectors
    else:
        low = vectors & 15
        stored = low[:, :, 0::2] | (low[:, :, 1::2] << 4)
        high = vectors >> 4
        if bits == 5:
            planes = np.bitwise_or.reduce(high << np.arange(8, dtype=np.uint8)[:, None, None], axis=2, keepdims=True)
            stored = np.concatenate([stored, planes], axis=2)
        elif bits == 6:
            high = high.reshape(tiles, records, 2, 4, TILE, 4)
            planes = np.bitwise_or.reduce(high << np.arange(0, 8, 2, dtype=np.uint8)[:, None, None], axis=3)
            stored = np.concatenate([stored, planes], axis=2)
    return stored.reshape(tiles, records, -1)


def _unpack_bits(stored: np.ndarray, bits: int) -> np.ndarray:
    """A row's bytes [records, vectors, 4] to int64 [records, 32]."""
    if bits == 16:
        return (stored[:, :8].astype(np.int64) | stored[:, 8:].astype(np.int64) << 8).reshape(-1, RECORD)
    if bits == 8:
        return stored.reshape(-1, RECORD).astype(np.int64)
    q = np.stack([stored[:, :4] & 15, stored[:, :4] >> 4], axis=2).reshape(-1, 8, 4)
    if bits == 5:
        q |= (stored[:, 4:] >> np.arange(8, dtype=np.uint8)[:, None] & 1) << 4
    elif bits == 6:
        high = stored[:, 4:, None] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
        q |= high.reshape(-1, 8, 4) << 4
    return q.reshape(-1, RECORD).astype(np.int64)
