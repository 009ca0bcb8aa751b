"""What each task of a campaign does with what the ledger says, and what it tells Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import create_autospec

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    TaskAwaitingInput,
    TaskDeferred,
)

from patchwave.campaign import lockfile, severity
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Verdict
from patchwave.campaign.errors import AwsUnavailable, LedgerUnavailable, PatchwaveError
from patchwave.campaign.fleet import Health, Ping
from patchwave.campaign.rollout import HostState, Move
from patchwave.campaign.values import HostId, StageName
from patchwave.ledger.store import RunOutcome, StageState
from patchwave.operators import findings
from patchwave.operators.approval import ApproveStageOperator
from patchwave.operators.base import Work
from patchwave.operators.compliance import VerifyComplianceOperator
from patchwave.operators.findings import ClassifyOperator, ScanFindingsOperator
from patchwave.operators.health import HealthOperator, SoakOperator
from patchwave.operators.patch import PatchStageOperator
from patchwave.operators.plan import PlanOperator
from patchwave.operators.remediation import RemediateOperator
from patchwave.operators.report import OutcomeOperator, ReportOperator
from patchwave.triggers.watch import CommandsTrigger, MomentTrigger
from tests.domain.test_severity import STANDARD, finding
from tests.operators.work import CAMPAIGN_JSON, HOSTS, POLICY_JSON, RUN, Desk


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


@pytest.fixture
def dry_desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch, dry_run=True)


def rebuilt(trigger: Any) -> Any:
    """The trigger that a triggerer makes of what was stored."""
    path, arguments = trigger.serialize()
    known = {"patchwave.triggers.watch.CommandsTrigger": CommandsTrigger, "patchwave.triggers.watch.MomentTrigger": MomentTrigger}
    return known[path](**json.loads(json.dumps(arguments)))


# --- the form ------------------------------------------------------------------------------------------------------------------
def test_a_scheduled_run_is_never_a_dry_run_and_a_hand_triggered_one_is_unless_it_says_otherwise() -> None:
    """The form's default protects whoever clicks; nobody clicks for the schedule."""
    assert findings.resolved({"dry_run": True}, scheduled=True)["dry_run"] is False
    assert findings.resolved({}, scheduled=False)["dry_run"] is True
    assert findings.resolved({"dry_run": True}, scheduled=False)["dry_run"] is True
    assert findings.resolved({"dry_run": False}, scheduled=False)["dry_run"] is False


def test_params_are_stored_in_one_spelling() -> None:
    """None and an empty list both mean everything; letters' case means nothing."""
    form = {"stages": None, "severities": ["HIGH"], "vulnerabilities": ["cve-2026-2", "CVE-2026-1"]}
    assert findings.resolved(form, scheduled=False) == {
        "dry_run": True, "stages": [], "severities": ["high"], "vulnerabilities": ["CVE-2026-1", "CVE-2026-2"]
    }  # fmt: skip


# --- scan_findings ---------------------------------------------------------------------------------------------------------
def scan(**changes: Any) -> ScanFindingsOperator:
    return ScanFindingsOperator(task_id="scan_findings", **{"campaign_json": CAMPAIGN_JSON, "policy_json": POLICY_JSON} | changes)


def test_the_first_task_freezes_the_run_before_it_asks_aws_anything(desk: Desk) -> None:
    """A run that AWS did not answer is known to the ledger all the same."""
    desk.gateway.findings.side_effect = AwsUnavailable("down")
    with pytest.raises(AwsUnavailable):
        scan().execute(desk.context())
    assert desk.ledger.run(RUN).params["dry_run"] is True
    assert [stage.stage for stage in desk.ledger.stages(RUN)] == ["dev", "staging", "prod"]


def test_a_run_goes_on_with_the_campaign_it_began_with(desk: Desk) -> None:
    """A file edited between two tries changes nothing."""
    scan().execute(desk.context())
    edited = json.loads(CAMPAIGN_JSON) | {"description": "edited"}
    scan(campaign_json=json.dumps(edited)).execute(desk.context())
    assert desk.ledger.run(RUN).definition == json.loads(CAMPAIGN_JSON)


