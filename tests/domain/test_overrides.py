"""Installs by the policy's baselines: what the file says, and what a Scan by another baseline proves of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from patchwave.campaign import overrides, policy
from patchwave.campaign.baselines import Apply, Baseline
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.lockfile import PatchRow
from patchwave.campaign.overrides import Override
from patchwave.campaign.policy import KernelWindow, Policy
from patchwave.campaign.rollout import PatchState
from patchwave.campaign.values import HostId
from tests.domain.test_baselines import SECTION, STANDARD

NOW = datetime(2026, 1, 5, tzinfo=UTC)
TEXT = f"{STANDARD}{SECTION}apply_baselines: override\n"
AMAZON = "Amazon Linux 2023"


def the_policy(*, kernels_wait: bool = False) -> Policy:
    made = policy.parse(TEXT, file="standard.yaml")
    window = KernelWindow.REQUIRED if kernels_wait else KernelWindow.NOT_REQUIRED
    return made.model_copy(update={"kernel": made.kernel.model_copy(update={"window": window})})


def the_override(*, kernels_wait: bool = False, window: bool = True) -> Override:
    made = overrides.of(the_policy(kernels_wait=kernels_wait), window=window)
    assert made is not None
    return made


@pytest.fixture
def amazon() -> Baseline:
    found = the_override().on(AMAZON)
    assert found is not None
    return found


def a_row(name: str = "expat.x86_64", classification: str = "Security", severity: str = "Critical") -> PatchRow:
    return PatchRow(
        id=name, title=f"{name}:0:1-1", state="missing", classification=classification, severity=severity, installed_at=None,
        vulnerabilities=(),
    )  # fmt: skip


def a_state(**facts: int) -> PatchState:
    counts = {"installed": 9, "missing": 0, "failed": 0, "pending_reboot": 0, "rejected": 0, **facts}
    return PatchState(host=HostId("i-1"), operation="Scan", ended=NOW, snapshot="", **counts)  # type: ignore[arg-type]


def test_only_a_policy_that_says_so_has_an_override():
    """All other ways of applying baselines change the accounts, or nothing."""
    for apply in Apply:
        made = overrides.of(the_policy().model_copy(update={"apply_baselines": apply}), window=True)
        assert (made is not None) == (apply is Apply.OVERRIDE)
        assert apply.changes == (apply in (Apply.CREATE_AND_UPDATE, Apply.TAKE_OVER_GROUPS))


def test_hosts_of_other_systems_and_of_locked_platforms_are_left_to_what_they_have():
    """AWS takes one baseline of each operating system, and none beside a list."""
    made = the_override()
    assert made.on(AMAZON) is not None
    assert made.on("Red Hat Enterprise Linux 9.4") is None
    assert made.on("Haiku") is None
    assert replace(made, locked=frozenset({AMAZON})).on(AMAZON) is None


def test_the_digest_names_the_file_that_hosts_read():
    """What a person approves is what is laid down."""
    made = the_override()
    assert [one["OperatingSystem"] for one in json.loads(made.text)] == ["AMAZON_LINUX_2023", "UBUNTU"]
    assert made.digest[:12] in made.sentence
    assert the_override(kernels_wait=True, window=False).digest != made.digest


def test_where_kernels_wait_for_a_window_a_stage_without_one_rejects_them_also_as_dependencies():
    """One that is published between Scan and Install must not be installed there."""
    waiting = the_policy(kernels_wait=True)
    patterns = {pattern for its in waiting.kernel.packages.values() for pattern in its}
    rejected = the_override(kernels_wait=True, window=False).on(AMAZON)
    assert rejected is not None
    assert patterns | {"docker*"} == set(rejected.rejected)
    assert rejected.rejected_action == "BLOCK"
    for made in (the_override(kernels_wait=True, window=True), the_override(window=False)):
        its = made.on(AMAZON)
        assert its is not None
        assert its.rejected == ("docker*",)


def test_more_rejected_patches_than_aws_takes_are_refused_with_the_file():
    """botocore model of ssm: PatchIdList, 50; the kernel's patterns count where they are added."""
    many = ", ".join(f"package-{number}" for number in range(50))
    assert "  window: required" in TEXT
    with pytest.raises(InvalidFile) as error:
        policy.parse(TEXT.replace('["docker*"]', f"[{many}]"), file="standard.yaml")
    (problem,) = [one for one in error.value.problems if "apply_baselines" in one]
    assert "standard.yaml" in problem
    assert "allowed are 50" in problem


