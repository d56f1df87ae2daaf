"""A gateway pays a provider for what it got, on a real channel; providers that lie get nothing beyond that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.apps.paying_kit import (
    CREDIT,
    GATEWAY,
    PRICE,
    PROVIDER,
    QUICK,
    Bank,
    Gateway,
    claim,
    endless,
    paid_provider,
    paid_up,
    paying_gateway,
    soon,
)
from tests.running import provider, running
from tests.tiny import TinyEngine, tiny_key

from assay.apps import wallet as wallet_module
from assay.apps.funding import Budget
from assay.apps.gateway import gateway_app
from assay.apps.local import LocalAnswer
from assay.apps.meter import Meter
from assay.apps.serving import LocalAnswers
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Step
from assay.core.errors import ChainFailed, ProviderFailed, StoreError, TransactionFailed
from assay.core.offer import Price
from assay.core.payment import Due, channel_salt
from assay.core.ports import Engine
from assay.core.receipt import Receipt, sign
from assay.core.request import Request
from assay.core.verdict import Finding, Verdict
from assay.journey import MarketAnswers
from assay.network.http import HttpTransport
from assay.store.receipts import ReceiptStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def bank() -> Bank:
    """A chain of the test's own."""
    return Bank.new()


@pytest.fixture(autouse=True)
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left to do is looked at often."""
    monkeypatch.setattr(wallet_module, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(wallet_module, "GATHER_SECONDS", 0.01)


def receipt_of(reply: httpx.Response) -> Receipt:
    """The receipt of a reply, which must be one."""
    assert reply.status_code == 200, reply.text
    (receipt,) = reply.json()["assay"]["receipts"]
    return Receipt.from_json(receipt)


def worth(receipt: Receipt) -> int:
    """What its answer costs."""
    return PRICE.of(receipt.prompt_count, receipt.output_count)


async def test_answers_are_paid_to_the_last_wei(tmp_path: Path, bank: Bank) -> None:
    """Five answers: receipts name the channel and rise by each price; both books, and the chain, say the same sum."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        total = 0
        for _ in range(5):
            receipt = receipt_of(await here.ask())
            total += worth(receipt)
            assert (receipt.channel, receipt.amount) == (here.channel.id, total)
        await paid_up(here, there)
        assert here.channel.signed == total
        assert here.channels.voucher_for(receipt.digest) == total
        assert here.channels.outstanding() == []
        [(terms, voucher)] = there.tabs.vouchers()
        client = bank.client(PROVIDER)
        assert claim(client, terms, voucher) == total
        before = client.token_balance(PROVIDER.address)
        client.settle(PROVIDER.address, terms.token, "settle")
        client.outbox.wait("settle", 5)
        assert client.token_balance(PROVIDER.address) == before + total


async def test_answers_at_the_same_time_are_paid_too(tmp_path: Path, bank: Bank) -> None:
    """Receipts come in any order; no voucher is for more than what they are worth together."""
    async with paid_provider(tmp_path, bank, TinyEngine(delay=0.002)) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            replies = await asyncio.gather(*(here.ask(max_tokens=40 + n) for n in range(6)))
            receipts = [receipt_of(reply) for reply in replies]
            await paid_up(here, there)
            assert max(receipt.amount for receipt in receipts) == sum(map(worth, receipts)) == here.channel.signed


async def test_a_long_answer_is_paid_on_the_way(tmp_path: Path, bank: Bank) -> None:
    """With a credit of a tenth of its price it comes whole, and without a stop."""
    async with paid_provider(tmp_path, bank, endless(), credit=120) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            receipt = receipt_of(await here.ask(max_tokens=600))
            assert (receipt.output_count, receipt.stop) == (600, "length")
            await paid_up(here, there)
            assert there.refused == []


async def test_who_hangs_up_pays_for_what_came(tmp_path: Path, bank: Bank) -> None:
    """The receipt of a broken stream is paid like another."""
    async with paid_provider(tmp_path, bank, endless(0.01)) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            body = {
                "model": "tiny",
                "messages": [{"role": "user", "content": "hello"}],
                "stream": True,
                "max_tokens": 600,
            }
            async with here.http.stream("POST", f"{here.url}/v1/chat/completions", json=body) as reply:
                async for _ in reply.aiter_lines():
                    break
            await soon(lambda: here.store.count() == 1)
            await paid_up(here, there)
            assert 0 < here.channel.signed < 200


