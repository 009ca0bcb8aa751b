"""A yes covers the hosts and the lockfile that were shown: compared when it is given, and again before the first command."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from patchwave.campaign import lockfile as lockfiles
from patchwave.campaign import plan as plans
from patchwave.campaign.lockfile import LockedPatch, Lockfile, Origin, PlatformLock
from patchwave.campaign.rollout import HostState
from patchwave.ledger.store import StageState
from patchwave.operators import approval
from patchwave.operators.patch import PatchStageOperator
from tests.domain.builders import host_id
from tests.operators.gate import LOCKED, ONE, STAGING, TEN, TOLERANT, Gate, fleet, staging
from tests.operators.work import HOSTS, RUN, Desk


def a_lockfile(**versions: str) -> Lockfile:
    patches = tuple(
        LockedPatch(id=f"{name}.x86_64", version=f"0:{version}-1", title=f"{name}.x86_64:0:{version}-1", received=name != "bash")
        for name, version in sorted(versions.items())
    )
    return Lockfile(platforms=(PlatformLock(platform="Amazon Linux 2023", hosts=("dev-1",), patches=patches),))


FIRST = a_lockfile(bash="5.1", kernel="6.1.100", openssl="3.0.8")
OTHER = a_lockfile(bash="5.1", kernel="6.1.112", openssl="3.0.8")


def lock(desk: Desk, lockfile: Lockfile) -> None:
    """The lockfile that the run would use."""
    origin = Origin(run=RUN, stage="dev", at=TEN)
    desk.ledger.put_document(RUN, "lockfile", lockfiles.envelope(lockfile, origin), at=datetime.now(UTC))


def promoting(desk: Desk, asked: list[Any], rules: str = ONE) -> Gate:
    """A gate before a stage that gets what the first one received."""
    gate = Gate(desk, asked, rules, also=LOCKED, later=True)
    lock(desk, FIRST)
    return gate


def patch(desk: Desk, holder: str = "patch-1") -> Any:
    """The stage's task runs; what became of it."""
    with DAG("weekly-linux"):
        task = PatchStageOperator(task_id="patch", stage="staging")
    desk.ti.id = holder
    return task.execute(desk.context(task=task))


# --- the lockfile at the gate -------------------------------------------------------------------------------------------
def test_each_answer_is_bound_to_the_lockfile_that_was_shown(desk: Desk, asked: list[Any]) -> None:
    """As it is to the plan's digest."""
    gate = promoting(desk, asked)
    assert f"Lockfile `{FIRST.digest}`" in gate.ask(1)["body"]
    gate.answer(1, "olga")
    assert gate.opened
    bound = [one.data["lockfile"] for one in desk.ledger.journal(RUN) if one.kind in ("approval.asked", "vote.cast")]
    assert bound == [FIRST.digest, FIRST.digest]
    assert [one.lockfile for one in desk.ledger.decisions(RUN)] == [FIRST.digest]


def test_another_lockfile_voids_the_yes_and_is_asked_about_with_the_difference(desk: Desk, asked: list[Any]) -> None:
    """Without a tolerance nothing of it may differ."""
    gate = promoting(desk, asked)
    gate.ask(1)
    lock(desk, OTHER)
    assert gate.answer(1, "olga")["verdict"] == "undecided"
    assert not gate.opened
    body = gate.ask(2)["body"]
    sentence = "Amazon Linux 2023: kernel.x86_64 is 0:6.1.112-1 instead of 0:6.1.100-1"
    assert f"Asked again: the approval is void: the lockfile is not the one that was shown ({sentence})" in body
    assert f"## The lockfile has changed since it was shown first\n\n- {sentence}" in body
    assert f"Lockfile `{OTHER.digest}`" in body
    gate.answer(2, "olga")
    assert gate.opened


def test_a_lockfile_within_the_tolerance_stays_approved(desk: Desk, asked: list[Any]) -> None:
    """One of three patches may differ, as one host may."""
    gate = promoting(desk, asked, TOLERANT)
    gate.ask(1)
    lock(desk, OTHER)
    gate.answer(1, "olga")
    assert gate.opened


