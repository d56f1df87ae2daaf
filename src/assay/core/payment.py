"""What gateway and provider tell each other about money: how a provider is paid, what pays a request, what is due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.core.encoding import Json, b64, unb64
from assay.core.errors import EncodingError, InvalidSignature
from assay.core.hashing import Digest, digest
from assay.core.keys import Address, Key, parse_address, recover
from assay.core.request import MAX_AMOUNT, decimal, natural, text
from assay.core.voucher import MAX_WITHDRAW_DELAY, MIN_WITHDRAW_DELAY, Terms, Voucher

_ADDRESSES: Final = ("contract", "token", "receiver", "authorizer")


@dataclass(frozen=True, slots=True)
class Requirements:
    """How a provider is paid (x402's `paymentRequirements`): the channels that it takes."""

    chain_id: int
    contract: Address
    """The `Channels` contract."""
    token: Address
    receiver: Address
    """Whom channels pay: the provider's vault, or the provider itself."""
    authorizer: Address
    """The key that claims: the provider's own."""
    delay: int
    """Seconds that a withdrawal takes at least."""
    credit: int
    """Wei of unpaid work on one channel that the provider tolerates."""

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            EncodingError: an address is misspelt, or a number out of range.
        """
        for name in _ADDRESSES:
            parse_address(getattr(self, name), what=name)
        if not MIN_WITHDRAW_DELAY <= self.delay <= MAX_WITHDRAW_DELAY:
            raise EncodingError(f"a withdrawal takes {MIN_WITHDRAW_DELAY} to {MAX_WITHDRAW_DELAY} seconds")
        if not 0 <= self.credit <= MAX_AMOUNT:
            raise EncodingError("a credit has at most 128 bits")

    def to_json(self) -> dict[str, Json]:
        """As offers carry it; the credit is a decimal string (it may pass 2^53)."""
        addresses: dict[str, Json] = {name: getattr(self, name) for name in _ADDRESSES}
        return {**addresses, "chain_id": self.chain_id, "delay": self.delay, "credit": str(self.credit)}

    @classmethod
    def from_json(cls, value: Json) -> Requirements:
        """Inverse of `to_json`; members that are not known are passed over.

        Raises:
            EncodingError: a member is missing, of another type or out of range.
        """
        if not isinstance(value, dict):
            raise EncodingError("what a provider requires is not an object")
        contract, token, receiver, authorizer = (text(value.get(name), name) for name in _ADDRESSES)
        return cls(
            natural(value.get("chain_id"), "chain_id"),
            contract,
            token,
            receiver,
            authorizer,
            natural(value.get("delay"), "delay"),
            decimal(text(value.get("credit"), "credit"), what="the credit"),
        )


@dataclass(frozen=True, slots=True)
class Payment:
    """What comes with a request to pay for it: whose channel, and that its payer wants this very request on it."""

    terms: Terms
    voucher: Voucher | None
    """The latest one; None on a channel without."""
    signature: bytes
    """65 bytes by the payer's authorizer over `request_digest`: terms are public, and who only knows them must not run
    up debts on somebody else's channel."""

    def check(self, channel: Digest, request: Digest) -> None:
        """Check that the payer's authorizer wants the request with this digest paid; `channel` is that of the terms.

        Raises:
            InvalidSignature: it did not sign that.
        """
        if recover(request_digest(channel, request), self.signature) != self.terms.payer_authorizer:
            raise InvalidSignature(f"the payment of this request is not signed by {self.terms.payer_authorizer}")

    def to_json(self) -> dict[str, Json]:
        """As it comes beside a request."""
        voucher = None if self.voucher is None else self.voucher.to_json()
        return {"terms": self.terms.to_json(), "voucher": voucher, "signature": b64(self.signature)}

    @classmethod
    def from_json(cls, value: Json) -> Payment:
        """Inverse of `to_json`.

        Raises:
            EncodingError: a member is missing, unknown, of another type or out of range.
        """
        if not isinstance(value, dict) or sorted(value) != ["signature", "terms", "voucher"]:
            raise EncodingError("a payment has the members signature, terms and voucher")
        voucher = None if value["voucher"] is None else Voucher.from_json(value["voucher"])
        signature = unb64(text(value["signature"], "signature"), size=65, what="signature")
        return cls(Terms.from_json(value["terms"]), voucher, signature)


@dataclass(frozen=True, slots=True)
class Due:
    """A provider wants to be paid before it goes on."""

    amount: int
    """Cumulative wei on the channel."""
    prompt: int
    """Tokens of this answer's prompt, as its receipt will have them."""


def channel_salt(provider: Address, number: int) -> Digest:
    """The salt of a payer's channel with this number, from 0, with a provider: who has lost a database finds it."""
    return digest("assay/channel/1", bytes.fromhex(provider[2:]) + number.to_bytes(8, "big"))


def request_digest(channel: Digest, request: Digest) -> Digest:
    """What a payer signs to have a request paid from a channel."""
    return digest("assay/payment/1", channel + request)


def pay_for(key: Key, terms: Terms, channel: Digest, request: Digest, voucher: Voucher | None) -> Payment:
    """The payment of the request with this digest, by the key that signs for the channel, whose terms these are."""
    return Payment(terms, voucher, key.sign(request_digest(channel, request)))
