"""Go on, wait, take back or stop? An Auto Scaling group whose instances are replaced by ones from a new image.

AWS carries it out as an instance refresh; `decide` says what is to be asked of AWS next, from what it tells of the group and its
refreshes. A refresh has no token: ours is known by what it asks for, the launch template version that was made for this run
and names the token in its description. Numbers are computed from the campaign's own budget (`preferences`). Pure: no clock,
no AWS; `aws.refreshes` makes the calls.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from patchwave.campaign.rollout import Halt, Wait
from patchwave.campaign.values import HostId

LONGEST_PAUSE = timedelta(days=2)
"""Auto Scaling API reference, RefreshPreferences: CheckpointDelay and BakeTime are at most 172,800 seconds."""
MOST_ALARMS = 10
"""Auto Scaling API reference, AlarmSpecification: at most 10 names."""
LOOK = timedelta(seconds=30)
"""AWS moves on no faster (user guide: poll an instance refresh every 15 to 30 seconds)."""


class Status(StrEnum):
    """A refresh, in AWS's words."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    BAKING = "Baking"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    CANCELLING = "Cancelling"
    CANCELLED = "Cancelled"
    ROLLBACK_IN_PROGRESS = "RollbackInProgress"
    ROLLBACK_SUCCESSFUL = "RollbackSuccessful"
    ROLLBACK_FAILED = "RollbackFailed"


ACTIVE = frozenset(
    {Status.PENDING, Status.IN_PROGRESS, Status.BAKING, Status.CANCELLING, Status.ROLLBACK_IN_PROGRESS}
)
"""One of these at a time in a group, rollbacks included."""
REPLACING = frozenset({Status.PENDING, Status.IN_PROGRESS, Status.BAKING})
"""Can still be taken back."""


class Treatment(StrEnum):
    """What a refresh does with an instance that is protected from scale-in, or stands by."""

    WAIT = "Wait"
    IGNORE = "Ignore"


@dataclass(frozen=True, kw_only=True, slots=True)
class TemplateVersion:
    """A numbered version of a launch template; aliases would make a refresh impossible to take back."""

    template: str
    version: str

    def __str__(self) -> str:
        return f"{self.template} version {self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preferences:
    """How AWS is to go about it: `RefreshPreferences` of StartInstanceRefresh.

    Attributes:
        min_healthy: percent of the desired capacity that stay in service, 0-100.
        max_healthy: percent that it may grow to meanwhile, 100-200; None: it never grows, instances go before others come.
        warmup: from in service to counted as healthy; None: what the group says.
        checkpoints: percents after which AWS pauses for `checkpoint_delay`, ascending; the last one is 100.
        bake: for how long the alarms are watched when all are replaced.
        alarms: CloudWatch alarms any of which takes the refresh back.
        protected, standby: `WAIT` fails the refresh after an hour, `IGNORE` leaves those instances as they are.
    """

    min_healthy: int
    max_healthy: int | None = None
    warmup: timedelta | None = None
    checkpoints: tuple[int, ...] = ()
    checkpoint_delay: timedelta = timedelta()
    bake: timedelta = timedelta()
    alarms: tuple[str, ...] = ()
    protected: Treatment = Treatment.WAIT
    standby: Treatment = Treatment.WAIT


