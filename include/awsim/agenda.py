"""What will happen next, and at which virtual moment?

A heap of (moment, order, action). `run_until(now)` carries out everything that is due, in order, each at its own exact moment:
an action sees `agenda.now`, not the time of the request that happened to drain the heap. No threads: nothing happens between
two requests that could be seen, so it is enough to catch up before each one.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

Action = Callable[[float], None]


def call(function: Callable[..., None], *arguments: Any) -> Action:
    """The action that calls `function(*arguments)`, for what does not need the moment."""
    return lambda _: function(*arguments)


class Agenda:
    def __init__(self, start: float) -> None:
        self.now = start
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Action]] = []
        self._running = False
        self.after: Callable[[], None] | None = None
        """Called after each action; for who wants to see what it did."""

    def at(self, moment: float, action: Action) -> None:
        """`action(moment)` is called when virtual time reaches `moment`; a moment in the past means as soon as possible."""
        heapq.heappush(self._heap, (max(moment, self.now), next(self._order), action))

    def run_until(self, now: float) -> int:
        """Catch up; returns how many actions were done. An action that asks the API gets here again: nothing happens then."""
        if self._running:
            return 0
        done = 0
        self._running = True
        try:
            while self._heap and self._heap[0][0] <= now:
                moment, _, action = heapq.heappop(self._heap)
                self.now = moment
                action(moment)
                done += 1
                if self.after is not None:
                    self.after()
        finally:
            self._running = False
        self.now = max(self.now, now)
        return done

    def __len__(self) -> int:
        return len(self._heap)
