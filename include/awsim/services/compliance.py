"""What does Systems Manager's compliance say: per host, per item, in all?

Type `Patch` is read from each host's last patch report; `Custom:*` is what callers put. A host that is absent never reported:
nobody knows, which is not the same as compliant.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from awsim.clock import iso, moment
from awsim.host import Host, PatchReport, PatchRow
from awsim.registry import AwsError, Context, operation
from awsim.world import World

MANAGED = "ManagedInstance"
Row = TypeVar("Row")
_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNSPECIFIED")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One compliance item of a resource."""

    type: str
    resource: str
    id: str
    title: str
    compliant: bool
    severity: str
    executed: float
    execution_id: str
    execution_type: str
    details: dict[str, str]

    @property
    def status(self) -> str:
        return "COMPLIANT" if self.compliant else "NON_COMPLIANT"


@dataclass(slots=True)
class Custom:
    """What PutComplianceItems stored in a cell: resource and type -> its items."""

    items: dict[tuple[str, str], list[Item]] = field(default_factory=dict)


# --- items ---


def _patch_items(host: Host, report: PatchReport) -> list[Item]:
    failing = {row.kb_id for row in report.failing()}
    return [_patch_item(host, report, row, row.kb_id not in failing) for row in report.rows]


def _patch_item(host: Host, report: PatchReport, row: PatchRow, compliant: bool) -> Item:
    update = row.update
    details = {
        "DocumentName": "AWS-RunPatchBaseline",
        "DocumentVersion": "1",
        "PatchBaselineId": report.baseline_id,
        "PatchGroup": report.patch_group,
        "PatchState": str(row.state.value),
        "PatchSeverity": update.severity if update else "",
        "Classification": update.classification if update else "",
        "InstalledTime": iso(row.installed_at) if row.installed_at else "",
        "CVEIds": ",".join(row.cves),
    }
    return Item(
        type="Patch",
        resource=host.id,
        id=row.kb_id,
        title=update.title if update else row.kb_id,
        compliant=compliant,
        severity=_severity(row),
        executed=report.ended,
        execution_id=report.snapshot_id,
        execution_type="Command",
        details={key: value for key, value in details.items() if value},
    )


def _severity(row: PatchRow) -> str:
    return row.level if row.level in _SEVERITIES else "UNSPECIFIED"


def _reported(world: World, account: str, region: str) -> list[tuple[Host, PatchReport]]:
    return [
        (host, host.report) for host in world.hosts_in(account, region) if host.report is not None and host.state != "terminated"
    ]


# --- filters ---


def _holds(how: str, value: str, wanted: list[str]) -> bool:
    if how == "NOT_EQUAL":
        return value not in wanted
    if how == "BEGIN_WITH":
        return value.startswith(tuple(wanted))
    if how == "LESS_THAN":
        return any(value < other for other in wanted)
    if how == "GREATER_THAN":
        return any(value > other for other in wanted)
    return value in wanted


def _filtered(rows: list[Row], params: dict[str, Any], facts: dict[str, Callable[[Row], str]]) -> list[Row]:
    """Filters are ANDed, their values ORed.

    Raises:
        AwsError: a key that the operation does not have.
    """
    for wanted in params.get("Filters") or []:
        key, values = wanted.get("Key", ""), wanted.get("Values") or []
        fact = facts.get(key)
        if fact is None or not values:
            raise AwsError(
                "InvalidFilter", f"The filter {key!r} is not valid. Valid keys: {', '.join(sorted(facts))}, with 1-20 values."
            )
        rows = [row for row in rows if _holds(wanted.get("Type") or "EQUAL", fact(row), values)]
    return rows


# --- operations ---


def _severities(counts: Counter[str]) -> dict[str, int]:
    return {f"{name.title()}Count": counts.get(name, 0) for name in _SEVERITIES}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Summary:
    """The compliance of one resource in one type."""

    type: str
    resource: str
    executed: float
    execution_id: str
    execution_type: str
    good: Counter[str]
    bad: Counter[str]

    @property
    def status(self) -> str:
        return "NON_COMPLIANT" if self.bad.total() else "COMPLIANT"

    @property
    def severity(self) -> str:
        """The worst of what is not compliant."""
        return next((name for name in _SEVERITIES if self.bad.get(name)), "UNSPECIFIED")


def _patch_summary(host: Host, report: PatchReport) -> _Summary:
    bad = Counter(_severity(row) for row in report.failing())
    good = Counter(_severity(row) for row in report.rows)
    good.subtract(bad)
    return _Summary(
        type="Patch",
        resource=host.id,
        executed=report.ended,
        execution_id=report.snapshot_id,
        execution_type="Command",
        good=good,
        bad=bad,
    )


def _summaries(world: World, account: str, region: str) -> list[_Summary]:
    found = [_patch_summary(host, report) for host, report in _reported(world, account, region)]
    for (resource, kind), items in world.state(account, region, Custom).items.items():
        if items:
            found.append(
                _Summary(
                    type=kind,
                    resource=resource,
                    executed=items[0].executed,
                    execution_id=items[0].execution_id,
                    execution_type=items[0].execution_type,
                    good=Counter(item.severity for item in items if item.compliant),
                    bad=Counter(item.severity for item in items if not item.compliant),
                )
            )
    return found


_SUMMARY_FACTS: dict[str, Callable[[_Summary], str]] = {
    "ComplianceType": lambda row: row.type,
    "Status": lambda row: row.status,
    "OverallSeverity": lambda row: row.severity,
    "ResourceType": lambda _: MANAGED,
    "ResourceId": lambda row: row.resource,
    "ExecutionTime": lambda row: iso(row.executed),
    "ExecutionId": lambda row: row.execution_id,
    "ExecutionType": lambda row: row.execution_type,
}


