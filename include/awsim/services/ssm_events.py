"""Which EventBridge events tell of Systems Manager, besides those of Run Command?

Automation executions and steps, maintenance windows with executions, tasks, invocations and targets, change calendars,
parameters, and compliance, each in the shape of AWS's documentation. Nobody calls this module: `World.on_step` brings it here
after every request and every event once somebody has put a rule, and what differs from the last look is told. What is over
within one moment is told as begun, too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from awsim import calendars, estate_ssm, groups
from awsim.calendars import BadCalendar
from awsim.clock import iso
from awsim.host import Host, PatchReport
from awsim.registry import on_world
from awsim.runcommand import Invocation
from awsim.services import events
from awsim.services.automation.executions import TERMINAL, Execution, executions
from awsim.services.ssm_windows import Windows
from awsim.world import World

CALENDAR = "Calendar State Change"
COMPLIANCE = "Configuration Compliance State Change"
PARAMETER = "Parameter Store Change"
_WINDOW = "Maintenance Window {} Notification"
_LEVELS = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL")
_WAITING = ("PENDING", "Pending")


@dataclass(slots=True, eq=False)
class Seen:
    """What a cell looked like at the last look; `begun` is false before the first one."""

    begun: bool = False
    automations: int = 0
    """How many executions were there."""
    running: dict[str, Execution] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    """Executions of maintenance windows that are not over."""
    run_count: int = 0
    statuses: dict[str, str] = field(default_factory=dict)
    enabled: dict[str, bool] = field(default_factory=dict)
    targets: dict[tuple[str, str], str] = field(default_factory=dict)
    parameters: dict[str, groups.ParameterVersion] = field(default_factory=dict)
    calendars: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Name -> content, and whether it was open."""
    compliance: dict[tuple[str, str], str] = field(default_factory=dict)


@on_world
def attach(world: World) -> None:
    world.on_step(lambda asked: _look(world, asked))
    world.on_report(lambda host, report: _reported(world, host, report))
    world.on_status(lambda record: _associated(world, record))


def _look(world: World, asked: bool) -> None:
    for account, region in groups.listening():
        seen = world.state(account, region, Seen)
        quiet = not seen.begun
        seen.begun = True
        for found in (
            *_automations(world, account, region, seen),
            *_runs(world, account, region, seen),
            *(_by_callers(world, account, region, seen) if asked or quiet else ()),
        ):
            if not quiet:
                _emit(world, account, region, **found)


def _emit(world: World, account: str, region: str, *, kind: str, resources: list[str], detail: dict[str, Any]) -> None:
    arns = [name if name.startswith("arn:") else f"arn:aws:ssm:{region}:{account}:{name}" for name in resources]
    events.emit(world, account, region, source="aws.ssm", detail_type=kind, resources=arns, detail=detail)


def _changes(seen: Seen, key: str, status: str, begun: str) -> list[str]:
    """The statuses that a thing went through since the last look; what only waits is not told."""
    before = seen.statuses.get(key)
    if status == before or status in _WAITING:
        return []
    seen.statuses[key] = status
    first_seen_at_its_end = before is None and status not in (begun, "SKIPPED_OVERLAPPING")
    return [begun, status] if first_seen_at_its_end else [status]


# --- automation ---


def _automations(world: World, account: str, region: str, seen: Seen) -> Iterator[dict[str, Any]]:
    known = executions(world, account, region).by_id
    if len(known) != seen.automations:
        for execution in list(known.values())[seen.automations :]:
            seen.running[execution.id] = execution
        seen.automations = len(known)
    for execution in list(seen.running.values()):
        for step in execution.steps:
            for status in _changes(seen, step.id, step.status, "InProgress"):
                over = status in TERMINAL
                yield _automation(
                    "Step",
                    execution,
                    status,
                    step.started,
                    step.ended if over else None,
                    {"StepName": step.name, "Action": step.action},
                )
        for status in _changes(seen, execution.id, execution.status, "InProgress"):
            over = status in TERMINAL
            more = {"ExecutedBy": execution.executed_by}
            yield _automation("Execution", execution, status, execution.requested, execution.ended if over else None, more)
        if execution.terminal:
            del seen.running[execution.id]


