"""A run that is triggered without any choice makes a plan and touches nothing."""

from __future__ import annotations

import json

import pytest

from patchwave.aws.operations import OPERATIONS, Effect
from patchwave.campaign import calls
from patchwave.campaign import plan as plans
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


def test_of_the_calls_that_change_something_none_was_made(journey: FollowedRun) -> None:
    """By the ledger's count of every call: the run has read, and nothing else."""
    made = journey.ledger.calls(journey.id)
    assert made["inspector2:ListFindings"] >= 1
    assert {one for one in made if OPERATIONS[one].effect is not Effect.NONE} == set()


def test_the_world_lost_nothing_and_got_nothing(journey: FollowedRun) -> None:
    """Hosts run as they ran, with the packages and the boot that they had."""
    assert journey.journal.installs == {}
    assert journey.journal.packages == frozenset()
    assert journey.alive == set(journey.hosts())


def test_what_a_run_would_call_stands_in_the_plan(journey: FollowedRun) -> None:
    """For people in Markdown and on a page that can be sent, for programs in JSON: the same numbers."""
    content = json.loads((journey.folder / "plan.json").read_text())
    plan = plans.from_json(journey.ledger.document(journey.id, "plan"))
    assert (content["digest"], plans.from_json(content["plan"])) == (plans.digest(plan), plan)
    rules = journey.ledger.run(journey.id).definition["verify"]["config_rules"]
    forecast = calls.of(plan, rules=rules)
    assert content["calls"] == calls.to_json(forecast) == journey.ledger.document(journey.id, "calls")
    assert forecast.by_operation()[calls.SEND] >= 8  # each of the two stages: Scan, Install, reboot, Scan
    total = forecast.changing + forecast.reading
    text = (journey.folder / "plan.md").read_text()
    assert f"At least **{total} calls** to AWS" in text
    assert f"**{forecast.changing} that change something**" in text
    written = (journey.folder / "plan.html").read_text()
    assert f"At least <strong>{total} calls</strong>" in written
    assert "<script" not in written


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
