"""AWS-RunPatchBaseline: what Scan and Install find, change, upload and reboot."""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import FEW


def test_an_install_leaves_nothing_missing_and_reboots_the_host(aws):
    """RebootIfNeeded reboots whenever anything was installed."""
    host = aws.hosts("web")[0]
    missing = {row["KBId"] for row in aws.patches(host, "Missing")}
    assert {"kernel.x86_64", "expat.x86_64"} <= missing
    command = aws.patch(host)
    aws.advance(600)
    assert aws.details(command) == {host: "Success"}
    state = aws.patch_state(host)
    assert (state["MissingCount"], state["FailedCount"], state["Operation"]) == (0, 0, "Install")
    installed = {line["package"] for line in aws.journal() if line["event"] == "package_installed"}
    assert {f"{name}.x86_64" for name in installed} | {f"{name}.noarch" for name in installed} >= missing
    assert aws.events(host)[0] == "command_begun"
    assert aws.events(host)[-5:] == ["out_of_service", "reboot_begun", "reboot_ended", "command_ended", "in_service"]


def test_the_patch_state_is_uploaded_before_the_reboot(aws):
    """So it says nothing of whether the host came back."""
    host = aws.hosts("web")[0]
    command = aws.patch(host)
    aws.advance(130)
    assert "reboot_begun" in aws.events(host)
    assert aws.details(command) == {host: "InProgress"}
    assert aws.patch_state(host)["MissingCount"] == 0


def test_a_scan_replaces_the_last_result_and_changes_nothing(aws):
    """There is no time series: who needs the state of before must have kept it."""
    host = aws.hosts("web")[0]
    before = aws.patch_state(host)
    aws.patch(host, operation="Scan", Parameters={"SnapshotId": ["521c3536-930c-4aa9-950e-01234567abcd"]})
    aws.advance(60)
    after = aws.patch_state(host)
    assert after["SnapshotId"] == "521c3536-930c-4aa9-950e-01234567abcd"
    assert after["OperationEndTime"] > before["OperationEndTime"]
    assert after["MissingCount"] == before["MissingCount"] > 0
    assert aws.events(host) == ["command_begun", "command_ended"]


def test_a_host_that_was_never_scanned_has_no_row(aws):
    """Absent is unknown, not compliant; and an unknown id is no error."""
    hosts = [aws.hosts("odd")[3], "i-0123456789abcdef0"]
    assert aws.ssm.describe_instance_patch_states(InstanceIds=hosts)["InstancePatchStates"] == []


def test_without_reboot_patches_are_pending_until_a_reboot_and_a_later_scan(aws):
    """The reboot alone changes no row."""
    host = aws.hosts("web")[0]
    count = aws.patch_state(host)["MissingCount"]
    aws.patch(host, Parameters={"RebootOption": ["NoReboot"]})
    aws.advance(300)
    state = aws.patch_state(host)
    assert (state["MissingCount"], state["InstalledPendingRebootCount"]) == (0, count)
    assert state["LastNoRebootInstallOperationTime"] is not None
    aws.patch(host, operation="Scan")
    aws.advance(60)
    assert aws.patch_state(host)["InstalledPendingRebootCount"] == count
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(300)
    assert aws.patch_state(host)["InstalledPendingRebootCount"] == count
    aws.patch(host, operation="Scan")
    aws.advance(60)
    assert aws.patch_state(host)["InstalledPendingRebootCount"] == 0


def test_an_install_with_nothing_to_do_does_not_reboot(aws):
    """Already compliant hosts stay up."""
    host = aws.hosts("odd")[4]
    command = aws.patch(host)
    aws.advance(60)
    assert aws.details(command) == {host: "Success"}
    assert aws.events(host) == ["command_begun", "command_ended"]


def test_a_failing_install_fails_as_often_as_the_world_says(aws):
    """Exit code 1, rows Failed, no reboot; the second attempt works."""
    host = aws.hosts("odd")[3]
    command = aws.patch(host)
    aws.advance(600)
    assert aws.details(command) == {host: "Failed"}
    assert aws.patch_state(host)["FailedCount"] == 3
    assert "reboot_begun" not in aws.events(host)
    again = aws.patch(host)
    aws.advance(600)
    assert aws.details(again) == {host: "Success"}
    assert aws.patch_state(host)["FailedCount"] == 0


def test_an_early_failure_leaves_no_patch_data(aws):
    """Codes from 126 on end the payload before it uploads."""
    host = aws.hosts("web")[0]
    before = aws.patch_state(host)
    aws.control("faults", {"kind": "install_fails", "host": host, "exit_code": 156, "times": 1})
    command = aws.patch(host)
    aws.advance(600)
    invocation = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)
    assert (invocation["Status"], invocation["ResponseCode"]) == ("Failed", 156)
    assert aws.patch_state(host) == before


def test_a_reboot_that_never_returns_looks_like_work_in_progress(aws):
    """Until the total time-out; the ping tells earlier, but five minutes late."""
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "reboot_never_returns", "host": host})
    command = aws.patch(host, TimeoutSeconds=60)

    def ping() -> str:
        (row,) = aws.ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [host]}])[
            "InstanceInformationList"
        ]
        return str(row["PingStatus"])

    aws.advance(200)
    assert (aws.details(command)[host], ping()) == ("InProgress", "Online")
    aws.advance(300)
    assert (aws.details(command)[host], ping()) == ("InProgress", "ConnectionLost")
    aws.advance(3600)
    assert aws.details(command)[host] == "DeliveryTimedOut"


