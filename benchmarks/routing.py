"""How soon the first token comes in networks of 10,000 and 100,000 simulated providers, against all-knowing and chance.

Tier 1 has discrete events and drives the router itself (`_events.py`). Tier 2 has asyncio peers that sign receipts, and
the whole journey over a transport in memory, in simulated time (`_virtual.py`): thousands of them, and the same small
network as tier 1, so that it shows how far the tiers disagree.

`benchmarks/_network.py` says what the providers are like. Each buyer has a router of its own (`market/routing.py`, the
product's); there are BUYERS, or one for each BUYERS providers if that is less. Each has asked for HISTORY answers
before. Requests wish for `hedge` as those do for which the first token counts most.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from benchmarks._events import Scheduler, World
from benchmarks._network import Network, Traffic, arrivals
from benchmarks._schedulers import ASK, Chance, Gateways, Omniscient, an_offer
from benchmarks._virtual import first_tokens, run

from assay.apps.figures import Figure, Say
from assay.core.offer import Offer
from assay.market.matching import Catalogue
from assay.market.routing import Router
from assay.market.work import Work

SIZES: Final = (10_000, 100_000)
LOADS: Final = {0.4: 1.5, 0.7: 3.0}
"""Share of the capacity, and bar: how often as long as with the all-knowing scheduler the first token may take."""
BELOW_CHANCE: Final = 1 / 5
"""Bar: of what it takes where chance decides."""
PATIENCES: Final = (0.02, 0.1)
"""Of all-knowing schedulers; the best one counts."""
BUYERS: Final = 100
PEERS_EACH: Final = 100
"""Providers for each buyer among asyncio peers."""
HISTORY: Final = 2000
"""Answers by providers that chance chose, before the clock starts."""
REQUESTS: Final = 20_000
"""That are measured, about."""
WARM_SECONDS: Final = 10.0
"""Before it, at least, which are not measured."""
WARM_EACH: Final = 300
"""Nor are so many requests of each buyer: by then it knows more than HISTORY."""
SMALL: Final = 50
"""Providers of the network that both tiers have; nobody has asked them before."""
SMALL_NETWORKS: Final = 5
PEERS: Final = 2000
"""Asyncio peers in one process."""
SEED: Final = 20261126
CPU_MS: Final = 1.0
"""Bar: of processor time for a choice."""
CHOICES: Final = 1000
RECORD_BYTES: Final = 2048
"""Bar: of memory for an offer and all that one router knows of its provider."""


def measure(say: Say, *, sizes: Sequence[int] = SIZES, requests: int = REQUESTS) -> Iterator[Figure]:
    """Percentiles of the time to the first token, retries included."""
    for size in sizes:
        for load, most in LOADS.items():
            yield from _compared(say, size, load, most, requests)
        yield from _memory(size)
    yield from _tiers(say, requests)


def simulate(scheduler: str, size: int, load: float, requests: int) -> tuple[World, Scheduler]:
    """One run, over the same network and traffic for each scheduler."""
    dice = np.random.default_rng([SEED, size])
    network, traffic = Network(size, dice), Traffic()
    server: Scheduler
    buyers = min(BUYERS, max(size // BUYERS, 1))
    if scheduler == "router":
        server = Gateways(network, buyers, dice, ask=replace(ASK, hedge=True))
        server.remember(network, dice, traffic.draw(dice, 1000), HISTORY)
    else:
        server = Chance() if scheduler == "chance" else Omniscient(float(scheduler))
    rate = load * network.capacity(traffic)
    world = World(network, np.random.default_rng([SEED, size, 1]))
    warm, seconds = max(WARM_SECONDS, buyers * WARM_EACH / rate), requests / rate
    asked = arrivals(network, traffic, world.dice, load=load, seconds=warm + seconds)
    world.run(server, asked, warm=warm, seconds=seconds)
    return world, server


def _compared(say: Say, size: int, load: float, most: float, requests: int) -> Iterator[Figure]:
    name = f"{size}.load_{load:g}"
    knowing = [_p99(say, name, str(patience), size, load, requests)[0] for patience in PATIENCES]
    chance, _, _ = _p99(say, name, "chance", size, load, requests)
    ours, world, server = _p99(say, name, "router", size, load, requests)
    n = len(world.first_tokens)
    yield Figure(f"{name}.all_knowing_p99", min(knowing), "s", None, None, n)
    yield Figure(f"{name}.chance_p99", chance, "s", None, None, n)
    yield Figure(f"{name}.router_p50", float(np.median(world.first_tokens)), "s", None, None, n)
    yield Figure(f"{name}.router_p99", ours, "s", None, None, n)
    yield Figure(f"{name}.over_all_knowing", ours / min(knowing), "ratio", most, ours <= most * min(knowing), n)
    yield Figure(f"{name}.over_chance", ours / chance, "ratio", BELOW_CHANCE, ours <= BELOW_CHANCE * chance, n)
    yield Figure(f"{name}.not_answered", world.failed, "requests", 0, world.failed == 0, n)
    assert isinstance(server, Gateways)
    choosing = 1000 * float(np.median(server.cpu))
    yield Figure(f"{name}.choice", choosing, "ms of processor time", CPU_MS, choosing < CPU_MS, len(server.cpu))
    yield Figure(f"{name}.probes", 3 * server.probes / len(server.cpu), "a request", None, None, len(server.cpu))
    yield Figure(f"{name}.tries", server.sends / len(server.cpu), "a request", None, None, len(server.cpu))


def _p99(say: Say, name: str, scheduler: str, size: int, load: float, requests: int) -> tuple[float, World, Scheduler]:
    world, server = simulate(scheduler, size, load, requests)
    # Who was never answered took longer than anybody who was.
    times = [*world.first_tokens, *[float("inf")] * world.failed]
    found = float(np.percentile(times, 99, method="higher"))
    say(f"{name}: {scheduler}: {found:.3f} s")
    return found, world, server


def _tiers(say: Say, requests: int) -> Iterator[Figure]:
    """Both tiers over SMALL networks of the same providers; then tier 2 over many."""
    load = min(LOADS)
    events: list[float] = []
    peers: list[float] = []
    lost = 0
    for seed in range(SMALL_NETWORKS):
        rate = load * (network := _small(SMALL, seed)).capacity(Traffic())
        warm, seconds = requests / 100 / rate, requests / 40 / rate
        asked = arrivals(network, Traffic(), np.random.default_rng([SEED, seed, 3]), load=load, seconds=warm + seconds)
        gateways = Gateways(network, 2, np.random.default_rng([SEED, seed]))
        world = World(network, np.random.default_rng([SEED, seed, 1]), np.random.default_rng([SEED, seed, 4]))
        world.run(gateways, asked, warm=warm, seconds=seconds)
        events += world.first_tokens
        dice, churning = np.random.default_rng([SEED, seed, 2]), np.random.default_rng([SEED, seed, 4])
        found, missing = run(first_tokens(_small(SMALL, seed), 2, dice, asked, warm=warm, churning=churning))
        peers, lost = peers + found, lost + missing
        say(f"{SMALL} providers in both tiers: {seed + 1}/{SMALL_NETWORKS}")
    for percent in (50, 90, 99):
        one, other = float(np.percentile(events, percent)), float(np.percentile(peers, percent))
        yield Figure(f"{SMALL}.events_p{percent}", one, "s", None, None, len(events))
        yield Figure(f"{SMALL}.peers_p{percent}", other, "s", None, None, len(peers))
        yield Figure(f"{SMALL}.peers_over_events_p{percent}", other / one, "ratio", None, None, len(peers))
    yield Figure(f"{SMALL}.peers_not_answered", lost, "requests", 0, lost == 0, len(peers))
    rate = load * (network := _small(PEERS, 0)).capacity(Traffic())
    warm, seconds = requests / 20 / rate, requests / 10 / rate
    dice = np.random.default_rng([SEED, PEERS, 2])
    asked = arrivals(network, Traffic(), dice, load=load, seconds=warm + seconds)
    found, lost = run(first_tokens(network, PEERS // PEERS_EACH, dice, asked, warm=warm))
    yield Figure(f"{PEERS}.peers_p99", float(np.percentile(found, 99)), "s", None, None, len(found))
    yield Figure(f"{PEERS}.peers_not_answered", lost, "requests", 0, lost == 0, len(found))


def _small(size: int, seed: int) -> Network:
    return Network(size, np.random.default_rng([SEED, size, seed]))


def _memory(size: int) -> Iterator[Figure]:
    """Of offers, their catalogue, and one router that has dealt with each of them; and what a choice takes then."""
    dice = np.random.default_rng(SEED)
    tracemalloc.start()
    offers: list[Offer] = [an_offer(number, dice) for number in range(size)]
    router = Router(dice)
    router.use(Catalogue(offers).index())
    for offer in offers:
        router.asked(offer)
        router.first(offer, Work(100, 100), 1.0, 0.0)
        router.good(offer, 0.0)
        router.over(offer)
    router.shortlist(ASK, Work(100, 100), 1.0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each = used / size
    yield Figure(f"{size}.memory", each, "bytes a record", RECORD_BYTES, each < RECORD_BYTES, size)
    times: list[float] = []
    for job in Traffic().draw(dice, CHOICES):
        started = time.thread_time()
        router.shortlist(ASK, Work(int(job.prompt), int(job.output)), 2.0)
        times.append(time.thread_time() - started)
    choosing = 1000 * float(np.median(times))
    yield Figure(f"{size}.choice_all_known", choosing, "ms of processor time", CPU_MS, choosing < CPU_MS, CHOICES)
