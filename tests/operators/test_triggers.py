"""When a task is woken up; time is recorded and moved by hand, nothing sleeps."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.configuration import conf

from patchwave.aws.commands import CommandStatus
from patchwave.aws.events import CommandEvent
from patchwave.campaign.errors import AccessDenied, AwsUnavailable, Throttled
from patchwave.campaign.rollout import Invocation, Outcome
from patchwave.campaign.values import HostId
from patchwave.operators.patch import _invocation
from patchwave.triggers import pace, watch
from patchwave.triggers.watch import CommandsTrigger, MomentTrigger

NOW = datetime(2026, 3, 3, 22, 0, tzinfo=UTC)
CELL = "111111111111/eu-central-1"
RUNNING, SUCCEEDED, FAILED = Outcome.RUNNING, Outcome.SUCCEEDED, Outcome.FAILED


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
    theirs = {name: getattr(asyncio, name) for name in ("get_running_loop", "gather", "Event")}
    ours = SimpleNamespace(sleep=time.sleep, **theirs)
    monkeypatch.setattr(watch, "asyncio", ours)
    monkeypatch.setattr(pace, "_cells", {})
    monkeypatch.setattr("patchwave.hooks.clock.now", lambda: time.now)
    return time


def status(command: str, completed: int = 0, *, complete: bool = False) -> CommandStatus:
    word = "Success" if complete else "InProgress"
    return CommandStatus(
        id=command, status=word, details=word, complete=complete, requested_at=NOW, targets=3, completed=completed, errors=0
    )


class Looks:
    """What AWS says at each look (by command: hosts on which it ended; None: it is over), and which thread asked."""

    def __init__(self, answer: Callable[[int], Mapping[str, int | None]]) -> None:
        self.answer = answer
        self.count = 0
        self.queue = ""
        self.hosts: Callable[[int], list[Outcome]] = lambda _: []
        self.threads: set[str] = set()
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def prepared(self) -> Looks:
        return self

    def gateway(self, *, repeats: bool) -> Looks:
        assert not repeats, "a throttled look has to be noticed"
        return self

    def events_queue(self, region: str) -> str:
        return self.queue

    def command_events(self, cell: Any, queue: str, *, awaited: Any, now: float) -> tuple[CommandEvent, ...]:
        return (CommandEvent(command="c-1", status="Success"),)

    def take_calls(self) -> dict[str, int]:
        return {"ssm:ListCommands": self.count}

    def invocations(self, cell: Any, command: str, token: str) -> list[Invocation]:
        assert token == TOKEN
        self.count += 1
        return [
            Invocation(
                token=token, host=HostId(f"i-{number}"), outcome=how, details=how.value,
                exit_code=None if how is RUNNING else int(how is FAILED), ended=None if how is RUNNING else NOW,
            )
            for number, how in enumerate(self.hosts(self.count))
        ]  # fmt: skip

    def commands(self, cell: Any, ids: list[str]) -> dict[str, CommandStatus]:
        self.threads.add(threading.current_thread().name)
        self.asked.append((str(cell), tuple(ids)))
        self.count += 1
        said = self.answer(self.count)
        return {one: status(one, 3 if ended is None else ended, complete=ended is None) for one, ended in said.items()}


NOTHING: Mapping[str, int | None] = {"c-1": 0, "c-2": 0}
ALL_OVER: Mapping[str, int | None] = {"c-1": None, "c-2": None}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], Mapping[str, int | None]]], Looks]:
    def says(answer: Callable[[int], Mapping[str, int | None]]) -> Looks:
        looks = Looks(answer)
        monkeypatch.setattr("patchwave.hooks.aws.PatchwaveAwsHook", lambda **_: looks)
        return looks

    return says


def events(trigger: Any) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(all_of_them())


def watched(known: int = 0, *, usual: float = 300, learned: bool = False) -> dict[str, Any]:
    return {"known": known, "since": NOW.isoformat(), "usual": usual, "learned": learned, "late": 1.75 * usual}


def watching(
    *, minutes: float = 30, poll: float = 15.0, patience: float = 60.0, usual: float = 300, learned: bool = False
) -> CommandsTrigger:
    until = (NOW + timedelta(minutes=minutes)).isoformat()
    commands = {CELL: {"c-1": watched(usual=usual, learned=learned), "c-2": watched(usual=usual, learned=learned)}}
    return CommandsTrigger(commands=commands, until=until, aws_conn_id="aws_default", poll=poll, patience=patience)


FIRST = 0.4 * 300
"""When a command is looked at first whose usual time nobody has learned."""
TOKEN = "0" * 32


def watching_one(*, hosts: int) -> CommandsTrigger:
    until = (NOW + timedelta(minutes=30)).isoformat()
    commands = {CELL: {"c-1": {**watched(), "hosts": hosts, "token": TOKEN}}}
    return CommandsTrigger(commands=commands, until=until, aws_conn_id="aws_default", poll=5, patience=20)


def because(said: list[Any]) -> list[str]:
    return [payload["because"] for payload in said]


@pytest.mark.parametrize("trigger", [watching(), MomentTrigger(until=NOW.isoformat())], ids=["commands", "moment"])
def test_a_trigger_is_rebuilt_from_what_it_stores(trigger: Any) -> None:
    """Through JSON, as Airflow keeps it, and under a path that can be imported."""
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(__import__(module, fromlist=[name]), name)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)
    assert all(getattr(again, key) == value for key, value in arguments.items())


def test_commands_that_are_over_wake_the_task_once(time: Time, aws: Any) -> None:
    """One event, then the end: after a second one Airflow would call the trigger killed."""
    looks = aws(lambda count: ALL_OVER if count == 3 else NOTHING)
    (event,) = events(watching())
    assert event == {"because": "command", "calls": {"ssm:ListCommands": 3}, "invocations": {}, "looked": {}}
    assert looks.count == 3


def test_a_command_that_is_over_waits_a_moment_for_the_others(time: Time, aws: Any) -> None:
    """They were sent together and usually end together; then one worker looks at all of them."""
    aws(lambda count: {"c-1": None, "c-2": 0} if count >= 2 else NOTHING)
    assert because(events(watching(patience=40, poll=15))) == ["command"]
    first_news = FIRST + 0.2 * FIRST
    assert first_news + 40 <= time.slept < first_news + 40 + 15


def test_hosts_that_have_ended_wait_for_the_others_of_their_command_until_those_are_late(time: Time, aws: Any) -> None:
    """They go on together, in one call; but one dead host does not keep the others from their reboot for hours."""
    aws(lambda count: {"c-1": 2, "c-2": 0})
    assert because(events(watching(patience=20, usual=300))) == ["command"]
    assert timedelta(seconds=1.75 * 300) < time.now - NOW < timedelta(seconds=1.75 * 300 + 20 + 2 * 60)


def test_of_the_only_command_its_invocations_are_read_and_handed_to_the_task(time: Time, aws: Any) -> None:
    """The same number of calls, and the task need not ask again; nothing is told that is still running everywhere."""
    looks = aws(lambda count: {})
    looks.hosts = lambda count: [RUNNING, SUCCEEDED] if count < 3 else [FAILED, SUCCEEDED]
    (event,) = events(watching_one(hosts=2))
    assert looks.asked == []
    assert looks.count == 3
    its = json.loads(json.dumps(event))["invocations"]["c-1"]
    assert [_invocation(one) for one in its] == looks.invocations(CELL, "c-1", TOKEN)


def test_invocations_that_were_read_before_more_of_their_hosts_ended_are_not_handed_over() -> None:
    """A later look was one ListCommands for several commands: the task asks for the invocations that it needs itself."""
    its = {**watched(), "hosts": 2, "token": TOKEN, "since": (NOW - timedelta(hours=1)).isoformat()}
    news = pace.News(commands={"c-1": pace.Watched.of(its)}, patience=timedelta(seconds=20), fastest=timedelta(seconds=5))
    half = news.read("c-1", [
        Invocation(token=TOKEN, host=HostId(f"i-{how}"), outcome=how, details="", exit_code=None, ended=None)
        for how in (RUNNING, SUCCEEDED)
    ])  # fmt: skip
    assert half is not None
    news.saw({"c-1": half}, now=NOW)
    assert set(news.told) == {"c-1"}
    news.saw({"c-1": status("c-1", 1)}, now=NOW + timedelta(seconds=5))
    assert set(news.told) == {"c-1"}
    news.saw({"c-1": status("c-1", 2, complete=True)}, now=NOW + timedelta(seconds=10))
    assert (news.told, news.new) == ({}, {"c-1"})


def test_invocations_that_aws_does_not_list_are_no_end(time: Time, aws: Any) -> None:
    """The stock operator takes the listed ones for all: here the command itself is asked how it stands."""
    looks = aws(lambda count: {"c-1": None if count > 4 else 1})
    looks.hosts = lambda count: [SUCCEEDED]
    (event,) = events(watching_one(hosts=2))
    assert looks.asked == [(CELL, ("c-1",))] * 3
    assert event["because"] == "command"
    assert event["invocations"] == event["looked"] == {}


def test_a_straggler_is_not_asked_for_at_each_look_at_the_others(time: Time, aws: Any) -> None:
    """One is an hour overdue, the other one is due now: a page of its invocations is one call and says it all. The task is
    told when the straggler was looked at, so that it leaves it alone, too."""
    looks = aws(lambda count: {"c-1": 0, "c-2": 0})
    looks.hosts = lambda count: [SUCCEEDED]
    until = (NOW + timedelta(minutes=30)).isoformat()
    late = {**watched(1, usual=60, learned=True), "since": (NOW - timedelta(hours=1)).isoformat(), "looked": NOW.isoformat()}
    commands = {CELL: {"c-1": late, "c-2": {**watched(usual=60, learned=True), "hosts": 1, "token": TOKEN}}}
    (event,) = events(CommandsTrigger(commands=commands, until=until, aws_conn_id="aws_default", poll=5, patience=20))
    assert looks.count == 1
    assert looks.asked == []
    assert set(event["invocations"]) == {"c-2"}


def test_what_was_looked_at_without_news_is_named_with_the_moment(time: Time, aws: Any) -> None:
    """For the task, which leaves it alone, and for the trigger after this one, which does not begin with a look at it."""
    aws(lambda count: {"c-1": None, "c-2": 0})
    (event,) = events(watching(patience=20))
    assert set(event["looked"]) == {"c-2"}
    assert NOW < datetime.fromisoformat(event["looked"]["c-2"]) <= time.now


def test_what_the_task_knows_already_is_no_news(time: Time, aws: Any) -> None:
    """Two of three hosts had ended when the task went to sleep."""
    aws(lambda count: {"c-1": 2})
    until = (NOW + timedelta(minutes=30)).isoformat()
    trigger = CommandsTrigger(commands={CELL: {"c-1": watched(2, usual=60)}}, until=until, aws_conn_id="aws_default")
    assert because(events(trigger)) == ["moment"]


def test_it_looks_fast_at_first_and_slower_while_nothing_ends(time: Time, aws: Any) -> None:
    """When nobody knows how long it takes: what ends after t is seen by 1.2 t, nothing is left alone for long."""
    aws(lambda count: NOTHING)
    events(watching(minutes=60, poll=5))
    naps = time.naps[1:-1]
    assert sum(time.naps[:2]) == FIRST
    assert naps[1] == 0.2 * FIRST
    assert naps[1:] == sorted(naps[1:])
    assert max(naps) == pace.SLOWEST.total_seconds()


def test_where_the_stage_has_shown_how_long_it_takes_it_looks_at_that_moment(time: Time, aws: Any) -> None:
    """And then soon again, more and more seldom."""
    aws(lambda count: NOTHING)
    events(watching(minutes=20, poll=5, usual=300, learned=True))
    naps = time.naps[1:-1]
    assert watch.first_look() + naps[0] == 300
    assert naps[1:5] == [5, 5, 10, 20]
    assert naps[1:] == sorted(naps[1:])


def test_a_throttled_cell_is_asked_less_by_everybody(time: Time, aws: Any) -> None:
    """At once, and by the other campaigns of the process, too; by and by it recovers."""

    def answer(count: int) -> Mapping[str, int | None]:
        if count <= 3:
            raise Throttled("Rate exceeded")
        return NOTHING

    aws(answer)
    events(watching(minutes=15, poll=5))
    assert time.naps[2] == 2 * 0.2 * FIRST
    assert time.naps[3] > 2 * time.naps[2]
    its = pace.pace_of("aws_default", CELL)
    assert 1 < its.factor < 8
    for minute in range(1, 10):
        its.answered(time.now + timedelta(minutes=minute))
    assert its.factor == 1


def test_a_pushed_event_ends_the_nap(time: Time, aws: Any) -> None:
    """It is looked at AWS all the same, before the task is woken: a message in a queue proves nothing."""
    looks = aws(lambda count: ALL_OVER if count == 3 else NOTHING)
    looks.queue = "https://queue"
    assert because(events(watching())) == ["command"]
    assert looks.count == 3
    assert time.naps == [watch.first_look()]


def test_no_trigger_fires_in_its_first_seconds(time: Time, aws: Any) -> None:
    """Airflow fails a healthy task whose trigger fires at once (apache/airflow issues 71580, 72716)."""
    looks = aws(lambda count: ALL_OVER)
    events(watching())
    assert looks.count == 1
    assert time.naps[0] == watch.first_look()
    time.naps.clear()
    events(MomentTrigger(until=(NOW - timedelta(hours=1)).isoformat()))
    assert time.slept >= watch.first_look()


@pytest.mark.parametrize(("interval", "seconds"), [(1.0, 3.0), (5.0, 8.0)])
def test_the_first_seconds_follow_airflows_heartbeat(monkeypatch: pytest.MonkeyPatch, interval: float, seconds: float) -> None:
    """3 s with a heartbeat of 1 s, 8 s with Airflow's default."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", str(interval))
    assert conf.getfloat("workers", "min_heartbeat_interval") == interval
    assert watch.first_look() >= seconds


