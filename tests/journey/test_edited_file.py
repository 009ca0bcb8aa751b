"""The campaign file is edited while its first gate waits: the run goes on as it was approved."""

from __future__ import annotations

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "edited", "us-east-1"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """Everything that the file says of its stages becomes something else, then the old version's approver answers."""
    run.begin(dry_run=False)
    before = run.gate("staging")
    file = run.stage.campaigns / "edited.yaml"
    text = file.read_text()
    file.write_text(
        text.replace("concurrency: 1", "concurrency: 100%")
        .replace("concurrency: 2", "concurrency: 100%")
        .replace("soak: 10m", "soak: 30d")
        .replace("approvers: [olga]", "approvers: [uma]")
    )
    run.until(lambda: "uma" in run.user("ana").get(f"/dags/{run.dag}/details")["doc_md"], "Airflow has read the edited file")
    run.seen["page"] = run.page()
    run.seen["body before"] = before.body
    run.answer("staging", approve=True)
    run.seen["body after"] = run.gate("prod").body
    run.seen["uma"] = run.refused("prod", "Approve", user="uma")
    run.answer("prod", approve=True)
    run.ended()


def test_one_host_at_a_time_as_it_was_approved(journey: FollowedRun) -> None:
    """The file says all of them at once by now."""
    assert journey.journal.of("staging").most_away == 1
    assert journey.journal.of("prod").most_away <= 2


def test_every_host_is_patched_once(journey: FollowedRun) -> None:
    """The edit neither stops the run nor begins anything anew; the soak of a month is not waited for."""
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)
    assert journey.state == "success"


def test_only_the_approver_of_the_frozen_version_may_answer(journey: FollowedRun) -> None:
    """uma stands in the file and not in the plan that is carried out."""
    assert journey.seen["uma"] == 403
    assert journey.decisions == [("staging", "approved", "olga"), ("prod", "approved", "olga")]


def test_the_ledger_keeps_the_version_that_the_run_began_with(journey: FollowedRun) -> None:
    """Whoever asks later what was approved finds it."""
    frozen = journey.ledger.run(journey.id).definition
    assert [one["concurrency"] for one in frozen["stages"]] == [1, 2]


def test_the_next_question_says_that_a_newer_version_exists(journey: FollowedRun) -> None:
    """The first one, asked before the edit, could not."""
    sentence = "The campaign file has changed since this run began"
    assert sentence not in journey.seen["body before"]
    assert sentence in journey.seen["body after"]


def test_the_runs_page_says_that_a_newer_version_exists(journey: FollowedRun) -> None:
    """Also while the old question waits."""
    assert "A newer version of edited.yaml exists" in journey.seen["page"]
