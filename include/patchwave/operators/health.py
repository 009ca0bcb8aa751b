"""After a stage: is it healthy, and does it stay so for a while? Neither wait holds a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from patchwave.campaign.definition import Event
from patchwave.campaign.errors import Permanent
from patchwave.campaign.fleet import Health
from patchwave.campaign.plan import StagePlan
from patchwave.campaign.rollout import HostState
from patchwave.campaign.values import Cell, Count, HostId, StageName
from patchwave.execution import stopping
from patchwave.ledger.changes import EXPLAINED, explained
from patchwave.ledger.store import StageRow, StageState
from patchwave.operators import findings, stages
from patchwave.operators.base import CampaignOperator, Work
from patchwave.operators.notifications import tell

LOOK_AGAIN = timedelta(minutes=2)
"""EC2's status checks are made every minute, the agent's ping lags up to five."""

READ_AGAIN = timedelta(hours=1)
"""CISA adds to its catalogue several times a week, at any hour."""

SERVING = frozenset({HostState.PATCHED, HostState.ALREADY_COMPLIANT, HostState.PENDING_REBOOT})
"""Classes of hosts that have to serve after their stage; for all others the rollout has said already what is wrong."""


ILL = "health: "
"""How the reason of a halt begins that this task is the cause of."""

MOST_NAMED = 10
"""Hosts that a sentence about health names."""


class Unhealthy(Permanent):
    """Hosts of a stage are not healthy after it was patched."""


class HealthOperator(CampaignOperator):
    """Waits until the stage's hosts pass EC2's, Systems Manager's and Auto Scaling's checks.

    Args:
        stage: name of the stage.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "stage")

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage

    def work(self, work: Work) -> int:
        """Returns how many hosts are healthy.

        Raises:
            Unhealthy: not all are within the campaign's limit; the stage is halted by that, and the next one stays shut.
        """
        stage = stages.reached(work, self.stage)
        row = self._opened_again(work)
        if row.state is not StageState.PATCHED or row.ended_at is None:
            raise Permanent(f"stage {self.stage} is {row.state.value}, not patched: {row.reason or 'its task has not run'}")
        sick = unhealthy(work, stage)
        subject = f"health of {self.stage}"
        if not sick:
            work.ledger.end_wait(work.run_id, subject, at=work.now)
            count = sum(1 for host in work.ledger.hosts(work.run_id, StageName(self.stage)) if host.state in SERVING)
            self.log.info("All %d hosts are healthy", count)
            return count
        until = row.ended_at + stage.health_timeout
        who = named(sick)
        if work.now < until:
            self.wait(
                work,
                subject=subject,
                reason=f"{len(sick)} hosts are not healthy yet: {who}",
                ends="they pass their checks",
                until=until,
                look_at=min(until, work.now + LOOK_AGAIN),
            )
        work.ledger.end_wait(work.run_id, subject, at=work.now)
        text = f"{ILL}{len(sick)} hosts are not healthy {stage.health_timeout} after the stage was patched: {who}"
        lease = work.ledger.acquire(work.run_id, StageName(self.stage), work.holder, at=work.now)
        hosts = [health.host for health in sick]
        why = explained(self.stage, "health", text, hosts, "mend the hosts named, then clear this task: it looks at them again")
        work.ledger.record(work.run_id, EXPLAINED, why, at=work.now)
        work.ledger.set_stage(lease, StageState.HALTED, reason=text, at=work.now)
        tell(work.campaign, Event.STAGE_HALTED, f"stage {self.stage}: {text}", to=self.log)
        raise Unhealthy(f"Stage {self.stage}: {text}. Nothing further is patched.")

    def _opened_again(self, work: Work) -> StageRow:
        """The stage. One that this task has halted is patched as before once a person has cleared the task, as the halt advises:
        its hosts have the whole time again, and if they are not healthy then, it is halted again."""
        name = StageName(self.stage)
        row = work.ledger.stage(work.run_id, name)
        if row.state is StageState.HALTED and row.reason.startswith(ILL) and stopping.was_cleared(row.holder, work.holder):
            lease = work.ledger.acquire(work.run_id, name, work.holder, at=work.now, seen=row.fencing)
            reason = "each host is settled; the task was cleared, so its health is looked at again"
            work.ledger.set_stage(lease, StageState.PATCHED, reason=reason, at=work.now)
            self.log.info("Stage %s: %s", name, reason)
        return work.ledger.stage(work.run_id, name)


