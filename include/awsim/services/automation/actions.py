"""What does each action of a runbook do?

Commands go through `runcommand.send`, so hosts, journal and failures are those of any command; API calls go through
`inside.ask`, so they are checked, answered and struck by faults as any client's.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from awsim import inside, runcommand
from awsim.inside import Unaskable
from awsim.registry import AwsError
from awsim.services.automation import documents, flow, helpers, rate, selectors
from awsim.services.automation.documents import text
from awsim.services.automation.executions import TERMINAL, Execution, Step
from awsim.services.automation.flow import action, failed, later, step_over, succeeded, wait
from awsim.services.automation.variables import mistyped, spelled
from awsim.world import World

LOOKS_EVERY = 5.0
"""A step that waits for a command, a child or a property asks for its status so often."""
ANSWERED_AFTER = 1.0
BRANCHES_AFTER = 0.1
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_BEGIN = "Step fails when it is validating and resolving the step inputs."
_CALL = "Step fails when it is Execute/Cancelling action."


# --- commands ---


@action("aws:runCommand", timed=True)
def run_command(world: World, execution: Execution, step: Step) -> None:
    inputs = step.inputs
    identifiers = inputs.get("InstanceIds")
    try:
        command = runcommand.send(
            world,
            execution.account,
            execution.region,
            document=str(inputs.get("DocumentName", "")),
            parameters={
                key: [text(item) for item in (value if isinstance(value, list) else [value])]
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
        failed(world, execution, step, f"{_BEGIN} {refused}")
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
        if status not in TERMINAL:
            _watch(world, execution, step, attempt)
            return
        rows = list(step.command.invocations.values())
        step.outputs |= {
            "Status": [status],
            "ResponseCode": [str(rows[0].exit_code if rows else -1)],
            "Output": ["\n".join(row.stdout for row in rows)[:2500]],
        }
        if step.status == "Cancelling":
            step_over(world, execution, step, "Cancelled")
        elif status == "Success":
            succeeded(world, execution, step)
        else:
            told = f"Command {step.command.id} ended as {status} ({details})."
            sentence = f"Step fails when it is Poll action status for completion. {told}"
            failed(world, execution, step, sentence, status=status)

    world.at(world.now + LOOKS_EVERY, look)


@action("aws:executeAutomation", timed=True)
def execute_automation(world: World, execution: Execution, step: Step) -> None:
    """A child execution; it does not wait in the queue, for its parent has waited there already."""
    inputs = step.inputs
    given = {
        key: [text(item) for item in (value if isinstance(value, list) else [value])]
        for key, value in (inputs.get("RuntimeParameters") or {}).items()
    }
    try:
        if inputs.get("Targets") or inputs.get("TargetMaps") or inputs.get("TargetLocations"):
            child = rate.start_many(
                world,
                execution.account,
                execution.region,
                document=str(inputs.get("DocumentName", "")),
                version=inputs.get("DocumentVersion"),
                parameters=given,
                request={
                    name: inputs[name]
                    for name in ("Targets", "TargetMaps", "TargetLocations", "TargetParameterName", "MaxConcurrency", "MaxErrors")
                    if name in inputs
                },
                parent=execution.id,
                request_id=execution.cause.request_id,
            )
        else:
            found = documents.find(
                execution.account, execution.region, str(inputs.get("DocumentName", "")), inputs.get("DocumentVersion")
            )
            complete = documents.parameters(found["Name"], found["Content"], given)
            child = flow.accept(
                world,
                execution.account,
                execution.region,
                found=found,
                parameters=complete,
                request_id=execution.cause.request_id,
                executed_by=execution.executed_by,
                parent=execution.id,
            )
    except AwsError as refused:
        failed(world, execution, step, f"{_BEGIN} {refused}")
        return
    step.child = child
    step.outputs["ExecutionId"] = [child.id]
    attempt = step.attempt

    def ended() -> None:
        if step.attempt != attempt or step.status not in ("InProgress", "Cancelling"):
            return
        step.outputs["Status"] = [child.status]
        step.outputs["Output"] = [value for values in outputs_of(child).values() for value in values]
        if step.status == "Cancelling":
            step_over(world, execution, step, "Cancelled")
        elif child.status == "Success":
            succeeded(world, execution, step)
        else:
            failed(world, execution, step, f"Automation execution {child.id} ended as {child.status}. {child.failure}".strip())

    child.on_end = ended
    if child.fan is None:
        later(world, execution, step, flow.BEGINS_AFTER, lambda: flow.run(world, child) if child.status == "Pending" else None)


def outputs_of(execution: Execution) -> dict[str, list[str]]:
    """What the document declares as its outputs."""
    found = {}
    for name in execution.content.get("outputs") or []:
        step_name, _, output = str(name).partition(".")
        step = execution.step(step_name)
        if step is not None and output in step.outputs:
            found[str(name)] = step.outputs[output]
        elif execution.steps:
            found[str(name)] = ["No output available yet because the step is not successfully executed"]
    return found


@action("aws:updateVariable")
def update_variable(world: World, execution: Execution, step: Step) -> None:
    """Gives a variable that the runbook declares another value."""
    name, value = str(step.inputs["Name"]).removeprefix("variable:"), spelled(step.inputs["Value"])
    wrong = mistyped(execution.content, name, value)
    if wrong:
        failed(world, execution, step, f"{_BEGIN} {wrong}")
        return
    execution.variables[name] = value
    later(world, execution, step, ANSWERED_AFTER, lambda: succeeded(world, execution, step))


# --- time and people ---


@action("aws:sleep")
def sleep(world: World, execution: Execution, step: Step) -> None:
    try:
        until = _wakes(world, step.inputs)
    except ValueError as wrong:
        failed(world, execution, step, str(wrong))
        return
    later(world, execution, step, until - world.now, lambda: succeeded(world, execution, step))


def _wakes(world: World, inputs: dict[str, Any]) -> float:
    if "Timestamp" in inputs:
        return datetime.fromisoformat(str(inputs["Timestamp"]).replace("Z", "+00:00")).timestamp()
    match = _DURATION.fullmatch(str(inputs.get("Duration", "")))
    if match is None or not any(match.groups()):
        raise ValueError(f"Duration {inputs.get('Duration')!r} is not an ISO 8601 duration such as PT5M.")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return world.now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


@action("aws:approve", timed=True)
def approve(world: World, execution: Execution, step: Step) -> None:
    """Waiting, until as many approvers approved as are required, one rejected, or the time (7 days) is up."""
    approvers = step.inputs.get("Approvers")
    if not approvers or not isinstance(approvers, list) or len(approvers) > 10:
        failed(world, execution, step, f"{_BEGIN} Approvers must list 1 to 10 users or roles.")
        return
    if int(step.inputs.get("MinRequiredApprovals") or 1) > len(approvers):
        failed(world, execution, step, f"{_BEGIN} MinRequiredApprovals exceeds the number of approvers.")
        return
    step.decisions = {}
    step.outputs["ApprovalStatus"] = ["Waiting"]
    wait(world, execution, step)


@action("aws:pause")
def pause(world: World, execution: Execution, step: Step) -> None:
    """Waiting, until a Resume signal comes."""
    wait(world, execution, step)


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


@action("aws:branch")
def branch(world: World, execution: Execution, step: Step) -> None:
    """It takes a moment, so that a runbook may go round in a circle without end."""
    chosen = next((str(choice["NextStep"]) for choice in step.inputs.get("Choices") or [] if _chosen(choice)), None)
    step.next_step = chosen or step.inputs.get("Default")
    later(world, execution, step, BRANCHES_AFTER, lambda: succeeded(world, execution, step))


def _chosen(choice: dict[str, Any]) -> bool:
    if "And" in choice:
        return all(_chosen(part) for part in choice["And"])
    if "Or" in choice:
        return any(_chosen(part) for part in choice["Or"])
    if "Not" in choice:
        inner = choice["Not"]
        return not (all(_chosen(part) for part in inner) if isinstance(inner, list) else _chosen(inner))
    value = text(choice.get("Variable", ""))
    try:
        return any(holds(value, choice[name]) for name, holds in _COMPARISONS.items() if name in choice)
    except ValueError:
        return False


# --- the API ---


def _ask(world: World, execution: Execution, service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
    """As `inside.ask`, with the execution as cause of what it does to hosts.

    Raises:
        Unaskable, AwsError: see there.
    """
    if (service, operation) == ("ec2", "RebootInstances"):
        wanted = params.get("InstanceIds") or []
        ids = [wanted] if isinstance(wanted, str) else list(wanted)
        hosts = [world.host(execution.account, execution.region, str(identifier)) for identifier in ids]
        for identifier, host in zip(ids, hosts, strict=True):
            if host is None or host.state == "terminated":
                raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{identifier}' does not exist")
        for host in hosts:
            if host is not None:
                world.reboot(host, cause=execution.cause)
        return {}
    answer = inside.ask(world, execution.account, execution.region, service, operation, params)
    if (service, operation) == ("ssm", "SendCommand"):
        command = runcommand.book(world, execution.account, execution.region).commands.get(answer["Command"]["CommandId"])
        if command is not None:
            command.cause = replace(command.cause, automation_id=execution.id)
    return answer


def _request(step: Step) -> tuple[str, str, dict[str, Any]]:
    own = ("Service", "Api", "PropertySelector", "DesiredValues")
    params = {key: value for key, value in step.inputs.items() if key not in own}
    return str(step.inputs.get("Service", "")).lower(), str(step.inputs.get("Api", "")), params


def _keep_outputs(step: Step, answer: dict[str, Any]) -> None:
    for wanted in step.definition.get("outputs") or []:
        if isinstance(wanted, dict):
            found = selectors.select(answer, str(wanted.get("Selector", "$")))
            step.outputs[str(wanted["Name"])] = selectors.output(found, str(wanted.get("Type", "String")))


@action("aws:executeAwsApi", timed=True)
def call_api(world: World, execution: Execution, step: Step) -> None:
    service, operation, params = _request(step)
    try:
        answer = _ask(world, execution, service, operation, params)
        _keep_outputs(step, answer)
    except (AwsError, Unaskable, selectors.BadSelector) as refused:
        failed(world, execution, step, f"{_CALL} An error occurred when calling the {operation} operation: {refused}")
        return
    later(world, execution, step, ANSWERED_AFTER, lambda: succeeded(world, execution, step))


def _property(world: World, execution: Execution, step: Step) -> tuple[str | None, bool]:
    """The value of the property, and whether it is a desired one."""
    service, operation, params = _request(step)
    answer = _ask(world, execution, service, operation, params)
    found = selectors.select(answer, str(step.inputs.get("PropertySelector", "$")))
    value = selectors.plain(found[0]) if found else None
    wanted = step.inputs.get("DesiredValues") or []
    desired = [text(item) for item in (wanted if isinstance(wanted, list) else [wanted])]
    return value, value is not None and all(selectors.plain(item) in desired for item in found)


@action("aws:assertAwsResourceProperty", timed=True)
def assert_property(world: World, execution: Execution, step: Step) -> None:
    try:
        value, held = _property(world, execution, step)
    except (AwsError, Unaskable, selectors.BadSelector) as refused:
        failed(world, execution, step, f"{_CALL} {refused}")
        return

    def tell() -> None:
        if held:
            succeeded(world, execution, step)
        else:
            desired = step.inputs.get("DesiredValues")
            failed(world, execution, step, f"Desired value is not in {desired}: the property is {value}.")

    later(world, execution, step, ANSWERED_AFTER, tell)


@action("aws:waitForAwsResourceProperty", timed=True)
def wait_for_property(world: World, execution: Execution, step: Step) -> None:
    """Asks until the property has a desired value or the step's time is up. A refusal fails it, throttling does not."""

    def look() -> None:
        _, held = _property(world, execution, step)
        if held:
            succeeded(world, execution, step)
        else:
            later(world, execution, step, LOOKS_EVERY, look)

    later(world, execution, step, ANSWERED_AFTER, look)


