"""The last two tasks: the report is made whatever happened, then the run ends as the report says.

`ReportOperator` runs after everything, also after failures and rejections; `OutcomeOperator` behind it fails where the run
failed, since Airflow would call a run green whose last task succeeded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from patchwave.campaign import (
    calls,
    emergency,
    evidence,
    exposure,
    lockfile,
    managed_services,
    page,
    report,
    severity,
    stale_images,
)
from patchwave.campaign import plan as plans
from patchwave.campaign.definition import Event
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.folders import run_folder
from patchwave.campaign.plan import Plan
from patchwave.ledger.rows import Rows
from patchwave.ledger.store import RunOutcome, StageState
from patchwave.operators.base import PLAN, TRIAGE, CampaignOperator, Work
from patchwave.operators.compliance import FINDINGS_AFTER
from patchwave.operators.notifications import tell

DOCUMENTS = (
    "plan", "plan.md", "compliance.before", "compliance.after", "compliance.final", "remedies", lockfile.DOCUMENT,
    emergency.DOCUMENT, stale_images.DOCUMENT,
)  # fmt: skip
OF_ROWS = {TRIAGE: severity.ROWS, FINDINGS_AFTER: exposure.ROWS}
"""Documents that are gone through row by row, with the key of the rows."""
RUNS_VARIABLE = "PATCHWAVE_RUNS_DIR"
BY_STAGE = (lockfile.COMPARED, managed_services.document(""))
"""How names of documents begin that there is one of for each stage."""
LAST = frozenset({"report", "outcome"})


def runs_root() -> Path:
    """Where reports are written: ``PATCHWAVE_RUNS_DIR``, or ``var/runs`` below Airflow's home."""
    return Path(os.environ.get(RUNS_VARIABLE) or Path(os.environ.get("AIRFLOW_HOME", ".")) / "var" / "runs")


def task_states(work: Work) -> Mapping[str, str]:
    """States of the run's tasks but the last two, by task id."""
    found = work.context["ti"].get_task_states(dag_id=work.dag_run.dag_id, run_ids=[work.dag_run.run_id])
    states = found.get(work.dag_run.run_id, {})
    return {task: str(getattr(state, "value", state)) for task, state in states.items() if task not in LAST}


def judged(work: Work, states: Mapping[str, str]) -> tuple[RunOutcome, str]:
    """How the run went, and why it says so."""
    failed = sorted(task for task, state in states.items() if state == "failed")
    if failed:
        return RunOutcome.FAILED, f"failed: {', '.join(failed)}"
    documents = work.ledger.documents(work.run_id)
    if PLAN not in documents:
        return RunOutcome.FAILED, "no plan was made"
    plan: Plan = work.plan
    if plan.dry_run:
        return RunOutcome.DRY_RUN, "the plan is the result"
    rows = {row.stage: row for row in work.ledger.stages(work.run_id)}
    for stage in plan.stages:
        row = rows[stage.name]
        if row.state is StageState.HALTED:
            return RunOutcome.FAILED, f"stage {stage.name} is halted: {row.reason}"
        if row.state is StageState.SKIPPED:
            return RunOutcome.REJECTED, f"stage {stage.name}: {row.reason}"
        if row.state is not StageState.PATCHED:
            return RunOutcome.FAILED, f"stage {stage.name} was planned and never carried out"
    return RunOutcome.SUCCEEDED, "each stage was patched within its error budget"


