"""The network: who sells what and how they are chosen, for anyone; and the list of receipts, for the owner."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final, cast, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.window.paging import Value, cursor, limit_of, one_of, read_cursor, start, text_of
from assay.apps.window.sellers import LINKS, VALUES, Market, Seen, Seller, Sellers, address_of
from assay.apps.window.shell import Entry, Shell, answer
from assay.apps.window.sources import Sources
from assay.core.encoding import b64
from assay.core.errors import InvalidRequest, NotFound
from assay.core.offer import Offer
from assay.core.request import LEVELS, Level
from assay.core.verdict import Outcome
from assay.store.receipts import ReceiptStore
from assay.store.summaries import ORDERS, Day, Order, Place, Summary, Wanted, place

ENTRY: Final = Entry("network", "/network")
SHORT_DAYS: Final = 14
"""Of a provider's record in a list."""
LONG_DAYS: Final = 90
"""On a provider's own page."""
_MOST_MODELS: Final = 200
"""Models to choose from."""
_SHOWN_OFFERS: Final = 4
"""Of a provider in a list."""
_DAY: Final = 86_400
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_OUTCOMES: Final = (*get_args(Outcome), "unchecked")
_ORDERS: Final = (
    ("cheapest", "price-0"),
    ("soonest", "first-0"),
    ("fastest", "pace-1"),
    ("staked", "stake-1"),
    ("best_checked", "passed-1"),
    ("worst_checked", "failed-1"),
    ("most_asked", "answers-1"),
    ("by_region", "region-0"),
    ("by_address", "address-0"),
)
"""The usual ones, by their texts: what is sorted by, and 1 if the largest comes first."""


def routes(shell: Shell, sources: Sources) -> list[Route]:
    """The pages, and what they ask for."""
    pages = _Network(shell, sources)
    why = [Route("/network/why/{name}", pages.page, methods=["GET"])]  # a node asks nobody else
    return [
        Route("/network", pages.page, methods=["GET"]),
        *(() if sources.market is None else why),
        Route("/network/{address}", pages.page, methods=["GET"]),
        Route("/window/providers", pages.providers, methods=["GET"]),
        Route("/window/providers/{address}", pages.provider, methods=["GET"]),
        Route("/window/receipts", pages.receipts, methods=["GET"]),
    ]


class _Network:
    def __init__(self, shell: Shell, sources: Sources) -> None:
        self._shell: Final = shell
        self._sources: Final = sources
        self._sellers: Final = Sellers(sources)

    async def page(self, request: Request) -> Response:
        view = "why" if "name" in request.path_params else "provider" if "address" in request.path_params else "list"
        return self._shell.render(
            request,
            "network",
            view=view,
            levels=LEVELS,
            links=[link for link in LINKS if link != "here"],
            orders=_ORDERS,
        )

    async def providers(self, request: Request) -> Response:
        market = await self._sellers.market()
        return answer(await asyncio.to_thread(_listed, request, market, self._sources.store))

    async def provider(self, request: Request) -> Response:
        market = await self._sellers.market()
        seller = market.roster.of.get(request.path_params["address"].lower())
        if seller is None:
            raise NotFound("no provider that is known here has this address", "it may have left: see the list")
        days = await asyncio.to_thread(self._sources.store.days, [seller.address], _today() - LONG_DAYS + 1)
        return answer(_whole(market, seller, days.get(seller.address, ())))

    async def receipts(self, request: Request) -> Response:
        self._sources.owner.admit(request)
        wanted, limit = _wanted(request), limit_of(request)
        after = read_cursor(request)
        if after is not None and not all(isinstance(part, int) for part in after):
            raise InvalidRequest("`after` is no place in this list", field="after", remedy="begin with the first page")
        store = self._sources.store
        found = await asyncio.to_thread(store.page, wanted, limit + 1, cast("Place | None", after))
        count = await asyncio.to_thread(store.matching, wanted) if after is None else None  # who goes on was told
        names = (await self._sellers.market()).roster.names
        shown = found[:limit]
        return answer(
            {
                "found": count,
                "rows": [_receipt(each) for each in shown],
                "names": {each.model.hex(): names[each.model] for each in shown if each.model in names},
                "next": cursor(*place(shown[-1], wanted.order)) if len(found) > limit else None,
            }
        )


