"""What do all tasks of a campaign share? Ledger, gateway, clock, and what an error means to Airflow.

An operator's `work` is its whole life: it may be called at any moment, again after a wait, a retry or a clear, and goes on
from the ledger. `execute` and `execute_complete` both call it. A `Transient` error is left to Airflow's retries; a
`Permanent` one fails the task at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from airflow.sdk import BaseOperator, BaseOperatorLink, Context
from airflow.sdk.exceptions import AirflowFailException

from patchwave.aws.gateway import Gateway
from patchwave.campaign import evidence
from patchwave.campaign import plan as plans
from patchwave.campaign.definition import Campaign
from patchwave.campaign.errors import Permanent, Transient
from patchwave.campaign.plan import Plan
from patchwave.campaign.policy import Policy
from patchwave.campaign.values import RunId
from patchwave.execution.stopping import Try
from patchwave.hooks import clock
from patchwave.hooks.aws import PatchwaveAwsHook
from patchwave.hooks.ledger import ledger as open_ledger
from patchwave.ledger import approved
from patchwave.ledger.rows import Rows
from patchwave.ledger.store import Ledger, Run, WaitRow
from patchwave.operators.links import RunPageLink
from patchwave.triggers.watch import MomentTrigger

PLAN = plans.PLAN
TRIAGE = "triage"


class Work:
    """One call of an operator: the run, and how to reach ledger and AWS.

    Attributes:
        run_id: names the run in the ledger.
        holder: this try (`stopping.Try`): the same over all legs of a try, new with each retry and clear.
    """

    def __init__(self, context: Context, *, aws_conn_id: str, ledger_conn_id: str) -> None:
        self.context = context
        self.dag_run = context["dag_run"]
        self.run_id = RunId(f"{self.dag_run.dag_id}/{self.dag_run.run_id}")
        self.holder = str(Try(task_instance=str(context["ti"].id), most=context["ti"].max_tries))
        self._aws_conn_id = aws_conn_id
        self._ledger_conn_id = ledger_conn_id
        self._plan: Plan | None = None

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger."""
        return open_ledger(self._ledger_conn_id)

    @cached_property
    def gateway(self) -> Gateway:
        """AWS."""
        return PatchwaveAwsHook(aws_conn_id=self._aws_conn_id).gateway()

    def lists_bucket(self, region: str) -> str:
        """The bucket in which hosts of a region read lists of patches; empty if the connection names none."""
        return PatchwaveAwsHook(aws_conn_id=self._aws_conn_id).lists_bucket(region)

    @property
    def now(self) -> datetime:
        """The campaign's time."""
        return clock.now()

    @cached_property
    def run(self) -> Run:
        """The run as it was frozen.

        Raises:
            Permanent: the first task has not stored it.
        """
        try:
            return self.ledger.run(self.run_id)
        except KeyError:
            raise Permanent("the ledger does not know this run: its first task, scan_findings, has not stored it") from None

    @cached_property
    def campaign(self) -> Campaign:
        """The campaign as it was when the run began, whatever the file says now."""
        return Campaign.from_json(evidence.canonical(self.run.definition).decode())

    @cached_property
    def policy(self) -> Policy:
        """The policy as it was when the run began."""
        return Policy.model_validate(self.run.policy)

    @property
    def plan(self) -> Plan:
        """The plan that holds for the task's stage; for a task of no stage the run's newest.

        Raises:
            Permanent: there is none.
        """
        if self._plan is None:
            self._plan = self._plan_in_force()
        return self._plan

    def _plan_in_force(self) -> Plan:
        try:
            return approved.in_force(self.ledger, self.run_id, stage=getattr(self.context.get("task"), "stage", None))
        except KeyError:
            raise Permanent("the ledger holds no plan of this run, so nothing can be done") from None

    def change_plan(self, plan: Plan, *, stage: str, text: str) -> str:
        """Store another plan for a stage that has not begun, which holds from here on; the one before stays in the ledger.

        Args:
            text: the plan for people (`operators.plan.text_now`).

        Returns:
            Its digest.
        """
        name = plans.changed_name(self.ledger.documents(self.run_id), stage)
        digest = self.ledger.put_document(self.run_id, name, plans.to_json(plan), at=self.now)
        self.ledger.put_document(self.run_id, "plan.md", text, at=self.now)
        self._plan = plan
        return digest

    def document(self, name: str) -> Any:
        """A document of the run.

        Raises:
            Permanent: the ledger has none of that name, so an earlier task has not done its work.
        """
        try:
            return self.ledger.document(self.run_id, name)
        except KeyError:
            raise _absent(name) from None

    def rows(self, name: str, *, of: str | None = None) -> Rows:
        """A document of many rows, which come one at a time.

        Args:
            of: where the rows stand in such a document of a run of before, which has it in one piece.

        Raises:
            Permanent: as `document`.
        """
        try:
            return self.ledger.rows(self.run_id, name, of=of)
        except KeyError:
            raise _absent(name) from None

    def count_calls(self, others: Mapping[str, int]) -> None:
        """Add the calls made to AWS to the run's count, with those that a trigger made for it."""
        own = self.gateway.take_calls() if "gateway" in self.__dict__ else {}
        if calls := Counter(own) + Counter(others):
            self.ledger.count_calls(self.run_id, calls)


