"""What a provider takes on: its offers, and the checks of a request before any token is generated."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from assay.core.completion import Prompt
from assay.core.encoding import MICRO
from assay.core.errors import AssayError, Busy, ContextOverflow, InvalidRequest, PriceChanged
from assay.core.keys import Address
from assay.core.offer import Offer, Price
from assay.core.payment import Requirements
from assay.core.ports import Engine
from assay.core.request import Level, Message, Request, SamplerSettings
from assay.engines.carried import carried_json
from assay.engines.text import check_stops
from assay.market.pricing import FREE
from assay.market.sale import Sale

_A_TOOL: Final = '[{"function":{"description":"d","name":"f","parameters":{}},"type":"function"}]'
_SHORT: Final = Request(
    model="",
    kind="chat",
    messages=(Message("user", "hello"),),
    prompt="",
    sampler=SamplerSettings(),
    max_tokens=1,
    stop=(),
    tools="",
    tool_choice="auto",
    response_format="",
    level="signed",
    nonce=bytes(32),
    created=0,
)


def offers_of(
    engine: Engine, provider: Address, url: str, prices: Mapping[Level, Price], payment: Requirements | None = None
) -> list[Offer]:
    """One offer per level of an engine; `prices` is free where it names no level."""
    chat = _takes(engine, _SHORT)
    tools = chat and _takes(engine, replace(_SHORT, tools=_A_TOOL))
    begun = engine.reader.tokenizer.encode("a", special=False)
    continues = _takes(engine, replace(_SHORT, kind="completion", messages=(), prompt="hello", continues=begun))
    return [
        Offer(
            provider=provider,
            url=url,
            model=engine.model,
            model_digest=engine.model_digest,
            level=level,
            price=prices.get(level, FREE),
            context=engine.profile.context,
            chat=chat,
            tools=tools,
            profile=engine.profile.digest,
            sampler=engine.profile.sampler,
            payment=payment,
            continues=continues,
        )
        for level in engine.levels
    ]


def read_prompt(engine: Engine, request: Request) -> Prompt:
    """Render, and refuse now what the engine would refuse at its first token. Takes a while: not on an event loop.

    Raises:
        InvalidRequest: the template, the grammar or the context's length refuses it.
    """
    try:
        prompt = engine.reader.render(request)
        engine.reader.constraint(request)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidRequest(f"the model cannot read this request ({type(error).__name__}: {error})") from error
    if len(prompt.tokens) >= engine.profile.context:
        raise ContextOverflow(len(prompt.tokens), engine.profile.context)
    return prompt


def check_settings(request: Request) -> None:
    """Refuse settings that the OpenAI surface would not have let through: requests also come in canonical form.

    Raises:
        InvalidRequest: one is out of range; `field` names it.
    """
    sampler = request.sampler
    for name, value, limit in (
        ("temperature", sampler.temperature, 100 * MICRO),
        ("top_k", sampler.top_k, 2**31 - 1),
        ("top_p", sampler.top_p, MICRO),
        ("min_p", sampler.min_p, MICRO),
        ("max_tokens", request.max_tokens, 2**31 - 1),
        ("n", request.choice, 127),
        ("created", request.created, 2**40),
    ):
        if value > limit:
            raise InvalidRequest(f"{name} is over {limit}", field=name)
    if request.tool_choice not in ("none", "auto", "required") and not request.tool_choice.startswith("function:"):
        raise InvalidRequest("tool_choice is none, auto, required or function:NAME", field="tool_choice")
    check_stops(request.stop)
    for name, text in (("tools", request.tools), ("response_format", request.response_format)):
        if text and text != "json_object":
            carried_json(text, name)


def check_price(price: Price | None, offer: Offer) -> None:
    """Refuse a consumer that reckons with another price than the one that holds.

    Raises:
        PriceChanged: it does.
    """
    if price not in (None, offer.price):
        now = f"{offer.price.prompt} wei a prompt token and {offer.price.output} an output token"
        raise PriceChanged(f"the price is {now} now", remedy="look at its offers again")


def check_places(sale: Sale, there: int) -> None:
    """Refuse to sell more places than there are.

    Raises:
        InvalidRequest: so it is.
    """
    if not 0 <= sale.places <= there:
        raise InvalidRequest(f"there are {there} places here", field="places", remedy=f"open 0 to {there} of them")


def check_room(taken: int, places: int) -> None:
    """Refuse an answer for which there is no place.

    Raises:
        Busy: there is none, or nobody is answered now: then for a while, as far as is known.
    """
    if not places:
        raise Busy("this machine answers nobody now", retry_after=60)
    if taken >= places:
        raise Busy(f"all {places} places are taken")


def minute_of_day(now: float) -> int:
    """By this machine's clock, after midnight. `now`: Unix seconds."""
    there = time.localtime(now)
    return 60 * there.tm_hour + there.tm_min


def _takes(engine: Engine, request: Request) -> bool:
    """Ask the model's own reader, by rendering a short request with it."""
    try:
        engine.reader.render(request)
    except AssayError:
        return False
    return True
