"""Machines of EC2: launched, imaged, snapshotted, rebooted; with and without a world."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import Aws


def refused(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return str(caught.value.response["Error"]["Code"])


def own_image(aws: Aws, platform: str = "amazon-linux-2023") -> str:
    """The world's image of a platform."""
    images = aws.ec2.describe_images(Owners=["self"])["Images"]
    return str(next(one["ImageId"] for one in images if one.get("Description") == f"awsim {platform}"))


def run(aws: Aws, image: str, *, profile: str | None = "awsim-managed-instance", **more: Any) -> str:
    given = {"IamInstanceProfile": {"Name": profile}} if profile else {}
    made = aws.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, **given, **more)["Instances"][0]
    return str(made["InstanceId"])


def nodes(aws: Aws) -> dict[str, dict[str, Any]]:
    pages = aws.ssm.get_paginator("describe_instance_information").paginate().build_full_result()
    return {row["InstanceId"]: row for row in pages["InstanceInformationList"]}


def missing(aws: Aws, *ids: str) -> list[int]:
    aws.patch(*ids, operation="Scan")
    aws.advance(120)
    rows = aws.ssm.describe_instance_patch_states(InstanceIds=list(ids))["InstancePatchStates"]
    return [row["MissingCount"] for row in rows]


@pytest.mark.parametrize(("platform", "name"), [("amazon-linux-2023", "Amazon Linux"), ("ubuntu-24.04", "Ubuntu")])
def test_an_instance_of_a_worlds_image_gets_os_packages_and_agent(aws, platform, name):
    """A managed node after a while, with something to patch."""
    host = run(aws, own_image(aws, platform))
    assert host not in nodes(aws)
    aws.advance(300)
    assert nodes(aws)[host]["PlatformName"] == name
    assert missing(aws, host)[0] > 0


def test_instances_of_one_image_lack_the_same_updates(aws):
    """An image is what it is."""
    hosts = [run(aws, own_image(aws)) for _ in range(3)]
    aws.advance(300)
    assert len(set(missing(aws, *hosts))) == 1


def test_an_image_of_a_patched_host_lacks_nothing(aws):
    """CreateImage keeps the packages of its moment, and reboots the host unless it is told not to."""
    host = aws.hosts("web")[0]
    aws.patch(host)
    aws.advance(900)
    rebooted = aws.events(host).count("reboot_begun")
    image = aws.ec2.create_image(InstanceId=host, Name="golden", NoReboot=True)["ImageId"]
    assert aws.events(host).count("reboot_begun") == rebooted
    assert aws.ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "pending"
    assert refused(aws.ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1) == "InvalidAMIID.Unavailable"
    aws.advance(301)
    assert aws.ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available"
    new = run(aws, image)
    aws.advance(300)
    assert missing(aws, new) == [0]
    aws.ec2.create_image(InstanceId=host, Name="another")
    assert aws.events(host).count("reboot_begun") == rebooted + 1


def test_a_copied_image_has_what_its_source_has(aws):
    """Also what nobody else has."""
    fresh = aws.ec2.register_image(Name="golden", RootDeviceName="/dev/xvda")["ImageId"]
    copy = aws.ec2.copy_image(SourceImageId=fresh, SourceRegion="eu-central-1", Name="copy")["ImageId"]
    hosts = [run(aws, fresh), run(aws, copy)]
    aws.advance(300)
    assert missing(aws, *hosts) == [0, 0]


