"""Auto Scaling groups: standby, health, capacity, and instance refreshes from preferences to rollback."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import FEW, REGION, Aws

SAMPLES = Path(__file__).resolve().parents[3] / "shared/data/aws-cli-examples/autoscaling"

GROUP = FEW.replace(
    "fleets:",
    """fleets:
  - name: app
    account: "111111111111"
    region: eu-central-1
    count: 10
    template: amazon
    tags: {Environment: prod, PatchGroup: web}
    auto_scaling_group: {name: app, min: 8, max: 12}""",
)


@pytest.fixture
def aws(start) -> Aws:
    return start(GROUP)


def group(aws: Aws, name: str = "app") -> dict[str, Any]:
    (row,) = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return dict(row)


def members(aws: Aws, state: str = "InService") -> list[str]:
    return [row["InstanceId"] for row in group(aws)["Instances"] if row["LifecycleState"] == state]


def refresh(aws: Aws, *, version: str | None = None, **preferences: Any) -> str:
    wanted = {"DesiredConfiguration": {"LaunchTemplate": {"LaunchTemplateName": "app", "Version": version}}} if version else {}
    given = {"Preferences": preferences} if preferences else {}
    made = aws.client("autoscaling").start_instance_refresh(AutoScalingGroupName="app", **wanted, **given)
    return str(made["InstanceRefreshId"])


def row(aws: Aws, number: int = 0) -> dict[str, Any]:
    return dict(aws.client("autoscaling").describe_instance_refreshes(AutoScalingGroupName="app")["InstanceRefreshes"][number])


def until(aws: Aws, *statuses: str, step: float = 30, most: float = 8 * 3600) -> dict[str, Any]:
    """Let time pass until the newest refresh has one of the statuses; never longer than `most` virtual seconds."""
    passed = 0.0
    while row(aws)["Status"] not in statuses:
        assert passed < most, f"{row(aws)['Status']} after {passed:g} s: {row(aws).get('StatusReason')}"
        aws.advance(step)
        passed += step
    return row(aws)


def new_version(aws: Aws, *, image: str | None = None) -> str:
    """A launch template version with an image that has every update of today."""
    made = image or aws.ec2.register_image(Name="golden", RootDeviceName="/dev/xvda")["ImageId"]
    answer = aws.ec2.create_launch_template_version(
        LaunchTemplateName="app", SourceVersion="1", LaunchTemplateData={"ImageId": made}
    )
    return str(answer["LaunchTemplateVersion"]["VersionNumber"])


def refused(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


# --- refresh ---


def test_a_refresh_replaces_every_instance_within_its_limits(aws):
    """Ten hosts, 80 per cent healthy: never more than two are out; then all are new and the group names the version."""
    old = set(members(aws))
    version = new_version(aws)
    identifier = refresh(aws, version=version, MinHealthyPercentage=80, InstanceWarmup=60)
    assert row(aws)["Status"] == "Pending"
    aws.advance(15)
    first = row(aws)
    assert (first["Status"], first["PercentageComplete"], first["InstancesToUpdate"]) == ("InProgress", 0, 10)
    seen, least = [0], 10
    for _ in range(200):
        aws.advance(15)
        least = min(least, len(members(aws)))
        seen.append(row(aws)["PercentageComplete"])
        if row(aws)["Status"] == "Successful":
            break
    last = row(aws)
    assert (last["InstanceRefreshId"], last["Status"], last["PercentageComplete"], last["InstancesToUpdate"]) == (
        identifier,
        "Successful",
        100,
        0,
    )
    assert least >= 8
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert not old & set(members(aws))
    assert len(members(aws)) == 10
    assert group(aws)["LaunchTemplate"]["Version"] == version
    assert {one["LaunchTemplate"]["Version"] for one in group(aws)["Instances"]} == {version}
    assert last["EndTime"] > last["StartTime"]


def test_replaced_instances_have_the_patch_level_of_their_image_and_the_tags_of_the_group(aws):
    """A golden image of today lacks nothing; the hosts are managed nodes and scan as compliant."""
    refresh(aws, version=new_version(aws), MinHealthyPercentage=0, InstanceWarmup=0)
    until(aws, "Successful")
    aws.advance(300)
    hosts = members(aws)
    aws.patch(*hosts, operation="Scan")
    aws.advance(300)
    states = aws.ssm.describe_instance_patch_states(InstanceIds=hosts)["InstancePatchStates"]
    assert {state["MissingCount"] for state in states} == {0}
    assert {state["PatchGroup"] for state in states} == {"web"}


def test_an_old_image_brings_the_old_holes_back(aws):
    """Without a new version the same image is used: each new host lacks the same updates."""
    refresh(aws, MinHealthyPercentage=0, InstanceWarmup=0)
    until(aws, "Successful")
    aws.advance(300)
    aws.patch(*members(aws), operation="Scan")
    aws.advance(300)
    states = aws.ssm.describe_instance_patch_states(InstanceIds=members(aws))["InstancePatchStates"]
    assert len({state["MissingCount"] for state in states}) == 1
    assert states[0]["MissingCount"] >= 4


def test_the_journal_tells_what_a_refresh_did_to_each_host(aws):
    """Out of service, replaced by whom, in service, all by the request that began it."""
    old = members(aws)
    refresh(aws, MinHealthyPercentage=50, InstanceWarmup=0)
    until(aws, "Successful")
    lines = [line for line in aws.journal() if line["host"] in old]
    assert [line["event"] for line in lines if line["host"] == old[0]] == ["out_of_service", "replaced"]
    successors = [line["replaced_by"] for line in lines if line["event"] == "replaced"]
    assert set(successors) == set(members(aws))
    assert len(successors) == 10
    for successor in successors:
        assert "in_service" in aws.events(successor)
    assert len({line["cause"]["request_id"] for line in lines}) == 1
    assert lines[0]["cause"]["request_id"]


def test_only_one_refresh_a_group_at_a_time(aws):
    """Also while it rolls back or is cancelled."""
    refresh(aws)
    code, message = refused(aws.client("autoscaling").start_instance_refresh, AutoScalingGroupName="app")
    assert code == "InstanceRefreshInProgress"
    assert "already in progress" in message


def test_a_refresh_stops_at_checkpoints(aws):
    """One host first, then its delay; a checkpoint that has been passed is skipped; after the last one, all."""
    refresh(aws, MinHealthyPercentage=50, InstanceWarmup=30, CheckpointPercentages=[1, 5, 40, 100], CheckpointDelay=600)
    old = set(members(aws))
    aws.advance(300)
    assert row(aws)["PercentageComplete"] == 10
    assert "checkpoint" in row(aws)["StatusReason"]
    assert len(old - set(members(aws))) == 1
    aws.advance(700)
    assert row(aws)["PercentageComplete"] in (10, 40)
    aws.advance(300)
    assert row(aws)["PercentageComplete"] == 40
    assert row(aws)["Status"] == "InProgress"
    assert until(aws, "Successful")["PercentageComplete"] == 100


def test_a_last_checkpoint_below_100_ends_the_refresh_there(aws):
    """Successful at 20 per cent: the rest stays as it was."""
    old = set(members(aws))
    refresh(aws, MinHealthyPercentage=80, InstanceWarmup=0, CheckpointPercentages=[20], CheckpointDelay=60)
    last = until(aws, "Successful")
    assert last["PercentageComplete"] == 20
    assert len(old & set(members(aws))) == 8


def test_a_refresh_bakes_before_it_is_successful(aws):
    """Baking for BakeTime, at 100 per cent."""
    refresh(aws, MinHealthyPercentage=0, InstanceWarmup=0, BakeTime=900)
    baking = until(aws, "Baking")
    assert baking["PercentageComplete"] == 100
    aws.advance(800)
    assert row(aws)["Status"] == "Baking"
    aws.advance(200)
    assert row(aws)["Status"] == "Successful"


def test_skip_matching_leaves_instances_that_have_the_version(aws):
    """Nothing to do is successful at once."""
    old = members(aws)
    refresh(aws, version="1", SkipMatching=True)
    aws.advance(20)
    assert row(aws)["Status"] == "Successful"
    assert members(aws) == old


def test_cancelling_leaves_what_was_done(aws):
    """Waits for the instances on their way, then is Cancelled; the group keeps its old version."""
    old = set(members(aws))
    refresh(aws, version=new_version(aws), MinHealthyPercentage=80, InstanceWarmup=60)
    aws.advance(60)
    identifier = aws.client("autoscaling").cancel_instance_refresh(AutoScalingGroupName="app")["InstanceRefreshId"]
    assert row(aws)["Status"] == "Cancelling"
    last = until(aws, "Cancelled")
    assert last["InstanceRefreshId"] == identifier
    assert last["PercentageComplete"] == 20
    assert len(old & set(members(aws))) == 8
    assert group(aws)["LaunchTemplate"]["Version"] == "1"
    code, _ = refused(aws.client("autoscaling").cancel_instance_refresh, AutoScalingGroupName="app")
    assert code == "ActiveInstanceRefreshNotFound"


def test_cancelling_without_waiting_ends_at_once(aws):
    """WaitForTransitioningInstances false."""
    refresh(aws)
    aws.advance(60)
    aws.client("autoscaling").cancel_instance_refresh(AutoScalingGroupName="app", WaitForTransitioningInstances=False)
    assert row(aws)["Status"] == "Cancelled"


def test_a_rollback_brings_the_old_version_back(aws):
    """RollbackInProgress from 0 per cent, then RollbackSuccessful; RollbackDetails say where it turned."""
    version = new_version(aws)
    refresh(aws, version=version, MinHealthyPercentage=50, InstanceWarmup=0, CheckpointPercentages=[50, 100])
    aws.advance(400)
    assert row(aws)["PercentageComplete"] == 50
    aws.client("autoscaling").rollback_instance_refresh(AutoScalingGroupName="app")
    turned = row(aws)
    assert (turned["Status"], turned["PercentageComplete"]) == ("RollbackInProgress", 0)
    assert turned["RollbackDetails"]["PercentageCompleteOnRollback"] == 50
    assert turned["RollbackDetails"]["InstancesToUpdateOnRollback"] == 5
    until(aws, "RollbackSuccessful")
    assert group(aws)["LaunchTemplate"]["Version"] == "1"
    assert "2" not in {one.get("LaunchTemplate", {}).get("Version") for one in group(aws)["Instances"]}
    assert len(members(aws)) == 10


def test_a_rollback_is_refused_where_there_is_nothing_to_return_to(aws):
    """No desired configuration, or the group follows $Latest: irreversible."""
    client = aws.client("autoscaling")
    assert refused(client.rollback_instance_refresh, AutoScalingGroupName="app")[0] == "ActiveInstanceRefreshNotFound"
    refresh(aws)
    assert refused(client.rollback_instance_refresh, AutoScalingGroupName="app")[0] == "IrreversibleInstanceRefresh"
    client.cancel_instance_refresh(AutoScalingGroupName="app", WaitForTransitioningInstances=False)
    latest = {"LaunchTemplateName": "app", "Version": "$Latest"}
    client.update_auto_scaling_group(AutoScalingGroupName="app", LaunchTemplate=latest)
    refresh(aws, version="1")
    assert refused(client.rollback_instance_refresh, AutoScalingGroupName="app")[0] == "IrreversibleInstanceRefresh"


def test_an_alarm_turns_a_refresh_round(aws):
    """With AutoRollback an alarm leads straight to RollbackInProgress; the reason names it."""
    client = aws.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName="errors", Namespace="shop", MetricName="5xx", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    version = new_version(aws)
    refresh(
        aws, version=version, MinHealthyPercentage=80, InstanceWarmup=60, AutoRollback=True,
        AlarmSpecification={"Alarms": ["errors"]},
    )  # fmt: skip
    aws.advance(60)
    aws.control("faults", {"kind": "alarm_fires", "alarm": "errors", "after": 60})
    aws.advance(30)
    assert row(aws)["Status"] == "InProgress"
    aws.advance(60)
    assert row(aws)["Status"] == "RollbackInProgress"
    assert "errors" in row(aws)["RollbackDetails"]["RollbackReason"]
    until(aws, "RollbackSuccessful")
    assert client.describe_alarms(AlarmNames=["errors"])["MetricAlarms"][0]["StateValue"] == "ALARM"


def test_an_alarm_without_auto_rollback_fails_the_refresh(aws):
    """What was replaced stays."""
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName="errors", Namespace="shop", MetricName="5xx", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    refresh(aws, AlarmSpecification={"Alarms": ["errors"]})
    aws.control("faults", {"kind": "alarm_fires", "alarm": "errors", "after": 30})
    last = until(aws, "Failed")
    assert "errors" in last["StatusReason"]


def test_standby_blocks_a_refresh_for_an_hour_then_it_fails(aws):
    """StandbyInstances Wait is the default; Ignore goes on without it, Terminate replaces it."""
    host = members(aws)[0]
    aws.client("autoscaling").enter_standby(InstanceIds=[host], AutoScalingGroupName="app", ShouldDecrementDesiredCapacity=True)
    aws.advance(60)
    refresh(aws, MinHealthyPercentage=0, InstanceWarmup=0)
    aws.advance(1800)
    assert (row(aws)["Status"], row(aws)["InstancesToUpdate"]) == ("InProgress", 1)
    assert "Standby" in row(aws)["StatusReason"]
    last = until(aws, "Failed")
    assert "no progress for 1 hour" in last["StatusReason"]
    assert host in members(aws, "Standby")
    refresh(aws, MinHealthyPercentage=0, InstanceWarmup=0, StandbyInstances="Ignore")
    until(aws, "Successful")
    assert host in members(aws, "Standby")


def test_protected_instances_wait_or_are_refreshed_as_asked(aws):
    """ScaleInProtectedInstances Refresh replaces them."""
    host = members(aws)[0]
    client = aws.client("autoscaling")
    client.set_instance_protection(InstanceIds=[host], AutoScalingGroupName="app", ProtectedFromScaleIn=True)
    refresh(aws, MinHealthyPercentage=0, InstanceWarmup=0, ScaleInProtectedInstances="Ignore")
    until(aws, "Successful")
    assert host in members(aws)
    refresh(aws, MinHealthyPercentage=0, InstanceWarmup=0, ScaleInProtectedInstances="Refresh")
    until(aws, "Successful")
    assert host not in members(aws)


def test_new_instances_that_never_get_healthy_fail_the_refresh_after_an_hour(aws):
    """With AutoRollback it goes back instead; here the old instances that are left stay."""
    client = aws.client("autoscaling")
    client.suspend_processes(AutoScalingGroupName="app", ScalingProcesses=["Launch"])
    refresh(aws, MinHealthyPercentage=80)
    aws.advance(3000)
    assert row(aws)["Status"] == "InProgress"
    last = until(aws, "Failed", most=1200)
    assert last["PercentageComplete"] == 0


def test_max_healthy_launches_before_it_terminates(aws):
    """100 to 110 per cent: never fewer than ten in service, never more than eleven at all."""
    refresh(aws, MinHealthyPercentage=100, MaxHealthyPercentage=110, InstanceWarmup=0)
    least, most = 10, 10
    for _ in range(300):
        aws.advance(15)
        rows = group(aws)["Instances"]
        least = min(least, sum(one["LifecycleState"] == "InService" for one in rows))
        most = max(most, sum(one["LifecycleState"] != "Terminating" for one in rows))
        if row(aws)["Status"] == "Successful":
            break
    assert row(aws)["Status"] == "Successful"
    assert (least, most) == (10, 11)
    assert len(members(aws)) == 10


@pytest.mark.parametrize(
    ("preferences", "said"),
    [
        ({"MaxHealthyPercentage": 120}, "requires MinHealthyPercentage"),
        ({"MinHealthyPercentage": 10, "MaxHealthyPercentage": 120}, "cannot be greater than 100"),
        ({"CheckpointDelay": 60}, "without CheckpointPercentages"),
        ({"CheckpointPercentages": [50, 20]}, "ascending order"),
        ({"CheckpointPercentages": [20, 20]}, "ascending order"),
        ({"AutoRollback": True}, "no DesiredConfiguration"),
        ({"AlarmSpecification": {"Alarms": ["none"]}}, "do not exist: none"),
        ({"BakeTime": 999_999}, "less than or equal to 172800"),
    ],
)
def test_preferences_that_do_not_fit_are_refused(aws, preferences, said):
    """ValidationError, and no refresh began."""
    code, message = refused(aws.client("autoscaling").start_instance_refresh, AutoScalingGroupName="app", Preferences=preferences)
    assert code == "ValidationError"
    assert said in message
    assert not aws.client("autoscaling").describe_instance_refreshes(AutoScalingGroupName="app")["InstanceRefreshes"]


def test_a_group_or_version_that_does_not_exist_is_refused(aws):
    """ValidationError for both."""
    client = aws.client("autoscaling")
    assert refused(client.start_instance_refresh, AutoScalingGroupName="none") == (
        "ValidationError",
        "AutoScalingGroup name not found - null",
    )
    wanted = {"LaunchTemplate": {"LaunchTemplateName": "app", "Version": "7"}}
    assert refused(client.start_instance_refresh, AutoScalingGroupName="app", DesiredConfiguration=wanted)[0] == "ValidationError"


def test_refreshes_are_listed_newest_first_in_pages(aws):
    """MaxRecords and NextToken; a row has AWS's members."""
    client = aws.client("autoscaling")
    made = []
    for _ in range(3):
        made.append(refresh(aws))
        client.cancel_instance_refresh(AutoScalingGroupName="app", WaitForTransitioningInstances=False)
        aws.advance(5)
    first = client.describe_instance_refreshes(AutoScalingGroupName="app", MaxRecords=2)
    rest = client.describe_instance_refreshes(AutoScalingGroupName="app", MaxRecords=2, NextToken=first["NextToken"])
    listed = [one["InstanceRefreshId"] for one in first["InstanceRefreshes"] + rest["InstanceRefreshes"]]
    assert listed == made[::-1]
    assert set(first["InstanceRefreshes"][0]["Preferences"]) == {
        "MinHealthyPercentage",
        "InstanceWarmup",
        "SkipMatching",
        "AutoRollback",
        "ScaleInProtectedInstances",
        "StandbyInstances",
    }


