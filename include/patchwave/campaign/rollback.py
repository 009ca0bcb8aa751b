"""Which hosts of an earlier run come back, how, in which order, and have they?

A rollback is a run of its own with one stage, `STAGE`: `chosen` says of each host of the earlier run what its way back is today,
`build` makes a plan that people approve by its digest, `decide` says what to do next, `scanned` what a Scan afterwards proves.
Pure: the ledger's rows and AWS's facts go in, values come out. How a root volume is replaced `execution.rolling_back` knows.

A host that does not serve cannot be disrupted: it takes a place among those that are under way, never one of those that serve.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from patchwave.campaign import evidence, fleet, rollout, waves
from patchwave.campaign.definition import Campaign
from patchwave.campaign.errors import Permanent
from patchwave.campaign.fleet import Host, Readiness
from patchwave.campaign.plan import Exclusion, Plan, PlannedHost, Restriction, StagePlan, digest
from patchwave.campaign.rollout import (
    ERRORS,
    TERMINAL,
    Dispatch,
    DispatchRow,
    Done,
    Halt,
    HostRow,
    HostState,
    Invocation,
    Move,
    Outcome,
    PatchState,
    StageRules,
    StepKind,
    Wait,
)
from patchwave.campaign.snapshots import WORDS, HostWay, State, Taken, Way, WaysBack
from patchwave.campaign.values import HostId, RunId, StageName

STAGE = StageName("rollback")
DAG = "rollback"
TOKENS = uuid.UUID("b3c1b8c6-0a8b-5d8e-9f6a-4f1f0d6f2c55")
QUESTIONS = 3
"""So many different people a gate of a rollback can ask: the DAG is one for all campaigns, and its tasks are fixed."""

REPLACING = timedelta(minutes=10)
"""How long a root volume replacement usually takes, with the boot after it."""
LIMIT = timedelta(hours=2)
"""How long one may take until the host counts as unreachable; as for a reboot."""


class NothingToRollBack(Permanent):
    """No host of that run can be rolled back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """What the ledger has of the run that is taken back.

    Attributes:
        plan: as it was approved last.
        touched: hosts that an Install was sent to.
        saved: the snapshots that were taken before.
    """

    run: RunId
    plan: Plan
    rows: Sequence[HostRow]
    touched: frozenset[HostId]
    saved: Mapping[HostId, Taken]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A host of the earlier run, and its way back today."""

    row: HostRow
    way: HostWay


def chosen(
    earlier: Earlier, hosts: Mapping[HostId, Host], states: Mapping[str, State], *, stages: Collection[str], only: Collection[str]
) -> tuple[Chosen, ...]:
    """The way back of each host that was asked for.

    Args:
        hosts: as EC2 has them now; one that is absent is gone.
        states: of the snapshots that EC2 lists now, by token.
        stages: of the earlier run; none means all.
        only: ids or names of hosts; none means all that an Install was sent to.

    Raises:
        NothingToRollBack: a name is none of that run's.
    """
    known = {str(row.stage) for row in earlier.rows}
    if odd := sorted(set(stages) - known):
        has = ", ".join(sorted(known)) or "none"
        raise NothingToRollBack(f"stages: {', '.join(odd)} is none of {earlier.run}; allowed are {has}")
    named = {name for row in earlier.rows for name in (row.host, row.name)}
    if odd := sorted(set(only) - named):
        raise NothingToRollBack(f"hosts: {', '.join(odd)} is none of {earlier.run}")
    wanted = [
        row
        for row in earlier.rows
        if (not stages or row.stage in stages) and (row.host in only or row.name in only if only else row.host in earlier.touched)
    ]
    return tuple(Chosen(row=row, way=_way(row, earlier, hosts.get(row.host), states)) for row in wanted)


def _way(row: HostRow, earlier: Earlier, host: Host | None, states: Mapping[str, State]) -> HostWay:
    def none(why: str) -> HostWay:
        return HostWay(host=row.host, way=Way.NONE, why=why)

    if row.host not in earlier.touched:
        return none("that run installed nothing on it: there is nothing to take back")
    ready = fleet.readiness(host) if host is not None else Readiness.TERMINATED
    if host is None or ready is Readiness.TERMINATED:
        return none("the instance is gone: launch another one, from an image of before if need be")
    if ready is Readiness.STOPPED:
        return none("the instance is stopped, and EC2 replaces root volumes of running ones only: start it and roll back again")
    saved = earlier.saved.get(row.host)
    if saved is None or not saved.id:
        return none("no snapshot was taken before: restore it from your own backup, or launch another instance in its place")
    state = states.get(saved.token)
    if state not in (State.COMPLETED, State.PENDING):
        what = "EC2 does not list it any more" if state is None else "it failed"
        return none(f"its snapshot {saved.id} cannot be used, {what}: restore your own backup, or launch another instance")
    why = f"from {saved.id} of {saved.intended_at:%Y-%m-%d %H:%M} UTC; what was written to its root volume since is lost"
    return HostWay(host=row.host, way=Way.ROOT_VOLUME, why=why, gib=saved.gib, snapshot=saved.id)


def build(
    earlier: Earlier,
    picked: Sequence[Chosen],
    hosts: Mapping[HostId, Host],
    *,
    run: RunId,
    now: datetime,
    dry_run: bool,
    requested_by: str | None,
    restriction: Restriction,
    otherwise: Sequence[str],
) -> Plan:
    """The plan of a rollback: one stage with everybody who has a way back; everybody else is excluded with what to do.

    Who may approve it are those of the last stage of the earlier run that is touched and had an approval.

    Args:
        otherwise: who may approve where none of those stages had one.
    """
    going = [one for one in picked if one.way.way is not Way.NONE]
    out = [one for one in picked if one.way.way is Way.NONE]
    names = {one.row.stage for one in going}
    involved = [stage for stage in earlier.plan.stages if stage.name in names]
    asked = [stage for stage in involved if stage.approval_required] or involved
    planned = [_planned(one, hosts[one.row.host]) for one in going]
    # Who is down comes first: nobody loses anything by it. Then the last ones first, as they were begun.
    order = sorted(planned, key=lambda host: not host.note)
    places = _places(involved)
    domains = {host.id: host.domains for host in order}
    allowed = {domain: places.get(domain, 1) for its in domains.values() for domain in its}
    stage = StagePlan(
        name=STAGE,
        hosts=tuple(order),
        concurrency=", ".join(dict.fromkeys(stage.concurrency for stage in involved)) or "none",
        places=allowed,
        stage_places=sum(stage.stage_places for stage in involved),
        error_budget=max((stage.error_budget for stage in involved), default=0),
        soak=timedelta(),
        approval_required=True,
        approvers=(asked[-1].approvers if asked else ()) or tuple(otherwise),
        approval_timeout=asked[-1].approval_timeout if asked else timedelta(hours=24),
        health_checks=(),
        health_timeout=timedelta(),
        waves=waves.split([host.id for host in order], domains, allowed) if order else (),
        forecast=REPLACING * 2,
        remarks=(f"Takes back what {earlier.run} did (its plan: {digest(earlier.plan)[:12]}).",),
        quorum=max((stage.quorum for stage in asked), default=1),
        ways_back=WaysBack(hosts=tuple(one.way for one in going)),
    )
    return Plan(
        run=run,
        campaign=DAG,
        created=now,
        definition=earlier.plan.definition,
        policy=earlier.plan.policy,
        dry_run=dry_run,
        requested_by=requested_by,
        restriction=restriction,
        stages=(stage,),
        left_out=(),
        exclusions=tuple(
            Exclusion(host=one.row.host, cell=one.row.cell, name=one.row.name, reason=one.way.why) for one in out
        ),
        severities={},
        tracks={},
        not_patchable={},
        unscanned={},
        snapshots={},
        cells=earlier.plan.cells,
    )


def _places(involved: Iterable[StagePlan]) -> dict[str, int]:
    """Places of each failure domain as the earlier run had them; of one that two stages share the fewer."""
    found: dict[str, int] = {}
    for stage in involved:
        for domain, count in stage.places.items():
            found[domain] = min(count, found.get(domain, count))
    return found


def _planned(one: Chosen, host: Host) -> PlannedHost:
    row = one.row
    return PlannedHost(
        id=row.host, cell=row.cell, name=row.name, platform=row.platform, zone=host.zone, domains=row.domains,
        note=fleet.why_not(host), findings={}, deadline=None, covered=True,
    )  # fmt: skip


def one_stage(campaign: Campaign, plan: StagePlan) -> Campaign:
    """The campaign as a rollback needs it: its scope, people and notifications, and the one stage of the plan.

    Whatever else a campaign wants (lockfile, window, remedies, canary) is about patching.
    """
    first = campaign.stages[0]
    approval = first.approval.model_copy(update={
        "required": bool(plan.approvers), "approvers": plan.approvers, "roles": (), "quorum": plan.quorum, "tolerance": None,
    })  # fmt: skip
    stage = first.model_copy(update={"name": str(STAGE), "approval": approval, "window": None, "soak": timedelta()})
    content = campaign.model_copy(update={"stages": (stage,)}).model_dump(mode="json", by_alias=True, exclude_none=True)
    for about_patching in ("promotion", "emergency", "remediate", "schedule"):
        content.pop(about_patching, None)
    return Campaign.from_json(evidence.canonical(content).decode())


def rows(plan: Plan, earlier: Mapping[HostId, HostRow], *, now: datetime) -> tuple[HostRow, ...]:
    """The hosts as they enter the ledger; what they lacked before they were patched is what they should lack again."""
    return tuple(
        HostRow(
            run=plan.run, stage=STAGE, host=host.id, cell=host.cell, name=host.name, platform=host.platform,
            domains=host.domains, state=HostState.PLANNED, reason=host.note, since=now,
            missing_before=earlier[host.id].missing_before if host.id in earlier else None,
        )
        for host in plan.stage(STAGE).hosts
    )  # fmt: skip


def token(run: RunId, host: HostId) -> str:
    """Client token of a host's replacement: the same however often it is computed."""
    return str(uuid.uuid5(TOKENS, f"{run}|{host}"))


