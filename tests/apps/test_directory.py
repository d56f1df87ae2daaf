"""The directory as a service, and the sources and publisher that work with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.network.discovery.kit import record, until
from tests.network.discovery.test_sources import Found, finding, reply
from tests.network.test_http import stranger
from tests.running import free_port, running
from tests.tiny import tiny_key

from assay.apps import discovering
from assay.apps.config import Network
from assay.apps.directory import directory_app
from assay.apps.discovering import Discoveries, sources_of, uses_lan
from assay.apps.metrics import DiscoveryMetrics
from assay.apps.publishing import Publisher, Station, addresses, endpoints_of, relay_endpoint
from assay.core.errors import ConfigError, MachineError, RecordRefused
from assay.core.offer import Offer, Price
from assay.core.reach import WAYS, Reach, Way, usable
from assay.core.record import MAX_RECORD_BYTES, Endpoint, ProviderRecord
from assay.network.discovery.directory import Directory
from assay.network.discovery.pages import Page
from assay.network.discovery.registry import Registry
from assay.store.marks import MarkStore

pytestmark = pytest.mark.anyio
A, B = tiny_key(1), tiny_key(2)
HERE = ("http://127.0.0.1:1",)


def now() -> int:
    """Unix seconds."""
    return int(time.time())


@asynccontextmanager
async def directory(
    *others: str, puts: int = 1000, gets: int = 10_000, most: int = 1000
) -> AsyncIterator[tuple[str, Discoveries]]:
    """A running directory that replicates others; its address."""
    metrics = DiscoveryMetrics(CollectorRegistry())
    found = Discoveries([Directory(url, look=0.05) for url in others], metrics, most=most)
    async with running(directory_app(found, metrics, puts_per_minute=puts, gets_per_minute=gets)) as url:
        yield url, found


async def put(url: str, data: bytes) -> httpx.Response:
    """Hand in a record."""
    async with httpx.AsyncClient() as client:
        return await client.put(f"{url}/assay/v1/records", content=data)


async def page(url: str, since: str = "") -> Page:
    """What a directory replies."""
    async with httpx.AsyncClient() as client:
        found = await client.get(f"{url}/assay/v1/records", params={"since": since})
        assert found.status_code == 200
        return Page.decode(found.content)


async def test_records_are_handed_in_and_read() -> None:
    """By the client's own code; what is new comes after the cursor, and an unknown cursor begins anew."""
    async with directory() as (url, _), finding(Directory(url, look=0.05)) as found:
        await Directory(url).publish(record(1, issued=now(), endpoints=HERE).encode())
        await until(lambda: found.providers == {A.address})
        first = await page(url)
        await Directory(url).publish(record(2, issued=now(), endpoints=HERE).encode())
        await until(lambda: found.providers == {A.address, B.address})
        second = await page(url, first.cursor)
        assert [ProviderRecord.decode(line).provider for line in second.records] == [B.address]
        assert (await page(url, second.cursor)).records == []
        for cursor in ("0123-1", "x", "-", first.cursor + "x", "é"):
            assert len((await page(url, cursor)).records) == 2


async def test_pages_are_bounded() -> None:
    """All records come, over several pages."""
    async with directory() as (url, found):
        for number in range(1, 600):
            found.book.put(record(number, issued=now(), endpoints=HERE, levels=("signed",)), now(), "x")
        cursor, sizes = "", []
        while True:
            got = await page(url, cursor)
            sizes.append(len(got.records))
            cursor = got.cursor
            if not got.more:
                break
        assert sizes == [256, 256, 87]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"x" * (MAX_RECORD_BYTES + 1), 413),
        (record(1, issued=1000, endpoints=HERE).encode(), 409),
        (record(1, issued=2**40, endpoints=HERE).encode(), 409),
    ],
)
async def test_what_is_no_record_is_refused(data: bytes, status: int) -> None:
    """With a reason, and nothing of it is kept."""
    async with directory() as (url, found):
        assert (await put(url, data)).status_code == status
        assert len(found.book) == 0