def test_a_refresh_replaces_the_warm_pool_too(aws):
    """ProgressDetails has both pools."""
    client = aws.client("autoscaling")
    client.put_warm_pool(AutoScalingGroupName="app", MinSize=2, PoolState="Stopped")
    aws.advance(120)
    before = client.describe_warm_pool(AutoScalingGroupName="app")["Instances"]
    assert [one["LifecycleState"] for one in before] == ["Warmed:Stopped", "Warmed:Stopped"]
    version = new_version(aws)
    refresh(aws, version=version, MinHealthyPercentage=0, InstanceWarmup=0)
    last = until(aws, "Successful")
    assert last["ProgressDetails"]["WarmPoolProgress"] == {"PercentageComplete": 100, "InstancesToUpdate": 0}
    after = client.describe_warm_pool(AutoScalingGroupName="app")["Instances"]
    assert not {one["InstanceId"] for one in before} & {one["InstanceId"] for one in after}
    assert {one["LaunchTemplate"]["Version"] for one in after} == {version}


def test_events_of_a_refresh_reach_a_queue(aws):
    """In the shape of AWS's event reference."""
    queue = aws.client("sqs").create_queue(QueueName="refreshes")["QueueUrl"]
    arn = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.client("events").put_rule(
        Name="refreshes",
        EventPattern=json.dumps({"source": ["aws.autoscaling"], "detail-type": [{"prefix": "EC2 Auto Scaling"}]}),
    )
    aws.client("events").put_targets(Rule="refreshes", Targets=[{"Id": "1", "Arn": arn}])
    identifier = refresh(aws, MinHealthyPercentage=0, InstanceWarmup=0, CheckpointPercentages=[50, 100], CheckpointDelay=60)
    until(aws, "Successful")
    told = []
    while answer := aws.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in answer:
            told.append(json.loads(message["Body"]))
            aws.client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert [event["detail-type"].removeprefix("EC2 Auto Scaling Instance Refresh ") for event in told] == [
        "Started",
        "Checkpoint Reached",
        "Succeeded",
    ]
    assert told[1]["detail"] == {
        "InstanceRefreshId": identifier,
        "AutoScalingGroupName": "app",
        "CheckpointPercentage": "50",
        "CheckpointDelay": "60",
    }
    assert told[0]["resources"] == [group(aws)["AutoScalingGroupARN"]]
    assert told[0]["region"] == REGION


