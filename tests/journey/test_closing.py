"""One campaign with all that the patch decision matrix tells apart, and an update that is gone before its turn.

A vulnerability of the KEV catalogue is patched at once, a kernel in the maintenance window and in no other time, a minor update
of three days ago not yet; and of what Dev received one package is withdrawn before Prod's turn.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.journey.runs import FollowedRun
from tests.journey.test_promoted import withdraw

CAMPAIGN, REGION = "closing", "ap-northeast-3"
EXPLOITED, EXPAT = "CVE-2024-45490", "expat:0:2.1.0-15.amzn2.0.5"
KERNEL = "kernel:0:5.10.230-223.885.amzn2"
MINOR = "CVE-2024-47814"
WITHDRAWN, PYTHON = "ALAS2-2024-2672", "python3:0:3.7.16-1.amzn2.0.11"
NO_WINDOW = "closing-dev/02"
"""It lacks a kernel, in a stage that is patched at any time."""

FILE = """\
name: closing
description: A vulnerability of the KEV catalogue, a kernel, a minor update and a withdrawn one
owner: tests
scope: {{cells: [{{account: "111111111111", regions: [ap-northeast-3]}}]}}
policy: closing
promotion: {{by: lockfile}}
stages:
  - name: dev
    select: {{patch_groups: [linux-dev]}}
    soak: 1m
  - name: staging
    select: {{patch_groups: [linux-staging]}}
    window: {{rrule: FREQ=DAILY, starts: "{opens:%Y-%m-%dT%H:%M}", duration: 20h, timezone: UTC}}
    soak: 1m
    approval: {{approvers: [olga]}}
  - name: prod
    select: {{patch_groups: [linux-prod]}}
    concurrency: 100%
    error_budget: 2
    soak: 1m
    approval: {{approvers: [olga]}}
"""

pytestmark = pytest.mark.journey
IS_LONG = True


def drive(run: FollowedRun) -> None:
    """The window opens in 40 hours; olga says yes to staging long before, and to prod after the update was withdrawn.

    So late, because a machine with two cores and seven other journeys has taken 24 of these hours until Dev was patched.
    """
    now = datetime.fromtimestamp(run.stage.stack.awsim.get("/clock")["epoch"], UTC).replace(second=0, microsecond=0)
    run.seen["opens"] = now + timedelta(hours=40)
    (run.stage.campaigns / f"{CAMPAIGN}.yaml").write_text(FILE.format(opens=run.seen["opens"]))
    run.begin(dry_run=False)
    run.answer("staging", approve=True)
    run.gate("prod")
    withdraw(run, WITHDRAWN)
    run.answer("prod", approve=True)
    run.ended()


def deadline(run: FollowedRun, vulnerability: str) -> Any:
    """What the report says of it."""
    (line,) = [one for one in run.report["deadlines"] if one["vulnerability"] == vulnerability]
    return line


def test_what_is_exploited_is_patched_at_once_and_everywhere(journey: FollowedRun) -> None:
    """The row of the table that it met stands in the report; Dev does not wait for the window that the kernel needs."""
    line = deadline(journey, EXPLOITED)
    assert line["track"] == "critical"
    assert line["reason"].endswith("what must be gone within 14 days is patched at once")
    assert line["deadline_because"].startswith("CISA BOD 26-04, row 13 (3 days")
    assert "CISA's catalogue 2026.11.20 lists it since 2024-09-10" in line["deadline_because"]
    assert EXPLOITED in (journey.folder / "report.html").read_text()
    got = {one.host: one.at for one in journey.journal.records if one.package == EXPAT}
    assert got.keys() == journey.hosts().keys() - {journey.host(NO_WINDOW)}
    assert got[journey.host("closing-dev/01")] < journey.seen["opens"]


def test_the_kernel_is_installed_and_booted_in_its_window_only(journey: FollowedRun) -> None:
    """Approved long before: by the world's own record nothing touched that host earlier."""
    opens, host = journey.seen["opens"], journey.host("closing-staging/01")
    touched = [one for one in journey.journal.records if one.host == host and (one.package or one.event.startswith("reboot"))]
    assert {one.package for one in touched} >= {KERNEL, EXPAT}
    assert {"reboot_begun", "reboot_ended"} <= {one.event for one in touched}
    assert all(opens <= one.at <= opens + timedelta(hours=20) for one in touched)
    assert [one.host for one in journey.journal.records if one.package.startswith("kernel:")] == [host]
    assert journey.classes[host] == "patched"


def test_a_host_that_waits_for_a_kernel_is_left_out_where_there_is_no_window(journey: FollowedRun) -> None:
    """Dev has none; the plan says so, and whose."""
    host = journey.host(NO_WINDOW)
    (left_out,) = journey.ledger.document(journey.id, "plan")["exclusions"]
    assert left_out["host"] == host
    assert "window" in left_out["reason"]
    assert "kernel" in left_out["reason"]
    assert host not in journey.journal.touched


def test_a_minor_update_of_three_days_waits_for_its_week(journey: FollowedRun) -> None:
    """No host has it, none is called incomplete for it, and the report says why it waits and until when it may."""
    assert not [one for one in journey.journal.packages if one.startswith("vim-minimal:")]
    line = deadline(journey, MINOR)
    assert (line["track"], line["open"]) == ("standard", line["findings"])
    assert line["reason"].endswith("a minor update or enhancement waits for its age and goes through dev and staging first")
    assert line["overdue"] == 0


def test_the_withdrawn_package_is_missed_by_host_and_version(journey: FollowedRun) -> None:
    """Prod's other host, which has it from before, is patched; the stage is red, and says why."""
    lacking, whole = journey.host("closing-prod/01"), journey.host("closing-prod/02")
    assert {journey.classes[lacking], journey.classes[whole]} == {"failed", "patched"}
    assert journey.classes[lacking] == "failed"
    assert PYTHON in journey.journal.of("dev").packages
    assert PYTHON not in journey.journal.of("prod").packages
    stage = journey.ledger.stage(journey.id, "prod")
    assert (journey.state, stage.state.value) == ("failed", "halted")
    assert stage.reason.startswith("lockfile: 1 hosts have not what Dev received: ")
    assert f"({lacking}): python3.x86_64 is " in stage.reason
    assert "the lockfile says 0:3.7.16-1.amzn2.0.11" in stage.reason
    assert "the lockfile says 0:3.7.16-1.amzn2.0.11" in (journey.folder / "report.html").read_text()


def test_nothing_else_was_installed_than_what_dev_has_tried(journey: FollowedRun) -> None:
    """Three packages in all stages together, by the world's own record."""
    assert journey.journal.packages == {EXPAT, KERNEL, PYTHON}
    (platform,) = journey.ledger.document(journey.id, "lockfile")["lockfile"]["platforms"]
    locked = {f"{one['id'].rpartition('.')[0]}:{one['version']}" for one in platform["patches"]}
    assert journey.journal.packages <= locked
