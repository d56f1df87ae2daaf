"""A provider's till against payers that lie: nothing wrong is taken, and no work is done beyond the credit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.apps.paying_kit import (
    CREDIT,
    PROVIDER,
    Bank,
    Payer,
    claim,
    endless,
    paid_provider,
    payer,
    receipt_of,
    soon,
    tokens,
)
from tests.tiny import TinyEngine, TinyReader, tiny_key, tiny_request

from assay.apps.till import TillPace
from assay.core.errors import ChainFailed, StoreError
from assay.core.offer import Price
from assay.core.voucher import channels_domain
from assay.network.wire import decode_offers

pytestmark = pytest.mark.anyio
LONG = tiny_request(max_tokens=600)
SHORT = tiny_request(max_tokens=16)
PROMPT = len(TinyReader().render(SHORT).tokens)


@pytest.fixture
def bank() -> Bank:
    """A chain of the test's own."""
    return Bank.new()


def status(events: list[dict[str, Any]]) -> int:
    """Of an answer that was refused."""
    return events[0].get("status", 200)


async def test_an_answer_without_payment_is_refused_and_says_what_to_do(tmp_path: Path, bank: Bank) -> None:
    """402 on the native wire and at the OpenAI surface; nothing is generated."""
    engine = TinyEngine()
    async with paid_provider(tmp_path, bank, engine) as there, payer(bank, there) as somebody:
        refused = await somebody.ask(SHORT, unpaid=True)
        assert (status(refused), refused[0]["error"]["code"]) == (402, "payment_required")
        assert "gateway" in refused[0]["error"]["message"]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        assert (await somebody.http.post(f"{there.url}/v1/chat/completions", json=body)).status_code == 402
        assert engine.generated == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"receiver": tiny_key(9).address}, "terms"),
        ({"receiver_authorizer": tiny_key(9).address}, "terms"),
        ({"token": tiny_key(9).address}, "terms"),
        ({"payer": tiny_key(9).address}, "funds"),
        ({"salt": bytes(32)}, "funds"),
    ],
)
async def test_channels_on_other_terms_are_refused(
    tmp_path: Path, bank: Bank, wrong: dict[str, Any], reason: str
) -> None:
    """Another receiver, key or token is not ours; another payer or salt is a channel without money."""
    engine = TinyEngine()
    async with paid_provider(tmp_path, bank, engine) as there, payer(bank, there) as somebody:
        terms = replace(somebody.terms, **wrong)
        assert status(await somebody.ask(SHORT, terms=terms)) == 402
        mine = somebody.voucher(5, channel=terms.channel(somebody.domain))
        assert (await somebody.pay(mine, terms)).status_code == 402
        assert there.refused == [reason] * 2
        assert (engine.generated, there.tabs.sums()) == (0, (0, 0, 0))


async def test_a_delay_that_is_too_short_to_claim_in_is_refused(tmp_path: Path, bank: Bank) -> None:
    """Who could withdraw before the provider has claimed is not served."""
    async with paid_provider(tmp_path, bank) as there, payer(bank, there) as somebody:
        there.till.requirements = replace(there.till.requirements, delay=901)  # type: ignore[misc]
        assert "withdrawn in 900 s" in (await somebody.ask(SHORT))[0]["error"]["message"]


async def test_vouchers_for_another_channel_chain_contract_or_by_another_key_are_refused(
    tmp_path: Path, bank: Bank
) -> None:
    """Each is signed well for something else; none is kept, none is worth anything."""
    async with paid_provider(tmp_path, bank) as there, payer(bank, there) as somebody:
        assert receipt_of(await somebody.ask(SHORT)).amount
        contract = bank.devnet.contracts.channels
        for wrong in (
            somebody.voucher(50, channel=bytes(32)),
            somebody.voucher(50, domain=channels_domain(1, contract)),
            somebody.voucher(50, domain=channels_domain(31_337, bank.devnet.contracts.token)),
            somebody.voucher(50, key=tiny_key(9)),
            replace(somebody.voucher(50), amount=60),
        ):
            reply = await somebody.pay(wrong)
            assert (reply.status_code, reply.json()["error"]["type"]) == (402, "payment_error")
            assert status(await somebody.ask(SHORT, wrong)) == 402
        assert there.tabs.vouchers() == []
        assert set(there.refused) == {"channel", "signature"}


