"""The OpenAI routes over `ports.Answers`: the same for provider, node and gateway."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, ParamSpec, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from assay.apps.failures import ERROR_HANDLERS, error_response
from assay.apps.openapi import Schema, openapi_document
from assay.apps.origin import check_origin
from assay.apps.reply import Patience, Reply
from assay.core.chain import newest
from assay.core.encoding import unb64
from assay.core.errors import EncodingError, InvalidRequest, ModelNotFound, NotFound
from assay.core.hashing import Digest
from assay.core.offer import Ask, Offer
from assay.core.ports import Answers, Bundles
from assay.core.request import LEVELS, Level
from assay.market.matching import Catalogue, choose, strongest_that_fits
from assay.network.openai.accept import Accepted, accept_chat, accept_completion
from assay.network.openai.bodies import ChatBody, CompletionBody, read_body
from assay.network.openai.shape import Shape, ToolReader, encode

__all__ = ["ERROR_HANDLERS", "Health", "OpenAiApi", "error_response", "openai_routes"]

Health = Callable[[], Mapping[str, object]]
"""What `/health` tells beside `"status": "ok"`."""
Toll: TypeAlias = Callable[[Request, Accepted, Callable[[Answers], Reply]], Awaitable[ASGIApp]]
"""The reply to a request that was understood, once it is paid for; what it is handed makes one of what answers."""
Strongest: TypeAlias = Callable[[Ask], Awaitable[Level]]
"""The level of a request that names none, by its other wishes."""
_INLINE: Final = 32_768
"""Larger bodies are read in a thread, so that streams under way do not wait."""
_ID_PREFIXES: Final = ("chatcmpl-", "cmpl-")
P = ParamSpec("P")
T = TypeVar("T")


def openai_routes(
    answers: Answers,
    bundles: Bundles,
    *,
    read_tools: ToolReader | None = None,
    health: Health | None = None,
    now: Callable[[], float] = time.time,
    fresh_nonce: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    patience: Patience | None = None,
    documented: Mapping[str, Schema] | None = None,
    toll: Toll | None = None,
    strongest: Strongest | None = None,
) -> list[Route]:
    """/v1/chat/completions, /v1/completions, /v1/models[/{id}], /receipts/{id}, /health, /openapi.json.

    `read_tools` finds tool calls in an answer's text (None: tools are text). `now`: Unix seconds. `fresh_nonce`: 32
    bytes for a request whose body chooses neither nonce nor seed. `documented`: paths that the program serves beside
    these, for the OpenAPI document. `toll`: stands before the answers of both POST routes. `strongest`: None for one
    that knows no more than the offers.

    The application needs `exception_handlers=ERROR_HANDLERS` and the `Limits` middleware around it.
    """
    api = OpenAiApi(
        answers,
        bundles,
        read_tools,
        health or dict,
        now,
        fresh_nonce,
        patience or Patience(),
        documented,
        toll,
        strongest,
    )
    return [
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/completions", api.completion, methods=["POST"]),
        Route("/v1/models", api.models, methods=["GET"]),
        Route("/v1/models/{name:path}", api.model, methods=["GET"]),
        Route("/receipts/{name}", api.receipts, methods=["GET"]),
        Route("/health", api.health, methods=["GET"]),
        Route("/openapi.json", api.openapi, methods=["GET"]),
    ]


class OpenAiApi:
    """The handlers; see `openai_routes`."""

    def __init__(
        self,
        answers: Answers,
        bundles: Bundles,
        read_tools: ToolReader | None,
        health: Health,
        now: Callable[[], float],
        fresh_nonce: Callable[[], bytes],
        patience: Patience,
        documented: Mapping[str, Schema] | None,
        toll: Toll | None,
        strongest: Strongest | None,
    ) -> None:
        self._answers: Final = answers
        self._bundles: Final = bundles
        self._read_tools: Final = read_tools
        self._health: Final = health
        self._now: Final = now
        self._fresh_nonce: Final = fresh_nonce
        self._patience: Final = patience
        self._toll: Final = toll
        self._strongest: Final = strongest or self._strongest_offered
        self._document: Final = encode(openapi_document(documented))

    async def chat(self, request: Request) -> ASGIApp:
        """`POST /v1/chat/completions`."""
        return await self._reply(request, ChatBody)

    async def completion(self, request: Request) -> ASGIApp:
        """`POST /v1/completions`."""
        return await self._reply(request, CompletionBody)

    async def models(self, _request: Request) -> Response:
        """`GET /v1/models`."""
        return _json({"object": "list", "data": _models(await self._answers.models())})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{name}`."""
        name: str = request.path_params["name"]
        for model in _models(await self._answers.models()):
            if model["id"] == name:
                return _json(model)
        raise ModelNotFound(f"nobody serves {name[:100]!r} here", "GET /v1/models lists what is served")

    async def receipts(self, request: Request) -> Response:
        """`GET /receipts/{name}`: one bundle a line, as `assay verify` reads them: all parts of the newest answer of
        each choice, where a call with a `seed` was made several times."""
        name: str = request.path_params["name"]
        found = newest(await self._bundles.find(call_name(name)))
        if not found:
            raise NotFound(
                "no receipt has this name",
                "give the `id` of a reply: it is kept where that was asked for, once it has ended",
            )
        kind = "application/json" if len(found) == 1 else "application/x-ndjson"
        return Response(b"".join(bundle.encode() for bundle in found), media_type=kind)

    async def health(self, _request: Request) -> Response:
        """`GET /health`."""
        return _json({"status": "ok", **self._health()})

    async def openapi(self, _request: Request) -> Response:
        """`GET /openapi.json`."""
        return Response(self._document, media_type="application/json")

    async def _reply(self, request: Request, kind: type[ChatBody] | type[CompletionBody]) -> ASGIApp:
        data = await _posted_json(request)
        # Streams under way must not wait while a large body is read.
        aside = asyncio.to_thread if len(data) > _INLINE else _at_once
        body = await aside(read_body, data, kind)
        now_s = int(self._now())
        accepted = await aside(self._accept, body, now_s)
        if body.assay is None or body.assay.level is None:
            accepted = accepted.at(await self._strongest(accepted.ask))
        shape = await aside(Shape.of, accepted, now_s)

        def make(answers: Answers) -> Reply:
            return Reply(answers, shape, read_tools=self._read_tools, patience=self._patience)

        return make(self._answers) if self._toll is None else await self._toll(request, shape.accepted, make)

    def _accept(self, body: ChatBody | CompletionBody, now_s: int) -> Accepted:
        nonce = self._fresh_nonce()
        if isinstance(body, ChatBody):
            return accept_chat(body, nonce=nonce, now_s=now_s, default_level=LEVELS[-1])
        return accept_completion(body, nonce=nonce, now_s=now_s, default_level=LEVELS[-1])

    async def _strongest_offered(self, ask: Ask) -> Level:
        offers = await self._answers.models()
        return strongest_that_fits(ask, Catalogue(offers), lambda wish: choose(wish, offers))


