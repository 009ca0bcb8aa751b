"""What did Inspector find on an image? The findings of its build, told by ListImageScanFindings and counted."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from awsim.catalogue import Cve
from awsim.clock import moment
from awsim.registry import AwsError, Context, operation
from awsim.services.inspector2.criteria import parts_of
from awsim.services.inspector2.sightings import Vulnerable, severity_of
from awsim.world import World

if TYPE_CHECKING:
    from awsim.services.imagebuilder.builds import Build

_VECTOR = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"


def finding(world: World, build: "Build", cve: Cve, packages: tuple[Vulnerable, ...]) -> dict[str, Any]:
    """One vulnerability of an image, as ListImageScanFindings tells it."""
    update = next((package.update for package in packages if package.update is not None), None)
    platform = build.disk.platform if build.disk is not None else None
    source = platform.vulnerability_source if platform and update else "NVD"
    url = f"https://nvd.nist.gov/vuln/detail/{cve.id}"
    fixed = sum(package.fixed_in is not None for package in packages)
    details = {
        "vulnerabilityId": cve.id,
        "vulnerablePackages": [_package(package) for package in packages],
        "source": source,
        "cvss": [{"baseScore": cve.score, "scoringVector": _VECTOR, "version": "3.1", "source": "NVD"}],
        "relatedVulnerabilities": [],
        "sourceUrl": url,
        "vendorSeverity": update.severity if update else None,
        "vendorCreatedAt": moment(world.released(update)) if update else None,
        "referenceUrls": [url],
    }
    score = {"scoreSource": source, "cvssSource": "NVD", "version": "3.1", "score": cve.score, "scoringVector": _VECTOR}
    return {
        "awsAccountId": build.account,
        "imageBuildVersionArn": build.arn,
        "imagePipelineArn": build.pipeline["arn"] if build.pipeline else None,
        "type": "PACKAGE_VULNERABILITY",
        "description": f"{cve.id} affects {', '.join(package.name for package in packages)}.",
        "title": f"{cve.id} - {', '.join(package.name for package in packages)}",
        "remediation": {"recommendation": {"text": "None Provided"}},
        "severity": severity_of(cve.score),
        "firstObservedAt": moment(world.now),
        "updatedAt": moment(world.now),
        "inspectorScore": cve.score,
        "inspectorScoreDetails": {"adjustedCvss": score},
        "packageVulnerabilityDetails": details,
        "fixAvailable": "NO" if not fixed else "YES" if fixed == len(packages) else "PARTIAL",
    }


def injected(world: World, build: "Build", cve: str | None) -> dict[str, Any]:
    """What a fault wants to be found: something critical, exploited, that no update of the catalogue fixes."""
    package = Vulnerable(name="xz-libs", arch="x86_64", evr="0:5.6.0-1", manager="OS", fixed_in="0:5.6.1-3")
    return finding(world, build, Cve(id=cve or "CVE-2024-3094", score=10.0, exploited=True), (package,))


def _package(package: Vulnerable) -> dict[str, Any]:
    epoch, version, release = parts_of(package.evr)
    return {
        "name": package.name,
        "version": version,
        "epoch": epoch,
        "release": release or None,
        "arch": package.arch.upper() or None,
        "packageManager": package.manager,
        "filePath": package.path or None,
        "fixedInVersion": package.fixed_in or "NotAvailable",
        "remediation": f"Update {package.name}" if package.fixed_in else None,
    }


_MEMBERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "imageBuildVersionArn": lambda row: row["imageBuildVersionArn"],
    "imagePipelineArn": lambda row: row["imagePipelineArn"],
    "vulnerabilityId": lambda row: row["packageVulnerabilityDetails"]["vulnerabilityId"],
    "severity": lambda row: row["severity"],
}
_GROUPS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "accountId": ("accountAggregation", lambda row: row["awsAccountId"]),
    "imageBuildVersionArn": ("imageAggregation", _MEMBERS["imageBuildVersionArn"]),
    "imagePipelineArn": ("imagePipelineAggregation", _MEMBERS["imagePipelineArn"]),
    "vulnerabilityId": ("vulnerabilityIdAggregation", _MEMBERS["vulnerabilityId"]),
}


def _all(ctx: Context) -> list[dict[str, Any]]:
    from awsim.services.imagebuilder.builds import Builds

    return [row for build in ctx.state(Builds).of.values() for row in build.findings]


@operation("imagebuilder", "ListImageScanFindings")
def list_image_scan_findings(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = _all(ctx)
    for entry in params.get("filters") or []:
        read = _MEMBERS.get(entry.get("name") or "")
        if read is None:
            raise AwsError("InvalidRequestException", f"The filter name must be one of {', '.join(_MEMBERS)}.")
        rows = [row for row in rows if read(row) in (entry.get("values") or [])]
    page, token = ctx.page(rows, params, default=25, tokens="nextToken", size="maxResults")
    return {"requestId": ctx.request_id, "findings": page, "nextToken": token}


@operation("imagebuilder", "ListImageScanFindingAggregations")
def list_image_scan_finding_aggregations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Counts by severity; without a filter for the account, with one for each thing of that name."""
    asked = params.get("filter") or {}
    name = asked.get("name") or "accountId"
    if name not in _GROUPS:
        raise AwsError("InvalidRequestException", f"The filter name must be one of {', '.join(_GROUPS)}.")
    member, read = _GROUPS[name]
    counts: dict[str, Counter[str]] = {}
    for row in _all(ctx):
        value = read(row)
        if value is not None and (not asked.get("values") or value in asked["values"]):
            counts.setdefault(value, Counter())[row["severity"]] += 1
    responses = [
        {
            member: {
                name: value,
                "severityCounts": {
                    "all": count.total(),
                    "critical": count["CRITICAL"],
                    "high": count["HIGH"],
                    "medium": count["MEDIUM"],
                },
            }
        }
        for value, count in sorted(counts.items())
    ]
    page, token = ctx.page(responses, params, default=25, tokens="nextToken", size="")
    return {"requestId": ctx.request_id, "aggregationType": name, "responses": page, "nextToken": token}
