"""Where is the ledger, and is it ready? From an address to a migrated `SqlLedger`.

Operators, the dashboard and the command line call `ledger_at`; it brings the database to the newest schema, once, although
many processes start at the same moment. `url_of` makes the address from the fields of an Airflow connection, without knowing
Airflow. No password leaves this module in an error or a log line.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url, text
from sqlalchemy.pool import NullPool

from patchwave.campaign.errors import LedgerUnavailable, Permanent
from patchwave.ledger.migrations import HEAD
from patchwave.ledger.sql import READ_ONLY, SqlLedger, unavailable

BUSY_TIMEOUT = 30
"""Seconds that SQLite waits for another writer, and PostgreSQL for a row's lock."""
MIGRATION_LOCK = 0x70617463_68776176
"""Key of PostgreSQL's advisory lock: "patchwav" in ASCII."""
PAUSE = 0.05
TLS_FIELDS = frozenset({"sslmode", "sslrootcert", "sslcert", "sslkey"})

_ledgers: dict[str, SqlLedger] = {}
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_opening = threading.Lock()


class BadLedgerAddress(Permanent):
    """The ledger's connection does not say where a ledger is."""


class LedgerTooNew(Permanent):
    """The ledger's schema was made by a newer Patchwave than this one."""


def url_of(
    *,
    conn_type: str,
    host: str | None = None,
    login: str | None = None,
    password: str | None = None,
    port: int | None = None,
    schema: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> URL:
    """SQLAlchemy's URL from the fields of an Airflow connection (its own `get_uri` says ``postgres://``, which is refused).

    Args:
        conn_type: ``sqlite`` or ``postgres``.
        host: of PostgreSQL; for SQLite the file's absolute path, or None when `schema` holds it, as it does where the
            connection is written ``sqlite:////folder/ledger.db``.
        schema: name of the database; for SQLite see `host`.
        extra: of the connection; only the TLS settings (``sslmode`` and the like) are taken.

    Raises:
        BadLedgerAddress: another type, no host, or a file without an absolute path.
    """
    match conn_type:
        case "sqlite":
            path = (host or "").strip() or (schema or "").strip()
            if not Path(path).is_absolute():
                raise BadLedgerAddress(
                    f"the ledger's connection names the SQLite file {path!r}; it has to be an absolute path, "
                    "e.g. sqlite:////var/lib/patchwave/ledger.db, for every Airflow process has its own working directory"
                )
            return URL.create("sqlite", database=path)
        case "postgres" | "postgresql":
            if not host or not schema:
                raise BadLedgerAddress("the ledger's connection to PostgreSQL needs a host and a schema (the database's name)")
            tls = {name: str(value) for name, value in (extra or {}).items() if name in TLS_FIELDS}
            return URL.create(
                "postgresql+psycopg",
                username=login or None,
                password=password or None,
                host=host,
                port=port,
                database=schema,
                query=tls,
            )
        case _:
            raise BadLedgerAddress(f"the ledger's connection has the type {conn_type!r}; it has to be sqlite or postgres")


def ledger_at(url: str | URL) -> SqlLedger:
    """The ledger at `url`, migrated; the same object for the same address within a process.

    Args:
        url: ``sqlite:////absolute/path`` (its folder is made) or ``postgresql+psycopg://...``.

    Raises:
        BadLedgerAddress: no such kind of database.
        LedgerTooNew: its schema is newer than this code.
        LedgerUnavailable: it does not answer.
    """
    address = _parsed(url)
    key = address.render_as_string(hide_password=False)
    with _opening:
        if key not in _ledgers:
            _migrate(address)
            _ledgers[key] = SqlLedger(engine_for(address))
        return _ledgers[key]


def _parsed(url: str | URL) -> URL:
    try:
        address = make_url(url)
    except (exc.ArgumentError, ValueError):
        # Without the cause: it may quote the address with its password.
        raise BadLedgerAddress("the ledger's address is no URL such as sqlite:////folder/ledger.db") from None
    match address.get_backend_name():
        case "sqlite":
            if not address.database or address.database == ":memory:" or address.database.startswith("file:"):
                raise BadLedgerAddress("the ledger's address names no SQLite file; every process has to find the same one")
            return address.set(drivername="sqlite")
        case "postgresql" | "postgres":
            return address.set(drivername="postgresql+psycopg")
        case other:
            raise BadLedgerAddress(f"the ledger's address names {other!r}; it has to be sqlite or postgresql")


def engine_for(url: URL, *, foreign_keys: bool = True) -> Engine:
    """An engine as `SqlLedger` needs it: writers of SQLite begin with the lock, nothing waits for ever.

    Args:
        foreign_keys: False while SQLite is migrated, since a table that is rebuilt must not drag others with it.
    """
    if url.get_backend_name() == "sqlite":
        # No pool: a connection that a fork inherits is the one thing that SQLite cannot bear.
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT})
        event.listen(engine, "connect", _prepare_sqlite if foreign_keys else _prepare_sqlite_bare)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = (
        f"-c lock_timeout={BUSY_TIMEOUT}s -c idle_in_transaction_session_timeout={2 * BUSY_TIMEOUT}s "
        "-c timezone=UTC -c default_transaction_isolation=read\\ committed"
    )
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=14,
        pool_timeout=BUSY_TIMEOUT,
        hide_parameters=True,
        connect_args={"connect_timeout": 10, "options": options, "application_name": "patchwave"},
    )
    _engines.add(engine)
    return engine


