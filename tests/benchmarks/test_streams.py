"""The benchmark of many streams, with fifty of them."""

from __future__ import annotations

import sys

import pytest
from benchmarks.streams import measure


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="processor time is read from /proc")
def test_streams() -> None:
    """All streams are under way at once, end whole, and have receipts that hold."""
    figures = {figure.name: figure for figure in measure(lambda _: None, streams=50, tokens=40, seconds=0.25, rounds=1)}
    assert figures["streams_at_once"].value == 50
    assert figures["streams_refused_or_broken"].value == 0
    assert figures["receipts_verified"].value == 50
    assert figures["gateway_per_token_under_way"].value > 0
