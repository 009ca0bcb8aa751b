"""Can strangers reach these hosts? Public addresses, and load balancers that face the internet.

`scan_findings` asks, where the policy's deadlines want to know. One call for two hundred hosts, one for four hundred load
balancers and target groups each, and one for each target group that an internet-facing load balancer sends requests to. Classic
load balancers and CloudFront are not seen: a policy names hosts behind them by a tag.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from patchwave.aws.calls import chunks
from patchwave.aws.groups import Groups
from patchwave.aws.inventory import LARGEST_FILTER
from patchwave.campaign.reachability import Reach
from patchwave.campaign.values import Cell, HostId

LARGEST_BALANCERS = 400
"""ELBv2 API reference, DescribeLoadBalancers: PageSize at most 400."""

INTERNET_FACING = "internet-facing"
"""ELBv2 API reference, LoadBalancer.Scheme."""


class Reachability(Groups):
    """How hosts can be reached."""

    def reach(
        self, cell: Cell, hosts: Iterable[HostId], *, balancers: bool = True, tags: Collection[str] = ()
    ) -> dict[HostId, Reach]:
        """How each of these hosts can be reached; one that EC2 no longer describes is absent.

        Args:
            balancers: whether load balancers are asked for.
            tags: keys of the tags that are wanted.
        """
        rows: dict[HostId, Mapping[str, Any]] = {}
        for some in chunks(hosts, LARGEST_FILTER):
            rows.update(self._instances(cell, [{"Name": "instance-id", "Values": list(some)}]))
        behind = self._behind(cell) if balancers and rows else {}
        return {
            host: Reach(
                addresses=tuple(sorted(_public(row))),
                balancers=tuple(sorted({name for target in (host, *_private(row)) for name in behind.get(target, ())})),
                tags={one["Key"]: one.get("Value", "") for one in row.get("Tags", ()) if one["Key"] in tags},
            )
            for host, row in rows.items()
        }

    def _behind(self, cell: Cell) -> dict[str, set[str]]:
        """Names of internet-facing load balancers by the id or address of each of their targets."""
        facing = {
            row["LoadBalancerArn"]: row["LoadBalancerName"]
            for page in self.pages(
                cell, "elbv2:DescribeLoadBalancers", cursor="Marker", following="NextMarker", PageSize=LARGEST_BALANCERS
            )
            for row in page.get("LoadBalancers", ())
            if row.get("Scheme") == INTERNET_FACING
        }
        groups = list(self._target_groups(cell))
        # A network load balancer may stand in front of an application load balancer, which then faces the internet, too.
        for row in groups:
            names = [facing[arn] for arn in row.get("LoadBalancerArns", ()) if arn in facing]
            if names and row.get("TargetType") == "alb":
                facing |= dict.fromkeys(self._target_ids(cell, row), names[0])
        found: dict[str, set[str]] = {}
        for row in groups:
            names = [facing[arn] for arn in row.get("LoadBalancerArns", ()) if arn in facing]
            if names and row.get("TargetType", "instance") in {"instance", "ip"}:
                for target in self._target_ids(cell, row):
                    found.setdefault(target, set()).update(names)
        return found

    def _target_ids(self, cell: Cell, group: Mapping[str, Any]) -> set[str]:
        """Whoever is registered, in whatever state: what is unhealthy now may be served again in a minute."""
        return {one["Target"]["Id"] for one in self._targets(cell, group)}


def _public(row: Mapping[str, Any]) -> set[str]:
    """Public IPv4 addresses of all interfaces, and IPv6 addresses, which are public by nature."""
    found = {row["PublicIpAddress"]} if row.get("PublicIpAddress") else set()
    for interface in row.get("NetworkInterfaces", ()):
        held = [interface, *interface.get("PrivateIpAddresses", ())]
        found |= {one["Association"]["PublicIp"] for one in held if one.get("Association", {}).get("PublicIp")}
        found |= {one["Ipv6Address"] for one in interface.get("Ipv6Addresses", ()) if one.get("Ipv6Address")}
    return found


def _private(row: Mapping[str, Any]) -> set[str]:
    found = {row["PrivateIpAddress"]} if row.get("PrivateIpAddress") else set()
    for interface in row.get("NetworkInterfaces", ()):
        found |= {one["PrivateIpAddress"] for one in interface.get("PrivateIpAddresses", ()) if one.get("PrivateIpAddress")}
    return found