BALANCED = GROUP.replace(
    "auto_scaling_group: {name: app, min: 8, max: 12}",
    "auto_scaling_group: {name: app, min: 8, max: 12, health_check: ELB}\n"
    "    target_group: {name: app, deregistration_delay: 120}",
)


def targets(aws: Aws) -> dict[str, str]:
    client = aws.client("elbv2")
    arn = client.describe_target_groups(Names=["app"])["TargetGroups"][0]["TargetGroupArn"]
    rows = client.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    return {row["Target"]["Id"]: row["TargetHealth"]["State"] for row in rows}


def test_a_refresh_drains_the_old_and_waits_for_the_new_to_pass_the_load_balancer(start):
    """Terminating for the whole delay; done counts only what is healthy there."""
    aws = start(BALANCED)
    assert set(targets(aws).values()) == {"healthy"}
    old = set(members(aws))
    refresh(aws, MinHealthyPercentage=50, InstanceWarmup=0, CheckpointPercentages=[20, 100], CheckpointDelay=60)
    aws.advance(70)
    assert len(members(aws, "Terminating")) == 2
    assert sorted(targets(aws).values()).count("draining") == 2
    assert row(aws)["PercentageComplete"] == 0
    assert set(targets(aws)) >= old
    aws.advance(40)
    assert row(aws)["PercentageComplete"] == 20
    until(aws, "Successful")
    aws.advance(180)
    assert set(targets(aws)) == set(members(aws))
    assert set(targets(aws).values()) == {"healthy"}


