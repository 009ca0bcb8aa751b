"""What does a campaign file say?

`dags/` reads the files, the first task of a run stores what was read in the ledger (a run is frozen), and every later task
works from that copy. Where a default depends on something (the first stage needs no approval, later ones do) it is resolved
here, so that readers see explicit values. When a schedule fires is the timetable's question; what a policy says is `policy`'s.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterError, croniter  # type: ignore[import-untyped]
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from patchwave.campaign import document, windows
from patchwave.campaign.document import FilePart, Misfit, Misplacement, Part
from patchwave.campaign.errors import InvalidFile, Permanent
from patchwave.campaign.settling import Service
from patchwave.campaign.values import Cell, Count, HostId, Share, StageName
from patchwave.campaign.windows import Closure, Window

PATCH_GROUP_KEYS = ("PatchGroup", "Patch Group")
"""AWS's two spellings of the tag: the second cannot be used where tags are readable from the instance metadata."""

VULNERABILITY_ID = "^(CVE-[0-9]{4}-[0-9]{4,}|ALAS[0-9A-Za-z.-]+|USN-[0-9-]+)$"
"""What Inspector calls vulnerabilities of operating systems by; the trigger form takes nothing else."""

LONGEST = timedelta(days=366)
UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class AmbiguousStage(Permanent):
    """A host's tags put it into more than one stage.

    Attributes:
        host: None where the caller asked about tags alone.
        stages: the names of the stages that select it.
    """

    def __init__(self, *, host: HostId | None, stages: tuple[StageName, ...]) -> None:
        self.host = host
        self.stages = stages
        super().__init__(
            f"{host or 'a host with these tags'} is selected by the stages {' and '.join(stages)}; "
            "a host belongs to one stage: change its tags or the stages' selectors"
        )


# --- Scalars: how a value is written in the file, and which value it becomes -------------------------------------------------


def duration(written: object) -> timedelta:
    """From ``30m``, ``24h``, ``2d`` or ``90s``: a whole number and its unit.

    Raises:
        ValueError: no unit, another unit, or longer than a year.
    """
    if isinstance(written, timedelta):
        return written
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", written) if isinstance(written, str) else None
    if not match:
        lacking = "a duration needs a unit: " if isinstance(written, int | float) else ""
        raise ValueError(f"{lacking}allowed is a whole number with s, m, h or d, such as '30m', '24h' or '2d'")
    if int(match[1]) > LONGEST // UNITS[match[2]]:
        raise ValueError(f"allowed is at most {LONGEST.days}d")
    return int(match[1]) * UNITS[match[2]]


def written_duration(value: timedelta) -> str:
    """As `duration` reads it, in the largest unit that loses nothing."""
    for unit in ("d", "h", "m"):
        if value and value % UNITS[unit] == timedelta():
            return f"{value // UNITS[unit]}{unit}"
    return f"{value // UNITS['s']}s"


