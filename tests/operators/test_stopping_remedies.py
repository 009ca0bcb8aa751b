"""Kill means stop for the remediation, too: which Automation executions are cancelled, by the world's own record."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from patchwave.aws.gateway import Gateway
from patchwave.campaign.errors import LeaseLost, OutcomeUnknown
from patchwave.campaign.remediation import Remedy
from patchwave.campaign.values import HostId
from patchwave.execution import remedies, stopping
from patchwave.execution.remedies import REMEDIES
from patchwave.execution.stopping import Stopper
from patchwave.listeners import ended_by_hand
from patchwave.operators import remediation as remediation_operator
from patchwave.operators.remediation import RemediateOperator, _row
from tests.domain.builders import CELL, a_host
from tests.gateway.conftest import session_with_keys
from tests.operators.stage import ONCE, Killed, Watched
from tests.operators.test_stopping import LOG, an_instance
from tests.operators.work import RUN, Desk
from tests.simulator.conftest import Aws

FIRST, CLEARED = "try-1#3", "try-2#6"


class Remediation:
    """Three hosts of a stage are not compliant; two of them may be remedied at once."""

    def __init__(self, aws: Aws, desk: Desk) -> None:
        self.aws, self.desk, self.ledger = aws, desk, desk.ledger
        self.hosts = [HostId(host) for host in aws.hosts("web")]
        self.gateway = Gateway(session_with_keys, endpoint_url=aws.url, reads=ONCE)
        plan = desk.planned([a_host(number, id=host, group_tag="linux-staging") for number, host in enumerate(self.hosts)])
        assert plan.stage("staging").stage_places == 2
        chosen = [
            Remedy(host=host, cell=CELL, stage="staging", action="automation", reason="x", token=str(uuid.uuid4()))
            for host in self.hosts
        ]
        self.ledger.put_document(RUN, REMEDIES, [_row(one) for one in chosen], at=self.now)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.aws.control("clock")["epoch"], UTC)

    def leg(self, holder: str = FIRST, *, gateway: Any = None) -> Any:
        """The task runs until it waits (None) or is done."""
        self.desk.gateway = gateway or self.gateway
        self.desk.ti.id, _, most = holder.partition("#")
        self.desk.ti.max_tries = int(most)
        try:
            return RemediateOperator(task_id="remediate").execute(self.desk.context())
        except TaskDeferred:
            self.aws.advance(15)
            return None

    def to_the_end(self, holder: str) -> Any:
        for _ in range(20):
            if (outcome := self.leg(holder)) is not None:
                return outcome
            self.aws.advance(300)
        raise AssertionError("no end")

    def wish(self, holder: str = FIRST) -> None:
        self.ledger.wish_stop(RUN, remedies.TASK, holder, at=self.now, reason="the task was marked failed by hand")

    def sweep(self, gateway: Any = None) -> list[str]:
        stopper = Stopper(
            ledger=self.ledger, gateway=lambda: gateway or self.gateway, now=lambda: self.now, log=LOG,
            pause=lambda seconds: self.aws.advance(seconds),
        )  # fmt: skip
        return stopper.sweep()

    @property
    def executions(self) -> Counter[str]:
        """How those in the world stand."""
        found = self.aws.ssm.describe_automation_executions()["AutomationExecutionMetadataList"]
        return Counter(one["AutomationExecutionStatus"] for one in found)

    @property
    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in remedies.rows_of(self.ledger, RUN)]

    def entries(self, kind: str) -> list[Any]:
        return [entry.data for entry in self.ledger.journal(RUN) if entry.kind == kind]


@pytest.fixture
def remediation(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Remediation:
    found = Remediation(aws, Desk(monkeypatch))
    monkeypatch.setattr("patchwave.hooks.clock.now", lambda: found.now)
    return found


def test_a_wish_cancels_the_executions_in_flight_and_writes_down_which_had_begun(remediation: Remediation) -> None:
    """And whoever clears the task finds the hosts as stopped, not as failed."""
    remediation.leg()
    assert remediation.executions == {"InProgress": 2}
    remediation.wish()
    (said,) = remediation.sweep()
    assert said.startswith("2 remedies cancelled")
    assert remediation.executions == {"Cancelled": 2}
    assert remediation.outcomes == ["stopped", "stopped", "intended"]
    (before,), (after,) = remediation.entries("remedy.stopping"), remediation.entries("remedy.stopped")
    assert {host: one["step"] for host, one in before["begun"].items()} == dict.fromkeys(remediation.hosts[:2], "Install")
    assert (sorted(after["executions"]), after["not_over"]) == (sorted(remediation.hosts[:2]), [])
    assert remediation.ledger.waits(RUN, open_only=True) == []
    assert remediation.ledger.stop_wishes(open_only=True) == []


def test_a_try_that_was_stopped_begins_nothing_more(remediation: Remediation) -> None:
    """Its process may live on for a while; it must neither begin the third host nor say that the others still run."""
    remediation.leg()
    remediation.wish()
    for sweep in (remediation.sweep, list):
        with pytest.raises(LeaseLost, match="a person ended this try"):
            remediation.leg()
        sweep()
    assert remediation.executions == {"Cancelled": 2}
    assert remediation.outcomes == ["stopped", "stopped", "intended"]


def test_the_wish_may_come_between_two_starts(remediation: Remediation) -> None:
    """The first execution has begun, the second is not begun any more, and the stopper finds the first by its token."""
    gateway = Watched(remediation.gateway, frozenset({"start_automation"}), after=lambda _: remediation.wish())
    with pytest.raises(LeaseLost):
        remediation.leg(gateway=gateway)
    remediation.sweep()
    assert remediation.executions == {"Cancelled": 1}
    assert remediation.outcomes == ["stopped", "intended", "intended"]


def test_an_execution_whose_answer_was_lost_is_found_and_cancelled(remediation: Remediation) -> None:
    """The intent stands in the ledger with its token, AWS has the execution."""

    def lose(_: str) -> None:
        raise OutcomeUnknown("the connection was reset")

    remediation.leg(gateway=Watched(remediation.gateway, frozenset({"start_automation"}), after=lose))
    assert remediation.outcomes == ["intended"] * 3
    remediation.wish()
    remediation.sweep()
    assert remediation.executions == {"Cancelled": 2}


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_is_killed_while_it_stops_has_written_down_what_had_begun(remediation: Remediation, when: str) -> None:
    """Just before AWS is told to cancel the first one, or just after: the wish stays open, and the next one does the rest."""

    def die(_: str) -> None:
        raise Killed

    remediation.leg()
    remediation.wish()
    dying: Any = {when: die}
    with pytest.raises(Killed):
        remediation.sweep(Watched(remediation.gateway, frozenset({"stop_automation"}), **dying))
    (before,) = remediation.entries("remedy.stopping")
    assert sorted(before["begun"]) == sorted(remediation.hosts[:2])
    remediation.aws.advance(2)
    remediation.sweep()
    assert remediation.executions == {"Cancelled": 2}
    assert remediation.outcomes == ["stopped", "stopped", "intended"]


def test_after_a_clear_what_was_stopped_is_begun_anew(remediation: Remediation) -> None:
    """As executions of their own, for the old ones are over; and each host is remedied in the end."""
    remediation.leg()
    remediation.wish()
    remediation.sweep()
    assert remediation.to_the_end(CLEARED) == {"succeeded": 3}
    assert remediation.executions == {"Cancelled": 2, "Success": 3}


def test_a_clear_after_the_window_has_shut_begins_nothing(remediation: Remediation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person may clear the task days later; a remedy disrupts as a patch does."""
    remediation.leg()
    remediation.wish()
    remediation.sweep()
    monkeypatch.setattr(remediation_operator, "_shut", lambda work: ["staging"])
    assert remediation.leg(CLEARED) == {"not_tried": 3}
    assert remediation.executions == {"Cancelled": 2}