@pytest.mark.parametrize(("run_type", "late", "begun"), [
    ("scheduled", timedelta(hours=2), False), ("scheduled", timedelta(minutes=5), True), ("manual", timedelta(days=2), True),
])  # fmt: skip
def test_a_scheduled_run_that_comes_too_late_is_not_begun(desk: Desk, run_type: str, late: timedelta, begun: bool) -> None:
    """Its window may be over; a person who triggers one knows what time it is."""
    context = desk.context(run_type=run_type, due=datetime.now(UTC) - late)
    if begun:
        scan().execute(context)
    else:
        with pytest.raises(AirflowSkipException, match="trigger it by hand"):
            scan().execute(context)
    assert bool(desk.ledger.runs()) is begun
    assert desk.gateway.findings.called is begun


@pytest.mark.parametrize("params", [{"stages": ["qa"]}, {"severities": ["bad"]}])
def test_a_param_that_names_nothing_fails_at_once(desk: Desk, params: dict[str, Any]) -> None:
    """With what is allowed; no retry would help."""
    with pytest.raises(AirflowFailException, match="allowed are"):
        scan().execute(desk.context(params=params))


@pytest.mark.parametrize("operator", [
    ClassifyOperator(task_id="classify"), PlanOperator(task_id="plan"), RemediateOperator(task_id="remediate")
], ids=lambda one: one.task_id)  # fmt: skip
def test_a_task_of_a_run_that_the_ledger_does_not_know_opens_nothing(desk: Desk, operator: Any) -> None:
    """The first task was marked by hand: nothing is made up."""
    with pytest.raises((AirflowFailException, AirflowSkipException, KeyError)):
        operator.execute(desk.context())
    assert not desk.gateway.send.called


def test_a_scan_that_is_killed_among_the_pages_leaves_no_findings(desk: Desk) -> None:
    """Half of the findings would be half of the truth; the next try has all of them, each once, though pages overlap."""
    pages = [finding(number=number) for number in (2, 1, 2, 3)]

    def killed(cell: Any) -> Iterator[Any]:
        yield from pages[:2]
        raise KeyboardInterrupt

    desk.gateway.findings.side_effect = killed
    with pytest.raises(KeyboardInterrupt):
        scan().execute(desk.context())
    assert findings.FINDINGS not in desk.ledger.documents(RUN)
    desk.gateway.findings.side_effect = lambda cell: iter(pages) if cell.region == "eu-central-1" else iter(())
    digest = scan().execute(desk.context())
    stored = desk.ledger.rows(RUN, findings.FINDINGS)
    assert (stored.digest, [row["vulnerability"][-1] for row in stored]) == (digest, ["1", "2", "3"])


@pytest.mark.parametrize("in_one_piece", [True, False])
def test_a_triage_of_before_is_read_like_one_of_today(desk: Desk, in_one_piece: bool) -> None:
    """A run that began before an update is planned, verified and reported after it."""
    triage = severity.classify([finding(number=1), finding(number=2)], STANDARD, now=datetime.now(UTC), coverage=())
    desk.open_run()
    if in_one_piece:
        desk.ledger.put_document(RUN, "triage", json.loads(triage.to_json()), at=triage.at)
    else:
        desk.ledger.put_rows(RUN, "triage", triage.rows(), head=triage.head(), of="assessments", at=triage.at)
    work = Work(desk.context(), aws_conn_id="aws_default", ledger_conn_id="patchwave_ledger")
    assert findings.read_triage(work) == triage


# --- plan ------------------------------------------------------------------------------------------------------------------
def test_scan_classify_and_plan_leave_a_plan_in_the_ledger(desk: Desk) -> None:
    """Only its digest goes through XCom."""
    context = desk.context(params={"dry_run": False})
    scan().execute(context)
    ClassifyOperator(task_id="classify").execute(context)
    digest = PlanOperator(task_id="plan").execute(context)
    plan = plans.from_json(desk.ledger.document(RUN, "plan"))
    assert digest == plans.digest(plan) == desk.ledger.documents(RUN)["plan"]
    assert len(plan.hosts) == len(HOSTS)
    assert {"plan.md", "compliance.before"} <= desk.ledger.documents(RUN).keys()
    text = desk.ledger.document(RUN, "plan.md")
    assert "## When, as far as is known now" in text
    assert "- dev: begins at " in text
    assert "## Why, by the rows of the policy" in text


def test_a_plan_is_made_once(desk: Desk) -> None:
    """A second one could not be what was approved, whatever the fleet looks like by then."""
    context = desk.context()
    scan().execute(context)
    ClassifyOperator(task_id="classify").execute(context)
    first = PlanOperator(task_id="plan").execute(context)
    desk.gateway.fleet.side_effect = lambda cell, tags: []
    assert PlanOperator(task_id="plan").execute(context) == first


