"""How do the accounts' patch baselines come to say what the policy wants, before a stage is patched by them?

The stage's task calls `keep` when its gate is open and before its first Scan, in every leg: what the plan says is written down
as an intent, done, and noted as done, so that a later leg, or a try that follows on a killed one, does the rest. AWS is looked
at before each change, and creating takes a client token, so that doing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from patchwave.aws.gateway import Gateway
from patchwave.campaign.baselines import Baseline
from patchwave.campaign.plan import StagePlan
from patchwave.execution.log import Log
from patchwave.ledger.store import Lease, Ledger

KEEPING, KEPT = "baseline.keeping", "baseline.kept"
"""Kinds of records: what is about to be done to the baselines of a cell, and what was done."""


def keep(
    ledger: Ledger,
    gateway: Gateway,
    lease: Lease,
    stage: StagePlan,
    wanted: Iterable[Baseline],
    *,
    now: Callable[[], datetime],
    log: Log,
) -> None:
    """Do what the plan says about patch baselines, once.

    Args:
        wanted: what the policy wants, by which the plan was made.

    Raises:
        BaselineOfOthers: somebody has made one of that name since the plan was made.
        AccessDenied, InvalidRequest: AWS refuses; no host was touched.
        LeaseLost: another process has taken the stage over.
    """
    if not stage.baselines:
        return
    document = f"baselines:{stage.name}"
    done = _done(ledger, lease, document)
    by_system = {one.operating_system: one for one in wanted}
    for one in stage.baselines:
        key = f"{one.cell}|{one.operating_system}"
        if key in done:
            continue
        ledger.check(lease)
        said = {"stage": stage.name, "cell": str(one.cell), "baseline": one.name}
        intent = {**said, "creates": one.creates, "groups": list(one.groups), "takes": dict(one.takes)}
        ledger.record(lease.run, KEEPING, intent, at=now())
        kept = gateway.ensure_baseline(
            one.cell, by_system[one.operating_system], (*one.groups, *one.takes), run=str(lease.run), takes=one.takes
        )
        ledger.check(lease)
        ledger.record(lease.run, KEPT, {**said, **_jsonable(asdict(kept))}, at=now())
        done[key] = kept.id
        ledger.put_document(lease.run, document, done, at=now())
        left = f"; left to others: {', '.join(group for group, _ in kept.left)}" if kept.left else ""
        log.info("Kept %s (%s)%s", one, kept.id, left)


def _done(ledger: Ledger, lease: Lease, document: str) -> dict[str, str]:
    try:
        return dict(ledger.document(lease.run, document))
    except KeyError:
        return {}


def _jsonable(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()} | {
        "left": [list(pair) for pair in facts["left"]]
    }