def unhealthy(work: Work, stage: StagePlan) -> list[Health]:
    """Hosts of a stage that have to serve after it and do not, as AWS says now."""
    cells: dict[Cell, list[HostId]] = {}
    for row in work.ledger.hosts(work.run_id, stage.name):
        if row.state in SERVING:
            cells.setdefault(row.cell, []).append(row.host)
    found = (health for cell, ids in cells.items() for health in work.gateway.health(cell, ids, stage.health_checks))
    return [health for health in found if not health.healthy]


def patched_before(work: Work, stage: str) -> list[StagePlan]:
    """Stages before that one which this run has patched."""
    states = {row.stage: row.state for row in work.ledger.stages(work.run_id)}
    names = [str(one.name) for one in work.plan.stages]
    return [one for one in work.plan.stages[: names.index(stage)] if states[one.name] is StageState.PATCHED]


def unhealthy_before(work: Work, stage: str) -> dict[StageName, list[Health]]:
    """Hosts of the stages before that one which this run has patched and which are not healthy now, by stage.

    A host that is gone by now serves nobody: capacity comes and goes, and its stage has passed its checks.
    """
    found = {one.name: [sick for sick in unhealthy(work, one) if not sick.gone] for one in patched_before(work, stage)}
    return {name: sick for name, sick in found.items() if sick}


def sentence(sick: Mapping[StageName, Sequence[Health]]) -> str:
    """Who is not healthy, for people; empty if everybody is."""
    return "; ".join(
        f"{Count(len(its))} of {stage} {'is' if len(its) == 1 else 'are'} not healthy: {named(its)}"
        for stage, its in sick.items()
    )


def named(sick: Sequence[Health]) -> str:
    """The first of them with what is wrong."""
    more = f" and {len(sick) - MOST_NAMED} more" if len(sick) > MOST_NAMED else ""
    return "; ".join(str(health) for health in sick[:MOST_NAMED]) + more


class SoakOperator(CampaignOperator):
    """Lets a patched stage run for a while before the next one begins.

    Where the policy goes by CISA's catalogue, it is read again every hour: what becomes more urgent meanwhile changes the triage
    and is named in the reason of the wait.

    Args:
        stage: name of the stage.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "stage")

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage

    def work(self, work: Work) -> None:
        """Ends when the soak is over; it counts from the moment the stage was patched, so being run again costs nothing."""
        stage = stages.reached(work, self.stage)
        row = work.ledger.stage(work.run_id, StageName(self.stage))
        if row.state is not StageState.PATCHED or row.ended_at is None:
            raise Permanent(f"stage {self.stage} is {row.state.value}, not patched: {row.reason or 'its task has not run'}")
        until = row.ended_at + stage.soak
        subject = f"soak of {self.stage}"
        if work.now < until:
            news = findings.news(work, self.log)
            soaks = f"stage {self.stage} soaks for {stage.soak} before anything further is patched"
            goes_by_catalogue = work.policy.deadlines.wanted.catalogue is not None
            self.wait(
                work,
                subject=subject,
                reason=f"{soaks}; {news}" if news else soaks,
                ends="the time is over",
                until=until,
                look_at=min(until, work.now + READ_AGAIN) if goes_by_catalogue else until,
            )
        work.ledger.end_wait(work.run_id, subject, at=work.now)