def test_standby_lasts_as_long_as_draining_and_leaves_the_target_group(start):
    """EnteringStandby for the delay; back through initial to healthy."""
    aws = start(BALANCED)
    client, host = aws.client("autoscaling"), members(aws)[0]
    client.enter_standby(InstanceIds=[host], AutoScalingGroupName="app", ShouldDecrementDesiredCapacity=True)
    aws.advance(110)
    assert (members(aws, "EnteringStandby"), targets(aws)[host]) == ([host], "draining")
    aws.advance(20)
    assert members(aws, "Standby") == [host]
    assert host not in targets(aws)
    client.exit_standby(InstanceIds=[host], AutoScalingGroupName="app")
    aws.advance(30)
    assert targets(aws)[host] == "initial"
    aws.advance(60)
    assert targets(aws)[host] == "healthy"


def test_a_host_that_the_load_balancer_finds_unhealthy_is_replaced(start):
    """With health checks of type ELB a reboot is enough."""
    aws = start(BALANCED.replace("reboot: [90, 90]", "reboot: [400, 400]"))
    host = members(aws)[0]
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(300)
    assert host not in members(aws)


# --- standby ---


def test_standby_takes_a_host_out_and_brings_it_back(aws):
    """EnteringStandby, Standby with less capacity, Pending, InService with the old one."""
    client, host = aws.client("autoscaling"), members(aws)[0]
    answer = client.enter_standby(InstanceIds=[host], AutoScalingGroupName="app", ShouldDecrementDesiredCapacity=True)
    (activity,) = answer["Activities"]
    assert activity["Description"] == f"Moving EC2 instance to Standby: {host}"
    assert activity["Cause"].endswith("shrinking the capacity from 10 to 9.")
    assert (activity["StatusCode"], activity["Progress"]) == ("InProgress", 50)
    assert set(json.loads(activity["Details"])) == {"Subnet ID", "Availability Zone"}
    assert members(aws, "EnteringStandby") == [host]
    aws.advance(20)
    assert members(aws, "Standby") == [host]
    assert group(aws)["DesiredCapacity"] == 9
    back = client.exit_standby(InstanceIds=[host], AutoScalingGroupName="app")["Activities"][0]
    assert (back["StatusCode"], back["Progress"]) == ("PreInService", 30)
    assert members(aws, "Pending") == [host]
    aws.advance(30)
    assert host in members(aws)
    assert group(aws)["DesiredCapacity"] == 10
    assert aws.events(host) == ["out_of_service", "in_service"]


