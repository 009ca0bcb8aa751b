"""In which span a stage may act: its window, freezes, change calendars and maintenance windows, against a simulated AWS."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.aws.gateway import Gateway
from patchwave.aws.windows import NotOurs
from patchwave.campaign import definition, forecast, severity
from patchwave.campaign import plan as plans
from patchwave.campaign.plan import Restriction
from patchwave.campaign.windows import Span
from patchwave.execution import openings
from patchwave.execution.openings import CHANGED, KEPT, Openings
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Run, StageState
from tests.domain.builders import CELL
from tests.domain.test_severity import STANDARD
from tests.gateway.conftest import session_with_keys
from tests.operators.stage import ONCE, RUN, STAGE
from tests.simulator.conftest import Aws

EVERY = timedelta(minutes=10)
NIGHTS = 'window: {cron: "0 10 * * *", duration: 4h, timezone: UTC}, '
"""It is 08:00 on Monday, the 5th of January 2026."""
CAMPAIGN = """
name: weekly-linux
description: Weekly patches
owner: platform
scope: {cells: [{account: "111111111111", regions: [eu-central-1]}]}
policy: standard
CLOSED
stages:
  - {name: dev, select: {patch_groups: [web]}, WINDOWsoak: 0m}
"""
CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//AWS//Change Calendar 1.0//EN
X-CALENDAR-TYPE:DEFAULT_OPEN
EVENTSEND:VCALENDAR
"""


def event(number: int, begins: str, ends: str) -> str:
    """A time of that day in which the calendar is closed."""
    at = f"DTSTART:20260105T{begins}00Z\nDTEND:20260105T{ends}00Z"
    return f"BEGIN:VEVENT\nUID:{number}\n{at}\nSUMMARY:busy\nEND:VEVENT\n"


class Asking:
    """A stage whose span is asked for."""

    def __init__(self, aws: Aws, *, window: str = "", closed: str = "") -> None:
        self.aws = aws
        self.ledger = MemoryLedger()
        self.gateway = Gateway(session_with_keys, endpoint_url=aws.url, reads=ONCE)
        self.campaign = definition.parse(CAMPAIGN.replace("CLOSED", closed).replace("WINDOW", window), file="weekly-linux.yaml")
        self.plan = plans.build(
            self.campaign, self.gateway.fleet(CELL, {}), severity.classify([], STANDARD, now=self.now, coverage=[]), run=RUN,
            now=self.now, dry_run=False, restriction=Restriction(), definition="d", requested_by=None,
        )  # fmt: skip
        run = Run(
            id=RUN, campaign="weekly-linux", dag_id="weekly-linux", dag_run_id="manual__2026-01-05", began_at=self.now,
            definition={}, definition_digest="d" * 64, policy={}, params={},
        )  # fmt: skip
        self.ledger.open_run(run, [STAGE])
        self.leg = 0

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.aws.control("clock")["epoch"], UTC)

    def ask(self, *, anew: bool = False, ask: bool = True) -> Span | None:
        """In a leg of its own."""
        self.leg += 1
        made = Openings(
            ledger=self.ledger, gateway=self.gateway, lease=self.ledger.acquire(RUN, STAGE, f"try-{self.leg}", at=self.now),
            campaign=self.campaign, plan=self.plan, stage=self.plan.stage(STAGE), log=logging.getLogger("stage"), every=EVERY,
        )  # fmt: skip
        return made.current(now=self.now, anew=anew, ask=ask)

    def told(self, kind: str = CHANGED) -> list[Any]:
        return [entry.data for entry in self.ledger.journal(RUN) if entry.kind == kind]

    def write_calendar(self, *events: str, name: str = "change-freeze") -> None:
        content = CALENDAR.replace("EVENTS", "".join(events))
        documents = self.aws.ssm.list_documents(Filters=[{"Key": "Name", "Values": [name]}])["DocumentIdentifiers"]
        if documents:
            made = self.aws.ssm.update_document(Name=name, Content=content, DocumentFormat="TEXT", DocumentVersion="$LATEST")
            version = made["DocumentDescription"]["DocumentVersion"]
            self.aws.ssm.update_document_default_version(Name=name, DocumentVersion=version)
        else:
            self.aws.ssm.create_document(Name=name, Content=content, DocumentType="ChangeCalendar", DocumentFormat="TEXT")


