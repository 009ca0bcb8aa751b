"""Which patch baseline does a policy want for each operating system, and how does what an account has differ from it?

`policy` has the models as its section ``baselines``; `wanted` makes baselines of them as Systems Manager keeps them, `drift`
says in sentences what an account has otherwise, `keeping` what a stage does about it, and `override` writes them as
AWS-RunPatchBaseline reads them. `aws.baselines` reads and changes them; the plan shows the sentences.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

from patchwave.campaign.definition import Day
from patchwave.campaign.document import Misfit, Misplacement, Part, shown
from patchwave.campaign.values import Cell

MOST_RULES, MOST_FILTERS, MOST_VALUES, MOST_PATCHES, LONGEST_NAME = 10, 4, 20, 50, 128
"""botocore model of ssm: PatchRuleList, PatchFilterList, PatchFilterValueList, PatchIdList, BaselineName."""


class OperatingSystem(StrEnum):
    """As Systems Manager calls them (API reference, CreatePatchBaseline, OperatingSystem)."""

    ALMA_LINUX = "ALMA_LINUX"
    AMAZON_LINUX = "AMAZON_LINUX"
    AMAZON_LINUX_2 = "AMAZON_LINUX_2"
    AMAZON_LINUX_2022 = "AMAZON_LINUX_2022"
    AMAZON_LINUX_2023 = "AMAZON_LINUX_2023"
    CENTOS = "CENTOS"
    DEBIAN = "DEBIAN"
    MACOS = "MACOS"
    ORACLE_LINUX = "ORACLE_LINUX"
    RASPBIAN = "RASPBIAN"
    REDHAT_ENTERPRISE_LINUX = "REDHAT_ENTERPRISE_LINUX"
    ROCKY_LINUX = "ROCKY_LINUX"
    SUSE = "SUSE"
    UBUNTU = "UBUNTU"
    WINDOWS = "WINDOWS"


class ComplianceLevel(StrEnum):
    """How bad a patch is that a rule approves and a host lacks (API reference, PatchRule, ComplianceLevel)."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    INFORMATIONAL = "INFORMATIONAL"
    UNSPECIFIED = "UNSPECIFIED"


class RejectedAction(StrEnum):
    """What becomes of a rejected package that another one depends on (API reference, RejectedPatchesAction)."""

    ALLOW_AS_DEPENDENCY = "ALLOW_AS_DEPENDENCY"
    BLOCK = "BLOCK"


class RuleTrack(StrEnum):
    """The two tracks of the patch decision matrix that differ in when a patch is approved."""

    CRITICAL = "critical"  # at once
    STANDARD = "standard"  # after a week


DAYS = {RuleTrack.CRITICAL: 0, RuleTrack.STANDARD: 7}
"""From a patch's release to its approval: the patch decision matrix."""
LEVELS = {RuleTrack.CRITICAL: ComplianceLevel.CRITICAL, RuleTrack.STANDARD: ComplianceLevel.UNSPECIFIED}


# --- Which words are allowed -----------------------------------------------------------------------------------------------

ANY = "*"
"""Matches every value (API reference, PatchFilter)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What may stand in one filter of one operating system.

    Attributes:
        known: the words themselves; empty where there are too many, or AWS lists none.
        like: a regular expression that others must match.
        example: of those, for a message.
    """

    known: tuple[str, ...] = ()
    like: str = ""
    example: str = ""

    def allow(self, value: str) -> bool:
        """Whether AWS knows this word there."""
        return value == ANY or value in self.known or (not self.known and bool(re.fullmatch(self.like or "(?s).+", value)))

    @property
    def told(self) -> str:
        """For a message."""
        return ", ".join((*self.known, ANY)) if self.known else f"a name such as {self.example}, or {ANY}"


def _words(*known: str) -> Words:
    return Words(known=known)


def _named(like: str, example: str) -> Words:
    return Words(like=like, example=example)


_RPM = _words("Security", "Bugfix", "Enhancement", "Recommended", "Newpackage")
_AMAZON = _words("Critical", "Important", "Medium", "Low")
_RED_HAT = _words("Critical", "Important", "Moderate", "Medium", "Low", "None")
"""Red Hat's advisories say Moderate and None, AWS's page says Medium: all are taken."""
_PRIORITY = _words("Required", "Important", "Standard", "Optional", "Extra")


