"""Byte streams to providers that take no connections: HTTP over TLS over whatever carries bytes both ways."""

from __future__ import annotations

import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import anyio
import httpcore
import httpx
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSStream
from typing_extensions import override

from assay.network.pool import PooledTransport

PART: Final = 65_536
"""Bytes that are passed on at a time, at most."""


class Link(ByteStream):
    """One stream of bytes each way. It ends on both ways at once."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """The other side has gone, or we have."""


Dial: TypeAlias = Callable[[], Awaitable[Link]]
"""Opens a link. Raises OSError where that fails."""


class LinkedTransport(PooledTransport):
    """HTTP/1.1 over TLS over links."""

    def __init__(self, dial: Dial, context: ssl.SSLContext, limits: httpx.Limits) -> None:
        """See `PooledTransport`."""
        super().__init__(_Dialling(dial), context, limits)


class _Dialling(httpcore.AsyncNetworkBackend):
    """Opens a link whatever host is asked for: who dials knows where to."""

    def __init__(self, dial: Dial) -> None:
        self._dial: Final = dial

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _failing(httpcore.ConnectTimeout, httpcore.ConnectError), anyio.fail_after(timeout):
            link = await self._dial()
            return _Stream(link, link)

    @override
    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A link, or TLS over one, as HTTP reads and writes it."""

    def __init__(self, link: Link, stream: Link | TLSStream) -> None:
        self._link: Final = link
        self._stream: Final = stream

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _failing(httpcore.ReadTimeout, httpcore.ReadError), anyio.fail_after(timeout):
            try:
                return await self._stream.receive(max_bytes)
            except anyio.EndOfStream:
                return b""

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            with _failing(httpcore.WriteTimeout, httpcore.WriteError), anyio.fail_after(timeout):
                await self._stream.send(buffer)

    @override
    async def aclose(self) -> None:
        await self._link.aclose()

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            with _failing(httpcore.ConnectTimeout, httpcore.ConnectError), anyio.fail_after(timeout):
                # HTTP says itself where a message ends, so a stream may end without TLS saying so.
                tls = await TLSStream.wrap(
                    self._link, hostname=server_hostname, ssl_context=ssl_context, standard_compatible=False
                )
        except BaseException:
            await self.aclose()
            raise
        return _Stream(self._link, tls)

    @override
    def get_extra_info(self, info: str) -> object:
        if info == "ssl_object":
            return self._stream.extra(TLSAttribute.ssl_object, None)  # noqa: S610 - no Django here
        # What can be read on an idle connection is its end.
        return self._link.ended if info == "is_readable" else None


@contextmanager
def _failing(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """What goes wrong, in the words of HTTP's own library."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream) as error:
        raise broken(str(error) or "the connection ended") from error


async def bridge(link: Link, host: str, port: int) -> None:
    """Pass bytes on between a link and a socket of this machine until one of them ends; then both do.

    Raises:
        OSError: nobody takes connections there.
    """
    async with link, await anyio.connect_tcp(host, port) as local, anyio.create_task_group() as group:

        async def pump(source: ByteStream, sink: ByteStream) -> None:
            try:
                async for part in source:
                    await sink.send(part)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # who has gone reads nothing
            group.cancel_scope.cancel()

        group.start_soon(pump, link, local)
        group.start_soon(pump, local, link)
