"""What does the ledger say about a run, put together for one page?

The routes call these with an open ledger; templates show the values and the JSON API sends them. Nothing is written, and
nothing here knows HTTP. What became of a run in the end is the report's question.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from patchwave.campaign import calls, definition, emergency, evidence, lockfile, page, snapshots
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision
from patchwave.campaign.emergency import Clock
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.report import CLASSES, NOT_STARTED, UNFINISHED
from patchwave.campaign.rollout import ERRORS, IN_FLIGHT, TERMINAL, HostRow
from patchwave.campaign.values import RunId
from patchwave.ledger.changes import EXPLAINED
from patchwave.ledger.store import Entry, Ledger, Run, RunOutcome, StageRow, StageState, WaitRow

MOST_HOSTS = 500
"""Rows of the hosts table; those that need a look come first, so what is cut off is what went well."""
JOURNAL_TAIL = 40


class UnknownRun(Exception):
    """The ledger knows no such run: it has not begun to write, or never will."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostView:
    """One host as the page shows it.

    Attributes:
        klass: its class as in the report.
        state: the ledger's state, finer than the class while the stage runs.
        since: when it came into that state; None for a host that nothing was done to yet.
    """

    stage: str
    host: str
    name: str
    cell: str
    platform: str
    klass: str
    state: str
    reason: str
    since: datetime | None = None
    missing_before: int | None = None
    missing_after: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StageView:
    """One stage as the page shows it.

    Attributes:
        classes: hosts by class; they sum to `hosts`.
        settled: hosts in a terminal class.
        errors: failed or unreachable ones, which count against `error_budget`.
        places: hosts that may be away at once; None without a plan.
    """

    name: str
    state: str
    reason: str
    hosts: int
    settled: int
    in_flight: int
    errors: int
    classes: Mapping[str, int]
    places: int | None
    error_budget: int | None
    began_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionView:
    """A decision; `fits` where it was made on the plan that the run has, `lockfile` the digest of what was shown with it."""

    stage: str
    verdict: str
    author: str
    at: datetime
    plan: str
    comment: str
    fits: bool
    lockfile: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """Everything on the page of one run.

    Attributes:
        plan: Markdown; None before there is one.
        newer: a sentence, if the campaign file is not the one that this run works from; else empty.
        focus: the stage that the page is narrowed to; empty for all.
        hosts_total: of the focus; `hosts` may hold fewer.
        clocks: of the vulnerabilities that the run was started for, the least time first.
    """

    run: Run
    dry_run: bool
    ended: bool
    newer: str
    focus: str
    waits: tuple[WaitRow, ...]
    stages: tuple[StageView, ...]
    totals: Mapping[str, int]
    hosts: tuple[HostView, ...]
    hosts_total: int
    decisions: tuple[DecisionView, ...]
    plan: str | None
    plan_digest: str
    journal: tuple[Entry, ...]
    journal_length: int
    headline: str
    has_report: bool
    has_lockfile: bool
    has_snapshots: bool
    clocks: tuple[Clock, ...] = ()


def halts(ledger: Ledger, run: RunId) -> list[dict[str, Any]]:
    """Stages that stand still by a rule or by a person's will: ``stage``, ``rule``, ``reason``, ``hosts``, ``advice``, ``at``."""
    told = {entry.data["stage"]: entry for entry in ledger.journal(run) if entry.kind == EXPLAINED}
    return [
        {**told[row.stage].data, "at": row.halted_at}
        if row.stage in told
        else {"stage": row.stage, "rule": "", "reason": row.reason, "hosts": [], "advice": "", "at": row.halted_at}
        for row in ledger.stages(run)
        if row.state is StageState.HALTED
    ]


