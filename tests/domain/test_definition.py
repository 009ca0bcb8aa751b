"""Campaign files: what they mean, and how they are refused."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.campaign import definition, document
from patchwave.campaign.definition import Campaign, Event, HealthCheck
from patchwave.campaign.errors import InvalidFile, Permanent
from patchwave.campaign.values import Cell, Count, HostId, Share
from patchwave.campaign.windows import Window

ROOT = Path(__file__).parents[2]
CAMPAIGNS, POLICIES = ROOT / "include" / "campaigns", ROOT / "include" / "policies"

GOOD = """\
name: weekly-linux
description: Weekly patches
owner: ops
schedule:
  cron: "0 22 * * 2"
  timezone: Europe/Vienna
scope:
  cells:
    - account: "111111111111"
      regions: [eu-central-1, us-east-1]
policy: standard
stages:
  - name: dev
    select:
      patch_groups: [linux-dev]
    concurrency: 100%
    error_budget: 2
    soak: 30m
  - name: prod
    select:
      patch_groups: [linux-prod]
    concurrency: 10%
    error_budget: 2
    soak: 1h
    approval:
      approvers: [olga, ana]
      timeout: 24h
remediate:
  stages: [dev]
notifications:
  - on: [stage_halted]
    log: warning
"""


def parsed(text: str = GOOD) -> Campaign:
    return definition.parse(text, file="weekly.yaml", policies={"standard", "strict"})


def changed(old: str, new: str) -> str:
    """The good file with one thing changed; fails if the thing is not there."""
    assert old in GOOD, f"the test changes {old!r}, which the good file does not hold"
    return GOOD.replace(old, new, 1)


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidFile) as caught:
        parsed(text)
    return caught.value.problems


def two_stages(first: str, second: str, *, scope_tags: str = "{}") -> str:
    """A small campaign whose stages select as given."""
    return f"""\
name: two
description: Two stages
owner: ops
scope: {{cells: [{{account: "111111111111", regions: [eu-central-1]}}], tags: {scope_tags}}}
policy: standard
stages:
  - name: first
    select: {first}
  - name: second
    select: {second}
    approval: {{required: false}}
