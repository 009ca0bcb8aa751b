"""The tasks of a rollback, from the trigger form to the outcome, against a simulated AWS and a ledger in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from patchwave.campaign import audit
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.definition import Campaign
from patchwave.campaign.plan import Plan
from patchwave.campaign.rollback import STAGE as BACK
from patchwave.campaign.rollout import HostState
from patchwave.campaign.snapshots import State
from patchwave.campaign.values import HostId
from patchwave.cli import check
from patchwave.ledger.store import Run, RunOutcome, StageState
from patchwave.operators.report import ReportOperator
from patchwave.operators.rollback import DeleteSnapshotsOperator, PlanRollbackOperator, RollBackOperator
from tests.domain.builders import CELL, a_campaign, a_plan
from tests.operators.stage import LOOK, RUN
from tests.operators.test_rolling_back import AGAIN, GoingBack
from tests.operators.work import POLICY_JSON, TaskInstance
from tests.simulator.conftest import Aws

S = HostState


class Rollback(GoingBack):
    """A patched stage in a run with all its documents, and the tasks of a rollback."""

    def a_run(self) -> Run:
        campaign = a_campaign()
        return Run(
            id=RUN, campaign=campaign.name, dag_id="weekly-linux", dag_run_id="manual__2026-01-05", began_at=self.now,
            definition=json.loads(campaign.to_json()), definition_digest=campaign.digest, policy=json.loads(POLICY_JSON),
            params={"dry_run": False, "stages": [], "severities": [], "vulnerabilities": []}, requested_by="uma",
        )  # fmt: skip

    def ended(self) -> Rollback:
        """The run is over."""
        hosts = [plans.replace(one, tags={"PatchGroup": "linux-dev"}) for one in self.gateway.hosts(CELL, self.hosts)]
        self.ledger.put_document(RUN, "plan", plans.to_json(a_plan(hosts, run=RUN)), at=self.now)
        self.ledger.set_stage(self.lease("end"), StageState.PATCHED, reason="", at=self.now)
        return self

    def context(self, **params: Any) -> Any:
        ti = TaskInstance()
        ti.get_task_states = lambda **_: {"manual__2026-01-05": {}}  # type: ignore[method-assign]
        dag_run = SimpleNamespace(
            dag_id="rollback", run_id="manual__2026-01-05", run_type="manual", run_after=datetime.now(UTC), logical_date=None,
            triggering_user_name="uma",
        )  # fmt: skip
        form = {"run": RUN, "stages": None, "hosts": None, "dry_run": False} | params
        return {"dag_run": dag_run, "ti": ti, "task_instance": ti, "params": form, "task": SimpleNamespace(stage=BACK)}

    def plan_it(self, **params: Any) -> Plan:
        PlanRollbackOperator(task_id="plan").execute(self.context(**params))
        return plans.from_json(self.ledger.document(AGAIN, "plan"))

    def say_yes(self, plan: Plan) -> None:
        self.ledger.record_decision(
            Decision(run=AGAIN, stage=BACK, plan=plans.digest(plan), verdict=Verdict.APPROVED, author="olga", at=self.now)
        )

    def roll_back(self) -> Any:
        """The task's legs, with time passing in each deferral."""
        context = self.context()
        for _ in range(100):
            try:
                return RollBackOperator(task_id="roll_back", stage=BACK).execute(context)
            except TaskDeferred:
                self.aws.advance(LOOK)
        raise AssertionError("no end")


@pytest.fixture
def patched(aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., Rollback]:
    """`patched(*fleets)`: a run that has patched them, and operators that find its ledger and its AWS."""

    def make(*fleets: str, broken: bool = False) -> Rollback:
        stage = Rollback(aws, *fleets)
        if broken:
            aws.control("faults", {"kind": "reboot_never_returns", "host": stage.hosts[0], "times": 1})
        stage.patched()
        stage.ended()
        hook = SimpleNamespace(gateway=lambda: stage.gateway, lists_bucket=lambda region: "")
        monkeypatch.setattr("patchwave.operators.base.open_ledger", lambda conn_id: stage.ledger)
        monkeypatch.setattr("patchwave.operators.base.PatchwaveAwsHook", lambda *, aws_conn_id: hook)
        monkeypatch.setattr("patchwave.operators.base.clock.now", lambda: stage.now)
        monkeypatch.setattr("patchwave.operators.patch.time.sleep", lambda seconds: aws.advance(seconds))
        monkeypatch.setenv("PATCHWAVE_RUNS_DIR", str(tmp_path))
        return stage

    return make


