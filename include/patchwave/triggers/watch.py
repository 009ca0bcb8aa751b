"""When is it worth waking a task up?

`CommandsTrigger` looks at commands in flight and ends when one of them is over; `MomentTrigger` ends at a moment. Both only
look: a trigger may run twice, in two places, and may be stopped at any time. Both end once, and never in their first
seconds: Airflow fails a healthy task whose trigger fires while the leg before is still being wound up (apache/airflow issues
71580, 72716).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.triggers.base import BaseTrigger, TriggerEvent

from patchwave.campaign.errors import Transient
from patchwave.campaign.values import Cell
from patchwave.hooks import clock

if TYPE_CHECKING:
    from patchwave.aws.gateway import Gateway

POOL = ThreadPoolExecutor(max_workers=32, thread_name_prefix="patchwave")
"""asyncio's own pool has six threads on two cores and starves with many triggers."""


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
    """Ends when one of the commands is over, or at a moment of the campaign's time.

    Args:
        commands: command ids by cell (``account/region``).
        until: ISO 8601 with a zone.
        aws_conn_id: Airflow connection.
        poll: real seconds between two looks.
    """

    def __init__(self, *, commands: Mapping[str, Sequence[str]], until: str, aws_conn_id: str, poll: float = 15.0) -> None:
        super().__init__()
        self.commands = {cell: list(ids) for cell, ids in commands.items()}
        self.until = until
        self.aws_conn_id = aws_conn_id
        self.poll = poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "patchwave.triggers.watch.CommandsTrigger", {
            "commands": self.commands,
            "until": self.until,
            "aws_conn_id": self.aws_conn_id,
            "poll": self.poll,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event, when a command is over or the moment has come."""
        until = datetime.fromisoformat(self.until)
        await asyncio.sleep(first_look())
        from patchwave.hooks.aws import PatchwaveAwsHook  # boto3 costs a second: not while triggers start

        loop = asyncio.get_running_loop()
        gateway = (await PatchwaveAwsHook(aws_conn_id=self.aws_conn_id).prepared()).gateway()
        while clock.real_delay(until) > 0:
            try:
                over = await loop.run_in_executor(POOL, self._over, gateway)
            except Transient as error:
                # The task could do no better than to wait, too; it learns of it when it wakes.
                self.log.warning("Looking at commands failed, trying again: %s", error)
                over = False
            if over:
                yield TriggerEvent({"because": "command"})
                return
            await asyncio.sleep(min(self.poll, max(0.2, clock.real_delay(until))))
        yield TriggerEvent({"because": "moment"})

    def _over(self, gateway: Gateway) -> bool:
        return any(
            status.complete for cell, ids in self.commands.items() for status in gateway.commands(Cell.parse(cell), ids).values()
        )