def at(hour: int, minute: int = 0, *, day: int = 5) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def test_a_stage_with_nothing_that_closes_it_asks_nobody(aws: Aws) -> None:
    """No call, no document, no record."""
    stage = Asking(aws)
    stage.gateway.take_calls()
    assert stage.ask(anew=True) is None
    assert stage.gateway.take_calls() == {}
    assert stage.told() == []


def test_a_stage_waits_for_what_a_freeze_leaves_of_its_window_and_says_why(aws: Aws) -> None:
    """The freeze ends at noon, in the middle of the opening; chosen once, a later leg reads it."""
    stage = Asking(aws, window=NIGHTS, closed="freezes: [{from: 2026-01-05T00:00Z, to: 2026-01-05T12:00Z, reason: launch}]")
    first = stage.ask(anew=True)
    assert first == Span(opens=at(12), closes=at(14))
    assert first is not None
    assert "freeze 'launch'" in first.because
    aws.advance(5 * 3600)
    assert stage.ask() == first
    assert stage.ask(ask=False) == first
    assert len(stage.told()) == 1


def test_a_calendar_that_is_closed_meanwhile_closes_the_opening_that_was_chosen(aws: Aws) -> None:
    """Somebody enters an incident from 11 to 12: until 11 the stage goes on, then it waits for noon."""
    stage = Asking(aws, window=NIGHTS, closed="calendars: [change-freeze]")
    stage.write_calendar()
    assert stage.ask(anew=True) == Span(opens=at(10), closes=at(14))
    aws.advance(int(2.25 * 3600))
    stage.write_calendar(event(1, "1100", "1200"))
    assert stage.ask(ask=False) == Span(opens=at(10), closes=at(14))  # not asked
    narrowed = stage.ask()
    assert narrowed is not None
    assert narrowed.closes == at(11)
    aws.advance(3600)
    waits = stage.ask()
    assert waits == Span(opens=at(12), closes=at(14))
    assert waits is not None
    assert "change calendar 'change-freeze'" in waits.because
    assert [one["closes"][11:16] for one in stage.told()] == ["14:00", "11:00", "14:00"]


def test_what_cut_an_opening_may_be_taken_back(aws: Aws) -> None:
    """The incident is over earlier than it was entered: the stage goes on in its opening, and not after the incident."""
    stage = Asking(aws, window=NIGHTS, closed="calendars: [change-freeze]")
    stage.write_calendar(event(1, "0900", "1300"))
    assert stage.ask(anew=True) == Span(opens=at(13), closes=at(14))
    aws.advance(3 * 3600)
    stage.write_calendar()
    assert stage.ask() == Span(opens=at(10), closes=at(14))


def test_a_rest_that_is_too_short_is_passed_over_for_a_later_one(aws: Aws) -> None:
    """Closed from 10:10 to 12:00: within ten minutes no host is through, and nobody is given up for them."""
    stage = Asking(aws, window=NIGHTS, closed="calendars: [change-freeze]")
    stage.write_calendar()
    stage.ask(anew=True)
    stage.write_calendar(event(1, "1010", "1200"))
    assert stage.ask() == Span(opens=at(12), closes=at(14))


def test_a_calendar_that_cannot_be_read_holds_the_stage_and_gives_nothing_up(aws: Aws) -> None:
    """Nothing is begun until it is asked again; the opening keeps its end, so no host is settled for it. Asked at each leg."""
    stage = Asking(aws, window=NIGHTS, closed="calendars: [change-freeze]")
    stage.write_calendar()
    stage.ask(anew=True)
    aws.advance(3 * 3600)
    aws.ssm.delete_document(Name="change-freeze")
    held = stage.ask()
    assert held == Span(opens=at(11) + EVERY, closes=at(14))
    assert held is not None
    assert "cannot be read, so nothing is begun" in held.because
    aws.advance(60)
    assert stage.ask(ask=False) == Span(opens=at(11, 1) + EVERY, closes=at(14))
    assert len(stage.told()) == 2  # the same reason is told once
    stage.write_calendar()
    assert stage.ask(ask=False) == Span(opens=at(10), closes=at(14))