def test_standby_below_the_minimum_is_refused(aws):
    """Sizes are named, nothing moves."""
    client = aws.client("autoscaling")
    code, message = refused(
        client.enter_standby, InstanceIds=members(aws)[:3], AutoScalingGroupName="app", ShouldDecrementDesiredCapacity=True
    )
    assert code == "ValidationError"
    assert "min-size=8, max-size=12, and desired-size=10" in message
    assert len(members(aws)) == 10


def test_standby_wants_instances_in_service(aws):
    """Twice, or for a stranger: ValidationError; ExitStandby wants Standby."""
    client, host = aws.client("autoscaling"), members(aws)[0]
    given = {"AutoScalingGroupName": "app", "ShouldDecrementDesiredCapacity": True}
    client.enter_standby(InstanceIds=[host], **given)
    assert "is not in InService" in refused(client.enter_standby, InstanceIds=[host], **given)[1]
    assert "is not part of" in refused(client.enter_standby, InstanceIds=[aws.hosts("web")[0]], **given)[1]
    assert "is not in Standby" in refused(client.exit_standby, InstanceIds=[members(aws)[0]], AutoScalingGroupName="app")[1]


def test_standby_without_decrement_launches_a_replacement(aws):
    """The desired capacity stays."""
    host = members(aws)[0]
    aws.client("autoscaling").enter_standby(InstanceIds=[host], AutoScalingGroupName="app", ShouldDecrementDesiredCapacity=False)
    assert len(members(aws, "Pending")) == 1
    aws.advance(60)
    assert (len(members(aws)), members(aws, "Standby"), group(aws)["DesiredCapacity"]) == (10, [host], 10)


def test_a_host_in_standby_may_be_down(aws):
    """No health check looks at it."""
    host = members(aws)[0]
    aws.client("autoscaling").enter_standby(InstanceIds=[host], AutoScalingGroupName="app", ShouldDecrementDesiredCapacity=True)
    aws.advance(30)
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(3600)
    assert members(aws, "Standby") == [host]


# --- health and capacity ---


def test_a_stopped_instance_is_replaced_after_a_while(aws):
    """Unhealthy at once, replaced about a minute later, and the journal names the successor."""
    host = members(aws)[0]
    aws.ec2.stop_instances(InstanceIds=[host])
    seen = {one["InstanceId"]: one["HealthStatus"] for one in group(aws)["Instances"]}
    assert seen[host] == "Unhealthy"
    aws.advance(70)
    assert host not in members(aws)
    aws.advance(120)
    assert len(members(aws)) == 10
    (line,) = [one for one in aws.journal() if one["host"] == host and one["event"] == "replaced"]
    assert line["replaced_by"] in members(aws)
    newest = aws.client("autoscaling").describe_scaling_activities(AutoScalingGroupName="app")["Activities"]
    assert any("EC2 health check" in activity["Cause"] for activity in newest)


@pytest.mark.parametrize("process", ["HealthCheck", "ReplaceUnhealthy"])
def test_suspended_processes_keep_an_unhealthy_instance(aws, process):
    """Until they are resumed."""
    client, host = aws.client("autoscaling"), members(aws)[0]
    client.suspend_processes(AutoScalingGroupName="app", ScalingProcesses=[process])
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(3600)
    assert host in [one["InstanceId"] for one in group(aws)["Instances"]]
    client.resume_processes(AutoScalingGroupName="app", ScalingProcesses=[process])
    aws.advance(120)
    assert host not in [one["InstanceId"] for one in group(aws)["Instances"]]


def test_a_reboot_is_no_reason_to_replace_but_one_that_never_ends_is(aws):
    """The status check must fail for ten minutes."""
    first, second = members(aws)[:2]
    aws.control("faults", {"kind": "reboot_never_returns", "host": second})
    aws.ec2.reboot_instances(InstanceIds=[first, second])
    aws.advance(500)
    assert {first, second} <= set(members(aws))
    aws.advance(400)
    assert first in members(aws)
    assert second not in members(aws)


def test_instances_set_unhealthy_are_replaced(aws):
    """SetInstanceHealth; an unknown instance is refused."""
    client, host = aws.client("autoscaling"), members(aws)[0]
    client.set_instance_health(InstanceId=host, HealthStatus="Unhealthy")
    aws.advance(90)
    assert host not in members(aws)
    code, _ = refused(client.set_instance_health, InstanceId="i-0123456789abcdef0", HealthStatus="Unhealthy")
    assert code == "ValidationError"


