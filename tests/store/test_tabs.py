"""A provider's payers and a gateway's channels at rest: nothing lost by kill -9, nothing counted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core.bundle import Bundle
from assay.core.errors import NotFound, PaymentRequired, StoreError
from assay.core.voucher import Terms, Voucher, channels_domain, sign_voucher
from assay.store.channels import Channel, ChannelStore, Outstanding
from assay.store.receipts import ReceiptStore
from assay.store.tabs import TabStore

PAYER, PROVIDER = tiny_key(50), tiny_key(1)
DOMAIN = channels_domain(31_337, tiny_key(9).address)
TERMS = Terms(PAYER.address, PAYER.address, PROVIDER.address, PROVIDER.address, tiny_key(8).address, 900, bytes(32))
CHANNEL = TERMS.channel(DOMAIN)
BIG = 2**128 - 1


def voucher(amount: int) -> Voucher:
    """Of the channel."""
    return sign_voucher(PAYER, DOMAIN, CHANNEL, amount)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database that is not there yet."""
    return f"sqlite:///{tmp_path / 'money.db'}"


def make(sequence: int, owed: int) -> Bundle:
    """A receipt for what is owed in all."""
    return tiny_bundle(tiny_request(max_tokens=2), PROVIDER, sequence, amount=owed)


def test_what_is_owed_rises_with_each_receipt_and_the_largest_amounts_fit(url: str) -> None:
    """In the receipt and in the table alike; wei of 128 bits are kept to the last one."""
    store, tabs = ReceiptStore(url), TabStore(url)
    tabs.open(CHANNEL, TERMS, 5)
    amounts = [store.charge(PROVIDER.address, CHANNEL, price, make).receipt.amount for price in (7, 0, BIG - 20)]
    assert amounts == [12, 12, BIG - 8]
    kept = tabs.find(CHANNEL)
    assert kept is not None
    assert (kept.terms, kept.owed, kept.voucher) == (TERMS, BIG - 8, None)
    assert tabs.sums() == (1, BIG - 8, 0)


def test_a_receipt_that_is_not_made_is_not_owed(url: str) -> None:
    """One transaction: an error in the pen, or a channel that is not known, leaves nothing behind."""
    store, tabs = ReceiptStore(url), TabStore(url)
    tabs.open(CHANNEL, TERMS, 0)

    def broken(_sequence: int, _owed: int) -> Bundle:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.charge(PROVIDER.address, CHANNEL, 7, broken)
    with pytest.raises(StoreError):
        store.charge(PROVIDER.address, bytes(32), 7, make)
    assert tabs.sums() == (1, 0, 0)
    assert store.count() == 0


def test_the_best_voucher_stays(url: str) -> None:
    """Whatever order they come in; opening again changes nothing."""
    tabs = TabStore(url)
    tabs.open(CHANNEL, TERMS, 0)
    assert [tabs.raise_to(voucher(amount)) for amount in (5, 9, 7, BIG, 8)] == [5, 9, 9, BIG, BIG]
    assert tabs.open(CHANNEL, TERMS, 99).voucher == voucher(BIG)
    assert tabs.vouchers() == [(TERMS, voucher(BIG))]
    tabs.close()
    assert TabStore(url).vouchers() == [(TERMS, voucher(BIG))]


