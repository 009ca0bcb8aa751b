"""Which version of a gold image may a level use? From the promotion records of the ledger, and from nothing else.

The ledger asks `refused` before it appends a record. Who replaces hosts asks `may_be_used`; retention and rollback ask
`standing` and `previous`. Whether a stage has run an image well is decided by whoever promotes it, not here.

A promotion and a quarantine are records, which are only ever appended. A quarantine ends a version at all levels and for good,
in whatever order the records came: two runs that promote and quarantine at the same moment cannot leave it in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from patchwave.campaign.values import RunId


class Level(StrEnum):
    """How far a version has come. A level other than `CANDIDATE` and `QUARANTINED` is one whose stages may use it."""

    CANDIDATE = "candidate"  # built, and its findings are within the policy
    DEV = "dev"
    STAGING = "staging"
    PROD = "prod"
    QUARANTINED = "quarantined"  # never to be used again


LADDER = (Level.CANDIDATE, Level.DEV, Level.STAGING, Level.PROD)
"""A version takes one step at a time: each level is the proof for the next one."""
USABLE = LADDER[1:]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotedImage:
    """One record: this version came to this level.

    Attributes:
        version: of the build, as Image Builder counts (``2026.11.24/1``).
        manifest: digest of the manifest, which says what is in it.
        amis: AMI id by region, at least one.
        run: who did it: the run in whose journal it stands.
        by: login name of who decided it; the DAG's id where no person did.
        reason: why, in one sentence.
    """

    image: str
    version: str
    manifest: str
    amis: Mapping[str, str]
    level: Level
    at: datetime
    run: RunId
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """No, and why."""

    reason: str


def standing(records: Iterable[PromotedImage], image: str) -> Mapping[Level, PromotedImage]:
    """What each level uses now: its newest version that is not quarantined. A level that has none is absent.

    Args:
        records: in the order in which they were appended, as the ledger gives them.
    """
    mine = tuple(record for record in records if record.image == image)
    return {level: its[-1] for level in LADDER if (its := _in_use(mine, level))}


def previous(records: Iterable[PromotedImage], image: str, level: Level) -> PromotedImage | None:
    """What the level would go back to if its version were quarantined; None: to nothing."""
    its = _in_use(tuple(record for record in records if record.image == image), level)
    return its[-2] if len(its) > 1 else None


def may_be_used(records: Iterable[PromotedImage], image: str, level: Level) -> PromotedImage | Refusal:
    """The version that stages of this level may use now, or why there is none."""
    mine = tuple(record for record in records if record.image == image)
    if level not in USABLE:
        return Refusal(reason=f"no stage uses an image of level {level}; a stage's level is {_or(USABLE)}")
    if not mine:
        return Refusal(reason=f"the ledger knows no image {image}: it was never built, or no build of it passed its gate")
    its = _in_use(mine, level)
    if its:
        return its[-1]
    ended = [record for record in mine if record.level is level]
    if ended:
        why = next(record for record in mine if record.level is Level.QUARANTINED and record.version == ended[-1].version)
        return Refusal(reason=f"every version of {image} at level {level} is quarantined, last {why.version}: {why.reason}")
    return Refusal(reason=f"no version of {image} has been promoted to {level}")


def refused(records: Iterable[PromotedImage], new: PromotedImage) -> Refusal | None:
    """Why this record must not be appended; None: it may be."""
    what = f"version {new.version} of {new.image}"
    mine = [record for record in records if (record.image, record.version) == (new.image, new.version)]
    if not new.amis:
        return Refusal(reason=f"{what} has no AMI in any region")
    if any((record.manifest, dict(record.amis)) != (new.manifest, dict(new.amis)) for record in mine):
        return Refusal(reason=f"{what} is known with another manifest or other AMIs, and a version never changes")
    levels = {record.level for record in mine}
    if new.level is Level.QUARANTINED:
        return None if levels else Refusal(reason=f"{what} is not known, so there is nothing to quarantine")
    if Level.QUARANTINED in levels:
        return Refusal(reason=f"{what} is quarantined and reaches no level any more")
    if new.level is Level.CANDIDATE:
        return None
    before = LADDER[LADDER.index(new.level) - 1]
    return None if before in levels else Refusal(reason=f"{what} cannot come to {new.level}: it has not been at {before}")


def _in_use(records: tuple[PromotedImage, ...], level: Level) -> list[PromotedImage]:
    ended = {record.version for record in records if record.level is Level.QUARANTINED}
    return [record for record in records if record.level is level and record.version not in ended]


def _or(levels: Iterable[Level]) -> str:
    *most, last = levels
    return f"{', '.join(most)} or {last}"