@operation("ssm", "ListResourceComplianceSummaries")
def list_resource_compliance_summaries(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = _filtered(_summaries(ctx.world, ctx.account, ctx.region), params, _SUMMARY_FACTS)
    page, token = ctx.page(rows, params, default=50)
    return {
        "ResourceComplianceSummaryItems": [
            {
                "ComplianceType": row.type,
                "ResourceType": MANAGED,
                "ResourceId": row.resource,
                "Status": row.status,
                "OverallSeverity": row.severity,
                "ExecutionSummary": {
                    "ExecutionTime": moment(row.executed),
                    "ExecutionId": row.execution_id or None,
                    "ExecutionType": row.execution_type or None,
                },
                "CompliantSummary": {"CompliantCount": row.good.total(), "SeveritySummary": _severities(row.good)},
                "NonCompliantSummary": {"NonCompliantCount": row.bad.total(), "SeveritySummary": _severities(row.bad)},
            }
            for row in page
        ],
        "NextToken": token,
    }


@operation("ssm", "ListComplianceSummaries")
def list_compliance_summaries(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Resources, counted per type; a non-compliant one by its worst severity."""
    found = _filtered(_summaries(ctx.world, ctx.account, ctx.region), params, _SUMMARY_FACTS)
    rows = []
    for kind in dict.fromkeys(row.type for row in found):
        good = Counter(row.severity for row in found if row.type == kind and row.status == "COMPLIANT")
        bad = Counter(row.severity for row in found if row.type == kind and row.status == "NON_COMPLIANT")
        rows.append(
            {
                "ComplianceType": kind,
                "CompliantSummary": {"CompliantCount": good.total(), "SeveritySummary": _severities(good)},
                "NonCompliantSummary": {"NonCompliantCount": bad.total(), "SeveritySummary": _severities(bad)},
            }
        )
    page, token = ctx.page(rows, params, default=50)
    return {"ComplianceSummaryItems": page, "NextToken": token}


_ITEM_FACTS: dict[str, Callable[[Item], str]] = {
    "ComplianceType": lambda item: item.type,
    "Status": lambda item: item.status,
    "Severity": lambda item: item.severity,
    "Id": lambda item: item.id,
    "Title": lambda item: item.title,
    "ExecutionTime": lambda item: iso(item.executed),
    "ExecutionId": lambda item: item.execution_id,
    "ExecutionType": lambda item: item.execution_type,
    "PatchState": lambda item: item.details.get("PatchState", ""),
    "PatchGroup": lambda item: item.details.get("PatchGroup", ""),
    "PatchSeverity": lambda item: item.details.get("PatchSeverity", ""),
    "Classification": lambda item: item.details.get("Classification", ""),
}


@operation("ssm", "ListComplianceItems")
def list_compliance_items(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kinds = params.get("ResourceTypes") or [MANAGED]
    wrong = [kind for kind in kinds if kind != MANAGED]
    if wrong:
        raise AwsError("InvalidResourceType", f"The resource type {', '.join(wrong)} is not valid; {MANAGED} is.")
    identifiers = params.get("ResourceIds") or []
    known = {host.id: (host, report) for host, report in _reported(ctx.world, ctx.account, ctx.region)}
    custom = ctx.state(Custom).items
    items: list[Item] = []
    for identifier in identifiers:
        if ctx.world.host(ctx.account, ctx.region, identifier) is None:
            raise AwsError("InvalidResourceId", f"The resource id {identifier} is not valid.")
        items.extend(_patch_items(*known[identifier]) if identifier in known else [])
        items.extend(item for (resource, _), stored in custom.items() if resource == identifier for item in stored)
    page, token = ctx.page(_filtered(items, params, _ITEM_FACTS), params, default=50)
    return {"ComplianceItems": [_item_row(item) for item in page], "NextToken": token}


def _item_row(item: Item) -> dict[str, Any]:
    return {
        "ComplianceType": item.type,
        "ResourceType": MANAGED,
        "ResourceId": item.resource,
        "Id": item.id,
        "Title": item.title,
        "Status": item.status,
        "Severity": item.severity,
        "ExecutionSummary": {
            "ExecutionTime": moment(item.executed),
            "ExecutionId": item.execution_id or None,
            "ExecutionType": item.execution_type or None,
        },
        "Details": item.details,
    }


@operation("ssm", "PutComplianceItems")
def put_compliance_items(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    resource, kind = params["ResourceId"], params["ComplianceType"]
    if params["ResourceType"] != MANAGED:
        raise AwsError("InvalidResourceType", f"The resource type {params['ResourceType']} is not valid; {MANAGED} is.")
    if ctx.world.host(ctx.account, ctx.region, resource) is None:
        raise AwsError("InvalidResourceId", f"The resource id {resource} is not valid.")
    if not kind.startswith("Custom:"):
        raise AwsError(
            "InvalidItemContentException", "Callers may put compliance types that begin with Custom: only.", TypeName=kind
        )
    summary = params["ExecutionSummary"]
    when = summary["ExecutionTime"]
    executed = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() if isinstance(when, datetime) else float(when)
    ctx.state(Custom).items[resource, kind] = [
        Item(
            type=kind,
            resource=resource,
            id=entry.get("Id", ""),
            title=entry.get("Title", ""),
            compliant=entry["Status"] == "COMPLIANT",
            severity=entry["Severity"],
            executed=executed,
            execution_id=summary.get("ExecutionId", ""),
            execution_type=summary.get("ExecutionType", ""),
            details=dict(entry.get("Details") or {}),
        )
        for entry in params["Items"]
    ]
    return {}
