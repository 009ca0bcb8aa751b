"""When is it worth waking a task up?

`CommandsTrigger` looks at commands in flight and ends when they have news; `MomentTrigger` ends at a moment. While they run both
only look: a trigger may run twice, in two places, and may be stopped at any time. Both end once, and never in their first
seconds: Airflow fails a healthy task whose trigger fires while the leg before is still being wound up (apache/airflow issues
71580, 72716).
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from patchwave.aws.commands import LARGEST_PAGE
from patchwave.campaign.errors import Throttled, Transient
from patchwave.campaign.values import Cell, RunId, StageName
from patchwave.execution.waiting import add_to_wait
from patchwave.hooks import clock
from patchwave.hooks.ledger import open_ledger_from_a_trigger
from patchwave.triggers import pace, push

if TYPE_CHECKING:
    from patchwave.aws.commands import CommandStatus
    from patchwave.aws.events import CommandEvent
    from patchwave.aws.gateway import Gateway
    from patchwave.campaign.rollout import Invocation
    from patchwave.hooks.aws import PatchwaveAwsHook

POOL = ThreadPoolExecutor(max_workers=32, thread_name_prefix="patchwave")
"""asyncio's own pool has six threads on two cores and starves with many triggers."""
SHORTEST = 0.5
"""Real seconds between two looks, in a rehearsal whose clock runs hundreds of times faster."""


def first_look() -> float:
    """Seconds in which no trigger may fire: 3 with a heartbeat interval of 1 s, 8 with Airflow's default of 5 s.

    The supervisor of the leg before lingers up to one heartbeat interval after the task has deferred.
    """
    interval = conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)
    return interval + max(2.0, 0.6 * interval)


