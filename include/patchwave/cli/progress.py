"""What does a run do at this moment? Read from the ledger and from Airflow, drawn for a terminal, told in lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from patchwave.campaign import plan as plans
from patchwave.campaign.errors import Transient
from patchwave.campaign.rollout import IN_FLIGHT, TERMINAL, HostState
from patchwave.campaign.values import RunId
from patchwave.cli.simulator import RehearsalClock
from patchwave.ledger.store import Ledger, WaitRow

BAR = 40
"""Characters of a stage's bar."""

OF_INTEREST = ("running", "deferred", "awaiting_input", "queued", "up_for_retry", "failed", "upstream_failed")
"""Task states worth a word; the others are either over and well, or not begun."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageProgress:
    """How far a stage is.

    Attributes:
        total: hosts of the plan; 0 while that is unknown.
        in_flight: hosts that are away at this moment, the Scan before included.
    """

    name: str
    state: str
    reason: str
    total: int
    settled: int
    in_flight: int
    classes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A run at one moment."""

    stages: tuple[StageProgress, ...] = ()
    waits: tuple[WaitRow, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    state: str = "queued"


def read(ledger: Ledger, run: RunId, *, tasks: Sequence[Mapping[str, Any]], state: str) -> Progress:
    """The run as ledger and Airflow have it; a ledger that does not answer now will in a moment."""
    states = {str(task["task_id"]): str(task["state"] or "none") for task in tasks}
    try:
        stages = tuple(_stages(ledger, run))
        waits = tuple(ledger.waits(run, open_only=True))
    except (KeyError, Transient):
        stages, waits = (), ()
    return Progress(stages=stages, waits=waits, tasks=states, state=state)


def _stages(ledger: Ledger, run: RunId) -> list[StageProgress]:
    planned = planned_hosts(ledger, run)
    made = []
    for stage in ledger.stages(run):
        hosts = [row.state for row in ledger.hosts(run, stage.stage)]
        made.append(
            StageProgress(
                name=stage.stage,
                state=stage.state.value,
                reason=stage.reason,
                total=max(len(hosts), planned.get(stage.stage, 0)),
                settled=sum(state in TERMINAL for state in hosts),
                in_flight=sum(state in IN_FLIGHT or state is HostState.SCANNING for state in hosts),
                classes=Counter(state.value for state in hosts if state in TERMINAL),
            )
        )
    return made


def planned_hosts(ledger: Ledger, run: RunId) -> Mapping[str, int]:
    """Hosts of each stage as the plan says; empty while there is none."""
    try:
        plan = ledger.document(run, plans.plan_names(ledger.documents(run))[-1])
    except (KeyError, IndexError):
        return {}
    stages = plan.get("stages", ()) if isinstance(plan, Mapping) else ()
    counts = {}
    for stage in stages:
        if isinstance(stage, Mapping) and isinstance(stage.get("hosts"), Sequence):
            counts[str(stage.get("name", stage.get("stage", "")))] = len(stage["hosts"])
    return counts


def wait_line(wait: WaitRow, *, clock: RehearsalClock, real: float) -> str:
    """A wait in one line: what waits, why, until when, and what ends it."""
    until = f", {remaining(wait.until, clock=clock, real=real)}" if wait.until else ""
    return f"{wait.subject}: {wait.reason}{until}; ends when {wait.ends}"


def remaining(until: datetime, *, clock: RehearsalClock, real: float) -> str:
    """A moment of the campaign's time, and how far it is on the reader's own clock."""
    moment = until.astimezone(clock.now(real).tzinfo).strftime("until %a %H:%M:%S UTC")
    seconds = clock.seconds_until(until, real)
    if seconds is None or clock.speed == 1:
        return moment
    return f"{moment} ({f'about {seconds:.0f} s from now' if seconds > 0 else 'due now'})"


def drawn(progress: Progress, *, title: str, clock: RehearsalClock, began: float, real: float | None = None) -> RenderableType:
    """For `rich.live.Live`."""
    real = time.time() if real is None else real
    head = Text.assemble(
        (title, "bold"), f"   {progress.state}   {real - began:.0f} s   ",
        (f"campaign time {clock.now(real):%a %Y-%m-%d %H:%M} UTC ({clock.speed:g} x)", "dim"),
    )  # fmt: skip
    bars = Table.grid(padding=(0, 2))
    for stage in progress.stages:
        bars.add_row(Text(stage.name, style="bold"), _bar(stage), _counts(stage))
    lines: list[RenderableType] = [head, bars]
    lines += [Text(f"  waits   {wait_line(wait, clock=clock, real=real)}", style="yellow") for wait in progress.waits]
    lines += [
        Text(f"  task    {task}: {state}", style="red" if "failed" in state else "dim")
        for task, state in progress.tasks.items()
        if state in OF_INTEREST
    ]
    return Group(*lines)


def _bar(stage: StageProgress) -> Text:
    total = max(stage.total, 1)
    settled = round(BAR * stage.settled / total)
    away = min(BAR - settled, max(round(BAR * stage.in_flight / total), 1 if stage.in_flight else 0))
    return Text.assemble(("█" * settled, "green"), ("▓" * away, "yellow"), ("░" * (BAR - settled - away), "dim"))


def _counts(stage: StageProgress) -> Text:
    if not stage.total:
        return Text(f"{stage.state}  {stage.reason}", style="dim")
    style = "red" if stage.state == "halted" else ""
    return Text(
        f"{stage.settled} settled / {stage.in_flight} in flight / {stage.total} total   {stage.state}"
        + (f": {stage.reason}" if stage.state in ("halted", "skipped") else ""),
        style=style,
    )


def told(progress: Progress, before: Progress, *, clock: RehearsalClock, real: float) -> list[str]:
    """What is new since `before`, a line each: for logs, where nothing can be drawn."""
    known = {stage.name: stage for stage in before.stages}
    lines = []
    for stage in progress.stages:
        was = known.get(stage.name)
        if stage.total and (was is None or (stage.state, stage.settled, stage.total) != (was.state, was.settled, was.total)):
            lines.append(f"{stage.name}: {_counts(stage).plain}")
    old = {(wait.subject, wait.reason) for wait in before.waits}
    lines += [
        f"waits: {wait_line(wait, clock=clock, real=real)}" for wait in progress.waits if (wait.subject, wait.reason) not in old
    ]
    lines += [
        f"task {task}: {state}"
        for task, state in progress.tasks.items()
        if _is_news(before.tasks.get(task, "none"), state)
    ]
    return lines


def remembered(progress: Progress, before: Progress) -> Progress:
    """What the next `told` compares with: a task that waits for a worker between two legs keeps its state before."""
    passing = ("queued", "scheduled", "none")
    tasks = {task: before.tasks.get(task, state) if state in passing else state for task, state in progress.tasks.items()}
    # A ledger that was silent for a moment is no news.
    stages, waits = (progress.stages, progress.waits) if progress.stages else (before.stages, before.waits)
    return Progress(stages=stages, waits=waits, tasks=tasks, state=progress.state)


def _is_news(before: str, after: str) -> bool:
    """A task that defers and resumes is at the same work all the time; its waits say what it is about."""
    if after in ("none", "queued", "scheduled", "removed") or after == before:
        return False
    return not (after in ("running", "deferred") and before in ("running", "deferred"))
