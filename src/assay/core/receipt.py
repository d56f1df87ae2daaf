"""The receipt: EIP-712 typed data by which a provider signs what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from assay.core import eip712
from assay.core.completion import STOP_REASONS, Completion, StopReason, output_digest
from assay.core.encoding import Json, b64, canonical, unb64
from assay.core.errors import EncodingError, Equivocation, InvalidSignature
from assay.core.evidence import evidence_root
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Address, Key, parse_address, recover
from assay.core.profile import Profile
from assay.core.request import LEVELS, Level, Request, decimal, natural, text

VERSION: Final = 1
TYPE_NAME: Final = "Receipt"
FIELDS: Final[eip712.Fields] = (
    ("version", "uint16"),
    ("level", "uint8"),
    ("stop", "uint8"),
    ("request", "bytes32"),
    ("model", "bytes32"),
    ("profile", "bytes32"),
    ("promptText", "bytes32"),
    ("promptTokens", "bytes32"),
    ("output", "bytes32"),
    ("evidence", "bytes32"),
    ("promptCount", "uint32"),
    ("outputCount", "uint32"),
    ("channel", "bytes32"),
    ("amount", "uint128"),
    ("provider", "address"),
    ("sequence", "uint64"),
    ("issued", "uint64"),
)
"""The struct that is signed. `level` and `stop` are positions in LEVELS and STOP_REASONS, from 0."""
DOMAIN: Final = eip712.domain_separator("Assay", "1")
"""No chain and no contract: a receipt means the same everywhere."""
_DIGESTS: Final = ("request", "model", "profile", "prompt_text", "prompt_tokens", "output", "evidence", "channel")
_COUNTS: Final = ("prompt_count", "output_count", "sequence", "issued")


@dataclass(frozen=True, slots=True)
class Receipt:
    """One answer, bound."""

    level: Level
    stop: StopReason
    request: Digest
    model: Digest
    """SHA-256 of the model file."""
    profile: Digest
    prompt_text: Digest
    prompt_tokens: Digest
    output: Digest
    evidence: Digest
    prompt_count: int
    """Tokens of the prompt."""
    output_count: int
    """Tokens of the output, the end-of-generation token included."""
    channel: Digest
    """The payment channel, or 32 zero bytes."""
    amount: int
    """Cumulative wei owed on the channel after this receipt; without a channel, the price of this answer."""
    provider: Address
    sequence: int
    """Rises by one with each receipt of this provider: two different receipts under one number are fraud."""
    issued: int
    """Unix seconds."""
    signature: bytes = b""
    """65 bytes r ‖ s ‖ v."""

    @property
    def digest(self) -> Digest:
        """The 32 bytes that are signed (EIP-712); also the receipt's name."""
        values: dict[str, bytes | int | str] = {_camel(f.name): getattr(self, f.name) for f in fields(self)}
        values |= {"version": VERSION, "level": LEVELS.index(self.level), "stop": STOP_REASONS.index(self.stop)}
        return eip712.signing_digest(DOMAIN, eip712.struct_hash(TYPE_NAME, FIELDS, values))

    def to_json(self) -> dict[str, Json]:
        """Canonical form; digests and signature are base64url, amount is a decimal string (it may pass 2^53)."""
        value: dict[str, Json] = {"v": VERSION, "level": self.level, "stop": self.stop, "provider": self.provider}
        value |= {name: b64(getattr(self, name)) for name in (*_DIGESTS, "signature")}
        value |= {name: getattr(self, name) for name in _COUNTS}
        value["amount"] = str(self.amount)
        return value

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical(self.to_json())

    @classmethod
    def from_json(cls, value: Json) -> Receipt:
        """Inverse of `to_json`; says nothing of the signature (see `verify_signature`).

        Raises:
            EncodingError: a member is missing, unknown, of another type or spelled otherwise.
        """
        names = {f.name for f in fields(cls)} | {"v"}
        if not isinstance(value, Mapping) or set(value) != names:
            raise EncodingError(f"a receipt has exactly the members {', '.join(sorted(names))}")
        level, stop = value["level"], value["stop"]
        if natural(value["v"], "v") != VERSION:
            raise EncodingError("the receipt's version is unknown", "check it with a newer Assay")
        if level not in LEVELS or stop not in STOP_REASONS:
            raise EncodingError("the receipt's level or stop reason is unknown")
        amount = decimal(text(value["amount"], "amount"), what="the receipt's amount")
        digests = {name: unb64(text(value[name], name), size=32, what=name) for name in _DIGESTS}
        counts = {name: natural(value[name], name) for name in _COUNTS}
        receipt = cls(
            level=level,
            stop=stop,
            request=digests["request"],
            model=digests["model"],
            profile=digests["profile"],
            prompt_text=digests["prompt_text"],
            prompt_tokens=digests["prompt_tokens"],
            output=digests["output"],
            evidence=digests["evidence"],
            prompt_count=counts["prompt_count"],
            output_count=counts["output_count"],
            channel=digests["channel"],
            amount=amount,
            provider=parse_address(text(value["provider"], "provider"), what="provider"),
            sequence=counts["sequence"],
            issued=counts["issued"],
            signature=unb64(text(value["signature"], "signature"), size=65, what="signature"),
        )
        _ = receipt.digest  # refuses integers that do not fit their type
        return receipt


def attest(
    request: Request,
    completion: Completion,
    *,
    model: Digest,
    profile: Profile,
    key: Key,
    sequence: int,
    issued: int,
    amount: int,
    channel: Digest = ZERO,
) -> Receipt:
    """Sign what was done: the journey's stage `Completion`, key → `Receipt`.

    `sequence` is one that this key never signed before, `issued` Unix seconds, `amount` wei.
    """
    receipt = Receipt(
        level=request.level,
        stop=completion.stop,
        request=request.digest,
        model=model,
        profile=profile.digest,
        prompt_text=completion.prompt.text_digest(request.nonce),
        prompt_tokens=completion.prompt.token_digest(request.nonce),
        output=output_digest(request.nonce, completion.tokens),
        evidence=evidence_root(completion.leaves, request.nonce),
        prompt_count=len(completion.prompt.tokens),
        output_count=len(completion.tokens),
        channel=channel,
        amount=amount,
        provider=key.address,
        sequence=sequence,
        issued=issued,
    )
    return sign(receipt, key)


def sign(receipt: Receipt, key: Key) -> Receipt:
    """`receipt` with `key`'s signature in place of any other."""
    return replace(receipt, signature=key.sign(receipt.digest))


def verify_signature(receipt: Receipt) -> None:
    """Check that the provider that the receipt names signed it.

    Raises:
        InvalidSignature: it did not.
    """
    signer = recover(receipt.digest, receipt.signature)
    if signer != receipt.provider:
        raise InvalidSignature(f"the receipt names {receipt.provider}, but another key ({signer}) signed it")


def check_equivocation(one: Receipt, other: Receipt) -> None:
    """Check that two validly signed receipts do not contradict each other.

    Raises:
        Equivocation: one provider, one sequence number, two different receipts.
    """
    if one.provider == other.provider and one.sequence == other.sequence and one.digest != other.digest:
        raise Equivocation(f"{one.provider} signed two different receipts under sequence number {one.sequence}")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
