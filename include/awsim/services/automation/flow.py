"""How does an execution get from its start to its end, step by step?

`begin` carries out a step by its action (`actions.py`, registered with `@action`); an action calls `succeeded` or `failed`, now
or in an event later. `start` accepts an execution and `admit` lets it begin when fewer than a hundred others run.
"""

from collections.abc import Callable
from typing import Any

from awsim import estate_ssm, runcommand
from awsim.clock import iso
from awsim.inside import Unaskable
from awsim.journal import Cause
from awsim.registry import AwsError
from awsim.services.automation import documents
from awsim.services.automation.documents import text
from awsim.services.automation.executions import Execution, Step, executions, true, uuid
from awsim.services.automation.variables import begun, filled, unresolved
from awsim.world import World

BEGINS_AFTER = 0.5
CONCURRENT = 100
QUEUED = 1000
THROTTLED_FOR = 5.0
RESOLVING = "Step fails when it is validating and resolving the step inputs."
POLLING = "Step fails when it is Poll action status for completion."
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
"""What a runbook that is not written well makes an action raise."""
FANS = 25
"""So many rate-controlled and multi-account parents run at once."""

Action = Callable[[World, Execution, Step], None]
ACTIONS: dict[str, Action] = {}
TIMED: set[str] = set()
"""Actions that have a timeout also where the document says none."""


def action(name: str, *, timed: bool = False) -> Callable[[Action], Action]:
    def register(function: Action) -> Action:
        ACTIONS[name] = function
        if timed:
            TIMED.add(name)
        return function

    return register


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
    alarm: dict[str, Any] | None = None,
) -> Execution:
    """Accept an execution; it begins in a moment, or when fewer than a hundred others run.

    Raises:
        AwsError: as StartAutomationExecution refuses.
    """
    found = documents.find(account, region, document, version)
    given = documents.parameters(found["Name"], found["Content"], dict(parameters or {}))
    kept = executions(world, account, region)
    waiting = sum(execution.status == "Pending" for execution in kept.by_id.values())
    if waiting >= QUEUED:
        raise AwsError("AutomationExecutionLimitExceededException", f"{CONCURRENT} executions run and {QUEUED} wait already.")
    execution = accept(
        world,
        account,
        region,
        found=found,
        parameters=given,
        mode=mode,
        tags=tags,
        request_id=request_id,
        executed_by=executed_by,
    )
    if alarm:
        execution.request = {"AlarmConfiguration": alarm}
    world.at(world.now + BEGINS_AFTER, lambda _: admit(world, account, region))
    return execution


def accept(
    world: World,
    account: str,
    region: str,
    *,
    found: dict[str, Any],
    parameters: dict[str, list[str]],
    mode: str = "Auto",
    tags: dict[str, str] | None = None,
    request_id: str | None = None,
    executed_by: str | None = None,
    parent: str | None = None,
) -> Execution:
    """An execution that is Pending; its document and parameters are right already."""
    kept = executions(world, account, region)
    identifier = uuid(world, "automation", account, region, len(kept.by_id))
    execution = Execution(
        id=identifier,
        account=account,
        region=region,
        document=found["Name"],
        version=str(found["Version"]),
        content=found["Content"],
        parameters=parameters,
        mode=mode,
        executed_by=executed_by or f"arn:aws:iam::{account}:user/awsim",
        requested=world.now,
        changed=world.now,
        cause=Cause(request_id=request_id, automation_id=identifier),
        tags=dict(tags or {}),
        steps=[],
        parent=parent,
    )
    kept.by_id[identifier] = execution
    return execution


def _steps(world: World, execution: Execution) -> list[Step]:
    return [
        Step(
            id=uuid(world, execution.id, number),
            name=str(step.get("name", f"step{number}")),
            action=str(step.get("action", "")),
            definition=step,
        )
        for number, step in enumerate(execution.content.get("mainSteps") or [])
    ]


