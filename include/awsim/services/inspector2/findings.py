"""ListFindings and BatchGetFindingDetails: the findings that the caller may see, as Inspector tells them."""

from typing import Any

from awsim import estate
from awsim.catalogue import Cve, Update
from awsim.clock import moment
from awsim.estate import Machine
from awsim.host import Host
from awsim.registry import Context, operation
from awsim.services.functions.functions import Function
from awsim.services.inspector2 import accounts, moto_state, suppression
from awsim.services.inspector2.criteria import SORTS, check_entries, parts_of, passes
from awsim.services.inspector2.functions import resource_of, sightings
from awsim.services.inspector2.sightings import DAY, EC2, LAMBDA, Sighting, Vulnerable
from awsim.wire import Answer
from awsim.world import World
from awsim.world_file import CodeWeakness


def seen(ctx: Context) -> tuple[list[Sighting], dict[str, Machine]]:
    """The findings that the caller may see, his members' too, with their machines; suppressed ones are marked."""
    found: list[Sighting] = []
    machines: dict[str, Machine] = {}
    for account in accounts.visible(ctx.world, ctx.account, ctx.region):
        own = {machine.id: machine for machine in estate.machines(account, ctx.region)}
        there = sightings(ctx.world, account, ctx.region)
        suppression.apply(ctx.world, account, ctx.region, there, own)
        found += there
        machines |= own
    return found, machines


