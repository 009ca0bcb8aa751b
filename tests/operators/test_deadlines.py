"""What the first two tasks do with what deadlines are decided by, and what becomes of a run where it cannot be read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from patchwave.campaign import plan as plans
from patchwave.campaign import policy, report
from patchwave.campaign.catalogues import Catalogue
from patchwave.campaign.findings import Finding
from patchwave.campaign.policy import Track
from patchwave.campaign.reachability import Reach
from patchwave.campaign.values import RunId
from patchwave.hooks.catalogues import CatalogueUnavailable
from patchwave.ledger.store import Run, StageState
from patchwave.operators import findings
from patchwave.operators.base import Work
from patchwave.operators.findings import ClassifyOperator, ScanFindingsOperator
from patchwave.operators.health import SoakOperator
from tests.domain.builders import a_plan, host_id
from tests.domain.test_catalogues import EPSS, a_file, a_record, an_entry
from tests.domain.test_severity import finding
from tests.operators.work import CAMPAIGN_JSON, HOSTS, RUN, Desk

POLICIES = Path(__file__).parents[2] / "include" / "policies"
BOD = (POLICIES / "bod-26-04.yaml").read_text(encoding="utf-8")
ADDRESS = "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json"
HOST = host_id(1)
LONG_AGO = RunId("other/manual__1")


def a_policy_json(text: str) -> str:
    return policy.parse(text, file="bod-26-04.yaml").model_dump_json(by_alias=True)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    """Two findings on one host, and a folder of policies."""
    monkeypatch.setenv("PATCHWAVE_POLICIES", str(tmp_path))
    made = Desk(monkeypatch)
    made.gateway.findings.side_effect = lambda cell: [a_finding(1), a_finding(2)] if cell.region == "eu-central-1" else []
    made.gateway.reach.return_value = {HOST: Reach()}
    return made


def a_finding(number: int) -> Finding:
    return finding(number=number, resource=HOST, first_seen=datetime.now(UTC) - timedelta(days=2))


def scan(desk: Desk, text: str) -> Any:
    context = desk.context(params={"dry_run": False})
    ScanFindingsOperator(
        task_id="scan_findings", campaign_json=CAMPAIGN_JSON, policy_json=a_policy_json(text)
    ).execute(context)  # fmt: skip
    return context


def classified(desk: Desk, text: str) -> Any:
    context = scan(desk, text)
    ClassifyOperator(task_id="classify").execute(context)
    return findings.read_triage(work(desk, context))


def work(desk: Desk, context: Any = None) -> Work:
    return Work(context or desk.context(), aws_conn_id="aws_default", ledger_conn_id="patchwave_ledger")


def from_files(tmp_path: Path, *listed: str, added: str = "2026-06-10") -> str:
    """The shipped policy with files in place of the address, and with all files that it could name."""
    (tmp_path / "kev.json").write_text(a_file(*(an_entry(one, dateAdded=added) for one in listed)), encoding="utf-8")
    (tmp_path / "answers.json").write_text(json.dumps([a_record("CVE-2026-0001"), a_record("CVE-2026-0002")]), encoding="utf-8")
    (tmp_path / "epss.csv").write_text(EPSS, encoding="utf-8")
    text = BOD.replace(ADDRESS, "kev.json")
    text = text.replace("    if_unknown: total", "    vulnrichment: answers.json\n    if_unknown: total")
    return text.replace(
        "  technical_impact:", "    vulnrichment: answers.json\n    epss: {file: epss.csv, at_least: 0.5}\n  technical_impact:"
    )


def test_the_triage_says_of_each_finding_which_row_it_met(desk: Desk, tmp_path: Path) -> None:
    """From files alone, through both tasks and the ledger."""
    triage = classified(desk, from_files(tmp_path, "CVE-2026-0001"))
    exploited, quiet = triage.assessments
    assert "CISA BOD 26-04, row 8 (14 days): known exploited yes" in exploited.deadline_because
    assert "CISA BOD 26-04, row 4 (fix on system upgrade: 180 days by the policy)" in quiet.deadline_because
    assert (exploited.track, quiet.track) == (Track.CRITICAL, Track.STANDARD)
    assert f"from {tmp_path}/kev.json" in triage.catalogue
    desk.gateway.reach.assert_called_once()


def test_the_report_shows_the_row_and_the_catalogue(desk: Desk, tmp_path: Path) -> None:
    """Whoever reads it months later finds the reason there."""
    triage = classified(desk, from_files(tmp_path, "CVE-2026-0001"))
    run = desk.ledger.run(RUN)
    made = report.build(run, (), (), (), (), (), {}, (), {"triage": json.loads(triage.to_json())}, now=datetime.now(UTC))
    assert [one.deadline for one in made.deadlines] == [one.deadline for one in triage.assessments]
    page = report.to_html(made)
    assert "CISA BOD 26-04, row 8 (14 days)" in page
    assert "row 3 of policy bod-26-04: what must be gone within 14 days is patched at once" in page
    assert "catalogue 2026.06.12" in page


def test_a_report_of_before_there_were_deadlines_in_it_is_still_shown(desk: Desk, tmp_path: Path) -> None:
    """It rests in the ledger as JSON and is rendered again by today's template."""
    triage = classified(desk, from_files(tmp_path, "CVE-2026-0001"))
    made = report.to_json(
        report.build(desk.ledger.run(RUN), (), (), (), (), (), {}, (), {"triage": json.loads(triage.to_json())},
                     now=datetime.now(UTC))
    )  # fmt: skip
    made["not_patchable"] = [{"vulnerability": "CVE-1", "severity": "high", "packages": [], "reason": "old", "hosts": ["i-1"]}]
    for name in ("deadlines", "deadlines_left_out", "catalogue"):
        del made[name]
    assert "old" in report.to_html(made)