class Losing(HttpTransport):
    """Loses the first token of each answer, and the connection with it."""

    async def send(self, *args: Any, **more: Any) -> Any:
        answer = await super().send(*args, **more)
        steps = answer.steps()

        async def lost() -> AsyncIterator[Step]:
            await anext(steps)
            raise ProviderFailed("the connection broke", "ask another provider")
            yield

        answer.steps = lost
        return answer


async def test_a_first_token_that_is_lost_on_the_way_is_paid(tmp_path: Path, bank: Bank) -> None:
    """The gateway was told what is due and saw no token, and the provider has signed for one: who breaks off is not
    known to have done nothing. Its receipt is fetched, and it is no lie to ask for that later."""
    async with paid_provider(tmp_path, bank, endless(0.01), credit=12) as there:
        async with paying_gateway(tmp_path, bank, there.url, transport=Losing) as here:
            assert (await here.ask(max_tokens=8)).status_code == 424
            await soon(lambda: here.channel.earned)
            await paid_up(here, there)
            assert here.channels.outstanding() == []
            assert here.channel.state == "open"


async def test_each_part_of_an_answer_is_paid_to_who_delivered_it(tmp_path: Path, bank: Bank) -> None:
    """A provider breaks off in mid-answer and another one goes on: two receipts, two channels, and on each just the
    price of the tokens that were read and delivered; what was delivered before is read like a prompt."""
    one, two = tiny_key(11), tiny_key(12)
    async with (
        paid_provider(tmp_path, bank, TinyEngine(breaks_at=5), key=one) as first,
        paid_provider(tmp_path, bank, TinyEngine(), key=two) as second,
        paying_gateway(tmp_path, bank, first.url, second.url) as here,
    ):
        reply = await here.ask(assay={"order": [first.url]}, max_tokens=12, seed=3)
        assert reply.status_code == 200, reply.text
        parts = [Receipt.from_json(item) for item in reply.json()["assay"]["receipts"]]
        assert [(part.provider, part.output_count) for part in parts] == [(one.address, 5), (two.address, 7)]
        assert parts[1].prompt_count == parts[0].prompt_count + 5
        assert [part.amount for part in parts] == list(map(worth, parts))

        def paid() -> bool:
            found = {
                channel.id: (channel.earned, channel.signed, channel.accepted) for channel in here.channels.known()
            }
            return found == {part.channel: (part.amount,) * 3 for part in parts}

        await soon(paid)
        assert here.channels.outstanding() == []
        for part, there in zip(parts, (first, second), strict=True):
            kept = there.tabs.find(part.channel)
            assert kept is not None
            assert kept.owed == part.amount


class Blurting(LocalAnswers):
    """Gives its first tokens just as it is hung up on, so that they cannot be called back."""

    async def answer(self, request: Request, *args: Any, **more: Any) -> LocalAnswer:
        found = await super().answer(request, *args, **more)
        close = found.close

        async def late() -> None:
            await asyncio.sleep(1.0)
            await close()

        found.close = late  # type: ignore[method-assign]
        return found


@pytest.mark.parametrize("kind", [LocalAnswers, Blurting])
async def test_who_was_too_late_is_paid_what_it_could_not_be_stopped_from_delivering(
    tmp_path: Path, bank: Bank, kind: type[LocalAnswers]
) -> None:
    """Mostly nothing. Its next answer is paid, and what it asks for in all is no lie."""
    slow, quick = TinyEngine(delay=0.8), TinyEngine()
    async with (
        paid_provider(tmp_path, bank, slow, kind=kind, price=Price(1, 1)) as late,
        paid_provider(tmp_path, bank, quick, key=tiny_key(2), price=Price(9, 9)) as other,
        paying_gateway(tmp_path, bank, late.url, other.url) as here,
    ):
        reply = await here.ask(assay={"order": [PROVIDER.address], "hedge": True})
        assert receipt_of(reply).provider == tiny_key(2).address
        await here.market.drain(5)
        slow.delay = 0.0
        again = receipt_of(await here.ask(assay={"only": [PROVIDER.address]}))
        kept = late.tabs.find(again.channel)
        assert kept is not None
        assert (kept.owed > again.prompt_count + again.output_count) == (kind is Blurting)
        assert late.refused == []
        await soon(lambda: [each.accepted for each in here.channels.known() if each.id == again.channel] == [kept.owed])