@operation("inspector2", "ListFindings")
def list_findings(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    if ctx.world.file is None and moto_state.queued(ctx.account, ctx.region):
        return ctx.moto_answer()  # results that somebody put there through moto's own API
    criteria = {key: entries for key, entries in (params.get("filterCriteria") or {}).items() if entries}
    check_entries(criteria)
    known, machines = seen(ctx)
    found = [sighting for sighting in known if passes(sighting, criteria, machines)]
    sort = params.get("sortCriteria")
    if sort:
        found.sort(key=SORTS.get(sort["field"], lambda _: 0), reverse=sort["sortOrder"] == "DESC")
    page, token = ctx.page(found, params, default=100, tokens="nextToken", size="maxResults")
    return {"findings": [_finding(ctx.world, sighting, machines.get(sighting.host.id)) for sighting in page], "nextToken": token}


@operation("inspector2", "BatchGetFindingDetails")
def batch_get_finding_details(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """What is known of a finding beyond ListFindings: CISA's catalogue of exploited vulnerabilities, EPSS, references."""
    known = {sighting.arn: sighting for sighting in seen(ctx)[0]}
    wanted = params["findingArns"]
    missing = [arn for arn in wanted if arn not in known]
    return {
        "findingDetails": [_details(ctx.world, known[arn]) for arn in wanted if arn in known],
        "errors": [
            {"findingArn": arn, "errorCode": "FINDING_DETAILS_NOT_FOUND", "errorMessage": "There are no details of the finding."}
            for arn in missing
        ],
    }


def _details(world: World, sighting: Sighting) -> dict[str, Any]:
    cve, update = sighting.cve, sighting.update
    told: dict[str, Any] = {
        "findingArn": sighting.arn,
        "riskScore": round(cve.score * 10),
        "evidences": [],
        "ttps": [],
        "tools": [],
        "referenceUrls": [_source_url(sighting.host, cve, update)],
        "cwes": [],
        "epssScore": cve.epss,
    }
    if cve.exploited:
        added = min(sighting.first, world.clock.base)
        told["cisaData"] = {
            "dateAdded": moment(added),
            "dateDue": moment(added + 21 * DAY),
            "action": "Apply mitigations per vendor instructions or discontinue use of the product if they are unavailable.",
        }
        told["exploitObserved"] = {"firstSeen": moment(added), "lastSeen": moment(added)}
    return told


def _finding(world: World, sighting: Sighting, machine: Machine | None) -> dict[str, Any]:
    host, cve = sighting.host, sighting.cve
    update = sighting.update
    url = _source_url(host, cve, update)
    vector = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" if cve.score >= 9 else "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"
    return {
        "findingArn": sighting.arn,
        "awsAccountId": host.account,
        "type": sighting.type,
        "title": sighting.title,
        "description": f"{cve.id} affects {', '.join(package.name for package in sighting.packages) or host.name}.",
        "severity": sighting.severity,
        "status": sighting.status,
        "firstObservedAt": moment(sighting.first),
        "lastObservedAt": moment(sighting.last),
        "updatedAt": moment(sighting.updated),
        "inspectorScore": cve.score,
        "inspectorScoreDetails": {
            "adjustedCvss": {
                "scoreSource": sighting.source,
                "cvssSource": "NVD",
                "version": "3.1",
                "score": cve.score,
                "scoringVector": vector,
            }
        },
        "fixAvailable": sighting.fix,
        "exploitAvailable": "YES" if cve.exploited else "NO",
        "exploitabilityDetails": {"lastKnownExploitAt": moment(min(sighting.first, world.clock.base))} if cve.exploited else None,
        "epss": {"score": cve.epss} if cve.epss is not None else None,
        "remediation": {"recommendation": {"text": "None Provided"}},
        "codeVulnerabilityDetails": _weakness(sighting.weakness) if sighting.weakness is not None else None,
        "packageVulnerabilityDetails": None
        if sighting.weakness is not None
        else {
            "vulnerabilityId": cve.id,
            "source": sighting.source,
            "sourceUrl": url,
            "vendorSeverity": update.severity if update else None,
            "vendorCreatedAt": moment(world.released(update)) if update else None,
            "referenceUrls": [url],
            "relatedVulnerabilities": [],
            "cvss": [{"source": "NVD", "version": "3.1", "baseScore": cve.score, "scoringVector": vector}],
            "vulnerablePackages": [_package(host, package) for package in sighting.packages],
        },
        "resources": [_resource(host, machine)],
    }


def _weakness(told: CodeWeakness) -> dict[str, Any]:
    name = told.title.lower().replace(" ", "-")
    place = {"fileName": told.file.rpartition("/")[2], "filePath": told.file, "startLine": told.line, "endLine": told.line}
    return {"detectorId": f"python/{name}@v1.0", "detectorName": told.title, "cwes": [told.cwe], "filePath": place}


def _source_url(host: Host | Function, cve: Cve, update: Update | None) -> str:
    if update is None:
        return f"https://nvd.nist.gov/vuln/detail/{cve.id}"
    if host.platform.operating_system == "UBUNTU":
        return f"https://ubuntu.com/security/{cve.id}"
    return f"https://alas.aws.amazon.com/cve/html/{cve.id}.html"


def _package(host: Host | Function, package: Vulnerable) -> dict[str, Any]:
    epoch, version, release = parts_of(package.evr)
    ours = package.manager == "OS"
    runtime = isinstance(host, Function)
    command = "apt-get update && apt-get upgrade" if host.platform.operating_system == "UBUNTU" else f"yum update {package.name}"
    return {
        "name": package.name,
        "version": version,
        "release": release or None,
        "epoch": epoch,
        "arch": package.arch.upper() or None,
        "packageManager": package.manager,
        "filePath": package.path or None,
        "fixedInVersion": package.fixed_in or "NotAvailable",
        "remediation": command if ours and package.fixed_in and not runtime else None,
    }


def _resource(host: Host | Function, machine: Machine | None) -> dict[str, Any]:
    details: dict[str, Any] = resource_of(host) if isinstance(host, Function) else {}
    if machine is not None:
        details = {
            "awsEc2Instance": {
                "type": machine.instance_type,
                "imageId": machine.image,
                "platform": platform_of(host),
                "vpcId": machine.vpc,
                "subnetId": machine.subnet,
                "launchedAt": moment(machine.launched),
                "iamInstanceProfileArn": machine.profile,
                "ipV4Addresses": [machine.address] if machine.address else [],
                "ipV6Addresses": [],
            }
        }
    kind = LAMBDA if isinstance(host, Function) else EC2
    return {"type": kind, "id": host.id, "partition": "aws", "region": host.region, "tags": host.tags(), "details": details}


def platform_of(host: Host | Function) -> str:
    return {"AMAZON_LINUX_2023": "AMAZON_LINUX_2023", "UBUNTU": f"UBUNTU_{host.platform.version.replace('.', '_')}"}.get(
        host.platform.operating_system, host.platform.operating_system
    )
