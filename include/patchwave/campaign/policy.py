"""What does a policy file say: by when must a finding be gone, and on which track is it handled?

`severity.classify` applies it; the campaign names it; the ledger keeps the copy that a run works from. Everything that a
change board would discuss is data here, none of it is in the code: the deadlines (what may stand there says `deadlines`), the
rows of the patch decision matrix, which packages are a kernel, what patch baselines should say (`baselines`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictStr,
    field_validator,
    model_serializer,
    model_validator,
)

from patchwave.campaign import baselines, deadlines, document, overrides, tables
from patchwave.campaign.baselines import Apply, PatchBaseline
from patchwave.campaign.deadlines import ByTable, Deadlines
from patchwave.campaign.definition import Broken, Line, Slug, Timeout
from patchwave.campaign.document import FilePart, Misfit, Misplacement, Part
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.findings import EC2_INSTANCE, Severity
from patchwave.campaign.managed_services import Rules
from patchwave.campaign.snapshots import Snapshots
from patchwave.campaign.stale_images import StaleImages


class Track(StrEnum):
    """How a finding is handled: the words of the patch decision matrix."""

    CRITICAL = "critical"  # at once
    STANDARD = "standard"  # minor update or enhancement: after a week, dev and staging first
    KERNEL = "kernel"  # needs a reboot: in a maintenance window only
    MANAGED_SERVICE = "managed_service"  # AWS runs the host: listed and routed
    REMEDIATION = "remediation"  # a resource that is not compliant, whatever Inspector finds on it
    NOT_PATCHABLE = "not_patchable"  # no OS patch mends it; the reason says why


class Reboot(StrEnum):
    """Whether a patched host reboots.

    There is no "only for a kernel": Systems Manager counts everything that was installed without a reboot as waiting for
    one (``InstalledPendingReboot``), and the host as not compliant until then.
    """

    IF_NEEDED = "if_needed"  # whoever has patches that wait for a reboot, within the stage's budget
    NEVER = "never"  # hosts stay pending_reboot until somebody reboots them


class KernelWindow(StrEnum):
    """Where a kernel update may be installed, and rebooted into."""

    REQUIRED = "required"  # in stages with a window only
    NOT_REQUIRED = "not_required"  # wherever a stage patches


def _package_pattern(written: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._*-]*", written):
        raise ValueError("allowed is a package name in which * stands for any characters, such as 'kernel-*'")
    return written


PackagePattern = Annotated[StrictStr, AfterValidator(_package_pattern)]


class Row(Part):
    """One row of the patch decision matrix. Every condition that is given must hold; a row without any takes what is left."""

    track: Annotated[Track, Field(description="Track of the findings that this row matches.")]
    because: Annotated[Line, Field(description="The row in words, as the plan and the report quote it.")]
    resource_types: Annotated[tuple[StrictStr, ...], Field(
        description="Inspector's types of resource, * for any characters ('AWS_LAMBDA_*'). Default: EC2 instances, the only "
        "ones that a campaign patches.",
    )] = (EC2_INSTANCE,)  # fmt: skip
    kernel: Annotated[StrictBool | None, Field(
        description="Whether a package with a fix is a kernel (see `kernel`). Default: does not matter.",
    )] = None  # fmt: skip
    severities: Annotated[tuple[Severity, ...], Field(
        description="Severities, one of which must be the finding's. Default: does not matter.",
    )] = ()  # fmt: skip
    exploit_known: Annotated[StrictBool | None, Field(
        description="Whether Inspector knows of an exploit. Default: does not matter.",
    )] = None  # fmt: skip
    due_within: Annotated[Timeout | None, Field(
        description="The longest time that `deadlines` gives to the finding, such as 14d: its track then comes from the same "
        "table as its deadline. Default: does not matter.",
        examples=["14d"],
    )] = None  # fmt: skip

    @field_validator("track")
    @classmethod
    def _a_row_can_give_it(cls, value: Track) -> Track:
        if value is Track.NOT_PATCHABLE:
            raise ValueError("whether an OS patch mends a finding is a fact, not a row; allowed are the other tracks")
        return value

    @model_serializer(mode="wrap")
    def _as_before_without_due_within(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = made(self)  # as in `Policy`: what is not used changes no digest
        if self.due_within is None:
            content.pop("due_within", None)
        return content

    @property
    def takes_what_is_left(self) -> bool:
        """Whether it matches every EC2 instance's finding."""
        conditions = (
            self.kernel is not None, bool(self.severities), self.exploit_known is not None, self.due_within is not None,
        )  # fmt: skip
        return not any(conditions) and self.concerns(EC2_INSTANCE)

    def concerns(self, resource_type: str) -> bool:
        """Whether the row is about resources of this type."""
        return any(fnmatch.fnmatchcase(resource_type, pattern) for pattern in self.resource_types)

    def matches(
        self, *, resource_type: str, kernel: bool, severity: Severity, exploit_known: bool, within: timedelta | None = None
    ) -> bool:
        """Whether all given conditions hold.

        Args:
            within: the time that the finding's deadline gives; None for no deadline.
        """
        return (
            (self.kernel is None or self.kernel == kernel)
            and (not self.severities or severity in self.severities)
            and (self.exploit_known is None or self.exploit_known == exploit_known)
            and (self.due_within is None or (within is not None and within <= self.due_within))
            and self.concerns(resource_type)
        )