def admit(world: World, account: str, region: str) -> None:
    """Let waiting executions begin, as many as may run at once."""
    known = executions(world, account, region).by_id.values()
    running = sum(execution.status in ("InProgress", "Waiting", "Cancelling") for execution in known if execution.fan is None)
    fans = sum(execution.status in ("InProgress", "Cancelling") for execution in known if execution.fan is not None)
    for execution in list(known):
        if execution.status != "Pending" or execution.requested + BEGINS_AFTER > world.now:
            continue
        if execution.fan is not None:
            if fans < FANS:
                fans += 1
                execution.status, execution.changed = "InProgress", world.now
                execution.fan.begin()
                watch_alarm(world, execution)
        elif running < CONCURRENT:
            running += 1
            run(world, execution)
            watch_alarm(world, execution)


def run(world: World, execution: Execution) -> None:
    """Begin with the first step."""
    execution.status, execution.changed = "InProgress", world.now
    execution.steps = execution.steps or _steps(world, execution)
    execution.variables = begun(execution.content)
    if execution.steps:
        _next(world, execution, execution.steps[0])
    else:
        end(world, execution, "Success")


def watch_alarm(world: World, execution: Execution) -> None:
    """While the execution is open its alarm is looked at; in ALARM (or unreadable) it is stopped, and does its onCancel."""
    wanted = execution.request.get("AlarmConfiguration")
    if not wanted or execution.terminal or execution.triggered:
        return
    name = wanted["Alarms"][0]["Name"]
    state = estate_ssm.alarm_state(execution.account, execution.region, name)
    unreadable = state is None and not wanted.get("IgnorePollAlarmFailure")
    if state == "ALARM" or unreadable:
        execution.triggered.append({"Name": name, "State": "UNKNOWN" if unreadable else "ALARM"})
        stop(world, execution, "Cancel")
        return
    world.at(world.now + runcommand.ALARM_POLL, lambda _: watch_alarm(world, execution))


# --- steps ---


def _next(world: World, execution: Execution, step: Step) -> None:
    """Begin a step; an interactive execution waits for a StartStep signal first."""
    step.tries = 0
    if execution.mode == "Interactive" and not execution.cleaning:
        execution.current, execution.status, execution.changed = step, "Waiting", world.now
        return
    begin(world, execution, step)


def begin(world: World, execution: Execution, step: Step) -> None:
    execution.current, execution.changed = step, world.now
    step.status, step.failure, step.command, step.child, step.outputs = "InProgress", "", None, None, {}
    step.started = world.now if step.started is None else step.started
    step.ended = None
    step.attempt += 1
    step.tries += 1
    limits = {name: step.definition[name] for name in ("timeoutSeconds", "maxAttempts") if name in step.definition}
    step.definition = {**step.definition, **filled(execution, world, limits)}
    given = filled(execution, world, step.definition.get("inputs") or {})
    step.inputs = given if isinstance(given, dict) else {}
    carry_out = ACTIONS.get(step.action)
    if carry_out is None:
        failed(world, execution, step, f"The action {step.action} is not simulated by awsim.")
        return
    missing = sorted(set(unresolved(step.inputs)))
    if missing and step.action != "aws:branch":
        failed(world, execution, step, f"{RESOLVING} Failed to resolve input: {', '.join(missing)}.")
        return
    attempt = step.attempt
    if step.action == "aws:approve":
        step.default_timeout = 7 * 86_400.0
    if "timeoutSeconds" in step.definition or step.action in TIMED:
        world.at(world.now + step.timeout, lambda _: _time_out(world, execution, step, attempt))
    try:
        carry_out(world, execution, step)
    except MALFORMED as wrong:
        failed(world, execution, step, f"The inputs of the step are not valid: {type(wrong).__name__}: {wrong}")


def under_way(step: Step, attempt: int) -> bool:
    """Whether an event that was scheduled for this attempt still means something."""
    return step.attempt == attempt and step.status in ("InProgress", "Waiting")


