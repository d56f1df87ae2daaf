"""Providers behind a relay: the same answers, a relay that sees nothing, and what it and others can break."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from tests.network.discovery.kit import until
from tests.network.relay_kit import behind, berth, port_of, reaching, relay, waiting
from tests.network.test_http import LONG, REQUEST
from tests.network.test_keyed import KEY, asked, book, certificate, https, known
from tests.running import free_port
from tests.tiny import TinyEngine, tiny_key
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from assay.apps import relay as relay_module
from assay.apps.config import Relay as Settings
from assay.core.errors import AssayError, ProviderFailed
from assay.core.reach import Reach
from assay.core.record import url_by_key
from assay.network.http import HttpTransport
from assay.network.relay import berth as berth_module
from assay.network.relay.wire import PROVIDE, claim

pytestmark = pytest.mark.anyio
OTHER = tiny_key(2)


async def first_offer(transport: HttpTransport):  # noqa: ANN201
    """Of the provider that was found."""
    return next(each for each in await transport.offers() if each.level == "pinned")


async def test_an_answer_through_a_relay(tmp_path: Path) -> None:
    """With a receipt that holds, by the provider's key alone; the second one on the same connection."""
    async with relay() as (url, service), behind(tmp_path, service, url, TinyEngine()) as transport:
        await asked(transport)
        await asked(transport)
        [pool] = transport._client._transport._pinned.values()  # type: ignore[attr-defined]
        assert (pool.active, len(pool.transport._pool.connections)) == (0, 1)
        await until(lambda: waiting(service) == berth_module.SPARE)  # the one that is used was replaced
        health = await _get(url, "/health")
        assert health.json() == {"providers": 1, "streams": 1}
        metrics = (await _get(url, "/metrics")).text
        assert "assay_relay_streams 1.0" in metrics
        assert "assay_relay_providers 1.0" in metrics
    assert not service._berths
    assert not service._connections


async def test_more_at_once_than_links_wait(tmp_path: Path) -> None:
    """Each has a stream of its own, and none waits for another."""
    async with relay() as (url, service), behind(tmp_path, service, url, TinyEngine()) as transport:
        asking = (transport._client.get(url_by_key(KEY.address) + "/health") for _ in range(12))
        assert [reply.status_code for reply in await asyncio.gather(*asking)] == [200] * 12
        assert service._berths[KEY.address].streams > berth_module.SPARE


async def test_hanging_up_reaches_the_engine(tmp_path: Path) -> None:
    """Within a second nobody computes any more."""
    engine = TinyEngine(delay=0.02)
    async with relay() as (url, service), behind(tmp_path, service, url, engine) as transport:
        answer = await transport.send(await first_offer(transport), LONG)
        async for _ in answer.steps():
            break
        assert engine.active == 1
        left = time.monotonic()
        await transport.aclose()
        await until(lambda: engine.active == 0, 1.0)
        assert time.monotonic() - left < 1.0
        await until(lambda: all(berth.streams == 0 for berth in service._berths.values()))


