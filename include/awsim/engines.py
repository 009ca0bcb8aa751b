"""Which versions of a database engine does RDS offer, and from which one can a database go to which?

Read from `engines.yaml` beside this module. Asked by `services/rds` and, for the databases of a world, by `world_file.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineVersion:
    engine: str
    version: str
    major: str
    family: str
    description: str
    """The engine's, e.g. `PostgreSQL`."""
    automatic: bool
    """Automatic minor upgrades of older ones of its major version lead to it."""


@cache
def shipped() -> dict[str, tuple[EngineVersion, ...]]:
    """Engine -> its versions, oldest first."""
    data = yaml.safe_load((Path(__file__).parent / "engines.yaml").read_text(encoding="utf-8"))
    return {engine: tuple(_versions(engine, told)) for engine, told in data.items()}


def _versions(engine: str, told: dict[str, object]) -> Iterator[EngineVersion]:
    for major in told["majors"]:  # type: ignore[attr-defined]
        for version in major["versions"]:
            yield EngineVersion(
                engine=engine,
                version=version,
                major=major["major"],
                family=major["family"],
                description=str(told["description"]),
                automatic=version == major["automatic"],
            )


def find(engine: str, version: str) -> EngineVersion | None:
    return next((one for one in shipped().get(engine, ()) if one.version == version), None)


def targets(engine: str, version: str) -> list[EngineVersion]:
    """What a database of that version can be upgraded to, oldest first."""
    versions = shipped().get(engine, ())
    known = find(engine, version)
    return list(versions[versions.index(known) + 1 :]) if known is not None else []


def automatic(engine: str, version: str) -> EngineVersion | None:
    """Where an automatic minor upgrade would lead; None: it is there, or beyond."""
    known = find(engine, version)
    return next((one for one in targets(engine, version) if known and one.major == known.major and one.automatic), None)
