"""How often is AWS asked, and when is what it said worth waking a task up?

Pure but for one table: how slowly each cell is to be asked, shared by all campaigns of the process. Triggers ask both
questions at each look; time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from patchwave.aws.commands import CommandStatus

SLOWEST = timedelta(seconds=60)
SHARE = 0.15
"""A look is due when this part of the time has passed again: what ends after t is seen by 1.15 t."""
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


def pause(since: timedelta, *, fastest: timedelta) -> timedelta:
    """How long until the next look at something that may end at any moment: longer the longer it has not."""
    return max(fastest, min(max(SLOWEST, fastest), since * SHARE))


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """A command in flight.

    Attributes:
        known: on how many hosts it has ended, as far as the task knows.
        since: AWS's time of it.
        usual: how long it usually takes on all of its hosts.
        learned: whether this stage showed that; if not, it is a guess, and no reason not to look.
        late: after that time hosts on which it has ended go on without the others.
    """

    known: int
    since: datetime
    usual: timedelta
    learned: bool
    late: timedelta

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Watched:
        """From what `patchwave.execution.executor.wait_for` says."""
        return cls(
            known=int(content["known"]),
            since=datetime.fromisoformat(content["since"]),
            usual=timedelta(seconds=content["usual"]),
            learned=bool(content["learned"]),
            late=timedelta(seconds=content["late"]),
        )

    def next_look(self, now: datetime, *, fastest: timedelta) -> timedelta:
        """How long until it is worth a look: at its usual end, then more and more seldom; from the start if that is unknown."""
        if not self.learned:
            return pause(now - self.since, fastest=fastest)
        overdue = now - (self.since + self.usual)
        return -overdue if self.is_far(now, fastest=fastest) else pause(max(overdue, timedelta(0)), fastest=fastest)

    def is_far(self, now: datetime, *, fastest: timedelta) -> bool:
        """Whether its end is known to be so far away that no look is worth its call."""
        return self.learned and self.since + self.usual - now > fastest


@dataclass
class News:
    """What the commands of one cell have told since the task was last awake.

    The hosts of a command go on together, in one call for each next step: what has ended on some of them is news only once the
    others are late.

    Attributes:
        commands: by id.
        patience: how long a command that is over waits for the others.
        over: ids of those that are over.
    """

    commands: Mapping[str, Watched]
    patience: timedelta
    over: set[str] = field(default_factory=set)
    _first: datetime | None = None

    def saw(self, statuses: Mapping[str, CommandStatus], *, now: datetime) -> bool:
        """Whether the task should wake up: all commands are over, or what there is to tell has waited long enough."""
        for command, status in statuses.items():
            watched = self.commands.get(command)
            if watched is None:
                continue
            if status.complete:
                self.over.add(command)
            if status.complete or (status.completed > watched.known and now - watched.since > watched.late):
                self._first = self._first or now
        if self.commands and len(self.over) == len(self.commands):
            return True
        return self._first is not None and now - self._first >= self.patience

    def is_far(self, now: datetime, *, fastest: timedelta) -> bool:
        """Whether that holds of all of them."""
        return all(one.is_far(now, fastest=fastest) for one in self.commands.values())

    def next_look(self, now: datetime, *, fastest: timedelta) -> timedelta:
        """How long until the first of the commands that are not over is worth a look."""
        due = [one.next_look(now, fastest=fastest) for command, one in self.commands.items() if command not in self.over]
        if self._first is not None:
            due.append(max(self._first + self.patience - now, timedelta(seconds=1)))
        return min(due, default=SLOWEST)
