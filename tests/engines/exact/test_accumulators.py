"""The encoding of chunks, and what they are committed to."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.exact.accumulator_kit import EDGES

from assay.core.errors import EncodingError
from assay.engines.exact.accumulators import (
    decode_chunk,
    encode_chunk,
    evidence_leaves,
    prompt_leaf,
    token_leaf,
    vector_root,
)


def tagged(tag: str, data: bytes) -> bytes:
    """BIP-340's tagged hash, spelled out."""
    prefix = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(prefix + prefix + data).digest()


def naive(values: list[int]) -> bytes:
    """The encoding in Python's own integers."""
    width = next(w for w in (4, 5, 6, 8) if all(-(2 ** (8 * w - 1)) <= x < 2 ** (8 * w - 1) for x in values))
    spelled = [x.to_bytes(width, "little", signed=True) for x in values]
    return b"".join(x[:4] for x in spelled) + b"".join(x[4:] for x in spelled)


@given(st.sampled_from(EDGES).map(lambda x: min(max(x, -(2**63)), 2**63 - 1)), st.integers(0, 255), st.integers(-9, 9))
def test_one_number_decides_the_width(edge: int, place: int, others: int) -> None:
    """A chunk takes the fewest bytes that hold its largest number, and comes back."""
    values = [others] * 256
    values[place] = edge
    chunk = np.array(values, dtype=np.int64)
    encoded = encode_chunk(chunk)
    assert encoded == naive(values)
    assert (decode_chunk(encoded) == chunk).all()


@given(st.integers(0, 63), st.integers(0, 2**32))
def test_any_chunk(bits: int, seed: int) -> None:
    """Chunks full of numbers of any size."""
    chunk = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, 256) >> bits
    assert encode_chunk(chunk) == naive(chunk.tolist())
    assert (decode_chunk(encode_chunk(chunk)) == chunk).all()


def test_other_encodings_are_refused() -> None:
    """Lengths that no width has, and wider planes than are needed."""
    for size in (0, 1, 1023, 1025, 1792, 2304, 4096):
        with pytest.raises(EncodingError, match=f"{size} bytes"):
            decode_chunk(bytes(size))
    for value, width in ((2**31 - 1, 5), (-(2**31), 5), (2**39 - 1, 6), (-(2**39), 6), (2**47 - 1, 8), (-(2**47), 8)):
        spelled = value.to_bytes(width, "little", signed=True)
        with pytest.raises(EncodingError, match="fewer do"):
            decode_chunk(spelled[:4] * 256 + spelled[4:] * 256)
        assert len(encode_chunk(np.full(256, value))) < 256 * width


def test_commitments_are_tagged_digests() -> None:
    """Chunk, root, token and prompt, spelled out."""
    x = np.arange(300, dtype=np.int64) << 20
    first, second = (
        tagged("assay/exact-chunk/1", naive(part)) for part in (x[:256].tolist(), [*x[256:].tolist(), *[0] * 212])
    )
    node = tagged("assay/exact-node/1", first + second)
    root = tagged("assay/exact-root/1", (2).to_bytes(8, "big") + node)
    assert vector_root(x) == root
    assert token_leaf(root) == tagged("assay/exact-token/1", root + bytes(32))
    assert token_leaf(root, first) == tagged("assay/exact-token/1", root + first)
    assert prompt_leaf([first]) == tagged("assay/exact-root/1", (1).to_bytes(8, "big") + first)
    assert evidence_leaves([first, second, node], 2) == [prompt_leaf([first, second]), node]
