"""Domain-tagged SHA-256: a digest of one kind can never be taken for one of another kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from typing import Literal, TypeAlias

Digest: TypeAlias = bytes
"""32 bytes of SHA-256."""

Tag: TypeAlias = Literal[
    "assay/request/2",
    "assay/request-body/1",
    "assay/name/1",
    "assay/seed/2",
    "assay/nonce/1",
    "assay/prompt-text/1",
    "assay/prompt-tokens/2",
    "assay/output/2",
    "assay/token/1",
    "assay/ask/1",
    "assay/payment/1",
    "assay/channel/1",
    "assay/profile/1",
    "assay/logits/1",
    "assay/evidence/2",
    "assay/evidence-salt/1",
    "assay/merkle-leaf/1",
    "assay/merkle-node/1",
    "assay/merkle-root/1",
    "assay/exact-chunk/1",
    "assay/exact-node/1",
    "assay/exact-root/1",
    "assay/exact-token/1",
    "assay/exact-parameter/1",
    "assay/exact-layer/1",
    "assay/exact-model/1",
    "assay/exact-challenge/1",
    "assay/exact-cell/1",
    "assay/record/1",
    "assay/report/1",
    "assay/relay/1",
    "assay/iroh/1",
]
"""Every domain in use; the number rises when what is hashed under it changes."""

ZERO = bytes(32)
"""An absent 32-byte value, where the protocol allows absence (a receipt without a channel)."""


@cache
def prefix(tag: Tag) -> bytes:
    """The 64 bytes, one block of SHA-256, that precede whatever is hashed under a tag."""
    return hashlib.sha256(tag.encode("ascii")).digest() * 2


def digest(tag: Tag, *parts: bytes | memoryview) -> Digest:
    """SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ parts), the tagged hash of BIP-340.

    Parts are concatenated: callers pass at most one part of variable length, and that one last.
    """
    state = hashlib.sha256(prefix(tag))
    for part in parts:
        state.update(part)
    return state.digest()


def digests(tag: Tag, start: bytes, parts: Iterable[bytes]) -> list[Digest]:
    """`digest(tag, start, part)` of each part, in half the time."""
    state = hashlib.sha256(prefix(tag) + start)
    found: list[Digest] = []
    for part in parts:
        one = state.copy()
        one.update(part)
        found.append(one.digest())
    return found
