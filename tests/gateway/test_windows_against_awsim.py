"""Change calendars and maintenance windows against the simulated AWS, which reads iCalendar and AWS's cron by itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.campaign import windows
from patchwave.campaign.definition import MaintenanceWindow
from patchwave.campaign.windows import Window
from tests.gateway.conftest import CELL
from tests.gateway.simulated import Simulated, small_world

START = datetime(2026, 3, 27, 12, tzinfo=UTC)
"""Two days before clocks go forward in Europe."""
CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//AWS//Change Calendar 1.0//EN
X-CALENDAR-TYPE:DEFAULT_OPEN
BEGIN:VEVENT
UID:1
DTSTART;TZID=Europe/Vienna:20260327T230000
DTEND;TZID=Europe/Vienna:20260328T010000
SUMMARY:release
END:VEVENT
BEGIN:VEVENT
UID:2
DTSTART;TZID=Europe/Vienna:20260402T000000
DTEND;TZID=Europe/Vienna:20260407T000000
SUMMARY:easter
END:VEVENT
END:VCALENDAR
"""


@pytest.fixture(scope="module")
def aws() -> Iterator[Simulated]:
    with small_world(START) as url:
        yield Simulated(url)


@pytest.fixture(scope="module")
def ssm(aws: Simulated) -> Any:
    """Whoever else works in that account."""
    return aws.gateway.client(CELL, "ssm")


def declared(**changed: Any) -> MaintenanceWindow:
    return MaintenanceWindow.model_validate(
        {"name": "declared-nights", "schedule": "cron(0 22 ? * * *)", "timezone": "Europe/Vienna", "duration": "4h",
         "cutoff": "1h", **changed}
    )  # fmt: skip


def test_a_window_waits_for_a_calendar_that_closes_it(aws: Simulated, ssm: Any) -> None:
    """Of tonight only the hour before the release is open; Easter swallows the nights from the 1st, which it cuts, to the 6th."""
    ssm.create_document(Name="change-freeze", Content=CALENDAR, DocumentType="ChangeCalendar", DocumentFormat="TEXT")
    closures = aws.gateway.calendar_closures([CELL], ["change-freeze"], now=aws.now)
    assert [(f"{one.begins:%m-%dT%H}", f"{one.ends:%m-%dT%H}") for one in closures] == [
        ("03-27T22", "03-28T00"), ("04-01T22", "04-06T22"),
    ]  # fmt: skip
    nights = Window(cron="0 22 * * *", duration=timedelta(hours=2), timezone="Europe/Vienna")
    tonight = windows.opening(nights, aws.now, closures=closures)
    assert tonight.span is not None
    assert tonight.span.length == timedelta(hours=1)
    assert "change calendar 'change-freeze'" in tonight.because[0]
    easter = windows.opening(nights, datetime(2026, 4, 2, 12, tzinfo=UTC), closures=closures)
    assert easter.span is not None
    assert easter.span.opens == datetime(2026, 4, 7, 20, tzinfo=UTC)


def test_a_calendar_that_is_not_there_closes_everything(aws: Simulated) -> None:
    """A name with a typing error must not open what it should close."""
    (closure,) = aws.gateway.calendar_closures([CELL], ["chnage-freeze"], now=aws.now)
    assert closure.ends is None
    assert "InvalidDocument" in closure.reason


def test_a_declared_window_is_made_once_read_and_kept(aws: Simulated, ssm: Any) -> None:
    """Created, found, put back after a change by hand; its openings follow local time over the change of clocks."""
    first = aws.gateway.ensure_window(CELL, declared(), campaign="weekly-linux", run="r1")
    assert first.created
    again = aws.gateway.ensure_window(CELL, declared(), campaign="weekly-linux", run="r2")
    assert (again.id, again.created, again.drift) == (first.id, False, ())
    ssm.update_maintenance_window(WindowId=first.id, Duration=8)
    drifted = aws.gateway.ensure_window(CELL, declared(), campaign="weekly-linux", run="r2")
    assert drifted.drift == ("Duration was 8 and is 4 again",)
    listing = aws.gateway.window_openings([CELL], "declared-nights", now=aws.now)
    assert [f"{span.opens:%m-%dT%H:%M}" for span in listing.spans[:4]] == [
        "03-27T21:00", "03-28T21:00", "03-29T20:00", "03-30T20:00",
    ]  # fmt: skip
    assert {span.length for span in listing.spans} == {timedelta(hours=3)}
    assert aws.gateway.window_openings([CELL], first.id, now=aws.now) == listing


def test_the_opening_of_now_is_seen_and_a_window_that_is_switched_off_never_opens(aws: Simulated, ssm: Any) -> None:
    """Asked in the middle of it; then somebody switches it off in the console, which is respected and not put back."""
    window = declared(name="open-now")
    made = aws.gateway.ensure_window(CELL, window, campaign="weekly-linux", run="r3")
    opens = datetime(2026, 3, 27, 21, tzinfo=UTC)
    aws.pass_time(opens + timedelta(hours=1) - aws.now)
    listing = aws.gateway.window_openings([CELL], "open-now", now=aws.now)
    assert listing.spans[0].opens == opens
    assert aws.now in windows.occurrence(Window(maintenance_window="open-now"), aws.now, listed=listing)
    ssm.update_maintenance_window(WindowId=made.id, Enabled=False)
    kept = aws.gateway.ensure_window(CELL, window, campaign="weekly-linux", run="r3")
    assert (kept.enabled, kept.drift) == (False, ())
    assert "switched off" in aws.gateway.window_openings([CELL], "open-now", now=aws.now).because
