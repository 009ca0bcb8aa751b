"""How do the containers start? Secrets, the simulated AWS's clock, and docker's own compose for everything else.

`make up`, `make down` and the compose test call this. docker-compose 1.29 and `docker compose` are both spoken to.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from patchwave.campaign.errors import Permanent
from patchwave.cli import ports
from patchwave.cli.environment import REPOSITORY
from patchwave.cli.rest import Airflow
from patchwave.cli.simulator import Awsim

EXAMPLE = REPOSITORY / ".env.example"
ENV_FILE = REPOSITORY / ".env"
VARIABLE = re.compile(r"^([A-Z][A-Z0-9_]*)=(.*)$")

PATIENCE = 600.0
"""Seconds from `up` to all healthy, on a slow machine, the images being there."""


class NoCompose(Permanent):
    """Neither `docker compose` nor docker-compose is installed."""


class ComposeFailed(Permanent):
    """docker compose ended with an error."""


class NotHealthy(Permanent):
    """The containers did not become healthy in time."""


def secret(name: str) -> str:
    """A new value for a secret of that name; letters and digits where it becomes part of a URL."""
    if name == "FERNET_KEY":
        return base64.urlsafe_b64encode(os.urandom(32)).decode()
    return secrets.token_hex(10 if name.startswith("PASSWORD_") else 24)


def variables(file: Path) -> dict[str, str]:
    """What stands in an environment file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {match[1]: match[2].strip() for match in map(VARIABLE.match, lines) if match}


def ensure_env(file: Path, *, example: Path = EXAMPLE, make: Callable[[str], str] = secret) -> tuple[str, ...]:
    """Make `file` from the example, or add what the example has and it lacks; what has a value in it stays.

    Returns:
        The names of the secrets that were made now.
    """
    present = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    known = variables(file)
    wanted = secrets_of(example)
    lines = list(present) if present else example.read_text(encoding="utf-8").splitlines()
    if present:
        # Settings with a default of their own may have been deleted on purpose; a secret is needed.
        lines += [f"{name}=" for name in wanted if name not in known]
    made = {name: make(name) for name in wanted if not known.get(name)}
    named = [match[1] if (match := VARIABLE.match(line)) else "" for line in lines]
    lines = [f"{name}={made[name]}" if name in made else line for name, line in zip(named, lines, strict=True)]
    content = "\n".join(lines) + "\n"
    if not present or content != "\n".join(present) + "\n":
        draft = file.with_name(f"{file.name}.new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(content)
        draft.replace(file)
    file.chmod(0o600)
    return tuple(made)


def secrets_of(example: Path) -> tuple[str, ...]:
    """The variables that the example leaves empty: they are made, one by one, on each machine."""
    return tuple(name for name, value in variables(example).items() if not value)


def command() -> tuple[str, ...]:
    """How compose is called here.

    Raises:
        NoCompose: it is not installed.
    """
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)  # noqa: S607
        if plugin.returncode == 0:
            return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    raise NoCompose("neither 'docker compose' nor docker-compose is installed")


class Compose:
    """The containers of one project."""

    def __init__(
        self,
        *,
        env_file: Path = ENV_FILE,
        project: str | None = None,
        environment: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """
        Args:
            project: another one than the folder's name keeps its containers and volumes apart.
            environment: further variables; they win over those of `env_file`.
        """
        self._env_file = env_file
        self._project = project
        self._extra = dict(environment or {})
        self._tell = tell

    def call(self, *arguments: str, quiet: bool = False, check: bool = True) -> str:
        """Call compose; with `quiet` its output is returned instead of shown.

        Raises:
            ComposeFailed: it ended with an error.
        """
        project = ("-p", self._project) if self._project else ()
        line = [*command(), "--env-file", str(self._env_file), *project, *arguments]
        done = subprocess.run(  # noqa: S603 - our own arguments
            line,
            cwd=REPOSITORY,
            env={**os.environ, **self._extra},
            stdout=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise ComposeFailed(f"{' '.join(line)} ended with status {done.returncode}")
        return done.stdout or ""

    def setting(self, name: str, default: str = "") -> str:
        """A variable as compose sees it."""
        return self._extra.get(name) or os.environ.get(name) or variables(self._env_file).get(name) or default

    @property
    def simulated(self) -> bool:
        """Whether awsim is among the services."""
        return "awsim" in self.setting("COMPOSE_PROFILES").split(",")

    @property
    def address(self) -> str:
        """Of Airflow's UI."""
        return f"http://{ports.HOST}:{self.setting('PORT', '8080')}"

    @property
    def awsim(self) -> Awsim:
        """awsim's control routes."""
        return Awsim(f"http://{ports.HOST}:{self.setting('AWSIM_PORT', '5005')}")

    def as_user(self, name: str) -> Airflow:
        """Airflow's REST API as one of its users."""
        return Airflow(self.address, user=name, password=self.setting(f"PASSWORD_{name.upper()}"))

    def up(self) -> None:
        """Build, start and wait until everything is healthy.

        Raises:
            NotHealthy: something is not, after `PATIENCE`.
        """
        profile = ("--profile", "awsim") if self.simulated else ()
        self.call(*profile, "build")
        if self.simulated and float(self.setting("AWSIM_SPEED", "1")) != 1:
            # The campaigns' clock is set by awsim's, which therefore has to run first.
            self.call(*profile, "up", "--detach", "--no-build", "awsim")
            self._wait(lambda: () if self.awsim.healthy() else ("awsim",))
            self._extra["PATCHWAVE_REHEARSAL_CLOCK"] = self.awsim.clock().setting
        self.call(*profile, "up", "--detach", "--no-build")
        airflow = self.as_user("ana")
        self._wait(airflow.unhealthy)
        airflow.close()

    def down(self, *, volumes: bool = False) -> None:
        """Stop and remove the containers; the data too if `volumes`."""
        self.call("--profile", "awsim", "down", "--remove-orphans", *(("--volumes",) if volumes else ()))

    def _wait(self, missing: Callable[[], Sequence[str]]) -> None:
        began = told = time.monotonic()
        while left := missing():
            now = time.monotonic()
            if now - began > PATIENCE:
                self.call("ps", check=False)
                raise NotHealthy(f"not healthy after {PATIENCE:.0f} s: {', '.join(left)}; see: {command()[-1]} logs")
            if now - told > 15:
                told = now
                self._tell(f"still waiting for: {', '.join(left)} ({now - began:.0f} s)")
            time.sleep(1)


def up(tell: Callable[[str], None]) -> None:
    """`make up`."""
    made = ensure_env(ENV_FILE)
    if made:
        tell(f"made secrets in {ENV_FILE.name}: {', '.join(made)}")
    compose = Compose(tell=tell)
    compose.up()
    tell(f"Airflow: {compose.address}   sign in as olga, password {compose.setting('PASSWORD_OLGA')} (others: .env)")
    if compose.simulated:
        tell(f"campaigns run against awsim, a simulated AWS: {compose.awsim.address}/_awsim/health")


def down() -> None:
    """`make down`."""
    if ENV_FILE.exists():
        Compose().down()