async def test_who_only_knows_a_channels_terms_cannot_run_up_debts_on_it(tmp_path: Path, bank: Bank) -> None:
    """Terms are public: the request itself is signed for by the channel's key, for this provider's contract."""
    async with paid_provider(tmp_path, bank) as there, payer(bank, there) as somebody:
        assert status(await somebody.ask(SHORT, key=tiny_key(9))) == 402
        assert status(await somebody.ask(SHORT, domain=channels_domain(1, bank.devnet.contracts.channels))) == 402
        assert there.tabs.sums() == (0, 0, 0)


async def test_replayed_and_lower_vouchers_change_nothing(tmp_path: Path, bank: Bank) -> None:
    """The same one again is no error and worth nothing more; a lower one is refused; the best one stays."""
    async with paid_provider(tmp_path, bank) as there, payer(bank, there) as somebody:
        await somebody.ask(SHORT)
        assert [(await somebody.pay(somebody.voucher(30))).status_code for _ in range(2)] == [204, 204]
        reply = await somebody.pay(somebody.voucher(29))
        assert (reply.status_code, there.refused) == (402, ["lower"])
        assert "30 wei is here" in reply.json()["error"]["message"]
        # beside a request it is only late
        assert receipt_of(await somebody.ask(SHORT, somebody.voucher(29)))
        [(_, voucher)] = there.tabs.vouchers()
        assert voucher == somebody.voucher(30)


async def test_vouchers_over_what_the_channel_holds_are_refused_until_it_does(tmp_path: Path, bank: Bank) -> None:
    """The chain is asked again before: money that came meanwhile counts at once."""
    async with paid_provider(tmp_path, bank) as there, payer(bank, there, 100) as somebody:
        await somebody.ask(tiny_request(max_tokens=1))
        assert (await somebody.pay(somebody.voucher(101))).status_code == 402
        assert there.refused == ["funds"]
        somebody.client.approve_and_deposit(somebody.terms, 1, "more")
        somebody.client.outbox.wait("more/deposit", 5)
        assert (await somebody.pay(somebody.voucher(101))).status_code == 204


@pytest.mark.parametrize("credit", [100, 333])
async def test_who_does_not_pay_gets_no_more_than_the_credit(tmp_path: Path, bank: Bank, credit: int) -> None:
    """A long answer ends where the credit does, with a receipt for what came; the next one is refused."""
    engine = endless(0.001)
    async with paid_provider(tmp_path, bank, engine, credit=credit) as there, payer(bank, there) as somebody:
        events = await somebody.ask(LONG)
        receipt = receipt_of(events)
        assert credit - 2 < receipt.amount <= credit
        assert receipt.amount == PROMPT + 2 * tokens(events)
        assert receipt.stop == "cancelled"
        assert [event["error"]["type"] for event in events if "error" in event] == ["payment_error"]
        assert any("due" in event for event in events)
        computed = engine.generated
        assert computed < 600
        assert status(await somebody.ask(LONG)) == 402
        assert engine.generated == computed
        assert there.tabs.sums() == (1, receipt.amount, 0)


async def test_who_hangs_up_without_paying_leaves_the_provider_within_its_credit(tmp_path: Path, bank: Bank) -> None:
    """Again and again, until the credit is used up; what is owed is what was delivered."""
    async with paid_provider(tmp_path, bank, endless(0.001)) as there, payer(bank, there) as somebody:
        for number in range(60):
            request = tiny_request(max_tokens=600, nonce=bytes([number]) * 32)
            asking = asyncio.create_task(somebody.ask(request))
            await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            if "credit" in there.refused or "unpaid" in there.refused:
                break
        await soon(lambda: not next(iter(there.till._accounts.values())).tab.running)
        _, owed, paid = there.tabs.sums()
        assert (0 < owed <= CREDIT, paid) == (True, 0)


async def test_a_long_answer_goes_on_while_it_is_paid(tmp_path: Path, bank: Bank) -> None:
    """Vouchers are asked for before the credit is used up, so the stream does not stop; all of it comes."""
    async with paid_provider(tmp_path, bank, endless(), credit=200) as there, payer(bank, there) as somebody:
        events = await somebody.ask(LONG, pay=True)
        receipt = receipt_of(events)
        assert (receipt.output_count, tokens(events)) == (600, 600)
        dues = [int(event["due"]) for event in events if "due" in event]
        assert dues == sorted(dues)
        assert 8 < len(dues) < 40
        [(_, voucher)] = there.tabs.vouchers()
        assert receipt.amount - voucher.amount <= 200


