"""Managed nodes, machines and faults: what is known of a host, how late, and what can go wrong."""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import REGION


def nodes(aws):
    pages = aws.ssm.get_paginator("describe_instance_information").paginate(PaginationConfig={"PageSize": 5})
    return {row["InstanceId"]: row for page in pages for row in page["InstanceInformationList"]}


def test_stopped_and_unregistered_hosts_are_not_listed(aws):
    """Absent, lost and refused mean the same to a campaign: not reachable."""
    lost, stopped, unregistered, *rest = aws.hosts("odd")
    listed = nodes(aws)
    assert stopped not in listed
    assert unregistered not in listed
    assert listed[lost]["PingStatus"] == "ConnectionLost"
    assert {listed[host]["PingStatus"] for host in [*rest, *aws.hosts("web")]} == {"Online"}
    assert aws.ssm.get_connection_status(Target=lost)["Status"] == "notconnected"
    assert aws.ssm.get_connection_status(Target=rest[0])["Status"] == "connected"


def test_the_ping_status_lags_behind_a_dead_agent(aws):
    """Five minutes of Online for a dead host."""
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "agent_dead", "host": host})
    aws.advance(240)
    assert nodes(aws)[host]["PingStatus"] == "Online"
    aws.advance(120)
    assert nodes(aws)[host]["PingStatus"] == "ConnectionLost"
    aws.control("faults", {"kind": "agent_online", "host": host})
    assert nodes(aws)[host]["PingStatus"] == "Online"


def test_nodes_are_filtered_in_both_forms(aws):
    """Never both at once, and tags with nothing else."""
    new = aws.ssm.describe_instance_information(Filters=[{"Key": "tag:PatchGroup", "Values": ["web"]}])
    old = aws.ssm.describe_instance_information(
        InstanceInformationFilterList=[{"key": "PingStatus", "valueSet": ["ConnectionLost"]}]
    )
    assert {row["InstanceId"] for row in new["InstanceInformationList"]} == set(aws.hosts("web"))
    assert [row["InstanceId"] for row in old["InstanceInformationList"]] == aws.hosts("odd")[:1]
    for filters, code in [
        ([{"Key": "Colour", "Values": ["red"]}], "InvalidFilterKey"),
        ([{"Key": "tag:PatchGroup", "Values": ["web"]}, {"Key": "PingStatus", "Values": ["Online"]}], "ValidationException"),
        ([{"Key": "PingStatus", "Values": ["Sleepy"]}], "InvalidInstanceInformationFilterValue"),
    ]:
        with pytest.raises(ClientError) as refused:
            aws.ssm.describe_instance_information(Filters=filters)
        assert refused.value.response["Error"]["Code"] == code


def test_a_page_size_outside_the_model_is_refused(aws):
    """botocore checks minimums only."""
    with pytest.raises(ClientError, match="Member must have value less than or equal to 50"):
        aws.ssm.describe_instance_information(MaxResults=51)


def test_a_reboot_shows_in_status_checks_and_in_the_journal(aws):
    """ok, impaired while it is down, initializing, ok."""
    host = aws.hosts("web")[0]

    def status():
        (row,) = aws.ec2.describe_instance_status(InstanceIds=[host])["InstanceStatuses"]
        return row["InstanceStatus"]["Status"]

    seen = [status()]
    aws.ec2.reboot_instances(InstanceIds=[host])
    for seconds in (10, 85, 60):
        aws.advance(seconds)
        seen.append(status())
    assert seen == ["ok", "impaired", "initializing", "ok"]
    assert aws.events(host) == ["out_of_service", "reboot_begun", "reboot_ended", "in_service"]


def test_a_reboot_by_somebody_else_ends_the_command_that_ran(aws):
    """The agent comes back and reports a failure; the journal knows when the process ended."""
    host = aws.hosts("web")[0]
    command = aws.patch(host)
    aws.advance(60)
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(300)
    assert aws.details(command) == {host: "Failed"}
    ended = next(line for line in aws.journal() if line["event"] == "command_ended")
    assert ended["interrupted"] is True


def test_machines_that_callers_stop_start_and_terminate_are_noticed(aws):
    """Through EC2 alone; SSM follows."""
    host, other = aws.hosts("web")[:2]
    aws.ec2.stop_instances(InstanceIds=[host])
    assert host not in nodes(aws)
    aws.ec2.start_instances(InstanceIds=[host])
    aws.advance(120)
    assert nodes(aws)[host]["PingStatus"] == "Online"
    aws.ec2.terminate_instances(InstanceIds=[other])
    with pytest.raises(ClientError, match="InvalidInstanceId"):
        aws.patch(other)
    assert aws.events(host) == ["out_of_service", "in_service"]
    assert aws.events(other) == ["out_of_service"]


