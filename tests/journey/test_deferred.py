"""olga lets an opening pass: neither a yes nor a no, and it is asked again after it."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "deferred", "ap-southeast-1"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """uma says yes to the second question."""
    run.begin(dry_run=False)
    run.seen["first"] = run.gate("prod")
    run.say("prod.approve", "Defer", user="olga", reason="quarter end")
    run.until(lambda: run.waits_for("olga deferred stage prod"), "the next task waits for the end of the opening")
    run.seen["waiting"] = (run.decisions, run.tasks["prod.approve_2"])
    run.seen["second"] = run.question("prod.approve_2")
    run.seen["between"] = (run.decisions, run.journal.touched)
    run.say("prod.approve_2", "Approve", user="uma")
    run.ended()


def test_the_gate_offers_it(journey: FollowedRun) -> None:
    """Where the stage has a window."""
    assert journey.seen["first"].options == ("Approve", "Reject", "Defer")


def test_nothing_is_decided_meanwhile_and_no_worker_is_held(journey: FollowedRun) -> None:
    """The task is deferred in Airflow's sense, too."""
    assert journey.seen["waiting"] == ([], "deferred")
    assert journey.seen["between"] == ([], frozenset())


def test_it_is_asked_again_when_the_opening_is_over(journey: FollowedRun) -> None:
    """With who put it off, and why; not before."""
    assert "quarter end" in journey.seen["second"].body
    records = journey.ledger.journal(journey.id)
    until = next(datetime.fromisoformat(one.data["until"]) for one in records if one.kind == "approval.deferred")
    asked = [one.at for one in records if one.kind == "approval.asked"]
    assert len(asked) == 2
    assert asked[0] < until <= asked[1]


def test_the_yes_to_the_second_question_is_carried_out(journey: FollowedRun) -> None:
    """In a later opening, as the rule checker says of every journey."""
    assert journey.decisions == [("prod", "approved", "uma")]
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)
    assert journey.state == "success"
