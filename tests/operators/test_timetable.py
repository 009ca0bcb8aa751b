"""When a campaign starts by itself: at its moments, and never for one that has passed."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.campaign.definition import Schedule
from patchwave.timetables import campaign
from patchwave.timetables.campaign import GRACE, CampaignTimetable, PatchTuesdayTimetable, WeeklyTimetable

VIENNA = ZoneInfo("Europe/Vienna")
WEEKLY = CampaignTimetable("0 22 * * 2", timezone="Europe/Vienna")
EVER = TimeRestriction(earliest=pendulum.datetime(2020, 1, 1), latest=None, catchup=True)


def next_at(
    now: datetime, *, last: datetime | None = None, restriction: TimeRestriction = EVER, timetable: Timetable = WEEKLY
) -> datetime | None:
    """The next moment, asked at `now`."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(campaign, "utcnow", lambda: pendulum.instance(now))
        interval = None if last is None else DataInterval.exact(pendulum.instance(last))
        info = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
    return None if info is None else info.run_after


def local(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=VIENNA)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (local(2026, 3, 22, 12), local(2026, 3, 24, 22)),
        (local(2026, 3, 25, 12), local(2026, 3, 31, 22)),  # clocks went forward on the 29th
        (local(2026, 10, 18, 12), local(2026, 10, 20, 22)),
        (local(2026, 10, 21, 12), local(2026, 10, 27, 22)),  # and back on the 25th
    ],
)
def test_a_weekly_campaign_stays_at_22_in_vienna_over_both_changes_of_clocks(asked: datetime, expected: datetime) -> None:
    """UTC moves by an hour, the night of the people whose hosts are patched does not."""
    found = next_at(asked)
    assert found == expected
    assert found is not None
    assert found.astimezone(VIENNA).hour == 22


def test_the_two_changes_move_the_moment_in_utc() -> None:
    """21:00 in winter, 20:00 in summer."""
    hours = [found.hour for day in (24, 31) if (found := next_at(datetime(2026, 3, day, 6, tzinfo=UTC)))]
    assert hours == [21, 20]


def moments(first: int, last: int) -> st.SearchStrategy[datetime]:
    """Moments of these years."""
    begin, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (first, last))
    return st.integers(begin, end).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(now=moments(2025, 2028), last=st.none() | moments(2024, 2025), earliest=st.none() | moments(2020, 2025))
@settings(deadline=None, max_examples=60)
def test_never_a_moment_that_has_passed(now: datetime, last: datetime | None, earliest: datetime | None) -> None:
    """Unpaused after weeks, with catch-up or without, however long ago it ran last: the next moment is still to come."""
    restriction = TimeRestriction(earliest=None if earliest is None else pendulum.instance(earliest), latest=None, catchup=True)
    found = next_at(now, last=last, restriction=restriction)
    assert found is not None
    assert found > now - GRACE
    assert found < now + timedelta(days=8)
    assert found.astimezone(VIENNA).weekday() == 1


def test_a_moment_that_came_a_moment_ago_is_not_lost() -> None:
    """The scheduler asks a little late: within the grace it is still that week's run, after it the next week's."""
    due = local(2026, 3, 3, 22)
    assert next_at(due + timedelta(minutes=2)) == due
    assert next_at(due + GRACE + timedelta(seconds=1)) == local(2026, 3, 10, 22)


def test_a_run_that_was_made_is_not_made_again_within_its_grace() -> None:
    """The last run is respected."""
    due = local(2026, 3, 3, 22)
    assert next_at(due + timedelta(seconds=5), last=due) == local(2026, 3, 10, 22)


def test_a_start_date_to_come_is_kept_and_an_end_date_ends() -> None:
    """Before the one nothing starts, after the other nothing does."""
    earliest = TimeRestriction(earliest=pendulum.instance(local(2026, 5, 1)), latest=None, catchup=False)
    assert next_at(local(2026, 3, 1), restriction=earliest) == local(2026, 5, 5, 22)
    latest = TimeRestriction(earliest=None, latest=pendulum.instance(local(2026, 3, 2)), catchup=False)
    assert next_at(local(2026, 3, 1), restriction=latest) is None


