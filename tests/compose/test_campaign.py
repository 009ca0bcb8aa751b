"""A whole campaign in containers: Celery, PostgreSQL, Redis, judged by awsim's journal and the ledger in PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from patchwave.campaign.rollout import TERMINAL
from patchwave.cli import compose, ports
from patchwave.cli.compose import Compose
from patchwave.cli.gates import Gates
from patchwave.cli.rest import Unanswered

DAG, RUN = "weekly-linux", "compose"
LONGEST = 1500  # seconds from the trigger to the end; a campaign needs a fifth of it

LEDGER = """
import json
from patchwave.hooks.ledger import ledger
book = ledger()
run = "weekly-linux/compose"
print("LEDGER " + json.dumps({
    "dialect": str(book._engine.dialect.name) if hasattr(book, "_engine") else "",
    "outcome": book.run(run).outcome.value,
    "planned": [host["id"] for stage in book.document(run, "plan")["stages"] for host in stage["hosts"]],
    "hosts": [[row.stage, row.host, row.state.value] for row in book.hosts(run)],
    "decisions": [[one.stage, one.verdict.value, one.author] for one in book.decisions(run)],
    "documents": sorted(book.documents(run)),
}))
"""

pytestmark = [pytest.mark.compose, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Everything up; afterwards everything down again, the volumes too."""
    env_file = tmp_path_factory.mktemp("compose") / "env"
    compose.ensure_env(env_file)
    project = Compose(
        env_file=env_file,
        project="patchwave-test",
        environment={
            "PORT": str(ports.free()),
            "AWSIM_PORT": str(ports.free()),
            "AWSIM_SPEED": "240",
            "COMPOSE_PROFILES": "awsim",
        },
        tell=print,
    )
    try:
        project.up()
        yield project
    except BaseException:
        project.call("logs", "--tail", "60", check=False)
        raise
    finally:
        project.down(volumes=True)


@pytest.fixture(scope="module")
def state(containers: Compose) -> str:
    """How the campaign's run ended; its gates are answered by olga."""
    airflow = containers.as_user("ana")
    end = time.monotonic() + 180
    while airflow.dag(DAG) is None:
        assert time.monotonic() < end, airflow.import_errors()
        time.sleep(2)
    airflow.pause(DAG, paused=False)
    airflow.trigger(DAG, RUN, {"dry_run": False})
    gates = Gates(dag=DAG, run=RUN, users={"olga": containers.as_user("olga")})
    end = time.monotonic() + LONGEST
    while True:
        try:
            now = str(airflow.run(DAG, RUN)["state"])
            if now in ("success", "failed"):
                return now
            for gate in gates.waiting():
                if gates.settled(gate):
                    gates.answer(gate, approve=True)
        except Unanswered as silence:
            print(silence)
        tasks = {task["task_id"]: task["state"] for task in airflow.tasks(DAG, RUN)}
        assert time.monotonic() < end, tasks
        time.sleep(2)


@pytest.fixture(scope="module")
def book(containers: Compose, state: str) -> dict[str, Any]:
    """What the ledger says, asked where the tasks ask it."""
    said = containers.call("exec", "-T", "worker", "python", "-c", LEDGER, quiet=True)
    (line,) = [line for line in said.splitlines() if line.startswith("LEDGER ")]
    return dict(json.loads(line.removeprefix("LEDGER ")))


@pytest.fixture(scope="module")
def journal(containers: Compose, state: str) -> list[dict[str, Any]]:
    """What really happened to the hosts."""
    return [json.loads(line) for line in containers.awsim.journal().splitlines()]


def test_the_campaign_succeeds(state: str, book: dict[str, Any]) -> None:
    """Airflow's word and the ledger's."""
    assert (state, book["outcome"]) == ("success", "succeeded")


def test_every_planned_host_is_in_exactly_one_class(book: dict[str, Any]) -> None:
    """None is lost, none is counted twice, none is left on its way."""
    hosts = [host for _, host, _ in book["hosts"]]
    assert len(hosts) == len(set(hosts))
    assert set(book["planned"]) <= set(hosts)
    assert {state for *_, state in book["hosts"]} <= {one.value for one in TERMINAL}


def test_never_more_than_five_prod_hosts_are_away(journal: list[dict[str, Any]]) -> None:
    """Ten percent of fifty, by the world's own record."""
    assert 1 <= most_away(journal, group="linux-prod") <= 5


def test_only_planned_hosts_were_touched(book: dict[str, Any], journal: list[dict[str, Any]]) -> None:
    """An Install on any other host is one that nobody approved."""
    touched = {one["host"] for one in journal if one["event"] == "command_begun" and one.get("operation") == "Install"}
    assert touched
    assert touched <= set(book["planned"])


def test_the_approvals_stand_in_the_ledger(book: dict[str, Any]) -> None:
    """Staging and prod were opened by olga, through Celery workers and PostgreSQL as in the demo."""
    assert book["decisions"] == [["staging", "approved", "olga"], ["prod", "approved", "olga"]]


def test_the_ledger_is_in_postgresql(containers: Compose, state: str) -> None:
    """Asked as its own user, who cannot connect to Airflow's database."""
    query = "select count(*) from pg_tables where schemaname = 'public'"
    counted = containers.call(
        "exec", "-T", "postgres", "psql", "-tA", "-U", "airflow", "-d", "patchwave_ledger", "-c", query, quiet=True
    )
    assert int(counted) > 5
    allowed = "select has_database_privilege('patchwave', 'airflow', 'CONNECT')"
    assert containers.call(
        "exec", "-T", "postgres", "psql", "-tA", "-U", "airflow", "-d", "airflow", "-c", allowed, quiet=True
    ).strip() == "f"  # fmt: skip


def test_the_report_lies_in_the_runs_volume(containers: Compose, state: str, tmp_path: Path) -> None:
    """All of it, where whoever keeps evidence can fetch it."""
    found = containers.call("exec", "-T", "worker", "ls", f"/opt/airflow/runs/{DAG}--{RUN}", quiet=True).split()
    assert {"plan.md", "report.html", "report.json", "hosts.csv"} <= set(found)


def most_away(journal: list[dict[str, Any]], *, group: str) -> int:
    """Most hosts of a patch group that were away at once: from the first Install until it and every reboot have ended."""
    away: dict[str, list[datetime]] = {}
    for one in journal:
        if group not in (one["tags"].get("PatchGroup"), one["tags"].get("Patch Group")):
            continue
        at = datetime.fromisoformat(one["at"])
        begins = one["event"] == "command_begun" and one.get("operation") == "Install"
        if begins and one["host"] not in away:
            away[one["host"]] = [at, at]
        elif one["host"] in away and (one["event"] == "reboot_ended" or one.get("operation") == "Install"):
            away[one["host"]][1] = at
    edges = sorted([(begin, 1) for begin, _ in away.values()] + [(end, -1) for _, end in away.values()])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most
