"""A campaign whose moment passed while it was paused starts nothing when it is unpaused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "missed-moment", "eu-west-3"

FILE = """\
name: missed-moment
description: Weekly, and this week's moment has just been missed
owner: tests
schedule: {{cron: "{moment:%M} {moment:%H} * * {day}", timezone: UTC}}
scope: {{cells: [{{account: "111111111111", regions: [eu-west-3]}}]}}
policy: standard
stages:
  - name: dev
    select: {{patch_groups: [linux-dev]}}
"""

NOW = timedelta(minutes=3)
"""How long a moment still counts as now (`patchwave.timetables.campaign.GRACE`)."""

BEATS = 5
"""How often the scheduler has to say that it lives, five seconds apart, until it has surely looked at the DAG."""

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """A paused campaign, known to Airflow with its moment, misses it; then ana unpauses it. Over when scheduler and DAG
    processor have surely looked at it since."""
    moment = (datetime.now(UTC) + timedelta(seconds=105)).replace(second=0, microsecond=0)
    file = run.stage.campaigns / f"{CAMPAIGN}.yaml"
    file.write_text(FILE.format(moment=moment, day=moment.isoweekday() % 7))
    run.stage.dag_ready(CAMPAIGN)
    ana = run.user("ana")
    known = datetime.fromisoformat(ana.dag(CAMPAIGN)["next_dagrun_run_after"])
    assert known == moment, f"Airflow is to run it at {known}, not at {moment}: there is nothing to miss"
    run.until(lambda: datetime.now(UTC) > moment + NOW, "the moment has passed and no longer counts as now")
    # What Airflow has stored is renewed when the file is parsed: after a missed week it has been, thousands of times.
    run.until(
        lambda: datetime.fromisoformat(ana.dag(CAMPAIGN)["last_parsed_time"]) > moment + NOW, "the file has been parsed since"
    )
    ana.pause(CAMPAIGN, paused=False)
    run.seen["unpaused"] = unpaused = datetime.now(UTC)
    beats: set[str] = set()

    def looked() -> bool:
        beats.add(ana.get("/monitor/health")["scheduler"]["latest_scheduler_heartbeat"])
        dag = ana.dag(CAMPAIGN)
        return len(beats) > BEATS and datetime.fromisoformat(dag["last_parsed_time"]) > unpaused and not dag["is_paused"]

    run.until(looked, "scheduler and DAG processor have looked at the unpaused DAG")


def test_unpausing_starts_nothing(journey: FollowedRun) -> None:
    """For patching, a run at noon for the night before is an outage."""
    assert journey.user("ana").get(f"/dags/{CAMPAIGN}/dagRuns")["total_entries"] == 0


def test_the_next_run_is_a_week_after_the_missed_one(journey: FollowedRun) -> None:
    """And it is what the UI shows."""
    shown = datetime.fromisoformat(journey.user("ana").dag(CAMPAIGN)["next_dagrun_run_after"])
    assert timedelta(days=6) < shown - journey.seen["unpaused"] < timedelta(days=7)
