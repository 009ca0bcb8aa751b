"""When may a stage's hosts be disrupted, and what still fits before that is over?

A campaign file gives a stage a window: a cron or an iCalendar rule that says when it opens, in a time zone, and how long it
stays open; or a maintenance window of Systems Manager, whose openings AWS is asked for. Freezes and change calendars close
what would be open (`Closure`). The plan shows it, the stage's task asks `opening` for the span in which it may act, and
`rollout.decide` begins nothing outside of it and nothing that would not be over in time. How long a host takes is learned
from earlier runs (`expected`).
"""

from __future__ import annotations

import calendar
import heapq
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar
from zoneinfo import ZoneInfo

from croniter import croniter  # type: ignore[import-untyped]
from dateutil.rrule import rrule, rrulestr  # type: ignore[import-untyped]

from patchwave.campaign.errors import Permanent

Step = TypeVar("Step", bound=str)

FEWEST_SAMPLES = 5
"""With fewer, one bad night would be the rule."""
PERCENTILE = 0.95

LARGEST_CHANGE = timedelta(hours=3)
"""No clock is put forward or back by more in one night; beyond it, order in local time is order in time."""
HORIZON = timedelta(days=400)
"""So far ahead openings are looked for: a window that opens once a year is found, one that never does ends the search."""
FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
"""A window that opens every hour is none: it is left open."""


class NeverOpens(Permanent):
    """The window does not open any more, or not as far ahead as can be seen."""


class OpeningsUnknown(Permanent):
    """Only Systems Manager knows when this maintenance window opens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """When a stage may be worked on: by `cron`, by `rrule`, or as `maintenance_window` says; one of the three.

    Attributes:
        cron: five fields, read in `timezone`: when it opens.
        duration: how long it stays open, in real time: a night in which the clock is changed makes it no longer.
        timezone: IANA name.
        rrule: a recurrence rule of iCalendar (RFC 5545, 3.3.10), which begins at `starts`.
        starts: the first opening as clocks in `timezone` show it, without a zone.
        maintenance_window: name or id of a maintenance window of Systems Manager; its schedule, duration and cutoff are read
            from AWS each time and kept nowhere.
    """

    cron: str = ""
    duration: timedelta = timedelta()
    timezone: str = "UTC"
    rrule: str = ""
    starts: datetime | None = None
    maintenance_window: str = ""

    def __str__(self) -> str:
        if self.maintenance_window:
            return f"maintenance window {self.maintenance_window} of Systems Manager"
        begins = f" from {self.starts:%Y-%m-%d %H:%M}" if self.starts else ""
        return f"{self.cron or self.rrule}{begins} {self.timezone}, open for {self.duration}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One opening of a window, or what is left of one.

    Attributes:
        opens: it is open from here on.
        closes: and not from here on.
        because: why it is no earlier one, for whoever waits; nothing depends on it.
    """

    opens: datetime
    closes: datetime
    because: str = field(default="", compare=False)

    def __contains__(self, moment: datetime) -> bool:
        return self.opens <= moment < self.closes

    @property
    def length(self) -> timedelta:
        """How long it is open."""
        return self.closes - self.opens


@dataclass(frozen=True, kw_only=True, slots=True)
class Closure:
    """A time in which nothing is begun, whatever a window says: a freeze, or a change calendar that is CLOSED.

    Attributes:
        begins: from here on.
        ends: until here; None where nobody knows, as of a calendar that cannot be read.
        reason: who closes it, as the first half of a sentence: ``freeze 'year end'``.
        stages: the stages that it concerns; empty: all.
        known: False: nobody could be asked, and it may be open; nothing is begun, and nothing is given up for it.
    """

    begins: datetime
    ends: datetime | None
    reason: str
    stages: tuple[str, ...] = ()
    known: bool = True

    def concerns(self, stage: str) -> bool:
        """Whether that stage is closed by it."""
        return not self.stages or stage in self.stages

    def told(self, zone: ZoneInfo | None = None) -> str:
        """Who closes it and for how long, in that zone's time; of what is not known, why."""
        if not self.known:
            return self.reason
        if self.ends is None:
            return f"{self.reason} (from {shown(self.begins, zone)} on, and nobody knows until when)"
        return f"{self.reason} ({shown(self.begins, zone)} to {shown(self.ends, zone)})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """What a stage waits for, or acts in.

    Attributes:
        span: None if none is known: nothing may be begun, and `because` says why.
        because: why it is no earlier one, a sentence each; empty if nothing stood in the way.
        whole: the opening of which `span` is left; None without a window.
    """

    span: Span | None
    because: tuple[str, ...] = ()
    whole: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The openings of a maintenance window as AWS told them.

    Attributes:
        spans: in order.
        because: why there are none, or why AWS could not be asked; nothing may be begun then.
        missing: there is no such window.
    """

    spans: tuple[Span, ...] = ()
    because: str = ""
    missing: bool = False


