"""Gates are answered once, not too soon, as somebody who may; and somebody in the browser may be faster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from patchwave.cli.gates import SETTLING, Gates, NobodyMayAnswer
from patchwave.cli.rest import Airflow, Refused
from tests.cli.fake_airflow import FakeAirflow, serving

LIST = "/dags/weekly/dagRuns/r/hitlDetails"
ONE = "/dags/weekly/dagRuns/r/taskInstances/staging.approve/-1/hitlDetails"
TASK = "/dags/weekly/dagRuns/r/taskInstances/staging.approve"


class Time:
    """A clock that only moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def request(attempt: str = "ti-1", *, assigned: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A request as Airflow lists it."""
    return {
        "task_instance": {"id": attempt, "task_id": "staging.approve", "map_index": -1},
        "subject": "Approve stage staging",
        "body": "the plan",
        "options": ["Approve", "Reject"],
        "assigned_users": [{"id": name, "name": name} for name in assigned],
        "params": {},
        **more,
    }


@pytest.fixture
def fake() -> Iterator[FakeAirflow]:
    """An Airflow with one gate that waits."""
    with serving() as one:
        one.on("GET", LIST, (200, {"hitl_details": [request()], "total_entries": 1}))
        one.on("GET", TASK, (200, {"state": "success"}))
        one.on("PATCH", ONE, (200, {"responded_by": {"id": "olga", "name": "olga"}, "chosen_options": ["Approve"]}))
        yield one


@pytest.fixture
def time() -> Time:
    """The gates' time."""
    return Time()


@pytest.fixture
def gates(fake: FakeAirflow, time: Time) -> Gates:
    """The gates of run ``r``; olga answers if she may, else ana."""
    users = {name: Airflow(fake.address, user=name, password="x", pause=lambda _: None) for name in ("olga", "ana")}
    return Gates(dag="weekly", run="r", users=users, now=lambda: time.now, pause=time.pause)


def test_an_answer_waits_until_the_request_has_settled(gates: Gates, fake: FakeAirflow, time: Time) -> None:
    """Within the first two seconds an answer can fail the healthy task behind it."""
    (gate,) = gates.waiting()
    assert not gates.settled(gate)
    asked = time.now
    answered = gates.answer(gate, approve=True)
    assert time.now - asked >= SETTLING
    assert (answered.option, answered.by, answered.ours, answered.state) == ("Approve", "olga", True, "success")
    assert fake.said("PATCH") == [(f"/api/v2{ONE}", {"chosen_options": ["Approve"], "params_input": {}})]


def test_an_old_request_is_answered_at_once(gates: Gates, time: Time) -> None:
    """It is counted from the moment at which it was first seen."""
    gates.waiting()
    time.now += 60
    (gate,) = gates.waiting()
    assert gates.settled(gate)
    gates.answer(gate, approve=True)
    assert time.now == 1060


def test_a_retry_of_the_gate_settles_anew(gates: Gates, fake: FakeAirflow, time: Time) -> None:
    """It is another task instance, with a window of its own."""
    gates.waiting()
    time.now += 60
    fake.on("GET", LIST, (200, {"hitl_details": [request("ti-2")]}))
    (gate,) = gates.waiting()
    assert not gates.settled(gate)


def test_no_means_reject(gates: Gates, fake: FakeAirflow) -> None:
    """In the gate's own words."""
    (gate,) = gates.waiting()
    gates.answer(gate, approve=False)
    assert fake.said("PATCH")[0][1]["chosen_options"] == ["Reject"]


def test_whoever_is_first_decides(gates: Gates, fake: FakeAirflow) -> None:
    """Airflow refuses the second answer; the first one is what is reported."""
    (gate,) = gates.waiting()
    fake.on("PATCH", ONE, (409, {"detail": "already answered"}))
    fake.on("GET", ONE, (200, {"responded_by_user": {"id": "uma", "name": "Uma"}, "chosen_options": ["Reject"]}))
    answered = gates.answer(gate, approve=True)
    assert (answered.option, answered.by, answered.ours) == ("Reject", "uma", False)


def test_an_answer_that_airflow_refuses_is_no_answer(gates: Gates, fake: FakeAirflow) -> None:
    """A user without the right to answer must not be shown as having answered."""
    (gate,) = gates.waiting()
    fake.on("PATCH", ONE, (403, {"detail": "not assigned"}))
    with pytest.raises(Refused, match="not assigned"):
        gates.answer(gate, approve=True)


def test_somebody_whom_the_gate_asks_answers(gates: Gates, fake: FakeAirflow) -> None:
    """The campaign file names the approvers, and Airflow enforces them."""
    fake.on("GET", LIST, (200, {"hitl_details": [request(assigned=("ana",))]}))
    (gate,) = gates.waiting()
    assert gates.answerer(gate) == "ana"


def test_a_gate_that_asks_none_of_ours_says_whom_it_asks(gates: Gates, fake: FakeAirflow) -> None:
    """Then only they can answer, in the browser."""
    fake.on("GET", LIST, (200, {"hitl_details": [request(assigned=("zoe",))]}))
    (gate,) = gates.waiting()
    with pytest.raises(NobodyMayAnswer, match="zoe"):
        gates.answerer(gate)


def test_the_forms_defaults_go_with_the_answer(gates: Gates, fake: FakeAirflow) -> None:
    """Airflow checks the form only on resume, and then fails the task for good."""
    form = {"comment": {"value": None, "description": "why", "schema": {"type": ["null", "string"]}}}
    fake.on("GET", LIST, (200, {"hitl_details": [request(params=form)]}))
    (gate,) = gates.waiting()
    gates.answer(gate, approve=True)
    assert fake.said("PATCH")[0][1]["params_input"] == {"comment": None}


def test_the_tasks_state_is_looked_at_after_the_answer(gates: Gates, fake: FakeAirflow) -> None:
    """An answer is worth nothing if its task failed on it."""
    (gate,) = gates.waiting()
    fake.on("GET", TASK, (200, {"state": "awaiting_input"}), (200, {"state": "queued"}), (200, {"state": "failed"}))
    assert gates.answer(gate, approve=True).state == "failed"
