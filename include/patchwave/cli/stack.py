"""How do awsim and Airflow start on this machine, and how is nothing of them left afterwards?

`patchwave.cli.demo` and the journey tests use the same `Stack`: one home, five processes, everything on 127.0.0.1.
What a campaign does in it is not asked here.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from patchwave.campaign.errors import Permanent
from patchwave.cli import passwords, ports, signals
from patchwave.cli.environment import REPOSITORY, Places, airflow_settings, inherited
from patchwave.cli.processes import Service, ServiceEnded, Services
from patchwave.cli.rest import Airflow, Refused, Unanswered
from patchwave.cli.simulator import Awsim, RehearsalClock

SMALL_WORLD = REPOSITORY / "include" / "worlds" / "small.yaml"

AIRFLOW: Mapping[str, Sequence[str]] = {
    "api-server": ("api-server",),
    # The log servers listen on all interfaces; on one machine the api-server reads logs from disk.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
"""Airflow's four processes, by name, with their arguments."""


class NotReady(Permanent):
    """A service did not become healthy in time."""


class HomeInUse(Permanent):
    """Another stack runs in this home."""


class ProcessesLeft(Permanent):
    """Processes could not be ended."""


class Stack:
    """awsim and Airflow together::

        with Stack(places=Places(home=tmp_path / "home", runs=tmp_path / "runs"), port=0, awsim_port=0) as stack:
            stack.airflow.trigger("weekly-linux", "first", {"dry_run": True})

    Attributes:
        places: where everything lies.
        airflow: Airflow's REST API as ana (admin).
        awsim: awsim's control routes.
        clock: how the campaign's time runs.
        services: the processes, by name: ``awsim`` and those of `AIRFLOW`.
    """

    airflow: Airflow
    awsim: Awsim
    clock: RehearsalClock
    services: Services

    def __init__(
        self,
        *,
        places: Places,
        port: int = 8080,
        awsim_port: int = 5005,
        world: Path = SMALL_WORLD,
        speed: float = 240.0,
        seed: int = 1,
        base: datetime | None = None,
        environment: Mapping[str, str] | None = None,
        patience: float = 180.0,
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """
        Args:
            port: of Airflow's UI and API; 0 takes a free one.
            awsim_port: of the simulated AWS; 0 takes a free one.
            world: fleet file for awsim.
            speed: virtual seconds per second.
            seed: the same seed makes the same world.
            base: awsim's time when it starts; None: now.
            environment: further variables for every process; they win over ours.
            patience: seconds that a start may take until it counts as failed.
            tell: gets one line for each thing that takes time.
        """
        self.places = places
        self.port = port or ports.free()
        self.awsim_port = awsim_port or ports.free()
        self._world = world
        self._speed = speed
        self._seed = seed
        self._base = base
        self._extra = dict(environment or {})
        self._patience = patience
        self._tell = tell
        self._lock: IO[str] | None = None
        self._began = False
        self.environment: Mapping[str, str] = {}
        """What the Airflow processes were started with; known once awsim's clock is."""

    @property
    def address(self) -> str:
        """Of Airflow's UI."""
        return f"http://{ports.HOST}:{self.port}"

    @property
    def ledger_url(self) -> str:
        """For `patchwave.ledger.connect.ledger_at`."""
        return self.places.ledger_url

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # start --------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start everything and wait until it is healthy.

        Raises:
            PortBusy: before anything was started.
            HomeInUse: before anything was started.
            ServiceEnded: a process ended, with its last lines.
            NotReady: a process did not become healthy.
        """
        if not self._world.is_file():
            raise NotReady(f"there is no world file {self._world}")
        self.places.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.places.home.chmod(0o700)  # Airflow's keys and our passwords lie there
        self._take_home()
        self.services = Services(home=self.places.home)
        self._began = True
        left = self.services.clear_leftovers()
        if left:
            self._tell(f"ended {left} processes that an earlier, killed start had left behind")
        ports.check({"Airflow": (self.port, "PORT"), "awsim": (self.awsim_port, "AWSIM_PORT")})
        self.places.logs.mkdir(exist_ok=True)
        for log in self.places.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.before"))
        secrets = passwords.ensure(self.places.passwords)
        self.airflow = Airflow(self.address, user="ana", password=secrets["ana"])
        self.awsim = Awsim(f"http://{ports.HOST}:{self.awsim_port}")
        self._start_awsim_and_migrate()
        for name in AIRFLOW:
            self.start_service(name)
        self._wait(lambda: not self.airflow.unhealthy(), lambda: ", ".join(self.airflow.unhealthy()))

    def _take_home(self) -> None:
        self._lock = (self.places.home / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise HomeInUse(f"another start of Patchwave runs in {self.places.home}; stop it first (Ctrl-C there)") from None

    def _start_awsim_and_migrate(self) -> None:
        base = inherited(os.environ)
        self._tell("starting awsim, the simulated AWS")
        self.services.start(
            "awsim",
            [
                sys.executable, "-m", "awsim", "--world", str(self._world), "--port", str(self.awsim_port),
                "--speed", f"{self._speed:g}", "--seed", str(self._seed),
                *(["--base", self._base.isoformat()] if self._base is not None else []),
            ],
            environment={**base, **self._extra},
            log=self.places.logs / "awsim.log",
        )  # fmt: skip
        settings = airflow_settings(self.places, port=self.port, awsim=self.awsim.address)
        migration = self._migrate({**base, **settings, **self._extra})
        self._wait(self.awsim.healthy, lambda: "awsim")
        self.clock = self.awsim.clock()
        clock = {"PATCHWAVE_REHEARSAL_CLOCK": self.clock.setting}
        self.environment = {**base, **settings, **clock, **self._extra}
        if migration is not None:
            self._finish(migration)

    def _migrate(self, environment: Mapping[str, str]) -> Service | None:
        if self._migrated.exists() and (self.places.home / "airflow.db").exists():
            return None
        self._tell("making Airflow's database")
        return self.services.start(
            "airflow db migrate",
            [sys.executable, "-m", "airflow", "db", "migrate"],
            environment=environment,
            log=self.places.logs / "db-migrate.log",
        )

    def _finish(self, migration: Service) -> None:
        end = time.monotonic() + self._patience
        while not migration.ended:
            if time.monotonic() > end:
                raise self._late("airflow db migrate", (migration,))
            time.sleep(0.1)
        self.services.forget(migration.name)
        if migration.process.returncode != 0:
            raise migration.failure()
        self._migrated.touch()

    @property
    def _migrated(self) -> Path:
        return self.places.home / f"migrated-{metadata.version('apache-airflow')}"

    def start_service(self, name: str) -> Service:
        """Start one of Airflow's processes (again); does not wait for its health."""
        self._tell(f"starting Airflow's {name}")
        return self.services.start(
            name,
            [sys.executable, "-m", "airflow", *AIRFLOW[name]],
            environment=self.environment,
            log=self.places.logs / f"{name}.log",
        )

    def _wait(self, over: Callable[[], bool], missing: Callable[[], str]) -> None:
        """Until `over`, while all services live."""
        began = time.monotonic()
        told = began
        while not over():
            self._check()
            now = time.monotonic()
            if now - began > self._patience:
                raise self._late(missing(), tuple(self.services))
            if now - told > 15:
                told = now
                self._tell(f"still waiting for: {missing()} ({now - began:.0f} s)")
            time.sleep(0.3)

    def _check(self) -> None:
        try:
            self.services.check()
        except ServiceEnded:
            with suppress(KeyError):
                migration = self.services["airflow db migrate"]
                if migration.ended and migration.process.returncode == 0:
                    return  # it ends by itself, and `_finish` looks at it
            raise

    def _late(self, missing: str, services: Sequence[Service]) -> NotReady:
        ends = "\n".join(f"  the end of {service.log}:\n{service.last_lines(8)}" for service in services)
        return NotReady(f"not healthy after {self._patience:.0f} s: {missing}\n{ends}")

    def as_user(self, name: str) -> Airflow:
        """Airflow's REST API as another user (`passwords.USERS`)."""
        return Airflow(self.address, user=name, password=passwords.ensure(self.places.passwords)[name])

    # stop ---------------------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """End everything that was started; can be called at any moment, and again.

        Raises:
            ProcessesLeft: something is still alive, which it then names.
        """
        if not self._began:
            self._give_home_back()
            return
        with signals.held(instead=lambda name: self._tell(f"{name}: already stopping; this takes some seconds")):
            self._began = False
            try:
                self._fail_runs_in_flight()
                self.services.stop(tuple(AIRFLOW))
                left = self.services.stop()
            finally:
                for client in (getattr(self, "airflow", None), getattr(self, "awsim", None)):
                    if client is not None:
                        client.close()
                self._give_home_back()
            if left:
                raise ProcessesLeft(f"still alive: {', '.join(f'{one.pid}' for one in left)}")
            if self.services.started:
                self._tell("all processes have ended")

    def _fail_runs_in_flight(self) -> None:
        """So that tasks in the middle of their work end, and the next start does not go on with them."""
        try:
            alive = not self.services["api-server"].ended and not self.airflow.unhealthy()
        except KeyError:
            return
        if not alive:
            return
        self._tell("stopping: marking runs in flight as failed, then ending all processes")
        quick = Airflow(
            self.address, user="ana", password=passwords.ensure(self.places.passwords)["ana"], attempts=3, timeout=5
        )
        with suppress(Refused, Unanswered):
            for run in quick.runs_in_flight():
                quick.fail_run(str(run["dag_id"]), str(run["dag_run_id"]))
        quick.close()

    def _give_home_back(self) -> None:
        if self._lock is not None:
            self._lock.close()  # which unlocks it
            self._lock = None


