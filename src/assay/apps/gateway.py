"""The consumer's gateway as a web application: the OpenAI surface over the market, and a desk for validators."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.doubting import Doubts
from assay.apps.failures import ERROR_HANDLERS
from assay.apps.limits import MAX_BODY, MAX_POSTS, Limits
from assay.apps.logs import logger
from assay.apps.metrics import Measured, Metrics
from assay.apps.openai_api import call_name, openai_routes
from assay.apps.openapi_native import desk_paths, metrics_path, traces_path
from assay.apps.provider import StoredBundles
from assay.apps.wallet import Wallet
from assay.apps.window.auditing import Audits
from assay.apps.window.courtroom import Courtroom
from assay.apps.window.sources import Sources
from assay.apps.window.window import Window
from assay.core.bundle import Bundle
from assay.core.encoding import b64, canonical, unb64
from assay.core.errors import EncodingError, InvalidRequest, NotFound, StoreError
from assay.core.offer import Load
from assay.core.reach import WAYS, Way
from assay.core.verdict import Verdict
from assay.journey import MarketAnswers
from assay.network.openai.shape import ToolReader, encode
from assay.store.receipts import ReceiptStore

if TYPE_CHECKING:
    from assay.apps.discovering import Discoveries
    from assay.apps.reporting import Reports
    from assay.apps.standing import Standing

MOST_LISTED: Final = 1000
"""Receipts that one look at the validators' desk lists."""
_VERDICT: Final = TypeAdapter(Verdict)


async def _nothing() -> None:
    return


def gateway_app(
    market: MarketAnswers,
    store: ReceiptStore,
    *,
    read_tools: ToolReader | None = None,
    audit_token: str = "",
    max_body: int = MAX_BODY,
    parallel: int = MAX_POSTS,
    wallet: Wallet | None = None,
    close: Callable[[], Awaitable[None]] = _nothing,
    metrics: Metrics | None = None,
    discoveries: Discoveries | None = None,
    standing: Standing | None = None,
    reports: Reports | None = None,
    window: Window | None = None,
    court: Courtroom | None = None,
    doubts: Doubts | None = None,
    ways: Sequence[Way] = WAYS,
) -> Starlette:
    """The application.

    `audit_token`: with it, validators may list receipts and hand in verdicts; empty: nobody may. `parallel`: requests
    under way at once. `wallet`: the payer of `market`. `close` is awaited at the end, after the last answer. `metrics`:
    to add to. `discoveries`: find providers. `standing`: says what a chain tells of them. `reports`: what others do;
    needs `standing`. `window`: its pages; without it there are none. `court`: what they show of the chain's.
    `doubts`: tries cheats for the owner. `ways`: by which those are reached that were found.
    """
    bundles = StoredBundles(store)
    log, metrics = logger("gateway"), metrics or Metrics()
    metrics.watch_verdicts(store)
    if wallet is not None:
        metrics.watch_money(wallet.sums)

    def health() -> Mapping[str, object]:
        return {"active": market.active}

    def seen(window: Window) -> Sources:
        return Sources(
            "gateway",
            window.owner,
            market,
            bundles,
            store,
            market,
            upkeep=window.upkeep,
            load=lambda: Load(market.active, parallel),
            pace=metrics.pace,
            wallet=wallet,
            spell=market.spell,
            audits=Audits(),
            court=court,
            doubts=doubts,
            book=None if discoveries is None else discoveries.book,
            ways=ways,
            stakes=None if standing is None else standing.stakes,
        )

    def good(bundle: Bundle) -> None:
        if discoveries is not None:
            discoveries.dealt(bundle.receipt.provider)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(store.close)
            stack.push_async_callback(close)
            with suppress(StoreError):
                await market.look_up_verdicts()  # or the first to be asked could be one that was caught
            if discoveries is not None:
                await stack.enter_async_context(discoveries.running())
            if standing is not None:
                await stack.enter_async_context(standing.running(market.told))
                if reports is not None:
                    await stack.enter_async_context(reports.running(standing.stakes, market.heard))
            if wallet is not None:
                await stack.enter_async_context(wallet.running(market.recover))
            stack.push_async_callback(market.drain, 0)
            yield

    return Starlette(
        routes=[
            metrics.route(),
            _traces_route(store),
            *(_Desk(store, market, audit_token).routes() if audit_token else ()),
            *(window.routes(seen(window)) if window else ()),
            *openai_routes(
                Measured(market, metrics, log, good=good),
                bundles,
                read_tools=read_tools,
                health=health,
                strongest=market.strongest,
                documented=metrics_path() | traces_path() | (desk_paths() if audit_token else {}),
            ),
        ],
        exception_handlers=ERROR_HANDLERS,
        middleware=[
            *(window.middleware() if window else ()),
            Middleware(Limits, max_body=max_body, max_posts=parallel),
        ],
        lifespan=lifespan,
    )


