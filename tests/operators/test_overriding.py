"""A stage installs by the policy's baselines while the accounts' stay as they are: by the world's own record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from patchwave.campaign import overrides, policy
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.policy import Policy
from patchwave.campaign.rollout import Done, HostState, PatchState, StepKind
from patchwave.campaign.rollout import HostState as S
from patchwave.campaign.values import HostId
from patchwave.execution.overriding import Overriding
from tests.domain.builders import CELL
from tests.domain.test_baselines import STANDARD
from tests.operators.stage import RUN, STAGE, Stage
from tests.simulator.conftest import Aws

BUCKET = "acme-lists"
WORLD = """
name: overriding
accounts: [{id: "111111111111"}]
regions: [eu-central-1]
timings: {delivery: [1, 1], scan: [20, 20], install: [100, 100], reboot: [90, 90], status_check: [30, 30]}
baselines:
  - {name: nothing, operating_system: AMAZON_LINUX_2023, patch_groups: [few], rules: []}
  - name: everything
    operating_system: AMAZON_LINUX_2023
    patch_groups: [all]
    rules: [{filters: {CLASSIFICATION: [Security, Bugfix]}}]
templates:
  amazon: {os: amazon-linux-2023, missing: {count: [5, 6], always: [kernel, expat, openssl]}}
  app: {os: amazon-linux-2023, missing: {count: [4, 5], always: [expat], never: [kernel]}}
  small: {os: amazon-linux-2023, missing: {count: [1, 1], always: [vim-minimal]}}
fleets:
  - {name: few, account: "111111111111", region: eu-central-1, count: 2, template: amazon, tags: {PatchGroup: few}}
  - {name: all, account: "111111111111", region: eu-central-1, count: 2, template: amazon, tags: {PatchGroup: all}}
  - {name: app, account: "111111111111", region: eu-central-1, count: 2, template: app, tags: {PatchGroup: few}}
  - {name: small, account: "111111111111", region: eu-central-1, count: 2, template: small, tags: {PatchGroup: few}}
  - name: bad
    account: "111111111111"
    region: eu-central-1
    count: 2
    template: app
    tags: {PatchGroup: few}
    exceptions: [{host: 1, install_fails: {exit_code: 1}}]
"""
URGENT = """baselines:
  - operating_system: AMAZON_LINUX_2023
    rules:
      - {track: critical, filters: {CLASSIFICATION: [Security], SEVERITY: [Critical, Important]}}
