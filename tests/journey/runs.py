"""What do people do during a run, and how does a test wait for what comes of it? Steps over Airflow's REST API.

Nothing here sleeps for a fixed time: `FollowedRun.until` polls for a condition, and whoever waits in vain gets a picture of
the run (`FollowedRun.picture`). What the hosts went through is `judge`'s question.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx

from patchwave.campaign import audit
from patchwave.campaign.audit import Broken
from patchwave.campaign.errors import Transient
from patchwave.campaign.folders import run_folder
from patchwave.campaign.values import RunId
from patchwave.cli import check
from patchwave.cli.environment import REPOSITORY
from patchwave.cli.gates import Gate, Gates
from patchwave.cli.rest import Airflow, Refused, Unanswered
from patchwave.cli.stack import Stack
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.store import Ledger
from tests.journey import judge

Found = TypeVar("Found")

POLL = 1.0
PATIENCE = 720.0
"""Seconds until a condition counts as never coming true; some wait for a window that is 480 of them away."""

RUN = "journey"
POLICIES = REPOSITORY / "include" / "policies"


def policies_at_any_time(folder: Path) -> Path:
    """The shipped policies, but a kernel needs no window: most journeys' stages have none. Made in `folder`."""
    folder.mkdir(parents=True)
    for file in POLICIES.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert "  window: required" in text
        (folder / file.name).write_text(text.replace("  window: required", "  window: not_required"), encoding="utf-8")
    return folder


class NeverCame(AssertionError):
    """A condition did not come true in time, with a picture of the run."""


def until(condition: Callable[[], Found], what: str, *, picture: Callable[[], str], patience: float = PATIENCE) -> Found:
    """Poll until `condition` is true.

    Returns:
        What it returned.

    Raises:
        NeverCame: it stayed false.
    """
    end = time.monotonic() + patience
    last = ""
    while True:
        try:
            found = condition()
            if found:
                return found
        except (Transient, KeyError) as problem:  # KeyError: the ledger does not have it yet
            last = f" (the last answer: {problem!r})"
        if time.monotonic() > end:
            raise NeverCame(f"{what}: not within {patience:.0f} s{last}\n{picture()}")
        time.sleep(POLL)


