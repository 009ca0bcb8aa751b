"""What does an Automation execution do, step by step, and how does it stand?

`start` and `stop` are what the operations and Config's remediation call; every step is events on the world's agenda.
Documents are those that callers created in moto (type Automation, schema 0.3). Simulated actions: aws:runCommand (through
`runcommand.send`, so hosts, journal and failures are those of any command), aws:sleep, aws:branch, and aws:executeAwsApi for
RebootInstances; any other fails, and the failure names it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from awsim import estate, runcommand
from awsim.clock import iso, moment
from awsim.journal import Cause
from awsim.registry import AwsError, Context, operation
from awsim.world import World

BEGINS_AFTER = 0.5
LOOKS_EVERY = 5.0
"""A step that waits for a command asks for its status so often."""
CONCURRENT = 100
QUEUED = 1000
STEP_TIMEOUT = 3600.0
_TERMINAL = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})
_VARIABLE = re.compile(r"\{\{\s*([\w.:-]+)\s*\}\}")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")


@dataclass(kw_only=True, slots=True, eq=False)
class Step:
    """One step of an execution; Pending until its turn comes."""

    id: str
    name: str
    action: str
    definition: dict[str, Any]
    status: str = "Pending"
    started: float | None = None
    ended: float | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    failure: str = ""
    next_step: str | None = None
    attempt: int = 0
    command: runcommand.Command | None = None

    @property
    def timeout(self) -> float:
        return float(self.definition.get("timeoutSeconds") or STEP_TIMEOUT)


@dataclass(kw_only=True, slots=True, eq=False)
class Execution:
    id: str
    account: str
    region: str
    document: str
    version: str
    content: dict[str, Any]
    parameters: dict[str, list[str]]
    mode: str
    executed_by: str
    requested: float
    changed: float
    """When its state moved last."""
    cause: Cause
    tags: dict[str, str]
    steps: list[Step]
    status: str = "Pending"
    ended: float | None = None
    failure: str = ""
    current: Step | None = None
    stopping: str | None = None
    """Cancel or Complete, once somebody asked."""
    parent: str | None = None

    @property
    def terminal(self) -> bool:
        return self.status in _TERMINAL

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)


@dataclass(slots=True)
class Executions:
    """Of a cell, oldest first; client token (lower case) -> what was asked with it."""

    by_id: dict[str, Execution] = field(default_factory=dict)
    tokens: dict[str, tuple[str, Execution]] = field(default_factory=dict)


def executions(world: World, account: str, region: str) -> Executions:
    return world.state(account, region, Executions)


# --- starting ---


def start(
    world: World,
    account: str,
    region: str,
    *,
    document: str,
    version: str | None = None,
    parameters: dict[str, list[str]] | None = None,
    mode: str = "Auto",
    tags: dict[str, str] | None = None,
    request_id: str | None = None,
    executed_by: str | None = None,
) -> Execution:
    """Accept an execution; it begins in a moment, or when fewer than a hundred others run.

    Raises:
        AwsError: as StartAutomationExecution refuses.
    """
    name = document.rpartition("/")[2] if document.startswith("arn:") else document
    found = estate.document(account, region, name, version)
    if found is None and estate.document(account, region, name) is not None:
        raise AwsError(
            "AutomationDefinitionVersionNotFoundException", f"Version {version} of the Automation document {name} does not exist."
        )
    if found is None or found["DocumentType"] != "Automation":
        raise AwsError(
            "AutomationDefinitionNotFoundException", f"An Automation document with the name {name} could not be found."
        )
    content = found["Content"]
    given = _parameters(name, content, dict(parameters or {}))
    kept = executions(world, account, region)
    waiting = sum(execution.status == "Pending" for execution in kept.by_id.values())
    if waiting >= QUEUED:
        raise AwsError("AutomationExecutionLimitExceededException", f"{CONCURRENT} executions run and {QUEUED} wait already.")
    identifier = _uuid(world, "automation", account, region, len(kept.by_id))
    steps = [
        Step(
            id=_uuid(world, identifier, number),
            name=str(step.get("name", f"step{number}")),
            action=str(step.get("action", "")),
            definition=step,
        )
        for number, step in enumerate(content.get("mainSteps") or [])
    ]
    execution = Execution(
        id=identifier,
        account=account,
        region=region,
        document=name,
        version=str(found["Version"]),
        content=content,
        parameters=given,
        mode=mode,
        executed_by=executed_by or f"arn:aws:iam::{account}:user/awsim",
        requested=world.now,
        changed=world.now,
        cause=Cause(request_id=request_id, automation_id=identifier),
        tags=dict(tags or {}),
        steps=steps,
    )
    kept.by_id[identifier] = execution
    world.at(world.now + BEGINS_AFTER, lambda _: _admit(world, account, region))
    return execution


def _uuid(world: World, *purpose: object) -> str:
    bits = f"{world.random(*purpose).getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


def _parameters(name: str, content: dict[str, Any], given: dict[str, list[str]]) -> dict[str, list[str]]:
    declared: dict[str, dict[str, Any]] = content.get("parameters") or {}

    def refuse(sentence: str) -> AwsError:
        return AwsError("InvalidAutomationExecutionParametersException", sentence)

    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise refuse(f"Parameters [{', '.join(unknown)}] provided to the Automation document {name} are not declared by it.")
    complete: dict[str, list[str]] = {}
    for key, declaration in declared.items():
        values = given.get(key)
        if values is None:
            if "default" not in declaration:
                raise refuse(f"Parameter {key} of the Automation document {name} is required and has no value.")
            default = declaration["default"]
            complete[key] = [_text(item) for item in default] if isinstance(default, list) else [_text(default)]
            continue
        listed = str(declaration.get("type", "String")).startswith(("StringList", "List<"))
        if not listed and len(values) != 1:
            raise refuse(f"Parameter {key} takes exactly one value, not {len(values)}.")
        allowed, pattern = declaration.get("allowedValues"), declaration.get("allowedPattern")
        for value in values:
            if allowed and value not in [_text(item) for item in allowed]:
                raise refuse(f"Value {value!r} of parameter {key} is not one of {', '.join(map(str, allowed))}.")
            if pattern and re.search(pattern, value) is None:
                raise refuse(f"Value {value!r} of parameter {key} does not match the pattern {pattern}.")
        complete[key] = list(values)
    return complete


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _admit(world: World, account: str, region: str) -> None:
    """Let waiting executions begin, as many as may run at once."""
    known = executions(world, account, region).by_id.values()
    running = sum(execution.status in ("InProgress", "Cancelling") for execution in known)
    for execution in list(known):
        if running >= CONCURRENT:
            return
        if execution.status == "Pending" and execution.requested + BEGINS_AFTER <= world.now:
            execution.status, execution.changed = "InProgress", world.now
            running += 1
            if execution.steps:
                _begin(world, execution, execution.steps[0])
            else:
                _end(world, execution, "Success")


# --- steps ---


def _begin(world: World, execution: Execution, step: Step) -> None:
    execution.current, execution.changed = step, world.now
    step.status, step.failure, step.command, step.outputs = "InProgress", "", None, {}
    step.started = world.now if step.started is None else step.started
    step.ended = None
    step.attempt += 1
    step.inputs = _filled(execution, world, step.definition.get("inputs") or {})
    action = _ACTIONS.get(step.action)
    if action is None:
        _failed(world, execution, step, f"The action {step.action} is not simulated by awsim.")
        return
    attempt = step.attempt
    if "timeoutSeconds" in step.definition or action in (_run_command, _call_api):
        world.at(world.now + step.timeout, lambda _: _time_out(world, execution, step, attempt))
    action(world, execution, step)


def _filled(execution: Execution, world: World, value: Any) -> Any:
    """Variables in inputs; one that is the whole value of a list item or of a list parameter keeps its kind."""
    if isinstance(value, dict):
        return {key: _filled(execution, world, item) for key, item in value.items()}
    if isinstance(value, list):
        whole: list[Any] = []
        for item in value:
            filled = _filled(execution, world, item)
            spread = isinstance(item, str) and _VARIABLE.fullmatch(item.strip()) and isinstance(filled, list)
            whole.extend(filled) if spread else whole.append(filled)
        return whole
    if not isinstance(value, str):
        return value
    only = _VARIABLE.fullmatch(value.strip())
    if only:
        found = _variable(execution, world, only.group(1))
        if found is None:
            return value
        return found[0] if len(found) == 1 and not _is_list(execution, only.group(1)) else found
    return _VARIABLE.sub(lambda match: ",".join(_variable(execution, world, match.group(1)) or [match.group(0)]), value)


def _is_list(execution: Execution, name: str) -> bool:
    declared = (execution.content.get("parameters") or {}).get(name) or {}
    return str(declared.get("type", "")).startswith(("StringList", "List<"))


def _variable(execution: Execution, world: World, name: str) -> list[str] | None:
    known = {
        "automation:EXECUTION_ID": execution.id,
        "global:ACCOUNT_ID": execution.account,
        "global:REGION": execution.region,
        "global:DATE": iso(world.now)[:10],
        "global:DATE_TIME": iso(world.now)[:19].replace("T", "_").replace(":", "."),
    }
    if name in known:
        return [known[name]]
    if name in execution.parameters:
        return execution.parameters[name]
    step_name, _, output = name.partition(".")
    step = execution.step(step_name)
    return step.outputs.get(output) if step is not None and output else None


def _run_command(world: World, execution: Execution, step: Step) -> None:
    inputs = step.inputs
    identifiers = inputs.get("InstanceIds")
    try:
        command = runcommand.send(
            world,
            execution.account,
            execution.region,
            document=str(inputs.get("DocumentName", "")),
            parameters={
                key: [_text(item) for item in (value if isinstance(value, list) else [value])]
                for key, value in (inputs.get("Parameters") or {}).items()
            },
            instance_ids=[identifiers] if isinstance(identifiers, str) else identifiers,
            targets=inputs.get("Targets"),
            comment=str(inputs.get("Comment", "")),
            timeout=int(inputs.get("TimeoutSeconds") or 3600),
            max_concurrency=str(inputs.get("MaxConcurrency") or "50"),
            max_errors=str(inputs.get("MaxErrors") or "0"),
            document_version=str(inputs.get("DocumentVersion") or ""),
            request_id=execution.cause.request_id,
        )
    except AwsError as refused:
        _failed(world, execution, step, f"Step fails when it is validating and resolving the step inputs. {refused}")
        return
    command.cause = replace(command.cause, automation_id=execution.id)
    step.command = command
    step.outputs["CommandId"] = [command.id]
    _watch(world, execution, step, step.attempt)


def _watch(world: World, execution: Execution, step: Step, attempt: int) -> None:
    """Look at the command every few seconds until it is over."""

    def look(_: float) -> None:
        if step.attempt != attempt or step.status not in ("InProgress", "Cancelling") or step.command is None:
            return
        status, details = step.command.status()
        if status not in _TERMINAL:
            _watch(world, execution, step, attempt)
            return
        rows = list(step.command.invocations.values())
        step.outputs |= {
            "Status": [status],
            "ResponseCode": [str(rows[0].exit_code if rows else -1)],
            "Output": ["\n".join(row.stdout for row in rows)[:2500]],
        }
        if step.status == "Cancelling":
            _step_over(world, execution, step, "Cancelled")
        elif status == "Success":
            _succeeded(world, execution, step)
        else:
            told = f"Command {step.command.id} ended as {status} ({details})."
            sentence = f"Step fails when it is Poll action status for completion. {told}"
            _failed(world, execution, step, sentence, status=status)

    world.at(world.now + LOOKS_EVERY, look)


def _sleep(world: World, execution: Execution, step: Step) -> None:
    try:
        until = _wakes(world, step.inputs)
    except ValueError as wrong:
        _failed(world, execution, step, str(wrong))
        return
    attempt = step.attempt

    def wake(_: float) -> None:
        if step.attempt == attempt and step.status == "InProgress":
            _succeeded(world, execution, step)

    world.at(until, wake)


def _wakes(world: World, inputs: dict[str, Any]) -> float:
    if "Timestamp" in inputs:
        return datetime.fromisoformat(str(inputs["Timestamp"]).replace("Z", "+00:00")).timestamp()
    match = _DURATION.fullmatch(str(inputs.get("Duration", "")))
    if match is None or not any(match.groups()):
        raise ValueError(f"Duration {inputs.get('Duration')!r} is not an ISO 8601 duration such as PT5M.")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return world.now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


_COMPARISONS: dict[str, Callable[[str, Any], bool]] = {
    "StringEquals": lambda left, right: left == str(right),
    "EqualsIgnoreCase": lambda left, right: left.lower() == str(right).lower(),
    "StartsWith": lambda left, right: left.startswith(str(right)),
    "EndsWith": lambda left, right: left.endswith(str(right)),
    "Contains": lambda left, right: str(right) in left,
    "BooleanEquals": lambda left, right: left.lower() == str(right).lower(),
    "NumericEquals": lambda left, right: float(left) == float(right),
    "NumericGreater": lambda left, right: float(left) > float(right),
    "NumericLesser": lambda left, right: float(left) < float(right),
    "NumericGreaterOrEquals": lambda left, right: float(left) >= float(right),
    "NumericLesserOrEquals": lambda left, right: float(left) <= float(right),
}


def _branch(world: World, execution: Execution, step: Step) -> None:
    for choice in step.inputs.get("Choices") or []:
        if _chosen(choice):
            step.next_step = str(choice["NextStep"])
            _succeeded(world, execution, step)
            return
    step.next_step = step.inputs.get("Default")
    _succeeded(world, execution, step)


def _chosen(choice: dict[str, Any]) -> bool:
    if "And" in choice:
        return all(_chosen(part) for part in choice["And"])
    if "Or" in choice:
        return any(_chosen(part) for part in choice["Or"])
    if "Not" in choice:
        return not _chosen(choice["Not"])
    value = _text(choice.get("Variable", ""))
    try:
        return any(holds(value, choice[name]) for name, holds in _COMPARISONS.items() if name in choice)
    except ValueError:
        return False


def _call_api(world: World, execution: Execution, step: Step) -> None:
    service, api = str(step.inputs.get("Service", "")).lower(), str(step.inputs.get("Api", ""))
    if (service, api) != ("ec2", "RebootInstances"):
        _failed(
            world, execution, step, f"aws:executeAwsApi of {service} {api} is not simulated by awsim; ec2 RebootInstances is."
        )
        return
    wanted = step.inputs.get("InstanceIds") or []
    for identifier in [wanted] if isinstance(wanted, str) else wanted:
        host = world.host(execution.account, execution.region, str(identifier))
        if host is None or host.state == "terminated":
            _failed(world, execution, step, f"InvalidInstanceID.NotFound: The instance ID '{identifier}' does not exist")
            return
        world.reboot(host, cause=execution.cause)
    attempt = step.attempt

    def answered(_: float) -> None:
        if step.attempt == attempt and step.status == "InProgress":
            _succeeded(world, execution, step)

    world.at(world.now + 1, answered)


_ACTIONS: dict[str, Callable[[World, Execution, Step], None]] = {
    "aws:runCommand": _run_command,
    "aws:sleep": _sleep,
    "aws:branch": _branch,
    "aws:executeAwsApi": _call_api,
}


def _time_out(world: World, execution: Execution, step: Step, attempt: int) -> None:
    if step.attempt == attempt and step.status == "InProgress":
        if step.command is not None:
            runcommand.cancel(world, step.command)
        _failed(world, execution, step, f"Step timed out after {step.timeout:g} seconds.", status="TimedOut")


def _succeeded(world: World, execution: Execution, step: Step) -> None:
    step.status, step.ended, execution.changed = "Success", world.now, world.now
    if execution.stopping is not None:
        _end(world, execution, "Cancelled")
        return
    _go_on(world, execution, step)


def _go_on(world: World, execution: Execution, step: Step) -> None:
    chosen = step.next_step or step.definition.get("nextStep")
    following: Step | None = None
    if chosen:
        following = execution.step(str(chosen))
    elif not step.definition.get("isEnd") and step.action != "aws:branch":
        position = execution.steps.index(step) + 1
        following = execution.steps[position] if position < len(execution.steps) else None
    if following is not None:
        _begin(world, execution, following)
        return
    critical = [
        other
        for other in execution.steps
        if other.status in ("Failed", "TimedOut") and other.definition.get("isCritical", False) is True
    ]
    _end(world, execution, "Failed" if critical else "Success", critical[0].failure if critical else "")


def _failed(world: World, execution: Execution, step: Step, sentence: str, *, status: str = "Failed") -> None:
    step.status, step.failure, step.ended = "TimedOut" if status == "TimedOut" else "Failed", sentence, world.now
    execution.changed = world.now
    if execution.stopping is not None:
        _end(world, execution, "Cancelled")
        return
    if step.attempt < int(step.definition.get("maxAttempts") or 1):
        world.at(world.now + 1, lambda _: None if execution.terminal else _begin(world, execution, step))
        step.status = "InProgress"
        return
    reaction = str(step.definition.get("onFailure", "Abort"))
    if reaction == "Continue":
        _go_on(world, execution, step)
    elif reaction.startswith("step:") and (other := execution.step(reaction.removeprefix("step:"))) is not None:
        _begin(world, execution, other)
    else:
        _end(world, execution, step.status, f"Step {step.name} failed: {sentence}")


def _step_over(world: World, execution: Execution, step: Step, status: str) -> None:
    step.status, step.ended = status, world.now
    _end(world, execution, "Cancelled")


def _end(world: World, execution: Execution, status: str, failure: str = "") -> None:
    execution.status, execution.failure = status, failure
    execution.ended = execution.changed = world.now
    execution.current = None
    _admit(world, execution.account, execution.region)


def stop(world: World, execution: Execution, how: str) -> None:
    """Cancel breaks the current step off, Complete lets it finish; no further step begins.

    Raises:
        AwsError: the execution is over already.
    """
    if execution.terminal:
        raise AwsError(
            "InvalidAutomationStatusUpdateException",
            f"Automation execution {execution.id} is {execution.status} and cannot be stopped.",
        )
    execution.stopping, execution.changed = how, world.now
    if execution.status == "Pending":
        _end(world, execution, "Cancelled")
        return
    step = execution.current
    if how == "Complete" or step is None:
        return
    execution.status = "Cancelling"
    if step.command is None:
        _step_over(world, execution, step, "Cancelled")
        return
    step.status = "Cancelling"
    runcommand.cancel(world, step.command)


# --- operations ---


@operation("ssm", "StartAutomationExecution")
def start_automation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    for unsupported in ("Targets", "TargetMaps", "TargetLocations", "TargetLocationsURL", "TargetParameterName"):
        if params.get(unsupported):
            raise AwsError(
                "InvalidTarget",
                f"{unsupported}: rate-controlled and multi-account executions are not simulated by awsim; start one a host.",
            )
    kept = executions(ctx.world, ctx.account, ctx.region)
    token = str(params.get("ClientToken") or "").lower()
    asked = json.dumps({key: value for key, value in params.items() if key != "ClientToken"}, sort_keys=True, default=str)
    if token and token in kept.tokens:
        before, execution = kept.tokens[token]
        if before != asked:
            raise AwsError("IdempotentParameterMismatch", "The client token was used before with other parameters.")
        return {"AutomationExecutionId": execution.id}
    execution = start(
        ctx.world,
        ctx.account,
        ctx.region,
        document=params["DocumentName"],
        version=params.get("DocumentVersion"),
        parameters=params.get("Parameters"),
        mode=params.get("Mode") or "Auto",
        request_id=ctx.request_id,
        tags={tag["Key"]: tag["Value"] for tag in params.get("Tags") or []},
    )
    if token:
        kept.tokens[token] = (asked, execution)
    return {"AutomationExecutionId": execution.id}


def _known(ctx: Context, identifier: str) -> Execution:
    found = executions(ctx.world, ctx.account, ctx.region).by_id.get(identifier)
    if found is None:
        raise AwsError("AutomationExecutionNotFoundException", f"Automation execution {identifier} does not exist.")
    return found


@operation("ssm", "StopAutomationExecution")
def stop_automation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    stop(ctx.world, _known(ctx, params["AutomationExecutionId"]), params.get("Type") or "Cancel")
    return {}


def _summary(execution: Execution) -> dict[str, Any]:
    current = execution.current
    return {
        "AutomationExecutionId": execution.id,
        "DocumentName": execution.document,
        "DocumentVersion": execution.version,
        "AutomationExecutionStatus": execution.status,
        "ExecutionStartTime": moment(execution.requested),
        "ExecutionEndTime": moment(execution.ended) if execution.ended is not None else None,
        "ExecutedBy": execution.executed_by,
        "Mode": execution.mode,
        "CurrentStepName": current.name if current else None,
        "CurrentAction": current.action if current else None,
        "FailureMessage": execution.failure or None,
        "Outputs": {f"{step.name}.{key}": value for step in execution.steps for key, value in step.outputs.items()},
        "Targets": [],
        "TargetMaps": [],
        "ResolvedTargets": {"ParameterValues": [], "Truncated": False},
    }


def _step_row(step: Step) -> dict[str, Any]:
    definition = step.definition
    return {
        "StepName": step.name,
        "Action": step.action,
        "TimeoutSeconds": int(step.timeout),
        "OnFailure": definition.get("onFailure", "Abort"),
        "MaxAttempts": int(definition.get("maxAttempts") or 1),
        "ExecutionStartTime": moment(step.started) if step.started is not None else None,
        "ExecutionEndTime": moment(step.ended) if step.ended is not None else None,
        "StepStatus": step.status,
        "ResponseCode": (step.outputs.get("ResponseCode") or ["0"])[0] if step.ended is not None else None,
        "Inputs": {key: json.dumps(value) for key, value in step.inputs.items()},
        "Outputs": step.outputs,
        "FailureMessage": step.failure or None,
        "FailureDetails": {"FailureStage": "Verification", "FailureType": step.status, "Details": {}} if step.failure else None,
        "StepExecutionId": step.id,
        "OverriddenParameters": {},
        "IsEnd": bool(definition.get("isEnd", False)),
        "NextStep": step.next_step or definition.get("nextStep"),
        "IsCritical": bool(definition.get("isCritical", True)),
        "ValidNextSteps": [],
    }


@operation("ssm", "GetAutomationExecution")
def get_automation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    execution = _known(ctx, params["AutomationExecutionId"])
    return {
        "AutomationExecution": {
            **_summary(execution),
            "Parameters": execution.parameters,
            "StepExecutions": [_step_row(step) for step in execution.steps],
            "StepExecutionsTruncated": False,
        }
    }


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError as wrong:
        raise AwsError("InvalidFilterValue", f"{text!r} is not an ISO 8601 moment.") from wrong


_FILTERS: dict[str, Callable[[Execution, list[str]], bool]] = {
    "DocumentNamePrefix": lambda execution, values: execution.document.startswith(tuple(values)),
    "ExecutionStatus": lambda execution, values: execution.status in values,
    "ExecutionId": lambda execution, values: execution.id in values,
    "ParentExecutionId": lambda execution, values: execution.parent in values,
    "CurrentAction": lambda execution, values: execution.current is not None and execution.current.action in values,
    "StartTimeBefore": lambda execution, values: execution.requested <= _epoch(values[0]),
    "StartTimeAfter": lambda execution, values: execution.requested >= _epoch(values[0]),
    "AutomationType": lambda _, values: "Local" in values,
    "TagKey": lambda execution, values: any(key in values for key in execution.tags),
}


@operation("ssm", "DescribeAutomationExecutions")
def describe_automation_executions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = list(reversed(executions(ctx.world, ctx.account, ctx.region).by_id.values()))
    for wanted in params.get("Filters") or []:
        holds = _FILTERS.get(wanted["Key"])
        found = [execution for execution in found if holds is not None and holds(execution, wanted["Values"])]
    page, token = ctx.page(found, params, default=50)
    rows = [{**_summary(execution), "AutomationType": "Local"} for execution in page]
    return {"AutomationExecutionMetadataList": rows, "NextToken": token}


_STEP_FILTERS: dict[str, Callable[[Step, list[str]], bool]] = {
    "StepExecutionStatus": lambda step, values: step.status in values,
    "StepExecutionId": lambda step, values: step.id in values,
    "StepName": lambda step, values: step.name in values,
    "Action": lambda step, values: step.action in values,
    "StartTimeBefore": lambda step, values: step.started is not None and step.started <= _epoch(values[0]),
    "StartTimeAfter": lambda step, values: step.started is not None and step.started >= _epoch(values[0]),
}


@operation("ssm", "DescribeAutomationStepExecutions")
def describe_automation_step_executions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = list(_known(ctx, params["AutomationExecutionId"]).steps)
    for wanted in params.get("Filters") or []:
        holds = _STEP_FILTERS.get(wanted["Key"])
        found = [step for step in found if holds is not None and holds(step, wanted["Values"])]
    if params.get("ReverseOrder"):
        found.reverse()
    page, token = ctx.page(found, params, default=50)
    return {"StepExecutions": [_step_row(step) for step in page], "NextToken": token}
