"""What came of a run? The report: one JSON document, one HTML file that can be sent, one CSV with a row a host.

`patchwave.operators` builds it at the end of a run and stores it in the ledger; the page in the UI and the command line
render it again from there. Rules: each host of the plan is in exactly one class, a host that was never reached is there as
`not_started`, and nothing that was not seen counts as compliant or closed. How long findings were open is `exposure`'s.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from patchwave.campaign import emergency, evidence, exposure, lockfile, managed_services, stale_images
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.errors import InvalidFile, Permanent
from patchwave.campaign.exposure import Exposure, Fate, Triaged
from patchwave.campaign.findings import Severity
from patchwave.campaign.rollout import IN_FLIGHT, SENTENCES, TERMINAL, DispatchRow, HostRow, HostState
from patchwave.campaign.stale_images import StaleImage

VERDICTS = ("compliant", "not_compliant", "unknown")
"""The three classes of compliance; whatever is written otherwise is unknown."""

MOST_DEADLINES = 500
"""Lines of deadlines in a report: a person reads the first ones, and a file that can be sent must stay one."""

LISTED = "listed"
"""Class of a database or function that no stage was to change."""
NOT_STARTED = "not_started"
"""Class of a host on which nothing was installed because its stage was skipped, halted or not reached."""
UNFINISHED = "in_flight"
"""Class of a host that had been sent an Install and whose end the ledger does not hold: look at it first."""
CLASSES: tuple[str, ...] = (
    "patched", "already_compliant", "pending_reboot", "failed", "unreachable", "stopped", "excepted", "out_of_window",
    "replaced", "terminated", "rolled_back", UNFINISHED, NOT_STARTED,
)  # fmt: skip

MEANINGS: Mapping[str, str] = {
    **{name: SENTENCES[HostState(name)] for name in CLASSES if name not in (UNFINISHED, NOT_STARTED)},
    UNFINISHED: "It had been sent an Install, and the ledger does not hold its end: look at it first.",
    NOT_STARTED: "Nothing was installed: its stage was skipped, halted or not reached.",
}
"""What each class means, a sentence each."""

ADVICE: Mapping[str, str] = {
    "failed": "Read the command's output in Systems Manager (Run Command), mend the cause, and run the campaign again for its "
    "stage: hosts that are patched already are left alone.",
    "unreachable": "Check agent, instance profile and the way to the Systems Manager endpoints. The host counts as unpatched.",
    "pending_reboot": "Reboot it in its maintenance window: until then the old code is running.",
    "stopped": "Nobody patches a stopped instance: start it and run the campaign again, or let it go.",
    "out_of_window": "Its window was too short for what was left: make the window longer or begin earlier.",
    UNFINISHED: "Look at the host's last command in Systems Manager before anything else is sent to it.",
}
"""What a person can do about a host, by its class."""


class UnaccountedHosts(Permanent):
    """A report would leave out a host of the plan, or count one twice."""


# --- What a report is made from: rows of the ledger, which stands above the domain and is therefore known by shape only -------


class RunFacts(Protocol):
    """`ledger.store.Run`, as far as a report reads it."""

    @property
    def id(self) -> str: ...
    @property
    def campaign(self) -> str: ...
    @property
    def dag_id(self) -> str: ...
    @property
    def dag_run_id(self) -> str: ...
    @property
    def began_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def definition_digest(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def requested_by(self) -> str | None: ...
    @property
    def speed(self) -> float: ...
    @property
    def outcome(self) -> str: ...


class StageFacts(Protocol):
    """`ledger.store.StageRow`, as far as a report reads it."""

    @property
    def stage(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def began_at(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...


class WaitFacts(Protocol):
    """`ledger.store.WaitRow`, as far as a report reads it."""

    @property
    def subject(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def ends(self) -> str: ...
    @property
    def since(self) -> datetime: ...
    @property
    def until(self) -> datetime | None: ...
    @property
    def ended_at(self) -> datetime | None: ...


# --- What a report holds ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class HostLine:
    """One host of the plan, or a late joiner; a row of the CSV.

    Attributes:
        klass: its terminal class, or `NOT_STARTED` or `UNFINISHED` (``class`` in JSON and CSV).
        late_joiner: it appeared after the plan was made.
        compliance_before: ``compliant``, ``not_compliant``, ``unknown``; empty if that look was not taken at all.
        inspected: Inspector scans it; if not, its findings are unknown, however few are counted. None if the plan does not say.
        worst_severity: of its findings before; empty without one.
    """

    run: str
    stage: str
    cell: str
    host: str
    name: str
    platform: str
    klass: str
    reason: str
    late_joiner: bool
    installed: int | None
    missing_before: int | None
    missing_after: int | None
    compliance_before: str
    compliance_after: str
    compliance_final: str
    compliance_reason: str
    inspected: bool | None
    findings_before: int
    findings_closed: int
    findings_open: int
    findings_unknown: int
    worst_severity: str
    remediation: str
    remediation_detail: str
    decision: str
    decision_author: str
    decision_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Findings of one severity or track: before, and what became of them; the last three sum to `before`."""

    name: str
    before: int
    closed: int
    open: int
    unknown: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NotPatchable:
    """A vulnerability that no OS patch mends, and why; its deadline stays what it is.

    Attributes:
        deadline: the earliest of its findings; None where the policy names none.
    """

    vulnerability: str
    severity: str
    packages: tuple[str, ...]
    reason: str
    hosts: tuple[str, ...]
    deadline: datetime | None = None
    deadline_because: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlineLine:
    """Findings of one vulnerability that have their track and deadline for the same reasons.

    Attributes:
        deadline: the earliest of them; None for no deadline.
        hosts: who has it.
        overdue: not proven closed, and past their deadline.
    """

    vulnerability: str
    severity: str
    track: str
    reason: str
    deadline: datetime | None
    deadline_because: str
    findings: int
    open: int
    overdue: int
    hosts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Something that did not go as planned and what a person can do about it."""

    stage: str
    host: str
    name: str
    klass: str
    reason: str
    advice: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageLine:
    """One stage: how it ended, and its hosts by class."""

    name: str
    state: str
    reason: str
    hosts: int
    began_at: datetime | None
    ended_at: datetime | None
    classes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A decision as the report shows it.

    Attributes:
        fits: it was made on a plan of this run: the first one, or one that a gate made of it.
        lockfile: digest of the lockfile that was shown with it; empty if none was.
    """

    stage: str
    verdict: str
    author: str
    at: datetime
    plan: str
    comment: str
    fits: bool
    lockfile: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """A wait as the report shows it; `lasted` runs to now where it has not ended."""

    subject: str
    reason: str
    ends: str
    since: datetime
    until: datetime | None
    ended_at: datetime | None
    lasted: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """What the lockfile has for one platform, in numbers.

    Attributes:
        received: of the patches those that came in this run; the others were there before.
        differs: packages of which Dev's hosts had several versions; the newest is locked.
        remarks: what is not known, a sentence each.
    """

    platform: str
    patches: int
    received: int
    differs: int
    release: str
    snapshot: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A stage that was compared with the lockfile whose digest this is."""

    stage: str
    digest: str
    hosts: int
    drifted: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Promoted:
    """What went from the first stage to the later ones.

    Attributes:
        digest: of the lockfile that this run made; empty if it made none.
        stage: whose hosts it was read from.
        problem: why the ledger's document is no lockfile; empty if it is one.
    """

    digest: str
    stage: str
    at: datetime | None
    platforms: tuple[Locked, ...]
    compared: tuple[Compared, ...]
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManagedLine:
    """One database or function.

    Attributes:
        klass: its terminal class; ``listed`` where no stage was to change it.
        before, after: version of the engine, or ARN of the runtime's version; `after` is empty where nobody looked.
        closed: vulnerabilities that its version mends now, as the policy's `fixes` say; of functions Inspector says it.
        open: those that it still has, as far as is known.
        owner: who answers for what no update of AWS's closes; empty if nobody is named, or there is no such thing.
    """

    stage: str
    service: str
    cell: str
    id: str
    name: str
    kind: str
    klass: str
    reason: str
    before: str
    after: str
    closed: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    deadline: datetime | None = None
    owner: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Whereabouts:
    """Where one vulnerability is gone and where not: among hosts, databases and functions alike.

    Attributes:
        deadline: the campaign's, one for all of them: the earliest of its findings; None where the policy names none.
        gone: kinds of resources (``host``, ``database``, ``function``, ``resource of no stage``) with those on which it is proven
            gone, by name.
        left: the same with those on which it is not, or on which nobody knows.
        closes: who closes what is left, a sentence each.
    """

    vulnerability: str
    severity: str
    deadline: datetime | None
    overdue: bool
    gone: Mapping[str, tuple[str, ...]]
    left: Mapping[str, tuple[str, ...]]
    closes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The report of one run.

    Attributes:
        classes: hosts by stage and class; only classes that occur.
        compliance: by look (before, after, final) hosts by verdict; None for a look that was not taken. ``final`` exists
            after a remediation only.
        findings: before, closed, open, unknown.
        journal_problems: empty if the journal's chain was verified.
        deadlines: the most urgent first, `MOST_DEADLINES` at most.
        deadlines_left_out: so many lines more there would be; the triage in the ledger has every finding.
        catalogue: CISA's catalogue that deadlines went by; empty if none.
        promoted: None if no stage was patched by a lockfile, and none was made.
        clocks: how long was left when it was made, for the vulnerabilities that the run was started for.
        stale_images: Auto Scaling groups that would bring an unpatched host back.
        managed: databases and functions, of every stage that changes or lists them.
        whereabouts: each vulnerability that one of those has or had, among all hosts, databases and functions.
        stale_images_problem: why AWS could not be asked for them; empty if it was, or if nobody had reason to.
        run_folder: where the files of the run lie; whoever writes them fills it in.
    """

    run: str
    campaign: str
    dag_id: str
    dag_run_id: str
    outcome: str
    headline: str
    made_at: datetime
    began_at: datetime
    ended_at: datetime | None
    requested_by: str
    dry_run: bool
    speed: float
    params: Mapping[str, Any]
    definition_digest: str
    plan_digest: str
    hosts_planned: int
    late_joiners: int
    totals: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    stages: tuple[StageLine, ...]
    compliance: Mapping[str, Mapping[str, int] | None]
    findings: Mapping[str, int]
    findings_seen_at: datetime | None
    findings_by_severity: tuple[Tally, ...]
    findings_by_track: tuple[Tally, ...]
    not_patchable: tuple[NotPatchable, ...]
    deadlines: tuple[DeadlineLine, ...]
    deadlines_left_out: int
    catalogue: str
    exposure: tuple[Exposure, ...]
    decisions: tuple[Answer, ...]
    exclusions: tuple[Mapping[str, str], ...]
    failures: tuple[Failure, ...]
    remedies: tuple[Mapping[str, str], ...]
    waits: tuple[Pause, ...]
    commands: Mapping[str, int]
    calls: Mapping[str, int]
    journal_problems: tuple[str, ...]
    journal_head: str
    hosts: tuple[HostLine, ...]
    promoted: Promoted | None = None
    clocks: tuple[str, ...] = ()
    stale_images: tuple[StaleImage, ...] = ()
    stale_images_problem: str = ""
    managed: tuple[ManagedLine, ...] = ()
    whereabouts: tuple[Whereabouts, ...] = ()
    run_folder: str = ""


