"""In which order, and how many at once?

Waves are the plan's forecast of a stage: hosts in the order in which they are begun, cut where the budget makes the next
one wait. The rollout fills a place as soon as it is free, so it never has more hosts away than the widest wave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchwave.campaign.values import Cell, Count, HostId, Share


@dataclass(frozen=True, kw_only=True, slots=True)
class Wave:
    """Hosts that may be disrupted together; the next wave starts when this one is settled."""

    number: int  # 1-based, as people say it
    hosts: tuple[HostId, ...]


DEFAULTS: tuple[tuple[int, Count | Share], ...] = (
    (24, Count(1)),
    (100, Share(0.05)),
    (1000, Share(0.08)),
)
LARGEST_DEFAULT = Share(0.10)
DEFAULTS_SOURCE = "AWS's table for Patch now"
"""Systems Manager user guide, "Patching managed nodes on demand", table Concurrency: fewer than 25 nodes one at a time, 25-100
5 %, 101 to 1,000 8 %, more than 1,000 10 %."""


def default_concurrency(size: int) -> Count | Share:
    """How many of `size` hosts may be away at once where the campaign does not say: whoever has fewer can miss fewer."""
    return next((concurrency for most, concurrency in DEFAULTS if size <= most), LARGEST_DEFAULT)


def concurrency(text: str) -> Count | Share:
    """The concurrency whose ``str`` that is, as a plan keeps it (``10 %``, ``5 hosts``).

    Raises:
        ValueError: it is none.
    """
    return Share.parse(text) if "%" in text else Count(int(text.split()[0]))


def places(concurrency: Share | Count, size: int, *, minimum: int = 0) -> int:
    """How many hosts of a failure domain may be away at once: the share of it rounded up, never so many that fewer than
    `minimum` are left, and at least one: with none at all nobody would ever be patched.

    Args:
        size: hosts that serve in it.
    """
    return max(1, min(concurrency.of(size), size - minimum))


def ordered(hosts: Sequence[tuple[HostId, Cell, str, str]]) -> tuple[HostId, ...]:
    """Hosts in the order they are begun: each Availability Zone's hosts spread evenly over the whole, by name within it.

    Every zone has a budget of its own (as in GCP VM Manager, whose disruption budget is per zone), so taking one zone after
    the other would leave the places of all others empty.

    Args:
        hosts: (id, cell, zone, name) each.
    """
    zones: dict[tuple[Cell, str], list[tuple[HostId, Cell, str, str]]] = {}
    for one in sorted(hosts, key=lambda one: (one[1], one[2], one[3], one[0])):
        zones.setdefault((one[1], one[2]), []).append(one)
    spread = [
        ((2 * number + 1) / (2 * len(members)), *place, one[0])
        for place, members in zones.items()
        for number, one in enumerate(members)
    ]
    return tuple(host for *_, host in sorted(spread))


def split(hosts: Sequence[HostId], domains: Mapping[HostId, Sequence[str]], allowed: Mapping[str, int]) -> tuple[Wave, ...]:
    """Cut `hosts` into waves that keep the budget of every domain that a host is in, the stage's among them.

    Args:
        allowed: places by domain, each at least 1.

    Returns:
        Each host in exactly one wave; a host goes into the first wave with room for it.
    """
    made: list[list[HostId]] = []
    used: list[Counter[str]] = []
    full = 0  # waves before this one have no room for anybody
    for host in hosts:
        mine = domains[host]
        for index in range(full, len(made)):
            if all(used[index][domain] < allowed[domain] for domain in mine):
                break
        else:
            index = len(made)
            made.append([])
            used.append(Counter())
        made[index].append(host)
        used[index].update(mine)
        while full < len(made) and used[full][mine[-1]] >= allowed[mine[-1]]:
            full += 1
    return tuple(Wave(number=number, hosts=tuple(ids)) for number, ids in enumerate(made, start=1))
