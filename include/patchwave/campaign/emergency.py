"""What cannot wait for the next campaign, and how long is left for it?

The plan, the gates, the run's page and the report show `Clock`s of the vulnerabilities that a run is about; they are made of the
triage and say how long is left at any later moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from patchwave.campaign.forecast import in_words
from patchwave.campaign.severity import Triage

MOST_CLOCKS = 10
"""So many vulnerabilities are told with their clock, those with the least time first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """By when one vulnerability must be gone.

    Attributes:
        deadline: the soonest one of its findings; None if the policy sets none, or if there is no finding.
        findings: so many are active.
        resources: hosts and others that have it.
    """

    vulnerability: str
    deadline: datetime | None
    findings: int
    resources: int

    def sentence(self, now: datetime) -> str:
        """How long is left at `now`."""
        if not self.findings:
            return f"{self.vulnerability}: found nowhere in the scope; a typing error, or it is gone"
        where = f"{self.findings} {'finding' if self.findings == 1 else 'findings'} on {self.resources}"
        if self.deadline is None:
            return f"{self.vulnerability}: no deadline by the policy ({where})"
        left = self.deadline - now
        if left < timedelta():
            return f"{self.vulnerability}: overdue by {in_words(-left)}, since {self.deadline:%Y-%m-%d %H:%M} UTC ({where})"
        return f"{self.vulnerability}: {in_words(left)} left, until {self.deadline:%Y-%m-%d %H:%M} UTC ({where})"


def clocks(triage: Triage) -> tuple[Clock, ...]:
    """A clock for each vulnerability that the run was started for, the least time first; none if it names none."""
    found: dict[str, list[tuple[datetime | None, str]]] = {one: [] for one in triage.restriction.vulnerabilities}
    if not found:
        return ()
    for one in triage.selected():
        found.setdefault(one.vulnerability.upper(), []).append((one.deadline, one.resource))
    made = [
        Clock(
            vulnerability=vulnerability,
            deadline=min((deadline for deadline, _ in its if deadline is not None), default=None),
            findings=len(its),
            resources=len({resource for _, resource in its}),
        )
        for vulnerability, its in found.items()
    ]
    return tuple(sorted(made, key=_soonest))


def _soonest(clock: Clock) -> tuple[bool, float, str]:
    deadline = clock.deadline
    return deadline is None, deadline.timestamp() if deadline else 0.0, clock.vulnerability


def sentences(of: Sequence[Clock], now: datetime) -> tuple[str, ...]:
    """What the clocks show at `now`, the least time first, `MOST_CLOCKS` at most."""
    told = [clock.sentence(now) for clock in of[:MOST_CLOCKS]]
    more = len(of) - len(told)
    return (*told, f"and {more} more, with as much time or more") if more > 0 else tuple(told)


def to_json(of: Iterable[Clock]) -> Any:
    """As the ledger stores them."""
    return _stored().dump_python(tuple(of), mode="json")


def from_json(content: Any) -> tuple[Clock, ...]:
    """What `to_json` wrote."""
    return _stored().validate_python(content)


@cache
def _stored() -> TypeAdapter[tuple[Clock, ...]]:
    return TypeAdapter(tuple[Clock, ...])


DOCUMENT = "deadline.clock"
"""Name of the document with the clocks of a run."""
