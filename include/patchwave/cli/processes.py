"""How are services started so that, when they are stopped, nothing of them is left?

Airflow's tasks have process groups of their own, ignore SIGTERM when they like, and rewrite their titles and environment.
What they cannot leave is the session of the service that forked them: each service gets one, and whatever still lives in
it, or was once seen below it, or carries the stack's mark, is ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from patchwave.campaign.errors import Permanent
from patchwave.cli import signals
from patchwave.cli.environment import MARK

GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL. Idle services need 0.5 to 3; a scheduler with a running task waits for it without limit."""

_LIBC = ctypes.CDLL(None)


class ServiceEnded(Permanent):
    """A service ended though nobody asked it to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One process that we started.

    Attributes:
        log: what it prints.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.process.poll() is not None

    def last_lines(self, count: int = 15) -> str:
        """The end of its log, indented, to be shown below a message."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(f"    {line}" for line in lines[-count:]) or "    (it printed nothing)"

    def failure(self) -> ServiceEnded:
        """What to raise when it ended on its own."""
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return ServiceEnded(f"{self.name} {how}; the end of {self.log}:\n{self.last_lines()}")


class Services:
    """The processes of one stack, from the first start to the proof that none is left."""

    def __init__(self, *, home: Path) -> None:
        """
        Args:
            home: names the stack: the value of the mark that each process carries.
        """
        self._home = home
        self._record = home / "processes.json"
        self._running: dict[str, Service] = {}
        self._sessions: set[int] = set()
        self._seen: set[psutil.Process] = set()

    def __getitem__(self, name: str) -> Service:
        return self._running[name]

    def __iter__(self) -> Iterator[Service]:
        return iter(tuple(self._running.values()))

    @property
    def started(self) -> bool:
        """Whether anything was ever started."""
        return bool(self._sessions)

    def start(self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Service:
        """Start a service in a session of its own; it prints into `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with signals.held(), log.open("ab") as out:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**environment, MARK: str(self._home)},
                cwd=self._home,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
            service = Service(name=name, process=process, log=log)
            self._running[name] = service
            self._sessions.add(process.pid)
            self._write_record()
        return service

    def check(self) -> None:
        """Nothing, while all services live; also notes what they forked.

        Raises:
            ServiceEnded: one has ended, with the end of its log.
        """
        self._note()
        for service in self:
            if service.ended:
                raise service.failure()

    def forget(self, name: str) -> None:
        """A service that has ended as it should (a database migration) is watched no longer."""
        self._running.pop(name)

    def stop(self, names: Sequence[str] | None = None, *, grace: float = GRACE) -> tuple[psutil.Process, ...]:
        """End services and everything that they forked: SIGTERM, `grace` seconds, SIGKILL.

        Args:
            names: which ones; None means all, and then also what lives in their sessions or carries the stack's mark.

        Returns:
            What is still alive: nothing, unless the kernel itself does not let a process go.
        """
        self._note()
        chosen = [service for service in self if names is None or service.name in names]
        below = {child for service in chosen for child in _descendants(service.process.pid)}
        for service in chosen:
            if not service.ended:
                service.process.terminate()
        _until(lambda: self._all_ended(chosen), seconds=grace)
        for service in chosen:
            self._running.pop(service.name)
        return self._kill(lambda: {one for one in below if _alive(one)} if names is not None else self._left())

    def _kill(self, left: Callable[[], set[psutil.Process]]) -> tuple[psutil.Process, ...]:
        def over() -> bool:
            remaining = left()
            for process in remaining:
                with suppress(psutil.Error):
                    process.kill()
            return not remaining

        _until(over, seconds=10)
        with suppress(OSError):
            if not self._running:
                self._record.unlink(missing_ok=True)
        return tuple(left())

    def clear_leftovers(self) -> int:
        """End what an earlier stack with this home left behind when it was itself killed; how many processes that were."""
        self._sessions |= _recorded_sessions(self._record)
        left = self._left()
        self._kill(self._left)
        self._sessions.clear()
        self._seen.clear()
        return len(left)

    def _all_ended(self, services: Sequence[Service]) -> bool:
        self._note()
        return all(service.ended for service in services)

    def _note(self) -> None:
        for service in self._running.values():
            self._seen.update(_descendants(service.process.pid))

    def _left(self) -> set[psutil.Process]:
        for service in self._running.values():
            service.process.poll()  # reaps it, or it would be seen as a zombie
        mine = {process for process in psutil.process_iter() if self._is_ours(process)}
        return {process for process in mine | self._seen if _alive(process)}

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            if os.getsid(process.pid) in self._sessions:
                return True
            return bool(process.environ().get(MARK) == str(self._home))
        except (psutil.Error, OSError):
            return False

    def _write_record(self) -> None:
        started = {}
        for service in self:
            with suppress(psutil.Error):
                started[str(service.process.pid)] = psutil.Process(service.process.pid).create_time()
        self._record.write_text(json.dumps({"boot": psutil.boot_time(), "sessions": started}), encoding="utf-8")


def _recorded_sessions(record: Path) -> set[int]:
    """Sessions of an earlier stack that may still hold something; a number that another process has since is left out."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        sessions = {int(pid): float(created) for pid, created in known["sessions"].items()}
        rebooted = abs(known["boot"] - psutil.boot_time()) > 5
    except (OSError, ValueError, KeyError, AttributeError):
        return set()
    if rebooted:
        return set()
    return {pid for pid, created in sessions.items() if not psutil.pid_exists(pid) or _created(pid) == created}


def _created(pid: int) -> float | None:
    with suppress(psutil.Error):
        return float(psutil.Process(pid).create_time())
    return None


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _until(over: Callable[[], bool], *, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not over():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _end_with_parent() -> None:
    """Between fork and exec: Linux sends this process SIGTERM when the one that started it dies, however it dies."""
    _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, linux/prctl.h
