"""A user who may not approve marks the gate's task as success: the door stays shut."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "marked-by-hand", "eu-north-1"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """uma may trigger, clear and mark in Airflow, and is no approver."""
    run.begin(dry_run=False)
    run.gate("staging")
    run.user("uma").set_task_state(run.dag, run.run, "staging.approve", "success")
    run.ended()


def test_airflow_itself_let_uma_do_it(journey: FollowedRun) -> None:
    """Otherwise this journey would prove nothing."""
    assert journey.tasks["staging.approve"] == "success"


def test_nothing_is_done_to_any_host(journey: FollowedRun) -> None:
    """Not by the stage, nor by a remedy that the campaign allows."""
    assert journey.journal.touched == frozenset()


def test_the_run_is_red_and_its_report_is_made(journey: FollowedRun) -> None:
    """Planned hosts were not patched: that is no success."""
    assert (journey.state, journey.tasks["staging.patch"], journey.tasks["report"]) == ("failed", "failed", "success")
    assert journey.report["outcome"] == "failed"


def test_the_ledger_says_why(journey: FollowedRun) -> None:
    """No decision stands in it, and the refusal is a record of the evidence."""
    assert journey.decisions == []
    (closed,) = [one for one in journey.ledger.journal(journey.id) if one.kind == "gate.closed"]
    assert closed.data["stage"] == "staging"
    assert "no decision" in closed.data["reason"]
