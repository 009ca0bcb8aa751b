"""When each stage will begin and end, what it waits for, and who will not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.campaign.forecast import StageForecast, forecast, sentences
from patchwave.campaign.plan import Plan
from patchwave.campaign.rollout import StepKind
from patchwave.campaign.waves import Wave
from patchwave.campaign.windows import Closure, Listing, Span, Window
from tests.domain.builders import NOW, a_host, a_plan, host_id

LINUX, WINDOWS_SERVER = "Amazon Linux 2023", "Microsoft Windows Server 2022"
STEPS = {StepKind.SCAN: 2, StepKind.INSTALL: 10, StepKind.REBOOT: 5, StepKind.VERIFY: 3}
"""Minutes: twenty from the first Scan to the last."""
EXPECTED = {platform: {step: timedelta(minutes=count) for step, count in STEPS.items()} for platform in (LINUX, WINDOWS_SERVER)}
SCAN, PATCH = timedelta(minutes=2), timedelta(minutes=18)
TONIGHT = Window(cron="0 23 * * *", duration=timedelta(hours=1), timezone="UTC")


def stages(*sizes: tuple[int, int], expected: Mapping[str, Mapping[StepKind, timedelta]] = EXPECTED, **facts: Any) -> Plan:
    """A plan whose stages have so many hosts in waves of so many; `facts` are of each stage."""
    base = a_plan([a_host(number) for number in range(1, 40)])
    template = base.stage("prod")
    number, made = 0, []
    for index, (size, wide) in enumerate(sizes):
        hosts = tuple(replace(template.hosts[0], id=host_id(number + one), name=f"h{number + one}") for one in range(1, size + 1))
        number += size
        cuts = [hosts[start : start + wide] for start in range(0, size, wide)]
        its_waves = tuple(Wave(number=count, hosts=tuple(host.id for host in cut)) for count, cut in enumerate(cuts, 1))
        values = {"hosts": hosts, "waves": its_waves, "soak": timedelta(hours=1), "window": None, "approval_required": False}
        made.append(replace(template, name=f"stage{index + 1}", **{**values, **facts}))
    return replace(base, stages=tuple(made), expected=expected)


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


def test_a_stage_without_a_window_takes_one_scan_and_its_waves() -> None:
    """Five hosts two at a time: 2 minutes of Scan, three times 18; then it soaks, and the next one's turn comes."""
    first, second = forecast(stages((5, 2), (1, 1)), now=NOW)
    assert (first.starts, first.ends, first.soaked) == (NOW, minutes(56), minutes(116))
    assert (second.turn, second.starts) == (minutes(116), minutes(116))
    assert first.span is None
    assert first.because == first.misfits == ()


def test_a_stage_waits_for_its_window_and_says_for_which_one() -> None:
    """Its turn comes at 22:00; the window opens at 23:00."""
    (one,) = forecast(stages((2, 1), window=TONIGHT, approval_required=True), now=NOW)
    assert (one.starts, one.ends) == (minutes(60), minutes(98))
    assert one.approve_by == minutes(60)
    assert sentences([one]) == (
        "stage1: begins at 2026-03-03 23:00 UTC, ends by 2026-03-03 23:38 UTC (38 minutes), and has soaked at "
        "2026-03-04 00:38 UTC.",
        "stage1: it waits 1 hour for the opening of 2026-03-03 23:00 UTC, which closes at 2026-03-04 00:00 UTC.",
        "stage1: an approval until 2026-03-03 23:00 UTC costs none of this opening.",
    )


def test_hosts_that_do_not_fit_are_named_and_end_nothing_later() -> None:
    """An hour holds the Scan and three waves of 18 minutes; the fourth would end at 00:14."""
    (one,) = forecast(stages((9, 2), window=TONIGHT), now=NOW)
    assert one.misfits == tuple(host_id(number) for number in (7, 8, 9))
    assert one.ends == minutes(60 + 56)
    told = sentences([one], {host_id(7): "web-7"})
    assert told[-1] == (
        f"stage1: 3 of 9 hosts will not fit before it closes at 2026-03-04 00:00 UTC: web-7, {host_id(8)}, {host_id(9)}. They "
        "end as out_of_window, and the next run takes them; make the window longer, or allow more hosts at once."
    )


def test_only_the_slow_platform_of_a_wave_does_not_fit() -> None:
    """The others of the wave go on, and the next wave does not wait for who was not begun."""
    slow = {**EXPECTED, WINDOWS_SERVER: {**EXPECTED[LINUX], StepKind.INSTALL: timedelta(minutes=90)}}
    plan = stages((4, 2), window=TONIGHT, expected=slow)
    (stage,) = plan.stages
    hosts = (replace(stage.hosts[0], platform=WINDOWS_SERVER), *stage.hosts[1:])
    (one,) = forecast(replace(plan, stages=(replace(stage, hosts=hosts),)), now=NOW)
    assert one.misfits == (host_id(1),)
    assert one.ends == minutes(60) + SCAN + 2 * PATCH


