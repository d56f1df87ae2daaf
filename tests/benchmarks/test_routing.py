"""The simulated network is what it says it is, and routing in it beats chance."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks._events import Process, World
from benchmarks._network import Job, Network, Traffic, arrivals
from benchmarks._schedulers import Chance
from benchmarks._virtual import first_tokens, run

from benchmarks import _network, routing


def test_shares_of_the_network_stay_as_they_are_said_to_be() -> None:
    """Dead, slow and lying providers, at the start and after they have come and gone for a while."""
    dice = np.random.default_rng(1)
    network = Network(4000, dice)
    world = World(network, dice)
    asked = arrivals(network, Traffic(), dice, load=0.001, seconds=300.0)
    world.run(Chance(), asked, warm=0.0, seconds=300.0)
    assert network.dead.mean() == pytest.approx(_network.DEAD, abs=0.01)
    assert (network.slow > 1).mean() == pytest.approx(_network.SLOW, abs=0.02)
    assert network.lying.mean() == pytest.approx(_network.LYING, abs=0.02)


def test_a_full_provider_refuses_and_a_dead_one_fails() -> None:
    """And one that lies says that it is idle."""
    dice = np.random.default_rng(1)
    network = Network(10, dice)
    network.dead[:], network.lying[:], network.running[:] = False, False, network.places
    world = World(network, dice)
    said: list[str] = []

    def ask(provider: int) -> Process:
        said.append((yield from world.send(provider, Job(10, 10))))

    network.dead[1] = True
    network.lying[2] = True
    for provider in (0, 1):
        world.start(ask(provider))
    world.settle(10.0)
    assert sorted(said) == ["busy", "dead"]
    assert network.said(2)[0] == 0
    assert not np.isfinite(network.first_tokens(Job(10, 10))).any()


def test_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run: all figures are there, every request is answered, and chance is far behind; tiers agree roughly."""
    monkeypatch.setattr(routing, "PEERS", 200)
    figures = {each.name: each for each in routing.measure(lambda _: None, sizes=[300], requests=600)}
    assert len(figures) == 2 * 10 + 2 + 12
    assert figures["50.peers_not_answered"].value == figures["200.peers_not_answered"].value == 0
    assert 0.3 < figures["50.peers_over_events_p50"].value < 3
    for load in routing.LOADS:
        assert figures[f"300.load_{load:g}.not_answered"].value == 0
        assert figures[f"300.load_{load:g}.over_chance"].value < 0.7
        assert figures[f"300.load_{load:g}.over_all_knowing"].value > 0.9
    assert figures["300.memory"].holds


def test_simulated_time_passes_at_once_and_is_the_same_each_time() -> None:
    """Minutes of many peers take seconds; the same dice give the same times."""

    def times() -> list[float]:
        network = Network(20, np.random.default_rng(3))
        dice = np.random.default_rng(4)
        asked = arrivals(network, Traffic(), dice, load=0.5, seconds=30.0)
        found, lost = run(first_tokens(network, 2, dice, asked, warm=0.0))
        assert lost == 0
        return found

    first = times()
    assert len(first) > 10
    assert times() == first