def test_override_without_baselines_is_refused():
    """There is nothing that Installs could go by."""
    with pytest.raises(InvalidFile) as error:
        policy.parse(f"{STANDARD}apply_baselines: override\n", file="standard.yaml")
    assert "no section `baselines`" in "\n".join(error.value.problems)


@pytest.mark.parametrize(
    ("row", "sure"),
    [
        (a_row(), True),
        (a_row(severity="Important"), True),
        (a_row(severity="Low"), False),  # no rule
        (a_row(classification="Bugfix"), False),  # after a week, and when it was released no row tells
        (a_row(classification=""), False),  # no advisory
        (a_row("docker-engine.x86_64"), False),  # rejected
    ],
)
def test_a_row_is_approved_for_sure_only_where_a_rule_without_a_wait_says_so(amazon: Baseline, row: PatchRow, sure: bool):
    """A wrong yes would call a good host failed; a wrong no is told by the Install's own exit code."""
    assert overrides.is_sure_to_approve(amazon, row) is sure


def test_filters_that_no_row_tells_are_not_sure():
    """A report names neither product nor section nor priority."""
    ubuntu = the_override().on("Ubuntu 22.04")
    assert ubuntu is not None
    assert not overrides.is_sure_to_approve(ubuntu, a_row("libssl3.amd64", classification="libs", severity="Required"))


def test_what_is_approved_by_name_is_sure_where_its_kind_is_approved(amazon: Baseline):
    """API reference, ApprovedPatchesEnableNonSecurity: without it a named package's other updates are not installed."""
    named = replace(amazon, approved=("vim*", "docker*"))
    row = a_row("vim-minimal.x86_64", severity="Low")
    assert not overrides.is_sure_to_approve(amazon, row)
    assert overrides.is_sure_to_approve(named, row)
    assert not overrides.is_sure_to_approve(named, replace(row, classification="Bugfix"))
    assert overrides.is_sure_to_approve(replace(named, approved_non_security=True), replace(row, classification="Bugfix"))
    assert not overrides.is_sure_to_approve(named, a_row("docker-engine.x86_64"))


def test_what_came_with_an_install_waits_for_a_reboot_on_linux(amazon: Baseline):
    """Whether the report knows of it or not; on Windows only the report tells which updates need one."""
    assert overrides.judged(amazon, a_state(), [], unproven="", received=3).pending_reboot == 3
    assert overrides.judged(amazon, a_state(pending_reboot=4), [], unproven="", received=3).pending_reboot == 4
    assert overrides.judged(amazon, a_state(), [], unproven="", received=0).compliant
    windows = replace(amazon, operating_system="WINDOWS")
    assert overrides.judged(windows, a_state(), [], unproven="", received=3).compliant


def test_what_the_account_misses_and_the_policy_approves_at_once_is_missing(amazon: Baseline):
    """Whatever the Install said."""
    rows = [a_row(), a_row("vim.x86_64", severity="Low")]
    state = overrides.judged(amazon, a_state(missing=2), rows, unproven="")
    assert (state.missing, state.compliant) == (1, False)
    assert "expat.x86_64; 1 are missing by the account's baseline only" in state.wrong


def test_what_only_the_account_misses_or_rejects_is_no_fault(amazon: Baseline):
    """Another baseline holds; a reboot that is waited for is one by any."""
    lacking = [a_row("vim.x86_64", severity="Low")]
    assert overrides.judged(amazon, a_state(missing=1, rejected=2), lacking, unproven="").compliant
    assert not overrides.judged(amazon, a_state(pending_reboot=1), [], unproven="").compliant


def test_an_install_that_is_not_known_to_have_succeeded_leaves_nobody_compliant(amazon: Baseline):
    """The account's baseline may have nothing to say."""
    state = overrides.judged(amazon, a_state(), [], unproven="its Install did not succeed (Failed, exit code 1)")
    assert not state.compliant
    assert state.wrong == "its Install did not succeed (Failed, exit code 1)"
