"""x402's scheme `batch-settlement` over HTTP, version 2: what clients are told and send that know nothing of Assay.

A client that asks without paying hears 402 and what is wanted (`PAYMENT-REQUIRED`); it asks again with a voucher for
what the answer can cost at most, and a deposit where its channel does not hold enough (`PAYMENT-SIGNATURE`); then it
hears what was charged (`PAYMENT-RESPONSE`). All three are JSON in base64. Members and error words: the Python SDK
`x402` 2.25.0, `x402.mechanisms.evm.batch_settlement` and `x402.schemas`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from assay.core.deposit import Authorization, TokenDomain
from assay.core.encoding import Json, check_bounds
from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.payment import Requirements
from assay.core.request import decimal, natural, text
from assay.core.voucher import TERMS, Terms, Voucher

REQUIRED: Final = "payment-required"
SIGNATURE: Final = "payment-signature"
RESPONSE: Final = "payment-response"
"""Names of the three heads."""
MOST_BYTES: Final = 16_384
"""Of a head that a client sends."""
SLACK: Final = 1000
SCHEME: Final = "batch-settlement"
VERSION: Final = 2
_PREFIX: Final = "invalid_batch_settlement_evm_"
ERRORS: Final[Mapping[str, str]] = {
    "missing": "payment required",
    "payload": f"{_PREFIX}payload_type",
    "requirements": "invalid_payment_requirements",
    "terms": f"{_PREFIX}receiver_mismatch",
    "channel": f"{_PREFIX}channel_id_mismatch",
    "signature": f"{_PREFIX}voucher_signature",
    "amount": f"{_PREFIX}cumulative_amount_mismatch",
    "used": f"{_PREFIX}cumulative_amount_mismatch",
    "funds": f"{_PREFIX}cumulative_exceeds_balance",
    "busy": f"{_PREFIX}channel_busy",
    "deposit": f"{_PREFIX}deposit_transaction_failed",
    "least": f"{_PREFIX}deposit_below_min_deposit",
    "chain": f"{_PREFIX}channel_state_read_failed",
}
"""What x402 calls the reasons of a `PaymentRequired`; at `amount`, clients take over the state that is told."""
_HEX: Final = re.compile(r"0x([0-9a-fA-F]{2})+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one answer can cost, and how it is paid (x402's `PaymentRequirements`)."""

    pay: Requirements
    amount: int
    """Wei, at most. A part in SLACK more may have been asked for, so that no two vouchers are for the same sum."""
    least_deposit: int
    """Wei that a client is asked to deposit at least."""
    token: TokenDomain
    """In which deposits are signed."""
    seconds: int = 300
    """For which a client's signature of a deposit is good."""

    def to_json(self) -> dict[str, Json]:
        """As `accepts` has it."""
        return {
            **self.fixed(),
            "amount": str(self.amount),
            "maxTimeoutSeconds": self.seconds,
            "extra": {
                "receiverAuthorizer": self.pay.authorizer,
                "withdrawDelay": self.pay.delay,
                "name": self.token.name,
                "version": self.token.version,
                "assetTransferMethod": "eip3009",
                "minDeposit": str(self.least_deposit),
            },
        }

    def fixed(self) -> dict[str, str]:
        """What a client has to repeat, beside the amount."""
        network = f"eip155:{self.pay.chain_id}"
        return {"scheme": SCHEME, "network": network, "asset": self.pay.token, "payTo": self.pay.receiver}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a channel stands, wei."""

    channel: Digest
    balance: int
    claimed: int
    charged: int
    """For all answers up to now."""
    voucher: Voucher | None = None
    """The best one."""

    def state(self) -> dict[str, Json]:
        """x402's `channelState`."""
        return {
            "channelId": "0x" + self.channel.hex(),
            "balance": str(self.balance),
            "totalClaimed": str(self.claimed),
            "withdrawRequestedAt": 0,
            "refundNonce": "0",
            "chargedCumulativeAmount": str(self.charged),
        }

    def signed(self) -> dict[str, Json]:
        """x402's `voucherState`; clients believe `state` only beside a voucher of their own."""
        if self.voucher is None:
            return {}
        return {"signedMaxClaimable": str(self.voucher.amount), "signature": "0x" + self.voucher.signature.hex()}


@dataclass(frozen=True, slots=True)
class Offered:
    """What a client pays with."""

    amount: int
    """What it was asked for, wei."""
    terms: Terms
    voucher: Voucher
    deposit: Authorization | None


def required_header(wanted: Wanted, url: str, *, reason: str = "missing", standing: Standing | None = None) -> str:
    """The head of a 402; `standing` corrects a client that is wrong about its channel."""
    accepted = wanted.to_json()
    if standing is not None:
        extra = accepted["extra"]
        assert isinstance(extra, dict)
        accepted["extra"] = {**extra, "channelState": standing.state(), "voucherState": standing.signed()}
    return _header(
        {
            "x402Version": VERSION,
            "error": ERRORS.get(reason, reason),
            "resource": {"url": url, "description": "a completion", "mimeType": "application/json"},
            "accepts": [accepted],
        }
    )


