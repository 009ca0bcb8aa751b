"""Glass is broken: hosts that no routine has reached get the packages of two CVE ids as the last routine promoted them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.journey.conftest import LISTS
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "glass", "ap-east-1"
ROUTINE = "glass-routine"
CVES = ["CVE-2024-45490", "CVE-2024-45491"]

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """ana lets the routine go through, then starts the emergency; uma approves what is behind the canary."""
    routine = FollowedRun(stage=run.stage, dag=ROUTINE, region=REGION)
    routine.begin(dry_run=False)
    routine.ended()
    run.seen["routine"] = (routine.state, routine.id, {one.package for one in routine.journal.records if one.package})
    run.begin(dry_run=False, vulnerabilities=CVES)
    run.seen["gate"] = run.gate("everybody")
    run.say("everybody.approve", "Approve", user="uma", then=lambda: run.decisions, what="her answer is in the ledger")
    run.ended()


def installs(run: FollowedRun) -> list[Any]:
    """Parameters of the Installs that AWS got for the emergency's hosts."""
    return [
        one["Parameters"]
        for one in run.client("ssm").list_commands(MaxResults=50)["Commands"]
        if one["Parameters"].get("Operation") == ["Install"] and set(one["InstanceIds"]) <= set(run.classes)
    ]


def test_the_routine_brought_its_own_hosts_all_that_they_lacked(journey: FollowedRun) -> None:
    """So what the emergency leaves out was there to be had."""
    state, _, packages = journey.seen["routine"]
    assert state == "success"
    assert {package.partition(":")[0] for package in packages} == {"expat", "openssh-server", "vim-minimal"}


def test_only_the_packages_of_these_ids_were_installed_in_the_promoted_version(journey: FollowedRun) -> None:
    """By the world's own record; each host lacks the two others as before."""
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
    assert set(journey.classes.values()) == {"patched"}
    hosts = {*journey.hosts("glass-canary"), *journey.hosts("glass-late")}
    assert set(journey.classes) == hosts
    found = {one.package for one in journey.journal.records if one.package and one.host in hosts}
    assert {package.partition(":")[0] for package in found} == {"expat"}
    assert found <= journey.seen["routine"][2]
    assert all(facts["patch_report"]["missing"] == 2 for host, facts in journey.hosts().items() if host in hosts)


def test_the_lockfile_is_cut_from_the_routine_s_and_says_so(journey: FollowedRun) -> None:
    """The ledger knows from which run, and each Install names the list that was made of it, the canary's, too."""
    (cut,) = [one for one in journey.ledger.journal(journey.id) if one.kind == "lockfile.cut"]
    assert cut.data["from"] == journey.seen["routine"][1]
    assert sorted(cut.data["vulnerabilities"]) == CVES
    (address,) = {one["InstallOverrideList"][0] for one in installs(journey)}
    text = journey.client("s3").get_object(Bucket=LISTS, Key=address.removeprefix(f"s3://{LISTS}/"))["Body"].read()
    assert [one["id"] for one in yaml.safe_load(text)["patches"]] == ["expat.x86_64"]


def test_the_canary_came_first_and_the_gate_names_what_the_others_get(journey: FollowedRun) -> None:
    """With its version."""
    canary, others = set(journey.hosts("glass-canary")), set(journey.hosts("glass-late"))
    began = [one.host for one in journey.journal.records if one.begins_install and one.host in canary | others]
    assert set(began[:1]) == canary
    (package,) = {one.package for one in journey.journal.records if one.package and one.host in others}
    assert package.rpartition(":")[2] in journey.seen["gate"].body.replace("\\", "")
