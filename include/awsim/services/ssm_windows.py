"""Maintenance windows that open: schedules, executions on the virtual clock, and what is read of both.

moto keeps windows, targets and tasks; here they are checked when made, opened when due, and told with their next moment. Tasks of
type RUN_COMMAND and AUTOMATION are carried out (`runcommand.send`, `inside.ask`). A state machine is started at moto's; of a
function it is only looked whether moto has it, for nothing runs a function's code here.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from awsim import estate_ssm, inside, runcommand, schedules
from awsim.clock import moment
from awsim.registry import AwsError, Context, operation
from awsim.schedules import BadSchedule, Schedule
from awsim.wire import Answer
from awsim.world import World

POLL = 5.0
"""Seconds between two looks at what a task's command or automation does."""
_OPEN = frozenset({"PENDING", "IN_PROGRESS", "CANCELLING"})
_OF_COMMAND = {"Success": "SUCCESS", "Failed": "FAILED", "TimedOut": "TIMED_OUT", "Cancelled": "CANCELLED"}
_OF_AUTOMATION = {
    "Success": "SUCCESS",
    "CompletedWithSuccess": "SUCCESS",
    "Failed": "FAILED",
    "CompletedWithFailure": "FAILED",
    "TimedOut": "TIMED_OUT",
    "Cancelled": "CANCELLED",
    "Rejected": "FAILED",
}
_PSEUDO = re.compile(r"\{\{\s*((?:aws:)?[A-Za-z_]+)\s*\}\}")


@dataclass(kw_only=True, slots=True, eq=False)
class Invocation:
    """One target group of a task: a command or an automation of its own."""

    id: str
    parameters: dict[str, Any]
    target_id: str
    owner: str
    status: str = "PENDING"
    details: str = ""
    started: float | None = None
    ended: float | None = None
    execution_id: str = ""
    command: runcommand.Command | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class TaskRun:
    id: str
    task_id: str
    arn: str
    kind: str
    role: str
    priority: int
    max_concurrency: str
    max_errors: str
    cutoff: str
    alarm: dict[str, Any] | None = None
    """AlarmConfiguration, as the task was registered with it."""
    triggered: list[dict[str, str]] = field(default_factory=list)
    status: str = "PENDING"
    details: str = ""
    started: float | None = None
    ended: float | None = None
    invocations: list[Invocation] = field(default_factory=list)

    def width(self) -> int:
        """How many invocations may run at once; a command spreads over its hosts by itself."""
        return len(self.invocations) if self.kind == "RUN_COMMAND" else max(1, self._of_all(self.max_concurrency, math.ceil))

    def broken(self) -> bool:
        failed = sum(invocation.status in ("FAILED", "TIMED_OUT") for invocation in self.invocations)
        return self.kind != "RUN_COMMAND" and failed > self._of_all(self.max_errors, math.floor)

    def _of_all(self, text: str, rounded: Callable[[float], int]) -> int:
        return rounded(len(self.invocations) * int(text[:-1]) / 100) if text.endswith("%") else int(text)


@dataclass(kw_only=True, slots=True, eq=False)
class Execution:
    id: str
    window_id: str
    started: float
    closes: float
    """Cutoff: nothing starts from here on."""
    status: str = "IN_PROGRESS"
    details: str = ""
    ended: float | None = None
    tasks: list[TaskRun] = field(default_factory=list)


@dataclass(kw_only=True, slots=True, eq=False)
class Extra:
    """What moto does not keep of a window."""

    created: float
    modified: float
    schedule: Schedule
    enabled: bool = True
    unassociated: bool = False
    edition: int = 0
    """Counts changes, so that the opening of an earlier edition is not carried out."""


@dataclass(slots=True)
class Windows:
    extras: dict[str, Extra] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)


# --- windows ---


def _schedule(ctx: Context, params: dict[str, Any], created: float) -> Schedule:
    if params["Cutoff"] >= params["Duration"]:
        raise AwsError("ValidationException", "Cutoff: must be less than Duration.")
    try:
        return schedules.parse(
            params["Schedule"],
            created=created,
            zone=params.get("ScheduleTimezone"),
            offset=params.get("ScheduleOffset"),
            start=params.get("StartDate"),
            end=params.get("EndDate"),
        )
    except BadSchedule as bad:
        raise AwsError("ValidationException", str(bad)) from bad


