"""Command events through a queue: they end a nap early, and polling does not need them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from patchwave.aws.events import COMMAND_CHANGED, FORGOTTEN_AFTER, CommandEvent
from patchwave.aws.gateway import Gateway
from patchwave.campaign.errors import AwsUnavailable
from patchwave.campaign.values import HostId
from patchwave.hooks.aws import PatchwaveAwsHook
from patchwave.triggers import push
from tests.domain.builders import CELL
from tests.gateway.conftest import session_with_keys
from tests.operators.stage import ONCE
from tests.simulator.conftest import Aws

SHORT = timedelta(0)


@pytest.fixture
def gateway(aws: Aws) -> Gateway:
    return Gateway(session_with_keys, endpoint_url=aws.url, reads=ONCE)


@pytest.fixture
def queue(aws: Aws) -> str:
    """Fed by the rule that docs/operating.md shows."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url: str = sqs.create_queue(QueueName="patchwave-command-events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = json.dumps({"source": ["aws.ssm"], "detail-type": [COMMAND_CHANGED]})
    events.put_rule(Name="patchwave-command-events", EventPattern=pattern)
    events.put_targets(Rule="patchwave-command-events", Targets=[{"Id": "queue", "Arn": arn}])
    return url


def a_command(aws: Aws, gateway: Gateway) -> str:
    hosts = [HostId(host) for host in aws.hosts("web")][:2]
    return gateway.send(
        CELL, document="AWS-RunPatchBaseline", parameters={"Operation": ["Scan"]}, hosts=hosts, comment="a scan",
        timeout=timedelta(minutes=10),
    ).id  # fmt: skip


def left(aws: Aws, url: str) -> int:
    attributes = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def test_the_end_of_an_awaited_command_is_read_and_taken(aws: Aws, gateway: Gateway, queue: str) -> None:
    """Judged by what AWS's own rule delivers."""
    command = a_command(aws, gateway)
    aws.advance(600)
    events = gateway.command_events(CELL, queue, awaited=[command], now=time.time(), wait=SHORT)
    assert [one for one in events if one.final] == [CommandEvent(command=command, status="Success")]
    assert left(aws, queue) == 0


def test_an_event_of_somebody_elses_command_stays_for_them(aws: Aws, gateway: Gateway, queue: str) -> None:
    """Two triggerers may share a queue; what nobody fetches within minutes is cleared away."""
    a_command(aws, gateway)
    aws.advance(600)
    assert gateway.command_events(CELL, queue, awaited=["c-0"], now=time.time(), wait=SHORT) == ()
    assert left(aws, queue) == 1


def test_old_and_foreign_messages_do_not_pile_up(aws: Aws, gateway: Gateway, queue: str) -> None:
    """Whatever somebody puts there is read over, not tripped over."""
    a_command(aws, gateway)
    aws.advance(600)
    sqs = aws.client("sqs")
    half = json.dumps({"source": "aws.ssm", "detail-type": COMMAND_CHANGED})
    for body in ("no json", "[]", '{"source": "aws.ec2"}', half):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    later = time.time() + FORGOTTEN_AFTER.total_seconds() + 1
    assert gateway.command_events(CELL, queue, awaited=[], now=later, wait=SHORT) == ()
    assert left(aws, queue) == 0


# --- one reader a process ---------------------------------------------------------------------------------------------------
class Queue:
    """What each receive answers, in order; after that nothing more comes."""

    def __init__(self, *answers: tuple[CommandEvent, ...] | Exception) -> None:
        self.answers = list(answers)
        self.awaited: list[frozenset[str]] = []

    def __call__(self, awaited: Collection[str], now: float) -> tuple[CommandEvent, ...]:
        self.awaited.append(frozenset(awaited))
        answer = self.answers.pop(0) if self.answers else ()
        if isinstance(answer, Exception):
            raise answer
        return answer


def done(command: str) -> tuple[CommandEvent, ...]:
    return (CommandEvent(command=command, status="Success"),)


def woken(queue: Queue, commands: dict[str, list[str]], *, naps: float = 5.0) -> list[str]:
    """Which of several waiting triggers are told before their naps are over."""

    async def wait(name: str, reader: push.Reader) -> str | None:
        told = asyncio.Event()
        with reader.told_of(commands[name], told):
            await asyncio.wait({asyncio.ensure_future(told.wait())}, timeout=naps)
            return name if told.is_set() else None

    async def all_of_them() -> list[str | None]:
        with ThreadPoolExecutor(2) as threads:
            reader = push.Reader(receive=queue, threads=threads)
            return await asyncio.gather(*(wait(name, reader) for name in commands))

    return [name for name in asyncio.run(all_of_them()) if name is not None]


def test_a_trigger_is_told_of_its_own_commands_only() -> None:
    """And everybody's commands are asked for together, by one reader."""
    queue = Queue((CommandEvent(command="c-1", status="InProgress"),), done("c-2"), done("c-1"))
    assert woken(queue, {"first": ["c-1"], "second": ["c-2", "c-3"]}) == ["first", "second"]
    assert queue.awaited[0] == {"c-1", "c-2", "c-3"}


def test_an_event_that_is_not_final_wakes_nobody() -> None:
    """A command in progress is no news."""
    queue = Queue((CommandEvent(command="c-1", status="InProgress"),))
    assert woken(queue, {"first": ["c-1"]}, naps=0.05) == []


def test_a_queue_that_does_not_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polling goes on meanwhile."""
    monkeypatch.setattr(push, "AFTER_AN_ERROR", 0.0)
    assert woken(Queue(AwsUnavailable("down"), done("c-1")), {"first": ["c-1"]}) == ["first"]


@pytest.mark.parametrize(("extra", "region", "url"), [
    ({}, "eu-central-1", ""),
    ({"patchwave_events_queue": "https://q"}, "eu-central-1", "https://q"),
    ({"patchwave_events_queue": {"eu-central-1": "https://q"}}, "eu-central-1", "https://q"),
    ({"patchwave_events_queue": {"eu-central-1": "https://q"}}, "us-east-1", ""),
])  # fmt: skip
def test_the_connection_names_the_queue(extra: dict[str, Any], region: str, url: str) -> None:
    """One for all regions, or one for each."""
    hook = PatchwaveAwsHook.__new__(PatchwaveAwsHook)
    hook.__dict__["conn_config"] = SimpleNamespace(extra_config=extra)
    assert hook.events_queue(region) == url
