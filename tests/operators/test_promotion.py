"""What Dev received goes to the next stage and nothing else does, against a simulated AWS whose repositories move on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import TaskDeferred

from patchwave.campaign import lockfile as lockfiles
from patchwave.campaign.errors import InvalidFile, InvalidRequest
from patchwave.campaign.fleet import Host
from patchwave.campaign.lockfile import Lockfile, NotLocked
from patchwave.campaign.remediation import Remedy
from patchwave.campaign.rollout import Done, Halt, HostRow, HostState, PatchState, StepKind
from patchwave.campaign.values import Cell, HostId, StageName
from patchwave.execution import promotion, remedies
from patchwave.execution.promotion import Promotion, Witness
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import RunOutcome, StageState
from patchwave.operators.remediation import RemediateOperator, _row
from tests.domain.builders import CAMPAIGN as BUILT
from tests.domain.builders import CELL, a_campaign, a_host
from tests.operators.stage import RUN, STAGE, Stage
from tests.operators.work import Desk
from tests.simulator.conftest import Aws

AMAZON = "Amazon Linux 2023"
BUCKET = "acme-lists"
EXPAT = "expat.x86_64:0:2.6.3-1.amzn2023.0.1"
KERNEL, NEWER = "kernel.x86_64:0:6.1.115-126.197.amzn2023", "kernel.x86_64:0:6.1.119-129.201.amzn2023"
WORLD = """
name: promotion
accounts: [{id: "111111111111"}]
regions: [eu-central-1]
timings: {delivery: [1, 1], scan: [20, 20], install: [100, 100], reboot: [90, 90], status_check: [30, 30]}
inspector: {inventory_every: 600}
catalogue: {appears: {ALAS2023-2024-794: 6000}}
baselines:
  - name: all
    operating_system: AMAZON_LINUX_2023
    patch_groups: [dev, prod]
    rules: [{filters: {CLASSIFICATION: [Security, Bugfix]}}]
templates:
  amazon: {os: amazon-linux-2023, missing: {count: [4, 6], always: [kernel, expat]}}
fleets:
  - {name: dev, account: "111111111111", region: eu-central-1, count: 2, template: amazon, tags: {PatchGroup: dev}}
  - {name: prod, account: "111111111111", region: eu-central-1, count: 2, template: amazon, tags: {PatchGroup: prod}}
"""


class Wired:
    """A gateway that does what the executor asks of a promotion, so that any executor promotes."""

    def __init__(self, stage: Stage, promoted: Promotion) -> None:
        self._stage, self._promoted = stage, promoted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage.gateway, name)

    def send(self, cell: Cell, *, parameters: Any, **rest: Any) -> Any:
        if parameters.get("Operation") == ("Install",):
            parameters = {**parameters, "InstallOverrideList": (self._promoted.address(cell, AMAZON),)}
        return self._stage.gateway.send(cell, parameters=parameters, **rest)

    def patch_states(self, cell: Cell, ids: Iterable[HostId]) -> dict[HostId, PatchState]:
        dispatches = {row.token: row for row in self._stage.ledger.dispatches(RUN, STAGE)}
        states = self._stage.gateway.patch_states(cell, ids)
        return self._promoted.judged(states, self._stage.ledger.hosts(RUN, STAGE), dispatches)


class Campaign:
    """Dev is patched as ever; then Prod by its lockfile. Each is a stage with a ledger of its own."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.dev, self.prod = Stage(aws, "dev"), Stage(aws, "prod")
        aws.client("s3", "us-east-1").create_bucket(Bucket=BUCKET)

    def patch_dev(self) -> Lockfile:
        assert isinstance(self.dev.to_the_end(self.dev.executor("dev")), Done)
        self.aws.advance(700)  # the inventory of after the Install
        return promotion.lock(self.dev.ledger, self.dev.gateway, run=RUN, stage=STAGE, now=self.dev.now)

    def promotion(self, lockfile: Lockfile, **options: Any) -> Promotion:
        lease = self.prod.lease("prod")
        self.prod.ledger.set_stage(lease, StageState.PATCHING, reason="", at=self.prod.now)
        return Promotion(
            ledger=self.prod.ledger, gateway=self.prod.gateway, lease=lease, lockfile=lockfile, now=lambda: self.prod.now,
            **{"bucket": lambda _: BUCKET, **options},
        )  # fmt: skip

    def patch_prod(self, lockfile: Lockfile) -> Halt | None:
        """Prod is carried out to its end; what the comparison after it says."""
        executor = self.prod.executor("prod", gateway=Wired(self.prod, self.promotion(lockfile)))
        decision = self.prod.to_the_end(executor)
        assert isinstance(decision, Done), decision
        return self.compared(lockfile)

    def compared(self, lockfile: Lockfile) -> Halt | None:
        promoted = replace(self.promotion(lockfile), lease=self.prod.lease("prod"))
        return promoted.halt(self.prod.ledger.hosts(RUN, STAGE))

    def installed(self) -> dict[str, set[str]]:
        """Of each host of Prod: titles that a command installed, by the world's own record."""
        found: dict[str, set[str]] = {host: set() for host in self.prod.hosts}
        for line in self.aws.journal():
            if line["event"] == "package_installed" and line["host"] in found:
                found[line["host"]].add(f"{line['package']}:{line['version']}")
        return found


