"""Change calendars: open or closed by default, events that invert it, repetition, several at once."""

from datetime import datetime

import pytest
from botocore.exceptions import ClientError

from awsim import calendars
from awsim.calendars import BadCalendar
from tests.simulator.test_ssm_baselines import code


def text(kind="DEFAULT_OPEN", *events, zone=None):
    lines = ["BEGIN:VCALENDAR", "PRODID:-//AWS//Change Calendar 1.0//EN", "VERSION:2.0", f"X-CALENDAR-TYPE:{kind}"]
    lines += [f"X-WR-TIMEZONE:{zone}"] if zone else []
    for number, event in enumerate(events):
        lines += ["BEGIN:VEVENT", f"UID:{number}", "DTSTAMP:20260101T000000Z", *event, "END:VEVENT"]
    return "\r\n".join([*lines, "BEGIN:VTODO", "SUMMARY:Add events to this calendar.", "END:VTODO", "END:VCALENDAR"]) + "\r\n"


def calendar(aws, name, *given):
    aws.ssm.create_document(Name=name, Content=text(*given), DocumentType="ChangeCalendar", DocumentFormat="TEXT")
    return name


def asked(aws, *names, at=None):
    answer = aws.ssm.get_calendar_state(CalendarNames=list(names), **({"AtTime": at} if at else {}))
    return answer["State"], answer.get("NextTransitionTime")


FREEZE = ("DTSTART:20260105T090000Z", "DTEND:20260105T120000Z", "SUMMARY:freeze")


def at(moment):
    return datetime.fromisoformat(moment).timestamp()


def opened(content, moment):
    return calendars.parse(content).is_open(at(moment))


def test_an_event_closes_an_open_calendar_and_opens_a_closed_one(aws):
    """Its start belongs to it, its end does not."""
    calendar(aws, "Changes", "DEFAULT_OPEN", FREEZE)
    calendar(aws, "Windows", "DEFAULT_CLOSED", FREEZE)
    assert asked(aws, "Changes") == ("OPEN", "2026-01-05T09:00:00Z")
    assert asked(aws, "Windows") == ("CLOSED", "2026-01-05T09:00:00Z")
    aws.advance(3600)
    assert asked(aws, "Changes") == ("CLOSED", "2026-01-05T12:00:00Z")
    assert asked(aws, "Windows") == ("OPEN", "2026-01-05T12:00:00Z")
    assert asked(aws, "Changes", at="2026-01-05T12:00:00Z") == ("OPEN", None)
    assert aws.ssm.get_calendar_state(CalendarNames=["Changes"])["AtTime"] == "2026-01-05T09:00:00Z"


def test_several_calendars_are_open_only_when_all_are(aws):
    """The next transition is that of the answer as a whole."""
    calendar(aws, "First", "DEFAULT_OPEN", FREEZE)
    calendar(aws, "Second", "DEFAULT_OPEN", ("DTSTART:20260105T110000Z", "DTEND:20260105T150000Z"))
    assert asked(aws, "First", "Second") == ("OPEN", "2026-01-05T09:00:00Z")
    assert asked(aws, "First", "Second", at="2026-01-05T10:00:00Z") == ("CLOSED", "2026-01-05T15:00:00Z")


@pytest.mark.parametrize(
    ("event", "closed", "open_"),
    [
        (
            ("DTSTART:20260105T220000Z", "DTEND:20260106T020000Z", "RRULE:FREQ=WEEKLY;BYDAY=MO,FR"),
            ["2026-01-12T23:00:00+00:00", "2026-01-10T01:30:00+00:00"],
            ["2026-01-07T23:00:00+00:00", "2026-01-13T02:00:00+00:00"],
        ),
        (
            ("DTSTART;TZID=Europe/Berlin:20260120T020000", "DURATION:PT2H", "RRULE:FREQ=MONTHLY;BYDAY=3TU;COUNT=2"),
            ["2026-01-20T01:30:00+00:00", "2026-02-17T01:30:00+00:00"],
            ["2026-03-17T01:30:00+00:00", "2026-01-20T03:30:00+00:00"],
        ),
        (
            ("DTSTART;VALUE=DATE:20251224", "DTEND;VALUE=DATE:20251227", "RRULE:FREQ=YEARLY"),
            ["2026-12-24T00:00:00+00:00", "2026-12-26T23:59:00+00:00"],
            ["2026-12-27T00:00:00+00:00", "2026-12-23T23:59:00+00:00"],
        ),
        (
            (
                "DTSTART:20260105T090000Z",
                "DTEND:20260105T100000Z",
                "RRULE:FREQ=DAILY;INTERVAL=2;UNTIL=20260111T235959Z",
                "EXDATE:20260107T090000Z",
            ),
            ["2026-01-05T09:30:00+00:00", "2026-01-09T09:30:00+00:00"],
            ["2026-01-07T09:30:00+00:00", "2026-01-06T09:30:00+00:00", "2026-01-13T09:30:00+00:00"],
        ),
        (
            ("DTSTART:20260130T180000Z", "DURATION:PT3H", "RRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1"),
            ["2026-01-30T19:00:00+00:00", "2026-02-27T19:00:00+00:00", "2026-03-31T19:00:00+00:00"],
            ["2026-02-26T19:00:00+00:00"],
        ),
    ],
)
def test_events_repeat_as_their_rule_says(event, closed, open_):
    """Weeks, ordinals of months, years, exceptions and ends; each in its own time zone."""
    content = text("DEFAULT_OPEN", event)
    assert [opened(content, moment) for moment in closed] == [False] * len(closed)
    assert [opened(content, moment) for moment in open_] == [True] * len(open_)


