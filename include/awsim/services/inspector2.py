"""What does Inspector say of the hosts: findings, coverage, counts?

Findings are derived from the world, host by host: at each inventory before which something changed (a package, a boot, a new
advisory), what is vulnerable then is compared with what was. A finding closes at the first inventory after its package was
fixed, of a kernel after the boot into the new one. Between inventories nothing moves, whatever happens on the host. Enabling,
members and account status stay moto's.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from awsim import estate
from awsim.catalogue import Cve, Update
from awsim.clock import moment
from awsim.estate import Machine
from awsim.host import Host
from awsim.registry import AwsError, Context, operation
from awsim.world import World

DAY = 86_400.0
KEPT_CLOSED = 30 * DAY
KEPT_OF_TERMINATED = 3 * DAY
CLOSED_AFTER_TERMINATION = 300.0
STALE_AFTER = 7 * DAY
EXCLUSION_TAG = "InspectorEc2Exclusion"
EC2 = "AWS_EC2_INSTANCE"
_RANK = {"UNTRIAGED": 0, "INFORMATIONAL": 1, "LOW": 2, "MEDIUM": 3, "HIGH": 4, "CRITICAL": 5}


@dataclass(frozen=True, kw_only=True, slots=True)
class Vulnerable:
    """One package of a host that a vulnerability is in."""

    name: str
    arch: str
    evr: str
    manager: str
    fixed_in: str | None
    path: str = ""
    update: Update | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class Sighting:
    """One vulnerability on one host: what a finding is made of."""

    host: Host
    cve: Cve
    arn: str
    first: float
    updated: float
    last: float
    packages: tuple[Vulnerable, ...]
    status: str = "ACTIVE"

    @property
    def severity(self) -> str:
        return severity_of(self.cve.score)

    @property
    def title(self) -> str:
        names = ", ".join(package.name for package in self.packages[:3])
        more = f" and {len(self.packages) - 3} more" if len(self.packages) > 3 else ""
        return f"{self.cve.id} - {names}{more}"

    @property
    def fix(self) -> str:
        fixed = sum(package.fixed_in is not None for package in self.packages)
        return "NO" if not fixed else "YES" if fixed == len(self.packages) else "PARTIAL"

    @property
    def update(self) -> Update | None:
        return next((package.update for package in self.packages if package.update is not None), None)

    @property
    def source(self) -> str:
        return self.host.platform.vulnerability_source if any(package.manager == "OS" for package in self.packages) else "NVD"


@dataclass(kw_only=True, slots=True)
class Dossier:
    """What Inspector knows of a host, up to the inventory that was looked at last."""

    looked: float | None = None
    sightings: dict[str, Sighting] = field(default_factory=dict)


@dataclass(slots=True)
class Dossiers:
    """Of a cell, by instance id."""

    of: dict[str, Dossier] = field(default_factory=dict)


def severity_of(score: float) -> str:
    """Inspector's bands of the CVSS score."""
    for least, name in ((9.0, "CRITICAL"), (7.0, "HIGH"), (4.0, "MEDIUM"), (0.1, "LOW")):
        if score >= least:
            return name
    return "INFORMATIONAL"


# --- what is vulnerable, and since when ---


def vulnerable_at(world: World, host: Host, at: float) -> dict[str, tuple[Cve, tuple[Vulnerable, ...]]]:
    """By CVE: the packages that have it, as an inventory at that moment shows them; of the kernel the running one counts."""
    levels = host.levels_at(at)
    kernel = host.platform.kernel
    if kernel in levels:
        levels[kernel] = min(levels[kernel], host.running_kernel_at(at))
    found: dict[str, tuple[Cve, dict[str, Vulnerable]]] = {}
    for name, level in sorted(levels.items()):
        package = host.platform.packages[name]
        for update in package.updates[level:]:
            if world.released(update) > at:
                break
            for cve in update.cves:
                row = Vulnerable(
                    name=name, arch=package.arch, evr=package.evr(level), manager="OS", fixed_in=update.evr, update=update
                )
                found.setdefault(cve.id, (cve, {}))[1][name] = row
    for outside in host.not_patchable:
        row = Vulnerable(
            name=outside.package,
            arch="",
            evr=outside.version,
            manager=outside.manager,
            fixed_in=outside.fixed_in,
            path=outside.path,
        )
        found.setdefault(outside.cve.id, (outside.cve, {}))[1][f"{outside.manager} {outside.package}"] = row
    return {name: (cve, tuple(rows.values())) for name, (cve, rows) in found.items()}


