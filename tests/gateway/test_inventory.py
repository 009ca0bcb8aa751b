"""Hosts: EC2, Systems Manager and Auto Scaling merged; nobody lost, nobody twice."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.campaign import errors
from patchwave.campaign.fleet import InstanceState, Ping, Readiness, readiness
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, NOW, Wire, host


def instance(number: int, state: str = "running", **tags: str) -> dict[str, Any]:
    return {
        "InstanceId": host(number),
        "ImageId": "ami-1",
        "State": {"Name": state},
        "Placement": {"AvailabilityZone": "eu-central-1a"},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }


def reservations(*instances: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"Reservations": [{"Instances": [one]} for one in instances], **({"NextToken": more} if more else {})}


def node(number: int, ping: str = "Online") -> dict[str, Any]:
    return {
        "InstanceId": host(number), "PingStatus": ping, "LastPingDateTime": NOW, "AgentVersion": "3.3.1",
        "PlatformName": "Amazon Linux", "PlatformVersion": "2023",
    }  # fmt: skip


def member(number: int, state: str = "InService", health: str = "HEALTHY") -> dict[str, Any]:
    return {
        "InstanceId": host(number), "AutoScalingGroupName": "web", "AvailabilityZone": "eu-central-1a",
        "LifecycleState": state, "HealthStatus": health, "ProtectedFromScaleIn": False,
    }  # fmt: skip


def test_a_fleet_is_read_by_tag_and_each_host_is_what_three_services_say(wire: Wire) -> None:
    """All states but terminated are asked for: a stopped host belongs into the plan, as stopped."""
    wire.expects(
        "ec2", "describe_instances",
        reservations(instance(1, Name="web-1", PatchGroup="linux-prod"), more="n"),
        {
            "Filters": [
                {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped", "shutting-down"]},
                {"Name": "tag:PatchGroup", "Values": ["linux-prod"]},
            ],
            "MaxResults": 1000,
        },
    )  # fmt: skip
    wire.expects("ec2", "describe_instances", reservations(instance(2, "stopped", PatchGroup="linux-prod")))
    wire.expects(
        "ssm", "describe_instance_information", {"InstanceInformationList": [node(1)]},
        {"Filters": [{"Key": "InstanceIds", "Values": [host(1), host(2)]}], "MaxResults": 50},
    )  # fmt: skip
    wire.expects(
        "autoscaling", "describe_auto_scaling_instances", {"AutoScalingInstances": [member(1)]},
        {"InstanceIds": [host(1), host(2)], "MaxRecords": 50},
    )  # fmt: skip
    web, stopped = wire.gateway.fleet(CELL, {"PatchGroup": ("linux-prod",)})
    assert (web.name, web.platform, web.ping, web.group, web.group_state, web.group_health) == (
        "web-1", "Amazon Linux 2023", Ping.ONLINE, "web", "InService", "HEALTHY",
    )  # fmt: skip
    assert (web.zone, web.image, web.last_ping, web.agent_version) == ("eu-central-1a", "ami-1", NOW, "3.3.1")
    assert (stopped.state, stopped.ping, stopped.group, stopped.platform) == (
        InstanceState.STOPPED, Ping.UNMANAGED, None, "unknown",
    )  # fmt: skip


def test_a_star_in_a_tag_is_a_star(wire: Wire) -> None:
    """EC2's filters take it for a wildcard, which would patch hosts that nobody chose."""
    wire.expects("ec2", "describe_instances", reservations(instance(1, Team="web*"), instance(2, Team="website")))
    wire.expects("ssm", "describe_instance_information", {"InstanceInformationList": []})
    wire.expects("autoscaling", "describe_auto_scaling_instances", {"AutoScalingInstances": []})
    assert [one.id for one in wire.gateway.fleet(CELL, {"Team": ("web*",)})] == [host(1)]


