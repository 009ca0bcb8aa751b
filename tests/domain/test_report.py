"""Laws of the report: nobody is missing, nothing unseen is good news, and what AWS named cannot run anywhere."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import exposure, lockfile, report, stale_images
from patchwave.campaign.approval import Verdict
from patchwave.campaign.lockfile import HostPatches, PatchRow
from patchwave.campaign.report import CLASSES, COLUMNS
from patchwave.campaign.rollout import IN_FLIGHT, TERMINAL, HostState
from patchwave.ledger.store import RunOutcome, StageState
from tests.domain.report_builders import (
    BEGAN,
    NOW,
    a_decision,
    a_look,
    a_plan,
    a_report,
    a_row,
    a_run,
    a_settled,
    a_stage,
    a_wait,
    an_arn,
    an_assessment,
    host_id,
    with_managed,
)

STAGES = ("dev", "staging", "prod")


def classes_of(made: report.Report) -> dict[str, str]:
    return {line.host: line.klass for line in made.hosts}


# --- Each host in exactly one class ------------------------------------------------------------------------------------------


@given(
    planned=st.lists(st.tuples(st.sampled_from(STAGES), st.integers(0, 12)), max_size=20),
    rows=st.lists(st.tuples(st.sampled_from(STAGES), st.integers(0, 15), st.sampled_from(HostState)), max_size=30),
)
def test_the_classes_sum_to_the_hosts_of_the_plan_whatever_the_ledger_says(planned, rows):
    """Rule 2 of a rollout: no host of the plan is silently absent and none is counted twice; late joiners come on top."""
    plan = a_plan(**{stage: sorted({number for of, number in planned if of == stage}) for stage in STAGES})
    named = {host_id(number) for _, number in planned}
    made = a_report(plan=plan, hosts=[a_row(stage, number, state) for stage, number, state in rows])
    assert made.hosts_planned == len(named)
    assert made.late_joiners == len({host_id(number) for _, number, _ in rows} - named)
    assert sum(made.totals.values()) == made.hosts_planned + made.late_joiners == len(made.hosts)
    assert sum(count for of_stage in made.classes.values() for count in of_stage.values()) == len(made.hosts)
    assert set(made.totals) <= set(CLASSES)


def test_hosts_of_a_rejected_stage_are_not_started():
    """A rejection is an answer: the fifty hosts behind it are in the report, with the reason."""
    plan = a_plan(dev=[1], prod=[2, 3])
    made = a_report(
        run=a_run(outcome=RunOutcome.REJECTED), plan=plan, hosts=[a_row("dev", 1, HostState.PATCHED)],
        stages=[a_stage("dev", 0, StageState.PATCHED), a_stage("prod", 1, StageState.SKIPPED, "rejected by uma")],
        decisions=[a_decision(plan, "prod", Verdict.REJECTED)],
    )  # fmt: skip
    assert made.classes == {"dev": {"patched": 1}, "prod": {"not_started": 2}}
    assert {line.reason for line in made.hosts if line.stage == "prod"} == {"stage skipped: rejected by uma"}


@pytest.mark.parametrize("state", sorted(set(HostState) - TERMINAL - IN_FLIGHT))
def test_a_host_that_was_at_most_scanned_was_not_started(state):
    """A Scan changes nothing, so whoever reads the report need not look after such a host."""
    assert classes_of(a_report(plan=a_plan(dev=[1]), hosts=[a_row("dev", 1, state)])) == {host_id(1): "not_started"}


@pytest.mark.parametrize("state", sorted(IN_FLIGHT))
def test_a_host_in_the_middle_of_an_install_is_neither_patched_nor_untouched(state):
    """When a task dies in the middle, the report says which hosts somebody must look at."""
    made = a_report(plan=a_plan(dev=[1]), hosts=[a_row("dev", 1, state)])
    assert classes_of(made) == {host_id(1): "in_flight"}
    assert [failure.host for failure in made.failures] == [host_id(1)]


def test_a_host_that_the_ledger_has_in_another_stage_than_the_plan_is_there_once():
    """The plan says where a host belongs; it never appears in two stages."""
    made = a_report(plan=a_plan(dev=[1]), hosts=[a_row("prod", 1, HostState.PATCHED)])
    assert made.classes == {"dev": {"patched": 1}}


def test_a_run_without_a_plan_has_a_report_all_the_same():
    """A scan that failed ends in evidence too, not in a second failure."""
    made = a_report(run=a_run(outcome=RunOutcome.FAILED))
    assert made.hosts == ()
    assert made.plan_digest == ""
    assert "no plan was made" in report.to_html(made)


# --- Nothing unseen is good news ---------------------------------------------------------------------------------------------


@given(seen=st.sets(st.integers(1, 8)), verdict=st.text(max_size=12).filter(lambda word: word != "compliant"))
def test_what_was_not_seen_is_never_counted_as_compliant(seen, verdict):
    """Hosts without a verdict, and verdicts nobody knows, are unknown."""
    look = a_look(compliant=seen)
    look["hosts"].append({"host": host_id(9), "verdict": verdict})
    made = a_report(plan=a_plan(dev=range(1, 10)), compliance_before=look)
    assert made.compliance["before"]["compliant"] == len(seen)
    assert sum(made.compliance["before"].values()) == 9


def test_the_report_says_what_its_classes_mean():
    """Of those that occur, a sentence each, with what to do next where that is not nothing."""
    html = report.to_html(a_report(plan=a_plan(dev=[1])))
    assert report.MEANINGS["not_started"] in html
    assert report.MEANINGS["failed"] not in html
    assert set(report.MEANINGS) == set(report.CLASSES)


def test_a_look_that_was_not_taken_is_none_and_not_zero():
    """Zero hosts not compliant after a look is good; without a look it is nothing."""
    made = a_report(plan=a_plan(dev=[1]), compliance_before=a_look(compliant=[1]))
    assert made.compliance == {"before": {"compliant": 1, "not_compliant": 0, "unknown": 0}, "after": None, "final": None}
    assert "this look was not taken" in report.to_html(made)


@given(
    open_=st.sets(st.integers(1, 6)), closed=st.sets(st.integers(1, 6)), unknown=st.sets(st.integers(1, 6)),
)  # fmt: skip
def test_a_finding_is_closed_only_where_inspector_says_nothing_else(open_, closed, unknown):
    """Overlapping answers of moving pages are resolved against us, and the three fates sum to what there was."""
    assessments = [an_assessment(number, 1) for number in range(1, 7)]
    arns = {number: one["finding"] for number, one in enumerate(assessments, start=1)}
    after = {"at": NOW.isoformat(), "open": [arns[n] for n in open_], "closed": [arns[n] for n in closed],
             "unknown": [arns[n] for n in unknown]}  # fmt: skip
    made = a_report(plan=a_plan(dev=[1]), triage={"assessments": assessments}, findings_after=after)
    rows = [{"finding": arn, "fate": fate} for fate in ("closed", "open", "unknown") for arn in after[fate]]
    by_rows = {"at": after["at"], "findings": rows}  # as the ledger has it now
    assert made == a_report(plan=a_plan(dev=[1]), triage={"assessments": iter(assessments)}, findings_after=by_rows)
    assert made.findings["closed"] == len(closed - open_ - unknown)
    assert made.findings["closed"] + made.findings["open"] + made.findings["unknown"] == made.findings["before"] == 6
    for tallies in (made.findings_by_severity, made.findings_by_track):
        assert sum(one.before for one in tallies) == 6
        assert all(one.closed + one.open + one.unknown == one.before for one in tallies)


def test_without_a_second_look_no_finding_is_closed():
    """A dry run looks once; its report must not read as if anything had been mended."""
    made = a_report(plan=a_plan(dev=[1]), triage={"assessments": [an_assessment(1, 1)]})
    assert made.findings == {"before": 1, "closed": 0, "open": 0, "unknown": 1}


def test_a_host_that_inspector_does_not_scan_has_unknown_findings():
    """No finding on a host that nobody looks at is no clean host."""
    plan = a_plan(dev=[1])
    plan["stages"][0]["hosts"][0]["covered"] = False
    made = a_report(plan=plan)
    assert made.hosts[0].inspected is False
    assert "does not scan 1 of these hosts" in report.to_html(made)


# --- Exposure ----------------------------------------------------------------------------------------------------------------


def test_exposure_ends_when_a_finding_is_seen_closed_and_runs_on_otherwise():
    """From Inspector's first sight to the look that found it gone; an open one is exposed until now."""
    seen = BEGAN - timedelta(days=10)
    closed, still = an_assessment(1, 1, first_seen=seen.isoformat()), an_assessment(2, 1, first_seen=seen.isoformat())
    at = BEGAN + timedelta(hours=2)
    made = a_report(
        plan=a_plan(dev=[1]), triage={"assessments": [closed, still]},
        findings_after={"at": at.isoformat(), "closed": [closed["finding"]], "open": [still["finding"]], "unknown": []},
    )  # fmt: skip
    (high,) = made.exposure
    assert high.longest == NOW - seen
    assert high.median == ((NOW - seen) + (at - seen)) / 2
    assert (high.findings, high.open) == (2, 1)


