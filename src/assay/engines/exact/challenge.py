"""What an audit tests the products of a response with: random numbers that nobody could choose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from assay.core import tree16
from assay.core.hashing import Digest, digest
from assay.engines.exact.chunks import CHUNK, chunk_count
from assay.engines.exact.kernels.freivalds import DIGIT_BITS, LOW_BITS
from assay.engines.exact.kernels.products import transpose_multiply
from assay.engines.exact.kernels.state import PRODUCTS, QUERY, Test
from assay.engines.exact.program import Program

REPETITIONS: Final = 2
"""Independent tests of each pass, where the numbers follow from the accumulators. A wrong one passes one of them
with a probability of at most 2^-31, and whoever answers may try accumulators until the numbers suit him. Where the
auditor draws them in secret there is one try, and one test is enough."""

_LOW_DIGITS: Final = 4
_LOW: Final = DIGIT_BITS * _LOW_DIGITS


def public_seed(evidence: Digest, accumulators: Sequence[Digest]) -> Digest:
    """The seed that follows from what was committed to (Fiat and Shamir 1986): everybody's audit is the same.

    `accumulators`: of each pass that is tested, see `chunks.accumulators_root`.
    """
    return digest("assay/exact-challenge/1", evidence, tree16.root(accumulators))


def challenge(program: Program, seed: Digest, *, batch: int, repetitions: int) -> Test:
    """The numbers that follow from a seed, 32 bytes. One pass over the weights for each repetition.

    First those of all accumulators, then those of the zeros that fill up each layer's chunks and the head's: what
    stands there instead is found as well.
    """
    plan, layout, layers = program.plan, program.layout, program.shape.layers
    start = int(plan.inputs[QUERY])
    inputs = layout.chunks * CHUNK - start
    ends = layers * plan.inputs_step // CHUNK * CHUNK
    head = program.products[-1]
    r = np.zeros((repetitions, program.body + chunk_count(head.rows) * CHUNK), np.int32)
    words = np.zeros((repetitions, 3, 2 * inputs - ends), np.int64)
    count = sum(packed.rows for packed in program.products)
    filling = program.body - layers * plan.layer_size
    for repetition in range(repetitions):
        stream = hashlib.shake_128(seed + repetition.to_bytes(4, "big")).digest(4 * r.shape[1])
        numbers = (np.frombuffer(stream, "<u4") & 0x7FFFFFFF).astype(np.int32)
        body = r[repetition, : program.body].reshape(layers, -1)
        per_layer, of_head, fillings, of_end = np.split(numbers, [count - head.rows, count, count + filling])
        body[:, : plan.layer_size] = per_layer.reshape(layers, -1)
        body[:, plan.layer_size :] = fillings.reshape(layers, -1)
        r[repetition, program.body :] = np.concatenate([of_head, of_end])
        at = 0
        for index, packed in enumerate(program.products):
            layer, kind = divmod(index, PRODUCTS)
            column = int(plan.inputs[kind]) - start + layer * plan.inputs_step
            if layer == layers:
                column += inputs - ends
            place = words[repetition, :, column : column + packed.columns]
            place += transpose_multiply(packed, numbers[at : at + packed.rows])
            at += packed.rows
    v = _digits(words)
    return Test(
        r,
        v,
        widths=np.zeros((batch, layers * chunk_count(plan.layer_size) + chunk_count(head.rows)), np.uint8),
        places=np.zeros((batch, layers + 1), np.int64),
        head_places=np.zeros(batch, np.int64),
        rows=np.zeros((batch, repetitions, 2, 8), np.int64),
        columns=np.zeros((batch, repetitions, v.shape[1]), np.int64),
    )


def passed(test: Test, n: int) -> bool:
    """Whether the products of pass n of those that were tested are right."""
    for rows, columns in zip(test.rows[n], test.columns[n], strict=True):
        low, high = (sum(row.tolist()) for row in rows)
        right = sum(total << (DIGIT_BITS * digit) for digit, total in enumerate(columns.tolist()))
        if low + (high << LOW_BITS) != right:
            return False
    return True


def _digits(words: np.ndarray) -> np.ndarray:
    """int64 [repetitions, 3, n], which count 1, 2^32 and 2^64, in as many digits of `freivalds.add_columns` as
    they have: int16 [repetitions, digits, n]."""
    low = words[:, 0] + ((words[:, 1] & (1 << _LOW - 32) - 1) << 32)
    high = (words[:, 1] >> _LOW - 32) + (words[:, 2] << 64 - _LOW)
    digits: list[np.ndarray] = []
    while len(digits) < _LOW_DIGITS or high.any():
        rest = low if len(digits) < _LOW_DIGITS else high
        digits.append(_lowest(rest))
        if len(digits) == _LOW_DIGITS:
            high += low
    return np.stack(digits, axis=1)


def _lowest(rest: np.ndarray) -> np.ndarray:
    """Take the lowest digit off."""
    half = 1 << DIGIT_BITS - 1
    digit = ((rest + half) & 2 * half - 1) - half
    rest -= digit
    rest >>= DIGIT_BITS
    return digit.astype(np.int16)
