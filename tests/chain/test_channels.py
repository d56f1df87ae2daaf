"""Channels: money goes in, along and out, and every fraud that is tried fails; each test is named after one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from eth_abi import encode
from tests.chain.kit import CHAIN_ID, NOBODY, PEOPLE, Clock, Town, address, config, embedded, town_of
from vyper.cli.vyper_compile import compile_files

from assay.chain.ethereum import Account, Web3
from assay.core.keys import keccak256
from assay.core.voucher import channels_domain, sign_voucher

ADA, BOB, EVE = PEOPLE[1:4]


def refused(town: Town, who: Any, call: Any, why: str) -> None:
    """The call fails for this reason, and so does its transaction."""
    assert why in town.why(who, call)
    assert town.post(who, call)["status"] == 0


def state(town: Town, terms: Any) -> tuple[int, int]:
    """Deposited and claimed."""
    return tuple(town.channels.functions.channels(terms.channel(town.domain)).call())


def test_ids_and_digests_are_those_that_are_signed(town: Town, salt: int) -> None:
    """The contract, Python and other people's libraries hash alike."""
    terms = town.terms(ADA, BOB, salt)
    channel = terms.channel(town.domain)
    assert town.channels.functions.getChannelId(config(terms)).call() == channel
    voucher = sign_voucher(ADA, town.domain, channel, 12345)
    domain = {"name": "x402 Batch Settlement", "version": "1", "chainId": CHAIN_ID,
              "verifyingContract": town.channels.address}  # fmt: skip
    types = {"Voucher": [{"name": "channelId", "type": "bytes32"}, {"name": "maxClaimableAmount", "type": "uint128"}]}
    theirs = Account.sign_typed_data(
        ADA.secret, domain, types, {"channelId": channel, "maxClaimableAmount": 12345}
    ).signature
    assert bytes(theirs) == voucher.signature


def test_from_deposit_to_payment(town: Town, salt: int) -> None:
    """Vouchers are claimed in both forms, and paid out once."""
    terms, before = town.terms(ADA, BOB, salt), town.balance(BOB.address)
    town.deposit(ADA, terms, 1000)
    town.deposit(ADA, terms, 500)
    town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 300, most=400)]))
    assert state(town, terms) == (1500, 300)
    entries = town.compact(ADA, terms, 700)
    claim = town.channels.functions.claimCompact(address(BOB), town.token.address, terms.withdraw_delay, entries)
    town.send(BOB, claim)
    assert state(town, terms) == (1500, 700)
    for _ in range(2):
        town.send(EVE, town.channels.functions.settle(address(BOB), town.token.address))
    assert town.balance(BOB.address) == before + 700


def test_by_somebody_elses_transaction(town: Town, salt: int) -> None:
    """Claims and refunds carry the authorizer's signature; anybody sends them."""
    terms = town.terms(ADA, BOB, salt)
    channel = terms.channel(town.domain)
    town.deposit(ADA, terms, 1000)
    claims = [town.claim_of(ADA, terms, 10)]
    signature = BOB.sign(town.channels.functions.getClaimBatchDigest(claims).call())
    town.send(EVE, town.channels.functions.claimWithSignature(claims, signature))
    assert state(town, terms) == (1000, 10)
    again = [town.claim_of(ADA, terms, 20)]
    refused(town, EVE, town.channels.functions.claimWithSignature(again, signature), "signature")
    digest = town.channels.functions.getRefundDigest(channel, 0, 400).call()
    refund = town.channels.functions.refundWithSignature(config(terms), 400, 0, BOB.sign(digest))
    town.send(EVE, refund)
    refused(town, EVE, refund, "nonce")
    assert state(town, terms) == (600, 10)
    refused(town, EVE, town.channels.functions.refund(config(terms), 1), "not the receiver's")
    refused(town, BOB, town.channels.functions.refund(config(terms), 0), "nothing")
    for _ in range(2):
        town.send(BOB, town.channels.functions.refund(config(terms), 10**9))
    assert state(town, terms) == (10, 10)


def test_overdraft(town: Town, salt: int) -> None:
    """More than was deposited is not paid, whatever was signed."""
    terms = town.terms(ADA, BOB, salt)
    town.deposit(ADA, terms, 1000)
    refused(town, BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 1001)]), "more than was deposited")
    refused(town, BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 9, most=8)]), "more than was signed")


