"""Patch Manager's reports: fifty ids a call, every page, and absent is unknown."""

from __future__ import annotations

from typing import Any

from patchwave.campaign.values import HostId
from tests.gateway.conftest import CELL, NOW, Wire, host


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


def test_patches_of_every_state_that_is_not_compliant_are_told(wire: Wire) -> None:
    """The wire writes the states otherwise than the model does; both spellings count."""
    wire.expects(
        "ssm", "describe_instance_patches",
        {"Patches": [patch("openssl", "Missing", CVEIds="CVE-2026-1, CVE-2026-2"), patch("bash", "Installed")], "NextToken": "n"},
        {"InstanceId": host(1), "MaxResults": 100},
    )  # fmt: skip
    wire.expects(
        "ssm", "describe_instance_patches",
        {"Patches": [patch("kernel", "INSTALLED_PENDING_REBOOT"), patch("vim", "InstalledOther"), patch("curl", "Failed")]},
        {"InstanceId": host(1), "MaxResults": 100, "NextToken": "n"},
    )  # fmt: skip
    found = wire.gateway.missing_patches(CELL, HostId(host(1)))
    assert [one.title for one in found] == ["openssl", "kernel", "curl"]
    assert found[0].vulnerabilities == ("CVE-2026-1", "CVE-2026-2")


def test_a_host_that_aws_does_not_know_lists_no_patches(wire: Wire) -> None:
    """It may have been terminated between two calls."""
    wire.refuses("ssm", "describe_instance_patches", "InvalidInstanceId")
    assert wire.gateway.missing_patches(CELL, HostId(host(1))) == ()
