"""A provider as a web application: the native wire, the OpenAI surface, receipts and metrics over local engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from assay.apps.door import Door
from assay.apps.doubting import Doubts
from assay.apps.earnings import Earnings
from assay.apps.failures import ERROR_HANDLERS
from assay.apps.limits import MAX_BODY, MAX_POSTS, Limits
from assay.apps.logs import logger
from assay.apps.metrics import Measured, Metrics
from assay.apps.noting import Noted
from assay.apps.openai_api import openai_routes
from assay.apps.openapi_native import provider_paths
from assay.apps.selling import Selling
from assay.apps.serving import LocalAnswers
from assay.apps.till import Till
from assay.apps.tracing import Traces
from assay.apps.window.auditing import Audits
from assay.apps.window.courtroom import Courtroom
from assay.apps.window.sources import Sources
from assay.apps.window.window import Window
from assay.apps.x402 import X402, Deposits
from assay.core.bundle import Bundle
from assay.core.encoding import unb64
from assay.core.errors import AssayError, EncodingError, NotFound
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.offer import Ask
from assay.core.payment import Due
from assay.core.ports import Answer
from assay.core.sse import KEEP_ALIVE
from assay.network.openai.shape import ToolReader
from assay.network.waiting import WaitLimit
from assay.network.wire import (
    bundle_event,
    decode_request,
    decode_voucher,
    due_event,
    encode_load,
    encode_offers,
    error_event,
    step_event,
)
from assay.store.receipts import ReceiptStore

if TYPE_CHECKING:
    from assay.apps.publishing import Publisher

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class LocalBundles:
    """Implements `Bundles` over answers of this machine: those that have just ended are waited for."""

    def __init__(self, local: LocalAnswers, store: ReceiptStore) -> None:
        self._local: Final = local
        self._stored: Final = StoredBundles(store)

    async def find(self, name: Digest) -> Sequence[Bundle]:
        """See `Bundles`."""
        await self._local.settled(name)
        return await self._stored.find(name)


class StoredBundles:
    """Implements `Bundles` over a database, off the event loop."""

    def __init__(self, store: ReceiptStore) -> None:
        self._store: Final = store

    async def find(self, name: Digest) -> Sequence[Bundle]:
        """See `Bundles`."""
        return await asyncio.to_thread(self._store.find, name)


@dataclass(frozen=True, slots=True)
class Pace:
    """Of the native stream, in seconds."""

    sign_of_life: float = 5.0
    """Between comments while no token comes."""
    stall: float = 30.0
    """How long a consumer may leave a token unread before it counts as gone."""


def provider_app(
    local: LocalAnswers,
    store: ReceiptStore,
    address: Address,
    *,
    read_tools: ToolReader | None = None,
    max_body: int = MAX_BODY,
    pace: Pace | None = None,
    traces: Traces | None = None,
    till: Till | None = None,
    metrics: Metrics | None = None,
    deposits: Deposits | None = None,
    least_deposit: int = 1,
    publisher: Publisher | None = None,
    door: Door | None = None,
    window: Window | None = None,
    audits: Audits | None = None,
    court: Courtroom | None = None,
    doubts: Doubts | None = None,
    earnings: Earnings | None = None,
    selling: Selling | None = None,
) -> Starlette:
    """The application; `address` is the provider's own. `traces`: serves those of answers at level `exact`. `till`: the
    one of `local`, if answers are paid; with `deposits`, which are of `least_deposit` wei at least, by x402 as well.
    `metrics`: to add to. `publisher`: makes the provider known; without one it is not. `door`: whom it
    lets in; without one, everybody. `window`: its pages; without it there are none. `audits`: the full checks that the
    owner makes there. `court`: what they show of the chain's; `doubts`: tries cheats for the owner; `earnings`: of who
    is paid; `selling`: what the owner changes of what is sold."""
    log, metrics = logger("provider"), metrics or Metrics()
    metrics.watch_verdicts(store)
    answers = Measured(local, metrics, log)
    bundles = LocalBundles(local, store)
    toll = X402(local, answers, till, deposits, least_deposit=least_deposit) if till and deposits else None
    door = door or Door(address)
    native = _Native(
        answers, local, bundles, address, pace or Pace(), traces or Traces(None), metrics, till, publisher, door
    )

    def health() -> Mapping[str, object]:
        return {"provider": address, "active": local.active}

    def seen(window: Window) -> Sources:
        return Sources(
            window.kind,
            window.owner,
            answers,
            bundles,
            store,
            upkeep=window.upkeep,
            load=lambda: local.load,
            local=local,
            pace=metrics.pace,
            spell=local.spell,
            audits=audits,
            court=court,
            doubts=doubts,
            earnings=earnings,
            selling=selling,
        )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(store.close)
            await asyncio.to_thread(local.recover)
            if till is not None:
                await stack.enter_async_context(till.open())
            stack.push_async_callback(local.drain, 0)
            if publisher is not None:
                await stack.enter_async_context(publisher.running())
            yield

    return Starlette(
        routes=[
            Route("/assay/v1/offers", native.offers, methods=["GET"]),
            Route("/assay/v1/record", native.record, methods=["GET"]),
            Route("/assay/v1/load", native.load, methods=["GET"]),
            Route("/assay/v1/answers", native.answers, methods=["POST"]),
            Route("/assay/v1/answers/{name}", native.stop, methods=["DELETE"]),
            Route("/assay/v1/vouchers", native.vouchers, methods=["POST"]),
            Route("/assay/v1/bundles/{name}", native.bundle, methods=["GET"]),
            Route("/assay/v1/bundles/{name}/trace", native.trace, methods=["GET"]),
            metrics.route(),
            *(window.routes(seen(window)) if window else ()),
            *openai_routes(
                Noted(answers, store) if window else answers,
                bundles,
                read_tools=read_tools,
                health=health,
                documented=provider_paths(),
                toll=toll,
            ),
        ],
        exception_handlers=ERROR_HANDLERS,
        middleware=[
            *(window.middleware() if window else ()),
            Middleware(Limits, max_body=max_body, max_posts=MAX_POSTS + local.parallel),
            Middleware(door.wrap),
        ],
        lifespan=lifespan,
    )


class _Native:
    """Handlers of the native wire."""

    def __init__(
        self,
        answers: Measured,
        local: LocalAnswers,
        bundles: LocalBundles,
        address: Address,
        pace: Pace,
        traces: Traces,
        metrics: Metrics,
        till: Till | None,
        publisher: Publisher | None,
        door: Door,
    ) -> None:
        self._answers: Final = answers
        self._local: Final = local
        self._bundles: Final = bundles
        self._address: Final = address
        self._pace: Final = pace
        self._traces: Final = traces
        self._metrics: Final = metrics
        self._till: Final = till
        self._publisher: Final = publisher
        self._door: Final = door

    async def offers(self, _request: Request) -> Response:
        return Response(encode_offers(self._address, await self._answers.models()), media_type="application/json")

    async def record(self, _request: Request) -> Response:
        if self._publisher is None:
            raise NotFound("this provider does not make itself known", "ask for its offers")
        return Response((await self._publisher.record()).encode(), media_type="application/json")

    async def load(self, _request: Request) -> Response:
        return Response(encode_load(self._local.load), media_type="application/json")

    async def answers(self, request: Request) -> ASGIApp:
        body = await request.body()
        asked, dues = decode_request(body), asyncio.Queue[Due]()
        wanted = asked.request
        self._door.admit(request, body, asked.payment)
        starting = self._local.answer(
            wanted,
            Ask(wanted.model, wanted.level),
            top_logprobs=asked.top_logprobs,
            price=asked.price,
            payment=asked.payment,
            due=dues.put_nowait,
        )
        return _Stream(await self._answers.measure(wanted, starting), self._pace, dues)

    async def vouchers(self, request: Request) -> Response:
        if self._till is None:
            raise NotFound("nothing is paid here through channels", "ask without a payment")
        await self._till.take(*decode_voucher(await request.body()))
        return Response(status_code=204)

    async def stop(self, request: Request) -> Response:
        await self._local.stop(_name(request))
        return Response(status_code=204)

    async def bundle(self, request: Request) -> Response:
        return Response((await self._find(request)).encode(), media_type="application/json")

    async def trace(self, request: Request) -> ASGIApp:
        bundle = await self._find(request)
        return await self._traces.serve(request, bundle, lambda outcome: self._metrics.traces.labels(outcome).inc())

    async def _find(self, request: Request) -> Bundle:
        name = _name(request)
        # The first choice's name is that of its call too, which finds the other choices.
        found = [item for item in await self._bundles.find(name) if item.request.name == name]
        if not found:
            raise NotFound("no receipt for this request is known", "it is issued when the answer has ended")
        return found[-1]


class _Stream:
    """One answer as server-sent events; an ASGI application. Who hangs up stops the engine within one token."""

    def __init__(self, answer: Answer, pace: Pace, dues: asyncio.Queue[Due]) -> None:
        self._answer: Final = answer
        self._pace: Final = pace
        self._dues: Final = dues
        self._stall: Final = WaitLimit(pace.stall)
        self._lock: Final = asyncio.Lock()
        self._gone = False
        self._sent = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        work = (self._watch(receive), self._beat(send), self._ask(send))
        helpers = [asyncio.create_task(each) for each in work]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._run(send)
        finally:
            for helper in helpers:
                helper.cancel()
            await self._answer.close()

    async def _run(self, send: Send) -> None:
        """The last token goes out together with the receipt: a consumer has both or must ask elsewhere for both."""
        held = b""
        try:
            async for step in self._answer.steps():
                if step.stop:
                    held = step_event(step)
                else:
                    await self._write(send, step_event(step))
        except AssayError as error:
            await self._write(send, error_event(error))
        try:
            last = bundle_event(await self._answer.bundle())
        except AssayError as error:
            last = error_event(error)
        await self._write(send, held + last, more=False)

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        self._sent = True
        try:
            async with self._lock:
                if self._gone:
                    return
                self._gone = not more
                with self._stall:
                    await send({"type": "http.response.body", "body": data, "more_body": more})
        except OSError:  # TimeoutError is one
            await self._leave()

    async def _ask(self, send: Send) -> None:
        """Tell the consumer what is due."""
        while True:
            await self._write(send, due_event(await self._dues.get()))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await self._leave()

    async def _leave(self) -> None:
        self._gone = True
        await self._answer.close()

    async def _beat(self, send: Send) -> None:
        """Show that the connection lives while the prompt is read."""
        while not self._gone:
            await asyncio.sleep(self._pace.sign_of_life)
            if not self._sent:
                await self._write(send, KEEP_ALIVE)
            self._sent = False


def _name(request: Request) -> Digest:
    name: str = request.path_params["name"]
    try:
        return unb64(name, size=32, what="the name")
    except EncodingError:
        raise NotFound("no request can have this name", "give the request's name in base64url") from None
