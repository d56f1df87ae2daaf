"""What is said to a relay, and a WebSocket as a stream of bytes.

A provider opens `/provide/0x…` and is sent 32 random bytes. It signs them, and the relay's name as it knows it, so that
one relay cannot take its place at another. From then on it waits: the first message is a consumer's first bytes. A
consumer opens `/0x…` and sends. Each stream has a WebSocket of its own on either side, so none holds up another, and
TCP alone says how much is on its way. All messages are binary.
"""

from __future__ import annotations

import logging
import ssl
from typing import Final

import anyio
from typing_extensions import override
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.protocol import State

from assay.core.hashing import Digest, digest
from assay.core.keys import Address
from assay.core.record import Endpoint
from assay.network.links import PART, Link

NONCE_BYTES: Final = 32
PROVIDE: Final = "/provide/"
"""Where a provider waits; its address follows."""
GONE, REFUSED, LATER = 1001, 1008, 1013
"""Codes with which a relay closes (RFC 6455): it or the other side ends; not by these rules; no room now."""
SILENT: Final = logging.Logger("websockets", logging.CRITICAL + 1)
"""What strangers do wrong is counted, not logged with a traceback."""
QUEUE: Final = 4
"""Messages that wait to be passed on, in each direction of a stream; then nothing more is read."""
_CLOSE_SECONDS: Final = 1.0


def claim(nonce: bytes, relay: str) -> Digest:
    """What a provider signs. `relay`: its `host:port`, the port left out where it is the scheme's own."""
    return digest("assay/relay/1", nonce, relay.encode())


async def open_socket(relay: Endpoint, path: str, host: str = "") -> ClientConnection:
    """A WebSocket to a relay. `host`: an address that its name was resolved to.

    Raises:
        OSError: it cannot be reached, or does not let us in.
    """
    secure = ssl.create_default_context() if relay.address.startswith("wss:") else None
    try:
        return await _Once(
            relay.address + path,
            host=host or relay.host,
            port=relay.port,
            ssl=secure,
            proxy=None,
            compression=None,
            logger=SILENT,
            max_size=PART,
            max_queue=QUEUE,
            write_limit=PART,
            close_timeout=_CLOSE_SECONDS,
        )
    except (InvalidHandshake, InvalidURI) as error:
        raise ConnectionError(f"the relay {relay.address} does not connect to that provider ({error})") from error
    except OSError as error:
        raise ConnectionError(f"the relay {relay.address} cannot be reached ({error})") from error


class _Once(connect):
    """Follows nobody elsewhere."""

    @override
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebSocketLink(Link):
    """Binary messages as one stream."""

    def __init__(self, socket: Connection, first: bytes = b"") -> None:
        """`first`: what was received already."""
        self._socket: Final = socket
        self._left = first

    @property
    @override
    def ended(self) -> bool:
        """See `Link`."""
        return self._socket.state is not State.OPEN

    @override
    async def receive(self, max_bytes: int = PART) -> bytes:
        """See `Link`."""
        while not self._left:
            self._left = await receive(self._socket)
        part, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return part

    @override
    async def send(self, item: bytes) -> None:
        """See `Link`."""
        try:
            for at in range(0, len(item), PART):
                await self._socket.send(bytes(item[at : at + PART]))
        except ConnectionClosed as error:
            raise anyio.BrokenResourceError from error

    @override
    async def send_eof(self) -> None:
        """See `Link`."""
        await self.aclose()

    @override
    async def aclose(self) -> None:
        """See `Link`."""
        try:
            await self._socket.close()
        finally:
            self._socket.transport.abort()  # where closing was cut short


async def receive(socket: Connection) -> bytes:
    """The next message.

    Raises:
        anyio.EndOfStream: there is none, or not a binary one.
    """
    try:
        message = await socket.recv()
    except ConnectionClosed as error:
        raise anyio.EndOfStream from error
    if isinstance(message, str):
        await socket.close(REFUSED, "only bytes are passed on")
        raise anyio.EndOfStream
    return message


def provider_path(provider: Address) -> str:
    """Where a consumer finds a provider."""
    return f"/{provider}"
