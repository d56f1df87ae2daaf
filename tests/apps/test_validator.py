"""A validator at its desk: what it chooses, what it leaves, and that it goes on after failures."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs
from tests.network.test_http import stranger
from tests.running import free_port, running
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.apps.auditing import Desk, HttpDesk, StoreDesk
from assay.apps.gateway import gateway_app
from assay.apps.validator import Validator, validator_app
from assay.core.bundle import Bundle
from assay.core.errors import EncodingError, Equivocation, ProviderFailed
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.verdict import Finding, Outcome, Verdict
from assay.journey import MarketAnswers
from assay.network.memory import MemoryTransport
from assay.store.receipts import ReceiptStore

pytestmark = pytest.mark.anyio
KEY = tiny_key()


def check(bundle: Bundle, outcome: Outcome = "holds") -> Verdict:
    """A verdict without work."""
    finding = Finding("replay", outcome, "as the test wants it")
    receipt = bundle.receipt
    return Verdict(receipt.digest.hex(), receipt.provider, "pinned", outcome, (finding,), len(bundle.tokens), 0.0)


@pytest.fixture
def store(tmp_path: Path) -> ReceiptStore:
    """With forty receipts."""
    store = ReceiptStore(f"sqlite:///{tmp_path / 'gateway.db'}")
    for number in range(40):
        store.put(tiny_bundle(tiny_request(nonce=bytes([number]) * 32, max_tokens=2), KEY, number))
    return store


async def test_everything_is_checked_once_when_the_share_is_one(store: ReceiptStore) -> None:
    """All receipts get a verdict; a second look finds nothing to do, and a third what is new."""
    validator = Validator(StoreDesk(store), check, share=1.0)
    assert await validator.look() == 40
    assert await validator.look() == 0
    store.put(tiny_bundle(tiny_request("new", max_tokens=2), KEY, 100))
    assert await validator.look() == 1
    assert validator.outcomes == {"holds": 41, "fails": 0, "inconclusive": 0}
    assert store.tallies()[0].count == 41


async def test_a_share_is_chosen_by_the_salt_alone(store: ReceiptStore) -> None:
    """About the share is checked; the same salt chooses the same receipts again, another one others."""
    digests = [digest for _, digest, _ in store.unaudited(100)]

    def chosen(salt: bytes, passed: int = 99) -> list[Digest]:
        validator = Validator(StoreDesk(store), check, share=0.3, salt=salt)
        return [digest for digest in digests if validator.chooses(digest, passed)]

    assert chosen(b"a") == chosen(b"a") != chosen(b"b")
    assert 2 <= len(chosen(b"a")) <= 25
    assert chosen(b"a", passed=0) == digests
    assert set(chosen(b"a")) < set(chosen(b"a", passed=1)) < set(digests)
    assert Validator(StoreDesk(store), check, share=0.0).chooses(digests[0], 10**9) is False


async def test_new_providers_are_audited_more(store: ReceiptStore) -> None:
    """All that comes first, and less the longer nothing is found, down to the share; over a restart too. A new key
    begins anew."""
    made = await Validator(StoreDesk(store), check, share=0.05, salt=b"a").look()
    assert 5 <= made <= 25
    last = store.unaudited(100)[-1].row
    for number in range(40, 80):
        store.put(tiny_bundle(tiny_request(nonce=bytes([number]) * 32, max_tokens=2), KEY, number))
    known = [digest for row, digest, _ in store.unaudited(100) if row > last]
    again = Validator(StoreDesk(store), check, share=0.05, salt=b"b")
    assert store.passed(KEY.address) == made
    assert 0 < sum(again.chooses(digest, made) for digest in known) < len(known) / 2
    new = tiny_key(9)
    store.put(tiny_bundle(tiny_request("from a new key", max_tokens=2), new, 1))
    before = {t.provider for t in store.tallies()}
    await again.look()
    assert {t.provider for t in store.tallies()} - before == {new.address}


async def test_answers_that_cannot_be_checked_make_nobody_known(store: ReceiptStore) -> None:
    """Or a cheat would be audited less the longer it claims a machine that nobody has."""
    validator = Validator(StoreDesk(store), lambda bundle: check(bundle, "inconclusive"), share=0.0)
    assert await validator.look() == 40


async def test_failures_are_reported_loudly(store: ReceiptStore) -> None:
    """A verdict that fails is a warning with its reason, and whoever listens is told."""
    told: list[tuple[Bundle, Verdict]] = []
    validator = Validator(
        StoreDesk(store), lambda bundle: check(bundle, "fails"), share=1.0, told=lambda b, v: told.append((b, v))
    )
    with capture_logs() as logs:
        await validator.look()
    assert len(told) == 40
    assert logs[0]["log_level"] == "warning"
    assert logs[0]["reasons"] == ["as the test wants it"]


async def test_statistical_verdicts_are_also_judged_together(tmp_path: Path) -> None:
    """Eight at a time and provider by provider; a history that fails is on record as one."""
    store = ReceiptStore(f"sqlite:///{tmp_path / 'gateway.db'}")
    for number in range(20):
        request = tiny_request(nonce=bytes([number]) * 32, max_tokens=2, level="statistical")
        store.put(tiny_bundle(request, KEY, number))
    sizes: list[int] = []
    blocks: list[int] = []

    def statistical(bundle: Bundle) -> Verdict:
        return replace(check(bundle), level="statistical", evidence=0.4)

    def pool(verdicts: Sequence[Verdict], block: int) -> Finding:
        sizes.append(len(verdicts))
        blocks.append(block)
        return Finding("history", "fails" if len(sizes) == 12 else "holds", "together", statistic=1.0)

    validator = Validator(StoreDesk(store), statistical, share=1.0, pool=pool)
    await validator.look()
    assert sizes == [*range(1, 9), *range(1, 5), *range(1, 9)]
    assert blocks == [1] * 8 + [2] * 4 + [3] * 8
    assert validator.outcomes == {"holds": 19, "fails": 1, "inconclusive": 0}
    assert {(t.outcome, t.basis, t.count) for t in store.tallies()} == {
        ("holds", "test", 19),
        ("fails", "history", 1),
    }
    blocks.clear()
    store.put(tiny_bundle(tiny_request("new", max_tokens=2, level="statistical"), KEY, 20))
    await Validator(StoreDesk(store), statistical, share=1.0, pool=pool).look()
    assert blocks == [21]  # a validator that starts again repeats no number


async def test_two_receipts_under_one_number_are_shown(tmp_path: Path) -> None:
    """A contradiction that the gateway found becomes a verdict that fails, once, whatever the share."""
    store = ReceiptStore(f"sqlite:///{tmp_path / 'gateway.db'}")
    one, other = (tiny_bundle(tiny_request(word, max_tokens=2), KEY, 7) for word in ("this", "that"))
    store.put(one)
    with pytest.raises(Equivocation):
        store.put(other)
    told: list[Verdict] = []
    validator = Validator(StoreDesk(store), check, share=0.0, told=lambda _, verdict: told.append(verdict))
    assert await validator.look() == 2
    assert await validator.look() == 0
    verdict, first = told
    assert (first.outcome, first.receipt) == ("holds", one.receipt.digest.hex())
    assert (verdict.outcome, verdict.receipt) == ("fails", other.receipt.digest.hex())
    assert verdict.reasons == [f"{KEY.address} signed two different receipts under sequence number 7"]
    assert store.get(other.receipt.digest) == other


async def test_a_check_that_breaks_stops_no_other_check(store: ReceiptStore) -> None:
    """An error that nobody expected makes its receipt inconclusive; the others get their verdicts."""

    def broken(bundle: Bundle) -> Verdict:
        if bundle.receipt.sequence == 3:
            raise ZeroDivisionError("surprise")
        return check(bundle)

    validator = Validator(StoreDesk(store), broken, share=1.0)
    assert await validator.look() == 40
    assert validator.outcomes == {"holds": 39, "fails": 0, "inconclusive": 1}


@pytest.mark.parametrize("over_http", [False, True])
async def test_receipts_that_cannot_be_read_hold_up_no_others(
    store: ReceiptStore, tmp_path: Path, over_http: bool
) -> None:
    """A damaged row, or a contradiction with one, is passed over, said once and counted; from a database as from a
    gateway's desk."""
    with pytest.raises(Equivocation):
        store.put(tiny_bundle(tiny_request("other", max_tokens=2), KEY, 7))
    with sqlite3.connect(tmp_path / "gateway.db") as connection:
        connection.execute("update receipts set bundle = x'7b' where sequence in (3, 7)")
    connection.close()
    async with AsyncExitStack() as stack:
        desk: Desk = StoreDesk(store)
        if over_http:
            market = MarketAnswers(MemoryTransport({}), store)
            url = await stack.enter_async_context(running(gateway_app(market, store, audit_token="secret")))
            desk = HttpDesk(url, "secret")
            stack.push_async_callback(desk.aclose)
        validator = Validator(desk, check, share=1.0)
        with capture_logs() as logs:
            assert [await validator.look() for _ in range(2)] == [38, 0]
        assert [line["event"] for line in logs].count("receipt_skipped") == 2
        assert validator.metrics.skipped._value.get() == 2


