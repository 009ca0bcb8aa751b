"""What is wrong? Inspector's findings and its coverage, one cell at a time.

`scan_findings` reads them; `campaign.findings` holds what they mean. All pages, always: a finding on the last page counts as
much as one on the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

from patchwave.aws.calls import Calls
from patchwave.campaign.findings import EC2_INSTANCE, Coverage, Finding, Severity, VulnerablePackage
from patchwave.campaign.values import Cell, HostId

LARGEST_FINDINGS_PAGE = 100
"""botocore model of inspector2, ListFindings.maxResults."""
LARGEST_COVERAGE_PAGE = 200
"""botocore model of inspector2, ListCoverage.maxResults."""
LARGEST_FILTER = 10
"""botocore model of inspector2: entries of one filter key, which are ORed."""

RESOURCE_TYPES = (EC2_INSTANCE, "AWS_ECR_CONTAINER_IMAGE", "AWS_LAMBDA_FUNCTION")
"""Resources with packages: those that we patch, and those whose findings go to the track of managed services."""


class Inspector(Calls):
    """Inspector2."""

    def findings(
        self,
        cell: Cell,
        *,
        tags: Mapping[str, Sequence[str]] | None = None,
        resource_types: Sequence[str] = RESOURCE_TYPES,
    ) -> Iterator[Finding]:
        """All active package vulnerabilities of the cell; pages of a moving list overlap, so one may come twice.

        Args:
            tags: only resources that carry every one of them with one of its values. Inspector knows a resource's tags with
                a delay: a host that was just tagged is better judged by all findings and the fleet's own tags.
            resource_types: Inspector's words for kinds of resources.
        """
        criteria = {
            "findingStatus": [_equals("ACTIVE")],
            "findingType": [_equals("PACKAGE_VULNERABILITY")],
            # A delegated administrator sees its members' findings, too; they belong to other cells.
            "awsAccountId": [_equals(cell.account)],
            "resourceType": [_equals(kind) for kind in resource_types],
            **_tag_filter(tags or {}),
        }
        for page in self.pages(
            cell, "inspector2:ListFindings", cursor="nextToken", maxResults=LARGEST_FINDINGS_PAGE, filterCriteria=criteria
        ):
            for row in page.get("findings", ()):
                resource = _resource(row, resource_types)
                if resource is not None and _tagged(resource, tags or {}):
                    yield _finding(cell, row, resource)

    def coverage(self, cell: Cell) -> Iterator[Coverage]:
        """For which hosts of the cell Inspector looks at packages; a host that is not listed is not covered either."""
        criteria = {
            "accountId": [_equals(cell.account)],
            "resourceType": [_equals(EC2_INSTANCE)],
            "scanType": [_equals("PACKAGE")],
        }
        for page in self.pages(
            cell, "inspector2:ListCoverage", cursor="nextToken", maxResults=LARGEST_COVERAGE_PAGE, filterCriteria=criteria
        ):
            for row in page.get("coveredResources", ()):
                if row.get("resourceType") == EC2_INSTANCE and row.get("scanType") == "PACKAGE":
                    yield _coverage(cell, row)


def _equals(value: str) -> dict[str, str]:
    return {"comparison": "EQUALS", "value": value}


def _tag_filter(tags: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, str]]]:
    """A filter for one of the tags, for the rest is chosen here: entries of a key are ORed, of two tags both must hold."""
    for key, values in tags.items():
        if 1 <= len(values) <= LARGEST_FILTER:
            return {"resourceTags": [{"comparison": "EQUALS", "key": key, "value": value} for value in values]}
    return {}


def _resource(row: Mapping[str, Any], resource_types: Sequence[str]) -> Mapping[str, Any] | None:
    """The resource of a finding: a package vulnerability has one."""
    return next((resource for resource in row.get("resources", ()) if resource["type"] in resource_types), None)


def _tagged(resource: Mapping[str, Any], tags: Mapping[str, Sequence[str]]) -> bool:
    carried = resource.get("tags") or {}
    return all(carried.get(key) in values for key, values in tags.items())


def _finding(cell: Cell, row: Mapping[str, Any], resource: Mapping[str, Any]) -> Finding:
    details = row.get("packageVulnerabilityDetails", {})
    vulnerability = details.get("vulnerabilityId", "")
    return Finding(
        arn=row["findingArn"],
        cell=cell,
        resource=resource["id"],
        resource_type=resource["type"],
        vulnerability=vulnerability,
        title=row.get("title") or vulnerability,
        severity=_severity(row.get("severity", "")),
        packages=tuple(_package(package) for package in details.get("vulnerablePackages", ())),
        fix=row.get("fixAvailable", "NO"),
        first_seen=row["firstObservedAt"].astimezone(UTC),
        updated=(row.get("updatedAt") or row["lastObservedAt"]).astimezone(UTC),
        score=row.get("inspectorScore"),
        exploit_known=row.get("exploitAvailable") == "YES",
        related=tuple(details.get("relatedVulnerabilities", ())),
    )


def _severity(word: str) -> Severity:
    """Inspector's severity; a word that we do not know has not been judged yet."""
    try:
        return Severity(word.lower())
    except ValueError:
        return Severity.UNTRIAGED


def _package(row: Mapping[str, Any]) -> VulnerablePackage:
    epoch = f"{row['epoch']}:" if row.get("epoch") else ""
    release = f"-{row['release']}" if row.get("release") else ""
    fixed = row.get("fixedInVersion") or ""
    return VulnerablePackage(
        name=row.get("name", ""),
        version=f"{epoch}{row.get('version', '')}{release}",
        manager=row.get("packageManager", ""),
        fixed_in=None if fixed.replace(" ", "").lower() in {"", "notavailable"} else fixed,
        path=row.get("filePath"),
    )


def _coverage(cell: Cell, row: Mapping[str, Any]) -> Coverage:
    status = row.get("scanStatus", {})
    scanned = row.get("lastScannedAt")
    return Coverage(
        cell=cell,
        host=HostId(row["resourceId"]),
        active=status.get("statusCode") == "ACTIVE",
        reason=status.get("reason", ""),
        last_scanned=scanned.astimezone(UTC) if scanned else None,
    )
