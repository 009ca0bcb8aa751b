"""What a stage has learned of how long its steps take, and what follows for looks at the next command."""

from __future__ import annotations

from datetime import timedelta

import pytest

from patchwave.campaign.durations import LATE, LISTED, ODD, late_time, usual_time
from patchwave.campaign.rollout import EXPECTED, DispatchRow, DispatchState, StepKind
from patchwave.campaign.values import HostId, RunId, StageName
from tests.domain.builders import CELL, NOW

INSTALL, REBOOT, SCAN, VERIFY = StepKind.INSTALL, StepKind.REBOOT, StepKind.SCAN, StepKind.VERIFY


def took(seconds: float, step: StepKind = INSTALL, *, hosts: int = 50, state: DispatchState = DispatchState.ENDED) -> DispatchRow:
    """A dispatch that lasted so long by AWS's clock."""
    return DispatchRow(
        token=f"{step.value}-{seconds}-{hosts}", run=RunId("weekly/1"), stage=StageName("dev"), step=step, cell=CELL,
        hosts=tuple(HostId(f"i-{number:017x}") for number in range(hosts)), attempt=1, state=state, fencing=1, intended_at=NOW,
        command="c", requested_at=NOW + timedelta(seconds=3), ended_at=NOW + timedelta(seconds=3 + seconds),
    )  # fmt: skip


def usual(step: StepKind, *rows: DispatchRow, hosts: int = 50) -> float:
    time, learned = usual_time(step, rows, hosts=hosts)
    assert learned
    return (time - LISTED).total_seconds()


def test_nothing_is_learned_from_nothing() -> None:
    """Nor from what was cancelled, whose end says nothing of how long it takes."""
    cancelled = took(100, state=DispatchState.CANCELLED)
    assert usual_time(INSTALL, [cancelled], hosts=50) == (EXPECTED[INSTALL], False)


def test_the_first_look_comes_when_the_slowest_one_so_far_had_ended() -> None:
    """By AWS's clock, whenever somebody noticed: sooner would be a call for nothing."""
    assert usual(INSTALL, took(400), took(410), took(405)) == 410


def test_an_odd_command_makes_no_other_one_wait_so_long() -> None:
    """One slow mirror on one evening is not how long an Install takes."""
    assert usual(INSTALL, took(400), took(410), took(ODD * 410 + 1)) == 410


def test_few_hosts_say_nothing_about_many() -> None:
    """A command lasts as long as its slowest host: the retry of a single one was over much sooner."""
    assert usual(INSTALL, took(200, hosts=1), took(400)) == 400
    assert usual(INSTALL, took(200, hosts=1), hosts=50) == 200  # better than nothing
    assert usual(INSTALL, took(200, hosts=1), took(210), hosts=1) == 210


@pytest.mark.parametrize(("asked", "known"), [(VERIFY, SCAN), (SCAN, VERIFY)])
def test_a_scan_is_a_scan_before_and_after(asked: StepKind, known: StepKind) -> None:
    """The same operation of the same document."""
    assert usual(asked, took(40, known)) == 40
    assert not usual_time(REBOOT, [took(40, known)])[1]


def test_a_quick_stage_makes_nobody_late_and_a_slow_one_has_patience() -> None:
    """Hosts wait for the others of their command by what is usual, here or elsewhere, whichever is longer."""
    assert late_time(INSTALL, [took(10)]) == LATE * EXPECTED[INSTALL]
    assert late_time(INSTALL, [took(7200)]) == LATE * timedelta(hours=2)
    assert late_time(INSTALL, []) == LATE * EXPECTED[INSTALL]