def _lasting(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("allowed is more than zero, such as '30m'")
    return value


def share(written: str) -> Share:
    """From ``10%`` or ``12.5%``.

    Raises:
        ValueError: no percentage, 0 %, over 100 %, or finer than a ten-thousandth of a percent.
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,4})? ?%", written):
        raise ValueError("allowed is a percentage such as '10%' or a whole number of hosts such as 5")
    try:
        return Share.parse(written)
    except ValueError as error:
        raise ValueError(f"{error}; allowed is a percentage above 0% and at most 100%, such as '10%'") from None


def written_share(value: Share) -> str:
    """As `share` reads it."""
    return f"{value.value * 100:.10g}%"


def concurrency(written: object) -> Share | Count:
    """From ``'10%'`` or ``5``; never from 0.1, which some would read as 10 % and others as a typing error.

    Raises:
        ValueError: neither a percentage in (0, 100] nor a count of at least 1.
    """
    if isinstance(written, Share | Count):
        return written
    if isinstance(written, str):
        return share(written)
    if isinstance(written, int) and not isinstance(written, bool):
        if written < 1:
            raise ValueError("allowed is a count of at least 1 host, or a percentage such as '10%'")
        return Count(written)
    raise ValueError("allowed is a percentage such as '10%' or a whole number of hosts such as 5")


def error_budget(written: object) -> Share | int:
    """From ``2`` (hosts; 0 allows none) or ``'5%'``.

    Raises:
        ValueError: neither.
    """
    if isinstance(written, Share):
        return written
    if isinstance(written, str):
        return share(written)
    if isinstance(written, int) and not isinstance(written, bool) and written >= 0:
        return written
    raise ValueError("allowed is a whole number of hosts, 0 or more, or a percentage such as '5%'")


def clock_time(written: object) -> time:
    """From ``'22:00'``: hour and minute as clocks show them.

    Raises:
        ValueError: neither; without quotes YAML reads 22:00 as the number 1320.
    """
    if isinstance(written, time):
        return written
    match = re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])", written) if isinstance(written, str) else None
    if not match:
        quotes = " in quotes (YAML reads 22:00 without them as a number)" if isinstance(written, int) else ""
        raise ValueError(f"allowed is a time of day from '00:00' to '23:59'{quotes}")
    return time(int(match[1]), int(match[2]))


def written_clock_time(value: time) -> str:
    """As `clock_time` reads it."""
    return f"{value:%H:%M}"


def moment(written: object) -> date | datetime:
    """From ``2026-12-19`` (a day), ``2026-12-19T18:00`` (a local time) or ``2026-12-19T18:00+01:00`` (a moment).

    Raises:
        ValueError: none of them.
    """
    if isinstance(written, date):
        return written
    if isinstance(written, str):
        day = re.fullmatch(r"\d{4}-\d{2}-\d{2}", written)
        if day or re.fullmatch(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?", written):
            try:
                return date.fromisoformat(written) if day else datetime.fromisoformat(written)
            except ValueError as error:
                raise ValueError(f"there is no such moment ({error}); allowed is one of the calendar") from None
    raise ValueError("allowed is a day such as 2026-12-19, a local time such as 2026-12-19T18:00, or a moment such as "
                     "2026-12-19T18:00+01:00")  # fmt: skip


def day(written: object) -> date:
    """From ``2026-12-31``.

    Raises:
        ValueError: another text, a moment, or a day that the calendar does not have.
    """
    if type(written) is date:
        return written
    if isinstance(written, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", written):
        try:
            return date.fromisoformat(written)
        except ValueError:
            pass
    raise ValueError("allowed is a day such as 2026-12-31")


def local_time(written: object) -> datetime:
    """From ``2026-11-10T22:00``: a day and a time as clocks show them, without a zone.

    Raises:
        ValueError: none, or with a zone.
    """
    found = moment(written)
    if not isinstance(found, datetime) or found.tzinfo is not None:
        raise ValueError("allowed is a local time without an offset such as 2026-11-10T22:00; the zone stands in timezone")
    return found


def written_moment(value: date | datetime) -> str:
    """As `moment` reads it."""
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else value.isoformat()


def _written(value: Share | Count | int) -> str | int:
    if isinstance(value, Share):
        return written_share(value)
    return value.value if isinstance(value, Count) else value


def _tag_values(written: object) -> object:
    """One value may be written without a list."""
    return [written] if isinstance(written, str) else written


def matching(pattern: str, allowed: str, *, longest: int = 1000) -> AfterValidator:
    """Text that the pattern matches as a whole.

    Args:
        allowed: what to write, for the message.
        longest: characters.
    """

    def check(value: str) -> str:
        if len(value) > longest or not re.fullmatch(pattern, value):
            raise ValueError(f"allowed is {allowed}")
        return value

    return AfterValidator(check)


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(map(repr, twice))} is named twice; allowed is once")
    return values


def _named(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("allowed is a list with at least one entry")
    return values


Duration = Annotated[
    timedelta,
    PlainValidator(duration),
    PlainSerializer(written_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+[smhd]$", "examples": ["30m", "24h", "2d"]}),
]
Timeout = Annotated[Duration, AfterValidator(_lasting)]
PERCENTAGE = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?%$", "examples": ["10%"]}
Concurrency = Annotated[
    Share | Count,
    PlainValidator(concurrency),
    PlainSerializer(_written, return_type=str | int),
    WithJsonSchema({"anyOf": [PERCENTAGE, {"type": "integer", "minimum": 1}]}),
]
ErrorBudget = Annotated[
    Share | int,
    PlainValidator(error_budget),
    PlainSerializer(_written, return_type=str | int),
    WithJsonSchema({"anyOf": [PERCENTAGE, {"type": "integer", "minimum": 0}]}),
]
ClockTime = Annotated[
    time,
    PlainValidator(clock_time),
    PlainSerializer(written_clock_time, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "examples": ["22:00"]}),
]
Moment = Annotated[
    date | datetime,
    PlainValidator(moment),
    PlainSerializer(written_moment, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2026-12-19", "2026-12-19T18:00", "2026-12-19T18:00+01:00"]}),
]
Day = Annotated[
    date,
    PlainValidator(day),
    PlainSerializer(date.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "examples": ["2026-12-31"]}),
]
LocalTime = Annotated[
    datetime,
    PlainValidator(local_time),
    PlainSerializer(written_moment, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2026-11-10T22:00"]}),
]
Slug = Annotated[
    StrictStr,
    matching(r"[a-z0-9]+(-[a-z0-9]+)*", "lower-case letters, digits and dashes, at most 100, such as 'weekly'", longest=100),
    Field(json_schema_extra={"pattern": "^[a-z0-9]+(-[a-z0-9]+)*$", "maxLength": 100}),
]
StageSlug = Annotated[
    StageName,
    Field(strict=True),
    matching(r"[a-z0-9]+([_-][a-z0-9]+)*", "lower-case letters, digits, dashes or _, at most 40, such as 'dev'", longest=40),
    Field(json_schema_extra={"pattern": "^[a-z0-9]+([_-][a-z0-9]+)*$", "maxLength": 40}),
]
Line = Annotated[StrictStr, matching(r"\S(.*\S)?", "one line of text that is not empty")]
Login = Annotated[StrictStr, matching(r"[^\s,;]{1,256}", "a login name without spaces")]
TagKey = Annotated[StrictStr, matching(r"(?s).{1,128}", "a tag key of 1 to 128 characters")]
TagValue = Annotated[StrictStr, matching(r"(?s).{0,256}", "a tag value of at most 256 characters")]
Tags = Mapping[
    TagKey,
    Annotated[tuple[TagValue, ...], BeforeValidator(_tag_values), AfterValidator(_named), AfterValidator(_unique)],
]
TAGS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
}


def carries(tags: Mapping[str, str], wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a host's tags hold, for every wanted key, one of its values; case-sensitive, as AWS's tags are."""
    return all(key in tags and tags[key] in values for key, values in wanted.items())


# --- The parts of a campaign ------------------------------------------------------------------------------------------------


def _is_cron(value: str) -> str:
    fields = value.split()
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)} fields; allowed are five: minute hour day-of-month month day-of-week")
    if not re.fullmatch(r"[0-9A-Za-z*/,#\- ]+", " ".join(fields)) or re.search(r"(?i)(?<![a-z])[hr](?![a-z])", value):
        raise ValueError("allowed are numbers, names of months and days, and * / , - #")
    try:
        croniter(value, datetime(2026, 1, 1, tzinfo=UTC), max_years_between_matches=8).get_next(datetime)
    except (CroniterError, ValueError, KeyError) as error:
        raise ValueError(f"it names no moment ({error}); allowed is a cron such as '0 22 * * 2'") from None
    if fields[2] != "*" and fields[4] != "*":
        # cron means "or" here: '0 22 8-14 * 2' is every Tuesday and every one of these seven days.
        raise ValueError(
            "cron takes day-of-month and day-of-week as 'either', not as 'both'; allowed is one of them: "
            "write the second Tuesday as '0 22 * * 2#2'"
        )
    return " ".join(fields)


def _is_zone(value: str) -> str:
    if value not in _zones():
        near = difflib.get_close_matches(value, sorted(_zones()), n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"there is no such time zone{meant}; allowed is an IANA name such as 'Europe/Vienna'")
    return value


Cron = Annotated[StrictStr, AfterValidator(_is_cron)]
Zone = Annotated[StrictStr, AfterValidator(_is_zone)]
CRON = (
    "Five fields: minute, hour, day of month, month, day of week (0 or 7 is Sunday; '2#2' is the second Tuesday). No default: "
    "a moment that nobody chose is no moment to patch."
)
ZONE = (
    "IANA time zone in which it is read, daylight saving included. No default: the zone of a server says nothing about the "
    "night of the people whose hosts are patched."
)


def _needs(part: Part, names: Collection[str], because: str) -> Iterator[Misplacement]:
    """Fields that must be given beside another one."""
    for name in names:
        if getattr(part, name) is None:
            about = type(part).model_fields[name].description
            yield Misplacement(loc=(name,), message=f"is missing; it must be given {because} ({about})")


def _useless(part: Part, names: Collection[str], because: str) -> Iterator[Misplacement]:
    """Fields that say nothing beside another one."""
    for name in names:
        if getattr(part, name) is not None:
            yield Misplacement(loc=(name,), message=f"says nothing {because}; allowed is to leave it out")


