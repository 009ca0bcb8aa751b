"""What is to be done to each RDS database, in which order, and what is done next?

`planned` compares what RDS says of databases with the policy, before anybody approves; `advanced` is the rollout of one of them:
a pure function of plan, ledger row, what RDS says now and the time. Nothing here remembers that a call was made but the row, and
nothing believes it: a call whose answer was lost shows in the database's status, its version and its pending actions.
Major versions are never offered: only targets that RDS itself does not call a major upgrade are looked at.

Order: replicas before their source (RDS user guide, upgrades of MySQL, MariaDB and PostgreSQL engines: "you must upgrade all of
the read replicas before upgrading the source instance"), the readers of a cluster before its writer, and then the cluster
itself, whose engine RDS changes on all members.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictStr

from patchwave.campaign.definition import Line, Timeout
from patchwave.campaign.document import Part
from patchwave.campaign.settling import Pause, Row, State
from patchwave.campaign.values import Cell

TOKENS = uuid.UUID("5b0d3c0e-6f51-53d7-a2c8-6d1f0a7e4b19")
"""Namespace of snapshot names."""
AVAILABLE = "available"
BROKEN = re.compile(r"failed|incompatible-|inaccessible-|restore-error|storage-full|insufficient-capacity")
"""Statuses from which RDS does not come back by itself (RDS user guide, viewing Amazon RDS DB instance status)."""
STOPPED = frozenset({"stopped", "stopping"})
TRIES = 2
"""So often a call is made that RDS accepts without an effect."""


class Minor(StrEnum):
    """Which minor version a database is taken to."""

    NEWEST = "newest"
    AUTOMATIC = "automatic"  # the one that AWS would take it to by itself
    NONE = "none"


class Automatic(StrEnum):
    """What a database's automatic minor upgrade should be."""

    ON = "on"
    OFF = "off"
    UNMANAGED = "unmanaged"


class Fix(Part):
    """In which versions of an engine a vulnerability is mended; Inspector does not look into databases."""

    vulnerability: Annotated[StrictStr, Field(pattern=r"^CVE-[0-9]{4}-[0-9]{4,}$", description="CVE id.")]
    engine: Annotated[Line, Field(description="RDS's name of the engine, such as 'postgres' or 'aurora-mysql'.")]
    fixed_in: Annotated[tuple[StrictStr, ...], Field(
        min_length=1, description="The first version with the fix, of each line that has one, in quotes.",
        examples=[["16.6", "15.10"]],
    )]  # fmt: skip
    source: Annotated[Line, Field(description="Where that is said, so that an auditor can look it up.")]


MAINTENANCE = Literal[
    "system-update", "db-upgrade", "os-upgrade", "hardware-maintenance", "ca-certificate-rotation",
    "serverless-platform-version-update",
]  # fmt: skip


class Databases(Part):
    """What campaigns do to RDS databases."""

    minor_versions: Annotated[Minor, Field(
        description="Which minor version a database is taken to: `newest`, `automatic` (the one that AWS would take it to by "
        "itself), `none`. A newer one if `fixes` needs it. Never a major one. Default automatic: AWS has tested it longest.",
    )] = Minor.AUTOMATIC  # fmt: skip
    maintenance: Annotated[tuple[MAINTENANCE, ...], Field(
        description="Pending maintenance actions that are applied. Default: updates of operating system and engine; rotated "
        "certificates and moved hardware patch nothing.",
    )] = ("system-update", "os-upgrade", "db-upgrade")  # fmt: skip
    automatic_minor_upgrade: Annotated[Automatic, Field(
        description="What each database's automatic minor upgrade should be: `on`, `off`, `unmanaged`. A run sets it before it "
        "changes anything else. Default unmanaged: it stays as it is, and the plan says how.",
    )] = Automatic.UNMANAGED  # fmt: skip
    snapshot: Annotated[StrictBool, Field(
        description="Whether a snapshot is taken and available before a database is changed. Default true: it is the only way "
        "back from a minor version. Snapshots are tagged `patchwave:run` and deleted by nobody but you.",
    )] = True  # fmt: skip
    expected: Annotated[Timeout, Field(
        description="How long one database takes, with unit; it is begun only if so much of the window is left. Default 45m: "
        "snapshot, upgrade and restart of a middling instance.",
    )] = timedelta(minutes=45)  # fmt: skip
    timeout: Annotated[Timeout, Field(
        description="After how long without an end a database has failed, with unit. Default 3h: large ones take hours.",
    )] = timedelta(hours=3)  # fmt: skip
    fixes: Annotated[tuple[Fix, ...], Field(
        description="Which engine versions mend which vulnerability. Default: none, and nothing is said of CVE ids there.",
    )] = ()  # fmt: skip


