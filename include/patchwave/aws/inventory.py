"""Who is there? EC2, Systems Manager and Auto Scaling merged into hosts.

EC2 says which instances exist; Systems Manager and Auto Scaling are then asked about those by id, which takes no more calls
than reading all that they know, and mostly fewer. Hybrid nodes (``mi-``) are no EC2 instances and are not seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any

from patchwave.aws.calls import Calls, chunks
from patchwave.aws.errors import code_of
from patchwave.campaign.errors import HostsRefused, InvalidRequest
from patchwave.campaign.fleet import Host, InstanceState, Ping
from patchwave.campaign.values import Cell, HostId

LARGEST_FILTER = 200
"""Values of one EC2 filter (EC2 user guide, "Filtering considerations": at most 200)."""
LARGEST_INSTANCES_PAGE = 1000
"""botocore model of ec2, DescribeInstances.MaxResults 5-1000, not together with InstanceIds."""
LARGEST_INFORMATION = 50
"""botocore model of ssm, DescribeInstanceInformation: a filter takes 100 values, a page holds 50, so 50 is one call."""
LARGEST_GROUP_MEMBERS = 50
"""Auto Scaling API reference, DescribeAutoScalingInstances: at most 50 ids, MaxRecords at most 50."""

_THERE = [state.value for state in InstanceState if state is not InstanceState.TERMINATED]


class Inventory(Calls):
    """Hosts."""

    def fleet(self, cell: Cell, tags: Mapping[str, Sequence[str]]) -> tuple[Host, ...]:
        """All hosts that carry every one of `tags` with one of its values, in any state but terminated, by id.

        Args:
            tags: values per key; EC2 reads ``*`` and ``?`` in a filter as wildcards, here they mean themselves.
        """
        filters = [{"Name": "instance-state-name", "Values": _THERE}]
        filters += [{"Name": f"tag:{key}", "Values": list(values)} for key, values in tags.items()]
        instances = self._instances(cell, filters)
        chosen = {
            host: row for host, row in instances.items() if all(_tags(row).get(key) in values for key, values in tags.items())
        }
        return self._merged(cell, chosen)

    def hosts(self, cell: Cell, ids: Iterable[HostId], *, groups: bool = True) -> tuple[Host, ...]:
        """These hosts, by id; one that EC2 has forgotten is absent, one just terminated is there as such.

        Args:
            groups: whether Auto Scaling is asked, too; if not, they are as if in no group.
        """
        found: dict[HostId, Mapping[str, Any]] = {}
        for some in chunks(ids, LARGEST_FILTER):
            # A filter, and not InstanceIds: there one id that is gone fails the whole call.
            found.update(self._instances(cell, [{"Name": "instance-id", "Values": list(some)}]))
        return self._merged(cell, found, groups=groups)

    def with_agents(self, cell: Cell, hosts: Iterable[Host]) -> tuple[Host, ...]:
        """These hosts as EC2 told of them a moment ago, with what Systems Manager says of their agents now."""
        known = {host.id: host for host in hosts}
        managed = self.pings(cell, known) if known else {}
        return tuple(replace(known[host], **_agent(managed.get(host))) for host in sorted(known))

    def pings(self, cell: Cell, ids: Iterable[HostId]) -> dict[HostId, Mapping[str, Any]]:
        """Systems Manager's rows of these hosts; absent are those that it does not manage, or that are stopped."""
        wanted = list(dict.fromkeys(ids))
        found: dict[HostId, Mapping[str, Any]] = {}
        try:
            for some in chunks(wanted, LARGEST_INFORMATION):
                found.update(self._information(cell, Filters=[{"Key": "InstanceIds", "Values": list(some)}]))
        except (HostsRefused, InvalidRequest) as error:
            # The model says that an id which is none of ours fails the call, and not which one: then read all there are.
            if code_of(error) not in {"InvalidInstanceId", "InvalidInstanceInformationFilterValue"}:
                raise
            found = self._information(cell)
        return {host: found[host] for host in wanted if host in found}

    def group_members(self, cell: Cell, ids: Iterable[HostId]) -> dict[HostId, Mapping[str, Any]]:
        """Auto Scaling's rows of these hosts; absent are those of no group."""
        return {
            HostId(row["InstanceId"]): row
            for some in chunks(ids, LARGEST_GROUP_MEMBERS)
            for page in self.pages(
                cell, "autoscaling:DescribeAutoScalingInstances", InstanceIds=list(some), MaxRecords=LARGEST_GROUP_MEMBERS
            )
            for row in page.get("AutoScalingInstances", ())
        }

    def _instances(self, cell: Cell, filters: Sequence[Mapping[str, Any]]) -> dict[HostId, Mapping[str, Any]]:
        return {
            HostId(row["InstanceId"]): row
            for page in self.pages(cell, "ec2:DescribeInstances", Filters=list(filters), MaxResults=LARGEST_INSTANCES_PAGE)
            for reservation in page.get("Reservations", ())
            for row in reservation.get("Instances", ())
        }

    def _information(self, cell: Cell, **chosen: Any) -> dict[HostId, Mapping[str, Any]]:
        return {
            HostId(row["InstanceId"]): row
            for page in self.pages(cell, "ssm:DescribeInstanceInformation", MaxResults=LARGEST_INFORMATION, **chosen)
            for row in page.get("InstanceInformationList", ())
        }

    def _merged(self, cell: Cell, instances: Mapping[HostId, Mapping[str, Any]], *, groups: bool = True) -> tuple[Host, ...]:
        if not instances:
            return ()
        managed = self.pings(cell, instances)
        members = self.group_members(cell, instances) if groups else {}
        return tuple(host_of(cell, host, instances[host], managed.get(host), members.get(host)) for host in sorted(instances))


def ping_of(row: Mapping[str, Any] | None) -> Ping:
    """What a row of Systems Manager says of the agent; a word that we do not know is no connection."""
    if row is None:
        return Ping.UNMANAGED
    try:
        return Ping(row.get("PingStatus", ""))
    except ValueError:
        return Ping.CONNECTION_LOST


def _tags(row: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in row.get("Tags", ())}


def host_of(
    cell: Cell,
    host: HostId,
    instance: Mapping[str, Any],
    managed: Mapping[str, Any] | None,
    member: Mapping[str, Any] | None,
) -> Host:
    """A host from EC2's, Systems Manager's and Auto Scaling's rows of it; of the latter None where it is unknown there."""
    tags = _tags(instance)
    return Host(
        id=host,
        cell=cell,
        name=tags.get("Name") or host,
        state=InstanceState(instance["State"]["Name"]),
        zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
        image=instance.get("ImageId", ""),
        tags=tags,
        group=member["AutoScalingGroupName"] if member else None,
        group_state=member.get("LifecycleState") if member else None,
        group_health=member.get("HealthStatus", "").upper() if member else None,
        launched=instance["LaunchTime"].astimezone(UTC) if "LaunchTime" in instance else None,
        **_agent(managed),
    )


def _agent(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those attributes of a host that Systems Manager tells."""
    facts = row or {}
    seen = facts.get("LastPingDateTime")
    return {
        "ping": ping_of(row),
        "platform": " ".join(part for part in (facts.get("PlatformName"), facts.get("PlatformVersion")) if part) or "unknown",
        "last_ping": seen.astimezone(UTC) if seen else None,
        "agent_version": facts.get("AgentVersion", ""),
    }
