"""Automation: the runbook is there once and current, an execution is started once, its state is told as it is."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest
import yaml

from patchwave.aws import automation
from patchwave.campaign import errors
from patchwave.campaign.remediation import RUNBOOK, RemedyState
from tests.gateway.conftest import CELL, NOW, Wire

TOKEN = uuid.uuid5(uuid.NAMESPACE_DNS, "a remedy")
EXECUTION = "73c8eef8-f4ee-4a05-820c-e354f0000000"
CONTENT = "schemaVersion: '0.3'\n"
HASH = hashlib.sha256(CONTENT.encode()).hexdigest()


def document(content_hash: str, *, default: str = "1", latest: str = "1") -> dict[str, Any]:
    return {"Document": {"Name": RUNBOOK, "Hash": content_hash, "DefaultVersion": default, "LatestVersion": latest}}


def test_a_missing_runbook_is_created(wire: Wire) -> None:
    """The first campaign in an account brings it along."""
    wire.refuses("ssm", "describe_document", "InvalidDocument")
    wire.expects(
        "ssm", "create_document", {},
        {"Name": RUNBOOK, "Content": CONTENT, "DocumentType": "Automation", "DocumentFormat": "YAML"},
    )  # fmt: skip
    wire.gateway.ensure_runbook(CELL, RUNBOOK, CONTENT)


def test_a_current_runbook_is_left_alone(wire: Wire) -> None:
    """One call, no new version."""
    wire.expects("ssm", "describe_document", document(HASH), {"Name": RUNBOOK})
    wire.gateway.ensure_runbook(CELL, RUNBOOK, CONTENT)


def test_another_content_becomes_a_new_version_and_the_default(wire: Wire) -> None:
    """Executions run the default version."""
    wire.expects("ssm", "describe_document", document("old"))
    wire.expects("ssm", "update_document", {"DocumentDescription": {"DocumentVersion": "2"}})
    wire.expects("ssm", "update_document_default_version", {}, {"Name": RUNBOOK, "DocumentVersion": "2"})
    wire.gateway.ensure_runbook(CELL, RUNBOOK, CONTENT)


def test_a_version_that_is_there_but_not_the_default_becomes_it(wire: Wire) -> None:
    """Whoever died between the two calls left it so."""
    wire.expects("ssm", "describe_document", document("old", latest="2"))
    wire.refuses("ssm", "update_document", "DuplicateDocumentContent")
    wire.expects("ssm", "update_document_default_version", {}, {"Name": RUNBOOK, "DocumentVersion": "2"})
    wire.gateway.ensure_runbook(CELL, RUNBOOK, CONTENT)


def test_two_that_create_it_at_once_both_find_it(wire: Wire) -> None:
    """The second is told that it exists, looks again and is content."""
    wire.refuses("ssm", "describe_document", "InvalidDocument")
    wire.refuses("ssm", "create_document", "DocumentAlreadyExists")
    wire.expects("ssm", "describe_document", document(HASH))
    wire.gateway.ensure_runbook(CELL, RUNBOOK, CONTENT)


@pytest.mark.parametrize("written", [str(TOKEN), TOKEN.hex])
def test_an_execution_is_started_under_our_token_and_can_be_found_by_it(wire: Wire, written: str) -> None:
    """AWS finds executions by tag key only, so the key carries the token."""
    wire.expects(
        "ssm", "start_automation_execution", {"AutomationExecutionId": EXECUTION},
        {
            "DocumentName": RUNBOOK,
            "Parameters": {"InstanceId": ["i-0123456789abcdef0"]},
            "ClientToken": str(TOKEN),
            "Tags": [{"Key": "patchwave", "Value": "remediate"}, {"Key": f"patchwave-{TOKEN}", "Value": ""}],
        },
    )  # fmt: skip
    assert wire.gateway.start_automation(CELL, RUNBOOK, {"InstanceId": ["i-0123456789abcdef0"]}, written) == EXECUTION


def test_a_token_that_was_used_names_its_execution(wire: Wire) -> None:
    """AWS's guide says that a token cannot be used again; the execution that has it is the answer then."""
    wire.refuses("ssm", "start_automation_execution", "IdempotentParameterMismatch")
    row = {"AutomationExecutionId": EXECUTION, "AutomationExecutionStatus": "InProgress"}
    wire.expects(
        "ssm", "describe_automation_executions", {"AutomationExecutionMetadataList": [row]},
        {"Filters": [{"Key": "TagKey", "Values": [f"patchwave-{TOKEN}"]}], "MaxResults": 50},
    )  # fmt: skip
    assert wire.gateway.start_automation(CELL, RUNBOOK, {}, str(TOKEN)) == EXECUTION


