"""Fifty nodes that are the same in all three tiers."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks._scenario import NODES, REAL, asked, by_events, by_peers, network
from tests.e2e.hosts import impossible

from benchmarks import nodes

READ, WRITE = 1 / 300, 1 / 40


def test_the_description_is_the_same_each_time() -> None:
    """Nodes with a real model have the speed that is handed in, and are as they are; others may lie."""
    one, other = network(READ, WRITE), network(READ, WRITE)
    for column in ("read", "write", "places", "lying", "dead", "slow", "round_trip", "mute"):
        assert (getattr(one, column) == getattr(other, column)).all(), column
    assert (one.read[NODES - REAL :] == READ).all()
    assert not one.lying[NODES - REAL :].any()
    assert one.lying.any()
    assert asked(one, 60.0) == asked(other, 60.0)


def test_two_tiers_agree_roughly() -> None:
    """All are answered in both, in about the same time."""
    (events, no_events), (peers, no_peers) = (
        tier(READ, WRITE, warm=10.0, seconds=50.0) for tier in (by_events, by_peers)
    )
    assert no_events == no_peers == 0
    assert len(events) == len(peers) > 100
    assert 0.3 < np.median(peers) / np.median(events) < 3


@pytest.mark.e2e
@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(impossible() != "", reason="there are no network namespaces")
def test_real_processes() -> None:
    """A short run: nearly all are answered."""
    figures = {each.name: each.value for each in nodes.measure(lambda _: None, warm=2.0, seconds=8.0)}
    assert figures["processes_p50"] > 0
    assert figures["processes_not_answered"] <= 3
