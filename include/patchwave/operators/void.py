"""Does what people agreed to still stand? Asked when the last of them answers, and again before the stage's first command.

Days may lie between the plan, the yes and the opening of the window: an approval is of the hosts and the lockfile that were
shown, and void if those are others now by more than the campaign tolerates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from patchwave.campaign import approval
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import VOIDED, Relocked
from patchwave.campaign.plan import Plan, StagePlan
from patchwave.campaign.values import HostId, StageName
from patchwave.execution import promotion
from patchwave.operators.base import Work
from patchwave.operators.plan import fleet_now, made_of, text_now

LEFT_OUT = "left out at the gate by"
"""How the reason of an exclusion begins that somebody wished who said yes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """The stage is not what was shown.

    Attributes:
        renewed: the plan to ask about instead, with a digest of its own: no answer to the one before counts for it.
        lockfile: how the lockfile differs, a sentence each.
    """

    reason: str
    renewed: Plan
    added: tuple[HostId, ...] = ()
    removed: tuple[HostId, ...] = ()
    lockfile: tuple[str, ...] = ()


def changed(work: Work, stage: StagePlan) -> Changed | None:
    """How the stage differs now from what was shown, by more than is tolerated; None if it is the same."""
    hosts, patches = changed_hosts(work, stage), _changed_lockfile(work, stage)
    if patches is None:
        return hosts
    if hosts is None:
        # The same hosts, but another question: it needs another digest.
        again = replace(work.plan, created=work.now)
        return Changed(reason=str(patches), renewed=again, lockfile=patches.changes)
    return replace(hosts, reason=f"{hosts.reason}; {patches}", lockfile=patches.changes)


def changed_hosts(work: Work, stage: StagePlan) -> Changed | None:
    """How its hosts differ from those of the plan."""
    if stage.tolerance is None:
        return None
    hosts, groups = fleet_now(work)
    work.count_calls({})
    renewed = plans.renewed(work.plan, made_of(work, hosts, groups, expected=work.plan.expected), stage.name)
    for one in work.plan.exclusions:
        if one.reason.startswith(LEFT_OUT):  # of the run, whatever is asked again
            renewed = plans.without(renewed, stage.name, [one.host], reason=one.reason)
    now = [host.id for host in renewed.stage(stage.name).hosts]
    gone = approval.void([host.id for host in stage.hosts], now, stage.tolerance)
    return None if gone is None else Changed(reason=str(gone), renewed=renewed, added=gone.added, removed=gone.removed)


def promoted(work: Work, stage: StageName) -> bool:
    """Whether a lockfile says what the stage gets."""
    return work.campaign.is_locked(stage)


def _changed_lockfile(work: Work, stage: StagePlan) -> Relocked | None:
    """How the lockfile that would be used differs from the one that was shown."""
    if not promoted(work, stage.name):
        return None
    shown = promotion.shown(work.ledger, work.run_id, stage.name)
    held = promotion.holding(work.ledger, work.run_id, work.campaign.name)
    return None if shown is None or held is None else approval.relocked(shown, held[1], stage.tolerance)


def record(work: Work, stage: StageName, reason: str, *, yes: Iterable[str], changed: Changed | None = None) -> None:
    """Write down that an approval is void.

    Args:
        yes: who had agreed.
        changed: None: the plan is the same, and other things speak against it.
    """
    data: dict[str, Any] = {
        "stage": stage, "plan": plans.digest(work.plan), "reason": reason, "yes": list(yes),
        "added": list(changed.added) if changed else [], "removed": list(changed.removed) if changed else [],
        "lockfile": list(changed.lockfile) if changed else [],
    }  # fmt: skip
    work.ledger.record(work.run_id, VOIDED, data, at=work.now)


def change_plan(work: Work, plan: Plan, stage: str) -> None:
    """Store another plan for a stage, and its page."""
    hosts = fleet_now(work)[0] if work.policy.baselines else []
    work.change_plan(plan, stage=stage, text=text_now(work, plan, hosts))
