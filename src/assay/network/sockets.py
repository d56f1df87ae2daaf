"""httpx over asyncio's own transports. Its usual layer between, anyio, takes as long for a read as all the rest of a
streamed token takes; a gateway passes thousands of them on in a second."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import httpcore
import httpx
from typing_extensions import override

from assay.network.pool import PooledTransport
from assay.network.waiting import WaitLimit

_MOST: Final = 2**18
"""Bytes that came and were not asked for, after which no more are read from the socket."""

_NEXT_SECONDS: Final = 0.25
"""After which a name's next address is tried beside the one before (RFC 8305)."""


class SocketTransport(PooledTransport):
    """httpx's transport, with another way to the network."""

    def __init__(
        self,
        *,
        limits: httpx.Limits,
        verify: ssl.SSLContext | bool = True,
        socket_options: Iterable[httpcore.SOCKET_OPTION] = (),
    ) -> None:
        """See `PooledTransport`."""
        super().__init__(_Sockets(), httpx.create_ssl_context(verify=verify, trust_env=False), limits, socket_options)


class _Sockets(httpcore.AsyncNetworkBackend):
    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        assert local_address is None
        loop = asyncio.get_running_loop()
        # A name may stand for several addresses; no name ends in a number.
        delay = None if host[-1:].isdigit() or ":" in host else _NEXT_SECONDS
        with _as(httpcore.ConnectTimeout, httpcore.ConnectError), _limit(timeout):
            transport, inbox = await loop.create_connection(_Inbox, host, port, happy_eyeballs_delay=delay)
            for option in socket_options or ():
                transport.get_extra_info("socket").setsockopt(*option)
        return _Socket(transport, inbox)

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Inbox(asyncio.Protocol):
    """What came and was not asked for yet; one reader and one writer at a time."""

    def __init__(self) -> None:
        self.data: Final = bytearray()
        self.ended = False
        self.failure: Exception | None = None
        self._transport: asyncio.Transport | None = None
        self._came: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        """There while the other side takes no more."""
        self._paused = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport  # the one that encrypts too, after `start_tls`

    @override
    def data_received(self, data: bytes) -> None:
        self.data.extend(data)
        if len(self.data) > _MOST and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    @override
    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self.failure = True, exc
        self._wake()
        self.resume_writing()

    @override
    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    @override
    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def take(self, most: int) -> bytes:
        """What has come, when something has; nothing at the end."""
        while not self.data and not self.ended:
            self._came = asyncio.get_running_loop().create_future()
            await self._came
        if not self.data and self.failure is not None:
            raise self.failure
        data = bytes(self.data[:most])
        del self.data[:most]
        if self._paused and len(self.data) <= _MOST // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def drained(self) -> None:
        """Wait until more can be written."""
        if self._room is not None:
            await self._room
        if self.failure is not None:
            raise self.failure

    def _wake(self) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(None)


class _Socket(httpcore.AsyncNetworkStream):
    def __init__(self, transport: asyncio.Transport, inbox: _Inbox) -> None:
        self._transport: Final = transport
        self._inbox: Final = inbox

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _as(httpcore.ReadTimeout, httpcore.ReadError), _limit(timeout):
            return await self._inbox.take(max_bytes)

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _as(httpcore.WriteTimeout, httpcore.WriteError):
            if self._transport.is_closing():
                raise ConnectionResetError("the connection is closed")
            self._transport.write(buffer)
            with _limit(timeout):
                await self._inbox.drained()

    @override
    async def aclose(self) -> None:
        # What was written has been handed over, or nobody takes it.
        self._transport.abort()
        await asyncio.sleep(0)

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            with _as(httpcore.ConnectTimeout, httpcore.ConnectError):
                with _limit(timeout):
                    transport = await loop.start_tls(
                        self._transport, self._inbox, ssl_context, server_hostname=server_hostname or ""
                    )
                if transport is None:
                    raise ConnectionResetError("the connection is closed")
        except BaseException:
            self._transport.abort()
            raise
        self._inbox.connection_made(transport)
        return _Socket(transport, self._inbox)

    @override
    def get_extra_info(self, info: str) -> object:
        if info == "is_readable":  # of an idle connection: it cannot be used again
            unusable = self._inbox.ended or bool(self._inbox.data) or _is_readable(self._transport)
            return unusable or _has_moved(self._transport)
        named = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(named.get(info, info))


def _is_readable(transport: asyncio.Transport) -> bool:
    """The socket has what the event loop has not seen yet, such as its end."""
    descriptor: int = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _has_moved(transport: asyncio.Transport) -> bool:
    """The connection goes out from an address that this machine does not have any more."""
    host, _, *rest = transport.get_extra_info("sockname")
    with socket.socket(transport.get_extra_info("socket").family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0, *rest))
        except OSError:
            return True
    return False


def _limit(seconds: float | None) -> AbstractContextManager[None]:
    return nullcontext() if seconds is None else WaitLimit(seconds)


@contextmanager
def _as(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """The system's errors as httpcore's."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:  # SSLError is one
        raise failed(str(error)) from error
