"""A relay: providers wait at it, consumers come, and what either says is passed on unread.

All of it is TLS between consumer and provider, so a relay can cut a stream and see how much passes, and that is all.
What others can do to it is to fill it up: providers, streams, connections and bytes under way have their numbers, and
whoever says nothing is let go.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

import anyio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import override
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from assay.apps.config import Relay as Settings
from assay.apps.logs import logger
from assay.apps.metrics import RelayMetrics
from assay.core.encoding import canonical
from assay.core.errors import ConfigError, EncodingError, InvalidSignature
from assay.core.keys import Address, parse_address, recover
from assay.core.reach import network_of
from assay.network.links import PART
from assay.network.relay.wire import GONE, LATER, NONCE_BYTES, PROVIDE, QUEUE, REFUSED, SILENT, claim, receive

MOST_WAITING: Final = 16
"""Links of one provider that wait."""
OPENING_SECONDS: Final = 10.0
"""For a handshake, for a provider's signature, for a consumer's first bytes, and for a link to be free."""
_CLOSE_SECONDS: Final = 1.0


class _Berth:
    """What one provider has at a relay."""

    def __init__(self) -> None:
        self.waiting: Final[deque[ServerConnection]] = deque()
        self.arrived: Final = asyncio.Event()
        self.streams = 0

    async def take(self) -> ServerConnection:
        """A link that waited.

        Raises:
            TimeoutError: none came.
        """
        async with asyncio.timeout(OPENING_SECONDS):
            while True:
                while self.waiting:
                    link = self.waiting.popleft()
                    if link.state is State.OPEN:
                        return link
                self.arrived.clear()
                await self.arrived.wait()


class Relay:
    """Passes streams on. For one event loop."""

    def __init__(self, settings: Settings, metrics: RelayMetrics) -> None:
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._berths: Final[dict[Address, _Berth]] = {}
        self._connections: Final = Counter[str]()
        """By the network that they come from."""

    @asynccontextmanager
    async def running(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        """Serve at a listening socket until the end of the block; with TLS if there is a context."""

        class Counted(_Connection):
            relay = self

        server = serve(
            self._handle,
            sock=sock,
            ssl=context,
            process_request=self._answer,
            create_connection=Counted,
            compression=None,
            logger=SILENT,
            server_header=None,
            open_timeout=OPENING_SECONDS,
            close_timeout=_CLOSE_SECONDS,
            max_size=PART,
            max_queue=QUEUE,
            write_limit=PART,
        )
        async with server:
            yield

    def enter(self, network: str) -> bool:
        """A connection from a network begins; False: there is no room for it."""
        self._connections[network] += 1
        self._metrics.connections.inc()
        settings = self._settings
        room = (
            self._connections[network] <= settings.max_connections_per_address
            and self._connections.total() <= settings.max_connections
        )
        if not room:
            self._refuse("connections")
        return room

    def leave(self, network: str) -> None:
        """It ends."""
        self._connections[network] -= 1
        if not self._connections[network]:
            del self._connections[network]
        self._metrics.connections.dec()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """To what is no WebSocket, or none of ours; None: go on."""
        path = request.path.partition("?")[0]
        if path == "/health":
            streams = sum(berth.streams for berth in self._berths.values())
            return _reply("application/json", canonical({"providers": len(self._berths), "streams": streams}))
        if path == "/metrics":
            return _reply(CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry))
        try:
            provider = _provider(path)
        except EncodingError:
            return connection.respond(HTTPStatus.NOT_FOUND, "there is nothing here\n")
        berth = self._berths.get(provider)
        if path.startswith(PROVIDE):
            full = berth is None and len(self._berths) >= self._settings.max_providers
            reason = "providers" if full else ""
        elif berth is None:
            self._refuse("unknown")
            return connection.respond(HTTPStatus.NOT_FOUND, "this provider is not here\n")
        else:
            reason = "streams" if berth.streams >= self._settings.max_streams else ""
        if not reason:
            return None
        self._refuse(reason)
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"no more {reason} are taken now\n")

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path.partition("?")[0]
        provider = _provider(path)
        try:
            if path.startswith(PROVIDE):
                await self._provide(connection, provider, connection.request.headers.get("Host", ""))
            else:
                await self._consume(connection, provider)
        except (ConnectionClosed, anyio.EndOfStream):
            return
        except TimeoutError:
            self._refuse("slow")
        except Exception:
            logger("relay").exception("stream_failed")
            raise

    async def _provide(self, connection: ServerConnection, provider: Address, name: str) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        await connection.send(nonce)
        async with asyncio.timeout(OPENING_SECONDS):
            signature = await receive(connection)
        try:
            signer = recover(claim(nonce, name), signature)
        except InvalidSignature:
            signer = ""
        if signer != provider:
            self._refuse("signature")
            await connection.close(REFUSED, f"the signature is not by {provider} for {name[:50]}")
            return
        berth = self._berths.get(provider)
        if berth is None and len(self._berths) < self._settings.max_providers:
            berth = self._berths[provider] = _Berth()
        if berth is None or len(berth.waiting) >= MOST_WAITING:
            self._refuse("waiting")
            await connection.close(LATER, "so many links are not needed")
            return
        berth.waiting.append(connection)
        berth.arrived.set()
        self._metrics.providers.set(len(self._berths))
        try:
            await connection.wait_closed()
        finally:
            if connection in berth.waiting:
                berth.waiting.remove(connection)
            self._tidy(provider, berth)

    async def _consume(self, connection: ServerConnection, provider: Address) -> None:
        async with asyncio.timeout(OPENING_SECONDS):
            first = await receive(connection)
        berth = self._berths.get(provider)
        if berth is None or berth.streams >= self._settings.max_streams:
            self._refuse("streams")
            await connection.close(LATER, "this provider is not here, or busy")
            return
        berth.streams += 1
        self._metrics.streams.inc()
        link: ServerConnection | None = None
        try:
            link = await berth.take()
            await self._pass_on(connection, link, first)
        finally:
            berth.streams -= 1
            self._metrics.streams.dec()
            self._tidy(provider, berth)
            ending = [connection] if link is None else [connection, link]
            await asyncio.gather(*(each.close(GONE) for each in ending))

    async def _pass_on(self, consumer: ServerConnection, provider: ServerConnection, first: bytes) -> None:
        """Until one of the two ends, or nothing comes for a while."""
        idle, now = self._settings.idle_seconds, asyncio.get_running_loop().time

        async def pump(source: ServerConnection, sink: ServerConnection) -> None:
            with suppress(ConnectionClosed, anyio.EndOfStream):
                while True:
                    part = await receive(source)
                    await sink.send(part)
                    self._metrics.passed.inc(len(part))
                    limit.reschedule(now() + idle)
            group.cancel_scope.cancel()

        try:
            async with asyncio.timeout(idle) as limit:
                await provider.send(first)
                async with anyio.create_task_group() as group:
                    group.start_soon(pump, consumer, provider)
                    group.start_soon(pump, provider, consumer)
        except TimeoutError:
            self._refuse("idle")

    def _tidy(self, provider: Address, berth: _Berth) -> None:
        if not berth.waiting and not berth.streams and self._berths.get(provider) is berth:
            del self._berths[provider]
        self._metrics.providers.set(len(self._berths))

    def _refuse(self, reason: str) -> None:
        self._metrics.refused.labels(reason).inc()


class _Connection(ServerConnection):
    """One that is counted from its first byte on."""

    relay: Relay
    _network = ""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._network = network_of((transport.get_extra_info("peername") or ("",))[0])
        if not self.relay.enter(self._network):
            self.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.leave(self._network)
        super().connection_lost(exc)


def run_relay(relay: Relay, sock: socket.socket, certificate: str, *, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM. `certificate`: a PEM file, or empty. `started` is called once it listens.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(Path(certificate).expanduser())
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{certificate} is no certificate ({error})", "name a PEM file with a certificate and its key"
            ) from error

    async def run() -> None:
        stop = asyncio.Event()
        with suppress(NotImplementedError):  # Windows: Ctrl-C ends the loop
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with relay.running(sock, context):
            started()
            await stop.wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


def _provider(path: str) -> Address:
    """Whom a path names.

    Raises:
        EncodingError: nobody.
    """
    return parse_address(path.removeprefix(PROVIDE).removeprefix("/"), what="provider")


def _reply(media_type: str, body: bytes) -> Response:
    headers = Headers({"Content-Type": media_type, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(200, "OK", headers, body)
