"""Ledgers for the suite: the twin, SQLite and PostgreSQL, each empty at the start of a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from patchwave.ledger.connect import ledger_at
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.sql import SqlLedger
from patchwave.ledger.store import Ledger
from patchwave.ledger.tables import metadata
from tests.ledger import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A reachable server, or a skip that says why there is none."""
    started = postgres.server()
    try:
        url = started.__enter__()
    except postgres.NoServer as reason:
        pytest.skip(str(reason))
    try:
        yield url
    finally:
        started.__exit__(None, None, None)


@pytest.fixture(scope="session")
def postgres_database(postgres_server: URL) -> Iterator[URL]:
    """A migrated database for the tests that only need an empty ledger."""
    with postgres.database(postgres_server) as url:
        ledger = ledger_at(url)
        yield url
        ledger.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty file to copy, so that each test does not migrate its own."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    ledger_at(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> URL:
    path = tmp_path / "ledger.db"
    shutil.copy(sqlite_template, path)
    return URL.create("sqlite", database=str(path))


@pytest.fixture
def postgres_url(postgres_database: URL) -> URL:
    names = ", ".join(table.name for table in metadata.sorted_tables)
    postgres.execute(postgres_database, f"TRUNCATE {names} RESTART IDENTITY")
    return postgres_database


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> URL:
    """Address of an empty ledger that several processes can open."""
    url: URL = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def sql_ledger(database: URL) -> SqlLedger:
    return ledger_at(database)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """An empty ledger; every law holds for all three."""
    if request.param == "memory":
        return MemoryLedger()
    return ledger_at(request.getfixturevalue(f"{request.param}_url"))