@pytest.fixture
def campaign(start: Callable[..., Aws]) -> Campaign:
    return Campaign(start(WORLD))


def without(lockfile: Lockfile, *packages: str) -> Lockfile:
    (platform,) = lockfile.platforms
    kept = tuple(one for one in platform.patches if one.id not in packages)
    return replace(lockfile, platforms=(replace(platform, patches=kept),))


def edited(lockfile: Lockfile, package: str, title: str) -> Lockfile:
    """As if Dev had received that version of the package."""
    (platform,) = lockfile.platforms
    version = title.partition(":")[2]
    patches = tuple(
        replace(one, version=version, title=title) if one.id == package else one for one in platform.patches
    )  # fmt: skip
    return replace(lockfile, platforms=(replace(platform, patches=patches),))


def test_the_lockfile_has_every_patch_of_dev_with_its_version_and_what_belongs_to_it(campaign: Campaign) -> None:
    """By Patch Manager's titles and the inventory; the world's journal says the same."""
    lockfile = campaign.patch_dev()
    (platform,) = lockfile.platforms
    assert (platform.platform, platform.conflicts) == (AMAZON, ())
    assert platform.hosts == tuple(sorted(campaign.dev.hosts))
    by_id = {one.id: one for one in platform.patches}
    assert (by_id["kernel.x86_64"].title, by_id["kernel.x86_64"].received, by_id["kernel.x86_64"].source) == (
        KERNEL,
        True,
        "kernel",
    )
    assert by_id["expat.x86_64"].title == EXPAT
    assert platform.release is not None
    assert platform.release.startswith("2023.6.")
    brought = {(line["package"], line["version"]) for line in campaign.aws.journal() if line["event"] == "package_installed"}
    assert brought <= {(one.id.rpartition(".")[0], one.version) for one in platform.patches}


def test_what_dev_lacked_names_the_vulnerabilities_of_what_it_received(campaign: Campaign) -> None:
    """Patch Manager tells them only while a patch is missing: one call a host, at the Scan before."""
    stage = campaign.dev
    executor = stage.executor("dev")
    witness = Witness(ledger=stage.ledger, gateway=stage.gateway, lease=executor.lease, now=lambda: stage.now)
    stage.until_step(executor, StepKind.SCAN)
    campaign.aws.advance(60)
    rows, dispatches = stage.ledger.hosts(RUN, STAGE), {row.token: row for row in stage.ledger.dispatches(RUN, STAGE)}
    states = stage.gateway.patch_states(CELL, stage.hosts)
    stage.gateway.take_calls()
    assert witness.judged(states, rows, dispatches) == states
    assert dict(stage.gateway.take_calls()) == {"ssm:DescribeInstancePatches": 2}
    assert isinstance(stage.to_the_end(executor), Done)
    campaign.aws.advance(700)
    made = promotion.lock(stage.ledger, stage.gateway, run=RUN, stage=STAGE, now=stage.now)
    by_id = {one.id: one for one in made.platforms[0].patches}
    assert by_id["expat.x86_64"].vulnerabilities == ("CVE-2024-45490", "CVE-2024-45491", "CVE-2024-45492")
    assert (witness.excepted(rows), witness.address(CELL, AMAZON), witness.halt(rows)) == ((), "", None)