def test_more_were_stopped_than_there_are_places_now(remediation: Remediation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have to wait for their turn are nobody's, and keep nobody from the others."""
    remediation.leg()
    remediation.wish()
    remediation.sweep()
    fitting = remediation_operator._fitting
    monkeypatch.setattr(remediation_operator, "_fitting", lambda rows, _, tried: fitting(rows, {"staging": 1}, tried))
    assert remediation.to_the_end(CLEARED) == {"succeeded": 3}
    assert remediation.executions == {"Cancelled": 2, "Success": 3}


def test_a_clear_alone_cancels_what_the_cleared_try_had_in_flight(remediation: Remediation) -> None:
    """Nobody wishes anything then: the next try knows by its own number, and begins a host anew once AWS says it is over."""
    remediation.leg()
    assert remediation.leg(CLEARED) is None
    assert remediation.executions["InProgress"] + remediation.executions["Pending"] <= 2
    (before,) = remediation.entries("remedy.stopping")
    assert before["reason"] == stopping.CLEARED
    assert remediation.to_the_end(CLEARED) == {"succeeded": 3}
    assert remediation.executions == {"Cancelled": 2, "Success": 3}


def test_a_retry_that_nobody_asked_for_adopts_what_is_in_flight(remediation: Remediation) -> None:
    """And a wish of the try before it, which is over, stops nothing of it."""
    remediation.leg()
    assert remediation.leg("try-2#3") is None
    remediation.wish(FIRST)
    assert remediation.sweep() == ["nothing was in flight"]
    assert remediation.to_the_end("try-2#3") == {"succeeded": 3}
    assert remediation.executions == {"Success": 3}


def test_a_try_that_was_overtaken_steps_back_before_its_next_start(remediation: Remediation) -> None:
    """Airflow had given it up, and its successor has the remedies in hand."""
    gateway = Watched(remediation.gateway, frozenset({"ensure_runbook"}), before=lambda _: remediation.leg("try-2#3"))
    with pytest.raises(LeaseLost, match="another try"):
        remediation.leg(gateway=gateway)
    assert sum(remediation.executions.values()) == 2


def test_a_remedy_that_somebody_else_cancelled_has_failed(remediation: Remediation) -> None:
    """In AWS's console, for instance: that is the answer of a person who looked, and it is not begun again."""
    remediation.leg()
    for row in remedies.rows_of(remediation.ledger, RUN)[:1]:
        remediation.gateway.stop_automation(CELL, row["execution"])
    remediation.aws.advance(5)
    assert remediation.to_the_end(FIRST) == {"failed": 1, "succeeded": 2}


def test_a_mark_of_the_remediations_task_is_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the id of the task, which stands for the stage."""
    found: list[Any] = []
    monkeypatch.setattr(ended_by_hand.Ended, "carry_on", lambda self: found.append(self))
    instance = an_instance(operator="RemediateOperator", task_id="remediate")
    ended_by_hand.on_task_instance_failed(previous_state=None, task_instance=instance, error="set")
    (one,) = found
    assert (one.stage, one.holder) == (remedies.TASK, FIRST)


def test_the_api_server_stops_it_within_half_a_minute(remediation: Remediation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else does: the trigger of a remediation only waits for a moment."""
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        remediation.aws.advance(seconds)

    monkeypatch.setattr(ended_by_hand, "time", SimpleNamespace(sleep=nap))
    monkeypatch.setattr("patchwave.hooks.ledger.ledger", lambda: remediation.ledger)
    monkeypatch.setattr("patchwave.hooks.aws.PatchwaveAwsHook", lambda: SimpleNamespace(gateway=lambda: remediation.gateway))
    remediation.leg()
    ended_by_hand.Ended(run=RUN, stage=remedies.TASK, task_instance="try-1", most=3, how="marked failed").carry_on()
    assert remediation.executions == {"Cancelled": 2}
    assert sum(naps) < 30
    assert remediation.ledger.stop_wishes(open_only=True) == []