def test_replay_and_stale_claims(town: Town, salt: int) -> None:
    """A voucher that was claimed, or is older than one that was, gives nothing more, and spoils no batch it is in."""
    terms = town.terms(ADA, BOB, salt)
    town.deposit(ADA, terms, 1000)
    other = town.terms(ADA, BOB, salt + 1)
    town.deposit(ADA, other, 50)
    late = town.claim_of(ADA, terms, 600)
    for claims in ([late], [late], [town.claim_of(ADA, terms, 599)], [late, town.claim_of(ADA, other, 50), late]):
        town.send(BOB, town.channels.functions.claim(claims))
        assert state(town, terms) == (1000, 600)
    args = (address(BOB), town.token.address, terms.withdraw_delay)
    town.send(BOB, town.channels.functions.claimCompact(*args, town.compact(ADA, terms, 600)))
    assert state(town, terms) == (1000, 600)
    assert state(town, other) == (50, 50)


def test_vouchers_of_somebody_else_or_for_something_else(town: Town, salt: int) -> None:
    """Another key, channel, chain, contract or token: no signature of this channel's."""
    terms, other = town.terms(ADA, BOB, salt), town.terms(ADA, BOB, salt + 1)
    for each in (terms, other):
        town.deposit(ADA, each, 1000)
    channel = terms.channel(town.domain)
    contract = town.channels.address.lower()
    wrong = [
        sign_voucher(EVE, town.domain, channel, 10),
        sign_voucher(ADA, town.domain, other.channel(town.domain), 10),
        sign_voucher(ADA, channels_domain(CHAIN_ID + 1, contract), channel, 10),
        sign_voucher(ADA, channels_domain(CHAIN_ID, EVE.address), channel, 10),
    ]
    for voucher in wrong:
        claims = [((config(terms), 10), voucher.signature, 10)]
        refused(town, BOB, town.channels.functions.claim(claims), "signature")
    elsewhere = replace(terms, token=town.channels.address.lower())
    _, signature, amount = town.claim_of(ADA, terms, 10)
    refused(town, BOB, town.channels.functions.claim([((config(elsewhere), 10), signature, amount)]), "signature")
    high = bytearray(signature)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high[32:64] = (order - int.from_bytes(high[32:64], "big")).to_bytes(32, "big")
    high[64] = 55 - high[64]
    refused(town, BOB, town.channels.functions.claim([((config(terms), 10), bytes(high), 10)]), "signature")


def test_claims_of_others(town: Town, salt: int) -> None:
    """Only who receives decides when and how much is claimed, in either form."""
    terms = town.terms(ADA, BOB, salt)
    town.deposit(ADA, terms, 1000)
    refused(town, EVE, town.channels.functions.claim([town.claim_of(ADA, terms, 1)]), "not the receiver's")
    entries = town.compact(ADA, terms, 5)
    args = (address(BOB), town.token.address, terms.withdraw_delay)
    refused(town, EVE, town.channels.functions.claimCompact(*args, entries), "signature")
    refused(town, BOB, town.channels.functions.claimCompact(*args, entries + b"x"), "entries")


def test_withdrawal_race(town: Town, salt: int) -> None:
    """The payer gets nothing before its delay, nothing that is claimed meanwhile, and nothing that came later; nobody
    else's deposit stops a withdrawal."""
    terms = town.terms(ADA, BOB, salt)
    town.deposit(ADA, terms, 1000)
    final = town.channels.functions.finalizeWithdraw(config(terms))
    refused(town, ADA, final, "not initiated")
    refused(town, EVE, town.channels.functions.initiateWithdraw(config(terms), 1000), "not the payer")
    refused(town, ADA, town.channels.functions.initiateWithdraw(config(terms), 1001), "more than is left")
    town.send(ADA, town.channels.functions.initiateWithdraw(config(terms), 1000))
    refused(town, ADA, town.channels.functions.initiateWithdraw(config(terms), 1), "initiated already")
    refused(town, ADA, final, "too early")
    town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 400)]))
    town.pass_time(86_000)
    refused(town, ADA, final, "too early")
    town.pass_time(500)
    before = town.balance(ADA.address)
    refused(town, EVE, final, "not the payer")
    town.send(ADA, final)
    assert town.balance(ADA.address) == before + 600
    assert state(town, terms) == (400, 400)
    refused(town, ADA, final, "not initiated")
    refused(town, BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 401)]), "more than was deposited")
    town.deposit(ADA, terms, 50)
    town.send(ADA, town.channels.functions.initiateWithdraw(config(terms), 50))
    town.deposit(ADA, terms, 5)
    town.send(BOB, town.channels.functions.refund(config(terms), 20))  # counts as withdrawn
    town.pass_time(90_000)
    town.send(ADA, final)
    assert state(town, terms) == (405, 400)


