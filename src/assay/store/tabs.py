"""A provider's payers at rest: the terms of their channels, what they owe, and their best vouchers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from assay.core.encoding import canonical, parse_canonical
from assay.core.errors import StoreError
from assay.core.hashing import Digest
from assay.core.voucher import Terms, Voucher
from assay.store.database import guard, open_database, reading, tabs, write


@dataclass(frozen=True, slots=True)
class Kept:
    """One channel."""

    terms: Terms
    owed: int
    """Wei in all, after the last receipt."""
    voucher: Voucher | None
    """The best one."""


class TabStore:
    """Shares the database of a `ReceiptStore`, which raises what is owed with each receipt (`charge`). Calls block.

    Every method raises StoreError when the database is full, locked by another program, damaged or unreachable.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        """`url`: the receipts' SQLAlchemy URL. `clock`: Unix seconds."""
        self._url = url
        self._clock = clock
        self._engine = open_database(url)

    def open(self, channel: Digest, terms: Terms, owed: int) -> Kept:
        """What is kept of a channel; a new one begins with so much owed."""

        def work(connection: Connection) -> Kept:
            found = _find(connection, channel)
            if found is None:
                row = {"terms": canonical(terms.to_json()).decode(), "owed": str(owed), "amount": "0"}
                opened = int(self._clock())
                connection.execute(insert(tabs).values(channel=channel.hex(), signature=b"", opened=opened, **row))
            return found or Kept(terms, owed, None)

        return self.find(channel) or write(self._engine, self._url, work)

    def find(self, channel: Digest) -> Kept | None:
        """What is kept of a channel."""
        with guard(self._url), reading(self._engine) as connection:
            return _find(connection, channel)

    def raise_to(self, voucher: Voucher) -> int:
        """Keep a voucher of a channel that is known, if it is the best one; the amount of the best one then."""

        def work(connection: Connection) -> int:
            row = tabs.c.channel == voucher.channel.hex()
            before = int(connection.execute(select(tabs.c.amount).where(row).with_for_update()).scalar_one())
            if voucher.amount > before:
                values = {"amount": str(voucher.amount), "signature": voucher.signature}
                connection.execute(update(tabs).where(row).values(**values))
            return max(before, voucher.amount)

        return write(self._engine, self._url, work)

    def vouchers(self) -> Sequence[tuple[Terms, Voucher]]:
        """The best voucher of every channel that has one."""
        with guard(self._url), reading(self._engine) as connection:
            rows = connection.execute(select(tabs).where(tabs.c.amount != "0"))
            found = [_kept(row.terms, row.owed, row.channel, row.amount, row.signature) for row in rows]
        return [(kept.terms, kept.voucher) for kept in found if kept.voucher is not None]

    def sums(self) -> tuple[int, int, int]:
        """Channels, wei owed and wei that the vouchers allow, over all channels."""
        with guard(self._url), reading(self._engine) as connection:
            count = connection.scalar(select(func.count()).select_from(tabs)) or 0
            rows = connection.execute(select(tabs.c.owed, tabs.c.amount))
            amounts = [(int(row.owed), int(row.amount)) for row in rows]
        return count, sum(owed for owed, _ in amounts), sum(amount for _, amount in amounts)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def owe(connection: Connection, channel: Digest, price: int) -> int:
    """Raise what is owed on a channel by `price`, in the caller's transaction; what is owed then.

    Raises:
        StoreError: the channel is not known.
    """
    row = tabs.c.channel == channel.hex()
    before = connection.scalar(select(tabs.c.owed).where(row).with_for_update())
    if before is None:
        raise StoreError(f"the channel {channel.hex()} is not in the database", "keep receipts and channels in one")
    owed = int(before) + price
    connection.execute(update(tabs).where(row).values(owed=str(owed)))
    return owed


def _find(connection: Connection, channel: Digest) -> Kept | None:
    row = connection.execute(select(tabs).where(tabs.c.channel == channel.hex())).one_or_none()
    return None if row is None else _kept(row.terms, row.owed, row.channel, row.amount, row.signature)


def _kept(terms: str, owed: str, channel: str, amount: str, signature: bytes) -> Kept:
    voucher = Voucher(bytes.fromhex(channel), int(amount), signature) if signature else None
    return Kept(Terms.from_json(parse_canonical(terms.encode(), what="a channel's terms")), int(owed), voucher)
