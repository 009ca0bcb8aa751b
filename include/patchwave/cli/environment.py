"""With which settings does Airflow run on one machine? A pure function, so that a test can read the answer.

The reasons for the numbers are measurements of Airflow 3.3.2 on two cores; the defaults are made for clusters.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchwave.cli import passwords
from patchwave.cli.ports import HOST

MARK = "PATCHWAVE_STACK"
"""Every process that a stack starts carries this variable; its value is the stack's home."""

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where everything lies.

    Attributes:
        home: AIRFLOW_HOME; kept between starts.
        runs: the reports' folders are made below it.
        campaigns: the campaign files.
        policies: the policies that they name.
    """

    home: Path
    runs: Path = REPOSITORY / "var" / "runs"
    dags: Path = REPOSITORY / "dags"
    plugins: Path = REPOSITORY / "plugins"
    campaigns: Path = REPOSITORY / "include" / "campaigns"
    policies: Path = REPOSITORY / "include" / "policies"

    @property
    def logs(self) -> Path:
        """What the processes print."""
        return self.home / "logs"

    @property
    def passwords(self) -> Path:
        """Login names and passwords."""
        return self.home / "passwords.json"

    @property
    def ledger(self) -> Path:
        """The ledger's SQLite file."""
        return self.home / "ledger.db"

    @property
    def ledger_url(self) -> str:
        """For `patchwave.ledger.connect.ledger_at`."""
        return f"sqlite:///{self.ledger}"


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What a service may see of the caller's own environment.

    Settings of another Airflow would mix with ours, and AWS credentials must be out of reach: a rehearsal never touches AWS.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("AIRFLOW", "_AIRFLOW", "AWS_", "PATCHWAVE_", "PYTHON"))
    }
    local = ",".join(filter(None, (environ.get("NO_PROXY") or environ.get("no_proxy"), HOST, "localhost")))
    return kept | {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), environ.get("PATH", os.defpath))),
        "PYTHONPATH": str(REPOSITORY / "include"),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": local,
        "no_proxy": local,
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS: Airflow forks
    }


def airflow_settings(places: Places, *, port: int, awsim: str) -> dict[str, str]:
    """Everything that the four Airflow processes are told.

    Args:
        awsim: address of the simulated AWS, the only AWS that they know.
    """
    address = f"http://{HOST}:{port}"
    return {
        "AIRFLOW_HOME": str(places.home),
        MARK: str(places.home),
        **_core(places, address),
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(places.logs / "tasks"),
        # A supervisor lingers up to this long after its task; a trigger or an answer within it can fail a healthy task.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # Tasks outlive an outage of the api-server of a minute.
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "60",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "30",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "150",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # Without a worker for half an hour Airflow would fail a queued task for good, whatever its retries.
        "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "1000",
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        # Below 30 a live scheduler on a busy machine was taken for dead, and its tasks with it.
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        **_aws(awsim),
        "AIRFLOW_CONN_PATCHWAVE_LEDGER": json.dumps({"conn_type": "sqlite", "host": str(places.ledger)}),
        "PATCHWAVE_RUNS_DIR": str(places.runs),
        "PATCHWAVE_CAMPAIGNS": str(places.campaigns),
        "PATCHWAVE_POLICIES": str(places.policies),
    }


def _core(places: Places, address: str) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",  # LocalExecutor forks that many processes at once
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(places.dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(places.plugins),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in passwords.USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(places.passwords),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{places.home / 'airflow.db'}",
    }


def _aws(awsim: str) -> dict[str, str]:
    region = "eu-central-1"
    connection = {
        "conn_type": "aws",
        "login": "awsim",
        "password": "awsim",
        # awsim's worlds have that bucket unless they say otherwise.
        "extra": {"region_name": region, "endpoint_url": awsim, "patchwave_lists_bucket": "patch-lists"},
    }
    return {
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AWS_ENDPOINT_URL": awsim,
        "AWS_ACCESS_KEY_ID": "awsim",
        "AWS_SECRET_ACCESS_KEY": "awsim",
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