def _ids(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value] if value else [])]


@action("aws:changeInstanceState", timed=True)
def change_instance_state(world: World, execution: Execution, step: Step) -> None:
    """Start, stop or terminate, then wait until EC2 says so; with CheckStateOnly only wait."""
    ids, desired = _ids(step.inputs.get("InstanceIds")), str(step.inputs.get("DesiredState", ""))
    calls = {"running": "StartInstances", "stopped": "StopInstances", "terminated": "TerminateInstances"}
    if desired not in calls or not ids:
        failed(world, execution, step, f"{_BEGIN} DesiredState must be running, stopped or terminated, InstanceIds 1 to 50 ids.")
        return
    try:
        if text(step.inputs.get("CheckStateOnly", "false")).lower() != "true":
            force = {"Force": True} if text(step.inputs.get("Force", "false")).lower() == "true" and desired == "stopped" else {}
            _ask(world, execution, "ec2", calls[desired], {"InstanceIds": ids, **force})
        else:
            _states(world, execution, ids)
    except (AwsError, Unaskable) as refused:
        failed(world, execution, step, f"{_CALL} {refused}")
        return

    def look() -> None:
        states = _states(world, execution, ids)
        if all(state == desired for state in states):
            step.outputs["InstanceStates"] = states
            succeeded(world, execution, step)
        else:
            later(world, execution, step, LOOKS_EVERY, look)

    later(world, execution, step, ANSWERED_AFTER, look)


