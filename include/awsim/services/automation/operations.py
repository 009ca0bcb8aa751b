"""SSM Automation's operations: StartAutomationExecution, Get, Describe, steps, SendAutomationSignal, Stop."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from awsim import constraints, estate, inside, runcommand, wire
from awsim.clock import moment
from awsim.inside import Unaskable
from awsim.registry import AwsError, Context, operation
from awsim.services.automation import flow, rate
from awsim.services.automation.actions import outputs_of
from awsim.services.automation.executions import Execution, Step, executions

MANY = ("Targets", "TargetMaps", "TargetLocations", "TargetParameterName")
TOLD = (*MANY, "TargetLocationsURL", "MaxConcurrency", "MaxErrors", "AlarmConfiguration")
SHOWN = 100
"""So many steps GetAutomationExecution shows."""


@operation("ssm", "StartAutomationExecution")
def start_automation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kept = executions(ctx.world, ctx.account, ctx.region)
    token = str(params.get("ClientToken") or "").lower()
    asked = json.dumps({key: value for key, value in params.items() if key != "ClientToken"}, sort_keys=True, default=str)
    if token and token in kept.tokens:
        before, execution = kept.tokens[token]
        if before != asked:
            raise AwsError("IdempotentParameterMismatch", "The client token was used before with other parameters.")
        return {"AutomationExecutionId": execution.id}
    tags = {tag["Key"]: tag["Value"] for tag in params.get("Tags") or []}
    url = params.get("TargetLocationsURL")
    if url:
        params = {**params, "TargetLocations": _locations(ctx, params)}
    if any(params.get(name) for name in MANY):
        execution = rate.start_many(
            ctx.world,
            ctx.account,
            ctx.region,
            document=params["DocumentName"],
            version=params.get("DocumentVersion"),
            parameters=params.get("Parameters") or {},
            request={name: params[name] for name in TOLD if params.get(name)},
            request_id=ctx.request_id,
            tags=tags,
        )
    else:
        execution = flow.start(
            ctx.world,
            ctx.account,
            ctx.region,
            document=params["DocumentName"],
            version=params.get("DocumentVersion"),
            parameters=params.get("Parameters"),
            mode=params.get("Mode") or "Auto",
            request_id=ctx.request_id,
            tags=tags,
            alarm=params.get("AlarmConfiguration"),
        )
    if token:
        kept.tokens[token] = (asked, execution)
    return {"AutomationExecutionId": execution.id}


def _locations(ctx: Context, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The TargetLocations that lie in S3 under a URL; the account whose bucket it is must be the caller's.

    Raises:
        AwsError: they cannot be read, or are no TargetLocations.
    """
    if params.get("TargetLocations"):
        raise AwsError("InvalidTarget", "TargetLocations and TargetLocationsURL cannot be used together.")
    bucket, key = runcommand.bucket_and_key(params["TargetLocationsURL"].partition("?")[0])
    body = estate.s3_object(ctx.account, bucket, key) if bucket else None
    if body is None:
        raise AwsError("InvalidTarget", "The file of TargetLocationsURL cannot be read: there is no such object in S3.")
    try:
        found = json.loads(body)
    except ValueError as wrong:
        raise AwsError("InvalidTarget", f"The file of TargetLocationsURL is not JSON: {wrong}") from wrong
    found = found.get("TargetLocations") if isinstance(found, dict) else found
    shape = wire.operation_model("ssm", "StartAutomationExecution").input_shape
    asked = {"DocumentName": params["DocumentName"], "TargetLocations": found}
    odd = constraints.mistyped(asked, shape)
    wrong_values = [odd] if odd else constraints.violations("ssm", asked, shape)
    if not isinstance(found, list) or wrong_values:
        raise AwsError(
            "InvalidTarget", f"The file of TargetLocationsURL holds no TargetLocations. {' '.join(wrong_values)}".strip()
        )
    return found


def _known(ctx: Context, identifier: str) -> Execution:
    found = executions(ctx.world, ctx.account, ctx.region).by_id.get(identifier)
    if found is None:
        raise AwsError("AutomationExecutionNotFoundException", f"Automation execution {identifier} does not exist.")
    return found


@operation("ssm", "StopAutomationExecution")
def stop_automation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    flow.stop(ctx.world, _known(ctx, params["AutomationExecutionId"]), params.get("Type") or "Cancel")
    return {}


