"""Inventory of managed nodes (GetInventory, ListInventoryEntries, schemas, custom entries) and resource data syncs.

What a node's software was is read as of its last inventory (`World.last_inventory`), patch data as of its last report; a node
that never reported has no entity, and data older than 30 days is gone.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from awsim import estate_ssm, patching
from awsim.clock import moment
from awsim.host import Host, PatchReport, PatchState
from awsim.registry import AwsError, Context, on_world, operation
from awsim.world import World

DAY = 86_400.0
KEPT = 30 * DAY
SYNC_EVERY = 1_800.0
_SYNCS = 5
_LISTED_BEFORE = "AWS:InstanceInformation"

_SCHEMAS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "AWS:AWSComponent": (
        "1.0",
        "AWS component",
        ("Name", "ApplicationType", "Publisher", "Version", "InstalledTime", "Architecture", "URL"),
    ),
    "AWS:Application": (
        "1.1",
        "Application",
        (
            "Name",
            "ApplicationType",
            "Publisher",
            "Version",
            "Release",
            "Epoch",
            "InstalledTime",
            "Architecture",
            "URL",
            "Summary",
            "PackageId",
        ),
    ),
    "AWS:ComplianceItem": (
        "1.0",
        "Compliance item",
        (
            "ComplianceType",
            "ExecutionId",
            "ExecutionType",
            "ExecutionTime",
            "Id",
            "Title",
            "Status",
            "Severity",
            "DocumentName",
            "DocumentVersion",
            "Classification",
            "PatchBaselineId",
            "PatchSeverity",
            "PatchState",
            "PatchGroup",
            "InstalledTime",
        ),
    ),
    "AWS:InstanceInformation": (
        "1.0",
        "Platform",
        (
            "AgentType",
            "AgentVersion",
            "ComputerName",
            "InstanceId",
            "InstanceStatus",
            "IpAddress",
            "PlatformName",
            "PlatformType",
            "PlatformVersion",
            "ResourceType",
        ),
    ),
    "AWS:Network": ("1.0", "Network", ("Name", "SubnetMask", "Gateway", "DHCPServer", "DNSServer", "MacAddress", "IPV4", "IPV6")),
    "AWS:PatchSummary": (
        "1.0",
        "Patch summary",
        (
            "PatchGroup",
            "BaselineId",
            "SnapshotId",
            "OwnerInformation",
            "InstalledCount",
            "InstalledOtherCount",
            "InstalledPendingRebootCount",
            "InstalledRejectedCount",
            "MissingCount",
            "FailedCount",
            "NotApplicableCount",
            "UnreportedNotApplicableCount",
            "CriticalNonCompliantCount",
            "SecurityNonCompliantCount",
            "OtherNonCompliantCount",
            "OperationType",
            "OperationStartTime",
            "OperationEndTime",
            "InstallOverrideList",
            "RebootOption",
            "LastNoRebootInstallOperationTime",
            "ExecutionId",
        ),
    ),
    "AWS:Tag": ("1.0", "Tag", ("Key", "Value")),
    "AWS:File": ("1.0", "File", ("Name", "Size", "InstalledDate", "ModificationTime", "InstalledDir")),
    "AWS:Service": ("1.0", "Service", ("Name", "DisplayName", "ServiceType", "Status", "StartType")),
    "AWS:WindowsRegistry": ("1.0", "Windows registry", ("ValueType", "KeyPath", "Value", "ValueName")),
    "AWS:WindowsRole": ("1.0", "Windows role", ("Name", "DisplayName", "Description", "InstalledState", "Parent")),
    "AWS:WindowsUpdate": ("1.0", "Windows update", ("HotFixId", "Description", "InstalledTime", "InstalledBy")),
}
_SYNCED = ("AWS:InstanceInformation", "AWS:Application", "AWS:PatchSummary", "AWS:ComplianceItem", "AWS:Tag")

Entry = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """The entries of one type of one node."""

    type: str
    version: str
    captured: float
    entries: list[Entry]


@dataclass(slots=True)
class Custom:
    """What PutInventory stored in a cell: (node, type) -> item."""

    items: dict[tuple[str, str], Item] = field(default_factory=dict)


@dataclass(slots=True)
class Syncs:
    """Resource data syncs of a cell by name."""

    syncs: dict[str, dict[str, Any]] = field(default_factory=dict)


# --- what is known of a node ---


def item(world: World, host: Host, kind: str, now: float) -> Item | None:
    """None: the node never told anything of this type, or too long ago."""
    if host.registered is None or host.registered > now:
        return None
    found = _told(world, host, kind, now)
    return found if found is not None and now - found.captured < KEPT else None


def _told(world: World, host: Host, kind: str, now: float) -> Item | None:
    if kind.startswith("Custom:"):
        return world.state(host.account, host.region, Custom).items.get((host.id, kind))
    version = _SCHEMAS[kind][0]
    if kind == "AWS:InstanceInformation":
        return Item(type=kind, version=version, captured=host.last_ping(now), entries=[_information(host)])
    if kind == "AWS:Tag":
        entries = [{"Key": key, "Value": value} for key, value in sorted(host.tags().items())]
        return Item(type=kind, version=version, captured=host.last_ping(now), entries=entries)
    if kind in ("AWS:PatchSummary", "AWS:ComplianceItem"):
        report = host.report
        if report is None:
            return None
        rows = [_summary(report)] if kind == "AWS:PatchSummary" else _compliance(report)
        return Item(type=kind, version=version, captured=report.uploaded, entries=rows)
    captured = world.last_inventory(host, now)
    if captured is None:
        return None
    makers: dict[str, Callable[[Host, float], list[Entry]]] = {
        "AWS:Application": _applications,
        "AWS:AWSComponent": _components,
        "AWS:Network": _network,
    }
    entries = makers[kind](host, captured) if kind in makers else []
    return Item(type=kind, version=version, captured=captured, entries=entries)


def _platform_type(host: Host) -> str:
    return "Windows" if host.platform.operating_system == "WINDOWS" else "Linux"


def _information(host: Host) -> Entry:
    status = {"running": "Active", "stopped": "Stopped"}.get(host.state, "Terminated")
    return {
        "AgentType": "amazon-ssm-agent",
        "AgentVersion": host.agent_version,
        "ComputerName": f"ip-{host.address.replace('.', '-')}.{host.region}.compute.internal",
        "InstanceId": host.id,
        "InstanceStatus": status,
        "IpAddress": host.address,
        "PlatformName": host.platform.name,
        "PlatformType": _platform_type(host),
        "PlatformVersion": host.platform.version,
        "ResourceType": "EC2Instance",
    }


def _second(at: float) -> str:
    return f"{moment(at):%Y-%m-%dT%H:%M:%SZ}"


def _applications(host: Host, at: float) -> list[Entry]:
    """The packages as they were at the inventory, not as they are now."""
    found = []
    dpkg = host.platform.operating_system in ("UBUNTU", "DEBIAN")
    for name, level in sorted(host.levels_at(at).items()):
        package = host.platform.packages[name]
        epoch, _, rest = package.evr(level).partition(":")
        version, _, release = rest.partition("-") if rest else (epoch, "", "")
        if dpkg:  # its versions are whole, and an epoch of zero is not written
            version, release, epoch = package.evr(level).removeprefix("0:"), "", ""
        since = next(
            (change.at for change in reversed(host.changes) if change.package == name and change.at <= at), host.launched
        )
        found.append(
            {
                "Name": name,
                "ApplicationType": "System Environment/Base",
                "Publisher": host.platform.name,
                "Version": version,
                "Release": release,
                "Epoch": epoch if rest else "0",
                "InstalledTime": _second(since),
                "Architecture": package.arch,
                "URL": "",
                "Summary": f"{name} of {host.platform.name}",
                "PackageId": "" if dpkg else f"{name}-{rest or epoch}.src.rpm",
            }
        )
    for other in host.platform.other_packages:
        name, _, arch = other.rpartition(".")
        found.append(
            {"Name": name, "Version": "1.0", "Architecture": arch, "Publisher": "", "InstalledTime": _second(host.launched)}
        )
    release_entry = _release(host, at)
    return [*found, release_entry] if release_entry else found


def _release(host: Host, at: float) -> Entry | None:
    """AL2023's package `system-release`: the release of the newest update that the host has, or of its image."""
    image = re.search(r"al2023-ami-(\d+\.\d+)\.(\d{8})\.", host.platform.image)
    if image is None:
        return None
    major, day = image.groups()
    for name, level in host.levels_at(at).items():
        if level:
            day = max(day, f"{moment(host.platform.packages[name].updates[level - 1].released):%Y%m%d}")
    return {
        "Name": "system-release",
        "Version": f"{major}.{day}",
        "Release": "0.amzn2023",
        "Epoch": "0",
        "Architecture": "noarch",
        "Publisher": host.platform.name,
        "InstalledTime": _second(host.launched),
        "PackageId": f"system-release-{major}.{day}-0.amzn2023.src.rpm",
    }


