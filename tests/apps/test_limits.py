"""The limits around an application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.limits import MAX_LOOKS, Limits
from assay.core.errors import NotFound

pytestmark = pytest.mark.anyio


def app(**limits: float) -> Starlette:
    """An application that tells how long a body is, within limits."""

    async def echo(request: Request) -> Response:
        body = await request.body()
        await asyncio.sleep(0.05)
        return Response(str(len(body)))

    async def fails(_request: Request) -> Response:
        raise NotFound("not here")

    routes = [Route("/echo", echo, methods=["GET", "POST"]), Route("/window/echo", echo), Route("/fails", fails)]
    return Starlette(routes=routes, middleware=[Middleware(Limits, **limits)])


def client(served: Starlette) -> httpx.AsyncClient:
    """Speaks to it without a socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://test")


async def test_body_size() -> None:
    """A body of exactly the limit passes, one byte more is 413, however it is cut into pieces."""

    async def pieces(*sizes: int) -> AsyncIterator[bytes]:
        for size in sizes:
            yield b"x" * size

    async with client(app(max_body=100)) as http:
        assert (await http.post("/echo", content=b"x" * 100)).text == "100"
        assert (await http.post("/echo", content=b"x" * 101)).status_code == 413
        assert (await http.post("/echo", content=pieces(60, 40))).text == "100"
        refused = await http.post("/echo", content=pieces(60, 40, 1, 50))
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "body_too_large"


async def test_slow_body() -> None:
    """A body that dribbles in is given up after the time allowed."""

    async def slowly() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    async with client(app(body_seconds=0.1)) as http:
        reply = await asyncio.wait_for(http.post("/echo", content=slowly()), 5)
    assert reply.status_code == 408
    assert "within 0.1 s" in reply.json()["error"]["message"]


async def test_posts_at_once() -> None:
    """Posts beyond the limit are refused with 429; reading is not limited, and places are free again afterwards."""
    async with client(app(max_posts=2)) as http:
        posts = [http.post("/echo", content=b"1") for _ in range(5)]
        gets = [http.get("/echo") for _ in range(5)]
        replies = await asyncio.gather(*posts, *gets)
        again = await http.post("/echo", content=b"1")
    assert sorted(reply.status_code for reply in replies[:5]) == [200, 200, 429, 429, 429]
    assert {reply.status_code for reply in replies[5:]} == {200}
    assert {reply.headers["retry-after"] for reply in replies if reply.status_code == 429} == {"1"}
    assert again.status_code == 200


async def test_questions_of_pages_at_once() -> None:
    """No more than so many are answered at a time; afterwards others are."""
    async with client(app()) as http:
        replies = await asyncio.gather(*(http.get("/window/echo") for _ in range(MAX_LOOKS + 4)))
        assert sorted(reply.status_code for reply in replies) == [200] * MAX_LOOKS + [429] * 4
        assert (await http.get("/window/echo")).status_code == 200
        others = await asyncio.gather(*(http.get("/echo") for _ in range(MAX_LOOKS + 4)))
        assert {reply.status_code for reply in others} == {200}


async def test_errors_that_escape() -> None:
    """An error of Assay that no handler caught is answered with its status."""
    async with client(app()) as http:
        reply = await http.get("/fails")
    assert reply.status_code == 404
    assert reply.json()["error"]["message"] == "not here"


async def test_sender_that_goes() -> None:
    """Who hangs up while sending is no error of ours."""
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, object]:
        return next(messages)

    async def send(message: object) -> None:
        raise AssertionError(f"nobody listens: {message}")

    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": [], "query_string": b""}
    await app()(scope, receive, send)  # pyrefly: ignore[bad-argument-type]
