"""Payment channels off the chain: their terms, and the cumulative vouchers that a payer signs.

The typed data is that of x402's `batch-settlement` (its Python SDK, `x402.mechanisms.evm.batch_settlement`), so that
other people's clients can pay; `chain/contracts/Channels.vy` checks the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.core.eip712 import Fields, domain_separator, signing_digest, struct_hash
from assay.core.encoding import Json, b64, parse_canonical, unb64
from assay.core.errors import EncodingError, InvalidSignature
from assay.core.hashing import Digest
from assay.core.keys import Address, Key, parse_address, recover
from assay.core.request import MAX_AMOUNT, decimal, natural, text

TERMS: Final[Fields] = (
    ("payer", "address"),
    ("payerAuthorizer", "address"),
    ("receiver", "address"),
    ("receiverAuthorizer", "address"),
    ("token", "address"),
    ("withdrawDelay", "uint40"),
    ("salt", "bytes32"),
)
"""Members of a channel's terms, in their order."""
VOUCHER: Final[Fields] = (("channelId", "bytes32"), ("maxClaimableAmount", "uint128"))
MIN_WITHDRAW_DELAY: Final = 900
MAX_WITHDRAW_DELAY: Final = 2_592_000
"""Seconds, as `Channels` has them: 15 minutes to 30 days."""


def channels_domain(chain_id: int, contract: Address) -> bytes:
    """The EIP-712 domain of a `Channels` contract."""
    return domain_separator("x402 Batch Settlement", "1", chain_id, contract)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a channel is: two channels with the same terms on the same contract are one."""

    payer: Address
    """Who deposits, and is paid back."""
    payer_authorizer: Address
    """The key that signs vouchers."""
    receiver: Address
    """Whom `settle` pays."""
    receiver_authorizer: Address
    """The key that may claim, and give back."""
    token: Address
    withdraw_delay: int
    """Seconds between the payer's wish to withdraw and the withdrawal: the receiver's time to claim."""
    salt: Digest

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            EncodingError: an address is misspelt, the delay out of range, or the salt not 32 bytes.
        """
        for name in ("payer", "payer_authorizer", "receiver", "receiver_authorizer", "token"):
            parse_address(getattr(self, name), what=name)
        if not MIN_WITHDRAW_DELAY <= self.withdraw_delay <= MAX_WITHDRAW_DELAY:
            raise EncodingError(f"a withdrawal takes {MIN_WITHDRAW_DELAY} to {MAX_WITHDRAW_DELAY} seconds")
        if len(self.salt) != 32:
            raise EncodingError("a channel's salt has 32 bytes")

    def values(self) -> tuple[Address, Address, Address, Address, Address, int, bytes]:
        """In the order of TERMS."""
        return (
            self.payer,
            self.payer_authorizer,
            self.receiver,
            self.receiver_authorizer,
            self.token,
            self.withdraw_delay,
            self.salt,
        )

    def to_json(self) -> dict[str, Json]:
        """Canonical form: names as in TERMS, the salt in base64url."""
        members: dict[str, Json] = {name: getattr(self, _snake(name)) for name, _ in TERMS}
        return {**members, "salt": b64(self.salt)}

    @classmethod
    def from_json(cls, value: Json) -> Terms:
        """Inverse of `to_json`.

        Raises:
            EncodingError: a member is missing, unknown, of another type or out of range.
        """
        if not isinstance(value, dict) or set(value) != {name for name, _ in TERMS}:
            raise EncodingError(f"a channel's terms have the members {', '.join(name for name, _ in TERMS)}")
        addresses = (text(value[name], name) for name, kind in TERMS if kind == "address")
        payer, payer_authorizer, receiver, receiver_authorizer, token = addresses
        return cls(
            payer,
            payer_authorizer,
            receiver,
            receiver_authorizer,
            token,
            natural(value["withdrawDelay"], "withdrawDelay"),
            unb64(text(value["salt"], "salt"), size=32, what="salt"),
        )

    def channel(self, domain: bytes) -> Digest:
        """The channel's id on the contract of a `channels_domain`."""
        members = {name: value for (name, _), value in zip(TERMS, self.values(), strict=True)}
        return signing_digest(domain, struct_hash("ChannelConfig", TERMS, members))


@dataclass(frozen=True, slots=True)
class Voucher:
    """Allows the receiver to have claimed up to an amount in all. Later vouchers of a channel are for more."""

    channel: Digest
    amount: int
    """Cumulative, wei."""
    signature: bytes
    """65 bytes r ‖ s ‖ v by the payer's authorizer."""

    def __post_init__(self) -> None:
        """Check sizes.

        Raises:
            EncodingError: something is too long, too short or out of range.
        """
        if len(self.channel) != 32 or len(self.signature) != 65 or not 0 <= self.amount <= MAX_AMOUNT:
            raise EncodingError(
                "a voucher has a channel of 32 bytes, an amount of 128 bits and a signature of 65 bytes"
            )

    def check(self, domain: bytes, authorizer: Address) -> None:
        """Check the signature.

        Raises:
            InvalidSignature: `authorizer` did not sign this, for this contract and chain.
        """
        if recover(voucher_digest(domain, self.channel, self.amount), self.signature) != authorizer:
            raise InvalidSignature(f"the voucher is not signed by {authorizer}")

    def to_json(self) -> dict[str, Json]:
        """Canonical form: base64url, and the amount as a decimal string (it may pass 2^53)."""
        return {"channel": b64(self.channel), "amount": str(self.amount), "signature": b64(self.signature)}

    @classmethod
    def decode(cls, data: bytes) -> Voucher:
        """From canonical JSON.

        Raises:
            EncodingError: another form, or values out of range.
        """
        return cls.from_json(parse_canonical(data, what="the voucher"))

    @classmethod
    def from_json(cls, value: Json) -> Voucher:
        """Inverse of `to_json`.

        Raises:
            EncodingError: another form, or values out of range.
        """
        if not isinstance(value, dict) or sorted(value) != ["amount", "channel", "signature"]:
            raise EncodingError("a voucher has the members amount, channel and signature")
        return cls(
            unb64(text(value["channel"], "channel"), size=32, what="channel"),
            decimal(text(value["amount"], "amount"), what="the voucher's amount"),
            unb64(text(value["signature"], "signature"), size=65, what="signature"),
        )


def voucher_digest(domain: bytes, channel: Digest, amount: int) -> Digest:
    """What a voucher's signature is over.

    Raises:
        EncodingError: the amount has more than 128 bits.
    """
    return signing_digest(domain, struct_hash("Voucher", VOUCHER, {"channelId": channel, "maxClaimableAmount": amount}))


def sign_voucher(key: Key, domain: bytes, channel: Digest, amount: int) -> Voucher:
    """A voucher for `amount` wei in all.

    Raises:
        EncodingError: the amount has more than 128 bits.
    """
    return Voucher(channel, amount, key.sign(voucher_digest(domain, channel, amount)))


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
