"""What Dev received is frozen exactly, promoted as AWS reads it, and compared package by package."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from patchwave.campaign import lockfile as locks
from patchwave.campaign.errors import InvalidFile
from patchwave.campaign.findings import Finding, Severity, VulnerablePackage
from patchwave.campaign.lockfile import Advisory, HostPatches, Kind, Lockfile, Origin, PatchRow
from patchwave.campaign.rollout import PatchState
from patchwave.campaign.values import Cell, HostId

NOW = datetime(2026, 3, 3, 22, tzinfo=UTC)
BEFORE = NOW - timedelta(days=40)
AMAZON, UBUNTU, WINDOWS = "Amazon Linux 2023", "Ubuntu 24.04", "Microsoft Windows Server 2022 Datacenter 10.0.20348"
KERNEL = "kernel.x86_64:0:6.1.115-126.197.amzn2023"
ORIGIN = Origin(run="weekly/1", stage="dev", at=NOW)
SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "awsdocs-ssm" / "patch-manager-aws-runpatchbaseline"


def row(title: str, state: str = "installed", *, at: datetime | None = NOW, patch: str = "", **facts: Any) -> PatchRow:
    return PatchRow(id=patch or title.partition(":")[0], title=title, state=state, installed_at=at, **facts)


def other(patch: str, *, at: datetime = BEFORE) -> PatchRow:
    return PatchRow(id=patch, title="", state="installedother", installed_at=at)


def kb(number: str, state: str = "installed", *, title: str = "", at: datetime | None = NOW) -> PatchRow:
    return row(title or f"2026-03 Cumulative Update ({number})", state, at=at, patch=number)


def having(*rows: PatchRow, name: str = "dev-1", platform: str = AMAZON, **facts: Any) -> HostPatches:
    return HostPatches(host=HostId(f"i-{name}"), name=name, platform=platform, rows=rows, **facts)


def locked(*rows: PatchRow, platform: str = AMAZON) -> Lockfile:
    return locks.build([having(*rows, platform=platform)], since=NOW)


def compared(lockfile: Lockfile, host: HostPatches, since: datetime | None = None) -> list[tuple[str, Kind]]:
    platform = lockfile.on(host.platform)
    assert platform is not None
    return [(one.package, one.kind) for one in locks.compare(platform, host, since=since)]


# --- what is locked ---


def test_every_approved_patch_that_dev_has_is_locked_and_those_of_this_run_are_marked() -> None:
    """A host of Prod may lack what Dev got a month ago, so the patches of this run alone would not do."""
    lock = locked(row(KERNEL), row("expat.x86_64:0:2.6.3-1.amzn2023.0.1", at=BEFORE)).on(AMAZON)
    assert lock is not None
    assert [(one.id, one.version, one.received) for one in lock.patches] == [
        ("expat.x86_64", "0:2.6.3-1.amzn2023.0.1", False),
        ("kernel.x86_64", "0:6.1.115-126.197.amzn2023", True),
    ]


@pytest.mark.parametrize("state", ["missing", "failed", "notapplicable"])
def test_what_dev_did_not_get_is_not_locked(state: str) -> None:
    """A patch that failed in Dev is the last one that Prod should have."""
    lock = locked(row(KERNEL, state, at=None)).on(AMAZON)
    assert lock is not None
    assert lock.patches == ()


def test_what_waits_for_a_reboot_is_locked() -> None:
    """It is on the disk of Dev's host."""
    lock = locked(row(KERNEL, "installedpendingreboot")).on(AMAZON)
    assert lock is not None
    assert [one.id for one in lock.patches] == ["kernel.x86_64"]


def test_a_package_that_dev_pulled_in_unapproved_is_locked_by_its_version_in_the_inventory() -> None:
    """Patch Manager calls it InstalledOther and says no version."""
    host = having(
        other("linux-firmware.amd64", at=NOW), other("bash.amd64"), platform=UBUNTU, captured=NOW,
        packages={"linux-firmware.amd64": "0:20260110-0ubuntu2", "bash.amd64": "0:5.2-1"},
        sources={"linux-firmware.amd64": "linux-firmware.src"}, ended=NOW,
    )  # fmt: skip
    lock = locks.build([host], since=NOW).on(UBUNTU)
    assert lock is not None
    assert [(one.title, one.source) for one in lock.patches] == [("linux-firmware.amd64:20260110-0ubuntu2", "linux-firmware.src")]