def test_a_calendar_that_cannot_be_read_from_the_beginning_chooses_no_opening(aws: Aws) -> None:
    """Also for a stage without a window; when it is there, the stage goes on."""
    for window in (NIGHTS, ""):
        stage = Asking(aws, window=window, closed="calendars: [missing]")
        held = stage.ask(anew=True)
        assert held is not None
        assert held.opens == stage.now + EVERY
        assert held.closes > stage.now + timedelta(days=300)
        assert "'missing'" in held.because
    stage.write_calendar(event(1, "0900", "0930"), name="missing")
    assert stage.ask() == Span(opens=stage.now, closes=at(9))


def test_a_stage_without_a_window_acts_around_what_is_closed(aws: Aws) -> None:
    """Each time that it is asked, up to the next thing that closes it; an open calendar without an end leaves it free."""
    stage = Asking(aws, closed="calendars: [change-freeze]")
    stage.write_calendar(event(1, "0900", "1000"))
    assert stage.ask(anew=True) == Span(opens=at(8), closes=at(9))
    aws.advance(1800)
    assert stage.ask() == Span(opens=at(8), closes=at(9))
    assert len(stage.told()) == 1
    aws.advance(3600)
    again = stage.ask()
    assert again is not None
    assert again.opens == at(10)
    aws.advance(3600)
    assert stage.ask() is None
    assert stage.ask(ask=False) is None
    assert [one["opens"] and one["opens"][11:16] for one in stage.told()] == ["08:00", "10:00", None]


def test_a_declared_maintenance_window_is_created_kept_and_waited_for(aws: Aws) -> None:
    """It is not there before the run; drift is put back when an opening is chosen, and both are recorded."""
    facts = "name: dev-nights, schedule: cron(0 20 ? * * *), timezone: UTC, duration: 4h, cutoff: 1h"
    declared = f"window: {{maintenance_window: {{{facts}}}}}, "
    stage = Asking(aws, window=declared)
    assert stage.ask(anew=True) == Span(opens=at(20), closes=at(23))
    (kept,) = stage.told(KEPT)
    assert kept["created"] is True
    aws.ssm.update_maintenance_window(WindowId=kept["window"], Schedule="cron(0 21 ? * * *)")
    assert stage.ask(anew=True) == Span(opens=at(20), closes=at(23))
    assert "Schedule was 'cron(0 21 ? * * *)'" in stage.told(KEPT)[1]["drift"][0]


def test_a_maintenance_window_that_is_changed_meanwhile_counts_as_it_is_now(aws: Aws) -> None:
    """Shortened by two hours, then switched off: the stage is held, for somebody may switch it on again."""
    stage = Asking(aws, window="window: {maintenance_window: dev-nights}, ")
    made = aws.ssm.create_maintenance_window(
        Name="dev-nights", Schedule="cron(0 10 ? * * *)", Duration=4, Cutoff=0, AllowUnassociatedTargets=False
    )
    assert stage.ask(anew=True) == Span(opens=at(10), closes=at(14))
    aws.advance(int(2.5 * 3600))
    aws.ssm.update_maintenance_window(WindowId=made["WindowId"], Duration=2)
    shorter = stage.ask()
    assert shorter is not None
    assert shorter.closes == at(12)
    aws.ssm.update_maintenance_window(WindowId=made["WindowId"], Enabled=False)
    held = stage.ask()
    assert held is not None
    assert held.opens == stage.now + EVERY
    assert "switched off" in held.because


