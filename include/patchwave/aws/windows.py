"""When do Systems Manager's maintenance windows open, and are those that we declare there?

A window is read each time that a stage chooses its opening, and kept nowhere: whoever changes it in AWS changes the campaign.
`ensure_window` creates one that a campaign file declares and keeps it so; a window that somebody else made is never changed.
Nothing is registered with a window: Patchwave sends its own commands while it is open.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.aws import moments
from patchwave.aws.calendars import AHEAD
from patchwave.aws.calls import Calls
from patchwave.aws.errors import code_of
from patchwave.campaign import windows
from patchwave.campaign.definition import MaintenanceWindow
from patchwave.campaign.errors import InvalidRequest, PatchwaveError, Permanent
from patchwave.campaign.values import Cell
from patchwave.campaign.windows import Listing, Span

NOT_THERE = "DoesNotExistException"
OWN_MARK = "Kept by Patchwave as campaign {campaign} declares it"
"""Description of a window of ours: botocore model of ssm, at most 128 characters."""
LONGEST_MARK = 128
HOUR = timedelta(hours=1)


class NotOurs(Permanent):
    """A maintenance window of that name exists and was not made for this campaign, so it is not changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A declared window as `ensure_window` found it and left it.

    Attributes:
        id: AWS's.
        created: it was not there.
        drift: what was otherwise than declared, a sentence each; it was put back.
        enabled: False: somebody has switched it off, which is respected: it never opens until somebody switches it on.
    """

    id: str
    created: bool
    drift: tuple[str, ...] = ()
    enabled: bool = True


class MaintenanceWindows(Calls):
    """SSM maintenance windows."""

    def window_openings(self, cells: Iterable[Cell], name: str, *, now: datetime, until: datetime | None = None) -> Listing:
        """When the window is open in all of these cells, the opening of now included, without its cutoff.

        Args:
            cells: where the stage has hosts. A name must be there in each of them; an id is there in one.
            name: name or id.
            until: None means `AHEAD` of `now`; the first opening later than that is still listed.

        Returns:
            No opening, and why, where it is missing, switched off, or cannot be read: nothing may be begun then.
        """
        until = until or now + AHEAD
        found: list[tuple[Span, ...]] = []
        by_id = re.fullmatch(r"mw-[0-9a-f]{17}", name) is not None
        for cell in sorted(set(cells)):
            window = f"maintenance window {name} of {cell}"
            try:
                about = self._window(cell, name)
                if about is None:
                    if by_id:
                        continue
                    return Listing(because=f"{window} does not exist, so nothing is begun", missing=True)
                if not about.get("Enabled", True):
                    return Listing(because=f"{window} is switched off (Enabled is false), so nothing is begun")
                found.append(self._openings(cell, about, now, until))
            except (PatchwaveError, ValueError) as error:
                return Listing(because=f"{window} cannot be read, so nothing is begun: {error}")
            if not found[-1]:
                return Listing(because=f"{window} has no opening to come")
        if not found:
            return Listing(
                because=f"maintenance window {name} exists in none of the stage's cells, so nothing is begun", missing=True
            )
        common = windows.common(*found)
        return Listing(
            spans=common, because="" if common else f"the maintenance windows {name} of all cells are never open together"
        )

    def _window(self, cell: Cell, name: str) -> Mapping[str, Any] | None:
        """What GetMaintenanceWindow says; None if there is none.

        Raises:
            InvalidRequest: several have that name, which AWS allows.
        """
        if re.fullmatch(r"mw-[0-9a-f]{17}", name):
            try:
                return self.call(cell, "ssm:GetMaintenanceWindow", WindowId=name)
            except InvalidRequest as error:
                if code_of(error) == NOT_THERE:
                    return None
                raise
        filters = [{"Key": "Name", "Values": [name]}]
        ids = [
            row["WindowId"]
            for page in self.pages(cell, "ssm:DescribeMaintenanceWindows", Filters=filters)
            for row in page.get("WindowIdentities", ())
            if row.get("Name") == name
        ]
        if len(ids) > 1:
            raise InvalidRequest(
                f"{len(ids)} maintenance windows of {cell} are called {name} ({', '.join(sorted(ids))}); give the id"
            )
        return self._window(cell, ids[0]) if ids else None

    def _openings(self, cell: Cell, about: Mapping[str, Any], now: datetime, until: datetime) -> tuple[Span, ...]:
        """Its openings from now on. Closed from the cutoff on: what would be begun then, AWS would not begin."""
        window, lasts = about["WindowId"], (int(about["Duration"]) - int(about["Cutoff"])) * HOUR
        opens = self._begun(cell, window, now - lasts)
        for page in self.pages(cell, "ssm:DescribeMaintenanceWindowSchedule", WindowId=window, MaxResults=50):
            coming = [moments.parsed(row["ExecutionTime"]) for row in page.get("ScheduledWindowExecutions", ())]
            opens += coming
            if any(one > until for one in coming):
                break
        spans = [Span(opens=one, closes=one + lasts) for one in sorted(set(opens)) if one + lasts > now]
        later = [number for number, span in enumerate(spans) if span.opens > until]
        return tuple(spans[: later[0] + 1] if later else spans)

    def _begun(self, cell: Cell, window: str, since: datetime) -> list[datetime]:
        """Its openings that have begun: the schedule names the coming ones only. Without tasks it opens as well."""
        after = [{"Key": "ExecutedAfter", "Values": [moments.written(since)]}]
        return [
            # AWS begins some seconds after the minute that the schedule names.
            row["StartTime"].astimezone(UTC).replace(second=0, microsecond=0)
            for page in self.pages(cell, "ssm:DescribeMaintenanceWindowExecutions", WindowId=window, Filters=after)
            for row in page.get("WindowExecutions", ())
        ]

    # --- windows that a campaign declares -----------------------------------------------------------------------------
    def ensure_window(self, cell: Cell, declared: MaintenanceWindow, *, campaign: str, run: str) -> Kept:
        """Create the window that a campaign file declares, or put back what is otherwise.

        May be called again at any time, and beside itself: the client token is made of the run, the cell and what is declared.

        Raises:
            NotOurs: a window of that name was not made for this campaign.
            InvalidRequest: several have that name, or AWS refuses what is declared.
            OutcomeUnknown: the answer was lost; calling again is safe.
        """
        wanted = _wanted(declared, campaign)
        about = self._window(cell, declared.name)
        if about is None:
            said = "|".join(f"{key}={value}" for key, value in sorted(wanted.items()))
            token = hashlib.sha256(f"{run}|{cell}|{said}".encode()).hexdigest()
            made = self.call(cell, "ssm:CreateMaintenanceWindow", **wanted, AllowUnassociatedTargets=False, ClientToken=token)
            return Kept(id=made["WindowId"], created=True)
        if about.get("Description") != wanted["Description"]:
            raise NotOurs(
                f"maintenance window {declared.name} of {cell} ({about['WindowId']}) exists and was not made for campaign "
                f"{campaign}, so it is not changed; name it without a schedule to read it, or declare one under another name"
            )
        drift = {key: value for key, value in wanted.items() if about.get(key) != value}
        told = tuple(f"{key} was {about.get(key)!r} and is {value!r} again" for key, value in sorted(drift.items()))
        if drift:
            self.call(cell, "ssm:UpdateMaintenanceWindow", WindowId=about["WindowId"], **drift)
        return Kept(id=about["WindowId"], created=False, drift=told, enabled=bool(about.get("Enabled", True)))


def _wanted(declared: MaintenanceWindow, campaign: str) -> dict[str, Any]:
    if declared.schedule is None or declared.duration is None or declared.timezone is None:
        raise ValueError(f"maintenance window {declared.name} is named and not declared: it is read only")
    return {
        "Name": declared.name,
        "Description": OWN_MARK.format(campaign=campaign)[:LONGEST_MARK],
        "Schedule": declared.schedule,
        "ScheduleTimezone": declared.timezone,
        "Duration": declared.duration // HOUR,
        "Cutoff": (declared.cutoff or timedelta()) // HOUR,
    }
