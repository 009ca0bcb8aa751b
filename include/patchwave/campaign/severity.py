"""How urgent is each finding, and on which track is it handled?

The task `classify` calls this with what Inspector said; the plan and the report read the triage. Whether an OS patch mends a
finding is decided here, for that is a fact; everything else comes from the policy's rows and tables. Which hosts exist is the
fleet's question: a host that Inspector does not scan is known here only by its coverage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from patchwave.campaign import catalogues, deadlines, lasting
from patchwave.campaign.catalogues import Catalogue, Known
from patchwave.campaign.findings import EC2_INSTANCE, Coverage, Finding, Severity, VulnerablePackage
from patchwave.campaign.policy import Policy, Track
from patchwave.campaign.values import Cell, HostId

RANK: Mapping[Severity, int] = {
    # Untriaged stands beside high, as its deadline in the shipped policies: unknown is not harmless.
    Severity.CRITICAL: 0,
    Severity.HIGH: 1,
    Severity.UNTRIAGED: 1,
    Severity.MEDIUM: 2,
    Severity.LOW: 3,
    Severity.INFORMATIONAL: 4,
}
"""Most urgent first."""

NOT_YET_SCANNED = frozenset({"PENDING_INITIAL_SCAN", "NO_INVENTORY", "STALE_INVENTORY"})
"""Inspector's reasons that say nothing about the host's packages even where the scan status is ACTIVE (reference 7.3)."""

NO_COVERAGE = "NO_COVERAGE"
"""Our word for a host that Inspector does not list at all."""

LEFT_OVER = " (an OS patch mends only a part: "
"""Begins what is added to a row's sentence for a single finding."""