PLANS = "plans"
"""Among the documents that `build` is given: digests of all plans of the run by name, where a gate has changed the first."""


# --- Building ---------------------------------------------------------------------------------------------------------------


def build(
    run: RunFacts,
    stages: Sequence[StageFacts],
    hosts: Sequence[HostRow],
    decisions: Sequence[Decision],
    waits: Sequence[WaitFacts],
    dispatches: Sequence[DispatchRow],
    calls: Mapping[str, int],
    journal_problems: Sequence[str],
    documents: Mapping[str, Any],
    *,
    now: datetime,
    run_folder: str = "",
    journal_head: str = "",
    why: str = "",
) -> Report:
    """The report of `run` from what the ledger holds of it.

    Args:
        documents: content by name; whatever was not reached (no plan, no look after) may be absent or None.
        now: the run's own clock; exposure runs until then.
        why: what made a run fail in which no stage is halted, e.g. the tasks that failed.
        journal_head: hash of the journal's last record: who keeps the report can tell whether its end was cut off.

    Raises:
        UnaccountedHosts: the classes do not sum to the hosts of the plan.
    """
    plan = _mapping(documents.get("plan"))
    digest = evidence.digest(plan) if plan else ""
    after = documents.get("findings.after")
    findings = exposure.triaged(_mapping(documents.get("triage")), after if isinstance(after, Mapping) else None)
    seen_at = exposure.moment(_mapping(after).get("at"))
    by_host: dict[str, list[Triaged]] = {}
    for finding in findings:
        by_host.setdefault(finding.host, []).append(finding)
    due = _deadlines(findings, now)
    answers = _answers(decisions, {digest, *_mapping(documents.get(PLANS)).values()} - {""})
    seats = _seats(_planned(plan), hosts)
    rows = _rows(hosts, seats)
    looks = {name: _look(documents.get(f"compliance.{name}")) for name in ("before", "after", "final")}
    remedies = _remedies(documents.get("remedies"))
    states = {str(stage.stage): stage for stage in stages}
    lines = tuple(
        _line(run, stage, seat, rows, states, looks, by_host.get(seat.host, ()), remedies, answers)
        for stage, of_stage in seats.items()
        for seat in of_stage
    )
    classes = _classes(lines, seats)
    totals = _counted(line.klass for line in lines)
    managed = _managed(plan, documents, findings)
    planned_count = sum(not line.late_joiner for line in lines)
    _account(plan, lines, planned_count)
    back, back_problem = stale_images.from_json(documents.get(stale_images.DOCUMENT) or stale_images.to_json(()))
    return Report(
        run=str(run.id),
        campaign=run.campaign,
        dag_id=run.dag_id,
        dag_run_id=run.dag_run_id,
        outcome=str(run.outcome),
        headline=_headline(run, stages, answers, totals, len(lines), bool(plan), why, managed),
        made_at=now,
        began_at=run.began_at,
        ended_at=run.ended_at,
        requested_by=run.requested_by or "",
        dry_run=_is_dry(run),
        speed=run.speed,
        params=dict(run.params),
        definition_digest=run.definition_digest,
        plan_digest=digest,
        hosts_planned=planned_count,
        late_joiners=len(lines) - planned_count,
        totals=totals,
        classes=classes,
        stages=tuple(_stage_line(name, states.get(name), classes.get(name, {})) for name in _stage_names(stages, seats)),
        compliance={name: _verdicts(look, lines) for name, look in looks.items()},
        findings=_fates(findings),
        findings_seen_at=seen_at,
        findings_by_severity=_tallies(findings, key=lambda one: one.severity, order=[one.value for one in Severity]),
        findings_by_track=_tallies(findings, key=lambda one: one.track, order=_TRACKS),
        not_patchable=_not_patchable(findings),
        deadlines=due[:MOST_DEADLINES],
        deadlines_left_out=max(0, len(due) - MOST_DEADLINES),
        catalogue=str(_mapping(documents.get("triage")).get("catalogue") or ""),
        exposure=exposure.by_severity(findings, closed_at=seen_at, now=now),
        decisions=answers,
        exclusions=_exclusions(plan),
        failures=_failures(run, stages, lines, remedies, why),
        remedies=tuple(remedies.values()),
        waits=tuple(_pause(wait, now) for wait in waits),
        commands=dict(sorted(Counter(one.step.value for one in dispatches if one.command or one.requested_at).items())),
        calls=dict(sorted(calls.items())),
        journal_problems=tuple(journal_problems),
        journal_head=journal_head,
        hosts=lines,
        promoted=_promoted(documents, _stage_names(stages, seats)),
        clocks=emergency.sentences(emergency.from_json(documents.get(emergency.DOCUMENT) or ()), now),
        stale_images=back,
        stale_images_problem=back_problem,
        managed=managed,
        whereabouts=_whereabouts(findings, managed, {line.host: line.name or line.host for line in lines}, now),
        run_folder=run_folder,
    )


