"""Who tells a trigger at once that a command is over? One reader of each queue in a process, whatever number of triggers waits.

Push only ends a nap early: a trigger looks at AWS itself before it believes anything, and polls when nothing is pushed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from patchwave.aws.events import CommandEvent
from patchwave.campaign.errors import PatchwaveError

log = logging.getLogger(__name__)

AFTER_AN_ERROR = 30.0
"""Real seconds: a queue that does not answer is tried again; polling goes on meanwhile."""

Receive = Callable[[Collection[str], float], tuple[CommandEvent, ...]]


@dataclass
class Reader:
    """Reads one queue for as long as somebody in this process waits for one of its commands.

    Attributes:
        receive: asks the queue; blocks up to its long poll, so it is called in a thread.
    """

    receive: Receive
    threads: Executor
    _waiting: dict[str, set[asyncio.Event]] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    @contextmanager
    def told_of(self, commands: Collection[str], told: asyncio.Event) -> Iterator[None]:
        """Set `told` whenever one of these commands is said to be over; whoever waits clears it."""
        for command in commands:
            self._waiting.setdefault(command, set()).add(told)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._read())
        try:
            yield
        finally:
            for command in commands:
                waiting = self._waiting.get(command, set())
                waiting.discard(told)
                if not waiting:
                    self._waiting.pop(command, None)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            try:
                events = await loop.run_in_executor(self.threads, self.receive, frozenset(self._waiting), time.time())
            except PatchwaveError as error:
                log.warning("The queue of command events does not answer, polling goes on: %s", error)
                await asyncio.sleep(AFTER_AN_ERROR)
                continue
            for event in events:
                for told in self._waiting.get(event.command, ()) if event.final else ():
                    told.set()


async def nap(seconds: float, told: asyncio.Event) -> bool:
    """Sleep that long, or until told.

    Returns:
        Whether it was told.
    """
    with suppress(TimeoutError):
        await asyncio.wait_for(told.wait(), timeout=seconds)
    was_told = told.is_set()
    told.clear()
    return was_told


_readers: dict[str, Reader] = {}


def reader_of(queue_url: str, receive: Receive, threads: Executor) -> Reader:
    """The process' reader of that queue."""
    return _readers.setdefault(queue_url, Reader(receive=receive, threads=threads))
