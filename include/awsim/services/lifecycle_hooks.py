"""Who may hold up an instance that comes or goes, for how long, and what happens when nobody says a word?

Hooks are moto's (PutLifecycleHook, DescribeLifecycleHooks); this module adds what moto drops (metadata, notification target,
hooks of CreateAutoScalingGroup) and what they are for: `hold` keeps an instance in `Pending:Wait` or `Terminating:Wait` until
each hook was completed, abandoned or timed out, tells EventBridge and the hook's queue, and calls back with the result.
`autoscaling.py` calls it for instances that are paced; a refresh waits as it waits for any instance that is not in service.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from awsim import groups
from awsim.clock import iso
from awsim.registry import AwsError, Context, operation
from awsim.services import events
from awsim.wire import Answer
from awsim.world import World

LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
LONGEST = 48 * 3600.0
"""An instance waits no longer, however many heartbeats are recorded; nor longer than 100 heartbeat timeouts."""

_WORD = {LAUNCHING: "launch", TERMINATING: "terminate"}


@dataclass(kw_only=True, slots=True, eq=False)
class Action:
    """One hook that holds one instance."""

    token: str
    group: str
    hook: groups.Hook
    instance: str
    begun: float
    until: float
    done: Callable[[str], None]


@dataclass(slots=True, eq=False)
class Hooks:
    """Actions that are open in a cell, and what moto does not keep of a hook."""

    open: list[Action] = field(default_factory=list)
    more: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    number: int = 0


def has(account: str, region: str, name: str, transition: str) -> bool:
    return bool(groups.hooks(account, region, name, transition))


def hold(
    world: World,
    account: str,
    region: str,
    name: str,
    identifier: str,
    transition: str,
    then: Callable[[bool], None],
    *,
    origin: str = "EC2",
    destination: str = "AutoScalingGroup",
) -> None:
    """Wait for the group's hooks of this transition; `then(True)` when all said CONTINUE, `then(False)` at the first ABANDON."""
    hooks, state = groups.hooks(account, region, name, transition), world.state(account, region, Hooks)
    waiting = {hook.name for hook in hooks}
    if not hooks:
        then(True)
        return

    def done(hook: str, result: str) -> None:
        waiting.discard(hook)
        if result == "ABANDON":
            state.open = [action for action in state.open if action.instance != identifier or action.hook.name not in waiting]
            waiting.clear()
            then(False)
        elif not waiting:
            then(True)

    for hook in hooks:
        state.number += 1
        bits = f"{world.random('lifecycle action', account, region, state.number).getrandbits(128):032x}"
        action = Action(
            token=f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}",
            group=name,
            hook=hook,
            instance=identifier,
            begun=world.now,
            until=world.now + hook.timeout,
            done=lambda result, hook=hook.name: done(hook, result),  # type: ignore[misc]
        )
        state.open.append(action)
        _tell(world, account, region, action, origin=origin, destination=destination)
        _time_out(world, account, region, action)


def forget(world: World, account: str, region: str, identifier: str) -> None:
    """The instance is gone: nobody waits for it any more."""
    state = world.state(account, region, Hooks)
    state.open = [action for action in state.open if action.instance != identifier]


def _time_out(world: World, account: str, region: str, action: Action) -> None:
    def look(_: float) -> None:
        if action not in world.state(account, region, Hooks).open:
            return
        if world.now < action.until:
            _time_out(world, account, region, action)
        else:
            _complete(world, account, region, action, action.hook.default_result)

    world.at(action.until, look)


def _complete(world: World, account: str, region: str, action: Action, result: str) -> None:
    world.state(account, region, Hooks).open.remove(action)
    action.done(result)


def _tell(world: World, account: str, region: str, action: Action, *, origin: str, destination: str) -> None:
    more = world.state(account, region, Hooks).more.get((action.group, action.hook.name), {})
    group = groups.group(account, region, action.group)
    detail = {
        "LifecycleActionToken": action.token,
        "AutoScalingGroupName": action.group,
        "LifecycleHookName": action.hook.name,
        "EC2InstanceId": action.instance,
        "LifecycleTransition": action.hook.transition,
        **({"NotificationMetadata": more["NotificationMetadata"]} if more.get("NotificationMetadata") else {}),
        "Origin": origin,
        "Destination": destination,
    }
    events.emit(
        world,
        account,
        region,
        source="aws.autoscaling",
        detail_type=f"EC2 Instance-{_WORD[action.hook.transition]} Lifecycle Action",
        resources=[group.arn] if group is not None else [],
        detail=detail,
    )
    _notify(world, account, region, more.get("NotificationTargetARN"), {**detail, "RequestId": action.token})


def _notify(world: World, account: str, region: str, target: str | None, message: dict[str, Any]) -> None:
    if target:
        told = {"Service": "AWS Auto Scaling", "Time": iso(world.now), "AccountId": account, **message}
        with suppress(Exception):  # a queue or topic that is gone is the caller's business
            groups.send_message(target, json.dumps(told))


# --- operations ---