def shown(moment: datetime, zone: ZoneInfo | None = None) -> str:
    """A moment for people: ``2026-12-22 22:00 Europe/Vienna``."""
    return f"{moment.astimezone(zone or UTC):%Y-%m-%d %H:%M} {zone.key if zone else 'UTC'}"


# --- when a window opens ------------------------------------------------------------------------------------------------
def moment_of(local: datetime, zone: ZoneInfo) -> datetime:
    """The moment at which people's clocks show `local`: the first one where they show it twice, the one after the jump where
    they never do."""
    aware = local.replace(tzinfo=zone, fold=0)
    return aware.astimezone(UTC)


_DAY = "(MO|TU|WE|TH|FR|SA|SU)"
_NUMBER = "[+-]?([1-9]|[12][0-9]|3[01])"
_ALLOWED: Mapping[str, tuple[str, str]] = {
    "FREQ": ("|".join(FREQUENCIES), ", ".join(FREQUENCIES)),
    "INTERVAL": ("[1-9][0-9]{0,2}", "a whole number from 1 to 999"),
    "COUNT": ("[1-9][0-9]{0,3}", "a whole number from 1 to 9999"),
    "UNTIL": (".*", ""),
    "BYDAY": (f"([+-]?[1-5])?{_DAY}(,([+-]?[1-5])?{_DAY})*", "days such as MO,TU or 2TU (the second) or -1FR (the last)"),
    "BYMONTHDAY": (f"{_NUMBER}(,{_NUMBER})*", "days from 1 to 31, or from -31 to -1 counted from the end"),
    "BYMONTH": ("([1-9]|1[0-2])(,([1-9]|1[0-2]))*", "months from 1 to 12"),
    "BYSETPOS": (f"{_NUMBER}(,{_NUMBER})*", "places from 1 to 31, or from -31 to -1 counted from the end"),
    "WKST": (_DAY, "the day on which a week begins, such as MO"),
}
"""What a rule may say of all that RFC 5545 knows: what people write for windows, and nothing that never comes to an end."""


def _days_exist(parts: Mapping[str, str]) -> bool:
    days, months = ([int(one) for one in parts.get(name, "").split(",") if one] for name in ("BYMONTHDAY", "BYMONTH"))
    return not days or any(abs(day) <= calendar.monthrange(2028, month)[1] for day in days for month in months or [1])