class Kernel(Part):
    """Which packages are a kernel, so that their update needs a reboot."""

    packages: Annotated[Mapping[StrictStr, tuple[PackagePattern, ...]], Field(
        description="Patterns of package names by platform; a finding does not name its platform, so all are tried.",
        examples=[{"amazon_linux": ["kernel", "kernel-*"]}],
    )]  # fmt: skip
    exceptions: Annotated[tuple[PackagePattern, ...], Field(
        description="Patterns of packages that are called like a kernel and need no reboot (headers, tools, live patches). "
        "Default: none.",
    )] = ()  # fmt: skip
    window: Annotated[KernelWindow, Field(
        description="`required`: a kernel update is installed in stages that have a `window` only, and its reboot falls into it; "
        "in any other stage a host that waits for one is left out, and the plan says so. Default not_required, which is what "
        "policies of earlier versions meant.",
    )] = KernelWindow.NOT_REQUIRED  # fmt: skip

    @model_serializer(mode="wrap")
    def _as_before_without_window(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = made(self)  # as in `Policy`: what is not used changes no digest
        if not self.waits:
            content.pop("window", None)
        return content

    @property
    def waits(self) -> bool:
        """Whether a kernel update waits for a stage's window."""
        return self.window is KernelWindow.REQUIRED

    @cached_property
    def _known(self) -> re.Pattern[str]:
        return _any_of(pattern for patterns in self.packages.values() for pattern in patterns)

    @cached_property
    def _exceptions(self) -> re.Pattern[str]:
        return _any_of(self.exceptions)

    def includes(self, package: str) -> bool:
        """Whether that package is a kernel."""
        return bool(self._known.match(package)) and not self._exceptions.match(package)


def _any_of(patterns: Any) -> re.Pattern[str]:
    # "(?!)" matches nothing: an empty list of patterns has no package in it.
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or "(?!)")


class Emergency(Part):
    """What is urgent enough for an emergency campaign, and how long its stages soak."""

    due_within: Annotated[Timeout, Field(
        description="The longest time that `deadlines` gives to a finding which the watcher calls urgent. Default 3d: the "
        "shortest of CISA BOD 26-04.",
    )] = timedelta(days=3)  # fmt: skip
    soak: Annotated[Timeout, Field(
        description="How long a patched stage is watched in an emergency before the next one; a stage that soaks shorter by its "
        "campaign file keeps that. Default 15m: services have started, and a deadline of days is not spent on watching.",
    )] = timedelta(minutes=15)  # fmt: skip


