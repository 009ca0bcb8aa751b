"""Laws of why: every finding that the plan is about is counted under one row, and each deadline says to which row it is owed."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import plan as plans
from patchwave.campaign import reasons
from patchwave.campaign.findings import Severity, VulnerablePackage
from patchwave.campaign.severity import Triage
from tests.domain.builders import NOW, a_host, a_plan, host_id
from tests.domain.test_plan import a_finding, a_triage

FOUND = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(Severity), st.sampled_from(["OS", "PIP"])), unique=True, max_size=25
)


def of_numbers(triage: Triage, *numbers: int) -> reasons.Reasons:
    return reasons.of([host_id(number) for number in numbers], triage.assessments)


@given(FOUND)
def test_every_finding_of_the_hosts_that_a_patch_mends_is_counted_once(found: list[tuple[int, Severity, str]]) -> None:
    """Neither a host that is not in the plan nor what no patch mends is a reason to patch; the most urgent row comes first."""
    triage = a_triage(*(a_finding(number, level, manager=manager) for number, level, manager in found))
    why = of_numbers(triage, 1, 2, 3)
    chosen = [one for one in triage.assessments if one.wanted and one.host in {host_id(n) for n in (1, 2, 3)}]
    assert sum(row.findings for row in why.rows) == len(chosen)
    assert why.deciding.keys() == {one.host for one in chosen}
    moments = [row.soonest for row in why.rows if row.soonest is not None]
    assert moments == sorted(moments)


@given(FOUND)
def test_a_deadline_in_the_plan_names_the_row_it_is_owed_to(found: list[tuple[int, Severity, str]]) -> None:
    """The row beside a host's deadline has that deadline's sentence, not that of another of its findings."""
    triage = a_triage(*(a_finding(number, level, manager=manager) for number, level, manager in found))
    plan = a_plan([a_host(number) for number in (1, 2, 3)], triage)
    why = of_numbers(triage, 1, 2, 3)
    for host in plan.hosts:
        if host.deadline is not None:
            row = why.rows[why.deciding[host.id] - 1]
            its = {one.deadline_because for one in triage.by_host()[host.id] if one.patchable and one.deadline == host.deadline}
            assert row.deadline in its
            assert row.soonest is not None
            assert row.soonest <= host.deadline


def test_the_plan_shows_row_findings_hosts_and_soonest_deadline() -> None:
    """Who is asked reads by which rows of matrix and table it is urgent, and at each host which of them it was."""
    triage = a_triage(a_finding(1, Severity.CRITICAL), a_finding(2, Severity.CRITICAL), a_finding(2, Severity.LOW))
    text = plans.markdown(a_plan([a_host(1), a_host(2), a_host(3)], triage), why=of_numbers(triage, 1, 2, 3))
    table = [line for line in text.splitlines() if re.match(r"\| [0-9]+ \| [0-9]+ \| [0-9]+ \|", line)]
    soonest = NOW - timedelta(days=1) + timedelta(days=15)
    assert len(table) == 2
    assert table[0].startswith(f"| 1 | 2 | 2 | {soonest:%Y-%m-%d} | critical: row 3 of policy standard: ")
    assert table[0].endswith("| days by severity: critical, 15 days |")
    assert text.count(f"| {soonest:%Y-%m-%d} (row 1) |") == 2
    assert "(row 2)" not in text


def test_a_deadline_that_has_passed_is_said_to() -> None:
    """A board must see at once what is late already."""
    late = replace(a_finding(1), first_seen=NOW - timedelta(days=400))
    assert "(overdue)" in plans.markdown(a_plan([a_host(1)]), why=of_numbers(a_triage(late), 1))


def test_what_stays_open_of_a_single_finding_makes_no_row_of_its_own() -> None:
    """The rest that a patch leaves differs with each finding; the row of the policy does not."""
    whole = a_finding(1)
    rest = VulnerablePackage(name="left-pad", version="1", manager="NPM", fixed_in="2")
    partly = replace(a_finding(2), packages=(*whole.packages, rest))
    (row,) = of_numbers(a_triage(whole, partly), 1, 2).rows
    assert (row.findings, row.hosts) == (2, 2)


def test_the_table_is_cut_where_it_would_hide_the_plan() -> None:
    """CISA lists many: the most urgent rows stay, the others are counted, and no host points to a row that is not shown."""
    triage = a_triage(*(a_finding(number) for number in range(1, 61)))
    told = tuple(
        replace(one, deadline_because=f"entry {number:02}") for number, one in enumerate(triage.assessments, 1)
    )  # one row each, as with entries of a catalogue
    triage = replace(triage, assessments=told)
    numbers = range(1, 61)
    text = plans.markdown(a_plan([a_host(number) for number in numbers], triage), why=of_numbers(triage, *numbers))
    assert f"| {reasons.MOST} | 1 | 1 |" in text
    assert "entry 51" not in text
    assert "And 10 rows more, less urgent, of 10 findings: the report has each of them." in text
    assert text.count("(row ") == reasons.MOST


def test_a_plan_without_findings_says_why_its_hosts_are_patched_all_the_same() -> None:
    """An empty table would look like a mistake."""
    text = plans.markdown(a_plan([a_host(1)]), why=reasons.Reasons())
    assert "No host of the plan has a finding that an OS patch mends" in text
