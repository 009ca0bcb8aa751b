"""On Airflow's own pages a question is put off, agreed to by two of three, void for a host that went, and agreed to again."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import pytest

from tests.journey.browsers import Person, needs_chromium, signing_in
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "browser-rounds", "il-central-1"
GONE = "rounds-prod/02"

pytestmark = [pytest.mark.journey, pytest.mark.browser, needs_chromium]
IS_LONG = True


def drive(run: FollowedRun) -> None:
    """ana asks for the run, so olga and uma are left; the host goes when one has said yes and the other reads."""
    with signing_in(run) as sign_in:
        run.begin(dry_run=False)
        ana, olga, uma = sign_in("ana"), sign_in("olga"), sign_in("uma")
        run.gate("prod")
        ana.reads("prod.approve")
        run.seen["ana"] = (ana.presses("Approve"), run.decisions)
        ana.page.close()
        put_off = partial(kinds, run, "approval.deferred")
        olga.says("prod.approve", "Defer", reason="quarter end", then=put_off, what="it is put off")
        _says_yes(uma, 2, reason="tested on dev")
        run.seen["between"] = (run.decisions, run.journal.touched)
        olga.reads("prod.approve_3")
        run.seen["second"] = olga.read
        run.seen["gone"] = run.terminate(GONE)
        run.put(
            "prod.approve_3", lambda: olga.presses("Approve"), then=lambda: run.asks("prod.approve_4"), what="the next task asks"
        )
        run.seen["void"] = (run.decisions, run.journal.touched)
        _says_yes(olga, 4, reason="two are enough")
        run.seen["again"] = olga.read
        uma.says("prod.approve_5", "Approve", then=lambda: run.decisions, what="it is decided")
        run.seen["last"] = (uma.read, uma.digest)
    run.ended()


def _says_yes(person: Person, number: int, *, reason: str) -> None:
    run = person.run
    following = f"prod.approve_{number + 1}"
    person.says(f"prod.approve_{number}", "Approve", reason=reason, then=lambda: run.asks(following), what="the next task asks")
    person.page.goto("about:blank")


def kinds(run: FollowedRun, kind: str) -> list[datetime]:
    """When the journal got records of that kind."""
    return [one.at for one in run.ledger.journal(run.id) if one.kind == kind]


def test_whoever_asked_for_the_run_is_refused_though_named(journey: FollowedRun) -> None:
    """ana sees the plan and the buttons, and her yes is none."""
    assert journey.seen["ana"] == (403, [])


def test_it_is_asked_again_when_the_opening_is_over(journey: FollowedRun) -> None:
    """And not before; the page says who put it off, and why."""
    (deferred,) = [one for one in journey.ledger.journal(journey.id) if one.kind == "approval.deferred"]
    assert (deferred.data["author"], deferred.data["reason"]) == ("olga", "quarter end")
    until = datetime.fromisoformat(deferred.data["until"])
    later = [at for at in kinds(journey, "approval.asked") if at > deferred.at]
    assert later
    assert min(later) >= until
    assert "olga deferred it until the opening" in journey.seen["second"]


def test_one_yes_opens_nothing_and_the_second_is_shown_it(journey: FollowedRun) -> None:
    """With who gave it, and why."""
    assert journey.seen["between"] == ([], frozenset())
    assert "1 of 2 have said yes" in journey.seen["second"]
    assert "uma has said yes" in journey.seen["second"]
    assert "tested on dev" in journey.seen["second"]


def test_a_yes_to_hosts_that_are_no_longer_there_is_void(journey: FollowedRun) -> None:
    """Though it was the second."""
    assert journey.seen["void"] == ([], frozenset())
    assert kinds(journey, "approval.void")


def test_the_next_page_shows_the_difference(journey: FollowedRun) -> None:
    """The host that went, and how many are left."""
    gone, text = journey.seen["gone"], journey.seen["again"]
    assert "You are asked about stage prod: 2 hosts" in text
    assert "Asked again: the approval is void" in text
    assert f"- {gone}" in text
    assert f"- {gone}" not in journey.seen["second"]


def test_both_agree_to_what_is_left_and_it_is_patched_once(journey: FollowedRun) -> None:
    """Under the plan that both have read."""
    (decision,) = journey.ledger.decisions(journey.id)
    assert (decision.verdict.value, decision.author, decision.comment) == ("approved", "uma", "olga: two are enough; uma")
    assert decision.plan == journey.seen["last"][1]
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts().keys() - {journey.seen["gone"]}, 1)


def test_the_run_ends_well(journey: FollowedRun) -> None:
    """With the sixth question asked of nobody."""
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
    assert journey.tasks["prod.approve_6"] == "success"
