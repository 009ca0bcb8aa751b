"""A person ended the remediation: how are its Automation executions stopped?

`stopping` calls `stop` for a wish, the operator for what a clear left in flight. The remedies are a document of the run, one
row a host; a row names the try that has it in hand (`holder`), so that nobody stops what a later try has begun. Which
executions had begun is written down before the first of them is cancelled.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from patchwave.aws.gateway import Gateway
from patchwave.campaign.errors import LeaseLost
from patchwave.campaign.remediation import AutomationStatus, RemedyState
from patchwave.campaign.values import Cell, RunId
from patchwave.execution.log import Log
from patchwave.ledger.store import Ledger

TASK = "remediate"
"""Id of the task; in a wish it stands where a stage's name does (Airflow lets no stage have it)."""
REMEDIES = "remedies"
"""The document."""
OPEN = frozenset({"intended", "running"})
STOPPED = "stopped"
LEAST_LOOKS = 2
"""A remedy that was just begun is not listed at once, so one that is not found is looked for again."""


def rows_of(ledger: Ledger, run: RunId) -> list[dict[str, Any]]:
    """The remedies as the ledger has them; none before they were chosen."""
    try:
        return [{"holder": "", "stopped_by": ""} | row for row in ledger.document(run, REMEDIES)]
    except KeyError:
        return []


def refuse_ended(ledger: Ledger, run: RunId, holder: str) -> None:
    """Nothing, unless a person ended the try `holder`.

    Raises:
        LeaseLost: one did.
    """
    if any(wish.holder == holder and wish.stage == TASK for wish in ledger.stop_wishes(run)):
        raise LeaseLost("a person ended this try of the remediation: it begins nothing more")


def check(ledger: Ledger, run: RunId, holder: str) -> None:
    """Nothing, while the try `holder` may go on.

    Raises:
        LeaseLost: a person ended it, or another try has the remedies in hand.
    """
    refuse_ended(ledger, run, holder)
    others = {row["holder"] for row in rows_of(ledger, run) if row["outcome"] in OPEN} - {holder, ""}
    if others:
        raise LeaseLost(f"another try has the remediation in hand: {', '.join(sorted(others))}")


def begin_anew(row: dict[str, Any]) -> None:
    """A person cleared the task: a remedy that was stopped is begun again, as an execution of its own."""
    token = str(uuid.uuid5(uuid.UUID(row["token"]), "again"))
    row.update(outcome="intended", token=token, execution="", holder="", stopped_by="", began_at=None, ended_at=None)


def stop(
    ledger: Ledger,
    gateway: Gateway,
    run: RunId,
    holder: str,
    *,
    reason: str,
    now: Callable[[], datetime],
    log: Log,
    looks: int,
    pause: Callable[[], None],
) -> str:
    """Cancel every execution of the try `holder` that is in flight, and look until AWS says that they are over.

    Args:
        looks: how often to look at most; a `pause`, which lets real time pass, lies between two.

    Returns:
        What became of it, in one sentence.

    Raises:
        Transient, AccessDenied: AWS or the ledger does not let us; what is not cancelled stays open in the ledger.
    """
    cancelled: dict[str, str] = {}  # execution by host
    left: dict[str, AutomationStatus] = {}
    for look in range(looks):
        rows = [row for row in rows_of(ledger, run) if row["holder"] == holder and row["outcome"] in OPEN]
        found = {row["host"]: status for row in rows if (status := _status(gateway, row)) is not None}
        left = {host: status for host, status in found.items() if status.state is RemedyState.RUNNING}
        news = {host: status for host, status in left.items() if host not in cancelled}
        if news:
            _note(ledger, run, reason, news, at=now())
        for host, status in news.items():
            gateway.stop_automation(status.cell, status.id)
            log.info("Cancelled the remedy of %s in step %s: %s", host, status.step or "none", status.id)
            cancelled[host] = status.id
        _settle(ledger, run, holder, found, at=now())
        if not left and look + 1 >= min(looks, LEAST_LOOKS):
            break
        if look + 1 < looks:
            pause()
    if cancelled:
        data = {"reason": reason, "executions": cancelled, "not_over": sorted(left)}
        ledger.record(run, "remedy.stopped", data, at=now())
    ledger.end_wait(run, TASK, at=now())
    if not cancelled:
        return "nothing was in flight"
    return f"{len(cancelled)} remedies cancelled ({', '.join(sorted(cancelled))})" + (
        f"; {len(left)} not over yet ({', '.join(sorted(left))})" if left else ""
    )


def _status(gateway: Gateway, row: Mapping[str, Any]) -> AutomationStatus | None:
    """How its execution stands; None if AWS lists none that our token has begun."""
    cell = Cell.parse(row["cell"])
    if row["execution"]:
        return gateway.automation(cell, row["execution"])
    return gateway.find_automation(cell, row["token"])


def _note(ledger: Ledger, run: RunId, reason: str, begun: Mapping[str, AutomationStatus], *, at: datetime) -> None:
    """Before the first call: whoever goes on after us must know what had begun, and why it ended half-way."""
    rows = rows_of(ledger, run)
    for row in rows:
        if row["host"] in begun:
            row.update(outcome="running", execution=begun[row["host"]].id, stopped_by=reason)
    ledger.put_document(run, REMEDIES, rows, at=at)
    told = {host: {"execution": status.id, "step": status.step} for host, status in begun.items()}
    ledger.record(run, "remedy.stopping", {"reason": reason, "begun": told}, at=at)


def _settle(ledger: Ledger, run: RunId, holder: str, found: Mapping[str, AutomationStatus], *, at: datetime) -> None:
    """What we have cancelled and is over is so in the document, too."""
    rows = rows_of(ledger, run)
    changed = False
    for row in rows:
        status = found.get(row["host"])
        if status is not None and row["holder"] == holder and row["stopped_by"] and status.state is RemedyState.CANCELLED:
            stopped(row, status, at=at)
            changed = True
    if changed:
        ledger.put_document(run, REMEDIES, rows, at=at)


def stopped(row: dict[str, Any], status: AutomationStatus, *, at: datetime) -> None:
    """A remedy that we cancelled is over."""
    detail = f"{row['stopped_by']}; it was in step {status.step or 'none'}, so the host may be half-way: clear the task to go on"
    began = status.began_at.isoformat() if status.began_at else row["began_at"]
    row.update(outcome=STOPPED, detail=detail, began_at=began, ended_at=(status.ended_at or at).isoformat())
