"""Where no kernel may be installed none is; where one may it comes, and is rebooted into, in the window: by the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from patchwave.campaign import remediation
from patchwave.campaign.baselines import Apply
from patchwave.campaign.compliance import HostCompliance, Judgement, Verdict
from patchwave.campaign.lockfile import LockedPatch, Lockfile, PlatformLock
from patchwave.campaign.rollout import Done
from patchwave.campaign.rollout import HostState as S
from patchwave.campaign.values import HostId
from patchwave.campaign.windows import Span
from patchwave.execution import kernels
from patchwave.operators.remediation import _left_out
from tests.domain.builders import CELL, NOW, RUN, a_campaign, a_plan, a_row, host_id
from tests.domain.test_severity import STANDARD
from tests.operators.stage import Stage
from tests.simulator.conftest import AMAZON, Aws

WORLD = f"name: kernels{AMAZON}" + """\
  app: {os: amazon-linux-2023, missing: {count: [2, 3], always: [openssh-server], never: [kernel]}}
fleets:
  - {name: old, account: "111111111111", region: eu-central-1, count: 3, template: amazon, tags: {PatchGroup: web}}
  - {name: new, account: "111111111111", region: eu-central-1, count: 3, template: app, tags: {PatchGroup: web}}
"""
CAMPAIGN = """
name: weekly-linux
description: One stage with a window, and one without
owner: platform
scope: {cells: [{account: "111111111111", regions: [eu-central-1]}]}
policy: standard
stages:
  - {name: dev, select: {patch_groups: [linux-dev]}}
  - name: staging
    select: {patch_groups: [linux-staging]}
    window: {cron: "0 22 * * *", timezone: UTC, duration: 4h}
    approval: {required: false}
remediate: {stages: [dev, staging]}
"""
WAITS = "its kernel update (kernel) waits for a maintenance window, and stage dev has none: give the stage a `window`"


@pytest.fixture
def aws(start: Callable[..., Aws]) -> Aws:
    return start(WORLD)


def classes(stage: Stage, fleet: str) -> set[S]:
    return {stage.states[HostId(host)] for host in stage.aws.hosts(fleet)}


def installed(aws: Aws, fleet: str) -> list[str]:
    """What was really installed on these hosts, by the world's own record."""
    hosts = set(aws.hosts(fleet))
    return [line["package"] for line in aws.journal() if line["event"] == "package_installed" and line["host"] in hosts]


def test_a_stage_that_must_install_no_kernel_leaves_out_whom_a_scan_shows_one_missing(aws: Aws) -> None:
    """An Install takes everything that the baseline approves, whether there is a finding about it or not; all others are
    patched and rebooted."""
    stage = Stage(aws, "old", "new")
    assert stage.to_the_end(stage.executor("try-1", kernel=STANDARD.kernel)) == Done(classes={S.EXCEPTED: 3, S.PATCHED: 3})
    assert (classes(stage, "old"), classes(stage, "new")) == ({S.EXCEPTED}, {S.PATCHED})
    assert installed(aws, "old") == []
    assert installed(aws, "new")
    assert not any(name.startswith("kernel") for name in installed(aws, "new"))
    reasons = {row.reason for row in stage.ledger.hosts(stage.rules.run, stage.rules.stage) if row.state is S.EXCEPTED}
    assert all(reason.startswith(WAITS) for reason in reasons)


def test_a_kernel_that_somebody_installed_before_is_not_rebooted_into(aws: Aws) -> None:
    """The Scan says InstalledPendingReboot, and the reboot behind our Install would activate it."""
    host = aws.hosts("old")[0]
    aws.patch(host, Parameters={"RebootOption": ["NoReboot"]})
    aws.advance(600)
    assert any(row["KBId"].startswith("kernel.") for row in aws.patches(host, "InstalledPendingReboot"))
    stage = Stage(aws, "old", "new")
    stage.to_the_end(stage.executor("try-1", kernel=STANDARD.kernel))
    assert stage.states[HostId(host)] is S.EXCEPTED
    assert stage.reboots()[HostId(host)] == 0


LATE = WORLD.replace("timings:", """catalogue: {appears: {ALAS2023-2024-794: 60}}
baselines:
  - name: at-once
    operating_system: AMAZON_LINUX_2023
    patch_groups: [web]
    rules: [{filters: {CLASSIFICATION: [Security, Bugfix]}}]
timings:""", 1)  # fmt: skip
"""A kernel comes out a minute after the world began: after a Scan at its beginning, and before the Install behind that."""


@pytest.mark.parametrize("window", [False, True])
def test_a_kernel_that_is_published_between_scan_and_install_is_rebooted_into_only_where_a_window_is(
    start: Callable[..., Aws], window: bool
) -> None:
    """AWS takes no list of what is not to be installed, so it comes; who has it then and may not reboot is told, not patched."""
    aws = start(LATE)
    stage = Stage(aws, "new")
    done = stage.to_the_end(stage.executor("try-1", kernel=None if window else STANDARD.kernel))
    assert installed(aws, "new").count("kernel") == 3
    assert set(stage.reboots().values()) == {1 if window else 0}
    assert done == Done(classes={S.PATCHED if window else S.PENDING_REBOOT: 3})
    if not window:
        (reason,) = {row.reason for row in stage.ledger.hosts(stage.rules.run, stage.rules.stage)}
        assert reason.startswith("a kernel (kernel) was published after its Scan and came with its Install")


