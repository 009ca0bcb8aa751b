"""Two different people have to say yes, and whoever asked for the run is none of them; one of them leaves a host out."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "two-of-three", "ap-northeast-1"
LEFT_OUT = "quorum-prod/02"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """ana asks for the run; olga says something unclear, then yes; uma says yes to fewer hosts."""
    run.begin(dry_run=False)
    run.gate("prod")
    run.seen["refused first"] = {name: run.refused("prod", "Approve", user=name) for name in ("ana", "vic")}
    first, _ = run.say(
        "prod.approve", "Approve", user="olga", without=["no-such-host"],
        then=lambda: run.waits_for("decided nothing"), what="the unclear answer is understood as none",
    )  # fmt: skip
    run.seen["decisions then"] = run.decisions
    run.look_anew()
    again = run.gate("prod")
    run.seen["same question"] = (first.attempt == again.attempt, first.body == again.body)
    _, second = run.say(
        "prod.approve", "Approve", user="olga", reason="tested on dev",
        then=lambda: run.asks("prod.approve_2"), what="the next task asks",
    )  # fmt: skip
    run.seen["between"] = run.decisions
    run.seen["second"] = second
    run.seen["refused second"] = {
        name: run.refused("prod", "Approve", user=name, task="prod.approve_2") for name in ("ana", "olga")
    }
    run.say(
        "prod.approve_2", "Approve", user="uma", without=run.host(LEFT_OUT),
        then=lambda: run.decisions, what="her answer is in the ledger",
    )  # fmt: skip
    run.ended()


def test_whoever_asked_for_the_run_is_refused_though_named(journey: FollowedRun) -> None:
    """ana is of the board, and the viewer is not."""
    assert journey.seen["refused first"] == {"ana": 403, "vic": 403}


def test_an_answer_that_airflow_took_and_nobody_understands_burns_nothing(journey: FollowedRun) -> None:
    """The same task instance asks the same question again."""
    assert journey.seen["decisions then"] == []
    assert journey.seen["same question"] == (True, True)


def test_one_yes_decides_nothing_and_its_author_is_not_asked_again(journey: FollowedRun) -> None:
    """Airflow itself refuses a second answer of the same person."""
    assert journey.seen["between"] == []
    assert journey.seen["refused second"] == {"ana": 403, "olga": 403}


def test_the_second_is_shown_who_has_said_yes_and_why(journey: FollowedRun) -> None:
    """In a request with a text of its own."""
    second = journey.seen["second"]
    assert second.may == ("uma",)
    assert "1 of 2 have said yes" in second.subject
    assert "olga has said yes" in second.body
    assert "tested on dev" in second.body


def test_the_second_yes_decides_and_both_stand_in_the_evidence(journey: FollowedRun) -> None:
    """With what they said."""
    (decision,) = journey.ledger.decisions(journey.id)
    assert (decision.verdict.value, decision.author) == ("approved", "uma")
    assert decision.comment == "olga: tested on dev; uma without 1 host"
    assert "tested on dev" in (journey.folder / "report.html").read_text()


def test_the_host_that_one_of_them_left_out_is_left_alone(journey: FollowedRun) -> None:
    """The others are patched, once."""
    out = journey.host(LEFT_OUT)
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts().keys() - {out}, 1)
    assert out not in journey.classes


def test_the_run_ends_well(journey: FollowedRun) -> None:
    """Fewer hosts are no failure, and the decision fits the plan that was carried out."""
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
    assert [one["fits"] for one in journey.report["decisions"]] == [True]
