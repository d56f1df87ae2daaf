"""What others report of receipts, at rest: bounded for each reporter, and joined with what was found here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from sqlalchemy import Connection, delete, func, insert, select, true

from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.report import SignedReport
from assay.store.database import guard, open_database, reading, reports, verdicts, write

MOST: Final = 1_000
"""Reports of one reporter that are kept, the newest."""
MOST_IN_ALL: Final = 10_000
Here: TypeAlias = Literal["holds", "fails", "unknown"]
"""What a check here found of the same receipt."""


class Told(NamedTuple):
    """A report that is kept."""

    reporter: Address
    provider: Address
    receipt: Digest
    good: bool
    here: Here


class ReportStore:
    """May share the database of a `ReceiptStore`. Calls block.

    Every method raises StoreError when the database is full, locked by another program, damaged or unreachable.
    """

    def __init__(self, url: str, *, most: int = MOST, most_in_all: int = MOST_IN_ALL) -> None:
        """`url`: SQLAlchemy URL. `most`: reports of one reporter that are kept; `most_in_all`: of all."""
        self._url: Final = url
        self._most: Final = most
        self._most_in_all: Final = most_in_all
        self._engine: Final = open_database(url)

    def keep(self, found: Sequence[SignedReport]) -> None:
        """Write reports whose signatures hold; one that is known is no error."""

        def work(connection: Connection) -> None:
            for each in found:
                row = {"reporter": each.reporter, "receipt": each.receipt.digest.hex(), "good": int(each.good)}
                same = [reports.c[name] == value for name, value in row.items()]
                if connection.scalar(select(reports.c.id).where(*same)) is None:
                    connection.execute(insert(reports).values(**row, provider=each.receipt.provider))
            owns = [reports.c.reporter == reporter for reporter in {each.reporter for each in found}]
            for which, most in (*((own, self._most) for own in owns), (true(), self._most_in_all)):
                newest = select(reports.c.id).where(which).order_by(reports.c.id.desc()).offset(most).limit(1)
                last = connection.scalar(newest)
                if last is not None:
                    connection.execute(delete(reports).where(which, reports.c.id <= last))

        write(self._engine, self._url, work)

    def load(self) -> Sequence[Told]:
        """All of them, oldest first. A receipt of which checks here found both is one that fails."""
        decided = (verdicts.c.outcome != "inconclusive") & (verdicts.c.basis != "none")
        here = (
            select(verdicts.c.receipt, func.min(verdicts.c.outcome).label("outcome"))  # "fails" comes before "holds"
            .where(decided)
            .group_by(verdicts.c.receipt)
            .subquery()
        )
        query = select(reports, here.c.outcome).outerjoin(here, here.c.receipt == reports.c.receipt)
        with guard(self._url), reading(self._engine) as connection:
            rows = connection.execute(query.order_by(reports.c.id)).all()
        return [
            Told(row.reporter, row.provider, bytes.fromhex(row.receipt), bool(row.good), row.outcome or "unknown")
            for row in rows
        ]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()