async def test_overdrafts_are_refused(tmp_path: Path, bank: Bank) -> None:
    """Two programs on one channel, each paying well by its own books: together they get what is deposited, no more."""
    deposit = 700
    async with paid_provider(tmp_path, bank, endless(0.001)) as there, payer(bank, there, deposit) as one:
        other = Payer(bank, there, one.http, one.terms, one.client)
        both = await asyncio.gather(
            *(each.ask(replace(LONG, nonce=bytes([n]) * 32)) for n, each in enumerate((one, other)))
        )
        _, owed, _ = there.tabs.sums()
        assert owed == sum(PROMPT + 2 * tokens(events) for events in both if tokens(events)) <= CREDIT
        assert (await one.pay(one.voucher(owed))).status_code == 204
        await asyncio.gather(*(each.ask(replace(LONG, nonce=bytes([n]) * 32)) for n, each in ((3, one), (4, other))))
        _, owed, _ = there.tabs.sums()
        assert owed <= deposit
        assert (await one.pay(one.voucher(owed))).status_code == 204
        refused = await one.ask(LONG)
        assert status(refused) == 402
        assert "the channel holds 700 wei" in refused[0]["error"]["message"]
        [(terms, voucher)] = there.tabs.vouchers()
        assert claim(bank.client(PROVIDER), terms, voucher) == owed


async def test_a_withdrawal_that_begins_in_mid_answer_ends_it(tmp_path: Path, bank: Bank) -> None:
    """What is leaving does not count: the stream stops at what is paid for, and that can still be claimed."""
    engine = endless(0.01)
    async with paid_provider(tmp_path, bank, engine, credit=200) as there, payer(bank, there, 5000) as somebody:
        asking = asyncio.create_task(somebody.ask(LONG, pay=True))
        await soon(lambda: engine.generated > 100)
        somebody.client.initiate_withdraw(somebody.terms, 5000, "leave")
        somebody.client.outbox.wait("leave", 5)
        events = await asking
        assert 100 < tokens(events) < 600
        assert receipt_of(events).stop == "cancelled"
        assert "funds" in there.refused
        [(terms, voucher)] = there.tabs.vouchers()
        assert claim(bank.client(PROVIDER), terms, voucher) == voucher.amount > 0
        assert status(await somebody.ask(SHORT)) == 402


class _Chain:
    """A chain that can go away."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.away, self.domain = inner, False, inner.domain

    def channel_state(self, channel: bytes) -> Any:
        if self.away:
            raise ChainFailed("the node is away")
        return self.inner.channel_state(channel)


async def test_while_the_chain_is_away_known_channels_are_served_on(tmp_path: Path, bank: Bank) -> None:
    """Within what was known to be deposited; channels that are not known have to wait."""
    chain = _Chain(bank.client(PROVIDER))
    async with paid_provider(tmp_path, bank, client=chain) as there, payer(bank, there, 1000) as somebody:
        await somebody.ask(SHORT)
        chain.away = True
        await asyncio.sleep(0.3)  # some looks fail
        assert receipt_of(await somebody.ask(SHORT))
        assert (await somebody.pay(somebody.voucher(100))).status_code == 204
        assert (await somebody.pay(somebody.voucher(1001))).status_code == 402
        async with payer(bank, there, key=tiny_key(60)) as stranger:
            refused = await stranger.ask(SHORT)
            assert (status(refused), there.refused[-1]) == (402, "chain")
            assert "try again later" in refused[0]["error"]["message"]


async def test_a_chain_that_stays_away_for_half_the_delay_ends_the_service(tmp_path: Path, bank: Bank) -> None:
    """A withdrawal could have begun unseen."""
    chain, now = _Chain(bank.client(PROVIDER)), [0.0]
    async with paid_provider(tmp_path, bank, client=chain, clock=lambda: now[0]) as there:
        async with payer(bank, there) as somebody:
            await somebody.ask(SHORT)
            chain.away = True
            now[0] = 451.0
            await there.till.look(next(iter(there.till._accounts.values())))
            assert status(await somebody.ask(SHORT)) == 402
            chain.away = False
            assert receipt_of(await somebody.ask(SHORT))


async def test_a_voucher_that_cannot_be_kept_counts_for_nothing(
    tmp_path: Path, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: 429, the voucher is not taken for paid, and is taken when there is room."""
    async with paid_provider(tmp_path, bank, endless(), credit=100) as there, payer(bank, there) as somebody:
        await somebody.ask(LONG)
        with monkeypatch.context() as patch:

            def full(_voucher: object) -> int:
                raise StoreError("the disk is full")

            patch.setattr(there.tabs, "raise_to", full)
            reply = await somebody.pay(somebody.voucher(98))
            assert (reply.status_code, "disk" in reply.text) == (429, False)
            assert status(await somebody.ask(LONG, somebody.voucher(98))) == 402
        assert (await somebody.pay(somebody.voucher(98))).status_code == 204
        assert tokens(await somebody.ask(SHORT)) > 0


