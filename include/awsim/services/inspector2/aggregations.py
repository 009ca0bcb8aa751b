"""ListFindingAggregations: active findings counted by host, account, image, type, title or package."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from awsim.estate import Machine
from awsim.registry import Context, operation
from awsim.services.functions.functions import Function
from awsim.services.inspector2.criteria import RANK, strings_hold, tags_hold
from awsim.services.inspector2.findings import platform_of, seen
from awsim.services.inspector2.functions import runtime_of
from awsim.services.inspector2.sightings import EC2, LAMBDA, Sighting


def _severity_counts(found: list[Sighting]) -> dict[str, int]:
    counts = Counter(sighting.severity for sighting in found)
    return {"all": len(found), **{name.lower(): counts.get(name, 0) for name in RANK}}


@operation("inspector2", "ListFindingAggregations")
def list_finding_aggregations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Types of resources that this world does not have (repositories, layers, ...) have no rows."""
    kind = params["aggregationType"]
    wanted = params.get("accountIds") or []
    known, machines = seen(ctx)
    active = [
        sighting
        for sighting in known
        if sighting.status == "ACTIVE" and (not wanted or strings_hold(wanted, [sighting.host.account]))
    ]
    request: dict[str, Any] = next(iter((params.get("aggregationRequest") or {}).values()), {})
    keys, row = _KINDS.get(kind, (lambda *_: [], lambda *_: {}))
    groups: dict[tuple[str, str], list[Sighting]] = {}
    for sighting in active:
        if _meant(kind, sighting, request, machines):
            for key in keys(sighting, machines):
                groups.setdefault((key, sighting.host.account), []).append(sighting)
    rows = [row(key, found, machines) for (key, _), found in groups.items() if _named(kind, key, request)]
    by = str(request.get("sortBy", "ALL"))
    rows.sort(key=lambda told: _rank(told, by), reverse=str(request.get("sortOrder", "DESC")) == "DESC")
    page, token = ctx.page(rows, params, default=100, tokens="nextToken", size="maxResults")
    return {"aggregationType": kind, "responses": page, "nextToken": token}


def _rank(told: dict[str, Any], by: str) -> int:
    (row,) = told.values()
    direct = {"AFFECTED_INSTANCES": "affectedInstances", "NETWORK_FINDINGS": "networkFindings"}.get(by)
    return int(row[direct] if direct else row["severityCounts"].get(by.lower(), 0))


def _meant(kind: str, sighting: Sighting, request: dict[str, Any], machines: dict[str, Machine]) -> bool:
    """What the request says of single findings."""
    if request.get("findingType") not in (None, sighting.type):
        return False
    if request.get("resourceType") not in (None, sighting.resource_type):
        return False
    if kind == LAMBDA and not _function_meant(sighting, request):
        return False
    if request.get("scanSources") and "INSTANCE_SCAN" not in str(request["scanSources"]):
        return False
    if request.get("vulnerabilityIds") and not strings_hold(request["vulnerabilityIds"], [sighting.cve.id]):
        return False
    if kind != EC2 or isinstance(sighting.host, Function):
        return True
    machine, host = machines.get(sighting.host.id), sighting.host
    facts = {
        "amis": machine.image if machine else "",
        "operatingSystems": platform_of(host),
        "instanceIds": host.id,
    }
    if any(request.get(name) and not strings_hold(request[name], [fact]) for name, fact in facts.items()):
        return False
    return not request.get("instanceTags") or tags_hold(request["instanceTags"], host.tags())


def _function_meant(sighting: Sighting, request: dict[str, Any]) -> bool:
    function = sighting.host
    if not isinstance(function, Function):
        return False
    facts = {"resourceIds": function.id, "functionNames": function.name, "runtimes": runtime_of(function)}
    if any(request.get(name) and not strings_hold(request[name], [fact]) for name, fact in facts.items()):
        return False
    return not request.get("functionTags") or tags_hold(request["functionTags"], function.tags())


