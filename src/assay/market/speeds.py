"""How fast and how reliable the offers of one pool have been to this buyer, and draws of how they may be now.

For each offer, what was seen is discounted: by the factor KEEP with each observation, and by exp(-t / FADE) with time
(failures: FORGIVE), as in discounted Thompson sampling (Raj & Kalyani 2017, "Taming non-stationary bandits").

    success      Beta(1 + good, 1 + bad), of discounted counts
    time         log seconds per token ~ Normal(θ, SPREAD²), θ ~ Normal(the pool's mean, SPREAD² / PRIOR): with
                 discounted weight w and mean m of what was seen, θ ~ Normal((PRIOR·mean + w·m) / (PRIOR + w),
                 SPREAD² / (PRIOR + w)) (Agrawal & Goyal 2013, "Thompson sampling ... Gaussian priors")

The first token comes after a round trip, which probes measure, and exp(θ) · (n + OVERHEAD) seconds for a prompt of n
tokens. A short prompt tells little about θ: it counts as n / (n + ENOUGH) of an observation. A machine may also be slow
for a while: what took exp(FAR) times as long as believed hardly changes θ, and is added to it for about PASSES seconds,
unless a usual time is seen before.

The mean over what is believed is exp(θ + variance/2), which puts the well-known before the less known; the draw goes
around it, narrowed by the router's curiosity: over many providers a full draw mostly finds those of whom least is
known. What providers say of their speed is not used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import nlargest
from math import exp, log
from statistics import NormalDist
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from assay.market.rows import Rows

KEEP: Final = 0.8
"""Of what was seen before, with each observation."""
FADE: Final = 3600.0
"""Seconds in which the weight of what was seen falls to 1/e: machines stay what they are for longer than an hour, and
what may have changed since is the router's business (its STALE)."""
FORGIVE: Final = 120.0
"""The same for failures: most that cannot be reached can be soon."""
SPREAD: Final = 0.4
"""Of the logarithm of one time that was seen around its mean."""
FAR: Final = 1.0
"""Of a logarithm: what takes so much longer than believed, or less, shows a machine in another state."""
DOUBTED: Final = 0.2
"""What one answer in a slow state counts for what a machine is; and what was believed counts once it is faster."""
PASSES: Final = 120.0
"""Seconds in which a slow state is taken to pass, but for 1/e."""
_TELLING: Final = 0.3
"""Of an observation: what says less is not taken for another state."""
PRIOR: Final = 0.25
"""Weight of the pool's mean, in observations."""
OVERHEAD: Final = 16
"""Tokens that stand for what there is to do for any prompt."""
ENOUGH: Final = 200
"""Tokens of a prompt of which half the time, about, is reading it."""
_LEAST: Final = 1e-6
"""Seconds: nothing takes less."""
_REMEMBERED: Final = 200
"""First tokens of a pool of which it is remembered how late they were."""
_LOOKS: Final = 32
"""How often the same ones are taken to be the fastest."""
SHOWN_PROMPT: Final = 100
"""Tokens of the prompt for which the first token is shown."""
_POOLED: Final = 200
"""Observations that the pool's mean goes over."""
_ROW: Final = np.dtype(
    [
        ("place", "i4"),
        ("trip", "f4"),
        ("machine", "i4"),
        ("seen", "f8"),
        ("good", "f4"),
        ("bad", "f4"),
        ("first", "f4"),
        ("first_weight", "f4"),
        ("pace", "f4"),
        ("pace_weight", "f4"),
        ("first_slowed", "f4"),
        ("first_slowed_at", "f8"),
        ("pace_slowed", "f4"),
        ("pace_slowed_at", "f8"),
        ("room_until", "f8"),
        ("answers", "i4"),
    ]
)
_Some: TypeAlias = Any
"""An array, or one number: a row of the table, or what is in it."""


class Drawn(NamedTuple):
    """How offers may be now, drawn from what is believed of them; float64 [k] each."""

    success: np.ndarray
    """Probability that an answer comes whole."""
    trip: np.ndarray
    """Seconds there and back."""
    first: np.ndarray
    """Seconds a prompt token."""
    pace: np.ndarray
    """Seconds an output token."""


