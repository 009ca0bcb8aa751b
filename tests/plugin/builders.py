"""A ledger with runs in it, as the pages find it, and the application with a signed-in viewer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from patchwave.campaign import evidence, report
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.rollout import HostState, Move
from patchwave.campaign.values import RunId, StageName
from patchwave.dashboard import access
from patchwave.dashboard.app import create_app, open_ledger
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Ledger, Run, RunOutcome, StageState
from tests.domain.report_builders import BEGAN, NOW, a_look, a_plan, a_row, a_run, a_wait, an_assessment, host_id

ODD_RUN_IDS = (
    "manual__2026-06-02T20:00:00+00:00",
    "scheduled__2026-06-02T22:00:00.123456+02:00",
    "with/slash/waits",
    "a b?c=d#e&f",  # no per cent sign: the test client decodes it twice, which no server does
    "ümlaut~'quote\"<b>",
)
WAY: dict[HostState, tuple[HostState, ...]] = {
    HostState.READY: (HostState.SCANNING, HostState.READY),
    HostState.INSTALLING: (HostState.SCANNING, HostState.READY, HostState.INSTALLING),
    HostState.PATCHED: (
        HostState.SCANNING, HostState.READY, HostState.INSTALLING, HostState.TO_VERIFY, HostState.VERIFYING, HostState.PATCHED,
    ),
    HostState.ALREADY_COMPLIANT: (HostState.SCANNING, HostState.ALREADY_COMPLIANT),
    HostState.FAILED: (HostState.SCANNING, HostState.READY, HostState.INSTALLING, HostState.FAILED),
}  # fmt: skip
"""How a host legally comes into a state."""


def put_host(ledger: Ledger, run: RunId, stage: str, number: int, state: HostState, reason: str = "", **changes: Any) -> None:
    """Bring one host of a stage into a state, every move legal."""
    lease = ledger.acquire(run, StageName(stage), "builder", at=BEGAN)
    row = a_row(stage, number, HostState.PLANNED, run=run, reason="", **changes)
    ledger.add_hosts(lease, [row])
    before = HostState.PLANNED
    for after in WAY.get(state, (state,)) if state is not HostState.PLANNED else ():
        move = Move(host=row.host, before=before, after=after, reason=reason or f"it is {after.value}", missing_before=3)
        ledger.move_hosts(lease, [move], at=BEGAN + timedelta(minutes=7))
        before = after


def put_stage(ledger: Ledger, run: RunId, stage: str, state: StageState, reason: str = "") -> None:
    ledger.set_stage(ledger.acquire(run, StageName(stage), "builder", at=BEGAN), state, reason=reason, at=NOW)


def open_run(ledger: Ledger, *stages: str, dag_run_id: str = ODD_RUN_IDS[0], **changes: Any) -> Run:
    """A run that has just begun."""
    facts = {"outcome": RunOutcome.RUNNING, "ended_at": None, "dag_id": "weekly-linux", **changes}
    run = a_run(id=RunId(f"{facts['dag_id']}/{dag_run_id}"), dag_run_id=dag_run_id, **facts)
    return ledger.open_run(run, [StageName(stage) for stage in stages])


def a_busy_run(ledger: Ledger, **changes: Any) -> Run:
    """Dev is patched, staging is at work with a failure, prod waits for an answer."""
    run = open_run(ledger, "dev", "staging", "prod", **changes)
    plan = a_plan(dev=range(1, 4), staging=range(11, 17), prod=range(21, 31))
    for stage in plan["stages"]:
        stage.update(stage_places=2, error_budget=1, concurrency="10 %")
    ledger.put_document(run.id, "plan", plan, at=BEGAN)
    ledger.put_document(run.id, "plan.md", "# Plan of weekly-linux\n\n| stage | hosts |\n|---|---|\n| dev | 3 |\n", at=BEGAN)
    for number, state in ((1, HostState.PATCHED), (2, HostState.ALREADY_COMPLIANT), (3, HostState.STOPPED)):
        put_host(ledger, run.id, "dev", number, state)
    put_stage(ledger, run.id, "dev", StageState.PATCHED)
    put_stage(ledger, run.id, "staging", StageState.PATCHING)
    staging = (
        HostState.PATCHED,
        HostState.PATCHED,
        HostState.FAILED,
        HostState.UNREACHABLE,
        HostState.INSTALLING,
        HostState.READY,
    )
    for number, state in enumerate(staging, start=11):
        put_host(ledger, run.id, "staging", number, state)
    ledger.wait(a_wait("staging", run=run.id, reason="2 of 2 places are taken: 1 in flight, 1 failed", ends="a host settles"))
    ledger.wait(a_wait("approve prod", run=run.id, reason="nobody has answered yet", ends="a person answers", until=None))
    ledger.record_decision(Decision(
        run=run.id, stage=StageName("staging"), plan=evidence.digest(plan), verdict=Verdict.APPROVED, author="uma",
        at=BEGAN + timedelta(minutes=30), comment="go"))  # fmt: skip
    return run


def with_report(ledger: Ledger, run: Run) -> None:
    """Make and store the run's report."""
    ledger.put_document(run.id, "compliance.before", a_look(not_compliant=range(1, 30)), at=BEGAN)
    ledger.put_document(run.id, "compliance.after", a_look(compliant=(1, 2, 11, 12), not_compliant=range(21, 31)), at=NOW)
    triage = {"assessments": [an_assessment(number, 1 + number % 16) for number in range(40)]}
    triage["assessments"] += [an_assessment(99, 1, severity="critical", track="not_patchable", reason="a Go binary")]
    ledger.put_document(run.id, "triage", triage, at=BEGAN)
    arns = [one["finding"] for one in triage["assessments"]]
    after = {"at": NOW.isoformat(), "open": arns[30:], "closed": arns[:28], "unknown": arns[28:30]}
    ledger.put_document(run.id, "findings.after", after, at=NOW)
    ledger.count_calls(run.id, {"ssm:SendCommand": 9, "ssm:ListCommandInvocations": 41, "inspector2:ListFindings": 3})
    ledger.end_run(run.id, RunOutcome.FAILED, at=NOW)
    names = ledger.documents(run.id)
    made = report.build(
        ledger.run(run.id), ledger.stages(run.id), ledger.hosts(run.id), ledger.decisions(run.id), ledger.waits(run.id),
        ledger.dispatches(run.id), ledger.calls(run.id), evidence.verify(ledger.journal(run.id)),
        {name: ledger.document(run.id, name) for name in names}, now=NOW, journal_head=ledger.journal(run.id)[-1].hash,
    )  # fmt: skip
    ledger.put_document(run.id, "report", report.to_json(made), at=NOW)


def client(ledger: Ledger | None = None, *, may_read: Callable[[str | None], bool] = lambda _: True) -> TestClient:
    """A viewer's browser in front of the pages."""
    return TestClient(app_for(ledger or MemoryLedger(), may_read=may_read))


def app_for(ledger: Ledger, *, may_read: Callable[[str | None], bool] = lambda _: True) -> FastAPI:
    app = create_app()
    app.dependency_overrides[access.signed_in] = lambda: "vic"
    app.dependency_overrides[access.permissions] = lambda: may_read
    app.dependency_overrides[open_ledger] = lambda: ledger
    return app


__all__ = ["NOW", "ODD_RUN_IDS", "a_busy_run", "app_for", "client", "host_id", "open_run", "put_host", "put_stage", "with_report"]
