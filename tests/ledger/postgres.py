"""Where do the tests find a PostgreSQL? The one that `PATCHWAVE_TEST_POSTGRES` names, else a throw-away cluster of our own.

`server` starts Debian's binaries in a temporary folder on a free port and stops them at the end. It sorts as people do (ICU,
English), because a server of ours that sorted by code point anyway would hide whether the ledger does.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

GIVEN = "PATCHWAVE_TEST_POSTGRES"


class NoServer(Exception):
    """No PostgreSQL can be reached or started here."""


def binaries() -> Path:
    """The folder of the newest server binaries.

    Raises:
        NoServer: there are none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path:
        return Path(on_path).resolve().parent
    raise NoServer(f"no PostgreSQL: {GIVEN} is not set, and there is no initdb in /usr/lib/postgresql/*/bin or on PATH")


@contextmanager
def server() -> Iterator[URL]:
    """Address of a server's database ``postgres``, with the right to create databases."""
    given = os.environ.get(GIVEN)
    if given:
        url = make_url(given).set(drivername="postgresql+psycopg")
        yield url
        return
    bin_ = binaries()
    with tempfile.TemporaryDirectory(prefix="pw-pg-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        as_owner = _as_owner(home)
        password = secrets.token_hex(8)
        (home / "pw").write_text(password)
        (home / "pw").chmod(0o644)
        data = home / "data"
        initdb = [bin_ / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={home / 'pw'}", "--no-sync"]
        _run([*as_owner, *initdb, "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en"], home)
        port = _free_port()
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB"
        pg_ctl = [*as_owner, bin_ / "pg_ctl", "-D", data, "-w"]
        _run([*pg_ctl, "-l", home / "log", "-o", options, "start"], home)
        try:
            yield URL.create("postgresql+psycopg", "postgres", password, "127.0.0.1", port, "postgres")
        finally:
            _run([*pg_ctl, "-m", "immediate", "stop"], home)


@contextmanager
def database(server_url: URL) -> Iterator[URL]:
    """A database of its own, dropped at the end."""
    name = f"patchwave_test_{secrets.token_hex(4)}"
    execute(server_url, f"CREATE DATABASE {name}")
    try:
        yield server_url.set(database=name)
    finally:
        execute(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def execute(url: URL, statement: str) -> None:
    """Run one statement outside a transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def _as_owner(home: Path) -> list[str]:
    """What to put in front of a command: initdb refuses root, so Debian's user does it."""
    if os.geteuid() != 0:
        return []
    try:
        owner = pwd.getpwnam("postgres")
    except KeyError:
        raise NoServer("no PostgreSQL: root must not start one, and there is no user postgres") from None
    os.chown(home, owner.pw_uid, owner.pw_gid)
    if shutil.which("runuser"):
        return ["runuser", "-u", "postgres", "--"]
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--init-groups", "--"]


def _run(command: list[str | Path], home: Path) -> None:
    # Output into a file: the server inherits it, and a pipe would stay open for as long as the server lives.
    output = home / "output"
    with output.open("w") as stream:
        ended = subprocess.run([str(word) for word in command], stdout=stream, stderr=stream, cwd="/", check=False)
    if ended.returncode != 0:
        raise NoServer(f"no PostgreSQL: {Path(command[-1]).name} ended with {ended.returncode}: {output.read_text()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
