"""Who else serves where our hosts serve? Auto Scaling groups, target groups, and who has appeared since.

Asked when a plan is made and when a stage begins, not at every look: one call for a hundred groups, one for four hundred
target groups and one for each of those that hold instances.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from patchwave.aws.calls import chunks
from patchwave.aws.errors import code_of
from patchwave.aws.inventory import Inventory, host_of
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.fleet import Group, Host, group_domain, target_domain
from patchwave.campaign.values import Cell, HostId

LARGEST_GROUPS = 100
"""Auto Scaling API reference, DescribeAutoScalingGroups: MaxRecords at most 100."""
LARGEST_TARGET_GROUPS = 400
"""ELBv2 API reference, DescribeTargetGroups: PageSize at most 400."""

GROUP_TAG = "aws:autoscaling:groupName"
"""EC2 Auto Scaling gives it to every instance that it launches."""

_LEFT = frozenset({"unused", "draining"})
"""States of targets that serve nobody and are not meant to."""


class Groups(Inventory):
    """Groups that hosts serve in."""

    def groups(self, cell: Cell, names: Collection[str]) -> tuple[Group, ...]:
        """These Auto Scaling groups; one that is gone is absent.

        A member is whoever is in service or on the way there: what stands by, terminates or is kept warm serves nobody. The
        minimum is MinSize or, where the group has an instance maintenance policy, that share of its desired capacity, if
        that is more.
        """
        found = []
        for some in chunks(sorted(names), LARGEST_GROUPS):
            for page in self.pages(
                cell, "autoscaling:DescribeAutoScalingGroups", AutoScalingGroupNames=list(some), MaxRecords=LARGEST_GROUPS
            ):
                found += [_group(cell, row) for row in page.get("AutoScalingGroups", ())]
        return tuple(found)

    def running_processes(self, cell: Cell, name: str, processes: Collection[str]) -> tuple[str, ...]:
        """Which of these processes of an Auto Scaling group are not suspended; none if the group is gone."""
        answer = self.call(cell, "autoscaling:DescribeAutoScalingGroups", AutoScalingGroupNames=[name])
        for row in answer.get("AutoScalingGroups", ()):
            suspended = {one["ProcessName"] for one in row.get("SuspendedProcesses", ())}
            return tuple(one for one in processes if one not in suspended)
        return ()

    def suspend_processes(self, cell: Cell, name: str, processes: Collection[str]) -> None:
        """Suspend these processes of an Auto Scaling group; those that are already stay so."""
        self.call(cell, "autoscaling:SuspendProcesses", AutoScalingGroupName=name, ScalingProcesses=sorted(processes))

    def resume_processes(self, cell: Cell, name: str, processes: Collection[str]) -> None:
        """Resume these processes of an Auto Scaling group; those that are not suspended go on.

        Raises:
            InvalidRequest: the group is gone, for instance.
        """
        self.call(cell, "autoscaling:ResumeProcesses", AutoScalingGroupName=name, ScalingProcesses=sorted(processes))

    def target_groups(self, cell: Cell, names: Collection[str] | None = None) -> tuple[Group, ...]:
        """Target groups whose targets are instances, and how those do.

        Args:
            names: only these; None: all of the cell. One that is gone is absent.
        """
        if names is not None and not names:
            return ()
        return tuple(
            self._group_of(cell, row)
            for row in self._target_groups(cell)
            if row.get("TargetType", "instance") == "instance" and (names is None or row["TargetGroupName"] in names)
        )

    def _target_groups(self, cell: Cell) -> Iterator[Mapping[str, Any]]:
        """Every target group of the cell, of whatever type."""
        for page in self.pages(
            cell, "elbv2:DescribeTargetGroups", cursor="Marker", following="NextMarker", PageSize=LARGEST_TARGET_GROUPS
        ):
            yield from page.get("TargetGroups", ())

    def _targets(self, cell: Cell, group: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The targets of a target group with their health; none if it has gone meanwhile."""
        try:
            answer = self.call(cell, "elbv2:DescribeTargetHealth", TargetGroupArn=group["TargetGroupArn"])
        except InvalidRequest as error:
            if code_of(error) not in {"TargetGroupNotFound", "TargetGroupNotFoundException"}:
                raise
            return ()
        targets: Sequence[Mapping[str, Any]] = answer.get("TargetHealthDescriptions", ())
        return targets

    def _group_of(self, cell: Cell, row: Mapping[str, Any]) -> Group:
        states: dict[HostId, set[str]] = {}  # an instance may be registered under several ports
        for one in self._targets(cell, row):
            states.setdefault(HostId(one["Target"]["Id"]), set()).add(one.get("TargetHealth", {}).get("State", "unavailable"))
        members = {host for host, said in states.items() if said - _LEFT}
        return Group(
            domain=target_domain(cell, row["TargetGroupName"]),
            members=frozenset(members),
            unhealthy=frozenset(host for host in members if states[host] - _LEFT != {"healthy"}),
        )

    def surroundings(self, cell: Cell, hosts: Sequence[Host]) -> tuple[tuple[Host, ...], tuple[Group, ...]]:
        """The hosts with the target groups that they are registered in, and every group that one of them is in."""
        mine = {host.id for host in hosts}
        if not mine:
            return (), ()
        scaling = self.groups(cell, {host.group for host in hosts if host.group})
        behind = [group for group in self.target_groups(cell) if group.members & mine]
        names = {
            host: tuple(sorted(group.domain.rpartition("/")[2] for group in behind if host in group.members)) for host in mine
        }
        return tuple(replace(host, target_groups=names[host.id]) for host in hosts), (*scaling, *behind)

    def listed(self, cell: Cell, tags: Mapping[str, Sequence[str]], *, keys: Collection[str] = ()) -> dict[HostId, Host]:
        """All hosts that carry every one of `tags` with one of its values and are not on their way out, by id: EC2's word
        alone, a thousand a call, so nothing is known of their agents.

        Args:
            keys: if any, a host must carry one of them, with whatever value.
        """
        filters = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        filters += [{"Name": f"tag:{key}", "Values": list(values)} for key, values in tags.items()]
        filters += [{"Name": "tag-key", "Values": sorted(keys)}] if keys else []
        found: dict[HostId, Host] = {}
        for host, row in self._instances(cell, filters).items():
            one = host_of(cell, host, row, None, None)
            if all(one.tags.get(key) in values for key, values in tags.items()):  # a filter's ``*`` is a wildcard
                found[host] = replace(one, group=one.tags.get(GROUP_TAG))
        return found


