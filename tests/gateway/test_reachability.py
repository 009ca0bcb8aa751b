"""Who can be reached from the internet: public addresses of every interface, and load balancers that face it."""

from __future__ import annotations

from typing import Any

from patchwave.campaign.reachability import Reach
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, Wire, host, session_with_keys
from tests.gateway.simulated import Simulated
from tests.gateway.test_against_awsim import aws, staging  # noqa: F401 - aws is a fixture

ELB = "arn:aws:elasticloadbalancing:eu-central-1:111111111111"
ONE, TWO = HostId(host(1)), HostId(host(2))


def an_instance(number: int, **facts: Any) -> dict[str, Any]:
    return {"InstanceId": host(number), "State": {"Name": "running"}, **facts}


def expect_instances(wire: Wire, *rows: dict[str, Any]) -> None:
    wire.expects("ec2", "describe_instances", {"Reservations": [{"Instances": list(rows)}]})


def expect_balancers(wire: Wire, *balancers: tuple[str, str]) -> None:
    rows = [{"LoadBalancerArn": f"{ELB}:loadbalancer/{name}", "LoadBalancerName": name, "Scheme": scheme}
            for name, scheme in balancers]  # fmt: skip
    wire.expects("elbv2", "describe_load_balancers", {"LoadBalancers": rows}, {"PageSize": 400})


def a_group(name: str, *balancers: str, kind: str = "instance") -> dict[str, Any]:
    arns = [f"{ELB}:loadbalancer/{one}" for one in balancers]
    return {
        "TargetGroupArn": f"{ELB}:targetgroup/{name}/0",
        "TargetGroupName": name,
        "TargetType": kind,
        "LoadBalancerArns": arns,
    }


def expect_targets(wire: Wire, group: str, *targets: str, state: str = "healthy") -> None:
    rows = [{"Target": {"Id": one, "Port": 80}, "TargetHealth": {"State": state}} for one in targets]
    wire.expects(
        "elbv2", "describe_target_health", {"TargetHealthDescriptions": rows},
        {"TargetGroupArn": f"{ELB}:targetgroup/{group}/0"},
    )  # fmt: skip


def test_public_addresses_of_all_interfaces_count(wire: Wire) -> None:
    """An Elastic IP on the second interface, or an IPv6 address, is as public as the first one's."""
    interfaces: list[dict[str, Any]] = [
        {"Association": {"PublicIp": "203.0.113.7"}, "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.1"}]},
        {"PrivateIpAddresses": [{"Association": {"PublicIp": "203.0.113.8"}}], "Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}]},
    ]
    expect_instances(
        wire, an_instance(1, PublicIpAddress="203.0.113.7", NetworkInterfaces=interfaces), an_instance(2, NetworkInterfaces=[{}])
    )
    assert wire.gateway.reach(CELL, [ONE, TWO], balancers=False) == {
        ONE: Reach(addresses=("2001:db8::1", "203.0.113.7", "203.0.113.8")), TWO: Reach(),
    }  # fmt: skip


def test_a_host_that_ec2_no_longer_describes_is_absent(wire: Wire) -> None:
    """Unknown, and never taken for unreachable."""
    expect_instances(wire, an_instance(1))
    assert wire.gateway.reach(CELL, [ONE, TWO], balancers=False).keys() == {ONE}


def test_targets_of_an_internet_facing_load_balancer_are_behind_it_in_whatever_state(wire: Wire) -> None:
    """By instance id or by private address; what is unhealthy now may be served again in a minute."""
    expect_instances(wire, an_instance(1), an_instance(2, PrivateIpAddress="10.0.0.2"))
    expect_balancers(wire, ("front", "internet-facing"), ("back", "internal"))
    groups = [a_group("web", "front"), a_group("api", "front", kind="ip"), a_group("inner", "back"), a_group("unused")]
    wire.expects("elbv2", "describe_target_groups", {"TargetGroups": groups})
    expect_targets(wire, "web", host(1), state="unhealthy")
    expect_targets(wire, "api", "10.0.0.2", "10.0.0.9")
    assert wire.gateway.reach(CELL, [ONE, TWO]) == {ONE: Reach(balancers=("front",)), TWO: Reach(balancers=("front",))}


def test_an_inner_load_balancer_behind_an_outer_one_faces_the_internet_too(wire: Wire) -> None:
    """A network load balancer may send to an application load balancer, whose scheme says internal."""
    expect_instances(wire, an_instance(1))
    expect_balancers(wire, ("outer", "internet-facing"), ("inner", "internal"))
    wire.expects(
        "elbv2", "describe_target_groups", {"TargetGroups": [a_group("web", "inner"), a_group("chain", "outer", kind="alb")]}
    )
    expect_targets(wire, "chain", f"{ELB}:loadbalancer/inner")
    expect_targets(wire, "web", host(1))
    assert wire.gateway.reach(CELL, [ONE]) == {ONE: Reach(balancers=("outer",))}


def test_only_the_tags_that_are_asked_for_are_kept(wire: Wire) -> None:
    """The triage needs no names of people."""
    expect_instances(wire, an_instance(1, Tags=[{"Key": "Exposure", "Value": "internet"}, {"Key": "Owner", "Value": "olga"}]))
    assert wire.gateway.reach(CELL, [ONE], balancers=False, tags=("Exposure",)) == {ONE: Reach(tags={"Exposure": "internet"})}


def test_a_target_group_that_is_gone_meanwhile_holds_nobody(wire: Wire) -> None:
    """It was listed a moment ago."""
    expect_instances(wire, an_instance(1))
    expect_balancers(wire, ("front", "internet-facing"))
    wire.expects("elbv2", "describe_target_groups", {"TargetGroups": [a_group("web", "front")]})
    wire.refuses("elbv2", "describe_target_health", "TargetGroupNotFound")
    assert wire.gateway.reach(CELL, [ONE]) == {ONE: Reach()}


def test_nobody_is_asked_about_no_hosts(wire: Wire) -> None:
    """No findings, no calls."""
    assert wire.gateway.reach(CELL, []) == {}


def test_awsim_and_the_gateway_agree_on_who_is_behind_a_load_balancer(aws: Simulated) -> None:  # noqa: F811
    """Over HTTP, by the words of AWS's model: hosts of the shipped world have private addresses only, until one is registered."""
    one, two = [host.id for host in staging(aws)][:2]
    session, place = session_with_keys(CELL), {"region_name": CELL.region, "endpoint_url": aws.url}
    elb = session.client("elbv2", **place)
    subnets = [row["SubnetId"] for row in session.client("ec2", **place).describe_subnets()["Subnets"]][:2]
    for name, scheme, target in (("front", "internet-facing", one), ("back", "internal", two)):
        (balancer,) = elb.create_load_balancer(Name=name, Subnets=subnets, Scheme=scheme)["LoadBalancers"]
        (group,) = elb.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=balancer["VpcId"])["TargetGroups"]
        elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}],
        )  # fmt: skip
        elb.register_targets(TargetGroupArn=group["TargetGroupArn"], Targets=[{"Id": target}])
    gone = HostId("i-0fffffffffffffff0")
    assert aws.gateway.reach(CELL, [one, two, gone]) == {one: Reach(balancers=("front",)), two: Reach()}
