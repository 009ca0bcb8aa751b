"""docker-compose.yaml says what it should, to both of the programs that read it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from patchwave.cli import compose
from patchwave.cli.environment import REPOSITORY

FILE = REPOSITORY / "docker-compose.yaml"
OURS = ("init", "api-server", "scheduler", "dag-processor", "triggerer", "worker")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services with their anchors merged."""
    return dict(yaml.safe_load(FILE.read_text())["services"])


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    """An environment file as `make up` makes it."""
    file = tmp_path / "env"
    compose.ensure_env(file)
    return file


def test_compose_itself_accepts_the_file(env_file: Path) -> None:
    """Whichever of the two programs is installed."""
    try:
        command = compose.command()
    except compose.NoCompose as missing:
        pytest.skip(str(missing))
    done = subprocess.run(
        [*command, "--env-file", str(env_file), "--profile", "awsim", "config"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {"postgres", "redis", "awsim", *OURS}


def test_without_secrets_nothing_starts(tmp_path: Path) -> None:
    """An empty password would be everybody's; compose says what to do instead."""
    try:
        command = compose.command()
    except compose.NoCompose as missing:
        pytest.skip(str(missing))
    empty = tmp_path / "env"
    empty.touch()
    done = subprocess.run(
        [*command, "--env-file", str(empty), "config"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "make up" in done.stderr


def test_both_generations_of_compose_can_read_it() -> None:
    """1.29 refuses a top-level name; v2 warns of a version."""
    assert not {"name", "version"} & set(yaml.safe_load(FILE.read_text()))


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    """Databases and brokers not at all."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"api-server", "awsim"}
    assert all(port.startswith("127.0.0.1:") for found in published.values() for port in found)


def test_every_service_has_a_health_check(services: dict[str, Any]) -> None:
    """Or nobody could wait for it."""
    assert [name for name, service in services.items() if not service.get("healthcheck", {}).get("test")] == []


def test_awsim_is_there_on_demand_only(services: dict[str, Any]) -> None:
    """A deployment against the real AWS does without it."""
    assert {name for name, service in services.items() if "profiles" in service} == {"awsim"}


def test_all_of_airflow_agrees_on_its_secrets(services: dict[str, Any]) -> None:
    """With different ones, tasks could not speak to the api-server, and log servers would refuse."""
    for name in ("FERNET_KEY", "API_SECRET_KEY", "JWT_SECRET", "LEDGER_PASSWORD"):
        using = {one for one, service in services.items() if f"${{{name}:" in str(service.get("environment"))}
        assert using == set(OURS)
    addresses = {services[one]["environment"]["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] for one in OURS}
    assert addresses == {"http://api-server:8080/execution/"}


def test_the_ledger_has_a_database_of_its_own(services: dict[str, Any]) -> None:
    """Airflow's migrations and ours never meet, and the ledger's user cannot read Airflow's connections."""
    (address,) = {services[one]["environment"]["AIRFLOW_CONN_PATCHWAVE_LEDGER"] for one in OURS}
    assert address.startswith("postgres://patchwave:")
    assert address.endswith("@postgres:5432/patchwave_ledger")


def test_no_secret_stands_in_the_repository() -> None:
    """The example has empty ones, and the file that has them is ignored by git and by docker."""
    names = compose.secrets_of(compose.EXAMPLE)
    assert {"POSTGRES_PASSWORD", "LEDGER_PASSWORD", "REDIS_PASSWORD", "FERNET_KEY", "API_SECRET_KEY", "JWT_SECRET"} < set(names)
    assert ".env" in (REPOSITORY / ".gitignore").read_text().splitlines()
    assert (REPOSITORY / ".dockerignore").read_text().splitlines()[1] == "*"


def test_secrets_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    """A second `make up` must not lock people, or the databases, out."""
    file = tmp_path / "env"
    made = compose.ensure_env(file)
    first = file.read_text()
    assert set(made) == set(compose.secrets_of(compose.EXAMPLE))
    assert all(compose.variables(file)[name] for name in made)
    assert file.stat().st_mode & 0o777 == 0o600
    assert compose.ensure_env(file) == ()
    assert file.read_text() == first


def test_what_somebody_wrote_into_the_file_stays(tmp_path: Path) -> None:
    """Settings, comments, and lines deleted on purpose; only secrets that are missing are added."""
    file = tmp_path / "env"
    file.write_text("# ours\nPORT=9999\nPOSTGRES_PASSWORD=kept\nREDIS_PASSWORD= \n")
    made = compose.ensure_env(file, make=lambda name: f"new-{name}")
    known = compose.variables(file)
    assert file.read_text().startswith("# ours\nPORT=9999\nPOSTGRES_PASSWORD=kept\nREDIS_PASSWORD=new-REDIS_PASSWORD\n")
    assert known["JWT_SECRET"] == "new-JWT_SECRET"
    assert "POSTGRES_PASSWORD" not in made
    assert "AWS_ENDPOINT_URL" not in known
    assert file.read_text().count("REDIS_PASSWORD=") == 1


def test_the_fernet_key_is_one() -> None:
    """Airflow does not start with anything else."""
    from cryptography.fernet import Fernet

    Fernet(compose.secret("FERNET_KEY").encode())