class MomentTrigger(BaseTrigger):
    """Ends at a moment of the campaign's time.

    Args:
        until: ISO 8601 with a zone.
    """

    def __init__(self, *, until: str) -> None:
        super().__init__()
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "patchwave.triggers.watch.MomentTrigger", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when the moment has come."""
        await asyncio.sleep(max(first_look(), clock.real_delay(datetime.fromisoformat(self.until))))
        yield TriggerEvent({"because": "moment"})


class CommandsTrigger(BaseTrigger):
    """Ends when commands of a stage have news worth waking its task up for, or at a moment of the campaign's time.

    One trigger watches all cells and commands of a stage: a look is one ListCommands a cell, or one page of invocations where
    a single command is in flight; what those say goes to the task with the event. It sends nothing to AWS, with
    one exception: when a person ends its task, it carries the stop out (`patchwave.execution.stopping`).

    Args:
        commands: by cell (``account/region``) and command id, as `patchwave.execution.executor.wait_for` says.
        until: ISO 8601 with a zone.
        aws_conn_id: Airflow connection.
        poll: campaign seconds between two looks, at the least.
        patience: campaign seconds that a command that is over waits for the others.
        run_id, stage, holder: whose commands these are, as the ledger names them; empty for none.
        ledger_conn_id: Airflow connection of the ledger.
    """

    def __init__(
        self,
        *,
        commands: Mapping[str, Mapping[str, Mapping[str, Any]]],
        until: str,
        aws_conn_id: str,
        poll: float = 8.0,
        patience: float = 20.0,
        run_id: str = "",
        stage: str = "",
        holder: str = "",
        ledger_conn_id: str = "patchwave_ledger",
    ) -> None:
        super().__init__()
        self.commands = {cell: {command: dict(one) for command, one in its.items()} for cell, its in commands.items()}
        self.until = until
        self.aws_conn_id = aws_conn_id
        self.poll = poll
        self.patience = patience
        self.run_id = run_id
        self.stage = stage
        self.holder = holder
        self.ledger_conn_id = ledger_conn_id
        self._said: set[str] = set()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "patchwave.triggers.watch.CommandsTrigger", {
            "commands": self.commands,
            "until": self.until,
            "aws_conn_id": self.aws_conn_id,
            "poll": self.poll,
            "patience": self.patience,
            "run_id": self.run_id,
            "stage": self.stage,
            "holder": self.holder,
            "ledger_conn_id": self.ledger_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when there is news or the moment has come; it carries what was read, and the calls that were made."""
        until = datetime.fromisoformat(self.until)
        await asyncio.sleep(first_look())
        from patchwave.hooks.aws import PatchwaveAwsHook  # boto3 costs a second: not while triggers start

        hook = await PatchwaveAwsHook(aws_conn_id=self.aws_conn_id).prepared()
        gateway = hook.gateway(repeats=False)
        because = "moment"
        with ExitStack() as stack:
            told = self._told(hook, gateway, stack)
            news = {
                cell: pace.News(
                    commands={command: pace.Watched.of(one) for command, one in commands.items()},
                    patience=timedelta(seconds=self.patience),
                    fastest=timedelta(seconds=self.poll) if told is None else pace.SLOWEST,  # what is pushed is asked seldom
                )
                for cell, commands in self.commands.items()
            }
            while clock.real_delay(until) > 0:
                due = {cell: one for cell, one in news.items() if one.due <= clock.now()}
                await asyncio.gather(*(self._look(gateway, cell, one) for cell, one in due.items()))
                if any(one.is_worth_waking(clock.now()) for one in news.values()):
                    because = "command"
                    break
                if await self._nap(min((one.due for one in news.values()), default=until), told, until):
                    for one in news.values():
                        one.woken(clock.now())
        yield TriggerEvent({"because": because, "calls": dict(gateway.take_calls()), **_found(news.values())})

    def _told(self, hook: PatchwaveAwsHook, gateway: Gateway, stack: ExitStack) -> asyncio.Event | None:
        """What is set when EventBridge says that a command is over; None unless every region has a queue for that."""
        cells = {cell: hook.events_queue(Cell.parse(cell).region) for cell in self.commands}
        if not cells or not all(cells.values()):
            return None
        told = asyncio.Event()
        for cell, queue in cells.items():
            receive = partial(_receive, gateway, Cell.parse(cell), queue)
            stack.enter_context(push.reader_of(queue, receive, POOL).told_of(tuple(self.commands[cell]), told))
        return told

    async def _look(self, gateway: Gateway, cell: str, news: pace.News) -> None:
        """Take in how the commands of one cell stand."""
        its_pace = pace.pace_of(self.aws_conn_id, cell)
        loop = asyncio.get_running_loop()
        now = clock.now()
        try:
            statuses = await loop.run_in_executor(POOL, _statuses, gateway, Cell.parse(cell), news, now)
        except Throttled as error:
            its_pace.throttled(now)
            slowly = f"AWS throttles in {cell}: looked at {its_pace.factor:g} times more slowly"
            self.log.warning("%s (%s)", slowly, error)
            news.put_off(news.open, now=now, factor=its_pace.factor)
            await self._say(slowly)
        except Transient as error:
            # The task could do no better than to wait, too; it learns of it when it wakes.
            self.log.warning("Looking at commands failed, trying again: %s", error)
            news.put_off(news.open, now=now, factor=its_pace.factor)
            await self._say(f"AWS does not answer in {cell}: {error}")
        else:
            its_pace.answered(now)
            news.saw(statuses, now=now, factor=its_pace.factor)

    async def _nap(self, due: datetime, told: asyncio.Event | None, until: datetime) -> bool:
        """Until the cell is due that comes first, or, where news are pushed, until told.

        Returns:
            Whether somebody told, so that it is worth a look whatever is due.
        """
        seconds = min(max(SHORTEST, clock.real_delay(due)), max(0.2, clock.real_delay(until)))
        if told is None:
            await asyncio.sleep(seconds)
            return False
        return await push.nap(seconds, told)

    async def _say(self, why: str) -> None:
        """Put it into the reason of the stage's wait, once; a ledger that does not answer keeps nobody from looking."""
        if not self.run_id or why in self._said:
            return
        self._said.add(why)
        try:
            ledger = await open_ledger_from_a_trigger(self.ledger_conn_id)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(POOL, add_to_wait, ledger, RunId(self.run_id), self.stage, why, clock.now())
        except Transient as error:
            self.log.warning("The ledger does not take the reason of the wait: %s", error)

    async def on_kill(self) -> None:
        """A person ended the task, or Airflow only moved this trigger: find out which, and in the first case stop.

        Airflow cuts this off after a second, so the work is a thread's.
        """
        if not self.run_id:
            return
        from patchwave.execution.stopping import Stopper
        from patchwave.hooks.aws import PatchwaveAwsHook

        hook = await PatchwaveAwsHook(aws_conn_id=self.aws_conn_id).prepared()
        ledger = await open_ledger_from_a_trigger(self.ledger_conn_id)
        stopper = Stopper(ledger=ledger, gateway=hook.gateway, now=clock.now, log=self.log, pause=time.sleep, speed=clock.speed())
        task_state = self._task_state if self.task_instance is not None else None
        POOL.submit(stopper.after_kill, RunId(self.run_id), StageName(self.stage), self.holder, task_state=task_state)

    def _task_state(self) -> str | None:
        """What Airflow says of the task's state now; None when it does not say."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti = self.task_instance
        if ti is None:
            return None
        states = RuntimeTaskInstance.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
        state = states.get(ti.run_id, {}).get(ti.task_id)
        return None if state is None else str(getattr(state, "value", state))


def _statuses(gateway: Gateway, cell: Cell, news: pace.News, now: datetime) -> Mapping[str, CommandStatus]:
    """How commands of a cell stand: of the only one that is due, its invocations say it all, and spare the task a call; of
    several one ListCommands does, and then of all that are in flight."""
    due = news.asked(now)
    if not due:
        return {}
    if len(due) == 1 and 0 < news.commands[due[0]].hosts <= LARGEST_PAGE:
        status = news.read(due[0], gateway.invocations(cell, due[0], news.commands[due[0]].token))
        if status is not None:
            return {due[0]: status}
        return gateway.commands(cell, due)
    return gateway.commands(cell, news.open)


def _found(news: Collection[pace.News]) -> dict[str, Any]:
    """What was read, as JSON: invocations by command id, and when each command without news was looked at."""
    told = {command: each.told[command] for each in news for command in each.new & each.told.keys()}
    invocations = {command: [_told(one) for one in its] for command, its in told.items()}
    looked = {command: at.isoformat() for each in news for command, at in each.looked.items() if command not in each.new}
    return {"invocations": invocations, "looked": looked}


def _told(one: Invocation) -> dict[str, Any]:
    """An invocation for an event, which is stored as JSON."""
    ended = None if one.ended is None else one.ended.isoformat()
    return {**dataclasses.asdict(one), "outcome": one.outcome.value, "ended": ended}


def _receive(gateway: Gateway, cell: Cell, queue: str, awaited: Collection[str], now: float) -> tuple[CommandEvent, ...]:
    return gateway.command_events(cell, queue, awaited=awaited, now=now)
