"""Which offers to try for an ask, best first: the journey's stage match."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from typing import Final

from assay.core.errors import ModelNotFound, NoProvider
from assay.core.keys import Address
from assay.core.offer import Ask, Match, Offer
from assay.core.request import LEVELS, Level
from assay.market.pricing import blended, within

FALSE_ALARM: Final = 0.01
"""Bound on how often a statistical check of an honest answer fails."""
DOUBT: Final = 0.001
"""Bound on the chance that statistical failures ever leave an honest provider out, however often one looks."""
_CHEATS: Final = (0.03, 0.1, 0.3, 0.9)
"""Rates of failure that the evidence against a provider is betted on, in equal parts."""
UNCHECKABLE: Final = 3
"""Checks that could not be made, before a provider is asked after others for it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about one provider from dealing with it."""

    caught: int = 0
    """Times that leave no doubt: a pinned check or a whole history failed, or two receipts have one number."""
    doubts: int = 0
    """Statistical checks that failed."""
    checked: int = 0
    """Statistical checks made."""
    failures: int = 0
    """Failed answers since the last good one."""
    resting_until: float = 0.0
    """It is not asked before this time (on the clock that `now` comes from)."""
    active: int = 0
    """Answers under way there for us."""
    asked: int = 0
    """Answers that we asked for."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Checks that held, by level."""
    inconclusive: Mapping[str, int] = field(default_factory=dict)
    """Checks that its profile did not allow, by level."""

    def uncheckable(self, level: Level) -> bool:
        """Most checks at this level could not be made: it claims a machine that nobody here can recompute. It may be
        honest, so it is only asked after those that can be checked."""
        count = self.inconclusive.get(level, 0)
        return count >= UNCHECKABLE and self.held.get(level, 0) < count

    @property
    def dishonest(self) -> bool:
        """There is proof, or too many doubts to be bad luck."""
        return self.caught > 0 or _unlikely(self.doubts, self.checked)


@dataclass(frozen=True, slots=True)
class Records:
    """Records by provider and address: an impostor under another URL spoils nobody's name there."""

    of_provider: Mapping[Address, Record] = field(default_factory=dict)
    """Verdicts: their receipts are signed, so they stick to the key."""
    of_url: Mapping[str, Record] = field(default_factory=dict)
    """Failures and load: they stick to the machine."""


def choose(ask: Ask, offers: Sequence[Offer], *, records: Records | None = None, now: float = 0.0) -> Match:
    """The offers that fit, in the order to try them.

    Named in `order` first; then those that do not rest after failures, of these those whose answers can be checked,
    cheapest first, and among equals the ones with fewer of our answers under way, then those asked less often.
    Without `allow_fallbacks` only the first is left.

    Raises:
        ModelNotFound: nobody offers the model.
        NoProvider: nobody offers it as wished; the message says which wish leaves nobody.
    """
    known = records or Records()
    fit = _filter(ask, offers, known)

    def rank(offer: Offer) -> tuple[int, bool, bool, int, int, int, int]:
        place = next((i for i, name in enumerate(ask.order) if _is(offer, name)), len(ask.order))
        record = known.of_url.get(offer.url, Record())
        rests = record.resting_until > now
        unclear = known.of_provider.get(offer.provider, Record()).uncheckable(offer.level)
        return place, rests, unclear, blended(offer.price), record.failures, record.active, record.asked

    ranked = sorted(fit, key=rank)
    return Match(ask, tuple(ranked if ask.allow_fallbacks else ranked[:1]))


def _filter(ask: Ask, offers: Sequence[Offer], known: Records) -> Sequence[Offer]:
    """Apply one wish after the other; the one that leaves nobody is named."""
    named = [offer for offer in offers if offer.model == ask.model]
    if not named:
        served = ", ".join(sorted({offer.model for offer in offers})) or "none"
        raise ModelNotFound(
            f"no provider offers {ask.model[:100]!r} (offered: {served[:500]})",
            "start one with `assay serve`, or ask for a model that is offered",
        )
    levels = {offer.level for offer in named}
    wishes: list[tuple[Callable[[Offer], bool], str, str]] = [
        (
            lambda offer: offer.level == ask.level,
            f"at level '{ask.level}' (offered: {', '.join(level for level in LEVELS if level in levels)})",
            "start one with `assay serve`, or ask for another level",
        ),
        (
            lambda offer: not ask.only or any(_is(offer, name) for name in ask.only),
            "among those in `only`",
            "name others, or leave `only` out",
        ),
        (
            lambda offer: not any(_is(offer, name) for name in ask.ignore),
            "that is not in `ignore`",
            "take one out of `ignore`",
        ),
        (
            lambda offer: not known.of_provider.get(offer.provider, Record()).dishonest,
            "that was not caught cheating",
            "start an honest one with `assay serve`",
        ),
        (
            lambda offer: not ask.seeded or offer.sampler != "foreign",
            "whose sampler is seeded by the request",
            "leave `seeded` out, or start one with `assay serve`",
        ),
        (
            lambda offer: within(offer.price, ask.max_price),
            "within `max_price`",
            "raise it, or leave it out",
        ),
    ]
    left = named
    for fits, wish, remedy in wishes:
        kept = [offer for offer in left if fits(offer)]
        if not kept:
            prices = f" (the cheapest left asks {_spelled(left)})" if "price" in wish else ""
            raise NoProvider(f"no provider offers {ask.model!r} {wish}{prices}", remedy)
        left = kept
    return left


def _spelled(offers: Sequence[Offer]) -> str:
    price = min((offer.price for offer in offers), key=blended)
    return f"{price.prompt} wei a prompt token and {price.output} an output token"


def _is(offer: Offer, name: str) -> bool:
    return name.lower() == offer.provider or name.rstrip("/") == offer.url.rstrip("/")


def _unlikely(doubts: int, checked: int, false_alarm: float = FALSE_ALARM) -> bool:
    """So many failures are evidence against honesty: a likelihood ratio of at least 1 / DOUBT.

    Over honest checks, each failing with probability `false_alarm` at most whatever came before, the ratio is a test
    supermartingale, also as a mixture over several rates: that it *ever* reaches 1 / DOUBT has probability DOUBT at
    most (Ville 1939), so one may look again after each check.
    """
    logs = [
        doubts * log(rate / false_alarm) + (checked - doubts) * log((1 - rate) / (1 - false_alarm)) for rate in _CHEATS
    ]
    peak = max(logs)
    return peak + log(sum(exp(each - peak) for each in logs) / len(logs)) >= -log(DOUBT)
