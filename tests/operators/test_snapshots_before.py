"""Snapshots before patching, against a simulated AWS: judged by what it says was made and in which order."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

from patchwave.campaign import snapshots
from patchwave.campaign.errors import OutcomeUnknown
from patchwave.campaign.rollout import Done, HostState, StepKind, Wait
from patchwave.campaign.snapshots import Before, Snapshots, State, Taken, Until
from patchwave.campaign.values import HostId
from patchwave.execution.executor import SETTLING
from patchwave.execution.snapshots import SnapshotsBefore
from tests.domain.builders import CELL
from tests.operators.stage import RUN, STAGE, Killed, Stage, Watched
from tests.simulator.conftest import Aws

S = HostState
COMPLETED = Snapshots(before=Before.IN_PLACE)


class Saving(Stage):
    """A stage whose hosts get a snapshot before their Install."""

    def saving(self, holder: str, *, rule: Snapshots = COMPLETED, gateway: Any = None) -> Any:
        executor = self.executor(holder, gateway=gateway)
        before = SnapshotsBefore(
            ledger=self.ledger, gateway=gateway or self.gateway, lease=executor.lease, rule=rule, now=lambda: self.now,
            log=logging.getLogger("stage"), settling=SETTLING,
        )  # fmt: skip
        return self.executor_with(executor, before)

    def executor_with(self, executor: Any, before: SnapshotsBefore) -> Any:
        object.__setattr__(executor, "snapshots", before)
        return executor

    @property
    def taken(self) -> dict[HostId, Taken]:
        return snapshots.from_json(self.ledger.document(RUN, snapshots.document(STAGE)))

    def in_aws(self) -> list[dict[str, Any]]:
        """What EC2 lists of this run, whatever its token."""
        client = self.gateway.client(CELL, "ec2")
        found = client.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag:patchwave:run", "Values": [RUN]}])
        return list(found["Snapshots"])

    def installs(self) -> dict[str, datetime]:
        """When the first Install really began on each host."""
        found: dict[str, datetime] = {}
        for line in self.aws.journal():
            if line["event"] == "command_begun" and line.get("operation") == "Install":
                found.setdefault(line["host"], datetime.fromisoformat(line["at"]))
        return found


def test_each_host_has_its_completed_snapshot_before_its_install(aws: Aws) -> None:
    """By the world's own record: one a host, of its root volume, tagged with the run, and begun before the Install."""
    stage = Saving(aws, "web")
    roots = {one.host: one.volume for one in stage.gateway.root_volumes(CELL, stage.hosts)}
    waits: list[Wait] = []
    assert stage.to_the_end(stage.saving("try-1"), waits=waits) == Done(classes={S.PATCHED: 3})
    made = {one["VolumeId"]: one for one in stage.in_aws()}
    assert sorted(made) == sorted(roots.values())
    began = stage.installs()
    for host in stage.hosts:
        one = stage.taken[host]
        assert (one.state, one.volume, one.id) == (State.COMPLETED, roots[host], made[roots[host]]["SnapshotId"])
        assert one.intended_at < began[host]
    assert any("snapshot before patching" in wait.reason and wait.look for wait in waits)
    assert set(stage.begun("Install").values()) == {1}


def test_a_host_that_is_compliant_gets_no_snapshot(aws: Aws) -> None:
    """It costs money, and nothing is done to it."""
    stage = Saving(aws, "odd")
    stage.to_the_end(stage.saving("try-1"))
    assert stage.states[stage.hosts[4]] is S.ALREADY_COMPLIANT
    assert set(stage.taken) == {stage.hosts[3]}


def test_with_one_place_the_next_hosts_snapshot_is_taken_when_its_turn_has_come(aws: Aws) -> None:
    """A snapshot of hours before would lose what was written since."""
    stage = Saving(aws, "web", places=1)
    stage.to_the_end(stage.saving("try-1"))
    began = stage.installs()
    starts = sorted(one.intended_at for one in stage.taken.values())
    assert starts[1] > min(began.values())
    assert len(stage.in_aws()) == 3


