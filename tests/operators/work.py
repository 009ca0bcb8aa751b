"""What an operator is handed: a plain context, a ledger in memory, a gateway that says what a test says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

from patchwave.aws.commands import SentCommand
from patchwave.aws.gateway import Gateway
from patchwave.campaign import plan as plans
from patchwave.campaign import severity
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.definition import Campaign
from patchwave.campaign.fleet import Host
from patchwave.campaign.plan import Plan
from patchwave.campaign.values import RunId, StageName
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Run, StageState
from tests.domain.builders import a_campaign, a_host, a_plan
from tests.domain.test_severity import STANDARD

DAG_RUN = "manual__2026-03-03T22:00:00+00:00"
RUN = RunId(f"weekly-linux/{DAG_RUN}")
CAMPAIGN_JSON = a_campaign().to_json()
POLICY_JSON = STANDARD.model_dump_json(by_alias=True)
HOSTS = [
    a_host(1, group_tag="linux-dev"), a_host(2, group_tag="linux-dev"), a_host(3, group_tag="linux-staging"), a_host(4),
]  # fmt: skip


class TaskInstance:
    """As much of Airflow's as operators use."""

    def __init__(self, holder: str = "try-1") -> None:
        self.id = holder
        self.map_index = -1
        self.max_tries = 3
        self.pushed: dict[str, Any] = {}
        self.states: dict[str, str] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def get_task_states(self, *, dag_id: str, run_ids: list[str]) -> Mapping[str, Mapping[str, str]]:
        assert (dag_id, run_ids) == ("weekly-linux", [DAG_RUN])
        return {DAG_RUN: self.states}


class Desk:
    """A ledger, a gateway and a context; `monkeypatch` makes operators find them where they look."""

    def __init__(self, monkeypatch: Any, *, dry_run: bool = False) -> None:
        self.ledger = MemoryLedger()
        self.gateway = create_autospec(Gateway, instance=True)
        self.gateway.take_calls.return_value = {}
        self.gateway.fleet.side_effect = lambda cell, tags: [host for host in HOSTS if host.cell == cell]
        self.gateway.surroundings.side_effect = lambda cell, hosts: (tuple(hosts), ())
        self.gateway.groups.return_value = ()
        self.gateway.target_groups.return_value = ()
        self.gateway.listed.return_value = {}
        self.gateway.hosts.side_effect = lambda cell, ids, **_: [host for host in HOSTS if host.id in ids]
        self.gateway.find_command.return_value = None
        self.gateway.send.side_effect = lambda *_, **__: SentCommand(id="c-1", requested_at=datetime.now(UTC))
        self.gateway.commands.return_value = {}
        self.gateway.invocations.return_value = ()
        self.gateway.patch_states.return_value = {}
        self.gateway.rule_compliance.return_value = ()
        self.gateway.findings.return_value = ()
        self.gateway.coverage.return_value = ()
        self.gateway.health.return_value = ()
        self.buckets: dict[str, str] = {}
        """Bucket for lists of patches, by region."""
        hook = SimpleNamespace(gateway=lambda: self.gateway, lists_bucket=lambda region: self.buckets.get(region, ""))
        monkeypatch.setattr("patchwave.operators.base.open_ledger", lambda conn_id: self.ledger)
        monkeypatch.setattr("patchwave.operators.base.PatchwaveAwsHook", lambda *, aws_conn_id: hook)
        self.ti = TaskInstance()
        self.dry_run = dry_run

    def context(self, *, run_type: str = "manual", due: datetime | None = None, params: Any = None, task: Any = None) -> Any:
        dag_run = SimpleNamespace(
            dag_id="weekly-linux", run_id=DAG_RUN, run_type=run_type, run_after=due or datetime.now(UTC), logical_date=due,
            triggering_user_name="olga",
        )  # fmt: skip
        return {"dag_run": dag_run, "ti": self.ti, "task_instance": self.ti, "params": params or {}, "task": task}

    def open_run(self, **changes: Any) -> None:
        """What scan_findings leaves behind."""
        campaign = a_campaign()
        values: dict[str, Any] = {
            "id": RUN, "campaign": campaign.name, "dag_id": "weekly-linux", "dag_run_id": DAG_RUN, "began_at": datetime.now(UTC),
            "definition": json.loads(CAMPAIGN_JSON), "definition_digest": campaign.digest, "policy": json.loads(POLICY_JSON),
            "params": {"dry_run": self.dry_run, "stages": [], "severities": [], "vulnerabilities": []}, "requested_by": "olga",
        }  # fmt: skip
        self.ledger.open_run(Run(**values | changes), [StageName(stage.name) for stage in campaign.stages])

    def planned(self, hosts: list[Host] | None = None, *, campaign: Campaign | None = None) -> Plan:
        """What plan leaves behind, of a run that uma asked for."""
        campaign = campaign or a_campaign()
        self.open_run(definition=json.loads(campaign.to_json()), definition_digest=campaign.digest, requested_by="uma")
        plan = a_plan(
            HOSTS if hosts is None else hosts, run=RUN, dry_run=self.dry_run, campaign=campaign, requested_by="uma"
        )
        now = datetime.now(UTC)
        self.ledger.put_document(RUN, "plan", plans.to_json(plan), at=now)
        triage = severity.classify([], STANDARD, now=now, coverage=[])
        self.ledger.put_document(RUN, "triage", json.loads(triage.to_json()), at=now)
        return plan

    def decide(self, stage: str, verdict: Verdict = Verdict.APPROVED, *, author: str = "olga", plan: str | None = None) -> None:
        digest = plan or plans.digest(plans.from_json(self.ledger.document(RUN, "plan")))
        self.ledger.record_decision(
            Decision(run=RUN, stage=StageName(stage), plan=digest, verdict=verdict, author=author, at=datetime.now(UTC))
        )

    def set_stage(self, stage: str, state: StageState, *, reason: str = "", ago: timedelta = timedelta()) -> None:
        at = datetime.now(UTC) - ago
        lease = self.ledger.acquire(RUN, StageName(stage), "earlier", at=at)
        self.ledger.set_stage(lease, StageState.PATCHING, reason="", at=at)
        if state is not StageState.PATCHING:
            self.ledger.set_stage(lease, state, reason=reason, at=at)

    @property
    def journal(self) -> list[str]:
        return [entry.kind for entry in self.ledger.journal(RUN)]
