"""Connections that are used again, at a cost that does not grow with their number: httpcore's own pool looks at each of
them several times for each request, and a gateway has a thousand of them open."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, Protocol, TypeAlias, runtime_checkable

import httpcore
import httpx
from typing_extensions import override

Target: TypeAlias = tuple[bytes, bytes, int]
"""Scheme, host and port."""


@runtime_checkable
class Body(Protocol):
    """Of a reply, as it comes."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Its parts."""
        ...

    async def aclose(self) -> None:
        """Read no more."""
        ...


class PooledTransport(httpx.AsyncHTTPTransport):
    """httpx's transport for HTTP/1.1, with another pool and another way to the network."""

    def __init__(
        self,
        network: httpcore.AsyncNetworkBackend,
        context: ssl.SSLContext,
        limits: httpx.Limits,
        socket_options: Iterable[httpcore.SOCKET_OPTION] = (),
    ) -> None:
        """`limits`: of idle connections; of others there are as many as there are requests under way. There are no
        proxies, and the environment does not matter."""
        super().__init__(verify=context, limits=limits, trust_env=False)
        self._pool = Pool(network, context, limits, socket_options)


class Pool(httpcore.AsyncConnectionPool):
    """One request on a connection at a time; the one that became idle last is used next."""

    def __init__(
        self,
        network: httpcore.AsyncNetworkBackend,
        context: ssl.SSLContext,
        limits: httpx.Limits,
        socket_options: Iterable[httpcore.SOCKET_OPTION] = (),
    ) -> None:
        """See `PooledTransport`."""
        super().__init__(
            ssl_context=context,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=network,
            socket_options=socket_options,
        )
        self._most: Final = limits.max_keepalive_connections
        self._active: Final[set[httpcore.AsyncConnectionInterface]] = set()
        self._idle: Final[OrderedDict[httpcore.AsyncConnectionInterface, Target]] = OrderedDict()
        """Those that have been idle longest come first."""
        self._at: Final[dict[Target, dict[httpcore.AsyncConnectionInterface, None]]] = {}
        """The same in the same order, by where they lead."""

    @property
    @override
    def connections(self) -> list[httpcore.AsyncConnectionInterface]:
        """All of them."""
        return [*self._active, *self._idle]

    @override
    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send.

        Raises:
            httpcore's errors.
        """
        if request.url.scheme not in (b"http", b"https"):
            raise httpcore.UnsupportedProtocol(f"{request.url.scheme!r} is not spoken here")
        origin = request.url.origin
        while self._idle and (oldest := next(iter(self._idle))).has_expired():
            self._forget(oldest)
            await oldest.aclose()
        target = origin.scheme, origin.host, origin.port
        connection = await self._usable(target) or self.create_connection(origin)
        self._active.add(connection)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._over(connection, target)
            raise
        assert isinstance(response.stream, Body)
        body = _Whole(response.stream, lambda: self._over(connection, target))
        return httpcore.Response(
            response.status, headers=response.headers, content=body, extensions=response.extensions
        )

    @override
    async def aclose(self) -> None:
        """Close all connections."""
        closing = self.connections
        self._active.clear()
        self._idle.clear()
        self._at.clear()
        for connection in closing:
            await connection.aclose()

    async def _usable(self, target: Target) -> httpcore.AsyncConnectionInterface | None:
        """An idle connection that the other side has not closed, which is idle no more."""
        while waiting := self._at.get(target):
            connection = next(reversed(waiting))
            self._forget(connection)
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    async def _over(self, connection: httpcore.AsyncConnectionInterface, target: Target) -> None:
        """A request is."""
        if connection not in self._active:
            return
        self._active.discard(connection)
        if connection.is_closed():
            return
        if connection.is_idle():
            self._idle[connection] = target
            self._at.setdefault(target, {})[connection] = None
            if self._most is None or len(self._idle) <= self._most:
                return
            connection = next(iter(self._idle))
            self._forget(connection)
        await connection.aclose()

    def _forget(self, connection: httpcore.AsyncConnectionInterface) -> None:
        target = self._idle.pop(connection)
        del self._at[target][connection]
        if not self._at[target]:
            del self._at[target]


class _Whole:
    """A body whose end, or whose reader's, is told."""

    def __init__(self, inner: Body, over: Callable[[], Awaitable[None]]) -> None:
        self._inner: Final = inner
        self._over: Final = over

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._inner)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            await self._over()
