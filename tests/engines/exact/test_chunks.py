"""Accumulators on their way: the bytes are those specified, and come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.exact.trace_kit import EDGES, SIZES, encode, vector

from assay.core import tree16
from assay.core.errors import EncodingError
from assay.core.hashing import ZERO, digest
from assay.engines.exact.chunks import Chunks, accumulators_root, decode_vector, encode_vector, packed_size


def spelled(x: np.ndarray) -> list[bytes]:
    """Every chunk as the specification encodes it."""
    whole = np.zeros(-(-len(x) // 256) * 256, np.int64)
    whole[: len(x)] = x
    return [encode(part) for part in whole.reshape(-1, 256).tolist()]


@settings(deadline=None)
@given(st.integers(0, 2**32), SIZES)
def test_the_encoding_is_that_specified(seed: int, n: int) -> None:
    """In the fewest bytes, chunk by chunk; and it comes back, into new memory or into memory that is given."""
    x = vector(seed, n)
    encoded = encode_vector(x)
    chunks = spelled(x)
    assert encoded.data.tobytes() == b"".join(chunks)
    assert encoded.root() == tree16.root([digest("assay/exact-chunk/1", chunk) for chunk in chunks])
    room = np.full(len(encoded.widths) * 256, 7)
    assert (decode_vector(encoded, n, room) == x).all()
    assert (decode_vector(encoded, n) == x).all()


def test_every_edge_in_every_place_of_a_register() -> None:
    """One number at an edge among zeros, in each lane."""
    for i, edge in enumerate(EDGES):
        x = np.zeros(256, dtype=np.int64)
        x[i % 256] = max(-(2**63), min(edge, 2**63 - 1))
        encoded = encode_vector(x)
        assert encoded.data.tobytes() == encode(x.tolist())
        assert (decode_vector(encoded, 256) == x).all()


def test_slices_and_read_only_vectors() -> None:
    """What numpy gives counts, not how it lies in memory; bytes may lie anywhere."""
    x = vector(4, 6000)
    frozen = x.copy()
    frozen.flags.writeable = False
    encoded = encode_vector(x)
    for other in (frozen, np.repeat(x, 2)[::2]):
        assert encode_vector(other).data.tobytes() == encoded.data.tobytes()
    shifted = memoryview(b"x" + encoded.data.tobytes())[1:]
    assert (decode_vector(Chunks.of(encoded.widths.tobytes(), shifted), 6000) == x).all()


def test_the_root_of_a_pass() -> None:
    """Over body and head; zeros where there is none."""
    x = encode_vector(vector(3, 1000))
    assert accumulators_root(x, None) == digest("assay/exact-token/1", x.root(), ZERO)
    assert accumulators_root(x, x) == digest("assay/exact-token/1", x.root(), x.root())


def test_refusals() -> None:
    """Unknown widths, other lengths, too few or many chunks, and numbers behind the end."""
    encoded = encode_vector(vector(5, 1000))
    for width in (0, 3, 7, 9, 255):
        with pytest.raises(EncodingError, match="width"):
            packed_size(np.array([4, width], dtype=np.uint8))
    with pytest.raises(EncodingError, match="announced"):
        Chunks.of(encoded.widths.tobytes(), encoded.data.tobytes()[:-1])
    for n in (768, 1025):
        with pytest.raises(EncodingError, match="4"):
            decode_vector(encoded, n)
    with pytest.raises(EncodingError, match="zeros"):
        decode_vector(encode_vector(np.ones(256, np.int64)), 255)
