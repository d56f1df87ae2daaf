"""The test token: what snekmate does not do itself, transfers by signature."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, address, embedded, town_of
from web3.logs import DISCARD

from assay.chain.ethereum import Account
from assay.core.keys import Key

ADA, BOB, EVE = PEOPLE[1:4]


@pytest.fixture(scope="module")
def town() -> Town:
    """A chain with the token on it."""
    return town_of(embedded())


def authorised(
    town: Town, owner: Key, kind: str, nonce: int, *, amount: int = 100, after: int = 0, before: int = 2**40
) -> tuple[list[Any], bytes]:
    """The arguments, and the owner's signature over them."""
    names = (("from", "address"), ("to", "address"), ("value", "uint256"), ("validAfter", "uint256"),
             ("validBefore", "uint256"), ("nonce", "bytes32"))  # fmt: skip
    domain = {"name": "Test token", "version": "1", "chainId": CHAIN_ID, "verifyingContract": town.token.address}
    values = [address(owner), address(BOB), amount, after, before, nonce.to_bytes(32, "big")]
    types = {kind: [{"name": name, "type": type_} for name, type_ in names]}
    message = dict(zip((name for name, _ in names), values, strict=True))
    return values, bytes(Account.sign_typed_data(owner.secret, domain, types, message).signature)


def test_a_transfer_by_signature(town: Town) -> None:
    """Anybody sends it, once; what is signed is what is moved."""
    values, signature = authorised(town, ADA, "TransferWithAuthorization", 1)
    parts = (signature[64], signature[:32], signature[32:64])
    call = town.token.functions.transferWithAuthorization(*values, *parts)
    before = town.balance(ADA.address), town.balance(BOB.address)
    (event,) = town.token.events.AuthorizationUsed().process_receipt(town.send(EVE, call), errors=DISCARD)
    assert (event["args"]["authorizer"], event["args"]["nonce"]) == (address(ADA), values[5])
    assert (town.balance(ADA.address), town.balance(BOB.address)) == (before[0] - 100, before[1] + 100)
    assert town.token.functions.authorizationState(address(ADA), values[5]).call()
    assert "used" in town.why(EVE, call)
    for place, other in ((0, address(EVE)), (1, address(EVE)), (2, 101), (3, 1), (4, 2**41), (5, b"\x02" * 32)):
        wrong = [*values[:place], other, *values[place + 1 :]]
        why = town.why(EVE, town.token.functions.transferWithAuthorization(*wrong, *parts))
        assert "authorization" in why
    with_other_kind, _ = authorised(town, ADA, "ReceiveWithAuthorization", 9)
    _, signature = authorised(town, ADA, "TransferWithAuthorization", 9)
    assert "signature" in town.why(BOB, town.token.functions.receiveWithAuthorization(*with_other_kind, signature))


def test_a_transfer_that_the_receiver_sends(town: Town) -> None:
    """Nobody else can, so that nobody comes before."""
    values, signature = authorised(town, ADA, "ReceiveWithAuthorization", 3)
    call = town.token.functions.receiveWithAuthorization(*values, signature)
    assert "not the receiver" in town.why(EVE, call)
    before = town.balance(BOB.address)
    town.send(BOB, call)
    assert town.balance(BOB.address) == before + 100


def test_times(town: Town) -> None:
    """After the one and before the other, both excluded."""
    now = town.web3.eth.get_block("latest")["timestamp"]  # the clock stands still: of the next block too
    for n, (after, before, ok) in enumerate(((now - 1, now + 1, True), (now, now + 1, False), (now - 1, now, False))):
        values, signature = authorised(town, ADA, "ReceiveWithAuthorization", 10 + n, after=after, before=before)
        why = town.why(BOB, town.token.functions.receiveWithAuthorization(*values, signature))
        assert why == "" if ok else "not now" in why


def test_names_and_money(town: Town) -> None:
    """As wallets show them; only who deployed it makes more."""
    read = town.token.functions
    assert (read.name().call(), read.symbol().call(), read.decimals().call()) == ("Test token", "TEST", 18)
    assert town.why(EVE, read.mint(address(EVE), 1))
