"""Merkle trees of sixteen children a node."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import tree16
from assay.core.errors import BindingMismatch

COUNTS = st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33, 255, 256, 257, 272, 273, 608])


def tagged(tag: str, data: bytes) -> bytes:
    """BIP-340's tagged hash, spelled out."""
    prefix = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(prefix + prefix + data).digest()


def some(count: int) -> list[bytes]:
    """Leaves that differ."""
    return [hashlib.sha256(b"%d" % i).digest() for i in range(count)]


def naive_top(leaves: list[bytes]) -> bytes:
    """From above: the largest power of 16 below the number of leaves is what a child covers."""
    if len(leaves) == 1:
        return leaves[0]
    span = 1
    while span * 16 < len(leaves):
        span *= 16
    parts = [leaves[i : i + span] for i in range(0, len(leaves), span)]
    return tagged("assay/exact-node/1", b"".join(lifted(part, span) for part in parts))


def lifted(leaves: list[bytes], span: int) -> bytes:
    """The node over these at the level where a full one covers `span` leaves."""
    if span == 1:
        return leaves[0]
    step = span // 16
    parts = [leaves[i : i + step] for i in range(0, len(leaves), step)]
    return tagged("assay/exact-node/1", b"".join(lifted(part, step) for part in parts))


@given(st.integers(0, 300))
def test_root_is_that_of_a_tree_from_above(count: int) -> None:
    """Levels built bottom up and a recursion from the top agree."""
    leaves = some(count)
    top = naive_top(leaves) if leaves else bytes(32)
    assert tree16.root(leaves) == tagged("assay/exact-root/1", count.to_bytes(8, "big") + top)


@given(COUNTS, st.data())
def test_every_leaf_has_a_proof_and_no_other_place(count: int, data: st.DataObject) -> None:
    """A proof shows its leaf at its index, and nothing at another index, count, root, path or content."""
    leaves = some(count)
    root, index = tree16.root(leaves), data.draw(st.integers(0, count - 1))
    path = tree16.prove(leaves, index)
    tree16.verify(root, count, index, leaves[index], path)
    wrong, step = bytes(31) + b"\x01", data.draw(st.integers(0, max(0, len(path) - 1)))
    other = data.draw(st.integers(-1, count).filter(lambda i: i != index))
    claims = [
        (root, count + 1, index, leaves[index], path),
        (root, count - 1, index, leaves[index], path),
        (root, count, other, leaves[index], path),
        (root, count, index, wrong, path),
        (wrong, count, index, leaves[index], path),
        (root, count, index, leaves[index], (*path, wrong)),
        (root, count, index, leaves[index] + b"x", path),
    ]
    if path:
        claims += [
            (root, count, index, leaves[index], (*path[:step], wrong, *path[step + 1 :])),
            (root, count, index, leaves[index], path[:-1]),
            (root, count, index, leaves[index][:-1], (leaves[index][-1:] + path[0], *path[1:])),
            (root, count, index, b"", (leaves[index] + path[0], *path[1:])),
        ]
    for claim in claims:
        with pytest.raises(BindingMismatch):
            tree16.verify(*claim)


def test_inner_nodes_and_counts_are_not_leaves() -> None:
    """A tree is not passed off as a shorter one whose leaves are its inner nodes, nor padded with itself."""
    leaves = some(33)
    trees = [[], leaves[:1], leaves[:1] * 2, leaves, leaves[:32], [*leaves, leaves[-1]], tree16.parents(leaves)]
    assert len({tree16.root(items) for items in trees}) == len(trees)


def test_a_count_beyond_64_bits_is_refused() -> None:
    """A hostile count is a mismatch, not a crash."""
    with pytest.raises(BindingMismatch):
        tree16.verify(bytes(32), 2**64, 1, bytes(32), [bytes(32)] * 240)


def test_no_proof_of_a_leaf_that_is_not_there() -> None:
    """Asking for a leaf beyond the end is the caller's mistake."""
    for index in (-1, 1):
        with pytest.raises(IndexError):
            tree16.prove(some(1), index)