def _traces_route(store: ReceiptStore) -> Route:
    """`GET /traces/{name}`: what happened to a request, for who knows its name, as receipts are found."""

    async def traces(request: Request) -> Response:
        found = await asyncio.to_thread(store.traces, call_name(request.path_params["name"]))
        if not found:
            raise NotFound("no trace has this name", "it is kept when an answer has ended; give the `id` of a reply")
        return Response(encode({"traces": found}), media_type="application/json")

    return Route("/traces/{name}", traces, methods=["GET"])


class _Desk:
    """Where validators look for receipts and leave verdicts; apps/auditing.py is its client."""

    def __init__(self, store: ReceiptStore, market: MarketAnswers, token: str) -> None:
        self._store: Final = store
        self._market: Final = market
        self._token: Final = token.encode()

    def routes(self) -> list[Route]:
        """The desk's part of the application."""
        return [
            Route("/assay/v1/unaudited", self.unaudited, methods=["GET"]),
            Route("/assay/v1/contradictions", self.contradictions, methods=["GET"]),
            Route("/assay/v1/disproven", self.disproven, methods=["GET"]),
            Route("/assay/v1/verdicts/{provider}", self.counts, methods=["GET"]),
            Route("/assay/v1/receipts/{digest}", self.receipt, methods=["GET"]),
            Route("/assay/v1/verdicts", self.judge, methods=["POST"]),
        ]

    async def unaudited(self, request: Request) -> Response:
        self._admit(request)
        after = _number(request, "after")
        rows = await asyncio.to_thread(self._store.unaudited, MOST_LISTED, after=after)
        listed = [{"row": each.row, "digest": b64(each.digest), "provider": each.provider} for each in rows]
        return Response(canonical({"receipts": listed}), media_type="application/json")

    async def contradictions(self, request: Request) -> Response:
        self._admit(request)
        find = self._store.contradicted if _number(request, "all") else self._store.contradicting
        pairs = await asyncio.to_thread(find, MOST_LISTED)
        listed = [{"one": b64(one), "other": b64(other)} for one, other in pairs]
        return Response(canonical({"contradictions": listed}), media_type="application/json")

    async def disproven(self, request: Request) -> Response:
        self._admit(request)
        found = await asyncio.to_thread(self._store.disproven, MOST_LISTED, since=_number(request, "since"))
        return Response(canonical({"receipts": [b64(each) for each in found]}), media_type="application/json")

    async def counts(self, request: Request) -> Response:
        self._admit(request)
        provider: str = request.path_params["provider"]
        tested = await asyncio.to_thread(self._store.tested, provider)
        passed = await asyncio.to_thread(self._store.passed, provider)
        return Response(canonical({"tested": tested, "passed": passed}), media_type="application/json")

    async def receipt(self, request: Request) -> Response:
        self._admit(request)
        try:
            digest = unb64(request.path_params["digest"], size=32, what="the digest")
        except EncodingError:
            raise NotFound("no receipt can have this digest", "give it in base64url") from None
        bundle = await asyncio.to_thread(self._store.get, digest)
        return Response(await asyncio.to_thread(bundle.encode), media_type="application/json")

    async def judge(self, request: Request) -> Response:
        self._admit(request)
        try:
            verdict = _VERDICT.validate_json(await request.body())
            bundle = await asyncio.to_thread(self._store.get, bytes.fromhex(verdict.receipt))
        except (ValidationError, ValueError) as error:
            raise InvalidRequest("the body is no verdict", remedy="send what `assay verify --json` prints") from error
        receipt = bundle.receipt
        for name, said, is_ in (
            ("provider", verdict.provider, receipt.provider),
            ("level", verdict.level, receipt.level),
        ):
            if said != is_:  # or who holds the token could put another one out of the market
                raise InvalidRequest(
                    f"the verdict's {name} is {said}, and the receipt's is {is_}",
                    field=name,
                    remedy="judge the receipt's own",
                )
        await asyncio.to_thread(self._store.judge, verdict)
        await self._market.look_up_verdicts()
        return Response(status_code=204)

    def _admit(self, request: Request) -> None:
        """Strangers see nothing here: a list of receipts would open the way to prompts and answers."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, self._token):
            raise NotFound(
                "there is nothing here", "validators send `Authorization: Bearer` and the gateway's audit token"
            )


def _number(request: Request, name: str) -> int:
    """A number in the query; 0 where it is left out."""
    found = request.query_params.get(name, "0")
    if not (found.isascii() and found.isdigit() and len(found) < 16):
        raise InvalidRequest(f"`{name}` is no number", field=name, remedy="leave it out, or send a number from 0")
    return int(found)
