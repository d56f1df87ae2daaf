"""The journey's first stage: an OpenAI body becomes requests, one a choice, and what else the caller wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from assay.core.encoding import canonical_text, micros, unb64
from assay.core.errors import EncodingError, InvalidRequest
from assay.core.offer import Ask, Price
from assay.core.request import Level, Message, Request, SamplerSettings, seeded_nonce
from assay.network.openai.bodies import (
    AssistantMessage,
    ChatBody,
    ChosenTool,
    Common,
    CompletionBody,
    Content,
    MaxPrice,
    MessageBody,
    ObjectFormat,
    Part,
    SchemaFormat,
    ToolMessage,
    Wishes,
)

COMPLETION_TOKENS: Final = 16
"""OpenAI's own default for `max_tokens` of a completion; a chat's default is as many as the context holds."""
NO_CEILING: Final = 2**127
"""Wei per token that stand for "not limited" where a buyer limits only the other part."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the caller wants the answer; no part of what is asked of the model."""

    stream: bool
    include_usage: bool
    """A stream ends with a chunk that has the usage."""
    top_logprobs: int | None
    """How many alternatives each token's log-probabilities show; None: no log-probabilities."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A body that was understood."""

    requests: tuple[Request, ...]
    """One for each of the `n` choices, in order."""
    delivery: Delivery
    ask: Ask

    def at(self, level: Level) -> Accepted:
        """The same at another level."""
        requests = tuple(replace(request, level=level) for request in self.requests)
        return replace(self, requests=requests, ask=replace(self.ask, level=level))


def accept_chat(body: ChatBody, *, nonce: bytes, now_s: int, default_level: Level) -> Accepted:
    """What a chat body asks for. `nonce`: 32 fresh bytes, `now_s`: Unix seconds; neither is used where the body gives
    a `seed`, so that the same body has the same answer again.

    Raises:
        InvalidRequest: fields that contradict each other, or a schema that is not plain JSON.
    """
    tools = _plain([_given(tool) for tool in body.tools], "tools") if body.tools else ""
    _check_promises(body)
    top = body.top_logprobs or 0
    if top and not body.logprobs:
        raise InvalidRequest(
            "`top_logprobs` needs `logprobs`", field="top_logprobs", remedy="set `logprobs` to true or leave it out"
        )
    request = Request(
        model=body.model,
        kind="chat",
        messages=tuple(_message(message, place) for place, message in enumerate(body.messages)),
        prompt="",
        sampler=_sampler(body),
        max_tokens=body.max_completion_tokens or body.max_tokens or 0,
        stop=_stop(body),
        tools=tools,
        tool_choice=_tool_choice(body),
        response_format=_response_format(body),
        level=_level(body.assay, default_level),
        nonce=_nonce(body, nonce),
        created=now_s if body.seed is None else 0,
    )
    return _accepted(body, request, top if body.logprobs else None)


def accept_completion(body: CompletionBody, *, nonce: bytes, now_s: int, default_level: Level) -> Accepted:
    """What a completion body asks for; see `accept_chat`.

    Raises:
        InvalidRequest: fields that contradict each other.
    """
    request = Request(
        model=body.model,
        kind="completion",
        messages=(),
        prompt=body.prompt if isinstance(body.prompt, str) else body.prompt[0],
        sampler=_sampler(body),
        max_tokens=body.max_tokens or COMPLETION_TOKENS,
        stop=_stop(body),
        tools="",
        tool_choice="none",
        response_format="",
        level=_level(body.assay, default_level),
        nonce=_nonce(body, nonce),
        created=now_s if body.seed is None else 0,
    )
    return _accepted(body, request, body.logprobs)


def _accepted(body: Common, request: Request, top_logprobs: int | None) -> Accepted:
    options = body.stream_options
    return Accepted(
        requests=tuple(request.for_choice(choice) for choice in range(body.n or 1)),
        delivery=Delivery(
            stream=body.stream or False,
            include_usage=bool(options and options.include_usage),
            top_logprobs=top_logprobs,
        ),
        ask=_ask(request, body.assay or Wishes()),
    )


def _ask(request: Request, wishes: Wishes) -> Ask:
    if wishes.only and wishes.providers:
        raise InvalidRequest(
            "`assay.providers` and `assay.only` mean the same", field="assay.providers", remedy="send one of them"
        )
    return Ask(
        model=request.model,
        level=request.level,
        max_price=None if wishes.max_price is None else _price(wishes.max_price),
        order=wishes.order or (),
        only=wishes.only or wishes.providers or (),
        ignore=wishes.ignore or (),
        allow_fallbacks=wishes.allow_fallbacks is not False,
        seeded=wishes.seeded is True,
        sort=wishes.sort or "balance",
        model_digest=None if wishes.model_digest is None else bytes.fromhex(wishes.model_digest),
        region=wishes.region,
        min_stake=None if wishes.min_stake is None else int(wishes.min_stake),
        hedge=wishes.hedge,
    )


