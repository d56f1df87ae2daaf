"""The record book against replays, roll-backs, contradictions, forgeries and floods."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.network.discovery.kit import NOW, record
from tests.tiny import tiny_key

from assay.core.errors import AssayError, InvalidSignature, RecordRefused
from assay.core.reach import Reach, reach_of, usable
from assay.core.record import MAX_LIFE, MAX_SKEW, Endpoint, ProviderRecord, sign_record
from assay.network.discovery.book import MEAN_BYTES, PINNED_SECONDS, RecordBook

A, B = tiny_key(1), tiny_key(2)


def book(most: int = 1000, salt: bytes = b"salt", **more: object) -> RecordBook:
    """An empty one."""
    return RecordBook(salt=salt, most=most, **more)  # type: ignore[arg-type]


def refusal(here: RecordBook, item: ProviderRecord, now: float = NOW, **more: object) -> str:
    """Why a record is not taken."""
    with pytest.raises(RecordRefused) as caught:
        here.put(item, now, "x", **more)  # type: ignore[arg-type]
    return caught.value.reason


def held(here: RecordBook, now: float = NOW) -> set[str]:
    """Addresses of the records that are alive."""
    return {item.provider for item, _ in here.entries(now)}


def test_the_newest_record_of_each_provider_is_kept() -> None:
    """New, known, newer; one provider's record says nothing of another's."""
    here = book()
    assert here.put(record(1), NOW, "lan")
    version = here.version
    assert not here.put(record(1), NOW + 5, "lan")
    assert here.version == version
    assert here.put(record(1, sequence=2, price=9), NOW, "lan")
    assert here.put(record(2), NOW, "lan")
    assert here.version > version
    found = here.get(A.address, NOW)
    assert found is not None
    assert found.record == record(1, sequence=2, price=9)
    assert held(here) == {A.address, B.address}


def test_replays_are_refused() -> None:
    """An older record that is still alive does not come back, also after the newer one has expired or is gone."""
    here = book()
    old, new = record(1, sequence=1, life=MAX_LIFE), record(1, sequence=2, life=60)
    here.put(old, NOW, "x")
    here.put(new, NOW, "x")
    assert refusal(here, old) == "older"
    here.expire(NOW + 61)
    assert held(here, NOW + 61) == set()
    assert refusal(here, old, NOW + 61) == "older"
    here.expire(NOW + MAX_LIFE + MAX_SKEW)
    assert refusal(here, old, NOW + MAX_LIFE + MAX_SKEW) == "expired"
    assert here.marks() == []


def test_roll_back_after_a_restart_is_refused() -> None:
    """Marks carry the highest numbers over; the same record is welcome again."""
    before = book()
    for item in (record(1, sequence=5), record(2, sequence=5)):
        before.put(item, NOW, "x")
    before.pin(A.address)
    marks = before.marks()
    assert before.marks() == []
    after = book(marks=marks)
    assert len(after) == 0
    assert refusal(after, record(1, sequence=4)) == "older"
    assert after.put(record(1, sequence=5), NOW, "x")
    assert refusal(after, record(2, sequence=5, price=2)) == "contradiction"
    found = after.get(A.address, NOW)
    assert found is not None
    assert found.pinned


def test_of_two_records_under_one_number_neither_is_used() -> None:
    """In whatever order they come, also after a restart; a higher number ends it."""
    one, other = record(1, price=1), record(1, price=2)
    for first, second in ((one, other), (other, one)):
        here = book()
        here.put(first, NOW, "x")
        assert refusal(here, second) == "contradiction"
        assert held(here) == set()
        assert refusal(here, first) == "contradiction"
        here = book(marks=here.marks())
        assert refusal(here, first) == "contradiction"
        assert here.put(record(1, sequence=2), NOW, "x")
        assert held(here) == {A.address}


def test_forgeries_change_nothing() -> None:
    """Another key's signature is refused: it neither renews, nor contradicts, nor raises the number."""
    here = book()
    here.put(record(1, sequence=3), NOW, "x")
    for forged in (record(1, sequence=9, signer=B), record(1, sequence=3, price=7, signer=B)):
        with pytest.raises(InvalidSignature):
            here.put(forged, NOW, "x")
    with pytest.raises(InvalidSignature):
        here.put(record(2, signer=A), NOW, "x")
    assert held(here) == {A.address}
    assert here.put(record(1, sequence=4), NOW, "x")


