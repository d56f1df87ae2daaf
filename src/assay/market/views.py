"""What a shortlist is made from: the offers that fit one ask, and what is known of them now."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Final, NamedTuple

import numpy as np

from assay.core.offer import Ask, Sort
from assay.market.matching import Places, Pool
from assay.market.speeds import Speeds
from assay.market.work import Work

PRICE_WEIGHT: Final[Mapping[Sort, float]] = {"balance": 1.0, "price": 1000.0, "latency": 0.0, "throughput": 0.0}
"""Exponent of the price in what is compared: price^w · time / chance of success."""
_FREE: Final = 1e-9
"""Wei that stand for a price of nothing: free ones are compared by time alone, and come before all others."""
AUDITED: Final = log(2)
"""Of the cost, what a provider has less that is trusted wholly: as much as half the price or half the time."""
TIERS: Final = range(6)
"""A newcomer whose turn it is; known; a newcomer; one that failed; cannot be checked; rests: none is asked before those
of lower tiers."""
EXPLORED, KNOWN, NEWCOMER, FAILED, UNCLEAR, RESTS = TIERS
TIER_NAMES: Final = ("explored", "known", "newcomer", "failed", "unclear", "rests")


class View(NamedTuple):
    """What a shortlist is made from."""

    pool: Pool
    fit: Places
    unclear: Places
    """Where the offers are whose answers cannot be checked."""
    trust: np.ndarray
    """float64 [n], in each offer's provider."""
    speeds: Speeds
    ask: Ask
    work: Work
    now: float

    @property
    def preferred(self) -> Places:
        """Where the offers are that `order` names."""
        return self.pool.named(self.ask.order)

    def fits(self, places: Places) -> np.ndarray:
        """bool [k]: which of these fit."""
        at = np.searchsorted(self.fit, places)
        return self.fit[np.minimum(at, len(self.fit) - 1)] == places

    def known(self, places: Places) -> np.ndarray:
        """bool [k]: which of these have served us, and more often well than badly."""
        found = [self.speeds.rows.find(self.pool.offers[place].url) for place in places.tolist()]
        known = np.array([row is not None for row in found], bool)
        known[known] = self.speeds.good(np.array([row for row in found if row is not None], np.int64), self.now)
        return known

    def tiers(self, places: Places, tier: int | np.ndarray, resting: np.ndarray) -> np.ndarray:
        """Of these places: `tier` (one for all, or [k]), unless they are unclear or rest."""
        found = np.where(np.isin(places, self.unclear), UNCLEAR, tier) if len(self.unclear) else tier
        return np.where(resting, RESTS, found)

    def fixed_cost(self, places: Places) -> np.ndarray:
        """float64 [k]: what price and audit record add to the cost."""
        price = PRICE_WEIGHT[self.ask.sort] * np.log(np.maximum(self.pool.prices[places], _FREE))
        return price - AUDITED * self.trust[places]