class Observed(NamedTuple):
    """What was seen of the offers of a pool, for people; [n] each."""

    urls: Sequence[str]
    first: np.ndarray
    """float64, seconds to the first token after SHOWN_PROMPT tokens of prompt, at the mean pace of those that came."""
    pace: np.ndarray
    """float64, tokens a second after that; nan: none came."""
    answers: np.ndarray
    """int32, first tokens that this rests on."""


class Speeds:
    """Of one pool, by URL. Mutable; time is handed in."""

    def __init__(self) -> None:
        self.rows: Final = Rows(_ROW)
        """`place` in the pool, -1 if it is not offered now; `machine`: row of its health; `trip`: seconds there and
        back, 0 if unknown; `room_until`: a time up to which it is taken to have room for one more answer; `answers`:
        first tokens that came."""
        self._means = {"first": log(1 / 500), "pace": log(1 / 20), "trip": log(0.05)}
        self._counts = dict.fromkeys(self._means, 0)
        self._fastest = np.zeros(0, np.int64)
        self._looks = 0
        self._surprises: Final = deque(NormalDist(0, SPREAD).samples(_REMEMBERED, seed=1), _REMEMBERED)
        """How much later first tokens came than expected, lately: logarithms. At first as if SPREAD were all."""

    def replied(self, row: int, seconds: float) -> None:
        """A question that takes no work was answered."""
        before = float(self.rows["trip"][row])
        self.rows["trip"][row] = KEEP * before + (1 - KEEP) * seconds if before else seconds
        self._pool("trip", log(max(seconds, _LEAST)))

    def read(self, row: int, seconds: float, tokens: int, now: float) -> None:
        """The first token came so long after a prompt of `tokens` was sent."""
        if self.rows["first_weight"][row]:  # of whom nothing is known, nothing is expected
            self._surprises.append(log(max(seconds, _LEAST) / self.expected(row, tokens, now)))
        trip = float(self.rows["trip"][row]) or self.usual("trip")
        reading = max(seconds - trip, seconds / 10, _LEAST)
        self._took(row, "first", log(reading / (tokens + OVERHEAD)), tokens / (tokens + ENOUGH), now)
        self.rows["answers"][row] += 1

    def expected(self, row: int, tokens: int, now: float) -> float:
        """Seconds until the first token after a prompt of `tokens`, as far as is believed."""
        left = np.exp((self.rows["seen"][row] - now) / FADE)
        mean, _ = self._believed("first", row, left, now)
        return (float(self.rows["trip"][row]) or self.usual("trip")) + exp(mean) * (tokens + OVERHEAD)

    def patience(self, row: int, tokens: int, share: float, now: float) -> float:
        """Seconds within which all but this share of the first tokens come, as it was lately in the pool."""
        latest = nlargest(1 + int(share * _REMEMBERED), self._surprises)[-1]
        return self.expected(row, tokens, now) * exp(latest)

    def late(self, row: int, seconds: float, tokens: int, now: float) -> None:
        """The first token had not come after so long, and is waited for no more: it is slow for now."""
        gap = log(max(seconds, _LEAST) / self.expected(row, tokens, now))
        self._surprises.append(gap)
        self.rows["first_slowed"][row] = max(gap, 0.0) + self._slowed("first", row, now)
        self.rows["first_slowed_at"][row] = now

    def wrote(self, row: int, seconds: float, tokens: int, now: float) -> None:
        """So many tokens came in so many seconds."""
        self._took(row, "pace", log(max(seconds, _LEAST) / tokens), 1.0, now)

    def ended(self, row: int, now: float, *, good: bool) -> None:
        """An answer came whole, or failed."""
        self._fade(row, now)
        for column, more in (("good", good), ("bad", not good)):
            self.rows[column][row] = KEEP * self.rows[column][row] + more

    def draw(self, rows: np.ndarray, now: float, dice: np.random.Generator, curiosity: float) -> Drawn:
        """Thompson sampling: one draw for each of `rows`, integers [k]. `curiosity`: of the width of
        what is believed, how much is drawn from."""
        left = np.exp((self.rows["seen"][rows] - now) / FADE)
        success = dice.beta(1 + left * self.rows["good"][rows], 1 + self._bad(rows, now))
        trip = self.rows["trip"][rows]
        return Drawn(
            success,
            np.where(trip > 0, trip, self.usual("trip")),
            self._times("first", rows, left, now, dice, curiosity),
            self._times("pace", rows, left, now, dice, curiosity),
        )

    def fastest(self, count: int, tokens: int, now: float) -> np.ndarray:
        """Rows of those whose first token after so long a prompt comes first, as far as is believed; looked up anew now
        and then only."""
        if self._looks % _LOOKS == 0 or len(self._fastest) < min(count, len(self.rows)):
            rows = np.arange(len(self.rows))
            mean, _ = self._believed("first", rows, np.exp((self.rows["seen"][rows] - now) / FADE), now)
            trip = self.rows["trip"]
            seconds = np.where(trip > 0, trip, self.usual("trip")) + np.exp(mean) * (tokens + OVERHEAD)
            self._fastest = rows if count >= len(rows) else np.argpartition(seconds, count)[:count]
        self._looks += 1
        return self._fastest

    def good(self, rows: np.ndarray, now: float) -> np.ndarray:
        """bool [k]: which have served us, and lately more often well than badly."""
        good = np.exp((self.rows["seen"][rows] - now) / FADE) * self.rows["good"][rows]
        return good > self._bad(rows, now)

    @property
    def observed(self) -> Observed:
        """Of all offers, in the order of the rows: what was seen, whatever else is believed."""
        trip = self.rows["trip"]
        return Observed(
            self.rows.names(),
            np.where(trip > 0, trip, self.usual("trip")) + np.exp(self.rows["first"]) * (SHOWN_PROMPT + OVERHEAD),
            np.where(self.rows["pace_weight"] > 0, np.exp(-self.rows["pace"]), np.nan),
            self.rows["answers"].copy(),
        )

    def usual(self, column: str) -> float:
        """Over the pool: seconds a token (`first`, `pace`), or there and back (`trip`)."""
        return exp(self._means[column])

    def _times(
        self, column: str, rows: np.ndarray, left: np.ndarray, now: float, dice: np.random.Generator, curiosity: float
    ) -> np.ndarray:
        mean, variance = self._believed(column, rows, left, now)
        return np.exp(mean + variance / 2 + curiosity * np.sqrt(variance) * dice.standard_normal(len(rows)))

    def _believed(self, column: str, rows: _Some, left: _Some, now: float) -> tuple[_Some, _Some]:
        """Mean and variance of the logarithm of seconds a token."""
        weight = left * self.rows[f"{column}_weight"][rows]
        mean = (PRIOR * self._means[column] + weight * self.rows[column][rows]) / (PRIOR + weight)
        return mean + self._slowed(column, rows, now), SPREAD**2 / (PRIOR + weight)

    def _slowed(self, column: str, rows: _Some, now: float) -> _Some:
        """What a slow state adds to that mean."""
        return self.rows[f"{column}_slowed"][rows] * np.exp((self.rows[f"{column}_slowed_at"][rows] - now) / PASSES)

    def _bad(self, rows: np.ndarray, now: float) -> np.ndarray:
        return np.exp((self.rows["seen"][rows] - now) / FORGIVE) * self.rows["bad"][rows]

    def _took(self, row: int, column: str, seen: float, weight: float, now: float) -> None:
        self._fade(row, now)
        kept = KEEP * float(self.rows[f"{column}_weight"][row])
        gap = seen - float(self.rows[column][row])
        if kept and weight > _TELLING:
            if gap > FAR:
                weight *= DOUBTED
                self.rows[f"{column}_slowed"][row], self.rows[f"{column}_slowed_at"][row] = gap, now
            else:
                self.rows[f"{column}_slowed"][row] = 0.0
                kept *= DOUBTED if gap < -FAR else 1.0
        self.rows[column][row] += (seen - float(self.rows[column][row])) * weight / (kept + weight)
        self.rows[f"{column}_weight"][row] = kept + weight
        self._pool(column, seen)

    def _pool(self, column: str, seen: float) -> None:
        self._counts[column] = min(self._counts[column] + 1, _POOLED)
        self._means[column] += (seen - self._means[column]) / self._counts[column]

    def _fade(self, row: int, now: float) -> None:
        age = max(now - float(self.rows["seen"][row]), 0.0)
        for column, seconds in (("good", FADE), ("bad", FORGIVE), ("first_weight", FADE), ("pace_weight", FADE)):
            self.rows[column][row] *= exp(-age / seconds)
        self.rows["seen"][row] = now
