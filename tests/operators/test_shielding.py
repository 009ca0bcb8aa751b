"""Hosts of an Auto Scaling group that only reboot stay in it, against a simulated AWS; what is suspended is always resumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from patchwave.campaign.rollout import Done, HostState, StepKind, Wait
from patchwave.execution.shielding import RESUMED, SUSPENDING
from tests.domain.builders import CELL
from tests.operators.stage import RUN, Killed, Watched
from tests.operators.test_surroundings import Around
from tests.simulator.conftest import AMAZON, Aws

S = HostState

WORLD = f"name: shield{AMAZON}".replace("reboot: [90, 90]", "reboot: [1200, 1200]") + """\
fleets:
  - name: web
    account: "111111111111"
    region: eu-central-1
    count: 4
    zones: 1
    template: amazon
    tags: {PatchGroup: web}
    auto_scaling_group: {name: web, min: 1, desired: 4, max: 9, health_check: EC2}
    target_group: {name: shop, deregistration_delay: 10}
"""
"""A reboot of 20 minutes: longer than a group lets status checks fail."""


@pytest.fixture
def stage(start: Callable[..., Aws]) -> Around:
    return Around(start(WORLD), "web")


def suspended(stage: Around) -> set[str]:
    answer = stage.aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["web"])
    return {one["ProcessName"] for one in answer["AutoScalingGroups"][0]["SuspendedProcesses"]}


def records(stage: Around, kind: str) -> list[dict[str, Any]]:
    return [dict(entry.data) for entry in stage.ledger.journal(RUN) if entry.kind == kind]


def test_a_host_that_only_reboots_is_not_replaced(stage: Around) -> None:
    """Its status checks fail for twenty minutes; the same instances are there, patched, and their group judges again."""
    before = set(stage.aws.hosts("web"))
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.REBOOT)
    assert suspended(stage) == {"HealthCheck", "ReplaceUnhealthy"}
    assert stage.to_the_end(executor) == Done(classes={S.PATCHED: 4})
    assert set(stage.aws.hosts("web")) == before
    assert suspended(stage) == set()


def test_nothing_is_suspended_before_the_first_reboot(stage: Around) -> None:
    """An instance that dies of its own while others are scanned and patched is replaced as ever."""
    stage.until_step(stage.executor("try-1"), StepKind.INSTALL)
    assert suspended(stage) == set()
    assert not records(stage, SUSPENDING)


def test_between_two_waves_the_group_judges_its_hosts(stage: Around) -> None:
    """Two places, four hosts: each wave's reboots are shielded by themselves."""
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={S.PATCHED: 4})
    held, freed = records(stage, SUSPENDING), records(stage, RESUMED)
    assert held == freed
    assert held == [{"stage": "dev", "cell": str(CELL), "group": "web", "processes": ["HealthCheck", "ReplaceUnhealthy"]}] * 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_is_killed_over_it_has_a_successor_that_resumes(stage: Around, moment: str) -> None:
    """What was to be suspended is written down before the call."""

    def kill(_: str) -> None:
        raise Killed

    first = stage.executor("try-1")
    stage.until_step(first, StepKind.INSTALL)
    gateway: Any = Watched(stage.gateway, frozenset({"suspend_processes"}), **{moment: kill})
    with pytest.raises(Killed):
        stage.to_the_end(stage.executor("try-2", gateway=gateway))
    assert bool(suspended(stage)) is (moment == "after")
    assert stage.to_the_end(stage.executor("try-3")) == Done(classes={S.PATCHED: 4})
    assert suspended(stage) == set()


def test_a_stage_that_is_stopped_resumes_what_it_had_suspended(stage: Around) -> None:
    """Kill means stop: nobody of ours comes after that."""
    stage.until_step(stage.executor("try-1"), StepKind.REBOOT)
    assert suspended(stage)
    stage.executor("stopper").stop(looks=3, pause=lambda: stage.aws.advance(30))
    assert suspended(stage) == set()


def test_what_somebody_else_has_suspended_stays_so(stage: Around) -> None:
    """Only what was running before we came is resumed by us."""
    theirs = ["ReplaceUnhealthy", "AZRebalance"]
    stage.aws.client("autoscaling").suspend_processes(AutoScalingGroupName="web", ScalingProcesses=theirs)
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={S.PATCHED: 4})
    assert suspended(stage) == set(theirs)
    assert all(row["processes"] == ["HealthCheck"] for row in records(stage, SUSPENDING))


def test_a_stage_ends_only_when_its_rebooted_hosts_serve_again(stage: Around) -> None:
    """A load balancer that calls a host unhealthy for a while would have it replaced the moment its group looks again."""
    ill = True
    groups = stage.gateway.target_groups

    def sick(*args: Any) -> Any:
        found = groups(*args)
        return tuple(type(one)(domain=one.domain, members=one.members, unhealthy=one.members) for one in found) if ill else found

    executor = stage.executor("try-1")
    waits: list[Wait] = []
    stage.until_step(executor, StepKind.VERIFY)
    stage.gateway.target_groups = sick  # type: ignore[method-assign]
    for _ in range(60):
        decision = executor.advance()
        if not isinstance(decision, Wait):
            break
        waits.append(decision)
        if "stay suspended until" in decision.reason:
            assert suspended(stage)
            ill = False
        stage.aws.advance(60)
    assert any("Auto Scaling group web stay suspended until" in wait.reason for wait in waits)
    assert decision == Done(classes={S.PATCHED: 4})
    assert suspended(stage) == set()
