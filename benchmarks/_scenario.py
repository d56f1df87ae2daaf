"""Fifty nodes and their traffic, described once, for all three tiers: discrete events, asyncio peers, real processes.

The machines are slow ones, so that what real processes on a small computer take beside is little against it. Who comes
and goes when, and who asks what when, is the same in all tiers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from benchmarks._events import World
from benchmarks._network import Arrivals, Network, Traffic, arrivals
from benchmarks._schedulers import Gateways
from benchmarks._virtual import first_tokens, run

NODES: Final = 50
REAL: Final = 3
"""Of these, the last ones: they run a real model, at speeds that are measured, and neither lie nor come and go."""
REAL_PLACES: Final = 2
REAL_TRIP: Final = 0.005
SLOWER: Final = 10.0
"""Than the machines of `Network`."""
LOAD: Final = 0.4
TRAFFIC: Final = Traffic(prompt=(120.0, 0.7), output=(24.0, 0.5))
_SEED: Final = 50


def network(read: float, write: float) -> Network:
    """`read`, `write`: seconds a token of the nodes with a real model."""
    found = Network(NODES, np.random.default_rng(_SEED))
    found.read[:] *= SLOWER
    found.write[:] *= SLOWER
    for column, value in (
        (found.read, read),
        (found.write, write),
        (found.places, REAL_PLACES),
        (found.round_trip, REAL_TRIP),
        (found.lying, False),
        (found.dead, False),
        (found.slow, 1.0),
    ):
        column[NODES - REAL :] = value
    return found


def churning() -> np.random.Generator:
    """Dice by which nodes come and go."""
    return np.random.default_rng([_SEED, 1])


def asked(found: Network, seconds: float) -> Arrivals:
    """The requests."""
    return arrivals(found, TRAFFIC, np.random.default_rng([_SEED, 2]), load=LOAD, seconds=seconds)


def by_events(read: float, write: float, *, warm: float, seconds: float) -> tuple[list[float], int]:
    """Tier 1: seconds to each first token after `warm`; how many requests were not answered."""
    nodes = network(read, write)
    requests = asked(nodes, warm + seconds)
    gateway = Gateways(nodes, 1, np.random.default_rng([_SEED, 3]))
    world = World(nodes, np.random.default_rng([_SEED, 4]), churning())
    world.run(gateway, requests, warm=warm, seconds=seconds, first=NODES - REAL)
    return world.first_tokens, world.failed


def by_peers(read: float, write: float, *, warm: float, seconds: float) -> tuple[list[float], int]:
    """Tier 2, the same."""
    nodes = network(read, write)
    dice, requests = np.random.default_rng([_SEED, 5]), asked(nodes, warm + seconds)
    return run(first_tokens(nodes, 1, dice, requests, warm=warm, churning=churning(), first=NODES - REAL))