def _listed(request: Request, market: Market, store: ReceiptStore) -> Mapping[str, object]:
    """One page of providers. In a thread."""
    words = text_of(request, "text").lower().split()
    level = one_of(request, "level", LEVELS)
    link = one_of(request, "link", LINKS)
    model, source = text_of(request, "model"), text_of(request, "source")
    by, descending = one_of(request, "sort", VALUES, "price"), one_of(request, "descending", ("0", "1")) == "1"
    after, limit = read_cursor(request), limit_of(request)

    found = sellers = market.ordered(by, descending=descending)
    for word in words:
        found = [each for each in found if word in each.text]
    if source:
        found = [each for each in found if each.source == source]
    if link:
        found = [each for each in found if each.link == link]
    if model or level:
        found = [each for each in found if any(_is(offer, model, level) for offer in each.offers)]

    def value(seller: Seller) -> Value:
        return VALUES[by](market, seller)

    begin = start(found, value, address_of, after, descending=descending)
    shown = found[begin : begin + limit]
    days = store.days([each.address for each in shown], _today() - SHORT_DAYS + 1)
    return {
        "all": len(sellers),
        "found": len(found),
        "before": begin,
        "rows": [_short(market, each, days.get(each.address, ())) for each in shown],
        "next": cursor(value(shown[-1]), shown[-1].address) if begin + limit < len(found) else None,
        "models": list(market.roster.models)[:_MOST_MODELS],
        "sources": market.roster.sources,
        "today": _today(),
        "trouble": market.trouble,
    }


def _is(offer: Offer, model: str, level: str) -> bool:
    return (not model or offer.model == model) and (not level or offer.level == level)


def _wanted(request: Request) -> Wanted:
    model, text = text_of(request, "model"), text_of(request, "text").lower()
    if model and not _DIGEST.fullmatch(model):
        raise InvalidRequest("`model` is no digest", field="model", remedy="give the 64 hexadecimal digits of the file")
    return Wanted(
        text=text,
        model=bytes.fromhex(model),
        level=cast("Level | None", one_of(request, "level", LEVELS) or None),
        outcome=cast("Outcome | None", one_of(request, "outcome", _OUTCOMES) or None),
        order=cast("Order", one_of(request, "sort", ORDERS, "kept")),
        descending=one_of(request, "descending", ("0", "1"), "1") == "1",
    )


def _short(market: Market, seller: Seller, days: Sequence[Day]) -> dict[str, object]:
    """As in a list."""
    record, failed, stake = market.record(seller), market.failed(seller), market.stake(seller)
    return {
        "address": seller.address,
        "offers": [_offer(*each) for each in zip(seller.offers[:_SHOWN_OFFERS], market.seen(seller), strict=False)],
        "more": max(len(seller.offers) - _SHOWN_OFFERS, 0),
        "region": seller.region,
        "source": seller.source,
        "link": seller.link,
        "via": seller.via,
        "stake": None if stake is None else str(stake),
        "seen": _seen(market.best(seller)),
        "passed": record.passed,
        "checked": record.passed + failed + sum(record.inconclusive.values()),
        "failed": failed,
        "trust": round(market.trust(seller), 3),
        "reason": market.reason(seller),
        "rest": ceil(market.rest(seller)),
        "days": days,
    }


def _whole(market: Market, seller: Seller, days: Sequence[Day]) -> dict[str, object]:
    """With all of its offers, and its record."""
    signed = seller.signed
    record = None
    if signed is not None:
        record = {
            "issued": signed.issued,
            "expires": signed.expires,
            "parallel": signed.parallel,
            "endpoints": [endpoint.url for endpoint in signed.endpoints],
        }
    return {
        **_short(market, seller, days),
        "offers": [_offer(*each) for each in zip(seller.offers, market.seen(seller), strict=True)],
        "more": 0,
        "today": _today(),
        "record": record,
    }


def _offer(offer: Offer, seen: Seen) -> dict[str, object]:
    return {
        "model": offer.model,
        "digest": offer.model_digest.hex(),
        "level": offer.level,
        "prompt": str(offer.price.prompt),
        "output": str(offer.price.output),
        "context": offer.context,
        "paid": offer.paid,
        "seen": _seen(seen),
    }


def _seen(seen: Seen) -> dict[str, object] | None:
    return {"first": seen.first, "pace": seen.pace, "answers": seen.answers} if seen.answers else None


def _receipt(summary: Summary) -> dict[str, object]:
    return {
        "kept": summary.kept,
        "name": b64(summary.name),
        "digest": summary.digest.hex(),
        "provider": summary.provider,
        "model": summary.model.hex(),
        "level": summary.level,
        "prompt": summary.prompt,
        "output": summary.output,
        "amount": str(summary.amount),
        "outcome": summary.outcome,
    }


def _today() -> int:
    return int(time.time()) // _DAY