def test_records_out_of_their_time_are_refused() -> None:
    """Expired, or from the future beyond what clocks differ; what is taken leaves when its time is over."""
    here = book()
    assert refusal(here, record(1), NOW + 3600) == "expired"
    assert refusal(here, record(1, issued=NOW + MAX_SKEW + 1)) == "future"
    here.put(record(1, issued=NOW + MAX_SKEW), NOW, "x")
    assert here.get(A.address, NOW + MAX_SKEW + 3600) is None


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("127.0.0.1", Reach.MACHINE), ("::1", Reach.MACHINE), ("localhost", Reach.MACHINE), ("0.0.0.0", Reach.MACHINE),
        ("::ffff:127.0.0.1", Reach.MACHINE), ("a.localhost", Reach.MACHINE), ("10.1.2.3", Reach.NEIGHBOURHOOD),
        ("169.254.169.254", Reach.NEIGHBOURHOOD), ("fe80::1%eth0", Reach.NEIGHBOURHOOD),
        ("fd00::1", Reach.NEIGHBOURHOOD),
        ("100.64.0.1", Reach.NEIGHBOURHOOD), ("printer.local", Reach.NEIGHBOURHOOD), ("8.8.8.8", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC), ("node.example", Reach.PUBLIC),
    ],
)  # fmt: skip
def test_reach(host: str, reach: Reach) -> None:
    """What an address is good for."""
    assert reach_of(host) == reach


def test_strangers_do_not_lead_into_this_machine() -> None:
    """A record from afar whose endpoints lie here or in the neighbourhood is refused; from near it is taken."""
    inner = record(1, endpoints=("http://127.0.0.1:22", "http://10.0.0.1:80"))
    here = book()
    assert refusal(here, inner, reach=Reach.PUBLIC) == "unreachable"
    assert refusal(here, record(1, endpoints=()), reach=Reach.MACHINE) == "unreachable"
    assert here.put(inner, NOW, "x", Reach.NEIGHBOURHOOD)
    assert usable(inner, Reach.NEIGHBOURHOOD) == Endpoint("http", "10.0.0.1:80")
    assert usable(inner, Reach.MACHINE) == Endpoint("http", "127.0.0.1:22")
    here.put(inner, NOW, "registry", Reach.MACHINE)
    found = here.get(A.address, NOW)
    assert found is not None
    assert found.reach == Reach.MACHINE
    mixed = record(1, sequence=2, endpoints=("http://127.0.0.1:22", "http://8.8.8.8:80"))
    here.put(mixed, NOW, "x", Reach.PUBLIC)
    assert found.reach == Reach.PUBLIC


def test_a_provider_that_died_is_passed_over() -> None:
    """By its source's word; its mark stays."""
    here = book()
    here.put(record(1, sequence=2), NOW, "registry")
    here.gone(A.address, "lan")
    assert held(here) == {A.address}
    here.gone(A.address, "registry")
    assert held(here) == set()
    assert refusal(here, record(1, sequence=1)) == "older"
    assert here.put(record(1, sequence=2), NOW, "registry")


def crowd(first: int, count: int, **more: object) -> Iterator[ProviderRecord]:
    """Records of many keys."""
    return (record(number, **more) for number in range(first, first + count))  # type: ignore[arg-type]


def offered(here: RecordBook, items: Iterator[ProviderRecord], source: str) -> int:
    """How many of the records are taken."""
    taken = 0
    for item in items:
        try:
            taken += here.put(item, NOW, source)
        except RecordRefused as error:
            assert error.reason in ("full", "older")  # noqa: PT017
    return taken