# --- before the first command -------------------------------------------------------------------------------------------
def opened(gate: Gate) -> Gate:
    gate.ask(1)
    gate.answer(1, "olga")
    assert gate.opened
    return gate


def test_hosts_that_changed_after_the_yes_are_not_patched_under_it(desk: Desk, asked: list[Any]) -> None:
    """Days may lie between a yes and the stage's first command; it says who agreed to what, and how to be asked."""
    opened(Gate(desk, asked, TOLERANT))
    fleet(desk, *HOSTS, staging(5), staging(6))
    with pytest.raises(AirflowFailException) as failed:
        patch(desk)
    assert str(failed.value) == (
        "Stage staging: the approval is void: since the plan was made 2 hosts came and 0 went; 1 may differ. olga had said yes "
        "to the plan before; nothing was sent. Clear staging.approve_2 with what follows it: it asks about the stage as it is "
        "now. Or trigger another run."
    )
    desk.gateway.send.assert_not_called()
    row = desk.ledger.stage(RUN, STAGING)
    assert row.state is StageState.WAITING
    assert "2 hosts came" in row.reason
    with pytest.raises(AirflowFailException, match="there is one for another plan"):
        patch(desk, "cleared")  # without the gate


def test_clearing_the_gate_asks_about_what_is_there_now_and_opens_it(desk: Desk, asked: list[Any]) -> None:
    """A question of its own, with the difference; the first one is not asked again, and its yes opens nothing."""
    gate = opened(Gate(desk, asked, TOLERANT))
    fleet(desk, *HOSTS, staging(5), staging(6))
    with pytest.raises(AirflowFailException):
        patch(desk)
    assert gate.run(1)["verdict"] == "undecided"
    body = gate.ask(2)["body"]
    assert "Asked again: the approval is void: since the plan was made 2 hosts came" in body
    assert "olga had said yes to the plan before." in body
    assert f"+ {host_id(5)} (stg-5)" in body
    gate.answer(2, "ana", without="stg-6")
    assert gate.opened
    with pytest.raises(TaskDeferred):
        patch(desk, "again")
    states = {row.host: row.state for row in desk.ledger.hosts(RUN, STAGING)}
    assert states.keys() == {host_id(3), host_id(5)}
    desk.gateway.send.assert_called_once()


def test_a_no_to_the_second_question_skips_the_stage(desk: Desk, asked: list[Any]) -> None:
    """It has not begun."""
    gate = opened(Gate(desk, asked, TOLERANT))
    fleet(desk, *HOSTS, staging(5), staging(6))
    with pytest.raises(AirflowFailException):
        patch(desk)
    gate.ask(2)
    gate.answer(2, "ana", "Reject")
    assert desk.ledger.stage(RUN, STAGING).state is StageState.SKIPPED


def test_a_host_that_was_taken_in_while_it_waited_and_is_left_out_now_is_not_patched(desk: Desk, asked: list[Any]) -> None:
    """It stands in the ledger already; the plan that was approved in the end excludes it."""
    fleet(desk, *HOSTS, staging(5), staging(6))
    gate = opened(Gate(desk, asked, TOLERANT, [*HOSTS, staging(5), staging(6)]))
    lease = desk.ledger.acquire(RUN, STAGING, "earlier", at=datetime.now(UTC))
    stage = gate.plan.stage("staging")
    desk.ledger.add_hosts(lease, plans.rows(gate.plan, stage, now=datetime.now(UTC)))
    fleet(desk, *HOSTS, *(staging(number) for number in range(5, 9)))
    with pytest.raises(AirflowFailException):
        patch(desk)
    gate.ask(2)
    gate.answer(2, "ana", without="stg-5")
    with pytest.raises(TaskDeferred):
        patch(desk, "again")
    row = next(row for row in desk.ledger.hosts(RUN, STAGING) if row.host == host_id(5))
    assert (row.state, row.reason) == (HostState.EXCEPTED, "left out at the gate by ana")
    sent = {host for call in desk.gateway.send.call_args_list for host in call.kwargs["hosts"]}
    assert host_id(5) not in sent


