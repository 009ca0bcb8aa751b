"""What does an Auto Scaling group do by itself, and when? Standby, health, scaling, warm pools, activities; refreshes elsewhere.

Groups and their members are moto's (through `groups.py`). This module adds time (Pending, EnteringStandby, Terminating), AWS's
checks, the replacement of unhealthy instances, and tells the world of each host that comes and goes. The instance
refresh is `instance_refresh.py`; it calls `launch` and `retire` here.

`paced` (see `elbv2.py`) decides whether things take their time: in an AWS without a world, groups of instances without a profile
behave as moto's do.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from awsim import groups
from awsim.clock import iso, moment
from awsim.faults import Fault, Kind
from awsim.groups import Group, Member
from awsim.host import Host
from awsim.journal import Cause, Event
from awsim.registry import AwsError, Context, on_world, operation
from awsim.services import elbv2, events, lifecycle_hooks
from awsim.wire import Answer
from awsim.world import World

LAUNCH = 45.0
"""Seconds from the launch of an instance until the group has it in service."""
PROCEED = 3.0
"""Seconds in `Pending:Proceed` or `Terminating:Proceed`, once lifecycle hooks let go."""
RETURN = 20.0
"""Seconds from ExitStandby until the instance is in service."""
SHUTDOWN = 15.0
"""Seconds that a standby or a termination takes without a target group."""
UNHEALTHY_AFTER = 60.0
"""Seconds from the moment that an instance is seen unhealthy to its replacement."""
IMPAIRED_FOR = 600.0
"""An instance whose status check fails for so long is unhealthy; a reboot is shorter."""

_FAILED_CHECK = (
    "an instance was taken out of service in response to an {} health check indicating it has been terminated or stopped."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A lifecycle state that passes by itself."""

    state: str
    until: float


@dataclass(kw_only=True, slots=True, eq=False)
class Activity:
    id: str
    group: str
    group_arn: str
    description: str
    cause: str
    started: float
    ends: float
    before: str
    """Status until it ends."""
    details: dict[str, str]
    failed: str | None = None

    def as_row(self, now: float) -> dict[str, Any]:
        over = now >= self.ends
        status = "Failed" if self.failed else "Successful" if over else self.before
        return {
            "ActivityId": self.id,
            "AutoScalingGroupName": self.group,
            "Description": self.description,
            "Cause": self.cause,
            "StartTime": moment(self.started),
            "EndTime": moment(self.ends) if over or self.failed else None,
            "StatusCode": status,
            "StatusMessage": self.failed,
            "Progress": 100 if over or self.failed else 50 if self.before == "InProgress" else 30,
            "Details": json.dumps(self.details, separators=(",", ":")),
        }


