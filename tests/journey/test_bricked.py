"""A host is bricked by an in-place patch, and comes back from its snapshot through the campaign `rollback`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "bricked", "ap-southeast-3"
IS_LONG = True

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """The first host that reboots stays away; the stage halts. ana asks for the rollback of that host, olga says yes."""
    run.begin(dry_run=False)
    run.answer("dev", approve=True)
    run.seen["state"] = run.ended()
    run.seen["classes"] = dict(run.classes)
    run.seen["page"] = run.page()
    (bricked,) = [host for host, state in run.classes.items() if state == "unreachable"]
    run.seen["host"], run.seen["commands"] = bricked, len(run.journal.commands)
    run.seen["broken"] = [str(one) for one in run.rules_broken]
    back = run.stage.follow("rollback", region=REGION)
    run.seen["back"] = back
    back.begin(run=run.id, hosts=[bricked])
    run.seen["gate"] = back.gate("rollback")
    run.seen["before"] = _replacements(run)
    back.answer("rollback", approve=True)
    back.ended()


def _replacements(run: FollowedRun) -> list[dict[str, Any]]:
    found = run.client("ec2").describe_replace_root_volume_tasks()
    return list(found["ReplaceRootVolumeTasks"])


def _lines(run: FollowedRun) -> list[dict[str, Any]]:
    """What really happened in the region."""
    lines = [json.loads(line) for line in run.stage.stack.awsim.journal().splitlines() if line.strip()]
    return [line for line in lines if line["region"] == REGION]


def test_the_patch_bricked_one_host_and_its_run_failed(journey: FollowedRun) -> None:
    """The other two are patched; nobody calls that a success."""
    assert journey.seen["state"] == "failed"
    assert sorted(journey.seen["classes"].values()) == ["patched", "patched", "unreachable"]
    assert f"patchwave rollback {journey.id}" in journey.seen["page"]


def test_each_host_had_its_snapshot_before_its_install(journey: FollowedRun) -> None:
    """Of its root volume, tagged with the run, complete before the command was sent."""
    taken = journey.ledger.document(journey.id, "snapshots:dev")
    assert {one["host"] for one in taken} == set(journey.seen["classes"])
    assert {one["state"] for one in taken} == {"completed"}
    filters = [{"Name": "tag:patchwave:run", "Values": [journey.id]}]
    in_aws = journey.client("ec2").describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
    assert sorted(one["SnapshotId"] for one in in_aws) == sorted(one["id"] for one in taken)
    complete: set[str] = set()
    for one in journey.ledger.journal(journey.id):
        if one.kind == "snapshot.taken" and one.data["state"] == "completed":
            complete.add(one.data["host"])
        if one.kind == "dispatch.intended" and one.data["step"] == "install":
            assert set(one.data["hosts"]) <= complete


def test_nothing_was_done_before_the_yes(journey: FollowedRun) -> None:
    """And the people of the stage were asked, with the host, its snapshot and what is lost."""
    assert journey.seen["before"] == []
    gate = journey.seen["gate"]
    assert set(gate.may) == {"olga", "uma"}
    assert journey.seen["host"] in gate.body
    assert "is lost" in gate.body
    back = journey.seen["back"]
    assert back.decisions == [("rollback", "approved", "olga")]


def test_the_host_came_back_from_its_snapshot_once(journey: FollowedRun) -> None:
    """By awsim's journal: one root volume, of that host, from its snapshot; then a boot, then it serves."""
    host = journey.seen["host"]
    lines = _lines(journey)
    replaced = [line for line in lines if line["event"] == "root_volume_replaced"]
    assert [line["host"] for line in replaced] == [host]
    saved = {one["host"]: one["id"] for one in journey.ledger.document(journey.id, "snapshots:dev")}
    assert replaced[0]["snapshot"] == saved[host]
    after = [line["event"] for line in lines[lines.index(replaced[0]) :] if line["host"] == host]
    assert after.index("reboot_begun") < after.index("reboot_ended") < after.index("in_service")
    assert journey.hosts()[host]["ping"] == "Online"


def test_the_rollback_says_so_with_proof(journey: FollowedRun) -> None:
    """Its report: rolled back, and it lacks again what it lacked before."""
    back = journey.seen["back"]
    assert back.state == "success"
    assert back.report["outcome"] == "succeeded"
    assert back.classes == {journey.seen["host"]: "rolled_back"}
    (row,) = back.ledger.hosts(back.id)
    assert row.missing_before
    assert row.missing_after == row.missing_before
    kinds = [one.kind for one in back.ledger.journal(back.id)]
    assert kinds.index("rollback.beginning") < kinds.index("rollback.begun") < kinds.index("rollback.ended")


def test_the_run_that_patched_kept_the_rules(journey: FollowedRun) -> None:
    """Snapshots have cost it no rule of a rollout."""
    assert journey.seen["broken"] == []
