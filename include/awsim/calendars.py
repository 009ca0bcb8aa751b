"""Is a change calendar open at a moment, and when does that change? Reads iCalendar text; pure.

A calendar is open or closed by default (`X-CALENDAR-TYPE`), and its events invert that from their start (inclusive) to their end
(exclusive). Repeated events (RRULE with DAILY, WEEKLY, MONTHLY, YEARLY), EXDATE, RDATE, moved occurrences (RECURRENCE-ID),
all-day events and time zones are understood; what is not is refused, never guessed.
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

HORIZON = timedelta(days=400)
"""So far ahead is looked for the next transition."""
Block = list[tuple[str, dict[str, str], str]]
_DAYS = {name: number for number, name in enumerate(("MO", "TU", "WE", "TH", "FR", "SA", "SU"))}
_KNOWN = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "BYMONTHDAY", "BYMONTH", "BYSETPOS", "WKST"}


class BadCalendar(ValueError):
    """The text is no calendar that can be understood."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    frequency: str
    interval: int = 1
    count: int | None = None
    until: float | None = None
    days: tuple[tuple[int, int], ...] = ()
    """(ordinal or 0, weekday)"""
    month_days: tuple[int, ...] = ()
    months: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    start: datetime
    length: timedelta
    rule: Rule | None = None
    except_: frozenset[float] = frozenset()
    also: tuple[float, ...] = ()

    def between(self, begin: float, end: float) -> Iterator[tuple[float, float]]:
        """The occurrences that touch [begin, end), as epoch seconds."""
        seconds = self.length.total_seconds()
        for at in self._starts(end):
            if at not in self.except_ and at < end and at + seconds > begin:
                yield at, at + seconds

    def _starts(self, end: float) -> Iterator[float]:
        yield from self.also
        if self.rule is None:
            yield self.start.timestamp()
            return
        number = 0
        day, last = self.start.date(), datetime.fromtimestamp(end, tz=self.start.tzinfo).date()
        while day <= last:
            if _on(self.rule, self.start.date(), day):
                local = datetime.combine(day, self.start.timetz().replace(tzinfo=None), tzinfo=self.start.tzinfo)
                at = local.timestamp()
                number += 1
                if self.rule.until is not None and at > self.rule.until:
                    return
                if self.rule.count is not None and number > self.rule.count:
                    return
                yield at
            day += timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calendar:
    open_by_default: bool
    events: tuple[Event, ...] = field(default_factory=tuple)

    def spans(self, begin: float, end: float) -> list[tuple[float, float]]:
        return sorted(span for event in self.events for span in event.between(begin, end))

    def is_open(self, at: float) -> bool:
        inside = any(begin <= at < end for begin, end in self.spans(at, at + 1))
        return self.open_by_default != inside


def state(calendars: list[Calendar], at: float) -> tuple[bool, float | None]:
    """Whether all are open, and when that changes; None: not within the horizon."""
    end = at + HORIZON.total_seconds()
    spans = [calendar.spans(at, end) for calendar in calendars]

    def all_open(moment: float) -> bool:
        return all(
            found.open_by_default != any(begin <= moment < finish for begin, finish in span)
            for found, span in zip(calendars, spans, strict=True)
        )

    now = all_open(at)
    for moment in sorted({moment for span in spans for pair in span for moment in pair if at < moment < end}):
        if all_open(moment) != now:
            return now, moment
    return now, None


# --- reading ---


