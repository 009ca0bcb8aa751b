"""What becomes of a command: to whom is it sent, when, what does it do there, and which status does SSM show?

`send` and `cancel` are what the operations (`services/ssm_commands.py`) and Automation call; everything after is events on the
world's agenda. SSM's side: resolve targets, ramp up 1, 2, 4, ..., MaxErrors, delayed and expired deliveries. The host's side:
run the document, perhaps reboot, and report when the agent can. The journal is written by the host's side only, so it is true
even when SSM never learns of it.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from awsim import baselines, command_documents, estate, estate_ssm, patching, powershell, shell
from awsim.agenda import call
from awsim.clock import iso, moment
from awsim.faults import Kind
from awsim.host import Host, PatchReport, PatchRow, PatchState
from awsim.journal import Cause, Event
from awsim.registry import AwsError, on_world
from awsim.world import World

RESOLVED_AFTER = 0.5
VISIBLE_AFTER = 0.7
"""Until then GetCommandInvocation knows nothing of a command, and ListCommandInvocations is empty."""
EXECUTION_TIMEOUT = 3600
REBOOT_EXIT = 194
WINDOWS_REBOOT_EXIT = 3010
"""By this exit code a script asks the agent to reboot the machine and to run it again."""
KILLED = 137
WINDOWS_KILLED = -1
LOCK_EXIT = 155
"""Exit code of the second of two patch runs on one host: the download directory is in use."""

PATCH_DOCUMENT = "AWS-RunPatchBaseline"
HOOKS_DOCUMENT = "AWS-RunPatchBaselineWithHooks"
ASSOCIATION_DOCUMENT = "AWS-RunPatchBaselineAssociation"
SHELL_DOCUMENT = "AWS-RunShellScript"
POWERSHELL_DOCUMENT = "AWS-RunPowerShellScript"
NOOP_DOCUMENT = "AWS-Noop"
PATCH_DOCUMENTS = (PATCH_DOCUMENT, HOOKS_DOCUMENT, ASSOCIATION_DOCUMENT)
HOOK_STEPS = (
    "InitialScan",
    "DecideWhetherToInstall",
    "PreInstallHook",
    "InstallWithNoReboot",
    "PostInstallHook",
    "DecideWhetherToReboot",
    "RebootAndReport",
    "OnExitHook",
)
"""AWS's guide numbers the eight steps of the hooks document; their names are ours."""
HOOKS_AGENT = (3, 0, 502)
"""The hooks document fails on older agents."""
ALARM_POLL = 15.0
"""Seconds between two looks at the alarm of a command."""
_PATCH_STEPS = (("PatchWindows", "Windows"), ("PatchLinux", "Linux"), ("PatchMacOS", "MacOS"))
_HOOK_DEFAULTS = {name: [NOOP_DOCUMENT] for name in ("PreInstallHookDocName", "PostInstallHookDocName", "OnExitHookDocName")}
EXIT_CODES = {
    1: "at least one package failed, or the inventory could not be uploaded",
    2: "the dependency check failed",
    3: "the reboot was attempted four times without effect",
    126: "/var/log or the temporary directory is mounted noexec",
    143: "the baseline snapshot could not be requested",
    144: "the API answered with an error",
    145: "access denied to the baseline snapshot",
    146: "the operating system is not supported",
    147: "the snapshot could not be saved",
    148: "the instance metadata could not be read",
    149: "PutInventory failed",
    150: "the snapshot is not valid",
    151: "the checksum of the payload does not match",
    152: "the payload could not be loaded",
    153: "the uptime could not be read",
    154: "the download directory could not be made",
    155: "the payload could not be unpacked: the directory is in use",
    156: "the payload could not be downloaded",
    160: "the baseline override could not be read",
    161: "the baseline override could not be downloaded",
    162: "access denied to the baseline override",
    163: "the baseline override is not JSON",
    164: "the baseline override is not a list of baselines",
    165: "the baseline override names an unknown operating system",
    166: "the baseline override has two baselines of one operating system",
    167: "baseline override and install override list cannot be used together",
}
"""What AWS-RunPatchBaseline's Linux payload means by its exit codes; 1, 2 and 3 come after the work, all others before it."""
REBOOT_ATTEMPTS = 4
RESTARTS_AFTER = 5.0
"""From the end of a script that restarted Windows itself to the machine's going down."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SCRIPTS = {"aws:runShellScript": ("Linux", "MacOS"), "aws:runPowerShellScript": ("Windows", "Linux", "MacOS")}
"""Actions that run scripts, and the platforms on which an agent has them."""
PWSH = "/usr/bin/pwsh"
"""A Linux host on which there is this file runs PowerShell."""
FAILING = (PatchState.MISSING, PatchState.FAILED, PatchState.REJECTED, PatchState.PENDING_REBOOT)
_TERMINAL = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptStep:
    """A step of a Command document that runs a script."""

    name: str
    lines: list[str]
    action: str = "aws:runShellScript"
    platform: str = ""
    """Of its precondition on platformType; empty: it has none."""

    def skipped_on(self, host: Host) -> bool:
        return self.platform not in ("", host.platform.type)


@dataclass(kw_only=True, slots=True, eq=False)
class StepResult:
    """What one step of a document of several steps did."""

    name: str
    status: str = "Pending"
    exit_code: int = -1
    output: str = ""
    error: str = ""
    started: float | None = None
    finished: float | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class Invocation:
    """A command on one host, as SSM sees it (status) and as it is on the host (process)."""

    command: "Command"
    host: Host
    sent: float
    status: str = "Pending"
    details: str = "Pending"
    started: float | None = None
    finished: float | None = None
    exit_code: int = -1
    stdout: str = ""
    stderr: str = ""
    running: bool = False
    """A process of this invocation is on the host (also during its own reboot)."""
    resume: Callable[[], None] | None = None
    """What the agent does after the reboot that this invocation asked for."""
    unreported: tuple[int, str, str] | None = None
    """The result that the agent could not deliver yet."""
    installing: bool = False
    step_results: list[StepResult] = field(default_factory=list)
    """Of documents with several steps that run one after the other."""

    @property
    def open(self) -> bool:
        return self.status not in _TERMINAL


@dataclass(kw_only=True, slots=True, eq=False)
class Command:
    id: str
    account: str
    region: str
    document: str
    document_version: str
    parameters: dict[str, list[str]]
    instance_ids: list[str]
    targets: list[dict[str, Any]]
    comment: str
    timeout: int
    max_concurrency: str
    max_errors: str
    requested: float
    expires: float
    request: dict[str, Any]
    """The rest of the request, to be told back (output bucket, notification, service role)."""
    cause: Cause
    steps: list[ScriptStep] | None = None
    """Of documents that run scripts."""
    platforms: tuple[str, ...] = ()
    """On other platforms than these the document cannot run."""
    resolved: bool = False
    queue: list[Host] = field(default_factory=list)
    invocations: dict[str, Invocation] = field(default_factory=dict)
    width: int = 1
    stopped: bool = False
    cancelled: bool = False
    target_count: int = 0
    alarm: str = ""
    """Name of the alarm that stops the command."""
    ignore_poll_failure: bool = False
    triggered: list[dict[str, str]] = field(default_factory=list)

    def concurrency(self) -> int:
        if self.max_concurrency.endswith("%"):
            return max(1, math.ceil(self.target_count * int(self.max_concurrency[:-1]) / 100))
        return int(self.max_concurrency)

    def error_limit(self) -> int:
        if self.max_errors.endswith("%"):
            return math.floor(self.target_count * int(self.max_errors[:-1]) / 100)
        return int(self.max_errors)

    def errors(self) -> int:
        """Failed and ExecutionTimedOut; delivery problems do not count."""
        return sum(invocation.details in ("Failed", "ExecutionTimedOut") for invocation in self.invocations.values())

    def completed(self) -> int:
        return sum(not invocation.open for invocation in self.invocations.values())

    def delivery_timed_out(self) -> int:
        return sum(invocation.details == "DeliveryTimedOut" for invocation in self.invocations.values())

    def visible(self, now: float) -> bool:
        return now >= self.requested + VISIBLE_AFTER

    def status(self) -> tuple[str, str]:
        """(Status, StatusDetails) of the command as a whole."""
        if not self.resolved:
            return "Pending", "Pending"
        if not self.target_count:
            return "Failed", "NoInstancesInTag"
        rows = list(self.invocations.values())
        if self.queue or any(row.open for row in rows):
            return self._open_status(rows)
        details = {row.details for row in rows}
        if "Cancelled" in details:
            return "Cancelled", "Cancelled"
        if "Terminated" in details or self.errors() > self.error_limit():
            return "Failed", "Failed"
        if details == {"DeliveryTimedOut"}:
            return "TimedOut", "DeliveryTimedOut"
        if details & {"Failed", "ExecutionTimedOut", "DeliveryTimedOut"}:
            return "Failed", "Incomplete"
        return ("Success", "Success") if "Success" in details else ("Failed", "Failed")

    def _open_status(self, rows: list[Invocation]) -> tuple[str, str]:
        if self.cancelled:
            return "Cancelling", "Cancelling"
        if rows and not self.queue and all(not row.open or row.status == "Delayed" for row in rows):
            return "InProgress", "Delayed"
        if all(row.status == "Pending" for row in rows):
            return "Pending", "Pending"
        return "InProgress", "InProgress"


class Book:
    """The commands of a cell, newest last; and which invocations are open on a host."""

    def __init__(self) -> None:
        self.commands: dict[str, Command] = {}
        self.open: dict[str, list[Invocation]] = {}


def book(world: World, account: str, region: str) -> Book:
    return world.state(account, region, Book)


@on_world
def attach(world: World) -> None:
    """Agents that come back take up what waits for them; machines that go down take their processes with them."""
    world.on_connected(lambda host: _connected(world, host))
    world.on_down(lambda host, kept: _down(world, host, own_reboot=kept))


# --- SSM's side ---


def send(
    world: World,
    account: str,
    region: str,
    *,
    document: str,
    parameters: dict[str, list[str]] | None = None,
    instance_ids: list[str] | None = None,
    targets: list[dict[str, Any]] | None = None,
    comment: str = "",
    timeout: int = 3600,
    max_concurrency: str = "50",
    max_errors: str = "0",
    document_version: str = "",
    request_id: str | None = None,
    request: dict[str, Any] | None = None,
    alarm: dict[str, Any] | None = None,
) -> Command:
    """Accept a command.

    Raises:
        AwsError: as SendCommand refuses; then nothing was sent to anybody.
    """
    ids, wanted = list(instance_ids or []), list(targets or [])
    if bool(ids) == bool(wanted):
        raise AwsError(
            "InvalidParameters",
            "Specify either InstanceIds or Targets" if not ids else "InstanceIds and Targets cannot be used together",
        )
    if len(set(ids)) < len(ids):
        raise AwsError("DuplicateInstanceId", "You cannot specify an instance ID in more than one association.")
    name = _document_name(document)
    steps, given = _document(world, account, region, name, document_version, dict(parameters or {}))
    platforms = document_platforms(name, steps)
    _accept_hosts(world, account, region, ids, platforms)
    commands = book(world, account, region)
    bits = f"{world.random('command', account, region, len(commands.commands)).getrandbits(128):032x}"
    execution = int(given["executionTimeout"][0]) if given.get("executionTimeout") else EXECUTION_TIMEOUT
    command = Command(
        id=f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-b{bits[17:20]}-{bits[20:]}",
        account=account,
        region=region,
        document=document,
        document_version=document_version,
        parameters=given,
        instance_ids=ids,
        targets=wanted,
        comment=comment,
        timeout=timeout,
        max_concurrency=max_concurrency,
        max_errors=max_errors,
        requested=world.now,
        expires=world.now + timeout + execution,
        request=request or {},
        cause=Cause(),
        steps=steps,
        platforms=platforms,
        alarm=alarm["Alarms"][0]["Name"] if alarm else "",
        ignore_poll_failure=bool(alarm and alarm.get("IgnorePollAlarmFailure")),
    )
    command.cause = Cause(request_id=request_id, command_id=command.id, comment=comment)
    commands.commands[command.id] = command
    world.at(world.now + RESOLVED_AFTER, lambda _: _resolve(world, command))
    world.at(command.expires, lambda _: _expire(world, command))
    return command


def _document_name(document: str) -> str:
    return document.rpartition("document/")[2] if document.startswith("arn:") else document


def _document(
    world: World, account: str, region: str, name: str, version: str, parameters: dict[str, list[str]]
) -> tuple[list[ScriptStep] | None, dict[str, list[str]]]:
    """The scripts of a document (None: patching, which is no script here), and the parameters with their defaults."""
    if name in command_documents.owned():
        _check_version(version)
        return _owned_document(name, parameters)
    found = estate.document(account, region, name)
    if found is None or found["DocumentType"] != "Command":
        raise AwsError(
            "InvalidDocument",
            f"document with name {name} is not found." if found is None else f"{name} is not a Command document.",
        )
    return _own_document(found["Content"], name, parameters)


def _owned_document(name: str, parameters: dict[str, list[str]]) -> tuple[list[ScriptStep] | None, dict[str, list[str]]]:
    try:
        command_documents.check(name, parameters)
    except command_documents.BadParameter as bad:
        raise AwsError("InvalidParameters", str(bad)) from bad
    if name in PATCH_DOCUMENTS:
        return None, {"RebootOption": ["RebootIfNeeded"], **(_HOOK_DEFAULTS if name == HOOKS_DOCUMENT else {}), **parameters}
    if name == NOOP_DOCUMENT:
        return [ScriptStep(name="noop", lines=[], action="")], parameters
    action = "aws:runPowerShellScript" if name == POWERSHELL_DOCUMENT else "aws:runShellScript"
    return [ScriptStep(name=action, lines=parameters["commands"], action=action)], parameters


def document_platforms(name: str, steps: list[ScriptStep] | None) -> tuple[str, ...]:
    """AWS's own documents name them; of others they follow from the steps."""
    if name in command_documents.owned():
        return command_documents.platforms(name)
    every = ("Windows", "Linux", "MacOS")
    if not steps:
        return every
    return tuple(one for one in every if any(one in _SCRIPTS[step.action] for step in steps))


