"""In place or replace? Which way the hosts of a group get their patches, why, and what that way costs and risks.

A stage asks for a strategy; what a group is made from, and who is in it, decides whether it can be had: an instance refresh takes
a whole group, and AWS takes one back only to a numbered version of a launch template. `auto` chooses and says why; `replace`
where it cannot be had is refused, never quietly patched in place. How a replacement then goes on is `replacement`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from patchwave.campaign.replacement import Preferences
from patchwave.campaign.values import Cell, HostId

ALIASES = frozenset({"$Latest", "$Default"})
"""Versions by which AWS cannot take a refresh back (Auto Scaling API reference, RollbackInstanceRefresh); and a scale-out would
launch a version of `$Latest` from the moment it is made, before any checkpoint."""


class Strategy(StrEnum):
    """How hosts get their patches."""

    IN_PLACE = "in_place"  # patches are installed on the host that runs
    REPLACE = "replace"  # another host is launched from a new image, and this one goes
    AUTO = "auto"  # replace what can be replaced, the rest in place


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """An Auto Scaling group as it stands when the plan is made.

    Attributes:
        members: everybody in it, whoever patches them.
        version: of the launch template that the group names, as it names it (``3``, ``$Latest``); None if it names none: it has
            a launch configuration, or several templates.
        alias: the template names a parameter in the place of an image.
    """

    cell: Cell
    group: str
    members: frozenset[HostId]
    version: str | None
    alias: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The way that hosts go, with what a person should know before approving it.

    Attributes:
        group: of the hosts; None for those in no group.
        strategy: `IN_PLACE` or `REPLACE`.
        why, consistency, way_back: one sentence each.
    """

    cell: Cell
    group: str | None
    hosts: tuple[HostId, ...]
    strategy: Strategy
    why: str
    consistency: str
    way_back: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Impossible:
    """Replacing is asked for and cannot be had: no plan is made until the campaign or the group is another."""

    cell: Cell
    group: str | None
    hosts: tuple[HostId, ...]
    reason: str


def choose(
    made: Made, asked: Mapping[HostId, Strategy], *, stateful: Collection[HostId] = ()
) -> tuple[Choice | Impossible, ...]:
    """The way of a group's hosts: one for all of them, or, where some are to be left in place, one for each kind.

    Args:
        asked: what the campaign asks for each host of the stage that is in the group.
        stateful: hosts marked as such: `auto` leaves them, and with them their group, in place.
    """
    for host in sorted(asked):
        if host not in made.members:
            raise ValueError(f"{host} is no member of {made.group}; allowed are hosts of the group")
    against = _against(made, asked, stateful)
    found: list[Choice | Impossible] = []
    for strategy in Strategy:
        hosts = tuple(sorted(host for host, wanted in asked.items() if wanted is strategy))
        if not hosts:
            continue
        match strategy, against:
            case Strategy.IN_PLACE, _:
                found.append(_in_place(made.cell, made.group, hosts, "the campaign says so"))
            case Strategy.REPLACE, str(reason):
                found.append(Impossible(cell=made.cell, group=made.group, hosts=hosts, reason=reason))
            case Strategy.AUTO, str(reason):
                found.append(_in_place(made.cell, made.group, hosts, f"auto: {reason}"))
            case _:
                said = "auto: nothing speaks against it" if strategy is Strategy.AUTO else "the campaign says so"
                found.append(_replace(made, hosts, said))
    return tuple(found)


def alone(cell: Cell, asked: Mapping[HostId, Strategy]) -> tuple[Choice | Impossible, ...]:
    """The way of hosts that are in no group: nobody would launch another one in their place."""
    lone = "in no Auto Scaling group: nobody would launch another host in its place"
    refused = tuple(sorted(host for host, wanted in asked.items() if wanted is Strategy.REPLACE))
    chosen = tuple(sorted(host for host, wanted in asked.items() if wanted is Strategy.AUTO))
    said = tuple(sorted(host for host, wanted in asked.items() if wanted is Strategy.IN_PLACE))
    return (
        *([_in_place(cell, None, said, "the campaign says so")] if said else ()),
        *([Impossible(cell=cell, group=None, hosts=refused, reason=lone)] if refused else ()),
        *([_in_place(cell, None, chosen, f"auto: {lone}")] if chosen else ()),
    )


def _against(made: Made, asked: Mapping[HostId, Strategy], stateful: Collection[HostId]) -> str | None:
    """Why the group cannot be replaced; None if it can."""
    if made.version is None:
        return f"group {made.group} names no single launch template, so there is nothing to make a new version of"
    if made.version in ALIASES:
        return (
            f"group {made.group} names version {made.version} of its launch template: AWS could not take a refresh back; let it "
            "name a number"
        )
    if made.alias:
        return (
            f"the launch template of group {made.group} names a parameter in the place of an image: AWS could not take a refresh "
            "back"
        )
    others = made.members - asked.keys()
    if others:
        return f"{len(others)} hosts of group {made.group} are not of this stage, and a refresh takes the whole group"
    kept = [host for host, wanted in asked.items() if wanted is Strategy.IN_PLACE]
    if kept:
        return f"{len(kept)} hosts of group {made.group} are to be patched in place, and a refresh takes the whole group"
    marked = made.members.intersection(stateful)
    # Who asks for `replace` by name has decided about the mark; one who leaves the choice to us has not.
    if marked and Strategy.AUTO in asked.values():
        return f"{len(marked)} hosts of group {made.group} are marked stateful, and what is on them would go with them"
    return None


def _in_place(cell: Cell, group: str | None, hosts: tuple[HostId, ...], why: str) -> Choice:
    again = f"; the next scale-out of group {group} brings a host as old as its image" if group else ""
    return Choice(
        cell=cell, group=group, hosts=hosts, strategy=Strategy.IN_PLACE, why=why,
        consistency=f"each host keeps what else has changed on it{again}",
        way_back="each host has one of its own, or none",
    )  # fmt: skip


def _replace(made: Made, hosts: tuple[HostId, ...], why: str) -> Choice:
    return Choice(
        cell=made.cell, group=made.group, hosts=hosts, strategy=Strategy.REPLACE, why=why,
        consistency="every host is the same image; what was changed or stored on a host goes with it, and so do its id and "
        "address",
        way_back=f"AWS replaces the new hosts by ones from version {made.version} of the launch template, within the same budget",
    )  # fmt: skip


def replacing_takes(size: int, how: Preferences, *, launch: timedelta) -> timedelta:
    """How long a refresh of `size` instances takes if nothing goes wrong: batches one after the other, pauses and bake time.

    Args:
        launch: from the end of an old instance to a new one in service, warm-up not counted.
    """
    if how.max_healthy is None:
        batch = max(1, size - math.ceil(size * how.min_healthy / 100))
    else:
        batch = max(1, math.floor(size * how.max_healthy / 100) - size)
    # The checkpoint at 100 is the end itself: nothing waits behind it.
    pauses = sum(one < 100 for one in how.checkpoints) * how.checkpoint_delay
    return math.ceil(size / batch) * (launch + (how.warmup or timedelta())) + pauses + how.bake
