"""What does one task cost in Airflow, without an Airflow?

`run` plays Airflow's part in virtual time: a worker runs `execute`, a deferral goes to the triggerer, its event to a worker
again, and so on to the end. The operator and its triggers are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import TaskDeferred

from benchmarks.virtual import VirtualTime


@dataclass(frozen=True, kw_only=True, slots=True)
class Airflow:
    """What Airflow itself takes, in seconds; means of what was measured (Airflow 3.3.2, LocalExecutor, two busy cores).

    Attributes:
        resume: until a worker runs the code of a task that is due (a process, and the DAG parsed anew): it holds a slot and
            the task waits for it. The round trip of a deferral took 2.4 to 4.7 s.
        trigger: from the deferral until the triggerer runs the trigger; no slot is held.
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
        legs: how often a worker ran it.
    """

    error: BaseException | None
    returned: Any
    slot: float
    legs: int
    began: datetime
    ended: datetime

    @property
    def success(self) -> bool:
        """What Airflow's grid shows."""
        return self.error is None


async def run(operator: Any, *, time: VirtualTime, context: Mapping[str, Any], airflow: Airflow) -> Ended:
    """One task from its start on a worker to its end, through as many deferrals as it asks for; retries are left out."""
    began = time.now
    slot, legs = 0.0, 0
    call = operator.execute
    arguments: dict[str, Any] = {}
    while True:
        due = time.now
        legs += 1
        await asyncio.sleep(airflow.resume)
        outcome = await asyncio.to_thread(_called, call, {"context": context, **arguments})
        slot += (time.now - due).total_seconds()
        if isinstance(outcome, TaskDeferred):
            try:
                event = await _triggered(outcome.trigger, airflow)
            except Exception as failure:  # noqa: BLE001 - a trigger that raises fails its task
                outcome = _Raised(failure)
            else:
                call, arguments = getattr(operator, outcome.method_name), {"event": event}
                continue
        error = outcome.error if isinstance(outcome, _Raised) else None
        returned = None if error else outcome
        return Ended(error=error, returned=returned, slot=slot, legs=legs, began=began, ended=time.now)


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


def _called(call: Any, arguments: Mapping[str, Any]) -> Any:
    """What it returned, or what it raised: asyncio hands no BaseException on from a thread."""
    try:
        return call(**arguments)
    except TaskDeferred as deferred:
        return deferred
    except Exception as error:  # noqa: BLE001 - what a task raises is how it ended
        return _Raised(error)


async def _triggered(trigger: Any, airflow: Airflow) -> Any:
    await asyncio.sleep(airflow.trigger)
    async for event in trigger.run():
        return event.payload
    raise RuntimeError("the trigger ended without an event")
