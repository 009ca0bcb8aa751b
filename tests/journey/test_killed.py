"""A person ends a stage's task while hosts install: what is in flight is cancelled in AWS, and a clear goes on from there.

Four campaigns, one for each way in which Airflow lets people end a task, at the same time. Whether a command is cancelled is
asked of the simulated AWS. Its Install takes 22 s on our clocks: where it was cancelled, that took less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "killed-failed", "eu-south-1"
TASK = "dev.patch"
WITHIN = 30.0
"""Seconds from a person's action until nothing of ours goes on in AWS."""

pytestmark = pytest.mark.journey


def mark(state: str) -> Callable[[FollowedRun], None]:
    return lambda run: run.user("ana").set_task_state(run.dag, run.run, TASK, state)


def clear(run: FollowedRun) -> None:
    run.clear(TASK, downstream=True)


def fail_the_run(run: FollowedRun) -> None:
    run.user("ana").fail_run(run.dag, run.run)


WAYS: Mapping[str, tuple[str, Callable[[FollowedRun], None]]] = {
    "failed": ("eu-south-1", mark("failed")),
    "success": ("eu-central-2", mark("success")),
    "clear": ("ap-south-1", clear),
    "run": ("sa-east-1", fail_the_run),
}
"""By the ending of the campaign's name: its region, and what ana does."""
HALTING = ["failed", "success", "run"]


@dataclass
class Killed:
    """What was seen of one of the campaigns."""

    run: FollowedRun
    before: dict[str, str] = field(default_factory=dict)  # the Install's invocations when ana acted: status by host
    after: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    stage: tuple[str, str] = ("", "")  # its state and reason in the ledger, after the kill
    classes: Mapping[str, str] = field(default_factory=dict)
    sent: int = 0  # commands in AWS when the task was ended, and just before it was cleared
    sent_before_clear: int = 0

    def installs(self) -> list[dict[str, str]]:
        """The Installs that AWS knows, oldest first: status by host."""
        ssm = self.run.client("ssm")
        found = [one for one in _commands(ssm) if one["Parameters"].get("Operation") == ["Install"]]
        found.sort(key=lambda one: one["RequestedDateTime"])
        return [
            {row["InstanceId"]: row["Status"] for row in rows}
            for one in found
            for rows in [ssm.list_command_invocations(CommandId=one["CommandId"])["CommandInvocations"]]
        ]


def _commands(ssm: Any) -> list[dict[str, Any]]:
    return list(ssm.list_commands(MaxResults=50)["Commands"])


def drive(run: FollowedRun) -> None:
    """All four at the same time."""
    followed = {way: run.stage.follow(f"killed-{way}", region=region) for way, (region, _) in WAYS.items()}
    with ThreadPoolExecutor(max_workers=len(WAYS)) as pool:
        going = {way: pool.submit(one_way, followed[way], WAYS[way][1]) for way in WAYS}
        run.seen.update({way: one.result() for way, one in going.items()})


def one_way(run: FollowedRun, act: Callable[[FollowedRun], None]) -> Killed:
    """End the task while its hosts install; then clear it, if it was not cleared."""
    killed = Killed(run=run)
    run.begin(dry_run=False)
    run.until(lambda: _is_installing(killed), "three hosts install, and the task is deferred")
    act(run)
    began = time.monotonic()
    run.until(lambda: _is_over(killed), "the Install is over", patience=60)
    killed.seconds = time.monotonic() - began
    if act is clear:
        run.ended()
        return killed
    run.until(lambda: run.ledger.stage(run.id, "dev").state.value == "halted", "the ledger says halted", patience=60)
    row = run.ledger.stage(run.id, "dev")
    killed.stage, killed.classes, killed.sent = (row.state.value, row.reason), run.classes, len(_commands(run.client("ssm")))
    run.ended()
    killed.sent_before_clear = len(_commands(run.client("ssm")))
    clear(run)
    run.until(lambda: run.ledger.stage(run.id, "dev").state.value == "patched", "the cleared stage is patched")
    run.ended()
    return killed


def _is_installing(killed: Killed) -> bool:
    installs = killed.installs()
    killed.before = installs[0] if installs else {}
    return list(killed.before.values()) == ["InProgress"] * 3 and killed.run.tasks[TASK] == "deferred"


def _is_over(killed: Killed) -> bool:
    killed.after = killed.installs()[0]
    return not set(killed.after.values()) & {"Pending", "InProgress", "Delayed", "Cancelling"}


@pytest.fixture(params=WAYS)
def killed(request: pytest.FixtureRequest, journey: FollowedRun) -> Killed:
    """Each way."""
    found: Killed = journey.seen[request.param]
    return found


@pytest.fixture(params=HALTING)
def halted(request: pytest.FixtureRequest, journey: FollowedRun) -> Killed:
    """Each way that ends the task."""
    found: Killed = journey.seen[request.param]
    return found


def test_what_was_in_flight_is_cancelled_in_aws(killed: Killed) -> None:
    """Within half a minute, and before it could have ended by itself."""
    assert set(killed.before.values()) == {"InProgress"}
    assert killed.after == dict.fromkeys(killed.before, "Cancelled")
    assert killed.seconds < WITHIN


def test_the_stage_is_halted_and_says_who_had_begun(halted: Killed) -> None:
    """No host is called patched or failed: nobody knows yet."""
    state, reason = halted.stage
    assert state == "halted"
    assert "by hand" in reason
    assert "clear the task" in reason
    stopped = [one for one in halted.run.ledger.journal(halted.run.id) if one.kind == "stage.stopped"]
    assert [sorted(one.data["begun"]) for one in stopped] == [sorted(halted.before)]
    assert not set(halted.classes.values()) & {"patched", "failed", "already_compliant"}


def test_nothing_more_is_sent_until_somebody_clears(halted: Killed) -> None:
    """Neither by the stage nor by what follows it."""
    assert halted.sent_before_clear == halted.sent


def test_the_cleared_stage_goes_on_to_a_true_end(killed: Killed) -> None:
    """Each host is patched, by one more Install at most."""
    run = killed.run
    assert set(run.classes.values()) == {"patched"}
    assert run.state == "success"
    installs = run.journal.by_the_stages().installs
    assert set(installs) == set(run.hosts())
    assert max(installs.values()) <= 2


def test_the_rule_checker_finds_nothing(killed: Killed) -> None:
    """Not even that a host was begun twice without a reason: the second Install follows one that was cancelled."""
    assert list(killed.run.rules_broken) == []