def _models(offers: Sequence[Offer]) -> list[dict[str, object]]:
    """OpenAI's model objects, one a name, with the offers in a member of ours."""
    named: dict[str, list[Offer]] = {}
    for offer in offers:
        named.setdefault(offer.model, []).append(offer)
    return [
        {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "assay",
            "assay": {"offers": [_offer(o) for o in group]},
        }
        for name, group in named.items()
    ]


def _offer(offer: Offer) -> dict[str, object]:
    return {
        "provider": offer.provider,
        "model_digest": offer.model_digest.hex(),
        "level": offer.level,
        "price": {"prompt": str(offer.price.prompt), "completion": str(offer.price.output)},
        "context": offer.context,
        "chat": offer.chat,
        "tools": offer.tools,
        "profile": offer.profile.hex(),
        "sampler": offer.sampler,
        "continues": offer.continues,
    }


def call_name(name: str) -> Digest:
    """The call's name in a completion's id, with or without its prefix.

    Raises:
        NotFound: it is none.
    """
    for prefix in _ID_PREFIXES:
        name = name.removeprefix(prefix)
    try:
        return unb64(name, size=32, what="the name")
    except EncodingError:
        raise NotFound("no receipt can have this name", "give the `id` of a reply") from None


async def _posted_json(request: Request) -> bytes:
    """The body, if it is sent as JSON or as nothing in particular, and not by a page of another site.

    Raises:
        InvalidRequest: it is sent as something else.
        Forbidden: see `check_origin`.
    """
    check_origin(request)
    sent_as = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if sent_as != "application/json":
        raise InvalidRequest(
            f"the body is sent as {sent_as[:100]!r}", field="content-type", remedy="set Content-Type: application/json"
        )
    return await request.body()


async def _at_once(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return call(*args, **kwargs)


def _json(value: Mapping[str, object]) -> Response:
    return Response(encode(value), media_type="application/json")