def test_a_run_has_one_lockfile_and_its_journal_says_when_it_was_made(campaign: Campaign) -> None:
    """A cleared task must not lock what has changed since."""
    first = campaign.patch_dev()
    campaign.aws.control("faults", {"kind": "update_withdrawn", "advisory": "ALAS2023-2024-729"})
    again = promotion.lock(campaign.dev.ledger, campaign.dev.gateway, run=RUN, stage=STAGE, now=campaign.dev.now)
    assert again == first
    notes = [one.data for one in campaign.dev.ledger.journal(RUN) if one.kind == "lockfile.made"]
    assert [note["digest"] for note in notes] == [first.digest]
    assert (notes[0]["conflicts"], notes[0]["unread"]) == ([], [])


def test_prod_gets_exactly_what_dev_had_and_is_done(campaign: Campaign) -> None:
    """Each of its hosts installs what it lacks of the list, and the reports name the list."""
    lockfile = campaign.patch_dev()
    assert campaign.patch_prod(lockfile) is None
    assert set(campaign.prod.states.values()) == {HostState.PATCHED}
    locked = {f"{one.id.rpartition('.')[0]}:{one.version}" for one in lockfile.platforms[0].patches}
    for titles in campaign.installed().values():
        assert titles
        assert titles <= locked


def test_what_came_out_between_dev_and_prod_stays_out(campaign: Campaign) -> None:
    """The baseline calls it missing on every host of Prod, which are patched all the same: Dev has not tried it."""
    lockfile = campaign.patch_dev()
    campaign.aws.advance(6000)
    assert campaign.patch_prod(lockfile) is None
    assert set(campaign.prod.states.values()) == {HostState.PATCHED}
    assert campaign.aws.patch_state(campaign.prod.hosts[0])["MissingCount"] > 0
    assert all("kernel:0:6.1.119-129.201.amzn2023" not in titles for titles in campaign.installed().values())


def test_prod_gets_it_though_its_own_baseline_approves_less(start: Callable[..., Aws]) -> None:
    """Such hosts are compliant by Patch Manager before and after; the inventory knows what they have."""
    rule = "{filters: {CLASSIFICATION: [Newpackage]}}"
    less = f"  - {{name: less, operating_system: AMAZON_LINUX_2023, patch_groups: [prod], rules: [{rule}]}}\n"
    world = WORLD.replace("patch_groups: [dev, prod]", "patch_groups: [dev]").replace("templates:\n", f"{less}templates:\n", 1)
    campaign = Campaign(start(world))
    lockfile = campaign.patch_dev()
    assert campaign.aws.patch_state(campaign.prod.hosts[0])["MissingCount"] == 0
    assert campaign.patch_prod(lockfile) is None
    assert set(campaign.prod.states.values()) == {HostState.PATCHED}
    assert all(
        {"kernel:0:6.1.115-126.197.amzn2023", "expat:0:2.6.3-1.amzn2023.0.1"} <= one for one in campaign.installed().values()
    )


def test_an_update_that_was_withdrawn_fails_the_hosts_by_name(campaign: Campaign) -> None:
    """AWS says success, the baseline says compliant; the lockfile says what is not there."""
    lockfile = campaign.patch_dev()
    campaign.aws.control("faults", {"kind": "update_withdrawn", "advisory": "ALAS2023-2024-729"})
    executor = campaign.prod.executor("prod", gateway=Wired(campaign.prod, campaign.promotion(lockfile)))
    campaign.prod.to_the_end(executor)
    assert set(campaign.prod.states.values()) == {HostState.FAILED}
    assert all(campaign.aws.patch_state(host)["MissingCount"] == 0 for host in campaign.prod.hosts)
    rows = campaign.prod.ledger.hosts(RUN, STAGE)
    halt = campaign.compared(lockfile)
    assert halt is not None
    assert set(halt.hosts) == set(campaign.prod.hosts)
    for row in rows:
        assert f"{row.name}: expat.x86_64 is 0:2.5.0" in halt.reason
    assert "the lockfile says 0:2.6.3-1.amzn2023.0.1; it was not installed: it failed, was withdrawn" in halt.reason