def _rpm(product: Words, severity: Words = _RED_HAT) -> Mapping[str, Words]:
    return {"PRODUCT": product, "CLASSIFICATION": _RPM, "SEVERITY": severity}


def _deb(product: Words) -> Mapping[str, Words]:
    # "Only the length of the key value is validated": PatchFilter on SECTION.
    return {"PRODUCT": product, "PRIORITY": _PRIORITY, "SECTION": _named("(?s).+", "libs")}


SOURCE = (
    "AWS Systems Manager API reference: DescribePatchProperties (which filters an operating system has), PatchFilter (which "
    "values they take; the version of 2019 is the last that lists them, the lists of products have grown since)"
)
FILTERS: Mapping[OperatingSystem, Mapping[str, Words]] = {
    OperatingSystem.ALMA_LINUX: _rpm(_named(r"AlmaLinux.*", "AlmaLinux9.3")),
    OperatingSystem.AMAZON_LINUX: _rpm(_named(r"AmazonLinux20[0-9]{2}\.[0-9]{2}", "AmazonLinux2018.03"), _AMAZON),
    OperatingSystem.AMAZON_LINUX_2: _rpm(_words("AmazonLinux2", "AmazonLinux2.0"), _AMAZON),
    OperatingSystem.AMAZON_LINUX_2022: _rpm(_named(r"AmazonLinux2022.*", "AmazonLinux2022"), _AMAZON),
    OperatingSystem.AMAZON_LINUX_2023: _rpm(_named(r"AmazonLinux2023.*", "AmazonLinux2023"), _AMAZON),
    OperatingSystem.CENTOS: _rpm(_named(r"CentOS.*", "CentOS7.9")),
    OperatingSystem.DEBIAN: _deb(_named(r"Debian.*", "Debian12")),
    OperatingSystem.MACOS: {"PRODUCT": _named("(?s).+", "macOS14"), "CLASSIFICATION": _named("(?s).+", "Security")},
    OperatingSystem.ORACLE_LINUX: _rpm(_named(r"OracleLinux.*", "OracleLinux9.3")),
    OperatingSystem.RASPBIAN: _deb(_named(r"(?s).+", "Raspbian11")),
    OperatingSystem.REDHAT_ENTERPRISE_LINUX: _rpm(_named(r"RedhatEnterpriseLinux.*", "RedhatEnterpriseLinux9.4")),
    OperatingSystem.ROCKY_LINUX: _rpm(_named(r"RockyLinux.*", "RockyLinux9.3")),
    OperatingSystem.SUSE: {
        "PRODUCT": _named(r"(?i:suse).*", "Suse15.5"),
        "CLASSIFICATION": _words("Security", "Recommended", "Optional", "Feature", "Document", "Yast"),
        "SEVERITY": _words("Critical", "Important", "Moderate", "Low"),
    },
    OperatingSystem.UBUNTU: _deb(_named(r"Ubuntu.*", "Ubuntu22.04")),
    OperatingSystem.WINDOWS: {
        "PATCH_SET": _words("OS", "APPLICATION"),
        "PRODUCT": _named("(?s).+", "WindowsServer2022"),
        "PRODUCT_FAMILY": _named("(?s).+", "Windows"),
        "CLASSIFICATION": _words(
            "CriticalUpdates", "DefinitionUpdates", "Drivers", "FeaturePacks", "SecurityUpdates", "ServicePacks", "Tools",
            "UpdateRollups", "Updates", "Upgrades",
        ),
        "MSRC_SEVERITY": _words("Critical", "Important", "Moderate", "Low", "Unspecified"),
    },
}  # fmt: skip
"""Filter, and what may stand in it, by operating system: see `SOURCE`."""
WITHOUT_WAITING = frozenset({OperatingSystem.DEBIAN, OperatingSystem.RASPBIAN, OperatingSystem.UBUNTU})
"""AWS: ApproveAfterDays and ApproveUntilDate are "not supported for Debian Server or Ubuntu Server" (API reference, PatchRule),
because their repositories tell no release dates; one of the two must be given all the same."""
NOT_LINUX = frozenset({OperatingSystem.MACOS, OperatingSystem.WINDOWS})
"""EnableNonSecurity "applies to Linux managed nodes only" (API reference, PatchRule)."""