async def test_no_failure_ends_the_work(store: ReceiptStore) -> None:
    """Also one that nobody expected is logged and tried again."""

    class Odd(_Failing):
        async def unaudited(self, after: int) -> Sequence[tuple[int, Digest]]:
            try:
                return await super().unaudited(after)
            except ProviderFailed:
                raise ZeroDivisionError("surprise") from None

    validator = Validator(Odd(StoreDesk(store)), check, share=1.0)
    working = asyncio.create_task(validator.run(0.01))
    for _ in range(500):
        if validator.outcomes["holds"] == 40:
            break
        await asyncio.sleep(0.01)
    assert validator.outcomes["holds"] == 40
    working.cancel()


async def test_the_end_of_the_program_ends_a_check_under_way(store: ReceiptStore) -> None:
    """A long check is told to stop, and makes no verdict."""
    begun, stopped = threading.Event(), threading.Event()

    def long(bundle: Bundle) -> Verdict:
        begun.set()
        assert stopped.wait(10)
        return check(bundle)

    validator = Validator(StoreDesk(store), long, share=1.0)
    async with running(validator_app(validator, interval=1, stop_check=stopped.set)):
        await asyncio.to_thread(begun.wait, 5)
    assert stopped.is_set()
    await asyncio.sleep(0.05)
    assert len(store.unaudited(100)) == 40


