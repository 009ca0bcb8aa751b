"""What a runbook of schema 0.3 may say: failure and cancellation, order, limits, variables, outputs."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import ACCOUNT, REGION, Aws
from tests.simulator.test_automation import begin, code, command, execution, sleep, steps, write
from tests.simulator.test_automation_actions import api, outputs, status

IDENTITY = [{"Name": "Account", "Selector": "$.Account", "Type": "String"}]


def who(name: str = "Who", **more) -> dict:
    return {**api(name, "sts", "GetCallerIdentity", IDENTITY), **more}


def breaks(name: str = "Break", **more) -> dict:
    return {**api(name, "ec2", "DescribeInstances", InstanceIds=["i-0123456789abcdef0"]), **more}


def runbook(aws: Aws, *mainsteps: dict, **more) -> str:
    content = {"schemaVersion": "0.3", "mainSteps": list(mainsteps), **more}
    aws.ssm.create_document(Name="Book", Content=json.dumps(content), DocumentType="Automation", DocumentFormat="JSON")
    return "Book"


def row(aws: Aws, identifier: str, name: str) -> dict:
    return next(step for step in execution(aws, identifier)["StepExecutions"] if step["StepName"] == name)


@pytest.mark.parametrize(
    ("critical", "reaction", "expected"),
    [
        (None, "Continue", "Success"),
        (False, "Continue", "Success"),
        (True, "Continue", "Failed"),
        ("true", "Continue", "Failed"),
        (True, "step:Last", "Failed"),
        (None, "Abort", "Failed"),
    ],
)
def test_a_critical_step_that_fails_fails_the_execution_at_its_end(aws, critical, reaction, expected):
    """Guide, "Data elements and parameters": isCritical counts where the step says it; what follows is done in any case."""
    flag = {} if critical is None else {"isCritical": critical}
    identifier = begin(aws, runbook(aws, breaks(onFailure=reaction, **flag), sleep("Last")))
    aws.advance(60)
    assert status(aws, identifier) == expected
    assert steps(aws, identifier)["Last"] == ("Pending" if reaction == "Abort" else "Success")
    assert row(aws, identifier, "Break")["IsCritical"] is (
        reaction != "Continue" if critical is None else critical in (True, "true")
    )


def test_steps_follow_next_step_until_one_is_the_end(aws):
    book = runbook(aws, sleep("A", nextStep="C"), sleep("B"), sleep("C", nextStep="D"), sleep("D", isEnd="true"), sleep("E"))
    identifier = begin(aws, book)
    aws.advance(60)
    assert steps(aws, identifier) == {"A": "Success", "B": "Pending", "C": "Success", "D": "Success", "E": "Pending"}
    assert (row(aws, identifier, "D")["IsEnd"], row(aws, identifier, "A")["NextStep"]) == (True, "C")


@pytest.mark.parametrize(
    "wrong",
    [
        [sleep("A", nextStep="Z")],
        [sleep("A", onFailure="step:Z")],
        [sleep("A", onFailure="Retry")],
        [sleep("A", onCancel="step:Z")],
        [sleep("A", onCancel="Continue")],
        [sleep("A", isEnd=True, nextStep="B"), sleep("B")],
        [sleep("A"), sleep("A")],
        [{"name": "A"}],
        [{"action": "aws:pause"}],
    ],
    ids=lambda found: json.dumps(found)[:60],
)
def test_a_runbook_whose_steps_lead_nowhere_is_refused(aws, wrong):
    with pytest.raises(ClientError, match="not a valid runbook") as refused:
        begin(aws, runbook(aws, *wrong))
    assert code(refused) == "InvalidAutomationExecutionParametersException"


def test_a_branch_to_no_step_fails(aws):
    choose = {"name": "Ask", "action": "aws:branch", "inputs": {"Choices": [], "Default": "Nowhere"}}
    identifier = begin(aws, runbook(aws, choose, sleep("Rest")))
    aws.advance(30)
    assert (status(aws, identifier), steps(aws, identifier)["Rest"]) == ("Failed", "Pending")
    assert "Nowhere" in execution(aws, identifier)["FailureMessage"]


def test_a_runbook_that_goes_in_a_circle_goes_on_until_it_is_stopped(aws):
    """Each round has all its attempts, and the simulator goes on answering."""
    again = {"name": "Ask", "action": "aws:branch", "inputs": {"Choices": [], "Default": "Ask"}}
    identifier = begin(aws, runbook(aws, again))
    aws.advance(60)
    assert status(aws, identifier) == "InProgress"
    aws.ssm.stop_automation_execution(AutomationExecutionId=identifier)
    aws.advance(10)
    assert status(aws, identifier) == "Cancelled"


def test_a_step_is_tried_as_often_as_it_says(aws):
    """The attempts and the time may come from parameters."""
    host = aws.hosts("web")[0]
    book = runbook(
        aws,
        command("Try", "{{ Id }}", "echo x >> /tried; exit 1", maxAttempts="{{ Times }}", timeoutSeconds="{{ Seconds }}"),
        parameters={name: {"type": "String"} for name in ("Id", "Times", "Seconds")},
    )
    identifier = begin(aws, book, Parameters={"Id": [host], "Times": ["3"], "Seconds": ["77"]})
    aws.advance(300)
    assert len([event for event in aws.events(host) if event == "command_begun"]) == 3
    found = row(aws, identifier, "Try")
    assert (found["StepStatus"], found["MaxAttempts"], found["TimeoutSeconds"]) == ("Failed", 3, 77)


def test_a_step_whose_time_is_up_is_tried_again_and_then_leads_on(aws):
    late = sleep("Late", "PT1H", timeoutSeconds=30, maxAttempts=2, onFailure="step:After")
    identifier = begin(aws, runbook(aws, late, sleep("Never", isEnd=True), sleep("After")))
    aws.advance(45)
    assert steps(aws, identifier) == {"Late": "InProgress", "Never": "Pending", "After": "Pending"}
    aws.advance(60)
    assert steps(aws, identifier) == {"Late": "TimedOut", "Never": "Pending", "After": "Success"}
    assert status(aws, identifier) == "Success"


def test_a_cancelled_step_without_on_cancel_just_ends(aws):
    identifier = begin(aws, runbook(aws, sleep("Long", "PT1H", onCancel="Abort"), sleep("Tidy")))
    aws.advance(5)
    aws.ssm.stop_automation_execution(AutomationExecutionId=identifier)
    aws.advance(30)
    assert (status(aws, identifier), steps(aws, identifier)) == ("Cancelled", {"Long": "Cancelled", "Tidy": "Pending"})


def test_outputs_of_a_step_are_inputs_of_the_next(aws):
    """As a value of its own, within a text, and as a list."""
    look = api(
        "Look",
        "ec2",
        "DescribeInstances",
        [
            {"Name": "Ids", "Selector": "$.Reservations..InstanceId", "Type": "StringList"},
            {"Name": "First", "Selector": "$.Reservations[0].Instances[0].InstanceId", "Type": "String"},
        ],
        InstanceIds=aws.hosts("web")[:2],
    )
    tag = api("Tag", "ec2", "CreateTags", Resources="{{ Look.Ids }}", Tags=[{"Key": "Seen", "Value": "by {{ Look.First }}"}])
    identifier = begin(aws, runbook(aws, look, tag))
    aws.advance(30)
    assert status(aws, identifier) == "Success"
    first = outputs(aws, identifier, "Look")["First"][0]
    for host in aws.hosts("web")[:2]:
        tags = aws.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [host]}])["Tags"]
        assert {entry["Value"] for entry in tags if entry["Key"] == "Seen"} == {f"by {first}"}


@pytest.mark.parametrize("name", ["Later.Account", "Nobody.Account", "Nothing", "variable:Nothing", "ssm:/not/there"])
def test_an_input_that_cannot_be_resolved_fails_its_step(aws, name):
    """Nothing is done with the braces in it."""
    host = aws.hosts("web")[0]
    tag = api("Tag", "ec2", "CreateTags", Resources=[host], Tags=[{"Key": "Seen", "Value": "{{ " + name + " }}"}])
    identifier = begin(aws, runbook(aws, tag, who("Later")))
    aws.advance(30)
    assert status(aws, identifier) == "Failed"
    assert f"Failed to resolve input: {name}" in row(aws, identifier, "Tag")["FailureMessage"]
    assert "Seen" not in {entry["Key"] for entry in aws.ec2.describe_tags()["Tags"]}


def test_the_systems_variables_are_known(aws):
    """Guide, "Automation system variables"; and parameters of Parameter Store, but not secure ones."""
    aws.ssm.put_parameter(Name="/team/name", Value="shop", Type="String")
    names = (
        "global:ACCOUNT_ID",
        "global:REGION",
        "global:DATE",
        "global:AWS_PARTITION",
        "automation:EXECUTION_ID",
        "ssm:/team/name",
    )
    value = " ".join("{{ " + name + " }}" for name in names)
    host = aws.hosts("web")[0]
    identifier = begin(aws, runbook(aws, command("Say", host, f"echo '{value}'")))
    aws.advance(60)
    found = outputs(aws, identifier, "Say")["Output"][0]
    assert found.split() == [ACCOUNT, REGION, "2026-01-05", "aws", identifier, "shop"]


def test_a_variable_is_updated_and_read(aws):
    """Guide, "aws:updateVariable": declared in the runbook with a type, and shown with the execution."""
    book = runbook(
        aws,
        who(),
        {"name": "Keep", "action": "aws:updateVariable", "inputs": {"Name": "variable:Owner", "Value": "{{ Who.Account }}"}},
        command("Say", aws.hosts("web")[0], "echo {{ variable:Owner }} {{ variable:Count }}"),
        variables={"Owner": {"type": "String", "default": "nobody"}, "Count": {"type": "Integer", "default": 3}},
    )
    identifier = begin(aws, book)
    aws.advance(60)
    assert outputs(aws, identifier, "Say")["Output"] == [f"{ACCOUNT} 3\n"]
    assert execution(aws, identifier)["Variables"] == {"Owner": [ACCOUNT], "Count": ["3"]}


@pytest.mark.parametrize(("name", "value"), [("Count", "many"), ("Owner", ["a", "b"]), ("Nobody", "x")])
def test_a_variable_takes_only_what_it_is_declared_for(aws, name, value):
    book = runbook(
        aws,
        {"name": "Keep", "action": "aws:updateVariable", "inputs": {"Name": name, "Value": value}},
        variables={"Owner": {"type": "String"}, "Count": {"type": "Integer"}},
    )
    identifier = begin(aws, book)
    aws.advance(30)
    assert (status(aws, identifier), name in execution(aws, identifier)["FailureMessage"]) == ("Failed", True)


def test_an_output_of_a_step_that_was_not_carried_out_says_so(aws):
    book = runbook(aws, who(), sleep("Rest", isEnd=True), who("Later"), outputs=["Who.Account", "Later.Account"])
    identifier = begin(aws, book)
    aws.advance(60)
    assert execution(aws, identifier)["Outputs"] == {
        "Who.Account": [ACCOUNT],
        "Later.Account": ["No output available yet because the step is not successfully executed"],
    }


def test_a_script_step_fails_and_says_that_it_is_not_simulated(aws):
    script = {"name": "Script", "action": "aws:executeScript", "inputs": {"Runtime": "python3.11", "Handler": "f", "Script": "x"}}
    identifier = begin(aws, write(aws, "Scripts", script))
    aws.advance(10)
    assert "aws:executeScript is not simulated" in execution(aws, identifier)["FailureMessage"]