def _one_of(part: Part, names: Sequence[str]) -> str:
    """The one of these fields that is given.

    Raises:
        ValueError: none, or more than one.
    """
    given = [name for name in names if getattr(part, name) is not None]
    if len(given) != 1:
        raise ValueError(f"found {' and '.join(given) or 'none'} of {', '.join(names)}; allowed is exactly one of them")
    return given[0]


class PatchTuesday(Part):
    """The second Tuesday of the month, when Microsoft and others release, and some days more."""

    plus_days: Annotated[StrictInt, Field(
        ge=0, le=27,
        description="Days after the second Tuesday, 0 to 27. No default: how long others go first, somebody decides.",
        examples=[3],
    )]  # fmt: skip
    at: Annotated[ClockTime, Field(description="Time of day in `timezone`, in quotes.", examples=["22:00"])]
    timezone: Annotated[Zone, Field(description=ZONE, examples=["Europe/Berlin"])]


class Weekday(StrEnum):
    """A day of the week, Monday first."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class Weekly(Part):
    """The same days of every week at a local time."""

    on: Annotated[
        tuple[Weekday, ...], BeforeValidator(_tag_values), AfterValidator(_named), AfterValidator(_unique),
        Field(description="One day of the week or a list of them.", min_length=1, examples=["tuesday"], json_schema_extra={
            "anyOf": [{"enum": list(Weekday)}, {"type": "array", "items": {"enum": list(Weekday)}}],
        }),
    ]  # fmt: skip
    at: Annotated[ClockTime, Field(description="Time of day in `timezone`, in quotes.", examples=["22:00"])]
    timezone: Annotated[Zone, Field(description=ZONE, examples=["Europe/Berlin"])]


class Schedule(Part):
    """When the campaign starts by itself: by exactly one of `cron`, `patch_tuesday` and `weekly`."""

    cron: Annotated[Cron | None, Field(description=CRON, examples=["0 22 * * 2"])] = None
    timezone: Annotated[Zone | None, Field(description=f"{ZONE} Beside `cron` only.", examples=["Europe/Vienna"])] = None
    patch_tuesday: Annotated[PatchTuesday | None, Field(
        description="The second Tuesday of the month plus some days. Default: not so.",
    )] = None  # fmt: skip
    weekly: Annotated[Weekly | None, Field(description="Days of every week. Default: not so.")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kind = _one_of(self, ("cron", "patch_tuesday", "weekly"))
        found = _needs(self, ("timezone",), "beside cron") if kind == "cron" else _useless(self, ("timezone",), f"beside {kind}")
        if problems := list(found):
            raise Misfit(problems)
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone itself."""
        inner = self.patch_tuesday or self.weekly
        return ZoneInfo(inner.timezone if inner else self.timezone or "UTC")

    def __str__(self) -> str:
        if self.patch_tuesday is not None:
            its = self.patch_tuesday
            later = f" plus {its.plus_days} day{'s' if its.plus_days != 1 else ''}" if its.plus_days else ""
            return f"second Tuesday of the month{later} at {its.at:%H:%M} ({its.timezone})"
        if self.weekly is not None:
            days = ", ".join(day.value.capitalize() for day in self.weekly.on)
            return f"every {days} at {self.weekly.at:%H:%M} ({self.weekly.timezone})"
        return f"`{self.cron}` ({self.timezone})"


class MaintenanceWindow(Part):
    """A maintenance window of Systems Manager: one that is there (its name or id alone), or one that is declared here."""

    name: Annotated[
        StrictStr,
        matching(r"[A-Za-z0-9_.-]{3,128}", "3 to 128 letters, digits and _ - ., or an id such as 'mw-0123456789abcdef0'"),
        Field(description="Its name in every cell where the stage has hosts, or its id. No default.", examples=["prod-nights"]),
    ]
    schedule: Annotated[
        Annotated[StrictStr, matching(r"(cron|rate|at)\([^()]+\)", "cron(...), rate(...) or at(...) as Systems Manager reads it")]
        | None,
        Field(
            description="When it opens, as Systems Manager writes it. Given here, the window is created and kept so; default: it "
            "is read and never changed.",
            examples=["cron(0 22 ? * TUE *)"],
        ),
    ] = None
    timezone: Annotated[Zone | None, Field(description=f"{ZONE} Beside `schedule` only.", examples=["Europe/Vienna"])] = None
    duration: Annotated[Timeout | None, Field(
        description="How long it stays open, whole hours from 1h to 24h. Beside `schedule` only.", examples=["4h"],
    )] = None  # fmt: skip
    cutoff: Annotated[Duration | None, Field(
        description="How long before its end nothing more is begun, whole hours, less than `duration`. Default 0h, beside "
        "`schedule` only: what would not be over in time is not begun anyway.",
        examples=["1h"],
    )] = None  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, written: Any) -> Any:
        return {"name": written} if isinstance(written, str) else written

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return {"anyOf": [{"type": "string", "examples": ["prod-nights"]}, handler(schema)]}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.schedule is None:
            found = [*_useless(self, ("timezone", "duration", "cutoff"), "without schedule")]
        else:
            found = [*_needs(self, ("timezone", "duration"), "beside schedule"), *self._wrong_hours()]
            if self.is_id:
                found.append(Misplacement(loc=("name",), message=f"found {self.name!r}, which is an id; allowed is a name: AWS "
                                          "chooses the id of what is created"))  # fmt: skip
        if found:
            raise Misfit(found)
        return self

    def _wrong_hours(self) -> Iterator[Misplacement]:
        hour = timedelta(hours=1)
        if self.duration is not None and (self.duration % hour or self.duration > 24 * hour):
            yield Misplacement(loc=("duration",), message=f"found {written_duration(self.duration)!r}; allowed are whole hours "
                               "from 1h to 24h")  # fmt: skip
        if self.cutoff is not None and (self.cutoff % hour or (self.duration is not None and self.cutoff >= self.duration)):
            yield Misplacement(loc=("cutoff",), message=f"found {written_duration(self.cutoff)!r}; allowed are whole hours, less "
                               "than duration")  # fmt: skip

    @property
    def is_id(self) -> bool:
        """Whether it is named by its id."""
        return re.fullmatch(r"mw-[0-9a-f]{17}", self.name) is not None

    @property
    def is_declared(self) -> bool:
        """Whether it is to be created and kept as this file says."""
        return self.schedule is not None


