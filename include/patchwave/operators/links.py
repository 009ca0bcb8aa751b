"""Where can one look further? Links from a task to the run's ledger page and to the AWS console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.models.taskinstancekey import TaskInstanceKey


class RunPageLink(BaseOperatorLink):
    """The run's page in the ledger; Airflow stores links when a task ends, so a running one has the tab instead."""

    name = "Patchwave run"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """The page's path, with the run id quoted."""
        below = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")  # Airflow may sit below a path
        return f"{below}/patchwave/runs/{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}"


class RunCommandConsoleLink(BaseOperatorLink):
    """The stage's last command in the AWS console."""

    name = "AWS console: Run Command"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """The URL that the operator left in XCom; empty if it sent nothing."""
        from airflow.sdk.execution_time.xcom import XCom

        value = XCom.get_one(
            key="console_url", task_id=ti_key.task_id, dag_id=ti_key.dag_id, run_id=ti_key.run_id, map_index=ti_key.map_index
        )
        return str(value or "")