def test_overdue_means_past_the_deadline_and_not_proven_closed():
    """A finding closed after its deadline is late, not overdue; one without a deadline is neither."""
    past = (BEGAN - timedelta(days=1)).isoformat()
    late, overdue = an_assessment(1, 1, deadline=past), an_assessment(2, 1, deadline=past)
    free = an_assessment(3, 1, deadline=None)
    made = a_report(
        plan=a_plan(dev=[1]), triage={"assessments": [late, overdue, free]},
        findings_after={"at": NOW.isoformat(), "closed": [late["finding"]], "open": [], "unknown": []},
    )  # fmt: skip
    (high,) = made.exposure
    assert (high.overdue, high.closed_late, high.open) == (1, 1, 2)


def test_severities_stand_in_their_order():
    """Most urgent first, everywhere."""
    found = [an_assessment(n, 1, severity=word) for n, word in enumerate(("low", "critical", "untriaged", "high"))]
    made = a_report(plan=a_plan(dev=[1]), triage={"assessments": found})
    assert [one.severity for one in made.exposure] == ["critical", "high", "low", "untriaged"]
    assert made.hosts[0].worst_severity == "critical"


# --- The headline ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", list(RunOutcome))
def test_a_rehearsal_says_so_whatever_its_outcome(outcome):
    """A report of a run at 600 times real time must not pass for a real one."""
    plan = a_plan(dev=[1])
    assert "600 times as fast as real time" in a_report(run=a_run(outcome=outcome, speed=600.0), plan=plan).headline
    assert "real time" not in a_report(run=a_run(outcome=outcome), plan=plan).headline


