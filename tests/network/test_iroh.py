"""Providers over iroh, on loopback and without anybody's servers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.network.discovery.kit import until
from tests.network.relay_kit import port_of, reaching
from tests.network.test_http import LONG, REQUEST
from tests.network.test_keyed import KEY, asked, book, certificate, https, known
from tests.network.test_relay import first_offer
from tests.running import free_port
from tests.tiny import TinyEngine, tiny_key

from assay.core.errors import AssayError, ProviderFailed
from assay.core.reach import Reach
from assay.core.record import Endpoint
from assay.network import iroh as iroh_module
from assay.network.iroh import IrohDialler, IrohDoor, node_of
from assay.network.links import Link

iroh = pytest.importorskip("iroh")
pytestmark = pytest.mark.anyio


@asynccontextmanager
async def door(port: int) -> AsyncIterator[Endpoint]:
    """A node that leads to a port of this machine; where it is."""
    bind = f"127.0.0.1:{free_port()}"
    told: list[str] = []
    task = asyncio.create_task(IrohDoor(KEY, ("127.0.0.1", port), bind, failed=told.append).run())
    await asyncio.sleep(0.1)
    try:
        yield Endpoint("iroh", f"{node_of(KEY)}@{bind}")
    finally:
        assert told == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def dialled(port: int) -> AsyncIterator[Link]:
    """A link to a port of this machine."""
    dialler = IrohDialler()
    async with door(port) as endpoint:
        link = await dialler.dial(endpoint, Reach.MACHINE)
        try:
            yield link
        finally:
            await link.aclose()
            await dialler.aclose()


@asynccontextmanager
async def listening(serve) -> AsyncIterator[int]:  # noqa: ANN001
    """A server that does `serve` with each connection; its port."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say the same."""
    while part := await reader.read(65_536):
        writer.write(part)
        await writer.drain()
    writer.close()


async def test_an_answer(tmp_path: Path) -> None:
    """With a receipt that holds, by the provider's key alone; the second one on the same connection."""
    mine = certificate(tmp_path, "mine")
    async with https(tmp_path, mine, TinyEngine()) as there, door(port_of(there)) as endpoint:
        async with reaching(endpoint.url, mine.digest) as transport:
            await asked(transport)
            await asked(transport)
            [pool] = transport._client._transport._pinned.values()  # type: ignore[attr-defined]
            assert (pool.active, len(pool.transport._pool.connections)) == (0, 1)


async def test_hanging_up_reaches_the_engine(tmp_path: Path) -> None:
    """Within a second nobody computes any more."""
    engine, mine = TinyEngine(delay=0.02), certificate(tmp_path, "mine")
    async with https(tmp_path, mine, engine) as there, door(port_of(there)) as endpoint:
        async with reaching(endpoint.url, mine.digest) as transport:
            answer = await transport.send(await first_offer(transport), LONG)
            async for _ in answer.steps():
                break
            assert engine.active == 1
            left = time.monotonic()
            await answer.close()
            await until(lambda: engine.active == 0, 1.0)
            assert time.monotonic() - left < 1.0


async def test_somebody_else_at_the_node(tmp_path: Path) -> None:
    """With another certificate than the record's: nothing is sent."""
    mine, his = certificate(tmp_path, "mine"), certificate(tmp_path, "his")
    engine = TinyEngine()
    async with https(tmp_path, his, engine) as there, door(port_of(there)) as endpoint:
        async with reaching(endpoint.url, mine.digest) as transport:
            with pytest.raises(ProviderFailed, match="certificate is not the one"):
                await transport.send(await first_offer(transport), REQUEST)
    assert engine.generated == 0


async def test_a_provider_that_goes(tmp_path: Path) -> None:
    """Breaks the answer; then it cannot be reached."""
    engine, mine = TinyEngine(delay=0.02), certificate(tmp_path, "mine")
    async with https(tmp_path, mine, engine) as there:
        async with AsyncExitStack() as stack:
            endpoint = await stack.enter_async_context(door(port_of(there)))
            async with reaching(endpoint.url, mine.digest) as transport:
                offer = await first_offer(transport)
                answer = await transport.send(offer, LONG)
                async for _ in answer.steps():
                    break
                await stack.aclose()
                with pytest.raises(ProviderFailed):
                    await answer.bundle()
                with pytest.raises(ProviderFailed, match="0x"):
                    await transport.send(offer, REQUEST)


async def test_much_passes_both_ways() -> None:
    """Every byte, in order, and all of it before the end."""
    data = os.urandom(3_000_000)
    async with listening(echo) as port, dialled(port) as link:
        sending = asyncio.create_task(link.send(data))
        back = bytearray()
        while len(back) < len(data):
            back += await link.receive()
        await sending
    assert bytes(back) == data


async def test_many_small_writes_to_who_does_not_read() -> None:
    """The connection lives, and all of it is there when it is read."""
    parts = [b"%0120d" % number for number in range(5000)]

    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, part in enumerate(parts):
            writer.write(part)
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        await writer.drain()
        writer.close()

    async with listening(trickle) as port, dialled(port) as link:
        await link.send(b"x")  # a stream begins with its first byte
        await asyncio.sleep(2)
        assert await everything(link) == b"".join(parts)


async def test_who_does_not_read_holds_back_who_sends() -> None:
    """After some buffers."""
    sent = 0

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with suppress(ConnectionError):
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536

    async with listening(flood) as port, dialled(port) as link:
        await link.send(b"x")
        await asyncio.sleep(1.5)
        before = sent
        await asyncio.sleep(0.5)
        assert 0 < before == sent < 2**25


async def test_slow_strangers_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a connection and no stream loses it; more than MOST are refused."""
    monkeypatch.setattr(iroh_module, "_OPENING_SECONDS", 0.3)
    monkeypatch.setattr(iroh_module, "MOST", 1)
    node = await iroh_module._bind("direct")
    async with listening(echo) as port, door(port) as endpoint:
        name = iroh.EndpointId.from_bytes(bytes.fromhex(node_of(KEY)))
        address = iroh.EndpointAddr(name, None, [endpoint.place])
        silent = await node.connect(address, iroh_module.ALPN)
        with pytest.raises(iroh.IrohError):
            await node.connect(address, iroh_module.ALPN)
        assert "slow" in await asyncio.wait_for(silent.closed(), 3)
        dialler = IrohDialler()
        link = await dialler.dial(endpoint, Reach.MACHINE)
        await link.send(b"hello")
        assert await link.receive() == b"hello"
        await link.aclose()
        await dialler.aclose()
    await node.close()


async def test_places_that_are_not_used() -> None:
    """A stranger's record leads nowhere inside; and nobody's servers are asked unless the settings say so."""
    node = node_of(KEY)
    with pytest.raises(AssayError, match="no endpoint"):
        book(known(f"iroh://{node}@127.0.0.1:1", tls=bytes([1]) * 32), reach=Reach.PUBLIC)
    with pytest.raises(ProviderFailed, match="looked up"):
        await IrohDialler().dial(Endpoint("iroh", node), Reach.MACHINE)


def test_a_node_is_named_by_the_provider_s_key() -> None:
    """The same one each time, another one for another key, and not the key itself."""
    assert node_of(KEY) == node_of(KEY) != node_of(tiny_key(2))
    assert iroh_module._secret(KEY) != KEY.secret


async def everything(link: Link) -> bytes:
    """What comes until the end."""
    return b"".join([part async for part in link])
