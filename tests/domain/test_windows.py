"""When a window is open, whatever the clocks do that night."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import windows
from patchwave.campaign.windows import Span, Window

TUESDAYS = Window(cron="0 22 * * 2", duration=timedelta(hours=4), timezone="Europe/Vienna")
NIGHTLY = Window(cron="30 2 * * *", duration=timedelta(hours=2), timezone="Europe/Vienna")
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (zones come last)
WINDOWS = st.builds(
    Window,
    cron=st.sampled_from(["0 22 * * 2", "30 2 * * *", "0 3 * * 0", "15 1 1 * *", "0 22 * * 2#2", "0 */6 * * *"]),
    duration=st.integers(1, 30).map(lambda hours: timedelta(hours=hours)),
    timezone=st.sampled_from(["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kolkata"]),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-03-24T20:59", "2026-03-24T21:00"),  # winter: 22:00 is 21:00 UTC
        ("2026-03-24T21:00", "2026-03-24T21:00"),
        ("2026-03-25T00:59", "2026-03-24T21:00"),
        ("2026-03-25T01:00", "2026-03-31T20:00"),  # summer: 22:00 is 20:00 UTC
    ],
)
def test_a_window_opens_at_the_same_hour_in_summer_and_in_winter(now: str, opens: str) -> None:
    """22:00 in Vienna stays 22:00 in Vienna; while it is open the opening is the one that lasts, afterwards the next."""
    assert windows.occurrence(TUESDAYS, at(now)).opens == at(opens)


def test_an_hour_that_the_clock_skips_is_taken_after_the_jump() -> None:
    """On the 29th of March 2026 there is no 02:30 in Vienna: 03:30 it is, 01:30 UTC."""
    found = windows.occurrence(NIGHTLY, at("2026-03-29T00:00"))
    assert found == Span(opens=at("2026-03-29T01:30"), closes=at("2026-03-29T03:30"))


def test_an_hour_that_the_clock_shows_twice_is_taken_once_and_the_window_grows_no_longer() -> None:
    """On the 25th of October 2026 there are two 02:30 in Vienna: the first counts, and two hours are two hours."""
    night = Span(opens=at("2026-10-25T00:30"), closes=at("2026-10-25T02:30"))
    assert windows.occurrence(NIGHTLY, at("2026-10-24T22:00")) == night
    assert windows.occurrence(NIGHTLY, at("2026-10-25T01:45")) == night
    assert windows.occurrence(NIGHTLY, at("2026-10-25T02:30")).opens == at("2026-10-26T01:30")


@given(WINDOWS, MOMENTS)
def test_an_occurrence_is_open_now_or_opens_later_and_is_as_long_as_it_says(window: Window, now: datetime) -> None:
    """Never one that is over."""
    span = windows.occurrence(window, now)
    assert span.closes > now
    assert span.closes - span.opens == window.duration
    assert (now in span) is (span.opens <= now)


@given(WINDOWS, MOMENTS)
def test_nothing_opens_between_now_and_the_next_opening(window: Window, now: datetime) -> None:
    """Asked again a moment before it opens, it is still the same one."""
    span = windows.occurrence(window, now)
    if span.opens > now:
        assert windows.occurrence(window, span.opens - timedelta(seconds=1)) == span
        assert windows.occurrence(window, span.opens) == span


@given(st.lists(st.integers(1, 10_000), min_size=1))
def test_a_percentile_is_a_sample_that_nineteen_of_twenty_do_not_exceed(seconds: list[int]) -> None:
    """Nearest rank: no number that nobody has seen."""
    samples = [timedelta(seconds=one) for one in seconds]
    found = windows.percentile(samples)
    assert found in samples
    assert sum(1 for one in samples if one <= found) >= 0.95 * len(samples)


def test_a_few_samples_say_nothing() -> None:
    """Below five the default stands: one bad night is no rule."""
    usual = {"install": timedelta(minutes=10), "scan": timedelta(minutes=2)}
    four, five = [timedelta(minutes=1)] * 4, [timedelta(minutes=1)] * 4 + [timedelta(minutes=7)]
    assert windows.expected({"install": four}, usual) == usual
    assert windows.expected({"install": five}, usual) == usual | {"install": timedelta(minutes=7)}
    assert windows.expected({"reboot": five}, usual) == usual
