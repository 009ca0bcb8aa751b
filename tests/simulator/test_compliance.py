"""Systems Manager's compliance as documented: it is the last patch report, and what callers put beside it."""

from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError

from tests.simulator.conftest import SMALL, Aws


def code(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


def summaries(aws: Aws, **filters: str):
    asked = [{"Key": key, "Values": [value], "Type": "EQUAL"} for key, value in filters.items()]
    pages = aws.ssm.get_paginator("list_resource_compliance_summaries").paginate(Filters=asked)
    return {row["ResourceId"]: row for page in pages for row in page["ResourceComplianceSummaryItems"]}


def items(aws: Aws, host: str, *filters: dict):
    pages = aws.ssm.get_paginator("list_compliance_items").paginate(
        ResourceIds=[host], ResourceTypes=["ManagedInstance"], Filters=list(filters)
    )
    return [row for page in pages for row in page["ComplianceItems"]]


def test_only_hosts_that_reported_have_a_summary(aws):
    """A host without one is unknown, never compliant."""
    assert set(summaries(aws)) == set(aws.hosts("web"))


def test_a_summary_counts_what_the_last_report_said(aws):
    host = aws.hosts("web")[0]
    state, row = aws.patch_state(host), summaries(aws)[host]
    assert (row["Status"], row["ComplianceType"], row["ResourceType"]) == ("NON_COMPLIANT", "Patch", "ManagedInstance")
    assert row["NonCompliantSummary"]["NonCompliantCount"] == state["MissingCount"]
    assert sum(row["NonCompliantSummary"]["SeveritySummary"].values()) == state["MissingCount"]
    assert row["OverallSeverity"] == "HIGH"
    assert row["ExecutionSummary"]["ExecutionId"] == state["SnapshotId"]
    assert row["ExecutionSummary"]["ExecutionType"] == "Command"
    assert row["ExecutionSummary"]["ExecutionTime"] == state["OperationEndTime"]


def test_a_patched_and_scanned_host_is_compliant(aws):
    host = aws.hosts("web")[0]
    aws.patch(host)
    aws.advance(400)
    aws.patch(host, operation="Scan")
    aws.advance(60)
    assert summaries(aws)[host]["Status"] == "COMPLIANT"
    assert set(summaries(aws, Status="COMPLIANT")) == {host}
    assert host not in summaries(aws, Status="NON_COMPLIANT")


def test_installed_without_reboot_is_not_compliant(aws):
    """The command succeeded; the host is not compliant all the same."""
    host = aws.hosts("web")[0]
    command = aws.patch(host, Parameters={"RebootOption": ["NoReboot"]})
    aws.advance(400)
    assert aws.status(command) == "Success"
    assert summaries(aws)[host]["Status"] == "NON_COMPLIANT"
    wrong = items(aws, host, {"Key": "Status", "Values": ["NON_COMPLIANT"], "Type": "EQUAL"})
    assert {row["Details"]["PatchState"] for row in wrong} == {"InstalledPendingReboot"}


def test_items_are_the_patches_of_the_report(aws):
    host = aws.hosts("web")[0]
    rows = items(aws, host)
    missing = {row["Id"]: row for row in rows if row["Status"] == "NON_COMPLIANT"}
    assert set(missing) == {row["KBId"] for row in aws.patches(host, "Missing")}
    kernel = missing["kernel.x86_64"]
    assert kernel["Severity"] == "HIGH"
    assert kernel["Details"]["PatchState"] == "Missing"
    assert kernel["Details"]["PatchGroup"] == "web"
    assert kernel["Details"]["PatchBaselineId"].startswith("pb-")
    assert kernel["Title"].startswith("kernel.x86_64:0:6.1.")


def test_items_are_filtered_by_operator(aws):
    host = aws.hosts("web")[0]
    rows = items(aws, host, {"Key": "Id", "Values": ["kernel"], "Type": "BEGIN_WITH"})
    assert [row["Id"] for row in rows] == ["kernel.x86_64"]
    others = items(aws, host, {"Key": "Status", "Values": ["COMPLIANT"], "Type": "NOT_EQUAL"})
    assert {row["Status"] for row in others} == {"NON_COMPLIANT"}
    with pytest.raises(ClientError) as refused:
        items(aws, host, {"Key": "Colour", "Values": ["red"], "Type": "EQUAL"})
    assert code(refused) == "InvalidFilter"


def test_a_whole_fleet_comes_in_pages_of_fifty(start):
    """Who reads one page of the small world's sixty hosts misses ten."""
    aws = start(SMALL)
    page = aws.ssm.list_resource_compliance_summaries()
    assert len(page["ResourceComplianceSummaryItems"]) == 50
    rest = aws.ssm.list_resource_compliance_summaries(NextToken=page["NextToken"])
    assert "NextToken" not in rest
    assert len(summaries(aws)) == 60
    with pytest.raises(ClientError) as refused:
        aws.ssm.list_resource_compliance_summaries(NextToken="made up")
    assert code(refused) == "InvalidNextToken"
    with pytest.raises(ClientError) as refused:
        aws.ssm.list_resource_compliance_summaries(MaxResults=51)
    assert code(refused) == "ValidationException"


def test_compliance_is_counted_by_type(aws):
    (row,) = aws.ssm.list_compliance_summaries()["ComplianceSummaryItems"]
    assert row["ComplianceType"] == "Patch"
    assert row["NonCompliantSummary"]["NonCompliantCount"] == 4
    assert row["NonCompliantSummary"]["SeveritySummary"]["HighCount"] == 4


def put(aws: Aws, host: str, kind: str = "Custom:PatchException", **entry: str) -> None:
    aws.ssm.put_compliance_items(
        ResourceId=host,
        ResourceType="ManagedInstance",
        ComplianceType=kind,
        ExecutionSummary={"ExecutionTime": datetime(2026, 1, 5, 8, tzinfo=UTC)},
        Items=[{"Id": "exception", "Severity": "LOW", "Status": "NON_COMPLIANT", **entry}],
    )


def test_a_caller_records_items_of_its_own_type_and_overwrites_them(aws):
    host = aws.hosts("odd")[4]
    put(aws, host)
    put(aws, host, Title="until May")
    (row,) = items(aws, host)
    assert (row["ComplianceType"], row["Title"], row["Severity"]) == ("Custom:PatchException", "until May", "LOW")
    assert row["ExecutionSummary"]["ExecutionTime"] == datetime(2026, 1, 5, 8, tzinfo=UTC)
    assert set(summaries(aws, ComplianceType="Custom:PatchException")) == {host}
    assert host not in summaries(aws, ComplianceType="Patch")


def test_the_type_patch_belongs_to_patch_manager(aws):
    with pytest.raises(ClientError) as refused:
        put(aws, aws.hosts("web")[0], kind="Patch")
    assert code(refused) in ("InvalidItemContentException", "ValidationException")


def test_a_terminated_host_is_not_listed(aws):
    host = aws.hosts("web")[0]
    aws.ec2.terminate_instances(InstanceIds=[host])
    assert host not in summaries(aws)


def test_unknown_resources_are_refused(aws):
    with pytest.raises(ClientError) as refused:
        items(aws, "i-0123456789abcdef0")
    assert code(refused) == "InvalidResourceId"


def test_regions_have_their_own_compliance(aws):
    rows = aws.client("ssm", "us-east-1").list_resource_compliance_summaries()["ResourceComplianceSummaryItems"]
    assert [row["ResourceId"] for row in rows] == aws.hosts("far")
