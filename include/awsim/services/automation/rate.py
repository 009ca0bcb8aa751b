"""How does one execution become many: a child a target, or a child an account and region?

`start_many` accepts the parent. When it begins, its targets are resolved; each becomes a step of the parent with a child
execution. So many children run at once as MaxConcurrency says, and after more errors than MaxErrors no other is started; then the
parent is Failed. Errors within the limit leave it a Success: only ProgressCounters tell of them.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from awsim import estate, inside
from awsim.inside import Unaskable
from awsim.registry import AwsError
from awsim.services.automation import documents, flow
from awsim.services.automation.executions import Execution, Step, executions, uuid
from awsim.world import World

EXECUTION_ROLE = "AWS-SystemsManager-AutomationExecutionRole"
_BAD = ("Failed", "TimedOut")


@dataclass(kw_only=True, slots=True, eq=False)
class Job:
    """A child that will be, and the parent's step that stands for it."""

    step: Step
    account: str
    region: str
    parameters: dict[str, list[str]]
    target: str = ""
    request: dict[str, Any] | None = None
    """Of a child that is a rate-controlled parent itself, in its own account and region."""
    role: str | None = None
    alarm: dict[str, Any] | None = None
    """Of a TargetLocation."""


@dataclass(kw_only=True, slots=True, eq=False)
class Group:
    """Jobs with one concurrency and one error limit: all targets, or one TargetLocation."""

    jobs: list[Job]
    max_concurrency: str
    max_errors: str
    queue: list[Job] = field(default_factory=list)
    running: int = 0

    def width(self) -> int:
        return _number(self.max_concurrency, len(self.jobs), up=True)

    def broken(self) -> bool:
        errors = sum(job.step.status in _BAD for job in self.jobs)
        return errors > _number(self.max_errors, len(self.jobs), up=False)


def _number(text: str, whole: int, *, up: bool) -> int:
    if not text.endswith("%"):
        return int(text)
    share = whole * int(text[:-1]) / 100
    return max(1, math.ceil(share)) if up else math.floor(share)


def start_many(
    world: World,
    account: str,
    region: str,
    *,
    document: str,
    version: str | None,
    parameters: dict[str, list[str]],
    request: dict[str, Any],
    tags: dict[str, str] | None = None,
    request_id: str | None = None,
    parent: str | None = None,
    found: dict[str, Any] | None = None,
) -> Execution:
    """Accept a parent. `request`: Targets, TargetMaps, TargetParameterName, MaxConcurrency, MaxErrors, TargetLocations.

    Raises:
        AwsError: as StartAutomationExecution refuses.
    """
    found = found or documents.find(account, region, document, version)
    locations = request.get("TargetLocations") or []
    _check(request, locations)
    later = [request["TargetParameterName"]] if request.get("TargetParameterName") else []
    if request.get("TargetMaps"):
        later = sorted({name for entry in request["TargetMaps"] for name in entry})
    given = documents.parameters(found["Name"], found["Content"], dict(parameters), later)
    kept = executions(world, account, region)
    if sum(row.status == "Pending" and row.fan is not None for row in kept.by_id.values()) >= flow.QUEUED:
        raise AwsError(
            "AutomationExecutionLimitExceededException", f"{flow.FANS} rate control executions run, {flow.QUEUED} wait already."
        )
    execution = flow.accept(
        world, account, region, found=found, parameters=given, tags=tags, request_id=request_id, parent=parent
    )
    limits = {"MaxConcurrency": "1", "MaxErrors": "1"} if locations else {"MaxConcurrency": "10", "MaxErrors": "0"}
    execution.request = {**limits, **{key: value for key, value in request.items() if value}}
    execution.fan = Fan(world, execution, found)
    world.at(world.now + flow.BEGINS_AFTER, lambda _: flow.admit(world, account, region))
    return execution


def _check(request: dict[str, Any], locations: list[dict[str, Any]]) -> None:
    targets, maps, name = request.get("Targets"), request.get("TargetMaps"), request.get("TargetParameterName")
    wrong = ""
    if targets and maps:
        wrong = "Targets and TargetMaps cannot be used together."
    elif (targets or any(place.get("Targets") for place in locations)) and not name:
        wrong = "TargetParameterName is required with Targets."
    elif name and not targets and not any(place.get("Targets") for place in locations):
        wrong = "Targets is required with TargetParameterName."
    elif targets and len(targets) > 1:
        wrong = "Only one target may be specified."
    for target in targets or []:
        key = str(target.get("Key", ""))
        if not (key.startswith("tag:") or key in ("ParameterValues", "ResourceGroup", "InstanceIds", "tag-key")):
            wrong = f"The target key {key} is not valid; tag:NAME, ResourceGroup and ParameterValues are."
        elif locations and not (key.startswith("tag:") or key in ("ResourceGroup", "tag-key")):
            wrong = f"The target key {key} is not valid across accounts; tag:NAME and ResourceGroup are."
        elif not target.get("Values"):
            wrong = f"The target {key} has no values."
    for place in locations:
        if not place.get("Accounts") or not place.get("Regions"):
            wrong = "Each target location needs Accounts and Regions."
    if wrong:
        raise AwsError("InvalidTarget", wrong)