@operation("autoscaling", "PutLifecycleHook", check=False)
def put_lifecycle_hook(ctx: Context, params: dict[str, Any]) -> Answer:
    """moto keeps name, transition, timeout and default result; an update leaves what it does not say."""
    name, hook = params.get("AutoScalingGroupName") or "", params.get("LifecycleHookName") or ""
    _group(ctx, name)
    transition, timeout = params.get("LifecycleTransition"), params.get("HeartbeatTimeout")
    known = next((one for one in groups.hooks(ctx.account, ctx.region, name) if one.name == hook), None)
    if transition is None and known is None:
        raise AwsError("ValidationError", "You must specify a lifecycle transition when creating a lifecycle hook.")
    if transition is not None and transition not in _WORD:
        allowed = ", ".join(_WORD)
        raise AwsError("ValidationError", f"Lifecycle transition {transition} is not valid. Valid values are [{allowed}].")
    if timeout is not None and not 30 <= timeout <= 7200:
        raise AwsError("ValidationError", "HeartbeatTimeout must be between 30 and 7200 seconds.")
    _result(params.get("DefaultResult"))
    answer = ctx.moto_answer()
    if answer.status == 200:
        if known is not None:
            groups.keep_of_hook(ctx.account, ctx.region, name, known, set(params))
        _remember(ctx, name, params)
    return answer


def _remember(ctx: Context, name: str, params: dict[str, Any]) -> None:
    more = ctx.state(Hooks).more.setdefault((name, params["LifecycleHookName"]), {})
    for key in ("NotificationMetadata", "NotificationTargetARN", "RoleARN"):
        if key in params:
            more[key] = params[key]
    group = groups.group(ctx.account, ctx.region, name)
    if params.get("NotificationTargetARN") and group is not None:
        test = {
            "RequestId": ctx.request_id,
            "AutoScalingGroupARN": group.arn,
            "AutoScalingGroupName": name,
            "Event": "autoscaling:TEST_NOTIFICATION",
        }
        _notify(ctx.world, ctx.account, ctx.region, params["NotificationTargetARN"], test)


def create_with_group(ctx: Context, name: str, specifications: list[dict[str, Any]]) -> None:
    """LifecycleHookSpecificationList of CreateAutoScalingGroup."""
    for one in specifications:
        groups.make_hook(
            ctx.account,
            ctx.region,
            name,
            hook=one["LifecycleHookName"],
            transition=one["LifecycleTransition"],
            timeout=one.get("HeartbeatTimeout"),
            result=one.get("DefaultResult"),
        )
        _remember(ctx, name, one)


@operation("autoscaling", "DescribeLifecycleHooks", check=False)
def describe_lifecycle_hooks(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Role and target as they were given, instead of moto's examples."""
    told = ctx.call_moto()
    for row in told.get("LifecycleHooks") or []:
        more = ctx.state(Hooks).more.get((row["AutoScalingGroupName"], row["LifecycleHookName"]))
        if more is not None:
            row.pop("RoleARN", None)
            row.pop("NotificationTargetARN", None)
            row.update(more)
            row["GlobalTimeout"] = int(min(LONGEST, 100 * row["HeartbeatTimeout"]))
    return told


@operation("autoscaling", "CompleteLifecycleAction")
def complete_lifecycle_action(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """By token or by instance; what is not open is refused."""
    result = _result(params["LifecycleActionResult"])
    _complete(ctx.world, ctx.account, ctx.region, _open(ctx, params), result or "ABANDON")
    return {}


@operation("autoscaling", "RecordLifecycleActionHeartbeat")
def record_lifecycle_action_heartbeat(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The timeout begins anew, within the global one."""
    action = _open(ctx, params)
    most = min(LONGEST, 100 * action.hook.timeout)
    action.until = min(ctx.at + action.hook.timeout, action.begun + most)
    return {}


def _open(ctx: Context, params: dict[str, Any]) -> Action:
    name, hook = params["AutoScalingGroupName"], params["LifecycleHookName"]
    token, instance = params.get("LifecycleActionToken"), params.get("InstanceId")
    _group(ctx, name)
    if token is None and instance is None:
        raise AwsError("ValidationError", "Either a lifecycle action token or an instance ID must be specified.")
    for action in ctx.state(Hooks).open:
        named = action.token == token if token is not None else action.instance == instance
        if named and action.group == name and action.hook.name == hook and instance in (None, action.instance):
            return action
    what = f"with token {token}" if token is not None else f"with instance ID {instance}"
    raise AwsError("ValidationError", f"No active Lifecycle Action found {what}")


def _group(ctx: Context, name: str) -> None:
    if groups.group(ctx.account, ctx.region, name) is None:
        raise AwsError("ValidationError", "AutoScalingGroup name not found - null")


def _result(given: str | None) -> str | None:
    if given not in (None, "CONTINUE", "ABANDON"):
        raise AwsError("ValidationError", f"Lifecycle action result {given} is not valid. Valid values are [CONTINUE, ABANDON].")
    return given