"""


# --- What a file means ------------------------------------------------------------------------------------------------------


def test_a_file_is_read_into_values_that_carry_their_units():
    """A share is a Share, a duration a timedelta, a time zone a zone."""
    campaign = parsed()
    dev, prod = campaign.stages
    assert campaign.schedule is not None
    assert campaign.schedule.zone == ZoneInfo("Europe/Vienna")
    assert (dev.concurrency, prod.concurrency) == (Share(1.0), Share(0.10))
    assert (dev.soak, prod.soak) == (timedelta(minutes=30), timedelta(hours=1))
    assert prod.approval.timeout == timedelta(hours=24)
    assert dev.health.checks == tuple(HealthCheck)
    assert campaign.verify.config_rules == ("ec2-managedinstance-patch-compliance-status-check",)
    assert campaign.notifications[0].on == (Event.STAGE_HALTED,)


def test_cells_are_every_account_in_each_of_its_regions():
    """The scope is accounts x regions, in a stable order."""
    assert parsed().cells == (
        Cell(account="111111111111", region="eu-central-1"),
        Cell(account="111111111111", region="us-east-1"),
    )


def test_the_first_stage_needs_no_approval_and_later_ones_do():
    """The default depends on the place, and readers see it as an explicit value."""
    assert [stage.approval.required for stage in parsed().stages] == [False, True]


def test_roles_stand_for_their_people():
    """Airflow tells who has answered, not which role that is."""
    text = changed("      timeout: 24h\n", "      roles: [on-call, board]\n      quorum: 3\n      tolerance: 10%\n")
    campaign = parsed(text + "roles:\n  on-call: [uma, olga]\n  board: [eve]\n  others: [zoe]\n")
    prod = campaign.stage("prod")
    assert campaign.approvers(prod) == ("olga", "ana", "uma", "eve")
    assert (prod.approval.quorum, prod.approval.tolerance) == (3, Share(0.1))
    assert Campaign.from_json(campaign.to_json()) == campaign


def test_roles_alone_are_somebody():
    """A campaign of the on-call people needs no names."""
    campaign = parsed(changed("      approvers: [olga, ana]\n", "      roles: [on-call]\n") + "roles: {on-call: [uma]}\n")
    assert campaign.approvers(campaign.stage("prod")) == ("uma",)


def test_by_default_one_yes_is_enough_and_covers_the_hosts_that_appear():
    """As before there was a choice."""
    approval = parsed().stage("prod").approval
    assert (approval.quorum, approval.tolerance, approval.roles) == (1, None, ())


def test_an_explicit_approval_wins_over_the_place():
    """Both ways round: asked for in the first stage, waived in a later one."""
    text = changed("    soak: 30m\n", "    soak: 30m\n    approval: {required: true, approvers: [olga]}\n")
    text = text.replace("      approvers: [olga, ana]\n", "      required: false\n      approvers: [olga, ana]\n")
    assert [stage.approval.required for stage in parsed(text).stages] == [True, False]


def test_a_campaign_without_schedule_is_started_by_hand():
    """No schedule means none, not some default night."""
    assert parsed(changed('schedule:\n  cron: "0 22 * * 2"\n  timezone: Europe/Vienna\n', "")).schedule is None


def test_concurrency_may_be_a_number_of_hosts():
    """5 is five hosts, and never five percent."""
    assert parsed(changed("concurrency: 10%", "concurrency: 5")).stage("prod").concurrency == Count(5)


def test_a_stage_may_leave_its_concurrency_to_the_number_of_its_hosts():
    """Nobody knows it before the plan is made."""
    assert parsed(changed("    concurrency: 10%\n", "")).stage("prod").concurrency is None


def test_a_stage_may_have_a_window():
    """A cron in a time zone, and how long it stays open; none means at any time."""
    window = '    concurrency: 10%\n    window: {cron: "0 22 * * 2", duration: 4h, timezone: Europe/Vienna}'
    campaign = parsed(changed("    concurrency: 10%", window))
    found = campaign.stage("prod").window
    assert found is not None
    assert found.window == Window(cron="0 22 * * 2", duration=timedelta(hours=4), timezone="Europe/Vienna")
    assert campaign.stage("dev").window is None
    assert Campaign.from_json(campaign.to_json()) == campaign


NOVEMBER = datetime(2026, 11, 10, 22)  # noqa: DTZ001 (local by meaning)


def with_window(written: str) -> str:
    return changed("    concurrency: 10%", f"    concurrency: 10%\n    window: {written}")


def test_a_window_may_be_an_icalendar_rule():
    """A rule, its first opening as clocks show it, how long, and whose clocks."""
    written = "{rrule: FREQ=MONTHLY;BYDAY=2TU, starts: 2026-11-10T22:00, duration: 4h, timezone: Europe/Vienna}"
    found = parsed(with_window(written)).stage("prod").window
    assert found is not None
    assert found.window == Window(
        rrule="FREQ=MONTHLY;BYDAY=2TU", starts=NOVEMBER, duration=timedelta(hours=4), timezone="Europe/Vienna"
    )
    assert parsed(with_window(written.replace("22:00", "22:00:00"))).stage("prod").window == found  # YAML makes a moment of this


def test_a_window_may_be_a_maintenance_window_that_is_there_or_one_that_is_declared():
    """Its name alone means: as AWS has it; with its schedule it is created and kept so."""
    found = parsed(with_window("{maintenance_window: prod-nights}")).stage("prod").window
    assert found is not None
    assert found.window == Window(maintenance_window="prod-nights")
    assert found.maintenance_window is not None
    assert not found.maintenance_window.is_declared
    written = (
        "{maintenance_window: {name: prod-nights, schedule: 'cron(0 22 ? * TUE *)', timezone: Europe/Vienna, duration: 4h, "
        "cutoff: 1h}}"
    )
    declared = parsed(with_window(written)).stage("prod").window
    assert declared is not None
    assert declared.maintenance_window is not None
    assert declared.maintenance_window.is_declared
    assert declared.window == found.window


@pytest.mark.parametrize(
    ("written", "field", "says"),
    [
        ("{duration: 4h, timezone: Europe/Vienna}", "", "found none of cron, rrule, maintenance_window; allowed is exactly one"),
        ("{cron: 0 22 * * 2, rrule: FREQ=DAILY, duration: 4h, timezone: UTC}", "", "found cron and rrule"),
        ("{rrule: FREQ=DAILY, duration: 4h, timezone: UTC}", ".starts", "is missing; it must be given beside rrule"),
        ("{cron: 0 22 * * 2, starts: 2026-11-10T22:00, duration: 4h, timezone: UTC}", ".starts", "says nothing beside cron"),
        ("{rrule: FREQ=HOURLY, starts: 2026-11-10T22:00, duration: 4h, timezone: UTC}", ".rrule", "allowed is DAILY"),
        ("{rrule: FREQ=MONTHLY;BYDAY=2TU, starts: 2026-11-11T22:00, duration: 4h, timezone: UTC}", ".starts",
         "found '2026-11-11T22:00', which rrule does not name; allowed is its first opening, such as 2026-12-08T22:00"),
        ("{rrule: FREQ=DAILY;UNTIL=20200101, starts: 2026-11-11T22:00, duration: 4h, timezone: UTC}", ".rrule", "no moment"),
        ("{rrule: FREQ=DAILY, starts: 2026-11-10T22:00+01:00, duration: 4h, timezone: UTC}", ".starts", "without an offset"),
        ("{rrule: FREQ=DAILY, starts: 2026-13-10T22:00, duration: 4h, timezone: UTC}", ".starts", "there is no such moment"),
        ("{maintenance_window: prod-nights, duration: 4h}", ".duration", "says nothing beside maintenance_window"),
        ("{maintenance_window: no way}", ".maintenance_window.name", "3 to 128 letters"),
        ("{maintenance_window: 7}", ".maintenance_window", "found the number 7; allowed is a mapping of fields"),
        ("{maintenance_window: {name: nights, duration: 4h}}", ".maintenance_window.duration", "says nothing without schedule"),
        ("{maintenance_window: {name: nights, schedule: rate(1 day)}}", ".maintenance_window.timezone", "beside schedule"),
        ("{maintenance_window: {name: nights, schedule: daily}}", ".maintenance_window.schedule", "allowed is cron(...)"),
        ("{maintenance_window: {name: nights, schedule: rate(1 day), timezone: UTC, duration: 90m}}",
         ".maintenance_window.duration", "found '90m'; allowed are whole hours"),
        ("{maintenance_window: {name: nights, schedule: rate(1 day), timezone: UTC, duration: 2h, cutoff: 2h}}",
         ".maintenance_window.cutoff", "less than duration"),
        ("{maintenance_window: {name: mw-0123456789abcdef0, schedule: rate(1 day), timezone: UTC, duration: 2h}}",
         ".maintenance_window.name", "which is an id"),
    ],
)  # fmt: skip
def test_a_window_of_another_kind_that_nobody_can_keep_is_refused(written: str, field: str, says: str):
    """By line and field, with what is allowed."""
    line = with_window(written).splitlines().index(f"    window: {written}") + 1
    found = problems(with_window(written))
    assert any(f"weekly.yaml:{line}: stages[1].window{field}: " in problem and says in problem for problem in found), found


# --- freezes and calendars --------------------------------------------------------------------------------------------------
def with_closures(written: str) -> str:
    return changed("policy: standard\n", f"policy: standard\n{written}")


def test_a_freeze_of_days_is_from_the_first_minute_to_the_last_in_its_zone():
    """`to` as a day means the whole day, as people mean it."""
    campaign = parsed(with_closures(
        "freezes:\n  - {from: 2026-12-19, to: 2027-01-06, reason: year-end trading, timezone: Europe/Vienna}\n"
    ))  # fmt: skip
    (closure,) = campaign.closures("dev")
    assert closure.begins == datetime(2026, 12, 18, 23, tzinfo=UTC)
    assert closure.ends == datetime(2027, 1, 6, 23, tzinfo=UTC)
    assert closure.reason == "freeze 'year-end trading'"


def test_a_freeze_may_be_of_moments_and_of_some_stages():
    """An offset needs no zone; a local time is read in the zone; the other stages are not concerned."""
    campaign = parsed(with_closures(
        "freezes:\n"
        "  - {from: 2026-12-19T18:00+01:00, to: 2026-12-20T00:00:00Z, reason: move, stages: [prod]}\n"
        "  - {from: 2026-12-21T18:00, to: 2026-12-21 20:00:00, reason: audit, timezone: Europe/Vienna}\n"
    ))  # fmt: skip
    move, audit = campaign.closures("prod")
    assert (move.begins, move.ends) == (datetime(2026, 12, 19, 17, tzinfo=UTC), datetime(2026, 12, 20, tzinfo=UTC))
    assert (audit.begins, audit.ends) == (datetime(2026, 12, 21, 17, tzinfo=UTC), datetime(2026, 12, 21, 19, tzinfo=UTC))
    assert campaign.closures("dev") == (audit,)


def test_a_campaign_with_freezes_calendars_and_rules_survives_the_ledger():
    """A run is frozen: what is read back is what was written, under the same digest."""
    campaign = parsed(
        with_window("{rrule: FREQ=MONTHLY;BYDAY=2TU, starts: 2026-11-10T22:00, duration: 4h, timezone: Europe/Vienna}").replace(
            "policy: standard\n",
            "policy: standard\nfreezes: [{from: 2026-12-19, to: 2027-01-06T18:00+01:00, reason: x, timezone: UTC}]\n"
            "calendars: [change-freeze, 'arn:aws:ssm:us-east-1:222222222222:document/shared']\n",
        ).replace('  cron: "0 22 * * 2"\n  timezone: Europe/Vienna\n',
                  "  patch_tuesday: {plus_days: 3, at: '22:00', timezone: Europe/Berlin}\n")
    )  # fmt: skip
    again = Campaign.from_json(campaign.to_json())
    assert again == campaign
    assert again.digest == campaign.digest
    assert again.calendars == ("change-freeze", "arn:aws:ssm:us-east-1:222222222222:document/shared")


def test_a_campaign_that_was_stored_before_there_were_freezes_is_read():
    """A run that began under an earlier version goes on: what it does not say has its default."""
    stored = json.loads(parsed(with_window('{cron: "0 22 * * 2", duration: 4h, timezone: Europe/Vienna}')).to_json())
    del stored["freezes"], stored["calendars"]
    stored["schedule"] = {"cron": "0 22 * * 2", "timezone": "Europe/Vienna"}
    stored["stages"][1]["window"] = {"cron": "0 22 * * 2", "duration": "4h", "timezone": "Europe/Vienna"}
    campaign = Campaign.from_json(json.dumps(stored))
    window = campaign.stage("prod").window
    assert window is not None
    assert window.window == Window(cron="0 22 * * 2", duration=timedelta(hours=4), timezone="Europe/Vienna")
    assert campaign.closures("prod") == campaign.calendars == ()


@pytest.mark.parametrize(
    ("written", "field", "says"),
    [
        ("freezes: [{from: 2026-12-19, to: 2027-01-06, reason: x}]", "freezes[0].timezone", "given beside days"),
        ("freezes: [{from: 2026-12-19, to: 2026-12-18, reason: x, timezone: UTC}]", "freezes[0].to", "not after '2026-12-19'"),
        ("freezes: [{from: 2026-12-19, reason: x, timezone: UTC}]", "freezes[0].to", "is missing"),
        ("freezes: [{from: 19.12.2026, to: 2027-01-06, reason: x, timezone: UTC}]", "freezes[0].from", "a day such as 2026"),
        ("freezes: [{from: 2026-12-19, to: 2026-02-30, reason: x, timezone: UTC}]", "freezes[0].to", "cannot understand"),
        ("freezes: [{from: 2026-12-19, to: 2027-01-06, timezone: UTC}]", "freezes[0].reason", "is missing"),
        ("freezes: [{from: 2026-12-19, to: 2027-01-06, reason: x, timezone: Wien}]", "freezes[0].timezone", "no such time zone"),
        ("freezes: [{from: 2026-12-19, to: 2027-01-06, reason: x, timezone: UTC, stages: [prd]}]", "freezes[0].stages[0]",
         "found 'prd', which is no stage; allowed are dev, prod"),
        ("freezes: [{from: 2026-12-19, to: 2027-01-06, reason: x, timezone: UTC, until: 1}]", "freezes[0].until",
         "allowed here are from, reason, stages, timezone, to"),
        ("calendars: [no way]", "calendars[0]", "name of a change calendar"),
        ("calendars: [abc, abc]", "calendars", "named twice"),
        ("calendars: ['arn:aws:ssm:eu-west-3:222222222222:document/shared']", "calendars[0]", "in none of the scope's regions"),
    ],
)  # fmt: skip
def test_a_freeze_or_calendar_that_cannot_be_kept_is_refused(written: str, field: str, says: str):
    """By line and field, with what is allowed."""
    found = problems(with_closures(f"{written}\n"))
    assert any(f": {field}: " in problem and says in problem for problem in found), found
    assert all(problem.startswith("weekly.yaml:12:") for problem in found), found


# --- schedules --------------------------------------------------------------------------------------------------------------
def with_schedule(written: str) -> str:
    return changed('schedule:\n  cron: "0 22 * * 2"\n  timezone: Europe/Vienna\n', f"schedule: {written}\n")


@pytest.mark.parametrize(
    ("written", "told", "zone"),
    [
        ("{patch_tuesday: {plus_days: 3, at: '22:00', timezone: Europe/Berlin}}",
         "second Tuesday of the month plus 3 days at 22:00 (Europe/Berlin)", "Europe/Berlin"),
        ("{patch_tuesday: {plus_days: 0, at: '08:05', timezone: UTC}}", "second Tuesday of the month at 08:05 (UTC)", "UTC"),
        ("{weekly: {on: tuesday, at: '22:00', timezone: Asia/Tokyo}}", "every Tuesday at 22:00 (Asia/Tokyo)", "Asia/Tokyo"),
        ("{weekly: {on: [monday, friday], at: '22:00', timezone: UTC}}", "every Monday, Friday at 22:00 (UTC)", "UTC"),
        ("{cron: 0 22 * * 2, timezone: UTC}", "`0 22 * * 2` (UTC)", "UTC"),
    ],
)  # fmt: skip
def test_a_schedule_is_told_as_people_say_it(written: str, told: str, zone: str):
    """In the DAG's page, with its zone."""
    schedule = parsed(with_schedule(written)).schedule
    assert str(schedule) == told
    assert schedule is not None
    assert schedule.zone == ZoneInfo(zone)


