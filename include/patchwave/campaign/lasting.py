"""How are a million things made that are all there to stay?

Python's garbage collector looks through everything that lives each time a quarter more has been made. Where that is a triage of a
million findings, nothing of it is garbage, and looking takes longer than making a plan of it. `severity` and `plan` put such work
under `made`; what is dropped meanwhile is freed at once all the same, unless it refers to itself. `in_utc` spares what was read
from JSON a time zone for each of its moments.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any


@contextmanager
def made() -> Iterator[None]:
    """Collect no garbage while things are made that last; as a decorator: while the function runs."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def in_utc(value: Any, *names: str) -> None:
    """Give moments of a value that was just read, and that nobody has yet, the one time zone UTC: pydantic makes each its own."""
    for name in names:
        moment = getattr(value, name)
        if moment is not None:
            object.__setattr__(value, name, moment.astimezone(UTC))
