"""Least privilege: the policies allow exactly what the gateway calls, and the table lists exactly that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest

from patchwave.aws import automation, commands, lists
from patchwave.aws.operations import OPERATIONS, Effect
from patchwave.campaign.remediation import RUNBOOK
from patchwave.hooks.aws import DEFAULT_ROLE

ROOT = Path(__file__).parents[2]


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((ROOT / "docs" / "iam" / f"patchwave-{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = policy["Statement"]
    return found


def actions(name: str) -> set[str]:
    return {action for statement in statements(name) for action in statement["Action"]}


def needed(*, reads: bool) -> set[str]:
    return {
        action
        for operation in OPERATIONS.values()
        if (operation.effect is Effect.NONE) is reads and operation.service != "sqs"
        for action in operation.needs
    }


def test_the_plan_policy_allows_exactly_the_reads() -> None:
    """A plan or a dry run must not be able to change a host."""
    assert actions("plan") == needed(reads=True)


def test_the_execute_policy_allows_exactly_the_effects() -> None:
    """It is attached beside the first one."""
    assert actions("execute") == needed(reads=False)


def test_the_events_policy_is_for_the_queue_alone() -> None:
    """It is attached only where a queue is named."""
    assert actions("events") == {action for one in OPERATIONS.values() if one.service == "sqs" for action in one.needs}
    assert [one["Resource"] for one in statements("events")] == ["arn:aws:sqs:*:*:patchwave-command-events"]


def test_lists_are_written_and_read_in_their_folder_alone() -> None:
    """Whoever may write elsewhere in that bucket, or read it all, has more than this needs."""
    writes = [one for one in statements("execute") if "s3:PutObject" in one["Action"]]
    assert [one["Resource"] for one in writes] == [f"arn:aws:s3:::*/{lists.FOLDER}/*"]
    assert actions("hosts") == {"s3:GetObject"}
    assert [one["Resource"] for one in statements("hosts")] == [f"arn:aws:s3:::*/{lists.FOLDER}/*"]


@pytest.mark.parametrize("name", ["plan", "execute", "assume", "events", "hosts"])
def test_no_policy_holds_a_wildcard_action(name: str) -> None:
    """A star would allow what AWS invents next year."""
    assert not [action for action in actions(name) if "*" in action]
    assert all(statement["Effect"] == "Allow" for statement in statements(name))


def test_commands_are_allowed_by_document_and_by_tagged_host() -> None:
    """SendCommand is authorised for the document and for each instance; neither may be everything."""
    sends = [statement for statement in statements("execute") if "ssm:SendCommand" in statement["Action"]]
    documents = {arn for one in sends if "Condition" not in one for arn in one["Resource"]}
    assert documents == {f"arn:aws:ssm:*::document/{name}" for name in (commands.PATCH_DOCUMENT, commands.SCRIPT_DOCUMENT)}
    hosts = [one for one in sends if "Condition" in one]
    assert {one["Resource"] for one in hosts} == {"arn:aws:ec2:*:*:instance/*"}
    assert {key for one in hosts for key in one["Condition"]["StringLike"]} == {
        "ssm:resourceTag/PatchGroup", "ssm:resourceTag/Patch Group",
    }  # fmt: skip


def test_the_runbook_is_named_as_the_campaign_names_it() -> None:
    """Another name would be denied on the first remedy."""
    resources = json.dumps(statements("execute"))
    assert f"document/{RUNBOOK}" in resources
    assert f"automation-definition/{RUNBOOK}:" in resources
    assert RUNBOOK in automation.runbook()


def test_the_role_in_other_accounts_is_the_one_that_the_hook_assumes() -> None:
    """`patchwave_role_name` changes both."""
    assert [one["Resource"] for one in statements("assume")] == [f"arn:aws:iam::*:role/{DEFAULT_ROLE}"]


def test_the_table_lists_exactly_the_operations_that_the_code_calls() -> None:
    """A call that is not in the table fails, one that nobody makes is a right too many."""
    called: set[str] = set()
    for source in (ROOT / "include" / "patchwave" / "aws").glob("*.py"):
        if source.name != "operations.py":
            called |= set(re.findall(r'"([a-z0-9]+:[A-Z][A-Za-z]+)"', source.read_text()))
    assert called == set(OPERATIONS)


def test_every_operation_exists_in_aws() -> None:
    """By botocore's models, under that spelling."""
    for operation in OPERATIONS.values():
        client = boto3.client(operation.service, region_name="eu-central-1")
        assert operation.name in client.meta.service_model.operation_names
