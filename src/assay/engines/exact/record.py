"""What a pass commits to: the record of all activations that enter a matrix product or the KV cache.

Everything else of a pass follows from it: an accumulator is a row of weights times a vector of the record. A record is
16-bit numbers, layer by layer:

    input of query, key and value [width], its fraction bits
    keys [kv heads, head width], fraction bits of each head; values alike
    input of output [heads * head width], its fraction bits
    input of gate and up [width], its fraction bits
    input of down [feed], its fraction bits

and, last, the input of the head [width] and its fraction bits. Fraction bits beyond 32,767 are cut to that.
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
        """Of a layer: start and size, fraction bits included, of each of its vectors."""
        kept = self.kv_heads * (self.head_width + 1)
        sizes = {
            "input": self.width + 1,
            "keys": kept,
            "values": kept,
            "mixed": self.heads * self.head_width + 1,
            "feed": self.width + 1,
            "gated": self.feed + 1,
        }
        starts: dict[str, tuple[int, int]] = {}
        at = 0
        for name, size in sizes.items():
            starts[name] = at, size
            at += size
        return starts

    @cached_property
    def layer(self) -> int:
        """Numbers of one layer."""
        return sum(size for _, size in self.parts.values())

    @cached_property
    def size(self) -> int:
        """Numbers of a record."""
        return self.layers * self.layer + self.width + 1

    @cached_property
    def chunks(self) -> int:
        """Chunks of a record, the last one filled up with zeros."""
        return -(-self.size // CHUNK)

    def name(self, index: int) -> tuple[int | None, str]:
        """To which layer (None: behind all) and vector the number at `index` belongs."""
        layer, at = divmod(index, self.layer)
        if layer >= self.layers:
            return None, "head input"
        return layer, next(name for name, (start, size) in self.parts.items() if start <= at < start + size)

    @cached_property
    def kept_chunks(self) -> np.ndarray:
        """The chunks that hold keys or values, int64, rising: what later passes need of this one."""
        kept: list[int] = []
        for layer in range(self.layers):
            start = layer * self.layer + self.parts["keys"][0]
            end = layer * self.layer + sum(self.parts["values"])
            kept += range(start // CHUNK, (end - 1) // CHUNK + 1)
        return np.unique(np.array(kept, dtype=np.int64))

    def empty(self, count: int) -> np.ndarray:
        """Room for `count` records, int16 [count, 256 * chunks], zero."""
        return np.zeros((count, self.chunks * CHUNK), np.int16)


def chunk_digests(chunks: np.ndarray) -> np.ndarray:
    """The leaves over chunks, int16 [chunks, 256] (little-endian, tagged SHA-256): uint8 [chunks, 32]."""
    data = np.ascontiguousarray(chunks.astype("<i2", copy=False)).view(np.uint8).reshape(-1)
    return tagged_digests("assay/exact-chunk/1", data, np.full(len(chunks), CHUNK_BYTES // 64, np.uint8))


def record_root(record: np.ndarray) -> Digest:
    """What a pass is committed to: the 16-ary root over the chunks of int16 [256 * chunks]."""
    return root_of(chunk_digests(record.reshape(-1, CHUNK)))


def root_of(digests: np.ndarray) -> Digest:
    """The root over uint8 [n, 32]: `tree16.root`, with the lowest level of nodes computed side by side."""
    whole = len(digests) // tree16.FAN
    blocks = np.full(whole, 32 * tree16.FAN // 64, dtype=np.uint8)
    nodes = digest_list(tagged_digests("assay/exact-node/1", digests.reshape(-1), blocks)) if whole else []
    rest = digests[whole * tree16.FAN :]
    if len(digests) == 1:
        nodes = digest_list(rest)
    elif len(rest):
        nodes.append(digest("assay/exact-node/1", rest.tobytes()))
    return tree16.seal(len(digests), tree16.top(nodes))


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
        for index in range(start, min(start + CHUNK, layout.size)):
            name = layout.name(index)
            if name not in seen:
                seen.add(name)
                yield name
