"""A foreign OpenAI-compatible server over HTTP. Whatever it does, waiting and memory are bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

import httpx

from assay.core.errors import Busy, EngineError, ProviderFailed
from assay.core.sse import EventReader

Object: TypeAlias = Mapping[str, object]
"""A JSON object from outside; nothing about its members is known."""

_MAX_REPLY: Final = 2**20
_MAX_EVENT: Final = 16 * 2**20
"""Bytes of one event: log-probabilities of a whole vocabulary may be asked for."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    connect: float = 5.0
    reply: float = 20.0
    """For a short reply, such as the list of models."""
    first: float = 300.0
    """For the first token: a long prompt takes a small machine its time."""
    token: float = 60.0
    """For every other token."""


class Refused(ProviderFailed):
    """The server understood HTTP and said no; `code` is its HTTP status."""

    def __init__(self, message: str, remedy: str, code: int) -> None:
        super().__init__(message, remedy)
        self.code = code


class Upstream:
    """The server at `url`, with or without `/v1` at its end. Every call has a connection of its own.

    Raises:
        EngineError: the address is not one.
    """

    def __init__(self, url: str, *, api_key: str = "", patience: Patience | None = None) -> None:
        self.url: Final = url.strip().rstrip("/").removesuffix("/v1")
        self._patience: Final = patience or Patience()
        self._tls: Final = httpx.create_ssl_context()  # once: reading the certificates takes longer than a call
        # Compressed replies could grow without bound, so none is asked for and none is unpacked.
        self._headers: Final = {"accept-encoding": "identity"} | (
            {"authorization": f"Bearer {api_key}"} if api_key else {}
        )
        try:
            well = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise EngineError(f"{url[:200]!r} is not an address ({error})", "write http://HOST:PORT") from error
        if well.scheme not in ("http", "https") or not well.host or not 0 < (well.port or 80) < 65_536:
            raise EngineError(f"{url[:200]!r} is not an address", "write http://HOST:PORT")

    async def get(self, path: str) -> Object:
        """The JSON object at `path`.

        Raises:
            Refused: the server answers with an HTTP error.
            ProviderFailed: it cannot be reached, or answers something else.
        """
        try:
            async with asyncio.timeout(self._patience.reply), self._send("GET", path, None) as response:
                return _object(await _read(response, _MAX_REPLY), self.url)
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            self._fail(error)

    async def stream(self, body: Object) -> AsyncGenerator[Object, None]:
        """The events of a streamed completion. Closing the generator closes the connection.

        Raises:
            Busy: the server has no place.
            Refused: it answers with another HTTP error.
            ProviderFailed: it cannot be reached, goes silent, breaks off or leaves the protocol.
        """
        clock = asyncio.get_running_loop().time
        reader = EventReader(_MAX_EVENT)
        deadline = clock() + self._patience.first
        try:
            async with self._send("POST", "/v1/completions", body, deadline) as response:
                chunks = response.aiter_raw()
                while True:
                    async with asyncio.timeout_at(deadline):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        if reader.empty:
                            return
                        raise ProviderFailed(f"{self.url} broke off within an event", "ask again")
                    for data in reader.feed(chunk):
                        if data.strip() == b"[DONE]":
                            return
                        event = _object(data, self.url)
                        if "error" in event or event.get("object") == "error":
                            raise ProviderFailed(f"{self.url} failed in mid-answer: {_reason(event)}", "see its log")
                        deadline = clock() + self._patience.token
                        yield event
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            self._fail(error)

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, body: Object | None, deadline: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        limits = httpx.Timeout(None, connect=self._patience.connect)
        async with httpx.AsyncClient(timeout=limits, trust_env=False, verify=self._tls) as client:
            request = client.build_request(
                method, self.url + path, headers=self._headers, content=None if body is None else json.dumps(body)
            )
            if body is not None:
                request.headers["content-type"] = "application/json"
            async with asyncio.timeout_at(deadline):
                response = await client.send(request, stream=True)
            try:
                if response.status_code != 200:
                    async with asyncio.timeout(self._patience.reply):
                        self._refuse(response, await _read(response, _MAX_REPLY))
                yield response
            finally:
                await response.aclose()

    def _refuse(self, response: httpx.Response, body: bytes) -> NoReturn:
        code = response.status_code
        try:
            reason = _reason(_object(body, self.url))
        except ProviderFailed:
            reason = f"HTTP status {code}"
        if code in (429, 503):
            after = response.headers.get("retry-after", "")
            wait = int(after) if after.isascii() and after.isdigit() and len(after) < 5 else 1
            raise Busy(f"the server behind this provider has no place ({reason})", retry_after=max(wait, 1))
        remedy = "give the right key" if code in (401, 403) else "check the server's address, model and log"
        raise Refused(f"{self.url} refuses ({code}): {reason}", remedy, code)

    def _fail(self, error: Exception) -> NoReturn:
        what = "went silent" if isinstance(error, TimeoutError) else "cannot be reached, or broke off"
        raise ProviderFailed(
            f"{self.url} {what} ({type(error).__name__})", "check that the server runs, and see its log"
        ) from error


async def _read(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise ProviderFailed(f"the reply is larger than {limit} bytes", "check that it is an OpenAI server")
    return bytes(body)


def _object(data: bytes, url: str) -> Object:
    try:
        value: object = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProviderFailed(
            f"{url} sends what is not JSON ({data[:40]!r})", "check that it is an OpenAI server"
        ) from error
    if not isinstance(value, dict):
        raise ProviderFailed(f"{url} sends JSON that is no object", "check that it is an OpenAI server")
    return value


def _reason(value: Object) -> str:
    """What an OpenAI-shaped error says, in a length for people."""
    error = value.get("error", value)
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "no reason given")[:300]


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