# --- going on -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """Replace the root volumes of these hosts."""

    hosts: tuple[HostId, ...]


Decision = Begin | tuple[Dispatch, ...] | Wait | Halt | Done

UNDER_WAY = frozenset({HostState.ROLLING_BACK, HostState.TO_VERIFY, HostState.VERIFYING})


def decide(
    rules: StageRules,
    hosts: Sequence[HostRow],
    dispatches: Mapping[str, DispatchRow],
    *,
    down: Collection[HostId],
    errors_since: datetime | None = None,
    now: datetime,
) -> Decision:
    """What to do next, from the ledger's rows.

    Args:
        down: hosts that did not serve when the plan was made.
        errors_since: the moment of the last halt that a person cleared.

    Returns:
        `Halt` also at the end, if a host did not come back: a rollback that left somebody behind is none that succeeded.
    """
    due = rollout.steps_due(rules, hosts, dispatches, StepKind.VERIFY, now=now)
    if due:
        return due
    spent = [row for row in hosts if row.state in ERRORS and (errors_since is None or row.since > errors_since)]
    over = len(spent) > rules.error_budget
    begin = () if over else _fitting(rules, hosts, down)
    if begin:
        return Begin(hosts=begin)
    under_way = [row for row in hosts if row.state in UNDER_WAY]
    if under_way:
        return _wait(under_way, over=over)
    left = [row for row in hosts if row.state is HostState.PLANNED]
    failed = [row for row in hosts if row.state in TERMINAL and row.state is not HostState.ROLLED_BACK]
    if over or left:
        rule = "error budget" if over else rollout.NO_PLACE
        why = f"{len(spent)} hosts did not come back, {rules.error_budget} may" if over else "no place is left for the others"
        return Halt(rule=rule, reason=why, hosts=tuple(row.host for row in failed), advice=_advice(failed))
    if failed:  # also after a clear: no later look makes it a success
        why = f"{len(failed)} of {len(hosts)} hosts did not come back"
        return Halt(rule="every host comes back", reason=why, hosts=tuple(row.host for row in failed), advice=_advice(failed))
    return Done(classes=Counter(row.state for row in hosts))


