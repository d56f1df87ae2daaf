"""Vectors of accumulators of every width, and made-up responses of several passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from assay.core.evidence import evidence_root
from assay.engines.exact.accumulators import evidence_leaves
from assay.engines.exact.layout import Layout, Rows
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import EncodedPass

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


NONCE = bytes(range(32))
LAYOUT = Layout((Rows(300, 100, 90, 300, 700, 700, 300), Rows(310, 80, 70, 300, 300, 1200, 300)), head=777)
"""Keys and values stand in chunks of their own, across borders, and beside each other."""


def passes_of(prompt: int, output: int) -> list[EncodedPass]:
    """The passes of a made-up response."""
    return [
        EncodedPass.of(vector(i, LAYOUT.body), vector(i + 100, LAYOUT.head) if i >= prompt - 1 else None)
        for i in range(prompt + output - 1)
    ]


def header_of(prompt: int, output: int, passes: Sequence[EncodedPass]) -> TraceHeader:
    """Its header, with the evidence that a receipt would carry."""
    leaves = evidence_leaves([item.leaf for item in passes], prompt)
    return TraceHeader(evidence_root(leaves, NONCE), prompt, output, LAYOUT)