def test_stages_that_were_not_chosen_are_skipped_in_the_ledger(desk: Desk) -> None:
    """Their tasks read it there."""
    context = desk.context(params={"stages": ["staging"], "dry_run": False})
    scan().execute(context)
    ClassifyOperator(task_id="classify").execute(context)
    PlanOperator(task_id="plan").execute(context)
    assert [row.state for row in desk.ledger.stages(RUN)] == [StageState.SKIPPED, StageState.WAITING, StageState.SKIPPED]
    desk.decide("staging")
    with pytest.raises(TaskDeferred):
        patch("staging").execute(context)


def test_a_campaign_by_lockfile_without_a_bucket_gets_no_plan(desk: Desk) -> None:
    """It would end in the middle of staging, with dev patched; the message says what to write where."""
    context = desk.context(params={"dry_run": False})
    scan(campaign_json=json.dumps(json.loads(CAMPAIGN_JSON) | {"promotion": {"by": "lockfile"}})).execute(context)
    ClassifyOperator(task_id="classify").execute(context)
    with pytest.raises(AirflowFailException) as refused:
        PlanOperator(task_id="plan").execute(context)
    assert "connection aws_default names no bucket in which hosts in eu-central-1 could read that" in str(refused.value)
    assert '"patchwave_lists_bucket"' in str(refused.value)
    assert "promotion: {by: baseline}" in str(refused.value)
    assert "plan" not in desk.ledger.documents(RUN)
    desk.buckets = {"eu-central-1": "acme-lists"}
    PlanOperator(task_id="plan").execute(context)
    assert "plan" in desk.ledger.documents(RUN)


def test_the_first_stage_alone_needs_no_bucket(desk: Desk) -> None:
    """It is what the lockfile is made of."""
    context = desk.context(params={"dry_run": False, "stages": ["dev"]})
    scan(campaign_json=json.dumps(json.loads(CAMPAIGN_JSON) | {"promotion": {"by": "lockfile"}})).execute(context)
    ClassifyOperator(task_id="classify").execute(context)
    PlanOperator(task_id="plan").execute(context)
    assert "plan" in desk.ledger.documents(RUN)


# --- approve ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Requests that Airflow was asked to show."""
    made: list[dict[str, Any]] = []
    upsert = create_autospec(hitl.upsert_hitl_detail, side_effect=lambda **request: made.append(request))
    monkeypatch.setattr(hitl, "upsert_hitl_detail", upsert)
    return made


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> ApproveStageOperator:
    monkeypatch.setattr(ApproveStageOperator, "_set_state_to_skipped", lambda self, tasks, map_index: None)
    with DAG("weekly-linux"):
        gate = ApproveStageOperator(
            task_id="approve", stage="staging", approvers=("olga", "ana"), timeout=timedelta(hours=24),
            campaign_json=CAMPAIGN_JSON,
        )  # fmt: skip
        gate >> patch("staging")
    return gate


def an_answer(who: str | None = "olga", *chosen: str) -> dict[str, Any]:
    user = None if who is None else {"id": who, "name": who}
    return {"chosen_options": list(chosen or ("Approve",)), "responded_by_user": user, "responded_at": datetime.now(UTC)}


def ready_for_staging(desk: Desk) -> None:
    desk.planned()
    desk.set_stage("dev", StageState.PATCHED)


def test_a_gate_shows_the_plan_and_waits_with_its_reason_in_the_ledger(
    desk: Desk, gate: ApproveStageOperator, asked: list[dict[str, Any]]
) -> None:
    """The person sees what is asked; whoever looks at the run sees who is waited for."""
    ready_for_staging(desk)
    with pytest.raises(TaskAwaitingInput):
        gate.execute(desk.context(task=gate))
    (request,) = asked
    assert "stage `staging`" in request["body"]
    assert plans.digest(plans.from_json(desk.ledger.document(RUN, "plan"))) in request["body"]
    assert request["defaults"] is None  # Airflow would answer with it whenever the gate is woken up to look around
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    assert "olga or ana" in wait.reason
    assert wait.until is None