def _managed(plan: Mapping[str, Any], documents: Mapping[str, Any], findings: Iterable[Triaged]) -> tuple[ManagedLine, ...]:
    """Databases and functions of the plan, with what the ledger holds of them, and what became of functions' findings."""
    found = []
    of_functions: dict[str, list[Triaged]] = {}
    for finding in findings:
        if finding.host.startswith("arn:"):
            of_functions.setdefault(":".join(finding.host.split(":")[:7]), []).append(finding)
    for stage in plan.get("stages") or ():
        its = _mapping(_mapping(stage).get("managed"))
        name = str(stage.get("name") or "")
        rows = {
            str(row.get("id")): row for row in documents.get(managed_services.document(name)) or () if isinstance(row, Mapping)
        }
        executes = its.get("services") or ()
        for service, kept in (("rds", "databases"), ("lambda", "functions")):
            for one in its.get(kept) or ():
                arn = str(one.get("arn"))
                fates = of_functions.get(arn, ())
                found.append(_managed_line(name, service, one, rows.get(arn), fates, listed=service not in executes))
    return tuple(found)


def _managed_line(
    stage: str, service: str, one: Mapping[str, Any], row: Mapping[str, Any] | None, findings: Sequence[Triaged], *, listed: bool
) -> ManagedLine:
    state = str(row["state"]) if row is not None else ""
    klass, reason = state, str(row.get("reason") or "") if row is not None else ""
    if listed:
        klass, reason = LISTED, str(one.get("why_not") or "") or "this stage changes nothing of the service"
    elif state == "planned" or not state:
        klass, reason = NOT_STARTED, reason or "its turn never came"
    elif state in {"saving", "changing"}:
        klass, reason = UNFINISHED, f"the ledger last saw it {state}"
    has = tuple(one.get("vulnerabilities") or (*(one.get("by_runtime") or ()), *(one.get("by_code") or ())))
    left = {finding.vulnerability for finding in findings if finding.fate is not Fate.CLOSED}
    gone = {finding.vulnerability for finding in findings} - left  # of a function Inspector says it, of a database its version
    closed = tuple(one.get("closes") or ()) if service == "rds" and klass == "patched" else tuple(sorted(gone))
    engine = " ".join(str(one[key]) for key in ("engine",) if one.get(key))
    return ManagedLine(
        stage=stage, service=service, cell=_cell(one.get("cell")), id=str(one.get("arn") or ""), name=str(one.get("name") or ""),
        kind=engine or str(one.get("runtime") or ""), klass=klass, reason=reason, before=str(one.get("version") or ""),
        after=str(row.get("after") or "") if row is not None else "", closed=closed,
        open=tuple(name for name in has if name not in closed), deadline=exposure.moment(one.get("deadline")),
        owner=str(one.get("owner") or "") if one.get("by_code") else "",
    )  # fmt: skip