def test_a_token_that_is_no_uuid_is_refused_before_anything_is_sent(wire: Wire) -> None:
    """AWS would take a random string for a new execution each time."""
    with pytest.raises(errors.InvalidRequest, match="UUID"):
        wire.gateway.start_automation(CELL, RUNBOOK, {}, "again")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Pending", RemedyState.RUNNING), ("InProgress", RemedyState.RUNNING), ("Waiting", RemedyState.RUNNING),
        ("Cancelling", RemedyState.RUNNING), ("Success", RemedyState.SUCCEEDED), ("Failed", RemedyState.FAILED),
        ("TimedOut", RemedyState.TIMED_OUT), ("Cancelled", RemedyState.CANCELLED), ("Rejected", RemedyState.FAILED),
        ("CompletedWithFailure", RemedyState.FAILED), ("Exited", RemedyState.FAILED),
    ],
)  # fmt: skip
def test_states_are_told_as_they_are(wire: Wire, status: str, state: RemedyState) -> None:
    """Only Success is one."""
    row = {"AutomationExecutionId": EXECUTION, "AutomationExecutionStatus": status, "ExecutionStartTime": NOW}
    wire.expects("ssm", "get_automation_execution", {"AutomationExecution": row})
    assert wire.gateway.automation(CELL, EXECUTION).state is state


def test_a_failure_names_the_step_that_failed(wire: Wire) -> None:
    """The report must say more than Failed."""
    steps = [
        {"StepName": "Install", "StepStatus": "Failed", "FailureMessage": "no agent"},
        {"StepName": "Scan", "StepStatus": "Pending"},
    ]
    row = {"AutomationExecutionId": EXECUTION, "AutomationExecutionStatus": "Failed", "StepExecutions": steps}
    wire.expects("ssm", "get_automation_execution", {"AutomationExecution": row})
    assert wire.gateway.automation(CELL, EXECUTION).failure == "Install: no agent"


def test_an_execution_that_aws_has_forgotten_is_unknown(wire: Wire) -> None:
    """History ends after thirty days; that is no failure, and no success."""
    wire.refuses("ssm", "get_automation_execution", "AutomationExecutionNotFoundException")
    assert wire.gateway.automation(CELL, EXECUTION).state is RemedyState.UNKNOWN


def test_an_execution_is_cancelled_with_the_command_that_it_waits_for(wire: Wire) -> None:
    """Type Complete would let an Install go on to its end."""
    wire.expects("ssm", "stop_automation_execution", {}, {"AutomationExecutionId": EXECUTION, "Type": "Cancel"})
    wire.gateway.stop_automation(CELL, EXECUTION)


@pytest.mark.parametrize("code", sorted(automation.OVER))
def test_stopping_what_is_over_is_nothing(wire: Wire, code: str) -> None:
    """It ended between our look and our call."""
    wire.refuses("ssm", "stop_automation_execution", code)
    wire.gateway.stop_automation(CELL, EXECUTION)


def test_a_stop_that_aws_does_not_allow_is_said(wire: Wire) -> None:
    """The execution goes on, and somebody has to know."""
    wire.refuses("ssm", "stop_automation_execution", "AccessDeniedException")
    with pytest.raises(errors.AccessDenied):
        wire.gateway.stop_automation(CELL, EXECUTION)


def test_the_runbook_that_we_ship_installs_and_then_scans() -> None:
    """The Scan comes last, for an Install with a reboot reports from before the reboot."""
    shipped = yaml.safe_load(automation.runbook())
    assert shipped["schemaVersion"] == "0.3"
    assert [step["inputs"]["Parameters"]["Operation"] for step in shipped["mainSteps"]] == ["Install", "Scan"]
    assert all(step["action"] == "aws:runCommand" for step in shipped["mainSteps"])
    assert len("patchwave remediate Install ") + 36 <= 100
