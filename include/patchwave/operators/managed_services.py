"""After a stage's hosts: its databases and functions, in one deferrable task.

It works under the stage's own lease, and the stage is not patched until they are settled, too: the next one stays shut, and the
soak counts from then.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from patchwave.campaign import managed_services
from patchwave.campaign.definition import Event
from patchwave.campaign.errors import Permanent
from patchwave.campaign.managed_services import Done, Halt, Rules, Wait
from patchwave.campaign.plan import StagePlan
from patchwave.campaign.values import StageName
from patchwave.execution import stopping
from patchwave.execution.executor import SETTLING
from patchwave.execution.managed_services import ManagedExecutor
from patchwave.execution.openings import Openings
from patchwave.execution.surroundings import EVERY
from patchwave.hooks import clock
from patchwave.ledger.changes import EXPLAINED, explained
from patchwave.ledger.store import Lease, StageState
from patchwave.operators import stages
from patchwave.operators.base import CampaignOperator, Work
from patchwave.operators.notifications import tell
from patchwave.operators.patch import StageHalted

LEAST_DEFERRAL = timedelta(seconds=20)
"""Real seconds: in a rehearsal a minute passes in a moment, and each wake costs a worker's start."""
ADVICE = "mend what the reason names, then clear this task: it goes on with those that are not settled"


class PatchManagedServicesOperator(CampaignOperator):
    """Carries the databases and functions of one stage through, as planned and approved.

    Args:
        stage: name of the stage.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "stage")

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage

    def work(self, work: Work) -> dict[str, int]:
        """Returns the stage's databases and functions by terminal class.

        Raises:
            NotApproved: the ledger holds no approval of this plan.
            StageHalted: too many failed; clearing the task goes on with those that are not settled.
            StillHalted: it is halted, and nobody has cleared the task.
            LeaseLost: another process took the stage between our look at it and the lease.
        """
        stage = stages.reached(work, self.stage)
        if stage.managed is None or not stage.managed.services:
            self.log.info("The plan changes no database and no function of this stage")
            return {}
        stages.check_gate(work, stage)
        name = StageName(self.stage)
        before = work.ledger.stage(work.run_id, name)
        begun = managed_services.document(name) in work.ledger.documents(work.run_id)
        if before.state is not StageState.PATCHED and not begun:
            raise Permanent(f"stage {name} is {before.state.value}, not patched: {before.reason or 'its task has not run'}")
        stopping.refuse_unless_cleared(before, work.holder)
        lease = work.ledger.acquire(work.run_id, name, work.holder, at=work.now, seen=before.fencing)
        executor = self._executor(work, stage, stage.managed, lease)
        if before.state is not StageState.PATCHED or not executor.is_through:
            work.ledger.set_stage(lease, StageState.PATCHING, reason="its hosts are settled", at=work.now)
        return self._follow(work, lease, executor.advance())

    def _executor(self, work: Work, stage: StagePlan, plan: managed_services.ManagedPlan, lease: Lease) -> ManagedExecutor:
        openings = Openings(
            ledger=work.ledger, gateway=work.gateway, lease=lease, campaign=work.campaign, plan=work.plan, stage=stage,
            log=self.log, every=max(EVERY, LEAST_DEFERRAL * clock.speed()),
        )  # fmt: skip
        return ManagedExecutor(
            ledger=work.ledger,
            gateway=work.gateway,
            lease=lease,
            plan=plan,
            rules=work.policy.managed_services or Rules.model_validate({}),
            errors_allowed=stage.error_budget,
            span=lambda: openings.current(now=clock.now()),
            now=clock.now,
            log=self.log,
            settle=SETTLING * clock.speed(),
        )

    def _follow(self, work: Work, lease: Lease, decision: Wait | Halt | Done) -> dict[str, int]:
        match decision:
            case Wait():
                look = max(decision.look, LEAST_DEFERRAL * clock.speed())
                self.wait(
                    work, subject=self.stage, reason=decision.reason, ends=decision.ends, until=decision.until,
                    look_at=min(max(decision.until, work.now), work.now + look),
                )  # fmt: skip
                raise AssertionError("wait does not return")
            case Halt():
                work.ledger.end_wait(work.run_id, self.stage, at=work.now)
                why = explained(self.stage, "error budget", decision.reason, decision.who, ADVICE)
                work.ledger.record(work.run_id, EXPLAINED, why, at=work.now)
                text = f"error budget: {decision.reason}; {ADVICE}"
                work.ledger.set_stage(lease, StageState.HALTED, reason=text, at=work.now)
                tell(work.campaign, Event.STAGE_HALTED, f"stage {self.stage}: {text}", to=self.log)
                raise StageHalted(f"Stage {self.stage} is halted. {text}")
            case Done():
                work.ledger.end_wait(work.run_id, self.stage, at=work.now)
                if work.ledger.stage(work.run_id, lease.stage).state is not StageState.PATCHED:
                    why_done = "each host, database and function is settled"
                    work.ledger.set_stage(lease, StageState.PATCHED, reason=why_done, at=work.now)
                self.log.info("Databases and functions: %s", dict(decision.classes))
                return dict(decision.classes)
