"""What would this plan do otherwise than that one?

`between` compares two plans as values, `text` and `markdown` say it to people as `terraform plan` does: a line with +, - or ~
for each difference, the counts in the last line. The command line asks for any two runs, a gate for the plan that was approved
before. Which of two plans holds is nobody's question here.
"""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from patchwave.campaign import plan as plans
from patchwave.campaign.definition import written_duration
from patchwave.campaign.plan import Exclusion, Plan, PlannedHost, StagePlan
from patchwave.campaign.values import HostId, RunId, StageName

IDENTITY = frozenset({"run", "created", "requested_by", "snapshots"})
"""Fields of a plan that name it and do nothing: two runs never have the same ones (a snapshot is named after its run)."""

FINDINGS = frozenset({"severities", "tracks", "not_patchable"})
"""Fields of a plan about what was found; `unscanned` is said at the hosts."""

SUMMARISED = frozenset({"findings", "deadline", "wave"})
"""Facts of a host that change with most runs: hosts that differ in nothing else are counted, not listed."""

DIGEST = re.compile("[0-9a-f]{64}")

LABELS = {
    "approval_required": "approval required",
    "approval_timeout": "approval waits",
    "definition": "campaign file (digest)",
    "dry_run": "dry run",
    "error_budget": "error budget",
    "expected": "expected time of steps,",
    "forecast": "takes about",
    "health_checks": "health checks",
    "health_timeout": "health is awaited",
    "left_out": "stages left out",
    "not_patchable": "no OS patch mends:",
    "places": "away at once of",
    "reboot": "reboots hosts that need it",
    "kernel_waits": "installs kernel updates in windows only",
    "severities": "findings",
    "stage_places": "hosts at once",
    "tracks": "findings of track",
    "baselines": "patch baselines are kept:",
    "ways_back": "after an in-place patch:",
    "managed": "databases and functions:",
    "cells": "accounts and regions",
    "covered": "scanned by Inspector",
    "note": "why a command could not reach it",
    "domains": "failure domains",
}


class Kind(StrEnum):
    """What happened to a line from the plan before to the plan after."""

    ADDED = "+"
    REMOVED = "-"
    CHANGED = "~"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One setting, number or exclusion that differs.

    Attributes:
        what: its name.
        before: its value as people read it; empty where it is new.
        after: empty where it is gone.
    """

    kind: Kind
    what: str
    before: str = ""
    after: str = ""


class Turn(StrEnum):
    """What became of a host."""

    ADDED = "added"  # planned now and not before
    REMOVED = "removed"  # planned before and not now
    MOVED = "moved"  # planned in another stage
    REORDERED = "reordered"  # overtakes others of its stage, or falls behind them
    CHANGED = "changed"  # the same place, other facts


@dataclass(frozen=True, kw_only=True, slots=True)
class HostChange:
    """One host that the plans treat differently, or of which they know other things.

    Attributes:
        stage: where it is planned now; where it was planned, if it is removed.
        before: its place then, or why it had none.
        after: its place now, or why it has none.
        facts: what else differs; of hosts that are in both plans only.
    """

    host: HostId
    name: str
    turn: Turn
    stage: StageName
    before: str
    after: str
    facts: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StageDifference:
    """What differs in one stage.

    Attributes:
        kind: whether the stage itself is new, gone or in both plans.
    """

    name: StageName
    kind: Kind
    settings: tuple[Change, ...]
    hosts: tuple[HostChange, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two plans, as people find it again."""

    run: RunId
    digest: str
    created: datetime
    requested_by: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """All that the plan after has otherwise than the plan before.

    Attributes:
        settings: of the whole plan.
        stages: those in which anything differs, in the order of the plan after, stages that are gone last.
        exclusions: hosts that neither plan patches; who was planned and is excluded now stands among its stage's hosts.
        findings: what Inspector found, by severity and track.
    """

    before: Side
    after: Side
    settings: tuple[Change, ...]
    stages: tuple[StageDifference, ...]
    exclusions: tuple[Change, ...]
    findings: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.settings or self.stages or self.exclusions or self.findings)

    @property
    def hosts(self) -> tuple[HostChange, ...]:
        """Of all stages."""
        return tuple(host for stage in self.stages for host in stage.hosts)

    def count(self, turn: Turn) -> int:
        """How many hosts."""
        return sum(1 for one in self.hosts if one.turn is turn)