def _advice(failed: Sequence[HostRow]) -> str:
    said = "; ".join(f"{row.host}: {row.reason}" for row in failed[:5])
    return f"look at them ({said}); clear the task to go on with the others" if said else "clear the task to go on"


def _fitting(rules: StageRules, hosts: Sequence[HostRow], down: Collection[HostId]) -> tuple[HostId, ...]:
    """As many as there are places in every domain of a host, those first that do not serve."""
    place = {host: number for number, host in enumerate(rules.order)}
    order = sorted((row for row in hosts if row.state is HostState.PLANNED), key=lambda row: place.get(row.host, len(place)))
    away = [row for row in hosts if row.state in UNDER_WAY]
    # Who serves must not be taken where others are away or have not come back, whoever broke them.
    lost = [row for row in hosts if row.state in ERRORS or (row.state is HostState.PLANNED and row.host in down)]
    under_way: Counter[str] = Counter(domain for row in away for domain in row.domains)
    missing: Counter[str] = Counter(domain for row in lost for domain in row.domains)
    found = []
    for row in order:
        used = under_way if row.host in down else under_way + missing
        if all(used[domain] < rules.places.get(domain, 1) for domain in row.domains):
            found.append(row.host)
            under_way.update(row.domains)
    return tuple(found)


def _wait(under_way: Sequence[HostRow], *, over: bool) -> Wait:
    counted = Counter(row.state for row in under_way)
    parts = [
        f"{counted[state]} {words}"
        for state, words in (
            (HostState.ROLLING_BACK, "get their root volume back"), (HostState.TO_VERIFY, "are to be scanned"),
            (HostState.VERIFYING, "are scanned"),
        )
        if counted[state]
    ]  # fmt: skip
    tokens = tuple(sorted({row.token for row in under_way if row.state is HostState.VERIFYING and row.token}))
    return Wait(
        reason=f"hosts: {', '.join(parts)}{'; no further one is begun, the error budget is spent' if over else ''}",
        ends="EC2 has replaced their root volumes, their agents answer, and a Scan has told what they have",
        until=min(row.since for row in under_way) + LIMIT,
        tokens=tokens,
        look=timedelta(minutes=1),
    )