def _components(host: Host, at: float) -> list[Entry]:
    return [
        {
            "Name": "amazon-ssm-agent",
            "ApplicationType": "admin",
            "Publisher": "Amazon.com",
            "Version": host.agent_version,
            "InstalledTime": _second(host.launched),
            "Architecture": "x86_64",
            "URL": "http://docs.aws.amazon.com/systems-manager/latest/userguide/what-is-systems-manager.html",
        }
    ]


def _network(host: Host, at: float) -> list[Entry]:
    return [{"Name": "ens5", "IPV4": host.address, "SubnetMask": "", "MacAddress": "", "Gateway": "", "IPV6": ""}]


def _summary(report: PatchReport) -> Entry:
    """Counts are strings in inventory."""
    states = {
        "InstalledCount": PatchState.INSTALLED,
        "InstalledOtherCount": PatchState.INSTALLED_OTHER,
        "InstalledPendingRebootCount": PatchState.PENDING_REBOOT,
        "InstalledRejectedCount": PatchState.REJECTED,
        "MissingCount": PatchState.MISSING,
        "FailedCount": PatchState.FAILED,
        "NotApplicableCount": PatchState.NOT_APPLICABLE,
    }
    last = report.last_no_reboot_install
    return {
        "PatchGroup": report.patch_group,
        "BaselineId": report.baseline_id,
        "SnapshotId": report.snapshot_id,
        "OwnerInformation": "",
        **{name: str(report.count(state)) for name, state in states.items()},
        "UnreportedNotApplicableCount": "0",
        "CriticalNonCompliantCount": str(patching.critical(report)),
        "SecurityNonCompliantCount": str(patching.security(report)),
        "OtherNonCompliantCount": str(patching.other(report)),
        "OperationType": report.operation,
        "OperationStartTime": _second(report.started),
        "OperationEndTime": _second(report.ended),
        "InstallOverrideList": report.install_override_list,
        "RebootOption": report.reboot_option,
        "LastNoRebootInstallOperationTime": _second(last) if last is not None else "",
        "ExecutionId": report.execution_id,
    }