async def test_a_restarted_provider_knows_what_it_is_owed(tmp_path: Path, bank: Bank) -> None:
    """What was owed and paid is as before; so are the amounts of its receipts."""
    async with paid_provider(tmp_path, bank) as there, payer(bank, there) as somebody:
        first = receipt_of(await somebody.ask(SHORT))
        await somebody.pay(somebody.voucher(first.amount))
    async with paid_provider(tmp_path, bank) as there, payer(bank, there, 0) as somebody:
        again = receipt_of(await somebody.ask(SHORT))
        assert again.amount == 2 * first.amount
        assert there.tabs.sums() == (1, again.amount, first.amount)


async def test_a_provider_that_lost_its_database_counts_what_was_paid_as_owed(tmp_path: Path, bank: Bank) -> None:
    """The first voucher on a channel that is not known is for work that was forgotten: no free answers for it."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    async with paid_provider(one, bank) as there, payer(bank, there) as somebody:
        first = receipt_of(await somebody.ask(SHORT))
    async with paid_provider(two, bank) as there, payer(bank, there, 0) as somebody:
        again = receipt_of(await somebody.ask(SHORT, somebody.voucher(first.amount)))
        assert again.amount == 2 * first.amount
        await soon(lambda: there.tabs.sums() == (1, again.amount, first.amount))


async def test_a_prompt_that_costs_more_than_the_credit_is_refused(tmp_path: Path, bank: Bank) -> None:
    """Nobody reads what nobody has paid for."""
    engine = TinyEngine()
    async with paid_provider(tmp_path, bank, engine, credit=PROMPT + 1) as there, payer(bank, there) as somebody:
        refused = await somebody.ask(SHORT)
        assert status(refused) == 402
        assert f"cost {PROMPT + 2} wei" in refused[0]["error"]["message"]
        assert engine.generated == 0


async def test_parallel_answers_share_one_credit(tmp_path: Path, bank: Bank) -> None:
    """Eight at once without a voucher: together no more than the credit, and no two receipts ask for the same."""
    pace = TillPace(grace=0.2, refresh=0.1)
    async with paid_provider(tmp_path, bank, endless(0.001), pace=pace) as there:
        async with payer(bank, there) as somebody:
            all_of_them = await asyncio.gather(*(somebody.ask(replace(LONG, nonce=bytes([n]) * 32)) for n in range(8)))
            answered = [events for events in all_of_them if tokens(events)]
            amounts = sorted(receipt_of(events).amount for events in answered)
            assert amounts[-1] == sum(PROMPT + 2 * tokens(events) for events in answered) <= CREDIT
            assert len(set(amounts)) == len(amounts)


@pytest.mark.parametrize("follows", [False, True])
async def test_the_credit_follows_prices(tmp_path: Path, bank: Bank, follows: bool) -> None:
    """Where nobody has set it: also for channels in use, and down again."""
    async with paid_provider(tmp_path, bank) as there, payer(bank, there) as somebody:
        there.till._follows = follows  # type: ignore[misc]
        assert receipt_of(await somebody.ask(SHORT)).amount
        async with httpx.AsyncClient(base_url=there.url) as http:
            offers = decode_offers((await http.get("/assay/v1/offers")).content, there.url)
        for price in (Price(CREDIT, 1), Price(1, 2)):
            found = there.till.terms_of([replace(offer, price=price) for offer in offers])
            credit = price.prompt * offers[0].context + price.output * 256 if follows else CREDIT
            assert {each.payment.credit for each in found if each.payment} == {credit}
            (account,) = there.till._accounts.values()
            assert account.tab.credit == credit
