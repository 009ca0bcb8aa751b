"""In which order, and how many at once?

Waves are the plan's forecast of a stage: hosts in the order in which they are begun, cut where the budget makes the next
one wait. The rollout fills a place as soon as it is free, so it never has more hosts away than the widest wave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from patchwave.campaign.values import Cell, Count, HostId, Share


@dataclass(frozen=True, kw_only=True, slots=True)
class Wave:
    """Hosts that may be disrupted together; the next wave starts when this one is settled."""

    number: int  # 1-based, as people say it
    hosts: tuple[HostId, ...]


def places(concurrency: Share | Count, domains: Iterable[str]) -> dict[str, int]:
    """How many hosts of each failure domain may be away at once: the share of the domain rounded up, at least one.

    Args:
        domains: the failure domain of every host that serves, one entry a host.
    """
    return {domain: concurrency.of(size) for domain, size in Counter(domains).items()}


def ordered(hosts: Sequence[tuple[HostId, Cell, str, str]]) -> tuple[HostId, ...]:
    """Hosts in the order they are begun: Availability Zones one after the other within a cell, so that two zones are not
    disrupted at the same moment by the same patch.

    Args:
        hosts: (id, cell, zone, name) each.
    """
    return tuple(host for host, *_ in sorted(hosts, key=lambda one: (one[1], one[2], one[3], one[0])))


def split(hosts: Sequence[HostId], domains: Mapping[HostId, str], allowed: Mapping[str, int], *, total: int) -> tuple[Wave, ...]:
    """Cut `hosts` into waves that keep every domain's budget and the stage's.

    Args:
        allowed: places by domain, each at least 1.
        total: places of the whole stage, at least 1.

    Returns:
        Each host in exactly one wave; a host goes into the first wave with room for it.
    """
    made: list[list[HostId]] = []
    used: list[Counter[str]] = []
    first_open = 0
    for host in hosts:
        domain = domains[host]
        for index in range(first_open, len(made)):
            if len(made[index]) < total and used[index][domain] < allowed[domain]:
                break
        else:
            index = len(made)
            made.append([])
            used.append(Counter())
        made[index].append(host)
        used[index][domain] += 1
        while first_open < len(made) and len(made[first_open]) >= total:
            first_open += 1
    return tuple(Wave(number=number, hosts=tuple(ids)) for number, ids in enumerate(made, start=1))
