"""The first two stations: what is wrong, and how urgent is it?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from pydantic import TypeAdapter

from patchwave.campaign import findings as finding_values
from patchwave.campaign import severity
from patchwave.campaign.definition import Campaign
from patchwave.campaign.errors import Permanent
from patchwave.campaign.findings import Coverage, Finding, Severity
from patchwave.campaign.values import Cell, HostId, StageName
from patchwave.hooks import clock
from patchwave.ledger.store import Run
from patchwave.operators.base import TRIAGE, CampaignOperator, Work

FINDINGS = "findings.before"
COVERAGE = "coverage.before"

TOO_LATE = timedelta(minutes=30)
"""A scheduled run that begins later than this after its moment is not carried out: its window may be over."""

_FINDINGS: TypeAdapter[tuple[Finding, ...]] = TypeAdapter(tuple[Finding, ...])
_COVERAGE: TypeAdapter[tuple[Coverage, ...]] = TypeAdapter(tuple[Coverage, ...])


def _in_scope(finding: Finding, hosts: frozenset[HostId] | None) -> bool:
    """Whether a finding belongs to the campaign; what is no instance has no host's tags, so tags leave it out."""
    return hosts is None or (finding.resource_type == severity.EC2_INSTANCE and finding.host in hosts)


def is_scheduled(dag_run: Any) -> bool:
    """Whether the schedule began this run, and no person did."""
    return _run_type(dag_run) == "scheduled"


def _run_type(dag_run: Any) -> str:
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


def resolved(params: Mapping[str, Any], *, scheduled: bool) -> dict[str, Any]:
    """The trigger form's values as the run uses them: a scheduled run is never a dry run, a hand-triggered one is unless
    it says otherwise."""
    return {
        "dry_run": False if scheduled else bool(params.get("dry_run", True)),
        "stages": sorted(params.get("stages") or ()),
        "severities": [str(word).lower() for word in params.get("severities") or ()],
        "vulnerabilities": sorted(str(word).upper() for word in params.get("vulnerabilities") or ()),
    }


class ScanFindingsOperator(CampaignOperator):
    """Freezes the run, then reads Inspector's findings and coverage of every cell of the scope.

    Args:
        campaign_json: the campaign as the DAG file read it.
        policy_json: its policy.
    """

    template_fields: Sequence[str] = CampaignOperator.template_fields

    def __init__(self, *, campaign_json: str, policy_json: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.campaign_json = campaign_json
        self.policy_json = policy_json

    def work(self, work: Work) -> str:
        """Returns the digest of the findings' document."""
        self._refuse_late(work)
        self._freeze(work)
        found: list[Finding] = []
        coverage: list[Coverage] = []
        for cell in work.campaign.cells:
            hosts = self._scope(work, cell)
            seen = list(work.gateway.findings(cell))
            mine = [finding for finding in seen if _in_scope(finding, hosts)]
            found.extend(mine)
            coverage.extend(one for one in work.gateway.coverage(cell) if hosts is None or one.host in hosts)
            self.log.info("%s: %d active findings, %d of them in the scope", cell, len(seen), len(mine))
        unique = finding_values.deduplicated(found)
        work.ledger.put_document(work.run_id, COVERAGE, _COVERAGE.dump_python(tuple(coverage), mode="json"), at=work.now)
        return work.ledger.put_document(work.run_id, FINDINGS, _FINDINGS.dump_python(unique, mode="json"), at=work.now)

    def _scope(self, work: Work, cell: Cell) -> frozenset[HostId] | None:
        """Hosts that carry the scope's tags, by EC2's word: Inspector learns of tags late. None: the scope names no tags."""
        tags = {key: tuple(values) for key, values in work.campaign.scope.tags.items()}
        return frozenset(host.id for host in work.gateway.fleet(cell, tags)) if tags else None

    def _refuse_late(self, work: Work) -> None:
        """Airflow may start a run for a moment that passed while it was down; for patching that is an outage."""
        if _run_type(work.dag_run) == "backfill":
            raise AirflowSkipException("A campaign is about hosts as they are now: there is nothing to fill back.")
        due = work.dag_run.run_after or work.dag_run.logical_date
        if not is_scheduled(work.dag_run) or due is None:
            return
        late = datetime.now(UTC) - due  # real time, not a rehearsal's
        if late > TOO_LATE:
            raise AirflowSkipException(
                f"This run was due at {due:%Y-%m-%d %H:%M} UTC, {late} ago. A campaign never starts for a moment that has "
                "passed; trigger it by hand if it is wanted now."
            )

    def _freeze(self, work: Work) -> None:
        campaign = Campaign.from_json(self.campaign_json)
        params = resolved(work.context["params"], scheduled=is_scheduled(work.dag_run))
        _check(campaign, params)
        stored = work.ledger.open_run(
            Run(
                id=work.run_id,
                campaign=campaign.name,
                dag_id=work.dag_run.dag_id,
                dag_run_id=work.dag_run.run_id,
                began_at=work.now,
                definition=json.loads(self.campaign_json),
                definition_digest=campaign.digest,
                policy=json.loads(self.policy_json),
                params=params,
                requested_by=None if is_scheduled(work.dag_run) else getattr(work.dag_run, "triggering_user_name", None),
                speed=clock.speed(),
            ),
            [StageName(stage.name) for stage in campaign.stages],
        )
        if stored.definition_digest != campaign.digest:
            self.log.info("The campaign file has changed since this run began; the run goes on with what it began with")


def _check(campaign: Campaign, params: Mapping[str, Any]) -> None:
    known = [stage.name for stage in campaign.stages]
    wrong = [name for name in params["stages"] if name not in known]
    if wrong:
        raise Permanent(f"stages: {', '.join(wrong)} is no stage of {campaign.name}; allowed are {', '.join(known)}")
    words = [severity_.value for severity_ in Severity]
    odd = [word for word in params["severities"] if word not in words]
    if odd:
        raise Permanent(f"severities: {', '.join(odd)} is no severity; allowed are {', '.join(words)}")


class ClassifyOperator(CampaignOperator):
    """Gives every finding its track and deadline."""

    def work(self, work: Work) -> str:
        """Returns the digest of the triage."""
        ledger = work.ledger
        triage = severity.classify(
            _FINDINGS.validate_python(work.document(FINDINGS)),
            work.policy,
            now=work.now,
            coverage=_COVERAGE.validate_python(work.document(COVERAGE)),
            severities=[Severity(word) for word in work.run.params["severities"]],
            vulnerabilities=work.run.params["vulnerabilities"],
        )
        self.log.info("By severity: %s", {word.value: count for word, count in triage.by_severity().items()})
        self.log.info("By track: %s", {word.value: count for word, count in triage.by_track().items()})
        return ledger.put_document(work.run_id, TRIAGE, json.loads(triage.to_json()), at=work.now)


def read_triage(work: Work) -> severity.Triage:
    """The run's triage."""
    return severity.Triage.from_json(json.dumps(work.document(TRIAGE)))