async def test_a_directory_cannot_be_made_to_forge() -> None:
    """Forgeries and older records are refused, whoever hands them in."""
    async with directory() as (url, found):
        assert (await put(url, record(1, issued=now(), signer=B, endpoints=HERE).encode())).status_code == 400
        new, old = (record(1, sequence=n, issued=now(), endpoints=HERE).encode() for n in (2, 1))
        assert (await put(url, new)).status_code == 204
        assert (await put(url, new)).status_code == 204
        with pytest.raises(RecordRefused):
            found.book.put(ProviderRecord.decode(old), now(), "x")
        reply = await put(url, old)
        assert (reply.status_code, reply.json()["error"]["type"]) == (409, "record_error")
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{url}/metrics")).text
            assert 'assay_records_total{outcome="older",source="put"} 1.0' in text
            assert 'assay_records_total{outcome="forged",source="put"} 1.0' in text
            assert (await client.get(f"{url}/health")).json() == {"providers": 1}


async def test_one_address_cannot_ask_without_end() -> None:
    """It is told when to come again; others are not held up by that."""
    async with directory(puts=3, gets=5) as (url, _):
        statuses = [(await put(url, b"{}")).status_code for _ in range(5)]
        assert statuses == [400, 400, 400, 429, 429]
        async with httpx.AsyncClient() as client:
            replies = [await client.get(f"{url}/assay/v1/records") for _ in range(7)]
        assert [each.status_code for each in replies] == [200] * 5 + [429] * 2
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 60


async def test_directories_replicate() -> None:
    """What is handed in at one is found at the other; both ways, without end."""
    async with directory() as (one, _), directory(one) as (two, found):
        await Directory(one).publish(record(1, issued=now(), endpoints=HERE).encode())
        async with finding(Directory(two, look=0.05)) as reader:
            await until(lambda: reader.providers == {A.address})
            assert found.book.get(A.address, now()).source == one  # type: ignore[union-attr]


async def test_one_network_floods_only_its_own_share() -> None:
    """A thousand records from one address push out none that came from elsewhere."""
    async with directory(most=50, puts=10_000) as (url, found):
        for number in range(1, 20):
            found.book.put(record(number, issued=now(), endpoints=HERE), now(), f"elsewhere {number}")
        statuses = {
            (await put(url, record(number, issued=now(), endpoints=HERE).encode())).status_code
            for number in range(100, 300)
        }
        assert statuses == {204, 409}
        kept = {item.provider for item, _ in found.book.entries(now())}
        assert {tiny_key(number).address for number in range(1, 20)} <= kept


# --- what runs the sources


async def test_marks_outlive_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A roll-back after a restart is refused, and who was dealt with is still known; kill -9 costs a second of it."""
    monkeypatch.setattr(discovering, "KEEP_SECONDS", 0.02)
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first = Discoveries([], DiscoveryMetrics(CollectorRegistry()), MarkStore(url, most=10))
    async with first.running():
        first.finder.heard(record(1, sequence=5, issued=now(), endpoints=HERE).encode(), "x", 2)  # type: ignore[arg-type]
        first.dealt(A.address)
        killed = MarkStore(url, most=10)
        await until(killed.load)
        assert [(mark.sequence, mark.pinned) for mark in killed.load()] == [(5, True)]
        killed.close()
    second = Discoveries([], DiscoveryMetrics(CollectorRegistry()), MarkStore(url, most=10))
    async with second.running():
        with pytest.raises(RecordRefused):
            second.book.put(record(1, sequence=4, issued=now(), endpoints=HERE), now(), "x")


async def test_a_source_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends no other."""
    monkeypatch.setattr(discovering, "_AGAIN_SECONDS", 0.02)

    class Broken:
        name = "broken"
        runs = 0

        async def run(self, finder: object) -> None:
            self.runs += 1
            raise MachineError("there is no network")

    broken = Broken()
    item = record(1, issued=now(), endpoints=HERE)
    async with stranger(reply(item.encode())) as url:
        peers = sources_of(Network(peers=(url,)), Path("/nowhere"), lan=False)
        found = Discoveries([broken, *peers], DiscoveryMetrics(CollectorRegistry()))
        async with found.running():
            await until(lambda: broken.runs > 2 and len(found.book))