def test_a_freeze_moves_the_stage_and_all_behind_it_and_says_why() -> None:
    """It concerns the second stage only, whose opening of the day after tomorrow is the first that is left."""
    freeze = Closure(begins=NOW, ends=minutes(26 * 60), reason="freeze 'launch'", stages=("stage2",))
    first, second = forecast(stages((1, 1), (1, 1), window=TONIGHT), now=NOW, closures=[freeze])
    assert first.starts == minutes(60)
    assert second.starts == minutes(49 * 60)
    assert "freeze 'launch'" in second.because[0]
    assert any("freeze 'launch'" in sentence for sentence in sentences([first, second]))


def test_without_a_window_a_freeze_is_waited_for_too() -> None:
    """At any time means: when nothing closes it."""
    freeze = Closure(begins=minutes(-10), ends=minutes(30), reason="freeze 'launch'")
    (one,) = forecast(stages((1, 1)), now=NOW, closures=[freeze])
    assert one.starts == minutes(30)
    (later,) = forecast(stages((1, 1)), now=minutes(60), closures=[freeze])
    assert later.starts == minutes(60)


def test_a_maintenance_window_is_forecast_by_what_aws_told() -> None:
    """Without an answer nobody knows when it begins, nor anything behind it."""
    window = Window(maintenance_window="prod-nights")
    plan = stages((1, 1), (1, 1), window=window)
    listing = Listing(spans=(Span(opens=minutes(30), closes=minutes(240)),))
    first, second = forecast(plan, now=NOW, listings={"stage1": listing, "stage2": Listing(because="it is switched off")})
    assert (first.starts, second.starts, second.because) == (minutes(30), None, ("it is switched off",))
    nobody = forecast(plan, now=NOW)
    assert [one.starts for one in nobody] == [None, None]
    assert "was not asked" in nobody[0].because[0]
    assert sentences(nobody)[:2] == (
        "stage1: not known when it begins.",
        "stage1: when maintenance window prod-nights of Systems Manager opens was not asked.",
    )


def test_a_stage_without_hosts_takes_no_time() -> None:
    """Neither does it soak: there is nothing to see."""
    first, second = forecast(stages((0, 1), (1, 1), window=TONIGHT), now=NOW)
    assert first.soaked == second.turn == NOW
    assert sentences([first]) == ("stage1: no hosts, so it takes no time.",)


def test_a_window_in_which_nobody_fits_is_told_as_that() -> None:
    """Twenty minutes are needed and ten are open."""
    short = replace(TONIGHT, duration=timedelta(minutes=10))
    (one,) = forecast(stages((2, 1), window=short), now=NOW)
    assert len(one.misfits) == 2
    assert sentences([one])[0] == "stage1: begins at 2026-03-03 23:00 UTC, and no host fits into its window."


def test_times_are_told_as_the_window_s_people_read_clocks() -> None:
    """In the window's zone, on both sides of a change of clocks."""
    window = Window(cron="0 22 * * *", duration=timedelta(hours=4), timezone="Europe/Vienna")
    (one,) = forecast(stages((1, 1), window=window), now=datetime(2026, 3, 29, 12, tzinfo=UTC))
    assert "begins at 2026-03-29 22:00 Europe/Vienna" in sentences([one])[0]


SIZES = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=3)
CLOSED = st.lists(
    st.builds(
        lambda begins, length: Closure(begins=minutes(begins), ends=minutes(begins + length), reason="freeze"),
        st.integers(-100, 3000), st.integers(1, 2000),
    ),
    max_size=3,
)  # fmt: skip


@given(SIZES, CLOSED, st.booleans(), st.integers(1, 6))
@settings(max_examples=120, deadline=None)
def test_nothing_is_forecast_outside_of_what_is_open(
    sizes: list[tuple[int, int]], closures: list[Closure], windowed: bool, hours: int
) -> None:
    """Who fits is over before it closes, nothing begins before it opens or in a freeze, and no stage before its turn."""
    window = replace(TONIGHT, duration=timedelta(hours=hours)) if windowed else None
    plan = stages(*sizes, window=window)
    found = forecast(plan, now=NOW, closures=closures)
    for one, stage in zip(found, plan.stages, strict=True):
        assert_sound(one, closures)
        assert set(one.misfits) <= {host for wave in stage.waves for host in wave.hosts}
    for before, after in pairwise(found):
        assert after.turn == before.soaked


def assert_sound(one: StageForecast, closures: list[Closure]) -> None:
    if one.starts is None or not one.hosts:
        return
    assert one.turn is not None
    assert one.ends is not None
    assert one.turn <= one.starts <= one.ends
    if one.span is not None:
        assert one.span.opens <= one.starts < one.span.closes
        assert one.ends <= one.span.closes or len(one.misfits) == one.hosts
        assert not any(closure.begins < one.span.closes and (closure.ends or NOW) > one.span.opens for closure in closures)


@pytest.mark.parametrize("count", [6, 7])
def test_of_many_hosts_some_are_named_and_the_others_counted(count: int) -> None:
    """A sentence stays one."""
    short = replace(TONIGHT, duration=timedelta(minutes=10))
    told = sentences(forecast(stages((count, 1), window=short), now=NOW))[-1]
    assert f"{count} of {count} hosts will not fit" in told
    assert f"and {count - 5} more. They end" in told