def test_a_maintenance_window_that_is_moved_takes_the_stage_along(aws: Aws) -> None:
    """The opening that was chosen is none any more; when one is over in time, nothing is chosen anew."""
    stage = Asking(aws, window="window: {maintenance_window: dev-nights}, ")
    made = aws.ssm.create_maintenance_window(
        Name="dev-nights", Schedule="cron(0 10 ? * * *)", Duration=4, Cutoff=0, AllowUnassociatedTargets=False
    )
    assert stage.ask(anew=True) == Span(opens=at(10), closes=at(14))
    aws.ssm.update_maintenance_window(WindowId=made["WindowId"], Schedule="cron(0 16 ? * * *)")
    assert stage.ask() == Span(opens=at(16), closes=at(20))
    aws.advance(13 * 3600)
    over = stage.ask()
    assert over is not None
    assert over.closes <= stage.now


def test_a_window_of_somebody_else_is_not_taken(aws: Aws) -> None:
    """The stage fails and says so: waiting would not end."""
    aws.ssm.create_maintenance_window(
        Name="dev-nights", Schedule="cron(0 10 ? * * *)", Duration=4, Cutoff=0, AllowUnassociatedTargets=False
    )
    declared = "window: {maintenance_window: {name: dev-nights, schedule: rate(1 day), timezone: UTC, duration: 4h}}, "
    with pytest.raises(NotOurs):
        Asking(aws, window=declared).ask(anew=True)


def test_the_opening_is_chosen_anew_after_a_halt(aws: Aws) -> None:
    """The night of the halt is over; the next one is waited for, and a leg that only resumes keeps its own."""
    stage = Asking(aws, window=NIGHTS)
    stage.ask(anew=True)
    aws.advance(86400)
    over = stage.ask()
    assert over is not None
    assert over.closes <= stage.now
    lease = stage.ledger.acquire(RUN, STAGE, "halting", at=stage.now)
    stage.ledger.set_stage(lease, StageState.PATCHING, reason="", at=stage.now)
    stage.ledger.set_stage(lease, StageState.HALTED, reason="too many errors", at=stage.now)
    assert stage.ask() == Span(opens=at(10, day=6), closes=at(14, day=6))


def test_a_plan_s_forecast_is_fed_by_freezes_calendars_and_maintenance_windows(aws: Aws) -> None:
    """Nothing is created for it: a window that is declared and not there is told as that."""
    facts = "name: dev-nights, schedule: cron(0 20 ? * * *), timezone: UTC, duration: 4h"
    closed = "freezes: [{from: 2026-01-05, to: 2026-01-05, reason: launch, timezone: UTC}]\ncalendars: [change-freeze]"
    stage = Asking(aws, window=f"window: {{maintenance_window: {{{facts}}}}}, ", closed=closed)
    stage.write_calendar(event(1, "0900", "1000"))
    closures, listings = openings.around(stage.gateway, stage.campaign, stage.plan, now=stage.now)
    assert [one.begins for one in closures] == [at(0), at(9)]
    assert "is created when the stage begins" in listings[STAGE].because
    assert aws.ssm.describe_maintenance_windows()["WindowIdentities"] == []
    held = stage.ask(anew=True)
    assert held is not None
    _, listings = openings.around(stage.gateway, stage.campaign, stage.plan, now=stage.now)
    (one,) = forecast.forecast(stage.plan, now=stage.now, closures=closures, listings=listings)
    assert one.starts == at(20, day=6) == held.opens
    assert any("freeze 'launch'" in sentence for sentence in forecast.sentences([one]))


@pytest.mark.parametrize(("hours", "expected"), [(0, False), (3, True), (6, False)])
def test_anybody_may_ask_whether_a_stage_is_open(start: Callable[..., Aws], hours: int, expected: bool) -> None:
    """Without a lease and without a trace: remedies, and the plan."""
    aws = start()
    stage = Asking(aws, window=NIGHTS, closed="freezes: [{from: 2026-02-01, to: 2026-02-02, reason: x, timezone: UTC}]")
    aws.advance(hours * 3600)
    open_ = openings.is_open(stage.gateway, stage.campaign, stage.plan, stage.plan.stage(STAGE), now=stage.now)
    assert open_ is expected
    assert stage.told() == []
