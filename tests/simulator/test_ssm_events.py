"""EventBridge: what a queue learns of Automation, windows, calendars, parameters and compliance, in the documented shape."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.conftest import ACCOUNT, FEW, REGION, Aws
from tests.simulator.test_events import kind, listen, told

DOCS = Path(__file__).resolve().parents[3] / "shared/data"
SAMPLES = DOCS / "awsdocs-ssm/monitoring-systems-manager-event-examples"
SCALING = DOCS / "awsdocs-autoscaling/ec2-auto-scaling-event-reference"

NOT_TOLD = {
    "EC2 State Manager Association State Change": "State Manager's associations are moto's, which runs none",
    "EC2 State Manager Instance Association State Change": "State Manager's associations are moto's, which runs none",
    "EC2 Instance Terminate Unsuccessful": "a termination never fails in the simulated AWS",
}
RUNBOOK = """
schemaVersion: '0.3'
mainSteps:
  - {name: rest, action: 'aws:sleep', inputs: {Duration: PT30S}}
  - {name: again, action: 'aws:sleep', inputs: {Duration: PT10S}}
"""
CALENDAR = """BEGIN:VCALENDAR
PRODID:-//AWS//Change Calendar 1.0//EN
VERSION:2.0
X-CALENDAR-TYPE:DEFAULT_OPEN
BEGIN:VEVENT
DTSTAMP:20260101T000000Z
UID:freeze
DTSTART:20260105T090000Z
DTEND:20260105T100000Z
SUMMARY:freeze
END:VEVENT
END:VCALENDAR
"""


def of(aws: Aws, url: str, name: str) -> list[dict[str, Any]]:
    return [event for event in told(aws, url) if kind(event) == name]


def window(aws: Aws, *hosts: str) -> tuple[str, str]:
    """A window that opens at the next quarter of an hour and scans the hosts; its id and its target's."""
    ssm = aws.ssm
    made = ssm.create_maintenance_window(
        Name="nightly", Schedule="cron(0/15 * * * ? *)", Duration=2, Cutoff=1, AllowUnassociatedTargets=False
    )["WindowId"]
    target = ssm.register_target_with_maintenance_window(
        WindowId=made, ResourceType="INSTANCE", OwnerInformation="Owner", Targets=[{"Key": "InstanceIds", "Values": list(hosts)}]
    )["WindowTargetId"]
    ssm.register_task_with_maintenance_window(
        WindowId=made, TaskType="RUN_COMMAND", TaskArn="AWS-RunPatchBaseline", MaxConcurrency="1", MaxErrors="1",
        Targets=[{"Key": "WindowTargetIds", "Values": [target]}],
        TaskInvocationParameters={"RunCommand": {"Parameters": {"Operation": ["Scan"]}}},
    )  # fmt: skip
    return str(made), str(target)


def test_an_automation_and_its_steps_are_told_from_begin_to_end(aws):
    """Each step in progress and done, the execution around them."""
    url = listen(aws, {"source": ["aws.ssm"]})
    aws.ssm.create_document(Name="Rest", Content=RUNBOOK, DocumentType="Automation", DocumentFormat="YAML")
    execution = aws.ssm.start_automation_execution(DocumentName="Rest")["AutomationExecutionId"]
    aws.advance(120)
    found = [(event["detail"].get("StepName"), event["detail"]["Status"]) for event in told(aws, url)]
    assert found == [
        ("rest", "InProgress"),
        (None, "InProgress"),
        ("rest", "Success"),
        ("again", "InProgress"),
        ("again", "Success"),
        (None, "Success"),
    ]
    assert execution


def test_a_window_tells_of_its_execution_down_to_the_target(aws):
    """Registered, in progress, done, disabled; and deregistered."""
    url, host = listen(aws, {"source": ["aws.ssm"]}), aws.hosts("web")[0]
    made, target = window(aws, host)
    (event,) = told(aws, url)
    assert (kind(event), event["detail"]["status"]) == ("Maintenance Window Target Registration Notification", "REGISTERED")
    aws.advance(900 + 300)
    found = [(kind(event).split()[-3], event["detail"]["status"]) for event in told(aws, url) if "Window" in kind(event)]
    for part in ("Execution", "Invocation"):
        assert (part, "IN_PROGRESS") in found
        assert (part, "SUCCESS") in found
    aws.ssm.update_maintenance_window(WindowId=made, Enabled=False)
    aws.ssm.deregister_target_from_maintenance_window(WindowId=made, WindowTargetId=target)
    assert [event["detail"]["status"] for event in told(aws, url)] == ["DISABLED", "DEREGISTERED"]


