"""Alarms: those that the world feeds, and those that a fault fires."""

from typing import Any

import pytest

from tests.simulator.conftest import Aws
from tests.simulator.test_elbv2 import balanced


def alarm(aws: Aws, name: str = "errors") -> dict[str, Any]:
    (row,) = aws.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(row)


def put(aws: Aws, **request: Any) -> None:
    aws.client("cloudwatch").put_metric_alarm(
        **{
            "AlarmName": "errors",
            "Namespace": "shop",
            "MetricName": "5xx",
            "Statistic": "Maximum",
            "Period": 60,
            "EvaluationPeriods": 2,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            **request,
        }
    )


def test_a_fault_fires_an_alarm_at_its_moment_and_for_its_time(aws):
    """OK before, ALARM in between, OK after."""
    put(aws)
    aws.control("faults", {"kind": "alarm_fires", "alarm": "errors", "after": 300, "lasts": 600})
    aws.advance(290)
    assert alarm(aws)["StateValue"] == "OK"
    aws.advance(20)
    assert alarm(aws)["StateValue"] == "ALARM"
    assert alarm(aws)["StateUpdatedTimestamp"].isoformat().startswith("2026-01-05T08:05:00")
    aws.advance(600)
    assert alarm(aws)["StateValue"] == "OK"


def test_an_alarm_follows_the_status_check_of_its_host(aws):
    """Two bad periods in a row, then good again; nobody else's reboot moves it."""
    host, other = aws.hosts("web")[:2]
    put(
        aws, Namespace="AWS/EC2", MetricName="StatusCheckFailed_Instance", Dimensions=[{"Name": "InstanceId", "Value": host}],
        EvaluationPeriods=1,
    )  # fmt: skip
    aws.ec2.reboot_instances(InstanceIds=[other])
    aws.advance(120)
    assert alarm(aws)["StateValue"] == "OK"
    aws.control("faults", {"kind": "reboot_never_returns", "host": host})
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(70)
    assert alarm(aws)["StateValue"] == "ALARM"
    aws.ec2.stop_instances(InstanceIds=[host])
    aws.advance(120)
    assert alarm(aws)["StateValue"] == "OK"


def test_an_alarm_follows_the_health_of_a_target_group(aws):
    """UnHealthyHostCount of the load balancer."""
    host = aws.hosts("web")[0]
    arn = balanced(aws, host)
    aws.advance(60)
    put(
        aws, Namespace="AWS/ApplicationELB", MetricName="UnHealthyHostCount",
        Dimensions=[{"Name": "TargetGroup", "Value": arn.rpartition(":")[2]}],
    )  # fmt: skip
    aws.control("faults", {"kind": "reboot_never_returns", "host": host})
    aws.ec2.reboot_instances(InstanceIds=[host])
    aws.advance(90)
    assert alarm(aws)["StateValue"] == "OK"  # one period only
    aws.advance(120)
    assert alarm(aws)["StateValue"] == "ALARM"


@pytest.mark.parametrize("state", ["ALARM", "INSUFFICIENT_DATA"])
def test_a_caller_may_set_the_state(aws, state):
    """SetAlarmState, as in AWS until the next evaluation."""
    put(aws)
    aws.client("cloudwatch").set_alarm_state(AlarmName="errors", StateValue=state, StateReason="test")
    assert alarm(aws)["StateValue"] == state


def test_an_alarm_that_is_made_while_its_fault_lasts_fires_at_once(aws):
    """The order of the two does not matter."""
    aws.control("faults", {"kind": "alarm_fires", "alarm": "errors"})
    put(aws)
    assert alarm(aws)["StateValue"] == "ALARM"
