"""Run Command: what is sent, how it is found again, and what AWS's words mean."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from patchwave.aws import commands
from patchwave.campaign import errors
from patchwave.campaign.rollout import Dispatch, Outcome, StepKind
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, COMMAND, NOW, Wire, host

TOKEN = uuid.uuid5(uuid.NAMESPACE_DNS, "a dispatch").hex
OTHER = uuid.uuid5(uuid.NAMESPACE_DNS, "another").hex


def dispatch(step: StepKind, *, snapshot: str = "", token: str = TOKEN) -> Dispatch:
    return Dispatch(
        token=token, step=step, cell=CELL, platform="Ubuntu 22.04", hosts=(HostId(host(1)),), attempt=1, snapshot=snapshot
    )


def spec(step: StepKind, *, override_list: str = "", baseline_override: str = "", **options: Any) -> commands.CommandSpec:
    return commands.command_for(
        dispatch(step, **options), campaign="weekly-linux", stage="prod", override_list=override_list,
        baseline_override=baseline_override,
    )  # fmt: skip


def row(number: int = 1, **facts: Any) -> dict[str, Any]:
    return {
        "CommandId": f"{COMMAND[:-4]}{number:04d}",
        "RequestedDateTime": NOW,
        "Status": "InProgress",
        "StatusDetails": "InProgress",
        "Comment": "",
        **facts,
    }


def invocation(number: int, status: str, details: str, **facts: Any) -> dict[str, Any]:
    return {"CommandId": COMMAND, "InstanceId": host(number), "Status": status, "StatusDetails": details, **facts}


# what is sent ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [StepKind.SCAN, StepKind.VERIFY])
def test_a_scan_says_nothing_but_scan(step: StepKind) -> None:
    """A reboot option or a snapshot would mean nothing to a Scan."""
    assert spec(step).document == "AWS-RunPatchBaseline"
    assert dict(spec(step).parameters) == {"Operation": ("Scan",)}


def test_an_install_never_reboots_by_itself() -> None:
    """Install and reboot are separate steps (rule 8)."""
    assert dict(spec(StepKind.INSTALL).parameters) == {"Operation": ("Install",), "RebootOption": ("NoReboot",)}


def test_an_install_by_a_lockfile_names_its_list() -> None:
    """From it alone AWS-RunPatchBaseline installs; a Scan would only keep the address in its report."""
    address = "s3://acme-lists/patchwave-lists/0a.yaml"
    assert dict(spec(StepKind.INSTALL, override_list=address).parameters) == {
        "Operation": ("Install",),
        "RebootOption": ("NoReboot",),
        "InstallOverrideList": (address,),
    }
    for step in (StepKind.SCAN, StepKind.VERIFY):
        assert "InstallOverrideList" not in spec(step, override_list=address).parameters


@pytest.mark.parametrize("address", ["file:///etc/passwd", "s3://bucket", "s3://bucket/a b", f"s3://bucket/{'k' * 250}"])
def test_a_list_without_an_address_that_aws_takes_is_refused_here(address: str) -> None:
    """AWS would refuse the whole command, or cut the address in its report."""
    with pytest.raises(errors.InvalidRequest, match=r"InstallOverrideList is s3://bucket/key"):
        spec(StepKind.INSTALL, override_list=address)


def test_an_install_by_other_baselines_names_them_and_a_scan_goes_by_the_accounts() -> None:
    """AWS uploads no report of a run with BaselineOverride: a Scan with it would tell nothing."""
    address = "s3://acme-lists/patchwave-lists/0a.json"
    assert spec(StepKind.INSTALL, baseline_override=address).parameters["BaselineOverride"] == (address,)
    for step in (StepKind.SCAN, StepKind.VERIFY):
        assert "BaselineOverride" not in spec(step, baseline_override=address).parameters
    with pytest.raises(errors.InvalidRequest, match=r"BaselineOverride is s3://bucket/key"):
        spec(StepKind.INSTALL, baseline_override="baselines.json")


def test_a_list_and_other_baselines_together_are_refused_before_they_are_sent() -> None:
    """Each host would end with exit code 167."""
    address = "s3://acme-lists/patchwave-lists/0a.json"
    with pytest.raises(errors.InvalidRequest, match="not both"):
        spec(StepKind.INSTALL, override_list=address, baseline_override=address)


def test_a_snapshot_is_written_as_a_uuid_with_dashes() -> None:
    """The document takes a UUID or nothing."""
    assert spec(StepKind.INSTALL, snapshot=TOKEN).parameters["SnapshotId"] == (str(uuid.UUID(TOKEN)),)


def test_a_snapshot_that_is_no_uuid_is_refused_before_it_is_sent() -> None:
    """AWS would refuse it host by host, after the command was taken."""
    with pytest.raises(errors.InvalidRequest, match="SnapshotId"):
        spec(StepKind.INSTALL, snapshot="latest")


def test_a_long_install_is_not_reported_undelivered() -> None:
    """AWS gives up after TimeoutSeconds + 3600 s, whatever runs then; the document's own limit is 7200 s."""
    assert spec(StepKind.INSTALL).timeout + timedelta(hours=1) > timedelta(seconds=7200)