@dataclass(kw_only=True, slots=True, eq=False)
class Warm:
    """An instance of a warm pool."""

    id: str
    since: float
    configuration: dict[str, str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What moto does not keep of a group; None: not said."""

    warmup: int | None = None
    """DefaultInstanceWarmup."""
    least: int | None = None
    most: int | None = None
    """Minimum and maximum healthy percentage of the InstanceMaintenancePolicy."""

    def as_row(self) -> dict[str, Any]:
        policy = {"MinHealthyPercentage": self.least, "MaxHealthyPercentage": self.most}
        return {
            **({"DefaultInstanceWarmup": self.warmup} if self.warmup is not None else {}),
            **({"InstanceMaintenancePolicy": policy} if self.least is not None else {}),
        }


@dataclass(slots=True, eq=False)
class Scaling:
    """What the groups of a cell are doing."""

    phases: dict[str, Phase] = field(default_factory=dict)
    configurations: dict[str, dict[str, str]] = field(default_factory=dict)
    """Instance -> launch template (id, name, numbered version) that it was made by."""
    activities: dict[str, list[Activity]] = field(default_factory=dict)
    warm: dict[str, list[Warm]] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    in_force: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Group -> launch template that a running refresh makes new instances by."""
    impaired_since: dict[str, float] = field(default_factory=dict)
    kept: dict[str, "Kept"] = field(default_factory=dict)
    number: int = 0


def scaling(world: World, account: str, region: str) -> Scaling:
    return world.state(account, region, Scaling)


@on_world
def attach(world: World) -> None:
    world.on_down(lambda host, _: _down(world, host))
    world.on_event(Kind.GROUP_SCALES_OUT, lambda fault: _scales(world, fault, fault.number))
    world.on_event(Kind.GROUP_SCALES_IN, lambda fault: _scales(world, fault, -fault.number))
    world.on_event(Kind.GROUP_REPLACES, lambda fault: _replaces(world, fault))


def need(account: str, region: str, name: str) -> Group:
    """The group of that name.

    Raises:
        AwsError: ValidationError, there is none.
    """
    found = groups.group(account, region, name)
    if found is None:
        raise AwsError("ValidationError", "AutoScalingGroup name not found - null")
    return found


def kept(world: World, account: str, region: str, name: str) -> Kept:
    return scaling(world, account, region).kept.get(name, Kept())


def _keep(ctx: Context, name: str, params: dict[str, Any]) -> None:
    """-1 switches off, as AWS has it."""
    known, policy = kept(ctx.world, ctx.account, ctx.region, name), params.get("InstanceMaintenancePolicy")
    warmup = params.get("DefaultInstanceWarmup", known.warmup)
    least, most = known.least, known.most
    if policy:
        least, most = policy.get("MinHealthyPercentage"), policy.get("MaxHealthyPercentage")
    scaling(ctx.world, ctx.account, ctx.region).kept[name] = Kept(
        warmup=None if warmup == -1 else warmup, least=None if least == -1 else least, most=None if most == -1 else most
    )


def _check_policy(params: dict[str, Any]) -> None:
    policy = params.get("InstanceMaintenancePolicy")
    if not policy:
        return
    least, most = policy.get("MinHealthyPercentage"), policy.get("MaxHealthyPercentage")
    if least is None or most is None or (least == -1) != (most == -1):
        raise AwsError(
            "ValidationError", "You must specify both MinHealthyPercentage and MaxHealthyPercentage, or clear both with -1."
        )
    if least != -1 and not (0 <= least <= 100 <= most <= 200 and most - least <= 100):
        raise AwsError(
            "ValidationError",
            "MinHealthyPercentage must be 0 to 100, MaxHealthyPercentage 100 to 200, and their difference at most 100.",
        )


def lifecycle(world: World, account: str, region: str, member: Member) -> str:
    phase = scaling(world, account, region).phases.get(member.id)
    return phase.state if phase is not None and world.now < phase.until else member.lifecycle


def in_service(world: World, account: str, region: str, group: Group) -> list[Member]:
    return [member for member in group.members if lifecycle(world, account, region, member) == "InService"]


def healthy(world: World, account: str, region: str, group: Group, member: Member) -> bool:
    """What the group's health checks say: EC2's always, the load balancer's if the group asks for it."""
    if member.health.lower() != "healthy":
        return False
    host = world.host(account, region, member.id)
    if host is None:
        return True
    if host.state != "running":
        return False
    if host.rebooting:
        since = scaling(world, account, region).impaired_since.get(host.id, world.now)
        if world.now - since >= IMPAIRED_FOR:
            return False
    if group.health_check == "ELB" and elbv2.paced(world, host):
        return all(elbv2.health(world, account, region, arn, member.id).state != "unhealthy" for arn in group.target_groups)
    return True


def passes(world: World, account: str, region: str, group: Group, member: Member) -> bool:
    """Healthy beyond doubt: with ELB checks, in service for every load balancer."""
    if not healthy(world, account, region, group, member):
        return False
    if group.health_check != "ELB" or not elbv2.paced(world, world.host(account, region, member.id)):
        return True
    states = [elbv2.health(world, account, region, arn, member.id) for arn in group.target_groups]
    return all(found.state == "healthy" or found.reason == "Target.NotInUse" for found in states)


# --- coming and going ---


def launch(world: World, account: str, region: str, name: str, *, why: str, cause: Cause) -> Host | None:
    """One more instance, made by the launch template in force; None when it cannot be made (its image is gone)."""
    state = scaling(world, account, region)
    template = state.in_force.get(name) or _template(account, region, name)
    made_by = groups.template_version(account, region, template) if template else None
    profile = (made_by.profile if made_by else None) or groups.group_profile(account, region, name)
    if not _find_zone(world, account, region, name, why):
        return None
    try:
        if made_by is not None and groups.is_deregistered(account, region, made_by.image):
            raise LookupError(f"The image id '[{made_by.image}]' does not exist")
        with groups.with_template(account, region, name, state.in_force.get(name)):
            identifier = groups.launch(account, region, name, profile=profile, number=state.number)
    except Exception as refused:  # noqa: BLE001 - moto raises a class a reason; the group's activity says which
        _note(
            world,
            account,
            region,
            name,
            "Launching a new EC2 instance.  Status Reason: " + str(refused),
            why,
            failed=str(refused),
        )
        return None
    host = world.arrived(account, region, identifier, cause=cause)
    host.group = name
    _settle(world, host, made_by, why, cause)
    return host


def _find_zone(world: World, account: str, region: str, name: str, why: str) -> bool:
    """The next number, whose subnet has capacity; each zone without is a failed activity. False when there is none at all."""
    state, zones = scaling(world, account, region), groups.zones_of(account, region, name)
    for _ in range(max(1, len(zones))):
        state.number += 1
        zone = zones[state.number % len(zones)] if zones else ""
        if world.faults.take_group(Kind.NO_CAPACITY, account=account, region=region, group=name, zone=zone) is None:
            return True
        told = (
            "We currently do not have sufficient capacity in the Availability Zone you requested"
            f" ({zone}). Our system will be working on provisioning additional capacity. Launching EC2 instance failed."
        )
        _note(world, account, region, name, f"Launching a new EC2 instance.  Status Reason: {told}", why, failed=told)
    return False


def _template(account: str, region: str, name: str) -> dict[str, Any] | None:
    group = groups.group(account, region, name)
    if group is None or group.template_id is None:
        return None
    return {"LaunchTemplateId": group.template_id, "Version": group.template_version}


def _settle(world: World, host: Host, made_by: groups.TemplateVersion | None, why: str, cause: Cause) -> None:
    """A new member: Pending for a while and until the hooks let go, then in service and registered with the target groups."""
    account, region, name = host.account, host.region, host.group or ""
    state = scaling(world, account, region)
    if made_by is not None:
        state.configurations[host.id] = _configuration(made_by)
    description = f"Launching a new EC2 instance: {host.id}"
    held = lifecycle_hooks.has(account, region, name, lifecycle_hooks.LAUNCHING)
    takes = math.inf if held else LAUNCH
    activity = _note(world, account, region, name, description, why, host=host, takes=takes)
    state.phases[host.id] = Phase(state="Pending", until=world.now + takes)
    if held:
        host.out, activity.before = True, "MidLifecycleAction"
        world.at(world.now + LAUNCH, lambda _: _held(world, host, activity, cause))
        return

    def up(_: float) -> None:
        group = groups.group(host.account, host.region, host.group or "")
        if group is not None and host.state == "running" and groups.member(host.account, host.region, group.name, host.id):
            for arn in group.target_groups:
                elbv2.register(world, host.account, host.region, arn, host.id)

    world.at(world.now + LAUNCH, up)


def _held(world: World, host: Host, activity: Activity, cause: Cause) -> None:
    """Launching hooks hold the new member; one that is abandoned is terminated, and another one launched."""
    account, region, name = host.account, host.region, host.group or ""
    state = scaling(world, account, region)

    def released(proceed: bool) -> None:
        if groups.member(account, region, name, host.id) is None or host.state != "running" or host.id in state.leaving:
            return
        if proceed:
            state.phases[host.id] = Phase(state="Pending:Proceed", until=world.now + PROCEED)
            world.at(world.now + PROCEED, lambda _: serve())
            return
        activity.failed, activity.ends = "The lifecycle action was abandoned.", world.now
        _tell(world, account, region, activity, "Launching", host)
        why = "an instance was taken out of service in response to a lifecycle action that was abandoned."
        replace(world, account, region, name, host.id, why=why, cause=cause, hooks=False)

    def serve() -> None:
        group = groups.group(account, region, name)
        if group is None or host.state != "running" or host.id in state.leaving:
            return
        activity.ends = world.now
        _tell(world, account, region, activity, "Launching", host)
        into_service(world, host, group, cause)

    if groups.member(account, region, name, host.id) is not None:
        state.phases[host.id] = Phase(state="Pending:Wait", until=math.inf)
        lifecycle_hooks.hold(world, account, region, name, host.id, lifecycle_hooks.LAUNCHING, released)


def into_service(world: World, host: Host, group: Group, cause: Cause) -> None:
    """The host serves from now on, or as soon as its status checks say so."""
    host.out = False
    for arn in group.target_groups:
        elbv2.register(world, host.account, host.region, arn, host.id)
    if not host.rebooting and world.now > host.healthy_from:
        world.record(host, Event.IN_SERVICE, cause=cause)


def _configuration(made_by: groups.TemplateVersion) -> dict[str, str]:
    return {
        "LaunchTemplateId": made_by.id,
        "LaunchTemplateName": made_by.name,
        "Version": str(made_by.number),
    }


def retire(
    world: World,
    account: str,
    region: str,
    name: str,
    identifier: str,
    *,
    why: str,
    cause: Cause,
    replaced_by: str | None = None,
    hooks: bool = True,
) -> None:
    """An instance leaves its target groups, is held by terminating hooks, and is terminated."""
    state = scaling(world, account, region)
    group = need(account, region, name)
    host = world.host(account, region, identifier)
    gone = max([world.now + SHUTDOWN, *_drain(world, account, region, group, identifier)])
    held = hooks and host is not None and lifecycle_hooks.has(account, region, name, lifecycle_hooks.TERMINATING)
    lifecycle_hooks.forget(world, account, region, identifier)
    state.phases[identifier] = Phase(state="Terminating", until=math.inf if held else gone + 1)
    state.leaving.add(identifier)
    groups.set_lifecycle(account, region, name, identifier, "Terminating")
    if host is not None and host.state == "running" and not host.out:
        host.out = True
        world.record(host, Event.OUT_OF_SERVICE, cause=cause, reason="terminating")
    takes = math.inf if held else gone - world.now
    activity = _note(world, account, region, name, f"Terminating EC2 instance: {identifier}", why, host=host, takes=takes)

    def wait(_: float) -> None:
        state.phases[identifier] = Phase(state="Terminating:Wait", until=math.inf)
        lifecycle_hooks.hold(
            world,
            account,
            region,
            name,
            identifier,
            lifecycle_hooks.TERMINATING,
            lambda _: go(),  # CONTINUE or ABANDON: it goes
            origin="AutoScalingGroup",
            destination="EC2",
        )

    def go() -> None:
        state.phases[identifier] = Phase(state="Terminating:Proceed", until=math.inf)
        activity.ends = world.now + PROCEED
        world.at(activity.ends, lambda _: _tell(world, account, region, activity, "Terminating", host))
        world.at(activity.ends, end)

    def end(_: float) -> None:
        groups.terminate(account, region, name, identifier)
        if host is not None:
            world.retired(host, cause=cause, replaced_by=replaced_by)
        state.leaving.discard(identifier)

    if held:
        activity.before = "MidLifecycleAction"
    world.at(gone, wait if held else end)


def swap_root_volume(world: World, host: Host, group: Group, made_by: groups.TemplateVersion, *, why: str, cause: Cause) -> None:
    """The instance drains, boots from a root volume of another image, and serves again: same id, address and role.

    Raises:
        LookupError: the image cannot be on this host.
    """
    account, region = host.account, host.region
    content = world.image_content(account, region, made_by.image)
    if content is None or content.template.os != host.platform.key:
        raise LookupError(f"The image {made_by.image} cannot replace the root volume of {host.id}.")
    state, disk = scaling(world, account, region), dict(content.levels)
    state.phases[host.id] = Phase(state="ReplacingRootVolume", until=math.inf)
    description = f"Replacing the root volume of EC2 instance: {host.id}"
    activity = _note(world, account, region, group.name, description, why, host=host, takes=math.inf)
    if host.state == "running" and not host.out:
        host.out = True
        world.record(host, Event.OUT_OF_SERVICE, cause=cause, reason="root_volume")
    gone = max([world.now + SHUTDOWN, *_drain(world, account, region, group, host.id)])

    def swap(_: float) -> None:
        if host.state != "running":
            return
        host.levels, host.changes, host.files = disk, [], {}
        host.image, host.bricked = made_by.image, False
        groups.set_image(account, region, host.id, made_by.image)
        state.configurations[host.id] = _configuration(made_by)
        world.reboot(host, cause=cause)
        look(len(host.boots))

    def look(boots: int) -> None:
        if host.state != "running" or groups.member(account, region, group.name, host.id) is None:
            return
        if host.rebooting or len(host.boots) == boots:
            world.at(world.now + 5, lambda _: look(boots))
            return
        state.phases[host.id] = Phase(state="RootVolumeReplaced", until=math.inf)
        world.at(max(world.now + RETURN, host.healthy_from + 1), serve)

    def serve(_: float) -> None:
        if host.state == "running" and not host.rebooting:
            activity.ends = world.now
            state.phases.pop(host.id, None)
            groups.set_lifecycle(account, region, group.name, host.id, "InService")
            into_service(world, host, group, cause)

    world.at(gone, swap)


def _drain(world: World, account: str, region: str, group: Group, identifier: str) -> list[float]:
    return [elbv2.deregister(world, account, region, arn, identifier) for arn in group.target_groups]


def _note(
    world: World,
    account: str,
    region: str,
    name: str,
    description: str,
    why: str,
    *,
    host: Host | None = None,
    takes: float = 0.0,
    before: str = "InProgress",
    failed: str | None = None,
) -> Activity:
    """Keep an activity, and tell EventBridge of launches and terminations when they are over."""
    state = scaling(world, account, region)
    group = need(account, region, name)
    rows = state.activities.setdefault(name, [])
    bits = f"{world.random('activity', account, region, name, len(rows)).getrandbits(128):032x}"
    member = groups.member(account, region, name, host.id) if host is not None else None
    activity = Activity(
        id=f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}",
        group=name,
        group_arn=group.arn,
        description=description,
        cause=f"At {iso(world.now)[:19]}Z {why}",
        started=world.now,
        ends=world.now + takes,
        before=before,
        details={"Subnet ID": member.subnet, "Availability Zone": member.zone} if member else {},
        failed=failed,
    )
    rows.append(activity)
    what = description.partition(" ")[0]
    if what in ("Launching", "Terminating") and takes < math.inf:
        world.at(activity.ends, lambda _: _tell(world, account, region, activity, what, host))
    return activity


