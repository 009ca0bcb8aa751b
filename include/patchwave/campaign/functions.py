"""What is to be done to each Lambda function, and what is done next?

Lambda patches a function's runtime by its update mode: `Auto` when AWS comes round to it, or whenever the function is updated;
`FunctionUpdate` then only; `Manual` never, it is pinned to one version. There is no list of runtime versions: which one a
function has is read from its configuration, before and after an update of it that changes nothing (Lambda developer guide,
"Understanding how Lambda manages runtime version updates"). What a runtime update does not close is the code's, and its owner's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from patchwave.campaign.definition import TagKey, Timeout
from patchwave.campaign.document import Part
from patchwave.campaign.findings import Finding
from patchwave.campaign.settling import Pause, Row, State
from patchwave.campaign.values import Cell

LAMBDA_FUNCTION = "AWS_LAMBDA_FUNCTION"
"""Inspector's type of the resources that are functions."""
RUNTIME_PATHS = ("/var/runtime/", "/var/lang/", "/usr/", "/lib/", "/lib64/")
"""Where AWS's own files lie in a function's environment; its code is in /var/task, its layers are in /opt."""
TRIES = 2
RUNTIMES = Path(__file__).parent / "lambda_runtimes.yaml"


class Mode(StrEnum):
    """A function's runtime update mode, in Lambda's words."""

    AUTO = "Auto"
    FUNCTION_UPDATE = "FunctionUpdate"
    MANUAL = "Manual"


class Wanted(StrEnum):
    """What the mode should be, in the policy's words."""

    AUTO = "auto"
    FUNCTION_UPDATE = "function_update"
    UNMANAGED = "unmanaged"


_MODES = {Wanted.AUTO: Mode.AUTO, Wanted.FUNCTION_UPDATE: Mode.FUNCTION_UPDATE}


class Functions(Part):
    """What campaigns do to Lambda functions."""

    update_on: Annotated[Wanted, Field(
        description="What each function's runtime update mode should be: `auto`, `function_update`, or `unmanaged`. With one of "
        "the first two a function that is pinned (`Manual`) is taken off its pin. Default unmanaged: modes stay, and pinned "
        "functions are left alone and listed, for somebody pinned them for a reason.",
    )] = Wanted.UNMANAGED  # fmt: skip
    owner_tag: Annotated[TagKey, Field(
        description="Tag that names who answers for a function's code; the report gives them what no runtime update closes. "
        "Default Owner.",
    )] = "Owner"  # fmt: skip
    expected: Annotated[Timeout, Field(
        description="How long one function takes, with unit; it is begun only if so much of the window is left. Default 5m.",
    )] = timedelta(minutes=5)  # fmt: skip
    timeout: Annotated[Timeout, Field(
        description="After how long without an end a function has failed, with unit. Default 30m: Lambda updates in seconds to "
        "minutes.",
    )] = timedelta(minutes=30)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A function, as Lambda has it now.

    Attributes:
        runtime: identifier (``python3.12``); empty for a container image.
        image: it is a container image, whose runtime is rebuilt with it.
        mode: empty if Lambda does not say (images).
        pinned: ARN of the runtime version that it is pinned to; empty for none.
        version: ARN of the runtime version that it runs.
        state: ``Active``, ``Inactive``, ``Pending``, ``Failed``.
        update: ``Successful``, ``InProgress``, ``Failed``.
        description: given again with an update, so that nothing else changes.
        modified: when its code or configuration was changed last, in Lambda's words.
    """

    arn: str
    cell: Cell
    name: str
    runtime: str
    tags: Mapping[str, str]
    image: bool = False
    mode: str = ""
    pinned: str = ""
    version: str = ""
    state: str = "Active"
    update: str = "Successful"
    why: str = ""
    description: str = ""
    modified: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFunction:
    """One function in the plan.

    Attributes:
        version: ARN of its runtime version when the plan was made: the way back.
        mode: what its update mode is set to; empty: it stays.
        update: whether it is updated, so that Lambda gives it the newest version of its runtime.
        deprecated: when AWS stops, or has stopped, patching its runtime; None: nobody has said.
        owner: who answers for its code; empty if no tag says so.
        by_runtime, by_code: its vulnerabilities that a runtime update may close, and that only new code does.
        deadline: the earliest for one of those.
        why_not: why it is left alone; empty if it is not.
        notes: what a person should know, a sentence each.
    """

    arn: str
    cell: Cell
    name: str
    runtime: str
    version: str
    mode_before: str = ""
    mode: str = ""
    update: bool = False
    deprecated: date | None = None
    owner: str = ""
    by_runtime: tuple[str, ...] = ()
    by_code: tuple[str, ...] = ()
    deadline: datetime | None = None
    why_not: str = ""
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is done to it."""
        return not self.why_not and (self.update or bool(self.mode))

    @property
    def what(self) -> str:
        """What is done to it, for people."""
        done = [f"update mode {self.mode_before} to {self.mode}"] if self.mode else []
        done += ["newest version of its runtime"] if self.update else []
        return ", ".join(done) or "nothing"