def test_the_desired_capacity_makes_and_removes_hosts(aws):
    """Within min and max only; new hosts register, old ones leave the journal as terminated."""
    client = aws.client("autoscaling")
    client.set_desired_capacity(AutoScalingGroupName="app", DesiredCapacity=12)
    assert len(members(aws, "Pending")) == 2
    aws.advance(300)
    assert len(members(aws)) == 12
    nodes = aws.ssm.get_paginator("describe_instance_information").paginate().build_full_result()["InstanceInformationList"]
    assert set(members(aws)) <= {node["InstanceId"] for node in nodes}
    client.set_desired_capacity(AutoScalingGroupName="app", DesiredCapacity=9)
    assert len(members(aws, "Terminating")) == 3
    aws.advance(60)
    assert len(group(aws)["Instances"]) == 9
    assert refused(client.set_desired_capacity, AutoScalingGroupName="app", DesiredCapacity=13)[0] == "ValidationError"
    assert refused(client.set_desired_capacity, AutoScalingGroupName="app", DesiredCapacity=7)[0] == "ValidationError"


def test_a_fault_scales_or_replaces_in_the_middle(aws):
    """What the campaign did not ask for happens too."""
    aws.control("faults", {"kind": "group_scales_out", "group": "app", "number": 1, "after": 60})
    aws.control("faults", {"kind": "group_replaces", "group": "app", "number": 1, "after": 400})
    aws.advance(200)
    before = set(members(aws))
    assert len(before) == 11
    aws.advance(400)
    assert len(members(aws)) == 11
    assert len(before - set(members(aws))) == 1


def test_terminating_a_member_replaces_it_unless_the_capacity_shrinks(aws):
    """TerminateInstanceInAutoScalingGroup."""
    client, (first, second) = aws.client("autoscaling"), members(aws)[:2]
    answer = client.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    assert answer["Activity"]["Description"] == f"Terminating EC2 instance: {first}"
    client.terminate_instance_in_auto_scaling_group(InstanceId=second, ShouldDecrementDesiredCapacity=False)
    aws.advance(120)
    assert len(members(aws)) == 9
    assert not {first, second} & set(members(aws))


def test_members_are_listed_fifty_a_page_at_most(aws):
    """DescribeAutoScalingInstances refuses more."""
    client = aws.client("autoscaling")
    pages = client.get_paginator("describe_auto_scaling_instances").paginate(PaginationConfig={"PageSize": 4})
    assert [len(page["AutoScalingInstances"]) for page in pages] == [4, 4, 2]
    assert refused(client.describe_auto_scaling_instances, MaxRecords=51)[0] == "ValidationError"
    assert {one["HealthStatus"] for one in client.describe_auto_scaling_instances()["AutoScalingInstances"]} == {"HEALTHY"}


@pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of the AWS CLI are not there")
def test_answers_have_the_members_of_the_samples(aws):
    """Same keys and types in the same state; StartTime and the newer members of a refresh come on top."""
    client, host = aws.client("autoscaling"), members(aws)[0]

    def sample(operation: str) -> dict[str, Any]:
        return dict(json.loads((SAMPLES / operation / "01.output.json").read_text(encoding="utf-8")))

    given = {"InstanceIds": [host], "AutoScalingGroupName": "app"}
    for name, answer in (
        ("enter-standby", client.enter_standby(**given, ShouldDecrementDesiredCapacity=True)),
        ("exit-standby", aws.advance(60) or client.exit_standby(**given)),
        ("describe-scaling-activities", aws.advance(60) or client.describe_scaling_activities(AutoScalingGroupName="app")),
    ):
        assert set(answer["Activities"][0]) == set(sample(name)["Activities"][0]), name
    refresh(aws, MinHealthyPercentage=90, InstanceWarmup=300)
    aws.advance(120)
    (shown,) = sample("describe-instance-refreshes")["InstanceRefreshes"][:1]
    missing = set(shown) - set(row(aws)) - {"EndTime"}  # the sample is still InProgress: its EndTime is from another moment
    assert not missing
    assert set(row(aws)) - set(shown) == {"StartTime", "ProgressDetails", "Strategy"}
    warming = r"Waiting for instances to warm up before continuing. For example: i-[0-9a-f]{17} is warming up."
    assert re.fullmatch(warming, row(aws)["StatusReason"])


def test_in_an_empty_aws_a_group_without_profiles_behaves_as_in_moto(start):
    """Standby and capacity are there at once."""
    aws = start(None)
    client = aws.client("autoscaling")
    image = aws.ec2.describe_images()["Images"][0]["ImageId"]
    aws.ec2.create_launch_template(LaunchTemplateName="tmp", LaunchTemplateData={"ImageId": image, "InstanceType": "t3.micro"})
    subnet = aws.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    client.create_auto_scaling_group(
        AutoScalingGroupName="app", MinSize=0, MaxSize=4, DesiredCapacity=2, VPCZoneIdentifier=subnet,
        LaunchTemplate={"LaunchTemplateName": "tmp"},
    )  # fmt: skip
    assert len(members(aws)) == 2
    host = members(aws)[0]
    client.enter_standby(InstanceIds=[host], AutoScalingGroupName="app", ShouldDecrementDesiredCapacity=True)
    assert members(aws, "Standby") == [host]
    client.exit_standby(InstanceIds=[host], AutoScalingGroupName="app")
    client.set_desired_capacity(AutoScalingGroupName="app", DesiredCapacity=4)
    assert len(members(aws)) == 4


def test_a_refresh_of_a_thousand_instances_takes_seconds(start):
    """Measured on two cores: 5.4 s for a thousand. Ten times that is a refresh that looks at everybody for each."""
    aws = start(GROUP.replace("count: 10", "count: 1000").replace("max: 12", "max: 1100"))
    old = set(members(aws))
    assert len(old) == 1000
    begun = time.process_time()
    refresh(aws, MinHealthyPercentage=90, InstanceWarmup=60)
    last = until(aws, "Successful", step=600)
    assert time.process_time() - begun < 50
    assert last["PercentageComplete"] == 100
    assert not old & set(members(aws))
    assert len(members(aws)) == 1000


