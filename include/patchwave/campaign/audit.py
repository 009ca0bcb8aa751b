"""Which rules of a rollout did a run break?

`broken` compares what really happened to the hosts (awsim's journal, written by the simulated world and by nothing that
Patchwave says) with what the ledger says was planned, decided, sent and settled. `python -m patchwave check`, the journeys and
the simulation call it; it is pure, and whoever calls it fetches journal and ledger.

Within the ledger the order is that of its journal's sequence numbers, within awsim that of its lines. Moments of the one are
compared with moments of the other only within a tolerance (`RunTrace.apart`), for they come from different clocks.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Any

from patchwave.campaign import approval, evidence, windows
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Closed, Decision, Terms
from patchwave.campaign.plan import Plan, StagePlan
from patchwave.campaign.report import StageFacts, WaitFacts
from patchwave.campaign.rollout import (
    ERRORS,
    HOLDS_PLACE,
    IN_FLIGHT,
    OPEN,
    TERMINAL,
    DispatchRow,
    DispatchState,
    HostRow,
    HostState,
    StepKind,
)
from patchwave.campaign.values import HostId, RunId, StageName

APART = timedelta(minutes=5)
"""How far the campaign's clock and AWS's may be apart: a second's stall of a rehearsal at speed 240 is four minutes."""

_OURS = re.compile(r"patchwave ([0-9a-f]{32})(?: (\S+))?")
"""How the Comment of a stage's command begins: the dispatch's token and the campaign's name."""


class Rule(StrEnum):
    """A rule that is checked; `MEANING` says each in a sentence."""

    BUDGET = "budget"
    ERROR_BUDGET = "error budget"
    ONCE = "once"
    ORDER = "order"
    PLAN = "plan"
    WINDOW = "window"
    SETTLED = "settled"
    TRUTH = "truth"
    KNOWN = "known"
    HALT = "halt"
    JOURNAL = "journal"
    WAITS = "waits"


MEANING: Mapping[Rule, str] = {
    Rule.BUDGET: "no failure domain and no stage ever has more hosts away than it may",
    Rule.ERROR_BUDGET: "nothing further is begun once more hosts have failed than may",
    Rule.ONCE: "no host gets a command twice, and no second Install without a reason",
    Rule.ORDER: "a stage begins after the one before is patched and soaked, and after it is approved",
    Rule.PLAN: "no host outside the plan is touched, no stage that was not chosen, none at all in a dry run",
    Rule.WINDOW: "no host is begun outside its window",
    Rule.SETTLED: "each host of a stage that ended is in exactly one class, and is left alone from then on",
    Rule.TRUTH: "each class is what really became of the host",
    Rule.KNOWN: "each command of ours in AWS stands in the ledger, and as what it was",
    Rule.HALT: "a halted stage begins nothing until a person clears it",
    Rule.JOURNAL: "the ledger's journal is whole, and its tables say what it says",
    Rule.WAITS: "each wait has a reason and says what ends it",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """One break of a rule.

    Attributes:
        subject: the host, stage or domain that it is about.
        seen: what was seen, one sentence.
        where: where to look it up: lines of awsim's journal, records of the ledger's.
    """

    rule: Rule
    subject: str
    seen: str
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule.value}: {self.subject}: {self.seen}" + (f" [{'; '.join(self.where)}]" if self.where else "")


