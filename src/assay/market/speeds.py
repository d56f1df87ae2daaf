"""How fast and how reliable the offers of one pool have been to this buyer, and draws of how they may be now.

For each offer, what was seen is discounted: by the factor KEEP with each observation, and by exp(-t / FADE) with time,
as in discounted Thompson sampling (Raj & Kalyani 2017, "Taming non-stationary bandits"), so that a machine that has
become slow is found out soon, and gets another chance later.

    success      Beta(1 + good, 1 + bad), of discounted counts
    time         log seconds per token ~ Normal(θ, SPREAD²), θ ~ Normal(the pool's mean, SPREAD² / PRIOR): with
                 discounted weight w and mean m of what was seen, θ ~ Normal((PRIOR·mean + w·m) / (PRIOR + w),
                 SPREAD² / (PRIOR + w)) (Agrawal & Goyal 2013, "Thompson sampling ... Gaussian priors")

A prompt of n tokens takes exp(θ) · (n + OVERHEAD) seconds to the first token. What providers say of their speed is not
used.
"""

from __future__ import annotations

from math import exp, log
from typing import Final, NamedTuple

import numpy as np

from assay.market.rows import Rows

KEEP: Final = 0.8
"""Of what was seen before, with each observation."""
FADE: Final = 600.0
"""Seconds in which the weight of what was seen falls to 1/e."""
SPREAD: Final = 0.4
"""Of the logarithm of one time that was seen around its mean."""
PRIOR: Final = 0.5
"""Weight of the pool's mean, in observations."""
OVERHEAD: Final = 64
"""Tokens that the way there and back stand for."""
_POOLED: Final = 200
"""Observations that the pool's mean goes over."""
_ROW: Final = np.dtype(
    [
        ("place", "i4"),
        ("machine", "i4"),
        ("seen", "f8"),
        ("good", "f4"),
        ("bad", "f4"),
        ("first", "f4"),
        ("first_weight", "f4"),
        ("pace", "f4"),
        ("pace_weight", "f4"),
        ("room_until", "f8"),
    ]
)


class Drawn(NamedTuple):
    """How offers may be now, drawn from what is believed of them; float64 [k] each."""

    success: np.ndarray
    """Probability that an answer comes whole."""
    first: np.ndarray
    """Seconds a prompt token, to the first token."""
    pace: np.ndarray
    """Seconds an output token."""


class Speeds:
    """Of one pool, by URL. Mutable; time is handed in."""

    def __init__(self) -> None:
        self.rows: Final = Rows(_ROW)
        """`place` in the pool, -1 if it is not offered now; `machine`: row of its health; `room_until`: a time up to
        which it is taken to have room for one more answer."""
        self._means = {"first": log(1 / 500), "pace": log(1 / 20)}
        self._counts = {"first": 0, "pace": 0}

    def took(self, row: int, column: str, seconds: float, tokens: float, now: float) -> None:
        """Something took so many seconds: `first`, to read a prompt of `tokens`; `pace`, to write them."""
        seen = log(max(seconds, 1e-6) / (tokens + OVERHEAD if column == "first" else max(tokens, 1)))
        self._fade(row, now)
        weight = self.rows[f"{column}_weight"]
        kept = KEEP * float(weight[row])
        self.rows[column][row] += (seen - float(self.rows[column][row])) / (kept + 1)
        weight[row] = kept + 1
        self._counts[column] = min(self._counts[column] + 1, _POOLED)
        self._means[column] += (seen - self._means[column]) / self._counts[column]

    def ended(self, row: int, now: float, *, good: bool) -> None:
        """An answer came whole, or failed."""
        self._fade(row, now)
        for column, more in (("good", good), ("bad", not good)):
            self.rows[column][row] = KEEP * self.rows[column][row] + more

    def draw(self, rows: np.ndarray, now: float, dice: np.random.Generator) -> Drawn:
        """Thompson sampling: one draw for each of `rows`, integers [k]."""
        left = np.exp((self.rows["seen"][rows] - now) / FADE)
        success = dice.beta(1 + left * self.rows["good"][rows], 1 + left * self.rows["bad"][rows])
        return Drawn(success, self._times("first", rows, left, dice), self._times("pace", rows, left, dice))

    def usual(self, column: str) -> float:
        """Seconds a token, over the pool."""
        return exp(self._means[column])

    def _times(self, column: str, rows: np.ndarray, left: np.ndarray, dice: np.random.Generator) -> np.ndarray:
        weight = left * self.rows[f"{column}_weight"][rows]
        mean = (PRIOR * self._means[column] + weight * self.rows[column][rows]) / (PRIOR + weight)
        return np.exp(mean + SPREAD / np.sqrt(PRIOR + weight) * dice.standard_normal(len(rows)))

    def _fade(self, row: int, now: float) -> None:
        left = exp(min((float(self.rows["seen"][row]) - now) / FADE, 0.0))
        for column in ("good", "bad", "first_weight", "pace_weight"):
            self.rows[column][row] *= left
        self.rows["seen"][row] = now