# --- what is proven -----------------------------------------------------------------------------------------------------


def back(row: HostRow, host: Host | None, *, since: datetime, now: datetime) -> Move | None:
    """A host whose root volume EC2 calls replaced: does its agent answer since?

    Args:
        since: when the replacement had ended.
    """
    if host is None or fleet.readiness(host) is Readiness.TERMINATED:
        return _move(row, HostState.TERMINATED, "EC2 no longer lists the instance")
    if fleet.readiness(host) is Readiness.STOPPED:
        return _move(row, HostState.STOPPED, "the instance is stopped: start it, it has its root volume of before")
    if fleet.readiness(host) is Readiness.READY and host.last_ping is not None and host.last_ping > since:
        return _move(row, HostState.TO_VERIFY, "its root volume is the one of before, and its agent answers")
    if now > since + LIMIT:
        why = "its root volume was replaced, and its agent has not been heard of since"
        return _move(row, HostState.UNREACHABLE, f"{why}: look at its console output")
    return None


def scanned(
    row: HostRow,
    dispatch: DispatchRow,
    invocation: Invocation | None,
    state: PatchState | None,
    *,
    complete: bool,
    attempts: int,
    now: datetime,
) -> Move | None:
    """What the Scan after proves of a host; None while it says nothing.

    A host is rolled back only if a report of this very Scan finds as many patches missing as before it was patched.

    Args:
        complete: the command is over.
        attempts: how often this Scan was begun.
    """
    late = now > max(row.since, dispatch.requested_at or row.since) + LIMIT
    if invocation is None or invocation.outcome is Outcome.RUNNING:
        if complete or late:
            return _move(row, HostState.UNREACHABLE, "the Scan after was never heard of: look at its agent, then scan it")
        return None
    match invocation.outcome:
        case Outcome.UNDELIVERED | Outcome.DENIED:
            return _move(row, HostState.UNREACHABLE, f"the Scan after did not reach it ({invocation.details}): scan it by hand")
        case Outcome.CANCELLED:
            if attempts >= rollout.MOST_CANCELLED:
                return _move(row, HostState.FAILED, f"its Scan was cancelled {attempts} times, by nobody here: scan it by hand")
            return _move(row, HostState.TO_VERIFY, "its Scan was cancelled")
        case Outcome.FAILED:
            return _move(row, HostState.FAILED, f"the Scan after failed (exit code {invocation.exit_code}): scan it by hand")
    fresh = state is not None and dispatch.requested_at is not None and state.ended >= dispatch.requested_at
    if state is None or not fresh or state.operation != "Scan":
        return _move(row, HostState.FAILED, "the Scan after left no report: scan it by hand") if late else None
    before = row.missing_before
    if before is not None and state.missing < before:
        why = f"{state.missing} patches are missing and {before} were before it was patched, so it is not what it was"
        return replace(_move(row, HostState.FAILED, f"{why}: look at its packages"), missing_after=state.missing)
    told = f"it lacks {state.missing} patches again" + ("" if before is None else f", {before} when it was patched")
    return replace(_move(row, HostState.ROLLED_BACK, told), missing_after=state.missing)


