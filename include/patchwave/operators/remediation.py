"""What is still not compliant is remedied by SSM Automation, where the campaign file allows it, a few hosts at a time.

When a person ends the task, the api-server cancels what is in flight (`listeners.ended_by_hand`); of a clear the next try does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from patchwave.aws.automation import runbook
from patchwave.campaign import overrides, remediation, rollout
from patchwave.campaign import snapshots as saved
from patchwave.campaign.compliance import Judgement, Verdict
from patchwave.campaign.definition import Source
from patchwave.campaign.errors import OutcomeUnknown, Permanent
from patchwave.campaign.lockfile import NotLocked
from patchwave.campaign.remediation import RUNBOOK, Remedy, RemedyState
from patchwave.campaign.rollout import HostState
from patchwave.campaign.values import Cell, Count, HostId
from patchwave.execution import kernels, openings, promotion, remedies, stopping
from patchwave.execution.promotion import UNKNOWN_PLATFORM
from patchwave.execution.remedies import REMEDIES
from patchwave.ledger.store import StageState
from patchwave.operators.base import PLAN, CampaignOperator, Work
from patchwave.operators.compliance import read_judgement

LOOK_AGAIN = timedelta(minutes=5)
OTHERS_BASELINE = (
    "it is not compliant by its account's baseline, and the policy's holds in its place (apply_baselines: override); a remedy "
    "would install what the account's approves"
)
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
        rows = self._taken_over(work, rows)
        self._advance(work, rows)
        self._write(work, rows)
        running = [row for row in rows if row["outcome"] in remedies.OPEN]
        if running:
            first = min(row["intended_at"] for row in running)
            until = work.now + LOOK_AGAIN
            self.wait(
                work,
                subject=self.task_id,
                reason=f"the runbook {RUNBOOK} remedies {Count(len(running))} since {first[:16]}",
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
        if REMEDIES in work.ledger.documents(work.run_id):
            return remedies.rows_of(work.ledger, work.run_id)
        judged = read_judgement(work, "compliance.after")
        chosen = remediation.choose(
            work.run_id,
            judged,
            allowed=set(work.campaign.remediate.stages),
            untouched=untouched,
            out_of_reach={row.host: row.reason for row in work.ledger.hosts(work.run_id) if row.state in OUT_OF_REACH},
            left_out=_left_out(work, judged),
            shut=_shut(work),
        )
        rows = [_row(remedy) for remedy in chosen]
        # Written before anything is started: these are the intents, each with its client token.
        work.ledger.put_document(work.run_id, REMEDIES, rows, at=work.now)
        return rows

    def _taken_over(self, work: Work, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """This try has the open remedies in hand now; what a try had in flight that a person has cleared is cancelled first."""
        remedies.refuse_ended(work.ledger, work.run_id, work.holder)
        holders = {row["holder"] for row in rows if row["outcome"] in remedies.OPEN and row["holder"]}
        for holder in sorted(one for one in holders if stopping.was_cleared(one, work.holder)):
            done = remedies.stop(
                work.ledger, work.gateway, work.run_id, holder, reason=stopping.CLEARED,
                now=lambda: work.now, log=self.log, looks=1, pause=lambda: None,
            )  # fmt: skip
            self.log.info("The task was cleared: %s", done)
            rows = remedies.rows_of(work.ledger, work.run_id)
        for row in rows:
            if row["outcome"] in remedies.OPEN and row["holder"]:
                row["holder"] = work.holder
        work.ledger.put_document(work.run_id, REMEDIES, rows, at=work.now)
        return rows

    def _write(self, work: Work, rows: list[dict[str, Any]]) -> None:
        remedies.check(work.ledger, work.run_id, work.holder)
        work.ledger.put_document(work.run_id, REMEDIES, rows, at=work.now)

    def _advance(self, work: Work, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["outcome"] == "running":
                self._look(work, row)
            if row["outcome"] == remedies.STOPPED:  # whoever stopped it cleared the task since, or nobody would be here
                remedies.begin_anew(row)
        shut = _shut(work) if any(row["outcome"] == "intended" for row in rows) else []
        for row in rows:
            if row["outcome"] == "intended" and row["stage"] in shut and not row["holder"]:
                row.update(outcome="not_tried", detail=f"the window of stage {row['stage']} has shut before its turn came")
        places = {str(stage.name): stage.stage_places for stage in work.plan.stages}
        tried: set[str] = set()
        while batch := _fitting(rows, places, tried):
            for row in batch:
                row["holder"] = work.holder
            self._write(work, rows)  # before anything is started: whoever stops this try must find what it began
            for row in batch:
                self._start(work, row)
                tried.add(row["host"])

    def _start(self, work: Work, row: dict[str, Any]) -> None:
        cell = Cell.parse(row["cell"])
        remedies.check(work.ledger, work.run_id, work.holder)
        try:
            listed = _listed(work, row)
            parameters = {"InstanceId": [row["host"]]} | ({"InstallOverrideList": [listed]} if listed else {})
            work.gateway.ensure_runbook(cell, RUNBOOK, runbook())
            row["execution"] = work.gateway.start_automation(cell, RUNBOOK, parameters, row["token"])
        except OutcomeUnknown:
            return  # the token makes the next attempt safe
        except NotLocked as error:
            row.update(outcome="not_tried", detail=str(error))
            return
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
        elif status.state is RemedyState.CANCELLED and row["stopped_by"]:
            remedies.stopped(row, status, at=work.now)
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


def _listed(work: Work, row: Mapping[str, Any]) -> str:
    """Address of the list from which alone a host is remedied; empty where its baseline says what it gets.

    Raises:
        NotLocked: it is in a stage that gets what the first one received, and nobody has tried anything for it.
    """
    if not work.campaign.is_locked(row["stage"]):
        return ""
    held = promotion.holding(work.ledger, work.run_id, work.campaign.name)
    if held is None:
        raise NotLocked(f"stage {row['stage']} gets what a lockfile says, and no run has one")
    return promotion.address(
        work.gateway,
        held[1],
        Cell.parse(row["cell"]),
        next((one.platform for one in work.ledger.hosts(work.run_id) if one.host == row["host"]), UNKNOWN_PLATFORM),
        bucket=work.lists_bucket,
        allowed=work.campaign.promotion.untried is Source.BASELINE,
    )


def _shut(work: Work) -> list[str]:
    """Stages whose window is shut now, by a freeze or a calendar, too: a remedy disrupts as a patch does."""
    return [
        str(stage.name)
        for stage in work.plan.stages
        if not openings.is_open(work.gateway, work.campaign, work.plan, stage, now=work.now)
    ]


def _left_out(work: Work, judged: Judgement) -> dict[HostId, str]:
    """Hosts that their stage left out, and those that a remedy would bring a kernel to where a stage must install none."""
    unsaved = _unsaved(work)
    found = {
        row.host: row.reason
        for row in work.ledger.hosts(work.run_id)
        if row.state is HostState.EXCEPTED or row.host in unsaved
    }
    override = overrides.of(work.policy, window=True)
    if override is not None:
        platforms = {row.host: row.platform for row in work.ledger.hosts(work.run_id)}
        ours = {one.host for one in judged.hosts if override.on(platforms.get(one.host, "")) is not None}
        found |= dict.fromkeys(ours - found.keys(), OTHERS_BASELINE)
    if not work.plan.kernel_waits:
        return found
    allowed = {str(one.name) for one in work.plan.stages if one.window is None} & set(work.campaign.remediate.stages)
    for one in judged.hosts:
        if one.verdict is Verdict.NOT_COMPLIANT and one.stage in allowed and one.host not in found:
            names = kernels.waiting(work.gateway, work.policy.kernel, one.cell, one.host)
            if names:
                found[one.host] = rollout.waits_for_window(one.stage, names)
    return found


def _unsaved(work: Work) -> frozenset[HostId]:
    """Hosts that were not patched since their snapshot came to nothing; a remedy would be a patch without it, too."""
    rule = work.policy.snapshot
    if rule is None:
        return frozenset()
    names = [name for name in work.ledger.documents(work.run_id) if name.startswith(saved.document(""))]
    taken = [one for name in names for one in saved.from_json(work.ledger.document(work.run_id, name)).values()]
    failed = frozenset(row.host for row in work.ledger.hosts(work.run_id) if row.state is HostState.FAILED)
    return failed & {one.host for one in taken if one.state not in saved.enough(rule)}


def _lost(row: Mapping[str, Any], tried: Collection[str]) -> bool:
    return row["outcome"] == "intended" and row["host"] in tried


def _fitting(rows: list[dict[str, Any]], places: Mapping[str, int], tried: Collection[str]) -> list[dict[str, Any]]:
    """Remedies that can be started beside those that run; one whose answer was lost holds its place."""
    busy = Counter(row["stage"] for row in rows if row["outcome"] == "running" or _lost(row, tried))
    fitting = []
    for row in rows:
        if row["outcome"] == "intended" and row["host"] not in tried and busy[row["stage"]] < places[row["stage"]]:
            fitting.append(row)
            busy[row["stage"]] += 1
    return fitting


def _row(remedy: Remedy) -> dict[str, Any]:
    row = asdict(remedy)
    row.pop("reason")
    return row | {
        "cell": str(remedy.cell),
        "outcome": "not_tried" if remedy.action == "none" else "intended",
        "detail": remedy.reason,
        "execution": "",
        "holder": "",
        "stopped_by": "",
        "intended_at": "",
        "began_at": None,
        "ended_at": None,
    }
