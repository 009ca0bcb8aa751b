"""Prod gets what Dev received: a kernel that comes out while the gate asks stays out, and every command names the list."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.journey.conftest import LISTS
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "promoted", "af-south-1"
ADVISORY, NEWER = "RHSA-2024:10939", "kernel:0:5.14.0-427.47.1.el9_4"
TRIED = "kernel:0:5.14.0-427.40.1.el9_4"

pytestmark = pytest.mark.journey


def withdraw(run: FollowedRun, advisory: str) -> None:
    """None of the journey's hosts is offered that update."""
    run.stage.stack.awsim.post("/faults", {"kind": "update_withdrawn", "advisory": advisory, "region": run.region})


def come_out(run: FollowedRun, advisory: str) -> None:
    """What was withdrawn is in the repositories again a second later."""
    run.stage.stack.awsim.post(
        "/faults", {"kind": "update_withdrawn", "advisory": advisory, "region": run.region, "lasts": 1}
    )  # fmt: skip


def installs(run: FollowedRun, stage: str) -> list[Any]:
    """Parameters of the Installs that AWS got for the stage's hosts."""
    ssm, hosts = run.client("ssm"), run.planned[stage]
    return [
        one["Parameters"]
        for one in ssm.list_commands(MaxResults=50)["Commands"]
        if one["Parameters"].get("Operation") == ["Install"] and set(one["InstanceIds"]) & hosts
    ]


def drive(run: FollowedRun) -> None:
    """The newer kernel comes out when Dev is through; olga approves what Dev received."""
    withdraw(run, ADVISORY)
    run.begin(dry_run=False)
    run.seen["gate"] = run.gate("prod").body
    come_out(run, ADVISORY)
    run.answer("prod", approve=True)
    run.ended()


def test_the_run_is_green(journey: FollowedRun) -> None:
    """What Dev has not tried is not missing."""
    assert (journey.state, journey.report["outcome"]) == ("success", "succeeded")
    assert set(journey.classes.values()) == {"patched"}
    assert dict(journey.journal.installs) == dict.fromkeys(journey.hosts(), 1)


def test_the_newer_update_is_on_no_host(journey: FollowedRun) -> None:
    """Though it is out, and the baseline approves it: prod lacks it by its own reports."""
    assert TRIED in journey.journal.of("dev").packages
    assert TRIED in journey.journal.of("prod").packages
    assert NEWER not in journey.journal.packages
    assert all(host["patch_report"]["missing"] > 0 for host in journey.hosts("promoted-prod").values())


def test_the_gate_of_prod_names_what_dev_received(journey: FollowedRun) -> None:
    """With its version; that is what olga said yes to."""
    shown = journey.seen["gate"].replace("\\", "")  # Markdown's underscores are escaped
    assert TRIED.partition(":")[2] in shown
    assert NEWER.partition(":")[2] not in shown


def test_prod_is_patched_by_the_list_and_dev_by_its_baseline(journey: FollowedRun) -> None:
    """In AWS's words."""
    assert all("InstallOverrideList" not in one for one in installs(journey, "dev"))
    lists = [one["InstallOverrideList"] for one in installs(journey, "prod")]
    assert lists
    assert all(address.startswith(f"s3://{LISTS}/patchwave-lists/") for (address,) in lists)


def test_prod_received_nothing_but_what_is_in_the_list(journey: FollowedRun) -> None:
    """The list as it lies in the bucket, the lockfile of the ledger, and the world's own record say the same."""
    (address,) = {one["InstallOverrideList"][0] for one in installs(journey, "prod")}
    key = address.removeprefix(f"s3://{LISTS}/")
    text = journey.client("s3").get_object(Bucket=LISTS, Key=key)["Body"].read()
    listed = {one["title"] for one in yaml.safe_load(text)["patches"]}
    (platform,) = journey.ledger.document(journey.id, "lockfile")["lockfile"]["platforms"]
    assert {one["title"] for one in platform["patches"]} == listed
    without_architecture = {f"{name.rpartition('.')[0]}:{version}" for name, _, version in (one.partition(":") for one in listed)}
    assert journey.journal.of("prod").packages <= without_architecture


def test_every_host_of_prod_was_compared_with_it(journey: FollowedRun) -> None:
    """And has it."""
    compared = journey.ledger.document(journey.id, "compared:prod")
    assert compared["lockfile"] == journey.ledger.document(journey.id, "lockfile")["digest"]
    assert compared["hosts"] == {host: [] for host in journey.planned["prod"]}