def parse(text: str) -> Calendar:
    """Read a calendar.

    Raises:
        BadCalendar: it cannot be understood.
    """
    lines = re.sub(r"\r?\n[ \t]", "", text.strip()).splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    if not lines or lines[0].upper() != "BEGIN:VCALENDAR" or lines[-1].upper() != "END:VCALENDAR":
        raise BadCalendar("the text does not begin with BEGIN:VCALENDAR and end with END:VCALENDAR")
    kind, zone = "", "UTC"
    block: Block | None = None
    blocks: list[Block] = []
    depth: list[str] = []
    for line in lines:
        name, parameters, value = _property(line)
        if name == "BEGIN":
            depth.append(value.upper())
            if value.upper() == "VEVENT":
                block = []
        elif name == "END":
            if not depth or depth.pop() != value.upper():
                raise BadCalendar(f"END:{value} closes nothing")
            if value.upper() == "VEVENT" and block is not None:
                blocks.append(block)
                block = None
        elif block is not None and depth[-1:] == ["VEVENT"]:
            block.append((name, parameters, value))
        elif name == "X-CALENDAR-TYPE":
            kind = value.upper()
        elif name == "X-WR-TIMEZONE":
            zone = value
    if kind not in ("DEFAULT_OPEN", "DEFAULT_CLOSED"):
        raise BadCalendar(f"X-CALENDAR-TYPE is {kind or 'missing'}; DEFAULT_OPEN and DEFAULT_CLOSED are allowed")
    return Calendar(open_by_default=kind == "DEFAULT_OPEN", events=_events(blocks, _zone(zone)))


def _property(line: str) -> tuple[str, dict[str, str], str]:
    found = re.match(r'([A-Za-z0-9-]+)((?:;[A-Za-z0-9-]+=(?:"[^"]*"|[^:;"]*))*):(.*)$', line)
    if found is None:
        raise BadCalendar(f"the line {line[:60]!r} is not name:value")
    pairs = re.findall(r';([A-Za-z0-9-]+)=(?:"([^"]*)"|([^:;"]*))', found.group(2))
    return found.group(1).upper(), {key.upper(): quoted or plain for key, quoted, plain in pairs}, found.group(3).strip()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name.strip("/") or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadCalendar(f"the time zone {name!r} is not one of the IANA database") from None


def _moment(parameters: dict[str, str], value: str, zone: ZoneInfo) -> datetime:
    where = _zone(parameters["TZID"]) if "TZID" in parameters else zone
    try:
        if re.fullmatch(r"\d{8}", value):
            return datetime.combine(datetime.strptime(value, "%Y%m%d").date(), time(), tzinfo=where)  # noqa: DTZ007
        if value.endswith("Z"):
            return datetime.strptime(value, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return datetime.strptime(value, "%Y%m%dT%H%M%S").replace(tzinfo=where)
    except ValueError:
        raise BadCalendar(f"{value!r} is no date or time") from None


def _events(blocks: list[Block], zone: ZoneInfo) -> tuple[Event, ...]:
    moved: dict[str, set[float]] = {}
    for block in blocks:
        uid = next((value for name, _, value in block if name == "UID"), "")
        for name, parameters, value in block:
            if name == "RECURRENCE-ID":
                moved.setdefault(uid, set()).add(_moment(parameters, value, zone).timestamp())
    return tuple(event for block in blocks if (event := _event(block, zone, moved)) is not None)


def _event(block: Block, zone: ZoneInfo, moved: dict[str, set[float]]) -> Event | None:
    given = {name: (parameters, value) for name, parameters, value in block}
    if given.get("STATUS", ({}, ""))[1].upper() == "CANCELLED":
        return None
    if "DTSTART" not in given:
        raise BadCalendar("an event has no DTSTART")
    start = _moment(*given["DTSTART"], zone)
    if "DTEND" in given:
        length = timedelta(seconds=_moment(*given["DTEND"], zone).timestamp() - start.timestamp())
    elif "DURATION" in given:
        length = _duration(given["DURATION"][1])
    else:
        length = timedelta(days=1) if re.fullmatch(r"\d{8}", given["DTSTART"][1]) else timedelta()
    except_: set[float] = set()
    also: list[float] = []
    for name, parameters, value in block:
        if name in ("EXDATE", "RDATE"):
            moments = [_moment(parameters, part, zone).timestamp() for part in value.split(",") if part]
            (except_.update if name == "EXDATE" else also.extend)(moments)
    if "RECURRENCE-ID" not in given:
        except_ |= moved.get(given.get("UID", ({}, ""))[1], set())
    rule = _rule(given["RRULE"][1], start, zone) if "RRULE" in given else None
    return Event(start=start, length=length, rule=rule, except_=frozenset(except_), also=tuple(also))


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"\+?P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", text)
    if found is None or text in ("P", "PT"):
        raise BadCalendar(f"{text!r} is no duration")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