def test_a_dry_run_says_that_nothing_was_changed():
    """Also one that failed on the way to its plan."""
    plan = a_plan(dev=[1])
    for outcome in (RunOutcome.DRY_RUN, RunOutcome.FAILED):
        made = a_report(run=a_run(outcome=outcome, params={"dry_run": True}), plan=plan)
        assert "nothing was changed" in made.headline
        assert made.hosts[0].reason == "a dry run changes nothing"


def test_the_headline_of_a_rejection_names_who_said_no():
    """And where nobody answered, it blames nobody."""
    plan = a_plan(dev=[1])
    rejected = a_run(outcome=RunOutcome.REJECTED)
    made = a_report(run=rejected, plan=plan, decisions=[a_decision(plan, "prod", Verdict.REJECTED, "uma")])
    assert "rejected at stage prod by uma" in made.headline
    made = a_report(run=rejected, plan=plan, decisions=[a_decision(plan, "prod", Verdict.EXPIRED, "-")])
    assert "nobody answered in time" in made.headline


def test_the_headline_of_a_halt_names_stage_and_reason_and_every_class():
    """The one sentence that is read must not hide failed hosts behind patched ones."""
    made = a_report(
        run=a_run(outcome=RunOutcome.FAILED), plan=a_plan(dev=[1], staging=[2, 3], prod=[4]),
        hosts=[a_row("dev", 1, HostState.PATCHED), a_row("staging", 2, HostState.FAILED)],
        stages=[a_stage("dev", 0, StageState.PATCHED), a_stage("staging", 1, StageState.HALTED, "error budget spent"),
                a_stage("prod", 2, StageState.WAITING)],
    )  # fmt: skip
    assert made.headline == (
        "weekly-linux failed in stage staging (error budget spent); of 4 hosts: 1 patched, 1 failed, 2 not started."
    )


