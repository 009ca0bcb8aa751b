"""Only who is asked may answer, and only once."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "wrong-person", "ca-central-1"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """Everybody else says yes, olga says no, then everybody says yes once more."""
    run.begin(dry_run=False)
    run.gate("prod")
    run.seen["others"] = {name: run.refused("prod", "Approve", user=name) for name in ("ana", "uma", "vic")}
    run.seen["decisions then"] = run.decisions
    run.seen["still asks"] = [one.task for one in run.gates.waiting()]
    run.answer("prod", approve=False)
    run.seen["again"] = {name: run.refused("prod", "Approve", user=name) for name in ("olga", "uma")}
    run.ended()


def test_whoever_is_not_asked_is_refused(journey: FollowedRun) -> None:
    """The admin, another user, and the viewer."""
    assert journey.seen["others"] == {"ana": 403, "uma": 403, "vic": 403}


def test_a_refused_answer_changes_nothing(journey: FollowedRun) -> None:
    """The gate goes on asking, and the ledger has no decision."""
    assert journey.seen["decisions then"] == []
    assert journey.seen["still asks"] == ["prod.approve"]


def test_a_second_answer_is_refused(journey: FollowedRun) -> None:
    """409 is Airflow's word for answered."""
    assert journey.seen["again"] == {"olga": 409, "uma": 409}


def test_the_first_answer_stands(journey: FollowedRun) -> None:
    """A yes after the no opens nothing."""
    assert journey.decisions == [("prod", "rejected", "olga")]
    assert journey.journal.touched == frozenset()
    assert journey.state == "success"
