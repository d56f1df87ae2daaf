"""Connections that are used again."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from typing import Final

import httpcore
import httpx
import pytest
from typing_extensions import override

from assay.network.pool import Pool, PooledTransport

pytestmark = pytest.mark.anyio
REPLY: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ONE: Final = "http://one.example"
OTHER: Final = "http://other.example"


class Wire(httpcore.AsyncNetworkStream):
    """Replies to each request."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.asked = 0
        self.closed = False
        self.ended = False
        """The other side has closed it."""

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self.host == "mute.example":
            await asyncio.Event().wait()
        return REPLY

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.asked += buffer.startswith(b"GET")

    @override
    async def aclose(self) -> None:
        self.closed = True

    @override
    def get_extra_info(self, info: str) -> object:
        return self.ended if info == "is_readable" else None


class Network(httpcore.AsyncNetworkBackend):
    """Keeps what was opened."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if host == "nowhere.example":
            raise httpcore.ConnectError(host)
        self.wires.append(Wire(host))
        return self.wires[-1]


def clients(*, most: int = 64, expiry: float = 15.0) -> tuple[Network, httpx.AsyncClient]:
    """A network, and a client that keeps `most` idle connections for `expiry` seconds."""
    network, limits = Network(), httpx.Limits(max_keepalive_connections=most, keepalive_expiry=expiry)
    transport = PooledTransport(network, ssl.create_default_context(), limits)
    return network, httpx.AsyncClient(transport=transport)


async def test_the_connection_that_became_idle_last_is_used_next() -> None:
    """So others get old, and are let go; each origin has its own."""
    network, client = clients()
    async with client:
        async with client.stream("GET", ONE) as first:
            async with client.stream("GET", ONE) as second:
                await second.aread()
            await first.aread()
        await client.get(OTHER)
        await client.get(ONE)
    assert [(wire.host, wire.asked) for wire in network.wires] == [
        ("one.example", 2), ("one.example", 1), ("other.example", 1),
    ]  # fmt: skip


async def test_as_many_idle_ones_are_kept_as_is_said() -> None:
    """The one that has been idle longest is closed, whoever it leads to."""
    network, client = clients(most=2)
    async with client:
        for url in (OTHER, ONE, "http://third.example"):
            await client.get(url)
        assert [wire.closed for wire in network.wires] == [True, False, False]
    assert all(wire.closed for wire in network.wires)


async def test_old_ones_are_closed() -> None:
    """At the next request, wherever it goes."""
    network, client = clients(expiry=0.05)
    async with client:
        await client.get(ONE)
        await asyncio.sleep(0.1)
        await client.get(OTHER)
        assert [wire.closed for wire in network.wires] == [True, False]


async def test_what_the_other_side_has_closed_is_not_used() -> None:
    """Another connection is."""
    network, client = clients()
    async with client:
        await client.get(ONE)
        await client.get(OTHER)
        network.wires[1].ended = True
        assert (await client.get(OTHER)).content == b"ok"
        assert [wire.asked for wire in network.wires] == [1, 1, 1]
        assert network.wires[1].closed


@pytest.mark.parametrize("how", ["unread", "cancelled", "refused"])
async def test_a_connection_in_the_middle_of_a_reply_is_closed(how: str) -> None:
    """Nobody reads the rest, who asked was cancelled, or there never was one."""
    network, client = clients()
    async with client:
        if how == "unread":
            async with client.stream("GET", ONE):
                pass
        elif how == "cancelled":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.get("http://mute.example")
            assert network.wires
        else:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://nowhere.example")
        assert all(wire.closed for wire in network.wires)
        pool = client._transport._pool  # type: ignore[attr-defined]
        assert isinstance(pool, Pool)
        assert pool.connections == []


async def test_only_http_is_spoken() -> None:
    """httpx's error."""
    _, client = clients()
    async with client:
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get("ftp://one.example")


async def test_a_request_costs_the_same_beside_many_connections() -> None:
    """httpcore's own pool would take some twenty times as long with these."""
    _, client = clients()

    async def seconds() -> float:
        best = float("inf")
        for _ in range(20):
            began = time.perf_counter()
            await client.get(ONE)
            best = min(best, time.perf_counter() - began)
        return best

    async with client:
        await client.get(ONE)
        few = await seconds()
        many = [client.stream("GET", OTHER) for _ in range(2000)]
        for each in many:
            await each.__aenter__()
        assert await seconds() < 4 * few
        for each in many:
            await each.__aexit__(None, None, None)
