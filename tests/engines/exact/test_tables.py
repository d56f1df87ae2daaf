"""The tables of the exact semantics: right to the last bit, and the same for ever."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal

import numpy as np
import pytest

from assay.engines.exact.tables import (
    exp2_table,
    log2_table,
    sigmoid_table,
    sine_table,
    tail_table,
    turns_per_position,
)


def fingerprint(table: np.ndarray) -> str:
    """SHA-256 of the little-endian int32 numbers."""
    return hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()


PARTS = np.arange(1, 513) / 1024


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (exp2_table(), 2.0 ** (30 - np.arange(1025) / 1024)),
        (sigmoid_table(), 2.0**24 / (1 + np.exp(-np.arange(4097) / 256))),
        (sine_table(), 2.0**30 * np.sin(2 * np.pi * np.arange(4097) / 4096)),
        (log2_table(), 2.0**30 * np.log2(1 + np.arange(1025) / 1024)),
        (tail_table()[1:], 2.0**30 * np.log2(-np.log1p(-PARTS) / np.log(2) / PARTS)),
    ],
    ids=["exp2", "sigmoid", "sine", "log2", "tail"],
)
def test_every_entry_is_rounded_rightly(table: np.ndarray, expected: np.ndarray) -> None:
    """No entry is further than half a unit from the function (and what float64 cannot tell)."""
    assert table.dtype == np.int32
    assert np.abs(table - expected).max() <= 0.5 + 1e-5


def test_known_entries() -> None:
    """Ends and symmetries are exact."""
    assert (exp2_table()[0], exp2_table()[-1]) == (1 << 30, 1 << 29)
    assert sigmoid_table()[0] == 1 << 23
    assert (log2_table()[0], log2_table()[-1], tail_table()[-1]) == (0, 1 << 30, 1 << 30)
    assert tail_table()[0] == round(2**30 * math.log2(math.log2(math.e)))
    assert [int(sine_table()[n]) for n in (0, 1024, 2048, 3072, 4096)] == [0, 1 << 30, 0, -(1 << 30), 0]


def test_turns() -> None:
    """Parts of 2^64 of a turn, right to the last of them; factors divide the angle."""
    turns = turns_per_position(Decimal(100_000), 32)
    angles = 100_000.0 ** (-np.arange(32) / 32) / (2 * np.pi)
    np.testing.assert_allclose(turns.astype(np.float64) / 2.0**64, angles, rtol=1e-15, atol=2.0**-64)
    halved = turns_per_position(Decimal(100_000), 32, (Decimal(2),) * 32)
    assert (np.abs(turns.astype(object) - 2 * halved.astype(object)) <= 1).all()


def test_the_tables_never_change() -> None:
    """They are part of the protocol: a changed entry is another semantics."""
    assert [
        fingerprint(table) for table in (exp2_table(), sigmoid_table(), sine_table(), log2_table(), tail_table())
    ] == PINNED


PINNED = [
    "11ec980198d34bd7a8400379708d444051c9631b51460756f734f47e63c7d5fb",
    "4b5dfb733a2d25291465aeb7692066d226d02b281eb180367c519c20212d4e79",
    "f8448633b4e693284db8c6f3eeaf10da74f4a1d505c3a024559b60ce83c99739",
    "2e0cf37fb96fa3763c37f296403e40ca660020bba12092de09b225771cdb29a1",
    "d9e93ca460b4bdca87550a284d399ab1043126030a276268d7878d6f80084ad0",
]