def of_run(ledger: Ledger, run: RunId, *, stage: str = "", task: str = "", campaigns: Path | None = None) -> RunView:
    """The page of `run`.

    Args:
        stage: narrows hosts to this stage, if there is one of that name.
        task: id of the task whose tab asks; narrows to its stage.
        campaigns: folder of the campaign files; None to say nothing about newer ones.

    Raises:
        UnknownRun: the ledger does not have it.
    """
    found = known(ledger, run)
    documents = ledger.documents(run)
    plan = plan_in_force(ledger, run) or {}
    plan_text = _document(ledger, run, "plan.md")
    hosts = hosts_of(ledger, run, plan=plan)
    stages = _stages(ledger.stages(run), hosts, plan)
    names = [one.name for one in stages]
    focus = stage if stage in names else _stage_of(task, names)
    shown = sorted((one for one in hosts if not focus or one.stage == focus), key=lambda one: _urgency(one, names))
    journal = ledger.journal(run)
    report = _document(ledger, run, "report")
    return RunView(
        run=found,
        dry_run=found.params.get("dry_run") is True or found.outcome is RunOutcome.DRY_RUN,
        ended=found.outcome is not RunOutcome.RUNNING,
        newer=newer_definition(found, campaigns) if campaigns else "",
        focus=focus,
        waits=tuple(ledger.waits(run, open_only=True)),
        stages=stages,
        totals=_counted(hosts),
        hosts=tuple(shown[:MOST_HOSTS]),
        hosts_total=len(shown),
        decisions=_decisions(ledger.decisions(run), {documents[name] for name in plans.plan_names(documents)}),
        plan=plan_text if isinstance(plan_text, str) else None,
        plan_digest=evidence.digest(plan) if plan else "",
        journal=tuple(journal[-JOURNAL_TAIL:][::-1]),
        journal_length=len(journal),
        headline=str(report.get("headline") or "") if isinstance(report, Mapping) else "",
        has_report=isinstance(report, Mapping),
        has_lockfile=lockfile.DOCUMENT in documents,
        has_snapshots=any(name.startswith(snapshots.document("")) for name in documents),
        clocks=emergency.from_json(_document(ledger, run, emergency.DOCUMENT) or ())[: emergency.MOST_CLOCKS],
    )


def known(ledger: Ledger, run: RunId) -> Run:
    """The run.

    Raises:
        UnknownRun: the ledger does not have it.
    """
    try:
        return ledger.run(run)
    except KeyError as error:
        raise UnknownRun(run) from error


def runs(ledger: Ledger, may_read: Callable[[str], bool], *, limit: int = 50) -> tuple[Run, ...]:
    """The youngest runs of those DAGs that may be read."""
    return tuple(one for one in ledger.runs(limit=limit) if may_read(one.dag_id))


def document(ledger: Ledger, run: RunId, name: str) -> Any:
    """A document of a run that exists; None if there is none of that name.

    Raises:
        UnknownRun: the ledger does not have the run.
    """
    known(ledger, run)
    return _document(ledger, run, name)


def plan_title(ledger: Ledger, run: RunId) -> str:
    """Title of the plan's page."""
    return f"Plan of {ledger.run(run).campaign}"


def plan_file(ledger: Ledger, run: RunId) -> dict[str, Any]:
    """The plan for programs, with every stage as a gate has changed it last; of a dry run with what a run would call."""
    return page.to_json(plan_in_force(ledger, run), run=run, calls=_document(ledger, run, calls.DOCUMENT))


def _document(ledger: Ledger, run: RunId, name: str) -> Any:
    try:
        return ledger.document(run, name)
    except KeyError:
        return None


# --- Hosts and stages -------------------------------------------------------------------------------------------------------


def hosts_of(ledger: Ledger, run: RunId, *, plan: Mapping[str, Any] | None = None) -> tuple[HostView, ...]:
    """Every host of the run, once: those of the plan, and late joiners that only the ledger's rows know."""
    rows = {str(row.host): row for row in ledger.hosts(run)}
    planned = _planned(plan if plan is not None else plan_in_force(ledger, run) or {})
    late: dict[str, tuple[str, Mapping[str, Any]]] = {
        host: (str(row.stage), {}) for host, row in rows.items() if host not in planned
    }
    return tuple(_host(host, stage, facts, rows.get(host)) for host, (stage, facts) in {**planned, **late}.items())


