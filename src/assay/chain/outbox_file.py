"""The outbox on disk: what is to be sent, each signed form of it, and what became of it."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from assay.chain.fees import Fee
from assay.chain.node import Entry
from assay.core.errors import InvalidRequest, StoreError
from assay.core.keys import Address, keccak256, parse_address

State: TypeAlias = Literal["queued", "pending", "mined", "final", "failed"]
"""Queued: without a nonce yet. Pending: signed, perhaps broadcast. Mined: in a block that may vanish. Final: in a block
that counts, done or reverted. Failed: never in a block."""
KEPT: Final = 256
"""Of transactions that are done so many are kept whole; of older ones name, outcome and cost."""
MAX_DATA: Final = 120_000
"""Bytes: nodes take transactions of up to 128 KiB."""
MAX_GAS: Final = 30_000_000
_SCHEMA: Final = 1
_LOCK_SECONDS: Final = 2.0
"""How long a process that takes over waits for the one before to let go."""
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS about (schema INTEGER NOT NULL, chain_id INTEGER NOT NULL, address TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS sent (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, target TEXT NOT NULL,
        data BLOB NOT NULL, gas INTEGER, nonce INTEGER UNIQUE, state TEXT NOT NULL, mined TEXT,
        reason TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS sent_open ON sent (id) WHERE state IN ('queued', 'pending', 'mined')",
    """CREATE TABLE IF NOT EXISTS attempts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, sent INTEGER NOT NULL, hash BLOB NOT NULL UNIQUE, tip INTEGER NOT NULL,
        most INTEGER NOT NULL, raw BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS attempts_of ON attempts (sent)",
)
_COLUMNS: Final = "id, name, target, data, gas, nonce, state, mined, reason"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be sent."""

    name: str
    to: Address
    data: bytes
    gas: int | None = None
    """At most; None: it is estimated when its turn comes."""

    def check(self) -> None:
        """Check what nodes would refuse.

        Raises:
            EncodingError: it goes to no address.
            InvalidRequest: its name, data or gas are out of range.
        """
        parse_address(self.to, what="where a transaction goes")
        if not 0 < len(self.name) <= 200 or len(self.data) > MAX_DATA:
            raise InvalidRequest(f"a transaction has a name of up to 200 letters, and up to {MAX_DATA} bytes")
        least = 21_000 + 16 * len(self.data) - 12 * self.data.count(0)  # Yellow Paper, 6.2; EIP-2028
        if self.gas is not None and not least <= self.gas <= MAX_GAS:
            raise InvalidRequest(f"the transaction {self.name} needs {least} to {MAX_GAS} gas")

    @property
    def digest(self) -> bytes:
        """32 bytes that tell whether two wishes of one name are the same."""
        return keccak256(bytes.fromhex(self.to[2:]) + self.data)


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that will be sent, until it is in the chain or has failed for good."""

    name: str
    state: State
    nonce: int | None
    """None: it is not its turn yet, or it failed before."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction in a block."""

    name: str
    transaction: bytes
    """Its hash."""
    block: int
    block_hash: bytes
    ok: bool
    """False: it was reverted."""
    gas_used: int
    paid: int
    """Wei for the gas."""
    logs: tuple[Entry, ...]
    """Its events; none are kept for old ones."""