async def test_a_relay_that_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sees no word of the prompt or the answer, nor what is asked for."""
    seen: list[bytes] = []
    honest = relay_module.receive

    async def reading(connection) -> bytes:  # noqa: ANN001
        seen.append(await honest(connection))
        return seen[-1]

    monkeypatch.setattr(relay_module, "receive", reading)
    async with relay() as (url, service), behind(tmp_path, service, url, TinyEngine()) as transport:
        await asked(transport)
    passed = b"".join(seen)
    assert len(passed) > 4000
    for word in (REQUEST.messages[0].content.encode(), b"HTTP/1.1", b"/assay/v1/answers", b"messages", b"data:"):
        assert word
        assert word not in passed


def flipped(part: bytes) -> list[bytes]:
    """One bit is another one."""
    return [part[:-9] + bytes([part[-9] ^ 1]) + part[-8:]]


@pytest.mark.parametrize("change", ["flips", "drops", "repeats", "reorders", "adds"])
async def test_a_relay_that_changes_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """What comes until then is what the provider said, and then the answer breaks; nothing false is ever shown."""
    honest, held = relay_module.receive, list[bytes]()
    passed = 0
    engine = TinyEngine(delay=0.005)

    async def changing(connection) -> bytes:  # noqa: ANN001
        nonlocal passed
        if held:
            return held.pop()
        part = await honest(connection)
        passed += 1
        if passed != 14:  # in the midst of the answer
            return part
        match change:
            case "flips":
                return flipped(part)[0]
            case "drops":
                return await honest(connection)
            case "repeats":
                held.append(part)
                return part
            case "reorders":
                held.append(part)
                return await honest(connection)
            case _:
                return part + b"\x17\x03\x03\x00\x01x"

    async with relay() as (url, service), behind(tmp_path, service, url, engine) as transport:
        offer = await first_offer(transport)
        true = [step.token async for step in (await transport.send(offer, REQUEST)).steps()]
        await transport.aclose()
    monkeypatch.setattr(relay_module, "receive", changing)
    (tmp_path / "again").mkdir()
    async with relay() as (url, service), behind(tmp_path / "again", service, url, engine) as transport:
        steps: list[int] = []
        with pytest.raises(AssayError):
            answer = await transport.send(await first_offer(transport), REQUEST)
            async for step in answer.steps():
                steps += [step.token]
            await answer.bundle()
        assert passed >= 14
        assert steps == true[: len(steps)]


async def test_a_relay_that_leads_elsewhere(tmp_path: Path) -> None:
    """To somebody with another certificate: no byte of a request is sent there."""
    mine, his = certificate(tmp_path, "mine"), certificate(tmp_path, "his")
    engine = TinyEngine()
    async with relay() as (url, service), https(tmp_path, his, engine) as there, berth(url, there):
        await until(lambda: waiting(service))
        async with reaching(url, mine.digest) as transport:
            with pytest.raises(ProviderFailed, match="certificate is not the one"):
                await transport.send(await first_offer(transport), REQUEST)
    assert engine.generated == 0


async def test_without_a_certificate_nothing_goes_through_others(tmp_path: Path) -> None:
    """A record that names a relay and no certificate is of no use."""
    with pytest.raises(AssayError, match="no endpoint"):
        book(known("ws://127.0.0.1:1"))


async def test_a_relay_does_not_lead_inside() -> None:
    """A stranger's record cannot name a relay in this machine or its neighbourhood."""
    with pytest.raises(AssayError, match="no endpoint"):
        book(known("ws://127.0.0.1:1", tls=bytes([1]) * 32), reach=Reach.PUBLIC)


async def test_a_relay_sends_nobody_elsewhere() -> None:
    """Its redirects are not followed."""
    asked_for: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.append(await reader.readuntil(b"\r\n"))
        port = writer.get_extra_info("sockname")[1]
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: ws://127.0.0.1:%d/inside\r\n\r\n" % port)
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with reaching(url, bytes([1]) * 32) as transport:
            with pytest.raises(ProviderFailed, match="does not connect"):
                await transport.send(await first_offer(transport), REQUEST)
    assert asked_for == [f"GET /{KEY.address} HTTP/1.1\r\n".encode()]


async def test_only_the_key_takes_its_place(tmp_path: Path) -> None:
    """Another key's signature, or the right one's for another relay, opens no place."""
    reasons: list[str] = []
    async with relay() as (url, service):
        for sign in (
            lambda nonce: OTHER.sign(claim(nonce, url.removeprefix("ws://"))),
            lambda nonce: KEY.sign(claim(nonce, "another.example")),
            lambda _nonce: bytes(65),
        ):
            async with connect(f"{url}{PROVIDE}{KEY.address}", proxy=None) as socket:
                await socket.send(sign(await socket.recv()))
                with pytest.raises(ConnectionClosed) as caught:
                    await socket.recv()
                assert caught.value.rcvd is not None
                reasons.append(caught.value.rcvd.reason)
        assert not service._berths
        assert service._metrics.refused.labels("signature")._value.get() == 3
    assert all("signature is not by" in reason for reason in reasons)


async def test_a_provider_that_goes(tmp_path: Path) -> None:
    """In the midst of an answer that breaks it; afterwards the relay says that nobody is there."""
    engine = TinyEngine(delay=0.02)
    mine = certificate(tmp_path, "mine")
    async with relay() as (url, service), https(tmp_path, mine, engine) as there:
        async with reaching(url, mine.digest) as transport:
            async with berth(url, there):
                await until(lambda: waiting(service))
                answer = await transport.send(await first_offer(transport), LONG)
                async for _ in answer.steps():
                    break
            with pytest.raises(ProviderFailed):
                await answer.bundle()
            await until(lambda: not service._berths)
            with pytest.raises(ProviderFailed, match="404"):
                await transport.send(await first_offer(transport), REQUEST)
            with pytest.raises(InvalidStatus):
                await connect(f"{url}/{KEY.address}", proxy=None)