@lru_cache(maxsize=256)
def rule_of(text: str, starts: datetime, timezone: str) -> rrule:
    """The rule of a text such as ``FREQ=MONTHLY;BYDAY=2TU``, in local time without a zone.

    UNTIL may be a day, a local time, or a moment of UTC (as RFC 5545 demands beside a DTSTART with a zone).

    Raises:
        ValueError: it is none, or one that is refused; the message says what is allowed.
    """
    parts = _parts_of(text)
    if "FREQ" not in parts:
        raise ValueError(f"FREQ is missing; allowed are {', '.join(FREQUENCIES)}")
    if "COUNT" in parts and "UNTIL" in parts:
        raise ValueError("it has COUNT and UNTIL; allowed is one of them")
    if many := [name for name in ("BYHOUR", "BYMINUTE", "BYSECOND") if name in parts]:
        raise ValueError(f"it has {' and '.join(many)}; allowed is the time of day of `starts`")
    for name, value in parts.items():
        if name not in _ALLOWED:
            raise ValueError(f"it has {name}; allowed are {', '.join(_ALLOWED)}")
        pattern, allowed = _ALLOWED[name]
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{name} is {value}; allowed is {allowed}")
    if re.search("[0-9]", parts.get("BYDAY", "")) and parts["FREQ"] in ("DAILY", "WEEKLY"):
        raise ValueError(f"BYDAY is {parts['BYDAY']}; allowed are days without a number beside FREQ={parts['FREQ']}")
    if "BYSETPOS" in parts and parts["FREQ"] in ("DAILY", "WEEKLY"):
        raise ValueError(f"it has BYSETPOS; allowed is none beside FREQ={parts['FREQ']}")
    if not _days_exist(parts):
        raise ValueError("no month of BYMONTH has a day of BYMONTHDAY; allowed are days that there are")
    if "UNTIL" in parts:
        parts["UNTIL"] = _until(parts["UNTIL"], ZoneInfo(timezone))
    try:
        found = rrulestr(";".join(f"{name}={value}" for name, value in parts.items()), dtstart=starts)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"it cannot be understood ({error}); allowed is a rule such as 'FREQ=MONTHLY;BYDAY=2TU'") from None
    if not isinstance(found, rrule):
        raise ValueError("it is more than one rule; allowed is one")
    return found


def first_of(text: str, starts: datetime, timezone: str) -> datetime | None:
    """The first local time that a rule names within eight years of `starts`; None: it names none.

    Raises:
        ValueError: as `rule_of`.
    """
    rule = rule_of(text, starts, timezone)
    until = starts + timedelta(days=8 * 366)
    # A rule that names nothing is looked for until the year 9999. The calendar repeats every 400 years: asked in the last four
    # centuries, the answer comes in a twentieth of the time.
    later = max(0, 9990 - starts.year) // 400 * 400
    bounded = rule.replace(dtstart=_years(starts, later), count=None, until=_years(min(until, rule._until or until), later))
    try:
        found: datetime | None = next(iter(bounded), None)
    except (IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"it cannot be understood ({error}); allowed is a rule such as 'FREQ=MONTHLY;BYDAY=2TU'") from None
    return None if found is None else _years(found, -later)


def _years(local: datetime, count: int) -> datetime:
    return local.replace(year=local.year + count)


def _parts_of(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in text.upper().removeprefix("RRULE:").strip().strip(";").split(";"):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not re.fullmatch(r"[A-Z]+", name) or not re.fullmatch(r"[A-Z0-9,+-]+", value):
            raise ValueError(f"{part[:40]!r} is not NAME=VALUE; allowed is a rule such as 'FREQ=MONTHLY;BYDAY=2TU'")
        if name in parts:
            raise ValueError(f"{name} is given twice; allowed is once")
        parts[name] = value
    return parts


def _until(text: str, zone: ZoneInfo) -> str:
    """UNTIL in local time: a day means all of it."""
    if re.fullmatch(r"\d{8}", text):
        return f"{text}T235959"
    if not re.fullmatch(r"\d{8}T\d{6}Z?", text):
        raise ValueError(f"UNTIL is {text!r}; allowed is a day such as 20261231, or 20261231T220000Z")
    if not text.endswith("Z"):
        return text
    try:
        moment = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"UNTIL is {text!r}; allowed is a moment that there is") from None
    return f"{moment.astimezone(zone):%Y%m%dT%H%M%S}"


def _locals(window: Window, since: datetime) -> Iterator[datetime]:
    """When it opens as clocks show it, in their order, from `since` (local, without a zone) on."""
    if window.rrule:
        if window.starts is None:
            raise ValueError("a rule without its first opening says nothing")
        yield from rule_of(window.rrule, window.starts, window.timezone).xafter(since, inc=True)
        return
    moments = croniter(window.cron, since - timedelta(minutes=1))
    while True:
        yield moments.get_next(datetime)


