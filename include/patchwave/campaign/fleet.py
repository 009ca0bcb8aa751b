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
        last_ping: when the agent was last heard of.
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
    last_ping: datetime | None = None
    agent_version: str = ""

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

    def __str__(self) -> str:
        return f"{self.host}: " + ", ".join(f"{name} {answer}" for name, answer in self.checks)


def failure_domain(host: Host, *, stage: str) -> str:
    """The group whose availability a disruption of `host` puts at risk: its Auto Scaling group, else the stage."""
    return f"asg:{host.cell}/{host.group}" if host.group else f"stage:{stage}"


def by_id(hosts: Iterable[Host]) -> dict[HostId, Host]:
    """Hosts by their id."""
    return {host.id: host for host in hosts}
