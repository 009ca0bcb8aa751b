"""What are the small values that every module of a campaign speaks in?

Shares, cells and ids: each a type of its own, so that 10 is never taken for 10 %.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NewType

HostId = NewType("HostId", str)
"""An EC2 instance id (``i-`` and 8 or 17 hex digits) or a hybrid node's (``mi-`` and 17)."""

StageName = NewType("StageName", str)
RunId = NewType("RunId", str)
"""``<dag id>/<dag run id>``: names one run of one campaign everywhere."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Cell:
    """One account in one region; everything on AWS's side happens in a cell.

    Attributes:
        account: twelve digits.
        region: e.g. ``eu-central-1``.
    """

    account: str
    region: str

    def __str__(self) -> str:
        return f"{self.account}/{self.region}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell that ``str(cell)`` named."""
        account, _, region = text.partition("/")
        return cls(account=account, region=region)


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """A part of a whole, above 0 and at most 1.

    Raises:
        ValueError: outside (0, 1].
    """

    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value <= 1:
            raise ValueError(f"a share lies above 0 % and at most at 100 %, not at {self.value:.0%}")

    def of(self, size: int) -> int:
        """That part of `size`, rounded up, at least one: a share never rounds down to nobody."""
        # 0.1 * 30 is 3.0000000000000004 in floating point: round off the noise before rounding up.
        return max(1, math.ceil(round(self.value * size, 9)))

    def at_most(self, size: int) -> int:
        """That part of `size`, rounded down: never more than was said, and of a few perhaps none."""
        return math.floor(round(self.value * size, 9))

    def __str__(self) -> str:
        return f"{self.value * 100:g} %"

    @classmethod
    def parse(cls, text: str) -> Share:
        """From ``10%`` or ``10 %``.

        Raises:
            ValueError: no percentage, or outside (0 %, 100 %].
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
        if not match:
            raise ValueError(f"{text!r} is no share; write a percentage such as '10%'")
        return cls(float(match[1]) / 100)


@dataclass(frozen=True, slots=True)
class Count:
    """A number of hosts, at least one. A concurrency is a `Share` or a `Count`."""

    value: int

    def __post_init__(self) -> None:
        if self.value < 1:
            raise ValueError(f"a count of hosts is at least 1, not {self.value}")

    def of(self, size: int) -> int:
        """That many, but no more than there are, and at least one."""
        return max(1, min(self.value, size))

    def __str__(self) -> str:
        return f"{self.value} host{'s' if self.value != 1 else ''}"
