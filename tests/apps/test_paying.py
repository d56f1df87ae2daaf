"""A gateway pays a provider for what it got, on a real channel; hostile payers and providers get nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.apps.paying_kit import (
    PROVIDER,
    Bank,
    claim,
    paid_provider,
    paid_up,
    paying_gateway,
)

from assay.core.receipt import Receipt

pytestmark = pytest.mark.anyio


@pytest.fixture
def bank() -> Bank:
    """A chain of the test's own."""
    return Bank.new()


async def test_answers_are_paid_to_the_last_wei(tmp_path: Path, bank: Bank) -> None:
    """Five answers: receipts name the channel and rise by each price; both books, and the chain, say the same sum."""
    async with paid_provider(tmp_path, bank) as there, paying_gateway(tmp_path, bank, there.url) as here:
        total = 0
        for _ in range(5):
            reply = await here.ask()
            assert reply.status_code == 200, reply.text
            [receipt] = [Receipt.from_json(item) for item in reply.json()["assay"]["receipts"]]
            total += receipt.prompt_count + 2 * receipt.output_count
            assert (receipt.channel, receipt.amount) == (here.channel.id, total)
        await paid_up(here, there)
        assert here.channel.signed == total
        assert here.channels.outstanding() == []
        [(terms, voucher)] = there.tabs.vouchers()
        provider = bank.client(PROVIDER)
        assert claim(provider, terms, voucher) == total
        provider.settle(PROVIDER.address, terms.token, "settle")
        before = provider.token_balance(PROVIDER.address)
        provider.outbox.wait("settle", 5)
        assert provider.token_balance(PROVIDER.address) == before + total