def openings(window: Window, now: datetime) -> Iterator[Span]:
    """The opening that `now` lies in, and all later ones, in order; they end where the rule ends.

    The rule is asked in local time without a zone, so that 22:00 stays 22:00 when the clock is changed; the zone is put to
    it afterwards. What the clock skips is moved behind the jump, so some openings change places that night.

    Raises:
        OpeningsUnknown: it is a maintenance window of Systems Manager.
    """
    if window.maintenance_window:
        raise OpeningsUnknown(f"only Systems Manager knows when {window} opens")
    zone = ZoneInfo(window.timezone)
    # From before the window's length, so that the opening that still lasts is seen.
    since = now.astimezone(zone).replace(tzinfo=None) - window.duration - LARGEST_CHANGE
    coming: list[datetime] = []
    last: datetime | None = None

    def of(opens: datetime) -> Iterator[Span]:
        nonlocal last
        if opens != last and opens + window.duration > now:
            last = opens
            yield Span(opens=opens, closes=opens + window.duration)

    for local in _locals(window, since):
        newest = moment_of(local, zone)
        heapq.heappush(coming, newest)
        while coming and coming[0] <= newest - LARGEST_CHANGE:
            yield from of(heapq.heappop(coming))
    while coming:
        yield from of(heapq.heappop(coming))


# --- what is left of it -------------------------------------------------------------------------------------------------
def parts(span: Span, closures: Iterable[Closure]) -> tuple[Span, ...]:
    """What is left of a span when everything that closes it is taken away, in order."""
    left = [span]
    for closure in closures:
        ends = closure.ends or datetime.max.replace(tzinfo=UTC)
        left = [
            part
            for one in left
            for part in (
                Span(opens=one.opens, closes=min(one.closes, closure.begins)),
                Span(opens=max(one.opens, ends), closes=one.closes),
            )
            if part.opens < part.closes
        ] if closure.begins < ends else left  # fmt: skip
    return tuple(dict.fromkeys(left))


def remaining(span: Span, closures: Sequence[Closure], now: datetime, *, least: timedelta = timedelta()) -> Span:
    """What is left now of an opening that was chosen earlier, by what closes it now: its first part that is not over.

    With none left it is over, and closes before it opens or at `now`.

    Args:
        least: how long a host takes; a part with less of it left is passed over where a later one is long enough.
    """
    left = [part for part in parts(span, closures) if part.closes > now]
    for part in left:
        if part.closes - max(part.opens, now) >= least:
            return part
    return left[0] if left else Span(opens=span.opens, closes=max(span.opens, min(now, span.closes)))


def common(*lists: Sequence[Span]) -> tuple[Span, ...]:
    """When all of them are open at once: maintenance windows of one name in several cells."""
    if not lists:
        return ()
    found = list(lists[0])
    for other in lists[1:]:
        found = [
            Span(opens=max(one.opens, two.opens), closes=min(one.closes, two.closes))
            for one in found
            for two in other
            if max(one.opens, two.opens) < min(one.closes, two.closes)
        ]
    return tuple(sorted(found, key=lambda one: one.opens))


# --- which opening it is ------------------------------------------------------------------------------------------------
def opening(
    window: Window | None,
    now: datetime,
    *,
    closures: Sequence[Closure] = (),
    least: timedelta = timedelta(),
    listed: Listing | None = None,
) -> Opening:
    """The span in which a stage may act whose turn has come.

    Args:
        window: None: at any time that nothing closes.
        now: aware.
        closures: everything that closes, as far ahead as it is known; where knowledge ends, one without end.
        least: how long a host takes; what is left of an opening and shorter than that is no use to anybody. A window that is
            always shorter is taken all the same: the rollout says of each host that it does not fit.
        listed: openings of a maintenance window, as AWS told them.
    """
    if window is None:
        return _any_time(now, closures, least)
    zone = None if window.maintenance_window else ZoneInfo(window.timezone)
    skipped: list[tuple[Span, str]] = []
    for span in openings(window, now) if listed is None else listed.spans:
        if span.closes <= now:
            continue
        if span.opens > now + HORIZON:
            break
        needed = min(least, span.length)
        left = [part for part in parts(span, closures) if part.closes - max(part.opens, now) >= max(needed, timedelta(seconds=1))]
        if left:
            if left[0] != span:
                of = f"of the opening of {shown(span.opens, zone)} only {shown(left[0].opens, zone)} to"
                why = _closing(span, closures, zone)
                told = (*_told(skipped, zone), f"{of} {shown(left[0].closes, zone)} is used: {why}")
                return Opening(span=left[0], because=told, whole=span)
            return Opening(span=span, because=_told(skipped, zone), whole=span)
        why = _closing(span, closures, zone)
        skipped.append((span, why or f"less than the {minutes(needed)} that a host takes are left of it"))
    if listed is not None and listed.because:
        return Opening(span=None, because=(*_told(skipped, zone), listed.because))
    never = f"{window} does not open any more, or not before {shown(now + HORIZON, zone)}"
    return Opening(span=None, because=_told(skipped, zone) or (never,))


