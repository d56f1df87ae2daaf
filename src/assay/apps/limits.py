"""ASGI middleware: how large and how slow a request may be, and how many answers may be under way."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.apps.failures import error_response
from assay.core.errors import AssayError, BodyTooLarge, Busy, InvalidRequest

MAX_BODY: Final = 4 * 2**20
"""Bytes of a body: several times the longest context in the wordiest script, with every letter escaped."""
MAX_POSTS: Final = 64
"""Posts under way at once, of a program that answers few at a time; providers add their places."""
MAX_LOOKS: Final = 16
"""Questions of the window's pages that are worked on at once: some sort all that is known."""
_LOOKS: Final = "/window/"
_NO_LOOKS: Final = ("/window/files/", "/window/owner/")
"""Cheap, and the owner's."""
_SPILL: Final = 64 * 2**20
"""Bytes of a body over the limit that are read and thrown away, so that its sender gets to read the refusal."""
_SPILL_S: Final = 5.0


class BodyTooSlow(InvalidRequest):
    """The body did not arrive in time."""

    status = 408


class Limits:
    """Refuses bodies that are too large (413) or too slow (408), and posts and puts beyond `max_posts` and questions of
    pages beyond MAX_LOOKS (429).

    Errors of Assay that escape from the application are answered in OpenAI's shape.
    """

    def __init__(
        self, app: ASGIApp, *, max_body: int = MAX_BODY, body_seconds: float = 30.0, max_posts: int = MAX_POSTS
    ) -> None:
        """`max_body` in bytes; `body_seconds` from the request's head to its last byte."""
        self._app = app
        self._max_body = max_body
        self._body_seconds = body_seconds
        self._max_posts = max_posts
        self._posts = 0
        self._looks = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        path: str = scope["path"]
        post = scope["method"] in ("POST", "PUT")
        look = scope["method"] == "GET" and path.startswith(_LOOKS) and not path.startswith(_NO_LOOKS)

        async def watched(message: Message) -> None:
            nonlocal started, look
            started = True
            self._looks -= look  # the work is done, however slowly it is read
            look = False
            await send(message)

        self._posts += post
        self._looks += look
        try:
            if look and self._looks > MAX_LOOKS:
                raise Busy(f"{MAX_LOOKS} questions of pages are under way")
            if post and self._posts > self._max_posts:
                raise Busy(f"{self._max_posts} requests are under way")
            await self._app(scope, self._bounded(receive), watched)
        except ClientDisconnect:
            return  # nobody listens
        except AssayError as error:
            if started:
                raise
            await error_response(error)(scope, receive, send)
        finally:
            self._posts -= post
            self._looks -= look

    def _bounded(self, receive: Receive) -> Receive:
        size = 0
        whole = False
        until = asyncio.get_running_loop().time() + self._body_seconds

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                whole = True
                raise BodyTooSlow(
                    f"the body did not arrive within {self._body_seconds:g} s", remedy="send it at once"
                ) from None
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self._max_body:
                if not whole:
                    await _spill(receive)
                whole = True
                raise BodyTooLarge(self._max_body)
            return message

        return bounded


async def _spill(receive: Receive) -> None:
    """Read on for a while without keeping anything."""
    left = _SPILL
    try:
        async with asyncio.timeout(_SPILL_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