def test_a_calendar_tells_at_the_moment_that_it_closes_and_opens(aws):
    """09:00 and 10:00 of the first day; the clock began at 08:00."""
    url = listen(aws, {"source": ["aws.ssm"], "detail-type": ["Calendar State Change"]})
    aws.ssm.create_document(Name="Freeze", Content=CALENDAR, DocumentType="ChangeCalendar", DocumentFormat="TEXT")
    aws.advance(3 * 3600)
    closed, opened = told(aws, url)
    assert closed["detail"] == {
        "state": "CLOSED",
        "atTime": "2026-01-05T09:00:00Z",
        "nextTransitionTime": "2026-01-05T10:00:00Z",
    }
    assert opened["detail"] == {"state": "OPEN", "atTime": "2026-01-05T10:00:00Z"}
    assert closed["resources"] == [f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/Freeze"]


def test_parameters_are_told_when_they_come_change_and_go(aws):
    """Create, Update, Delete."""
    url = listen(aws, {"source": ["aws.ssm"]})
    aws.ssm.put_parameter(Name="/patch/ami", Value="ami-1", Type="String", Description="golden")
    aws.ssm.put_parameter(Name="/patch/ami", Value="ami-2", Type="String", Overwrite=True)
    aws.ssm.delete_parameter(Name="/patch/ami")
    found = told(aws, url)
    assert [event["detail"]["operation"] for event in found] == ["Create", "Update", "Delete"]
    assert {event["resources"][0] for event in found} == {f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/patch/ami"}


def test_compliance_is_told_when_it_changes_only(aws):
    """A second scan with the same result is nothing new."""
    url, host = (
        listen(aws, {"source": ["aws.ssm"], "detail-type": ["Configuration Compliance State Change"]}),
        aws.hosts("web")[0],
    )
    for operation in ("Scan", "Scan", "Install"):
        aws.patch(host, operation=operation, Parameters={"RebootOption": ["RebootIfNeeded"]})
        aws.advance(900)
    found = [(event["detail"]["compliance-status"], event["detail"]["severity"]) for event in told(aws, url)]
    assert found == [("non_compliant", "high"), ("compliant", "unspecified")]


def test_what_was_there_before_the_rule_is_not_told(aws):
    """A rule is told of what happens from now on."""
    aws.ssm.put_parameter(Name="old", Value="1", Type="String")
    window(aws, aws.hosts("web")[0])
    url = listen(aws, {"source": ["aws.ssm"]})
    assert told(aws, url) == []
    aws.ssm.put_parameter(Name="new", Value="1", Type="String")
    assert [event["detail"]["name"] for event in told(aws, url)] == ["new"]


@pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of AWS's documentation are not there")
def test_every_documented_event_of_systems_manager_is_delivered_in_its_shape(aws):
    """The same members, at the top and in the detail, of the same types; what is not told is listed with the reason."""
    url = listen(aws, {"source": ["aws.ssm"]})
    hosts = aws.hosts("web")
    aws.ssm.put_parameter(Name="MyExampleParameter", Value="1", Type="String", Description="Sample Parameter")
    aws.ssm.create_document(Name="Rest", Content=RUNBOOK, DocumentType="Automation", DocumentFormat="YAML")
    aws.ssm.start_automation_execution(DocumentName="Rest")
    two = CALENDAR.replace(
        "END:VCALENDAR\n", CALENDAR[CALENDAR.index("BEGIN:VEVENT") :].replace("T09", "T19").replace("T10", "T20")
    )
    aws.ssm.create_document(Name="Freeze", Content=two, DocumentType="ChangeCalendar", DocumentFormat="TEXT")
    made, _ = window(aws, hosts[0])
    aws.ssm.send_command(
        DocumentName="AWS-RunPatchBaselineAssociation", InstanceIds=[hosts[1]], Parameters={"Operation": ["Scan"]}
    )
    aws.script(hosts[2], lines=["true"])
    aws.advance(2 * 3600 + 300)
    aws.ssm.update_maintenance_window(WindowId=made, Enabled=False)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in told(aws, url):
        found[kind(event), str(event["detail"].get("compliance-type", ""))] = event
    for path in sorted(SAMPLES.glob("*.json")):
        sample = json.loads(path.read_text(encoding="utf-8"))
        key = kind(sample), str(sample["detail"].get("compliance-type", ""))
        if kind(sample) in NOT_TOLD:
            assert key not in found
            continue
        event = found[key]
        assert set(event) == set(sample), key
        assert {name: type(value) for name, value in event["detail"].items()} == {
            name: type(value) for name, value in sample["detail"].items()
        }, key
        assert [arn.split(":")[2] + arn.split(":")[5].partition("/")[0] for arn in event["resources"]] == [
            arn.split(":")[2] + arn.split(":")[5].partition("/")[0] for arn in sample["resources"]
        ], key


GROUP_OF_TWO = """fleets:
  - name: app
    account: "111111111111"
    region: eu-central-1
    count: 2
    template: amazon
    tags: {Environment: prod}
    auto_scaling_group: {name: app, min: 1, max: 4}"""


@pytest.mark.skipif(not SCALING.exists(), reason="the samples of AWS's documentation are not there")
def test_every_documented_event_of_auto_scaling_is_delivered_in_its_shape(start):
    """Refreshes that succeed, fail and are cancelled, launches that succeed and fail, hooks."""
    aws = start(FEW.replace("fleets:", GROUP_OF_TWO))
    url, client = listen(aws, {"source": ["aws.autoscaling"]}), aws.client("autoscaling")
    fast = {"MinHealthyPercentage": 0, "InstanceWarmup": 0}
    client.start_instance_refresh(
        AutoScalingGroupName="app", Preferences={**fast, "CheckpointPercentages": [50, 100], "CheckpointDelay": 60}
    )
    aws.advance(900)
    client.start_instance_refresh(AutoScalingGroupName="app", Preferences=fast)
    client.cancel_instance_refresh(AutoScalingGroupName="app", WaitForTransitioningInstances=False)
    for name, transition in (("up", "LAUNCHING"), ("down", "TERMINATING")):
        client.put_lifecycle_hook(
            AutoScalingGroupName="app", LifecycleHookName=name, NotificationMetadata="additional-info",
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}", HeartbeatTimeout=900,
        )  # fmt: skip
    client.start_instance_refresh(AutoScalingGroupName="app", Preferences=fast)
    aws.advance(3 * 3600)
    found = {kind(event): event for event in told(aws, url)}
    for path in sorted(SCALING.glob("*.json")):
        sample = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(sample["detail-type"], str):
            continue
        if kind(sample) in NOT_TOLD:
            assert kind(sample) not in found
            continue
        event = found[kind(sample)]
        assert set(event) == set(sample), kind(sample)
        assert set(event["detail"]) - {"Origin", "Destination"} == set(sample["detail"]), kind(sample)
        assert len(event["resources"]) == len(sample["resources"]), kind(sample)