@dataclass(frozen=True, kw_only=True)
class RunTrace:
    """All that is known of one run.

    Attributes:
        plan: None if the run never came to one.
        lines: awsim's journal, as `GET /_awsim/journal` gives it, in its order.
        records: the ledger's journal of the run.
        campaign: its name, as it stands in the Comment of commands.
        ended: whether the run is over, so that nothing may be left open.
        elsewhere: tokens of other runs of the same ledger, whose commands stand in the same awsim.
        began: when the run began; earlier lines are not its own.
        apart: tolerance where moments of the two clocks are compared.
        closures: freezes of the run's campaign file.
        made: digest of the plan that the run was made with, where a gate has changed it since; None: it is `plan`.
        asked: digest of the plan that holds for a stage, by stage, where that is not `plan`.
        overridden: hosts whose Installs went by the policy's baselines in place of their account's: of those nothing but the
            Install's own exit code says whether it brought all.
    """

    run: RunId
    campaign: str
    plan: Plan | None
    stages: Sequence[StageFacts]
    hosts: Sequence[HostRow]
    dispatches: Sequence[DispatchRow]
    decisions: Sequence[Decision]
    records: Sequence[evidence.Linked]
    lines: Sequence[Mapping[str, Any]]
    waits: Sequence[WaitFacts] = ()
    ended: bool = True
    elsewhere: frozenset[str] = frozenset()
    began: datetime | None = None
    apart: timedelta = APART
    closures: Sequence[windows.Closure] = ()
    made: str | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    overridden: frozenset[HostId] = frozenset()

    # --- awsim's side ---------------------------------------------------------------------------------------------------
    @cached_property
    def events(self) -> tuple[Happening, ...]:
        """What happened since the run began, in order."""
        made = (_happening(number, line) for number, line in enumerate(self.lines, start=1))
        earliest = None if self.began is None else self.began - self.apart
        return tuple(one for one in made if earliest is None or one.at >= earliest)

    @cached_property
    def tokens(self) -> Mapping[str, DispatchRow]:
        """Dispatches by token."""
        return {row.token: row for row in self.dispatches}

    @cached_property
    def ours(self) -> Mapping[HostId, tuple[Happening, ...]]:
        """What the run's own dispatches did, by host."""
        found: dict[HostId, list[Happening]] = defaultdict(list)
        for one in self.events:
            if one.token in self.tokens:
                found[one.host].append(one)
        return {host: tuple(its) for host, its in found.items()}

    @cached_property
    def of_host(self) -> Mapping[HostId, tuple[Happening, ...]]:
        """Everything that happened, by host, whoever did it."""
        found: dict[HostId, list[Happening]] = defaultdict(list)
        for one in self.events:
            found[one.host].append(one)
        return {host: tuple(its) for host, its in found.items()}

    # --- the ledger's side ----------------------------------------------------------------------------------------------
    def planned(self, stage: StageName) -> StagePlan | None:
        """The plan of a stage, if it has one."""
        return next((one for one in self.plan.stages if one.name == stage), None) if self.plan else None

    def is_planned(self, host: HostId, stage: StageName) -> bool:
        """Whether the stage may touch that host: it is planned there, or has joined it since."""
        planned = self.planned(stage)
        at_home = planned is not None and any(one.id == host for one in planned.hosts)
        return at_home or any(row.host == host and row.stage == stage for row in self.hosts)

    def rows(self, stage: StageName) -> list[HostRow]:
        """Hosts of a stage as the ledger has them."""
        return [row for row in self.hosts if row.stage == stage]

    def noted(self, *kinds: str, stage: str | None = None) -> Iterator[evidence.Linked]:
        """Records of these kinds (of a stage), in order."""
        for one in self.records:
            if one.kind in kinds and (stage is None or one.data.get("stage") == stage):
                yield one

    def state(self, stage: StageName) -> str:
        """The stage's state as the ledger has it."""
        return next((str(row.state) for row in self.stages if row.stage == stage), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Happening:
    """One line of awsim's journal.

    Attributes:
        line: its number, from 1.
        token: of the dispatch that caused it; empty if none of ours did.
        campaign: as the Comment names it.
    """

    line: int
    at: datetime
    host: HostId
    event: str
    operation: str
    token: str
    campaign: str
    command: str
    exit_code: int | None

    @property
    def begins_install(self) -> bool:
        """An Install begins."""
        return self.event == "command_begun" and self.operation == "Install"

    def ends(self, operation: str) -> bool:
        """A command of that operation ended well."""
        return self.event == "command_ended" and self.operation == operation and self.exit_code == 0

    @property
    def where(self) -> str:
        """For people."""
        return f"awsim's journal, line {self.line}: {self.at:%H:%M:%S} {self.event} {self.operation} on {self.host}".rstrip()


def _happening(number: int, line: Mapping[str, Any]) -> Happening:
    cause = line.get("cause") or {}
    found = _OURS.match(str(cause.get("comment") or ""))
    return Happening(
        line=number,
        at=datetime.fromisoformat(str(line["at"])),
        host=HostId(str(line["host"])),
        event=str(line["event"]),
        operation=str(line.get("operation") or ""),
        token=found[1] if found else "",
        campaign=(found[2] or "") if found else "",
        command=str(cause.get("command_id") or ""),
        exit_code=line.get("exit_code"),
    )


def _record(one: evidence.Linked) -> str:
    return f"ledger's record {one.sequence}: {one.kind} at {one.at:%H:%M:%S}"


def broken(trace: RunTrace) -> tuple[Broken, ...]:
    """Every break of a rule, in the order of the rules; none if the run kept them all."""
    return tuple(found for rule in Rule for found in CHECKS[rule](trace))


# --- budget -----------------------------------------------------------------------------------------------------------------
def _budget(trace: RunTrace) -> Iterator[Broken]:
    for stage in trace.plan.stages if trace.plan else ():
        yield from _really_away(trace, stage)
        yield from _places_taken(trace, stage)


def _really_away(trace: RunTrace, stage: StagePlan) -> Iterator[Broken]:
    """From the journal alone: a host is away from the beginning of its Install until it is settled.

    One that was patched is back with the end of the last command on it; one that was not, or is not settled, keeps its place.
    """
    edges: list[tuple[datetime, int, int, HostRow, Happening]] = []
    for row in trace.rows(stage.name):
        its = [one for one in trace.ours.get(row.host, ()) if trace.tokens[one.token].stage == stage.name]
        installs = list({one.token: one for one in its if one.begins_install}.values())
        for begun, following in pairwise([*installs, None]):
            if begun is None:
                continue
            edges.append((begun.at, 1, begun.line, row, begun))
            if following is None:
                back = _back(trace, row, its)
            elif _why_again(trace, row.host, begun, following):  # it stood ready in between, which takes no place
                back = _last_end(its[: its.index(following)])
            else:
                back = None
            if back is not None:
                edges.append((back, 0, 0, row, begun))  # an end counts before a begin at its moment
    away: dict[str, dict[HostId, Happening]] = defaultdict(dict)
    told: set[str] = set()
    for _, begins, _, row, happening in sorted(edges, key=lambda edge: edge[:3]):
        for domain in row.domains:
            if not begins:
                away[domain].pop(row.host, None)
                continue
            away[domain][row.host] = happening
            places = stage.places.get(domain, 1)
            if len(away[domain]) > places and domain not in told:
                told.add(domain)
                yield Broken(
                    rule=Rule.BUDGET,
                    subject=domain,
                    seen=f"{len(away[domain])} hosts of {stage.name} were away at once ({', '.join(away[domain])}), {places} may",
                    where=tuple(one.where for one in away[domain].values()),
                )


def _back(trace: RunTrace, row: HostRow, its: Sequence[Happening]) -> datetime | None:
    """When a host gave its place back; None if it did not."""
    if row.state in (HostState.PATCHED, HostState.OUT_OF_WINDOW, HostState.EXCEPTED):
        return _last_end(its)
    if row.state is HostState.REPLACED:
        return next((one.at for one in trace.of_host[row.host] if one.event in ("replaced", "out_of_service")), None)
    # The ledger's clock; `_places_taken` has it in the exact order.
    recovered = (one.at for one in trace.noted("host.recovered", stage=row.stage) if one.data.get("host") == row.host)
    return next((at - trace.apart for at in recovered), None)


def _last_end(its: Sequence[Happening]) -> datetime | None:
    return next((one.at for one in reversed(its) if one.event == "command_ended"), None)


@dataclass(slots=True)
class _Replay:
    """The hosts of a stage as the ledger's journal tells them, record by record."""

    states: dict[str, str] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)  # since the last halt
    recovered: set[str] = field(default_factory=set)

    def take(self, one: evidence.Linked) -> None:
        if one.kind == "hosts.added":
            for host in one.data["hosts"]:
                self.states[host["host"]] = host["state"]
        elif one.kind == "host.moved":
            host, after = one.data["host"], one.data["after"]
            self.states[host] = after
            if one.data.get("token"):
                self.sent.add(host)
            if after in _ERRORS:
                self.errors.add(host)
        elif one.kind == "host.recovered":
            self.recovered.add(one.data["host"])
        elif one.kind == "host.unwell":
            self.recovered.discard(one.data["host"])
        elif one.kind == "stage.halted":
            self.errors.clear()

    def holds_place(self, host: str) -> bool:
        state = self.states.get(host)
        if host in self.recovered:
            return False
        return state in _HOLDS or (state in _LEFT and host in self.sent)