def test_a_policy_by_severity_reads_nothing_else(desk: Desk) -> None:
    """No address, no load balancers, no documents."""
    triage = classified(desk, (POLICIES / "standard.yaml").read_text(encoding="utf-8"))
    assert not desk.gateway.reach.called
    assert not {findings.KNOWN, findings.CATALOGUE} & desk.ledger.documents(RUN).keys()
    assert {one.deadline_because for one in triage.assessments} == {"days by severity: high, 30 days"}


def test_a_broken_catalogue_fails_the_task_before_anything_is_judged(desk: Desk, tmp_path: Path) -> None:
    """With file, line and field; no retry helps, and no finding has a deadline that nobody can vouch for."""
    text = from_files(tmp_path, "CVE-2026-0001")
    (tmp_path / "kev.json").write_text(a_file(an_entry(dateAdded="soon")), encoding="utf-8")
    with pytest.raises(AirflowFailException, match=r"kev.json:12: vulnerabilities\[0\].dateAdded: found 'soon'; allowed is"):
        scan(desk, text)
    assert findings.FINDINGS not in desk.ledger.documents(RUN)


# --- An address that does not answer ----------------------------------------------------------------------------------------


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """CISA's site does not answer."""

    def fails(source: str, **_: Any) -> Catalogue:
        raise CatalogueUnavailable(f"{source} cannot be read: timed out")

    monkeypatch.setattr("patchwave.operators.findings.sources.exploited", fails)


def keep_a_copy(desk: Desk, age: timedelta, *, source: str = ADDRESS, run: RunId = LONG_AGO) -> None:
    """What another campaign's run has read."""
    at = datetime.now(UTC) - age
    desk.ledger.open_run(
        Run(id=run, campaign="other", dag_id="other", dag_run_id=str(run), began_at=at, definition={}, definition_digest="",
            policy={}, params={}), [],
    )  # fmt: skip
    kept = Catalogue(version="2026.06.12", released=at, source=source, read_at=at, added={"CVE-2026-0001": at.date()})
    desk.ledger.put_document(run, findings.CATALOGUE, findings._CATALOGUE.dump_python(kept, mode="json"), at=at)


