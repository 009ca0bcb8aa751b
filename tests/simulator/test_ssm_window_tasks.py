"""Tasks of maintenance windows: functions, state machines, one automation a target, alarms; how targets and tasks are read."""

import io
import json
import zipfile

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import ACCOUNT, REGION, Aws
from tests.simulator.test_automation import sleep, write
from tests.simulator.test_run_command import code
from tests.simulator.test_ssm_commands import alarm
from tests.simulator.test_ssm_windows import HOUR, registered, runs, task, window

ALARM = {"Alarms": [{"Name": "shop-errors"}]}


def role(aws: Aws, service: str) -> str:
    trust = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{service}.amazonaws.com"}}]}
    made = aws.client("iam").create_role(RoleName=service, AssumeRolePolicyDocument=json.dumps(trust))
    return str(made["Role"]["Arn"])


def function(aws: Aws) -> str:
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as packed:
        packed.writestr("main.py", "def handler(event, context): return 1")
    made = aws.client("lambda").create_function(
        FunctionName="drain",
        Runtime="python3.11",
        Role=role(aws, "lambda"),
        Handler="main.handler",
        Code={"ZipFile": code.getvalue()},
    )
    return str(made["FunctionArn"])


def machine(aws: Aws) -> str:
    definition = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
    made = aws.client("stepfunctions").create_state_machine(
        name="drain", definition=json.dumps(definition), roleArn=role(aws, "states")
    )
    return str(made["stateMachineArn"])


def other_task(aws: Aws, identifier: str, kind: str, arn: str, parameters: dict | None = None, **more) -> str:
    given = {"MaxConcurrency": "1", "MaxErrors": "0", **more}
    if parameters:
        given["TaskInvocationParameters"] = parameters
    return aws.ssm.register_task_with_maintenance_window(WindowId=identifier, TaskArn=arn, TaskType=kind, **given)["WindowTaskId"]


def task_rows(aws: Aws, identifier: str) -> list[dict]:
    (run,) = runs(aws, identifier)
    return aws.ssm.describe_maintenance_window_execution_tasks(WindowExecutionId=run["WindowExecutionId"])[
        "WindowExecutionTaskIdentities"
    ]


def invocations(aws: Aws, row: dict) -> list[dict]:
    return aws.ssm.describe_maintenance_window_execution_task_invocations(
        WindowExecutionId=row["WindowExecutionId"], TaskId=row["TaskExecutionId"]
    )["WindowExecutionTaskInvocationIdentities"]


def test_a_function_that_exists_is_a_success(aws):
    """Chosen: nothing runs its code; its payload has the window's pseudo parameters filled in."""
    identifier = window(aws)
    payload = json.dumps({"window": "{{WINDOW_ID}}"}).encode()
    other_task(aws, identifier, "LAMBDA", function(aws), {"Lambda": {"Payload": payload}})
    aws.advance(HOUR + 60)
    (row,) = task_rows(aws, identifier)
    (invocation,) = invocations(aws, row)
    assert (row["Status"], row["TaskType"], invocation["Status"]) == ("SUCCESS", "LAMBDA", "SUCCESS")
    assert json.loads(json.loads(invocation["Parameters"])["payload"]) == {"window": identifier}


def test_a_state_machine_that_exists_is_started(aws):
    identifier, arn = window(aws), machine(aws)
    other_task(
        aws, identifier, "STEP_FUNCTIONS", arn, {"StepFunctions": {"Input": '{"window": "{{WINDOW_ID}}"}', "Name": "night"}}
    )
    aws.advance(HOUR + 60)
    (row,) = task_rows(aws, identifier)
    (invocation,) = invocations(aws, row)
    assert (row["Status"], invocation["Status"]) == ("SUCCESS", "SUCCESS")
    (started,) = aws.client("stepfunctions").list_executions(stateMachineArn=arn)["executions"]
    assert (started["executionArn"], started["name"]) == (invocation["ExecutionId"], "night")
    told = aws.client("stepfunctions").describe_execution(executionArn=started["executionArn"])
    assert json.loads(told["input"]) == {"window": identifier}


