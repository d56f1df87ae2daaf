"""Vouchers and the terms of channels: one encoding, one signature, nothing out of range."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ethereum import Account, encode_typed_data

from assay.core.encoding import canonical
from assay.core.errors import AssayError, EncodingError, InvalidSignature
from assay.core.keys import Key, keccak256
from assay.core.voucher import TERMS, Terms, Voucher, channels_domain, sign_voucher

ADA, BOB = (Key.from_secret(bytes([n]) * 32) for n in (1, 2))
CONTRACT = "0x" + "4a" * 20
DOMAIN = channels_domain(31337, CONTRACT)
TERMS_OF_BOTH = Terms(ADA.address, ADA.address, BOB.address, BOB.address, CONTRACT, 86_400, bytes(range(32)))


def test_the_channel_is_the_digest_of_its_terms() -> None:
    """As Ethereum's own library computes it; each term counts, and so do chain and contract."""
    domain = {"name": "x402 Batch Settlement", "version": "1", "chainId": 31337, "verifyingContract": CONTRACT}
    types = {"ChannelConfig": [{"name": name, "type": kind} for name, kind in TERMS]}
    values = dict(zip((name for name, _ in TERMS), TERMS_OF_BOTH.values(), strict=True))
    signable = encode_typed_data(domain, types, values)
    assert TERMS_OF_BOTH.channel(DOMAIN) == keccak256(b"\x19\x01" + signable.header + signable.body)
    others = [
        replace(TERMS_OF_BOTH, payer=BOB.address),
        replace(TERMS_OF_BOTH, payer_authorizer=BOB.address),
        replace(TERMS_OF_BOTH, receiver=ADA.address),
        replace(TERMS_OF_BOTH, receiver_authorizer=ADA.address),
        replace(TERMS_OF_BOTH, token=ADA.address),
        replace(TERMS_OF_BOTH, withdraw_delay=86_401),
        replace(TERMS_OF_BOTH, salt=bytes(32)),
    ]
    ids = {each.channel(DOMAIN) for each in (TERMS_OF_BOTH, *others)}
    ids |= {TERMS_OF_BOTH.channel(channels_domain(*each)) for each in ((1, CONTRACT), (31337, ADA.address))}
    assert len(ids) == len(others) + 3


@given(st.integers(0, 2**128 - 1))
def test_vouchers_go_round(amount: int) -> None:
    """Signed, encoded, read and checked."""
    voucher = sign_voucher(ADA, DOMAIN, TERMS_OF_BOTH.channel(DOMAIN), amount)
    assert Voucher.decode(canonical(voucher.to_json())) == voucher
    voucher.check(DOMAIN, ADA.address)
    with pytest.raises(InvalidSignature):
        voucher.check(DOMAIN, BOB.address)
    with pytest.raises(InvalidSignature):
        replace(voucher, amount=amount ^ 1).check(DOMAIN, ADA.address)
    with pytest.raises(InvalidSignature):
        voucher.check(channels_domain(1, CONTRACT), ADA.address)


def test_the_signature_is_that_of_a_wallet() -> None:
    """`eth_signTypedData_v4` gives the same bytes."""
    domain = {"name": "x402 Batch Settlement", "version": "1", "chainId": 31337, "verifyingContract": CONTRACT}
    types = {"Voucher": [{"name": "channelId", "type": "bytes32"}, {"name": "maxClaimableAmount", "type": "uint128"}]}
    channel = TERMS_OF_BOTH.channel(DOMAIN)
    theirs = Account.sign_typed_data(ADA.secret, domain, types, {"channelId": channel, "maxClaimableAmount": 99})
    assert bytes(theirs.signature) == sign_voucher(ADA, DOMAIN, channel, 99).signature


@pytest.mark.parametrize(
    "change",
    [
        {"payer": "0x" + "AB" * 20}, {"token": "0x12"}, {"receiver": ""}, {"withdraw_delay": 899},
        {"withdraw_delay": 2_592_001}, {"salt": bytes(31)},
    ],
)  # fmt: skip
def test_terms_that_no_contract_takes(change: dict[str, object]) -> None:
    """Are refused before anybody signs them."""
    with pytest.raises(EncodingError):
        replace(TERMS_OF_BOTH, **change)


@given(st.dictionaries(st.sampled_from(["channel", "amount", "signature", "x"]), st.text(max_size=90)))
def test_other_json_is_refused(value: dict[str, str]) -> None:
    """Members, spellings and sizes."""
    with pytest.raises(AssayError):
        Voucher.decode(canonical(value))


@pytest.mark.parametrize("amount", ["", "-1", "01", "1e3", "٣", str(2**128), "1.0", "9" * 5000])
def test_amounts_have_one_spelling(amount: str) -> None:
    """Decimal, no zeros in front, at most 128 bits."""
    good = sign_voucher(ADA, DOMAIN, bytes(32), 1).to_json()
    with pytest.raises(EncodingError):
        Voucher.decode(canonical({**good, "amount": amount}))
    with pytest.raises(EncodingError):
        sign_voucher(ADA, DOMAIN, bytes(32), 2**128)
