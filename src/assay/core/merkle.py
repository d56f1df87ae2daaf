"""Binary Merkle trees over tagged SHA-256, and proofs of membership.

The shape is RFC 6962's (section 2.1): the left subtree holds the largest power of two smaller than the number of
leaves. The root also covers the number of leaves, so that a tree cannot be passed off as a shorter or longer one.
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.core.errors import BindingMismatch
from assay.core.hashing import Digest, digest


def leaf(data: bytes) -> Digest:
    """The digest of one leaf's content."""
    return digest("assay/merkle-leaf/1", data)


def root(leaves: Sequence[Digest]) -> Digest:
    """The root over leaf digests, in their order; an empty sequence has a root too."""
    return _seal(len(leaves), _subtree(leaves) if leaves else bytes(32))


def prove(leaves: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """The siblings from leaf `index` (0-based) up to the root.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} among {len(leaves)}")
    path: list[Digest] = []
    while len(leaves) > 1:
        split = _split(len(leaves))
        if index < split:
            path.append(_subtree(leaves[split:]))
            leaves = leaves[:split]
        else:
            path.append(_subtree(leaves[:split]))
            leaves, index = leaves[split:], index - split
    return tuple(reversed(path))


def verify(expected_root: Digest, count: int, index: int, item: Digest, path: Sequence[Digest]) -> None:
    """Check that `item` is leaf `index` of the tree of `count` leaves under `expected_root`.

    Raises:
        BindingMismatch: it is not.
    """
    turns: list[bool] = []
    low, size = index, count
    if not 0 <= index < count < 2**64:
        raise BindingMismatch("index", f"no leaf {index} among {count}")
    if any(len(node) != 32 for node in (item, *path)):  # or two nodes' border could be moved
        raise BindingMismatch("path", "a step of the Merkle path is not 32 bytes")
    while size > 1:
        split = _split(size)
        right = low >= split
        turns.append(right)
        low, size = (low - split, size - split) if right else (low, split)
    if len(turns) != len(path):
        raise BindingMismatch("path", f"the Merkle path has {len(path)} steps, not {len(turns)}")
    node = item
    for right, sibling in zip(reversed(turns), path, strict=True):
        node = _node(sibling, node) if right else _node(node, sibling)
    if _seal(count, node) != expected_root:
        raise BindingMismatch("path", f"leaf {index} is not in the tree")


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)


def _subtree(leaves: Sequence[Digest]) -> Digest:
    if len(leaves) == 1:
        return leaves[0]
    split = _split(len(leaves))
    return _node(_subtree(leaves[:split]), _subtree(leaves[split:]))


def _node(left: Digest, right: Digest) -> Digest:
    return digest("assay/merkle-node/1", left, right)


def _seal(count: int, top: Digest) -> Digest:
    return digest("assay/merkle-root/1", count.to_bytes(8, "big"), top)
