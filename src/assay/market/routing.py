"""Whom to ask for an answer, out of many: filter, shortlist, probe, send. Pure: time, dice and replies are handed in.

1. `matching.Pool` says which offers fit the wishes.
2. The **shortlist** has SHORTLIST of them. Those that have served us well are ranked by a draw from what is believed of
   them (`market/speeds.py`), with what their prompt caches save (`market/work.py`). The others are newcomers: they come
   after them, or one comes first in a share EXPLORE of the cases. Those that have failed come after those that have
   not, whatever they cost: or keys made up by the dozen, that ask for nothing and give nothing, would come before all
   who want to be paid.
3. Where three or more are left and the best is not known to have room, PROBED of them are **probed** for how busy they
   are; the best with room is asked. So a lie about load wins a provider one question, and its speed is then measured.
4. Who is full says 429; the next one is asked. Nobody queues. Where the first token is later than such tokens mostly
   were, a second one is asked beside the first (HEDGED).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence, Set
from math import inf, log
from typing import Final, NamedTuple

import numpy as np

from assay.core.errors import Busy, ModelNotFound, NoProvider
from assay.core.offer import Ask, Offer
from assay.market.health import Health
from assay.market.matching import Catalogue, Places, Pool, PoolKey, Sifted, turns
from assay.market.pricing import within
from assay.market.speeds import OVERHEAD, Speeds
from assay.market.steps import Heard, Probe, Route, Send
from assay.market.views import EXPLORED, FAILED, KNOWN, NEWCOMER, PRICE_WEIGHT, RESTS, TIERS, View
from assay.market.work import Conversations, Work

SHORTLIST: Final = 16
"""Offers that are looked at closely."""
NEWCOMERS: Final = 4
"""Of these, at most, where enough others are known; none for prompts over MODEST."""
GRACE: Final = 0.25
"""Seconds that those are waited for which are probed for a longer prompt, when one with room has replied."""
EXPLORE: Final = 0.02
"""Share of the requests with at most MODEST prompt tokens whose first try is a newcomer, where others are known."""
MODEST: Final = 512
"""So much of a prompt is not long in reading, wherever it goes."""
PROBED: Final = 3
"""Providers that are asked at once how busy they are."""
LONG: Final = 2048
"""Tokens of a prompt that takes so long in reading that it matters most who reads it, and that it reads it alone."""
PROBED_LONG: Final = 8
"""Providers that are asked at once how busy they are, for such a prompt."""
ATTEMPTS: Final = 64
"""Offers that are tried for one request."""
CURIOSITY: Final = 0.5
"""Of the width of what is believed, as much is drawn from for prompts up to MODEST tokens; less for longer ones."""
STALE: Final = 0.5
"""At most added to the cost (a logarithm) of a provider that nothing was heard of for long: it may be slow now."""
STALE_SECONDS: Final = 120.0
"""In which that rises to all but 1/e."""
ROOM_SECONDS: Final = 1.0
"""How long a provider that had room is taken to have it still."""
FULL_SECONDS: Final = 0.25
"""How long one that had none is taken to be full."""
BESIDE: Final = 0.25
"""How much longer an answer takes beside another one, about; beside one whose first token has not come, once more."""
HEDGED: Final[Mapping[bool | None, float]] = {True: 0.05, None: 0.01, False: 0.0}
"""Share of the requests, about, for which a second provider is asked because the first token is late, by the ask's
`hedge`."""
_DRAWN: Final = 512
"""Offers that are drawn for; with more, a random choice of them. For prompts over LONG half of them are those that are
fastest: not for others, or all buyers would ask the same few."""
_LOOKED_AT: Final = 32
"""Newcomers, likewise."""
_TURN: Final = 1e-6
"""Of the cost, at most, by which newcomers take turns that are equal otherwise."""
_FAR: Final = 1e6
"""More than costs differ."""


class Tried(NamedTuple):
    """An offer of a shortlist."""

    offer: Offer
    turn: int
    """By the ask's `order`."""
    tier: int
    """One of TIERS."""
    cost: float
    """Logarithm of what is compared within a tier."""
    room: bool
    """It is known to have room."""