@pytest.mark.parametrize("captured", [None, NOW - timedelta(minutes=20)])
def test_a_package_of_unknown_version_is_not_locked_and_says_so(captured: datetime | None) -> None:
    """An inventory of before the Install says what was there before."""
    host = having(
        other("vim.x86_64", at=NOW), packages={"vim.x86_64": "2:9.0-1"} if captured else {}, captured=captured, ended=NOW
    )
    lock = locks.build([host], since=NOW).on(AMAZON)
    assert lock is not None
    assert lock.patches == ()
    assert any("vim.x86_64 was installed on dev-1" in remark for remark in lock.remarks)


def test_two_versions_in_dev_are_shown_with_their_hosts_and_the_newest_is_locked() -> None:
    """By rpm's order, in which 0.9 is older than 0.10; text order would say otherwise."""
    old, new = "glibc.x86_64:0:2.34-52.amzn2023.0.9", "glibc.x86_64:0:2.34-52.amzn2023.0.10"
    lock = locks.build([having(row(new), name="dev-2"), having(row(old)), having(row(new), name="dev-3")], since=NOW).on(AMAZON)
    assert lock is not None
    assert [one.title for one in lock.patches] == [new]
    assert [str(one) for one in lock.conflicts] == [
        "glibc.x86_64 differs in Dev: 0:2.34-52.amzn2023.0.10 on dev-2, dev-3; 0:2.34-52.amzn2023.0.9 on dev-1"
    ]


def test_the_release_of_amazon_linux_and_the_moment_of_an_ubuntu_snapshot_are_noted() -> None:
    """The release is the newest of Dev's; the archive at the snapshot's moment shows what the last Install saw."""
    lockfile = locks.build(
        [
            having(row(KERNEL), release="2023.6.20241111"),
            having(row(KERNEL), name="dev-2", release="2023.10.20260105"),
            having(row("curl.amd64:8.5.0-2ubuntu10.5"), platform=UBUNTU, name="dev-3", began=NOW),
            having(row("curl.amd64:8.5.0-2ubuntu10.5"), platform=UBUNTU, name="dev-4", began=NOW + timedelta(minutes=4)),
        ],
        since=NOW,
    )
    assert [(one.platform, one.release, one.snapshot) for one in lockfile.platforms] == [
        (AMAZON, "2023.10.20260105", None),
        (UBUNTU, None, "20260303T220400Z"),
    ]


def test_a_release_that_nobody_knows_is_a_remark() -> None:
    """Unknown is said, never guessed."""
    lock = locked(row(KERNEL)).on(AMAZON)
    assert lock is not None
    assert lock.release is None
    assert "system-release" in lock.remarks[0]


def test_vulnerabilities_and_advisories_come_from_findings_and_from_the_scan_before() -> None:
    """Patch Manager names CVEs of missing patches only; a fix of a later version mends nothing here."""
    known = [
        Advisory(platform=AMAZON, package="kernel", fixed_in="6.1.115-126.197.amzn2023", vulnerability="CVE-2024-50264"),
        Advisory(platform=AMAZON, package="kernel", fixed_in="6.1.115-126.197.amzn2023", id="ALAS2023-2024-766"),
        Advisory(platform=AMAZON, package="kernel", fixed_in="6.1.119-129.201.amzn2023", vulnerability="CVE-2024-53057"),
        Advisory(platform=UBUNTU, package="kernel", vulnerability="CVE-2000-0001"),
    ]
    before = row(KERNEL, "missing", at=None, vulnerabilities=("CVE-2024-47685",))
    lock = locks.build([having(row(KERNEL))], since=NOW, known=known, wanted=[before]).on(AMAZON)
    assert lock is not None
    assert lock.patches[0].vulnerabilities == ("CVE-2024-47685", "CVE-2024-50264")
    assert lock.patches[0].advisories == ("ALAS2023-2024-766",)