def test_a_run_that_failed_without_a_halt_says_which_task_failed():
    """A scan that was denied halts no stage; the report must not leave the reader with "failed" alone."""
    made = a_report(run=a_run(outcome=RunOutcome.FAILED), plan=a_plan(dev=[1]), why="failed: dev.health")
    assert made.headline == "weekly-linux failed (failed: dev.health); of 1 host: 1 not started."
    assert made.failures[0].reason == "failed: dev.health"
    assert not a_report(plan=a_plan(dev=[1]), why="each stage was patched").failures


def test_success_with_failed_hosts_names_them():
    """Within the error budget a run succeeds; the headline still counts who was not patched."""
    made = a_report(plan=a_plan(dev=[1, 2]), hosts=[a_row("dev", 1, HostState.PATCHED), a_row("dev", 2, HostState.UNREACHABLE)])
    assert made.headline == (
        "weekly-linux succeeded: every stage kept its error budget; of 2 hosts: 1 patched, 1 unreachable; "
        "1 host still needs somebody."
    )


# --- Who, why, and what to do ------------------------------------------------------------------------------------------------


def test_a_decision_on_another_plan_is_shown_as_opening_nothing():
    """An approval never covers something that changed afterwards, and the report says so."""
    old, plan = a_plan(prod=[9]), a_plan(prod=[1])
    made = a_report(plan=plan, decisions=[a_decision(old, "prod"), a_decision(plan, "prod", author="vera")])
    assert [(one.author, one.fits) for one in made.decisions] == [("uma", False), ("vera", True)]
    assert made.hosts[0].decision_author == "vera"
    assert "it opened nothing" in report.to_html(made)


def test_every_failure_comes_with_a_reason_and_with_what_to_do():
    """A red line that leaves a person alone at 3 a.m. is half a report."""
    bad = [HostState.FAILED, HostState.UNREACHABLE, HostState.STOPPED, HostState.PENDING_REBOOT, HostState.INSTALLING]
    made = a_report(
        plan=a_plan(dev=range(6)), stages=[a_stage("dev", 0, StageState.HALTED)],
        hosts=[a_row("dev", number, state, reason="") for number, state in enumerate([*bad, HostState.PATCHED])],
    )  # fmt: skip
    assert {one.klass for one in made.failures} == {"halted", "failed", "unreachable", "stopped", "pending_reboot", "in_flight"}
    assert all(one.reason and one.advice for one in made.failures)


def test_an_open_wait_lasts_until_now():
    """So that a report made in the middle shows how long somebody has been waiting."""
    made = a_report(plan=a_plan(dev=[1]), waits=[a_wait(since=NOW - timedelta(hours=3)), a_wait(
        "verify", since=BEGAN, ended_at=BEGAN + timedelta(minutes=4))])  # fmt: skip
    assert [one.lasted for one in made.waits] == [timedelta(hours=3), timedelta(minutes=4)]


def test_what_no_patch_mends_is_listed_once_with_its_reason_and_hosts():
    """Ten hosts with the same Go binary are one line, not ten."""
    found = [an_assessment(1, host, vulnerability="CVE-2026-1", track="not_patchable", reason="a Go binary",
                           finding=f"arn:{host}") for host in (1, 2)]  # fmt: skip
    (one,) = a_report(plan=a_plan(dev=[1, 2]), triage={"assessments": found}).not_patchable
    assert (one.vulnerability, one.reason, one.hosts) == ("CVE-2026-1", "a Go binary", (host_id(1), host_id(2)))


def test_a_journal_that_does_not_verify_is_said_in_plain_words():
    """Broken evidence must not look like evidence."""
    html = report.to_html(a_report(plan=a_plan(dev=[1]), problems=["record 7 (host.moved) was changed"]))
    assert "does not verify" in html
    assert "record 7 (host.moved) was changed" in html
    assert "was verified" not in html


# --- Writing -----------------------------------------------------------------------------------------------------------------

HOSTILE = '<script>alert("1")</script>\'"&'


# --- what was promoted ---


