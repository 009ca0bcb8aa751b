"""How a stage is cut into waves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import waves
from patchwave.campaign.values import Count, HostId, Share
from tests.domain.builders import CELL, FAR, host_id

GROUPS = st.lists(st.tuples(st.sampled_from(["asg:a", "asg:b", ""]), st.sampled_from(["zone:1", "zone:2"])), max_size=60)
CONCURRENCIES = st.one_of(st.integers(1, 100).map(lambda percent: Share(percent / 100)), st.integers(1, 70).map(Count))


def cut(
    groups: list[tuple[str, str]], concurrency: Share | Count
) -> tuple[tuple[waves.Wave, ...], dict[HostId, tuple[str, ...]], dict[str, int]]:
    """The waves, each host's domains, and each domain's places."""
    of = {host_id(number): (*(one for one in its if one), "stage:prod") for number, its in enumerate(groups)}
    sizes = Counter(domain for its in of.values() for domain in its)
    allowed = {domain: waves.places(concurrency, size) for domain, size in sizes.items()}
    return waves.split(list(of), of, allowed), of, allowed


@given(GROUPS, CONCURRENCIES)
def test_each_host_is_in_exactly_one_wave(groups: list[tuple[str, str]], concurrency: Share | Count) -> None:
    """Nobody is left out silently, nobody is patched twice."""
    made, of, _ = cut(groups, concurrency)
    assert Counter(host for wave in made for host in wave.hosts) == Counter(of.keys())


@given(GROUPS, CONCURRENCIES)
def test_no_wave_is_wider_than_the_places_of_any_domain_or_of_the_stage(
    groups: list[tuple[str, str]], concurrency: Share | Count
) -> None:
    """Hosts of a wave may be away together, so a wave is a budget kept: of every domain that a host is in at once."""
    made, of, allowed = cut(groups, concurrency)
    for wave in made:
        assert wave.hosts
        for domain, count in Counter(domain for host in wave.hosts for domain in of[host]).items():
            assert count <= allowed[domain]


@given(GROUPS, CONCURRENCIES)
def test_there_are_no_more_waves_than_the_budgets_make_necessary(
    groups: list[tuple[str, str]], concurrency: Share | Count
) -> None:
    """No host could stand one wave earlier: the wave before has no room for it."""
    made, of, allowed = cut(groups, concurrency)
    for before, wave in pairwise(made):
        used = Counter(domain for other in before.hosts for domain in of[other])
        for host in wave.hosts:
            assert any(used[domain] == allowed[domain] for domain in of[host])


@given(GROUPS, CONCURRENCIES)
def test_waves_are_numbered_as_people_count(groups: list[tuple[str, str]], concurrency: Share | Count) -> None:
    """From 1, without gaps."""
    made, _, _ = cut(groups, concurrency)
    assert [wave.number for wave in made] == list(range(1, len(made) + 1))


@given(CONCURRENCIES, st.integers(1, 5000), st.integers(0, 5000))
def test_a_domain_has_a_place_and_never_more_than_its_hosts_or_than_its_minimum_leaves(
    concurrency: Share | Count, size: int, minimum: int
) -> None:
    """A share never rounds down to nobody; a group's minimum stays in service, unless that would leave no place at all."""
    places = waves.places(concurrency, size, minimum=minimum)
    assert 1 <= places <= size
    assert places == 1 or size - places >= minimum


@given(st.integers(1, 5000))
def test_where_the_campaign_says_nothing_aws_own_table_holds(size: int) -> None:
    """AWS's table for Patch now, by the number of hosts."""
    places = waves.places(waves.default_concurrency(size), size)
    percent = 0 if size < 25 else 5 if size <= 100 else 8 if size <= 1000 else 10
    assert places == (1 if percent == 0 else -(-size * percent // 100))


def test_ten_percent_of_fifty_hosts_are_ten_waves_of_five() -> None:
    """Prod's 50 hosts at 10 % are never more than 5 at once."""
    made, _, _ = cut([("asg:web", "")] * 50, Share(0.10))
    assert [len(wave.hosts) for wave in made] == [5] * 10


def test_zones_with_budgets_of_their_own_do_not_make_a_stage_slower() -> None:
    """50 hosts in three zones: two of each may be away, and the stage's five places are filled from all of them."""
    zones = "abc"
    hosts = [(host_id(number), CELL, zones[number % 3], f"web-{number}") for number in range(50)]
    order = waves.ordered(hosts)
    of = {host: ("asg:web", f"zone:{zone}", "stage:prod") for host, _, zone, _ in hosts}
    sizes = Counter(domain for its in of.values() for domain in its)
    allowed = {domain: waves.places(Share(0.10), size) for domain, size in sizes.items()}
    assert allowed == {"asg:web": 5, "zone:a": 2, "zone:b": 2, "zone:c": 2, "stage:prod": 5}
    assert [len(wave.hosts) for wave in waves.split(order, of, allowed)] == [5] * 10


def test_the_zones_of_a_cell_take_turns_and_names_decide_within_one() -> None:
    """A zone of few hosts is spread over the whole stage, and does not come first or last."""
    order = waves.ordered([
        (host_id(1), CELL, "eu-central-1b", "a"), (host_id(2), CELL, "eu-central-1a", "z"), (host_id(3), FAR, "us-east-1a", "a"),
        (host_id(4), CELL, "eu-central-1a", "b"),
    ])  # fmt: skip
    assert order == (host_id(4), host_id(1), host_id(3), host_id(2))
