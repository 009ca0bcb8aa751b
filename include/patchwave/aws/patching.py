"""What did the last patch run of each host report? Patch Manager's state and missing patches.

A report is overwritten by the next run, and a host that never reported has none: whoever needs "before" keeps it, and
absent means unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from patchwave.aws.calls import Calls, chunks
from patchwave.aws.errors import code_of
from patchwave.campaign.errors import HostsRefused, InvalidRequest
from patchwave.campaign.rollout import PatchState
from patchwave.campaign.values import Cell, HostId

LARGEST_STATES = 50
"""botocore model of ssm, DescribeInstancePatchStates.InstanceIds."""
LARGEST_PAGE = 100
"""botocore model of ssm: MaxResults of DescribeInstancePatchStates and DescribeInstancePatches."""
WRONG = frozenset({"missing", "failed", "installedrejected", "installedpendingreboot"})
"""Patch states that are not compliant, as `_spelled` writes them (AWS: patch compliance states)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WantingPatch:
    """A patch that is not as it should be on a host.

    Attributes:
        id: on Linux ``name.arch``, on Windows the KB number.
        state: AWS's word: ``Missing``, ``Failed``, ``InstalledPendingReboot``, ``InstalledRejected``.
        vulnerabilities: CVE ids that it mends, where AWS says them.
    """

    id: str
    title: str
    severity: str
    classification: str
    state: str
    vulnerabilities: tuple[str, ...] = ()


class Patching(Calls):
    """Patch Manager's reports."""

    def patch_states(self, cell: Cell, ids: Iterable[HostId]) -> dict[HostId, PatchState]:
        """The last report of each host; one that never reported is absent."""
        return {
            HostId(row["InstanceId"]): _state(row)
            for some in chunks(ids, LARGEST_STATES)
            for page in self.pages(cell, "ssm:DescribeInstancePatchStates", InstanceIds=list(some), MaxResults=LARGEST_PAGE)
            for row in page.get("InstancePatchStates", ())
        }

    def missing_patches(self, cell: Cell, host: HostId) -> tuple[WantingPatch, ...]:
        """What is missing, failed, rejected or waiting for a reboot on a host; nothing if AWS does not know the host.

        All states are read and chosen here: the wire spells them otherwise than the model does.
        """
        try:
            return tuple(
                _wanting(row)
                for page in self.pages(cell, "ssm:DescribeInstancePatches", InstanceId=host, MaxResults=LARGEST_PAGE)
                for row in page.get("Patches", ())
                if _spelled(row.get("State", "")) in WRONG
            )
        except (HostsRefused, InvalidRequest) as error:
            if code_of(error) == "InvalidInstanceId":
                return ()
            raise


def _spelled(state: str) -> str:
    """``INSTALLED_REJECTED`` and ``InstalledRejected`` are the same state."""
    return state.replace("_", "").lower()


def _state(row: Mapping[str, Any]) -> PatchState:
    return PatchState(
        host=HostId(row["InstanceId"]),
        operation=row["Operation"],
        ended=row["OperationEndTime"].astimezone(UTC),
        snapshot=row.get("SnapshotId", ""),
        installed=row.get("InstalledCount", 0),
        missing=row.get("MissingCount", 0),
        failed=row.get("FailedCount", 0),
        pending_reboot=row.get("InstalledPendingRebootCount", 0),
        rejected=row.get("InstalledRejectedCount", 0),
        critical_missing=row.get("CriticalNonCompliantCount", 0),
        security_missing=row.get("SecurityNonCompliantCount", 0),
    )


def _wanting(row: Mapping[str, Any]) -> WantingPatch:
    return WantingPatch(
        id=row.get("KBId", ""),
        title=row.get("Title", ""),
        severity=row.get("Severity", ""),
        classification=row.get("Classification", ""),
        state=row.get("State", ""),
        vulnerabilities=tuple(cve.strip() for cve in row.get("CVEIds", "").split(",") if cve.strip()),
    )
