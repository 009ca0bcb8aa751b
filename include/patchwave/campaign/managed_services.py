"""What becomes of a stage's databases and functions: what the plan says of them, and go on, wait or stop?

The stage's task asks `decide` in a loop, as the rollout of hosts is asked; `databases` and `functions` say how one of them goes
on. A place is held by whatever is in flight or has failed: at most so many at once as the stage's concurrency says, of databases
and of functions each; failures count together with the stage's failed hosts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from patchwave.campaign import databases, functions, settling, waves
from patchwave.campaign.databases import Database, Databases, PlannedDatabase
from patchwave.campaign.definition import Stage
from patchwave.campaign.document import Part
from patchwave.campaign.findings import Finding
from patchwave.campaign.functions import Function, Functions, PlannedFunction
from patchwave.campaign.settling import BAD, IN_FLIGHT, Pause, Row, Service, State

LOOK = timedelta(minutes=1)
"""How often RDS and Lambda are asked while something is in flight."""


class Rules(Part):
    """What campaigns do to what AWS runs; only in stages that say `managed_services`."""

    databases: Annotated[Databases, Field(default_factory=Databases, description="RDS databases. Default: as its fields say.")]
    functions: Annotated[Functions, Field(default_factory=Functions, description="Lambda functions. Default: as its fields say.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagedPlan:
    """What a stage does about databases and functions.

    Attributes:
        services: those that it changes; of the others is said what would be done.
        places: how many units (clusters, sources with their replicas) and how many functions may be away at once.
    """

    services: tuple[Service, ...]
    databases: tuple[PlannedDatabase, ...] = ()
    functions: tuple[PlannedFunction, ...] = ()
    database_places: int = 1
    function_places: int = 1

    def __str__(self) -> str:
        return "; ".join(f"{service} {name} ({kind}): {what}" for service, name, kind, what, _ in table(self)) or "none"


Planned = PlannedDatabase | PlannedFunction
Step = databases.Step | functions.Step


def of_stage(
    stage: Stage,
    everybody: Sequence[Database],
    functions_there: Sequence[Function],
    rules: Rules,
    *,
    findings: Sequence[Finding],
    deadlines: Mapping[str, datetime],
    now: datetime,
    only: Sequence[str] = (),
) -> ManagedPlan:
    """What a stage does about what AWS runs.

    Args:
        everybody: the scope's databases, those of other stages among them.
        functions_there: the stage's functions.
        deadlines: the campaign's deadline of each vulnerability: one for hosts, databases and functions.
        only: the run is about these vulnerabilities alone; empty: about all.
    """
    mine = [one.arn for one in everybody if stage.matches(one.tags)]
    found = databases.planned(everybody, mine, rules.databases, deadlines=deadlines, only=only)
    its = functions.planned(functions_there, rules.functions, findings, deadlines=deadlines, now=now, only=only)
    units = len({one.unit for one in found})
    return ManagedPlan(
        services=stage.managed_services,
        databases=found,
        functions=its,
        database_places=(stage.concurrency or waves.default_concurrency(units)).of(units) if units else 1,
        function_places=(stage.concurrency or waves.default_concurrency(len(its))).of(len(its)) if its else 1,
    )


def service_of(one: Planned) -> Service:
    """Whose it is."""
    return Service.RDS if isinstance(one, PlannedDatabase) else Service.LAMBDA


def document(stage: str) -> str:
    """Name of the document of a run in which a stage's rows stand."""
    return f"managed_services:{stage}"


def executed(plan: ManagedPlan) -> tuple[Planned, ...]:
    """What the stage settles."""
    items: tuple[Planned, ...] = (*plan.databases, *plan.functions)
    return tuple(one for one in items if service_of(one) in plan.services)


def rows(plan: ManagedPlan, *, now: datetime) -> dict[str, Row]:
    """The rows with which a stage begins: what is left alone, or needs nothing, is settled at once."""
    return {one.arn: _first(one, now) for one in executed(plan)}


