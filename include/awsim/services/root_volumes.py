"""EC2's root volume replacement: the instance keeps id, address and role, and boots from what a snapshot remembers.

What was on a host's disk when a snapshot was begun `ec2.Disks.saved` keeps. moto has no such tasks; the volumes themselves stay
moto's: a new one is made of the snapshot and attached in the place of the old one, which is left, detached, or deleted.
"""

from dataclasses import dataclass, field
from typing import Any

from awsim import groups
from awsim.clock import iso
from awsim.host import Change, Host
from awsim.journal import Cause, Event
from awsim.registry import AwsError, Context, operation
from awsim.services import ec2, elbv2
from awsim.world import World

TAKES = (30.0, 90.0)
"""Seconds until the volume is in its place; EC2 names no time, small roots took about a minute."""
ACTIVE = ("pending", "in-progress", "failing")


@dataclass(kw_only=True, slots=True)
class Task:
    id: str
    host: str
    snapshot: str | None
    image: str | None
    delete: bool
    tags: list[dict[str, str]]
    began: float
    state: str = "pending"
    completed: float | None = None

    def as_row(self) -> dict[str, Any]:
        return {
            "ReplaceRootVolumeTaskId": self.id,
            "InstanceId": self.host,
            "TaskState": self.state,
            "StartTime": iso(self.began),
            "CompleteTime": iso(self.completed) if self.completed is not None else None,
            "Tags": self.tags,
            "ImageId": self.image,
            "SnapshotId": self.snapshot,
            "DeleteReplacedRootVolume": self.delete,
        }


@dataclass(slots=True, eq=False)
class Tasks:
    by_id: dict[str, Task] = field(default_factory=dict)
    asked: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    """Client token -> what was asked with it, and the task."""


@operation("ec2", "CreateReplaceRootVolumeTask")
def create_replace_root_volume_task(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    tasks = ctx.state(Tasks)
    asked = {key: value for key, value in params.items() if key != "ClientToken"}
    token = params.get("ClientToken")
    if token in tasks.asked:
        before, known = tasks.asked[token]
        if before != asked:
            raise AwsError("IdempotentParameterMismatch", "The client token was used with other parameters before.")
        return {"ReplaceRootVolumeTask": tasks.by_id[known].as_row()}
    identifier = params["InstanceId"]
    host = ctx.world.host(ctx.account, ctx.region, identifier)
    if host is None or host.state == "terminated":
        raise AwsError("InvalidInstanceID.NotFound", f"The instance ID '{identifier}' does not exist")
    if host.state != "running":
        raise AwsError("IncorrectInstanceState", f"The instance '{identifier}' is not in the running state.")
    if any(task.host == identifier and task.state in ACTIVE for task in tasks.by_id.values()):
        raise AwsError("IncorrectState", f"A root volume replacement of instance '{identifier}' is in progress.")
    saved = _wanted(ctx, host, params)
    task = Task(
        id=f"replacevol-{ctx.random('replacevol', ctx.account, ctx.region, len(tasks.by_id)).getrandbits(68):017x}",
        host=identifier,
        snapshot=params.get("SnapshotId"),
        image=params.get("ImageId"),
        delete=bool(params.get("DeleteReplacedRootVolume")),
        tags=[tag for one in params.get("TagSpecifications") or [] for tag in one.get("Tags") or []],
        began=ctx.at,
    )
    tasks.by_id[task.id] = task
    if token:
        tasks.asked[token] = (asked, task.id)
    takes = ctx.random("replace root", identifier, len(tasks.by_id)).uniform(*TAKES) if elbv2.paced(ctx.world, host) else 0.0
    world, cause = ctx.world, Cause(request_id=ctx.request_id)

    def working(_: float) -> None:
        task.state = "in-progress"

    def replace(_: float) -> None:
        _replace(world, host, task, saved, cause)

    world.at(ctx.at + takes / 4, working)
    world.at(ctx.at + takes, replace)
    return {"ReplaceRootVolumeTask": task.as_row()}


def _wanted(ctx: Context, host: Host, params: dict[str, Any]) -> ec2.Saved:
    """What will be on the new root volume."""
    snapshot, image = params.get("SnapshotId"), params.get("ImageId")
    if snapshot and image:
        raise AwsError("InvalidParameterCombination", "SnapshotId and ImageId cannot be used together.")
    disks = ctx.state(ec2.Disks)
    if snapshot:
        found = groups.snapshot_volume(ctx.account, ctx.region, snapshot)
        if found is None:
            raise AwsError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot}' does not exist.")
        making = disks.snapshots.get(snapshot)
        if making is not None and ctx.at < making.ends:
            raise AwsError("IncorrectState", f"The snapshot '{snapshot}' is not completed.")
        saved = disks.saved.get(snapshot)
        if saved is None or saved.host != host.id:
            raise AwsError("InvalidParameterValue", f"The snapshot '{snapshot}' is none of the instance's root volume.")
        return saved
    if image is None:  # the state at launch
        return ec2.Saved(host=host.id, levels=host.levels_at(host.launched), files={})
    content = ec2.content(ctx.world, ctx.account, ctx.region, image)
    if content is None or content.template.os != host.platform.key:
        raise AwsError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist or does not fit the instance.")
    return ec2.Saved(host=host.id, levels=dict(content.levels), files={})


def _replace(world: World, host: Host, task: Task, saved: ec2.Saved, cause: Cause) -> None:
    """The volume is in its place, and the machine boots from it, whatever it was doing."""
    volume = None
    if host.state == "running":
        volume = groups.replace_root(host.account, host.region, host.id, task.snapshot, delete=task.delete)
    task.completed = world.now
    if volume is None:
        task.state = "failed"
        return
    task.state = "succeeded"
    host.changes += [
        Change(at=world.now, package=package, before=host.levels.get(package, 0), after=level)
        for package, level in saved.levels.items()
        if host.levels.get(package, 0) != level
    ]
    host.levels, host.files, host.bricked = dict(saved.levels), dict(saved.files), False
    host.image = task.image or host.image
    host.unbooted.clear()
    host.agent_dead = False
    world.record(host, Event.ROOT_VOLUME_REPLACED, cause=cause, snapshot=task.snapshot, image=task.image, volume=volume)
    host.rebooting = False  # one that never came back from a reboot is powered on anew
    world.reboot(host, cause=cause)


@operation("ec2", "DescribeReplaceRootVolumeTasks")
def describe_replace_root_volume_tasks(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    tasks = ctx.state(Tasks).by_id
    unknown = [one for one in params.get("ReplaceRootVolumeTaskIds") or [] if one not in tasks]
    if unknown:
        raise AwsError("InvalidReplaceRootVolumeTaskID.NotFound", f"The task ID '{unknown[0]}' does not exist")
    filters = {one["Name"]: one.get("Values") or [] for one in params.get("Filters") or []}
    if odd := sorted(set(filters) - {"instance-id"}):
        raise AwsError("InvalidParameterValue", f"The filter '{odd[0]}' is invalid")
    chosen = params.get("ReplaceRootVolumeTaskIds") or tasks
    rows = [tasks[one].as_row() for one in chosen if not filters or tasks[one].host in filters["instance-id"]]
    page, token = ctx.page(rows, params, default=50)
    return {"ReplaceRootVolumeTasks": page, "NextToken": token}
