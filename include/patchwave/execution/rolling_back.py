"""How is a rollback carried out, apart from Airflow?

`RollbackExecutor.advance` is the stage executor's twin for hosts that go back: it looks at the replacements that EC2 has under
way, then at Scans, writes what it saw, asks `rollback.decide`, and does it. How a Scan is sent, adopted and stopped is the stage
executor's. A replacement is begun under a client token that names run and host, written down before the call: whoever resumes
makes the same call again and gets the same task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

from patchwave.aws.snapshots import Replacement, TaskState
from patchwave.campaign import rollback, rollout
from patchwave.campaign.errors import OutcomeUnknown, Permanent, Throttled
from patchwave.campaign.rollback import Begin
from patchwave.campaign.rollout import RUNNING_STATE, DispatchState, Done, Halt, HostRow, HostState, Move, StepKind, Wait
from patchwave.campaign.snapshots import HostWay, State
from patchwave.campaign.values import Cell, HostId, RunId
from patchwave.execution.executor import StageExecutor

DOCUMENT = "replacements"
"""Of a rollback: the replacements by host."""
BEGINNING, BEGUN, ENDED = "rollback.beginning", "rollback.begun", "rollback.ended"
"""Kinds of records: hosts that are about to get another root volume, EC2's task of one, and how that ended."""
AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class RollbackExecutor(StageExecutor):
    """Carries a rollback out, under a lease.

    Attributes:
        earlier: the run that is taken back, whose snapshots are used.
        ways: the way of each host, as approved.
        down: hosts that did not serve when the plan was made.
    """

    earlier: RunId
    ways: Mapping[HostId, HostWay] = field(default_factory=dict)
    down: Collection[HostId] = ()

    def advance(self) -> Wait | Halt | Done:
        """Do whatever can be done now.

        Raises:
            LeaseLost: another process has taken the rollback over.
            AwsUnavailable, Throttled: looking failed; nothing was decided on half of the facts.
        """
        while True:
            unresolved = self._resolve_intents()
            if unresolved is not None:
                return unresolved
            self._look_at_replacements()
            self._look_at_scans()
            decision = rollback.decide(
                self.rules, self._rows(), self._dispatches(), down=self.down, errors_since=self.errors_since, now=self.now()
            )
            match decision:
                case Begin(hosts=hosts):
                    waiting = self._begin(hosts)
                    if waiting is not None:
                        return waiting
                case tuple():
                    delayed = self._send_all(decision)
                    if delayed is not None:
                        return delayed
                case Wait() if self.look_again(decision):
                    continue
                case Wait() | Halt() | Done():
                    return decision
                case _:
                    assert_never(decision)

    # --- root volumes ---------------------------------------------------------------------------------------------------
    def _known(self) -> dict[str, dict[str, Any]]:
        """The replacements as the ledger has them, by host: ``task``, ``intended_at``, ``volume``, ``completed``."""
        try:
            return dict(self.ledger.document(self.lease.run, DOCUMENT))
        except KeyError:
            return {}

    def _write(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        self.ledger.check(self.lease)
        self.ledger.put_document(self.lease.run, DOCUMENT, dict(known), at=self.now())

    def _begin(self, hosts: Sequence[HostId]) -> Wait | None:
        """Have their root volumes replaced, as far as their snapshots are complete."""
        rows = {row.host: row for row in self._rows()}
        usable: list[HostRow] = []
        moves: list[Move] = []
        waiting: list[HostId] = []
        for cell, some in _by_cell(rows[host] for host in hosts).items():
            states = {one.id: one.state for one in self.gateway.snapshots_of(cell, self.earlier).values()}
            for row in some:
                match states.get(self.ways[row.host].snapshot):
                    case State.COMPLETED:
                        usable.append(row)
                    case State.PENDING:
                        waiting.append(row.host)
                    case _:
                        why = f"its snapshot {self.ways[row.host].snapshot} cannot be used any more: restore your own backup"
                        moves.append(Move(host=row.host, before=row.state, after=HostState.FAILED, reason=why))
        self._move(moves)
        if not usable:
            if not waiting or moves:
                return None
            return Wait(
                reason=f"{len(waiting)} snapshots are not complete yet", ends="EC2 calls one of them completed",
                until=self.now() + rollback.LIMIT, look=AGAIN,
            )  # fmt: skip
        volumes = {
            one.host: one.volume
            for cell, some in _by_cell(usable).items()
            for one in self.gateway.root_volumes(cell, [row.host for row in some])
        }
        known = self._known()
        for row in usable:
            known[row.host] = self._intent(volumes.get(row.host, ""))
        self.ledger.record(self.lease.run, BEGINNING, {"hosts": [row.host for row in usable]}, at=self.now())
        self._write(known)
        self._move([
            Move(host=row.host, before=row.state, after=HostState.ROLLING_BACK, reason=self.ways[row.host].why) for row in usable
        ])  # fmt: skip
        for row in usable:
            self._replace(row, known)
        self._write(known)
        return None

    def _intent(self, volume: str) -> dict[str, Any]:
        return {"task": "", "intended_at": self.now().isoformat(), "volume": volume, "completed": ""}

    def _replace(self, row: HostRow, known: dict[str, dict[str, Any]]) -> None:
        """Make the call; the same token is the same task, however often."""
        way = self.ways[row.host]
        self.ledger.check(self.lease)
        try:
            made = self.gateway.replace_root_volume(
                row.cell, host=row.host, snapshot=way.snapshot, run=self.lease.run,
                token=rollback.token(self.lease.run, row.host),
            )  # fmt: skip
        except (OutcomeUnknown, Throttled) as error:
            self.log.info("The root volume of %s: %s; the same call is made again", row.host, error)
            return
        except Permanent as error:
            why = f"EC2 refuses to replace its root volume ({error}); it is as it was: see what EC2 says, or launch another one"
            self._move([Move(host=row.host, before=HostState.ROLLING_BACK, after=HostState.FAILED, reason=why)])
            return
        known[row.host]["task"] = made.id
        data = {"host": row.host, "task": made.id, "snapshot": way.snapshot, "volume": known[row.host]["volume"]}
        self.ledger.record(self.lease.run, BEGUN, data, at=self.now())
        self.log.info("%s gets a root volume from %s: task %s", row.host, way.snapshot, made.id)

    def _look_at_replacements(self) -> None:
        rows = [row for row in self._rows() if row.state is HostState.ROLLING_BACK]
        if not rows:
            return
        known = self._known()
        for row in [row for row in rows if not known.get(row.host, {}).get("task")]:
            # Killed before the call, or its answer was lost.
            known.setdefault(row.host, self._intent(""))
            self._replace(row, known)
        self._write(known)
        rows = [row for row in self._rows() if row.state is HostState.ROLLING_BACK and known[row.host]["task"]]
        for cell, some in _by_cell(rows).items():
            tasks = self.gateway.replacements(cell, [known[row.host]["task"] for row in some])
            over = [row for row in some if self._is_over(row, tasks.get(known[row.host]["task"]), known)]
            if over:
                self._write(known)
                self._back(cell, over, known)

    def _is_over(self, row: HostRow, task: Replacement | None, known: dict[str, dict[str, Any]]) -> bool:
        """Whether EC2 calls it succeeded; a host of which it does not is settled when it never will be."""
        late = self.now() > row.since + rollback.LIMIT
        if task is None or task.state is TaskState.RUNNING:
            if late:
                said = "EC2 does not list it" if task is None else task.status
                why = f"its root volume was not replaced within {rollback.LIMIT} ({said}): look at its task in EC2"
                self._move([Move(host=row.host, before=row.state, after=HostState.UNREACHABLE, reason=why)])
            return False
        if task.state is TaskState.SUCCEEDED:
            if not known[row.host]["completed"]:
                completed = task.completed or self.now()
                known[row.host]["completed"] = completed.isoformat()
                data = {"host": row.host, "task": task.id, "state": task.status, "at": completed.isoformat()}
                self.ledger.record(self.lease.run, ENDED, data, at=self.now())
            return True
        why = "it has the root volume that it had: see its task in EC2, or launch another one"
        if task.state is TaskState.DETACHED:
            why = f"it has no root volume: attach {known[row.host]['volume']} again, or another one"
        self.ledger.record(self.lease.run, ENDED, {"host": row.host, "task": task.id, "state": task.status}, at=self.now())
        reason = f"EC2 could not replace its root volume ({task.status}); {why}"
        self._move([Move(host=row.host, before=row.state, after=HostState.FAILED, reason=reason)])
        return False

    def _back(self, cell: Cell, rows: Sequence[HostRow], known: Mapping[str, Mapping[str, Any]]) -> None:
        """Of hosts whose root volume is replaced: is it another one, and do their agents answer since?"""
        ids = [row.host for row in rows]
        disks = {one.host: one for one in self.gateway.root_volumes(cell, ids)}
        hosts = {one.id: one for one in self.gateway.hosts(cell, ids, groups=False)}
        moves = []
        for row in rows:
            disk, had = disks.get(row.host), known[row.host]["volume"]
            if disk is not None and had and disk.volume == had:
                why = f"EC2 calls its root volume replaced, and it is still {had}: look at its task in EC2"
                moves.append(Move(host=row.host, before=row.state, after=HostState.FAILED, reason=why))
                continue
            since = datetime.fromisoformat(known[row.host]["completed"])
            move = rollback.back(row, hosts.get(row.host), since=since, now=self.now())
            moves += [move] if move is not None else []
        self._move(moves)

    # --- Scans ----------------------------------------------------------------------------------------------------------
    def _look_at_scans(self) -> None:
        dispatches = self._dispatches()
        rows = [row for row in self._rows() if row.state is RUNNING_STATE[StepKind.VERIFY] and row.token in dispatches]
        if not rows:
            return
        invocations, complete = self._commands(rows, dispatches)
        states = self._patch_states(rows, dispatches, invocations)
        moves = [
            rollback.scanned(
                row,
                dispatches[row.token or ""],
                invocations.get((row.token or "", row.host)),
                states.get(row.host),
                complete=row.token in complete,
                attempts=rollout.attempts(dispatches, StepKind.VERIFY, row.host),
                now=self.now(),
            )
            for row in rows
        ]
        self._move([move for move in moves if move is not None])
        for one in complete:
            if dispatches[one].state is DispatchState.SENT:
                self.ledger.mark_dispatch(self.lease, one, DispatchState.ENDED, at=self.now())


def _by_cell(rows: Iterable[HostRow]) -> dict[Cell, list[HostRow]]:
    cells: dict[Cell, list[HostRow]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    return cells
