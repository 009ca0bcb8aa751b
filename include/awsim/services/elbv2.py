"""Which state has a target of a target group, at this moment?

moto keeps target groups and who is registered; this module adds time: a new target is `initial` until it has passed a check, one
that leaves is `draining` for the full delay, and the health follows the host (down, booting, stopped). `paced` says for which
hosts: those of a world file and machines with an instance profile; for others moto's answers stay as they are. Auto Scaling
asks and moves targets through `register`, `deregister` and `health`.
"""

from dataclasses import dataclass
from typing import Any

from awsim import groups
from awsim.constraints import sentence
from awsim.host import Host
from awsim.registry import AwsError, Context, on_world, operation
from awsim.wire import Answer
from awsim.world import World

REGISTRATION = 5.0
"""Seconds that a load balancer needs to take up a new target before it checks it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    state: str
    reason: str | None = None
    description: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Draining:
    port: int
    until: float


class Targets:
    """When targets of a cell came, which ones leave, and when their machines went down and came back."""

    def __init__(self) -> None:
        self.since: dict[tuple[str, str], float] = {}
        self.draining: dict[tuple[str, str], Draining] = {}
        self.left: dict[str, dict[str, None]] = {}
        """Instance -> target groups that it has left: work on it still takes from their capacity."""
        self.down: dict[str, float] = {}
        self.up: dict[str, float] = {}


_IN_PROGRESS = Health(
    state="draining", reason="Target.DeregistrationInProgress", description="Target deregistration is in progress"
)
_REGISTERING = Health(state="initial", reason="Elb.RegistrationInProgress", description="Target registration is in progress")
_CHECKING = Health(state="initial", reason="Elb.InitialHealthChecking", description="Initial health checks in progress")
_TIMED_OUT = Health(state="unhealthy", reason="Target.Timeout", description="Request timed out")
_STOPPED = Health(state="unused", reason="Target.InvalidState", description="Target is in the stopped state")
_NOT_REGISTERED = Health(
    state="unused", reason="Target.NotRegistered", description="Target is not registered to the target group"
)
_NOT_IN_USE = Health(
    state="unused",
    reason="Target.NotInUse",
    description="Target group is not configured to receive traffic from the load balancer",
)


@on_world
def attach(world: World) -> None:
    def down(host: Host, _: bool) -> None:
        targets = world.state(host.account, host.region, Targets)
        targets.down[host.id] = world.now
        targets.up.pop(host.id, None)

    def booted(host: Host) -> None:
        world.state(host.account, host.region, Targets).up[host.id] = world.now

    def target_groups_of(host: Host) -> tuple[str, ...]:
        arns = dict.fromkeys(groups.target_groups_with(host.account, host.region, host.id))
        arns.update(world.state(host.account, host.region, Targets).left.get(host.id, {}))
        return tuple(sorted(arn.split("/")[1] for arn in arns))

    world.target_groups_of = target_groups_of
    world.on_down(down)
    world.on_boot(booted)


def paced(world: World, host: Host | None) -> bool:
    """Whether things take their time for this host; an instance without a profile in an AWS without a world is moto's."""
    return world.file is not None or (host is not None and host.registered is not None)


def register(world: World, account: str, region: str, arn: str, identifier: str) -> None:
    if groups.register_target(account, region, arn, identifier):
        _came(world, account, region, arn, identifier)


def _came(world: World, account: str, region: str, arn: str, identifier: str) -> None:
    targets = world.state(account, region, Targets)
    targets.draining.pop((arn, identifier), None)
    targets.since[arn, identifier] = world.now


def deregister(world: World, account: str, region: str, arn: str, identifier: str) -> float:
    """The target leaves; returns when it will have drained (now, if it was not registered)."""
    group = groups.target_group(account, region, arn)
    if group is None or not groups.deregister_target(account, region, arn, identifier):
        return world.now
    until = world.now + group.delay
    targets = world.state(account, region, Targets)
    targets.left.setdefault(identifier, {})[arn] = None
    targets.since.pop((arn, identifier), None)
    targets.draining[arn, identifier] = Draining(port=group.targets[identifier], until=until)
    return until


def health(world: World, account: str, region: str, arn: str, identifier: str) -> Health:
    """The state of a target that is or was registered."""
    targets = world.state(account, region, Targets)
    group = groups.target_group(account, region, arn)
    draining = targets.draining.get((arn, identifier))
    if group is None or identifier not in group.targets:
        return _IN_PROGRESS if draining is not None and world.now < draining.until else _NOT_REGISTERED
    host = world.host(account, region, identifier)
    if host is None:
        return Health(state="healthy")
    if host.state == "terminated":
        return _NOT_REGISTERED
    if host.state == "stopped":
        return _STOPPED
    if not paced(world, host):
        return Health(state="healthy")
    return _by_the_clock(world, targets, group, host) if group.in_use else _NOT_IN_USE