def _named(kind: str, key: str, request: dict[str, Any]) -> bool:
    """What it says of the groups' names."""
    member = {"AMI": "amis", "PACKAGE": "packageNames", "TITLE": "titles"}.get(kind)
    return member is None or not request.get(member) or strings_hold(request[member], [key])


def _more(found: list[Sighting]) -> dict[str, int]:
    return {
        "exploitAvailableCount": sum(sighting.cve.exploited for sighting in found),
        "fixAvailableCount": sum(sighting.fix == "YES" for sighting in found),
    }


def _image(sighting: Sighting, machines: dict[str, Machine]) -> list[str]:
    machine = machines.get(sighting.host.id)
    return [machine.image] if machine else []


def _host_row(key: str, found: list[Sighting], machines: dict[str, Machine]) -> dict[str, Any]:
    host, machine = found[0].host, machines.get(key)
    return {
        "ec2InstanceAggregation": {
            "instanceId": key,
            "accountId": host.account,
            "ami": machine.image if machine else None,
            "operatingSystem": platform_of(host),
            "instanceTags": host.tags(),
            "severityCounts": _severity_counts(found),
            "networkFindings": 0,
        }
    }


def _function_row(key: str, found: list[Sighting], machines: dict[str, Machine]) -> dict[str, Any]:
    function = found[0].host
    return {
        "lambdaFunctionAggregation": {
            "resourceId": key,
            "functionName": function.name,
            "runtime": runtime_of(function) if isinstance(function, Function) else None,
            "lambdaTags": function.tags(),
            "accountId": function.account,
            "severityCounts": _severity_counts(found),
        }
    }


def _image_row(key: str, found: list[Sighting], machines: dict[str, Machine]) -> dict[str, Any]:
    return {
        "amiAggregation": {
            "ami": key,
            "accountId": found[0].host.account,
            "severityCounts": _severity_counts(found),
            "affectedInstances": len({sighting.host.id for sighting in found}),
            "scanSource": "INSTANCE_SCAN",
        }
    }


def _title_row(key: str, found: list[Sighting], machines: dict[str, Machine]) -> dict[str, Any]:
    return {
        "titleAggregation": {
            "title": key,
            "vulnerabilityId": found[0].cve.id,
            "accountId": found[0].host.account,
            "severityCounts": _severity_counts(found),
        }
    }


def _package_row(key: str, found: list[Sighting], machines: dict[str, Machine]) -> dict[str, Any]:
    told = {"packageName": key, "accountId": found[0].host.account, "severityCounts": _severity_counts(found)}
    return {"packageAggregation": told}


def _account_row(key: str, found: list[Sighting], machines: dict[str, Machine]) -> dict[str, Any]:
    return {"accountAggregation": {"accountId": key, "severityCounts": _severity_counts(found), **_more(found)}}


def _type_row(key: str, found: list[Sighting], machines: dict[str, Machine]) -> dict[str, Any]:
    account = found[0].host.account
    return {"findingTypeAggregation": {"accountId": account, "severityCounts": _severity_counts(found), **_more(found)}}


Keys = Callable[[Sighting, dict[str, Machine]], list[str]]
Row = Callable[[str, list[Sighting], dict[str, Machine]], dict[str, Any]]
_KINDS: dict[str, tuple[Keys, Row]] = {
    EC2: (lambda sighting, _: [sighting.host.id] if sighting.resource_type == EC2 else [], _host_row),
    LAMBDA: (lambda sighting, _: [sighting.host.id], _function_row),
    "AMI": (_image, _image_row),
    "ACCOUNT": (lambda sighting, _: [sighting.host.account], _account_row),
    "FINDING_TYPE": (lambda sighting, _: [sighting.type], _type_row),
    "TITLE": (lambda sighting, _: [sighting.title], _title_row),
    "PACKAGE": (lambda sighting, _: sorted({package.name for package in sighting.packages}), _package_row),
}
