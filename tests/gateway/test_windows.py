"""Maintenance windows: read as AWS has them, created and kept where they are declared, and closed where they cannot be read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from patchwave.aws.windows import NotOurs
from patchwave.campaign.definition import MaintenanceWindow
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.values import Cell
from patchwave.campaign.windows import Span
from tests.gateway.conftest import CELL, NOW, Wire

ID, NAME = "mw-0123456789abcdef0", "prod-nights"
DECLARED = MaintenanceWindow.model_validate(
    {"name": NAME, "schedule": "cron(0 22 ? * TUE *)", "timezone": "Europe/Vienna", "duration": "4h", "cutoff": "1h"}
)
OURS = "Kept by Patchwave as campaign weekly-linux declares it"


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


def named(wire: Wire, *ids: str) -> None:
    """AWS has windows of that name."""
    wire.expects(
        "ssm", "describe_maintenance_windows", {"WindowIdentities": [{"WindowId": one, "Name": NAME} for one in ids]},
        {"Filters": [{"Key": "Name", "Values": [NAME]}]},
    )  # fmt: skip


def about(**changed: Any) -> dict[str, Any]:
    """What GetMaintenanceWindow says."""
    return {
        "WindowId": ID, "Name": NAME, "Description": OURS, "Schedule": "cron(0 22 ? * TUE *)", "Duration": 4, "Cutoff": 1,
        "ScheduleTimezone": "Europe/Vienna", "Enabled": True, **changed,
    }  # fmt: skip


def opens(wire: Wire, *moments: datetime, begun: tuple[datetime, ...] = ()) -> None:
    """Executions that have begun, and the schedule."""
    wire.expects(
        "ssm", "describe_maintenance_window_executions",
        {"WindowExecutions": [{"WindowId": ID, "StartTime": one} for one in begun]},
    )  # fmt: skip
    rows = [{"WindowId": ID, "Name": NAME, "ExecutionTime": f"{one:%Y-%m-%dT%H:%MZ}"} for one in moments]
    wire.expects("ssm", "describe_maintenance_window_schedule", {"ScheduledWindowExecutions": rows})


def test_its_openings_are_as_long_as_aws_says_and_end_at_the_cutoff(wire: Wire) -> None:
    """Four hours with a cutoff of one: begun within three."""
    named(wire, ID)
    wire.expects("ssm", "get_maintenance_window", about(), {"WindowId": ID})
    opens(wire, at(2), at(26))
    listing = wire.gateway.window_openings([CELL], NAME, now=NOW)
    assert listing.spans == (Span(opens=at(2), closes=at(5)), Span(opens=at(26), closes=at(29)))
    assert listing.because == ""


def test_the_opening_of_now_is_known_from_what_has_begun(wire: Wire) -> None:
    """The schedule names the coming ones only; AWS begins some seconds late."""
    named(wire, ID)
    wire.expects("ssm", "get_maintenance_window", about())
    opens(wire, at(23), begun=(at(-1) + timedelta(seconds=17),))
    listing = wire.gateway.window_openings([CELL], NAME, now=NOW)
    assert listing.spans[0] == Span(opens=at(-1), closes=at(2))


def test_a_window_named_by_its_id_is_read_where_it_is(wire: Wire) -> None:
    """An id is in one cell; the others have none, and nothing is wrong with that."""
    other = Cell(account="000000000000", region=CELL.region)
    wire.refuses("ssm", "get_maintenance_window", "DoesNotExistException")
    wire.expects("ssm", "get_maintenance_window", about(), {"WindowId": ID})
    opens(wire, at(2))
    assert len(wire.gateway.window_openings([CELL, other], ID, now=NOW).spans) == 1
    wire.refuses("ssm", "get_maintenance_window", "DoesNotExistException")
    assert "in none of the stage's cells" in wire.gateway.window_openings([CELL], ID, now=NOW).because


def test_windows_of_two_cells_are_open_together_only(wire: Wire) -> None:
    """The stage is one; where they never meet, it is said."""
    other = Cell(account="222222222222", region=CELL.region)
    for hours in (2, 4, 2, 8):
        named(wire, ID)
        wire.expects("ssm", "get_maintenance_window", about())
        opens(wire, at(hours))
    assert wire.gateway.window_openings([CELL, other], NAME, now=NOW).spans == (Span(opens=at(4), closes=at(5)),)
    listing = wire.gateway.window_openings([CELL, other], NAME, now=NOW)
    assert listing.spans == ()
    assert "never open together" in listing.because


def test_a_window_that_is_missing_switched_off_or_doubled_never_opens_and_says_why(wire: Wire) -> None:
    """Each of them by its own sentence."""
    named(wire)
    assert "does not exist" in wire.gateway.window_openings([CELL], NAME, now=NOW).because
    named(wire, ID)
    wire.expects("ssm", "get_maintenance_window", about(Enabled=False))
    assert "switched off" in wire.gateway.window_openings([CELL], NAME, now=NOW).because
    named(wire, ID, "mw-0123456789abcdef1")
    assert "2 maintenance windows" in wire.gateway.window_openings([CELL], NAME, now=NOW).because
    named(wire, ID)
    wire.expects("ssm", "get_maintenance_window", about())
    opens(wire)
    assert "no opening to come" in wire.gateway.window_openings([CELL], NAME, now=NOW).because


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "InternalServerError"])
def test_a_window_that_cannot_be_read_never_opens(wire: Wire, code: str) -> None:
    """Fail closed, with AWS's word."""
    wire.refuses("ssm", "describe_maintenance_windows", code)
    because = wire.gateway.window_openings([CELL], NAME, now=NOW).because
    assert "cannot be read, so nothing is begun" in because
    assert code in because