@pytest.mark.parametrize(
    ("written", "field", "says"),
    [
        ("{}", "", "found none of cron, patch_tuesday, weekly"),
        ("{cron: 0 22 * * 2, timezone: UTC, weekly: {on: monday, at: '22:00', timezone: UTC}}", "", "found cron and weekly"),
        ("{cron: 0 22 * * 2}", ".timezone", "is missing"),
        ("{timezone: UTC, weekly: {on: monday, at: '22:00', timezone: UTC}}", ".timezone", "says nothing beside weekly"),
        ("{patch_tuesday: {plus_days: 28, at: '22:00', timezone: UTC}}", ".patch_tuesday.plus_days", "found the number 28"),
        ("{patch_tuesday: {at: '22:00', timezone: UTC}}", ".patch_tuesday.plus_days", "is missing"),
        ("{patch_tuesday: {plus_days: 3, at: 22:00, timezone: UTC}}", ".patch_tuesday.at", "YAML reads 22:00 without them"),
        ("{weekly: {on: monday, at: '24:00', timezone: UTC}}", ".weekly.at", "from '00:00' to '23:59'"),
        ("{weekly: {on: [], at: '22:00', timezone: UTC}}", ".weekly.on", "at least one"),
        ("{weekly: {on: Tue, at: '22:00', timezone: UTC}}", ".weekly.on[0]", "allowed is 'monday', 'tuesday'"),
        ("{weekly: {on: monday, at: '22:00', timezone: Wien}}", ".weekly.timezone", "no such time zone"),
    ],
)  # fmt: skip
def test_a_schedule_that_nobody_can_keep_is_refused(written: str, field: str, says: str):
    """By line and field, with what is allowed."""
    found = problems(with_schedule(written))
    assert any(f"weekly.yaml:4: schedule{field}: " in problem and says in problem for problem in found), found


