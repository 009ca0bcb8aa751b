"""What is still not compliant is remedied by SSM Automation, where the campaign file allows it, a few hosts at a time."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from patchwave.aws.automation import runbook
from patchwave.campaign import remediation, windows
from patchwave.campaign.errors import OutcomeUnknown, Permanent
from patchwave.campaign.remediation import RUNBOOK, Remedy, RemedyState
from patchwave.campaign.rollout import HostState
from patchwave.campaign.values import Cell
from patchwave.ledger.store import StageState
from patchwave.operators.base import PLAN, CampaignOperator, Work
from patchwave.operators.compliance import read_judgement

REMEDIES = "remedies"
LOOK_AGAIN = timedelta(minutes=5)
OUT_OF_REACH = frozenset({HostState.UNREACHABLE, HostState.STOPPED, HostState.TERMINATED, HostState.REPLACED})


class RemediateOperator(CampaignOperator):
    """Starts one Automation execution for each host that is not compliant, and waits for all of them."""

    def work(self, work: Work) -> dict[str, int]:
        """Returns remedies by outcome."""
        if PLAN not in work.ledger.documents(work.run_id) or work.plan.dry_run:
            raise AirflowSkipException("nothing was patched in this run, so there is nothing to remedy")
        states = {row.stage: row.state for row in work.ledger.stages(work.run_id)}
        halted = [name for name, state in states.items() if state is StageState.HALTED]
        if halted:
            raise AirflowSkipException(f"stage {', '.join(halted)} is halted: a person looks first, nothing is remedied")
        rows = self._rows(work, untouched=[name for name, state in states.items() if state is not StageState.PATCHED])
        if not rows:
            self.log.info("Every host is compliant or unknown: nothing to remedy")
        self._advance(work, rows)
        work.ledger.put_document(work.run_id, REMEDIES, rows, at=work.now)
        running = [row for row in rows if row["outcome"] in ("intended", "running")]
        if running:
            first = min(row["intended_at"] for row in running)
            until = work.now + LOOK_AGAIN
            self.wait(
                work,
                subject=self.task_id,
                reason=f"{len(running)} hosts are being remedied by the runbook {RUNBOOK} since {first[:16]}",
                ends="their Automation executions end",
                until=until,
            )
        work.ledger.end_wait(work.run_id, self.task_id, at=work.now)
        outcomes: dict[str, int] = {}
        for row in rows:
            outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + 1
            self.log.info("%s (%s): %s: %s", row["host"], row["stage"] or "no stage", row["outcome"], row["detail"])
        return outcomes

    def _rows(self, work: Work, *, untouched: list[str]) -> list[dict[str, Any]]:
        """The remedies as the ledger has them; chosen once, at the first call."""
        try:
            return list(work.ledger.document(work.run_id, REMEDIES))
        except KeyError:
            pass
        chosen = remediation.choose(
            work.run_id,
            read_judgement(work, "compliance.after"),
            allowed=set(work.campaign.remediate.stages),
            untouched=untouched,
            out_of_reach={row.host: row.reason for row in work.ledger.hosts(work.run_id) if row.state in OUT_OF_REACH},
            shut=[
                stage.name
                for stage in work.plan.stages
                if stage.window is not None and work.now not in windows.occurrence(stage.window, work.now)
            ],
        )
        rows = [_row(remedy) for remedy in chosen]
        # Written before anything is started: these are the intents, each with its client token.
        work.ledger.put_document(work.run_id, REMEDIES, rows, at=work.now)
        return rows

    def _advance(self, work: Work, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["outcome"] == "running":
                self._look(work, row)
        places = {stage.name: stage.stage_places for stage in work.plan.stages}
        busy = {name: sum(1 for row in rows if row["stage"] == name and row["outcome"] == "running") for name in places}
        for row in rows:
            if row["outcome"] == "intended" and busy[row["stage"]] < places[row["stage"]]:
                self._start(work, row)
                busy[row["stage"]] += row["outcome"] == "running"

    def _start(self, work: Work, row: dict[str, Any]) -> None:
        cell = Cell.parse(row["cell"])
        try:
            work.gateway.ensure_runbook(cell, RUNBOOK, runbook())
            row["execution"] = work.gateway.start_automation(cell, RUNBOOK, {"InstanceId": [row["host"]]}, row["token"])
        except OutcomeUnknown:
            return  # the token makes the next attempt safe
        except Permanent as error:
            row.update(outcome="failed", detail=f"AWS refused the remedy: {error}")
            return
        row.update(outcome="running", intended_at=work.now.isoformat())
        work.ledger.record(
            work.run_id, "remedy.started", {key: row[key] for key in ("host", "stage", "execution", "token")}, at=work.now
        )

    def _look(self, work: Work, row: dict[str, Any]) -> None:
        status = work.gateway.automation(Cell.parse(row["cell"]), row["execution"])
        row["began_at"] = status.began_at.isoformat() if status.began_at else None
        if status.state is RemedyState.SUCCEEDED:
            row.update(outcome="succeeded", detail="the runbook ran through; whether the host is compliant, verify_again tells")
        elif status.ended:
            row.update(outcome="failed", detail=f"{status.status}: {status.failure or 'AWS gives no reason'}")
        else:
            return
        row["ended_at"] = status.ended_at.isoformat() if status.ended_at else work.now.isoformat()
        work.ledger.record(
            work.run_id,
            "remedy.ended",
            {key: row[key] for key in ("host", "stage", "execution", "outcome", "detail")},
            at=work.now,
        )


def _row(remedy: Remedy) -> dict[str, Any]:
    row = asdict(remedy)
    row.pop("reason")
    return row | {
        "cell": str(remedy.cell),
        "outcome": "not_tried" if remedy.action == "none" else "intended",
        "detail": remedy.reason,
        "execution": "",
        "intended_at": "",
        "began_at": None,
        "ended_at": None,
    }
