"""How does Airflow's own `SsmRunCommandOperator` run, in virtual time?

Plays Airflow's part for one task: worker, triggerer, worker. The operator, its hook, its trigger and botocore's waiter are the
real ones. Two things we do not own are stood in for: `time.sleep` in botocore's waiter moves awsim's clock, and aiobotocore,
which deferrable mode needs and which holds boto3 back, is replaced by botocore's own client with `await` in front.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import botocore.waiter
from airflow.providers.amazon.aws.hooks.ssm import SsmHook
from airflow.providers.amazon.aws.operators.ssm import SsmRunCommandOperator
from airflow.sdk.exceptions import TaskDeferred

from benchmarks.virtual import VirtualTime


@dataclass(frozen=True, kw_only=True, slots=True)
class Airflow:
    """What Airflow itself takes, in seconds; means of what was measured.

    Attributes:
        resume: until a worker runs the code of a task that is due (a process, and the DAG parsed anew): it holds a slot and
            the campaign waits for it. The round trip of a deferral: 2.4 to 4.7 s.
        trigger: from the deferral until the triggerer runs the trigger.
    """

    resume: float = 3.6
    trigger: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a task ended.

    Attributes:
        error: None for Airflow's state ``success``.
        returned: what the operator returned.
        slot: seconds in which it held a worker slot.
    """

    error: BaseException | None
    returned: Any
    slot: float
    began: datetime
    ended: datetime

    @property
    def success(self) -> bool:
        """What Airflow's grid shows."""
        return self.error is None


class StockTasks:
    """Runs stock operators against one awsim.

    Args:
        client: botocore's ssm client, which all operators and triggers use.
    """

    def __init__(self, time: VirtualTime, client: Any, *, airflow: Airflow | None = None) -> None:
        self.time = time
        self._client = client
        self._airflow = airflow or Airflow()
        self._number = 0

    def operator(self, **arguments: Any) -> SsmRunCommandOperator:
        """An operator whose hook speaks through our client."""
        self._number += 1
        region = self._client.meta.region_name
        operator = SsmRunCommandOperator(task_id=f"patch_{self._number}", aws_conn_id=None, region_name=region, **arguments)
        operator.hook.__dict__["conn"] = self._client
        return operator

    async def run(self, operator: Any) -> Ended:
        """One task from its start on a worker to its end, through a deferral if it defers."""
        began = self.time.now
        slot = 0.0
        await asyncio.sleep(self._airflow.resume)
        try:
            try:
                returned = await asyncio.to_thread(_executed, operator)
            finally:
                slot += (self.time.now - began).total_seconds()
            if isinstance(returned, TaskDeferred):
                event = await self._triggered(returned.trigger)
                await asyncio.sleep(self._airflow.resume)
                slot += self._airflow.resume
                returned = getattr(operator, returned.method_name)({}, event)
        except Exception as error:  # noqa: BLE001 - what a task raises is how it ended
            return Ended(error=error, returned=None, slot=slot, began=began, ended=self.time.now)
        return Ended(error=None, returned=returned, slot=slot, began=began, ended=self.time.now)

    async def _triggered(self, trigger: Any) -> Any:
        await asyncio.sleep(self._airflow.trigger)
        async for event in trigger.run():
            return event.payload
        raise RuntimeError("the trigger ended without an event")

    @contextlib.contextmanager
    def stand_ins(self) -> Iterator[None]:
        """In force: a waiter that moves awsim's clock, and a client to await."""

        async def get_async_conn(_: SsmHook) -> _Awaited:
            return _Awaited(self._client)

        with (
            patch.object(botocore.waiter, "time", SimpleNamespace(sleep=self.time.sleep)),
            patch.object(SsmHook, "get_async_conn", get_async_conn),
        ):
            yield


def _executed(operator: Any) -> Any:
    """What `execute` returned, or the deferral that it raised (asyncio passes no BaseException on from a thread)."""
    try:
        return operator.execute({})
    except TaskDeferred as deferred:
        return deferred


class _Awaited:
    """botocore's client as aiobotocore offers it: the same calls, awaited, and waiters as well."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def __aenter__(self) -> _Awaited:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def get_waiter(self, name: str) -> Any:
        waiter = self._client.get_waiter(name)

        async def wait(**arguments: Any) -> None:
            await asyncio.to_thread(lambda: waiter.wait(**arguments))

        return SimpleNamespace(wait=wait)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        async def awaited(**arguments: Any) -> Any:
            return await asyncio.to_thread(lambda: call(**arguments))

        return awaited
