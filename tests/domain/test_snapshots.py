"""Which way back each host has, what it costs, and that a plan says so beforehand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from patchwave.campaign import plan as plans
from patchwave.campaign import policy, snapshots
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.snapshots import Disk, HostWay, Snapshots, State, Taken, Way
from patchwave.campaign.values import StageName
from tests.domain.builders import CELL, NOW, RUN, a_host, a_plan, host_id
from tests.domain.test_policy import STANDARD

WEEK = Snapshots(before=snapshots.Before.IN_PLACE)


def way(disk: Disk | None) -> HostWay:
    return snapshots.ways([host_id(1)], {} if disk is None else {disk.host: disk}, WEEK).hosts[0]


def a_disk(number: int = 1, *, volume: str = "vol-1", gib: int = 30) -> Disk:
    return Disk(host=host_id(number), volume=volume, gib=gib)


def test_a_host_with_a_root_volume_has_a_way_back() -> None:
    """And the plan says what it takes."""
    assert way(a_disk()).way is Way.ROOT_VOLUME
    assert "is lost" in way(a_disk()).why


@pytest.mark.parametrize(("disk", "why"), [(Disk(host=host_id(1), volume=""), "no EBS volume"), (None, "EC2 does not say")])
def test_a_host_whose_root_is_no_volume_has_none(disk: Disk | None, why: str) -> None:
    """It is said beforehand, and not when somebody needs it: nor is it patched."""
    found = way(disk)
    assert found.way is Way.NONE
    assert why in found.why
    assert "not patched" in found.why


def test_the_cost_is_that_of_full_volumes_for_as_long_as_they_are_kept() -> None:
    """100 GiB for a week at 5 cents for 30 days."""
    disks = {host_id(1): a_disk(gib=60), host_id(2): a_disk(2, gib=40)}
    back = snapshots.ways([host_id(1), host_id(2)], disks, WEEK)
    assert back.cost == pytest.approx(1.17)
    assert back.without([host_id(1)]).cost == pytest.approx(0.47)
    assert [one.host for one in back.without([host_id(1)]).hosts] == [host_id(2)]


def test_the_plan_says_it_of_each_host_and_keeps_its_digest_where_it_says_nothing() -> None:
    """A plan made before keeps its approval over an upgrade."""
    plan = a_plan([a_host(1), a_host(2)])
    assert all("ways_back" not in stage for stage in plans.to_json(plan)["stages"])
    prod = plan.stage("prod")
    back = snapshots.ways([one.id for one in prod.hosts], {host_id(1): a_disk()}, WEEK)
    with_ways = replace(plan, stages=(*plan.stages[:2], replace(prod, ways_back=back)))
    assert plans.from_json(plans.to_json(with_ways)) == with_ways
    assert plans.digest(with_ways) != plans.digest(plan)
    text = plans.markdown(with_ways, for_stage="prod")
    assert "root volume from its snapshot" in text
    assert "EC2 does not say what its root volume is" in text
    assert "0.35 US dollars" in text
    less = plans.without(with_ways, "prod", [host_id(1)], reason="left out")
    left = less.stage("prod").ways_back
    assert left is not None
    assert [one.host for one in left.hosts] == [host_id(2)]


def test_a_plan_without_snapshots_says_that_there_is_no_way_back() -> None:
    """Nobody learns that afterwards."""
    assert "Way back: none but a new instance" in plans.markdown(a_plan([a_host(1)]))


def test_a_snapshot_has_one_token_for_a_host_of_a_run() -> None:
    """Whoever computes it anew finds the one that was taken."""
    first = snapshots.token(RUN, StageName("prod"), host_id(1))
    assert first == snapshots.token(RUN, StageName("prod"), host_id(1))
    assert first != snapshots.token(RUN, StageName("prod"), host_id(2))


def test_what_was_taken_is_read_as_it_was_written() -> None:
    """The rollback reads it, perhaps days later."""
    one = Taken(host=host_id(1), cell=CELL, token="t", volume="vol-1", gib=8, state=State.PENDING, since=NOW, intended_at=NOW,
                keep_until=NOW + timedelta(days=7), id="snap-1")  # fmt: skip
    assert snapshots.from_json(snapshots.to_json([one])) == {one.host: one}


def test_a_policy_wants_snapshots_and_keeps_them_a_week() -> None:
    """And one that wants none has the digest that it had."""
    wanted = policy.parse(STANDARD + "snapshot: {before: in_place}\n", file="p.yaml").snapshot
    assert wanted == WEEK
    assert (WEEK.keep, WEEK.until) == (timedelta(days=7), snapshots.Until.COMPLETED)
    assert "snapshot" not in policy.parse(STANDARD, file="p.yaml").model_dump(mode="json", by_alias=True)


def test_a_snapshot_before_something_else_is_refused() -> None:
    """With file and field."""
    with pytest.raises(InvalidFile, match=r"snapshot\.before"):
        policy.parse(STANDARD + "snapshot: {before: reboot}\n", file="p.yaml")
