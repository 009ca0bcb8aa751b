"""Is a port free? Asked before anything starts, for Airflow itself notices only after a full start (17 s)."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from patchwave.campaign.errors import Permanent

HOST = "127.0.0.1"


class PortBusy(Permanent):
    """Another program listens on a port that is needed."""


def check(wanted: Mapping[str, tuple[int, str]]) -> None:
    """Nothing, if all ports are free.

    Args:
        wanted: per purpose ("Airflow") its port and the variable that chooses another one ("PORT").

    Raises:
        PortBusy: it names each busy port and how to choose another.
    """
    problems = [
        f"port {port} on {HOST}, wanted for {purpose}, is in use; free it or choose another one, such as {variable}={free()}"
        for purpose, (port, variable) in wanted.items()
        if not is_free(port)
    ]
    numbers = [port for port, _ in wanted.values()]
    if len(set(numbers)) < len(numbers):
        names = " and ".join(variable for _, variable in wanted.values())
        problems.append(f"{names} are the same port ({numbers[0]}); choose two different ones")
    if problems:
        raise PortBusy("\n".join(problems))


def is_free(port: int) -> bool:
    """Whether we could listen there now."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
    return True


def free() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as attempt:
        attempt.bind((HOST, 0))
        return int(attempt.getsockname()[1])