def test_in_a_window_the_kernel_is_installed_and_rebooted_into_before_it_closes(aws: Aws) -> None:
    """Nothing of it begins before the window opens, and every reboot is over before it closes (rule 7)."""
    begins = datetime.fromtimestamp(aws.control("clock")["epoch"], UTC)
    window = Span(opens=begins + timedelta(hours=2), closes=begins + timedelta(hours=5))
    stage = Stage(aws, "old", "new", places=1, window=window)
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={S.PATCHED: 6})
    assert installed(aws, "old").count("kernel") == 3
    disrupting = [
        datetime.fromisoformat(line["at"]) for line in aws.journal()
        if line["event"] in ("reboot_begun", "reboot_ended", "boot", "rebooted")
        or (line["event"] == "command_begun" and line.get("operation") == "Install")
    ]  # fmt: skip
    assert len(disrupting) >= 12
    assert window.opens <= min(disrupting) < max(disrupting) < window.closes


def test_a_reboot_that_a_freeze_came_before_waits_for_the_next_opening(aws: Aws) -> None:
    """The Install was over; the window that was open then is shut, and the host is left as it is until another one opens."""
    stage = Stage(aws, "old", places=3)
    now = stage.now
    for _ in range(50):  # until the reboots are due
        rows = stage.ledger.hosts(stage.rules.run, stage.rules.stage)
        if all(row.state is S.INSTALLING for row in rows):
            break
        stage.executor("try-1").advance()
        aws.advance(30)
    aws.advance(300)
    shut = Span(opens=now + timedelta(hours=3), closes=now + timedelta(hours=7))
    stage.rules = replace(stage.rules, window=shut)
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 3})
    reboots = [datetime.fromisoformat(line["at"]) for line in aws.journal() if line["event"] == "reboot_begun"]
    assert len(reboots) == 3
    assert all(at in shut for at in reboots)


class Reader:
    """A gateway that tells a host's patches, and remembers of whom it was asked."""

    def __init__(self, *ids: str) -> None:
        self.ids, self.asked = ids, []

    def patches(self, cell: Any, host: HostId, *, states: tuple[str, ...]) -> Any:
        self.asked.append((host, states))
        return [type("Row", (), {"id": one})() for one in self.ids]


def a_lockfile(*ids: str) -> Lockfile:
    patches = tuple(LockedPatch(id=one, version="1", title=one, received=True) for one in ids)
    return Lockfile(platforms=(PlatformLock(platform="Ubuntu 24.04", hosts=("dev-1",), patches=patches),))


@pytest.mark.parametrize(
    ("lockfile", "asked"),
    [(None, kernels.COMING), (a_lockfile("linux-image-aws.amd64"), kernels.COMING), (a_lockfile("curl.amd64"), ())],
)
def test_a_lockfile_without_a_kernel_brings_none_whatever_the_baseline_approves(
    lockfile: Lockfile | None, asked: tuple[str, ...]
) -> None:
    """Only one that is installed already, and that the reboot would activate, is asked for then."""
    reader: Any = Reader("linux-image-aws.amd64", "linux-aws-headers-6.8.amd64", "curl.amd64")
    found = kernels.waiting(reader, STANDARD.kernel, CELL, HostId("i-1"), platform="Ubuntu 24.04", lockfile=lockfile)
    assert found == ("linux-image-aws",)
    assert reader.asked == [(HostId("i-1"), (*asked, *kernels.INSTALLED))]


def test_a_host_without_any_kernel_package_has_nothing_to_wait_for() -> None:
    """Headers and tools are no kernel, and a Windows update is none either."""
    reader: Any = Reader("kernel-headers.x86_64", "KB5034439", "curl.amd64")
    assert kernels.waiting(reader, STANDARD.kernel, CELL, HostId("i-1")) == ()


def test_what_a_stage_left_out_is_not_remedied_nor_is_a_host_brought_a_kernel_by_its_remedy() -> None:
    """A remedy installs what the baseline approves, and reboots; in a stage that has a window it may."""
    campaign = a_campaign(CAMPAIGN)
    plan = a_plan([], campaign=campaign, kernel_waits=True)
    ledger: Any = SimpleNamespace(hosts=lambda _: [a_row(1, S.EXCEPTED, reason="by hand"), a_row(2, S.FAILED)])
    reader: Any = Reader("kernel.x86_64")
    work: Any = SimpleNamespace(
        ledger=ledger, run_id=RUN, plan=plan, campaign=campaign, gateway=reader,
        policy=SimpleNamespace(kernel=STANDARD.kernel, snapshot=None, apply_baselines=Apply.NONE),
    )  # fmt: skip
    judged = Judgement(at=NOW, hosts=tuple(
        HostCompliance(host=host_id(number), cell=CELL, stage=stage, verdict=verdict, reason="r")
        for number, stage, verdict in (
            (1, "dev", Verdict.NOT_COMPLIANT), (2, "dev", Verdict.NOT_COMPLIANT), (3, "dev", Verdict.COMPLIANT),
            (4, "staging", Verdict.NOT_COMPLIANT),
        )
    ))  # fmt: skip
    found = _left_out(work, judged)
    assert (found[host_id(1)], set(found)) == ("by hand", {host_id(1), host_id(2)})
    assert found[host_id(2)].startswith(WAITS)
    assert [host for host, _ in reader.asked] == [host_id(2)]
    chosen = {one.host: one for one in remediation.choose(RUN, judged, allowed={"dev"}, untouched=(), left_out=found)}
    assert {one.action for one in chosen.values()} == {"none"}
    assert chosen[host_id(1)].reason == "it is left out of this run: by hand"
    work.plan = replace(plan, kernel_waits=False)
    assert set(_left_out(work, judged)) == {host_id(1)}