def _by_the_clock(world: World, targets: Targets, group: groups.TargetGroup, host: Host) -> Health:
    since = targets.since.get((group.arn, host.id))
    up, down = targets.up.get(host.id), targets.down.get(host.id)
    fell = down + group.interval * (group.unhealthy_threshold - 1) + group.timeout if down is not None else None
    if host.rebooting:
        if since is not None and down is not None and (since >= down or since + group.interval > down):
            return _CHECKING
        return _TIMED_OUT if fell is None or world.now >= fell else Health(state="healthy")
    if since is not None:
        begun = max(since + REGISTRATION, up or 0.0, host.boots[-1] if host.boots else 0.0)
        if world.now < since + REGISTRATION:
            return _REGISTERING
        first = begun + group.interval
        if world.now < first and (up is None or up <= since + REGISTRATION):
            return _CHECKING
    if up is not None and fell is not None and fell < up and world.now < up + group.interval * group.healthy_threshold:
        return _TIMED_OUT
    return Health(state="healthy")


# --- operations ---


@operation("elbv2", "RegisterTargets", check=False)
def register_targets(ctx: Context, params: dict[str, Any]) -> Answer:
    arn = params.get("TargetGroupArn") or ""
    before = _registered(ctx, arn)
    answer = ctx.moto_answer()
    if answer.status == 200:
        for target in params.get("Targets") or []:
            if target["Id"] not in before:
                _came(ctx.world, ctx.account, ctx.region, arn, target["Id"])
    return answer


@operation("elbv2", "DeregisterTargets", check=False)
def deregister_targets(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """A target that is not registered is no error; the others drain."""
    arn = params.get("TargetGroupArn") or ""
    if groups.target_group(ctx.account, ctx.region, arn) is None:
        return ctx.moto_answer()
    before = _registered(ctx, arn)
    wanted = [target.get("Id") for target in params.get("Targets") or []]
    if None in wanted:
        place = f"targets.{wanted.index(None) + 1}.member.id"
        raise AwsError(
            "ValidationError", sentence([f"Value null at '{place}' failed to satisfy constraint: Member must not be null"])
        )
    if not any(ctx.world.host(ctx.account, ctx.region, identifier) for identifier in wanted):
        return ctx.moto_answer()
    for identifier in wanted:
        if identifier not in before:
            continue
        if paced(ctx.world, ctx.world.host(ctx.account, ctx.region, identifier)):
            deregister(ctx.world, ctx.account, ctx.region, arn, identifier)
        else:
            groups.deregister_target(ctx.account, ctx.region, arn, identifier)
    return {}


def _registered(ctx: Context, arn: str) -> dict[str, int]:
    group = groups.target_group(ctx.account, ctx.region, arn)
    return group.targets if group is not None else {}


@operation("elbv2", "DescribeTargetHealth", check=False)
def describe_target_health(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """moto's list, with the states of this moment; targets that drain are listed, too."""
    told = ctx.call_moto()
    arn = params["TargetGroupArn"]
    group = groups.target_group(ctx.account, ctx.region, arn)
    if group is None:
        raise AwsError("TargetGroupNotFound", "One or more target groups not found")
    rows = list(told.get("TargetHealthDescriptions") or [])
    if not params.get("Targets"):
        listed = {row["Target"]["Id"] for row in rows}
        targets = ctx.world.state(ctx.account, ctx.region, Targets)
        rows += [
            {"Target": {"Id": identifier, "Port": leaving.port}, "HealthCheckPort": str(leaving.port), "TargetHealth": {}}
            for (of, identifier), leaving in targets.draining.items()
            if of == arn and identifier not in listed and ctx.at < leaving.until
        ]
    for row in rows:
        host = ctx.world.host(ctx.account, ctx.region, row["Target"]["Id"])
        if not paced(ctx.world, host) or host is None:
            continue
        found = health(ctx.world, ctx.account, ctx.region, arn, host.id)
        row["TargetHealth"] = {"State": found.state, "Reason": found.reason, "Description": found.description}
        if row["HealthCheckPort"] == "traffic-port":
            row["HealthCheckPort"] = str(row["Target"].get("Port") or "")
    told["TargetHealthDescriptions"] = rows
    return told
