"""Two plans side by side: nothing that differs is left unsaid, and nothing is said that does not differ."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.campaign import difference, snapshots
from patchwave.campaign import plan as plans
from patchwave.campaign.difference import IDENTITY, Change, Kind, Turn
from patchwave.campaign.fleet import Host
from patchwave.campaign.managed_services import ManagedPlan
from patchwave.campaign.plan import Plan
from patchwave.campaign.rollout import StepKind
from patchwave.campaign.values import Cell, RunId, StageName
from patchwave.campaign.windows import Window
from tests.domain.builders import CAMPAIGN, NOW, a_campaign, a_host, a_plan, host_id
from tests.domain.test_plan import a_finding, a_triage, fleets, mixed_plan

LATER = RunId("weekly-linux/manual__2026-03-10")


def next_week(*hosts: Host, **facts: object) -> Plan:
    """The plan of a later run."""
    return a_plan(hosts, **{"run": LATER, "now": NOW + timedelta(days=7), "requested_by": "ana"} | facts)


def said(before: Plan, after: Plan) -> str:
    return difference.text(difference.between(before, after))


def changed(plan: Plan, **facts: object) -> Plan:
    """The plan with another prod."""
    return replace(plan, stages=(*plan.stages[:-1], replace(plan.stages[-1], **facts)))


# --- laws ---------------------------------------------------------------------------------------------------------------
@given(fleets())
def test_the_same_hosts_under_the_same_rules_make_no_difference(hosts: list[Host]) -> None:
    """Another run, another day and another person asking are no difference in what is done."""
    assert not difference.between(a_plan(hosts), next_week(*hosts))


@given(fleets(), fleets())
@settings(deadline=None)
def test_every_host_that_is_treated_otherwise_is_named_once(before: list[Host], after: list[Host]) -> None:
    """And no host that is not."""
    one, other = a_plan(before), next_week(*after)
    found = difference.between(one, other)
    places = [
        {**{host.id: (stage.name, "") for stage in plan.stages for host in stage.hosts},
         **{out.host: ("", out.reason) for out in plan.exclusions}}
        for plan in (one, other)
    ]  # fmt: skip
    moved = {host for host in places[0].keys() | places[1].keys() if places[0].get(host) != places[1].get(host)}
    named = [str(host.host) for host in found.hosts] + [out.what.split(" ")[0] for out in found.exclusions]
    assert len(named) == len(set(named))
    assert moved <= set(named)


@given(fleets(), fleets())
@settings(deadline=None)
def test_looked_at_from_the_other_side_added_is_removed(before: list[Host], after: list[Host]) -> None:
    """Whoever swaps the runs reads the same story backwards."""
    one, other = a_plan(before), next_week(*after)
    there, back = difference.between(one, other), difference.between(other, one)
    assert there.count(Turn.ADDED) == back.count(Turn.REMOVED)
    assert there.count(Turn.MOVED) == back.count(Turn.MOVED)
    assert there.count(Turn.REORDERED) == back.count(Turn.REORDERED)
    assert len(there.exclusions) == len(back.exclusions)


@given(st.permutations(range(1, 9)))
def test_the_fewest_hosts_are_said_to_have_overtaken(order: list[int]) -> None:
    """One host that is put first is one difference, not eight."""
    plan = a_plan([a_host(number) for number in range(1, 9)])
    hosts = plan.stage("prod").hosts
    turned = changed(plan, hosts=tuple(hosts[number - 1] for number in order))
    found = difference.between(plan, turned)
    moved = {one.host for one in found.hosts if one.turn is Turn.REORDERED}
    stay = [host.id for host in turned.stage("prod").hosts if host.id not in moved]
    assert stay == [host.id for host in hosts if host.id not in moved]
    longest = max(sum(1 for bit in range(8) if mask >> bit & 1) for mask in range(256) if _rising(order, mask))
    assert len(moved) == 8 - longest


def _rising(order: list[int], mask: int) -> bool:
    chosen = [number for bit, number in enumerate(order) if mask >> bit & 1]
    return chosen == sorted(chosen)


OTHER = {
    "campaign": "monthly", "definition": "d" * 64, "policy": "strict", "dry_run": True,
    "restriction": plans.Restriction(severities=("high",)), "stages": (), "left_out": ("canary",), "exclusions": (),
    "severities": {"high": 99}, "tracks": {"kernel": 99}, "not_patchable": {"no fix": 99}, "unscanned": {}, "reboot": False,
    "cells": (Cell(account="999999999999", region="eu-west-1"),),
    "expected": {"Amazon Linux 2023": {StepKind.SCAN: timedelta(hours=9)}},
}  # fmt: skip
OTHER_STAGE = {
    "name": StageName("production"), "hosts": (), "concurrency": "99 %", "places": {"stage:prod": 99}, "stage_places": 99,
    "error_budget": 99, "soak": timedelta(days=9), "approval_required": False, "approvers": ("eve",),
    "approval_timeout": timedelta(days=9), "health_checks": ("ec2",), "health_timeout": timedelta(days=9), "waves": (),
    "forecast": timedelta(days=9), "remarks": ("said otherwise",), "tolerance": 2,
    "ways_back": snapshots.ways([host_id(1)], {}, snapshots.Snapshots(before=snapshots.Before.IN_PLACE)),
    "managed": ManagedPlan(services=()),
    "window": Window(cron="0 1 * * *", duration=timedelta(hours=9), timezone="UTC"),
}  # fmt: skip


@pytest.mark.parametrize("field", [one.name for one in dataclasses.fields(Plan) if one.name not in IDENTITY])
def test_no_field_of_a_plan_changes_unseen(field: str) -> None:
    """Whoever adds a field to the plan adds another value here, or to what names a plan and does nothing."""
    plan = mixed_plan()
    assert difference.between(plan, replace(plan, **{field: _other(OTHER, plan, field)}))


@pytest.mark.parametrize("field", [one.name for one in dataclasses.fields(plans.StagePlan)])
def test_no_field_of_a_stage_changes_unseen(field: str) -> None:
    """The same for the rules of a stage."""
    plan = mixed_plan()
    assert difference.between(plan, changed(plan, **{field: _other(OTHER_STAGE, plan.stages[-1], field)}))


def _other(others: dict[str, object], holder: object, field: str) -> object:
    if field in others:
        return others[field]
    value = getattr(holder, field)
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return f"{value} otherwise"
        case tuple():
            return (*value, "another")
        case dict():
            return {**value, "another": 1}
    raise AssertionError(f"{field}: say here which other value it can have")


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "renamed"), ("platform", "Ubuntu 24.04"), ("zone", "eu-central-1c"), ("domains", ("stage:prod", "asg:x")),
     ("note", "its agent is silent"), ("findings", {"high": 99}), ("deadline", NOW), ("covered", False)],
)  # fmt: skip
def test_no_fact_of_a_host_changes_unseen(field: str, value: object) -> None:
    """A host that keeps its place may still be another thing to approve."""
    plan = a_plan([a_host(1), a_host(2)], a_triage(scanned=(1, 2)))
    hosts = plan.stage("prod").hosts
    found = difference.between(plan, changed(plan, hosts=(replace(hosts[0], **{field: value}), hosts[1])))
    assert [(one.host, one.turn, one.facts[0].kind) for one in found.hosts] == [(hosts[0].id, Turn.CHANGED, Kind.CHANGED)]


# --- what is said -------------------------------------------------------------------------------------------------------
def test_a_host_that_appeared_and_one_that_left_are_told_with_their_reasons() -> None:
    """Why a host is gone is what a change board asks first."""
    before = a_plan([a_host(1), a_host(2), a_host(3)])
    after = next_week(a_host(1), a_host(3, group_tag=None), a_host(4))
    told = said(before, after)
    assert f"+ {host_id(4)} (prod-4): wave 2 (was not in the scope)" in told
    assert f"- {host_id(2)} (prod-2): was wave 2; no longer in the scope" in told
    assert f"- {host_id(3)} (prod-3): was wave 3; excluded: no stage of the campaign selects it (it has no patch group)" in told
    assert told.splitlines()[-1].startswith("Hosts: 1 added, 2 removed, 0 in another stage, 0 in another order, 0 changed;")


def test_a_host_that_changed_its_stage_is_one_line_under_the_new_one() -> None:
    """Not one that left and one that came."""
    found = difference.between(a_plan([a_host(1, group_tag="linux-dev")]), next_week(a_host(1)))
    assert [(one.turn, one.stage, one.before, one.after) for one in found.hosts] == [
        (Turn.MOVED, "prod", "stage dev, wave 1", "stage prod, wave 1")
    ]


def test_rules_of_a_stage_are_told_with_both_values() -> None:
    """Concurrency, budget, soak, approvers: what somebody edited in the campaign file."""
    text = CAMPAIGN.replace("concurrency: 10%", "concurrency: 20%").replace("approvers: [olga]}", "approvers: [olga, ana]}")
    hosts = [a_host(number) for number in range(1, 21)]
    told = said(a_plan(hosts), next_week(*hosts, campaign=a_campaign(text.replace("error_budget: 0", "error_budget: 3"))))
    for line in ("~ concurrency: 10 % -> 20 %", "~ hosts at once: 2 -> 4", "~ error budget: 0 -> 3",
                 "~ approvers: olga -> olga, ana", "~ waves: 10 -> 5"):  # fmt: skip
        assert line in told


def test_a_window_is_told() -> None:
    """When hosts may be away is part of what was approved."""
    plan = a_plan([a_host()])
    told = said(plan, changed(plan, window=Window(cron="0 22 * * 2", duration=timedelta(hours=4), timezone="Europe/Vienna")))
    assert "~ window: none -> 0 22 * * 2 Europe/Vienna, open for 4:00:00" in told


def test_another_policy_under_the_same_name_is_told() -> None:
    """A plan knows the policy's name only; who knows the digests says them."""
    plan = a_plan([a_host()])
    assert not difference.between(plan, plan, policies=("a" * 64, "a" * 64))
    found = difference.between(plan, plan, policies=("a" * 64, "b" * 64))
    assert found.settings == (Change(kind=Kind.CHANGED, what="policy (digest)", before="a" * 12, after="b" * 12),)