async def test_who_withholds_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a metric by directory."""
    monkeypatch.setattr(discovering, "TIDY_SECONDS", 0.05)
    monkeypatch.setattr(discovering, "withheld", lambda found, at: {each.name: 7 for each in found})
    registry = CollectorRegistry()
    async with directory() as (url, _):
        found = Discoveries([Directory(url, look=0.05)], DiscoveryMetrics(registry))
        told = f'assay_directory_withheld{{directory="{url}"}} 7.0'
        async with found.running():
            await until(lambda: told in generate_latest(registry).decode())


def test_the_local_network_is_for_who_listens_there() -> None:
    """Unless the settings say so: a program for this machine alone neither tells of itself nor asks around."""
    assert not uses_lan(Network(), "127.0.0.1")
    assert uses_lan(Network(), "0.0.0.0")
    assert uses_lan(Network(), "192.168.1.7")
    assert uses_lan(Network(lan=True), "127.0.0.1")
    assert not uses_lan(Network(lan=False), "0.0.0.0")


# --- the provider's side

STATION = Station((Endpoint("http", "127.0.0.1:1"),), 4, "eu")


class Shop:
    """Offers that can change, a clock, and who was told what."""

    def __init__(self) -> None:
        [self.offer, *_] = record(1).offers
        self.now = float(now())
        self.told: list[ProviderRecord] = []
        self.broken = False
        self.station = STATION

    async def offers(self) -> Sequence[Offer]:
        return [replace(self.offer, url="http://127.0.0.1:1")]

    async def tell(self, item: ProviderRecord) -> None:
        if self.broken:
            raise MachineError("the disk is full")
        self.told.append(item)

    def publisher(self, *more: Callable) -> Publisher:
        return Publisher(A, self.offers, lambda: self.station, [self.tell], tick=0.01, clock=lambda: self.now)


async def test_a_record_is_renewed_in_time_and_when_prices_or_addresses_change() -> None:
    """Signed, rising, told once each; a third of its life is its time."""
    shop = Shop()
    publisher = shop.publisher()
    async with publisher.running():
        await until(lambda: len(shop.told) == 1)
        shop.now += 1199
        await asyncio.sleep(0.05)
        assert len(shop.told) == 1
        shop.now += 1
        await until(lambda: len(shop.told) == 2)
        shop.offer = replace(shop.offer, price=Price(9, 9))
        await until(lambda: len(shop.told) == 3)
        shop.station = replace(STATION, endpoints=(Endpoint("http", "127.0.0.2:1"),))
        await until(lambda: len(shop.told) == 4)
        assert await publisher.record() == shop.told[-1]
    for item in shop.told:
        item.check(item.issued)
        assert (item.region, item.parallel) == ("eu", 4)
    assert [item.endpoints for item in shop.told] == [STATION.endpoints] * 3 + [shop.station.endpoints]
    assert [item.sequence for item in shop.told] == sorted({item.sequence for item in shop.told})
    assert shop.told[-1].offers[0].price == Price(9, 9)


async def test_who_could_not_be_told_is_told_again() -> None:
    """After a while; the provider goes on meanwhile."""
    shop = Shop()
    shop.broken = True
    async with shop.publisher().running():
        await asyncio.sleep(0.05)
        shop.broken = False
        await asyncio.sleep(0.05)
        assert shop.told == []
        shop.now += 31
        await until(lambda: len(shop.told) == 1)


def test_endpoints() -> None:
    """Where the provider listens, or what is set; a path cannot stand in a record."""
    assert endpoints_of("", "127.0.0.1", 80, tls=False) == (Endpoint("http", "127.0.0.1:80"),)
    assert endpoints_of("", "fd00::1", 80, tls=True) == (Endpoint("https", "[fd00::1]:80"),)
    assert endpoints_of("https://a.example/", "0.0.0.0", 1, tls=False) == (Endpoint("https", "a.example:443"),)
    assert endpoints_of("http://A.example:81", "x", 1, tls=True) == (Endpoint("http", "a.example:81"),)
    own = addresses()
    assert all(each not in ("127.0.0.1", "::1") for each in own)
    for host, reached in (("::", own), ("0.0.0.0", [each for each in own if ":" not in each])):
        everywhere = endpoints_of("", host, 80, tls=False)
        assert [each.host for each in everywhere] == (reached or ["127.0.0.1"])[:8]
    for url in ("https://a.example/path", "a.example", "ftp://a.example", "http://me@a.example", "http://a b"):
        with pytest.raises(ConfigError, match="cannot stand in a record"):
            endpoints_of(url, "x", 1, tls=False)


def test_endpoints_of_relays() -> None:
    """Scheme, host and port, the port being the scheme's own where it is left out."""
    assert relay_endpoint("wss://relay.example/") == Endpoint("relay", "wss://relay.example:443")
    assert relay_endpoint("ws://127.0.0.1:8500") == Endpoint("relay", "ws://127.0.0.1:8500")
    for url in ("https://relay.example", "wss://relay.example/path", "wss://me@relay.example", "relay.example"):
        with pytest.raises(ConfigError, match="cannot stand in a record"):
            relay_endpoint(url)


