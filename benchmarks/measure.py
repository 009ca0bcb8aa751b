"""What does it take to patch one fleet, one way? `python -m benchmarks.measure WAY HOSTS` prints it as JSON.

One process a measurement, for moto's and Airflow's state is the process's; `benchmarks/calls.py` starts them and sets Airflow's
environment. awsim runs beside it as a process of its own, its clock standing still until everybody sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
import yaml
from botocore.config import Config

from benchmarks import tasks
from benchmarks.stock import StockTasks
from benchmarks.tasks import Airflow, Ended
from benchmarks.virtual import VirtualTime
from patchwave.aws.gateway import Gateway
from patchwave.campaign import definition, severity
from patchwave.campaign import plan as plans
from patchwave.campaign.plan import Restriction
from patchwave.campaign.policy import Policy
from patchwave.campaign.rollout import LARGEST_DISPATCH
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.hooks.aws import PatchwaveAwsHook
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Run
from patchwave.operators.patch import PatchStageOperator

CELL = Cell(account="111111111111", region="eu-central-1")
WAVES = 10
RUN = RunId("bench/once")
STAGE = StageName("prod")
DONE = frozenset({"patched", "already_compliant"})

WORLD = """
name: bench-calls
accounts: [{{id: "111111111111"}}]
regions: [eu-central-1]
timings: {{delivery: [1, 3], scan: [15, 60], install: [120, 420], reboot: [60, 180], status_check: [20, 60]}}
templates:
  amazon: {{os: amazon-linux-2023, missing: {{count: [5, 12], always: [kernel]}}}}
fleets:
  - name: web
    account: "111111111111"
    region: eu-central-1
    count: {count}
    template: amazon
    zones: 3
    tags: {{Environment: prod, PatchGroup: web}}
"""
ODD = """
    exceptions: [{exceptions}]
faults:
  - {{kind: undeliverable, host: [{undeliverable}]}}
"""
"""One in a hundred hosts fails to install, one cannot be delivered to, one is up to date already; who, is drawn."""

CAMPAIGN = """
name: bench
description: One stage
owner: bench
scope:
  cells: [{account: "111111111111", regions: [eu-central-1]}]
policy: standard
stages:
  - {name: prod, select: {patch_groups: [web]}, concurrency: 10%, error_budget: 10%, approval: {required: false}}
"""


def world(hosts: int, *, odd: bool) -> str:
    """The world file of a fleet."""
    text = WORLD.format(count=hosts)
    if not odd:
        return text
    drawn = Random(hosts).sample(range(1, hosts + 1), 3 * (hosts // 100))
    failing, silent, good = drawn[0::3], drawn[1::3], drawn[2::3]
    exceptions = [f"{{host: {number}, install_fails: {{exit_code: 1}}}}" for number in failing]
    exceptions += [f"{{host: {number}, compliant: true}}" for number in good]
    return text + ODD.format(
        exceptions=", ".join(exceptions), undeliverable=", ".join(f"web/{number}" for number in silent)
    ).removeprefix("\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one way took.

    Attributes:
        calls: by operation, botocore's repetitions included.
        wall: seconds from the first task's start to the last one's end.
        slot: worker-slot seconds.
        legs: how often a worker ran a task.
        right: hosts of which the way said at its end what was true then.
        in_flight: most hosts that were installing or rebooting at once, by the journal.
        installs: most Installs that one host got.
        carried: commands that hosts carried out, each host's counted, by the journal.
        steps: seconds that AWS and the hosts took for the waves, if each began when the one before had ended.
        real: seconds that this measurement took.
    """

    way: str
    odd: bool
    hosts: int
    calls: Mapping[str, int]
    wall: float
    slot: float
    legs: int
    right: int
    in_flight: int
    installs: int
    carried: int
    steps: float | None
    real: float