LANGUAGE_PACKAGES: Mapping[str, str] = {
    "GOBINARY": "a Go binary",
    "GOMOD": "a Go module",
    "PIP": "a Python package",
    "PIPENV": "a Python package",
    "POETRY": "a Python package",
    "PYTHONPKG": "a Python package",
    "NPM": "a Node.js package",
    "YARN": "a Node.js package",
    "NODEPKG": "a Node.js package",
    "JAR": "a Java archive",
    "POM": "a Java archive",
    "BUNDLER": "a Ruby gem",
    "GEMSPEC": "a Ruby gem",
    "CARGO": "a Rust crate",
    "COMPOSER": "a PHP package",
    "NUGET": "a .NET package",
    "DOTNET_CORE": "a .NET package",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """What follows from one finding.

    Attributes:
        finding: its ARN.
        resource: Inspector's id of the resource; an instance id where `host` is set.
        host: None where the resource is no EC2 instance.
        packages: the OS packages whose update mends it; empty where none does.
        deadline: None if the policy sets none. What no OS patch mends keeps its deadline: the clock of a
            vulnerability does not stop because somebody else must mend it.
        overdue: the deadline has passed.
        reason: the row of the matrix that matched, or why no OS patch helps.
        deadline_because: the deadline's table, the row that matched and its answers; empty in runs of before there was such a
            sentence.
        not_selected: why this run leaves it aside (restricted by its parameters); None if it is in.
    """

    finding: str
    cell: Cell
    resource: str
    host: HostId | None
    vulnerability: str
    severity: Severity
    track: Track
    packages: tuple[str, ...]
    first_seen: datetime
    deadline: datetime | None
    overdue: bool
    reason: str
    not_selected: str | None = None
    deadline_because: str = ""

    @property
    def selected(self) -> bool:
        """Whether this run is about it."""
        return self.not_selected is None

    @property
    def patchable(self) -> bool:
        """Whether an OS patch on a host mends it."""
        return self.track in PATCHED_TRACKS

    @property
    def wanted(self) -> bool:
        """Whether this run should patch its host because of it."""
        return self.selected and self.patchable


PATCHED_TRACKS = frozenset({Track.CRITICAL, Track.STANDARD, Track.KERNEL})
"""The tracks that end in a patch on a host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Restriction:
    """What the run's parameters narrow it to; an empty tuple does not narrow."""

    severities: tuple[Severity, ...] = ()
    vulnerabilities: tuple[str, ...] = ()

    def refuses(self, finding: Finding) -> str | None:
        """Why the finding is left aside; None if it is in. Where both are given, both must hold."""
        if self.severities and finding.severity not in self.severities:
            return f"the run is restricted to {', '.join(self.severities)}"
        if self.vulnerabilities and finding.vulnerability.upper() not in self.vulnerabilities:
            return f"the run is restricted to {', '.join(self.vulnerabilities)}"
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Triage:
    """Every finding with its track and deadline, and which hosts the scan can speak for.

    Attributes:
        at: the moment of the judgement; `overdue` is meant at it.
        policy: name of the policy that was applied.
        policy_digest: and exactly which text of it.
        restriction: what the run is narrowed to.
        assessments: most urgent first (deadline, severity, ARN); also those that are not selected.
        scanned: hosts that Inspector scans, in order.
        not_scanned: hosts that it lists but does not scan, with its reason.
        catalogue: CISA's catalogue that the deadlines go by, in words; empty if none matters.
        catalogue_released: the moment of its release.
    """

    at: datetime
    policy: str
    policy_digest: str
    restriction: Restriction
    assessments: tuple[Assessment, ...]
    scanned: tuple[HostId, ...]
    not_scanned: Mapping[HostId, str]
    catalogue: str = ""
    catalogue_released: datetime | None = None

    def selected(self) -> tuple[Assessment, ...]:
        """Those that the run is about."""
        return tuple(one for one in self.assessments if one.selected)

    def by_host(self) -> Mapping[HostId, tuple[Assessment, ...]]:
        """The selected ones of each host, most urgent first; also those that no OS patch mends."""
        hosts: dict[HostId, list[Assessment]] = {}
        for one in self.assessments:
            if one.selected and one.host is not None:
                hosts.setdefault(one.host, []).append(one)
        return {host: tuple(its) for host, its in hosts.items()}

    def wanted_by_host(self) -> Mapping[HostId, Sequence[Assessment]]:
        """The selected ones of each host that an OS patch mends, most urgent first; hosts without any are not there."""
        hosts: dict[HostId, list[Assessment]] = {}
        for one in self.assessments:
            if one.host is not None and one.not_selected is None and one.track in PATCHED_TRACKS:
                hosts.setdefault(one.host, []).append(one)
        return hosts

    def with_kernel(self) -> frozenset[HostId]:
        """Hosts that a kernel update waits for, whatever the run is restricted to: an Install takes all that is approved."""
        return frozenset(one.host for one in self.assessments if one.host is not None and one.track is Track.KERNEL)

    def hosts_to_patch(self) -> frozenset[HostId]:
        """Hosts with at least one selected finding that an OS patch mends."""
        return frozenset(one.host for one in self.assessments if one.wanted and one.host is not None)

    def elsewhere(self) -> tuple[Assessment, ...]:
        """Selected findings that no campaign on hosts can close: managed services, and what is not patchable."""
        return tuple(one for one in self.assessments if one.selected and not one.patchable)

    def by_severity(self) -> Mapping[Severity, int]:
        """How many selected findings of each severity; all severities are there, in Inspector's order."""
        counted = Counter([one.severity for one in self.assessments if one.selected])
        return {severity: counted[severity] for severity in Severity}

    def by_track(self) -> Mapping[Track, int]:
        """How many selected findings on each track; all tracks are there, in the matrix' order."""
        counted = Counter([one.track for one in self.assessments if one.selected])
        return {track: counted[track] for track in Track}

    def overdue(self) -> tuple[Assessment, ...]:
        """The selected ones whose deadline has passed."""
        return tuple(one for one in self.assessments if one.selected and one.overdue)

    def unknown(self, hosts: Iterable[HostId]) -> Mapping[HostId, str]:
        """Which of these hosts the scan cannot speak for, and Inspector's reason (`NO_COVERAGE`: it does not list them).

        Such a host is unknown, never clean, with findings or without.
        """
        scanned = frozenset(self.scanned)
        return {host: self.not_scanned.get(host, NO_COVERAGE) for host in hosts if host not in scanned}

    def without_finding(self) -> tuple[str, ...]:
        """Vulnerabilities that the run is restricted to and that were found nowhere: a typing error, or good news."""
        found = {one.vulnerability.upper() for one in self.assessments}
        return tuple(vulnerability for vulnerability in self.restriction.vulnerabilities if vulnerability not in found)

    def to_json(self) -> str:
        """In one piece, as runs of before stored it."""
        return _stored().dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Triage:
        """What `to_json` wrote."""
        return _stored().validate_json(text)

    def head(self) -> dict[str, Any]:
        """Everything but the assessments, as the ledger stores it."""
        head: dict[str, Any] = _stored().dump_python(replace(self, assessments=()), mode="json")
        del head[ROWS]
        return head

    def rows(self) -> Iterator[Any]:
        """The assessments, as the ledger stores them, one at a time."""
        dump = _row().dump_python
        return (dump(one, mode="json") for one in self.assessments)

    @classmethod
    @lasting.made()
    def from_rows(cls, head: Mapping[str, Any], rows: Iterable[Any]) -> Triage:
        """What `head` and `rows` wrote. Equal values are one object, as they are in a triage that was just made.

        Args:
            rows: taken one at a time; none gives a triage that can be asked about everything but its findings.
        """
        once: dict[Any, Any] = {}
        made = []
        for one in assessments_of(rows):
            # Nobody else has it yet, so it may still be changed.
            for name in _REPEATED:
                value = getattr(one, name)
                object.__setattr__(one, name, once.setdefault(value, value))
            lasting.in_utc(one, "first_seen", "deadline")
            made.append(one)
        return replace(_stored().validate_python({**head, ROWS: ()}), assessments=tuple(made))


ROWS = "assessments"
"""Where a triage has its rows in the ledger."""

_REPEATED = ("cell", "resource", "host", "vulnerability", "packages", "reason", "not_selected", "deadline_because")
"""What many assessments have in common."""


def assessments_of(rows: Iterable[Any]) -> Iterator[Assessment]:
    """What `Triage.rows` wrote, one at a time."""
    return map(_row().validate_python, rows)


@cache
def _stored() -> TypeAdapter[Triage]:
    return TypeAdapter(Triage)


@cache
def _row() -> TypeAdapter[Assessment]:
    return TypeAdapter(Assessment)


@lasting.made()
def classify(
    findings: Iterable[Finding],
    policy: Policy,
    *,
    now: datetime,
    coverage: Iterable[Coverage],
    severities: Collection[Severity] | None = None,
    vulnerabilities: Collection[str] | None = None,
    known: Known = catalogues.NOTHING,
) -> Triage:
    """The triage of all findings under a policy.

    Args:
        findings: each once (`deduplication.Newest`); taken one at a time, and none of them is kept.
        now: aware; a deadline before it is overdue.
        coverage: Inspector's, of the scope's hosts.
        severities: narrows the run to these; None or empty does not.
        vulnerabilities: narrows the run to these ids, in any case of letters; None or empty does not.
        known: what the policy's deadlines want to know beside the findings (`policy.deadlines.wanted`).

    Raises:
        ValueError: `now` has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError("now has no time zone; a deadline is a moment, not a wall clock")
    restriction = Restriction(
        severities=tuple(severity for severity in Severity if severity in (severities or ())),
        vulnerabilities=tuple(sorted({vulnerability.strip().upper() for vulnerability in vulnerabilities or ()})),
    )
    judge = _Judge(policy=policy, known=known, now=now, restriction=restriction)
    assessments = [judge.assess(finding) for finding in findings]
    _sort(assessments)
    scanned, not_scanned = _coverage(coverage)
    return Triage(
        at=now,
        policy=policy.name,
        policy_digest=policy.digest,
        restriction=restriction,
        assessments=tuple(assessments),
        scanned=scanned,
        not_scanned=not_scanned,
        catalogue=_named(known.catalogue),
        catalogue_released=known.catalogue.released if known.catalogue else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A finding that is judged otherwise than before.

    Attributes:
        before, after: its assessments.
        sentence: what has changed and why, for people.
    """

    before: Assessment
    after: Assessment
    sentence: str

    @property
    def sooner(self) -> bool:
        """Whether it has less time now, or is handled at once and was not."""
        moved = _moment(self.after.deadline) < _moment(self.before.deadline)
        return moved or (self.after.track is Track.CRITICAL and self.before.track is not Track.CRITICAL)


def _moment(deadline: datetime | None) -> float:
    return deadline.timestamp() if deadline is not None else math.inf


def reprioritised(
    triage: Triage,
    findings: Iterable[Finding],
    policy: Policy,
    known: Known,
    catalogue: Catalogue,
    *,
    now: datetime,
    assessments: Iterable[Assessment] | None = None,
) -> tuple[Triage, tuple[Change, ...]]:
    """The triage by a newer catalogue, and what has changed in it, most urgent first; the findings are the same.

    Args:
        triage: the one that the run goes by.
        findings: those that it was made of.
        known: what was known then; only its catalogue is replaced.
        catalogue: as it is now; one that is no news (`is_news`) changes nothing.
        assessments: the triage's own, taken one at a time, so that not both triages need to be in memory; None:
            `triage.assessments`.
    """
    if not is_news(catalogue, triage):
        return triage, ()
    judged = classify(
        findings, policy, now=now, coverage=(), severities=triage.restriction.severities,
        vulnerabilities=triage.restriction.vulnerabilities, known=replace(known, catalogue=catalogue),
    )  # fmt: skip
    newer = replace(judged, scanned=triage.scanned, not_scanned=triage.not_scanned)
    after = {one.finding: one for one in newer.assessments}
    changes = [
        Change(before=was, after=one, sentence=_changed(was, one))
        for was in (triage.assessments if assessments is None else assessments)
        if (one := after.get(was.finding)) is not None and (was.deadline, was.track) != (one.deadline, one.track)
    ]
    return newer, tuple(sorted(changes, key=lambda change: _urgency(change.after)))


def is_news(catalogue: Catalogue, triage: Triage) -> bool:
    """Whether the triage was made without it.

    One that was released before the triage's own is none: an old copy must not take back what a newer one has said.
    """
    return triage.catalogue_released is None or catalogue.released > triage.catalogue_released


def _changed(before: Assessment, after: Assessment) -> str:
    what = []
    if before.deadline != after.deadline:
        what.append(f"deadline {_when(before.deadline)} becomes {_when(after.deadline)}{' (overdue)' if after.overdue else ''}")
    if before.track is not after.track:
        what.append(f"track {before.track.value} becomes {after.track.value}")
    return f"{after.vulnerability} on {after.resource}: {', '.join(what)}: {after.deadline_because}"


def _when(deadline: datetime | None) -> str:
    return f"{deadline:%Y-%m-%d %H:%M} UTC" if deadline is not None else "none"


def _named(catalogue: Catalogue | None) -> str:
    if catalogue is None:
        return ""
    return f"{catalogue} from {catalogue.source}{': ' if catalogue.note else ''}{catalogue.note}"


def _sort(assessments: list[Assessment]) -> None:
    """Most urgent first, as `_urgency` says; by one word at a time, for a million keys of four would be 100 MiB."""
    assessments.sort(key=lambda one: one.finding)
    assessments.sort(key=lambda one: RANK[one.severity])
    assessments.sort(key=lambda one: one.deadline or _NEVER)


_NEVER = datetime.max.replace(tzinfo=UTC)


def _urgency(assessment: Assessment) -> tuple[bool, float, int, str]:
    deadline = assessment.deadline
    moment = deadline.timestamp() if deadline else 0.0
    return deadline is None, moment, RANK[assessment.severity], assessment.finding


@dataclass(kw_only=True, slots=True)
class _Judge:
    """Judges findings one by one, keeps none of them, and remembers what many of them have in common.

    Attributes:
        said: each text once, however many findings it is about: a page of Inspector's brings new copies of the same few thousand
            ids, and a million of those are most of the triage's memory.
        names: each combination of packages once.
        kernels: whether a package is a kernel.
        rows: track and sentence of the row that findings of one kind match; None if none does.
    """

    policy: Policy
    known: Known
    now: datetime
    restriction: Restriction
    memo: deadlines.Memo = field(default_factory=deadlines.Memo)
    said: dict[str, str] = field(default_factory=dict)
    names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    kernels: dict[str, bool] = field(default_factory=dict)
    rows: dict[tuple[str, bool, Severity, bool, timedelta | None], tuple[Track, str] | None] = field(default_factory=dict)

    def assess(self, finding: Finding) -> Assessment:
        packages = mended_by_os(finding)
        due = self.policy.deadlines.due(finding, self.known, self.memo)
        track, reason = self._track(finding, packages, due.within)
        once = self.said.setdefault
        resource = once(finding.resource, finding.resource)
        names = tuple([package.name for package in packages]) if track in PATCHED_TRACKS else ()
        return Assessment(
            finding=finding.arn,
            cell=finding.cell,
            resource=resource,
            host=HostId(resource) if finding.resource_type == EC2_INSTANCE else None,
            vulnerability=once(finding.vulnerability, finding.vulnerability),
            severity=finding.severity,
            track=track,
            packages=self.names.setdefault(names, names),
            first_seen=finding.first_seen,
            deadline=due.at,
            overdue=due.at is not None and due.at < self.now,
            reason=once(reason, reason),
            deadline_because=once(due.because, due.because),
            not_selected=self.restriction.refuses(finding),
        )

    def _track(self, finding: Finding, packages: tuple[VulnerablePackage, ...], within: timedelta | None) -> tuple[Track, str]:
        """The track, and the sentence that says why."""
        if finding.resource_type == EC2_INSTANCE and not packages:
            return Track.NOT_PATCHABLE, why_not_patchable(finding)
        kernel = any(map(self._is_kernel, [package.name for package in packages]))
        kind = (finding.resource_type, kernel, finding.severity, finding.exploit_known, within)
        if kind not in self.rows:
            self.rows[kind] = self._first_row(kind)
        row = self.rows[kind]
        if row is None:
            return Track.NOT_PATCHABLE, why_not_patchable(finding)
        left_over = _left_over(finding, packages)
        return (row[0], row[1] + left_over) if left_over else row

    def _is_kernel(self, package: str) -> bool:
        if package not in self.kernels:
            self.kernels[package] = self.policy.kernel.includes(package)
        return self.kernels[package]

    def _first_row(self, kind: tuple[str, bool, Severity, bool, timedelta | None]) -> tuple[Track, str] | None:
        resource_type, kernel, severity, exploit_known, within = kind
        return next(
            (
                (row.track, f"row {number} of policy {self.policy.name}: {row.because}")
                for number, row in enumerate(self.policy.matrix, 1)
                if row.matches(
                    resource_type=resource_type, kernel=kernel, severity=severity, exploit_known=exploit_known, within=within
                )
            ),
            None,
        )


def _is_os(package: VulnerablePackage) -> bool:
    return package.manager.upper() == "OS"


def mended_by_os(finding: Finding) -> tuple[VulnerablePackage, ...]:
    """The OS packages of a finding whose update mends it.

    Inspector's word about the finding counts for packages about which it says nothing: ``YES`` means that each has a fix,
    ``NO`` that none has; ``PARTIAL`` leaves it to each package's own version.
    """
    if finding.fix == "NO":
        return ()
    every = finding.fix == "YES"
    return tuple([one for one in finding.packages if _is_os(one) and (every or one.fixed_in is not None)])


def why_not_patchable(finding: Finding) -> str:
    """One sentence: why no OS patch on a host mends this finding."""
    if finding.resource_type != EC2_INSTANCE:
        return _other_resource(finding.resource_type)
    if not finding.packages:
        return "Inspector names no package, so there is nothing to update"
    if not any(_is_os(package) for package in finding.packages):
        first = finding.packages[0]
        kind = LANGUAGE_PACKAGES.get(first.manager.upper(), f"a package of {first.manager}")
        where = f" in {first.path}" if first.path else ""
        return f"{first.name} is {kind}{where}: whoever builds or installs it must update it, the operating system cannot"
    names = ", ".join(package.name for package in finding.packages if _is_os(package))
    return f"no fix is available yet for {names}"


def _other_resource(resource_type: str) -> str:
    kind: Literal["image", "other"] = "image" if "IMAGE" in resource_type or "ECR" in resource_type else "other"
    if kind == "image":
        return f"{resource_type} is an image: it is rebuilt, not patched"
    return f"{resource_type} is no EC2 instance, so no OS patch reaches it"


def _left_over(finding: Finding, packages: tuple[VulnerablePackage, ...]) -> str:
    """What of a partly mended finding stays open, so that nobody takes the host for clean afterwards."""
    if finding.resource_type != EC2_INSTANCE or len(packages) == len(finding.packages):
        return ""
    rest = ", ".join(sorted({package.name for package in finding.packages if package not in packages}))
    return f"{LEFT_OVER}{rest} stays)"


def _coverage(coverage: Iterable[Coverage]) -> tuple[tuple[HostId, ...], Mapping[HostId, str]]:
    """Hosts that are scanned, and those that are not, with the reason; a host with several rows is scanned if one says so."""
    scanned: set[HostId] = set()
    refused: dict[HostId, str] = {}
    for one in coverage:
        if one.active and one.reason not in NOT_YET_SCANNED:
            scanned.add(one.host)
        else:
            refused.setdefault(one.host, one.reason)
    return tuple(sorted(scanned)), {host: refused[host] for host in sorted(refused) if host not in scanned}