def test_a_declared_window_is_created_under_a_token_of_ours(wire: Wire) -> None:
    """The second call within the run is the same as the first."""
    named(wire)
    wire.expects("ssm", "create_maintenance_window", {"WindowId": ID})
    kept = wire.gateway.ensure_window(CELL, DECLARED, campaign="weekly-linux", run="weekly-linux/manual__1")
    assert (kept.id, kept.created, kept.drift) == (ID, True, ())


def test_a_declared_window_that_is_as_declared_is_left_alone(wire: Wire) -> None:
    """No call that changes anything."""
    named(wire, ID)
    wire.expects("ssm", "get_maintenance_window", about())
    kept = wire.gateway.ensure_window(CELL, DECLARED, campaign="weekly-linux", run="r")
    assert (kept.created, kept.drift) == (False, ())


def test_drift_is_put_back_and_reported(wire: Wire) -> None:
    """What was otherwise, field by field; nothing else is written. Switched off is a person's word and stays."""
    named(wire, ID)
    wire.expects("ssm", "get_maintenance_window", about(Duration=6, Cutoff=0, Enabled=False))
    wire.expects("ssm", "update_maintenance_window", {}, {"WindowId": ID, "Duration": 4, "Cutoff": 1})
    kept = wire.gateway.ensure_window(CELL, DECLARED, campaign="weekly-linux", run="r")
    assert kept.drift == ("Cutoff was 0 and is 1 again", "Duration was 6 and is 4 again")
    assert not kept.enabled


@pytest.mark.parametrize("description", ["nights of the database team", "Kept by Patchwave as campaign other declares it"])
def test_a_window_of_somebody_else_is_never_changed(wire: Wire, description: str) -> None:
    """Also not that of another campaign: the two would change it in turns."""
    named(wire, ID)
    wire.expects("ssm", "get_maintenance_window", about(Description=description, Duration=6))
    with pytest.raises(NotOurs, match="was not made for campaign weekly-linux"):
        wire.gateway.ensure_window(CELL, DECLARED, campaign="weekly-linux", run="r")


def test_of_two_windows_of_that_name_neither_is_changed(wire: Wire) -> None:
    """AWS allows it; nobody knows which is meant."""
    named(wire, ID, "mw-0123456789abcdef1")
    with pytest.raises(InvalidRequest, match="2 maintenance windows"):
        wire.gateway.ensure_window(CELL, DECLARED, campaign="weekly-linux", run="r")