def test_the_way_is_the_consumers_choice() -> None:
    """In its order; within a way the provider's favourite; through others' hands only to a certificate."""
    direct, relay = "http://127.0.0.1:1", "ws://127.0.0.1:2"
    urls = (direct, "http://127.0.0.1:3", relay, f"iroh://{'0f' * 32}")
    sure, unsure = record(1, endpoints=urls, tls=bytes([1]) * 32), record(1, endpoints=urls)

    def way(item: ProviderRecord, *ways: Way, reach: Reach = Reach.MACHINE) -> str:
        found = usable(item, reach, ways or WAYS)
        return "" if found is None else found.url

    assert way(sure) == way(unsure) == direct
    assert way(sure, "relay", "direct") == relay
    assert way(unsure, "relay", "direct") == direct
    assert way(unsure, "relay", "iroh") == ""
    assert way(sure, reach=Reach.PUBLIC) == urls[-1]


async def test_doors_are_open_while_a_record_is_told() -> None:
    """And closed at the end."""
    shop, seen = Shop(), list[str]()

    async def door() -> None:
        seen.append("open")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("closed")

    async with Publisher(A, shop.offers, lambda: STATION, doors=[door]).running():
        await until(lambda: seen)
        assert seen == ["open"]
    assert seen == ["open", "closed"]


async def test_a_provider_in_the_folder_is_found_by_discoveries(tmp_path: Path) -> None:
    """The two sides put together as the commands do."""
    shop = Shop()

    async def listed(item: ProviderRecord) -> None:
        Registry(tmp_path).publish(item)

    async with stranger(b"") as url:
        station = Station(endpoints_of(url, "x", 1, tls=False), 1)
        found = Discoveries(sources_of(Network(), tmp_path, lan=False), DiscoveryMetrics(CollectorRegistry()))
        async with Publisher(A, shop.offers, lambda: station, [listed]).running(), found.running():
            await until(lambda: len(found.book) == 1)


async def test_a_peer_that_is_away() -> None:
    """Nothing is found, nothing breaks."""
    found = Found()
    task = asyncio.create_task(Directory(f"http://127.0.0.1:{free_port()}", look=0.02).run(found))
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