def _whereabouts(
    findings: Iterable[Triaged], managed: Sequence[ManagedLine], names: Mapping[str, str], now: datetime
) -> tuple[Whereabouts, ...]:
    """One line a vulnerability, the earliest deadline first; a run without databases and functions has none.

    Of a host and a function Inspector says it, of a database its version by the policy's `fixes`; a database of which nobody
    looked at the version afterwards has it, as far as is known.
    """
    wanted = {name for one in managed for name in (*one.closed, *one.open)}
    by_name: dict[str, list[Triaged]] = {name: [] for name in wanted}
    for finding in findings:
        if finding.vulnerability in wanted:
            by_name[finding.vulnerability].append(finding)
    found = [_where(name, its, managed, names, now) for name, its in by_name.items()]
    return tuple(sorted(found, key=lambda one: (one.deadline or _NEVER, one.vulnerability)))


def _where(
    name: str, findings: Sequence[Triaged], managed: Sequence[ManagedLine], names: Mapping[str, str], now: datetime
) -> Whereabouts:
    known = {one.id for one in managed}
    closed_on: dict[str, bool] = {}
    for finding in findings:
        resource = ":".join(finding.host.split(":")[:7])  # of a function without its version or alias
        if resource not in known:
            closed_on[resource] = closed_on.get(resource, True) and finding.fate is Fate.CLOSED
    gone: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for resource, closed in closed_on.items():
        kind = "resource of no stage" if resource.startswith("arn:") else "host"
        (gone if closed else left).setdefault(kind, []).append(names.get(resource, resource))
    closes: set[str] = set()
    for one in managed:
        kind = "database" if one.service == "rds" else "function"
        if name in one.closed:
            gone.setdefault(kind, []).append(one.name)
        elif name in one.open:
            left.setdefault(kind, []).append(one.name)
            closes.add(_who_closes(one))
    if "host" in left:
        closes.add("hosts: a patch, in this campaign's next run")
    deadline = min((one.deadline for one in findings if one.deadline is not None), default=None)
    ranks = [severity.value for severity in Severity]
    severities = sorted({one.severity for one in findings}, key=lambda one: ranks.index(one) if one in ranks else len(ranks))
    return Whereabouts(
        vulnerability=name,
        severity=severities[0] if severities else "",
        deadline=deadline,
        overdue=bool(left) and deadline is not None and deadline < now,
        gone={kind: tuple(sorted(its)) for kind, its in sorted(gone.items())},
        left={kind: tuple(sorted(its)) for kind, its in sorted(left.items())},
        closes=tuple(sorted(closes)),
    )