class Kind(StrEnum):
    """What a database is to RDS."""

    INSTANCE = "db"
    CLUSTER = "cluster"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """A pending maintenance action.

    Attributes:
        by_itself: when AWS applies it at the latest, or in the first maintenance window after; None: it does not.
        opted: somebody has opted in to it already (``immediate``, ``next-maintenance``); empty if nobody has.
    """

    action: str
    description: str = ""
    by_itself: datetime | None = None
    opted: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A version that RDS would upgrade to."""

    version: str
    automatic: bool
    major: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """An instance or a cluster, as RDS has it now.

    Attributes:
        automatic: its automatic minor upgrade; None: it has none of its own (a cluster's is its members').
        cluster: name of the cluster that it is a member of; empty for none.
        source: name or ARN of what it replicates; empty for none.
        replicas: names or ARNs of what replicates it.
        coming: version that it is being taken to, or will be in its own window.
    """

    arn: str
    cell: Cell
    name: str
    kind: Kind
    engine: str
    version: str
    status: str
    tags: Mapping[str, str]
    automatic: bool | None = None
    cluster: str = ""
    writer: bool = False
    source: str = ""
    replicas: tuple[str, ...] = ()
    coming: str = ""
    pending: tuple[Pending, ...] = ()
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDatabase:
    """One database in the plan.

    Attributes:
        target: minor version that it is taken to; empty: none.
        actions: pending maintenance actions that are applied.
        automatic: what its automatic minor upgrade is set to; None: it stays.
        unit: what is changed one after the other: a cluster, or a source with its replicas.
        rank: its place in the unit; lower ones are settled first.
        saved: name of the instance or cluster of which the snapshot before is taken; empty: none is.
        vulnerabilities: those that the policy's `fixes` say it has.
        closes: those of them that `target` mends.
        deadline: the campaign's earliest for one of them.
        why_not: why it is left alone; empty if it is not.
        notes: what a person should know, a sentence each.
    """

    arn: str
    cell: Cell
    name: str
    kind: Kind
    engine: str
    version: str
    unit: str
    rank: int
    target: str = ""
    actions: tuple[str, ...] = ()
    automatic: bool | None = None
    saved: str = ""
    saved_kind: Kind = Kind.INSTANCE
    vulnerabilities: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    deadline: datetime | None = None
    why_not: str = ""
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is done to it."""
        return not self.why_not and bool(self.target or self.actions or self.automatic is not None)

    @property
    def what(self) -> str:
        """What is done to it, for people."""
        done = [f"{self.version} to {self.target}"] if self.target else []
        done += list(self.actions)
        if self.automatic is not None:
            done.append(f"automatic minor upgrade {'on' if self.automatic else 'off'}")
        return ", ".join(done) or "nothing"


# --- planning -----------------------------------------------------------------------------------------------------------


def ordered_by(version: str) -> tuple[int, ...]:
    """Sorts versions of one engine."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def line_of(engine: str, version: str) -> tuple[int, ...]:
    """The major version: one number of PostgreSQL from 10 on, two of all others (RDS user guide, engine version numbers)."""
    numbers = ordered_by(version)
    return numbers[:1] if "postgres" in engine and numbers[:1] >= (10,) else numbers[:2]


def affected(database: Database, fixes: Iterable[Fix]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The vulnerabilities that it has, with the version that mends each; and what nobody has said, a sentence each."""
    found: dict[str, str] = {}
    unknown = []
    for fix in fixes:
        if fix.engine != database.engine:
            continue
        mended = [one for one in fix.fixed_in if line_of(fix.engine, one) == line_of(database.engine, database.version)]
        if not mended:
            unknown.append(f"whether it has {fix.vulnerability} is unknown: {fix.source} names no fixed version of its line")
        elif ordered_by(database.version) < ordered_by(mended[0]):
            found[fix.vulnerability] = mended[0]
    return found, tuple(unknown)