def test_receipts_and_vouchers_at_the_same_time(url: str) -> None:
    """Threads of one provider: every price counts once, and the best voucher is there at the end."""
    store, tabs = ReceiptStore(url), TabStore(url)
    tabs.open(CHANNEL, TERMS, 0)
    amounts: list[int] = []

    def charge() -> None:
        amounts.extend(store.charge(PROVIDER.address, CHANNEL, 3, make).receipt.amount for _ in range(5))

    def pay(start: int) -> None:
        for amount in range(start, 20, 4):
            tabs.raise_to(voucher(amount))

    threads = [threading.Thread(target=charge) for _ in range(3)]
    threads += [threading.Thread(target=pay, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(amounts) == list(range(3, 48, 3))
    assert tabs.sums() == (1, 45, 19)


# A gateway's


def added(store: ChannelStore, number: int = 0) -> Channel:
    """A channel."""
    terms = replace(TERMS, salt=bytes([number]) * 32)
    return store.add(terms.channel(DOMAIN), PROVIDER.address, "http://there", number, terms)


def item(channel: Channel, mark: str = "1") -> Outstanding:
    """A request on its way."""
    return Outstanding(mark, channel.id, 100, "http://there", b"{}", b"{}")


def signer(channel: Channel) -> Any:
    """Signs for everything that is earned, as far as it is asked for."""

    def sign(row: Channel) -> Voucher | None:
        return sign_voucher(PAYER, DOMAIN, channel.id, min(row.earned, row.asked))

    return sign


def test_a_receipt_is_counted_once(url: str) -> None:
    """However often it is handed in; the request is not outstanding any more."""
    store = ChannelStore(url)
    channel = added(store)
    store.begin(item(channel))
    for _ in range(2):
        row = store.settle(item(channel), bytes([1]) * 32, 40, 40, signer(channel))
        assert (row.earned, row.asked, row.signed) == (40, 40, 40)
    assert store.outstanding() == []
    assert store.voucher_for(bytes([1]) * 32) == 40
    assert store.voucher_for(bytes(32)) is None


def test_nothing_lower_is_ever_signed(url: str) -> None:
    """A pen that would is not listened to."""
    store = ChannelStore(url)
    channel = added(store)
    store.settle(item(channel), bytes([1]) * 32, 40, 40, signer(channel))
    row = store.pay(channel.id, 90, lambda row: sign_voucher(PAYER, DOMAIN, row.id, 30))
    assert (row.asked, row.signed) == (90, 40)
    store.close()
    (again,) = ChannelStore(url).known()
    assert again == row
    assert again.voucher is not None
    again.voucher.check(DOMAIN, PAYER.address)


def test_the_budget_is_of_all_channels_and_money_that_is_back_counts_again(url: str) -> None:
    """Deposits under way count, and are not begun twice."""
    store = ChannelStore(url)
    one, two = added(store), added(store, 1)
    assert store.plan_deposit(one.id, 60, 100).deposits == 1
    assert store.plan_deposit(one.id, 60, 100).deposits == 1
    with pytest.raises(PaymentRequired, match="budget of 100 wei 60 are"):
        store.plan_deposit(two.id, 60, 100)
    assert store.deposited(one.id).funds == 60
    with pytest.raises(PaymentRequired):
        store.plan_deposit(one.id, 60, 100)
    store.change(one.id, lambda row: replace(row, withdrawn=30))
    assert store.plan_deposit(two.id, 60, 100).depositing == 60
    assert store.sums()["deposited"] == 60


def test_a_channel_that_is_closed_stays_closed(url: str) -> None:
    """Closing again does not bring it back; adding again does not open it; unknown ones are an error."""
    store = ChannelStore(url)
    channel = added(store)
    store.closing(channel.id, "caught")
    store.change(channel.id, lambda row: replace(row, state="closed"))
    assert store.closing(channel.id, "again").state == "closed"
    assert added(store).reason == "caught"
    with pytest.raises(NotFound):
        store.closing(bytes(32), "none")


_PROGRAM = """
import sys
from tests.store.test_tabs import *
kind, url = sys.argv[1:]
number = 0
if kind == "provider":
    store, tabs = ReceiptStore(url), TabStore(url)
    tabs.open(CHANNEL, TERMS, 0)
    owed = tabs.find(CHANNEL).owed
    while True:
        owed = store.charge(PROVIDER.address, CHANNEL, 3, make).receipt.amount
        tabs.raise_to(voucher(owed - 1))
        print(owed, flush=True)
else:
    store = ChannelStore(url)
    channel = added(store)
    number = channel.earned // 3
    while True:
        number += 1
        store.begin(item(channel, str(number)))
        row = store.settle(item(channel, str(number)), number.to_bytes(32, "big"), 3, BIG, signer(channel))
        print(row.signed, flush=True)
"""


@pytest.mark.parametrize("kind", ["provider", "gateway"])
def test_kill_at_any_moment_loses_nothing_that_was_said(url: str, tmp_path: Path, kind: str) -> None:
    """Killed eight times while it counts: what had been said is there, and sums and single entries agree."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    for turn in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, kind, url], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.013 * turn)
            process.send_signal(signal.SIGKILL)
            said = max(map(int, process.stdout.read().split()), default=0)
        if kind == "provider":
            tabs, receipts = TabStore(url), ReceiptStore(url)
            kept = tabs.find(CHANNEL)
            assert kept is not None
            assert kept.owed >= said
            assert kept.owed == 3 * receipts.count()
            assert kept.voucher is not None
            assert said - 1 <= kept.voucher.amount < kept.owed
        else:
            store = ChannelStore(url)
            (row,) = store.known()
            assert row.earned == row.signed >= said
            assert store.voucher_for((row.earned // 3).to_bytes(32, "big")) == row.earned
            assert len(store.outstanding()) <= turn + 1