_PLATFORMS: tuple[tuple[str, OperatingSystem], ...] = (
    (r"Amazon Linux 2023\b", OperatingSystem.AMAZON_LINUX_2023),
    (r"Amazon Linux 2022\b", OperatingSystem.AMAZON_LINUX_2022),
    (r"Amazon Linux (release )?2( |\.0|$)", OperatingSystem.AMAZON_LINUX_2),
    (r"Amazon Linux", OperatingSystem.AMAZON_LINUX),
    (r"AlmaLinux", OperatingSystem.ALMA_LINUX),
    (r"CentOS", OperatingSystem.CENTOS),
    (r"Debian", OperatingSystem.DEBIAN),
    (r"(mac ?os|Mac OS)", OperatingSystem.MACOS),
    (r"Oracle Linux", OperatingSystem.ORACLE_LINUX),
    (r"Raspbian", OperatingSystem.RASPBIAN),
    (r"Red ?Hat", OperatingSystem.REDHAT_ENTERPRISE_LINUX),
    (r"Rocky Linux", OperatingSystem.ROCKY_LINUX),
    (r"(SLES|SUSE)", OperatingSystem.SUSE),
    (r"Ubuntu", OperatingSystem.UBUNTU),
    (r"(Microsoft )?Windows", OperatingSystem.WINDOWS),
)


def operating_system(platform: str) -> OperatingSystem | None:
    """Whose baselines a host gets; None for a platform that Patch Manager does not know.

    Args:
        platform: Systems Manager's name and version (``Amazon Linux 2023``).
    """
    return next((its for like, its in _PLATFORMS if re.match(like, platform, re.IGNORECASE)), None)


# --- What a policy file says ------------------------------------------------------------------------------------------------


def _short(longest: int) -> AfterValidator:
    def check(value: str) -> str:
        if not 1 <= len(value) <= longest or not value.isprintable():
            raise ValueError(f"allowed is text of 1 to {longest} characters")
        return value

    return AfterValidator(check)


FilterValue = Annotated[StrictStr, _short(64)]
PackageName = Annotated[StrictStr, _short(100)]
Patches = Annotated[tuple[PackageName, ...], Field(max_length=MOST_PATCHES)]


class ApprovalRule(Part):
    """One approval rule of a patch baseline: a patch that all its filters match is approved when its time has come."""

    track: Annotated[RuleTrack, Field(
        description="`critical`: approved at once; `standard`: seven days after release, or as the next two fields say. "
        "No default: it is the matrix's decision.",
    )]  # fmt: skip
    filters: Annotated[Mapping[StrictStr, Annotated[tuple[FilterValue, ...], Field(min_length=1, max_length=MOST_VALUES)]], Field(
        min_length=1, max_length=MOST_FILTERS,
        description="Filters and their values in the operating system's own words, as Systems Manager spells them; * matches "
        "every value. No default: a rule that matches everything says so, `{PRODUCT: ['*']}`.",
        examples=[{"CLASSIFICATION": ["Security"], "SEVERITY": ["Critical", "Important"]}],
    )]  # fmt: skip
    approve_after_days: Annotated[Annotated[StrictInt, Field(ge=0, le=360)] | None, Field(
        description="Days from a patch's release to its approval, 0 to 360. Default: that of the track, 0 or 7. For Debian, "
        "Raspbian and Ubuntu only 0: Patch Manager does not know when their packages were released.",
        examples=[14],
    )] = None  # fmt: skip
    approve_until_date: Annotated[Day | None, Field(
        description="Instead of days: what was released up to this day (UTC) is approved, nothing later. Default: by days.",
        examples=["2026-12-31"],
    )] = None  # fmt: skip
    compliance_level: Annotated[ComplianceLevel | None, Field(
        description="How bad a host is that lacks such a patch. Default: CRITICAL for the track critical, or no count of "
        "critical patches would ever be more than 0; UNSPECIFIED for standard.",
    )] = None  # fmt: skip
    enable_non_security: Annotated[StrictBool, Field(
        description="Linux only: whether packages without an advisory are approved, too. Default false, which is AWS's.",
    )] = False  # fmt: skip

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = []
        if self.approve_after_days is not None and self.approve_until_date is not None:
            found.append(Misplacement(loc=("approve_until_date",), message="is given beside approve_after_days; allowed is one"))
        if self.track is RuleTrack.CRITICAL and (self.approve_after_days or self.approve_until_date):
            name = "approve_after_days" if self.approve_after_days else "approve_until_date"
            found.append(Misplacement(loc=(name,), message="makes a rule of the track critical wait; allowed is nothing there "
                                      "(it is approved at once), or the track standard"))  # fmt: skip
        if found:
            raise Misfit(found)
        return self

    @property
    def days(self) -> int | None:
        """From release to approval; None where a date says it."""
        if self.approve_until_date is not None:
            return None
        return DAYS[self.track] if self.approve_after_days is None else self.approve_after_days


