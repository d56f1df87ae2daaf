"""Whole vectors at speed are what the specification says, chunk by chunk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.exact.accumulator_kit import EDGES, SIZES, vector

from assay.core.errors import EncodingError, TraceMismatch
from assay.engines.exact import accumulators, chunks
from assay.engines.exact.accumulators import chunks_of, encode_chunk, token_leaf
from assay.engines.exact.chunks import Chunks, check_vector, commit, decode_vector, encode_vector, packed_size
from assay.engines.exact.kernels import sha256


@settings(deadline=None)
@given(st.integers(0, 2**32), SIZES)
def test_encoding_and_root_are_those_specified(seed: int, n: int) -> None:
    """Every chunk has the bytes that `encode_chunk` gives it, and the vector the same root; it comes back."""
    x = vector(seed, n)
    encoded = encode_vector(x)
    assert encoded.data.tobytes() == b"".join(map(encode_chunk, chunks_of(x)))
    assert encoded.root() == chunks.vector_root(x) == accumulators.vector_root(x)
    assert (check_vector(encoded, n, encoded.root()) == x).all()


def test_every_edge_in_every_place_of_a_register() -> None:
    """One number at an edge among zeros, in each lane."""
    for i, edge in enumerate(EDGES):
        x = np.zeros(256, dtype=np.int64)
        x[i % 256] = max(-(2**63), min(edge, 2**63 - 1))
        encoded = encode_vector(x)
        assert encoded.data.tobytes() == encode_chunk(x)
        assert (decode_vector(encoded, 256) == x).all()


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 33, 256, 257, 300])
def test_any_number_of_chunks(count: int) -> None:
    """Trees with whole nodes, a rest, both, or one leaf."""
    x = vector(count, 256 * count - 3)
    assert chunks.vector_root(x) == accumulators.vector_root(x)


def test_hashlib_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processor has no lanes."""
    x, head = vector(1, 20_000), vector(2, 300)
    leaf = commit(x, head)
    monkeypatch.setattr(sha256, "side_by_side", lambda: False)
    assert commit(x, head) == leaf


def test_a_pass_without_a_head() -> None:
    """Its leaf has zeros for the head's root."""
    x = vector(3, 1000)
    assert commit(x, None) == token_leaf(accumulators.vector_root(x))
    assert commit(x, x) == token_leaf(*[accumulators.vector_root(x)] * 2)


def test_slices_and_read_only_vectors() -> None:
    """What numpy gives counts, not how it lies in memory; bytes may lie anywhere."""
    x = vector(4, 6000)
    frozen = x.copy()
    frozen.flags.writeable = False
    twice = np.repeat(x, 2)
    assert chunks.vector_root(frozen) == chunks.vector_root(twice[::2]) == chunks.vector_root(x)
    encoded = encode_vector(x)
    shifted = memoryview(b"x" + encoded.data.tobytes())[1:]
    assert (check_vector(Chunks.of(encoded.widths.tobytes(), shifted), 6000, encoded.root()) == x).all()


def test_nothing_at_all() -> None:
    """An empty vector has a root too."""
    assert chunks.vector_root(np.zeros(0, np.int64)) == accumulators.vector_root(np.zeros(0, np.int64))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    """In a width or in a chunk: it is no encoding then, or not that of this vector."""
    n = data.draw(st.sampled_from([300, 5000]))
    encoded = encode_vector(vector(data.draw(st.integers(0, 20)), n))
    widths, chunks = bytearray(encoded.widths.tobytes()), bytearray(encoded.data.tobytes())
    part = data.draw(st.sampled_from([widths, chunks]))
    part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((EncodingError, TraceMismatch)):
        check_vector(Chunks.of(widths, chunks), n, encoded.root())


def test_refusals() -> None:
    """Unknown widths, other lengths, wide chunks, too few or many chunks, and numbers behind the end."""
    x = vector(5, 1000)
    encoded = encode_vector(x)
    data = encoded.data.tobytes()
    for width in (0, 3, 7, 9, 255):
        with pytest.raises(EncodingError, match="width"):
            packed_size(np.array([4, width], dtype=np.uint8))
    with pytest.raises(EncodingError, match="announced"):
        Chunks.of(encoded.widths.tobytes(), data[:-1])
    for n in (768, 1025):
        with pytest.raises(EncodingError, match="4"):
            decode_vector(encoded, n)
    with pytest.raises(EncodingError, match="chunk 1 takes 5 bytes"):
        decode_vector(Chunks.of(b"\x04\x05", bytes(256 * 9)), 512)
    tail = encode_vector(np.ones(256, np.int64))
    with pytest.raises(EncodingError, match="zeros"):
        decode_vector(tail, 255)
    with pytest.raises(TraceMismatch):
        check_vector(encoded, 1000, tail.root())