def _group(cell: Cell, row: Mapping[str, Any]) -> Group:
    members = {
        HostId(one["InstanceId"]): one
        for one in row.get("Instances", ())
        if one.get("LifecycleState", "") == "InService" or one.get("LifecycleState", "").startswith("Pending")
    }
    minimum, says = int(row.get("MinSize", 0)), f"MinSize {row.get('MinSize', 0)}"
    share = (row.get("InstanceMaintenancePolicy") or {}).get("MinHealthyPercentage", -1)
    if share is not None and share >= 0:
        least = math.ceil(share * int(row.get("DesiredCapacity", 0)) / 100)
        if least > minimum:
            minimum, says = least, f"its instance maintenance policy, {share} % of {row.get('DesiredCapacity', 0)}"
    return Group(
        domain=group_domain(cell, row["AutoScalingGroupName"]),
        members=frozenset(members),
        unhealthy=frozenset(
            host
            for host, one in members.items()
            if one.get("HealthStatus", "").upper() != "HEALTHY" or one.get("LifecycleState") != "InService"
        ),
        minimum=minimum,
        says=says,
    )


def groups_of(domains: Iterable[str], cell: Cell, kind: str) -> frozenset[str]:
    """Names of the groups of that kind (``asg``, ``target``) and cell among failure domains."""
    prefix = f"{kind}:{cell}/"
    return frozenset(domain.removeprefix(prefix) for domain in domains if domain.startswith(prefix))
