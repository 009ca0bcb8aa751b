"""Which runtimes does Lambda offer, on which system are they built, and until when?

Read from `runtimes.yaml` beside this module. Asked by `services/functions` and, for the functions of a world, by
`world_file.py`. The versions of a runtime are `services/functions/functions.py`'s: they depend on a world's time.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    name: str
    platform: str
    """Of the catalogue, whose packages it has."""
    packages: tuple[str, ...]
    deprecated: float
    """Since when it gets no updates."""
    ages: tuple[float, ...]
    """How many days before a world's start its versions appeared, oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A runtime version: the packages of one day."""

    runtime: str
    number: int
    at: float
    """When it appeared; it has the updates that were out a day before."""

    @property
    def built(self) -> float:
        return self.at - 86_400

    @property
    def label(self) -> str:
        """As functions log it."""
        return f"{self.runtime}.v{self.number}"

    def arn(self, region: str) -> str:
        digest = hashlib.sha256(self.label.encode()).hexdigest()
        return f"arn:aws:lambda:{region}::runtime:{digest}"


@cache
def shipped() -> dict[str, Runtime]:
    data = yaml.safe_load((Path(__file__).parent / "runtimes.yaml").read_text(encoding="utf-8"))
    return {
        name: Runtime(
            name=name,
            platform=told["platform"],
            packages=tuple(data["packages"]),
            deprecated=datetime.combine(told["deprecated"], datetime.min.time(), tzinfo=UTC).timestamp(),
            ages=tuple(data["ages"]),
        )
        for name, told in data["runtimes"].items()
    }
