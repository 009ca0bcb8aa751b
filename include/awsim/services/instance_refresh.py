"""How does an instance refresh replace the instances of a group, step by step on the clock?

`Refresh` is one refresh; `_tick` looks at it every few virtual seconds and terminates, launches, waits, bakes, rolls back or
gives up. Machines come and go through `autoscaling.launch` and `retire`, so hosts, journal and target groups follow. The
limits (MinHealthyPercentage, MaxHealthyPercentage) hold at every moment but for the one instance that AWS replaces anyway.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from awsim import groups
from awsim.clock import moment
from awsim.faults import Kind
from awsim.groups import Group, Member
from awsim.host import Host
from awsim.journal import Cause
from awsim.registry import AwsError, Context, operation
from awsim.services import autoscaling, cloudwatch, events
from awsim.services.autoscaling import Replacements, in_service, lifecycle, need, scaling
from awsim.world import World

TICK = 5.0
PENDING = 10.0
STALL = 3600.0
"""Without progress for so long a refresh fails."""
KEPT = 42 * 86_400.0
LIFE = 14 * 86_400.0
ACTIVE = frozenset({"Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    percent: int
    left: int

    def as_json(self) -> dict[str, int]:
        return {"PercentageComplete": self.percent, "InstancesToUpdate": self.left}


@dataclass(kw_only=True, slots=True, eq=False)
class Refresh:
    id: str
    account: str
    region: str
    group: str
    preferences: dict[str, Any]
    """Complete, with defaults."""
    wanted: dict[str, Any] | None
    """The launch template that new instances are made by; None: the group's own."""
    asked: dict[str, Any] | None
    """DesiredConfiguration as it was given."""
    before: dict[str, Any] | None
    """The group's launch template when the refresh began."""
    cause: Cause
    begun: float
    strategy: str = "Rolling"
    status: str = "Pending"
    reason: str | None = None
    ended: float | None = None
    todo: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    """In standby or protected from scale-in, while the refresh waits for them."""
    original: frozenset[str] = frozenset()
    total: int = 0
    fresh: dict[str, float | None] = field(default_factory=dict)
    """New instance -> since when it is healthy, None while it is not."""
    ready: set[str] = field(default_factory=set)
    warm_todo: list[str] = field(default_factory=list)
    warm_total: int = 0
    checkpoints: list[int] = field(default_factory=list)
    waits_until: float | None = None
    progress_at: float = 0.0
    best: int = 0
    rollback: dict[str, Any] | None = None
    rollback_percent: int = 0

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    def done(self) -> int:
        return min(len(self.ready), self.total - len(self.todo) - len(self.blocked))

    def live(self) -> Progress:
        percent = math.floor(100 * self.done() / self.total) if self.total else 100
        return Progress(percent=percent, left=max(0, self.total - self.done()))

    def warm(self) -> Progress:
        replaced = self.warm_total - len(self.warm_todo)
        return Progress(
            percent=math.floor(100 * replaced / self.warm_total) if self.warm_total else 100, left=len(self.warm_todo)
        )

    def progress(self) -> Progress:
        live, warm = self.live(), self.warm()
        if not self.warm_total:
            return live
        total = self.total + self.warm_total
        done = self.done() + self.warm_total - len(self.warm_todo)
        return Progress(percent=math.floor(100 * done / total) if total else 100, left=live.left + warm.left)

    def details(self) -> dict[str, Any]:
        return {
            "LivePoolProgress": self.live().as_json(),
            "WarmPoolProgress": self.warm().as_json() if self.warm_total else None,
        }

    def as_row(self) -> dict[str, Any]:
        shown = self.progress()
        return {
            "InstanceRefreshId": self.id,
            "AutoScalingGroupName": self.group,
            "Status": self.status,
            "StatusReason": self.reason,
            "StartTime": moment(self.begun),
            "EndTime": moment(self.ended) if self.ended is not None else None,
            "PercentageComplete": shown.percent if self.status != "Pending" else 0,
            "InstancesToUpdate": shown.left,
            "ProgressDetails": self.details() if self.status != "Pending" else None,
            "Preferences": self.preferences,
            "DesiredConfiguration": self.asked,
            "RollbackDetails": self.rollback,
            "Strategy": self.strategy,
        }


