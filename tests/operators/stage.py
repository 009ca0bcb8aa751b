"""A stage on a simulated AWS: hosts, ledger and executors, with the clock standing still until a test moves it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.config import Config

from patchwave.aws.gateway import Gateway
from patchwave.campaign.rollout import Done, Halt, HostRow, HostState, StageRules, StepKind, Wait
from patchwave.campaign.values import HostId, RunId, StageName
from patchwave.execution.executor import StageExecutor
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Lease, Run
from tests.domain.builders import CELL, the_rules
from tests.gateway.conftest import session_with_keys
from tests.simulator.conftest import AMAZON, Aws

RUN = RunId("weekly-linux/manual__2026-01-05")
STAGE = StageName("dev")
ONCE = Config(retries={"total_max_attempts": 1})
LOOK = 120.0

WORLD = f"name: stage{AMAZON}" + """\
fleets:
  - {name: web, account: "111111111111", region: eu-central-1, count: 3, template: amazon, tags: {PatchGroup: web}}
  - name: odd
    account: "111111111111"
    region: eu-central-1
    count: 5
    template: amazon
    tags: {PatchGroup: odd}
    exceptions:
      - {host: 1, agent: connection_lost}
      - {host: 2, state: stopped}
      - {host: 3, agent: not_registered}
      - {host: 4, install_fails: {exit_code: 1, times: 1}}
      - {host: 5, compliant: true}
"""


class Killed(BaseException):
    """The process is gone: no handler of the code under test may see it."""


class Watched:
    """Stands in front of an object and tells `at` of each call of a method that is named, before or after it."""

    def __init__(self, inner: Any, names: frozenset[str], *, before: Callable[[str], None] = lambda _: None,
                 after: Callable[[str], None] = lambda _: None) -> None:  # fmt: skip
        self._inner, self._names, self._before, self._after = inner, names, before, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._before(name)
            answer = found(*args, **kwargs)
            self._after(name)
            return answer

        return call


class Stage:
    """One stage of some hosts of the world, and whoever carries it out."""

    def __init__(self, aws: Aws, *fleets: str, places: int = 9, error_budget: int = 9, **rules: Any) -> None:
        self.aws = aws
        self.ledger = MemoryLedger()
        self.gateway = Gateway(session_with_keys, endpoint_url=aws.url, reads=ONCE)
        self.hosts = [HostId(host) for fleet in fleets for host in aws.hosts(fleet)]
        self.ledger.open_run(self.a_run(), [STAGE])
        rows = [
            HostRow(
                run=RUN, stage=STAGE, host=host, cell=CELL, name=host, platform="Amazon Linux 2023", domains=("stage:dev",),
                state=HostState.PLANNED, since=self.now,
            )
            for host in self.hosts
        ]  # fmt: skip
        self.rules: StageRules = the_rules(rows, places=places, run=RUN, stage=STAGE, error_budget=error_budget, **rules)
        self.ledger.add_hosts(self.lease("begin"), rows)

    def a_run(self) -> Run:
        return Run(
            id=RUN, campaign="weekly-linux", dag_id="weekly-linux", dag_run_id="manual__2026-01-05", began_at=self.now,
            definition={}, definition_digest="d" * 64, policy={}, params={},
        )  # fmt: skip

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.aws.control("clock")["epoch"], UTC)

    def lease(self, holder: str) -> Lease:
        return self.ledger.acquire(RUN, STAGE, holder, at=self.now)

    def executor(self, holder: str, *, ledger: Any = None, gateway: Any = None, **changes: Any) -> StageExecutor:
        """One process' executor, under a lease of its own."""
        return StageExecutor(
            ledger=ledger or self.ledger, gateway=gateway or self.gateway, lease=self.lease(holder), rules=self.rules,
            campaign="weekly-linux", now=lambda: self.now, log=logging.getLogger("stage"), **changes,
        )  # fmt: skip

    def to_the_end(self, executor: StageExecutor, *, waits: list[Wait] | None = None) -> Done | Halt:
        """Advance, and let time pass at each wait."""
        for _ in range(200):
            decision = executor.advance()
            if not isinstance(decision, Wait):
                return decision
            if waits is not None:
                waits.append(decision)
            self.aws.advance(LOOK)
        raise AssertionError(f"no end: {decision}")

    def until_step(self, executor: StageExecutor, step: StepKind) -> Wait:
        """Advance until that step has been sent to somebody."""
        for _ in range(50):
            decision = executor.advance()
            assert isinstance(decision, Wait), decision
            if any(row.step is step for row in self.ledger.dispatches(RUN, STAGE)):
                return decision
            self.aws.advance(LOOK)
        raise AssertionError(f"no {step.value} was ever sent")

    def until_over(self, step: StepKind) -> None:
        """Let time pass until AWS calls every command of that step complete; nobody of ours looks meanwhile."""
        ids = [str(row.command) for row in self.ledger.dispatches(RUN, STAGE) if row.step is step and row.command]
        for _ in range(50):
            if all(one.complete for one in self.gateway.commands(CELL, ids).values()):
                return
            self.aws.advance(LOOK)
        raise AssertionError(f"the {step.value} has no end")

    @property
    def states(self) -> dict[HostId, HostState]:
        rows = {row.host: row.state for row in self.ledger.hosts(RUN, STAGE)}
        return {host: rows[host] for host in self.hosts}

    def begun(self, operation: str) -> dict[str, int]:
        """How many commands of an operation really began on each host, by the world's own record."""
        counted = dict.fromkeys(self.hosts, 0)
        for line in self.aws.journal():
            if line["event"] == "command_begun" and line.get("operation") == operation:
                counted[line["host"]] += 1
        return counted

    def reboots(self) -> dict[str, int]:
        """How often each host really rebooted."""
        return {host: self.aws.events(host).count("reboot_begun") for host in self.hosts}