def target(database: Database, rule: Databases, needed: Iterable[str]) -> str:
    """The minor version that it is to be taken to; empty: none, or none that RDS offers.

    Args:
        needed: versions below which vulnerabilities are left.
    """
    minors = sorted((one for one in database.targets if not one.major), key=lambda one: ordered_by(one.version))
    minors = [one for one in minors if ordered_by(one.version) > ordered_by(database.version)]
    chosen = {
        Minor.NEWEST: minors[-1:],
        Minor.AUTOMATIC: [one for one in minors if one.automatic][-1:],
        Minor.NONE: [],
    }[rule.minor_versions]
    if rule.minor_versions is Minor.NONE:
        return ""
    least = max((ordered_by(one) for one in needed), default=())
    if least and (not chosen or ordered_by(chosen[-1].version) < least):
        chosen = [one for one in minors if ordered_by(one.version) >= least][:1] or minors[-1:]
    return chosen[-1].version if chosen else ""


def planned(
    databases: Sequence[Database],
    chosen: Iterable[str],
    rule: Databases,
    *,
    deadlines: Mapping[str, datetime],
    only: Iterable[str] = (),
) -> tuple[PlannedDatabase, ...]:
    """What is done to each of the databases of a stage, in the order in which they are begun.

    Args:
        databases: all of the scope's, so that replicas and clusters are known.
        chosen: ARNs of the stage's.
        deadlines: the campaign's deadline of each vulnerability.
        only: the run is about these vulnerabilities alone; empty: about all.
    """
    here = frozenset(chosen)
    wanted = frozenset(only)
    made = [_planned(one, databases, here, rule, deadlines, wanted) for one in databases if one.arn in here]
    return tuple(sorted(made, key=lambda one: (one.unit, one.rank, one.name)))


def _planned(
    one: Database,
    everybody: Sequence[Database],
    here: frozenset[str],
    rule: Databases,
    deadlines: Mapping[str, datetime],
    only: frozenset[str],
) -> PlannedDatabase:
    member = bool(one.cluster)
    has, unknown = ({}, ()) if member else affected(one, rule.fixes)
    root, depth = _root(one, everybody)
    notes = list(unknown)
    version = "" if member else target(one, rule, has.values())  # a member's version is its cluster's
    # An engine upgrade that RDS lists as pending is done by its version, which can be proven.
    doubled = {"db-upgrade"} if version else set()
    actions = tuple(dict.fromkeys(
        its.action for its in one.pending if its.action in rule.maintenance and its.action not in doubled
    ))  # fmt: skip
    outside = [name for name in one.replicas if not _is_here(name, one.cell, everybody, here)]
    if version and outside:
        notes.append(f"its version stays: its read replica {', '.join(outside)} must be upgraded first and is not in this stage")
        version = ""
    automatic = _automatic(one, rule)
    notes += _told(one, rule, actions)
    why_not = ""
    if one.status in STOPPED:
        why_not = f"it is {one.status}: RDS changes nothing on a database that does not run"
    elif BROKEN.search(one.status):
        why_not = f"RDS says {one.status}: somebody has to mend that first"
    elif only and not only & has.keys():
        why_not = "this run is about certain CVE ids, and " + (
            f"cluster {one.cluster} has the version" if member else "the policy's `fixes` name none of them for its version"
        )
    elif not (version or actions or automatic is not None) and has:
        why_not = f"RDS offers no minor version that mends {', '.join(sorted(has))}; never a major one"
    closes = tuple(sorted(name for name, least in has.items() if version and ordered_by(version) >= ordered_by(least)))
    moments = [deadlines[name] for name in has if name in deadlines]
    saved, saved_kind = (one.cluster, Kind.CLUSTER) if member else (root.name, root.kind)
    return PlannedDatabase(
        arn=one.arn, cell=one.cell, name=one.name, kind=one.kind, engine=one.engine, version=one.version,
        unit=f"{root.cell}/{one.cluster or root.name}",
        rank=(1 if one.writer else 0) if member else (2 if one.kind is Kind.CLUSTER else -depth),
        target=version, actions=actions, automatic=automatic,
        saved=saved if rule.snapshot and root.cell == one.cell and (version or actions) else "", saved_kind=saved_kind,
        vulnerabilities=tuple(sorted(has)), closes=closes, deadline=min(moments, default=None), why_not=why_not,
        notes=tuple(notes),
    )  # fmt: skip


