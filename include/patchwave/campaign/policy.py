"""What does a policy file say: by when must a finding be gone, and on which track is it handled?

`severity.classify` applies it; the campaign names it; the ledger keeps the copy that a run works from. Everything that a
change board would discuss is data here, none of it is in the code: the deadlines, the rows of the patch decision matrix, which
packages are a kernel.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StrictBool, StrictStr, field_validator, model_validator

from patchwave.campaign import document
from patchwave.campaign.definition import Broken, Line, Slug
from patchwave.campaign.document import FilePart, Misfit, Misplacement, Part
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.findings import Severity


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


def _days(written: object) -> int | None:
    if written is None:
        return None
    if isinstance(written, int) and not isinstance(written, bool) and 0 <= written <= 3650:
        return written
    raise ValueError("allowed is a whole number of days from 0 to 3650, or null for no deadline")


def _package_pattern(written: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._*-]*", written):
        raise ValueError("allowed is a package name in which * stands for any characters, such as 'kernel-*'")
    return written


Days = Annotated[int | None, Field(strict=True, ge=0, le=3650)]
PackagePattern = Annotated[StrictStr, AfterValidator(_package_pattern)]


class Deadlines(Part):
    """Days from the moment when Inspector first saw a finding until it must be gone; null for no deadline.

    There are no defaults: a deadline that nobody wrote down is nobody's.
    """

    critical: Annotated[Days, Field(description="Days for critical findings (score 9.0 to 10).", examples=[15])]
    high: Annotated[Days, Field(description="Days for high findings (7.0 to 8.9).", examples=[30])]
    medium: Annotated[Days, Field(description="Days for medium findings (4.0 to 6.9).", examples=[90])]
    low: Annotated[Days, Field(description="Days for low findings (0.1 to 3.9).", examples=[180])]
    informational: Annotated[Days, Field(description="Days for informational findings (0).", examples=[None])]
    untriaged: Annotated[Days, Field(
        description="Days for findings without a score yet. Unknown is not harmless: give them those of high findings, since "
        "most are scored medium or high once somebody looks, and critical ones are rarely left unscored.",
        examples=[30],
    )]  # fmt: skip

    @field_validator("*", mode="before")
    @classmethod
    def _is_days(cls, written: object) -> object:
        return _days(written)

    @model_validator(mode="after")
    def _more_severe_is_never_later(self) -> Self:
        ranked = [(name, getattr(self, name)) for name in ("critical", "high", "medium", "low", "informational")]
        found = []
        for (worse, sooner), (milder, later) in pairwise(ranked):
            if later is not None and (sooner is None or sooner > later):
                message = f"is later than {milder} ({later} days); allowed is at most that"
                found.append(Misplacement(loc=(worse,), message=message))
        if found:
            raise Misfit(found)
        return self

    def of(self, severity: Severity) -> timedelta | None:
        """The time that a finding of this severity has; None for no deadline."""
        days: int | None = getattr(self, severity.value)
        return None if days is None else timedelta(days=days)


class Row(Part):
    """One row of the patch decision matrix. Every condition that is given must hold; a row without any takes what is left."""

    track: Annotated[Track, Field(description="Track of the findings that this row matches.")]
    because: Annotated[Line, Field(description="The row in words, as the plan and the report quote it.")]
    resource_types: Annotated[tuple[StrictStr, ...], Field(
        description="Inspector's types of resource, * for any characters ('AWS_LAMBDA_*'). Default: EC2 instances, the only "
        "ones that a campaign patches.",
    )] = ("AWS_EC2_INSTANCE",)  # fmt: skip
    kernel: Annotated[StrictBool | None, Field(
        description="Whether a package with a fix is a kernel (see `kernel`). Default: does not matter.",
    )] = None  # fmt: skip
    severities: Annotated[tuple[Severity, ...], Field(
        description="Severities, one of which must be the finding's. Default: does not matter.",
    )] = ()  # fmt: skip
    exploit_known: Annotated[StrictBool | None, Field(
        description="Whether Inspector knows of an exploit. Default: does not matter.",
    )] = None  # fmt: skip

    @field_validator("track")
    @classmethod
    def _a_row_can_give_it(cls, value: Track) -> Track:
        if value is Track.NOT_PATCHABLE:
            raise ValueError("whether an OS patch mends a finding is a fact, not a row; allowed are the other tracks")
        return value

    @property
    def takes_what_is_left(self) -> bool:
        """Whether it matches every EC2 instance's finding."""
        conditions = (self.kernel is not None, bool(self.severities), self.exploit_known is not None)
        return not any(conditions) and self.concerns("AWS_EC2_INSTANCE")

    def concerns(self, resource_type: str) -> bool:
        """Whether the row is about resources of this type."""
        return any(fnmatch.fnmatchcase(resource_type, pattern) for pattern in self.resource_types)

    def matches(self, *, resource_type: str, kernel: bool, severity: Severity, exploit_known: bool) -> bool:
        """Whether all given conditions hold."""
        return (
            (self.kernel is None or self.kernel == kernel)
            and (not self.severities or severity in self.severities)
            and (self.exploit_known is None or self.exploit_known == exploit_known)
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


class Policy(FilePart):
    """One policy file."""

    name: Annotated[Slug, Field(description="Name of the policy: that of its file, without the ending.", examples=["standard"])]
    description: Annotated[Line, Field(description="One line: for whom the policy is.")]
    source: Annotated[Line, Field(description="Where the deadlines come from, so that an auditor can look them up.")]
    deadlines: Annotated[Deadlines, Field(description="Days by severity until a finding must be gone.")]
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
        if found:
            raise Misfit(found)
        return self


def parse(text: str, *, file: str) -> Policy:
    """The policy of a file's text.

    Raises:
        InvalidFile: with every problem that was found.
    """
    return document.fit(document.load(text, file=file), Policy)


def read(path: Path) -> Policy:
    """The policy of a file.

    Raises:
        InvalidFile: with every problem that was found; also if its name is not that of the file, which campaigns use.
    """
    text = document.text_of(path)
    policy = parse(text, file=str(path))
    if policy.name != path.stem:
        written = document.load(text, file=str(path))
        raise InvalidFile((written.problem(("name",), f"found {policy.name!r}; allowed is the name of the file, {path.stem!r}"),))
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
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema(mode="validation")}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"