def scanned(world: World, host: Host) -> bool:
    enabled = world.file.inspector.enabled if world.file else True
    return enabled and host.coverage.covered and EXCLUSION_TAG not in host.tags()


def dossier(world: World, host: Host) -> Dossier:
    """The host's findings as of its last inventory."""
    kept = world.state(host.account, host.region, Dossiers).of.setdefault(host.id, Dossier())
    last = world.last_inventory(host, world.now)
    if last is None or not scanned(world, host):
        return kept
    for tick in _inventories(world, host, kept.looked, last):
        _look(world, host, kept, tick)
    if kept.looked is not None and kept.looked < last:
        kept.looked = last
    _bury(host, kept, world.now)
    return kept


def _inventories(world: World, host: Host, looked: float | None, last: float) -> list[float]:
    """The inventories up to `last` that can differ from the ones before them."""
    ticks: set[float] = set()
    since = looked
    if since is None:
        base = world.clock.base
        first = world.last_inventory(host, base) if host.launched < base else None
        since = first if first is not None else world.next_inventory(host, host.registered or host.launched)
        if since is None or since > last:
            return []
        ticks.add(since)
    points = [change.at for change in host.changes] + host.boots + _later_releases(world)
    for point in points:
        if since < point <= last:
            tick = world.next_inventory(host, point)
            if tick is not None and tick <= last:
                ticks.add(tick)
    return sorted(ticks)


def _later_releases(world: World) -> list[float]:
    return [world.clock.base + after for after in world.file.catalogue.appears.values()] if world.file else []


def _look(world: World, host: Host, kept: Dossier, tick: float) -> None:
    first_look = kept.looked is None
    before = kept.looked if kept.looked is not None else tick
    previous = world.last_inventory(host, tick - 1)
    seen = vulnerable_at(world, host, tick)
    for name, (cve, packages) in seen.items():
        known = kept.sightings.get(name)
        if known is None:
            first = _first_seen(world, host, cve, packages, tick) if first_look else tick
            kept.sightings[name] = Sighting(
                host=host, cve=cve, arn=_arn(world, host, cve), first=first, updated=first, last=tick, packages=packages
            )
        elif known.packages != packages or known.status != "ACTIVE":
            known.packages, known.status, known.updated = packages, "ACTIVE", tick
    for name, sighting in kept.sightings.items():
        if name not in seen and sighting.status == "ACTIVE":
            sighting.status, sighting.updated, sighting.last = "CLOSED", tick, max(before, previous or before)
    kept.looked = tick


def _bury(host: Host, kept: Dossier, now: float) -> None:
    """A terminated instance's findings close soon after it; closed ones are deleted in the end."""
    closing = host.terminated + CLOSED_AFTER_TERMINATION if host.terminated is not None else None
    for name, sighting in list(kept.sightings.items()):
        if sighting.status == "ACTIVE":
            sighting.last = kept.looked if kept.looked is not None else sighting.last
            if closing is not None and closing <= now:
                sighting.status, sighting.updated = "CLOSED", closing
        life = KEPT_CLOSED if closing is None else KEPT_OF_TERMINATED
        if sighting.status == "CLOSED" and now >= sighting.updated + life:
            del kept.sightings[name]


