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


def lay_down(aws, name, *entries, account=None):
    """An InstallOverrideList in a bucket, of (id, title) pairs; its address."""
    credentials = {"aws_access_key_id": account} if account else {}
    s3 = aws.client("s3", "us-east-1", **credentials)
    s3.create_bucket(Bucket=f"lists-{name}")
    lines = [f"  - id: '{patch}'\n" + (f"    title: '{title}'\n" if title else "") for patch, title in entries]
    s3.put_object(Bucket=f"lists-{name}", Key="wave.yaml", Body=("patches:\n" + "".join(lines)).encode())
    return f"s3://lists-{name}/wave.yaml"


def installed_by(aws, host):
    """Package and version, as the journal has it."""
    return {line["package"]: line["version"] for line in aws.journal() if line["host"] == host and "version" in line}


KERNELS = ("0:6.1.115-126.197.amzn2023", "0:6.1.119-129.201.amzn2023")


@pytest.mark.parametrize(
    "title",
    [
        f"kernel.x86_64:{KERNELS[0]}", KERNELS[0], "6.1.115-126.197.amzn2023", "*6.1.115-*", "kernel.x86_64:0:*126.197*",
    ],
)  # fmt: skip
def test_a_title_pins_the_version_though_a_newer_one_is_there(aws, title):
    """Whole, without the name, and with wildcards in any position, as AWS's own sample lists have them."""
    host = aws.hosts("web")[0]
    aws.patch(host, Parameters={"InstallOverrideList": [lay_down(aws, "pin", ("kernel.x86_64", title))]})
    aws.advance(600)
    assert installed_by(aws, host) == {"kernel": KERNELS[0]}


def test_a_newer_version_than_the_listed_one_is_still_missing(aws):
    """Compliance is the baseline's: after a perfect Install of the list the host is NON_COMPLIANT all the same."""
    host = aws.hosts("web")[0]
    aws.patch(host, Parameters={"InstallOverrideList": [lay_down(aws, "pin", ("kernel.x86_64", f"*{KERNELS[0]}"))]})
    aws.advance(600)
    (row,) = [row for row in aws.patches(host, "Missing") if row["KBId"] == "kernel.x86_64"]
    assert row["Title"] == f"kernel.x86_64:{KERNELS[1]}"


def test_a_list_never_goes_back_and_brings_nothing_that_was_not_there(aws):
    """The package manager updates; a package that the host does not have is no update."""
    host, other = aws.hosts("web")[:2]
    aws.patch(host, Parameters={"InstallOverrideList": [lay_down(aws, "new", ("kernel.x86_64", f"*{KERNELS[1]}"))]})
    aws.advance(900)
    both = lay_down(aws, "old", ("kernel.x86_64", f"*{KERNELS[0]}"), ("podman.x86_64", None))
    aws.patch(host, Parameters={"InstallOverrideList": [both]})
    aws.patch(other, Parameters={"InstallOverrideList": [both]})
    aws.advance(900)
    assert installed_by(aws, host) == {"kernel": KERNELS[1]}
    assert installed_by(aws, other) == {"kernel": KERNELS[0]}


def test_a_listed_update_that_was_withdrawn_is_no_failure(start):
    """Between Dev and Prod it vanished from the repositories: the run installs the rest and succeeds, and its report asks for
    nothing. Only a look at the versions finds it."""
    aws = start(FEW)
    host = aws.hosts("web")[0]
    listed = lay_down(aws, "gone", ("expat.x86_64", "expat.x86_64:0:2.6.3-1.amzn2023.0.1"), ("kernel.x86_64", f"*{KERNELS[0]}"))
    aws.control("faults", {"kind": "update_withdrawn", "advisory": "ALAS2023-2024-729"})
    command = aws.patch(host, Parameters={"InstallOverrideList": [listed]})
    aws.advance(600)
    invocation = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)
    assert (invocation["Status"], invocation["ResponseCode"]) == ("Success", 0)
    assert installed_by(aws, host) == {"kernel": KERNELS[0]}
    assert not any(
        row["KBId"] == "expat.x86_64" for state in ("Missing", "Failed", "Installed") for row in aws.patches(host, state)
    )
    (row,) = [row for row in aws.patches(host, "InstalledOther") if row["KBId"] == "expat.x86_64"]
    assert row["Title"] == ""