def test_the_comment_carries_the_token_and_fits_into_aws() -> None:
    """The token is what a command is adopted by, so what is cut is the rest."""
    comment = commands.comment_for(TOKEN, campaign="c" * 80, stage="prod", step=StepKind.INSTALL)
    assert len(comment) == 100
    assert commands.token_in(comment) == TOKEN


@pytest.mark.parametrize(
    "comment",
    ["", "patchwave", f"patchwave {TOKEN}0", f"see patchwave {TOKEN}", f"patchwave {TOKEN[:-1]}", "patchwave remediate x"],
)
def test_a_comment_of_somebody_else_carries_no_token(comment: str) -> None:
    """Adopting a foreign command would be a false outcome."""
    assert commands.token_in(comment) is None


def test_the_wire_carries_ids_token_and_limits_of_the_rollout_not_of_ssm(wire: Wire) -> None:
    """SSM's own rate control would leave hosts unsent without our knowledge: the rollout decides who is away."""
    made = spec(StepKind.REBOOT)
    wire.expects(
        "ssm", "send_command", {"Command": {"CommandId": COMMAND, "RequestedDateTime": NOW}},
        {
            "DocumentName": "AWS-RunShellScript",
            "Parameters": {"commands": list(commands.reboot_script(TOKEN)), "executionTimeout": ["3600"]},
            "InstanceIds": [host(1), host(2)],
            "Comment": f"patchwave {TOKEN} weekly-linux prod reboot",
            "TimeoutSeconds": 600,
            "MaxConcurrency": "100%",
            "MaxErrors": "100%",
        },
    )  # fmt: skip
    sent = wire.gateway.send(
        CELL, document=made.document, parameters=made.parameters, hosts=[HostId(host(1)), HostId(host(2))],
        comment=made.comment, timeout=made.timeout,
    )  # fmt: skip
    assert sent == commands.SentCommand(id=COMMAND, requested_at=NOW)
    assert wire.gateway.take_calls() == {"ssm:SendCommand": 1}
    assert wire.gateway.take_calls() == {}


@pytest.mark.parametrize("count", [0, 51])
def test_a_command_takes_one_to_fifty_hosts(wire: Wire, count: int) -> None:
    """No host at all would mean all of them by some other selector; 51 are refused by AWS."""
    with pytest.raises(errors.InvalidRequest, match="50"):
        wire.gateway.send(
            CELL, document="d", parameters={}, hosts=[HostId(host(n)) for n in range(count)], comment="", timeout=timedelta(1)
        )


# the script that reboots ----------------------------------------------------------------------------------------------
def run_script(folder: Path, boot_id: str) -> tuple[int, str]:
    """The script as the agent's shell runs it, with its two files elsewhere."""
    import subprocess

    (folder / "boot_id").write_text(f"{boot_id}\n")
    text = "\n".join(commands.reboot_script(TOKEN))
    text = text.replace("/var/tmp", str(folder)).replace("/proc/sys/kernel/random/boot_id", str(folder / "boot_id"))
    ended = subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout.strip()


def test_the_reboot_script_asks_once_and_succeeds_under_a_new_boot_id(tmp_path: Path) -> None:
    """194 asks the agent for a reboot and the same script runs again; another boot id is the proof."""
    assert run_script(tmp_path, "boot-1") == (194, "")
    assert run_script(tmp_path, "boot-2") == (0, "rebooted, boot id boot-2")
    assert run_script(tmp_path, "boot-2") == (0, "rebooted, boot id boot-2")


