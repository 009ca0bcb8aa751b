"""One deferrable task a stage: it carries the stage's plan out until each host is settled.

`work` is its resume: it runs again after every wait, retry and clear, even beside an orphan of an earlier try. The lease in
the ledger decides who may act, intents stand there before effects, and commands are adopted by their token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from patchwave.aws import console
from patchwave.campaign import approval
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Closed, Verdict
from patchwave.campaign.definition import Event
from patchwave.campaign.errors import NotApproved, Permanent
from patchwave.campaign.plan import StagePlan
from patchwave.campaign.rollout import Done, Halt, Wait
from patchwave.campaign.values import StageName
from patchwave.execution.executor import SETTLING, StageExecutor, wait_for
from patchwave.hooks import clock
from patchwave.ledger.store import Lease, StageState
from patchwave.operators import stages
from patchwave.operators.base import CampaignOperator, Work
from patchwave.operators.links import RunCommandConsoleLink, RunPageLink
from patchwave.operators.notifications import tell
from patchwave.triggers.watch import CommandsTrigger

NOT_WORTH_DEFERRING = 1.0
"""Real seconds. A deferral costs a worker's start, about two seconds of a core; a wait that usually ends sooner than this is
waited out in place. In real time no step is that short: this is for rehearsals, whose clock runs hundreds of times faster."""

LOOKS = 8
"""How often a short wait is looked at again, a quarter of `NOT_WORTH_DEFERRING` apart, before it is deferred all the same."""


class StageHalted(Permanent):
    """A rule of the rollout stopped this stage."""


class PatchStageOperator(CampaignOperator):
    """Patches one stage as planned and approved.

    Args:
        stage: name of the stage.
        poll: real seconds between two looks at commands in flight.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "stage")
    operator_extra_links = (RunPageLink(), RunCommandConsoleLink())

    def __init__(self, *, stage: str, poll: float = 15.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.poll = poll

    def work(self, work: Work) -> dict[str, int]:
        """Returns the stage's hosts by terminal class.

        Raises:
            NotApproved: the ledger holds no approval of this plan.
            StageHalted: a rule stopped it; clearing the task goes on with the hosts that are not settled.
        """
        stage = stages.reached(work, self.stage)
        self._check_gate(work, stage)
        name = StageName(self.stage)
        before = work.ledger.stage(work.run_id, name)
        lease = work.ledger.acquire(work.run_id, name, work.holder, at=work.now)
        if before.state is not StageState.PATCHING:
            work.ledger.set_stage(lease, StageState.PATCHING, reason="", at=work.now)
        work.ledger.add_hosts(lease, plans.rows(work.plan, stage, now=work.now))
        executor = StageExecutor(
            ledger=work.ledger,
            gateway=work.gateway,
            lease=lease,
            rules=plans.rules(work.plan, stage),
            campaign=work.plan.campaign,
            now=clock.now,
            log=self.log,
            settling=SETTLING * clock.speed(),
            errors_since=before.halted_at,
            look_again=_Patience(),
        )
        return self._follow(work, lease, executor.advance())

    def _check_gate(self, work: Work, stage: StagePlan) -> None:
        """Read the decision from the ledger, whatever the state of the gate's task, and fail closed."""
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

    def _follow(self, work: Work, lease: Lease, decision: Wait | Halt | Done) -> dict[str, int]:
        match decision:
            case Wait():
                self.say_wait(work, subject=self.stage, reason=decision.reason, ends=decision.ends, until=decision.until)
                commands = wait_for(decision, work.ledger.dispatches(work.run_id, lease.stage))
                self.defer(
                    trigger=CommandsTrigger(
                        commands=commands,
                        until=decision.until.isoformat(),
                        aws_conn_id=self.aws_conn_id,
                        poll=max(0.5, self.poll / clock.speed()),
                    ),
                    method_name="execute_complete",
                )
                raise AssertionError("defer does not return")
            case Halt():
                work.ledger.end_wait(work.run_id, self.stage, at=work.now)
                text = f"{decision.rule}: {decision.reason} ({', '.join(decision.hosts)}); {decision.advice}"
                work.ledger.set_stage(lease, StageState.HALTED, reason=text, at=work.now)
                self._leave_link(work)
                tell(work.campaign, Event.STAGE_HALTED, f"stage {self.stage}: {text}", to=self.log)
                raise StageHalted(f"Stage {self.stage} is halted. {text}")
            case Done():
                work.ledger.end_wait(work.run_id, self.stage, at=work.now)
                work.ledger.set_stage(lease, StageState.PATCHED, reason="each host is settled", at=work.now)
                self._leave_link(work)
                return {state.value: count for state, count in decision.classes.items()}

    def _leave_link(self, work: Work) -> None:
        sent = [row for row in work.ledger.dispatches(work.run_id, StageName(self.stage)) if row.command]
        if sent:
            work.context["ti"].xcom_push(key="console_url", value=console.command(sent[-1].cell.region, str(sent[-1].command)))

    def on_kill(self) -> None:
        """Airflow ends this process; the next try, or a clear, goes on from the ledger. Nothing is left half written."""
        self.log.info("Stopped; what is in flight stands in the ledger and is adopted by whoever resumes")


class _Patience:
    """Waits a short wait out; the count begins anew with each wait that says something else."""

    def __init__(self) -> None:
        self._reason = ""
        self._looks = 0

    def __call__(self, wait: Wait) -> bool:
        if wait.expected is None or wait.expected.total_seconds() / clock.speed() > NOT_WORTH_DEFERRING:
            return False
        self._looks = self._looks + 1 if wait.reason == self._reason else 1
        self._reason = wait.reason
        if self._looks > LOOKS:
            return False
        time.sleep(NOT_WORTH_DEFERRING / 4)
        return True
