"""What a pass commits to: the record of all activations that enter a matrix product or the KV cache.

Everything else of a pass follows from it: an accumulator is a row of weights times a vector of the record. A record is
16-bit numbers. First, what later passes need, layer by layer, filled up with zeros to whole chunks:

    keys [kv heads, head width], fraction bits of each head; values alike

Then the inputs of products, layer by layer:

    input of query, key and value [width], its fraction bits
    input of output [heads * head width], its fraction bits
    input of gate and up [width], its fraction bits
    input of down [feed], its fraction bits

and, last, the input of the head [width] and its fraction bits, filled up again. Fraction bits beyond 32,767 are cut to
that. A pass is committed to by the roots over the chunks of its two parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from assay.core import tree16
from assay.core.hashing import Digest, digest
from assay.engines.exact.kernels.sha256 import tagged_digests

CHUNK: Final = 256
"""Numbers of a record under one leaf of its tree."""
CHUNK_BYTES: Final = 2 * CHUNK
_FEW: Final = 6
"""Digests that are computed sooner one by one."""


@dataclass(frozen=True)
class RecordLayout:
    """Where everything stands in a record."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed: int

    @cached_property
    def parts(self) -> dict[str, tuple[int, int]]:
        """Start and size, fraction bits included, of each of the first layer's vectors."""
        kept = self.kv_heads * (self.head_width + 1)
        first = {"keys": kept, "values": kept}
        then = {
            "input": self.width + 1,
            "mixed": self.heads * self.head_width + 1,
            "feed": self.width + 1,
            "gated": self.feed + 1,
        }
        starts: dict[str, tuple[int, int]] = {}
        for at, sizes in ((0, first), (self.kept_chunks * CHUNK, then)):
            for name, size in sizes.items():
                starts[name] = at, size
                at += size
        return starts

    @cached_property
    def kept_step(self) -> int:
        """Numbers of a layer's keys and values."""
        return 2 * self.kv_heads * (self.head_width + 1)

    @cached_property
    def kept_chunks(self) -> int:
        """Chunks of keys and values."""
        return -(-self.layers * self.kept_step // CHUNK)

    @cached_property
    def inputs_step(self) -> int:
        """Numbers of a layer's inputs."""
        return 2 * (self.width + 1) + self.heads * self.head_width + 1 + self.feed + 1

    @cached_property
    def chunks(self) -> int:
        """Chunks of a record."""
        return self.kept_chunks - (-(self.layers * self.inputs_step + self.width + 1) // CHUNK)

    def name(self, index: int) -> tuple[int | None, str]:
        """To which layer (None: behind all) and vector the number at `index` belongs; "nothing" for zeros."""
        kept = index < self.kept_chunks * CHUNK
        layer, at = divmod(
            index - (0 if kept else self.kept_chunks * CHUNK), self.kept_step if kept else self.inputs_step
        )
        if layer >= self.layers:
            return None, "head input" if not kept and layer == self.layers and at <= self.width else "nothing"
        at += 0 if kept else self.kept_chunks * CHUNK
        return layer, next(name for name, (start, size) in self.parts.items() if start <= at < start + size)

    def empty(self, count: int) -> np.ndarray:
        """Room for `count` records, int16 [count, 256 * chunks], zero."""
        return np.zeros((count, self.chunks * CHUNK), np.int16)


def chunk_digests(chunks: np.ndarray) -> np.ndarray:
    """The leaves over chunks, int16 [chunks, 256] (little-endian, tagged SHA-256): uint8 [chunks, 32]."""
    data = np.ascontiguousarray(chunks.astype("<i2", copy=False)).view(np.uint8).reshape(-1)
    return tagged_digests("assay/exact-chunk/1", data, np.full(len(chunks), CHUNK_BYTES // 64, np.uint8))


def record_root(layout: RecordLayout, record: np.ndarray) -> Digest:
    """What a pass is committed to: int16 [256 * chunks]."""
    return record_roots(layout, record[None])[0]


def record_roots(layout: RecordLayout, records: np.ndarray) -> list[Digest]:
    """What passes are committed to: int16 [n, 256 * chunks]."""
    return roots_of_records(layout, chunk_digests(records.reshape(-1, CHUNK)).reshape(len(records), -1, 32))


def roots_of_records(layout: RecordLayout, digests: np.ndarray) -> list[Digest]:
    """The same from the digests of all chunks, uint8 [n, chunks, 32]."""
    kept, inputs = digests[:, : layout.kept_chunks], digests[:, layout.kept_chunks :]
    return [both_parts(*parts) for parts in zip(roots_of(kept), roots_of(inputs), strict=True)]


def both_parts(kept: Digest, inputs: Digest) -> Digest:
    """The commitment to a pass from the roots of its record's two parts."""
    return digest("assay/exact-token/1", kept, inputs)


def root_of(digests: np.ndarray, fan: int = tree16.FAN) -> Digest:
    """The root over uint8 [n, 32]: `tree16.root`; or of a tree with fewer children a node."""
    return roots_of(digests[None], fan)[0]


def roots_of(digests: np.ndarray, fan: int = tree16.FAN) -> list[Digest]:
    """The roots of trees of the same size, uint8 [trees, n, 32], of which nodes are computed side by side."""
    trees, count, _ = digests.shape
    level = digests if count else np.zeros((trees, 1, 32), np.uint8)
    while level.shape[1] > 1:
        whole, rest = divmod(level.shape[1], fan)
        end = whole * fan
        parts = [_nodes(level[:, :end].reshape(trees * whole, -1)).reshape(trees, whole, 32)] if whole else []
        if rest:
            parts.append(_nodes(level[:, end:].reshape(trees, -1))[:, None])
        level = np.concatenate(parts, axis=1)
    return [tree16.seal(count, highest) for highest in digest_list(level.reshape(trees, 32))]


def _nodes(children: np.ndarray) -> np.ndarray:
    """Nodes over their children's digests, uint8 [n, 32 each]: uint8 [n, 32]."""
    count, size = children.shape
    if count < _FEW or size % 64:
        nodes = b"".join(digest("assay/exact-node/1", row.tobytes()) for row in children)
        return np.frombuffer(nodes, np.uint8).reshape(count, 32)
    return tagged_digests("assay/exact-node/1", children.reshape(-1), np.full(count, size // 64, np.uint8))


def digest_list(digests: np.ndarray) -> list[Digest]:
    """uint8 [n, 32] as n digests."""
    data = digests.tobytes()
    return [data[i : i + 32] for i in range(0, len(data), 32)]


def prompt_leaf(roots: Sequence[Digest]) -> Digest:
    """The evidence of the first output token: the root over the records' roots of all prompt tokens, in order."""
    return tree16.root(roots)


def evidence_leaves(roots: Sequence[Digest], prompt: int) -> list[Digest]:
    """The evidence of each output token, given the records' roots of all passes, of which `prompt` are the prompt's.

    The first output token is predicted by the whole prompt, each later one by the pass over the one before it.
    """
    return [prompt_leaf(roots[:prompt]), *roots[prompt:]]


def first_difference(layout: RecordLayout, mine: np.ndarray, committed: np.ndarray) -> Iterator[tuple[int | None, str]]:
    """Layers and vectors that may be where chunk digests (uint8 [chunks, 32]) differ first: those in that chunk."""
    where = np.flatnonzero((mine != committed).any(axis=1))
    if where.size:
        start = int(where[0]) * CHUNK
        seen: set[tuple[int | None, str]] = set()
        for index in range(start, start + CHUNK):
            name = layout.name(index)
            if name not in seen and name[1] != "nothing":
                seen.add(name)
                yield name
