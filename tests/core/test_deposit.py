"""Deposits by signature: what payers sign is EIP-3009's, and a signature is good for one channel only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.ethereum import Account, encode_typed_data, keccak

from assay.core.deposit import Authorization, TokenDomain
from assay.core.errors import EncodingError, InvalidSignature
from assay.core.keys import Key

PAYER = Key.from_secret(bytes([5]) * 32)
TOKEN = TokenDomain("Test token", "1", 31337, "0x" + "ab" * 20)
COLLECTOR, CHANNEL = "0x" + "cd" * 20, bytes([7]) * 32


def signed() -> Authorization:
    """As a wallet signs it."""
    salt = bytes(31) + b"\x09"
    kinds = (
        "address from",
        "address to",
        "uint256 value",
        "uint256 validAfter",
        "uint256 validBefore",
        "bytes32 nonce",
    )
    data = {
        "types": {
            "EIP712Domain": [
                {"name": name, "type": kind}
                for kind, name in (
                    ("string", "name"),
                    ("string", "version"),
                    ("uint256", "chainId"),
                    ("address", "verifyingContract"),
                )
            ],
            "ReceiveWithAuthorization": [dict(zip(("type", "name"), each.split(), strict=True)) for each in kinds],
        },
        "primaryType": "ReceiveWithAuthorization",
        "domain": {"name": "Test token", "version": "1", "chainId": 31337, "verifyingContract": TOKEN.token},
        "message": {
            "from": PAYER.address,
            "to": COLLECTOR,
            "value": 1000,
            "validAfter": 1,
            "validBefore": 2,
            "nonce": keccak(CHANNEL + salt),
        },
    }
    signature = Account.from_key(PAYER.secret).sign_message(encode_typed_data(full_message=data)).signature
    return Authorization(1000, 1, 2, salt, bytes(signature))


def test_what_a_wallet_signs() -> None:
    """Is what is checked, for this payer, token, collector, channel and amount, and no other."""
    own = signed()
    own.check(TOKEN, PAYER.address, COLLECTOR, CHANNEL)
    wrong = [
        (own, replace(TOKEN, chain_id=1), PAYER.address, COLLECTOR, CHANNEL),
        (own, replace(TOKEN, name="Other"), PAYER.address, COLLECTOR, CHANNEL),
        (own, TOKEN, COLLECTOR, COLLECTOR, CHANNEL),
        (own, TOKEN, PAYER.address, PAYER.address, CHANNEL),
        (own, TOKEN, PAYER.address, COLLECTOR, bytes(32)),
        *(
            (replace(own, **{name: 3}), TOKEN, PAYER.address, COLLECTOR, CHANNEL)
            for name in ("amount", "after", "before")
        ),
        (replace(own, salt=bytes(32)), TOKEN, PAYER.address, COLLECTOR, CHANNEL),
    ]
    for authorization, *others in wrong:
        with pytest.raises(InvalidSignature):
            authorization.check(*others)


@pytest.mark.parametrize(
    "change",
    [{"amount": 0}, {"amount": 2**128}, {"after": -1}, {"before": 2**256}, {"salt": b""}, {"signature": bytes(64)}],
)
def test_out_of_range(change: dict[str, object]) -> None:
    """Refused before anything is hashed."""
    with pytest.raises(EncodingError):
        replace(signed(), **change)
