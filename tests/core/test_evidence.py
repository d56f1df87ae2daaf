"""Evidence leaves and their root."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import merkle
from assay.core.completion import TopLogprobs
from assay.core.errors import EncodingError
from assay.core.evidence import (
    LOGPROB_SCALE,
    TOP_K,
    TOP_LEAF_SIZE,
    evidence_root,
    logits_leaf,
    read_top_leaf,
    split_opening,
    top_leaf,
)
from assay.core.hashing import digest

LOGPROB = st.floats(-1e5, 0)
NONCE = bytes(range(32))


def test_a_pinned_leaf_covers_the_float32_bytes() -> None:
    """The leaf is the tagged digest of the little-endian floats, however they lie in memory; -0.0 is not 0.0."""
    row = np.array([0.0, 1.5, -2.25, 3e38], dtype=np.float32)
    prefix = hashlib.sha256(b"assay/logits/1").digest()
    expected = hashlib.sha256(prefix + prefix + b"".join(np.float32(x).tobytes() for x in row)).digest()
    assert logits_leaf(row) == expected
    assert logits_leaf(np.repeat(row, 2)[::2]) == expected
    assert logits_leaf(row.astype(">f4")) == expected
    assert logits_leaf(row.astype(np.float64)) == expected
    assert logits_leaf(np.array([-0.0, 1.5, -2.25, 3e38], dtype=np.float32)) != expected
    for i in range(row.size):
        other = row.copy()
        other[i] = np.nextafter(other[i], np.float32(0.1))
        assert logits_leaf(other) != expected


@given(LOGPROB, st.lists(st.tuples(st.integers(0, 2**32 - 1), LOGPROB), min_size=1, max_size=TOP_K + 2))
def test_a_statistical_leaf_keeps_what_it_says(chosen: float, pairs: list[tuple[int, float]]) -> None:
    """Ids come back exactly and log-probabilities to half of 1/4096 nat; TOP_K pairs, the last one repeated."""
    leaf = top_leaf(TopLogprobs(chosen, tuple(i for i, _ in pairs), tuple(x for _, x in pairs)))
    assert len(leaf) == TOP_LEAF_SIZE
    again = read_top_leaf(leaf)
    assert abs(again.chosen - chosen) <= 0.5 / LOGPROB_SCALE
    kept = pairs[:TOP_K] + [pairs[-1]] * (TOP_K - len(pairs))
    assert again.ids == tuple(i for i, _ in kept)
    assert all(abs(x - y) <= 0.5 / LOGPROB_SCALE for x, (_, y) in zip(again.logprobs, kept, strict=True))
    assert top_leaf(again) == leaf


def test_the_layout_of_a_statistical_leaf() -> None:
    """Seventeen unsigned 32-bit big-endian words: chosen, then (id, log-probability) pairs, in -1/4096 nat."""
    leaf = top_leaf(TopLogprobs(-0.5, (7, 300), (-0.25, -3.0)))
    words = [int.from_bytes(leaf[i : i + 4], "big") for i in range(0, len(leaf), 4)]
    assert words == [2048, 7, 1024, *[300, 12288] * 7]


@pytest.mark.parametrize(
    ("logprob", "word"),
    [
        (-0.0, 0),
        (1e-9, 0),
        (5.0, 0),
        (-float("inf"), 2**32 - 1),
        (float("nan"), 2**32 - 1),
        (-1e9, 2**32 - 1),
        (-2e6, 2**32 - 1),
    ],
)
def test_log_probabilities_without_a_place_are_capped(logprob: float, word: int) -> None:
    """Nothing that an engine may return crashes: over 0 is 0, minus infinity and NaN are the least."""
    leaf = top_leaf(TopLogprobs(logprob, (0,), (logprob,)))
    assert int.from_bytes(leaf[:4], "big") == int.from_bytes(leaf[8:12], "big") == word


def test_a_leaf_without_log_probabilities_is_refused() -> None:
    """There is nothing to check in it."""
    with pytest.raises(EncodingError):
        top_leaf(TopLogprobs(-1.0, (), ()))


def test_leaves_of_another_length_are_refused() -> None:
    """An opening is a whole number of leaves."""
    for leaf in (b"", bytes(TOP_LEAF_SIZE - 1), bytes(TOP_LEAF_SIZE + 1)):
        with pytest.raises(EncodingError):
            read_top_leaf(leaf)
    for opening in (b"x", bytes(TOP_LEAF_SIZE - 1), bytes(TOP_LEAF_SIZE + 1)):
        with pytest.raises(EncodingError):
            split_opening(opening)
    assert split_opening(b"") == ()
    leaves = (b"a" * TOP_LEAF_SIZE, b"b" * TOP_LEAF_SIZE)
    assert split_opening(b"".join(leaves)) == leaves


def test_the_root_is_salted_and_ordered() -> None:
    """The evidence digest is the salted Merkle root: other nonces, leaves, orders and counts give other digests."""
    leaves = [b"a", b"b", b"c"]
    salt = digest("assay/evidence-salt/1", NONCE)
    expected = digest("assay/evidence/2", salt, merkle.root([merkle.leaf(item) for item in leaves]))
    assert evidence_root(leaves, NONCE) == expected
    others = [
        (leaves[::-1], NONCE),
        (leaves[:2], NONCE),
        (leaves, bytes(32)),
        ([], NONCE),
        ([b""], NONCE),
        ([], bytes(32)),
    ]
    assert len({evidence_root(*other) for other in others} | {expected}) == len(others) + 1
