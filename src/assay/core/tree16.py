"""Merkle trees of sixteen children a node over tagged SHA-256, and proofs of membership.

A level's digests are taken sixteen at a time, in order, the last node having the rest; a level of one digest is the
top. So trees over many leaves cost a sixteenth of a digest for each leaf. The root also covers the number of leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from assay.core.errors import BindingMismatch
from assay.core.hashing import ZERO, Digest, digest

FAN: Final = 16
"""Children of a node."""


def root(leaves: Sequence[Digest]) -> Digest:
    """The root over leaf digests, in their order; an empty sequence has a root too."""
    return seal(len(leaves), top(leaves))


def top(level: Sequence[Digest]) -> Digest:
    """The one digest that the levels above `level` lead to; of nothing, 32 zero bytes."""
    while len(level) > 1:
        level = parents(level)
    return level[0] if level else ZERO


def parents(level: Sequence[Digest], fan: int = FAN) -> list[Digest]:
    """The next level."""
    return [digest("assay/exact-node/1", b"".join(level[i : i + fan])) for i in range(0, len(level), fan)]


def seal(count: int, highest: Digest) -> Digest:
    """The root of a tree of `count` leaves whose top is `highest`."""
    return digest("assay/exact-root/1", count.to_bytes(8, "big"), highest)


def prove(leaves: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """The siblings of leaf `index` (0-based) and of each node over it: lowest level first, in order within a level.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} among {len(leaves)}")
    path: list[Digest] = []
    while len(leaves) > 1:
        start = index - index % FAN
        path += [*leaves[start:index], *leaves[index + 1 : start + FAN]]
        leaves, index = parents(leaves), index // FAN
    return tuple(path)


def verify(expected_root: Digest, count: int, index: int, item: Digest, path: Sequence[Digest]) -> None:
    """Check that `item` is leaf `index` of the tree of `count` leaves under `expected_root`.

    Raises:
        BindingMismatch: it is not.
    """
    if climb(count, index, item, path) != expected_root:
        raise BindingMismatch("path", f"leaf {index} is not in the tree")


def climb(count: int, index: int, item: Digest, path: Sequence[Digest]) -> Digest:
    """The root of the tree of `count` leaves that `path` says has `item` at `index`.

    Raises:
        BindingMismatch: no such tree has a leaf there, or a path like this.
    """
    if not 0 <= index < count < 2**64:
        raise BindingMismatch("index", f"no leaf {index} among {count}")
    if any(len(node) != 32 for node in (item, *path)):  # or two nodes' border could be moved
        raise BindingMismatch("path", "a step of the tree's path is not 32 bytes")
    node, place, size, used = item, index, count, 0
    while size > 1:
        before = place % FAN
        after = min(FAN, size - (place - before)) - before - 1
        siblings = path[used : used + before + after]
        node = digest("assay/exact-node/1", b"".join([*siblings[:before], node, *siblings[before:]]))
        used += before + after
        place, size = place // FAN, -(-size // FAN)
    if used != len(path):
        raise BindingMismatch("path", f"the tree's path has {len(path)} steps, not {used}")
    return seal(count, node)
