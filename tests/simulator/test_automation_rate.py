"""Rate control and multi-account executions: children, limits, counters."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import REGION, Aws
from tests.simulator.test_automation import begin, code, command, execution, sleep, write
from tests.simulator.test_ssm_commands import alarm

ID = {"Id": {"type": "String"}}


def runbook(aws: Aws, seconds: int = 60) -> str:
    return write(aws, "One", sleep("Rest", f"PT{seconds}S"), parameters=ID)


def breaking(aws: Aws) -> str:
    """Fails on every host."""
    return write(aws, "Break", command("Break", "{{ Id }}", "exit 1"), parameters=ID)


def many(aws: Aws, document: str, **request) -> str:
    target = {"Targets": [{"Key": "tag:PatchGroup", "Values": ["web"]}], "TargetParameterName": "Id"}
    return begin(aws, document, **{**target, **request})


def children(aws: Aws, parent: str, client=None) -> list[dict]:
    wanted = [{"Key": "ParentExecutionId", "Values": [parent]}]
    return (client or aws.ssm).describe_automation_executions(Filters=wanted)["AutomationExecutionMetadataList"]


def test_each_target_gets_a_child_execution(aws):
    parent = many(aws, runbook(aws))
    aws.advance(5)
    found = children(aws, parent)
    assert sorted(row["Target"] for row in found) == sorted(aws.hosts("web"))
    row = execution(aws, parent)
    assert (row["AutomationExecutionStatus"], row["MaxConcurrency"], row["MaxErrors"]) == ("InProgress", "10", "0")
    assert sorted(row["ResolvedTargets"]["ParameterValues"]) == sorted(aws.hosts("web"))
    aws.advance(70)
    row = execution(aws, parent)
    assert row["AutomationExecutionStatus"] == "Success"
    assert row["ProgressCounters"] == {
        "TotalSteps": 4,
        "SuccessSteps": 4,
        "FailedSteps": 0,
        "CancelledSteps": 0,
        "TimedOutSteps": 0,
    }
    assert execution(aws, found[0]["AutomationExecutionId"])["Parameters"]["Id"] == [found[0]["Target"]]


@pytest.mark.parametrize(("width", "running"), [("1", 1), ("3", 3), ("50%", 2)])
def test_so_many_children_run_at_once(aws, width, running):
    parent = many(aws, runbook(aws), MaxConcurrency=width)
    aws.advance(30)
    assert len(children(aws, parent)) == running
    aws.advance(4 * 62)
    assert execution(aws, parent)["ProgressCounters"]["SuccessSteps"] == 4


@pytest.mark.parametrize(("limit", "begun", "status"), [("0", 1, "Failed"), ("1", 2, "Failed"), ("100%", 4, "Failed")])
def test_after_more_errors_than_allowed_no_other_child_begins(aws, limit, begun, status):
    """As with Run Command, the limit itself is still allowed; all failed is Failed in any case."""
    parent = many(aws, breaking(aws), MaxConcurrency="1", MaxErrors=limit)
    aws.advance(200)
    row = execution(aws, parent)
    assert row["AutomationExecutionStatus"] == status
    assert row["ProgressCounters"]["FailedSteps"] == begun == len(children(aws, parent))


def test_errors_within_the_limit_show_in_the_counters_only(aws):
    host = aws.hosts("web")[0]
    maps = [{"Id": [host], "Line": ["exit 1"]}, {"Id": [aws.hosts("web")[1]], "Line": ["exit 0"]}]
    both = {"Id": {"type": "String"}, "Line": {"type": "String"}}
    document = write(aws, "Both", command("Run", "{{ Id }}", "{{ Line }}"), parameters=both)
    parent = begin(aws, document, TargetMaps=maps, MaxErrors="1")
    aws.advance(60)
    row = execution(aws, parent)
    assert row["AutomationExecutionStatus"] == "Success"
    assert (row["ProgressCounters"]["FailedSteps"], row["ProgressCounters"]["SuccessSteps"]) == (1, 1)


def test_a_stopped_parent_stops_its_children(aws):
    parent = many(aws, runbook(aws, 3600), MaxConcurrency="2")
    aws.advance(10)
    aws.ssm.stop_automation_execution(AutomationExecutionId=parent)
    aws.advance(10)
    assert execution(aws, parent)["AutomationExecutionStatus"] == "Cancelled"
    assert {row["AutomationExecutionStatus"] for row in children(aws, parent)} == {"Cancelled"}
    assert len(children(aws, parent)) == 2


def test_targets_that_match_nothing_fail_the_parent(aws):
    parent = many(aws, runbook(aws), Targets=[{"Key": "tag:Nothing", "Values": ["x"]}])
    aws.advance(5)
    assert execution(aws, parent)["AutomationExecutionStatus"] == "Failed"


@pytest.mark.parametrize(
    "request_",
    [
        {"TargetParameterName": None},
        {"Targets": None},
        {"TargetMaps": [{"Id": ["a"]}]},
        {"Targets": [{"Key": "Color", "Values": ["red"]}]},
        {"TargetLocations": [{"Accounts": ["111111111111"]}]},
    ],
)
def test_targets_that_make_no_sense_are_refused(aws, request_):
    target = {"Targets": [{"Key": "tag:PatchGroup", "Values": ["web"]}], "TargetParameterName": "Id", **request_}
    with pytest.raises(ClientError) as refused:
        begin(aws, runbook(aws), **{key: value for key, value in target.items() if value})
    assert code(refused) in ("InvalidTarget", "InvalidAutomationExecutionParametersException")


def test_an_account_and_region_after_the_other(aws):
    """TargetLocationMaxConcurrency is 1 unless said otherwise; the children are read in their own region."""
    everywhere = [{"Accounts": ["111111111111"], "Regions": [REGION, "us-east-1"]}]
    parent = many(aws, runbook(aws), TargetLocations=everywhere)
    aws.advance(30)
    row = execution(aws, parent)
    assert [step["StepStatus"] for step in row["StepExecutions"]] == ["InProgress", "Pending"]
    assert row["StepExecutions"][0]["TargetLocation"]["Regions"] == [REGION]
    (near,) = children(aws, parent)
    assert near["Targets"] == [{"Key": "tag:PatchGroup", "Values": ["web"]}]
    assert len(children(aws, near["AutomationExecutionId"])) == 4
    aws.advance(300)
    row = execution(aws, parent)
    assert row["AutomationExecutionStatus"] == "Success"
    far = aws.client("ssm", "us-east-1")
    (other,) = children(aws, parent, far)
    (leaf,) = children(aws, other["AutomationExecutionId"], far)
    assert leaf["Target"] == aws.hosts("far")[0]
    wanted = [{"Key": "AutomationType", "Values": ["CrossAccount"]}]
    (listed,) = aws.ssm.describe_automation_executions(Filters=wanted)["AutomationExecutionMetadataList"]
    assert listed["AutomationExecutionId"] == parent


def test_an_account_whose_role_is_missing_fails(aws):
    """The role is assumed there; nothing runs in an account that has not got it."""
    place = [{"Accounts": ["111111111111"], "Regions": [REGION], "ExecutionRoleName": "NobodyMadeIt"}]
    parent = many(aws, runbook(aws), TargetLocations=place)
    aws.advance(10)
    row = execution(aws, parent)
    assert row["AutomationExecutionStatus"] == "Failed"
    assert "AssumeRole" in row["StepExecutions"][0]["FailureMessage"]
    assert children(aws, parent) == []


def test_the_same_token_starts_one_parent(aws):
    token = "11111111-2222-4333-8444-5555555555aa"
    document = runbook(aws)
    assert many(aws, document, ClientToken=token) == many(aws, document, ClientToken=token)


def test_twenty_five_parents_run_at_once_and_the_rest_waits(aws):
    document = runbook(aws, 600)
    target = [{"Key": "ParameterValues", "Values": ["a"]}]
    parents = [many(aws, document, Targets=target) for _ in range(27)]
    aws.advance(5)
    states = [execution(aws, parent)["AutomationExecutionStatus"] for parent in parents]
    assert states.count("InProgress") == 25
    assert states[-2:] == ["Pending", "Pending"]
    aws.advance(610)
    assert execution(aws, parents[-1])["AutomationExecutionStatus"] == "InProgress"


def test_a_runbook_of_aws_is_rate_controlled_too(aws):
    parent = begin(
        aws,
        "AWS-RestartEC2Instance",
        Targets=[{"Key": "tag:PatchGroup", "Values": ["web"]}],
        TargetParameterName="InstanceId",
        MaxConcurrency="2",
    )
    aws.advance(200)
    assert execution(aws, parent)["AutomationExecutionStatus"] == "Success"


def put(aws: Aws, body: str) -> str:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="places", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="places", Key="waves/one.json", Body=body)
    return "https://places.s3.amazonaws.com/waves/one.json?X-Amz-Signature=1"


def test_target_locations_may_lie_in_a_file_in_s3(aws):
    """The answer tells the URL; what is in the file is resolved as if it had been given."""
    url = put(aws, json.dumps([{"Accounts": ["111111111111"], "Regions": [REGION, "us-east-1"]}]))
    parent = many(aws, runbook(aws), TargetLocationsURL=url)
    aws.advance(400)
    row = execution(aws, parent)
    assert (row["AutomationExecutionStatus"], row["TargetLocationsURL"]) == ("Success", url)
    assert [step["TargetLocation"]["Regions"] for step in row["StepExecutions"]] == [[REGION], ["us-east-1"]]


@pytest.mark.parametrize(
    "body", ["no json", '{"a": 1}', "[]", '[{"Accounts": "111111111111"}]', '[{"Accounts": [], "Regions": ["x"]}]']
)
def test_a_file_that_holds_no_target_locations_is_refused(aws, body):
    url = put(aws, body)
    with pytest.raises(ClientError, match=r"TargetLocation|target location") as refused:
        many(aws, runbook(aws), TargetLocationsURL=url)
    assert code(refused) == "InvalidTarget"


def test_a_file_that_is_not_there_is_refused(aws):
    with pytest.raises(ClientError, match="cannot be read") as refused:
        many(aws, runbook(aws), TargetLocationsURL="https://places.s3.amazonaws.com/waves/two.json")
    assert code(refused) == "InvalidTarget"


@pytest.mark.parametrize("targets", [True, False])
def test_an_alarm_stops_an_execution(aws, targets):
    """No further step or child begins, and the execution names the alarm."""
    alarm(aws, "OK")
    wanted = {"Alarms": [{"Name": "shop-errors"}], "IgnorePollAlarmFailure": False}
    document = runbook(aws, seconds=300)
    if targets:
        identifier = many(aws, document, AlarmConfiguration=wanted, MaxConcurrency="1")
    else:
        identifier = begin(aws, document, Parameters={"Id": ["x"]}, AlarmConfiguration=wanted)
    aws.advance(60)
    assert execution(aws, identifier)["AutomationExecutionStatus"] == "InProgress"
    alarm(aws, "ALARM")
    aws.advance(30)
    row = execution(aws, identifier)
    assert (row["AutomationExecutionStatus"], row["AlarmConfiguration"]) == ("Cancelled", wanted)
    assert row["TriggeredAlarms"] == [{"Name": "shop-errors", "State": "ALARM"}]
    assert len(children(aws, identifier)) == (1 if targets else 0)


def test_an_alarm_that_cannot_be_read_stops_an_execution_unless_that_is_to_be_ignored(aws):
    document = runbook(aws)
    for ignored, expected in ((False, "Cancelled"), (True, "InProgress")):
        wanted = {"Alarms": [{"Name": "nobody-made-it"}], "IgnorePollAlarmFailure": ignored}
        identifier = begin(aws, document, Parameters={"Id": ["x"]}, AlarmConfiguration=wanted)
        aws.advance(20)
        assert execution(aws, identifier)["AutomationExecutionStatus"] == expected