def test_what_is_within_the_tolerance_is_patched(desk: Desk, asked: list[Any]) -> None:
    """As at the gate."""
    opened(Gate(desk, asked, TOLERANT))
    fleet(desk, *HOSTS, staging(5))
    with pytest.raises(TaskDeferred):
        patch(desk)
    desk.gateway.send.assert_called()


def test_hosts_that_were_left_out_at_the_gate_did_not_come_since(desk: Desk, asked: list[Any]) -> None:
    """They are there and are not in the approved plan: that is what was agreed to. They stay out when it is asked again."""
    fleet(desk, *HOSTS, staging(5), staging(6))
    gate = Gate(desk, asked, "approvers: [olga, ana], tolerance: 0", [*HOSTS, staging(5), staging(6)])
    gate.ask(1)
    gate.answer(1, "olga", without="stg-5")
    with pytest.raises(TaskDeferred):
        patch(desk)
    assert "approval.void" not in desk.journal
    desk.gateway.send.assert_called()


def test_who_was_left_out_at_the_gate_stays_out_when_it_is_asked_again(desk: Desk, asked: list[Any]) -> None:
    """Of this run, as the form says; who answers next sees by whom."""
    fleet(desk, *HOSTS, staging(5), staging(6))
    gate = Gate(desk, asked, "approvers: [olga, ana], tolerance: 0", [*HOSTS, staging(5), staging(6)])
    gate.ask(1)
    gate.answer(1, "olga", without="stg-5")
    fleet(desk, *HOSTS, staging(5))
    with pytest.raises(AirflowFailException, match="0 hosts came and 1 went"):
        patch(desk)
    assert "left out at the gate by olga" in gate.ask(2)["body"]
    assert [host.id for host in gate.plan.stage("staging").hosts] == [host_id(3)]


def test_once_something_was_sent_hosts_may_come_and_go(desk: Desk, asked: list[Any]) -> None:
    """Then they are late joiners, or terminated, as the rollout says."""
    opened(Gate(desk, asked, TOLERANT))
    with pytest.raises(TaskDeferred):
        patch(desk)
    fleet(desk, *HOSTS, staging(5), staging(6))
    with pytest.raises(TaskDeferred):
        patch(desk)
    assert "approval.void" not in desk.journal


def test_another_lockfile_after_the_yes_is_not_used_under_it(desk: Desk, asked: list[Any]) -> None:
    """The same hosts, other patches: another question, and clearing the gate asks it."""
    gate = opened(promoting(desk, asked))
    lock(desk, OTHER)
    with pytest.raises(AirflowFailException, match=r"not the one that was shown .*kernel\.x86_64 is 0:6\.1\.112-1"):
        patch(desk)
    desk.gateway.send.assert_not_called()
    assert not gate.opened
    assert f"Lockfile `{OTHER.digest}`" in gate.ask(2)["body"]
    gate.answer(2, "olga")
    assert gate.opened


def test_a_gate_without_questions_left_says_so(desk: Desk, asked: list[Any]) -> None:
    """Then only another run asks."""
    gate = opened(Gate(desk, asked, TOLERANT))
    for number in range(2, approval.ROUNDS + 1):
        hosts = [staging(10 * number + place) for place in range(3)]
        fleet(desk, *HOSTS, *hosts)
        with pytest.raises(AirflowFailException, match=f"Clear staging.approve_{number} "):
            patch(desk, f"try-{number}")
        gate.ask(number)
        gate.answer(number, "olga")
    fleet(desk, *HOSTS)
    with pytest.raises(AirflowFailException, match="no question left: trigger another run"):
        patch(desk, "last")


def test_approvals_of_an_earlier_version_have_no_lockfile_to_compare(desk: Desk, asked: list[Any]) -> None:
    """A run goes on over an upgrade."""
    gate = promoting(desk, asked)
    desk.decide("staging")
    lock(desk, OTHER)
    with pytest.raises(TaskDeferred):
        patch(desk)
    assert gate.opened