def test_an_answer_is_written_down_before_anything_else_happens(
    desk: Desk, gate: ApproveStageOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the process dies in the next line, nobody is asked again."""
    ready_for_staging(desk)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(desk.ledger, "end_wait", die)
    with pytest.raises(KeyboardInterrupt):
        gate.execute_complete(desk.context(task=gate), an_answer("olga"))
    (decision,) = desk.ledger.decisions(RUN)
    assert (decision.verdict, decision.author, decision.stage) == (Verdict.APPROVED, "olga", "staging")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_decision_that_is_known_is_not_asked_for_again(
    desk: Desk, gate: ApproveStageOperator, asked: list[dict[str, Any]], verdict: Verdict
) -> None:
    """Whatever Airflow does to the gate's task."""
    ready_for_staging(desk)
    desk.decide("staging", verdict)
    assert gate.execute(desk.context(task=gate))["verdict"] == verdict.value
    assert asked == []


def test_a_decision_on_another_plan_is_no_decision(desk: Desk, gate: ApproveStageOperator, asked: list[dict[str, Any]]) -> None:
    """An approval never covers something that changed afterwards."""
    ready_for_staging(desk)
    desk.decide("staging", plan="0" * 64)
    with pytest.raises(TaskAwaitingInput):
        gate.execute(desk.context(task=gate))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (an_answer("olga", "Approve"), Verdict.APPROVED),
        (an_answer("olga", "Reject"), Verdict.REJECTED),
        (an_answer("olga", "Approve", "Reject"), Verdict.REJECTED),
    ],
    ids=["yes", "no", "both"],
)
def test_what_an_answer_means(desk: Desk, gate: ApproveStageOperator, answer: dict[str, Any], verdict: Verdict) -> None:
    """Whatever is not a plain yes means no."""
    ready_for_staging(desk)
    gate.execute_complete(desk.context(task=gate), answer)
    assert [one.verdict for one in desk.ledger.decisions(RUN)] == [verdict]
    state = desk.ledger.stage(RUN, StageName("staging")).state
    assert state is (StageState.WAITING if verdict is Verdict.APPROVED else StageState.SKIPPED)
    assert ("skipmixin_key" in desk.ti.pushed) is (verdict is not Verdict.APPROVED)


def test_the_answer_of_somebody_who_may_not_decides_nothing(
    desk: Desk, gate: ApproveStageOperator, asked: list[dict[str, Any]]
) -> None:
    """Airflow lets users answer whom the campaign file does not name."""
    ready_for_staging(desk)
    with pytest.raises(TaskAwaitingInput):
        gate.execute_complete(desk.context(task=gate), an_answer("mallory"))
    assert desk.ledger.decisions(RUN) == []
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    assert "mallory may not answer for stage staging; olga, ana may" in wait.reason


def test_the_gate_says_that_a_newer_campaign_file_exists(desk: Desk, gate: ApproveStageOperator, asked: list[Any]) -> None:
    """The run uses the version from when it began, and the person who approves knows."""
    ready_for_staging(desk)
    gate.campaign_json = json.dumps(json.loads(CAMPAIGN_JSON) | {"description": "edited"})
    with pytest.raises(TaskAwaitingInput):
        gate.execute(desk.context(task=gate))
    assert "has changed since this run began" in asked[0]["body"]


def test_nobody_is_asked_about_a_stage_whose_turn_has_not_come(desk: Desk, gate: ApproveStageOperator, asked: list[Any]) -> None:
    """Dev is halted: an approval of staging would be worth nothing."""
    desk.planned()
    desk.set_stage("dev", StageState.HALTED, reason="error budget")
    with pytest.raises(AirflowFailException, match="dev before it is halted"):
        gate.execute(desk.context(task=gate))
    assert asked == []


# --- patch ------------------------------------------------------------------------------------------------------------------
def patch(stage: str) -> PatchStageOperator:
    return PatchStageOperator(task_id="patch", stage=stage)


def test_a_stage_is_begun_by_a_scan_and_waits_without_a_worker(desk: Desk) -> None:
    """The intent stands in the ledger before the call, the wait explains itself, and the trigger can be rebuilt from its row."""
    desk.planned()
    intents: list[int] = []
    send = desk.gateway.send.side_effect
    desk.gateway.send.side_effect = lambda *a, **k: intents.append(len(desk.ledger.dispatches(RUN))) or send(*a, **k)
    with pytest.raises(TaskDeferred) as deferred:
        patch("dev").execute(desk.context())
    assert intents == [1]
    trigger = deferred.value.trigger
    assert rebuilt(trigger).serialize() == trigger.serialize()
    assert {cell: {name: one["known"] for name, one in its.items()} for cell, its in trigger.commands.items()} == {
        "111111111111/eu-central-1": {"c-1": 0}
    }
    assert deferred.value.method_name == "execute_complete"
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    assert wait.subject == "dev"
    assert "2 being scanned" in wait.reason
    assert wait.until is not None


