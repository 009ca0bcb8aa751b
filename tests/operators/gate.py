"""The chain of questions before a stage, answered as people would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskAwaitingInput

from patchwave.campaign import approval
from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Open
from patchwave.campaign.definition import Campaign
from patchwave.campaign.fleet import Host
from patchwave.campaign.plan import Plan
from patchwave.campaign.values import StageName
from patchwave.ledger.store import StageState
from patchwave.operators.approval import ApproveStageOperator, questions
from patchwave.operators.base import Work
from tests.domain.builders import CAMPAIGN, a_campaign, a_host
from tests.operators.work import RUN, Desk

STAGING = StageName("staging")
ONE = "approvers: [olga, ana]"
TWO = "approvers: [olga, ana, uma], quorum: 2"
LOCKED = "promotion: {by: lockfile}\n"
TOLERANT = "approvers: [olga, ana], tolerance: 1"
TEN = datetime(2026, 3, 10, 22, 30, tzinfo=UTC)
"""Half an hour after an opening."""


def a_strict_campaign(rules: str, also: str = "") -> Campaign:
    """Staging asks by these rules."""
    assert "approvers: [olga, ana]" in CAMPAIGN
    return a_campaign(CAMPAIGN.replace("approvers: [olga, ana]", rules, 1) + also)


class Gate:
    """The chain of questions before staging, answered as people would."""

    def __init__(
        self, desk: Desk, asked: list[dict[str, Any]], rules: str, hosts: list[Host] | None = None, *, also: str = "",
        later: bool = False,
    ) -> None:  # fmt: skip
        """
        Args:
            also: further lines of the campaign file.
            later: it has questions for asking again when hosts of dev fall ill.
        """
        self.desk = desk
        self.asked = asked
        self.campaign = a_strict_campaign(rules, also)
        desk.planned(hosts, campaign=self.campaign)
        desk.set_stage("dev", StageState.PATCHED)
        stage = self.campaign.stage("staging")
        last = questions(stage, later=later)
        with DAG("weekly-linux"):
            self.tasks = [
                ApproveStageOperator(
                    task_id=f"approve_{number}", stage="staging", approvers=self.campaign.approvers(stage),
                    timeout=stage.approval.timeout, campaign_json=self.campaign.to_json(), number=number, last=last,
                )
                for number in range(1, last + 1)
            ]  # fmt: skip

    def ask(self, number: int = 1) -> dict[str, Any]:
        """That question is put; what people see."""
        task = self.tasks[number - 1]
        before = len(self.asked)
        with pytest.raises(TaskAwaitingInput):
            task.execute(self.desk.context(task=task))
        assert len(self.asked) == before + 1
        return self.asked[-1]

    def answer(self, number: int, who: str | None, chosen: str = "Approve", **inputs: Any) -> Any:
        task = self.tasks[number - 1]
        event = {
            "chosen_options": [chosen], "params_input": inputs, "responded_at": datetime.now(UTC),
            "responded_by_user": None if who is None else {"id": who, "name": who},
        }  # fmt: skip
        return task.execute_complete(self.desk.context(task=task), event)

    def wake(self, number: int = 1, **kwargs: Any) -> TaskAwaitingInput | Any:
        """Airflow's time limit of the request is over; how it waits on, or what came of it."""
        task = self.tasks[number - 1]
        event = {"error": "The Human-in-the-loop response timeout has passed", "error_type": "timeout"}
        try:
            return task.execute_complete(self.desk.context(task=task), event, **kwargs)
        except TaskAwaitingInput as waits:
            return waits

    def run(self, number: int) -> Any:
        """A question that has nobody to ask any more."""
        task = self.tasks[number - 1]
        return task.execute(self.desk.context(task=task))

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        return [(one.verdict.value, one.author) for one in self.desk.ledger.decisions(RUN)]

    @property
    def plan(self) -> Plan:
        """The plan that holds for staging."""
        return Work(self.desk.context(task=self.tasks[0]), aws_conn_id="a", ledger_conn_id="l").plan

    @property
    def opened(self) -> bool:
        """What the stage's task would find."""
        plan = self.plan
        stage = plan.stage("staging")
        answer = approval.may_patch(
            stage=STAGING, plan=plans.digest(plan), required=True, approvers=stage.approvers,
            decisions=self.desk.ledger.decisions(RUN),
        )  # fmt: skip
        return isinstance(answer, Open)


def fleet(desk: Desk, *hosts: Host) -> None:
    """What AWS has from now on."""
    desk.gateway.fleet.side_effect = lambda cell, tags: [host for host in hosts if host.cell == cell]


def staging(number: int) -> Host:
    return a_host(number, group_tag="linux-staging", name=f"stg-{number}")


def people(request: dict[str, Any]) -> list[str]:
    return [user["id"] for user in request["assigned_users"]]


def later(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """So many hours later, on a real clock."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr("patchwave.operators.approval.datetime", Later)
