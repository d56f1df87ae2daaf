"""The steps of a route, which whoever drives it takes: over a network, in a simulation, in tests."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from assay.core.offer import Load, Offer


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask these how busy they are, best first."""

    offers: Sequence[Offer]
    grace: float = 0.0
    """Seconds for which the others are waited for at least when one with room has replied."""

    def settled(self, loads: Mapping[str, Load | None], failed: Set[str]) -> bool:
        """One has replied that has nothing to do, and all before it have replied or failed: nobody will be better."""
        for offer in self.offers:
            load = loads.get(offer.url)
            if load is not None and load.room and not load.running:
                return True
            if offer.url not in loads and offer.url not in failed:
                return False
        return False


@dataclass(frozen=True, slots=True)
class Send:
    """Ask this one for the answer."""

    offer: Offer
    patience: float = inf
    """Seconds after which, without a first token, the next step is taken as well; this answer is still waited for."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a step, and when."""

    now: float
    loads: Mapping[str, Load | None] = field(default_factory=dict)
    """After a probe, by URL: None where a provider does not say."""
    late: Set[str] = frozenset()
    """After a probe, those that were not waited for; who is in neither has failed. After a `Send`, those whose first
    token is still waited for."""
    after: Mapping[str, float] = field(default_factory=dict)
    """Seconds after which each of the others replied."""


Route: TypeAlias = Generator[Probe | Send, Heard, None]
"""Steps to an answer. It is sent `Heard` after each; after a `Send`, when one that was asked has failed or the patience
is over. Ends when nobody is left."""
