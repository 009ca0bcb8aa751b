"""Patch baselines: read as AWS has them, created, put back and registered where a policy declares them, and nobody else's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import ANY

from patchwave.aws.baselines import BaselineOfOthers
from patchwave.aws.gateway import Gateway
from patchwave.campaign import baselines
from patchwave.campaign.baselines import Approval, Baseline
from patchwave.campaign.errors import AccessDenied, InvalidRequest, OutcomeUnknown
from tests.gateway.conftest import CELL, Server, Wire, answers, session_with_keys

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "aws-cli-examples" / "ssm"
ID, OTHER = "pb-0123456789abcdef0", "pb-0123456789abcdef1"
DEFAULT = "arn:aws:ssm:eu-central-1:184521004479:patchbaseline/pb-0dc9249b9b6bd6147"
WANTED = Baseline(
    name="patchwave-standard-amazon-linux-2023",
    operating_system="AMAZON_LINUX_2023",
    description="Kept by Patchwave as policy standard declares it",
    rules=(
        Approval(filters=(("CLASSIFICATION", ("Security",)),), level="CRITICAL", after_days=0),
        Approval(filters=(("PRODUCT", ("*",)),), until="2026-12-31", non_security=True),
    ),
    rejected=("docker*",),
    rejected_action="BLOCK",
)
CONTENT = {"Name": WANTED.name, "Description": WANTED.description, **baselines.body(WANTED)}


def named(wire: Wire, *ids: str) -> None:
    """AWS has baselines of that name, and one whose name only begins like it."""
    rows = [{"BaselineId": one, "BaselineName": WANTED.name} for one in ids]
    rows.append({"BaselineId": "pb-0123456789abcdeff", "BaselineName": f"{WANTED.name}-old"})
    filters = [
        {"Key": "OWNER", "Values": ["Self"]}, {"Key": "NAME_PREFIX", "Values": [WANTED.name]},
        {"Key": "OPERATING_SYSTEM", "Values": ["AMAZON_LINUX_2023"]},
    ]  # fmt: skip
    wire.expects("ssm", "describe_patch_baselines", {"BaselineIdentities": rows}, {"Filters": filters, "MaxResults": 100})


def groups(wire: Wire, **registered: str) -> None:
    """Which baseline each patch group has."""
    rows = [
        {"PatchGroup": group, "BaselineIdentity": {"BaselineId": one, "OperatingSystem": "AMAZON_LINUX_2023"}}
        for group, one in registered.items()
    ]
    filters = [{"Key": "OPERATING_SYSTEM", "Values": ["AMAZON_LINUX_2023"]}]
    wire.expects("ssm", "describe_patch_groups", {"Mappings": rows}, {"Filters": filters, "MaxResults": 100})


def is_there(wire: Wire, identifier: str = ID, **changed: Any) -> None:
    """What GetPatchBaseline says."""
    answer = {"BaselineId": identifier, "OperatingSystem": "AMAZON_LINUX_2023", **CONTENT, "Sources": [], **changed}
    wire.expects("ssm", "get_patch_baseline", answer, {"BaselineId": identifier})


def test_a_cell_is_read_with_who_is_patched_by_what(wire: Wire) -> None:
    """Groups that are registered, and those that get their system's default: not that of WINDOWS, which AWS would assume."""
    groups(wire, dev=ID, test=OTHER, elsewhere=OTHER)
    request = {"PatchGroup": "late", "OperatingSystem": "AMAZON_LINUX_2023"}
    wire.expects("ssm", "get_patch_baseline_for_patch_group", {"BaselineId": DEFAULT}, request)
    named(wire, ID)
    is_there(wire)
    for one in (DEFAULT, OTHER):
        is_there(wire, one, Name=f"other {one[-3:]}")
    found = wire.gateway.baselines_found(CELL, WANTED, ["dev", "test", "late", "later"])
    assert found.own == replace(WANTED, id=ID)
    assert {group: used.id for group, used in found.used.items()} == {"dev": ID, "test": OTHER, "late": DEFAULT, "later": DEFAULT}
    assert found.registered == {"dev", "test"}
    assert [one.what for one in baselines.drift(WANTED, found)] == ["patch_group", "patch_group"]


