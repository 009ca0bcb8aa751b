"""Malformed campaign files with windows, freezes and schedules, from the schema: always file, line, field and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from patchwave.campaign import definition, document
from patchwave.campaign.errors import InvalidFile
from tests.domain.test_bad_policies import assert_told, quick, refusal, spoiled
from tests.domain.test_definition import GOOD

CAMPAIGNS = Path(__file__).parents[2] / "include" / "campaigns"
SCHEMA = Draft202012Validator(json.loads(definition.schema_text()))

WINDOWS: tuple[dict[str, Any], ...] = (
    {"cron": "0 22 * * 2", "duration": "4h", "timezone": "Europe/Vienna"},
    {"rrule": "FREQ=MONTHLY;BYDAY=2TU", "starts": "2026-11-10T22:00", "duration": "4h", "timezone": "Europe/Vienna"},
    {"maintenance_window": "prod-nights"},
    {"maintenance_window": {
        "name": "prod-nights", "schedule": "cron(0 22 ? * TUE *)", "timezone": "Europe/Vienna", "duration": "4h", "cutoff": "1h",
    }},
)  # fmt: skip
SCHEDULES: tuple[dict[str, Any], ...] = (
    {"cron": "0 20 * * 2", "timezone": "Europe/Vienna"},
    {"weekly": {"on": ["tuesday", "friday"], "at": "22:00", "timezone": "Europe/Vienna"}},
    {"patch_tuesday": {"plus_days": 3, "at": "22:00", "timezone": "Europe/Vienna"}},
)
CLOSED: dict[str, Any] = {
    "freezes": [{"from": "2026-12-19", "to": "2027-01-06", "reason": "holidays", "timezone": "UTC", "stages": ["prod"]}],
    "calendars": ["no-change"],
}


def read_yaml(text: str) -> Any:
    """By YAML's newer rules, as campaign files are read: `on` is a word."""
    return document.load(text, file="good.yaml").data


def a_campaign(window: dict[str, Any], schedule: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {**read_yaml(GOOD), **CLOSED, "schedule": schedule}
    made["stages"][1]["window"] = window
    return made


GOODS = [
    *(a_campaign(window, SCHEDULES[0]) for window in WINDOWS),
    *(a_campaign(WINDOWS[0], schedule) for schedule in SCHEDULES),
    *(read_yaml(path.read_text(encoding="utf-8")) for path in sorted(CAMPAIGNS.glob("*.yaml"))),
]


def read(text: str) -> definition.Campaign:
    return definition.parse(text, file="mine.yaml", policies={"standard", "strict", "bod-26-04"})


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """A campaign with one thing wrong, or perhaps wrong; every second time inside its windows, freezes or schedule."""
    good = draw(st.sampled_from(GOODS))
    if draw(st.booleans()):
        return spoiled(draw, good)
    made = dict(good)
    part = draw(st.sampled_from([name for name in ("schedule", "freezes", "calendars") if name in good] or ["stages"]))
    return {**made, **spoiled(draw, {part: good[part]})}


@st.composite
def with_another_window(draw: st.DrawFn) -> Any:
    """A campaign whose window has one thing wrong, or perhaps wrong."""
    made = a_campaign({}, SCHEDULES[0])
    made["stages"][1] |= spoiled(draw, {"window": draw(st.sampled_from(WINDOWS))})
    return made


def written(made: Any) -> str:
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


def test_what_is_spoiled_is_good_before():
    """Else the refusals below would be for another reason."""
    for good in GOODS:
        assert SCHEMA.is_valid(good), list(SCHEMA.iter_errors(good))
        assert read(written(good)).name


@settings(quick, max_examples=80)
@given(made=changed())
def test_what_the_schema_of_campaigns_refuses_is_refused_with_line_field_and_what_is_allowed(made: Any):
    """80 files that an editor would underline: never a campaign, never a traceback."""
    assume(not SCHEMA.is_valid(made))
    assert refusal(lambda: read(written(made)), written(made), "mine.yaml")


@settings(quick, max_examples=60)
@given(made=with_another_window())
def test_what_the_schema_of_windows_refuses_is_refused_with_line_field_and_what_is_allowed(made: Any):
    """60 files: a window that is not understood is no window, and one that is no window would be open at any time."""
    assume(not SCHEMA.is_valid(made))
    assert refusal(lambda: read(written(made)), written(made), "mine.yaml")


@settings(quick, max_examples=60)
@given(made=st.one_of(changed(), with_another_window()))
def test_a_campaign_with_one_thing_changed_is_read_or_refused_with_a_sentence(made: Any):
    """What is wrong may be beyond a schema, such as a window that never opens; nothing in between is allowed."""
    text = written(made)
    try:
        campaign = read(text)
    except InvalidFile as refused:
        assert_told(refused, text, "mine.yaml")
    else:
        assert definition.Campaign.from_json(campaign.to_json()) == campaign
