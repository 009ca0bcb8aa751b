"""A gate of several questions: different people, the difference shown, void and asked again, nothing asked twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput, TaskDeferred

from patchwave.campaign import lockfile as lockfiles
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.definition import Campaign
from patchwave.campaign.lockfile import HostPatches, Lockfile, Origin, PatchRow
from patchwave.campaign.values import RunId
from patchwave.ledger.store import StageState
from patchwave.operators.approval import ROUNDS, ApproveStageOperator, questions
from patchwave.operators.base import Work
from tests.domain.builders import a_plan, host_id
from tests.ledger.builders import a_run
from tests.operators.gate import LOCKED, ONE, STAGING, TEN, TOLERANT, TWO, Gate, a_strict_campaign, fleet, later, people, staging
from tests.operators.work import HOSTS, RUN, Desk


# --- quorum -------------------------------------------------------------------------------------------------------------
def test_one_yes_of_two_opens_nothing(desk: Desk, asked: list[Any]) -> None:
    """The decision is made by the second."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    assert gate.answer(1, "olga")["verdict"] == "undecided"
    assert (gate.verdicts, gate.opened) == ([], False)
    gate.ask(2)
    assert gate.answer(2, "ana")["verdict"] == "approved"
    assert (gate.verdicts, gate.opened) == ([("approved", "ana")], True)


def test_the_second_is_shown_who_has_said_yes_and_why(desk: Desk, asked: list[Any]) -> None:
    """In a request of its own, since Airflow never changes the text of one."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    gate.answer(1, "olga", reason="tested *on* dev")
    request = gate.ask(2)
    assert "1 of 2 have said yes" in request["subject"]
    assert "olga has said yes at" in request["body"]
    assert "tested \\*on\\* dev" in request["body"]


def test_only_those_whose_answer_counts_are_asked(desk: Desk, asked: list[Any]) -> None:
    """Airflow refuses the others by itself: who asked for the run (uma), and who has answered."""
    gate = Gate(desk, asked, TWO)
    assert people(gate.ask(1)) == ["olga", "ana"]
    gate.answer(1, "ana")
    assert people(gate.ask(2)) == ["olga"]


@pytest.mark.parametrize(
    ("who", "why"),
    [("olga", "has answered already"), ("uma", "uma, who asked for the run, does not count"), ("eve", "eve may not answer")],
)
def test_an_answer_that_does_not_count_does_not_burn_the_question(desk: Desk, asked: list[Any], who: str, why: str) -> None:
    """It is put again, and the ledger says why."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    gate.answer(1, "olga")
    gate.ask(2)
    with pytest.raises(TaskAwaitingInput):
        gate.answer(2, who)
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    assert why in wait.reason
    assert gate.verdicts == []
    gate.answer(2, "ana")
    assert gate.opened


@pytest.mark.parametrize(
    ("chosen", "inputs"),
    [("Approve", {"without": "no-such-host"}), ("Approve", {"without": {"a": 1}}), ("Perhaps", {}), ("Defer", {})],
)
def test_an_answer_that_says_nothing_clear_does_not_burn_the_question(
    desk: Desk, asked: list[Any], chosen: str, inputs: dict[str, Any]
) -> None:
    """Airflow's API checks none of it, and a task that failed on it could not be answered again."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    with pytest.raises(TaskAwaitingInput):
        gate.answer(1, "olga", chosen, **inputs)
    gate.answer(1, "olga")
    gate.ask(2)
    gate.answer(2, "ana")
    assert gate.opened


def test_one_no_shuts_the_gate_with_its_reason(desk: Desk, asked: list[Any]) -> None:
    """Nobody else is asked, and the stage is skipped."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    gate.answer(1, "olga", "Reject", reason="quarter end")
    (decision,) = desk.ledger.decisions(RUN)
    assert (decision.verdict, decision.author, decision.comment) == (Verdict.REJECTED, "olga", "quarter end")
    assert desk.ledger.stage(RUN, STAGING).state is StageState.SKIPPED
    assert gate.run(2)["verdict"] == "rejected"


