"""What a gate does while it waits: it looks at who was patched before, reads CISA's catalogue, and loses no answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import TaskAwaitingInput

from patchwave.campaign import plan as plans
from patchwave.campaign.errors import AwsUnavailable
from patchwave.campaign.fleet import Health
from patchwave.campaign.rollout import HostState
from patchwave.campaign.values import StageName
from tests.domain.builders import a_plan, host_id
from tests.operators.gate import ONE, TEN, Gate, later, people
from tests.operators.work import HOSTS, RUN, Desk

STOPPED = (("ec2", "stopped"),)


def patched_dev(desk: Desk, *hosts: int) -> None:
    """These hosts of dev were patched in this run."""
    at = datetime.now(UTC)
    lease = desk.ledger.acquire(RUN, StageName("dev"), "dev", at=at)
    plan = a_plan(HOSTS, run=RUN)
    wanted = {host_id(number) for number in hosts}
    rows = [row for row in plans.rows(plan, plan.stage("dev"), now=at) if row.host in wanted]
    desk.ledger.add_hosts(lease, [replace(row, state=HostState.PATCHED) for row in rows])


def ill(desk: Desk, *hosts: int, said: tuple[tuple[str, str], ...] = STOPPED) -> None:
    """These are not healthy from now on, and all others are."""
    sick = {host_id(number) for number in hosts}
    desk.gateway.health.side_effect = lambda cell, ids, checks: tuple(
        Health(host=host, healthy=host not in sick, checks=said if host in sick else (("ec2", "ok"),)) for host in ids
    )


@pytest.fixture
def gate(desk: Desk, asked: list[Any]) -> Gate:
    """Of staging, after both hosts of dev were patched."""
    gate = Gate(desk, asked, ONE, later=True)
    patched_dev(desk, 1, 2)
    ill(desk)
    return gate


def the_wait(desk: Desk) -> str:
    (wait,) = desk.ledger.waits(RUN, open_only=True)
    return wait.reason


def begin(gate: Gate) -> TaskAwaitingInput:
    """The first question is put, or waited for; how it waits."""
    task = gate.tasks[0]
    with pytest.raises(TaskAwaitingInput) as waits:
        task.execute(gate.desk.context(task=task))
    return waits.value


# --- looks --------------------------------------------------------------------------------------------------------------
def test_a_gate_is_woken_up_to_look_around_and_waits_on_for_the_same_request(gate: Gate, desk: Desk, asked: list[Any]) -> None:
    """Writing the request anew would wipe an answer that somebody gave meanwhile."""
    first = begin(gate)
    assert first.timeout == timedelta(minutes=10)
    ill(desk, 2)
    again = gate.wake(**first.kwargs)
    assert (again.method_name, again.timeout) == ("execute_complete", timedelta(minutes=10))
    assert len(asked) == 1
    assert the_wait(desk) == (
        f"stage staging waits for olga or ana to say yes or no; 1 host of dev is not healthy: {host_id(2)}: ec2 stopped"
    )
    ill(desk)
    gate.wake()
    assert the_wait(desk) == "stage staging waits for olga or ana to say yes or no"


def test_a_look_is_never_later_than_the_end_of_the_gate(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one decides that nobody has answered."""
    gate.ask(1)
    later(monkeypatch, 23.95)
    assert timedelta(minutes=2) < gate.wake().timeout < timedelta(minutes=4)