def test_the_reboot_script_fails_if_the_host_did_not_reboot(tmp_path: Path) -> None:
    """An agent that runs the script again without a reboot must not count as a new boot."""
    run_script(tmp_path, "boot-1")
    assert run_script(tmp_path, "boot-1") == (1, "no new boot")


def test_the_reboot_script_fails_where_it_cannot_leave_its_marker(tmp_path: Path) -> None:
    """Without the marker it would ask for a reboot again and again."""
    (tmp_path / f"patchwave-{TOKEN}" / "in the way").mkdir(parents=True)
    assert run_script(tmp_path, "boot-1")[0] == 1


def test_an_empty_marker_is_no_proof_of_a_new_boot(tmp_path: Path) -> None:
    """A disk that was full, or a crash before it was written, must not make a rebooted host."""
    (tmp_path / f"patchwave-{TOKEN}").touch()
    assert run_script(tmp_path, "boot-1") == (1, "no new boot")


# finding it again -----------------------------------------------------------------------------------------------------
def test_a_command_is_found_by_its_token_on_any_page(wire: Wire) -> None:
    """The list is of the whole account, and an empty page is not its end."""
    since = {"Filters": [{"key": "InvokedAfter", "value": "2026-03-03T21:50:00Z"}], "MaxResults": 50}
    wire.expects("ssm", "list_commands", {"Commands": [row(1, Comment=f"patchwave {OTHER} x")], "NextToken": "a"}, since)
    wire.expects("ssm", "list_commands", {"Commands": [], "NextToken": "b"}, {**since, "NextToken": "a"})
    ours = row(2, Comment=f"patchwave {TOKEN} weekly-linux prod scan")
    wire.expects("ssm", "list_commands", {"Commands": [ours]}, {**since, "NextToken": "b"})
    found = wire.gateway.find_command(CELL, TOKEN, since=NOW)
    assert found is not None
    assert found.id == ours["CommandId"]


def test_a_token_that_nobody_used_finds_nothing(wire: Wire) -> None:
    """None means that AWS lists none, and the caller knows how long that may lag."""
    wire.expects("ssm", "list_commands", {"Commands": [row(1)]})
    assert wire.gateway.find_command(CELL, TOKEN, since=NOW) is None


def test_a_page_token_that_repeats_ends_the_listing_as_an_error(wire: Wire) -> None:
    """Otherwise a simulator's or a proxy's mistake would read for ever."""
    for _ in range(2):
        wire.expects("ssm", "list_commands", {"Commands": [], "NextToken": "a"})
    with pytest.raises(errors.AwsUnavailable, match="twice"):
        wire.gateway.find_command(CELL, TOKEN, since=NOW)


# how it stands --------------------------------------------------------------------------------------------------------
def test_one_page_answers_for_many_commands_and_the_rest_is_asked_for(wire: Wire) -> None:
    """A poll is one call for up to fifty commands; one that has left the first page is still found."""
    first, second, gone = row(1), row(2, Status="Success", StatusDetails="Success", TargetCount=3, CompletedCount=3), row(3)
    wire.expects("ssm", "list_commands", {"Commands": [second, row(4)]}, {"MaxResults": 50})
    wire.expects("ssm", "list_commands", {"Commands": [first]}, {"CommandId": first["CommandId"]})
    wire.refuses("ssm", "list_commands", "InvalidCommandId")
    found = wire.gateway.commands(CELL, [first["CommandId"], second["CommandId"], gone["CommandId"]])
    assert {key: status.complete for key, status in found.items()} == {first["CommandId"]: False, second["CommandId"]: True}
    assert found[second["CommandId"]].targets == 3


