"""When a campaign starts by itself: at its moments, and never for one that has passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import DataInterval, TimeRestriction
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.timetables import campaign
from patchwave.timetables.campaign import GRACE, CampaignTimetable

VIENNA = ZoneInfo("Europe/Vienna")
WEEKLY = CampaignTimetable("0 22 * * 2", timezone="Europe/Vienna")
EVER = TimeRestriction(earliest=pendulum.datetime(2020, 1, 1), latest=None, catchup=True)


def next_at(
    now: datetime, *, last: datetime | None = None, restriction: TimeRestriction = EVER, timetable: CampaignTimetable = WEEKLY
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
    restriction = TimeRestriction(
        earliest=None if earliest is None else pendulum.instance(earliest), latest=None, catchup=True
    )
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
