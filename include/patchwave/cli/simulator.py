"""What does awsim say of itself? Its health, its clock and its journal, over HTTP; nothing of its code is known here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from patchwave.campaign.errors import Permanent


class UnknownClock(Permanent):
    """awsim's clock was not understood."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RehearsalClock:
    """The campaign's time while it rehearses: as much faster than ours as awsim's.

    Attributes:
        real: our epoch seconds at the anchor.
        virtual: awsim's epoch seconds at that moment.
        speed: virtual seconds per second of ours.
    """

    real: float
    virtual: float
    speed: float

    @property
    def setting(self) -> str:
        """As PATCHWAVE_REHEARSAL_CLOCK wants it."""
        return f"{self.real:.3f},{self.virtual:.3f},{self.speed:g}"

    def now(self, real: float) -> datetime:
        """The campaign's time at one of our moments (epoch seconds)."""
        return datetime.fromtimestamp(self.virtual + (real - self.real) * self.speed, tz=UTC)

    def seconds_until(self, moment: datetime, real: float) -> float | None:
        """How long that takes on our clocks; None if the clock stands still."""
        return (moment - self.now(real)).total_seconds() / self.speed if self.speed else None


class Awsim:
    """A running awsim, seen through its control routes (``/_awsim/...``)."""

    def __init__(self, address: str, *, real: Callable[[], float] = time.time) -> None:
        self.address = address
        self._real = real
        self._http = httpx.Client(base_url=address, timeout=30, trust_env=False)

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def healthy(self) -> bool:
        """Whether it answers; asked once, never raises."""
        try:
            return self._http.get("/_awsim/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, **params: Any) -> Any:
        """GET below ``/_awsim``."""
        return self._http.get(f"/_awsim{path}", params=params).raise_for_status().json()

    def post(self, path: str, body: Any = None) -> Any:
        """POST below ``/_awsim`` (faults, clock)."""
        answer = self._http.post(f"/_awsim{path}", json=body).raise_for_status()
        return answer.json() if answer.content else None

    def clock(self) -> RehearsalClock:
        """Its clock at this moment, anchored in ours."""
        before = self._real()
        said = self.get("/clock")
        return _clock(said, real=(before + self._real()) / 2)

    def journal(self) -> str:
        """What really happened to the hosts, JSON lines."""
        return self._http.get("/_awsim/journal", timeout=120).raise_for_status().text

    def save_journal(self, file: Path) -> int:
        """Write the journal into `file` and say how many records it has."""
        text = self.journal()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return sum(1 for line in text.splitlines() if line.strip())


def _clock(said: Any, *, real: float) -> RehearsalClock:
    try:
        return RehearsalClock(real=real, virtual=_epoch(said["now"]), speed=float(said["speed"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UnknownClock(f"awsim's clock should say 'now' and 'speed', it says {said!r}") from error


def _epoch(now: str | float) -> float:
    return datetime.fromisoformat(now).timestamp() if isinstance(now, str) else float(now)
