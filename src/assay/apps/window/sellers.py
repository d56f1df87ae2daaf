"""Who sells what, as this program knows it: put together from offers, records, observations and checks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Final, Literal, NamedTuple, TypeAlias

from assay.apps.window.sources import Sources
from assay.core.errors import ProviderFailed
from assay.core.keys import Address
from assay.core.offer import Offer, Price
from assay.core.reach import WAYS, Reach, Way, usable
from assay.core.record import BY_KEY, ProviderRecord
from assay.journey import MarketAnswers
from assay.market.health import Health, Record
from assay.market.matching import PoolKey
from assay.market.pricing import blended, within
from assay.market.speeds import Observed

FRESH_SECONDS: Final = 2.0
"""Age from which what is known is put together again, while the old one still serves."""
STALE_SECONDS: Final = 30.0
"""Age from which the old one serves no more."""
Link: TypeAlias = Way | Literal["here", "none"]
"""How a provider is reached; `here`: it is this program, `none`: by no way that is open here."""
LINKS: Final[tuple[Link, ...]] = (*WAYS, "here", "none")
Reason: TypeAlias = Literal[
    "dishonest", "ignored", "unreachable", "file", "region", "stake", "price", "resting", "unclear"
]
"""Why a provider is passed over or asked after others. `file`: it offers other files under the names of known models;
`region`, `stake`, `price`: what this gateway wishes where requests do not say; `unclear`: what it answers cannot be
checked here."""
GIVEN: Final = "given"
"""Source of those whose addresses are in the settings."""
HERE: Final = "here"


class Seen(NamedTuple):
    """What was seen of one offer."""

    first: float
    """Seconds to the first token, see `Observed`."""
    pace: float | None
    """Tokens a second."""
    answers: int


_UNSEEN: Final = Seen(0.0, None, 0)


@dataclass(frozen=True, slots=True)
class Seller:
    """One provider."""

    address: Address
    offers: tuple[Offer, ...]
    """Those that are passed over included; cheapest first."""
    seen: tuple[Seen, ...]
    """Of each offer."""
    region: str
    source: str
    link: Link
    via: str
    """The relay's address, if it is reached through one."""
    stake: int | None
    """Wei; None: not known."""
    record: Record
    """What checks here found."""
    trust: float
    reason: Reason | None
    rest: int
    """Seconds for which it is asked after others."""
    signed: ProviderRecord | None
    text: str
    """All that is looked for in, in lower case."""

    @property
    def price(self) -> Price | None:
        """Of its cheapest offer."""
        return self.offers[0].price if self.offers else None

    @property
    def best(self) -> Seen:
        """Of the offer that was asked most."""
        return max(self.seen, key=lambda seen: seen.answers, default=_UNSEEN)

    @property
    def failed(self) -> int:
        """Checks that failed, and other proof."""
        return self.record.caught + self.record.doubts


class Market:
    """Everybody who is known at one time. Does not change."""

    def __init__(self, sellers: Sequence[Seller], trouble: str) -> None:
        """`trouble`: why nobody is offered, in words; empty: somebody is, or nothing is wrong."""
        self.sellers: Final = sellers
        self.trouble: Final = trouble

    @cached_property
    def of(self) -> Mapping[Address, Seller]:
        """By address."""
        return {seller.address: seller for seller in self.sellers}

    @cached_property
    def models(self) -> Mapping[str, int]:
        """How many sell each model, the most first."""
        counts = Counter(model for each in self.sellers for model in {offer.model for offer in each.offers})
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def names(self) -> Mapping[bytes, str]:
        """What model files are called, by digest."""
        return {offer.model_digest: offer.model for each in self.sellers for offer in each.offers}

    @cached_property
    def sources(self) -> Mapping[str, int]:
        """How many came from each source."""
        return dict(sorted(Counter(each.source for each in self.sellers).items()))


class _Glance(NamedTuple):
    """Copies of what changes while answers are under way, taken at once."""

    offered: Sequence[Offer]
    records: Sequence[tuple[ProviderRecord, str, Reach]]
    """Each with its source, and how near that was."""
    seen: Mapping[PoolKey, Observed]
    resting: Mapping[str, float]
    trouble: str


