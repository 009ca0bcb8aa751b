"""When a task is woken up; time is recorded and moved by hand, nothing sleeps."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.configuration import conf

from patchwave.campaign.errors import AccessDenied, AwsUnavailable
from patchwave.triggers import watch
from patchwave.triggers.watch import CommandsTrigger, MomentTrigger

NOW = datetime(2026, 3, 3, 22, 0, tzinfo=UTC)
CELL = "111111111111/eu-central-1"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.naps: list[float] = []

    @property
    def slept(self) -> float:
        return sum(self.naps)

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(watch, "asyncio", SimpleNamespace(sleep=time.sleep, get_running_loop=asyncio.get_running_loop))
    monkeypatch.setattr("patchwave.hooks.clock.now", lambda: time.now)
    return time


class Looks:
    """What AWS says at each look, and which thread asked."""

    def __init__(self, answer: Callable[[int], bool]) -> None:
        self.answer = answer
        self.count = 0
        self.threads: set[str] = set()
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def prepared(self) -> Looks:
        return self

    def gateway(self) -> Looks:
        return self

    def commands(self, cell: Any, ids: list[str]) -> dict[str, Any]:
        self.threads.add(threading.current_thread().name)
        self.asked.append((str(cell), tuple(ids)))
        self.count += 1
        complete = self.answer(self.count)
        return {ids[0]: SimpleNamespace(complete=complete)}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], Looks]:
    def says(answer: Callable[[int], bool]) -> Looks:
        looks = Looks(answer)
        monkeypatch.setattr("patchwave.hooks.aws.PatchwaveAwsHook", lambda **_: looks)
        return looks

    return says


def events(trigger: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(all_of_them())


def watching(*, minutes: float = 30, poll: float = 15.0) -> CommandsTrigger:
    until = (NOW + timedelta(minutes=minutes)).isoformat()
    return CommandsTrigger(commands={CELL: ["c-1", "c-2"]}, until=until, aws_conn_id="aws_default", poll=poll)


@pytest.mark.parametrize("trigger", [watching(), MomentTrigger(until=NOW.isoformat())], ids=["commands", "moment"])
def test_a_trigger_is_rebuilt_from_what_it_stores(trigger: Any) -> None:
    """Through JSON, as Airflow keeps it, and under a path that can be imported."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(__import__(module, fromlist=[name]), name)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)
    assert all(getattr(again, key) == value for key, value in arguments.items())


def test_a_command_that_is_over_wakes_the_task_once(time: Time, aws: Any) -> None:
    """One event, then the end: after a second one Airflow would call the trigger killed."""
    looks = aws(lambda count: count == 3)
    assert events(watching()) == [{"because": "command"}]
    assert looks.count == 3


def test_no_trigger_fires_in_its_first_seconds(time: Time, aws: Any) -> None:
    """Airflow fails a healthy task whose trigger fires at once (apache/airflow issues 71580, 72716)."""
    looks = aws(lambda count: True)
    events(watching())
    assert looks.count == 1
    assert time.naps[0] == watch.first_look()
    time.naps.clear()
    events(MomentTrigger(until=(NOW - timedelta(hours=1)).isoformat()))
    assert time.slept >= watch.first_look()


@pytest.mark.parametrize(("interval", "seconds"), [(1.0, 3.0), (5.0, 8.0)])
def test_the_first_seconds_follow_airflows_heartbeat(
    monkeypatch: pytest.MonkeyPatch, interval: float, seconds: float
) -> None:
    """3 s with a heartbeat of 1 s, 8 s with Airflow's default."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", str(interval))
    assert conf.getfloat("workers", "min_heartbeat_interval") == interval
    assert watch.first_look() >= seconds


def test_a_command_that_never_ends_is_watched_until_the_moment(time: Time, aws: Any) -> None:
    """The wait has an end that was told to people, and that is kept."""
    looks = aws(lambda count: False)
    assert events(watching(minutes=10)) == [{"because": "moment"}]
    assert timedelta(minutes=10) <= time.now - NOW < timedelta(minutes=10, seconds=16)
    assert 30 < looks.count < 50


def test_a_moment_that_comes_before_the_next_look_is_not_slept_over(time: Time, aws: Any) -> None:
    """A poll of minutes does not lengthen a wait of seconds."""
    aws(lambda count: False)
    events(watching(minutes=1, poll=600))
    assert time.now - NOW <= timedelta(minutes=1, seconds=1)


def test_a_moment_trigger_wakes_at_its_moment(time: Time) -> None:
    """Neither earlier nor much later."""
    until = NOW + timedelta(hours=1)
    assert events(MomentTrigger(until=until.isoformat())) == [{"because": "moment"}]
    assert time.now == until


def test_a_passing_error_of_aws_does_not_end_the_watch(time: Time, aws: Any) -> None:
    """The task could do no better than to wait, too."""

    def answer(count: int) -> bool:
        if count < 3:
            raise AwsUnavailable("down")
        return True

    looks = aws(answer)
    assert events(watching()) == [{"because": "command"}]
    assert looks.count == 3


def test_an_error_that_will_not_pass_is_raised(time: Time, aws: Any) -> None:
    """The task fails, is retried, and says why; it is not waited for until the moment."""

    def denied(count: int) -> bool:
        raise AccessDenied("no", operation="ssm:ListCommands")

    aws(denied)
    with pytest.raises(AccessDenied):
        events(watching())


def test_aws_is_asked_in_a_pool_of_our_own(time: Time, aws: Any) -> None:
    """asyncio's has six threads on two cores; and nothing may block the triggerer's loop."""
    looks = aws(lambda count: count == 2)
    events(watching())
    assert all(name.startswith("patchwave") for name in looks.threads)
    assert set(looks.asked) == {(CELL, ("c-1", "c-2"))}


def test_a_trigger_only_looks() -> None:
    """It may run twice, in two places: whatever it calls must have no effect."""
    import inspect

    source = inspect.getsource(watch)
    assert "on_kill" not in source
    for effect in (".send(", ".cancel(", "start_automation", "ledger"):
        assert effect not in source
