"""Receipts at rest, in real databases."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, false
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core.bundle import Bundle
from assay.core.errors import Equivocation, NotFound, StoreError
from assay.core.receipt import Receipt, sign, verify_signature
from assay.core.request import Level
from assay.core.verdict import Finding, Outcome, Verdict
from assay.store import receipts as module
from assay.store.receipts import Keep, ReceiptStore

KEY = tiny_key()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database that is not there yet."""
    return f"sqlite:///{tmp_path / 'receipts.db'}"


def make(content: str = "hello", choice: int = 0) -> Callable[[int], Bundle]:
    """Signs an answer to `content` under the number it is given."""
    return lambda sequence: tiny_bundle(tiny_request(content, max_tokens=4).for_choice(choice), KEY, sequence)


def test_sequence_numbers_rise_by_one_and_go_on_after_reopening(url: str) -> None:
    """Every receipt gets the number after the last one, also when the program starts again."""
    first = ReceiptStore(url)
    numbers = [first.issue(KEY.address, make(str(i))).receipt.sequence for i in range(3)]
    first.close()
    numbers.append(ReceiptStore(url).issue(KEY.address, make("later")).receipt.sequence)
    assert numbers == [numbers[0] + i for i in range(4)]


def test_keys_count_apart(url: str) -> None:
    """Two keys in one database have their own numbers."""
    store, other = ReceiptStore(url, clock=lambda: 1000.0), tiny_key(2)
    one = store.issue(KEY.address, make())
    two = store.issue(other.address, lambda sequence: tiny_bundle(tiny_request(), other, sequence))
    assert one.receipt.sequence == two.receipt.sequence == 1000 << 20


def test_a_lost_database_does_not_make_numbers_come_again(tmp_path: Path) -> None:
    """A fresh database goes on above whatever the same key signed before."""
    old = ReceiptStore(f"sqlite:///{tmp_path / 'a.db'}", clock=lambda: 1000.0)
    new = ReceiptStore(f"sqlite:///{tmp_path / 'b.db'}", clock=lambda: 1001.0)
    last = [old.issue(KEY.address, make(str(i))) for i in range(5)][-1]
    assert new.issue(KEY.address, make()).receipt.sequence > last.receipt.sequence


def test_a_receipt_is_found_by_the_name_of_its_request_and_of_its_call(url: str) -> None:
    """A call's name leads to all its choices in order; whoever may read everything gets a receipt by its digest."""
    store = ReceiptStore(url)
    bundles = [store.issue(KEY.address, make("n", choice)) for choice in (1, 0, 2)]
    assert store.get(bundles[0].receipt.digest) == bundles[0]
    assert store.find(bundles[0].request.name) == [bundles[0]]
    assert [b.request.choice for b in store.find(bundles[0].request.call)] == [0, 1, 2]
    assert store.find(bytes(32)) == []
    with pytest.raises(NotFound):
        store.get(bytes(32))


def test_nothing_that_a_receipt_shows_finds_it(url: str) -> None:
    """Receipts are shown around: no digest in one, nor its own, is a name. The same for the proof of a double
    signature."""
    store = ReceiptStore(url)
    one, two = make("a")(7), make("b")(7)
    store.put(one)
    with pytest.raises(Equivocation):
        store.put(two)
    for bundle in (one, two):
        shown = [value for value in vars_of(bundle.receipt) if isinstance(value, bytes)]
        assert bundle.request.name not in shown
        assert [store.find(digest) for digest in (bundle.receipt.digest, *shown)] == [[]] * (1 + len(shown))


def vars_of(receipt: Receipt) -> list[object]:
    """The values of a receipt's members."""
    return [getattr(receipt, item.name) for item in fields(receipt)]


def test_of_one_request_asked_twice_the_later_answer_is_last(tmp_path: Path) -> None:
    """Also when its provider counts from a smaller number."""
    store, other = ReceiptStore(f"sqlite:///{tmp_path / 'x.db'}"), tiny_key(2)
    first, later = make()(900), tiny_bundle(tiny_request("hello", max_tokens=4), other, 5)
    store.put(first)
    store.put(later)
    assert store.find(first.request.name) == [first, later]


def test_a_failure_while_signing_spends_no_number(url: str) -> None:
    """When the bundle cannot be made, nothing is stored and the number is used by the next."""
    store = ReceiptStore(url)
    before = store.issue(KEY.address, make("a")).receipt.sequence

    def broken(sequence: int) -> Bundle:
        raise RuntimeError("no key today")

    with pytest.raises(RuntimeError):
        store.issue(KEY.address, broken)
    assert store.issue(KEY.address, make("b")).receipt.sequence == before + 1
    assert store.count() == 2


def test_two_receipts_under_one_number_are_kept_and_reported(url: str) -> None:
    """A collector refuses a contradiction, and can show both sides of it."""
    store = ReceiptStore(url)
    one, two = make("a")(7), make("b")(7)
    store.put(one)
    store.put(one)
    for _ in range(2):
        with pytest.raises(Equivocation, match="sequence number 7"):
            store.put(two)
    assert store.get(one.receipt.digest) == one
    assert store.get(two.receipt.digest) == two
    assert store.contradictions() == {KEY.address: 1}
    assert store.count() == 1


