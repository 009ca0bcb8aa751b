"""What is asked of a logger? Whoever runs the execution brings one: a task, a trigger, the api-server or a rehearsal."""

from __future__ import annotations

from typing import Protocol


class Log(Protocol):
    """As much of a logger as is needed."""

    def info(self, msg: str, *args: object) -> None:
        """One line."""
        ...