def _who_closes(one: ManagedLine) -> str:
    if one.service == "rds":
        return f"{one.name}: a newer engine version, which this stage does not change" if one.klass == LISTED else (
            f"{one.name}: a newer engine version, as the policy's fixes say"
        )
    if one.owner:
        return f"{one.name}: its code, by {one.owner}"
    return f"{one.name}: its runtime's next version, or its code"


_TRACKS = ["critical", "standard", "kernel", "managed_service", "remediation", "not_patchable"]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_dry(run: RunFacts) -> bool:
    return run.params.get("dry_run") is True or str(run.outcome) == "dry_run"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seat:
    """A host's place in the report: in the plan's words, or in the ledger's for a late joiner."""

    host: str
    cell: str
    name: str
    platform: str
    covered: bool | None
    late_joiner: bool


def _planned(plan: Mapping[str, Any]) -> dict[str, list[_Seat]]:
    """The plan's hosts by stage, each once: the stage that names a host first has it."""
    seen: set[str] = set()
    made: dict[str, list[_Seat]] = {}
    for stage in plan.get("stages") or ():
        of_stage = made.setdefault(str(stage.get("name") or ""), [])
        for host in stage.get("hosts") or ():
            facts = host if isinstance(host, Mapping) else {"id": host}
            identity = str(facts.get("id") or facts.get("host") or "")
            if identity and identity not in seen:
                seen.add(identity)
                of_stage.append(_seat(identity, facts))
    return made


def _seat(identity: str, facts: Mapping[str, Any]) -> _Seat:
    return _Seat(
        host=identity,
        cell=_cell(facts.get("cell")),
        name=str(facts.get("name") or ""),
        platform=str(facts.get("platform") or ""),
        covered=facts["covered"] if isinstance(facts.get("covered"), bool) else None,
        late_joiner=False,
    )


def _cell(written: object) -> str:
    if isinstance(written, Mapping):
        return f"{written.get('account', '')}/{written.get('region', '')}"
    return str(written or "")


def _seats(planned: Mapping[str, list[_Seat]], hosts: Iterable[HostRow]) -> dict[str, list[_Seat]]:
    """The plan's hosts, and behind them in their stage the late joiners: hosts that only the ledger knows."""
    made = {stage: list(of_stage) for stage, of_stage in planned.items()}
    seen = {seat.host for of_stage in planned.values() for seat in of_stage}
    for row in hosts:
        if row.host not in seen:
            seen.add(row.host)
            late = _Seat(host=row.host, cell=str(row.cell), name=row.name, platform=row.platform, covered=None, late_joiner=True)
            made.setdefault(str(row.stage), []).append(late)
    return made


def _rows(hosts: Iterable[HostRow], seats: Mapping[str, list[_Seat]]) -> dict[str, HostRow]:
    """One row a host; where the ledger has it in two stages, that of the stage in which the report has it."""
    stage_of = {seat.host: stage for stage, of_stage in seats.items() for seat in of_stage}
    made: dict[str, HostRow] = {}
    for row in hosts:
        if row.host not in made or row.stage == stage_of[row.host]:
            made[row.host] = row
    return made


def _look(document: object) -> dict[str, Mapping[str, Any]] | None:
    """Verdicts of one look at compliance by host; None if it was not taken."""
    if not isinstance(document, Mapping):
        return None
    return {str(one.get("host") or ""): one for one in document.get("hosts") or () if isinstance(one, Mapping)}


def _verdict(look: Mapping[str, Mapping[str, Any]] | None, host: str) -> str:
    """One of the three classes; unknown for a host that the look did not see; empty without a look."""
    if look is None:
        return ""
    written = str(_mapping(look.get(host)).get("verdict") or "")
    return written if written in VERDICTS else "unknown"


def _verdicts(look: Mapping[str, Mapping[str, Any]] | None, lines: Iterable[HostLine]) -> Mapping[str, int] | None:
    """Hosts by verdict: those that were looked at, and those of the report that were not, which are unknown."""
    if look is None:
        return None
    counted = Counter(_verdict(look, host) for host in {*look, *(line.host for line in lines)})
    return {verdict: counted[verdict] for verdict in VERDICTS}


def _remedies(document: object) -> dict[str, Mapping[str, str]]:
    return {
        str(one.get("host") or ""): {str(key): "" if value is None else str(value) for key, value in one.items()}
        for one in (document if isinstance(document, list | tuple) else ())
        if isinstance(one, Mapping)
    }


def _answers(decisions: Iterable[Decision], digests: Collection[str]) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            stage=str(one.stage), verdict=one.verdict.value, author=one.author, at=one.at, plan=one.plan, comment=one.comment,
            fits=one.plan in digests, lockfile=one.lockfile,
        )
        for one in sorted(decisions, key=lambda one: one.at)
    )  # fmt: skip