def _rule(text: str, start: datetime, zone: ZoneInfo) -> Rule:
    given = dict(part.split("=", 1) for part in text.upper().strip(";").split(";") if "=" in part)
    unknown = sorted(set(given) - _KNOWN)
    if unknown or given.get("FREQ") not in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
        raise BadCalendar(f"the rule {text!r} cannot be understood: {', '.join(unknown) or 'its FREQ'}")
    until = None
    if "UNTIL" in given:
        until = _moment({}, given["UNTIL"], start.tzinfo if isinstance(start.tzinfo, ZoneInfo) else zone).timestamp()
        if re.fullmatch(r"\d{8}", given["UNTIL"]):
            until += 86_399
    days = []
    for part in filter(None, given.get("BYDAY", "").split(",")):
        found = re.fullmatch(r"([+-]?\d+)?(MO|TU|WE|TH|FR|SA|SU)", part)
        if found is None:
            raise BadCalendar(f"BYDAY {part!r} cannot be understood")
        days.append((int(found.group(1) or 0), _DAYS[found.group(2)]))
    try:
        return Rule(
            frequency=given["FREQ"],
            interval=max(1, int(given.get("INTERVAL", "1"))),
            count=int(given["COUNT"]) if "COUNT" in given else None,
            until=until,
            days=tuple(days),
            month_days=_numbers(given.get("BYMONTHDAY")),
            months=_numbers(given.get("BYMONTH")),
            positions=_numbers(given.get("BYSETPOS")),
        )
    except ValueError:
        raise BadCalendar(f"the rule {text!r} holds what is no number") from None


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (text or "").split(",") if part)


# --- repetition ---


def _on(rule: Rule, first: date, day: date) -> bool:
    """Whether a rule that began on `first` has an occurrence on `day`."""
    if rule.months and day.month not in rule.months:
        return False
    if rule.frequency == "DAILY":
        fits = not rule.days or any(day.weekday() == weekday for _, weekday in rule.days)
        return (day - first).days % rule.interval == 0 and fits and _month_day(rule, day)
    if rule.frequency == "WEEKLY":
        weeks = ((day - timedelta(days=day.weekday())) - (first - timedelta(days=first.weekday()))).days // 7
        wanted = {weekday for _, weekday in rule.days} or {first.weekday()}
        return weeks % rule.interval == 0 and day.weekday() in wanted
    months = (day.year - first.year) * 12 + day.month - first.month
    if rule.frequency == "YEARLY":
        if (day.year - first.year) % rule.interval or (not rule.months and day.month != first.month):
            return False
    elif months % rule.interval:
        return False
    if not rule.positions:
        return _in_month(rule, first, day)
    chosen = [found for found in _month(day) if _in_month(rule, first, found)]
    return any(
        0 <= (at - 1 if at > 0 else len(chosen) + at) < len(chosen) and chosen[at - 1 if at > 0 else at] == day
        for at in rule.positions
    )


def _month(day: date) -> list[date]:
    return [date(day.year, day.month, number) for number in range(1, calendar.monthrange(day.year, day.month)[1] + 1)]


def _in_month(rule: Rule, first: date, day: date) -> bool:
    if not rule.days and not rule.month_days:
        return day.day == first.day
    return _month_day(rule, day) and (not rule.days or any(_ordinal(day, at, weekday) for at, weekday in rule.days))


def _month_day(rule: Rule, day: date) -> bool:
    last = calendar.monthrange(day.year, day.month)[1]
    return not rule.month_days or day.day in {at if at > 0 else last + 1 + at for at in rule.month_days}


def _ordinal(day: date, at: int, weekday: int) -> bool:
    if day.weekday() != weekday:
        return False
    last = calendar.monthrange(day.year, day.month)[1]
    return at in (0, (day.day - 1) // 7 + 1, -((last - day.day) // 7 + 1))