_REPLAYED = ("hosts.added", "host.moved", "host.recovered", "host.unwell", "stage.halted")
_ERRORS = frozenset(state.value for state in ERRORS)
_HOLDS = frozenset(state.value for state in HOLDS_PLACE)
_LEFT = frozenset({HostState.STOPPED.value, HostState.TERMINATED.value})
_TERMINAL = frozenset(state.value for state in TERMINAL)


def _places_taken(trace: RunTrace, stage: StagePlan) -> Iterator[Broken]:
    """From the ledger's journal alone: failed and unreachable hosts hold places also if they were never begun."""
    domains = {row.host: row.domains for row in trace.rows(stage.name)}
    replay = _Replay()
    told: set[str] = set()
    for one in trace.noted(*_REPLAYED, "dispatch.intended", stage=stage.name):
        replay.take(one)
        if one.kind != "dispatch.intended" or one.data.get("step") != StepKind.INSTALL.value:
            continue
        begun = set(one.data["hosts"])
        holding = [host for host in domains if host in begun or replay.holds_place(host)]
        taken = Counter(domain for host in holding for domain in domains[host])
        for domain in sorted({domain for host in begun if host in domains for domain in domains[host]} - told):
            if taken[domain] > stage.places.get(domain, 1):
                told.add(domain)
                yield Broken(
                    rule=Rule.BUDGET,
                    subject=domain,
                    seen=f"an Install was begun although that made {taken[domain]} places taken of {stage.places.get(domain, 1)}",
                    where=(_record(one),),
                )