class _Failing:
    """A desk that fails at first."""

    def __init__(self, inner: StoreDesk) -> None:
        self._inner = inner
        self.failures = 3

    async def unaudited(self, after: int) -> Sequence[tuple[int, Digest]]:
        if self.failures:
            self.failures -= 1
            raise ProviderFailed("the gateway is away")
        return await self._inner.unaudited(after)

    async def contradictions(self) -> Sequence[tuple[Digest, Digest]]:
        return await self._inner.contradictions()

    async def bundle(self, digest: Digest) -> Bundle:
        return await self._inner.bundle(digest)

    async def tested(self, provider: Address) -> int:
        return await self._inner.tested(provider)

    async def passed(self, provider: Address) -> int:
        return await self._inner.passed(provider)

    async def judge(self, verdict: Verdict) -> None:
        await self._inner.judge(verdict)


async def test_it_goes_on_when_the_gateway_comes_back(store: ReceiptStore) -> None:
    """Failures of the desk are logged and tried again; health and metrics answer all the time."""
    validator = Validator(_Failing(StoreDesk(store)), check, share=1.0)
    async with running(validator_app(validator, interval=0.01)) as url, httpx.AsyncClient(trust_env=False) as client:
        for _ in range(200):
            report = (await client.get(f"{url}/health")).json()
            if report["verdicts"]["holds"] == 40:
                break
            await asyncio.sleep(0.02)
        assert report == {"status": "ok", "verdicts": {"holds": 40, "fails": 0, "inconclusive": 0}}
        shown = (await client.get(f"{url}/metrics")).text
        assert 'assay_checks_total{level="pinned",outcome="holds"} 40.0' in shown
        assert 'assay_check_seconds_count{level="pinned"} 40.0' in shown


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"nonsense", b'{"receipts":[{"row":"x","digest":"y"}]}', b'{"receipts":5}', b"[" * 99_999]
)
async def test_a_gateway_that_talks_nonsense_is_a_clean_error(body: bytes) -> None:
    """Also for a validator, a server is a stranger."""
    reply = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    async with stranger(reply) as url:
        desk = HttpDesk(url, "token")
        with pytest.raises(ProviderFailed):
            await desk.unaudited(0)
        with pytest.raises(EncodingError):
            await desk.bundle(bytes(32))
        with pytest.raises(ProviderFailed):
            await desk.tested(KEY.address)
        await desk.aclose()


async def test_a_gateway_that_is_away_is_a_clean_error() -> None:
    """With the address in it."""
    url = f"http://127.0.0.1:{free_port()}"
    desk = HttpDesk(url, "token")
    with pytest.raises(ProviderFailed, match=url):
        await desk.unaudited(0)
    await desk.aclose()