def _check_version(version: str) -> None:
    if version not in ("", "1", "$DEFAULT", "$LATEST"):
        raise AwsError("InvalidDocumentVersion", f"The document version {version} is not valid or does not exist.")


def _own_document(
    content: dict[str, Any], name: str, parameters: dict[str, list[str]]
) -> tuple[list[ScriptStep], dict[str, list[str]]]:
    declared = content.get("parameters") or {}
    unknown = sorted(set(parameters) - set(declared))
    if unknown:
        raise AwsError("InvalidParameters", f"document {name} does not support parameters: {', '.join(unknown)}")
    given = {key: list(value) for key, value in parameters.items()}
    for key, declaration in declared.items():
        if key in given:
            continue
        if "default" not in declaration:
            raise AwsError("InvalidParameters", f"Parameter {key} is required and has no value.")
        default = declaration["default"]
        given[key] = [str(item) for item in default] if isinstance(default, list) else [str(default)]
    steps = []
    for step in _mappings(content.get("mainSteps")):
        if step.get("action") in _SCRIPTS:
            lines = (step.get("inputs") or {}).get("runCommand") or []
            wanted = (step.get("precondition") or {}).get("StringEquals") or []
            platform = next((str(word) for word in wanted if word != "platformType"), "") if "platformType" in wanted else ""
            steps.append(
                ScriptStep(name=step.get("name", "step"), lines=_filled(lines, given), action=step["action"], platform=platform)
            )
    for action, plugin in (content.get("runtimeConfig") or {}).items():  # schema 1.2
        for entry in _mappings(plugin.get("properties")) if action in _SCRIPTS else []:
            lines = entry.get("runCommand") or []
            steps.append(ScriptStep(name=action, lines=_filled(lines, given), action=action))
    return steps, given


