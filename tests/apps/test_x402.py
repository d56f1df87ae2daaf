"""Answers that are paid by x402: what is charged is what was delivered, and nobody works or is charged for less."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.apps.paying_kit import HELLO, PRICE, PROVIDER, Bank, soon
from tests.apps.x402_kit import PAYER, Buyer, authorize, client_of, header, read, required, seller
from tests.tiny import TinyEngine, tiny_key

from assay.core.bundle import Bundle
from assay.core.voucher import Terms, sign_voucher

pytestmark = pytest.mark.anyio
MISMATCH = "invalid_batch_settlement_evm_cumulative_amount_mismatch"


@pytest.fixture
def bank() -> Bank:
    """A chain with a payer on it."""
    bank = Bank.new()
    bank.devnet.fund(PAYER.address)
    return bank


async def test_what_is_wanted(bank: Bank, tmp_path: Path) -> None:
    """Without a payment: 402, the most that the answer can cost, and whom to pay. Nothing is generated."""
    async with seller(tmp_path, bank, least_deposit=10_000) as there:
        buyer = Buyer(there)
        told = await buyer.wanted()
        (accepts,) = told["accepts"]
        prompt = len("hello") + 3
        assert accepts["amount"] == str(PRICE.of(prompt, 16))
        assert (accepts["payTo"], accepts["network"]) == (PROVIDER.address, "eip155:31337")
        assert accepts["extra"]["minDeposit"] == "10000"
        assert told["resource"]["url"] == f"{there.url}/v1/chat/completions"
        whole = (await buyer.wanted(max_tokens=None))["accepts"][0]["amount"]
        most = PRICE.of(prompt, 2048 - prompt)
        assert most <= int(whole) <= most + most // 1000
        twice = (await buyer.wanted(n=2))["accepts"][0]["amount"]
        assert twice == str(2 * PRICE.of(prompt, 16))
        assert there.tabs.sums() == (0, 0, 0)


async def test_answers_are_charged(bank: Bank, tmp_path: Path) -> None:
    """By what they were, in receipts that say so; the voucher is on the disk, and the money is the channel's."""
    async with seller(tmp_path, bank) as there:
        buyer = Buyer(there)
        for number in range(3):
            reply = await buyer.pay(seed=number, n=1 + number % 2)
            assert reply.status_code == 200, reply.text
            usage, told = reply.json()["usage"], buyer.told[-1]
            prompts = usage["prompt_tokens"] * (1 + number % 2)
            assert told["extra"]["chargedAmount"] == str(PRICE.of(prompts, usage["completion_tokens"]))
            assert bool(told["transaction"]) == (number == 0)
            lines = (await there.http.get(f"{there.url}/receipts/{reply.json()['id']}")).content.splitlines(
                keepends=True
            )
            assert max(Bundle.decode(line).receipt.amount for line in lines) == buyer.charged
            assert {Bundle.decode(line).receipt.channel for line in lines} == {buyer.channel}
        kept = there.tabs.find(buyer.channel)
        assert kept is not None
        assert kept.voucher is not None
        assert kept.owed == buyer.charged <= kept.voucher.amount
        assert there.funds(buyer.channel) == buyer.balance


async def test_a_channel_is_topped_up(bank: Bank, tmp_path: Path) -> None:
    """As soon as the next voucher would be for more than there is."""
    async with seller(tmp_path, bank) as there:
        buyer = Buyer(there)
        while buyer.deposits < 2:
            assert (await buyer.pay()).status_code == 200
        assert there.funds(buyer.channel) == buyer.balance >= buyer.charged


async def test_completions_too(bank: Bank, tmp_path: Path) -> None:
    """The other route is paid alike."""
    async with seller(tmp_path, bank) as there:
        buyer, url, body = Buyer(there), f"{there.url}/v1/completions", {"model": "tiny", "prompt": "x"}
        accepts = required(await there.http.post(url, json=body))["accepts"][0]
        paid = {"payment-signature": header(buyer.payload(accepts))}
        reply = await there.http.post(url, json=body, headers=paid)
        assert (reply.status_code, "payment-response" in reply.headers) == (200, True)