@pytest.mark.parametrize(
    ("written", "field", "says"),
    [
        ('{cron: "0 22 * * 2", duration: 4h}', "timezone", "is missing"),
        ('{cron: "0 22 * * 2", timezone: Europe/Vienna}', "duration", "is missing"),
        ('{cron: "22 Uhr", duration: 4h, timezone: Europe/Vienna}', "cron", "five"),
        ('{cron: "0 22 * * 2", duration: 0h, timezone: Europe/Vienna}', "duration", "more than zero"),
        ('{cron: "0 22 * * 2", duration: 4h, timezone: Wien}', "timezone", "no such time zone"),
    ],
)
def test_a_window_that_nobody_can_keep_is_refused(written: str, field: str, says: str):
    """As a schedule is, with file, line and field."""
    (problem,) = problems(changed("    concurrency: 10%", f"    concurrency: 10%\n    window: {written}"))
    assert f"stages[1].window.{field}" in problem
    assert says in problem


@pytest.mark.parametrize(
    ("written", "size", "allowed"), [("2", 50, 2), ("0", 50, 0), ("5%", 50, 2), ("5%", 19, 0), ("100%", 3, 3)]
)
def test_an_error_budget_rounds_down(written: str, size: int, allowed: int):
    """Nobody gets more failures than the file says: five percent of 19 hosts is none."""
    stage = parsed(changed("error_budget: 2", f"error_budget: {written}")).stage("dev")
    assert stage.errors_allowed(size) == allowed


@pytest.mark.parametrize("key", ["PatchGroup", "Patch Group"])
def test_both_spellings_of_the_patch_group_select_a_host(key: str):
    """AWS knows two names of the tag, and a fleet has hosts of both."""
    stage = parsed().stage_of({key: "linux-prod"})
    assert stage is not None
    assert stage.name == "prod"


def test_every_tag_and_one_of_its_values_must_match():
    """Keys are joined by 'and', the values of a key by 'or', and letters count as AWS's do."""
    campaign = parsed(two_stages("{tags: {Env: [dev, test], Team: blue}}", "{patch_groups: [x]}"))
    stage = campaign.stage("first")
    assert stage.matches({"Env": "test", "Team": "blue", "Other": "1"})
    assert not stage.matches({"Env": "test"})
    assert not stage.matches({"Env": "prod", "Team": "blue"})
    assert not stage.matches({"env": "test", "Team": "blue"})


def test_a_host_that_no_stage_selects_has_no_stage():
    """None, so that the plan can say that it was left out."""
    assert parsed().stage_of({"PatchGroup": "windows"}) is None


def test_a_host_without_the_scopes_tags_has_no_stage():
    """The scope is a fence: a stage's selector cannot reach beyond it."""
    campaign = parsed(two_stages("{patch_groups: [a]}", "{patch_groups: [b]}", scope_tags="{Exposure: internet}"))
    assert campaign.stage_of({"PatchGroup": "a"}) is None
    assert campaign.stage_of({"PatchGroup": "a", "Exposure": "internet"}) is not None


