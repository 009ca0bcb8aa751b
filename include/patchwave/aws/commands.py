"""How is a step carried out by SSM Run Command, and how did it end on each host?

`patchwave.operators` turns a dispatch into a `CommandSpec` and sends it; triggers read how commands and invocations stand.
SendCommand takes no client token, so the dispatch's token is the first word after ``patchwave`` in its Comment, and
`find_command` finds the command again.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.aws import moments
from patchwave.aws.calls import Calls, chunks
from patchwave.aws.errors import code_of
from patchwave.aws.lists import LONGEST_ADDRESS
from patchwave.campaign.errors import InvalidRequest, OutcomeUnknown
from patchwave.campaign.rollout import LARGEST_DISPATCH, Dispatch, DispatchRow, Invocation, Outcome, StepKind
from patchwave.campaign.values import Cell, HostId

LONGEST_COMMENT = 100
"""botocore model of ssm, SendCommand.Comment."""
LARGEST_PAGE = 50
"""botocore model of ssm: MaxResults of ListCommands and ListCommandInvocations."""
LARGEST_CANCEL = 50
"""botocore model of ssm, CancelCommand.InstanceIds."""
CLOCKS_APART = timedelta(minutes=10)
"""How much earlier than our own note of it AWS's time of a command is looked for."""

PATCH_DOCUMENT = "AWS-RunPatchBaseline"
SCRIPT_DOCUMENT = "AWS-RunShellScript"

SCAN_DELIVERY = timedelta(minutes=10)
INSTALL_DELIVERY = timedelta(minutes=70)
"""AWS gives up on a command after TimeoutSeconds + 3600 s, whether it runs or not, while the document's own limit is 7200 s:
with 70 minutes an Install that is still going on is never reported as DeliveryTimedOut (reference: Two clocks)."""
REBOOT_DELIVERY = timedelta(minutes=10)
REBOOT_EXECUTION = timedelta(hours=1)

_COMMENT = re.compile(r"patchwave ([0-9a-f]{32})(?: |$)")

_OUTCOMES = {
    "pending": Outcome.RUNNING,
    "inprogress": Outcome.RUNNING,
    "delayed": Outcome.RUNNING,  # not reachable now, will be tried again
    "cancelling": Outcome.RUNNING,
    "success": Outcome.SUCCEEDED,
    "failed": Outcome.FAILED,
    "executiontimedout": Outcome.FAILED,
    "deliverytimedout": Outcome.UNDELIVERED,
    "undeliverable": Outcome.UNDELIVERED,
    "invalidplatform": Outcome.UNDELIVERED,
    "terminated": Outcome.UNDELIVERED,  # stopped by MaxErrors or an alarm before it was sent
    "accessdenied": Outcome.DENIED,
    "cancelled": Outcome.CANCELLED,
}
_TERMINAL = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})
_SKIPPED = "Step execution skipped"
"""How the agent begins the output of a step whose platform is another one; such a step says exit code 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandSpec:
    """What SendCommand is told.

    Attributes:
        timeout: for delivery; how long the script may run stands in the document or its parameters.
    """

    document: str
    parameters: Mapping[str, tuple[str, ...]]
    comment: str
    timeout: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class SentCommand:
    """A command that AWS has.

    Attributes:
        requested_at: AWS's own time of it.
    """

    id: str
    requested_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandStatus:
    """How a command stands as a whole; says nothing about a single host.

    Attributes:
        complete: AWS will not change it any more.
        targets: hosts it is for; 0 while AWS has not counted them.
        completed: hosts on which it ended, however it did.
        errors: hosts on which it failed or ran out of time; the undelivered are not in it.
    """

    id: str
    status: str
    details: str
    complete: bool
    requested_at: datetime
    targets: int
    completed: int
    errors: int


def comment_for(token: str, *, campaign: str, stage: str, step: StepKind) -> str:
    """``patchwave <token> <campaign> <stage> <step>``, cut to what AWS takes."""
    return f"patchwave {token} {campaign} {stage} {step.value}"[:LONGEST_COMMENT]


def token_in(comment: str) -> str | None:
    """The token of a command of ours; None for others' commands."""
    found = _COMMENT.match(comment)
    return found[1] if found else None