def between(before: Plan, after: Plan, *, policies: tuple[str, str] | None = None) -> Difference:
    """What `after` has otherwise than `before`; empty (false) if both do the same to the same hosts in the same order.

    Args:
        policies: digests of the policies that the two were made under; None where they are not known, a plan knows only the
            policy's name.
    """
    settings = [*_changes(before, after, leave=IDENTITY | FINDINGS | {"stages", "exclusions", "unscanned"})]
    if policies is not None:
        settings += _change("policy (digest)", policies[0][:12], policies[1][:12])
    names_before, names = [one.name for one in before.stages], [one.name for one in after.stages]
    common = [name for name in names_before if name in names]
    if common != [name for name in names if name in names_before]:
        settings += _change("order of stages", ", ".join(names_before), ", ".join(names))
    hosts = _host_changes(before, after)
    stages = [_stage(name, before, after, hosts) for name in [*names, *(name for name in names_before if name not in names)]]
    return Difference(
        before=_side(before),
        after=_side(after),
        settings=tuple(settings),
        stages=tuple(one for one in stages if one.kind is not Kind.CHANGED or one.settings or one.hosts),
        exclusions=tuple(_exclusions(before, after)),
        findings=tuple(_changes(before, after, only=FINDINGS)),
    )


def _side(plan: Plan) -> Side:
    return Side(run=plan.run, digest=plans.digest(plan), created=plan.created, requested_by=plan.requested_by)


# --- settings -----------------------------------------------------------------------------------------------------------


def _changes(before: Any, after: Any, *, leave: Iterable[str] = (), only: Iterable[str] | None = None) -> Iterator[Change]:
    """Field by field, so that a field which the plan learns one day is not forgotten here."""
    for field in dataclasses.fields(before):
        if field.name in leave or (only is not None and field.name not in only):
            continue
        label = LABELS.get(field.name, field.name.replace("_", " "))
        yield from _value_changes(label, getattr(before, field.name), getattr(after, field.name))


