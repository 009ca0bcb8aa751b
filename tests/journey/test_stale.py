"""A host goes between the yes and the opening of the window: nothing is sent, and clearing the gate asks about what is left."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "stale", "me-central-1"
GONE = "stale-prod/02"
EVERY, CLOSES = 12 * 3600, 6 * 3600
"""Seconds of awsim's clock between two openings, and how long each lasts."""
EARLY = CLOSES + 3600
"""After which the shut hours would be too short for all that happens in them: an hour is 12 seconds here."""

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """olga says yes while the window is shut, the host goes, the stage's task looks again; uma answers the cleared gate."""
    clock = run.stage.stack.awsim
    run.begin(dry_run=False)
    run.gate("prod")
    run.until(lambda: CLOSES <= clock.get("/clock")["epoch"] % EVERY < EARLY, "the window has shut lately")
    run.say("prod.approve", "Approve", user="olga", then=lambda: run.decisions, what="her answer is in the ledger")
    run.until(lambda: run.waits_for("window opens at"), "the stage waits for its window")
    run.seen["gone"] = run.terminate(GONE)
    run.seen["state"] = run.ended()
    run.seen["between"] = (run.decisions, run.journal.touched, run.tasks["prod.patch"])
    run.clear("prod.approve_2", downstream=True)
    run.seen["second"] = run.until(lambda: run.state != "failed" and run.asks("prod.approve_2"), "the cleared gate asks")
    run.say("prod.approve_2", "Approve", user="uma", then=lambda: len(run.decisions) > 1, what="her answer is in the ledger")
    run.until(lambda: run.state in ("success", "failed"), "the run ends")


def test_nothing_is_sent_under_a_yes_that_does_not_cover_what_is_there(journey: FollowedRun) -> None:
    """The stage's task is red, and no host was touched."""
    assert journey.seen["state"] == "failed"
    assert journey.seen["between"] == ([("prod", "approved", "olga")], frozenset(), "failed")


def test_the_ledger_says_whose_yes_is_void_and_why(journey: FollowedRun) -> None:
    """With the host."""
    (void,) = [one.data for one in journey.ledger.journal(journey.id) if one.kind == "approval.void"]
    assert (void["yes"], void["removed"]) == (["olga"], [journey.seen["gone"]])


def test_the_cleared_gate_asks_about_what_is_left(journey: FollowedRun) -> None:
    """Whoever is asked sees the difference, and whose yes is void."""
    body = journey.seen["second"].body
    assert "Asked again: the approval is void: since the plan was made 0 hosts came and 1 went" in body
    assert "olga had said yes to the plan before." in body
    assert f"- {journey.seen['gone']}" in body


def test_the_second_yes_is_carried_out(journey: FollowedRun) -> None:
    """On the hosts that are left, once."""
    assert journey.decisions == [("prod", "approved", "olga"), ("prod", "approved", "uma")]
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts().keys() - {journey.seen["gone"]}, 1)
    assert journey.state == "success"
