"""Which updates does a patch baseline approve, at which compliance level?

The baselines that callers or the world file created live in moto; AWS's own default ones are written here, by operating system.
Pure but for the look-up of a node's baseline.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from awsim import estate, estate_ssm
from awsim.catalogue import Platform, Update
from awsim.world_file import Baseline as BaselineEntry

DAY = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A baseline in the shape of GetPatchBaseline's answer; `definition` has ApprovalRules, RejectedPatches, ..."""

    id: str
    name: str
    operating_system: str
    definition: dict[str, Any]

    @property
    def short_id(self) -> str:
        """As node data names it: `pb-...` also for AWS's own, whose id is an ARN elsewhere."""
        return self.id.rpartition("/")[2]

    def approval(self, update: Update, platform: Platform, *, released: float, at: float) -> str | None:
        """The compliance level of the rule that approves the update at a moment, or None."""
        if self.rejects(update):
            return None
        if any(_named(pattern, update) for pattern in self.definition.get("ApprovedPatches") or []):
            return self.definition.get("ApprovedPatchesComplianceLevel") or "UNSPECIFIED"
        if not _all_match((self.definition.get("GlobalFilters") or {}).get("PatchFilters") or [], update, platform):
            return None
        for rule in (self.definition.get("ApprovalRules") or {}).get("PatchRules") or []:
            filters = (rule.get("PatchFilterGroup") or {}).get("PatchFilters") or []
            if _all_match(filters, update, platform) and _old_enough(rule, released, at):
                return rule.get("ComplianceLevel") or "UNSPECIFIED"
        return None

    def deployment(self, update: Update, platform: Platform, *, released: float, at: float) -> tuple[str, str, float] | None:
        """(DeploymentStatus, compliance level, approval date) of an update that concerns this baseline, else None."""
        level = self.definition.get("ApprovedPatchesComplianceLevel") or "UNSPECIFIED"
        if self.rejects(update):
            return "EXPLICIT_REJECTED", level, released
        if any(_named(pattern, update) for pattern in self.definition.get("ApprovedPatches") or []):
            return "EXPLICIT_APPROVED", level, released
        if not _all_match((self.definition.get("GlobalFilters") or {}).get("PatchFilters") or [], update, platform):
            return None
        pending: tuple[str, str, float] | None = None
        for rule in (self.definition.get("ApprovalRules") or {}).get("PatchRules") or []:
            if not _all_match((rule.get("PatchFilterGroup") or {}).get("PatchFilters") or [], update, platform):
                continue
            since = released + float(rule.get("ApproveAfterDays") or 0) * DAY
            if _old_enough(rule, released, at):
                return "APPROVED", rule.get("ComplianceLevel") or "UNSPECIFIED", since
            if pending is None and not rule.get("ApproveUntilDate"):
                pending = "PENDING_APPROVAL", rule.get("ComplianceLevel") or "UNSPECIFIED", since
        return pending

    def rejects(self, update: Update) -> bool:
        return any(_named(pattern, update) for pattern in self.definition.get("RejectedPatches") or [])


def for_node(account: str, region: str, patch_group: str, operating_system: str) -> Baseline:
    """The baseline registered for the node's patch group, else the operating system's default."""
    registered = estate.patch_groups(account, region).get(patch_group, {}).get(operating_system) if patch_group else None
    if registered is not None:
        found = find(account, region, registered)
        if found is not None:
            return found
    return default_for(account, region, operating_system)


def default_for(account: str, region: str, operating_system: str) -> Baseline:
    """The baseline that a caller made the operating system's default (RegisterDefaultPatchBaseline), else AWS's own."""
    own = estate_ssm.own_default(account, region, operating_system)
    found = find(account, region, own) if own is not None else None
    return found if found is not None else default(region, operating_system)


def find(account: str, region: str, identifier: str) -> Baseline | None:
    created = estate.baseline(account, region, identifier)
    if created is not None:
        return Baseline(
            id=created["BaselineId"],
            name=created["BaselineName"],
            operating_system=created["OperatingSystem"] or "WINDOWS",
            definition=created,
        )
    for system, arn in estate.default_baselines(region).items():
        if identifier in (arn, arn.rpartition("/")[2]):
            return default(region, system)
    return None