def test_rows_are_spelled_as_on_the_wire(aws):
    """The model's enum is upper case, AWS's answers are not; missing rows carry CVE ids and the epoch as installation time."""
    host = aws.hosts("web")[0]
    row = next(row for row in aws.patches(host, "Missing") if row["KBId"] == "expat.x86_64")
    assert row["State"] == "Missing"
    assert row["InstalledTime"].timestamp() == 0
    assert row["CVEIds"] == "CVE-2024-45490,CVE-2024-45491,CVE-2024-45492"
    assert (row["Classification"], row["Severity"]) == ("Security", "Critical")
    other = aws.patches(host, "InstalledOther")[0]
    assert (other["Title"], other["Classification"], other["Severity"]) == ("", "", "")


def test_counts_and_rows_agree(aws):
    """The state's counters are the rows counted."""
    host = aws.hosts("web")[0]
    state = aws.patch_state(host)
    for count, name in [("InstalledCount", "Installed"), ("MissingCount", "Missing"), ("InstalledOtherCount", "InstalledOther")]:
        assert state[count] == len(aws.patches(host, name))


def test_with_the_default_baseline_the_critical_count_is_always_zero(aws):
    """Its compliance level is UNSPECIFIED: a gate on the critical count would silently pass."""
    host = aws.hosts("odd")[3]
    aws.patch(host, operation="Scan")
    aws.advance(60)
    state = aws.patch_state(host)
    assert state["MissingCount"] == 3
    assert (state["CriticalNonCompliantCount"], state["SecurityNonCompliantCount"]) == (0, 3)
    assert aws.patch_state(aws.hosts("web")[0])["PatchGroup"] == "web"


def test_a_snapshot_freezes_what_is_approved(start):
    """An update that appears between two waves with one snapshot id is installed by neither; another snapshot has it."""
    world = FEW.replace("timings:", "catalogue: {appears: {ALAS2023-2024-794: 1000}}\ntimings:", 1)
    aws = start(world)
    first, second, third, _ = aws.hosts("web")
    snapshot = {"SnapshotId": ["521c3536-930c-4aa9-950e-01234567abcd"]}
    aws.patch(first, Parameters=snapshot)
    aws.advance(2000)
    aws.patch(second, Parameters=snapshot)
    aws.patch(third)
    aws.advance(600)
    kernels = {line["host"]: line["version"] for line in aws.journal() if line.get("package") == "kernel"}
    assert kernels == {
        first: "0:6.1.115-126.197.amzn2023",
        second: "0:6.1.115-126.197.amzn2023",
        third: "0:6.1.119-129.201.amzn2023",
    }


def test_an_override_list_in_a_bucket_limits_what_is_installed(aws):
    """Compliance is still judged by the baseline, so the rest stays Missing."""
    host = aws.hosts("web")[0]
    s3 = aws.client("s3", "us-east-1")
    s3.create_bucket(Bucket="lists")
    s3.put_object(Bucket="lists", Key="wave.yaml", Body=b"patches:\n  - id: 'expat*'\n")
    count = aws.patch_state(host)["MissingCount"]
    aws.patch(host, Parameters={"InstallOverrideList": ["s3://lists/wave.yaml"]})
    aws.advance(600)
    assert [line["package"] for line in aws.journal() if line["event"] == "package_installed"] == ["expat"]
    state = aws.patch_state(host)
    assert (state["MissingCount"], state["InstallOverrideList"]) == (count - 1, "s3://lists/wave.yaml")


def test_an_override_list_that_is_not_there_fails_the_run(aws):
    """Exit code 156: a download problem, and nothing is installed."""
    host = aws.hosts("web")[0]
    command = aws.patch(host, Parameters={"InstallOverrideList": ["s3://nowhere/wave.yaml"]})
    aws.advance(60)
    assert aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)["ResponseCode"] == 156
    assert "package_installed" not in aws.events(host)


def test_patch_states_of_a_group_are_filtered_by_counts(aws):
    """Exactly one value; a key that is no counter is refused."""
    rows = aws.ssm.describe_instance_patch_states_for_patch_group(
        PatchGroup="web", Filters=[{"Key": "MissingCount", "Values": ["0"], "Type": "GreaterThan"}]
    )["InstancePatchStates"]
    assert {row["InstanceId"] for row in rows} == set(aws.hosts("web"))
    with pytest.raises(ClientError, match="InvalidFilter"):
        aws.ssm.describe_instance_patch_states_for_patch_group(
            PatchGroup="web", Filters=[{"Key": "Colour", "Values": ["0"], "Type": "Equal"}]
        )


def test_baselines_are_found_by_group_and_by_default(aws):
    """Windows is the default operating system of the question, as in AWS."""
    own = aws.ssm.get_patch_baseline_for_patch_group(PatchGroup="web", OperatingSystem="AMAZON_LINUX_2023")["BaselineId"]
    told = aws.ssm.get_patch_baseline(BaselineId=own)
    assert (told["Name"], told["PatchGroups"]) == ("all-al2023", ["web"])
    other = aws.ssm.get_patch_baseline_for_patch_group(PatchGroup="web", OperatingSystem="UBUNTU")["BaselineId"]
    assert aws.ssm.get_patch_baseline(BaselineId=other)["Name"] == "AWS-UbuntuDefaultPatchBaseline"
    assert aws.ssm.get_patch_baseline_for_patch_group(PatchGroup="web")["OperatingSystem"] == "WINDOWS"
    created = aws.ssm.create_patch_baseline(Name="mine", OperatingSystem="UBUNTU")["BaselineId"]
    aws.ssm.register_patch_baseline_for_patch_group(BaselineId=created, PatchGroup="web")
    assert aws.ssm.get_patch_baseline_for_patch_group(PatchGroup="web", OperatingSystem="UBUNTU")["BaselineId"] == created
