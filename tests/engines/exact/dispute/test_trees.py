"""Openings of runs of leaves, descents, the evidence and moves."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import BindingMismatch, EncodingError
from assay.core.hashing import digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.evidence import evidence_of
from assay.engines.exact.dispute.moves import Branch, Challenge, decode_indices, encode_indices


def leaves_of(count: int) -> list[bytes]:
    """Distinct digests."""
    return [hashlib.sha256(i.to_bytes(4)).digest() for i in range(count)]


def plain_root(level: list[bytes]) -> bytes:
    """The root, as the protocol says it."""
    count = len(level)
    while len(level) > 1:
        level = [digest("assay/exact-node/1", *level[i : i + 16]) for i in range(0, len(level), 16)]
    return digest("assay/exact-root/1", count.to_bytes(8), level[0])


@given(st.integers(1, 900), st.data())
def test_runs(count: int, data: st.DataObject) -> None:
    """A run of leaves is opened, and no other leaf, place, length or path is."""
    leaves = leaves_of(count)
    levels = trees.levels_of(leaves)
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, min(count, start + 40)))
    path, root = trees.prove(levels, start, stop), trees.root_of(levels)
    assert root == plain_root(leaves)
    assert len(path) == trees.path_length(count, start, stop)
    assert trees.climb(count, start, leaves[start:stop], path) == root
    other = [*leaves[start : stop - 1], bytes(32)]
    assert trees.climb(count, start, other, path) != root
    for items, place, way in (
        (leaves[start:stop], start + 1, path),
        (leaves[start:stop], start, [*path, bytes(32)]),
        (leaves[start:stop], -1, path),
        (leaves[start:stop], start, path[1:] if path else [bytes(32)]),
        ([], start, path),
    ):
        assert not opens(count, place, items, way, root)


def opens(count: int, start: int, items: list[bytes], path: list[bytes], root: bytes) -> bool:
    """Whether it is a proof."""
    try:
        return trees.climb(count, start, items, path) == root
    except BindingMismatch:
        return False


@given(st.integers(1, 70_000), st.data())
def test_descents(count: int, data: st.DataObject) -> None:
    """Each move shows what is under the named node, at most 256 digests, and the last one leaves."""
    leaf = data.draw(st.integers(0, count - 1))
    level, moves = trees.first_level(count), 1
    assert trees.sizes_of(count)[level] <= trees.MOST_NODES
    while level:
        lower, start, stop = trees.below(count, level, leaf // 16**level)
        assert start <= leaf // 16**lower < stop <= start + trees.MOST_NODES
        level, moves = lower, moves + 1
    assert moves == trees.moves(count)


def test_nodes_lead_to_the_root() -> None:
    """The first level of a descent gives the root; another number of digests is refused."""
    for count in (1, 16, 300, 5000):
        levels = trees.levels_of(leaves_of(count))
        nodes = levels[trees.first_level(count)]
        assert trees.root_over(count, nodes) == trees.root_of(levels)
        with pytest.raises(BindingMismatch):
            trees.root_over(count, nodes[1:])
    assert trees.root_over(0, []) == trees.root_of(trees.levels_of([]))


@given(st.integers(1, 40), st.integers(1, 20), st.data())
def test_evidence(prompt: int, output: int, data: st.DataObject) -> None:
    """Each pass is opened; another leaf, place or path is not."""
    leaves = leaves_of(prompt + output - 1)
    evidence = evidence_of(leaves, b"nonce", prompt)
    at = data.draw(st.integers(0, len(leaves) - 1))
    path = evidence.prove(leaves, at, b"nonce")
    assert len(path) == evidence.path_length(at)
    evidence.verify(at, leaves[at], path)
    spoiled = data.draw(st.integers(0, len(path) - 1))
    wrong = [*path[:spoiled], bytes(32), *path[spoiled + 1 :]]
    for place, leaf, way in ((at, bytes(32), path), (at, leaves[at], wrong), (at, leaves[at], path[1:])):
        with pytest.raises(BindingMismatch):
            evidence.verify(place, leaf, way)
    with pytest.raises(BindingMismatch):
        evidence.verify(len(leaves), leaves[at], path)


def test_moves_have_one_spelling() -> None:
    """What a challenger writes is read back; anything else is refused."""
    for challenge in (Challenge(5), Challenge(7, token=True), Challenge(2**32 - 1)):
        assert Challenge.decode(challenge.encode()) == challenge
    for branch in (Branch(3, None), Branch(None, 0), Branch(7, 255)):
        assert Branch.decode(branch.encode()) == branch
    assert decode_indices(encode_indices(5, 6), 2) == (5, 6)
    for read, data in (
        (Challenge.decode, bytes(6)),
        (Challenge.decode, bytes([0, 0, 0, 1, 2])),
        (Branch.decode, bytes(7)),
        (Branch.decode, b"\xff" * 8),
        (lambda data: decode_indices(data, 1), bytes(5)),
    ):
        with pytest.raises(EncodingError):
            read(data)
