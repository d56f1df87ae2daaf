"""Whole vectors of accumulators, encoded, committed to and checked at speed; `accumulators.py` is the specification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assay.core import tree16
from assay.core.errors import EncodingError, TraceMismatch
from assay.core.hashing import ZERO, Digest, digest
from assay.engines.exact.accumulators import CHUNK, WIDTHS, chunk_count, token_leaf
from assay.engines.exact.kernels.packing import pack, unpack
from assay.engines.exact.kernels.sha256 import tagged_digests


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

    @property
    def bounds(self) -> np.ndarray:
        """int64 [chunks + 1]: where in `data` each chunk begins, and the last one ends."""
        bounds = np.zeros(len(self.widths) + 1, dtype=np.int64)
        np.cumsum(self.widths, dtype=np.int64, out=bounds[1:])
        bounds *= CHUNK
        return bounds

    def digests(self) -> np.ndarray:
        """The digest of each chunk, uint8 [chunks, 32]."""
        return tagged_digests("assay/exact-chunk/1", self.data, self.widths * np.uint8(CHUNK // 64))

    def root(self) -> Digest:
        """The root over the chunks."""
        return root_of(self.digests())

    def chosen(self, chunks: np.ndarray) -> Chunks:
        """Only these chunks; int64 indices."""
        bounds = self.bounds
        parts = [self.data[bounds[i] : bounds[i + 1]] for i in chunks]
        return Chunks(self.widths[chunks], np.concatenate([*parts, np.empty(0, np.uint8)]))


def packed_size(widths: np.ndarray) -> int:
    """How many bytes chunks of these widths (uint8) have together.

    Raises:
        EncodingError: a width that is none.
    """
    counts = np.bincount(widths, minlength=max(WIDTHS) + 1)
    if int(counts[list(WIDTHS)].sum()) != len(widths):
        raise EncodingError("an accumulator's width is none of 4, 5, 6 and 8 bytes")
    return CHUNK * sum(width * int(counts[width]) for width in WIDTHS)


def digest_list(digests: np.ndarray) -> list[Digest]:
    """uint8 [n, 32] as n digests."""
    data = digests.tobytes()
    return [data[i : i + 32] for i in range(0, len(data), 32)]


def root_of(digests: np.ndarray) -> Digest:
    """The root over uint8 [chunks, 32]: `tree16.root`, with the lowest level of nodes computed side by side."""
    whole = len(digests) // tree16.FAN
    blocks = np.full(whole, 32 * tree16.FAN // 64, dtype=np.uint8)
    nodes = digest_list(tagged_digests("assay/exact-node/1", digests.reshape(-1), blocks)) if whole else []
    rest = digests[whole * tree16.FAN :]
    if len(digests) == 1:
        nodes = digest_list(rest)
    elif len(rest):
        nodes.append(digest("assay/exact-node/1", rest.tobytes()))
    return tree16.seal(len(digests), tree16.top(nodes))


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


def decode_vector(packed: Chunks, n: int) -> np.ndarray:
    """Inverse of `encode_vector`, int64 [n].

    Raises:
        EncodingError: another number of chunks, a width that is not the smallest one, or no zeros at the end.
    """
    if len(packed.widths) != chunk_count(n):
        raise EncodingError(f"{n} accumulators have {chunk_count(n)} chunks, not {len(packed.widths)}")
    vector = decode_chunks(packed)
    if vector[n:].any():
        raise EncodingError("the last chunk of accumulators is not filled up with zeros")
    return vector[:n]


def decode_chunks(packed: Chunks) -> np.ndarray:
    """All accumulators of the chunks, int64 [256 · chunks].

    Raises:
        EncodingError: a width that is not the smallest one.
    """
    vector = np.empty(len(packed.widths) * CHUNK, dtype=np.int64)
    wrong = unpack(packed.widths, packed.data.ctypes.data, vector)
    if wrong >= 0:
        raise EncodingError(f"chunk {wrong} takes {packed.widths[wrong]} bytes an accumulator where fewer do")
    return vector


def vector_root(vector: np.ndarray) -> Digest:
    """The root over the chunks of int64 [n]."""
    return encode_vector(vector).root()


def check_vector(packed: Chunks, n: int, expected_root: Digest) -> np.ndarray:
    """The accumulators, int64 [n], of received chunks that have this root.

    Raises:
        EncodingError: they are not the encoding of any vector.
        TraceMismatch: they are that of another vector.
    """
    vector = decode_vector(packed, n)
    if packed.root() != expected_root:
        raise TraceMismatch("the accumulators are not those that were committed to")
    return vector


def commit(body: np.ndarray, head: np.ndarray | None) -> Digest:
    """The leaf of a token's pass: int64 [body size] and, where it had one, int64 [vocabulary]."""
    return token_leaf(vector_root(body), ZERO if head is None else vector_root(head))