def default(region: str, operating_system: str) -> Baseline:
    """AWS's own, after seven days: AL2023 takes Critical and Important security and all bug fixes, Ubuntu every priority."""
    arn = estate.default_baselines(region).get(
        operating_system, "arn:aws:ssm:us-east-1:075727635805:patchbaseline/pb-00000000000000000"
    )
    if operating_system in ("UBUNTU", "DEBIAN"):
        rules = [_rule({"PRIORITY": ["Required", "Important", "Standard", "Optional", "Extra"]}, days=7)]
    elif operating_system == "WINDOWS":
        urgent = {"CLASSIFICATION": ["CriticalUpdates", "SecurityUpdates"], "MSRC_SEVERITY": ["Critical", "Important"]}
        rules = [_rule(urgent, days=7)]
    else:
        rules = [
            _rule({"CLASSIFICATION": ["Security"], "SEVERITY": ["Critical", "Important"]}, days=7),
            _rule({"CLASSIFICATION": ["Bugfix"]}, days=7),
        ]
    names = {
        "WINDOWS": "",
        "REDHAT_ENTERPRISE_LINUX": "RedHat",
        "UBUNTU": "Ubuntu",
        "AMAZON_LINUX_2023": "AmazonLinux2023",
        "AMAZON_LINUX_2": "AmazonLinux2",
        "DEBIAN": "Debian",
    }
    name = names.get(operating_system, operating_system.title().replace("_", ""))
    return Baseline(
        id=arn,
        name=f"AWS-{name}DefaultPatchBaseline",
        operating_system=operating_system,
        definition={
            "GlobalFilters": {"PatchFilters": []},
            "ApprovalRules": {"PatchRules": rules},
            "ApprovedPatches": [],
            "RejectedPatches": [],
            "ApprovedPatchesComplianceLevel": "UNSPECIFIED",
            "RejectedPatchesAction": "ALLOW_AS_DEPENDENCY",
            "Description": f"Default Patch Baseline for {name or 'Windows'} Provided by AWS.",
            "DefaultBaseline": True,
        },
    )


def create(account: str, region: str, entry: BaselineEntry) -> str:
    """The baseline of a world file, in moto, registered for its patch groups."""
    rules = [
        _rule(rule.filters, days=rule.approve_after_days, level=rule.compliance_level, other=rule.enable_non_security)
        for rule in entry.rules
    ]
    return estate.create_baseline(
        account,
        region,
        groups=entry.patch_groups,
        name=entry.name,
        operating_system=entry.operating_system,
        approval_rules={"PatchRules": rules},
        rejected_patches=entry.rejected,
        description=entry.description,
    )


def from_override(entry: dict[str, Any]) -> Baseline:
    """A baseline of a BaselineOverride document (GetPatchBaseline's shape, lower or upper first letters)."""
    definition = {key[:1].upper() + key[1:]: value for key, value in entry.items()}
    return Baseline(
        id=definition.get("BaselineId", "override"),
        name=definition.get("Name", "override"),
        operating_system=definition.get("OperatingSystem", ""),
        definition=definition,
    )


def _rule(filters: dict[str, list[str]], *, days: int, level: str = "UNSPECIFIED", other: bool = False) -> dict[str, Any]:
    return {
        "PatchFilterGroup": {"PatchFilters": [{"Key": key, "Values": list(values)} for key, values in filters.items()]},
        "ComplianceLevel": level,
        "ApproveAfterDays": days,
        "EnableNonSecurity": other,
    }


def _all_match(filters: list[dict[str, Any]], update: Update, platform: Platform) -> bool:
    facts = {
        "PRODUCT": platform.product,
        "CLASSIFICATION": update.classification,
        "SECTION": update.classification,
        "SEVERITY": update.severity,
        "PRIORITY": update.severity,
        "MSRC_SEVERITY": update.severity,
        "PRODUCT_FAMILY": "Windows" if platform.operating_system == "WINDOWS" else None,
        "PATCH_SET": "OS",
    }
    return all("*" in entry["Values"] or facts.get(entry["Key"]) in entry["Values"] for entry in filters)


def _old_enough(rule: dict[str, Any], released: float, at: float) -> bool:
    until = rule.get("ApproveUntilDate")
    if until:
        day = datetime.fromisoformat(until).replace(tzinfo=UTC) + timedelta(days=1)
        return released < day.timestamp()
    return released <= at - float(rule.get("ApproveAfterDays") or 0) * DAY


def _named(pattern: str, update: Update) -> bool:
    """`name`, `name.arch`, `name.arch:epoch:version-release`, with `*`."""
    return any(
        fnmatchcase(name, pattern) for name in (update.package, update.kb_id, update.title, f"{update.package}-{update.evr}")
    )