def test_a_run_by_hand_is_about_the_moment_it_was_asked_for() -> None:
    """It covers no interval of the schedule."""
    moment = pendulum.datetime(2026, 3, 4, 9, 30)
    assert WEEKLY.infer_manual_data_interval(run_after=moment) == DataInterval.exact(moment)


def test_airflow_stores_it_and_reads_it_back() -> None:
    """Through Airflow's own encoder, which refuses a timetable that no plugin registers."""
    stored = encode_timetable(WEEKLY)
    again = decode_timetable(stored)
    assert isinstance(again, CampaignTimetable)
    assert again.serialize() == WEEKLY.serialize() == {"cron": "0 22 * * 2", "timezone": "Europe/Vienna"}
    asked = local(2026, 3, 4, 12)
    assert next_at(asked, timetable=again) == next_at(asked)


def test_its_description_shows_the_zone() -> None:
    """Airflow's own does not, and 22:00 alone means nothing."""
    assert "Europe/Vienna" in WEEKLY.summary
    assert "Europe/Vienna" in WEEKLY.description
    assert "Tuesday" in WEEKLY.description


# --- days at a local time ---------------------------------------------------------------------------------------------------
PATCH_TUESDAY = PatchTuesdayTimetable(plus_days=3, at=time(22), timezone="Europe/Berlin")
TWICE_A_WEEK = WeeklyTimetable(on=[3, 1], at=time(2, 30), timezone="Europe/Vienna")
LOCAL = [PATCH_TUESDAY, TWICE_A_WEEK, PatchTuesdayTimetable(plus_days=27, at=time(0, 30), timezone="America/Santiago")]


def coming(timetable: Timetable, now: datetime, count: int) -> list[datetime]:
    """The next runs as Airflow's calendar asks for them: each after the one before."""
    found: list[datetime] = []
    info: DagRunInfo | None = None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(campaign, "utcnow", lambda: pendulum.instance(now))
        for _ in range(count):
            info = timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=EVER)
            assert info is not None
            found.append(info.run_after)
    return found


def written(moments_: list[datetime], zone: str) -> list[str]:
    return [f"{one.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M}" for one in moments_]


def test_three_days_after_the_second_tuesday_at_ten_in_berlin_in_summer_and_in_winter() -> None:
    """The second Tuesdays of that half-year are the 8th, 13th, 10th, 8th, 12th and 9th; clocks change on the 25th of October."""
    found = coming(PATCH_TUESDAY, datetime(2026, 9, 1, tzinfo=UTC), 6)
    assert written(found, "Europe/Berlin") == [
        "Fri 2026-09-11 22:00", "Fri 2026-10-16 22:00", "Fri 2026-11-13 22:00", "Fri 2026-12-11 22:00", "Fri 2027-01-15 22:00",
        "Fri 2027-02-12 22:00",
    ]  # fmt: skip
    assert [one.hour for one in found] == [20, 20, 21, 21, 21, 21]


def test_many_days_after_the_second_tuesday_lead_into_the_next_month_and_year() -> None:
    """27 days after the 14th of July is the 10th of August; after the 8th of December, the 4th of January."""
    timetable = PatchTuesdayTimetable(plus_days=27, at=time(22), timezone="UTC")
    assert written(coming(timetable, datetime(2026, 7, 31, tzinfo=UTC), 6), "UTC") == [
        "Mon 2026-08-10 22:00", "Mon 2026-09-07 22:00", "Mon 2026-10-05 22:00", "Mon 2026-11-09 22:00", "Mon 2026-12-07 22:00",
        "Mon 2027-01-04 22:00",
    ]  # fmt: skip


def test_weekly_at_a_local_time_is_kept_on_the_days_when_clocks_change() -> None:
    """02:30 does not exist on the 29th of March and is 03:30 then; on the 25th of October it is twice and the first counts."""
    sundays = WeeklyTimetable(on=[6], at=time(2, 30), timezone="Europe/Vienna")
    assert written(coming(sundays, datetime(2026, 3, 21, tzinfo=UTC), 3), "Europe/Vienna") == [
        "Sun 2026-03-22 02:30", "Sun 2026-03-29 03:30", "Sun 2026-04-05 02:30",
    ]  # fmt: skip
    autumn = coming(sundays, datetime(2026, 10, 24, tzinfo=UTC), 2)
    assert [one.isoformat() for one in autumn] == ["2026-10-25T00:30:00+00:00", "2026-11-01T01:30:00+00:00"]


