"""What a rollback decides, and what it takes to call a host rolled back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from patchwave.campaign import rollback
from patchwave.campaign.fleet import InstanceState
from patchwave.campaign.rollback import Begin, Decision
from patchwave.campaign.rollout import Done, Halt, HostRow, HostState, Invocation, Outcome, StepKind, Wait
from tests.domain.builders import NOW, a_dispatch, a_host, a_report, a_row, host_id, later, the_rules

S, O = HostState, Outcome  # noqa: E741 - an outcome


def decide(rows: list[HostRow], *, down: tuple[int, ...] = (), places: int = 1, budget: int = 9, **facts: Any) -> Decision:
    rules = the_rules(rows, places=places, error_budget=budget)
    return rollback.decide(rules, rows, {}, down={host_id(one) for one in down}, now=NOW, **facts)


def seen(row: HostRow, outcome: Outcome | None, *, missing: int = 3, ended: float = 5, minutes: float = 6, **facts: Any) -> Any:
    """The move that a Scan of `NOW` makes of the host."""
    told = None if outcome is None else Invocation(token="t" * 32, host=row.host, outcome=outcome, details=outcome.value)
    values: dict[str, Any] = {"complete": False, "attempts": 1} | facts
    report = a_report(1, missing=missing, ended=later(ended))
    return rollback.scanned(row, a_dispatch(StepKind.VERIFY, 1), told, report, now=later(minutes), **values)


# --- going on -----------------------------------------------------------------------------------------------------------
def test_who_is_down_is_begun_although_others_are_down_too() -> None:
    """With one place and three bricked hosts nobody could ever begin otherwise; one at a time all the same."""
    rows = [a_row(1), a_row(2), a_row(3)]
    assert decide(rows, down=(1, 2, 3)) == Begin(hosts=(host_id(1),))


def test_who_serves_waits_while_others_are_down() -> None:
    """The stage's place is taken by the one that is down: that one first."""
    assert decide([a_row(1), a_row(2)], down=(2,)) == Begin(hosts=(host_id(2),))
    assert isinstance(decide([a_row(1), a_row(2, S.ROLLING_BACK)], down=(2,)), Wait)


def test_a_host_that_did_not_come_back_keeps_the_place_of_one_that_serves() -> None:
    """No place is left: a person looks."""
    found = decide([a_row(1), a_row(2, S.FAILED)])
    assert isinstance(found, Halt)
    assert found.hosts == (host_id(2),)


def test_a_spent_error_budget_begins_nobody_even_who_is_down() -> None:
    """What broke two may break all."""
    found = decide([a_row(1), a_row(2, S.FAILED)], down=(1,), budget=0)
    assert isinstance(found, Halt)
    assert found.rule == "error budget"


@pytest.mark.parametrize("left", [S.FAILED, S.UNREACHABLE, S.STOPPED, S.TERMINATED])
@pytest.mark.parametrize("cleared", [None, NOW + timedelta(hours=1)])
def test_whoever_did_not_come_back_makes_it_no_success(left: HostState, cleared: Any) -> None:
    """Also after somebody has cleared the halt."""
    found = decide([a_row(1, S.ROLLED_BACK), a_row(2, left)], errors_since=cleared)
    assert isinstance(found, Halt)
    assert found.hosts == (host_id(2),)


def test_it_is_done_when_everybody_is_back() -> None:
    """And counts them."""
    assert decide([a_row(1, S.ROLLED_BACK), a_row(2, S.ROLLED_BACK)]) == Done(classes={S.ROLLED_BACK: 2})


# --- what is proven -----------------------------------------------------------------------------------------------------
BACK = replace(a_row(1, S.VERIFYING, token="t" * 32), missing_before=3)


def test_a_host_is_rolled_back_if_it_lacks_again_what_it_lacked() -> None:
    """By a report of this very Scan."""
    assert seen(BACK, O.SUCCEEDED).after is S.ROLLED_BACK
    assert seen(BACK, O.SUCCEEDED, missing=4).after is S.ROLLED_BACK  # something came out since


def test_a_host_that_lacks_less_is_not_what_it_was() -> None:
    """Whatever EC2 says of its root volume, and however well the Scan went."""
    found = seen(BACK, O.SUCCEEDED, missing=0)
    assert found.after is S.FAILED
    assert "not what it was" in found.reason


def test_a_report_of_an_earlier_scan_proves_nothing() -> None:
    """It is waited for, and not for ever."""
    assert seen(BACK, O.SUCCEEDED, ended=-5) is None
    assert seen(BACK, O.SUCCEEDED, ended=-5, minutes=200).after is S.FAILED


@pytest.mark.parametrize(("outcome", "facts", "after"), [
    (O.RUNNING, {}, None), (O.RUNNING, {"minutes": 200}, S.UNREACHABLE), (None, {}, None),
    (None, {"complete": True}, S.UNREACHABLE), (O.UNDELIVERED, {}, S.UNREACHABLE), (O.DENIED, {}, S.UNREACHABLE),
    (O.FAILED, {}, S.FAILED), (O.CANCELLED, {}, S.TO_VERIFY), (O.CANCELLED, {"attempts": 3}, S.FAILED),
])  # fmt: skip
def test_no_other_end_of_a_scan_is_a_proof(outcome: Outcome | None, facts: dict[str, Any], after: HostState | None) -> None:
    """Each has its own consequence."""
    found = seen(BACK, outcome, **facts)
    assert (found.after if found else None) is after


def test_an_agent_that_was_heard_of_before_the_new_root_volume_says_nothing_about_it() -> None:
    """Systems Manager calls an agent online for minutes after it fell silent."""
    row = a_row(1, S.ROLLING_BACK)
    before, after = a_host(1, last_ping=later(-1)), a_host(1, last_ping=later(1))
    assert rollback.back(row, before, since=NOW, now=later(5)) is None
    assert rollback.back(row, after, since=NOW, now=later(5)).after is S.TO_VERIFY  # type: ignore[union-attr]
    assert rollback.back(row, before, since=NOW, now=later(200)).after is S.UNREACHABLE  # type: ignore[union-attr]
    stopped = a_host(1, state=InstanceState.STOPPED)
    assert rollback.back(row, stopped, since=NOW, now=later(5)).after is S.STOPPED  # type: ignore[union-attr]
    assert rollback.back(row, None, since=NOW, now=later(5)).after is S.TERMINATED  # type: ignore[union-attr]
