"""In which state is an alarm, at this moment?

Alarms are moto's (PutMetricAlarm, DescribeAlarms). This module moves their state: alarms on metrics that the world itself has
(status checks, healthy targets, instances in service) are evaluated every period; any alarm fires when a fault `alarm_fires`
says so. Instance refreshes and Run Command ask `state_of`.
"""

import operator
from collections import deque
from collections.abc import Callable
from typing import Any

from awsim import groups
from awsim.faults import Fault, Kind
from awsim.registry import AwsError, Context, on_world, operation
from awsim.services import elbv2, events
from awsim.wire import Answer
from awsim.world import World

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


class Alarms:
    """Which alarms of a cell are watched, which are held in ALARM by a fault, and the last values seen."""

    def __init__(self) -> None:
        self.watched: dict[str, int] = {}
        self.held: dict[str, float | None] = {}
        self.seen: dict[str, deque[bool]] = {}


@on_world
def attach(world: World) -> None:
    world.on_event(Kind.ALARM_FIRES, lambda fault: _fires(world, fault))


def state_of(account: str, region: str, name: str) -> str | None:
    """OK, ALARM or INSUFFICIENT_DATA; None when there is no alarm of that name."""
    found = groups.alarm(account, region, name)
    return str(found.state_value) if found is not None else None


def _fires(world: World, fault: Fault) -> None:
    """In every cell that the fault means; an alarm that does not exist yet fires as soon as it does."""
    for account, region in list(world.cells):
        if fault.account in (None, account) and fault.region in (None, region) and fault.alarm:
            fire(world, account, region, fault.alarm, fault.lasts)


def fire(world: World, account: str, region: str, name: str, lasts: float | None) -> None:
    """The alarm goes into ALARM now, and stays there so long (None: for good)."""
    until = world.now + lasts if lasts is not None else None
    world.state(account, region, Alarms).held[name] = until
    _set(world, account, region, name, "ALARM", "Threshold Crossed: the value was above the threshold.")
    if until is not None:
        world.at(until, _release(world, account, region, name))


def _release(world: World, account: str, region: str, name: str) -> Callable[[float], None]:
    def release(_: float) -> None:
        world.state(account, region, Alarms).held.pop(name, None)
        _set(world, account, region, name, "OK", "Threshold Crossed: the value was not above the threshold.")

    return release


def _set(world: World, account: str, region: str, name: str, state: str, reason: str) -> None:
    found = groups.alarm(account, region, name)
    if found is None or found.state_value == state:
        return
    before = str(found.state_value)
    groups.set_alarm(account, region, name, state=state, reason=reason, at=world.now)
    events.emit(
        world,
        account,
        region,
        source="aws.cloudwatch",
        detail_type="CloudWatch Alarm State Change",
        resources=[str(found.alarm_arn)],
        detail={
            "alarmName": name,
            "state": {"value": state, "reason": reason},
            "previousState": {"value": before},
            "configuration": {"description": found.description or ""},
        },
    )


@operation("cloudwatch", "PutMetricAlarm", check=False)
def put_metric_alarm(ctx: Context, params: dict[str, Any]) -> Answer:
    """moto stores it; an alarm on a metric of the world is evaluated from now on."""
    if not params.get("AlarmName"):
        raise AwsError("ValidationError", "1 validation error detected: Value null at 'alarmName' failed to satisfy constraint: "
                       "Member must not be null")  # fmt: skip
    answer = ctx.moto_answer()
    if answer.status == 200:
        name, alarms = params["AlarmName"], ctx.state(Alarms)
        if name in alarms.held:
            _set(ctx.world, ctx.account, ctx.region, name, "ALARM", "Threshold Crossed: the value was above the threshold.")
        alarm = groups.alarm(ctx.account, ctx.region, name)
        if alarm is not None and _measured(ctx.world, ctx.account, ctx.region, alarm) is not None:
            alarms.watched[name] = alarms.watched.get(name, 0) + 1
            alarms.seen.pop(name, None)
            _watch(ctx.world, ctx.account, ctx.region, name, alarms.watched[name])
    return answer


def _watch(world: World, account: str, region: str, name: str, version: int) -> None:
    """Evaluate once a period, until the alarm is put anew or deleted."""

    def evaluate(_: float) -> None:
        alarms, alarm = world.state(account, region, Alarms), groups.alarm(account, region, name)
        if alarm is None or alarms.watched.get(name) != version:
            return
        _evaluate(world, account, region, name, alarm, alarms)
        _watch(world, account, region, name, version)

    found = groups.alarm(account, region, name)
    world.at(world.now + max(10, int(getattr(found, "period", None) or 60)), evaluate)


def _evaluate(world: World, account: str, region: str, name: str, alarm: Any, alarms: Alarms) -> None:
    value = _measured(world, account, region, alarm)
    if value is None or name in alarms.held:
        return
    periods = int(alarm.evaluation_periods or 1)
    needed = int(alarm.datapoints_to_alarm or periods)
    seen = alarms.seen.setdefault(name, deque(maxlen=periods))
    seen.append(_COMPARE[alarm.comparison_operator](value, float(alarm.threshold)))
    if sum(seen) >= needed:
        reason = f"Threshold Crossed: {sum(seen)} datapoint [{value}] crossed the threshold ({alarm.threshold})."
        _set(world, account, region, name, "ALARM", reason)
    elif len(seen) - sum(seen) > periods - needed or len(seen) < periods:
        reason = f"Threshold Crossed: 1 datapoint [{value}] did not cross the threshold ({alarm.threshold})."
        _set(world, account, region, name, "OK", reason)


def _measured(world: World, account: str, region: str, alarm: Any) -> float | None:
    """The metric's value in the world now; None for a metric that the world does not have."""
    if alarm.comparison_operator not in _COMPARE or alarm.threshold is None:
        return None
    dimensions = {dimension.name: dimension.value for dimension in alarm.dimensions or []}
    namespace, metric = alarm.namespace, alarm.metric_name
    if namespace == "AWS/EC2" and metric in ("StatusCheckFailed", "StatusCheckFailed_Instance"):
        host = world.host(account, region, dimensions.get("InstanceId", ""))
        return None if host is None else float(host.state == "running" and host.status_check(world.now) == "impaired")
    if namespace in ("AWS/ApplicationELB", "AWS/NetworkELB") and metric in ("HealthyHostCount", "UnHealthyHostCount"):
        arn = groups.target_group_named(account, region, dimensions.get("TargetGroup", ""))
        group = groups.target_group(account, region, arn) if arn else None
        if arn is None or group is None:
            return None
        wanted = "healthy" if metric == "HealthyHostCount" else "unhealthy"
        return float(sum(elbv2.health(world, account, region, arn, one).state == wanted for one in group.targets))
    if namespace == "AWS/AutoScaling" and metric in ("GroupInServiceInstances", "GroupTotalInstances"):
        from awsim.services import autoscaling

        found = groups.group(account, region, dimensions.get("AutoScalingGroupName", ""))
        if found is None:
            return None
        members = found.members if metric == "GroupTotalInstances" else autoscaling.in_service(world, account, region, found)
        return float(len(members))
    return None
