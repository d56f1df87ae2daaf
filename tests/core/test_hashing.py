"""Tagged digests."""

from __future__ import annotations

import hashlib
from typing import get_args

from assay.core.hashing import Tag, digest, digests


def test_digest_is_the_tagged_hash_of_bip_340() -> None:
    """SHA-256 of the tag's digest twice, then the parts one after the other."""
    for tag in get_args(Tag):
        prefix = hashlib.sha256(tag.encode()).digest()
        assert digest(tag, b"ab", memoryview(b"c")) == hashlib.sha256(prefix + prefix + b"abc").digest()


def test_many_digests() -> None:
    """They are those of each part behind the same start."""
    parts = [b"", b"c", bytes(100)]
    assert digests("assay/token/1", b"ab", parts) == [digest("assay/token/1", b"ab", part) for part in parts]


def test_one_content_has_another_digest_under_each_tag() -> None:
    """No digest of one kind is a digest of another kind, and tags carry a version."""
    tags = get_args(Tag)
    assert len({digest(tag, b"x") for tag in tags}) == len(tags)
    assert all(tag.startswith("assay/") and tag.rsplit("/", 1)[1].isdigit() for tag in tags)
