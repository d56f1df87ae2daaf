"""Vectors of accumulators of every width, and made-up responses of several passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from assay.core.evidence import evidence_root
from assay.engines.exact.chunks import accumulators_root, encode_vector
from assay.engines.exact.record import RecordLayout, evidence_leaves, record_root
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import Computed

EDGES = [
    sign * (1 << bits) + step
    for bits in (0, 7, 15, 31, 32, 39, 40, 47, 48, 62)
    for sign in (1, -1)
    for step in (-1, 0, 1)
] + [2**63 - 1, -(2**63), 0]
"""Where widths and two's complement change."""
SIZES = st.sampled_from([1, 2, 255, 256, 257, 511, 512, 513, 4096, 4097, 5000, 9000])


def vector(seed: int, n: int) -> np.ndarray:
    """int64 [n]: chunks of 31 to 63 bits in a random order, now and then with a number at an edge."""
    dice = np.random.default_rng(seed)
    bits = dice.choice([8, 31, 32, 38, 39, 40, 46, 47, 48, 55, 63], -(-n // 256)).repeat(256)[:n]
    values = dice.integers(-(2**62), 2**62, n) >> (63 - bits)
    chosen = dice.integers(0, n, dice.integers(0, 3))
    values[chosen] = dice.choice(np.array(EDGES, dtype=np.int64), len(chosen))
    return values


def encode(chunk: Sequence[int]) -> bytes:
    """The encoding of 256 numbers as the specification has it, number by number."""
    width = next(w for w in (4, 5, 6, 8) if all(-(1 << 8 * w - 1) <= x < 1 << 8 * w - 1 for x in chunk))
    spelled = [x.to_bytes(width, "little", signed=True) for x in chunk]
    return b"".join(x[:4] for x in spelled) + b"".join(x[4:] for x in spelled)


NONCE = bytes(range(32))
LAYOUT = RecordLayout(layers=2, width=96, heads=4, kv_heads=2, head_width=48, feed=300)
BODY, HEAD = 2 * 1024, 777


def record(seed: int) -> np.ndarray:
    """A made-up record."""
    dice = np.random.default_rng(seed)
    return dice.integers(-32767, 32768, LAYOUT.chunks * 256).astype(np.int16)


def passes_of(prompt: int, output: int) -> list[Computed]:
    """The passes of a made-up response."""
    return [
        Computed(record(i), vector(i, BODY), vector(i + 100, HEAD) if i >= prompt - 1 else None)
        for i in range(prompt + output - 1)
    ]


def roots_of(passes: Sequence[Computed]) -> list[bytes]:
    """What each commits to."""
    return [record_root(LAYOUT, each.record) for each in passes]


def accumulators_of(passes: Sequence[Computed]) -> list[bytes]:
    """The roots that a public trace announces."""
    return [
        accumulators_root(encode_vector(each.body), None if each.head is None else encode_vector(each.head))
        for each in passes
    ]


def header_of(prompt: int, output: int, passes: Sequence[Computed], *, public: bool = False) -> TraceHeader:
    """Its header, with the evidence that a receipt would carry."""
    leaves = evidence_leaves(roots_of(passes), prompt)
    return TraceHeader(evidence_root(leaves, NONCE), prompt, output, LAYOUT, BODY, HEAD, public)
