"""A rollback against a simulated AWS: hosts get their root volume of before, judged by what really happened to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from patchwave.campaign import plan as plans
from patchwave.campaign import rollback
from patchwave.campaign.plan import Plan, Restriction
from patchwave.campaign.rollback import STAGE as BACK
from patchwave.campaign.rollback import Chosen, Earlier
from patchwave.campaign.rollout import Done, Halt, HostState, Wait
from patchwave.campaign.snapshots import Way
from patchwave.campaign.values import HostId, RunId
from patchwave.execution.rolling_back import RollbackExecutor
from patchwave.ledger.store import Lease, Run
from tests.domain.builders import CELL, a_plan
from tests.operators.stage import LOOK, RUN, STAGE, Killed, Watched
from tests.operators.test_snapshots_before import Saving
from tests.simulator.conftest import Aws

S = HostState
AGAIN = RunId("rollback/manual__2026-01-05")


class GoingBack(Saving):
    """A stage that was patched with snapshots, and the rollback of it."""

    plan: Plan
    picked: tuple[Chosen, ...]

    def patched(self, **rules: Any) -> GoingBack:
        self.to_the_end(self.saving("try-1", **rules))
        return self

    def planned(self, *, only: tuple[str, ...] = (), places: int = 2, budget: int = 9) -> GoingBack:
        """The plan of a rollback, and its run in the ledger."""
        hosts = {one.id: one for one in self.gateway.hosts(CELL, self.hosts)}
        rows = self.ledger.hosts(RUN, STAGE)
        first = a_plan(list(hosts.values()), run=RUN)
        dev = first.stage("dev")
        dev = replace(
            dev, places={"stage:dev": places}, stage_places=places, error_budget=budget, approval_required=True,
            approvers=("olga",),
        )  # fmt: skip
        sent = {host for one in self.ledger.dispatches(RUN, STAGE) if one.step.value == "install" for host in one.hosts}
        plan = replace(first, stages=(dev, *first.stages[1:]))
        earlier = Earlier(run=RUN, plan=plan, rows=rows, touched=frozenset(sent), saved=self.taken)
        states = {one.token: one.state for one in self.gateway.snapshots_of(CELL, RUN).values()}
        self.picked = rollback.chosen(earlier, hosts, states, stages=(), only=only)
        self.plan = rollback.build(
            earlier, self.picked, hosts, run=AGAIN, now=self.now, dry_run=False, requested_by="uma", restriction=Restriction(),
            otherwise=(),
        )  # fmt: skip
        self.ledger.open_run(
            Run(id=AGAIN, campaign="rollback", dag_id="rollback", dag_run_id="manual__2026-01-05", began_at=self.now,
                definition={}, definition_digest="d" * 64, policy={}, params={}),
            [BACK],
        )  # fmt: skip
        self.ledger.add_hosts(self.back_lease("begin"), rollback.rows(self.plan, {row.host: row for row in rows}, now=self.now))
        return self

    def back_lease(self, holder: str) -> Lease:
        return self.ledger.acquire(AGAIN, BACK, holder, at=self.now)

    def going_back(self, holder: str, *, gateway: Any = None) -> RollbackExecutor:
        stage = self.plan.stage(BACK)
        assert stage.ways_back is not None
        return RollbackExecutor(
            ledger=self.ledger, gateway=gateway or self.gateway, lease=self.back_lease(holder),
            rules=plans.rules(self.plan, stage), campaign="rollback", now=lambda: self.now, log=logging.getLogger("stage"),
            earlier=RUN, ways={one.host: one for one in stage.ways_back.hosts},
            down=frozenset(one.id for one in stage.hosts if one.note),
        )  # fmt: skip

    def to_the_end_back(self, executor: RollbackExecutor, *, waits: list[Wait] | None = None) -> Done | Halt:
        for _ in range(200):
            decision = executor.advance()
            if not isinstance(decision, Wait):
                return decision
            if waits is not None:
                waits.append(decision)
            self.aws.advance(LOOK)
        raise AssertionError(f"no end: {decision}")

    @property
    def back_states(self) -> Mapping[HostId, HostState]:
        return {row.host: row.state for row in self.ledger.hosts(AGAIN, BACK)}

    def packages(self) -> dict[str, Any]:
        """What is really on the hosts' disks."""
        world = self.aws.simulator.world
        return {one.id: dict(one.levels) for one in world.all_hosts() if one.id in self.hosts}

    def replaced(self) -> list[str]:
        """Hosts whose root volume was really replaced, in that order."""
        return [line["host"] for line in self.aws.journal() if line["event"] == "root_volume_replaced"]


def test_hosts_are_what_they_were_before_they_were_patched(aws: Aws) -> None:
    """By the world's own word: the same packages are missing again; once each, two at a time."""
    stage = GoingBack(aws, "web")
    before = stage.packages()
    stage.patched().planned()
    assert stage.packages() != before
    waits: list[Wait] = []
    assert stage.to_the_end_back(stage.going_back("back-1"), waits=waits) == Done(classes={S.ROLLED_BACK: 3})
    assert stage.packages() == before
    assert sorted(stage.replaced()) == sorted(stage.hosts)
    assert all(row.missing_after == row.missing_before for row in stage.ledger.hosts(AGAIN, BACK))
    assert any("get their root volume back" in wait.reason for wait in waits)


