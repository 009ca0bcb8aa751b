"""A stage waits for its window, less a freeze and a change calendar; its campaign starts on patch Tuesday plus three days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "windowed", "ap-southeast-2"

FILE = """\
name: windowed
description: A window by an iCalendar rule, a freeze and a change calendar
owner: tests
schedule: {{patch_tuesday: {{plus_days: 3, at: "22:00", timezone: Europe/Berlin}}}}
scope: {{cells: [{{account: "111111111111", regions: [ap-southeast-2]}}]}}
policy: standard
freezes: [{{from: "{freeze_begins:%Y-%m-%dT%H:%MZ}", to: "{freeze_ends:%Y-%m-%dT%H:%MZ}", reason: launch}}]
calendars: [change-freeze]
stages:
  - name: dev
    select: {{patch_groups: [linux-dev]}}
    window: {{rrule: FREQ=DAILY, starts: "{opens:%Y-%m-%dT%H:%M}", duration: 20h, timezone: UTC}}
    soak: 1m
"""
CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//AWS//Change Calendar 1.0//EN
X-CALENDAR-TYPE:DEFAULT_OPEN
BEGIN:VEVENT
UID:1
DTSTART:{begins:%Y%m%dT%H%M00Z}
DTEND:{ends:%Y%m%dT%H%M00Z}
SUMMARY:busy
END:VEVENT
END:VCALENDAR
"""

pytestmark = pytest.mark.journey
IS_LONG = True


def drive(run: FollowedRun) -> None:
    """By awsim's clock: the window opens in 8 hours, the freeze ends in 32, the calendar is closed from the 31st to the 36th.

    So late, because a machine with two cores and seven other journeys has taken 22 of these hours until the stage began.
    """
    now = datetime.fromtimestamp(run.stage.stack.awsim.get("/clock")["epoch"], UTC).replace(second=0, microsecond=0)
    hour = timedelta(hours=1)
    ssm = run.client("ssm")
    run.seen["open"] = now + 36 * hour
    calendar = CALENDAR.format(begins=now + 31 * hour, ends=run.seen["open"])
    ssm.create_document(Name="change-freeze", Content=calendar, DocumentType="ChangeCalendar", DocumentFormat="TEXT")
    text = FILE.format(freeze_begins=now - 24 * hour, freeze_ends=now + 32 * hour, opens=now + 8 * hour)
    (run.stage.campaigns / f"{CAMPAIGN}.yaml").write_text(text)
    run.begin(dry_run=False)
    run.until(lambda: run.waits_for("window opens at"), "the stage waits for its window")
    run.ended()


def test_no_install_begins_before_everything_is_open(journey: FollowedRun) -> None:
    """Neither in the freeze, nor while the calendar is closed, though the window has been open for hours."""
    began = [one.at for one in journey.journal.records if one.begins_install]
    assert began
    assert min(began) >= journey.seen["open"]


def test_every_host_is_patched_in_the_opening_that_is_left(journey: FollowedRun) -> None:
    """What is left of it is long enough for all of them."""
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)
    assert journey.state == "success"


def test_the_ledger_says_what_the_stage_waited_for(journey: FollowedRun) -> None:
    """The span, and both reasons why it was no earlier one."""
    changes: list[Any] = [one.data for one in journey.ledger.journal(journey.id) if one.kind == "window.changed"]
    assert changes
    assert datetime.fromisoformat(changes[-1]["opens"]) == journey.seen["open"]
    assert "freeze 'launch'" in changes[0]["because"]
    assert "change calendar 'change-freeze'" in changes[0]["because"]


def test_the_ui_shows_the_next_run_on_patch_tuesday_plus_three_days(journey: FollowedRun) -> None:
    """A Friday from the 11th to the 17th, 22:00 in Berlin, in the list of DAGs and with its schedule in words."""
    dag = journey.user("ana").dag(CAMPAIGN)
    coming = datetime.fromisoformat(dag["next_dagrun_run_after"])
    assert coming > datetime.now(UTC)
    assert (coming.weekday(), coming.hour in (20, 21), 11 <= coming.day <= 17) == (4, True, True)
    assert dag["timetable_summary"] == "Second Tuesday of the month plus 3 days 22:00 Europe/Berlin"
