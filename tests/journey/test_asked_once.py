"""Whoever has said yes is not asked again, and no host is patched again, whatever is cleared in Airflow."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "asked-once", "us-west-2"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """The gate is cleared twice: alone, and with all that follows while hosts are being patched. Nobody answers again."""
    run.begin(dry_run=False)
    run.answer("staging", approve=True)
    first = run.user("ana").task(run.dag, run.run, "staging.approve")["id"]
    run.clear("staging.approve", downstream=False)
    second = run.until(lambda: _another(run, first), "the cleared gate is through again")
    run.until(lambda: run.journal.installs, "an Install has begun")
    run.clear("staging.approve", downstream=True)
    run.seen["away"] = run.journal.most_away
    run.seen["ended"] = [one for one in run.journal.records if one.event == "command_ended" and one.operation == "Install"]
    third = run.until(lambda: _another(run, second), "the gate, cleared again, is through again")
    run.seen["tries"] = {first, second, third}
    run.ended()


def _another(run: FollowedRun, before: str) -> str:
    task = run.user("ana").task(run.dag, run.run, "staging.approve")
    return str(task["id"]) if task["id"] != before and task["state"] == "success" else ""


def test_the_gates_task_really_ran_three_times(journey: FollowedRun) -> None:
    """Otherwise this journey would prove nothing."""
    assert len(journey.seen["tries"]) == 3


def test_the_stage_was_cleared_in_the_middle_of_its_work(journey: FollowedRun) -> None:
    """Hosts were away, and none was done."""
    assert journey.seen["away"] == 3
    assert journey.seen["ended"] == []


def test_no_host_got_a_second_install(journey: FollowedRun) -> None:
    """Whoever resumes adopts the command that is under way."""
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)


def test_the_run_ends_well_without_a_second_question(journey: FollowedRun) -> None:
    """It could not have ended if the gate had asked: nobody answered."""
    assert journey.state == "success"
    assert set(journey.classes.values()) == {"patched"}


def test_one_decision_stands_in_the_ledger(journey: FollowedRun) -> None:
    """The one that was given."""
    assert journey.decisions == [("staging", "approved", "olga")]