Meddle = Callable[[dict[str, Any]], object]
REFUSED: dict[str, tuple[Meddle, str]] = {
    "version": (lambda p: p.update(x402Version=1), "payload_type"),
    "scheme": (lambda p: p["accepted"].update(scheme="exact"), "invalid_payment_requirements"),
    "less": (lambda p: p["accepted"].update(amount="1"), "invalid_payment_requirements"),
    "another chain": (lambda p: p["accepted"].update(network="eip155:1"), "invalid_payment_requirements"),
    "another receiver": (lambda p: p["accepted"].update(payTo=PAYER.address), "invalid_payment_requirements"),
    "another channel": (lambda p: p["payload"]["voucher"].update(channelId="0x" + "11" * 32), "channel_id_mismatch"),
    "terms": (lambda p: p["payload"]["channelConfig"].update(receiver=PAYER.address), "channel_id_mismatch"),
    "refund": (lambda p: p["payload"].update(type="refund"), "payload_type"),
    "signature": (
        lambda p: p["payload"]["voucher"].update(signature="0x" + "11" * 64 + "1b"),
        "voucher_signature",
    ),
    "short signature": (lambda p: p["payload"]["voucher"].update(signature="0x11"), "payload_type"),
    "deposit's signature": (
        lambda p: p["payload"]["deposit"]["authorization"]["erc3009Authorization"].update(
            signature="0x" + "11" * 64 + "1b"
        ),
        "deposit_transaction_failed",
    ),
    "no deposit": (lambda p: p["payload"].pop("deposit"), "payload_type"),
    "permit2": (
        lambda p: p["payload"]["deposit"].update(authorization={"permit2Authorization": {}}),
        "payload_type",
    ),
    "nothing in the channel": (
        lambda p: (p["payload"].pop("deposit"), p["payload"].update(type="voucher")),
        "cumulative_exceeds_balance",
    ),
}


async def test_wrong_payments(bank: Bank, tmp_path: Path) -> None:
    """Each is refused by the word that x402 has for it, before a token or a transaction is made."""
    async with seller(tmp_path, bank) as there:
        made = there.client.node.count(PROVIDER.address)
        for name, (change, word) in REFUSED.items():
            told = required(await Buyer(there).pay(change=change))
            assert told["error"].removeprefix("invalid_batch_settlement_evm_") == word, name
        for head in ("", "%", "e30=", "W10=", "bnVsbA==", "eyJ4IjogMWU5OTk5fQ==", "A" * 20_000):
            told = required(await Buyer(there).post({}, head))
            assert told["error"] == "invalid_batch_settlement_evm_payload_type", head
        assert there.tabs.sums() == (0, 0, 0)
        assert there.client.node.count(PROVIDER.address) == made
        assert (await Buyer(there).pay()).status_code == 200


async def test_terms_of_somebody_else(bank: Bank, tmp_path: Path) -> None:
    """A channel that pays another receiver, sound in itself, pays nothing here."""

    class Elsewhere(Buyer):
        @property
        def terms(self) -> Terms:
            return replace(super().terms, receiver=tiny_key(61).address)

    async with seller(tmp_path, bank) as there:
        reply = await Elsewhere(there).pay()
        assert required(reply)["error"] == "invalid_batch_settlement_evm_receiver_mismatch"


async def test_a_small_deposit(bank: Bank, tmp_path: Path) -> None:
    """Is not worth its gas, and is refused before it is sent."""
    async with seller(tmp_path, bank, least_deposit=10_000) as there:
        reply = await Buyer(there).pay(deposit=9_999)
        assert required(reply)["error"] == "invalid_batch_settlement_evm_deposit_below_min_deposit"


async def test_a_deposit_without_money(bank: Bank, tmp_path: Path) -> None:
    """Costs nothing, and pays nothing."""
    async with seller(tmp_path, bank) as there:
        made = there.client.node.count(PROVIDER.address)
        reply = await Buyer(there, tiny_key(62)).pay()
        assert required(reply)["error"] == "invalid_batch_settlement_evm_cumulative_exceeds_balance"
        assert there.client.node.count(PROVIDER.address) == made


