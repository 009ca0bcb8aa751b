"""What is added to the reason of a wait while it lasts? Triggers notice things that the task, which sleeps, cannot."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from patchwave.campaign.values import RunId
from patchwave.ledger.store import Ledger


def add_to_wait(ledger: Ledger, run: RunId, subject: str, why: str, now: datetime) -> bool:
    """Add a clause to the reason of the subject's open wait; what stands there already is not said twice.

    Returns:
        Whether the reason changed; False, too, when nothing waits.
    """
    waits = [row for row in ledger.waits(run, open_only=True) if row.subject == subject]
    if not waits or why in waits[-1].reason:
        return False
    return ledger.wait(replace(waits[-1], reason=f"{waits[-1].reason}; {why}", since=now))