class StageWindow(Part):
    """When a stage's hosts may be disrupted: by exactly one of `cron`, `rrule` and `maintenance_window`."""

    cron: Annotated[Cron | None, Field(description=CRON, examples=["0 22 * * 2"])] = None
    rrule: Annotated[StrictStr | None, Field(
        description="A recurrence rule of iCalendar (RFC 5545) with FREQ DAILY, WEEKLY, MONTHLY or YEARLY; its time of day is "
        "that of `starts`. Default: not so.",
        examples=["FREQ=MONTHLY;BYDAY=2TU"],
    )] = None  # fmt: skip
    starts: Annotated[LocalTime | None, Field(
        description="The first opening by `rrule`, as clocks in `timezone` show it. Beside `rrule` only.",
        examples=["2026-11-10T22:00"],
    )] = None  # fmt: skip
    maintenance_window: Annotated[MaintenanceWindow | None, Field(
        description="Name or id of a maintenance window of Systems Manager, whose schedule, duration and cutoff hold as AWS has "
        "them at that time; or all of it, and it is created and kept so. Default: not so.",
    )] = None  # fmt: skip
    duration: Annotated[Timeout | None, Field(
        description="How long it stays open, with unit, in real time: a night in which the clock is changed makes it no "
        "longer. A host is begun only if it is expected to be through before it closes. No default: how long hosts may be "
        "away, their owners decide.",
        examples=["4h"],
    )] = None  # fmt: skip
    timezone: Annotated[Zone | None, Field(description=ZONE, examples=["Europe/Vienna"])] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kind = _one_of(self, ("cron", "rrule", "maintenance_window"))
        found: list[Misplacement] = []
        if kind == "maintenance_window":
            found += _useless(self, ("starts", "duration", "timezone"), "beside maintenance_window, which has its own")
        else:
            found += _needs(self, ("duration", "timezone"), f"beside {kind}")
            found += _needs(self, ("starts",), "beside rrule") if kind == "rrule" else _useless(self, ("starts",), "beside cron")
        if not found and self.rrule is not None:
            found += self._wrong_rule(self.rrule)
        if found:
            raise Misfit(found)
        return self

    def _wrong_rule(self, text: str) -> Iterator[Misplacement]:
        if self.starts is None or self.timezone is None:
            return
        try:
            first = windows.first_of(text, self.starts, self.timezone)
        except ValueError as error:
            yield Misplacement(loc=("rrule",), message=f"found {document.shown(text)}; {error}")
            return
        if first is None:
            yield Misplacement(loc=("rrule",), message=f"found {document.shown(text)}, which names no moment within eight years; "
                               "allowed is a rule such as 'FREQ=MONTHLY;BYDAY=2TU'")  # fmt: skip
        elif first != self.starts:
            yield Misplacement(loc=("starts",), message=f"found '{self.starts:%Y-%m-%dT%H:%M}', which rrule does not name; "
                               f"allowed is its first opening, such as {first:%Y-%m-%dT%H:%M}")  # fmt: skip

    @property
    def window(self) -> Window:
        """As the plan and the rollout know it."""
        if self.maintenance_window is not None:
            return Window(maintenance_window=self.maintenance_window.name)
        return Window(
            cron=self.cron or "", rrule=self.rrule or "", starts=self.starts, duration=self.duration or timedelta(),
            timezone=self.timezone or "UTC",
        )  # fmt: skip


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


