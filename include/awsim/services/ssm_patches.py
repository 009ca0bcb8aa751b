"""SSM Patch Manager: patch states and patches of nodes, patch groups, and what baselines say.

Reading a baseline, and registering it for a group, is answered here; the rest of their life in `ssm_baselines`.
"""

import operator
from datetime import UTC, datetime
from typing import Any

from awsim import baselines, estate, patching
from awsim.clock import moment
from awsim.host import Host, PatchReport, PatchRow, PatchState
from awsim.registry import AwsError, Context, operation
from awsim.services import ssm_baselines

_COUNTS = {
    "InstalledCount": PatchState.INSTALLED,
    "InstalledOtherCount": PatchState.INSTALLED_OTHER,
    "InstalledPendingRebootCount": PatchState.PENDING_REBOOT,
    "InstalledRejectedCount": PatchState.REJECTED,
    "MissingCount": PatchState.MISSING,
    "FailedCount": PatchState.FAILED,
    "NotApplicableCount": PatchState.NOT_APPLICABLE,
}
_COMPARE = {"Equal": operator.eq, "NotEqual": operator.ne, "LessThan": operator.lt, "GreaterThan": operator.gt}


@operation("ssm", "DescribeInstancePatchStates")
def describe_instance_patch_states(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """No row for a node that never reported, and no error for an unknown id."""
    hosts = [ctx.world.host(ctx.account, ctx.region, identifier) for identifier in dict.fromkeys(params["InstanceIds"])]
    rows = [_state(host, host.report) for host in hosts if host is not None and host.report is not None]
    page, token = ctx.page(rows, params, default=50)
    return {"InstancePatchStates": page, "NextToken": token}


@operation("ssm", "DescribeInstancePatchStatesForPatchGroup")
def describe_instance_patch_states_for_patch_group(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The group is the one that the node reported at its last run, not its tag of now."""
    reported = _reported(ctx, params["PatchGroup"])
    rows = [_state(host, report) for host, report in reported]
    for entry in params.get("Filters") or []:
        rows = [row for row in rows if _counts(row, entry)]
    page, token = ctx.page(rows, params, default=50)
    return {"InstancePatchStates": page, "NextToken": token}


def _reported(ctx: Context, group: str) -> list[tuple[Host, PatchReport]]:
    hosts = [host for host in ctx.world.hosts_in(ctx.account, ctx.region) if host.state != "terminated"]
    return [(host, host.report) for host in hosts if host.report is not None and host.report.patch_group == group]


def _counts(row: dict[str, Any], entry: dict[str, Any]) -> bool:
    key, values = entry["Key"], entry["Values"]
    if key not in row or not key.endswith("Count"):
        raise AwsError("InvalidFilter", f"The filter name is not valid: {key}")
    if len(values) != 1 or not values[0].lstrip("-").isdigit():
        raise AwsError("InvalidFilter", f"{key}: exactly one whole number is allowed, not {values}")
    return bool(_COMPARE[entry["Type"]](row[key], int(values[0])))


@operation("ssm", "DescribeInstancePatches")
def describe_instance_patches(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    host = ctx.world.host(ctx.account, ctx.region, params["InstanceId"])
    if host is None or host.registered is None:
        raise AwsError(
            "InvalidInstanceId", f"Instances [[{params['InstanceId']}]] not in a valid state for account {ctx.account}"
        )
    rows = [_patch(row) for row in host.report.rows] if host.report else []
    for entry in params.get("Filters") or []:
        key = entry.get("Key")
        if key not in ("Classification", "KBId", "Severity", "State"):
            raise AwsError("InvalidFilter", f"The filter name is not valid: {key}")
        rows = [row for row in rows if row[key] in (entry.get("Values") or [])]
    page, token = ctx.page(rows, params, default=50)
    return {"Patches": page, "NextToken": token}


@operation("ssm", "DescribePatchGroups")
def describe_patch_groups(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"PatchGroup": group, "BaselineIdentity": _identity(ctx, identifier)}
        for group, systems in sorted(estate.patch_groups(ctx.account, ctx.region).items())
        for _, identifier in sorted(systems.items())
    ]
    for entry in params.get("Filters") or []:
        key, values = entry.get("Key"), entry.get("Values") or []
        if key == "NAME_PREFIX":
            rows = [row for row in rows if any(row["PatchGroup"].startswith(value) for value in values)]
        elif key == "OPERATING_SYSTEM":
            rows = [row for row in rows if row["BaselineIdentity"]["OperatingSystem"] in values]
        else:
            raise AwsError("ValidationException", f"Filters: key {key!r} is not NAME_PREFIX or OPERATING_SYSTEM")
    page, token = ctx.page(rows, params, default=50)
    return {"Mappings": page, "NextToken": token}


def _identity(ctx: Context, identifier: str) -> dict[str, Any]:
    found = baselines.find(ctx.account, ctx.region, identifier)
    if found is None:
        return {"BaselineId": identifier}
    return {
        "BaselineId": found.id,
        "BaselineName": found.name,
        "OperatingSystem": found.operating_system,
        "BaselineDescription": _text(found, "BaselineDescription", "Description"),
        "DefaultBaseline": bool(found.definition.get("DefaultBaseline")),
    }


@operation("ssm", "DescribePatchGroupState")
def describe_patch_group_state(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    reports = [report for _, report in _reported(ctx, params["PatchGroup"])]
    counts = {
        "InstancesWithInstalledPatches": PatchState.INSTALLED,
        "InstancesWithInstalledOtherPatches": PatchState.INSTALLED_OTHER,
        "InstancesWithInstalledPendingRebootPatches": PatchState.PENDING_REBOOT,
        "InstancesWithInstalledRejectedPatches": PatchState.REJECTED,
        "InstancesWithMissingPatches": PatchState.MISSING,
        "InstancesWithFailedPatches": PatchState.FAILED,
        "InstancesWithNotApplicablePatches": PatchState.NOT_APPLICABLE,
    }
    return {
        "Instances": len(reports),
        **{name: sum(report.count(state) > 0 for report in reports) for name, state in counts.items()},
        "InstancesWithUnreportedNotApplicablePatches": 0,
        "InstancesWithCriticalNonCompliantPatches": sum(patching.critical(report) > 0 for report in reports),
        "InstancesWithSecurityNonCompliantPatches": sum(patching.security(report) > 0 for report in reports),
        "InstancesWithOtherNonCompliantPatches": sum(patching.other(report) > 0 for report in reports),
        "InstancesWithAvailableSecurityUpdates": 0,
    }


@operation("ssm", "GetPatchBaseline")
def get_patch_baseline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = baselines.find(ctx.account, ctx.region, params["BaselineId"])
    if found is None:
        raise AwsError("DoesNotExistException", f"Baseline {params['BaselineId']} does not exist.")
    return {**ssm_baselines.told(ctx, found), "PatchGroups": estate.baseline_groups(ctx.account, ctx.region, found.id)}


def _text(found: baselines.Baseline, *names: str) -> str:
    return next((str(found.definition[name]) for name in names if found.definition.get(name)), "")


@operation("ssm", "GetPatchBaselineForPatchGroup")
def get_patch_baseline_for_patch_group(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    system = params.get("OperatingSystem") or "WINDOWS"
    found = baselines.for_node(ctx.account, ctx.region, params["PatchGroup"], system)
    return {"BaselineId": found.id, "PatchGroup": params["PatchGroup"], "OperatingSystem": system}


@operation("ssm", "RegisterPatchBaselineForPatchGroup")
def register_patch_baseline_for_patch_group(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """moto refuses a second operating system for a group; AWS takes one baseline an operating system."""
    found = baselines.find(ctx.account, ctx.region, params["BaselineId"])
    if found is None:
        raise AwsError("DoesNotExistException", f"Maintenance window {params['BaselineId']} does not exist")
    registered = estate.patch_groups(ctx.account, ctx.region).get(params["PatchGroup"], {}).get(found.operating_system)
    if registered not in (None, found.id):
        message = f"Patch Group baseline already has a baseline registered for OperatingSystem {found.operating_system}."
        raise AwsError("AlreadyExistsException", message)
    estate.register_group(ctx.account, ctx.region, params["PatchGroup"], found.operating_system, found.id)
    return {"BaselineId": found.id, "PatchGroup": params["PatchGroup"]}


def _state(host: Host, report: PatchReport) -> dict[str, Any]:
    last = report.last_no_reboot_install
    return {
        "InstanceId": host.id,
        "PatchGroup": report.patch_group,
        "BaselineId": report.baseline_id,
        "SnapshotId": report.snapshot_id,
        "InstallOverrideList": report.install_override_list or None,
        "OwnerInformation": "",
        **{name: report.count(state) for name, state in _COUNTS.items()},
        "UnreportedNotApplicableCount": 0,
        "AvailableSecurityUpdateCount": 0,
        "CriticalNonCompliantCount": patching.critical(report),
        "SecurityNonCompliantCount": patching.security(report),
        "OtherNonCompliantCount": patching.other(report),
        "OperationStartTime": moment(report.started),
        "OperationEndTime": moment(report.ended),
        "Operation": report.operation,
        "LastNoRebootInstallOperationTime": moment(last) if last is not None else None,
        "RebootOption": report.reboot_option,
    }


def _patch(row: PatchRow) -> dict[str, Any]:
    update = row.update
    return {
        "Title": update.title if update else "",
        "KBId": row.kb_id,
        "Classification": update.classification if update else "",
        "Severity": update.severity if update else "",
        "State": row.state.value,
        "InstalledTime": moment(row.installed_at) if row.installed_at else datetime(1970, 1, 1, tzinfo=UTC),
        "CVEIds": ",".join(row.cves) if row.cves else None,
    }
