"""When does a campaign start by itself?

At the moments of its schedule in its own time zone, and never for a moment that has passed: Airflow's own cron timetable
starts a run at once for the last missed moment when a DAG is unpaused, which for patching is an outage. The schedule may be a
cron expression, days of the week, or the second Tuesday of the month and some days more; `of` chooses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow._shared.timezones.timezone import coerce_datetime, utcnow
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable
from airflow.timetables.trigger import CronTriggerTimetable

from patchwave.campaign import windows

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction
    from pendulum import DateTime

    from patchwave.campaign.definition import Schedule  # every Airflow process loads this file, and few need that one

GRACE = timedelta(minutes=3)
"""A moment this young still counts as now: the scheduler and the DAG processor may ask a little late, and a campaign that
is due must not be lost because the file was parsed one second after its moment."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class ForwardOnly(Timetable):
    """What all of them have in common: the next moment that is still to come.

    `_align_to_next` (the first moment that is not before another one) and `_get_next` (the first after it) are Airflow's where
    the schedule is a cron, and `LocalTimetable`'s elsewhere.
    """

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """A run by hand is about the moment it was asked for."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next moment that is still to come, whatever was missed; `catchup` changes nothing."""
        earliest = coerce_datetime(utcnow()) - GRACE
        if restriction.earliest is not None:
            earliest = max(earliest, restriction.earliest)
        moment = self._align_to_next(earliest)
        if last_automated_data_interval is not None and moment <= last_automated_data_interval.end:
            moment = self._get_next(last_automated_data_interval.end)
        if restriction.latest is not None and restriction.latest < moment:
            return None
        return DagRunInfo.exact(moment)


class CampaignTimetable(ForwardOnly, CronTriggerTimetable):
    """Cron in a time zone, forward only.

    Args:
        cron: five fields.
        timezone: IANA name; daylight saving is kept: 22:00 stays 22:00.
    """

    def __init__(self, cron: str, *, timezone: str) -> None:
        super().__init__(cron, timezone=timezone)
        self.zone = timezone
        self.description: str = f"{self._describe_with_dom_dow_fix(self._expression)} ({timezone}); moments missed stay missed"

    @property
    def summary(self) -> str:
        """What the list of DAGs shows."""
        return f"{self._expression} {self.zone}"

    def serialize(self) -> dict[str, Any]:
        """Its arguments."""
        return {"cron": self._expression, "timezone": self.zone}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CampaignTimetable:
        """What `serialize` wrote."""
        return cls(data["cron"], timezone=data["timezone"])


class LocalTimetable(ForwardOnly):
    """Days at a local time, which stays when clocks change. A time that clocks skip is taken behind the jump, one that they
    show twice the first time.

    Args:
        at: time of day as clocks in `timezone` show it.
        timezone: IANA name.
    """

    def __init__(self, *, at: time, timezone: str) -> None:
        self.at, self.timezone = at, timezone
        self.description: str = f"{self._days_told()} at {at:%H:%M} ({timezone}); moments missed stay missed"

    @property
    def summary(self) -> str:
        """What the list of DAGs shows."""
        return f"{self._days_told()} {self.at:%H:%M} {self.timezone}"

    @abstractmethod
    def _days_told(self) -> str:
        """Its days, as people say it."""

    @abstractmethod
    def _days(self, since: date) -> Iterator[date]:
        """Its days in order, without end, from `since` on at the latest."""

    def _moments(self, since: datetime) -> Iterator[DateTime]:
        zone = ZoneInfo(self.timezone)
        # Two days before: a moment may lie behind a jump of the clocks, over midnight.
        for day in self._days(since.astimezone(zone).date() - timedelta(days=2)):
            yield coerce_datetime(windows.moment_of(datetime.combine(day, self.at), zone))

    def _align_to_next(self, current: DateTime) -> DateTime:
        return next(moment for moment in self._moments(current) if moment >= current)

    def _get_next(self, current: DateTime) -> DateTime:
        return next(moment for moment in self._moments(current) if moment > current)


class WeeklyTimetable(LocalTimetable):
    """Days of every week at a local time.

    Args:
        on: Monday is 0.
    """

    def __init__(self, *, on: Sequence[int], at: time, timezone: str) -> None:
        self.on = tuple(sorted(set(on)))
        super().__init__(at=at, timezone=timezone)

    def _days_told(self) -> str:
        return f"Every {', '.join(DAYS[day] for day in self.on)}"

    def _days(self, since: date) -> Iterator[date]:
        return (day for number in count() if (day := since + timedelta(days=number)).weekday() in self.on)

    def serialize(self) -> dict[str, Any]:
        """Its arguments."""
        return {"on": list(self.on), "at": f"{self.at:%H:%M}", "timezone": self.timezone}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> WeeklyTimetable:
        """What `serialize` wrote."""
        return cls(on=data["on"], at=time.fromisoformat(data["at"]), timezone=data["timezone"])


class PatchTuesdayTimetable(LocalTimetable):
    """The second Tuesday of each month and some days more, at a local time.

    Args:
        plus_days: 0 to 27; so many may lead into the next month.
    """

    def __init__(self, *, plus_days: int, at: time, timezone: str) -> None:
        self.plus_days = plus_days
        super().__init__(at=at, timezone=timezone)

    def _days_told(self) -> str:
        later = f" plus {self.plus_days} day{'s' if self.plus_days != 1 else ''}" if self.plus_days else ""
        return f"Second Tuesday of the month{later}"

    def _days(self, since: date) -> Iterator[date]:
        months = count(since.year * 12 + since.month - 1 - 2)  # 27 days after the second Tuesday is the next month
        days = (second_tuesday(*divmod(month, 12)) + timedelta(days=self.plus_days) for month in months)
        return (day for day in days if day >= since)

    def serialize(self) -> dict[str, Any]:
        """Its arguments."""
        return {"plus_days": self.plus_days, "at": f"{self.at:%H:%M}", "timezone": self.timezone}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> PatchTuesdayTimetable:
        """What `serialize` wrote."""
        return cls(plus_days=data["plus_days"], at=time.fromisoformat(data["at"]), timezone=data["timezone"])


def second_tuesday(year: int, month: int) -> date:
    """Of a month, counted from 0 as `divmod` does it."""
    eighth = date(year, month + 1, 8)
    return eighth + timedelta(days=(1 - eighth.weekday()) % 7)


def of(schedule: Schedule | None) -> Timetable | None:
    """The timetable of a campaign's schedule; None: it is started by hand."""
    if schedule is None:
        return None
    if (its := schedule.patch_tuesday) is not None:
        return PatchTuesdayTimetable(plus_days=its.plus_days, at=its.at, timezone=its.timezone)
    if (weekly := schedule.weekly) is not None:
        days = [DAYS.index(day.value.capitalize()) for day in weekly.on]
        return WeeklyTimetable(on=days, at=weekly.at, timezone=weekly.timezone)
    return CampaignTimetable(schedule.cron or "", timezone=schedule.timezone or "UTC")


TIMETABLES: tuple[type[Timetable], ...] = (CampaignTimetable, WeeklyTimetable, PatchTuesdayTimetable)
"""What the plugin registers: without it their DAGs cannot be serialised."""
