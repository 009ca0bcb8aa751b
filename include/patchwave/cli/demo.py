"""What does `make demo` do, from the first process to the last line?

It starts a `Stack`, triggers one campaign, shows what happens, lets people answer the gates, shows the result and keeps the
UI up. Every step is Airflow's REST API or the ledger, as anybody else could use them.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.markup import escape
from rich.rule import Rule
from rich.text import Text

from patchwave.campaign import definition, windows
from patchwave.campaign.errors import PatchwaveError, Permanent, Transient
from patchwave.campaign.folders import run_folder
from patchwave.campaign.values import RunId
from patchwave.cli import check, passwords, progress, result, signals
from patchwave.cli.environment import REPOSITORY, Places
from patchwave.cli.gates import Answered, Gate, Gates, NobodyMayAnswer
from patchwave.cli.progress import Progress
from patchwave.cli.rest import Airflow, Refused, Unanswered
from patchwave.cli.stack import SMALL_WORLD, Stack
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.store import Ledger, RunOutcome

ENDED = frozenset({"success", "failed"})
REQUESTER = "ana"
APPROVERS = ("olga", "ana", "uma")
"""As whom a gate is answered, the preferred one first."""

START = 20.0
"""Seconds from awsim's start to the first stage of a run, at the least: Airflow starts, findings are read, the plan is made."""

POLL = 1.0
"""Seconds between two looks at the run."""


class DagMissing(Permanent):
    """Airflow did not find the campaign's DAG."""


class TooLong(Permanent):
    """The campaign took longer than it was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the caller of the demo may choose.

    Attributes:
        approve: answer every gate with yes, as the first of `APPROVERS` that it asks.
        leave: stop everything when the campaign has ended, instead of keeping the UI up.
        world: fleet of the simulated AWS; None: the one that is named as the campaign, and where there is none the small one.
        time_limit: seconds that the campaign may take; None: as long as people take to answer.
    """

    approve: bool = False
    leave: bool = False
    port: int = 8080
    awsim_port: int = 5005
    speed: float = 240.0
    seed: int = 1
    campaign: str = "weekly-linux"
    world: Path | None = None
    home: Path = REPOSITORY / "var" / "demo"
    runs: Path = REPOSITORY / "var" / "runs"
    time_limit: float | None = None


def demo(options: Options, console: Console) -> int:
    """Run it.

    The process is expected to end afterwards: requests to stop are ignored from then on.

    Returns:
        0 if the run's state is success and the ledger's outcome ``succeeded``; 1 if not; 130 or 143 when it was interrupted
        before the campaign had ended.
    """
    places = Places(home=options.home, runs=options.runs)
    status = 1
    ended = False
    folder: Path | None = None
    campaign: Campaign | None = None
    try:
        with (
            signals.raised(to_the_end=True),
            Stack(
                places=places,
                port=options.port,
                awsim_port=options.awsim_port,
                world=options.world or world_of(options.campaign),
                speed=options.speed,
                seed=options.seed,
                base=base(places, options, now=datetime.now(UTC)),
                tell=lambda line: console.print(f"[dim]{escape(line)}[/dim]", highlight=False),
            ) as stack,
        ):
            campaign = Campaign(stack, options, console)
            status = campaign.through()
            folder = campaign.folder
            ended = True
            if not options.leave:
                campaign.keep()
    except KeyboardInterrupt as interrupt:
        number = interrupt.signal if isinstance(interrupt, signals.Interrupted) else 2
        return status if ended else 128 + number
    except PatchwaveError as problem:
        console.print(f"[bold red]{type(problem).__name__}[/bold red]: {escape(str(problem))}", highlight=False, soft_wrap=True)
        return 1
    finally:
        if campaign is not None:
            campaign.close_ledger_run()
        if folder is not None:
            console.print(Text(f"everything of this run: {_shown(folder)}/"), soft_wrap=True)
    return status


def world_of(campaign: str, worlds: Path = SMALL_WORLD.parent) -> Path:
    """The fleet that was made for that campaign, or the small one, which fits those that have none of their own."""
    own = worlds / f"{campaign}.yaml"
    return own if own.is_file() else SMALL_WORLD


def base(places: Places, options: Options, *, now: datetime) -> datetime | None:
    """When awsim's time begins, so that nobody waits for the window of the campaign's first stage: it opens about when its
    turn comes. None, for now, where no file tells when it opens."""
    try:
        campaign = definition.read(places.campaigns / f"{options.campaign}.yaml", policies=places.policies)
        written = campaign.stages[0].window
        if written is None:
            return None
        coming = (span.opens for span in windows.openings(written.window, now) if span.opens > now)
        return next(coming) - timedelta(seconds=START * options.speed)
    except (PatchwaveError, StopIteration):
        return None


