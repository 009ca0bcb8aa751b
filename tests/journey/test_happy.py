"""A campaign that goes well, with every kind of host in it: patched, already compliant, failing once, lost, stopped."""

from __future__ import annotations

from collections import Counter

import pytest

from patchwave.campaign import calls
from patchwave.campaign import plan as plans
from patchwave.campaign.rollout import TERMINAL, StepKind
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "happy", "eu-central-1"

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """olga approves both gates."""
    run.begin(dry_run=False)
    run.answer("staging", approve=True)
    run.answer("prod", approve=True)
    run.ended()


def test_the_run_succeeds(journey: FollowedRun) -> None:
    """In Airflow's word, the ledger's and the report's."""
    words = (journey.state, journey.ledger.run(journey.id).outcome.value, journey.report["outcome"])
    assert words == ("success", "succeeded", "succeeded")


def test_dev_comes_before_staging_and_staging_before_prod(journey: FollowedRun) -> None:
    """No stage begins before everything is done on the last host of the one before."""
    journal = journey.journal.by_the_stages()
    assert journal.of("dev").ended < journal.of("staging").began
    assert journal.of("staging").ended < journal.of("prod").began


def test_every_host_that_lacked_patches_got_exactly_one_install(journey: FollowedRun) -> None:
    """None twice, none forgotten; the compliant, the lost and the stopped one are not among them."""
    left_alone = {journey.host(name) for name in ("happy-dev/2", "happy-dev/3", "happy-staging/2")}
    expected = dict.fromkeys(set(journey.hosts()) - left_alone, 1)
    assert dict(journey.journal.by_the_stages().installs) == expected


def test_an_install_on_prod_takes_no_more_than_a_quarter_away(journey: FollowedRun) -> None:
    """25 % of eight hosts are two; both places are used, or the share would mean nothing."""
    assert journey.journal.of("prod").most_away == 2


def test_staging_never_lacks_more_than_half(journey: FollowedRun) -> None:
    """50 % of four hosts are two."""
    assert 1 <= journey.journal.by_the_stages().of("staging").most_away <= 2


def test_the_lost_and_the_stopped_host_are_named_and_untouched(journey: FollowedRun) -> None:
    """They are classes of their own, and the world has seen no command on them."""
    lost, stopped = journey.host("happy-dev/2"), journey.host("happy-dev/3")
    assert (journey.classes[lost], journey.classes[stopped]) == ("unreachable", "stopped")
    assert not {lost, stopped} & journey.journal.touched


def test_the_compliant_host_got_a_scan_and_nothing_else(journey: FollowedRun) -> None:
    """What it says of itself is looked at afresh, and it stays as it is."""
    host = journey.host("happy-staging/2")
    assert journey.classes[host] == "already_compliant"
    assert {one.operation for one in journey.journal.commands if one.host == host} == {"Scan"}


def test_the_host_that_failed_is_remedied_and_compliant_in_the_end(journey: FollowedRun) -> None:
    """Its stage calls it failed; the automation's Install, the only one of its kind, mends it."""
    host = journey.host("happy-staging/1")
    assert journey.classes[host] == "failed"
    assert dict(journey.journal.by_remediation().installs) == {host: 1}
    first, second = (code for code in journey.journal.exit_codes(host))
    assert first
    assert second == 0
    assert journey.hosts()[host]["patch_report"]["missing"] == 0
    verdicts = {row["host"]: (row["compliance_after"], row["compliance_final"]) for row in journey.rows}
    assert verdicts[host] == ("not_compliant", "compliant")


def test_the_patched_hosts_lack_nothing_in_the_world_either(journey: FollowedRun) -> None:
    """What the ledger calls patched, the hosts themselves do."""
    hosts = journey.hosts()
    patched = [host for host, word in journey.classes.items() if word == "patched"]
    assert len(patched) == 12
    assert {host: hosts[host]["patch_report"]["missing"] for host in patched} == dict.fromkeys(patched, 0)


def test_every_planned_host_is_in_exactly_one_class(journey: FollowedRun) -> None:
    """In the ledger and in the CSV alike; their sums are the world's hosts."""
    planned = [host for hosts in journey.planned.values() for host in hosts]
    assert sorted(planned) == sorted(journey.hosts())
    rows = journey.ledger.hosts(journey.id)
    assert sorted(str(row.host) for row in rows) == sorted(planned)
    assert {row.state for row in rows} <= TERMINAL
    assert Counter(row["class"] for row in journey.rows) == Counter(journey.classes.values())
    assert sorted(row["host"] for row in journey.rows) == sorted(planned)


def test_both_decisions_stand_in_the_ledger(journey: FollowedRun) -> None:
    """With their author, once each."""
    assert journey.decisions == [("staging", "approved", "olga"), ("prod", "approved", "olga")]


def test_everything_of_the_run_lies_in_its_folder(journey: FollowedRun) -> None:
    """Plan, report and hosts, none of them empty."""
    files = {file.name: file.stat().st_size for file in journey.folder.iterdir()}
    assert {"plan.md", "report.html", "report.json", "hosts.csv"} <= set(files)
    assert all(files.values())


def test_the_run_called_at_least_what_a_dry_run_of_its_plan_says(journey: FollowedRun) -> None:
    """What does not depend on who lacked patches: the looks, the Scans before, health and verification."""
    plan = plans.from_json(journey.ledger.document(journey.id, "plan"))
    forecast = calls.of(plan, rules=journey.ledger.run(journey.id).definition["verify"]["config_rules"])
    certain = forecast.by_operation(steps=(calls.LOOK, StepKind.SCAN.value, calls.HEALTH, calls.VERIFICATION))
    made = journey.ledger.calls(journey.id)
    assert {one: (count, made.get(one, 0)) for one, count in certain.items() if made.get(one, 0) < count} == {}
