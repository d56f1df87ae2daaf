"""HTTP to providers by their keys: `assay://0x…` is wherever that provider's newest record says, at each request.

A record comes from a stranger. So a name in it is resolved here, and what it stands for must be no nearer than who told
the record; and where the record names a certificate, every connection shows exactly that one before anything is sent.
So it does not matter through whose hands a connection goes, and some go through a relay's.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import httpx
from typing_extensions import override

from assay.core.errors import ProviderFailed
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Address
from assay.core.reach import Reach
from assay.core.record import BY_KEY, Endpoint
from assay.network.iroh import IrohDialler, Servers
from assay.network.links import Dial, LinkedTransport
from assay.network.pool import PooledTransport
from assay.network.relay.dial import dial_relay
from assay.network.resolve import resolve
from assay.network.sockets import SocketTransport

MOST_PINNED: Final = 256
"""Pinned providers whose connections are kept; idle ones are let go first."""
MOST_SHUT: Final = 4096
"""Places that are remembered as shut."""
SHUT_SECONDS: Final = 60.0
"""For so long a place where nobody took a connection is tried after the others."""
DEAD_SECONDS: Final = 5
"""Until a connection is given up whose other machine acknowledges nothing, or has no room for more of a request: its
cable is cut, or it moved away. The system of a machine that is there acknowledges, however slow its programs are."""
_SCHEME: Final = BY_KEY.partition(":")[0]
_TIMES: Final = {"TCP_USER_TIMEOUT": DEAD_SECONDS * 1000, "TCP_KEEPIDLE": DEAD_SECONDS, "TCP_KEEPINTVL": 1}
_SOCKET: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in _TIMES.items() if hasattr(socket, name)),
]
"""As far as the system can: the first of the times is Linux's own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a provider answers."""

    endpoint: Endpoint
    tls: Digest
    """See `ProviderRecord`."""
    reach: Reach
    """How near the source of the record was."""


Find: TypeAlias = Callable[[Address], Sequence[Place]]
"""Where a provider answers now, the favourite first; nowhere: no record of it is alive."""


class KeyedTransport(httpx.AsyncBaseTransport):
    """Sends requests for `assay://0x…` to the provider's place, and all others as they are."""

    def __init__(self, find: Find, *, limits: httpx.Limits, iroh: Servers = "direct") -> None:
        self._iroh: Final = IrohDialler(iroh)
        self._find: Final = find
        self._limits: Final = limits
        self._plain: Final = SocketTransport(limits=limits, socket_options=_SOCKET)
        self._pinned: Final[OrderedDict[tuple[Digest, str], _Pool]] = OrderedDict()
        self._shut: Final[OrderedDict[tuple[Address, Endpoint], float]] = OrderedDict()
        """Where nobody took a connection, and when that was."""

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send; a provider that takes no connection at one of its places is asked at the next one.

        Raises:
            ProviderFailed: no record of the provider is alive, or its name leads where it must not.
            httpx.TransportError: as any transport; also where another certificate is shown.
        """
        if request.url.scheme != _SCHEME:
            return await self._plain.handle_async_request(request)
        provider, began = request.url.host, time.monotonic()
        places = self._find(provider)
        if not places:
            raise ProviderFailed(f"no record of {provider} is known now", "wait until it is found again")
        asked = request.url, request.headers.copy(), request.extensions
        failure: Exception | None = None
        for place in sorted(places, key=lambda place: self._shut_lately(provider, place, began)):
            request.url, request.headers, request.extensions = asked[0], asked[1].copy(), asked[2]
            try:
                return await self._send(request, provider, place)
            except (httpx.ConnectError, httpx.ConnectTimeout, ProviderFailed) as error:
                failure = failure or error
                self._shut[provider, place.endpoint] = time.monotonic()
                if len(self._shut) > MOST_SHUT:
                    self._shut.popitem(last=False)
        assert failure is not None
        raise failure

    def _shut_lately(self, provider: Address, place: Place, now: float) -> bool:
        return now - self._shut.get((provider, place.endpoint), float("-inf")) < SHUT_SECONDS

    async def _send(self, request: httpx.Request, provider: Address, place: Place) -> httpx.Response:
        """By one way; what is not connected has not been sent."""
        if place.endpoint.kind in ("relay", "iroh"):
            request.url = request.url.copy_with(scheme="https")
            way = f"{place.endpoint.url} {provider} {place.reach}"
            return await (await self._pinned_to(place, way, self._dialling(place, provider))).send(request)
        await _redirect(request, place)
        if place.endpoint.kind != "https" or place.tls == ZERO:
            return await self._plain.handle_async_request(request)
        return await (await self._pinned_to(place)).send(request)

    @override
    async def aclose(self) -> None:
        """Close all connections."""
        await self._plain.aclose()
        for pool in self._pinned.values():
            await pool.transport.aclose()
        await self._iroh.aclose()

    def _dialling(self, place: Place, provider: Address) -> Dial:
        if place.endpoint.kind == "relay":
            return partial(dial_relay, place.endpoint, provider, place.reach)
        return partial(self._iroh.dial, place.endpoint, place.reach)

    async def _pinned_to(self, place: Place, way: str = "", dial: Dial | None = None) -> _Pool:
        """Connections on which the place's certificate was shown, and no others. `way`: names what `dial` connects to;
        without it they are direct."""
        name = (place.tls, way)
        pool = self._pinned.get(name)
        if pool is None:
            context = pinned_context(place.tls)
            if dial is None:
                transport = SocketTransport(verify=context, limits=self._limits, socket_options=_SOCKET)
            else:
                transport = LinkedTransport(dial, context, self._limits)
            pool = self._pinned[name] = _Pool(transport)
        self._pinned.move_to_end(name)
        idle = [each for each, other in self._pinned.items() if not other.active and other is not pool]
        for each in idle[: max(len(self._pinned) - MOST_PINNED, 0)]:
            await self._pinned.pop(each).transport.aclose()
        return pool


class _Pool:
    """Connections to one pinned provider, and how many replies are being read on them."""

    def __init__(self, transport: PooledTransport) -> None:
        self.transport: Final = transport
        self.active = 0

    async def send(self, request: httpx.Request) -> httpx.Response:
        self.active += 1
        try:
            response = await self.transport.handle_async_request(request)
        except BaseException:
            self.active -= 1
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Counted(response.stream, self)
        return response


class _Counted(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, pool: _Pool) -> None:
        self._inner: Final = inner
        self._pool: _Pool | None = pool

    @override
    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._inner)

    @override
    async def aclose(self) -> None:
        if self._pool is not None:
            self._pool.active -= 1
            self._pool = None
        await self._inner.aclose()


def pinned_context(tls: Digest) -> ssl.SSLContext:
    """A context whose handshakes fail unless the other side shows, and has the key of, the certificate with this
    SHA-256 (of its DER). Names and dates do not matter: the record vouches for it, and lives a day at most."""

    class Pinned(ssl.SSLObject):
        @override
        def do_handshake(self) -> None:
            super().do_handshake()
            if hashlib.sha256(self.getpeercert(binary_form=True) or b"").digest() != tls:
                raise ssl.SSLCertVerificationError("the certificate is not the one that the provider's record names")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = Pinned
    return context


async def _redirect(request: httpx.Request, place: Place) -> None:
    """Put the place's address into a request."""
    host, port = place.endpoint.host, place.endpoint.port
    request.url = request.url.copy_with(
        scheme=place.endpoint.kind, host=await resolve(host, port, place.reach), port=port
    )
    request.headers["host"] = place.endpoint.address
    request.extensions = {**request.extensions, "sni_hostname": host}