def test_findings_on_packages_of_the_operating_system_become_advisories() -> None:
    """Of a Go binary no package manager knows; a package without a fix is mended by nothing."""
    packages = (
        VulnerablePackage(name="kernel", version="0:6.1", manager="OS", fixed_in="0:6.2"),
        VulnerablePackage(name="stdlib", version="1.2", manager="GOBINARY", fixed_in="1.3"),
        VulnerablePackage(name="perl", version="1.2", manager="OS"),
    )
    finding = Finding(
        arn="arn", cell=Cell(account="1", region="eu"), resource="i-1", resource_type="AWS_EC2_INSTANCE", title="",
        vulnerability="CVE-1", severity=Severity.HIGH, packages=packages, fix="YES", first_seen=NOW, updated=NOW,
    )  # fmt: skip
    elsewhere = replace(finding, resource="i-2")
    notice = replace(finding, vulnerability="ALAS-1")
    told = replace(notice, vulnerability="ALAS-2", related=("CVE-8", "CVE-9"))
    found = locks.advisories([finding, notice, told, elsewhere], {HostId("i-1"): AMAZON})
    assert [(one.package, one.fixed_in, one.id, one.vulnerability) for one in found] == [
        ("kernel", "0:6.2", "", "CVE-1"),
        ("kernel", "0:6.2", "ALAS-1", ""),
        ("kernel", "0:6.2", "ALAS-2", "CVE-8"),
        ("kernel", "0:6.2", "ALAS-2", "CVE-9"),
    ]


# --- its name and its file ---


def test_the_digest_is_of_the_patches_and_not_of_the_moment() -> None:
    """The order in which hosts are read changes nothing; another release of one package does."""
    hosts = [having(row(KERNEL)), having(row(KERNEL), name="dev-2")]
    one, same = locks.build(hosts, since=NOW), locks.build(reversed(hosts), since=NOW)
    assert one == same
    assert one.digest == same.digest
    assert locks.build([having(row(KERNEL.replace("126", "127"))), hosts[1]], since=NOW).digest != one.digest


def test_a_lockfile_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Its file is named by its digest."""
    lockfile = locks.build(
        [having(row(KERNEL), row(KERNEL.replace("126", "125")), name="dev-ä"), having(kb("KB5046616"), platform=WINDOWS)],
        since=NOW,
    )
    path = locks.write(lockfile, ORIGIN, tmp_path)
    assert path.name == f"{lockfile.digest}.json"
    assert locks.read(path) == (lockfile, ORIGIN)


def test_a_file_that_was_changed_afterwards_is_refused(tmp_path: Path) -> None:
    """Whoever edits a version by hand has a lockfile that nobody tested."""
    path = locks.write(locked(row(KERNEL)), ORIGIN, tmp_path)
    path.write_text(path.read_text().replace("6.1.115", "6.1.119"))
    with pytest.raises(InvalidFile, match=r"json: digest: says [0-9a-f]{64}, .*changed after it was written"):
        locks.read(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"lock\.json:1: the file: is no valid JSON"),
        ("[]", r"lock\.json: format: a lockfile begins with 'patchwave lockfile 1'"),
        ('{"format": "patchwave lockfile 9"}', "or of another version"),
        ('{"format": "patchwave lockfile 1", "digest": ""}', r"lock\.json: origin: is missing\n.*lockfile: is missing"),
    ],
)
def test_a_file_that_is_no_lockfile_is_refused_with_its_field(tmp_path: Path, text: str, said: str) -> None:
    """File, field, and what is allowed there."""
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(InvalidFile, match=said):
        locks.read(path)


def test_a_field_of_the_wrong_kind_is_named() -> None:
    """Even with a digest that is right, the content must be a lockfile's."""
    data = json.loads(json.dumps(locks.envelope(locked(row(KERNEL)), ORIGIN)))
    data["lockfile"]["platforms"][0]["patches"][0]["received"] = "perhaps"
    data["digest"] = locks.evidence.digest(data["lockfile"])
    with pytest.raises(InvalidFile, match=r"ledger: platforms\[0\]\.patches\[0\]\.received: .*boolean"):
        locks.opened(data, file="ledger")


def test_a_missing_file_and_a_folder_that_is_not_there_are_said(tmp_path: Path) -> None:
    """No traceback of the operating system's."""
    with pytest.raises(InvalidFile, match="cannot be read"):
        locks.read(tmp_path / "none.json")
    with pytest.raises(InvalidFile, match="cannot be written"):
        locks.write(locked(), ORIGIN, tmp_path / "none")


# --- the list that AWS reads ---