def _planned(plan: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    made: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for stage in plan.get("stages") or ():
        for host in stage.get("hosts") or ():
            made.setdefault(str(host.get("id")), (str(stage.get("name")), host))
    return made


def _host(host: str, stage: str, facts: Mapping[str, Any], row: HostRow | None) -> HostView:
    if row is None:
        cell = facts.get("cell")
        return HostView(
            stage=stage, host=host, name=str(facts.get("name") or ""), platform=str(facts.get("platform") or ""),
            cell=f"{cell.get('account')}/{cell.get('region')}" if isinstance(cell, Mapping) else str(cell or ""),
            klass=NOT_STARTED, state="not_started", reason=str(facts.get("note") or ""),
        )  # fmt: skip
    if row.state in TERMINAL:
        klass = row.state.value
    else:
        klass = UNFINISHED if row.state in IN_FLIGHT else NOT_STARTED
    return HostView(
        stage=stage, host=host, name=row.name, platform=row.platform, cell=str(row.cell), klass=klass, state=row.state.value,
        reason=row.reason, since=row.since, missing_before=row.missing_before, missing_after=row.missing_after,
    )  # fmt: skip


def _urgency(host: HostView, stages: Sequence[str]) -> tuple[int, int, str, str]:
    """What needs a look first, then what is moving, then the rest; within that by stage and name."""
    good = {"patched": 3, "rolled_back": 3, "already_compliant": 3, NOT_STARTED: 2, UNFINISHED: 1}
    position = stages.index(host.stage) if host.stage in stages else len(stages)
    return good.get(host.klass, 0), position, host.name, host.host


def _stages(rows: Sequence[StageRow], hosts: Sequence[HostView], plan: Mapping[str, Any]) -> tuple[StageView, ...]:
    planned = {str(one.get("name")): one for one in plan.get("stages") or ()}
    return tuple(_stage(row, [one for one in hosts if one.stage == row.stage], planned.get(str(row.stage), {})) for row in rows)


def _stage(row: StageRow, hosts: Sequence[HostView], planned: Mapping[str, Any]) -> StageView:
    return StageView(
        name=str(row.stage),
        state=row.state.value,
        reason=row.reason,
        hosts=len(hosts),
        settled=sum(one.klass not in {UNFINISHED, NOT_STARTED} for one in hosts),
        in_flight=sum(one.klass == UNFINISHED for one in hosts),
        errors=sum(one.klass in ERRORS for one in hosts),
        classes=_counted(hosts),
        places=planned.get("stage_places"),
        error_budget=planned.get("error_budget"),
        began_at=row.began_at,
        ended_at=row.ended_at,
    )


def _counted(hosts: Sequence[HostView]) -> dict[str, int]:
    counted = Counter(one.klass for one in hosts)
    return {name: counted[name] for name in CLASSES if counted[name]}


def _stage_of(task: str, stages: Sequence[str]) -> str:
    """The stage of a task id such as ``prod.patch`` (a task group) or ``patch_prod``; empty for tasks of no stage."""
    group = task.partition(".")[0]
    return next((one for one in stages if one == group or task.endswith(f"_{one}")), "")


def plan_in_force(ledger: Ledger, run: RunId) -> Any:
    """With every stage as a gate has changed it last; None before there is one."""
    names = plans.plan_names(ledger.documents(run))
    return _document(ledger, run, names[-1]) if names else None


def _decisions(decisions: Sequence[Decision], digests: Collection[str]) -> tuple[DecisionView, ...]:
    return tuple(
        DecisionView(stage=str(one.stage), verdict=one.verdict.value, author=one.author, at=one.at, plan=one.plan,
                     comment=one.comment, fits=one.plan in digests, lockfile=one.lockfile)
        for one in decisions
    )  # fmt: skip


# --- The campaign file beside the frozen one --------------------------------------------------------------------------------


def campaign_folder() -> Path:
    """Where the campaign files are: ``PATCHWAVE_CAMPAIGNS``, else ``include/campaigns``."""
    return Path(os.environ.get("PATCHWAVE_CAMPAIGNS") or Path(__file__).parents[2] / "campaigns")


def newer_definition(run: Run, folder: Path) -> str:
    """One sentence, if the campaign's file is no longer the one that the run was frozen from; empty if it is.

    Where there is no such folder (this process does not see the campaign files) nothing is said.
    """
    if not folder.is_dir():
        return ""
    file = _file_of(run.campaign, folder)
    if file is None:
        return "The campaign's file is gone since this run began; the run works from its own copy."
    digests, broken = _digests(file, *_stamp(file))
    if run.definition_digest in digests:
        return ""
    if broken:
        return f"{file.name} has been changed since this run began and is broken now; the run works from its own copy."
    return f"A newer version of {file.name} exists than the one this run works from; it takes effect with the next run."


def _file_of(campaign: str, folder: Path) -> Path | None:
    """The file called like the campaign, or else one that names it."""
    for ending in (".yaml", ".yml"):
        if (folder / f"{campaign}{ending}").is_file():
            return folder / f"{campaign}{ending}"
    files = sorted(one for one in folder.iterdir() if one.suffix in {".yaml", ".yml"})
    return next((one for one in files if _name(one, *_stamp(one)) == campaign), None)


def _stamp(file: Path) -> tuple[int, int]:
    """What changes with a file's content: the page asks every few seconds and must not parse each time."""
    facts = file.stat()
    return facts.st_mtime_ns, facts.st_size


def _parsed(file: Path) -> definition.Campaign | None:
    try:
        return definition.parse(file.read_text(encoding="utf-8"), file=file.name)
    except (InvalidFile, UnicodeDecodeError):
        return None


@lru_cache(maxsize=256)
def _name(file: Path, _changed: int, _size: int) -> str:
    campaign = _parsed(file)
    return str(campaign.name) if campaign else ""


@lru_cache(maxsize=256)
def _digests(file: Path, _changed: int, _size: int) -> tuple[frozenset[str], bool]:
    """Digests that name the file (of its bytes, and of what it means), and whether it is broken."""
    campaign = _parsed(file)
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    return frozenset({content, campaign.digest} if campaign else {content}), campaign is None
