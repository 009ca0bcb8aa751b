"""The journal: who comes and goes and by which call, and what its summary says of a domain."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import FEW, Aws

GROUP = FEW.replace(
    "fleets:",
    """fleets:
  - name: app
    account: "111111111111"
    region: eu-central-1
    count: 6
    template: amazon
    tags: {Environment: prod, PatchGroup: web}
    auto_scaling_group: {name: app, min: 2, max: 8, health_check: ELB}
    target_group: {name: app-http, deregistration_delay: 60}""",
)


@pytest.fixture
def aws(start) -> Aws:
    return start(GROUP)


def members(aws: Aws, state: str = "InService") -> list[str]:
    (row,) = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["app"])["AutoScalingGroups"]
    return [one["InstanceId"] for one in row["Instances"] if one["LifecycleState"] == state]


def lines(aws: Aws, host: str) -> list[dict[str, Any]]:
    return [line for line in aws.journal() if line["host"] == host]


def told(aws: Aws, host: str) -> list[tuple[str, str | None]]:
    """Event and reason of each line of a host."""
    return [(line["event"], line.get("reason")) for line in lines(aws, host)]


def causes(aws: Aws, host: str) -> set[str | None]:
    return {line["cause"]["request_id"] for line in lines(aws, host)}


def request_id(answer: dict[str, Any]) -> str:
    return str(answer["ResponseMetadata"]["RequestId"])


def test_a_member_that_ec2_terminates_is_replaced_when_the_health_check_finds_it(aws):
    """Out at once, replaced about a minute later, both by the call; the successor comes into service by it, too."""
    host = members(aws)[0]
    aws.ec2.terminate_instances(InstanceIds=[host])
    assert told(aws, host) == [("out_of_service", "terminated")]
    aws.advance(30)
    assert "replaced" not in aws.events(host)
    aws.advance(300)
    assert told(aws, host) == [("out_of_service", "terminated"), ("replaced", None)]
    (cause,) = causes(aws, host)
    assert cause is not None
    successor = lines(aws, host)[-1]["replaced_by"]
    assert successor in members(aws)
    assert aws.events(successor) == ["in_service"]
    assert causes(aws, successor) == {cause}
    assert len(members(aws)) == 6


def test_terminate_in_the_group_says_who_took_the_place(aws):
    """With a decrement nobody does."""
    client, (first, second) = aws.client("autoscaling"), members(aws)[:2]
    client.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=False)
    client.terminate_instance_in_auto_scaling_group(InstanceId=second, ShouldDecrementDesiredCapacity=True)
    aws.advance(400)
    assert aws.events(first) == ["out_of_service", "replaced"]
    assert aws.events(second) == ["out_of_service"]
    assert len(causes(aws, first) | causes(aws, second)) == 2
    assert None not in causes(aws, first) | causes(aws, second)


@pytest.mark.parametrize("call", ["update_auto_scaling_group", "set_desired_capacity"])
def test_scaling_in_drains_and_then_ends_the_oldest(aws, call):
    """By UpdateAutoScalingGroup as by SetDesiredCapacity: out of service with the call as its cause, gone after the drain."""
    getattr(aws.client("autoscaling"), call)(AutoScalingGroupName="app", DesiredCapacity=4)
    leaving = members(aws, "Terminating")
    assert len(leaving) == 2
    aws.advance(30)
    assert members(aws, "Terminating") == leaving
    aws.advance(60)
    assert len(members(aws)) == 4
    for host in leaving:
        assert told(aws, host) == [("out_of_service", "terminating")]
        assert None not in causes(aws, host)
    assert len(causes(aws, leaving[0]) | causes(aws, leaving[1])) == 1


def test_scaling_out_by_an_update_launches_pending_members(aws):
    """Also by the minimum alone."""
    aws.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName="app", MinSize=8)
    assert len(members(aws, "Pending")) == 2
    (first, second) = members(aws, "Pending")
    aws.advance(300)
    assert aws.events(first) == aws.events(second) == ["in_service"]
    assert causes(aws, first) == causes(aws, second) != {None}


def test_a_detached_host_is_out_of_service_until_it_is_attached_again(aws):
    """Its place is taken unless the capacity shrinks; detaching below the minimum is refused."""
    client, (first, second) = aws.client("autoscaling"), members(aws)[:2]
    client.detach_instances(AutoScalingGroupName="app", InstanceIds=[first], ShouldDecrementDesiredCapacity=False)
    client.detach_instances(AutoScalingGroupName="app", InstanceIds=[second], ShouldDecrementDesiredCapacity=True)
    aws.advance(300)
    assert told(aws, first) == [("out_of_service", "detached"), ("replaced", None)]
    assert told(aws, second) == [("out_of_service", "detached")]
    assert len(members(aws)) == 5
    assert lines(aws, first)[-1]["replaced_by"] in members(aws)
    client.attach_instances(AutoScalingGroupName="app", InstanceIds=[second])
    assert told(aws, second)[-1] == ("in_service", "attached")
    assert None not in causes(aws, first) | causes(aws, second)
    with pytest.raises(ClientError, match="To detach 5 instances"):
        client.detach_instances(AutoScalingGroupName="app", InstanceIds=members(aws)[:5], ShouldDecrementDesiredCapacity=True)


def test_a_stop_that_a_health_check_answers_names_the_stop(aws):
    """Stopped by a call, replaced a minute later: the cause of both is the call."""
    host = members(aws)[0]
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(300)
    assert aws.events(host) == ["out_of_service", "replaced"]
    (cause,) = causes(aws, host)
    assert cause is not None


def test_a_member_that_somebody_calls_unhealthy_is_replaced_by_that_call(aws):
    """SetInstanceHealth; what a health check finds by itself, such as a machine that never boots, has no call behind it."""
    called = members(aws)[0]
    aws.client("autoscaling").set_instance_health(InstanceId=called, HealthStatus="Unhealthy")
    aws.control("faults", {"kind": "zone_lost", "zone": "eu-central-1a", "account": "111111111111"})
    aws.advance(1200)
    assert "replaced" in aws.events(called)
    assert None not in causes(aws, called)
    gone = [line for line in aws.journal() if line["event"] == "replaced" and line["host"] != called]
    assert gone
    assert {line["cause"]["request_id"] for line in gone} == {None}


def test_a_group_that_is_deleted_takes_its_hosts_along(aws):
    """DeleteAutoScalingGroup with ForceDelete."""
    hosts = members(aws)
    aws.client("autoscaling").delete_auto_scaling_group(AutoScalingGroupName="app", ForceDelete=True)
    assert {tuple(aws.events(host)) for host in hosts} == {("out_of_service",)}
    assert len({next(iter(causes(aws, host))) for host in hosts} - {None}) == 1


def test_the_summary_knows_zones_groups_and_target_groups(aws):
    """Three of six installed at once: a target group counts those that left it for the work."""
    hosts = members(aws)
    arn = aws.client("elbv2").describe_target_groups()["TargetGroups"][0]["TargetGroupArn"]
    aws.client("elbv2").deregister_targets(TargetGroupArn=arn, Targets=[{"Id": hosts[0]}])
    aws.advance(120)
    aws.patch(*hosts[:3])
    aws.advance(900)
    told = aws.control("journal/summary")["max_in_flight"]
    assert told["group=app"] == told["target_group=app-http"] == told["Environment=prod"] == told["*"] == 3
    zones = {row["host"]: row["zone"] for row in aws.control("hosts")["hosts"]}
    of_three = [zones[host] for host in hosts[:3]]
    for zone in set(of_three):
        assert told[f"zone={zone}"] == of_three.count(zone)
    assert aws.control("journal/summary?domain=group%3Dapp")["max_in_flight"] == {"group=app": 3}
    summary = aws.control("journal/summary?domain=target_group%3Dapp-http")
    assert summary["max_in_flight"] == {"target_group=app-http": 3}
    assert set(summary["commands_per_host"]) == set(hosts[:3])
    assert [entry["host"] for entry in summary["order"]] == hosts[:3]