# --- planning -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def deprecations() -> Mapping[str, date | None]:
    """When AWS deprecates each runtime, as the data file has it."""
    found: Mapping[str, date | None] = yaml.safe_load(RUNTIMES.read_text(encoding="utf-8"))["runtimes"]
    return found


def mended_by_runtime(finding: Finding) -> bool:
    """Whether each of its packages lies in what AWS brings: then a newer runtime version may close it, and new code does not.

    Inspector names the file of a language's package; one that it calls an OS package is AWS's, too.
    """
    return bool(finding.packages) and all(
        package.manager == "OS" or (package.path or "").startswith(RUNTIME_PATHS) for package in finding.packages
    )


def is_about(finding: Finding, function: Function) -> bool:
    """Whether a finding is the function's: Inspector names functions by ARN, some with a version behind."""
    resource = finding.resource
    return resource == function.arn or resource.startswith(f"{function.arn}:")


def planned(
    functions: Iterable[Function],
    rule: Functions,
    findings: Sequence[Finding],
    *,
    deadlines: Mapping[str, datetime],
    now: datetime,
    only: Iterable[str] = (),
) -> tuple[PlannedFunction, ...]:
    """What is done to each of the functions of a stage.

    Args:
        findings: of the run, about anything.
        deadlines: the campaign's deadline of each vulnerability.
        only: the run is about these vulnerabilities alone; empty: about all.
    """
    its: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.resource_type == LAMBDA_FUNCTION:
            its.setdefault(_unversioned(finding.resource), []).append(finding)
    wanted = frozenset(only)
    ordered = sorted(functions, key=lambda one: (one.cell, one.name))
    return tuple(_planned(one, rule, its.get(one.arn, ()), deadlines, now, wanted) for one in ordered)


def _unversioned(arn: str) -> str:
    return ":".join(arn.split(":")[:7])


def _planned(
    one: Function, rule: Functions, findings: Sequence[Finding], deadlines: Mapping[str, datetime], now: datetime,
    only: frozenset[str],
) -> PlannedFunction:  # fmt: skip
    runtime = tuple(sorted({its.vulnerability for its in findings if mended_by_runtime(its)}))
    code = tuple(sorted({its.vulnerability for its in findings if not mended_by_runtime(its)}))
    moments = [deadlines[name] for name in (*runtime, *code) if name in deadlines]
    deprecated = deprecations().get(one.runtime)
    over = deprecated is not None and deprecated <= now.date()
    wanted = _MODES.get(rule.update_on)
    mode = wanted.value if wanted is not None and one.mode and one.mode != wanted.value else ""
    owner = one.tags.get(rule.owner_tag, "")
    notes = []
    if code:
        who = owner or f"nobody: it has no tag {rule.owner_tag}"
        notes.append(f"{', '.join(code)}: no runtime update closes what is in its code or layers; its owner is {who}")
    if deprecated is not None:
        told = "has deprecated" if over else "deprecates"
        notes.append(f"AWS {told} {one.runtime} on {deprecated:%Y-%m-%d}")
    elif one.runtime and one.runtime not in deprecations():
        notes.append(f"nobody has written down when AWS deprecates {one.runtime}")
    why_not = ""
    if one.image:
        why_not = "it is a container image: its runtime comes with the next build of it"
    elif one.state == "Failed":
        why_not = f"Lambda calls it Failed ({one.why or 'without a reason'}): somebody has to mend that first"
    elif over:
        why_not = f"{one.runtime} is deprecated: AWS patches it no more; move its code to a newer runtime"
    elif one.mode == Mode.MANUAL and not mode:
        why_not = f"it is pinned to {one.pinned or one.version}, and the policy leaves update modes alone"
    elif only and not only & {*runtime}:
        its = "only its code has them" if only & {*code} else "it has no finding of them"
        why_not = f"this run is about certain CVE ids, and {its}"
    return PlannedFunction(
        arn=one.arn, cell=one.cell, name=one.name, runtime=one.runtime or "image", version=one.version,
        mode_before=one.mode, mode="" if why_not else mode, update=not why_not, deprecated=deprecated, owner=owner,
        by_runtime=runtime, by_code=code, deadline=min(moments, default=None), why_not=why_not, notes=tuple(notes),
    )  # fmt: skip


