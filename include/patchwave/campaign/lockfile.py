"""Which exact patches did Dev receive, and does a host have these and no others?

`build` makes the lockfile from what Patch Manager and the inventory say of the hosts that Dev patched; `override_list` writes
it as the InstallOverrideList from which alone the later stages are patched; `compare` and `drift` say where a host differs
from it, `judged` what it lacks by it. Who reads AWS is `patchwave.aws.patching`, who puts the list where AWS reads it is
`patchwave.aws.lists`.

Patch Manager tells a version only in the title of a row that the host's baseline approves. A package that it calls
InstalledOther (the baseline of Prod waits seven days, or the update was withdrawn) has no title, and a Missing row names what
is newest, not what is there: then the software inventory decides, if it is younger than the Install.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from patchwave.campaign import document, evidence, versions
from patchwave.campaign.errors import InvalidFile, Permanent
from patchwave.campaign.findings import Finding
from patchwave.campaign.rollout import PatchState
from patchwave.campaign.values import HostId
from patchwave.campaign.versions import Scheme

FORMAT = "patchwave lockfile 1"
DOCUMENT = "lockfile"
"""Name of a run's lockfile in the ledger."""
COMPARED = "compared:"
"""How the names of the documents begin that say, a stage each, which hosts had what is locked."""

RELEASE_PACKAGE = "system-release"
"""Its version is the release of Amazon Linux 2023 whose repositories a host sees (AL2023 user guide, deterministic upgrades)."""

MOST_NAMED = 5
"""Packages that the reason of one host's state spells out."""

NOBODY_HAS = "patchwave-installs-nothing"
"""No distribution has a package of this name."""

HAS = frozenset({"installed", "installedpendingreboot", "installedrejected"})
"""Patch states whose row has the installed version in its title, as `PatchRow.state` spells them."""
WANTS = frozenset({"missing", "failed"})
"""Patch states whose title is that of the newest approved update, which is not on the host."""
OTHER = "installedother"
"""Installed, and approved by no rule: the row has neither title nor classification."""
NOT_APPLICABLE = "notapplicable"


class NotLocked(Permanent):
    """The lockfile has nothing for this platform: Dev had no host of it."""


# --- what is read of hosts ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class PatchRow:
    """One row of DescribeInstancePatches.

    Attributes:
        id: on Linux ``name.arch``, on Windows the KB number.
        title: ``name.arch:epoch:version-release`` (apt: ``name.arch:version``), on Windows a sentence; empty for
            InstalledOther.
        state: AWS's word in lower case without underscores: ``installedpendingreboot``.
        installed_at: None where it is not installed.
        vulnerabilities: what it mends; AWS says them of missing and failed patches only.
    """

    id: str
    title: str
    state: str
    classification: str = ""
    severity: str = ""
    installed_at: datetime | None = None
    vulnerabilities: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The EVR in the title, epoch written out; empty for Windows and where there is no title."""
        named, _, version = self.title.partition(":")
        return versions.written_out(version) if named == self.id else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPatches:
    """What is on one host, as far as AWS tells.

    Attributes:
        rows: its patches in every state but NotApplicable.
        packages: newest version of packages in the software inventory, by ``name.arch``; only those that were asked for.
        sources: source package of each, where the inventory names it.
        captured: when that inventory was taken; None: there is none.
        release: AL2023 release of its repositories; empty where that is not known.
        began: when its Install was taken by AWS; None if it had none.
        ended: when the Install was over; an inventory of before proves nothing about it.
    """

    host: HostId
    name: str
    platform: str
    rows: tuple[PatchRow, ...]
    packages: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    captured: datetime | None = None
    release: str = ""
    began: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Advisory:
    """Which vulnerability an update of a package mends.

    Attributes:
        package: its name, without the architecture.
        fixed_in: first version that mends it; empty: any.
        id: of the advisory (``ALAS2023-2026-123``, ``USN-7089-1``); empty where only the vulnerability is known.
        vulnerability: CVE id; empty where only the advisory is known.
    """

    platform: str
    package: str
    fixed_in: str = ""
    id: str = ""
    vulnerability: str = ""


def advisories(findings: Iterable[Finding], platforms: Mapping[HostId, str]) -> tuple[Advisory, ...]:
    """What Inspector's findings say about packages of the operating system.

    Args:
        platforms: platform by host; findings on other hosts say nothing about it.
    """
    return tuple(
        Advisory(
            platform=platforms[finding.host],
            package=package.name,
            fixed_in=package.fixed_in or "",
            id="" if finding.vulnerability.startswith("CVE-") else finding.vulnerability,
            vulnerability=vulnerability,
        )
        for finding in findings
        if finding.host in platforms
        for package in finding.packages
        if package.manager == "OS" and package.fixed_in
        for vulnerability in _vulnerabilities(finding)
    )


def _vulnerabilities(finding: Finding) -> Sequence[str]:
    """Of a CVE itself; of a vendor's advisory those that it mends, or one that nobody named."""
    if finding.vulnerability.startswith("CVE-"):
        return [finding.vulnerability]
    return [one for one in finding.related if one.startswith("CVE-")] or [""]


