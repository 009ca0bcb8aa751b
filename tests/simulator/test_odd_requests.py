"""Requests over which the long fuzz found somebody tripping: each is refused, as a client's mistake, and can be read."""

import pytest
from botocore.exceptions import ClientError


def refusal(call, **request):
    with pytest.raises(ClientError) as refused:
        call(**request)
    answer = refused.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


@pytest.mark.parametrize("name", ["DescribeInstances", "DescribeSnapshots", "DescribeImages"])
def test_a_filter_that_nobody_knows_is_refused_by_ec2(name, aws):
    """EC2's error codes: InvalidParameterValue. moto raises an error of its own, which a server would answer as a 500."""
    client = aws.ec2
    call = {"DescribeInstances": client.describe_instances, "DescribeSnapshots": client.describe_snapshots}.get(
        name, client.describe_images
    )
    for odd in ("freeze", ""):
        status, code, message = refusal(call, Filters=[{"Name": odd, "Values": ["i-0"]}])
        assert (status, code) == (400, "InvalidParameterValue")
        assert f"The filter '{odd}' is invalid" in message


def test_a_character_that_xml_cannot_hold_is_refused_and_not_repeated(aws):
    """EC2's error codes: InvalidCharacter. An answer that repeats it could be read by no client."""
    for call, request in (
        (aws.ec2.create_snapshot, {"VolumeId": "\x00"}),
        (aws.ec2.create_snapshots, {"InstanceSpecification": {"InstanceId": aws.hosts("web")[0]}, "Description": "a\x00b"}),
    ):
        status, code, message = refusal(call, **request)
        assert (status, code) == (400, "InvalidCharacter")
        assert r"\x00" in message
    groups = aws.client("autoscaling")
    assert refusal(groups.describe_instance_refreshes, AutoScalingGroupName="a\x0bb")[:2] == (400, "ValidationError")


def test_a_moment_beyond_all_calendars_is_refused(aws):
    """A number that is no date: AWS's deserialiser refuses it before anything else."""
    config = aws.client("config")
    asked = {"ConfigRuleName": "patched", "ResourceKeys": [{"ResourceType": "AWS::EC2::Instance", "ResourceId": "i-0"}]}

    def beyond(params, **_):
        params["body"] = params["body"].replace(b"1800000000", b"1" + b"0" * 30)

    config.meta.events.register("before-call.config.PutRemediationExceptions", beyond)
    assert refusal(config.put_remediation_exceptions, **asked, ExpirationTime=1_800_000_000)[:2] == (
        400,
        "SerializationException",
    )


def test_a_target_without_an_id_is_refused(aws):
    """By the model: Id is required."""
    balancer = aws.client("elbv2")
    vpc = aws.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    made = balancer.create_target_group(Name="front", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"]
    group = made[0]["TargetGroupArn"]

    def spoil(params, **_):
        del params["body"]["Targets.member.1.Id"]

    balancer.meta.events.register("before-call.elastic-load-balancing-v2.DeregisterTargets", spoil)
    status, code, message = refusal(balancer.deregister_targets, TargetGroupArn=group, Targets=[{"Id": "i-0", "Port": 80}])
    assert (status, code) == (400, "ValidationError")
    assert "'targets.1.member.id' failed to satisfy constraint: Member must not be null" in message
