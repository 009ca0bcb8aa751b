"""`python -m patchwave plan`: finds two plans in the ledger, or has Airflow make one, and says what differs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from patchwave.campaign import plan as plans
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.values import RunId, StageName
from patchwave.cli.main import main
from patchwave.cli.plan import DIFFERENT, IMPOSSIBLE, PASSWORD, SAME, Options, plan
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.store import Ledger
from tests.cli.fake_airflow import FakeAirflow, serving
from tests.domain.builders import NOW, a_host, a_plan
from tests.ledger.builders import a_run

PROD = StageName("prod")


class Weeks:
    """A ledger on disk with a run a week; each has one host more."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self.ledger: Ledger = ledger_at(self.url)

    def add(self, number: int, *, name: str = "", approved: bool = False, policy: dict[str, Any] | None = None) -> None:
        run = RunId(f"weekly-linux/{name or f'week-{number}'}")
        at = NOW + timedelta(days=7 * number)
        made = a_plan([a_host(one) for one in range(1, number + 1)], run=run, now=at)
        self.ledger.open_run(a_run(run, began_at=at, policy=policy or {"days": 15}), [PROD])
        self.ledger.put_document(run, "plan", plans.to_json(made), at=at)
        if approved:
            self.ledger.record_decision(
                Decision(run=run, stage=PROD, plan=plans.digest(made), verdict=Verdict.APPROVED, author="olga", at=at)
            )

    def said(self, name: str = "latest", **options: Any) -> tuple[int, str]:
        out = StringIO()
        values = {"ledger": self.url} | options
        return plan(Options(name=name, **values), Console(file=out, width=250), pause=lambda _: None), out.getvalue()


@pytest.fixture
def weeks(tmp_path: Path) -> Weeks:
    made = Weeks(tmp_path)
    made.add(1, approved=True)
    made.add(2)
    made.add(3)
    return made


@pytest.mark.parametrize("name", ["latest", "weekly-linux", "week-3", "weekly-linux/week-3"])
def test_a_plan_is_found_under_each_of_its_names(weeks: Weeks, name: str) -> None:
    """A campaign's name means its newest plan."""
    status, said = weeks.said(name)
    assert status == SAME
    assert "`weekly-linux/week-3`" in said


def test_the_difference_is_said_with_the_counts_last(weeks: Weeks) -> None:
    """As people know it from terraform."""
    status, said = weeks.said("weekly-linux", against="week-1")
    assert status == SAME
    assert said.splitlines()[0].startswith("  plan weekly-linux/week-3 (")
    assert "prod-3): wave" in said
    assert said.splitlines()[-1].startswith("Hosts: 2 added, 0 removed")


def test_against_approved_means_the_last_one_with_a_yes(weeks: Weeks) -> None:
    """What a gate shows, too."""
    _, said = weeks.said("week-3", against="approved")
    assert "against weekly-linux/week-1" in said
    status, said = weeks.said("week-1", against="approved")
    assert (status, "no plan of weekly-linux was approved before weekly-linux/week-1" in said) == (IMPOSSIBLE, True)


def test_another_policy_under_the_same_name_is_found_in_the_runs(weeks: Weeks) -> None:
    """The plan has its name only."""
    weeks.add(3, name="strict", policy={"days": 3})
    _, said = weeks.said("strict", against="week-3")
    assert "~ policy (digest): " in said


def test_scripts_can_ask_whether_there_is_a_difference(weeks: Weeks) -> None:
    """By the exit status, as with git diff."""
    assert weeks.said("week-2", against="week-1", exit_code=True)[0] == DIFFERENT
    status, said = weeks.said("week-2", against="week-2", exit_code=True)
    assert status == SAME
    assert said.splitlines()[-1].startswith("No difference")


def test_markdown_holds_every_line(weeks: Weeks) -> None:
    """For a ticket; a gate shows fewer."""
    weeks.add(80)
    _, said = weeks.said("latest", against="week-1", markdown=True)
    assert said.count("\n+ i-") == 79
    assert "```diff" in said