def _line(
    run: RunFacts,
    stage: str,
    seat: _Seat,
    rows: Mapping[str, HostRow],
    states: Mapping[str, StageFacts],
    looks: Mapping[str, Mapping[str, Mapping[str, Any]] | None],
    findings: Sequence[Triaged],
    remedies: Mapping[str, Mapping[str, str]],
    answers: Iterable[Answer],
) -> HostLine:
    """The line of one host; `findings` are its own."""
    host = seat.host
    row = rows.get(host)
    fates = _fates(findings)
    answer = next((one for one in answers if one.stage == stage and (one.fits or not one.plan)), None)
    remedy = remedies.get(host, {})
    last = looks["final"] or looks["after"] or looks["before"] or {}
    return HostLine(
        run=str(run.id),
        stage=stage,
        cell=seat.cell or (str(row.cell) if row else ""),
        host=host,
        name=seat.name or (row.name if row else ""),
        platform=seat.platform or (row.platform if row else ""),
        klass=_class(row),
        reason=_reason(run, row, states.get(stage)),
        late_joiner=seat.late_joiner,
        installed=row.installed if row else None,
        missing_before=row.missing_before if row else None,
        missing_after=row.missing_after if row else None,
        compliance_before=_verdict(looks["before"], host),
        compliance_after=_verdict(looks["after"], host),
        compliance_final=_verdict(looks["final"], host),
        compliance_reason=str(_mapping(last.get(host)).get("reason") or ""),
        inspected=seat.covered,
        findings_before=fates["before"],
        findings_closed=fates["closed"],
        findings_open=fates["open"],
        findings_unknown=fates["unknown"],
        worst_severity=_worst(findings),
        remediation=" ".join(part for part in (remedy.get("action", ""), remedy.get("outcome", "")) if part),
        remediation_detail=remedy.get("detail", ""),
        decision=answer.verdict if answer else "",
        decision_author=answer.author if answer else "",
        decision_at=answer.at if answer else None,
    )


def _class(row: HostRow | None) -> str:
    """The one class of a host. A Scan alone changes nothing, so a host that was only scanned was not started."""
    if row is None:
        return NOT_STARTED
    if row.state in TERMINAL:
        return row.state.value
    return UNFINISHED if row.state in IN_FLIGHT else NOT_STARTED


def _reason(run: RunFacts, row: HostRow | None, stage: StageFacts | None) -> str:
    if row is not None and row.state in TERMINAL:
        return row.reason
    if row is not None and row.state in IN_FLIGHT:
        return f"the ledger last saw it {row.state.value}" + (f": {row.reason}" if row.reason else "")
    if _is_dry(run):
        return "a dry run changes nothing"
    if stage is None:
        return "its stage was never begun"
    return f"stage {stage.state}" + (f": {stage.reason}" if stage.reason else "")


def _worst(findings: Iterable[Triaged]) -> str:
    found = {one.severity for one in findings}
    return next((severity.value for severity in Severity if severity.value in found), min(found, default=""))


def _fates(findings: Iterable[Triaged]) -> dict[str, int]:
    counted = Counter(one.fate for one in findings)
    return {"before": counted.total(), **{fate.value: counted[fate] for fate in Fate}}


def _tallies(findings: Iterable[Triaged], *, key: Any, order: Sequence[str]) -> tuple[Tally, ...]:
    groups: dict[str, list[Triaged]] = {}
    for finding in findings:
        groups.setdefault(key(finding), []).append(finding)
    ranks = {name: rank for rank, name in enumerate(order)}
    return tuple(
        Tally(name=name, **_fates(groups[name])) for name in sorted(groups, key=lambda one: (ranks.get(one, len(ranks)), one))
    )


def _not_patchable(findings: Iterable[Triaged]) -> tuple[NotPatchable, ...]:
    groups: dict[tuple[str, str, str], list[Triaged]] = {}
    for finding in findings:
        if finding.track == "not_patchable":
            groups.setdefault((finding.vulnerability, finding.severity, finding.reason), []).append(finding)
    ranks = {severity.value: rank for rank, severity in enumerate(Severity)}
    return tuple(
        NotPatchable(
            vulnerability=vulnerability,
            severity=severity,
            reason=reason or "the triage gives no reason",
            packages=tuple(sorted({package for one in group for package in one.packages})),
            hosts=tuple(sorted({one.host for one in group})),
            deadline=min((one.deadline for one in group if one.deadline is not None), default=None),
            deadline_because=min(group, key=_earliest).deadline_because,
        )
        for (vulnerability, severity, reason), group in sorted(
            groups.items(), key=lambda one: (ranks.get(one[0][1], len(ranks)), one[0])
        )
    )


def _earliest(finding: Triaged) -> datetime:
    """Sorts by deadline; what has none comes last."""
    return finding.deadline or _NEVER


_NEVER = datetime.max.replace(tzinfo=UTC)


def _deadlines(findings: Iterable[Triaged], now: datetime) -> tuple[DeadlineLine, ...]:
    """Lines with the earliest deadline first."""
    groups: dict[tuple[str, str, str, str, str], list[Triaged]] = {}
    for finding in findings:
        key = (finding.vulnerability, finding.severity, finding.track, finding.reason, finding.deadline_because)
        groups.setdefault(key, []).append(finding)
    lines = (
        DeadlineLine(
            vulnerability=vulnerability,
            severity=severity,
            track=track,
            reason=reason,
            deadline=min((one.deadline for one in group if one.deadline is not None), default=None),
            deadline_because=because,
            findings=len(group),
            open=sum(one.fate is not Fate.CLOSED for one in group),
            overdue=sum(one.fate is not Fate.CLOSED and one.deadline is not None and one.deadline < now for one in group),
            hosts=tuple(sorted({one.host for one in group})),
        )
        for (vulnerability, severity, track, reason, because), group in groups.items()
    )
    return tuple(sorted(lines, key=lambda one: (one.deadline or _NEVER, one.vulnerability, one.track, one.reason)))


