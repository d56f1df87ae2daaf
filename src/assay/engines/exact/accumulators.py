"""How accumulators are committed to, to be read: chunks, their encoding, and the trees over them.

A vector of accumulators (int64) is cut into chunks of CHUNK, the last one filled up with zeros. A chunk is encoded in
the fewest bytes for each number that hold them all, low words first, then what is above them. `chunks.py` computes the
same digests fast; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from assay.core import tree16
from assay.core.errors import EncodingError
from assay.core.hashing import ZERO, Digest, digest

CHUNK: Final = 256
"""Accumulators of one chunk."""
WIDTHS: Final = (4, 5, 6, 8)
"""Bytes that an accumulator may take; all those of a chunk take the same."""


def encode_chunk(chunk: np.ndarray) -> bytes:
    """The encoding of int64 [CHUNK]: a plane of low words (uint32), then one of high parts (two's complement).

    High parts have width − 4 bytes; all is little-endian. The width is the smallest one that holds every number.
    """
    low = (chunk & 0xFFFFFFFF).astype("<u4")
    high = (chunk >> 32).astype("<i4").view(np.uint8).reshape(CHUNK, 4)
    return low.tobytes() + high[:, : width_of(chunk) - 4].tobytes()


def decode_chunk(data: bytes) -> np.ndarray:
    """Inverse of `encode_chunk`.

    Raises:
        EncodingError: a length that no width has, or not the smallest width.
    """
    width, rest = divmod(len(data), CHUNK)
    if rest or width not in WIDTHS:
        raise EncodingError(f"no chunk of accumulators has {len(data)} bytes")
    low = np.frombuffer(data, "<u4", CHUNK)
    if width == 4:
        chunk = low.view("<i4").astype(np.int64)
    else:
        high = np.frombuffer(data, np.uint8, offset=4 * CHUNK).reshape(CHUNK, width - 4)
        parts = np.zeros((CHUNK, 8), np.uint8)
        parts[:, 12 - width :] = high  # at the top, so that the shift brings the sign down
        chunk = (parts.view("<i8")[:, 0] >> (8 * (12 - width) - 32) & ~np.int64(0xFFFFFFFF)) | low
    if width_of(chunk) != width:
        raise EncodingError(f"a chunk of accumulators takes {width} bytes each where fewer do")
    return chunk


def width_of(chunk: np.ndarray) -> int:
    """The smallest of WIDTHS in which all of int64 [n] fit as two's complement."""
    bits = int((chunk ^ (chunk >> 63)).max(initial=0)).bit_length() + 1
    return next(width for width in WIDTHS if bits <= 8 * width)


def chunk_digest(encoded: bytes | memoryview) -> Digest:
    """The leaf of one encoded chunk."""
    return digest("assay/exact-chunk/1", encoded)


def chunk_count(n: int) -> int:
    """How many chunks n accumulators have."""
    return -(-n // CHUNK)


def chunks_of(vector: np.ndarray) -> np.ndarray:
    """int64 [n] as int64 [chunks, CHUNK], filled up with zeros."""
    chunks = np.zeros((chunk_count(len(vector)), CHUNK), dtype=np.int64)
    chunks.reshape(-1)[: len(vector)] = vector
    return chunks


def vector_root(vector: np.ndarray) -> Digest:
    """The root over the chunks of int64 [n]."""
    return tree16.root([chunk_digest(encode_chunk(chunk)) for chunk in chunks_of(vector)])


def token_leaf(body_root: Digest, head_root: Digest = ZERO) -> Digest:
    """What one token's pass is committed to: the roots over its body and its head; ZERO where it had no head."""
    return digest("assay/exact-token/1", body_root, head_root)


def prompt_leaf(leaves: Sequence[Digest]) -> Digest:
    """The evidence of the first output token: the root over the leaves of all prompt tokens, in order."""
    return tree16.root(leaves)


def evidence_leaves(leaves: Sequence[Digest], prompt: int) -> list[Digest]:
    """The evidence of each output token, given the leaves of all passes, of which the first `prompt` are the prompt's.

    The first output token is predicted by the whole prompt, each later one by the pass over the one before it.
    """
    return [prompt_leaf(leaves[:prompt]), *leaves[prompt:]]