def test_a_moved_occurrence_replaces_the_one_of_the_rule():
    """RECURRENCE-ID names which."""
    series = ["UID:a", "DTSTART:20260105T090000Z", "DTEND:20260105T100000Z", "RRULE:FREQ=DAILY"]
    moved = ["UID:a", "RECURRENCE-ID:20260106T090000Z", "DTSTART:20260106T150000Z", "DTEND:20260106T160000Z"]
    body = [line for event in (series, moved) for line in ("BEGIN:VEVENT", *event, "END:VEVENT")]
    content = "\n".join(["BEGIN:VCALENDAR", "X-CALENDAR-TYPE:DEFAULT_OPEN", *body, "END:VCALENDAR"])
    assert opened(content, "2026-01-06T09:30:00+00:00")
    assert not opened(content, "2026-01-06T15:30:00+00:00")
    assert not opened(content, "2026-01-07T09:30:00+00:00")


def test_long_lines_are_unfolded_and_cancelled_events_do_not_count():
    """As iCalendar has it."""
    content = text("DEFAULT_OPEN", ("DTSTART:20260105T09\r\n 0000Z", "DTEND:20260105T120000Z")).replace(
        "09\r\n 0000", "09\r\n 0000"
    )
    assert not opened(content, "2026-01-05T10:00:00+00:00")
    assert opened(text("DEFAULT_OPEN", (*FREEZE, "STATUS:CANCELLED")), "2026-01-05T10:00:00+00:00")


@pytest.mark.parametrize(
    "content",
    [
        "not a calendar",
        text("DEFAULT_MAYBE"),
        text("DEFAULT_OPEN", ("DTEND:20260105T120000Z",)),
        text("DEFAULT_OPEN", (*FREEZE, "RRULE:FREQ=SECONDLY")),
        text("DEFAULT_OPEN", ("DTSTART;TZID=Middle/Earth:20260105T090000", "DURATION:PT1H")),
        text("DEFAULT_OPEN", ("DTSTART:tomorrow", "DURATION:PT1H")),
    ],
)
def test_what_cannot_be_understood_is_refused(aws, content):
    """Never guessed: neither open nor closed."""
    with pytest.raises(BadCalendar):
        calendars.parse(content)
    with pytest.raises(ClientError) as refused:
        aws.ssm.create_document(Name="Bad", Content=content, DocumentType="ChangeCalendar", DocumentFormat="TEXT")
    assert code(refused) == "InvalidDocumentContent"


def test_the_documents_of_calendars_are_documents(aws):
    """Read, listed, updated, deleted."""
    calendar(aws, "Changes", "DEFAULT_OPEN")
    found = aws.ssm.get_document(Name="Changes")
    assert (found["DocumentFormat"], found["DocumentType"]) == ("TEXT", "ChangeCalendar")
    assert found["Content"].startswith("BEGIN:VCALENDAR")
    assert "Changes" in {row["Name"] for row in aws.ssm.list_documents()["DocumentIdentifiers"]}
    with pytest.raises(ClientError) as refused:
        calendar(aws, "Changes", "DEFAULT_CLOSED")
    assert code(refused) == "DocumentAlreadyExists"
    aws.ssm.update_document(Name="Changes", Content=text("DEFAULT_CLOSED"), DocumentVersion="$LATEST", DocumentFormat="TEXT")
    assert asked(aws, "Changes")[0] == "OPEN"
    aws.ssm.update_document_default_version(Name="Changes", DocumentVersion="2")
    assert asked(aws, "Changes")[0] == "CLOSED"
    aws.ssm.delete_document(Name="Changes")
    with pytest.raises(ClientError) as refused:
        asked(aws, "Changes")
    assert code(refused) == "InvalidDocument"


def test_only_calendars_have_a_state(aws):
    """Another type of document is refused with a code of its own; an unreadable moment, too."""
    aws.ssm.create_document(Name="Script", Content='{"schemaVersion": "2.2", "mainSteps": []}', DocumentType="Command")
    with pytest.raises(ClientError) as refused:
        asked(aws, "Script")
    assert code(refused) == "InvalidDocumentType"
    calendar(aws, "Changes", "DEFAULT_OPEN")
    with pytest.raises(ClientError) as refused:
        asked(aws, "Changes", at="tomorrow")
    assert code(refused) == "ValidationException"
    arn = "arn:aws:ssm:eu-central-1:111111111111:document/Changes"
    assert asked(aws, arn)[0] == "OPEN"
    with pytest.raises(ClientError) as refused:
        asked(aws, arn.replace("111111111111", "222222222222"))
    assert code(refused) == "InvalidDocument"
