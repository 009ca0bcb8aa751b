"""Emergency campaigns: what their files must say, how they soak, what is refused without a canary, how long is left."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from patchwave.campaign import definition, emergency, severity
from patchwave.campaign import plan as plans
from patchwave.campaign.definition import Campaign, Start
from patchwave.campaign.emergency import Clock
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.findings import Finding, Severity
from patchwave.campaign.fleet import Host, Ping
from patchwave.campaign.plan import Plan, Restriction
from patchwave.campaign.policy import Emergency, Policy
from tests.domain.builders import NOW, a_campaign, a_host, a_plan, host_id
from tests.domain.test_severity import STANDARD, finding

CVE = "CVE-2026-12345"
EMERGENCY = """\
name: emergency
description: Urgent CVEs, canary first
owner: ops
scope:
  cells: [{account: "111111111111", regions: [eu-central-1]}]
policy: standard
emergency: {}
roles: {on-call: [olga, uma]}
stages:
  - {name: canary, select: {patch_groups: [linux-dev]}, soak: 1h}
  - name: everybody
    select: {patch_groups: [linux-prod]}
    soak: 5m
    approval: {approvers: [ana], roles: [on-call]}
"""


def an_emergency(text: str = EMERGENCY) -> Campaign:
    return a_campaign(text)


def having(*numbers: int, cve: str = CVE, first_seen: datetime = NOW, of: Severity = Severity.CRITICAL) -> list[Finding]:
    """These hosts have that CVE, and an OS patch mends it."""
    return [
        replace(
            finding(resource=host_id(number), severity=of, first_seen=first_seen), vulnerability=cve, arn=f"arn:{cve}:{number}"
        )
        for number in numbers
    ]  # fmt: skip


def the_plan(hosts: list[Host], *having_it: Finding, soak: timedelta = timedelta(minutes=15), **facts: Any) -> Plan:
    triage = severity.classify(having_it, STANDARD, now=NOW, coverage=[], vulnerabilities=[CVE])
    values = {"campaign": an_emergency(), "restriction": Restriction(vulnerabilities=(CVE,)), "emergency": Emergency(soak=soak)}
    return a_plan(hosts, triage, **values | facts)


# --- files --------------------------------------------------------------------------------------------------------------------
def test_a_watcher_asks_unless_the_file_says_otherwise() -> None:
    """Nothing is patched unasked by a default."""
    found = an_emergency().emergency
    assert found is not None
    assert found.start is Start.ASK


def test_the_first_stage_is_the_canary_and_approvers_may_start_it() -> None:
    """Whoever may say yes to a stage may say that the emergency begins."""
    campaign = an_emergency()
    assert campaign.canary == campaign.stages[0]
    assert campaign.starters == ("ana", "olga", "uma")
    assert a_campaign().canary is None


@pytest.mark.parametrize(("old", "new", "field", "said"), [
    ("emergency: {}", "emergency: {}\nschedule: {cron: '0 22 * * 2', timezone: Europe/Vienna}", "schedule", "allowed is none"),
    ("emergency: {}", "emergency: {start: later}", "emergency.start", "'ask' or 'at_once'"),
    ("{approvers: [ana], roles: [on-call]}", "{required: false}", "stages[1].approval.required", "allowed is true"),
])  # fmt: skip
def test_a_file_that_is_no_emergency_is_refused_with_field_and_what_is_allowed(
    old: str, new: str, field: str, said: str
) -> None:
    """By people or by the watcher, never by the calendar; and nobody is patched behind the canary unasked."""
    assert old in EMERGENCY
    with pytest.raises(InvalidFile) as caught:
        an_emergency(EMERGENCY.replace(old, new))
    assert f": {field}: " in str(caught.value)
    assert said in str(caught.value)


def test_an_emergency_of_one_stage_has_no_canary_and_is_refused() -> None:
    """Everybody at once is what a canary is there to prevent."""
    text = EMERGENCY[: EMERGENCY.index("  - name: everybody")]
    with pytest.raises(InvalidFile, match="at least two"):
        an_emergency(text)


def test_campaigns_and_policies_that_are_none_are_stored_as_they_always_were() -> None:
    """Gates tell by the digest whether a file has changed since the run began."""
    assert "emergency" not in a_campaign().to_json()
    assert "emergency" not in STANDARD.to_json()
    assert Campaign.from_json(an_emergency().to_json()) == an_emergency()


def test_a_policy_without_a_word_on_emergencies_has_three_days_and_a_quarter_of_an_hour() -> None:
    """A campaign may name any policy."""
    assert STANDARD.in_emergency == Emergency(due_within=timedelta(days=3), soak=timedelta(minutes=15))
    said = Policy.model_validate(STANDARD.model_dump(mode="json") | {"emergency": {"due_within": "1d", "soak": "2m"}})
    assert said.in_emergency == Emergency(due_within=timedelta(days=1), soak=timedelta(minutes=2))


# --- soak and canary ----------------------------------------------------------------------------------------------------------
def test_stages_soak_as_long_as_the_policy_says_if_that_is_shorter_and_the_plan_says_so() -> None:
    """1 h becomes 15 min; the 5 min of the other stage stay."""
    plan = the_plan([a_host(1, group_tag="linux-dev"), a_host(2)], *having(1, 2))
    canary, everybody = plan.stages
    assert (canary.soak, everybody.soak) == (timedelta(minutes=15), timedelta(minutes=5))
    assert "Soak: 15m instead of 1h, for this is an emergency (policy standard)." in canary.remarks
    assert not [remark for remark in everybody.remarks if "Soak" in remark]


def test_a_campaign_that_is_no_emergency_soaks_as_its_file_says() -> None:
    """Whatever the policy says of emergencies."""
    plan = a_plan([a_host(1, group_tag="linux-dev")], emergency=Emergency(soak=timedelta(seconds=1)))
    assert plan.stages[0].soak == timedelta(minutes=30)


def test_only_hosts_with_the_named_cves_are_planned() -> None:
    """And the others are excluded with that reason."""
    plan = the_plan([a_host(1, group_tag="linux-dev"), a_host(2), a_host(3)], *having(1, 2))
    assert {host.id for host in plan.hosts} == {host_id(1), host_id(2)}
    assert [one.host for one in plan.exclusions] == [host_id(3)]


@pytest.mark.parametrize(("hosts", "having_it", "said"), [
    ([a_host(1, group_tag="linux-dev"), a_host(2)], (2,), "none of its hosts has one of these CVE ids"),
    ([a_host(1, group_tag="linux-dev", ping=Ping.CONNECTION_LOST), a_host(2)], (1, 2), "none of its hosts can be reached"),
])  # fmt: skip
def test_a_plan_in_which_nobody_is_the_canary_says_why_it_is_refused(
    hosts: list[Host], having_it: tuple[int, ...], said: str
) -> None:
    """An empty canary is a canary that was left out."""
    refused = plans.without_canary(an_emergency(), the_plan(hosts, *having(*having_it)))
    assert said in refused
    assert "stage canary" in refused


def test_a_plan_with_a_canary_is_not_refused_nor_one_without_any_host() -> None:
    """With nobody to patch there is nothing to try; and other campaigns have no canary."""
    assert plans.without_canary(an_emergency(), the_plan([a_host(1, group_tag="linux-dev"), a_host(2)], *having(1, 2))) == ""
    assert plans.without_canary(an_emergency(), the_plan([a_host(2)])) == ""
    assert plans.without_canary(a_campaign(), a_plan([a_host(2)])) == ""


# --- the clock ----------------------------------------------------------------------------------------------------------------
def the_clocks(*found: Finding, named: tuple[str, ...] = (CVE,)) -> tuple[Clock, ...]:
    return emergency.clocks(severity.classify(found, STANDARD, now=NOW, coverage=[], vulnerabilities=named))


def test_the_clock_shows_the_soonest_deadline_of_each_named_cve() -> None:
    """Critical findings have 15 days by the standard policy; the one that was seen first counts."""
    early = NOW - timedelta(days=3)
    found = the_clocks(*having(1, 2), *having(3, first_seen=early), *having(4, cve="CVE-2026-99999"))
    (clock,) = found
    assert clock == Clock(vulnerability=CVE, deadline=early + timedelta(days=15), findings=3, resources=3)


def test_cves_with_the_least_time_come_first() -> None:
    """And those that were found nowhere last."""
    other, nowhere = "CVE-2026-20000", "CVE-2026-30000"
    found = the_clocks(
        *having(1), *having(2, cve=other, first_seen=NOW - timedelta(days=1)), named=(nowhere, CVE, other)
    )
    assert [one.vulnerability for one in found] == [other, CVE, nowhere]


@pytest.mark.parametrize(("after", "said"), [
    (timedelta(), "15 days left, until 2026-03-18 22:00 UTC (1 finding on 1 resource)"),
    (timedelta(days=13, hours=20, minutes=58), "1 day 3 hours left"),
    (timedelta(days=15), "no time left"),
    (timedelta(days=15, hours=2), "overdue by 2 hours, since 2026-03-18 22:00 UTC"),
])  # fmt: skip
def test_the_clock_says_how_long_is_left_at_any_moment(after: timedelta, said: str) -> None:
    """It runs on while a gate waits."""
    (told,) = emergency.sentences(the_clocks(*having(1)), NOW + after)
    assert told.startswith(f"{CVE}: ")
    assert said in told


def test_the_clock_names_what_has_no_deadline_and_what_was_found_nowhere() -> None:
    """Neither looks like time that is left."""
    (none,) = emergency.sentences(the_clocks(*having(1, of=Severity.INFORMATIONAL)), NOW)
    assert "no deadline by the policy" in none
    (nowhere,) = emergency.sentences(the_clocks(), NOW)
    assert "found nowhere" in nowhere


def test_a_run_that_names_no_cve_has_no_clock() -> None:
    """The deadlines of a whole campaign stand beside its hosts."""
    assert the_clocks(*having(1), named=()) == ()


def test_many_clocks_are_counted_and_the_soonest_are_told() -> None:
    """A page has room for some."""
    many = tuple(f"CVE-2026-{10000 + number}" for number in range(14))
    told = emergency.sentences(the_clocks(named=many), NOW)
    assert len(told) == emergency.MOST_CLOCKS + 1
    assert told[-1].startswith("and 4 more")


def test_stored_clocks_are_read_back_as_they_were() -> None:
    """The ledger keeps them beside the triage."""
    found = the_clocks(*having(1), named=(CVE, "CVE-2026-30000"))
    assert emergency.from_json(emergency.to_json(found)) == found


def test_the_page_of_the_plan_begins_with_the_clock() -> None:
    """Before what for and how many."""
    plan = the_plan([a_host(1, group_tag="linux-dev")], *having(1))
    text = plans.markdown(plan, clocks=emergency.sentences(the_clocks(*having(1)), NOW))
    assert text.index("**Deadline clock:** CVE-2026-12345: 15 days left") < text.index("**What for:**")


def test_the_shipped_emergency_begins_with_a_canary_and_asks_the_people_on_call() -> None:
    """Two of them, for who started a run may not approve it."""
    from tests.domain.test_definition import CAMPAIGNS, POLICIES

    campaign = definition.read(CAMPAIGNS / "emergency.yaml", policies=POLICIES)
    assert campaign.canary is not None
    assert campaign.canary.name == "canary"
    assert campaign.roles["on-call"] == campaign.starters
    assert len(campaign.starters) >= 2