def test_a_newer_version_than_dev_had_halts_the_stage_and_names_host_and_package(campaign: Campaign) -> None:
    """Somebody patched a host of Prod by hand while Dev was soaking."""
    lockfile = campaign.patch_dev()
    campaign.aws.advance(6000)
    hasty = campaign.prod.hosts[0]
    campaign.aws.patch(hasty)
    campaign.aws.advance(1300)
    halt = campaign.patch_prod(lockfile)
    assert halt is not None
    assert (halt.rule, halt.hosts) == ("lockfile", (hasty,))
    said = f"{hasty}: kernel.x86_64 is 0:6.1.119-129.201.amzn2023, the lockfile says 0:6.1.115-126.197.amzn2023"
    assert said in halt.reason
    assert campaign.prod.ledger.document(RUN, f"compared:{STAGE}")["hosts"][campaign.prod.hosts[1]] == []


def test_a_later_try_reads_only_those_who_drifted(campaign: Campaign) -> None:
    """A person mended them, and clears the task; the others were as locked."""
    lockfile = campaign.patch_dev()
    campaign.aws.advance(6000)
    hasty = campaign.prod.hosts[0]
    campaign.aws.patch(hasty)
    campaign.aws.advance(1300)
    assert campaign.patch_prod(lockfile) is not None
    campaign.prod.gateway.take_calls()
    assert campaign.compared(lockfile) is not None
    assert campaign.prod.gateway.calls["ssm:DescribeInstancePatches"] == 1


def test_what_was_installed_beside_the_lockfile_in_this_stage_is_drift(campaign: Campaign) -> None:
    """The list was not the only thing that somebody sent."""
    lockfile = without(campaign.patch_dev(), "expat.x86_64")
    promoted = campaign.promotion(lockfile)
    executor = campaign.prod.executor("prod", gateway=Wired(campaign.prod, promoted))
    campaign.prod.until_step(executor, StepKind.INSTALL)
    campaign.aws.advance(150)
    campaign.aws.patch(campaign.prod.hosts[1], Parameters={"RebootOption": ["NoReboot"]})
    campaign.aws.advance(300)
    assert isinstance(campaign.prod.to_the_end(executor), Done)
    halt = campaign.compared(lockfile)
    assert halt is not None
    assert halt.hosts == (campaign.prod.hosts[1],)
    assert "expat.x86_64 was installed in this stage (0:2.6.3-1.amzn2023.0.1) and is not in the lockfile" in halt.reason


def test_a_host_is_not_judged_before_its_inventory_is_younger_than_the_install(campaign: Campaign) -> None:
    """A newer version hides what is installed; until the inventory tells, the host is neither patched nor failed."""
    lockfile = campaign.patch_dev()
    campaign.aws.advance(6000)
    promoted = campaign.promotion(lockfile)
    executor = campaign.prod.executor("prod", gateway=Wired(campaign.prod, promoted))
    campaign.prod.until_step(executor, StepKind.VERIFY)
    campaign.aws.advance(30)
    verified = {row.token: row for row in campaign.prod.ledger.dispatches(RUN, STAGE)}
    rows = [row for row in campaign.prod.ledger.hosts(RUN, STAGE) if verified[row.token or ""].step is StepKind.VERIFY]
    states = campaign.prod.gateway.patch_states(CELL, [row.host for row in rows])
    assert states
    early = promoted.judged(states, rows, verified)
    campaign.aws.advance(700)
    late = promoted.judged(states, rows, verified)
    assert len(early) < len(rows)  # one host may have told a moment ago
    assert [one.compliant for one in late.values()] == [True] * len(rows)