def _tell(world: World, account: str, region: str, activity: Activity, what: str, host: Host | None) -> None:
    kind = "Launch" if what == "Launching" else "Terminate"
    resources = [activity.group_arn]
    if host is not None:
        resources.append(f"arn:aws:ec2:{region}:{account}:instance/{host.id}")
    events.emit(
        world,
        account,
        region,
        source="aws.autoscaling",
        detail_type=f"EC2 Instance {kind} {'Unsuccessful' if activity.failed else 'Successful'}",
        resources=resources,
        detail={
            "StatusCode": "Failed" if activity.failed else "InProgress",
            **({} if activity.failed else {"Description": activity.description}),
            "AutoScalingGroupName": activity.group,
            "ActivityId": activity.id,
            "Details": activity.details,
            "RequestId": activity.id,
            "StatusMessage": activity.failed or "",
            "EndTime": iso(activity.ends)[:19] + "Z",
            "EC2InstanceId": host.id if host is not None else "",
            "StartTime": iso(activity.started)[:19] + "Z",
            "Cause": activity.cause,
        },
    )


# --- health ---


def _down(world: World, host: Host) -> None:
    """A machine of a group goes down: is it still down when the health checks have noticed?"""
    state = scaling(world, host.account, host.region)
    if host.group is None or host.id in state.leaving:
        return
    state.impaired_since[host.id] = world.now

    def look(_: float) -> None:
        name = host.group or ""
        if host.state != "running" or host.rebooting or groups.asks_balancers(host.account, host.region, name):
            check(world, host.account, host.region, name)

    for after in (UNHEALTHY_AFTER, 120 + UNHEALTHY_AFTER, IMPAIRED_FOR + UNHEALTHY_AFTER):
        world.at(world.now + after, look)


