"""Who asks: a consumer's signature over what it sends to a provider, from which its key's address follows."""

from __future__ import annotations

from typing import Final

from assay.core.encoding import b64, unb64
from assay.core.hashing import Digest, digest
from assay.core.keys import Address, Key, recover

HEADER: Final = "assay-consumer"
"""The HTTP header that carries the signature, base64url."""


def sign_body(key: Key, provider: Address, body: bytes) -> str:
    """The header of a body of POST /assay/v1/answers that is for this provider and no other."""
    return b64(key.sign(_signed(provider, body)))


def consumer_of(header: str, provider: Address, body: bytes) -> Address:
    """The address of the key that signed a body. Of any other signature, one that nobody has the key of.

    Raises:
        EncodingError: the header is not 65 bytes of base64url.
        InvalidSignature: it is no signature.
    """
    return recover(_signed(provider, body), unb64(header, size=65, what=f"the header {HEADER}"))


def _signed(provider: Address, body: bytes) -> Digest:
    return digest("assay/ask/1", bytes.fromhex(provider[2:]) + body)
