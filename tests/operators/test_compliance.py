"""When the verification waits for a proof, and when nobody will ever bring one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from patchwave.campaign import exposure, severity
from patchwave.campaign import plan as plans
from patchwave.campaign.findings import Coverage
from patchwave.campaign.rollout import DispatchRow, DispatchState, HostState, Move, PatchState, StepKind
from patchwave.campaign.values import HostId, StageName
from patchwave.operators.compliance import VerifyComplianceOperator
from tests.domain.test_severity import STANDARD, finding
from tests.operators.work import RUN, Desk

DEV = StageName("dev")


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def installed(desk: Desk, *after: HostState) -> None:
    """One host of dev got an Install ten minutes ago, went through these states, and its report is of before that."""
    plan = desk.planned()
    began = datetime.now(UTC) - timedelta(minutes=10)
    lease = desk.ledger.acquire(RUN, DEV, "try-1", at=began)
    rows = plans.rows(plan, plan.stage("dev"), now=began)[:1]
    desk.ledger.add_hosts(lease, rows)
    for state in (HostState.SCANNING, HostState.READY):
        moves = [Move(host=row.host, before=row.state, after=state, reason="x") for row in desk.ledger.hosts(RUN, DEV)]
        desk.ledger.move_hosts(lease, moves, at=began)
    install = DispatchRow(
        token="0" * 32, run=RUN, stage=DEV, step=StepKind.INSTALL, cell=rows[0].cell, hosts=(rows[0].host,), attempt=1,
        state=DispatchState.INTENDED, fencing=lease.fencing, intended_at=began,
    )  # fmt: skip
    desk.ledger.intend(lease, install, reason="x")
    desk.ledger.mark_dispatch(lease, install.token, DispatchState.SENT, at=began, command="c-1", requested_at=began)
    for state in after:
        moves = [Move(host=row.host, before=row.state, after=state, reason="x") for row in desk.ledger.hosts(RUN, DEV)]
        desk.ledger.move_hosts(lease, moves, at=began)
    old = PatchState(
        host=rows[0].host, operation="Scan", ended=began - timedelta(hours=1), snapshot="", installed=1, missing=1, failed=0,
        pending_reboot=0, rejected=0,
    )  # fmt: skip
    desk.gateway.patch_states.return_value = {old.host: old}
    desk.ledger.put_document(RUN, "compliance.before", {"at": began.isoformat(), "hosts": []}, at=began)


def verify(desk: Desk) -> Any:
    task = VerifyComplianceOperator(task_id="verify", document="compliance.after")
    return task.execute(desk.context(task=task))


@pytest.mark.parametrize("state", [HostState.TO_VERIFY, HostState.UNREACHABLE])
def test_of_a_host_that_nobody_scans_any_more_no_proof_is_waited_for(desk: Desk, state: HostState) -> None:
    """Its stage was stopped under it, or it is out of reach: it is unknown at once, and not after hours."""
    installed(desk, *((HostState.TO_VERIFY,) if state is HostState.TO_VERIFY else (HostState.TO_VERIFY, state)))
    counts = verify(desk)
    assert counts.get("compliant", 0) == 0
    assert counts["unknown"] >= 1


def test_a_remedy_that_was_not_tried_brings_no_proof(desk: Desk) -> None:
    """A host out of reach is named among the remedies, with the reason why nothing was begun on it."""
    installed(desk, HostState.TO_VERIFY, HostState.UNREACHABLE)
    hosts = [row.host for row in desk.ledger.hosts(RUN, DEV)]
    left = [{"host": host, "outcome": "not_tried", "began_at": None, "ended_at": None} for host in hosts]
    desk.ledger.put_document(RUN, "remedies", left, at=datetime.now(UTC))
    assert verify(desk)["unknown"] >= 1


def test_of_a_patched_host_the_report_is_waited_for(desk: Desk) -> None:
    """Its last Scan is over, so the report is on its way."""
    installed(desk, HostState.TO_VERIFY, HostState.FAILED)
    with pytest.raises(TaskDeferred):
        verify(desk)
    (wait,) = [one for one in desk.ledger.waits(RUN, open_only=True) if one.subject == "verify"]
    assert "1 hosts" in wait.reason


def test_what_became_of_each_finding_is_written_row_by_row(desk: Desk) -> None:
    """Open where Inspector says so, closed where it looks at the host and does not, else unknown: so the report has it."""
    desk.planned()
    found = [finding(number=number, resource=f"i-{number}") for number in (1, 2, 3)]
    triage = severity.classify(found, STANDARD, now=datetime.now(UTC), coverage=())
    desk.ledger.put_rows(RUN, "triage", triage.rows(), head=triage.head(), of=severity.ROWS, at=triage.at)
    desk.ledger.put_document(RUN, "compliance.before", {"at": triage.at.isoformat(), "hosts": []}, at=triage.at)
    desk.gateway.findings.side_effect = lambda cell: found[:1] if cell.region == "eu-central-1" else []
    desk.gateway.coverage.side_effect = lambda cell: [
        Coverage(cell=cell, host=HostId(host), active=host != "i-3", reason="SUCCESSFUL") for host in ("i-1", "i-2", "i-3")
    ]
    verify(desk)
    after = desk.ledger.rows(RUN, "findings.after", of=exposure.ROWS)
    fates = {"1": "open", "2": "closed", "3": "unknown"}
    assert {row["finding"][-1]: row["fate"] for row in after} == fates
    read = exposure.triaged(desk.ledger.document(RUN, "triage"), desk.ledger.document(RUN, "findings.after"))
    assert {one.host[-1]: one.fate.value for one in read} == fates
