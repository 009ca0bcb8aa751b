"""SSM patch baselines: create, list, change, delete, defaults, what one approves, which patches exist, the snapshot of a node.

The baselines themselves live in moto (`estate_ssm`); reading one and registering it for a group is in `ssm_patches`.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from awsim import baselines, estate, estate_ssm
from awsim.agenda import call
from awsim.catalogue import Platform, Update
from awsim.clock import moment
from awsim.registry import AwsError, Context, operation

SNAPSHOT_URL_LIFE = 86_400
LISTED_SYSTEMS = ("WINDOWS", "AMAZON_LINUX", "AMAZON_LINUX_2")
"""DescribeAvailablePatches knows the patches of these operating systems only."""

_AMAZON = ["Security", "Bugfix", "Enhancement", "Recommended", "Newpackage"]
_AMAZON_SEVERITIES = ["Critical", "Important", "Medium", "Low"]
_RED_HAT_SEVERITIES = ["Critical", "Important", "Moderate", "Low", "None"]
_DEBIAN_PRIORITIES = ["Required", "Important", "Standard", "Optional", "Extra"]
_WINDOWS = [
    "CriticalUpdates",
    "DefinitionUpdates",
    "Drivers",
    "FeaturePacks",
    "SecurityUpdates",
    "ServicePacks",
    "Tools",
    "UpdateRollups",
    "Updates",
    "Upgrades",
]
_RED_HAT_PRODUCTS = {
    "REDHAT_ENTERPRISE_LINUX": [
        "RedhatEnterpriseLinux7.9",
        *(f"RedhatEnterpriseLinux8.{minor}" for minor in range(11)),
        *(f"RedhatEnterpriseLinux9.{minor}" for minor in range(7)),
    ],
    "CENTOS": ["CentOS7.9", "CentOS8"],
    "ORACLE_LINUX": ["OracleLinux7.9", "OracleLinux8.9", "OracleLinux9.3"],
    "ROCKY_LINUX": ["RockyLinux8.9", "RockyLinux9.3"],
    "ALMA_LINUX": ["AlmaLinux8.9", "AlmaLinux9.3"],
}
PROPERTIES: dict[str, dict[str, list[str]]] = {
    "AMAZON_LINUX": {
        "PRODUCT": [
            *(f"AmazonLinux{year}.{month}" for year in range(2012, 2018) for month in ("03", "09")),
            "AmazonLinux2018.03",
        ],
        "CLASSIFICATION": _AMAZON,
        "SEVERITY": _AMAZON_SEVERITIES,
    },
    "AMAZON_LINUX_2": {
        "PRODUCT": ["AmazonLinux2", "AmazonLinux2.0"],
        "CLASSIFICATION": _AMAZON,
        "SEVERITY": _AMAZON_SEVERITIES,
    },
    "AMAZON_LINUX_2022": {"PRODUCT": ["AmazonLinux2022"], "CLASSIFICATION": _AMAZON, "SEVERITY": _AMAZON_SEVERITIES},
    "AMAZON_LINUX_2023": {"PRODUCT": ["AmazonLinux2023"], "CLASSIFICATION": _AMAZON, "SEVERITY": _AMAZON_SEVERITIES},
    **{
        system: {"PRODUCT": products, "CLASSIFICATION": _AMAZON, "SEVERITY": _RED_HAT_SEVERITIES}
        for system, products in _RED_HAT_PRODUCTS.items()
    },
    "SUSE": {
        "PRODUCT": ["SUSE12.5", "SUSE15.4", "SUSE15.5", "SUSE15.6"],
        "CLASSIFICATION": ["Security", "Recommended", "Optional", "Feature", "Document", "Yast"],
        "SEVERITY": ["Critical", "Important", "Moderate", "Low"],
    },
    "UBUNTU": {"PRODUCT": ["Ubuntu18.04", "Ubuntu20.04", "Ubuntu22.04", "Ubuntu24.04"], "PRIORITY": _DEBIAN_PRIORITIES},
    "DEBIAN": {"PRODUCT": ["Debian11", "Debian12"], "PRIORITY": _DEBIAN_PRIORITIES},
    "RASPBIAN": {"PRODUCT": ["Raspbian10", "Raspbian11"], "PRIORITY": _DEBIAN_PRIORITIES},
    "MACOS": {"PRODUCT": ["macOS13", "macOS14", "macOS15"], "CLASSIFICATION": ["Security", "Bugfix", "Enhancement"]},
    "WINDOWS": {
        "PRODUCT": [f"WindowsServer{name}" for name in ("2012", "2012R2", "2016", "2019", "2022", "2025")],
        "PRODUCT_FAMILY": ["Windows"],
        "CLASSIFICATION": _WINDOWS,
        "MSRC_SEVERITY": ["Critical", "Important", "Low", "Moderate", "Unspecified"],
    },
}
_APPLICATIONS = {
    "PRODUCT": [".NET Core", "Active Directory", "Exchange Server 2019", "Office 2016", "SQL Server 2019", "SQL Server 2022"],
    "PRODUCT_FAMILY": ["Active Directory", "Developer Tools", "Exchange", "Office", "SQL Server"],
    "CLASSIFICATION": _WINDOWS,
    "MSRC_SEVERITY": ["Critical", "Important", "Low", "Moderate", "Unspecified"],
}


@dataclass(slots=True)
class Ledger:
    """What moto does not keep of a cell's baselines: when each was created and changed, and the tokens of their making."""

    created: dict[str, float] = field(default_factory=dict)
    modified: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Client token -> (digest of the request, id)."""
    extra: dict[str, str] = field(default_factory=dict)
    """Baseline id -> AvailableSecurityUpdatesComplianceStatus."""


# --- create, change, delete ---


@operation("ssm", "CreatePatchBaseline")
def create_patch_baseline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    _check_rules(params)
    ledger = ctx.state(Ledger)
    token = params.get("ClientToken")
    asked = {key: value for key, value in params.items() if key != "ClientToken"}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
    if token in ledger.tokens:
        before, identifier = ledger.tokens[token]
        if before != digest:
            raise AwsError("IdempotentParameterMismatch", "The client token was used for a request with other parameters.")
        return {"BaselineId": identifier}
    identifier = estate_ssm.create_baseline(ctx.account, ctx.region, params)
    ledger.created[identifier] = ledger.modified[identifier] = ctx.at
    if params.get("AvailableSecurityUpdatesComplianceStatus"):
        ledger.extra[identifier] = params["AvailableSecurityUpdatesComplianceStatus"]
    if token:
        ledger.tokens[token] = (digest, identifier)
    return {"BaselineId": identifier}


def _check_rules(params: dict[str, Any]) -> None:
    """Each rule has exactly one of ApproveAfterDays and ApproveUntilDate."""
    for rule in (params.get("ApprovalRules") or {}).get("PatchRules") or []:
        days, until = rule.get("ApproveAfterDays"), rule.get("ApproveUntilDate")
        if (days is None) == (until is None):
            raise AwsError("ValidationException", "Exactly one of ApproveAfterDays and ApproveUntilDate must be given in a rule.")
        if until is not None:
            try:
                date.fromisoformat(until)
            except ValueError:
                raise AwsError("ValidationException", f"ApproveUntilDate: {until!r} is not a date YYYY-MM-DD.") from None
    if params.get("ApprovedPatchesEnableNonSecurity") and (params.get("OperatingSystem") or "") == "WINDOWS":
        raise AwsError("ValidationException", "ApprovedPatchesEnableNonSecurity is for Linux baselines only.")


@operation("ssm", "UpdatePatchBaseline")
def update_patch_baseline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Lists are replaced as a whole; with Replace, fields that are not given become empty again."""
    found = _own(ctx, params["BaselineId"])
    _check_rules(params)
    fields = {key: value for key, value in params.items() if key not in ("BaselineId", "Replace")}
    if params.get("Replace"):
        if "Name" not in fields:
            raise AwsError("ValidationException", "Name is required when Replace is true.")
        fields = {
            "GlobalFilters": {"PatchFilters": []},
            "ApprovalRules": {"PatchRules": []},
            "ApprovedPatches": [],
            "ApprovedPatchesComplianceLevel": "UNSPECIFIED",
            "ApprovedPatchesEnableNonSecurity": False,
            "RejectedPatches": [],
            "RejectedPatchesAction": "ALLOW_AS_DEPENDENCY",
            "Description": None,
            "Sources": [],
            **fields,
        }
    estate_ssm.change_baseline(ctx.account, ctx.region, found.id, fields)
    ledger = ctx.state(Ledger)
    ledger.modified[found.id] = ctx.at
    if params.get("AvailableSecurityUpdatesComplianceStatus"):
        ledger.extra[found.id] = params["AvailableSecurityUpdatesComplianceStatus"]
    elif params.get("Replace"):
        ledger.extra.pop(found.id, None)
    return told(ctx, _own(ctx, found.id))