def _first(one: Planned, now: datetime) -> Row:
    state, reason = State.PLANNED, ""
    if one.why_not:
        state, reason = State.EXCEPTED, one.why_not
    elif not one.changes:
        state, reason = State.ALREADY_COMPLIANT, "; ".join(("nothing is pending that the policy wants", *one.notes))
    return Row(
        id=one.arn, service=service_of(one), cell=one.cell, name=one.name, state=state, since=now, reason=reason,
        before=one.version, after=one.version if state.settled else "",
    )  # fmt: skip


# --- the rollout --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What AWS says now.

    Attributes:
        snapshots: status by name.
        span: when something may be begun: from, until; None: at any time.
        why_shut: what closes it, where it opens later.
    """

    databases: Mapping[str, Database] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    snapshots: Mapping[str, str] = field(default_factory=dict)
    span: tuple[datetime, datetime] | None = None
    why_shut: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What the rollout of a stage has to keep.

    Attributes:
        failures: so many may fail more; the stage's hosts that failed are taken off already.
        settling: how long what AWS does not show yet may still be on its way.
    """

    run: str
    stage: str
    rules: Rules
    failures: int
    settling: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Nothing can be done now."""

    reason: str
    ends: str
    until: datetime
    look: timedelta = LOOK


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt:
    """Too many have failed; nothing more is begun, and nothing is in flight."""

    reason: str
    who: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """Each is settled."""

    classes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What follows from what is known.

    Attributes:
        rows: those that are otherwise now; written before a step is taken.
        steps: calls to make; each stands in its row already.
        rest: what holds when the steps are taken; None while there are any.
    """

    rows: tuple[Row, ...]
    steps: tuple[Step, ...] = ()
    rest: Wait | Halt | Done | None = None


def decide(plan: ManagedPlan, before: Mapping[str, Row], seen: Seen, terms: Terms, *, now: datetime) -> Decision:
    """How the stage's databases and functions go on."""
    known = dict(before)
    steps: list[Step] = []
    pauses: list[Pause] = []
    items = executed(plan)
    for one in items:
        if known[one.arn].state in IN_FLIGHT:
            _advance(one, known, seen, terms, steps, pauses, now)
    if _failed(known) <= terms.failures:
        for one in items:
            if known[one.arn].state is State.PLANNED:
                _begin(one, plan, known, seen, terms, steps, pauses, now)
        if not pauses and not any(row.state in IN_FLIGHT for row in known.values()):
            why = "nothing was changed: what failed keeps its place, and no other is left"
            left = [row for row in known.values() if row.state is State.PLANNED]
            known |= {row.id: row.to(State.STOPPED, why, at=now) for row in left}
    over = _failed(known) > terms.failures
    changed = tuple(row for arn, row in known.items() if row != before[arn])
    if steps:
        return Decision(rows=changed, steps=tuple(steps))
    return Decision(rows=changed, rest=_rest(known, pauses, over=over, now=now))


def _failed(known: Mapping[str, Row]) -> int:
    return sum(row.state in BAD for row in known.values())


def _rest(known: Mapping[str, Row], pauses: Sequence[Pause], *, over: bool, now: datetime) -> Wait | Halt | Done:
    busy = any(row.state in IN_FLIGHT for row in known.values())
    if over and not busy:
        failed = [row for row in known.values() if row.state in BAD]
        reason = "; ".join(f"{row.name}: {row.reason}" for row in failed)
        return Halt(reason=f"{len(failed)} failed, more than the stage's error budget leaves: {reason}",
                    who=tuple(row.id for row in failed))  # fmt: skip
    if settling.settled(known):
        return Done(classes=dict(sorted(Counter(row.state.value for row in known.values()).items())))
    if pauses:
        first = min(pauses, key=lambda one: one.until)
        more = f" (and {len(pauses) - 1} more)" if len(pauses) > 1 else ""
        return Wait(reason=f"{first.reason}{more}", ends=first.ends, until=max(first.until, now + timedelta(seconds=1)))
    return Wait(reason="databases and functions are looked at again", ends="they go on", until=now + LOOK)


