"""A report: what somebody found of a receipt, signed, with the receipt itself as evidence of whom it is on.

A receipt shows digests alone, so a report tells nothing of prompt and answer. It comes from strangers: every member is
checked, and one that holds is as good from one hand as from another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from assay.core.encoding import Json, b64, canonical, parse_canonical, unb64
from assay.core.errors import EncodingError, InvalidSignature
from assay.core.hashing import Digest, digest
from assay.core.keys import Address, Key, parse_address, recover
from assay.core.receipt import Receipt, verify_signature
from assay.core.request import natural, text

VERSION: Final = 1
MAX_REPORT_BYTES: Final = 4096
"""Of a report's canonical form."""


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A verdict on one receipt that others may read."""

    reporter: Address
    receipt: Receipt
    good: bool
    """The answer was computed again, and is as the receipt says; or it is proven to be another."""
    signature: bytes = b""
    """65 bytes r ‖ s ‖ v over `digest`, by the reporter's key."""

    @property
    def digest(self) -> Digest:
        """The 32 bytes that are signed."""
        return digest("assay/report/1", self.receipt.digest + bytes([self.good]))

    def encode(self) -> bytes:
        """Canonical bytes."""
        value: dict[str, Json] = {
            "v": VERSION,
            "reporter": self.reporter,
            "receipt": self.receipt.to_json(),
            "good": self.good,
            "signature": b64(self.signature),
        }
        return canonical(value)

    @classmethod
    def decode(cls, data: bytes) -> SignedReport:
        """Inverse of `encode`; says nothing of the signatures (see `check`).

        Raises:
            EncodingError: not the canonical bytes of a report, whose members are all known and in range.
        """
        if len(data) > MAX_REPORT_BYTES:
            raise EncodingError(f"a report has at most {MAX_REPORT_BYTES} bytes")
        value = parse_canonical(data, what="the report")
        if not isinstance(value, dict) or set(value) != {"v", "reporter", "receipt", "good", "signature"}:
            raise EncodingError("a report has exactly the members good, receipt, reporter, signature, v")
        if natural(value["v"], "v") != VERSION:
            raise EncodingError("the report's version is unknown", "read it with a newer Assay")
        good = value["good"]
        if not isinstance(good, bool):
            raise EncodingError("a report's good is neither true nor false")
        return cls(
            parse_address(text(value["reporter"], "reporter"), what="reporter"),
            Receipt.from_json(value["receipt"]),
            good,
            unb64(text(value["signature"], "signature"), size=65, what="signature"),
        )

    def check(self) -> None:
        """Check both signatures, the reporter's and the provider's.

        Raises:
            InvalidSignature: one is another key's.
        """
        signer = recover(self.digest, self.signature)
        if signer != self.reporter:
            raise InvalidSignature(f"the report names {self.reporter}, but another key ({signer}) signed it")
        verify_signature(self.receipt)


def sign_report(receipt: Receipt, key: Key, *, good: bool) -> SignedReport:
    """A report by `key`."""
    unsigned = SignedReport(key.address, receipt, good)
    return replace(unsigned, signature=key.sign(unsigned.digest))
