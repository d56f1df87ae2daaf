"""The steps of a route, which whoever drives it takes: over a network, in a simulation, in tests."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

from assay.core.offer import Load, Offer


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask these how busy they are."""

    offers: Sequence[Offer]
    grace: float = 0.0
    """Seconds for which the others are waited for at least when one with room has replied."""


@dataclass(frozen=True, slots=True)
class Send:
    """Ask this one for the answer."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a step, and when."""

    now: float
    loads: Mapping[str, Load | None] = field(default_factory=dict)
    """After a probe, by URL: None where a provider does not say."""
    late: Set[str] = frozenset()
    """Those that were not waited for; who is in neither has failed."""
    after: Mapping[str, float] = field(default_factory=dict)
    """Seconds after which each of the others replied."""


Route: TypeAlias = Generator[Probe | Send, Heard, None]
"""Steps to an answer. It is sent `Heard` after each; after a `Send`, only if that failed. Ends when nobody is left."""
