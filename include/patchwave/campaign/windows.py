"""When may a stage's hosts be disrupted, and what still fits before that is over?

A campaign file gives a stage a window: a cron that says when it opens, in a time zone, and how long it stays open. The plan
shows it, the stage's task asks `occurrence` once for the span in which it may act, and `rollout.decide` begins nothing outside
of it and nothing that would not be over in time. How long a host takes is learned from earlier runs (`expected`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

from croniter import croniter  # type: ignore[import-untyped]

Step = TypeVar("Step", bound=str)

FEWEST_SAMPLES = 5
"""With fewer, one bad night would be the rule."""
PERCENTILE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """When a stage may be worked on.

    Attributes:
        cron: five fields, read in `timezone`: when it opens.
        duration: how long it stays open, in real time: a night in which the clock is changed makes it no longer.
        timezone: IANA name.
    """

    cron: str
    duration: timedelta
    timezone: str

    def __str__(self) -> str:
        return f"{self.cron} {self.timezone}, open for {self.duration}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One opening of a window.

    Attributes:
        opens: it is open from here on.
        closes: and not from here on.
    """

    opens: datetime
    closes: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.opens <= moment < self.closes


def _moment(local: datetime, zone: ZoneInfo) -> datetime:
    """The moment at which people's clocks show `local`: the first one where they show it twice, the one after the jump where
    they never do."""
    aware = local.replace(tzinfo=zone, fold=0)
    return aware.astimezone(UTC)


def occurrence(window: Window, now: datetime) -> Span:
    """The opening that `now` lies in, else the next one.

    croniter is asked in local time without a zone, so that 22:00 stays 22:00 when the clock is changed; the zone is put to
    it afterwards.

    Args:
        now: aware.
    """
    zone = ZoneInfo(window.timezone)
    local = now.astimezone(zone).replace(tzinfo=None)
    # From before the window's length (and the largest change of clocks), so that the opening that still lasts is seen.
    moments = croniter(window.cron, local - window.duration - timedelta(hours=3))
    while True:
        opens = _moment(moments.get_next(datetime), zone)
        if opens + window.duration > now:
            return Span(opens=opens, closes=opens + window.duration)


def expected(samples: Mapping[Step, Sequence[timedelta]], default: Mapping[Step, timedelta]) -> dict[Step, timedelta]:
    """How long each step takes at most in nineteen of twenty cases: from what was seen, else the default.

    Args:
        samples: seen durations by step.
        default: by step; each step of it is in the answer.
    """
    return {
        step: percentile(seen) if len(seen := samples.get(step, ())) >= FEWEST_SAMPLES else usual
        for step, usual in default.items()
    }


def percentile(samples: Sequence[timedelta], share: float = PERCENTILE) -> timedelta:
    """The smallest sample that is not below `share` of them (nearest rank).

    Raises:
        ValueError: there is none.
    """
    if not samples:
        raise ValueError("no samples, no percentile")
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]