def _compliance(report: PatchReport) -> list[Entry]:
    failing = {row.kb_id for row in report.failing()}
    return [
        {
            "ComplianceType": "Patch",
            "ExecutionId": report.snapshot_id,
            "ExecutionType": "Command",
            "ExecutionTime": _second(report.ended),
            "Id": row.kb_id,
            "Title": row.update.title if row.update else row.kb_id,
            "Status": "NON_COMPLIANT" if row.kb_id in failing else "COMPLIANT",
            "Severity": row.level,
            "DocumentName": "AWS-RunPatchBaseline",
            "DocumentVersion": "1",
            "Classification": row.update.classification if row.update else "",
            "PatchBaselineId": report.baseline_id,
            "PatchSeverity": row.update.severity if row.update else "",
            "PatchState": str(row.state.value),
            "PatchGroup": report.patch_group,
            "InstalledTime": _second(row.installed_at) if row.installed_at else "",
        }
        for row in report.rows
    ]


# --- filters ---


def _split(key: str) -> tuple[str, str]:
    """`AWS:Application.Name` is the attribute Name of AWS:Application."""
    kind, _, attribute = key.rpartition(".")
    if not kind or not kind.startswith(("AWS:", "Custom:")):
        raise AwsError("InvalidFilter", f"The filter name is not valid: {key}; AWS:Application.Name is an example.")
    _check_type(kind)
    if kind in _SCHEMAS and attribute not in _SCHEMAS[kind][2]:
        raise AwsError("InvalidFilter", f"The filter name is not valid: {kind} has no attribute {attribute}.")
    return kind, attribute