def test_a_snapshot_is_pending_then_completed(aws):
    """Both forms; the waiter's state comes with time."""
    host = aws.hosts("web")[0]
    mapping = aws.ec2.describe_instances(InstanceIds=[host])["Reservations"][0]["Instances"][0]["BlockDeviceMappings"]
    volume = mapping[0]["Ebs"]["VolumeId"]
    one = aws.ec2.create_snapshot(VolumeId=volume)
    several = aws.ec2.create_snapshots(InstanceSpecification={"InstanceId": host})["Snapshots"]
    assert [one["State"], *(row["State"] for row in several)] == ["pending"] * (1 + len(several))
    ids = [one["SnapshotId"], *(row["SnapshotId"] for row in several)]
    aws.advance(30)
    rows = aws.ec2.describe_snapshots(SnapshotIds=ids)["Snapshots"]
    assert {row["State"] for row in rows} == {"pending"}
    assert all(0 < int(row["Progress"].rstrip("%")) < 100 for row in rows)
    done = [{"Name": "status", "Values": ["completed"]}, {"Name": "volume-id", "Values": [volume]}]
    assert not {row["SnapshotId"] for row in aws.ec2.describe_snapshots(Filters=done)["Snapshots"]} & set(ids)
    aws.advance(600)
    rows = aws.ec2.describe_snapshots(SnapshotIds=ids)["Snapshots"]
    assert {(row["State"], row["Progress"]) for row in rows} == {("completed", "100%")}


@pytest.mark.parametrize("operation", ["reboot_instances", "stop_instances", "start_instances", "terminate_instances"])
def test_ids_are_judged_by_their_form_first(aws, operation):
    """Malformed is not the same as not found."""
    call = getattr(aws.ec2, operation)
    assert refused(call, InstanceIds=["web-1"]) == "InvalidInstanceID.Malformed"
    assert refused(call, InstanceIds=["i-XYZ"]) == "InvalidInstanceID.Malformed"
    assert refused(call, InstanceIds=["i-0123456789abcdef0"]) == "InvalidInstanceID.NotFound"
    assert refused(aws.ec2.describe_instances, InstanceIds=["web-1"]) == "InvalidInstanceID.Malformed"
    assert refused(aws.ec2.describe_instance_status, InstanceIds=["web-1"]) == "InvalidInstanceID.Malformed"


def test_a_reboot_moves_boot_and_ping(aws):
    """Silent while it is down, and a later ping afterwards."""
    host = aws.hosts("web")[0]
    before = nodes(aws)[host]["LastPingDateTime"]
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(150)
    assert nodes(aws)[host]["LastPingDateTime"] > before
    (row,) = [one for one in aws.control("hosts")["hosts"] if one["host"] == host]
    assert (row["boots"], row["status_check"]) == (2, "ok")


def test_without_a_world_an_instance_with_a_profile_becomes_a_managed_node(start):
    """RunInstances is enough; one without a profile never does."""
    aws = start(None)
    iam = aws.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    image = aws.ec2.describe_images(Filters=[{"Name": "name", "Values": ["amzn2-ami-hvm-*"]}])["Images"][0]["ImageId"]
    managed, alone = run(aws, image, profile="node"), run(aws, image, profile=None)
    assert nodes(aws) == {}
    aws.advance(300)
    assert list(nodes(aws)) == [managed]
    command = aws.script(managed, lines=["echo here", "exit 4"])
    aws.advance(60)
    told = aws.ssm.get_command_invocation(CommandId=command, InstanceId=managed)
    assert (told["StandardOutputContent"], told["ResponseCode"]) == ("here\n", 4)
    assert alone not in nodes(aws)


def test_launch_template_versions_are_numbered_and_one_is_the_default(aws):
    """$Latest and $Default are resolved at launch."""
    first = own_image(aws)
    aws.ec2.create_launch_template(LaunchTemplateName="app", LaunchTemplateData={"ImageId": first, "InstanceType": "t3.micro"})
    second = aws.ec2.register_image(Name="golden", RootDeviceName="/dev/xvda")["ImageId"]
    made = aws.ec2.create_launch_template_version(
        LaunchTemplateName="app", SourceVersion="1", LaunchTemplateData={"ImageId": second}
    )["LaunchTemplateVersion"]
    assert (made["VersionNumber"], made["DefaultVersion"]) == (2, False)
    assert made["LaunchTemplateData"]["InstanceType"] == "t3.micro"
    aws.ec2.modify_launch_template(LaunchTemplateName="app", DefaultVersion="2")
    host = aws.ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateName": "app"})["Instances"][0]
    assert host["ImageId"] == second
