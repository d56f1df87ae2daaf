"""Many digests at once are those of hashlib."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.core.hashing import digest
from assay.engines.exact.kernels import sha256
from assay.engines.exact.kernels.sha256 import tagged_digests


def check(blocks: list[int], seed: int) -> None:
    """Compare with one digest at a time."""
    data = np.random.default_rng(seed).integers(0, 256, 64 * sum(blocks), dtype=np.uint8)
    found = tagged_digests("assay/exact-chunk/1", data, np.array(blocks, dtype=np.uint8))
    assert found.shape == (len(blocks), 32)
    assert found.dtype == np.uint8
    at = 0
    for row, count in zip(found, blocks, strict=True):
        assert row.tobytes() == digest("assay/exact-chunk/1", data[at : at + 64 * count].tobytes())
        at += 64 * count


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 8, 16, 20, 24, 32, 255]), max_size=60), st.integers(0, 2**32))
def test_messages_of_any_sizes(blocks: list[int], seed: int) -> None:
    """Mixed sizes, in any order and number, fill the lanes or do not."""
    check(blocks, seed)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 32, 100])
def test_messages_of_one_size(count: int) -> None:
    """Whole and broken groups of sixteen."""
    check([20] * count, count)


def test_another_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag's block counts, with lanes and without."""
    data, blocks = np.arange(64, dtype=np.uint8), np.ones(1, np.uint8)
    expected = digest("assay/exact-node/1", data.tobytes())
    assert tagged_digests("assay/exact-node/1", data, blocks).tobytes() == expected
    monkeypatch.setattr(sha256, "side_by_side", lambda: False)
    assert tagged_digests("assay/exact-node/1", data, blocks).tobytes() == expected


def test_constants_are_those_of_the_standard() -> None:
    """The first and last of each, from FIPS 180-4, sections 4.2.2 and 5.3.3."""
    assert sha256._ROUND[0] == 0x428A2F98
    assert sha256._ROUND[63] == 0xC67178F2
    assert [hex(x) for x in sha256._INITIAL[[0, 7]]] == ["0x6a09e667", "0x5be0cd19"]