class PatchBaseline(Part):
    """What the patch baseline of one operating system should say."""

    operating_system: Annotated[OperatingSystem, Field(description="Whose baseline it is, as Systems Manager calls it.")]
    rules: Annotated[tuple[ApprovalRule, ...], Field(
        min_length=1, max_length=MOST_RULES,
        description="Approval rules, 1 to 10; a patch that one of them matches is approved. No default.",
    )]  # fmt: skip
    approved_patches: Annotated[Patches, Field(
        description="Packages that are approved whatever the rules say, at most 50, as Systems Manager writes them. Default: "
        "none.",
        examples=[["openssl*"]],
    )] = ()  # fmt: skip
    approved_patches_compliance_level: Annotated[ComplianceLevel, Field(
        description="How bad a host is that lacks one of those. Default UNSPECIFIED, which is AWS's.",
    )] = ComplianceLevel.UNSPECIFIED  # fmt: skip
    approved_patches_enable_non_security: Annotated[StrictBool, Field(
        description="Linux only: whether those may be packages without an advisory. Default false, which is AWS's.",
    )] = False  # fmt: skip
    rejected_patches: Annotated[Patches, Field(
        description="Packages that are never installed, at most 50, as Systems Manager writes them. Default: none.",
        examples=[["docker*"]],
    )] = ()  # fmt: skip
    rejected_patches_action: Annotated[RejectedAction, Field(
        description="Whether a rejected package is installed where another one depends on it. Default ALLOW_AS_DEPENDENCY, which "
        "is AWS's.",
    )] = RejectedAction.ALLOW_AS_DEPENDENCY  # fmt: skip

    @model_validator(mode="after")
    def _speaks_the_platforms_words(self) -> Self:
        found = [one for number, rule in enumerate(self.rules) for one in self._misplaced(number, rule)]
        system = self.operating_system
        if self.approved_patches_enable_non_security and system in NOT_LINUX:
            found.append(Misplacement(loc=("approved_patches_enable_non_security",), message=f"is for Linux only; allowed for "
                                      f"{system} is false"))  # fmt: skip
        both = sorted({*self.approved_patches} & {*self.rejected_patches})
        if both:
            found.append(Misplacement(loc=("rejected_patches",), message=f"holds {', '.join(both)}, which is approved as well; "
                                      "allowed is one of both"))  # fmt: skip
        if found:
            raise Misfit(found)
        return self

    def _misplaced(self, number: int, rule: ApprovalRule) -> Iterator[Misplacement]:
        system, known = self.operating_system, FILTERS[self.operating_system]
        for name, values in rule.filters.items():
            at = ("rules", number, "filters", name)
            if name not in known:
                yield Misplacement(loc=at, message=f"is no filter of {system}; allowed are {', '.join(known)}")
                continue
            for place, value in enumerate(values):
                if not known[name].allow(value):
                    told = f"found {shown(value)}; allowed as {name} of {system} is {known[name].told}"
                    yield Misplacement(loc=(*at, place), message=told)
        if system in WITHOUT_WAITING and rule.days != 0:
            name = "approve_until_date" if rule.approve_until_date else "approve_after_days"
            yield Misplacement(loc=("rules", number, name), message=f"is not supported by AWS for {system}, whose packages have "
                               "no release date, so no wait would hold; allowed is approve_after_days: 0")  # fmt: skip
        if rule.enable_non_security and system in NOT_LINUX:
            message = f"is for Linux only; allowed for {system} is false"
            yield Misplacement(loc=("rules", number, "enable_non_security"), message=message)


