"""Accumulators on their way to an auditor: vectors in the fewest bytes that hold their numbers.

A vector of int64 is cut into chunks of CHUNK, the last one filled up with zeros. A chunk takes the fewest bytes w of
WIDTHS for each number that hold all of them in two's complement: a plane of low words (uint32), then one of high parts
of w - 4 bytes, all little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.core.errors import EncodingError
from assay.core.hashing import ZERO, Digest, digest
from assay.engines.exact.kernels.packing import CHUNK, pack, unpack_all
from assay.engines.exact.kernels.sha256 import tagged_digests
from assay.engines.exact.record import root_of

WIDTHS: Final = (4, 5, 6, 8)
"""Bytes that an accumulator may take; all those of a chunk take the same."""
_IS_WIDTH: Final = np.isin(np.arange(256), WIDTHS)


def chunk_count(n: int) -> int:
    """How many chunks n accumulators have."""
    return -(-n // CHUNK)


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """The encoded chunks of a vector, or some of them."""

    widths: np.ndarray
    """uint8 [chunks]: bytes of an accumulator, one of WIDTHS."""
    data: np.ndarray
    """uint8 [256 · Σ widths]: the chunks, one behind the other."""

    @classmethod
    def of(cls, widths: bytes | bytearray | memoryview, data: bytes | bytearray | memoryview) -> Chunks:
        """Bytes that were received.

        Raises:
            EncodingError: a width that is none, or another length than the widths tell.
        """
        codes = np.frombuffer(widths, dtype=np.uint8).copy()
        if packed_size(codes) != len(data):
            raise EncodingError(f"chunks of {packed_size(codes)} bytes were announced, and {len(data)} are there")
        return cls(codes, np.frombuffer(data, dtype=np.uint8))

    def root(self) -> Digest:
        """The 16-ary root over the chunks."""
        return root_of(tagged_digests("assay/exact-chunk/1", self.data, self.widths * np.uint8(CHUNK // 64)))


def packed_size(widths: np.ndarray) -> int:
    """How many bytes chunks of these widths (uint8) have together.

    Raises:
        EncodingError: a width that is none.
    """
    if not _IS_WIDTH[widths].all():
        raise EncodingError("an accumulator's width is none of 4, 5, 6 and 8 bytes")
    return CHUNK * int(widths.sum(dtype=np.int64))


def encode_vector(vector: np.ndarray) -> Chunks:
    """Encode int64 [n]."""
    vector = np.ascontiguousarray(vector, dtype=np.int64)
    whole = len(vector) - len(vector) % CHUNK
    rest = np.zeros(CHUNK, dtype=np.int64)
    rest[: len(vector) - whole] = vector[whole:]
    widths = np.empty(chunk_count(len(vector)), dtype=np.uint8)
    data = np.empty(len(widths) * CHUNK * max(WIDTHS), dtype=np.uint8)
    last = rest.ctypes.data if whole < len(vector) else 0
    return Chunks(widths, data[: pack(vector.ctypes.data, last, widths, data)])


def decode_vector(packed: Chunks, n: int, out: np.ndarray | None = None) -> np.ndarray:
    """Inverse of `encode_vector`, int64 [n]; in `out`, int64 [256 · chunks], if that is given.

    Raises:
        EncodingError: another number of chunks, or no zeros at the end.
    """
    if len(packed.widths) != chunk_count(n):
        raise EncodingError(f"{n} accumulators have {chunk_count(n)} chunks, not {len(packed.widths)}")
    vector = decode_chunks(packed, out)
    if vector[n:].any():
        raise EncodingError("the last chunk of accumulators is not filled up with zeros")
    return vector[:n]


def decode_chunks(packed: Chunks, out: np.ndarray | None = None) -> np.ndarray:
    """All accumulators of the chunks, int64 [256 · chunks]; `out`: where to put them."""
    size = len(packed.widths) * CHUNK
    vector = np.empty(size, dtype=np.int64) if out is None or out.shape != (size,) else out
    unpack_all(packed.widths, packed.data.ctypes.data, vector)
    return vector


def accumulators_root(body: Chunks, head: Chunks | None) -> Digest:
    """Of all accumulators of a pass, where an audit's random numbers have to follow from them."""
    return digest("assay/exact-token/1", body.root(), ZERO if head is None else head.root())