def test_a_host_that_two_stages_select_is_an_error_that_names_it():
    """Selectors may meet on a live host only; nothing guesses which stage was meant."""
    campaign = parsed(two_stages("{tags: {Env: dev}}", "{tags: {Team: blue}}"))
    with pytest.raises(definition.AmbiguousStage, match=r"i-0123.*first and second") as caught:
        campaign.stage_of({"Env": "dev", "Team": "blue"}, host=HostId("i-0123"))
    assert caught.value.stages == ("first", "second")
    assert isinstance(caught.value, Permanent)


# --- A run is frozen --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CAMPAIGNS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_stored_campaign_is_read_back_as_it_was(path: Path):
    """from_json(to_json(c)) == c, with the same digest: a run works from the copy."""
    campaign = definition.read(path, policies=POLICIES)
    again = Campaign.from_json(campaign.to_json())
    assert again == campaign
    assert again.digest == campaign.digest


percentages = st.decimals(min_value="0.0001", max_value=100, places=4).map(lambda value: f"{value}%")
durations = st.builds(lambda number, unit: f"{number}{unit}", st.integers(0, 366), st.sampled_from("smhd"))


@given(
    concurrency=st.one_of(percentages, st.integers(1, 10_000)),
    budget=st.one_of(percentages, st.integers(0, 10_000)),
    soak=durations,
)
def test_any_share_count_and_duration_survives_being_stored(concurrency: str | int, budget: str | int, soak: str):
    """No value changes between the file, the ledger and the task that reads it a week later."""
    text = changed("concurrency: 10%\n    error_budget: 2\n    soak: 1h",
                   f"concurrency: {concurrency}\n    error_budget: {budget}\n    soak: {soak}")  # fmt: skip
    campaign = parsed(text)
    assert Campaign.from_json(campaign.to_json()) == campaign


@given(seconds=st.integers(0, int(definition.LONGEST.total_seconds())))
def test_a_duration_is_written_as_it_is_read(seconds: int):
    """duration(written_duration(d)) == d for whole seconds."""
    value = timedelta(seconds=seconds)
    assert definition.duration(definition.written_duration(value)) == value


def test_comments_spaces_and_written_out_defaults_do_not_change_the_digest():
    """A newer version is one that means something else."""
    text = "# a comment\n" + changed("error_budget: 2", "error_budget:    2").replace(
        "policy: standard\n", "\npolicy: 'standard'\n"
    )
    assert parsed(text + "verify:\n  timeout: 6h\n").digest == parsed().digest


@pytest.mark.parametrize(("old", "new"), [("10%", "11%"), ("soak: 1h", "soak: 2h"), ("olga", "otto"), ("us-east-1", "us-east-2")])
def test_every_change_of_meaning_changes_the_digest(old: str, new: str):
    """What an approver agreed to is named by the digest."""
    assert parsed(changed(old, new)).digest != parsed().digest


def test_a_campaign_cannot_be_changed():
    """A value is passed around without anybody having to copy it."""
    with pytest.raises(ValueError, match="frozen"):
        parsed().name = "other"  # type: ignore[misc]


# --- How a file is refused --------------------------------------------------------------------------------------------------

