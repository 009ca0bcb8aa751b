"""Laws of the plugin folder: one file, which wires and nothing else, and Airflow loads it without a word."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from patchwave.dashboard import access
from tests.plugin.conftest import REPOSITORY

PLUGINS = REPOSITORY / "plugins"

ASK = """
import json
from airflow import plugins_manager
plugins, errors = plugins_manager._get_plugins()
mine = [one for one in plugins if one.name == "patchwave"]
print("ANSWER", json.dumps({
    "errors": errors,
    "count": len(mine),
    "apps": [{"prefix": one["url_prefix"], "docs": one["app"].docs_url} for one in mine[0].fastapi_apps],
    "views": mine[0].external_views,
    "timetables": [one.__name__ for one in mine[0].timetables],
}))
"""


def answer_of_airflow(tmp_path: Path, **more: str) -> dict[str, object]:
    """What Airflow finds in the folder, asked in a process of its own."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "PYTHONPATH": str(REPOSITORY / "include"),
        **more,
    }
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=300, check=False)
    found = re.search(r"^ANSWER (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return json.loads(found[1])


def test_the_folder_holds_exactly_one_python_file():
    """Airflow runs every .py below plugins/ under its bare name: a helper there replaces a module of the same name."""
    assert [file.name for file in PLUGINS.rglob("*.py")] == ["patchwave_plugin.py"]


def test_whatever_else_lands_there_is_ignored():
    """The last line of defence against the above."""
    assert (PLUGINS / ".airflowignore").read_text().split() == ["*.py", "!patchwave_plugin.py"]


def test_the_file_imports_nothing_of_the_ledger_when_it_is_loaded():
    """It is loaded in every process; tasks that are forked would keep old code, and most processes serve no page."""
    tree = ast.parse((PLUGINS / "patchwave_plugin.py").read_text())
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    ours = {name for name in imported if name and name.startswith("patchwave")}
    assert ours == {"patchwave.dashboard.app", "patchwave.listeners"}
    ask = (
        "import sys, patchwave.dashboard.app; print([n for n in sys.modules if n.startswith(('sqlalchemy', 'airflow', 'boto'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], env={**os.environ, "PYTHONPATH": str(REPOSITORY / "include")}, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_airflow_loads_it_and_finds_pages_and_tabs(tmp_path):
    """A tab of run and of task, so that it is there while a task runs, and an entry in the bar with its slash."""
    answer = answer_of_airflow(tmp_path)
    assert answer["errors"] == {}
    assert answer["count"] == 1
    assert answer["apps"] == [{"prefix": "/patchwave", "docs": None}]
    views = {view["destination"]: view for view in answer["views"]}
    assert set(views) == {"nav", "dag_run", "task_instance"}
    assert views["nav"]["href"] == "/patchwave/"
    assert views["dag_run"]["href"] == "/patchwave/runs/{DAG_ID}/{RUN_ID}"
    assert views["task_instance"]["href"] == "/patchwave/runs/{DAG_ID}/{RUN_ID}?task={TASK_ID}"
    assert len({view["url_route"] for view in answer["views"]}) == 3
    if (REPOSITORY / "include/patchwave/timetables/campaign.py").exists():
        assert answer["timetables"] == ["CampaignTimetable", "WeeklyTimetable", "PatchTuesdayTimetable"]


def test_an_airflow_below_a_path_gets_addresses_below_it(tmp_path):
    """The UI takes a view's address as it is."""
    answer = answer_of_airflow(tmp_path, AIRFLOW__API__BASE_URL="https://host.example/airflow/")
    assert {view["href"].split("/patchwave")[0] for view in answer["views"]} == {"/airflow"}


class Manager:
    """Airflow's auth manager, as far as it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []

    def is_authorized_dag(self, **asked: object) -> bool:
        self.asked.append(asked)
        return asked["details"].id == "mine"


def test_airflow_s_own_auth_manager_decides_who_reads(monkeypatch):
    """GET on the runs of exactly that DAG, for exactly that user; nothing is decided here."""
    from airflow.api_fastapi import app
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

    manager = Manager()
    monkeypatch.setattr(app, "get_auth_manager", lambda: manager)
    may_read = access.permissions("vic")
    assert may_read("mine")
    assert not may_read("theirs")
    assert [one["details"].id for one in manager.asked] == ["mine", "theirs"]
    for one in manager.asked:
        assert (one["method"], one["access_entity"], one["user"]) == ("GET", DagAccessEntity.RUN, "vic")


@pytest.mark.parametrize("credential", [{"Authorization": "Bearer nonsense"}, {"Cookie": "_token=nonsense"}])
def test_bearer_and_cookie_both_reach_airflow_s_check(monkeypatch, credential):
    """The browser's cookie and a program's token are read by Airflow's own code."""
    from airflow.api_fastapi.core_api import security
    from fastapi import HTTPException
    from fastapi.testclient import TestClient

    from patchwave.dashboard.app import create_app

    seen: list[str | None] = []

    async def resolve(token: str | None) -> None:
        seen.append(token)
        raise HTTPException(403, "Invalid JWT token")

    monkeypatch.setattr(security, "resolve_user_from_token", resolve)
    assert TestClient(create_app()).get("/", headers=credential).status_code == 403
    assert seen == ["nonsense"]