def command_for(
    dispatch: Dispatch | DispatchRow, *, campaign: str, stage: str, override_list: str = "", baseline_override: str = ""
) -> CommandSpec:
    """The document and parameters that carry out a dispatch.

    Args:
        override_list: address of the list from which alone an Install installs (`lists.Lists.lay_down`); empty: what the
            baseline approves. A Scan ignores it, and would keep it in its report.
        baseline_override: address of the baselines by which an Install goes in place of the account's
            (`lists.Lists.lay_down_override`); empty: by the account's. A Scan goes by the account's always, for AWS uploads
            no report of one with an override.

    Raises:
        InvalidRequest: its snapshot is no UUID, list or override have no address that AWS takes, or both are given.
    """
    if override_list and baseline_override:
        raise InvalidRequest("AWS-RunPatchBaseline takes InstallOverrideList or BaselineOverride, not both (exit code 167)")
    comment = comment_for(dispatch.token, campaign=campaign, stage=stage, step=dispatch.step)
    match dispatch.step:
        case StepKind.SCAN | StepKind.VERIFY:
            return CommandSpec(
                document=PATCH_DOCUMENT, parameters={"Operation": ("Scan",)}, comment=comment, timeout=SCAN_DELIVERY
            )
        case StepKind.INSTALL:
            snapshot = {"SnapshotId": (_uuid(dispatch.snapshot),)} if dispatch.snapshot else {}
            listed = {"InstallOverrideList": (_address(override_list, "InstallOverrideList"),)} if override_list else {}
            other = {"BaselineOverride": (_address(baseline_override, "BaselineOverride"),)} if baseline_override else {}
            return CommandSpec(
                document=PATCH_DOCUMENT,
                parameters={"Operation": ("Install",), "RebootOption": ("NoReboot",), **snapshot, **listed, **other},
                comment=comment,
                timeout=INSTALL_DELIVERY,
            )
        case StepKind.REBOOT:
            return CommandSpec(
                document=SCRIPT_DOCUMENT,
                parameters={
                    "commands": reboot_script(dispatch.token),
                    "executionTimeout": (str(int(REBOOT_EXECUTION.total_seconds())),),
                },
                comment=comment,
                timeout=REBOOT_DELIVERY,
            )


def reboot_script(token: str) -> tuple[str, ...]:
    """Reboots once, however often it runs, and succeeds only under another boot id than it began with.

    Exit code 194 asks the agent to reboot the host and to run the same script again; the marker tells the second run. A
    marker that cannot be written (disk full) fails at once, or the host would reboot for ever; one that says nothing is no
    proof.
    """
    return (
        f"m=/var/tmp/patchwave-{token}",
        "b=$(cat /proc/sys/kernel/random/boot_id)",
        "[ -e $m ] || { echo $b > $m || exit 1; sync; exit 194; }",
        '[ -f $m ] && [ -s $m ] && [ "$(cat $m)" != "$b" ] || { echo "no new boot"; exit 1; }',
        'echo "rebooted, boot id $b"',
    )


def _uuid(snapshot: str) -> str:
    try:
        return str(uuid.UUID(snapshot))
    except ValueError as error:
        raise InvalidRequest(f"SnapshotId is a UUID or absent, not {snapshot!r}") from error


def _address(text: str, name: str) -> str:
    if not re.fullmatch(r"(s3|https)://[^/\s]+/\S+", text) or len(text) > LONGEST_ADDRESS:
        message = f"{name} is s3://bucket/key or an https URL of at most {LONGEST_ADDRESS} characters, not {text!r}"
        raise InvalidRequest(message)
    return text