def _price(ceiling: MaxPrice) -> Price:
    return Price(*(NO_CEILING if part is None else int(part) for part in (ceiling.prompt, ceiling.completion)))


def _level(wishes: Wishes | None, default: Level) -> Level:
    return default if wishes is None or wishes.level is None else wishes.level


def _nonce(body: Common, fresh: bytes) -> bytes:
    chosen = body.assay.nonce if body.assay else None
    if chosen is None:
        return fresh if body.seed is None else seeded_nonce(body.seed)
    if body.seed is not None:
        raise InvalidRequest(
            "`seed` and `assay.nonce` both choose the nonce", field="assay.nonce", remedy="send one of them"
        )
    try:
        return unb64(chosen, size=32, what="the nonce")
    except EncodingError as error:
        raise InvalidRequest(error.message, field="assay.nonce", remedy="send 32 bytes in base64url") from None


def _sampler(body: Common) -> SamplerSettings:
    def fraction(value: float | None) -> int:
        return micros(1.0 if value is None else value, what="a sampler setting")

    return SamplerSettings(
        temperature=fraction(body.temperature),
        top_k=body.top_k or 0,
        top_p=fraction(body.top_p),
        min_p=fraction(body.min_p or 0.0),
    )


def _stop(body: Common) -> tuple[str, ...]:
    return (body.stop,) if isinstance(body.stop, str) else body.stop or ()


def _message(body: MessageBody, place: int) -> Message:
    content = _text(body.content)
    match body:
        case ToolMessage():
            return Message(body.role, content, tool_call_id=body.tool_call_id)
        case AssistantMessage():
            calls = _plain([_given(call) for call in body.tool_calls], "messages") if body.tool_calls else ""
            if body.content is None and not calls:
                field = f"messages[{place}].content"
                raise InvalidRequest(
                    "an assistant's message has content or tool calls", field=field, remedy="give one of them"
                )
            return Message(body.role, content, tool_calls=calls, name=body.name or "")
        case _:
            return Message(body.role, content, name=body.name or "")


def _text(content: Content | None) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content or ())


def _tool_choice(body: ChatBody) -> str:
    names = {tool.function.name for tool in body.tools or ()}
    choice = body.tool_choice or ("auto" if names else "none")
    if isinstance(choice, ChosenTool):
        name = choice.function.name
        if name not in names:
            raise InvalidRequest(f"`tools` has no function {name}", field="tool_choice", remedy="name one of `tools`")
        return f"function:{name}"
    if choice == "required" and not names:
        raise InvalidRequest("a call is required and `tools` is empty", field="tool_choice", remedy="send `tools`")
    return choice if names else "none"


def _check_promises(body: ChatBody) -> None:
    """Refuse what holds only where a grammar writes the call: a tool that must be called is called once, by its schema.

    Raises:
        InvalidRequest: the model may choose (`auto`), and one call at most or arguments by the schema are asked for.
    """
    if not body.tools or (body.tool_choice or "auto") != "auto":
        return
    remedy = "leave it out, or set `tool_choice` to required or to one function"
    if body.parallel_tool_calls is False:
        raise InvalidRequest(
            "`parallel_tool_calls` cannot be false where the model chooses its calls",
            field="parallel_tool_calls",
            remedy=remedy,
        )
    for place, tool in enumerate(body.tools):
        if tool.function.strict:
            raise InvalidRequest(
                "`strict` cannot be true where the model chooses its calls",
                field=f"tools[{place}].function.strict",
                remedy=remedy,
            )


def _response_format(body: ChatBody) -> str:
    match body.response_format:
        case ObjectFormat():
            return "json_object"
        case SchemaFormat(json_schema=schema):
            return _plain(schema.body, "response_format.json_schema.schema")
        case _:
            return ""


def _given(part: Part) -> object:
    return part.model_dump(by_alias=True, exclude_unset=True)


def _plain(value: object | Sequence[object], field: str) -> str:
    """Canonical text of a value whose numbers are the client's."""
    try:
        return canonical_text(value)
    except EncodingError as error:
        raise InvalidRequest(
            error.message, field=field, remedy="send integers within ±2^53 and finite numbers"
        ) from None