def test_linux_packages_are_pinned_by_the_whole_title() -> None:
    """Word for word what Patch Manager calls them: rpm with the epoch, apt without one that is zero."""
    lockfile = locks.build(
        [
            having(row("grub2.x86_64:1:2.02-0.81.0.1.el7"), row(KERNEL)),
            having(row("apt.amd64:1.2.27"), row("vim-common.all:2:9.1.0016-1ubuntu7.4"), platform=UBUNTU),
        ],
        since=NOW,
    )
    assert yaml.safe_load(locks.override_list(lockfile, AMAZON)) == {
        "patches": [
            {"id": "grub2.x86_64", "title": "grub2.x86_64:1:2.02-0.81.0.1.el7"},
            {"id": "kernel.x86_64", "title": KERNEL},
        ]
    }
    assert [one["title"] for one in yaml.safe_load(locks.override_list(lockfile, UBUNTU))["patches"]] == [
        "apt.amd64:1.2.27",
        "vim-common.all:2:9.1.0016-1ubuntu7.4",
    ]


def test_updates_of_windows_are_named_by_their_kb() -> None:
    """Their title is for people."""
    lockfile = locked(kb("KB4284819", title="2018-06 Cumulative Update: Server (KB4284819)"), platform=WINDOWS)
    assert yaml.safe_load(locks.override_list(lockfile, WINDOWS))["patches"] == [
        {"id": "KB4284819", "title": "2018-06 Cumulative Update: Server (KB4284819)"}
    ]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs AWS's samples beside the repository")
def test_the_list_has_the_shape_of_every_sample_of_aws() -> None:
    """Lists of mappings with an id and a title that is text, under ``patches``."""
    ours = yaml.safe_load(locks.override_list(locked(row(KERNEL)), AMAZON))
    for sample in sorted(SAMPLES.glob("*.yaml"))[1:]:
        theirs = yaml.safe_load(sample.read_text())
        assert set(theirs) == set(ours), sample.name
        for entry in (*theirs["patches"], *ours["patches"]):
            assert {"id"} <= set(entry) <= {"id", "title"}, sample.name
            assert all(isinstance(value, str) for value in entry.values()), sample.name


def test_there_is_no_list_for_a_platform_that_dev_did_not_have() -> None:
    """Without a list the baseline would be installed."""
    with pytest.raises(locks.NotLocked, match="Dev had no host of Debian 12"):
        locks.override_list(locked(row(KERNEL)), "Debian 12")


def test_where_dev_had_no_patch_the_list_names_what_nobody_has() -> None:
    """What AWS makes of an empty list is not written anywhere."""
    text = locks.override_list(locked(other("bash.amd64"), platform=UBUNTU), UBUNTU)
    assert yaml.safe_load(text) == {"patches": [{"id": "patchwave-installs-nothing"}]}


def test_a_host_whose_platform_dev_did_not_have_is_excluded_by_a_sentence_unless_the_policy_allows() -> None:
    """Nobody has tried its patches."""
    hosts = {HostId("i-1"): AMAZON, HostId("i-2"): "Debian 12"}
    lockfile = locked(row(KERNEL))
    assert locks.unlocked(lockfile, hosts) == {
        HostId(
            "i-2"
        ): "Dev had no host of Debian 12 (it had Amazon Linux 2023), so nobody has tried its patches: it is not patched"
    }
    assert locks.unlocked(lockfile, hosts, allowed=True) == {}


# --- comparing ---


def test_a_host_as_locked_does_not_differ() -> None:
    """Packages that it has beside the lockfile are not looked at without a stage's beginning."""
    assert compared(locked(row(KERNEL)), having(row(KERNEL), row("a.x86_64:0:1-1"), other("b.x86_64", at=NOW))) == []


def test_a_package_that_the_host_does_not_have_is_no_difference() -> None:
    """An update is no reason to install what was never there."""
    assert compared(locked(row(KERNEL), row("podman.x86_64:2:4.9-1")), having(row(KERNEL))) == []


@pytest.mark.parametrize("state", ["missing", "failed"])
def test_a_locked_update_that_is_missing_names_host_and_package(state: str) -> None:
    """The sentence is what a person reads when the stage has failed."""
    prod = having(row(KERNEL, state, at=None), name="web-7")
    found = locks.drift(locked(row(KERNEL)), AMAZON, [prod])
    assert str(found[0]) == (
        f"web-7 (i-web-7): kernel.x86_64 is older: 0:6.1.115-126.197.amzn2023 is {state}, the lockfile says "
        "0:6.1.115-126.197.amzn2023; it was not installed: it failed, was withdrawn, or the host's repositories do not show it"
    )


