"""Does a campaign bear what Airflow does by itself, and a ledger that is away? Bad moments, provoked, and judged like a crash.

`make check-moments` calls this. None of these moments may change what happens to a host, or end a campaign that could go on;
and where a person acted, a triggerer that is gone must not keep the command in flight for longer than two minutes. The last line
is `N moments, N broken rules`; the exit status is 1 when a rule was broken, 2 when nothing could be run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil  # type: ignore[import-untyped]

from patchwave.campaign.errors import PatchwaveError
from patchwave.cli.environment import REPOSITORY
from patchwave.cli.stack import AIRFLOW, Stack
from tests.crashes import campaigns
from tests.crashes.killer import Killer
from tests.crashes.run import QUICKER, Led, airflow, broken, say
from tests.journey.runs import FollowedRun, NeverCame, Stage

SPEED = 60
INSTALL = [600, 900]
"""Seconds: ten to fifteen on our clocks, so that a moment finds hosts that install."""
STAGE = "staging"
STALL = 40.0
WITHOUT_API = 60.0
WITHOUT_LEDGER = 60.0
STOPPED = 30.0
"""Seconds in which a stop is carried out."""
GONE = 120.0
"""The same when the triggerer is gone."""
SECOND = "triggerer-2"


@dataclass
class Moment:
    """One campaign, and what is done to Airflow while it runs."""

    stage: Stage
    run: FollowedRun
    seen: list[str] = field(default_factory=list)

    @property
    def stack(self) -> Stack:
        """The processes."""
        return self.stage.stack

    def installing(self) -> bool:
        """Hosts install, and their stage waits without a worker."""
        states = set(self.run.classes.values())
        return "installing" in states and self.run.tasks[f"{STAGE}.patch"] == "deferred"

    def note(self, holds: bool, sentence: str) -> None:
        """A rule of this moment; broken if it does not hold."""
        if not holds:
            self.seen.append(sentence)

    def freeze(self, service: str) -> list[psutil.Process]:
        """Stop a service and all below it, as a machine does that has no time for them."""
        top = psutil.Process(self.stack.services[service].process.pid)
        frozen = [top, *top.children(recursive=True)]
        for process in frozen:
            with suppress(psutil.Error):
                process.suspend()
        return frozen

    def nobody_stopped_anything(self) -> None:
        """No wish stands in the ledger, and nothing was cancelled."""
        kinds = [one.kind for one in self.run.ledger.journal(self.run.id)]
        for kind in ("stop.wished", "stage.stopped", "dispatch.cancelled", "stage.halted"):
            self.note(kind not in kinds, f"{kind} stands in the ledger though nobody acted")


def thaw(frozen: list[psutil.Process]) -> None:
    """Let stopped processes run again."""
    for process in frozen:
        with suppress(psutil.Error):
            process.resume()


def the_scheduler_is_stopped_and_woken(moment: Moment) -> None:
    """For 40 s, which is longer than its health's threshold: it takes its own running tasks for orphans."""
    killer = Killer(moment.stack, Random(0))
    moment.run.until(lambda: moment.installing() or killer.tasks(), "a task runs")
    frozen = moment.freeze("scheduler")
    # Its tasks go on: only the scheduler itself is stopped.
    thaw(frozen[1:])
    time.sleep(STALL)
    thaw(frozen)


def supervisors_are_killed_while_their_children_run(moment: Moment) -> None:
    """Three times: the child goes on as an orphan, and the retry runs beside it or after it."""
    killer = Killer(moment.stack, Random(3))
    killed = 0
    end = time.monotonic() + 90
    while killed < 3 and time.monotonic() < end:
        if moment.run.tasks.get(f"{STAGE}.patch") in ("running", "queued", "scheduled", "up_for_retry"):
            what = killer.kill("supervisor")
            killed += bool(what)
            say(f"  {what or 'no task came along'}")
        time.sleep(0.3)
    moment.note(killed > 0, "no supervisor was killed: this moment proves nothing")


