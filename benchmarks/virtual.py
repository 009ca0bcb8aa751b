"""What lets hours pass in seconds, for our code and for code that sleeps?

`VirtualTime` is an event loop whose clock is awsim's: when everybody sleeps, awsim's clock is moved to the moment at which the
first one wakes. Coroutines call `asyncio.sleep` as always; blocking code runs in `asyncio.to_thread` and calls
`VirtualTime.sleep` where it would have called `time.sleep`. Nobody sleeps in real time.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import urllib.request
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")

THREADS = 256
"""More than there are ever tasks at once; a thread that sleeps costs nothing."""


class VirtualTime:
    """The time of one awsim, whose own clock stands still.

    Args:
        url: where awsim answers.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._epoch = float(self._control("clock")["epoch"])
        self._began = self._epoch
        self._loop = _Loop(self._passed, self._advance)

    @property
    def now(self) -> datetime:
        """awsim's time."""
        return datetime.fromtimestamp(self._epoch, UTC)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self._loop.run_until_complete(main)

    def sleep(self, seconds: float) -> None:
        """`time.sleep` for code in a thread of `asyncio.to_thread`."""
        asyncio.run_coroutine_threadsafe(self._loop.napping(seconds), self._loop).result()

    def close(self) -> None:
        """End the loop, and wake up with an error whoever still sleeps."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _passed(self) -> float:
        """Seconds since we began: an epoch has no digits left for asyncio's comparisons."""
        return self._epoch - self._began

    def _advance(self, seconds: float) -> None:
        self._control("advance", {"seconds": seconds})
        self._epoch += seconds

    def _control(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self._url}/_awsim/{path}", data=data, timeout=120) as answer:  # noqa: S310 - our own awsim
            return json.load(answer)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, now: Callable[[], float], advance: Callable[[float], None]) -> None:
        self._virtual_now = now
        self.at_work = 0  # threads that do something else than to sleep
        super().__init__(_Selector(advance, lambda: self.at_work > 0))
        self._clock_resolution = 1e-6
        self.set_default_executor(ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="virtual"))

    def time(self) -> float:
        return self._virtual_now()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Whatever pool is named, it is ours that works, so that the clock stands still meanwhile."""
        self.at_work += 1
        future = super().run_in_executor(None, func, *args)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: Any) -> None:
        self.at_work -= 1

    async def napping(self, seconds: float) -> None:
        self.at_work -= 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.at_work += 1


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type, unused-ignore]
    """Where the loop would wait, the clock is moved instead."""

    def __init__(self, advance: Callable[[float], None], at_work: Callable[[], bool]) -> None:
        super().__init__()
        self._advance, self._at_work = advance, at_work

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if timeout is not None and timeout <= 0:  # there is something to do without waiting
            return ready
        while not ready and (self._at_work() or timeout is None):
            ready = super().select(0.05)
        if ready or timeout is None:
            return ready
        self._advance(timeout)
        return []
