"""Receipts at rest: issued under rising sequence numbers by a provider, or collected by who paid for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import Connection, CursorResult, delete, func, insert, or_, select, update

from assay.core.bundle import Bundle
from assay.core.errors import Equivocation, NotFound
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.request import Level, Request
from assay.core.trace import Trace
from assay.core.verdict import Basis, Outcome, Verdict
from assay.store import summaries as lists
from assay.store.database import (
    counters,
    exhibits,
    guard,
    open_database,
    reading,
    receipts,
    summaries,
    traces,
    verdicts,
    write,
)
from assay.store.tabs import owe

_SEQUENCE_BITS: Final = 20
"""A key's first sequence number in a database is the time in Unix seconds, times 2^20: who lost a database and goes on
with the same key never signs a number again, as long as it issued less than a million receipts a second."""
_MOST_FOUND: Final = 256
"""Bundles that one name gives at most: OpenAI's `n` ends at 128."""
T = TypeVar("T")
_PRUNE_EVERY: Final = 256
"""Writes between two clearings of what is over the limits."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How much is kept; the oldest goes first. Sequence numbers are never forgotten."""

    receipts: int = 1_000_000
    """Rows."""
    seconds: int = 180 * 86400
    """Age since they were stored."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often checks of one provider at one level came out one way."""

    provider: Address
    level: Level
    outcome: Outcome
    basis: Basis
    """What the outcome rests on."""
    count: int


class Unaudited(NamedTuple):
    """A receipt without a verdict."""

    row: int
    digest: Digest
    provider: Address