def test_hosts_with_other_findings_only_are_counted_not_listed() -> None:
    """Most hosts have other findings a week later."""
    hosts = [a_host(number) for number in range(1, 6)]
    after = next_week(*hosts, triage=a_triage(*(a_finding(number) for number in range(1, 6)), scanned=(1, 2, 3, 4, 5)))
    before = a_plan(hosts, a_triage(scanned=(1, 2, 3, 4, 5)))
    told = said(before, after)
    assert "~ 5 more hosts: 5 with other findings, 5 with another deadline" in told
    assert str(host_id(3)) not in told
    assert "+ findings high: 5" in told


def test_no_difference_is_said_in_a_sentence() -> None:
    """Nobody has to wonder whether the comparison was made."""
    plan = a_plan([a_host()])
    assert said(plan, plan).splitlines()[-1] == "No difference: both plans do the same to the same hosts, in the same order."


def test_a_gate_shows_no_more_lines_than_people_read_and_says_how_many_there_are() -> None:
    """The counts stay those of everything."""
    found = difference.between(a_plan([]), next_week(*(a_host(number) for number in range(1, 81))))
    told = difference.markdown(found, title="Difference from the plan approved before", most=50)
    assert told.count("\n+ i-") == 50
    assert "  ... and 30 more" in told
    assert "**Hosts: 80 added," in told


def test_names_from_outside_neither_end_a_line_nor_close_the_block() -> None:
    """A host's name is typed by whoever launches it."""
    evil = "```\n+ all is well\x1b[2J\u202e"
    told = difference.markdown(difference.between(a_plan([]), next_week(a_host(1, name=evil))), title="Difference")
    assert told.count("```") == 2
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert not any(line.startswith("+ all") for line in told.splitlines())
