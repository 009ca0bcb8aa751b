"""How are a stage's databases and functions carried through, and what becomes of them when a person ends the task?

The operator asks `advance` in each leg: it reads the rows, asks AWS, lets the domain decide, writes the rows, and only then makes
the calls that stand in them. Nothing here remembers a call beyond that: whoever comes next asks AWS again. The rows are a
document of the run, written under the stage's lease; each change of one is a record of the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from patchwave.aws import databases as rds
from patchwave.aws import functions as lambdas
from patchwave.aws.errors import code_of
from patchwave.aws.gateway import Gateway
from patchwave.campaign import databases, managed_services, settling
from patchwave.campaign.databases import ApplyMaintenance, Kind, PlannedDatabase, SetAutomatic, TakeSnapshot, Upgrade
from patchwave.campaign.errors import Permanent, Transient
from patchwave.campaign.functions import SetMode, Update
from patchwave.campaign.managed_services import Done, Halt, ManagedPlan, Rules, Seen, Step, Terms, Wait
from patchwave.campaign.rollout import HostState
from patchwave.campaign.settling import Row, Service, State
from patchwave.campaign.values import Cell
from patchwave.campaign.windows import Span
from patchwave.execution.log import Log
from patchwave.ledger.store import Lease, Ledger

MOVED, INTENDED = "managed.moved", "managed.intended"
"""Kinds of records: one of them is in another state; a call is about to be made."""
ROUNDS = 50
"""So often AWS is asked in one leg before it waits all the same."""
FAILED = frozenset({HostState.FAILED, HostState.UNREACHABLE})


@dataclass(kw_only=True)
class ManagedExecutor:
    """The databases and functions of one stage, under its lease.

    Attributes:
        span: when something may be begun; None: at any time.
        errors_allowed: the stage's error budget; its failed hosts are counted here.
        settle: how long what AWS does not show yet may still be on its way.
    """

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    plan: ManagedPlan
    rules: Rules
    errors_allowed: int
    span: Callable[[], Span | None]
    now: Callable[[], datetime]
    log: Log
    settle: timedelta

    @property
    def is_through(self) -> bool:
        """Whether each is settled: a try that Airflow had given up wakes up late."""
        rows = read(self.ledger, self.lease)
        return rows is not None and settling.settled(rows)

    def advance(self) -> Wait | Halt | Done:
        """Do what can be done now.

        Raises:
            LeaseLost: another process has taken the stage over.
            Transient: AWS does not answer.
        """
        rows = read(self.ledger, self.lease)
        if rows is None:
            rows = managed_services.rows(self.plan, now=self.now())
            self._write(rows, rows.values())
        for _ in range(ROUNDS):
            decision = managed_services.decide(self.plan, rows, self._seen(rows), self._terms(), now=self.now())
            if decision.rows:
                before, rows = rows, {**rows, **{row.id: row for row in decision.rows}}
                self._write(rows, [row for row in decision.rows if row.state is not before[row.id].state])
            for step in decision.steps:
                rows = self._take(step, rows)
            if decision.rest is not None:
                return decision.rest
        until = self.now() + managed_services.LOOK
        return Wait(reason="databases and functions are looked at again", ends="they go on", until=until)

    def _terms(self) -> Terms:
        lost = sum(row.state in FAILED for row in self.ledger.hosts(self.lease.run, self.lease.stage))
        return Terms(
            run=self.lease.run, stage=self.lease.stage, rules=self.rules, failures=self.errors_allowed - lost,
            settling=self.settle,
        )  # fmt: skip

    def _seen(self, rows: dict[str, Row]) -> Seen:
        """What AWS says of those that are not settled."""
        left = [one for one in managed_services.executed(self.plan) if not rows[one.arn].state.settled]
        cells: dict[Service, dict[Cell, list[str]]] = {Service.RDS: {}, Service.LAMBDA: {}}
        for one in left:
            cells[managed_services.service_of(one)].setdefault(one.cell, []).append(one.name)
        found = {
            one.arn: one for cell in cells[Service.RDS] for one in self.gateway.databases(cell, versions=False)
        }  # fmt: skip
        its = {one.arn: one for cell, names in cells[Service.LAMBDA].items() for one in self.gateway.functions_now(cell, names)}
        span = self.span() if left else None
        return Seen(
            databases=found,
            functions=its,
            snapshots=self._snapshots(left, rows),
            span=(span.opens, span.closes) if span is not None else None,
            why_shut=span.because if span is not None else "",
        )

    def _snapshots(self, left: Iterable[managed_services.Planned], rows: dict[str, Row]) -> dict[str, str]:
        wanted: dict[Cell, set[tuple[Kind, str]]] = {}
        for one in left:
            if isinstance(one, PlannedDatabase) and one.saved and rows[one.arn].state in {State.PLANNED, State.SAVING}:
                name = databases.snapshot_name(self.lease.run, self.lease.stage, one)
                wanted.setdefault(one.cell, set()).add((one.saved_kind, name))
        found: dict[str, str] = {}
        for cell, names in wanted.items():
            found |= self.gateway.database_snapshots(cell, names)
        return found

    def _take(self, step: Step, rows: dict[str, Row]) -> dict[str, Row]:
        """Make the call; what a lost answer means shows the next look."""
        one = step.function if isinstance(step, SetMode | Update) else step.database
        row = rows[one.arn]
        self.ledger.check(self.lease)
        data = {"stage": self.lease.stage, "id": row.id, "name": row.name, "step": row.step, "try": row.tries}
        self.ledger.record(self.lease.run, INTENDED, data, at=self.now())
        try:
            match step:
                case SetMode() | Update():
                    self.gateway.change_function(one.cell, step)
                case TakeSnapshot() | ApplyMaintenance() | Upgrade() | SetAutomatic():
                    self.gateway.change_database(one.cell, step, run=self.lease.run)
                case _:
                    assert_never(step)
        except Transient as error:
            self.log.info("%s of %s: %s; what came of it is looked up", row.step, row.name, error)
            return rows
        except Permanent as error:
            if code_of(error) in rds.BUSY | lambdas.BUSY:
                self.log.info("%s of %s is tried again: %s", row.step, row.name, error)
                rows = {**rows, row.id: replace(row, tries=0)}  # it was not accepted; asked again after `settle`
                self._write(rows, ())
                return rows
            rows = {**rows, row.id: row.to(State.FAILED, f"{row.step}: {error}", at=self.now())}
            self._write(rows, [rows[row.id]])
            return rows
        self.log.info("%s: %s", row.name, row.step)
        return rows

    def _write(self, rows: dict[str, Row], moved: Iterable[Row]) -> None:
        self.ledger.check(self.lease)
        for row in moved:
            data = {"stage": self.lease.stage, "service": row.service.value, "id": row.id, "name": row.name,
                    "state": row.state.value, "reason": row.reason, "before": row.before, "after": row.after}  # fmt: skip
            self.ledger.record(self.lease.run, MOVED, data, at=self.now())
            self.log.info("%s is %s%s", row.name, row.state.value, f": {row.reason}" if row.reason else "")
        self._put(rows)

    def _put(self, rows: dict[str, Row]) -> None:
        name = managed_services.document(self.lease.stage)
        self.ledger.put_document(self.lease.run, name, settling.to_json(rows.values()), at=self.now())


def read(ledger: Ledger, lease: Lease) -> dict[str, Row] | None:
    """The stage's rows; None: it has not begun with them."""
    name = managed_services.document(lease.stage)
    if name not in ledger.documents(lease.run):
        return None
    return settling.from_json(ledger.document(lease.run, name))


def stop(ledger: Ledger, lease: Lease, *, now: datetime) -> str:
    """A person ended the task: nothing more is begun.

    Returns:
        What goes on all the same, in a sentence; empty if nothing does.
    """
    rows = read(ledger, lease)
    if rows is None:
        return ""
    idle, told = managed_services.stopped(rows, now=now)
    if idle:
        ledger.check(lease)
        content = settling.to_json({**rows, **{row.id: row for row in idle}}.values())
        ledger.put_document(lease.run, managed_services.document(lease.stage), content, at=now)
    return told
