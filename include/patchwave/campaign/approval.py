"""Who agreed to this plan?

A decision is bound to a plan's digest. `may_patch` is what stands between a gate and a stage: it reads decisions, never
the state of a gate's task, and fails closed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from patchwave.campaign.values import RunId, StageName


class Verdict(StrEnum):
    """What a gate was answered."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"  # nobody answered in time, which means no


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One answer at one gate.

    Attributes:
        plan: digest of the plan that was shown.
        author: login name; ``-`` when nobody answered.
    """

    run: RunId
    stage: StageName
    plan: str
    verdict: Verdict
    author: str
    at: datetime
    comment: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """The stage may be patched."""

    decision: Decision | None  # None where the campaign asks nobody


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """The stage must not be patched, and why."""

    reason: str
    decision: Decision | None = None


def may_patch(
    *, stage: StageName, plan: str, required: bool, approvers: Iterable[str], decisions: Iterable[Decision]
) -> Open | Closed:
    """Whether the ledger's decisions open `stage` for the plan with digest `plan`.

    Args:
        approvers: login names that may say yes; empty means anybody who is signed in and may answer.
    """
    if not required:
        return Open(decision=None)
    mine = [decision for decision in decisions if decision.stage == stage]
    fitting = [decision for decision in mine if decision.plan == plan]
    if not fitting:
        other = " (there is one for another plan)" if mine else ""
        return Closed(reason=f"the ledger holds no decision on stage {stage} for plan {plan[:12]}{other}")
    decision = min(fitting, key=lambda one: one.at)  # the first decision on a plan stands
    if decision.verdict is not Verdict.APPROVED:
        return Closed(reason=f"stage {stage} was {decision.verdict.value} by {decision.author}", decision=decision)
    allowed = frozenset(approvers)
    if allowed and decision.author not in allowed:
        return Closed(
            reason=f"{decision.author} may not approve stage {stage}; {', '.join(sorted(allowed))} may", decision=decision
        )
    return Open(decision=decision)
