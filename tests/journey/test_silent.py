"""Nobody answers in time, which means no: olga has read the page, and presses too late; over REST she is as late."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.journey.browsers import CHROMIUM, needs_chromium, signing_in
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "silent", "ap-east-2"

pytestmark = pytest.mark.journey
IS_LONG = True


def drive(run: FollowedRun) -> None:
    """The time for an answer is real time, also here: three minutes, in which she signs in and reads."""
    with ExitStack() as ending:
        run.begin(dry_run=False)
        run.seen["gate"] = run.gate("prod")
        olga = ending.enter_context(signing_in(run))("olga") if CHROMIUM.exists() else None
        if olga is not None:
            olga.reads("prod.approve")
        run.until(lambda: run.decisions, "the gate has been waited at for long enough")
        if olga is not None:
            run.seen["pressed"] = olga.presses("Approve", reason="too late")
        run.seen["said"] = run.refused("prod", "Approve", user="olga")
        run.ended()


def test_silence_is_a_no_with_nobody_s_name(journey: FollowedRun) -> None:
    """And a green run that says so, as after a no that somebody gave."""
    assert journey.decisions == [("prod", "expired", "-")]
    assert (journey.state, journey.report["outcome"]) == ("success", "rejected")
    assert "nobody answered in time" in journey.report["headline"]


def test_nothing_is_done_to_any_prod_host(journey: FollowedRun) -> None:
    """dev was patched before."""
    assert journey.journal.of("prod").touched == frozenset()
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts("silent-dev"), 1)


def test_the_page_says_beforehand_what_silence_means(journey: FollowedRun) -> None:
    """With until when."""
    waits = [one for one in journey.ledger.waits(journey.id) if one.subject.startswith("prod")]
    assert any("no answer within 0:03:00 means no" in one.ends for one in waits)


def test_a_late_yes_over_rest_is_refused(journey: FollowedRun) -> None:
    """By Airflow: the question is closed."""
    assert journey.seen["said"] >= 400


@pytest.mark.browser
@needs_chromium
def test_a_late_yes_in_the_browser_is_refused_and_told(journey: FollowedRun) -> None:
    """The buttons are still on the page that she has open."""
    assert journey.seen["pressed"] >= 400
