"""olga says no to prod: an answer, not a failure."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "rejected-at-prod", "eu-west-1"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """dev is patched, prod is refused."""
    run.begin(dry_run=False)
    run.answer("prod", approve=False)
    run.ended()


def test_nothing_is_done_to_any_prod_host(journey: FollowedRun) -> None:
    """No Install, no Scan, and no remedy either, though the campaign would allow it."""
    assert journey.journal.of("prod").touched == frozenset()


def test_dev_was_patched_before(journey: FollowedRun) -> None:
    """The no concerns prod alone."""
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts("rejected-dev"), 1)


def test_the_run_is_green_and_says_rejected(journey: FollowedRun) -> None:
    """A person's no is no failure of the run."""
    words = (journey.state, journey.ledger.run(journey.id).outcome.value, journey.report["outcome"])
    assert words == ("success", "rejected", "rejected")


def test_what_follows_the_gate_is_skipped(journey: FollowedRun) -> None:
    """And what was patched before is verified all the same."""
    tasks = journey.tasks
    assert {tasks[f"prod.{name}"] for name in ("patch", "health", "soak")} == {"skipped"}
    assert (tasks["verify"], tasks["report"]) == ("success", "success")


def test_the_decision_has_its_author(journey: FollowedRun) -> None:
    """In the ledger, and in the report that is sent around."""
    assert journey.decisions == [("prod", "rejected", "olga")]
    assert "olga" in (journey.folder / "report.html").read_text()
