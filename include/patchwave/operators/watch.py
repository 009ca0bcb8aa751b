"""Is there a finding that cannot wait, and who says that an emergency begins? The three tasks of a watcher.

`LookOperator` reads Inspector and the ledger every hour and ends as skipped where nothing is urgent; `AskToStartOperator` asks
people, without a worker; `StartEmergencyOperator` triggers the campaign's DAG. What is urgent, `campaign.emergency` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context, Param
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError, AirflowSkipException

from patchwave.campaign import emergency
from patchwave.campaign import fleet as fleets
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.deduplication import Newest
from patchwave.campaign.definition import Campaign
from patchwave.campaign.emergency import Earlier, Urgent
from patchwave.campaign.errors import Permanent, Transient
from patchwave.campaign.findings import EC2_INSTANCE, Finding
from patchwave.campaign.policy import Policy
from patchwave.campaign.values import HostId, StageName
from patchwave.hooks import clock
from patchwave.ledger.store import Ledger, Run, RunOutcome
from patchwave.operators.base import CampaignOperator, Work
from patchwave.operators.findings import Concerned, known_of, resolved

LOOK, ASK = "look", "ask"
"""Ids of the tasks that the later ones read."""
ANSWER_WITHIN = timedelta(minutes=50)
"""A question is over before the next look, which asks with what is true then."""
LOOK_BACK = 200
"""So many runs of the campaign are looked through."""
MOST_TOLD = 20
"""Urgent findings that no patch mends are told up to this number."""


class CampaignAway(Transient):
    """Airflow has no DAG of the campaign: its file is gone or broken."""


class LookOperator(CampaignOperator):
    """Looks for findings that the policy gives very little time to, and that no run of the emergency campaign is about.

    Args:
        campaign_json: the emergency campaign.
        policy_json: its policy.
    """

    operator_extra_links = ()

    def __init__(self, *, campaign_json: str, policy_json: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_json = campaign_json
        self.policy_json = policy_json

    def work(self, work: Work) -> dict[str, Any]:
        """Returns what is to be begun: ``run``, ``vulnerabilities``, and the question to people.

        Raises:
            AirflowSkipException: nothing is.
            Permanent: the campaign is paused, or it would be refused because its canary has no host.
        """
        campaign, policy = Campaign.from_json(self.campaign_json), Policy.model_validate_json(self.policy_json)
        stages: dict[HostId, str] = {}
        concerned = Concerned()
        found = Newest(concerned.passing(one) for cell in campaign.cells for one in self._found(work, campaign, cell, stages))
        known = known_of(work, concerned, policy.deadlines.wanted)
        urgent, others = emergency.urgent(found, policy, known, now=work.now, stages=stages)
        for one in others[:MOST_TOLD]:
            self.log.warning("Urgent, and no patch mends it: %s on %s: %s", one.vulnerability, one.resource, one.reason)
        runs = earlier(work.ledger, campaign.name)
        left = emergency.unhandled(urgent, runs, now=work.now)
        count, hosts = concerned.findings, len(stages)
        self.log.info("%d findings on %d hosts; urgent by policy %s: %s", count, hosts, policy.name, _named(urgent))
        self.log.info("No run of %s is about: %s", campaign.name, _named(left))
        self._refuse_paused(work, campaign, left)
        if not left:
            raise AirflowSkipException("nothing is urgent that no run is about")
        if not any(campaign.stages[0].name in one.hosts for one in left):
            raise Permanent(
                f"{_named(left)} must be gone soon ({left[0].clock.sentence(work.now)}), and no host of stage "
                f"{campaign.stages[0].name}, the canary, has one of them, so {campaign.name} would be refused; let the stage "
                "select such a host, or use another campaign"
            )
        names = [one.clock.vulnerability for one in left]
        run = emergency.run_name(names, runs)
        if work.context["ti"].get_dr_count(dag_id=campaign.name, run_ids=[run]):
            raise AirflowSkipException(f"run {run} of {campaign.name} is triggered already, and has not begun yet")
        subject, body = emergency.question(campaign, left, now=work.now, within=policy.in_emergency.due_within)
        return {"run": run, "vulnerabilities": names, "subject": subject, "body": body}

    def _found(self, work: Work, campaign: Campaign, cell: Any, stages: dict[HostId, str]) -> Iterator[Finding]:
        """The active findings on a cell's hosts of the campaign; their stages are added."""
        tags = {key: tuple(values) for key, values in campaign.scope.tags.items()}
        for host in work.gateway.fleet(cell, tags):
            stage = campaign.stage_of(host.tags, host=host.id)
            if stage is not None and fleets.readiness(host) is not fleets.Readiness.TERMINATED:
                stages[host.id] = str(stage.name)
        return (one for one in work.gateway.findings(cell) if one.resource_type == EC2_INSTANCE and one.host in stages)

    def _refuse_paused(self, work: Work, campaign: Campaign, left: Sequence[Urgent]) -> None:
        """A run of a paused DAG would wait unseen."""
        try:
            paused = bool(work.context["ti"].get_dag(campaign.name).is_paused)
        except AirflowRuntimeError as error:
            raise CampaignAway(f"Airflow has no DAG {campaign.name}, or does not tell; is its file broken? {error}") from error
        if paused and left:
            raise Permanent(
                f"{_named(left)} must be gone soon ({left[0].clock.sentence(work.now)}), and the DAG {campaign.name} is paused, "
                "so nothing is begun: unpause it, then clear this task"
            )
        if paused:
            self.log.warning("The DAG %s is paused: nothing could be begun if something were urgent", campaign.name)