@operation("ssm", "DeletePatchBaseline")
def delete_patch_baseline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """An id that does not exist is no error: the call may be repeated."""
    identifier = params["BaselineId"]
    if estate.baseline(ctx.account, ctx.region, identifier) is None:
        if baselines.find(ctx.account, ctx.region, identifier) is not None:
            raise AwsError("ValidationException", f"Baseline {identifier} is provided by AWS and cannot be deleted.")
        return {"BaselineId": identifier}
    groups = estate.baseline_groups(ctx.account, ctx.region, identifier)
    system = estate.baseline(ctx.account, ctx.region, identifier)["OperatingSystem"] or "WINDOWS"  # type: ignore[index]
    if groups or estate_ssm.own_default(ctx.account, ctx.region, system) == identifier:
        used = f"patch groups {', '.join(groups)}" if groups else f"the default of {system}"
        raise AwsError("ResourceInUseException", f"Baseline {identifier} is registered for {used}.")
    estate_ssm.delete_baseline(ctx.account, ctx.region, identifier)
    return {"BaselineId": identifier}


@operation("ssm", "DescribePatchBaselines")
def describe_patch_baselines(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """AWS's own and the account's; filters NAME_PREFIX, OWNER (AWS, Self), OPERATING_SYSTEM."""
    systems = sorted(estate.default_baselines(ctx.region))
    rows = [_identity(ctx, baselines.default(ctx.region, system), owner="AWS") for system in systems]
    for made in estate_ssm.own_baselines(ctx.account, ctx.region):
        found = baselines.find(ctx.account, ctx.region, made["BaselineId"])
        if found is not None:
            rows.append(_identity(ctx, found, owner="Self"))
    for entry in params.get("Filters") or []:
        key, values = entry.get("Key"), entry.get("Values") or []
        if key == "NAME_PREFIX":
            rows = [row for row in rows if row["BaselineName"].startswith(tuple(values))]
        elif key == "OWNER":
            rows = [row for row in rows if row["Owner"] in values]
        elif key == "OPERATING_SYSTEM":
            rows = [row for row in rows if row["OperatingSystem"] in values]
        else:
            raise AwsError("ValidationException", f"Filters: key {key!r} is not NAME_PREFIX, OWNER or OPERATING_SYSTEM")
    page, token = ctx.page(rows, params, default=100)
    return {
        "BaselineIdentities": [{key: value for key, value in row.items() if key != "Owner"} for row in page],
        "NextToken": token,
    }


def _identity(ctx: Context, found: baselines.Baseline, *, owner: str) -> dict[str, Any]:
    default = baselines.default_for(ctx.account, ctx.region, found.operating_system)
    return {
        "BaselineId": found.id,
        "BaselineName": found.name,
        "OperatingSystem": found.operating_system,
        "BaselineDescription": found.definition.get("BaselineDescription") or found.definition.get("Description") or "",
        "DefaultBaseline": default.id == found.id,
        "Owner": owner,
    }


def _found(ctx: Context, identifier: str) -> baselines.Baseline:
    found = baselines.find(ctx.account, ctx.region, identifier)
    if found is None:
        raise AwsError("DoesNotExistException", f"Baseline {identifier} does not exist.")
    return found


def _own(ctx: Context, identifier: str) -> baselines.Baseline:
    found = _found(ctx, identifier)
    if estate.baseline(ctx.account, ctx.region, identifier) is None:
        raise AwsError("ValidationException", f"Baseline {identifier} is provided by AWS and cannot be changed.")
    return found


def told(ctx: Context, found: baselines.Baseline) -> dict[str, Any]:
    """A baseline as GetPatchBaseline and UpdatePatchBaseline answer it."""
    ledger = ctx.state(Ledger)
    definition = found.definition
    return {
        "BaselineId": found.id,
        "Name": found.name,
        "OperatingSystem": found.operating_system,
        "GlobalFilters": definition.get("GlobalFilters") or {"PatchFilters": []},
        "ApprovalRules": {
            "PatchRules": [_rule(rule) for rule in (definition.get("ApprovalRules") or {}).get("PatchRules") or []]
        },
        "ApprovedPatches": definition.get("ApprovedPatches") or [],
        "ApprovedPatchesComplianceLevel": definition.get("ApprovedPatchesComplianceLevel") or "UNSPECIFIED",
        "ApprovedPatchesEnableNonSecurity": bool(definition.get("ApprovedPatchesEnableNonSecurity")),
        "RejectedPatches": definition.get("RejectedPatches") or [],
        "RejectedPatchesAction": definition.get("RejectedPatchesAction") or "ALLOW_AS_DEPENDENCY",
        "CreatedDate": moment(ledger.created.get(found.id, ctx.world.clock.base)),
        "ModifiedDate": moment(ledger.modified.get(found.id, ctx.world.clock.base)),
        "Description": definition.get("BaselineDescription") or definition.get("Description") or "",
        "Sources": definition.get("Sources") or [],
        "AvailableSecurityUpdatesComplianceStatus": ledger.extra.get(found.id),
    }


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """What a caller leaves out has a value nevertheless."""
    return {
        **rule,
        "ComplianceLevel": rule.get("ComplianceLevel") or "UNSPECIFIED",
        "EnableNonSecurity": bool(rule.get("EnableNonSecurity")),
    }


# --- defaults and groups ---


@operation("ssm", "GetDefaultPatchBaseline")
def get_default_patch_baseline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    system = params.get("OperatingSystem") or "WINDOWS"
    return {"BaselineId": baselines.default_for(ctx.account, ctx.region, system).id, "OperatingSystem": system}


@operation("ssm", "RegisterDefaultPatchBaseline")
def register_default_patch_baseline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The default of the baseline's own operating system; nodes without a registered group use it from their next run on."""
    found = _found(ctx, params["BaselineId"])
    own = estate.baseline(ctx.account, ctx.region, found.id) is not None
    estate_ssm.set_default(ctx.account, ctx.region, found.operating_system, found.id if own else None)
    return {"BaselineId": found.id}


@operation("ssm", "DeregisterPatchBaselineForPatchGroup")
def deregister_patch_baseline_for_patch_group(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """A pair that is not registered is no error."""
    identifier, group = params["BaselineId"], params["PatchGroup"]
    found = baselines.find(ctx.account, ctx.region, identifier)
    if found is None:
        raise AwsError("DoesNotExistException", "Patch Baseline to be retrieved does not exist.")
    estate_ssm.deregister_group(ctx.account, ctx.region, group, found.id)
    return {"BaselineId": identifier, "PatchGroup": group}


# --- patches ---


@operation("ssm", "DescribeEffectivePatchesForPatchBaseline")
def describe_effective_patches_for_patch_baseline(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Windows baselines only."""
    found = _found(ctx, params["BaselineId"])
    if found.operating_system != "WINDOWS":
        message = f"The operating system {found.operating_system} is not supported by this operation; WINDOWS is."
        raise AwsError("UnsupportedOperatingSystem", message)
    rows = []
    for platform, update in _updates(ctx, ("WINDOWS",)):
        decided = found.deployment(update, platform, released=ctx.world.released(update), at=ctx.at)
        if decided is not None:
            status, level, since = decided
            rows.append(
                {
                    "Patch": _patch(ctx, platform, update),
                    "PatchStatus": {"DeploymentStatus": status, "ComplianceLevel": level, "ApprovalDate": moment(since)},
                }
            )
    page, token = ctx.page(rows, params, default=100)
    return {"EffectivePatches": page, "NextToken": token}


@operation("ssm", "DescribeAvailablePatches")
def describe_available_patches(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Patches of Windows, Amazon Linux 1 and 2; for the other operating systems the operation knows none."""
    wanted = {entry.get("Key") or "": entry.get("Values") or [] for entry in params.get("Filters") or []}
    unknown = set(wanted) - set(_PATCH_KEYS)
    if unknown:
        raise AwsError("ValidationException", f"Filters: {', '.join(sorted(unknown))} is not one of {', '.join(_PATCH_KEYS)}")
    systems = LISTED_SYSTEMS if "PRODUCT" in wanted else ("WINDOWS",)
    rows = [
        _patch(ctx, platform, update)
        for platform, update in _updates(ctx, systems)
        if all(_has(platform, update, key, values) for key, values in wanted.items())
    ]
    page, token = ctx.page(rows, params, default=100)
    return {"Patches": page, "NextToken": token}


_PATCH_KEYS = (
    "PATCH_SET",
    "PRODUCT",
    "PRODUCT_FAMILY",
    "CLASSIFICATION",
    "MSRC_SEVERITY",
    "PATCH_ID",
    "SEVERITY",
    "PRIORITY",
    "SECTION",
    "NAME",
    "EPOCH",
    "VERSION",
    "RELEASE",
    "ARCH",
    "ADVISORY_ID",
    "CVE_ID",
    "BUGZILLA_ID",
    "REPOSITORY",
    "SECURITY",
)


def _updates(ctx: Context, systems: tuple[str, ...]) -> list[tuple[Platform, Update]]:
    """Everything that is out by now, newest first."""
    found = [
        (platform, update)
        for platform in ctx.world.catalogue.platforms.values()
        if platform.operating_system in systems
        for package in platform.packages.values()
        for update in package.updates
        if ctx.world.released(update) <= ctx.at
    ]
    return sorted(found, key=lambda pair: (-ctx.world.released(pair[1]), pair[0].key, pair[1].title))


def _has(platform: Platform, update: Update, key: str, values: list[str]) -> bool:
    windows = platform.operating_system == "WINDOWS"
    facts = {
        "PATCH_SET": ["OS"],
        "PRODUCT": [platform.product],
        "PRODUCT_FAMILY": ["Windows"] if windows else [],
        "CLASSIFICATION": [update.classification],
        "MSRC_SEVERITY": [update.severity] if windows else [],
        "PATCH_ID": [_number(update)],
        "SEVERITY": [] if windows else [update.severity],
        "NAME": [update.package],
        "EPOCH": [str(update.epoch)],
        "VERSION": [update.version],
        "RELEASE": [update.release],
        "ARCH": [update.arch],
        "ADVISORY_ID": [update.advisory],
        "CVE_ID": [cve.id for cve in update.cves],
        "SECURITY": ["true" if update.classification.startswith("Security") else "false"],
    }
    return "*" in values or any(value in values for value in facts.get(key, []))


def _number(update: Update) -> str:
    """The KB of a Windows update; `name.arch` of a Linux one."""
    return update.kb_id


def _patch(ctx: Context, platform: Platform, update: Update) -> dict[str, Any]:
    number = _number(update)
    told = {
        "Id": str(uuid5(NAMESPACE_URL, f"{platform.product} {update.title} {update.advisory}")),
        "ReleaseDate": moment(ctx.world.released(update)),
        "Title": update.title,
        "Description": f"{update.classification} update {update.advisory} for {platform.name}.",
        "ContentUrl": f"{platform.advisory_url}{update.advisory}",
        "Vendor": "Microsoft" if platform.operating_system == "WINDOWS" else "Amazon.com",
        "ProductFamily": "Windows" if platform.operating_system == "WINDOWS" else platform.name,
        "Product": platform.product,
        "Classification": update.classification,
    }
    if platform.operating_system == "WINDOWS":
        return {
            **told,
            "ContentUrl": f"https://support.microsoft.com/en-us/kb/{number.removeprefix('KB')}",
            "MsrcSeverity": update.severity,
            "KbNumber": number,
            "MsrcNumber": "",
            "Language": "All",
        }
    return {
        **told,
        "AdvisoryIds": [update.advisory],
        "BugzillaIds": [],
        "CVEIds": [cve.id for cve in update.cves],
        "Name": update.package,
        "Epoch": update.epoch,
        "Version": update.version,
        "Release": update.release,
        "Arch": update.arch,
        "Severity": update.severity,
        "Repository": "",
    }


@operation("ssm", "DescribePatchProperties")
def describe_patch_properties(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The values that baselines' filters may have."""
    system, name = params["OperatingSystem"], params["Property"]
    if params.get("PatchSet") == "APPLICATION":
        if system != "WINDOWS":
            raise AwsError("ValidationException", "PatchSet APPLICATION is for WINDOWS only.")
        table = _APPLICATIONS
    else:
        table = PROPERTIES[system]
    if name not in table:
        raise AwsError("ValidationException", f"The property {name} is not one of {', '.join(table)} of {system}.")
    page, token = ctx.page([{"Name": value} for value in table[name]], params, default=50)
    return {"Properties": page, "NextToken": token}


# --- snapshots ---


@operation("ssm", "GetDeployablePatchSnapshotForInstance")
def get_deployable_patch_snapshot_for_instance(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The agent's call: the node's baseline as a document behind a pre-signed URL that awsim itself serves for a day."""
    host = ctx.world.host(ctx.account, ctx.region, params["InstanceId"])
    if host is None or not host.acceptable(ctx.at):
        raise AwsError(
            "InvalidInstanceId", f"Instances [[{params['InstanceId']}]] not in a valid state for account {ctx.account}"
        )
    platform, group = host.platform, host.patch_group()
    given = params.get("BaselineOverride")
    if given is not None and given.get("OperatingSystem") not in (None, platform.operating_system):
        message = f"The override is for {given['OperatingSystem']}, the node has {platform.operating_system}."
        raise AwsError("UnsupportedOperatingSystem", message)
    found = (
        baselines.from_override(given)
        if given is not None
        else baselines.for_node(ctx.account, ctx.region, group, platform.operating_system)
    )
    snapshot = params["SnapshotId"]
    content = {
        "patchBaseline": _lower(
            {
                **{key: found.definition.get(key) for key in ("GlobalFilters", "ApprovalRules", "ApprovedPatches")},
                **{key: found.definition.get(key) for key in ("RejectedPatches", "RejectedPatchesAction", "Sources")},
                "ApprovedPatchesComplianceLevel": found.definition.get("ApprovedPatchesComplianceLevel") or "UNSPECIFIED",
                "BaselineId": found.short_id,
                "Name": found.name,
                "AccountId": ctx.account,
                "OperatingSystem": platform.operating_system,
            }
        ),
        "patchGroup": group,
        "product": platform.product,
        "region": ctx.region,
        "snapshotId": snapshot,
        "createdTime": moment(ctx.at).isoformat(),
    }
    bucket = f"patch-baseline-snapshot-{ctx.region}"
    folder = hashlib.sha256(f"{ctx.account} {group} {found.id}".encode()).hexdigest()
    key = f"{folder}-{ctx.account}/{platform.operating_system}-{snapshot}"
    estate_ssm.put_object(ctx.account, bucket, key, json.dumps(content).encode())
    ctx.world.at(ctx.at + SNAPSHOT_URL_LIFE, call(estate_ssm.delete_object, ctx.account, bucket, key))
    return {
        "InstanceId": host.id,
        "SnapshotId": snapshot,
        "Product": platform.product,
        "SnapshotDownloadUrl": f"http://{ctx.host_header}/{bucket}/{key}?{_signature(ctx, key)}",
    }


def _signature(ctx: Context, key: str) -> str:
    at = f"{moment(ctx.at):%Y%m%dT%H%M%SZ}"
    digest = hashlib.sha256(f"{ctx.world.seed} {key} {at}".encode()).hexdigest()
    credential = f"ASIAAWSIMSNAPSHOT00%2F{at[:8]}%2F{ctx.region}%2Fs3%2Faws4_request"
    return (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={at}&X-Amz-SignedHeaders=host&X-Amz-Expires={SNAPSHOT_URL_LIFE}"
        f"&X-Amz-Credential={credential}&X-Amz-Signature={digest}"
    )


def _lower(value: Any) -> Any:
    """Member names as the payload reads them: first letter small."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _lower(item) for key, item in value.items()}
    return [_lower(item) for item in value] if isinstance(value, list) else value