def _any_time(now: datetime, closures: Sequence[Closure], least: timedelta) -> Opening:
    whole = Span(opens=now, closes=now + HORIZON)
    for part in parts(whole, closures):
        if part.length >= least:
            before = () if part.opens == now else (_closing(Span(opens=now, closes=part.opens), closures, None),)
            return Opening(span=part, because=tuple(f"nothing is begun before {shown(part.opens)}: {why}" for why in before))
    return Opening(span=None, because=(f"nothing may be begun: {_closing(whole, closures, None)}",))


def _closing(span: Span, closures: Iterable[Closure], zone: ZoneInfo | None) -> str:
    """Who closes the span or parts of it."""
    met = [one for one in closures if one.begins < span.closes and (one.ends is None or one.ends > span.opens)]
    return "; ".join(dict.fromkeys(one.told(zone) for one in sorted(met, key=lambda one: one.begins)))


def _told(skipped: Sequence[tuple[Span, str]], zone: ZoneInfo | None) -> tuple[str, ...]:
    """A sentence for each reason, not for each opening: a freeze of weeks swallows many."""
    by_reason: dict[str, list[Span]] = {}
    for span, why in skipped:
        by_reason.setdefault(why, []).append(span)
    sentences = []
    for why, spans in by_reason.items():
        first = shown(spans[0].opens, zone)
        if len(spans) == 1:
            sentences.append(f"the opening of {first} is not used: {why}")
        else:
            sentences.append(f"{len(spans)} openings from {first} to {shown(spans[-1].opens, zone)} are not used: {why}")
    return tuple(sentences)


def minutes(value: timedelta) -> str:
    """``40 minutes``: rounded up."""
    count = math.ceil(value / timedelta(minutes=1))
    return f"{count} minute{'s' if count != 1 else ''}"


def occurrence(
    window: Window,
    now: datetime,
    *,
    closures: Sequence[Closure] = (),
    least: timedelta = timedelta(),
    listed: Listing | None = None,
) -> Span:
    """The opening that `now` lies in, else the next one, without what is closed; `opening` also says why it is no earlier one.

    Args:
        now: aware.

    Raises:
        NeverOpens: there is none, with the reasons.
        OpeningsUnknown: it is a maintenance window of Systems Manager, and `listed` is not given.
    """
    found = opening(window, now, closures=closures, least=least, listed=listed)
    if found.span is None:
        raise NeverOpens("; ".join(found.because))
    return found.span


# --- how long it takes ----------------------------------------------------------------------------------------------------
def expected(samples: Mapping[Step, Sequence[timedelta]], default: Mapping[Step, timedelta]) -> dict[Step, timedelta]:
    """How long each step takes at most in nineteen of twenty cases: from what was seen, else the default.

    Args:
        samples: seen durations by step.
        default: by step; each step of it is in the answer.
    """
    return {
        step: percentile(seen) if len(seen := samples.get(step, ())) >= FEWEST_SAMPLES else usual
        for step, usual in default.items()
    }


def percentile(samples: Sequence[timedelta], share: float = PERCENTILE) -> timedelta:
    """The smallest sample that is not below `share` of them (nearest rank).

    Raises:
        ValueError: there is none.
    """
    if not samples:
        raise ValueError("no samples, no percentile")
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]
