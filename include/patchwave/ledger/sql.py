"""The ledger in a database: SQLite for one machine, PostgreSQL for several.

`connect.ledger_at` makes one; everybody else knows the protocol of `store`. Each method is one transaction, and every writer of
a run takes the run's lock first: in PostgreSQL the row of the run (FOR UPDATE), in SQLite the database (BEGIN IMMEDIATE). So
two processes never both read a state and then write from it, the journal has neither gaps nor forks, and, as there is one
lock, no deadlock. What an operation changes is said by `changes`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, exc, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from patchwave.campaign import evidence
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.errors import LedgerUnavailable
from patchwave.campaign.images.promotion import Level, PromotedImage
from patchwave.campaign.rollout import DispatchRow, DispatchState, HostRow, HostState, Move, StepKind
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.ledger import changes, tables
from patchwave.ledger import rows as chunked
from patchwave.ledger.changes import Note
from patchwave.ledger.rows import Chunk, Rows
from patchwave.ledger.store import Entry, Lease, Run, RunOutcome, StageRow, StageState, StopWish, WaitRow

log = logging.getLogger(__name__)
T = TypeVar("T")

PAUSES = (0.1, 0.5)
"""Seconds before another try of a transaction that the database gave up for the sake of another one; then the caller's turn."""
GAVE_WAY = frozenset({"40001", "40P01"})
"""SQLSTATE of serialization failure and deadlock: nothing of the transaction happened."""
NO_TABLE = frozenset({"42P01", "3F000", "3D000"})
"""SQLSTATE of a missing table, schema or database: the ledger is not there."""
NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""SQLite calls a full disk an I/O error where it has no room for the file beside a WAL, without which it cannot even read."""
READ_ONLY = "patchwave_read_only"


class SqlLedger:
    """The ledger on SQLAlchemy; safe for threads, and one process may have several.

    Args:
        engine: on a migrated database, as `connect.engine_for` makes it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert

    def __repr__(self) -> str:
        return f"SqlLedger({self._engine.url.render_as_string(hide_password=True)})"

    def close(self) -> None:
        """Close the idle connections; the ledger opens new ones when it is used again."""
        self._engine.dispose()

    # transactions -----------------------------------------------------------------------------------------------------
    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._transaction(work, read_only=True)

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._transaction(work, read_only=False)

    def _transaction(self, work: Callable[[Connection], T], *, read_only: bool) -> T:
        pauses = iter(PAUSES)
        while True:
            try:
                with self._engine.connect() as connection:
                    connection = connection.execution_options(**{READ_ONLY: read_only})
                    with connection.begin():
                        return work(connection)
            except (exc.DBAPIError, exc.TimeoutError) as problem:
                pause = next(pauses, None) if _gave_way(problem) else None
                if pause is None:
                    if _is_outage(problem):
                        raise unavailable(problem) from problem
                    raise
                log.info("the ledger was busy (%s); trying again in %s s", _said(problem), pause)
                time.sleep(pause)

    @staticmethod
    def _lock(connection: Connection, run: RunId) -> Row[Any]:
        """Take the run's lock until the transaction ends.

        Raises:
            KeyError: there is no such run.
        """
        row = connection.execute(select(tables.runs).where(tables.runs.c.id == run).with_for_update()).one_or_none()
        if row is None:
            raise KeyError(f"the ledger has no run {run}")
        return row

    @staticmethod
    def _note(connection: Connection, run: RunId, notes: Iterable[Note | None], *, at: datetime) -> tuple[Entry, ...]:
        """Append to the journal, under the run's lock."""
        wanted = [note for note in notes if note is not None]
        if not wanted:
            return ()
        table = tables.journal
        query = select(table.c.sequence, table.c.hash).where(table.c.run == run).order_by(table.c.sequence.desc()).limit(1)
        last = connection.execute(query).one_or_none()
        made = changes.entries(run, (last.sequence, last.hash) if last else None, wanted, at=at)
        connection.execute(insert(table), [_entry_values(entry) for entry in made])
        return made

    def _held(self, connection: Connection, lease: Lease) -> StageRow:
        """The stage of the lease, under the run's lock.

        Raises:
            LeaseLost: somebody else has acquired it.
        """
        self._lock(connection, lease.run)
        row = _stage(connection, lease.run, lease.stage)
        changes.check_lease(row, lease)
        return row

    # runs -------------------------------------------------------------------------------------------------------------
    def open_run(self, run: Run, stages: Sequence[StageName]) -> Run:
        frozen, rows, note = changes.opened(run, stages)

        def work(connection: Connection) -> Run:
            statement = self._insert(tables.runs).values(_run_values(frozen)).on_conflict_do_nothing().returning(tables.runs.c.id)
            if connection.execute(statement).one_or_none() is None:
                return _run_of(self._lock(connection, run.id))
            if rows:
                connection.execute(insert(tables.stages), [_stage_values(row) for row in rows])
            self._note(connection, run.id, [note], at=frozen.began_at)
            return frozen

        return self._write(work)

    def run(self, run: RunId) -> Run:
        def work(connection: Connection) -> Run:
            row = connection.execute(select(tables.runs).where(tables.runs.c.id == run)).one_or_none()
            if row is None:
                raise KeyError(f"the ledger has no run {run}")
            return _run_of(row)

        return self._read(work)

    def runs(self, *, campaign: str | None = None, limit: int = 50) -> Sequence[Run]:
        query = select(tables.runs).order_by(tables.runs.c.began_at.desc(), tables.runs.c.id.desc()).limit(limit)
        if campaign is not None:
            query = query.where(tables.runs.c.campaign == campaign)
        return self._read(lambda connection: [_run_of(row) for row in connection.execute(query)])

    def end_run(self, run: RunId, outcome: RunOutcome, *, at: datetime) -> None:
        def work(connection: Connection) -> None:
            after, note = changes.ended(_run_of(self._lock(connection, run)), outcome, at=at)
            values = {"outcome": after.outcome.value, "ended_at": after.ended_at}
            connection.execute(update(tables.runs).where(tables.runs.c.id == run).values(values))
            self._note(connection, run, [note], at=at)

        self._write(work)

    # documents --------------------------------------------------------------------------------------------------------
    def put_document(self, run: RunId, name: str, content: Any, *, at: datetime) -> str:
        body, new = _canonical(content)
        table = tables.documents

        def work(connection: Connection) -> str:
            self._lock(connection, run)
            here = (table.c.run == run) & (table.c.name == name)
            stored = connection.execute(select(table.c.digest).where(here)).scalar_one_or_none()
            note = changes.document_put(run, name, stored, new)
            if note is None:
                return new
            connection.execute(self._insert(tables.contents).values(digest=new, body=body).on_conflict_do_nothing())
            if stored is None:
                values = {"run": run, "name": name, "digest": new, "put_at": changes.utc(at)}
                connection.execute(insert(table).values(values))
            else:
                connection.execute(update(table).where(here).values(digest=new, put_at=changes.utc(at)))
            self._note(connection, run, [note], at=at)
            return new

        return self._write(work)

    def put_rows(
        self,
        run: RunId,
        name: str,
        rows: Iterable[Any],
        *,
        at: datetime,
        head: Mapping[str, Any] | None = None,
        of: str | None = None,
    ) -> str:
        self.run(run)  # or its rows would be stored for nobody
        return self.put_document(run, name, chunked.manifest(self._kept(rows), head=head, of=of), at=at)

    def _kept(self, rows: Iterable[Any]) -> Iterator[Chunk]:
        """The rows' chunks, each stored: what a try before has stored is there already."""
        for chunk in chunked.chunks(rows):
            self._keep(chunk)
            yield chunk

    def _keep(self, chunk: Chunk) -> None:
        statement = self._insert(tables.chunks).values(digest=chunk.digest, body=chunk.body).on_conflict_do_nothing()
        self._write(lambda connection: connection.execute(statement))

    def rows(self, run: RunId, name: str, *, of: str | None = None) -> Rows:
        content, digest = self._stored(run, name)
        return chunked.opened(content, name=f"document {name} of run {run}", digest=digest, of=of, chunk=self._chunk)

    def _chunk(self, digest: str) -> bytes | None:
        query = select(tables.chunks.c.body).where(tables.chunks.c.digest == digest)
        found: bytes | None = self._read(lambda connection: connection.execute(query).scalar_one_or_none())
        return found

    def document(self, run: RunId, name: str) -> Any:
        content, _ = self._stored(run, name)
        return self.rows(run, name).whole() if chunked.is_manifest(content) else content

    def _stored(self, run: RunId, name: str) -> tuple[Any, str]:
        """What rests under that name, and its digest."""
        documents, contents = tables.documents, tables.contents
        query = (
            select(contents.c.body, contents.c.digest)
            .join_from(documents, contents)
            .where(documents.c.run == run, documents.c.name == name)
        )
        row = self._read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise KeyError(f"run {run} has no document {name}")
        # The text is canonical: hashing it again needs none of the memory of writing a large content again.
        if hashlib.sha256(row.body.encode()).hexdigest() != row.digest:
            raise evidence.EvidenceBroken(f"document {name} of run {run} is not the one that was stored as {row.digest}")
        return json.loads(row.body), row.digest

    def documents(self, run: RunId) -> Mapping[str, str]:
        table = tables.documents
        query = select(table.c.name, table.c.digest).where(table.c.run == run).order_by(table.c.name)
        return self._read(lambda connection: {row.name: row.digest for row in connection.execute(query)})

    # stages and leases ------------------------------------------------------------------------------------------------
    def stages(self, run: RunId) -> Sequence[StageRow]:
        query = select(tables.stages).where(tables.stages.c.run == run).order_by(tables.stages.c.position)
        return self._read(lambda connection: [_stage_of(row) for row in connection.execute(query)])

    def stage(self, run: RunId, stage: StageName) -> StageRow:
        return self._read(lambda connection: _stage(connection, run, stage))

    def acquire(self, run: RunId, stage: StageName, holder: str, *, at: datetime, seen: int | None = None) -> Lease:
        def work(connection: Connection) -> Lease:
            self._lock(connection, run)
            after, note = changes.acquired(_stage(connection, run, stage), holder, seen)
            _store_stage(connection, after)
            self._note(connection, run, [note], at=at)
            return Lease(run=run, stage=stage, holder=holder, fencing=after.fencing)

        return self._write(work)

    def check(self, lease: Lease) -> None:
        self._read(lambda connection: changes.check_lease(_stage(connection, lease.run, lease.stage), lease))

    def set_stage(self, lease: Lease, state: StageState, *, reason: str, at: datetime) -> None:
        def work(connection: Connection) -> None:
            change = changes.stage_set(self._held(connection, lease), state, reason=reason, at=at)
            if change is not None:
                _store_stage(connection, change[0])
                self._note(connection, lease.run, [change[1]], at=at)

        self._write(work)

    def note_look(self, lease: Lease, *, at: datetime) -> None:
        moment = changes.utc(at)

        def work(connection: Connection) -> None:
            _store_stage(connection, replace(self._held(connection, lease), looked_at=moment))

        self._write(work)

    def skip_stage(self, run: RunId, stage: StageName, *, reason: str, at: datetime) -> None:
        def work(connection: Connection) -> None:
            self._lock(connection, run)
            change = changes.stage_skipped(_stage(connection, run, stage), reason=reason, at=at)
            if change is not None:
                _store_stage(connection, change[0])
                self._note(connection, run, [change[1]], at=at)

        self._write(work)

    # hosts ------------------------------------------------------------------------------------------------------------
    def add_hosts(self, lease: Lease, rows: Sequence[HostRow]) -> None:
        def work(connection: Connection) -> None:
            self._held(connection, lease)
            new, note = changes.hosts_added(lease, _hosts(connection, lease), rows)
            if new:
                connection.execute(insert(tables.hosts), [_host_values(row) for row in new])
                self._note(connection, lease.run, [note], at=max(row.since for row in new))

        self._write(work)

    def hosts(self, run: RunId, stage: StageName | None = None) -> Sequence[HostRow]:
        hosts, stages = tables.hosts, tables.stages
        query = select(hosts).join_from(hosts, stages).where(hosts.c.run == run).order_by(stages.c.position, hosts.c.host)
        if stage is not None:
            query = query.where(hosts.c.stage == stage)
        return self._read(lambda connection: [_host_of(row) for row in connection.execute(query)])

    def move_hosts(self, lease: Lease, moves: Sequence[Move], *, at: datetime) -> None:
        def work(connection: Connection) -> None:
            self._held(connection, lease)
            after, notes = changes.hosts_moved(lease, _hosts(connection, lease, {move.host for move in moves}), moves, at=at)
            _store_hosts(connection, after.values())
            self._note(connection, lease.run, notes, at=at)

        self._write(work)

    # dispatches -------------------------------------------------------------------------------------------------------
    def intend(self, lease: Lease, dispatch: DispatchRow, *, reason: str) -> None:
        table = tables.dispatches

        def work(connection: Connection) -> None:
            self._held(connection, lease)
            changes.check_place(lease, f"dispatch {dispatch.token}", dispatch.run, dispatch.stage)
            known = select(table.c.number).where(table.c.run == lease.run, table.c.token == dispatch.token)
            if connection.execute(known).one_or_none() is not None:
                return
            row, moved, notes = changes.intended(lease, _hosts(connection, lease, set(dispatch.hosts)), dispatch, reason=reason)
            connection.execute(insert(table).values(_dispatch_values(row)))
            _store_hosts(connection, moved.values())
            self._note(connection, lease.run, notes, at=row.intended_at)

        self._write(work)

    def mark_dispatch(
        self,
        lease: Lease,
        token: str,
        state: DispatchState,
        *,
        at: datetime,
        command: str | None = None,
        requested_at: datetime | None = None,
        over_at: datetime | None = None,
        reason: str = "",
    ) -> None:
        table = tables.dispatches
        here = (table.c.run == lease.run) & (table.c.stage == lease.stage) & (table.c.token == token)

        def work(connection: Connection) -> None:
            self._held(connection, lease)
            row = connection.execute(select(table).where(here)).one_or_none()
            if row is None:
                raise KeyError(f"stage {lease.stage} of run {lease.run} has no dispatch {token}")
            change = changes.marked(
                _dispatch_of(row), state, at=at, command=command, requested_at=requested_at, over_at=over_at, reason=reason
            )
            if change is not None:
                connection.execute(update(table).where(here).values(_dispatch_values(change[0])))
                self._note(connection, lease.run, [change[1]], at=at)

        self._write(work)

    def dispatches(self, run: RunId, stage: StageName | None = None) -> Sequence[DispatchRow]:
        table = tables.dispatches
        query = select(table).where(table.c.run == run).order_by(table.c.number)
        if stage is not None:
            query = query.where(table.c.stage == stage)
        return self._read(lambda connection: [_dispatch_of(row) for row in connection.execute(query)])

    def durations(self, platform: str, *, newest: int = 200) -> Mapping[StepKind, Sequence[timedelta]]:
        table = tables.dispatches

        def work(connection: Connection) -> dict[StepKind, Sequence[timedelta]]:
            found: dict[StepKind, Sequence[timedelta]] = {}
            for step in StepKind:
                query = (
                    select(table.c.intended_at, table.c.requested_at, table.c.ended_at)
                    .where(
                        table.c.platform == platform,
                        table.c.step == step.value,
                        table.c.state == DispatchState.ENDED.value,
                        table.c.ended_at.is_not(None),
                    )
                    .order_by(table.c.number.desc())
                    .limit(newest)
                )
                if seen := [row.ended_at - (row.requested_at or row.intended_at) for row in connection.execute(query)]:
                    found[step] = seen
            return found

        return self._read(work)

    # decisions --------------------------------------------------------------------------------------------------------
    def record_decision(self, decision: Decision) -> Decision:
        table = tables.decisions
        here = (table.c.run == decision.run) & (table.c.stage == decision.stage) & (table.c.plan == decision.plan)

        def work(connection: Connection) -> Decision:
            self._lock(connection, decision.run)
            stands = connection.execute(select(table).where(here)).one_or_none()
            if stands is not None:
                return _decision_of(stands)
            after, note = changes.decided(decision)
            connection.execute(insert(table).values(_decision_values(after)))
            self._note(connection, decision.run, [note], at=after.at)
            return after

        return self._write(work)

    def decisions(self, run: RunId) -> Sequence[Decision]:
        table = tables.decisions
        query = select(table).where(table.c.run == run).order_by(table.c.at, table.c.number)
        return self._read(lambda connection: [_decision_of(row) for row in connection.execute(query)])

    # images -----------------------------------------------------------------------------------------------------------
    def record_image(self, record: PromotedImage) -> PromotedImage:
        table = tables.images

        def work(connection: Connection) -> PromotedImage:
            self._lock(connection, record.run)
            there = _images(connection, record.image)
            stands = changes.same_record(there, record)
            if stands is not None:
                return stands
            after, note = changes.image_recorded(there, record)
            # Another run may have written the same since: its own lock does not keep it from that, the unique key does.
            made = connection.execute(
                self._insert(table).values(_image_values(after)).on_conflict_do_nothing().returning(table.c.number)
            )
            if made.one_or_none() is None:
                return next(one for one in _images(connection, record.image) if changes.same_record([one], record))
            self._note(connection, record.run, [note], at=after.at)
            return after

        return self._write(work)

    def image_records(self, image: str) -> Sequence[PromotedImage]:
        return self._read(lambda connection: _images(connection, image))

    # waits ------------------------------------------------------------------------------------------------------------
    def wait(self, row: WaitRow) -> bool:
        table = tables.waits
        new = changes.waiting(row)
        lasting = (table.c.run == row.run) & (table.c.subject == row.subject) & table.c.ended_at.is_(None)

        def work(connection: Connection) -> bool:
            self._lock(connection, row.run)
            old = connection.execute(select(table).where(lasting)).one_or_none()
            if old is not None and old.reason == new.reason:
                connection.execute(update(table).where(lasting).values(until=new.until))
                return False
            connection.execute(update(table).where(lasting).values(ended_at=new.since))
            connection.execute(insert(table).values(_wait_values(new)))
            return True

        return self._write(work)

    def end_wait(self, run: RunId, subject: str, *, at: datetime) -> None:
        table = tables.waits
        lasting = (table.c.run == run) & (table.c.subject == subject) & table.c.ended_at.is_(None)

        def work(connection: Connection) -> None:
            self._lock(connection, run)
            connection.execute(update(table).where(lasting).values(ended_at=changes.utc(at)))

        self._write(work)

    def waits(self, run: RunId, *, open_only: bool = False) -> Sequence[WaitRow]:
        table = tables.waits
        query = select(table).where(table.c.run == run).order_by(table.c.since, table.c.number)
        if open_only:
            query = query.where(table.c.ended_at.is_(None))
        return self._read(lambda connection: [_wait_of(row) for row in connection.execute(query)])

    # wishes to stop ---------------------------------------------------------------------------------------------------
    def wish_stop(self, run: RunId, stage: StageName, holder: str, *, at: datetime, reason: str) -> None:
        table = tables.stop_wishes
        values = {"run": run, "stage": stage, "holder": holder, "at": changes.utc(at), "reason": reason}

        def work(connection: Connection) -> None:
            locked = select(tables.runs.c.id).where(tables.runs.c.id == run).with_for_update()
            known = connection.execute(locked).one_or_none() is not None
            statement = self._insert(table).values(values).on_conflict_do_nothing().returning(table.c.number)
            if connection.execute(statement).one_or_none() is not None and known:
                self._note(connection, run, [changes.wished(stage, holder, reason)], at=at)

        self._write(work)

    def end_stop_wish(self, run: RunId, stage: StageName, holder: str, *, outcome: str, at: datetime) -> None:
        table = tables.stop_wishes
        here = (table.c.run == run) & (table.c.stage == stage) & (table.c.holder == holder) & table.c.ended_at.is_(None)

        def work(connection: Connection) -> None:
            locked = select(tables.runs.c.id).where(tables.runs.c.id == run).with_for_update()
            known = connection.execute(locked).one_or_none() is not None
            statement = update(table).where(here).values(ended_at=changes.utc(at), outcome=outcome).returning(table.c.number)
            if connection.execute(statement).one_or_none() is not None and known:
                self._note(connection, run, [changes.wish_ended(stage, holder, outcome)], at=at)

        self._write(work)

    def stop_wishes(self, run: RunId | None = None, *, open_only: bool = False) -> Sequence[StopWish]:
        table = tables.stop_wishes
        query = select(table).order_by(table.c.number)
        if run is not None:
            query = query.where(table.c.run == run)
        if open_only:
            query = query.where(table.c.ended_at.is_(None))
        return self._read(lambda connection: [_wish_of(row) for row in connection.execute(query)])

    # evidence ---------------------------------------------------------------------------------------------------------
    def record(self, run: RunId, kind: str, data: Mapping[str, Any], *, at: datetime) -> Entry:
        def work(connection: Connection) -> Entry:
            self._lock(connection, run)
            return self._note(connection, run, [Note(kind=kind, data=data)], at=at)[0]

        return self._write(work)

    def journal(self, run: RunId) -> Sequence[Entry]:
        query = select(tables.journal).where(tables.journal.c.run == run).order_by(tables.journal.c.sequence)
        return self._read(lambda connection: [_entry_of(row) for row in connection.execute(query)])

    def count_calls(self, run: RunId, calls: Mapping[str, int]) -> None:
        table = tables.calls
        # Sorted, so that two writers take the rows in the same order.
        values = [{"run": run, "operation": operation, "count": count} for operation, count in sorted(calls.items())]

        def work(connection: Connection) -> None:
            if connection.execute(select(tables.runs.c.id).where(tables.runs.c.id == run)).one_or_none() is None:
                raise KeyError(f"the ledger has no run {run}")
            if not values:
                return
            statement = self._insert(table)
            added = {"count": table.c.count + statement.excluded["count"]}
            connection.execute(
                statement.on_conflict_do_update(index_elements=[table.c.run, table.c.operation], set_=added), values
            )

        self._write(work)

    def calls(self, run: RunId) -> Mapping[str, int]:
        table = tables.calls
        query = select(table.c.operation, table.c["count"]).where(table.c.run == run).order_by(table.c.operation)
        return self._read(lambda connection: {row.operation: row[1] for row in connection.execute(query)})