def test_what_cannot_be_found_is_said_and_no_ledger_is_made(weeks: Weeks, tmp_path: Path) -> None:
    """With the names that there are."""
    assert weeks.said("another") == (
        IMPOSSIBLE, "this plan cannot be shown: the ledger has no run and no campaign another; it has runs of: weekly-linux\n",
    )  # fmt: skip
    status, said = weeks.said(ledger=f"sqlite:///{tmp_path / 'none.db'}")
    assert (status, "there is no ledger at" in said, (tmp_path / "none.db").exists()) == (IMPOSSIBLE, True, False)
    weeks.ledger.open_run(a_run(RunId("monthly/scanning"), campaign="monthly", began_at=NOW), [PROD])
    status, said = weeks.said("monthly")
    assert (status, "has a plan yet: monthly/scanning" in said) == (IMPOSSIBLE, True)


def test_the_command_line_hands_its_options_on(weeks: Weeks, capsys: pytest.CaptureFixture[str]) -> None:
    """From the arguments to the last line."""
    assert main(["plan", "week-2", "--against", "week-1", "--ledger", weeks.url, "--exit-code"]) == DIFFERENT
    assert capsys.readouterr().out.splitlines()[-1].startswith("Hosts: 1 added")


# --- fresh ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    monkeypatch.setenv(PASSWORD, "secret")
    with serving() as fake:
        fake.on("GET", "/dags/weekly-linux", (200, {"is_paused": False}))
        fake.on("GET", "/dags/weekly-linux/dagRuns", (200, {"dag_runs": []}))
        yield fake


def dry_run(fake: FakeAirflow, weeks: Weeks, state: str = "success") -> None:
    """Airflow makes a plan of four hosts."""

    def made(body: Any) -> tuple[int, Any]:
        assert body["conf"] == {"dry_run": True}
        if state == "success":
            weeks.add(4, name=body["dag_run_id"])
        fake.on("GET", f"/dags/weekly-linux/dagRuns/{body['dag_run_id']}", (200, {"state": "queued"}), (200, {"state": state}))
        fake.on("PATCH", f"/dags/weekly-linux/dagRuns/{body['dag_run_id']}", (200, {}))
        return 200, {}

    fake.on("POST", "/dags/weekly-linux/dagRuns", made)


def test_a_fresh_plan_is_a_dry_run_of_airflow(weeks: Weeks, airflow: FakeAirflow) -> None:
    """The command line has no way to AWS, and there is one place where plans are made."""
    dry_run(airflow, weeks)
    status, said = weeks.said("weekly-linux", against="week-3", fresh=True, airflow=airflow.address)
    assert status == SAME
    assert said.splitlines()[-1].startswith("Hosts: 1 added")


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        ("/dags/weekly-linux", (404, {"detail": "no"}), "has no DAG weekly-linux"),
        ("/dags/weekly-linux", (200, {"is_paused": True}), "is paused"),
        ("/dags/weekly-linux/dagRuns", (200, {"dag_runs": [{"dag_run_id": "week-9"}]}), "week-9 has not ended"),
    ],
    ids=["no DAG", "paused", "a run in flight"],
)
def test_what_would_wait_for_ever_is_not_triggered(
    weeks: Weeks, airflow: FakeAirflow, path: str, answer: tuple[int, Any], why: str
) -> None:
    """A dry run behind a gate would stay queued until somebody answers."""
    dry_run(airflow, weeks)
    airflow.on("GET", path, answer)
    status, said = weeks.said("weekly-linux", fresh=True, airflow=airflow.address)
    assert (status, why in said) == (IMPOSSIBLE, True), said
    assert airflow.said("POST") == []


def test_a_dry_run_that_does_not_end_is_not_left_behind(weeks: Weeks, airflow: FakeAirflow) -> None:
    """It would hold up the campaign's next run."""
    dry_run(airflow, weeks, state="running")
    status, said = weeks.said("weekly-linux", fresh=True, airflow=airflow.address, patience=10.0)
    assert (status, "was stopped" in said) == (IMPOSSIBLE, True)
    assert [body for _, body in airflow.said("PATCH")] == [{"state": "failed"}]


def test_a_dry_run_that_failed_is_no_plan(weeks: Weeks, airflow: FakeAirflow) -> None:
    """Nor is an older plan shown in its place."""
    dry_run(airflow, weeks, state="failed")
    status, said = weeks.said("weekly-linux", fresh=True, airflow=airflow.address)
    assert (status, "failed; its log in Airflow says why" in said) == (IMPOSSIBLE, True)