REFUSED = [
    # what is changed, line, field, what the message must say
    pytest.param(
        "owner: ops", "ownr: ops", 3, "ownr", r"no known field \(did you mean 'owner'\?\); allowed here are", id="unknown field"
    ),
    pytest.param(
        "    error_budget: 2\n", "    budget: 2\n", 17, "stages[0].budget", "no known field.*error_budget", id="unknown, deep"
    ),
    pytest.param(
        "    soak: 30m", "    soak: 30", 18, "stages[0].soak", "found the number 30; a duration needs a unit.*'30m'", id="no unit"
    ),
    pytest.param("    soak: 30m", "    soak: 30min", 18, "stages[0].soak", "found '30min'; allowed is.*'30m'", id="wrong unit"),
    pytest.param("    soak: 30m", "    soak: PT30M", 18, "stages[0].soak", "found 'PT30M'; allowed", id="ISO duration"),
    pytest.param("    soak: 30m", "    soak: 1:30", 18, "stages[0].soak", "needs a unit", id="clock time"),
    pytest.param("    soak: 30m", "    soak: 367d", 18, "stages[0].soak", "at most 366d", id="endless soak"),
    pytest.param("timeout: 24h", "timeout: 0h", 27, "stages[1].approval.timeout", "more than zero", id="no time to answer"),
    pytest.param(
        "concurrency: 10%",
        "concurrency: 0.1",
        22,
        "stages[1].concurrency",
        "the number 0.1; allowed is a percentage",
        id="bare 0.1",
    ),
    pytest.param("concurrency: 10%", "concurrency: 110%", 22, "stages[1].concurrency", "at most 100%", id="over 100 %"),
    pytest.param("concurrency: 10%", "concurrency: 0%", 22, "stages[1].concurrency", "above 0%", id="share of nothing"),
    pytest.param("concurrency: 10%", "concurrency: 0", 22, "stages[1].concurrency", "at least 1", id="count of nothing"),
    pytest.param(
        "concurrency: 10%", "concurrency: true", 22, "stages[1].concurrency", "found true; allowed", id="concurrency yes"
    ),
    pytest.param("error_budget: 2", "error_budget: -1", 17, "stages[0].error_budget", "0 or more", id="negative budget"),
    pytest.param("error_budget: 2", "error_budget: 101%", 17, "stages[0].error_budget", "at most 100%", id="budget over 100 %"),
    pytest.param(
        "      patch_groups: [linux-dev]",
        "      tags: {}",
        14,
        "stages[0].select",
        "selects no tag.*patch_groups and tags",
        id="no tag",
    ),
    pytest.param(
        "      patch_groups: [linux-dev]", "      patch_groups: []", 14, "stages[0].select", "selects no tag", id="no patch group"
    ),
    pytest.param(
        "patch_groups: [linux-dev]",
        "tags: {PatchGroup: a}",
        15,
        "stages[0].select.tags.PatchGroup",
        "allowed is patch_groups",
        id="PatchGroup as tag",
    ),
    pytest.param(
        "patch_groups: [linux-dev]", "tags: {Env: yes}", 15, "stages[0].select.tags.Env", "found true", id="tag value yes"
    ),
    pytest.param("[linux-prod]", "[linux-dev]", 20, "stages[1].select", "selects hosts of stage 'dev' too", id="same hosts"),
    pytest.param("name: prod", "name: dev", 19, "stages[1].name", "the name of stages\\[0\\]", id="same stage name"),
    pytest.param("Europe/Vienna", "Europe/Wien", 6, "schedule.timezone", "no such time zone.*'Europe/Vienna'", id="unknown zone"),
    pytest.param("Europe/Vienna", "../../etc/passwd", 6, "schedule.timezone", "no such time zone", id="zone as path"),
    pytest.param("0 22 * * 2", "0 22 * *", 5, "schedule.cron", "it has 4 fields; allowed are five", id="four fields"),
    pytest.param("0 22 * * 2", "0 0 22 * * 2", 5, "schedule.cron", "it has 6 fields", id="six fields"),
    pytest.param("0 22 * * 2", "0 25 * * 2", 5, "schedule.cron", "names no moment", id="hour 25"),
    pytest.param("0 22 * * 2", "0 0 31 2 *", 5, "schedule.cron", "names no moment", id="31 February"),
    pytest.param("0 22 * * 2", "H 22 * * 2", 5, "schedule.cron", "allowed are numbers", id="random minute"),
    pytest.param("0 22 * * 2", "@weekly", 5, "schedule.cron", "it has 1 fields", id="alias"),
    pytest.param("0 22 * * 2", "0 22 8-14 * 2", 5, "schedule.cron", "'either', not as 'both'.*2#2", id="both day fields"),
    pytest.param("policy: standard", "policy: lax", 11, "policy", "no policy; allowed are standard, strict", id="unknown policy"),
    pytest.param(
        "  stages: [dev]", "  stages: [qa]", 29, "remediate.stages[0]", "no stage; allowed are dev, prod", id="unknown stage"
    ),
    pytest.param(
        "  stages: [dev]",
        "  stages: [dev, prod]",
        29,
        "remediate.stages[1]",
        "called or tagged prod.*allow_prod: true",
        id="prod",
    ),
    pytest.param(
        'account: "111111111111"',
        "account: 111111111111",
        9,
        "scope.cells[0].account",
        "allowed is text; put it in quotes",
        id="account as number",
    ),
    pytest.param('account: "111111111111"', 'account: "1111"', 9, "scope.cells[0].account", "twelve digits", id="short account"),
    pytest.param("us-east-1]", "useast]", 10, "scope.cells[0].regions[1]", "a region such as", id="no region"),
    pytest.param("us-east-1]", "eu-central-1]", 10, "scope.cells[0].regions[1]", "twice", id="cell twice"),
    pytest.param("name: weekly-linux", "name: Weekly Linux", 1, "name", "lower-case letters, digits and dashes", id="no slug"),
    pytest.param("name: weekly-linux", "name: 2026-01-01", 1, "name", "put it in quotes", id="name is a date"),
    pytest.param("name: weekly-linux\n", "", 1, "name", "is missing; it must be given", id="no name"),
    pytest.param(
        "      approvers: [olga, ana]\n",
        "",
        25,
        "stages[1].approval",
        "nobody may give it; allowed is approvers",
        id="no approvers",
    ),
    pytest.param("[olga, ana]", "[olga, olga]", 26, "stages[1].approval.approvers", "named twice", id="approver twice"),
    pytest.param(
        "timeout: 24h", "quorum: 0", 27, "stages[1].approval.quorum", "greater than or equal to 1", id="quorum of nobody"
    ),
    pytest.param("timeout: 24h", "quorum: two", 27, "stages[1].approval.quorum", "a whole number", id="quorum in words"),
    pytest.param(
        "timeout: 24h",
        "quorum: 3",
        27,
        "stages[1].approval.quorum",
        r"found 3, and 2 may answer \(olga, ana\); allowed is at most 2",
        id="quorum out of reach",
    ),
    pytest.param("timeout: 24h", "tolerance: -1", 27, "stages[1].approval.tolerance", "0 or more", id="tolerance below zero"),
    pytest.param(
        "timeout: 24h", "tolerance: 0.1", 27, "stages[1].approval.tolerance", "such as '5%'", id="tolerance as a fraction"
    ),
    pytest.param(
        "timeout: 24h",
        "roles: [on-call]",
        27,
        "stages[1].approval.roles[0]",
        "found 'on-call', which is no role of this file; allowed are none",
        id="no roles",
    ),
    pytest.param(
        "      timeout: 24h\n",
        "      roles: [oncall]\nroles: {on-call: [uma]}\n",
        27,
        "stages[1].approval.roles[0]",
        "found 'oncall', which is no role of this file; allowed are on-call",
        id="another role",
    ),
    pytest.param(
        "policy: standard\n",
        "policy: standard\nroles: {on-call: []}\n",
        12,
        "roles.on-call",
        "at least one entry",
        id="empty role",
    ),
    pytest.param(
        "[olga, ana]", "olga", 26, "stages[1].approval.approvers", "found 'olga'; allowed is a list", id="approvers no list"
    ),
    pytest.param(
        "    log: warning", "    log: loud", 32, "notifications[0].log", "'info', 'warning' or 'error'", id="unknown level"
    ),
    pytest.param("    log: warning\n", "", 31, "notifications[0]", "exactly one of email and log", id="no way to tell"),
    pytest.param("[stage_halted]", "[all]", 31, "notifications[0].on[0]", "'stage_halted'", id="unknown event"),
    pytest.param(
        "    concurrency: 100%",
        "    concurrency: 100%\n    concurrency: 1",
        17,
        "stages[0].concurrency",
        "given twice, first on line 16",
        id="key twice",
    ),
    pytest.param("owner: ops", "owner: !!python/object/apply:os.getcwd []", 3, "owner", "YAML tag", id="code"),
]