class Fan:
    """The running of a parent's children."""

    def __init__(self, world: World, execution: Execution, found: dict[str, Any]) -> None:
        self._world, self._execution, self._found = world, execution, found
        self.groups: list[Group] = []

    def begin(self) -> None:
        try:
            self._resolve()
        except AwsError as refused:
            flow.end(self._world, self._execution, "Failed", str(refused))
            return
        jobs = [job for group in self.groups for job in group.jobs]
        self._execution.steps = [job.step for job in jobs]
        if not jobs:
            flow.end(self._world, self._execution, "Failed", "The specified targets resolve to no resources.")
            return
        for group in self.groups:
            group.queue = list(group.jobs)
        self._advance()

    def _step(self, number: int, target: str, place: dict[str, Any] | None = None) -> Step:
        return Step(
            id=uuid(self._world, self._execution.id, "target", number),
            name=target,
            action="aws:executeAutomation",
            definition={},
            inputs={"DocumentName": self._execution.document},
            location=place,
        )

    def _resolve(self) -> None:
        execution, request = self._execution, self._execution.request
        world, account, region = self._world, execution.account, execution.region
        if request.get("TargetLocations"):
            number = 0
            for place in request["TargetLocations"]:
                jobs = []
                for one in _accounts(world, account, region, place):
                    for there in place["Regions"]:
                        jobs.append(self._far(number, one, there, place))
                        number += 1
                group = Group(
                    jobs=jobs,
                    max_concurrency=str(place.get("TargetLocationMaxConcurrency") or "1"),
                    max_errors=str(place.get("TargetLocationMaxErrors") or "0"),
                )
                self.groups.append(group)
            return
        if request.get("TargetMaps"):
            entries = [dict(entry) for entry in request["TargetMaps"]]
            execution.resolved = [value for entry in entries for values in entry.values() for value in values]
        else:
            name = request["TargetParameterName"]
            execution.resolved = _resolved(world, account, region, request["Targets"][0])
            entries = [{name: [value]} for value in execution.resolved]
        jobs = [
            Job(
                step=self._step(number, target := ",".join(value for values in entry.values() for value in values)),
                account=account,
                region=region,
                parameters={**execution.parameters, **entry},
                target=target,
            )
            for number, entry in enumerate(entries)
        ]
        self.groups = [Group(jobs=jobs, max_concurrency=request["MaxConcurrency"], max_errors=request["MaxErrors"])]

    def _far(self, number: int, account: str, region: str, place: dict[str, Any]) -> Job:
        request = self._execution.request
        targets = place.get("Targets") or request.get("Targets")
        inner = None
        if targets:
            inner = {
                "Targets": targets,
                "TargetParameterName": request.get("TargetParameterName"),
                "MaxConcurrency": place.get("TargetsMaxConcurrency") or "10",
                "MaxErrors": place.get("TargetsMaxErrors") or "0",
            }
        elif request.get("TargetMaps"):
            inner = {"TargetMaps": request["TargetMaps"], "MaxConcurrency": "10", "MaxErrors": "0"}
        role = str(place.get("ExecutionRoleName") or EXECUTION_ROLE)
        told = {"Accounts": [account], "Regions": [region], "ExecutionRoleName": role}
        return Job(
            step=self._step(number, f"{account}_{region}", told),
            account=account,
            region=region,
            parameters=self._execution.parameters,
            request=inner,
            role=role,
            alarm=place.get("TargetLocationAlarmConfiguration"),
        )

    def _advance(self) -> None:
        """Start what may start; end the parent when nothing runs and nothing will."""
        execution = self._execution
        for group in self.groups:
            if group.broken() or execution.stopping is not None:
                group.queue = []
            while group.queue and group.running < group.width():
                self._launch(group, group.queue.pop(0))
                if group.broken():
                    group.queue = []
        if not execution.terminal and not any(group.queue or group.running for group in self.groups):
            self._end()

    def _end(self) -> None:
        execution = self._execution
        bad = [step for step in execution.steps if step.status in _BAD]
        if execution.stopping is not None:
            flow.end(self._world, execution, "Cancelled")
        elif any(group.broken() for group in self.groups) or (bad and len(bad) == len(execution.steps)):
            flow.end(self._world, execution, "Failed", f"{len(bad)} of {len(execution.steps)} child executions failed.")
        else:
            flow.end(self._world, execution, "Success")

    def _launch(self, group: Group, job: Job) -> None:
        world, parent, step = self._world, self._execution, job.step
        step.status, step.started = "InProgress", world.now
        step.inputs = {"DocumentName": parent.document, "RuntimeParameters": job.parameters}
        try:
            child = self._child(job)
        except AwsError as refused:
            step.status, step.ended, step.failure = "Failed", world.now, str(refused)
            return
        step.child = child
        child.target = job.target
        step.outputs = {"ExecutionId": [child.id]}
        group.running += 1

        def ended() -> None:
            group.running -= 1
            step.status, step.ended, step.failure = child.status, world.now, child.failure
            step.outputs["Status"] = [child.status]
            self._advance()

        child.on_end = ended

    def _child(self, job: Job) -> Execution:
        world, parent = self._world, self._execution
        if job.role is not None:
            _assume(world, parent, job.account, job.region, job.role)
        if job.request is not None:
            return start_many(
                world,
                job.account,
                job.region,
                document=parent.document,
                version=None,
                parameters=job.parameters,
                request={**job.request, "AlarmConfiguration": job.alarm},
                request_id=parent.cause.request_id,
                parent=parent.id,
                found=self._found,
            )
        child = flow.accept(
            world,
            job.account,
            job.region,
            found=self._found,
            parameters=job.parameters,
            request_id=parent.cause.request_id,
            executed_by=parent.executed_by,
            parent=parent.id,
        )
        child.request = {"AlarmConfiguration": job.alarm} if job.alarm else {}
        world.at(world.now + flow.BEGINS_AFTER, lambda _: flow.admit(world, job.account, job.region))
        return child

    def stop(self, how: str) -> None:
        """No further child; Cancel breaks the running ones off."""
        execution = self._execution
        execution.status = "Cancelling"
        for group in self.groups:
            group.queue = []
        for step in execution.steps:
            if how == "Cancel" and step.child is not None and not step.child.terminal:
                flow.stop(self._world, step.child, how)
        self._advance()


