"""A run that is triggered without any choice makes a plan and touches nothing."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "dry-run", "eu-west-3"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """The trigger form as it opens."""
    run.begin()
    run.ended()


def test_no_command_reaches_any_host(journey: FollowedRun) -> None:
    """Not even a Scan."""
    assert journey.journal.commands == ()
    assert journey.journal.touched == frozenset()


def test_the_run_is_green_and_says_dry_run(journey: FollowedRun) -> None:
    """Its plan is its result."""
    assert (journey.state, journey.ledger.run(journey.id).outcome.value) == ("success", "dry_run")


def test_the_plan_names_every_host(journey: FollowedRun) -> None:
    """In the ledger, and as a page that a person can read."""
    assert set().union(*journey.planned.values()) == set(journey.hosts())
    page = (journey.folder / "plan.md").read_text()
    assert "prod" in page
    assert page == journey.ledger.document(journey.id, "plan.md")


def test_no_stage_begins(journey: FollowedRun) -> None:
    """Patch, health and soak are skipped, and so is what would look for changes."""
    states = {state for task, state in journey.tasks.items() if task.startswith(("dev.", "prod.")) or task == "remediate"}
    assert states == {"skipped"}
