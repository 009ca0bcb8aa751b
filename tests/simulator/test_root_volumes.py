"""Root volume replacement: the instance stays, and its disk is what the snapshot remembers."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import AMAZON, Aws

WORLD = (
    f"name: roots{AMAZON}"
    + """\
fleets:
  - {name: web, account: "111111111111", region: eu-central-1, count: 2, template: amazon, tags: {PatchGroup: web}}
"""
)


def root_of(aws: Aws, host: str) -> str:
    row = aws.ec2.describe_instances(InstanceIds=[host])["Reservations"][0]["Instances"][0]
    return next(one["Ebs"]["VolumeId"] for one in row["BlockDeviceMappings"] if one["DeviceName"] == row["RootDeviceName"])


def levels(aws: Aws, host: str) -> dict[str, int]:
    return dict(next(one for one in aws.simulator.world.all_hosts() if one.id == host).levels)


def saved(aws: Aws, host: str) -> str:
    snapshot: str = aws.ec2.create_snapshot(VolumeId=root_of(aws, host))["SnapshotId"]
    aws.advance(600)
    return snapshot


def task(aws: Aws, name: str) -> dict[str, Any]:
    found: dict[str, Any] = aws.ec2.describe_replace_root_volume_tasks(ReplaceRootVolumeTaskIds=[name])["ReplaceRootVolumeTasks"][
        0
    ]
    return found


def install(aws: Aws, host: str) -> None:
    parameters = {"Operation": ["Install"], "RebootOption": ["NoReboot"]}
    aws.ssm.send_command(DocumentName="AWS-RunPatchBaseline", InstanceIds=[host], Parameters=parameters)
    aws.advance(1800)


def test_the_disk_is_what_it_was_when_the_snapshot_was_begun(start: Any) -> None:
    """The same instance boots from another volume, and the one that it had is left, detached."""
    aws = start(WORLD)
    host = aws.hosts("web")[0]
    before, had = levels(aws, host), root_of(aws, host)
    snapshot = saved(aws, host)
    install(aws, host)
    assert levels(aws, host) != before
    made = aws.ec2.create_replace_root_volume_task(InstanceId=host, SnapshotId=snapshot, ClientToken="one")
    told = made["ReplaceRootVolumeTask"]
    assert told["TaskState"] == "pending"
    aws.advance(600)
    done = task(aws, told["ReplaceRootVolumeTaskId"])
    assert (done["TaskState"], done["SnapshotId"], done["InstanceId"]) == ("succeeded", snapshot, host)
    assert levels(aws, host) == before
    now = root_of(aws, host)
    volumes = {one["VolumeId"]: one for one in aws.ec2.describe_volumes(VolumeIds=[had, now])["Volumes"]}
    assert volumes[had]["Attachments"] == []
    assert volumes[now]["SnapshotId"] == snapshot
    events = aws.events(host)
    assert events.index("root_volume_replaced") < events.index("reboot_begun")


def test_the_same_token_is_the_same_task(start: Any) -> None:
    """And with other parameters it is refused."""
    aws = start(WORLD)
    host, other = aws.hosts("web")
    snapshot = saved(aws, host)
    first = aws.ec2.create_replace_root_volume_task(InstanceId=host, SnapshotId=snapshot, ClientToken="one")
    again = aws.ec2.create_replace_root_volume_task(InstanceId=host, SnapshotId=snapshot, ClientToken="one")
    assert first["ReplaceRootVolumeTask"]["ReplaceRootVolumeTaskId"] == again["ReplaceRootVolumeTask"]["ReplaceRootVolumeTaskId"]
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        aws.ec2.create_replace_root_volume_task(InstanceId=other, SnapshotId=snapshot, ClientToken="one")
    aws.advance(600)
    assert aws.events(host).count("root_volume_replaced") == 1


def test_a_snapshot_of_another_host_or_one_that_is_pending_is_refused(start: Any) -> None:
    """EC2 takes snapshots of the instance's own root volume only, and complete ones."""
    aws = start(WORLD)
    host, other = aws.hosts("web")
    pending = aws.ec2.create_snapshot(VolumeId=root_of(aws, host))["SnapshotId"]
    with pytest.raises(ClientError, match="IncorrectState"):
        aws.ec2.create_replace_root_volume_task(InstanceId=host, SnapshotId=pending)
    aws.advance(600)
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        aws.ec2.create_replace_root_volume_task(InstanceId=other, SnapshotId=pending)
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(600)
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        aws.ec2.create_replace_root_volume_task(InstanceId=host, SnapshotId=pending)


def test_one_that_never_came_back_from_a_reboot_comes_back_by_it(start: Any) -> None:
    """It is powered on anew, from a disk that boots."""
    aws = start(WORLD)
    host = aws.hosts("web")[0]
    snapshot = saved(aws, host)
    aws.control("faults", {"kind": "reboot_never_returns", "host": host, "times": 1})
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(1800)
    assert aws.events(host)[-1] == "reboot_begun"
    aws.ec2.create_replace_root_volume_task(InstanceId=host, SnapshotId=snapshot)
    aws.advance(1800)
    assert aws.events(host)[-1] == "in_service"


def test_what_an_install_has_bricked_comes_back_with_another_root_volume_only(start: Any) -> None:
    """Neither stop and start nor another reboot helps; who has not installed anything is well."""
    aws = start(WORLD)
    host, other = aws.hosts("web")
    snapshot = saved(aws, host)
    aws.control("faults", {"kind": "install_bricks", "host": host})
    aws.patch(host, other)
    aws.advance(1800)
    assert aws.events(host)[-1] == "reboot_begun"
    assert aws.events(other)[-1] in ("in_service", "command_ended")
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(600)
    aws.ec2.start_instances(InstanceIds=[host])
    aws.advance(1800)
    status = aws.ec2.describe_instance_status(InstanceIds=[host])["InstanceStatuses"][0]["InstanceStatus"]["Status"]
    assert status == "impaired"
    aws.ec2.create_replace_root_volume_task(InstanceId=host, SnapshotId=snapshot)
    aws.advance(1800)
    assert aws.events(host)[-1] == "in_service"
    assert aws.script(host, lines=["true"])


def test_without_a_snapshot_it_is_as_it_was_launched(start: Any) -> None:
    """What was installed since is gone; what lacked then lacks again."""
    aws = start(WORLD)
    host = aws.hosts("web")[0]
    before = levels(aws, host)
    install(aws, host)
    assert levels(aws, host) != before
    aws.ec2.create_replace_root_volume_task(InstanceId=host)
    aws.advance(1800)
    assert levels(aws, host) == before