def test_a_rehearsal_looks_every_minute_at_most(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ten minutes pass in two seconds; whoever answers in the browser shall have time for it."""
    monkeypatch.setattr("patchwave.operators.approval.clock.speed", lambda: 300.0)
    gate.ask(1)
    assert gate.wake().timeout == timedelta(minutes=1)


def test_a_gate_that_has_nothing_to_look_at_waits_for_its_whole_time(desk: Desk, asked: list[Any]) -> None:
    """Nothing was patched before it in this run, and the policy goes by no catalogue."""
    gate = Gate(desk, asked, ONE)
    alone = replace(gate.plan, stages=gate.plan.stages[1:])
    desk.ledger.put_document(RUN, "plan.2.staging", plans.to_json(alone), at=datetime.now(UTC))
    gate.ask(1)
    assert gate.wake().timeout > timedelta(hours=23, minutes=59)
    desk.gateway.health.assert_not_called()


def test_only_what_gets_worse_is_told_and_each_change_is_kept(gate: Gate, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each host, not every ten minutes."""
    told: list[str] = []
    monkeypatch.setattr("patchwave.operators.approval.tell", lambda campaign, event, text, *, to: told.append(text))
    gate.ask(1)
    for sick in ((), (1,), (1,), (1, 2), (2,), ()):
        ill(desk, *sick)
        gate.wake()
    assert ["not healthy" in text for text in told] == [False, True, True]
    kept = [one.data["unhealthy"] for one in desk.ledger.journal(RUN) if one.kind == "approval.watched"]
    assert kept == [[host_id(1)], [host_id(1), host_id(2)], [host_id(2)], []]


def test_a_host_that_is_gone_is_not_ill(gate: Gate, desk: Desk) -> None:
    """Capacity comes and goes in the days that a gate may wait."""
    ill(desk, 1, said=(("ec2", "gone"),))
    gate.ask(1)
    assert "not healthy" not in the_wait(desk)
    gate.answer(1, "olga")
    assert gate.opened


def test_aws_that_does_not_answer_ends_no_gate(gate: Gate, desk: Desk) -> None:
    """It waits on, and says that it does not know."""
    gate.ask(1)
    desk.gateway.health.side_effect = AwsUnavailable("503")
    assert isinstance(gate.wake(), TaskAwaitingInput)
    assert "is not known, AWS does not say" in the_wait(desk)


def test_cisas_catalogue_is_read_every_hour(
    gate: Gate, desk: Desk, now: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it has said stays in the reason in between."""
    reads: list[bool] = []

    def news(work: Any, log: Any, *, read: bool) -> str:
        reads.append(read)
        return "more urgent since the run began: CVE-1"

    monkeypatch.setattr("patchwave.operators.approval.findings.news", news)
    first = begin(gate)
    now.append(TEN + timedelta(minutes=50))
    second = gate.wake(**first.kwargs)
    now.append(TEN + timedelta(minutes=61))
    third = gate.wake(**second.kwargs)
    assert reads == [True, False, True]
    assert [waits.kwargs["read_at"] for waits in (second, third)] == [TEN.isoformat(), now[-1].isoformat()]
    assert the_wait(desk).endswith("; more urgent since the run began: CVE-1")


# --- ill hosts and answers ----------------------------------------------------------------------------------------------
def test_a_yes_is_void_while_a_host_that_was_patched_before_is_ill(gate: Gate, desk: Desk) -> None:
    """It is asked again with the reason, and the same people may answer."""
    gate.ask(1)
    ill(desk, 2)
    assert gate.answer(1, "olga", reason="fine by me")["verdict"] == "undecided"
    assert (gate.verdicts, gate.opened) == ([], False)
    (record,) = [one.data for one in desk.ledger.journal(RUN) if one.kind == "approval.void"]
    assert record["reason"] == f"the approval is void: 1 host of dev is not healthy: {host_id(2)}: ec2 stopped"
    assert record["yes"] == ["olga"]
    request = gate.ask(2)
    assert f"Asked again: the approval is void: 1 host of dev is not healthy: {host_id(2)}" in request["body"]
    assert "olga had said yes." in request["body"]
    assert people(request) == ["olga", "ana"]
    ill(desk)
    gate.answer(2, "olga")
    assert gate.opened


def test_a_yes_to_the_last_question_while_a_host_is_ill_keeps_it_open(gate: Gate, desk: Desk) -> None:
    """There is no further one that could be asked: it is not burnt, and the wait says why."""
    ill(desk, 2)
    gate.ask(1)
    gate.answer(1, "olga")
    gate.ask(2)
    with pytest.raises(TaskAwaitingInput) as waits:
        gate.answer(2, "olga")
    assert "the answer of olga decided nothing: 1 host of dev is not healthy" in the_wait(desk)
    gate.wake(2, **waits.value.kwargs)
    assert "the answer of olga decided nothing" in the_wait(desk)
    ill(desk)
    gate.answer(2, "olga")
    assert gate.opened


def test_a_no_needs_nobody_healthy(gate: Gate, desk: Desk) -> None:
    """It is carried out as ever."""
    gate.ask(1)
    ill(desk, 1)
    gate.answer(1, "olga", "Reject")
    assert gate.verdicts == [("rejected", "olga")]


def test_silence_after_a_void_yes_means_no_at_the_original_time(gate: Gate, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A void yes buys nobody time: it is about the same plan."""
    gate.ask(1)
    ill(desk, 2)
    gate.answer(1, "olga")
    later(monkeypatch, 20)
    gate.ask(2)
    later(monkeypatch, 24.1)
    assert gate.wake(2)["verdict"] == "expired"


# --- tries --------------------------------------------------------------------------------------------------------------
def test_the_next_try_waits_for_the_answer_to_the_request_that_is_put_already(gate: Gate, desk: Desk, asked: list[Any]) -> None:
    """Airflow keeps an answer that its worker never heard of; writing the request anew would wipe it."""
    begin(gate)
    begin(gate)
    assert len(asked) == 1
    assert desk.journal.count("approval.asked") == 1


def test_a_try_that_died_before_its_request_was_written_puts_it(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would ever see what is waited for."""

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hitl, "upsert_hitl_detail", die)
        with pytest.raises(KeyboardInterrupt):
            gate.run(1)
    gate.ask(1)


def test_a_request_about_another_plan_is_not_waited_for(gate: Gate, desk: Desk) -> None:
    """Airflow would go on showing its text: the next task asks about the plan that holds."""
    gate.ask(1)
    other = replace(gate.plan, created=datetime.now(UTC))
    desk.ledger.put_document(RUN, "plan.2.staging", plans.to_json(other), at=datetime.now(UTC))
    assert gate.run(1)["verdict"] == "undecided"
    assert plans.digest(other) in gate.ask(2)["body"]