def test_the_build_that_replaced_a_listed_one_is_no_substitute_for_it(start):
    """The baseline gets the next build of the package; the list, which names the one before, nothing."""
    aws = start(FEW)
    by_baseline, by_list = aws.hosts("web")[:2]
    listed = lay_down(aws, "replaced", ("kernel.x86_64", f"kernel.x86_64:{KERNELS[0]}"))
    aws.control("faults", {"kind": "update_withdrawn", "advisory": "ALAS2023-2024-766"})
    aws.patch(by_baseline)
    aws.patch(by_list, Parameters={"InstallOverrideList": [listed]})
    aws.advance(900)
    assert installed_by(aws, by_baseline)["kernel"] == KERNELS[1]
    assert installed_by(aws, by_list) == {}


WELL = FEW.replace("      - {host: 4, install_fails: {exit_code: 1, times: 1}}\n", "")


def test_one_list_serves_two_operating_systems(start):
    """Each host takes what its package manager has; apt writes no epoch of zero."""
    aws = start(WELL)
    amazon, ubuntu = aws.hosts("web")[0], aws.hosts("odd")[3]
    aws.patch(ubuntu, operation="Scan")
    aws.advance(60)
    wanted = aws.patches(ubuntu, "Missing")[0]
    assert ":0:" not in wanted["Title"]
    both = lay_down(aws, "both", (wanted["KBId"], wanted["Title"]), ("kernel.x86_64", f"*{KERNELS[0]}"))
    aws.patch(amazon, ubuntu, Parameters={"InstallOverrideList": [both]})
    aws.advance(600)
    assert installed_by(aws, amazon) == {"kernel": KERNELS[0]}
    assert list(installed_by(aws, ubuntu)) == [wanted["KBId"].rpartition(".")[0]]


def test_on_windows_a_title_is_for_people(start):
    """The KB number names the update, whatever stands beside it."""
    aws = start(WELL.replace("{os: ubuntu-24.04,", "{os: windows-server-2022,"))
    host = aws.hosts("odd")[3]
    aws.patch(host, operation="Scan")
    aws.advance(1200)
    wanted = aws.patches(host, "Missing")[0]["KBId"]
    aws.patch(host, Parameters={"InstallOverrideList": [lay_down(aws, "kb", (wanted, "a title that nobody gave"))]})
    aws.advance(7200)
    assert {line["advisory"] for line in aws.journal() if line["host"] == host and "version" in line} == {wanted}


@pytest.mark.parametrize(
    "address", ["https://s3.us-east-1.amazonaws.com/lists-web/wave.yaml", "https://lists-web.s3.amazonaws.com/wave.yaml"]
)
def test_a_list_is_read_by_its_https_address_too(aws, address):
    """Path-style and host-style, as the guide has them."""
    lay_down(aws, "web", ("kernel.x86_64", f"*{KERNELS[0]}"))
    host = aws.hosts("web")[0]
    aws.patch(host, Parameters={"InstallOverrideList": [address]})
    aws.advance(600)
    assert installed_by(aws, host) == {"kernel": KERNELS[0]}
    assert aws.patch_state(host)["InstallOverrideList"] == address


def test_a_scan_does_not_read_the_list(aws):
    """Not even one that is not there."""
    host = aws.hosts("web")[0]
    command = aws.patch(host, operation="Scan", Parameters={"InstallOverrideList": ["s3://nowhere/wave.yaml"]})
    aws.advance(60)
    assert aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)["ResponseCode"] == 0


@pytest.mark.parametrize("text", [b"patches: [", b"- id: kernel.x86_64", b"patches: kernel.x86_64"])
def test_a_list_that_is_none_fails_the_run_and_installs_nothing(aws, text):
    """No YAML, no mapping, no list under ``patches``."""
    host = aws.hosts("web")[0]
    address = lay_down(aws, "bad")
    aws.client("s3", "us-east-1").put_object(Bucket="lists-bad", Key="wave.yaml", Body=text)
    command = aws.patch(host, Parameters={"InstallOverrideList": [address]})
    aws.advance(60)
    assert aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)["ResponseCode"] == 156
    assert installed_by(aws, host) == {}


def test_an_empty_list_installs_nothing(aws):
    """And not everything."""
    host = aws.hosts("web")[0]
    address = lay_down(aws, "none")
    aws.client("s3", "us-east-1").put_object(Bucket="lists-none", Key="wave.yaml", Body=b"patches: []")
    command = aws.patch(host, Parameters={"InstallOverrideList": [address]})
    aws.advance(600)
    assert aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)["ResponseCode"] == 0
    assert installed_by(aws, host) == {}


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
