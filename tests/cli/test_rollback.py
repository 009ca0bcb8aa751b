"""`python -m patchwave rollback`: what Airflow is asked for, and what is said where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from patchwave.cli.plan import PASSWORD
from patchwave.cli.rollback import IMPOSSIBLE, TRIGGERED, Options, rollback
from tests.cli.fake_airflow import FakeAirflow, serving

RUN = "weekly-linux/manual__2026-03-03"


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    monkeypatch.setenv(PASSWORD, "secret")
    with serving() as fake:
        fake.on("GET", "/dags/rollback", (200, {"dag_id": "rollback", "is_paused": False}))
        fake.on("POST", "/dags/rollback/dagRuns", (200, {}))
        yield fake


def said(options: Options) -> tuple[int, str]:
    out = StringIO()
    return rollback(options, Console(file=out, width=250)), out.getvalue()


def test_airflow_is_asked_for_a_rollback_of_these_hosts(airflow: FakeAirflow) -> None:
    """The plan, the approval and all the rest are its tasks'."""
    options = Options(run=RUN, stages=("prod",), hosts=("i-1", "i-2"), airflow=airflow.address)
    code, text = said(options)
    assert code == TRIGGERED
    ((_, body),) = airflow.said("POST")
    assert body["conf"] == {"run": RUN, "dry_run": False, "stages": ["prod"], "hosts": ["i-1", "i-2"]}
    assert body["dag_run_id"] in text


def test_a_paused_dag_is_said_to_be_paused(airflow: FakeAirflow) -> None:
    """Or the run would wait for ever, in the middle of an incident."""
    airflow.on("GET", "/dags/rollback", (200, {"dag_id": "rollback", "is_paused": True}))
    code, text = said(Options(run=RUN, airflow=airflow.address))
    assert code == IMPOSSIBLE
    assert "unpause it" in text
    assert airflow.said("POST") == []
