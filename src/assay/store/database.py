"""The database: its tables, how SQLite is opened so that a committed receipt survives, and errors with remedies."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Final, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    make_url,
    select,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from assay.core.errors import StoreError

T = TypeVar("T")
SCHEMA: Final = 2
"""Rises when a table changes."""
ATTEMPTS: Final = 8
"""At one transaction, while other programs write the same rows; only PostgreSQL lets them."""
BUSY_SECONDS: Final = 10.0
"""How long a writer waits for another one."""

_metadata = MetaData()
_Id: Final = BigInteger().with_variant(Integer, "sqlite")

receipts: Final = Table(
    "receipts",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("name", String(64), nullable=False, index=True),
    Column("call", String(64), nullable=False, index=True),
    Column("provider", String(42), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    UniqueConstraint("provider", "sequence"),
    sqlite_autoincrement=True,
)
"""One row a receipt; `name` and `call` are the request's, in hexadecimal like `digest`; `bundle` the canonical bytes,
`kept` since when, in Unix seconds."""
exhibits: Final = Table(
    "exhibits",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("provider", String(42), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    UniqueConstraint("provider", "sequence"),
)
"""Receipts that contradict one in `receipts`: same provider, same sequence number, another digest. One for each number:
two receipts are the proof, and more of them would only fill the disk."""
verdicts: Final = Table(
    "verdicts",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("receipt", String(64), nullable=False),
    Column("provider", String(42), nullable=False),
    Column("level", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("basis", String(8), nullable=False),
    Column("body", Text, nullable=False),
    Index("verdicts_of_receipt", "receipt"),
    Index("verdicts_of_provider", "provider", "level", "outcome", "basis"),
    sqlite_autoincrement=True,
)
"""One row a check; `body` is the verdict as JSON, `basis` what its outcome rests on (see `core/verdict.py`)."""
summaries: Final = Table(
    "summaries",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("kept", BigInteger, nullable=False),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("provider", String(42), nullable=False),
    Column("model", String(64), nullable=False),
    Column("level", String(16), nullable=False),
    Column("prompt", BigInteger, nullable=False),
    Column("output", BigInteger, nullable=False),
    Column("amount", String(39), nullable=False),
    Column("outcome", String(16)),
    Index("summaries_by_time", "kept", "id"),
    Index("summaries_by_tokens", "output", "id"),
    Index("summaries_by_amount", "amount", "id"),
    Index("summaries_of_provider", "provider", "kept", "outcome"),
    Index("summaries_of_level", "level", "outcome", "kept", "id"),
)
"""What lists show of `receipts`, under the same `id`; see `store/summaries.py`."""
traces: Final = Table(
    "traces",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, index=True),
    Column("call", String(64), nullable=False, index=True),
    Column("kept", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
"""One row a request that was sent to providers, whatever came of it; `body` is the trace as JSON."""
counters: Final = Table(
    "counters",
    _metadata,
    Column("name", String(80), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""The schema's version, and the last sequence number of each key that signs here."""

