"""The settings under which Airflow runs here."""

from __future__ import annotations

import json
from pathlib import Path

from patchwave.cli.environment import Places, airflow_settings, inherited

PLACES = Places(home=Path("/srv/demo"), runs=Path("/srv/runs"))


def settings() -> dict[str, str]:
    """For port 8123."""
    return airflow_settings(PLACES, port=8123, awsim="http://127.0.0.1:5005")


def test_nothing_of_the_callers_aws_or_airflow_reaches_the_services() -> None:
    """With real credentials in the environment a rehearsal would be one mistake away from real hosts."""
    seen = inherited(
        {
            "AWS_PROFILE": "production",
            "AWS_ENDPOINT_URL_SSM": "https://ssm.eu-central-1.amazonaws.com",
            "AIRFLOW__CORE__DAGS_FOLDER": "/elsewhere",
            "PYTHONPATH": "/elsewhere",
            "PATCHWAVE_REHEARSAL_CLOCK": "0,0,1",
            "HOME": "/home/somebody",
        }
    )
    assert not [name for name in seen if name.startswith(("AWS_", "AIRFLOW", "PATCHWAVE_"))]
    assert seen["HOME"] == "/home/somebody"
    assert seen["PYTHONPATH"].endswith("/include")


def test_a_proxy_is_not_asked_for_our_own_addresses() -> None:
    """Behind a company's proxy, awsim and the execution API would be out of reach."""
    assert inherited({"NO_PROXY": "intranet"})["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_every_address_is_local_and_on_the_chosen_port() -> None:
    """The demo is no service for the network."""
    made = settings()
    assert made["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert made["AIRFLOW__API__PORT"] == "8123"
    assert made["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert made["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8123"


def test_everybody_signs_in_with_a_password() -> None:
    """``all admins`` would make every approval anonymous."""
    made = settings()
    assert made["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == "ana:admin,olga:op,uma:user,vic:viewer"
    assert made["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] == "/srv/demo/passwords.json"
    assert not [name for name in made if "ALL_ADMINS" in name]


def test_the_aws_connection_leads_to_awsim_only() -> None:
    """By connection and by environment, for code that uses either."""
    made = settings()
    connection = json.loads(made["AIRFLOW_CONN_AWS_DEFAULT"])
    assert connection["extra"]["endpoint_url"] == made["AWS_ENDPOINT_URL"] == "http://127.0.0.1:5005"
    assert made["AWS_CONFIG_FILE"] == made["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"
    assert made["AWS_EC2_METADATA_DISABLED"] == "true"


def test_command_line_and_tasks_meet_in_the_same_ledger() -> None:
    """The progress display would otherwise watch an empty one."""
    connection = json.loads(settings()["AIRFLOW_CONN_PATCHWAVE_LEDGER"])
    assert PLACES.ledger_url == f"sqlite:///{connection['host']}"
    assert connection["host"].startswith("/")