def test_from_the_form_to_the_report(patched: Callable[..., Rollback], tmp_path: Any) -> None:
    """The bricked host and the others are what they were; the run says so, and its evidence holds."""
    stage = patched("web", broken=True)
    plan = stage.plan_it()
    assert plan.stage(BACK).hosts[0].id == stage.hosts[0]
    assert plan.stage(BACK).approval_required
    stage.say_yes(plan)
    assert stage.roll_back() == {"rolled_back": 3}
    assert sorted(stage.replaced()) == sorted(stage.hosts)
    ReportOperator(task_id="report").execute(stage.context())
    assert stage.ledger.run(AGAIN).outcome is RunOutcome.SUCCEEDED
    (report,) = tmp_path.rglob("report.json")
    told = json.loads(report.read_text())
    assert {one["class"] for one in told["hosts"]} == {"rolled_back"}
    assert list(audit.broken(check.trace_of(stage.ledger, AGAIN, check.lines_of(stage.aws.raw("journal"))))) == []


def test_nothing_is_replaced_without_a_yes_to_this_plan(patched: Callable[..., Rollback]) -> None:
    """A yes to another digest opens nothing, whatever the state of the gate's task."""
    stage = patched("web")
    plan = stage.plan_it()
    stage.say_yes(plans.replace(plan, requested_by="somebody else"))
    with pytest.raises(AirflowFailException, match="nothing is patched"):
        RollBackOperator(task_id="roll_back", stage=BACK).execute(stage.context())
    assert stage.replaced() == []


def test_where_the_stage_asked_nobody_those_who_answer_for_others_are_asked(patched: Callable[..., Rollback]) -> None:
    """Dev has no approval; a rollback always has one, and not by just anybody."""
    stage = patched("web")
    assert set(stage.plan_it().stage(BACK).approvers) == {"olga", "ana"}
    frozen = Campaign.from_json(json.dumps(dict(stage.ledger.run(AGAIN).definition)))
    assert [one.name for one in frozen.stages] == [BACK]
    assert not frozen.is_locked(BACK)
    assert set(frozen.approvers(frozen.stages[0])) == {"olga", "ana"}


def test_a_dry_run_ends_with_its_plan(patched: Callable[..., Rollback]) -> None:
    """It says who has a way back, and replaces nothing."""
    stage = patched("web")
    assert stage.plan_it(dry_run=True).dry_run
    ReportOperator(task_id="report").execute(stage.context())
    assert stage.ledger.run(AGAIN).outcome is RunOutcome.DRY_RUN


@pytest.mark.parametrize(("params", "said"), [
    ({"run": "weekly-linux/never"}, "has no such run"), ({"stages": ["porto"]}, "porto is none of"),
    ({"hosts": ["i-0"]}, "i-0 is none of"),
])  # fmt: skip
def test_a_form_that_names_nothing_is_refused(patched: Callable[..., Rollback], params: dict[str, Any], said: str) -> None:
    """With what is allowed."""
    stage = patched("web")
    with pytest.raises(AirflowFailException, match=said):
        stage.plan_it(**params)


def test_a_run_that_is_under_way_is_not_rolled_back(patched: Callable[..., Rollback]) -> None:
    """Two campaigns would pull at the same hosts."""
    stage = patched("web")
    stage.ledger.set_stage(stage.lease("again"), StageState.PATCHING, reason="", at=stage.now)
    with pytest.raises(AirflowFailException, match="stop its task first"):
        stage.plan_it()


def test_when_nobody_has_a_way_back_the_run_fails_and_its_report_says_what_to_do(patched: Callable[..., Rollback]) -> None:
    """Never a success, and never silent."""
    stage = patched("web")
    for one in stage.taken.values():
        stage.gateway.delete_snapshot(CELL, one.id)
    with pytest.raises(AirflowFailException, match="no host can be rolled back"):
        stage.plan_it()
    plan = plans.from_json(stage.ledger.document(AGAIN, "plan"))
    assert len(plan.exclusions) == 3
    assert all("restore your own backup" in one.reason for one in plan.exclusions)


def test_snapshots_are_deleted_in_time_but_for_those_that_a_rollback_uses(patched: Callable[..., Rollback]) -> None:
    """The rollback's host keeps its snapshot until the rollback has ended."""
    stage = patched("web")
    delete = DeleteSnapshotsOperator(task_id="delete_snapshots")
    assert delete.execute(stage.context()) == 0
    stage.plan_it(hosts=[stage.hosts[0]])
    stage.aws.advance(timedelta(days=8).total_seconds())
    assert delete.execute(stage.context()) == 2
    assert [one.token for one in stage.gateway.snapshots_of(CELL, RUN).values()] == [stage.taken[stage.hosts[0]].token]
    assert {host: one.state for host, one in stage.taken.items()} == {
        **dict.fromkeys(stage.hosts, State.DELETED), HostId(stage.hosts[0]): State.COMPLETED,
    }  # fmt: skip
    stage.ledger.end_run(AGAIN, RunOutcome.REJECTED, at=stage.now)
    assert delete.execute(stage.context()) == 1
    assert stage.gateway.snapshots_of(CELL, RUN) == {}
