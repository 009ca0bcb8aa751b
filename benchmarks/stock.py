"""How does Airflow's own `SsmRunCommandOperator` run, in virtual time?

The operator, its hook, its trigger and botocore's waiter are the real ones. Two things that we do not own are stood in for:
`time.sleep` in botocore's waiter moves awsim's clock, and aiobotocore, which deferrable mode asks for and which we do not
install because it holds boto3 back, is botocore's own client with `await` in front.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import botocore.waiter
from airflow.providers.amazon.aws.hooks.ssm import SsmHook
from airflow.providers.amazon.aws.operators.ssm import SsmRunCommandOperator

from benchmarks import tasks
from benchmarks.tasks import Airflow, Ended
from benchmarks.virtual import VirtualTime


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
        """One task to its end."""
        return await tasks.run(operator, time=self.time, context={}, airflow=self._airflow)

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
