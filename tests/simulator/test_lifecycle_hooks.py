"""Lifecycle hooks: who comes and goes waits for them, with a timeout and a default result; a refresh waits, too."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import FEW, Aws
from tests.simulator.test_events import listen, told

SAMPLES = Path(__file__).resolve().parents[3] / "shared/data/awsdocs-autoscaling/ec2-auto-scaling-event-reference"
LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
GROUP = FEW.replace(
    "fleets:",
    """fleets:
  - name: app
    account: "111111111111"
    region: eu-central-1
    count: 4
    template: amazon
    tags: {Environment: prod, PatchGroup: web}
    auto_scaling_group: {name: app, min: 2, max: 6}""",
)


@pytest.fixture
def aws(start) -> Aws:
    return start(GROUP)


def states(aws: Aws) -> dict[str, str]:
    (row,) = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["app"])["AutoScalingGroups"]
    return {one["InstanceId"]: one["LifecycleState"] for one in row["Instances"]}


def in_state(aws: Aws, state: str) -> list[str]:
    return [host for host, shown in states(aws).items() if shown == state]


def hook(aws: Aws, transition: str, name: str = "hold", **more: Any) -> None:
    given = {"HeartbeatTimeout": 600, **more}
    aws.client("autoscaling").put_lifecycle_hook(
        AutoScalingGroupName="app", LifecycleHookName=name, LifecycleTransition=transition, **given
    )


def complete(aws: Aws, host: str, result: str = "CONTINUE", name: str = "hold") -> None:
    aws.client("autoscaling").complete_lifecycle_action(
        AutoScalingGroupName="app", LifecycleHookName=name, InstanceId=host, LifecycleActionResult=result
    )


def capacity(aws: Aws, desired: int) -> None:
    aws.client("autoscaling").set_desired_capacity(AutoScalingGroupName="app", DesiredCapacity=desired)


def last_activity(aws: Aws) -> dict[str, Any]:
    return dict(aws.client("autoscaling").describe_scaling_activities(AutoScalingGroupName="app")["Activities"][0])


def test_a_launched_instance_waits_until_the_hook_is_completed(aws):
    """Pending:Wait, not in service, the activity open; then Pending:Proceed and InService."""
    hook(aws, LAUNCHING)
    capacity(aws, 5)
    (host,) = in_state(aws, "Pending")
    aws.advance(60)
    assert states(aws)[host] == "Pending:Wait"
    assert last_activity(aws)["StatusCode"] == "MidLifecycleAction"
    aws.advance(300)
    assert states(aws)[host] == "Pending:Wait"
    assert aws.events(host) == []
    complete(aws, host)
    assert states(aws)[host] == "Pending:Proceed"
    aws.advance(10)
    assert states(aws)[host] == "InService"
    assert aws.events(host) == ["in_service"]
    assert last_activity(aws)["StatusCode"] == "Successful"
    with pytest.raises(ClientError, match=f"No active Lifecycle Action found with instance ID {host}"):
        complete(aws, host)


@pytest.mark.parametrize(("default", "stays"), [("CONTINUE", True), ("ABANDON", False)])
def test_the_default_result_decides_when_nobody_says_a_word(aws, default, stays):
    """After the heartbeat timeout; an abandoned launch is terminated and another one begun."""
    hook(aws, LAUNCHING, HeartbeatTimeout=120, DefaultResult=default)
    capacity(aws, 5)
    (host,) = in_state(aws, "Pending")
    aws.advance(45 + 110)
    assert states(aws)[host] == "Pending:Wait"
    aws.advance(20)
    assert (states(aws)[host] == "InService") is stays
    aws.advance(60)
    assert (host in states(aws)) is stays
    assert len(states(aws)) == 5


def test_a_heartbeat_begins_the_timeout_anew_but_not_for_ever(aws):
    """By the token that the event told; the global timeout is a hundred heartbeats."""
    url = listen(aws, {"source": ["aws.autoscaling"], "detail-type": ["EC2 Instance-launch Lifecycle Action"]})
    hook(aws, LAUNCHING, HeartbeatTimeout=60, DefaultResult="CONTINUE")
    capacity(aws, 5)
    (host,) = in_state(aws, "Pending")
    aws.advance(50)
    (event,) = told(aws, url)
    token = event["detail"]["LifecycleActionToken"]
    for _ in range(3):
        aws.client("autoscaling").record_lifecycle_action_heartbeat(
            AutoScalingGroupName="app", LifecycleHookName="hold", LifecycleActionToken=token
        )
        aws.advance(50)
        assert states(aws)[host] == "Pending:Wait"
    aws.advance(15)
    assert states(aws)[host] == "InService"
    (row,) = aws.client("autoscaling").describe_lifecycle_hooks(AutoScalingGroupName="app")["LifecycleHooks"]
    assert row["GlobalTimeout"] == 6000


@pytest.mark.parametrize("result", ["CONTINUE", "ABANDON"])
def test_an_instance_that_goes_waits_after_its_drain_and_goes_either_way(aws, result):
    """Terminating, Terminating:Wait, Terminating:Proceed; out of service from the beginning."""
    hook(aws, TERMINATING)
    capacity(aws, 3)
    (host,) = in_state(aws, "Terminating")
    aws.advance(30)
    assert in_state(aws, "Terminating:Wait") == [host]
    assert aws.ec2.describe_instances(InstanceIds=[host])["Reservations"][0]["Instances"][0]["State"]["Name"] == "running"
    aws.advance(500)
    assert in_state(aws, "Terminating:Wait") == [host]
    complete(aws, host, result)
    assert in_state(aws, "Terminating:Proceed") == [host]
    aws.advance(10)
    assert host not in states(aws)
    assert aws.events(host) == ["out_of_service"]


def test_all_hooks_of_a_transition_must_let_go(aws):
    """Two hooks: one CONTINUE is not enough; one ABANDON is."""
    hook(aws, LAUNCHING, "first")
    hook(aws, LAUNCHING, "second")
    capacity(aws, 6)
    one, two = in_state(aws, "Pending")
    aws.advance(60)
    complete(aws, one, name="first")
    assert states(aws)[one] == "Pending:Wait"
    complete(aws, one, name="second")
    assert states(aws)[one] == "Pending:Proceed"
    complete(aws, two, "ABANDON", name="first")
    assert states(aws)[two] == "Terminating"
    with pytest.raises(ClientError, match="No active Lifecycle Action"):
        complete(aws, two, name="second")


def test_a_refresh_waits_for_launching_and_terminating_hooks(aws):
    """Without an answer each replacement lasts as long as the hooks' timeouts; the refresh does not go on before."""
    hook(aws, LAUNCHING, "up", DefaultResult="CONTINUE", HeartbeatTimeout=300)
    hook(aws, TERMINATING, "down", DefaultResult="CONTINUE", HeartbeatTimeout=300)
    client, old = aws.client("autoscaling"), set(states(aws))
    client.start_instance_refresh(AutoScalingGroupName="app", Preferences={"MinHealthyPercentage": 75, "InstanceWarmup": 0})
    passing = {f"{word}{rest}" for word in ("Pending", "Terminating") for rest in ("", ":Wait", ":Proceed")}

    def row() -> dict[str, Any]:
        return dict(client.describe_instance_refreshes(AutoScalingGroupName="app")["InstanceRefreshes"][0])

    passed = 0
    while row()["Status"] in ("Pending", "InProgress"):
        assert passed < 4 * 3600, row()
        assert len(in_state(aws, "InService")) >= 3
        assert set(states(aws).values()) <= {"InService", *passing}
        aws.advance(30)
        passed += 30
    assert row()["Status"] == "Successful"
    assert passed > 4 * 300
    aws.advance(600)
    assert not old & set(states(aws))
    assert len(in_state(aws, "InService")) == 4