def test_a_withdrawn_update_that_left_the_old_version_behind_is_drift() -> None:
    """AWS installs nothing, reports success and calls the older version Installed: the versions alone tell."""
    old = "kernel.x86_64:0:6.1.112-122.189.amzn2023"
    assert compared(locked(row(KERNEL)), having(row(old, at=BEFORE), name="web-7")) == [("kernel.x86_64", Kind.OLDER)]


def test_a_newer_version_than_the_locked_one_is_drift() -> None:
    """Nobody has tried it."""
    newer = "kernel.x86_64:0:6.1.119-129.201.amzn2023"
    assert compared(locked(row(KERNEL)), having(row(newer), name="web-7")) == [("kernel.x86_64", Kind.NEWER)]


def test_what_a_newer_missing_row_hides_is_told_by_the_inventory() -> None:
    """Between Dev and Prod the next version came out: its row says Missing, whatever is installed."""
    lockfile, newer = locked(row(KERNEL)), row("kernel.x86_64:0:6.1.119-129.201.amzn2023", "missing", at=None)
    as_locked = having(newer, packages={"kernel.x86_64": "0:6.1.115-126.197.amzn2023"}, captured=NOW, ended=NOW)
    too_old = replace(as_locked, packages={"kernel.x86_64": "0:6.1.112-122.189.amzn2023"})
    assert compared(lockfile, as_locked) == []
    assert compared(lockfile, too_old) == [("kernel.x86_64", Kind.OLDER)]


def test_what_the_baseline_of_prod_does_not_approve_is_told_by_the_inventory() -> None:
    """It is InstalledOther there, without a title, though it is what Dev has."""
    as_locked = having(other("kernel.x86_64"), packages={"kernel.x86_64": "6.1.115-126.197.amzn2023"}, captured=NOW)
    assert compared(locked(row(KERNEL)), as_locked) == []


def test_an_inventory_of_before_the_install_proves_nothing() -> None:
    """Else every host would be drift until its next inventory, or none."""
    stale = having(
        other("kernel.x86_64"), packages={"kernel.x86_64": "0:6.1.112-122.189.amzn2023"},
        captured=NOW - timedelta(minutes=5), ended=NOW,
    )  # fmt: skip
    (found,) = locks.drift(locked(row(KERNEL)), AMAZON, [stale])
    assert found.kind is Kind.UNKNOWN
    assert "the inventory of 2026-03-03 21:55 UTC" in str(found)


def test_a_package_without_title_and_inventory_is_drift_of_an_unknown_version() -> None:
    """Unknown is never taken for right."""
    (found,) = locks.drift(locked(row(KERNEL)), AMAZON, [having(other("kernel.x86_64"))])
    assert "of an unknown version: Patch Manager calls it installedother, and the inventory does not have it" in str(found)


def test_what_came_with_the_stage_and_is_not_locked_is_drift() -> None:
    """A dependency that Dev did not need; what was there before is none of ours."""
    prod = having(row(KERNEL), row("new.x86_64:0:1-1"), other("dep.x86_64", at=NOW), row("old.x86_64:0:1-1", at=BEFORE))
    assert compared(locked(row(KERNEL)), prod, since=NOW) == [("new.x86_64", Kind.BEYOND), ("dep.x86_64", Kind.BEYOND)]


def test_a_kb_that_is_missing_or_that_nobody_reports_is_drift() -> None:
    """A withdrawn KB has no row at all on Windows."""
    lockfile = locked(kb("KB1"), kb("KB2"), kb("KB3"), kb("KB4", at=BEFORE), kb("KB5"), platform=WINDOWS)
    prod = having(kb("KB1", "missing", at=None), kb("KB3", "notapplicable", at=None), other("KB5"), platform=WINDOWS)
    assert compared(lockfile, prod) == [("KB1", Kind.OLDER), ("KB2", Kind.ABSENT)]


def test_a_kb_under_another_title_is_said_and_fails_no_stage() -> None:
    """The removal tool has one KB number for all its months; no list can pin it."""
    lockfile = locked(kb("KB890830", title="Removal Tool v5.129 (KB890830)"), platform=WINDOWS)
    prod = having(kb("KB890830", title="Removal Tool v5.130 (KB890830)"), platform=WINDOWS)
    assert compared(lockfile, prod) == [("KB890830", Kind.UNPINNED)]
    assert locks.drift(lockfile, WINDOWS, [prod]) == ()