def _error_budget(trace: RunTrace) -> Iterator[Broken]:
    for stage in trace.plan.stages if trace.plan else ():
        replay = _Replay()
        for one in trace.noted(*_REPLAYED, "dispatch.intended", stage=stage.name):
            replay.take(one)
            begins = one.kind == "dispatch.intended" and one.data.get("step") in (StepKind.INSTALL.value, StepKind.SCAN.value)
            if begins and len(replay.errors) > stage.error_budget:
                yield Broken(
                    rule=Rule.ERROR_BUDGET,
                    subject=stage.name,
                    seen=f"a {one.data['step']} of {', '.join(one.data['hosts'])} was begun after {len(replay.errors)} hosts had "
                    f"failed ({', '.join(sorted(replay.errors))}), {stage.error_budget} may",
                    where=(_record(one),),
                )
                break


# --- once -------------------------------------------------------------------------------------------------------------------
def _once(trace: RunTrace) -> Iterator[Broken]:
    commands: dict[str, dict[str, Happening]] = defaultdict(dict)
    begun: dict[tuple[str, HostId], Happening] = {}
    for one in trace.events:
        if one.event != "command_begun" or one.token not in trace.tokens:
            continue
        commands[one.token].setdefault(one.command, one)
        first = begun.setdefault((one.token, one.host), one)
        if first is not one and first.command == one.command:
            yield Broken(
                rule=Rule.ONCE, subject=one.host, seen=f"command {one.command} was carried out twice",
                where=(first.where, one.where),
            )  # fmt: skip
    for token, sent in commands.items():
        if len(sent) > 1:
            yield Broken(
                rule=Rule.ONCE,
                subject=", ".join(sorted({one.host for one in sent.values()})),
                seen=f"the {trace.tokens[token].step.value} with token {token} was sent {len(sent)} times ({', '.join(sent)})",
                where=tuple(one.where for one in sent.values()),
            )
    for host, its in trace.ours.items():
        yield from _installed_again(trace, host, its)
        yield from _rebooted_again(host, its)


def _installed_again(trace: RunTrace, host: HostId, its: Sequence[Happening]) -> Iterator[Broken]:
    installs = list({one.token: one for one in its if one.begins_install}.values())
    for before, after in pairwise(installs):
        if not _why_again(trace, host, before, after):
            yield Broken(
                rule=Rule.ONCE, subject=host, seen="a second Install began, and the ledger gives no reason for it",
                where=(before.where, after.where),
            )  # fmt: skip


def _why_again(trace: RunTrace, host: HostId, before: Happening, after: Happening) -> str:
    """Why a host stood ready again between two Installs, as the ledger says it; empty if it does not."""
    return next(
        (
            str(one.data.get("reason"))
            for one in trace.noted("host.moved")
            if one.data.get("host") == host
            and one.data.get("after") == HostState.READY.value
            and one.data.get("reason")
            and _intent(trace, before.token) < one.sequence < _intent(trace, after.token)
        ),
        "",
    )


def _rebooted_again(host: HostId, its: Sequence[Happening]) -> Iterator[Broken]:
    seen: dict[str, Happening] = {}
    for one in its:
        if one.event == "reboot_begun" and (first := seen.setdefault(one.command, one)) is not one:
            yield Broken(
                rule=Rule.ONCE, subject=host, seen=f"command {one.command} rebooted it twice", where=(first.where, one.where)
            )


def _intent(trace: RunTrace, token: str) -> int:
    return next((one.sequence for one in trace.noted("dispatch.intended") if one.data.get("token") == token), 0)


# --- order ------------------------------------------------------------------------------------------------------------------
def _order(trace: RunTrace) -> Iterator[Broken]:
    if trace.plan is None:
        return
    for number, stage in enumerate(trace.plan.stages):
        first = next(trace.noted("dispatch.intended", stage=stage.name), None)
        if first is None:
            continue
        for earlier in trace.plan.stages[:number]:
            yield from _after(trace, earlier, stage, first)
        yield from _approved(trace, stage, first)


def _after(trace: RunTrace, earlier: StagePlan, stage: StagePlan, first: evidence.Linked) -> Iterator[Broken]:
    """`first` is the first dispatch of `stage`."""
    ended = [one for one in trace.noted(*_STAGE_KINDS, stage=earlier.name) if one.sequence < first.sequence]
    if not ended or ended[-1].kind != "stage.patched":
        word = ended[-1].kind.removeprefix("stage.") if ended else "not begun"
        yield Broken(
            rule=Rule.ORDER, subject=stage.name, seen=f"it began while stage {earlier.name} was {word}", where=(_record(first),)
        )
        return
    open_at = ended[-1].at + earlier.soak
    if first.at < open_at - trace.apart:
        yield Broken(
            rule=Rule.ORDER,
            subject=stage.name,
            seen=f"it began {first.at - ended[-1].at} after stage {earlier.name} was patched, which soaks for {earlier.soak}",
            where=(_record(ended[-1]), _record(first)),
        )
    for one in _installs_of(trace, stage.name):
        if one.at < open_at - trace.apart:
            yield Broken(
                rule=Rule.ORDER,
                subject=one.host,
                seen=f"an Install of stage {stage.name} began before stage {earlier.name} was patched and soaked",
                where=(one.where, _record(ended[-1])),
            )
            return