def later(world: World, execution: Execution, step: Step, seconds: float, then: Callable[[], None]) -> None:
    """`then()` after so many seconds, unless the step is over by then; what it raises fails the step, throttling delays it."""
    attempt = step.attempt

    def look(_: float) -> None:
        if not under_way(step, attempt):
            return
        try:
            then()
        except AwsError as refused:
            if "hrottl" in refused.code or "RequestLimit" in refused.code:
                later(world, execution, step, THROTTLED_FOR, then)
            else:
                failed(world, execution, step, f"{POLLING} {refused}")
        except (Unaskable, *MALFORMED) as wrong:
            failed(world, execution, step, f"{POLLING} {wrong}")

    world.at(world.now + seconds, look)


def wait(world: World, execution: Execution, step: Step) -> None:
    """The step and its execution are Waiting for a signal."""
    step.status = execution.status = "Waiting"
    execution.changed = world.now


def _time_out(world: World, execution: Execution, step: Step, attempt: int) -> None:
    if under_way(step, attempt):
        _break_off(world, step)
        failed(world, execution, step, f"Step timed out after {step.timeout:g} seconds.", status="TimedOut")


def _break_off(world: World, step: Step) -> None:
    if step.command is not None:
        runcommand.cancel(world, step.command)
    if step.child is not None and not step.child.terminal:
        stop(world, step.child, "Cancel")


def succeeded(world: World, execution: Execution, step: Step) -> None:
    if execution.status == "Waiting":
        execution.status = "InProgress"
    step.status, step.ended, execution.changed = "Success", world.now, world.now
    if execution.stopping is not None and not execution.cleaning:
        end(world, execution, "Cancelled")
        return
    _go_on(world, execution, step)


def _go_on(world: World, execution: Execution, step: Step) -> None:
    chosen = step.next_step or step.definition.get("nextStep")
    following: Step | None = None
    if chosen:
        following = execution.step(str(chosen))
        if following is None:  # of a branch: the others were judged when the execution was asked for
            step.status, step.failure = "Failed", f"The document has no step {chosen}."
            end(world, execution, "Failed", f"Step {step.name} failed: {step.failure}")
            return
    elif not step.ends and step.action != "aws:branch":
        position = execution.steps.index(step) + 1
        following = execution.steps[position] if position < len(execution.steps) else None
    if following is not None:
        _next(world, execution, following)
        return
    critical = [
        other for other in execution.steps if other.status in ("Failed", "TimedOut") and true(other.definition.get("isCritical"))
    ]
    end(world, execution, "Failed" if critical else "Success", critical[0].failure if critical else "")


def failed(world: World, execution: Execution, step: Step, sentence: str, *, status: str = "Failed") -> None:
    if execution.status == "Waiting":
        execution.status = "InProgress"
    step.status, step.failure, step.ended = "TimedOut" if status == "TimedOut" else "Failed", sentence, world.now
    execution.changed = world.now
    if execution.stopping is not None and not execution.cleaning:
        end(world, execution, "Cancelled")
        return
    if step.tries < step.attempts:
        world.at(world.now + 1, lambda _: None if execution.terminal else begin(world, execution, step))
        step.status = "InProgress"
        return
    reaction = str(step.definition.get("onFailure", "Abort"))
    if reaction == "Continue":
        _go_on(world, execution, step)
    elif reaction.startswith("step:") and (other := execution.step(reaction.removeprefix("step:"))) is not None:
        _next(world, execution, other)
    else:
        end(world, execution, step.status, f"Step {step.name} failed: {sentence}")


def step_over(world: World, execution: Execution, step: Step, status: str) -> None:
    """A cancelled step ends; where its onCancel leads elsewhere, that is done before the execution is Cancelled."""
    step.status, step.ended = status, world.now
    reaction = str(step.definition.get("onCancel", "Abort"))
    other = execution.step(reaction.removeprefix("step:")) if reaction.startswith("step:") else None
    if other is not None and not execution.cleaning:
        execution.cleaning = True
        begin(world, execution, other)
        return
    end(world, execution, "Cancelled")


