"""Records: where everything stands, and the roots over it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.exact.trace_kit import LAYOUT, record

from assay.core import tree16
from assay.core.hashing import digest
from assay.engines.exact.kernels import sha256
from assay.engines.exact.record import (
    RecordLayout,
    chunk_digests,
    evidence_leaves,
    first_difference,
    prompt_leaf,
    record_root,
    root_of,
)

SMOL = RecordLayout(layers=30, width=576, heads=9, kv_heads=3, head_width=64, feed=1536)
SIZES = st.integers(1, 4)


@given(
    st.builds(
        RecordLayout, layers=SIZES, width=st.integers(1, 300), heads=SIZES, kv_heads=SIZES, head_width=SIZES, feed=SIZES
    )
)
def test_every_number_has_a_name(layout: RecordLayout) -> None:
    """Each vector of each layer has as many numbers as it should, and nothing stands twice."""
    names = [layout.name(i) for i in range(layout.chunks * 256)]
    for layer in range(layout.layers):
        for name, (_, size) in layout.parts.items():
            assert names.count((layer, name)) == size
    assert names.count((None, "head input")) == layout.width + 1
    kept = layout.kept_chunks * 256
    assert all(name in ("keys", "values", "nothing") for _, name in names[:kept])
    assert not any(name in ("keys", "values") for _, name in names[kept:])


def test_sizes_of_a_real_model() -> None:
    """SmolLM2-135M commits to 221 KB a pass, of which later passes need 24."""
    assert (SMOL.chunks * 512, SMOL.kept_chunks * 512) == (221_184, 23_552)


def test_roots_are_those_specified() -> None:
    """Chunks of 512 little-endian bytes under two 16-ary trees, joined."""
    x = record(3)
    chunks = [digest("assay/exact-chunk/1", part.astype("<i2").tobytes()) for part in x.reshape(-1, 256)]
    kept = LAYOUT.kept_chunks
    both = digest("assay/exact-token/1", tree16.root(chunks[:kept]), tree16.root(chunks[kept:]))
    assert record_root(LAYOUT, x) == both


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 31, 33, 255, 256, 257, 300])
def test_any_number_of_leaves(count: int) -> None:
    """Trees with whole nodes, a rest, both, or one leaf."""
    leaves = [hashlib.sha256(b"%d" % i).digest() for i in range(count)]
    assert root_of(np.frombuffer(b"".join(leaves), np.uint8).reshape(-1, 32)) == tree16.root(leaves)


def test_hashlib_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processor has no lanes."""
    root = record_root(LAYOUT, record(1))
    monkeypatch.setattr(sha256, "side_by_side", lambda: False)
    assert record_root(LAYOUT, record(1)) == root


def test_the_evidence_of_outputs() -> None:
    """The first is predicted by the whole prompt, each other by the pass before it."""
    a, b, c, d = (bytes([n]) * 32 for n in range(4))
    assert evidence_leaves([a, b, c, d], 2) == [prompt_leaf([a, b]), c, d]
    assert prompt_leaf([a, b]) == tree16.root([a, b])


def test_where_records_differ() -> None:
    """The vectors of the first chunk that differs are named, and nothing if none does."""
    x, y = record(1), record(1)
    mine = chunk_digests(x.reshape(-1, 256))
    assert not list(first_difference(LAYOUT, mine, mine))
    index = LAYOUT.parts["gated"][0] + LAYOUT.inputs_step + 40
    y[index] ^= 1
    y[-1] ^= 1
    named = list(first_difference(LAYOUT, mine, chunk_digests(y.reshape(-1, 256))))
    assert (1, "gated") in named
    assert LAYOUT.name(index) == (1, "gated")
