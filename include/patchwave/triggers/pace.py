"""How often is AWS asked, and when is what it said worth waking a task up?

Pure but for one table: how slowly each cell is to be asked, shared by all campaigns of the process. Triggers ask both
questions at each look; time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from patchwave.aws.commands import CommandStatus

SLOWEST = timedelta(seconds=60)
SHARE = 0.15
"""A look is due when this part of the time since the last change has passed again: what ends after t is seen by 1.15 t."""
MOST_FACTOR = 16.0
CALMS_AFTER = timedelta(seconds=60)
"""A cell that did not throttle for so long is asked twice as often again."""


@dataclass
class CellPace:
    """How much slower than usual one cell is asked, since it throttled."""

    factor: float = 1.0
    changed_at: datetime | None = None

    def throttled(self, now: datetime) -> None:
        """At once slower."""
        self.factor = min(MOST_FACTOR, self.factor * 2)
        self.changed_at = now

    def answered(self, now: datetime) -> None:
        """Faster again, by and by."""
        if self.factor > 1 and self.changed_at is not None and now - self.changed_at >= CALMS_AFTER:
            self.factor = max(1.0, self.factor / 2)
            self.changed_at = now


_cells: dict[tuple[str, str], CellPace] = {}


def pace_of(connection: str, cell: str) -> CellPace:
    """The pace of a cell; every trigger of this process that asks it under that connection shares it."""
    return _cells.setdefault((connection, cell), CellPace())


def pause(since_change: timedelta, *, fastest: timedelta, factor: float = 1.0) -> timedelta:
    """How long until the next look: short at first and after each change, longer while nothing changes."""
    return max(fastest, min(max(SLOWEST, fastest), since_change * SHARE)) * factor


@dataclass
class News:
    """What commands in flight have told since the task was last awake.

    Attributes:
        known: hosts by command id on which it has ended, as far as the task knows.
        patience: how long hosts that have ended wait for the others of their command: they go on together, in one call.
    """

    known: Mapping[str, int]
    patience: timedelta
    since: datetime
    _last: dict[str, int] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _first: datetime | None = None

    def saw(self, statuses: Mapping[str, CommandStatus], *, now: datetime) -> bool:
        """Whether the task should wake up: all commands are over, or what has ended has waited long enough."""
        for command, status in statuses.items():
            if command not in self.known:
                continue
            before = self._last.get(command, self.known[command])
            if status.completed > before or (status.complete and command not in self._over):
                self.since = now
                self._first = self._first or now
            self._last[command] = max(before, status.completed)
            if status.complete:
                self._over.add(command)
        if self.known and len(self._over) == len(self.known):
            return True
        return self._first is not None and now - self._first >= self.patience
