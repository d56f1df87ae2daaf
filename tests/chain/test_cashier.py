"""The cashier: what is earned comes in when it is worth its gas, before it can be taken back, and no more than that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Clock, Town, address, config, embedded, town_of
from tests.chain.nodes import Wire, away, error

from assay.chain.addresses import Addresses
from assay.chain.cashier import EACH_GAS, GAS, Cashier, Earning, Habits
from assay.chain.client import ChainClient
from assay.chain.embedded import TIP
from assay.chain.outbox import Outbox, Pace
from assay.core.errors import ConfigError
from assay.core.keys import Key
from assay.core.voucher import Terms, sign_voucher

COURT, ADA, BOB, EVE = PEOPLE[0], *PEOPLE[4:7]
WINDOW = 16_000
QUICK = Pace(poll=0.01, again=0.05, stuck=0.1, lost=0.1, outage=0.05)
FREE = Habits(token_wei_per_gas_wei=0)
ONE = (GAS["claim"] + EACH_GAS[0]) * TIP
"""What it costs to claim one voucher, wei."""


class Shop:
    """Bob's, with a vault; Ada is his customer."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.town: Town = town_of(embedded(clock=self.clock))
        self.path = path
        self.wire = Wire(self.town.web3.provider)
        town = self.town
        vault = town.deploy("Vault", town.token.address, address(COURT), WINDOW)
        self.addresses = Addresses(CHAIN_ID, *(each.address.lower() for each in (town.channels, town.token, vault)))
        self.earnings: dict[bytes, Earning] = {}
        self.client = self.open()
        self.vault = self.client.vault_of(BOB.address)

    def open(self) -> ChainClient:
        """Bob's client, perhaps after a crash."""
        outbox = Outbox(self.path, self.wire, BOB, CHAIN_ID, confirmations=0, pace=QUICK)
        return ChainClient(self.wire, self.addresses, BOB, outbox)

    def cashier(self, habits: Habits = FREE) -> Cashier:
        """Bob's, with a clock that stands unless blocks are made."""
        return Cashier(self.client, lambda: list(self.earnings.values()), habits, clock=self.clock)

    def channel(self, salt: int, amount: int = 10**18, **other: str) -> Terms:
        """Of Ada's, with a deposit."""
        terms = replace(self.town.terms(ADA, BOB, salt, withdraw_delay=900), **{"receiver": self.vault, **other})
        self.town.deposit(ADA, terms, amount)
        return terms

    def earn(self, terms: Terms, amount: int, signer: Key = ADA) -> None:
        """A better voucher."""
        name = terms.channel(self.client.domain)
        self.earnings[name] = (terms, sign_voucher(signer, self.client.domain, name, amount), 0)

    def look(self, cashier: Cashier, times: int = 1) -> None:
        """Let it look, and what it sends be mined."""
        for _ in range(times):
            cashier.step()
            while self.client.outbox.step():
                pass

    def claimed(self, terms: Terms) -> int:
        """Of a channel."""
        return self.client.channel_state(terms.channel(self.client.domain)).claimed

    def sent(self) -> int:
        """How many transactions Bob has paid for."""
        return self.town.web3.eth.get_transaction_count(address(BOB))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A chain of the test's own."""
    shop = Shop(tmp_path / "outbox")
    yield shop
    shop.client.outbox.close()


def test_from_vouchers_to_money(shop: Shop) -> None:
    """Claimed, settled, held back for the window, and paid out, with nobody doing anything; then it rests."""
    cashier, terms = shop.cashier(), shop.channel(1)
    shop.earn(terms, 1000)
    before, sent = shop.town.balance(BOB.address), shop.sent()
    shop.look(cashier, 5)
    assert shop.claimed(terms) == 1000
    assert shop.client.vault_state(BOB.address) == (1000, 0)
    assert shop.sent() == sent + 4  # claim, settle, open, collect
    shop.look(cashier, 5)
    assert shop.sent() == sent + 4
    shop.clock.now += WINDOW + WINDOW // 16
    shop.look(cashier, 3)
    assert shop.town.balance(BOB.address) == before + 1000
    assert shop.sent() == sent + 5
    assert cashier.trouble == ""


def test_gas_that_it_takes(shop: Shop) -> None:
    """Is no more than what the cashier reckons with."""
    cashier = shop.cashier()
    for salt in range(3):
        shop.earn(shop.channel(salt), 1000)
    shop.earn(shop.channel(7, payer_authorizer=EVE.address), 1000, EVE)
    for _ in range(2):
        shop.look(cashier, 5)
        shop.clock.now += WINDOW + WINDOW // 16
    found = {}
    for n in range(1, 20):
        for errand in GAS:
            for name in (f"cashier/{errand}/{n}", f"cashier/{errand}/{n}/0", f"cashier/{errand}/{n}/1"):
                row = shop.client.outbox._file.find(name)
                if row is not None and row.mined is not None:
                    found[name] = (errand, row.mined.gas_used)
    assert {errand for errand, _ in found.values()} == set(GAS)
    extra = {"claim": 3 * EACH_GAS[0]}
    assert {name: gas for name, (errand, gas) in found.items() if gas > GAS[errand] + extra.get(errand, 0)} == {}