def test_a_number_that_is_signed_again_and_again_fills_no_disk(url: str) -> None:
    """Two receipts are the proof; each further one is reported all the same, and not kept."""
    store = ReceiptStore(url)
    first, second, *more = (make(str(number))(7) for number in range(6))
    store.put(first)
    for bundle in (second, *more):
        with pytest.raises(Equivocation, match="sequence number 7"):
            store.put(bundle)
    assert store.get(second.receipt.digest) == second
    for bundle in more:
        with pytest.raises(NotFound):
            store.get(bundle.receipt.digest)
    assert store.contradictions() == {KEY.address: 1}


def test_programs_that_write_the_same_row_at_once_lose_no_receipt(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writers do not wait for each other, one of two finds its row taken: it takes the next number, or sees that
    the receipt is here. Played with a first look that does not see the other's row yet."""
    store, other = ReceiptStore(url), ReceiptStore(url)
    before = other.issue(KEY.address, make("a"))
    blind = iter([False])
    monkeypatch.setattr(module, "_changed", lambda result: next(blind, result.rowcount > 0))
    assert store.issue(KEY.address, make("b")).receipt.sequence == before.receipt.sequence + 1
    seen = module.select

    def look(*what: Any) -> Any:
        monkeypatch.setattr(module, "select", seen)
        return seen(*what).where(false())

    monkeypatch.setattr(module, "select", look)
    store.put(before)
    monkeypatch.setattr(module, "select", look)
    with pytest.raises(Equivocation):
        store.put(make("c")(before.receipt.sequence))
    assert store.count() == 2


def test_the_same_number_by_another_provider_is_no_contradiction(url: str) -> None:
    """Numbers belong to keys."""
    store, other = ReceiptStore(url), tiny_key(2)
    store.put(make()(7))
    store.put(tiny_bundle(tiny_request(), other, 7))
    assert store.count() == 2
    assert store.contradictions() == {}


def test_verdicts_take_receipts_off_the_list_of_unaudited(url: str) -> None:
    """What was judged is not offered for audit again, and is counted per provider."""
    store = ReceiptStore(url)
    bundles = [store.issue(KEY.address, make(str(i))) for i in range(3)]
    assert [each.digest for each in store.unaudited(10)] == [b.receipt.digest for b in bundles]
    assert {each.provider for each in store.unaudited(10)} == {KEY.address}
    verdict = Verdict(
        receipt=bundles[1].receipt.digest.hex(),
        provider=KEY.address,
        level="pinned",
        outcome="fails",
        findings=(Finding("logits", "fails", "token 2 was not computed by this model", step=2),),
        tokens_checked=4,
        seconds=0.1,
    )
    store.judge(verdict)
    left = store.unaudited(10)
    assert [each.digest for each in left] == [bundles[0].receipt.digest, bundles[2].receipt.digest]
    assert [each.digest for each in store.unaudited(10, after=left[0].row)] == [bundles[2].receipt.digest]
    assert store.verdicts_on(bundles[1].receipt.digest)[0]["reasons"] == ["token 2 was not computed by this model"]
    [tally] = store.tallies()
    assert (tally.provider, tally.level, tally.outcome, tally.count) == (KEY.address, "pinned", "fails", 1)
    assert tally.basis == "exact"


@pytest.mark.parametrize(
    ("level", "outcome", "statistic", "check", "passed"),
    [
        ("pinned", "holds", None, "replay", 1),
        ("statistical", "holds", 0.1, "forward", 1),
        ("pinned", "inconclusive", 0.1, "forward", 1),
        ("pinned", "fails", None, "replay", 0),
        ("statistical", "fails", 0.1, "forward", 0),
        ("pinned", "inconclusive", None, "profile", 0),
        ("pinned", "inconclusive", None, "model", 0),
        ("signed", "holds", None, "receipt", 0),
    ],
)
def test_what_was_computed_again_and_found_right_is_counted(
    url: str, level: Level, outcome: Outcome, statistic: float | None, check: str, passed: int
) -> None:
    """Not what could not be computed here, nor a signature alone; and only of the provider that is asked for."""
    store = ReceiptStore(url)
    finding = Finding(check, outcome, "as the test wants it", None, statistic, None)
    store.judge(Verdict("00" * 32, KEY.address, level, outcome, (finding,), 4, 0.1))
    assert store.passed(KEY.address) == passed
    assert store.passed("0x" + 40 * "0") == 0


def test_old_receipts_go_and_numbers_stay(url: str) -> None:
    """The table is bounded by rows and by age; the sequence goes on regardless."""
    now = [1_000_000.0]
    store = ReceiptStore(url, keep=Keep(receipts=100, seconds=3600), clock=lambda: now[0])
    bundle = make()(0)
    for _ in range(256):
        last = store.issue(
            KEY.address,
            lambda sequence: Bundle(
                sign(replace(bundle.receipt, sequence=sequence), KEY), bundle.request, bundle.profile, bundle.tokens
            ),
        )
    assert store.count() == 100
    assert store.get(last.receipt.digest) == last
    now[0] += 7200
    for _ in range(256):
        newest = store.issue(
            KEY.address,
            lambda sequence: Bundle(
                sign(replace(bundle.receipt, sequence=sequence), KEY), bundle.request, bundle.profile, bundle.tokens
            ),
        )
    assert newest.receipt.sequence == last.receipt.sequence + 256


def test_a_full_disk_is_said_and_nothing_is_half_kept(url: str) -> None:
    """When the database cannot grow, the receipt is not issued and the message says what to do."""
    store = ReceiptStore(url)
    kept = store.issue(KEY.address, make("a"))

    @event.listens_for(store._engine, "begin")
    def _limit(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    def fill() -> None:
        nonlocal kept
        for i in range(100):
            kept = store.issue(KEY.address, make(f"{i} " + "x" * 1500))

    with pytest.raises(StoreError, match="free disk space"):
        fill()
    event.remove(store._engine, "begin", _limit)
    store.close()
    again = ReceiptStore(url)
    with again._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert again.issue(KEY.address, make("b")).receipt.sequence == kept.receipt.sequence + 1


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    """A file that is no database is refused with a remedy, and left as it is."""
    path = tmp_path / "receipts.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="move the file away"):
        ReceiptStore(f"sqlite:///{path}")
    assert path.read_bytes() == b"not a database" * 1000


def test_a_locked_database_is_said(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another program holds the database for longer than the wait, the message says so."""
    monkeypatch.setattr("assay.store.database.BUSY_SECONDS", 0.2)
    store = ReceiptStore(url)
    holder = sqlite3.connect(tmp_path / "receipts.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreError, match="another process holds the database"):
            store.issue(KEY.address, make())
    finally:
        holder.close()
    store.issue(KEY.address, make())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nowhere/at/all/x.db", "check that the directory exists"),
        ("nonsense", "write sqlite:"),
        ("mysterydb://x", "write sqlite:"),
    ],
)
def test_a_bad_address_is_said(url: str, said: str) -> None:
    """What cannot be opened is named, with what to write instead."""
    with pytest.raises(StoreError, match=said):
        ReceiptStore(url)


def test_a_password_is_not_said() -> None:
    """Errors go to logs: the address in them lacks its password."""
    with pytest.raises(StoreError) as error:
        ReceiptStore("postgresql+nodriver://me:secret@127.0.0.1:1/receipts")
    assert "me:***@127.0.0.1" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_database_of_another_version_is_refused(url: str, tmp_path: Path) -> None:
    """Tables that this version does not know are not touched."""
    ReceiptStore(url).close()
    with sqlite3.connect(tmp_path / "receipts.db") as connection:
        connection.execute("update counters set value = 99 where name = 'schema'")
    connection.close()
    with pytest.raises(StoreError, match="schema 99"):
        ReceiptStore(url)


_ISSUER = """
import sys
from assay.store.receipts import ReceiptStore
from assay.core.receipt import sign
from assay.core.bundle import Bundle
from dataclasses import replace
from tests.tiny import tiny_key
from pathlib import Path
from typing import Any
key = tiny_key()
model = Bundle.decode(Path(sys.argv[2]).read_bytes())
store = ReceiptStore(sys.argv[1])
while True:
    bundle = store.issue(key.address, lambda sequence: Bundle(
        sign(replace(model.receipt, sequence=sequence), key), model.request, model.profile, model.tokens))
    sys.stdout.write(f"{bundle.receipt.sequence} {bundle.receipt.digest.hex()}\\n")
    sys.stdout.flush()
"""


def test_kill_9_loses_no_receipt_that_was_sent_and_signs_no_number_twice(url: str, tmp_path: Path) -> None:
    """Killed again and again in the middle of issuing: all that came out is kept, and no number came out twice."""
    (tmp_path / "model").write_bytes(make()(0).encode())
    out = tmp_path / "out"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    for round_ in range(4):
        before = out.stat().st_size if out.exists() else 0
        with out.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _ISSUER, url, str(tmp_path / "model")], stdout=file, env=environment
            )
            try:
                deadline = time.monotonic() + 20
                while out.stat().st_size < before + 500 * (round_ + 1) and time.monotonic() < deadline:
                    time.sleep(0.003)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
    sent = [line.split() for line in out.read_text().splitlines() if len(line.split()) == 2 and len(line) > 80]
    assert len(sent) >= 20
    assert len({number for number, _ in sent}) == len(sent)
    store = ReceiptStore(url)
    for number, digest in sent:
        kept = store.get(bytes.fromhex(digest))
        assert kept.receipt.sequence == int(number)
        verify_signature(kept.receipt)
    after = store.issue(KEY.address, make("after"))
    assert after.receipt.sequence > max(int(number) for number, _ in sent)
