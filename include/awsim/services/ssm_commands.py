"""SSM Run Command: SendCommand, ListCommands, ListCommandInvocations, GetCommandInvocation, CancelCommand.

What a command does is `awsim.runcommand`'s business; here requests are read, and commands and invocations told in AWS's shape.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from awsim import runcommand
from awsim.clock import iso, moment
from awsim.registry import AwsError, Context, operation
from awsim.runcommand import ASSOCIATION_DOCUMENT, PATCH_DOCUMENT, Command, Invocation, StepResult

_DELETED_OUTPUT = "---Output truncated---"
_STATUS_FILTERS = frozenset(
    {
        "Pending",
        "InProgress",
        "Success",
        "Cancelled",
        "Failed",
        "TimedOut",
        "Cancelling",
        "Delayed",
        "Incomplete",
        "NoInstancesInTag",
        "LimitExceeded",
        "DeliveryTimedOut",
        "ExecutionTimedOut",
        "Undeliverable",
        "Terminated",
        "AccessDenied",
        "InvalidPlatform",
    }
)


@operation("ssm", "SendCommand")
def send_command(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    role = params.get("ServiceRoleArn")
    if params.get("NotificationConfig", {}).get("NotificationArn") and not role:
        raise AwsError("InvalidRole", "ServiceRoleArn is required to send notifications.")
    for target in params.get("Targets") or []:
        if not target.get("Key") or (target.get("Key") == "InstanceIds" and not target.get("Values")):
            raise AwsError("ValidationException", "Targets: each needs Key and Values")
        if target["Key"] == "resource-groups:Name" and len(target.get("Values") or []) != 1:
            raise AwsError("ValidationException", "Targets: resource-groups:Name takes exactly one value")
    kept = (
        "OutputS3BucketName",
        "OutputS3KeyPrefix",
        "OutputS3Region",
        "ServiceRoleArn",
        "NotificationConfig",
        "CloudWatchOutputConfig",
    )
    command = runcommand.send(
        ctx.world,
        ctx.account,
        ctx.region,
        document=params["DocumentName"],
        parameters=params.get("Parameters"),
        instance_ids=params.get("InstanceIds"),
        targets=params.get("Targets"),
        comment=params.get("Comment") or "",
        timeout=params.get("TimeoutSeconds") or 3600,
        max_concurrency=params.get("MaxConcurrency") or "50",
        max_errors=params.get("MaxErrors") or "0",
        document_version=params.get("DocumentVersion") or "",
        request_id=ctx.request_id,
        request={key: params[key] for key in kept if key in params},
        alarm=params.get("AlarmConfiguration"),
    )
    return {"Command": _command(command)}


@operation("ssm", "ListCommands")
def list_commands(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    commands = _book(ctx)
    wanted = params.get("CommandId")
    found = [command for command in reversed(list(commands.values())) if wanted in (None, "", command.id)]
    if wanted and not found:
        raise AwsError("InvalidCommandId", f"Command {wanted} is not found.")
    node = params.get("InstanceId")
    if node:
        found = [command for command in found if node in command.instance_ids or node in command.invocations]
    for entry in params.get("Filters") or []:
        found = [command for command in found if _command_matches(command, entry["key"], entry["value"])]
    rows, token = ctx.page([_command(command) for command in found], params, default=50)
    return {"Commands": rows, "NextToken": token or ""}


@operation("ssm", "ListCommandInvocations")
def list_command_invocations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    commands = _book(ctx)
    wanted = params.get("CommandId")
    if wanted and wanted not in commands:
        raise AwsError("InvalidCommandId", f"Command {wanted} is not found.")
    chosen = [commands[wanted]] if wanted else list(reversed(list(commands.values())))
    rows = [row for command in chosen if command.visible(ctx.at) for row in command.invocations.values()]
    if params.get("InstanceId"):
        rows = [row for row in rows if row.host.id == params["InstanceId"]]
    for entry in params.get("Filters") or []:
        rows = [row for row in rows if _invocation_matches(row, entry["key"], entry["value"])]
    page, token = ctx.page(rows, params, default=50)
    return {
        "CommandInvocations": [_invocation(row, details=bool(params.get("Details"))) for row in page],
        "NextToken": token or "",
    }


@operation("ssm", "GetCommandInvocation")
def get_command_invocation(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    command = _book(ctx).get(params["CommandId"])
    row = command.invocations.get(params["InstanceId"]) if command else None
    if command is None or row is None or not command.visible(ctx.at):
        raise AwsError("InvocationDoesNotExist", "")
    names = runcommand.plugins(command, row.host)
    asked = params.get("PluginName")
    if asked and asked not in names:
        raise AwsError("InvalidPluginName", "The plugin name isn't valid.")
    name = asked or (names[0] if len(names) == 1 else "")
    step = next((step for step in row.step_results if step.name == asked), None)
    if step is not None:
        return _step_answer(command, row, step)
    done = not row.open
    speaks = done and (len(names) == 1 or asked == _speaker(row, names))
    finished = row.finished if row.finished is not None else None
    return {
        "CommandId": command.id,
        "InstanceId": row.host.id,
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.document_version,
        "PluginName": name,
        "ResponseCode": row.exit_code if done else -1,
        "ExecutionStartDateTime": iso(row.started) if row.started else "",
        "ExecutionElapsedTime": _elapsed(row.started, finished) if done else "",
        "ExecutionEndDateTime": iso(finished) if done and finished and row.started else "",
        "Status": row.status,
        "StatusDetails": row.details,
        "StandardOutputContent": row.stdout[:24_000] if speaks else "",
        "StandardOutputUrl": _url(command, row, "stdout"),
        "StandardErrorContent": row.stderr[:8_000] if speaks else "",
        "StandardErrorUrl": _url(command, row, "stderr"),
        "CloudWatchOutputConfig": _cloudwatch(command),
    }


def _step_answer(command: Command, row: Invocation, step: StepResult) -> dict[str, Any]:
    done = step.finished is not None
    return {
        "CommandId": command.id,
        "InstanceId": row.host.id,
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.document_version,
        "PluginName": step.name,
        "ResponseCode": step.exit_code,
        "ExecutionStartDateTime": iso(step.started) if step.started else "",
        "ExecutionElapsedTime": _elapsed(step.started, step.finished) if done else "",
        "ExecutionEndDateTime": iso(step.finished) if step.finished else "",
        "Status": _step_status(row, step),
        "StatusDetails": _step_status(row, step),
        "StandardOutputContent": step.output[:24_000],
        "StandardOutputUrl": _url(command, row, "stdout"),
        "StandardErrorContent": step.error[:8_000],
        "StandardErrorUrl": _url(command, row, "stderr"),
        "CloudWatchOutputConfig": _cloudwatch(command),
    }


@operation("ssm", "CancelCommand")
def cancel_command(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    command = _book(ctx).get(params["CommandId"])
    if command is None:
        raise AwsError("InvalidCommandId", f"Command {params['CommandId']} is not found.")
    ids = params.get("InstanceIds") or []
    if len(set(ids)) < len(ids):
        raise AwsError("DuplicateInstanceId", "You cannot specify an instance ID in more than one association.")
    strangers = [identifier for identifier in ids if ctx.world.host(ctx.account, ctx.region, identifier) is None]
    if strangers:
        raise AwsError(
            "InvalidInstanceId", f"Instances [[{', '.join(strangers)}]] not in a valid state for account {ctx.account}"
        )
    runcommand.cancel(ctx.world, command, ids)
    return {}


def _book(ctx: Context) -> dict[str, Command]:
    return runcommand.book(ctx.world, ctx.account, ctx.region).commands


def _command(command: Command) -> dict[str, Any]:
    status, details = command.status()
    request = command.request
    return {
        "CommandId": command.id,
        "DocumentName": command.document,
        "DocumentVersion": command.document_version or "$DEFAULT",
        "Comment": command.comment,
        "ExpiresAfter": moment(command.expires),
        "Parameters": command.parameters,
        "InstanceIds": command.instance_ids,
        "Targets": command.targets,
        "RequestedDateTime": moment(command.requested),
        "Status": status,
        "StatusDetails": details,
        "OutputS3Region": request.get("OutputS3Region") or command.region,
        "OutputS3BucketName": request.get("OutputS3BucketName") or "",
        "OutputS3KeyPrefix": request.get("OutputS3KeyPrefix") or "",
        "MaxConcurrency": command.max_concurrency,
        "MaxErrors": command.max_errors,
        "TargetCount": command.target_count,
        "CompletedCount": command.completed(),
        "ErrorCount": command.errors(),
        "DeliveryTimedOutCount": command.delivery_timed_out(),
        "ServiceRole": request.get("ServiceRoleArn") or "",
        "NotificationConfig": _notification(command),
        "CloudWatchOutputConfig": _cloudwatch(command),
        "TimeoutSeconds": command.timeout,
        "AlarmConfiguration": {
            "IgnorePollAlarmFailure": command.ignore_poll_failure,
            "Alarms": [{"Name": command.alarm}] if command.alarm else [],
        },
        "TriggeredAlarms": command.triggered,
    }


def _invocation(row: Invocation, *, details: bool) -> dict[str, Any]:
    command = row.command
    return {
        "CommandId": command.id,
        "InstanceId": row.host.id,
        "InstanceName": row.host.tags().get("Name", ""),
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": command.document_version or "$DEFAULT",
        "RequestedDateTime": moment(row.sent),
        "Status": row.status,
        "StatusDetails": row.details,
        "StandardOutputUrl": _url(command, row, "stdout"),
        "StandardErrorUrl": _url(command, row, "stderr"),
        "CommandPlugins": _plugins(command, row) if details else [],
        "ServiceRole": command.request.get("ServiceRoleArn") or "",
        "NotificationConfig": _notification(command),
        "CloudWatchOutputConfig": _cloudwatch(command),
    }


def _plugins(command: Command, row: Invocation) -> list[dict[str, Any]]:
    names = runcommand.plugins(command, row.host)
    speaker = _speaker(row, names)
    if row.step_results:
        return [_step(command, row, step) for step in row.step_results]
    told = []
    for name in names:
        skipped = (
            row.started is not None and command.document.endswith((PATCH_DOCUMENT, ASSOCIATION_DOCUMENT)) and name != speaker
        )
        output = _merged(row) if not row.open and name == speaker else ""
        if skipped:
            condition = f"'\"StringEquals\": [platformType, {name.removeprefix('Patch')}]'"
            output = f"Step execution skipped due to unsatisfied preconditions: {condition}. Step name: {name}"
        told.append(
            {
                "Name": name,
                "Status": "Success" if skipped else row.status,
                "StatusDetails": "Success" if skipped else row.details,
                "ResponseCode": 0 if skipped else row.exit_code if not row.open else -1,
                "ResponseStartDateTime": moment(row.started) if row.started else None,
                "ResponseFinishDateTime": moment(row.started)
                if skipped and row.started
                else moment(row.finished)
                if row.finished
                else None,
                "Output": output,
                "StandardOutputUrl": _url(command, row, "stdout"),
                "StandardErrorUrl": _url(command, row, "stderr"),
                "OutputS3Region": command.request.get("OutputS3Region") or command.region,
                "OutputS3BucketName": command.request.get("OutputS3BucketName") or "",
                "OutputS3KeyPrefix": command.request.get("OutputS3KeyPrefix") or "",
            }
        )
    return told


def _step(command: Command, row: Invocation, step: StepResult) -> dict[str, Any]:
    """One step of several: skipped ones say Success, so of the hooks document the list does not tell whether the install ran."""
    return {
        "Name": step.name,
        "Status": _step_status(row, step),
        "StatusDetails": _step_status(row, step),
        "ResponseCode": step.exit_code,
        "ResponseStartDateTime": moment(step.started) if step.started else None,
        "ResponseFinishDateTime": moment(step.finished) if step.finished else None,
        "Output": _merge(step.output, step.error),
        "StandardOutputUrl": _url(command, row, "stdout"),
        "StandardErrorUrl": _url(command, row, "stderr"),
        "OutputS3Region": command.request.get("OutputS3Region") or command.region,
        "OutputS3BucketName": command.request.get("OutputS3BucketName") or "",
        "OutputS3KeyPrefix": command.request.get("OutputS3KeyPrefix") or "",
    }


def _step_status(row: Invocation, step: StepResult) -> str:
    """A step that was cut short, or never came, ends as its invocation did."""
    return row.status if not row.open and step.finished is None else step.status


def _speaker(row: Invocation, names: list[str]) -> str:
    """The step whose platform precondition matched."""
    if row.command.document.endswith((PATCH_DOCUMENT, ASSOCIATION_DOCUMENT)):
        return f"Patch{row.host.platform.type}"
    return names[-1] if names else ""


def _merged(row: Invocation) -> str:
    return _merge(row.stdout, row.stderr)


def _merge(stdout: str, stderr: str) -> str:
    text = stdout + (f"\n----------ERROR-------\n{stderr.strip()}\n" if stderr else "")
    return text if len(text) <= 2_500 else text[: 2_500 - len(_DELETED_OUTPUT)] + _DELETED_OUTPUT


def _notification(command: Command) -> dict[str, Any]:
    return {
        "NotificationArn": "",
        "NotificationEvents": [],
        "NotificationType": "",
        **(command.request.get("NotificationConfig") or {}),
    }


def _cloudwatch(command: Command) -> dict[str, Any]:
    return {
        "CloudWatchLogGroupName": "",
        "CloudWatchOutputEnabled": False,
        **(command.request.get("CloudWatchOutputConfig") or {}),
    }


def _url(command: Command, row: Invocation, stream: str) -> str:
    bucket = command.request.get("OutputS3BucketName")
    if not bucket:
        return ""
    prefix = f"{command.request['OutputS3KeyPrefix'].strip('/')}/" if command.request.get("OutputS3KeyPrefix") else ""
    step = _speaker(row, runcommand.plugins(command, row.host)).replace(":", "")
    plugin = "awsrunPowerShellScript" if row.host.platform.type == "Windows" else "awsrunShellScript"
    return f"https://s3.{command.region}.amazonaws.com/{bucket}/{prefix}{command.id}/{row.host.id}/{plugin}/{step}/{stream}"


def _elapsed(started: float | None, finished: float | None) -> str:
    """ISO 8601, as SSM prints it: PT0.091S, PT2M3.5S."""
    if started is None or finished is None:
        return ""
    seconds = finished - started
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    return (
        "PT"
        + (f"{int(hours)}H" if hours else "")
        + (f"{int(minutes)}M" if minutes else "")
        + f"{left:.3f}".rstrip("0").rstrip(".")
        + "S"
    )


def _command_matches(command: Command, key: str, value: str) -> bool:
    if key == "Status":
        _known_status(value)
        return value in command.status()
    if key == "DocumentName":
        return command.document == value
    if key == "ExecutionStage":
        if value not in ("Executing", "Complete"):
            raise AwsError("InvalidFilterKey", f"ExecutionStage must be Executing or Complete, not {value}.")
        return (command.status()[0] in ("Pending", "InProgress", "Cancelling")) == (value == "Executing")
    return _time_matches(command.requested, key, value)


def _invocation_matches(row: Invocation, key: str, value: str) -> bool:
    if key == "Status":
        _known_status(value)
        return value in (row.status, row.details)
    if key == "DocumentName":
        return row.command.document == value
    if key == "ExecutionStage":
        raise AwsError("InvalidFilterKey", "The specified key isn't valid.")
    return _time_matches(row.command.requested, key, value)


def _known_status(value: str) -> None:
    if value not in _STATUS_FILTERS:
        raise AwsError("ValidationException", f"Status: {value!r} is not one of {', '.join(sorted(_STATUS_FILTERS))}")


def _time_matches(requested: float, key: str, value: str) -> bool:
    try:
        at = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise AwsError(
            "ValidationException", f"{key}: {value!r} is not an ISO 8601 moment such as 2026-01-05T10:00:00Z"
        ) from None
    limit = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.fromtimestamp(0, tz=UTC)
    return requested >= limit / timedelta(seconds=1) if key == "InvokedAfter" else requested < limit / timedelta(seconds=1)
