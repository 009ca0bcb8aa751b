"""What holds when several write at the same moment: threads of one process, and processes of one machine."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.queues import Queue
from typing import Any

import pytest
from sqlalchemy import URL

from patchwave.campaign import evidence
from patchwave.campaign.approval import Verdict
from patchwave.campaign.errors import IllegalMove, LeaseLost, LedgerUnavailable
from patchwave.campaign.rollout import HostState
from patchwave.campaign.values import HostId, RunId
from patchwave.ledger import connect, sql
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.sql import SqlLedger
from patchwave.ledger.store import Ledger, StageState
from patchwave.ledger.tables import metadata
from tests.ledger.builders import AT, DEV, PROD, RUN, A, a_decision, a_dispatch, a_move, a_run, a_wait, an_image, begun, later

FORK = multiprocessing.get_context("fork")
"""As Airflow's LocalExecutor begets its workers."""


def together(*works: Callable[[], Any]) -> list[Any]:
    """Begin all at the same moment in threads; what each returned or raised, in order."""
    gate = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def one(index: int, work: Callable[[], Any]) -> None:
        gate.wait()
        try:
            results[index] = work()
        except Exception as raised:  # noqa: BLE001 - what was raised is the result
            results[index] = raised

    threads = [threading.Thread(target=one, args=(index, work)) for index, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def in_processes(url: URL, work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Do `work(ledger, *arguments)` in a process each; what each returned, in order of arguments."""
    gate = FORK.Barrier(len(arguments))
    results: Queue[tuple[int, Any]] = FORK.Queue()

    def one(index: int, given: tuple[Any, ...]) -> None:
        ledger = ledger_at(url)
        gate.wait(30)
        try:
            results.put((index, work(ledger, *given)))
        except Exception as raised:  # noqa: BLE001 - what was raised is the result
            results.put((index, raised))

    processes = [FORK.Process(target=one, args=pair) for pair in enumerate(arguments)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    return [found[index] for index in range(len(arguments))]


def append(ledger: Ledger, writer: int, count: int) -> None:
    for number in range(count):
        ledger.record(RUN, "note", {"writer": writer, "number": number}, at=AT)
        ledger.count_calls(RUN, {"a": 1, f"w{writer}": 1})


def check_journal(ledger: Ledger, *, writers: int, each: int) -> None:
    journal = ledger.journal(RUN)
    notes = [entry.data for entry in journal if entry.kind == "note"]
    assert [entry.sequence for entry in journal] == list(range(1, len(journal) + 1))
    assert evidence.verify(journal) == []
    for writer in range(writers):
        assert [note["number"] for note in notes if note["writer"] == writer] == list(range(each))
    assert ledger.calls(RUN)["a"] == writers * each


def test_threads_append_without_gap_or_fork(ledger: Ledger):
    """The journal of a run is one chain, whoever writes."""
    ledger.open_run(a_run(), [DEV])
    assert together(*(lambda writer=writer: append(ledger, writer, 15) for writer in range(4))) == [None] * 4
    check_journal(ledger, writers=4, each=15)


def test_processes_append_without_gap_or_fork(database: URL):
    """A forked process does not speak on its parent's connections either."""
    ledger = ledger_at(database)
    ledger.open_run(a_run(), [DEV])
    assert in_processes(database, append, [(writer, 20) for writer in range(3)]) == [None] * 3
    check_journal(ledger, writers=3, each=20)


def test_one_of_two_openings_of_a_run_is_the_first(ledger: Ledger):
    """And both callers are told the same."""
    runs = [a_run(requested_by=name) for name in ("uma", "vic", "olga")]
    opened = together(*(lambda run=run: ledger.open_run(run, [DEV, PROD]) for run in runs))
    assert opened == [ledger.run(RUN)] * 3
    assert [entry.kind for entry in ledger.journal(RUN)] == ["run.began"]


def test_of_two_tries_that_race_for_a_stage_one_writes(ledger: Ledger):
    """Both acquire, both go on as if alone; the one that was overtaken changes nothing."""
    begun(ledger, A)

    def race(holder: str) -> str:
        lease = ledger.acquire(RUN, DEV, holder, at=later(1))
        gate.wait(30)
        ledger.intend(lease, a_dispatch(f"token of {holder}"), reason=holder)
        return holder

    gate = threading.Barrier(4)
    results = together(*(lambda holder=f"try-{number}": race(holder) for number in range(4)))
    winners = [one for one in results if isinstance(one, str)]
    assert winners == [ledger.stage(RUN, DEV).holder]
    assert sum(isinstance(one, LeaseLost) for one in results) == 3
    assert [row.token for row in ledger.dispatches(RUN)] == [f"token of {winners[0]}"]


def race_in_a_process(ledger: Ledger, holder: str) -> int:
    """Take the stage over and over and try to move the host each time."""
    won = 0
    for _ in range(10):
        lease = ledger.acquire(RUN, DEV, holder, at=later(1))
        try:
            ledger.move_hosts(lease, [a_move(A, HostState.PLANNED, HostState.UNREACHABLE)], at=later(2))
            won += 1
        except (LeaseLost, IllegalMove):
            pass
    return won


def test_of_processes_that_race_for_a_host_one_moves_it(database: URL):
    """A host is moved once, and each lease has a number of its own."""
    ledger = ledger_at(database)
    begun(ledger, A)
    won = in_processes(database, race_in_a_process, [("try-a",), ("try-b",), ("try-c",)])
    assert sum(won) == 1
    assert ledger.stage(RUN, DEV).fencing == 31
    assert [entry.data["after"] for entry in ledger.journal(RUN) if entry.kind == "host.moved"] == ["unreachable"]


def test_a_host_is_taken_by_one_of_two_intents(ledger: Ledger):
    """Two threads of one holder cannot send it two commands."""
    lease = begun(ledger, A)
    results = together(
        *(lambda token=token: ledger.intend(lease, a_dispatch(token), reason="go") for token in ("t1", "t2", "t3"))
    )
    assert sorted(type(one).__name__ for one in results) == ["IllegalMove", "IllegalMove", "NoneType"]
    assert len(ledger.dispatches(RUN)) == 1


def test_the_same_intent_from_two_sides_is_one_intent(ledger: Ledger):
    lease = begun(ledger, A)
    assert together(*(lambda: ledger.intend(lease, a_dispatch(), reason="go") for _ in range(3))) == [None] * 3
    assert len(ledger.dispatches(RUN)) == 1


def test_of_two_answers_at_once_one_stands_for_both(ledger: Ledger):
    """The terminal and the browser answer the same gate."""
    ledger.open_run(a_run(), [DEV, PROD])
    answers = [a_decision(Verdict.APPROVED, "uma"), a_decision(Verdict.REJECTED, "olga"), a_decision(Verdict.EXPIRED, "-")]
    told = together(*(lambda answer=answer: ledger.record_decision(answer) for answer in answers))
    assert told == list(ledger.decisions(RUN)) * 3


def test_two_runs_that_promote_the_same_version_at_once_leave_one_record(ledger: Ledger):
    """No run waits for the other one's lock, so what keeps the record single is the table itself."""
    runs = [RUN, RunId("gold-image-web/other")]
    for run in runs:
        ledger.open_run(a_run(run), [])
    first, second = together(*[lambda run=run: ledger.record_image(an_image(run=run)) for run in runs])
    assert first == second
    assert list(ledger.image_records("web")) == [first]
    assert sorted(len(ledger.journal(run)) for run in runs) == [1, 2]


def test_one_plan_of_two_becomes_the_plan(ledger: Ledger):
    ledger.open_run(a_run(), [DEV])
    results = together(*(lambda number=number: ledger.put_document(RUN, "plan", {"n": number}, at=AT) for number in range(3)))
    assert sorted(type(one).__name__ for one in results) == ["IllegalMove", "IllegalMove", "str"]
    assert ledger.documents(RUN)["plan"] in results


def test_runs_that_store_the_same_content_do_not_hinder_each_other(ledger: Ledger):
    """Content is stored once, by whoever comes first."""
    runs = [a_run(id_) for id_ in ("dag/1", "dag/2", "dag/3")]
    for run in runs:
        ledger.open_run(run, [DEV])
    digests = together(*(lambda run=run: ledger.put_document(run.id, "policy", {"same": True}, at=AT) for run in runs))
    assert len(set(digests)) == 1
    assert [ledger.document(run.id, "policy") for run in runs] == [{"same": True}] * 3


def test_a_subject_that_two_say_waits_has_one_wait(ledger: Ledger):
    ledger.open_run(a_run(), [DEV])
    changed = together(*(lambda: ledger.wait(a_wait()) for _ in range(3)))
    assert sorted(changed) == [False, False, True]
    assert list(ledger.waits(RUN)) == [a_wait()]


def test_a_reader_sees_all_of_a_transaction_or_nothing(sql_ledger: SqlLedger):
    """While fifty hosts move, nobody sees thirty of them moved; and readers do not wait for the writer."""
    hosts = [HostId(f"i-{number:02}") for number in range(50)]
    lease = begun(sql_ledger, *hosts)
    done = threading.Event()

    def write() -> None:
        try:
            sql_ledger.intend(lease, a_dispatch(hosts=tuple(hosts)), reason="go")
        finally:
            done.set()

    def read() -> set[int]:
        seen = set()
        while not done.is_set():
            seen.add(sum(row.state is HostState.SCANNING for row in sql_ledger.hosts(RUN)))
        return seen

    _, seen = together(write, read)
    assert seen <= {0, 50}
    assert sum(row.state is HostState.SCANNING for row in sql_ledger.hosts(RUN)) == 50


# locks that somebody else holds


def test_a_writer_waits_for_another_one(sql_ledger: SqlLedger):
    """A lock that is held for a moment is no outage."""
    sql_ledger.open_run(a_run(), [DEV])
    with sql_ledger._engine.connect() as other:
        other.begin()
        SqlLedger._lock(other, RUN)
        waiting = threading.Thread(target=lambda: sql_ledger.record(RUN, "note", {}, at=AT))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert len(sql_ledger.journal(RUN)) == 1
        other.rollback()
    waiting.join(30)
    assert [entry.kind for entry in sql_ledger.journal(RUN)] == ["run.began", "note"]


def test_a_writer_does_not_wait_for_ever(database: URL, sql_ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch):
    """A frozen process that holds the lock makes the ledger unavailable, and nothing is half written."""
    monkeypatch.setattr(connect, "BUSY_TIMEOUT", 0.1 if database.get_backend_name() == "sqlite" else 1)
    monkeypatch.setattr(sql, "PAUSES", (0.0,))
    lease = begun(sql_ledger, A)
    impatient = SqlLedger(connect.engine_for(database))
    with sql_ledger._engine.connect() as other:
        other.begin()
        SqlLedger._lock(other, RUN)
        with pytest.raises(LedgerUnavailable, match="lock"):
            impatient.set_stage(lease, StageState.PATCHING, reason="go", at=AT)
        assert impatient.stage(RUN, DEV).state is StageState.WAITING
        other.rollback()
    impatient.set_stage(lease, StageState.PATCHING, reason="go", at=AT)
    impatient.close()


def test_a_transaction_that_the_database_gave_up_is_tried_again(sql_ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch):
    """SQLite says "locked" at once where waiting would be a deadlock; the whole transaction is done anew."""
    monkeypatch.setattr(sql, "PAUSES", (0.0, 0.0))
    sql_ledger.open_run(a_run(), [DEV])
    real, calls = SqlLedger._lock, []

    def gives_way_twice(connection, run):
        calls.append(run)
        if len(calls) < 3:
            problem = sql.sqlite3.OperationalError("database is locked")
            raise sql.exc.OperationalError("BEGIN", {}, problem)
        return real(connection, run)

    monkeypatch.setattr(SqlLedger, "_lock", staticmethod(gives_way_twice))
    sql_ledger.record(RUN, "note", {}, at=AT)
    assert len(calls) == 3
    assert [entry.kind for entry in sql_ledger.journal(RUN)] == ["run.began", "note"]


def test_a_transaction_that_fails_in_its_last_statement_leaves_nothing(sql_ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch):
    """Intent, hosts and journal are one: a crash between them is a crash before them."""
    lease = begun(sql_ledger, A)
    counts = {table.name: len(rows_of(sql_ledger, table)) for table in metadata.sorted_tables}

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("killed here")

    monkeypatch.setattr(SqlLedger, "_note", staticmethod(breaks))
    for write in (
        lambda: sql_ledger.intend(lease, a_dispatch(), reason="go"),
        lambda: sql_ledger.put_document(RUN, "plan", {}, at=AT),
        lambda: sql_ledger.acquire(RUN, PROD, "try-1", at=AT),
        lambda: sql_ledger.record_decision(a_decision()),
        lambda: sql_ledger.open_run(replace(a_run(), id="dag/other"), [DEV]),
        lambda: sql_ledger.wish_stop(RUN, DEV, "try-1", at=AT, reason=""),
    ):
        with pytest.raises(RuntimeError, match="killed here"):
            write()
        assert {table.name: len(rows_of(sql_ledger, table)) for table in metadata.sorted_tables} == counts
    assert [row.state for row in sql_ledger.hosts(RUN)] == [HostState.PLANNED]


def rows_of(ledger: SqlLedger, table: Any) -> list[Any]:
    return ledger._read(lambda connection: list(connection.execute(table.select())))
