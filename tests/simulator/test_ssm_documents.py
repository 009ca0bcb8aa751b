"""AWS's own documents: what DescribeDocument, GetDocument and ListDocuments tell, and that it is what requests are checked by."""

import json
import re

import pytest
import yaml
from botocore.exceptions import ClientError

from awsim.services.ssm_documents import owned
from tests.simulator.conftest import Aws
from tests.simulator.test_run_command import code

AUTOMATION = [name for name, found in owned().items() if found.type == "Automation"]
COMMAND = [name for name, found in owned().items() if found.type == "Command"]


def described(aws: Aws, name: str) -> dict:
    return aws.ssm.describe_document(Name=name)["Document"]


def test_a_patch_document_is_described_as_aws_describes_it(aws):
    """Owner Amazon, the platforms, and every parameter with its default."""
    found = described(aws, "AWS-RunPatchBaseline")
    assert (found["Owner"], found["DocumentType"], found["SchemaVersion"], found["Status"]) == (
        "Amazon",
        "Command",
        "2.2",
        "Active",
    )
    assert found["PlatformTypes"] == ["Windows", "Linux", "MacOS"]
    assert re.fullmatch(r"[0-9a-f]{64}", found["Hash"])
    given = {entry["Name"]: entry for entry in found["Parameters"]}
    assert set(given) == {
        "Operation",
        "AssociationId",
        "SnapshotId",
        "InstallOverrideList",
        "BaselineOverride",
        "RebootOption",
    }
    assert "DefaultValue" not in given["Operation"]
    assert given["RebootOption"]["DefaultValue"] == "RebootIfNeeded"
    assert all(entry["Description"] for entry in given.values())
    by_arn = described(aws, "arn:aws:ssm:eu-central-1::document/AWS-RunPatchBaseline")
    assert by_arn == found


@pytest.mark.parametrize("name", [*AUTOMATION, *COMMAND])
def test_what_is_described_is_what_the_content_declares(aws, name):
    """Both formats hold the same document, and the list shows it with the same facts."""
    found = described(aws, name)
    shown = aws.ssm.get_document(Name=name)
    content = json.loads(shown["Content"])
    assert shown["DocumentType"] == found["DocumentType"]
    assert content["schemaVersion"] == found["SchemaVersion"]
    assert content["description"] == found["Description"]
    assert [entry["Name"] for entry in found.get("Parameters", [])] == list(content.get("parameters") or {})
    assert yaml.safe_load(aws.ssm.get_document(Name=name, DocumentFormat="YAML")["Content"]) == content
    (row,) = [
        row
        for row in aws.ssm.list_documents(Filters=[{"Key": "Name", "Values": [name]}])["DocumentIdentifiers"]
        if row["Name"] == name
    ]
    assert (row["Owner"], row["DocumentType"], row["PlatformTypes"]) == ("Amazon", found["DocumentType"], found["PlatformTypes"])


@pytest.mark.parametrize("name", AUTOMATION)
def test_a_runbook_that_is_described_needs_what_it_declares_as_required(aws, name):
    """StartAutomationExecution refuses a request without a parameter that has no default, and one with an unknown parameter."""
    required = [entry["Name"] for entry in described(aws, name)["Parameters"] if "DefaultValue" not in entry]
    assert required
    for request in ({}, {"Parameters": {**{key: ["x"] for key in required}, "Nonsense": ["x"]}}):
        with pytest.raises(ClientError) as refused:
            aws.ssm.start_automation_execution(DocumentName=name, **request)
        assert code(refused) == "InvalidAutomationExecutionParametersException"


@pytest.mark.parametrize("name", COMMAND)
def test_send_command_knows_no_parameter_that_is_not_described(aws, name):
    required = {entry["Name"] for entry in described(aws, name).get("Parameters", []) if "DefaultValue" not in entry}
    values = {"Operation": ["Scan"], "commands": ["echo"]}
    with pytest.raises(ClientError, match="Nonsense") as refused:
        aws.ssm.send_command(
            DocumentName=name,
            InstanceIds=aws.hosts("web")[:1],
            Parameters={**{key: values[key] for key in required}, "Nonsense": ["x"]},
        )
    assert code(refused) == "InvalidParameters"
    for missing in required:
        with pytest.raises(ClientError, match=missing) as refused:
            aws.ssm.send_command(DocumentName=name, InstanceIds=aws.hosts("web")[:1], Parameters={})
        assert code(refused) == "InvalidParameters"


def test_the_documents_of_amazon_are_listed_by_owner_in_pages(aws):
    pages = list(
        aws.ssm.get_paginator("list_documents").paginate(
            Filters=[{"Key": "Owner", "Values": ["Amazon"]}], PaginationConfig={"PageSize": 4}
        )
    )
    assert [len(page["DocumentIdentifiers"]) for page in pages[:-1]] == [4] * (len(pages) - 1)
    assert [row["Name"] for page in pages for row in page["DocumentIdentifiers"]] == sorted(owned())


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("DocumentType", ["Automation"], set(AUTOMATION)),
        ("DocumentType", ["Command"], set(COMMAND)),
        ("Name", ["AWS-RunPatch"], {name for name in COMMAND if name.startswith("AWS-RunPatch")}),
        ("PlatformTypes", ["Windows"], set(owned()) - {"AWS-RunShellScript", "AWS-UpdateLinuxAmi"}),
        ("TargetType", ["/AWS::EC2::Volume"], {"AWS-CreateSnapshot"}),
    ],
)
def test_filters_narrow_the_list_of_amazons_documents(aws, key, values, expected):
    found = aws.ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Amazon"]}, {"Key": key, "Values": values}])
    assert {row["Name"] for row in found["DocumentIdentifiers"]} == expected


def test_a_version_that_does_not_exist_and_a_page_that_is_too_long_are_refused(aws):
    for ask in (aws.ssm.describe_document, aws.ssm.get_document):
        with pytest.raises(ClientError) as refused:
            ask(Name="AWS-RunShellScript", DocumentVersion="7")
        assert code(refused) == "InvalidDocumentVersion"
    with pytest.raises(ClientError) as refused:
        aws.ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Amazon"]}], MaxResults=51)
    assert code(refused) == "ValidationException"
    token = aws.ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Amazon"]}], MaxResults=2)["NextToken"]
    with pytest.raises(ClientError) as refused:
        aws.ssm.list_documents(
            Filters=[{"Key": "Owner", "Values": ["Amazon"]}, {"Key": "DocumentType", "Values": ["Command"]}], NextToken=token
        )
    assert code(refused) == "InvalidNextToken"


def test_the_documents_of_callers_are_told_as_before(aws):
    """They are moto's, and are not among Amazon's."""
    content = json.dumps({"schemaVersion": "2.2", "description": "mine", "mainSteps": []})
    aws.ssm.create_document(Name="Mine", Content=content, DocumentType="Command")
    assert described(aws, "Mine")["Description"] == "mine"
    assert aws.ssm.get_document(Name="Mine")["Content"]
    assert [row["Name"] for row in aws.ssm.list_documents()["DocumentIdentifiers"]] == ["Mine"]
    listed = aws.ssm.list_documents(Filters=[{"Key": "Owner", "Values": ["Amazon"]}])["DocumentIdentifiers"]
    assert "Mine" not in {row["Name"] for row in listed}
    with pytest.raises(ClientError) as refused:
        described(aws, "AWS-NoSuchDocument")
    assert code(refused) == "InvalidDocument"