async def test_a_deposit_that_is_sent_twice(bank: Bank, tmp_path: Path) -> None:
    """The same payment again, as after a lost connection: the deposit is made once, and what was charged is told."""
    async with seller(tmp_path, bank) as there:
        buyer = Buyer(there)
        payload = buyer.payload((await buyer.wanted())["accepts"][0])
        assert (await buyer.post({}, header(payload))).status_code == 200
        told = required(await buyer.post({}, header(payload)))
        assert told["error"] == MISMATCH
        extra = told["accepts"][0]["extra"]
        kept = there.tabs.find(buyer.channel)
        assert kept is not None
        assert extra["channelState"]["chargedCumulativeAmount"] == str(kept.owed)
        assert extra["voucherState"]["signedMaxClaimable"] == payload["payload"]["voucher"]["maxClaimableAmount"]
        assert there.funds(buyer.channel) == int(payload["payload"]["deposit"]["amount"])


async def test_somebody_else_sends_the_deposit(bank: Bank, tmp_path: Path) -> None:
    """Who has read the payment on its way may send its deposit before; the money is in the channel, and pays."""
    async with seller(tmp_path, bank) as there:
        buyer, other = Buyer(there), client_of(bank, tiny_key(63))
        payload = buyer.payload((await buyer.wanted())["accepts"][0])
        amount = int(payload["payload"]["deposit"]["amount"])
        own = authorize(PAYER, there.deposits.token, other.addresses.collector, buyer.channel, amount)
        type(there.deposits)(other).send(buyer.terms, own, seconds=5)
        assert (await buyer.post({}, header(payload))).status_code == 200
        assert there.funds(buyer.channel) == amount


@pytest.mark.parametrize("by", [-1, 1])
async def test_vouchers_of_another_amount(bank: Bank, tmp_path: Path, by: int) -> None:
    """Less does not pay, and more shows that the client is wrong about its channel: it is told how that stands."""
    async with seller(tmp_path, bank) as there:
        buyer = Buyer(there)
        assert (await buyer.pay()).status_code == 200
        right, buyer.charged = buyer.charged, buyer.charged + by
        told = required(await buyer.pay())
        assert told["error"] == MISMATCH
        assert told["accepts"][0]["extra"]["channelState"]["chargedCumulativeAmount"] == str(right)
        buyer.charged = right
        assert (await buyer.pay()).status_code == 200


async def test_a_voucher_that_somebody_has_seen(bank: Bank, tmp_path: Path) -> None:
    """It allowed more than its answer cost. Whoever reads it on its way, or in a claim, gets nothing for the rest, by
    whatever request; its payer goes on as before."""
    async with seller(tmp_path, bank) as there:
        buyer, thief = Buyer(there), Buyer(there)
        for seed in range(50):  # until an answer ends early
            seen: list[dict[str, Any]] = []
            assert (await buyer.pay(change=seen.append, seed=seed)).status_code == 200
            voucher = seen[0]["payload"]["voucher"]
            left = int(voucher["maxClaimableAmount"]) - buyer.charged
            if left > PRICE.of(3, 1):
                break
        more = [PRICE.of(letters + 3, 1) for letters in range(left)].index(left)
        body: dict[str, object] = {"messages": [{"role": "user", "content": "h" * more}], "max_tokens": 1}
        stolen = thief.payload((await thief.wanted(**body))["accepts"][0], deposit=0)
        stolen["payload"]["voucher"] = voucher
        assert buyer.charged + int(stolen["accepted"]["amount"]) == int(voucher["maxClaimableAmount"])
        assert required(await thief.post(body, header(stolen)))["error"] == MISMATCH
        assert (await buyer.pay()).status_code == 200


async def test_one_answer_at_a_time(bank: Bank, tmp_path: Path) -> None:
    """The same money does not pay two answers under way: with the same voucher, or with two."""
    async with seller(tmp_path, bank, engine=TinyEngine(delay=0.02)) as there:
        buyer = Buyer(there)
        assert (await buyer.pay()).status_code == 200
        accepts = (await buyer.wanted())["accepts"][0]
        head = header(buyer.payload(accepts))
        replies = await asyncio.gather(*[buyer.post({}, head) for _ in range(4)])
        assert sorted(reply.status_code for reply in replies) == [200, 402, 402, 402]
        words = {required(reply)["error"] for reply in replies if reply.status_code == 402}
        assert words == {"invalid_batch_settlement_evm_channel_busy"}


async def test_streams_are_not_sold(bank: Bank, tmp_path: Path) -> None:
    """Their heads could not tell what was charged."""
    async with seller(tmp_path, bank) as there:
        buyer = Buyer(there)
        payload = buyer.payload((await buyer.wanted(stream=True))["accepts"][0])
        reply = await buyer.post({"stream": True}, header(payload))
        assert (reply.status_code, "one piece" in reply.text) == (400, True)
        assert there.tabs.sums() == (0, 0, 0)


