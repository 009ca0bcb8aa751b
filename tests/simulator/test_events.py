"""EventBridge: what reaches a queue when commands change their state."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.conftest import ACCOUNT, REGION, Aws

SAMPLES = Path(__file__).resolve().parents[3] / "shared/data/awsdocs-ssm/monitoring-systems-manager-event-examples"


def listen(aws: Aws, pattern: dict[str, Any], region: str = REGION, **rule: Any) -> str:
    """A queue that gets what the pattern matches; its URL."""
    sqs, events = aws.client("sqs", region=region), aws.client("events", region=region)
    url = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="told", EventPattern=json.dumps(pattern), **rule)
    events.put_targets(Rule="told", Targets=[{"Id": "queue", "Arn": arn}])
    return str(url)


def told(aws: Aws, url: str, region: str = REGION) -> list[dict[str, Any]]:
    sqs, found = aws.client("sqs", region=region), []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def kind(event: dict[str, Any]) -> str:
    return str(event["detail-type"])


def test_each_status_of_a_command_and_its_invocations_is_told_once(aws):
    """InProgress, then Success, for the invocation and for the command."""
    url, host = listen(aws, {"source": ["aws.ssm"], "detail-type": [{"prefix": "EC2 Command"}]}), aws.hosts("web")[0]
    command = aws.patch(host, operation="Scan")
    aws.advance(120)
    found = told(aws, url)
    invocations = [event["detail"]["status"] for event in found if "Invocation" in kind(event)]
    commands = [event["detail"]["status"] for event in found if "Invocation" not in kind(event)]
    assert invocations == ["InProgress", "Success"]
    assert commands == ["InProgress", "Success"]
    assert {event["detail"]["command-id"] for event in found} == {command}
    assert found[0]["resources"] == [f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{host}"]
    assert found[0]["time"].startswith("2026-01-05T08:0")
    assert len({event["id"] for event in found}) == len(found)


def test_failures_and_cancellations_are_told_too(aws):
    """By their status."""
    url, (first, second) = (
        listen(aws, {"source": ["aws.ssm"], "detail": {"status": ["Failed", "Cancelled"]}}),
        aws.hosts("web")[:2],
    )
    aws.script(first, lines=["exit 3"])
    aws.advance(60)
    command = aws.patch(second)
    aws.advance(5)
    aws.ssm.cancel_command(CommandId=command)
    aws.advance(60)
    found = [(kind(event), event["detail"]["status"]) for event in told(aws, url)]
    assert ("EC2 Command Invocation Status-change Notification", "Failed") in found
    assert ("EC2 Command Status-change Notification", "Failed") in found
    assert ("EC2 Command Status-change Notification", "Cancelled") in found


def test_a_rule_that_is_disabled_or_meant_for_something_else_gets_nothing(aws):
    """Pattern and state decide; other regions hear nothing."""
    off = listen(aws, {"source": ["aws.ssm"]}, State="DISABLED")
    far = listen(aws, {"source": ["aws.ssm"]}, region="us-east-1")
    aws.script(aws.hosts("web")[0], lines=["true"])
    aws.advance(60)
    assert told(aws, off) == []
    assert told(aws, far, "us-east-1") == []


def test_a_target_that_is_gone_harms_nobody(aws):
    """The world goes on."""
    url = listen(aws, {"source": ["aws.ssm"]})
    aws.client("sqs").delete_queue(QueueUrl=url)
    command = aws.script(aws.hosts("web")[0], lines=["true"])
    aws.advance(60)
    assert aws.status(command) == "Success"


@pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of AWS's documentation are not there")
def test_the_events_have_the_shape_of_the_documentation(aws):
    """The same members, at the top and in the detail."""
    samples = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SAMPLES.glob("*.json"))]
    wanted = {kind(sample): sample for sample in samples if kind(sample).startswith("EC2 Command")}
    url = listen(aws, {"source": ["aws.ssm"]})
    aws.script(aws.hosts("web")[0], lines=["true"])
    aws.advance(60)
    found = {kind(event): event for event in told(aws, url)}
    assert set(found) == set(wanted)
    for name, sample in wanted.items():
        assert set(found[name]) == set(sample)
        assert set(found[name]["detail"]) == set(sample["detail"])
        assert {key: type(value) for key, value in found[name]["detail"].items()} == {
            key: type(value) for key, value in sample["detail"].items()
        }