def _automation(
    what: str, execution: Execution, status: str, started: float | None, ended: float | None, more: dict[str, str]
) -> dict[str, Any]:
    begun = execution.requested if started is None else started
    version = float(execution.version) if execution.version.isdigit() else 1.0
    return {
        "kind": f"EC2 Automation {what} Status-change Notification",
        "resources": [
            f"automation-execution/{execution.id}",
            f"automation-definition/{execution.document}:{execution.version}",
        ],
        "detail": {
            "ExecutionId": execution.id,
            "Definition": execution.document,
            "DefinitionVersion": version,
            "Status": status,
            "StartTime": _spoken(begun),
            **({"EndTime": _spoken(ended), "Time": round(1000 * (ended - begun), 1)} if ended is not None else {}),
            **more,
        },
    }


def _spoken(epoch: float) -> str:
    """`Nov 29, 2016 7:43:20 PM`."""
    at = datetime.fromtimestamp(epoch, tz=UTC)
    return f"{at:%b} {at.day}, {at.year} {at.hour % 12 or 12}:{at:%M:%S} {'AM' if at.hour < 12 else 'PM'}"


# --- maintenance windows ---


def _runs(world: World, account: str, region: str, seen: Seen) -> Iterator[dict[str, Any]]:
    known = world.state(account, region, Windows).executions
    if len(known) != seen.run_count:
        for run in list(known.values())[seen.run_count :]:
            seen.runs[run.id] = run
        seen.run_count = len(known)
    for run in list(seen.runs.values()):
        facts = {"window-id": run.window_id, "window-execution-id": run.id}
        for task in run.tasks:
            more = {**facts, "task-execution-id": task.id}
            for invocation in task.invocations:
                for status in _changes(seen, invocation.id, invocation.status, "IN_PROGRESS"):
                    told = {**more, "window-target-id": invocation.target_id, "owner-information": invocation.owner}
                    yield _of_window("Task Target Invocation State-change", run.window_id, invocation, status, told)
            for status in _changes(seen, task.id, task.status, "IN_PROGRESS"):
                yield _of_window("Task Execution State-change", run.window_id, task, status, more)
        for status in _changes(seen, run.id, run.status, "IN_PROGRESS"):
            yield _of_window("Execution State-change", run.window_id, run, status, facts)
        if run.ended is not None:
            del seen.runs[run.id]


def _of_window(what: str, window: str, item: Any, status: str, facts: dict[str, str]) -> dict[str, Any]:
    over = status not in ("IN_PROGRESS", "CANCELLING") and item.ended is not None
    times = {
        **({"start-time": iso(item.started)} if item.started is not None else {}),
        **({"end-time": iso(item.ended)} if over else {}),
    }
    detail = {**times, **facts, "status": status}
    return {"kind": _WINDOW.format(what), "resources": [f"maintenancewindow/{window}"], "detail": detail}


# --- what callers change: windows, targets, parameters, calendars ---


def _by_callers(world: World, account: str, region: str, seen: Seen) -> Iterator[dict[str, Any]]:
    yield from _registered(world, account, region, seen)
    yield from _parameters(account, region, seen)
    yield from _calendars(world, account, region, seen)


def _registered(world: World, account: str, region: str, seen: Seen) -> Iterator[dict[str, Any]]:
    extras = world.state(account, region, Windows).extras
    enabled = {name: extra.enabled for name, extra in extras.items()}
    for name, state in enabled.items():
        if seen.enabled.get(name, state) != state:
            word = "ENABLED" if state else "DISABLED"
            detail = {"window-id": name, "status": word}
            yield {"kind": _WINDOW.format("State-change"), "resources": [f"maintenancewindow/{name}"], "detail": detail}
    targets = {
        (name, target): "REGISTERED" for name, window in estate_ssm.windows(account, region).items() for target in window.targets
    }
    for key in [*(targets.keys() - seen.targets.keys()), *(seen.targets.keys() - targets.keys())]:
        window, target = key
        yield {
            "kind": _WINDOW.format("Target Registration"),
            "resources": [f"maintenancewindow/{window}", f"windowtarget/{target}"],
            "detail": {
                "window-target-id": target,
                "window-id": window,
                "status": "REGISTERED" if key in targets else "DEREGISTERED",
            },
        }
    seen.enabled, seen.targets = enabled, targets


