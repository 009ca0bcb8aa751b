"""What does a company of 100,000 hosts look like to Inspector and EC2? Made-up hosts, groups, coverage and findings, for
`benchmarks/plan.py`.

Everything follows from the numbers and a seed, row by row, so that a million findings never are in memory at once. ARNs, ids and
moments are new objects in each row, as they are where they come from Inspector's pages: whoever keeps them pays for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from random import Random
from typing import Any

from patchwave.campaign import definition, fleet
from patchwave.campaign.catalogues import Catalogue, Exploitation, Known, Ssvc
from patchwave.campaign.definition import Campaign
from patchwave.campaign.findings import Coverage, Finding, Severity, VulnerablePackage
from patchwave.campaign.fleet import Group, Host, InstanceState, Ping
from patchwave.campaign.reachability import Reach
from patchwave.campaign.values import Cell, HostId, RunId

RUN = RunId("whole-company/manual__2026-03-03")
NOW = datetime(2026, 3, 3, 22, 0, tzinfo=UTC)
CELLS = tuple(
    Cell(account=account, region=region)
    for account in ("111111111111", "222222222222", "333333333333", "444444444444")
    for region in ("eu-central-1", "us-east-1")
)
EC2 = "AWS_EC2_INSTANCE"
FUNCTION = "AWS_LAMBDA_FUNCTION"
IMAGE = "AWS_ECR_CONTAINER_IMAGE"

PLATFORMS = (
    ("Amazon Linux 2023", ("kernel6.12", "openssl-libs", "curl-minimal", "glibc", "vim-minimal", "python3", "expat", "libxml2")),
    ("Ubuntu 24.04", ("linux-image-6.8.0-1015-aws", "libssl3t64", "curl", "libc6", "vim-common", "python3.12", "openssh-server")),
    ("Red Hat Enterprise Linux 9", ("kernel-core", "openssl", "curl", "glibc-common", "python3.9", "sudo", "bind-libs")),
    ("Microsoft Windows Server 2022 Datacenter", ("Windows Server 2022", "Microsoft .NET Framework", "Microsoft Edge")),
)  # fmt: skip
LANGUAGES = (("GOBINARY", "golang.org/x/net"), ("PYTHONPKG", "requests"), ("JAR", "log4j-core"), ("NODEPKG", "express"))
SEVERITIES = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.INFORMATIONAL, Severity.UNTRIAGED)
SEVERITY_WEIGHTS = (4, 28, 45, 15, 3, 5)
VULNERABILITIES = 4000
IN_GROUPS = 0.6
LARGEST_GROUP = 100

CAMPAIGN = """
name: whole-company
description: Every host of the company
owner: platform
scope:
  cells:
    - {account: "111111111111", regions: [eu-central-1, us-east-1]}
    - {account: "222222222222", regions: [eu-central-1, us-east-1]}
    - {account: "333333333333", regions: [eu-central-1, us-east-1]}
    - {account: "444444444444", regions: [eu-central-1, us-east-1]}
policy: standard
stages:
  - {name: dev, select: {patch_groups: [linux-dev]}, concurrency: 50%, error_budget: 5%, soak: 4h}
  - name: staging
    select: {patch_groups: [linux-staging]}
    concurrency: 20%
    error_budget: 2%
    soak: 24h
    approval: {required: true, approvers: [olga, ana]}
  - name: prod
    select: {patch_groups: [linux-prod]}
    concurrency: 10%
    error_budget: 1%
    approval: {required: true, approvers: [olga, ana]}
"""


def campaign() -> Campaign:
    """One that patches all of them, in three stages."""
    return definition.parse(CAMPAIGN, file="whole-company.yaml")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Vulnerability:
    number: int
    severity: Severity
    score: float | None
    language: int | None  # number in LANGUAGES; None for a package of the operating system
    packages: int
    fix: str
    exploit_known: bool


def _vulnerabilities(random: Random) -> list[_Vulnerability]:
    made = []
    for number in range(VULNERABILITIES):
        severity = random.choices(SEVERITIES, SEVERITY_WEIGHTS)[0]
        made.append(
            _Vulnerability(
                number=number,
                severity=severity,
                score=None if severity is Severity.UNTRIAGED else round(random.uniform(0, 10), 1),
                language=random.randrange(len(LANGUAGES)) if random.random() < 0.08 else None,
                packages=random.choices((1, 2, 3), (60, 25, 15))[0],
                fix=random.choices(("YES", "PARTIAL", "NO"), (90, 4, 6))[0],
                exploit_known=random.random() < 0.06,
            )
        )
    return made


def host_id(number: int) -> HostId:
    """The id of the host of that number, a new text each time."""
    return HostId(f"i-{number:017x}")


def _platform(number: int) -> int:
    return (0, 0, 0, 0, 1, 1, 1, 2, 2, 3)[number % 10]


ROUND = 10 * len(CELLS)
"""After so many hosts it is the first cell's turn again."""


