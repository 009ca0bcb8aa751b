"""What a stack starts, it ends: children that ignore SIGTERM, grandchildren that hid, and what an earlier one left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from patchwave.cli import signals
from patchwave.cli.processes import ServiceEnded, Services

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
hidden = subprocess.Popen(["sleep", "300"], start_new_session=True)      # a session of its own
group = subprocess.Popen(["sleep", "300"], process_group=0, env={})      # a group of its own, no mark
print("ready", hidden.pid, group.pid, flush=True)
time.sleep(300)
"""
FORKS_AND_DIES = """
import subprocess, sys
child = subprocess.Popen(["sleep", "300"], process_group=0, env={})
print("ready", child.pid, flush=True)
"""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A stack's processes."""
    made = Services(home=tmp_path)
    yield made
    made.stop(grace=0)


def start(services: Services, tmp_path: Path, program: str) -> list[int]:
    """Start it; its own process id, and those that it printed."""
    service = services.start(
        "one", [sys.executable, "-c", program], environment={"PATH": os.environ["PATH"]}, log=tmp_path / "one.log"
    )
    eventually(lambda: "ready" in service.log.read_text())
    return [service.process.pid, *map(int, service.log.read_text().splitlines()[0].split()[1:])]


def eventually(true: Callable[[], bool], *, seconds: float = 10) -> None:
    """Wait until it is so; a process has no clock that we could move."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process does anything; one that only waits for its parent's notice does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_is_left_of_a_service_that_does_not_want_to_end(services: Services, tmp_path: Path) -> None:
    """Neither itself, nor a child in another group, nor one in another session."""
    pids = start(services, tmp_path, STUBBORN)
    assert all(map(lives, pids))
    assert services.stop(grace=0.3) == ()
    assert not any(map(lives, pids))


def test_children_of_a_service_that_is_gone_are_ended_too(services: Services, tmp_path: Path) -> None:
    """They have no parent by which they could be found, and no mark; what they have is its session."""
    service, child = start(services, tmp_path, FORKS_AND_DIES)
    eventually(lambda: not lives(service))
    assert lives(child)
    assert services.stop(grace=0.3) == ()
    assert not lives(child)


def test_what_a_killed_stack_left_is_ended_by_the_next_one(services: Services, tmp_path: Path) -> None:
    """Nobody can hold kill -9; the next start finds what it left."""
    pids = start(services, tmp_path, STUBBORN)
    successor = Services(home=tmp_path)
    assert successor.clear_leftovers() == 3
    eventually(lambda: not any(map(lives, pids)))


def test_the_processes_of_another_stack_are_left_alone(services: Services, tmp_path: Path) -> None:
    """Two stacks with homes of their own run side by side in the tests."""
    (tmp_path / "other").mkdir()
    pids = start(services, tmp_path, STUBBORN)
    other = Services(home=tmp_path / "other")
    assert other.clear_leftovers() == 0
    assert other.stop() == ()
    assert all(map(lives, pids))


def test_a_service_that_ends_on_its_own_is_named_with_its_last_words(services: Services, tmp_path: Path) -> None:
    """The reason stands in its log; nobody should have to look for that."""
    program = "print('ready', flush=True); raise SystemExit('no such world')"
    service, *_ = start(services, tmp_path, program)
    eventually(lambda: not lives(service))
    with pytest.raises(ServiceEnded, match=r"one ended with status 1(?s:.*)no such world"):
        services.check()


def test_a_request_to_stop_waits_while_a_process_is_being_started() -> None:
    """Otherwise that process would run on without anybody knowing it."""
    reached = []

    def start() -> None:
        with signals.raised():
            with signals.held():
                signal.raise_signal(signal.SIGTERM)
                reached.append("inside")
            reached.append("after")

    with pytest.raises(signals.Interrupted) as interrupted:
        start()
    assert reached == ["inside"]
    assert interrupted.value.signal is signal.SIGTERM


def test_a_second_request_to_stop_does_not_disturb_the_first() -> None:
    """Whoever presses Ctrl-C twice gets an answer, and everything is still ended."""
    told: list[str] = []
    with signals.raised(), signals.held(instead=told.append):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
    assert told == ["SIGINT", "SIGHUP"]


def test_handlers_are_as_before_afterwards() -> None:
    """pytest wants its own Ctrl-C back."""
    before = [signal.getsignal(number) for number in signals.STOPS]
    with signals.raised(), signals.held():
        pass
    assert [signal.getsignal(number) for number in signals.STOPS] == before