def test_a_refresh_whose_launches_are_abandoned_makes_no_progress_and_fails(aws):
    """The default of a hook is ABANDON: after an hour without progress the refresh gives up."""
    hook(aws, LAUNCHING, HeartbeatTimeout=60)
    client = aws.client("autoscaling")
    client.start_instance_refresh(AutoScalingGroupName="app", Preferences={"MinHealthyPercentage": 75, "InstanceWarmup": 0})
    aws.advance(2 * 3600)
    (row,) = client.describe_instance_refreshes(AutoScalingGroupName="app")["InstanceRefreshes"]
    assert row["Status"] == "Failed"
    assert row["PercentageComplete"] == 0


def test_leaving_standby_goes_through_the_launching_hook(aws):
    """Pending, Pending:Wait, InService."""
    hook(aws, LAUNCHING)
    client, host = aws.client("autoscaling"), next(iter(states(aws)))
    client.enter_standby(AutoScalingGroupName="app", InstanceIds=[host], ShouldDecrementDesiredCapacity=True)
    aws.advance(60)
    client.exit_standby(AutoScalingGroupName="app", InstanceIds=[host])
    aws.advance(60)
    assert states(aws)[host] == "Pending:Wait"
    complete(aws, host)
    assert states(aws)[host] == "InService"
    assert aws.events(host) == ["out_of_service", "in_service"]