async def test_a_relay_that_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is found again by who waited there; what failed is told once."""
    monkeypatch.setattr(berth_module, "RETRY_SECONDS", 0.05)
    mine, port, told = certificate(tmp_path, "mine"), free_port(), list[str]()
    url = f"ws://127.0.0.1:{port}"
    async with https(tmp_path, mine, TinyEngine()) as there, berth(url, there, failed=told.append):
        await until(lambda: told)
        for _ in range(2):
            async with relay(port=port) as (_, service):
                await until(lambda: waiting(service) == berth_module.SPARE)
                async with reaching(url, mine.digest) as transport:
                    await asked(transport)
        assert "cannot be reached" in told[0]
        assert len(told) <= 3


async def test_slow_strangers_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a connection, a handshake or a stream and then says nothing loses it."""
    monkeypatch.setattr(relay_module, "OPENING_SECONDS", 0.2)
    async with relay() as (url, service):
        for said in (b"", b"GET / HTTP/1.1\r\nhost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 3) == b""
            writer.close()
        async with connect(f"{url}{PROVIDE}{KEY.address}", proxy=None) as socket:
            await socket.recv()
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 3)
        await until(lambda: not service._connections)
        assert service._metrics.refused.labels("slow")._value.get() == 1


async def test_a_consumer_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has taken no link of its provider's, and holds its own connection for a while only."""
    monkeypatch.setattr(relay_module, "OPENING_SECONDS", 1.0)
    async with relay() as (url, service):
        provider = await moored(url)
        async with connect(f"{url}/{KEY.address}", proxy=None) as socket:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)
        assert service._metrics.refused.labels("slow")._value.get() == 1
        assert waiting(service) == 1
        await provider.close()


async def test_streams_that_nothing_passes_through(tmp_path: Path) -> None:
    """End after a while; so does one on which a consumer says nothing, before it has taken a link."""
    mine = certificate(tmp_path, "mine")
    async with relay(Settings(idle_seconds=1)) as (url, service), https(tmp_path, mine, TinyEngine()) as there:
        async with berth(url, there):
            await until(lambda: waiting(service) == berth_module.SPARE)
            async with connect(f"{url}/{KEY.address}", proxy=None) as socket:
                await asyncio.sleep(0.1)
                assert waiting(service) == berth_module.SPARE
                await socket.send(b"\x16")
                await until(lambda: service._berths[KEY.address].streams == 1)
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(socket.recv(), 5)
            await until(lambda: service._berths[KEY.address].streams == 0)


async def test_numbers_are_bounded(tmp_path: Path) -> None:
    """Of providers, of their streams, of links that wait, and of connections from one address."""
    settings = Settings(max_providers=1, max_streams=1, max_connections_per_address=40)
    async with relay(settings) as (url, service):
        kept = [await moored(url) for _ in range(relay_module.MOST_WAITING)]
        too_many = await moored(url)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(too_many.recv(), 3)
        with pytest.raises(InvalidStatus, match="503"):
            await connect(f"{url}{PROVIDE}{OTHER.address}", proxy=None)
        consumer = await connect(f"{url}/{KEY.address}", proxy=None)
        await consumer.send(b"\x16")
        await until(lambda: service._berths[KEY.address].streams == 1)
        with pytest.raises(InvalidStatus, match="503"):
            await connect(f"{url}/{KEY.address}", proxy=None)
        writers = [(await asyncio.open_connection("127.0.0.1", port_of(url)))[1] for _ in range(60)]
        await until(lambda: service._connections.total() == 40)
        assert service._metrics.refused.labels("connections")._value.get() > 0
        for each in writers:
            each.close()
        await asyncio.gather(*(each.wait_closed() for each in writers), return_exceptions=True)
        for each in (*kept, consumer):
            each.transport.abort()


async def test_a_consumer_that_reads_nothing(tmp_path: Path) -> None:
    """Holds back its provider, and no more than some messages wait at the relay."""
    async with relay(Settings(idle_seconds=2)) as (url, service):
        provider = await moored(url)
        await until(lambda: waiting(service) == 1)
        consumer = await connect(f"{url}/{KEY.address}", proxy=None, max_queue=1)
        await consumer.send(b"\x16")
        assert await provider.recv() == b"\x16"
        sent = 0
        with pytest.raises((TimeoutError, ConnectionClosed)):
            while sent < 2**28:
                async with asyncio.timeout(1):
                    await provider.send(bytes(65_536))
                sent += 65_536
        assert sent < 2**25  # the most of it in the kernel's buffers
        consumer.transport.abort()
        provider.transport.abort()


@pytest.mark.parametrize("path", ["/", "/0xzz", "/provide/me", "/provide/", "/../etc"])
async def test_other_paths(path: str) -> None:
    """Lead nowhere."""
    async with relay() as (url, _):
        assert (await _get(url, path)).status_code == 404


async def moored(url: str):  # noqa: ANN201
    """A link of a provider that waits and never does anything."""
    socket = await connect(f"{url}{PROVIDE}{KEY.address}", proxy=None)
    await socket.send(KEY.sign(claim(await socket.recv(), url.removeprefix("ws://"))))
    return socket


async def _get(url: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url.replace("ws://", "http://") + path)