def test_a_plan_knows_whose_platform_dev_does_not_have() -> None:
    """Before there is a lockfile, and by the same sentence."""
    hosts = {HostId("i-1"): AMAZON, HostId("i-2"): "Debian 12"}
    assert locks.untried([AMAZON, UBUNTU, AMAZON], hosts) == {
        HostId("i-2"): "Dev had no host of Debian 12 (it had Amazon Linux 2023, Ubuntu 24.04), so nobody has tried its patches: "
        "it is not patched"
    }
    assert locks.untried([], hosts, allowed=True) == {}


def test_drift_on_a_platform_without_lock_is_refused() -> None:
    """No lock is not the same as no drift."""
    with pytest.raises(locks.NotLocked):
        locks.drift(locked(row(KERNEL)), UBUNTU, [])


# --- what a Scan means under a lockfile ---


def report(**counts: int) -> PatchState:
    given = {"installed": 9, "missing": 0, "failed": 0, "pending_reboot": 0, "rejected": 0, **counts}
    return PatchState(host=HostId("i-1"), operation="Scan", ended=NOW, snapshot="", **given)


def judged(lockfile: Lockfile, host: HostPatches, state: PatchState, *, final: bool = False) -> PatchState | None:
    lock = lockfile.on(host.platform)
    assert lock is not None
    return locks.judged(lock, state, host, final=final)


def test_what_the_baseline_wants_beyond_the_lockfile_is_not_missing() -> None:
    """Or every host of Prod would fail as soon as anything comes out after Dev."""
    prod = having(row(KERNEL), row("curl.x86_64:0:9-1", "missing", at=None))
    state = judged(locked(row(KERNEL)), prod, report(missing=1, pending_reboot=2))
    assert state is not None
    assert (state.missing, state.failed, state.pending_reboot) == (0, 0, 2)


def test_what_is_locked_is_missing_even_where_the_baseline_wants_nothing() -> None:
    """Prod's baseline approves after seven days; Dev's did at once."""
    prod = having(other("kernel.x86_64"), packages={"kernel.x86_64": "0:6.1.112-1"}, captured=NOW)
    state = judged(locked(row(KERNEL)), prod, report())
    assert state is not None
    assert state.missing == 1


def test_an_unknown_version_is_missing_before_the_install_and_undecided_after_it() -> None:
    """Before, an Install of what is there does no harm; after it, nobody may call the host patched, or failed."""
    before = having(other("kernel.x86_64"))
    state = judged(locked(row(KERNEL)), before, report())
    assert state is not None
    assert state.missing == 1
    stale = replace(before, ended=NOW, captured=NOW - timedelta(minutes=9))
    assert judged(locked(row(KERNEL)), stale, report()) is None


def test_where_no_inventory_will_tell_an_unknown_version_counts_as_missing() -> None:
    """The account has none, or its agent has fallen silent: waiting for ever would call nobody failed."""
    never = having(other("kernel.x86_64"), ended=NOW)
    for host, final in ((never, False), (replace(never, captured=NOW - timedelta(hours=1)), True)):
        state = judged(locked(row(KERNEL)), host, report(), final=final)
        assert state is not None
        assert state.missing == 1


def test_the_inventory_is_asked_only_where_rows_do_not_tell() -> None:
    """Each of them is a call."""
    lockfile = locked(*(row(f"{name}.x86_64:0:2-1") for name in "abcdef")).on(AMAZON)
    assert lockfile is not None
    rows = [
        row("a.x86_64:0:2-1"), row("b.x86_64:0:2-1", "missing", at=None), row("c.x86_64:0:3-1", "missing", at=None),
        other("d.x86_64"), row("e.x86_64:0:1-1", "notapplicable", at=None),
    ]  # fmt: skip
    assert locks.unversioned(lockfile, rows) == ("c.x86_64", "d.x86_64")


# --- for people ---