# --- root volumes, and what a group says of refreshes ---


def test_a_root_volume_is_replaced_and_the_instance_stays(aws):
    """ReplaceRootVolume: the same ids with the packages of the new image, within the limits, out of service and back."""
    version, before = new_version(aws), sorted(members(aws))
    client = aws.client("autoscaling")
    client.start_instance_refresh(
        AutoScalingGroupName="app",
        Strategy="ReplaceRootVolume",
        DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateName": "app", "Version": version}},
        Preferences={"MinHealthyPercentage": 80, "InstanceWarmup": 30},
    )
    seen: set[str] = set()
    while row(aws)["Status"] in ("Pending", "InProgress"):
        assert len(members(aws)) >= 8
        seen |= {one["LifecycleState"] for one in group(aws)["Instances"]}
        aws.advance(15)
    last = row(aws)
    assert (last["Status"], last["Strategy"], last["PercentageComplete"]) == ("Successful", "ReplaceRootVolume", 100)
    assert seen == {"InService", "ReplacingRootVolume", "RootVolumeReplaced"}
    assert sorted(members(aws)) == before
    assert group(aws)["LaunchTemplate"]["Version"] == version
    assert {one["LaunchTemplate"]["Version"] for one in group(aws)["Instances"]} == {version}
    assert set(aws.events(before[0])) == {"out_of_service", "reboot_begun", "reboot_ended", "in_service"}
    aws.patch(*before, operation="Scan")
    aws.advance(300)
    states = aws.ssm.describe_instance_patch_states(InstanceIds=before)["InstancePatchStates"]
    assert {state["MissingCount"] for state in states} == {0}


def test_a_rollback_brings_the_old_root_volume_back(aws):
    """Only those that had been replaced are replaced again."""
    version, before = new_version(aws), sorted(members(aws))
    client = aws.client("autoscaling")
    client.start_instance_refresh(
        AutoScalingGroupName="app",
        Strategy="ReplaceRootVolume",
        DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateName": "app", "Version": version}},
        Preferences={"MinHealthyPercentage": 80, "InstanceWarmup": 0, "CheckpointPercentages": [20, 100]},
    )
    aws.advance(600)
    assert row(aws)["PercentageComplete"] == 20
    client.rollback_instance_refresh(AutoScalingGroupName="app")
    until(aws, "RollbackSuccessful")
    assert sorted(members(aws)) == before
    assert {one["LaunchTemplate"]["Version"] for one in group(aws)["Instances"]} == {"1"}
    assert sum(aws.events(host).count("reboot_ended") for host in before) == 4


def test_a_root_volume_of_another_system_fails_the_refresh(aws):
    """And MaxHealthyPercentage above 100 makes no sense without launches."""
    image = aws.ec2.register_image(Name="ubuntu-24.04", RootDeviceName="/dev/xvda")["ImageId"]
    version, client = new_version(aws, image=image), aws.client("autoscaling")
    wanted = {"LaunchTemplate": {"LaunchTemplateName": "app", "Version": version}}
    request = {"AutoScalingGroupName": "app", "Strategy": "ReplaceRootVolume", "DesiredConfiguration": wanted}
    many = {"MinHealthyPercentage": 90, "MaxHealthyPercentage": 110}
    assert "launches no instances" in refused(client.start_instance_refresh, **request, Preferences=many)[1]
    client.start_instance_refresh(**request)
    assert image in until(aws, "Failed")["StatusReason"]


def test_a_group_decides_what_a_refresh_does_not_say(aws):
    """DefaultInstanceWarmup and InstanceMaintenancePolicy come before 90 per cent and the grace period; -1 clears both."""
    client = aws.client("autoscaling")
    policy = {"MinHealthyPercentage": 70, "MaxHealthyPercentage": 120}
    client.update_auto_scaling_group(AutoScalingGroupName="app", DefaultInstanceWarmup=42, InstanceMaintenancePolicy=policy)
    assert (group(aws)["DefaultInstanceWarmup"], group(aws)["InstanceMaintenancePolicy"]) == (42, policy)
    refresh(aws)
    shown = row(aws)["Preferences"]
    assert (shown["InstanceWarmup"], shown["MinHealthyPercentage"], shown["MaxHealthyPercentage"]) == (42, 70, 120)
    client.cancel_instance_refresh(AutoScalingGroupName="app", WaitForTransitioningInstances=False)
    cleared = {"MinHealthyPercentage": -1, "MaxHealthyPercentage": -1}
    client.update_auto_scaling_group(AutoScalingGroupName="app", DefaultInstanceWarmup=-1, InstanceMaintenancePolicy=cleared)
    refresh(aws, InstanceWarmup=5)
    shown = row(aws)["Preferences"]
    assert (shown["InstanceWarmup"], shown["MinHealthyPercentage"], "MaxHealthyPercentage" in shown) == (5, 90, False)
    wrong = {"MinHealthyPercentage": 50, "MaxHealthyPercentage": 200}
    answer = refused(client.update_auto_scaling_group, AutoScalingGroupName="app", InstanceMaintenancePolicy=wrong)
    assert "at most 100" in answer[1]


@pytest.mark.parametrize(
    ("group_version", "image", "said"),
    [
        ("$Latest", None, "uses the $Latest version"),
        ("$Default", None, "uses the $Default version"),
        ("2", "resolve:ssm:/golden/ami", "Systems Manager parameter instead of an AMI ID"),
    ],
)
def test_a_group_that_cannot_return_is_refused_auto_rollback(aws, group_version, image, said):
    """The model's exclusions, besides a missing desired configuration; RollbackInstanceRefresh refuses for the same reasons."""
    client = aws.client("autoscaling")
    if image is not None:
        aws.ec2.create_launch_template_version(LaunchTemplateName="app", SourceVersion="1", LaunchTemplateData={"ImageId": image})
    template = {"LaunchTemplateName": "app", "Version": group_version}
    client.update_auto_scaling_group(AutoScalingGroupName="app", LaunchTemplate=template)
    request = {
        "AutoScalingGroupName": "app",
        "DesiredConfiguration": {"LaunchTemplate": {"LaunchTemplateName": "app", "Version": "1"}},
    }
    code, message = refused(client.start_instance_refresh, **request, Preferences={"AutoRollback": True})
    assert (code, said in message) == ("ValidationError", True), message
    client.start_instance_refresh(**request)
    aws.advance(30)
    code, message = refused(client.rollback_instance_refresh, AutoScalingGroupName="app")
    assert (code, said in message) == ("IrreversibleInstanceRefresh", True), message