class Commands(Calls):
    """SSM Run Command."""

    def send(
        self,
        cell: Cell,
        *,
        document: str,
        parameters: Mapping[str, Sequence[str]],
        hosts: Sequence[HostId],
        comment: str,
        timeout: timedelta,
    ) -> SentCommand:
        """Send a command to these hosts, in one call and at most once.

        Every host at once (MaxConcurrency 100 %), for `rollout.decide` has chosen how many may be away; and however many
        fail (MaxErrors 100 %), for what AWS terminates by itself it reports as never sent.

        Raises:
            HostsRefused: AWS takes at least one of the hosts for no managed node; nothing was sent.
            OutcomeUnknown: the answer was lost; look it up by `find_command` before sending anything again.
            Throttled, AccessDenied, InvalidRequest, AwsUnavailable: certainly nothing was sent.
        """
        if not 1 <= len(hosts) <= LARGEST_DISPATCH:
            raise InvalidRequest(f"a command takes 1 to {LARGEST_DISPATCH} hosts, not {len(hosts)}")
        answer = self.call(
            cell,
            "ssm:SendCommand",
            DocumentName=document,
            Parameters={name: list(values) for name, values in parameters.items()},
            InstanceIds=list(hosts),
            Comment=comment,
            TimeoutSeconds=int(timeout.total_seconds()),
            MaxConcurrency="100%",
            MaxErrors="100%",
        )
        command = answer.get("Command") or {}
        if not command.get("CommandId"):
            raise OutcomeUnknown("ssm:SendCommand was called and AWS's answer names no command")
        return _sent(command)

    def find_command(self, cell: Cell, token: str, *, since: datetime) -> SentCommand | None:
        """The command with that token, if AWS lists one; its list lags a fresh command by seconds.

        Args:
            token: the dispatch's, as it stands in the Comment.
            since: when it was intended.
        """
        earliest = since - CLOCKS_APART
        # A row from before is left out, whatever the filter made of the time.
        found = [
            _sent(row)
            for page in self.pages(
                cell,
                "ssm:ListCommands",
                MaxResults=LARGEST_PAGE,
                Filters=[{"key": "InvokedAfter", "value": moments.written(earliest)}],
            )
            for row in page.get("Commands", ())
            if token_in(row.get("Comment", "")) == token
        ]
        return min(found, key=lambda sent: sent.requested_at, default=None)

    def commands(self, cell: Cell, ids: Iterable[str]) -> dict[str, CommandStatus]:
        """How these commands stand; one that AWS does not list is absent.

        Pages of the newest commands are read while they may spare calls; what is not on them is asked for one by one.
        """
        missing = dict.fromkeys(ids)
        found: dict[str, CommandStatus] = {}
        if len(missing) > 1:
            for page in self.pages(cell, "ssm:ListCommands", MaxResults=LARGEST_PAGE):
                before = len(missing)
                for row in page.get("Commands", ()):
                    if row["CommandId"] in missing:
                        found[row["CommandId"]] = _status(row)
                        del missing[row["CommandId"]]
                if len(missing) <= 1 or len(missing) == before:  # a page that held none of them is followed by others' commands
                    break
        for command in missing:
            found.update({row["CommandId"]: _status(row) for row in self._one(cell, command)})
        return found

    def _one(self, cell: Cell, command: str) -> Iterator[Mapping[str, Any]]:
        try:
            for page in self.pages(cell, "ssm:ListCommands", CommandId=command):
                yield from page.get("Commands", ())
        except InvalidRequest as error:
            if code_of(error) != "InvalidCommandId":
                raise

    def invocations(self, cell: Cell, command_id: str, token: str) -> tuple[Invocation, ...]:
        """How the command went on each host that AWS lists so far; a missing host is no outcome.

        Args:
            token: the dispatch's, which the invocations are named by.
        """
        try:
            pages = list(
                self.pages(cell, "ssm:ListCommandInvocations", CommandId=command_id, Details=True, MaxResults=LARGEST_PAGE)
            )
        except InvalidRequest as error:
            if code_of(error) == "InvalidCommandId":  # just sent, or forgotten after 30 days
                return ()
            raise
        found = {row["InstanceId"]: _invocation(row, token) for page in pages for row in page.get("CommandInvocations", ())}
        return tuple(found.values())

    def cancel(self, cell: Cell, command_id: str, hosts: Iterable[HostId] = ()) -> None:
        """Ask AWS to stop a command, on these hosts or (none named) on all. What had begun may run on: Scan afterwards."""
        named = list(chunks(hosts, LARGEST_CANCEL))
        if not named:
            self.call(cell, "ssm:CancelCommand", CommandId=command_id)
        for some in named:
            self.call(cell, "ssm:CancelCommand", CommandId=command_id, InstanceIds=list(some))


def outcome(status: str, details: str) -> Outcome:
    """What AWS's StatusDetails mean; blanks are removed, for the guide writes ``Delivery Timed Out``.

    A word that we do not know leaves the host running while Status is not terminal, and has failed when it is.
    """
    known = _OUTCOMES.get((details or status).replace(" ", "").lower())
    if known is not None:
        return known
    return Outcome.FAILED if status.replace(" ", "") in _TERMINAL else Outcome.RUNNING


def _invocation(row: Mapping[str, Any], token: str) -> Invocation:
    status, details = row.get("Status", ""), row.get("StatusDetails", "")
    how = outcome(status, details)
    return Invocation(
        token=token,
        host=HostId(row["InstanceId"]),
        outcome=how,
        details=details or status,
        exit_code=_exit_code(row.get("CommandPlugins", ())) if how in {Outcome.SUCCEEDED, Outcome.FAILED} else None,
        ended=_ended(row.get("CommandPlugins", ())) if how in {Outcome.SUCCEEDED, Outcome.FAILED} else None,
    )


def _ended(plugins: Sequence[Mapping[str, Any]]) -> datetime | None:
    """When the last of its steps had ended."""
    finished = [plugin["ResponseFinishDateTime"] for plugin in plugins if plugin.get("ResponseFinishDateTime")]
    return max(finished).astimezone(UTC) if finished else None


def _exit_code(plugins: Sequence[Mapping[str, Any]]) -> int | None:
    """The exit code of the step that ran: AWS-RunPatchBaseline has one per platform, and says 0 for those it skips."""
    codes = [
        plugin["ResponseCode"]
        for plugin in plugins
        if plugin.get("ResponseCode", -1) >= 0 and not str(plugin.get("Output", "")).startswith(_SKIPPED)
    ]
    return next((code for code in codes if code), codes[0] if codes else None)


def _sent(command: Mapping[str, Any]) -> SentCommand:
    return SentCommand(id=command["CommandId"], requested_at=command["RequestedDateTime"].astimezone(UTC))


def _status(row: Mapping[str, Any]) -> CommandStatus:
    status = row.get("Status", "")
    return CommandStatus(
        id=row["CommandId"],
        status=status,
        details=row.get("StatusDetails", "") or status,
        complete=status.replace(" ", "") in _TERMINAL,
        requested_at=row["RequestedDateTime"].astimezone(UTC),
        targets=row.get("TargetCount", 0),
        completed=row.get("CompletedCount", 0),
        errors=row.get("ErrorCount", 0),
    )
