"""Who sells what, as this program knows it: put together from offers, records, observations and checks.

What providers say of themselves changes seldom, and is put together once (`Roster`); what is seen of them changes all
the time, and is looked up for those who are shown or sorted (`Market`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np

from assay.apps.window.paging import Value, sorted_by
from assay.apps.window.sources import Sources
from assay.core.errors import ProviderFailed
from assay.core.keys import Address
from assay.core.offer import Offer, Price
from assay.core.reach import WAYS, Reach, Way, usable
from assay.core.record import BY_KEY, ProviderRecord
from assay.journey import MarketAnswers
from assay.market.health import Record
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
"""Of this program itself."""
_OTHER: Final[Mapping[str, Link]] = {"relay": "relay", "iroh": "iroh"}


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
    """What one provider says of itself, and how it is reached."""

    address: Address
    offers: tuple[Offer, ...]
    """Those that are passed over included; cheapest first."""
    region: str
    source: str
    link: Link
    via: str
    """The relay's address, if it is reached through one."""
    signed: ProviderRecord | None
    reach: Reach
    """How near the source of its record was."""
    text: str
    """All that is looked for in, in lower case."""

    @property
    def price(self) -> Price | None:
        """Of its cheapest offer."""
        return self.offers[0].price if self.offers else None


class Roster:
    """Everybody who is known. Does not change."""

    def __init__(self, sellers: Sequence[Seller]) -> None:
        self.sellers: Final = sellers
        self.orders: Final[dict[tuple[str, bool], Sequence[Seller]]] = {}
        """See `Market.ordered`."""

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
    observed: Mapping[PoolKey, Observed]
    resting: Mapping[str, float]
    """Seconds, by URL."""
    trouble: str
    """Why nobody is offered, in words; empty: somebody is, or nothing is wrong."""


class Market:
    """Everybody who is known, and what is known of them, at one time. Does not change."""

    def __init__(
        self, roster: Roster, glance: _Glance, market: MarketAnswers | None, stakes: Mapping[Address, int]
    ) -> None:
        self.roster: Final = roster
        self.trouble: Final = glance.trouble
        self._market: Final = market
        self._resting: Final = glance.resting
        self._stakes: Final = stakes
        self._seen: Final = dict(_sorted_out(glance.observed))
        health = None if market is None else market.router.health
        self._records: Final[Mapping[Address, Record]] = {} if health is None else health.of_provider
        self._dishonest: Final = frozenset[Address]() if health is None else health.dishonest
        self._orders: Final[dict[tuple[str, bool], Sequence[Seller]]] = {}
        self._trust: Final[Mapping[Address, float]] = {} if health is None else health.trust

    def seen(self, seller: Seller) -> Sequence[Seen]:
        """Of each of its offers what was seen."""
        return [self._seen.get((offer.url, offer.model, offer.level), _UNSEEN) for offer in seller.offers]

    def best(self, seller: Seller) -> Seen:
        """Of the offer that was asked most."""
        return max(self.seen(seller), key=lambda seen: seen.answers, default=_UNSEEN)

    def record(self, seller: Seller) -> Record:
        """What checks here found."""
        return self._records.get(seller.address, _NO_RECORD)

    def failed(self, seller: Seller) -> int:
        """Checks that failed, and other proof."""
        record = self.record(seller)
        return record.caught + record.doubts

    def trust(self, seller: Seller) -> float:
        """See `market/reputation.py`."""
        return self._trust.get(seller.address, 0.0)

    def stake(self, seller: Seller) -> int | None:
        """Wei; None: not known."""
        return self._stakes.get(seller.address)

    def rest(self, seller: Seller) -> float:
        """Seconds for which it is asked after others."""
        return max((self._resting.get(offer.url, 0.0) for offer in seller.offers), default=0.0)

    def reason(self, seller: Seller) -> Reason | None:
        """Why it is never asked, or asked after others: the first that holds."""
        if self._market is None:
            return None
        wishes, honours, offers = self._market.defaults, self._market.choosing.honours, seller.offers
        names = {seller.address, *(offer.url for offer in offers)}
        record, stake = self.record(seller), self.stake(seller) or 0
        holds: Sequence[tuple[Reason, bool]] = (
            ("dishonest", seller.address in self._dishonest),
            ("ignored", not names.isdisjoint(wishes.ignore)),
            ("unreachable", seller.link == "none"),
            ("file", bool(offers) and not any(map(honours, offers))),
            ("region", bool(wishes.region) and not f"{seller.region}-".startswith(f"{wishes.region}-")),
            ("stake", stake < (wishes.min_stake or 0)),
            ("price", bool(offers) and not any(within(offer.price, wishes.max_price) for offer in offers)),
            ("resting", self.rest(seller) > 0),
            ("unclear", any(record.uncheckable(offer.level) for offer in offers)),
        )
        return next((reason for reason, true in holds if true), None)

    def ordered(self, by: str, *, descending: bool) -> Sequence[Seller]:
        """Everybody, sorted by one of VALUES; remembered, for longer where it is what they say of themselves."""
        known = self.roster.orders if by in _SAID else self._orders
        if (by, descending) not in known:
            value = VALUES[by]
            known[by, descending] = sorted_by(
                self.roster.sellers, lambda seller: value(self, seller), address_of, descending=descending
            )
        return known[by, descending]


