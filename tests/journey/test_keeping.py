"""The policy's baseline is created behind the gate and registered for the group that had none; another group keeps its own."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "keeping", "ap-southeast-5"
OURS = "patchwave-keeping-amazon-linux-2023"

pytestmark = pytest.mark.journey


def registered(run: FollowedRun) -> dict[str, str]:
    """Name of the baseline for Amazon Linux 2023 of each patch group, as AWS says it."""
    rows = run.client("ssm").describe_patch_groups(MaxResults=50)["Mappings"]
    its = [row["BaselineIdentity"] | {"group": row["PatchGroup"]} for row in rows]
    return {one["group"]: one["BaselineName"] for one in its if one["OperatingSystem"] == "AMAZON_LINUX_2023"}


def drive(run: FollowedRun) -> None:
    """olga sees what the account has otherwise, and what the stage does about it."""
    run.begin(dry_run=False)
    run.seen["gate"] = run.gate("dev").body
    run.seen["before"] = registered(run)
    run.answer("dev", approve=True)
    run.ended()


def installed(run: FollowedRun, fleet: str) -> set[str]:
    hosts = run.hosts(fleet)
    return {one.package.partition(":")[0] for one in run.journal.records if one.package and one.host in hosts}


def test_the_gate_says_what_differs_and_what_the_stage_does_about_it(journey: FollowedRun) -> None:
    """Before anybody approves; nothing is changed until then."""
    shown = journey.seen["gate"].replace("\\", "")
    assert f"baseline {OURS} does not exist" in shown
    assert f"Stage dev changes this before its first Scan: baseline {OURS}" in shown
    assert OURS not in journey.seen["before"].values()


def test_the_group_without_a_baseline_has_the_policy_s_and_the_other_one_its_own(journey: FollowedRun) -> None:
    """As AWS says it."""
    found = registered(journey)
    assert found["keeping-web"] == OURS
    assert found["linux-dev"] == "linux-al2023"


def test_hosts_were_patched_by_what_their_group_has_then(journey: FollowedRun) -> None:
    """By the world's own record: the policy approves what is critical, the account's baseline all of it."""
    assert journey.state == "success"
    assert set(journey.classes.values()) == {"patched"}
    assert installed(journey, "keeping-web") == {"expat"}
    assert installed(journey, "keeping-dev") == {"expat", "openssh-server", "vim-minimal"}


def test_it_was_done_once_behind_the_approval_and_before_the_first_scan(journey: FollowedRun) -> None:
    """By the ledger's journal, and the first command that AWS got."""
    entries = journey.ledger.journal(journey.id)
    (kept,) = [one for one in entries if one.kind == "baseline.kept"]
    (decided,) = [one for one in entries if one.kind == "decision.made"]
    first = min(
        row["RequestedDateTime"] for row in journey.client("ssm").list_commands(MaxResults=50)["Commands"]
    )  # fmt: skip
    assert isinstance(first, datetime)
    assert decided.at <= kept.at <= first
