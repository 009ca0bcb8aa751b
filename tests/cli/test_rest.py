"""The client gets over what Airflow stumbles on, and over nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from patchwave.cli.ports import free
from patchwave.cli.rest import Airflow, Refused, Unanswered
from tests.cli.fake_airflow import FakeAirflow, serving

LOCKED = (500, {"detail": "database is locked"})


@pytest.fixture
def fake() -> Iterator[FakeAirflow]:
    """An Airflow as the test wants it."""
    with serving() as one:
        yield one


@pytest.fixture
def pauses() -> list[float]:
    """How long the client would have waited."""
    return []


@pytest.fixture
def airflow(fake: FakeAirflow, pauses: list[float]) -> Iterator[Airflow]:
    """The client under test."""
    client = Airflow(fake.address, user="ana", password="x", attempts=4, pause=pauses.append)
    yield client
    client.close()


def test_a_locked_database_is_asked_again(fake: FakeAirflow, airflow: Airflow, pauses: list[float]) -> None:
    """SQLite answers 500 to a write now and then; the next attempt goes well."""
    fake.on("PATCH", "/dags/weekly", LOCKED, LOCKED, (200, {}))
    airflow.pause("weekly", paused=False)
    assert fake.said("PATCH") == [("/api/v2/dags/weekly", {"is_paused": False})] * 3
    assert pauses == [0.5, 1.0]


def test_an_airflow_that_only_stumbles_is_given_up_in_the_end(fake: FakeAirflow, airflow: Airflow) -> None:
    """The message says what it last answered."""
    fake.on("GET", "/dags/weekly", LOCKED)
    with pytest.raises(Unanswered, match=r"4 attempts.*database is locked"):
        airflow.dag("weekly")
    assert len(fake.calls) == 4


def test_an_airflow_that_is_not_there_is_given_up_in_the_end(pauses: list[float]) -> None:
    """A connection refused is no crash of the client."""
    client = Airflow(f"http://127.0.0.1:{free()}", user="ana", password="x", attempts=3, pause=pauses.append)
    with pytest.raises(Unanswered, match="ConnectError"):
        client.dag("weekly")
    assert client.unhealthy() == ("api-server",)
    assert len(pauses) == 2


def test_a_refusal_is_final(fake: FakeAirflow, airflow: Airflow) -> None:
    """Invalid parameters do not become valid by asking again."""
    fake.on("POST", "/dags/weekly/dagRuns", (400, {"detail": "dry_run: not a boolean"}))
    with pytest.raises(Refused, match="dry_run: not a boolean") as refused:
        airflow.trigger("weekly", "r", {"dry_run": "maybe"})
    assert refused.value.status == 400
    assert len(fake.calls) == 1


def test_a_token_that_is_no_longer_good_is_renewed_once(fake: FakeAirflow, airflow: Airflow) -> None:
    """A day passes, or the api-server was started with another secret."""
    fake.on("GET", "/dags/weekly", (200, {"a": 1}), (401, {}), (200, {"a": 2}))
    assert [airflow.dag("weekly"), airflow.dag("weekly")] == [{"a": 1}, {"a": 2}]
    assert [token for *_, token in fake.calls] == ["token-1", "token-1", "token-2"]


def test_a_user_who_is_refused_again_after_signing_in_is_refused(fake: FakeAirflow, airflow: Airflow) -> None:
    """Otherwise a wrong password would be tried for ever."""
    fake.on("GET", "/dags/weekly", (401, {"detail": "no"}))
    with pytest.raises(Refused) as refused:
        airflow.dag("weekly")
    assert refused.value.status == 401
    assert len(fake.calls) == 2


def test_a_run_is_triggered_once_although_the_answer_was_lost(fake: FakeAirflow, airflow: Airflow) -> None:
    """The first attempt made the run and answered 500; the second finds it there."""
    fake.on("POST", "/dags/weekly/dagRuns", LOCKED, (409, {"detail": "exists"}))
    airflow.trigger("weekly", "mine", {"dry_run": False})
    body = {"dag_run_id": "mine", "logical_date": None, "conf": {"dry_run": False}}
    assert fake.said("POST") == [("/api/v2/dags/weekly/dagRuns", body)] * 2


def test_ids_are_quoted_in_paths(fake: FakeAirflow, airflow: Airflow) -> None:
    """A scheduled run's id holds colons and a plus, which a path would take for a space."""
    fake.on("GET", "/dags/weekly/dagRuns/scheduled__2026-01-01T22%3A00%3A00%2B00%3A00", (200, {"state": "running"}))
    assert airflow.run("weekly", "scheduled__2026-01-01T22:00:00+00:00") == {"state": "running"}


def test_health_names_the_parts_that_are_not_healthy(fake: FakeAirflow, airflow: Airflow) -> None:
    """A start that hangs says at what."""
    good = {"status": "healthy"}
    fake.on(
        "GET",
        "/monitor/health",
        (200, {"metadatabase": good, "scheduler": good, "triggerer": {"status": None}, "dag_processor": None}),
        (200, {"metadatabase": good, "scheduler": good, "triggerer": good, "dag_processor": good}),
    )
    assert airflow.unhealthy() == ("triggerer", "dag_processor")
    assert airflow.unhealthy() == ()
