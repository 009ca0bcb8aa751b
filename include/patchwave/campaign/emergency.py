"""What cannot wait for the next campaign, and how long is left for it?

The plan, the gates, the run's page and the report show `Clock`s of the vulnerabilities that a run is about; they are made of the
triage and say how long is left at any later moment. The watcher of an emergency campaign asks `urgent` what the policy gives very
little time to, `unhandled` what of it no run is about, and asks people with `question`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from patchwave.campaign import severity
from patchwave.campaign.catalogues import Known
from patchwave.campaign.deadlines import Memo
from patchwave.campaign.definition import VULNERABILITY_ID, Campaign, written_duration
from patchwave.campaign.findings import EC2_INSTANCE, Finding
from patchwave.campaign.forecast import in_words
from patchwave.campaign.policy import Policy
from patchwave.campaign.severity import Assessment, Triage
from patchwave.campaign.values import HostId

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
        where = f"{self.findings} {'finding' if self.findings == 1 else 'findings'} on {self.resources} "
        where += "resource" if self.resources == 1 else "resources"
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


# --- the watcher ------------------------------------------------------------------------------------------------------------

ASK_AGAIN = timedelta(days=1)
"""How long a person's no holds; within three days of a deadline somebody should look at it each day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Urgent:
    """A vulnerability that must be gone soon, and that a patch mends on hosts of the campaign.

    Attributes:
        newest: when the youngest of its findings was first seen: a run that began before was not about that one.
        hosts: how many have it, by stage.
        because: the row that gives the soonest deadline.
    """

    clock: Clock
    newest: datetime
    hosts: Mapping[str, int]
    because: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """What a run of before says about what is to be done now.

    Attributes:
        running: it has not ended.
        silent: it was given up because nobody answered.
        declined_at: when a person said no to it, or to beginning it; None if nobody did.
    """

    vulnerabilities: frozenset[str]
    began_at: datetime
    dry_run: bool = False
    running: bool = False
    silent: bool = False
    declined_at: datetime | None = None

    def handles(self, one: Urgent, *, now: datetime) -> bool:
        """Whether nothing is to be begun for it, because of this run."""
        if self.dry_run or self.silent or one.clock.vulnerability not in self.vulnerabilities:
            return False
        if self.declined_at is not None:
            return now - self.declined_at < ASK_AGAIN
        return self.running or self.began_at >= one.newest


def urgent(
    findings: Iterable[Finding], policy: Policy, known: Known, *, now: datetime, stages: Mapping[HostId, str]
) -> tuple[tuple[Urgent, ...], tuple[Assessment, ...]]:
    """What the policy calls urgent on these hosts, the least time first.

    Args:
        stages: the stage of each host that the campaign patches.

    Returns:
        And the urgent findings that no run of it mends, for people to read.
    """
    memo, most = Memo(), policy.in_emergency.due_within
    short = [
        one
        for one in findings
        if one.resource_type == EC2_INSTANCE
        and one.host in stages
        and (within := policy.deadlines.due(one, known, memo).within) is not None
        and within <= most
    ]
    named: dict[str, list[Assessment]] = {}
    others: list[Assessment] = []
    for judged in severity.classify(short, policy, now=now, coverage=(), known=known).assessments:
        vulnerability = judged.vulnerability.upper()
        mended = judged.wanted and re.fullmatch(VULNERABILITY_ID, vulnerability)
        (named.setdefault(vulnerability, []) if mended else others).append(judged)
    made = [_urgent(vulnerability, its, stages) for vulnerability, its in named.items()]
    return tuple(sorted(made, key=lambda one: _soonest(one.clock))), tuple(others)


def _urgent(vulnerability: str, its: Sequence[Assessment], stages: Mapping[HostId, str]) -> Urgent:
    counted = Counter(stages[host] for host in {one.host for one in its if one.host is not None})
    first = its[0]  # the soonest: the triage has them in this order
    clock = Clock(
        vulnerability=vulnerability, deadline=first.deadline, findings=len(its), resources=len({one.resource for one in its})
    )
    return Urgent(
        clock=clock,
        newest=max(one.first_seen for one in its),
        hosts=dict(counted),
        because=first.deadline_because,
    )


def unhandled(found: Iterable[Urgent], runs: Sequence[Earlier], *, now: datetime) -> tuple[Urgent, ...]:
    """Those that no run is or was about, and to which nobody has said no of late."""
    return tuple(one for one in found if not any(run.handles(one, now=now) for run in runs))


def run_name(vulnerabilities: Iterable[str], runs: Iterable[Earlier]) -> str:
    """The dag run id under which an emergency for them begins.

    Always the same until the ledger knows a run for exactly these: a watcher that is run twice cannot begin two.
    """
    wanted = frozenset(vulnerabilities)
    before = sum(run.vulnerabilities == wanted for run in runs)
    return f"watch__{hashlib.sha256(' '.join(sorted(wanted)).encode()).hexdigest()[:12]}__{before + 1}"


def question(campaign: Campaign, found: Sequence[Urgent], *, now: datetime, within: timedelta) -> tuple[str, str]:
    """What people are asked before an emergency begins: one line, and Markdown below it.

    Args:
        within: the policy's `due_within`.
    """
    first, canary = found[0].clock, campaign.stages[0].name
    count = "1 CVE id" if len(found) == 1 else f"{len(found)} CVE ids"
    subject = f"Start {campaign.name} for {count}? {first.sentence(now)}"
    lines = [
        f"The policy {campaign.policy} gives these no more than {written_duration(within)}, and no run of {campaign.name} is "
        "about them:",
        "",
        "| CVE id | deadline | hosts | why |",
        "|---|---|---|---|",
    ]
    for one in found:
        where = ", ".join(f"{stage.name} {one.hosts[stage.name]}" for stage in campaign.stages if stage.name in one.hosts)
        told = one.clock.sentence(now).partition(": ")[2]
        lines.append(f"| {_cell(one.clock.vulnerability)} | {told} | {where} | {_cell(one.because)} |")
    asked = campaign.stages[0].approval.required
    lines += [
        "",
        f"- **Approve** starts a run of {campaign.name} that patches, no dry run: "
        + (f"stage {canary} is asked about first" if asked else f"the hosts of stage {canary} that have them at once")
        + "; every later stage is asked about. You have asked for that run then, so your yes does not count at its gates.",
        f"- **Reject**: nothing is started, and nobody is asked about these CVE ids for {in_words(ASK_AGAIN)}.",
        "- **No answer**: nothing is started. It is asked again in about an hour, with what is true then.",
    ]
    return subject, "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    flat = " ".join(text.splitlines()).replace("\\", "\\\\")
    return flat.replace("|", "\\|").replace("[", "\\[").replace("`", "'").replace("<", "&lt;")