_STAGE_KINDS = ("stage.waiting", "stage.patching", "stage.patched", "stage.halted", "stage.skipped")


def _installs_of(trace: RunTrace, stage: StageName) -> Iterator[Happening]:
    for one in trace.events:
        if one.begins_install and one.token in trace.tokens and trace.tokens[one.token].stage == stage:
            yield one


def _approved(trace: RunTrace, stage: StagePlan, first: evidence.Linked) -> Iterator[Broken]:
    if trace.plan is None or not stage.approval_required:
        return
    digest = trace.asked.get(stage.name) or plans.digest(trace.plan)
    answer = approval.may_patch(
        stage=stage.name, plan=digest, required=True, approvers=stage.approvers, decisions=trace.decisions
    )
    if isinstance(answer, Closed):
        yield Broken(rule=Rule.ORDER, subject=stage.name, seen=f"it began, but {answer.reason}", where=(_record(first),))
        return
    if stage.quorum > 1:
        terms = Terms(approvers=stage.approvers, quorum=stage.quorum, requester=trace.plan.requested_by)
        if not approval.agreed_to_any(terms, stage=stage.name, votes=approval.from_records(trace.records)):
            seen = f"it began, but no {stage.quorum} of {', '.join(stage.approvers)} have said yes"
            yield Broken(rule=Rule.ORDER, subject=stage.name, seen=seen, where=(_record(first),))
    noted = [
        one for one in trace.noted("decision.made", stage=stage.name)
        if one.data.get("plan") == digest and one.data.get("verdict") == "approved"
    ]  # fmt: skip
    if not noted or noted[0].sequence > first.sequence:
        yield Broken(
            rule=Rule.ORDER, subject=stage.name, seen="it began before its approval was recorded",
            where=(_record(first), *(_record(one) for one in noted)),
        )  # fmt: skip


# --- plan -------------------------------------------------------------------------------------------------------------------
def _plan(trace: RunTrace) -> Iterator[Broken]:
    if trace.plan is None or trace.plan.dry_run:
        why = "a dry run sends nothing" if trace.plan else "the run has no plan"
        for row in trace.dispatches:
            yield Broken(rule=Rule.PLAN, subject=row.stage, seen=f"{why}, but a {row.step.value} stands in the ledger")
        for host, its in trace.ours.items():
            yield Broken(rule=Rule.PLAN, subject=host, seen=f"{why}, but a command of ours began on it", where=(its[0].where,))
        return
    stage_of = {host.id: stage.name for stage in trace.plan.stages for host in stage.hosts}
    excluded = {one.host: one.reason for one in trace.plan.exclusions}
    joined = {(row.stage, row.host) for row in trace.hosts if row.host not in stage_of}
    chosen = {stage.name for stage in trace.plan.stages}
    told: set[str] = set()
    for row in trace.dispatches:
        if row.stage not in chosen and row.stage not in told:
            told.add(row.stage)
            yield Broken(rule=Rule.PLAN, subject=row.stage, seen=f"the stage is not in the plan, but a {row.step.value} was sent")
    for host, its in trace.ours.items():
        for one in its:
            row = trace.tokens[one.token]
            if stage_of.get(host) == row.stage or (row.stage, host) in joined:
                continue
            reason = excluded.get(host) or (
                f"it is planned in stage {stage_of[host]}" if host in stage_of else "nobody planned it"
            )
            yield Broken(
                rule=Rule.PLAN, subject=host, seen=f"stage {row.stage} sent it a command, but {reason}", where=(one.where,)
            )
            break
    for stage_name, host in sorted(joined):
        if host in excluded and excluded[host] and host in trace.ours:
            yield Broken(
                rule=Rule.PLAN, subject=host, seen=f"stage {stage_name} took it in, but it was left out: {excluded[host]}",
                where=(trace.ours[host][0].where,),
            )  # fmt: skip


