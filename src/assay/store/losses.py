"""Who lost something to a court, as its events told: kept, so that a restart knows it before the chain is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from assay.core.keys import Address
from assay.store.database import counters, guard, losses, open_database, reading, write


@dataclass(frozen=True, slots=True)
class Loss:
    """What one provider lost at once."""

    transaction: bytes
    """Its hash, 32 bytes."""
    position: int
    """Of the event, in its block."""
    provider: Address
    wei: int


class LossStore:
    """Of one court. May share the database of a `ReceiptStore`. Calls block.

    Every method raises StoreError when the database is full, locked by another program, damaged or unreachable.
    """

    def __init__(self, url: str, court: str) -> None:
        """`url`: SQLAlchemy URL. `court`: chain and address, which name the court."""
        self._url: Final = url
        self._court: Final = court
        self._engine: Final = open_database(url)

    def load(self) -> tuple[frozenset[Address], int | None]:
        """Providers that have lost something, and the block to go on with; None: none was read."""
        with guard(self._url), reading(self._engine) as connection:
            found = connection.scalars(select(losses.c.provider).where(losses.c.court == self._court).distinct())
            block = connection.scalar(select(counters.c.value).where(counters.c.name == self._next))
            return frozenset(found), block

    def keep(self, found: Sequence[Loss], block: int) -> None:
        """Write what was found up to `block`, with which it goes on; a loss that is known is no error."""

        def work(connection: Connection) -> None:
            for each in found:
                row = {"court": self._court, "transaction": each.transaction.hex(), "position": each.position}
                same = [losses.c[name] == value for name, value in row.items()]
                connection.execute(delete(losses).where(*same))
                connection.execute(insert(losses).values(**row, provider=each.provider, wei=str(each.wei)))
            connection.execute(delete(counters).where(counters.c.name == self._next))
            connection.execute(insert(counters).values(name=self._next, value=block))

        write(self._engine, self._url, work)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @property
    def _next(self) -> str:
        return f"court {self._court}"
