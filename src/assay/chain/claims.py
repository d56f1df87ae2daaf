"""Claims of vouchers as calls of `Channels`: as few as it takes, in the form of 132 bytes a voucher where that does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from assay.chain.abi import CONFIG, encoded
from assay.core.errors import EncodingError, InvalidRequest
from assay.core.keys import Address
from assay.core.voucher import Terms, Voucher

MAX_CLAIMS: Final = 100
"""Of one transaction, as `Channels` has it."""
_CLAIMS: Final = f"(({CONFIG},uint128),bytes,uint128)[]"
_COMPACT: Final = ("address", "address", "uint40", "bytes")


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of a channel, by its best voucher."""

    terms: Terms
    voucher: Voucher
    amount: int
    """In all, wei; at most the voucher's."""

    def check(self, domain: bytes, claimer: Address) -> None:
        """Check all that the contract does, but for the deposit.

        Raises:
            InvalidRequest: the amount is over the voucher's, or the channel is not `claimer`'s to claim.
            EncodingError: the voucher is of another channel.
            InvalidSignature: the payer's authorizer did not sign it.
        """
        if not 0 < self.amount <= self.voucher.amount:
            raise InvalidRequest("more is claimed than the voucher allows, or nothing", remedy="claim what it says")
        if claimer not in (self.terms.receiver, self.terms.receiver_authorizer):
            raise InvalidRequest(f"the channel is not {claimer}'s to claim", remedy="use its receiver's key")
        if self.terms.channel(domain) != self.voucher.channel:
            raise EncodingError("the voucher is of another channel")
        self.voucher.check(domain, self.terms.payer_authorizer)

    def compact(self, claimer: Address) -> bool:
        """The short form does: the payer signs, the caller is the authorizer, and all that was signed is claimed."""
        own = self.terms
        return (
            own.payer == own.payer_authorizer
            and own.receiver_authorizer == claimer
            and self.amount == self.voucher.amount
        )


def batches(claims: Sequence[Claim], domain: bytes, claimer: Address) -> list[bytes]:
    """Calls that make all these claims, of up to MAX_CLAIMS each. The same claims give the same calls.

    Raises:
        InvalidRequest, EncodingError, InvalidSignature: see `Claim.check`; a channel is claimed twice.
    """
    for each in claims:
        each.check(domain, claimer)
    if len({each.voucher.channel for each in claims}) != len(claims):
        raise InvalidRequest("a channel is claimed twice", remedy="claim by its last voucher only")
    groups: dict[tuple[Address, Address, int], list[Claim]] = {}
    others: list[Claim] = []
    for each in claims:
        if each.compact(claimer):
            own = each.terms
            groups.setdefault((own.receiver, own.token, own.withdraw_delay), []).append(each)
        else:
            others.append(each)
    calls = [_compact(*group, part) for group, found in groups.items() for part in _parts(found)]
    return calls + [_claim(part) for part in _parts(others)]


def _parts(claims: Sequence[Claim]) -> Iterable[Sequence[Claim]]:
    return (claims[at : at + MAX_CLAIMS] for at in range(0, len(claims), MAX_CLAIMS))


def _claim(claims: Sequence[Claim]) -> bytes:
    values = [((each.terms.values(), each.voucher.amount), each.voucher.signature, each.amount) for each in claims]
    return encoded("claim", (_CLAIMS,), values)


def _compact(receiver: Address, token: Address, delay: int, claims: Sequence[Claim]) -> bytes:
    entries = b"".join(_entry(each) for each in claims)
    return encoded("claimCompact", _COMPACT, receiver, token, delay, entries)


def _entry(claim: Claim) -> bytes:
    """Payer, salt, amount, r, and s with the parity of y in its highest bit (ERC-2098)."""
    signature = claim.voucher.signature
    s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    head = bytes.fromhex(claim.terms.payer[2:]) + claim.terms.salt + claim.amount.to_bytes(16, "big")
    return head + signature[:32] + s.to_bytes(32, "big")