def test_being_executed_again_sends_nothing_again(desk: Desk) -> None:
    """Retry, clear, or Airflow's own doing: the ledger knows what is in flight."""
    desk.planned()
    for holder in ("try-1", "try-1", "try-2"):
        desk.ti.id = holder
        with pytest.raises(TaskDeferred):
            patch("dev").execute(desk.context())
    with pytest.raises(TaskDeferred):
        patch("dev").execute_complete(desk.context(), {"because": "moment"})
    assert desk.gateway.send.call_count == 1


@pytest.mark.parametrize("decision", [
    None, {"author": "mallory"}, {"plan": "0" * 64}, {"author": "-"}
], ids=["none", "somebody who may not", "another plan", "nobody"])  # fmt: skip
def test_patch_without_a_valid_decision_fails_and_sends_nothing(desk: Desk, decision: dict[str, str] | None) -> None:
    """The gate's task may be green by hand: what opens the stage is the record."""
    ready_for_staging(desk)
    if decision is not None:
        desk.decide("staging", **decision)
    with pytest.raises(AirflowFailException, match="nothing is patched"):
        patch("staging").execute(desk.context())
    assert not desk.gateway.send.called
    assert "gate.closed" in desk.journal
    assert desk.ledger.stage(RUN, StageName("staging")).state is StageState.WAITING


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.EXPIRED])
def test_a_rejected_stage_is_skipped_not_failed(desk: Desk, verdict: Verdict) -> None:
    """A "no" is an answer."""
    ready_for_staging(desk)
    desk.decide("staging", verdict, author="olga")
    with pytest.raises(AirflowSkipException, match=verdict.value):
        patch("staging").execute(desk.context())
    assert not desk.gateway.send.called


@pytest.mark.parametrize("state", [StageState.WAITING, StageState.PATCHING, StageState.HALTED])
def test_a_stage_before_which_another_has_not_ended_well_stays_shut(desk: Desk, state: StageState) -> None:
    """Approved or not: its tasks may all be green by hand."""
    desk.planned()
    if state is not StageState.WAITING:
        desk.set_stage("dev", state)
    desk.decide("staging")
    for operator in (patch("staging"), HealthOperator(task_id="health", stage="staging")):
        with pytest.raises(AirflowFailException, match=f"stage dev before it is {state.value}"):
            operator.execute(desk.context())
    assert not desk.gateway.send.called


def test_behind_a_rejected_stage_everything_is_skipped(desk: Desk) -> None:
    """Prod was approved beforehand: it is skipped all the same."""
    ready_for_staging(desk)
    desk.ledger.skip_stage(RUN, StageName("staging"), reason="rejected by olga", at=datetime.now(UTC))
    desk.decide("prod")
    with pytest.raises(AirflowSkipException, match="staging before it was skipped"):
        patch("prod").execute(desk.context())


@pytest.mark.parametrize("operator", [
    patch("dev"), HealthOperator(task_id="health", stage="dev"), SoakOperator(task_id="soak", stage="dev"),
    VerifyComplianceOperator(task_id="verify", document="compliance.after"), RemediateOperator(task_id="remediate"),
], ids=lambda one: one.task_id)  # fmt: skip
def test_a_dry_run_touches_nothing(dry_desk: Desk, operator: Any) -> None:
    """It ends with its plan."""
    dry_desk.planned()
    with pytest.raises(AirflowSkipException):
        operator.execute(dry_desk.context())
    for call in ("send", "cancel", "start_automation", "ensure_runbook", "evaluate"):
        assert not getattr(dry_desk.gateway, call).called


def test_a_stage_that_settles_is_patched_and_leaves_a_link(desk: Desk) -> None:
    """Stage dev has nobody: done at once."""
    desk.planned(HOSTS[2:])
    assert patch("dev").execute(desk.context()) == {}
    assert desk.ledger.stage(RUN, StageName("dev")).state is StageState.PATCHED


def test_a_stage_that_is_patched_is_not_opened_again(desk: Desk) -> None:
    """A try that Airflow had given up wakes up when its successor is through: the lease and the stage stay as they are."""
    desk.planned()
    desk.set_stage("dev", StageState.PATCHED)
    before = desk.ledger.stage(RUN, StageName("dev"))
    assert patch("dev").execute(desk.context()) == {}
    assert desk.ledger.stage(RUN, StageName("dev")) == before


