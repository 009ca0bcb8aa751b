"""Which processes of a running Airflow are there to be killed, and how does each come back?

SIGKILL only: nothing that is killed here has a chance to say so. A service is started again after a moment, as systemd or
docker would; tasks and their supervisors come back by Airflow's own means.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from random import Random

import psutil  # type: ignore[import-untyped]

from patchwave.cli.stack import Stack

SERVICES = ("triggerer", "scheduler", "api-server")
WORKERS = ("task", "supervisor")
PATIENCE = 20.0
"""Seconds in which a task has to come along to be killed."""


class Killer:
    """Kills processes of one stack."""

    def __init__(self, stack: Stack, random: Random) -> None:
        self._stack = stack
        self._random = random

    def kill(self, target: str) -> str:
        """Kill one process, and start it again if nobody else does.

        Returns:
            What was killed; empty if there was nothing of the kind.
        """
        if target in WORKERS:
            return self._kill_worker(target)
        service = self._stack.services[target]
        below = psutil.Process(service.process.pid).children(recursive=target != "scheduler")
        service.process.kill()
        service.process.wait()
        if target == "api-server":
            _end(below)  # what serves its requests; workers and triggers of the others see to their own end
        time.sleep(self._random.uniform(0.5, 3.0))
        self._stack.start_service(target)
        if target == "scheduler":
            threading.Thread(target=_end_when_idle, args=(below,), daemon=True).start()
        return f"{target} {service.process.pid}"

    def _kill_worker(self, target: str) -> str:
        moment = self._random.uniform(0.0, 2.5)  # into the life of a task: it begins to act after about one second
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for process in self.tasks():
                with suppress(psutil.Error):
                    age = time.time() - process.create_time()
                    victim = process.parent() if target == "supervisor" else process
                    if age < moment or victim is None:
                        continue
                    name = process.name() if target == "task" else f"supervisor of {process.pid}"
                    victim.send_signal(signal.SIGKILL)
                    return f"{target} {victim.pid} ({name}, {age:.1f} s old)"
            time.sleep(0.05)
        return ""

    def tasks(self) -> list[psutil.Process]:
        """The processes in which tasks run: below a worker of LocalExecutor, which is their supervisor."""
        with suppress(psutil.Error):
            scheduler = psutil.Process(self._stack.services["scheduler"].process.pid)
            below = [task for worker in scheduler.children() for task in worker.children()]
            return [task for task in below if task.status() != psutil.STATUS_ZOMBIE]
        return []


def _end_when_idle(workers: list[psutil.Process]) -> None:
    """A killed scheduler leaves its workers for ever, where systemd and docker would end them: let them end their tasks.

    They hold the connection that the scheduler had forked them with, and PostgreSQL the locks of its last transaction with
    it: as long as one of them lives, the next scheduler may not get to queue a single task.
    """
    left = list(workers)
    while left:
        for worker in list(left):
            try:
                if worker.is_running() and worker.children():
                    continue
                worker.kill()
            except psutil.Error:
                pass
            left.remove(worker)
        time.sleep(0.5)


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