def test_terms_that_nobody_should_have(town: Town, salt: int) -> None:
    """Channels without an owner, or with a delay out of bounds, are not opened; nobody deposits another's tokens."""
    terms = config(town.terms(ADA, BOB, salt))
    deposit = town.channels.functions.deposit
    for place, value, why in (
        (1, NOBODY, "authorizer"), (3, NOBODY, "authorizer"), (2, NOBODY, "party"), (5, 899, "delay"),
        (5, 2_592_001, "delay"),
    ):  # fmt: skip
        wrong = (*terms[:place], value, *terms[place + 1 :])
        refused(town, ADA, deposit(wrong, 5, NOBODY, b""), why)
    refused(town, ADA, deposit(terms, 0, NOBODY, b""), "nothing")
    refused(town, EVE, deposit(terms, 5, NOBODY, b""), "not the payer")


def test_a_deposit_by_authorisation(town: Town, salt: int) -> None:
    """The payer signs, somebody else sends; it is good for this channel, amount and time, once."""
    collector = town.deploy("Collector", town.channels.address)
    terms = town.terms(ADA, BOB, salt)
    channel = terms.channel(town.domain)
    now = town.web3.eth.get_block("latest")["timestamp"]
    nonce = keccak256(encode(["bytes32", "uint256"], [channel, 77]))
    types = {
        "ReceiveWithAuthorization": [
            {"name": name, "type": kind}
            for name, kind in (("from", "address"), ("to", "address"), ("value", "uint256"),
                               ("validAfter", "uint256"), ("validBefore", "uint256"), ("nonce", "bytes32"))
        ]
    }  # fmt: skip
    domain = {"name": "Test token", "version": "1", "chainId": CHAIN_ID, "verifyingContract": town.token.address}
    message = {"from": address(ADA), "to": collector.address, "value": 900, "validAfter": 0,
               "validBefore": now + 600, "nonce": nonce}  # fmt: skip
    signature = bytes(Account.sign_typed_data(ADA.secret, domain, types, message).signature)
    data = encode(["uint256", "uint256", "uint256", "bytes"], [0, now + 600, 77, signature])
    deposit = town.channels.functions.deposit
    refused(town, EVE, deposit(config(terms), 901, collector.address, data), "signature")
    elsewhere = config(town.terms(ADA, BOB, salt + 1))
    refused(town, EVE, deposit(elsewhere, 900, collector.address, data), "signature")
    before = town.balance(ADA.address)
    town.send(EVE, deposit(config(terms), 900, collector.address, data))
    assert state(town, terms) == (900, 0)
    assert town.balance(ADA.address) == before - 900
    refused(town, EVE, deposit(config(terms), 900, collector.address, data), "used")
    args = (address(ADA), town.token.address, 900, channel, data)
    refused(town, EVE, collector.functions.collect(*args), "not Channels")


def test_several_calls_in_one(town: Town, salt: int) -> None:
    """`multicall`: all hold, or none."""
    terms = town.terms(ADA, BOB, salt)
    town.deposit(ADA, terms, 1000)
    calls = [
        town.channels.encode_abi("claim", [[town.claim_of(ADA, terms, 50)]]),
        town.channels.encode_abi("settle", [address(BOB), town.token.address]),
    ]
    before = town.balance(BOB.address)
    town.send(BOB, town.channels.functions.multicall([Web3.to_bytes(hexstr=each) for each in calls]))
    assert town.balance(BOB.address) > before
    calls[0] = town.channels.encode_abi("claim", [[town.claim_of(ADA, terms, 1001)]])
    bad = [Web3.to_bytes(hexstr=each) for each in reversed(calls)]
    refused(town, BOB, town.channels.functions.multicall(bad), "more than was deposited")