def _move(row: HostRow, after: HostState, reason: str) -> Move:
    return Move(host=row.host, before=row.state, after=after, reason=reason)


# --- for people ---------------------------------------------------------------------------------------------------------


def markdown(plan: Plan, *, notice: str = "") -> str:
    """The plan as a person judges it: which hosts, which way, how many at once, who stays behind and what to do about it."""
    stage = plan.stage(STAGE)
    ways = {one.host: one for one in stage.ways_back.hosts} if stage.ways_back is not None else {}
    lines = ["# Plan of a rollback", ""]
    lines += [f"> **{_plain(notice)}**", ""] if notice else []
    lines += ["> **Dry run:** nothing is changed; this plan is the result.", ""] if plan.dry_run else []
    lines += [
        f"**You are asked about {len(stage.hosts)} hosts:** at most {stage.stage_places} at once ({stage.concurrency}), stops "
        f"when more than {stage.error_budget} do not come back.",
        "",
        *(f"- {_plain(remark)}" for remark in stage.remarks),
        f"- **Requested by:** {_plain(plan.requested_by or 'the schedule')}; **run:** `{plan.run}`",
        f"- **Digest:** `{digest(plan)}` (an approval holds for this plan and no other)",
        "- **What happens:** EC2 puts a root volume in place that is made from the snapshot, and reboots the host. Id, "
        "addresses, role and data volumes stay. The volume that it had is kept, detached, until you delete it.",
        "- **Proven by:** EC2's task, the agent's answer after it, and a Scan that misses what was missing before",
        "- **Afterwards** these hosts lack the patches again: they are findings, and the next run would patch them as before.",
        "",
        "| wave | host | name | platform | now | way back |",
        "|---|---|---|---|---|---|",
    ]
    wave_of = {host: wave.number for wave in stage.waves for host in wave.hosts}
    for host in stage.hosts:
        way = ways.get(host.id)
        told = f"{WORDS[way.way]} {way.why}" if way is not None else "-"
        lines.append(
            f"| {wave_of.get(host.id, '-')} | {host.id} | {_plain(host.name)} | {_plain(host.platform)} "
            f"| {_plain(host.note or 'its agent answers')} | {_plain(told)} |"
        )
    lines += ["", f"## Not rolled back ({len(plan.exclusions)})", ""]
    lines += [f"- **{_plain(one.name)}** ({one.host}): {_plain(one.reason)}" for one in plan.exclusions] or ["Nobody."]
    return "\n".join(lines) + "\n"


def _plain(text: object) -> str:
    flat = " ".join(str(text).splitlines())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[").replace("`", "'").replace("<", "&lt;")