def _states(world: World, execution: Execution, ids: list[str]) -> list[str]:
    answer = inside.ask(world, execution.account, execution.region, "ec2", "DescribeInstances", {"InstanceIds": ids})
    return [str(value) for value in selectors.select(answer, "$.Reservations[*].Instances[*].State.Name")]


@action("aws:runInstances", timed=True)
def run_instances(world: World, execution: Execution, step: Step) -> None:
    inputs = dict(step.inputs)
    least, most = inputs.pop("MinInstanceCount", 1), inputs.pop("MaxInstanceCount", None)
    params: dict[str, Any] = {"MinCount": least, "MaxCount": most or least}
    name, arn = inputs.pop("IamInstanceProfileName", ""), inputs.pop("IamInstanceProfileArn", "")
    if name or arn:
        params["IamInstanceProfile"] = {"Name": name} if name else {"Arn": arn}
    params |= {key: value for key, value in inputs.items() if value not in ("", None, [], [""])}
    try:
        answer = _ask(world, execution, "ec2", "RunInstances", params)
    except (AwsError, Unaskable) as refused:
        failed(world, execution, step, f"{_CALL} {refused}")
        return
    ids = [str(row["InstanceId"]) for row in answer["Instances"]]
    step.outputs["InstanceIds"] = ids

    def look() -> None:
        states = _states(world, execution, ids)
        if all(state == "running" for state in states):
            step.outputs["InstanceStates"] = states
            succeeded(world, execution, step)
        else:
            later(world, execution, step, LOOKS_EVERY, look)

    later(world, execution, step, ANSWERED_AFTER, look)