@dataclass(kw_only=True)
class Stage:
    """Where all journeys happen: one Airflow, one awsim, one folder of campaign files, one ledger.

    Attributes:
        campaigns: the folder that Airflow reads; a test may edit its files.
        users: REST clients by login name.
    """

    stack: Stack
    campaigns: Path
    users: Mapping[str, Airflow] = field(init=False)

    def __post_init__(self) -> None:
        self.users = {name: self.stack.as_user(name) for name in ("ana", "olga", "uma", "vic")}

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, read where the tasks write it."""
        return ledger_at(self.stack.ledger_url)

    def dag_ready(self, dag: str) -> None:
        """Wait until Airflow knows the DAG and does not call it stale."""
        until(lambda: self._fresh(dag), f"DAG {dag} in Airflow", picture=self.picture)

    def _fresh(self, dag: str) -> bool:
        known = self.users["ana"].dag(dag)
        return known is not None and not known["is_stale"]

    def follow(self, campaign: str, *, region: str) -> FollowedRun:
        """The run of that campaign, not triggered yet."""
        return FollowedRun(stage=self, dag=campaign, region=region)

    def picture(self) -> str:
        """What the processes printed last."""
        ends = "\n".join(f"  {service.name}:\n{_short(service.last_lines(8))}" for service in self.stack.services)
        return f"import errors: {self.users['ana'].import_errors()}\nthe ends of the services' logs:\n{ends}"


@dataclass(kw_only=True)
class FollowedRun:
    """One run, as people and tests see it.

    Attributes:
        region: the cell that is this campaign's own.
        seen: what people saw in the middle of it, for the tests that judge afterwards.
    """

    stage: Stage
    dag: str
    region: str
    run: str = RUN
    seen: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.look_anew()

    def look_anew(self) -> None:
        """Forget which questions were seen: one that is put again in the same task is as young as a new one."""
        self.gates = Gates(dag=self.dag, run=self.run, users={"olga": self.user("olga")})

    @property
    def id(self) -> RunId:
        """Its name in the ledger."""
        return RunId(f"{self.dag}/{self.run}")

    @property
    def ledger(self) -> Ledger:
        """The ledger of all runs."""
        return self.stage.ledger

    def user(self, name: str) -> Airflow:
        """REST as that user."""
        return self.stage.users[name]

    # steps --------------------------------------------------------------------------------------------------------------
    def begin(self, **conf: Any) -> None:
        """ana unpauses the DAG and triggers the run."""
        self.stage.dag_ready(self.dag)
        self.user("ana").pause(self.dag, paused=False)
        self.user("ana").trigger(self.dag, self.run, conf)

    def until(self, condition: Callable[[], Found], what: str, *, patience: float = PATIENCE) -> Found:
        """Wait, with a picture of this run if it is in vain; a run that has ended meanwhile does not wait to the end."""
        return until(condition, f"{self.id}: {what}", picture=self.picture, patience=patience)

    def gate(self, stage: str) -> Gate:
        """Wait until the stage's gate asks, and until an answer to it is safe."""
        return self.question(f"{stage}.approve")

    def question(self, task: str) -> Gate:
        """Wait until that task of a gate asks, and until an answer to it is safe."""
        return self.until(partial(self.asks, task), f"{task} asks")  # type: ignore[return-value]

    def asks(self, task: str) -> Gate | None:
        """The question of that task, if it asks and an answer to it is safe.

        Raises:
            NeverCame: the run has ended, so it will not.
        """
        if self.state in ("success", "failed"):
            raise NeverCame(f"{self.id} ended as {self.state} before {task} asked\n{self.picture()}")
        return next((one for one in self.gates.waiting() if one.task == task and self.gates.settled(one)), None)

    def say(
        self, task: str, option: str, *, user: str, then: Callable[[], Found | None], what: str, **inputs: Any
    ) -> tuple[Gate, Found]:
        """Answer that question as somebody over REST.

        Args:
            inputs: fields of the form.
        """
        return self.put(
            task, lambda: self.user(user).answer(self.dag, self.run, task, option, inputs=inputs), then=then, what=what
        )

    def put(
        self, task: str, answer: Callable[[], object], *, then: Callable[[], Found | None], what: str
    ) -> tuple[Gate, Found]:
        """Answer that question, and again if Airflow lost the answer before anything came of it: it tries a task anew whose
        worker it missed, and that one has not heard of the answer.

        Args:
            answer: gives it.
            then: what comes of the answer.
            what: that in words.

        Returns:
            The question that was answered, and what came of it.
        """
        while True:
            gate = self.question(task)
            answer()
            came: list[Found] = []

            def became(gate: Gate = gate, came: list[Found] = came) -> bool:
                if found := then():
                    came.append(found)
                return bool(came) or self._asks_anew(gate)

            self.until(became, what)
            if came:
                return gate, came[0]

    def waits_for(self, words: str) -> bool:
        """Whether the ledger gives a reason with these words for a wait that lasts."""
        return any(words in one.reason for one in self.ledger.waits(self.id, open_only=True))

    def answer(self, stage: str, *, approve: bool) -> Gate:
        """olga answers the stage's gate, and again if Airflow lost her answer before it stood in the ledger.

        Returns:
            The gate that was answered.
        """

        while True:
            gate = self.gate(stage)
            self.gates.answer(gate, approve=approve)
            became = partial(self._what_became_of, gate, stage)
            if self.until(became, f"the answer to the gate of {stage} is in the ledger") == "decided":
                return gate

    def _what_became_of(self, gate: Gate, stage: str) -> str:
        if any(decided == stage for decided, _, _ in self.decisions):
            return "decided"
        return "asks again" if self._asks_anew(gate) else ""

    def _asks_anew(self, gate: Gate) -> bool:
        """Whether another try of that task asks."""
        return any(one.task == gate.task and one.attempt != gate.attempt for one in self.gates.waiting())

    def refused(self, stage: str, option: str, *, user: str, task: str = "") -> int:
        """Answer as somebody whom Airflow should refuse; the HTTP status of the refusal, 200 if there is none."""
        try:
            self.user(user).answer(self.dag, self.run, task or f"{stage}.approve", option)
        except Refused as refusal:
            return refusal.status
        return 200

    def client(self, service: str) -> Any:
        """AWS's, in the region of the journey."""
        return boto3.client(
            service, region_name=self.region, endpoint_url=self.stage.stack.awsim.address, aws_access_key_id="awsim",
            aws_secret_access_key="awsim",
        )  # fmt: skip

    def terminate(self, name: str) -> str:
        """Somebody terminates the host that the world file calls ``fleet/number``; its instance id, when it is gone."""
        host = self.host(name)
        self.client("ec2").terminate_instances(InstanceIds=[host])
        self.until(lambda: host not in self.alive, f"{name} is gone")
        return host

    def clear(self, task: str, *, downstream: bool) -> None:
        """Clear a task as the UI does."""
        self.user("ana").post(
            f"/dags/{self.dag}/clearTaskInstances",
            {
                "dry_run": False, "task_ids": [task], "dag_run_id": self.run, "only_failed": False,
                "include_downstream": downstream, "reset_dag_runs": True,
            },
        )  # fmt: skip

    # what came of it ----------------------------------------------------------------------------------------------------
    @property
    def state(self) -> str:
        """The run's, in Airflow's word."""
        return str(self.user("ana").run(self.dag, self.run)["state"])

    def ended(self) -> str:
        """Wait until the run is over; its state."""
        return self.until(lambda: self.state if self.state in ("success", "failed") else "", "the run ends")

    @property
    def tasks(self) -> Mapping[str, str]:
        """States of its tasks."""
        return {str(one["task_id"]): str(one["state"]) for one in self.user("ana").tasks(self.dag, self.run)}

    @property
    def journal(self) -> judge.Journal:
        """What happened to the journey's hosts until now."""
        return judge.read(self.stage.stack.awsim.journal(), region=self.region)

    @property
    def rules_broken(self) -> Sequence[Broken]:
        """What the rule checker says of it; nothing of a run that never began, which is for the journey's own tests to judge."""
        try:
            self.ledger.run(self.id)
        except KeyError:
            return ()
        return audit.broken(check.trace_of(self.ledger, self.id, check.lines_of(self.stage.stack.awsim.journal())))

    def hosts(self, fleet: str = "") -> dict[str, Mapping[str, Any]]:
        """awsim's hosts of the region (of a fleet), by instance id."""
        found = self.stage.stack.awsim.get("/hosts")["hosts"]
        return {
            str(one["host"]): one
            for one in found
            if one["region"] == self.region and (not fleet or str(one["name"]).rpartition("/")[0] == fleet)
        }

    @property
    def alive(self) -> frozenset[str]:
        """Instances of the region that run."""
        return frozenset(host for host, facts in self.hosts().items() if str(facts.get("state")) == "running")

    def host(self, name: str) -> str:
        """Instance id of the host that the world file calls ``fleet/number``."""
        return next(host for host, facts in self.hosts().items() if _same(str(facts["name"]), name))

    @property
    def planned(self) -> Mapping[str, frozenset[str]]:
        """The plan's hosts by stage, as the ledger has it."""
        plan = self.ledger.document(self.id, "plan")
        return {one["name"]: frozenset(host["id"] for host in one["hosts"]) for one in plan["stages"]}

    @property
    def classes(self) -> Mapping[str, str]:
        """Each host's state in the ledger."""
        return {str(row.host): row.state.value for row in self.ledger.hosts(self.id)}

    @property
    def decisions(self) -> Sequence[tuple[str, str, str]]:
        """Stage, verdict and author of each decision in the ledger."""
        return [(str(one.stage), one.verdict.value, one.author) for one in self.ledger.decisions(self.id)]

    @property
    def folder(self) -> Path:
        """Where its report lies."""
        return run_folder(self.stage.stack.places.runs, self.id)

    @property
    def report(self) -> Mapping[str, Any]:
        """Its report, from the file."""
        return dict(json.loads((self.folder / "report.json").read_text()))

    @property
    def rows(self) -> list[dict[str, str]]:
        """Its hosts, from the CSV."""
        with (self.folder / "hosts.csv").open(newline="") as lines:
            return list(csv.DictReader(lines))

    def page(self) -> str:
        """The run's ledger page in Airflow's UI, as olga sees it."""
        user = self.user("olga")
        with httpx.Client(base_url=user.address, trust_env=False, timeout=30) as http:
            answer = http.get(f"/patchwave/runs/{self.dag}/{self.run}", headers=dict(user._authorization(fresh=False)))
            return answer.raise_for_status().text

    # for whoever has to find out why ------------------------------------------------------------------------------------
    def picture(self) -> str:
        """Task states, the end of the failed tasks' logs, open waits, the ends of the services' logs."""
        try:
            return "\n".join([f"--- {self.id}", *self._tasks_told(), *self._ledger_told(), self.stage.picture()])
        except (Unanswered, Refused, KeyError) as problem:
            return f"--- {self.id}: no picture: {problem!r}\n{self.stage.picture()}"

    def _tasks_told(self) -> list[str]:
        ana = self.user("ana")
        told = [f"run: {self.state}"]
        for task in ana.tasks(self.dag, self.run):
            told.append(f"  {task['task_id']}: {task['state']}, try {task['try_number']}")
            if task["state"] in ("failed", "up_for_retry", "running"):
                log = ana.log(self.dag, self.run, task["task_id"], task["try_number"])
                told.extend(f"      {line}" for line in _log_lines(log))
        return told

    def _ledger_told(self) -> list[str]:
        stages = [f"  stage {row.stage}: {row.state.value} {row.reason}" for row in self.ledger.stages(self.id)]
        waits = [f"  waits: {one.subject}: {one.reason}" for one in self.ledger.waits(self.id, open_only=True)]
        return ["ledger:", *stages, *waits, f"  decisions: {self.decisions}", f"  hosts: {dict(self.classes)}"]


def _short(lines: str, width: int = 240) -> str:
    return "\n".join(line if len(line) <= width else f"{line[:width]} ..." for line in lines.splitlines())


def _same(name: str, wanted: str) -> bool:
    fleet, _, number = name.rpartition("/")
    wanted_fleet, _, wanted_number = wanted.rpartition("/")
    return fleet == wanted_fleet and int(number) == int(wanted_number)


def _log_lines(said: Any, count: int = 20) -> list[str]:
    lines = said.get("content", said) if isinstance(said, Mapping) else said
    if not isinstance(lines, list):
        return str(lines).splitlines()[-count:]
    return [str(one.get("event", one)) if isinstance(one, Mapping) else str(one) for one in lines][-count:]
