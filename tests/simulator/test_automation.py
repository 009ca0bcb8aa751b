"""SSM Automation as documented: executions, their steps, and what they do to hosts."""

import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import Aws

TOKEN = "11111111-2222-4333-8444-5555555555aa"
PATCH = (Path(__file__).parents[2] / "include/patchwave/aws/runbooks/patchwave-remediate.yaml").read_text("utf-8")


def code(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


def write(aws: Aws, name: str, *steps: dict, parameters: dict | None = None) -> str:
    content = {"schemaVersion": "0.3", "parameters": parameters or {}, "mainSteps": list(steps)}
    aws.ssm.create_document(Name=name, Content=json.dumps(content), DocumentType="Automation", DocumentFormat="JSON")
    return name


def shipped(aws: Aws) -> str:
    aws.ssm.create_document(Name="Remediate", Content=PATCH, DocumentType="Automation", DocumentFormat="YAML")
    return "Remediate"


def begin(aws: Aws, document: str, **request) -> str:
    return str(aws.ssm.start_automation_execution(DocumentName=document, **request)["AutomationExecutionId"])


def execution(aws: Aws, identifier: str) -> dict:
    return dict(aws.ssm.get_automation_execution(AutomationExecutionId=identifier)["AutomationExecution"])


def steps(aws: Aws, identifier: str) -> dict[str, str]:
    return {step["StepName"]: step["StepStatus"] for step in execution(aws, identifier)["StepExecutions"]}


def sleep(name: str, duration: str = "PT10S", **more) -> dict:
    return {"name": name, "action": "aws:sleep", "inputs": {"Duration": duration}, **more}


def command(name: str, host: str, line: str, **more) -> dict:
    inputs = {"DocumentName": "AWS-RunShellScript", "InstanceIds": [host], "Parameters": {"commands": [line]}}
    return {"name": name, "action": "aws:runCommand", "inputs": inputs, **more}


def test_the_shipped_runbook_patches_reboots_and_scans_the_host(aws):
    """The same machinery as SendCommand: the journal has the effects, and names the execution as their cause."""
    host = aws.hosts("web")[0]
    identifier = begin(aws, shipped(aws), Parameters={"InstanceId": [host]})
    assert execution(aws, identifier)["AutomationExecutionStatus"] == "Pending"
    aws.advance(60)
    row = execution(aws, identifier)
    assert (row["AutomationExecutionStatus"], row["CurrentStepName"], row["CurrentAction"]) == (
        "InProgress",
        "Install",
        "aws:runCommand",
    )
    aws.advance(600)
    assert steps(aws, identifier) == {"Install": "Success", "Scan": "Success"}
    row = execution(aws, identifier)
    assert row["AutomationExecutionStatus"] == "Success"
    assert row["ExecutionEndTime"] > row["ExecutionStartTime"]
    assert aws.patch_state(host)["Operation"] == "Scan"
    assert aws.patch_state(host)["MissingCount"] == 0
    causes = [line["cause"] for line in aws.journal() if line["host"] == host]
    assert {cause["automation_id"] for cause in causes} == {identifier}
    commands = [step["Outputs"]["CommandId"][0] for step in row["StepExecutions"]]
    assert {cause["command_id"] for cause in causes} == set(commands)
    assert causes[0]["comment"] == f"patchwave remediate Install {identifier}"


def test_a_step_fails_with_its_command_and_the_rest_is_not_begun(aws):
    """Its failure says which command ended how."""
    host = aws.hosts("odd")[3]
    identifier = begin(aws, shipped(aws), Parameters={"InstanceId": [host]})
    aws.advance(600)
    row = execution(aws, identifier)
    assert steps(aws, identifier) == {"Install": "Failed", "Scan": "Pending"}
    assert row["AutomationExecutionStatus"] == "Failed"
    assert row["StepExecutions"][0]["Outputs"]["CommandId"][0] in row["FailureMessage"]


def test_a_command_that_is_refused_fails_the_step(aws):
    identifier = begin(aws, shipped(aws), Parameters={"InstanceId": ["i-0123456789abcdef0"]})
    aws.advance(5)
    row = execution(aws, identifier)
    assert row["AutomationExecutionStatus"] == "Failed"
    assert "InvalidInstanceId" in row["FailureMessage"]
    assert aws.journal() == []


def test_a_failed_step_can_be_passed_over(aws):
    host = aws.hosts("web")[0]
    document = write(aws, "Careless", command("Break", host, "exit 3", onFailure="Continue"), sleep("Rest"))
    identifier = begin(aws, document)
    aws.advance(60)
    assert steps(aws, identifier) == {"Break": "Failed", "Rest": "Success"}
    assert execution(aws, identifier)["AutomationExecutionStatus"] == "Success"


def test_a_failed_step_can_lead_elsewhere(aws):
    host = aws.hosts("web")[0]
    document = write(
        aws, "Careful", command("Break", host, "exit 3", onFailure="step:Repair"), sleep("Skipped", isEnd=True), sleep("Repair")
    )
    identifier = begin(aws, document)
    aws.advance(60)
    assert steps(aws, identifier) == {"Break": "Failed", "Skipped": "Pending", "Repair": "Success"}


@pytest.mark.parametrize(("wanted", "reached"), [("yes", "Go"), ("no", "Stay")])
def test_a_branch_follows_its_choice(aws, wanted, reached):
    choice = {"NextStep": "Go", "Variable": "{{ Wanted }}", "StringEquals": "yes"}
    document = write(
        aws,
        "Fork",
        {"name": "Ask", "action": "aws:branch", "inputs": {"Choices": [choice], "Default": "Stay"}},
        sleep("Go", isEnd=True),
        sleep("Stay"),
        parameters={"Wanted": {"type": "String"}},
    )
    identifier = begin(aws, document, Parameters={"Wanted": [wanted]})
    aws.advance(30)
    seen = steps(aws, identifier)
    assert {name for name, how in seen.items() if how == "Success"} == {"Ask", reached}


def test_a_step_ends_when_its_time_is_up_and_its_command_is_cancelled(aws):
    host = aws.hosts("web")[0]
    patching = {"DocumentName": "AWS-RunPatchBaseline", "InstanceIds": [host], "Parameters": {"Operation": "Install"}}
    document = write(aws, "Hasty", {"name": "Run", "action": "aws:runCommand", "timeoutSeconds": 30, "inputs": patching})
    identifier = begin(aws, document)
    aws.advance(60)
    row = execution(aws, identifier)
    assert row["AutomationExecutionStatus"] == "TimedOut"
    assert aws.status(row["StepExecutions"][0]["Outputs"]["CommandId"][0]) == "Cancelled"


def test_an_action_that_is_not_simulated_fails_and_says_so(aws):
    identifier = begin(aws, write(aws, "Other", {"name": "Script", "action": "aws:executeScript", "inputs": {}}))
    aws.advance(1)
    assert "aws:executeScript is not simulated" in execution(aws, identifier)["FailureMessage"]


def test_a_reboot_through_the_api_reboots_the_host(aws):
    host = aws.hosts("web")[0]
    inputs = {"Service": "ec2", "Api": "RebootInstances", "InstanceIds": ["{{ InstanceId }}"]}
    document = write(
        aws,
        "Reboot",
        {"name": "Reboot", "action": "aws:executeAwsApi", "inputs": inputs},
        parameters={"InstanceId": {"type": "String"}},
    )
    identifier = begin(aws, document, Parameters={"InstanceId": [host]})
    aws.advance(300)
    assert execution(aws, identifier)["AutomationExecutionStatus"] == "Success"
    assert aws.events(host) == ["out_of_service", "reboot_begun", "reboot_ended", "in_service"]
    assert aws.journal()[0]["cause"]["automation_id"] == identifier


def test_the_same_token_gives_the_execution_that_was_started_before(aws):
    """A retry after a lost answer must start nothing."""
    document = write(aws, "Once", sleep("Rest"), parameters={"Word": {"type": "String", "default": "a"}})
    first = begin(aws, document, ClientToken=TOKEN)
    assert begin(aws, document, ClientToken=TOKEN) == first
    assert begin(aws, document, ClientToken=TOKEN.upper()) == first, "a UUID has no case"
    assert len(aws.ssm.describe_automation_executions()["AutomationExecutionMetadataList"]) == 1
    aws.advance(60)
    assert begin(aws, document, ClientToken=TOKEN) == first, "also after it has ended"


def test_the_same_token_with_other_parameters_is_refused(aws):
    document = write(aws, "Once", sleep("Rest"), parameters={"Word": {"type": "String", "default": "a"}})
    begin(aws, document, ClientToken=TOKEN)
    with pytest.raises(ClientError) as refused:
        begin(aws, document, ClientToken=TOKEN, Parameters={"Word": ["b"]})
    assert code(refused) == "IdempotentParameterMismatch"


@pytest.mark.parametrize(
    "parameters",
    [
        {"AutomationAssumeRole": ["arn:aws:iam::111111111111:role/a"]},
        {"InstanceId": ["everything"]},
        {"InstanceId": ["i-0123456789abcdef0"] * 2},
        {"InstanceId": ["i-0123456789abcdef0"], "Colour": ["red"]},
    ],
)
def test_parameters_are_checked_against_the_document(aws, parameters):
    with pytest.raises(ClientError) as refused:
        begin(aws, shipped(aws), Parameters=parameters)
    assert code(refused) == "InvalidAutomationExecutionParametersException"


def test_only_automation_documents_that_exist_can_be_started(aws):
    content = {"schemaVersion": "2.2", "mainSteps": []}
    aws.ssm.create_document(Name="Command", Content=json.dumps(content), DocumentType="Command", DocumentFormat="JSON")
    for name in ("Absent", "Command"):
        with pytest.raises(ClientError) as refused:
            begin(aws, name)
        assert code(refused) == "AutomationDefinitionNotFoundException"
    with pytest.raises(ClientError) as refused:
        begin(aws, write(aws, "One", sleep("Rest")), DocumentVersion="7")
    assert code(refused) == "AutomationDefinitionVersionNotFoundException"


def test_a_cancelled_execution_cancels_its_command(aws):
    host = aws.hosts("web")[0]
    identifier = begin(aws, shipped(aws), Parameters={"InstanceId": [host]})
    aws.advance(20)
    aws.ssm.stop_automation_execution(AutomationExecutionId=identifier)
    assert execution(aws, identifier)["AutomationExecutionStatus"] == "Cancelling"
    aws.advance(20)
    assert execution(aws, identifier)["AutomationExecutionStatus"] == "Cancelled"
    assert steps(aws, identifier) == {"Install": "Cancelled", "Scan": "Pending"}
    (command_id,) = {line["cause"]["command_id"] for line in aws.journal()}
    assert aws.status(command_id) == "Cancelled"


def test_a_completed_execution_finishes_its_step_and_begins_no_other(aws):
    identifier = begin(aws, write(aws, "Two", sleep("First"), sleep("Second")))
    aws.advance(2)
    aws.ssm.stop_automation_execution(AutomationExecutionId=identifier, Type="Complete")
    aws.advance(60)
    assert steps(aws, identifier) == {"First": "Success", "Second": "Pending"}
    with pytest.raises(ClientError) as refused:
        aws.ssm.stop_automation_execution(AutomationExecutionId=identifier)
    assert code(refused) == "InvalidAutomationStatusUpdateException"


def test_executions_are_found_by_tag_key_status_and_document(aws):
    """After a lost answer the tag is the only way back to an execution."""
    short, long = write(aws, "Short", sleep("Rest")), write(aws, "Long", sleep("Rest", "PT2H"))
    tagged = begin(aws, short, Tags=[{"Key": f"patchwave-{TOKEN}", "Value": ""}])
    other = begin(aws, long)
    aws.advance(60)

    def found(key: str, value: str) -> list[str]:
        rows = aws.ssm.describe_automation_executions(Filters=[{"Key": key, "Values": [value]}])[
            "AutomationExecutionMetadataList"
        ]
        return [row["AutomationExecutionId"] for row in rows]

    assert found("TagKey", f"patchwave-{TOKEN}") == [tagged]
    assert found("TagKey", "absent") == []
    assert found("ExecutionStatus", "InProgress") == [other]
    assert found("DocumentNamePrefix", "Sho") == [tagged]
    assert found("ExecutionId", other) == [other]
    assert found("StartTimeAfter", "2026-01-06T00:00:00Z") == []


def test_executions_come_in_pages_newest_first(aws):
    document = write(aws, "Rest", sleep("Rest"))
    started = [begin(aws, document) for _ in range(7)]
    pages = list(aws.ssm.get_paginator("describe_automation_executions").paginate(PaginationConfig={"PageSize": 3}))
    listed = [row["AutomationExecutionId"] for page in pages for row in page["AutomationExecutionMetadataList"]]
    assert [len(page["AutomationExecutionMetadataList"]) for page in pages] == [3, 3, 1]
    assert listed == started[::-1]


def test_at_most_a_hundred_executions_run_and_the_rest_waits(aws):
    document = write(aws, "Rest", sleep("Rest", "PT60S"))
    started = [begin(aws, document) for _ in range(103)]
    aws.advance(5)
    world = [execution(aws, identifier)["AutomationExecutionStatus"] for identifier in started[99:]]
    assert world == ["InProgress", "Pending", "Pending", "Pending"]
    aws.advance(60)
    assert execution(aws, started[-1])["AutomationExecutionStatus"] == "InProgress"


def test_steps_are_listed_with_filters_and_in_reverse(aws):
    identifier = begin(aws, write(aws, "Two", sleep("First"), sleep("Second", "PT1H")))
    aws.advance(30)
    client = aws.ssm
    rows = client.describe_automation_step_executions(AutomationExecutionId=identifier, ReverseOrder=True)["StepExecutions"]
    assert [row["StepName"] for row in rows] == ["Second", "First"]
    wanted = [{"Key": "StepExecutionStatus", "Values": ["Success"]}]
    (row,) = client.describe_automation_step_executions(AutomationExecutionId=identifier, Filters=wanted)["StepExecutions"]
    assert row["StepName"] == "First"
    assert json.loads(row["Inputs"]["Duration"]) == "PT10S", "inputs are JSON-encoded strings"


def test_an_execution_of_another_region_is_unknown(aws):
    identifier = begin(aws, write(aws, "Rest", sleep("Rest")))
    with pytest.raises(ClientError) as refused:
        aws.client("ssm", "us-east-1").get_automation_execution(AutomationExecutionId=identifier)
    assert code(refused) == "AutomationExecutionNotFoundException"
