"""Does a stage call what a dry run says it would? The forecast beside what the executor really asks of a simulated AWS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from patchwave.campaign import calls, snapshots
from patchwave.campaign.calls import HEALTH, LOOK, SAVE
from patchwave.campaign.rollout import Done, StepKind
from patchwave.campaign.snapshots import Before, Snapshots
from patchwave.campaign.values import HostId
from patchwave.execution.snapshots import SnapshotsBefore
from tests.domain.builders import CELL
from tests.domain.test_severity import STANDARD
from tests.operators.stage import STAGE
from tests.operators.test_surroundings import Around
from tests.simulator.conftest import AMAZON, Aws

WORLD = f"name: counted{AMAZON}" + """\
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
  - {name: many, account: "111111111111", region: eu-central-1, count: 120, zones: 1, template: amazon, tags: {PatchGroup: many}}
  - name: odd
    account: "111111111111"
    region: eu-central-1
    count: 6
    zones: 1
    template: amazon
    tags: {PatchGroup: odd}
    exceptions:
      - {host: 1, agent: connection_lost}
      - {host: 2, state: stopped}
      - {host: 3, compliant: true}
      - {host: 4, install_fails: {exit_code: 1, times: 1}}
"""
BEGUN_AND_BROUGHT_TO_ITS_END = (LOOK, *(step.value for step in StepKind))


@pytest.fixture
def planned(start: Callable[..., Aws]) -> Callable[[str], Around]:
    """`planned("web")`: a stage of these patch groups, half of each domain at once."""
    return lambda groups: Around(start(WORLD), groups)


def made(stage: Around) -> dict[str, int]:
    """What carrying it out takes."""
    stage.gateway.take_calls()
    assert isinstance(stage.to_the_end(stage.executor("try-1")), Done)
    return dict(stage.gateway.take_calls())


@pytest.mark.parametrize("groups", ["web", "many"])
def test_a_stage_calls_at_least_what_is_forecast_and_changes_exactly_that(planned: Callable[[str], Around], groups: str) -> None:
    """Every host needs a reboot here, and hosts of a wave end together; what is called beyond that are looks."""
    stage = planned(groups)
    forecast = calls.of(stage.plan).by_operation(stage=STAGE, steps=BEGUN_AND_BROUGHT_TO_ITS_END)
    really = made(stage)
    assert {one: really.get(one, 0) for one in calls.CHANGING} == {one: forecast.get(one, 0) for one in calls.CHANGING}
    assert {one: (count, really.get(one, 0)) for one, count in forecast.items() if really.get(one, 0) < count} == {}
    assert really.keys() - forecast.keys() <= {"ssm:ListCommands"}


def test_a_stage_that_must_install_no_kernel_asks_of_each_host_whether_one_would_come(planned: Callable[[str], Around]) -> None:
    """One call a host that asks for patches, after its Scan; here a kernel would come to all of them, and nothing is changed."""
    stage = planned("web")
    confined = calls.of(replace(stage.plan, kernel_waits=True)).by_operation(stage=STAGE, steps=(StepKind.SCAN.value,))
    stage.gateway.take_calls()
    stage.to_the_end(stage.executor("try-1", kernel=STANDARD.kernel))
    really = stage.gateway.take_calls()
    assert really["ssm:DescribeInstancePatches"] == confined["ssm:DescribeInstancePatches"] == 4
    assert really[calls.SEND] == confined[calls.SEND] == 1


def test_snapshots_are_as_many_as_are_forecast(planned: Callable[[str], Around]) -> None:
    """One a host that is patched, each before its Install."""
    stage = planned("web")
    rule = Snapshots(before=Before.IN_PLACE)
    ids = [host.id for host in stage.stage.hosts]
    disks = {one.host: one for one in stage.gateway.root_volumes(CELL, ids)}
    saving = replace(stage.stage, ways_back=snapshots.ways(ids, disks, rule))
    forecast = calls.of(replace(stage.plan, stages=(saving,))).by_operation(stage=STAGE, steps=(SAVE,))
    stage.gateway.take_calls()
    executor = stage.executor("try-1")
    before = SnapshotsBefore(ledger=stage.ledger, gateway=stage.gateway, lease=executor.lease, rule=rule, now=lambda: stage.now,
                             log=executor.log, settling=executor.settling)  # fmt: skip
    assert isinstance(stage.to_the_end(replace(executor, snapshots=before)), Done)
    really = stage.gateway.take_calls()
    assert really[calls.SNAPSHOT] == forecast[calls.SNAPSHOT] == 4
    assert {one: (count, really.get(one, 0)) for one, count in forecast.items() if really.get(one, 0) < count} == {}


def test_each_step_sends_as_many_commands_as_are_forecast_for_it(planned: Callable[[str], Around]) -> None:
    """A hundred and twenty hosts, half of them at once: three Scans before, and twice two of everything else."""
    stage = planned("many")
    found = calls.of(stage.plan)
    made(stage)
    for step in StepKind:
        sent = sum(row.step is step for row in stage.ledger.dispatches(stage.rules.run, STAGE))
        forecast = found.by_operation(stage=STAGE, steps=(step.value,))[calls.SEND]
        assert (step, sent) == (step, forecast) == (step, 3 if step is StepKind.SCAN else 4)


def test_a_host_that_does_not_answer_is_sent_nothing_and_was_not_counted(planned: Callable[[str], Around]) -> None:
    """It is looked at, as all are. A host that lacks nothing parts a wave, so that there may be more and smaller commands."""
    stage = planned("odd")
    found = calls.of(stage.plan)
    really = made(stage)
    scans = [row for row in stage.ledger.dispatches(stage.rules.run, STAGE) if row.step is StepKind.SCAN]
    assert len(scans) == found.by_operation(stage=STAGE, steps=(StepKind.SCAN.value,))[calls.SEND] == 1
    assert {host for row in scans for host in row.hosts} == {host.id for host in stage.stage.hosts if not host.note}
    assert {one for one in really if one in calls.CHANGING} == {calls.SEND}


def test_the_checks_of_a_stage_are_as_many_calls_as_are_forecast(planned: Callable[[str], Around]) -> None:
    """Health is asked once if all is well."""
    stage = planned("many")
    forecast = calls.of(stage.plan).by_operation(stage=STAGE, steps=(HEALTH,))
    stage.gateway.take_calls()
    stage.gateway.health(CELL, [HostId(host) for host in stage.hosts], stage.stage.health_checks)
    assert dict(stage.gateway.take_calls()) == forecast
