"""The account's baselines must stay as they are: dev gets what the policy approves all the same, and prod what dev received."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.journey.conftest import LISTS
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "overriding", "ap-southeast-4"
WANTED = "expat"

pytestmark = pytest.mark.journey


def in_account(run: FollowedRun) -> Any:
    """The account's baselines and who uses them, as AWS says it."""
    ssm = run.client("ssm")
    rows = ssm.describe_patch_baselines(Filters=[{"Key": "OWNER", "Values": ["Self"]}])["BaselineIdentities"]
    whole = [ssm.get_patch_baseline(BaselineId=row["BaselineId"]) for row in rows]
    return [{**one, "ResponseMetadata": None} for one in whole], ssm.describe_patch_groups()["Mappings"]


def installs(run: FollowedRun, stage: str) -> list[Any]:
    """Parameters of the Installs that AWS got for the stage's hosts."""
    return [
        one["Parameters"]
        for one in run.client("ssm").list_commands(MaxResults=50)["Commands"]
        if one["Parameters"].get("Operation") == ["Install"] and set(one["InstanceIds"]) & run.planned[stage]
    ]


def drive(run: FollowedRun) -> None:
    """Nobody is asked."""
    run.seen["before"] = in_account(run)
    run.begin(dry_run=False)
    run.ended()


def test_the_run_is_green_and_each_host_is_patched_or_had_it_all(journey: FollowedRun) -> None:
    """One Install each, for the account's Scan says nothing; the rule checker, which reads the world's record, agrees."""
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
    done = {host for host, klass in journey.classes.items() if klass == "already_compliant"}
    assert done == set(journey.hosts("overriding-done"))
    assert {klass for host, klass in journey.classes.items() if host not in done} == {"patched"}
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)


def test_hosts_got_what_the_policy_approves_and_nothing_that_only_their_account_does(journey: FollowedRun) -> None:
    """By the world's own record; the account's baseline misses two more on each of them."""
    for stage in ("dev", "prod"):
        assert {package.partition(":")[0] for package in journey.journal.of(stage).packages} == {WANTED}
    missing = {name: [one["patch_report"]["missing"] for one in journey.hosts(f"overriding-{name}").values()]
               for name in ("dev", "prod", "done")}  # fmt: skip
    assert missing == {"dev": [2, 2], "prod": [2, 2], "done": [2]}


def test_the_account_s_baselines_are_as_they_were(journey: FollowedRun) -> None:
    """And so is who uses them."""
    assert in_account(journey) == journey.seen["before"]


def test_dev_was_installed_on_by_the_policy_s_baseline_and_prod_by_the_lockfile(journey: FollowedRun) -> None:
    """In AWS's words, and with the file as it lies in the bucket."""
    addresses = {address for one in installs(journey, "dev") for address in one["BaselineOverride"]}
    (address,) = addresses
    key = address.removeprefix(f"s3://{LISTS}/")
    (baseline,) = json.loads(journey.client("s3").get_object(Bucket=LISTS, Key=key)["Body"].read())
    assert baseline["OperatingSystem"] == "AMAZON_LINUX_2023"
    assert key.removesuffix(".json").rpartition("/")[2][:12] in journey.ledger.document(journey.id, "plan.md")
    assert all("InstallOverrideList" in one and "BaselineOverride" not in one for one in installs(journey, "prod"))


def test_the_report_says_by_what_a_host_is_proven_and_remedies_nobody(journey: FollowedRun) -> None:
    """A remedy would install what only the account approves."""
    rows = {row.host: row for row in journey.ledger.hosts(journey.id) if row.stage == "dev"}
    assert all("missing by the account's baseline only" in row.reason for row in rows.values() if row.state == "patched")
    remedies = journey.ledger.document(journey.id, "remedies")
    assert {one["outcome"] for one in remedies} == {"not_tried"}
    assert all("apply_baselines: override" in one["detail"] for one in remedies if one["host"] in rows)
