"""What `streams.py` runs beside a gateway: providers over an engine that computes nothing, and a bare proxy.

    python -m benchmarks._stream_programs provider NUMBER PLACES SECONDS

prints the address of a provider with PLACES places and a token every SECONDS in each answer; its key is by NUMBER;

    python -m benchmarks._stream_programs proxy URL...

prints the address of a proxy that passes chat completions on to these in turn. Both serve until they are killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import cycle
from typing import Final

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.responses import StreamingResponse
from starlette.routing import Route
from tests.tiny import PROFILE, TinyReader, tiny_key

from assay.apps.config import home
from assay.apps.lifeline import follow_parent
from assay.apps.logs import configure_logs
from assay.apps.provider import provider_app
from assay.apps.server import bind, serve, url_of
from assay.apps.serving import LocalAnswers
from assay.core.completion import Prompt, Step
from assay.core.hashing import Digest
from assay.core.request import Level, Request
from assay.store.receipts import ReceiptStore

MODEL: Final = "metronome"
_WORD: Final = " word"


class Metronome:
    """Implements `Engine`: the same word again and again, at even times from the request on, up to `max_tokens`."""

    model: Final = MODEL
    model_digest: Final[Digest] = bytes([7]) * 32
    levels: Final[tuple[Level, ...]] = ("signed",)

    def __init__(self, seconds: float) -> None:
        """`seconds`: from one token to the next."""
        self.profile: Final = replace(PROFILE, engine="metronome")
        self.reader: Final = TinyReader()
        self._seconds: Final = seconds

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        """See `Engine.generate`."""
        del prompt, top_logprobs
        loop = asyncio.get_running_loop()
        begun, most = loop.time(), request.max_tokens or 1
        for index in range(most):
            await asyncio.sleep(begun + index * self._seconds - loop.time())
            yield Step(index, index % 256, _WORD, b"", stop="length" if index == most - 1 else None)


def provider(number: int, places: int, seconds: float) -> None:
    """Serve a provider."""
    key, store = tiny_key(number), ReceiptStore(f"sqlite:///{home()}/provider-{number}.db")
    local = LocalAnswers([Metronome(seconds)], key, store, parallel=places)
    sock = bind("127.0.0.1", 0)
    serve(provider_app(local, store, key.address), sock, drain=local.drain, started=lambda: _say(url_of(sock)))


def proxy(urls: list[str]) -> None:
    """Serve the proxy, by the same server as the gateway's."""
    turns = cycle(urls)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=15.0)  # the gateway's
    client = httpx.AsyncClient(timeout=httpx.Timeout(30, read=None), limits=limits, trust_env=False)

    async def completions(request: HttpRequest) -> StreamingResponse:
        outgoing = client.build_request(
            "POST",
            f"{next(turns)}/v1/chat/completions",
            content=await request.body(),
            headers={"content-type": "application/json"},
        )
        reply = await client.send(outgoing, stream=True)
        return StreamingResponse(
            reply.aiter_raw(),
            reply.status_code,
            media_type=reply.headers["content-type"],
            background=BackgroundTask(reply.aclose),
        )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    app = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"])], lifespan=lifespan)
    sock = bind("127.0.0.1", 0)
    serve(app, sock, started=lambda: _say(url_of(sock)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    follow_parent()
    if sys.argv[1] == "provider":
        configure_logs("warning")
        provider(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        proxy(sys.argv[2:])
