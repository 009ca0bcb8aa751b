"""Patching documents with steps of their own, alarms that stop a command, and targets by resource group."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import FEW
from tests.simulator.test_ssm_baselines import RULE, code, made

HOOKS = "AWS-RunPatchBaselineWithHooks"


def hook(aws, name, *lines):
    content = {
        "schemaVersion": "2.2",
        "mainSteps": [{"action": "aws:runShellScript", "name": "hook", "inputs": {"runCommand": list(lines)}}],
    }
    aws.ssm.create_document(Name=name, Content=json.dumps(content), DocumentType="Command")
    return name


def hooked(aws, host, operation="Install", **parameters):
    sent = aws.ssm.send_command(
        DocumentName=HOOKS,
        InstanceIds=[host],
        Parameters={"Operation": [operation], **{name: [value] for name, value in parameters.items()}},
    )
    return sent["Command"]["CommandId"]


def steps(aws, command, host):
    (row,) = aws.ssm.list_command_invocations(CommandId=command, InstanceId=host, Details=True)["CommandInvocations"]
    return row["CommandPlugins"]


def test_hooks_run_before_and_after_the_install_and_after_the_reboot(aws):
    """Eight steps; the post-install hook runs before the reboot, the last one after it."""
    host = aws.hosts("web")[0]
    names = {
        "PreInstallHookDocName": hook(aws, "Before", "echo before"),
        "PostInstallHookDocName": hook(aws, "After", "echo after"),
        "OnExitHookDocName": hook(aws, "Leaving", "echo leaving"),
    }
    command = hooked(aws, host, **names)
    aws.advance(160)
    assert aws.patch_state(host)["InstalledPendingRebootCount"] > 0
    aws.advance(400)
    assert aws.details(command) == {host: "Success"}
    rows = steps(aws, command, host)
    assert len(rows) == 8
    assert [rows[number]["Output"].strip() for number in (2, 4, 7)] == ["before", "after", "leaving"]
    events = aws.events(host)
    assert events.count("reboot_begun") == 1
    assert rows[4]["ResponseFinishDateTime"] < rows[6]["ResponseFinishDateTime"] <= rows[7]["ResponseStartDateTime"]
    state = aws.patch_state(host)
    assert (state["MissingCount"], state["InstalledPendingRebootCount"], state["RebootOption"]) == (0, 0, "RebootIfNeeded")
    answer = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host, PluginName="PreInstallHook")
    assert answer["StandardOutputContent"] == "before\n"


def test_a_failing_hook_jumps_to_the_exit_hook_and_the_skipped_steps_say_success(aws):
    """So the steps alone do not tell whether anything was installed."""
    host = aws.hosts("web")[0]
    missing = aws.patch_state(host)["MissingCount"]
    command = hooked(aws, host, PreInstallHookDocName=hook(aws, "Refuses", "echo no", "exit 3"))
    aws.advance(600)
    assert aws.details(command) == {host: "Failed"}
    rows = steps(aws, command, host)
    assert [row["Status"] for row in rows] == ["Success", "Success", "Failed", *["Success"] * 5]
    assert aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)["ResponseCode"] == 3
    assert aws.patch_state(host)["MissingCount"] == missing
    assert "package_installed" not in aws.events(host)


def test_a_hook_must_not_reboot(aws):
    """The exit code that asks the agent for a reboot fails the step; a document that is missing does, too."""
    first, second = aws.hosts("web")[:2]
    commands = {
        first: hooked(aws, first, PreInstallHookDocName=hook(aws, "Reboots", "exit 194")),
        second: hooked(aws, second, PreInstallHookDocName="Nowhere"),
    }
    aws.advance(600)
    for host, command in commands.items():
        assert aws.details(command) == {host: "Failed"}
        assert "reboot_begun" not in aws.events(host)


def test_without_reboot_the_hooks_document_leaves_patches_pending(aws):
    """Step six jumps to the exit hook."""
    host = aws.hosts("web")[0]
    command = hooked(aws, host, RebootOption="NoReboot")
    aws.advance(600)
    assert aws.details(command) == {host: "Success"}
    assert "reboot_begun" not in aws.events(host)
    assert aws.patch_state(host)["InstalledPendingRebootCount"] > 0


def test_a_scan_with_hooks_runs_no_hook(aws):
    """It ends with the second step."""
    host = aws.hosts("web")[0]
    command = hooked(aws, host, "Scan", OnExitHookDocName=hook(aws, "Never", "echo never"))
    aws.advance(60)
    assert aws.details(command) == {host: "Success"}
    assert all("never" not in row["Output"] for row in steps(aws, command, host))


def test_a_failed_install_reports_its_step_and_still_runs_the_exit_hook(aws):
    """Nothing is rebooted then."""
    host = aws.hosts("odd")[3]
    aws.patch(host, operation="Scan")
    aws.advance(60)
    command = hooked(aws, host)
    aws.advance(600)
    assert aws.details(command) == {host: "Failed"}
    rows = steps(aws, command, host)
    assert (rows[3]["Status"], rows[6]["Status"], rows[7]["Status"]) == ("Failed", "Success", "Success")
    assert "reboot_begun" not in aws.events(host)


def test_the_hooks_document_takes_no_override_list(aws):
    """Its parameters are its own."""
    with pytest.raises(ClientError) as refused:
        hooked(aws, aws.hosts("web")[0], InstallOverrideList="s3://bucket/list.yaml")
    assert code(refused) == "InvalidParameters"


def test_the_association_document_writes_compliance_of_type_association_and_no_patch_data(aws):
    """Its baseline is the one that carries the tag; patch groups do not count."""
    host = aws.hosts("web")[0]
    before = aws.patch_state(host)
    tagged = made(aws, name="tagged", system="AMAZON_LINUX_2023", rules=[RULE], Tags=[{"Key": "For", "Value": "nightly"}])
    association = "3e5d5694-cd07-40f0-bbea-040e60000000"
    sent = aws.ssm.send_command(
        DocumentName="AWS-RunPatchBaselineAssociation",
        InstanceIds=[host],
        Parameters={"Operation": ["Scan"], "BaselineTags": ["Key=For,Values=nightly"], "AssociationId": [association]},
    )
    aws.advance(60)
    assert aws.details(sent["Command"]["CommandId"]) == {host: "Success"}
    assert aws.patch_state(host) == before
    (item,) = aws.ssm.list_compliance_items(
        ResourceIds=[host], ResourceTypes=["ManagedInstance"], Filters=[{"Key": "ComplianceType", "Values": ["Association"]}]
    )["ComplianceItems"]
    assert (item["Id"], item["Status"], item["Details"]["PatchBaselineId"]) == (association, "NON_COMPLIANT", tagged)


def alarm(aws, state):
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="shop-errors",
        Namespace="Shop",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName="shop-errors", StateValue=state, StateReason="test")


def test_an_alarm_stops_what_has_not_begun(aws):
    """What runs goes on to its end; the command tells which alarm it was."""
    alarm(aws, "OK")
    hosts = aws.hosts("web")
    command = aws.patch(
        *hosts, MaxConcurrency="1", AlarmConfiguration={"Alarms": [{"Name": "shop-errors"}], "IgnorePollAlarmFailure": False}
    )
    aws.advance(60)
    alarm(aws, "ALARM")
    aws.advance(600)
    details = aws.details(command)
    assert sorted(details.values()) == ["Cancelled", "Cancelled", "Cancelled", "Success"]
    (row,) = aws.ssm.list_commands(CommandId=command)["Commands"]
    assert row["TriggeredAlarms"] == [{"Name": "shop-errors", "State": "ALARM"}]
    assert row["Status"] == "Cancelled"


def test_an_alarm_that_cannot_be_read_stops_a_command_unless_that_is_to_be_ignored(aws):
    """The default is the careful one."""
    host, other = aws.hosts("web")[:2]
    alarms = [{"Name": "nobody-made-it"}]
    stopped = aws.patch(host, operation="Scan", AlarmConfiguration={"Alarms": alarms})
    goes_on = aws.patch(other, operation="Scan", AlarmConfiguration={"Alarms": alarms, "IgnorePollAlarmFailure": True})
    aws.advance(60)
    (row,) = aws.ssm.list_commands(CommandId=stopped)["Commands"]
    assert (row["Status"], row["TriggeredAlarms"][0]["State"]) == ("Cancelled", "UNKNOWN")
    assert aws.details(goes_on) == {other: "Success"}


def test_a_resource_group_is_a_target(aws):
    """Its tag filters choose the nodes; a group that does not exist chooses nobody."""
    query = {
        "ResourceTypeFilters": ["AWS::EC2::Instance"],
        "TagFilters": [{"Key": "PatchGroup", "Values": ["web"]}],
    }
    aws.client("resource-groups").create_group(
        Name="web-hosts", ResourceQuery={"Type": "TAG_FILTERS_1_0", "Query": json.dumps(query)}
    )

    def targeted(name):
        sent = aws.ssm.send_command(
            DocumentName="AWS-RunShellScript",
            Targets=[{"Key": "resource-groups:Name", "Values": [name]}],
            Parameters={"commands": ["echo here"]},
        )
        return sent["Command"]["CommandId"]

    command, empty = targeted("web-hosts"), targeted("other")
    aws.advance(60)
    assert set(aws.details(command)) == set(aws.hosts("web"))
    assert aws.status(empty) == "NoInstancesInTag"
    with pytest.raises(ClientError) as refused:
        aws.ssm.send_command(
            DocumentName="AWS-RunShellScript",
            Targets=[{"Key": "resource-groups:Name", "Values": ["a", "b"]}],
            Parameters={"commands": ["echo here"]},
        )
    assert code(refused) == "ValidationException"


def test_a_baseline_override_is_read_from_s3_and_uploads_nothing(start):
    """Two baselines for one operating system are one too many; an address outside S3 is refused in the host's words."""
    aws = start(FEW)
    host = aws.hosts("web")[0]
    before = aws.patch_state(host)
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="lists", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    one = {
        "name": "only-security",
        "operatingSystem": "AMAZON_LINUX_2023",
        "approvalRules": {"PatchRules": [RULE]},
    }
    s3.put_object(Bucket="lists", Key="one.json", Body=json.dumps([one, {**one, "operatingSystem": "UBUNTU"}]))
    s3.put_object(Bucket="lists", Key="two.json", Body=json.dumps([one, one]))
    good = aws.patch(host, operation="Scan", Parameters={"BaselineOverride": ["s3://lists/one.json"]})
    aws.advance(60)
    assert aws.details(good) == {host: "Success"}
    assert aws.patch_state(host) == before
    for url, said in (("s3://lists/two.json", "more than one baseline"), ("https://example.com/list.json", "S3")):
        command = aws.patch(host, operation="Scan", Parameters={"BaselineOverride": [url]})
        aws.advance(60)
        assert aws.details(command) == {host: "Failed"}
        answer = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host, PluginName="PatchLinux")
        assert said in answer["StandardOutputContent"]


def test_a_host_that_does_not_come_back_stays_in_the_seventh_step(aws):
    """Until the command's time is over."""
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "reboot_never_returns", "host": host})
    command = hooked(aws, host)
    aws.advance(1200)
    assert aws.details(command) == {host: "InProgress"}
    assert [row["Status"] for row in steps(aws, command, host)][5:] == ["Success", "InProgress", "Pending"]


def test_cancelled_hooks_end_with_their_command(aws):
    """Steps that were cut short or never came are Cancelled; nothing is rebooted."""
    host = aws.hosts("web")[0]
    command = hooked(aws, host)
    aws.advance(10)
    aws.ssm.cancel_command(CommandId=command)
    aws.advance(600)
    assert aws.details(command) == {host: "Cancelled"}
    assert {row["Status"] for row in steps(aws, command, host)} == {"Cancelled"}
    assert aws.events(host) == ["command_begun", "command_ended"]
