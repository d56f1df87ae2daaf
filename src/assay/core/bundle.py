"""A bundle: a receipt and all that an offline check needs besides the model file. The `receipt.json` of users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from assay.core.encoding import Json, b64, canonical, pack_ids, parse_canonical, unb64, unpack_ids
from assay.core.errors import EncodingError
from assay.core.profile import Profile
from assay.core.receipt import Receipt
from assay.core.request import Request, text

MAX_BUNDLE_BYTES: Final = 32 * 2**20
"""Larger files are refused unread."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Nothing in it is believed: the receipt's signature binds every other member."""

    receipt: Receipt
    request: Request
    profile: Profile
    tokens: tuple[int, ...]
    """Output token ids."""
    opening: bytes = b""
    """The evidence leaves, one after the other, where the level needs them opened (`statistical`)."""

    def to_json(self) -> dict[str, Json]:
        """Canonical form."""
        return {
            "receipt": self.receipt.to_json(),
            "request": self.request.to_json(),
            "profile": self.profile.to_json(),
            "tokens": b64(pack_ids(self.tokens)),
            "opening": b64(self.opening),
        }

    def encode(self) -> bytes:
        """Canonical bytes and one newline: the one spelling of a receipt file."""
        return canonical(self.to_json()) + b"\n"

    @classmethod
    def from_json(cls, value: Json) -> Bundle:
        """Inverse of `to_json`.

        Raises:
            EncodingError: a member is missing, unknown or malformed.
        """
        names = {"receipt", "request", "profile", "tokens", "opening"}
        if not isinstance(value, Mapping) or set(value) != names:
            raise EncodingError(f"a receipt file has exactly the members {', '.join(sorted(names))}")
        return cls(
            receipt=Receipt.from_json(value["receipt"]),
            request=Request.from_json(value["request"]),
            profile=Profile.from_json(value["profile"]),
            tokens=unpack_ids(unb64(text(value["tokens"], "tokens"), size=None, what="tokens"), what="tokens"),
            opening=unb64(text(value["opening"], "opening"), size=None, what="opening"),
        )

    @classmethod
    def decode(cls, data: bytes) -> Bundle:
        """Read a receipt file.

        Raises:
            EncodingError: too large, cut short, not canonical, or not a bundle.
        """
        if len(data) > MAX_BUNDLE_BYTES:
            raise EncodingError(f"the receipt file is larger than {MAX_BUNDLE_BYTES} bytes")
        if not data.endswith(b"\n"):
            raise EncodingError(
                "the receipt file does not end with a newline", "it was cut short or edited: fetch it again"
            )
        return cls.from_json(parse_canonical(data[:-1], what="the receipt file"))
