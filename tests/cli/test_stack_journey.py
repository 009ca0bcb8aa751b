"""A real Airflow and a real awsim, started and stopped: nothing is left, whatever was going on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from patchwave.cli import ports
from patchwave.cli.environment import MARK, REPOSITORY, Places
from patchwave.cli.stack import Stack

STUBBORN = '''
from airflow.sdk import dag, task


@dag(dag_id="stubborn", schedule=None)
def stubborn():
    @task
    def ignore():
        import os, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        hidden = subprocess.Popen(["sleep", "300"], start_new_session=True)
        with open(os.path.join(os.environ["AIRFLOW_HOME"], "pids"), "w") as out:
            out.write(f"{os.getpid()} {hidden.pid}\\n")
        time.sleep(300)

    ignore()


stubborn()
'''

pytestmark = pytest.mark.journey


def marked(home: Path) -> list[int]:
    """Processes that carry the stack's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def eventually(true: Callable[[], bool], *, seconds: float) -> None:
    """Wait for something that happens in other processes."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


def test_a_task_in_the_middle_of_its_work_is_ended_with_the_stack(tmp_path: Path) -> None:
    """It ignores SIGTERM, has a process group of its own and a child in another session; its run ends failed."""
    places = Places(home=tmp_path / "home", dags=tmp_path / "dags", plugins=tmp_path / "plugins", runs=tmp_path / "runs")
    places.dags.mkdir()
    places.plugins.mkdir()
    (places.dags / "stubborn.py").write_text(STUBBORN)
    written = places.home / "pids"
    with Stack(places=places, port=0, awsim_port=0) as stack:
        eventually(lambda: stack.airflow.dag("stubborn") is not None, seconds=60)
        stack.airflow.pause("stubborn", paused=False)
        stack.airflow.trigger("stubborn", "first", {})
        eventually(lambda: written.exists() and written.read_text().endswith("\n"), seconds=60)
        pids = [int(pid) for pid in written.read_text().split()]
        assert all(map(psutil.pid_exists, pids))
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert marked(places.home) == []


def test_ctrl_c_while_everything_starts_leaves_nothing(tmp_path: Path) -> None:
    """Twice, as impatient people press it."""
    home = tmp_path / "home"
    command = [sys.executable, "-m", "patchwave", "demo", "--home", str(home), "--runs", str(tmp_path / "runs")]
    demo = subprocess.Popen(
        [*command, "--port", str(ports.free()), "--awsim-port", str(ports.free())],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "include")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        eventually(lambda: len(marked(home)) >= 2, seconds=60)  # awsim, and Airflow's migration or more
        demo.send_signal(signal.SIGINT)
        time.sleep(0.1)
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 130, said
    assert "all processes have ended" in said
    assert marked(home) == []
