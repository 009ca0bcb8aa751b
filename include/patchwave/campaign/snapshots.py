"""Which hosts could come back after an in-place patch, how, and what does it cost to be able to?

The policy says whether a snapshot is taken before patches are installed; `ways` says of each host of a stage what that gives it,
before anybody approves. The stage's task takes snapshots (`execution.snapshots`), the campaign
`rollback` uses them (`campaign.rollback`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from patchwave.campaign.definition import Timeout, written_duration
from patchwave.campaign.document import Part
from patchwave.campaign.values import Cell, HostId, RunId, StageName

TOKENS = uuid.UUID("0e9a7a44-52f9-5b0c-8d3c-1f2f6f0a9d11")
"""Namespace of snapshot tokens: one for a host of a run, wherever it is computed."""
MONTH = timedelta(days=30)


class Before(StrEnum):
    """Before what a snapshot is taken."""

    IN_PLACE = "in_place"  # before patches are installed on a host


class Until(StrEnum):
    """How far a snapshot must be before patches are installed."""

    PENDING = "pending"  # AWS has taken the moment; its data is still copied
    COMPLETED = "completed"  # it can be restored


class Snapshots(Part):
    """Snapshots of root volumes before hosts are patched in place."""

    before: Annotated[Before, Field(description="Before what: `in_place`, before patches are installed on a host.")]
    keep: Annotated[Timeout, Field(
        description="How long a snapshot is kept, with unit; then the DAG `snapshot_retention` deletes it, unless a rollback "
        "that has not ended uses it. Default 7d: what a patch broke shows within a working week.",
    )] = timedelta(days=7)  # fmt: skip
    until: Annotated[Until, Field(
        description="How far it must be before patches are installed. `completed`: AWS can restore it; it takes minutes, of a "
        "large volume hours, in which the host serves and holds no place. `pending`: its moment is fixed, and whether it will "
        "complete is not known. Default completed: a way back that may not exist is none.",
    )] = Until.COMPLETED  # fmt: skip
    timeout: Annotated[Timeout, Field(
        description="How long that is waited for, with unit; a host without its snapshot by then is not patched, and says so. "
        "Default 2h: AWS's own waiter of ten minutes is too short for large volumes.",
    )] = timedelta(hours=2)  # fmt: skip
    price: Annotated[float, Field(
        ge=0,
        description="US dollars for a GiB and month, for the estimate in the plan. Default 0.05: standard tier in us-east-1 "
        "(AWS, Amazon EBS pricing, snapshots); put in your region's.",
    )] = 0.05  # fmt: skip


class Way(StrEnum):
    """How a host comes back."""

    ROOT_VOLUME = "root_volume"  # its root volume is replaced by one from its snapshot
    NONE = "none"


WORDS: Mapping[Way, str] = {
    Way.ROOT_VOLUME: "root volume from its snapshot",
    Way.NONE: "none",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """A host's root volume, as EC2 has it.

    Attributes:
        volume: empty where the root device is no volume (instance store).
        gib: its size; 0 where nobody has said.
        made_from: the snapshot that it was made from; empty for none.
    """

    host: HostId
    volume: str
    device: str = ""
    gib: int = 0
    made_from: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostWay:
    """The way back of one host.

    Attributes:
        why: why there is none, or what it takes to go it.
        snapshot: that its root volume is made from; empty while none has been taken.
    """

    host: HostId
    way: Way
    why: str
    gib: int = 0
    snapshot: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaysBack:
    """What a plan says of a stage beforehand.

    Attributes:
        snapshots: whether they are taken before hosts are patched.
        cost: US dollars at most, of all snapshots for as long as they are kept; None without any.
    """

    hosts: tuple[HostWay, ...]
    snapshots: bool = False
    keep: timedelta = timedelta()
    cost: float | None = None

    def __str__(self) -> str:
        others = [f"{one.host}: {WORDS[one.way]} ({one.why})" for one in self.hosts if one.way is not Way.ROOT_VOLUME]
        return " ".join((*sentences(self), *others))

    def without(self, hosts: Iterable[HostId]) -> WaysBack:
        """The same for fewer hosts."""
        out = frozenset(hosts)
        left = tuple(one for one in self.hosts if one.host not in out)
        before = sum(one.gib for one in self.hosts)
        cost = self.cost * sum(one.gib for one in left) / before if self.cost and before else self.cost
        return WaysBack(
            hosts=left, snapshots=self.snapshots, keep=self.keep, cost=None if cost is None else round(cost, 2)
        )


def ways(hosts: Iterable[HostId], disks: Mapping[HostId, Disk], rule: Snapshots) -> WaysBack:
    """The way back of each host of a stage that is patched in place.

    Args:
        disks: those whose root volume AWS has told of.
        rule: what the policy says of snapshots.
    """
    found = tuple(_way(host, disks.get(host)) for host in hosts)
    cost = round(sum(one.gib for one in found) * rule.price * (rule.keep / MONTH), 2)
    return WaysBack(hosts=found, snapshots=True, keep=rule.keep, cost=cost)


def _way(host: HostId, disk: Disk | None) -> HostWay:
    if disk is not None and disk.volume:
        why = "a reboot; what was written to its root volume since is lost"
        return HostWay(host=host, way=Way.ROOT_VOLUME, gib=disk.gib, why=why)
    why = "its root device is no EBS volume" if disk is not None else "EC2 does not say what its root volume is"
    return HostWay(host=host, way=Way.NONE, why=f"{why}, and without a snapshot it is not patched")


def sentences(back: WaysBack) -> tuple[str, ...]:
    """What a person is told of a stage before it is approved."""
    counted = [
        f"{sum(1 for one in back.hosts if one.way is way)} {WORDS[way]}"
        for way in Way
        if any(one.way is way for one in back.hosts)
    ]
    told = [f"Way back: {', '.join(counted) or 'no host'}."]
    if back.snapshots:
        gib = sum(one.gib for one in back.hosts)
        told.append(
            f"Snapshots: of {gib} GiB of root volumes, kept for {written_duration(back.keep)}, at most about {back.cost:.2f} US "
            "dollars (full size; AWS stores changed blocks). Each is taken when its host's turn has come, which takes minutes "
            "that the times of this plan do not count."
        )
    return tuple(told)


# --- snapshots that were taken ------------------------------------------------------------------------------------------


def document(stage: str) -> str:
    """Name of the document of a run in which a stage's snapshots stand."""
    return f"snapshots:{stage}"


