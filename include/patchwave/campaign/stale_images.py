"""Which Auto Scaling groups would bring an unpatched host back?

A group makes its next instance from the image that its launch template names, whatever its instances have received since: a host
that was patched in place is gone with the next scale-in, and a scale-out brings one as old as the image (EC2 Auto Scaling user
guide, "Launch templates"). `verify` asks AWS after the last stage; the report lists what is found here, and says how the policy
has it handled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, StrictStr, model_validator

from patchwave.campaign.definition import Timeout
from patchwave.campaign.document import Misfit, Misplacement, Part
from patchwave.campaign.values import Cell, HostId

DOCUMENT = "images.stale"
"""Name under which a run's ledger holds `to_json`."""


class Handling(StrEnum):
    """What becomes of a group that would bring an unpatched host back."""

    NEXT_IMAGE = "next_image"  # the next image closes it, within a time
    ACCEPTED = "accepted"  # somebody accepts it, until a day


class StaleImages(Part):
    """How such groups are handled."""

    handled: Annotated[Handling, Field(
        description="`next_image`: the group's next image closes it, within `within` of the patching; after that it is called "
        "overdue. `accepted`: it is accepted until the day `until`, for the reason `because`.",
    )]  # fmt: skip
    within: Annotated[Timeout | None, Field(
        description="With next_image: the longest time from the patching of a host to a launch template with a newer image.",
        examples=["14d"],
    )] = None  # fmt: skip
    until: Annotated[date | None, Field(
        description="With accepted: the last day (UTC) on which it is.", examples=["2026-12-31"],
    )] = None  # fmt: skip
    because: Annotated[StrictStr, Field(
        max_length=300, description="With accepted: why, and by whom; the report quotes it.",
        examples=["CHG-4711, platform-security"],
    )] = ""  # fmt: skip

    @model_validator(mode="after")
    def _each_has_what_it_needs(self) -> Self:
        wanted = {Handling.NEXT_IMAGE: ("within",), Handling.ACCEPTED: ("until", "because")}[self.handled]
        found = [
            Misplacement(loc=(name,), message=f"is missing, and `handled: {self.handled}` needs it; allowed is {what}")
            for name, what in _NEEDED.items()
            if name in wanted and not getattr(self, name)
        ]
        found += [
            Misplacement(loc=(name,), message=f"says nothing with `handled: {self.handled}`; allowed is to leave it out")
            for name in _NEEDED
            if name not in wanted and getattr(self, name)
        ]
        if found:
            raise Misfit(found)
        return self


_NEEDED = {
    "within": "a duration such as 14d",
    "until": "a day such as 2026-12-31",
    "because": "a sentence that the report can quote",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """From what a group makes its instances.

    Attributes:
        source: where that stands, in words: ``launch template web-prod, version 3``; empty if AWS says nothing of it.
        image: id of the image; empty if AWS does not say which one it would take.
        made_at: when the image was made, by AWS's clock; None if AWS does not know the image.
        most: instances that the group may have at most: 0 brings nobody.
    """

    cell: Cell
    group: str
    source: str
    image: str
    made_at: datetime | None
    most: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Patched:
    """A member of a group that has received patches in place, last at that moment (AWS's clock)."""

    host: HostId
    cell: Cell
    group: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class StaleImage:
    """A group that would bring a host back without the patches that its members have.

    Attributes:
        hosts: members that received patches after the image was made.
        patched_at: when the last of them did.
        why: one sentence.
        handled: how, one sentence; empty if the policy says nothing, or what it says has run out.
        overdue: the policy's time for it is over.
    """

    cell: str
    group: str
    source: str
    image: str
    made_at: datetime | None
    hosts: int
    patched_at: datetime
    why: str
    handled: str
    overdue: bool


def found(
    origins: Iterable[Origin], patched: Iterable[Patched], rule: StaleImages | None, *, now: datetime
) -> tuple[StaleImage, ...]:
    """Groups that would bring an unpatched host back; what is not known counts as if it would.

    Args:
        origins: of every group that one of `patched` is in; one that is absent is gone, and brings nobody.
    """
    members: dict[tuple[Cell, str], list[Patched]] = {}
    for one in patched:
        members.setdefault((one.cell, one.group), []).append(one)
    made = []
    for origin in sorted(origins, key=lambda one: (one.cell, one.group)):
        newer = [
            one
            for one in members.get((origin.cell, origin.group), ())
            if origin.most and (origin.made_at is None or origin.made_at < one.at)
        ]
        if newer:
            last = max(one.at for one in newer)
            handled, overdue = _handled(rule, last, now)
            made.append(
                StaleImage(
                    cell=str(origin.cell), group=origin.group, source=origin.source, image=origin.image, made_at=origin.made_at,
                    hosts=len(newer), patched_at=last, why=_why(origin, last), handled=handled, overdue=overdue,
                )
            )  # fmt: skip
    return tuple(made)


def _why(origin: Origin, patched_at: datetime) -> str:
    after = f"its hosts were patched until {_moment(patched_at)}"
    if not origin.image:
        return f"AWS does not say which image {origin.source or 'it'} takes, and {after}"
    if origin.made_at is None:
        return f"AWS does not know the image {origin.image} that {origin.source} names, or when it was made, and {after}"
    return f"{origin.source} names image {origin.image} of {_moment(origin.made_at)}, and {after}"


def _handled(rule: StaleImages | None, patched_at: datetime, now: datetime) -> tuple[str, bool]:
    if rule is None:
        return "", False
    if rule.handled is Handling.NEXT_IMAGE:
        due = patched_at + (rule.within or timedelta())
        return f"the next image closes it, due by {_moment(due)}", due < now
    last = rule.until or date.min
    return f"accepted until {last:%Y-%m-%d}: {' '.join(rule.because.split())}", now.astimezone(UTC).date() > last


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def to_json(stale_images: Iterable[StaleImage], *, problem: str = "") -> dict[str, Any]:
    """As the ledger keeps it.

    Args:
        problem: why AWS could not be asked; empty if it was.
    """
    rows = [
        asdict(one) | {"made_at": one.made_at.isoformat() if one.made_at else None, "patched_at": one.patched_at.isoformat()}
        for one in stale_images
    ]
    return {"groups": rows, "problem": problem}


def from_json(content: Mapping[str, Any]) -> tuple[tuple[StaleImage, ...], str]:
    """What `to_json` wrote: the groups, and why AWS could not be asked."""
    rows = (
        StaleImage(
            **row
            | {
                "made_at": datetime.fromisoformat(row["made_at"]) if row["made_at"] else None,
                "patched_at": datetime.fromisoformat(row["patched_at"]),
            }
        )
        for row in content["groups"]
    )
    return tuple(rows), str(content["problem"])