def _promoted(documents: Mapping[str, Any], order: Sequence[str]) -> Promoted | None:
    ranks = {f"{lockfile.COMPARED}{stage}": rank for rank, stage in enumerate(order)}
    compared = tuple(
        Compared(
            stage=name.removeprefix(lockfile.COMPARED),
            digest=str(_mapping(content).get("lockfile") or ""),
            hosts=len(said := _mapping(_mapping(content).get("hosts"))),
            drifted=sum(bool(sentences) for sentences in said.values()),
        )
        for name, content in sorted(documents.items(), key=lambda one: (ranks.get(one[0], len(ranks)), one[0]))
        if name.startswith(lockfile.COMPARED)
    )
    stored = documents.get(lockfile.DOCUMENT)
    if stored is None:
        return Promoted(digest="", stage="", at=None, platforms=(), compared=compared) if compared else None
    try:
        made, origin = lockfile.opened(stored, file=f"the ledger's document {lockfile.DOCUMENT}")
    except InvalidFile as error:  # the report is made all the same
        return Promoted(digest="", stage="", at=None, platforms=(), compared=compared, problem=str(error))
    return Promoted(
        digest=made.digest,
        stage=origin.stage,
        at=origin.at,
        platforms=tuple(
            Locked(
                platform=one.platform,
                patches=len(one.patches),
                received=sum(patch.received for patch in one.patches),
                differs=len(one.conflicts),
                release=one.release or "",
                snapshot=one.snapshot or "",
                remarks=one.remarks,
            )
            for one in made.platforms
        ),
        compared=compared,
    )


def _exclusions(plan: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    return tuple(
        {
            "host": str(one.get("host") or one.get("id") or ""),
            "cell": _cell(one.get("cell")),
            "name": str(one.get("name") or ""),
            "reason": str(one.get("reason") or "the plan gives no reason"),
        }
        for one in plan.get("exclusions") or ()
        if isinstance(one, Mapping)
    )


def _failures(
    run: RunFacts, stages: Iterable[StageFacts], lines: Iterable[HostLine], remedies: Mapping[str, Mapping[str, str]], why: str
) -> tuple[Failure, ...]:
    tasks = [
        Failure(stage="", host="", name="", klass="run failed", reason=why,
                advice="Read the log of what failed in Airflow and mend the cause; clear the task to resume, or run again.")
    ] if why and str(run.outcome) == "failed" else []  # fmt: skip
    halted = [
        Failure(stage=str(one.stage), host="", name="", klass="halted", reason=one.reason or "the ledger gives no reason",
                advice="Mend what the reason names, then run the campaign again: it starts with a new plan and new approvals.")
        for one in stages
        if one.state == "halted"
    ]  # fmt: skip
    settled = [
        Failure(stage=one.stage, host=one.host, name=one.name, klass=one.klass, reason=one.reason or "the ledger gives no reason",
                advice=ADVICE[one.klass])
        for one in lines
        if one.klass in ADVICE
    ]  # fmt: skip
    unmended = [
        Failure(stage=one.get("stage", ""), host=host, name="", klass="remediation failed", reason=one.get("detail", ""),
                advice="Read the Automation execution in Systems Manager; the host is still not compliant.")
        for host, one in remedies.items()
        if one.get("outcome") in ("failed", "stopped")
    ]  # fmt: skip
    return (*tasks, *halted, *settled, *unmended)


def _stage_names(stages: Iterable[StageFacts], seats: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*(str(one.stage) for one in sorted(stages, key=lambda one: one.position)), *seats]))


def _stage_line(name: str, row: StageFacts | None, classes: Mapping[str, int]) -> StageLine:
    return StageLine(
        name=name,
        state=str(row.state) if row else "waiting",
        reason=row.reason if row else "",
        hosts=sum(classes.values()),
        began_at=row.began_at if row else None,
        ended_at=row.ended_at if row else None,
        classes=classes,
    )


def _pause(wait: WaitFacts, now: datetime) -> Pause:
    return Pause(
        subject=wait.subject, reason=wait.reason, ends=wait.ends, since=wait.since, until=wait.until, ended_at=wait.ended_at,
        lasted=max(timedelta(0), (wait.ended_at or now) - wait.since),
    )  # fmt: skip


def _counted(classes: Iterable[str]) -> dict[str, int]:
    """How often each class occurs, in the order in which classes are always shown."""
    counted = Counter(classes)
    return {name: counted[name] for name in CLASSES if counted[name]}


def _classes(lines: Iterable[HostLine], stages: Iterable[str]) -> dict[str, dict[str, int]]:
    by_stage: dict[str, list[str]] = {stage: [] for stage in stages}
    for line in lines:
        by_stage[line.stage].append(line.klass)
    return {stage: _counted(classes) for stage, classes in by_stage.items()}


def _account(plan: Mapping[str, Any], lines: Sequence[HostLine], planned: int) -> None:
    """Nothing, if every host of the plan is there exactly once, in a class that exists."""
    named = {
        str((host.get("id") or host.get("host")) if isinstance(host, Mapping) else host)
        for stage in plan.get("stages") or ()
        for host in stage.get("hosts") or ()
    }
    listed = [line.host for line in lines]
    classed = sum(line.klass in CLASSES for line in lines)
    if not named <= set(listed) or len(set(listed)) != len(listed) or planned != len(named) or classed != len(listed):
        raise UnaccountedHosts(
            f"the plan names {len(named)} hosts, the report has {planned} of them among {len(listed)} lines, {classed} in a "
            "known class; allowed is each host of the plan in exactly one class"
        )