# errors -----------------------------------------------------------------------------------------------------------------


def _sqlstate(problem: Exception) -> str | None:
    return getattr(getattr(problem, "orig", None), "sqlstate", None)


def _gave_way(problem: Exception) -> bool:
    """Whether the database gave the transaction up for the sake of another one, so that it may simply be tried again."""
    origin = getattr(problem, "orig", None)
    if isinstance(origin, sqlite3.OperationalError):
        return "locked" in str(origin) or "busy" in str(origin)
    return _sqlstate(problem) in GAVE_WAY


def _is_outage(problem: Exception) -> bool:
    """Whether the database, or the way to it, is what failed, and not what we asked of it."""
    if _sqlstate(problem) in NO_TABLE:
        return True
    return not isinstance(problem, exc.IntegrityError | exc.DataError | exc.ProgrammingError)


def unavailable(problem: Exception, *, where: str = "") -> LedgerUnavailable:
    """The error that everybody else sees instead of the database's: what a person can do something about is said first.

    Args:
        problem: of SQLAlchemy, or of SQLite's driver itself.
        where: the file, if that is no secret.
    """
    code = getattr(getattr(problem, "orig", None) or problem, "sqlite_errorcode", 0)
    state = _sqlstate(problem)
    if code in NO_ROOM or state == "53100":
        what = "the ledger's disk is full, and nothing is sent to any host until there is room"
    elif code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or state == "55P03":
        what = "the ledger is locked by another process, which does not let go of it"
    elif code & 0xFF == sqlite3.SQLITE_READONLY or state == "25006":
        what = "the ledger cannot be written to"
    else:
        what = "the ledger does not answer"
    return LedgerUnavailable(f"{what}{f' ({where})' if where else ''}: {_said(problem)}")