def test_a_flood_pushes_out_only_its_own() -> None:
    """Providers that we have dealt with stay, and so do strangers from sources that tell fewer."""
    here = book(100)
    offered(here, crowd(1, 20), "directory")
    for number in range(1, 11):
        here.pin(tiny_key(number).address)
    offered(here, crowd(21, 10), "lan")
    offered(here, crowd(1000, 400), "directory")
    kept = held(here)
    assert len(kept) == 100
    assert {tiny_key(number).address for number in (*range(1, 11), *range(21, 31))} <= kept


def test_who_comes_often_first_or_last_is_kept_no_sooner() -> None:
    """Which strangers of a full source stay depends on their keys and our secret alone."""
    kept = []
    for order in (range(300), reversed(range(300)), [*range(300), *range(150), *range(300)]):
        here = book(50)
        offered(here, (record(1 + number) for number in order), "directory")
        kept.append(held(here))
    assert kept[0] == kept[1] == kept[2]
    other = book(50, salt=b"another")
    offered(other, crowd(1, 300), "directory")
    assert held(other) != kept[0]


def test_a_record_that_several_sources_tell_is_in_the_smallest_share() -> None:
    """Who is also known from the local network survives a flood of the directory that told it first."""
    here = book(50)
    offered(here, crowd(1, 50), "directory")
    offered(here, crowd(1, 5), "lan")
    offered(here, crowd(1000, 300), "directory")
    assert {tiny_key(number).address for number in range(1, 6)} <= held(here)


def test_short_lives_do_not_fill_the_book() -> None:
    """What is left of expired strangers goes first; pins are bounded, and end a month after the provider."""
    here = book(60)
    offered(here, crowd(1, 60, life=1), "directory")
    for number in range(1, 61):
        here.pin(tiny_key(number).address)
    here.expire(NOW + 1)
    for item in crowd(1000, 30, issued=NOW + 1):
        assert here.put(item, NOW + 1, "lan")
    assert sum(mark.pinned for mark in here.marks()) == 30
    here.expire(NOW + 1 + MAX_LIFE + MAX_SKEW + PINNED_SECONDS)
    assert here._entries == {}
    assert here._pinned == 0


def test_changes_are_told_in_order() -> None:
    """Page by page, each record once, as it is now."""
    here = book(5000)
    offered(here, crowd(1, 10), "x")
    page, cursor = here.changes(0, 4, 10**6, NOW)
    assert [item.provider for item in page] == [tiny_key(number).address for number in range(1, 5)]
    here.put(record(2, sequence=2), NOW, "x")
    here.gone(tiny_key(6).address)
    rest, cursor = here.changes(cursor, 100, 10**6, NOW)
    assert [item.provider for item in rest] == [tiny_key(number).address for number in (5, 7, 8, 9, 10, 2)]
    assert here.changes(cursor, 100, 10**6, NOW) == ([], cursor)
    assert len(here.changes(0, 100, 1, NOW)[0]) == 1
    assert len(here.changes(0, 100, 3000, NOW)[0]) == 2


def test_the_log_of_changes_is_bounded() -> None:
    """However often one provider changes, it is told once, and memory does not grow."""
    here = book()
    offered(here, crowd(1, 3), "x")
    for sequence in range(2, 1500):
        here.put(record(2, sequence=sequence), NOW, "x")
    assert len(here._log) <= 2 * 3 + 1024
    assert [item.provider for item in here.changes(0, 9, 10**6, NOW)[0]] == [tiny_key(n).address for n in (1, 3, 2)]


