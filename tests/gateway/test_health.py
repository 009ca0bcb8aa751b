"""Health: every check that applies must say yes, and who is gone is not healthy."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.campaign import errors
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, Wire, host
from tests.gateway.test_inventory import member, node


def status(number: int, state: str = "running", system: str = "ok", own: str = "ok") -> dict[str, Any]:
    return {
        "InstanceId": host(number), "InstanceState": {"Name": state},
        "SystemStatus": {"Status": system}, "InstanceStatus": {"Status": own},
    }  # fmt: skip


def everything(wire: Wire, one: dict[str, Any], nodes: list[Any], members: list[Any]) -> None:
    wire.expects(
        "ec2", "describe_instance_status", {"InstanceStatuses": [one]},
        {"InstanceIds": [host(1)], "IncludeAllInstances": True},
    )  # fmt: skip
    wire.expects("ssm", "describe_instance_information", {"InstanceInformationList": nodes})
    wire.expects("autoscaling", "describe_auto_scaling_instances", {"AutoScalingInstances": members})


@pytest.mark.parametrize(
    ("one", "nodes", "members", "healthy", "said"),
    [
        (status(1), [node(1)], [member(1)], True, "ec2 ok, ssm Online, autoscaling InService HEALTHY"),
        (status(1), [node(1)], [], True, "ec2 ok, ssm Online, autoscaling no group"),
        (status(1, own="impaired"), [node(1)], [], False, "ec2 system ok, instance impaired, ssm Online, autoscaling no group"),
        (status(1, own="initializing"), [node(1)], [], False,
         "ec2 system ok, instance initializing, ssm Online, autoscaling no group"),
        (status(1, "stopped"), [], [], False, "ec2 stopped, ssm Unmanaged, autoscaling no group"),
        (status(1), [node(1, "ConnectionLost")], [], False, "ec2 ok, ssm ConnectionLost, autoscaling no group"),
        (status(1), [node(1)], [member(1, "Standby")], False, "ec2 ok, ssm Online, autoscaling Standby HEALTHY"),
        (status(1), [node(1)], [member(1, health="UNHEALTHY")], False, "ec2 ok, ssm Online, autoscaling InService UNHEALTHY"),
        (status(1, "terminated"), [node(1)], [member(1)], False, "ec2 gone"),
    ],
)  # fmt: skip
def test_one_no_is_enough(wire: Wire, one: Any, nodes: list[Any], members: list[Any], healthy: bool, said: str) -> None:
    """And the answer says which of them it was."""
    everything(wire, one, nodes, members)
    (found,) = wire.gateway.health(CELL, [HostId(host(1))])
    assert (found.healthy, str(found)) == (healthy, f"{host(1)}: {said}")


def test_only_the_chosen_checks_are_asked_for_but_the_gone_are_always_seen(wire: Wire) -> None:
    """A host without EC2's status is no healthy host, whatever else is asked."""
    wire.refuses("ec2", "describe_instance_status", "InvalidInstanceID.NotFound")
    wire.expects("ec2", "describe_instance_status", {"InstanceStatuses": [status(1, own="impaired")]}, None)
    wire.refuses("ec2", "describe_instance_status", "InvalidInstanceID.NotFound")
    wire.expects("ssm", "describe_instance_information", {"InstanceInformationList": [node(1), node(2)]})
    found = wire.gateway.health(CELL, [HostId(host(1)), HostId(host(2))], ["ssm"])
    assert [(one.host, one.healthy) for one in found] == [(host(1), True), (host(2), False)]


def test_a_malformed_id_is_our_mistake_and_no_vanished_host(wire: Wire) -> None:
    """Only NotFound means gone."""
    wire.refuses("ec2", "describe_instance_status", "InvalidInstanceID.Malformed")
    with pytest.raises(errors.HostsRefused):
        wire.gateway.health(CELL, [HostId("i-nonsense")])


def test_a_hundred_and_one_hosts_are_two_calls(wire: Wire) -> None:
    """DescribeInstanceStatus takes at most 100 ids."""
    ids = [HostId(host(n)) for n in range(101)]
    for some in (ids[:100], ids[100:]):
        wire.expects(
            "ec2", "describe_instance_status", {"InstanceStatuses": [status(int(one[2:], 16)) for one in some]},
            {"InstanceIds": some, "IncludeAllInstances": True},
        )  # fmt: skip
    assert all(one.healthy for one in wire.gateway.health(CELL, ids, ["ec2"]))