class Refreshes:
    """The refreshes of a cell, oldest first."""

    def __init__(self) -> None:
        self.of: dict[str, list[Refresh]] = {}


def active(world: World, account: str, region: str, name: str) -> Refresh | None:
    rows = world.state(account, region, Refreshes).of.get(name, [])
    return rows[-1] if rows and rows[-1].active else None


# --- operations ---


@operation("autoscaling", "StartInstanceRefresh")
def start_instance_refresh(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """One a group at a time; what it will do is decided by preferences that are checked here."""
    name, world = params["AutoScalingGroupName"], ctx.world
    group = need(ctx.account, ctx.region, name)
    if active(world, ctx.account, ctx.region, name) is not None:
        raise AwsError(
            "InstanceRefreshInProgress",
            f"An Instance Refresh is already in progress and blocks the execution of this Instance Refresh for {name}.",
        )
    asked, before = params.get("DesiredConfiguration"), _own_template(group)
    wanted = _specification(asked)
    _check_template(ctx, group, wanted, asked=asked is not None)
    preferences = _preferences(ctx, group, dict(params.get("Preferences") or {}), asked is not None)
    if params.get("Strategy") == "ReplaceRootVolume":
        _check_root_volume(group, preferences, wanted or before)
    refresh = Refresh(
        id=_identifier(ctx, name),
        account=ctx.account,
        region=ctx.region,
        group=name,
        preferences=preferences,
        wanted=wanted,
        asked=asked,
        before=before,
        cause=Cause(request_id=ctx.request_id),
        begun=ctx.at,
        strategy=params.get("Strategy") or "Rolling",
        checkpoints=list(preferences.get("CheckpointPercentages") or []),
    )
    world.state(ctx.account, ctx.region, Refreshes).of.setdefault(name, []).append(refresh)
    world.at(ctx.at + PENDING, lambda _: _begin(world, refresh))
    return {"InstanceRefreshId": refresh.id}


def _check_root_volume(group: Group, preferences: dict[str, Any], template: dict[str, Any] | None) -> None:
    if template is None:
        raise AwsError("ValidationError", "The ReplaceRootVolume strategy requires a launch template.")
    if preferences.get("MaxHealthyPercentage", 100) > 100:
        raise AwsError(
            "ValidationError",
            "The ReplaceRootVolume strategy launches no instances: MaxHealthyPercentage must be 100 or left out.",
        )


def _identifier(ctx: Context, name: str) -> str:
    number = len(ctx.world.state(ctx.account, ctx.region, Refreshes).of.get(name, []))
    bits = f"{ctx.random('refresh', ctx.account, ctx.region, name, number).getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


def _own_template(group: Group) -> dict[str, Any] | None:
    if group.template_id is None:
        return None
    return {"LaunchTemplateId": group.template_id, "Version": group.template_version}


def _specification(asked: dict[str, Any] | None) -> dict[str, Any] | None:
    """The launch template of a desired configuration, given directly or in a mixed instances policy."""
    if asked is None:
        return None
    direct, mixed = asked.get("LaunchTemplate"), asked.get("MixedInstancesPolicy")
    if (direct is None) == (mixed is None):
        raise AwsError("ValidationError", "DesiredConfiguration must have either LaunchTemplate or MixedInstancesPolicy.")
    found = direct or ((mixed or {}).get("LaunchTemplate") or {}).get("LaunchTemplateSpecification")
    if not found:
        raise AwsError("ValidationError", "MixedInstancesPolicy must have a LaunchTemplateSpecification.")
    if bool(found.get("LaunchTemplateId")) == bool(found.get("LaunchTemplateName")):
        raise AwsError("ValidationError", "Valid requests must contain either launchTemplateId or LaunchTemplateName")
    return dict(found)


def _check_template(ctx: Context, group: Group, wanted: dict[str, Any] | None, *, asked: bool) -> None:
    if not asked:
        return
    if group.template_id is None:
        raise AwsError("ValidationError", "The Auto Scaling group must use a launch template to specify a DesiredConfiguration.")
    if groups.template_version(ctx.account, ctx.region, wanted or {}) is None:
        named = (wanted or {}).get("LaunchTemplateId") or (wanted or {}).get("LaunchTemplateName")
        version = (wanted or {}).get("Version") or "$Default"
        raise AwsError("ValidationError", f"Invalid launch template: {named}, version {version} does not exist.")


def _preferences(ctx: Context, group: Group, given: dict[str, Any], desired: bool) -> dict[str, Any]:
    least, most = given.get("MinHealthyPercentage"), given.get("MaxHealthyPercentage")
    if most is not None and least is None:
        raise AwsError("ValidationError", "MaxHealthyPercentage requires MinHealthyPercentage to be specified.")
    if most is not None and least is not None and most - least > 100:
        raise AwsError(
            "ValidationError", "The difference between MaxHealthyPercentage and MinHealthyPercentage cannot be greater than 100."
        )
    checkpoints, delay = given.get("CheckpointPercentages"), given.get("CheckpointDelay")
    if delay is not None and not checkpoints:
        raise AwsError("ValidationError", "CheckpointDelay cannot be specified without CheckpointPercentages.")
    if checkpoints:
        if any(not 1 <= one <= 100 for one in checkpoints):
            raise AwsError("ValidationError", "CheckpointPercentages must be between 1 and 100.")
        if any(first >= second for first, second in pairwise(checkpoints)):
            raise AwsError("ValidationError", "CheckpointPercentages must be unique and in ascending order.")
        given["CheckpointDelay"] = 3600 if delay is None else delay
    if given.get("AutoRollback"):
        problem = "no DesiredConfiguration is specified" if not desired else _irreversible(ctx, group)
        if problem:
            raise AwsError("ValidationError", f"AutoRollback cannot be enabled because {problem}.")
    alarms = (given.get("AlarmSpecification") or {}).get("Alarms") or []
    if len(alarms) > 10:
        raise AwsError("ValidationError", "AlarmSpecification can have at most 10 alarms.")
    unknown = [name for name in alarms if groups.alarm(ctx.account, ctx.region, name) is None]
    if unknown:
        raise AwsError("ValidationError", f"The following alarms do not exist: {', '.join(unknown)}.")
    kept = autoscaling.kept(ctx.world, ctx.account, ctx.region, group.name)
    return {
        "MinHealthyPercentage": 90 if kept.least is None else kept.least,
        **({"MaxHealthyPercentage": kept.most} if kept.most is not None and least is None else {}),
        "InstanceWarmup": group.grace if kept.warmup is None else kept.warmup,
        "SkipMatching": False,
        "AutoRollback": False,
        "ScaleInProtectedInstances": "Wait",
        "StandbyInstances": "Wait",
        **given,
    }


def _irreversible(ctx: Context, group: Group) -> str | None:
    """Why the group's configuration before a refresh cannot be returned to."""
    template = _own_template(group)
    if template is None:
        return "the Auto Scaling group has no launch template"
    if str(template["Version"]).lower() in ("$latest", "$default"):
        return f"the Auto Scaling group has a launch template that uses the {template['Version']} version"
    found = groups.template_version(ctx.account, ctx.region, template)
    if found is not None and found.image.startswith("resolve:ssm:"):
        return "the launch template uses an AWS Systems Manager parameter instead of an AMI ID"
    return None


@operation("autoscaling", "DescribeInstanceRefreshes")
def describe_instance_refreshes(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Newest first, for six weeks."""
    name, wanted, size = params["AutoScalingGroupName"], params.get("InstanceRefreshIds"), params.get("MaxRecords")
    need(ctx.account, ctx.region, name)
    if size is not None and not 1 <= size <= 100:
        raise AwsError("ValidationError", autoscaling.above(size, 100))
    rows = [
        refresh
        for refresh in reversed(ctx.world.state(ctx.account, ctx.region, Refreshes).of.get(name, []))
        if (not wanted or refresh.id in wanted) and refresh.begun > ctx.at - KEPT
    ]
    listed, token = ctx.page(rows, params, default=50, size="MaxRecords")
    return {"InstanceRefreshes": [refresh.as_row() for refresh in listed], "NextToken": token}


def _running(ctx: Context, name: str) -> Refresh:
    need(ctx.account, ctx.region, name)
    found = active(ctx.world, ctx.account, ctx.region, name)
    if found is None:
        raise AwsError(
            "ActiveInstanceRefreshNotFound", f"No in progress or pending Instance Refresh found for Auto Scaling group {name}"
        )
    return found


@operation("autoscaling", "CancelInstanceRefresh")
def cancel_instance_refresh(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Nothing new is begun; nothing that was done is undone."""
    refresh = _running(ctx, params["AutoScalingGroupName"])
    if refresh.status == "Cancelling":
        raise AwsError("ActiveInstanceRefreshNotFound", f"The Instance Refresh for {refresh.group} is being cancelled already")
    refresh.status, refresh.reason, refresh.progress_at = "Cancelling", "Cancelled due to user request.", ctx.at
    if params.get("WaitForTransitioningInstances") is False:
        _end(ctx.world, refresh, "Cancelled")
    return {"InstanceRefreshId": refresh.id}


@operation("autoscaling", "RollbackInstanceRefresh")
def rollback_instance_refresh(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    refresh = _running(ctx, params["AutoScalingGroupName"])
    group = need(ctx.account, ctx.region, refresh.group)
    if refresh.status in ("RollbackInProgress", "Cancelling"):
        raise AwsError("ActiveInstanceRefreshNotFound", f"The Instance Refresh for {refresh.group} is in status {refresh.status}")
    problem = "no desired configuration was specified" if refresh.wanted is None else _irreversible(ctx, group)
    if problem:
        raise AwsError("IrreversibleInstanceRefresh", f"The Instance Refresh cannot be rolled back because {problem}.")
    _roll_back(ctx.world, refresh, "Manual rollback")
    return {"InstanceRefreshId": refresh.id}


# --- how it goes on ---


def _begin(world: World, refresh: Refresh) -> None:
    if refresh.status != "Pending":
        return _after(world, refresh)
    group = groups.group(refresh.account, refresh.region, refresh.group)
    if group is None:
        return _end(world, refresh, "Failed", "The Auto Scaling group was deleted.")
    refresh.status, refresh.progress_at = "InProgress", world.now
    state = scaling(world, refresh.account, refresh.region)
    refresh.original = frozenset(member.id for member in group.members)
    template = refresh.wanted or refresh.before
    target = groups.template_version(refresh.account, refresh.region, template) if template else None
    for member in group.members:
        if member.id in state.leaving or _skipped(world, refresh, group, member, target):
            continue
        stands = lifecycle(world, refresh.account, refresh.region, member) in ("Standby", "EnteringStandby")
        how = _treatment(refresh, member, stands=stands)
        if how == "Wait":
            refresh.blocked.append(member.id)
        elif how != "Ignore":
            refresh.todo.append(member.id)
    refresh.total = len(refresh.todo) + len(refresh.blocked)
    wanted = _number(target)
    refresh.warm_todo = [
        warm.id
        for warm in state.warm.get(refresh.group, [])
        if not (refresh.preferences["SkipMatching"] and warm.configuration and _version(warm.configuration) == wanted)
    ]
    refresh.warm_total = len(refresh.warm_todo)
    if refresh.wanted is not None:
        state.in_force[refresh.group] = refresh.wanted
    world.state(refresh.account, refresh.region, Replacements).callbacks.append(
        lambda name, gone, successor: _replaced_elsewhere(refresh, name, gone, successor)
    )
    _emit(world, refresh, "Started")
    _tick(world, refresh)
    return None


def _number(target: groups.TemplateVersion | None) -> tuple[str, str] | None:
    return (target.id, str(target.number)) if target is not None else None


def _version(configuration: dict[str, str]) -> tuple[str, str]:
    return configuration["LaunchTemplateId"], configuration["Version"]


def _skipped(world: World, refresh: Refresh, group: Group, member: Member, target: groups.TemplateVersion | None) -> bool:
    """SkipMatching: the instance was made by what the refresh would make it of."""
    if not refresh.preferences["SkipMatching"] or target is None:
        return False
    made_by = scaling(world, refresh.account, refresh.region).configurations.get(member.id)
    if made_by is None and refresh.before is not None:
        before = groups.template_version(refresh.account, refresh.region, refresh.before)
        return _number(before) == _number(target)
    return made_by is not None and _version(made_by) == _number(target)


def _treatment(refresh: Refresh, member: Member, *, stands: bool) -> str:
    if stands:
        return str(refresh.preferences["StandbyInstances"])
    return str(refresh.preferences["ScaleInProtectedInstances"]) if member.protected else "Refresh"


def _replaced_elsewhere(refresh: Refresh, name: str, gone: str, successor: Host | None) -> None:
    """A health check replaced a member meanwhile: its successor has the desired configuration already."""
    if name != refresh.group or not refresh.active:
        return
    for rows in (refresh.todo, refresh.blocked):
        if gone in rows:
            rows.remove(gone)
            if successor is None:
                refresh.total -= 1
            else:
                refresh.fresh[successor.id] = None
    if gone in refresh.fresh:
        refresh.fresh.pop(gone)
        refresh.ready.discard(gone)
        if successor is not None:
            refresh.fresh[successor.id] = None


def _after(world: World, refresh: Refresh) -> None:
    world.at(world.now + TICK, lambda _: _tick(world, refresh))


def _tick(world: World, refresh: Refresh) -> None:
    if not refresh.active:
        return None
    group = groups.group(refresh.account, refresh.region, refresh.group)
    if group is None:
        return _end(world, refresh, "Failed", "The Auto Scaling group was deleted.")
    _look(world, refresh, group)
    if refresh.status == "Cancelling":
        if set(refresh.fresh) <= refresh.ready or world.now - refresh.progress_at > STALL:
            return _end(world, refresh, "Cancelled")
        return _after(world, refresh)
    if refresh.status != "RollbackInProgress":
        _alarm(world, refresh)
    if refresh.status != "RollbackInProgress" and _alarmed(world, refresh):
        return None
    if refresh.status == "Baking":
        if refresh.waits_until is not None and world.now >= refresh.waits_until:
            return _end(world, refresh, "Successful")
        return _after(world, refresh)
    if world.now - refresh.begun > LIFE:
        return _fail(world, refresh, "The instance refresh was running for more than 14 days.")
    if _waits(world, refresh):
        return _after(world, refresh)
    if world.now - refresh.progress_at > STALL:
        return _fail(world, refresh, _stalled(refresh))
    if _complete(world, refresh):
        return None
    if refresh.waits_until is None:
        _step(world, refresh, group)
    return _after(world, refresh)


def _look(world: World, refresh: Refresh, group: Group) -> None:
    """Which new instances are healthy and warmed up by now; which old ones are gone by themselves, or free to be replaced?"""
    members = {member.id: member for member in group.members}
    for identifier, since in list(refresh.fresh.items()):
        member = members.get(identifier)
        if member is None:
            refresh.fresh.pop(identifier)
            refresh.ready.discard(identifier)
            continue
        well = _well(world, refresh, group, member)
        if not well:
            refresh.fresh[identifier] = None
            refresh.ready.discard(identifier)
        elif since is None:
            refresh.fresh[identifier] = refresh.progress_at = world.now
        elif identifier not in refresh.ready:
            refresh.progress_at = world.now  # it warms up
            if world.now >= since + refresh.preferences["InstanceWarmup"]:
                refresh.ready.add(identifier)
    for rows in (refresh.todo, refresh.blocked):
        for identifier in [one for one in rows if one not in members]:
            rows.remove(identifier)
            refresh.total -= 1
    for identifier in list(refresh.blocked):
        state = lifecycle(world, refresh.account, refresh.region, members[identifier])
        if _treatment(refresh, members[identifier], stands=state != "InService") != "Wait":
            refresh.blocked.remove(identifier)
            refresh.todo.append(identifier)
    if refresh.done() > refresh.best:
        refresh.best, refresh.progress_at = refresh.done(), world.now


def _well(world: World, refresh: Refresh, group: Group, member: Member) -> bool:
    """In service, and its health checks have said so."""
    if lifecycle(world, refresh.account, refresh.region, member) != "InService":
        return False
    host = world.host(refresh.account, refresh.region, member.id)
    if host is not None and (host.rebooting or host.state != "running" or world.now < host.healthy_from):
        return False
    return autoscaling.passes(world, refresh.account, refresh.region, group, member)


def _alarm(world: World, refresh: Refresh) -> None:
    """A fault lets an alarm fire at this point of the refresh, once unless it says how often."""
    percent = 101 if refresh.status == "Baking" else refresh.progress().percent or 0
    fault = world.faults.take_group(
        Kind.ALARM_IN_REFRESH, account=refresh.account, region=refresh.region, group=refresh.group, percent=percent
    )
    if fault is not None and fault.alarm is not None:
        if fault.times is None:
            world.faults.remove(fault.id or 0)
        cloudwatch.fire(world, refresh.account, refresh.region, fault.alarm, fault.seconds or 900.0)


def _alarmed(world: World, refresh: Refresh) -> bool:
    names = (refresh.preferences.get("AlarmSpecification") or {}).get("Alarms") or []
    firing = [name for name in names if cloudwatch.state_of(refresh.account, refresh.region, name) == "ALARM"]
    if firing:
        _fail(world, refresh, f"CloudWatch alarm {firing[0]} went into ALARM state.")
    return bool(firing)


def _waits(world: World, refresh: Refresh) -> bool:
    """At a checkpoint: is it reached, and is its delay over?"""
    if refresh.waits_until is not None:
        if world.now < refresh.waits_until:
            refresh.progress_at = world.now
            return True
        refresh.waits_until = None
        refresh.progress_at = world.now
        refresh.checkpoints.pop(0)
    while refresh.status == "InProgress" and refresh.checkpoints and refresh.total:
        percent = refresh.checkpoints[0]
        if refresh.done() < math.ceil(refresh.total * percent / 100):
            return False
        later = [one for one in refresh.checkpoints[1:] if refresh.done() >= math.ceil(refresh.total * one / 100)]
        if later:  # jumped over
            refresh.checkpoints.pop(0)
            continue
        if percent == 100:
            return False
        delay = refresh.preferences["CheckpointDelay"]
        refresh.waits_until = world.now + delay
        refresh.reason = f"Reached checkpoint at {percent} percent. Waiting {delay} seconds before continuing."
        _emit(world, refresh, "Checkpoint Reached", CheckpointPercentage=str(percent), CheckpointDelay=str(delay))
        return True
    return False


def _complete(world: World, refresh: Refresh) -> bool:
    asked = refresh.preferences.get("CheckpointPercentages") or []
    over = bool(asked) and not refresh.checkpoints and refresh.status == "InProgress"  # the last checkpoint was below 100
    if not over and (refresh.todo or refresh.blocked or refresh.warm_todo):
        return False
    if not set(refresh.fresh) <= refresh.ready:
        return False
    if refresh.status == "RollbackInProgress":
        _end(world, refresh, "RollbackSuccessful")
        return True
    bake = refresh.preferences.get("BakeTime") or 0
    if bake:
        refresh.status, refresh.waits_until = "Baking", world.now + bake
        refresh.reason = f"Baking for {bake} seconds before completing."
        _after(world, refresh)
    else:
        _end(world, refresh, "Successful")
    return True


def _step(world: World, refresh: Refresh, group: Group) -> None:
    """Replace as many instances as the limits and the next checkpoint allow."""
    stopped = group.suspended & {"Launch", "Terminate", "HealthCheck"}
    if stopped:
        refresh.reason = f"The process {sorted(stopped)[0]} is suspended."
        return
    _warm_step(world, refresh)
    members = {member.id: member for member in in_service(world, refresh.account, refresh.region, group)}
    good = [one for one in members.values() if autoscaling.healthy(world, refresh.account, refresh.region, group, one)]
    serving = [one for one in good if one.id not in refresh.fresh or one.id in refresh.ready]
    coming = len(refresh.fresh) - len(refresh.ready)
    least = math.ceil(group.desired * refresh.preferences["MinHealthyPercentage"] / 100)
    most = refresh.preferences.get("MaxHealthyPercentage")
    spare = len(serving) - least
    allowed = _until_checkpoint(refresh)
    old = _order(world, refresh, members)
    launch_first = refresh.preferences["MinHealthyPercentage"] == 100 or (
        most is not None and (most > 100 or least >= group.desired)
    )
    if refresh.strategy == "ReplaceRootVolume":
        number = spare if spare > 0 else (1 if not coming else 0)
        for identifier in old[: max(0, min(number, allowed))]:
            if not _swap(world, refresh, group, identifier):
                return
    elif launch_first:
        capacity = max(math.floor(group.desired * (most or 100) / 100), group.desired + 1)
        alive = len(group.members) - len(scaling(world, refresh.account, refresh.region).leaving)
        ahead = alive - group.desired
        number = min(capacity - alive, allowed - max(0, ahead), len(old) - max(0, ahead))
        for _ in range(max(0, number)):
            _launch(world, refresh)
        surplus = min(max(0, ahead), spare, len(old))
        for identifier in old[: max(0, surplus)]:
            _retire(world, refresh, identifier, None)
    else:
        number = spare if spare > 0 else (1 if not coming else 0)
        for identifier in old[: max(0, min(number, allowed))]:
            successor = _launch(world, refresh)
            if successor is None:
                break
            _retire(world, refresh, identifier, successor.id)
    refresh.reason = _said(world, refresh)


def _swap(world: World, refresh: Refresh, group: Group, identifier: str) -> bool:
    """The instance stays and gets another root volume; False when the refresh has failed over it."""
    host = world.host(refresh.account, refresh.region, identifier)
    template = (refresh.before if refresh.status == "RollbackInProgress" else refresh.wanted) or refresh.before or {}
    made_by = groups.template_version(refresh.account, refresh.region, template)
    if host is None or made_by is None:
        _fail(world, refresh, f"The launch template of {refresh.group} does not exist any more.")
        return False
    try:
        autoscaling.swap_root_volume(world, host, group, made_by, why=_why(refresh), cause=refresh.cause)
    except LookupError as wrong:
        _fail(world, refresh, str(wrong))
        return False
    refresh.todo.remove(identifier)
    refresh.fresh[identifier] = None
    refresh.progress_at = world.now
    return True


def _order(world: World, refresh: Refresh, members: dict[str, Member]) -> list[str]:
    """Unhealthy ones first, then in the order of the group."""
    group = need(refresh.account, refresh.region, refresh.group)
    everyone = {member.id: member for member in group.members}
    free = [one for one in refresh.todo if one in everyone]
    sick = [
        one
        for one in free
        if one not in members or not autoscaling.healthy(world, refresh.account, refresh.region, group, everyone[one])
    ]
    return [*sick, *[one for one in free if one not in sick]]


def _until_checkpoint(refresh: Refresh) -> int:
    """How many more instances may be replaced before the next checkpoint."""
    begun = refresh.total - len(refresh.todo) - len(refresh.blocked)
    if refresh.status == "RollbackInProgress" or not refresh.checkpoints:
        return refresh.total - begun
    return max(0, math.ceil(refresh.total * refresh.checkpoints[0] / 100) - begun)


def _why(refresh: Refresh) -> str:
    return f"an instance was replaced in response to an instance refresh ({refresh.id})."


def _launch(world: World, refresh: Refresh) -> Host | None:
    host = autoscaling.launch(world, refresh.account, refresh.region, refresh.group, why=_why(refresh), cause=refresh.cause)
    if host is not None:
        refresh.fresh[host.id] = None
        refresh.progress_at = world.now
    return host


def _retire(world: World, refresh: Refresh, identifier: str, successor: str | None) -> None:
    successor = successor or next(
        (one for one in reversed(list(refresh.ready)) if not _has_predecessor(world, refresh, one)), None
    )
    if successor is not None:
        world.state(refresh.account, refresh.region, _Pairs).successors.add(successor)
    autoscaling.retire(
        world,
        refresh.account,
        refresh.region,
        refresh.group,
        identifier,
        why=_why(refresh),
        cause=refresh.cause,
        replaced_by=successor,
    )
    refresh.todo.remove(identifier)
    refresh.progress_at = world.now


class _Pairs:
    def __init__(self) -> None:
        self.successors: set[str] = set()


def _has_predecessor(world: World, refresh: Refresh, identifier: str) -> bool:
    return identifier in world.state(refresh.account, refresh.region, _Pairs).successors


def _warm_step(world: World, refresh: Refresh) -> None:
    """Instances of the warm pool serve nobody: all at once, with the configuration in force."""
    kept = scaling(world, refresh.account, refresh.region).warm.get(refresh.group, [])
    pool = groups.warm_pool(refresh.account, refresh.region, refresh.group)
    for old in [warm for warm in kept if warm.id in refresh.warm_todo]:
        kept.remove(old)
        refresh.warm_todo.remove(old.id)
        host = world.host(refresh.account, refresh.region, old.id)
        groups.terminate(refresh.account, refresh.region, refresh.group, old.id)
        if pool is None:
            continue
        new = autoscaling.launch_warm(world, refresh.account, refresh.region, refresh.group, stopped=pool.state != "Running")
        if new is None:
            continue
        kept.append(new)
        if host is not None:
            world.retired(host, cause=refresh.cause, replaced_by=new.id)
    refresh.warm_todo = [one for one in refresh.warm_todo if any(warm.id == one for warm in kept)]


def _said(world: World, refresh: Refresh) -> str | None:
    warming = [one for one, since in refresh.fresh.items() if since is not None and one not in refresh.ready]
    launching = [one for one, since in refresh.fresh.items() if since is None]
    if warming:
        return f"Waiting for instances to warm up before continuing. For example: {warming[0]} is warming up."
    if launching:
        return f"Waiting for instances to become healthy before continuing. For example: {launching[0]} is not healthy yet."
    if refresh.blocked and not refresh.todo:
        return (
            "Waiting for instances in Standby or protected from scale in before continuing. For example:"
            f" {refresh.blocked[0]} blocks the instance refresh."
        )
    return None


def _stalled(refresh: Refresh) -> str:
    blocked = refresh.blocked and not refresh.todo
    because = (
        f"instances in Standby or protected from scale in: {', '.join(refresh.blocked[:3])}" if blocked else "unhealthy instances"
    )
    return f"The instance refresh made no progress for 1 hour because of {because}."


def _fail(world: World, refresh: Refresh, reason: str) -> None:
    if refresh.status == "RollbackInProgress":
        return _end(world, refresh, "RollbackFailed", reason)
    if refresh.preferences.get("AutoRollback") and refresh.before is not None:
        return _roll_back(world, refresh, reason)
    return _end(world, refresh, "Failed", reason)


def _roll_back(world: World, refresh: Refresh, reason: str) -> None:
    """The same in the other direction: whatever was launched since goes, made anew by the configuration of before."""
    was_pending = refresh.status == "Pending"
    shown = refresh.progress()
    refresh.rollback = {
        "RollbackReason": reason,
        "RollbackStartTime": moment(world.now),
        "PercentageCompleteOnRollback": shown.percent,
        "InstancesToUpdateOnRollback": shown.left,
        "ProgressDetailsOnRollback": refresh.details(),
    }
    refresh.status, refresh.reason, refresh.waits_until = "RollbackInProgress", reason, None
    group = need(refresh.account, refresh.region, refresh.group)
    state = scaling(world, refresh.account, refresh.region)
    touched = set(refresh.fresh) | {one.id for one in group.members if one.id not in refresh.original}
    refresh.todo = [] if was_pending else [one.id for one in group.members if one.id in touched - state.leaving]
    refresh.blocked, refresh.fresh, refresh.ready, refresh.best = [], {}, set(), 0
    refresh.total = len(refresh.todo)
    refresh.warm_todo, refresh.warm_total = [], 0
    if refresh.before is not None:
        state.in_force[refresh.group] = refresh.before
    refresh.progress_at = world.now
    if not was_pending:
        _after(world, refresh)


def _end(world: World, refresh: Refresh, status: str, reason: str | None = None) -> None:
    refresh.status, refresh.ended = status, world.now
    refresh.reason = reason or (refresh.reason if status == "Cancelled" else None)
    refresh.waits_until = None
    state = scaling(world, refresh.account, refresh.region)
    state.in_force.pop(refresh.group, None)
    if status == "Successful" and refresh.wanted is not None:
        groups.use_template(refresh.account, refresh.region, refresh.group, refresh.wanted)
    word = {"Successful": "Succeeded", "Failed": "Failed", "Cancelled": "Cancelled"}.get(status)
    if word:
        _emit(world, refresh, word)


def _emit(world: World, refresh: Refresh, what: str, **more: str) -> None:
    group = groups.group(refresh.account, refresh.region, refresh.group)
    events.emit(
        world,
        refresh.account,
        refresh.region,
        source="aws.autoscaling",
        detail_type=f"EC2 Auto Scaling Instance Refresh {what}",
        resources=[group.arn] if group is not None else [],
        detail={"InstanceRefreshId": refresh.id, "AutoScalingGroupName": refresh.group, **more},
    )
