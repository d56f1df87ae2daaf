"""httpx over asyncio's transports: what arrives, what does not, and how it is told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from assay.network.sockets import SocketTransport

pytestmark = pytest.mark.anyio
HEAD = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    """What `serve` does with each connection, and a client."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    running = await asyncio.start_server(connected, "127.0.0.1", 0)
    address = running.sockets[0].getsockname()
    async with running, httpx.AsyncClient(transport=SocketTransport(limits=httpx.Limits())) as client:
        yield f"http://127.0.0.1:{address[1]}", client


async def test_a_large_body_goes_both_ways_whole() -> None:
    """More than all buffers hold, from a client that is read slowly and to one that reads slowly."""
    body = bytes(range(256)) * 4096 * 8

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        got = await reader.readexactly(len(body))
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(got) + got)
        await writer.drain()

    async with server(echo) as (url, client), client.stream("POST", url, content=body) as response:
        await asyncio.sleep(0.2)
        assert await response.aread() == body


async def test_what_nobody_reads_is_not_kept() -> None:
    """The other side cannot write on while nobody reads: memory is bounded."""
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        writer.write(HEAD + b"\r\n")
        while written < 2**28:
            writer.write(bytes(2**20))
            await writer.drain()
            written += 2**20

    async with server(endless) as (url, client), client.stream("GET", url):
        await asyncio.sleep(0.5)
        assert 0 < written < 2**25


async def test_a_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    """A second request is not sent into the void."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"content-length: 2\r\n\r\nok")

    async with server(once) as (url, client):
        for _ in range(3):
            assert (await client.get(url)).content == b"ok"
            await asyncio.sleep(0.05)


async def test_a_connection_is_used_again() -> None:
    """While both sides keep it."""
    connections = 0

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + b"content-length: 2\r\n\r\nok")

    async with server(twice) as (url, client):
        for _ in range(2):
            assert (await client.get(url)).content == b"ok"
    assert connections == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_breaks_is_an_error(reset: bool) -> None:
    """In mid-body, in order or by a reset: httpx's errors, never the system's."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"content-length: 100\r\n\r\nhalf")
        await writer.drain()
        if reset:
            await asyncio.sleep(0.05)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async with server(half) as (url, client):
        with pytest.raises(httpx.ReadError if reset else httpx.RemoteProtocolError):
            await client.get(url)


async def test_nobody_listens() -> None:
    """A refused connection is httpx's ConnectError."""
    async with httpx.AsyncClient(transport=SocketTransport(limits=httpx.Limits())) as client:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{sock.getsockname()[1]}")


async def test_a_reply_that_does_not_come_is_late() -> None:
    """After the read timeout of the request."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(mute) as (url, client):
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url, timeout=0.1)


async def test_httpx_uses_these_sockets() -> None:
    """The pool that is put in place of httpx's own is the one that it asks."""
    transport = SocketTransport(limits=httpx.Limits(max_connections=3))
    backend = transport._pool._network_backend
    assert type(backend).__module__ == "assay.network.sockets"