def _first_seen(world: World, host: Host, cve: Cve, packages: tuple[Vulnerable, ...], tick: float) -> float:
    """Before the world began: some days back, but neither before the advisory nor before the host."""
    chance = world.random(host.name, cve.id, "first observed")
    released = min((world.released(package.update) for package in packages if package.update), default=0.0)
    earliest = max(host.launched + 600, released + chance.uniform(600, DAY / 2))
    return min(tick, max(earliest, world.clock.base - chance.uniform(1, 14) * DAY))


def _arn(world: World, host: Host, cve: Cve) -> str:
    digest = hashlib.sha256(f"{world.seed} finding {host.id} {cve.id}".encode()).hexdigest()[:32]
    return f"arn:aws:inspector2:{host.region}:{host.account}:finding/{digest}"


def sightings(world: World, account: str, region: str) -> list[Sighting]:
    """All findings of a cell, in the order of its hosts."""
    return [
        sighting
        for host in world.hosts_in(account, region)
        if scanned(world, host)
        for sighting in dossier(world, host).sightings.values()
    ]


# --- filters ---


def _strings(entries: list[dict[str, Any]], values: Iterable[str]) -> bool:
    """EQUALS and PREFIX are ORed, every NOT_EQUALS must hold."""
    present = [value for value in values if value]
    wanted = [entry for entry in entries if entry["comparison"] != "NOT_EQUALS"]
    for entry in entries:
        if entry["comparison"] == "NOT_EQUALS" and entry["value"] in present:
            return False
    return not wanted or any(
        value.startswith(entry["value"]) if entry["comparison"] == "PREFIX" else value == entry["value"]
        for entry in wanted
        for value in present
    )


def _epoch(when: Any) -> float:
    if isinstance(when, datetime):
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return float(when)


def _dates(entries: list[dict[str, Any]], value: float | None) -> bool:
    return value is not None and any(
        ("startInclusive" not in entry or _epoch(entry["startInclusive"]) <= value)
        and ("endInclusive" not in entry or value <= _epoch(entry["endInclusive"]))
        for entry in entries
    )


def _numbers(entries: list[dict[str, Any]], value: float | None) -> bool:
    return value is not None and any(
        entry.get("lowerInclusive", value) <= value <= entry.get("upperInclusive", value) for entry in entries
    )


def _tags(entries: list[dict[str, Any]], tags: dict[str, str]) -> bool:
    return any(entry["key"] in tags and ("value" not in entry or tags[entry["key"]] == entry["value"]) for entry in entries)


def _packages(entries: list[dict[str, Any]], packages: tuple[Vulnerable, ...]) -> bool:
    def meant(entry: dict[str, Any], package: Vulnerable) -> bool:
        epoch, version, release = _parts(package.evr)
        facts = {
            "name": package.name,
            "version": version,
            "release": release,
            "architecture": package.arch.upper(),
            "filePath": package.path,
        }
        return all(
            _numbers([wanted], float(epoch)) if key == "epoch" else _strings([wanted], [facts.get(key, "")])
            for key, wanted in entry.items()
        )

    return any(meant(entry, package) for entry in entries for package in packages)


