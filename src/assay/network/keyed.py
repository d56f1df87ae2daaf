"""HTTP to providers by their keys: `assay://0x…` is wherever that provider's newest record says, at each request.

A record comes from a stranger. So a name in it is resolved here, and what it stands for must be no nearer than who told
the record; and where the record names a certificate, every connection shows exactly that one before anything is sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import httpx
from typing_extensions import override

from assay.core.errors import ProviderFailed
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Address
from assay.core.reach import Reach, reach_of
from assay.core.record import BY_KEY, Endpoint

MOST_PINNED: Final = 256
"""Pinned providers whose connections are kept; idle ones are let go first."""
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


Find: TypeAlias = Callable[[Address], Place | None]
"""Where a provider answers now; None: no record of it is alive."""


class KeyedTransport(httpx.AsyncBaseTransport):
    """Sends requests for `assay://0x…` to the provider's place, and all others as they are."""

    def __init__(self, find: Find, *, limits: httpx.Limits) -> None:
        self._find: Final = find
        self._limits: Final = limits
        self._plain: Final = httpx.AsyncHTTPTransport(limits=limits, trust_env=False, socket_options=_SOCKET)
        self._pinned: Final[OrderedDict[Digest, _Pool]] = OrderedDict()

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send.

        Raises:
            ProviderFailed: no record of the provider is alive, or its name leads where it must not.
            httpx.TransportError: as any transport; also where another certificate is shown.
        """
        if request.url.scheme != _SCHEME:
            return await self._plain.handle_async_request(request)
        place = self._find(request.url.host)
        if place is None:
            raise ProviderFailed(f"no record of {request.url.host} is known now", "wait until it is found again")
        await _redirect(request, place)
        if place.endpoint.kind != "https" or place.tls == ZERO:
            return await self._plain.handle_async_request(request)
        return await (await self._pinned_to(place.tls)).send(request)

    @override
    async def aclose(self) -> None:
        """Close all connections."""
        await self._plain.aclose()
        for pool in self._pinned.values():
            await pool.transport.aclose()

    async def _pinned_to(self, tls: Digest) -> _Pool:
        """Connections on which this certificate was shown, and no others."""
        pool = self._pinned.get(tls)
        if pool is None:
            context = pinned_context(tls)
            pool = self._pinned[tls] = _Pool(
                httpx.AsyncHTTPTransport(verify=context, limits=self._limits, socket_options=_SOCKET)
            )
        self._pinned.move_to_end(tls)
        idle = [each for each, other in self._pinned.items() if not other.active and other is not pool]
        for each in idle[: max(len(self._pinned) - MOST_PINNED, 0)]:
            await self._pinned.pop(each).transport.aclose()
        return pool


class _Pool:
    """Connections to one pinned provider, and how many replies are being read on them."""

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
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
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            yield part

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
    host, port = place.endpoint.host, place.endpoint.address.rpartition(":")[2]
    request.url = request.url.copy_with(
        scheme=place.endpoint.kind, host=await _resolve(host, int(port), place.reach), port=int(port)
    )
    request.headers["host"] = place.endpoint.address
    request.extensions = {**request.extensions, "sni_hostname": host}


async def _resolve(host: str, port: int, reach: Reach) -> str:
    """An address of a host that is no nearer than `reach`: a name can stand for any machine, as its owner likes."""
    if reach_of(host) <= reach and _is_number(host):
        return host
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"{host} is not known ({error})") from error
    for _, _, _, _, (address, *_) in found:
        if isinstance(address, str) and reach_of(address) <= reach:
            return address
    raise ProviderFailed(f"{host} leads into a network that its record's source cannot know", "ask another provider")


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
