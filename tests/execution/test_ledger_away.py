"""Does a stage bear a ledger that takes nothing for a while? A real SQLite file, driven in virtual time, judged by the rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import event

from patchwave.campaign.errors import LedgerUnavailable, Transient
from patchwave.campaign.rollout import HostState
from patchwave.ledger import sql
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.store import StageState
from tests.seeds.campaign import RUN, SeededCampaign
from tests.seeds.test_audit import fleet

FLEETS = [fleet("dev-0", 4, "linux-dev", exceptions=[{"host": 2, "compliant": True}])]
STAGES = """
  - {name: dev, select: {patch_groups: [linux-dev]}, concurrency: 50%, error_budget: 0, soak: 1m,
     approval: {required: false}}"""
AWAY = 300.0
"""Seconds of the campaign's time from the first refusal on."""


def full(connection: sqlite3.Connection, _file: Path) -> None:
    """Not one page more than there are."""
    connection.execute("PRAGMA max_page_count = 1")


def read_only(connection: sqlite3.Connection, _file: Path) -> None:
    """As after an operating system has remounted a disk with errors."""
    connection.execute("PRAGMA query_only = ON")


class Locked:
    """Another connection has the lock, as a backup that hangs has."""

    def __init__(self) -> None:
        self.other: sqlite3.Connection | None = None

    def __call__(self, connection: sqlite3.Connection, file: Path) -> None:
        if self.other is None:
            self.other = sqlite3.connect(file, isolation_level=None)
            self.other.execute("BEGIN EXCLUSIVE")
        connection.execute("PRAGMA busy_timeout = 0")

    def let_go(self) -> None:
        if self.other is not None:
            self.other.close()
            self.other = None


class BadLedger:
    """Makes each connection a bad one, from the n-th transaction on until `AWAY` after the first refusal."""

    def __init__(self, file: Path, make_bad: Callable[[sqlite3.Connection, Path], None], *, after: int) -> None:
        self.ledger = ledger_at(f"sqlite:///{file}")
        self.refused: list[str] = []
        self.now: Callable[[], float] = lambda: 0.0
        self._file, self._make_bad, self._left, self._until = file, make_bad, after, float("inf")
        event.listen(self.ledger._engine, "connect", self._connected)

    def _connected(self, connection: sqlite3.Connection, _record: object) -> None:
        self._left -= 1
        if self._left < 0 and self.now() < self._until:
            self._make_bad(connection, self._file)
        elif isinstance(self._make_bad, Locked):
            self._make_bad.let_go()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.ledger, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return found(*args, **kwargs)
            except LedgerUnavailable as error:
                self._until = min(self._until, self.now() + AWAY)
                self.refused.append(str(error))
                raise

        return call if callable(found) else found


@pytest.mark.parametrize(
    ("make_bad", "said"),
    [
        (full, "the ledger's disk is full"),
        (read_only, "the ledger cannot be written to"),
        (Locked(), "the ledger is locked by another process"),
    ],
    ids=["full", "read-only", "locked"],
)
@pytest.mark.parametrize("seed", range(6))
def test_a_stage_goes_on_when_the_ledger_takes_something_again(
    make_bad: Callable[[sqlite3.Connection, Path], None], said: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever in the stage it begins: each host is settled as if nothing had been, and no host got a step twice."""
    monkeypatch.setattr(sql, "PAUSES", ())
    ledger = BadLedger(tmp_path / "ledger.db", make_bad, after=10 + Random(seed).randrange(150))
    campaign = SeededCampaign(seed=seed, calm=True, fleets=FLEETS, stages=STAGES, ledger=ledger)
    ledger.now = lambda: campaign.world.now
    campaign.play()
    assert ledger.refused, "the ledger was never asked while it was away: this proves nothing"
    assert all(one.startswith(said) for one in ledger.refused)
    assert campaign.judge() == []
    assert [row.state for row in ledger.stages(RUN)] == [StageState.PATCHED]
    assert sorted(row.state for row in ledger.hosts(RUN)) == [HostState.ALREADY_COMPLIANT, *[HostState.PATCHED] * 3]
    lines = campaign.world.journal()
    begun = [line["host"] for line in lines if (line["event"], line["operation"]) == ("command_begun", "Install")]
    assert sorted(begun) == sorted(row.host for row in ledger.hosts(RUN) if row.state is HostState.PATCHED)


def test_a_ledger_that_is_away_is_worth_another_try() -> None:
    """Airflow's retries end it, not a person."""
    assert issubclass(LedgerUnavailable, Transient)