def test_what_is_not_worth_its_gas(shop: Shop) -> None:
    """Waits until it is worth it many times, or for a day, when it is worth it at all."""
    habits = Habits(factor=20, every=86_400)
    cashier, terms = shop.cashier(habits), shop.channel(1)
    shop.earn(terms, 19 * ONE)
    shop.look(cashier, 3)
    assert shop.claimed(terms) == 0
    shop.earn(terms, 20 * ONE)
    shop.look(cashier)
    assert shop.claimed(terms) == 20 * ONE
    shop.earn(terms, 20 * ONE + 2 * ONE)
    shop.look(cashier, 3)
    assert shop.claimed(terms) == 20 * ONE
    shop.clock.now += 86_400
    shop.town.pass_time(0)
    shop.look(cashier)
    assert shop.claimed(terms) == 22 * ONE
    shop.earn(terms, 22 * ONE + ONE // 2)
    shop.clock.now += 10 * 86_400
    shop.town.pass_time(0)
    shop.look(cashier, 3)
    assert shop.claimed(terms) == 22 * ONE


def test_the_day_counts_over_restarts(shop: Shop) -> None:
    """From the last claim, by the chain's time; not from when the program began."""
    habits = Habits(factor=20, every=86_400)
    terms = shop.channel(1)
    shop.earn(terms, 20 * ONE)
    shop.look(shop.cashier(habits))
    shop.earn(terms, 22 * ONE)
    shop.clock.now += 80_000
    shop.town.pass_time(0)
    shop.look(shop.cashier(habits))
    assert shop.claimed(terms) == 20 * ONE
    shop.clock.now += 6_400
    shop.town.pass_time(0)
    shop.look(shop.cashier(habits))
    assert shop.claimed(terms) == 22 * ONE


def test_what_tokens_are_worth(shop: Shop) -> None:
    """Gas is reckoned in wei of the token at the rate that is set; a minimum holds where it costs nothing."""
    terms = shop.channel(1, 10**24 // 2)
    shop.earn(terms, 100 * ONE)
    shop.look(shop.cashier(Habits(token_wei_per_gas_wei=1000)))
    assert shop.claimed(terms) == 0
    shop.look(shop.cashier(Habits(token_wei_per_gas_wei=0, least=100 * ONE + 1)))
    assert shop.claimed(terms) == 0
    shop.look(shop.cashier(Habits(token_wei_per_gas_wei=0.001)))
    assert shop.claimed(terms) == 100 * ONE
    for wrong in (
        {"token_wei_per_gas_wei": -1},
        {"token_wei_per_gas_wei": float("nan")},
        {"look": 300},
        {"look": 0},
        {"factor": 0},
        {"least": 0},
    ):
        with pytest.raises(ConfigError):
            Habits(**wrong)


def test_a_withdrawal(shop: Shop) -> None:
    """Is answered before its delay is over: what was earned is claimed at once, worth many times its gas or not."""
    cashier, terms, other = shop.cashier(Habits()), shop.channel(1), shop.channel(2)
    shop.earn(terms, 2 * ONE)
    shop.earn(other, 2 * ONE)
    shop.look(cashier, 2)
    assert shop.claimed(terms) == 0
    shop.town.send(ADA, shop.town.channels.functions.initiateWithdraw(config(terms), 10**18))
    shop.look(cashier)
    assert shop.claimed(terms) == 2 * ONE
    assert shop.claimed(other) == 0
    shop.clock.now += 900
    shop.town.send(ADA, shop.town.channels.functions.finalizeWithdraw(config(terms)))
    shop.earn(terms, 3 * ONE)
    sent = shop.sent()
    shop.look(cashier, 3)
    assert shop.claimed(terms) == 2 * ONE
    assert shop.sent() == sent


def test_a_withdrawal_that_leaves_enough(shop: Shop) -> None:
    """Hurries nobody; nor does one that has more to lose in gas than in tokens."""
    cashier, terms, small = shop.cashier(Habits()), shop.channel(1), shop.channel(2)
    shop.earn(terms, 2 * ONE)
    shop.earn(small, ONE // 2)
    shop.town.send(ADA, shop.town.channels.functions.initiateWithdraw(config(terms), 10**18 - 2 * ONE))
    shop.town.send(ADA, shop.town.channels.functions.initiateWithdraw(config(small), 10**18))
    shop.look(cashier, 3)
    assert (shop.claimed(terms), shop.claimed(small)) == (0, 0)


def test_more_is_signed_than_there_is(shop: Shop) -> None:
    """What is there is claimed, and no voucher spoils what is claimed beside it."""
    cashier, short, good = shop.cashier(), shop.channel(1, 500), shop.channel(2)
    shop.earn(short, 900)
    shop.earn(good, 700)
    forged, foreign = shop.channel(3), shop.channel(4, receiver_authorizer=EVE.address)
    shop.earn(forged, 100, EVE)
    shop.earn(foreign, 100)
    shop.look(cashier)
    assert (shop.claimed(short), shop.claimed(good), shop.claimed(forged)) == (500, 700, 0)
    shop.look(cashier)
    assert "is not claimed" in cashier.trouble


def test_a_token_that_somebody_made(shop: Shop) -> None:
    """Is worth nothing here, however much there is of it: no gas is spent on it."""
    cashier, sent = shop.cashier(), shop.sent()
    terms = shop.town.terms(ADA, BOB, 1, token=EVE.address)
    shop.earn(terms, 10**30)
    shop.look(cashier)
    assert "whose worth is not known" in cashier.trouble
    assert shop.sent() == sent


def test_many_channels(shop: Shop) -> None:
    """All are claimed, a hundred to a transaction."""
    cashier, channels = shop.cashier(), [shop.channel(salt) for salt in range(230)]
    for terms in channels:
        shop.earn(terms, 10)
    shop.look(cashier, 2)  # 200 are looked at each time
    assert {shop.claimed(terms) for terms in channels} == {10}


def test_every_channel_has_its_turn(shop: Shop) -> None:
    """However many there are, each is looked at within a quarter of the shortest delay."""
    cashier, asked = shop.cashier(replace(FREE, least=10**12)), []
    channels = [replace(shop.town.terms(ADA, BOB, salt), receiver=shop.vault) for salt in range(700)]
    for terms in channels:
        shop.earn(terms, 10)
    true = shop.client.channel_states
    shop.client.channel_states = lambda names: asked.append(len(names)) or true(names)  # type: ignore[method-assign]
    shop.look(cashier, 8)
    assert asked == [200, 400, 400, 300, 200, 200, 200, 200]


def test_what_is_known_may_be_old(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """So all that is to be claimed is looked at again: what was taken back meanwhile spoils nothing."""
    monkeypatch.setattr("assay.chain.cashier._LOOKS", 1)
    channels = [shop.channel(salt, 1000) for salt in range(3)]
    for terms in channels:
        shop.earn(terms, 500)
    rich = shop.cashier(replace(FREE, least=10**6))
    shop.look(rich, 4)
    for terms in channels:
        shop.town.send(BOB, shop.town.channels.functions.refund(config(terms), 800))
    rich._habits = FREE  # type: ignore[misc]
    shop.look(rich)
    assert [shop.claimed(terms) for terms in channels] == [200] * 3


def test_a_crash_between_decision_and_claim(shop: Shop) -> None:
    """Another cashier goes on with what was kept, and claims nothing twice."""
    terms, sent = shop.channel(1), shop.sent()
    shop.earn(terms, 1000)
    shop.wire.rules["eth_sendRawTransaction"] = away
    shop.cashier().step()
    shop.client.outbox._try_step()
    shop.client.outbox.close()
    shop.client = shop.open()
    again = shop.cashier()
    again.step()
    assert len(shop.client.outbox.unfinished("cashier/claim/")) == 1
    shop.wire.rules.clear()
    shop.look(again, 5)
    assert shop.claimed(terms) == 1000
    assert shop.sent() == sent + 4


def test_claims_that_fail(shop: Shop) -> None:
    """Are tried again later and later, not in a circle; what is wrong is told."""
    cashier, terms = shop.cashier(), shop.channel(1)
    shop.earn(terms, 1000)
    shop.wire.rules["eth_estimateGas"] = lambda _: error("execution reverted: no", 3)
    tries = []
    for _ in range(40):
        before = shop.client.outbox._file.total()
        cashier.step()
        while shop.client.outbox.unfinished():
            shop.client.outbox.step()
            time.sleep(0.01)
        tries.append(shop.client.outbox._file.total() - before)
        shop.clock.now += 15
    assert 3 <= sum(tries) <= 7
    shop.wire.rules.clear()
    shop.clock.now += 15 * 64
    shop.look(cashier, 2)
    assert shop.claimed(terms) == 1000


def test_outages(shop: Shop) -> None:
    """Are waited out by its thread, and told."""
    cashier, terms = shop.cashier(replace(FREE, look=0.02)), shop.channel(1)
    shop.earn(terms, 1000)
    shop.wire.rules["*"] = away
    cashier.start()
    shop.client.outbox.start()
    end = time.monotonic() + 10
    while "connection refused" not in cashier.trouble:
        assert time.monotonic() < end
        time.sleep(0.01)
    shop.wire.rules.clear()
    while shop.claimed(terms) != 1000:
        assert time.monotonic() < end
        time.sleep(0.01)
    cashier.close()