def test_an_emergency_brings_its_packages_and_nothing_else(campaign: Campaign) -> None:
    """Cut from the lockfile that Dev made; the rest waits for the campaign."""
    whole = campaign.patch_dev()
    (platform,) = whole.platforms
    told = tuple(
        replace(one, vulnerabilities=("CVE-2024-45490",)) if one.id == "expat.x86_64" else one for one in platform.patches
    )  # fmt: skip
    cut = lockfiles.emergency(replace(whole, platforms=(replace(platform, patches=told),)), ["CVE-2024-45490"])
    assert cut.unmended == ()
    assert campaign.patch_prod(cut.lockfile) is None
    assert set(map(frozenset, campaign.installed().values())) == {frozenset({"expat:0:2.6.3-1.amzn2023.0.1"})}


def test_the_list_lies_in_the_bucket_under_its_digest(campaign: Campaign) -> None:
    """It names what the lockfile names."""
    lockfile = campaign.patch_dev()
    address = campaign.promotion(lockfile).address(CELL, AMAZON)
    key = address.removeprefix(f"s3://{BUCKET}/")
    body = campaign.aws.client("s3", "us-east-1").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert [one["id"] for one in yaml.safe_load(body)["patches"]] == [one.id for one in lockfile.platforms[0].patches]


def test_without_a_bucket_and_without_a_lock_nothing_is_sent(campaign: Campaign) -> None:
    """An Install without a list would be what the baseline approves."""
    lockfile = campaign.patch_dev()
    with pytest.raises(InvalidRequest, match="names no bucket for lists of patches in eu-central-1"):
        campaign.promotion(lockfile, bucket=lambda _: "").address(CELL, AMAZON)
    with pytest.raises(NotLocked, match="Dev had no host of Ubuntu"):
        campaign.promotion(lockfile).address(CELL, "Ubuntu 24.04")
    assert campaign.promotion(lockfile, allowed=True).address(CELL, "Ubuntu 24.04") == ""


def test_hosts_of_a_platform_that_dev_did_not_have_are_excepted(campaign: Campaign) -> None:
    """By the sentence that says why; none if the policy allows them."""
    lockfile = campaign.patch_dev()
    rows = [replace(row, platform="Ubuntu 24.04") for row in campaign.prod.ledger.hosts(RUN, STAGE)[:1]]
    (move,) = campaign.promotion(lockfile).excepted(rows)
    assert (move.before, move.after) == (HostState.PLANNED, HostState.EXCEPTED)
    assert move.reason.startswith("Dev had no host of Ubuntu 24.04 (it had Amazon Linux 2023)")
    assert campaign.promotion(lockfile, allowed=True).excepted(rows) == ()


def test_a_host_of_an_unknown_platform_is_scanned_first_and_never_installed(campaign: Campaign) -> None:
    """It may be unreachable, which spends the error budget; being left out does not."""
    promoted = campaign.promotion(campaign.patch_dev())
    row = replace(campaign.prod.ledger.hosts(RUN, STAGE)[0], platform="unknown")
    assert promoted.excepted([row]) == ()
    (move,) = promoted.excepted([replace(row, state=HostState.READY)])
    assert (move.before, move.after) == (HostState.READY, HostState.EXCEPTED)


def test_the_last_promoted_lockfile_is_that_of_the_newest_run_that_went_through(campaign: Campaign) -> None:
    """A run that was rejected at Prod has promoted nothing."""
    lockfile = campaign.patch_dev()
    assert promotion.last_promoted(campaign.dev.ledger, "weekly-linux") is None
    campaign.dev.ledger.end_run(RUN, RunOutcome.SUCCEEDED, at=campaign.dev.now)
    assert promotion.last_promoted(campaign.dev.ledger, "weekly-linux") == (RUN, lockfile)
    assert promotion.last_promoted(campaign.dev.ledger, "another") is None