def _filled(lines: list[str] | str, given: dict[str, list[str]]) -> list[str]:
    whole = [lines] if isinstance(lines, str) else lines
    filled: list[str] = []
    for line in whole:
        only = re.fullmatch(r"\s*\{\{\s*(\w+)\s*\}\}\s*", line)
        if only and only.group(1) in given:
            filled.extend(given[only.group(1)])
        else:
            filled.append(
                re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: " ".join(given.get(found.group(1), [found.group(0)])), line)
            )
    return filled


def _accept_hosts(world: World, account: str, region: str, ids: list[str], platforms: tuple[str, ...]) -> None:
    """One id that SSM does not know, or whose platform is not the document's, fails the whole call."""
    bad = []
    for identifier in ids:
        host = world.host(account, region, identifier)
        if host is None or not host.acceptable(world.now):
            bad.append(identifier)
        elif host.platform.type not in platforms and not bad:
            raise AwsError(
                "UnsupportedPlatformType",
                f"Cannot perform operation for instance id {identifier} of platform type {host.platform.type}",
            )
    if bad:
        raise AwsError("InvalidInstanceId", f"Instances [[{', '.join(bad)}]] not in a valid state for account {account}")


def select(world: World, account: str, region: str, targets: list[dict[str, Any]]) -> list[Host]:
    """Hosts that match all targets, as Run Command and Automation resolve them: registered ones only."""
    wanted = [target for target in targets if not str(target.get("Key", "")).startswith("resource-groups:")]
    wanted += _of_resource_groups(account, region, targets)
    return [
        host
        for host in world.hosts_in(account, region)
        if host.acceptable(world.now) and all(_meant(host, target) for target in wanted)
    ]


