"""How much time an emergency has stands on the run's page and in its report."""

from __future__ import annotations

from datetime import timedelta

from patchwave.campaign import emergency, report
from patchwave.campaign.emergency import Clock
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Run
from tests.domain.report_builders import BEGAN, NOW
from tests.plugin.builders import a_busy_run, client, with_report
from tests.plugin.test_pages import run_path

LEFT = "CVE-2026-12345: 2 days left, until"


def an_emergency(ledger: MemoryLedger) -> Run:
    run = a_busy_run(ledger)
    clock = Clock(vulnerability="CVE-2026-12345", deadline=NOW + timedelta(days=2), findings=7, resources=6)
    ledger.put_document(run.id, emergency.DOCUMENT, emergency.to_json([clock]), at=BEGAN)
    return run


def test_the_report_says_how_long_was_left_when_it_was_made() -> None:
    """An auditor reads whether the deadline was kept."""
    ledger = MemoryLedger()
    run = an_emergency(ledger)
    with_report(ledger, run)
    made = ledger.document(run.id, "report")
    assert made["clocks"][0].startswith(LEFT)
    assert LEFT in report.to_html(made)


def test_the_page_of_a_run_shows_the_clock() -> None:
    """Of a run that has ended as it stood then, however late somebody looks."""
    ledger = MemoryLedger()
    run = an_emergency(ledger)
    assert "Deadline clock" in client(ledger).get(run_path("runs", run.dag_run_id)).text
    with_report(ledger, run)
    assert LEFT in client(ledger).get(run_path("runs", run.dag_run_id)).text


def test_a_run_without_named_cves_shows_none() -> None:
    """Nor does one of before there were clocks."""
    ledger = MemoryLedger()
    run = a_busy_run(ledger)
    with_report(ledger, run)
    assert "Deadline clock" not in client(ledger).get(run_path("runs", run.dag_run_id)).text
    assert "Deadline clock" not in report.to_html(ledger.document(run.id, "report"))