def test_a_halted_stage_fails_the_task_with_the_rule_and_the_hosts(desk: Desk) -> None:
    """Red, no retry; the stage is halted in the ledger, so the next one stays shut."""
    ready_for_staging(desk)
    lost = [replace(one, ping=Ping.CONNECTION_LOST) for one in HOSTS]
    desk.gateway.hosts.side_effect = lambda cell, ids, **_: [one for one in lost if one.id in ids]
    desk.decide("staging")
    desk.decide("prod")
    assert patch("staging").execute(desk.context()) == {"unreachable": 1}  # one error is within its budget
    with pytest.raises(AirflowFailException, match=rf"error budget: .*{HOSTS[3].id}.*clear this task"):
        patch("prod").execute(desk.context())
    assert desk.ledger.stage(RUN, StageName("prod")).state is StageState.HALTED
    assert not desk.gateway.send.called


def test_transient_errors_are_left_to_airflows_retries_and_permanent_ones_are_not(desk: Desk) -> None:
    """AirflowFailException ends a task; everything else is tried again."""
    desk.planned()
    desk.gateway.hosts.side_effect = AwsUnavailable("down")
    with pytest.raises(AwsUnavailable):
        patch("dev").execute(desk.context())
    desk.gateway.hosts.side_effect = type("Broken", (PatchwaveError,), {})("broken")
    with pytest.raises(PatchwaveError):
        patch("dev").execute(desk.context())
    desk.ledger.available = False
    with pytest.raises(LedgerUnavailable):
        patch("dev").execute(desk.context())
    assert not desk.gateway.send.called


def test_hosts_that_appeared_meanwhile_are_judged_like_all_others(desk: Desk) -> None:
    """Whoever was patched is proven, also if the plan did not know it."""
    plan = desk.planned()
    lease = desk.ledger.acquire(RUN, StageName("dev"), "try-1", at=datetime.now(UTC))
    row = plans.rows(plan, plan.stage("dev"), now=datetime.now(UTC))[0]
    desk.ledger.add_hosts(lease, [replace(row, host=HostId("i-late"))])
    work = Work(desk.context(), aws_conn_id="aws", ledger_conn_id="ledger")
    subjects = VerifyComplianceOperator(task_id="verify", document="compliance.after")._subjects(work)
    assert [subject.stage for subject in subjects if subject.host == "i-late"] == ["dev"]
    assert len({subject.host for subject in subjects}) == len(subjects) == len(HOSTS) + 1


# --- health and soak --------------------------------------------------------------------------------------------------------
def patched_dev(desk: Desk, *, ago: timedelta = timedelta()) -> None:
    """Stage dev is patched; its two hosts were compliant already."""
    plan = desk.planned()
    at = datetime.now(UTC) - ago
    lease = desk.ledger.acquire(RUN, StageName("dev"), "earlier", at=at)
    desk.ledger.add_hosts(lease, plans.rows(plan, plan.stage("dev"), now=at))
    for after in (HostState.SCANNING, HostState.ALREADY_COMPLIANT):
        rows = desk.ledger.hosts(RUN, StageName("dev"))
        desk.ledger.move_hosts(lease, [Move(host=row.host, before=row.state, after=after, reason="x") for row in rows], at=at)
    desk.set_stage("dev", StageState.PATCHED, ago=ago)


def sick(host: Any) -> Health:
    return Health(host=host.id, healthy=False, checks=(("ec2", "initializing"),))


def test_health_waits_for_hosts_that_are_not_well_yet_and_names_them(desk: Desk) -> None:
    """Without a worker, until the campaign's limit."""
    patched_dev(desk)
    desk.gateway.health.return_value = [sick(HOSTS[0])]
    with pytest.raises(TaskDeferred) as deferred:
        HealthOperator(task_id="health", stage="dev").execute(desk.context())
    assert rebuilt(deferred.value.trigger).serialize() == deferred.value.trigger.serialize()
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    assert f"{HOSTS[0].id}: ec2 initializing" in wait.reason


def test_hosts_that_do_not_become_well_halt_the_stage(desk: Desk) -> None:
    """The next stage stays shut."""
    patched_dev(desk, ago=timedelta(hours=1))
    desk.gateway.health.return_value = [sick(HOSTS[0])]
    with pytest.raises(AirflowFailException, match="not healthy"):
        HealthOperator(task_id="health", stage="dev").execute(desk.context())
    assert desk.ledger.stage(RUN, StageName("dev")).state is StageState.HALTED
    assert desk.ledger.waits(RUN, open_only=True) == []


