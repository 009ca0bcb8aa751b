"""Runs of an emergency campaign: what is refused when they are frozen, and that nothing goes past the canary."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from patchwave.campaign import plan as plans
from patchwave.campaign.values import StageName
from patchwave.ledger.store import StageState
from patchwave.operators import findings
from patchwave.operators.findings import ClassifyOperator, ScanFindingsOperator
from patchwave.operators.patch import PatchStageOperator
from patchwave.operators.plan import PlanOperator
from tests.domain.builders import a_host
from tests.domain.test_emergency import CVE, an_emergency, having
from tests.operators.work import POLICY_JSON, RUN, Desk

CANARY, OTHER = a_host(1, group_tag="linux-dev"), a_host(2)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A canary and another host, both with the CVE."""
    desk = Desk(monkeypatch)
    has(desk, CANARY, OTHER)
    desk.gateway.findings.side_effect = lambda cell: having(1, 2, first_seen=datetime.now(UTC))
    return desk


def has(desk: Desk, *hosts: Any) -> None:
    """These hosts are there and no others."""
    desk.gateway.fleet.side_effect = lambda cell, tags: [host for host in hosts if host.cell == cell]
    desk.gateway.hosts.side_effect = lambda cell, ids, **_: [host for host in hosts if host.id in ids]


def scan() -> ScanFindingsOperator:
    return ScanFindingsOperator(task_id="scan_findings", campaign_json=an_emergency().to_json(), policy_json=POLICY_JSON)


def until_plan(desk: Desk, **params: Any) -> Any:
    """The first three tasks of a run for the CVE."""
    context = desk.context(params={"dry_run": False, "vulnerabilities": [CVE]} | params)
    for task in (scan(), ClassifyOperator(task_id="classify"), PlanOperator(task_id="plan")):
        task.execute(context)
    return context


@pytest.mark.parametrize(("params", "said"), [
    ({}, "found none; an emergency names at least one CVE id"),
    ({"vulnerabilities": []}, "found none"),
    ({"vulnerabilities": ["heartbleed"]}, "HEARTBLEED is no id of a vulnerability"),
    ({"vulnerabilities": [CVE], "stages": ["everybody"]}, "leaves out canary, the canary"),
])  # fmt: skip
def test_a_run_without_cve_ids_or_without_its_canary_is_not_begun(desk: Desk, params: dict[str, Any], said: str) -> None:
    """The form refuses it, too, but not everything comes through the form."""
    with pytest.raises(AirflowFailException, match=said):
        scan().execute(desk.context(params=params))
    assert not desk.ledger.runs()
    assert not desk.gateway.findings.called


def test_the_plan_has_the_shorter_soak_and_begins_with_the_clock(desk: Desk) -> None:
    """Frozen with the run; both are what the gate shows."""
    until_plan(desk)
    plan = plans.from_json(desk.ledger.document(RUN, "plan"))
    assert plan.stages[0].soak == timedelta(minutes=15)
    text = desk.ledger.document(RUN, "plan.md")
    assert f"**Deadline clock:** {CVE}: " in text
    assert "(2 findings on 2 resources)" in text


def test_a_run_whose_canary_has_no_host_is_refused(desk: Desk) -> None:
    """With nothing patched; the reason names the stage."""
    has(desk, OTHER)
    with pytest.raises(AirflowFailException, match="stage canary is the canary, and none of its hosts has one"):
        until_plan(desk)
    assert "plan" not in desk.ledger.documents(RUN)


def test_a_dry_run_shows_that_it_would_be_refused(desk: Desk) -> None:
    """That is what dry runs are for."""
    has(desk, OTHER)
    until_plan(desk, dry_run=True)
    assert "A run that patches is refused: stage canary is the canary" in desk.ledger.document(RUN, "plan.md")


def test_a_stage_behind_a_canary_of_which_nobody_was_patched_stays_shut(desk: Desk) -> None:
    """A stage whose hosts all vanished is through, and has tried nothing."""
    context = until_plan(desk)
    desk.set_stage("canary", StageState.PATCHED)
    desk.decide("everybody")
    everybody = PatchStageOperator(task_id="patch", stage="everybody")
    with pytest.raises(AirflowFailException, match="no host of stage canary, the canary, runs with the patches"):
        everybody.execute(context)
    assert not desk.gateway.send.called


def test_the_canary_itself_is_begun(desk: Desk) -> None:
    """Nothing stands before it."""
    context = until_plan(desk)
    with pytest.raises(TaskDeferred):
        PatchStageOperator(task_id="patch", stage="canary").execute(context)
    assert [row.host for row in desk.ledger.hosts(RUN, StageName("canary"))] == [CANARY.id]


@pytest.mark.parametrize(("run_type", "conf", "by", "requester"), [
    ("operator_triggered", {"requested_by": "olga"}, None, "olga"),
    ("operator_triggered", {"requested_by": "olga"}, "ana", "olga"),  # ana triggered the watcher by hand, olga said yes
    ("operator_triggered", {}, "ana", "ana"),
    ("manual", {"requested_by": "olga"}, "ana", "ana"),
    ("scheduled", {"requested_by": "olga"}, None, None),
])  # fmt: skip
def test_who_asked_for_a_run_cannot_be_made_up_by_hand(
    run_type: str, conf: dict[str, str], by: str | None, requester: str | None
) -> None:
    """Only a task may name somebody else: who asked for a run may not approve it."""
    assert findings.requester(SimpleNamespace(run_type=run_type, conf=conf, triggering_user_name=by)) == requester
