"""When does a maintenance window open? AWS's cron, rate and at expressions in their time zone.

`parse` reads and checks an expression; `Schedule.after(moment)` names the next moment. AWS's cron is not Unix's: six fields
(minutes, hours, day of month, month, day of week, year), Sunday is 1, exactly one of the two day fields is `?`, and there are
`L`, `W` and `#`.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), start=1)}
_LOOK_AHEAD = timedelta(days=366 * 8)
_SHORTEST = 300
_UNITS = {"minute": 60, "hour": 3600, "day": 86_400}


class BadSchedule(ValueError):
    """The expression, time zone or date cannot be used; the message says which and what is allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The moments of one expression, between its start and its end date."""

    zone: ZoneInfo
    start: float | None = None
    end: float | None = None
    offset: timedelta = timedelta()
    once: datetime | None = None
    every: float | None = None
    anchor: float = 0.0
    cron: "Cron | None" = None

    def after(self, moment: float) -> float | None:
        """The first moment later than `moment`; None when there is none any more."""
        found = self._next(max(moment, self.start - 0.001) if self.start is not None else moment)
        return found if found is not None and (self.end is None or found <= self.end) else None

    def _next(self, moment: float) -> float | None:
        if self.once is not None:
            at = self.once.timestamp()
            return at if at > moment else None
        if self.every is not None:
            first = self.anchor if self.start is None else self.start
            done = max(0, int((moment - first) // self.every) + 1) if moment >= first else 0
            at = first + done * self.every
            return at if at > self.anchor or self.start is not None else first + self.every
        assert self.cron is not None
        shifted = moment - self.offset.total_seconds()
        found = self.cron.after(datetime.fromtimestamp(shifted, tz=self.zone))
        while found is not None:
            local = (found.replace(tzinfo=None) + self.offset).replace(tzinfo=self.zone)
            if local.timestamp() > moment:
                return local.timestamp()
            found = self.cron.after(found)
        return None

    def spelled(self, moment: float) -> str:
        """As NextExecutionTime and ExecutionTime spell it: `2026-01-06T16:00Z`, `2026-01-06T16:00+01:00`."""
        at = datetime.fromtimestamp(round(moment, 3), tz=self.zone)
        exact = at.second == 0 and at.microsecond == 0
        return at.isoformat(timespec="minutes" if exact else "milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cron:
    second: int
    minutes: frozenset[int]
    hours: frozenset[int]
    month_days: str
    months: frozenset[int]
    week_days: str
    years: frozenset[int] | None

    def after(self, moment: datetime) -> datetime | None:
        """The next match later than an aware local moment."""
        day, zone = moment.date(), moment.tzinfo
        last = day + _LOOK_AHEAD
        if self.years and min(self.years, default=0) > last.year:
            last = date(max(self.years), 12, 31)
        while day <= last:
            if self._day_matches(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        at = datetime.combine(day, time(hour, minute, self.second), tzinfo=zone)
                        if at.timestamp() > moment.timestamp():
                            return at
            day += timedelta(days=1)
        return None

    def _day_matches(self, day: date) -> bool:
        if day.month not in self.months or (self.years is not None and day.year not in self.years):
            return False
        if self.week_days != "?":
            return any(_week_day(part, day) for part in self.week_days.split(","))
        return any(_month_day(part, day) for part in self.month_days.split(","))


def parse(
    expression: str,
    *,
    created: float,
    zone: str | None = None,
    offset: int | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Schedule:
    """Read an expression.

    Raises:
        BadSchedule: it cannot be used.
    """
    try:
        tz = ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSchedule(f"ScheduleTimezone: {zone!r} is not a time zone of the IANA database") from None
    first = _date(start, tz, "StartDate").timestamp() if start else None
    last = _date(end, tz, "EndDate").timestamp() if end else None
    found = re.fullmatch(r"(cron|rate|at)\((.*)\)", expression.strip())
    if found is None:
        raise BadSchedule(f"Schedule: {expression!r} is not cron(...), rate(...) or at(...)")
    kind, inner = found.group(1), found.group(2).strip()
    if offset is not None and kind != "cron":
        raise BadSchedule("ScheduleOffset: is for cron schedules only")
    shift = timedelta(days=offset or 0)
    if kind == "at":
        return Schedule(zone=tz, start=first, end=last, once=_date(inner, tz, "Schedule"))
    if kind == "rate":
        return Schedule(zone=tz, start=first, end=last, every=_rate(inner), anchor=created)
    return Schedule(zone=tz, start=first, end=last, offset=shift, cron=_cron(inner))


def _date(text: str, zone: ZoneInfo, field: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise BadSchedule(f"{field}: {text!r} is not an ISO 8601 moment such as 2026-01-05T02:00:00") from None
    return at if at.tzinfo else at.replace(tzinfo=zone)


def _rate(text: str) -> float:
    found = re.fullmatch(r"([1-9]\d*)\s+(minute|hour|day)(s?)", text)
    if found is None or (found.group(1) == "1") == bool(found.group(3)):
        raise BadSchedule(f"Schedule: rate({text}) is not like rate(1 hour) or rate(30 minutes)")
    seconds = int(found.group(1)) * _UNITS[found.group(2)]
    if seconds < _SHORTEST:
        raise BadSchedule(f"Schedule: rate({text}) is more often than every five minutes")
    return float(seconds)


def _cron(text: str) -> Cron:
    fields = text.upper().split()
    if len(fields) == 7:
        second, fields = fields[0], fields[1:]
    else:
        second = "0"
    if len(fields) != 6:
        raise BadSchedule(f"Schedule: cron({text}) must have the six fields minutes hours day-of-month month day-of-week year")
    if not second.isdigit() or int(second) > 59:
        raise BadSchedule(f"Schedule: the seconds of cron({text}) must be one number 0-59")
    minutes, hours, month_days, months, week_days, years = fields
    if (month_days == "?") == (week_days == "?"):
        raise BadSchedule(f"Schedule: exactly one of day-of-month and day-of-week of cron({text}) must be ?")
    for part in week_days.split(",") if week_days != "?" else ():
        if not re.fullmatch(r"\*|L|\w+#[1-5]|\w+L|\w+(-\w+)?(/\d+)?|\*/\d+", part):
            raise BadSchedule(f"Schedule: day-of-week {part!r} of cron({text}) cannot be read")
        for name in re.findall(r"[A-Z]{3}|\d+(?=$|-|#|L)", part.partition("/")[0].partition("#")[0]):
            _number(name, _DAYS, 1, 7, "day-of-week")
    for part in month_days.split(",") if month_days != "?" else ():
        if not re.fullmatch(r"\*|L|LW|\d+W|\d+(-\d+)?(/\d+)?|\*/\d+", part):
            raise BadSchedule(f"Schedule: day-of-month {part!r} of cron({text}) cannot be read")
        for name in re.findall(r"\d+", part.partition("/")[0]):
            _number(name, {}, 1, 31, "day-of-month")
    chosen_minutes = _set(minutes, {}, 0, 59, "minutes")
    if any((later - sooner) < 5 for sooner, later in zip(sorted(chosen_minutes), sorted(chosen_minutes)[1:], strict=False)):
        raise BadSchedule(f"Schedule: cron({text}) is more often than every five minutes")
    return Cron(
        second=int(second),
        minutes=chosen_minutes,
        hours=_set(hours, {}, 0, 23, "hours"),
        month_days=month_days,
        months=_set(months, {name.upper(): number for name, number in _MONTHS.items()}, 1, 12, "month"),
        week_days=week_days,
        years=None if years == "*" else _set(years, {}, 1970, 2199, "year"),
    )


def _number(text: str, names: dict[str, int], low: int, high: int, field: str) -> int:
    value = names.get(text, int(text) if text.isdigit() else -1)
    if not low <= value <= high:
        raise BadSchedule(f"Schedule: {field}: {text!r} is not within {low}-{high}")
    return value


def _set(text: str, names: dict[str, int], low: int, high: int, field: str) -> frozenset[int]:
    """`*`, `a`, `a-b`, `a/n`, `*/n`, and lists of them."""
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        if step and not step.isdigit():
            raise BadSchedule(f"Schedule: {field}: {part!r} cannot be read")
        if span == "*":
            first, last = low, high
        else:
            begin, dash, finish = span.partition("-")
            first = _number(begin, names, low, high, field)
            last = _number(finish, names, low, high, field) if dash else high if step else first
        if last < first:
            raise BadSchedule(f"Schedule: {field}: {part!r} ends before it begins")
        values.update(range(first, last + 1, max(1, int(step or 1))))
    return frozenset(values)


def _sunday_first(day: date) -> int:
    return day.isoweekday() % 7 + 1


def _week_day(part: str, day: date) -> bool:
    number = _sunday_first(day)
    if part == "*":
        return True
    if part == "L":
        return number == 7
    if "#" in part:
        name, _, which = part.partition("#")
        return number == _number(name, _DAYS, 1, 7, "day-of-week") and (day.day - 1) // 7 + 1 == int(which)
    if part.endswith("L"):
        return number == _number(part[:-1], _DAYS, 1, 7, "day-of-week") and (day + timedelta(days=7)).month != day.month
    span, _, step = part.partition("/")
    if span == "*":
        return (number - 1) % int(step or 1) == 0
    begin, dash, finish = span.partition("-")
    first = _number(begin, _DAYS, 1, 7, "day-of-week")
    last = _number(finish, _DAYS, 1, 7, "day-of-week") if dash else 7 if step else first
    inside = first <= number <= last if first <= last else number >= first or number <= last
    return inside and (number - first) % 7 % int(step or 1) == 0


def _month_day(part: str, day: date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    if part == "*":
        return True
    if part == "L":
        return day.day == last
    if part.endswith("W"):
        wanted = last if part == "LW" else min(int(part[:-1]), last)
        return day == _nearest_working_day(date(day.year, day.month, wanted), last)
    span, _, step = part.partition("/")
    if span == "*":
        return (day.day - 1) % int(step or 1) == 0
    begin, dash, finish = span.partition("-")
    first = int(begin)
    final = int(finish) if dash else 31 if step else first
    return first <= day.day <= final and (day.day - first) % int(step or 1) == 0


def _nearest_working_day(day: date, last: int) -> date:
    """Within the same month."""
    if day.isoweekday() == 6:
        return day - timedelta(days=1) if day.day > 1 else day + timedelta(days=2)
    if day.isoweekday() == 7:
        return day + timedelta(days=1) if day.day < last else day - timedelta(days=2)
    return day