_STRING_FACTS: dict[str, Callable[[Sighting], str]] = {
    "findingArn": lambda sighting: sighting.arn,
    "awsAccountId": lambda sighting: sighting.host.account,
    "findingType": lambda _: "PACKAGE_VULNERABILITY",
    "severity": lambda sighting: sighting.severity,
    "findingStatus": lambda sighting: sighting.status,
    "title": lambda sighting: sighting.title,
    "resourceType": lambda _: EC2,
    "resourceId": lambda sighting: sighting.host.id,
    "vulnerabilityId": lambda sighting: sighting.cve.id,
    "vulnerabilitySource": lambda sighting: sighting.source,
    "vendorSeverity": lambda sighting: sighting.update.severity if sighting.update else "",
    "fixAvailable": lambda sighting: sighting.fix,
    "exploitAvailable": lambda sighting: "YES" if sighting.cve.exploited else "NO",
    "cloudProvider": lambda _: "AWS",
    "cloudProviderAccountId": lambda sighting: sighting.host.account,
    "cloudProviderRegion": lambda sighting: sighting.host.region,
}
_MACHINE_FACTS: dict[str, Callable[[Machine], str | None]] = {
    "ec2InstanceImageId": lambda machine: machine.image,
    "ec2InstanceVpcId": lambda machine: machine.vpc,
    "ec2InstanceSubnetId": lambda machine: machine.subnet,
}
_DATE_FACTS: dict[str, Callable[[Sighting], float]] = {
    "firstObservedAt": lambda sighting: sighting.first,
    "lastObservedAt": lambda sighting: sighting.last,
    "updatedAt": lambda sighting: sighting.updated,
}
_NUMBER_FACTS: dict[str, Callable[[Sighting], float | None]] = {
    "inspectorScore": lambda sighting: sighting.cve.score,
    "epssScore": lambda sighting: sighting.cve.epss,
}


def _passes(sighting: Sighting, criteria: dict[str, list[dict[str, Any]]], machines: dict[str, Machine]) -> bool:
    """Keys are ANDed. Keys of resources that this world does not have match nothing."""
    for key, entries in criteria.items():
        if key in _STRING_FACTS:
            held = _strings(entries, [_STRING_FACTS[key](sighting)])
        elif key in _DATE_FACTS:
            held = _dates(entries, _DATE_FACTS[key](sighting))
        elif key in _NUMBER_FACTS:
            held = _numbers(entries, _NUMBER_FACTS[key](sighting))
        elif key == "resourceTags":
            held = _tags(entries, sighting.host.tags())
        elif key == "vulnerablePackages":
            held = _packages(entries, sighting.packages)
        elif key in _MACHINE_FACTS:
            machine = machines.get(sighting.host.id)
            held = _strings(entries, [_MACHINE_FACTS[key](machine) or "" if machine else ""])
        else:
            held = all("comparison" in entry for entry in entries) and _strings(entries, [])
        if not held:
            return False
    return True


_SORTS: dict[str, Callable[[Sighting], Any]] = {
    "AWS_ACCOUNT_ID": lambda sighting: sighting.host.account,
    "SEVERITY": lambda sighting: _RANK[sighting.severity],
    "FIRST_OBSERVED_AT": lambda sighting: sighting.first,
    "LAST_OBSERVED_AT": lambda sighting: sighting.last,
    "FINDING_STATUS": lambda sighting: sighting.status,
    "VULNERABILITY_ID": lambda sighting: sighting.cve.id,
    "VULNERABILITY_SOURCE": lambda sighting: sighting.source,
    "INSPECTOR_SCORE": lambda sighting: sighting.cve.score,
    "VENDOR_SEVERITY": lambda sighting: sighting.update.severity if sighting.update else "",
    "EPSS_SCORE": lambda sighting: sighting.cve.epss or 0.0,
}


# --- operations ---