# --- window -----------------------------------------------------------------------------------------------------------------
def _window(trace: RunTrace) -> Iterator[Broken]:
    """Installs only: a Scan disrupts nobody, and what has begun is brought to its end.

    A window and the freezes of the campaign file are computed anew. What calendars and maintenance windows said only AWS knew:
    of them it is judged whether the command was meant within the span that the run had recorded by then.
    """
    for stage in trace.plan.stages if trace.plan else ():
        noted = tuple(trace.noted("window.changed", stage=stage.name))
        closures = [one for one in trace.closures if one.concerns(stage.name)]
        if stage.window is None and not noted and not closures:
            continue
        for one in _installs_of(trace, stage.name):
            moments = (one.at, one.at - trace.apart, one.at + trace.apart)
            seen = ""
            if not any(_is_open(stage.window, closures, moment) for moment in moments):
                seen = f"its Install began outside stage {stage.name}'s window{_opens_next(stage.window, closures, one.at)}"
            elif noted and not _was_open(noted, trace.tokens[one.token].intended_at, trace.apart):
                seen = f"its Install was meant outside of what the run had recorded as open for stage {stage.name}"
            if seen:
                yield Broken(rule=Rule.WINDOW, subject=one.host, seen=seen, where=(one.where,))
                break


def _opening(window: windows.Window | None, closures: Sequence[windows.Closure], at: datetime) -> windows.Span | None:
    """The opening that `at` lies in, else the next one; a maintenance window closes nothing here."""
    return windows.opening(None if window is None or window.maintenance_window else window, at, closures=closures).span


def _is_open(window: windows.Window | None, closures: Sequence[windows.Closure], moment: datetime) -> bool:
    span = _opening(window, closures, moment)
    return span is not None and moment in span


def _opens_next(window: windows.Window | None, closures: Sequence[windows.Closure], at: datetime) -> str:
    span = _opening(window, closures, at)
    return f", which opens next at {span.opens:%Y-%m-%d %H:%M}" if span else ""


def _was_open(noted: Sequence[evidence.Linked], moment: datetime, apart: timedelta) -> bool:
    """Whether a span that held at that moment, by the clocks' tolerance, contains it."""
    held = [one for one in noted if one.at <= moment - apart][-1:]
    held += [one for one in noted if moment - apart < one.at <= moment + apart]
    return any(_contains(one.data, moment, apart) for one in held)


def _contains(data: Mapping[str, Any], moment: datetime, apart: timedelta) -> bool:
    if data.get("opens") is None:
        return True  # at any time
    opens, closes = (datetime.fromisoformat(data[name]) for name in ("opens", "closes"))
    return opens - apart <= moment < closes + apart


# --- settled ----------------------------------------------------------------------------------------------------------------
_PAUSED = frozenset({HostState.NEEDS_REBOOT, HostState.TO_VERIFY})
"""States between two steps: nothing of ours is on its way on such a host."""


def _settled(trace: RunTrace) -> Iterator[Broken]:
    places = Counter(row.host for row in trace.hosts)
    for host, count in places.items():
        if count > 1:
            yield Broken(rule=Rule.SETTLED, subject=host, seen=f"it stands in {count} stages of the ledger")
    for stage in trace.plan.stages if trace.plan and not trace.plan.dry_run else ():
        state = trace.state(stage.name)
        rows = trace.rows(stage.name)
        if state == "patching" and trace.ended:
            yield Broken(rule=Rule.SETTLED, subject=stage.name, seen="the run is over and the stage is still patching")
        if state == "patched":
            yield from _all_settled(stage, rows)
        elif state == "halted" or (state == "patching" and trace.ended):
            # Where a person stopped it, hosts stay where they stood, with nothing on its way; whoever clears it goes on there.
            left = _PAUSED if any(trace.noted("stage.stopped", stage=stage.name)) else frozenset()
            for row in rows:
                if (row.state in IN_FLIGHT or row.state is HostState.SCANNING) and row.state not in left:
                    yield Broken(
                        rule=Rule.SETTLED, subject=row.host, seen=f"stage {stage.name} stopped with it {row.state.value}"
                    )
    yield from _touched_afterwards(trace)


def _all_settled(stage: StagePlan, rows: Sequence[HostRow]) -> Iterator[Broken]:
    there = {row.host for row in rows}
    for host in stage.hosts:
        if host.id not in there:
            yield Broken(rule=Rule.SETTLED, subject=host.id, seen=f"it is planned in stage {stage.name}, which ended without it")
    classes = Counter(row.state for row in rows if row.state in TERMINAL)
    for row in rows:
        if row.state not in TERMINAL:
            yield Broken(rule=Rule.SETTLED, subject=row.host, seen=f"stage {stage.name} ended with it {row.state.value}")
    if sum(classes.values()) < len(stage.hosts):
        told = ", ".join(f"{count} {state.value}" for state, count in classes.items())
        yield Broken(
            rule=Rule.SETTLED, subject=stage.name, seen=f"its classes ({told}) do not sum to the {len(stage.hosts)} planned hosts"
        )


def _touched_afterwards(trace: RunTrace) -> Iterator[Broken]:
    """A host that is settled gets no further command of ours: what was given up was cancelled, too."""
    settled: dict[str, evidence.Linked] = {}
    for one in trace.noted("host.moved"):
        if one.data.get("after") in _TERMINAL:
            settled[one.data["host"]] = one
    for host, record in settled.items():
        for event in trace.ours.get(HostId(host), ()):
            if event.event == "command_begun" and event.at > record.at + trace.apart:
                yield Broken(
                    rule=Rule.SETTLED,
                    subject=host,
                    seen=f"settled as {record.data['after']}; {event.at - record.at} later a command of ours began on it",
                    where=(_record(record), event.where),
                )
                break