# --- the lockfile -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class LockedPatch:
    """One patch that Dev has, exactly.

    Attributes:
        id: ``name.arch``, or the KB number.
        version: EVR, epoch written out; empty on Windows.
        title: word for word what Patch Manager calls it: the list pins by it.
        received: a Dev host got it in this run; if not, all of them had it before.
        advisories: as far as findings named them.
        vulnerabilities: that it mends, as far as findings and earlier Scans named them.
        source: source package, where an inventory named it.
    """

    id: str
    version: str
    title: str
    received: bool
    classification: str = ""
    severity: str = ""
    advisories: tuple[str, ...] = ()
    vulnerabilities: tuple[str, ...] = ()
    source: str = ""

    @property
    def scheme(self) -> Scheme:
        """By whose rules its version is compared."""
        return versions.scheme_of(self.id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """Hosts of Dev that have different versions of one package.

    Attributes:
        hosts: names by version; the newest version is the one that is locked.
    """

    id: str
    hosts: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        said = "; ".join(f"{version} on {', '.join(names)}" for version, names in sorted(self.hosts.items()))
        return f"{self.id} differs in Dev: {said}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformLock:
    """What Dev's hosts of one platform have.

    Attributes:
        platform: as Systems Manager says it (``Amazon Linux 2023``).
        hosts: names of the Dev hosts that it was read from.
        release: newest AL2023 release among them; None on other platforms, and where no inventory says it.
        snapshot: moment at whose Ubuntu snapshot the archive shows what the last of them saw (``20260303T220000Z``).
        remarks: what is not known, a sentence each.
    """

    platform: str
    hosts: tuple[str, ...]
    patches: tuple[LockedPatch, ...]
    release: str | None = None
    snapshot: str | None = None
    conflicts: tuple[Conflict, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lockfile:
    """The exact patches that are promoted; its digest names them.

    Attributes:
        derived_from: digest of the lockfile that an emergency one was cut from.
        vulnerabilities: those that an emergency one is about; empty: it is a whole one.
    """

    platforms: tuple[PlatformLock, ...]
    derived_from: str | None = None
    vulnerabilities: tuple[str, ...] = ()

    def on(self, platform: str) -> PlatformLock | None:
        """What is locked for a platform; None if Dev had no host of it."""
        return next((one for one in self.platforms if one.platform == platform), None)

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON; the same patches from the same hosts have the same, whenever they are written."""
        return evidence.digest(content(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a lockfile comes from; stands beside it in its file and is no part of its digest."""

    run: str
    stage: str
    at: datetime


def build(
    hosts: Iterable[HostPatches],
    *,
    since: datetime,
    known: Iterable[Advisory] = (),
    wanted: Iterable[PatchRow] = (),
) -> Lockfile:
    """The lockfile of what these hosts have.

    All approved patches are locked, not only those of this run: a host of Prod may lack what Dev got a month ago.

    Args:
        hosts: those that Dev patched, or found compliant.
        since: when the run began.
        known: advisories, as `advisories` makes them.
        wanted: rows of Dev's Scans before, which name the vulnerabilities of what was missing.
    """
    by_platform: dict[str, list[HostPatches]] = {}
    for host in sorted(hosts, key=lambda one: (one.platform, one.name, one.host)):
        by_platform.setdefault(host.platform, []).append(host)
    mended: dict[tuple[str, str], set[str]] = {}
    for row in wanted:
        mended.setdefault((row.id, row.title), set()).update(row.vulnerabilities)
    told = list(known)
    return Lockfile(
        platforms=tuple(
            _platform(name, some, since, [one for one in told if one.platform == name], mended)
            for name, some in by_platform.items()
        )
    )


@dataclass(kw_only=True, slots=True)
class _Seen:
    """One version of one package among Dev's hosts."""

    row: PatchRow
    title: str
    hosts: list[str] = field(default_factory=list)
    received: bool = False
    source: str = ""


def _platform(
    platform: str,
    hosts: Sequence[HostPatches],
    since: datetime,
    known: Sequence[Advisory],
    mended: Mapping[tuple[str, str], set[str]],
) -> PlatformLock:
    seen: dict[str, dict[str, _Seen]] = {}
    remarks: list[str] = []
    for host in hosts:
        for row in host.rows:
            received = row.installed_at is not None and row.installed_at >= since
            if row.state not in HAS and not (row.state == OTHER and received):
                continue
            version, title = _locked_as(row, host)
            if not title:
                remarks.append(
                    f"{row.id} was installed on {host.name} in this run beside what the baseline approves, and neither Patch "
                    "Manager nor the inventory says which version: it is not locked"
                )
                continue
            one = seen.setdefault(row.id, {}).setdefault(version or title, _Seen(row=row, title=title))
            one.hosts.append(host.name)
            one.received = one.received or received
            one.source = one.source or host.sources.get(row.id, "")
    conflicts = [
        Conflict(id=name, hosts={version: tuple(one.hosts) for version, one in sorted(found.items())})
        for name, found in sorted(seen.items())
        if len(found) > 1
    ]
    releases = [host.release for host in hosts if host.release]
    begun = [host.began for host in hosts if host.began is not None]
    if _has_releases(platform) and not releases:
        remarks.append("no inventory names the AL2023 release (package system-release)")
    return PlatformLock(
        platform=platform,
        hosts=tuple(host.name for host in hosts),
        patches=tuple(_patch(name, _newest(name, found), known, mended) for name, found in sorted(seen.items())),
        release=versions.newest(releases, Scheme.RPM) if releases else None,
        snapshot=f"{max(begun).astimezone(UTC):%Y%m%dT%H%M%SZ}" if _has_snapshots(platform) and begun else None,
        conflicts=tuple(conflicts),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _has_releases(platform: str) -> bool:
    return platform.startswith("Amazon Linux 2023")


def _has_snapshots(platform: str) -> bool:
    return platform.startswith("Ubuntu")


def _locked_as(row: PatchRow, host: HostPatches) -> tuple[str, str]:
    """Version and title under which a row is locked; empty ones if nobody says."""
    if row.state in HAS and (row.version or versions.scheme_of(row.id) is Scheme.WINDOWS):
        return row.version, row.title or row.id
    if versions.scheme_of(row.id) is Scheme.WINDOWS:
        return "", row.id
    version = host.packages.get(row.id, "")
    if not version or _stale(host):
        return "", ""
    # apt's titles have no epoch where it is zero.
    plain = version.removeprefix("0:") if versions.scheme_of(row.id) is Scheme.DEB else version
    return version, f"{row.id}:{plain}"


def _newest(name: str, found: Mapping[str, _Seen]) -> tuple[str, _Seen]:
    scheme = versions.scheme_of(name)
    if scheme is Scheme.WINDOWS:  # a KB number with several titles: the one that came last
        title = max(found, key=lambda one: (found[one].row.installed_at or datetime.min.replace(tzinfo=UTC), one))
        return "", found[title]
    version = versions.newest(found, scheme)
    return version, found[version]


def _patch(
    name: str, newest: tuple[str, _Seen], known: Sequence[Advisory], mended: Mapping[tuple[str, str], set[str]]
) -> LockedPatch:
    version, one = newest
    mends = [advisory for advisory in known if _brings(advisory, name, version)]
    cves = set(one.row.vulnerabilities) | mended.get((name, one.title), set()) | {each.vulnerability for each in mends}
    named = {each.id for each in mends}
    return LockedPatch(
        id=name,
        version=version,
        title=one.title,
        received=one.received,
        classification=one.row.classification,
        severity=one.row.severity,
        advisories=(name,) if versions.scheme_of(name) is Scheme.WINDOWS else tuple(sorted(named - {""})),
        vulnerabilities=tuple(sorted(cves - {""})),
        source=one.source,
    )


def _brings(advisory: Advisory, name: str, version: str) -> bool:
    """Whether a package at this version has what the advisory demands."""
    scheme = versions.scheme_of(name)
    if scheme is Scheme.WINDOWS:
        return advisory.package == name
    if advisory.package not in (name, name.rpartition(".")[0]):
        return False
    return not advisory.fixed_in or versions.compare(version, advisory.fixed_in, scheme) >= 0


# --- its file -----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def _model() -> TypeAdapter[Lockfile]:
    return TypeAdapter(Lockfile)


@lru_cache(maxsize=1)
def _origin_model() -> TypeAdapter[Origin]:
    return TypeAdapter(Origin)


def content(lockfile: Lockfile) -> dict[str, Any]:
    """Plain data of it: what the digest is of."""
    data: dict[str, Any] = _model().dump_python(lockfile, mode="json")
    return data


def envelope(lockfile: Lockfile, origin: Origin) -> dict[str, Any]:
    """The document for the ledger and for a file: the lockfile, its digest, and where it comes from."""
    return {
        "format": FORMAT,
        "digest": lockfile.digest,
        "origin": _origin_model().dump_python(origin, mode="json"),
        "lockfile": content(lockfile),
    }


def opened(data: Any, *, file: str) -> tuple[Lockfile, Origin]:
    """What `envelope` made.

    Args:
        file: as people should read it in messages.

    Raises:
        InvalidFile: it is none, it was changed, or a field holds what it must not.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise InvalidFile((f"{file}: format: a lockfile begins with {FORMAT!r}; this file is none, or of another version",))
    missing = [name for name in ("digest", "origin", "lockfile") if name not in data]
    if missing:
        raise InvalidFile(tuple(f"{file}: {name}: is missing" for name in missing))
    made = evidence.digest(data["lockfile"])
    if made != data["digest"]:
        problem = f"{file}: digest: says {data['digest']}, the content has {made}: the file was changed after it was written"
        raise InvalidFile((problem,))
    try:
        return _model().validate_python(data["lockfile"]), _origin_model().validate_python(data["origin"])
    except ValidationError as error:
        raise InvalidFile(tuple(f"{file}: {document.dotted(one['loc'])}: {one['msg']}" for one in error.errors())) from error


def write(lockfile: Lockfile, origin: Origin, folder: Path) -> Path:
    """Write it into a folder, under its digest; the same content is written once.

    Raises:
        InvalidFile: the folder cannot be written to.
    """
    path = folder / f"{lockfile.digest}.json"
    try:
        path.write_bytes(evidence.canonical(envelope(lockfile, origin)) + b"\n")
    except OSError as error:
        raise InvalidFile((f"{path}:1: the file: cannot be written: {error.strerror or error}",)) from error
    return path


def read(path: Path) -> tuple[Lockfile, Origin]:
    """What `write` wrote.

    Raises:
        InvalidFile: it cannot be read, is no JSON, or is no lockfile as it was written.
    """
    return opened(document.load_json(document.text_of(path), file=str(path)).data, file=str(path))


# --- what it is for -----------------------------------------------------------------------------------------------------
def override_list(lockfile: Lockfile, platform: str) -> str:
    """The InstallOverrideList of a platform, in YAML (AWS: AWS-RunPatchBaseline, valid YAML content formats).

    On Linux each package is pinned by the whole title; on Windows the KB number is all that counts, for a title is there
    for people's information only.

    Where Dev had no patch at all, the list names a package that nobody has: what AWS does with an empty one is not written
    anywhere, and to take it for no list would install everything.

    Raises:
        NotLocked: Dev had no host of it.
    """
    locked = lockfile.on(platform)
    if locked is None:
        raise NotLocked(_why_not_locked(lockfile, platform))
    patches = [{"id": patch.id, "title": patch.title} for patch in locked.patches] or [{"id": NOBODY_HAS}]
    text: str = yaml.safe_dump({"patches": patches}, sort_keys=False, allow_unicode=True, width=1_000)
    return text


def unlocked(lockfile: Lockfile, platforms: Mapping[HostId, str], *, allowed: bool = False) -> dict[HostId, str]:
    """Hosts that are to be excluded because Dev had none of their platform, with the sentence that says so.

    Args:
        platforms: of the hosts of a later stage.
        allowed: the policy lets such hosts be patched by their baseline alone.
    """
    return untried([one.platform for one in lockfile.platforms], platforms, allowed=allowed)


def untried(had: Iterable[str], platforms: Mapping[HostId, str], *, allowed: bool = False) -> dict[HostId, str]:
    """The same before there is a lockfile: a plan knows already which platforms Dev has.

    Args:
        had: platforms of Dev's hosts.
    """
    tried = sorted(set(had))
    return {
        host: _why_untried(platform, tried)
        for host, platform in sorted(platforms.items())
        if platform not in tried and not allowed
    }


def _why_not_locked(lockfile: Lockfile, platform: str) -> str:
    return _why_untried(platform, [one.platform for one in lockfile.platforms])


def _why_untried(platform: str, had: Sequence[str]) -> str:
    it_had = ", ".join(had) or "none"
    return f"Dev had no host of {platform} (it had {it_had}), so nobody has tried its patches: it is not patched"


class Kind(StrEnum):
    """How a host differs from the lockfile."""

    OLDER = "older"  # the locked update is not on it
    NEWER = "newer"
    ABSENT = "absent"  # Windows: nothing is said of the KB
    BEYOND = "beyond"  # installed in this stage, and not in the lockfile
    UNKNOWN = "unknown"  # it has the package, and nobody says which version
    UNPINNED = "unpinned"  # Windows: the KB is there under another title; a list cannot pin it


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One package of one host that is not as the lockfile says.

    Attributes:
        locked: version (on Windows the title) in the lockfile; empty if it has none.
        found: what the host has, in words.
    """

    host: HostId
    name: str
    package: str
    kind: Kind
    locked: str
    found: str

    @property
    def drift(self) -> bool:
        """Whether it fails a stage: everything does but what no list can pin."""
        return self.kind is not Kind.UNPINNED

    def __str__(self) -> str:
        where = self.name if self.name == self.host else f"{self.name} ({self.host})"
        match self.kind:
            case Kind.BEYOND:
                return f"{where}: {self.package} was installed in this stage ({self.found}) and is not in the lockfile"
            case Kind.OLDER:
                after = "; it was not installed: it failed, was withdrawn, or the host's repositories do not show it"
            case Kind.ABSENT:
                after = "; it was withdrawn, replaced by a later one, or does not apply to this host"
            case Kind.UNPINNED:
                after = "; a KB number cannot be pinned to one of its versions"
            case Kind.NEWER | Kind.UNKNOWN:
                after = ""
        return f"{where}: {self.package} is {self.found}, the lockfile says {self.locked}{after}"


def compare(locked: PlatformLock, host: HostPatches, *, since: datetime | None = None) -> tuple[Difference, ...]:
    """Where a host differs from the lockfile. A package that the host does not have at all is none of its business.

    Args:
        since: when the stage began; patches installed from then on that are not locked are a difference, too. None: what
            the host has beside the lockfile is not looked at.
    """
    rows: dict[str, list[PatchRow]] = {}
    for row in host.rows:
        rows.setdefault(row.id, []).append(row)
    found = []
    for patch in locked.patches:
        said = _on_windows if patch.scheme is Scheme.WINDOWS else _on_linux
        difference = said(patch, host, rows.get(patch.id, []))
        if difference is not None:
            found.append(difference)
    pinned = {patch.id for patch in locked.patches}
    for name, some in rows.items():
        for row in some:
            new = since is not None and row.installed_at is not None and row.installed_at >= since
            if new and name not in pinned and row.state in {*HAS, OTHER}:
                said_version = row.version or host.packages.get(name) or row.title or "version unknown"
                found.append(_difference(host, name, Kind.BEYOND, "", said_version))
    return tuple(found)


def drift(
    lockfile: Lockfile, platform: str, installed: Iterable[HostPatches], *, since: datetime | None = None
) -> tuple[Difference, ...]:
    """What fails a stage: every difference of these hosts that a list could have avoided, in the order of the hosts.

    Raises:
        NotLocked: Dev had no host of the platform.
    """
    locked = lockfile.on(platform)
    if locked is None:
        raise NotLocked(_why_not_locked(lockfile, platform))
    return tuple(one for host in installed for one in compare(locked, host, since=since) if one.drift)


def judged(locked: PlatformLock, state: PatchState, host: HostPatches, *, final: bool = False) -> PatchState | None:
    """A host's report by the lockfile instead of by the baseline: missing is what is locked and not there.

    What the baseline approves beyond the lockfile is left to the next run: Dev has not tried it. A version that nobody knows
    counts as missing, for unknown is never taken for right.

    Args:
        final: the host's next inventory was waited for long enough.

    Returns:
        None while it is worth waiting: the Install is over, and the inventory that would tell a version is older than it.
    """
    differences = compare(locked, host)
    unknown = sum(one.kind is Kind.UNKNOWN for one in differences)
    if unknown and host.ended is not None and host.captured is not None and not final:
        return None
    lacking = [one for one in differences if one.kind in (Kind.OLDER, Kind.ABSENT, Kind.UNKNOWN)]
    named = "; ".join(f"{one.package} is {one.found}, the lockfile says {one.locked}" for one in lacking[:MOST_NAMED])
    more = f"; and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
    return replace(state, missing=len(lacking), failed=0, note=named + more)


def unversioned(locked: PlatformLock, rows: Iterable[PatchRow]) -> tuple[str, ...]:
    """Locked packages of which these rows do not say the installed version: the inventory has to be asked for them."""
    by_id = {row.id: row for row in rows}
    asked = []
    for patch in locked.patches:
        row = by_id.get(patch.id)
        if row is None or patch.scheme is Scheme.WINDOWS or row.state == NOT_APPLICABLE:
            continue
        if row.state in HAS and row.version:
            continue
        if row.state in WANTS and row.version and versions.compare(row.version, patch.version, patch.scheme) <= 0:
            continue  # what is missing is the locked one, or an older one
        asked.append(patch.id)
    return tuple(asked)


def _difference(host: HostPatches, package: str, kind: Kind, locked: str, found: str) -> Difference:
    return Difference(host=host.host, name=host.name, package=package, kind=kind, locked=locked, found=found)


def _on_windows(patch: LockedPatch, host: HostPatches, rows: Sequence[PatchRow]) -> Difference | None:
    states = {row.state for row in rows}
    has = [row for row in rows if row.state in HAS]
    if any(not row.title or row.title == patch.title for row in has) or OTHER in states:
        return None
    if has:
        return _difference(host, patch.id, Kind.UNPINNED, patch.title, f"installed as {has[0].title}")
    if states & WANTS:
        return _difference(host, patch.id, Kind.OLDER, patch.title, "missing")
    if NOT_APPLICABLE in states or not patch.received:
        return None
    return _difference(host, patch.id, Kind.ABSENT, patch.title, "not reported at all")


def _on_linux(patch: LockedPatch, host: HostPatches, rows: Sequence[PatchRow]) -> Difference | None:
    row = next((row for row in rows if row.state != NOT_APPLICABLE), None)
    if row is None:
        return None  # not on the host: an update is no reason to install it
    version = row.version if row.state in HAS else ""
    if not version and row.state in WANTS and row.version and versions.compare(row.version, patch.version, patch.scheme) <= 0:
        return _difference(host, patch.id, Kind.OLDER, patch.version, f"older: {row.version} is {row.state}")
    if not version:
        version = host.packages.get(patch.id, "")
        same = bool(version) and versions.compare(version, patch.version, patch.scheme) == 0
        if not same and (not version or _stale(host)):
            return _difference(host, patch.id, Kind.UNKNOWN, patch.version, _unknown(row, host, version))
    order = versions.compare(version, patch.version, patch.scheme)
    if order == 0:
        return None
    return _difference(host, patch.id, Kind.NEWER if order > 0 else Kind.OLDER, patch.version, version)


def _stale(host: HostPatches) -> bool:
    """Whether its inventory is older than its Install, so that the versions in it prove nothing."""
    return host.ended is not None and (host.captured is None or host.captured < host.ended)


def _unknown(row: PatchRow, host: HostPatches, version: str) -> str:
    if not version:
        return f"of an unknown version: Patch Manager calls it {row.state}, and the inventory does not have it"
    return f"of an unknown version: the inventory of {host.captured:%Y-%m-%d %H:%M} UTC ({version}) is older than the Install"


# --- for people ---------------------------------------------------------------------------------------------------------
def changes(before: Lockfile, after: Lockfile) -> tuple[str, ...]:
    """What another lockfile would bring, a sentence each; an approval of the first one does not cover these."""
    said = []
    names = sorted({one.platform for one in (*before.platforms, *after.platforms)})
    for platform in names:
        was, now = before.on(platform), after.on(platform)
        if was is None or now is None:
            said.append(f"{platform}: is in the lockfile of {'now' if was is None else 'before'} only")
            continue
        old, new = ({patch.id: patch.version or patch.title for patch in one.patches} for one in (was, now))
        said += [f"{platform}: {name} {old[name]} is not in it any more" for name in sorted(old.keys() - new.keys())]
        said += [f"{platform}: {name} {new[name]} has come in" for name in sorted(new.keys() - old.keys())]
        said += [
            f"{platform}: {name} is {new[name]} instead of {old[name]}"
            for name in sorted(old.keys() & new.keys())
            if old[name] != new[name]
        ]
    return tuple(said)


def markdown(lockfile: Lockfile) -> str:
    """What a person judges at the gate of a later stage: each platform with what this run brought, then what was there."""
    lines = [f"Lockfile `{lockfile.digest}`"]
    if lockfile.derived_from:
        lines.append(f"Only for {', '.join(lockfile.vulnerabilities)}; cut from `{lockfile.derived_from}`")
    for one in lockfile.platforms:
        facts = [f"{len(one.patches)} patches", f"read from {_cell(', '.join(one.hosts))}"]
        facts += [f"release {one.release}"] if one.release else []
        facts += [f"snapshot {one.snapshot}"] if one.snapshot else []
        lines += ["", f"### {_cell(one.platform)}", "", "; ".join(facts), ""]
        lines += [f"- Differs: {_cell(str(conflict))}; the newest is locked" for conflict in one.conflicts]
        lines += [f"- Not known: {_cell(remark)}" for remark in one.remarks]
        received = [patch for patch in one.patches if patch.received]
        if received:
            lines += ["", "| received in this run | version | advisories | mends |", "|---|---|---|---|"]
            lines += [
                f"| {_cell(patch.id)} | {_cell(patch.version or patch.title)} | {_cell(', '.join(patch.advisories))} "
                f"| {_cell(', '.join(patch.vulnerabilities))} |"
                for patch in received
            ]
        there = [f"{patch.id} {patch.version}".strip() for patch in one.patches if not patch.received]
        if there:
            lines += ["", f"There before: {_cell(', '.join(there))}"]
    return "\n".join(lines) + "\n"


def changes_markdown(before: Lockfile, after: Lockfile, *, most: int = 50) -> str:
    """`changes` as a list: so many at most, and then how many more."""
    told = [f"- {_cell(one)}" for one in changes(before, after)]
    more = [f"- ... and {len(told) - most} more"] if len(told) > most else []
    return "\n".join([*told[:most], *more] or ["- the same patches"]) + "\n"


def _cell(text: str) -> str:
    """Text that ends no cell and begins no markup: package names and titles come from AWS."""
    return re.sub(r"([\\|`<\[\]*_])", r"\\\1", " ".join(text.split()))


# --- break-glass --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, slots=True)
class Emergency:
    """A lockfile for a few vulnerabilities, and what it cannot do.

    Attributes:
        unmended: vulnerabilities that no patch of the promoted lockfile is known to mend.
    """

    lockfile: Lockfile
    unmended: tuple[str, ...]


def emergency(promoted: Lockfile, vulnerabilities: Iterable[str]) -> Emergency:
    """Only the packages that mend these vulnerabilities, and what the lockfile knows to belong to them.

    Dependencies are not in it: Patch Manager does not tell them. What is known to belong together is what one advisory
    brings, or what is built from one source package; the rest is the package manager's to resolve, and shows as drift.

    Args:
        promoted: the last lockfile that reached Prod.
        vulnerabilities: CVE ids.
    """
    asked = tuple(dict.fromkeys(one.strip().upper() for one in vulnerabilities))
    platforms, mended = [], set()
    for platform in promoted.platforms:
        named = [patch for patch in platform.patches if set(patch.vulnerabilities) & set(asked)]
        if not named:
            continue
        mended |= {cve for patch in named for cve in patch.vulnerabilities}
        notices = {one for patch in named for one in patch.advisories}
        sources = {patch.source for patch in named} - {""}
        chosen = [
            patch for patch in platform.patches if patch in named or notices & set(patch.advisories) or patch.source in sources
        ]
        along = [patch.id for patch in chosen if patch not in named]
        known = f"with them {', '.join(along)} (same advisory or source)" if along else "nothing is known to belong to them"
        remark = f"{', '.join(patch.id for patch in named)} mend what was named; {known}; other dependencies are not known"
        platforms.append(
            replace(
                platform,
                patches=tuple(chosen),
                conflicts=tuple(one for one in platform.conflicts if one.id in {patch.id for patch in chosen}),
                remarks=(remark, *platform.remarks),
            )
        )
    return Emergency(
        lockfile=Lockfile(platforms=tuple(platforms), derived_from=promoted.digest, vulnerabilities=asked),
        unmended=tuple(one for one in asked if one not in mended),
    )
