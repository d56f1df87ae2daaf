"""Reports at rest: each once, bounded, beside what was found here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core.keys import Key
from assay.core.report import SignedReport, sign_report
from assay.core.verdict import Finding, Outcome, Verdict
from assay.store.receipts import ReceiptStore
from assay.store.reports import ReportStore

PROVIDER, REPORTER = tiny_key(1), tiny_key(2)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database."""
    return f"sqlite:///{tmp_path / 'gateway.db'}"


def report(number: int, *, by: Key = REPORTER, good: bool = True) -> SignedReport:
    """On receipt `number` of the provider."""
    return sign_report(tiny_bundle(tiny_request(str(number), max_tokens=1), PROVIDER, number).receipt, by, good=good)


def judged(one: SignedReport, outcome: Outcome, check: str = "replay") -> Verdict:
    """A verdict of one's own on the same receipt."""
    receipt = one.receipt
    finding = Finding(check, outcome, "as the test wants it")
    return Verdict(receipt.digest.hex(), receipt.provider, receipt.level, outcome, (finding,), 1, 0.1)


def test_each_is_kept_once_and_over_restarts(url: str) -> None:
    """The same word twice is one; another word on the same receipt is another one."""
    store = ReportStore(url)
    store.keep([report(1), report(1), report(1, good=False)])
    store.keep([report(1)])
    store.close()
    again = ReportStore(url)
    assert [(t.reporter, t.provider, t.good, t.here) for t in again.load()] == [
        (REPORTER.address, PROVIDER.address, True, "unknown"),
        (REPORTER.address, PROVIDER.address, False, "unknown"),
    ]
    again.close()


def test_what_was_found_here_stands_beside(url: str) -> None:
    """A failure outweighs what held; what could not be checked says nothing."""
    store, receipts = ReportStore(url), ReceiptStore(url)
    found = [report(number) for number in range(4)]
    store.keep(found)
    for number, outcome, check in (
        (0, "holds", "replay"), (1, "holds", "replay"), (1, "fails", "replay"), (2, "inconclusive", "model")
    ):  # fmt: skip
        receipts.judge(judged(found[number], outcome, check))
    assert [each.here for each in store.load()] == ["holds", "fails", "unknown", "unknown"]
    store.close()
    receipts.close()


def test_the_newest_of_each_and_of_all_are_kept(url: str) -> None:
    """Who says much displaces first what it said itself."""
    store = ReportStore(url, most=3, most_in_all=5)
    store.keep([report(0, by=tiny_key(3))])
    store.keep([report(number) for number in range(6)])
    left = [report(0, by=tiny_key(3)).receipt.digest, *(report(number).receipt.digest for number in (3, 4, 5))]
    assert [each.receipt for each in store.load()] == left
    store.keep([report(number, by=tiny_key(4)) for number in range(3)])
    assert len(store.load()) == 5
    assert {each.reporter for each in store.load()} == {REPORTER.address, tiny_key(4).address}
    store.close()