def end(world: World, execution: Execution, status: str, failure: str = "") -> None:
    execution.status, execution.failure = "Cancelled" if execution.cleaning else status, failure
    execution.ended = execution.changed = world.now
    execution.current = None
    if execution.on_end is not None:
        execution.on_end()
    admit(world, execution.account, execution.region)


# --- from outside ---


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
    if execution.fan is not None and execution.status != "Pending":
        execution.fan.stop(how)
        return
    step = execution.current
    if execution.status == "Pending" or step is None or (execution.status == "Waiting" and step.status == "Pending"):
        end(world, execution, "Cancelled")
        return
    if how == "Complete" and step.status != "Waiting":
        return
    execution.status = "Cancelling"
    if step.command is not None:
        step.status = "Cancelling"
        runcommand.cancel(world, step.command)
    elif step.child is not None and not step.child.terminal:
        step.status = "Cancelling"
        stop(world, step.child, how)
    else:
        step_over(world, execution, step, "Cancelled")


def signal(world: World, execution: Execution, kind: str, payload: dict[str, list[str]], who: str) -> None:
    """Approve, Reject, Resume, StartStep, StopStep.

    Raises:
        AwsError: the execution does not wait for such a signal, or there is no such step.
    """
    step = execution.current
    wanted = [*payload.get("StepExecutionId", []), *payload.get("StepName", [])]
    known = {name for other in execution.steps for name in (other.id, other.name)}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise AwsError("AutomationStepNotFoundException", f"Execution {execution.id} has no step {', '.join(missing)}.")
    if step is None or execution.terminal or (wanted and not {step.id, step.name} & set(wanted)):
        raise _unfit(execution, kind)
    if kind in ("Approve", "Reject") and step.action == "aws:approve" and step.status == "Waiting":
        _decide(world, execution, step, kind, (payload.get("Comment") or [""])[0], who)
    elif kind == "Resume" and step.action == "aws:pause" and step.status == "Waiting":
        succeeded(world, execution, step)
    elif kind == "StartStep" and execution.mode == "Interactive" and execution.status == "Waiting" and step.status != "Waiting":
        execution.status = "InProgress"
        begin(world, execution, step)
    elif kind == "StopStep" and execution.mode == "Interactive" and step.status in ("InProgress", "Waiting"):
        _break_off(world, step)
        step.attempt += 1
        step.status, step.ended = "Cancelled", world.now
        execution.status = "InProgress"
        _go_on(world, execution, step)
    else:
        raise _unfit(execution, kind)


def _unfit(execution: Execution, kind: str) -> AwsError:
    return AwsError(
        "InvalidAutomationSignalException",
        f"The signal {kind} is not valid for the execution {execution.id}, which is {execution.status}.",
    )


def _decide(world: World, execution: Execution, step: Step, kind: str, comment: str, who: str) -> None:
    approvers = step.inputs.get("Approvers") or []
    anonymous = who.endswith(":user/awsim")
    if not anonymous and who not in approvers and who.rpartition("/")[2] not in approvers:
        raise AwsError("AccessDeniedException", f"{who} is not one of the approvers of the step {step.name}.")
    step.decisions[who] = (kind, comment)
    decisions = [
        {"Approver": name, "Decision": decision, "Comment": said, "Timestamp": iso(world.now)}
        for name, (decision, said) in step.decisions.items()
    ]
    step.outputs["ApproverDecisions"] = [text(decisions)]
    if kind == "Reject":
        step.outputs["ApprovalStatus"] = ["Rejected"]
        failed(world, execution, step, f"The request was rejected by {who}.")
        return
    approved = sum(decision == "Approve" for decision, _ in step.decisions.values())
    if approved >= int(step.inputs.get("MinRequiredApprovals") or 1):
        step.outputs["ApprovalStatus"] = ["Approved"]
        succeeded(world, execution, step)
