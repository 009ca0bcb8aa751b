"""Why has each host of a plan to be patched by when: which rows of the policy did its findings meet?

The plan's text shows this, also at a gate (`plan.markdown`). Who judges the findings is `severity`; each of them with its rows is
in the report.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from patchwave.campaign.policy import Track
from patchwave.campaign.severity import LEFT_OVER, Assessment
from patchwave.campaign.values import HostId

MOST = 50
"""So many rows stand in the plan's text, the most urgent ones: it stays readable at a gate also where CISA lists hundreds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Findings that met the same rows.

    Attributes:
        track: and by which row of the matrix, `matrix`.
        deadline: by which row of the table, and with which answers; empty in runs of before there was such a sentence.
        soonest: the earliest deadline among them; None if they have none.
        overdue: it has passed.
    """

    track: Track
    matrix: str
    deadline: str
    findings: int
    hosts: int
    soonest: datetime | None
    overdue: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Reasons:
    """What `of` found.

    Attributes:
        rows: most urgent first.
        deciding: for each host, the number (from 1) of the row that its earliest deadline is owed to.
    """

    rows: tuple[Reason, ...] = ()
    deciding: Mapping[HostId, int] = field(default_factory=dict)


def of(hosts: Collection[HostId], assessments: Iterable[Assessment]) -> Reasons:
    """Why these hosts are to be patched: their selected findings that an OS patch mends.

    Args:
        assessments: of a triage, most urgent first; taken one at a time.
    """
    groups: dict[tuple[Track, str, str], list[int]] = {}
    having: list[set[HostId]] = []
    firsts: list[Assessment] = []
    deciding: dict[HostId, int] = {}
    chosen = frozenset(hosts)
    for one in assessments:
        if one.host is None or one.host not in chosen or not one.wanted:
            continue
        key = (one.track, one.reason.partition(LEFT_OVER)[0], one.deadline_because)
        group = groups.get(key)
        if group is None:
            group = groups[key] = [len(firsts), 0]
            firsts.append(one)
            having.append(set())
        group[1] += 1
        having[group[0]].add(one.host)
        deciding.setdefault(one.host, group[0] + 1)
    rows = tuple(
        Reason(
            track=track, matrix=matrix, deadline=because, findings=findings, hosts=len(having[place]),
            soonest=firsts[place].deadline, overdue=firsts[place].overdue,
        )
        for (track, matrix, because), (place, findings) in groups.items()
    )  # fmt: skip
    return Reasons(rows=rows, deciding=deciding)