class ReportOperator(CampaignOperator):
    """Writes HTML, JSON and CSV into the run's folder, plan and lockfile if there are any, and the report into the ledger."""

    def work(self, work: Work) -> str:
        """Returns the run's folder."""
        try:
            work.ledger.run(work.run_id)
        except KeyError:
            raise AirflowSkipException("this run has written nothing to its ledger, so there is nothing to report") from None
        outcome, why = judged(work, task_states(work))
        work.ledger.end_run(work.run_id, outcome, at=work.now)
        self.log.info("Outcome: %s (%s)", outcome.value, why)
        for wait in work.ledger.waits(work.run_id, open_only=True):
            work.ledger.end_wait(work.run_id, wait.subject, at=work.now)
        folder = run_folder(runs_root(), work.run_id)
        made = self._report(work, folder, why)
        self._write(work, made, folder)
        work.ledger.put_document(work.run_id, "report", report.to_json(made), at=work.now)
        failed = outcome is RunOutcome.FAILED
        tell(work.campaign, Event.RUN_FINISHED, f"{outcome.value}: {made.headline}", to=self.log)
        if failed:
            tell(work.campaign, Event.RUN_FAILED, why, to=self.log)
        return str(folder)

    def _report(self, work: Work, folder: Path, why: str) -> report.Report:
        ledger, run = work.ledger, work.run_id
        present = ledger.documents(run)
        journal = ledger.journal(run)
        return report.build(
            ledger.run(run),
            ledger.stages(run),
            ledger.hosts(run),
            ledger.decisions(run),
            ledger.waits(run),
            ledger.dispatches(run),
            ledger.calls(run),
            evidence.verify(journal),
            {name: ledger.document(run, name) for name in present if name in DOCUMENTS or name.startswith(BY_STAGE)}
            | {name: _row_by_row(ledger.rows(run, name, of=of)) for name, of in OF_ROWS.items() if name in present}
            | _plans(work),
            now=work.now,
            run_folder=str(folder),
            journal_head=journal[-1].hash if journal else "",
            why=why,
        )

    def _write(self, work: Work, made: report.Report, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        present = work.ledger.documents(work.run_id)
        # One after the other: with 100,000 hosts each of them is some hundred MiB.
        files: dict[str, Callable[[], str]] = {
            "report.html": lambda: report.to_html(made),
            "report.json": lambda: json.dumps(report.to_json(made), indent=1, ensure_ascii=False) + "\n",
            "hosts.csv": lambda: report.to_csv(made),
        }
        if "plan.md" in present:
            files |= {name: partial(str, text) for name, text in self._plan_files(work, made).items()}
        for name, text in files.items():
            # Written aside and moved: a reader sees the whole file or none.
            aside = folder / f".{name}.{datetime.now(UTC):%H%M%S%f}"
            aside.write_text(text(), encoding="utf-8", newline="")
            aside.replace(folder / name)
        if lockfile.DOCUMENT in present:
            try:
                stored = work.ledger.document(work.run_id, lockfile.DOCUMENT)
                locked, origin = lockfile.opened(stored, file="the ledger's lockfile")
                lockfile.write(locked, origin, folder)
            except InvalidFile as error:
                self.log.error("The lockfile is not among the files: %s", error)

    def _plan_files(self, work: Work, made: report.Report) -> dict[str, str]:
        """The plan for people, as a page that can be sent, and for programs; of a dry run with what a run would call."""
        text = str(work.ledger.document(work.run_id, "plan.md"))
        would_call = None
        if calls.DOCUMENT in work.ledger.documents(work.run_id):
            would_call = work.ledger.document(work.run_id, calls.DOCUMENT)
        content = page.to_json(_plans(work)[PLAN], run=work.run_id, calls=would_call)
        return {
            "plan.md": text,
            "plan.html": page.to_html(text, title=f"Plan of {made.campaign}"),
            "plan.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        }


def _row_by_row(rows: Rows) -> dict[str, Any]:
    """The document as a mapping whose rows are read from the ledger while somebody goes through them."""
    return {**(rows.head or {}), str(rows.of): rows}


def _plans(work: Work) -> dict[str, Any]:
    """The plan with every stage as it was approved last, and the digests of all."""
    documents = work.ledger.documents(work.run_id)
    names = plans.plan_names(documents)
    if not names:
        return {}
    newest = work.ledger.document(work.run_id, names[-1])
    return {PLAN: newest, report.PLANS: {name: documents[name] for name in names}}


class OutcomeOperator(BaseOperator):
    """Fails where the run failed, so that Airflow shows it as what it is.

    Args:
        ledger_conn_id: Airflow connection of the ledger's database.
    """

    def __init__(self, *, ledger_conn_id: str = "patchwave_ledger", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ledger_conn_id = ledger_conn_id

    def execute(self, context: Any) -> str:
        """Returns the outcome's word."""
        work = Work(context, aws_conn_id="aws_default", ledger_conn_id=self.ledger_conn_id)
        states = work.context["ti"].get_task_states(dag_id=work.dag_run.dag_id, run_ids=[work.dag_run.run_id])
        of_run = {task: str(getattr(state, "value", state)) for task, state in states.get(work.dag_run.run_id, {}).items()}
        if of_run.get("scan_findings") == "skipped":
            return "nothing was begun"
        if of_run.get("report") != "success":
            raise AirflowFailException("The report could not be made, so nobody can say how this run went.")
        outcome, why = judged(work, task_states(work))
        if outcome is RunOutcome.FAILED:
            raise AirflowFailException(f"This run failed: {why}. Its report is made all the same.")
        return outcome.value
