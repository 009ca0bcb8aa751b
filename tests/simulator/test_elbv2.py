"""Target health: registration, draining and what the host does, all on the clock."""

import pytest

from tests.simulator.conftest import REGION, Aws


def balanced(aws: Aws, *ids: str, delay: int = 120) -> str:
    """A target group in use; the hosts are registered. Its ARN."""
    elb, ec2 = aws.client("elbv2"), aws.ec2
    subnets = [row for row in ec2.describe_subnets()["Subnets"] if row["CidrBlock"].startswith("10.20.")]
    vpc = subnets[0]["VpcId"]
    arn = elb.create_target_group(
        Name="web", Protocol="HTTP", Port=80, VpcId=vpc, HealthCheckIntervalSeconds=30, HealthCheckTimeoutSeconds=5,
        HealthyThresholdCount=3, UnhealthyThresholdCount=2,
    )["TargetGroups"][0]["TargetGroupArn"]  # fmt: skip
    elb.modify_target_group_attributes(
        TargetGroupArn=arn, Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}]
    )
    balancer = elb.create_load_balancer(Name="web", Subnets=[row["SubnetId"] for row in subnets])["LoadBalancers"][0]
    elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
    )  # fmt: skip
    if ids:
        elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": identifier} for identifier in ids])
    return str(arn)


def states(aws: Aws, arn: str, *ids: str) -> dict[str, tuple[str, str | None]]:
    wanted = {"Targets": [{"Id": identifier} for identifier in ids]} if ids else {}
    rows = aws.client("elbv2").describe_target_health(TargetGroupArn=arn, **wanted)["TargetHealthDescriptions"]
    return {row["Target"]["Id"]: (row["TargetHealth"]["State"], row["TargetHealth"].get("Reason")) for row in rows}


def test_a_new_target_is_initial_until_it_passed_a_check(aws):
    """Registration first, then one interval of checks."""
    host = aws.hosts("web")[0]
    arn = balanced(aws, host)
    assert states(aws, arn) == {host: ("initial", "Elb.RegistrationInProgress")}
    aws.advance(10)
    assert states(aws, arn) == {host: ("initial", "Elb.InitialHealthChecking")}
    aws.advance(30)
    assert states(aws, arn) == {host: ("healthy", None)}


def test_a_target_drains_for_the_full_delay_then_is_gone(aws):
    """Listed as draining even without traffic; afterwards unused, and only when asked for."""
    host, other = aws.hosts("web")[:2]
    arn = balanced(aws, host, other)
    aws.advance(60)
    aws.client("elbv2").deregister_targets(TargetGroupArn=arn, Targets=[{"Id": host}])
    aws.advance(119)
    assert states(aws, arn)[host] == ("draining", "Target.DeregistrationInProgress")
    aws.advance(2)
    assert list(states(aws, arn)) == [other]
    assert states(aws, arn, host) == {host: ("unused", "Target.NotRegistered")}


def test_deregistering_a_stranger_is_no_error(aws):
    """As with AWS; nothing is drained."""
    host, other = aws.hosts("web")[:2]
    arn = balanced(aws, host)
    aws.client("elbv2").deregister_targets(TargetGroupArn=arn, Targets=[{"Id": other}])
    assert list(states(aws, arn)) == [host]


def test_health_follows_a_reboot(aws):
    """Two missed checks make it unhealthy, three passed ones healthy again."""
    host = aws.hosts("web")[0]
    arn = balanced(aws, host)
    aws.advance(60)
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(20)
    assert states(aws, arn)[host][0] == "healthy"
    aws.advance(30)
    assert states(aws, arn)[host] == ("unhealthy", "Target.Timeout")
    aws.advance(60)  # up after 90 seconds
    assert states(aws, arn)[host][0] == "unhealthy"
    aws.advance(80)
    assert states(aws, arn)[host][0] == "healthy"


def test_a_stopped_target_is_unused(aws):
    """Target.InvalidState."""
    host = aws.hosts("web")[0]
    arn = balanced(aws, host)
    aws.advance(60)
    aws.ec2.stop_instances(InstanceIds=[host])
    assert states(aws, arn)[host] == ("unused", "Target.InvalidState")


def test_targets_of_a_group_without_load_balancer_are_not_in_use(aws):
    """Target.NotInUse."""
    host = aws.hosts("web")[0]
    vpc = aws.ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": ["10.20.0.0/16"]}])["Vpcs"][0]["VpcId"]
    made = aws.client("elbv2").create_target_group(Name="idle", Protocol="HTTP", Port=80, VpcId=vpc)
    arn = made["TargetGroups"][0]["TargetGroupArn"]
    aws.client("elbv2").register_targets(TargetGroupArn=arn, Targets=[{"Id": host}])
    aws.advance(60)
    assert states(aws, arn)[host] == ("unused", "Target.NotInUse")


def test_a_group_that_does_not_exist_is_refused(aws):
    """TargetGroupNotFound."""
    missing = f"arn:aws:elasticloadbalancing:{REGION}:111111111111:targetgroup/none/0123456789abcdef"
    with pytest.raises(aws.client("elbv2").exceptions.TargetGroupNotFoundException):
        aws.client("elbv2").describe_target_health(TargetGroupArn=missing)


def test_in_an_empty_aws_instances_without_a_profile_are_healthy_at_once(start):
    """Others' tests of moto's behaviour go on working."""
    aws = start(None)
    subnet = aws.ec2.describe_subnets()["Subnets"][0]
    image = aws.ec2.describe_images()["Images"][0]["ImageId"]
    made = aws.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=subnet["SubnetId"])["Instances"][0]
    group = aws.client("elbv2").create_target_group(Name="g", Protocol="HTTP", Port=80, VpcId=subnet["VpcId"])
    arn = group["TargetGroups"][0]["TargetGroupArn"]
    aws.client("elbv2").register_targets(TargetGroupArn=arn, Targets=[{"Id": made["InstanceId"]}])
    assert states(aws, arn) == {made["InstanceId"]: ("healthy", None)}