def _cell(number: int) -> Cell:
    return CELLS[number // 10 % len(CELLS)]


def hosts(count: int, *, seed: int = 1) -> list[Host]:
    """Hosts of all stages; six of ten serve in Auto Scaling groups of 5 to 100, a few are stopped or do not answer."""
    random = Random(seed)
    found = []
    group_of: dict[Cell, tuple[int, int]] = {}  # the group that is being filled: its number, and how many it still takes
    groups = 0
    for number in range(count):
        cell = _cell(number)
        group, name = None, f"host-{number}"
        stage = random.choices(("dev", "staging", "prod", ""), (5, 10, 84, 1))[0]
        if stage == "prod" and random.random() < IN_GROUPS:
            its, room = group_of.get(cell, (0, 0))
            if not room:
                groups += 1
                its, room = groups, random.randint(5, LARGEST_GROUP)
            group_of[cell] = its, room - 1
            group, name = f"service-{its}", f"service-{its}"
        state = random.choices((InstanceState.RUNNING, InstanceState.STOPPED), (99, 1))[0]
        found.append(
            Host(
                id=host_id(number), cell=cell, name=name, state=state,
                ping=random.choices((Ping.ONLINE, Ping.CONNECTION_LOST, Ping.UNMANAGED), (985, 10, 5))[0],
                platform=PLATFORMS[_platform(number)][0], zone=f"{cell.region}{'abc'[number % 3]}",
                tags={"PatchGroup": f"linux-{stage}", "Name": name, "Team": f"team-{number % 97}"} if stage else {"Name": name},
                group=group, group_state="InService" if group else None, group_health="HEALTHY" if group else None,
                target_groups=(f"{group}-https",) if group and int(group.split("-")[1]) % 2 else (),
                last_ping=NOW - timedelta(minutes=3), agent_version="3.3.2746.0", launched=NOW - timedelta(days=number % 300),
            )
        )  # fmt: skip
    return found


def groups(of: list[Host]) -> list[Group]:
    """The Auto Scaling and target groups that these hosts serve in; each may miss a fifth of its members."""
    members: dict[str, set[HostId]] = {}
    for host in of:
        if host.group is not None and host.state is InstanceState.RUNNING:
            members.setdefault(fleet.group_domain(host.cell, host.group), set()).add(host.id)
            for name in host.target_groups:
                members.setdefault(fleet.target_domain(host.cell, name), set()).add(host.id)
    return [
        Group(domain=domain, members=frozenset(its), minimum=len(its) * 4 // 5, says=f"MinSize {len(its) * 4 // 5}")
        for domain, its in members.items()
    ]


def coverage(of: list[Host]) -> Iterator[Coverage]:
    """Inspector's word on each host: all but those that Systems Manager does not know, and the stopped ones."""
    for host in of:
        reason = "SUCCESSFUL"
        if host.ping is Ping.UNMANAGED:
            reason = "UNMANAGED_EC2_INSTANCE"
        elif host.state is InstanceState.STOPPED:
            reason = "EC2_INSTANCE_STOPPED"
        yield Coverage(cell=host.cell, host=host.id, active=reason == "SUCCESSFUL", reason=reason, last_scanned=NOW)


def known(of: list[Host]) -> Known:
    """What a decision table asks for: a hundred exploited vulnerabilities, CISA's answers on half of all, and who is exposed."""
    return Known(
        catalogue=Catalogue(
            version="2026.03.03", released=NOW, source="kev.json", read_at=NOW,
            added={_cve(40 * number): date(2026, 1, 1 + number % 28) for number in range(VULNERABILITIES // 40)},
        ),
        ssvc={
            _cve(number): Ssvc(
                exploitation=Exploitation.NONE, automatable="yes" if number % 3 else "no",
                technical_impact="total" if number % 5 else "partial",
            )
            for number in range(0, VULNERABILITIES, 2)
        },
        reach={host.id: Reach(addresses=("192.0.2.1",) if number % 12 == 0 else ()) for number, host in enumerate(of)},
    )  # fmt: skip


def _cve(number: int) -> str:
    return f"CVE-{2019 + number % 8}-{10000 + number}"


def findings(count: int, *, hosts: int, seed: int = 1, within: Cell | None = None) -> Iterator[Finding]:
    """So many findings, one at a time: 49 of 50 on hosts (by chance as many on one as on another), the rest on functions and
    images. Few vulnerabilities are on many hosts, and many on few.

    Args:
        within: only of hosts in this cell; None: in all.
    """
    random = Random(seed)
    known = _vulnerabilities(random)
    packages = [[_packages(one, platform) for platform in range(len(PLATFORMS))] for one in known]
    weights = list(accumulate(1 / (place + 10) for place in range(len(known))))
    drawn: list[_Vulnerability] = []
    for number in range(count):
        if not drawn:
            drawn = random.choices(known, cum_weights=weights, k=1000)
        one = drawn.pop()
        host = int(random.random() * hosts)
        if within is not None:
            host = host // ROUND * ROUND + CELLS.index(within) * 10 + host % 10
            host -= ROUND if host >= hosts else 0
        cell = _cell(host)
        resource_type, resource = EC2, str(host_id(host))
        if number % 50 == 0:
            resource_type, resource = FUNCTION, f"arn:aws:lambda:{cell.region}:{cell.account}:function:f-{host % 500}"
            if number % 100 == 0:
                resource_type, resource = IMAGE, f"arn:aws:ecr:{cell.region}:{cell.account}:repository/r-{host % 300}"
        vulnerability = _cve(one.number)
        seen = NOW - timedelta(seconds=int(random.random() * 120 * 86400))
        yield Finding(
            arn=f"arn:aws:inspector2:{cell.region}:{cell.account}:finding/{random.getrandbits(128):032x}",
            cell=cell,
            resource=resource,
            resource_type=resource_type,
            vulnerability=vulnerability,
            title=f"{vulnerability} - {one.number}",
            severity=one.severity,
            packages=packages[one.number][_platform(host)],
            fix=one.fix,
            first_seen=seen,
            updated=NOW,
            score=one.score,
            exploit_known=one.exploit_known,
            related=(f"CVE-2018-{20000 + one.number}",) if one.number % 10 == 0 else (),
        )


def _packages(one: _Vulnerability, platform: int) -> tuple[VulnerablePackage, ...]:
    if one.language is not None:
        manager, name = LANGUAGES[one.language]
        fixed = None if one.fix == "NO" else f"2.{one.number}"
        path = f"opt/app-{one.number % 50}/bin/agent"
        return (VulnerablePackage(name=name, version=f"1.{one.number}", manager=manager, fixed_in=fixed, path=path),)
    names = PLATFORMS[platform][1]
    return tuple(
        VulnerablePackage(
            name=names[(one.number + place) % len(names)],
            version=f"0:{1 + one.number % 9}.{one.number % 31}-1",
            manager="OS",
            fixed_in=None
            if one.fix == "NO" or (one.fix == "PARTIAL" and place)
            else f"0:{1 + one.number % 9}.{one.number % 31}-2",
        )
        for place in range(one.packages)
    )


def on_the_wire(one: Finding) -> dict[str, Any]:
    """The finding as botocore hands out a row of ListFindings."""
    row: dict[str, Any] = {
        "findingArn": one.arn, "awsAccountId": one.cell.account, "type": "PACKAGE_VULNERABILITY", "status": "ACTIVE",
        "title": one.title, "severity": one.severity.value.upper(), "fixAvailable": one.fix,
        "exploitAvailable": "YES" if one.exploit_known else "NO", "firstObservedAt": one.first_seen,
        "lastObservedAt": one.updated, "updatedAt": one.updated,
        "resources": [{"id": one.resource, "type": one.resource_type, "tags": {}}],
        "packageVulnerabilityDetails": {
            "vulnerabilityId": one.vulnerability, "relatedVulnerabilities": list(one.related),
            "vulnerablePackages": [
                {"name": package.name, "version": package.version, "packageManager": package.manager,
                 "fixedInVersion": package.fixed_in or "NotAvailable", **({"filePath": package.path} if package.path else {})}
                for package in one.packages
            ],
        },
    }  # fmt: skip
    return row | ({"inspectorScore": one.score} if one.score is not None else {})


def covered(cell: Cell, hosts: int) -> Iterator[dict[str, Any]]:
    """A cell's hosts as botocore hands out rows of ListCoverage; one in a hundred is not scanned."""
    for number in range(hosts):
        if _cell(number) == cell:
            scanned = number % 100 != 0
            status = {"statusCode": "ACTIVE", "reason": "SUCCESSFUL"} if scanned else {
                "statusCode": "INACTIVE", "reason": "EC2_INSTANCE_STOPPED"
            }  # fmt: skip
            yield {
                "resourceId": host_id(number), "resourceType": EC2, "scanType": "PACKAGE", "accountId": cell.account,
                "scanStatus": status, "lastScannedAt": NOW,
            }  # fmt: skip
