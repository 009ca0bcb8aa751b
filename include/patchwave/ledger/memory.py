"""The ledger in memory: the twin of `sql.SqlLedger` for tests, kept to the same laws by the same test suite.

It lives and dies with its process. `available` set to False makes it a ledger that does not answer.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from patchwave.campaign import evidence
from patchwave.campaign.approval import Decision
from patchwave.campaign.errors import LedgerUnavailable
from patchwave.campaign.images.promotion import PromotedImage
from patchwave.campaign.rollout import DispatchRow, DispatchState, HostRow, Move, StepKind
from patchwave.campaign.values import HostId, RunId, StageName
from patchwave.ledger import changes
from patchwave.ledger import rows as chunked
from patchwave.ledger.changes import Note
from patchwave.ledger.rows import Chunk, Rows
from patchwave.ledger.store import Entry, Lease, Run, RunOutcome, StageRow, StageState, StopWish, WaitRow

Place = tuple[RunId, StageName]


class MemoryLedger:
    """A ledger of dictionaries; safe for threads.

    Every method asks `changes` first, which may refuse, and stores afterwards, which cannot fail: so it does all or nothing.

    Attributes:
        available: False makes every method raise `LedgerUnavailable`.
    """

    def __init__(self) -> None:
        self.available = True
        self._lock = threading.RLock()
        self._runs: dict[RunId, Run] = {}
        self._contents: dict[str, bytes] = {}
        self._chunks: dict[str, bytes] = {}
        self._documents: dict[tuple[RunId, str], str] = {}
        self._stages: dict[Place, StageRow] = {}
        self._hosts: dict[Place, dict[HostId, HostRow]] = {}
        self._dispatches: dict[tuple[RunId, str], DispatchRow] = {}
        self._decisions: dict[tuple[RunId, StageName, str], Decision] = {}
        self._images: dict[str, list[PromotedImage]] = {}
        self._waits: list[WaitRow] = []
        self._wishes: dict[tuple[RunId, StageName, str], StopWish] = {}
        self._journal: dict[RunId, list[Entry]] = {}
        self._calls: dict[RunId, dict[str, int]] = {}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if not self.available:
                raise LedgerUnavailable("the ledger does not answer: it was switched off")
            yield

    def _run(self, run: RunId) -> Run:
        if run not in self._runs:
            raise KeyError(f"the ledger has no run {run}")
        return self._runs[run]

    def _stage(self, run: RunId, stage: StageName) -> StageRow:
        if (run, stage) not in self._stages:
            raise KeyError(f"the ledger has no stage {stage} of run {run}")
        return self._stages[run, stage]

    def _held(self, lease: Lease) -> StageRow:
        self._run(lease.run)
        row = self._stage(lease.run, lease.stage)
        changes.check_lease(row, lease)
        return row

    def _linked(self, run: RunId, notes: Iterable[Note | None], *, at: datetime) -> tuple[Entry, ...]:
        """Records that are ready to be appended; making them may fail, so it comes before anything is stored."""
        journal = self._journal.get(run, [])
        last = (journal[-1].sequence, journal[-1].hash) if journal else None
        return changes.entries(run, last, [note for note in notes if note is not None], at=at)

    def _append(self, run: RunId, entries: Iterable[Entry]) -> None:
        self._journal.setdefault(run, []).extend(entries)

    # runs -------------------------------------------------------------------------------------------------------------
    def open_run(self, run: Run, stages: Sequence[StageName]) -> Run:
        frozen, rows, note = changes.opened(run, stages)
        with self._transaction():
            if run.id in self._runs:
                return _own(self._runs[run.id])
            entries = self._linked(run.id, [note], at=frozen.began_at)
            self._runs[run.id] = frozen
            for row in rows:
                self._stages[run.id, row.stage] = row
            self._append(run.id, entries)
            return _own(frozen)

    def run(self, run: RunId) -> Run:
        with self._transaction():
            return _own(self._run(run))

    def runs(self, *, campaign: str | None = None, limit: int = 50) -> Sequence[Run]:
        with self._transaction():
            chosen = [run for run in self._runs.values() if campaign is None or run.campaign == campaign]
            return [_own(run) for run in sorted(chosen, key=lambda run: (run.began_at, run.id), reverse=True)[:limit]]

    def end_run(self, run: RunId, outcome: RunOutcome, *, at: datetime) -> None:
        with self._transaction():
            after, note = changes.ended(self._run(run), outcome, at=at)
            entries = self._linked(run, [note], at=at)
            self._runs[run] = after
            self._append(run, entries)

    # documents --------------------------------------------------------------------------------------------------------
    def put_document(self, run: RunId, name: str, content: Any, *, at: datetime) -> str:
        body, new = evidence.canonical(content), evidence.digest(content)
        with self._transaction():
            self._run(run)
            note = changes.document_put(run, name, self._documents.get((run, name)), new)
            if note is None:
                return new
            entries = self._linked(run, [note], at=at)
            self._contents[new] = body
            self._documents[run, name] = new
            self._append(run, entries)
            return new

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
        with self._transaction():
            self._run(run)
        return self.put_document(run, name, chunked.manifest(self._kept(rows), head=head, of=of), at=at)

    def _kept(self, rows: Iterable[Any]) -> Iterator[Chunk]:
        for chunk in chunked.chunks(rows):
            with self._transaction():
                self._chunks[chunk.digest] = chunk.body
            yield chunk

    def rows(self, run: RunId, name: str, *, of: str | None = None) -> Rows:
        content, digest = self._stored(run, name)
        return chunked.opened(content, name=f"document {name} of run {run}", digest=digest, of=of, chunk=self._chunk)

    def _chunk(self, digest: str) -> bytes | None:
        with self._transaction():
            return self._chunks.get(digest)

    def document(self, run: RunId, name: str) -> Any:
        content, _ = self._stored(run, name)
        return self.rows(run, name).whole() if chunked.is_manifest(content) else content

    def _stored(self, run: RunId, name: str) -> tuple[Any, str]:
        """What rests under that name, and its digest."""
        with self._transaction():
            stored = self._documents.get((run, name))
            if stored is None:
                raise KeyError(f"run {run} has no document {name}")
            body = self._contents[stored]
        if hashlib.sha256(body).hexdigest() != stored:
            raise evidence.EvidenceBroken(f"document {name} of run {run} is not the one that was stored as {stored}")
        return json.loads(body), stored

    def documents(self, run: RunId) -> Mapping[str, str]:
        with self._transaction():
            return {name: stored for (of, name), stored in sorted(self._documents.items()) if of == run}

    # stages and leases ------------------------------------------------------------------------------------------------
    def stages(self, run: RunId) -> Sequence[StageRow]:
        with self._transaction():
            return sorted((row for row in self._stages.values() if row.run == run), key=lambda row: row.position)

    def stage(self, run: RunId, stage: StageName) -> StageRow:
        with self._transaction():
            return self._stage(run, stage)

    def acquire(self, run: RunId, stage: StageName, holder: str, *, at: datetime, seen: int | None = None) -> Lease:
        with self._transaction():
            after, note = changes.acquired(self._stage(run, stage), holder, seen)
            entries = self._linked(run, [note], at=at)
            self._stages[run, stage] = after
            self._append(run, entries)
            return Lease(run=run, stage=stage, holder=holder, fencing=after.fencing)

    def check(self, lease: Lease) -> None:
        with self._transaction():
            self._held(lease)

    def set_stage(self, lease: Lease, state: StageState, *, reason: str, at: datetime) -> None:
        with self._transaction():
            self._change_stage(changes.stage_set(self._held(lease), state, reason=reason, at=at), at=at)

    def note_look(self, lease: Lease, *, at: datetime) -> None:
        with self._transaction():
            self._stages[lease.run, lease.stage] = replace(self._held(lease), looked_at=changes.utc(at))

    def skip_stage(self, run: RunId, stage: StageName, *, reason: str, at: datetime) -> None:
        with self._transaction():
            self._change_stage(changes.stage_skipped(self._stage(run, stage), reason=reason, at=at), at=at)

    def _change_stage(self, change: tuple[StageRow, Note] | None, *, at: datetime) -> None:
        if change is not None:
            row, note = change
            entries = self._linked(row.run, [note], at=at)
            self._stages[row.run, row.stage] = row
            self._append(row.run, entries)

    # hosts ------------------------------------------------------------------------------------------------------------
    def add_hosts(self, lease: Lease, rows: Sequence[HostRow]) -> None:
        with self._transaction():
            self._held(lease)
            there = self._hosts.setdefault((lease.run, lease.stage), {})
            new, note = changes.hosts_added(lease, there, rows)
            if new:
                entries = self._linked(lease.run, [note], at=max(row.since for row in new))
                there.update({row.host: row for row in new})
                self._append(lease.run, entries)

    def hosts(self, run: RunId, stage: StageName | None = None) -> Sequence[HostRow]:
        with self._transaction():
            rows = [row for (of, _), there in self._hosts.items() if of == run for row in there.values()]
            chosen = (row for row in rows if stage is None or row.stage == stage)
            return sorted(chosen, key=lambda row: (self._stages[row.run, row.stage].position, row.host))

    def move_hosts(self, lease: Lease, moves: Sequence[Move], *, at: datetime) -> None:
        with self._transaction():
            self._held(lease)
            there = self._hosts.setdefault((lease.run, lease.stage), {})
            after, notes = changes.hosts_moved(lease, there, moves, at=at)
            entries = self._linked(lease.run, notes, at=at)
            there.update(after)
            self._append(lease.run, entries)

    # dispatches -------------------------------------------------------------------------------------------------------
    def intend(self, lease: Lease, dispatch: DispatchRow, *, reason: str) -> None:
        with self._transaction():
            self._held(lease)
            changes.check_place(lease, f"dispatch {dispatch.token}", dispatch.run, dispatch.stage)
            if (lease.run, dispatch.token) in self._dispatches:
                return
            there = self._hosts.setdefault((lease.run, lease.stage), {})
            row, moved, notes = changes.intended(lease, there, dispatch, reason=reason)
            entries = self._linked(lease.run, notes, at=row.intended_at)
            self._dispatches[lease.run, row.token] = row
            there.update(moved)
            self._append(lease.run, entries)

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
        with self._transaction():
            self._held(lease)
            row = self._dispatches.get((lease.run, token))
            if row is None or row.stage != lease.stage:
                raise KeyError(f"stage {lease.stage} of run {lease.run} has no dispatch {token}")
            change = changes.marked(row, state, at=at, command=command, requested_at=requested_at, over_at=over_at, reason=reason)
            if change is not None:
                entries = self._linked(lease.run, [change[1]], at=at)
                self._dispatches[lease.run, token] = change[0]
                self._append(lease.run, entries)

    def dispatches(self, run: RunId, stage: StageName | None = None) -> Sequence[DispatchRow]:
        with self._transaction():
            mine = [row for row in self._dispatches.values() if row.run == run]
            return [row for row in mine if stage is None or row.stage == stage]

    def durations(self, platform: str, *, newest: int = 200) -> Mapping[StepKind, Sequence[timedelta]]:
        with self._transaction():
            found: dict[StepKind, list[timedelta]] = {}
            for row in reversed(self._dispatches.values()):
                if row.platform == platform and row.state is DispatchState.ENDED and row.ended_at is not None:
                    its = found.setdefault(row.step, [])
                    if len(its) < newest:
                        its.append(row.ended_at - (row.requested_at or row.intended_at))
            return found

    # decisions --------------------------------------------------------------------------------------------------------
    def record_decision(self, decision: Decision) -> Decision:
        with self._transaction():
            self._run(decision.run)
            key = (decision.run, decision.stage, decision.plan)
            if key in self._decisions:
                return self._decisions[key]
            after, note = changes.decided(decision)
            entries = self._linked(decision.run, [note], at=after.at)
            self._decisions[key] = after
            self._append(decision.run, entries)
            return after

    def decisions(self, run: RunId) -> Sequence[Decision]:
        with self._transaction():
            return sorted((one for one in self._decisions.values() if one.run == run), key=lambda one: one.at)

    # images -----------------------------------------------------------------------------------------------------------
    def record_image(self, record: PromotedImage) -> PromotedImage:
        with self._transaction():
            self._run(record.run)
            there = self._images.get(record.image, [])
            stands = changes.same_record(there, record)
            if stands is not None:
                return stands
            after, note = changes.image_recorded(there, record)
            entries = self._linked(record.run, [note], at=after.at)
            self._images[record.image] = [*there, after]
            self._append(record.run, entries)
            return after

    def image_records(self, image: str) -> Sequence[PromotedImage]:
        with self._transaction():
            return list(self._images.get(image, []))

    # waits ------------------------------------------------------------------------------------------------------------
    def wait(self, row: WaitRow) -> bool:
        new = changes.waiting(row)
        with self._transaction():
            self._run(row.run)
            lasting = self._lasting(row.run, row.subject)
            if lasting is not None and self._waits[lasting].reason == new.reason:
                self._waits[lasting] = replace(self._waits[lasting], until=new.until)
                return False
            if lasting is not None:
                self._waits[lasting] = replace(self._waits[lasting], ended_at=new.since)
            self._waits.append(new)
            return True

    def end_wait(self, run: RunId, subject: str, *, at: datetime) -> None:
        moment = changes.utc(at)
        with self._transaction():
            self._run(run)
            lasting = self._lasting(run, subject)
            if lasting is not None:
                self._waits[lasting] = replace(self._waits[lasting], ended_at=moment)

    def _lasting(self, run: RunId, subject: str) -> int | None:
        places = (index for index, row in enumerate(self._waits) if (row.run, row.subject, row.ended_at) == (run, subject, None))
        return next(places, None)

    def waits(self, run: RunId, *, open_only: bool = False) -> Sequence[WaitRow]:
        with self._transaction():
            mine = [row for row in self._waits if row.run == run and not (open_only and row.ended_at)]
            return sorted(mine, key=lambda row: row.since)

    # wishes to stop ---------------------------------------------------------------------------------------------------
    def wish_stop(self, run: RunId, stage: StageName, holder: str, *, at: datetime, reason: str) -> None:
        with self._transaction():
            if (run, stage, holder) in self._wishes:
                return
            entries = self._linked(run, [changes.wished(stage, holder, reason)], at=at)
            self._wishes[run, stage, holder] = StopWish(run=run, stage=stage, holder=holder, at=changes.utc(at), reason=reason)
            if run in self._runs:
                self._append(run, entries)

    def end_stop_wish(self, run: RunId, stage: StageName, holder: str, *, outcome: str, at: datetime) -> None:
        with self._transaction():
            wish = self._wishes.get((run, stage, holder))
            if wish is None or wish.ended_at is not None:
                return
            entries = self._linked(run, [changes.wish_ended(stage, holder, outcome)], at=at)
            self._wishes[run, stage, holder] = replace(wish, ended_at=changes.utc(at), outcome=outcome)
            if run in self._runs:
                self._append(run, entries)

    def stop_wishes(self, run: RunId | None = None, *, open_only: bool = False) -> Sequence[StopWish]:
        with self._transaction():
            return [
                wish
                for wish in self._wishes.values()
                if run in (None, wish.run) and not (open_only and wish.ended_at is not None)
            ]

    # evidence ---------------------------------------------------------------------------------------------------------
    def record(self, run: RunId, kind: str, data: Mapping[str, Any], *, at: datetime) -> Entry:
        with self._transaction():
            self._run(run)
            entries = self._linked(run, [Note(kind=kind, data=data)], at=at)
            self._append(run, entries)
            return replace(entries[0], data=changes.as_json(entries[0].data))

    def journal(self, run: RunId) -> Sequence[Entry]:
        with self._transaction():
            return [replace(entry, data=changes.as_json(entry.data)) for entry in self._journal.get(run, [])]

    def count_calls(self, run: RunId, calls: Mapping[str, int]) -> None:
        with self._transaction():
            self._run(run)
            mine = self._calls.setdefault(run, {})
            for operation, count in calls.items():
                mine[operation] = mine.get(operation, 0) + count

    def calls(self, run: RunId) -> Mapping[str, int]:
        with self._transaction():
            return dict(sorted(self._calls.get(run, {}).items()))


def _own(run: Run) -> Run:
    """A copy that shares nothing with what is stored."""
    return replace(
        run,
        definition=changes.as_json(run.definition),
        policy=changes.as_json(run.policy),
        params=changes.as_json(run.params),
    )
