"""A finding cannot wait: the watcher asks, olga says yes, the canary is patched, uma lets the others be, and it is over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "urgent", "ap-south-2"
WATCHER = "urgent_watch"
CVES = ["CVE-2024-45490", "CVE-2024-45491", "CVE-2024-45492"]
CANARY, OTHERS = "urgent-dev/01", ("urgent-prod/01", "urgent-prod/03")

pytestmark = pytest.mark.journey


def runs(run: FollowedRun, dag: str) -> Mapping[str, Mapping[str, Any]]:
    """Airflow's runs of a DAG, by id."""
    return {str(one["dag_run_id"]): one for one in run.user("ana").get(f"/dags/{dag}/dagRuns")["dag_runs"]}


def drive(run: FollowedRun) -> None:
    """ana unpauses both DAGs and starts nothing."""
    for dag in (CAMPAIGN, WATCHER):
        run.stage.dag_ready(dag)
        run.user("ana").pause(dag, paused=False)
    (hourly, *_) = run.until(lambda: list(runs(run, WATCHER)), "the watcher looks")
    watcher = FollowedRun(stage=run.stage, dag=WATCHER, region=REGION, run=hourly)
    run.seen["question"] = watcher.question("ask")
    run.seen["untouched"] = (run.journal.touched, runs(run, CAMPAIGN))
    _, begun = watcher.say(
        "ask", "Approve", user="olga", then=lambda: list(runs(run, CAMPAIGN)), what="the emergency is triggered"
    )
    (run.run,) = begun
    run.look_anew()
    run.seen["gate"] = run.gate("everybody")
    run.seen["canary"] = run.journal.touched
    run.seen["page"] = run.page()
    run.seen["olga"] = run.refused("everybody", "Approve", user="olga")
    run.say("everybody.approve", "Approve", user="uma", then=lambda: run.decisions, what="her answer is in the ledger")
    run.ended()
    again = FollowedRun(stage=run.stage, dag=WATCHER, region=REGION, run="again")
    run.user("ana").trigger(WATCHER, "again", {})
    again.ended()
    run.seen["again"] = (again.state, again.tasks)


def test_the_watcher_asks_the_people_on_call_and_nothing_is_done_before_they_answer(journey: FollowedRun) -> None:
    """With what is urgent, and where."""
    question = journey.seen["question"]
    assert question.may == ("olga", "uma")
    assert question.subject.startswith("Start urgent for 3 CVE ids?")
    for cve in CVES:
        assert cve in question.body
    assert "canary 1, everybody 2" in question.body
    assert journey.seen["untouched"] == (frozenset(), {})


def test_the_run_patches_in_the_name_of_who_said_yes(journey: FollowedRun) -> None:
    """No dry run, about these CVE ids, under the watcher's name for it."""
    run = journey.ledger.run(journey.id)
    assert run.params["dry_run"] is False
    assert run.params["vulnerabilities"] == CVES
    assert run.requested_by == "olga"
    assert run.dag_run_id.startswith("watch__")


def test_the_canary_is_patched_before_anybody_is_asked_about_the_others(journey: FollowedRun) -> None:
    """By the simulator's journal."""
    assert journey.seen["canary"] == {journey.host(CANARY)}


def test_only_hosts_with_these_findings_are_patched_each_once(journey: FollowedRun) -> None:
    """The others of the same stages are left alone."""
    assert dict(journey.journal.installs) == {journey.host(name): 1 for name in (CANARY, *OTHERS)}
    assert {package.partition(":")[0] for package in journey.journal.packages} == {"expat"}
    assert len(journey.hosts()) == 5


def test_stages_soak_as_the_policy_says_and_the_plan_says_so(journey: FollowedRun) -> None:
    """A quarter of an hour instead of an hour; the ten minutes of the other stage stay."""
    plan = journey.ledger.document(journey.id, "plan")
    assert [stage["soak"] for stage in plan["stages"]] == ["PT15M", "PT10M"]
    rows = journey.ledger.stages(journey.id)
    (asked,) = [one for one in journey.ledger.journal(journey.id) if one.kind == "approval.asked"]
    assert rows[0].ended_at is not None
    assert asked.at - rows[0].ended_at >= timedelta(minutes=15)  # an hour would pass in seconds on a busy machine
    assert "Soak: 15m instead of 1h" in journey.seen["gate"].body


def test_the_clock_is_shown_where_people_look(journey: FollowedRun) -> None:
    """At the gate, on the run's page, in the report."""
    assert f"**Deadline clock:** {CVES[0]}: " in journey.seen["gate"].body
    assert "Deadline clock" in journey.seen["page"]
    assert [told.partition(":")[0] for told in journey.report["clocks"]] == sorted(CVES, key=journey.seen["gate"].body.index)


def test_who_let_it_begin_may_not_approve_it(journey: FollowedRun) -> None:
    """uma does."""
    assert journey.seen["gate"].may == ("uma",)
    assert journey.seen["olga"] == 403
    assert journey.decisions == [("everybody", "approved", "uma")]


def test_the_run_ends_well(journey: FollowedRun) -> None:
    """Each host of the plan is patched."""
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
    assert set(journey.classes.values()) == {"patched"}


def test_the_watcher_starts_no_second_run_about_it(journey: FollowedRun) -> None:
    """Inspector may still show the findings: a run has been about them."""
    state, tasks = journey.seen["again"]
    assert (state, tasks) == ("success", {"look": "skipped", "ask": "skipped", "start": "skipped"})
    assert len(runs(journey, CAMPAIGN)) == 1
