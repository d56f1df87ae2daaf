"""Sources of records, and what strangers try with them: files, peers, directories."""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from tests.network.discovery.kit import record, until
from tests.network.test_http import listening, stranger
from tests.running import free_port
from tests.tiny import tiny_key

from assay.core.errors import EncodingError, MachineError, ProviderFailed
from assay.core.ports import Discovery
from assay.core.reach import Reach
from assay.core.record import MAX_RECORD_BYTES, ProviderRecord
from assay.network.discovery.book import RecordBook
from assay.network.discovery.directory import Directory, withheld
from assay.network.discovery.fetching import fetch_record, record_client
from assay.network.discovery.finder import BookFinder
from assay.network.discovery.pages import LARGEST, MAX_RECORDS, Page
from assay.network.discovery.peers import Peers
from assay.network.discovery.registry import Registry

pytestmark = pytest.mark.anyio
A, B = tiny_key(1), tiny_key(2)


def now() -> int:
    """Unix seconds."""
    return int(time.time())


class Found(BookFinder):
    """A finder with a count of what became of records."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        super().__init__(
            RecordBook(salt=b"s", most=1000), count=lambda source, outcome: self.outcomes.append((source, outcome))
        )

    @property
    def providers(self) -> set[str]:
        return {item.provider for item, _ in self.book.entries(self.clock())}


@asynccontextmanager
async def finding(*sources: Discovery) -> AsyncIterator[Found]:
    """What the sources find, while they run."""
    found = Found()
    tasks = [asyncio.create_task(source.run(found)) for source in sources]
    try:
        yield found
    finally:
        for task in tasks:
            assert not task.done(), "a stranger ended the source"
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reply(body: bytes, status: int = 200, **headers: str) -> bytes:
    """An HTTP reply."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    head = f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{''.join(lines)}\r\n"
    return head.encode() + body


# --- the folder of this machine


async def test_a_provider_is_found_in_the_folder_while_it_lives(tmp_path: Path) -> None:
    """Its record is a private file; when nobody listens any more, it is passed over, and found again."""
    registry = Registry(tmp_path / "run", look=0.02)
    async with finding(registry) as found, stranger(b"") as url:
        item = record(A, issued=now(), endpoints=(url,))
        registry.publish(item)
        await until(lambda: found.providers == {A.address})
        [path] = (tmp_path / "run").iterdir()
        if os.name == "posix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        registry.publish(record(A, sequence=2, issued=now(), endpoints=(url,), price=7))
        await until(lambda: found.book.get(A.address, now()).record.sequence == 2)  # type: ignore[union-attr]
        dead = f"http://127.0.0.1:{free_port()}"
        registry.publish(record(A, sequence=3, issued=now(), endpoints=(dead,)))
        await until(lambda: found.providers == set())
        registry.publish(record(A, sequence=4, issued=now(), endpoints=(url,)))
        await until(lambda: found.providers == {A.address})
        registry.withdraw(A.address)
        await until(lambda: found.providers == set())


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
async def test_other_things_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    """A pipe that nobody writes to, links, huge files, garbage and forgeries hold nothing up."""
    registry = Registry(tmp_path, look=0.02)
    os.mkfifo(tmp_path / "a.record")
    (tmp_path / "b.record").symlink_to("/etc/passwd")
    (tmp_path / "c.record").write_bytes(b"x" * (MAX_RECORD_BYTES + 10))
    (tmp_path / "d.record").mkdir()
    (tmp_path / "e.txt").write_bytes(b"{}")
    async with finding(registry) as found, stranger(b"") as url:
        (tmp_path / "f.record").write_bytes(record(A, issued=now(), signer=B, endpoints=(url,)).encode())
        registry.publish(record(B, issued=now(), endpoints=(url,)))
        await until(lambda: found.providers == {B.address})
        assert {"malformed", "forged", "new"} <= {outcome for _, outcome in found.outcomes}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what to do about it."""
    (tmp_path / "x").write_text("a file")
    with pytest.raises(MachineError, match="ASSAY_HOME"):
        Registry(tmp_path / "x" / "y").publish(record(A))


# --- peers


async def test_a_peer_is_asked_for_its_record() -> None:
    """And again, so that a newer one is found; a peer that is away ends nothing."""
    first, second = (record(A, sequence=n, issued=now(), endpoints=("http://127.0.0.1:1",)) for n in (1, 2))
    async with stranger(reply(first.encode()), reply(second.encode())) as url:
        async with finding(Peers([f"http://127.0.0.1:{free_port()}", url], ask=0.05)) as found:
            await until(lambda: found.outcomes[-2:] == [("peers", "new"), ("peers", "known")])
            assert found.book.get(A.address, now()).record == second  # type: ignore[union-attr]


GARBAGE = {
    "an error": reply(b"{}", 500),
    "no record": reply(b"[1]"),
    "too large": reply(b"x" * (MAX_RECORD_BYTES + 1)),
    "without end": b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n",
    "compressed": reply(gzip.compress(record(1).encode()), content_encoding="gzip"),
    "led elsewhere": reply(b"", 302, location="http://127.0.0.1:1/"),
    "no HTTP": b"\x00\xff" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_from_a_peer(said: bytes) -> None:
    """Ends in an error of ours, quickly and in bounded memory."""
    async with stranger(said) as url, record_client() as client:
        with pytest.raises((ProviderFailed, EncodingError)):
            data, _ = await fetch_record(client, url)
            ProviderRecord.decode(data)


async def test_a_bomb_is_not_unpacked() -> None:
    """50 KB that stand for 50 MB are refused by what they say they are."""
    async with stranger(reply(gzip.compress(bytes(50_000_000)), content_encoding="gzip")) as url:
        async with record_client() as client:
            tracemalloc.start()
            try:
                with pytest.raises(ProviderFailed, match="compressed"):
                    await fetch_record(client, url)
                assert tracemalloc.get_traced_memory()[1] < 5_000_000
            finally:
                tracemalloc.stop()


async def test_a_slow_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not hold the line for ever."""
    monkeypatch.setattr("assay.network.discovery.fetching.FETCH_SECONDS", 0.3)

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with listening(drip) as url, record_client() as client:
        started = time.monotonic()
        with pytest.raises(ProviderFailed, match="does not tell its record"):
            await fetch_record(client, url)
        assert time.monotonic() - started < 3