def test_everything_that_is_wanted_comes_back_as_it_was_written(wire: Wire) -> None:
    """Or drift would be told of what we have just made."""
    groups(wire)
    named(wire, ID)
    is_there(wire)
    found = wire.gateway.baselines_found(CELL, WANTED, [])
    assert baselines.drift(WANTED, found) == ()


def test_two_baselines_of_one_name_are_not_guessed_at(wire: Wire) -> None:
    """AWS allows it; which one is meant, a person says."""
    named(wire, ID, OTHER)
    with pytest.raises(InvalidRequest, match="2 patch baselines"):
        wire.gateway.ensure_baseline(CELL, WANTED, [], run="r")


def test_a_right_that_is_missing_is_told_by_its_name(wire: Wire) -> None:
    """A policy that asks for baselines asks for more rights than one that does not."""
    wire.refuses("ssm", "describe_patch_groups", "AccessDeniedException")
    with pytest.raises(AccessDenied, match="ssm:DescribePatchGroups"):
        wire.gateway.baselines_found(CELL, WANTED, [])


def test_a_baseline_that_is_missing_is_created_under_a_token_and_then_registered(wire: Wire) -> None:
    """In this order: no host is patched by half a baseline."""
    named(wire)
    request = {"OperatingSystem": "AMAZON_LINUX_2023", **CONTENT, "ClientToken": ANY}
    wire.expects("ssm", "create_patch_baseline", {"BaselineId": ID}, request)
    groups(wire)
    for group in ("dev", "prod"):
        wire.expects("ssm", "register_patch_baseline_for_patch_group", {}, {"BaselineId": ID, "PatchGroup": group})
    kept = wire.gateway.ensure_baseline(CELL, WANTED, ["prod", "dev", "dev"], run="weekly-linux/manual__1")
    assert (kept.id, kept.created, kept.registered, kept.left, kept.drift) == (ID, True, ("dev", "prod"), (), ())


def test_a_baseline_as_declared_is_left_alone(wire: Wire) -> None:
    """No call that changes anything: the second call of every run."""
    named(wire, ID)
    is_there(wire)
    groups(wire, dev=ID)
    kept = wire.gateway.ensure_baseline(CELL, WANTED, ["dev"], run="r")
    assert (kept.created, kept.drift, kept.registered, kept.left) == (False, (), (), ())


def test_what_is_otherwise_is_put_back_as_a_whole(wire: Wire) -> None:
    """With Replace, so that what a policy cannot declare goes as well; what was changed is told."""
    named(wire, ID)
    is_there(wire, RejectedPatches=[], Sources=[{"Name": "mine", "Products": ["*"], "Configuration": "[mine]"}])
    wire.expects("ssm", "update_patch_baseline", {"BaselineId": ID}, {"BaselineId": ID, **CONTENT, "Replace": True})
    groups(wire)
    kept = wire.gateway.ensure_baseline(CELL, WANTED, [], run="r")
    assert kept.drift == (
        f"baseline {WANTED.name} rejects nothing; wanted is docker*",
        f"baseline {WANTED.name} has other repositories: mine; wanted is nothing",
    )


def test_a_baseline_that_somebody_else_made_is_not_changed(wire: Wire) -> None:
    """The mark in its description tells whose it is; of another policy counts as somebody else."""
    named(wire, ID)
    is_there(wire, Description="Kept by Patchwave as policy strict declares it")
    with pytest.raises(BaselineOfOthers, match="was not made for this policy, so it is not changed"):
        wire.gateway.ensure_baseline(CELL, WANTED, ["dev"], run="r")


