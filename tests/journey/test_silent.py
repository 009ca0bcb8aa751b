"""Nobody answers in time, which means no: olga says yes too late, and whatever Airflow makes of that, nothing comes of it."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "silent", "ap-east-2"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """The time for an answer is real time, also here: a minute."""
    run.begin(dry_run=False)
    run.gate("prod")
    run.until(lambda: run.decisions, "the gate has been waited at for long enough")
    run.seen["late"] = run.refused("prod", "Approve", user="olga")
    run.ended()


def test_silence_is_a_no_with_nobody_s_name(journey: FollowedRun) -> None:
    """And a green run that says so, as after a no that somebody gave; her late yes changes nothing of it."""
    assert journey.seen["late"]
    assert journey.decisions == [("prod", "expired", "-")]
    assert (journey.state, journey.report["outcome"]) == ("success", "rejected")
    assert "nobody answered in time" in journey.report["headline"]


def test_nothing_is_done_to_any_prod_host(journey: FollowedRun) -> None:
    """dev was patched before."""
    assert journey.journal.of("prod").touched == frozenset()
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts("silent-dev"), 1)


def test_what_follows_the_gate_is_skipped(journey: FollowedRun) -> None:
    """As after a no."""
    assert {journey.tasks[f"prod.{name}"] for name in ("patch", "health", "soak")} == {"skipped"}
