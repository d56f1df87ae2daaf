"""`GET /assay/v1/bundles/{name}/trace`: the accumulators behind a receipt at level `exact`, computed again.

One at a time, in a thread, block by block as the reader takes them: memory is bounded by a few passes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Literal, TypeAlias

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from assay.apps.logs import logger
from assay.apps.server import Drain
from assay.core.bundle import Bundle
from assay.core.errors import AssayError, Busy, EncodingError, InvalidRequest, NotFound
from assay.core.ports import Engine, Tracer
from assay.network.positions import parse_positions

Outcome: TypeAlias = Literal["served", "cut", "busy"]
"""`cut`: it failed on the way, or who had asked hung up."""
_HEADERS: Final = [(b"content-type", b"application/octet-stream"), (b"cache-control", b"no-store")]


class Traces:
    """Serves traces of one engine's answers; with one under way the next is refused."""

    def __init__(self, tracer: Tracer | None, *, stall: float = 120.0) -> None:
        """`tracer`: None: there are none here. `stall`: seconds for which a reader may leave a block unread."""
        self._tracer: Final = tracer
        self._stall: Final = stall
        self._ending = False
        self._taken = False

    async def serve(self, request: Request, bundle: Bundle, count: Callable[[Outcome], None]) -> ASGIApp:
        """The reply to a request for a bundle's trace; `count` is told what became of it.

        Raises:
            NotFound: no trace belongs to it.
            InvalidRequest: the positions are none, or not the answer's.
            Busy: another trace is being computed.
        """
        if self._tracer is None:
            raise NotFound("no traces are served here", "ask a provider that runs the exact engine")
        positions = parse_positions(request.query_params.get("positions", ""))
        if self._taken or self._ending:
            count("busy")
            raise Busy("another trace is being computed here", retry_after=10)
        self._taken = True
        try:
            stop = threading.Event()
            blocks = await asyncio.to_thread(
                self._tracer.trace, bundle, positions, stopped=lambda: stop.is_set() or self._ending
            )
        except EncodingError as error:
            self._taken = False
            raise InvalidRequest(error.message, field="positions") from error
        except BaseException:
            self._taken = False
            raise
        return _Stream(self, blocks, stop, self._stall, count)

    def release(self) -> None:
        """The one under way has ended."""
        self._taken = False

    def end(self) -> None:
        """Break off what is under way, and serve no more."""
        self._ending = True


class _Stream:
    """One trace as an ASGI application. Who hangs up ends it within a few passes."""

    def __init__(
        self,
        owner: Traces,
        blocks: Iterator[bytes],
        stop: threading.Event,
        stall: float,
        count: Callable[[Outcome], None],
    ) -> None:
        self._count: Final = count
        self._outcome: Outcome = "cut"
        self._owner: Final = owner
        self._blocks: Final = blocks
        self._stop: Final = stop
        self._stall: Final = stall

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        watching = asyncio.create_task(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            while (block := await asyncio.to_thread(next, self._blocks, None)) is not None:
                async with asyncio.timeout(self._stall):
                    await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            self._outcome = "served"
        except OSError:  # TimeoutError is one: nobody reads
            self._stop.set()
        except AssayError as error:  # the reader sees that the trace is cut short
            logger("provider").warning("trace_failed", reason=error.message)
        finally:
            self._stop.set()
            watching.cancel()
            self._count(self._outcome)
            await asyncio.shield(self._finish())

    async def _finish(self) -> None:
        with suppress(ValueError):  # a step in another thread is still under way, and ends it
            await asyncio.to_thread(getattr(self._blocks, "close", lambda: None))
        self._owner.release()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stop.set()


def tracer_of(engine: Engine) -> Tracer | None:
    """What serves the traces of an engine's answers; None if they have none."""
    return engine if isinstance(engine, Tracer) else None


def ending(drain: Drain, traces: Traces) -> Drain:
    """`drain`, and before it the end of all traces."""

    async def both(grace: float) -> None:
        traces.end()
        await drain(grace)

    return both