# --- directories


def test_pages_come_back() -> None:
    """Cursor, more and lines; no page, a cut one and one with too many lines are refused."""
    page = Page("abc-7", True, [b"{}", b"x"])
    assert Page.decode(page.encode()) == page
    assert Page.decode(Page("a", False, []).encode()) == Page("a", False, [])
    for data in (
        b"", b"\n", b"{}\n", b"[]\n", b'{"cursor":"a b","more":true}\n', b'{"cursor":"a","more":1}\n',
        page.encode()[:-1], b"x" * 1000 + page.encode(), Page("a", True, [b"x"] * (MAX_RECORDS + 1)).encode(),
        Page("a", True, [b"x" * LARGEST]).encode(),
    ):  # fmt: skip
        with pytest.raises(EncodingError):
            Page.decode(data)


def listed(*items: ProviderRecord, cursor: str = "e-1", more: bool = False) -> bytes:
    """A directory's reply."""
    return reply(Page(cursor, more, [item.encode() for item in items]).encode())


def known(*numbers: int, **more: object) -> list[ProviderRecord]:
    """Records that live now, of providers that are near."""
    return [record(n, issued=now(), endpoints=("http://127.0.0.1:1",), **more) for n in numbers]  # type: ignore[arg-type]


async def test_a_directory_is_read_page_by_page() -> None:
    """All of it, then what is new; what is wrong on a page spoils nothing else."""
    one, two, three = known(1, 2, 3)
    forged = record(4, issued=now(), signer=B)
    bad = reply(Page("e-2", False, [b"garbage", forged.encode(), two.encode()]).encode())
    async with stranger(listed(one, more=True), bad, reply(b"", 500), listed(three), listed()) as url:
        directory = Directory(url, look=0.02)
        async with finding(directory) as found:
            await until(lambda: len(found.providers) == 3)
            assert sorted(outcome for _, outcome in found.outcomes) == ["forged", "malformed", "new", "new", "new"]
            await until(lambda: directory.complete)


async def test_an_endless_directory_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that always says that there is more is read for so many pages, then after a pause."""
    monkeypatch.setattr("assay.network.discovery.directory._PAGES", 3)
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        writer.write(listed(*known(1), more=True))
        await writer.drain()

    async with listening(serve) as url, finding(Directory(url, look=30)):
        await until(lambda: asked == 3)
        await asyncio.sleep(0.1)
        assert asked == 3


async def test_a_directory_that_withholds_shows() -> None:
    """One of three lacks what the two others have listed for a while; what they disagree on is nobody's fault."""
    one, two, three = known(1, 2, 3)
    everybody, some = listed(one, two, three), listed(one)
    async with stranger(everybody) as a, stranger(some) as b, stranger(everybody) as c:
        directories = [Directory(url, look=0.05) for url in (a, b, c)]
        async with finding(*directories):
            await until(lambda: all(each.complete for each in directories))
            assert withheld(directories, now() + 10, grace=5) == {a: 0, b: 2, c: 0}
            assert set(withheld(directories, now(), grace=60).values()) == {0}
    async with stranger(listed(one, two)) as a, stranger(listed(one, three)) as b, stranger(some) as c:
        directories = [Directory(url, look=0.05) for url in (a, b, c)]
        async with finding(*directories):
            await until(lambda: all(each.complete for each in directories))
            assert withheld(directories, now() + 10, grace=5) == {a: 0, b: 0, c: 0}


async def test_a_far_directory_leads_nobody_inside() -> None:
    """Loopback endpoints count only where the one who tells them is on this machine too."""
    [item] = known(1)
    found = Found()
    assert found.heard(item.encode(), "x", Reach.PUBLIC) is None
    assert found.outcomes == [("x", "unreachable")]
    async with stranger(listed(item)) as url:
        with suppress(TimeoutError):
            async with finding(Directory(url, look=0.05)) as near:
                await until(lambda: near.providers == {item.provider})
