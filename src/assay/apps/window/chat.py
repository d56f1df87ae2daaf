"""The chat: the page that a newcomer sees first. It talks to the OpenAI surface beside it, as any client does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.openai_api import call_name
from assay.apps.window.shell import Entry, Shell, answer
from assay.apps.window.sources import Sources
from assay.core.bundle import Bundle
from assay.core.chain import latest
from assay.core.encoding import Json
from assay.core.errors import NotFound
from assay.core.hashing import ZERO
from assay.core.offer import Offer, Price
from assay.core.request import LEVELS
from assay.market.pricing import amount_due

ENTRY: Final = Entry("chat", "/")
MOST_MODELS: Final = 200
"""That the page lists, those with the most offers first."""
MOST_PRICES: Final = 8
"""Of one model at one level, the lowest first."""


def routes(shell: Shell, sources: Sources) -> list[Route]:
    """`GET /`, what can be asked for (`/window/chat/models`), and what an answer cost (`/window/chat/cost/{id}`)."""

    async def chat(request: Request) -> Response:
        return shell.render(request, "chat")

    async def models(_request: Request) -> Response:
        listed = await asyncio.to_thread(summary, await sources.answers.models())
        return answer({"models": listed})

    async def cost(request: Request) -> Response:
        bundles = await sources.bundles.find(call_name(request.path_params["name"]))
        if not bundles:
            raise NotFound("no receipt has this name", "give the `id` of a reply that has ended")
        wei = await asyncio.to_thread(price_of, latest(bundles), await sources.answers.models())
        return answer({"wei": None if wei is None else str(wei)})

    return [
        Route("/", chat, methods=["GET"]),
        Route("/window/chat/models", models, methods=["GET"]),
        Route("/window/chat/cost/{name}", cost, methods=["GET"]),
    ]


def summary(offers: Iterable[Offer]) -> list[Json]:
    """What can be chatted with: `/v1/models` without its offers one by one, which are megabytes in a large network.

    Each model has its levels, strongest first; each level the number of its offers, the longest context, and the prices
    (wei per token of prompt and output) of which one is the lowest for any answer.
    """
    named: dict[str, dict[str, list[Offer]]] = {}
    for offer in offers:
        if offer.chat:
            named.setdefault(offer.model, {}).setdefault(offer.level, []).append(offer)
    most = sorted(named.items(), key=lambda item: (-sum(map(len, item[1].values())), item[0]))[:MOST_MODELS]
    return [
        {"id": model, "levels": [_level(level, of[level]) for level in reversed(LEVELS) if level in of]}
        for model, of in most
    ]


def _level(level: str, offers: Sequence[Offer]) -> Json:
    return {
        "level": level,
        "offers": len(offers),
        "context": max(offer.context for offer in offers),
        "prices": [[str(price.prompt), str(price.output)] for price in _lowest(offer.price for offer in offers)],
    }


def _lowest(prices: Iterable[Price]) -> list[Price]:
    """Those that no other one undercuts in both parts."""
    found: list[Price] = []
    for price in sorted(set(prices), key=lambda each: (each.prompt, each.output)):
        if not found or price.output < found[-1].output:
            found.append(price)
    return found[:MOST_PRICES]


def price_of(parts: Iterable[Bundle], offers: Sequence[Offer]) -> int | None:
    """Wei for one answer, by its receipts; None where one was paid through a channel, whose receipts have the sum of
    all answers, and its provider's price is not listed now."""
    total = 0
    for part in parts:
        receipt = part.receipt
        if receipt.channel == ZERO:
            total += receipt.amount
            continue
        listed = (
            offer.price
            for offer in offers
            if (offer.provider, offer.model, offer.level) == (receipt.provider, part.request.model, receipt.level)
        )
        price = next(listed, None)
        if price is None:
            return None
        total += amount_due(price, receipt.prompt_count, receipt.output_count)
    return total
