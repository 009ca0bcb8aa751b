"""The gate before a stage: Airflow's own human-in-the-loop asks, the ledger remembers.

The decision is written to the ledger as the first thing after the answer, and a decision that is there is never asked for
again: whatever Airflow does to the gate's task, nobody says yes twice. What opens the stage is that record, which
`PatchStageOperator` reads; marking this task by hand opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.definition import Campaign, Event
from patchwave.campaign.errors import Permanent
from patchwave.campaign.plan import StagePlan
from patchwave.campaign.values import StageName
from patchwave.ledger.store import WaitRow
from patchwave.operators import stages
from patchwave.operators.base import Work
from patchwave.operators.links import RunPageLink
from patchwave.operators.notifications import tell

NOBODY = "-"


class ApproveStageOperator(ApprovalOperator):
    """Asks whether a stage may be patched as planned.

    Args:
        stage: name of the stage.
        approvers: login names that may answer; empty means everybody who may answer at all.
        timeout: no answer within it means no (real time, also in a rehearsal).
        campaign_json: the campaign file as it is now, to say on the page that a newer version exists.
    """

    template_fields: Sequence[str] = ("subject", "body", "aws_conn_id", "ledger_conn_id")
    operator_extra_links = (RunPageLink(),)

    def __init__(
        self,
        *,
        stage: str,
        approvers: Sequence[str],
        timeout: timedelta,
        campaign_json: str,
        aws_conn_id: str = "aws_default",
        ledger_conn_id: str = "patchwave_ledger",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            subject=f"May stage {stage} be patched as planned?",
            body="The plan stands in the ledger; it is shown here when the gate asks.",
            defaults=self.REJECT,
            response_timeout=timeout,
            assigned_users=_assigned(approvers),
            **kwargs,
        )
        self.stage = stage
        self.campaign_json = campaign_json
        self.aws_conn_id = aws_conn_id
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> Any:
        """Ask, unless the ledger has the answer."""
        work = self._work(context)
        try:
            stage = self._stage(work)
            digest = plans.digest(work.plan)
        except Permanent as error:
            raise AirflowFailException(str(error)) from error
        known = self._known(work, digest)
        if known is not None:
            self.log.info("Decided already: %s by %s at %s; nobody is asked again", known.verdict.value, known.author, known.at)
            return self._carry_out(work, known)
        if not stage.approval_required:
            self.log.info("The plan asks nobody about stage %s", self.stage)
            return None
        self.subject = (
            f"{work.plan.campaign}: may stage {self.stage} be patched? {len(stage.hosts)} hosts, {stage.stage_places} at once"
        )
        self.body = plans.markdown(work.plan, for_stage=self.stage, notice=self._notice(work))
        # Whom Airflow lets answer, and until when, is what the plan says: the file may have been edited meanwhile.
        self.assigned_users = _assigned(stage.approvers)
        self.response_timeout = stage.approval_timeout
        who = " or ".join(stage.approvers) or "anybody who may answer"
        tell(work.campaign, Event.APPROVAL_REQUESTED, f"{self.subject} {who} may answer", to=self.log)
        work.ledger.wait(
            WaitRow(
                run=work.run_id,
                subject=f"approve {self.stage}",
                reason=f"stage {self.stage} waits for {who} to say yes or no",
                ends=f"one of them answers; no answer within {self.response_timeout} means no",
                since=work.now,
            )
        )
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the decision down before anything else happens."""
        work = self._work(context)
        try:
            decision = work.ledger.record_decision(self._decision(work, event))
        except Permanent as error:
            raise AirflowFailException(str(error)) from error
        work.ledger.end_wait(work.run_id, f"approve {self.stage}", at=work.now)
        self.log.info("Stage %s: %s by %s", self.stage, decision.verdict.value, decision.author)
        return self._carry_out(work, decision)

    def _decision(self, work: Work, event: Mapping[str, Any]) -> Decision:
        digest = plans.digest(work.plan)
        if "error" in event:
            raise Permanent(f"the request could not be answered: {event['error']}")
        user = event.get("responded_by_user") or {}
        author = str(user.get("id") or NOBODY)
        chosen = list(event["chosen_options"])
        approvers = self._stage(work).approvers
        if author != NOBODY and approvers and author not in approvers:
            raise Permanent(f"{author} may not answer for stage {self.stage}; {', '.join(approvers)} may. Nothing was decided.")
        if author == NOBODY:
            verdict = Verdict.EXPIRED
        else:
            verdict = Verdict.APPROVED if chosen == [self.APPROVE] else Verdict.REJECTED
        at = event.get("responded_at")
        return Decision(
            run=work.run_id,
            stage=StageName(self.stage),
            plan=digest,
            verdict=verdict,
            author=author,
            at=work.now,
            comment=f"answered at {at.isoformat() if isinstance(at, datetime) else at} real time",
        )

    def _carry_out(self, work: Work, decision: Decision) -> Any:
        if decision.verdict is Verdict.APPROVED:
            return {"stage": self.stage, "verdict": decision.verdict.value}
        work.ledger.skip_stage(
            work.run_id, StageName(self.stage), reason=f"{decision.verdict.value} by {decision.author}", at=work.now
        )
        # A "no" is an answer, not a failure: what follows is skipped, the report is still made.
        task = work.context["task"]
        self.skip(ti=work.context["ti"], tasks=task.get_direct_relatives(upstream=False))
        return {"stage": self.stage, "verdict": decision.verdict.value}

    def _known(self, work: Work, digest: str) -> Decision | None:
        for decision in work.ledger.decisions(work.run_id):
            if decision.stage == self.stage and decision.plan == digest:
                return decision
        return None

    def _stage(self, work: Work) -> StagePlan:
        return stages.reached(work, self.stage)

    def _notice(self, work: Work) -> str:
        if Campaign.from_json(self.campaign_json).digest != work.run.definition_digest:
            return "The campaign file has changed since this run began. This plan and this run use the version from then."
        return ""

    def _work(self, context: Context) -> Work:
        return Work(context, aws_conn_id=self.aws_conn_id, ledger_conn_id=self.ledger_conn_id)


def _assigned(approvers: Sequence[str]) -> list[dict[str, str]] | None:
    """As Airflow wants them; None: anybody who may answer at all."""
    return [{"id": name, "name": name} for name in approvers] or None