def test_whoever_has_mended_the_hosts_and_clears_the_task_goes_on(desk: Desk) -> None:
    """As the halt advises; a retry by Airflow alone opens nothing, and who is still ill has the whole time again."""
    patched_dev(desk, ago=timedelta(hours=1))
    desk.gateway.health.return_value = [sick(HOSTS[0])]
    task = HealthOperator(task_id="health", stage="dev")
    with pytest.raises(AirflowFailException, match="not healthy"):
        task.execute(desk.context())
    desk.ti.id = "again"
    with pytest.raises(AirflowFailException, match="not patched"):
        task.execute(desk.context())
    desk.ti.max_tries += 1  # Airflow's mark of a clear
    with pytest.raises(TaskDeferred):
        task.execute(desk.context())
    desk.gateway.health.return_value = []
    assert task.execute(desk.context()) == 2
    assert desk.ledger.stage(RUN, StageName("dev")).state is StageState.PATCHED


def test_a_healthy_stage_ends_its_wait(desk: Desk) -> None:
    """And says how many hosts serve."""
    patched_dev(desk)
    assert HealthOperator(task_id="health", stage="dev").execute(desk.context()) == 2


@pytest.mark.parametrize("state", [StageState.WAITING, StageState.PATCHING, StageState.HALTED])
@pytest.mark.parametrize("kind", [HealthOperator, SoakOperator])
def test_health_and_soak_of_a_stage_that_was_not_patched_fail(desk: Desk, kind: Any, state: StageState) -> None:
    """Its patch task was marked by hand."""
    desk.planned()
    if state is not StageState.WAITING:
        desk.set_stage("dev", state)
    with pytest.raises(AirflowFailException, match="not patched"):
        kind(task_id="x", stage="dev").execute(desk.context())


def test_a_soak_counts_from_the_moment_the_stage_was_patched(desk: Desk) -> None:
    """So being run again costs nothing: 30 minutes are over once, not once a try."""
    patched_dev(desk, ago=timedelta(minutes=10))
    with pytest.raises(TaskDeferred) as deferred:
        SoakOperator(task_id="soak", stage="dev").execute(desk.context())
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    ended = desk.ledger.stage(RUN, StageName("dev")).ended_at
    assert ended is not None
    assert wait.until == ended + timedelta(minutes=30)
    assert deferred.value.trigger.until == wait.until.isoformat()


def test_a_soak_that_is_over_lets_the_next_stage_begin(desk: Desk) -> None:
    """At once, and its wait is ended."""
    patched_dev(desk, ago=timedelta(minutes=31))
    SoakOperator(task_id="soak", stage="dev").execute(desk.context())
    assert desk.ledger.waits(RUN, open_only=True) == []


# --- report and outcome ------------------------------------------------------------------------------------------------------
@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    monkeypatch.setenv("PATCHWAVE_RUNS_DIR", str(tmp_path))
    return tmp_path


def report_and_outcome(desk: Desk) -> str:
    """The report is made; then what the outcome says, or how it fails."""
    context = desk.context()
    ReportOperator(task_id="report").execute(context)
    desk.ti.states["report"] = "success"
    return str(OutcomeOperator(task_id="outcome").execute(context))


def test_a_report_is_written_and_the_run_fails_when_a_stage_failed(desk: Desk, runs: Any) -> None:
    """Red although its report was made."""
    desk.planned()
    desk.set_stage("dev", StageState.HALTED, reason="error budget: 3 hosts failed")
    desk.ti.states = {"scan_findings": "success", "dev.patch": "failed"}
    with pytest.raises(AirflowFailException, match=r"dev\.patch"):
        report_and_outcome(desk)
    assert desk.ledger.run(RUN).outcome is RunOutcome.FAILED
    assert {path.name for path in runs.rglob("*") if path.is_file()} == {"report.html", "report.json", "hosts.csv"}


