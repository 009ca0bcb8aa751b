"""Patch baselines against the simulated AWS, which patches hosts by them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from patchwave.aws.gateway import Gateway
from patchwave.campaign import baselines
from patchwave.campaign.baselines import Baseline, PatchBaseline
from tests.gateway.conftest import CELL
from tests.gateway.simulated import Simulated, small_world

START = datetime(2026, 3, 3, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with small_world(START) as url:
        yield Simulated(url).gateway


def declared(system: str, *rules: dict[str, object], **changed: object) -> Baseline:
    written = PatchBaseline.model_validate({"operating_system": system, "rules": rules, **changed})
    (wanted,) = baselines.wanted([written], policy="standard")
    return wanted


CRITICAL = {"track": "critical", "filters": {"CLASSIFICATION": ["Security"]}}


def test_a_declared_baseline_is_made_once_registered_and_put_back(gateway: Gateway) -> None:
    """Created, found as it was written, changed by hand and put back; after each step drift says what a person would say."""
    wanted = declared(
        "AMAZON_LINUX_2023", CRITICAL,
        {"track": "standard", "filters": {"CLASSIFICATION": ["Bugfix"]}, "enable_non_security": True},
        {"track": "standard", "filters": {"PRODUCT": ["*"]}, "approve_until_date": "2026-01-31"},
        rejected_patches=["docker*"], rejected_patches_action="BLOCK", approved_patches=["openssl*"],
    )  # fmt: skip
    before = [one.sentence for one in baselines.drift(wanted, gateway.baselines_found(CELL, wanted, ["brand-new"]))]
    assert before[0].startswith(f"baseline {wanted.name} does not exist; it would approve ")
    assert any("AWS-AmazonLinux2023DefaultPatchBaseline" in one and "by the account's default" in one for one in before)

    made = gateway.ensure_baseline(CELL, wanted, ["brand-new"], run="r1")
    assert (made.created, made.registered, made.left) == (True, ("brand-new",), ())
    assert baselines.drift(wanted, gateway.baselines_found(CELL, wanted, ["brand-new"])) == ()
    again = gateway.ensure_baseline(CELL, wanted, ["brand-new"], run="r2")
    assert (again.id, again.created, again.drift, again.registered) == (made.id, False, (), ())

    gateway.client(CELL, "ssm").update_patch_baseline(BaselineId=made.id, RejectedPatches=[])
    (odd,) = baselines.drift(wanted, gateway.baselines_found(CELL, wanted, ["brand-new"]))
    assert odd.sentence == f"baseline {wanted.name} rejects nothing; wanted is docker*"
    assert gateway.ensure_baseline(CELL, wanted, [], run="r2").drift == (odd.sentence,)
    assert baselines.drift(wanted, gateway.baselines_found(CELL, wanted, ["brand-new"])) == ()


def test_groups_of_the_account_s_own_baseline_are_told_and_left(gateway: Gateway) -> None:
    """A group has one baseline for each system: that for Ubuntu is the world's, that for Amazon Linux 2 nobody's yet."""
    wanted = declared("AMAZON_LINUX_2", CRITICAL)
    assert gateway.ensure_baseline(CELL, wanted, ["linux-prod"], run="r").registered == ("linux-prod",)
    other = declared("UBUNTU", {"track": "critical", "filters": {"PRIORITY": ["Required"]}})
    kept = gateway.ensure_baseline(CELL, other, ["linux-prod"], run="r")
    assert kept.registered == ()
    assert [group for group, _ in kept.left] == ["linux-prod"]
    found = gateway.baselines_found(CELL, other, ["linux-prod"])
    assert found.used["linux-prod"].name == "linux-ubuntu"
    said = [one.sentence for one in baselines.drift(other, found)]
    assert said[0].startswith("hosts of patch group linux-prod are patched by baseline linux-ubuntu (pb-")
    assert "baseline linux-ubuntu has no rule for PRIORITY Required; wanted is: 0 days after release, level CRITICAL" in said


def test_an_override_is_what_get_patch_baseline_tells(gateway: Gateway) -> None:
    """AWS's page: in that shape, without what is the account's."""
    wanted = declared("WINDOWS", {"track": "critical", "filters": {"MSRC_SEVERITY": ["Critical"]}})
    made = gateway.ensure_baseline(CELL, wanted, [], run="r")
    told = gateway.client(CELL, "ssm").get_patch_baseline(BaselineId=made.id)
    (written,) = json.loads(baselines.override([wanted]))
    assert written == {key: told[key] for key in written}
