"""When will each stage of a plan begin and end, what does it wait for, and which hosts will not fit?

The plan's text shows it before anyone approves. It goes through the stages in order, as the rollout would: a stage's turn comes
when the one before has soaked, it waits for its window less everything that closes it, and its waves follow one another, each as
long as its slowest host takes at most in nineteen of twenty cases. Nobody knows when people answer, so each stage is told as if
its approval came at once, with the moment by which it has to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from patchwave.campaign import rollout, windows
from patchwave.campaign.rollout import StepKind
from patchwave.campaign.values import HostId, StageName
from patchwave.campaign.windows import Closure, Listing, Span

if TYPE_CHECKING:
    from patchwave.campaign.plan import Plan, StagePlan

NAMED = 5
"""So many hosts that do not fit are named; the others are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageForecast:
    """What is to be expected of one stage, if the stages before it go as expected.

    Attributes:
        turn: when it could begin if nothing closed it; None: nobody knows, for nobody knows when the stage before begins.
        span: the opening in which it acts; None: none is known, or it has no window and nothing closes it.
        starts: when its first host is begun; None: it is not.
        ends: when its last host is settled.
        soaked: when the next stage's turn comes.
        because: why it begins no earlier, a sentence each.
        misfits: hosts that will not be begun, for they would not be over before `span` closes: `out_of_window`.
        approve_by: until then an approval costs none of the opening; None: it needs none, or there is nothing to miss.
        zone: in which people think of its window.
    """

    stage: StageName
    hosts: int
    turn: datetime | None
    span: Span | None = None
    starts: datetime | None = None
    ends: datetime | None = None
    soaked: datetime | None = None
    because: tuple[str, ...] = ()
    misfits: tuple[HostId, ...] = ()
    approve_by: datetime | None = None
    zone: str = "UTC"

    @property
    def waits(self) -> timedelta:
        """For its window."""
        return self.starts - self.turn if self.starts and self.turn else timedelta()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Steps:
    """How long the steps of one platform take."""

    scan: timedelta
    patch: timedelta

    @property
    def whole(self) -> timedelta:
        return self.scan + self.patch


def forecast(
    plan: Plan, *, now: datetime, closures: Sequence[Closure] = (), listings: Mapping[str, Listing] | None = None
) -> tuple[StageForecast, ...]:
    """What is to be expected of each stage of the plan, in order.

    Args:
        now: when the first stage's turn comes.
        closures: freezes, and what change calendars say; each says which stages it concerns.
        listings: by stage, openings of those whose window is a maintenance window of Systems Manager.
    """
    found: list[StageForecast] = []
    turn: datetime | None = now
    for stage in plan.stages:
        mine = [closure for closure in closures if closure.concerns(stage.name)]
        one = _stage(plan, stage, turn, mine, (listings or {}).get(stage.name))
        found.append(one)
        turn = one.soaked
    return tuple(found)


def _stage(
    plan: Plan, stage: StagePlan, turn: datetime | None, closures: Sequence[Closure], listing: Listing | None
) -> StageForecast:
    zone = stage.window.timezone if stage.window and not stage.window.maintenance_window else "UTC"
    count = len(stage.hosts)
    if turn is None:
        why = "nobody knows when its turn comes, for the stage before it has no opening"
        return StageForecast(stage=stage.name, hosts=count, turn=None, because=(why,), zone=zone)
    if not count:
        return StageForecast(stage=stage.name, hosts=0, turn=turn, starts=turn, ends=turn, soaked=turn, zone=zone)
    steps = {platform: _steps(plan, platform) for platform in {host.platform for host in stage.hosts}}
    span: Span | None = None
    because: tuple[str, ...] = ()
    if stage.window is not None or closures:
        if stage.window is not None and stage.window.maintenance_window and listing is None:
            listing = Listing(because=f"when {stage.window} opens was not asked")
        opening = windows.opening(stage.window, turn, closures=closures, least=shortest(plan, stage), listed=listing)
        span, because = opening.span, opening.because
        if span is None:
            return StageForecast(stage=stage.name, hosts=count, turn=turn, because=because, zone=zone)
    starts = turn if span is None else max(turn, span.opens)
    ends, misfits = _through(stage, steps, starts, span)
    return StageForecast(
        stage=stage.name,
        hosts=count,
        turn=turn,
        span=span,
        starts=starts,
        ends=ends,
        soaked=ends + stage.soak,
        because=because,
        misfits=misfits,
        approve_by=span.opens if stage.approval_required and span is not None and span.opens > turn else None,
        zone=zone,
    )