def _root(one: Database, everybody: Sequence[Database]) -> tuple[Database, int]:
    """What a replica replicates in the end, and how many steps away that is."""
    known = {database.arn: database for database in everybody}
    names = {(database.cell, database.name): database for database in everybody if database.kind is Kind.INSTANCE}
    at, depth, seen = one, 0, {one.arn}
    while at.source:
        above = known.get(at.source) or names.get((at.cell, at.source))
        if above is None or above.arn in seen:
            break
        seen.add(above.arn)
        at, depth = above, depth + 1
    return at, depth


def _is_here(name: str, cell: Cell, everybody: Sequence[Database], here: frozenset[str]) -> bool:
    return any(one.arn in here and (one.arn == name or (one.cell, one.name) == (cell, name)) for one in everybody)


def _automatic(one: Database, rule: Databases) -> bool | None:
    if one.automatic is None or rule.automatic_minor_upgrade is Automatic.UNMANAGED:
        return None
    wanted = rule.automatic_minor_upgrade is Automatic.ON
    return wanted if one.automatic is not wanted else None


def _told(one: Database, rule: Databases, actions: Sequence[str]) -> list[str]:
    told = []
    if rule.automatic_minor_upgrade is Automatic.UNMANAGED and one.automatic is not None:
        told.append(f"automatic minor upgrade is {'on' if one.automatic else 'off'}, and stays so")
    for its in one.pending:
        if its.by_itself is not None:
            when = f"AWS applies {its.action} by itself from {its.by_itself:%Y-%m-%d %H:%M} UTC on"
            told.append(when if its.action in actions else f"{when}; the policy leaves it alone")
        elif its.action not in actions and its.action not in rule.maintenance:
            told.append(f"{its.action} is pending, and the policy leaves it alone")
    majors = [its.version for its in one.targets if its.major]
    if majors and not any(not its.major for its in one.targets):
        told.append(f"only major versions are newer ({', '.join(majors[:3])}), which a campaign never installs")
    return told


# --- the rollout of one -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeSnapshot:
    """Take the snapshot `name` of `of`."""

    database: PlannedDatabase
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApplyMaintenance:
    """Apply a pending maintenance action at once."""

    database: PlannedDatabase
    action: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """Take it to its target version at once."""

    database: PlannedDatabase


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAutomatic:
    """Set its automatic minor upgrade."""

    database: PlannedDatabase


Step = TakeSnapshot | ApplyMaintenance | Upgrade | SetAutomatic


def snapshot_name(run: str, stage: str, one: PlannedDatabase) -> str:
    """The one snapshot of a unit in a run: whoever asks for it twice is told that it is there."""
    return f"patchwave-{uuid.uuid5(TOKENS, f'{run}|{stage}|{one.cell}|{one.saved_kind}|{one.saved}').hex}"


def advanced(
    one: PlannedDatabase,
    row: Row,
    seen: Database | None,
    rule: Databases,
    *,
    snapshot: str | None,
    name: str,
    now: datetime,
    settling: timedelta,
) -> tuple[Row, Step | None, Pause | None]:
    """One that has been begun: its row now, the call to make (which the row names already), or why it waits.

    Args:
        seen: as RDS has it now; None: not at all.
        snapshot: status of the snapshot called `name`; None: there is none.
        settling: how long what RDS does not show yet may still be on its way.
    """
    if seen is None:
        return row.to(State.TERMINATED, "RDS has it no more", at=now), None, None
    if row.state is State.SAVING:
        return _saved(one, row, seen, rule, snapshot, name, now=now, settling=settling)
    return _changed(one, row, seen, rule, now=now, settling=settling)


def _since(row: Row) -> datetime:
    """From when the time of what is under way counts: the last call, or the beginning where none was made yet."""
    return row.intended_at or row.began or row.since