def response_header(wanted: Wanted, payer: Address, standing: Standing, *, charged: int, deposit: bytes) -> str:
    """The head of an answer. `charged`: wei for it; `deposit`: the hash of the transaction that deposited, or empty."""
    return _header(
        {
            "success": True,
            "payer": payer,
            "transaction": "0x" + deposit.hex() if deposit else "",
            "network": wanted.fixed()["network"],
            "amount": "",
            "extra": {"channelState": standing.state(), "chargedAmount": str(charged)},
        }
    )


def read_offered(header: str, wanted: Wanted, domain: bytes) -> Offered:
    """What a client sent with its request, if it is what was wanted, and the payer's authorizer signed the voucher.

    Raises:
        EncodingError: it is not of x402's form, or out of range.
        WrongPayment: it pays something else, or to somebody else.
        InvalidSignature: see `Voucher.check`.
    """
    value = _read(header)
    if value.get("x402Version") != VERSION:
        raise EncodingError(f"the payment is not of x402's version {VERSION}")
    accepted, payload = _members(value.get("accepted"), "accepted"), _members(value.get("payload"), "payload")
    for name, own in wanted.fixed().items():
        if str(accepted.get(name)).lower() != own.lower():
            raise WrongPayment(f"{name} is {str(accepted.get(name))[:80]!r}, and {own!r} is wanted", "requirements")
    asked = _wei(accepted, "amount")
    if not wanted.amount <= asked <= wanted.amount + wanted.amount // SLACK:
        raise WrongPayment(f"amount is {asked}, and {wanted.amount} is wanted", "requirements")
    kind = payload.get("type")
    if kind not in ("voucher", "deposit"):
        raise WrongPayment(f"payments of type {str(kind)[:40]!r} are not taken", "payload")
    terms = _terms(_members(payload.get("channelConfig"), "channelConfig"))
    signed = _members(payload.get("voucher"), "voucher")
    channel = _hex(signed.get("channelId"), 32, "channelId")
    if channel != terms.channel(domain):
        raise WrongPayment("the voucher is for another channel than the one of these terms", "channel")
    amount = _wei(signed, "maxClaimableAmount")
    voucher = Voucher(channel, amount, _hex(signed.get("signature"), 65, "the voucher's signature"))
    voucher.check(domain, terms.payer_authorizer)
    return Offered(asked, terms, voucher, _deposit(payload) if kind == "deposit" else None)


class WrongPayment(EncodingError):
    """A payment of the right form for something else; `reason` is a key of ERRORS."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _deposit(payload: Mapping[str, Json]) -> Authorization:
    deposit = _members(payload.get("deposit"), "deposit")
    way = _members(deposit.get("authorization"), "authorization").get("erc3009Authorization")
    own = _members(way, "erc3009Authorization")
    salt, signature = _hex(own.get("salt"), 32, "the deposit's salt"), _hex(own.get("signature"), 65, "its signature")
    return Authorization(_wei(deposit, "amount"), _wei(own, "validAfter"), _wei(own, "validBefore"), salt, signature)


def _terms(config: Mapping[str, Json]) -> Terms:
    payer, payer_authorizer, receiver, receiver_authorizer, token = (
        text(config.get(name), name).lower() for name, kind in TERMS if kind == "address"
    )
    delay, salt = natural(config.get("withdrawDelay"), "withdrawDelay"), _hex(config.get("salt"), 32, "salt")
    return Terms(payer, payer_authorizer, receiver, receiver_authorizer, token, delay, salt)


def _header(value: Json) -> str:
    return base64.b64encode(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()).decode()


def _read(header: str) -> Mapping[str, Json]:
    if len(header) > MOST_BYTES:
        raise EncodingError(f"the payment has more than {MOST_BYTES} characters")
    try:
        data = base64.b64decode(header, validate=True)
        check_bounds(data, what="the payment")
        value: Json = json.loads(data)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise EncodingError(f"the payment is no JSON in base64 ({type(error).__name__})") from error
    return _members(value, "the payment")


def _members(value: Json, what: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise EncodingError(f"{what} is not an object")
    return value


def _wei(members: Mapping[str, Json], name: str) -> int:
    return decimal(text(members.get(name), name), what=name)


def _hex(value: Json, size: int, what: str) -> bytes:
    digits = text(value, what)
    if len(digits) != 2 + 2 * size or not _HEX.fullmatch(digits):
        raise EncodingError(f"{what} is not {size} bytes in hexadecimal digits")
    return bytes.fromhex(digits[2:])