def the_api_server_is_away_for_a_minute(moment: Moment) -> None:
    """Tasks can neither begin nor say how they ended."""
    service = moment.stack.services["api-server"]
    below = psutil.Process(service.process.pid).children(recursive=True)
    service.process.kill()
    service.process.wait()
    for process in below:
        with suppress(psutil.Error):
            process.kill()
    time.sleep(WITHOUT_API)
    moment.stack.start_service("api-server")


def a_triggerer_is_stalled_and_another_takes_over(moment: Moment) -> None:
    """The first one, awake again, is told to stop the triggers that it no longer has, as if a person had acted."""
    stack = moment.stack
    stack.services.start(
        SECOND,
        [sys.executable, "-m", "airflow", *AIRFLOW["triggerer"]],
        environment=stack.environment,
        log=stack.places.logs / f"{SECOND}.log",
    )
    log = stack.services[SECOND].log
    moment.run.until(lambda: "Starting the triggerer" in log.read_text(), "the second triggerer runs")
    moment.run.until(lambda: _running_in(stack, moment.run) == "triggerer", "the first triggerer has the trigger", patience=90)
    frozen = moment.freeze("triggerer")
    try:
        moment.run.until(lambda: _running_in(stack, moment.run) == SECOND, "the second triggerer takes over", patience=90)
        time.sleep(2.0)
    finally:
        thaw(frozen)
    told = "Told to stop, but nobody ended the task"  # after it has looked for a person's wish for twenty seconds
    first = stack.services["triggerer"].log
    try:
        moment.run.until(lambda: told in first.read_text(errors="replace"), told, patience=60)
    except NeverCame:
        moment.seen.append("the first triggerer, awake again, told no trigger to stop: this proves nothing")
    moment.nobody_stopped_anything()


def _running_in(stack: Stack, run: FollowedRun) -> str:
    """Which triggerer has begun the stage's newest trigger last, by its own log."""
    from sqlalchemy import create_engine, text

    engine = create_engine(stack.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("psycopg2", "psycopg"))
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT j.id FROM task_instance ti JOIN trigger t ON t.id = ti.trigger_id JOIN job j ON j.id = t.triggerer_id"
                    " WHERE ti.dag_id = :dag AND ti.task_id = :task AND ti.state = 'deferred'"
                ),
                {"dag": run.dag, "task": f"{STAGE}.patch"},
            ).scalars()
            owner = next(iter(rows), None)
            first = connection.execute(text("SELECT min(id) FROM job WHERE job_type = 'TriggererJob'")).scalar()
    finally:
        engine.dispose()
    if owner is None:
        return ""
    return "triggerer" if owner == first else SECOND


def the_triggerer_is_gone_when_a_person_fails_the_task(moment: Moment) -> None:
    """Nobody is told to stop: the command is cancelled within two minutes all the same."""
    run = moment.run
    run.until(moment.installing, "hosts install")
    run.until(lambda: "InProgress" in _installs(run), "AWS has begun the Install")
    for name in ("triggerer", SECOND):
        with suppress(KeyError):
            frozen = moment.freeze(name)
            for process in frozen:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
    run.user("ana").set_task_state(run.dag, run.run, f"{STAGE}.patch", "failed")
    began = time.monotonic()
    try:
        run.until(lambda: not {"Pending", "InProgress", "Delayed", "Cancelling"} & set(_installs(run)), "over", patience=GONE)
    except NeverCame as late:
        moment.seen.append(f"stop: {str(late).splitlines()[0]}")
    say(f"  {', '.join(sorted(set(_installs(run))))} after {time.monotonic() - began:.1f} s")
    moment.note(set(_installs(run)) == {"Cancelled"}, f"the Install is not cancelled, but {sorted(set(_installs(run)))}")
    run.until(lambda: run.ledger.stage(run.id, STAGE).state.value == "halted", "the stage is halted", patience=60)
    moment.stack.start_service("triggerer")
    run.user("ana").fail_run(run.dag, run.run)  # that a clear goes on from here is a journey's (`test_killed`)