# --- faults of groups ---


def test_the_journal_has_the_image_of_every_instance(aws):
    """Which one left service on which AMI, and which one came on which in its place."""
    image = aws.ec2.register_image(Name="golden", RootDeviceName="/dev/xvda")["ImageId"]
    old = aws.ec2.describe_instances(InstanceIds=members(aws)[:1])["Reservations"][0]["Instances"][0]["ImageId"]
    refresh(aws, version=new_version(aws, image=image), MinHealthyPercentage=80, InstanceWarmup=60)
    until(aws, "Successful")
    lines = [line for line in aws.journal() if line["event"] in ("in_service", "out_of_service", "replaced")]
    told = {event: [line for line in lines if line["event"] == event] for event in ("in_service", "out_of_service", "replaced")}
    assert {event: len({line["host"] for line in rows}) for event, rows in told.items()} == dict.fromkeys(told, 10)
    assert {line["image"] for line in told["out_of_service"]} == {old}
    assert {line["image"] for line in told["in_service"]} == {image}
    assert {(line["image"], line["replaced_by_image"]) for line in told["replaced"]} == {(old, image)}
    assert {line["replaced_by"] for line in told["replaced"]} == {line["host"] for line in told["in_service"]}


def test_an_alarm_fires_while_a_refresh_bakes(aws):
    """Not before it bakes; then the refresh turns round."""
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName="errors", Namespace="shop", MetricName="5xx", Statistic="Maximum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    aws.control("faults", {"kind": "alarm_in_refresh", "alarm": "errors", "group": "app", "seconds": 60})
    aws.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName="app", LaunchTemplate={"LaunchTemplateName": "app", "Version": "1"}
    )
    refresh(
        aws, version=new_version(aws), MinHealthyPercentage=80, InstanceWarmup=10, BakeTime=1800, AutoRollback=True,
        AlarmSpecification={"Alarms": ["errors"]},
    )  # fmt: skip
    told = until(aws, "RollbackInProgress", step=10)["RollbackDetails"]
    assert (told["PercentageCompleteOnRollback"], "errors" in told["RollbackReason"]) == (100, True)
    assert until(aws, "RollbackSuccessful")
    assert aws.client("cloudwatch").describe_alarms(AlarmNames=["errors"])["MetricAlarms"][0]["StateValue"] == "OK"


def test_an_alarm_fires_at_a_share_of_a_refresh(aws):
    """At thirty per cent, as soon as the refresh has come so far."""
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName="errors", Namespace="shop", MetricName="5xx", Statistic="Maximum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    aws.control("faults", {"kind": "alarm_in_refresh", "alarm": "errors", "percent": 30})
    refresh(aws, MinHealthyPercentage=90, InstanceWarmup=10, AlarmSpecification={"Alarms": ["errors"]})
    told = until(aws, "Failed", step=10)
    assert (told["PercentageComplete"], "errors" in told["StatusReason"]) == (30, True)


def test_without_capacity_in_a_zone_the_others_take_its_instances(aws):
    """Each attempt there is a failed activity; without any zone the refresh waits, and fails after an hour."""
    aws.control("faults", {"kind": "no_capacity", "group": "app", "zone": f"{REGION}a"})
    refresh(aws, MinHealthyPercentage=80, InstanceWarmup=10)
    until(aws, "Successful")
    assert {member["AvailabilityZone"] for member in group(aws)["Instances"]} == {f"{REGION}b", f"{REGION}c"}
    activities = aws.client("autoscaling").describe_scaling_activities(AutoScalingGroupName="app")["Activities"]
    failed = [activity for activity in activities if activity["StatusCode"] == "Failed"]
    assert failed
    assert all(f"{REGION}a" in activity["StatusMessage"] for activity in failed)
    aws.control("faults", {"kind": "no_capacity"})
    now = members(aws)
    refresh(aws, MinHealthyPercentage=80, InstanceWarmup=10)
    until(aws, "Failed")
    assert members(aws) == now


def test_instances_of_a_bad_image_never_become_healthy(aws):
    """They never serve, their agents never connect, and the refresh fails after an hour; those of other images are well."""
    image = aws.ec2.register_image(Name="bad", RootDeviceName="/dev/xvda")["ImageId"]
    aws.control("faults", {"kind": "image_unhealthy", "group": "app", "image": image})
    old = set(members(aws))
    refresh(aws, version=new_version(aws, image=image), MinHealthyPercentage=80, InstanceWarmup=10)
    until(aws, "Failed")
    new = {line["host"] for line in aws.journal() if line["event"] == "in_service"}
    assert not new
    known = {row["InstanceId"] for row in aws.ssm.describe_instance_information()["InstanceInformationList"]}
    bad = {row["host"] for row in aws.control("hosts")["hosts"] if row["auto_scaling_group"] == "app"} - old
    assert bad
    assert not bad & known
    status = aws.ec2.describe_instance_status(InstanceIds=[host for host in members(aws) if host not in old][:1])
    assert [one["InstanceStatus"]["Status"] for one in status["InstanceStatuses"]] in ([], ["impaired"])
    refresh(aws, version=new_version(aws), MinHealthyPercentage=80, InstanceWarmup=10)
    assert until(aws, "Successful")
