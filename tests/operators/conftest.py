"""Simulated AWS for the executor; a plain Airflow context for the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awsim.server import Server, Simulator
from tests.operators.stage import WORLD
from tests.simulator.conftest import BASE, Aws


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Aws]]:
    """`start(world)`: a fresh world whose clock stands still. One at a time: moto's state is the process's."""
    running: list[Server] = []
    file = tmp_path / "world.yaml"

    def begin(world: str = WORLD) -> Aws:
        while running:
            running.pop().stop()
        file.write_text(world, encoding="utf-8")
        running.append(Server(Simulator(world=file, speed=0, seed=1, base=BASE)).start())
        return Aws(running[-1])

    yield begin
    for server in running:
        server.stop()


@pytest.fixture
def aws(start: Callable[..., Aws]) -> Aws:
    return start()