def test_a_host_that_is_gone_is_absent_and_the_others_are_still_told(wire: Wire) -> None:
    """Asked by ids EC2 would refuse the whole call for the one that it has forgotten."""
    wire.expects(
        "ec2", "describe_instances", reservations(instance(1), instance(3, "terminated")),
        {"Filters": [{"Name": "instance-id", "Values": [host(1), host(2), host(3)]}], "MaxResults": 1000},
    )  # fmt: skip
    wire.expects("ssm", "describe_instance_information", {"InstanceInformationList": [node(1, "ConnectionLost")]})
    wire.expects("autoscaling", "describe_auto_scaling_instances", {"AutoScalingInstances": []})
    found = wire.gateway.hosts(CELL, [HostId(host(1)), HostId(host(2)), HostId(host(3))])
    assert [(one.id, readiness(one)) for one in found] == [(host(1), Readiness.UNREACHABLE), (host(3), Readiness.TERMINATED)]


def test_each_service_is_asked_in_chunks_of_its_own_size(wire: Wire) -> None:
    """201 hosts: two filters of EC2, five calls each of the others."""
    ids = [HostId(host(n)) for n in range(201)]
    for some in (ids[:200], ids[200:]):
        wire.expects(
            "ec2", "describe_instances", reservations(*(instance(int(one[2:], 16)) for one in some)),
            {"Filters": [{"Name": "instance-id", "Values": some}], "MaxResults": 1000},
        )  # fmt: skip
    for start in range(0, 201, 50):
        some = ids[start : start + 50]
        wire.expects(
            "ssm", "describe_instance_information", {"InstanceInformationList": [node(int(one[2:], 16)) for one in some]},
            {"Filters": [{"Key": "InstanceIds", "Values": some}], "MaxResults": 50},
        )  # fmt: skip
        wire.expects(
            "autoscaling", "describe_auto_scaling_instances", {"AutoScalingInstances": []},
            {"InstanceIds": some, "MaxRecords": 50},
        )  # fmt: skip
    assert len(wire.gateway.hosts(CELL, ids)) == 201
    assert wire.gateway.calls == {
        "ec2:DescribeInstances": 2,
        "ssm:DescribeInstanceInformation": 5,
        "autoscaling:DescribeAutoScalingInstances": 5,
    }


def test_an_id_that_systems_manager_refuses_does_not_hide_the_others(wire: Wire) -> None:
    """It does not say which one it was, so everything that it manages is read instead."""
    wire.expects("ec2", "describe_instances", reservations(instance(1), instance(2)))
    wire.refuses("ssm", "describe_instance_information", "InvalidInstanceId")
    wire.expects("ssm", "describe_instance_information", {"InstanceInformationList": [node(9)], "NextToken": "n"})
    wire.expects("ssm", "describe_instance_information", {"InstanceInformationList": [node(2)]})
    wire.expects("autoscaling", "describe_auto_scaling_instances", {"AutoScalingInstances": []})
    found = wire.gateway.hosts(CELL, [HostId(host(1)), HostId(host(2))])
    assert [one.ping for one in found] == [Ping.UNMANAGED, Ping.ONLINE]


def test_a_service_that_is_denied_is_an_error_and_not_a_fleet_of_unmanaged_hosts(wire: Wire) -> None:
    """Missing rights must never look like missing agents."""
    wire.expects("ec2", "describe_instances", reservations(instance(1)))
    wire.refuses("ssm", "describe_instance_information", "AccessDeniedException")
    with pytest.raises(errors.AccessDenied) as caught:
        wire.gateway.fleet(CELL, {})
    assert caught.value.operation == "ssm:DescribeInstanceInformation"


def test_an_empty_fleet_asks_nobody_further(wire: Wire) -> None:
    """No ids would mean everybody to Systems Manager and Auto Scaling."""
    wire.expects("ec2", "describe_instances", reservations())
    assert wire.gateway.fleet(CELL, {"PatchGroup": ("none",)}) == ()