_Wei: Final = String(39)
"""An amount as a decimal string: 128 bits pass every integer type."""
tabs: Final = Table(
    "tabs",
    _metadata,
    Column("channel", String(64), primary_key=True),
    Column("terms", Text, nullable=False),
    Column("owed", _Wei, nullable=False),
    Column("amount", _Wei, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("opened", BigInteger, nullable=False),
)
"""A provider's payers, one row a channel: its terms as JSON, what is owed in all, and the best voucher (without a
signature there is none yet)."""
channels: Final = Table(
    "channels",
    _metadata,
    Column("channel", String(64), primary_key=True),
    Column("provider", String(42), nullable=False),
    Column("url", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("terms", Text, nullable=False),
    Column("state", String(8), nullable=False),
    Column("deposits", Integer, nullable=False),
    Column("deposited", _Wei, nullable=False),
    Column("depositing", _Wei, nullable=False),
    Column("withdrawn", _Wei, nullable=False),
    Column("earned", _Wei, nullable=False),
    Column("asked", _Wei, nullable=False),
    Column("signed", _Wei, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("accepted", _Wei, nullable=False),
    Column("reason", Text, nullable=False),
)
"""A gateway's channels; see `store/channels.py`."""
payments: Final = Table(
    "payments",
    _metadata,
    Column("receipt", String(64), primary_key=True),
    Column("channel", String(64), nullable=False, index=True),
    Column("price", _Wei, nullable=False),
    Column("asked", _Wei, nullable=False),
    Column("voucher", _Wei, nullable=False),
    Column("kept", BigInteger, nullable=False),
)
"""A gateway's receipts that it pays for: what each is worth, what it asks for in all, and the voucher's amount then."""
outstanding: Final = Table(
    "outstanding",
    _metadata,
    Column("mark", String(32), primary_key=True),
    Column("channel", String(64), nullable=False, index=True),
    Column("most", _Wei, nullable=False),
    Column("url", Text, nullable=False),
    Column("offer", LargeBinary, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("kept", BigInteger, nullable=False),
)
"""Requests that a gateway has sent and has no checked receipt for yet: asked for again after a crash."""

marks: Final = Table(
    "marks",
    _metadata,
    Column("provider", String(42), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("until", BigInteger, nullable=False, index=True),
    Column("pinned", Integer, nullable=False),
)
"""The highest record of each provider that was seen; see `store/marks.py`."""
losses: Final = Table(
    "losses",
    _metadata,
    Column("court", String(64), primary_key=True),
    Column("transaction", String(64), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("provider", String(42), nullable=False),
    Column("wei", _Wei, nullable=False),
)
"""What providers lost to courts; see `store/losses.py`."""
reports: Final = Table(
    "reports",
    _metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("reporter", String(42), nullable=False, index=True),
    Column("receipt", String(64), nullable=False),
    Column("good", Integer, nullable=False),
    Column("provider", String(42), nullable=False),
    UniqueConstraint("receipt", "reporter", "good"),
    sqlite_autoincrement=True,
)
"""What others say of receipts; see `store/reports.py`."""


def open_database(url: str) -> Engine:
    """Open (and create where missing) the database at an SQLAlchemy URL: `sqlite:////path`, `postgresql+psycopg://…`.

    Raises:
        StoreError: it cannot be opened, is damaged, or was made by another version.
    """
    try:
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS} if url.startswith("sqlite") else {})
    except (ArgumentError, ModuleNotFoundError) as error:
        raise StoreError(
            f"{_shown(url)} is no database address ({error})", "write sqlite:////path/to/file.db"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        with guard(url):
            found = _prepare(engine)
            if found not in (None, SCHEMA):
                raise StoreError(
                    f"the database has schema {found}, and this version of Assay knows {SCHEMA}",
                    "use the version that made it, or name another file",
                )
    except StoreError:
        engine.dispose()
        raise
    return engine


def _prepare(engine: Engine) -> int | None:
    """Make the tables that are missing, perhaps while others do the same; gives the schema of those that were there."""
    for attempt in count(1):
        try:
            _metadata.create_all(engine)
            with engine.begin() as connection:
                found = connection.scalar(select(counters.c.value).where(counters.c.name == "schema"))
                if found is None:
                    connection.execute(insert(counters).values(name="schema", value=SCHEMA))
                return found
        except (IntegrityError, ProgrammingError):
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: it waits for nobody."""
    with engine.connect().execution_options(assay_reads=True) as connection:
        yield connection


@contextmanager
def guard(where: str) -> Iterator[None]:
    """Turn the database's failures into StoreError with what to do about them."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(f"the database {_shown(where)} failed ({cause})", _remedy(cause)) from error
    except OSError as error:
        raise StoreError(
            f"the database {_shown(where)} failed ({error})", "check the path and its permissions"
        ) from error


def write(engine: Engine, url: str, work: Callable[[Connection], T]) -> T:
    """`work` in one transaction; anew where another program wrote the same row at the same time, which databases tell
    that let writers work side by side (PostgreSQL).

    Raises:
        StoreError: the database cannot be written.
    """
    with guard(url):
        for _ in range(ATTEMPTS - 1):
            with suppress(IntegrityError), engine.begin() as connection:
                return work(connection)
        with engine.begin() as connection:
            return work(connection)


def _shown(url: str) -> str:
    """The address without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _remedy(cause: BaseException | None) -> str:
    text = str(cause).lower()
    if "full" in text:
        return "free disk space: nothing is answered until receipts can be kept"
    if "locked" in text or "busy" in text:
        return "another process holds the database: stop it, or give each program a file of its own"
    if "malformed" in text or "not a database" in text:
        return "move the file away and start again (its receipts can perhaps be saved with `sqlite3 FILE .recover`)"
    if "readonly" in text or "unable to open" in text:
        return "check that the directory exists and may be written"
    if isinstance(cause, sqlite3.Error):
        return "check the disk and the file"
    return "check that the database server runs and takes this address"


def _configure_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Write-ahead log with a sync at every commit: what was committed survives `kill -9` and a power cut."""
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, see `_begin_sqlite`
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once: a lock that is taken later cannot wait, and fails."""
    reads = connection.get_execution_options().get("assay_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
