"""Keys, addresses and signatures, against eth_account's independent implementation."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ethereum import Account, keccak

from assay.core.errors import EncodingError, InvalidSignature
from assay.core.keys import Key, keccak256, parse_address, recover

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = Key.from_secret(bytes(range(1, 33)))
DIGEST = keccak256(b"message")
BYTES32 = st.binary(min_size=32, max_size=32)


@given(st.integers(1, ORDER - 1), BYTES32)
@settings(max_examples=20, deadline=None)
def test_addresses_and_signatures_are_ethereum_s(secret: int, digest: bytes) -> None:
    """Address, signature and recovery are those of eth_account, to the byte."""
    key = Key.from_secret(secret.to_bytes(32, "big"))
    account = Account.from_key(key.secret)
    assert key.address == account.address.lower()
    assert keccak256(digest) == keccak(digest)
    signature = key.sign(digest)
    assert signature == account.unsafe_sign_hash(digest).signature
    assert recover(digest, signature) == key.address


@given(st.binary(max_size=70), BYTES32)
def test_any_bytes_recover_to_a_key_or_are_refused(signature: bytes, digest: bytes) -> None:
    """Random bytes never crash, and never recover to a given key."""
    with contextlib.suppress(InvalidSignature):
        assert recover(digest, signature) != KEY.address


def test_a_signature_has_one_spelling() -> None:
    """The twin with s in the upper half, other v, other lengths, and values outside of the group are refused."""
    signature = KEY.sign(DIGEST)
    r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
    twin = r + (ORDER - s).to_bytes(32, "big") + bytes([55 - v])
    refused = [
        twin,
        signature[:64] + bytes([v - 27]),
        signature[:64] + bytes([v + 2]),
        signature[:64],
        signature + b"\0",
    ]
    refused += [bytes(32) + signature[32:], r + bytes(32) + bytes([v]), ORDER.to_bytes(32, "big") + signature[32:], b""]
    for other in refused:
        with pytest.raises(InvalidSignature):
            recover(DIGEST, other)
    assert recover(DIGEST, signature[:64] + bytes([55 - v])) != KEY.address


def test_every_flipped_bit_gives_another_signer_or_none() -> None:
    """No bit of a signature or of what is signed is idle."""
    signature = KEY.sign(DIGEST)
    for bit in range(8 * len(signature)):
        other = bytearray(signature)
        other[bit // 8] ^= 1 << bit % 8
        try:
            assert recover(DIGEST, bytes(other)) != KEY.address
        except InvalidSignature:
            continue
    for bit in range(256):
        other = bytearray(DIGEST)
        other[bit // 8] ^= 1 << bit % 8
        assert recover(bytes(other), signature) != KEY.address


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31), bytes(33), ORDER.to_bytes(32, "big"), b"\xff" * 32])
def test_secrets_that_are_no_keys(secret: bytes) -> None:
    """Zero, the group's order and above, and other lengths are refused."""
    with pytest.raises(EncodingError):
        Key.from_secret(secret)


def test_printing_a_key_does_not_show_the_secret() -> None:
    """Logs and tracebacks show the address only."""
    assert KEY.secret.hex() not in f"{KEY!r} {KEY}"
    assert repr(KEY.secret) not in repr(KEY)
    assert KEY.address in repr(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        KEY.address.upper(),
        KEY.address[:-1],
        KEY.address + "0",
        "0X" + KEY.address[2:],
        KEY.address[2:] + "00",
        "0x" + "g" * 40,
        "0x" + "١" * 40,
        "0x" + " " * 40,
        "0x" + "ａ" * 40,
        "0x" + "\ud800" * 40,
        KEY.address[:-1] + "\n",
    ],
)
def test_addresses_have_one_spelling(text: str) -> None:
    """Capitals, other digits, and other lengths are refused."""
    with pytest.raises(EncodingError, match="provider"):
        parse_address(text, what="provider")


def test_a_good_address_passes() -> None:
    """0x and 40 lower-case hexadecimal digits."""
    assert parse_address(KEY.address, what="it") == KEY.address
