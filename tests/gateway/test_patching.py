"""Patch Manager's reports: fifty ids a call, every page, and absent is unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.campaign.lockfile import HostPatches, LockedPatch, PlatformLock
from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, NOW, Wire, host

HOST = HostId(host(1))
THERE = ["Installed", "InstalledOther", "InstalledPendingReboot", "InstalledRejected", "Missing", "Failed"]


def report(number: int, **counts: Any) -> dict[str, Any]:
    return {
        "InstanceId": host(number),
        "PatchGroup": "linux-prod",
        "BaselineId": "pb-0123456789abcdef0",
        "OperationStartTime": NOW,
        "OperationEndTime": NOW,
        "Operation": "Scan",
        **counts,
    }


def patch(name: str, state: str, **facts: str) -> dict[str, Any]:
    return {
        "Title": name, "KBId": f"{name}.x86_64", "Classification": "Security", "Severity": "Important", "State": state,
        "InstalledTime": NOW, **facts,
    }  # fmt: skip


def test_fifty_one_hosts_are_two_calls_and_a_repeated_id_is_asked_once(wire: Wire) -> None:
    """DescribeInstancePatchStates takes at most 50 ids."""
    ids = [HostId(host(n)) for n in range(51)]
    wire.expects(
        "ssm", "describe_instance_patch_states", {"InstancePatchStates": [report(0)]},
        {"InstanceIds": ids[:50], "MaxResults": 100},
    )  # fmt: skip
    wire.expects(
        "ssm", "describe_instance_patch_states", {"InstancePatchStates": [report(50)]},
        {"InstanceIds": ids[50:], "MaxResults": 100},
    )  # fmt: skip
    found = wire.gateway.patch_states(CELL, [*ids, ids[7]])
    assert set(found) == {host(0), host(50)}


def test_no_hosts_are_no_call(wire: Wire) -> None:
    """An empty list of ids would be refused, or mean everybody."""
    assert wire.gateway.patch_states(CELL, []) == {}
    assert wire.gateway.calls == {}


def test_a_report_carries_every_count_that_compliance_hangs_on(wire: Wire) -> None:
    """A count that AWS leaves out is zero; one that it gives is never dropped."""
    wire.expects(
        "ssm", "describe_instance_patch_states",
        {
            "InstancePatchStates": [
                report(1, InstalledCount=9, MissingCount=1, FailedCount=2, InstalledPendingRebootCount=3, SnapshotId="s" * 36,
                       InstalledRejectedCount=4, CriticalNonCompliantCount=5, SecurityNonCompliantCount=6),
                report(2),
            ]
        },
    )  # fmt: skip
    found = wire.gateway.patch_states(CELL, [HostId(host(1)), HostId(host(2))])
    one = found[HostId(host(1))]
    assert (one.installed, one.missing, one.failed, one.pending_reboot, one.rejected) == (9, 1, 2, 3, 4)
    assert (one.critical_missing, one.security_missing, one.operation, one.ended) == (5, 6, "Scan", NOW)
    assert not one.compliant
    assert found[HostId(host(2))].compliant


def test_a_host_that_aws_does_not_know_lists_no_patches(wire: Wire) -> None:
    """It may have been terminated between two calls."""
    wire.refuses("ssm", "describe_instance_patches", "InvalidInstanceId")
    assert wire.gateway.patches(CELL, HostId(host(1))) == ()


# --- what is on a host, for a lockfile ---


def expects_rows(wire: Wire, *rows: dict[str, Any], token: str = "", after: str = "") -> None:
    answer = {"Patches": list(rows), **({"NextToken": token} if token else {})}
    request = {"InstanceId": HOST, "Filters": [{"Key": "State", "Values": THERE}], "MaxResults": 100}
    wire.expects("ssm", "describe_instance_patches", answer, {**request, **({"NextToken": after} if after else {})})


def expects_inventory(wire: Wire, names: list[str], *entries: dict[str, str], captured: str = "2026-03-03T22:10:00Z") -> None:
    wire.expects(
        "ssm", "list_inventory_entries", {"Entries": list(entries), "CaptureTime": captured},
        {
            "InstanceId": HOST, "TypeName": "AWS:Application", "MaxResults": 50,
            "Filters": [{"Key": "Name", "Values": names, "Type": "Equal"}],
        },
    )  # fmt: skip


def read(wire: Wire, platform: str = "Amazon Linux 2023", **options: Any) -> HostPatches | None:
    return wire.gateway.host_patches(CELL, HOST, name="web-1", platform=platform, **options)


def titled(name: str, version: str, state: str, **facts: Any) -> dict[str, Any]:
    return {**patch(name, state), "Title": f"{name}.x86_64:{version}", **facts}


def lock(*patches: LockedPatch) -> PlatformLock:
    return PlatformLock(platform="any", hosts=("dev-1",), patches=patches)


def test_every_page_of_a_hosts_patches_is_read_and_what_is_not_applicable_is_not_asked_for(wire: Wire) -> None:
    """Of 1,100 rows 670 are NotApplicable in AWS's own example."""
    expects_rows(wire, titled("openssl", "1:3.0.8-1", "INSTALLED_PENDING_REBOOT"), token="n")
    expects_rows(wire, titled("curl", "0:8.5-1", "Missing", CVEIds="CVE-1, CVE-2", InstalledTime=0), after="n")
    one, two = wire.gateway.patches(CELL, HOST)
    assert (one.id, one.version, one.state, one.installed_at) == ("openssl.x86_64", "1:3.0.8-1", "installedpendingreboot", NOW)
    assert (two.state, two.installed_at, two.vulnerabilities) == ("missing", None, ("CVE-1", "CVE-2"))