def a_person_fails_the_remediation(moment: Moment) -> None:
    """Nothing tells its trigger, which waits for a moment only: the api-server cancels its executions."""
    run = moment.run
    run.until(lambda: run.tasks["remediate"] == "deferred" and _remedies(run) == ["InProgress"], "a host is remedied")
    run.user("ana").set_task_state(run.dag, run.run, "remediate", "failed")
    began = time.monotonic()
    try:
        run.until(lambda: "InProgress" not in _remedies(run) and "Cancelling" not in _remedies(run), "over", patience=STOPPED)
    except NeverCame as late:
        moment.seen.append(f"stop: {str(late).splitlines()[0]}")
    say(f"  {', '.join(_remedies(run))} after {time.monotonic() - began:.1f} s")
    moment.note(_remedies(run) == ["Cancelled"], f"the remedy is not cancelled, but {_remedies(run)}")

    def told() -> bool:
        return "remedy.stopped" in {one.kind for one in run.ledger.journal(run.id)}

    run.until(told, "the ledger says what was stopped", patience=60)


def _remedies(run: FollowedRun) -> list[str]:
    """How the Automation executions of the region stand in AWS."""
    found = _ssm(run).describe_automation_executions()["AutomationExecutionMetadataList"]
    return [str(one["AutomationExecutionStatus"]) for one in found]


def _ssm(run: FollowedRun) -> Any:
    import boto3

    return boto3.client(
        "ssm", endpoint_url=run.stage.stack.awsim.address, region_name=run.region,
        aws_access_key_id="awsim", aws_secret_access_key="awsim",
    )  # fmt: skip


def _installs(run: FollowedRun) -> list[str]:
    """How the stage's first Install stands in AWS, host by host."""
    ssm = _ssm(run)
    found = [one for one in ssm.list_commands(MaxResults=50)["Commands"] if one["Parameters"].get("Operation") == ["Install"]]
    if not found:
        return []
    first = min(found, key=lambda one: one["RequestedDateTime"])
    rows = ssm.list_command_invocations(CommandId=first["CommandId"])["CommandInvocations"]
    return [str(row["Status"]) for row in rows]


def a_trigger_fires_at_once(moment: Moment) -> None:
    """Patchwave's triggers wait some seconds before they fire; here they do not, and Airflow fails healthy tasks."""
    moment.run.until(lambda: moment.run.state in ("success", "failed"), "the run ends")
    log = moment.stack.services["scheduler"].log.read_text()
    moment.note("state mismatch" in log or "reported that the task instance" in log, "Airflow bore it: this proves nothing")


def the_ledger_is_locked_for_a_minute(moment: Moment) -> None:
    """Another process has SQLite's lock, as a backup that hangs: whoever wants to write waits, and what it knew has grown old."""
    other = sqlite3.connect(moment.stack.places.ledger, isolation_level=None)
    waited = 0.0
    try:
        other.execute("BEGIN EXCLUSIVE")
        end = time.monotonic() + WITHOUT_LEDGER
        while time.monotonic() < end:
            waited += moment.run.tasks[f"{STAGE}.patch"] == "running"
            time.sleep(1.0)
    finally:
        other.close()
    moment.note(waited > 10, f"the task waited for the ledger for {waited:.0f} s only: this moment proves nothing")
    moment.nobody_stopped_anything()


def the_ledgers_disk_is_full_for_a_minute(moment: Moment) -> None:
    """Tasks fail at their first write and are tried again; nothing is sent that is not written down."""
    DISK_FULL.touch()
    try:
        time.sleep(WITHOUT_LEDGER)
    finally:
        DISK_FULL.unlink()
    _said_in_the_log(moment, "the ledger's disk is full")
    moment.nobody_stopped_anything()


def _said_in_the_log(moment: Moment, words: str) -> None:
    """That somebody met with it at all: in a log of the stage's task, or of the triggerer."""
    logs = moment.stack.places.logs

    def said() -> bool:
        of_the_task = (logs / "tasks").glob(f"dag_id={moment.run.dag}/*/task_id={STAGE}.patch/*")
        found = [moment.stack.services["triggerer"].log, *of_the_task]
        return any(words in log.read_text(errors="replace") for log in found if log.is_file())

    try:
        moment.run.until(said, words, patience=60)
    except NeverCame:
        moment.seen.append(f"nobody said {words!r}: this moment proves nothing")


