"""Groups that hosts serve in: all of their members, who of them does not serve, and how many must."""

from __future__ import annotations

from typing import Any

from patchwave.campaign.fleet import Group, Host, InstanceState, Ping
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, NOW, Wire, host

ARN = "arn:aws:elasticloadbalancing:eu-central-1:111111111111:targetgroup"


def scaling_group(*members: tuple[int, str, str], name: str = "web", **facts: Any) -> dict[str, Any]:
    instances = [
        {
            "InstanceId": host(number), "LifecycleState": state, "HealthStatus": health, "AvailabilityZone": "eu-central-1a",
            "ProtectedFromScaleIn": False,
        }
        for number, state, health in members
    ]  # fmt: skip
    return {
        "AutoScalingGroupName": name, "MinSize": 2, "MaxSize": 9, "DesiredCapacity": 5, "DefaultCooldown": 300,
        "AvailabilityZones": ["eu-central-1a"], "HealthCheckType": "EC2", "CreatedTime": NOW, "Instances": instances, **facts,
    }  # fmt: skip


def target_group(name: str, kind: str = "instance") -> dict[str, Any]:
    return {"TargetGroupArn": f"{ARN}/{name}/0", "TargetGroupName": name, "TargetType": kind}


def targets(*states: tuple[int, str]) -> dict[str, Any]:
    return {
        "TargetHealthDescriptions": [
            {"Target": {"Id": host(number), "Port": 80}, "TargetHealth": {"State": state}} for number, state in states
        ]
    }


def ids(*numbers: int) -> frozenset[HostId]:
    return frozenset(HostId(host(number)) for number in numbers)


def test_members_of_a_group_are_those_in_service_or_on_the_way_there(wire: Wire) -> None:
    """Standby and warm instances serve nobody; one on its way does not serve yet, and one that the group calls unhealthy not
    any more."""
    wire.expects(
        "autoscaling", "describe_auto_scaling_groups",
        {"AutoScalingGroups": [scaling_group(
            (1, "InService", "Healthy"), (2, "InService", "Unhealthy"), (3, "Pending:Wait", "Healthy"), (4, "Standby", "Healthy"),
            (5, "Terminating", "Healthy"), (6, "Warmed:Stopped", "Healthy"),
        )]},
        {"AutoScalingGroupNames": ["web"], "MaxRecords": 100},
    )  # fmt: skip
    (group,) = wire.gateway.groups(CELL, {"web"})
    assert group == Group(domain=f"asg:{CELL}/web", members=ids(1, 2, 3), unhealthy=ids(2, 3), minimum=2, says="MinSize 2")


def test_a_maintenance_policy_may_ask_for_more_than_the_minimum_size(wire: Wire) -> None:
    """90 % of five is five in service, rounded up; a policy that asks for less leaves MinSize in force."""
    strict = scaling_group(name="a", InstanceMaintenancePolicy={"MinHealthyPercentage": 90, "MaxHealthyPercentage": 120})
    loose = scaling_group(name="b", InstanceMaintenancePolicy={"MinHealthyPercentage": 20, "MaxHealthyPercentage": 100})
    unset = scaling_group(name="c", InstanceMaintenancePolicy={"MinHealthyPercentage": -1, "MaxHealthyPercentage": -1})
    wire.expects("autoscaling", "describe_auto_scaling_groups", {"AutoScalingGroups": [strict, loose, unset]})
    found = wire.gateway.groups(CELL, {"a", "b", "c"})
    assert [group.minimum for group in found] == [5, 2, 2]
    assert "90 % of 5" in found[0].says


def test_targets_of_instance_groups_are_read_once_each(wire: Wire) -> None:
    """Groups of addresses and functions hold no host of ours; a page ends where the next marker is missing."""
    wire.expects(
        "elbv2", "describe_target_groups", {"TargetGroups": [target_group("shop"), target_group("fn", "lambda")],
                                            "NextMarker": "m"}, {"PageSize": 400},
    )  # fmt: skip
    wire.expects(
        "elbv2", "describe_target_health",
        targets((1, "healthy"), (2, "unhealthy"), (3, "initial"), (4, "draining"), (5, "unused")),
        {"TargetGroupArn": f"{ARN}/shop/0"},
    )  # fmt: skip
    wire.expects("elbv2", "describe_target_groups", {"TargetGroups": []}, {"PageSize": 400, "Marker": "m"})
    (group,) = wire.gateway.target_groups(CELL)
    assert group == Group(domain=f"target:{CELL}/shop", members=ids(1, 2, 3), unhealthy=ids(2, 3))


def test_a_target_under_two_ports_is_healthy_only_if_both_are(wire: Wire) -> None:
    """One that answers on one port only serves half of what it should."""
    wire.expects("elbv2", "describe_target_groups", {"TargetGroups": [target_group("shop")]})
    wire.expects("elbv2", "describe_target_health", targets((1, "healthy"), (1, "unhealthy"), (2, "healthy"), (2, "draining")))
    (group,) = wire.gateway.target_groups(CELL)
    assert (group.members, group.unhealthy) == (ids(1, 2), ids(1))


def test_a_target_group_that_is_gone_has_nobody(wire: Wire) -> None:
    """Deleted between the two calls."""
    wire.expects("elbv2", "describe_target_groups", {"TargetGroups": [target_group("shop")]})
    wire.refuses("elbv2", "describe_target_health", "TargetGroupNotFound")
    assert [group.members for group in wire.gateway.target_groups(CELL)] == [frozenset()]


def test_hosts_learn_their_target_groups_and_others_groups_are_left_out(wire: Wire) -> None:
    """What protects somebody else's hosts is no domain of ours."""
    answer = {"AutoScalingGroups": [scaling_group((1, "InService", "Healthy"))]}
    wire.expects("autoscaling", "describe_auto_scaling_groups", answer)
    wire.expects("elbv2", "describe_target_groups", {"TargetGroups": [target_group("shop"), target_group("other")]})
    wire.expects("elbv2", "describe_target_health", targets((1, "healthy"), (9, "healthy")))
    wire.expects("elbv2", "describe_target_health", targets((9, "healthy")))
    one, two = (
        Host(id=HostId(host(n)), cell=CELL, name="w", state=InstanceState.RUNNING, ping=Ping.ONLINE, group=group)
        for n, group in ((1, "web"), (2, None))
    )
    hosts, groups = wire.gateway.surroundings(CELL, [one, two])
    assert [found.target_groups for found in hosts] == [("shop",), ()]
    assert [group.domain for group in groups] == [f"asg:{CELL}/web", f"target:{CELL}/shop"]


def test_hosts_of_a_tag_are_listed_by_ec2_alone(wire: Wire) -> None:
    """A star in a value is a star."""
    rows = [
        {"InstanceId": host(n), "State": {"Name": "running"}, "LaunchTime": NOW, "Tags": [{"Key": "Team", "Value": value}]}
        for n, value in ((1, "web*"), (2, "website"))
    ]
    wire.expects(
        "ec2", "describe_instances", {"Reservations": [{"Instances": rows}]},
        {
            "Filters": [
                {"Name": "instance-state-name", "Values": ["pending", "running"]}, {"Name": "tag:Team", "Values": ["web*"]},
            ],
            "MaxResults": 1000,
        },
    )  # fmt: skip
    (found,) = wire.gateway.listed(CELL, {"Team": ("web*",)}).values()
    assert (found.id, found.tags, found.launched) == (host(1), {"Team": "web*"}, NOW)
    assert (found.state, found.ping, found.group) == (InstanceState.RUNNING, Ping.UNMANAGED, None)
