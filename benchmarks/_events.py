"""Many buyers and providers in simulated time: discrete events, one generator a request."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from itertools import count
from typing import Final, Protocol, TypeAlias

import numpy as np
from benchmarks._network import CONNECT_SECONDS, Job, Network, Traffic, churn

Process: TypeAlias = Generator[float, None, None]
"""Yields seconds to wait."""


class Scheduler(Protocol):
    """Serves requests, one generator each."""

    def serve(self, world: World, job: Job) -> Process:
        """Ends when the answer has; tells `world.began` when the first token is there."""
        ...


class World:
    """A network and its traffic in simulated time."""

    def __init__(self, network: Network, dice: np.random.Generator) -> None:
        self.network: Final = network
        self.dice: Final = dice
        self.now = 0.0
        self.first_tokens: list[float] = []
        """Seconds, of each request that was asked since `measured_from`."""
        self.failed = 0
        self.measured_from = float("inf")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number: Final = count()

    def run(self, scheduler: Scheduler, traffic: Traffic, *, load: float, warm: float, seconds: float) -> None:
        """Poisson arrivals at a share `load` of the capacity; the first `warm` seconds are not measured.

        Measured requests are followed until their first token.
        """
        end = warm + seconds
        self.measured_from = warm
        rate = load * self.network.capacity
        jobs = traffic.draw(self.dice, int(rate * end))
        for at, job in zip(np.sort(self.dice.random(len(jobs)) * end).tolist(), jobs, strict=True):
            self.after(at, lambda job=job: self.start(scheduler.serve(self, job)))
        churn(self.network, self.dice, self.after)
        self.settle(end + 60)

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Something happens later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), event))

    def began(self, asked: float) -> None:
        """The first token of a request that was asked at that time is there."""
        if asked >= self.measured_from:
            self.first_tokens.append(self.now - asked)

    def gave_up(self, asked: float) -> None:
        """Nobody answered it."""
        if asked >= self.measured_from:
            self.failed += 1

    def send(self, provider: int, job: Job, asked: float, *, reserved: bool = False) -> Generator[float, None, str]:
        """Ask one provider: `good` when the answer has begun (`began` was told), `busy`, `dead`.

        It ends later by itself. `reserved`: a place is taken at once, from afar.
        """
        network = self.network
        if network.dead[provider]:
            yield CONNECT_SECONDS if network.mute[provider] else float(network.round_trip[provider])
            return "dead"
        half = float(network.round_trip[provider]) / 2
        network.running[provider] += reserved
        yield half
        while not reserved and network.running[provider] >= network.places[provider]:
            if not network.lying[provider]:
                yield half
                return "busy"
            yield 0.25  # a liar queues
        network.running[provider] += not reserved
        first = network.first_token(provider, job)
        yield first + half
        self.began(asked)
        rest = network.rest(provider, job)

        def end() -> None:
            network.running[provider] -= 1

        self.after(rest, end)
        return "good"

    def start(self, process: Process) -> None:
        """A process goes on, from now."""
        wait = next(process, None)
        if wait is not None:
            self.after(wait, lambda: self.start(process))

    def settle(self, end: float) -> None:
        """Everything happens that is to happen until then."""
        while self._events and self.now < end:
            self.now, _, event = heapq.heappop(self._events)
            event()
