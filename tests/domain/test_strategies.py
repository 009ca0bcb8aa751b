"""Only what can be replaced as a whole and taken back is replaced; the rest is refused, or patched in place with a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign.replacement import preferences
from patchwave.campaign.strategies import Choice, Impossible, Made, Strategy, alone, choose, replacing_takes
from patchwave.campaign.values import HostId
from tests.domain.builders import CELL, host_id

HOSTS = tuple(host_id(number) for number in range(1, 6))
WEB = Made(cell=CELL, group="web", members=frozenset(HOSTS), version="3")


def all_of(strategy: Strategy) -> dict[HostId, Strategy]:
    return dict.fromkeys(HOSTS, strategy)


@given(
    asked=st.fixed_dictionaries({host: st.sampled_from(Strategy) for host in HOSTS}),
    others=st.booleans(),
    version=st.sampled_from(["3", "$Latest", "$Default", None]),
    alias=st.booleans(),
    stateful=st.sets(st.sampled_from(HOSTS)),
)
def test_every_host_goes_one_way_and_a_group_is_replaced_as_a_whole(
    asked: dict[HostId, Strategy], others: bool, version: str | None, alias: bool, stateful: set[HostId]
) -> None:
    """Nobody is left out or counted twice; where one host is replaced, so is everybody in the group; who asked for `replace` is
    never patched in place, and who asked for `in_place` never replaced."""
    made = replace(WEB, version=version, alias=alias, members=WEB.members | ({host_id(9)} if others else set()))
    found = choose(made, asked, stateful=stateful)
    assert sorted(host for one in found for host in one.hosts) == sorted(HOSTS)
    replaced = [host for one in found if isinstance(one, Choice) and one.strategy is Strategy.REPLACE for host in one.hosts]
    assert not replaced or frozenset(replaced) == made.members
    in_place = [host for one in found if isinstance(one, Choice) and one.strategy is Strategy.IN_PLACE for host in one.hosts]
    assert all(asked[host] is not Strategy.REPLACE for host in in_place)
    assert all(asked[host] is not Strategy.IN_PLACE for host in replaced)


@pytest.mark.parametrize(
    ("group", "stateful", "says"),
    [
        ({"version": None}, (), "no single launch template"),
        ({"version": "$Latest"}, (), "version $Latest"),
        ({"version": "$Default"}, (), "version $Default"),
        ({"alias": True}, (), "names a parameter"),
        ({"members": WEB.members | {host_id(9)}}, (), "1 hosts of group web are not of this stage"),
        ({}, HOSTS[:2], "2 hosts of group web are marked stateful"),
    ],
)
def test_auto_patches_in_place_what_it_cannot_replace_and_says_why(
    group: dict[str, Any], stateful: tuple[HostId, ...], says: str
) -> None:
    """An operator reads the reason in the plan, and knows what to change."""
    (only,) = choose(replace(WEB, **group), all_of(Strategy.AUTO), stateful=stateful)
    assert isinstance(only, Choice)
    assert only.strategy is Strategy.IN_PLACE
    assert says in only.why
    (refused,) = choose(replace(WEB, **group), all_of(Strategy.REPLACE), stateful=stateful)
    assert isinstance(refused, Impossible) != bool(stateful), "who asks by name has decided about the mark"


def test_auto_replaces_a_stateless_group_and_says_what_brings_it_back() -> None:
    """The version before is named, for that is what a person approves as the way back."""
    (only,) = choose(WEB, all_of(Strategy.AUTO))
    assert isinstance(only, Choice)
    assert only.strategy is Strategy.REPLACE
    assert "version 3" in only.way_back


def test_a_host_in_no_group_is_never_replaced() -> None:
    """Nobody would launch another one in its place."""
    one, two, three = HOSTS[:3]
    found = alone(CELL, {one: Strategy.REPLACE, two: Strategy.AUTO, three: Strategy.IN_PLACE})
    assert {type(each) for each in found if one in each.hosts} == {Impossible}
    assert [each.strategy for each in found if isinstance(each, Choice)] == [Strategy.IN_PLACE, Strategy.IN_PLACE]


def test_a_host_of_another_group_is_refused() -> None:
    """A mix-up of groups would replace hosts that no plan names."""
    with pytest.raises(ValueError, match="no member of web"):
        choose(WEB, {host_id(9): Strategy.AUTO})


def test_fifty_at_ten_percent_take_ten_batches_two_pauses_and_the_bake_time() -> None:
    """What the plan says of the time is what an operator can count."""
    how = preferences(
        50, 5, checkpoints=(10, 30), checkpoint_delay=timedelta(hours=1), bake=timedelta(minutes=30), warmup=timedelta(minutes=2)
    )
    assert replacing_takes(50, how, launch=timedelta(minutes=3)) == timedelta(minutes=50 + 120 + 30)
    assert replacing_takes(1, preferences(1, 1, spare=False), launch=timedelta(minutes=3)) == timedelta(minutes=3)