IN_TURN: Mapping[str, Callable[[Moment], None]] = {
    "eu-central-1": a_triggerer_is_stalled_and_another_takes_over,
    "eu-west-1": the_scheduler_is_stopped_and_woken,
    "eu-west-2": supervisors_are_killed_while_their_children_run,
    "eu-west-3": the_api_server_is_away_for_a_minute,
    "us-east-2": the_ledger_is_locked_for_a_minute,
    "us-west-2": a_person_fails_the_remediation,
    "sa-east-1": the_triggerer_is_gone_when_a_person_fails_the_task,
}
"""By region."""
SLOW = {"eu-central-1": [3600, 4200], "us-west-2": [3600, 4200], "sa-east-1": [6500, 7000]}
"""Seconds: a minute and two on our clocks, where one and the same trigger or execution has to live so long."""
REMEDIED = frozenset({"us-west-2"})
EARLY = {
    "PYTHONPATH": f"{Path(__file__).parent / 'early'}:{REPOSITORY / 'include'}",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
}
AT_ONCE = {"us-east-1": a_trigger_fires_at_once}
DISK_FULL = Path(tempfile.gettempdir()) / f"patchwave-disk-full-{os.getpid()}"
FULL = {
    "PYTHONPATH": f"{Path(__file__).parent / 'full'}:{REPOSITORY / 'include'}",
    "PATCHWAVE_TESTS_DISK_FULL": str(DISK_FULL),
}
FILLED = {"us-west-1": the_ledgers_disk_is_full_for_a_minute}


def provoke(stage: Stage, region: str, what: Callable[[Moment], None]) -> list[str]:
    """One moment in one campaign; the rules that were broken."""
    moment = Moment(stage=stage, run=stage.follow(campaigns.name_of(region), region=region))
    goes_on = what not in (the_triggerer_is_gone_when_a_person_fails_the_task, a_person_fails_the_remediation)
    say(f"{what.__name__.replace('_', ' ')}")
    began = time.monotonic()
    led = Led(moment.run, stages=[STAGE])
    try:
        moment.run.until(moment.installing, "hosts install")
        what(moment)
    except NeverCame as never:
        moment.seen.append(str(never))
    state = led.state()
    found = [*moment.seen, *(broken(moment.run, state, stages=[STAGE]) if goes_on else map(str, moment.run.rules_broken))]
    say(f"  {state}, {len(found)} broken rules, {time.monotonic() - began:.0f} s")
    for one in found:
        print(f"  {one}", flush=True)
    if found:
        print(moment.run.picture(), flush=True)
    return found


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="words in the names of the moments; none means all")
    words = parser.parse_args().only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stacks: list[tuple[Mapping[str, Callable[[Moment], None]], dict[str, str]]] = [
        (_chosen(IN_TURN, words), QUICKER),
        (_chosen(AT_ONCE, words), QUICKER | EARLY),
        (_chosen(FILLED, words), QUICKER | FULL),
    ]
    moments, found = 0, 0
    try:
        for chosen, environment in stacks:
            if not chosen:
                continue
            given = {"install": INSTALL}
            with airflow(environment=environment, speed=SPEED, timings=given, slow=SLOW, remedied=REMEDIED) as stage:
                for region, what in chosen.items():
                    moments += 1
                    found += len(provoke(stage, region, what))
    except (PatchwaveError, OSError) as problem:
        print(f"cannot be run: {problem}", file=sys.stderr)
        return 2
    print(f"{moments} moments, {found} broken rules")
    return 1 if found else 0


def _chosen(moments: Mapping[str, Callable[[Moment], None]], words: list[str]) -> dict[str, Callable[[Moment], None]]:
    return {region: one for region, one in moments.items() if not words or any(word in one.__name__ for word in words)}


if __name__ == "__main__":
    raise SystemExit(main())