def a_lockfile() -> dict[str, Any]:
    """As the ledger has it: of three packages one came in this run, and one had two versions."""
    old, new = BEGAN - timedelta(days=40), BEGAN + timedelta(hours=1)
    rows = {
        "dev-1": [("kernel.x86_64:0:6.1.115-126", new), ("expat.x86_64:0:2.6.3-1", old), ("<b>.x86_64:0:1-1", old)],
        "dev-2": [("kernel.x86_64:0:6.1.115-126", new), ("expat.x86_64:0:2.6.4-1", old)],
    }
    hosts = [
        HostPatches(
            host=host_id(number),
            name=name,
            platform="Amazon Linux 2023",
            rows=tuple(
                PatchRow(id=title.partition(":")[0], title=title, state="installed", installed_at=at) for title, at in some
            ),
        )
        for number, (name, some) in enumerate(rows.items())
    ]
    made = lockfile.build(hosts, since=BEGAN)
    return lockfile.envelope(made, lockfile.Origin(run=a_run().id, stage="dev", at=NOW))


def test_stages_are_compared_in_the_order_in_which_they_were_patched():
    """Not in that of the alphabet."""
    compared = {f"compared:{stage}": {"lockfile": "f" * 64, "hosts": {}} for stage in ("prod", "staging")}
    made = a_report(plan=a_plan(dev=[1], staging=[2], prod=[3]), **compared)
    assert made.promoted is not None
    assert [one.stage for one in made.promoted.compared] == ["staging", "prod"]


def test_what_was_promoted_is_told_by_platform_with_its_digest():
    """And of each later stage how many hosts had something else."""
    stored = a_lockfile()
    after = {"lockfile": stored["digest"], "hosts": {host_id(3): [], host_id(4): ["kernel is newer"]}}
    made = a_report(plan=a_plan(dev=[1]), lockfile=stored, **{"compared:prod": after})
    assert made.promoted is not None
    (platform,) = made.promoted.platforms
    assert (made.promoted.digest, made.promoted.stage) == (stored["digest"], "dev")
    assert (platform.patches, platform.received, platform.differs) == (3, 1, 1)
    assert [(one.stage, one.hosts, one.drifted) for one in made.promoted.compared] == [("prod", 2, 1)]
    page = report.to_html(made)
    assert stored["digest"] in page
    assert "1 had something else" in page


def test_a_run_that_promotes_nothing_has_no_section_for_it():
    """Nor has a report that was stored before there was one."""
    stored = report.to_json(a_report(plan=a_plan(dev=[1])))
    assert stored.pop("promoted") is None
    assert "<h2>Promoted</h2>" not in report.to_html(stored)


def test_a_run_that_was_patched_by_an_earlier_lockfile_says_so():
    """It began behind the first stage."""
    made = a_report(plan=a_plan(prod=[1]), **{"compared:prod": {"lockfile": "f" * 64, "hosts": {host_id(1): []}}})
    page = report.to_html(made)
    assert "patched by that of an earlier run" in page
    assert "1 host compared with <code>ffffffffffffffff</code>, each had what is locked" in page


def test_a_lockfile_that_was_changed_is_a_sentence_of_the_report_and_not_its_end():
    """Whoever changed it did not do so unnoticed."""
    stored = a_lockfile()
    stored["lockfile"]["platforms"][0]["patches"][0]["version"] = "0:6.6.6-1"
    made = a_report(plan=a_plan(dev=[1]), lockfile=stored)
    assert made.promoted is not None
    assert "changed after it was written" in made.promoted.problem
    assert made.promoted.problem in html.unescape(report.to_html(made))


def test_a_group_that_would_bring_an_unpatched_host_back_is_in_the_report() -> None:
    """With what is to be seen in the console, whether it is handled; and that nobody could ask is not the same as none."""
    back = stale_images.StaleImage(
        cell="111111111111/eu-central-1", group="web<b>", source="launch template web, version 3", image="ami-1", made_at=NOW,
        hosts=4, patched_at=NOW, why="launch template web, version 3 names image ami-1", handled="", overdue=False,
    )  # fmt: skip

    def html_of(groups: list[stale_images.StaleImage], problem: str = "") -> str:
        return report.to_html(a_report(images_stale=stale_images.to_json(groups, problem=problem)))

    assert "What would bring an unpatched host back" not in html_of([])
    text = html_of([back])
    assert "names image ami-1" in text
    assert ">open</span>" in text
    assert "web&lt;b&gt;" in text
    assert "CHG-1" in html_of([replace(back, handled="accepted until 2026-12-31: CHG-1")])
    assert "Not known, for AWS could not be asked: denied" in html_of([], "denied")