def token(run: RunId, stage: StageName, host: HostId) -> str:
    """Names the one snapshot of a host in a run."""
    return uuid.uuid5(TOKENS, f"{run}|{stage}|{host}").hex


class State(StrEnum):
    """Where a snapshot stands between us and AWS."""

    INTENDED = "intended"  # the call may or may not have been made
    PENDING = "pending"
    COMPLETED = "completed"
    ERROR = "error"
    DELETED = "deleted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A snapshot of one host before its Install, as the ledger has it.

    Attributes:
        token: its tag in AWS, by which it is found again.
        since: since when it is wanted.
        intended_at: when the call was made last, or was about to be.
        id: AWS's; empty until it is known.
        why: what AWS says of one that failed.
        keep_until: when nobody needs it any more.
    """

    host: HostId
    cell: Cell
    token: str
    volume: str
    gib: int
    state: State
    since: datetime
    intended_at: datetime
    keep_until: datetime
    id: str = ""
    why: str = ""


_MOMENTS = ("since", "intended_at", "keep_until")


def enough(rule: Snapshots) -> frozenset[State]:
    """States in which a snapshot lets its host be patched."""
    return frozenset({State.COMPLETED} if rule.until is Until.COMPLETED else {State.COMPLETED, State.PENDING})


def to_json(taken: Iterable[Taken]) -> list[dict[str, Any]]:
    """As the ledger stores them."""
    return [
        asdict(one)
        | {"cell": str(one.cell), "state": one.state.value, **{name: getattr(one, name).isoformat() for name in _MOMENTS}}
        for one in taken
    ]  # fmt: skip


def from_json(content: Iterable[Mapping[str, Any]]) -> dict[HostId, Taken]:
    """What `to_json` wrote, by host."""
    return {
        HostId(one["host"]): Taken(**{
            **one, "host": HostId(one["host"]), "cell": Cell.parse(one["cell"]), "state": State(one["state"]),
            **{name: datetime.fromisoformat(one[name]) for name in _MOMENTS},
        })
        for one in content
    }  # fmt: skip