def check(world: World, account: str, region: str, name: str) -> None:
    """Replace the members that are unhealthy now, unless their processes are suspended."""
    group = groups.group(account, region, name)
    if group is None or group.suspended & {"HealthCheck", "ReplaceUnhealthy"}:
        return
    for member in in_service(world, account, region, group):
        if not healthy(world, account, region, group, member):
            why = _FAILED_CHECK.format(group.health_check)
            host = world.host(account, region, member.id)
            by_somebody = member.health.lower() != "healthy" or (host is not None and host.state != "running")
            cause = world.causes.get(member.id, Cause()) if by_somebody else Cause()
            replace(world, account, region, name, member.id, why=why, cause=cause)


def replace(
    world: World, account: str, region: str, name: str, identifier: str, *, why: str, cause: Cause, hooks: bool = True
) -> Host | None:
    """A new instance in the place of one that goes."""
    group = need(account, region, name)
    successor = None
    if "Launch" not in group.suspended:
        successor = launch(world, account, region, name, why=why, cause=cause)
    if "Terminate" not in group.suspended:
        place = successor.id if successor else None
        retire(world, account, region, name, identifier, why=why, cause=cause, replaced_by=place, hooks=hooks)
    for callback in world.state(account, region, Replacements).callbacks:
        callback(name, identifier, successor)
    return successor


@dataclass(slots=True, eq=False)
class Replacements:
    """Who wants to know that a member was replaced: a refresh that counts it."""

    callbacks: list[Any] = field(default_factory=list)


def _cells_with(world: World, fault: Fault) -> list[tuple[str, str]]:
    return [
        (account, region)
        for account, region in world.cells
        if (fault.account in (None, account)) and (fault.region in (None, region))
        if fault.group in groups.group_names(account, region)
    ]


def _scales(world: World, fault: Fault, by: int) -> None:
    for account, region in _cells_with(world, fault):
        group = need(account, region, fault.group or "")
        resize(world, account, region, group.name, min(max(group.desired + by, group.least), group.most), cause=Cause())


def _replaces(world: World, fault: Fault) -> None:
    for account, region in _cells_with(world, fault):
        group = need(account, region, fault.group or "")
        for member in in_service(world, account, region, group)[: fault.number]:
            why = _FAILED_CHECK.format("EC2")
            replace(world, account, region, group.name, member.id, why=why, cause=Cause())


def resize(world: World, account: str, region: str, name: str, desired: int, *, cause: Cause) -> None:
    """Launch or terminate until the group has the desired capacity."""
    group = need(account, region, name)
    groups.set_desired(account, region, name, desired)
    counted = [
        member
        for member in group.members
        if lifecycle(world, account, region, member) == "InService"
        or lifecycle(world, account, region, member).startswith("Pending")
    ]
    why = f"a user request explicitly set group desired capacity changing the desired capacity from {group.desired} to {desired}."
    for _ in range(desired - len(counted)):
        launch(world, account, region, name, why=why, cause=cause)
    spare = [member for member in _scale_in_order(world, account, region, counted) if not member.protected]
    for member in spare[: max(0, len(counted) - desired)]:
        retire(world, account, region, name, member.id, why=why, cause=cause)