def test_a_host_that_never_came_back_from_its_reboot_comes_back_from_its_snapshot(aws: Aws) -> None:
    """Bricked by the patch: unreachable in that run, first in the rollback, and it serves again."""
    stage = GoingBack(aws, "web")
    before = stage.packages()
    bricked = stage.hosts[1]
    aws.control("faults", {"kind": "reboot_never_returns", "host": bricked, "times": 1})
    stage.patched()
    assert stage.states[bricked] is S.UNREACHABLE
    stage.planned(only=(bricked,), places=1)
    assert stage.plan.stage(BACK).hosts[0].note
    assert stage.to_the_end_back(stage.going_back("back-1")) == Done(classes={S.ROLLED_BACK: 1})
    assert stage.replaced() == [bricked]
    assert stage.packages()[bricked] == before[bricked]
    (host,) = stage.gateway.hosts(CELL, [bricked])
    assert host.ping.value == "Online"


def test_never_more_hosts_are_away_than_the_stage_had_places(aws: Aws) -> None:
    """One place: the next root volume is replaced when the host before is proven."""
    stage = GoingBack(aws, "web").patched().planned(places=1)
    away, most = set(), 0
    mark = len(aws.journal())
    stage.to_the_end_back(stage.going_back("back-1"))
    for line in aws.journal()[mark:]:
        if line["event"] == "root_volume_replaced":
            away.add(line["host"])
        elif line["event"] == "in_service":
            away.discard(line["host"])
        most = max(most, len(away))
    assert most == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_resumes_after_a_kill_replaces_none_twice(aws: Aws, moment: str) -> None:
    """Killed between the intent and the call, or between the call and the note of it: the token names the same task."""
    stage = GoingBack(aws, "web").patched().planned()

    def kill(_: str) -> None:
        raise Killed

    gateway = Watched(stage.gateway, frozenset({"replace_root_volume"}), **{moment: kill})
    with pytest.raises(Killed):
        stage.to_the_end_back(stage.going_back("back-1", gateway=gateway))
    assert stage.to_the_end_back(stage.going_back("back-2")) == Done(classes={S.ROLLED_BACK: 3})
    assert sorted(stage.replaced()) == sorted(stage.hosts)


def test_a_lost_answer_replaces_none_twice(aws: Aws) -> None:
    """The same call is made again under the same token."""
    stage = GoingBack(aws, "web").patched().planned()
    aws.control("faults", {"kind": "lost_answer", "service": "ec2", "operation": "CreateReplaceRootVolumeTask", "times": 4})
    assert stage.to_the_end_back(stage.going_back("back-1")) == Done(classes={S.ROLLED_BACK: 3})
    assert sorted(stage.replaced()) == sorted(stage.hosts)


def test_a_host_whose_agent_stays_silent_is_not_called_rolled_back(aws: Aws) -> None:
    """EC2 calls its volume replaced, and that proves nothing: the run ends in a halt that names it."""
    stage = GoingBack(aws, "web").patched().planned()
    silent = stage.hosts[0]
    aws.control("faults", {"kind": "reboot_never_returns", "host": silent})
    end = stage.to_the_end_back(stage.going_back("back-1"))
    assert isinstance(end, Halt)
    assert end.rule == "every host comes back"
    assert end.hosts == (silent,)
    assert stage.back_states == {**dict.fromkeys(stage.hosts, S.ROLLED_BACK), silent: S.UNREACHABLE}
    assert "has not been heard of" in end.advice


def test_a_snapshot_that_is_gone_fails_its_host_and_touches_nothing(aws: Aws) -> None:
    """Deleted between the approval and the turn of the host."""
    stage = GoingBack(aws, "web").patched().planned(budget=0)
    for one in stage.taken.values():
        stage.gateway.delete_snapshot(CELL, one.id)
    end = stage.to_the_end_back(stage.going_back("back-1"))
    assert isinstance(end, Halt)
    assert end.rule == "error budget"
    assert stage.replaced() == []


def test_a_refused_replacement_fails_its_host(aws: Aws) -> None:
    """And the others go on within the error budget; the end is no success."""
    stage = GoingBack(aws, "web").patched().planned()
    fault = {"kind": "error", "service": "ec2", "operation": "CreateReplaceRootVolumeTask", "times": 1, "status": 400,
             "code": "IncorrectInstanceState"}  # fmt: skip
    aws.control("faults", fault)
    end = stage.to_the_end_back(stage.going_back("back-1"))
    assert isinstance(end, Halt)
    assert len(stage.replaced()) == 2
    assert sorted(stage.back_states.values()) == [S.FAILED, S.ROLLED_BACK, S.ROLLED_BACK]


def test_the_plan_says_of_everybody_why_and_what_to_do(aws: Aws) -> None:
    """Who has no way back is excluded, with what a person can do; a compliant host has nothing to take back."""
    stage = GoingBack(aws, "web", "odd").patched()
    hosts = stage.hosts
    stage.planned(only=tuple(hosts))
    ways = {one.row.host: one.way for one in stage.picked}
    assert [ways[host].way for host in hosts[:3]] == [Way.ROOT_VOLUME] * 3
    assert ways[hosts[-1]].way is Way.NONE
    assert "installed nothing" in ways[hosts[-1]].why
    assert {one.host for one in stage.plan.exclusions} == {host for host in hosts if ways[host].way is Way.NONE}
    text = rollback.markdown(stage.plan)
    assert all(host in text for host in hosts)
    assert stage.taken[hosts[0]].id in text
    assert plans.from_json(plans.to_json(stage.plan)) == stage.plan


def test_after_a_kill_nothing_further_is_begun_and_what_goes_on_is_named(aws: Aws) -> None:
    """EC2 lets nobody stop a replacement: the stop says so."""
    stage = GoingBack(aws, "web").patched().planned(places=1)
    assert isinstance(stage.going_back("back-1").advance(), Wait)
    stopped = stage.going_back("stop of back-1").stop(looks=1, pause=lambda: None)
    assert len(stopped.going) == 1
    assert "which EC2 lets nobody stop" in str(stopped)
    aws.advance(timedelta(minutes=30).total_seconds())
    assert len(stage.replaced()) == 1
