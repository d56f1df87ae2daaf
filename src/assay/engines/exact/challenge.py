"""What an audit tests the products of a response with: random numbers that nobody could choose."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from assay.core.hashing import Digest, digest
from assay.engines.exact.kernels.layers import Test
from assay.engines.exact.kernels.products import transpose_multiply
from assay.engines.exact.program import Program

REPETITIONS: Final = 2
"""Independent tests of each product. A wrong one passes one of them with a probability of at most 2^-31; whoever
answers may try accumulators until the numbers that follow from them suit him, so one is too few."""


def challenge(program: Program, evidence: Digest, *, batch: int, repetitions: int = REPETITIONS) -> Test:
    """The numbers that follow from a receipt's evidence root (Fiat and Shamir 1986): everybody's audit is the same.

    One pass over the weights for each repetition.
    """
    rows = [packed.rows for packed in program.products]
    columns = [packed.columns for packed in program.products]
    r = np.empty((repetitions, sum(rows)), np.int32)
    v = np.empty((repetitions, 3, sum(columns)), np.int64)
    r_at, v_at = np.cumsum([0, *rows]), np.cumsum([0, *columns])
    for repetition in range(repetitions):
        seed = digest("assay/exact-challenge/1", evidence, repetition.to_bytes(4, "big"))
        stream = hashlib.shake_128(seed).digest(4 * sum(rows))
        r[repetition] = np.frombuffer(stream, "<u4") & 0x7FFFFFFF
        for number, packed in enumerate(program.products):
            own = r[repetition, r_at[number] : r_at[number + 1]]
            v[repetition, :, v_at[number] : v_at[number + 1]] = transpose_multiply(packed, own.astype(np.int64))
    return Test(r, v, r_at, v_at, np.zeros(batch, np.int64))