@action("aws:createImage", timed=True)
def create_image(world: World, execution: Execution, step: Step) -> None:
    """An image of an instance, which EC2 reboots for it unless NoReboot says otherwise; done when the image is available."""
    inputs = step.inputs
    quiet = text(inputs.get("NoReboot", "false")).lower() == "true"
    names = {"InstanceId": "InstanceId", "ImageName": "Name", "ImageDescription": "Description"}
    params = {new: inputs[old] for old, new in names.items() if inputs.get(old)}
    params |= {key: inputs[key] for key in ("BlockDeviceMappings",) if key in inputs}
    try:
        answer = _ask(world, execution, "ec2", "CreateImage", {**params, "NoReboot": quiet})
    except (AwsError, Unaskable) as refused:
        failed(world, execution, step, f"{_CALL} {refused}")
        return
    image = str(answer["ImageId"])
    step.outputs["ImageId"] = [image]
    host = world.host(execution.account, execution.region, str(inputs.get("InstanceId")))
    if host is not None and not quiet:
        world.reboot(host, cause=execution.cause)
    _until_available(world, execution, step, image)


@action("aws:copyImage", timed=True)
def copy_image(world: World, execution: Execution, step: Step) -> None:
    names = {"SourceImageId": "SourceImageId", "SourceRegion": "SourceRegion", "ImageName": "Name"}
    names |= {"ImageDescription": "Description", "Encrypted": "Encrypted", "KmsKeyId": "KmsKeyId"}
    try:
        params = {new: step.inputs[old] for old, new in names.items() if step.inputs.get(old)}
        answer = _ask(world, execution, "ec2", "CopyImage", params)
    except (AwsError, Unaskable) as refused:
        failed(world, execution, step, f"{_CALL} {refused}")
        return
    step.outputs["ImageId"] = [str(answer["ImageId"])]
    _until_available(world, execution, step, str(answer["ImageId"]))