@pytest.mark.usefixtures("silent")
def test_the_last_copy_in_the_ledger_stands_in_and_is_named_as_such(desk: Desk) -> None:
    """Of any campaign's run; the youngest of them; and triage and report say that it is a copy."""
    keep_a_copy(desk, timedelta(days=6), run=RunId("other/manual__0"))
    keep_a_copy(desk, timedelta(days=2))
    triage = classified(desk, BOD)
    assert "known exploited yes" in triage.assessments[0].deadline_because
    assert "cannot be read: timed out; the copy of " in triage.catalogue
    assert f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%d}" in triage.catalogue


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(("age", "source", "message"), [
    (None, "", "the ledger holds no copy of it, so no deadline can be decided"),
    (timedelta(days=1), "https://example.com/kev.json", "the ledger holds no copy of it"),
    (timedelta(days=8), ADDRESS, "older than the policy's 7d .deadlines: oldest., so no deadline can be decided"),
])  # fmt: skip
def test_without_a_young_copy_nothing_is_judged(desk: Desk, age: timedelta | None, source: str, message: str) -> None:
    """Months instead of days for what is being exploited would be the worst mistake: Airflow tries again, then a person does."""
    if age is not None:
        keep_a_copy(desk, age, source=source)
    with pytest.raises(CatalogueUnavailable, match=message):
        scan(desk, BOD)
    assert findings.FINDINGS not in desk.ledger.documents(RUN)


@pytest.mark.usefixtures("silent")
def test_a_copy_does_not_grow_younger_by_being_used(desk: Desk) -> None:
    """The run that uses it keeps it, too; its age counts from when CISA was read."""
    keep_a_copy(desk, timedelta(days=6))
    scan(desk, BOD)
    kept = findings.read_known(work(desk)).catalogue
    assert kept is not None
    assert kept.read_at < datetime.now(UTC) - timedelta(days=5)


# --- While a campaign waits -------------------------------------------------------------------------------------------------


def test_a_newer_catalogue_changes_the_triage_and_is_written_down(desk: Desk, tmp_path: Path) -> None:
    """A record of the journal for each finding that is judged otherwise; asked again, nothing is new."""
    text = from_files(tmp_path, "CVE-2026-9999")
    classified(desk, text)
    newer = a_file(*(an_entry(one) for one in ("CVE-2026-9999", "CVE-2026-0002")), catalogVersion="2026.06.13",
                   dateReleased="2026-06-13T15:00:00Z")  # fmt: skip
    (tmp_path / "kev.json").write_text(newer, encoding="utf-8")
    (change,) = findings.reprioritise(work(desk))
    assert change.sooner
    assert change.after.vulnerability == "CVE-2026-0002"
    assert "track standard becomes critical" in change.sentence
    (entry,) = [one for one in desk.ledger.journal(RUN) if one.kind == "finding.reprioritised"]
    assert entry.data["sentence"] == change.sentence
    assert findings.read_triage(work(desk)).assessments[0].vulnerability == "CVE-2026-0002"
    assert findings.reprioritise(work(desk)) == ()


def soaking(desk: Desk, text: str) -> str:
    """Why the soak of dev says that it waits, ten minutes after the stage was patched."""
    if not desk.ledger.runs():
        classified(desk, text)
        plan = a_plan(HOSTS, run=RUN)
        desk.ledger.put_document(RUN, "plan", plans.to_json(plan), at=datetime.now(UTC))
        desk.set_stage("dev", StageState.PATCHED, ago=timedelta(minutes=10))
    with pytest.raises(TaskDeferred) as deferred:
        SoakOperator(task_id="soak", stage="dev").execute(desk.context())
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    assert wait.until is not None
    looks = datetime.fromisoformat(deferred.value.trigger.until)
    assert looks < wait.until, "it looks at the catalogue before the soak is over"
    return wait.reason


def test_a_soak_reads_the_catalogue_again_and_says_what_has_become_more_urgent(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at a campaign that waits sees that it should hurry; so does every later look."""
    monkeypatch.setattr("patchwave.operators.health.READ_AGAIN", timedelta(minutes=5))
    text = from_files(tmp_path, "CVE-2026-9999")
    assert "more urgent" not in soaking(desk, text)
    newer = a_file(an_entry("CVE-2026-0002"), catalogVersion="2026.06.13", dateReleased="2026-06-13T15:00:00Z")
    (tmp_path / "kev.json").write_text(newer, encoding="utf-8")
    assert f"; more urgent since the run began: CVE-2026-0002 on {HOST}: deadline " in soaking(desk, text)
    (tmp_path / "kev.json").unlink()
    assert "; more urgent since the run began: CVE-2026-0002" in soaking(desk, text), "a catalogue that is gone ends no wait"


def test_a_policy_by_severity_has_nothing_to_reprioritise(desk: Desk) -> None:
    """No catalogue, no news."""
    classified(desk, (POLICIES / "standard.yaml").read_text(encoding="utf-8"))
    assert findings.reprioritise(work(desk)) == ()