async def test_without_a_chain_a_paid_provider_is_not_asked_and_a_free_one_is(tmp_path: Path, bank: Bank) -> None:
    """402 says what to set; where somebody is free, that one answers."""
    engine = TinyEngine()
    async with paid_provider(tmp_path, bank, engine) as there, provider(
        tmp_path, TinyEngine(), tiny_key(2), price=0
    ) as free:  # fmt: skip
        for urls, status in (((there.url,), 402), ((there.url, free.url), 200)):
            store, transport = (
                ReceiptStore(f"sqlite:///{tmp_path / f'{status}.db'}"),
                HttpTransport(urls, patience=QUICK),
            )
            market = MarketAnswers(transport, store)
            app = gateway_app(market, store, close=transport.aclose)
            async with running(app) as url, httpx.AsyncClient(trust_env=False) as http:
                body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
                reply = await http.post(f"{url}/v1/chat/completions", json=body)
                assert reply.status_code == status
                if status == 402:
                    assert "[chain]" in reply.json()["error"]["message"]
        assert engine.generated == 0


async def test_free_answers_need_no_channel(tmp_path: Path, bank: Bank) -> None:
    """Also of a provider that could be paid."""
    async with paid_provider(tmp_path, bank, price=Price(0, 0)) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            assert receipt_of(await here.ask()).channel == bytes(32)
            assert here.channels.known() == []


# Money on the chain


async def test_channels_are_topped_up_in_time_and_never_beyond_the_budget(tmp_path: Path, bank: Bank) -> None:
    """Deposits of 300 while answers cost 40 each, until 900 of 1,000 are there; then the reply says so; all is paid."""
    async with paid_provider(tmp_path, bank) as there:
        async with paying_gateway(tmp_path, bank, there.url, budget=Budget(1000, 300, 150)) as here:
            statuses = []
            for _ in range(60):
                reply = await here.ask()
                statuses.append(reply.status_code)
                assert here.client.channel_state(here.channel.id).balance <= 900
                if reply.status_code == 402:  # one before may have been cut, and the rest been enough for a short one
                    break
            assert reply.status_code == 402
            assert statuses[:15] == [200] * 15
            await soon(lambda: here.channel.signed == here.channel.accepted)
            assert 900 - CREDIT < here.channel.signed <= 900
            assert here.channel.deposited == 900
            assert here.channel.deposits == 3
            assert "budget" in str(here.happened("payment_failed"))


