"""Does a campaign lose or repeat anything when processes of a real Airflow are killed? Kills them with SIGKILL, and counts.

`make check-crashes` calls this: awsim and Airflow (scheduler, api-server, dag-processor, triggerer as processes of their own) are
started, two campaigns run at a time, and at moments that a seed chooses a task, its supervisor, the triggerer, the scheduler or
the api-server is killed, until there were as many kills as asked for. Then the campaigns are let go on to their ends, and each
is judged: by the rule checker (`patchwave.campaign.audit`) from awsim's journal and the ledger, and against the end that it
would have had without kills (`campaigns.expected`): class and number of Installs of each host, state of the run.

The last line is `N kills, N broken rules`; the exit status is 1 when a rule was broken, 2 when nothing could be run. The same
SEED kills the same kinds of processes after the same pauses; what Airflow does meanwhile is its own.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from patchwave.campaign.errors import PatchwaveError
from patchwave.cli.environment import Places
from patchwave.cli.rest import Refused, Unanswered
from patchwave.cli.stack import Stack
from tests.crashes import campaigns
from tests.crashes.killer import SERVICES, WORKERS, Killer
from tests.journey.runs import FollowedRun, Stage, policies_at_any_time
from tests.ledger import postgres

SPEED = 150
AT_ONCE = 2
PAUSES = (2.0, 12.0)
"""Seconds between a kill and the next."""
LONGEST = 900.0
"""Seconds until a campaign that has not ended counts as one that hangs."""

QUICKER: dict[str, str] = {
    "AIRFLOW__CORE__PARALLELISM": "4",
    # A dead supervisor's task is given up after this long instead of 150 s; that is all that a kill costs then.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
}
"""Airflow comes back sooner than `make demo` lets it, so that more kills fit into a minute."""


def say(line: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


@contextmanager
def airflow(
    *,
    environment: Mapping[str, str],
    speed: float,
    timings: Mapping[str, list[int]] | None = None,
    slow: Mapping[str, list[int]] | None = None,
    remedied: Collection[str] = (),
) -> Iterator[Stage]:
    """A stack in a home of its own, on PostgreSQL where there is one; nothing is left of it.

    Args:
        timings: of the world, in seconds.
        slow: regions in which an Install takes so long.
        remedied: regions whose campaign remedies what is left over in staging.
    """
    with ExitStack() as ending:
        home = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="pw-crashes-", ignore_cleanup_errors=True)))
        world = campaigns.write(home / "given", timings=timings, slow=slow, remedied=remedied)
        places = Places(
            home=home / "airflow", runs=home / "runs", campaigns=home / "given" / "campaigns",
            policies=policies_at_any_time(home / "policies"),
        )  # fmt: skip
        stack = ending.enter_context(
            Stack(
                places=places, port=0, awsim_port=0, world=world, speed=speed,
                environment={**_database(ending), **environment}, tell=say,
            )
        )  # fmt: skip
        yield Stage(stack=stack, campaigns=places.campaigns)


def _database(ending: ExitStack) -> dict[str, str]:
    try:
        server = ending.enter_context(postgres.server())
    except postgres.NoServer as reason:
        say(f"Airflow's database is SQLite: {reason}")
        return {}
    url = ending.enter_context(postgres.database(server)).set(drivername="postgresql+psycopg2")
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.render_as_string(hide_password=False)}


def lead(run: FollowedRun, *, stages: Sequence[str] | None = None) -> str:
    """Begin a campaign, answer its gate whenever it asks, and wait for its end.

    Returns:
        The run's state in Airflow.
    """
    run.begin(dry_run=False, **({"stages": list(stages)} if stages else {}))
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        try:
            if run.state in ("success", "failed"):
                return run.state
            for gate in run.gates.waiting():
                if run.gates.settled(gate):
                    run.gates.answer(gate, approve=True)
        except (Unanswered, Refused):
            pass  # the api-server is away, or the request with it
        time.sleep(1.0)
    return "endless"


class Led:
    """A campaign that is led in a thread, which nobody waits for when all this is ended early."""

    def __init__(self, run: FollowedRun, *, stages: Sequence[str] | None = None) -> None:
        self.run = run
        self._stages = stages
        self._state = ""
        self._thread = threading.Thread(target=self._lead, name=run.dag, daemon=True)
        self._thread.start()

    def _lead(self) -> None:
        try:
            self._state = lead(self.run, stages=self._stages)
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is what came of the campaign
            self._state = f"none: {problem!r}"

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return not self._thread.is_alive()

    def state(self) -> str:
        """Wait for its end; its state in Airflow, or why there is none."""
        self._thread.join()
        return self._state


def broken(run: FollowedRun, state: str, *, stages: Sequence[str] = tuple(campaigns.FLEETS)) -> list[str]:
    """What one campaign did that it would not have done without kills, and the rules that it broke.

    Args:
        stages: that were chosen.
    """
    found = [] if state == "success" else [f"end: the run's state is {state}, not success"]
    found += [str(one) for one in run.rules_broken]
    classes, installs = run.classes, run.journal.by_the_stages().installs
    for host, facts in run.hosts().items():
        name = str(facts["name"])
        became, times = campaigns.expected(name, stages=stages)
        if classes.get(host, "") != became:
            found.append(f"class: {name} ({host}) is {classes.get(host)}, not {became}")
        if installs.get(host, 0) != times:
            found.append(f"once: {name} ({host}) got {installs.get(host, 0)} Installs, not {times}")
    return found


class Crashes:
    """Campaigns of one stack, while processes are killed."""

    def __init__(self, stage: Stage, random: Random) -> None:
        self._stage = stage
        self._random = random
        self._killer = Killer(stage.stack, random)
        self._left = list(campaigns.REGIONS)
        self._going: list[Led] = []
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []

    def run(self, kills: int) -> int:
        """Kill that many processes, or as many as there are campaigns for; how many it were."""
        made = 0
        targets = self._targets()
        while made < kills and self._keep_going():
            time.sleep(self._random.uniform(*PAUSES))
            target = next(targets)
            what = self._killer.kill(target)
            if what:
                made += 1
                self.counts[target] += 1
                say(f"kill {made}: {what}")
        say("no more kills; the campaigns go on to their ends")
        while self._going:
            self._look()
            time.sleep(1.0)
        return made

    def _targets(self) -> Iterator[str]:
        """Each kind in turn, in an order that the seed shuffles; workers as often as all services together."""
        while True:
            services, workers = list(SERVICES), [*WORKERS, WORKERS[0]]
            self._random.shuffle(services)
            self._random.shuffle(workers)
            for service, worker in zip(services, workers, strict=True):
                yield worker
                yield service

    def _keep_going(self) -> bool:
        """Begin campaigns while there are any; whether one is on its way."""
        self._look()
        while self._left and len(self._going) < AT_ONCE:
            region = self._left.pop(0)
            run = self._stage.follow(campaigns.name_of(region), region=region)
            self._going.append(Led(run))
            say(f"campaign {run.dag} begins")
        return bool(self._going)

    def _look(self) -> None:
        for led in [one for one in self._going if one.over]:
            self._going.remove(led)
            self._judge(led.run, led.state())

    def _judge(self, run: FollowedRun, state: str) -> None:
        found = broken(run, state)
        self.counts["campaigns"] += 1
        self.broken += [f"{run.id}: {one}" for one in found]
        tries = max(int(one["try_number"]) for one in run.user("ana").tasks(run.dag, run.run))
        say(f"campaign {run.dag} has ended: {state}, {len(found)} broken rules, at most {tries} tries of a task")
        if found:
            print("\n".join([*found, run.picture()]), flush=True)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing of the stack is left
    random = Random(chosen.seed)
    began, kills = time.monotonic(), 0
    counts: Counter[str] = Counter()
    found: list[str] = []
    say(f"seed {chosen.seed}, {chosen.kills} kills")
    try:
        while kills < chosen.kills:
            with airflow(environment=QUICKER, speed=SPEED) as stage:
                crashes = Crashes(stage, random)
                kills += crashes.run(chosen.kills - kills)
            counts += crashes.counts
            found += crashes.broken
    except (PatchwaveError, OSError) as problem:
        print(f"cannot be run: {problem}", file=sys.stderr)
        return 2
    for one in found:
        print(one)
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    print(f"{told}; {time.monotonic() - began:.0f} s")
    print(f"{kills} kills, {len(found)} broken rules")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
