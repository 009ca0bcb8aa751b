"""How does a host's root volume come to be kept, and to be put back? EC2's snapshots and root volume replacements.

CreateSnapshot takes no client token, so the token of ours is a tag that is given with the call, and `snapshots_of` finds the
snapshot again. A replacement takes a client token: the second call names the first one's task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from patchwave.aws.calls import Calls, chunks
from patchwave.aws.errors import code_of
from patchwave.aws.inventory import LARGEST_FILTER, LARGEST_INSTANCES_PAGE
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.snapshots import Disk, State
from patchwave.campaign.values import Cell, HostId, RunId

RUN_TAG, TOKEN_TAG, KEEP_TAG = "patchwave:run", "patchwave:token", "patchwave:keep-until"
GONE = "InvalidSnapshot.NotFound"

_STATES = {"pending": State.PENDING, "recovering": State.PENDING, "completed": State.COMPLETED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A snapshot as EC2 has it.

    Attributes:
        why: what EC2 says of one that failed.
    """

    id: str
    token: str
    volume: str
    state: State
    why: str = ""


class TaskState(StrEnum):
    """Where a replacement stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the host has its old root volume
    DETACHED = "failed-detached"  # it has none


@dataclass(frozen=True, kw_only=True, slots=True)
class Replacement:
    """A root volume replacement as EC2 has it.

    Attributes:
        status: EC2's own word.
        completed: when it ended, by EC2's clock; None while it runs.
    """

    id: str
    host: HostId
    state: TaskState
    status: str
    snapshot: str = ""
    completed: datetime | None = None


_TASKS = {
    "succeeded": TaskState.SUCCEEDED,
    "failed": TaskState.FAILED,
    "failed-detached": TaskState.DETACHED,
}


class RootVolumes(Calls):
    """Root volumes, their snapshots and their replacements."""

    def root_volumes(self, cell: Cell, hosts: Iterable[HostId]) -> tuple[Disk, ...]:
        """The root volumes of these hosts; one that EC2 does not list is absent."""
        rows: dict[HostId, Mapping[str, Any]] = {}
        for some in chunks(hosts, LARGEST_FILTER):
            filters = [{"Name": "instance-id", "Values": list(some)}]
            for page in self.pages(cell, "ec2:DescribeInstances", Filters=filters, MaxResults=LARGEST_INSTANCES_PAGE):
                for reservation in page.get("Reservations", ()):
                    rows |= {HostId(row["InstanceId"]): row for row in reservation.get("Instances", ())}
        roots = {host: _root(row) for host, row in sorted(rows.items())}
        volumes = self._volumes(cell, [volume for volume in roots.values() if volume])
        return tuple(_disk(host, roots[host], row, volumes.get(roots[host], {})) for host, row in sorted(rows.items()))

    def _volumes(self, cell: Cell, ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        return {
            row["VolumeId"]: row
            for some in chunks(ids, LARGEST_FILTER)
            for page in self.pages(
                cell, "ec2:DescribeVolumes", Filters=[{"Name": "volume-id", "Values": list(some)}], MaxResults=LARGEST_FILTER
            )
            for row in page.get("Volumes", ())
        }

    def create_snapshot(self, cell: Cell, *, volume: str, host: HostId, run: RunId, token: str, keep: datetime) -> Snapshot:
        """Begin a snapshot of a volume; ask `snapshots_of` before doing so again.

        Raises:
            OutcomeUnknown: the answer was lost.
        """
        tags = {"Name": f"{host} before patching", RUN_TAG: run, TOKEN_TAG: token, KEEP_TAG: f"{keep:%Y-%m-%dT%H:%M:%SZ}"}
        answer = self.call(
            cell,
            "ec2:CreateSnapshot",
            VolumeId=volume,
            Description=f"Root volume of {host} before it was patched by {run}"[:255],
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": _tags(tags)}],
        )
        return _snapshot({"Tags": _tags(tags), **answer})

    def snapshots_of(self, cell: Cell, run: RunId) -> dict[str, Snapshot]:
        """All snapshots of ours for a run, by token; of two with the same token the older one, as `StartTime` says."""
        rows = [
            row
            for page in self.pages(
                cell, "ec2:DescribeSnapshots", OwnerIds=["self"], Filters=[{"Name": f"tag:{RUN_TAG}", "Values": [run]}],
                MaxResults=LARGEST_INSTANCES_PAGE,
            )
            for row in page.get("Snapshots", ())
        ]  # fmt: skip
        rows.sort(key=lambda row: row["StartTime"], reverse=True)
        return {one.token: one for one in map(_snapshot, rows) if one.token}

    def delete_snapshot(self, cell: Cell, id: str) -> None:
        """Delete a snapshot; nothing if it is gone."""
        try:
            self.call(cell, "ec2:DeleteSnapshot", SnapshotId=id)
        except InvalidRequest as error:
            if code_of(error) != GONE:
                raise

    def replace_root_volume(self, cell: Cell, *, host: HostId, snapshot: str, run: RunId, token: str) -> Replacement:
        """Have a host's root volume replaced by one made from a snapshot; it reboots. The same token is the same task.

        The volume from before is kept, detached: somebody may want to look at what broke.

        Raises:
            OutcomeUnknown: the answer was lost; the same call again is safe.
        """
        answer = self.call(
            cell,
            "ec2:CreateReplaceRootVolumeTask",
            InstanceId=host,
            SnapshotId=snapshot,
            ClientToken=token,
            DeleteReplacedRootVolume=False,
            TagSpecifications=[{
                "ResourceType": "replace-root-volume-task", "Tags": _tags({RUN_TAG: run, TOKEN_TAG: token}),
            }],
        )  # fmt: skip
        return _replacement(answer["ReplaceRootVolumeTask"])

    def replacements(self, cell: Cell, ids: Iterable[str]) -> dict[str, Replacement]:
        """How these replacements stand, by id; one that EC2 does not list is absent."""
        return {one.id: one for some in chunks(ids, LARGEST_FILTER) for one in self._replacements(cell, some)}

    def _replacements(self, cell: Cell, ids: Iterable[str]) -> Iterator[Replacement]:
        for page in self.pages(cell, "ec2:DescribeReplaceRootVolumeTasks", ReplaceRootVolumeTaskIds=list(ids)):
            yield from map(_replacement, page.get("ReplaceRootVolumeTasks", ()))


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value[:256]} for key, value in tags.items()]


def _root(row: Mapping[str, Any]) -> str:
    device = row.get("RootDeviceName")
    for one in row.get("BlockDeviceMappings", ()):
        if one.get("DeviceName") == device and one.get("Ebs", {}).get("VolumeId"):
            return str(one["Ebs"]["VolumeId"])
    return ""


def _disk(host: HostId, volume: str, row: Mapping[str, Any], facts: Mapping[str, Any]) -> Disk:
    return Disk(
        host=host, volume=volume, device=row.get("RootDeviceName", ""), gib=facts.get("Size", 0),
        made_from=facts.get("SnapshotId", ""),
    )  # fmt: skip


def _snapshot(row: Mapping[str, Any]) -> Snapshot:
    tags = {tag["Key"]: tag.get("Value", "") for tag in row.get("Tags", ())}
    return Snapshot(
        id=row["SnapshotId"],
        token=tags.get(TOKEN_TAG, ""),
        volume=row.get("VolumeId", ""),
        state=_STATES.get(row.get("State", ""), State.ERROR),
        why=row.get("StateMessage", ""),
    )


def _replacement(row: Mapping[str, Any]) -> Replacement:
    status = row.get("TaskState", "")
    ended = row.get("CompleteTime")
    state = _TASKS.get(status, TaskState.RUNNING)
    return Replacement(
        id=row["ReplaceRootVolumeTaskId"],
        host=HostId(row["InstanceId"]),
        state=state,
        status=status,
        snapshot=row.get("SnapshotId", ""),
        completed=_moment(ended) if ended else None,
    )


def _moment(value: Any) -> datetime:
    """EC2's model calls CompleteTime a string."""
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