def _scale_in_order(world: World, account: str, region: str, members: list[Member]) -> list[Member]:
    """The default policy: from the zone with the most instances, the oldest first."""
    hosts = {member.id: world.host(account, region, member.id) for member in members}
    left = sorted(members, key=lambda member: (getattr(hosts[member.id], "launched", 0.0), member.id))
    order: list[Member] = []
    while left:
        count = {zone: sum(member.zone == zone for member in left) for zone in {member.zone for member in left}}
        zone = max(sorted(count), key=lambda name: count[name])
        first = next(member for member in left if member.zone == zone)
        order.append(first)
        left.remove(first)
    return order


# --- operations: reading ---


@operation("autoscaling", "DescribeAutoScalingGroups", check=False)
def describe_auto_scaling_groups(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """moto's groups, their members as they are at this moment."""
    if (params.get("MaxRecords") or 0) > 100:
        raise AwsError("ValidationError", above(params["MaxRecords"], 100))
    told = ctx.call_moto()
    for row in told.get("AutoScalingGroups") or []:
        group = groups.group(ctx.account, ctx.region, row["AutoScalingGroupName"])
        if group is not None:
            _amend(ctx, group, row.get("Instances") or [])
            row.update(kept(ctx.world, ctx.account, ctx.region, group.name).as_row())
        row["TrafficSources"] = [{"Identifier": arn, "Type": "elbv2"} for arn in row.get("TargetGroupARNs") or []]
    return told


def above(size: int, limit: int) -> str:
    return (
        f"1 validation error detected: Value '{size}' at 'maxRecords' failed to satisfy constraint: Member must have value less"
        f" than or equal to {limit}"
    )


def _amend(ctx: Context, group: Group, rows: list[dict[str, Any]]) -> None:
    members = {member.id: member for member in group.members}
    configurations = scaling(ctx.world, ctx.account, ctx.region).configurations
    for row in rows:
        member = members.get(row["InstanceId"])
        if member is None:
            continue
        row["LifecycleState"] = lifecycle(ctx.world, ctx.account, ctx.region, member)
        good = row["LifecycleState"] != "InService" or healthy(ctx.world, ctx.account, ctx.region, group, member)
        if not good:
            row["HealthStatus"] = "UNHEALTHY" if row.get("HealthStatus", "").isupper() else "Unhealthy"
        if row["InstanceId"] in configurations and row.get("LaunchTemplate"):
            row["LaunchTemplate"] = dict(configurations[row["InstanceId"]])


@operation("autoscaling", "DescribeAutoScalingInstances", check=False)
def describe_auto_scaling_instances(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """At most 50 a page, as AWS; moto gives all at once."""
    size = params.get("MaxRecords")
    if size is not None and not 1 <= size <= 50:
        raise AwsError("ValidationError", above(size, 50))
    rows = ctx.call_moto().get("AutoScalingInstances") or []
    by_group: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_group.setdefault(row["AutoScalingGroupName"], []).append(row)
    for name, members in by_group.items():
        _amend(ctx, need(ctx.account, ctx.region, name), members)
        for row in members:
            if elbv2.paced(ctx.world, ctx.world.host(ctx.account, ctx.region, row["InstanceId"])):
                row["HealthStatus"] = row["HealthStatus"].upper()  # as AWS spells it in this operation
    listed, token = ctx.page(rows, params, default=50, size="MaxRecords")
    return {"AutoScalingInstances": listed, "NextToken": token}


@operation("autoscaling", "DescribeScalingActivities", check=False)
def describe_scaling_activities(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Newest first, for six weeks."""
    size = params.get("MaxRecords")
    if size is not None and not 1 <= size <= 100:
        raise AwsError("ValidationError", above(size, 100))
    name, wanted = params.get("AutoScalingGroupName"), params.get("ActivityIds")
    kept = scaling(ctx.world, ctx.account, ctx.region).activities
    rows = [activity for group, found in kept.items() if name in (None, group) for activity in found]
    if wanted:
        rows = [activity for activity in rows if activity.id in wanted]
    rows = [activity for activity in rows if activity.started > ctx.at - 42 * 86_400]
    rows.sort(key=lambda activity: -activity.started)
    listed, token = ctx.page(rows, params, default=100, size="MaxRecords")
    return {"Activities": [activity.as_row(ctx.at) for activity in listed], "NextToken": token}


# --- operations: standby ---


@operation("autoscaling", "EnterStandby")
def enter_standby(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The instances leave their target groups, and no health check looks at them any more."""
    world, name = ctx.world, params["AutoScalingGroupName"]
    group = need(ctx.account, ctx.region, name)
    ids = _members(group, params.get("InstanceIds") or [])
    for member in ids:
        if lifecycle(world, ctx.account, ctx.region, member) != "InService":
            raise AwsError("ValidationError", f"The instance {member.id} is not in InService.")
    fewer = bool(params["ShouldDecrementDesiredCapacity"])
    if fewer and group.desired - len(ids) < group.least:
        raise AwsError(
            "ValidationError",
            f"{_sizes(group)} To place"
            f" into standby {len(ids)} instance{'s' if len(ids) > 1 else ''}, please update the AutoScalingGroup sizes"
            " appropriately.",
        )
    state, activities, desired = scaling(world, ctx.account, ctx.region), [], group.desired
    cause = Cause(request_id=ctx.request_id)
    for member in ids:
        host = world.host(ctx.account, ctx.region, member.id)
        rest = SHUTDOWN if elbv2.paced(world, host) else 0.0
        until = max([world.now + rest, *_drain(world, ctx.account, ctx.region, group, member.id)])
        groups.set_lifecycle(ctx.account, ctx.region, name, member.id, "Standby")
        if until > world.now:
            state.phases[member.id] = Phase(state="EnteringStandby", until=until)
        if host is not None and not host.out:
            host.out = True
            world.record(host, Event.OUT_OF_SERVICE, cause=cause, reason="standby")
        shrinking = f", shrinking the capacity from {desired} to {desired - 1}." if fewer else "."
        desired -= fewer
        activities.append(
            _note(
                world,
                ctx.account,
                ctx.region,
                name,
                f"Moving EC2 instance to Standby: {member.id}",
                f"instance {member.id} was moved to standby in response to a user request{shrinking}",
                host=host,
                takes=max(until - world.now, 0.001),
            )
        )
    if fewer:
        groups.set_desired(ctx.account, ctx.region, name, desired)
    else:
        why = "an instance was launched in response to an unhealthy instance needing to be replaced."
        for _ in ids:
            launch(world, ctx.account, ctx.region, name, why=why, cause=cause)
    groups.refresh_balancers(ctx.account, ctx.region, name)
    return {"Activities": [activity.as_row(ctx.at) for activity in activities]}


@operation("autoscaling", "ExitStandby")
def exit_standby(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Back through Pending; the desired capacity grows by their number."""
    world, name = ctx.world, params["AutoScalingGroupName"]
    group = need(ctx.account, ctx.region, name)
    ids = _members(group, params.get("InstanceIds") or [])
    for member in ids:
        if lifecycle(world, ctx.account, ctx.region, member) != "Standby":
            raise AwsError("ValidationError", f"The instance {member.id} is not in Standby.")
    if group.desired + len(ids) > group.most and _paced_group(ctx, group):
        raise AwsError(
            "ValidationError",
            f"{_sizes(group)} To move"
            f" out of standby {len(ids)} instance{'s' if len(ids) > 1 else ''}, please update the AutoScalingGroup sizes"
            " appropriately.",
        )
    state, activities, desired = scaling(world, ctx.account, ctx.region), [], group.desired
    cause = Cause(request_id=ctx.request_id)
    for member in ids:
        host = world.host(ctx.account, ctx.region, member.id)
        rest = RETURN if elbv2.paced(world, host) else 0.0
        groups.set_lifecycle(ctx.account, ctx.region, name, member.id, "InService")
        if rest:
            state.phases[member.id] = Phase(state="Pending", until=world.now + rest)
        world.at(world.now + rest, _returns(world, ctx.account, ctx.region, name, member.id, cause))
        activities.append(
            _note(
                world,
                ctx.account,
                ctx.region,
                name,
                f"Moving EC2 instance out of Standby: {member.id}",
                f"instance {member.id} was moved out of standby in response to a user request, increasing the capacity from"
                f" {desired} to {desired + 1}.",
                host=host,
                takes=max(rest, 0.001),
                before="PreInService",
            )
        )
        desired += 1
    groups.set_desired(ctx.account, ctx.region, name, desired)
    groups.refresh_balancers(ctx.account, ctx.region, name)
    return {"Activities": [activity.as_row(ctx.at) for activity in activities]}


def _sizes(group: Group) -> str:
    return f"AutoScalingGroup {group.name} has min-size={group.least}, max-size={group.most}, and desired-size={group.desired}."


def _returns(world: World, account: str, region: str, name: str, identifier: str, cause: Cause) -> Any:
    def released(proceed: bool) -> None:
        group, host = groups.group(account, region, name), world.host(account, region, identifier)
        if group is None or host is None or groups.member(account, region, name, identifier) is None:
            return
        if not proceed:
            why = "an instance was taken out of service in response to a lifecycle action that was abandoned."
            replace(world, account, region, name, identifier, why=why, cause=cause, hooks=False)
            return
        scaling(world, account, region).phases.pop(identifier, None)
        host.out = False
        if host.state == "running":
            for arn in group.target_groups:
                elbv2.register(world, account, region, arn, identifier)
            if not host.rebooting:
                world.record(host, Event.IN_SERVICE, cause=cause, reason="standby")
        world.at(world.now + UNHEALTHY_AFTER, lambda _: check(world, account, region, name))

    def back(_: float) -> None:
        if groups.member(account, region, name, identifier) is None:
            return
        if lifecycle_hooks.has(account, region, name, lifecycle_hooks.LAUNCHING):
            scaling(world, account, region).phases[identifier] = Phase(state="Pending:Wait", until=math.inf)
        lifecycle_hooks.hold(world, account, region, name, identifier, lifecycle_hooks.LAUNCHING, released)

    return back


def _members(group: Group, ids: list[str]) -> list[Member]:
    if not 1 <= len(ids) <= 20:
        raise AwsError("ValidationError", f"The number of instance IDs must be between 1 and 20, not {len(ids)}.")
    members = {member.id: member for member in group.members}
    for identifier in ids:
        if identifier not in members:
            raise AwsError("ValidationError", f"The instance {identifier} is not part of Auto Scaling group {group.name}.")
    return [members[identifier] for identifier in dict.fromkeys(ids)]


# --- operations: capacity, health, processes ---


@operation("autoscaling", "SetDesiredCapacity")
def set_desired_capacity(ctx: Context, params: dict[str, Any]) -> Answer | None:
    """Hosts come and go; moto does it at once where nothing is paced."""
    name, desired = params["AutoScalingGroupName"], params["DesiredCapacity"]
    group = need(ctx.account, ctx.region, name)
    if desired > group.most:
        raise AwsError(
            "ValidationError", f"New SetDesiredCapacity value {desired} is above max value {group.most} for the AutoScalingGroup."
        )
    if desired < group.least:
        raise AwsError(
            "ValidationError",
            f"New SetDesiredCapacity value {desired} is below min value {group.least} for the AutoScalingGroup.",
        )
    if not _paced_group(ctx, group):
        return ctx.moto_answer()
    resize(ctx.world, ctx.account, ctx.region, name, desired, cause=Cause(request_id=ctx.request_id))
    return None


def _paced_group(ctx: Context, group: Group) -> bool:
    if ctx.world.file is not None:
        return True
    return any(elbv2.paced(ctx.world, ctx.world.host(ctx.account, ctx.region, member.id)) for member in group.members)


@operation("autoscaling", "UpdateAutoScalingGroup", check=False)
def update_auto_scaling_group(ctx: Context, params: dict[str, Any]) -> Answer:
    """While a refresh runs, a larger group grows by its desired configuration."""
    name = params.get("AutoScalingGroupName") or ""
    need(ctx.account, ctx.region, name)
    moved = params.get("LaunchTemplate") or params.get("MixedInstancesPolicy") or params.get("LaunchConfigurationName")
    in_force = None if moved else scaling(ctx.world, ctx.account, ctx.region).in_force.get(name)
    group = need(ctx.account, ctx.region, name)
    _check_policy(params)
    _keep(ctx, name, params)
    if not _paced_group(ctx, group):
        with groups.with_template(ctx.account, ctx.region, name, in_force):
            answer = ctx.moto_answer()
        if answer.status == 200:
            _adopt(ctx, name, in_force)
        return answer
    with groups.with_template(ctx.account, ctx.region, name, in_force), groups.only_the_number(ctx.account, ctx.region, name):
        answer = ctx.moto_answer()
    desired = need(ctx.account, ctx.region, name).desired
    if answer.status == 200 and desired != group.desired:
        groups.set_desired(ctx.account, ctx.region, name, group.desired)
        resize(ctx.world, ctx.account, ctx.region, name, desired, cause=Cause(request_id=ctx.request_id))
    return answer


@operation("autoscaling", "CreateAutoScalingGroup", check=False)
def create_auto_scaling_group(ctx: Context, params: dict[str, Any]) -> Answer:
    _check_policy(params)
    answer = ctx.moto_answer()
    if answer.status == 200:
        _keep(ctx, params["AutoScalingGroupName"], params)
        lifecycle_hooks.create_with_group(ctx, params["AutoScalingGroupName"], params.get("LifecycleHookSpecificationList") or [])
        _adopt(ctx, params["AutoScalingGroupName"], None)
    return answer


def _adopt(ctx: Context, name: str, in_force: dict[str, Any] | None) -> None:
    """Instances that moto has just launched take their time from here on, if they are paced."""
    ctx.world.sync(ctx.account, ctx.region, Cause(request_id=ctx.request_id))
    template = in_force or _template(ctx.account, ctx.region, name)
    made_by = groups.template_version(ctx.account, ctx.region, template) if template else None
    for member in need(ctx.account, ctx.region, name).members:
        host = ctx.world.host(ctx.account, ctx.region, member.id)
        new = host is not None and host.launched == ctx.at and member.id not in scaling(ctx.world, ctx.account, ctx.region).phases
        if host is not None and new and elbv2.paced(ctx.world, host):
            why = "an instance was started in response to a difference between desired and actual capacity."
            _settle(ctx.world, host, made_by, why, Cause(request_id=ctx.request_id))


@operation("autoscaling", "SetInstanceHealth", check=False)
def set_instance_health(ctx: Context, params: dict[str, Any]) -> Answer:
    _managed(ctx, params.get("InstanceId") or "")
    answer = ctx.moto_answer()
    if answer.status == 200:
        name = _managed(ctx, params["InstanceId"])
        ctx.world.causes[params["InstanceId"]] = Cause(request_id=ctx.request_id)
        ctx.world.at(ctx.at + UNHEALTHY_AFTER, lambda _: check(ctx.world, ctx.account, ctx.region, name))
    return answer


@operation("autoscaling", "TerminateInstanceInAutoScalingGroup", check=False)
def terminate_instance_in_auto_scaling_group(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    identifier = params.get("InstanceId") or ""
    group = need(ctx.account, ctx.region, _managed(ctx, identifier))
    if not _paced_group(ctx, group):
        return ctx.moto_answer()
    world, cause, fewer = ctx.world, Cause(request_id=ctx.request_id), bool(params.get("ShouldDecrementDesiredCapacity"))
    if fewer and group.desired - 1 < group.least:
        raise AwsError(
            "ValidationError",
            f"Currently, desiredSize equals minSize ({group.least}). Terminating instance without replacement will violate"
            " group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.",
        )
    shrinking = f", shrinking the capacity from {group.desired} to {group.desired - 1}." if fewer else "."
    why = f"instance {identifier} was taken out of service in response to a user request{shrinking}"
    if fewer:
        groups.set_desired(ctx.account, ctx.region, group.name, group.desired - 1)
        retire(world, ctx.account, ctx.region, group.name, identifier, why=why, cause=cause)
    else:
        replace(world, ctx.account, ctx.region, group.name, identifier, why=why, cause=cause)
    activities = scaling(world, ctx.account, ctx.region).activities[group.name]
    last = next(activity for activity in reversed(activities) if activity.description.startswith("Terminating"))
    return {"Activity": last.as_row(ctx.at)}


def _managed(ctx: Context, identifier: str) -> str:
    name = groups.group_of(ctx.account, ctx.region, identifier)
    if name is None:
        raise AwsError("ValidationError", f"Instance Id not found - No managed instance found for instance ID: {identifier}")
    return name


@operation("autoscaling", "DetachInstances", check=False)
def detach_instances(ctx: Context, params: dict[str, Any]) -> Answer | dict[str, Any]:
    """The machines go on without the group; their targets drain, and without a decrement others take their place."""
    name, ids = params.get("AutoScalingGroupName") or "", params.get("InstanceIds") or []
    group = need(ctx.account, ctx.region, name)
    if not ids or not _paced_group(ctx, group):
        return ctx.moto_answer()
    _members(group, ids)
    fewer = bool(params.get("ShouldDecrementDesiredCapacity"))
    if fewer and group.desired - len(ids) < group.least:
        raise AwsError(
            "ValidationError",
            f"{_sizes(group)} To detach"
            f" {len(ids)} instance{'s' if len(ids) > 1 else ''}, please update the AutoScalingGroup sizes appropriately.",
        )
    with groups.only_the_number(ctx.account, ctx.region, name):
        answer = ctx.moto_answer()
    if answer.status != 200:
        return answer
    world, cause, activities = ctx.world, Cause(request_id=ctx.request_id), []
    for identifier in ids:
        _drain(world, ctx.account, ctx.region, group, identifier)
        scaling(world, ctx.account, ctx.region).phases.pop(identifier, None)
    world.sync(ctx.account, ctx.region, cause)
    for identifier in ids:
        host = world.host(ctx.account, ctx.region, identifier)
        shrinking = f", shrinking the capacity from {group.desired} to {group.desired - len(ids)}." if fewer else "."
        why = f"instance {identifier} was detached in response to a user request{shrinking}"
        what = f"Detaching EC2 instance: {identifier}"
        activities.append(_note(world, ctx.account, ctx.region, name, what, why, host=host, takes=SHUTDOWN))
        successor = None
        if not fewer and "Launch" not in group.suspended:
            successor = launch(world, ctx.account, ctx.region, name, why=why, cause=cause)
        if host is not None and successor is not None:
            world.record(host, Event.REPLACED, cause=cause, replaced_by=successor.id)
        for callback in world.state(ctx.account, ctx.region, Replacements).callbacks:
            callback(name, identifier, successor)
    return {"Activities": [activity.as_row(ctx.at) for activity in activities]}


@operation("autoscaling", "ResumeProcesses", check=False)
def resume_processes(ctx: Context, params: dict[str, Any]) -> Answer:
    """What became unhealthy meanwhile is looked at again."""
    answer = ctx.moto_answer()
    if answer.status == 200:
        name = params["AutoScalingGroupName"]
        ctx.world.at(ctx.at + UNHEALTHY_AFTER, lambda _: check(ctx.world, ctx.account, ctx.region, name))
    return answer


# --- operations: warm pools ---


@operation("autoscaling", "PutWarmPool", check=False)
def put_warm_pool(ctx: Context, params: dict[str, Any]) -> Answer:
    answer = ctx.moto_answer()
    if answer.status == 200:
        name = params["AutoScalingGroupName"]
        ctx.world.at(ctx.at + SHUTDOWN, lambda _: _fill_warm_pool(ctx.world, ctx.account, ctx.region, name))
    return answer


def _fill_warm_pool(world: World, account: str, region: str, name: str) -> None:
    group = groups.group(account, region, name)
    pool = groups.warm_pool(account, region, name) if group is not None else None
    if group is None or pool is None:
        return
    prepared = group.most if pool.most is None else pool.most
    kept = scaling(world, account, region).warm.setdefault(name, [])
    while len(kept) < max(pool.least, prepared - group.desired):
        made = launch_warm(world, account, region, name, stopped=pool.state != "Running")
        if made is None:
            return
        kept.append(made)


def launch_warm(world: World, account: str, region: str, name: str, *, stopped: bool) -> Warm | None:
    """An instance for the warm pool, made by the launch template in force; None when it cannot be made."""
    state = scaling(world, account, region)
    template = state.in_force.get(name) or _template(account, region, name)
    made_by = groups.template_version(account, region, template) if template else None
    profile = (made_by.profile if made_by else None) or groups.group_profile(account, region, name)
    state.number += 1
    try:
        if made_by is not None and groups.is_deregistered(account, region, made_by.image):
            raise LookupError(f"The image id '[{made_by.image}]' does not exist")
        with groups.with_template(account, region, name, state.in_force.get(name)):
            identifier = groups.launch_warm(account, region, name, stopped=stopped, profile=profile, number=state.number)
    except Exception as refused:  # noqa: BLE001 - as in `launch`
        why = "an instance was started for the warm pool."
        _note(
            world,
            account,
            region,
            name,
            f"Launching a new EC2 instance into warm pool.  Status Reason: {refused}",
            why,
            failed=str(refused),
        )
        return None
    host = world.arrived(account, region, identifier)
    host.out = True
    return Warm(id=identifier, since=world.now, configuration=_configuration(made_by) if made_by else None)


@operation("autoscaling", "DescribeWarmPool", check=False)
def describe_warm_pool(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    name = params.get("AutoScalingGroupName") or ""
    need(ctx.account, ctx.region, name)
    told = ctx.call_moto()
    pool = groups.warm_pool(ctx.account, ctx.region, name)
    if pool is None:
        return told
    rows = []
    for warm in scaling(ctx.world, ctx.account, ctx.region).warm.get(name, []):
        machine = groups.machine(ctx.account, ctx.region, warm.id)
        ready = ctx.at >= warm.since + LAUNCH
        rows.append(
            {
                "InstanceId": warm.id,
                "InstanceType": machine.instance_type if machine else None,
                "AvailabilityZone": machine.zone if machine else "",
                "LifecycleState": f"Warmed:{pool.state if ready else 'Pending'}",
                "HealthStatus": "Healthy",
                "LaunchTemplate": warm.configuration,
            }
        )
    listed, token = ctx.page(rows, params, default=50, size="MaxRecords")
    return {**told, "Instances": listed, "NextToken": token}


@operation("autoscaling", "DeleteWarmPool", check=False)
def delete_warm_pool(ctx: Context, params: dict[str, Any]) -> Answer:
    if groups.group(ctx.account, ctx.region, params.get("AutoScalingGroupName") or "") is None:
        raise AwsError("ValidationError", "AutoScalingGroup name not found - null")
    answer = ctx.moto_answer()
    if answer.status == 200:
        name = params["AutoScalingGroupName"]
        for warm in scaling(ctx.world, ctx.account, ctx.region).warm.pop(name, []):
            groups.terminate(ctx.account, ctx.region, name, warm.id)
    return answer
