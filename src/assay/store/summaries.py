"""What lists of receipts show: one narrow row a receipt, so that to look through 100,000 is to read no bundle."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, update

from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.receipt import Receipt
from assay.core.request import Level
from assay.core.verdict import Outcome
from assay.store.database import receipts, summaries, verdicts

Order: TypeAlias = Literal["kept", "tokens", "amount"]
"""What a list is sorted by; receipts that are equal in it, by when they came."""
ORDERS: Final[tuple[Order, ...]] = get_args(Order)
_AMOUNT_DIGITS: Final = 39
"""Amounts are kept with leading zeros, so that every database sorts them as numbers."""
_LATE: Final = 500
"""Receipts of a database of before that get their rows at one look at a list."""
_LAST: Final = "~"
"""Comes after all signs of addresses and digests."""
_DAY: Final = 86_400


class Summary(NamedTuple):
    """One receipt."""

    row: int
    kept: int
    """Unix seconds."""
    name: Digest
    """Of its request."""
    digest: Digest
    provider: Address
    model: Digest
    level: Level
    prompt: int
    """Tokens."""
    output: int
    """Tokens."""
    amount: int
    """Wei; on a channel, of all answers until then."""
    outcome: Outcome | None
    """Of the last check; None: there was none."""


Place: TypeAlias = tuple[int, int]
"""Where a page ended: the last receipt's value in the order, and its row."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which receipts, in which order."""

    text: str = ""
    """How the provider's address or the receipt's digest begins."""
    provider: Address = ""
    model: Digest = b""
    level: Level | None = None
    outcome: Outcome | Literal["unchecked"] | None = None
    order: Order = "kept"
    descending: bool = True


class Day(NamedTuple):
    """What became of the answers of one day."""

    day: int
    """Since 1970."""
    answers: int
    """Whose receipts are kept."""
    held: int
    failed: int
    inconclusive: int


def add(connection: Connection, row: int, kept: int, name: str, digest: str, receipt: Receipt) -> None:
    """Of a receipt that is being stored; `name` of its request and `digest` in hexadecimal."""
    connection.execute(insert(summaries).values(_values(row, kept, name, digest, receipt)))


def judged(connection: Connection, digest: str, outcome: Outcome) -> None:
    """A check of a receipt (by its digest in hexadecimal) came out so."""
    connection.execute(update(summaries).where(summaries.c.digest == digest).values(outcome=outcome))


def behind(connection: Connection) -> bool:
    """There are receipts that were stored by a version which had no such rows."""
    first, listed = (connection.scalar(select(func.min(table.c.id))) for table in (receipts, summaries))
    return first is not None and (listed is None or first < listed)


def catch_up(connection: Connection) -> None:
    """Add some of these receipts, the newest first."""
    first = connection.scalar(select(func.min(summaries.c.id)))
    late = select(receipts).order_by(receipts.c.id.desc()).limit(_LATE)
    rows = connection.execute(late if first is None else late.where(receipts.c.id < first)).all()
    if not rows:
        return
    said = select(verdicts.c.receipt, verdicts.c.outcome).where(verdicts.c.receipt.in_([row.digest for row in rows]))
    outcomes = {row.receipt: row.outcome for row in connection.execute(said.order_by(verdicts.c.id))}
    values: list[Mapping[str, object]] = []
    for row in rows:
        receipt = Receipt.from_json(json.loads(row.bundle)["receipt"])  # all of it was checked when it came
        outcome = outcomes.get(row.digest)
        values.append({**_values(row.id, row.kept, row.name, row.digest, receipt), "outcome": outcome})
    connection.execute(insert(summaries), values)


def listed(connection: Connection, wanted: Wanted, most: int, after: Place | None) -> Sequence[Summary]:
    """Up to `most` receipts, those after a place in their order."""
    by, row = _by(wanted.order), summaries.c.id
    query = select(summaries).where(_fits(wanted)).limit(most)
    if after is not None:
        value, last = after
        spelled = _spelled(value) if wanted.order == "amount" else value
        beyond = (by < spelled, row < last) if wanted.descending else (by > spelled, row > last)
        query = query.where(or_(beyond[0], and_(by == spelled, beyond[1])))
    ordered = (by.desc(), row.desc()) if wanted.descending else (by, row)
    found = connection.execute(query.order_by(*ordered))
    return [
        Summary(
            each.id, each.kept, bytes.fromhex(each.name), bytes.fromhex(each.digest), each.provider,
            bytes.fromhex(each.model), each.level, each.prompt, each.output, int(each.amount), each.outcome,
        )
        for each in found
    ]  # fmt: skip


def place(summary: Summary, order: Order) -> Place:
    """Where a list goes on after this one."""
    values = {"kept": summary.kept, "tokens": summary.output, "amount": summary.amount}
    return values[order], summary.row


def counted(connection: Connection, wanted: Wanted) -> int:
    """How many there are."""
    return connection.scalar(select(func.count()).select_from(summaries).where(_fits(wanted))) or 0


def by_day(connection: Connection, providers: Collection[Address], since: int) -> Mapping[Address, Sequence[Day]]:
    """Of each of some providers the days, from `since` on (days since 1970), on which there were answers."""
    day = (summaries.c.kept // _DAY).label("day")
    query = (
        select(summaries.c.provider, day, summaries.c.outcome, func.count().label("times"))
        .where(summaries.c.provider.in_(providers), summaries.c.kept >= since * _DAY)
        .group_by(summaries.c.provider, day, summaries.c.outcome)
    )
    counts: dict[tuple[str, int], dict[str | None, int]] = {}
    for row in connection.execute(query):
        counts.setdefault((row.provider, int(row.day)), {})[row.outcome] = row.times
    found: dict[Address, list[Day]] = {}
    for (provider, number), of in sorted(counts.items()):
        held, failed, unclear = (of.get(outcome, 0) for outcome in ("holds", "fails", "inconclusive"))
        found.setdefault(provider, []).append(Day(number, sum(of.values()), held, failed, unclear))
    return found


def _values(row: int, kept: int, name: str, digest: str, receipt: Receipt) -> Mapping[str, object]:
    return {
        "id": row,
        "kept": kept,
        "name": name,
        "digest": digest,
        "provider": receipt.provider,
        "model": receipt.model.hex(),
        "level": receipt.level,
        "prompt": receipt.prompt_count,
        "output": receipt.output_count,
        "amount": _spelled(receipt.amount),
    }


def _spelled(amount: int) -> str:
    return str(amount).zfill(_AMOUNT_DIGITS)


def _by(order: Order) -> ColumnElement[Any]:
    return {"kept": summaries.c.kept, "tokens": summaries.c.output, "amount": summaries.c.amount}[order]


def _fits(wanted: Wanted) -> ColumnElement[bool]:
    wishes: list[ColumnElement[bool]] = [summaries.c.id > 0]
    if text := wanted.text.lower():
        columns = (summaries.c.provider, summaries.c.digest)
        wishes.append(or_(*(and_(column >= text, column < text + _LAST) for column in columns)))
    if wanted.provider:
        wishes.append(summaries.c.provider == wanted.provider)
    if wanted.model:
        wishes.append(summaries.c.model == wanted.model.hex())
    if wanted.level is not None:
        wishes.append(summaries.c.level == wanted.level)
    if wanted.outcome == "unchecked":
        wishes.append(summaries.c.outcome.is_(None))
    elif wanted.outcome is not None:
        wishes.append(summaries.c.outcome == wanted.outcome)
    return and_(*wishes)
