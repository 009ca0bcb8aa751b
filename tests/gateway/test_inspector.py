"""Inspector: all pages, only what is active, and nobody's findings but the cell's."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.campaign.findings import Severity
from tests.gateway.conftest import CELL, NOW, Wire, host


def finding(number: int, **facts: Any) -> dict[str, Any]:
    return {
        "findingArn": f"arn:aws:inspector2:eu-central-1:111111111111:finding/{number:032x}",
        "awsAccountId": CELL.account,
        "type": "PACKAGE_VULNERABILITY",
        "description": "a flaw",
        "remediation": {"recommendation": {"text": "None Provided"}},
        "severity": "HIGH",
        "firstObservedAt": NOW,
        "lastObservedAt": NOW,
        "status": "ACTIVE",
        "resources": [resource(number)],
        **facts,
    }


def resource(number: int, kind: str = "AWS_EC2_INSTANCE", **tags: str) -> dict[str, Any]:
    return {"id": host(number), "type": kind, "tags": tags}


def package(**facts: Any) -> dict[str, Any]:
    return {"packageVulnerabilityDetails": {
        "vulnerabilityId": "CVE-2026-1", "source": "AMAZON_CVE", "vulnerablePackages": [
            {"name": "openssl", "version": "3.0.8", **facts}],
    }}  # fmt: skip


def criteria(**more: Any) -> dict[str, Any]:
    def equals(*values: str) -> list[dict[str, str]]:
        return [{"comparison": "EQUALS", "value": value} for value in values]

    return {
        "maxResults": 100,
        "filterCriteria": {
            "findingStatus": equals("ACTIVE"),
            "findingType": equals("PACKAGE_VULNERABILITY"),
            "awsAccountId": equals("111111111111"),
            "resourceType": equals("AWS_EC2_INSTANCE", "AWS_ECR_CONTAINER_IMAGE", "AWS_LAMBDA_FUNCTION"),
            **more,
        },
    }


def test_findings_come_from_all_pages_also_behind_an_empty_one(wire: Wire) -> None:
    """A finding that is not read is a host called clean."""
    wire.expects("inspector2", "list_findings", {"findings": [finding(1)], "nextToken": "a"}, criteria())
    wire.expects("inspector2", "list_findings", {"findings": [], "nextToken": "b"}, {**criteria(), "nextToken": "a"})
    wire.expects("inspector2", "list_findings", {"findings": [finding(2)]}, {**criteria(), "nextToken": "b"})
    assert [one.host for one in wire.gateway.findings(CELL)] == [host(1), host(2)]


def test_of_two_tags_both_must_hold(wire: Wire) -> None:
    """Entries of one filter key are ORed, so one tag is asked for and the other is chosen here."""
    tagged = [
        finding(1, resources=[resource(1, Team="web", Stage="prod")]),
        finding(2, resources=[resource(2, Team="web", Stage="dev")]),
        finding(3, resources=[resource(3, Team="web")]),
    ]
    asked = criteria(
        resourceTags=[
            {"comparison": "EQUALS", "key": "Team", "value": "web"},
            {"comparison": "EQUALS", "key": "Team", "value": "api"},
        ]
    )
    wire.expects("inspector2", "list_findings", {"findings": tagged}, asked)
    found = wire.gateway.findings(CELL, tags={"Team": ("web", "api"), "Stage": ("prod",)})
    assert [one.host for one in found] == [host(1)]


def test_more_values_than_a_filter_takes_are_chosen_here(wire: Wire) -> None:
    """Eleven entries would be refused."""
    wire.expects("inspector2", "list_findings", {"findings": [finding(1, resources=[resource(1, Team="t3")])]}, criteria())
    assert len(list(wire.gateway.findings(CELL, tags={"Team": tuple(f"t{n}" for n in range(11))}))) == 1


def test_a_finding_carries_what_triage_needs(wire: Wire) -> None:
    """Severity, score, fix and exploit as Inspector says them; the package's version whole."""
    row = finding(
        1, title="CVE-2026-1 - openssl", updatedAt=NOW, inspectorScore=8.1, fixAvailable="YES", exploitAvailable="YES",
        **package(epoch=1, release="5.amzn2023", packageManager="OS", fixedInVersion="1:3.0.8-6.amzn2023"),
    )  # fmt: skip
    wire.expects("inspector2", "list_findings", {"findings": [row]})
    (one,) = wire.gateway.findings(CELL)
    assert (one.vulnerability, one.severity, one.score, one.fix, one.exploit_known) == (
        "CVE-2026-1", Severity.HIGH, 8.1, "YES", True,
    )  # fmt: skip
    (first,) = one.packages
    assert (first.name, first.version, first.manager, first.fixed_in) == (
        "openssl", "1:3.0.8-5.amzn2023", "OS", "1:3.0.8-6.amzn2023",
    )  # fmt: skip


@pytest.mark.parametrize("fixed", ["NotAvailable", "NOT AVAILABLE", "", None])
def test_no_fix_is_none(wire: Wire, fixed: str | None) -> None:
    """Inspector has words for it, which are no version."""
    wire.expects(
        "inspector2", "list_findings", {"findings": [finding(1, **package(**({"fixedInVersion": fixed} if fixed else {})))]}
    )
    (one,) = wire.gateway.findings(CELL)
    assert one.packages[0].fixed_in is None


def test_a_severity_that_nobody_knows_has_not_been_triaged(wire: Wire) -> None:
    """Never harmless by mistake."""
    wire.expects("inspector2", "list_findings", {"findings": [finding(1, severity="CATASTROPHIC")]})
    (one,) = wire.gateway.findings(CELL)
    assert one.severity is Severity.UNTRIAGED


def test_coverage_tells_who_is_looked_at_and_why_not(wire: Wire) -> None:
    """Network and code scans say nothing about packages."""

    def covered(number: int, code: str, reason: str, **facts: Any) -> dict[str, Any]:
        return {
            "resourceType": "AWS_EC2_INSTANCE", "resourceId": host(number), "accountId": CELL.account, "scanType": "PACKAGE",
            "scanStatus": {"statusCode": code, "reason": reason}, **facts,
        }  # fmt: skip

    def equals(value: str) -> list[dict[str, str]]:
        return [{"comparison": "EQUALS", "value": value}]

    asked = {
        "maxResults": 200,
        "filterCriteria": {
            "accountId": equals(CELL.account), "resourceType": equals("AWS_EC2_INSTANCE"), "scanType": equals("PACKAGE"),
        },
    }  # fmt: skip
    rows = [covered(1, "ACTIVE", "SUCCESSFUL", lastScannedAt=NOW), covered(3, "ACTIVE", "SUCCESSFUL", scanType="NETWORK")]
    wire.expects("inspector2", "list_coverage", {"coveredResources": rows, "nextToken": "n"}, asked)
    wire.expects(
        "inspector2", "list_coverage", {"coveredResources": [covered(2, "INACTIVE", "NO_INVENTORY")]}, {**asked, "nextToken": "n"}
    )
    found = list(wire.gateway.coverage(CELL))
    assert [(one.host, one.active, one.reason, one.last_scanned) for one in found] == [
        (host(1), True, "SUCCESSFUL", NOW),
        (host(2), False, "NO_INVENTORY", None),
    ]