class AccountCells(Part):
    """One account and the regions of it that belong to the scope."""

    account: Annotated[
        StrictStr,
        matching(r"[0-9]{12}", "an AWS account id: twelve digits in quotes"),
        Field(description="AWS account id: twelve digits, in quotes (leading zeros count).", examples=["111111111111"]),
    ]
    regions: Annotated[
        tuple[Annotated[StrictStr, matching(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}", "a region such as 'eu-central-1'")], ...],
        AfterValidator(_named),
        Field(description="Regions of that account. No default: a region that nobody named is not patched.", min_length=1),
    ]


class Scope(Part):
    """Which part of the world the campaign may touch."""

    cells: Annotated[
        tuple[AccountCells, ...],
        AfterValidator(_named),
        Field(description="Accounts and their regions. No default: the blast radius is always written down.", min_length=1),
    ]
    tags: Annotated[Tags, Field(
        default_factory=dict,
        description="Tags that a host must carry to be in the scope at all, each with one value or a list of allowed ones; "
        "all keys must match. Default: none, since the stages select by tags anyway.",
        json_schema_extra=TAGS_SCHEMA,
    )]  # fmt: skip

    @model_validator(mode="after")
    def _each_cell_once(self) -> Self:
        seen: set[tuple[str, str]] = set()
        found: list[Misplacement] = []
        for number, cell in enumerate(self.cells):
            for index, region in enumerate(cell.regions):
                if (cell.account, region) in seen:
                    found.append(Misplacement(loc=("cells", number, "regions", index),
                                              message=f"found {cell.account}/{region} twice; allowed is once"))  # fmt: skip
                seen.add((cell.account, region))
        if found:
            raise Misfit(found)
        return self


class Select(Part):
    """Which hosts belong to a stage: one of the patch groups (if any are named) and every tag (if any are named)."""

    patch_groups: Annotated[
        tuple[Annotated[StrictStr, matching(r"(?s).{1,256}", "a patch group's name of 1 to 256 characters")], ...],
        AfterValidator(_unique),
        Field(
            description="Values of the host's tag `PatchGroup` or `Patch Group`; one of them is enough. Default: none, for "
            "stages that select by other tags.",
            examples=[["linux-dev"]],
        ),
    ] = ()
    tags: Annotated[Tags, Field(
        default_factory=dict,
        description="Other tags, each with one value or a list of allowed ones; all keys must match. Default: none, for "
        "stages that select by patch group.",
        json_schema_extra=TAGS_SCHEMA,
    )]  # fmt: skip

    @model_validator(mode="after")
    def _something(self) -> Self:
        for key in PATCH_GROUP_KEYS:
            if key in self.tags:
                raise Misfit([Misplacement(loc=("tags", key), message=f"found the patch group tag {key!r} among the other "
                                           "tags; allowed is patch_groups, which reads both spellings")])  # fmt: skip
        if not self.patch_groups and not self.tags:
            raise ValueError("it selects no tag; allowed is at least one of patch_groups and tags, or it would select every host")
        return self

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Whether a host with these tags is selected."""
        group = not self.patch_groups or any(tags.get(key) in self.patch_groups for key in PATCH_GROUP_KEYS)
        return group and carries(tags, self.tags)

    def certainly_meets(self, other: Select) -> bool:
        """Whether some set of tags that satisfies one of the two, with nothing added, also satisfies the other.

        True if the keys of one are among the keys of the other and every common key has a common value. Selectors with
        different keys may meet on a live host; `Campaign.stage_of` reports that with the host.
        """
        mine, theirs = self._wanted(), other._wanted()
        if not (mine.keys() <= theirs.keys() or theirs.keys() <= mine.keys()):
            return False
        return all(mine[key] & theirs[key] for key in mine.keys() & theirs.keys())

    def _wanted(self) -> dict[str, frozenset[str]]:
        wanted = {key: frozenset(values) for key, values in self.tags.items()}
        return {**wanted, PATCH_GROUP_KEYS[0]: frozenset(self.patch_groups)} if self.patch_groups else wanted

    def __str__(self) -> str:
        parts = [f"patch group {' or '.join(self.patch_groups)}"] if self.patch_groups else []
        return ", ".join([*parts, *(f"{key}={' or '.join(values)}" for key, values in self.tags.items())])


class Approval(Part):
    """Who must agree before a stage is patched."""

    required: StrictBool = Field(
        default=True,
        description="Whether the stage waits for a yes. Default: false for the first stage, which is there to be broken "
        "first, and true for every later one.",
    )
    approvers: Annotated[tuple[Login, ...], AfterValidator(_unique), Field(
        description="Login names of the people who may answer. Must name somebody where an approval is required: a gate "
        "that anybody may open is none. Who asked for the run by hand does not count, even if named.",
        examples=[["olga", "ana"]],
    )] = ()  # fmt: skip
    roles: Annotated[tuple[StrictStr, ...], AfterValidator(_unique), Field(
        description="Names of the campaign's `roles` whose people may answer, too. Default: none.",
        examples=[["on-call"]],
    )] = ()  # fmt: skip
    quorum: Annotated[StrictInt, Field(
        ge=1,
        description="How many different people have to say yes; one no is enough to stop. Default 1: the second pair of eyes "
        "beside who asked for the run.",
    )] = 1  # fmt: skip
    tolerance: Annotated[ErrorBudget | None, Field(
        description="By how many hosts (2; 0 tolerates none), or by which percentage of them, rounded down ('10%'), the stage "
        "may differ from the plan that was shown before an approval is void and asked for again with the difference. Default: "
        "by any number, since hosts that appear meanwhile are patched with the others, and the plan says so.",
    )] = None  # fmt: skip
    timeout: Annotated[Timeout, Field(
        description="How long the question waits, with unit; silence means no. Default 24h: every time zone has a working "
        "day in it, and the findings are still those that were shown.",
    )] = timedelta(hours=24)  # fmt: skip

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.required and not self.approvers and not self.roles:
            raise ValueError("the stage needs an approval and nobody may give it; allowed is approvers with at least one login "
                             "name, roles with at least one role, or required: false")  # fmt: skip
        return self


class HealthCheck(StrEnum):
    """Who is asked whether a patched host is well."""

    EC2 = "ec2"  # instance and system status checks
    SSM = "ssm"  # the agent's ping
    AUTOSCALING = "autoscaling"  # the group's view of its members


class Health(Part):
    """How a stage is judged after it was patched."""

    checks: Annotated[tuple[HealthCheck, ...], Field(
        description="Which checks must pass for every host. Default: all; a check that does not concern a host (no Auto "
        "Scaling group) passes.",
    )] = tuple(HealthCheck)  # fmt: skip
    timeout: Annotated[Timeout, Field(
        description="How long hosts may take to become healthy, with unit. Default 30m: a reboot, two status checks and a "
        "load balancer's warm-up fit into it.",
    )] = timedelta(minutes=30)  # fmt: skip


class Stage(Part):
    """A ring of hosts that is patched under one set of rules."""

    name: Annotated[StageSlug, Field(description="Name of the stage; part of its task ids.", examples=["dev"])]
    select: Annotated[Select, Field(description="Which hosts belong to it. No default: a stage never means every host.")]
    concurrency: Annotated[Concurrency | None, Field(
        description="How many hosts of a failure domain (Auto Scaling group, target group, Availability Zone, the stage) may be "
        "disrupted at once: a percentage of them, rounded up, at least one ('10%'), or a number of hosts (5). Default by the "
        "stage's hosts, as AWS's Patch now has it: one at a time below 25, 5% up to 100, 8% up to 1,000, 10% above.",
    )] = None  # fmt: skip
    error_budget: Annotated[ErrorBudget, Field(
        description="How many hosts may fail before the stage halts: hosts (2; 0 tolerates none) or a percentage of the "
        "stage, rounded down ('5%'). Default 0: whoever tolerates failures says so.",
    )] = 0  # fmt: skip
    window: Annotated[StageWindow | None, Field(
        description="When its hosts may be disrupted. Default: at any time once the stage's turn has come. Where there is one, "
        "the stage waits for its opening, and hosts that no longer fit into it end as `out_of_window`.",
    )] = None  # fmt: skip
    soak: Annotated[Duration, Field(
        description="How long to watch the stage after it was patched, before the next one, with unit. Default 1h: services "
        "have started and a first hour of traffic was seen; '0m' means none.",
    )] = timedelta(hours=1)  # fmt: skip
    approval: Annotated[Approval, Field(
        description="Who must agree before it is patched. Default: nobody for the first stage; later stages must say.",
    )]  # fmt: skip
    health: Annotated[Health, Field(
        default_factory=Health, description="How its hosts are judged after patching. Default: all checks, 30m.",
    )]  # fmt: skip
    managed_services: Annotated[tuple[Service, ...], AfterValidator(_unique), Field(
        description="Services whose resources the stage changes after its hosts, as the policy's `managed_services` says: `rds`, "
        "`lambda`. Those that carry the stage's tags belong to it. Default: none; where another stage of the campaign names one, "
        "the plan lists what would be done.",
        examples=[["rds", "lambda"]],
    )] = ()  # fmt: skip

    @model_serializer(mode="wrap")
    def _as_before_without_managed_services(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = made(self)  # a campaign of earlier versions keeps its digest
        if not self.managed_services:
            content.pop("managed_services", None)
        return content

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Whether a host with these tags belongs to the stage."""
        return self.select.matches(tags)

    def errors_allowed(self, size: int) -> int:
        """How many of `size` hosts may fail; one more halts the stage. A share rounds down: never more than was said."""
        return self.error_budget if isinstance(self.error_budget, int) else self.error_budget.at_most(size)

    @property
    def is_production(self) -> bool:
        """Whether its name, its patch groups or its tags' values say so. `non-prod` and `pre-prod` do not."""
        words = [str(self.name), *self.select.patch_groups, *(value for values in self.select.tags.values() for value in values)]
        return any(_says_production(word) for word in words)


def _says_production(text: str) -> bool:
    parts = [part for part in re.split(r"[^a-z]+", text.lower()) if part]
    before = [None, *parts]
    return any(
        part in {"prod", "production", "prd"} and previous not in {"non", "not", "no", "pre"}
        for previous, part in zip(before, parts, strict=False)
    )


class Verify(Part):
    """How the result is proven."""

    config_rules: Annotated[
        tuple[Annotated[StrictStr, matching(r"[A-Za-z0-9_-]{1,128}", "the name of an AWS Config rule")], ...],
        AfterValidator(_named),
        AfterValidator(_unique),
        Field(
            description="AWS Config rules that must hold for every host of the scope. Default: the managed rule that reads "
            "SSM's patch compliance.",
            min_length=1,
        ),
    ] = ("ec2-managedinstance-patch-compliance-status-check",)
    timeout: Annotated[Timeout, Field(
        description="How long to wait until Config has evaluated after the patch, with unit; what is not evaluated then is "
        "unknown. Default 6h: Config takes minutes after a change, Inspector up to 90 minutes, both more on a bad day.",
    )] = timedelta(hours=6)  # fmt: skip


class Remediate(Part):
    """Where what is left over may be remediated without a further question."""

    stages: Annotated[tuple[StrictStr, ...], AfterValidator(_unique), Field(
        description="Names of the stages whose hosts may be remediated. Default: none; remediation changes hosts beyond "
        "the plan that was approved.",
    )] = ()  # fmt: skip
    allow_prod: StrictBool = Field(
        default=False,
        description="Whether `stages` may name one that is called or tagged prod. Default false: people remediate production.",
    )


class Event(StrEnum):
    """What somebody may want to be told about."""

    APPROVAL_REQUESTED = "approval_requested"
    STAGE_HALTED = "stage_halted"
    RUN_FAILED = "run_failed"
    RUN_FINISHED = "run_finished"


class Notification(Part):
    """One way of telling about some events."""

    on: Annotated[tuple[Event, ...], AfterValidator(_named), AfterValidator(_unique), Field(
        description="Events to tell about.", min_length=1,
    )]  # fmt: skip
    email: Annotated[
        Annotated[StrictStr, matching(r"[^\s@,;]+@[^\s@,;]+", "an e-mail address")] | None,
        Field(description="Address to write to. Default: nobody."),
    ] = None
    log: Annotated[
        Literal["info", "warning", "error"] | None,
        Field(description="Level of a line in the task log. Default: no line."),
    ] = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.email is None) == (self.log is None):
            raise ValueError("allowed is exactly one of email and log")
        return self


class Freeze(Part):
    """A time in which nothing is begun, whatever the windows say."""

    model_config = ConfigDict(serialize_by_alias=True)

    from_: Annotated[Moment, Field(
        alias="from",
        description="Its beginning: a day (from its first minute on), a local time, or a moment with an offset.",
        examples=["2026-12-19"],
    )]  # fmt: skip
    to: Annotated[Moment, Field(
        description="Its end: a day (up to and with its last minute), a local time, or a moment with an offset.",
        examples=["2027-01-06"],
    )]  # fmt: skip
    reason: Annotated[Line, Field(description="Why, in one line; whoever waits reads it.", examples=["year-end trading"])]
    timezone: Annotated[Zone | None, Field(
        description="IANA time zone in which days and local times are read; must be given beside such.",
        examples=["Europe/Vienna"],
    )] = None  # fmt: skip
    stages: Annotated[tuple[StrictStr, ...], AfterValidator(_unique), Field(
        description="Names of the stages that it concerns. Default: all.",
    )] = ()  # fmt: skip

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.timezone is None and not (_is_exact(self.from_) and _is_exact(self.to)):
            raise Misfit([*_needs(self, ("timezone",), "beside days and local times")])
        closure = self.closure
        if closure.ends is not None and closure.ends <= closure.begins:
            raise Misfit([Misplacement(loc=("to",), message=f"found {written_moment(self.to)!r}, which is not after "
                                       f"{written_moment(self.from_)!r}; allowed is a later one")])  # fmt: skip
        return self

    @property
    def closure(self) -> Closure:
        """As windows know it."""
        zone = ZoneInfo(self.timezone or "UTC")
        return Closure(
            begins=_exact(self.from_, zone), ends=_exact(self.to, zone, last=True), reason=f"freeze {self.reason!r}",
            stages=self.stages,
        )  # fmt: skip


def _is_exact(value: date | datetime) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _exact(value: date | datetime, zone: ZoneInfo, *, last: bool = False) -> datetime:
    """The moment; of a day its first, or the first after it."""
    if not isinstance(value, datetime):
        day = value + timedelta(days=1) if last else value
        return windows.moment_of(datetime.combine(day, time()), zone)
    return value.astimezone(UTC) if value.tzinfo is not None else windows.moment_of(value, zone)


class Source(StrEnum):
    """From where a later stage has its patches."""

    LOCKFILE = "lockfile"
    BASELINE = "baseline"


class Promotion(Part):
    """What the stages after the first one get."""

    by: Annotated[Source, Field(
        description="`lockfile`: exactly what the first stage received, and nothing that came out since; needs the bucket that "
        "the AWS connection's extra names in patchwave_lists_bucket. `baseline`: what each host's baseline approves at that "
        "moment. Default: baseline, for a bucket is somebody's to make.",
    )] = Source.BASELINE  # fmt: skip
    untried: Annotated[Source, Field(
        description="Hosts of a platform that the first stage did not have: `lockfile` leaves them out, and says so; "
        "`baseline` lets them get what their baseline approves, which nobody has tried. Default: lockfile.",
    )] = Source.LOCKFILE  # fmt: skip


class Start(StrEnum):
    """Who starts an emergency campaign when its watcher has found something urgent."""

    ASK = "ask"  # one of those who may approve a stage of it
    AT_ONCE = "at_once"  # nobody: the watcher does


class Emergency(Part):
    """Makes it an emergency campaign: it is started for the CVE ids that somebody names, and patches only hosts that have them.

    Its first stage is the canary, which no run leaves out; every later stage is asked about; stages soak as long as the
    policy's `emergency` says, if that is shorter. `NAME_watch` looks every hour for findings that must be gone soon.
    """

    start: Annotated[Start, Field(
        description="What the watcher does about an urgent finding: `ask` those who may approve a stage, or start the campaign "
        "`at_once`. Default: ask; the canary is patched without a further question.",
    )] = Start.ASK  # fmt: skip
    lockfile_of: Annotated[Slug | None, Field(
        description="Break-glass: name of a campaign that promotes by lockfile. Every stage then gets the packages of the named "
        "CVE ids out of the last lockfile that it carried through all its stages, and nothing else; a run for an id that is not "
        "in it is refused. Needs `promotion: {by: lockfile}`. Default: none, and hosts get what their baselines approve.",
        examples=["weekly-linux"],
    )] = None  # fmt: skip


class Campaign(FilePart):
    """One campaign file; it becomes one DAG."""

    name: Annotated[Slug, Field(description="Name of the campaign and id of its DAG.", examples=["weekly-linux"])]
    description: Annotated[Line, Field(description="One line: what the campaign is for. Shown in the list of DAGs.")]
    owner: Annotated[Line, Field(description="Team or person who answers for it. Shown in the list of DAGs.")]
    schedule: Annotated[Schedule | None, Field(
        description="When it starts by itself. Default: never; it is then started by hand.",
    )] = None  # fmt: skip
    scope: Annotated[Scope, Field(description="Which accounts, regions and hosts it may touch.")]
    policy: Annotated[Slug, Field(
        description="Name of a file in include/policies/, without its ending. No default: how urgent a finding is, somebody "
        "decides.",
        examples=["standard"],
    )]  # fmt: skip
    stages: Annotated[tuple[Stage, ...], AfterValidator(_named), Field(
        description="Rings of hosts in the order in which they are patched.", min_length=1,
    )]  # fmt: skip
    freezes: Annotated[tuple[Freeze, ...], Field(
        description="Times in which nothing is begun, whatever the windows say. Default: none.",
    )] = ()  # fmt: skip
    calendars: Annotated[
        tuple[
            Annotated[
                StrictStr,
                matching(
                    r"[A-Za-z0-9_.-]{3,128}|arn:aws[a-z-]*:ssm:[a-z0-9-]+:[0-9]{12}:document/[A-Za-z0-9_.-]{3,128}",
                    "the name of a change calendar, or the ARN of one that is shared",
                ),
            ],
            ...,
        ],
        AfterValidator(_unique),
        Field(
            description="Change calendars of Systems Manager: nothing is begun while one of them is CLOSED, or cannot be read. "
            "A name is asked in every cell of the scope, an ARN in the cells of its region. Default: none.",
            examples=[["change-freeze"]],
        ),
    ] = ()
    promotion: Annotated[Promotion, Field(
        default_factory=Promotion, description="What the stages after the first one get. Default: what their baselines approve.",
    )]  # fmt: skip
    verify: Annotated[Verify, Field(
        default_factory=Verify, description="How the result is proven. Default: SSM's patch compliance by Config's managed rule.",
    )]  # fmt: skip
    remediate: Annotated[Remediate, Field(
        default_factory=Remediate, description="Where what is left over may be remediated. Default: nowhere.",
    )]  # fmt: skip
    notifications: Annotated[tuple[Notification, ...], Field(
        description="Who is told about what. Default: nobody; the UI shows everything.",
    )] = ()  # fmt: skip

    emergency: Annotated[Emergency | None, Field(
        description="Makes it an emergency campaign, which has no schedule and at least two stages; `{}` will do. Default: it "
        "is none.",
        examples=[{"start": "ask"}],
    )] = None  # fmt: skip
    roles: Annotated[
        Mapping[Slug, Annotated[tuple[Login, ...], AfterValidator(_named), AfterValidator(_unique)]],
        Field(
            default_factory=dict,
            description="Groups of people by a name that stages use under `approval.roles`, each a list of login names. Airflow "
            "tells who has answered, not which role that is, so the file says it. Default: none.",
            examples=[{"on-call": ["olga", "uma"]}],
        ),
    ]

    @field_validator("stages", mode="before")
    @classmethod
    def _first_stage_needs_no_approval(cls, written: Any) -> Any:
        """Makes the default explicit: not for the first stage, for all others; a value in the file wins."""
        if not isinstance(written, list | tuple):
            return written
        resolved: list[Any] = []
        for number, stage in enumerate(written):
            if isinstance(stage, dict):
                approval = stage.get("approval", {})
                if isinstance(approval, dict):
                    stage = {**stage, "approval": {"required": number > 0, **approval}}
            resolved.append(stage)
        return resolved

    @model_serializer(mode="wrap")
    def _as_before_without_emergency(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = made(self)  # a campaign of earlier versions keeps its digest
        if self.emergency is None:
            content.pop("emergency", None)
        return content

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        found = [
            *self._stages_named_twice(),
            *self._stages_that_meet(),
            *self._remediated_wrongly(),
            *self._approved_wrongly(),
            *self._closed_wrongly(),
            *self._no_emergency(),
        ]
        if found:
            raise Misfit(found)
        return self

    def _stages_named_twice(self) -> Iterator[Misplacement]:
        names = [stage.name for stage in self.stages]
        for number, name in enumerate(names):
            if name in names[:number]:
                yield Misplacement(loc=("stages", number, "name"),
                                   message=f"found {name!r}, which is the name of stages[{names.index(name)}]; "
                                   "allowed is a name of its own")  # fmt: skip

    def _stages_that_meet(self) -> Iterator[Misplacement]:
        for number, stage in enumerate(self.stages):
            for earlier in self.stages[:number]:
                if stage.select.certainly_meets(earlier.select):
                    yield Misplacement(
                        loc=("stages", number, "select"),
                        message=f"found {stage.select}, which selects hosts of stage {earlier.name!r} too ({earlier.select}); "
                        "allowed are selectors that share no host",
                    )

    def _remediated_wrongly(self) -> Iterator[Misplacement]:
        known = {str(stage.name): stage for stage in self.stages}
        for index, name in enumerate(self.remediate.stages):
            loc: document.Loc = ("remediate", "stages", index)
            if name not in known:
                yield Misplacement(loc=loc, message=f"found {name!r}, which is no stage; allowed are {', '.join(known)}")
            elif known[name].is_production and not self.remediate.allow_prod:
                yield Misplacement(loc=loc, message=f"found {name!r}, which is called or tagged prod; allowed are stages "
                                   "that are not, or any with allow_prod: true")  # fmt: skip

    def _closed_wrongly(self) -> Iterator[Misplacement]:
        known = [str(stage.name) for stage in self.stages]
        for number, freeze in enumerate(self.freezes):
            for index, name in enumerate(freeze.stages):
                if name not in known:
                    yield Misplacement(loc=("freezes", number, "stages", index),
                                       message=f"found {name!r}, which is no stage; allowed are {', '.join(known)}")  # fmt: skip
        regions = sorted({cell.region for cell in self.cells})
        for number, calendar in enumerate(self.calendars):
            if calendar.startswith("arn:") and calendar.split(":")[3] not in regions:
                yield Misplacement(loc=("calendars", number), message=f"found {calendar!r}, which is in none of the scope's "
                                   f"regions; allowed are calendars in {', '.join(regions)}")  # fmt: skip

    def closures(self, stage: str) -> tuple[Closure, ...]:
        """The freezes that concern a stage; what change calendars say, AWS is asked for."""
        return tuple(closure for freeze in self.freezes if (closure := freeze.closure).concerns(stage))

    def _approved_wrongly(self) -> Iterator[Misplacement]:
        for number, stage in enumerate(self.stages):
            loc: document.Loc = ("stages", number, "approval")
            strangers = [name for name in stage.approval.roles if name not in self.roles]
            for name in strangers:
                known = ", ".join(self.roles) or "none, since the file has no roles"
                yield Misplacement(loc=(*loc, "roles", stage.approval.roles.index(name)),
                                   message=f"found {name!r}, which is no role of this file; allowed are {known}")  # fmt: skip
            people = self.approvers(stage)
            if stage.approval.required and people and not strangers and stage.approval.quorum > len(people):
                yield Misplacement(loc=(*loc, "quorum"), message=f"found {stage.approval.quorum}, and {len(people)} may answer "
                                   f"({', '.join(people)}); allowed is at most {len(people)}")  # fmt: skip

    def _no_emergency(self) -> Iterator[Misplacement]:
        if self.emergency is None:
            return
        if self.schedule is not None:
            yield Misplacement(loc=("schedule",), message="says when an emergency is to begin; allowed is none: people start it, "
                               "or its watcher does")  # fmt: skip
        if len(self.stages) < 2:
            yield Misplacement(loc=("stages",), message="found 1 stage; allowed are at least two in an emergency campaign, the "
                               "first of them its canary")  # fmt: skip
        if self.emergency.lockfile_of is not None and self.promotion.by is not Source.LOCKFILE:
            yield Misplacement(loc=("emergency", "lockfile_of"), message=f"found {self.emergency.lockfile_of!r}, and the stages "
                               "are patched by their baselines; allowed is it beside promotion: {by: lockfile}")  # fmt: skip
        for number, stage in enumerate(self.stages[1:], 1):
            if not stage.approval.required:
                yield Misplacement(loc=("stages", number, "approval", "required"), message="found false; allowed is true behind "
                                   "the canary of an emergency campaign")  # fmt: skip

    @property
    def canary(self) -> Stage | None:
        """The stage that no run may leave out; None where it is no emergency campaign."""
        return self.stages[0] if self.emergency is not None else None

    def is_locked(self, stage: str) -> bool:
        """Whether that stage gets what a lockfile says and nothing else; the first one makes it, but in a break-glass."""
        cut = self.emergency is not None and self.emergency.lockfile_of is not None
        return self.promotion.by is Source.LOCKFILE and (cut or stage != self.stages[0].name)

    @property
    def starters(self) -> tuple[str, ...]:
        """Login names of those who may let the watcher start an emergency: whoever may approve a stage of it."""
        return tuple(dict.fromkeys(name for stage in self.stages if stage.approval.required for name in self.approvers(stage)))

    def approvers(self, stage: Stage) -> tuple[str, ...]:
        """Login names of those who may answer for a stage, the people of its roles after those it names."""
        of_roles = [person for role in stage.approval.roles for person in self.roles.get(role, ())]
        return tuple(dict.fromkeys([*stage.approval.approvers, *of_roles]))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every account in every region of the scope, in order."""
        return tuple(sorted(Cell(account=one.account, region=region) for one in self.scope.cells for region in one.regions))

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            KeyError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def stage_of(self, tags: Mapping[str, str], *, host: HostId | None = None) -> Stage | None:
        """The stage of a host; None if no stage selects it or it lacks a tag of the scope.

        Args:
            tags: the host's tags as they are now.
            host: for the message.

        Raises:
            AmbiguousStage: two or more stages select it.
        """
        if not carries(tags, self.scope.tags):
            return None
        selecting = [stage for stage in self.stages if stage.matches(tags)]
        if len(selecting) > 1:
            raise AmbiguousStage(host=host, stages=tuple(stage.name for stage in selecting))
        return selecting[0] if selecting else None


# --- Files ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A campaign or policy file that is not used, and why."""

    file: Path
    problems: tuple[str, ...]


def parse(text: str, *, file: str, policies: Collection[str] | None = None) -> Campaign:
    """The campaign of a file's text.

    Args:
        file: as it should be read in messages.
        policies: names that `policy` may have; None if that is not to be checked.

    Raises:
        InvalidFile: with every problem that was found.
    """
    written = document.load(text, file=file)
    also: list[Misplacement] = []
    policy = written.data.get("policy")
    if policies is not None and isinstance(policy, str) and policy not in policies:
        names = ", ".join(sorted(policies)) or "none, since there is no policy file"
        also.append(Misplacement(loc=("policy",), message=f"found {policy!r}, which is no policy; allowed are {names}"))
    return document.fit(written, Campaign, also=also)


def read(path: Path, *, policies: Path) -> Campaign:
    """The campaign of a file.

    Args:
        policies: folder of the policy files.

    Raises:
        InvalidFile: with every problem that was found.
    """
    return parse(document.text_of(path), file=str(path), policies={policy.stem for policy in policies.glob("*.yaml")})


def read_all(folder: Path, *, policies: Path | None = None) -> tuple[tuple[Campaign, ...], tuple[Broken, ...]]:
    """All campaigns of a folder, ordered by file name, and the files that are broken: one never takes the others away.

    Args:
        policies: folder of the policy files; None means the folder `policies` beside `folder`.

    Raises:
        InvalidFile: `folder` is none: no campaigns at all is never what was meant.
    """
    if not folder.is_dir():
        raise InvalidFile((f"{folder}:1: the file: is no folder; allowed is a folder of campaign files",))
    read_ones: list[tuple[Path, Campaign]] = []
    broken: list[Broken] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".yaml", ".yml"} and not path.name.startswith(".")):
        try:
            read_ones.append((path, read(path, policies=policies or folder.parent / "policies")))
        except InvalidFile as error:
            broken.append(Broken(file=path, problems=error.problems))
    campaigns: list[Campaign] = []
    for path, campaign in read_ones:
        others = [other for other, same in read_ones if same.name == campaign.name and other != path]
        # A copy beside the original must not take the original away: the file that is called like the campaign keeps the name.
        owner = next((file for file in (path, *others) if file.stem == campaign.name and file.suffix == ".yaml"), None)
        if others and owner != path:
            message = f"{path}:1: name: found {campaign.name!r}, which {others[0].name} has too; allowed is a name of its own"
            broken.append(Broken(file=path, problems=(message,)))
        else:
            campaigns.append(campaign)
    return tuple(campaigns), tuple(sorted(broken, key=lambda one: one.file))


def schema_text() -> str:
    """The JSON schema of a campaign file for editors, as stored in docs/campaign.schema.json."""
    schema = Campaign.model_json_schema(mode="validation")
    # Stage.approval has no default of its own: the campaign resolves it by the stage's place.
    schema["$defs"]["Stage"]["required"].remove("approval")
    return document.schema_text(schema)