apply_baselines: override
"""


def the_policy(section: str = URGENT) -> Policy:
    return policy.parse(STANDARD + section, file="standard.yaml")


class Overridden(Stage):
    """A stage of the policy's baselines."""

    def __init__(self, aws: Aws, *fleets: str, window: bool = True) -> None:
        super().__init__(aws, *fleets)
        aws.client("s3", "us-east-1").create_bucket(Bucket=BUCKET)
        rules = the_policy()
        if not window:
            rules = rules.model_copy(update={"kernel": rules.kernel.model_copy(update={"window": policy.KernelWindow.REQUIRED})})
        made = overrides.of(rules, window=window)
        assert made is not None
        self.override, self.policy = made, rules
        self.rules = replace(self.rules, override=made)
        self.overriding = Overriding(gateway=self.gateway, override=made, bucket=lambda _: BUCKET)

    def patch(self, **options: Any) -> Done:
        done = self.to_the_end(self.executor("try-1", overriding=self.overriding, **options))
        assert isinstance(done, Done), done
        return done

    def reasons(self, state: HostState) -> set[str]:
        return {row.reason for row in self.ledger.hosts(RUN, STAGE) if row.state is state}

    def installed(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {host: set() for host in self.hosts}
        for line in self.aws.journal():
            if line["event"] == "package_installed" and line["host"] in found:
                found[line["host"]].add(line["package"])
        return found


@pytest.fixture
def aws(start: Callable[..., Aws]) -> Aws:
    return start(WORLD)


def in_account(aws: Aws) -> list[Any]:
    """The account's baselines and who uses them, as AWS says it."""
    rows = aws.ssm.describe_patch_baselines(Filters=[{"Key": "OWNER", "Values": ["Self"]}])["BaselineIdentities"]
    whole = [aws.ssm.get_patch_baseline(BaselineId=row["BaselineId"]) for row in rows]
    return [[{**one, "ResponseMetadata": None} for one in whole], aws.ssm.describe_patch_groups()["Mappings"]]


def urgent(aws: Aws, host: str) -> set[str]:
    """What a host lacks of the policy's rule, by the report of a host whose account's baseline approves everything."""
    rows = aws.patches(host, "Missing")
    return {
        row["KBId"].rpartition(".")[0]
        for row in rows
        if row["Classification"] == "Security" and row["Severity"] in ("Critical", "Important")
    }


def test_hosts_get_what_the_policy_approves_though_their_account_approves_nothing(aws: Aws) -> None:
    """A Scan by the account's baseline finds nothing to do, and is not believed; the account's baselines stay as they are."""
    before = in_account(aws)
    stage = Overridden(aws, "few")
    assert stage.patch().classes == {S.PATCHED: 2}
    assert all({"kernel", "expat"} <= packages for packages in stage.installed().values())
    assert in_account(aws) == before
    (reason,) = stage.reasons(S.PATCHED)
    assert reason.startswith("its Install by the policy's baseline succeeded")


def test_what_only_the_account_approves_is_not_installed_and_is_no_fault_of_the_host(aws: Aws) -> None:
    """It is named as what it is: missing by a baseline that does not hold here."""
    stage = Overridden(aws, "all")
    aws.patch(*stage.hosts, operation="Scan")
    aws.advance(60)
    wanted = {host: urgent(aws, host) for host in stage.hosts}
    assert all(len(aws.patches(host, "Missing")) > len(wanted[host]) for host in stage.hosts)
    assert stage.patch().classes == {S.PATCHED: 2}
    assert stage.installed() == wanted
    assert all("missing by the account's baseline only" in reason for reason in stage.reasons(S.PATCHED))


def test_a_kernel_of_the_policy_is_rebooted_into_before_a_host_counts_as_patched(aws: Aws) -> None:
    """No report of the Install says that it waits for a reboot; the Scan after does."""
    stage = Overridden(aws, "few", "app")
    assert stage.patch().classes == {S.PATCHED: 4}
    for host, packages in stage.installed().items():
        events = aws.events(host)
        assert events.count("reboot_begun") == (1 if packages else 0)
        assert events.index("reboot_begun") > max(at for at, event in enumerate(events) if event == "package_installed")


def test_a_host_whose_install_fails_is_failed_though_its_account_misses_nothing(aws: Aws) -> None:
    """The account's baseline calls it compliant before and after: only AWS's word on the Install tells the truth."""
    stage = Overridden(aws, "bad")
    assert stage.patch().classes == {S.FAILED: 1, S.PATCHED: 1}
    assert stage.states[HostId(aws.hosts("bad")[0])] is S.FAILED
    (reason,) = stage.reasons(S.FAILED)
    assert "its Install did not succeed (Failed, exit code 1), and AWS keeps no report" in reason
    assert aws.patch_state(aws.hosts("bad")[0])["MissingCount"] == 0


def test_a_stage_without_a_window_installs_no_kernel_that_only_the_policy_approves(aws: Aws) -> None:
    """The Scan by the account's baseline does not show it, so it is rejected where the Install goes by the policy's."""
    stage = Overridden(aws, "few", window=False)
    assert stage.patch(kernel=stage.policy.kernel).classes == {S.PATCHED: 2}
    for packages in stage.installed().values():
        assert "expat" in packages
        assert not any(stage.policy.kernel.includes(package) for package in packages)


def test_an_install_that_was_stopped_half_way_is_made_again(aws: Aws) -> None:
    """Nothing is missing by the account's baseline, and nobody knows how far the Install had come."""
    stage = Overridden(aws, "app")
    executor = stage.executor("try-1", overriding=stage.overriding)
    stage.until_step(executor, StepKind.INSTALL)
    aws.advance(10)
    stopper = stage.executor("try-2", overriding=stage.overriding)
    stopper.stop(looks=3, pause=lambda: aws.advance(30))
    aws.advance(600)
    done = stage.to_the_end(stage.executor("try-3", overriding=stage.overriding))
    assert isinstance(done, Done)
    assert done.classes == {S.PATCHED: 2}
    assert set(stage.begun("Install").values()) == {2}
    assert all("expat" in packages for packages in stage.installed().values())


def test_a_host_that_had_everything_before_is_compliant_already_and_is_not_rebooted(aws: Aws) -> None:
    """Its Install had nothing to do: to call it patched would be a change that nobody made."""
    stage = Overridden(aws, "small", "app")
    assert stage.patch().classes == {S.ALREADY_COMPLIANT: 2, S.PATCHED: 2}
    assert {stage.states[HostId(host)] for host in aws.hosts("small")} == {S.ALREADY_COMPLIANT}
    assert all(stage.installed()[HostId(host)] == set() for host in aws.hosts("small"))
    assert {stage.reboots()[HostId(host)] for host in aws.hosts("small")} == {0}
    assert all(stage.begun("Install")[HostId(host)] == 1 for host in aws.hosts("small"))


class Forgetful:
    """A gateway to an AWS that does not say of packages which came with another baseline that they wait for a reboot."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage.gateway, name)

    def patch_states(self, cell: Any, ids: Any) -> dict[HostId, PatchState]:
        return {host: replace(one, pending_reboot=0) for host, one in self._stage.gateway.patch_states(cell, ids).items()}


def test_what_came_with_the_install_is_rebooted_into_though_no_report_says_that_it_waits(aws: Aws) -> None:
    """The moments that the host's package manager gives say that something came; AWS promises no report of such an Install."""
    stage = Overridden(aws, "app")
    forgetful: Any = Forgetful(stage)
    overriding = replace(stage.overriding, gateway=forgetful)
    done = stage.to_the_end(stage.executor("try-1", gateway=forgetful, overriding=overriding))
    assert done == Done(classes={S.PATCHED: 2})
    assert set(stage.reboots().values()) == {1}


def test_hosts_of_a_lockfiles_platform_are_left_to_the_lockfile(aws: Aws) -> None:
    """AWS takes no override beside a list."""
    stage = Overridden(aws, "few")
    locked = replace(stage.override, locked=frozenset({"Amazon Linux 2023"}))
    overriding = replace(stage.overriding, override=locked)
    assert overriding.address(CELL, "Amazon Linux 2023") == ""
    assert overriding.address(CELL, "Ubuntu 22.04") == ""


def test_without_a_bucket_nothing_is_sent(aws: Aws) -> None:
    """Hosts could not read it, and an Install without it would go by the account's baseline."""
    stage = Overridden(aws, "app")
    nowhere = replace(stage.overriding, bucket=lambda _: "")
    with pytest.raises(InvalidRequest, match="patchwave_lists_bucket"):
        stage.to_the_end(stage.executor("try-1", overriding=nowhere))
    assert set(stage.begun("Install").values()) == {0}
