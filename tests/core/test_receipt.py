"""Receipts: what they bind, their one spelling, signatures and equivocation."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from tests.tiny import PROFILE, tiny_key, tiny_request

from assay.core.completion import STOP_REASONS, Completion, Prompt, output_digest
from assay.core.encoding import canonical, parse_canonical
from assay.core.errors import EncodingError, Equivocation, InvalidSignature
from assay.core.evidence import evidence_root
from assay.core.hashing import ZERO, Tag, digest
from assay.core.receipt import FIELDS, Receipt, attest, check_equivocation, sign, verify_signature
from assay.core.request import LEVELS

KEY, OTHER = tiny_key(1), tiny_key(2)
REQUEST = tiny_request(nonce=bytes(range(32)))
COMPLETION = Completion(Prompt(b"<user>hi", (1, 2, 3)), (7, 2**32 - 1), "x", "length", (b"leaf 0", b"leaf 1"))
RECEIPT = attest(
    REQUEST,
    COMPLETION,
    model=b"m" * 32,
    profile=PROFILE,
    key=KEY,
    sequence=9,
    issued=1_790_000_000,
    amount=10**30,
    channel=b"c" * 32,
)
NUMBERS = {"prompt_count", "output_count", "sequence", "issued", "amount"}


def another(name: str) -> Any:
    """Another valid value for a member of RECEIPT."""
    value = getattr(RECEIPT, name)
    special = {"level": "signed", "stop": "stop", "provider": OTHER.address}
    return special.get(name) or (value + 1 if name in NUMBERS else bytes([value[0] ^ 1]) + value[1:])


def tokens_root(tag: Tag, nonce: bytes, tokens: list[int]) -> bytes:
    """As the protocol says it, of two to sixteen tokens."""
    leaves = [
        digest("assay/token/1", digest(tag, nonce, index.to_bytes(4)), token.to_bytes(4))
        for index, token in enumerate(tokens)
    ]
    return digest("assay/exact-root/1", len(leaves).to_bytes(8), digest("assay/exact-node/1", *leaves))


def test_attest_binds_what_was_done() -> None:
    """Each member is the digest or number of what it stands for, salted with the nonce where it is private."""
    nonce = REQUEST.nonce
    assert replace(RECEIPT, signature=b"") == Receipt(
        level="pinned",
        stop="length",
        request=REQUEST.digest,
        model=b"m" * 32,
        profile=PROFILE.digest,
        prompt_text=digest("assay/prompt-text/1", nonce, b"<user>hi"),
        prompt_tokens=tokens_root("assay/prompt-tokens/2", nonce, [1, 2, 3]),
        output=tokens_root("assay/output/2", nonce, [7, 2**32 - 1]),
        evidence=evidence_root([b"leaf 0", b"leaf 1"], nonce),
        prompt_count=3,
        output_count=2,
        channel=b"c" * 32,
        amount=10**30,
        provider=KEY.address,
        sequence=9,
        issued=1_790_000_000,
    )
    verify_signature(RECEIPT)


def test_private_digests_are_salted() -> None:
    """The same prompt and answer under another nonce share no digest of private content."""
    other = attest(
        replace(REQUEST, nonce=bytes(32)),
        COMPLETION,
        model=b"m" * 32,
        profile=PROFILE,
        key=KEY,
        sequence=9,
        issued=1_790_000_000,
        amount=10**30,
    )
    for name in ("request", "prompt_text", "prompt_tokens", "output", "evidence"):
        assert getattr(RECEIPT, name) != getattr(other, name), name
    assert other.channel == ZERO
    assert output_digest(REQUEST.nonce, (1,)) != output_digest(bytes(32), (1,))


def test_every_member_is_signed() -> None:
    """A change to any member changes the digest and breaks the signature; signing again mends it, for its own key."""
    names = {f.name for f in fields(Receipt)} - {"signature"}
    assert len(names) + 1 == len(FIELDS)  # the version has no member
    changed = {name: replace(RECEIPT, **{name: another(name)}) for name in names}
    assert len({receipt.digest for receipt in changed.values()} | {RECEIPT.digest}) == len(names) + 1
    for name, receipt in changed.items():
        with pytest.raises(InvalidSignature):
            verify_signature(receipt)
        if name != "provider":
            verify_signature(sign(receipt, KEY))
        else:
            verify_signature(sign(receipt, OTHER))
            with pytest.raises(InvalidSignature, match=KEY.address):
                verify_signature(sign(receipt, KEY))


def test_every_level_and_stop_reason_is_another_number() -> None:
    """Levels and stop reasons that the struct carries as numbers do not run together."""
    digests = {replace(RECEIPT, level=level, stop=stop).digest for level in LEVELS for stop in STOP_REASONS}
    assert len(digests) == len(LEVELS) * len(STOP_REASONS)


def test_receipts_come_back_and_are_small() -> None:
    """Encoding and decoding give the same receipt; the largest one is at most 900 bytes of JSON."""
    largest = replace(
        RECEIPT,
        level="statistical",
        stop="cancelled",
        prompt_count=2**32 - 1,
        output_count=2**32 - 1,
        amount=2**128 - 1,
        sequence=2**53 - 1,
        issued=2**53 - 1,
    )
    for receipt in (RECEIPT, largest):
        data = receipt.encode()
        assert Receipt.from_json(parse_canonical(data, what="it")) == receipt
        assert len(data) <= 900


@pytest.mark.parametrize("name", sorted(RECEIPT.to_json()))
def test_members_of_other_types_are_refused(name: str) -> None:
    """Other types, other spellings, numbers out of range, unknown words, missing and added members are refused."""
    good: dict[str, Any] = json.loads(canonical(RECEIPT.to_json()))
    wrong: list[Any] = [None, True, False, 1.0, -1, 2**53, 10**400, [], {}, "", "x", "\ud800", good["request"] + "A"]
    wrong += ["01", "+1", "1.0", "1e3", " 1", "-1", "١", "²", "1_000", str(2**128), "9" * 5000, "0x1"]
    wrong += [str(good[name]) + "=", [good[name]]]
    if name in ("level", "stop", "provider"):
        wrong.append(good[name].upper())
    if name in ("prompt_count", "output_count"):
        wrong.append(2**32)
    for value in wrong:
        with pytest.raises(EncodingError):
            Receipt.from_json(good | {name: value})
    for other in ({k: v for k, v in good.items() if k != name}, good | {name + "_": 1}):
        with pytest.raises(EncodingError):
            Receipt.from_json(other)


def test_another_version_is_refused_with_a_remedy() -> None:
    """A receipt of a later protocol is not misread."""
    with pytest.raises(EncodingError, match="newer"):
        Receipt.from_json(RECEIPT.to_json() | {"v": 2})


@pytest.mark.parametrize("value", [None, 1, "x", [], {}])
def test_other_things_are_no_receipts(value: Any) -> None:
    """Anything but an object with exactly the members is refused."""
    with pytest.raises(EncodingError):
        Receipt.from_json(value)


def test_equivocation() -> None:
    """Two different receipts of one provider under one number are fraud; others, and the same one twice, are not."""
    other = sign(replace(RECEIPT, output=ZERO), KEY)
    for one, two in ((RECEIPT, other), (other, RECEIPT)):
        with pytest.raises(Equivocation, match=r"number 9$"):
            check_equivocation(one, two)
    check_equivocation(RECEIPT, RECEIPT)
    check_equivocation(RECEIPT, replace(RECEIPT, signature=b"another one over the same"))
    check_equivocation(RECEIPT, sign(replace(other, sequence=10), KEY))
    check_equivocation(RECEIPT, sign(replace(other, provider=OTHER.address), OTHER))
