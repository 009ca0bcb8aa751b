"""How a stage is cut into waves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import waves
from patchwave.campaign.values import Count, HostId, Share
from tests.domain.builders import CELL, FAR, host_id

DOMAINS = st.lists(st.sampled_from(["asg:a", "asg:b", "stage:prod"]), max_size=60)
CONCURRENCIES = st.one_of(st.integers(1, 100).map(lambda percent: Share(percent / 100)), st.integers(1, 70).map(Count))


def cut(
    domains: list[str], concurrency: Share | Count, total: int
) -> tuple[tuple[waves.Wave, ...], dict[HostId, str], dict[str, int]]:
    """The waves, each host's domain, and each domain's places."""
    of = {host_id(number): domain for number, domain in enumerate(domains)}
    allowed = waves.places(concurrency, domains)
    return waves.split(list(of), of, allowed, total=total), of, allowed


@given(DOMAINS, CONCURRENCIES, st.integers(1, 60))
def test_each_host_is_in_exactly_one_wave(domains: list[str], concurrency: Share | Count, total: int) -> None:
    """Nobody is left out silently, nobody is patched twice."""
    made, of, _ = cut(domains, concurrency, total)
    assert Counter(host for wave in made for host in wave.hosts) == Counter(of.keys())


@given(DOMAINS, CONCURRENCIES, st.integers(1, 60))
def test_no_wave_is_wider_than_the_places_of_any_domain_or_of_the_stage(
    domains: list[str], concurrency: Share | Count, total: int
) -> None:
    """Hosts of a wave may be away together, so a wave is a budget kept."""
    made, of, allowed = cut(domains, concurrency, total)
    for wave in made:
        assert 1 <= len(wave.hosts) <= total
        for domain, count in Counter(of[host] for host in wave.hosts).items():
            assert count <= allowed[domain]


@given(DOMAINS, CONCURRENCIES, st.integers(1, 60))
def test_there_are_no_more_waves_than_the_budgets_make_necessary(
    domains: list[str], concurrency: Share | Count, total: int
) -> None:
    """No host could stand one wave earlier: the wave before has no room for it."""
    made, of, allowed = cut(domains, concurrency, total)
    for before, wave in pairwise(made):
        for host in wave.hosts:
            used = Counter(of[other] for other in before.hosts)
            assert len(before.hosts) == total or used[of[host]] == allowed[of[host]]


@given(DOMAINS, CONCURRENCIES, st.integers(1, 60))
def test_waves_are_numbered_as_people_count(domains: list[str], concurrency: Share | Count, total: int) -> None:
    """From 1, without gaps."""
    made, _, _ = cut(domains, concurrency, total)
    assert [wave.number for wave in made] == list(range(1, len(made) + 1))


@given(DOMAINS, CONCURRENCIES)
def test_every_domain_has_a_place_and_none_has_more_than_its_hosts(domains: list[str], concurrency: Share | Count) -> None:
    """A share never rounds down to nobody; a count never exceeds what there is."""
    places = waves.places(concurrency, domains)
    assert places.keys() == set(domains)
    assert all(1 <= places[domain] <= count for domain, count in Counter(domains).items())


def test_ten_percent_of_fifty_hosts_are_ten_waves_of_five() -> None:
    """Prod's 50 hosts at 10 % are never more than 5 at once."""
    made, _, _ = cut(["asg:web"] * 50, Share(0.10), 5)
    assert [len(wave.hosts) for wave in made] == [5] * 10


def test_zones_go_one_after_the_other_within_a_cell() -> None:
    """Two zones are not disrupted at the same moment by the same patch."""
    order = waves.ordered([
        (host_id(1), CELL, "eu-central-1b", "a"), (host_id(2), CELL, "eu-central-1a", "z"), (host_id(3), FAR, "us-east-1a", "a"),
        (host_id(4), CELL, "eu-central-1a", "b"),
    ])  # fmt: skip
    assert order == (host_id(4), host_id(2), host_id(1), host_id(3))