def _named(found: Sequence[Urgent]) -> str:
    names = [one.clock.vulnerability for one in found]
    more = f" and {len(names) - MOST_TOLD} more" if len(names) > MOST_TOLD else ""
    return ", ".join(names[:MOST_TOLD]) + more or "none"


def earlier(ledger: Ledger, campaign: str) -> tuple[Earlier, ...]:
    """The campaign's runs, as a watcher has to know them."""
    return tuple(_earlier(ledger, run) for run in ledger.runs(campaign=campaign, limit=LOOK_BACK))


def _earlier(ledger: Ledger, run: Run) -> Earlier:
    said_no = [one.at for one in ledger.decisions(run.id) if one.verdict is Verdict.REJECTED]
    return Earlier(
        vulnerabilities=frozenset(run.params.get("vulnerabilities") or ()),
        began_at=run.began_at,
        dry_run=run.params.get("dry_run") is True,
        running=run.outcome is RunOutcome.RUNNING,
        silent=run.outcome is RunOutcome.REJECTED and not said_no,
        declined_at=max(said_no, default=None),
    )


class AskToStartOperator(ApprovalOperator):
    """Asks whether an emergency begins, and remembers a no in the ledger.

    A no is a run of the campaign that a person rejected before it began: a decision like that of a gate, with its evidence.

    Args:
        campaign_json: the emergency campaign.
        policy_json: its policy.
        starters: login names that may answer.
    """

    template_fields: Sequence[str] = ("subject", "body", "aws_conn_id", "ledger_conn_id")

    def __init__(
        self,
        *,
        campaign_json: str,
        policy_json: str,
        starters: Sequence[str],
        aws_conn_id: str = "aws_default",
        ledger_conn_id: str = "patchwave_ledger",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            subject="Start an emergency?",
            body="What is urgent, the task before has found.",
            defaults=self.REJECT,
            response_timeout=ANSWER_WITHIN,
            assigned_users=[{"id": name, "name": name} for name in starters],
            params={
                "reason": Param(None, type=["null", "string"], title="Reason (kept beside your name)", format="multiline"),
            },
            **kwargs,
        )
        self.campaign_json = campaign_json
        self.policy_json = policy_json
        self.aws_conn_id = aws_conn_id
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Context) -> Any:
        """Ask."""
        found = context["ti"].xcom_pull(task_ids=LOOK)
        self.subject, self.body = found["subject"], found["body"]
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Returns who said yes; otherwise nothing is started."""
        if "error" in event:
            raise AirflowFailException(f"the question could not be answered: {event['error']}")
        author = (event.get("responded_by_user") or {}).get("id")
        if author and list(event.get("chosen_options") or ()) == [self.APPROVE]:
            self.log.info("%s said yes", author)
            return str(author)
        if author:
            self._decline(context, str(author), _reason(event.get("params_input")))
        else:
            self.log.warning("Nobody answered: nothing is started; the next look asks again")
        self.skip(ti=context["ti"], tasks=context["task"].get_direct_relatives(upstream=False))
        return None

    def _decline(self, context: Context, author: str, reason: str) -> None:
        work = Work(context, aws_conn_id=self.aws_conn_id, ledger_conn_id=self.ledger_conn_id)
        campaign = Campaign.from_json(self.campaign_json)
        names = context["ti"].xcom_pull(task_ids=LOOK)["vulnerabilities"]
        ledger, run, at, stages = work.ledger, work.run_id, work.now, [StageName(stage.name) for stage in campaign.stages]
        ledger.open_run(
            Run(
                id=run, campaign=campaign.name, dag_id=work.dag_run.dag_id, dag_run_id=work.dag_run.run_id, began_at=at,
                definition=json.loads(self.campaign_json), definition_digest=campaign.digest, policy=json.loads(self.policy_json),
                params=resolved({"dry_run": False, "vulnerabilities": names}, scheduled=False), speed=clock.speed(),
            ),
            stages,
        )  # fmt: skip
        ledger.record_decision(
            Decision(run=run, stage=stages[0], plan="", verdict=Verdict.REJECTED, author=author, at=at, comment=reason)
        )
        for stage in stages:
            ledger.skip_stage(run, stage, reason=f"{author} did not let the emergency begin", at=at)
        ledger.end_run(run, RunOutcome.REJECTED, at=at)
        self.log.warning("%s said no: nothing is started for %s", author, ", ".join(names))


def _reason(inputs: object) -> str:
    """Nobody checks what comes through the API."""
    said = inputs.get("reason") if isinstance(inputs, Mapping) else None
    return said.strip() if isinstance(said, str) else ""


class StartEmergencyOperator(TriggerDagRunOperator):
    """Triggers the emergency campaign under a run id that is always the same, so that it is never begun twice.

    Args:
        campaign: its name.
    """

    def __init__(self, *, campaign: str, **kwargs: Any) -> None:
        super().__init__(
            trigger_dag_id=campaign, logical_date=None, skip_when_already_exists=True, fail_when_dag_is_paused=True, **kwargs
        )

    def execute(self, context: Context) -> None:
        """Who said yes has asked for the run, and may not approve it."""
        found = context["ti"].xcom_pull(task_ids=LOOK)
        asker = context["ti"].xcom_pull(task_ids=ASK) or context["dag_run"].dag_id
        self.trigger_run_id = found["run"]
        self.conf = {"dry_run": False, "vulnerabilities": found["vulnerabilities"], "requested_by": asker}
        super().execute(context)
