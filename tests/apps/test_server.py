"""Listening, announcing and ending."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from tests.running import running

from assay.apps import server
from assay.apps.server import announce, bind, url_of
from assay.core.errors import ConfigError, MachineError


def test_a_free_port_is_found_and_named() -> None:
    """Port 0 listens somewhere; its address can be connected to."""
    with bind("127.0.0.1", 0) as sock:
        host, port = url_of(sock).removeprefix("http://").split(":")
        socket.create_connection((host, int(port))).close()


def test_a_port_in_use_is_named_with_another_to_try() -> None:
    """The message has the port, and how to choose another."""
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(MachineError, match=rf"port {port} on 127.0.0.1 is in use: .*--port"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "192.0.2.1", "\x00"])
def test_a_host_that_is_not_here_is_refused(host: str) -> None:
    """An address of another machine, or none at all."""
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1"):
        bind(host, 0)


def test_ipv6_addresses_are_bracketed() -> None:
    """As URLs want it."""
    try:
        sock = bind("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    with sock:
        assert url_of(sock).startswith("http://[::1]:")


def test_every_address_is_announced_as_loopback() -> None:
    """0.0.0.0 is not an address that one can connect to."""
    with bind("0.0.0.0", 0) as sock:
        assert url_of(sock).startswith("http://127.0.0.1:")


def test_the_announcement_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON for programs, a sentence for people."""
    announce("provider", "http://127.0.0.1:1", as_json=True, address="0x1")
    assert json.loads(capsys.readouterr().out) == {"program": "provider", "url": "http://127.0.0.1:1", "address": "0x1"}
    announce("provider", "http://127.0.0.1:1", as_json=False)
    assert capsys.readouterr().out == "provider answers at http://127.0.0.1:1\n"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "head", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT"], ids=["no", "first", "later"]
)
async def test_who_dribbles_holds_no_connection(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """A connection is closed whose next request's head is not whole in time, though bytes keep coming; an answer that
    takes longer than that is not cut."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)

    async def slow(_request: object) -> Response:
        await asyncio.sleep(1)
        return Response("whole")

    async with running(Starlette(routes=[Route("/", slow)])) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(head)
        whole = head.count(b"\r\n\r\n")
        if whole:
            assert await asyncio.wait_for(reader.readuntil(b"whole"), 10)
        began = time.monotonic()

        async def dribble() -> None:
            while head:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert time.monotonic() - began > 0.2
        dribbling.cancel()
        writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_server_takes_more_connections_than_systems_give_unasked() -> None:
    """The limit of open files is raised, as far as the system lets it."""
    code = """
import resource
from assay.apps.server import allow_connections
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
allow_connections()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
allow_connections()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert int(told[0]) == min(int(told[1]) if told[1] != "-1" else 16_384, 16_384)
    assert told[2:] == ["300", "300"]


@pytest.mark.anyio
@pytest.mark.parametrize("dribbles", [True, False])
async def test_who_never_ends_a_body_holds_no_connection(monkeypatch: pytest.MonkeyPatch, dribbles: bool) -> None:
    """An answer that does not need the body comes at once, and is there to be read; then the connection is closed,
    though the body goes on or its end is still to come. Who ends it in time may ask again."""
    monkeypatch.setattr(server, "REST_SECONDS", 0.5)

    async def ready(_request: object) -> Response:
        return Response("whole")

    post = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n"
    async with running(Starlette(routes=[Route("/", ready, methods=["POST"])])) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        for _ in range(2):
            writer.write(post + bytes(1))
            assert await asyncio.wait_for(reader.readuntil(b"whole"), 10)
            writer.write(bytes(999))
        await asyncio.sleep(0.8)
        writer.write(post + bytes(1))
        assert await asyncio.wait_for(reader.readuntil(b"whole"), 10)
        began = time.monotonic()

        async def dribble() -> None:
            while dribbles:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert 0.2 < time.monotonic() - began < 5
        dribbling.cancel()
        writer.close()