def _parameters(account: str, region: str, seen: Seen) -> Iterator[dict[str, Any]]:
    now = groups.parameters(account, region)
    for name in [*now, *(seen.parameters.keys() - now.keys())]:
        before, after = seen.parameters.get(name), now.get(name)
        if before == after:
            continue
        told = after or before
        if told is None:
            continue
        yield {
            "kind": PARAMETER,
            "resources": [f"parameter/{name.removeprefix('/')}"],
            "detail": {
                "operation": "Delete" if after is None else "Create" if before is None else "Update",
                "name": name,
                "type": told.type,
                **({"description": told.description} if told.description else {}),
            },
        }
    seen.parameters = now


def _calendars(world: World, account: str, region: str, seen: Seen) -> Iterator[dict[str, Any]]:
    now = groups.change_calendars(account, region)
    for name, content in now.items():
        before = seen.calendars.get(name)
        if before is not None and before[0] == content:
            continue
        found = _state(content, world.now)
        if found is None:
            continue
        is_open, changes = found
        seen.calendars[name] = (content, is_open)
        _plan(world, account, region, name, content, changes)
        if before is not None and before[1] != is_open:
            yield _calendar(world, name, is_open, changes)
    for name in seen.calendars.keys() - now.keys():
        del seen.calendars[name]


def _state(content: str, at: float) -> tuple[bool, float | None] | None:
    try:
        return calendars.state([calendars.parse(content)], float(math.floor(at)))
    except BadCalendar:
        return None


def _plan(world: World, account: str, region: str, name: str, content: str, changes: float | None) -> None:
    """Tell of the next transition at its moment, unless the calendar is another one by then."""

    def transition(_: float) -> None:
        seen = world.state(account, region, Seen)
        found = _state(content, world.now)
        if seen.calendars.get(name, ("", False))[0] != content or found is None:
            return
        is_open, following = found
        if is_open != seen.calendars[name][1]:
            seen.calendars[name] = (content, is_open)
            _emit(world, account, region, **_calendar(world, name, is_open, following))
        _plan(world, account, region, name, content, following)

    if changes is not None:
        world.at(changes, transition)


def _calendar(world: World, name: str, is_open: bool, changes: float | None) -> dict[str, Any]:
    return {
        "kind": CALENDAR,
        "resources": [f"document/{name}"],
        "detail": {
            "state": "OPEN" if is_open else "CLOSED",
            "atTime": f"{iso(world.now)[:19]}Z",
            **({"nextTransitionTime": f"{iso(changes)[:19]}Z"} if changes is not None else {}),
        },
    }


# --- compliance ---


def _reported(world: World, host: Host, report: PatchReport) -> None:
    levels = [row.level for row in report.failing()]
    severity = next((level for level in _LEVELS if level in levels), "UNSPECIFIED")
    more = {"patch-baseline-id": report.baseline_id, "severity": severity.lower()}
    _complied(world, host, "Patch", report.compliant, more)


def _associated(world: World, record: Any) -> None:
    """The association that runs the patch document is the only one there is."""
    if not isinstance(record, Invocation) or not record.command.document.endswith("AWS-RunPatchBaselineAssociation"):
        return
    if record.status in ("Success", "Failed", "TimedOut", "Cancelled"):
        more = {"last-runtime": f"{iso(world.now)[:19]}Z"}
        _complied(world, record.host, "Association", record.status == "Success", more)


def _complied(world: World, host: Host, kind: str, compliant: bool, more: dict[str, str]) -> None:
    if not groups.listens(host.account, host.region):
        return
    seen, status = world.state(host.account, host.region, Seen), "compliant" if compliant else "non_compliant"
    if seen.compliance.get((host.id, kind)) == status:
        return
    seen.compliance[host.id, kind] = status
    detail = {
        "resource-type": "managed-instance",
        "resource-id": host.id,
        "compliance-status": status,
        "compliance-type": kind,
        **more,
    }
    _emit(world, host.account, host.region, kind=COMPLIANCE, resources=[f"managed-instance/{host.id}"], detail=detail)