def _check_type(kind: str) -> None:
    if kind not in _SCHEMAS and not kind.startswith("Custom:"):
        raise AwsError("InvalidTypeNameException", f"The inventory type {kind} is not valid.")


def _holds(how: str, value: str, wanted: list[str]) -> bool:
    if how == "NotEqual":
        return value not in wanted
    if how == "BeginWith":
        return value.startswith(tuple(wanted))
    if how in ("LessThan", "GreaterThan"):
        return any(_less(value, other) if how == "LessThan" else _less(other, value) for other in wanted)
    return value in wanted


def _less(one: str, other: str) -> bool:
    try:
        return float(one) < float(other)
    except ValueError:
        return one < other


def _entity_matches(world: World, host: Host, filters: list[dict[str, Any]], now: float) -> bool:
    """Filters of one type must be met by one entry of the node; NotEqual by all of them."""
    by_type: dict[str, list[tuple[str, str, list[str]]]] = {}
    for entry in filters:
        how, values = entry.get("Type") or "Equal", entry["Values"]
        if how == "Exists":
            kinds = values if entry["Key"] == "TypeName" else [_split(entry["Key"])[0]]
            for kind in kinds:
                _check_type(kind)
            if not any((found := item(world, host, kind, now)) is not None and found.entries for kind in kinds):
                return False
            continue
        kind, attribute = _split(entry["Key"])
        by_type.setdefault(kind, []).append((attribute, how, values))
    for kind, wanted in by_type.items():
        found = item(world, host, kind, now)
        if found is None:
            return False
        some = [condition for condition in wanted if condition[1] != "NotEqual"]
        none = [condition for condition in wanted if condition[1] == "NotEqual"]
        if some and not any(all(_holds(how, row.get(name, ""), values) for name, how, values in some) for row in found.entries):
            return False
        if any(not _holds(how, row.get(name, ""), values) for name, how, values in none for row in found.entries):
            return False
    return True


# --- operations ---