@pytest.mark.parametrize(("old", "new", "line", "field", "message"), REFUSED)
def test_a_mistake_is_refused_with_file_line_field_and_what_is_allowed(old: str, new: str, line: int, field: str, message: str):
    """One sentence, from which a person can mend the file without reading the code."""
    found = problems(changed(old, new))
    one = [problem for problem in found if problem.startswith(f"weekly.yaml:{line}: {field}: ")]
    assert one, found
    assert re.search(message, one[0])


def test_all_mistakes_of_a_file_are_reported_at_once_in_their_order():
    """Nobody wants to start the mending six times."""
    text = changed("owner: ops", "ownr: ops")
    text = text.replace("standard", "lax").replace("30m", "30").replace("10%", "110%")
    assert [problem.split(": ")[1] for problem in problems(text)] == [
        "owner",
        "ownr",
        "policy",
        "stages[0].soak",
        "stages[1].concurrency",
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "is empty"),
        ("# only a comment\n", 1, "is empty"),
        ("- a\n- b\n", 1, "found a list; allowed is a mapping"),
        ("name: [a\nowner: b\n", 2, "no valid YAML"),
        ("name: a\n---\nname: b\n", 2, "another document"),
        ("name: \x00\n", 1, "no valid YAML"),
        ("name: &a [*a]\n", 1, "contains itself"),
        ("? [a]\n: b\n", 1, "allowed is text"),
        ("[" * 20_000, 1, "no valid YAML"),
        ("name: a\n\tb: c\n", 2, "no valid YAML"),
    ],
    ids=[
        "empty",
        "comment",
        "list",
        "open bracket",
        "two documents",
        "null byte",
        "endless alias",
        "key is a list",
        "deep",
        "tab",
    ],
)
def test_what_is_no_mapping_of_fields_is_refused_with_its_line(text: str, line: int, message: str):
    """A file that is not even YAML gets a sentence too, never a traceback."""
    (problem,) = problems(text)
    assert message in problem
    assert problem.startswith("weekly.yaml:")
    if len(text) < 1000:
        assert problem.startswith(f"weekly.yaml:{line}: ")


def test_aliases_that_multiply_are_refused():
    """Ten lines must not become a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    found = problems("\n".join(lines))
    assert any(f"more than {document.MOST_NODES} values" in problem for problem in found)


@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused_and_never_breaks(text: str):
    """InvalidFile is the only way to fail."""
    with pytest.raises(InvalidFile):
        parsed(text)


@given(data=st.data())
def test_any_value_in_any_place_is_accepted_or_refused_in_words(data: st.DataObject):
    """Nonsense in any field gives a sentence with file, line and field, never a traceback."""
    lines = GOOD.splitlines()
    number = data.draw(st.sampled_from([index for index, line in enumerate(lines) if ": " in line]))
    nonsense = data.draw(
        st.sampled_from(["null", "true", "-1", "1.5", ".nan", "[]", "{}", "[[1]]", "{a: 1}", "''", "2026-01-01", "'x y'"])
    )
    lines[number] = f"{lines[number].split(': ')[0]}: {nonsense}"
    found: tuple[str, ...] = ()
    try:
        campaign = parsed("\n".join(lines))
    except InvalidFile as error:
        found = error.problems
    else:
        assert Campaign.from_json(campaign.to_json()) == campaign
    assert all(re.match(r"weekly\.yaml:\d+: [a-z]", problem) for problem in found)


# --- Stages that meet -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{patch_groups: [a, b]}", "{patch_groups: [b, c]}"),
        ("{tags: {Env: dev}}", "{tags: {Env: [dev, test]}}"),
        ("{patch_groups: [a]}", "{patch_groups: [a], tags: {Env: dev}}"),
        ("{tags: {Env: dev, Team: blue}}", "{tags: {Env: dev}}"),
    ],
    ids=["a common group", "a common value", "one implies the other", "the other way round"],
)
def test_stages_that_certainly_select_the_same_host_are_refused(first: str, second: str):
    """A host that would be patched twice, under two sets of rules, is a mistake of the file."""
    assert any("selects hosts of stage 'first' too" in problem for problem in problems(two_stages(first, second)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{patch_groups: [a]}", "{patch_groups: [b]}"),
        ("{patch_groups: [a], tags: {Env: dev}}", "{patch_groups: [a], tags: {Env: prod}}"),
        ("{tags: {Env: dev}}", "{tags: {Team: blue}}"),
        ("{tags: {Env: dev}}", "{tags: {env: dev}}"),
    ],
    ids=["other groups", "same group, other value", "other keys", "other letters"],
)
def test_stages_that_need_not_meet_are_accepted(first: str, second: str):
    """What only live tags can tell is told when they are seen."""
    assert len(parsed(two_stages(first, second)).stages) == 2


names, values = st.sampled_from(["Env", "Team"]), st.sampled_from(["a", "b", "c"])
selectors = st.builds(
    lambda groups, tags: definition.Select(
        patch_groups=tuple(sorted(groups)), tags={k: tuple(sorted(v)) for k, v in tags.items()}
    ),
    st.sets(values, min_size=1, max_size=2),
    st.dictionaries(names, st.sets(values, min_size=1, max_size=2)),
)


@given(first=selectors, second=selectors)
def test_stages_that_certainly_meet_do_meet_on_some_host(first: definition.Select, second: definition.Select):
    """A refusal is never wrong: there is a host that both select. And it does not depend on the order."""
    assert first.certainly_meets(second) == second.certainly_meets(first)
    if first.certainly_meets(second):
        hosts = [
            {key: value for key, value in {"PatchGroup": group, "Env": env, "Team": team}.items() if value}
            for group in "abc" for env in ["", *"abc"] for team in ["", *"abc"]
        ]  # fmt: skip
        assert any(first.matches(tags) and second.matches(tags) for tags in hosts)


# --- Production ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["prod", "prod-eu", "eu_production", "linux-prod", "prd2"])
def test_a_stage_called_or_tagged_prod_is_production(word: str):
    """By its name, its patch groups or a value of its tags."""
    named = definition.Stage.model_validate(
        {"name": word.replace("2", ""), "select": {"tags": {"A": "b"}}, "approval": {"required": False}}
    )
    grouped = definition.Stage.model_validate({"name": "x", "select": {"patch_groups": [word]}, "approval": {"required": False}})
    tagged = definition.Stage.model_validate({"name": "x", "select": {"tags": {"Env": word}}, "approval": {"required": False}})
    assert named.is_production
    assert grouped.is_production
    assert tagged.is_production


@pytest.mark.parametrize("word", ["non-prod", "pre_prod", "product-search", "reproduction", "dev"])
def test_a_word_that_only_sounds_like_prod_is_not(word: str):
    """Words are compared, not letters; and non-prod says what it is not."""
    stage = definition.Stage.model_validate({"name": "x", "select": {"patch_groups": [word]}, "approval": {"required": False}})
    assert not stage.is_production


def test_stages_that_get_the_lockfile_may_be_remediated():
    """By the lockfile, too: the operator's tests have that."""
    promoted = parsed(changed("  stages: [dev]", "  stages: [dev, prod]\n  allow_prod: true") + "promotion: {by: lockfile}\n")
    assert (promoted.promotion.by, promoted.remediate.stages) == ("lockfile", ("dev", "prod"))


