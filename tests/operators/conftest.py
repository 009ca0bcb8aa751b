"""Simulated AWS for the executor; a plain Airflow context for the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from airflow.providers.standard.operators import hitl

from awsim.server import Server, Simulator
from patchwave.operators.approval import ApproveStageOperator
from tests.operators.gate import TEN
from tests.operators.stage import WORLD
from tests.operators.work import Desk
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


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Requests that Airflow was asked to show."""
    made: list[dict[str, Any]] = []
    upsert = create_autospec(hitl.upsert_hitl_detail, side_effect=lambda **request: made.append(request))
    monkeypatch.setattr(hitl, "upsert_hitl_detail", upsert)
    monkeypatch.setattr(ApproveStageOperator, "_set_state_to_skipped", lambda self, tasks, map_index: None)
    return made


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The campaign's time; a test may set it."""
    times = [TEN]
    monkeypatch.setattr("patchwave.operators.base.clock.now", lambda: times[-1])
    return times
