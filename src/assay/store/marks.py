"""What a record book remembers over a restart: the highest sequence numbers, so that no older record comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from assay.core.record import Mark
from assay.store.database import guard, marks, open_database, reading, write

_AT_ONCE: Final = 500
"""Rows of one statement."""


class MarkStore:
    """May share the database of a `ReceiptStore`. Calls block.

    Every method raises StoreError when the database is full, locked by another program, damaged or unreachable.
    """

    def __init__(self, url: str, *, most: int) -> None:
        """`url`: SQLAlchemy URL. `most`: rows that are kept; the ones that end last, of which pinned ones do first."""
        self._url = url
        self._most = most
        self._engine = open_database(url)

    def load(self) -> Sequence[Mark]:
        """All of them, the pinned ones first."""
        with guard(self._url), reading(self._engine) as connection:
            rows = connection.execute(select(marks).order_by(marks.c.pinned.desc(), marks.c.until.desc()))
            return [Mark(r.provider, r.sequence, bytes.fromhex(r.digest), r.until, bool(r.pinned)) for r in rows]

    def keep(self, found: Sequence[Mark], now: float) -> None:
        """Write marks that are new or have changed, and let go of those that have ended and are not pinned."""
        rows = [
            {"provider": m.provider, "sequence": m.sequence, "digest": m.digest.hex(), "until": m.until,
             "pinned": int(m.pinned)}
            for m in found
        ]  # fmt: skip
        ordered = select(marks.c.provider).order_by(marks.c.pinned.desc(), marks.c.until.desc())

        def work(connection: Connection) -> None:
            for start in range(0, len(rows), _AT_ONCE):
                part = rows[start : start + _AT_ONCE]
                connection.execute(delete(marks).where(marks.c.provider.in_([row["provider"] for row in part])))
                connection.execute(insert(marks), part)
            connection.execute(delete(marks).where(marks.c.until < int(now), marks.c.pinned == 0))
            connection.execute(delete(marks).where(marks.c.provider.in_(ordered.offset(self._most))))

        write(self._engine, self._url, work)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()