class Campaign:
    """One run of the demo's campaign, from its trigger to its result."""

    def __init__(self, stack: Stack, options: Options, console: Console) -> None:
        self._stack = stack
        self._options = options
        self._console = console
        self._dag = options.campaign
        self._dag_run = f"demo-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        self._run = RunId(f"{self._dag}/{self._dag_run}")
        self._ledger: Ledger = ledger_at(stack.ledger_url)
        users: dict[str, Airflow] = {name: stack.as_user(name) for name in APPROVERS}
        self._gates = Gates(dag=self._dag, run=self._dag_run, users=users)
        self._told: set[str] = set()
        self._began = time.time()
        self.folder = run_folder(stack.places.runs, self._run)
        """Where everything of this run lies."""

    def through(self) -> int:
        """Trigger, follow, judge; the exit status."""
        self._say(f"Airflow: {self._stack.address}   {self._sign_in()}")
        self._trigger()
        state = self._follow()
        self._show(state)
        good = state == "success" and self._outcome() is RunOutcome.SUCCEEDED
        return 0 if good else 1

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style=style), soft_wrap=True)

    def _sign_in(self) -> str:
        known = passwords.ensure(self._stack.places.passwords)
        return f"sign in as olga, password {known['olga']} (others: {_shown(self._stack.places.passwords)})"

    # begin --------------------------------------------------------------------------------------------------------------
    def _trigger(self) -> None:
        airflow = self._stack.airflow
        end = time.monotonic() + 120
        while airflow.dag(self._dag) is None:
            self._stack.services.check()
            if time.monotonic() > end:
                errors = "\n".join(airflow.import_errors()) or "Airflow reports no import error"
                raise DagMissing(f"Airflow does not know the DAG {self._dag} after 120 s.\n{errors}")
            time.sleep(0.5)
        for run in airflow.runs_in_flight(self._dag):
            self._say(f"an earlier run, {run['dag_run_id']}, had not ended; its world is gone, so it is marked failed")
            airflow.fail_run(self._dag, str(run["dag_run_id"]))
        airflow.pause(self._dag, paused=False)
        airflow.trigger(self._dag, self._dag_run, {"dry_run": False})
        self._began = time.time()
        self._say(f"triggered {self._dag}, run {self._dag_run}")

    # follow -------------------------------------------------------------------------------------------------------------
    def _follow(self) -> str:
        """Show the run until it has ended, and its gates until they are answered; its last state."""
        if not self._console.is_terminal:
            return self._follow_in_lines()
        while True:
            with Live(console=self._console, refresh_per_second=4, transient=True) as live:
                seen, gate = self._watch(lambda seen: live.update(self._drawn(seen)))
            self._console.print(self._drawn(seen))
            if gate is None:
                return seen.state
            self._ask(gate)

    def _drawn(self, seen: Progress) -> Any:
        return progress.drawn(seen, title=f"{self._dag} {self._dag_run}", clock=self._stack.clock, began=self._began)

    def _follow_in_lines(self) -> str:
        before = Progress()

        def tell(seen: Progress) -> None:
            nonlocal before
            for line in progress.told(seen, before, clock=self._stack.clock, real=time.time()):
                self._say(f"{time.time() - self._began:5.0f} s  {line}")
            before = progress.remembered(seen, before)

        return self._watch(tell)[0].state

    def _watch(self, show: Callable[[Progress], None]) -> tuple[Progress, Gate | None]:
        """Until the run has ended, or a gate wants an answer that only the person at this terminal can give."""
        while True:
            self._check()
            try:
                seen = self._look()
                gate = None if seen.state in ENDED else self._gate()
            except Unanswered as silence:
                self._say(f"Airflow's API does not answer at the moment: {silence}")
                continue
            show(seen)
            if seen.state in ENDED or gate is not None:
                return seen, gate
            time.sleep(POLL)

    def _check(self) -> None:
        self._stack.services.check()
        limit = self._options.time_limit
        if limit is not None and time.time() - self._began > limit:
            raise TooLong(f"the campaign has not ended after {limit:.0f} s")

    def _look(self) -> Progress:
        airflow = self._stack.airflow
        state = str(airflow.run(self._dag, self._dag_run)["state"])
        return progress.read(self._ledger, self._run, tasks=airflow.tasks(self._dag, self._dag_run), state=state)

    # gates --------------------------------------------------------------------------------------------------------------
    def _gate(self) -> Gate | None:
        """Answer what is to be answered without a person; a gate that needs one, if we can ask them."""
        for gate in self._gates.waiting():
            if self._options.approve:
                if self._gates.settled(gate):
                    self._report(self._gates.answer(gate, approve=True))
            elif self._console.is_terminal and sys.stdin.isatty():
                if gate.attempt not in self._told:
                    return gate
            elif gate.attempt not in self._told:
                self._told.add(gate.attempt)
                self._say(f"{gate.subject}: waits for an answer at {self._required_actions()}   {self._sign_in()}")
        return None

    def _required_actions(self) -> str:
        return f"{self._stack.address}/required_actions?response_received=false"

    def _ask(self, gate: Gate) -> None:
        """Show the plan and take an answer, from here or from the browser, whoever is first."""
        self._told.add(gate.attempt)
        self._console.print(Rule(escape(gate.subject)))
        self._console.print(Markdown(self._plan() or gate.body))
        try:
            name = self._gates.answerer(gate)
        except NobodyMayAnswer as nobody:
            self._say(str(nobody))
            return
        self._say(f"{gate.subject}: answer here as {name}, or in the browser at {self._required_actions()}")
        answer = self._typed(gate)
        if answer is not None:
            self._report(self._gates.answer(gate, approve=answer.strip().casefold() in ("y", "yes")))

    def _plan(self) -> str:
        try:
            return str(self._ledger.document(self._run, "plan.md"))
        except (KeyError, Transient):
            return ""

    def _typed(self, gate: Gate) -> str | None:
        """A line from the terminal; None if the gate was answered elsewhere first, or the terminal was closed."""
        _discard_typed_ahead()
        sys.stdout.write("approve? [y/N] ")
        sys.stdout.flush()
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], POLL)
            if ready:
                line = sys.stdin.readline()
                if not line:
                    self._say("\nno answer from this terminal; the browser's counts")
                    return None
                return line
            self._check()
            try:
                if all(other.attempt != gate.attempt for other in self._gates.waiting()):
                    sys.stdout.write("\n")
                    self._report(self._gates.answered(gate))
                    return None
            except (Unanswered, Refused):
                continue

    def _report(self, answered: Answered) -> None:
        where = "" if answered.ours else ", given elsewhere"
        self._say(f"{answered.gate.subject}: {answered.option} by {answered.by}{where} (its task: {answered.state})")

    # result -------------------------------------------------------------------------------------------------------------
    def _outcome(self) -> RunOutcome | None:
        try:
            return self._ledger.run(self._run).outcome
        except (KeyError, Transient):
            return None

    def _show(self, state: str) -> None:
        outcome = self._outcome()
        self._console.print(Rule("result"))
        style = "green" if state == "success" and outcome is RunOutcome.SUCCEEDED else "red"
        word = outcome.value if outcome else "not in the ledger"
        seconds = time.time() - self._began
        self._say(f"run {self._dag_run}: {state}, outcome {word}, {seconds:.0f} s after its trigger", style)
        if state != "success":
            for task in self._stack.airflow.tasks(self._dag, self._dag_run):
                if task["state"] == "failed":
                    self._say(f"failed task: {task['task_id']}, try {task['try_number']}: {self._task_page(task)}", "red")
        try:
            result.show(self._console, self._ledger, self._run)
        except (KeyError, Transient) as problem:
            self._say(f"the ledger says nothing of this run: {problem}")
        records = self._stack.awsim.save_journal(self.folder / "journal.jsonl")
        self._check_rules()
        report = self.folder / "report.html"
        self._say(f"report: {_shown(report) if report.exists() else 'none was made'}; awsim's journal: {records} records")
        self._say(f"Airflow: {self._run_page()}   {self._sign_in()}")

    def _check_rules(self) -> None:
        """One line: whether the rules of a rollout were kept, by awsim's journal; `patchwave check` says more."""
        try:
            journal = (self.folder / "journal.jsonl").read_text(encoding="utf-8")
            line, broken = check.in_one_line(self._ledger, self._run, journal)
        except (KeyError, Transient) as problem:
            line, broken = f"the rules could not be checked: {problem}", True
        self._say(line, "red" if broken else "green")

    def close_ledger_run(self) -> None:
        """A run that was interrupted makes no report any more; the ledger is told that it did not end well."""
        with suppress(KeyError, Transient):
            if self._ledger.run(self._run).outcome is RunOutcome.RUNNING:
                self._ledger.end_run(self._run, RunOutcome.FAILED, at=self._stack.clock.now(time.time()))

    def _run_page(self) -> str:
        return f"{self._stack.address}/dags/{self._dag}/runs/{self._dag_run}"

    def _task_page(self, task: Mapping[str, Any]) -> str:
        return f"{self._run_page()}/tasks/{task['task_id']}"

    def keep(self) -> None:
        """Keep the UI up until somebody stops us, or a process ends."""
        self._say("the UI stays up; Ctrl-C stops everything")
        while True:
            self._stack.services.check()
            time.sleep(1)


def _shown(path: Path) -> str:
    """As short as it can be written from here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _discard_typed_ahead() -> None:
    """What was typed before the question was asked is no answer to it."""
    if os.name == "posix" and sys.stdin.isatty():
        import termios

        termios.tcflush(sys.stdin, termios.TCIFLUSH)