def _until_available(world: World, execution: Execution, step: Step, image: str) -> None:
    def look() -> None:
        answer = _ask(world, execution, "ec2", "DescribeImages", {"ImageIds": [image]})
        state = str((answer.get("Images") or [{}])[0].get("State", "pending"))
        step.outputs["ImageState"] = [state]
        if state == "available":
            succeeded(world, execution, step)
        elif state in ("failed", "error", "invalid"):
            failed(world, execution, step, f"The image {image} is {state}.")
        else:
            later(world, execution, step, LOOKS_EVERY, look)

    later(world, execution, step, LOOKS_EVERY, look)


@action("aws:deleteImage", timed=True)
def delete_image(world: World, execution: Execution, step: Step) -> None:
    _one_call(world, execution, step, "ec2", "DeregisterImage", {"ImageId": step.inputs.get("ImageId")})


@action("aws:createTags", timed=True)
def create_tags(world: World, execution: Execution, step: Step) -> None:
    kind, ids, tags = str(step.inputs.get("ResourceType", "EC2")), _ids(step.inputs.get("ResourceIds")), step.inputs.get("Tags")
    if kind == "EC2":
        _one_call(world, execution, step, "ec2", "CreateTags", {"Resources": ids, "Tags": tags})
    else:
        params = {"ResourceType": kind, "ResourceId": ids[0] if ids else "", "Tags": tags}
        _one_call(world, execution, step, "ssm", "AddTagsToResource", params)


def _one_call(world: World, execution: Execution, step: Step, service: str, operation: str, params: dict[str, Any]) -> None:
    try:
        _ask(world, execution, service, operation, params)
    except (AwsError, Unaskable) as refused:
        failed(world, execution, step, f"{_CALL} {refused}")
        return
    later(world, execution, step, ANSWERED_AFTER, lambda: succeeded(world, execution, step))


@action("aws:invokeLambdaFunction", timed=True)
def invoke_function(world: World, execution: Execution, step: Step) -> None:
    """The helper functions that AWS's own runbooks bring along; a caller's functions are not simulated."""
    name = str(step.inputs.get("FunctionName", ""))
    helper = helpers.HELPERS.get(name)
    if helper is None or execution.document not in documents.shipped():
        failed(world, execution, step, f"The action aws:invokeLambdaFunction of {name} is not simulated by awsim.")
        return
    try:
        seconds, outputs = helper(world, execution, step.inputs.get("Payload") or {})
    except (AwsError, Unaskable, helpers.HelperFailed) as refused:
        failed(world, execution, step, f"{_CALL} {refused}")
        return
    step.outputs |= {"StatusCode": ["200"], **outputs}
    later(world, execution, step, seconds, lambda: succeeded(world, execution, step))
