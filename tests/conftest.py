"""Airflow's settings have to stand before its first import, whoever imports it first: an empty home of our own, our plugin
(without it the campaigns' timetable cannot be serialised), never the user's.

Processes that a test starts get an environment of their own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

if "airflow" in sys.modules:
    raise RuntimeError("airflow was imported before tests/conftest.py could set its home")
_home = tempfile.mkdtemp(prefix="patchwave-airflow-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "PATCHWAVE_"))]:
    if not _name.startswith("PATCHWAVE_TEST"):
        del os.environ[_name]
os.environ.update(
    {
        "AIRFLOW_HOME": _home,
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
    }
)


# `nohup`, and a shell's `&`, have us ignore what our tests and their processes are asked to stop by.
for _number, _usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# A machine that stalls for a moment breaks no law, and what is found once is found again.
settings.register_profile("patchwave", deadline=None, derandomize=True)
settings.load_profile("patchwave")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Journeys come last: their Airflow runs to the end of the session, and would slow down whatever followed."""
    items.sort(key=lambda item: item.get_closest_marker("journey") is not None)
