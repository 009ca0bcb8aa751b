"""What a watcher sees of a run."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from rich.console import Console

from patchwave.campaign.rollout import HostRow, HostState, Move
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.cli import progress, result
from patchwave.cli.progress import Progress
from patchwave.cli.simulator import RehearsalClock
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Run, StageState, WaitRow

NOW = datetime(2026, 1, 6, 22, 0, tzinfo=UTC)
RUN = RunId("weekly-linux/r")
PROD = StageName("prod")
CLOCK = RehearsalClock(real=1000.0, virtual=NOW.timestamp(), speed=240)


def ledger() -> MemoryLedger:
    """A run whose prod has one host patched, one installing and two to come."""
    made = MemoryLedger()
    run = Run(
        id=RUN, campaign="weekly-linux", dag_id="weekly-linux", dag_run_id="r", began_at=NOW, definition={},
        definition_digest="x", policy={}, params={},
    )  # fmt: skip
    made.open_run(run, [StageName("dev"), PROD])
    lease = made.acquire(RUN, PROD, "try", at=NOW)
    rows = [
        HostRow(
            run=RUN, stage=PROD, host=HostId(f"i-{number:08x}"), cell=Cell(account="1" * 12, region="eu-central-1"),
            name=f"web-{number}", platform="amazon-linux", domains=("asg", "stage:dev"), state=HostState.PLANNED, since=NOW,
        )
        for number in range(4)
    ]  # fmt: skip
    made.add_hosts(lease, rows)
    made.set_stage(lease, StageState.PATCHING, reason="", at=NOW)
    way = [HostState.PLANNED, HostState.SCANNING, HostState.READY, HostState.INSTALLING, HostState.TO_VERIFY,
           HostState.VERIFYING, HostState.PATCHED]  # fmt: skip
    for row, steps in ((rows[0], way), (rows[1], way[:4])):
        for before, after in itertools.pairwise(steps):
            made.move_hosts(lease, [Move(host=row.host, before=before, after=after, reason="")], at=NOW)
    made.wait(
        WaitRow(
            run=RUN, subject="prod", reason="hosts: 1 installing", ends="the commands in flight end", since=NOW,
            until=NOW + timedelta(hours=4),
        )
    )  # fmt: skip
    return made


def seen() -> Progress:
    """That run as the display reads it."""
    return progress.read(ledger(), RUN, tasks=[{"task_id": "prod.patch", "state": "deferred"}], state="running")


def test_a_stage_shows_settled_in_flight_and_total() -> None:
    """The three numbers by which an operator judges a rollout."""
    dev, prod = seen().stages
    assert (prod.settled, prod.in_flight, prod.total, prod.classes) == (1, 1, 4, {"patched": 1})
    assert (dev.state, dev.total) == ("waiting", 0)


def test_a_wait_says_why_until_when_and_what_ends_it() -> None:
    """In the campaign's time and in the reader's: an hour of it is 15 s of ours here."""
    (wait,) = seen().waits
    assert progress.wait_line(wait, clock=CLOCK, real=1000.0) == (
        "prod: hosts: 1 installing, until Wed 02:00:00 UTC (about 60 s from now); ends when the commands in flight end"
    )


def test_the_drawing_names_stage_wait_and_task() -> None:
    """Nothing of it may break on a plain terminal."""
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - closed with the test
    console.print(progress.drawn(seen(), title="weekly-linux r", clock=CLOCK, began=990.0, real=1000.0))
    text = console.export_text()
    assert "1 settled / 1 in flight / 4 total" in text
    assert "hosts: 1 installing" in text
    assert "prod.patch: deferred" in text
    assert text.count("█") == progress.BAR / 4
    assert text.count("▓") == progress.BAR / 4


def test_lines_tell_only_what_is_new() -> None:
    """A build's log is read by people too."""
    now = seen()
    lines = progress.told(now, Progress(), clock=CLOCK, real=1000.0)
    assert lines == [
        "prod: 1 settled / 1 in flight / 4 total   patching",
        "waits: prod: hosts: 1 installing, until Wed 02:00:00 UTC (about 60 s from now); ends when the commands in flight end",
        "task prod.patch: deferred",
    ]
    assert progress.told(now, now, clock=CLOCK, real=1000.0) == []


def test_a_task_that_defers_and_resumes_is_told_once() -> None:
    """A stage does so every few seconds, and its waits say what it does."""
    before, lines = Progress(), []
    for state in ("queued", "running", "deferred", "scheduled", "queued", "running", "deferred", "running", "success"):
        now = progress.read(MemoryLedger(), RUN, tasks=[{"task_id": "patch", "state": state}], state="running")
        lines += progress.told(now, before, clock=CLOCK, real=1000.0)
        before = progress.remembered(now, before)
    assert lines == ["task patch: running", "task patch: success"]


def test_a_retry_is_told() -> None:
    """It is a task's way to say that something went wrong."""
    before, lines = Progress(), []
    for state in ("running", "up_for_retry", "queued", "running"):
        now = progress.read(MemoryLedger(), RUN, tasks=[{"task_id": "patch", "state": state}], state="running")
        lines += progress.told(now, before, clock=CLOCK, real=1000.0)
        before = progress.remembered(now, before)
    assert lines == ["task patch: running", "task patch: up_for_retry", "task patch: running"]


def test_a_run_that_the_ledger_does_not_know_yet_is_no_error() -> None:
    """Its first task has not begun."""
    assert progress.read(MemoryLedger(), RUN, tasks=[], state="queued").stages == ()


def test_without_a_report_the_result_comes_from_the_hosts() -> None:
    """A run that failed early has hosts, too."""
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - closed with the test
    result.show(console, ledger(), RUN)
    text = console.export_text()
    assert "patched" in text
    assert "not settled" in text
    assert "made no report" in text


def test_the_clock_speaks_as_the_tasks_want_it() -> None:
    """Real anchor, virtual anchor, speed."""
    assert CLOCK.setting == f"1000.000,{NOW.timestamp():.3f},240"
    assert CLOCK.now(1001.0) == NOW + timedelta(minutes=4)
    assert CLOCK.seconds_until(NOW + timedelta(hours=1), 1000.0) == 15