def test_several_days_of_a_week_come_in_their_order() -> None:
    """However the file lists them."""
    assert written(coming(TWICE_A_WEEK, datetime(2026, 5, 4, tzinfo=UTC), 3), "Europe/Vienna") == [
        "Tue 2026-05-05 02:30", "Thu 2026-05-07 02:30", "Tue 2026-05-12 02:30",
    ]  # fmt: skip


@given(now=moments(2025, 2028), last=st.none() | moments(2024, 2025), timetable=st.sampled_from(LOCAL))
@settings(deadline=None, max_examples=60)
def test_days_at_a_local_time_never_begin_for_a_moment_that_has_passed(
    now: datetime, last: datetime | None, timetable: Timetable
) -> None:
    """The next one is to come, within its month or week, and asked a moment before it, it is still the same."""
    found = next_at(now, last=last, timetable=timetable)
    assert found is not None
    assert now - GRACE < found < now + timedelta(days=37)
    assert next_at(max(now, found - timedelta(seconds=1)), last=last, timetable=timetable) == found


@given(now=moments(2025, 2028), zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut"]),
       hour=st.integers(0, 23), plus=st.integers(0, 27))  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_every_month_has_one_patch_tuesday_and_its_local_time_stays(now: datetime, zone: str, hour: int, plus: int) -> None:
    """Counted back from the run, it is a Tuesday from the 8th to the 14th; the clock shows the hour unless it skips it."""
    found = coming(PatchTuesdayTimetable(plus_days=plus, at=time(hour), timezone=zone), now, 13)
    local_ = [one.astimezone(ZoneInfo(zone)) for one in found]
    tuesdays = [one.date() - timedelta(days=plus) for one in local_]
    assert all(day.weekday() == 1 and 8 <= day.day <= 14 for day in tuesdays)
    assert len({(day.year, day.month) for day in tuesdays}) == 13
    for one in local_:
        assert one.hour == hour or one.replace(hour=hour, tzinfo=None) != one.replace(hour=hour).astimezone(UTC).astimezone(
            ZoneInfo(zone)
        ).replace(tzinfo=None)


@pytest.mark.parametrize("timetable", LOCAL)
def test_airflow_stores_days_at_a_local_time_and_reads_them_back(timetable: PatchTuesdayTimetable | WeeklyTimetable) -> None:
    """Through Airflow's own encoder; zone and hour are in what people see."""
    again = decode_timetable(encode_timetable(timetable))
    assert type(again) is type(timetable)
    assert again.serialize() == timetable.serialize()
    asked = datetime(2026, 3, 4, 12, tzinfo=UTC)
    assert next_at(asked, timetable=again) == next_at(asked, timetable=timetable)
    for told in (timetable.summary, timetable.description):
        assert timetable.timezone in told
        assert f"{timetable.at:%H:%M}" in told


def test_a_run_that_was_made_is_not_made_again_on_days_at_a_local_time() -> None:
    """Within its grace, too."""
    due = datetime(2026, 9, 11, 20, tzinfo=UTC)
    assert next_at(due + timedelta(seconds=5), timetable=PATCH_TUESDAY) == due
    assert next_at(due + timedelta(seconds=5), last=due, timetable=PATCH_TUESDAY) == datetime(2026, 10, 16, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"cron": "0 22 * * 2", "timezone": "Europe/Vienna"}, "0 22 * * 2 Europe/Vienna"),
        ({"patch_tuesday": {"plus_days": 1, "at": "22:00", "timezone": "Europe/Berlin"}},
         "Second Tuesday of the month plus 1 day 22:00 Europe/Berlin"),
        ({"weekly": {"on": ["thursday", "monday"], "at": "06:15", "timezone": "UTC"}}, "Every Monday, Thursday 06:15 UTC"),
    ],
)  # fmt: skip
def test_a_campaign_s_schedule_chooses_its_timetable(schedule: dict[str, object], expected: str) -> None:
    """What the list of DAGs shows; without a schedule there is none."""
    assert campaign.of(Schedule.model_validate(schedule)).summary == expected
    assert campaign.of(None) is None
