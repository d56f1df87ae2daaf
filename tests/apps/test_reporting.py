"""Verdicts of others, from a validator's check to a gateway's choice: staked ones count, all others move nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.network.discovery.kit import until
from tests.network.test_http import stranger
from tests.running import running
from tests.tiny import TinyEngine, tiny_bundle, tiny_key, tiny_request

from assay.apps.auditing import StoreDesk
from assay.apps.reporting import Reporter, Reports, reports_of
from assay.apps.serving import LocalAnswers
from assay.apps.validator import Validator, validator_app
from assay.core.bundle import Bundle
from assay.core.errors import NoProvider
from assay.core.keys import Key
from assay.core.offer import Ask
from assay.core.report import SignedReport
from assay.core.verdict import Finding, Outcome, Verdict
from assay.journey import MarketAnswers
from assay.market.reputation import WHOLE, Report
from assay.market.work import Work
from assay.network.memory import MemoryTransport
from assay.store.receipts import ReceiptStore
from assay.store.reports import ReportStore

pytestmark = pytest.mark.anyio
ONE, TWO, REPORTER = tiny_key(1), tiny_key(2), tiny_key(9)


def verdict(
    bundle: Bundle, outcome: Outcome = "holds", statistic: float | None = None, check: str = "replay"
) -> Verdict:
    """One on a bundle, without work."""
    receipt = bundle.receipt
    finding = Finding(check, outcome, "as the test wants it", None, statistic, None)
    return Verdict(receipt.digest.hex(), receipt.provider, receipt.level, outcome, (finding,), 2, 0.0)


def bundles(provider: Key, count: int = 3) -> list[Bundle]:
    """Answers that somebody bought of a provider."""
    return [tiny_bundle(tiny_request(f"question {n}", max_tokens=2), provider, n) for n in range(count)]


def lines(reporter: Reporter) -> list[SignedReport]:
    """What it shows."""
    return [SignedReport.decode(line) for line in reporter._lines]


def test_only_what_is_beyond_doubt_is_reported() -> None:
    """Neither one answer's statistics, nor what could not be computed again."""
    [bundle], reporter = bundles(ONE, 1), Reporter(REPORTER)
    for left_out in (
        verdict(bundle, "inconclusive"), verdict(bundle, "fails", 0.1), verdict(bundle, "inconclusive", None, "model")
    ):  # fmt: skip
        reporter.told(bundle, left_out)
    assert lines(reporter) == []
    reporter.told(bundle, verdict(bundle))
    reporter.told(bundle, verdict(bundle, "fails"))
    reporter.told(bundle, verdict(bundle, "holds", 0.1))
    assert [each.good for each in lines(reporter)] == [True, False, True]
    for each in lines(reporter):
        each.check()
        assert (each.reporter, each.receipt) == (REPORTER.address, bundle.receipt)


@asynccontextmanager
async def validating(root: Path, reporter: Reporter, bought: Sequence[Bundle]) -> AsyncIterator[str]:
    """A validator elsewhere that checks and reports what its gateway bought; gives its address."""
    store = ReceiptStore(f"sqlite:///{root / 'elsewhere.db'}")
    for bundle in bought:
        store.put(bundle)
    validator = Validator(StoreDesk(store), verdict, share=1.0, told=reporter.told)
    async with running(validator_app(validator, interval=1, routes=[reporter.route()])) as url:
        await until(lambda: validator.outcomes["holds"] == len(bought))
        yield url
    store.close()


@asynccontextmanager
async def listening(root: Path, url: str, stakes: Mapping[str, int]) -> AsyncIterator[MarketAnswers]:
    """A gateway over two providers at one price that hears what is reported at an address."""
    kept = [ReceiptStore(f"sqlite:///{root / name}.db") for name in ("one", "two", "gateway")]
    providers = {f"memory://{n}": LocalAnswers([TinyEngine()], key, kept[n]) for n, key in enumerate((ONE, TWO))}
    market = MarketAnswers(MemoryTransport(providers), kept[2])
    reports = Reports([url], ReportStore(f"sqlite:///{root / 'gateway.db'}"), ask=0.05)
    heard: list[int] = []

    def tell(found: Sequence[Report]) -> None:
        heard.append(len(found))
        market.heard(found)

    await market.told(stakes, frozenset())
    await market.choosing.strongest(Ask("tiny", "pinned"))
    async with reports.running(lambda: stakes, tell):
        await until(lambda: len(heard) > 3)
        assert set(reports.reporters()) == {REPORTER.address}
        await market.look_up_verdicts()
        yield market
    for store in kept:
        store.close()