def once_each(baselines: Sequence[PatchBaseline]) -> list[Misplacement]:
    """Operating systems that have two baselines: AWS takes one for each, in a patch group and in an override."""
    seen: dict[OperatingSystem, int] = {}
    found = []
    for number, one in enumerate(baselines):
        if one.operating_system in seen:
            said = f"found {one.operating_system} again, first at baselines[{seen[one.operating_system]}]; allowed is once"
            found.append(Misplacement(loc=("baselines", number, "operating_system"), message=said))
        seen.setdefault(one.operating_system, number)
    return found


# --- Baselines as Systems Manager keeps them ---------------------------------------------------------------------------------

Filters = tuple[tuple[str, tuple[str, ...]], ...]
"""Filters with their values, both sorted: their order means nothing."""


def filters_of(written: Mapping[str, Iterable[str]]) -> Filters:
    """Filters in the one order in which they are compared."""
    return tuple(sorted((name, tuple(sorted(values))) for name, values in written.items()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """An approval rule; either `after_days` or `until`."""

    filters: Filters
    level: str = "UNSPECIFIED"
    after_days: int | None = None
    until: str | None = None
    non_security: bool = False

    @property
    def what(self) -> str:
        """Which patches, in words."""
        return _filters(self.filters) or "every patch"

    @property
    def how(self) -> str:
        """When and as what, in words."""
        when = f"if released by {self.until}" if self.until else f"{self.after_days or 0} days after release"
        return f"{when}, level {self.level}" + (", also without an advisory" if self.non_security else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A patch baseline; what GetPatchBaseline tells of it that matters.

    Attributes:
        id: AWS's; empty for one that is only wanted.
        description: of ours the mark by which we know it.
        sources: names of other repositories, which a policy cannot declare.
    """

    name: str
    operating_system: str
    rules: tuple[Approval, ...]
    id: str = ""
    description: str = ""
    approved: tuple[str, ...] = ()
    approved_level: str = "UNSPECIFIED"
    approved_non_security: bool = False
    rejected: tuple[str, ...] = ()
    rejected_action: str = "ALLOW_AS_DEPENDENCY"
    global_filters: Filters = ()
    sources: tuple[str, ...] = ()


def wanted(baselines: Iterable[PatchBaseline], *, policy: str) -> tuple[Baseline, ...]:
    """The baselines that a policy wants, one for each operating system that it names.

    Args:
        policy: its name, from which theirs are made.
    """
    return tuple(
        Baseline(
            name=name_of(policy, one.operating_system),
            operating_system=one.operating_system.value,
            description=f"Kept by Patchwave as policy {policy} declares it",
            rules=tuple(
                Approval(
                    filters=filters_of(rule.filters),
                    level=(rule.compliance_level or LEVELS[rule.track]).value,
                    after_days=rule.days,
                    until=rule.approve_until_date.isoformat() if rule.approve_until_date else None,
                    non_security=rule.enable_non_security,
                )
                for rule in one.rules
            ),
            approved=tuple(sorted(one.approved_patches)),
            approved_level=one.approved_patches_compliance_level.value,
            approved_non_security=one.approved_patches_enable_non_security,
            rejected=tuple(sorted(one.rejected_patches)),
            rejected_action=one.rejected_patches_action.value,
        )
        for one in baselines
    )


def name_of(policy: str, system: OperatingSystem) -> str:
    """``patchwave-standard-amazon-linux-2023``; a policy's name that is too long for AWS is cut, and gets a hash."""
    name = f"patchwave-{policy}-{system.value.lower().replace('_', '-')}"
    if len(name) <= LONGEST_NAME:
        return name
    return name_of(f"{policy[:80]}-{hashlib.sha256(policy.encode()).hexdigest()[:8]}", system)


def body(baseline: Baseline) -> dict[str, Any]:
    """Its content in AWS's words: what CreatePatchBaseline, UpdatePatchBaseline and BaselineOverride have in common."""
    return {
        "GlobalFilters": {"PatchFilters": _patch_filters(baseline.global_filters)},
        "ApprovalRules": {"PatchRules": [_patch_rule(one) for one in baseline.rules]},
        "ApprovedPatches": list(baseline.approved),
        "ApprovedPatchesComplianceLevel": baseline.approved_level,
        "ApprovedPatchesEnableNonSecurity": baseline.approved_non_security,
        "RejectedPatches": list(baseline.rejected),
        "RejectedPatchesAction": baseline.rejected_action,
    }


def _patch_filters(filters: Filters) -> list[dict[str, Any]]:
    return [{"Key": name, "Values": list(values)} for name, values in filters]


def _patch_rule(rule: Approval) -> dict[str, Any]:
    when: dict[str, Any] = {"ApproveUntilDate": rule.until} if rule.until else {"ApproveAfterDays": rule.after_days or 0}
    return {
        **when,
        "ComplianceLevel": rule.level,
        "EnableNonSecurity": rule.non_security,
        "PatchFilterGroup": {"PatchFilters": _patch_filters(rule.filters)},
    }


def override(baselines: Sequence[Baseline]) -> str:
    """The JSON that AWS-RunPatchBaseline's parameter BaselineOverride points to (AWS: using the BaselineOverride parameter).

    A run with it uploads no compliance report, and takes no InstallOverrideList beside it.

    Raises:
        ValueError: two are of one operating system, of which AWS would take one.
    """
    systems = [one.operating_system for one in baselines]
    if len(set(systems)) != len(systems):
        raise ValueError(f"found two baselines of one operating system among {', '.join(systems)}; allowed is one of each")
    made = [{**body(one), "OperatingSystem": one.operating_system, "Sources": []} for one in baselines]
    return json.dumps(made, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


# --- What is otherwise --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one cell has of one operating system.

    Attributes:
        own: the baseline of the wanted name; None if there is none.
        used: the baseline that patches the hosts of each patch group.
        registered: groups for which that one is registered; the others get the account's default.
    """

    own: Baseline | None
    used: Mapping[str, Baseline] = field(default_factory=dict)
    registered: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """One thing that is otherwise than wanted.

    Attributes:
        what: `baseline` for all of it, `patch_group` for who uses it, else the part of the baseline.
        wanted: as text; empty for nothing.
        found: as text; empty for nothing.
    """

    what: str
    wanted: str
    found: str
    sentence: str


class Apply(StrEnum):
    """What a run does about patch baselines that are otherwise than the policy wants them."""

    NONE = "none"  # the plan says so
    CREATE_AND_UPDATE = "create_and_update"  # keeps its own, registers them for patch groups that have none
    TAKE_OVER_GROUPS = "take_over_groups"  # registers them also for patch groups that another baseline patches
    OVERRIDE = "override"  # changes none of them: Installs go by the policy's own (`overrides`)

    @property
    def changes(self) -> bool:
        """Whether anything is changed in the accounts."""
        return self in (Apply.CREATE_AND_UPDATE, Apply.TAKE_OVER_GROUPS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """What a stage does about the baseline of one operating system in one cell before its first Scan.

    Attributes:
        name: of the baseline.
        creates: it does not exist yet.
        changes: what of it is put back, a sentence each.
        groups: patch groups of the stage's hosts for which it is to be registered: those that have none of their own.
        takes: patch groups of the stage's hosts that another baseline patches, with that one's id: it is replaced there, if it
            is still that one.
    """

    cell: Cell
    operating_system: str
    name: str
    creates: bool = False
    changes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    takes: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.creates or self.changes or self.groups or self.takes)

    def __str__(self) -> str:
        does = ["creates it"] if self.creates else []
        does += [f"changes it in {len(self.changes)} points"] if self.changes else []
        does += [f"registers it for patch group {', '.join(self.groups)}"] if self.groups else []
        does += [f"registers it for patch group {group} in place of {other}" for group, other in sorted(self.takes.items())]
        return f"baseline {self.name} in {self.cell}: {'; '.join(does)}"


def keeping(wanted: Baseline, found: Found, *, cell: Cell, apply: Apply) -> Keeping:
    """What it takes to bring one cell to what is wanted; nothing (false) where all is as wanted, or where the baseline of that
    name is somebody else's."""
    own = found.own
    if not apply.changes or (own is not None and own.description != wanted.description):
        return Keeping(cell=cell, operating_system=wanted.operating_system, name=wanted.name)
    others = {group: used.id for group, used in found.used.items() if own is None or used.id != own.id}
    takes = {group: other for group, other in others.items() if group in found.registered}
    return Keeping(
        cell=cell,
        operating_system=wanted.operating_system,
        name=wanted.name,
        creates=own is None,
        changes=tuple(one.sentence for one in differences(wanted, own)) if own is not None else (),
        # Of a group that is not registered the account's default may be ours: it is registered all the same.
        groups=tuple(sorted(group for group in found.used if group not in found.registered)),
        takes=takes if apply is Apply.TAKE_OVER_GROUPS else {},
    )


def drift(wanted: Baseline, found: Found) -> tuple[Drift, ...]:
    """How a cell differs from what is wanted: the baseline of that name first, then who is patched by another one."""
    drifts: list[Drift] = []
    own = found.own
    if own is None:
        rules = "; ".join(f"{rule.what}: {rule.how}" for rule in wanted.rules)
        said = f"baseline {wanted.name} does not exist; it would approve {rules}"
        drifts.append(Drift(what="baseline", wanted=wanted.name, found="", sentence=said))
    elif own.description != wanted.description:
        said = f"baseline {wanted.name} ({own.id}) exists and was not made for this policy, so it is never changed"
        drifts.append(Drift(what="baseline", wanted=wanted.description, found=own.description, sentence=said))
    else:
        drifts += differences(wanted, own)
    others: dict[str, list[str]] = {}
    for group, used in sorted(found.used.items()):
        if own is None or used.id != own.id:
            others.setdefault(used.id, []).append(group)
    for groups in others.values():
        used = found.used[groups[0]]
        whose = "" if {*groups} <= found.registered else ", by the account's default"
        said = (
            f"hosts of patch group {', '.join(groups)} are patched by baseline {used.name} ({used.id.rpartition('/')[2]})"
            f"{whose}, not by {wanted.name}"
        )
        drifts.append(Drift(what="patch_group", wanted=wanted.name, found=used.name, sentence=said))
        drifts += differences(wanted, used)
    return tuple(drifts)


def differences(wanted: Baseline, found: Baseline) -> tuple[Drift, ...]:
    """How the content of one baseline differs from what is wanted."""
    drifts = list(_rules(wanted, found))
    for what, verb, its, theirs in (
        ("approved_patches", "approves by name", _list(wanted.approved), _list(found.approved)),
        ("approved_patches_compliance_level", "gives those the level", wanted.approved_level, found.approved_level),
        (
            "approved_patches_enable_non_security", "takes those without an advisory:",
            _yes(wanted.approved_non_security), _yes(found.approved_non_security),
        ),
        ("rejected_patches", "rejects", _list(wanted.rejected), _list(found.rejected)),
        ("rejected_patches_action", "treats those as", wanted.rejected_action, found.rejected_action),
        ("global_filters", "looks only at", _filters(wanted.global_filters), _filters(found.global_filters)),
        ("sources", "has other repositories:", _list(wanted.sources), _list(found.sources)),
    ):  # fmt: skip
        if its != theirs:
            drifts.append(_drift(found, what, its, theirs, f"{verb} {theirs or 'nothing'}; wanted is {its or 'nothing'}"))
    return tuple(drifts)


def _rules(wanted: Baseline, found: Baseline) -> Iterator[Drift]:
    """Rules by their filters: the order of rules is no difference, for one that matches is enough."""
    missing = [rule for rule in wanted.rules if rule not in found.rules]
    extra = [rule for rule in found.rules if rule not in wanted.rules]
    for rule in missing:
        other = next((one for one in extra if one.filters == rule.filters), None)
        if other is not None:
            extra.remove(other)
            said = f"approves {rule.what}: {other.how}; wanted is: {rule.how}"
            yield _drift(found, "rules", f"{rule.what}: {rule.how}", f"{other.what}: {other.how}", said)
        else:
            said = f"has no rule for {rule.what}; wanted is: {rule.how}"
            yield _drift(found, "rules", f"{rule.what}: {rule.how}", "", said)
    for rule in extra:
        said = f"approves {rule.what}: {rule.how}; the policy wants no such rule"
        yield _drift(found, "rules", "", f"{rule.what}: {rule.how}", said)


def _drift(found: Baseline, what: str, wanted: str, theirs: str, said: str) -> Drift:
    return Drift(what=what, wanted=wanted, found=theirs, sentence=f"baseline {found.name} {said}")


def _list(values: Sequence[str]) -> str:
    return ", ".join(sorted(values))


def _filters(filters: Filters) -> str:
    return " and ".join(f"{name} {', '.join(values)}" for name, values in filters)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