def a_hostile_report() -> report.Report:
    plan = a_plan(dev=[1])
    plan["stages"][0]["hosts"][0]["name"] = HOSTILE
    plan["exclusions"] = [{"host": HOSTILE, "cell": HOSTILE, "name": HOSTILE, "reason": HOSTILE}]
    return a_report(
        run=a_run(campaign=HOSTILE, requested_by=HOSTILE, outcome=RunOutcome.FAILED), plan=plan,
        stages=[a_stage("dev", 0, StageState.HALTED, HOSTILE)],
        hosts=[a_row("dev", 1, HostState.FAILED, reason=HOSTILE), a_row(HOSTILE, 2, HostState.PATCHED, name=HOSTILE)],
        decisions=[a_decision(plan, "dev", Verdict.REJECTED, HOSTILE)], waits=[a_wait(HOSTILE, reason=HOSTILE)],
        calls={HOSTILE: 1}, problems=[HOSTILE], compliance_after=a_look(**{HOSTILE: [1]}),
        remedies=[{"host": HOSTILE, "stage": HOSTILE, "action": HOSTILE, "outcome": HOSTILE, "detail": HOSTILE}],
        triage={"assessments": [an_assessment(1, 1, severity=HOSTILE, track="not_patchable", reason=HOSTILE,
                                              vulnerability=HOSTILE)]},
    )  # fmt: skip


def test_a_host_name_cannot_become_markup():
    """Names, reasons and comments come from tags and people: they are shown, never run."""
    html = report.to_html(a_hostile_report())
    assert "<script" not in html
    assert "alert(" in html
    assert not re.search(r"""="[^"]*<script""", html)


def test_the_file_loads_nothing_and_runs_nothing():
    """One can send it: it needs no network, and a mail gateway finds no script in it."""
    html = report.to_html(a_report(plan=a_plan(dev=[1])))
    assert "default-src 'none'" in html
    assert not re.search(r"(?i)<script|<link|<img|<iframe|url\(|@import|\son\w+=|https?://", html)


def test_the_json_survives_a_round_trip_and_renders_the_same_files():
    """The ledger stores the JSON; page and command line render HTML and CSV from there."""
    made = a_hostile_report()
    stored = json.loads(json.dumps(report.to_json(made)))
    assert stored == report.to_json(made)
    assert report.to_html(stored) == report.to_html(made)
    assert report.to_csv(stored) == report.to_csv(made)


def test_the_keys_that_other_code_relies_on_are_there():
    """Terminal, journeys and page read these."""
    stored = report.to_json(a_report(plan=a_plan(dev=[1]), compliance_before=a_look(compliant=[1])))
    assert stored["outcome"] == "succeeded"
    assert stored["run_folder"] == ""
    assert stored["classes"] == {"dev": {"not_started": 1}}
    assert stored["compliance"]["before"] == {"compliant": 1, "not_compliant": 0, "unknown": 0}
    assert set(stored["compliance"]) == {"before", "after", "final"}
    assert set(stored["findings"]) == {"before", "closed", "open", "unknown"}
    assert stored["hosts"][0]["class"] == "not_started"


@given(name=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), reason=st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))  # fmt: skip
def test_the_csv_parses_back_and_holds_no_formula(name, reason):
    """A row a host whatever its name is, and nothing that a spreadsheet would calculate."""
    made = a_report(plan=a_plan(dev=[1]), hosts=[
        a_row("dev", 1, HostState.FAILED, reason=reason), a_row("dev", 2, HostState.PATCHED, name=name)])  # fmt: skip
    first, second = csv.DictReader(io.StringIO(report.to_csv(made), newline=""))
    assert first["reason"].removeprefix("'") in {reason, reason.removeprefix("'")}
    assert second["name"].removeprefix("'") in {name, name.removeprefix("'")}
    for row in (first, second):
        assert set(row) == set(COLUMNS)
        assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for value in row.values())


