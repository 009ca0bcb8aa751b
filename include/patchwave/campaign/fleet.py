"""Who is there, and who can be patched?

`patchwave.aws` merges EC2, SSM and Auto Scaling facts into `Host` values; the plan and the rollout ask this module what
they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from patchwave.campaign.values import Cell, HostId


class InstanceState(StrEnum):
    """EC2's instance states."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


class Ping(StrEnum):
    """What Systems Manager says of the agent; its word lags reality by up to five minutes."""

    ONLINE = "Online"
    CONNECTION_LOST = "ConnectionLost"
    INACTIVE = "Inactive"
    UNMANAGED = "Unmanaged"  # our word for "Systems Manager does not list the instance"


class Readiness(StrEnum):
    """Whether a command can reach a host now."""

    READY = "ready"
    STOPPED = "stopped"
    UNREACHABLE = "unreachable"
    TERMINATED = "terminated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """One EC2 instance as EC2, Systems Manager and Auto Scaling see it together.

    Attributes:
        platform: Systems Manager's name and version (``Amazon Linux 2023``, ``Ubuntu 22.04``); ``unknown`` if unmanaged.
        zone: Availability Zone.
        group: Auto Scaling group it belongs to.
        group_state: its lifecycle state there (``InService``); None outside a group.
        group_health: Auto Scaling's ``HEALTHY`` or ``UNHEALTHY``; None outside a group.
        target_groups: names of the target groups that it is registered in, as far as somebody asked.
        last_ping: when the agent was last heard of.
        launched: when EC2 started it last.
    """

    id: HostId
    cell: Cell
    name: str
    state: InstanceState
    ping: Ping
    platform: str = "unknown"
    zone: str = ""
    image: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    group_state: str | None = None
    group_health: str | None = None
    target_groups: tuple[str, ...] = ()
    last_ping: datetime | None = None
    agent_version: str = ""
    launched: datetime | None = None

    @property
    def patch_group(self) -> str | None:
        """The tag that binds a host to a patch baseline, in either of its two spellings."""
        return self.tags.get("Patch Group") or self.tags.get("PatchGroup")


def readiness(host: Host) -> Readiness:
    """Whether `host` can be patched now.

    A stopped instance is not unreachable: somebody stopped it, and it comes back unpatched, which the report must say.
    """
    match host.state:
        case InstanceState.TERMINATED | InstanceState.SHUTTING_DOWN:
            return Readiness.TERMINATED
        case InstanceState.STOPPED | InstanceState.STOPPING:
            return Readiness.STOPPED
        case InstanceState.RUNNING | InstanceState.PENDING:
            return Readiness.READY if host.ping is Ping.ONLINE else Readiness.UNREACHABLE


def why_not(host: Host) -> str:
    """One sentence: why `host` cannot be patched now; empty if it can."""
    match readiness(host):
        case Readiness.READY:
            return ""
        case Readiness.STOPPED:
            return "the instance is stopped; it will come back unpatched"
        case Readiness.TERMINATED:
            return f"the instance is {host.state.value}"
        case Readiness.UNREACHABLE if host.ping is Ping.UNMANAGED:
            return "Systems Manager does not know the instance: agent, instance profile or network is missing"
        case Readiness.UNREACHABLE:
            seen = f", last heard of at {host.last_ping:%Y-%m-%d %H:%M} UTC" if host.last_ping else ""
            return f"the agent does not answer ({host.ping.value}{seen})"


GONE = (("ec2", "gone"),)
"""What is said of the health of a host that EC2 does not have any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether a host serves as it should.

    Attributes:
        healthy: every check that applies said yes.
        checks: ``(name, answer)`` of each, e.g. ``("ec2", "ok")``, ``("ssm", "ConnectionLost")``.
    """

    host: HostId
    healthy: bool
    checks: tuple[tuple[str, str], ...]

    @property
    def gone(self) -> bool:
        """EC2 does not have it any more."""
        return self.checks == GONE

    def __str__(self) -> str:
        return f"{self.host}: " + ", ".join(f"{name} {answer}" for name, answer in self.checks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """An Auto Scaling group or a target group with everybody who serves in it, whoever patches them.

    Attributes:
        domain: its name as a failure domain.
        members: hosts that serve in it or ought to; who is stopped, in standby or draining is none.
        unhealthy: members that do not serve now, by that service's word.
        minimum: members that have to serve at any time; 0 where nobody said so.
        says: where `minimum` comes from, for people (``MinSize 45``).
    """

    domain: str
    members: frozenset[HostId]
    unhealthy: frozenset[HostId] = frozenset()
    minimum: int = 0
    says: str = ""


def group_domain(cell: Cell, name: str) -> str:
    """An Auto Scaling group as a failure domain."""
    return f"asg:{cell}/{name}"


def target_domain(cell: Cell, name: str) -> str:
    """A target group as a failure domain; its name is unique within account and region."""
    return f"target:{cell}/{name}"


def stage_domain(stage: str) -> str:
    """The whole stage as a failure domain."""
    return f"stage:{stage}"


def failure_domains(host: Host, *, stage: str) -> tuple[str, ...]:
    """Everything whose availability a disruption of `host` puts at risk: its Auto Scaling group, each target group that it
    is registered in, its Availability Zone within the stage, and the stage. It counts in all of them at once."""
    return (
        *([group_domain(host.cell, host.group)] if host.group else ()),
        *(target_domain(host.cell, name) for name in sorted(host.target_groups)),
        *([f"zone:{stage}/{host.cell.account}/{host.zone}"] if host.zone else ()),
        stage_domain(stage),
    )


def by_id(hosts: Iterable[Host]) -> dict[HostId, Host]:
    """Hosts by their id."""
    return {host.id: host for host in hosts}