def _late(row: Row, rule: Databases, now: datetime) -> bool:
    return now >= _since(row) + rule.timeout


def _pause(row: Row, rule: Databases, reason: str, ends: str) -> Pause:
    return Pause(reason=f"{row.name}: {reason}", ends=ends, until=_since(row) + rule.timeout)


def _fresh(row: Row, step: str, now: datetime, settling: timedelta) -> bool:
    return row.step == step and row.intended_at is not None and now < row.intended_at + settling


def _saved(
    one: PlannedDatabase, row: Row, seen: Database, rule: Databases, status: str | None, name: str, *, now: datetime,
    settling: timedelta,
) -> tuple[Row, Step | None, Pause | None]:  # fmt: skip
    if not one.saved or status == AVAILABLE:
        return row.to(State.CHANGING, "", at=now), None, None
    if status == "failed":
        return row.to(State.FAILED, f"nothing was changed, for its snapshot {name} failed", at=now), None, None
    step = f"snapshot {name}"
    # Nobody was there for long, and what is next was not asked for: that is no failure of the database.
    may_ask = status is None and seen.status == AVAILABLE and row.step != step
    if _late(row, rule, now) and not may_ask:
        return row.to(State.FAILED, f"nothing was changed, for its snapshot {name} was not available in time", at=now), None, None
    ends = "RDS calls it available; without it in time the database is not changed"
    if status is None and seen.status == AVAILABLE and not _fresh(row, step, now, settling):
        return row.intending(step, at=now), TakeSnapshot(database=one, name=name), None
    return row, None, _pause(row, rule, f"its snapshot is {status or 'asked for'}", ends)


def _changed(
    one: PlannedDatabase, row: Row, seen: Database, rule: Databases, *, now: datetime, settling: timedelta
) -> tuple[Row, Step | None, Pause | None]:
    after = {"after": seen.version}
    if BROKEN.search(seen.status):
        return row.to(State.FAILED, f"RDS says {seen.status}, with version {seen.version}", at=now, **after), None, None
    step, call = _next(one, seen)
    if seen.status == AVAILABLE and call is None:
        what = f"version {seen.version}" if one.target else f"{', '.join(one.actions) or 'automatic minor upgrade'}"
        return row.to(State.PATCHED, f"available; {what}: as RDS says", at=now, **after), None, None
    may_ask = seen.status == AVAILABLE and row.step != step  # as above
    if _late(row, rule, now) and not may_ask:
        left = f"; {step} is not done" if call is not None else ""
        return row.to(State.FAILED, f"still {seen.status} after {rule.timeout}{left}", at=now, **after), None, None
    if seen.status != AVAILABLE:
        return row, None, _pause(row, rule, f"RDS says {seen.status} ({row.step or 'nothing of ours'})", "RDS calls it available")
    assert call is not None
    if _fresh(row, step, now, settling) or _taken_up(one, seen, step):
        return row, None, _pause(row, rule, f"{step} is asked for", "RDS begins with it")
    if row.step == step and row.tries >= TRIES:
        why = f"RDS accepted {step} {row.tries} times and does not do it; its version is {seen.version}"
        return row.to(State.FAILED, why, at=now, **after), None, None
    return row.intending(step, at=now), call, None


def _taken_up(one: PlannedDatabase, seen: Database, step: str) -> bool:
    """RDS has what was asked for, and has not begun: a call whose answer was lost is adopted by that."""
    if step.startswith("upgrade"):
        return seen.coming == one.target
    return any(its.opted == "immediate" and step.endswith(f" {its.action}") for its in seen.pending)


def _next(one: PlannedDatabase, seen: Database) -> tuple[str, Step | None]:
    if one.automatic is not None and seen.automatic is not one.automatic:
        return f"automatic minor upgrade {'on' if one.automatic else 'off'}", SetAutomatic(database=one)
    for action in one.actions:
        if any(its.action == action for its in seen.pending):
            return f"maintenance {action}", ApplyMaintenance(database=one, action=action)
    if one.target and ordered_by(seen.version) < ordered_by(one.target):
        return f"upgrade to {one.target}", Upgrade(database=one)
    return "", None
