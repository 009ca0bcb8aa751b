"""Windows hosts: PowerShell, reboots by exit code 3010, patching, and documents of the wrong platform."""

import json

import pytest
from botocore.exceptions import ClientError

from awsim import powershell
from tests.simulator.conftest import Aws

MIXED = """
name: mixed
accounts: [{id: "111111111111"}]
regions: [eu-central-1]
timings: {delivery: [1, 1], scan: [20, 20], install: [100, 100], reboot: [90, 90], status_check: [30, 30]}
templates:
  windows: {os: windows-server-2022, missing: {count: [2, 2], always: [cumulative-update]}}
  linux: {os: amazon-linux-2023, missing: {count: [2, 2]}}
fleets:
  - {name: win, account: "111111111111", region: eu-central-1, count: 2, template: windows, tags: {App: shop}}
  - {name: lin, account: "111111111111", region: eu-central-1, count: 1, template: linux, tags: {App: shop}}
"""


@pytest.fixture
def mixed(start) -> Aws:
    return start(MIXED)


def powershell_to(aws, *ids, lines, **request):
    sent = aws.ssm.send_command(
        DocumentName="AWS-RunPowerShellScript", InstanceIds=list(ids), Parameters={"commands": lines}, **request
    )
    return sent["Command"]["CommandId"]


def shown(aws, command, host):
    return aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)


@pytest.mark.parametrize(
    ("lines", "status", "exit_code", "stdout"),
    [
        (["echo one", "Write-Output 'two'", 'Write-Host "three"'], "Success", 0, "one\ntwo\nthree\n"),
        (["echo before", "exit 7", "echo after"], "Failed", 7, "before\n"),
        (["exit 194"], "Failed", 194, ""),
        (["throw 'no'"], "Failed", 1, ""),
        (["Get-Nothing", "echo on"], "Success", 0, "on\n"),
        (["$n = 3", 'if ($n -gt 2) { echo "many $n" } else { exit 2 }'], "Success", 0, "many 3\n"),
    ],
)
def test_powershell_prints_and_exits_as_powershell_does(mixed, lines, status, exit_code, stdout):
    """Exit codes are not cut to a byte, an unknown command does not end a script, and 194 means nothing on Windows."""
    host = mixed.hosts("win")[0]
    command = powershell_to(mixed, host, lines=lines)
    mixed.advance(60)
    row = shown(mixed, command, host)
    assert (row["Status"], row["ResponseCode"], row["StandardOutputContent"]) == (status, exit_code, stdout)
    assert row["PluginName"] == "aws:runPowerShellScript"
    assert "reboot_begun" not in mixed.events(host)


def test_exit_code_3010_reboots_windows_and_runs_the_script_again(mixed):
    """User guide, "Handling reboots when running commands": 3010 on Windows, and the script must be re-entrant."""
    host = mixed.hosts("win")[0]
    lines = ["if (-not (Test-Path C:\\done.txt)) { echo first > C:\\done.txt; exit 3010 }", "echo second"]
    command = powershell_to(mixed, host, lines=lines)
    mixed.advance(30)
    assert shown(mixed, command, host)["Status"] == "InProgress"
    mixed.advance(600)
    row = shown(mixed, command, host)
    assert (row["Status"], row["ResponseCode"], row["StandardOutputContent"]) == ("Success", 0, "second\n")
    assert mixed.events(host)[:4] == ["command_begun", "out_of_service", "reboot_begun", "reboot_ended"]
    assert mixed.events(host).count("reboot_begun") == 1


def test_a_script_that_restarts_the_computer_is_over_and_takes_the_machine_down(mixed):
    """Chosen: Restart-Computer returns at once, so the script's end is reported and the reboot follows it."""
    host = mixed.hosts("win")[0]
    command = powershell_to(mixed, host, lines=["echo bye", "Restart-Computer -Force"])
    mixed.advance(600)
    assert shown(mixed, command, host)["Status"] == "Success"
    found = mixed.events(host)
    assert found.index("command_ended") < found.index("reboot_begun") < found.index("reboot_ended")


def test_a_shell_document_that_names_a_windows_host_is_refused(mixed):
    """Seen in the field: the whole call is UnsupportedPlatformType, and nothing is sent."""
    with pytest.raises(ClientError, match=r"Cannot perform operation for instance id .* of platform type Windows") as refused:
        mixed.script(mixed.hosts("lin")[0], mixed.hosts("win")[0], lines=["echo no"])
    assert refused.value.response["Error"]["Code"] == "UnsupportedPlatformType"
    mixed.advance(60)
    assert mixed.journal() == []


@pytest.mark.parametrize(
    ("document", "runs", "wrong"),
    [("AWS-RunShellScript", "lin", "win"), ("AWS-RunPowerShellScript", "win", "lin")],
)
def test_hosts_of_another_platform_among_the_targets_end_as_invalid_platform(mixed, document, runs, wrong):
    """User guide, "Understanding command statuses": it does not count against MaxErrors, and one success is enough."""
    sent = mixed.ssm.send_command(
        DocumentName=document, Targets=[{"Key": "tag:App", "Values": ["shop"]}], Parameters={"commands": ["echo yes"]}
    )
    command = sent["Command"]["CommandId"]
    mixed.advance(60)
    details = mixed.details(command)
    assert {details[host] for host in mixed.hosts(wrong)} == {"InvalidPlatform"}
    assert {details[host] for host in mixed.hosts(runs)} == {"Success"}
    assert {shown(mixed, command, host)["Status"] for host in mixed.hosts(wrong)} == {"Failed"}
    (row,) = mixed.ssm.list_commands(CommandId=command)["Commands"]
    assert (row["Status"], row["ErrorCount"], row["CompletedCount"]) == ("Success", 0, 3)
    assert {line["host"] for line in mixed.journal()} == set(mixed.hosts(runs))


