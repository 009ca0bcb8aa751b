"""When does a campaign start by itself?

At the moments of its cron expression in its own time zone, and never for a moment that has passed: Airflow's own cron
timetable starts a run at once for the last missed moment when a DAG is unpaused, which for patching is an outage.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones.timezone import coerce_datetime, utcnow
from airflow.timetables.base import DagRunInfo, DataInterval
from airflow.timetables.trigger import CronTriggerTimetable

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction
    from pendulum import DateTime

GRACE = timedelta(minutes=3)
"""A moment this young still counts as now: the scheduler and the DAG processor may ask a little late, and a campaign that
is due must not be lost because the file was parsed one second after its moment."""


class CampaignTimetable(CronTriggerTimetable):
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