@dataclass(frozen=True, slots=True)
class Row:
    """A transaction, as far as it has come."""

    id: int
    name: str
    to: Address
    data: bytes
    gas: int | None
    nonce: int | None
    state: State
    mined: Mined | None
    reason: str

    @property
    def sent(self) -> Sent:
        """What others see of it."""
        return Sent(self.name, self.state, self.nonce)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A signed form of a transaction: all of one transaction have the same nonce, so one at most is mined."""

    hash: bytes
    fee: Fee
    raw: bytes


class OutboxFile:
    """SQLite, locked for as long as it is open: one process sends with a key. For use from several threads."""

    def __init__(self, path: Path | None, chain_id: int, address: Address) -> None:
        """`path`: None: in memory, for tests.

        Raises:
            StoreError: it cannot be used, another process has it open, or it is of another key or chain.
        """
        self._lock: Final = threading.RLock()
        self._where: Final = str(path or "memory")
        with self._guard():
            if path is not None:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db: Final = sqlite3.connect(
                path or ":memory:", timeout=_LOCK_SECONDS, check_same_thread=False, isolation_level=None
            )
        try:
            with self._guard():
                self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
            with self._writing() as db:
                for each in _TABLES:
                    db.execute(each)
                own = (_SCHEMA, chain_id, address)
                found = db.execute("SELECT schema, chain_id, address FROM about").fetchone()
                if found is None:
                    db.execute("INSERT INTO about VALUES (?, ?, ?)", own)
                elif found != own:
                    raise StoreError(f"the outbox {path} is of another key, chain or version", "name another file")
        except BaseException:
            self._db.close()
            raise

    def add(self, wishes: Sequence[Wish]) -> None:
        """Keep wishes, all or none, one behind the other; those that are kept already stay as they are.

        Raises:
            StoreError: one was kept with other contents, or the file cannot be written.
        """
        with self._writing() as db:
            for each in wishes:
                found = db.execute("SELECT digest FROM sent WHERE name = ?", (each.name,)).fetchone()
                if found is None:
                    db.execute(
                        "INSERT INTO sent (name, digest, target, data, gas, state, reason) "
                        "VALUES (?, ?, ?, ?, ?, 'queued', '')",
                        (each.name, each.digest, each.to, each.data, each.gas),
                    )
                elif found[0] != each.digest:
                    raise StoreError(
                        f"another transaction was sent as {each.name!r}", "give each transaction a name of its own"
                    )

    def find(self, name: str) -> Row | None:
        """By its name."""
        found = self._rows("WHERE name = ?", name)
        return found[0] if found else None

    def open(self, queued: int) -> list[Row]:
        """Those that have a nonce and are not final, in its order; then the first so many that have none."""
        with self._lock:
            sent = self._rows("WHERE state IN ('pending', 'mined') ORDER BY nonce")
            return sent + self._rows("WHERE state = 'queued' ORDER BY id LIMIT ?", queued)

    def unfinished(self, prefix: str) -> list[Row]:
        """Those whose name begins so, and which are not final, oldest first."""
        found = self._rows("WHERE state IN ('queued', 'pending', 'mined') ORDER BY id")
        return [row for row in found if row.name.startswith(prefix)]

    def last(self, prefix: str) -> Row | None:
        """The latest final one whose name begins so."""
        found = self._rows(
            "WHERE state = 'final' AND substr(name, 1, ?) = ? ORDER BY id DESC LIMIT 1", len(prefix), prefix
        )
        return found[0] if found else None

    def attempts(self, row: Row) -> list[Attempt]:
        """Of a transaction, oldest first."""
        with self._guard(), self._lock:
            found = self._db.execute("SELECT hash, tip, most, raw FROM attempts WHERE sent = ? ORDER BY id", (row.id,))
            return [Attempt(name, Fee(tip, most), raw) for name, tip, most, raw in found.fetchall()]

    def following(self) -> int:
        """The nonce after the highest one that was given."""
        with self._guard(), self._lock:
            return self._db.execute("SELECT coalesce(max(nonce) + 1, 0) FROM sent").fetchone()[0]

    def total(self) -> int:
        """How many there have been: for names that nobody has used."""
        with self._guard(), self._lock:
            return self._db.execute("SELECT coalesce(max(id), 0) FROM sent").fetchone()[0]

    def done_from(self, nonce: int) -> list[Row]:
        """Final ones from a nonce on."""
        return self._rows("WHERE state = 'final' AND nonce >= ? ORDER BY nonce", nonce)

    def try_with(self, row: Row, nonce: int, gas: int, attempt: Attempt) -> None:
        """Keep a signed form; it may be broadcast afterwards."""
        with self._writing() as db:
            db.execute(
                "UPDATE sent SET nonce = ?, gas = ?, state = 'pending', mined = NULL WHERE id = ?", (nonce, gas, row.id)
            )
            db.execute(
                "INSERT OR IGNORE INTO attempts (sent, hash, tip, most, raw) VALUES (?, ?, ?, ?, ?)",
                (row.id, attempt.hash, attempt.fee.tip, attempt.fee.most, attempt.raw),
            )

    def reopen(self, row: Row) -> None:
        """It is in no block any more."""
        with self._writing() as db:
            db.execute("UPDATE sent SET state = 'pending', mined = NULL, reason = '' WHERE id = ?", (row.id,))

    def found(self, row: Row, mined: Mined, *, final: bool, reason: str = "") -> None:
        """It is in a block; `reason`: why it was reverted."""
        with self._writing() as db:
            state = "final" if final else "mined"
            db.execute(
                "UPDATE sent SET state = ?, mined = ?, reason = ? WHERE id = ?", (state, _text(mined), reason, row.id)
            )
            if final:
                self._forget(db, row.id)

    def fail(self, row: Row, reason: str) -> None:
        """It will not be in any block: its nonce, if it had one, is another transaction's."""
        with self._writing() as db:
            db.execute("UPDATE sent SET state = 'failed', nonce = NULL, reason = ? WHERE id = ?", (reason, row.id))
            self._forget(db, row.id)

    def close(self) -> None:
        """The file is free for others."""
        with self._lock:
            self._db.close()

    def _forget(self, db: sqlite3.Connection, done: int) -> None:
        """The bulk of one that is long done: each that gets done takes one with it."""
        old = db.execute(
            "SELECT id, mined FROM sent WHERE state IN ('final', 'failed') AND id <= ? AND data != x'' ORDER BY id",
            (done - KEPT,),
        ).fetchall()
        for number, mined in old:
            slim = None if mined is None else json.dumps({**json.loads(mined), "logs": []})
            db.execute("UPDATE sent SET data = x'', mined = ? WHERE id = ?", (slim, number))
            db.execute("DELETE FROM attempts WHERE sent = ?", (number,))

    def _rows(self, where: str, *values: object) -> list[Row]:
        with self._guard(), self._lock:
            found = self._db.execute(f"SELECT {_COLUMNS} FROM sent {where}", values).fetchall()  # noqa: S608
        return [_row(each) for each in found]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, synced when it is over."""
        with self._guard(), self._lock:
            self._db.execute("BEGIN EXCLUSIVE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            locked = "locked" in str(error)
            raise StoreError(
                f"the outbox {self._where} cannot be used ({error})",
                "another process sends with this key: stop it" if locked else "check disk and permissions",
            ) from error


def outbox_path(folder: Path, chain_id: int, address: Address) -> Path:
    """Where a key's outbox is: one for each key and chain, so that two programs with one key meet."""
    return folder / f"outbox-{chain_id}-{address}.sqlite3"


def _text(mined: Mined) -> str:
    return json.dumps(asdict(mined), default=bytes.hex)


def _row(found: tuple[Any, ...]) -> Row:
    number, name, to, data, gas, nonce, state, mined, reason = found
    return Row(number, name, to, data, gas, nonce, state, None if mined is None else _mined(json.loads(mined)), reason)


def _mined(found: dict[str, Any]) -> Mined:
    return Mined(
        found["name"],
        bytes.fromhex(found["transaction"]),
        found["block"],
        bytes.fromhex(found["block_hash"]),
        found["ok"],
        found["gas_used"],
        found["paid"],
        tuple(_entry(each) for each in found["logs"]),
    )


def _entry(found: dict[str, Any]) -> Entry:
    return Entry(
        found["address"],
        tuple(bytes.fromhex(each) for each in found["topics"]),
        bytes.fromhex(found["data"]),
        found["block"],
        bytes.fromhex(found["block_hash"]),
        bytes.fromhex(found["transaction"]),
        found["index"],
    )
