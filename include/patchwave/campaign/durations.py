"""How long does a step of this stage take on the hosts of one command?

The executor asks before it waits: when is a command worth a first look, and from when on are those late that it has not ended
on? Learned from the stage's own commands, by AWS's clock; what earlier runs took is `windows.expected`'s business, for that is
about the worst cases and this about the usual one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from patchwave.campaign.rollout import EXPECTED, DispatchRow, DispatchState, StepKind

ODD = 1.3
"""What took this many times the median was held up by something; nobody waits so long for the next one without a look."""
LISTED = timedelta(seconds=2)
"""How long after its end on the last host AWS may still list a command as running."""
LATE = 1.75
"""Hosts of one command go on together, so that each next step is one call; those on which it has ended wait for the others until
this many times what it usually takes has passed, then they go on without them."""

_ALIKE = {StepKind.SCAN: (StepKind.SCAN, StepKind.VERIFY), StepKind.VERIFY: (StepKind.VERIFY, StepKind.SCAN)}


def took(step: StepKind, dispatches: Iterable[DispatchRow], *, hosts: int = 1) -> list[timedelta]:
    """How long the stage's commands of that step took, the quickest first.

    Args:
        hosts: of the command that is asked for. A command lasts as long as its slowest host, so those that had much fewer
            hosts tell nothing about one with many; they are asked only when there is no other.
    """
    ended = [one for one in dispatches if one.state is DispatchState.ENDED and one.ended_at and one.requested_at]
    for alike in _ALIKE.get(step, (step,)):
        found = [(len(one.hosts), one.ended_at - one.requested_at) for one in ended if one.step is alike]  # type: ignore[operator]
        large = [time for size, time in found if 2 * size >= hosts]
        if found:
            return sorted(time for time in large or [time for _, time in found] if time > timedelta())
    return []


def usual_time(step: StepKind, dispatches: Iterable[DispatchRow], *, hosts: int = 1) -> tuple[timedelta, bool]:
    """How long after AWS's acceptance a command to so many hosts is worth the first look.

    That is when the slowest one so far had ended, the odd ones left out: a look before costs a call for nothing.

    Returns:
        The time, and whether it was learned in this stage; if not, it is what such a step usually takes.
    """
    seen = took(step, dispatches, hosts=hosts)
    if not seen:
        return EXPECTED[step], False
    median = seen[len(seen) // 2]
    return max(time for time in seen if time <= ODD * median) + LISTED, True


def late_time(step: StepKind, dispatches: Iterable[DispatchRow]) -> timedelta:
    """How long hosts on which a step has ended wait for the others of their command; a quick stage makes nobody late."""
    seen = took(step, dispatches)
    return LATE * max(EXPECTED[step], seen[len(seen) // 2] if seen else timedelta())