def test_a_lockfile_that_was_changed_in_the_ledger_is_refused(campaign: Campaign) -> None:
    """Whoever can write to the database cannot have a package installed that Dev did not have, unnoticed."""
    envelope = lockfiles.envelope(campaign.patch_dev(), lockfiles.Origin(run=RUN, stage=STAGE, at=campaign.dev.now))
    envelope["lockfile"]["platforms"][0]["patches"][0]["title"] = NEWER
    ledger = MemoryLedger()
    ledger.open_run(campaign.dev.a_run(), [STAGE])
    ledger.put_document(RUN, lockfiles.DOCUMENT, envelope, at=campaign.dev.now)
    with pytest.raises(InvalidFile, match=r"the ledger's document lockfile of .*changed after it was written"):
        promotion.stored_for(ledger, RUN)


# --- through the executor, and not by a gateway that plays it ---


def wired(campaign: Campaign, lockfile: Lockfile, **options: Any) -> Any:
    promoted = campaign.promotion(lockfile, **options)
    executor = campaign.prod.executor("prod")
    return replace(executor, promotion=replace(promoted, lease=executor.lease))


def test_the_executor_sends_the_list_with_each_install_and_is_done(campaign: Campaign) -> None:
    """What came out meanwhile stays out."""
    lockfile = campaign.patch_dev()
    campaign.aws.advance(6000)
    assert isinstance(campaign.prod.to_the_end(wired(campaign, lockfile)), Done)
    assert set(campaign.prod.states.values()) == {HostState.PATCHED}
    commands = campaign.aws.ssm.list_commands()["Commands"]
    installs = [one["Parameters"] for one in commands if one["Parameters"].get("Operation") == ["Install"]]
    (by_list,) = [one["InstallOverrideList"][0] for one in installs if "InstallOverrideList" in one]
    assert by_list.startswith(f"s3://{BUCKET}/patchwave-lists/")
    assert all("kernel:0:6.1.119-129.201.amzn2023" not in titles for titles in campaign.installed().values())


def test_the_executor_halts_for_drift(campaign: Campaign) -> None:
    """Somebody patched a host of Prod by hand."""
    lockfile = campaign.patch_dev()
    campaign.aws.advance(6000)
    campaign.aws.patch(campaign.prod.hosts[0])
    campaign.aws.advance(1300)
    halt = campaign.prod.to_the_end(wired(campaign, lockfile))
    assert isinstance(halt, Halt)
    assert (halt.rule, halt.hosts) == ("lockfile", (campaign.prod.hosts[0],))


def test_a_withdrawn_update_is_the_reason_of_the_host(campaign: Campaign) -> None:
    """By package and both versions."""
    lockfile = campaign.patch_dev()
    campaign.aws.control("faults", {"kind": "update_withdrawn", "advisory": "ALAS2023-2024-729"})
    halt = campaign.prod.to_the_end(wired(campaign, lockfile))
    assert isinstance(halt, Halt)
    assert (halt.rule, set(halt.hosts)) == ("lockfile", set(campaign.prod.hosts))
    for row in campaign.prod.ledger.hosts(RUN, STAGE):
        assert row.state is HostState.FAILED
        assert "1 missing (expat.x86_64 is 0:2.5.0-1.amzn2023.0.4, the lockfile says 0:2.6.3-1.amzn2023.0.1)" in row.reason


def test_a_withdrawn_update_is_named_where_the_error_budget_ends_the_stage(campaign: Campaign) -> None:
    """Both rules stop it; what to do about it only one of them says."""
    lockfile = campaign.patch_dev()
    campaign.aws.control("faults", {"kind": "update_withdrawn", "advisory": "ALAS2023-2024-729"})
    executor = wired(campaign, lockfile)
    halt = campaign.prod.to_the_end(replace(executor, rules=replace(executor.rules, error_budget=0)))
    assert isinstance(halt, Halt)
    assert halt.rule == "lockfile"
    assert "expat.x86_64 is 0:2.5.0-1.amzn2023.0.4, the lockfile says 0:2.6.3-1.amzn2023.0.1" in halt.reason
    assert "Besides, error budget: 2 hosts failed" in halt.reason