def _absent(name: str) -> Permanent:
    return Permanent(f"the ledger holds no {name!r} of this run: the task that writes it has not run")


class CampaignOperator(BaseOperator):
    """Base of all operators of a campaign.

    Args:
        aws_conn_id: Airflow connection of the account that the campaign is run from.
        ledger_conn_id: Airflow connection of the ledger's database.
    """

    template_fields: Sequence[str] = ("aws_conn_id", "ledger_conn_id")
    operator_extra_links: Sequence[BaseOperatorLink] = (RunPageLink(),)
    ui_color = "#e8f0fb"

    def __init__(self, *, aws_conn_id: str = "aws_default", ledger_conn_id: str = "patchwave_ledger", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> Any:
        """Begin, or go on where an earlier try stopped."""
        return self._guarded(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Go on after a wait; the event only says that it is worth looking, and which calls its trigger made."""
        return self._guarded(context, (event or {}).get("calls") or {})

    def work(self, work: Work) -> Any:
        """What the task does.

        Raises:
            Transient: try again later.
            Permanent: do not try again.
        """
        raise NotImplementedError

    def _guarded(self, context: Context, calls: Mapping[str, int] | None = None) -> Any:
        work = Work(context, aws_conn_id=self.aws_conn_id, ledger_conn_id=self.ledger_conn_id)
        try:
            return self.work(work)
        except Permanent as error:
            raise AirflowFailException(str(error)) from error
        finally:
            with suppress(Transient, KeyError):  # a count must not hide what happened
                work.count_calls(calls or {})

    def wait(
        self, work: Work, *, subject: str, reason: str, ends: str, until: datetime, look_at: datetime | None = None
    ) -> NoReturn:
        """Write why it waits, and free the worker.

        Args:
            until: latest moment, as people are told.
            look_at: when to look again; `until` by default.
        """
        self.say_wait(work, subject=subject, reason=reason, ends=ends, until=until)
        self.defer(trigger=MomentTrigger(until=(look_at or until).isoformat()), method_name="execute_complete")
        raise AssertionError("defer does not return")

    def say_wait(self, work: Work, *, subject: str, reason: str, ends: str, until: datetime | None) -> None:
        """Write why it waits into the ledger, and once per change into the task's log."""
        row = WaitRow(run=work.run_id, subject=subject, reason=reason, ends=ends, since=work.now, until=until)
        if work.ledger.wait(row):
            last = f"until {until:%Y-%m-%d %H:%M:%S} UTC at the latest" if until else "until a person answers"
            self.log.info("Waiting: %s; %s; ends when %s", reason, last, ends)
