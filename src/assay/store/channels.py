"""A gateway's channels at rest: what was deposited, what answers are worth, and what was signed.

An amount is on the disk before the voucher over it leaves, and a receipt is counted once, in the same transaction: so a
restart never signs less, nor twice for one receipt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Row, delete, insert, select, update

from assay.core.encoding import canonical, parse_canonical
from assay.core.errors import NotFound, PaymentRequired
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.voucher import Terms, Voucher
from assay.store.database import channels, guard, open_database, outstanding, payments, reading, write

State: TypeAlias = Literal["open", "closing", "leaving", "closed"]
"""`closing`: to be withdrawn from; `leaving`: the withdrawal has begun; `closed`: what was left is back."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel; amounts are wei, cumulative where they are of vouchers and receipts."""

    id: Digest
    provider: Address
    url: str
    """Where the provider answered last."""
    number: int
    """Of the channels with this provider, from 0."""
    terms: Terms
    state: State
    deposits: int
    """Transactions begun: each has a name of its own."""
    deposited: int
    depositing: int
    """By a transaction that is under way."""
    withdrawn: int
    earned: int
    """What the answers are worth whose receipts were checked."""
    asked: int
    """Most that the provider has asked for."""
    voucher: Voucher | None
    """The last one that was signed."""
    accepted: int
    """Of vouchers, the largest amount that the provider has said it has."""
    reason: str
    """Why it is closing."""

    @property
    def signed(self) -> int:
        """By the last voucher."""
        return 0 if self.voucher is None else self.voucher.amount

    @property
    def funds(self) -> int:
        """What vouchers may come to."""
        return self.deposited - self.withdrawn

    @property
    def bound(self) -> int:
        """What counts against the budget: money that went in and did not come back."""
        return self.deposited + self.depositing - self.withdrawn


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A request that was sent, and has no checked receipt yet."""

    mark: str
    channel: Digest
    most: int
    """Wei that it can cost."""
    url: str
    offer: bytes
    """As the provider's list had it."""
    request: bytes
    """Canonical."""
    kept: int = 0
    """Since when, Unix seconds."""


Sign: TypeAlias = Callable[[Channel], Voucher | None]
"""The next voucher on a channel, or None where nothing is to be paid."""


