"""How are a million things made that are all there to stay?

Python's garbage collector looks through everything that lives each time a quarter more has been made. Where that is a triage of a
million findings, nothing of it is garbage, and looking takes longer than making a plan of it. `severity` and `plan` put such work
under `made`; what is dropped meanwhile is freed at once all the same, unless it refers to itself.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