async def test_a_deposit_under_way_at_a_crash_is_not_made_twice(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ends behind the transaction and before it is noted: the next start waits for the same one."""
    async with paid_provider(tmp_path, bank) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:

            def dies(_name: object) -> None:
                raise StoreError("killed here")

            monkeypatch.setattr(here.channels, "deposited", dies)
            assert (await here.ask()).status_code != 200
            assert (here.channel.depositing, here.channel.deposited) == (10**5, 0)
        async with paying_gateway(tmp_path, bank, there.url) as here:
            assert receipt_of(await here.ask())
            assert (here.channel.deposits, here.channel.deposited) == (1, 10**5)
            assert here.client.channel_state(here.channel.id).balance == 10**5


async def test_a_deposit_that_fails_is_said(tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """402 with the reason; the budget is free again."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:

        def reverted(name: str, _seconds: float) -> None:
            raise TransactionFailed(name, "insufficient balance")

        with monkeypatch.context() as patch:
            patch.setattr(here.client.outbox, "wait", reverted)
            reply = await here.ask()
            assert reply.status_code == 402
            assert "insufficient balance" in reply.json()["error"]["message"]
        assert here.channel.bound == 0
        assert receipt_of(await here.ask())


async def test_a_lost_database_finds_its_channel_and_signs_nothing_on_it(tmp_path: Path, bank: Bank) -> None:
    """What was signed is not known any more: the money is taken back, and another channel pays from now on."""
    async with paid_provider(tmp_path, bank) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            receipt_of(await here.ask())
            await paid_up(here, there)
            old = here.channel
        async with paying_gateway(tmp_path, bank, there.url, name="another") as here:
            receipt = receipt_of(await here.ask())
            assert receipt.channel != old.id
            assert receipt.amount == worth(receipt)
            await soon(lambda: [channel.state for channel in here.channels.known()] == ["leaving", "open"])
            lost, fresh = here.channels.known()
            assert (lost.id, lost.reason) == (old.id, "found on the chain")
            assert fresh.terms.salt == channel_salt(PROVIDER.address, 1)


async def test_money_comes_back_from_a_provider_that_was_caught(tmp_path: Path, bank: Bank) -> None:
    """It is asked no more, and what it has not earned is back when the channel's delay is over."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        receipt_of(await here.ask())
        await paid_up(here, there)
        [(terms, voucher)] = there.tabs.vouchers()
        claim(bank.client(PROVIDER), terms, voucher)
        here.wallet.leave(PROVIDER.address, "caught cheating")
        assert (await here.ask()).status_code == 402
        await soon(lambda: here.channel.state == "leaving")
        before = here.client.token_balance(GATEWAY.address)
        bank.pass_time(901)
        await soon(lambda: here.channel.state == "closed")
        back = here.channel.deposited - voucher.amount
        assert here.channel.withdrawn == back
        assert here.client.token_balance(GATEWAY.address) == before + back


async def test_money_comes_back_though_the_gateway_ended_before_it_knew(tmp_path: Path, bank: Bank) -> None:
    """A verdict that came while no gateway ran counts as soon as one runs, and nobody has to ask for anything."""
    async with paid_provider(tmp_path, bank) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            receipt = receipt_of(await here.ask())
            await paid_up(here, there)
        store = ReceiptStore(f"sqlite:///{tmp_path / 'gateway.db'}")
        wrong = Finding("replay", "fails", "another token")
        store.judge(Verdict(receipt.digest.hex(), receipt.provider, receipt.level, "fails", (wrong,), 5, 0.1))
        store.close()
        async with paying_gateway(tmp_path, bank, there.url) as here:
            await soon(lambda: here.channel.state == "leaving")
            assert here.channel.reason == "caught cheating"


async def test_terms_that_nobody_should_agree_to_are_refused(tmp_path: Path, bank: Bank) -> None:
    """Another chain, contract or token, another key that claims, years of delay: no channel, and the reason."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        there.till.requirements  # noqa: B018 - what follows is what offers say
        honest = bank.requirements()
        for wrong, said in (
            ({"chain_id": 1}, "on chain 1"),
            ({"contract": tiny_key(9).address}, "the channels here"),
            ({"token": tiny_key(9).address}, "the channels here"),
            ({"authorizer": tiny_key(9).address}, "another key claim"),
            ({"delay": 2_592_000}, "2592000 s"),
        ):
            offers = [replace(offer, payment=replace(honest, **wrong)) for offer in await here.market.models()]
            with pytest.raises(Exception, match=said):
                await here.wallet.open(offers[0], _request())
        assert here.channels.known() == []


async def test_a_provider_that_is_not_paid_into_its_vault_is_refused(tmp_path: Path, bank: Bank) -> None:
    """Where vaults are known: earnings that nobody holds back are not at stake."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        vaults = replace(here.client.addresses, vault=tiny_key(8).address)
        here.client.addresses = vaults  # type: ignore[misc]
        here.client.vault_of = lambda _provider: tiny_key(7).address  # type: ignore[method-assign]
        reply = await here.ask()
        assert reply.status_code == 402
        assert "holds nothing back" in reply.json()["error"]["message"]


async def test_no_chain_no_new_channel_but_the_old_one_serves_on(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the chain a first answer is refused with a reason; with money in a channel nothing is asked of it."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:

        def away(*_: object) -> None:
            raise ChainFailed("the node is away")

        with monkeypatch.context() as patch:
            patch.setattr(here.client, "channel_state", away)
            reply = await here.ask()
            assert (reply.status_code, "the node is away" in reply.text) == (402, True)
        receipt_of(await here.ask())
        for name in ("channel_state", "approve_and_deposit", "now"):
            monkeypatch.setattr(here.client, name, away)
        receipt_of(await here.ask())
        await paid_up(here, there)


# Providers that lie


class _AsksForMore(LocalAnswers):
    """Seven wei more than its price, on each receipt."""

    more = 7

    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        bundle = super().issue(engine, request, completion, price, *more)  # type: ignore[arg-type]
        return replace(
            bundle, receipt=sign(replace(bundle.receipt, amount=bundle.receipt.amount + self.more), PROVIDER)
        )


class _OtherChannel(LocalAnswers):
    """Names a channel that does not pay."""

    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        bundle = super().issue(engine, request, completion, price, *more)  # type: ignore[arg-type]
        return replace(bundle, receipt=sign(replace(bundle.receipt, channel=bytes([7]) * 32), PROVIDER))


class _EditedToken(LocalAnswers):
    """Signs for another token than it sent."""

    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        edited = (*completion.tokens[:-1], completion.tokens[-1] ^ 1)
        return super().issue(engine, request, replace(completion, tokens=edited), price, *more)  # type: ignore[arg-type]


async def test_a_receipt_that_asks_for_too_much_is_paid_what_its_answer_is_worth(tmp_path: Path, bank: Bank) -> None:
    """The excess is refused, the lie is reported, and the provider is dealt with no more."""
    async with paid_provider(tmp_path, bank, kind=_AsksForMore) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            reply = await here.ask()
            assert reply.status_code == 424
            assert "asks for" in reply.json()["error"]["message"]
            await soon(lambda: here.channel.signed)
            _, owed, _ = there.tabs.sums()
            assert here.channel.signed == owed  # of the honest books below the lie
            await soon(lambda: here.channel.state in ("closing", "leaving"))
            assert (await here.ask()).status_code == 402
            assert here.happened("provider_failed")


@pytest.mark.parametrize("kind", [_OtherChannel, _EditedToken])
async def test_a_receipt_that_does_not_hold_is_not_paid(tmp_path: Path, bank: Bank, kind: type[LocalAnswers]) -> None:
    """Not now, and not when it is fetched again; the money is taken back."""
    async with paid_provider(tmp_path, bank, kind=kind) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            assert (await here.ask()).status_code == 424
            await soon(lambda: here.channel.state == "leaving")
            assert (here.channel.earned, here.channel.signed) == (0, 0)
            assert here.channels.outstanding() == []


@asynccontextmanager
async def greedy(root: Path, bank: Bank, dues: Callable[[Meter], list[Due]], **options: Any) -> AsyncIterator[Any]:
    """A provider that asks for what it likes at each token."""

    class Greedy(LocalAnswers):
        async def answer(self, *args: Any, **members: Any) -> Any:
            due = members["due"]
            begun = await super().answer(*args, **members)
            meter = begun._meter
            honest = meter.covers

            def covers(tokens: int) -> bool:
                for each in dues(meter):
                    due(each)
                return honest(tokens)

            meter.covers = covers
            return begun

    async with paid_provider(root, bank, endless(0.002), kind=Greedy, **options) as there:
        yield there


async def test_a_provider_that_asks_in_mid_answer_for_more_than_there_can_be_is_left(
    tmp_path: Path, bank: Bank
) -> None:
    """The answer ends with an error, nothing is signed beyond what had come, and no further request goes there."""
    async with greedy(tmp_path, bank, lambda meter: [Due(10**20, meter._prompt)]) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            reply = await here.ask(max_tokens=600)
            assert reply.status_code == 424
            await soon(lambda: here.channel.state in ("closing", "leaving"))
            assert here.channel.signed <= PRICE.of(40, 20)
            assert (await here.ask()).status_code == 402


async def test_a_provider_that_never_stops_asking_gets_what_it_has_delivered(tmp_path: Path, bank: Bank) -> None:
    """Hundreds of demands that could be true: each is paid as far as tokens have come, and no further."""
    signed: list[tuple[int, int]] = []
    async with greedy(tmp_path, bank, lambda meter: [Due(600, meter._prompt)] * 20) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            honest = here.channels.pay

            def pay(name: bytes, asked: int, make: Any) -> Any:
                row = honest(name, asked, make)
                came = max(purse.value for purse in account.purses) if (account := _account(here)).purses else 0
                signed.append((row.signed, account.row.earned + came))
                return row

            here.channels.pay = pay  # type: ignore[method-assign]
            receipt = receipt_of(await here.ask(max_tokens=300))
            await paid_up(here, there)
            assert here.channel.signed == worth(receipt)
            assert len(signed) > 3
            assert all(amount <= value for amount, value in signed)


def _account(here: Gateway) -> Any:
    return next(iter(here.wallet._accounts.values()))


async def test_a_prompt_that_grows_between_stream_and_receipt_is_a_lie(tmp_path: Path, bank: Bank) -> None:
    """What is told in mid-answer binds."""
    async with greedy(tmp_path, bank, lambda meter: [Due(meter.account.tab.total, meter._prompt - 1)]) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            reply = await here.ask()
            assert reply.status_code == 424
            assert "another length" in reply.json()["error"]["message"]


# Crashes


async def test_a_receipt_that_was_not_counted_at_a_crash_is_fetched_and_paid(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between answer and booking: the next start asks for the receipt, and nothing is lost or doubled."""
    async with paid_provider(tmp_path, bank) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            first = receipt_of(await here.ask())
            await paid_up(here, there)

            def dies(*_: object) -> None:
                raise StoreError("killed here")

            monkeypatch.setattr(here.channels, "settle", dies)
            second = receipt_of(await here.ask())
            await soon(lambda: here.happened("payment_failed"))
            assert here.channel.signed == worth(first)
        async with paying_gateway(tmp_path, bank, there.url) as here:
            await soon(lambda: here.channel.signed == worth(first) + worth(second) == second.amount)
            await paid_up(here, there)
            third = receipt_of(await here.ask())
            assert third.amount == second.amount + worth(third)


async def test_a_full_disk_at_the_gateway_delays_payment_and_loses_none(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is signed that is not kept; when there is room again everything is."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        receipt_of(await here.ask())
        await paid_up(here, there)
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise StoreError("the disk is full")

            for name in ("settle", "begin", "pay", "accepted"):
                patch.setattr(here.channels, name, full)
            last = receipt_of(await here.ask())
            await soon(lambda: here.happened("payment_failed"))
            assert here.channel.signed < last.amount
        await soon(lambda: here.channel.signed == last.amount)
        await paid_up(here, there)


async def test_a_voucher_that_did_not_arrive_is_sent_again(tmp_path: Path, bank: Bank) -> None:
    """The provider was away, or the gateway was killed before it had sent it: signed once, sent until it is there."""

    class Deaf(HttpTransport):
        deaf = True

        async def pay(self, *args: Any) -> None:
            if self.deaf:
                raise ProviderFailed("away")
            await super().pay(*args)

    async with paid_provider(tmp_path, bank) as there:
        async with paying_gateway(tmp_path, bank, there.url, transport=Deaf) as here:
            first = receipt_of(await here.ask())
            await soon(lambda: here.channel.signed == first.amount)
            assert here.channel.accepted == 0
            assert there.tabs.sums() == (1, first.amount, 0)
        async with paying_gateway(tmp_path, bank, there.url) as here:
            await paid_up(here, there)
            assert here.channel.signed == first.amount


async def test_books_that_differ_for_good_end_in_another_channel(tmp_path: Path, bank: Bank) -> None:
    """The provider counts more than the gateway can find, and refuses: the channel is given up, the next one serves."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        receipt_of(await here.ask())
        await paid_up(here, there)
        old = here.channel
        next(iter(there.till._accounts.values())).tab.owed += 2 * CREDIT
        statuses = [(await here.ask()).status_code for _ in range(6)]
        assert statuses == [402, 402, 402, 200, 200, 200]
        assert [channel.id == old.id for channel in here.channels.known()] == [True, False]


def _request() -> Request:
    from tests.tiny import tiny_request

    return tiny_request()


async def test_a_deposit_on_its_way_when_a_channel_is_closed_comes_back_too(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for before the withdrawal, or it would arrive when all is over."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        receipt_of(await here.ask())
        await paid_up(here, there)
        here.channels.plan_deposit(here.channel.id, 500, 10**6)
        here.wallet.leave(PROVIDER.address, "done")
        await soon(lambda: here.channel.state == "leaving")
        assert (here.channel.deposited, here.channel.depositing) == (10**5 + 500, 0)
        state = here.client.channel_state(here.channel.id)
        assert state.leaving == state.balance - state.claimed == 10**5 + 500


async def test_an_answer_that_was_forgotten_in_a_crash_is_not_paid_and_no_lie(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before anything of it was kept: what is asked for it later makes nobody a liar, if it is within the
    credit, and nobody a payer. More than that stays a lie."""
    async with paid_provider(tmp_path, bank) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:

            def dies(*_: object) -> None:
                raise StoreError("killed here")

            for name in ("settle", "begin"):
                monkeypatch.setattr(here.channels, name, dies)
            lost = receipt_of(await here.ask())
        async with paying_gateway(tmp_path, bank, there.url) as here:
            known = [receipt_of(await here.ask()) for _ in range(3)]
            assert known[-1].amount == lost.amount + sum(map(worth, known))
            await soon(lambda: here.channel.accepted == sum(map(worth, known)))
            assert here.channel.state == "open"
    async with paid_provider(tmp_path, bank, kind=_AsksForMore) as there:
        async with paying_gateway(tmp_path, bank, there.url) as here:
            receipt_of(await here.ask())  # the first one after a start tells what is owed from before
            monkeypatch.setattr(_AsksForMore, "more", 14)
            assert (await here.ask()).status_code == 424
