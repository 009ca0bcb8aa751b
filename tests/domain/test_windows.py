"""When a window is open, whatever the clocks do that night."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.campaign import windows
from patchwave.campaign.windows import Closure, Listing, NeverOpens, Opening, OpeningsUnknown, Span, Window

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


# --- iCalendar rules --------------------------------------------------------------------------------------------------------
def rule(text: str, starts: str, *, timezone: str = "Europe/Vienna", hours: int = 4) -> Window:
    """A window by an iCalendar rule."""
    return Window(rrule=text, starts=datetime.fromisoformat(starts), timezone=timezone, duration=timedelta(hours=hours))


def first(window: Window, now: str, count: int) -> list[str]:
    """The next openings in UTC."""
    return [f"{span.opens:%Y-%m-%dT%H:%M}" for span in islice(windows.openings(window, at(now)), count)]


def test_the_second_tuesday_by_an_icalendar_rule_stays_at_its_hour() -> None:
    """22:00 in Vienna is 21:00 UTC in winter and 20:00 in summer; nothing opens before `starts`."""
    window = rule("FREQ=MONTHLY;BYDAY=2TU", "2026-02-10T22:00")
    assert first(window, "2025-01-01T00:00", 4) == [
        "2026-02-10T21:00", "2026-03-10T21:00", "2026-04-14T20:00", "2026-05-12T20:00",
    ]  # fmt: skip


def test_a_rule_that_has_come_to_its_end_never_opens_again() -> None:
    """COUNT and UNTIL are kept; a day as UNTIL means all of it; the last opening still lasts while it lasts."""
    window = rule("FREQ=WEEKLY;COUNT=2", "2026-03-03T22:00")
    assert first(window, "2026-01-01T00:00", 9) == ["2026-03-03T21:00", "2026-03-10T21:00"]
    assert windows.occurrence(window, at("2026-03-11T00:30")).opens == at("2026-03-10T21:00")
    with pytest.raises(NeverOpens, match="does not open any more"):
        windows.occurrence(window, at("2026-03-11T01:00"))
    assert len(first(rule("FREQ=DAILY;UNTIL=20260305", "2026-03-03T22:00"), "2026-01-01T00:00", 9)) == 3
    # 21:00 UTC is 22:00 in Vienna: the opening at that very moment is the last one
    assert len(first(rule("FREQ=DAILY;UNTIL=20260304T210000Z", "2026-03-03T22:00"), "2026-01-01T00:00", 9)) == 2
    assert len(first(rule("FREQ=DAILY;UNTIL=20260304T205959Z", "2026-03-03T22:00"), "2026-01-01T00:00", 9)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FREQ=HOURLY", "FREQ is HOURLY; allowed is DAILY, WEEKLY, MONTHLY, YEARLY"),
        ("BYDAY=TU", "FREQ is missing"),
        ("FREQ=DAILY;INTERVAL=0", "a whole number from 1 to 999"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "COUNT and UNTIL"),
        ("FREQ=DAILY;BYHOUR=3", "time of day of `starts`"),
        ("FREQ=WEEKLY;BYDAY=2TU", "days without a number"),
        ("FREQ=MONTHLY;BYDAY=2XX", "BYDAY is 2XX"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "no month of BYMONTH"),
        ("FREQ=DAILY;UNTIL=20261399T000000Z", "a moment that there is"),
        ("FREQ=DAILY;FREQ=WEEKLY", "given twice"),
        ("every second Tuesday", "not NAME=VALUE"),
        ("FREQ=DAILY\nRRULE:FREQ=WEEKLY", "not NAME=VALUE"),
        ("FREQ=DAILY;BYEASTER=0", "it has BYEASTER"),
        ("FREQ=DAILY;BYSETPOS=-31", "it has BYSETPOS; allowed is none beside FREQ=DAILY"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused_by_what_is_allowed(text: str, says: str) -> None:
    """Also those that a calendar programme would take and that never come to an end."""
    with pytest.raises(ValueError, match=re.escape(says)):
        windows.rule_of(text, datetime(2026, 3, 3, 22), "Europe/Vienna")  # noqa: DTZ001 (local by meaning)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    ["FREQ=MONTHLY;BYSETPOS=-31", "FREQ=WEEKLY;INTERVAL=999;BYMONTHDAY=31;BYMONTH=12;BYDAY=MO",
     "FREQ=YEARLY;BYDAY=1TU;BYMONTHDAY=29", "FREQ=DAILY;UNTIL=20200101", "FREQ=MONTHLY;BYDAY=-1SU;BYMONTH=2,8;BYSETPOS=5"],
)  # fmt: skip
def test_a_rule_that_names_nothing_is_known_for_that_before_anybody_waits(text: str) -> None:
    """The library looks for it until the year 9999; files are read every half minute."""
    assert windows.first_of(text, datetime(2026, 3, 3, 22), "Europe/Vienna") is None  # noqa: DTZ001 (local by meaning)


@given(
    st.sampled_from(
        ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=MO,FR", "FREQ=MONTHLY;BYDAY=2TU", "FREQ=MONTHLY;BYMONTHDAY=-1", "FREQ=YEARLY"]
    ),
    st.sampled_from(["", ";INTERVAL=2", ";COUNT=3"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1)),  # noqa: DTZ001 (local by meaning)
)
@settings(max_examples=60, deadline=None)
def test_the_first_moment_of_a_rule_is_its_first_opening(text: str, more: str, starts: datetime) -> None:
    """Though it is looked for in another century."""
    starts = starts.replace(second=0, microsecond=0)
    first_ = windows.first_of(text + more, starts, "UTC")
    assert first_ is not None
    window = Window(rrule=text + more, starts=starts, duration=timedelta(hours=1), timezone="UTC")
    opens = next(windows.openings(window, starts.replace(tzinfo=UTC))).opens
    assert opens == first_.replace(tzinfo=UTC)


ZONES = ["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago", "Asia/Beirut"]
"""Changes by an hour and by half an hour, in both hemispheres, at midnight, and around Ramadan."""


@st.composite
def daily(draw: st.DrawFn) -> tuple[Window, Window]:
    """The same daily window twice: by cron and by rule."""
    hour, minute = draw(st.integers(0, 23)), draw(st.sampled_from([0, 15, 30, 45]))
    timezone, duration = draw(st.sampled_from(ZONES)), timedelta(hours=draw(st.integers(1, 12)))
    starts = datetime(2024, 1, 1, hour, minute)  # noqa: DTZ001 (local by meaning)
    return (
        Window(cron=f"{minute} {hour} * * *", duration=duration, timezone=timezone),
        Window(rrule="FREQ=DAILY", starts=starts, duration=duration, timezone=timezone),
    )


@given(daily(), MOMENTS)
@settings(max_examples=150, deadline=None)
def test_local_opening_time_and_real_duration_stay_over_every_change_of_clocks(
    pair: tuple[Window, Window], now: datetime
) -> None:
    """Each local day has its opening, once, at its local time; only where clocks skip that time it is behind the jump. What it
    lasts is time that passes, not what clocks show."""
    for window in pair:
        zone = ZoneInfo(window.timezone)
        hour, minute = (int(part) for part in (window.cron or f"{window.starts:%M %H}").split()[1::-1])  # type: ignore[str-format]
        spans = list(islice(windows.openings(window, now), 12))
        assert [span.length for span in spans] == [window.duration] * 12
        assert all(one.opens < two.opens for one, two in pairwise(spans))
        local = [span.opens.astimezone(zone) for span in spans]
        days = {one.date() for one in local}
        assert len(days) == 12
        assert max(days) - min(days) == timedelta(days=11)
        for one in local:
            wanted = one.replace(hour=hour, minute=minute, tzinfo=None)
            if (one.hour, one.minute) != (hour, minute):
                skipped = wanted.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wanted
                assert skipped, f"{one} for {wanted}, which clocks show"
            elif one.fold:
                pytest.fail(f"{one} is the second of two; the first counts")


@given(daily(), MOMENTS)
@settings(max_examples=60, deadline=None)
def test_a_cron_and_a_rule_that_say_the_same_open_at_the_same_moments(pair: tuple[Window, Window], now: datetime) -> None:
    """Two readers, one answer."""
    by_cron, by_rule = (list(islice(windows.openings(window, now), 8)) for window in pair)
    assert by_cron == by_rule


def test_openings_come_in_order_also_where_the_clock_skips_an_hour() -> None:
    """02:30 is moved to 03:30, behind the opening of 03:00; the 03:00 that two hours become is one opening."""
    half_hours = Window(cron="0,30 * * * *", duration=timedelta(minutes=5), timezone="Europe/Vienna")
    assert first(half_hours, "2026-03-29T00:20", 6) == [
        "2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30", "2026-03-29T02:00", "2026-03-29T02:30", "2026-03-29T03:00",
    ]  # fmt: skip


# --- what closes a window ---------------------------------------------------------------------------------------------------
def freeze(begins: str, ends: str | None, reason: str = "freeze 'year end'") -> Closure:
    return Closure(begins=at(begins), ends=at(ends) if ends else None, reason=reason)


YEAR_END = freeze("2026-12-18T23:00", "2027-01-06T23:00")


def test_openings_in_a_freeze_are_skipped_and_it_is_said_why() -> None:
    """Three Tuesdays fall into it; the stage waits for the first one after it."""
    found = windows.opening(TUESDAYS, at("2026-12-16T12:00"), closures=[YEAR_END])
    assert found.span == Span(opens=at("2027-01-12T21:00"), closes=at("2027-01-13T01:00"))
    (why,) = found.because
    assert why == (
        "3 openings from 2026-12-22 22:00 Europe/Vienna to 2027-01-05 22:00 Europe/Vienna are not used: freeze 'year end' "
        "(2026-12-19 00:00 Europe/Vienna to 2027-01-07 00:00 Europe/Vienna)"
    )


def test_of_an_opening_that_a_freeze_cuts_the_rest_is_used_and_it_is_said_why() -> None:
    """It begins in the open window: what comes before it may be used, what comes after it may not."""
    found = windows.opening(TUESDAYS, at("2026-12-15T12:00"), closures=[freeze("2026-12-15T23:00", "2026-12-16T12:00")])
    assert found.span == Span(opens=at("2026-12-15T21:00"), closes=at("2026-12-15T23:00"))
    (why,) = found.because
    assert why.startswith(
        "of the opening of 2026-12-15 22:00 Europe/Vienna only 2026-12-15 22:00 Europe/Vienna to 2026-12-16 00:00"
    )
    assert "freeze 'year end'" in why


def test_a_rest_that_is_too_short_for_a_host_is_skipped() -> None:
    """Waiting for ten minutes in which nothing fits would end every host as out_of_window."""
    cut = freeze("2026-12-15T21:10", "2026-12-16T12:00")
    found = windows.opening(TUESDAYS, at("2026-12-15T12:00"), closures=[cut], least=timedelta(minutes=30))
    assert found.span is not None
    assert found.span.opens == at("2026-12-22T21:00")
    late = windows.opening(TUESDAYS, at("2026-12-16T00:50"), least=timedelta(minutes=30))
    assert late.span is not None
    assert late.span.opens == at("2026-12-22T21:00")
    assert late.because == (
        "the opening of 2026-12-15 22:00 Europe/Vienna is not used: less than the 30 minutes that a host takes are left of it",
    )


def test_a_window_that_is_always_too_short_is_taken_all_the_same() -> None:
    """Or the stage would wait for ever: the rollout says of each host that it does not fit."""
    found = windows.opening(TUESDAYS, at("2026-12-15T12:00"), least=timedelta(hours=9))
    assert found == Opening(span=Span(opens=at("2026-12-15T21:00"), closes=at("2026-12-16T01:00")))


def test_without_a_window_a_freeze_is_the_only_thing_to_wait_for() -> None:
    """At any time means: from the end of what closes until the next one begins."""
    now = at("2026-12-20T12:00")
    later = freeze("2027-01-10T00:00", "2027-01-11T00:00", "freeze 'stocktaking'")
    found = windows.opening(None, now, closures=[YEAR_END, later])
    assert found.span == Span(opens=at("2027-01-06T23:00"), closes=at("2027-01-10T00:00"))
    (why,) = found.because
    assert why.startswith("nothing is begun before 2027-01-06 23:00 UTC: freeze 'year end'")
    free = windows.opening(None, now)
    assert free.span is not None
    assert (free.span.opens, free.because) == (now, ())


@pytest.mark.parametrize("window", [TUESDAYS, None])
def test_what_nobody_knows_the_end_of_closes_for_good(window: Window | None) -> None:
    """A calendar that cannot be read is CLOSED: nothing is begun, and the reason is told."""
    unknown = freeze("2026-12-15T00:00", None, "change calendar 'freeze' of 1/eu could not be read")
    found = windows.opening(window, at("2026-12-15T12:00"), closures=[unknown])
    assert found.span is None
    assert "could not be read" in found.because[0]
    assert "nobody knows until when" in found.because[0]


def test_only_systems_manager_knows_when_a_maintenance_window_opens() -> None:
    """Its openings are given; without them there is no answer."""
    window = Window(maintenance_window="prod-nights")
    with pytest.raises(OpeningsUnknown, match="prod-nights"):
        windows.occurrence(window, at("2026-12-15T12:00"))
    spans = [
        Span(opens=at("2026-12-15T00:00"), closes=at("2026-12-15T04:00")),
        Span(opens=at("2026-12-16T00:00"), closes=at("2026-12-16T04:00")),
    ]
    listed = Listing(spans=tuple(spans))
    assert windows.occurrence(window, at("2026-12-15T12:00"), listed=listed) == listed.spans[1]
    assert "does not open any more" in windows.opening(window, at("2026-12-17T12:00"), listed=listed).because[0]
    off = Listing(because="maintenance window prod-nights of 1/eu is switched off")
    assert windows.opening(window, at("2026-12-17T12:00"), listed=off) == Opening(span=None, because=(off.because,))


SPANS = st.builds(
    lambda begins, length: (at("2026-01-01T00:00") + timedelta(minutes=begins), timedelta(minutes=length)),
    st.integers(0, 600), st.integers(1, 300),
)  # fmt: skip
CLOSURES = st.lists(
    st.builds(
        lambda pair, endless: Closure(begins=pair[0], ends=None if endless else pair[0] + pair[1], reason="r"),
        SPANS, st.sampled_from([False] * 9 + [True]),
    ),
    max_size=5,
)  # fmt: skip


@given(SPANS, CLOSURES, st.integers(0, 900))
@settings(max_examples=200, deadline=None)
def test_a_moment_is_in_what_is_left_exactly_if_nothing_closes_it(
    span: tuple[datetime, timedelta], closures: list[Closure], minute: int
) -> None:
    """Taking away adds nothing and loses nothing, however closures overlap."""
    whole = Span(opens=span[0], closes=span[0] + span[1])
    left = windows.parts(whole, closures)
    moment = at("2026-01-01T00:00") + timedelta(minutes=minute)
    shut = any(one.begins <= moment and (one.ends is None or moment < one.ends) for one in closures)
    assert any(moment in part for part in left) is (moment in whole and not shut)
    assert all(one.closes <= two.opens for one, two in pairwise(left))


def test_a_chosen_opening_shrinks_when_something_closes_it_meanwhile() -> None:
    """Before it, the part after it is waited for; with nothing left it is over, and never longer than it was."""
    night = Span(opens=at("2026-12-15T21:00"), closes=at("2026-12-16T01:00"))
    incident = freeze("2026-12-15T22:00", "2026-12-15T23:00", "change calendar 'incident' is CLOSED")
    assert windows.remaining(night, [incident], at("2026-12-15T21:30")).closes == at("2026-12-15T22:00")
    assert windows.remaining(night, [incident], at("2026-12-15T22:30")) == Span(opens=at("2026-12-15T23:00"), closes=night.closes)
    brief = freeze("2026-12-15T21:10", "2026-12-15T22:00")
    assert windows.remaining(night, [brief], at("2026-12-15T21:05")).closes == at("2026-12-15T21:10")
    needs = timedelta(minutes=20)
    assert windows.remaining(night, [brief], at("2026-12-15T20:00"), least=needs).opens == at("2026-12-15T22:00")
    assert windows.remaining(night, [], at("2026-12-16T00:50"), least=needs) == night
    endless = freeze("2026-12-15T22:00", None)
    assert windows.remaining(night, [endless], at("2026-12-15T22:30")).closes == at("2026-12-15T22:30")
    assert (
        windows.remaining(night, [endless, freeze("2026-12-15T20:00", "2026-12-15T22:00")], at("2026-12-15T20:30")).length
        == timedelta()
    )


def test_windows_of_several_cells_are_open_together_only() -> None:
    """Two accounts whose windows meet for two hours have two hours."""
    one = [
        Span(opens=at("2026-12-15T20:00"), closes=at("2026-12-16T00:00")),
        Span(opens=at("2026-12-17T20:00"), closes=at("2026-12-17T21:00")),
    ]
    two = [Span(opens=at("2026-12-15T22:00"), closes=at("2026-12-16T02:00"))]
    assert windows.common(one, two) == (Span(opens=at("2026-12-15T22:00"), closes=at("2026-12-16T00:00")),)
    assert windows.common(one) == tuple(one)
    assert windows.common(one, []) == ()


# --- how long it takes -----------------------------------------------------------------------------------------------------
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
