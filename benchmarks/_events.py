"""Many buyers and providers in simulated time: discrete events, one generator a request."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from itertools import count
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from benchmarks._network import CONNECT_SECONDS, Arrivals, Job, Network, churn


class Signal:
    """What a process can wait for."""

    def __init__(self) -> None:
        self._wake: Callable[[], None] | None = None

    def give(self) -> None:
        """Whoever waits for it goes on."""
        if self._wake is not None:
            self._wake()

    def wakes(self, process: Callable[[], None] | None) -> None:
        """Whom it makes go on."""
        self._wake = process


class Until(NamedTuple):
    """For at most so many seconds."""

    signal: Signal
    seconds: float


Process: TypeAlias = Generator[float | Until, None, None]
"""Yields seconds to wait, or what for."""


class Scheduler(Protocol):
    """Serves requests, one generator each."""

    def serve(self, world: World, job: Job) -> Process:
        """Tells `world.began` when the first token is there."""
        ...


class World:
    """A network and its traffic in simulated time."""

    def __init__(
        self, network: Network, dice: np.random.Generator, churning: np.random.Generator | None = None
    ) -> None:
        """`churning`: dice by which providers come and go, if not those of all else."""
        self.network: Final = network
        self.dice: Final = dice
        self.churning: Final = churning or dice
        self.now = 0.0
        self.first_tokens: list[float] = []
        """Seconds, of each request that was asked since `measured_from`."""
        self.failed = 0
        self.measured_from = float("inf")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number: Final = count()

    def run(
        self, scheduler: Scheduler, asked: Arrivals, *, warm: float, seconds: float, first: int | None = None
    ) -> None:
        """The first `warm` seconds are not measured; `seconds` follow. Measured requests are followed until their first
        token. `first`: see `churn`."""
        self.measured_from = warm
        for at, job in asked:
            self.after(at, lambda job=job: self.start(scheduler.serve(self, job)))
        churn(self.network, self.churning, self.after, first=first)
        self.settle(warm + seconds + 60)

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

    def send(self, provider: int, job: Job, *, reserved: bool = False) -> Generator[float, None, str]:
        """Ask one provider: `good` when the answer has begun, `busy`, `dead`.

        It ends later by itself, or when this is closed before it has begun. `reserved`: a place is taken at once, from
        afar.
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
        left = half

        def end() -> None:
            network.running[provider] -= 1

        try:
            yield network.first_token(provider, job) + half
            left = network.rest(provider, job)
        finally:
            self.after(left, end)
        return "good"

    def start(self, process: Process) -> None:
        """A process goes on, from now."""
        wait = next(process, None)
        if isinstance(wait, Until):
            going = False

            def go() -> None:
                nonlocal going
                if not going:
                    going = True
                    self.start(process)

            wait.signal.wakes(lambda: self.after(0.0, go))
            if wait.seconds < float("inf"):
                self.after(wait.seconds, go)
        elif wait is not None:
            self.after(wait, lambda: self.start(process))

    def settle(self, end: float) -> None:
        """Everything happens that is to happen until then."""
        while self._events and self.now < end:
            self.now, _, event = heapq.heappop(self._events)
            event()
