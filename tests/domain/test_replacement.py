"""Replacing a group keeps its budget, finds its own refresh again, waits for others, and proves what it calls replaced."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign.replacement import (
    ACTIVE,
    REPLACING,
    Facts,
    MakeVersion,
    Member,
    Refresh,
    Replaced,
    RollBack,
    StartRefresh,
    Status,
    TemplateVersion,
    Terms,
    begin_next,
    decide,
    preferences,
)
from patchwave.campaign.rollout import Halt, Wait
from tests.domain.builders import NOW, host_id

OURS = TemplateVersion(template="lt-1", version="4")
THEIRS = TemplateVersion(template="lt-1", version="3")
TERMS = Terms(patience=timedelta(minutes=30), foreign_until=NOW + timedelta(hours=6))
OLD = tuple(Member(host=host_id(number), image="ami-old", proven=True) for number in (1, 2, 3))
NEW = tuple(Member(host=host_id(number), image="ami-new", proven=True) for number in (11, 12, 13))


def a_refresh(status: Status = Status.IN_PROGRESS, asks_for: TemplateVersion | None = OURS, **facts: Any) -> Refresh:
    values = {"id": "r-1", "status": status, "asks_for": asks_for, "began_at": NOW - timedelta(minutes=20), "percent": 40}
    return Refresh(**values | facts)


def a_group(*refreshes: Refresh, members: tuple[Member, ...] = OLD, ours: TemplateVersion | None = OURS) -> Facts:
    return Facts(group="web", image="ami-new", members=members, refreshes=refreshes, ours=ours)


# --- the budget ---------------------------------------------------------------------------------------------------------
@given(size=st.integers(1, 1000), places=st.integers(1, 1000))
def test_never_more_are_out_of_service_than_there_are_places(size: int, places: int) -> None:
    """However AWS rounds the percentage, and of every size; where nothing may go, an instance is launched first."""
    made = preferences(size, places)
    for stay in (math.floor(size * made.min_healthy / 100), math.ceil(size * made.min_healthy / 100)):
        assert size - stay <= places
    assert (made.max_healthy is not None) == (made.min_healthy == 100)


def test_fifty_hosts_at_ten_percent_are_five_at_most() -> None:
    """The figure that the campaign was approved with."""
    assert preferences(50, 5).min_healthy == 90


@given(size=st.integers(1, 1000), places=st.integers(1, 50))
def test_a_group_without_a_host_to_spare_grows_first(size: int, places: int) -> None:
    """Nobody is taken out before somebody else serves."""
    made = preferences(size, places, spare=False)
    assert made.min_healthy == 100
    assert made.max_healthy is not None
    assert 101 <= made.max_healthy <= 200


@given(st.lists(st.integers(1, 100), unique=True, max_size=8).map(sorted))
def test_checkpoints_always_end_with_all(checkpoints: list[int]) -> None:
    """AWS stops at the last one, and calls that a success."""
    made = preferences(50, 5, checkpoints=checkpoints, checkpoint_delay=timedelta(hours=1))
    assert made.checkpoints == () if not checkpoints else made.checkpoints[-1] == 100
    assert made.checkpoint_delay == (timedelta(hours=1) if checkpoints else timedelta())


@pytest.mark.parametrize(
    "wrong",
    [
        {"checkpoints": [50, 20]}, {"checkpoints": [0, 50]}, {"checkpoints": [50, 50]}, {"bake": timedelta(days=3)},
        {"checkpoint_delay": timedelta(days=3), "checkpoints": [50]}, {"alarms": [f"alarm-{n}" for n in range(11)]},
    ],
)  # fmt: skip
def test_what_aws_would_refuse_is_refused_before(wrong: dict[str, Any]) -> None:
    """With what is allowed."""
    with pytest.raises(ValueError, match="allowed"):
        preferences(50, 5, **wrong)


# --- begin --------------------------------------------------------------------------------------------------------------
def test_first_a_version_of_the_template_then_the_refresh() -> None:
    """The version is what the refresh is known by."""
    assert decide(a_group(ours=None), TERMS, now=NOW) == MakeVersion(image="ami-new")
    assert decide(a_group(), TERMS, now=NOW) == StartRefresh(asks_for=OURS)


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_a_refresh_of_somebody_else_is_waited_for_and_then_halts(status: Status) -> None:
    """AWS takes one at a time; nothing of ours is begun beside it, whoever began it."""
    for theirs in (a_refresh(status, THEIRS, id="r-9"), a_refresh(status, None, id="r-9")):
        waits = decide(a_group(theirs), TERMS, now=NOW)
        assert isinstance(waits, Wait)
        assert "refresh r-9, which is not ours" in waits.reason
        halted = decide(a_group(theirs), TERMS, now=TERMS.foreign_until)
        assert isinstance(halted, Halt)
        assert halted.rule == "one refresh at a time"


def test_one_of_others_that_has_ended_is_nobody_s_business() -> None:
    """AWS remembers refreshes for six weeks."""
    assert decide(a_group(a_refresh(Status.FAILED, THEIRS)), TERMS, now=NOW) == StartRefresh(asks_for=OURS)


def test_a_group_that_runs_the_image_already_is_not_refreshed() -> None:
    """Its instances are proven all the same."""
    assert decide(a_group(members=NEW, ours=None), TERMS, now=NOW) == Replaced(hosts=tuple(one.host for one in NEW))


# --- under way ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_ours_is_found_by_what_it_asks_for_and_never_begun_twice(status: Status) -> None:
    """Whoever goes on after a crash, or after a lost answer, sees it in the list; each wait says how far it is."""
    wait = decide(a_group(a_refresh(status, why="Waiting for a checkpoint")), TERMS, now=NOW)
    assert isinstance(wait, Wait)
    assert "refresh r-1" in wait.reason
    assert "40 %" in wait.reason
    assert "Waiting for a checkpoint" in wait.reason


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_what_goes_wrong_is_taken_back_once(status: Status) -> None:
    """As long as it replaces; one that is being taken back or cancelled is waited for."""
    decision = decide(a_group(a_refresh(status)), TERMS, ill=["alarm web-5xx fires"], now=NOW)
    if status in REPLACING:
        assert decision == RollBack(refresh="r-1", reason="alarm web-5xx fires")
    else:
        assert isinstance(decision, Wait)


# --- the end ------------------------------------------------------------------------------------------------------------
def test_replaced_is_what_is_proven_and_not_what_aws_calls_a_success() -> None:
    """New image, in service, healthy, agent online and scanned, each of them; for a while that is waited for."""
    done = a_refresh(Status.SUCCESSFUL, percent=100)
    assert decide(a_group(done, members=NEW), TERMS, ended_at=NOW, now=NOW) == Replaced(hosts=tuple(one.host for one in NEW))
    for wrong in ({"proven": False}, {"healthy": False}, {"in_service": False}):
        members = (replace(NEW[0], **wrong), *NEW[1:])
        wait = decide(a_group(done, members=members), TERMS, ended_at=NOW, now=NOW)
        assert isinstance(wait, Wait)
        assert NEW[0].host in wait.reason
        late = decide(a_group(done, members=members), TERMS, ended_at=NOW, now=NOW + TERMS.patience)
        assert isinstance(late, Halt)
        assert late.hosts == ((NEW[0].host,) if wrong != {"proven": False} else ())


def test_a_success_that_left_an_old_instance_is_none() -> None:
    """SkipMatching, a template of another group, or a launch from the old version meanwhile."""
    halted = decide(a_group(a_refresh(Status.SUCCESSFUL), members=(*NEW, OLD[0])), TERMS, ended_at=NOW, now=NOW)
    assert isinstance(halted, Halt)
    assert (halted.rule, halted.hosts) == ("truth", (OLD[0].host,))


def test_an_instance_that_is_left_alone_is_named() -> None:
    """Protected or in standby, where the campaign ignores those: it runs the old image, and the report says so."""
    kept = replace(OLD[0], left_alone=True)
    done = decide(a_group(a_refresh(Status.SUCCESSFUL), members=(*NEW, kept)), TERMS, ended_at=NOW, now=NOW)
    assert done == Replaced(hosts=tuple(one.host for one in NEW), left=(kept.host,))


@pytest.mark.parametrize(
    ("status", "rule"),
    [
        (Status.FAILED, "refresh failed"), (Status.ROLLBACK_FAILED, "refresh failed"), (Status.CANCELLED, "kill means stop"),
        (Status.ROLLBACK_SUCCESSFUL, "taken back"),
    ],
)  # fmt: skip
def test_every_other_end_halts_with_what_to_do(status: Status, rule: str) -> None:
    """Nothing is begun again by itself."""
    halted = decide(a_group(a_refresh(status, why="Alarm")), TERMS, now=NOW)
    assert isinstance(halted, Halt)
    assert halted.rule == rule
    assert "(Alarm)" in halted.reason
    assert halted.advice


def test_a_cleared_task_begins_another_refresh_but_not_beside_one_that_runs() -> None:
    """What had ended when the person cleared it is history."""
    again = replace(TERMS, anew_since=NOW)
    assert decide(a_group(a_refresh(Status.CANCELLED)), again, now=NOW) == StartRefresh(asks_for=OURS)
    assert isinstance(decide(a_group(a_refresh(Status.CANCELLING)), again, now=NOW), Wait)


# --- several groups -----------------------------------------------------------------------------------------------------
@given(
    st.lists(st.integers(1, 20), max_size=12), st.lists(st.integers(1, 20), max_size=4), st.integers(1, 40)
)  # fmt: skip
def test_groups_of_a_stage_keep_its_places_together(waiting: list[int], running: list[int], places: int) -> None:
    """In order; and a stage never stands still for want of a place while nothing runs."""
    named = [(f"g{number}", takes) for number, takes in enumerate(waiting)]
    chosen = begin_next(named, running, places)
    assert [name for name, _ in named][: len(chosen)] == list(chosen)
    takes = sum(waiting[: len(chosen)])
    assert takes + sum(running) <= places or (len(chosen) == 1 and not running) or not chosen
    if waiting and not running:
        assert chosen