def address_of(seller: Seller) -> Address:
    """Its name in lists."""
    return seller.address


VALUES: Final[Mapping[str, Callable[[Market, Seller], Value]]] = {
    "address": lambda _, seller: seller.address,
    "region": lambda _, seller: seller.region or None,
    "price": lambda _, seller: None if seller.price is None else blended(seller.price),
    "stake": lambda market, seller: market.stake(seller),
    "first": lambda market, seller: best.first if (best := market.best(seller)).answers else None,
    "pace": lambda market, seller: market.best(seller).pace,
    "answers": lambda market, seller: market.best(seller).answers,
    "passed": lambda market, seller: market.record(seller).passed,
    "failed": lambda market, seller: market.failed(seller),
}
"""What providers may be sorted by."""
_SAID: Final = ("address", "region", "price")
_NO_RECORD: Final = Record()


class Sellers:
    """Knows who sells what, a few seconds old at most."""

    def __init__(self, sources: Sources) -> None:
        self._sources: Final = sources
        self._market: Market | None = None
        self._made = float("-inf")
        self._making: asyncio.Task[Market] | None = None
        self._roster = Roster(())

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
        machines = router.health.machines
        names, rest = machines.names(), machines["resting"] - time.monotonic()
        return _Glance(
            offered,
            [(record, entry.source, entry.reach) for record, entry in entries],
            {key: speeds.observed for key, speeds in router.speeds.items()},
            {names[row]: float(rest[row]) for row in np.flatnonzero(rest > 0).tolist()},
            trouble,
        )

    def _put_together(self, glance: _Glance) -> Market:
        """In a thread."""
        given: dict[Address, list[Offer]] = {}
        for offer in glance.offered:
            if not offer.url.startswith(BY_KEY):
                given.setdefault(offer.provider, []).append(offer)
        records = {record.provider: record for record, _, _ in glance.records}
        here = self._sources.market is None
        source, link = (HERE, "here") if here else (GIVEN, "direct")
        sellers = [
            _seller(name, tuple(offers), source, link, "", records.get(name), Reach.PUBLIC)
            for name, offers in given.items()
        ]
        known = self._roster.of
        for record, source, reach in glance.records:
            if record.provider not in given:
                seller = known.get(record.provider)
                if seller is None or (seller.signed, seller.source, seller.reach) != (record, source, reach):
                    seller = self._found(record, source, reach)
                sellers.append(seller)
        if list(map(id, sellers)) != list(map(id, self._roster.sellers)):
            self._roster = Roster(sellers)
        stakes = self._sources.stakes() if self._sources.stakes is not None else {}
        return Market(self._roster, glance, self._sources.market, stakes)

    def _found(self, record: ProviderRecord, source: str, reach: Reach) -> Seller:
        """One whose record was found."""
        endpoint = usable(record, reach, self._sources.ways)
        link: Link = "none" if endpoint is None else _OTHER.get(endpoint.kind, "direct")
        via = endpoint.place if endpoint is not None and link == "relay" else ""
        return _seller(record.provider, record.offers, source, link, via, record, reach)


def _seller(
    name: Address,
    offers: tuple[Offer, ...],
    source: str,
    link: Link,
    via: str,
    signed: ProviderRecord | None,
    reach: Reach,
) -> Seller:
    region = offers[0].region if offers else ""
    words = dict.fromkeys((name, region, source, link, via, *(offer.model for offer in offers)))
    cheapest_first = tuple(sorted(offers, key=lambda offer: (blended(offer.price), offer.model, offer.level)))
    return Seller(name, cheapest_first, region, source, link, via, signed, reach, " ".join(words).lower())


def _sorted_out(observed: Mapping[PoolKey, Observed]) -> Sequence[tuple[tuple[str, str, str], Seen]]:
    """What was seen of offers that have answered, by URL, model and level."""
    found: list[tuple[tuple[str, str, str], Seen]] = []
    for key, of in observed.items():
        for row in np.flatnonzero(of.answers).tolist():
            pace = float(of.pace[row])
            seen = Seen(float(of.first[row]), None if isnan(pace) else pace, int(of.answers[row]))
            found.append(((of.urls[row], key.model, key.level), seen))
    return found
