"""Merkle roots and proofs."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import merkle
from assay.core.errors import BindingMismatch

LEAVES = st.lists(st.binary(max_size=4), max_size=40).map(lambda items: [merkle.leaf(item) for item in items])


def tagged(tag: str, data: bytes) -> bytes:
    """BIP-340's tagged hash, spelled out."""
    prefix = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(prefix + prefix + data).digest()


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962's tree, bottom up: neighbours are paired, an odd one waits for the next level."""
    level = leaves or [bytes(32)]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [tagged("assay/merkle-node/1", b"".join(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
    return tagged("assay/merkle-root/1", len(leaves).to_bytes(8, "big") + level[0])


@given(LEAVES)
def test_root_is_that_of_a_bottom_up_tree(leaves: list[bytes]) -> None:
    """The recursive definition and the bottom-up one agree."""
    assert merkle.root(leaves) == naive_root(leaves)


@given(LEAVES.filter(bool), st.data())
def test_every_leaf_has_a_proof_and_no_other_place(leaves: list[bytes], data: st.DataObject) -> None:
    """A proof shows its leaf at its index, and nothing at another index, count, root, path or content."""
    root, index = merkle.root(leaves), data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.prove(leaves, index)
    merkle.verify(root, len(leaves), index, leaves[index], path)
    wrong = merkle.leaf(b"something else")
    claims = [
        (root, len(leaves) + 1, index, leaves[index], path),
        (root, len(leaves) - 1, index, leaves[index], path),
        (root, len(leaves), index, wrong, path),
        (wrong, len(leaves), index, leaves[index], path),
        (root, len(leaves), index, leaves[index], (*path, wrong)),
        (root, len(leaves), index, leaves[index], (wrong, *path)),
        (root, len(leaves), -1, leaves[index], path),
        (root, len(leaves), len(leaves), leaves[index], path),
        (root, len(leaves), index, leaves[index] + b"x", path),
        *((root, len(leaves), index, leaves[index], (*path[:i], wrong, *path[i + 1 :])) for i in range(len(path))),
    ]
    claims += [
        (root, len(leaves), other, leaves[index], path)
        for other in range(len(leaves))
        if leaves[other] != leaves[index]
    ]
    if path:
        claims += [
            (root, len(leaves), index, leaves[index], path[:-1]),
            (root, len(leaves), index, leaves[index][:-1], (leaves[index][-1:] + path[0], *path[1:])),
            (root, len(leaves), index, b"", (path[0] + leaves[index], *path[1:])),
            (root, len(leaves), index, b"", (leaves[index] + path[0], *path[1:])),
        ]
    for claim in claims:
        with pytest.raises(BindingMismatch):
            merkle.verify(*claim)


def test_inner_nodes_and_counts_are_not_leaves() -> None:
    """A tree is not passed off as a shorter one whose leaves are its inner nodes, nor padded with itself."""
    a, b, c, d = leaves = [merkle.leaf(bytes([i])) for i in range(4)]
    inner = [tagged("assay/merkle-node/1", a + b), tagged("assay/merkle-node/1", c + d)]
    assert len({merkle.root(items) for items in ([], [a], [a, a], [a, b, c], leaves, [*leaves, d], inner)}) == 7


def test_a_count_beyond_64_bits_is_refused() -> None:
    """A hostile count is a mismatch, not a crash."""
    with pytest.raises(BindingMismatch):
        merkle.verify(bytes(32), 2**64, 1, bytes(32), [bytes(32)] * 64)


def test_no_proof_of_a_leaf_that_is_not_there() -> None:
    """Asking for a leaf beyond the end is the caller's mistake."""
    for index in (-1, 1):
        with pytest.raises(IndexError):
            merkle.prove([merkle.leaf(b"")], index)
