"""The plan approved before: the newest one with a yes, never the run's own, never one that nobody agreed to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.plan import Plan
from patchwave.campaign.values import RunId, StageName
from patchwave.execution import stopping
from patchwave.ledger import approved
from patchwave.ledger.memory import MemoryLedger
from tests.domain.builders import NOW, a_host, a_plan
from tests.ledger.builders import a_run

PROD, STAGING = StageName("prod"), StageName("staging")


def week(ledger: MemoryLedger, number: int, verdict: Verdict | None = Verdict.APPROVED, *, stage: StageName = PROD) -> Plan:
    """A run of that week, with an answer at a gate."""
    run, at = RunId(f"weekly-linux/week-{number}"), NOW + timedelta(days=7 * number)
    plan = a_plan([a_host(one) for one in range(1, number + 2)], run=run, now=at)
    ledger.open_run(a_run(run, began_at=at), [STAGING, PROD])
    ledger.put_document(run, "plan", plans.to_json(plan), at=at)
    if verdict is not None:
        ledger.record_decision(
            Decision(run=run, stage=stage, plan=plans.digest(plan), verdict=verdict, author="olga", at=at + timedelta(hours=1))
        )
    return plan


def before(ledger: MemoryLedger, number: int, stage: StageName | None = None) -> Plan | None:
    found = approved.newest(ledger, "weekly-linux", before=RunId(f"weekly-linux/week-{number}"), stage=stage)
    return found.plan if found else None


def test_it_is_the_newest_with_a_yes() -> None:
    """Rejected and unanswered weeks lie between."""
    ledger = MemoryLedger()
    week(ledger, 1)
    second = week(ledger, 2)
    week(ledger, 3, Verdict.REJECTED)
    week(ledger, 4, Verdict.EXPIRED)
    week(ledger, 5, None)
    week(ledger, 6)
    assert before(ledger, 6) == second


def test_runs_that_began_later_do_not_count() -> None:
    """Whoever looks back from an old run sees what was known then."""
    ledger = MemoryLedger()
    first = week(ledger, 1)
    week(ledger, 2)
    week(ledger, 3)
    assert before(ledger, 2) == first


def test_without_any_there_is_none() -> None:
    """The first run of a campaign; other campaigns do not count."""
    ledger = MemoryLedger()
    week(ledger, 1)
    assert before(ledger, 1) is None
    assert approved.newest(ledger, "another") is None


def test_a_yes_to_another_stage_is_none_to_this_one() -> None:
    """Where a stage is named."""
    ledger = MemoryLedger()
    first = week(ledger, 1)
    second = week(ledger, 2, stage=STAGING)
    week(ledger, 3, None)
    assert before(ledger, 3) == second
    assert before(ledger, 3, PROD) == first


def test_a_yes_to_another_plan_than_the_one_that_is_stored_does_not_count() -> None:
    """What is shown as approved is what was approved."""
    ledger = MemoryLedger()
    run = RunId("weekly-linux/week-1")
    plan = week(ledger, 1, None)
    ledger.record_decision(
        Decision(run=run, stage=PROD, plan="f" * 64, verdict=Verdict.APPROVED, author="olga", at=NOW + timedelta(days=8))
    )
    assert plans.digest(replace(plan)) != "f" * 64
    assert approved.newest(ledger, "weekly-linux") is None


def test_a_plan_of_another_version_is_passed_over() -> None:
    """An upgrade never shuts a gate."""
    ledger = MemoryLedger()
    run = RunId("weekly-linux/old")
    ledger.open_run(a_run(run, began_at=NOW), [PROD])
    digest = ledger.put_document(run, "plan", {"from": "long ago"}, at=NOW)
    ledger.record_decision(Decision(run=run, stage=PROD, plan=digest, verdict=Verdict.APPROVED, author="olga", at=NOW))
    assert approved.newest(ledger, "weekly-linux") is None


def test_a_stage_keeps_the_plan_as_a_gate_has_changed_it_for_it() -> None:
    """Not a change for a later stage: what was agreed to for this one stays; of no stage it is the newest."""
    ledger = MemoryLedger()
    run = RunId("weekly-linux/week-3")
    made = week(ledger, 3)
    fewer = plans.without(made, "prod", [made.stage("prod").hosts[0].id], reason="x")
    ledger.put_document(run, plans.changed_name(ledger.documents(run), "prod"), plans.to_json(fewer), at=NOW)
    assert approved.in_force(ledger, run, stage="staging") == made
    assert approved.in_force(ledger, run, stage="prod") == approved.in_force(ledger, run) == fewer
    rules, campaign = stopping.rules_of(ledger, run, PROD)
    assert (rules, campaign) == (plans.rules(fewer, fewer.stage("prod")), "weekly-linux")
