"""ListCoverage and ListCoverageStatistics: whom does Inspector scan, and whom not, for which reason?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from awsim import estate
from awsim.clock import moment
from awsim.estate import Machine
from awsim.host import Host
from awsim.registry import Context, operation
from awsim.services.functions.functions import Function
from awsim.services.inspector2 import accounts, functions
from awsim.services.inspector2.criteria import check_entries, dates_hold, strings_hold, tags_hold
from awsim.services.inspector2.sightings import EC2, EXCLUSION_TAG, LAMBDA, STALE_AFTER
from awsim.world import World


@dataclass(frozen=True, kw_only=True, slots=True)
class _Covered:
    host: Host | Function
    scan_type: str
    code: str
    reason: str
    scanned: float | None

    @property
    def is_function(self) -> bool:
        return isinstance(self.host, Function)


def _coverage(world: World, account: str, region: str) -> list[_Covered]:
    if accounts.scanning_since(world, account, region) is None:
        return []
    rows = []
    for host in world.hosts_in(account, region):
        code, reason, last = _scan_status(world, host)
        rows.append(_Covered(host=host, scan_type="PACKAGE", code=code, reason=reason, scanned=last))
        gone = reason in ("RESOURCE_TERMINATED", "EC2_INSTANCE_STOPPED", "EXCLUDED_BY_TAG")
        network = ("INACTIVE", reason) if gone else ("ACTIVE", "SUCCESSFUL")
        rows.append(_Covered(host=host, scan_type="NETWORK", code=network[0], reason=network[1], scanned=None))
    for function, code, reason, last in functions.covered(world, account, region):
        for kind in ("PACKAGE", "CODE"):
            rows.append(_Covered(host=function, scan_type=kind, code=code, reason=reason, scanned=last))
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
    begun = accounts.scanning_since(world, host.account, host.region)
    if last is None or (begun is not None and last < begun and begun > world.clock.base):
        return "INACTIVE", "PENDING_INITIAL_SCAN", None
    if world.now - last > STALE_AFTER:
        return "INACTIVE", "STALE_INVENTORY", last
    return "ACTIVE", host.coverage.reason, last


_COVERAGE_FACTS: dict[str, Callable[[_Covered], str]] = {
    "scanStatusCode": lambda row: row.code,
    "scanStatusReason": lambda row: row.reason,
    "accountId": lambda row: row.host.account,
    "resourceId": lambda row: row.host.id,
    "resourceType": lambda row: LAMBDA if row.is_function else EC2,
    "scanType": lambda row: row.scan_type,
    "scanMode": lambda row: "" if row.is_function else "EC2_SSM_AGENT_BASED",
    "lambdaFunctionName": lambda row: row.host.name if row.is_function else "",
    "lambdaFunctionRuntime": lambda row: functions.runtime_of(row.host) if isinstance(row.host, Function) else "",
    "cloudProvider": lambda _: "AWS",
    "cloudProviderAccountId": lambda row: row.host.account,
    "cloudProviderRegion": lambda row: row.host.region,
}


def _covered(ctx: Context, params: dict[str, Any]) -> list[_Covered]:
    criteria = {key: entries for key, entries in (params.get("filterCriteria") or {}).items() if entries}
    check_entries(criteria)

    def passes(row: _Covered) -> bool:
        for key, entries in criteria.items():
            if key in _COVERAGE_FACTS:
                held = strings_hold(entries, [_COVERAGE_FACTS[key](row)])
            elif key in ("ec2InstanceTags", "lambdaFunctionTags"):
                held = row.is_function is (key == "lambdaFunctionTags") and tags_hold(entries, row.host.tags())
            elif key == "lastScannedAt":
                held = dates_hold(entries, row.scanned)
            else:
                held = all("comparison" in entry and "key" not in entry for entry in entries) and strings_hold(entries, [])
            if not held:
                return False
        return True

    seen = accounts.visible(ctx.world, ctx.account, ctx.region)
    return [row for account in seen for row in _coverage(ctx.world, account, ctx.region) if passes(row)]


@operation("inspector2", "ListCoverage")
def list_coverage(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    page, token = ctx.page(_covered(ctx, params), params, default=100, tokens="nextToken", size="maxResults")
    seen = accounts.visible(ctx.world, ctx.account, ctx.region)
    machines = {machine.id: machine for account in seen for machine in estate.machines(account, ctx.region)}

    return {"coveredResources": [_row(covered, machines.get(covered.host.id)) for covered in page], "nextToken": token}


def _row(covered: _Covered, machine: Machine | None) -> dict[str, Any]:
    told: dict[str, Any] = {
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
    if isinstance(covered.host, Function):
        function = covered.host
        told |= {"resourceType": LAMBDA, "scanMode": None}
        told["resourceMetadata"] = {
            "lambdaFunction": {
                "functionName": function.name,
                "functionTags": function.tags(),
                "layers": [],
                "runtime": functions.runtime_of(function),
            }
        }
    return told


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
