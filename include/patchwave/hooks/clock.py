"""What time is it for the campaign?

Operators, triggers and the dashboard ask here and hand the time on. It is real time, unless a rehearsal against a simulator
runs: then hours of soaking pass in seconds, here as there, and everything that is recorded carries the simulator's time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from patchwave.campaign.errors import Permanent

VARIABLE = "PATCHWAVE_REHEARSAL_CLOCK"
"""``<epoch when it was started>,<epoch that it showed then>,<speed>``; unset in production."""


class ClockMisset(Permanent):
    """PATCHWAVE_REHEARSAL_CLOCK is not '<real epoch>,<virtual epoch>,<speed above 0>'."""


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    real: float
    virtual: float
    speed: float


def _rehearsal() -> _Rehearsal | None:
    written = os.environ.get(VARIABLE, "").strip()
    if not written:
        return None
    try:
        rehearsal = _Rehearsal(*(float(part) for part in written.split(",")))
    except (TypeError, ValueError) as error:
        raise ClockMisset(f"{VARIABLE} is {written!r}; allowed is '<real epoch>,<virtual epoch>,<speed>'") from error
    if not 0 < rehearsal.speed < float("inf"):
        raise ClockMisset(f"{VARIABLE} is {written!r}; its speed must be above 0")
    return rehearsal


def now() -> datetime:
    """The campaign's time, in UTC."""
    rehearsal = _rehearsal()
    if rehearsal is None:
        return datetime.now(UTC)
    return datetime.fromtimestamp(rehearsal.virtual + (time.time() - rehearsal.real) * rehearsal.speed, UTC)


def speed() -> float:
    """Campaign seconds per real second; 1.0 unless a rehearsal runs."""
    rehearsal = _rehearsal()
    return rehearsal.speed if rehearsal else 1.0


def real_delay(until: datetime) -> float:
    """Real seconds until the campaign's time is `until`; 0 if it has passed."""
    return max(0.0, (until - now()).total_seconds() / speed())


def real_time_of(moment: datetime) -> datetime:
    """When, on a real clock, the campaign's time is `moment`: what Airflow, which knows no rehearsal, is told."""
    rehearsal = _rehearsal()
    if rehearsal is None:
        return moment
    return datetime.fromtimestamp(rehearsal.real, UTC) + timedelta(
        seconds=(moment.timestamp() - rehearsal.virtual) / rehearsal.speed
    )
