"""From an address to a ledger: addresses, migrations, outages, and secrets that stay secret."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, event, text

from patchwave.campaign import evidence
from patchwave.campaign.errors import LedgerUnavailable, Permanent, Transient
from patchwave.campaign.rollout import DispatchState, HostState
from patchwave.campaign.values import HostId, RunId
from patchwave.ledger import connect, migrations, sql
from patchwave.ledger.connect import BadLedgerAddress, LedgerTooNew, engine_for, ledger_at, url_of
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.sql import SqlLedger, unavailable
from patchwave.ledger.store import Lease, Ledger, RunOutcome, StageState
from patchwave.ledger.tables import metadata
from tests.ledger import postgres
from tests.ledger.builders import (
    AT,
    DEV,
    RUN,
    A,
    a_decision,
    a_dispatch,
    a_host,
    a_move,
    a_run,
    a_wait,
    an_image,
    begun,
    everything,
)

FORK = multiprocessing.get_context("fork")
SECRET = "hunter2-secret"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """Address of a place where no ledger has been made yet."""
    if request.param == "sqlite":
        yield URL.create("sqlite", database=str(tmp_path / "new folder" / "ledger.db"))
    else:
        with postgres.database(request.getfixturevalue("postgres_server")) as url:
            yield url


# addresses


def test_a_sqlite_connection_is_an_absolute_path():
    """Airflow puts the path into the schema when the connection is an URI, and into the host when people fill in the form."""
    expected = "sqlite:////var/lib/patchwave/ledger.db"
    path = "/var/lib/patchwave/ledger.db"
    assert str(url_of(conn_type="sqlite", host="", schema=path)) == expected
    assert str(url_of(conn_type="sqlite", host=path, schema=None)) == expected


@pytest.mark.parametrize("path", ["", "ledger.db", "var/ledger.db", ":memory:"])
def test_a_sqlite_connection_without_absolute_path_is_refused(path: str):
    """Four Airflow processes with four working directories would have four ledgers."""
    with pytest.raises(BadLedgerAddress, match="absolute path"):
        url_of(conn_type="sqlite", schema=path)


def test_a_postgres_connection_becomes_an_address_for_psycopg():
    """Whatever stands in the password: nothing of it is taken for a part of the address."""
    url = url_of(
        conn_type="postgres",
        host="db",
        login="pw",
        password="p@ss:/w?#%",
        port=5433,
        schema="ledger",
        extra={"sslmode": "require"},
    )
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password, url.host, url.port, url.database) == ("pw", "p@ss:/w?#%", "db", 5433, "ledger")
    assert url.query == {"sslmode": "require"}
    assert connect._parsed(url.render_as_string(hide_password=False)) == url


def test_extras_that_say_nothing_of_tls_are_not_passed_on():
    """Airflow's extras hold what other tools need; the driver would refuse the address for them."""
    url = url_of(conn_type="postgres", host="db", schema="ledger", extra={"cursor": "dictcursor", "options": "-c x=y"})
    assert url.query == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"conn_type": "mysql", "host": "db", "schema": "ledger"},
        {"conn_type": "postgres", "host": "db"},
        {"conn_type": "postgres", "schema": "ledger"},
    ],
)
def test_a_connection_that_says_no_ledger_is_refused(fields: dict[str, Any]):
    with pytest.raises(BadLedgerAddress) as refused:
        url_of(**fields, login="pw", password=SECRET)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url", [f"mysql://pw:{SECRET}@db/ledger", f"no url {SECRET}", f"postgresql://pw:{SECRET}@db:port/ledger", "sqlite://"]
)
def test_an_address_of_something_else_is_refused_without_quoting_it(url: str):
    with pytest.raises(BadLedgerAddress) as refused:
        ledger_at(url)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_airflows_own_scheme_is_understood():
    """`postgres://` and `postgresql://` mean the driver that is installed."""
    for scheme in ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        assert connect._parsed(f"{scheme}://pw@db/ledger").drivername == "postgresql+psycopg"