# --- truth ------------------------------------------------------------------------------------------------------------------
def _truth(trace: RunTrace) -> Iterator[Broken]:
    stopped = {
        one.data["host"] for one in trace.noted("host.moved")
        if one.data.get("before") == HostState.VERIFYING.value and one.data.get("after") == HostState.READY.value
    }  # fmt: skip
    needed = {one.data["host"] for one in trace.noted("host.moved") if one.data.get("after") == HostState.NEEDS_REBOOT.value}
    for row in trace.hosts:
        its = [one for one in trace.ours.get(row.host, ()) if trace.tokens[one.token].stage == row.stage]
        overridden = row.host in trace.overridden
        seen = _untrue(row, its, rebooted=row.host in needed, again=row.host in stopped, overridden=overridden)
        if seen:
            yield Broken(
                rule=Rule.TRUTH, subject=row.host, seen=f"the ledger calls it {row.state.value}, but {seen}",
                where=tuple(one.where for one in its[-3:]),
            )  # fmt: skip


def _untrue(row: HostRow, its: Sequence[Happening], *, rebooted: bool, again: bool, overridden: bool) -> str:
    """What speaks against the host's class; empty if nothing does.

    Args:
        its: what the stage's commands did to it.
        rebooted: the ledger says that its patches waited for a reboot.
        again: its Install was stopped half-way, and the ledger says that it stood ready again.
        overridden: its Install went by another baseline than the Scans.
    """
    installs = [one for one in its if one.begins_install]
    codes = [one.exit_code for one in its if one.event == "command_ended" and one.operation == "Install"]
    failed = overridden and (len(codes) < len(installs) or codes[-1:] != [0])
    match row.state:
        case HostState.PATCHED:
            if failed and installs:
                return f"its Install ended with exit code {codes[-1] if codes else 'none'}, and no report says what is there"
            return _not_patched(its, rebooted=rebooted)
        case HostState.ALREADY_COMPLIANT:
            if overridden:
                return _not_compliant_before(its, failed=failed)
            if installs:
                return "an Install began on it"
            return "" if any(one.ends("Scan") for one in its) else "no Scan of it ended well"
        case HostState.PENDING_REBOOT:
            return "" if installs else "no Install ever began on it"
        case HostState.EXCEPTED | HostState.OUT_OF_WINDOW:
            return "an Install began on it" if installs and not again else ""
        case HostState.FAILED:
            if not failed and row.missing_after == 0 and not _not_patched(its, rebooted=rebooted):
                return "its Install and the Scan after it ended well and found nothing missing"
            return ""
        case _:
            return ""


def _not_compliant_before(its: Sequence[Happening], *, failed: bool) -> str:
    """Why a host whose Install had nothing to do did not have everything already; empty if it had."""
    if failed:
        return "no Install of it ended well, and nothing else tells what the policy's baseline approves"
    if any(one.event == "package_installed" for one in its):
        return "something was installed on it"
    return "" if any(one.ends("Scan") for one in its) else "no Scan of it ended well"


def _not_patched(its: Sequence[Happening], *, rebooted: bool) -> str:
    """Why a host is not patched, by what really happened to it; empty if it is."""
    begun = [number for number, one in enumerate(its) if one.begins_install]
    if not begun:
        return "no Install ever began on it"
    installed = any(one.event == "package_installed" for one in its)
    reboots = [number for number, one in enumerate(its) if one.event == "reboot_ended"]
    ended = [number for number, one in enumerate(its) if one.event == "command_ended" and one.operation == "Install"]
    if not ended or ended[-1] < begun[-1]:
        return "its Install has not ended"
    if its[ended[-1]].exit_code != 0 and not installed:
        return f"its Install ended with exit code {its[ended[-1]].exit_code} and installed nothing"
    if not installed and not reboots:
        return "nothing was installed on it and it was not rebooted"
    last = ended[-1]
    if rebooted:
        after = [number for number in reboots if number > last]
        if not after:
            return "its patches waited for a reboot, and there was none after the Install"
        last = after[-1]
    if not any(one.ends("Scan") for one in its[last + 1 :]):
        return "no Scan of it ended well after the last thing done to it"
    return ""