class Books(RuleBasedStateMachine):
    """Whatever comes in whatever order, the book's own bookkeeping adds up, and nothing older comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.here = book(6)
        self.now = NOW
        self.highest: dict[str, int] = {}

    @rule(
        number=st.integers(1, 12),
        sequence=st.integers(1, 4),
        price=st.integers(1, 2),
        source=st.sampled_from("abc"),
        life=st.sampled_from((1, 3600)),
    )
    def put(self, number: int, sequence: int, price: int, source: str, life: int) -> None:
        item = record(number, sequence=sequence, price=price, life=life, issued=self.now)
        entry = self.here._entries.get(item.provider)
        before = entry.sequence if entry else 0
        try:
            self.here.put(item, self.now, source)
            assert sequence >= before
        except AssayError:
            pass

    @rule(number=st.integers(1, 12))
    def pin(self, number: int) -> None:
        self.here.pin(tiny_key(number).address)

    @rule(number=st.integers(1, 12))
    def gone(self, number: int) -> None:
        self.here.gone(tiny_key(number).address)

    @rule(seconds=st.sampled_from((1, 4000, 90_000)))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.here.expire(self.now)

    @rule()
    def restart(self) -> None:
        marks = self.here.marks()
        assert len({mark.provider for mark in marks}) == len(marks)

    @invariant()
    def adds_up(self) -> None:
        entries = self.here._entries
        strangers = {n: e for n, e in entries.items() if e.record is not None and not e.pinned}
        assert len(entries) <= 6
        assert self.here._pinned == sum(e.pinned for e in entries.values()) <= 3
        assert set(self.here._empty) == {n for n, e in entries.items() if e.record is None and not e.pinned}
        for source in "abc":
            own = {n for n, e in strangers.items() if e.source == source}
            assert self.here._shares[source] == sum(entries[n].size for n in own)
            heap = self.here._heaps.get(source, [])
            assert own == {n for key, n in heap if self.here._in_heap(key, n, source)}
        assert len(self.here) == sum(e.record is not None for e in entries.values())
        assert self.here._bytes == sum(e.size for e in entries.values() if e.record is not None)


Books.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase


TEXT = record(1, endpoints=("http://here.example:8100",)).encode().decode()


def unsigned(number: int) -> ProviderRecord:
    """A record as it is read, whose signature is somebody's: what it takes in memory does not depend on that."""
    text = TEXT.replace(A.address, f"0x{number:040x}").replace("here", f"h{number}")
    return ProviderRecord.decode(text.encode())


def test_large_records_take_their_room() -> None:
    """A book is bounded in bytes too, and of strangers the large ones go first."""
    here = book(100)
    for number in range(1, 100):
        item = record(number)
        many = tuple(replace(item.offers[0], model=f"{number} {i} {'x' * 200}") for i in range(64))
        with suppress(RecordRefused):
            here.put(sign_record(replace(item, offers=many), tiny_key(number)), NOW, "directory")
    assert 1 <= len(here) < 10
    assert here._bytes <= 100 * MEAN_BYTES
    offered(here, crowd(100, 60), "directory")
    assert len(here) > 60


@pytest.mark.parametrize(
    "most", [pytest.param(10_000, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.long)]
)
def test_twice_as_many_sybils(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A full book takes less than 2 KB a record; twice as many strangers push out nobody whom we know, and take no
    more."""
    monkeypatch.setattr(ProviderRecord, "check", lambda _record, _now: None)
    here, known = book(most), [unsigned(number) for number in range(1, most // 100)]
    for item in known:
        here.put(item, NOW, "directory")
        here.pin(item.provider)
    more = most - len(known)
    tracemalloc.start()
    try:
        offered(here, (unsigned(1_000_000 + number) for number in range(more)), "directory")
        assert len(here) == most
        assert tracemalloc.get_traced_memory()[0] / more < 2048
    finally:
        tracemalloc.stop()
    offered(here, (unsigned(2_000_000 + number) for number in range(2 * most)), "directory")
    assert len(here) == len(here._entries) == most
    assert max(len(here._log), *map(len, here._heaps.values())) <= 2 * most + 1024
    assert {item.provider for item in known} <= held(here)