def test_what_another_lockfile_would_bring_is_said_package_by_package() -> None:
    """An approval of the first one does not cover it."""
    before = locks.build([having(row(KERNEL), row("a.x86_64:0:1-1")), having(kb("KB1"), platform=WINDOWS)], since=NOW)
    newer = "kernel.x86_64:0:6.1.119-129.201.amzn2023"
    after = locks.build([having(row(newer), row("b.x86_64:0:1-1")), having(row("curl.amd64:8-1"), platform=UBUNTU)], since=NOW)
    assert locks.changes(before, after) == (
        "Amazon Linux 2023: a.x86_64 0:1-1 is not in it any more",
        "Amazon Linux 2023: b.x86_64 0:1-1 has come in",
        "Amazon Linux 2023: kernel.x86_64 is 0:6.1.119-129.201.amzn2023 instead of 0:6.1.115-126.197.amzn2023",
        f"{WINDOWS}: is in the lockfile of before only",
        "Ubuntu 24.04: is in the lockfile of now only",
    )
    assert locks.changes(before, before) == ()


def test_the_page_of_a_lockfile_has_what_came_with_the_run_what_was_there_and_what_is_not_known() -> None:
    """Conflicts and remarks stand above the tables; nothing of AWS's can write markup into the page."""
    hosts = [
        having(row(KERNEL), row("expat.x86_64:0:2.6.3-1", at=BEFORE), row("a|b.x86_64:0:1-<b>"), other("dep.x86_64", at=NOW)),
        having(row(KERNEL.replace("126", "125")), name="dev-2"),
    ]
    lockfile = locks.build(hosts, since=NOW, known=[Advisory(platform=AMAZON, package="kernel", vulnerability="CVE-1", id="")])
    page = locks.markdown(lockfile)
    assert f"Lockfile `{lockfile.digest}`" in page
    assert "3 patches; read from dev-1, dev-2" in page
    assert "- Differs: kernel.x86\\_64 differs in Dev: 0:6.1.115-125.197.amzn2023 on dev-2; " in page
    assert "- Not known: dep.x86\\_64 was installed on dev-1" in page
    assert "| kernel.x86\\_64 | 0:6.1.115-126.197.amzn2023 |  | CVE-1 |" in page
    assert "a\\|b.x86\\_64 | 0:1-\\<b>" in page
    assert "There before: expat.x86\\_64 0:2.6.3-1" in page
    cut = locks.emergency(lockfile, ["CVE-1"]).lockfile
    assert f"Only for CVE-1; cut from `{lockfile.digest}`" in locks.markdown(cut)


# --- break-glass ---


def promoted() -> Lockfile:
    known = [
        Advisory(platform=AMAZON, package="openssl", id="ALAS2023-2024-754"),
        Advisory(platform=AMAZON, package="openssl-libs", id="ALAS2023-2024-754"),
        Advisory(platform=AMAZON, package="openssl-libs", vulnerability="CVE-2024-5535"),
        Advisory(platform=AMAZON, package="bash", vulnerability="CVE-2014-6271"),
    ]
    rows = [row(f"{name}.x86_64:1:3.0.8-1") for name in ("openssl", "openssl-libs", "openssl-perl", "bash")]
    sources = {"openssl-libs.x86_64": "openssl.src", "openssl-perl.x86_64": "openssl.src"}
    hosts = [having(*rows, sources=sources), having(row("curl.amd64:8.5.0-2"), platform=UBUNTU)]
    return locks.build(hosts, since=NOW, known=known)


def test_an_emergency_takes_what_mends_the_vulnerability_and_what_is_known_to_belong_to_it() -> None:
    """Same advisory, same source package; nothing of other platforms and other vulnerabilities."""
    whole = promoted()
    cut = locks.emergency(whole, ["cve-2024-5535 "])
    assert cut.unmended == ()
    assert (cut.lockfile.derived_from, cut.lockfile.vulnerabilities) == (whole.digest, ("CVE-2024-5535",))
    (platform,) = cut.lockfile.platforms
    assert [one.id for one in platform.patches] == ["openssl-libs.x86_64", "openssl-perl.x86_64", "openssl.x86_64"]
    assert platform.remarks[0] == (
        "openssl-libs.x86_64 mend what was named; with them openssl-perl.x86_64, openssl.x86_64 (same advisory or source); "
        "other dependencies are not known"
    )
    assert cut.lockfile.digest != whole.digest


def test_a_vulnerability_that_nothing_promoted_mends_is_said() -> None:
    """An emergency that mends half of what was asked for must not look whole."""
    cut = locks.emergency(promoted(), ["CVE-2014-6271", "CVE-2099-1"])
    assert cut.unmended == ("CVE-2099-1",)
    assert [one.id for one in cut.lockfile.platforms[0].patches] == ["bash.x86_64"]
    assert locks.emergency(promoted(), ["CVE-2099-1"]).lockfile.platforms == ()