def preferences(
    size: int,
    places: int,
    *,
    spare: bool = True,
    checkpoints: Sequence[int] = (),
    checkpoint_delay: timedelta = timedelta(),
    bake: timedelta = timedelta(),
    alarms: Sequence[str] = (),
    warmup: timedelta | None = None,
    protected: Treatment = Treatment.WAIT,
    standby: Treatment = Treatment.WAIT,
) -> Preferences:
    """What keeps a group within the campaign's budget: of `size` instances never more than `places` out of service.

    AWS takes whole percents of the desired capacity, so the share that stays is rounded up: fewer may go than the budget
    allows, never more. Where one percent is more than one host, AWS replaces one at a time, by launching first.

    Args:
        size: desired capacity, 1 or more.
        places: hosts that may be away at once, 1 or more.
        spare: whether the group has a host to spare; if not, the new instance is launched before the old one goes.

    Raises:
        ValueError: a number that AWS would refuse.
    """
    if size < 1 or places < 1:
        raise ValueError(f"found {size} instances and {places} places; allowed is 1 or more of each")
    if list(checkpoints) != sorted(set(checkpoints)) or not all(1 <= one <= 100 for one in checkpoints):
        raise ValueError(f"found checkpoints {list(checkpoints)}; allowed are percents from 1 to 100, each once, ascending")
    if max(checkpoint_delay, bake) > LONGEST_PAUSE:
        raise ValueError(f"allowed is a pause of at most {LONGEST_PAUSE.days} days")
    if len(alarms) > MOST_ALARMS:
        raise ValueError(f"found {len(alarms)} alarms; allowed are at most {MOST_ALARMS}")
    least = math.ceil(100 * (size - min(places, size)) / size) if spare else 100
    # Without a maximum AWS would still let one instance go when everything has to stay; with it, it launches first.
    most = None if least < 100 else min(200, 100 + max(1, math.floor(100 * places / size)))
    pauses = tuple(checkpoints)
    return Preferences(
        min_healthy=least,
        max_healthy=most,
        warmup=warmup,
        # AWS stops at the last checkpoint: without a 100 behind it, the rest would stay as it is, and be called a success.
        checkpoints=(*pauses, 100) if pauses and pauses[-1] != 100 else pauses,
        checkpoint_delay=checkpoint_delay if pauses else timedelta(),
        bake=bake,
        alarms=tuple(alarms),
        protected=protected,
        standby=standby,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """An instance of the group.

    Attributes:
        image: that it was launched from; empty if EC2 does not say.
        in_service: by the group's word, not on its way in or out.
        healthy: by the group's word.
        proven: its agent is online, a Scan after its launch found it compliant, and its target groups call it healthy.
        left_alone: protected from scale-in, or standing by, where the refresh ignores such instances.
    """

    host: HostId
    image: str
    in_service: bool = True
    healthy: bool = True
    proven: bool = False
    left_alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Refresh:
    """An instance refresh of the group, as AWS tells it.

    Attributes:
        asks_for: the launch template version that it brings; None if it names none.
        percent: of the instances that are replaced, healthy and warmed up.
        why: AWS's own words on where it stands; empty if there are none.
    """

    id: str
    status: Status
    asks_for: TemplateVersion | None
    began_at: datetime
    percent: int = 0
    why: str = ""

    @property
    def active(self) -> bool:
        """Whether it keeps another one from beginning."""
        return self.status in ACTIVE


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """The group as AWS tells it now.

    Attributes:
        refreshes: those that AWS remembers (six weeks), in whatever order.
        ours: the launch template version that was made for this run; None if there is none yet.
    """

    group: str
    image: str
    members: tuple[Member, ...]
    refreshes: tuple[Refresh, ...] = ()
    ours: TemplateVersion | None = None

    @property
    def old(self) -> tuple[Member, ...]:
        """Members that run another image, and that the refresh does not leave alone."""
        return tuple(one for one in self.members if one.image != self.image and not one.left_alone)


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeVersion:
    """Make the launch template version that names the new image."""

    image: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StartRefresh:
    """Begin the refresh."""

    asks_for: TemplateVersion


@dataclass(frozen=True, kw_only=True, slots=True)
class RollBack:
    """Take our refresh back: the instances it brought are replaced by ones from before."""

    refresh: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced:
    """Every instance runs the new image and is proven.

    Attributes:
        left: instances that were left alone, and still run another one.
    """

    hosts: tuple[HostId, ...]
    left: tuple[HostId, ...] = ()


Decision = MakeVersion | StartRefresh | RollBack | Wait | Halt | Replaced


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What the campaign says of this replacement.

    Attributes:
        patience: how long a new instance may take to be proven after the refresh has ended.
        foreign_until: until when another refresh is waited for.
        anew_since: when a person cleared the task last: refreshes of ours that had ended by then are history. None: nobody did.
    """

    patience: timedelta
    foreign_until: datetime
    anew_since: datetime | None = None


def decide(
    facts: Facts, terms: Terms, *, ended_at: datetime | None = None, ill: Collection[str] = (), now: datetime
) -> Decision:
    """What is to be asked of AWS next.

    Args:
        ended_at: when our refresh was first seen to have ended; None if it was not.
        ill: why the refresh has to be taken back (an error budget that is spent, health that failed), if there is a reason.
    """
    mine = _newest(
        one
        for one in facts.refreshes
        if facts.ours is not None
        and one.asks_for == facts.ours
        and (one.active or terms.anew_since is None or one.began_at >= terms.anew_since)
    )
    active = next((one for one in facts.refreshes if one.active), None)
    if mine is None:
        return _begin(facts, terms, active, now)
    if mine.active:
        return _under_way(facts, mine, ill, now)
    if mine.status is Status.SUCCESSFUL:
        if ill:
            return _halt(
                facts, "health", f"every instance was replaced, and {_listed(ill)}",
                "look at the new instances; a rollback campaign of this run brings the version before back",
            )  # fmt: skip
        return _proven(facts, terms, ended_at or now, now)
    return _ended_otherwise(facts, mine)


def _begin(facts: Facts, terms: Terms, active: Refresh | None, now: datetime) -> Decision:
    if not facts.old:
        # Whoever came before us has brought this image, or nobody runs in the group: there is nothing to replace.
        return _proven(facts, terms, now, now)
    if active is not None:
        if now >= terms.foreign_until:
            return _halt(
                facts, "one refresh at a time", f"refresh {active.id}, which is not ours, is still {active.status.value}",
                "wait for it or cancel it, then clear this task",
            )  # fmt: skip
        return Wait(
            reason=f"group {facts.group}: refresh {active.id}, which is not ours, is {active.status.value} at {active.percent} % "
            f"since {active.began_at:%Y-%m-%d %H:%M} UTC; AWS takes one at a time",
            ends="it has ended",
            until=min(terms.foreign_until, now + LOOK),
        )
    if facts.ours is None:
        return MakeVersion(image=facts.image)
    return StartRefresh(asks_for=facts.ours)


def _under_way(facts: Facts, mine: Refresh, ill: Collection[str], now: datetime) -> Decision:
    if ill and mine.status in REPLACING:
        return RollBack(refresh=mine.id, reason=_listed(ill))
    doing = {
        Status.PENDING: "has not begun yet",
        Status.BAKING: "has replaced every instance and watches them",
        Status.CANCELLING: "is being cancelled",
        Status.ROLLBACK_IN_PROGRESS: "is being taken back",
    }.get(mine.status, "replaces instances")
    return Wait(
        reason=f"group {facts.group}: refresh {mine.id} {doing}, {mine.percent} % of the instances are through"
        + (f" ({mine.why})" if mine.why else ""),
        ends="AWS calls it ended",
        until=now + LOOK,
    )


def _proven(facts: Facts, terms: Terms, since: datetime, now: datetime) -> Decision:
    """The refresh is a success by AWS's word; ours is that each instance is proven."""
    if facts.old:
        return _halt(
            facts, "truth", f"AWS calls the refresh successful, and {len(facts.old)} instances run another image: "
            f"{_listed(one.host for one in facts.old)}",
            "look at the group's scaling activities, then clear this task",
        )  # fmt: skip
    fresh = [one for one in facts.members if not one.left_alone]
    unproven = [one for one in fresh if not (one.in_service and one.healthy and one.proven)]
    if not unproven:
        left = tuple(one.host for one in facts.members if one.left_alone and one.image != facts.image)
        return Replaced(hosts=tuple(one.host for one in fresh), left=left)
    if now >= since + terms.patience:
        return _halt(
            facts, "truth", f"{len(unproven)} new instances are not proven: {_listed(one.host for one in unproven)}",
            "look at their agents and target groups, then clear this task",
        )  # fmt: skip
    return Wait(
        reason=f"group {facts.group}: {len(unproven)} new instances are not proven yet: {_listed(one.host for one in unproven)}",
        ends="each is in service, its agent answers, and a Scan has found nothing missing",
        until=min(since + terms.patience, now + LOOK),
    )


def _ended_otherwise(facts: Facts, mine: Refresh) -> Halt:
    said = f" ({mine.why})" if mine.why else ""
    if mine.status is Status.ROLLBACK_SUCCESSFUL:
        return _halt(
            facts, "taken back", f"refresh {mine.id} was taken back{said}: the instances are what they were",
            "do not use this image again: build a better one",
        )  # fmt: skip
    if mine.status is Status.CANCELLED:
        return _halt(
            facts, "kill means stop", f"refresh {mine.id} was cancelled{said}: {len(facts.old)} instances run another image",
            "clear this task to go on, or roll the run back",
        )  # fmt: skip
    return _halt(
        facts, "refresh failed", f"refresh {mine.id} is {mine.status.value}{said}: {len(facts.old)} instances run another image",
        "look at the group's scaling activities, then clear this task or roll the run back",
    )  # fmt: skip


def _halt(facts: Facts, rule: str, reason: str, advice: str) -> Halt:
    hosts = tuple(one.host for one in facts.members if one in facts.old or not (one.healthy and one.in_service))
    return Halt(rule=rule, reason=f"group {facts.group}: {reason}", hosts=hosts, advice=advice)


def _newest(found: Iterable[Refresh]) -> Refresh | None:
    return max(found, key=lambda one: one.began_at, default=None)


def _listed(said: Iterable[str]) -> str:
    words = [str(one) for one in said]
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


def begin_next(waiting: Sequence[tuple[str, int]], running: Sequence[int], places: int) -> tuple[str, ...]:
    """Which groups of a stage may begin now, so that all that run keep within the stage's places together.

    Args:
        waiting: groups in order, each with the places that its refresh may take.
        running: places of those that are under way.
        places: of the stage.

    Returns:
        The first ones in order, until one does not fit; the first of all begins even if it alone takes more, for its own
        preferences were made for no more than the stage's places.
    """
    free = places - sum(running)
    chosen: list[str] = []
    for group, takes in waiting:
        if takes > free and (chosen or running):
            break
        chosen.append(group)
        free -= takes
    return tuple(chosen)