# --- The headline -----------------------------------------------------------------------------------------------------------


def _headline(
    run: RunFacts,
    stages: Sequence[StageFacts],
    answers: Sequence[Answer],
    totals: Mapping[str, int],
    hosts: int,
    planned: bool,
    why: str,
    managed: Sequence[ManagedLine] = (),
) -> str:
    """One true sentence, and a second one if the clock was not the real one."""
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in totals.items()) or "no host was planned"
    summary = f"of {_hosts(hosts)}: {counts}" if hosts else counts
    match str(run.outcome):
        case "dry_run":
            said = (
                f"Dry run of {run.campaign}: nothing was changed; the plan covers {_hosts(hosts)}"
                if planned
                else f"Dry run of {run.campaign}: nothing was changed, and no plan was made"
            )
        case "succeeded":
            said = f"{run.campaign} succeeded: every stage kept its error budget; {summary}{_need_somebody(totals)}"
        case "rejected":
            said = f"{run.campaign} was {_refusal(answers)}; {summary}"
        case "failed":
            said = f"{run.campaign} failed{_halts(stages) or _because(why)}; {summary}"
        case _:
            said = f"{run.campaign} has not ended; so far {summary}"
    if counted := Counter(one.klass.replace("_", " ") for one in managed):
        each = ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
        said += f"; of {len(managed)} databases and functions: {each}"
    if str(run.outcome) != "dry_run" and _is_dry(run):
        said += "; it was a dry run, so nothing was changed"
    if run.speed != 1:
        said += f". Rehearsal: its clock ran {run.speed:g} times as fast as real time"
    return said + "."


_NEED_SOMEBODY = frozenset({"failed", "unreachable", "stopped", "pending_reboot", "out_of_window", "not_started", "in_flight"})


def _need_somebody(totals: Mapping[str, int]) -> str:
    """That a budget was kept does not mean that every host is patched: say how many are not."""
    count = sum(number for name, number in totals.items() if name in _NEED_SOMEBODY)
    return f"; {_hosts(count)} still need{'s' if count == 1 else ''} somebody" if count else ""


def _hosts(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"


def _refusal(answers: Iterable[Answer]) -> str:
    no = next((one for one in answers if one.verdict != Verdict.APPROVED.value), None)
    if no is None:
        return "rejected"
    if no.verdict == Verdict.EXPIRED.value:
        return f"not approved at stage {no.stage}: nobody answered in time"
    return f"rejected at stage {no.stage} by {no.author}"


def _because(why: str) -> str:
    return f" ({why.rstrip('.')})" if why else ""


def _halts(stages: Iterable[StageFacts]) -> str:
    halted = next((one for one in stages if one.state == "halted"), None)
    if halted is None:
        return ""
    return f" in stage {halted.stage}" + _because(halted.reason)


# --- Writing ----------------------------------------------------------------------------------------------------------------


def to_json(report: Report) -> dict[str, Any]:
    """The report as a JSON document: enums as their values, moments as ISO 8601, durations in seconds."""
    made = plain(report)
    assert isinstance(made, dict)
    return made


def plain(value: object) -> Any:
    """`value` as JSON has it; a field `klass`, which Python could not call so, is called ``class`` there."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"class" if one.name == "klass" else one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def to_html(report: Report | Mapping[str, Any]) -> str:
    """One file that can be sent: no scripts, no foreign sources, everything from AWS escaped.

    Args:
        report: the report, or what `to_json` made of it.
    """
    document = to_json(report) if isinstance(report, Report) else report
    return _templates().get_template("report.html.j2").render(report=document, classes=CLASSES, meanings=MEANINGS)


COLUMNS = ("run", "stage", "cell", "host", "name", "platform", "class", "reason", "late_joiner", "installed",
           "missing_before", "missing_after", "compliance_before", "compliance_after", "compliance_final", "compliance_reason",
           "inspected", "findings_before", "findings_closed", "findings_open", "findings_unknown", "worst_severity",
           "remediation", "remediation_detail", "decision", "decision_author", "decision_at")  # fmt: skip
"""Columns of the CSV, in this order; names are those of the JSON."""


def to_csv(report: Report | Mapping[str, Any]) -> str:
    """One row a host, with a header; CRLF line ends as RFC 4180 has them.

    A value that a spreadsheet would run as a formula gets an apostrophe in front (OWASP: CSV injection).
    """
    document = to_json(report) if isinstance(report, Report) else report
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    for line in document["hosts"]:
        writer.writerow([_cell_text(line.get(column)) for column in COLUMNS])
    return written.getvalue()


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


@lru_cache(maxsize=1)
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters["moment"] = _moment_text
    made.filters["duration"] = duration_text
    made.filters["words"] = lambda text: str(text).replace("_", " ")
    return made


def _moment_text(written: str | None) -> str:
    read = exposure.moment(written)
    return f"{read.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if read else "-"


def duration_text(seconds: float | None) -> str:
    """``12 d 3 h``, ``3 h 5 min``, ``4 min``, ``12 s``: the two largest units that matter; ``-`` for None."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{whole} s"
