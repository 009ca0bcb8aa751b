"""How often is AWS asked, and when is what it said worth waking a task up?

Pure but for one table: how slowly each cell is to be asked, shared by all campaigns of the process. Triggers ask both
questions at each look; time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from patchwave.aws.commands import CommandStatus
from patchwave.campaign.rollout import Invocation, Outcome

SLOWEST = timedelta(minutes=3)
"""Nothing in flight is left alone for longer."""
SHARE = 0.2
"""A look is due when this part of the time has passed again: what ends after t is seen by 1.2 t."""
NOT_BEFORE = 0.4
"""Nobody looks before this part of the time has passed that such a step usually takes. With a fifth, nine looks more
were taken at 500 hosts, and none told anything (`make bench-calls`); hosts on which a step ends so early are those where it fails
at once, and they wait for the others of their command anyway."""
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
        token: of the dispatch.
        hosts: how many it has.
        known: on how many of them it has ended, as far as the task knows.
        since: AWS's time of it.
        usual: how long it usually takes on all of its hosts.
        learned: whether this stage showed that; if not, it is a guess, and no reason not to look.
        late: after that time hosts on which it has ended go on without the others.
        looked: when somebody looked last; None: nobody has.
    """

    token: str
    hosts: int
    known: int
    since: datetime
    usual: timedelta
    learned: bool
    late: timedelta
    looked: datetime | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Watched:
        """From what `patchwave.execution.executor.wait_for` says."""
        return cls(
            token=str(content.get("token", "")),
            hosts=int(content.get("hosts", 0)),
            known=int(content["known"]),
            since=datetime.fromisoformat(content["since"]),
            usual=timedelta(seconds=content["usual"]),
            learned=bool(content["learned"]),
            late=timedelta(seconds=content["late"]),
            looked=datetime.fromisoformat(content["looked"]) if content.get("looked") else None,
        )

    @property
    def first_look(self) -> datetime:
        """No look before that is worth its call: at its usual end, or early on if that is not known."""
        return self.since + (self.usual if self.learned else self.usual * NOT_BEFORE)

    def next_look(self, looked: datetime | None, *, fastest: timedelta) -> datetime:
        """When it is due, having been looked at then: more and more seldom, the longer its end is overdue."""
        if looked is None or looked < self.first_look:
            return self.first_look
        if self.learned:
            return looked + max(fastest, min(max(SLOWEST, fastest), looked - self.first_look))
        return looked + pause(looked - self.since, fastest=fastest)


@dataclass
class News:
    """What the commands of one cell have told since the task was last awake.

    The hosts of a command go on together, in one call for each next step: what has ended on some of them is news only once the
    others are late.

    Attributes:
        commands: by id.
        patience: how long a command that is over waits for the others.
        fastest: shortest time between two looks at a command.
        over: ids of those that are over.
        new: ids of those that have something to tell.
        told: invocations as they were read last, by id; of those commands only whose invocations were read.
        looked: when each was looked at last, by id.
    """

    commands: Mapping[str, Watched]
    patience: timedelta
    fastest: timedelta
    over: set[str] = field(default_factory=set)
    new: set[str] = field(default_factory=set)
    told: dict[str, Sequence[Invocation]] = field(default_factory=dict)
    looked: dict[str, datetime] = field(default_factory=dict)
    _due: dict[str, datetime] = field(default_factory=dict)
    _first: datetime | None = None

    def __post_init__(self) -> None:
        self._due = {command: one.next_look(one.looked, fastest=self.fastest) for command, one in self.commands.items()}

    @property
    def open(self) -> tuple[str, ...]:
        """Commands that are not over, as far as is known."""
        return tuple(command for command in self.commands if command not in self.over)

    @property
    def due(self) -> datetime:
        """When the first of them is to be looked at, or what there is to tell has waited long enough."""
        moments = [self._due[command] for command in self.open]
        return min(moments if self._first is None else [*moments, self._first + self.patience])

    def asked(self, now: datetime) -> tuple[str, ...]:
        """Commands that are due."""
        return tuple(command for command in self.open if self._due[command] <= now)

    def is_worth_waking(self, now: datetime) -> bool:
        """Whether all commands are over, or what there is to tell has waited long enough."""
        return not self.open or (self._first is not None and now - self._first >= self.patience)

    def saw(self, statuses: Mapping[str, CommandStatus], *, now: datetime, factor: float = 1.0) -> None:
        """Take in how commands stand.

        Args:
            factor: how much more seldom the cell is asked than usual.
        """
        for command in self.commands.keys() & statuses.keys():
            status, watched = statuses[command], self.commands[command]
            self.looked[command] = now
            if status.completed > _ended(self.told.get(command, ())):
                self.told.pop(command, None)  # more has ended since its invocations were read
            self._due[command] = now + (watched.next_look(now, fastest=self.fastest) - now) * factor
            if status.complete:
                self.over.add(command)
            if status.complete or (status.completed > watched.known and now - watched.since > watched.late):
                self.new.add(command)
                self._first = self._first or now
        self.put_off([command for command in self.asked(now) if command not in statuses], now=now, factor=factor)

    def put_off(self, commands: Iterable[str], *, now: datetime, factor: float = 1.0) -> None:
        """AWS said nothing of them: they are asked for again, later."""
        for command in commands:
            later = self.commands[command].next_look(now, fastest=self.fastest) - now
            self._due[command] = now + max(later, self.fastest) * factor

    def woken(self, now: datetime) -> None:
        """Somebody says that something has ended: each is due."""
        self._due = dict.fromkeys(self._due, now)

    def read(self, command: str, invocations: Sequence[Invocation]) -> CommandStatus | None:
        """What the invocations of a command say of it as a whole.

        Returns:
            None if all that AWS lists have ended and it does not list all: only ListCommands knows more then.
        """
        watched = self.commands[command]
        ended = _ended(invocations)
        if not invocations or ended == len(invocations) < watched.hosts:
            return None
        self.told[command] = invocations
        return CommandStatus(
            id=command, status="", details="", complete=ended >= watched.hosts, requested_at=watched.since,
            targets=watched.hosts, completed=ended, errors=0,
        )  # fmt: skip


def _ended(invocations: Iterable[Invocation]) -> int:
    return sum(1 for one in invocations if one.outcome is not Outcome.RUNNING)
