"""Is it this stage's turn? Asked of the ledger by every task of a stage, whatever the states of Airflow's tasks say."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowSkipException

from patchwave.campaign import approval
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Closed, Verdict
from patchwave.campaign.errors import NotApproved, Permanent
from patchwave.campaign.plan import StagePlan
from patchwave.campaign.rollout import HostState
from patchwave.ledger.store import StageState
from patchwave.operators.base import PLAN, Work

TRIED = frozenset({HostState.PATCHED, HostState.ALREADY_COMPLIANT, HostState.PENDING_REBOOT})
"""Classes of hosts that run with the patches."""


def reached(work: Work, name: str) -> StagePlan:
    """The stage's plan, if the run has come to it.

    Raises:
        AirflowSkipException: there is nothing to do in it: dry run, not chosen, or an earlier stage was rejected.
        Permanent: an earlier stage has not ended well, so this one must not begin.
    """
    if PLAN not in work.ledger.documents(work.run_id):
        raise AirflowSkipException("this run has no plan, so nothing is begun")
    plan = work.plan
    if plan.dry_run:
        raise AirflowSkipException("a dry run ends with its plan")
    try:
        stage = plan.stage(name)
    except KeyError:
        raise AirflowSkipException(f"stage {name} is not in the plan of this run") from None
    states = {row.stage: row for row in work.ledger.stages(work.run_id)}
    for earlier in plan.stages[: plan.stages.index(stage)]:
        row = states[earlier.name]
        if row.state is StageState.SKIPPED:
            raise AirflowSkipException(f"stage {earlier.name} before it was skipped: {row.reason}")
        if row.state is not StageState.PATCHED:
            raise Permanent(
                f"stage {earlier.name} before it is {row.state.value}{': ' + row.reason if row.reason else ''}; "
                f"stage {name} begins only after it is patched"
            )
    _check_canary(work, name)
    return stage


def _check_canary(work: Work, name: str) -> None:
    """In an emergency, a canary of which every host was gone, stopped or left out has tried nothing."""
    canary = work.campaign.canary
    if canary is None or name == canary.name:
        return
    rows = work.ledger.hosts(work.run_id, canary.name)
    if not any(row.state in TRIED for row in rows):
        classes = ", ".join(sorted({row.state.value for row in rows})) or "none"
        raise Permanent(
            f"no host of stage {canary.name}, the canary, runs with the patches (its hosts: {classes}), so nothing is tried "
            f"before stage {name}; it is not patched. Trigger another run when a host of {canary.name} can be patched"
        )


def check_gate(work: Work, stage: StagePlan) -> None:
    """Read the decision from the ledger, whatever the state of the gate's task, and fail closed.

    Raises:
        AirflowSkipException: somebody said no.
        NotApproved: nobody said yes to this plan.
    """
    answer = approval.may_patch(
        stage=stage.name,
        plan=plans.digest(work.plan),
        required=stage.approval_required,
        approvers=stage.approvers,
        decisions=work.ledger.decisions(work.run_id),
    )
    if not isinstance(answer, Closed):
        return
    if answer.decision is not None and answer.decision.verdict is not Verdict.APPROVED:
        raise AirflowSkipException(answer.reason)
    work.ledger.record(work.run_id, "gate.closed", {"stage": stage.name, "reason": answer.reason}, at=work.now)
    raise NotApproved(f"{answer.reason}; nothing is patched. Clear the gate's task to be asked.")