@operation("inspector2", "ListFindings")
def list_findings(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    machines = {machine.id: machine for machine in estate.machines(ctx.account, ctx.region)}
    criteria = {key: entries for key, entries in (params.get("filterCriteria") or {}).items() if entries}
    _check_entries(criteria)
    found = [sighting for sighting in sightings(ctx.world, ctx.account, ctx.region) if _passes(sighting, criteria, machines)]
    sort = params.get("sortCriteria")
    if sort:
        found.sort(key=_SORTS.get(sort["field"], lambda _: 0), reverse=sort["sortOrder"] == "DESC")
    page, token = ctx.page(found, params, default=100, tokens="nextToken", size="maxResults")
    return {"findings": [_finding(ctx.world, sighting, machines.get(sighting.host.id)) for sighting in page], "nextToken": token}


def _check_entries(criteria: dict[str, list[dict[str, Any]]]) -> None:
    for key, entries in criteria.items():
        if len(entries) > 10:
            field_ = {"name": f"filterCriteria.{key}", "message": "must have at most 10 entries"}
            raise AwsError(
                "ValidationException",
                f"filterCriteria.{key} has {len(entries)} entries, at most 10 are allowed",
                reason="FIELD_VALIDATION_FAILED",
                fields=[field_],
            )


@lru_cache(maxsize=4096)
def _parts(evr: str) -> tuple[int, str, str]:
    epoch, colon, rest = evr.partition(":")
    if not colon or not epoch.isdigit():
        return 0, evr, ""
    version, _, release = rest.partition("-")
    return int(epoch), version, release


def _finding(world: World, sighting: Sighting, machine: Machine | None) -> dict[str, Any]:
    host, cve = sighting.host, sighting.cve
    update = sighting.update
    url = _source_url(host, cve, update)
    vector = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" if cve.score >= 9 else "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"
    return {
        "findingArn": sighting.arn,
        "awsAccountId": host.account,
        "type": "PACKAGE_VULNERABILITY",
        "title": sighting.title,
        "description": f"{cve.id} affects {', '.join(package.name for package in sighting.packages)}.",
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
        "packageVulnerabilityDetails": {
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


def _source_url(host: Host, cve: Cve, update: Update | None) -> str:
    if update is None:
        return f"https://nvd.nist.gov/vuln/detail/{cve.id}"
    if host.platform.operating_system == "UBUNTU":
        return f"https://ubuntu.com/security/{cve.id}"
    return f"https://alas.aws.amazon.com/cve/html/{cve.id}.html"


def _package(host: Host, package: Vulnerable) -> dict[str, Any]:
    epoch, version, release = _parts(package.evr)
    ours = package.manager == "OS"
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
        "remediation": command if ours and package.fixed_in else None,
    }


def _resource(host: Host, machine: Machine | None) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if machine is not None:
        details = {
            "awsEc2Instance": {
                "type": machine.instance_type,
                "imageId": machine.image,
                "platform": _platform(host),
                "vpcId": machine.vpc,
                "subnetId": machine.subnet,
                "launchedAt": moment(machine.launched),
                "iamInstanceProfileArn": machine.profile,
                "ipV4Addresses": [machine.address] if machine.address else [],
                "ipV6Addresses": [],
            }
        }
    return {"type": EC2, "id": host.id, "partition": "aws", "region": host.region, "tags": host.tags(), "details": details}


def _platform(host: Host) -> str:
    return {"AMAZON_LINUX_2023": "AMAZON_LINUX_2023", "UBUNTU": f"UBUNTU_{host.platform.version.replace('.', '_')}"}.get(
        host.platform.operating_system, host.platform.operating_system
    )


# --- coverage ---


@dataclass(frozen=True, kw_only=True, slots=True)
class _Covered:
    host: Host
    scan_type: str
    code: str
    reason: str
    scanned: float | None


def _coverage(world: World, account: str, region: str) -> list[_Covered]:
    if world.file is not None and not world.file.inspector.enabled:
        return []
    rows = []
    for host in world.hosts_in(account, region):
        code, reason, last = _scan_status(world, host)
        rows.append(_Covered(host=host, scan_type="PACKAGE", code=code, reason=reason, scanned=last))
        gone = reason in ("RESOURCE_TERMINATED", "EC2_INSTANCE_STOPPED", "EXCLUDED_BY_TAG")
        network = ("INACTIVE", reason) if gone else ("ACTIVE", "SUCCESSFUL")
        rows.append(_Covered(host=host, scan_type="NETWORK", code=network[0], reason=network[1], scanned=None))
    return rows


def _scan_status(world: World, host: Host) -> tuple[str, str, float | None]:
    """Status code, reason, and when the packages were scanned last."""
    last = world.last_inventory(host, world.now)
    if host.state == "terminated":
        return "INACTIVE", "RESOURCE_TERMINATED", last
    if EXCLUSION_TAG in host.tags():
        return "INACTIVE", "EXCLUDED_BY_TAG", None
    if not host.coverage.covered:
        return "INACTIVE", host.coverage.reason, None
    if host.state == "stopped":
        return "INACTIVE", "EC2_INSTANCE_STOPPED", last
    if host.registered is None or host.registered > world.now:
        return "INACTIVE", "UNMANAGED_EC2_INSTANCE", None
    if last is None:
        return "INACTIVE", "PENDING_INITIAL_SCAN", None
    if world.now - last > STALE_AFTER:
        return "INACTIVE", "STALE_INVENTORY", last
    return "ACTIVE", host.coverage.reason, last


_COVERAGE_FACTS: dict[str, Callable[[_Covered], str]] = {
    "scanStatusCode": lambda row: row.code,
    "scanStatusReason": lambda row: row.reason,
    "accountId": lambda row: row.host.account,
    "resourceId": lambda row: row.host.id,
    "resourceType": lambda _: EC2,
    "scanType": lambda row: row.scan_type,
    "scanMode": lambda _: "EC2_SSM_AGENT_BASED",
    "cloudProvider": lambda _: "AWS",
    "cloudProviderAccountId": lambda row: row.host.account,
    "cloudProviderRegion": lambda row: row.host.region,
}


def _covered(ctx: Context, params: dict[str, Any]) -> list[_Covered]:
    criteria = {key: entries for key, entries in (params.get("filterCriteria") or {}).items() if entries}
    _check_entries(criteria)

    def passes(row: _Covered) -> bool:
        for key, entries in criteria.items():
            if key in _COVERAGE_FACTS:
                held = _strings(entries, [_COVERAGE_FACTS[key](row)])
            elif key == "ec2InstanceTags":
                held = _tags(entries, row.host.tags())
            elif key == "lastScannedAt":
                held = _dates(entries, row.scanned)
            else:
                held = all("comparison" in entry and "key" not in entry for entry in entries) and _strings(entries, [])
            if not held:
                return False
        return True

    return [row for row in _coverage(ctx.world, ctx.account, ctx.region) if passes(row)]


@operation("inspector2", "ListCoverage")
def list_coverage(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    page, token = ctx.page(_covered(ctx, params), params, default=100, tokens="nextToken", size="maxResults")
    machines = {machine.id: machine for machine in estate.machines(ctx.account, ctx.region)}

    def row(covered: _Covered) -> dict[str, Any]:
        machine = machines.get(covered.host.id)
        return {
            "resourceType": EC2,
            "resourceId": covered.host.id,
            "accountId": covered.host.account,
            "scanType": covered.scan_type,
            "scanStatus": {"statusCode": covered.code, "reason": covered.reason},
            "scanMode": "EC2_SSM_AGENT_BASED",
            "lastScannedAt": moment(covered.scanned) if covered.scanned is not None else None,
            "resourceMetadata": {
                "ec2": {"amiId": machine.image if machine else None, "platform": "LINUX", "tags": covered.host.tags()}
            },
        }

    return {"coveredResources": [row(covered) for covered in page], "nextToken": token}


@operation("inspector2", "ListCoverageStatistics")
def list_coverage_statistics(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = _covered(ctx, params)
    group = params.get("groupBy")
    facts = {
        "SCAN_STATUS_CODE": "scanStatusCode",
        "SCAN_STATUS_REASON": "scanStatusReason",
        "ACCOUNT_ID": "accountId",
        "RESOURCE_TYPE": "resourceType",
        "PROVIDER": "cloudProvider",
        "PROVIDER_ACCOUNT_ID": "cloudProviderAccountId",
        "PROVIDER_REGION": "cloudProviderRegion",
    }
    counts = Counter(_COVERAGE_FACTS[facts[group]](row) for row in rows) if group in facts else Counter[str]()
    return {
        "totalCounts": len(rows),
        "countsByGroup": [{"groupKey": key, "count": count} for key, count in sorted(counts.items())] if group else None,
    }


# --- aggregations ---


def _severity_counts(found: list[Sighting]) -> dict[str, int]:
    counts = Counter(sighting.severity for sighting in found)
    return {"all": len(found), **{name.lower(): counts.get(name, 0) for name in _RANK}}


@operation("inspector2", "ListFindingAggregations")
def list_finding_aggregations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Counts of active findings by host, account, type, title or package."""
    kind = params["aggregationType"]
    accounts = {entry["value"] for entry in params.get("accountIds") or []}
    active = [
        sighting
        for sighting in sightings(ctx.world, ctx.account, ctx.region)
        if sighting.status == "ACTIVE" and (not accounts or sighting.host.account in accounts)
    ]
    request: dict[str, Any] = next(iter((params.get("aggregationRequest") or {}).values()), {})
    groups: dict[str, list[Sighting]] = {}
    for sighting in active:
        for key in _group_keys(kind, sighting):
            groups.setdefault(key, []).append(sighting)
    rows = [_aggregated(kind, key, found, ctx) for key, found in groups.items() if _aggregation_passes(kind, key, found, request)]
    by = str(request.get("sortBy", "ALL")).lower()
    rows.sort(
        key=lambda row: next(iter(row.values()))["severityCounts"].get(by, 0),
        reverse=str(request.get("sortOrder", "DESC")) == "DESC",
    )
    page, token = ctx.page(rows, params, default=100, tokens="nextToken", size="maxResults")
    return {"aggregationType": kind, "responses": page, "nextToken": token}


def _group_keys(kind: str, sighting: Sighting) -> list[str]:
    if kind == EC2:
        return [sighting.host.id]
    if kind == "ACCOUNT":
        return [sighting.host.account]
    if kind == "FINDING_TYPE":
        return ["PACKAGE_VULNERABILITY"]
    if kind == "TITLE":
        return [sighting.title]
    if kind == "PACKAGE":
        return sorted({package.name for package in sighting.packages})
    return []


def _aggregation_passes(kind: str, key: str, found: list[Sighting], request: dict[str, Any]) -> bool:
    if kind != EC2:
        return True
    if request.get("instanceIds") and not _strings(request["instanceIds"], [key]):
        return False
    return not request.get("instanceTags") or _tags(request["instanceTags"], found[0].host.tags())


def _aggregated(kind: str, key: str, found: list[Sighting], ctx: Context) -> dict[str, Any]:
    counts = _severity_counts(found)
    more = {
        "exploitAvailableCount": sum(sighting.cve.exploited for sighting in found),
        "fixAvailableCount": sum(sighting.fix == "YES" for sighting in found),
    }
    if kind == EC2:
        host = found[0].host
        machine = estate.machine(host.account, host.region, host.id)
        return {
            "ec2InstanceAggregation": {
                "instanceId": key,
                "accountId": host.account,
                "ami": machine.image if machine else None,
                "operatingSystem": _platform(host),
                "instanceTags": host.tags(),
                "severityCounts": counts,
                "networkFindings": 0,
            }
        }
    if kind == "ACCOUNT":
        return {"accountAggregation": {"accountId": key, "severityCounts": counts, **more}}
    if kind == "FINDING_TYPE":
        return {"findingTypeAggregation": {"accountId": ctx.account, "severityCounts": counts, **more}}
    if kind == "TITLE":
        return {
            "titleAggregation": {
                "title": key,
                "vulnerabilityId": found[0].cve.id,
                "accountId": ctx.account,
                "severityCounts": counts,
            }
        }
    return {"packageAggregation": {"packageName": key, "accountId": ctx.account, "severityCounts": counts}}
