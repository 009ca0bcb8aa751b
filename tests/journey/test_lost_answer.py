"""Airflow runs a gate again before it has heard the answer: nobody answers twice."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "lost-answer", "eu-south-2"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """olga answers while nothing is scheduled, and the task is cleared before it could resume: the next try begins anew."""
    run.begin(dry_run=False)
    gate = run.gate("prod")
    ana = run.user("ana")
    ana.pause(run.dag, paused=True)
    run.user("olga").answer(run.dag, run.run, gate.task, "Approve", inputs={"reason": "tested on dev"})
    run.clear("prod.approve", downstream=False)
    run.seen["before"] = (gate.attempt, ana.task(run.dag, run.run, "prod.approve")["id"], run.decisions)
    ana.pause(run.dag, paused=False)
    run.until(lambda: run.decisions, "the answer is in the ledger")
    run.ended()


def test_the_task_that_was_answered_never_heard_of_it(journey: FollowedRun) -> None:
    """Otherwise this journey would prove nothing."""
    answered, next_try, decisions = journey.seen["before"]
    assert answered != next_try
    assert decisions == []


def test_the_next_try_takes_the_answer_that_airflow_kept(journey: FollowedRun) -> None:
    """With who gave it, and their words."""
    (decision,) = journey.ledger.decisions(journey.id)
    assert (decision.verdict.value, decision.author, decision.comment) == ("approved", "olga", "olga: tested on dev")


def test_one_request_was_written_and_the_stage_is_patched(journey: FollowedRun) -> None:
    """Nobody answered a second time."""
    kinds = [one.kind for one in journey.ledger.journal(journey.id)]
    assert (kinds.count("approval.asked"), kinds.count("vote.cast")) == (1, 1)
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)
    assert journey.state == "success"
