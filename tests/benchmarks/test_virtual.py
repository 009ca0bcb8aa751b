"""Does time pass without anybody sleeping, in the right order, and for both kinds of code?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.virtual import VirtualTime
from tests.simulator.conftest import FEW, Aws, start

__all__ = ["start"]


@pytest.fixture
def virtual(start: Callable[..., Aws]) -> Iterator[VirtualTime]:
    virtual = VirtualTime(start(FEW).url)
    yield virtual
    virtual.close()


def test_hours_pass_at_once(virtual: VirtualTime):
    """When everybody sleeps, the clock goes to the moment at which the first one wakes."""
    began, real = virtual.now, time.monotonic()
    virtual.run(asyncio.sleep(7200))
    assert (virtual.now - began).total_seconds() == pytest.approx(7200)
    assert time.monotonic() - real < 60


def test_threads_and_coroutines_sleep_side_by_side(virtual: VirtualTime):
    """Each wakes at its own moment, in order, whichever way it sleeps."""
    woken: list[tuple[str, int]] = []
    began = virtual.now

    def note(name: str) -> None:
        woken.append((name, round((virtual.now - began).total_seconds())))

    def blocking() -> None:
        for _ in range(3):
            virtual.sleep(100)
            note("thread")

    async def awaiting() -> None:
        await asyncio.sleep(150)
        note("coroutine")

    async def both() -> None:
        await asyncio.gather(asyncio.to_thread(blocking), awaiting())

    virtual.run(both())
    assert woken == [("thread", 100), ("coroutine", 150), ("thread", 200), ("thread", 300)]


def test_the_clock_stands_still_while_a_thread_works(virtual: VirtualTime):
    """What takes real time takes none of awsim's, or a busy machine would change the result."""
    began = virtual.now

    def working() -> float:
        sum(range(2_000_000))
        return (virtual.now - began).total_seconds()

    async def both() -> float:
        took, _ = await asyncio.gather(asyncio.to_thread(working), asyncio.sleep(50))
        return took

    assert virtual.run(both()) == 0