def trusted(market: MarketAnswers) -> dict[str, float]:
    """What is thought of whom."""
    return dict(market.router.health.trust)


async def test_a_staked_validators_word_counts(tmp_path: Path) -> None:
    """A good record elsewhere puts a provider before another one; it is known at once after a restart."""
    reporter = Reporter(REPORTER)
    async with (
        validating(tmp_path, reporter, bundles(TWO)) as url,
        listening(tmp_path, url, {REPORTER.address: 10**18}) as here,
    ):
        assert trusted(here) == {TWO.address: pytest.approx(0.3 / 10.3)}
        found = here.router.shortlist(Ask("tiny", "pinned"), Work(100, 100), 0.0)
        assert [each.offer.provider for each in found] == [TWO.address, ONE.address]
    async with (
        stranger(b"HTTP/1.1 500 X\r\n\r\n") as away,
        listening(tmp_path, away, {REPORTER.address: 10**18}) as here,
    ):
        assert trusted(here) == {TWO.address: pytest.approx(0.3 / 10.3)}


async def test_without_a_stake_nothing_moves(tmp_path: Path) -> None:
    """However much is said; nothing of it is kept, and the stake is asked for again and again."""
    reporter = Reporter(REPORTER)
    async with validating(tmp_path, reporter, bundles(TWO)) as url, listening(tmp_path, url, {}) as here:
        assert trusted(here) == {}
    store = ReportStore(f"sqlite:///{tmp_path / 'gateway.db'}")
    assert store.load() == []
    store.close()


async def test_who_buys_from_itself_and_praises_itself_moves_nothing(tmp_path: Path) -> None:
    """Its own word never counts, whatever it has at stake; that of a key that it made up counts by that key's stake
    alone, so that it has to bond as much as an honest validator would, for every provider that it praises."""
    own = Reporter(TWO)
    for bundle in bundles(TWO, 50):
        own.told(bundle, verdict(bundle))
    store = ReportStore(f"sqlite:///{tmp_path / 'gateway.db'}")
    store.keep(lines(own))
    receipts = ReceiptStore(f"sqlite:///{tmp_path / 'gateway.db'}")
    market = MarketAnswers(MemoryTransport({}), receipts)
    market.heard(reports_of(store.load()))
    await market.told({TWO.address: 10**24}, frozenset())
    await market.look_up_verdicts()
    assert trusted(market) == {}
    made_up = [tiny_key(100 + n) for n in range(5)]
    for key in made_up:
        puppet = Reporter(key)
        for bundle in bundles(TWO, 50):
            puppet.told(bundle, verdict(bundle))
        store.keep(lines(puppet))
    market.heard(reports_of(store.load()))
    await market.told({key.address: WHOLE // 5 for key in made_up}, frozenset())
    await market.look_up_verdicts()
    assert trusted(market)[TWO.address] <= 1 / 11 + 1e-9
    store.close()
    receipts.close()


async def test_who_reports_what_is_wrong_here_is_heard_no_more(tmp_path: Path) -> None:
    """An own check of one of the receipts decides over all that the reporter says; a cheat is left out as ever."""
    reporter, bought = Reporter(REPORTER), bundles(TWO)
    async with (
        validating(tmp_path, reporter, bought) as url,
        listening(tmp_path, url, {REPORTER.address: 10**18}) as here,
    ):
        assert trusted(here)
        mine = ReceiptStore(f"sqlite:///{tmp_path / 'gateway.db'}")
        mine.judge(verdict(bought[0], "fails"))
        mine.close()
        for _ in range(100):
            await here.look_up_verdicts()
            if not trusted(here):
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("the liar is still heard")
        with pytest.raises(NoProvider, match="caught cheating"):
            here.router.shortlist(Ask("tiny", "pinned", only=(TWO.address,)), Work(100, 100), 0.0)


async def test_garbage_is_refused_and_the_rest_is_heard(tmp_path: Path) -> None:
    """Lines that are none, signatures of others, too much: told in the log once a round, and read once."""
    reporter = Reporter(REPORTER)
    for bundle in bundles(TWO):
        reporter.told(bundle, verdict(bundle))
    good = list(reporter._lines)
    wrong = good[0].replace(b'"good":true', b'"good":false')
    body = b"\n".join([b"{}", b"\xff", wrong, *good, b"half a li"])
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with capture_logs() as logs:
        async with stranger(reply) as url, listening(tmp_path, url, {REPORTER.address: 10**18}) as here:
            assert trusted(here) == {TWO.address: pytest.approx(0.3 / 10.3)}
    assert len([each for each in logs if each["event"] == "report_refused"]) == 1