# migrations


def test_a_new_place_gets_the_newest_schema(empty_database: URL):
    """And metadata and migrations agree on what that is."""
    ledger = ledger_at(empty_database)
    ledger.open_run(a_run(), [DEV])
    engine = engine_for(empty_database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == migrations.HEAD
    engine.dispose()
    ledger.close()


def test_a_ledger_of_before_gets_its_hosts_domains(empty_database: URL):
    """A host had one failure domain once; now it is in that one and in its stage."""
    if empty_database.database and empty_database.drivername.startswith("sqlite"):
        Path(empty_database.database).parent.mkdir(parents=True, exist_ok=True)
    engine = engine_for(empty_database, foreign_keys=False)
    with engine.begin() as connection:
        command.upgrade(migrations.config(connection), "0002")
        connection.execute(text(
            "INSERT INTO runs (id, campaign, dag_id, dag_run_id, began_at, definition, definition_digest, policy, params, speed, "
            "outcome) VALUES ('r', 'c', 'd', 'm', '2026-03-03 00:00:00.0', '{}', 'x', '{}', '{}', 1, 'running')"
        ))  # fmt: skip
        connection.execute(text(
            "INSERT INTO stages (run, stage, position, state, reason, fencing) VALUES ('r', 'dev', 0, 'patching', '', 0)"
        ))  # fmt: skip
        for host, domain in (("i-1", "asg:a/web"), ("i-2", "stage:dev")):
            connection.execute(text(
                "INSERT INTO hosts (run, stage, host, account, region, name, platform, domain, state, reason, since) VALUES "
                f"('r', 'dev', '{host}', '1', 'e', 'n', 'p', '{domain}', 'planned', '', '2026-03-03 00:00:00.0')"
            ))  # fmt: skip
    engine.dispose()
    ledger = ledger_at(empty_database)
    assert [row.domains for row in ledger.hosts(RunId("r"))] == [("asg:a/web", "stage:dev"), ("stage:dev",)]
    ledger.close()


def test_the_head_that_is_written_down_is_the_head():
    """`migrations.HEAD` spares a process from loading Alembic; it must not lie."""
    assert ScriptDirectory.from_config(migrations.config()).get_heads() == [migrations.HEAD]


def test_the_comparison_sees_a_difference(empty_database: URL):
    """The guard of the guard: a column that no migration made is reported."""
    ledger_at(empty_database).close()
    engine = engine_for(empty_database)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE runs DROP COLUMN speed"))
        assert [one[0] for one in compare_metadata(MigrationContext.configure(connection), metadata)] == ["add_column"]
    engine.dispose()


def test_the_second_call_gives_the_same_ledger(empty_database: URL, monkeypatch: pytest.MonkeyPatch):
    """It costs nothing: no look at the database, let alone a migration."""
    first = ledger_at(empty_database)
    monkeypatch.setattr(connect, "_migrate", lambda url: pytest.fail("migrated twice"))
    assert ledger_at(empty_database.render_as_string(hide_password=False)) is first
    first.close()


def test_a_ledger_that_is_ready_is_not_migrated(empty_database: URL, monkeypatch: pytest.MonkeyPatch):
    """Nearly every process finds it so."""
    ledger_at(empty_database).close()
    monkeypatch.setattr(connect, "_ledgers", {})
    monkeypatch.setattr(connect, "upgrade", lambda connection: pytest.fail("migrated twice"))
    ledger_at(empty_database).close()


def test_a_ready_ledger_is_opened_without_loading_alembic(sqlite_url: URL):
    """It costs each task half a second."""
    program = (
        "import sys; from patchwave.ledger.connect import ledger_at; ledger_at(sys.argv[1]).runs(); "
        "sys.exit('alembic' in sys.modules or 'airflow' in sys.modules)"
    )
    address = sqlite_url.render_as_string()
    ended = subprocess.run([sys.executable, "-c", program, address], env={**os.environ, "PYTHONPATH": "include"}, check=False)
    assert ended.returncode == 0


def test_many_processes_that_start_together_migrate_once(empty_database: URL):
    """Airflow starts four services and their workers at the same moment."""
    count = 5
    gate = FORK.Barrier(count)
    results = FORK.Queue()

    def start(number: int) -> None:
        gate.wait(30)
        try:
            ledger_at(empty_database).open_run(a_run(f"dag/{number}"), [DEV])
            results.put("ok")
        except Exception as raised:  # noqa: BLE001 - what was raised is the result
            results.put(repr(raised))

    processes = [FORK.Process(target=start, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == ["ok"] * count
    for process in processes:
        process.join(60)
    assert len(ledger_at(empty_database).runs()) == count
    ledger_at(empty_database).close()


def test_a_migration_that_breaks_off_leaves_nothing(empty_database: URL, monkeypatch: pytest.MonkeyPatch):
    """A process that is killed in the middle does not leave half a schema behind; the next one begins anew."""

    def breaks_off(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        raise RuntimeError("killed here")

    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", breaks_off)
    with pytest.raises(RuntimeError, match="killed here"):
        ledger_at(empty_database)
    monkeypatch.setattr(command, "upgrade", real)
    ledger = ledger_at(empty_database)
    assert list(ledger.runs()) == []
    ledger.close()


def test_a_newer_schema_than_this_code_is_refused(empty_database: URL, monkeypatch: pytest.MonkeyPatch):
    """An old process that a deployment forgot must not write into a schema that it does not know."""
    ledger_at(empty_database).close()
    engine = engine_for(empty_database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    monkeypatch.setattr(connect, "_ledgers", {})
    with pytest.raises(LedgerTooNew, match="9999"):
        ledger_at(empty_database)


def test_sqlite_is_in_wal_mode_with_foreign_keys(sqlite_url: URL):
    """Readers do not wait for a writer, and nothing refers to what is not there."""
    with engine_for(sqlite_url).connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 30_000


# outages


LEASE = Lease(run=RUN, stage=DEV, holder="try-1", fencing=1)


def every_method(ledger: Ledger) -> Iterator[tuple[str, Any]]:
    yield "open_run", lambda: ledger.open_run(a_run(), [DEV])
    yield "run", lambda: ledger.run(RUN)
    yield "runs", lambda: ledger.runs()
    yield "end_run", lambda: ledger.end_run(RUN, RunOutcome.FAILED, at=AT)
    yield "put_document", lambda: ledger.put_document(RUN, "plan", {}, at=AT)
    yield "document", lambda: ledger.document(RUN, "plan")
    yield "put_rows", lambda: ledger.put_rows(RUN, "triage", [1, 2], at=AT)
    yield "rows", lambda: ledger.rows(RUN, "triage")
    yield "documents", lambda: ledger.documents(RUN)
    yield "stages", lambda: ledger.stages(RUN)
    yield "stage", lambda: ledger.stage(RUN, DEV)
    yield "acquire", lambda: ledger.acquire(RUN, DEV, "try-1", at=AT)
    yield "check", lambda: ledger.check(LEASE)
    yield "set_stage", lambda: ledger.set_stage(LEASE, StageState.PATCHING, reason="", at=AT)
    yield "note_look", lambda: ledger.note_look(LEASE, at=AT)
    yield "skip_stage", lambda: ledger.skip_stage(RUN, DEV, reason="", at=AT)
    yield "add_hosts", lambda: ledger.add_hosts(LEASE, [a_host()])
    yield "hosts", lambda: ledger.hosts(RUN)
    yield "move_hosts", lambda: ledger.move_hosts(LEASE, [a_move(A, HostState.PLANNED, HostState.FAILED)], at=AT)
    yield "intend", lambda: ledger.intend(LEASE, a_dispatch(), reason="")
    yield "mark_dispatch", lambda: ledger.mark_dispatch(LEASE, "t1", DispatchState.SENT, at=AT)
    yield "dispatches", lambda: ledger.dispatches(RUN)
    yield "durations", lambda: ledger.durations("Ubuntu 24.04")
    yield "record_decision", lambda: ledger.record_decision(a_decision())
    yield "decisions", lambda: ledger.decisions(RUN)
    yield "record_image", lambda: ledger.record_image(an_image())
    yield "image_records", lambda: ledger.image_records("web")
    yield "wait", lambda: ledger.wait(a_wait())
    yield "end_wait", lambda: ledger.end_wait(RUN, "dev", at=AT)
    yield "waits", lambda: ledger.waits(RUN)
    yield "wish_stop", lambda: ledger.wish_stop(RUN, DEV, "try-1", at=AT, reason="")
    yield "end_stop_wish", lambda: ledger.end_stop_wish(RUN, DEV, "try-1", outcome="", at=AT)
    yield "stop_wishes", lambda: ledger.stop_wishes(RUN)
    yield "record", lambda: ledger.record(RUN, "note", {}, at=AT)
    yield "journal", lambda: ledger.journal(RUN)
    yield "count_calls", lambda: ledger.count_calls(RUN, {"a": 1})
    yield "calls", lambda: ledger.calls(RUN)


def assert_unavailable(ledger: Ledger) -> None:
    methods = dict(every_method(ledger))
    assert set(methods) == {name for name in vars(Ledger) if not name.startswith("_")}
    for name, call in methods.items():
        with pytest.raises(LedgerUnavailable):
            pytest.fail(f"{name} answered {call()!r}")


def test_the_twin_can_be_switched_off():
    """And does not forget anything meanwhile."""
    ledger = MemoryLedger()
    begun(ledger, A)
    ledger.available = False
    assert_unavailable(ledger)
    ledger.available = True
    assert [entry.kind for entry in ledger.journal(RUN)] == ["run.began", "stage.acquired", "hosts.added"]


def test_a_sqlite_file_that_is_gone_is_an_outage(sqlite_url: URL):
    """SQLite makes an empty file where one was deleted: that is no ledger, and no empty one either."""
    ledger = ledger_at(sqlite_url)
    begun(ledger, A)
    Path(str(sqlite_url.database)).unlink()
    assert_unavailable(ledger)


def test_a_folder_that_is_gone_or_a_file_that_is_none_is_an_outage(sqlite_url: URL, tmp_path: Path):
    ledger = ledger_at(sqlite_url)
    path = Path(str(sqlite_url.database))
    path.unlink()
    path.mkdir()
    assert_unavailable(ledger)
    path.rmdir()
    path.write_text("not a database, " * 1000)
    assert_unavailable(ledger)
    with pytest.raises(LedgerUnavailable):
        ledger_at(f"sqlite:///{tmp_path / 'ledger.db' / 'below a file.db'}")
    (tmp_path / "other.db").write_text("not a database, " * 1000)
    with pytest.raises(LedgerUnavailable, match=r"other\.db\): file is not a database"):
        ledger_at(f"sqlite:///{tmp_path / 'other.db'}")


def test_a_full_disk_is_said_and_leaves_nothing_half_done(sqlite_url: URL):
    """SQLite's own words for it; what did not fit in whole is not there at all, and fits in once there is room."""
    ledger = ledger_at(sqlite_url)
    hosts = tuple(HostId(f"i-{number:04}") for number in range(500))
    lease = begun(ledger, *hosts)
    before = everything(ledger)

    def no_more_pages(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    event.listen(ledger._engine, "connect", no_more_pages)
    with pytest.raises(LedgerUnavailable, match=r"^the ledger's disk is full.*: database or disk is full$"):
        ledger.intend(lease, a_dispatch(hosts=hosts), reason="a reason of some length, so that rows grow" * 20)
    assert everything(ledger) == before
    event.remove(ledger._engine, "connect", no_more_pages)
    ledger.intend(lease, a_dispatch(hosts=hosts), reason="go")
    assert {row.state for row in ledger.hosts(RUN)} == {HostState.SCANNING}


@pytest.mark.parametrize(
    ("code", "begins"),
    [
        (sqlite3.SQLITE_FULL, "the ledger's disk is full"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, "the ledger's disk is full"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "the ledger is locked by another process"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "the ledger cannot be written to"),
        (sqlite3.SQLITE_IOERR_READ, "the ledger does not answer"),
    ],
)
def test_sqlites_codes_are_told_apart(code: int, begins: str):
    """On a full disk the first word is "disk I/O error": there is no room for the file that readers share."""
    problem = sqlite3.OperationalError("disk I/O error")
    problem.sqlite_errorcode = code
    assert str(unavailable(problem)).startswith(begins)
    assert str(unavailable(problem, where="/var/ledger.db")).endswith("(/var/ledger.db): disk I/O error")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte, of the test's own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a small disk needs root")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_that_is_full_is_said_to_whoever_comes_new_too(small_disk: Path, monkeypatch: pytest.MonkeyPatch):
    """A task is a process of its own: it opens the ledger, which takes a file beside it, for which there is no room."""
    url = URL.create("sqlite", database=str(small_disk / "ledger.db"))
    lease = begun(ledger_at(url), A)
    with (small_disk / "fill").open("wb", buffering=0) as fill, suppress(OSError):
        while True:
            fill.write(b"x" * 4096)
    before = ledger_at(url)
    with pytest.raises(LedgerUnavailable, match="disk is full"):
        before.intend(lease, a_dispatch(), reason="go")
    monkeypatch.setattr(connect, "_ledgers", {})
    with pytest.raises(LedgerUnavailable, match="disk is full"):
        ledger_at(url)
    (small_disk / "fill").unlink()
    ledger_at(url).intend(lease, a_dispatch(), reason="go")
    assert [row.state for row in ledger_at(url).hosts(RUN)] == [HostState.SCANNING]


def test_a_process_that_holds_the_lock_for_too_long_is_said(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch):
    """A backup that hangs, for instance: readers go on, a writer gives up after its time-out, and is let in afterwards."""
    monkeypatch.setattr(connect, "BUSY_TIMEOUT", 0.1)
    monkeypatch.setattr(sql, "PAUSES", (0.0,))
    ledger = SqlLedger(engine_for(sqlite_url))
    lease = begun(ledger, A)
    before = everything(ledger)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(sqlite_url.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LedgerUnavailable, match=r"^the ledger is locked by another process.*: database is locked$"):
            ledger.set_stage(lease, StageState.PATCHING, reason="go", at=AT)
        assert everything(ledger) == before
        other.communicate()
    ledger.set_stage(lease, StageState.PATCHING, reason="go", at=AT)


def test_a_disk_that_became_read_only_is_said(sqlite_url: URL):
    """As an operating system does with one that has errors."""
    ledger = SqlLedger(engine_for(sqlite_url))
    lease = begun(ledger, A)
    event.listen(ledger._engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    with pytest.raises(LedgerUnavailable, match=r"^the ledger cannot be written to: attempt to write a readonly database$"):
        ledger.set_stage(lease, StageState.PATCHING, reason="go", at=AT)
    assert ledger.stage(RUN, DEV).state is StageState.WAITING


def test_a_database_that_is_gone_is_an_outage(postgres_server: URL):
    """With the server alive: its idle connections are dead, and new ones are refused."""
    with postgres.database(postgres_server) as url:
        ledger = ledger_at(url)
        begun(ledger, A)
        postgres.execute(postgres_server, f"DROP DATABASE {url.database} WITH (FORCE)")
        assert_unavailable(ledger)
        ledger.close()


def test_tables_that_are_gone_are_an_outage(postgres_server: URL):
    """A restore that is under way, for example."""
    with postgres.database(postgres_server) as url:
        ledger = ledger_at(url)
        postgres.execute(url, "DROP SCHEMA public CASCADE")
        assert_unavailable(ledger)
        ledger.close()


def test_connections_that_the_server_cut_are_made_anew(postgres_url: URL, postgres_server: URL):
    """A server that was restarted between two polls costs nothing."""
    ledger = ledger_at(postgres_url)
    begun(ledger, A)
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{postgres_url.database}'"
    postgres.execute(postgres_server, cut)
    assert ledger.stage(RUN, DEV).holder == "try-1"


def test_no_password_is_ever_said(postgres_server: URL, caplog: pytest.LogCaptureFixture):
    """Not in the error, not in what it was made from, not in a log, not in the ledger's own name."""
    caplog.set_level(logging.DEBUG)
    for url in (
        postgres_server.set(password=SECRET),
        postgres_server.set(password=SECRET, port=1),
        postgres_server.set(password=SECRET, host="no.such.host.invalid"),
    ):
        with pytest.raises(LedgerUnavailable) as raised:
            ledger_at(url)
        assert SECRET not in "".join(traceback.format_exception(raised.value))
        assert SECRET not in repr(SqlLedger(engine_for(url)))
    assert SECRET not in caplog.text


def test_an_outage_is_worth_another_try_and_a_bad_address_is_not():
    assert issubclass(LedgerUnavailable, Transient)
    assert issubclass(BadLedgerAddress, Permanent)
    assert issubclass(LedgerTooNew, Permanent)


# evidence that somebody changed in the database


def test_a_record_that_was_changed_in_the_database_is_found(sql_ledger: SqlLedger):
    """Who approved what cannot be rewritten unseen."""
    begun(sql_ledger, A)
    sql_ledger.record_decision(a_decision(author="uma"))
    sql_ledger.end_run(RUN, RunOutcome.SUCCEEDED, at=AT)
    assert evidence.verify(sql_ledger.journal(RUN)) == []
    with sql_ledger._engine.begin() as connection:
        connection.execute(text("UPDATE journal SET data = replace(data, 'uma', 'eve') WHERE kind = 'decision.made'"))
    (problem,) = evidence.verify(sql_ledger.journal(RUN))
    assert "record 4 (decision.made) was changed" in problem


def test_a_plan_that_was_changed_in_the_database_is_not_handed_out(sql_ledger: SqlLedger):
    """Its digest was approved, so nothing but its content may be carried out."""
    sql_ledger.open_run(a_run(), [DEV])
    sql_ledger.put_document(RUN, "plan", {"hosts": ["i-1"]}, at=AT)
    with sql_ledger._engine.begin() as connection:
        connection.execute(text("UPDATE contents SET body = replace(body, 'i-1', 'i-2')"))
    with pytest.raises(evidence.EvidenceBroken, match="document plan"):
        sql_ledger.document(RUN, "plan")


def test_a_document_is_stored_once(sql_ledger: SqlLedger):
    """However often, and under however many names and runs, it is put."""
    for run in ("dag/1", "dag/2"):
        sql_ledger.open_run(a_run(run), [DEV])
        for name in ("before", "after"):
            sql_ledger.put_document(run, name, {"same": True}, at=AT)
    with sql_ledger._engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM contents")).scalar() == 1


def test_sqlite_keeps_what_was_written_when_the_process_dies(sqlite_url: URL):
    """The file is whole after a process that never closed anything."""

    def write_and_die() -> None:
        begun(ledger_at(sqlite_url), A)
        os._exit(9)

    process = FORK.Process(target=write_and_die)
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert [row.host for row in ledger_at(sqlite_url).hosts(RUN)] == [A]
    check = sqlite3.connect(str(sqlite_url.database))
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
