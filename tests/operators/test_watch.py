"""The watcher's tasks: when they ask, what a yes and a no become, and what stops them visibly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException, TaskAwaitingInput

from patchwave.campaign.errors import AwsUnavailable
from patchwave.campaign.values import RunId
from patchwave.ledger.store import RunOutcome
from patchwave.operators.watch import ANSWER_WITHIN, AskToStartOperator, LookOperator, StartEmergencyOperator, earlier
from tests.domain.builders import a_host
from tests.domain.test_emergency import CVE, an_emergency, having
from tests.domain.test_watching import STRICT
from tests.operators.work import Desk

WATCH_RUN = "scheduled__2026-03-03T22:00:00+00:00"
CANARY, OTHER = a_host(1, group_tag="linux-dev"), a_host(2)
FILES = {"campaign_json": an_emergency().to_json(), "policy_json": STRICT.model_dump_json(by_alias=True)}


class Watch(Desk):
    """A watcher of `emergency`, whose canary and whose other host have a critical finding since an hour."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.xcoms: dict[str, Any] = {}
        self.triggered: list[str] = []
        self.paused = False
        self.has(CANARY, OTHER)
        self.gateway.findings.side_effect = lambda cell: having(1, 2, first_seen=datetime.now(UTC) - timedelta(hours=1))
        self.ti.xcom_pull = lambda task_ids: self.xcoms.get(task_ids)  # type: ignore[attr-defined]
        self.ti.get_dag = lambda dag_id: SimpleNamespace(is_paused=self.paused)  # type: ignore[attr-defined]
        self.ti.get_dr_count = lambda *, dag_id, run_ids: sum(run in self.triggered for run in run_ids)  # type: ignore[attr-defined]

    def has(self, *hosts: Any) -> None:
        self.gateway.fleet.side_effect = lambda cell, tags: [host for host in hosts if host.cell == cell]

    def at_work(self, task: Any = None) -> Any:
        context = self.context(run_type="scheduled", task=task)
        context["dag_run"].dag_id, context["dag_run"].run_id = "emergency_watch", WATCH_RUN
        return context

    def look(self) -> dict[str, Any]:
        found = LookOperator(task_id="look", **FILES).execute(self.at_work())
        self.xcoms["look"] = found
        return dict(found)

    def nothing_to_do(self) -> str:
        with pytest.raises(AirflowSkipException) as caught:
            self.look()
        return str(caught.value)

    def answer(self, chosen: str, *, user: str | None = "olga", **inputs: Any) -> Any:
        """What `ask` returns, and whether it skips what follows."""
        ask = AskToStartOperator(task_id="ask", starters=["olga", "uma"], **FILES)
        skipped: list[Any] = []
        ask.skip = lambda **what: skipped.append(what)  # type: ignore[method-assign, assignment]
        task = SimpleNamespace(get_direct_relatives=lambda upstream: ["start"])
        event = {
            "chosen_options": [chosen], "params_input": inputs, "responded_at": datetime.now(UTC),
            "responded_by_user": None if user is None else {"id": user, "name": user},
        }  # fmt: skip
        return ask.execute_complete(self.at_work(task), event), bool(skipped)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def test_an_urgent_finding_is_found_with_the_name_of_its_run(watch: Watch) -> None:
    """The same one as often as it is looked."""
    found = watch.look()
    assert found["vulnerabilities"] == [CVE]
    assert found["run"].startswith("watch__")
    assert found == watch.look() | {key: found[key] for key in ("subject", "body")}
    assert not watch.gateway.send.called


def test_nothing_urgent_is_green_and_asks_nobody(watch: Watch) -> None:
    """Skipped with the reason; what follows is skipped with it."""
    watch.gateway.findings.side_effect = lambda cell: []
    assert "nothing is urgent" in watch.nothing_to_do()


def test_a_failure_to_read_inspector_fails_the_look(watch: Watch) -> None:
    """Retried by Airflow, and red at last: nobody takes it for good news."""
    watch.gateway.findings.side_effect = AwsUnavailable("down")
    with pytest.raises(AwsUnavailable):
        watch.look()


def test_a_paused_campaign_is_named_where_something_is_urgent(watch: Watch) -> None:
    """A run of a paused DAG waits unseen; with nothing urgent nobody is disturbed."""
    watch.paused = True
    with pytest.raises(AirflowFailException, match="the DAG emergency is paused"):
        watch.look()
    watch.gateway.findings.side_effect = lambda cell: []
    assert "nothing is urgent" in watch.nothing_to_do()


