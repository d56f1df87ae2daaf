"""The contracts as Python sees them, on the embedded chain and on a real node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, address

from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient, ChannelState
from assay.chain.outbox import Outbox, Pace
from assay.core.errors import (
    ConfigError,
    EncodingError,
    InvalidRequest,
    InvalidSignature,
    TransactionFailed,
)
from assay.core.keys import Key
from assay.core.voucher import Terms, Voucher, sign_voucher

COURT, ADA, BOB, EVE = PEOPLE[0], *PEOPLE[4:7]
WINDOW = 16_000
QUICK = Pace(poll=0.02, again=0.2, stuck=0.2, lost=0.2, outage=0.2)


@pytest.fixture(scope="module")
def addresses(town: Town) -> Addresses:
    """Where the contracts are."""
    vault = town.deploy("Vault", town.token.address, address(COURT), WINDOW)
    return Addresses(CHAIN_ID, *(each.address.lower() for each in (town.channels, town.token, vault)))


@pytest.fixture
def people(town: Town, addresses: Addresses) -> Iterator[dict[str, ChainClient]]:
    """Clients of Ada, who pays, of Bob, who serves, and of Eve."""
    found = {}
    for name, key in {"ada": ADA, "bob": BOB, "eve": EVE}.items():
        outbox = Outbox(None, town.web3.provider, key, CHAIN_ID, confirmations=0, pace=QUICK)
        found[name] = ChainClient(town.web3, addresses, key, outbox)
    yield found
    for each in found.values():
        each.outbox.close()


def voucher(client: ChainClient, key: Key, terms: Terms, amount: int) -> Voucher:
    """Of the payer's."""
    return sign_voucher(key, client.domain, terms.channel(client.domain), amount)


def done(client: ChainClient, sent: Any) -> Any:
    """Wait until it is final."""
    return client.outbox.wait(sent.name, 30)


def test_a_channel_from_deposit_to_withdrawal(town: Town, people: dict[str, ChainClient], salt: int) -> None:
    """Deposited, claimed, settled, and the rest taken back after the delay; every state is told to the wei."""
    ada, bob = people["ada"], people["bob"]
    terms = town.terms(ADA, BOB, salt, withdraw_delay=900)
    channel = terms.channel(ada.domain)
    assert ada.channel_state(channel) == ChannelState(0, 0, 0, 0)
    before = ada.token_balance(ADA.address), bob.token_balance(BOB.address)
    mined = done(ada, ada.approve_and_deposit(terms, 1000, "first"))
    assert mined.ok
    assert mined.paid > 0
    assert ada.approve_and_deposit(terms, 1000, "first").state == "final"
    assert ada.channel_state(channel) == ChannelState(1000, 0, 0, 0)
    for each in bob.claim([(terms, voucher(bob, ADA, terms, 300), 300)], "claim"):
        done(bob, each)
    owed = bob.owed(BOB.address, terms.token)
    assert owed >= 300
    done(bob, bob.settle(BOB.address, terms.token, "settle"))
    assert bob.owed(BOB.address, terms.token) == 0
    done(ada, ada.initiate_withdraw(terms, 500, "leave"))
    began = ada.now()
    assert ada.channel_state(channel) == ChannelState(1000, 300, 500, began)
    assert ada.channel_state(channel).sure == 500
    with pytest.raises(TransactionFailed, match="too early"):
        done(ada, ada.finalize_withdraw(terms, "too early"))
    town.pass_time(901)
    done(ada, ada.finalize_withdraw(terms, "back"))
    assert ada.channel_state(channel) == ChannelState(500, 300, 0, 0)
    after = ada.token_balance(ADA.address), bob.token_balance(BOB.address)
    assert (before[0] - after[0], after[1] - before[1]) == (500, owed)


