"""Does each host serve as it should? EC2's status checks, the agent's ping, Auto Scaling's view.

`patchwave.operators` asks after a stage was patched, and while it soaks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from patchwave.aws.calls import chunks
from patchwave.aws.errors import code_of
from patchwave.aws.inventory import Inventory, ping_of
from patchwave.campaign.errors import HostsRefused
from patchwave.campaign.fleet import GONE, Health, Ping
from patchwave.campaign.values import Cell, HostId

LARGEST_STATUS = 100
"""EC2 API reference, DescribeInstanceStatus: at most 100 explicitly specified ids."""
CHECKS = ("ec2", "ssm", "autoscaling")
"""The campaign file's words."""


class HealthChecks(Inventory):
    """Health of hosts."""

    def health(self, cell: Cell, ids: Iterable[HostId], checks: Collection[str] = CHECKS) -> tuple[Health, ...]:
        """How each of these hosts does, in their order.

        A host that EC2 does not know or has terminated is unhealthy under any choice of checks; a host of no Auto Scaling
        group passes that check.

        Args:
            checks: which of `CHECKS` to ask for; every one of them must say yes.
        """
        wanted = list(dict.fromkeys(ids))
        statuses: dict[HostId, Mapping[str, Any]] = {}
        for some in chunks(wanted, LARGEST_STATUS):
            statuses.update(self._instance_statuses(cell, some))
        managed = self.pings(cell, wanted) if "ssm" in checks else {}
        members = self.group_members(cell, wanted) if "autoscaling" in checks else {}

        def judged(host: HostId) -> Health:
            status = statuses.get(host)
            if status is None or status["InstanceState"]["Name"] in {"terminated", "shutting-down"}:
                return Health(host=host, healthy=False, checks=GONE)
            answers = []
            if "ec2" in checks:
                answers.append(("ec2", *_ec2(status)))
            if "ssm" in checks:
                ping = ping_of(managed.get(host))
                answers.append(("ssm", ping.value, ping is Ping.ONLINE))
            if "autoscaling" in checks:
                answers.append(("autoscaling", *_autoscaling(members.get(host))))
            return Health(
                host=host,
                healthy=all(good for _, _, good in answers),
                checks=tuple((name, said) for name, said, _ in answers),
            )

        return tuple(judged(host) for host in wanted)

    def _instance_statuses(self, cell: Cell, ids: Collection[HostId]) -> dict[HostId, Mapping[str, Any]]:
        """EC2's status of these; where one is unknown to it AWS refuses the whole call, so the rest is asked in halves."""
        try:
            return {
                HostId(row["InstanceId"]): row
                for page in self.pages(cell, "ec2:DescribeInstanceStatus", InstanceIds=list(ids), IncludeAllInstances=True)
                for row in page.get("InstanceStatuses", ())
            }
        except HostsRefused as error:
            if code_of(error) != "InvalidInstanceID.NotFound":
                raise
            if len(ids) == 1:
                return {}
            some = list(ids)
            half = len(some) // 2
            return self._instance_statuses(cell, some[:half]) | self._instance_statuses(cell, some[half:])


def _ec2(status: Mapping[str, Any]) -> tuple[str, bool]:
    state = status["InstanceState"]["Name"]
    if state != "running":
        return state, False
    system = status.get("SystemStatus", {}).get("Status", "unknown")
    instance = status.get("InstanceStatus", {}).get("Status", "unknown")
    if system == instance == "ok":
        return "ok", True
    return f"system {system}, instance {instance}", False


def _autoscaling(member: Mapping[str, Any] | None) -> tuple[str, bool]:
    if member is None:
        return "no group", True
    state, health = member.get("LifecycleState", "unknown"), member.get("HealthStatus", "unknown").upper()
    return f"{state} {health}", state == "InService" and health == "HEALTHY"