def test_a_canary_without_the_finding_is_named(watch: Watch) -> None:
    """The run would be refused; that is said before anybody is woken up for it."""
    watch.has(OTHER)
    with pytest.raises(AirflowFailException, match="no host of stage canary, the canary, has one of them"):
        watch.look()


def test_a_run_that_is_triggered_and_has_not_begun_is_not_asked_about_again(watch: Watch) -> None:
    """The ledger does not know it while it is queued."""
    watch.triggered = [watch.look()["run"]]
    assert "is triggered already" in watch.nothing_to_do()


def test_the_question_waits_without_a_worker_and_is_over_before_the_next_look(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the clock in its first line."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **what: asked.append(what))
    watch.look()
    with pytest.raises(TaskAwaitingInput) as waiting:
        AskToStartOperator(task_id="ask", starters=["olga", "uma"], **FILES).execute(watch.at_work())
    assert waiting.value.timeout == ANSWER_WITHIN < timedelta(hours=1)
    (question,) = asked
    assert f"{CVE}: 1 day 23 hours left" in question["subject"] or f"{CVE}: 1 day 22 hours" in question["subject"]
    assert [user["id"] for user in question["assigned_users"]] == ["olga", "uma"]
    assert question["defaults"] == ["Reject"]


def test_a_yes_starts_a_run_that_patches_in_that_persons_name(watch: Watch) -> None:
    """Never a dry run; skipped if it is there already; and who said yes has asked for it."""
    found = watch.look()
    watch.xcoms["ask"], skipped = watch.answer("Approve", user="uma")
    assert (watch.xcoms["ask"], skipped) == ("uma", False)
    assert not watch.ledger.runs()
    with pytest.raises(DagRunTriggerException) as wish:
        StartEmergencyOperator(task_id="start", campaign="emergency").execute(watch.at_work())
    assert (wish.value.trigger_dag_id, wish.value.dag_run_id) == ("emergency", found["run"])
    assert wish.value.conf == {"dry_run": False, "vulnerabilities": [CVE], "requested_by": "uma"}
    assert wish.value.skip_when_already_exists is True


def test_without_a_question_the_watcher_itself_has_asked_for_the_run(watch: Watch) -> None:
    """`start: at_once`."""
    watch.look()
    with pytest.raises(DagRunTriggerException) as wish:
        StartEmergencyOperator(task_id="start", campaign="emergency").execute(watch.at_work())
    assert wish.value.conf["requested_by"] == "emergency_watch"


def test_a_no_is_evidence_and_holds_for_a_day(watch: Watch) -> None:
    """A run of the campaign that somebody rejected before it began, under the id of the watcher's run."""
    watch.look()
    assert watch.answer("Reject", reason="the firewall shuts it out ") == (None, True)
    (run,) = watch.ledger.runs(campaign="emergency")
    assert run.id == RunId(f"emergency_watch/{WATCH_RUN}")
    assert (run.outcome, run.params["vulnerabilities"]) == (RunOutcome.REJECTED, [CVE])
    (decision,) = watch.ledger.decisions(run.id)
    assert (decision.author, decision.comment) == ("olga", "the firewall shuts it out")
    assert "nothing is urgent that no run is about" in watch.nothing_to_do()


def test_a_no_that_is_written_twice_is_one(watch: Watch) -> None:
    """A try that was killed after the first half goes on."""
    watch.look()
    watch.answer("Reject")
    watch.answer("Reject")
    assert len(watch.ledger.runs()) == len(watch.ledger.decisions(RunId(f"emergency_watch/{WATCH_RUN}"))) == 1


@pytest.mark.parametrize("inputs", [{"reason": 7}, {"reason": None}, {}, {"other": "x"}])
def test_whatever_comes_beside_a_no_it_is_one(watch: Watch, inputs: dict[str, Any]) -> None:
    """Airflow's API checks no field."""
    watch.look()
    assert watch.answer("Reject", **inputs) == (None, True)


def test_silence_starts_nothing_and_is_asked_again(watch: Watch) -> None:
    """It is no person's word, so nothing is written down of it."""
    watch.look()
    assert watch.answer("Reject", user=None) == (None, True)
    assert not watch.ledger.runs()
    assert watch.look()["vulnerabilities"] == [CVE]


def test_a_run_of_the_campaign_is_known_with_what_it_was_about(watch: Watch) -> None:
    """A dry run counts as one, also one that was stopped."""
    watch.open_run(campaign="emergency", params={"dry_run": True, "stages": [], "severities": [], "vulnerabilities": [CVE]})
    (run,) = earlier(watch.ledger, "emergency")
    assert (run.dry_run, run.running, run.vulnerabilities) == (True, True, {CVE})
    assert watch.look()["vulnerabilities"] == [CVE]
