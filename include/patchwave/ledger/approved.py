"""Which plan holds for a stage, and which of this campaign did people agree to last?

The first is asked by every task and by whoever stops a stage; the second by a gate and by the command line, to say what is new.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from patchwave.campaign import evidence
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.plan import Plan
from patchwave.campaign.values import RunId
from patchwave.ledger.store import Ledger, Run

MOST_RUNS = 200
"""How far back is looked: weekly runs of four years."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Approved:
    """A plan that somebody said yes to, for one of its stages at least."""

    run: Run
    plan: Plan
    decision: Decision


def in_force(ledger: Ledger, run: RunId, *, stage: str | None = None) -> Plan:
    """The plan that holds for a stage of the run: a gate may have changed it since it was made.

    Args:
        stage: None: the newest, which has every stage as it was changed last.

    Raises:
        KeyError: the run has no plan.
    """
    first = plans.from_json(ledger.document(run, plans.PLAN))
    name = plans.in_force(ledger.documents(run), [one.name for one in first.stages], stage=stage)
    return first if name == plans.PLAN else plans.from_json(ledger.document(run, name))


def newest(ledger: Ledger, campaign: str, *, before: RunId | None = None, stage: str | None = None) -> Approved | None:
    """The newest plan of the campaign with a yes; None if there is none, or only of versions that nobody can read now.

    Args:
        before: the run that asks; it and runs that began after it are left out.
        stage: only a yes to that stage counts; None: to any.
    """
    runs = ledger.runs(campaign=campaign, limit=MOST_RUNS)
    asking = next((run for run in runs if run.id == before), None)
    for run in runs:
        if run.id == before or (asking is not None and run.began_at > asking.began_at):
            continue
        for decision in reversed(ledger.decisions(run.id)):
            if decision.verdict is not Verdict.APPROVED or (stage is not None and decision.stage != stage):
                continue
            try:
                plan = _plan(ledger, run.id, decision.plan)
            except ValidationError:
                break
            if plan is not None:
                return Approved(run=run, plan=plan, decision=decision)
    return None


def _plan(ledger: Ledger, run: RunId, digest: str) -> Plan | None:
    documents = ledger.documents(run)
    for name in plans.plan_names(documents):
        if documents[name] == digest:
            return plans.from_json(ledger.document(run, name))
    return None


def policy_digest(run: Run) -> str:
    """Names the policy that the run was made under."""
    return evidence.digest(dict(run.policy))
