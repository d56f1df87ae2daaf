"""Providers by their keys: wherever their record says, by the certificate that it names, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.network.discovery.kit import LEVELS, endpoint, record
from tests.network.test_http import QUICK, REQUEST
from tests.running import free_port, provider, running
from tests.tiny import TinyEngine, tiny_key

from assay.apps.certificate import Certificate, certificate_of
from assay.apps.provider import provider_app
from assay.apps.publishing import Publisher, Station
from assay.apps.server import Server, bind, url_of
from assay.apps.serving import LocalAnswers
from assay.core.errors import ConfigError, PriceChanged, ProviderFailed
from assay.core.offer import Price
from assay.core.reach import Reach
from assay.core.record import ProviderRecord, url_by_key
from assay.market.sale import Sale
from assay.network import keyed
from assay.network.discovery.book import RecordBook
from assay.network.http import HttpTransport
from assay.network.keyed import SHUT_SECONDS
from assay.store.receipts import ReceiptStore
from assay.verify.binding import check_offline

pytestmark = pytest.mark.anyio
KEY, OTHER = tiny_key(1), tiny_key(2)


def book(*items: ProviderRecord, reach: Reach = Reach.MACHINE) -> RecordBook:
    """One with these records."""
    here = RecordBook(salt=b"s")
    for item in items:
        here.put(item, time.time(), "x", reach)
    return here


def known(url: str, *, sequence: int = 1, tls: bytes = bytes(32), key=KEY) -> ProviderRecord:  # noqa: ANN001
    """A record of a provider at `url` that lives now."""
    return record(key, issued=int(time.time()), sequence=sequence, endpoints=(url,), tls=tls)


@asynccontextmanager
async def reaching(here: RecordBook, *urls: str) -> AsyncIterator[HttpTransport]:
    """A transport over a book and some addresses."""
    transport = HttpTransport(urls, patience=QUICK, book=here)
    try:
        yield transport
    finally:
        await transport.aclose()


@asynccontextmanager
async def https(root: Path, certificate: Certificate, engine: TinyEngine) -> AsyncIterator[str]:
    """A provider that serves HTTPS with a certificate; gives its address."""
    store = ReceiptStore(f"sqlite:///{root / 'tls.db'}")
    answers = LocalAnswers([engine], KEY, store, prices=dict.fromkeys(LEVELS, Price(1, 2)))
    app = provider_app(answers, store, KEY.address)
    async with running(app, drain=answers.drain, certificate=certificate.path) as url:
        yield url


def certificate(root: Path, name: str) -> Certificate:
    """A new one."""
    return certificate_of(KEY.address, root / f"{name}.pem", now=time.time())


async def asked(transport: HttpTransport) -> None:
    """An answer of the first provider that was found, with a receipt that holds."""
    assert {offer.url for offer in await transport.offers()} == {url_by_key(KEY.address)}
    await asked_of(transport)


async def test_a_provider_that_was_found_answers(tmp_path: Path) -> None:
    """By its key alone; and when it moves, at its new place."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here = book()
    async with reaching(here) as transport:
        for sequence, folder in enumerate(("a", "b")):
            async with provider(tmp_path / folder, TinyEngine(), KEY) as there:
                here.put(known(there.url, sequence=sequence), time.time(), "x")
                await asked(transport)


async def test_a_provider_by_address_and_by_record_is_one(tmp_path: Path) -> None:
    """Whoever was named by its address is asked there, with the offers that it gives there."""
    async with provider(tmp_path, TinyEngine(), KEY, price=3) as there:
        here = book(known(there.url), known("http://127.0.0.1:1", key=OTHER))
        async with reaching(here, there.url) as transport:
            urls = {offer.url for offer in await transport.offers()}
            assert urls == {there.url, url_by_key(OTHER.address)}


async def test_the_same_list_is_given_while_nothing_changes() -> None:
    """So that whoever chooses among many can keep an index of it."""
    here = book(known("http://127.0.0.1:1"))
    async with reaching(here) as transport:
        assert await transport.offers() is await transport.offers()


async def test_nobody_found() -> None:
    """Without a record the provider cannot be reached, and with none at all the error says what to do."""
    here = book(known("http://127.0.0.1:1"))
    async with reaching(here) as transport:
        [offer, *_] = await transport.offers()
        here.gone(KEY.address)
        with pytest.raises(ProviderFailed, match="no record of 0x"):
            await transport.send(offer, REQUEST)
        transport._listing._begun = transport._listing._found_at = float("-inf")  # a while later
        with pytest.raises(ProviderFailed, match="assay serve"):
            await transport.offers()


