"""One campaign for what we patch and what AWS patches: two hosts in place, a database, a cluster and two functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patchwave.campaign import settling
from tests.journey.runs import FollowedRun

CAMPAIGN, REGION = "mixed", "mx-central-1"
IS_LONG = True

pytestmark = pytest.mark.journey


def drive(run: FollowedRun) -> None:
    """olga sees all of it at one gate, and says yes once."""
    run.seen["before"] = _versions(run)
    run.begin(dry_run=False)
    run.answer("dev", approve=True)
    run.ended()


def _versions(run: FollowedRun) -> dict[str, str]:
    """As RDS and Lambda say now."""
    rds, its = run.client("rds"), run.client("lambda")
    found = {row["DBInstanceIdentifier"]: row["EngineVersion"] for row in rds.describe_db_instances()["DBInstances"]}
    found |= {row["DBClusterIdentifier"]: row["EngineVersion"] for row in rds.describe_db_clusters()["DBClusters"]}
    for name in ("mixed-checkout", "mixed-pinned"):
        found[name] = its.get_function_configuration(FunctionName=name)["RuntimeVersionConfig"]["RuntimeVersionArn"]
    return found


def _maintenance(run: FollowedRun) -> list[Any]:
    """What was really done to databases of the region, in order."""
    lines = [json.loads(line) for line in run.stage.stack.awsim.journal().splitlines() if line.strip()]
    return [line for line in lines if line["region"] == REGION and line["event"] == "maintenance_begun"]


def test_the_run_is_green_and_each_host_is_patched(journey: FollowedRun) -> None:
    """Databases and functions take no host's turn."""
    assert journey.state == "success"
    assert set(journey.classes.values()) == {"patched"}


def test_rds_has_newer_minor_versions_and_no_other_major_one(journey: FollowedRun) -> None:
    """By its own word, before and after."""
    before, now = journey.seen["before"], _versions(journey)
    for name in ("mixed-orders", "mixed-ledger"):
        assert now[name] != before[name]
        assert now[name].split(".")[0] == before[name].split(".")[0]


def test_each_change_was_made_once_and_after_the_hosts(journey: FollowedRun) -> None:
    """By awsim's journal."""
    done = [(line["database"], line["operation"]) for line in _maintenance(journey)]
    assert sorted(done) == [("mixed-ledger", "modify"), ("mixed-orders", "modify"), ("mixed-orders", "system-update")]
    installs = [one.at.isoformat() for one in journey.journal.records if one.begins_install]
    assert max(installs) < min(line["at"] for line in _maintenance(journey))


def test_lambda_has_a_newer_runtime_version_where_nobody_pinned_it(journey: FollowedRun) -> None:
    """The pinned one keeps its version, and the ledger says why."""
    before, now = journey.seen["before"], _versions(journey)
    assert now["mixed-checkout"] != before["mixed-checkout"]
    assert now["mixed-pinned"] == before["mixed-pinned"]
    rows = settling.from_json(journey.ledger.document(journey.id, "managed_services:dev"))
    classes = {row.name: row.state.value for row in rows.values()}
    assert classes["mixed-checkout"] == classes["mixed-orders"] == classes["mixed-ledger"] == "patched"
    assert classes["mixed-pinned"] == "excepted"


def test_the_plan_named_each_of_them_before_anybody_agreed(journey: FollowedRun) -> None:
    """In one text with the hosts."""
    text = str(journey.ledger.document(journey.id, "plan.md"))
    for name in ("mixed-orders", "mixed-ledger", "mixed-checkout", "mixed-pinned"):
        assert name in text


def test_the_report_says_where_each_vulnerability_is_gone_under_one_deadline(journey: FollowedRun) -> None:
    """Hosts and functions on one line; what is left on it Inspector lists still, and nothing that it lists is missing."""
    lines = journey.report["whereabouts"]
    assert {kind for line in lines for kind in line["gone"]} == {"function", "host"}
    listed: dict[str, set[str]] = {line["vulnerability"]: set() for line in lines}
    for page in journey.client("inspector2").get_paginator("list_findings").paginate():
        for one in page["findings"]:
            name = one.get("packageVulnerabilityDetails", {}).get("vulnerabilityId")
            if name in listed and one["status"] == "ACTIVE":
                listed[name].update(":".join(its["id"].split(":")[:7]).rpartition(":")[2] for its in one["resources"])
    names = {host: str(facts["name"]).replace("/", "-") for host, facts in journey.hosts().items()}
    for line in lines:
        left = {name for its in line["left"].values() for name in its}
        assert left == {names.get(one, one) for one in listed[line["vulnerability"]]}
        deadlines = [one["deadline"] for one in journey.report["deadlines"] if one["vulnerability"] == line["vulnerability"]]
        assert line["deadline"] == min(deadlines)