# --- the rollout of one -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class SetMode:
    """Set the runtime update mode; with a version, pin it to that."""

    function: PlannedFunction
    mode: Mode
    version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """Give the configuration that it has again: Lambda puts it on the newest version of its runtime."""

    function: PlannedFunction
    description: str


Step = SetMode | Update
BACK = "back to the runtime version before"


def advanced(
    one: PlannedFunction, row: Row, seen: Function | None, rule: Functions, *, now: datetime, settling: timedelta
) -> tuple[Row, Step | None, Pause | None]:
    """One that has been begun: its row now, the call to make (which the row names already), or why it waits.

    Args:
        seen: as Lambda has it now; None: not at all.
        settling: how long what Lambda does not show yet may still be on its way.
    """
    if seen is None:
        return row.to(State.TERMINATED, "Lambda has it no more", at=now), None, None
    if row.state is State.SAVING:  # nothing is saved: the version before is the way back
        row = row.to(State.CHANGING, "", at=now, before=seen.version)
    # The time of what is under way counts from the last call: nobody may have been there for long.
    since = row.intended_at or row.began or now
    late = now >= since + rule.timeout
    pause = Pause(
        reason=f"{row.name}: Lambda says {seen.update or seen.state}", ends="Lambda calls its update Successful",
        until=since + rule.timeout,
    )  # fmt: skip
    if seen.update == "InProgress" or seen.state == "Pending":
        if late:
            return row.to(State.FAILED, f"still {seen.update} after {rule.timeout}", at=now, after=seen.version), None, None
        return row, None, pause
    if row.step == BACK:
        return _went_back(one, row, seen, pause, now=now, settling=settling, late=late)
    if row.step == "update" and (seen.update == "Failed" or seen.state == "Failed"):
        why = f"its update failed: {seen.why or 'Lambda gives no reason'}"
        if not row.before or seen.version == row.before:
            return row.to(State.FAILED, f"{why}; its runtime is the one before", at=now, after=seen.version), None, None
        return row.intending(BACK, at=now, reason=why), SetMode(function=one, mode=Mode.MANUAL, version=row.before), None
    return _on(one, row, seen, pause, now=now, settling=settling, late=late)


def _on(
    one: PlannedFunction, row: Row, seen: Function, pause: Pause, *, now: datetime, settling: timedelta, late: bool
) -> tuple[Row, Step | None, Pause | None]:
    fresh = row.intended_at is not None and now < row.intended_at + settling
    if one.mode and seen.mode != one.mode and row.step != "update":
        if row.step == "mode" and fresh:
            return row, None, pause
        if row.step == "mode" and (late or row.tries >= TRIES):
            return row.to(State.FAILED, f"its update mode is {seen.mode}, not {one.mode}", at=now), None, None
        return row.intending("mode", at=now), SetMode(function=one, mode=Mode(one.mode)), None
    if row.step == "update" and seen.modified != row.note:  # it has been updated since
        told = f"{row.before or 'unknown'} before, {seen.version or 'unknown'} now"
        if seen.version and seen.version != row.before:
            return row.to(State.PATCHED, f"runtime version: {told}", at=now, after=seen.version), None, None
        why = f"Lambda has no newer version of {one.runtime} for it"
        return row.to(State.ALREADY_COMPLIANT, why, at=now, after=seen.version), None, None
    if row.step == "update" and fresh:
        return row, None, pause
    if row.step == "update" and (late or row.tries >= TRIES):
        return row.to(State.FAILED, "Lambda accepted the update and does not show it", at=now, after=seen.version), None, None
    return row.intending("update", at=now, note=seen.modified), Update(function=one, description=seen.description), None


def _went_back(
    one: PlannedFunction, row: Row, seen: Function, pause: Pause, *, now: datetime, settling: timedelta, late: bool
) -> tuple[Row, Step | None, Pause | None]:
    if seen.pinned == row.before:
        why = f"{row.reason}; rolled back, and pinned to the runtime version before ({row.before})"
        return row.to(State.FAILED, why, at=now, after=seen.version), None, None
    if row.intended_at is not None and now < row.intended_at + settling:
        return row, None, pause
    if late or row.tries >= TRIES:
        why = f"{row.reason}; it could not be rolled back to {row.before}: do that by hand"
        return row.to(State.FAILED, why, at=now, after=seen.version), None, None
    return row.intending(BACK, at=now), SetMode(function=one, mode=Mode.MANUAL, version=row.before), None