def _advance(
    one: Planned, known: dict[str, Row], seen: Seen, terms: Terms, steps: list[Step], pauses: list[Pause], now: datetime
) -> None:
    row = known[one.arn]
    for _ in range(3):  # from saved to changing to the first call
        step: Step | None
        state = row.state
        if isinstance(one, PlannedDatabase):
            name = databases.snapshot_name(terms.run, terms.stage, one)
            row, step, pause = databases.advanced(
                one, row, seen.databases.get(one.arn), terms.rules.databases, snapshot=seen.snapshots.get(name), name=name,
                now=now, settling=terms.settling,
            )  # fmt: skip
        else:
            row, step, pause = functions.advanced(
                one, row, seen.functions.get(one.arn), terms.rules.functions, now=now, settling=terms.settling
            )
        if step is not None:
            steps.append(step)
        if pause is not None:
            pauses.append(pause)
        if step is not None or pause is not None or row.state is state or row.state.settled:
            break
    known[one.arn] = row


def _begin(
    one: Planned, plan: ManagedPlan, known: dict[str, Row], seen: Seen, terms: Terms, steps: list[Step], pauses: list[Pause],
    now: datetime,
) -> None:  # fmt: skip
    row = known[one.arn]
    rule: Databases | Functions = terms.rules.databases if isinstance(one, PlannedDatabase) else terms.rules.functions
    if seen.span is not None:
        opens, closes = seen.span
        if now < opens:
            pauses.append(Pause(reason=seen.why_shut or "its window is shut", ends="the window opens", until=opens))
            return
        if now + rule.expected > closes:
            why = f"it would not be over before the window closes at {closes:%Y-%m-%d %H:%M} UTC"
            known[one.arn] = row.to(State.OUT_OF_WINDOW, why, at=now)
            return
    if isinstance(one, PlannedDatabase):
        lost = _in_its_way(one, plan, known)
        if lost is not None:
            why = f"{lost.name}, which goes before it, is {lost.state.value} with version {lost.after or lost.before}"
            known[one.arn] = row.to(State.STOPPED, f"nothing was changed: {why}", at=now)
            return
        if not _has_place(one, plan, known):
            return
        found = seen.databases.get(one.arn)
        if found is not None and found.status != databases.AVAILABLE:
            _busy(one, row, found.status, rule, known, pauses, now)
            return
    elif _away(plan.functions, known) >= plan.function_places:
        return
    known[one.arn] = row.to(State.SAVING, "", at=now)
    _advance(one, known, seen, terms, steps, pauses, now)


def _in_its_way(one: PlannedDatabase, plan: ManagedPlan, known: Mapping[str, Row]) -> Row | None:
    """What goes before it and did not get there: a reader that failed, or a replica that stays older than its source would be."""
    for other in plan.databases:
        row = known[other.arn]
        if other.unit != one.unit or other.rank >= one.rank or not row.state.settled:
            continue
        older = databases.ordered_by(row.after or row.before) < databases.ordered_by(one.target) if one.target else False
        if row.state in BAD | {State.STOPPED, State.OUT_OF_WINDOW} or (other.rank < 0 and older):
            return row
    return None


def _busy(
    one: PlannedDatabase, row: Row, status: str, rule: Databases | Functions, known: dict[str, Row], pauses: list[Pause],
    now: datetime,
) -> None:  # fmt: skip
    """Somebody else changes it: that is waited for, as long as one of ours might take."""
    until = row.since + rule.timeout
    if now >= until:
        known[one.arn] = row.to(State.UNREACHABLE, f"RDS says {status} since before its turn, and not by us", at=now)
        return
    ends = f"RDS calls it available; it is left alone as unreachable at {until:%H:%M} UTC"
    pauses.append(Pause(reason=f"{one.name}: RDS says {status}, and not by us", ends=ends, until=until))