def test_an_install_that_failed_by_itself_is_what_the_error_budget_pays(campaign: Campaign) -> None:
    """No drift: the repositories have it all, and the stage is done with a failed host."""
    lockfile = campaign.patch_dev()
    broken = campaign.prod.hosts[0]
    campaign.aws.control("faults", {"kind": "install_fails", "host": broken})
    assert isinstance(campaign.prod.to_the_end(wired(campaign, lockfile)), Done)
    assert campaign.prod.states[broken] is HostState.FAILED
    assert campaign.prod.ledger.document(RUN, f"compared:{STAGE}")["hosts"] == {campaign.prod.hosts[1]: []}


def test_the_executor_touches_nobody_without_a_bucket(campaign: Campaign) -> None:
    """Not even an intent is left behind."""
    lockfile = campaign.patch_dev()
    with pytest.raises(InvalidRequest, match="patchwave_lists_bucket"):
        campaign.prod.to_the_end(wired(campaign, lockfile, bucket=lambda _: ""))
    assert {row.step for row in campaign.prod.ledger.dispatches(RUN, STAGE)} == {StepKind.SCAN}


# --- what is remedied afterwards ---


@pytest.mark.parametrize("stage", ["staging", "dev"])
def test_a_remedy_installs_what_the_lockfile_says_but_in_the_first_stage(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A newer kernel is out by then, which the baseline approves."""
    lockfile = campaign.patch_dev()
    campaign.aws.advance(6000)
    host = campaign.prod.hosts[0]
    remedied(Desk(monkeypatch), campaign, a_host(1, id=host, group_tag=f"linux-{stage}"), stage, lockfile)
    campaign.aws.advance(1000)
    newer = NEWER.replace(".x86_64", "", 1)
    assert KERNEL.replace(".x86_64", "", 1) in campaign.installed()[host] or stage == "dev"
    assert (newer in campaign.installed()[host]) is (stage == "dev")


def test_a_host_of_a_platform_that_dev_did_not_have_is_not_remedied(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Its baseline would give it what nobody has tried."""
    host = a_host(1, id=campaign.prod.hosts[0], group_tag="linux-staging", platform="Ubuntu 24.04")
    (row,) = remedied(Desk(monkeypatch), campaign, host, "staging", campaign.patch_dev())
    assert (row["outcome"], row["detail"][:33]) == ("not_tried", "Dev had no host of Ubuntu 24.04 (")
    assert campaign.installed()[host.id] == set()


def remedied(desk: Desk, campaign: Campaign, host: Host, stage: str, lockfile: Lockfile) -> list[dict[str, Any]]:
    """One leg of the remediation, for a host of that stage; its rows."""
    plan = desk.planned([host], campaign=a_campaign(BUILT + "promotion: {by: lockfile, untried: lockfile}\n"))
    desk.gateway, desk.buckets, ledger, now = campaign.prod.gateway, {"eu-central-1": BUCKET}, desk.ledger, campaign.prod.now
    for row in ledger.stages(plan.run):
        desk.set_stage(row.stage, StageState.PATCHED)
    lease = ledger.acquire(plan.run, StageName(stage), "earlier", at=now)
    row = HostRow(
        run=plan.run, stage=StageName(stage), host=host.id, cell=CELL, name=host.name, platform=host.platform, domains=("stage",),
        state=HostState.PLANNED, since=now,
    )  # fmt: skip
    ledger.add_hosts(lease, [row])
    origin = lockfiles.Origin(run=plan.run, stage="dev", at=now)
    ledger.put_document(plan.run, lockfiles.DOCUMENT, lockfiles.envelope(lockfile, origin), at=now)
    remedy = Remedy(host=host.id, cell=CELL, stage=stage, action="automation", reason="x", token=str(uuid.uuid4()))
    ledger.put_document(plan.run, remedies.REMEDIES, [_row(remedy)], at=now)
    with suppress(TaskDeferred):
        RemediateOperator(task_id="remediate").execute(desk.context())
    return remedies.rows_of(ledger, plan.run)