def test_the_lockfile_lies_among_the_files_under_its_digest(desk: Desk, runs: Any) -> None:
    """As it lies in the ledger; one that was changed there is none, and the report is made all the same."""
    desk.planned()
    desk.ti.states = {"scan_findings": "success"}
    origin = lockfile.Origin(run=RUN, stage="dev", at=datetime.now(UTC))
    stored = lockfile.envelope(lockfile.Lockfile(platforms=()), origin)
    desk.ledger.put_document(RUN, lockfile.DOCUMENT, stored, at=datetime.now(UTC))
    ReportOperator(task_id="report").execute(desk.context())
    (written,) = runs.rglob(f"{stored['digest']}.json")
    assert lockfile.read(written) == (lockfile.Lockfile(platforms=()), origin)
    written.unlink()
    desk.ledger.put_document(RUN, lockfile.DOCUMENT, {**stored, "digest": "0" * 64}, at=datetime.now(UTC))
    ReportOperator(task_id="report").execute(desk.context())
    assert {path.name for path in runs.rglob("*") if path.is_file()} == {"report.html", "report.json", "hosts.csv"}
    assert "changed after it was written" in next(runs.rglob("report.html")).read_text()


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_plan_lies_among_the_files_in_three_forms(desk: Desk, runs: Any, dry_run: bool) -> None:
    """For people, as a page, for programs; what a run would call is a dry run's answer and nobody else's."""
    context = desk.context(params={"dry_run": dry_run})
    scan().execute(context)
    ClassifyOperator(task_id="classify").execute(context)
    digest = PlanOperator(task_id="plan").execute(context)
    desk.ti.states = {"scan_findings": "success"}
    ReportOperator(task_id="report").execute(context)
    found = {path.name: path.read_text() for path in runs.rglob("plan.*")}
    assert set(found) == {"plan.md", "plan.html", "plan.json"}
    content = json.loads(found["plan.json"])
    assert (content["digest"], content["plan"]) == (digest, desk.ledger.document(RUN, "plan"))
    assert [("What a run would call" in found[name]) for name in ("plan.md", "plan.html")] == [dry_run, dry_run]
    assert content.get("calls") == (desk.ledger.document(RUN, "calls") if dry_run else None)
    assert not desk.gateway.send.called


def test_a_halted_stage_fails_the_run_also_when_its_task_was_marked_by_hand(desk: Desk, runs: Any) -> None:
    """The ledger says how it went, not the colours of tasks."""
    desk.planned()
    desk.set_stage("dev", StageState.HALTED, reason="error budget")
    desk.ti.states = {"scan_findings": "success", "dev.patch": "success"}
    with pytest.raises(AirflowFailException, match="halted"):
        report_and_outcome(desk)


def test_a_rejected_run_ends_green_with_its_report(desk: Desk, runs: Any) -> None:
    """The decision is the result."""
    ready_for_staging(desk)
    desk.ledger.skip_stage(RUN, StageName("staging"), reason="rejected by olga", at=datetime.now(UTC))
    desk.ti.states = {"scan_findings": "success", "staging.patch": "skipped"}
    assert report_and_outcome(desk) == "rejected"


def test_a_run_whose_stages_are_all_patched_succeeds(desk: Desk, runs: Any) -> None:
    """And only that one."""
    desk.planned()
    for stage in ("dev", "staging"):
        desk.set_stage(stage, StageState.PATCHED)
    desk.ti.states = {"scan_findings": "success"}
    with pytest.raises(AirflowFailException, match="prod was planned and never carried out"):
        report_and_outcome(desk)
    desk.set_stage("prod", StageState.PATCHED)
    assert report_and_outcome(desk) == "succeeded"


def test_a_dry_run_ends_green(dry_desk: Desk, runs: Any) -> None:
    """The plan is its result."""
    dry_desk.planned()
    dry_desk.ti.states = {"scan_findings": "success"}
    assert report_and_outcome(dry_desk) == "dry_run"


def test_a_run_without_a_report_fails(desk: Desk, runs: Any) -> None:
    """Nobody could say how it went."""
    desk.planned()
    desk.ti.states = {"scan_findings": "success", "report": "failed"}
    with pytest.raises(AirflowFailException, match="report could not be made"):
        OutcomeOperator(task_id="outcome").execute(desk.context())


def test_a_run_that_was_not_begun_ends_green(desk: Desk) -> None:
    """It came too late, and said so."""
    desk.ti.states = {"scan_findings": "skipped", "report": "skipped"}
    assert OutcomeOperator(task_id="outcome").execute(desk.context()) == "nothing was begun"
    with pytest.raises(AirflowSkipException):
        ReportOperator(task_id="report").execute(desk.context())


def test_calls_to_aws_are_counted_whatever_became_of_them(desk: Desk) -> None:
    """The report says what a run cost, failed tries included."""
    desk.planned()
    desk.gateway.take_calls.return_value = {"ec2:DescribeInstances": 2}
    desk.gateway.hosts.side_effect = AwsUnavailable("down")
    with pytest.raises(AwsUnavailable):
        patch("dev").execute(desk.context())
    assert desk.ledger.calls(RUN) == {"ec2:DescribeInstances": 2}
