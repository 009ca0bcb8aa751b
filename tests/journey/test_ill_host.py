"""A host of dev falls ill while the gate of staging asks: the wait says so, a yes is void, and it counts when all are well."""

from __future__ import annotations

from typing import Any

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "ill-host", "us-west-1"
ILL = "ill-dev/01"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """The host stops and is started again, as somebody might who restarts what hangs; olga answers meanwhile, uma later."""
    ec2 = run.client("ec2")
    run.begin(dry_run=False)
    run.seen["first"] = run.gate("staging")
    run.seen["ill"] = run.host(ILL)
    ec2.stop_instances(InstanceIds=[run.seen["ill"]])
    run.until(lambda: run.waits_for("1 host of dev is not healthy"), "the wait says who is ill")
    run.seen["wait"] = [one for one in run.ledger.waits(run.id, open_only=True) if one.subject == "approve staging"]
    _, run.seen["second"] = run.say(
        "staging.approve", "Approve", user="olga", then=lambda: run.asks("staging.approve_2"), what="the next task asks"
    )
    run.seen["between"] = (run.decisions, run.journal.touched & run.planned["staging"])
    ec2.start_instances(InstanceIds=[run.seen["ill"]])
    run.until(lambda: _serves(ec2, run.seen["ill"]), "the host serves again")
    run.say("staging.approve_2", "Approve", user="uma", then=lambda: run.decisions, what="her answer is in the ledger")
    run.ended()


def _serves(ec2: Any, host: str) -> bool:
    (status,) = ec2.describe_instance_status(InstanceIds=[host], IncludeAllInstances=True)["InstanceStatuses"]
    return status["InstanceStatus"]["Status"] == status["SystemStatus"]["Status"] == "ok"


def test_the_wait_names_the_host_and_no_end(journey: FollowedRun) -> None:
    """A gate waits for people; what it says changed while it waited."""
    (wait,) = journey.seen["wait"]
    assert f"1 host of dev is not healthy: {journey.seen['ill']}: ec2 stop" in wait.reason
    assert wait.until is None
    kept = [one.data["unhealthy"] for one in journey.ledger.journal(journey.id) if one.kind == "approval.watched"]
    assert kept[0] == [journey.seen["ill"]]


def test_the_yes_meanwhile_opens_nothing(journey: FollowedRun) -> None:
    """It is void, and the ledger says why."""
    assert journey.seen["between"] == ([], frozenset())
    (void,) = [one.data for one in journey.ledger.journal(journey.id) if one.kind == "approval.void"]
    assert void["reason"].startswith("the approval is void: 1 host of dev is not healthy")
    assert void["yes"] == ["olga"]


def test_the_second_question_gives_the_reason(journey: FollowedRun) -> None:
    """In a task of its own; the first said nothing of it."""
    assert "not healthy" not in journey.seen["first"].body
    assert "Asked again: the approval is void: 1 host of dev is not healthy" in journey.seen["second"].body
    assert journey.seen["second"].may == ("olga", "uma")


def test_looking_asked_nobody_twice(journey: FollowedRun) -> None:
    """One request a question, however often its task was woken up."""
    asked = [one.data["question"] for one in journey.ledger.journal(journey.id) if one.kind == "approval.asked"]
    assert asked == [1, 2]


def test_the_second_yes_opens_the_stage(journey: FollowedRun) -> None:
    """All were healthy."""
    assert journey.decisions == [("staging", "approved", "uma")]
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