async def test_nothing_is_charged_for_nothing(bank: Bank, tmp_path: Path) -> None:
    """A provider that is full keeps the deposit for later answers, and says so; the same channel pays the next one."""
    async with seller(tmp_path, bank, parallel=0) as there:
        buyer = Buyer(there)
        reply = await buyer.pay()
        assert reply.status_code == 429
        assert buyer.told[-1]["extra"]["chargedAmount"] == "0"
        assert there.funds(buyer.channel) == buyer.balance > 0


async def test_who_hangs_up_pays_what_came(bank: Bank, tmp_path: Path) -> None:
    """The receipt covers what was made until then; who did not hear of it is told with the next voucher."""
    async with seller(tmp_path, bank, engine=TinyEngine(delay=0.05)) as there:
        buyer = Buyer(there)
        assert (await buyer.pay(max_tokens=1)).status_code == 200
        for seed in range(50):  # until an answer is long enough
            accepts = (await buyer.wanted(seed=seed))["accepts"][0]
            try:
                async with asyncio.timeout(0.3):
                    reply = await buyer.post({"seed": seed}, header(buyer.payload(accepts)))
            except TimeoutError:
                break
            buyer.charged += int(read(reply.headers["payment-response"])["extra"]["chargedAmount"])

        def owed() -> int:
            kept = there.tabs.find(buyer.channel)
            return 0 if kept is None else kept.owed

        await soon(lambda: owed() > buyer.charged)
        assert owed() < buyer.charged + int(accepts["amount"])
        for _ in range(100):  # until the channel is free again
            told = required(await buyer.pay())
            if told["error"] == MISMATCH:
                break
            await asyncio.sleep(0.02)
        buyer.charged = int(told["accepts"][0]["extra"]["channelState"]["chargedCumulativeAmount"])
        assert buyer.charged == owed()
        assert (await buyer.pay()).status_code == 200


async def test_a_restart_and_a_lost_database(bank: Bank, tmp_path: Path) -> None:
    """What is owed outlives the provider; and where its database is lost, what the client says of a channel that it can
    prove to have paid for is where it goes on."""
    client = client_of(bank, PROVIDER)
    async with seller(tmp_path, bank, client=client) as there:
        buyer = Buyer(there)
        assert (await buyer.pay()).status_code == 200
    for folder in (tmp_path, tmp_path / "new"):
        folder.mkdir(exist_ok=True)
        async with seller(folder, bank, client=client) as there:
            buyer.there = there
            reply = await buyer.pay()
            assert reply.status_code == 200, required(reply)
            kept = there.tabs.find(buyer.channel)
            assert kept is not None
            assert kept.owed == buyer.charged


async def test_a_withdrawal_leaves_nothing_to_sign_for(bank: Bank, tmp_path: Path) -> None:
    """Money that is leaving pays no further answer."""
    async with seller(tmp_path, bank) as there:
        buyer, payer = Buyer(there), client_of(bank, PAYER)
        assert (await buyer.pay()).status_code == 200
        leaving = payer.initiate_withdraw(buyer.terms, buyer.balance - buyer.charged, "w")
        payer.outbox.wait(leaving.name, 5)
        await asyncio.sleep(0.3)  # until it has looked again
        reply = await buyer.pay(deposit=0)
        assert required(reply)["error"] == "invalid_batch_settlement_evm_cumulative_exceeds_balance"


async def test_the_native_wire_still_wants_its_own(bank: Bank, tmp_path: Path) -> None:
    """A voucher that paid in advance by x402 gives nobody else work on that channel."""
    async with seller(tmp_path, bank) as there:
        buyer = Buyer(there)
        assert (await buyer.pay()).status_code == 200
        reply = await there.http.post(f"{there.url}/v1/chat/completions", json=HELLO)
        assert reply.status_code == 402
        voucher = sign_voucher(tiny_key(64), buyer.domain, buyer.channel, buyer.charged + 10_000)
        payload = buyer.payload((await buyer.wanted())["accepts"][0], deposit=0, voucher=voucher)
        assert required(await buyer.post({}, header(payload)))["error"].endswith("voucher_signature")


def test_reading_heads() -> None:
    """The kit's own."""
    assert read(header({"a": 1})) == {"a": 1}
