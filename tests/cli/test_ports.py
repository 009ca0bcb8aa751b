"""A busy port is named before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from patchwave.cli import ports
from patchwave.cli.environment import Places
from patchwave.cli.stack import HomeInUse, Stack


@pytest.fixture
def busy():
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_busy_port_is_named_with_the_way_out(busy: int) -> None:
    """Somebody who has another program on 8080 must not have to search."""
    with pytest.raises(ports.PortBusy) as refused:
        ports.check({"Airflow": (busy, "PORT"), "awsim": (ports.free(), "AWSIM_PORT")})
    message = str(refused.value)
    assert f"port {busy} " in message
    assert "Airflow" in message
    assert "PORT=" in message
    assert "AWSIM_PORT" not in message


def test_a_port_on_all_interfaces_is_busy_too() -> None:
    """Our address is part of theirs."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        assert not ports.is_free(listener.getsockname()[1])


def test_one_port_cannot_serve_two() -> None:
    """Both are free, but only one of them would get it."""
    port = ports.free()
    with pytest.raises(ports.PortBusy, match="PORT and AWSIM_PORT are the same"):
        ports.check({"Airflow": (port, "PORT"), "awsim": (port, "AWSIM_PORT")})


def test_nothing_is_started_when_a_port_is_busy(busy: int, tmp_path: Path) -> None:
    """The check comes before the first process, and the home stays without a database."""
    world = tmp_path / "world.yaml"
    world.touch()
    home = tmp_path / "home"
    stack = Stack(places=Places(home=home), port=busy, awsim_port=0, world=world)
    with pytest.raises(ports.PortBusy), stack:
        pass
    assert list(stack.services) == []
    assert not (home / "airflow.db").exists()


def test_a_home_serves_one_stack_at_a_time(busy: int, tmp_path: Path) -> None:
    """Two would end each other's processes; the second must not touch the first one's."""
    world = tmp_path / "world.yaml"
    world.touch()
    first = Stack(places=Places(home=tmp_path / "home"), port=busy, awsim_port=0, world=world)
    with pytest.raises(ports.PortBusy):
        first.start()  # it has the home until it is stopped
    with pytest.raises(HomeInUse), Stack(places=Places(home=tmp_path / "home"), port=0, awsim_port=0, world=world):
        pass
    first.stop()
    with pytest.raises(ports.PortBusy), Stack(places=Places(home=tmp_path / "home"), port=busy, awsim_port=0, world=world):
        pass