@operation("ssm", "CreateMaintenanceWindow")
def create_maintenance_window(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    schedule = _schedule(ctx, params, ctx.at)
    state = ctx.state(Windows)
    token = params.get("ClientToken")
    asked = json.dumps({key: value for key, value in params.items() if key != "ClientToken"}, sort_keys=True, default=str)
    if token in state.tokens:
        before, identifier = state.tokens[token]
        if before != asked:
            raise AwsError("IdempotentParameterMismatch", "The client token was used for a request with other parameters.")
        return {"WindowId": identifier}
    identifier = str(ctx.call_moto()["WindowId"])
    state.extras[identifier] = Extra(
        created=ctx.at, modified=ctx.at, schedule=schedule, unassociated=bool(params.get("AllowUnassociatedTargets"))
    )
    if token:
        state.tokens[token] = (asked, identifier)
    _plan(ctx.world, ctx.account, ctx.region, identifier)
    return {"WindowId": identifier}


def _window(ctx: Context, identifier: str) -> Any:
    found = estate_ssm.windows(ctx.account, ctx.region).get(identifier)
    if found is None:
        raise AwsError("DoesNotExistException", f"Maintenance window {identifier} does not exist")
    return found


def _told(ctx: Context, window: Any) -> dict[str, Any]:
    extra = ctx.state(Windows).extras[window.id]
    following = extra.schedule.after(ctx.at) if extra.enabled else None
    return {
        "WindowId": window.id,
        "Name": window.name,
        "Description": window.description,
        "StartDate": window.start_date,
        "EndDate": window.end_date,
        "Schedule": window.schedule,
        "ScheduleTimezone": window.schedule_timezone,
        "ScheduleOffset": window.schedule_offset,
        "NextExecutionTime": extra.schedule.spelled(following) if following is not None else None,
        "Duration": window.duration,
        "Cutoff": window.cutoff,
        "AllowUnassociatedTargets": extra.unassociated,
        "Enabled": extra.enabled,
        "CreatedDate": moment(extra.created),
        "ModifiedDate": moment(extra.modified),
    }


@operation("ssm", "GetMaintenanceWindow", check=False)
def get_maintenance_window(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    return _told(ctx, _window(ctx, str(params.get("WindowId"))))


@operation("ssm", "DescribeMaintenanceWindows")
def describe_maintenance_windows(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = [_told(ctx, window) for window in estate_ssm.windows(ctx.account, ctx.region).values()]
    for entry in params.get("Filters") or []:
        key, values = entry.get("Key"), entry.get("Values") or []
        if key == "Name":
            rows = [row for row in rows if row["Name"] in values]
        elif key == "Enabled":
            rows = [row for row in rows if str(row["Enabled"]).lower() in [value.lower() for value in values]]
        else:
            raise AwsError("ValidationException", f"Filters: key {key!r} is not Name or Enabled")
    page, token = ctx.page(rows, params, default=50)
    hidden = ("AllowUnassociatedTargets", "CreatedDate", "ModifiedDate")
    return {
        "WindowIdentities": [{key: value for key, value in row.items() if key not in hidden} for row in page],
        "NextToken": token,
    }


@operation("ssm", "UpdateMaintenanceWindow")
def update_maintenance_window(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """With Replace, what a window must have must be given, and the rest becomes empty."""
    window = _window(ctx, params["WindowId"])
    names = {
        "Name": "name",
        "Description": "description",
        "StartDate": "start_date",
        "EndDate": "end_date",
        "Schedule": "schedule",
        "ScheduleTimezone": "schedule_timezone",
        "ScheduleOffset": "schedule_offset",
        "Duration": "duration",
        "Cutoff": "cutoff",
    }
    needed = ("Name", "Schedule", "Duration", "Cutoff", "AllowUnassociatedTargets")
    if params.get("Replace") and any(params.get(name) is None for name in needed):
        raise AwsError("ValidationException", f"With Replace, {', '.join(needed)} are required.")
    wanted = {
        name: params[name] if name in params else None if params.get("Replace") else getattr(window, attribute)
        for name, attribute in names.items()
    }
    extra = ctx.state(Windows).extras[window.id]
    wanted = {name: value if value != "" else None for name, value in wanted.items()}
    extra.schedule = _schedule(ctx, wanted, extra.created)
    for name, attribute in names.items():
        setattr(window, attribute, wanted[name])
    extra.enabled = bool(params.get("Enabled", True if params.get("Replace") else extra.enabled))
    extra.unassociated = bool(params.get("AllowUnassociatedTargets", extra.unassociated))
    extra.modified = ctx.at
    extra.edition += 1
    _plan(ctx.world, ctx.account, ctx.region, window.id)
    hidden = ("NextExecutionTime", "CreatedDate", "ModifiedDate")
    return {key: value for key, value in _told(ctx, window).items() if key not in hidden}


@operation("ssm", "DeleteMaintenanceWindow", check=False)
def delete_maintenance_window(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """An execution that runs goes on."""
    window = _window(ctx, str(params.get("WindowId")))
    ctx.moto_answer()
    ctx.state(Windows).extras.pop(window.id, None)
    return {"WindowId": window.id}


@operation("ssm", "RegisterTaskWithMaintenanceWindow", check=False)
def register_task_with_maintenance_window(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """A registered target that is named must be there; the rest is moto's, which forgets the alarm."""
    window = estate_ssm.windows(ctx.account, ctx.region).get(params.get("WindowId") or "")
    if window is None:
        return ctx.moto_answer()
    for target in params.get("Targets") or []:
        if target.get("Key") == "WindowTargetIds":
            missing = [value for value in target.get("Values") or [] if value not in window.targets]
            if missing:
                raise AwsError("DoesNotExistException", f"Window target {', '.join(missing)} does not exist.")
    made = str(ctx.call_moto()["WindowTaskId"])
    window.tasks[made].alarm_configurations = params.get("AlarmConfiguration")
    return {"WindowTaskId": made}


@operation("ssm", "DeregisterTargetFromMaintenanceWindow", check=False)
def deregister_target_from_maintenance_window(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """With Safe, a target that a task names stays."""
    window = _window(ctx, str(params.get("WindowId")))
    wanted = str(params.get("WindowTargetId"))
    if wanted not in window.targets:
        raise AwsError("DoesNotExistException", f"Window target {wanted} does not exist")
    named = [value for task in window.tasks.values() for entry in task.targets or [] for value in entry.get("Values") or []]
    if params.get("Safe") and wanted in named:
        raise AwsError("TargetInUseException", f"Window target {wanted} is named by a task of the window.")
    del window.targets[wanted]
    return {"WindowId": window.id, "WindowTargetId": wanted}


@operation("ssm", "DeregisterTaskFromMaintenanceWindow", check=False)
def deregister_task_from_maintenance_window(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    window = _window(ctx, str(params.get("WindowId")))
    wanted = str(params.get("WindowTaskId"))
    if window.tasks.pop(wanted, None) is None:
        raise AwsError("DoesNotExistException", f"Maintenance window task {wanted} does not exist")
    return {"WindowId": window.id, "WindowTaskId": wanted}


def _kept(found: list[Any], params: dict[str, Any], facts: dict[str, str]) -> list[Any]:
    for entry in params.get("Filters") or []:
        attribute = facts.get(str(entry.get("Key")))
        if attribute is None:
            raise AwsError("ValidationException", f"Filters: key {entry.get('Key')!r} is not one of {', '.join(facts)}")
        found = [one for one in found if str(getattr(one, attribute)) in (entry.get("Values") or [])]
    return found


@operation("ssm", "DescribeMaintenanceWindowTargets", check=False)
def describe_maintenance_window_targets(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    _check_size(params)
    window = _window(ctx, str(params.get("WindowId")))
    facts = {"Type": "resource_type", "WindowTargetId": "window_target_id", "OwnerInformation": "owner_information"}
    rows = [
        {
            "WindowId": window.id,
            "WindowTargetId": target.window_target_id,
            "ResourceType": target.resource_type,
            "Targets": target.targets or [],
            "OwnerInformation": target.owner_information,
            "Name": target.name,
            "Description": target.description,
        }
        for target in _kept(list(window.targets.values()), params, facts)
    ]
    page, token = ctx.page(rows, params, default=50)
    return {"Targets": page, "NextToken": token}


@operation("ssm", "DescribeMaintenanceWindowTasks", check=False)
def describe_maintenance_window_tasks(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    _check_size(params)
    window = _window(ctx, str(params.get("WindowId")))
    facts = {"WindowTaskId": "window_task_id", "TaskArn": "task_arn", "Priority": "priority", "TaskType": "task_type"}
    rows = [
        {
            "WindowId": window.id,
            "WindowTaskId": task.window_task_id,
            "TaskArn": task.task_arn,
            "Type": task.task_type,
            "Targets": task.targets or [],
            "TaskParameters": task.task_parameters or {},
            "Priority": task.priority or 0,
            "LoggingInfo": task.logging_info,
            "ServiceRoleArn": task.service_role_arn or _service_role(ctx.account),
            "MaxConcurrency": task.max_concurrency or "1",
            "MaxErrors": task.max_errors or "1",
            "Name": task.name,
            "Description": task.description,
            "CutoffBehavior": task.cutoff_behavior,
            "AlarmConfiguration": task.alarm_configurations,
        }
        for task in _kept(list(window.tasks.values()), params, facts)
    ]
    page, token = ctx.page(rows, params, default=50)
    return {"Tasks": page, "NextToken": token}


def _check_size(params: dict[str, Any]) -> None:
    """The rest of these requests is checked as loosely as moto does it."""
    size = params.get("MaxResults")
    if size is not None and not 10 <= size <= 100:
        limit = "greater than or equal to 10" if size < 10 else "less than or equal to 100"
        raise AwsError(
            "ValidationException",
            f"1 validation error detected: Value '{size}' at 'maxResults' failed to satisfy constraint: "
            f"Member must have value {limit}",
        )


def _service_role(account: str) -> str:
    return f"arn:aws:iam::{account}:role/aws-service-role/ssm.amazonaws.com/AWSServiceRoleForAmazonSSM"


@operation("ssm", "GetMaintenanceWindowTask")
def get_maintenance_window_task(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    window = _window(ctx, params["WindowId"])
    task = window.tasks.get(params["WindowTaskId"])
    if task is None:
        raise AwsError("DoesNotExistException", f"Maintenance window task {params['WindowTaskId']} does not exist.")
    return {
        "WindowId": window.id,
        "WindowTaskId": task.window_task_id,
        "Targets": task.targets or [],
        "TaskArn": task.task_arn,
        "ServiceRoleArn": task.service_role_arn,
        "TaskType": task.task_type,
        "TaskParameters": task.task_parameters or {},
        "TaskInvocationParameters": task.task_invocation_parameters or {},
        "Priority": task.priority or 0,
        "MaxConcurrency": task.max_concurrency or "1",
        "MaxErrors": task.max_errors or "1",
        "LoggingInfo": task.logging_info,
        "Name": task.name,
        "Description": task.description,
        "CutoffBehavior": task.cutoff_behavior,
        "AlarmConfiguration": task.alarm_configurations,
    }


_TARGET_FIELDS = {
    "Targets": "targets",
    "OwnerInformation": "owner_information",
    "Name": "name",
    "Description": "description",
}
_TASK_FIELDS = {
    "Targets": "targets",
    "TaskArn": "task_arn",
    "ServiceRoleArn": "service_role_arn",
    "TaskParameters": "task_parameters",
    "TaskInvocationParameters": "task_invocation_parameters",
    "Priority": "priority",
    "MaxConcurrency": "max_concurrency",
    "MaxErrors": "max_errors",
    "LoggingInfo": "logging_info",
    "Name": "name",
    "Description": "description",
    "CutoffBehavior": "cutoff_behavior",
    "AlarmConfiguration": "alarm_configurations",
}


def _change(found: Any, params: dict[str, Any], fields: dict[str, str], needed: tuple[str, ...]) -> None:
    if params.get("Replace") and any(params.get(name) is None for name in needed):
        raise AwsError("ValidationException", f"With Replace, {', '.join(needed)} are required.")
    for name, attribute in fields.items():
        if name in params or params.get("Replace"):
            setattr(found, attribute, params.get(name))


@operation("ssm", "UpdateMaintenanceWindowTarget")
def update_maintenance_window_target(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = _window(ctx, params["WindowId"]).targets.get(params["WindowTargetId"])
    if found is None:
        raise AwsError("DoesNotExistException", f"Window target {params['WindowTargetId']} does not exist")
    _change(found, params, _TARGET_FIELDS, ("Targets",))
    told = {name: getattr(found, attribute) or "" for name, attribute in _TARGET_FIELDS.items()}
    return {"WindowId": params["WindowId"], "WindowTargetId": params["WindowTargetId"], **told}


@operation("ssm", "UpdateMaintenanceWindowTask")
def update_maintenance_window_task(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """An execution that runs keeps the task as it was."""
    found = _window(ctx, params["WindowId"]).tasks.get(params["WindowTaskId"])
    if found is None:
        raise AwsError("DoesNotExistException", f"Maintenance window task {params['WindowTaskId']} does not exist")
    _change(found, params, _TASK_FIELDS, ("TaskArn",))
    told = {name: getattr(found, attribute) for name, attribute in _TASK_FIELDS.items()}
    told["TaskParameters"] = told["TaskParameters"] or {}
    return {"WindowId": params["WindowId"], "WindowTaskId": params["WindowTaskId"], **told}


# --- opening ---


def _plan(world: World, account: str, region: str, window_id: str) -> None:
    extra = world.state(account, region, Windows).extras[window_id]
    edition = extra.edition
    following = extra.schedule.after(world.now) if extra.enabled else None
    if following is not None:
        world.at(following, lambda _: _opens(world, account, region, window_id, edition))


def _opens(world: World, account: str, region: str, window_id: str, edition: int) -> None:
    state = world.state(account, region, Windows)
    window = estate_ssm.windows(account, region).get(window_id)
    extra = state.extras.get(window_id)
    if window is None or extra is None or extra.edition != edition:
        return
    _plan(world, account, region, window_id)
    run = Execution(
        id=_uuid(world, "window", window_id, world.now),
        window_id=window_id,
        started=world.now,
        closes=world.now + (window.duration - window.cutoff) * 3600,
    )
    busy = any(other.window_id == window_id and other.status in _OPEN for other in state.executions.values())
    state.executions[run.id] = run
    if busy:
        run.status, run.ended = "SKIPPED_OVERLAPPING", world.now
        run.details = "The previous execution of the window is still running."
        return
    for task in sorted(window.tasks.values(), key=lambda task: task.priority or 0):
        run.tasks.append(_task(world, account, region, run, window, task))
    if not run.tasks:
        run.status, run.details, run.ended = "SUCCESS", "No tasks to execute.", world.now
        return
    world.at(run.closes, lambda _: _cut_off(world, run))
    _go_on(world, account, region, run)


def _task(world: World, account: str, region: str, run: Execution, window: Any, task: Any) -> TaskRun:
    identifier = _uuid(world, "task", run.id, task.window_task_id)
    made = TaskRun(
        id=identifier,
        task_id=task.window_task_id,
        arn=task.task_arn,
        kind=task.task_type,
        role=task.service_role_arn or _service_role(account),
        priority=task.priority or 0,
        max_concurrency=task.max_concurrency or "1",
        max_errors=task.max_errors or "1",
        cutoff=task.cutoff_behavior or "CONTINUE_TASK",
        alarm=task.alarm_configurations,
    )
    groups: list[tuple[str, str, list[dict[str, Any]]]] = []
    for target in task.targets or []:
        if target.get("Key") == "WindowTargetIds":
            for value in target.get("Values") or []:
                if value in window.targets:
                    registered = window.targets[value]
                    groups.append((value, registered.owner_information or "", registered.targets))
        else:
            groups.append(("", "", [target]))
    if not groups and task.task_type != "RUN_COMMAND":
        groups.append(("", "", []))
    associated = (
        None
        if world.state(account, region, Windows).extras[window.id].unassociated
        else _associated(world, account, region, window)
    )
    parts: list[tuple[str, str, list[str]]] = []
    for target_id, owner, targets in groups:
        hosts = [host.id for host in runcommand.select(world, account, region, targets)] if targets else []
        if associated is not None and not target_id:
            hosts = [host for host in hosts if host in associated]
        if task.task_type == "RUN_COMMAND" or not targets:
            parts += [(target_id, owner, hosts)] if hosts or not targets else []
        else:  # what is no command is carried out once for each target
            parts += [(target_id, owner, [host]) for host in hosts]
    for number, (target_id, owner, hosts) in enumerate(parts):
        invocation = _uuid(world, "invocation", identifier, number)
        pseudo = {
            "WINDOW_ID": window.id,
            "WINDOW_TASK_ID": task.window_task_id,
            "WINDOW_TARGET_ID": target_id,
            "WINDOW_EXECUTION_ID": run.id,
            "TASK_EXECUTION_ID": identifier,
            "INVOCATION_ID": invocation,
            "aws:ORCHESTRATION_ID": run.id,
            "TARGET_ID": hosts[0] if hosts else "",
            "RESOURCE_ID": hosts[0] if hosts else "",
            "TARGET_TYPE": "INSTANCE",
            "RESOURCE_TYPE": "INSTANCE",
        }
        made.invocations.append(
            Invocation(id=invocation, parameters=_parameters(task, hosts, pseudo), target_id=target_id, owner=owner)
        )
    return made


def _associated(world: World, account: str, region: str, window: Any) -> set[str]:
    """The hosts that are registered with the window; a task's own targets are limited to them."""
    chosen = [runcommand.select(world, account, region, target.targets) for target in window.targets.values()]
    return {host.id for hosts in chosen for host in hosts}


def _parameters(task: Any, hosts: list[str], pseudo: dict[str, str]) -> dict[str, Any]:
    given = task.task_invocation_parameters or {}
    if task.task_type == "RUN_COMMAND":
        wanted = given.get("RunCommand") or {}
        values = wanted.get("Parameters") or {
            name: entry.get("Values") or [] for name, entry in (task.task_parameters or {}).items() if isinstance(entry, dict)
        }
        return {
            "comment": wanted.get("Comment") or "",
            "documentName": task.task_arn,
            "documentVersion": wanted.get("DocumentVersion") or "",
            "instanceIds": hosts,
            "maxConcurrency": task.max_concurrency or "1",
            "maxErrors": task.max_errors or "1",
            "parameters": _filled(values, pseudo),
            "timeoutSeconds": wanted.get("TimeoutSeconds") or 3600,
        }
    if task.task_type == "AUTOMATION":
        wanted = given.get("Automation") or {}
        return {
            "documentName": task.task_arn,
            "documentVersion": wanted.get("DocumentVersion") or "",
            "parameters": _filled(wanted.get("Parameters") or {}, pseudo),
        }
    if task.task_type == "LAMBDA":
        wanted = given.get("Lambda") or {}
        return {
            "functionName": task.task_arn,
            "clientContext": _filled(wanted.get("ClientContext") or "", pseudo),
            "payload": _filled(_payload(wanted.get("Payload")), pseudo),
            "qualifier": wanted.get("Qualifier") or "",
        }
    wanted = given.get("StepFunctions") or {}
    return {
        "stateMachineArn": task.task_arn,
        "input": _filled(wanted.get("Input") or "", pseudo),
        "name": _filled(wanted.get("Name") or "", pseudo),
    }


def _payload(given: Any) -> str:
    """The payload of a function as text; on the wire it is Base64."""
    try:
        return base64.b64decode(given or "", validate=True).decode()
    except (binascii.Error, ValueError, TypeError):
        return str(given or "")


def _filled(value: Any, pseudo: dict[str, str]) -> Any:
    """Pseudo parameters of maintenance windows; others stay for the document."""
    if isinstance(value, dict):
        return {key: _filled(item, pseudo) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, pseudo) for item in value]
    return _PSEUDO.sub(lambda found: pseudo.get(found.group(1), found.group(0)), value) if isinstance(value, str) else value


def _go_on(world: World, account: str, region: str, run: Execution) -> None:
    """Look at what runs, start what may start, close what is done; again in a few seconds while the execution is open."""
    if run.ended is not None:
        return
    for task in run.tasks:
        for invocation in task.invocations:
            if invocation.status in ("IN_PROGRESS", "CANCELLING"):
                _look(world, account, region, task, invocation)
        if task.status == "IN_PROGRESS":
            _launch(world, account, region, task)
        _close_task(world, task)
    waiting = [task for task in run.tasks if task.status == "PENDING"]
    running = [task for task in run.tasks if task.status == "IN_PROGRESS"]
    if run.status == "IN_PROGRESS" and world.now < run.closes:
        turn = min((task.priority for task in [*waiting, *running]), default=0)
        for task in waiting:
            if task.priority == turn:
                task.status, task.started = "IN_PROGRESS", world.now
                _launch(world, account, region, task)
                _close_task(world, task)
    if any(task.status in _OPEN for task in run.tasks):
        world.at(world.now + POLL, lambda _: _go_on(world, account, region, run))
        return
    _close(world, run)


def _launch(world: World, account: str, region: str, task: TaskRun) -> None:
    """Begin as many invocations as may run at once; after too many errors, or by the task's alarm, no further one."""
    if not task.invocations:
        task.status, task.details, task.ended = "SUCCESS", "No invocations to execute.", world.now
        return
    _look_at_alarm(world, account, region, task)
    for invocation in task.invocations:
        if invocation.status != "PENDING":
            continue
        if task.triggered:
            _end(world, invocation, "CANCELLED", f"The alarm {task.triggered[0]['Name']} was triggered.")
        elif task.broken():
            _end(world, invocation, "CANCELLED", "The task had more errors than its MaxErrors.")
        elif sum(other.status == "IN_PROGRESS" for other in task.invocations) < task.width():
            _begin(world, account, region, task, invocation)


def _look_at_alarm(world: World, account: str, region: str, task: TaskRun) -> None:
    if task.alarm is None or task.triggered:
        return
    name = task.alarm["Alarms"][0]["Name"]
    state = estate_ssm.alarm_state(account, region, name)
    if state == "ALARM" or (state is None and not task.alarm.get("IgnorePollAlarmFailure")):
        task.triggered.append({"Name": name, "State": "ALARM" if state == "ALARM" else "UNKNOWN"})


def _begin(world: World, account: str, region: str, task: TaskRun, invocation: Invocation) -> None:
    invocation.status, invocation.started = "IN_PROGRESS", world.now
    given = invocation.parameters
    try:
        if task.kind == "RUN_COMMAND":
            invocation.command = runcommand.send(
                world,
                account,
                region,
                document=given["documentName"],
                parameters=given["parameters"],
                instance_ids=given["instanceIds"],
                comment=given["comment"],
                timeout=given["timeoutSeconds"],
                max_concurrency=task.max_concurrency,
                max_errors=task.max_errors,
                document_version=given["documentVersion"],
                alarm=task.alarm,
            )
            invocation.execution_id = invocation.command.id
        elif task.kind == "AUTOMATION":
            asked = {"DocumentName": given["documentName"], "Parameters": given["parameters"] or None}
            asked |= {"DocumentVersion": given["documentVersion"] or None, "AlarmConfiguration": task.alarm}
            asked = {key: value for key, value in asked.items() if value is not None}
            answer = inside.ask(world, account, region, "ssm", "StartAutomationExecution", asked)
            invocation.execution_id = answer["AutomationExecutionId"]
        elif task.kind == "LAMBDA":
            wanted = {"FunctionName": given["functionName"], "Qualifier": given["qualifier"]}
            inside.ask(world, account, region, "lambda", "GetFunction", {key: value for key, value in wanted.items() if value})
            invocation.execution_id = _uuid(world, "function", invocation.id)
            _end(world, invocation, "SUCCESS", "")
        else:
            wanted = {key: value for key, value in given.items() if value}
            answer = inside.ask(world, account, region, "stepfunctions", "StartExecution", wanted)
            invocation.execution_id = str(answer["executionArn"])
            _end(world, invocation, "SUCCESS", "")
    except (AwsError, inside.Unaskable) as refused:
        _end(world, invocation, "FAILED", str(refused))


def _look(world: World, account: str, region: str, task: TaskRun, invocation: Invocation) -> None:
    if invocation.command is not None:
        status, details = invocation.command.status()
        if status in _OF_COMMAND:
            _end(world, invocation, _OF_COMMAND[status], details)
    elif task.kind == "AUTOMATION":
        asked = {"AutomationExecutionId": invocation.execution_id}
        try:
            answer = inside.ask(world, account, region, "ssm", "GetAutomationExecution", asked)
        except (AwsError, inside.Unaskable):
            return  # struck by a fault: the next look tells
        status = answer["AutomationExecution"]["AutomationExecutionStatus"]
        if status in _OF_AUTOMATION:
            _end(world, invocation, _OF_AUTOMATION[status], status)


def _end(world: World, invocation: Invocation, status: str, details: str) -> None:
    invocation.status, invocation.details, invocation.ended = status, details[:250], world.now


def _worst(statuses: list[str]) -> str:
    return next((status for status in ("FAILED", "TIMED_OUT", "CANCELLED") if status in statuses), "SUCCESS")


def _close_task(world: World, task: TaskRun) -> None:
    if task.status == "IN_PROGRESS" and all(invocation.status not in _OPEN for invocation in task.invocations):
        task.status, task.ended = _worst([invocation.status for invocation in task.invocations]), world.now
        failed = next((invocation.details for invocation in task.invocations if invocation.status == task.status), "")
        task.details = failed if task.status != "SUCCESS" else ""


def _close(world: World, run: Execution) -> None:
    worst = _worst([task.status for task in run.tasks])
    run.status, run.ended = "CANCELLED" if run.status == "CANCELLING" else worst, world.now
    if run.status == "FAILED":
        run.details = "One or more tasks in the orchestration failed."
    elif run.status == "TIMED_OUT":
        run.details = "The cutoff was reached before all tasks were done."


def _cut_off(world: World, run: Execution) -> None:
    """Nothing starts any more; commands of tasks with CANCEL_TASK are cancelled and their tasks are TIMED_OUT."""
    if run.ended is not None:
        return
    for task in run.tasks:
        if task.status == "PENDING":
            task.status, task.details, task.ended = "TIMED_OUT", "Not started before the cutoff.", world.now
            for invocation in task.invocations:
                _end(world, invocation, "TIMED_OUT", "Not started before the cutoff.")
        elif task.status == "IN_PROGRESS" and task.cutoff == "CANCEL_TASK":
            for invocation in task.invocations:
                if invocation.status == "PENDING":
                    _end(world, invocation, "TIMED_OUT", "Not started before the cutoff.")
                elif invocation.command is not None and invocation.status == "IN_PROGRESS":
                    runcommand.cancel(world, invocation.command)
                    _end(world, invocation, "TIMED_OUT", "Cancelled at the cutoff.")
            _close_task(world, task)


def _uuid(world: World, *purpose: object) -> str:
    bits = f"{world.random('maintenance', *purpose).getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


# --- reading executions ---


def _run(ctx: Context, identifier: str) -> Execution:
    found = ctx.state(Windows).executions.get(identifier)
    if found is None:
        raise AwsError("DoesNotExistException", f"Maintenance window execution {identifier} does not exist.")
    return found


def _task_run(ctx: Context, params: dict[str, Any]) -> TaskRun:
    run = _run(ctx, params["WindowExecutionId"])
    found = next((task for task in run.tasks if task.id == params["TaskId"]), None)
    if found is None:
        raise AwsError("DoesNotExistException", f"Maintenance window execution task {params['TaskId']} does not exist.")
    return found


def _times(item: Execution | TaskRun | Invocation) -> dict[str, Any]:
    return {
        "Status": item.status,
        "StatusDetails": item.details or None,
        "StartTime": moment(item.started) if item.started is not None else None,
        "EndTime": moment(item.ended) if item.ended is not None else None,
    }


@operation("ssm", "DescribeMaintenanceWindowExecutions")
def describe_maintenance_window_executions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Newest first; a window that does not exist has none."""
    rows = [run for run in ctx.state(Windows).executions.values() if run.window_id == params["WindowId"]]
    rows.sort(key=lambda run: -run.started)
    for entry in params.get("Filters") or []:
        key, values = entry.get("Key"), entry.get("Values") or []
        if key not in ("ExecutedBefore", "ExecutedAfter") or len(values) != 1:
            raise AwsError("ValidationException", f"Filters: {key!r} is not ExecutedBefore or ExecutedAfter with one value")
        limit = _epoch(values[0])
        rows = [run for run in rows if (run.started < limit if key == "ExecutedBefore" else run.started > limit)]
    page, token = ctx.page(rows, params, default=50)
    return {
        "WindowExecutions": [{"WindowId": run.window_id, "WindowExecutionId": run.id, **_times(run)} for run in page],
        "NextToken": token,
    }


def _epoch(text: str) -> float:
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise AwsError("ValidationException", f"Filters: {text!r} is not an ISO 8601 moment.") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _with_status(rows: list[Any], params: dict[str, Any]) -> list[Any]:
    for entry in params.get("Filters") or []:
        if entry.get("Key") != "STATUS":
            raise AwsError("ValidationException", f"Filters: key {entry.get('Key')!r} is not STATUS")
        rows = [row for row in rows if row.status in (entry.get("Values") or [])]
    return rows


@operation("ssm", "DescribeMaintenanceWindowExecutionTasks")
def describe_maintenance_window_execution_tasks(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    run = _run(ctx, params["WindowExecutionId"])
    page, token = ctx.page(_with_status(run.tasks, params), params, default=50)
    return {
        "WindowExecutionTaskIdentities": [
            {
                "WindowExecutionId": run.id,
                "TaskExecutionId": task.id,
                **_times(task),
                "TaskArn": task.arn,
                "TaskType": task.kind,
                "AlarmConfiguration": task.alarm,
                "TriggeredAlarms": task.triggered or None,
            }
            for task in page
        ],
        "NextToken": token,
    }


@operation("ssm", "DescribeMaintenanceWindowExecutionTaskInvocations")
def describe_maintenance_window_execution_task_invocations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    task = _task_run(ctx, params)
    page, token = ctx.page(_with_status(task.invocations, params), params, default=50)
    return {
        "WindowExecutionTaskInvocationIdentities": [_invocation(params["WindowExecutionId"], task, row) for row in page],
        "NextToken": token,
    }


def _invocation(execution_id: str, task: TaskRun, row: Invocation) -> dict[str, Any]:
    return {
        "WindowExecutionId": execution_id,
        "TaskExecutionId": task.id,
        "InvocationId": row.id,
        "ExecutionId": row.execution_id or None,
        "TaskType": task.kind,
        "Parameters": json.dumps(row.parameters, separators=(",", ":")),
        **_times(row),
        "OwnerInformation": row.owner or None,
        "WindowTargetId": row.target_id or None,
    }


@operation("ssm", "GetMaintenanceWindowExecution")
def get_maintenance_window_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    run = _run(ctx, params["WindowExecutionId"])
    return {"WindowExecutionId": run.id, "TaskIds": [task.id for task in run.tasks], **_times(run)}


@operation("ssm", "GetMaintenanceWindowExecutionTask")
def get_maintenance_window_execution_task(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    task = _task_run(ctx, params)
    told = []
    for row in task.invocations:
        values = {name: {"Values": value} for name, value in row.parameters.get("parameters", {}).items()}
        if row.parameters.get("instanceIds"):
            values["aws:InstanceId"] = {"Values": row.parameters["instanceIds"]}
        told.append(values)
    return {
        "WindowExecutionId": params["WindowExecutionId"],
        "TaskExecutionId": task.id,
        "TaskArn": task.arn,
        "ServiceRole": task.role,
        "Type": task.kind,
        "TaskParameters": told,
        "Priority": task.priority,
        "MaxConcurrency": task.max_concurrency,
        "MaxErrors": task.max_errors,
        **_times(task),
        "AlarmConfiguration": task.alarm,
        "TriggeredAlarms": task.triggered or None,
    }


@operation("ssm", "GetMaintenanceWindowExecutionTaskInvocation")
def get_maintenance_window_execution_task_invocation(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    task = _task_run(ctx, params)
    found = next((row for row in task.invocations if row.id == params["InvocationId"]), None)
    if found is None:
        raise AwsError("DoesNotExistException", f"Task invocation {params['InvocationId']} does not exist.")
    return _invocation(params["WindowExecutionId"], task, found)


@operation("ssm", "CancelMaintenanceWindowExecution")
def cancel_maintenance_window_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """What has not begun is cancelled; what runs goes on to its end."""
    run = _run(ctx, params["WindowExecutionId"])
    if run.status == "IN_PROGRESS":
        run.status = "CANCELLING"
        for task in run.tasks:
            if task.status == "PENDING":
                task.status, task.ended = "CANCELLED", ctx.at
            for row in task.invocations:
                if row.status == "PENDING":
                    _end(ctx.world, row, "CANCELLED", "")
    return {"WindowExecutionId": run.id}


# --- reading schedules ---

_LISTED = 100
"""A schedule without an end is told for so many openings."""


@operation("ssm", "DescribeMaintenanceWindowSchedule")
def describe_maintenance_window_schedule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Of one window, of those that concern targets, or of all."""
    windows = estate_ssm.windows(ctx.account, ctx.region)
    if params.get("WindowId"):
        windows = {params["WindowId"]: _window(ctx, params["WindowId"])}
    elif params.get("Targets"):
        if not params.get("ResourceType"):
            raise AwsError("ValidationException", "ResourceType is required with Targets.")
        windows = {window.id: window for window in _for_targets(ctx, params)}
    coming: list[tuple[float, dict[str, Any]]] = []
    for window in windows.values():
        extra, at = ctx.state(Windows).extras[window.id], ctx.at
        for _ in range(_LISTED if extra.enabled else 0):
            following = extra.schedule.after(at)
            if following is None:
                break
            at = following
            row = {"WindowId": window.id, "Name": window.name, "ExecutionTime": extra.schedule.spelled(at)}
            coming.append((at, row))
    coming.sort(key=lambda pair: pair[0])
    page, token = ctx.page([row for _, row in coming], params, default=50)
    return {"ScheduledWindowExecutions": page, "NextToken": token}


@operation("ssm", "DescribeMaintenanceWindowsForTarget")
def describe_maintenance_windows_for_target(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = [{"WindowId": window.id, "Name": window.name} for window in _for_targets(ctx, params)]
    page, token = ctx.page(rows, params, default=50)
    return {"WindowIdentities": page, "NextToken": token}


def _for_targets(ctx: Context, params: dict[str, Any]) -> list[Any]:
    """Windows with a registered target, or a task's own target, that names what is asked for or is resolved to it."""
    wanted = params.get("Targets") or []
    asked = {host.id for host in runcommand.select(ctx.world, ctx.account, ctx.region, wanted)} if wanted else set()
    found = []
    for window in estate_ssm.windows(ctx.account, ctx.region).values():
        lists = [
            target.targets for target in window.targets.values() if target.resource_type in (None, params.get("ResourceType"))
        ]
        direct = [entry for task in window.tasks.values() for entry in task.targets or []]
        lists += [[entry] for entry in direct if entry.get("Key") != "WindowTargetIds"]
        if any(_concerns(ctx, targets, wanted, asked) for targets in lists):
            found.append(window)
    return found


def _concerns(ctx: Context, targets: list[dict[str, Any]], wanted: list[dict[str, Any]], asked: set[str]) -> bool:
    for entry in wanted:
        for target in targets:
            if target.get("Key") == entry.get("Key") and set(target.get("Values") or []) & set(entry.get("Values") or []):
                return True
    return bool(asked) and any(host.id in asked for host in runcommand.select(ctx.world, ctx.account, ctx.region, targets))
