"""olga lets an opening pass: neither a yes nor a no, and it is asked again after it."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "deferred", "ap-southeast-1"

pytestmark = pytest.mark.journey


EVERY, LATELY = 8 * 3600, 4 * 3600
"""Seconds of awsim's clock between two openings, and how long ago one has begun at the most that is put off: it lasts seven
hours, and three of them are half a minute here."""


def drive(run: FollowedRun) -> None:
    """olga answers early in an opening, or its end would come before anybody saw it waited for; so does uma, later on."""
    run.begin(dry_run=False)
    run.gate("prod")
    clock = run.stage.stack.awsim
    run.until(lambda: clock.get("/clock")["epoch"] % EVERY < LATELY, "an opening has begun lately")
    run.seen["first"], _ = run.say(
        "prod.approve", "Defer", user="olga", reason="quarter end",
        then=lambda: any(one.kind == "approval.deferred" for one in run.ledger.journal(run.id)), what="it is put off",
    )  # fmt: skip
    run.until(
        lambda: run.waits_for("olga deferred stage prod") and run.tasks["prod.approve_2"] == "deferred",
        "the next task waits for the end of the opening",
    )
    run.seen["waiting"] = (run.decisions, run.tasks["prod.approve_2"])
    run.seen["second"] = run.question("prod.approve_2")
    run.seen["between"] = (run.decisions, run.journal.touched)
    run.until(lambda: clock.get("/clock")["epoch"] % EVERY < LATELY, "an opening has begun lately, again")
    run.say("prod.approve_2", "Approve", user="uma", then=lambda: run.decisions, what="her answer is in the ledger")
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
    *first, second = asked
    assert max(first) < until <= second


def test_the_yes_to_the_second_question_is_carried_out(journey: FollowedRun) -> None:
    """In a later opening, as the rule checker says of every journey."""
    assert journey.decisions == [("prod", "approved", "uma")]
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)
    assert journey.state == "success"
