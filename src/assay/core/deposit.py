"""A deposit by signature: a payer's EIP-3009 authorisation for one channel, which somebody else sends and pays for.

`chain/contracts/Collector.vy` takes it; clients of x402's `batch-settlement` sign it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.core.eip712 import Fields, domain_separator, signing_digest, struct_hash
from assay.core.errors import EncodingError, InvalidSignature
from assay.core.hashing import Digest
from assay.core.keys import Address, keccak256, recover
from assay.core.request import MAX_AMOUNT

RECEIVE: Final[Fields] = (
    ("from", "address"),
    ("to", "address"),
    ("value", "uint256"),
    ("validAfter", "uint256"),
    ("validBefore", "uint256"),
    ("nonce", "bytes32"),
)
"""Members of EIP-3009's `ReceiveWithAuthorization`."""


@dataclass(frozen=True, slots=True)
class TokenDomain:
    """The EIP-712 domain of a token."""

    name: str
    version: str
    chain_id: int
    token: Address

    @property
    def separator(self) -> bytes:
        """32 bytes."""
        return domain_separator(self.name, self.version, self.chain_id, self.token)


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a payer signs."""

    amount: int
    """Wei."""
    after: int
    before: int
    """Unix seconds between which it is good."""
    salt: bytes
    """32 bytes of the payer's choice."""
    signature: bytes
    """65 bytes r ‖ s ‖ v."""

    def __post_init__(self) -> None:
        """Check sizes.

        Raises:
            EncodingError: something is too long, too short or out of range.
        """
        times = 0 <= self.after < 1 << 256 and 0 <= self.before < 1 << 256
        if len(self.salt) != 32 or len(self.signature) != 65 or not times or not 0 < self.amount <= MAX_AMOUNT:
            raise EncodingError("a deposit has an amount over 0, two times, a salt of 32 bytes and a signature of 65")

    def nonce(self, channel: Digest) -> Digest:
        """The authorisation's own: a token takes each once."""
        return keccak256(channel + self.salt)

    def check(self, token: TokenDomain, payer: Address, collector: Address, channel: Digest) -> None:
        """Check the signature.

        Raises:
            InvalidSignature: `payer` did not sign this, for this token, collector and channel.
        """
        members = {"from": payer, "to": collector, "value": self.amount}
        times = {"validAfter": self.after, "validBefore": self.before}
        struct = struct_hash("ReceiveWithAuthorization", RECEIVE, {**members, **times, "nonce": self.nonce(channel)})
        if recover(signing_digest(token.separator, struct), self.signature) != payer:
            raise InvalidSignature(f"the deposit is not signed by {payer}")