def _of_resource_groups(account: str, region: str, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tag filters of the group that is named; a group that does not exist or holds no instances matches nobody."""
    nobody: list[dict[str, Any]] = [{"Key": "InstanceIds", "Values": []}]
    kinds = {"AWS::EC2::Instance", "AWS::SSM::ManagedInstance", "AWS::AllSupported"}
    named: list[dict[str, Any]] = []
    for target in targets:
        key, values = str(target.get("Key", "")), target.get("Values") or []
        if key == "resource-groups:ResourceTypeFilters" and not kinds & set(values):
            return nobody
        if key == "resource-groups:Name":
            query = estate_ssm.resource_group(account, region, values[0] if values else "")
            if not query or not kinds & set(query.get("ResourceTypeFilters") or []):
                return nobody
            named += [
                {"Key": f"tag:{entry['Key']}", "Values": entry.get("Values") or []} for entry in query.get("TagFilters") or []
            ]
    return named


def _meant(host: Host, target: dict[str, Any]) -> bool:
    key, values = str(target.get("Key", "")), target.get("Values") or []
    if key.lower() == "instanceids":
        return host.id in values or "*" in values
    if key.startswith("tag:"):
        value = host.tags().get(key[4:])
        return value is not None and (value in values or not values)
    if key == "tag-key":
        return any(name in values for name in host.tags())
    return False


def _resolve(world: World, command: Command) -> None:
    hosts = world.hosts_in(command.account, command.region)
    if command.instance_ids:
        by_id = {host.id: host for host in hosts}
        command.queue = [by_id[identifier] for identifier in command.instance_ids]
    else:
        command.queue = select(world, command.account, command.region, command.targets)
    command.target_count = len(command.queue)
    command.resolved = True
    if command.cancelled:
        _finish_queue(world, command, "Cancelled", "Cancelled")
        return
    if command.alarm:
        _poll_alarm(world, command)
    _dispatch(world, command)


def _poll_alarm(world: World, command: Command) -> None:
    """While the command is open its alarm is looked at; in ALARM (or unreadable) nothing that waits starts any more."""
    if command.triggered or not (command.queue or any(row.open for row in command.invocations.values())):
        return
    state = estate_ssm.alarm_state(command.account, command.region, command.alarm)
    unreadable = state is None and not command.ignore_poll_failure
    if state != "ALARM" and not unreadable:
        world.at(world.now + ALARM_POLL, lambda _: _poll_alarm(world, command))
        return
    command.triggered.append({"Name": command.alarm, "State": "UNKNOWN" if unreadable else "ALARM"})
    _finish_queue(world, command, "Cancelled", "Cancelled")
    for invocation in list(command.invocations.values()):
        if invocation.status in ("Pending", "Delayed"):
            _close(world, invocation, "Cancelled", "Cancelled")


def _dispatch(world: World, command: Command) -> None:
    """Send to as many hosts as the ramp and MaxConcurrency allow at this moment."""
    if command.errors() > command.error_limit():
        command.stopped = True
        _finish_queue(world, command, "Cancelled", "Terminated")
    limit = min(command.width, command.concurrency())
    busy = sum(row.status in ("Pending", "InProgress", "Cancelling") for row in command.invocations.values())
    while command.queue and busy < limit:
        host = command.queue.pop(0)
        invocation = Invocation(command=command, host=host, sent=world.now)
        command.invocations[host.id] = invocation
        book(world, command.account, command.region).open.setdefault(host.id, []).append(invocation)
        late = world.faults.take_host(Kind.AGENT_LATE, host)
        arrives = world.now + world.draw(host, "delivery", command.id) + (late.seconds or 0.0 if late else 0.0)
        world.at(arrives, call(_deliver, world, invocation))
        busy += 1


def _finish_queue(world: World, command: Command, status: str, details: str) -> None:
    for host in command.queue:
        command.invocations[host.id] = Invocation(
            command=command, host=host, sent=world.now, status=status, details=details, finished=world.now
        )
        world.status_changed(command.invocations[host.id])
    command.queue.clear()


def _deliver(world: World, invocation: Invocation) -> None:
    """The message reaches the agent, or waits for it, or will never start."""
    command, host = invocation.command, invocation.host
    if invocation.status not in ("Pending", "Delayed"):
        return
    if world.now > command.requested + command.timeout:
        return
    if world.faults.take_host(Kind.UNDELIVERABLE, host) is not None:
        _close(world, invocation, "Failed", "Undeliverable")
        return
    if not _runs_on(command, host):
        _close(world, invocation, "Failed", "InvalidPlatform")
        return
    if not host.connected:
        invocation.status = invocation.details = "Delayed"
        _acknowledged(command)
        _dispatch(world, command)
        world.status_changed(invocation)
        return
    invocation.status = invocation.details = "InProgress"
    invocation.started = world.now
    invocation.running = True
    _acknowledged(command)
    _dispatch(world, command)
    world.status_changed(invocation)
    _execute(world, invocation)


def _runs_on(command: Command, host: Host) -> bool:
    """The document is one for the host's platform; PowerShell runs on Linux where it is installed only."""
    if host.platform.type not in command.platforms:
        return False
    only = bool(command.steps) and all(step.action == "aws:runPowerShellScript" for step in command.steps or [])
    return not only or host.platform.type == "Windows" or PWSH in host.files


def _acknowledged(command: Command) -> None:
    """The ramp doubles when nothing that was sent is without an answer; a host that cannot be reached does not hold it up."""
    if all(row.status != "Pending" for row in command.invocations.values()):
        command.width *= 2


def _expire(world: World, command: Command) -> None:
    """Whatever is still open when the total time-out ends is a delivery time-out, also what runs on the host."""
    for invocation in list(command.invocations.values()):
        if invocation.open:
            _close(world, invocation, "TimedOut", "DeliveryTimedOut")
    _finish_queue(world, command, "TimedOut", "DeliveryTimedOut")


def _close(world: World, invocation: Invocation, status: str, details: str) -> None:
    """SSM's last word on an invocation."""
    invocation.status, invocation.details, invocation.finished = status, details, world.now
    opened = book(world, invocation.command.account, invocation.command.region).open.get(invocation.host.id, [])
    if invocation in opened and not invocation.running:
        opened.remove(invocation)
    _dispatch(world, invocation.command)
    world.status_changed(invocation)


def cancel(world: World, command: Command, instance_ids: list[str] | None = None) -> None:
    """Best effort: what was not sent is Cancelled at once, what runs is Cancelling until the agent has stopped it."""
    if not instance_ids:
        command.cancelled = True
        _finish_queue(world, command, "Cancelled", "Cancelled")
    else:
        kept = [host for host in command.queue if host.id not in instance_ids]
        command.queue = [host for host in command.queue if host.id in instance_ids]
        _finish_queue(world, command, "Cancelled", "Cancelled")
        command.queue = kept
    for invocation in list(command.invocations.values()):
        if not invocation.open or (instance_ids and invocation.host.id not in instance_ids):
            continue
        if invocation.status in ("Pending", "Delayed"):
            _close(world, invocation, "Cancelled", "Cancelled")
        elif invocation.status == "InProgress":
            invocation.status = invocation.details = "Cancelling"
            world.status_changed(invocation)
            world.at(
                world.now + world.random("cancel", command.id, invocation.host.id).uniform(1, 4),
                call(_stop, world, invocation),
            )


def _stop(world: World, invocation: Invocation) -> None:
    """The agent kills the script. A package transaction goes on to its end, and a reboot that has begun cannot be taken back."""
    if invocation.status != "Cancelling" or not invocation.host.connected:
        return
    invocation.exit_code = _killed(invocation.host)
    if invocation.running and not invocation.installing and invocation.resume is None:
        _ended(world, invocation, invocation.exit_code)
    _close(world, invocation, "Cancelled", "Cancelled")


# --- the host's side ---


def _connected(world: World, host: Host) -> None:
    for invocation in list(book(world, host.account, host.region).open.get(host.id, [])):
        if invocation.status == "Delayed":
            world.at(
                world.now + world.draw(host, "delivery", invocation.command.id, "again"),
                call(_deliver, world, invocation),
            )
        elif invocation.unreported is not None:
            code, stdout, stderr = invocation.unreported
            invocation.unreported = None
            _result(world, invocation, code, stdout, stderr)
        elif invocation.resume is not None:
            resume, invocation.resume = invocation.resume, None
            resume()
        elif invocation.status == "Cancelling":
            _stop(world, invocation)


def _down(world: World, host: Host, *, own_reboot: bool) -> None:
    """The machine goes down: processes end, except those whose agent will resume them after this reboot."""
    for invocation in list(book(world, host.account, host.region).open.get(host.id, [])):
        if invocation.running and (invocation.resume is None or not own_reboot):
            invocation.resume = None
            code = _killed(host)
            _ended(world, invocation, code, interrupted=True)
            invocation.unreported = (code, invocation.stdout, "failed to run commands: the machine went down")


def _ended(world: World, invocation: Invocation, code: int, **details: Any) -> None:
    """The process on the host has ended: the journal's command_ended."""
    host = invocation.host
    invocation.running = False
    if host.patching == _key(invocation):
        host.patching = None
    world.record(
        host,
        Event.COMMAND_ENDED,
        cause=invocation.command.cause,
        operation=_operation(invocation.command),
        exit_code=code,
        **details,
    )
    opened = book(world, host.account, host.region).open.get(host.id, [])
    if not invocation.open and invocation in opened:
        opened.remove(invocation)


def _finish(world: World, invocation: Invocation, code: int, stdout: str, stderr: str = "") -> None:
    """The script exits; the agent reports at once if it can, else when it is back."""
    if not invocation.running:
        return
    _ended(world, invocation, code)
    if invocation.host.connected:
        _result(world, invocation, code, stdout, stderr)
    elif invocation.open:
        invocation.unreported = (code, stdout, stderr)


def _result(world: World, invocation: Invocation, code: int, stdout: str, stderr: str) -> None:
    if invocation.status not in ("InProgress", "Cancelling"):
        return
    invocation.exit_code, invocation.stdout = code, stdout
    invocation.stderr = stderr + (f"\nfailed to run commands: exit status {code}" if code else "")
    cancelled = invocation.status == "Cancelling"
    status = "Cancelled" if cancelled else "Success" if code == 0 else "Failed"
    _close(world, invocation, status, status)


def _killed(host: Host) -> int:
    return WINDOWS_KILLED if host.platform.type == "Windows" else KILLED


def reboot_code(host: Host) -> int:
    """The exit code by which a script asks the host's agent for a reboot."""
    return WINDOWS_REBOOT_EXIT if host.platform.type == "Windows" else REBOOT_EXIT


def _key(invocation: Invocation) -> str:
    return f"{invocation.command.id}/{invocation.host.id}"


def _operation(command: Command) -> str:
    return command.parameters["Operation"][0] if _document_name(command.document) in PATCH_DOCUMENTS else "Shell"


def _alive(invocation: Invocation) -> bool:
    """Whether the process that an event belongs to is still there."""
    return invocation.running and invocation.host.state == "running" and not invocation.host.rebooting


def _execute(world: World, invocation: Invocation) -> None:
    command, host = invocation.command, invocation.host
    world.record(host, Event.COMMAND_BEGUN, cause=command.cause, operation=_operation(command))
    lost = world.faults.take_host(Kind.AGENT_LOST, host, operation=_operation(command))
    if lost is not None:  # the process goes on without its agent, and nobody is told how it ends
        world.at(world.now + (lost.seconds or 0.0), lambda _: world.agent_dies(host, lasts=lost.lasts))
    name = _document_name(command.document)
    if name == HOOKS_DOCUMENT:
        _Hooks(world, invocation).begin()
    elif name in PATCH_DOCUMENTS:
        _Patch(world, invocation).begin()
    else:
        _run_script(world, invocation)


class _Patch:
    """AWS-RunPatchBaseline on one host: baseline snapshot, evaluation, install, upload, reboot."""

    def __init__(
        self,
        world: World,
        invocation: Invocation,
        *,
        operation: str | None = None,
        reboot_option: str | None = None,
        done: Callable[[int, str], None] | None = None,
    ) -> None:
        """`operation`, `reboot_option`: instead of the command's; `done(code, output)`: instead of its end."""
        self.world, self.invocation = world, invocation
        self.host, self.command = invocation.host, invocation.command
        given = {name: values[0] for name, values in self.command.parameters.items()}
        self.operation, self.reboot_option = operation or given["Operation"], reboot_option or given["RebootOption"]
        self.done = done
        self.association = _document_name(self.command.document) == ASSOCIATION_DOCUMENT
        self.association_id, self.baseline_tags = given.get("AssociationId", ""), given.get("BaselineTags", "")
        self.snapshot_id, self.override = given.get("SnapshotId", ""), given.get("InstallOverrideList", "")
        self.baseline_override = given.get("BaselineOverride", "")
        self.log: list[str] = []
        self.chance = world.random("patch", self.command.id, self.host.name)
        self.installed: list[str] = []
        self.reboots = 0
        self.reboot_works = True
        self._broken = False

    def begin(self) -> None:
        host, world = self.host, self.world
        if host.patching is not None:
            self._fail(
                LOCK_EXIT,
                "Unable to acquire the lock on /var/log/amazon/ssm/patch-baseline-operations: another patch operation is running",
            )
            return
        host.patching = _key(self.invocation)
        if self.override and self.baseline_override:
            self._fail(167, "BaselineOverride and InstallOverrideList cannot be used together")
            return
        baseline, wanted = self._overrides()
        if self._broken:
            return
        self.run = patching.begin(
            world,
            host,
            operation=self.operation,
            snapshot_id=self.snapshot_id,
            reboot_option=self.reboot_option,
            baseline=baseline,
        )
        if self.association:
            self.run = replace(self.run, baseline=baseline or self.run.baseline, patch_group="", overridden=False)
        if wanted is not None and self.operation == "Install":
            self.run = patching.replace_wanted(self.run, self.override, wanted)
        self.started = world.now
        self._header()
        world.at(world.now + world.draw(host, "scan", self.command.id), lambda _: self._scanned())

    def _overrides(self) -> tuple[baselines.Baseline | None, tuple[tuple[str, str | None], ...] | None]:
        baseline, wanted = None, None
        system = self.host.platform.operating_system
        if self.association:
            baseline = self._tagged() or baselines.default_for(self.host.account, self.host.region, system)
        if self.baseline_override:
            entries = self._downloaded(self.baseline_override)
            fitting = [
                candidate
                for candidate in (baselines.from_override(entry) for entry in _mappings(entries))
                if candidate.operating_system == system
            ]
            if len(fitting) == 1:
                baseline = fitting[0]
            elif not self._broken:
                number = "more than one baseline" if fitting else "no baseline"
                self._fail(160, f"The baseline override holds {number} for this operating system")
        if self.override and self.operation == "Install":
            listed = self._downloaded(self.override)
            patches = listed.get("patches") if isinstance(listed, dict) else None
            if isinstance(patches, list):
                wanted = tuple((str(item.get("id", "")), item.get("title")) for item in patches if isinstance(item, dict))
            elif not self._broken:
                self._fail(156, "The install override list is not valid")
        return baseline, wanted

    def _tagged(self) -> baselines.Baseline | None:
        """The account's baseline for this operating system that carries BaselineTags; two such baselines are one too many."""
        found = re.fullmatch(r"Key=(.+),Values=(.+)", self.baseline_tags)
        if found is None:
            return None
        host = self.host
        carrying = estate_ssm.baselines_tagged(host.account, host.region, found.group(1), found.group(2))
        fitting = [
            baseline
            for baseline in (baselines.find(host.account, host.region, identifier) for identifier in carrying)
            if baseline is not None and baseline.operating_system == host.platform.operating_system
        ]
        if len(fitting) > 1:
            self._fail(156, f"More than one baseline carries the tag {self.baseline_tags}")
        return fitting[0] if fitting else None

    def _downloaded(self, url: str) -> Any:
        bucket, key = bucket_and_key(url)
        if not bucket:
            self._fail(156, f"Unable to download {url}: only s3:// and https:// addresses of S3 can be reached from this host")
            return None
        content = estate.s3_object(self.command.account, bucket, key)
        if content is None:
            self._fail(156, f"Unable to download {url}: there is no such object, or no access to it")
            return None
        try:
            return json.loads(content) if url.endswith(".json") else yaml.safe_load(content)
        except (ValueError, yaml.YAMLError):
            self._fail(156, f"Unable to read {url}")
            return None

    def _fail(self, code: int, reason: str) -> None:
        """An early end without any patch data."""
        if self._broken:
            return
        self._broken = True
        self._say(reason, "ERROR")
        self.world.at(self.world.now + self.chance.uniform(3, 12), lambda _: self._leave(code))

    def _leave(self, code: int) -> None:
        if not _alive(self.invocation):
            return
        output = "\n".join(self.log) + "\n"
        if self.done is None:
            _finish(self.world, self.invocation, code, output)
            return
        if self.host.patching == _key(self.invocation):
            self.host.patching = None
        self.done(code, output)

    def _scanned(self) -> None:
        if not _alive(self.invocation):
            return
        if self.operation == "Scan":
            self._upload()
            self._leave(0)
            return
        updates = patching.missing(self.world, self.host, self.run)
        if not updates:
            self._upload()
            self._reboot_or_leave(0, installed=False)
            return
        locked = self.world.faults.take_host(Kind.PACKAGE_MANAGER_LOCKED, self.host, operation="Install")
        if locked is not None:
            self._fail(locked.exit_code, "Another process holds the lock of the package manager; giving up after 10 retries")
            return
        fault = self.world.faults.take_host(Kind.INSTALL_FAILS, self.host, operation="Install")
        if fault is not None and fault.exit_code > 3:
            self._fail(fault.exit_code, f"Unable to patch: {EXIT_CODES.get(fault.exit_code, 'an unexpected error occurred')}")
            return
        self.reboot_works = fault is None or fault.exit_code != 3
        self.invocation.installing = True
        duration = self.world.draw(self.host, "install", self.command.id)
        names = frozenset(update.package for update in updates)
        if self.world.faults.take_host(Kind.DISK_FULL, self.host, operation="Install") is not None:
            reason = "No space left on device"
            self.world.at(self.world.now + duration / 2, lambda _: self._install_failed(1, names, reason))
            return
        if fault is not None and fault.exit_code < 3:
            reason = "transaction check error" if fault.exit_code == 1 else "dependency check failed"
            self.world.at(self.world.now + duration, lambda _: self._install_failed(fault.exit_code, names, reason))
            return
        for number, update in enumerate(updates, start=1):
            last = number == len(updates)
            self.world.at(self.world.now + duration * number / len(updates), call(self._installed, update, last))

    def _installed(self, update: Any, last: bool) -> None:
        if not _alive(self.invocation):
            return
        patching.install(self.world, self.host, [update], no_reboot=self.reboot_option == "NoReboot")
        self.installed.append(update.package)
        self._say(f"Installed {update.title}")
        self.world.record(
            self.host,
            Event.PACKAGE_INSTALLED,
            cause=self.command.cause,
            operation="Install",
            package=update.package,
            version=update.evr,
            advisory=update.advisory,
        )
        if not last:
            return
        self.invocation.installing = False
        if self.invocation.status in ("Cancelling", "Cancelled"):
            _ended(self.world, self.invocation, _killed(self.host))
            return
        self._upload()
        self._reboot_or_leave(0, installed=True)

    def _install_failed(self, code: int, names: frozenset[str], reason: str) -> None:
        if not _alive(self.invocation):
            return
        self.invocation.installing = False
        for name in sorted(names):
            self._say(f"Failed to install {name}: {reason}", "ERROR")
        self._upload(failed=names)
        self._reboot_or_leave(code, installed=False)

    def _upload(self, *, failed: frozenset[str] = frozenset()) -> None:
        rows = patching.evaluate(self.world, self.host, self.run, failed=failed)
        execution = _uuid(self.chance.getrandbits(128))
        if self.run.overridden:
            self._say("Baseline override is used: no compliance data is uploaded")
            return
        if self.association:
            self._put_compliance(rows, execution)
            return
        report = patching.upload(
            self.world, self.host, self.run, rows, started=self.started, command_id=self.command.id, execution_id=execution
        )
        self._summary(report)

    def _put_compliance(self, rows: tuple[PatchRow, ...], execution: str) -> None:
        """Of the association's document: no patch data, but a compliance item of type Association."""
        from awsim.services.compliance import Custom, Item

        bad = [row for row in rows if row.state in FAILING]
        identifier = self.association_id or self.command.id
        item = Item(
            type="Association",
            resource=self.host.id,
            id=identifier,
            title=ASSOCIATION_DOCUMENT,
            compliant=not bad,
            severity="UNSPECIFIED",
            executed=self.world.now,
            execution_id=execution,
            execution_type="Command",
            details={
                "DocumentName": ASSOCIATION_DOCUMENT,
                "DocumentVersion": "1",
                "PatchBaselineId": self.run.baseline.short_id,
            },
        )
        items = self.world.state(self.host.account, self.host.region, Custom).items
        kept = [other for other in items.get((self.host.id, "Association"), []) if other.id != identifier]
        items[self.host.id, "Association"] = [*kept, item]
        self._say("Instance is Compliant" if not bad else f"Instance is Non-Compliant: {len(bad)} patches")

    def _reboot_or_leave(self, code: int, *, installed: bool) -> None:
        if self.reboot_option == "NoReboot" or not (installed or self.host.unbooted):
            self._say("Reboot is not required" if code == 0 else f"Exiting with code {code}")
            self._leave(code)
            return
        self._say(f"Rebooting the instance, exit code {reboot_code(self.host)}")
        self.invocation.resume = lambda: self._after_reboot(code)
        self.reboots += 1
        self.world.at(self.world.now + 2, lambda _: self._reboot(code))

    def _reboot(self, code: int) -> None:
        if not _alive(self.invocation):
            return
        if self.reboot_works:
            self.world.reboot(self.host, cause=self.command.cause, own=True)
            return
        self.invocation.resume = None
        if self.reboots < REBOOT_ATTEMPTS:
            self.reboots += 1
            self.world.at(self.world.now + 60, lambda _: self._reboot(code))
            return
        self._say("The reboot was attempted four times without effect", "ERROR")
        self.host.unbooted.update(dict.fromkeys(self.installed, self.world.now))
        self._leave(3)

    def _after_reboot(self, code: int) -> None:
        if self.host.reboot_pending:
            if self.reboots >= REBOOT_ATTEMPTS:
                self._say("The reboot was attempted four times, and another one is needed", "ERROR")
                self._leave(3)
                return
            self._say(f"Another reboot is needed, exit code {reboot_code(self.host)}")
            self.reboots += 1
            self.invocation.resume = lambda: self._after_reboot(code)
            self.world.at(self.world.now + 2, lambda _: self._reboot(code))
            return
        self._say("Reboot completed, the saved exit code is returned")
        self.world.at(self.world.now + 2, lambda _: self._leave(code))

    def _say(self, text: str, level: str = "INFO") -> None:
        self.log.append(f"{moment(self.world.now):%m/%d/%Y %H:%M:%S} root [{level}]: {text}")

    def _header(self) -> None:
        run, host = self.run, self.host
        self._say(
            "Downloading payload from https://s3.dualstack.amazonaws.com/"
            f"aws-ssm-{host.region}/patchbaselineoperations/{host.platform.type.lower()}/payloads"
        )
        self._say(f"Running with snapshot id = {run.snapshot_id} and operation = {run.operation}")
        self.log += [
            f"Instance Id: {host.id}",
            f"Region: {host.region}",
            f"Product: {host.platform.product}",
            f"Patch Group: {run.patch_group}",
            f"Operation type: {run.operation}",
            f"Snapshot Id: {run.snapshot_id}",
            f"Patch Baseline: {run.baseline.short_id} ({run.baseline.name}), account {host.account}",
            f"Reboot Option: {run.reboot_option}",
        ]

    def _summary(self, report: PatchReport) -> None:
        self._say(
            "Instance is Compliant" if report.compliant else f"Instance is Non-Compliant with severity of {worst_level(report)}"
        )
        self._say("Start to upload patch compliance.")
        counts = {f"{state.value}Count": str(report.count(state)) for state in PatchState}
        summary = {
            "BaselineId": report.baseline_id,
            "PatchGroup": report.patch_group,
            "SnapshotId": report.snapshot_id,
            "ExecutionId": report.execution_id,
            **counts,
            "OperationType": report.operation,
            "OperationStartTime": iso(report.started),
            "OperationEndTime": iso(report.ended),
            "RebootOption": report.reboot_option,
        }
        self._say(f"Summary: {summary}")
        self._say("Upload complete.")


class _Hooks:
    """AWS-RunPatchBaselineWithHooks on one host: eight steps, each of which may end the way to the last one."""

    def __init__(self, world: World, invocation: Invocation) -> None:
        self.world, self.invocation = world, invocation
        self.host, self.command = invocation.host, invocation.command
        given = {name: values[0] for name, values in self.command.parameters.items()}
        self.operation, self.reboot_option = given["Operation"], given["RebootOption"]
        self.hooks = [given[name] for name in ("PreInstallHookDocName", "PostInstallHookDocName", "OnExitHookDocName")]
        self.chance = world.random("hooks", self.command.id, self.host.name)
        self.code = 0
        """Of the first step that failed."""
        self.results = [StepResult(name=name) for name in HOOK_STEPS]
        invocation.step_results = self.results

    def begin(self) -> None:
        if self.host.patching is not None:  # the agent's lock is taken before the first step begins
            _Patch(self.world, self.invocation, operation="Scan", done=lambda code, text: self._end(0, code, text)).begin()
            return
        if _version(self.host.agent_version) < HOOKS_AGENT:
            self._end(0, 1, f"{HOOKS_DOCUMENT} needs SSM Agent {'.'.join(map(str, HOOKS_AGENT))} or later")
            return
        self._start(0)
        _Patch(self.world, self.invocation, operation="Scan", done=self._scanned).begin()

    def _scanned(self, code: int, output: str) -> None:
        if self.operation == "Scan":
            self._close(0, code, output)
            for number in range(1, 8):
                self._skip(number)
            self._leave(code)
            return
        if not self._ended(0, code, output):
            return
        self._start(1)
        report = self.host.report
        needed = report is None or report.count(PatchState.MISSING) > 0 or bool(self.host.unbooted)
        self._close(1, 0, "Patches are missing or pending" if needed else "Nothing is missing and nothing is pending")
        if not needed:
            self._exit(2)
            return
        self._hook(2, self.hooks[0], self._install)

    def _install(self) -> None:
        self._start(3)
        _Patch(self.world, self.invocation, operation="Install", reboot_option="NoReboot", done=self._installed).begin()

    def _installed(self, code: int, output: str) -> None:
        if self._ended(3, code, output):
            self._hook(4, self.hooks[1], self._decide)

    def _decide(self) -> None:
        self._start(5)
        if self.reboot_option == "NoReboot" or not self.host.unbooted:
            self._close(5, 0, "No reboot")
            self._exit(6)
            return
        self._close(5, 0, "Reboot")
        self._start(6)
        _Patch(self.world, self.invocation, operation="Install", reboot_option="RebootIfNeeded", done=self._rebooted).begin()

    def _rebooted(self, code: int, output: str) -> None:
        """The seventh step goes on after its reboot and reports what that has completed."""
        if code:
            self._reported(code, output)
            return
        report = _Patch(
            self.world,
            self.invocation,
            operation="Install",
            reboot_option="RebootIfNeeded",
            done=lambda code, more: self._reported(code, output + more),
        )
        report.begin()

    def _reported(self, code: int, output: str) -> None:
        if self._ended(6, code, output):
            self._exit(7)

    def _hook(self, number: int, document: str, then: Callable[[], None]) -> None:
        self._start(number)
        code, output = self._ran(document)
        after = self.world.now + self.chance.uniform(0.3, 2)

        def finished(_: float) -> None:
            if _alive(self.invocation) and not self._cancelled() and self._ended(number, code, output):
                then()

        self.world.at(after, finished)

    def _ran(self, document: str) -> tuple[int, str]:
        """A hook's exit code and output; it must not reboot."""
        name = _document_name(document)
        if name in ("", NOOP_DOCUMENT):
            return 0, ""
        found = estate.document(self.host.account, self.host.region, name)
        if found is None or found["DocumentType"] != "Command":
            return 1, f"document {name} is not found or is not a Command document"
        try:
            steps, _ = _own_document(found["Content"], name, {})
        except AwsError as refused:
            return 1, refused.message
        ran = _scripts(self.world, self.invocation, steps)
        if ran.code == reboot_code(self.host) or ran.restart:
            return 1, f"{ran.stdout}a hook document must not reboot the node (exit code {ran.code})\n"
        return ran.code, ran.stdout

    def _exit(self, skipped_from: int) -> None:
        """To the last step; those between are reported as Success although they did not run."""
        for number in range(skipped_from, 7):
            self._skip(number)
        self._start(7)
        code, output = self._ran(self.hooks[2])

        def finished(_: float) -> None:
            if _alive(self.invocation):
                self._close(7, code, output)
                self._leave(self.code or code)

        self.world.at(self.world.now + self.chance.uniform(0.3, 2), finished)

    def _ended(self, number: int, code: int, output: str) -> bool:
        """Whether the document goes on with its next step."""
        self._close(number, code, output)
        if self._cancelled():
            return False
        if code:
            self.code = code
            self._exit(number + 1)
        return code == 0

    def _cancelled(self) -> bool:
        if self.invocation.status not in ("Cancelling", "Cancelled"):
            return False
        if self.invocation.running:
            _ended(self.world, self.invocation, _killed(self.host))
        return True

    def _end(self, number: int, code: int, output: str) -> None:
        self._close(number, code, output)
        self._leave(code)

    def _start(self, number: int) -> None:
        self.results[number].status, self.results[number].started = "InProgress", self.world.now

    def _close(self, number: int, code: int, output: str) -> None:
        step = self.results[number]
        step.status, step.exit_code, step.output = "Failed" if code else "Success", code, output
        step.started = self.world.now if step.started is None else step.started
        step.finished = self.world.now

    def _skip(self, number: int) -> None:
        self.results[number].output = f"Step {HOOK_STEPS[number]} was skipped"
        self._close(number, 0, self.results[number].output)

    def _leave(self, code: int) -> None:
        text = "".join(f"{step.output}\n" for step in self.results if step.output)
        _finish(self.world, self.invocation, code, text)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _mappings(entries: Any) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def worst_level(report: PatchReport) -> str:
    order = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNSPECIFIED")
    return min((row.level for row in report.failing()), key=order.index, default="UNSPECIFIED")


def bucket_and_key(url: str) -> tuple[str, str]:
    """Of an object in S3 by its address; empty: it is none."""
    s3 = re.fullmatch(r"s3://([^/]+)/(.+)", url)
    host_style = re.fullmatch(r"https://([^/.]+)\.s3[.-][^/]*amazonaws\.com/(.+)", url)
    path_style = re.fullmatch(r"https://s3[.-][^/]*amazonaws\.com/([^/]+)/(.+)", url)
    found = s3 or host_style or path_style
    return (found.group(1), found.group(2)) if found else ("", "")


@dataclass(kw_only=True, slots=True)
class _Ran:
    """What scripts one after the other did."""

    code: int = 0
    stdout: str = ""
    stderr: str = ""
    restart: bool = False


def _run_script(world: World, invocation: Invocation) -> None:
    """A document of scripts, as the agent does it: by 194, on Windows 3010, a script asks for a reboot and runs again after it.

    A script that restarts Windows itself ends with its own code, is reported, and takes the machine down with it.
    """
    command, host = invocation.command, invocation.host
    ran = _scripts(world, invocation, command.steps or [])
    after = world.now + world.random("script", command.id, host.name, len(host.boots)).uniform(0.3, 1.5)
    if ran.code == reboot_code(host):
        invocation.resume = lambda: _run_script(world, invocation)
        world.at(after, lambda _: world.reboot(host, cause=command.cause, own=True) if _alive(invocation) else None)
        return
    final = 0 if ran.code == 168 else 1 if ran.code == 169 else ran.code

    def ends(_: float) -> None:
        if not _alive(invocation):
            return
        _finish(world, invocation, final, ran.stdout, ran.stderr)
        if ran.restart:
            world.at(world.now + RESTARTS_AFTER, lambda _: world.reboot(host, cause=command.cause))

    world.at(after, ends)


def _scripts(world: World, invocation: Invocation, steps: list[ScriptStep]) -> _Ran:
    """Scripts one after the other, until one fails."""
    host, results = invocation.host, [StepResult(name=step.name) for step in steps]
    if len(steps) > 1 and steps is invocation.command.steps:
        invocation.step_results = results
    ran = _Ran()
    for step, result in zip(steps, results, strict=True):
        result.started = result.finished = world.now
        if step.skipped_on(host):
            condition = f"'\"StringEquals\": [platformType, {step.platform}]'"
            result.status, result.exit_code = "Success", 0
            result.output = f"Step execution skipped due to unsatisfied preconditions: {condition}. Step name: {step.name}"
            continue
        one = _script(world, host, step)
        result.status, result.exit_code = "Success" if one.code in (0, 168, reboot_code(host)) else "Failed", one.code
        result.output, result.error = one.stdout, one.stderr
        ran = _Ran(
            code=one.code, stdout=ran.stdout + one.stdout, stderr=ran.stderr + one.stderr, restart=ran.restart or one.restart
        )
        if one.code:
            break
    return ran


def _script(world: World, host: Host, step: ScriptStep) -> _Ran:
    text = "\n".join(step.lines)
    windows = host.platform.type == "Windows"
    if step.action and (not set(_SCRIPTS[step.action]) & {host.platform.type}):
        sentence = f"Plugin with name {step.action} is not supported in current platform. Step name: {step.name}"
        return _Ran(code=1, stdout=sentence)
    if step.action == "aws:runPowerShellScript":
        if not windows and PWSH not in host.files:
            return _Ran(code=1, stderr=f"exec: {PWSH}: no such file or directory\n")
        name = f"EC2AMAZ-{host.id[-7:].upper()}" if windows else host.id
        facts = {"hostname": name, "$env:computername": name, "whoami": "nt authority\\system" if windows else "root"}
        facts["get-date"] = f"{moment(world.now):%A, %B %d, %Y %H:%M:%S}"
        told = powershell.run(text, host.files, facts=facts)
        return _Ran(code=told.exit_code, stdout=told.stdout, stderr=told.stderr, restart=told.restart)
    host.files[_BOOT_ID] = host.boot_id() + "\n"
    host.files["/etc/os-release"] = f'NAME="{host.platform.name}"\nVERSION_ID="{host.platform.version}"\n'
    kernel = host.platform.packages[host.platform.kernel].evr(host.running_kernel_at(world.now)).partition(":")[2]
    booted = moment(host.boots[-1]) if host.boots else moment(host.launched)
    facts = {
        "uptime -s": f"{booted:%Y-%m-%d %H:%M:%S}",
        "uname -r": kernel,
        "uname": "Linux",
        "hostname": host.id,
        "whoami": "root",
        "date": f"{moment(world.now):%a %b %d %H:%M:%S UTC %Y}",
    }
    result = shell.run(text, host.files, facts=facts)
    return _Ran(code=result.exit_code, stdout=result.stdout, stderr=result.stderr)


def plugins(command: Command, host: Host) -> list[str]:
    """Names of the document's steps, as rows and PluginName name them."""
    if _document_name(command.document) == HOOKS_DOCUMENT:
        return list(HOOK_STEPS)
    if _document_name(command.document) in PATCH_DOCUMENTS:
        return [name for name, _ in _PATCH_STEPS]
    return [step.name for step in command.steps or []]


def _uuid(bits: int) -> str:
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"
