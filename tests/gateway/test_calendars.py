"""Change calendars: asked from change to change, each for itself, and closed where they cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from patchwave.aws import calendars
from patchwave.campaign.values import Cell
from patchwave.campaign.windows import Closure
from tests.gateway.conftest import CELL, NOW, Wire

NAME = "change-freeze"
ARN = "arn:aws:ssm:eu-central-1:222222222222:document/shared-freeze"


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def says(wire: Wire, state: str, moment: datetime, following: datetime | None, name: str = NAME) -> None:
    """One answer of AWS."""
    answer = {"State": state, "AtTime": written(moment)} | ({"NextTransitionTime": written(following)} if following else {})
    wire.expects("ssm", "get_calendar_state", answer, {"CalendarNames": [name], "AtTime": written(moment)})


def test_a_calendar_is_walked_from_change_to_change(wire: Wire) -> None:
    """Open now, closed from 2 to 4 hours on, then open as far as AWS knows: one closure with both its ends."""
    says(wire, "OPEN", NOW, at(2))
    says(wire, "CLOSED", at(2), at(4))
    says(wire, "OPEN", at(4), None)
    (closure,) = wire.gateway.calendar_closures([CELL], [NAME], now=NOW)
    assert (closure.begins, closure.ends) == (at(2), at(4))
    assert closure.reason == f"change calendar 'change-freeze' of {CELL} is CLOSED"


def test_a_calendar_that_stays_closed_closes_without_an_end(wire: Wire) -> None:
    """No next change: nobody knows until when."""
    says(wire, "CLOSED", NOW, None)
    (closure,) = wire.gateway.calendar_closures([CELL], [NAME], now=NOW)
    assert (closure.begins, closure.ends) == (NOW, None)


def test_what_is_beyond_the_question_counts_as_closed(wire: Wire) -> None:
    """Open until an hour after the end of the question, and not asked what then: no opening may be chosen there."""
    says(wire, "OPEN", NOW, at(25))
    (closure,) = wire.gateway.calendar_closures([CELL], [NAME], now=NOW, until=at(24))
    assert closure == Closure(
        begins=at(25),
        ends=None,
        known=False,
        reason=f"what change calendar 'change-freeze' of {CELL} says so far ahead is asked later",
    )


def test_a_calendar_without_rest_is_asked_so_often_and_no_more(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as closed from there on."""
    monkeypatch.setattr(calendars, "MOST_CHANGES", 3)
    for hour in range(3):
        says(wire, "OPEN" if hour % 2 else "CLOSED", at(hour), at(hour + 1))
    closures = wire.gateway.calendar_closures([CELL], [NAME], now=NOW)
    assert [(one.begins, one.ends) for one in closures] == [(NOW, at(1)), (at(2), at(3)), (at(3), None)]


def test_an_answer_that_leads_nowhere_ends_the_walk(wire: Wire) -> None:
    """The next change is now: it would be asked for ever."""
    says(wire, "CLOSED", NOW, NOW)
    assert [one.ends for one in wire.gateway.calendar_closures([CELL], [NAME], now=NOW)] == [None]


@pytest.mark.parametrize(
    "code",
    ["InvalidDocument", "InvalidDocumentType", "UnsupportedCalendarException", "AccessDeniedException", "ThrottlingException",
     "InternalServerError"],
)  # fmt: skip
def test_a_calendar_that_cannot_be_read_is_closed_and_says_why(wire: Wire, code: str) -> None:
    """Whatever the cause: a freeze that nobody can see is still a freeze."""
    wire.refuses("ssm", "get_calendar_state", code, "no")
    (closure,) = wire.gateway.calendar_closures([CELL], [NAME], now=NOW)
    assert (closure.begins, closure.ends) == (NOW, None)
    assert "cannot be read, so nothing is begun" in closure.reason
    assert code in closure.reason


def test_what_was_read_before_an_error_stays_known(wire: Wire) -> None:
    """Closed from the moment that could not be asked for, not before."""
    says(wire, "OPEN", NOW, at(2))
    wire.refuses("ssm", "get_calendar_state", "ThrottlingException")
    (closure,) = wire.gateway.calendar_closures([CELL], [NAME], now=NOW)
    assert closure.begins == at(2)


def test_a_state_that_nobody_knows_is_closed(wire: Wire) -> None:
    """Only OPEN is open."""
    wire.expects("ssm", "get_calendar_state", {"AtTime": written(NOW)})
    (closure,) = wire.gateway.calendar_closures([CELL], [NAME], now=NOW)
    assert closure.ends is None


def test_each_calendar_is_asked_in_every_cell_and_a_shared_one_in_its_region(wire: Wire) -> None:
    """So that the reason names the calendar and the cell; an ARN is the same calendar for all accounts."""
    other = Cell(account="222222222222", region="eu-central-1")
    says(wire, "CLOSED", NOW, None)
    says(wire, "OPEN", NOW, None)
    says(wire, "OPEN", NOW, None, ARN)
    (closure,) = wire.gateway.calendar_closures([other, CELL], [NAME, ARN], now=NOW)
    assert str(CELL) in closure.reason


def test_a_moment_without_an_offset_is_utc(wire: Wire) -> None:
    """AWS gives them as text, and its pages show both ways of writing."""
    wire.expects("ssm", "get_calendar_state", {"State": "CLOSED", "NextTransitionTime": "2026-03-03T23:00:00"})
    wire.expects("ssm", "get_calendar_state", {"State": "OPEN"})
    (closure,) = wire.gateway.calendar_closures([CELL], [NAME], now=NOW)
    assert closure.ends == datetime(2026, 3, 3, 23, tzinfo=UTC)
