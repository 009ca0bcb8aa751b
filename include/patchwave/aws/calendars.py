"""When is a change calendar closed? Systems Manager is asked for one moment after the other, from change to change.

A stage asks before it chooses the opening in which it acts, and again while it does. Each calendar is asked for itself: AWS
answers for several at once, but not which of them is closed. One that cannot be read counts as closed, with the reason, for a
freeze that nobody can see is still a freeze.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from patchwave.aws import moments
from patchwave.aws.calls import Calls
from patchwave.campaign.errors import PatchwaveError
from patchwave.campaign.values import Cell
from patchwave.campaign.windows import Closure

AHEAD = timedelta(days=45)
"""So far ahead a calendar is asked: a monthly window and the one after it."""
MOST_CHANGES = 100
"""Of one calendar; one that closes every night changes 90 times in 45 days."""


class ChangeCalendars(Calls):
    """SSM Change Calendar."""

    def calendar_closures(
        self, cells: Iterable[Cell], names: Sequence[str], *, now: datetime, until: datetime | None = None
    ) -> tuple[Closure, ...]:
        """When the calendars are CLOSED, from `now` on.

        What they say later than `until`, or after more than `MOST_CHANGES` changes, counts as closed until it is asked for.

        Args:
            cells: a calendar's name is asked in each of them, an ARN in the first one of its region.
            until: None means `AHEAD` of `now`.
        """
        places = sorted(set(cells))
        return tuple(
            closure
            for name in names
            for cell in _asked(places, name)
            for closure in self._closures(cell, name, now, until or now + AHEAD)
        )

    def _closures(self, cell: Cell, name: str, now: datetime, until: datetime) -> Iterator[Closure]:
        calendar = f"change calendar {name!r} of {cell}"
        at = now
        for _ in range(MOST_CHANGES):
            try:
                answer = self.call(cell, "ssm:GetCalendarState", CalendarNames=[name], AtTime=moments.written(at))
                following = moments.parsed(text) if (text := answer.get("NextTransitionTime")) else None
            except (PatchwaveError, ValueError) as error:
                yield Closure(
                    begins=at, ends=None, known=False, reason=f"{calendar} cannot be read, so nothing is begun: {error}"
                )
                return
            if following is not None and following <= at:
                following = None  # it would be asked for ever
            if answer.get("State") != "OPEN":
                yield Closure(begins=at, ends=following, reason=f"{calendar} is CLOSED")
            if following is None:
                return
            at = following
            if at >= until:
                break
        yield Closure(begins=at, ends=None, known=False, reason=f"what {calendar} says so far ahead is asked later")


def _asked(cells: Sequence[Cell], name: str) -> Sequence[Cell]:
    if not name.startswith("arn:"):
        return cells
    region = name.split(":")[3]
    return [cell for cell in cells if cell.region == region][:1]