@operation("ssm", "GetInventory")
def get_inventory(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """One entity a node; without ResultAttributes its instance information only."""
    kinds = [entry["TypeName"] for entry in params.get("ResultAttributes") or []] or [_LISTED_BEFORE]
    for kind in kinds:
        if kind not in _SCHEMAS and not kind.startswith("Custom:"):
            raise AwsError("InvalidResultAttributeException", f"The result attribute {kind} is not valid.")
    hosts = [
        host
        for host in ctx.world.hosts_in(ctx.account, ctx.region)
        if item(ctx.world, host, _LISTED_BEFORE, ctx.at) is not None
        and _entity_matches(ctx.world, host, params.get("Filters") or [], ctx.at)
    ]
    if params.get("Aggregators"):
        return {"Entities": [_aggregated(ctx, hosts, entry) for entry in params["Aggregators"]]}
    page, token = ctx.page(hosts, params, default=50)
    return {"Entities": [_entity(ctx, host, kinds) for host in page], "NextToken": token}


def _entity(ctx: Context, host: Host, kinds: Iterable[str]) -> dict[str, Any]:
    data = {}
    for kind in kinds:
        found = item(ctx.world, host, kind, ctx.at)
        if found is not None:
            data[kind] = {
                "TypeName": kind,
                "SchemaVersion": found.version,
                "CaptureTime": _second(found.captured),
                "Content": found.entries,
            }
    return {"Id": host.id, "Data": data}


def _aggregated(ctx: Context, hosts: list[Host], aggregator: dict[str, Any]) -> dict[str, Any]:
    if aggregator.get("Groups"):
        data = {}
        for group in aggregator["Groups"]:
            matching = sum(_entity_matches(ctx.world, host, group["Filters"], ctx.at) for host in hosts)
            data[group["Name"]] = {
                "TypeName": "",
                "SchemaVersion": "",
                "Content": [{"notMatchingCount": str(len(hosts) - matching)}, {"matchingCount": str(matching)}],
            }
        return {"Data": data}
    path: list[tuple[str, str]] = []
    level: dict[str, Any] | None = aggregator
    while level is not None:
        expression = level.get("Expression") or ""
        try:
            path.append(_split(expression))
        except AwsError as wrong:
            raise AwsError(
                "InvalidAggregatorException", f"The aggregator {expression!r} is not valid: {wrong.message}"
            ) from wrong
        level = next(iter(level.get("Aggregators") or []), None)
    counts: Counter[tuple[str, ...]] = Counter()
    for host in hosts:
        kinds = list(dict.fromkeys(kind for kind, _ in path))
        found = [item(ctx.world, host, kind, ctx.at) for kind in kinds]
        for rows in product(*([] if one is None else one.entries for one in found)):
            by_kind = dict(zip(kinds, rows, strict=True))
            counts[tuple(by_kind[kind].get(name, "").lower() for kind, name in path)] += 1
    names = [name for _, name in path]
    content = [{"Count": str(number), **dict(zip(names, key, strict=True))} for key, number in counts.most_common()]
    root = path[0][0]
    return {"Data": {root: {"TypeName": root, "SchemaVersion": _SCHEMAS.get(root, ("1.0",))[0], "Content": content}}}


@operation("ssm", "ListInventoryEntries")
def list_inventory_entries(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    host = ctx.world.host(ctx.account, ctx.region, params["InstanceId"])
    if host is None or host.registered is None:
        raise AwsError(
            "InvalidInstanceId", f"Instances [[{params['InstanceId']}]] not in a valid state for account {ctx.account}"
        )
    kind = params["TypeName"]
    _check_type(kind)
    found = item(ctx.world, host, kind, ctx.at)
    rows = found.entries if found is not None else []
    for entry in params.get("Filters") or []:
        key, how = entry["Key"], entry.get("Type") or "Equal"
        if "." in key:
            of, key = _split(key)
            if of != kind:
                raise AwsError("InvalidFilter", f"The filter name is not valid: {entry['Key']} is not of {kind}.")
        elif kind in _SCHEMAS and key not in _SCHEMAS[kind][2]:
            raise AwsError("InvalidFilter", f"The filter name is not valid: {kind} has no attribute {key}.")
        rows = [row for row in rows if (key in row if how == "Exists" else _holds(how, row.get(key, ""), entry["Values"]))]
    page, token = ctx.page(rows, params, default=50)
    return {
        "TypeName": kind,
        "InstanceId": host.id,
        "SchemaVersion": found.version if found is not None else None,
        "CaptureTime": _second(found.captured) if found is not None else None,
        "Entries": page,
        "NextToken": token,
    }


@operation("ssm", "GetInventorySchema")
def get_inventory_schema(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = params.get("TypeName") or ""
    custom: dict[str, set[str]] = {}
    for (_, kind), stored in ctx.state(Custom).items.items():
        custom.setdefault(kind, set()).update(name for row in stored.entries for name in row)
    every = {**_SCHEMAS, **{kind: ("1.0", kind, tuple(sorted(names))) for kind, names in sorted(custom.items()) if names}}
    if wanted and wanted not in every:
        raise AwsError("InvalidTypeNameException", f"The inventory type {wanted} is not valid.")
    rows = [
        {
            "TypeName": kind,
            "Version": version,
            "DisplayName": title,
            "Attributes": [{"Name": name, "DataType": "STRING"} for name in names],
        }
        for kind, (version, title, names) in every.items()
        if wanted in ("", kind)
    ]
    page, token = ctx.page(rows, params, default=200)
    return {"Schemas": page, "NextToken": token}


@operation("ssm", "PutInventory")
def put_inventory(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Custom types; those of AWS are the agent's to write."""
    host = ctx.world.host(ctx.account, ctx.region, params["InstanceId"])
    if host is None or host.registered is None:
        raise AwsError(
            "InvalidInstanceId", f"Instances [[{params['InstanceId']}]] not in a valid state for account {ctx.account}"
        )
    for entry in params["Items"]:
        kind = entry["TypeName"]
        if not kind.startswith("Custom:"):
            raise AwsError("InvalidTypeNameException", f"The inventory type {kind} is not one that callers may write.")
        rows = [dict(row) for row in entry.get("Content") or []]
        if len({frozenset(row) for row in rows}) > 1:
            raise AwsError("ItemContentMismatchException", "All entries of an item must have the same keys.", TypeName=kind)
    for entry in params["Items"]:
        ctx.state(Custom).items[host.id, entry["TypeName"]] = Item(
            type=entry["TypeName"],
            version=entry["SchemaVersion"],
            captured=ctx.at,
            entries=[dict(row) for row in entry.get("Content") or []],
        )
    return {"Message": ""}


# --- resource data syncs ---


@operation("ssm", "CreateResourceDataSync")
def create_resource_data_sync(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """To a bucket (the data arrives there as objects of JSON lines), or from other accounts and regions."""
    state = ctx.state(Syncs)
    name, kind = params["SyncName"], params.get("SyncType") or "SyncToDestination"
    if name in state.syncs:
        raise AwsError("ResourceDataSyncAlreadyExistsException", SyncName=name)
    if len(state.syncs) >= _SYNCS:
        raise AwsError("ResourceDataSyncCountExceededException", f"An account has at most {_SYNCS} resource data syncs a region.")
    _check_sync(kind, params)
    to_bucket = kind == "SyncToDestination"
    state.syncs[name] = {
        "SyncName": name,
        "SyncType": kind,
        "SyncSource": {**params["SyncSource"], "State": "CREATED"} if params.get("SyncSource") else None,
        "S3Destination": params.get("S3Destination") if to_bucket else None,
        "SyncCreatedTime": moment(ctx.at),
        "LastStatus": "InProgress",
    }
    world, account, region, made = ctx.world, ctx.account, ctx.region, state.syncs[name]
    world.at(ctx.at + 60, lambda _: _sync(world, account, region, made, again=True))
    return {}


def _check_sync(kind: str, params: dict[str, Any]) -> None:
    wrong = ""
    if kind not in ("SyncToDestination", "SyncFromSource"):
        wrong = f"SyncType: {kind!r} is not SyncToDestination or SyncFromSource."
    elif kind == "SyncToDestination" and not params.get("S3Destination"):
        wrong = "S3Destination is required for SyncToDestination."
    elif kind == "SyncFromSource" and not params.get("SyncSource"):
        wrong = "SyncSource is required for SyncFromSource."
    elif kind == "SyncToDestination" and not estate_ssm.has_bucket(params["S3Destination"]["BucketName"]):
        wrong = f"S3 write failed for bucket: {params['S3Destination']['BucketName']}"
    source = params.get("SyncSource") or {}
    if source and source.get("SourceType") not in ("AwsOrganizations", "SingleAccountMultiRegions"):
        wrong = f"SourceType: {source.get('SourceType')!r} is not AwsOrganizations or SingleAccountMultiRegions."
    if wrong:
        raise AwsError("ResourceDataSyncInvalidConfigurationException", wrong)


def _sync(world: World, account: str, region: str, sync: dict[str, Any], *, again: bool, only: Host | None = None) -> None:
    """Write what the nodes told; `only`: of one node, whose patch data has just arrived."""
    if world.state(account, region, Syncs).syncs.get(sync["SyncName"]) is not sync:
        return
    target = sync["S3Destination"]
    sync["LastSyncTime"] = moment(world.now)
    if target is not None and not estate_ssm.has_bucket(target["BucketName"]):
        sync["LastStatus"], sync["LastSyncStatusMessage"] = "Failed", f"S3 write failed for bucket: {target['BucketName']}"
    else:
        for host in [only] if only is not None else world.hosts_in(account, region) if target is not None else []:
            for kind in _SYNCED:
                _write(world, host, kind, target)
        sync["LastStatus"], sync["LastSuccessfulSyncTime"] = "Successful", moment(world.now)
        sync["LastSyncStatusMessage"] = "The sync was successfully completed"
    if again:
        world.at(world.now + SYNC_EVERY, lambda _: _sync(world, account, region, sync, again=True))


def _write(world: World, host: Host, kind: str, target: dict[str, Any]) -> None:
    found = item(world, host, kind, world.now)
    if found is None:
        return
    facts = {"resourceId": host.id, "captureTime": _second(found.captured), "schemaVersion": found.version}
    prefix = f"{target['Prefix'].strip('/')}/" if target.get("Prefix") else ""
    key = f"{prefix}{kind}/accountid={host.account}/region={host.region}/resourcetype=ManagedInstanceInventory/{host.id}.json"
    lines = "".join(json.dumps({**row, **facts}) + "\n" for row in found.entries)
    estate_ssm.put_object(host.account, target["BucketName"], key, lines.encode())


@on_world
def attach(world: World) -> None:
    """Patch data reaches the buckets of syncs as soon as it is uploaded."""

    def reported(host: Host, report: PatchReport) -> None:
        for sync in world.state(host.account, host.region, Syncs).syncs.values():
            if sync["S3Destination"] is not None:
                _sync(world, host.account, host.region, sync, again=False, only=host)

    world.on_report(reported)


@operation("ssm", "ListResourceDataSync")
def list_resource_data_sync(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kind = params.get("SyncType")
    if kind not in (None, "SyncToDestination", "SyncFromSource"):
        raise AwsError(
            "ResourceDataSyncInvalidConfigurationException", f"SyncType: {kind!r} is not SyncToDestination or SyncFromSource."
        )
    rows = [sync for sync in ctx.state(Syncs).syncs.values() if kind in (None, sync["SyncType"])]
    page, token = ctx.page(rows, params, default=50)
    return {"ResourceDataSyncItems": page, "NextToken": token}


def _found_sync(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = ctx.state(Syncs).syncs.get(params["SyncName"])
    if found is None or params.get("SyncType") not in (None, found["SyncType"]):
        raise AwsError(
            "ResourceDataSyncNotFoundException",
            "The specified sync name wasn't found.",
            SyncName=params["SyncName"],
            SyncType=params.get("SyncType"),
        )
    return found


@operation("ssm", "UpdateResourceDataSync")
def update_resource_data_sync(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Of a sync from sources."""
    found = _found_sync(ctx, params)
    if found["SyncType"] != "SyncFromSource":
        raise AwsError("ResourceDataSyncInvalidConfigurationException", "Only a SyncFromSource can be updated.")
    _check_sync("SyncFromSource", params)
    found["SyncSource"] = {**params["SyncSource"], "State": "UPDATED"}
    found["SyncLastModifiedTime"] = moment(ctx.at)
    return {}


@operation("ssm", "DeleteResourceDataSync")
def delete_resource_data_sync(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """What it has written stays."""
    del ctx.state(Syncs).syncs[_found_sync(ctx, params)["SyncName"]]
    return {}
