"""What a directory replies: a page of records, a line each, after a line that says where to go on."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay.core.encoding import canonical
from assay.core.errors import EncodingError
from assay.core.record import MAX_RECORD_BYTES

MAX_RECORDS: Final = 256
"""Records of one page."""
MAX_PAGE: Final = 1 << 20
"""Bytes of one page, but for its last record."""
MEDIA_TYPE: Final = "application/x-ndjson"
_MAX_HEAD: Final = 256
LARGEST: Final = MAX_PAGE + MAX_RECORD_BYTES + _MAX_HEAD
"""Bytes of any page."""
_CURSOR: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a directory's records."""

    cursor: str
    """What to ask with next; means something to its directory only."""
    more: bool
    """There are more now."""
    records: Sequence[bytes]
    """Canonical bytes, unchecked on the reader's side."""

    def encode(self) -> bytes:
        """As it is sent."""
        return b"\n".join([canonical({"cursor": self.cursor, "more": self.more}), *self.records]) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Page:
        """Inverse of `encode`.

        Raises:
            EncodingError: no page, or one that is too large.
        """
        lines = data.split(b"\n", MAX_RECORDS + 2)
        if len(data) > LARGEST or len(lines[0]) > _MAX_HEAD or len(lines) > MAX_RECORDS + 2 or lines[-1]:
            raise EncodingError("a directory's page is too large, or cut")
        try:
            head = json.loads(lines[0])
        except (ValueError, RecursionError) as error:
            raise EncodingError("a directory's page does not begin with its cursor") from error
        cursor, more = (head.get("cursor"), head.get("more")) if isinstance(head, dict) else (None, None)
        if not isinstance(cursor, str) or not _CURSOR.fullmatch(cursor) or not isinstance(more, bool):
            raise EncodingError("a directory's page does not begin with its cursor")
        return cls(cursor, more, lines[1:-1])
