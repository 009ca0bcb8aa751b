"""A host goes while the gate asks: the yes is void, and it is asked again with the difference."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "void", "ap-northeast-2"
GONE = "void-prod/02"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """olga says yes to three hosts of which one is gone by then, and uma to the two that are left."""
    run.begin(dry_run=False)
    run.seen["first"] = run.gate("prod")
    run.seen["gone"] = run.terminate(GONE)
    _, run.seen["second"] = run.say(
        "prod.approve", "Approve", user="olga", then=lambda: run.asks("prod.approve_2"), what="the next task asks"
    )
    run.seen["between"] = (run.decisions, run.journal.touched)
    run.say("prod.approve_2", "Approve", user="uma", then=lambda: run.decisions, what="her answer is in the ledger")
    run.ended()


def test_the_first_yes_opens_nothing(journey: FollowedRun) -> None:
    """It was to other hosts."""
    assert journey.seen["between"] == ([], frozenset())


def test_the_ledger_says_why_it_is_void(journey: FollowedRun) -> None:
    """With the host."""
    (void,) = [one.data for one in journey.ledger.journal(journey.id) if one.kind == "approval.void"]
    assert (void["added"], void["removed"]) == ([], [journey.seen["gone"]])


def test_the_second_question_shows_the_difference(journey: FollowedRun) -> None:
    """In a task of its own, for Airflow never changes the text of one; olga may answer again, for it is another question."""
    first, second = journey.seen["first"], journey.seen["second"]
    assert "3 hosts" in first.subject
    assert "2 hosts" in second.subject
    assert f"- {journey.seen['gone']}" in second.body
    assert f"- {journey.seen['gone']}" not in first.body
    assert second.may == ("olga", "uma")


def test_the_hosts_that_are_left_are_patched_once(journey: FollowedRun) -> None:
    """Under the plan that uma has seen."""
    assert journey.decisions == [("prod", "approved", "uma")]
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts().keys() - {journey.seen["gone"]}, 1)


def test_the_run_ends_well_and_questions_that_nobody_needed_are_green(journey: FollowedRun) -> None:
    """The third was not asked."""
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
    assert {journey.tasks[f"prod.{name}"] for name in ("approve", "approve_2", "approve_3")} == {"success"}
