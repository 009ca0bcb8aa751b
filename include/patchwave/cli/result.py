"""What came out of a run? Tables for the terminal, from the ledger's hosts and its document ``report``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from patchwave.campaign.rollout import TERMINAL, HostState
from patchwave.campaign.values import RunId
from patchwave.ledger.store import Ledger


def report_of(ledger: Ledger, run: RunId) -> Mapping[str, Any]:
    """The run's report, empty if none was made."""
    try:
        report = ledger.document(run, "report")
    except KeyError:
        return {}
    return report if isinstance(report, Mapping) else {}


def show(console: Console, ledger: Ledger, run: RunId) -> None:
    """Print hosts by class and stage, compliance before and after, and findings."""
    report = report_of(ledger, run)
    found = _mapping(report, "classes") or _classes(ledger, run)
    order = [str(row.stage) for row in ledger.stages(run)]  # JSON objects have none
    classes = {name: found[name] for name in sorted(found, key=lambda one: order.index(one) if one in order else len(order))}
    if classes:
        console.print(_hosts(classes))
    compliance = _mapping(report, "compliance")
    if compliance:
        console.print(_compliance(compliance))
    findings = _mapping(report, "findings")
    if findings:
        console.print(
            f"findings: {findings.get('before', '?')} before, {findings.get('closed', '?')} closed, "
            f"{findings.get('open', '?')} still open"
        )
    if not report:
        console.print("the run made no report; what is shown comes from the ledger's hosts")


def _mapping(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = report.get(key)
    return value if isinstance(value, Mapping) else {}


def _classes(ledger: Ledger, run: RunId) -> Mapping[str, Mapping[str, int]]:
    counted: dict[str, Counter[str]] = {}
    for row in ledger.hosts(run):
        counted.setdefault(row.stage, Counter())[row.state.value if row.state in TERMINAL else "not settled"] += 1
    return counted


def _hosts(classes: Mapping[str, Any]) -> Table:
    names = [state.value for state in HostState if state in TERMINAL] + ["not_started", "in_flight", "not settled"]
    used = [name for name in names if any(_count(row, name) for row in classes.values())]
    table = Table(title="Hosts by class", title_justify="left")
    table.add_column("stage")
    for name in used:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("total", justify="right")
    for stage, row in classes.items():
        total = sum(_count(row, name) for name in row) if isinstance(row, Mapping) else 0
        table.add_row(str(stage), *(str(_count(row, name) or "") for name in used), str(total))
    return table


def _compliance(compliance: Mapping[str, Any]) -> Table:
    table = Table(title="Compliance", title_justify="left")
    table.add_column("")
    for name in ("compliant", "not compliant", "unknown"):
        table.add_column(name, justify="right")
    moments = {"before": "before", "after": "after", "final": "after remediation"}
    for moment, title in moments.items():
        row = _mapping(compliance, moment)
        if not row and moment == "final":
            continue  # nothing was remedied
        table.add_row(title, *(str(row.get(name, "?")) for name in ("compliant", "not_compliant", "unknown")))
    return table


def _count(row: Any, name: str) -> int:
    return int(row.get(name, 0)) if isinstance(row, Mapping) else 0