def _has_place(one: PlannedDatabase, plan: ManagedPlan, known: Mapping[str, Row]) -> bool:
    """In its unit everything before it is settled, and nothing else is in flight; and its unit has a place."""
    unit = [(other.rank, known[other.arn].state) for other in plan.databases if other.unit == one.unit]
    if any(state in IN_FLIGHT or (rank < one.rank and not state.settled) for rank, state in unit):
        return False
    away = {other.unit for other in plan.databases if known[other.arn].state in IN_FLIGHT | BAD}
    return one.unit in away or len(away) < plan.database_places


def _away(items: Iterable[PlannedFunction], known: Mapping[str, Row]) -> int:
    return sum(known[one.arn].state in IN_FLIGHT | BAD for one in items)


def stopped(before: Mapping[str, Row], *, now: datetime) -> tuple[tuple[Row, ...], str]:
    """A person ended the task: what was not begun stays planned, what is in flight goes on without us.

    Returns:
        Rows that are otherwise now: not those in flight, for neither service takes back what it has begun, and whoever goes on
        finds them as they are; and what to tell, empty if nothing is in flight.
    """
    going = [row for row in before.values() if row.state in IN_FLIGHT and row.step]
    idle = tuple(
        row.to(State.PLANNED, "", at=now, began=None) for row in before.values() if row.state in IN_FLIGHT and not row.step
    )
    if not going:
        return idle, ""
    told = ", ".join(f"{row.name} ({row.step})" for row in going)
    return idle, f"what RDS and Lambda have begun cannot be stopped and goes on: {told}"


# --- for people ---------------------------------------------------------------------------------------------------------


def sentences(plan: ManagedPlan) -> tuple[str, ...]:
    """What a person is told of a stage before it is approved."""
    told = []
    both: tuple[tuple[Service, tuple[Planned, ...]], ...] = ((Service.RDS, plan.databases), (Service.LAMBDA, plan.functions))
    for service, items in both:
        if not items:
            continue
        noun = "database" if service is Service.RDS else "function"
        changes = sum(one.changes for one in items)
        does = "changed" if service in plan.services else "would be changed, and this stage only lists them"
        places = plan.database_places if service is Service.RDS else plan.function_places
        told.append(
            f"{service.value.upper()}: {len(items)} {noun}{'s' if len(items) != 1 else ''}, {changes} {does}; "
            f"at most {places} at once."
        )
    if any(one.changes for one in plan.databases):
        told.append("Way back: of a database's minor version none but a new database from its snapshot.")
    if any(one.update for one in plan.functions):
        told.append("Way back: a function is pinned to the runtime version before; that is done by itself if its update fails.")
    return tuple(told)


def table(plan: ManagedPlan) -> list[tuple[str, str, str, str, str]]:
    """Each of them: service, name, what it is, what is done, and what to know (in the plan's own words, unescaped)."""
    found = []
    items: tuple[Planned, ...] = (*plan.databases, *plan.functions)
    for one in items:
        is_database = isinstance(one, PlannedDatabase)
        kind = f"{one.engine} {one.version}" if isinstance(one, PlannedDatabase) else one.runtime
        executes = service_of(one) in plan.services
        what = one.what if executes or not one.changes else f"not by this run: {one.what}"
        if one.why_not:
            what = f"left alone: {one.why_not}"
        due = (f"due {one.deadline:%Y-%m-%d}",) if one.deadline else ()
        closes = (f"closes {', '.join(one.closes)}",) if isinstance(one, PlannedDatabase) and one.closes else ()
        if isinstance(one, PlannedFunction) and one.by_runtime and one.changes:
            closes = (f"may close {', '.join(one.by_runtime)}",)
        found.append(("RDS" if is_database else "Lambda", one.name, kind, what, "; ".join((*closes, *due, *one.notes))))
    return found