class Policy(FilePart):
    """One policy file."""

    name: Annotated[Slug, Field(description="Name of the policy: that of its file, without the ending.", examples=["standard"])]
    description: Annotated[Line, Field(description="One line: for whom the policy is.")]
    source: Annotated[Line, Field(description="Where the deadlines come from, so that an auditor can look them up.")]
    deadlines: Annotated[Deadlines, Field(
        description="By when a finding must be gone: days by severity, or `table` and the inputs of one of the decision tables.",
    )]  # fmt: skip
    matrix: Annotated[tuple[Row, ...], Field(
        min_length=1,
        description="The patch decision matrix; the first row that matches gives the track, so the order counts. The last row "
        "must have no conditions. No default: it is what people approve a plan by.",
    )]  # fmt: skip
    kernel: Annotated[Kernel, Field(description="Which packages are a kernel. No default: it decides who reboots.")]
    reboot: Annotated[Reboot, Field(
        description="Whether a host reboots whose patches wait for it. Default if_needed: until then it is neither protected nor "
        "compliant. With never, such hosts end in the class pending_reboot, for somebody to reboot.",
    )] = Reboot.IF_NEEDED  # fmt: skip
    baselines: Annotated[tuple[PatchBaseline, ...], Field(
        description="What the patch baselines of the accounts should say, one for each operating system; the plan says where "
        "they say something else. Whether anything is changed there `apply_baselines` says. Default: none, and nobody looks.",
    )] = ()  # fmt: skip
    apply_baselines: Annotated[Apply, Field(
        description="What a run does about baselines that say something else, when a stage's gate is open and before its first "
        "Scan; the plan lists it. `none`: nothing. `create_and_update`: it creates and updates the policy's own, and registers "
        "them for patch groups of the stage's hosts that have no baseline registered. `take_over_groups`: also for those that "
        "another one is registered for, in its place. Hosts beyond the campaign that carry such a group are patched by them, "
        "too. `override`: nothing is changed, and Installs go by the policy's baselines all the same (BaselineOverride); AWS "
        "keeps no patch report of such an Install. Default: none, for baselines are an account's.",
    )] = Apply.NONE  # fmt: skip

    emergency: Annotated[Emergency | None, Field(
        description="For emergency campaigns of this policy: what is urgent, and how long stages soak then. Default: what is "
        "within 3d, and 15m.",
        examples=[{"due_within": "3d", "soak": "15m"}],
    )] = None  # fmt: skip
    snapshot: Annotated[Snapshots | None, Field(
        description="Whether a snapshot of its root volume is taken before a host is patched, so that it can come back by the "
        "campaign `rollback`. A host whose snapshot fails is not patched. Default: none is taken, for they cost money and time.",
        examples=[{"before": "in_place", "keep": "7d"}],
    )] = None  # fmt: skip
    managed_services: Annotated[Rules | None, Field(
        description="What stages with `managed_services` do to databases and functions. Default: as the fields' defaults say.",
        examples=[{"databases": {"minor_versions": "automatic"}, "functions": {"update_on": "auto"}}],
    )] = None  # fmt: skip

    stale_images: Annotated[StaleImages | None, Field(
        description="How Auto Scaling groups are handled whose launch template names an image that is older than the patches of "
        "their hosts, so that their next instance would be unpatched. Default: the report lists them as open.",
        examples=[{"handled": "next_image", "within": "14d"}],
    )] = None  # fmt: skip

    @model_serializer(mode="wrap")
    def _as_before_without_baselines_or_emergency(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A policy of earlier versions keeps its digest, by which gates tell whether it has changed since an approval.
        content: dict[str, Any] = made(self)
        if not self.baselines:
            content.pop("baselines", None)
        if self.apply_baselines is Apply.NONE:
            content.pop("apply_baselines", None)
        for name in ("emergency", "snapshot", "stale_images", "managed_services"):
            if getattr(self, name) is None:
                content.pop(name, None)
        return content

    @property
    def in_emergency(self) -> Emergency:
        """What holds in an emergency, also where the file says nothing of it."""
        return self.emergency or Emergency()

    @field_validator("deadlines", mode="before")
    @classmethod
    def _the_table_is_known(cls, value: object) -> object:
        return deadlines.names_known_table(value)

    @model_validator(mode="after")
    def _every_finding_has_a_row(self) -> Self:
        found = [
            Misplacement(loc=("matrix", number), message="matches everything, so that no row below it ever does; allowed is last")
            for number, row in enumerate(self.matrix[:-1])
            if row.takes_what_is_left
        ]
        if not self.matrix[-1].takes_what_is_left:
            found.append(Misplacement(loc=("matrix", len(self.matrix) - 1),
                                      message="has conditions; allowed is a last row without any, so that no finding of an EC2 "
                                      "instance is left without a track"))  # fmt: skip
        found += baselines.once_each(self.baselines)
        if self.apply_baselines is not Apply.NONE and not self.baselines:
            found.append(Misplacement(loc=("apply_baselines",), message=f"found '{self.apply_baselines}', and there is no "
                                      "section `baselines` to apply; allowed is none"))  # fmt: skip
        elif wrong := overrides.refusal(self):
            found.append(Misplacement(loc=("apply_baselines",), message=f"found 'override', and {wrong}"))
        if found:
            raise Misfit(found)
        return self


def parse(text: str, *, file: str, folder: Path | None = None) -> Policy:
    """The policy of a file's text, with a copy of the table that it names.

    Args:
        folder: where tables are looked for before those that are shipped.

    Raises:
        InvalidFile: with every problem that was found, also in the table.
    """
    written = document.load(text, file=file)
    given = written.data.get("deadlines")
    if isinstance(given, dict) and "table" in given and "decision_table" in given:
        # The copy is for stored policies: in a file it would hide the table that the file names.
        message = "is put in when the file is read; allowed is only `table`, the name of a table"
        raise InvalidFile((written.problem(("deadlines", "decision_table"), message),))
    policy = document.fit(written, Policy)
    if isinstance(policy.deadlines, ByTable):
        with_table = policy.deadlines.with_table(tables.find(policy.deadlines.table, folder=folder))
        policy = policy.model_copy(update={"deadlines": with_table})
    return policy


def read(path: Path) -> Policy:
    """The policy of a file.

    Raises:
        InvalidFile: with every problem that was found; also if its name is not that of the file, which campaigns use.
    """
    text = document.text_of(path)
    policy = parse(text, file=str(path), folder=path.parent / "tables")
    document.called_like_its_file(path, text, policy.name)
    return policy


def read_all(folder: Path) -> tuple[tuple[Policy, ...], tuple[Broken, ...]]:
    """All policies of a folder, ordered by file name, and the files that are broken: one never takes the others away."""
    policies: list[Policy] = []
    broken: list[Broken] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            policies.append(read(path))
        except InvalidFile as error:
            broken.append(Broken(file=path, problems=error.problems))
    return tuple(policies), tuple(broken)


def schema_text() -> str:
    """The JSON schema of a policy file for editors, as stored in docs/policy.schema.json."""
    return document.schema_text(Policy.model_json_schema(mode="validation"))