class Bench:
    """An awsim of its own, a session whose clients count, and virtual time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.time = VirtualTime(url)
        self.counted: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._session = boto3.Session("AKIAEXAMPLE", "secret", region_name=CELL.region)
        self._clients: dict[str, Any] = {}

    def client(self, service_name: str, **_: Any) -> Any:
        """As `boto3.Session.client`: one counting client a service, whoever asks. The count is of requests as they are sent."""
        with self._lock:
            if service_name not in self._clients:
                client = self._session.client(service_name, endpoint_url=self.url, config=Config(max_pool_connections=100))
                client.meta.events.register(f"before-send.{client.meta.service_model.service_id.hyphenize()}", self._count)
                self._clients[service_name] = client
            return self._clients[service_name]

    def _count(self, event_name: str, **_: Any) -> None:
        service, operation = event_name.split(".")[1:]
        with self._lock:
            self.counted[f"{service}:{operation}"] += 1

    def gateway(self, **_: Any) -> Gateway:
        """A gateway over the counting clients."""
        return Gateway(lambda cell: self)

    def control(self, path: str) -> str:
        """The answer of `/_awsim/<path>`."""
        with urllib.request.urlopen(f"{self.url}/_awsim/{path}", timeout=120) as answer:  # noqa: S310 - our own awsim
            return str(answer.read().decode())

    def hosts(self) -> list[HostId]:
        """The fleet, in its order."""
        return [HostId(row["host"]) for row in json.loads(self.control("hosts"))["hosts"]]

    def compliant(self) -> set[str]:
        """Hosts with nothing missing from the start."""
        return {row["host"] for row in json.loads(self.control("hosts"))["hosts"] if row["patch_report"]["compliant"]}

    def journal(self) -> list[dict[str, Any]]:
        """What really happened."""
        return [json.loads(line) for line in self.control("journal").splitlines()]

    def requested(self) -> dict[str, datetime]:
        """AWS's own time of each command, uncounted."""
        ssm = self._session.client("ssm", endpoint_url=self.url)
        pages = ssm.get_paginator("list_commands").paginate()
        return {row["CommandId"]: row["RequestedDateTime"] for page in pages for row in page["Commands"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What a way said of a host, and when."""

    done: bool
    at: datetime


# --- the ways -------------------------------------------------------------------------------------------------------------


def ours(bench: Bench) -> tuple[dict[HostId, Said], list[Ended]]:
    """`PatchStageOperator` as it is, with a ledger in memory; its plan is made before, uncounted."""
    ledger = MemoryLedger()
    _open_run(bench, ledger)
    bench.counted.clear()

    class CountingHook(PatchwaveAwsHook):
        def gateway(self, **_: Any) -> Gateway:
            return bench.gateway()

    async def opened(*_: Any) -> MemoryLedger:
        return ledger

    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps({"conn_type": "aws", "extra": {"endpoint_url": bench.url}})
    operator = PatchStageOperator(task_id="patch_prod", stage=STAGE)
    dag_run = SimpleNamespace(dag_id="bench", run_id="once", run_type="manual", triggering_user_name="bench")
    ti = SimpleNamespace(id="try-1", map_index=-1, max_tries=3, try_number=1, xcom_push=lambda **_: None)
    with ExitStack() as stack:
        for target, stand_in in {
            "patchwave.operators.base.open_ledger": lambda _: ledger,
            "patchwave.operators.base.PatchwaveAwsHook": CountingHook,
            "patchwave.hooks.aws.PatchwaveAwsHook": CountingHook,
            "patchwave.triggers.watch.open_ledger_from_a_trigger": opened,
            "patchwave.hooks.clock.now": lambda: bench.time.now,
        }.items():
            stack.enter_context(patch(target, stand_in))
        context = {"dag_run": dag_run, "ti": ti, "task_instance": ti, "params": {}, "task": operator}
        ended = bench.time.run(tasks.run(operator, time=bench.time, context=context, airflow=Airflow()))
    said = {row.host: Said(done=row.state.value in DONE, at=ended.ended) for row in ledger.hosts(RUN, STAGE)}
    if ended.error is not None:
        raise ended.error
    return said, [ended]


def _open_run(bench: Bench, ledger: MemoryLedger) -> None:
    campaign = definition.parse(CAMPAIGN, file="bench.yaml")
    written = yaml.safe_load((Path(__file__).parents[1] / "include/policies/standard.yaml").read_text(encoding="utf-8"))
    policy = Policy.model_validate(written)
    now = bench.time.now
    ledger.open_run(
        Run(
            id=RUN, campaign="bench", dag_id="bench", dag_run_id="once", began_at=now, definition=json.loads(campaign.to_json()),
            definition_digest=campaign.digest, policy=json.loads(policy.model_dump_json(by_alias=True)), params={},
        ),
        [STAGE],
    )  # fmt: skip
    plan = plans.build(
        campaign, bench.gateway().fleet(CELL, {}), severity.classify([], policy, now=now, coverage=[]), run=RUN, now=now,
        dry_run=False, restriction=Restriction(), definition=campaign.digest, requested_by="bench",
    )  # fmt: skip
    ledger.put_document(RUN, "plan", plans.to_json(plan), at=now)


def stock(bench: Bench, *, scans: bool, deferrable: bool = False, delay: int = 120) -> tuple[dict[HostId, Said], list[Ended]]:
    """One `SsmRunCommandOperator` per 50 ids, the tasks of a wave side by side, the waves one after the other.

    It is given only what a careful author would: ids, not tags; at once and however many fail, as ours. Its Install reboots by
    itself. A wave begins when all tasks of the one before have ended, however they ended.

    Args:
        scans: a Scan of all hosts first, after each Install another one, and then a page of patch states: what it takes to
            know of each host what ours knows.
        delay: seconds between two looks at a host (the operator's default: 120).
    """
    play = StockTasks(bench.time, bench.client("ssm"))
    said: dict[HostId, Said] = {}
    ended: list[Ended] = []

    def operator(ids: Sequence[HostId], operation: str) -> Any:
        command = {
            "InstanceIds": list(ids), "Parameters": {"Operation": [operation]}, "MaxConcurrency": "100%", "MaxErrors": "100%",
            "TimeoutSeconds": 4200,
        }  # fmt: skip
        return play.operator(
            document_name="AWS-RunPatchBaseline", run_command_kwargs=command, deferrable=deferrable, waiter_delay=delay,
            waiter_max_attempts=int(3 * 3600 / delay),
        )  # fmt: skip

    async def one(ids: Sequence[HostId], operation: str) -> Ended:
        task = await play.run(operator(ids, operation))
        ended.append(task)
        return task

    async def patched(ids: Sequence[HostId]) -> None:
        install = await one(ids, "Install")
        said.update(dict.fromkeys(ids, Said(done=install.success, at=install.ended)))
        if scans:
            await one(ids, "Scan")
            said.update(await asyncio.to_thread(_as_the_reports_say, bench, ids))

    async def campaign() -> None:
        hosts = bench.hosts()
        size = len(hosts) // WAVES
        if scans:
            await asyncio.gather(*(one(ids, "Scan") for ids in _chunks(hosts, LARGEST_DISPATCH)))
        for wave in _chunks(hosts, size):
            await asyncio.gather(*(patched(ids) for ids in _chunks(wave, LARGEST_DISPATCH)))

    bench.counted.clear()
    with play.stand_ins():
        bench.time.run(campaign())
    return said, ended


def _as_the_reports_say(bench: Bench, ids: Sequence[HostId]) -> dict[HostId, Said]:
    """What a careful author adds, for the operator says nothing of a host: one page of patch states."""
    wrong = ("MissingCount", "FailedCount", "InstalledRejectedCount", "InstalledPendingRebootCount")
    rows = bench.client("ssm").describe_instance_patch_states(InstanceIds=list(ids))["InstancePatchStates"]
    clean = {row["InstanceId"] for row in rows if not any(row.get(name) for name in wrong)}
    return {host: Said(done=host in clean, at=bench.time.now) for host in ids}


def _chunks(items: Sequence[HostId], size: int) -> Iterator[Sequence[HostId]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


WAYS: dict[str, Callable[[Bench], tuple[dict[HostId, Said], list[Ended]]]] = {
    "ours": ours,
    "stock": lambda bench: stock(bench, scans=True),
    "stock-quick": lambda bench: stock(bench, scans=True, delay=5),
    "stock-install-only": lambda bench: stock(bench, scans=False),
    "stock-deferrable": lambda bench: stock(bench, scans=False, deferrable=True),
}


# --- what came of it ------------------------------------------------------------------------------------------------------


def measure(way: str, hosts: int, *, odd: bool) -> Measured:
    """Patch a fresh fleet that way."""
    began = time.monotonic()
    with awsim(world(hosts, odd=odd)) as url:
        bench = Bench(url)
        good = bench.compliant()
        said, ended = WAYS[way](bench)
        counted = dict(bench.counted)
        wall = (max(one.ended for one in ended) - min(one.began for one in ended)).total_seconds()
        bench.time.run(asyncio.sleep(3 * 3600))  # what was begun comes to its end, whoever still waits for it
        journal = bench.journal()
        fleet = bench.hosts()
        return Measured(
            way=way,
            odd=odd,
            hosts=len(fleet),
            calls=counted,
            wall=wall,
            slot=sum(one.slot for one in ended),
            legs=sum(one.legs for one in ended),
            right=_right(said, journal, good, fleet),
            in_flight=json.loads(bench.control("journal/summary"))["max_in_flight"]["*"],
            installs=max(Counter(line["host"] for line in journal if _is(line, "command_begun", "Install")).values()),
            carried=sum(line["event"] == "command_begun" for line in journal),
            steps=_steps(journal, bench.requested(), fleet) if way == "ours" else None,
            real=time.monotonic() - began,
        )


def _is(line: Mapping[str, Any], event: str, operation: str) -> bool:
    return (line["event"], line["operation"]) == (event, operation)


def _right(said: Mapping[HostId, Said], journal: Sequence[Mapping[str, Any]], good: set[str], fleet: Sequence[HostId]) -> int:
    """Hosts that were said to be done and were by then, or were said not to be and never were.

    A host is done when an Install ended well on it and it has booted after that; or when nothing was missing.
    """
    installed: dict[str, datetime] = {}
    done: dict[str, datetime] = {}
    for line in journal:
        at = datetime.fromisoformat(line["at"])
        if line["event"] == "package_installed":
            installed[line["host"]] = at
        elif line["event"] == "reboot_ended" and line["host"] in installed:
            done[line["host"]] = at
    begun = {line["host"] for line in journal if _is(line, "command_begun", "Install")}
    failed = {line["host"] for line in journal if _is(line, "command_ended", "Install") and line["exit_code"]}
    right = 0
    for host in fleet:
        is_done = host in good or (host in begun and host in done and host not in failed)
        word = said[host]
        right += (word.done and is_done and (host in good or done[host] <= word.at)) or (not word.done and not is_done)
    return right


def _steps(journal: Sequence[Mapping[str, Any]], requested: Mapping[str, datetime], fleet: Sequence[HostId]) -> float:
    """The floor of the wall time: the Scan of all hosts, then wave after wave the slowest Install, reboot and Scan of it.

    Each host's time runs from AWS's acceptance of its command to its end on the host, so SSM's own ramp is in it; what we take
    between the steps is not.
    """
    took: dict[str, dict[str, list[float]]] = {"Scan": {}, "Install": {}, "Shell": {}}
    for line in journal:
        if line["event"] != "command_ended" or line["operation"] not in took:
            continue
        seconds = (datetime.fromisoformat(line["at"]) - requested[line["cause"]["command_id"]]).total_seconds()
        took[line["operation"]].setdefault(line["host"], []).append(seconds)
    first = max(times[0] for times in took["Scan"].values())
    order = sorted(fleet)
    waves = 0.0
    for wave in _chunks([HostId(host) for host in order if len(took["Scan"].get(host, ())) > 1], len(fleet) // WAVES):
        waves += max(took["Install"][host][0] for host in wave if host in took["Install"])
        waves += max((took["Shell"][host][0] for host in wave if host in took["Shell"]), default=0.0)
        waves += max(took["Scan"][host][1] for host in wave)
    return first + waves


@contextmanager
def awsim(text: str) -> Iterator[str]:
    """A simulator as a process of its own; its address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "world.yaml"
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "awsim", "--world", str(file), "--port", "0", "--speed", "0", "--seed", "1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own command line
        try:
            ready = process.stdout.readline() if process.stdout else ""
            if not ready.startswith("awsim ready: "):
                raise RuntimeError(f"awsim did not start: {ready!r}")
            yield ready.split()[2]
        finally:
            process.terminate()
            process.wait(timeout=60)


def main() -> None:
    """Measure one way and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("hosts", type=int)
    parser.add_argument("--odd", action="store_true", help="some hosts fail, some cannot be delivered to")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    measured = measure(options.way, options.hosts, odd=options.odd)
    print(json.dumps(dataclasses.asdict(measured)))


if __name__ == "__main__":
    main()