def counters(execution: Execution) -> dict[str, int]:
    """ProgressCounters of a parent."""
    states = [step.status for step in execution.steps]
    return {
        "TotalSteps": len(states),
        "SuccessSteps": states.count("Success"),
        "FailedSteps": states.count("Failed"),
        "CancelledSteps": states.count("Cancelled"),
        "TimedOutSteps": states.count("TimedOut"),
    }


def _assume(world: World, parent: Execution, account: str, region: str, role: str) -> None:
    """The role of the far account must be assumable, as STS sees it.

    Raises:
        AwsError: it is not.
    """
    arn = f"arn:aws:iam::{account}:role/{role.lstrip('/')}"
    try:
        inside.ask(
            world, parent.account, region, "sts", "AssumeRole", {"RoleArn": arn, "RoleSessionName": f"Automation-{parent.id[:8]}"}
        )
    except Unaskable as wrong:
        raise AwsError("AccessDenied", str(wrong)) from wrong


def _resolved(world: World, account: str, region: str, target: dict[str, Any]) -> list[str]:
    """Values of the target parameter: instance ids for tags, whether or not SSM manages them."""
    key, values = str(target["Key"]), list(target.get("Values") or [])
    if key == "ParameterValues" or (key == "InstanceIds" and "*" not in values):
        return values
    if key == "ResourceGroup":
        return _members(world, account, region, values)
    machines = [machine for machine in estate.machines(account, region) if machine.state != "terminated"]
    if key == "InstanceIds":
        return [machine.id for machine in machines]
    found = []
    for machine in machines:
        tags = estate.tags_of(account, region, machine.id)
        held = any(name in values for name in tags) if key == "tag-key" else tags.get(key[4:]) in values
        if held:
            found.append(machine.id)
    return found


def _members(world: World, account: str, region: str, names: list[str]) -> list[str]:
    """The instances of resource groups whose query asks for tags."""
    found: list[str] = []
    for name in names:
        try:
            answer = inside.ask(world, account, region, "resource-groups", "ListGroupResources", {"GroupName": name})
        except (AwsError, Unaskable) as refused:
            raise AwsError("InvalidTarget", f"The resource group {name} cannot be resolved: {refused}") from refused
        rows = answer.get("ResourceIdentifiers") or [row.get("Identifier", {}) for row in answer.get("Resources") or []]
        found += [str(row.get("ResourceArn", "")).rpartition("/")[2] for row in rows]
    return found


def _accounts(world: World, account: str, region: str, place: dict[str, Any]) -> list[str]:
    """Account ids of a TargetLocation; organizational units are looked up in the organization.

    Raises:
        AwsError: a unit cannot be looked up.
    """
    found: list[str] = []
    for entry in place["Accounts"]:
        if not entry.startswith(("ou-", "r-")):
            found.append(entry)
            continue
        units = [entry]
        while units:
            unit = units.pop(0)
            rows = _listed(world, account, region, "ListAccountsForParent", "Accounts", unit)
            found += [str(row["Id"]) for row in rows]
            if place.get("IncludeChildOrganizationUnits"):
                below = _listed(world, account, region, "ListOrganizationalUnitsForParent", "OrganizationalUnits", unit)
                units += [str(row["Id"]) for row in below]
    excluded = set(place.get("ExcludeAccounts") or [])
    return [one for one in dict.fromkeys(found) if one not in excluded]


def _listed(world: World, account: str, region: str, operation: str, key: str, parent: str) -> list[dict[str, Any]]:
    try:
        answer = inside.ask(world, account, region, "organizations", operation, {"ParentId": parent})
    except Unaskable as wrong:
        raise AwsError("InvalidTarget", str(wrong)) from wrong
    rows: list[dict[str, Any]] = answer.get(key) or []
    return rows