async def test_the_certificate_of_the_record_is_shown(tmp_path: Path) -> None:
    """HTTPS without any authority: the record vouches for it. A second answer uses the connection again."""
    mine = certificate(tmp_path, "mine")
    async with https(tmp_path, mine, TinyEngine()) as url:
        assert url.startswith("https://")
        async with reaching(book(known(url, tls=mine.digest))) as transport:
            await asked(transport)
            await asked(transport)
            [pool] = transport._client._transport._pinned.values()  # type: ignore[attr-defined]
            assert (pool.active, len(pool.transport._pool.connections)) == (0, 1)


async def test_a_man_in_the_middle_hears_nothing(tmp_path: Path) -> None:
    """With another certificate, whoever signed it, it gets not one byte of a request."""
    mine, his = certificate(tmp_path, "mine"), certificate(tmp_path, "his")
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(his.path)
    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with reaching(book(known(url, tls=mine.digest))) as transport:
            [offer, *_] = await transport.offers()
            with pytest.raises(ProviderFailed, match="certificate is not the one"):
                await transport.send(offer, REQUEST)
            with pytest.raises(ProviderFailed):
                await transport.bundle(offer.url, REQUEST.name)
        await asyncio.sleep(0.1)
        assert heard in ([], [b""], [b"", b""])
        async with reaching(
            book(known(url))
        ) as transport:  # without a certificate in the record: the web's authorities
            [offer, *_] = await transport.offers()
            with pytest.raises(ProviderFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await transport.send(offer, REQUEST)
        assert set(heard) <= {b""}


async def test_connections_of_one_certificate_serve_no_other(tmp_path: Path) -> None:
    """Two records that name one address and two certificates: whose does not fit is not answered there."""
    mine = certificate(tmp_path, "mine")
    async with https(tmp_path, mine, TinyEngine()) as url:
        here = book(known(url, tls=mine.digest), known(url, tls=bytes([1]) * 32, key=OTHER))
        async with reaching(here) as transport:
            offers = {offer.provider: offer for offer in await transport.offers() if offer.level == "pinned"}
            answer = await transport.send(offers[KEY.address], REQUEST)
            await answer.close()
            with pytest.raises(ProviderFailed, match="certificate is not the one"):
                await transport.send(offers[OTHER.address], REQUEST)


async def test_idle_connections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many pinned providers only some are kept; none on which a reply is being read."""
    monkeypatch.setattr(keyed, "MOST_PINNED", 2)
    mine = certificate(tmp_path, "mine")
    async with https(tmp_path, mine, TinyEngine(delay=0.05)) as url:
        others = [known(url, tls=bytes([n]) * 32, key=tiny_key(n)) for n in range(2, 8)]
        here = book(known(url, tls=mine.digest), *others)
        async with reaching(here) as transport:
            offers = {offer.provider: offer for offer in await transport.offers() if offer.level == "pinned"}
            answer = await transport.send(offers.pop(KEY.address), REQUEST)
            for offer in offers.values():
                with pytest.raises(ProviderFailed):
                    await transport.send(offer, REQUEST)
            assert len(transport._client._transport._pinned) <= 3  # type: ignore[attr-defined]
            assert len([step async for step in answer.steps()]) > 0
            await answer.bundle()


async def test_a_name_does_not_lead_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in a stranger's record may stand for an address of this machine: nothing is sent there."""

    async def resolved(*_args: object, **_more: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
    here = book(known("http://evil.example:80"), reach=Reach.PUBLIC)
    async with reaching(here) as transport:
        [offer, *_] = await transport.offers()
        with pytest.raises(ProviderFailed, match="leads into a network"):
            await transport.send(offer, REQUEST)


async def test_names_are_sent_along(tmp_path: Path) -> None:
    """The host of the record is what the server is asked for, also where it was resolved here."""
    seen: list[str] = []

    async def app(scope, _receive, send) -> None:  # noqa: ANN001
        if scope["type"] == "http":
            seen.append(dict(scope["headers"])[b"host"].decode())
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

    async with running(app) as url:
        port = url.rpartition(":")[2]
        here = book(known(f"http://localhost:{port}"))
        async with reaching(here) as transport:
            with pytest.raises(ProviderFailed):
                await transport.bundle(url_by_key(KEY.address), REQUEST.name)
    assert seen == [f"localhost:{port}"]


def test_certificates_are_kept_and_private(tmp_path: Path) -> None:
    """Made once; refused when others may read it, or when it is something else."""
    made = certificate(tmp_path, "x")
    assert certificate(tmp_path, "x") == made
    assert certificate(tmp_path, "y").digest != made.digest
    made.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        certificate(tmp_path, "x")
    made.path.chmod(0o600)
    made.path.write_text("hello")
    with pytest.raises(ConfigError, match="not a certificate"):
        certificate(tmp_path, "x")


async def test_other_schemes_are_no_way_in() -> None:
    """What is not by key goes to the address as it stands."""
    transport = keyed.KeyedTransport(lambda _provider: None, limits=httpx.Limits())
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(ProviderFailed):
            await client.get(f"assay://{KEY.address}/x")
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get("ftp://127.0.0.1/x")


async def test_the_next_place_is_asked(tmp_path: Path) -> None:
    """Within the request, and first by the next one; what fails everywhere says why."""
    async with provider(tmp_path, TinyEngine(), KEY) as there:
        dead = f"http://127.0.0.1:{free_port()}"
        here = book(record(KEY, issued=int(time.time()), endpoints=(dead, there.url)))
        async with reaching(here) as transport:
            await asked(transport)
            keyed: Any = transport._client._transport
            assert [endpoint.url for _, endpoint in keyed._shut] == [dead]
            places = transport._listing.places(KEY.address)
            began = time.monotonic()
            assert [keyed._shut_lately(KEY.address, each, began) for each in places] == [True, False]
            assert not keyed._shut_lately(KEY.address, places[0], began + SHUT_SECONDS)
            await asked(transport)
    async with reaching(here) as transport:
        [offer, *_] = await transport.offers()
        with pytest.raises(ProviderFailed, match="no connection"):
            await transport.send(offer, REQUEST)


@pytest.mark.parametrize("named", [True, False])
async def test_a_price_that_changes(tmp_path: Path, named: bool) -> None:
    """Who reckons with the old one is refused, and knows the new one at once: from who was named by its offers, from
    who was found by its record."""
    store = ReceiptStore(f"sqlite:///{tmp_path / 'here.db'}")
    local = LocalAnswers([TinyEngine()], KEY, store, prices=dict.fromkeys(LEVELS, Price(1, 2)))
    urls: list[str] = []
    station = lambda: Station((endpoint(urls[0]),), 4)  # noqa: E731
    publisher = Publisher(KEY, local.models, station)
    app = provider_app(local, store, KEY.address, publisher=publisher)
    sock = bind("127.0.0.1", 0)
    urls.append(url_of(sock))
    listening = asyncio.Event()
    server = Server(app, drain=local.drain, started=listening.set)
    serving = asyncio.create_task(server._serve([sock]))
    await listening.wait()
    try:
        here = book() if named else book(await publisher.record())
        async with reaching(here, *urls[: int(named)]) as transport:
            await asked_of(transport)
            local.sell(Sale(dict.fromkeys(LEVELS, Price(30, 70)), 4))
            [old, *_] = await transport.offers()
            with pytest.raises(PriceChanged, match="30 wei a prompt token and 70"):
                await transport.send(old, REQUEST)
            assert {offer.price for offer in await transport.offers()} == {Price(30, 70)}
            await asked_of(transport)
    finally:
        server.should_exit = True
        await serving


async def asked_of(transport: HttpTransport) -> None:
    """A whole answer of the first provider."""
    [offer] = [each for each in await transport.offers() if each.level == "pinned"]
    answer = await transport.send(offer, REQUEST)
    assert len([step async for step in answer.steps()]) > 0
    check_offline(await answer.bundle())


async def test_who_hides_is_not_led_to_the_provider(tmp_path: Path) -> None:
    """With a relay as the favourite, a provider's own address is not taken when the relay fails."""
    spots = ("http://127.0.0.1:9", "ws://127.0.0.1:8")
    here = book(record(KEY, issued=int(time.time()), tls=b"c" * 32, endpoints=spots))
    for ways, kinds in ((("relay", "direct"), ["relay"]), (("direct", "relay"), ["http", "relay"])):
        transport = HttpTransport((), patience=QUICK, book=here, ways=ways)
        assert [place.endpoint.kind for place in transport._listing.places(KEY.address)] == kinds
        await transport.aclose()