class ReceiptStore:
    """Receipts, verdicts and sequence numbers in one database. Calls block: keep them off an event loop.

    Every method raises StoreError when the database is full, locked by another program, damaged or unreachable.
    """

    def __init__(self, url: str, *, keep: Keep | None = None, clock: Callable[[], float] = time.time) -> None:
        """`url`: an SQLAlchemy URL, such as `sqlite:////path/to/receipts.db`. `clock`: Unix seconds."""
        self._url = url
        self._keep = keep or Keep()
        self._clock = clock
        self._engine = open_database(url)
        self._writes = 0

    def issue(self, provider: Address, make: Callable[[int], Bundle]) -> Bundle:
        """Take `provider`'s next sequence number, have `make` sign under it, and store what it made.

        One transaction: when this returns, the bundle is on the disk and its number spent; when the process dies
        before, neither is, and nobody has seen the bundle.
        """

        def work(connection: Connection) -> Bundle:
            bundle = make(self._next(connection, provider))
            self._insert(connection, bundle)
            self._prune(connection)
            return bundle

        return self._write(work)

    def charge(self, provider: Address, channel: Digest, price: int, make: Callable[[int, int], Bundle]) -> Bundle:
        """`issue` on a payment channel that a `TabStore` knows: `make` is given the number and what is owed on the
        channel in all, this answer's price (wei) included. Both are spent, or neither."""

        def work(connection: Connection) -> Bundle:
            owed = owe(connection, channel, price)
            bundle = make(self._next(connection, provider), owed)
            self._insert(connection, bundle)
            self._prune(connection)
            return bundle

        return self._write(work)

    def put(self, bundle: Bundle) -> None:
        """Keep somebody else's receipt, whose signature was checked; once more is no error.

        Raises:
            Equivocation: the same provider signed another receipt under this number. Two of them are kept.
        """
        receipt = bundle.receipt
        found = self._write(lambda connection: self._put(connection, bundle))
        if found not in (None, receipt.digest.hex()):
            raise Equivocation(
                f"{receipt.provider} signed two different receipts under sequence number {receipt.sequence}",
                f"{found} is kept, and one that contradicts it",
            )

    def get(self, digest: Digest) -> Bundle:
        """The receipt with this digest; for those who may read everything, since receipts show their digests.

        Raises:
            NotFound: there is none.
        """
        with guard(self._url), reading(self._engine) as connection:
            for table in (receipts, exhibits):
                data = connection.scalar(select(table.c.bundle).where(table.c.digest == digest.hex()))
                if data is not None:
                    return Bundle.decode(data)
        raise NotFound("no receipt has this digest", "it may be older than what is kept here")

    def find(self, name: Digest) -> Sequence[Bundle]:
        """Every bundle whose request or call has this name (`Request.name`, `Request.call`): by choice, then in the
        order in which they came. Nothing that a receipt shows finds it: who knows the name knows the request."""
        named = or_(receipts.c.name == name.hex(), receipts.c.call == name.hex())
        query = select(receipts.c.bundle).where(named).order_by(receipts.c.id.desc()).limit(_MOST_FOUND)
        with guard(self._url), reading(self._engine) as connection:
            found = [Bundle.decode(data) for data in connection.scalars(query)]
        found.reverse()
        return sorted(found, key=lambda bundle: bundle.request.choice)

    def note(self, request: Request, trace: Trace) -> None:
        """Keep what happened to a request."""
        row = insert(traces).values(
            name=request.name.hex(),
            call=request.call.hex(),
            kept=int(self._clock()),
            body=json.dumps(trace.to_json()),
        )
        self._write(lambda connection: connection.execute(row))

    def traces(self, name: Digest) -> Sequence[Sequence[Mapping[str, object]]]:
        """What happened to the requests with this name or call (`Trace.to_json`), oldest first."""
        named = or_(traces.c.name == name.hex(), traces.c.call == name.hex())
        query = select(traces.c.body).where(named).order_by(traces.c.id.desc()).limit(_MOST_FOUND)
        with guard(self._url), reading(self._engine) as connection:
            return [json.loads(body) for body in connection.scalars(query)][::-1]

    def unaudited(self, limit: int, *, after: int = 0) -> Sequence[Unaudited]:
        """Receipts with row numbers over `after` and no verdict, oldest first."""
        query = (
            select(receipts.c.id, receipts.c.digest, receipts.c.provider)
            .outerjoin(verdicts, verdicts.c.receipt == receipts.c.digest)
            .where(receipts.c.id > after, verdicts.c.id.is_(None))
            .order_by(receipts.c.id)
            .limit(limit)
        )
        with guard(self._url), reading(self._engine) as connection:
            rows = connection.execute(query)
            return [Unaudited(row.id, bytes.fromhex(row.digest), row.provider) for row in rows]

    def contradicting(self, limit: int) -> Sequence[tuple[Digest, Digest]]:
        """Digests of two receipts each that contradict each other, as long as the later one has no verdict."""
        same_number = (receipts.c.provider == exhibits.c.provider) & (receipts.c.sequence == exhibits.c.sequence)
        query = (
            select(receipts.c.digest.label("one"), exhibits.c.digest.label("other"))
            .join(exhibits, same_number)
            .outerjoin(verdicts, verdicts.c.receipt == exhibits.c.digest)
            .where(verdicts.c.id.is_(None))
            .order_by(exhibits.c.id)
            .limit(limit)
        )
        with guard(self._url), reading(self._engine) as connection:
            return [(bytes.fromhex(row.one), bytes.fromhex(row.other)) for row in connection.execute(query)]

    def contradicted(self, limit: int) -> Sequence[tuple[Digest, Digest]]:
        """Digests of two receipts each that contradict each other, whether they have verdicts or not, newest first."""
        same_number = (receipts.c.provider == exhibits.c.provider) & (receipts.c.sequence == exhibits.c.sequence)
        query = (
            select(receipts.c.digest.label("one"), exhibits.c.digest.label("other"))
            .join(exhibits, same_number)
            .order_by(exhibits.c.id.desc())
            .limit(limit)
        )
        with guard(self._url), reading(self._engine) as connection:
            return [(bytes.fromhex(row.one), bytes.fromhex(row.other)) for row in connection.execute(query)]

    def disproven(self, limit: int, *, since: int) -> Sequence[Digest]:
        """Digests of receipts at level `exact` that came after a time (Unix seconds), and that an exact check found
        wrong: the newest so many, oldest first."""
        proof = (verdicts.c.level == "exact") & (verdicts.c.outcome == "fails") & (verdicts.c.basis == "exact")
        query = (
            select(receipts.c.digest, receipts.c.id)
            .join(verdicts, verdicts.c.receipt == receipts.c.digest)
            .where(proof, receipts.c.kept >= since)
            .distinct()
            .order_by(receipts.c.id.desc())
            .limit(limit)
        )
        with guard(self._url), reading(self._engine) as connection:
            return [bytes.fromhex(row.digest) for row in connection.execute(query)][::-1]

    def page(self, wanted: lists.Wanted, most: int, after: lists.Place | None = None) -> Sequence[lists.Summary]:
        """Up to `most` receipts, those after a place in their order."""
        with guard(self._url), reading(self._engine) as connection:
            behind = lists.behind(connection)
        if behind:
            self._write(lists.catch_up)
        with guard(self._url), reading(self._engine) as connection:
            return lists.listed(connection, wanted, most, after)

    def matching(self, wanted: lists.Wanted) -> int:
        """How many receipts a list has in all."""
        with guard(self._url), reading(self._engine) as connection:
            return lists.counted(connection, wanted)

    def days(self, providers: Collection[Address], since: int) -> Mapping[Address, Sequence[lists.Day]]:
        """Of each of some providers what became of its answers, by day, from `since` on (days since 1970)."""
        with guard(self._url), reading(self._engine) as connection:
            return lists.by_day(connection, providers, since)

    def count(self) -> int:
        """Receipts that are kept."""
        with guard(self._url), reading(self._engine) as connection:
            return connection.scalar(select(func.count()).select_from(receipts)) or 0

    def judge(self, verdict: Verdict) -> None:
        """Keep a verdict."""
        with guard(self._url), self._engine.begin() as connection:
            connection.execute(
                insert(verdicts).values(
                    receipt=verdict.receipt,
                    provider=verdict.provider,
                    level=verdict.level,
                    outcome=verdict.outcome,
                    basis=verdict.basis,
                    body=json.dumps(verdict.to_json()),
                )
            )
            lists.judged(connection, verdict.receipt, verdict.outcome)

    def verdicts_on(self, digest: Digest) -> Sequence[Mapping[str, object]]:
        """What checks of one receipt found (`Verdict.to_json`), oldest first."""
        query = select(verdicts.c.body).where(verdicts.c.receipt == digest.hex()).order_by(verdicts.c.id)
        with guard(self._url), reading(self._engine) as connection:
            return [json.loads(body) for body in connection.scalars(query)]

    def tested(self, provider: Address) -> int:
        """Verdicts on a provider that rest on statistics."""
        statistical = (verdicts.c.provider == provider) & verdicts.c.basis.in_(("test", "history"))
        with guard(self._url), reading(self._engine) as connection:
            return connection.scalar(select(func.count()).select_from(verdicts).where(statistical)) or 0

    def passed(self, provider: Address) -> int:
        """Verdicts on a provider whose answers were computed again, with nothing wrong found."""
        recomputed = (verdicts.c.basis == "test") | (
            (verdicts.c.basis == "exact") & (verdicts.c.outcome == "holds") & (verdicts.c.level != "signed")
        )
        well = (verdicts.c.provider == provider) & (verdicts.c.outcome != "fails") & recomputed
        with guard(self._url), reading(self._engine) as connection:
            return connection.scalar(select(func.count()).select_from(verdicts).where(well)) or 0

    def tallies(self) -> Sequence[Tally]:
        """What checks found, counted."""
        keys = (verdicts.c.provider, verdicts.c.level, verdicts.c.outcome, verdicts.c.basis)
        query = select(*keys, func.count().label("times")).group_by(*keys)
        with guard(self._url), reading(self._engine) as connection:
            rows = connection.execute(query)
            return [Tally(row.provider, row.level, row.outcome, row.basis, row.times) for row in rows]

    def contradictions(self) -> Mapping[Address, int]:
        """How many receipts contradict another one, per provider."""
        query = select(exhibits.c.provider, func.count().label("times")).group_by(exhibits.c.provider)
        with guard(self._url), reading(self._engine) as connection:
            return {row.provider: row.times for row in connection.execute(query)}

    def check(self) -> None:
        """Write something and commit it.

        Raises:
            StoreError: receipts cannot be kept now.
        """
        self._write(lambda connection: _set(connection, "checked", int(self._clock())))

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _write(self, work: Callable[[Connection], T]) -> T:
        return write(self._engine, self._url, work)

    def _put(self, connection: Connection, bundle: Bundle) -> str | None:
        """The digest of the receipt that was here under the same number, if there was one."""
        receipt = bundle.receipt
        same_number = (receipts.c.provider == receipt.provider) & (receipts.c.sequence == receipt.sequence)
        found = connection.scalar(select(receipts.c.digest).where(same_number))
        if found is None:
            self._insert(connection, bundle)
            self._prune(connection)
        elif found != receipt.digest.hex():
            like = (exhibits.c.provider == receipt.provider) & (exhibits.c.sequence == receipt.sequence)
            if connection.scalar(select(exhibits.c.id).where(like).limit(1)) is None:
                connection.execute(
                    insert(exhibits).values(
                        digest=receipt.digest.hex(),
                        provider=receipt.provider,
                        sequence=receipt.sequence,
                        bundle=bundle.encode(),
                    )
                )
        return found

    def _next(self, connection: Connection, provider: Address) -> int:
        name = f"sequence {provider}"
        raised = connection.execute(update(counters).where(counters.c.name == name).values(value=counters.c.value + 1))
        if _changed(raised):
            return connection.execute(select(counters.c.value).where(counters.c.name == name)).scalar_one()
        first = int(self._clock()) << _SEQUENCE_BITS
        connection.execute(insert(counters).values(name=name, value=first))
        return first

    def _insert(self, connection: Connection, bundle: Bundle) -> None:
        receipt, kept = bundle.receipt, int(self._clock())
        name, digest = bundle.request.name.hex(), receipt.digest.hex()
        row = insert(receipts).values(
            digest=digest,
            name=name,
            call=bundle.request.call.hex(),
            provider=receipt.provider,
            sequence=receipt.sequence,
            kept=kept,
            bundle=bundle.encode(),
        )
        number = connection.execute(row.returning(receipts.c.id)).scalar_one()
        lists.add(connection, number, kept, name, digest, receipt)

    def _prune(self, connection: Connection) -> None:
        self._writes += 1
        if self._writes % _PRUNE_EVERY:
            return
        for table in (receipts, summaries, traces):
            newest = connection.scalar(select(func.max(table.c.id))) or 0
            old = (table.c.id <= newest - self._keep.receipts) | (
                table.c.kept < int(self._clock()) - self._keep.seconds
            )
            connection.execute(delete(table).where(old))
        newest = connection.scalar(select(func.max(verdicts.c.id))) or 0
        connection.execute(delete(verdicts).where(verdicts.c.id <= newest - self._keep.receipts))


def _set(connection: Connection, name: str, value: int) -> None:
    if not _changed(connection.execute(update(counters).where(counters.c.name == name).values(value=value))):
        connection.execute(insert(counters).values(name=name, value=value))


def _changed(result: CursorResult[tuple[object, ...]]) -> bool:
    return result.rowcount > 0
