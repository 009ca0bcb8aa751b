"""What time is it in the simulated AWS?

`virtual now = base + (real elapsed) * speed`; it can be advanced, sped up or stopped at any moment. Everything else in awsim
takes the time from here, so a test at speed 0 moves it by hand and nothing ever sleeps.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """Virtual time as epoch seconds; monotonic, because what happened cannot be undone."""

    def __init__(self, *, base: float | None = None, speed: float = 1.0, real: Callable[[], float] = time.time) -> None:
        """`base` None means: the virtual world starts now. `real` is the wall clock, an argument so that tests own it."""
        self._real = real
        self.base = real() if base is None else base
        self._anchor_virtual = self.base
        self._anchor_real = real()
        self.speed = _checked(speed)

    def now(self) -> float:
        return self._anchor_virtual + (self._real() - self._anchor_real) * self.speed

    def real_now(self) -> float:
        return self._real()

    def advance(self, seconds: float) -> float:
        """Jump forward. Negative steps are refused: events that have happened stay happened."""
        if seconds < 0:
            raise ValueError(f"seconds: {seconds} is negative; virtual time only moves forward")
        self._set_anchor(self.now() + seconds)
        return self.now()

    def set_speed(self, speed: float) -> None:
        checked = _checked(speed)
        self._set_anchor(self.now())
        self.speed = checked

    def _set_anchor(self, virtual: float) -> None:
        self._anchor_virtual = virtual
        self._anchor_real = self._real()


def _checked(speed: float) -> float:
    if speed < 0 or speed != speed or speed == float("inf"):
        raise ValueError(f"speed: {speed} is not a speed; 0 stops the clock, 1 is real time, 60 makes an hour a minute")
    return speed


def moment(epoch: float) -> datetime:
    """An aware datetime with milliseconds, the resolution of AWS's own timestamps."""
    return datetime.fromtimestamp(round(epoch, 3), tz=UTC)


def iso(epoch: float) -> str:
    """`2026-01-05T10:15:00.123Z`, as the journal and AWS's string timestamps spell it."""
    return moment(epoch).isoformat(timespec="milliseconds").replace("+00:00", "Z")
