"""Weights as the integer engine has them: blocks of small whole numbers, each with a scale and an offset.

    W[r, k] * 2^fraction = scale[r, k // block] * q[r, k] + offset[r, k // block]

Every block format of llama.cpp whose values are evenly spaced has this shape (ggml-quants.c of build 11549), and its
float16 scales are whole numbers of 2^-24: so these weights are exactly the file's, nothing is quantised again. Formats
of other shapes (F16, F32, BF16, IQ, MXFP4) become blocks of 16-bit numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import dequantize

from assay.core.errors import ModelFileError

FRACTION: Final = 24
"""Fraction bits of float16 scales: the smallest subnormal is 2^-24."""
ACTIVATION_LIMIT: Final = 32767
"""Largest magnitude of an activation."""
_WIDE_BLOCK: Final = 32
_UNITS: Final = 1.0 / (1 << FRACTION)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A matrix of weights; see the module's docstring."""

    q: np.ndarray
    """uint8 or uint16 [rows, columns]."""
    scale: np.ndarray
    """int32 [rows, columns / block]."""
    offset: np.ndarray
    """int32 [rows, columns / block]."""
    block: int
    fraction: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (outputs) and columns (inputs)."""
        return self.q.shape[0], self.q.shape[1]

    def whole(self, rows: slice | np.ndarray | int = slice(None)) -> np.ndarray:
        """The weights times 2^fraction: int64 [rows, columns]."""
        q, scale, offset = self.q[rows], self.scale[rows], self.offset[rows]
        repeat = self.block
        return q.astype(np.int64) * np.repeat(scale, repeat, -1) + np.repeat(offset, repeat, -1)

    def bound(self) -> int:
        """The largest magnitude that a product with activations can take in any order of summation."""
        most = 0
        for start in range(0, self.shape[0], 1024):
            part = slice(start, start + 1024)
            q = self.q[part].reshape((*self.scale[part].shape, self.block)).astype(np.int64)
            sums = np.abs(self.scale[part].astype(np.int64)) * q.sum(-1) + np.abs(self.offset[part]) * np.int64(
                self.block
            )
            most = max(most, int(sums.sum(-1).max(initial=0)))
        return most * ACTIVATION_LIMIT


def read_matrix(data: np.ndarray, kind: int, columns: int, name: str) -> Matrix:
    """A tensor of a GGUF file as affine blocks.

    `data`: its bytes, uint8 [rows, bytes of a row]; `kind`: its `ggml_type`.

    Raises:
        ModelFileError: the format is not known, the scales are not finite, or products could leave 63 bits.
    """
    try:
        known = Kind(kind)
    except ValueError:
        raise ModelFileError(f"{name} has the unknown format {kind}", "use a file of a usual format") from None
    with np.errstate(over="ignore", invalid="ignore"):
        if known in _AFFINE:
            block, read = _AFFINE[known]
            q, scale, offset = read(data)
        else:
            block = _WIDE_BLOCK
            try:
                values = np.asarray(dequantize(_typed(data, known), known), dtype=np.float32)
            except (NotImplementedError, ValueError) as error:
                raise ModelFileError(
                    f"{name} has the format {known.name}, which cannot be read", "use another file"
                ) from error
            q, scale, offset = _wide(values.reshape(data.shape[0], -1), name)
    rows = data.shape[0]
    matrix = _in_range(
        q.reshape(rows, -1)[:, :columns],
        _integers(scale.reshape(rows, -1), name),
        _integers(offset.reshape(rows, -1), name),
        block,
    )
    if matrix.q.shape[1] != columns or columns % block:
        raise ModelFileError(
            f"{name} has rows of {columns} numbers, which are no whole blocks of {block}", "use another file"
        )
    if matrix.bound() >= 1 << 62:
        raise ModelFileError(f"products of {name} could overflow 63 bits", "its scales are not those of a real model")
    return matrix


def _integers(scales: np.ndarray, name: str) -> np.ndarray:
    """float64 multiples of 2^-24 as int64."""
    if not np.isfinite(scales).all():
        raise ModelFileError(f"{name} has scales that are no numbers", "fetch the file again")
    return np.rint(scales / _UNITS).astype(np.int64)


def _in_range(q: np.ndarray, scale: np.ndarray, offset: np.ndarray, block: int) -> Matrix:
    """Into 32 bits: where that is too narrow, all of the matrix is rounded by the same power of two.

    A power of two that all numbers share is taken out: what a trace commits to has so many bits fewer.
    """
    largest = max(int(np.abs(scale).max(initial=0)), int(np.abs(offset).max(initial=0)))
    excess = max(0, largest.bit_length() - 31)
    if excess:
        half = np.int64(1 << (excess - 1))
        scale, offset = (scale + half) >> excess, (offset + half) >> excess
        top = np.int64(2**31 - 1)
        scale, offset = np.minimum(scale, top), np.minimum(offset, top)
    shared = int(np.bitwise_or.reduce(scale, axis=None) | np.bitwise_or.reduce(offset, axis=None))
    common = (shared & -shared).bit_length() - 1 if shared else 0
    scale, offset = (scale >> common).astype(np.int32), (offset >> common).astype(np.int32)
    return Matrix(q, scale, offset, block, FRACTION - excess - common)


def _typed(data: np.ndarray, kind: Kind) -> np.ndarray:
    plain = {Kind.F32: np.float32, Kind.F16: np.float16}
    return data.view(plain[kind]) if kind in plain else data


def _wide(values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 [rows, columns] as blocks of 16-bit numbers around 2^15, with power-of-two scales."""
    if values.shape[1] % _WIDE_BLOCK:
        raise ModelFileError(
            f"{name} has rows of {values.shape[1]} numbers, not whole blocks of 32", "use another file"
        )
    if not np.isfinite(values).all():
        raise ModelFileError(f"{name} has weights that are no numbers", "fetch the file again")
    blocks = values.reshape(values.shape[0], -1, _WIDE_BLOCK).astype(np.float64)
    _, exponent = np.frexp(np.abs(blocks).max(-1))
    exponent = np.maximum(exponent - 15, -FRACTION)  # largest magnitude just under 2^15
    scale = np.ldexp(1.0, exponent)
    q = np.clip(np.rint(blocks / scale[..., None]), -32767, 32767) + 32768
    return q.astype(np.uint16), scale, -32768 * scale


_Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Bytes [rows, n] to q [rows, blocks, block], and scale and offset in float64 [rows, blocks]."""


def _halves(data: np.ndarray) -> np.ndarray:
    """Bytes [..., 2 n] as float16 [..., n], widened without loss."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float64)


def _nibbles(data: np.ndarray) -> np.ndarray:
    """The low halves of bytes, then the high ones."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _fifth_bits(data: np.ndarray) -> np.ndarray:
    """Bytes [..., 4] as 32 bits, each in the place of 16."""
    return np.unpackbits(np.ascontiguousarray(data), axis=-1, bitorder="little") << 4


def _q4_0(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 18)
    d = _halves(blocks[..., :2])[..., 0]
    return _nibbles(blocks[..., 2:]), d, -8 * d


def _q4_1(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 20)
    d = _halves(blocks[..., :4])
    return _nibbles(blocks[..., 4:]), d[..., 0], d[..., 1]


def _q5_0(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 22)
    d = _halves(blocks[..., :2])[..., 0]
    return _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6]), d, -16 * d


def _q5_1(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 24)
    d = _halves(blocks[..., :4])
    return _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8]), d[..., 0], d[..., 1]


def _q8_0(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 34)
    d = _halves(blocks[..., :2])[..., 0]
    return blocks[..., 2:] ^ 128, d, -128 * d


def _six_bits(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eight scales and eight offsets, six bits each, of a Q4_K or Q5_K block: bytes [..., 12]."""
    low, high, both = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([low & 63, (both & 15) | ((low >> 2) & 48)], axis=-1)
    offsets = np.concatenate([high & 63, (both >> 4) | ((high >> 2) & 48)], axis=-1)
    return scales.astype(np.float64), offsets.astype(np.float64)


def _q4_k(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 144)
    d = _halves(blocks[..., :4])
    scales, offsets = _six_bits(blocks[..., 4:16])
    q = blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32)
    return np.stack([q & 15, q >> 4], axis=-2), d[..., :1] * scales, -d[..., 1:] * offsets


def _q5_k(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 176)
    d = _halves(blocks[..., :4])
    scales, offsets = _six_bits(blocks[..., 4:16])
    low = blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32)
    low = np.stack([low & 15, low >> 4], axis=-2).reshape(*blocks.shape[:2], 8, 32)
    high = (blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return low | (high << 4), d[..., :1] * scales, -d[..., 1:] * offsets


def _q6_k(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    blocks = data.reshape(data.shape[0], -1, 210)
    low = blocks[..., :128].reshape(*blocks.shape[:2], 2, 1, 64)
    low = ((low >> np.array([0, 4], np.uint8)[:, None]) & 15).reshape(*blocks.shape[:2], 8, 32)
    high = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32)
    high = ((high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3).reshape(*blocks.shape[:2], 8, 32)
    scale = _halves(blocks[..., 208:]) * blocks[..., 192:208].view(np.int8)
    return (low | (high << 4)).reshape(*blocks.shape[:2], 16, 16), scale, -32 * scale


_AFFINE: Final[Mapping[Kind, tuple[int, _Read]]] = {
    Kind.Q4_0: (32, _q4_0),
    Kind.Q4_1: (32, _q4_1),
    Kind.Q5_0: (32, _q5_0),
    Kind.Q5_1: (32, _q5_1),
    Kind.Q8_0: (32, _q8_0),
    Kind.Q4_K: (32, _q4_k),
    Kind.Q5_K: (32, _q5_k),
    Kind.Q6_K: (16, _q6_k),
}
"""Elements of a block and how to read it, by format."""
