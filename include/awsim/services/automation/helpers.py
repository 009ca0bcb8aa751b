"""What do the functions do that AWS's own runbooks bring along as Lambda helpers?

Each takes world, execution and payload, and gives the seconds it takes and its outputs.
"""

from collections.abc import Callable
from typing import Any

from awsim import inside
from awsim.host import Change
from awsim.services.automation.executions import Execution
from awsim.services.automation.selectors import select
from awsim.world import World

Helper = Callable[[World, Execution, dict[str, Any]], tuple[float, dict[str, list[str]]]]


class HelperFailed(Exception):
    """The function raised."""


def _ask(world: World, execution: Execution, service: str, operation: str, **params: Any) -> dict[str, Any]:
    return inside.ask(world, execution.account, execution.region, service, operation, params)


def root_volume(world: World, execution: Execution, payload: dict[str, Any]) -> tuple[float, dict[str, list[str]]]:
    """The volume that an instance boots from."""
    answer = _ask(world, execution, "ec2", "DescribeInstances", InstanceIds=[payload["InstanceId"]])
    instance = select(answer, "$.Reservations[0].Instances[0]")[0]
    device = instance.get("RootDeviceName") or "/dev/sda1"
    mappings = instance.get("BlockDeviceMappings") or []
    volume = next((row["Ebs"]["VolumeId"] for row in mappings if row["DeviceName"] == device), None)
    if volume is None:
        volume = mappings[0]["Ebs"]["VolumeId"] if mappings else None
        device = mappings[0]["DeviceName"] if mappings else device
    if volume is None:
        raise HelperFailed(f"The instance {payload['InstanceId']} has no root volume.")
    zone = instance["Placement"]["AvailabilityZone"]
    return 2.0, {"RootVolumeId": [volume], "RootDevice": [device], "AvailabilityZone": [zone]}


def restore_root_volume(world: World, execution: Execution, payload: dict[str, Any]) -> tuple[float, dict[str, list[str]]]:
    """Stop, put a volume made from the snapshot in the root volume's place, start; the packages are those of the snapshot."""
    identifier = payload["InstanceId"]
    _, root = root_volume(world, execution, payload)
    (snapshot,) = _ask(world, execution, "ec2", "DescribeSnapshots", SnapshotIds=[payload["SnapshotId"]])["Snapshots"]
    taken = float(payload["TakenAt"]) if payload.get("TakenAt") else world.now
    step = execution.step("createRootVolumeSnapshot")
    if step is not None and step.started is not None:
        taken = step.started
    _ask(world, execution, "ec2", "StopInstances", InstanceIds=[identifier])
    volume = _ask(
        world,
        execution,
        "ec2",
        "CreateVolume",
        SnapshotId=snapshot["SnapshotId"],
        AvailabilityZone=root["AvailabilityZone"][0],
    )["VolumeId"]
    _ask(world, execution, "ec2", "DetachVolume", VolumeId=root["RootVolumeId"][0], InstanceId=identifier)
    _ask(world, execution, "ec2", "AttachVolume", VolumeId=volume, InstanceId=identifier, Device=root["RootDevice"][0])
    host = world.host(execution.account, execution.region, identifier)
    if host is not None:
        before = host.levels_at(taken)
        for package, level in list(host.levels.items()):
            if before.get(package, level) != level:
                host.changes.append(Change(at=world.now, package=package, before=level, after=before[package]))
                host.levels[package] = before[package]
    _ask(world, execution, "ec2", "StartInstances", InstanceIds=[identifier])
    return 90.0, {"VolumeId": [volume]}


def target_groups(world: World, execution: Execution, payload: dict[str, Any]) -> tuple[float, dict[str, list[str]]]:
    """The target groups in which an instance is registered; it must be healthy in all of them."""
    identifier = payload["InstanceId"]
    found = []
    for group in _ask(world, execution, "elbv2", "DescribeTargetGroups").get("TargetGroups") or []:
        rows = _ask(world, execution, "elbv2", "DescribeTargetHealth", TargetGroupArn=group["TargetGroupArn"])
        for row in rows.get("TargetHealthDescriptions") or []:
            if row["Target"]["Id"] == identifier:
                state = row.get("TargetHealth", {}).get("State")
                if state not in ("healthy", "unused"):
                    raise HelperFailed(f"The instance {identifier} is {state} in {group['TargetGroupArn']}.")
                found.append(f"{group['TargetGroupArn']} {row['Target'].get('Port', group.get('Port', 80))}")
    if not found:
        raise HelperFailed(f"The instance {identifier} is in no target group.")
    return 3.0, {"TargetGroups": found}


def _targets(payload: dict[str, Any]) -> list[tuple[str, int]]:
    given = payload["TargetGroups"]
    rows = [str(row).rsplit(" ", 1) for row in (given if isinstance(given, list) else [given])]
    return [(arn, int(port)) for arn, port in rows]


def deregister(world: World, execution: Execution, payload: dict[str, Any]) -> tuple[float, dict[str, list[str]]]:
    for arn, port in _targets(payload):
        target = {"Id": payload["InstanceId"], "Port": port}
        _ask(world, execution, "elbv2", "DeregisterTargets", TargetGroupArn=arn, Targets=[target])
    return 2.0, {}


def register(world: World, execution: Execution, payload: dict[str, Any]) -> tuple[float, dict[str, list[str]]]:
    for arn, port in _targets(payload):
        target = {"Id": payload["InstanceId"], "Port": port}
        _ask(world, execution, "elbv2", "RegisterTargets", TargetGroupArn=arn, Targets=[target])
    return 2.0, {}


HELPERS: dict[str, Helper] = {
    "AWS-PatchInstanceWithRollback-IdentifyRootVolume": root_volume,
    "AWS-PatchInstanceWithRollback-RestoreRootVolume": restore_root_volume,
    "AWSEC2-PatchLoadBalancerInstance-FindTargetGroups": target_groups,
    "AWSEC2-PatchLoadBalancerInstance-Deregister": deregister,
    "AWSEC2-PatchLoadBalancerInstance-Register": register,
}
