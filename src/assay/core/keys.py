"""secp256k1 keys, Ethereum addresses, and signatures over 32-byte digests (coincurve: libsecp256k1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from coincurve import PrivateKey, PublicKey
from Crypto.Hash import keccak

from assay.core.errors import EncodingError, InvalidSignature

Address: TypeAlias = str
"""0x and 40 lower-case hexadecimal digits."""

HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half the order of secp256k1's group: signatures have s at most this (EIP-2), so each has one spelling."""


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as the EVM has it (not NIST's SHA3-256)."""
    return keccak.new(digest_bits=256, data=data).digest()


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key. Printing it shows the address only."""

    secret: bytes = field(repr=False)
    """32 bytes, big-endian."""
    address: Address
    """The Ethereum address of the public key."""

    @classmethod
    def from_secret(cls, secret: bytes) -> Key:
        """The key of a 32-byte secret.

        Raises:
            EncodingError: not 32 bytes, zero, or not below the group's order.
        """
        if len(secret) != 32:
            raise EncodingError("a secret key has 32 bytes")
        try:
            public = PrivateKey(secret).public_key
        except ValueError as error:
            raise EncodingError("the secret is not a secp256k1 key") from error
        return cls(secret, _address(public))

    def sign(self, digest: bytes) -> bytes:
        """65 bytes r ‖ s ‖ v (v is 27 or 28) over a 32-byte digest; deterministic (RFC 6979), low s."""
        signature = PrivateKey(self.secret).sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([27 + signature[64]])


def recover(digest: bytes, signature: bytes) -> Address:
    """The address whose key made `signature` over `digest`.

    Raises:
        InvalidSignature: not 65 bytes, v not 27 or 28, s in the upper half, or no such point.
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise InvalidSignature("a signature has 65 bytes and ends with 27 or 28")
    if int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        raise InvalidSignature("the signature's s is in the upper half (EIP-2)")
    try:
        public = PublicKey.from_signature_and_message(signature[:64] + bytes([signature[64] - 27]), digest, hasher=None)
    except Exception as error:  # libsecp256k1's failures come as bare Exception
        raise InvalidSignature("the signature fits no key") from error
    return _address(public)


def parse_address(text: str, *, what: str) -> Address:
    """Check the spelling of an address (lower case: one spelling each).

    Raises:
        EncodingError: anything else.
    """
    digits = text[2:]
    if len(text) != 42 or not text.startswith("0x") or any(c not in "0123456789abcdef" for c in digits):
        raise EncodingError(f"{what} is not 0x and 40 lower-case hexadecimal digits")
    return text


def _address(public: PublicKey) -> Address:
    return "0x" + keccak256(public.format(compressed=False)[1:])[12:].hex()