@pytest.mark.parametrize("form", ["compact", "x402"])
@pytest.mark.parametrize("number", [1, 100, 250])
def test_claims(town: Town, people: dict[str, ChainClient], salt: int, number: int, form: str) -> None:
    """Of any number, a hundred to a transaction, none left out."""
    ada, bob = people["ada"], people["bob"]
    other = {} if form == "compact" else {"payer_authorizer": EVE.address}
    signer = ADA if form == "compact" else EVE
    found = [town.terms(ADA, BOB, salt + n, **other) for n in range(number)]
    for n, terms in enumerate(found):
        ada.approve_and_deposit(terms, 10, f"open/{n}")
    if number:
        ada.outbox.wait(f"open/{number - 1}/deposit", 300)
    sent = bob.claim([(terms, voucher(bob, signer, terms, 7), 7) for terms in found], "claim")
    assert len(sent) == -(-number // 100)
    gas = sum(done(bob, each).gas_used for each in sent)
    assert gas < len(sent) * 45_000 + number * (24_000 if form == "compact" else 32_000)
    states = bob.channel_states([terms.channel(bob.domain) for terms in found])
    assert states == [ChannelState(10, 7, 0, 0)] * number
    assert bob.claim([], "nothing") == []


def test_claims_of_all_kinds_at_once(town: Town, people: dict[str, ChainClient], salt: int) -> None:
    """Each in the form that it fits, by receiver and delay; a part of a voucher's amount is in the long form."""
    ada, bob = people["ada"], people["bob"]
    own = town.terms(ADA, BOB, salt)
    kinds = [own, replace(own, withdraw_delay=901), replace(own, receiver=EVE.address), replace(own, salt=bytes(32))]
    for n, terms in enumerate(kinds):
        ada.approve_and_deposit(terms, 100, f"open/{n}")
    done(ada, ada.approve_and_deposit(replace(own, payer_authorizer=EVE.address), 100, "open/5"))
    claims = [(terms, voucher(bob, ADA, terms, 60), 60) for terms in kinds[:3]]
    claims += [(kinds[3], voucher(bob, ADA, kinds[3], 80), 60)]
    hers = replace(own, payer_authorizer=EVE.address)
    claims += [(hers, voucher(bob, EVE, hers, 60), 60)]
    theirs = replace(own, receiver_authorizer=EVE.address)
    done(ada, ada.approve_and_deposit(theirs, 100, "open/6"))
    claims += [(theirs, voucher(bob, ADA, theirs, 60), 60)]
    sent = bob.claim(claims, "claim")
    assert len(sent) == 4
    for each in sent:
        done(bob, each)
    for terms, _, _ in claims:
        assert bob.channel_state(terms.channel(bob.domain)).claimed == 60


def test_claims_that_the_contract_would_refuse(town: Town, people: dict[str, ChainClient], salt: int) -> None:
    """Are refused before they cost gas: one bad voucher would spoil all that are claimed with it."""
    ada, bob, eve = people["ada"], people["bob"], people["eve"]
    terms = town.terms(ADA, BOB, salt)
    good = voucher(bob, ADA, terms, 50)
    with pytest.raises(InvalidRequest, match="more is claimed"):
        bob.claim([(terms, good, 51)], "over")
    with pytest.raises(InvalidRequest, match="or nothing"):
        bob.claim([(terms, good, 0)], "nothing")
    with pytest.raises(InvalidRequest, match="its receiver's key"):
        eve.claim([(terms, good, 50)], "eve's")
    with pytest.raises(InvalidRequest, match="twice"):
        bob.claim([(terms, good, 50), (terms, good, 40)], "twice")
    with pytest.raises(EncodingError, match="another channel"):
        bob.claim([(replace(terms, salt=bytes(32)), good, 50)], "another")
    with pytest.raises(InvalidSignature):
        bob.claim([(terms, replace(good, amount=49), 49)], "changed")
    with pytest.raises(InvalidRequest, match="payer"):
        bob.approve_and_deposit(terms, 1, "not mine")
    with pytest.raises(InvalidRequest, match="payer"):
        ada.approve_and_deposit(terms, 0, "nothing")
    assert bob.outbox.unfinished() == []


def test_a_vault(town: Town, people: dict[str, ChainClient], salt: int) -> None:
    """What a channel pays into it is held back for the window, and then released."""
    ada, bob = people["ada"], people["bob"]
    vault = bob.vault_of(BOB.address)
    if not bob.has_vault(BOB.address):
        done(bob, bob.open_vault("open"))
    assert bob.has_vault(BOB.address)
    terms = replace(town.terms(ADA, BOB, salt), receiver=vault)
    done(ada, ada.approve_and_deposit(terms, 100, "deposit"))
    (sent,) = bob.claim([(terms, voucher(bob, ADA, terms, 100), 100)], "claim")
    done(bob, sent)
    done(bob, bob.settle(vault, terms.token, "settle"))
    done(bob, bob.vault_collect("collect"))
    assert bob.vault_state(BOB.address) == (100, 0)
    town.pass_time(WINDOW + WINDOW // 16 + 1)
    assert bob.vault_state(BOB.address) == (100, 100)
    before = bob.token_balance(BOB.address)
    done(bob, bob.vault_release("release"))
    assert bob.token_balance(BOB.address) - before == 100
    assert bob.vault_state(BOB.address) == (0, 0)


def test_events(town: Town, people: dict[str, ChainClient], salt: int) -> None:
    """Every kind is told once, in order, with all that it says."""
    ada, bob = people["ada"], people["bob"]
    first = ada.node.head().number + 1
    terms = town.terms(ADA, BOB, salt, withdraw_delay=900)
    channel = terms.channel(ada.domain)
    done(ada, ada.approve_and_deposit(terms, 1000, "deposit"))
    (sent,) = bob.claim([(terms, voucher(bob, ADA, terms, 300), 300)], "claim")
    done(bob, sent)
    owed = bob.owed(BOB.address, terms.token)
    assert owed >= 300
    done(bob, bob.settle(BOB.address, terms.token, "settle"))
    done(ada, ada.initiate_withdraw(terms, 700, "leave"))
    began = ada.now()
    town.pass_time(900)
    done(ada, ada.finalize_withdraw(terms, "back"))
    (deposited,) = ada.events("Deposited", first).poll()
    assert (deposited.channel, deposited.amount) == (channel, 1000)
    assert (deposited.payer, deposited.receiver) == (ADA.address, BOB.address)
    (claimed,) = ada.events("Claimed", first).poll()
    assert (claimed.channel, claimed.amount) == (channel, 300)
    (settled,) = ada.events("Settled", first).poll()
    assert (settled.receiver, settled.token, settled.amount) == (BOB.address, terms.token, owed)
    (left,) = ada.events("WithdrawInitiated", first).poll()
    assert (left.channel, left.amount, left.at) == (channel, 700, began)
    (taken,) = ada.events("Withdrawn", first).poll()
    assert (taken.channel, taken.amount) == (channel, 700)
    assert deposited.block < claimed.block < settled.block < left.block < taken.block
    again = ada.events("Deposited", first)
    again.poll()
    assert again.next == ada.node.head().number + 1
    assert again.poll() == []
    with pytest.raises(InvalidRequest, match="no event"):
        ada.events("Transfer", 0)  # type: ignore[arg-type]


def test_what_the_chain_costs(people: dict[str, ChainClient]) -> None:
    """Gas has a price, people have ether, and time goes by."""
    ada = people["ada"]
    assert ada.gas_price() > 0
    assert ada.balance_of(ADA.address) > 10**18
    assert ada.now() >= 1_700_000_000


def test_an_outbox_of_somebody_else(people: dict[str, ChainClient], addresses: Addresses, town: Town) -> None:
    """Is not used."""
    with pytest.raises(ConfigError, match="another key"):
        ChainClient(town.web3, addresses, EVE, people["ada"].outbox)
    with pytest.raises(ConfigError, match="another key"):
        ChainClient(town.web3, replace(addresses, chain_id=5), ADA, people["ada"].outbox)


def test_addresses_from_a_configuration() -> None:
    """Are checked; what is not known is passed over."""
    own = {"chain_id": 5, "channels": "0x" + "A" * 40, "token": "0x" + "b" * 40, "block": 7, "vault": None}
    assert Addresses.from_config(own) == Addresses(5, "0x" + "a" * 40, "0x" + "b" * 40)
    for wrong in (
        {"chain_id": 0},
        {"chain_id": True},
        {"chain_id": "5"},
        {"token": "0x12"},
        {"vault": "ada"},
        {"court": 5},
    ):
        with pytest.raises(ConfigError):
            Addresses.from_config(own | wrong)
    with pytest.raises(ConfigError, match="channels is missing"):
        Addresses.from_config({name: value for name, value in own.items() if name != "channels"})