def test_the_csv_has_no_number_where_nothing_is_known():
    """An empty cell is "not known"; zero would be a claim."""
    (row,) = csv.DictReader(io.StringIO(report.to_csv(a_report(plan=a_plan(dev=[1]))), newline=""))
    assert row["missing_before"] == row["missing_after"] == row["compliance_after"] == ""
    assert row["findings_before"] == "0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_written_in_their_two_largest_units(seconds, text):
    """As people say them."""
    assert report.duration_text(seconds) == text


# --- one vulnerability on hosts, databases and functions ---------------------------------------------------------------------

CVE = "CVE-2026-00001"


def mixed(*, services: tuple[str, ...] = ("rds", "lambda"), after: dict[str, Any] | None = None) -> report.Report:
    """One vulnerability on two hosts, a database that its new version mends, and a function whose code has it."""
    plan = with_managed(
        a_plan(dev=[1, 2]),
        databases=[{"name": "orders", "vulnerabilities": [CVE], "closes": [CVE]}],
        functions=[{"name": "checkout", "by_code": [CVE], "owner": "shop"}],
        services=services,
    )
    function = an_arn("lambda", "checkout")
    its = [an_assessment(1, 1), an_assessment(2, 2, vulnerability=CVE), an_assessment(3, 3, vulnerability=CVE)]
    its[1]["deadline"] = (BEGAN - timedelta(days=1)).isoformat()
    its[2] |= {"host": f"{function}:$LATEST", "resource": f"{function}:$LATEST"}
    rows = [a_settled("rds", "orders", "patched"), a_settled("lambda", "checkout", "patched")]
    closed = {"at": NOW.isoformat(), "findings": [
        {"finding": its[0]["finding"], "fate": "closed"}, {"finding": its[1]["finding"], "fate": "open"},
        {"finding": its[2]["finding"], "fate": "open"},
    ]}  # fmt: skip
    return a_report(
        stages=[a_stage("dev", 0, StageState.PATCHED)],
        hosts=[a_row("dev", number, HostState.PATCHED) for number in (1, 2)],
        plan=plan, triage={"assessments": its}, findings_after=after or closed, **{"managed_services:dev": rows},
    )  # fmt: skip


def test_each_vulnerability_has_one_line_and_one_deadline_for_hosts_databases_and_functions() -> None:
    """The earliest of all its findings; where it is gone and where not; who closes the rest."""
    (line,) = mixed().whereabouts
    assert (line.vulnerability, line.severity) == (CVE, "high")
    assert (line.deadline, line.overdue) == (BEGAN - timedelta(days=1), True)
    assert line.gone == {"database": ("orders",), "host": ("dev-1",)}
    assert line.left == {"function": ("checkout",), "host": ("dev-2",)}
    assert line.closes == ("checkout: its code, by shop", "hosts: a patch, in this campaign's next run")


def test_what_nobody_looked_at_again_is_not_gone() -> None:
    """Neither Inspector's findings, nor a database that no stage changes."""
    (line,) = mixed(services=("lambda",), after={"at": NOW.isoformat(), "findings": []}).whereabouts
    assert line.gone == {}
    assert line.left == {"database": ("orders",), "function": ("checkout",), "host": ("dev-1", "dev-2")}
    assert "orders: a newer engine version, which this stage does not change" in line.closes


def test_a_function_that_no_stage_names_is_on_the_line_all_the_same() -> None:
    """Or the report would call a vulnerability gone that is still there."""
    stranger = an_arn("lambda", "forgotten")
    made = mixed()
    its = [an_assessment(1, 1), an_assessment(4, 4, vulnerability=CVE) | {"host": stranger, "resource": stranger}]
    lines = report._whereabouts(exposure.triaged({"assessments": its}, None), made.managed, {}, NOW)
    assert lines[0].left["resource of no stage"] == (stranger,)


def test_a_run_of_hosts_alone_has_no_such_lines_and_a_mixed_one_shows_them() -> None:
    """The section on deadlines has the hosts' then."""
    assert a_report(plan=a_plan(dev=[1]), hosts=[a_row("dev", 1, HostState.PATCHED)]).whereabouts == ()
    html = report.to_html(mixed())
    assert "Where each vulnerability is gone, and where not" in html
    assert "checkout: its code, by shop" in html
