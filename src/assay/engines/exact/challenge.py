"""What an audit tests the products of a response with: random numbers that nobody could choose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from assay.core import tree16
from assay.core.hashing import Digest, digest
from assay.engines.exact.chunks import chunk_count
from assay.engines.exact.kernels.products import transpose_multiply
from assay.engines.exact.kernels.state import DOWN, GATE, OUTPUT, PRODUCTS, QUERY, Test
from assay.engines.exact.packed import Packed
from assay.engines.exact.program import Program

REPETITIONS: Final = 2
"""Independent tests of each product, where the numbers follow from the accumulators. A wrong one passes one of them
with a probability of at most 2^-31, and whoever answers may try accumulators until the numbers suit him. Where the
auditor draws them in secret there is one try, and one test is enough."""

_DIGIT: Final = (1 << 31) - 1


def public_seed(evidence: Digest, accumulators: Sequence[Digest]) -> Digest:
    """The seed that follows from what was committed to (Fiat and Shamir 1986): everybody's audit is the same.

    `accumulators`: of each pass that is tested, see `chunks.accumulators_root`.
    """
    return digest("assay/exact-challenge/1", evidence, tree16.root(accumulators))


def challenge(program: Program, seed: Digest, *, batch: int, repetitions: int) -> Test:
    """The numbers that follow from a seed, 32 bytes. One pass over the weights for each repetition."""
    groups = groups_of(program)
    rows = [sum(packed.rows for packed in group) for group in groups]
    columns = [group[0].columns for group in groups]
    r = np.empty((repetitions, sum(rows)), np.int32)
    v = np.empty((repetitions, 3, sum(columns)), np.int32)
    r_at, v_at = np.cumsum([0, *rows]), np.cumsum([0, *columns])
    for repetition in range(repetitions):
        stream = hashlib.shake_128(seed + repetition.to_bytes(4, "big")).digest(4 * sum(rows))
        r[repetition] = np.frombuffer(stream, "<u4") & 0x7FFFFFFF
        for number, group in enumerate(groups):
            at = int(r_at[number])
            words = np.zeros((3, columns[number]), np.int64)
            for packed in group:
                words += transpose_multiply(packed, r[repetition, at : at + packed.rows].astype(np.int64))
                at += packed.rows
            v[repetition, :, v_at[number] : v_at[number + 1]] = _digits(words)
    layers, chunks = program.shape.layers, chunk_count(program.body)
    return Test(
        r, v, r_at, v_at, np.zeros((batch, chunks), np.uint8), np.zeros((batch, layers), np.int64),
        np.zeros(batch, np.int64),
    )  # fmt: skip


def groups_of(program: Program) -> list[Sequence[Packed]]:
    """The matrices of each group that is tested as one; see `layers.Test`."""
    groups: list[Sequence[Packed]] = []
    for start in range(0, PRODUCTS * program.shape.layers, PRODUCTS):
        layer = program.products[start : start + PRODUCTS]
        groups += [layer[QUERY:OUTPUT], layer[OUTPUT:GATE], layer[GATE:DOWN], layer[DOWN:]]
    return [*groups, program.products[-1:]]


def _digits(words: np.ndarray) -> np.ndarray:
    """int64 [3, n] to the base 2^32 as digits to the base 2^31, of which processors multiply more side by side."""
    low, middle, high = words
    one = (low >> 31) + ((middle & _DIGIT >> 1) << 1)
    return np.stack([low & _DIGIT, one & _DIGIT, (middle >> 30) + (high << 2) + (one >> 31)])