@pytest.mark.parametrize(
    ("kind", "arn"),
    [
        ("LAMBDA", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:nobody"),
        ("STEP_FUNCTIONS", f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nobody"),
    ],
)
def test_what_does_not_exist_fails_its_task_with_the_reason(aws, kind, arn):
    identifier = window(aws)
    other_task(aws, identifier, kind, arn)
    aws.advance(HOUR + 60)
    (row,) = task_rows(aws, identifier)
    assert row["Status"] == "FAILED"
    assert "nobody" in row["StatusDetails"]
    assert runs(aws, identifier)[0]["Status"] == "FAILED"


def slow(aws: Aws) -> str:
    """A runbook that reboots its host and rests for five minutes."""
    reboot = {"Service": "ec2", "Api": "RebootInstances", "InstanceIds": ["{{ InstanceId }}"]}
    parameters = {"InstanceId": {"type": "StringList"}}
    return write(
        aws, "Slow", {"name": "R", "action": "aws:executeAwsApi", "inputs": reboot}, sleep("S", "PT5M"), parameters=parameters
    )


def automation(aws: Aws, document: str = "", **more) -> str:
    """A window that starts an automation for each host of the fleet."""
    identifier, document = window(aws, Duration=4), document or slow(aws)
    target = registered(aws, identifier)
    parameters = {"Automation": {"Parameters": {"InstanceId": ["{{RESOURCE_ID}}"]}}}
    targets = [{"Key": "WindowTargetIds", "Values": [target]}]
    other_task(aws, identifier, "AUTOMATION", document, parameters, Targets=targets, **more)
    return identifier


def test_an_automation_runs_once_for_each_target_and_as_many_at_once_as_allowed(aws):
    identifier = automation(aws, MaxConcurrency="2")
    aws.advance(HOUR + 20)
    (row,) = task_rows(aws, identifier)
    assert sorted(one["Status"] for one in invocations(aws, row)) == ["IN_PROGRESS", "IN_PROGRESS", "PENDING", "PENDING"]
    aws.advance(3600)
    assert {one["Status"] for one in invocations(aws, row)} == {"SUCCESS"}
    meant = [json.loads(one["Parameters"])["parameters"]["InstanceId"][0] for one in invocations(aws, row)]
    assert sorted(meant) == sorted(aws.hosts("web"))
    assert {line["host"] for line in aws.journal() if line["event"] == "reboot_ended"} == set(aws.hosts("web"))


def test_after_more_errors_than_allowed_no_other_automation_is_started(aws):
    content = {
        "schemaVersion": "0.3",
        "parameters": {"InstanceId": {"type": "StringList"}},
        "mainSteps": [{"name": "no", "action": "aws:executeAwsApi", "inputs": {"Service": "ec2", "Api": "Nonsense"}}],
    }
    aws.ssm.create_document(Name="Break", Content=json.dumps(content), DocumentType="Automation")
    identifier = automation(aws, "Break", MaxErrors="1")
    aws.advance(HOUR + 600)
    (row,) = task_rows(aws, identifier)
    assert sorted(one["Status"] for one in invocations(aws, row)) == ["CANCELLED", "CANCELLED", "FAILED", "FAILED"]
    assert row["Status"] == "FAILED"


def test_an_alarm_stops_a_task_and_is_told(aws):
    """What waits is cancelled; the alarm is the task's, and reaches the automations it starts."""
    alarm(aws, "OK")
    identifier = automation(aws, AlarmConfiguration=ALARM)
    (registered_task,) = aws.ssm.describe_maintenance_window_tasks(WindowId=identifier)["Tasks"]
    assert registered_task["AlarmConfiguration"]["Alarms"] == ALARM["Alarms"]
    told = aws.ssm.get_maintenance_window_task(WindowId=identifier, WindowTaskId=registered_task["WindowTaskId"])
    assert told["AlarmConfiguration"]["Alarms"] == ALARM["Alarms"]
    aws.advance(HOUR + 10)
    alarm(aws, "ALARM")
    aws.advance(120)
    (row,) = task_rows(aws, identifier)
    assert row["TriggeredAlarms"] == [{"Name": "shop-errors", "State": "ALARM"}]
    assert {one["Status"] for one in invocations(aws, row)} == {"CANCELLED"}
    first = invocations(aws, row)[0]
    found = aws.ssm.get_automation_execution(AutomationExecutionId=first["ExecutionId"])["AutomationExecution"]
    assert (found["AutomationExecutionStatus"], found["TriggeredAlarms"][0]["State"]) == ("Cancelled", "ALARM")
    detail = aws.ssm.get_maintenance_window_execution_task(
        WindowExecutionId=row["WindowExecutionId"], TaskId=row["TaskExecutionId"]
    )
    assert detail["TriggeredAlarms"] == row["TriggeredAlarms"]


def test_an_alarm_in_alarm_lets_no_command_of_a_task_begin(aws):
    alarm(aws, "ALARM")
    identifier = window(aws)
    task(aws, identifier, registered(aws, identifier), AlarmConfiguration=ALARM)
    aws.advance(HOUR + 60)
    (row,) = task_rows(aws, identifier)
    assert (row["Status"], row["TriggeredAlarms"][0]["Name"]) == ("CANCELLED", "shop-errors")
    assert aws.journal() == []


def test_a_cancelled_window_starts_no_further_automation(aws):
    identifier = automation(aws)
    aws.advance(HOUR + 10)
    (run,) = runs(aws, identifier)
    aws.ssm.cancel_maintenance_window_execution(WindowExecutionId=run["WindowExecutionId"])
    aws.advance(1800)
    (row,) = task_rows(aws, identifier)
    assert sorted(one["Status"] for one in invocations(aws, row)) == ["CANCELLED", "CANCELLED", "CANCELLED", "SUCCESS"]


def test_targets_and_tasks_are_read_in_pages_and_with_filters(aws):
    """The page has 10 to 100 rows; a token belongs to one window's list."""
    identifier, other = window(aws), window(aws, Name="other")
    targets = [registered(aws, identifier, "InstanceIds", host) for host in aws.hosts("web") * 3]
    tasks = [task(aws, identifier, targets[0], Priority=number) for number in range(12)]
    registered(aws, other)
    for ask, key, name, ids in (
        (aws.ssm.describe_maintenance_window_targets, "Targets", "WindowTargetId", targets),
        (aws.ssm.describe_maintenance_window_tasks, "Tasks", "WindowTaskId", tasks),
    ):
        first = ask(WindowId=identifier, MaxResults=10)
        second = ask(WindowId=identifier, MaxResults=10, NextToken=first["NextToken"])
        assert [row[name] for row in first[key] + second[key]] == ids
        assert "NextToken" not in second
        (row,) = ask(WindowId=identifier, Filters=[{"Key": name, "Values": [ids[1]]}])[key]
        assert row["WindowId"] == identifier
        for wrong, expected in (
            ({"WindowId": other, "NextToken": first["NextToken"]}, "InvalidNextToken"),
            ({"WindowId": identifier, "MaxResults": 101}, "ValidationException"),
            ({"WindowId": "mw-00000000000000000"}, "DoesNotExistException"),
        ):
            with pytest.raises(ClientError) as refused:
                ask(**wrong)
            assert code(refused) == expected


def test_a_target_that_a_task_names_stays_when_it_is_removed_safely(aws):
    identifier = window(aws)
    target = registered(aws, identifier)
    made = task(aws, identifier, target)
    with pytest.raises(ClientError) as refused:
        aws.ssm.deregister_target_from_maintenance_window(WindowId=identifier, WindowTargetId=target, Safe=True)
    assert code(refused) == "TargetInUseException"
    gone = aws.ssm.deregister_task_from_maintenance_window(WindowId=identifier, WindowTaskId=made)
    assert (gone["WindowId"], gone["WindowTaskId"]) == (identifier, made)
    gone = aws.ssm.deregister_target_from_maintenance_window(WindowId=identifier, WindowTargetId=target, Safe=True)
    assert (gone["WindowId"], gone["WindowTargetId"]) == (identifier, target)
    with pytest.raises(ClientError) as refused:
        aws.ssm.deregister_task_from_maintenance_window(WindowId=identifier, WindowTaskId=made)
    assert code(refused) == "DoesNotExistException"


def test_a_window_opens_every_five_minutes_if_told_so(aws):
    """One execution that still runs is not overtaken: the next is skipped."""
    identifier = window(aws, "rate(5 minutes)")
    assert aws.ssm.get_maintenance_window(WindowId=identifier)["NextExecutionTime"] == "2026-01-05T08:05Z"
    task(aws, identifier, registered(aws, identifier))
    aws.advance(16 * 60)
    assert [run["Status"] for run in runs(aws, identifier)] == ["SUCCESS"] * 3
    for wrong in ("rate(4 minutes)", "rate(1 minute)", "rate(0 minutes)", "rate(5 seconds)"):
        with pytest.raises(ClientError) as refused:
            window(aws, wrong)
        assert code(refused) == "ValidationException"
