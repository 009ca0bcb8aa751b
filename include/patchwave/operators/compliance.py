"""Did it work? Systems Manager and Config are asked until they have looked after the patch, or time is up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from pydantic import TypeAdapter

from patchwave.campaign import compliance, exposure, stale_images
from patchwave.campaign.compliance import HostCompliance, Judgement, RuleResult, Subject, Verdict
from patchwave.campaign.exposure import Fate
from patchwave.campaign.rollout import HostState, PatchState, StepKind
from patchwave.campaign.values import Cell, HostId
from patchwave.execution import remedies
from patchwave.execution.stale_images import stale_images_of
from patchwave.operators.base import PLAN, CampaignOperator, Work
from patchwave.operators.findings import triage_rows

EVALUATE_AGAIN = timedelta(minutes=5)
"""Config refuses a second evaluation within about a minute, and a patch report takes minutes to become an item."""

FINDINGS_AFTER = "findings.after"
"""What became of each finding of the triage."""

CHANGING = frozenset({StepKind.INSTALL, StepKind.REBOOT})
SCANNED_AFTER = frozenset({HostState.PATCHED, HostState.ALREADY_COMPLIANT, HostState.PENDING_REBOOT, HostState.FAILED})
"""Classes of hosts that had their last Scan; of all others, those of a stopped stage among them, no report comes any more."""


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Judgement]:
    return TypeAdapter(Judgement)


def judge_now(work: Work, subjects: Sequence[Subject]) -> Judgement:
    """The verdict on each subject by what Systems Manager and Config say now."""
    cells: dict[Cell, list[HostId]] = {}
    for subject in subjects:
        cells.setdefault(subject.cell, []).append(subject.host)
    states: dict[HostId, PatchState] = {}
    results: list[RuleResult] = []
    rules = tuple(work.campaign.verify.config_rules)
    for cell, ids in cells.items():
        states.update(work.gateway.patch_states(cell, ids))
        for rule in rules:
            results.extend(work.gateway.rule_compliance(cell, rule) or ())
    return compliance.judge_all(subjects, states, results, rules, at=work.now)


def store_judgement(work: Work, name: str, judgement: Judgement) -> str:
    """Put a judgement into the ledger and return its digest."""
    return work.ledger.put_document(work.run_id, name, _adapter().dump_python(judgement, mode="json"), at=work.now)


def read_judgement(work: Work, name: str) -> Judgement:
    """A judgement out of the ledger.

    Raises:
        KeyError: there is none of that name.
    """
    return _adapter().validate_python(work.ledger.document(work.run_id, name))


class VerifyComplianceOperator(CampaignOperator):
    """Judges every host of the scope as compliant, not compliant or unknown.

    Args:
        document: name of the judgement in the ledger: ``compliance.after`` or ``compliance.final``.
    """

    template_fields: Sequence[str] = (*CampaignOperator.template_fields, "document")

    def __init__(self, *, document: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.document = document

    def work(self, work: Work) -> dict[str, int]:
        """Returns hosts by verdict."""
        if PLAN not in work.ledger.documents(work.run_id):
            raise AirflowSkipException("this run has no plan, so there is nothing to verify")
        if work.plan.dry_run:
            raise AirflowSkipException("a dry run has changed nothing, so there is nothing to verify")
        began = self._began(work)
        subjects = self._subjects(work)
        judgement = judge_now(work, subjects)
        touched = {subject.host for subject in subjects if subject.changed_at is not None} - self._without_proof(work)
        open_hosts = touched.intersection(compliance.unproven(judgement))
        until = began + work.campaign.verify.timeout
        if open_hosts and work.now < until:
            self._evaluate(work, {subject.cell for subject in subjects if subject.host in open_hosts})
            self.wait(
                work,
                subject=self.task_id,
                reason=f"Config or Systems Manager has not looked at {len(open_hosts)} hosts since they were patched",
                ends="every rule has been evaluated after the patch",
                until=until,
                look_at=min(until, work.now + EVALUATE_AGAIN),
            )
        work.ledger.end_wait(work.run_id, self.task_id, at=work.now)
        store_judgement(work, self.document, judgement)
        self._store_before(work)
        self._store_findings(work)
        self._store_stale_images(work)
        self.log.info("Compliance: %s", judgement.counts)
        return judgement.counts

    def _without_proof(self, work: Work) -> set[HostId]:
        """Hosts that nobody scans any more in this run: they stay unknown, and waiting for them would be for nothing."""
        mended = {HostId(remedy["host"]) for remedy in remedies.rows_of(work.ledger, work.run_id) if remedy["ended_at"]}
        return {row.host for row in work.ledger.hosts(work.run_id) if row.state not in SCANNED_AFTER} - mended

    def _began(self, work: Work) -> datetime:
        """When this verification began: its first wait of this try, which a resumed leg has to keep counting from."""
        mine = [wait for wait in work.ledger.waits(work.run_id, open_only=True) if wait.subject == self.task_id]
        return mine[0].since if mine else work.now

    def _subjects(self, work: Work) -> list[Subject]:
        """Every host of the scope with the moment of its last change (AWS's clock): those of the plan, those that appeared
        while a stage ran, and excluded ones."""
        changed: dict[HostId, datetime] = {}
        for row in work.ledger.dispatches(work.run_id):
            if row.step in CHANGING and row.requested_at is not None:
                for host in row.hosts:
                    changed[host] = max(row.requested_at, changed.get(host, row.requested_at))
        for remedy in remedies.rows_of(work.ledger, work.run_id):
            if remedy["ended_at"]:
                ended = datetime.fromisoformat(remedy["began_at"] or remedy["ended_at"])
                host = HostId(remedy["host"])
                changed[host] = max(ended, changed.get(host, ended))
        plan = work.plan
        planned = [
            Subject(host=host.id, cell=host.cell, stage=stage.name, changed_at=changed.get(host.id))
            for stage in plan.stages
            for host in stage.hosts
        ]
        known = {subject.host for subject in planned}
        joined = [
            Subject(host=row.host, cell=row.cell, stage=row.stage, changed_at=changed.get(row.host))
            for row in work.ledger.hosts(work.run_id)
            if row.host not in known
        ]
        return planned + joined + [Subject(host=one.host, cell=one.cell, stage="") for one in plan.exclusions]

    def _evaluate(self, work: Work, cells: set[Cell]) -> None:
        for cell in sorted(cells):
            answers = work.gateway.evaluate(cell, work.campaign.verify.config_rules)
            self.log.info("%s: asked Config to evaluate: %s", cell, {rule: answer.value for rule, answer in answers.items()})

    def _store_before(self, work: Work) -> None:
        """What the Scan before found is the truth about "before": older reports were whatever somebody left there."""
        before = read_judgement(work, "compliance.before")
        rows = {row.host: row for row in work.ledger.hosts(work.run_id)}

        def corrected(host: HostCompliance) -> HostCompliance:
            row = rows.get(host.host)
            if row is None or row.missing_before is None:
                return host
            verdict = Verdict.COMPLIANT if row.state.value == "already_compliant" else Verdict.NOT_COMPLIANT
            return replace(
                host,
                verdict=verdict,
                missing=row.missing_before,
                reason=f"the Scan before found {row.missing_before} patches missing",
            )

        store_judgement(work, "compliance.before", replace(before, hosts=tuple(corrected(host) for host in before.hosts)))

    def _store_stale_images(self, work: Work) -> None:
        """Which groups of patched hosts would bring an unpatched one back. That it cannot be asked is told, and ends no run whose
        hosts are patched."""
        rows = work.ledger.hosts(work.run_id)
        found, problem = stale_images_of(work.gateway, rows, work.policy.stale_images, now=work.now)
        if problem:
            self.log.warning("From what the Auto Scaling groups make their instances is not known: %s", problem)
        for one in found:
            self.log.warning("Group %s in %s would bring an unpatched host back: %s", one.group, one.cell, one.why)
        content = stale_images.to_json(found, problem=problem)
        work.ledger.put_document(work.run_id, stale_images.DOCUMENT, content, at=work.now)

    def _store_findings(self, work: Work) -> None:
        """Which of the findings are gone: active no more, on a host that Inspector still looks at."""
        active: set[str] = set()
        scanned: set[str] = set()
        for cell in work.campaign.cells:
            active.update(finding.arn for finding in work.gateway.findings(cell))
            scanned.update(str(one.host) for one in work.gateway.coverage(cell) if one.active)
        assessments = triage_rows(work)

        def fates() -> Iterator[dict[str, str]]:
            for one in assessments:
                fate = Fate.OPEN
                if one["finding"] not in active:
                    fate = Fate.CLOSED if one["host"] is None or one["host"] in scanned else Fate.UNKNOWN
                yield {"finding": one["finding"], "fate": fate.value}

        work.ledger.put_rows(
            work.run_id, FINDINGS_AFTER, fates(), head={"at": work.now.isoformat()}, of=exposure.ROWS, at=work.now
        )