# --- known ------------------------------------------------------------------------------------------------------------------
def _known(trace: RunTrace) -> Iterator[Broken]:
    told: set[tuple[str, str]] = set()
    commands: dict[str, set[str]] = defaultdict(set)
    for one in trace.events:
        commands[one.token].add(one.command)
    for one in trace.events:
        if one.event != "command_begun" or not one.token:
            continue
        row = trace.tokens.get(one.token)
        seen = ""
        if row is None:
            if one.token not in trace.elsewhere and one.campaign in ("", trace.campaign):
                seen = f"command {one.command} with token {one.token} is not in the ledger"
        elif one.host not in row.hosts and trace.is_planned(one.host, row.stage):
            seen = f"the {row.step.value} with token {one.token} is for other hosts"
        elif row.state is DispatchState.REFUSED:
            seen = f"the ledger says that AWS refused the {row.step.value}, but it was carried out"
        elif row.state in OPEN and row.command is None and _over(trace, row.stage):
            seen = f"the ledger never learned that its {row.step.value} was sent"
        elif row.command is not None and row.command not in commands[one.token]:
            seen = f"the ledger has its {row.step.value} as command {row.command}, it was command {one.command}"
        if seen and (one.token, one.command) not in told:
            told.add((one.token, one.command))
            yield Broken(rule=Rule.KNOWN, subject=one.host, seen=seen, where=(one.where,))


def _over(trace: RunTrace, stage: StageName) -> bool:
    return trace.ended or trace.state(stage) in ("patched", "halted")


# --- halt -------------------------------------------------------------------------------------------------------------------
def _halt(trace: RunTrace) -> Iterator[Broken]:
    halted: dict[str, evidence.Linked] = {}
    for one in trace.noted(*_STAGE_KINDS, "dispatch.intended"):
        stage = str(one.data.get("stage"))
        if one.kind == "stage.halted":
            halted[stage] = one
        elif one.kind in _STAGE_KINDS:
            halted.pop(stage, None)
        elif stage in halted:
            yield Broken(
                rule=Rule.HALT, subject=stage, seen=f"a {one.data.get('step')} was begun while the stage was halted",
                where=(_record(halted[stage]), _record(one)),
            )  # fmt: skip
    for stage, record in halted.items():
        for happening in _installs_of(trace, StageName(stage)):
            if happening.at > record.at + trace.apart:
                yield Broken(
                    rule=Rule.HALT, subject=happening.host, seen=f"an Install began on it after stage {stage} was halted",
                    where=(_record(record), happening.where),
                )  # fmt: skip
                break


# --- journal ----------------------------------------------------------------------------------------------------------------
def _journal(trace: RunTrace) -> Iterator[Broken]:
    for problem in evidence.verify(trace.records):
        yield Broken(rule=Rule.JOURNAL, subject=trace.run, seen=problem)
    made = next(trace.noted("plan.made"), None)
    if made is not None and trace.plan is not None and made.data.get("digest") != (trace.made or plans.digest(trace.plan)):
        yield Broken(
            rule=Rule.JOURNAL, subject="plan", seen="the plan is not the one whose digest was recorded", where=(_record(made),)
        )
    states: dict[tuple[str, str], str] = {}
    for one in trace.noted("hosts.added", "host.moved"):
        if one.kind == "hosts.added":
            states.update({(one.data["stage"], host["host"]): host["state"] for host in one.data["hosts"]})
        else:
            states[one.data["stage"], one.data["host"]] = one.data["after"]
    for row in trace.hosts:
        said = states.get((row.stage, row.host))
        if said != row.state.value:
            yield Broken(
                rule=Rule.JOURNAL, subject=row.host, seen=f"the ledger has it as {row.state.value}, its journal as {said}"
            )
    intended = {one.data.get("token") for one in trace.noted("dispatch.intended")}
    for dispatch in trace.dispatches:
        if dispatch.token not in intended:
            yield Broken(
                rule=Rule.JOURNAL, subject=dispatch.token, seen="the ledger has this dispatch, its journal has no intent of it"
            )


# --- waits ------------------------------------------------------------------------------------------------------------------
def _waits(trace: RunTrace) -> Iterator[Broken]:
    for wait in trace.waits:
        if not wait.reason or not wait.ends:
            yield Broken(
                rule=Rule.WAITS,
                subject=wait.subject,
                seen=f"it waited since {wait.since:%H:%M:%S} without saying why or what for",
            )
        elif wait.ended_at is None and trace.ended:
            yield Broken(rule=Rule.WAITS, subject=wait.subject, seen=f"the run is over and it still waits: {wait.reason}")


CHECKS: Mapping[Rule, Callable[[RunTrace], Iterable[Broken]]] = {
    Rule.BUDGET: _budget,
    Rule.ERROR_BUDGET: _error_budget,
    Rule.ONCE: _once,
    Rule.ORDER: _order,
    Rule.PLAN: _plan,
    Rule.WINDOW: _window,
    Rule.SETTLED: _settled,
    Rule.TRUTH: _truth,
    Rule.KNOWN: _known,
    Rule.HALT: _halt,
    Rule.JOURNAL: _journal,
    Rule.WAITS: _waits,
}