@operation("ssm", "SendAutomationSignal")
def send_automation_signal(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    execution = _known(ctx, params["AutomationExecutionId"])
    flow.signal(ctx.world, execution, params["SignalType"], params.get("Payload") or {}, _caller(ctx))
    return {}


def _caller(ctx: Context) -> str:
    """Who asks: the identity behind the access key, or the account's `user/awsim` for a key that nobody issued."""
    nobody = f"arn:aws:iam::{ctx.account}:user/awsim"
    found = re.search(r"Credential=([^/,\s]+)/", ctx._call.environ.get("HTTP_AUTHORIZATION", ""))
    if found is None:
        return nobody
    try:
        who = inside.ask(ctx.world, ctx.account, ctx.region, "sts", "GetCallerIdentity", {}, access_key=found.group(1))
    except (AwsError, Unaskable):
        return nobody
    return nobody if str(who["Arn"]).endswith(":user/moto") else str(who["Arn"])


def _summary(execution: Execution) -> dict[str, Any]:
    current, request = execution.current, execution.request
    return {
        "AutomationExecutionId": execution.id,
        "DocumentName": execution.document,
        "DocumentVersion": execution.version,
        "AutomationExecutionStatus": execution.status,
        "ExecutionStartTime": moment(execution.requested),
        "ExecutionEndTime": moment(execution.ended) if execution.ended is not None else None,
        "ParentAutomationExecutionId": execution.parent,
        "ExecutedBy": execution.executed_by,
        "Mode": execution.mode,
        "CurrentStepName": current.name if current else None,
        "CurrentAction": current.action if current else None,
        "FailureMessage": execution.failure or None,
        "Outputs": outputs_of(execution),
        "TargetParameterName": request.get("TargetParameterName"),
        "Targets": request.get("Targets") or [],
        "TargetMaps": request.get("TargetMaps") or [],
        "ResolvedTargets": {"ParameterValues": execution.resolved[:50], "Truncated": len(execution.resolved) > 50},
        "MaxConcurrency": request.get("MaxConcurrency"),
        "MaxErrors": request.get("MaxErrors"),
        "Target": execution.target or None,
        "TargetLocationsURL": request.get("TargetLocationsURL"),
        "AlarmConfiguration": request.get("AlarmConfiguration"),
        "TriggeredAlarms": execution.triggered or None,
    }


def _step_row(step: Step) -> dict[str, Any]:
    definition = step.definition
    return {
        "StepName": step.name,
        "Action": step.action,
        "TimeoutSeconds": int(step.timeout),
        "OnFailure": definition.get("onFailure", "Abort"),
        "MaxAttempts": step.attempts,
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
        "IsEnd": step.ends,
        "NextStep": step.next_step or definition.get("nextStep"),
        "IsCritical": step.critical,
        "ValidNextSteps": [],
        "TargetLocation": step.location,
    }


@operation("ssm", "GetAutomationExecution")
def get_automation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    execution = _known(ctx, params["AutomationExecutionId"])
    return {
        "AutomationExecution": {
            **_summary(execution),
            "Parameters": execution.parameters,
            "Variables": execution.variables,
            "StepExecutions": [_step_row(step) for step in execution.steps[:SHOWN]],
            "StepExecutionsTruncated": len(execution.steps) > SHOWN,
            "TargetLocations": execution.request.get("TargetLocations"),
            "ProgressCounters": rate.counters(execution) if execution.fan is not None else None,
        }
    }


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError as wrong:
        raise AwsError("InvalidFilterValue", f"{text!r} is not an ISO 8601 moment.") from wrong


def _type(execution: Execution) -> str:
    return "CrossAccount" if execution.request.get("TargetLocations") else "Local"


def _groups(execution: Execution) -> list[str]:
    return [value for row in execution.request.get("Targets") or [] if row["Key"] == "ResourceGroup" for value in row["Values"]]


_FILTERS: dict[str, Callable[[Execution, list[str]], bool]] = {
    "DocumentNamePrefix": lambda execution, values: execution.document.startswith(tuple(values)),
    "ExecutionStatus": lambda execution, values: execution.status in values,
    "ExecutionId": lambda execution, values: execution.id in values,
    "ParentExecutionId": lambda execution, values: execution.parent in values,
    "CurrentAction": lambda execution, values: execution.current is not None and execution.current.action in values,
    "StartTimeBefore": lambda execution, values: execution.requested <= _epoch(values[0]),
    "StartTimeAfter": lambda execution, values: execution.requested >= _epoch(values[0]),
    "AutomationType": lambda execution, values: _type(execution) in values,
    "TagKey": lambda execution, values: any(key in values for key in execution.tags),
    "TargetResourceGroup": lambda execution, values: any(name in values for name in _groups(execution)),
}


@operation("ssm", "DescribeAutomationExecutions")
def describe_automation_executions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Newest first, children among them."""
    found = list(reversed(executions(ctx.world, ctx.account, ctx.region).by_id.values()))
    filters = params.get("Filters") or []
    for wanted in filters:
        holds = _FILTERS.get(wanted["Key"])
        found = [execution for execution in found if holds is not None and holds(execution, wanted["Values"])]
    page, token = ctx.page(found, params, default=50)
    rows = [{**_summary(execution), "LogFile": "", "AutomationType": _type(execution)} for execution in page]
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
