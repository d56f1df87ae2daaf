"""Trees as of `core/tree16.py`: openings of runs of leaves, and descents of two levels a move.

Those over a model are the same with fewer children a node (`fan`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from assay.core.errors import BindingMismatch
from assay.core.hashing import ZERO, Digest
from assay.core.tree16 import FAN, parents, seal

STRIDE: Final = 2
"""Levels that one move of a descent goes down."""
MOST_NODES: Final = FAN**STRIDE
"""Digests that one move shows of a tree at most: 8 KB."""


def levels_of(leaves: Sequence[Digest], fan: int = FAN) -> list[list[Digest]]:
    """All levels, the leaves first and the top last; one empty level for no leaves."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        levels.append(parents(levels[-1], fan))
    return levels


def sizes_of(count: int, fan: int = FAN) -> list[int]:
    """How many digests each level of a tree of `count` leaves has."""
    sizes = [count]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // fan))
    return sizes


def root_of(levels: Sequence[Sequence[Digest]]) -> Digest:
    """The root, given all levels."""
    return seal(len(levels[0]), levels[-1][0] if levels[-1] else ZERO)


def prove(levels: Sequence[Sequence[Digest]], start: int, stop: int, fan: int = FAN) -> list[Digest]:
    """What is beside the leaves from `start` to `stop` in their nodes, and so on up; within a level, in order."""
    path: list[Digest] = []
    for level in levels[:-1]:
        path += [*level[start - start % fan : start], *level[stop : -(-stop // fan) * fan]]
        start, stop = start // fan, -(-stop // fan)
    return path


def path_length(count: int, start: int, stop: int, fan: int = FAN) -> int:
    """How many digests `prove` gives in a tree of `count` leaves."""
    length = 0
    for size in sizes_of(count, fan)[:-1]:
        length += start % fan + min(-(-stop // fan) * fan, size) - stop
        start, stop = start // fan, -(-stop // fan)
    return length


def climb(count: int, start: int, items: Sequence[Digest], path: Sequence[Digest], fan: int = FAN) -> Digest:
    """The root of the tree of `count` leaves in which `path` says that `items` stand from `start` on.

    Raises:
        BindingMismatch: there are no such leaves, or the path has another length.
    """
    stop = start + len(items)
    if not 0 <= start < stop <= count or len(path) != path_length(count, start, stop, fan):
        raise BindingMismatch("path", f"no leaves {start} to {stop} among {count} are opened like this")
    run, used = list(items), 0
    for size in sizes_of(count, fan)[:-1]:
        before, after = start % fan, min(-(-stop // fan) * fan, size) - stop
        run = parents([*path[used : used + before], *run, *path[used + before : used + before + after]], fan)
        used += before + after
        start, stop = start // fan, -(-stop // fan)
    return seal(count, run[0])


def first_level(count: int) -> int:
    """The level with which a descent begins: the lowest one of at most MOST_NODES digests."""
    return next(number for number, size in enumerate(sizes_of(count)) if size <= MOST_NODES)


def moves(count: int) -> int:
    """How many moves a descent to one of `count` leaves has."""
    return 1 + -(-first_level(count) // STRIDE)


def below(count: int, level: int, index: int) -> tuple[int, int, int]:
    """The level that the next move shows, and from where to where, under node `index` of `level` (over 0)."""
    lower = max(0, level - STRIDE)
    wide = FAN ** (level - lower)
    return lower, index * wide, min((index + 1) * wide, sizes_of(count)[lower])


def over(nodes: Sequence[Digest], steps: int) -> list[Digest]:
    """The digests `steps` levels over a run of nodes that begins where a node over them begins."""
    level = list(nodes)
    for _ in range(steps):
        level = parents(level)
    return level


def root_over(count: int, nodes: Sequence[Digest]) -> Digest:
    """The root of the tree of `count` leaves whose first level of a descent is `nodes`.

    Raises:
        BindingMismatch: another number of digests.
    """
    sizes, level = sizes_of(count), first_level(count)
    if len(nodes) != sizes[level]:
        raise BindingMismatch("nodes", f"{len(nodes)} digests, not {sizes[level]}")
    return seal(count, over(nodes, len(sizes) - 1 - level)[0] if nodes else ZERO)