def test_pending_is_enough_where_the_policy_says_so(aws: Aws) -> None:
    """The Install follows in the same leg in which its Scan was read."""
    stage = Saving(aws, "web")
    rule = Snapshots(before=Before.IN_PLACE, until=Until.PENDING)
    waits: list[Wait] = []
    assert stage.to_the_end(stage.saving("try-1", rule=rule), waits=waits) == Done(classes={S.PATCHED: 3})
    assert not [wait for wait in waits if "snapshot" in wait.reason]
    assert len(stage.in_aws()) == 3


def test_a_lost_answer_makes_no_second_snapshot(aws: Aws) -> None:
    """CreateSnapshot takes no client token: it is found again by its tag."""
    stage = Saving(aws, "web")
    aws.control("faults", {"kind": "lost_answer", "service": "ec2", "operation": "CreateSnapshot", "times": 2})
    assert stage.to_the_end(stage.saving("try-1")) == Done(classes={S.PATCHED: 3})
    assert len(stage.in_aws()) == 3


@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_resumes_after_a_kill_takes_none_twice(aws: Aws, moment: str) -> None:
    """Killed between the intent and the call, or between the call and the note of it."""
    stage = Saving(aws, "web")

    def kill(_: str) -> None:
        raise Killed

    killing = Watched(stage.gateway, frozenset({"create_snapshot"}), **{moment: kill})
    executor = stage.saving("try-1", gateway=killing)
    with pytest.raises(Killed):
        stage.to_the_end(executor)
    assert stage.to_the_end(stage.saving("try-2")) == Done(classes={S.PATCHED: 3})
    assert len(stage.in_aws()) == 3
    assert set(stage.begun("Install").values()) == {1}


def test_a_refused_snapshot_leaves_its_host_unpatched_and_says_why(aws: Aws) -> None:
    """Whoever asked for a way back would rather not be patched than have none."""
    stage = Saving(aws, "web")
    fault = {"kind": "error", "service": "ec2", "operation": "CreateSnapshot", "times": 1, "code": "SnapshotLimitExceeded",
             "status": 400}  # fmt: skip
    aws.control("faults", fault)
    end = stage.to_the_end(stage.saving("try-1"))
    assert end == Done(classes={S.PATCHED: 2, S.FAILED: 1})
    failed = next(row for row in stage.ledger.hosts(RUN, STAGE) if row.state is S.FAILED)
    assert "nothing was installed" in failed.reason
    assert "SnapshotLimitExceeded" in failed.reason
    assert stage.begun("Install")[failed.host] == 0


def test_a_snapshot_that_does_not_complete_in_time_leaves_its_host_unpatched(aws: Aws) -> None:
    """The wait has an end, and it is none that patches."""
    stage = Saving(aws, "web")
    rule = Snapshots(before=Before.IN_PLACE, timeout=timedelta(seconds=10))
    executor = stage.saving("try-1", rule=rule)
    stage.until_step(executor, StepKind.SCAN)
    for _ in range(40):
        aws.advance(15)  # the quickest snapshot takes a minute
        end = executor.advance()
    assert end == Done(classes={S.FAILED: 3})
    assert all("not completed in time" in row.reason for row in stage.ledger.hosts(RUN, STAGE))
    assert set(stage.begun("Install").values()) == {0}


def test_while_a_snapshot_is_awaited_other_hosts_go_on(aws: Aws) -> None:
    """Their reboot and their Scan after do not wait, and the wait names both."""
    stage = Saving(aws, "web", places=2)
    waits: list[Wait] = []
    stage.to_the_end(stage.saving("try-1"), waits=waits)
    assert any("snapshot" in wait.reason and wait.tokens for wait in waits)


def test_an_answer_that_stays_lost_is_waited_for_and_then_asked_again(aws: Aws) -> None:
    """An intent that EC2 does not list after the settling time was never begun."""
    stage = Saving(aws, "web")
    lost = [True] * 3

    def lose(_: str) -> None:
        if lost:
            lost.pop()
            raise OutcomeUnknown("lost on the way there")

    gateway = Watched(stage.gateway, frozenset({"create_snapshot"}), before=lose)
    executor = stage.saving("try-1", gateway=gateway)
    stage.until_step(executor, StepKind.SCAN)
    assert stage.to_the_end(executor) == Done(classes={S.PATCHED: 3})
    assert len(stage.in_aws()) == 3