def test_a_patch_group_of_another_baseline_stays_with_it(wire: Wire) -> None:
    """Taking it away would change how hosts beyond the campaign are patched; a person does that. Also if somebody was faster."""
    named(wire, ID)
    is_there(wire)
    groups(wire, dev=OTHER)
    wire.refuses("ssm", "register_patch_baseline_for_patch_group", "AlreadyExistsException")
    groups(wire, dev=OTHER, prod=OTHER)
    kept = wire.gateway.ensure_baseline(CELL, WANTED, ["dev", "prod"], run="r")
    assert kept.left == (("dev", OTHER), ("prod", OTHER))
    assert kept.registered == ()


def test_a_patch_group_is_taken_over_from_the_baseline_that_is_named_and_from_no_other(wire: Wire) -> None:
    """AWS refuses a second registration: the first one is taken away before, and only if it is the one that was meant."""
    named(wire, ID)
    is_there(wire)
    groups(wire, dev=OTHER, prod="pb-0123456789abcthird")
    wire.expects("ssm", "deregister_patch_baseline_for_patch_group", {}, {"BaselineId": OTHER, "PatchGroup": "dev"})
    wire.expects("ssm", "register_patch_baseline_for_patch_group", {}, {"BaselineId": ID, "PatchGroup": "dev"})
    kept = wire.gateway.ensure_baseline(CELL, WANTED, ["dev", "prod"], run="r", takes={"dev": OTHER, "prod": OTHER})
    assert (kept.registered, kept.left) == (("dev",), (("prod", "pb-0123456789abcthird"),))


def test_a_registration_by_our_own_other_try_is_none_of_others(wire: Wire) -> None:
    """Two tries of one task beside each other want the same."""
    named(wire, ID)
    is_there(wire)
    groups(wire)
    wire.refuses("ssm", "register_patch_baseline_for_patch_group", "AlreadyExistsException")
    groups(wire, dev=ID)
    assert wire.gateway.ensure_baseline(CELL, WANTED, ["dev"], run="r").left == ()


def test_a_registration_that_aws_refuses_fails(wire: Wire) -> None:
    """Such as the 26th group of one baseline."""
    named(wire, ID)
    is_there(wire)
    groups(wire)
    wire.refuses("ssm", "register_patch_baseline_for_patch_group", "ResourceLimitExceededException")
    with pytest.raises(InvalidRequest, match="ResourceLimitExceededException"):
        wire.gateway.ensure_baseline(CELL, WANTED, ["dev"], run="r")


def test_a_lost_answer_is_an_unknown_outcome_and_the_next_call_has_the_same_token(wire: Wire) -> None:
    """AWS answers the second one with the first one's id. Another run, or another content, has another token."""
    tokens = []
    stub = wire._stub("ssm")
    stub.client.meta.events.register(
        "before-parameter-build.ssm.CreatePatchBaseline", lambda params, **_: tokens.append(params["ClientToken"])
    )
    for wanted, run in ((WANTED, "a"), (WANTED, "a"), (WANTED, "b"), (replace(WANTED, rejected=()), "a")):
        named(wire)
        wire.refuses("ssm", "create_patch_baseline", "InternalServerError", status=500)
        with pytest.raises(OutcomeUnknown):
            wire.gateway.ensure_baseline(CELL, wanted, [], run=run)
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 3
    assert all(len(token) <= 64 for token in tokens)


@pytest.mark.skipif(not SAMPLES.exists(), reason="the samples of the AWS CLI's documentation are not here")
def test_a_baseline_as_aws_s_page_prints_it(server: Server) -> None:
    """Epoch seconds, patch groups, a description."""
    answer = json.loads((SAMPLES / "get-patch-baseline" / "01.output.json").read_text())
    server.behaviour = answers(200, json.dumps(answer))
    found = Gateway(session_with_keys, endpoint_url=server.url)._baseline(CELL, ID)
    assert (found.name, found.operating_system, found.description) == (
        "WindowsPatching",
        "WINDOWS",
        "Patches for Windows Servers",
    )
    assert found.rules == (Approval(filters=(("PRODUCT", ("WindowsServer2016",)),), level="CRITICAL", after_days=0),)