class Sellers:
    """Knows who sells what, a few seconds old at most."""

    def __init__(self, sources: Sources) -> None:
        self._sources: Final = sources
        self._market: Market | None = None
        self._made = float("-inf")
        self._making: asyncio.Task[Market] | None = None
        self._links: Mapping[Address, tuple[ProviderRecord, Reach, tuple[Link, str]]] = {}

    async def market(self) -> Market:
        """Everybody who is known."""
        age = time.monotonic() - self._made
        if age > FRESH_SECONDS and self._making is None:
            self._making = asyncio.create_task(self._make())
        if self._market is not None and age < STALE_SECONDS:
            return self._market
        assert self._making is not None
        return await asyncio.shield(self._making)

    async def _make(self) -> Market:
        try:
            glance = await self._look()
            self._market = await asyncio.to_thread(self._put_together, glance)
            self._made = time.monotonic()
            return self._market
        finally:
            self._making = None

    async def _look(self) -> _Glance:
        market, trouble = self._sources.market, ""
        if market is None:
            return _Glance(await self._sources.answers.models(), (), {}, {}, "")
        offered: Sequence[Offer] = ()
        try:
            offered = await market.choosing.listed()
        except ProviderFailed as error:
            trouble = str(error)
        book, router = self._sources.book, market.router
        entries = () if book is None else book.entries(time.time())
        records = [(record, entry.source, entry.reach) for record, entry in entries]
        now, machines = time.monotonic(), router.health.machines
        resting = dict(zip(machines.names(), (machines["resting"] - now).tolist(), strict=True))
        seen = {key: speeds.observed for key, speeds in router.speeds.items()}
        return _Glance(offered, records, seen, resting, trouble)

    def _put_together(self, glance: _Glance) -> Market:
        """In a thread."""
        offers: dict[Address, list[Offer]] = {}
        for offer in glance.offered:
            offers.setdefault(offer.provider, []).append(offer)
        records = {record.provider: (record, source, reach) for record, source, reach in glance.records}
        for name, (record, _, _) in records.items():
            if name not in offers:
                offers[name] = list(record.offers)
        self._links = {name: self._link(record, reach) for name, (record, _, reach) in records.items()}
        seen = {
            (key, url): Seen(first, None if isnan(pace) else pace, answers)
            for key, of in glance.seen.items()
            for url, first, pace, answers in zip(
                of.urls, of.first.tolist(), of.pace.tolist(), of.answers.tolist(), strict=True
            )
            if answers
        }
        stakes = self._sources.stakes() if self._sources.stakes is not None else {}
        return Market(
            [
                self._seller(name, tuple(sorted(found, key=_cheap)), records.get(name), seen, glance.resting, stakes)
                for name, found in offers.items()
            ],
            glance.trouble,
        )

    def _seller(
        self,
        name: Address,
        offers: tuple[Offer, ...],
        found: tuple[ProviderRecord, str, Reach] | None,
        seen: Mapping[tuple[PoolKey, str], Seen],
        resting: Mapping[str, float],
        stakes: Mapping[Address, int],
    ) -> Seller:
        market = self._sources.market
        health = Health() if market is None else market.router.health
        record = health.of_provider.get(name, Record())
        signed, source, link, via = None, HERE if market is None else GIVEN, "here" if market is None else "direct", ""
        if found is not None:
            _, _, (link_found, via_found) = self._links[name]
            signed = found[0]
            if not offers or offers[0].url.startswith(BY_KEY):  # else its address is in the settings
                source, link, via = found[1], link_found, via_found
        region = signed.region if signed is not None else ""
        rest = max((resting.get(offer.url, 0.0) for offer in offers), default=0.0)
        reason = None
        if market is not None:
            stake = stakes.get(name, 0)
            reason = _reason(name, offers, region, stake, record, market, link, rest)
        words = [name, region, source, link, via, *(offer.model for offer in offers)]
        return Seller(
            name,
            offers,
            tuple(seen.get((PoolKey(offer.model, offer.level), offer.url), _UNSEEN) for offer in offers),
            region,
            source,
            link,
            via,
            stakes.get(name),
            record,
            health.trust.get(name, 0.0),
            reason,
            round(max(rest, 0)),
            signed,
            " ".join(dict.fromkeys(words)).lower(),
        )

    def _link(self, record: ProviderRecord, reach: Reach) -> tuple[ProviderRecord, Reach, tuple[Link, str]]:
        """How a provider is reached that was found; as before while nothing of that has changed."""
        known = self._links.get(record.provider)
        if known is not None and known[0] is record and known[1] == reach:
            return known
        endpoint = usable(record, reach, self._sources.ways)
        if endpoint is None:
            return record, reach, ("none", "")
        ways: Mapping[str, Link] = {"relay": "relay", "iroh": "iroh"}
        way = ways.get(endpoint.kind, "direct")
        return record, reach, (way, endpoint.place if way == "relay" else "")


def _cheap(offer: Offer) -> tuple[int, str, str]:
    return blended(offer.price), offer.model, offer.level


def _reason(
    name: Address,
    offers: Sequence[Offer],
    region: str,
    stake: int,
    record: Record,
    market: MarketAnswers,
    link: Link,
    rest: float,
) -> Reason | None:
    """The first that holds of those for which it is never asked, then of those for which it is asked after others."""
    wishes = market.defaults
    names = {name, *(offer.url for offer in offers)}
    holds: Sequence[tuple[Reason, bool]] = (
        ("dishonest", name in market.router.health.dishonest),
        ("ignored", not names.isdisjoint(wishes.ignore)),
        ("unreachable", link == "none"),
        ("file", bool(offers) and not any(map(market.choosing.honours, offers))),
        ("region", bool(wishes.region) and not f"{region}-".startswith(f"{wishes.region}-")),
        ("stake", stake < (wishes.min_stake or 0)),
        ("price", bool(offers) and not any(within(offer.price, wishes.max_price) for offer in offers)),
        ("resting", rest > 0),
        ("unclear", any(record.uncheckable(offer.level) for offer in offers)),
    )
    return next((reason for reason, true in holds if true), None)