def test_powershell_on_linux_without_pwsh_is_an_invalid_platform(mixed):
    """The document names Linux, so the call is taken; the host cannot run it until PowerShell is there."""
    host = mixed.hosts("lin")[0]
    first = powershell_to(mixed, host, lines=["echo hi"])
    mixed.advance(60)
    assert (shown(mixed, first, host)["Status"], mixed.status(first)) == ("Failed", "Failed")
    assert shown(mixed, first, host)["StatusDetails"] == "InvalidPlatform"
    mixed.script(host, lines=["touch /usr/bin/pwsh"])
    mixed.advance(60)
    second = powershell_to(mixed, host, lines=["echo hi"])
    mixed.advance(60)
    assert shown(mixed, second, host)["StandardOutputContent"] == "hi\n"


def test_a_windows_host_is_patched_with_a_reboot(mixed):
    """The Windows step of the document speaks, the missing KBs are installed, the machine boots once."""
    host = mixed.hosts("win")[0]
    mixed.patch(host, operation="Scan")
    mixed.advance(120)
    missing = [row["KBId"] for row in mixed.patches(host, "Missing")]
    assert missing
    assert all(name.startswith("KB") for name in missing)
    command = mixed.patch(host, Parameters={"RebootOption": ["RebootIfNeeded"]})
    mixed.advance(1200)
    row = mixed.ssm.get_command_invocation(CommandId=command, InstanceId=host, PluginName="PatchWindows")
    assert row["Status"] == "Success"
    assert "exit code 3010" in row["StandardOutputContent"]
    silent = mixed.ssm.get_command_invocation(CommandId=command, InstanceId=host, PluginName="PatchLinux")
    assert silent["StandardOutputContent"] == ""
    state = mixed.patch_state(host)
    assert (state["MissingCount"], state["FailedCount"], state["InstalledPendingRebootCount"]) == (0, 0, 0)
    assert set(missing) <= {row["KBId"] for row in mixed.patches(host, "Installed")}
    assert mixed.events(host).count("reboot_begun") == 1
    names = {entry["Name"]: entry for entry in rows(mixed, command)[0]["CommandPlugins"]}
    assert "unsatisfied preconditions" in names["PatchLinux"]["Output"]
    assert "unsatisfied" not in names["PatchWindows"]["Output"]


def rows(aws, command):
    return aws.ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"]


def test_an_install_without_reboot_leaves_windows_pending(mixed):
    host = mixed.hosts("win")[0]
    mixed.patch(host, Parameters={"RebootOption": ["NoReboot"]})
    mixed.advance(600)
    assert mixed.patch_state(host)["InstalledPendingRebootCount"] >= 1
    assert "reboot_begun" not in mixed.events(host)


def test_a_document_for_both_platforms_runs_on_each_its_own_step(mixed):
    """User guide, "Schemas, features, and examples": preconditions choose, and a skipped step is a success."""
    content = {
        "schemaVersion": "2.2",
        "mainSteps": [
            {
                "name": f"on{platform}",
                "action": action,
                "precondition": {"StringEquals": ["platformType", platform]},
                "inputs": {"runCommand": [f"echo {platform}"]},
            }
            for platform, action in (("Windows", "aws:runPowerShellScript"), ("Linux", "aws:runShellScript"))
        ],
    }
    mixed.ssm.create_document(Name="both", Content=json.dumps(content), DocumentType="Command", DocumentFormat="JSON")
    everyone = [*mixed.hosts("win"), *mixed.hosts("lin")]
    command = mixed.ssm.send_command(DocumentName="both", InstanceIds=everyone)["Command"]["CommandId"]
    mixed.advance(60)
    assert set(mixed.details(command).values()) == {"Success"}
    told = {row["InstanceId"]: {step["Name"]: step["Output"] for step in row["CommandPlugins"]} for row in rows(mixed, command)}
    windows, linux = told[mixed.hosts("win")[0]], told[mixed.hosts("lin")[0]]
    assert windows["onWindows"] == "Windows\n"
    assert "skipped" in windows["onLinux"]
    assert linux["onLinux"] == "Linux\n"
    assert "skipped" in linux["onWindows"]


@pytest.mark.parametrize("value", ["soon", "0", "172801"])
def test_an_execution_timeout_must_be_seconds_up_to_two_days(mixed, value):
    with pytest.raises(ClientError) as refused:
        mixed.ssm.send_command(
            DocumentName="AWS-RunShellScript",
            InstanceIds=mixed.hosts("lin"),
            Parameters={"commands": ["echo"], "executionTimeout": [value]},
        )
    assert refused.value.response["Error"]["Code"] == "InvalidParameters"


@pytest.mark.parametrize("script", ["if (", "1,2", 'echo "open', "}", "@{a=1}", "foreach ($i in 1) { echo $i }", "$", "(((", "`"])
def test_what_powershell_cannot_parse_is_an_error_of_the_script(script):
    """Never an exception of the simulator."""
    assert powershell.run(script, {}).exit_code in (0, 1)