def test_deposits_within_a_deposit(town: Town, salt: int) -> None:
    """A collector that calls back, straight or through `multicall`, has nothing counted twice."""
    (found,) = compile_files([Path(__file__).with_name("Thief.vy")], ["abi", "bytecode"]).values()
    made = town.web3.eth.contract(abi=found["abi"], bytecode=found["bytecode"]).constructor()
    where = town.send(EVE, made)["contractAddress"]
    thief = town.web3.eth.contract(address=where, abi=found["abi"])
    town.send(EVE, town.token.functions.transfer(where, 10_000))
    one, two = (replace(town.terms(EVE, EVE, salt + n), payer=where.lower()) for n in (0, 1))
    before = town.balance(town.channels.address)
    deposit = town.channels.encode_abi("deposit", [config(two), 100, NOBODY, b""])
    many = town.channels.encode_abi("multicall", [[Web3.to_bytes(hexstr=deposit)]])
    settle = town.channels.encode_abi("settle", [address(BOB), town.token.address])
    for inner in (deposit, many, settle):
        call = thief.functions.steal(town.channels.address, config(one), 100, Web3.to_bytes(hexstr=inner))
        assert town.post(EVE, call)["status"] == 0
    assert (state(town, one), state(town, two)) == ((0, 0), (0, 0))
    assert town.balance(town.channels.address) == before


def test_keys_of_their_own(town: Town, salt: int) -> None:
    """Payer and receiver may have others sign and claim for them; each may still do it alone."""
    signer, clerk = PEOPLE[4:6]
    keys = {"payer_authorizer": signer.address, "receiver_authorizer": clerk.address}
    terms = replace(town.terms(ADA, BOB, salt), **keys)
    town.deposit(ADA, terms, 1000)
    for n, who in enumerate((clerk, BOB), 1):
        town.send(who, town.channels.functions.claim([town.claim_of(signer, terms, 10 * n)]))
    refused(town, BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 30)]), "signature")
    for who in (clerk, BOB):
        town.send(who, town.channels.functions.refund(config(terms), 100))
    assert state(town, terms) == (800, 20)
    for who in (signer, ADA):
        town.send(who, town.channels.functions.initiateWithdraw(config(terms), 100))
        town.pass_time(90_000)
        town.send(who, town.channels.functions.finalizeWithdraw(config(terms)))
    assert state(town, terms) == (600, 20)


def test_bounds_that_hold(town: Town, salt: int) -> None:
    """The shortest and the longest delay; all that was deposited; exactly when the delay is over; a hundred at once."""
    for delay in (900, 2_592_000):
        terms = town.terms(ADA, BOB, salt, withdraw_delay=delay)
        town.deposit(ADA, terms, 100)
        town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 100)]))
        assert state(town, terms) == (100, 100)
    many = [town.terms(ADA, BOB, salt + 10 + n) for n in range(100)]
    town.deposit(ADA, many[0], 50)
    entries = b"".join(town.compact(ADA, each, 50 if each is many[0] else 0) for each in many)
    args = (address(BOB), town.token.address, many[0].withdraw_delay)
    earned = town.channels.functions.receivers(address(BOB), town.token.address).call()[0]
    town.send(BOB, town.channels.functions.claimCompact(*args, entries))
    assert town.channels.functions.receivers(address(BOB), town.token.address).call()[0] == earned + 50
    assert town.why(BOB, town.channels.functions.claimCompact(*args, entries + entries[:132]))


def test_what_is_told(town: Town, salt: int) -> None:
    """Events of a channel's life, each once."""
    terms = town.terms(ADA, BOB, salt)
    channel, events = terms.channel(town.domain), town.channels.events
    first = town.deposit(ADA, terms, 100)["blockNumber"]
    town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 60)]))
    town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 60)]))
    for _ in range(2):
        town.send(EVE, town.channels.functions.settle(address(BOB), town.token.address))
    begun = town.send(ADA, town.channels.functions.initiateWithdraw(config(terms), 30))
    town.send(BOB, town.channels.functions.refund(config(terms), 5))
    town.pass_time(90_000)
    town.send(ADA, town.channels.functions.finalizeWithdraw(config(terms)))

    def told(kind: Any, **which: Any) -> list[dict[str, Any]]:
        return [dict(each["args"]) for each in kind().get_logs(from_block=first, argument_filters=which)]

    deposited = {"channelId": channel, "payer": address(ADA), "receiver": address(BOB), "amount": 100}
    assert told(events.Deposited, channelId=channel) == [deposited]
    assert told(events.Claimed, channelId=channel) == [{"channelId": channel, "totalClaimed": 60}]
    (settled,) = told(events.Settled, receiver=address(BOB), sender=address(EVE))
    assert settled["amount"] >= 60
    at = town.web3.eth.get_block(begun["blockNumber"])["timestamp"]
    assert told(events.WithdrawInitiated, channelId=channel) == [{"channelId": channel, "amount": 30, "at": at}]
    assert [each["amount"] for each in told(events.Withdrawn, channelId=channel)] == [5, 25]
    assert state(town, terms) == (70, 60)
    assert town.channels.functions.pendingWithdrawals(channel).call() == [0, 0]