def shortest(plan: Plan, stage: StagePlan) -> timedelta:
    """How long the quickest host of the stage takes at most: what is left of an opening and shorter is no use to anybody."""
    return min((_steps(plan, platform).whole for platform in {host.platform for host in stage.hosts}), default=timedelta())


def _steps(plan: Plan, platform: str) -> _Steps:
    its = {**rollout.at_most(platform), **plan.expected.get(platform, {})}
    return _Steps(scan=its[StepKind.SCAN], patch=its[StepKind.INSTALL] + its[StepKind.REBOOT] + its[StepKind.VERIFY])


def _through(
    stage: StagePlan, steps: Mapping[str, _Steps], starts: datetime, span: Span | None
) -> tuple[datetime, tuple[HostId, ...]]:
    """When the last host is settled, and who does not fit.

    All hosts are scanned first, then one wave follows the other; a host that does not fit holds up nobody.
    """
    platforms = {host.id: host.platform for host in stage.hosts}
    reached = [host for wave in stage.waves for host in wave.hosts]
    closes = span.closes if span is not None else datetime.max.replace(tzinfo=UTC)
    late = {host for host in reached if starts + steps[platforms[host]].whole > closes}
    at = starts + max((steps[platforms[host]].scan for host in reached if host not in late), default=timedelta())
    for wave in stage.waves:
        late |= {host for host in wave.hosts if at + steps[platforms[host]].patch > closes}
        at += max((steps[platforms[host]].patch for host in wave.hosts if host not in late), default=timedelta())
    return at, tuple(host for host in reached if host in late)


# --- for people ---------------------------------------------------------------------------------------------------------
def sentences(stages: Sequence[StageForecast], names: Mapping[HostId, str] | None = None) -> tuple[str, ...]:
    """The forecast as people read it: of each stage when it begins and ends, then what it waits for and who does not fit.

    Args:
        names: of hosts, for those that do not fit.
    """
    return tuple(sentence for stage in stages for sentence in _sentences(stage, names or {}))


def _sentences(one: StageForecast, names: Mapping[HostId, str]) -> list[str]:
    zone = ZoneInfo(one.zone)
    told = [_when(one, zone)]
    told += [f"{one.stage}: {why}." for why in one.because]
    if one.span is not None and one.starts is not None and one.waits:
        until = f"closes at {windows.shown(one.span.closes, zone)}"
        told.append(
            f"{one.stage}: it waits {in_words(one.waits)} for the opening of {windows.shown(one.span.opens, zone)}, "
            f"which {until}."
        )
    if one.approve_by is not None:
        told.append(f"{one.stage}: an approval until {windows.shown(one.approve_by, zone)} costs none of this opening.")
    if one.misfits and one.span is not None:
        some = ", ".join(names.get(host) or host for host in one.misfits[:NAMED])
        more = f" and {len(one.misfits) - NAMED} more" if len(one.misfits) > NAMED else ""
        count = f"{len(one.misfits)} of {one.hosts} hosts will" if one.hosts > 1 else "its host will"
        told.append(
            f"{one.stage}: {count} not fit before it closes at {windows.shown(one.span.closes, zone)}: {some}{more}. They end as "
            "out_of_window, and the next run takes them; make the window longer, or allow more hosts at once."
        )
    return told


def _when(one: StageForecast, zone: ZoneInfo) -> str:
    if not one.hosts:
        return f"{one.stage}: no hosts, so it takes no time."
    if one.starts is None or one.ends is None or one.soaked is None:
        return f"{one.stage}: not known when it begins."
    if len(one.misfits) == one.hosts:
        return f"{one.stage}: begins at {windows.shown(one.starts, zone)}, and no host fits into its window."
    ends = f"ends by {windows.shown(one.ends, zone)} ({in_words(one.ends - one.starts)})"
    soaks = f", and has soaked at {windows.shown(one.soaked, zone)}" if one.soaked > one.ends else ""
    return f"{one.stage}: begins at {windows.shown(one.starts, zone)}, {ends}{soaks}."


def in_words(value: timedelta) -> str:
    """``2 days 3 hours``: the two largest units, rounded up to minutes."""
    whole = -(-value // timedelta(minutes=1))
    parts = [(whole // 1440, "day"), (whole // 60 % 24, "hour"), (whole % 60, "minute")]
    return (
        " ".join(f"{count} {unit}{'s' if count != 1 else ''}" for count, unit in [part for part in parts if part[0]][:2])
        or "no time"
    )
