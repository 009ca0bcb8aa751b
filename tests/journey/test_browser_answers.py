"""olga answers on Airflow's own page: a yes with a reason, a yes to fewer hosts, a no; uma, who is not asked, gets nowhere."""

from __future__ import annotations

import pytest

from tests.journey.browsers import needs_chromium, signing_in
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "browser-answers", "ca-west-1"
LEFT_OUT = "answers-staging/02"
HEADINGS = (
    "Plan of browser-answers", "Difference from the plan approved before", "Stages, in this order",
    "When, as far as is known now", "What is installed in stage staging", "Hosts, stage by stage", "Excluded (1)",
    "Not known to Inspector", "What an OS patch cannot mend",
)  # fmt: skip

pytestmark = [pytest.mark.journey, pytest.mark.browser, needs_chromium]
IS_LONG = True


def drive(run: FollowedRun) -> None:
    """Each stage has another answer."""
    with signing_in(run) as sign_in:
        run.begin(dry_run=False)
        olga, uma = sign_in("olga"), sign_in("uma")
        run.gate("dev")
        uma.reads("dev.approve")
        run.seen["refused"] = (uma.presses("Approve", reason="I may not"), run.decisions)
        uma.page.close()
        for stage, option, fields in (
            ("dev", "Approve", {"reason": "as talked about on Monday"}),
            ("staging", "Approve", {"reason": "the others", "without": "answers-staging-02"}),
            ("prod", "Reject", {"reason": "quarter end"}),
        ):
            decided = len(run.decisions)
            olga.says(
                f"{stage}.approve", option, then=lambda before=decided: run.decisions[before:], what="it is decided", **fields
            )
            run.seen[stage] = (olga.read, olga.digest)
            olga.page.goto("about:blank")
    run.ended()


def test_whoever_is_not_asked_is_told_so_and_decides_nothing(journey: FollowedRun) -> None:
    """The page has the buttons; Airflow refuses what they send."""
    assert journey.seen["refused"] == (403, [])


def test_the_page_shows_the_plan_and_no_markup(journey: FollowedRun) -> None:
    """What, where, why, in which order, who is left out, when, and what is new."""
    text, _ = journey.seen["staging"]
    places = [text.find(heading) for heading in HEADINGS]
    assert places == sorted(places)
    assert min(places) >= 0
    assert "You are asked about stage staging: 3 hosts, at most 3 at once" in text
    for host in journey.planned["staging"] | {journey.host("answers-databases/01")}:
        assert host in text
    assert not [mark for mark in ("**", "|--", "```", "\\_", "&lt;", "](") if mark in text]


def test_each_answer_stands_in_the_ledger_as_it_was_written(journey: FollowedRun) -> None:
    """Author, verdict and reason."""
    assert [(str(one.stage), one.verdict.value, one.author, one.comment) for one in journey.ledger.decisions(journey.id)] == [
        ("dev", "approved", "olga", "olga: as talked about on Monday"),
        ("staging", "approved", "olga", "olga without 1 host: the others"),
        ("prod", "rejected", "olga", "quarter end"),
    ]


def test_a_decision_is_about_the_plan_that_was_on_the_page(journey: FollowedRun) -> None:
    """Or, where a host was left out there, about that plan without it."""
    dev, staging, prod = (one.plan for one in journey.ledger.decisions(journey.id))
    assert dev == journey.seen["dev"][1] == journey.seen["staging"][1]
    assert staging == prod == journey.seen["prod"][1] != dev


def test_who_was_agreed_to_is_patched_and_nobody_else(journey: FollowedRun) -> None:
    """By awsim's own record."""
    agreed = journey.hosts("answers-dev").keys() | journey.hosts("answers-staging").keys() - {journey.host(LEFT_OUT)}
    assert dict(journey.journal.installs) == dict.fromkeys(agreed, 1)
    assert journey.journal.of("prod").touched == frozenset()


def test_the_run_is_green_and_says_rejected(journey: FollowedRun) -> None:
    """As after a no over REST."""
    assert (journey.state, journey.report["outcome"]) == ("success", "rejected")