def test_a_withdrawal_to_the_second() -> None:
    """Not a second before the delay is over, but then."""
    clock = Clock()
    chain = embedded(clock=clock)
    own = town_of(chain)
    terms = own.terms(ADA, BOB, 1, withdraw_delay=900)
    own.deposit(ADA, terms, 100)
    own.send(ADA, own.channels.functions.initiateWithdraw(config(terms), 100))
    final = own.channels.functions.finalizeWithdraw(config(terms))
    clock.now += 899
    refused(own, ADA, final, "too early")
    clock.now += 1
    own.send(ADA, final)
    assert state(own, terms) == (0, 0)


def test_absurd_amounts() -> None:
    """Of a token with more than 2^128 units: a channel holds as many, and sums of claims do not wrap around."""
    own = town_of(embedded())
    most = 2**128 - 1
    own.send(PEOPLE[0], own.token.functions.mint(address(ADA), 2**200))
    one, two = own.terms(ADA, BOB, 1), own.terms(ADA, BOB, 2)
    deposit = own.channels.functions.deposit
    own.deposit(ADA, one, 2**127)
    own.deposit(ADA, one, most - 2**127)
    refused(own, ADA, deposit(config(one), 1, NOBODY, b""), "too much")
    own.deposit(ADA, two, most)
    args = (address(BOB), own.token.address, one.withdraw_delay)
    both = own.compact(ADA, one, most) + own.compact(ADA, two, 1)
    refused(own, BOB, own.channels.functions.claimCompact(*args, both), "too much")
    own.send(BOB, own.channels.functions.claimCompact(*args, own.compact(ADA, one, most)))
    assert own.post(BOB, own.channels.functions.claim([own.claim_of(ADA, two, 1)]))["status"] == 0
    own.send(EVE, own.channels.functions.settle(address(BOB), own.token.address))
    assert own.channels.functions.receivers(address(BOB), own.token.address).call() == [most, most]
    assert state(own, two) == (most, 0)


def test_empty_batches(town: Town) -> None:
    """Nothing to claim by nobody's signature."""
    refused(town, EVE, town.channels.functions.claimWithSignature([], bytes(65)), "nothing")


def test_signatures_of_other_sizes(town: Town, salt: int) -> None:
    """A byte less or more is none."""
    terms = town.terms(ADA, BOB, salt)
    town.deposit(ADA, terms, 10)
    (_, signature, _) = town.claim_of(ADA, terms, 5)
    for wrong in (signature[:64], b"", signature[:64] + b"\x1d"):
        refused(town, BOB, town.channels.functions.claim([((config(terms), 5), wrong, 5)]), "signature")
    assert town.post(BOB, town.channels.functions.claim([((config(terms), 5), signature + b"\0", 5)]))["status"] == 0


def test_withdrawals_of_nothing_or_too_much(town: Town, salt: int) -> None:
    """Only what is not claimed can leave."""
    terms = town.terms(ADA, BOB, salt)
    initiate = town.channels.functions.initiateWithdraw
    refused(town, ADA, initiate(config(terms), 1), "more than is left")
    town.deposit(ADA, terms, 1000)
    town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 400)]))
    refused(town, ADA, initiate(config(terms), 0), "more than is left")
    refused(town, ADA, initiate(config(terms), 601), "more than is left")
    town.send(ADA, initiate(config(terms), 600))
    town.send(BOB, town.channels.functions.refund(config(terms), 200))
    pending = town.channels.functions.pendingWithdrawals(terms.channel(town.domain))
    assert pending.call()[0] == 400
    town.send(BOB, town.channels.functions.refund(config(terms), 400))  # all that was to leave has left
    assert pending.call() == [0, 0]