def test_for_a_lockfile_the_inventory_tells_release_sources_and_what_no_rule_approves(wire: Wire) -> None:
    """An installed kernel has several entries: the newest counts, by rpm's order."""
    began = NOW - timedelta(minutes=5)
    expects_rows(
        wire,
        titled("kernel", "0:6.1.115-126.197.amzn2023", "Installed"),
        patch("pulled-in", "InstalledOther", Title=""),
        {**patch("acl", "InstalledOther"), "Title": "", "InstalledTime": NOW - timedelta(days=9)},
        titled("expat", "0:2.6.3-1", "Missing"),
    )
    expects_inventory(
        wire, ["system-release", "kernel", "pulled-in"],
        {"Name": "kernel", "Architecture": "x86_64", "Version": "6.1.99", "Release": "9", "PackageId": "kernel-6.1.99-9.src.rpm"},
        {"Name": "kernel", "Architecture": "x86_64", "Version": "6.1.115", "Release": "126.197.amzn2023", "Epoch": "0",
         "PackageId": "kernel-6.1.115-126.197.amzn2023.src.rpm"},
        {"Name": "pulled-in", "Architecture": "x86_64", "Version": "1.2", "Release": "3", "Epoch": "2"},
        {"Name": "system-release", "Architecture": "noarch", "Version": "2023.6.20241111", "Release": "0.amzn2023"},
    )  # fmt: skip
    found = read(wire, since=began, began=began, ended=NOW)
    assert found is not None
    assert found.packages == {"kernel.x86_64": "0:6.1.115-126.197.amzn2023", "pulled-in.x86_64": "2:1.2-3"}
    assert (found.release, found.sources) == ("2023.6.20241111", {"kernel.x86_64": "kernel"})
    assert (found.began, found.ended, found.captured) == (began, NOW, datetime(2026, 3, 3, 22, 10, tzinfo=UTC))


def test_a_version_of_dpkg_is_whole_in_one_field(wire: Wire) -> None:
    """dpkg's Version holds epoch and revision; the inventory leaves Release empty."""
    wire.expects(
        "ssm", "list_inventory_entries",
        {"Entries": [{"Name": "vim-common", "Architecture": "all", "Version": "2:9.1.0016-1ubuntu7.4", "Release": ""}]},
    )  # fmt: skip
    found = wire.gateway.packages(CELL, HOST, ["vim-common"])
    assert (found.versions, found.captured) == ({"vim-common.all": "2:9.1.0016-1ubuntu7.4"}, None)


def test_comparing_asks_the_inventory_only_for_what_the_rows_do_not_tell(wire: Wire) -> None:
    """Mostly that is nothing, and then there is no such call."""
    locked = lock(
        LockedPatch(id="kernel.x86_64", version="0:2-1", title="kernel.x86_64:0:2-1", received=True),
        LockedPatch(id="curl.x86_64", version="0:8-1", title="curl.x86_64:0:8-1", received=True),
    )
    rows = titled("kernel", "0:2-1", "Installed"), patch("bash", "InstalledOther", Title="")
    expects_rows(wire, *rows)
    assert read(wire, locked=locked) is not None
    expects_rows(wire, *rows, patch("curl", "InstalledOther", Title=""))
    expects_inventory(wire, ["curl"], {"Name": "curl", "Architecture": "x86_64", "Version": "8", "Release": "1"})
    found = read(wire, locked=locked)
    assert found is not None
    assert found.packages == {"curl.x86_64": "0:8-1"}
    assert dict(wire.gateway.calls) == {"ssm:DescribeInstancePatches": 2, "ssm:ListInventoryEntries": 1}


def test_a_kb_without_a_row_is_asked_for_once_more(wire: Wire) -> None:
    """It may not apply to this host, and such rows were not read."""
    locked = lock(*(LockedPatch(id=f"KB{n}", version="", title=f"(KB{n})", received=n < 3) for n in range(1, 4)))
    there, other = ({**patch("x", state), "KBId": kb, "Title": f"({kb})"} for state, kb in [("Installed", "KB1"),
                                                                                         ("NotApplicable", "KB2")])  # fmt: skip
    expects_rows(wire, there)
    wire.expects(
        "ssm", "describe_instance_patches", {"Patches": [other]},
        {"InstanceId": HOST, "Filters": [{"Key": "KBId", "Values": ["KB2"]}], "MaxResults": 100},
    )  # fmt: skip
    found = read(wire, platform="Microsoft Windows Server 2022", locked=locked)
    assert found is not None
    assert [(row.id, row.state) for row in found.rows] == [("KB1", "installed"), ("KB2", "notapplicable")]


def test_a_host_without_a_report_is_unknown_and_not_empty(wire: Wire) -> None:
    """Nothing would be drift on it, and that is no proof."""
    expects_rows(wire)
    assert read(wire) is None
    wire.refuses("ssm", "describe_instance_patches", "InvalidInstanceId")
    assert read(wire) is None