class Router:
    """One buyer's. Mutable."""

    def __init__(self, dice: np.random.Generator, health: Health | None = None) -> None:
        self.health: Final = health or Health()
        self._dice: Final = dice
        self._catalogue = Catalogue(())
        self._speeds: Final = defaultdict[PoolKey, Speeds](Speeds)
        self._conversations: Final = Conversations()

    @property
    def catalogue(self) -> Catalogue:
        """The offers there are."""
        return self._catalogue

    def use(self, catalogue: Catalogue) -> None:
        """Other offers; what is known of providers stays."""
        self._catalogue = catalogue
        for key, speeds in self._speeds.items():
            pool = catalogue.pools.get(key)
            places = [pool.at(url) if pool else None for url in speeds.rows.names()]
            speeds.rows["place"][:] = [-1 if place is None else place for place in places]

    def route(
        self, ask: Ask, work: Work, now: float, told: Callable[[Sequence[Tried]], None] = lambda _: None
    ) -> Route:
        """The way to an answer for an ask. The first shortlist is made at once; another one when all of it failed.
        `told`: is told each of them.

        Raises:
            ModelNotFound, NoProvider: nobody offers this; the message says which wish leaves nobody.
        """
        shortlist = self.shortlist(ask, work, now)
        told(shortlist)
        return self._route(ask, work, shortlist, now, told)

    def shortlist(self, ask: Ask, work: Work, now: float, gone: Set[str] = frozenset()) -> list[Tried]:
        """Up to SHORTLIST offers that fit, best first, without those at the URLs `gone`.

        Raises:
            ModelNotFound, NoProvider: nobody offers this.
        """
        pool = self._catalogue.pool(ask)
        fit, unclear = self._fitting(ask, pool), pool.named(self.health.unclear(ask.level))
        trust = pool.of_providers(self.health.trust)
        view = View(pool, fit, unclear, trust, self._speeds_of(ask), ask, work, now)
        known = self._ranked(view, *self._known(view), gone)
        newcomers = self._ranked(view, *self._newcomers(view), gone)
        fresh = [each for each in newcomers if each.tier in (NEWCOMER, FAILED) and each.turn == len(ask.order)]
        modest = work.prompt <= MODEST
        if known and known[0].tier == KNOWN and fresh and modest and self._dice.random() < EXPLORE:
            most = known[0].offer.price if PRICE_WEIGHT[ask.sort] else None
            fresh = [each for each in fresh if within(each.offer.price, most)]
            if fresh:
                chosen = fresh[int(self._dice.integers(len(fresh)))]
                newcomers[newcomers.index(chosen)] = chosen._replace(tier=EXPLORED)
        places = NEWCOMERS if modest else 0
        kept = SHORTLIST - min(len(newcomers), places)
        found = [*known[:kept], *sorted(newcomers, key=_rank)[: max(SHORTLIST - len(known), places)]]
        return sorted(found, key=_rank)

    def fitting(self, ask: Ask) -> int:
        """How many offers fit.

        Raises:
            ModelNotFound, NoProvider: none.
        """
        return len(self._fitting(ask, self._catalogue.pool(ask)))

    def sifted(self, ask: Ask) -> tuple[int, Sequence[Sifted]]:
        """How many offers are of the model at the level, and what each other wish leaves of them."""
        try:
            pool = self._catalogue.pool(ask)
        except (ModelNotFound, NoProvider):
            return 0, ()
        return len(pool.offers), pool.sifted(ask, self.health.dishonest, self.health.at_stake(ask.min_stake))

    @property
    def speeds(self) -> Mapping[PoolKey, Speeds]:
        """What was seen of offers, by pool."""
        return self._speeds

    def asked(self, offer: Offer) -> None:
        """An answer begins there."""
        self.health.asked(offer.url)

    def late(self, offer: Offer, work: Work, seconds: float, now: float) -> None:
        """The first token had not come after so long, when somebody else's had."""
        speeds, row = self.of(offer)
        speeds.late(row, seconds, self._reads(offer, work, now), now)

    def over(self, offer: Offer, *, begun: bool = True) -> None:
        """An answer there has ended, well or not; `begun`: it had its first token."""
        self.health.over(offer.url)
        if not begun:
            self.health.began(offer.url)

    def first(self, offer: Offer, work: Work, seconds: float, now: float) -> None:
        """The first token came, so long after it was asked for."""
        self.health.began(offer.url)
        speeds, row = self.of(offer)
        speeds.read(row, seconds, self._reads(offer, work, now), now)
        self._conversations.served(work, offer.url, now)

    def wrote(self, offer: Offer, tokens: int, seconds: float, now: float) -> None:
        """So many tokens came after the first one, in so many seconds."""
        speeds, row = self.of(offer)
        speeds.wrote(row, seconds, tokens, now)

    def good(self, offer: Offer, now: float) -> None:
        """An answer came whole, with its receipt."""
        self.health.good(offer.url)
        speeds, row = self.of(offer)
        speeds.ended(row, now, good=True)
        speeds.rows["room_until"][row] = now + ROOM_SECONDS

    def failed(self, offer: Offer, now: float, *, badly: bool = False) -> None:
        """An answer failed; `badly`: the provider lied, and rests as long as any."""
        self.health.failed(offer.url, now, badly=badly)
        speeds, row = self.of(offer)
        speeds.ended(row, now, good=False)

    def busy(self, offer: Offer, now: float, reason: Busy) -> None:
        """It is full: no failure, but others are asked first for as long as it says."""
        self.health.busy(offer.url, now, reason)

    def _route(
        self, ask: Ask, work: Work, shortlist: list[Tried], now: float, told: Callable[[Sequence[Tried]], None]
    ) -> Route:
        gone: set[str] = set()
        waiting: Set[str] = frozenset()
        while shortlist and len(gone) < ATTEMPTS:
            gone |= {each.offer.url for each in shortlist}
            queue, last = deque(shortlist), list[Tried]()
            while queue or last:
                if not queue:
                    queue, last = deque(last), list[Tried]()
                group = _to_probe(queue, PROBED if work.prompt <= LONG else PROBED_LONG)
                if group:
                    heard = yield Probe([each.offer for each in group], 0.0 if work.prompt <= MODEST else GRACE)
                    now = heard.now
                    for _ in group:
                        queue.popleft()
                    with_room, without = self._sorted_out(group, heard)
                    queue.extendleft(reversed(with_room))
                    last += without
                    continue
                offer = queue.popleft().offer
                heard = yield Send(offer, inf if waiting else self._patience(ask, offer, work, now))
                now, waiting = heard.now, heard.late
                if not ask.allow_fallbacks:
                    return
            shortlist = self.shortlist(ask, work, now, gone)
            if shortlist:
                told(shortlist)

    def _sorted_out(self, group: Sequence[Tried], heard: Heard) -> tuple[list[Tried], list[Tried]]:
        """Those to ask now, best first, and those to ask last: the late, the full, then the silent ones."""
        ready, late, full, silent = list[Tried](), list[Tried](), list[Tried](), list[Tried]()
        for each in group:
            url = each.offer.url
            load = heard.loads.get(url)
            speeds, row = self.of(each.offer)
            if url in heard.after:
                speeds.replied(row, heard.after[url])
            # Nobody is probed twice for one request.
            asked = each._replace(room=True)
            if url in heard.late:
                late.append(asked)
            elif url not in heard.loads:
                self.failed(each.offer, heard.now)
                silent.append(asked._replace(tier=RESTS))
            elif load is None:
                ready.append(asked)
            elif load.room:
                ready.append(asked._replace(cost=each.cost + log(1 + BESIDE * load.running)))
            else:
                self.health.rest(url, heard.now + FULL_SECONDS)
                full.append(asked._replace(tier=RESTS))
        return sorted(ready, key=_rank), late + full + silent

    def _known(self, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Place, tier, cost and room of offers that served us well; each [k]."""
        rows = self._drawn_rows(view)
        table = view.speeds.rows
        machines = self.health.machines
        machine = table["machine"][rows]
        curiosity = CURIOSITY * min(1.0, MODEST / max(view.work.prompt, 1))
        drawn = view.speeds.draw(rows, view.now, self._dice, curiosity)
        stale = STALE * (1 - np.exp((table["seen"][rows] - view.now) / STALE_SECONDS))
        prompt = np.full(len(rows), view.work.prompt + OVERHEAD, np.float64)
        resting, active = machines["resting"][machine] > view.now, machines["active"][machine]
        beside = 1 + BESIDE * active + machines["waiting"][machine]
        warm = self._conversations.warm(view.work, view.now)
        if warm is not None:
            row = table.find(warm[0])
            prompt[(rows == row) & (active == 0)] -= warm[1]
        first = drawn.trip + prompt * drawn.first
        seconds = {"latency": first, "throughput": drawn.pace}.get(view.ask.sort, first + drawn.pace * view.work.output)
        places = table["place"][rows]
        cost = view.fixed_cost(places) + np.log(seconds * beside / drawn.success) + stale
        tier = view.tiers(places, KNOWN, resting)
        return places, tier, cost, table["room_until"][rows] > view.now

    def _drawn_rows(self, view: View) -> np.ndarray:
        """Rows of known offers that fit; of many, a random choice, with the one that may know the conversation."""
        table = view.speeds.rows
        if len(view.fit) <= _LOOKED_AT:
            found = [table.find(view.pool.offers[place].url) for place in view.fit.tolist()]
            rows = np.array([row for row in found if row is not None], np.int64)
        elif len(table) <= _DRAWN:
            rows = np.arange(len(table))
        else:
            wanted = [table.find(view.pool.offers[place].url) for place in view.preferred.tolist()]
            warm = self._conversations.warm(view.work, view.now)
            wanted.append(table.find(warm[0]) if warm else None)
            drawn = self._dice.integers(len(table), size=_DRAWN)
            if view.work.prompt > LONG:
                drawn[: _DRAWN // 2] = view.speeds.fastest(_DRAWN // 2, LONG, view.now)
            rows = np.unique(np.concatenate([drawn, [row for row in wanted if row is not None]]).astype(np.int64))
        rows = rows[view.speeds.good(rows, view.now)]
        return rows[view.fits(table["place"][rows])]

    def _newcomers(self, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same of others that fit; of many, a random choice."""
        fit = view.fit
        if len(fit) > _LOOKED_AT:
            some = fit[self._dice.integers(len(fit), size=_LOOKED_AT)]
            fit = np.unique(np.concatenate([some, view.preferred[view.fits(view.preferred)]]))
        places = fit[~view.known(fit)]
        machines = [self.health.at(view.pool.offers[place].url) for place in places.tolist()]
        resting = np.array([each.resting > view.now for each in machines], bool)
        failed = np.array([each.failures > 0 for each in machines], bool)
        tier = view.tiers(places, np.where(failed, FAILED, NEWCOMER), resting)
        slower = np.array(
            [(1 + BESIDE * each.active + each.waiting) * (1 + each.failures) for each in machines], np.float64
        )
        turn = self._dice.random(len(places)) * _TURN
        return places, tier, view.fixed_cost(places) + np.log(slower) + turn, np.zeros(len(places), bool)

    def _ranked(
        self, view: View, places: Places, tier: np.ndarray, cost: np.ndarray, room: np.ndarray, gone: Set[str]
    ) -> list[Tried]:
        turn = np.full(len(places), len(view.ask.order))
        if view.ask.order:
            of = turns(view.ask, view.pool)
            turn = np.array([of(place) for place in places.tolist()], np.int64)
        before = turn * len(TIERS) + tier
        best, most = np.arange(len(places)), SHORTLIST + len(gone)
        if most < len(places):
            best = np.argpartition(before * _FAR + cost, most)[:most]
        found: list[Tried] = []
        for index in best[np.lexsort((cost[best], before[best]))].tolist():
            offer = view.pool.offers[places[index]]
            if offer.url in gone or not within(offer.price, view.ask.max_price):
                continue
            found.append(Tried(offer, int(turn[index]), int(tier[index]), float(cost[index]), bool(room[index])))
            if len(found) == SHORTLIST:
                break
        return found

    def _fitting(self, ask: Ask, pool: Pool) -> Places:
        return pool.fitting(ask, self.health.dishonest, self.health.at_stake(ask.min_stake))

    def _reads(self, offer: Offer, work: Work, now: float) -> int:
        """Tokens of the prompt that are new to it."""
        warm = self._conversations.warm(work, now)
        return max(work.prompt - (warm[1] if warm and warm[0] == offer.url else 0), 1)

    def _patience(self, ask: Ask, offer: Offer, work: Work, now: float) -> float:
        share = HEDGED[ask.hedge]
        if not share:
            return inf
        speeds, row = self.of(offer)
        return speeds.patience(row, self._reads(offer, work, now), share, now)

    def _speeds_of(self, ask: Ask) -> Speeds:
        return self._speeds[PoolKey(ask.model, ask.level)]

    def of(self, offer: Offer) -> tuple[Speeds, int]:
        """What was seen of an offer: the row in its pool."""
        key = PoolKey(offer.model, offer.level)
        speeds = self._speeds[key]
        row = speeds.rows.find(offer.url)
        if row is None:
            row = speeds.rows.at(offer.url)
            pool = self._catalogue.pools.get(key)
            place = pool.at(offer.url) if pool else None
            speeds.rows["place"][row] = -1 if place is None else place
            speeds.rows["machine"][row] = self.health.machines.at(offer.url)
        return speeds, row


def _rank(each: Tried) -> tuple[int, int, float]:
    return each.turn, each.tier, each.cost


def _to_probe(queue: Sequence[Tried], most: int) -> list[Tried]:
    """Whom to ask how busy they are before one is asked for the answer; nobody if it would gain nothing."""
    best = queue[0]
    left = [each for each in queue if each.turn == best.turn and each.tier < RESTS]
    return left[:most] if len(left) >= PROBED and not best.room and left[0] is best else []
