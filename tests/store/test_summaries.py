"""Lists of receipts: they follow what is stored, checked and thrown away, in databases of before as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import delete, func, select
from tests.tiny import TinyModel, tiny_bundle, tiny_key, tiny_request

from assay.core.verdict import Finding, Outcome, Verdict
from assay.store import receipts as module
from assay.store.database import open_database, receipts, summaries
from assay.store.receipts import Keep, ReceiptStore
from assay.store.summaries import Day, Wanted, place

KEY = tiny_key()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database that is not there yet."""
    return f"sqlite:///{tmp_path / 'receipts.db'}"


def issued(store: ReceiptStore, content: str, amount: int = 0) -> bytes:
    """Store a receipt; its digest."""
    request = tiny_request(content, max_tokens=4)
    bundle = store.issue(KEY.address, lambda sequence: tiny_bundle(request, KEY, sequence, amount=amount))
    return bundle.receipt.digest


def judge(store: ReceiptStore, digest: bytes, outcome: Outcome) -> None:
    """A check of a receipt."""
    store.judge(Verdict(digest.hex(), KEY.address, "pinned", outcome, (Finding("sampler", outcome, "so"),), 4, 0.1))


def test_a_receipt_is_listed_with_its_last_verdict(url: str) -> None:
    """As it was stored; who gives its name finds it whole."""
    store = ReceiptStore(url, clock=lambda: 1000.0)
    digest = issued(store, "hello", amount=12)
    [found] = store.page(Wanted(), 10)
    bundle = store.get(digest)
    assert (store.matching(Wanted()), found.digest, found.provider, found.kept) == (1, digest, KEY.address, 1000)
    assert (found.model, found.level, found.amount, found.outcome) == (TinyModel().digest, "pinned", 12, None)
    assert (found.prompt, found.output) == (bundle.receipt.prompt_count, bundle.receipt.output_count)
    assert store.find(found.name) == [bundle]
    for outcome in ("inconclusive", "fails"):
        judge(store, digest, outcome)  # type: ignore[arg-type]
        assert store.page(Wanted(outcome=outcome), 10)[0].outcome == outcome  # type: ignore[arg-type]
    assert store.page(Wanted(outcome="unchecked"), 10) == []


def test_receipts_of_others_are_listed(url: str) -> None:
    """What a gateway keeps; a second receipt under the same number is none of the list's."""
    store = ReceiptStore(url)
    store.put(tiny_bundle(tiny_request("one"), KEY, 1))
    store.put(tiny_bundle(tiny_request("one"), KEY, 1))
    assert len(store.page(Wanted(provider=KEY.address), 10)) == store.matching(Wanted(provider=KEY.address)) == 1
    assert store.matching(Wanted(provider=tiny_key(2).address)) == 0


def test_a_database_of_before_is_listed_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some at each look, the newest first, beside those that came since; then all, with their verdicts, each once."""
    from assay.store import summaries as lists

    monkeypatch.setattr(lists, "_LATE", 3)
    store = ReceiptStore(url)
    digests = [issued(store, str(number)) for number in range(7)]
    judge(store, digests[0], "holds")
    judge(store, digests[0], "fails")
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(delete(summaries))
    digests.append(issued(store, "new"))
    counts = [len(store.page(Wanted(), 10)) for _ in range(4)]
    assert counts == [4, 7, 8, 8]
    rows = store.page(Wanted(descending=False), 10)
    assert [row.digest for row in rows] == digests
    assert [row.outcome for row in rows] == ["fails"] + [None] * 7


def test_what_is_thrown_away_is_not_listed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is pruned with the receipts."""
    monkeypatch.setattr(module, "_PRUNE_EVERY", 1)
    store = ReceiptStore(url, keep=Keep(receipts=3))
    for number in range(6):
        issued(store, str(number))
    engine = open_database(url)
    with engine.connect() as connection:
        ids = [connection.scalars(select(table.c.id)).all() for table in (receipts, summaries)]
        assert connection.scalar(select(func.count()).select_from(summaries)) == 3
    assert ids[0] == ids[1]


def test_pages_go_on_among_equals(url: str) -> None:
    """Receipts of one second, or of one price, are told apart by when they came."""
    store = ReceiptStore(url, clock=lambda: 1000.0)
    digests = [issued(store, str(number), amount=7) for number in range(5)]
    for wanted in (Wanted(), Wanted(order="amount"), Wanted(order="amount", descending=False)):
        first = store.page(wanted, 2)
        second = store.page(wanted, 5, place(first[-1], wanted.order))
        found = [row.digest for row in (*first, *second)]
        assert found == (digests[::-1] if wanted.descending else digests)


def test_days(url: str) -> None:
    """Of each provider, by the day on which the answers came."""
    now = [86_400.0 * 10 + 5]
    store = ReceiptStore(url, clock=lambda: now[0])
    one, two = issued(store, "1"), issued(store, "2")
    issued(store, "3")
    now[0] += 86_400
    three = issued(store, "4")
    judge(store, one, "holds")
    judge(store, two, "fails")
    judge(store, three, "inconclusive")
    names = [KEY.address, tiny_key(2).address]
    assert store.days(names, 10) == {KEY.address: [Day(10, 3, 1, 1, 0), Day(11, 1, 0, 0, 1)]}
    assert store.days(names, 11) == {KEY.address: [Day(11, 1, 0, 0, 1)]}
    assert store.days(names[1:], 0) == {}
