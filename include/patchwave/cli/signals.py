"""How does a request to stop reach us, and when may it not?

A stop (Ctrl-C, SIGTERM, SIGHUP) is an exception at any moment but two: while a process is being started, for it would be
lost before it is noted, and while everything is being stopped.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody asked this program to stop.

    Attributes:
        signal: which one it was.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


@contextmanager
def raised(*, to_the_end: bool = False) -> Iterator[None]:
    """Within this, the signals that ask us to stop raise `Interrupted`; one that was ignored (nohup) stays so.

    Args:
        to_the_end: the program ends right after this; a second Ctrl-C in its last moment is ignored, or it would be what
            the exit status tells of.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handled(interrupt, afterwards=signal.SIG_IGN if to_the_end else None):
        yield


@contextmanager
def held(*, instead: Callable[[str], None] | None = None) -> Iterator[None]:
    """Within this, a request to stop waits until the end.

    Args:
        instead: what to do with one, by its name, which then counts as answered (while stopping: say that it is being done).
    """
    waiting: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        if instead is None:
            waiting.append(number)
        else:
            instead(signal.Signals(number).name)

    with _handled(hold):
        yield
    if waiting:
        signal.raise_signal(signal.Signals(waiting[0]))


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], *, afterwards: signal.Handlers | None = None
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    for number, standing in before.items():
        if standing is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, standing in before.items():
            if standing is not signal.SIG_IGN:
                signal.signal(number, standing if afterwards is None else afterwards)
