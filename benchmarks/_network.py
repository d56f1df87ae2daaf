"""A network of many providers as numbers: unequal, some of them lying, dead or slow; and requests for it.

All that a scheduler may want to know is in columns of `Network`. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np

LYING: Final = 0.05
"""Share of the providers that say they are idle, never refuse, and are LIAR_SLOWER than they look."""
LIAR_SLOWER: Final = 3.0
DEAD: Final = 0.03
"""Share of the time for which a provider is dead, DEAD_SECONDS on average at once."""
DEAD_SECONDS: Final = 60.0
SLOW: Final = 0.09
"""Share of the time for which it is slow by SLOWER, SLOW_SECONDS on average at once."""
SLOWER: Final = 8.0
SLOW_SECONDS: Final = 120.0
BESIDE: Final = 0.25
"""How much longer everything takes for each other answer under way there."""
CONNECT_SECONDS: Final = 3.0
"""Until a buyer gives up half of the dead ones; the others refuse at once."""
_PLACES: Final = ((1, 0.3), (2, 0.3), (4, 0.3), (8, 0.1))


class Job(NamedTuple):
    """A request, in tokens."""

    prompt: float
    output: float


@dataclass(frozen=True)
class Traffic:
    """Requests: lengths are log-normal, as in traces of real services (BurstGPT, Azure 2023)."""

    prompt: tuple[float, float] = (400.0, 1.0)
    """Median, and spread of the logarithm."""
    output: tuple[float, float] = (200.0, 0.8)

    def draw(self, dice: np.random.Generator, count: int) -> list[Job]:
        """So many requests."""
        prompts = self._lengths(dice, count, *self.prompt, 16384)
        return [Job(*pair) for pair in zip(prompts, self._lengths(dice, count, *self.output, 2048), strict=True)]

    def _lengths(self, dice: np.random.Generator, count: int, middle: float, spread: float, most: int) -> list[float]:
        return np.clip(middle * np.exp(spread * dice.standard_normal(count)), 8, most).tolist()


class Network:
    """Columns have one entry a provider; `dead`, `slow` and `running` change."""

    def __init__(self, count: int, dice: np.random.Generator) -> None:
        machine, other = dice.standard_normal((2, count))
        self.count: Final = count
        self.lying: Final = dice.random(count) < LYING
        worse = np.where(self.lying, LIAR_SLOWER, 1.0)
        self.round_trip: Final = np.clip(0.06 * np.exp(0.6 * dice.standard_normal(count)), 0.005, 0.4)
        self.read: Final = worse / (1500 * np.exp(0.6 * (0.8 * machine + 0.6 * other)))
        """Seconds a prompt token, alone."""
        self.write: Final = worse / (40 * np.exp(0.5 * machine))
        """Seconds an output token, alone."""
        counts, shares = zip(*_PLACES, strict=True)
        self.places: Final = dice.choice(counts, count, p=shares)
        self.dead: Final = dice.random(count) < DEAD
        self.mute: Final = dice.random(count) < 0.5
        """Does not even refuse a connection while it is dead."""
        self.slow: Final = np.where(dice.random(count) < SLOW, SLOWER, 1.0)
        self.running: Final = np.zeros(count, np.int64)

    def capacity(self, traffic: Traffic) -> float:
        """Requests a second that all honest ones can serve together, all places taken."""
        output = traffic.output[0] * np.exp(traffic.output[1] ** 2 / 2)
        prompt = traffic.prompt[0] * np.exp(traffic.prompt[1] ** 2 / 2)
        alone = prompt * self.read + output * self.write
        slower = (1 + BESIDE * (self.places - 1)) * (1 - SLOW + SLOW * SLOWER) / (1 - DEAD)
        return float((self.places / (alone * slower))[~self.lying].sum())

    def first_token(self, provider: int, job: Job) -> float:
        """Seconds from when a provider begins with a request until it has the first token."""
        return float(job.prompt * self.read[provider] * self._now(provider))

    def rest(self, provider: int, job: Job) -> float:
        """Seconds from there to the end."""
        return float(job.output * self.write[provider] * self._now(provider))

    def first_tokens(self, job: Job) -> np.ndarray:
        """[n]: seconds until the first token is at the buyer, if all is known; infinite where there is no room."""
        seconds = self.round_trip + job.prompt * self.read * self.slow * (1 + BESIDE * self.running)
        return np.where(self.dead | (self.running >= self.places), np.inf, seconds)

    def rests(self, job: Job) -> np.ndarray:
        """[n]: seconds from there to the end."""
        return job.output * self.write * self.slow * (1 + BESIDE * self.running)

    def said(self, provider: int) -> tuple[int, int]:
        """Answers under way and places, as the provider says."""
        if self.lying[provider]:
            return 0, 64
        return int(self.running[provider]), int(self.places[provider])

    def _now(self, provider: int) -> float:
        """How much longer things take now; the answer itself is among those running."""
        return float(self.slow[provider] * (1 + BESIDE * max(self.running[provider] - 1, 0)))


Arrivals: TypeAlias = list[tuple[float, Job]]
"""Requests, and when they are asked: seconds, rising."""


def arrivals(network: Network, traffic: Traffic, dice: np.random.Generator, *, load: float, seconds: float) -> Arrivals:
    """A Poisson process at a share `load` of the capacity."""
    jobs = traffic.draw(dice, int(load * network.capacity(traffic) * seconds))
    return list(zip(np.sort(dice.random(len(jobs)) * seconds).tolist(), jobs, strict=True))


def churn(
    network: Network,
    dice: np.random.Generator,
    after: Callable[[float, Callable[[], None]], object],
    *,
    first: int | None = None,
) -> Callable[[], None]:
    """Let providers (the `first` so many, if not all) die and slow down, and come back, for ever; `after` makes
    something happen later. Gives what ends it."""
    going = True

    def switch(column: np.ndarray, provider: int, length: float, between: float, on: float) -> None:
        is_on = column[provider] == on

        def flip() -> None:
            if going:
                column[provider] = (0.0 if column.dtype == bool else 1.0) if is_on else on
                switch(column, provider, length, between, on)

        after(float(dice.exponential(length if is_on else between)), flip)

    def stop() -> None:
        nonlocal going
        going = False

    for column, share, length, on in (
        (network.dead, DEAD, DEAD_SECONDS, 1.0),
        (network.slow, SLOW, SLOW_SECONDS, SLOWER),
    ):
        for provider in range(network.count if first is None else first):
            switch(column, provider, length, length * (1 - share) / share, on)
    return stop