class ChannelStore:
    """Shares the database of a gateway's `ReceiptStore`. Calls block.

    Every method raises StoreError when the database is full, locked by another program, damaged or unreachable.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        """`url`: the receipts' SQLAlchemy URL. `clock`: Unix seconds."""
        self._url = url
        self._clock = clock
        self._engine = open_database(url)

    def known(self) -> Sequence[Channel]:
        """All of them, by provider and number."""
        query = select(channels).order_by(channels.c.provider, channels.c.number)
        with guard(self._url), reading(self._engine) as connection:
            return [_channel(row) for row in connection.execute(query)]

    def add(
        self, name: Digest, provider: Address, url: str, number: int, terms: Terms, state: State = "open"
    ) -> Channel:
        """A new channel, or the one that is here with this id."""
        fresh = Channel(name, provider, url, number, terms, state, 0, 0, 0, 0, 0, 0, None, 0, "")

        def work(connection: Connection) -> Channel:
            if connection.scalar(select(channels.c.channel).where(channels.c.channel == name.hex())) is None:
                connection.execute(insert(channels).values(channel=name.hex(), **_values(fresh)))
            return _get(connection, name)

        return write(self._engine, self._url, work)

    def plan_deposit(self, name: Digest, amount: int, budget: int) -> Channel:
        """Note that `amount` is about to be deposited; one that was noted before and is not done yet comes first.

        Raises:
            PaymentRequired: all channels together would hold more than the budget.
        """

        def work(connection: Connection) -> Channel:
            found = _get(connection, name)
            if found.depositing:
                return found
            bound = sum(_channel(row).bound for row in connection.execute(select(channels)))
            if bound + amount > budget:
                raise PaymentRequired(
                    f"of the budget of {budget} wei {bound} are in channels or spent, and {amount} more are needed",
                    "raise [gateway] budget_wei, or see `assay channels`",
                    reason="budget",
                )
            return _put(connection, replace(found, depositing=amount, deposits=found.deposits + 1))

        return write(self._engine, self._url, work)

    def deposited(self, name: Digest) -> Channel:
        """The deposit under way has arrived."""
        return self.change(name, lambda it: replace(it, deposited=it.deposited + it.depositing, depositing=0))

    def closing(self, name: Digest, reason: str) -> Channel:
        """No more is signed on a channel, and what is left is to be taken back."""
        return self.change(name, lambda it: replace(it, state="closing", reason=reason) if it.state == "open" else it)

    def moved(self, name: Digest, url: str) -> Channel:
        """The provider answers elsewhere now."""
        return self.change(name, lambda it: replace(it, url=url))

    def change(self, name: Digest, make: Callable[[Channel], Channel]) -> Channel:
        """Replace a channel by what `make` makes of it, in one transaction."""
        return write(self._engine, self._url, lambda connection: _put(connection, make(_get(connection, name))))

    def begin(self, item: Outstanding) -> None:
        """A request is on its way."""
        row = insert(outstanding).values(
            mark=item.mark, channel=item.channel.hex(), most=str(item.most), url=item.url, offer=item.offer,
            request=item.request, kept=int(self._clock()),
        )  # fmt: skip
        write(self._engine, self._url, lambda connection: connection.execute(row))

    def settle(self, item: Outstanding, receipt: Digest, price: int, asked: int, sign: Sign) -> Channel:
        """Count a checked receipt, once however often this is called; the channel then, with its next voucher."""

        def work(connection: Connection) -> Channel:
            connection.execute(delete(outstanding).where(outstanding.c.mark == item.mark))
            found = _get(connection, item.channel)
            if connection.scalar(select(payments.c.receipt).where(payments.c.receipt == receipt.hex())) is not None:
                return found
            earned = replace(found, earned=found.earned + price, asked=max(found.asked, asked))
            paid = _put(connection, _signed(earned, sign))
            connection.execute(
                insert(payments).values(
                    receipt=receipt.hex(), channel=paid.id.hex(), price=str(price), asked=str(asked),
                    voucher=str(paid.signed), kept=int(self._clock()),
                )
            )  # fmt: skip
            return paid

        return write(self._engine, self._url, work)

    def pay(self, name: Digest, asked: int, sign: Sign) -> Channel:
        """Sign in mid-answer; the channel with its next voucher."""
        return self.change(name, lambda it: _signed(replace(it, asked=max(it.asked, asked)), sign))

    def accepted(self, name: Digest, amount: int) -> Channel:
        """The provider has said that it has a voucher for so much on its disk."""
        return self.change(name, lambda it: replace(it, accepted=max(it.accepted, amount)))

    def outstanding(self) -> Sequence[Outstanding]:
        """All requests without a checked receipt, oldest first."""
        with guard(self._url), reading(self._engine) as connection:
            rows = connection.execute(select(outstanding).order_by(outstanding.c.kept))
            return [
                Outstanding(
                    row.mark, bytes.fromhex(row.channel), int(row.most), row.url, row.offer, row.request, row.kept
                )
                for row in rows
            ]

    def forget(self, mark: str) -> None:
        """A request for which nothing can be owed."""
        gone = delete(outstanding).where(outstanding.c.mark == mark)
        write(self._engine, self._url, lambda connection: connection.execute(gone))

    def voucher_for(self, receipt: Digest) -> int | None:
        """The amount of the voucher that was signed when this receipt was counted; None: it was not."""
        query = select(payments.c.voucher).where(payments.c.receipt == receipt.hex())
        with guard(self._url), reading(self._engine) as connection:
            found = connection.scalar(query)
        return None if found is None else int(found)

    def sums(self) -> dict[str, int]:
        """Wei over all channels, by kind."""
        kinds = ("deposited", "withdrawn", "earned", "signed", "accepted")
        known = self.known()
        return {kind: sum(getattr(channel, kind) for channel in known) for kind in kinds}

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def _signed(channel: Channel, sign: Sign) -> Channel:
    voucher = sign(channel)
    if voucher is None or voucher.amount <= channel.signed:
        return channel
    return replace(channel, voucher=voucher)


def _get(connection: Connection, name: Digest) -> Channel:
    row = connection.execute(select(channels).where(channels.c.channel == name.hex()).with_for_update()).one_or_none()
    if row is None:
        raise NotFound(f"no channel {name.hex()} is known here", "see `assay channels`")
    return _channel(row)


def _put(connection: Connection, channel: Channel) -> Channel:
    connection.execute(update(channels).where(channels.c.channel == channel.id.hex()).values(**_values(channel)))
    return channel


def _values(channel: Channel) -> dict[str, Any]:
    amounts = ("deposited", "depositing", "withdrawn", "earned", "asked", "signed", "accepted")
    return {name: str(getattr(channel, name)) for name in amounts} | {
        "provider": channel.provider,
        "url": channel.url,
        "number": channel.number,
        "terms": canonical(channel.terms.to_json()).decode(),
        "state": channel.state,
        "deposits": channel.deposits,
        "signature": b"" if channel.voucher is None else channel.voucher.signature,
        "reason": channel.reason,
    }


def _channel(row: Row[Any]) -> Channel:
    name = bytes.fromhex(row.channel)
    return Channel(
        id=name,
        provider=row.provider,
        url=row.url,
        number=row.number,
        terms=Terms.from_json(parse_canonical(row.terms.encode(), what="a channel's terms")),
        state=row.state,
        deposits=row.deposits,
        deposited=int(row.deposited),
        depositing=int(row.depositing),
        withdrawn=int(row.withdrawn),
        earned=int(row.earned),
        asked=int(row.asked),
        voucher=Voucher(name, int(row.signed), row.signature) if row.signature else None,
        accepted=int(row.accepted),
        reason=row.reason,
    )