def _prepare_sqlite_bare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: see _begin_sqlite


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock before they read, for two that have read cannot both write."""
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


# migrations -------------------------------------------------------------------------------------------------------------


def _migrate(url: URL) -> None:
    """Bring the schema to `HEAD`, in one transaction that one process at a time may be in; cheap when it is there."""
    engine = engine_for(url, foreign_keys=False)
    try:
        if url.get_backend_name() == "sqlite":
            _make_sqlite(url, engine)
        with engine.connect() as connection, connection.begin():
            if _revision(connection) == HEAD:
                return
        with engine.connect() as connection, connection.begin():  # BEGIN IMMEDIATE in SQLite
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            if _revision(connection) != HEAD:
                upgrade(connection)
    except (exc.DBAPIError, exc.TimeoutError) as problem:
        raise unavailable(problem) from problem
    finally:
        engine.dispose()


def _make_sqlite(url: URL, engine: Engine) -> None:
    """The file, its folder, and its journal mode, which stays with the file."""
    path = Path(str(url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise LedgerUnavailable(f"the ledger's folder {path.parent} cannot be made: {problem.strerror}") from problem
    # Going over to WAL needs the whole file for a moment, and SQLite does not wait for it however long its time-out is.
    give_up = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT)
            try:
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            return
        except sqlite3.DatabaseError as problem:
            if "locked" not in str(problem) or time.monotonic() > give_up:
                raise unavailable(problem, where=str(path)) from problem
            time.sleep(PAUSE)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return revision


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations within the transaction of `connection`.

    Raises:
        LedgerTooNew: the database is at a revision that this code does not know.
    """
    # Imported here: a process that finds the ledger ready, as nearly all do, is spared half a second.
    from alembic import command
    from alembic.util import CommandError

    from patchwave.ledger.migrations import config

    try:
        command.upgrade(config(connection), revision)
    except CommandError as problem:
        raise LedgerTooNew(
            f"the ledger is at schema {_revision(connection)}, and this Patchwave knows {HEAD} as the newest: {problem}"
        ) from problem


def _begin_anew() -> None:
    """In a child process: it must neither speak on its parent's connections nor close them, nor wait for its locks."""
    global _opening
    _opening = threading.Lock()
    for engine in _engines:
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_begin_anew)