def test_a_machine_that_a_caller_launches_becomes_a_managed_node_after_a_while(start):
    """With an instance profile, in an AWS that was empty before."""
    aws = start(None)
    iam = aws.client("iam", "us-east-1")
    iam.create_instance_profile(InstanceProfileName="managed")
    made = aws.ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1, IamInstanceProfile={"Name": "managed"})
    host = made["Instances"][0]["InstanceId"]
    assert nodes(aws) == {}
    aws.advance(300)
    assert list(nodes(aws)) == [host]
    command = aws.script(host, lines=["echo hello", "exit 5"])
    aws.advance(30)
    told = aws.ssm.get_command_invocation(CommandId=command, InstanceId=host)
    assert (told["ResponseCode"], told["StandardOutputContent"]) == (5, "hello\n")


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ({"kind": "throttle"}, "ThrottlingException", 400),
        ({"kind": "access_denied"}, "AccessDeniedException", 400),
        ({"kind": "error", "status": 503, "code": "ServiceUnavailable"}, "ServiceUnavailable", 503),
    ],
)
def test_a_fault_before_the_effect_leaves_no_command(aws, fault, code, status):
    """Limited by `times`: the second call goes through."""
    host = aws.hosts("web")[0]
    aws.control("faults", {**fault, "service": "ssm", "operation": "SendCommand", "times": 1})
    with pytest.raises(ClientError) as refused:
        aws.patch(host, operation="Scan")
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert aws.ssm.list_commands()["Commands"] == []
    assert aws.patch(host, operation="Scan")


def test_a_lost_answer_has_its_effect(aws):
    """A client that sends again without looking patches twice."""
    host = aws.hosts("web")[0]
    aws.control("faults", {"kind": "lost_answer", "operation": "SendCommand", "times": 1})
    with pytest.raises(ClientError) as refused:
        aws.patch(host, operation="Scan", Comment="token")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert [row["Comment"] for row in aws.ssm.list_commands()["Commands"]] == ["token"]


def test_faults_also_strike_what_moto_answers_and_can_be_taken_back(aws):
    """In the code of the service's own protocol."""
    fault = aws.control("faults", {"kind": "throttle", "service": "ec2"})
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        aws.ec2.describe_instances()
    mine = [row for row in aws.control("faults")["faults"] if row["kind"] == "throttle"]
    assert mine[0]["struck"] == 1
    aws.control(f"faults/{fault['id']}", method="DELETE")
    assert aws.ec2.describe_instances()["Reservations"]


@pytest.mark.parametrize("way", ["RunInstances", "a group by its template", "a group by its configuration"])
def test_what_is_launched_with_a_profile_becomes_a_managed_node(start, way):
    """The profile may stand in the request's launch template, in the group's, or in its launch configuration."""
    aws = start(None)
    iam, scaling = aws.client("iam"), aws.client("autoscaling")
    iam.create_role(RoleName="managed", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="managed")
    iam.add_role_to_instance_profile(InstanceProfileName="managed", RoleName="managed")
    image = next(row["ImageId"] for row in aws.ec2.describe_images()["Images"] if "amzn2" in row["Name"])
    data = {"ImageId": image, "InstanceType": "t3.micro", "IamInstanceProfile": {"Name": "managed"}}
    aws.ec2.create_launch_template(LaunchTemplateName="managed", LaunchTemplateData=data)
    sizes = {"MinSize": 1, "MaxSize": 1, "AvailabilityZones": [f"{REGION}a"]}
    if way == "RunInstances":
        aws.ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateName": "managed"})
    elif way == "a group by its template":
        scaling.create_auto_scaling_group(AutoScalingGroupName="g", LaunchTemplate={"LaunchTemplateName": "managed"}, **sizes)
    else:
        scaling.create_launch_configuration(
            LaunchConfigurationName="c", ImageId=image, InstanceType="t3.micro", IamInstanceProfile="managed"
        )
        scaling.create_auto_scaling_group(AutoScalingGroupName="g", LaunchConfigurationName="c", **sizes)
    assert aws.ssm.describe_instance_information()["InstanceInformationList"] == []
    aws.advance(900)
    (row,) = aws.ssm.describe_instance_information()["InstanceInformationList"]
    assert row["PingStatus"] == "Online"
    command = aws.script(row["InstanceId"], lines=["echo here; exit 3"])
    aws.advance(60)
    found = aws.ssm.get_command_invocation(CommandId=command, InstanceId=row["InstanceId"])
    assert (found["StandardOutputContent"], found["ResponseCode"]) == ("here\n", 3)