def test_a_command_that_never_ends_is_watched_until_the_moment(time: Time, aws: Any) -> None:
    """The wait has an end that was told to people, and that is kept."""
    looks = aws(lambda count: NOTHING)
    assert because(events(watching(minutes=10))) == ["moment"]
    assert timedelta(minutes=10) <= time.now - NOW < timedelta(minutes=10, seconds=16)
    assert 6 < looks.count < 30


def test_a_moment_that_comes_before_the_next_look_is_not_slept_over(time: Time, aws: Any) -> None:
    """A poll of minutes does not lengthen a wait of seconds."""
    aws(lambda count: NOTHING)
    events(watching(minutes=1, poll=600))
    assert time.now - NOW <= timedelta(minutes=1, seconds=1)


def test_a_moment_trigger_wakes_at_its_moment(time: Time) -> None:
    """Neither earlier nor much later."""
    until = NOW + timedelta(hours=1)
    assert events(MomentTrigger(until=until.isoformat())) == [{"because": "moment"}]
    assert time.now == until


def test_a_passing_error_of_aws_does_not_end_the_watch(time: Time, aws: Any) -> None:
    """The task could do no better than to wait, too."""

    def answer(count: int) -> Mapping[str, int | None]:
        if count < 3:
            raise AwsUnavailable("down")
        return ALL_OVER

    looks = aws(answer)
    assert because(events(watching())) == ["command"]
    assert looks.count == 3


def test_an_error_that_will_not_pass_is_raised(time: Time, aws: Any) -> None:
    """The task fails, is retried, and says why; it is not waited for until the moment."""

    def denied(count: int) -> Mapping[str, int | None]:
        raise AccessDenied("no", operation="ssm:ListCommands")

    aws(denied)
    with pytest.raises(AccessDenied):
        events(watching())


def test_aws_is_asked_in_a_pool_of_our_own(time: Time, aws: Any) -> None:
    """asyncio's has six threads on two cores; and nothing may block the triggerer's loop."""
    looks = aws(lambda count: ALL_OVER if count == 2 else NOTHING)
    events(watching())
    assert all(name.startswith("patchwave") for name in looks.threads)
    assert set(looks.asked) == {(CELL, ("c-1", "c-2"))}


def test_a_trigger_only_looks() -> None:
    """It may run twice, in two places: whatever it calls while it runs must have no effect."""
    import inspect

    for source in map(inspect.getsource, (CommandsTrigger.run, CommandsTrigger._look, MomentTrigger.run)):
        for effect in (".send(", ".cancel(", "start_automation", "stopping", "wish"):
            assert effect not in source