@pytest.mark.parametrize(
    ("status", "details", "meant"),
    [
        ("Pending", "Pending", Outcome.RUNNING),
        ("InProgress", "InProgress", Outcome.RUNNING),
        ("InProgress", "In Progress", Outcome.RUNNING),
        ("Delayed", "Delayed", Outcome.RUNNING),
        ("Cancelling", "Cancelling", Outcome.RUNNING),
        ("Success", "Success", Outcome.SUCCEEDED),
        ("Failed", "Failed", Outcome.FAILED),
        ("TimedOut", "Execution Timed Out", Outcome.FAILED),
        ("TimedOut", "ExecutionTimedOut", Outcome.FAILED),
        ("TimedOut", "DeliveryTimedOut", Outcome.UNDELIVERED),
        ("TimedOut", "Delivery Timed Out", Outcome.UNDELIVERED),
        ("Failed", "Undeliverable", Outcome.UNDELIVERED),
        ("Failed", "InvalidPlatform", Outcome.UNDELIVERED),
        ("Cancelled", "Terminated", Outcome.UNDELIVERED),
        ("Failed", "AccessDenied", Outcome.DENIED),
        ("Cancelled", "Cancelled", Outcome.CANCELLED),
        ("InProgress", "SomethingNew", Outcome.RUNNING),
        ("Failed", "SomethingNew", Outcome.FAILED),
        ("Success", "SomethingNew", Outcome.FAILED),
        ("Success", "", Outcome.SUCCEEDED),
        ("", "", Outcome.RUNNING),
    ],
)
def test_the_details_decide_and_the_unknown_is_never_a_success(status: str, details: str, meant: Outcome) -> None:
    """Rule 3: the host's own StatusDetails; a word of next year's AWS must not patch a host on paper."""
    assert commands.outcome(status, details) is meant


def test_invocations_come_from_all_pages_with_the_exit_code_of_the_step_that_ran(wire: Wire) -> None:
    """AWS-RunPatchBaseline has a step per platform, and those it skips say 0."""
    request = {"CommandId": COMMAND, "Details": True, "MaxResults": 50}
    skipped = {"Name": "PatchWindows", "ResponseCode": 0, "Output": "Step execution skipped due to unsatisfied preconditions"}
    failed = invocation(
        1, "Failed", "Failed", CommandPlugins=[skipped, {"Name": "PatchLinux", "ResponseCode": 156, "Output": "..."}]
    )
    fine = invocation(2, "Success", "Success", CommandPlugins=[{"Name": "PatchLinux", "ResponseCode": 0, "Output": ""}])
    running = invocation(3, "InProgress", "InProgress", CommandPlugins=[{"Name": "PatchLinux", "ResponseCode": -1}])
    late = invocation(4, "TimedOut", "DeliveryTimedOut", CommandPlugins=[])
    wire.expects("ssm", "list_command_invocations", {"CommandInvocations": [failed], "NextToken": "n"}, request)
    wire.expects("ssm", "list_command_invocations", {"CommandInvocations": [], "NextToken": "m"}, {**request, "NextToken": "n"})
    wire.expects("ssm", "list_command_invocations", {"CommandInvocations": [fine, running, late]}, {**request, "NextToken": "m"})
    found = {one.host: one for one in wire.gateway.invocations(CELL, COMMAND, TOKEN)}
    assert {key: one.exit_code for key, one in found.items()} == {host(1): 156, host(2): 0, host(3): None, host(4): None}
    assert {one.token for one in found.values()} == {TOKEN}
    assert found[HostId(host(4))].outcome is Outcome.UNDELIVERED


def test_a_command_that_aws_does_not_list_yet_has_no_invocations(wire: Wire) -> None:
    """Right after SendCommand its id may be unknown to another server of AWS's."""
    wire.refuses("ssm", "list_command_invocations", "InvalidCommandId")
    assert wire.gateway.invocations(CELL, COMMAND, TOKEN) == ()


def test_cancelling_names_each_host_once_and_fifty_at_a_time(wire: Wire) -> None:
    """DuplicateInstanceId and 51 ids would leave the command running."""
    ids = [HostId(host(n)) for n in range(51)]
    wire.expects("ssm", "cancel_command", {}, {"CommandId": COMMAND, "InstanceIds": ids[:50]})
    wire.expects("ssm", "cancel_command", {}, {"CommandId": COMMAND, "InstanceIds": ids[50:]})
    wire.gateway.cancel(CELL, COMMAND, [*ids, ids[0]])


def test_cancelling_without_hosts_means_the_whole_command(wire: Wire) -> None:
    """That is what the kill of a task wants."""
    wire.expects("ssm", "cancel_command", {}, {"CommandId": COMMAND})
    wire.gateway.cancel(CELL, COMMAND)
