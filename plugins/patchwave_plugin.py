"""What does Patchwave register with Airflow? Pages, timetables, listener; this is the only Python file below ``plugins/``.

Airflow runs every file here in every process, under its bare name: code lives in ``include/patchwave``, which also has to be
on the PYTHONPATH of every process. The pages import the rest of it when a request comes.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from patchwave.dashboard.app import create_app
from patchwave.listeners import ended_by_hand

PREFIX = "/patchwave"
# Airflow below a path (https://host/airflow): the UI does not add it to a view's address.
ROOT = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX
RUN_PAGE = ROOT + "/runs/{DAG_ID}/{RUN_ID}"


def timetables() -> list[Any]:
    """The timetables by which campaigns start; without them their DAGs cannot be serialised."""
    if find_spec("patchwave.timetables") is None or find_spec("patchwave.timetables.campaign") is None:
        return []
    from patchwave.timetables.campaign import TIMETABLES

    return list(TIMETABLES)


class PatchwavePlugin(AirflowPlugin):
    """The ledger's pages: an entry in the bar, a tab of each run, and one of each task, which is there while it runs."""

    name = "patchwave"
    fastapi_apps: ClassVar[list[Any]] = [{"app": create_app(), "url_prefix": PREFIX, "name": "Patchwave"}]
    external_views: ClassVar[list[Any]] = [
        # With the slash: without it Airflow's own UI answers.
        {"name": "Patchwave", "href": ROOT + "/", "destination": "nav", "url_route": "patchwave", "nav_top_level": True},
        {"name": "Patchwave", "href": RUN_PAGE, "destination": "dag_run", "url_route": "patchwave_run"},
        {
            "name": "Patchwave",
            "href": RUN_PAGE + "?task={TASK_ID}",
            "destination": "task_instance",
            "url_route": "patchwave_task",
        },
    ]
    timetables: ClassVar[list[Any]] = timetables()
    listeners: ClassVar[list[Any]] = [ended_by_hand]