def _value_changes(label: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            name = f"{label} {_said(key)}"
            if key not in before:
                yield Change(kind=Kind.ADDED, what=name, after=_said(after[key]))
            elif key not in after:
                yield Change(kind=Kind.REMOVED, what=name, before=_said(before[key]))
            else:
                yield from _value_changes(name, before[key], after[key])
    elif dataclasses.is_dataclass(before) and type(before) is type(after) and type(before).__str__ is object.__str__:
        for one in _changes(before, after):
            yield dataclasses.replace(one, what=f"{label}: {one.what}")
    elif before != after:
        yield Change(kind=Kind.CHANGED, what=label, before=_said(before), after=_said(after))


def _change(what: str, before: str, after: str) -> list[Change]:
    return [Change(kind=Kind.CHANGED, what=what, before=before, after=after)] if before != after else []


def _said(value: Any) -> str:
    """A value as people read it."""
    match value:
        case None | () | "":
            return "none"
        case bool():
            return "yes" if value else "no"
        case timedelta():
            return written_duration(value) if value else "none"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case StrEnum():
            return str(value.value)
        case Mapping():
            return ", ".join(f"{_said(key)} {_said(its)}" for key, its in value.items()) or "none"
        case str():
            return value[:12] if DIGEST.fullmatch(value) else value
        case Sequence():
            return ", ".join(map(_said, value))
    return str(value)


# --- stages and their hosts ---------------------------------------------------------------------------------------------


def _stage(name: StageName, before: Plan, after: Plan, hosts: Sequence[HostChange]) -> StageDifference:
    old, new = _find(before, name), _find(after, name)
    kind = Kind.CHANGED if old and new else Kind.ADDED if new else Kind.REMOVED
    settings: list[Change] = []
    if old and new:
        settings += _changes(old, new, leave={"name", "hosts", "waves", "remarks"})
        settings += _change("waves", str(len(old.waves)), str(len(new.waves)))
        settings += [Change(kind=Kind.REMOVED, what=one) for one in old.remarks if one not in new.remarks]
        settings += [Change(kind=Kind.ADDED, what=one) for one in new.remarks if one not in old.remarks]
    return StageDifference(name=name, kind=kind, settings=tuple(settings), hosts=tuple(one for one in hosts if one.stage == name))


def _find(plan: Plan, name: str) -> StagePlan | None:
    return next((stage for stage in plan.stages if stage.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seat:
    """A host's place in a plan."""

    host: PlannedHost
    stage: StageName
    wave: int | None  # None: no command could reach it when the plan was made

    def __str__(self) -> str:
        return f"wave {self.wave}" if self.wave else "no wave (could not be reached)"


def _seats(plan: Plan) -> dict[HostId, _Seat]:
    found: dict[HostId, _Seat] = {}
    for stage in plan.stages:
        wave_of = {host: wave.number for wave in stage.waves for host in wave.hosts}
        for host in stage.hosts:
            found[host.id] = _Seat(host=host, stage=stage.name, wave=wave_of.get(host.id))
    return found


def _host_changes(before: Plan, after: Plan) -> list[HostChange]:
    was, now = _seats(before), _seats(after)
    overtaking = _overtaking(was, now)
    left_before = {one.host: one.reason for one in before.exclusions}
    left_now = {one.host: one.reason for one in after.exclusions}
    found: list[HostChange] = []
    for host, seat in now.items():
        old = was.get(host)
        if old is None:
            reason = f"excluded: {left_before[host]}" if host in left_before else "not in the scope"
            found.append(_host_change(seat, Turn.ADDED, reason, str(seat)))
            continue
        facts = tuple(_facts(old, seat, before, after))
        if old.stage != seat.stage:
            found.append(_host_change(seat, Turn.MOVED, f"stage {old.stage}, {old}", f"stage {seat.stage}, {seat}", facts))
        elif host in overtaking:
            found.append(_host_change(seat, Turn.REORDERED, str(old), str(seat), facts))
        elif facts:
            found.append(_host_change(seat, Turn.CHANGED, str(old), str(seat), facts))
    for host, seat in was.items():
        if host not in now:
            reason = f"excluded: {left_now[host]}" if host in left_now else "no longer in the scope"
            found.append(_host_change(seat, Turn.REMOVED, str(seat), reason))
    return found


def _host_change(seat: _Seat, turn: Turn, before: str, after: str, facts: tuple[Change, ...] = ()) -> HostChange:
    return HostChange(
        host=seat.host.id, name=seat.host.name, turn=turn, stage=seat.stage, before=before, after=after, facts=facts
    )


def _facts(old: _Seat, new: _Seat, before: Plan, after: Plan) -> Iterator[Change]:
    for field in dataclasses.fields(old.host):
        if field.name == "findings":
            mine, theirs = dict(old.host.findings), dict(new.host.findings)
            yield from _change("findings", _said(mine), _said(theirs)) if mine != theirs else ()
        elif field.name == "domains" and old.stage != new.stage:
            continue  # a zone's and a stage's budget carry the name of the stage, which is said anyway
        elif field.name != "id":
            yield from _changes(old.host, new.host, only={field.name})
    yield from _change("Inspector", before.unscanned.get(old.host.id, ""), after.unscanned.get(new.host.id, ""))
    if old.wave != new.wave:
        yield Change(kind=Kind.CHANGED, what="wave", before=str(old.wave or "none"), after=str(new.wave or "none"))


def _overtaking(was: Mapping[HostId, _Seat], now: Mapping[HostId, _Seat]) -> frozenset[HostId]:
    """The fewest hosts that have to be taken out so that the others of their stage come in the same order in both plans."""
    place = {host: number for number, host in enumerate(was)}
    stay: dict[StageName, list[HostId]] = {}
    for host, seat in now.items():
        if host in was and was[host].stage == seat.stage:
            stay.setdefault(seat.stage, []).append(host)
    return frozenset(host for hosts in stay.values() for host in _out_of_order(hosts, place))


def _out_of_order(hosts: Sequence[HostId], place: Mapping[HostId, int]) -> set[HostId]:
    """Those outside of a longest rising run (patience sorting)."""
    tops: list[int] = []
    last: list[HostId] = []
    behind: dict[HostId, HostId | None] = {}
    for host in hosts:
        at = bisect_left(tops, place[host])
        behind[host] = last[at - 1] if at else None
        tops[at : at + 1] = [place[host]]
        last[at : at + 1] = [host]
    kept: set[HostId] = set()
    one: HostId | None = last[-1] if last else None
    while one is not None:
        kept.add(one)
        one = behind[one]
    return set(hosts) - kept


def _exclusions(before: Plan, after: Plan) -> Iterator[Change]:
    planned = {host.id for plan in (before, after) for host in plan.hosts}
    was = {one.host: one for one in before.exclusions if one.host not in planned}
    now = {one.host: one for one in after.exclusions if one.host not in planned}
    for host, one in now.items():
        if host not in was:
            yield Change(kind=Kind.ADDED, what=_named(one), after=one.reason)
        elif was[host] != one:
            yield Change(kind=Kind.CHANGED, what=_named(one), before=_why(was[host], one), after=_why(one, was[host]))
    for host, one in was.items():
        if host not in now:
            yield Change(kind=Kind.REMOVED, what=_named(one), before=one.reason)


def _why(one: Exclusion, other: Exclusion) -> str:
    named = "" if (one.name, one.cell) == (other.name, other.cell) else f"{one.name} in {one.cell}: "
    return f"{named}{one.reason}"


def _named(one: Exclusion | HostChange) -> str:
    return f"{one.host} ({one.name})" if one.name else str(one.host)


# --- for people ---------------------------------------------------------------------------------------------------------


def summary(difference: Difference) -> str:
    """The counts, in one line."""
    if not difference:
        return "No difference: both plans do the same to the same hosts, in the same order."
    hosts = ", ".join(
        f"{difference.count(turn)} {said}"
        for turn, said in (
            (Turn.ADDED, "added"), (Turn.REMOVED, "removed"), (Turn.MOVED, "in another stage"),
            (Turn.REORDERED, "in another order"), (Turn.CHANGED, "changed"),
        )
    )  # fmt: skip
    settings = len(difference.settings) + sum(
        len(stage.settings) + (stage.kind is not Kind.CHANGED) for stage in difference.stages
    )
    others = f"exclusions: {len(difference.exclusions)}; settings: {settings}; findings: {len(difference.findings)}"
    return f"Hosts: {hosts}; {others}."


def lines(difference: Difference, *, most: int | None = None) -> list[str]:
    """A line for each difference, under the names of what they belong to; without header and counts.

    Args:
        most: so many lines of each kind at most, and then how many more; None: all.
    """
    found: list[str] = []
    found += _titled("campaign", [_line(one) for one in difference.settings], most)
    for stage in difference.stages:
        title = {Kind.ADDED: " (new)", Kind.REMOVED: " (gone)", Kind.CHANGED: ""}[stage.kind]
        counted = [one for one in stage.hosts if one.turn is Turn.CHANGED and _only_summarised(one)]
        told = [_host_line(one) for one in stage.hosts if one not in counted]
        body = [*(_line(one) for one in stage.settings), *_cut(told, most), *_counted(counted)]
        if stage.kind is not Kind.CHANGED and not stage.hosts:
            body.append(f"{stage.kind.value} the stage, without hosts")
        found += _titled(f"stage {stage.name}{title}", body, None)
    found += _titled("excluded", [_line(one) for one in difference.exclusions], most)
    return found + _titled("findings", [_line(one) for one in difference.findings], most)


def text(difference: Difference, *, most: int | None = None) -> str:
    """For a terminal, the counts last."""
    head = [f"  plan {_told(difference.after)}", f"against {_told(difference.before)}", ""]
    body = lines(difference, most=most)
    return "\n".join([*head, *body, *([""] if body else []), summary(difference)]) + "\n"


def markdown(difference: Difference, *, title: str, most: int | None = 50) -> str:
    """A section for a gate, a report or a page.

    Args:
        title: of its heading.
    """
    head = ["", f"## {title}", "", f"Compared with the plan of {_told(difference.before, quote='`')}.", ""]
    body = lines(difference, most=most)
    block = ["```diff", *body, "```", ""] if body else []
    return "\n".join([*head, *block, f"**{summary(difference)}**", ""])


def _told(side: Side, quote: str = "") -> str:
    by = f", requested by {_flat(side.requested_by)}" if side.requested_by else ""
    return f"{quote}{_flat(side.run)}{quote} ({side.digest[:12]}, made {side.created:%Y-%m-%d %H:%M} UTC{by})"


def _titled(title: str, found: Sequence[str], most: int | None) -> list[str]:
    return [f"{title}:", *_cut(found, most)] if found else []


def _cut(found: Sequence[str], most: int | None) -> list[str]:
    if most is None or len(found) <= most:
        return list(found)
    return [*found[:most], f"  ... and {len(found) - most} more"]


def _line(one: Change) -> str:
    match one.kind:
        case Kind.CHANGED:
            said = f"{one.what}: {one.before} -> {one.after}"
        case Kind.ADDED:
            said = f"{one.what}: {one.after}" if one.after else one.what
        case Kind.REMOVED:
            said = f"{one.what}: {one.before}" if one.before else one.what
    return f"{one.kind.value} {_flat(said)}"


def _host_line(one: HostChange) -> str:
    facts = "; ".join(f"{fact.what}: {fact.before or 'none'} -> {fact.after or 'none'}" for fact in _shown(one))
    match one.turn:
        case Turn.ADDED:
            sign, said = Kind.ADDED, f"{one.after} (was {one.before})"
        case Turn.REMOVED:
            sign, said = Kind.REMOVED, f"was {one.before}; {one.after}"
        case Turn.MOVED:
            sign, said = Kind.CHANGED, f"{one.before} -> {one.after}"
        case Turn.REORDERED:
            sign, said = Kind.CHANGED, f"in another order: {one.before} -> {one.after}"
        case Turn.CHANGED:
            sign, said = Kind.CHANGED, ""
    return f"{sign.value} {_flat(_named(one))}: {_flat('; '.join(filter(None, (said, facts))))}"


def _shown(one: HostChange) -> Iterator[Change]:
    return (fact for fact in one.facts if fact.what != "wave" or one.turn is Turn.CHANGED)


def _only_summarised(one: HostChange) -> bool:
    return all(fact.what in SUMMARISED for fact in one.facts)


def _counted(hosts: Sequence[HostChange]) -> list[str]:
    """Hosts that keep their place and differ in nothing but what changes with most runs."""
    said = {"findings": "other findings", "deadline": "another deadline", "wave": "another wave"}
    numbers = {what: sum(1 for one in hosts if any(fact.what == what for fact in one.facts)) for what in said}
    told = ", ".join(f"{number} with {said[what]}" for what, number in numbers.items() if number)
    return [f"~ {len(hosts)} more host{'s' if len(hosts) != 1 else ''}: {told}"] if hosts else []


def _flat(words: str) -> str:
    """Text from outside: no line may end early, no block of Markdown may be closed, no terminal be steered."""
    return "".join(letter if letter.isprintable() else " " for letter in words).replace("`", "'")