def _said(problem: Exception) -> str:
    """What the database said, in one line, without statement, values or the address with its password."""
    lines = str(getattr(problem, "orig", None) or problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__


# rows -------------------------------------------------------------------------------------------------------------------


def _canonical(content: Any) -> tuple[str, str]:
    """Text and digest of a content, written only once: a plan of 100,000 hosts is some hundred MiB on the way."""
    written = evidence.canonical(content)
    return written.decode(), hashlib.sha256(written).hexdigest()


def _json(content: Any) -> str:
    return evidence.canonical(content).decode()


def _stage(connection: Connection, run: RunId, stage: StageName) -> StageRow:
    table = tables.stages
    row = connection.execute(select(table).where(table.c.run == run, table.c.stage == stage)).one_or_none()
    if row is None:
        raise KeyError(f"the ledger has no stage {stage} of run {run}")
    return _stage_of(row)


def _store_stage(connection: Connection, row: StageRow) -> None:
    table = tables.stages
    connection.execute(update(table).where(table.c.run == row.run, table.c.stage == row.stage).values(_stage_values(row)))


FEW = 500
"""So many hosts are looked up by name; for more of them the whole stage is read. SQLite takes some thousand names at most."""


def _hosts(connection: Connection, lease: Lease, only: Collection[HostId] | None = None) -> dict[HostId, HostRow]:
    """Hosts of the lease's stage.

    Args:
        only: at least these, of those that there are; None: all. A command is about 50 of a stage that may have 100,000.
    """
    table = tables.hosts
    query = select(table).where(table.c.run == lease.run, table.c.stage == lease.stage)
    if only is not None and len(only) <= FEW:
        query = query.where(table.c.host.in_(only))
    return {row.host: row for row in map(_host_of, connection.execute(query))}


def _store_hosts(connection: Connection, rows: Iterable[HostRow]) -> None:
    table = tables.hosts
    for row in rows:
        here = (table.c.run == row.run) & (table.c.stage == row.stage) & (table.c.host == row.host)
        connection.execute(update(table).where(here).values(_host_values(row)))


def _run_values(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "campaign": run.campaign,
        "dag_id": run.dag_id,
        "dag_run_id": run.dag_run_id,
        "began_at": run.began_at,
        "definition": _json(run.definition),
        "definition_digest": run.definition_digest,
        "policy": _json(run.policy),
        "params": _json(run.params),
        "requested_by": run.requested_by,
        "speed": run.speed,
        "outcome": run.outcome.value,
        "ended_at": run.ended_at,
    }


def _run_of(row: Row[Any]) -> Run:
    return Run(
        id=RunId(row.id),
        campaign=row.campaign,
        dag_id=row.dag_id,
        dag_run_id=row.dag_run_id,
        began_at=row.began_at,
        definition=json.loads(row.definition),
        definition_digest=row.definition_digest,
        policy=json.loads(row.policy),
        params=json.loads(row.params),
        requested_by=row.requested_by,
        speed=row.speed,
        outcome=RunOutcome(row.outcome),
        ended_at=row.ended_at,
    )


def _stage_values(row: StageRow) -> dict[str, Any]:
    return {
        "run": row.run,
        "stage": row.stage,
        "position": row.position,
        "state": row.state.value,
        "reason": row.reason,
        "fencing": row.fencing,
        "holder": row.holder,
        "began_at": row.began_at,
        "ended_at": row.ended_at,
        "halted_at": row.halted_at,
        "looked_at": row.looked_at,
    }


def _stage_of(row: Row[Any]) -> StageRow:
    return StageRow(
        run=RunId(row.run),
        stage=StageName(row.stage),
        position=row.position,
        state=StageState(row.state),
        reason=row.reason,
        fencing=row.fencing,
        holder=row.holder,
        began_at=row.began_at,
        ended_at=row.ended_at,
        halted_at=row.halted_at,
        looked_at=row.looked_at,
    )


def _host_values(row: HostRow) -> dict[str, Any]:
    return {
        "run": row.run,
        "stage": row.stage,
        "host": row.host,
        "account": row.cell.account,
        "region": row.cell.region,
        "name": row.name,
        "platform": row.platform,
        "domains": _json(row.domains),
        "state": row.state.value,
        "reason": row.reason,
        "token": row.token,
        "since": row.since,
        "installed": row.installed,
        "missing_before": row.missing_before,
        "missing_after": row.missing_after,
    }


def _host_of(row: Row[Any]) -> HostRow:
    return HostRow(
        run=RunId(row.run),
        stage=StageName(row.stage),
        host=HostId(row.host),
        cell=Cell(account=row.account, region=row.region),
        name=row.name,
        platform=row.platform,
        domains=tuple(json.loads(row.domains)),
        state=HostState(row.state),
        reason=row.reason,
        token=row.token,
        since=row.since,
        installed=row.installed,
        missing_before=row.missing_before,
        missing_after=row.missing_after,
    )


def _dispatch_values(row: DispatchRow) -> dict[str, Any]:
    return {
        "token": row.token,
        "run": row.run,
        "stage": row.stage,
        "step": row.step.value,
        "account": row.cell.account,
        "region": row.cell.region,
        "hosts": _json(row.hosts),
        "attempt": row.attempt,
        "state": row.state.value,
        "fencing": row.fencing,
        "intended_at": row.intended_at,
        "snapshot": row.snapshot,
        "command": row.command,
        "requested_at": row.requested_at,
        "ended_at": row.ended_at,
        "platform": row.platform,
    }


def _dispatch_of(row: Row[Any]) -> DispatchRow:
    return DispatchRow(
        token=row.token,
        run=RunId(row.run),
        stage=StageName(row.stage),
        step=StepKind(row.step),
        cell=Cell(account=row.account, region=row.region),
        hosts=tuple(HostId(host) for host in json.loads(row.hosts)),
        attempt=row.attempt,
        state=DispatchState(row.state),
        fencing=row.fencing,
        intended_at=row.intended_at,
        snapshot=row.snapshot,
        command=row.command,
        requested_at=row.requested_at,
        ended_at=row.ended_at,
        platform=row.platform,
    )


def _decision_values(row: Decision) -> dict[str, Any]:
    return {
        "run": row.run,
        "stage": row.stage,
        "plan": row.plan,
        "verdict": row.verdict.value,
        "author": row.author,
        "at": row.at,
        "comment": row.comment,
        "lockfile": row.lockfile or None,
    }


def _decision_of(row: Row[Any]) -> Decision:
    return Decision(
        run=RunId(row.run),
        stage=StageName(row.stage),
        plan=row.plan,
        verdict=Verdict(row.verdict),
        author=row.author,
        at=row.at,
        comment=row.comment,
        lockfile=row.lockfile or "",
    )


def _images(connection: Connection, image: str) -> list[PromotedImage]:
    table = tables.images
    query = select(table).where(table.c.image == image).order_by(table.c.number)
    return [_image_of(row) for row in connection.execute(query)]


def _image_values(row: PromotedImage) -> dict[str, Any]:
    return {
        "image": row.image,
        "version": row.version,
        "level": row.level.value,
        "manifest": row.manifest,
        "amis": _json(row.amis),
        "at": row.at,
        "run": row.run,
        "by": row.by,
        "reason": row.reason,
    }


def _image_of(row: Row[Any]) -> PromotedImage:
    return PromotedImage(
        image=row.image,
        version=row.version,
        manifest=row.manifest,
        amis=json.loads(row.amis),
        level=Level(row.level),
        at=row.at,
        run=RunId(row.run),
        by=row.by,
        reason=row.reason,
    )


def _wait_values(row: WaitRow) -> dict[str, Any]:
    return {
        "run": row.run,
        "subject": row.subject,
        "reason": row.reason,
        "ends": row.ends,
        "since": row.since,
        "until": row.until,
        "ended_at": row.ended_at,
    }


def _wait_of(row: Row[Any]) -> WaitRow:
    return WaitRow(
        run=RunId(row.run),
        subject=row.subject,
        reason=row.reason,
        ends=row.ends,
        since=row.since,
        until=row.until,
        ended_at=row.ended_at,
    )


def _wish_of(row: Row[Any]) -> StopWish:
    return StopWish(
        run=RunId(row.run),
        stage=StageName(row.stage),
        holder=row.holder,
        at=row.at,
        reason=row.reason,
        ended_at=row.ended_at,
        outcome=row.outcome or "",
    )


def _entry_values(row: Entry) -> dict[str, Any]:
    return {
        "run": row.run,
        "sequence": row.sequence,
        "at": row.at,
        "kind": row.kind,
        "data": _json(row.data),
        "before": row.before,
        "hash": row.hash,
    }


def _entry_of(row: Row[Any]) -> Entry:
    return Entry(
        run=RunId(row.run),
        sequence=row.sequence,
        at=row.at,
        kind=row.kind,
        data=json.loads(row.data),
        before=row.before,
        hash=row.hash,
    )