def test_a_queue_of_the_hook_is_told_and_tested(aws):
    """NotificationTargetARN: a test message first, then one for each action."""
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="hooks")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    role = "arn:aws:iam::111111111111:role/hooks"
    hook(aws, LAUNCHING, NotificationTargetARN=arn, RoleARN=role, NotificationMetadata="patch")
    (row,) = aws.client("autoscaling").describe_lifecycle_hooks(AutoScalingGroupName="app")["LifecycleHooks"]
    assert (row["NotificationTargetARN"], row["RoleARN"], row["NotificationMetadata"]) == (arn, role, "patch")
    (test,) = told(aws, url)
    assert test["Event"] == "autoscaling:TEST_NOTIFICATION"
    capacity(aws, 5)
    (host,) = in_state(aws, "Pending")
    aws.advance(60)
    (message,) = told(aws, url)
    assert (message["EC2InstanceId"], message["NotificationMetadata"], message["LifecycleTransition"]) == (
        host,
        "patch",
        LAUNCHING,
    )


def test_a_group_can_be_created_with_its_hooks(aws):
    """LifecycleHookSpecificationList."""
    client = aws.client("autoscaling")
    client.create_auto_scaling_group(
        AutoScalingGroupName="new", MinSize=0, MaxSize=2, DesiredCapacity=1,
        VPCZoneIdentifier=aws.ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        LaunchTemplate={"LaunchTemplateName": "app"},
        LifecycleHookSpecificationList=[{"LifecycleHookName": "hold", "LifecycleTransition": LAUNCHING}],
    )  # fmt: skip
    aws.advance(60)
    (row,) = client.describe_auto_scaling_groups(AutoScalingGroupNames=["new"])["AutoScalingGroups"]
    assert [one["LifecycleState"] for one in row["Instances"]] == ["Pending:Wait"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"LifecycleTransition": "autoscaling:EC2_INSTANCE_SLEEPING"}, "is not valid"),
        ({"HeartbeatTimeout": 29}, "between 30 and 7200"),
        ({"DefaultResult": "MAYBE"}, "CONTINUE, ABANDON"),
        ({"LifecycleTransition": None}, "must specify a lifecycle transition"),
    ],
)
def test_a_hook_that_makes_no_sense_is_refused(aws, given, said):
    """An update may leave the transition out, a new hook may not."""
    request = {"LifecycleTransition": LAUNCHING, **given}
    if request["LifecycleTransition"] is None:
        del request["LifecycleTransition"]
    with pytest.raises(ClientError, match=said):
        aws.client("autoscaling").put_lifecycle_hook(AutoScalingGroupName="app", LifecycleHookName="hold", **request)


def test_an_update_leaves_what_it_does_not_say(aws):
    """Only the timeout changes."""
    hook(aws, TERMINATING, DefaultResult="CONTINUE")
    client = aws.client("autoscaling")
    client.put_lifecycle_hook(AutoScalingGroupName="app", LifecycleHookName="hold", HeartbeatTimeout=45)
    (row,) = client.describe_lifecycle_hooks(AutoScalingGroupName="app")["LifecycleHooks"]
    assert (row["LifecycleTransition"], row["HeartbeatTimeout"], row["DefaultResult"]) == (TERMINATING, 45, "CONTINUE")


@pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of AWS's documentation are not there")
def test_the_events_have_the_shape_of_the_documentation(aws):
    """Both lifecycle events; Origin and Destination are newer than the samples."""
    samples = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SAMPLES.glob("*.json"))]
    wanted = {sample["detail-type"]: sample for sample in samples if "Lifecycle Action" in str(sample["detail-type"])}
    url = listen(aws, {"source": ["aws.autoscaling"], "detail-type": list(wanted)})
    hook(aws, LAUNCHING, "up", NotificationMetadata="additional-info")
    hook(aws, TERMINATING, "down", NotificationMetadata="additional-info")
    aws.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=next(iter(states(aws))), ShouldDecrementDesiredCapacity=False
    )
    aws.advance(120)
    found = {event["detail-type"]: event for event in told(aws, url)}
    assert set(found) == set(wanted)
    for name, sample in wanted.items():
        assert set(found[name]) == set(sample)
        assert set(found[name]["detail"]) - {"Origin", "Destination"} == set(sample["detail"])