def test_silence_on_the_second_question_means_no(desk: Desk, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have said yes; not before the time is over, however often the gate is woken up."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    gate.answer(1, "olga")
    gate.ask(2)
    assert isinstance(gate.wake(2), TaskAwaitingInput)
    later(monkeypatch, 23.9)
    assert isinstance(gate.wake(2), TaskAwaitingInput)
    assert gate.verdicts == []
    later(monkeypatch, 24)
    assert gate.wake(2) == {"stage": "staging", "verdict": "expired"}
    assert gate.verdicts == [("expired", "-")]
    assert desk.ledger.stage(RUN, STAGING).state is StageState.SKIPPED


def test_the_default_of_a_request_of_an_earlier_version_is_no_answer(desk: Desk, asked: list[Any]) -> None:
    """Airflow takes it when the gate is woken up: it is wiped, and the person is still asked."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    with pytest.raises(TaskAwaitingInput):
        gate.answer(1, None, "Reject")
    assert len(asked) == 2
    assert gate.verdicts == []


def test_the_second_question_has_what_is_left_of_the_time(desk: Desk, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate as a whole has the campaign's timeout, not each of its questions."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    assert gate.tasks[0].response_timeout == timedelta(hours=24)
    gate.answer(1, "olga")
    later(monkeypatch, 20)
    gate.ask(2)
    assert timedelta(hours=3, minutes=59) < gate.tasks[1].response_timeout <= timedelta(hours=4)


def test_nobody_is_asked_twice_whatever_is_cleared(desk: Desk, asked: list[Any]) -> None:
    """A retry of the first question finds its answer in the ledger."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    gate.answer(1, "olga")
    assert gate.run(1)["verdict"] == "undecided"
    gate.ask(2)
    gate.answer(2, "ana")
    assert [gate.run(number)["verdict"] for number in (1, 2)] == ["approved", "approved"]
    assert len(asked) == 2


def test_an_answer_survives_a_death_before_the_decision(desk: Desk, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next try decides from what the ledger has."""
    gate = Gate(desk, asked, "approvers: [olga, ana]")
    gate.ask(1)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(desk.ledger, "record_decision", die)
        with pytest.raises(KeyboardInterrupt):
            gate.answer(1, "olga")
    assert gate.run(1)["verdict"] == "approved"
    assert len(asked) == 1


def test_who_has_answered_for_another_stage_answers_for_this_one(desk: Desk, asked: list[Any]) -> None:
    """Both are of one plan, and each is a question of its own."""
    gate = Gate(desk, asked, "approvers: [olga, ana]")
    gate.ask(1)
    gate.answer(1, "olga")
    desk.set_stage("staging", StageState.PATCHED)
    for task in gate.tasks:
        task.stage = "prod"
    gate.ask(1)
    assert gate.answer(1, "olga")["verdict"] == "approved"
    assert [(one.stage, one.author) for one in desk.ledger.decisions(RUN)] == [("staging", "olga"), ("prod", "olga")]


def test_a_quorum_that_cannot_come_about_is_said_at_once(desk: Desk, asked: list[Any]) -> None:
    """Two of olga and uma, and uma asked for the run."""
    gate = Gate(desk, asked, "approvers: [olga, uma], quorum: 2")
    with pytest.raises(AirflowFailException, match="uma asked for the run and does not count"):
        gate.run(1)
    assert asked == []


def test_a_question_that_was_marked_as_done_by_hand_is_missed_at_the_end(desk: Desk, asked: list[Any]) -> None:
    """The chain ends without its quorum: nothing opens."""
    gate = Gate(desk, asked, TWO)
    gate.ask(2)
    with pytest.raises(AirflowFailException, match="needs 1 more to say yes, and this gate has no question left"):
        gate.answer(2, "ana")
    assert not gate.opened


# --- fewer hosts --------------------------------------------------------------------------------------------------------
def test_a_yes_to_fewer_hosts_is_a_yes_to_another_plan(desk: Desk, asked: list[Any]) -> None:
    """Those left out are excluded with who left them out; the plan that was shown stays in the ledger and opens nothing."""
    gate = Gate(desk, asked, TWO, [*HOSTS, staging(5), staging(6)])
    shown = gate.plan
    gate.ask(1)
    gate.answer(1, "olga", without="stg-5")
    gate.ask(2)
    gate.answer(2, "ana", without=str(host_id(6)))
    assert [host.id for host in gate.plan.stage("staging").hosts] == [host_id(3)]
    assert {one.host: one.reason for one in gate.plan.exclusions}[host_id(5)] == "left out at the gate by olga, ana"
    assert gate.opened
    assert plans.from_json(desk.ledger.document(RUN, "plan")) == shown
    assert [one.plan for one in desk.ledger.decisions(RUN)] == [plans.digest(gate.plan)] != [plans.digest(shown)]


def test_fewer_hosts_in_one_stage_leave_what_was_approved_for_another(desk: Desk, asked: list[Any]) -> None:
    """A stage before it keeps the plan that it was patched under."""
    gate = Gate(desk, asked, "approvers: [olga]", [*HOSTS, staging(5)])
    first = plans.digest(gate.plan)
    gate.ask(1)
    gate.answer(1, "olga", without="stg-5")
    task = ApproveStageOperator(task_id="dev", stage="dev", approvers=(), timeout=timedelta(hours=1), campaign_json="{}")
    assert plans.digest(Work(desk.context(task=task), aws_conn_id="a", ledger_conn_id="l").plan) == first
    assert plans.digest(Work(desk.context(), aws_conn_id="a", ledger_conn_id="l").plan) == plans.digest(gate.plan)


def test_the_page_of_a_changed_plan_says_when_each_stage_begins(desk: Desk, asked: list[Any]) -> None:
    """As that of the first plan does."""
    gate = Gate(desk, asked, "approvers: [olga]", [*HOSTS, staging(5)])
    gate.ask(1)
    gate.answer(1, "olga", without="stg-5")
    text = desk.ledger.document(RUN, "plan.md")
    assert plans.digest(gate.plan) in text
    assert "## When, as far as is known now" in text
    assert "## Why, by the rows of the policy" in text


# --- void ---------------------------------------------------------------------------------------------------------------
def test_a_gate_that_may_be_void_has_questions_for_asking_again() -> None:
    """Each with its own text."""
    assert questions(a_strict_campaign(TWO).stage("staging")) == 2
    assert questions(a_strict_campaign(TWO).stage("staging"), later=True) == 4
    assert questions(a_strict_campaign(f"{TWO}, tolerance: 10%").stage("staging")) == 2 * ROUNDS
    assert questions(a_strict_campaign(f"{TWO}}}\n    window: {NIGHTLY}").stage("staging")) == 2 * ROUNDS


def test_what_is_within_the_tolerance_stays_approved(desk: Desk, asked: list[Any]) -> None:
    """One host came; the plan says that such are patched too."""
    gate = Gate(desk, asked, TOLERANT)
    gate.ask(1)
    fleet(desk, *HOSTS, staging(5))
    gate.answer(1, "olga")
    assert gate.opened
    assert "approval.void" not in desk.journal


def test_beyond_it_the_approval_is_void_and_asked_again_with_the_difference(desk: Desk, asked: list[Any]) -> None:
    """The yes was to other hosts; the next one is to those that are there."""
    gate = Gate(desk, asked, TOLERANT)
    gate.ask(1)
    fleet(desk, *HOSTS, staging(5), staging(6))
    assert gate.answer(1, "olga")["verdict"] == "undecided"
    assert (gate.verdicts, gate.opened) == ([], False)
    (void,) = [one.data for one in desk.ledger.journal(RUN) if one.kind == "approval.void"]
    assert void["added"] == [host_id(5), host_id(6)]
    assert void["reason"] == "the approval is void: since the plan was made 2 hosts came and 0 went; 1 may differ"
    request = gate.ask(2)
    assert "Asked again: the approval is void: since the plan was made 2 hosts came" in request["body"]
    assert "olga had said yes to the plan before." in request["body"]
    assert "## Changed since this run's plan was shown or made" in request["body"]
    assert f"+ {host_id(5)} (stg-5): wave" in request["body"]
    assert people(request) == ["olga", "ana"]
    gate.answer(2, "olga")
    assert gate.opened
    assert {host.id for host in gate.plan.stage("staging").hosts} == {host_id(3), host_id(5), host_id(6)}
    assert gate.run(3)["verdict"] == "approved"


def test_hosts_that_went_void_it_too(desk: Desk, asked: list[Any]) -> None:
    """Ten hosts were approved, of which eight are gone: the two that are left are another question."""
    gate = Gate(desk, asked, TOLERANT, [*HOSTS, staging(5), staging(6)])
    fleet(desk, *HOSTS, staging(5), staging(6))
    gate.ask(1)
    fleet(desk, *HOSTS)
    gate.answer(1, "ana")
    assert not gate.opened
    assert f"- {host_id(5)} (stg-5)" in gate.ask(2)["body"]


def test_nobody_is_asked_about_hosts_that_are_gone_already(desk: Desk, asked: list[Any]) -> None:
    """Days may lie between the plan and the gate of the last stage: the question is about the hosts of now."""
    gate = Gate(desk, asked, TOLERANT)
    fleet(desk, *HOSTS, staging(5), staging(6))
    request = gate.ask(1)
    assert "3 hosts" in request["subject"]
    assert f"+ {host_id(5)}" in request["body"]
    assert "The stage's hosts have changed since the plan was made" in request["body"]
    gate.answer(1, "olga")
    assert gate.opened


def test_a_stage_that_never_holds_still_is_not_patched(desk: Desk, asked: list[Any]) -> None:
    """After the last question there is none; nothing opens."""
    gate = Gate(desk, asked, TOLERANT)
    hosts = [*HOSTS]
    fleet(desk, *hosts)
    for number in range(1, ROUNDS + 1):
        gate.ask(number)
        hosts += [staging(10 * number), staging(10 * number + 1)]
        fleet(desk, *hosts)
        if number < ROUNDS:
            gate.answer(number, "olga")
        else:
            with pytest.raises(AirflowFailException, match="no question left; nothing is patched"):
                gate.answer(number, "olga")
    assert not gate.opened


def test_without_a_tolerance_aws_is_not_asked(desk: Desk, asked: list[Any]) -> None:
    """As before there was a choice."""
    gate = Gate(desk, asked, TWO)
    gate.ask(1)
    gate.answer(1, "olga")
    desk.gateway.fleet.assert_not_called()


# --- deferred -----------------------------------------------------------------------------------------------------------
NIGHTLY = "{cron: '0 22 * * *', duration: 4h, timezone: UTC"
WINDOWED = f"approvers: [olga, ana]}}\n    window: {NIGHTLY}"
def test_without_a_window_there_is_nothing_to_defer_to(desk: Desk, asked: list[Any]) -> None:
    """The button is not there."""
    assert Gate(desk, asked, TOLERANT).ask(1)["options"] == ["Approve", "Reject"]


def test_a_deferral_lets_the_opening_pass_and_asks_again(desk: Desk, asked: list[Any], now: list[datetime]) -> None:
    """Neither a yes nor a no: the next task waits without a worker, then puts the question once more, with the reason."""
    gate = Gate(desk, asked, WINDOWED)
    request = gate.ask(1)
    assert request["options"] == ["Approve", "Reject", "Defer"]
    assert "## When, as far as is known now" in request["body"]
    assert gate.answer(1, "olga", "Defer", reason="quarter end")["verdict"] == "deferred"
    assert gate.verdicts == []
    with pytest.raises(TaskDeferred) as waits:
        gate.run(2)
    closes = TEN.replace(hour=2, minute=0) + timedelta(days=1)
    assert waits.value.trigger.serialize()[1] == {"until": closes.isoformat()}
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    assert (wait.reason, wait.until) == ("olga deferred stage staging to the next window: quarter end", closes)
    now.append(closes)
    task = gate.tasks[1]
    with pytest.raises(TaskAwaitingInput):
        task.ask_again(desk.context(task=task), {"because": "moment"})
    assert people(asked[-1]) == ["olga", "ana"]
    assert "quarter end" in asked[-1]["body"]
    gate.answer(2, "olga")
    assert gate.opened


def test_before_an_opening_the_next_one_is_let_pass(desk: Desk, asked: list[Any], now: list[datetime]) -> None:
    """That is the one which the approval would have been for."""
    now.append(TEN.replace(hour=12))
    gate = Gate(desk, asked, WINDOWED)
    gate.ask(1)
    gate.answer(1, "olga", "Defer")
    with pytest.raises(TaskDeferred) as waits:
        gate.run(2)
    assert waits.value.trigger.serialize()[1] == {"until": "2026-03-11T02:00:00+00:00"}


def test_a_yes_before_a_deferral_is_asked_for_again(desk: Desk, asked: list[Any], now: list[datetime]) -> None:
    """A night later it is another question, and all of the quorum are asked."""
    gate = Gate(desk, asked, f"{TWO}}}\n    window: {NIGHTLY}")
    gate.ask(1)
    gate.answer(1, "olga")
    gate.ask(2)
    gate.answer(2, "ana", "Defer")
    assert gate.run(1)["verdict"] == "undecided"
    now.append(TEN + timedelta(days=1))
    assert people(gate.ask(3)) == ["olga", "ana"]
    gate.answer(3, "ana")
    assert not gate.opened
    gate.ask(4)
    gate.answer(4, "olga")
    assert gate.opened


def test_nobody_can_defer_what_could_not_be_asked_again(desk: Desk, asked: list[Any], now: list[datetime]) -> None:
    """The last question has no such button, and its word is not understood."""
    gate = Gate(desk, asked, WINDOWED)
    for number in range(1, ROUNDS):
        gate.ask(number)
        gate.answer(number, "olga", "Defer")
        now.append(now[-1] + timedelta(days=1))
    assert gate.ask(ROUNDS)["options"] == ["Approve", "Reject"]
    with pytest.raises(TaskAwaitingInput):
        gate.answer(ROUNDS, "olga", "Defer")
    gate.answer(ROUNDS, "olga")
    assert gate.opened


# --- the plan approved before -------------------------------------------------------------------------------------------
def approved_last_week(desk: Desk, campaign: Campaign) -> RunId:
    """ana has said yes to staging in the run before."""
    before = RunId("weekly-linux/last-week")
    at = datetime.now(UTC) - timedelta(days=7)
    plan = a_plan(HOSTS, run=before, now=at, campaign=campaign)
    desk.ledger.open_run(a_run(before, began_at=at), [STAGING])
    desk.ledger.put_document(before, "plan", plans.to_json(plan), at=at)
    desk.ledger.record_decision(
        Decision(run=before, stage=STAGING, plan=plans.digest(plan), verdict=Verdict.APPROVED, author="ana", at=at)
    )
    return before


def test_the_gate_says_what_is_new_since_the_plan_approved_before(desk: Desk, asked: list[Any]) -> None:
    """An approver of the tenth weekly plan reads that first."""
    gate = Gate(desk, asked, ONE, [*HOSTS, staging(5)])
    approved_last_week(desk, gate.campaign)
    body = gate.ask(1)["body"]
    assert "## Difference from the plan approved before, by ana" in body
    assert f"+ {host_id(5)} (stg-5): wave" in body
    assert body.index("## Difference from") < body.index("## Stages, in this order")


# --- what is installed --------------------------------------------------------------------------------------------------
def a_lockfile(*titles: str) -> Lockfile:
    """What a host of dev received."""
    rows = tuple(PatchRow(id=one.partition(":")[0], title=one, state="installed", installed_at=TEN) for one in titles)
    host = HostPatches(host=host_id(1), name="dev-1", platform="Amazon Linux 2023", rows=rows)
    return lockfiles.build([host], since=TEN)


def store(desk: Desk, run: RunId, made: Lockfile, *, at: datetime) -> None:
    origin = Origin(run=run, stage="dev", at=at)
    desk.ledger.put_document(run, lockfiles.DOCUMENT, lockfiles.envelope(made, origin), at=at)


def test_the_gate_of_a_later_stage_shows_the_lockfile_by_which_it_is_patched(desk: Desk, asked: list[Any]) -> None:
    """Each package with its version: that is what somebody agrees to."""
    gate = Gate(desk, asked, ONE, also=LOCKED)
    made = a_lockfile("expat.x86_64:0:2.6.3-1")
    store(desk, RUN, made, at=TEN)
    body = gate.ask(1)["body"]
    assert "## What is installed in stage staging" in body
    assert f"What stage dev received in `{RUN}`, and nothing else." in body
    assert made.digest in body
    assert "| expat.x86\\_64 | 0:2.6.3-1 |" in body


def test_the_gate_says_which_packages_are_new_since_the_lockfile_approved_before(desk: Desk, asked: list[Any]) -> None:
    """So that nobody has to compare two lists by eye."""
    gate = Gate(desk, asked, ONE, also=LOCKED)
    before = approved_last_week(desk, gate.campaign)
    store(desk, before, a_lockfile("expat.x86_64:0:2.6.2-1"), at=TEN)
    store(desk, RUN, a_lockfile("expat.x86_64:0:2.6.3-1"), at=TEN)
    body = gate.ask(1)["body"]
    assert f"Compared with the lockfile of `{before}`, approved before:" in body
    assert "- Amazon Linux 2023: expat.x86\\_64 is 0:2.6.3-1 instead of 0:2.6.2-1" in body


def test_the_gate_says_that_a_stage_without_its_lockfile_is_not_begun(desk: Desk, asked: list[Any]) -> None:
    """A yes would not help."""
    assert "without one this stage is not begun" in Gate(desk, asked, ONE, also=LOCKED).ask(1)["body"]


def test_the_gate_says_that_nobody_has_fixed_the_packages_where_the_baseline_decides(desk: Desk, asked: list[Any]) -> None:
    """What is approved then is no list of packages, and does not look like one."""
    assert "Which packages that is nobody has fixed" in Gate(desk, asked, ONE).ask(1)["body"]


def test_the_gate_says_that_no_plan_was_approved_before(desk: Desk, asked: list[Any]) -> None:
    """Nothing to compare with is said, too."""
    assert "No plan of this campaign was approved for this stage before." in Gate(desk, asked, ONE).ask(1)["body"]
