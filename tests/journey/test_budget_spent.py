"""More hosts of staging break than may: prod never starts."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "budget-spent", "eu-west-2"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """Nobody is asked in this campaign."""
    run.begin(dry_run=False)
    run.ended()


def test_nothing_is_done_to_any_prod_host(journey: FollowedRun) -> None:
    """Not even a Scan."""
    assert journey.journal.of("prod").touched == frozenset()


def test_staging_stops_as_soon_as_the_budget_is_spent(journey: FollowedRun) -> None:
    """Two of four are begun at once, both fail, one may: the other two are not begun."""
    assert sorted(journey.journal.installs.values()) == [1, 1]


def test_nothing_is_remedied_behind_a_halt(journey: FollowedRun) -> None:
    """A person looks first, though the campaign would allow it."""
    assert journey.journal.by_remediation().commands == ()


def test_the_run_is_red_and_its_report_is_made(journey: FollowedRun) -> None:
    """A green run here would be a false outcome."""
    words = (journey.state, journey.ledger.run(journey.id).outcome.value, journey.report["outcome"])
    assert words == ("failed", "failed", "failed")
    assert (journey.tasks["report"], journey.tasks["staging.patch"]) == ("success", "failed")


def test_the_report_names_the_stage_and_the_failures(journey: FollowedRun) -> None:
    """As many as the world has seen fail."""
    failed = {row["host"] for row in journey.rows if row["class"] == "failed"}
    assert failed == {host for host in journey.hosts() if any(journey.journal.exit_codes(host))}
    assert [row.state.value for row in journey.ledger.stages(journey.id)] == ["halted", "waiting"]