def test_production_is_remediated_if_the_file_says_so():
    """allow_prod is a decision that stands in the file."""
    assert parsed(changed("  stages: [dev]", "  stages: [prod]\n  allow_prod: true")).remediate.stages == ("prod",)


# --- Folders ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    campaigns, policies = tmp_path / "campaigns", tmp_path / "policies"
    campaigns.mkdir()
    policies.mkdir()
    (policies / "standard.yaml").write_text((POLICIES / "standard.yaml").read_text())
    (campaigns / "weekly-linux.yaml").write_text(GOOD)
    return campaigns


def test_a_broken_file_never_takes_the_others_away(folder: Path):
    """Good campaigns are there, and each broken file is named with its problems."""
    (folder / "a-broken.yaml").write_text("name: [")
    (folder / "b-latin.yaml").write_bytes(b"name: x\nowner: Z\xfcrich\n")
    (folder / "c-folder.yaml").mkdir()
    (folder / "notes.txt").write_text("no campaign")
    campaigns, broken = definition.read_all(folder)
    assert [campaign.name for campaign in campaigns] == ["weekly-linux"]
    assert [one.file.name for one in broken] == ["a-broken.yaml", "b-latin.yaml", "c-folder.yaml"]
    assert all(problem.startswith(str(one.file)) for one in broken for problem in one.problems)
    assert ":2: " in broken[1].problems[0]


def test_a_copy_does_not_take_the_original_away(folder: Path):
    """Two DAGs cannot have one id: the file that is called like the campaign keeps it."""
    (folder / "a-copy.yaml").write_text(GOOD)
    campaigns, broken = definition.read_all(folder)
    assert [campaign.name for campaign in campaigns] == ["weekly-linux"]
    assert [one.file.name for one in broken] == ["a-copy.yaml"]
    assert "weekly-linux.yaml has too" in broken[0].problems[0]


def test_a_missing_file_is_an_error_of_ours(folder: Path):
    """Whoever reads catches one kind of error."""
    with pytest.raises(InvalidFile, match="cannot be read"):
        definition.read(folder / "gone.yaml", policies=folder.parent / "policies")


def test_a_folder_that_is_missing_is_not_a_folder_without_campaigns(folder: Path):
    """A typing error in a path must not look like an empty list of DAGs."""
    with pytest.raises(InvalidFile, match="is no folder"):
        definition.read_all(folder / "gone")


def test_a_policy_that_has_no_file_is_refused(folder: Path):
    """The names are those of the files in the policies' folder."""
    (folder / "weekly-linux.yaml").write_text(changed("policy: standard", "policy: strict"))
    with pytest.raises(
        InvalidFile, match=r"weekly-linux\.yaml:11: policy: found 'strict', which is no policy; allowed are standard"
    ):
        definition.read(folder / "weekly-linux.yaml", policies=folder.parent / "policies")


# --- What is shipped --------------------------------------------------------------------------------------------------------


def test_every_shipped_campaign_is_good():
    """A fresh clone has no import error."""
    campaigns, broken = definition.read_all(CAMPAIGNS)
    assert broken == ()
    assert "weekly-linux" in [campaign.name for campaign in campaigns]


def test_the_weekly_campaign_is_the_one_of_the_demo():
    """Its stages are dev, staging and prod; dev needs nobody; prod goes by tenths and is never remediated."""
    weekly = definition.read(CAMPAIGNS / "weekly-linux.yaml", policies=POLICIES)
    assert [stage.name for stage in weekly.stages] == ["dev", "staging", "prod"]
    assert [stage.approval.required for stage in weekly.stages] == [False, True, True]
    assert weekly.stage("prod").concurrency.of(50) == 5
    assert weekly.stage("prod").approval.approvers == ("olga", "ana")
    assert weekly.remediate.stages == ("dev", "staging")


def test_the_schema_for_editors_is_that_of_the_model():
    """Made, not written: on a difference store `definition.schema_text()` as docs/campaign.schema.json."""
    assert (ROOT / "docs" / "campaign.schema.json").read_text() == definition.schema_text()


@pytest.mark.parametrize("path", sorted(CAMPAIGNS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_campaign_tells_editors_its_schema(path: Path):
    """The first line leads to a file that exists."""
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "docs" / "campaign.schema.json"


def test_every_field_has_a_description():
    """The schema is the manual that an editor shows."""
    schema = json.loads(definition.schema_text())
    lacking = [
        f"{name}.{field}"
        for name, part in {"Campaign": schema, **schema["$defs"]}.items()
        for field, about in part.get("properties", {}).items()
        if not about.get("description")
    ]
    assert lacking == []
