"""A provider's side of a relay: links that wait there for consumers, each bridged to the provider's own HTTPS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import anyio
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from assay.core.keys import Key
from assay.core.record import Endpoint
from assay.network.links import bridge
from assay.network.relay.wire import NONCE_BYTES, PROVIDE, WebSocketLink, claim, open_socket, receive

SPARE: Final = 4
"""Links that wait: so many consumers can come at once without waiting themselves."""
MOST: Final = 64
"""Links in all."""
RETRY_SECONDS: Final = 1.0
"""Until a relay that failed is tried again; twice as long after each further failure."""
_MOST_RETRY_SECONDS: Final = 30.0
_GREETING_SECONDS: Final = 10.0


class Berth:
    """One provider's place at one relay."""

    def __init__(
        self,
        relay: Endpoint,
        key: Key,
        local: tuple[str, int],
        *,
        failed: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """`local`: host and port of the provider's HTTPS. `failed`: is told, once until
        it works again, why the relay cannot be used."""
        self._relay: Final = relay
        self._key: Final = key
        self._local: Final = local
        self._failed: Final = failed
        self._failing = False
        self._spare: Final = asyncio.Semaphore(SPARE)
        self._room: Final = asyncio.Semaphore(MOST)

    async def run(self) -> None:
        """Keep links waiting, for ever."""
        wait = RETRY_SECONDS
        async with asyncio.TaskGroup() as group:
            while True:
                await self._room.acquire()
                await self._spare.acquire()
                try:
                    async with asyncio.timeout(_GREETING_SECONDS):
                        socket = await self._moor()
                except (OSError, anyio.EndOfStream, ConnectionClosed) as error:  # TimeoutError is an OSError
                    self._spare.release()
                    self._room.release()
                    self._fail(str(error) or "it does not keep to the protocol")
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, _MOST_RETRY_SECONDS)
                    continue
                wait = RETRY_SECONDS
                group.create_task(self._serve(socket))

    async def _moor(self) -> ClientConnection:
        """A link of ours that waits at the relay."""
        socket = await open_socket(self._relay, PROVIDE + self._key.address)
        try:
            nonce = await receive(socket)
            if len(nonce) != NONCE_BYTES:
                raise anyio.EndOfStream
            assert socket.request is not None
            await socket.send(self._key.sign(claim(nonce, socket.request.headers["Host"])))
        except BaseException:
            socket.transport.abort()
            raise
        return socket

    async def _serve(self, socket: ClientConnection) -> None:
        """Wait for a consumer, then carry its bytes."""
        try:
            try:
                first = await receive(socket)
            except anyio.EndOfStream:
                self._fail(socket.close_reason or "it closes links that wait")
                await asyncio.sleep(RETRY_SECONDS)  # or a relay that closes them at once would keep us busy
                return
            finally:
                self._spare.release()
            self._failing = False
            await bridge(WebSocketLink(socket, first), *self._local)
        except OSError:
            return  # our own server is ending
        finally:
            self._room.release()
            socket.transport.abort()

    def _fail(self, reason: str) -> None:
        if not self._failing:
            self._failed(f"the relay {self._relay.address} cannot be used ({reason})")
        self._failing = True
