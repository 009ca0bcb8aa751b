"""What did the last patch run of each host report? Patch Manager's state and patches, and versions from the inventory.

A report is overwritten by the next run, and a host that never reported has none: whoever needs "before" keeps it, and
absent means unknown. What Patch Manager does not say of a package (its version, if no rule approves it) the software
inventory says, as of its last capture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from patchwave.aws import moments
from patchwave.aws.calls import Calls, chunks
from patchwave.aws.errors import code_of
from patchwave.campaign import lockfile, versions
from patchwave.campaign.errors import HostsRefused, InvalidRequest
from patchwave.campaign.lockfile import RELEASE_PACKAGE, HostPatches, PatchRow, PlatformLock
from patchwave.campaign.rollout import PatchState
from patchwave.campaign.values import Cell, HostId
from patchwave.campaign.versions import Scheme

LARGEST_STATES = 50
"""botocore model of ssm, DescribeInstancePatchStates.InstanceIds."""
LARGEST_PAGE = 100
"""botocore model of ssm: MaxResults of DescribeInstancePatchStates and DescribeInstancePatches."""
LARGEST_INVENTORY_PAGE = 50
"""botocore model of ssm: MaxResults of ListInventoryEntries."""
LARGEST_INVENTORY_FILTER = 40
"""botocore model of ssm, ListInventoryEntries.Filters.Values."""
LARGEST_PATCH_FILTER = 20
"""Values of one filter of DescribeInstancePatches; the model sets no limit, and this is what other filters of ssm take."""
THERE = ("Installed", "InstalledOther", "InstalledPendingReboot", "InstalledRejected", "Missing", "Failed")
"""What is worth reading; NotApplicable rows are the most by far, and say nothing about what is on the host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packages:
    """What the software inventory says of some packages.

    Attributes:
        captured: when it was taken; None: the host has none, or none of the last 30 days.
        versions: newest installed version by ``name.arch``, epoch written out.
        sources: source package, where the inventory names it.
    """

    captured: datetime | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


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

    def patches(
        self, cell: Cell, host: HostId, *, states: Sequence[str] = THERE, ids: Iterable[str] | None = None
    ) -> tuple[PatchRow, ...]:
        """Rows of a host's last report, a hundred a call; nothing if AWS does not know the host or it never reported.

        Args:
            states: as the wire spells them.
            ids: only these patches, in whatever state they are; None: all in those states.
        """
        asked = [{"Key": "State", "Values": list(states)}]
        if ids is not None:
            asked = [{"Key": "KBId", "Values": list(some)} for some in chunks(ids, LARGEST_PATCH_FILTER)]
        try:
            return tuple(
                _row(row)
                for one in asked
                for page in self.pages(
                    cell, "ssm:DescribeInstancePatches", InstanceId=host, Filters=[one], MaxResults=LARGEST_PAGE
                )
                for row in page.get("Patches", ())
            )
        except (HostsRefused, InvalidRequest) as error:
            if code_of(error) == "InvalidInstanceId":
                return ()
            raise

    def packages(self, cell: Cell, host: HostId, names: Iterable[str]) -> Packages:
        """What the software inventory says of packages, forty names a call.

        Args:
            names: without the architecture; one name may bring several architectures.
        """
        captured: datetime | None = None
        found: dict[str, list[str]] = {}
        sources: dict[str, str] = {}
        try:
            for some in chunks(names, LARGEST_INVENTORY_FILTER):
                for page in self.pages(
                    cell,
                    "ssm:ListInventoryEntries",
                    InstanceId=host,
                    TypeName="AWS:Application",
                    Filters=[{"Key": "Name", "Values": list(some), "Type": "Equal"}],
                    MaxResults=LARGEST_INVENTORY_PAGE,
                ):
                    captured = moments.parsed(text) if (text := page.get("CaptureTime")) else captured
                    for row in page.get("Entries", ()):
                        patch = f"{row.get('Name', '')}.{row.get('Architecture', '')}"
                        found.setdefault(patch, []).append(_version(row))
                        sources.update(_source(patch, row))
        except (HostsRefused, InvalidRequest) as error:
            if code_of(error) == "InvalidInstanceId":
                return Packages()
            raise
        newest = {patch: versions.newest(some, versions.scheme_of(patch)) for patch, some in found.items()}
        return Packages(captured=captured, versions=newest, sources=sources)

    def host_patches(
        self,
        cell: Cell,
        host: HostId,
        *,
        name: str,
        platform: str,
        locked: PlatformLock | None = None,
        since: datetime | None = None,
        began: datetime | None = None,
        ended: datetime | None = None,
    ) -> HostPatches | None:
        """What is on a host: to make a lockfile of it, or to be compared with one.

        A call for each hundred rows of Patch Manager (a host of 400 packages: 5), and for each forty packages whose version
        only the inventory knows; to make a lockfile the inventory is asked for all that are locked, to compare only where the
        rows do not tell, mostly never.

        Args:
            locked: what it is to be compared with; None: a lockfile is made of it.
            since: when the run began; what came outside the baseline from then on is asked for, too.
            began, ended: when its Install was taken by AWS, and over.

        Returns:
            None if AWS does not know the host or it never reported: that is unknown, and not nothing.
        """
        rows = self.patches(cell, host)
        if not rows:
            return None
        if locked is None:
            asked = [RELEASE_PACKAGE] if platform.startswith("Amazon Linux 2023") else []
            asked += [_name(row.id) for row in rows if _is_locked(row, since)]
        else:
            asked = [_name(patch) for patch in lockfile.unversioned(locked, rows)]
            told = {row.id for row in rows}
            silent = [one.id for one in locked.patches if one.scheme is Scheme.WINDOWS and one.received and one.id not in told]
            rows += self.patches(cell, host, ids=silent)
        known = self.packages(cell, host, asked)
        release = next((version for patch, version in known.versions.items() if _name(patch) == RELEASE_PACKAGE), "")
        return HostPatches(
            host=host,
            name=name,
            platform=platform,
            rows=rows,
            packages={patch: version for patch, version in known.versions.items() if _name(patch) != RELEASE_PACKAGE},
            sources=known.sources,
            captured=known.captured,
            release=release.partition(":")[2].partition("-")[0],
            began=began,
            ended=ended,
        )


def _is_locked(row: PatchRow, since: datetime | None) -> bool:
    """Whether a row of Linux goes into a lockfile."""
    new = since is not None and row.installed_at is not None and row.installed_at >= since
    linux = versions.scheme_of(row.id) is not Scheme.WINDOWS
    return linux and (row.state in lockfile.HAS or (row.state == lockfile.OTHER and new))


def _name(patch: str) -> str:
    """``kernel.x86_64`` without its architecture; names have dots, too."""
    return patch.rpartition(".")[0] or patch


def _version(row: Mapping[str, Any]) -> str:
    """Of dpkg the version has it all; of rpm epoch and release stand beside it."""
    release = f"-{row['Release']}" if row.get("Release") else ""
    version = f"{row.get('Version', '')}{release}"
    epoch = "" if ":" in version or not row.get("Epoch") else f"{row['Epoch']}:"
    return versions.written_out(f"{epoch}{version}")


def _source(patch: str, row: Mapping[str, Any]) -> dict[str, str]:
    """PackageId of an rpm is its source's file: ``openssl-3.0.8-1.amzn2023.src.rpm``."""
    file = str(row.get("PackageId") or "")
    return {patch: file.removesuffix(".src.rpm").rsplit("-", 2)[0]} if file.endswith(".src.rpm") else {}


def _row(row: Mapping[str, Any]) -> PatchRow:
    state, installed = _spelled(row.get("State", "")), row.get("InstalledTime")
    # AWS writes the beginning of 1970 where nothing is installed.
    there = installed is not None and state not in lockfile.WANTS and installed.timestamp() > 0
    return PatchRow(
        id=row.get("KBId", ""),
        title=row.get("Title", ""),
        state=state,
        classification=row.get("Classification", ""),
        severity=row.get("Severity", ""),
        installed_at=installed.astimezone(UTC) if there and installed is not None else None,
        vulnerabilities=_cves(row),
    )


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
        patched_at=at.astimezone(UTC) if (at := row.get("LastNoRebootInstallOperationTime")) else None,
    )


def _cves(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(cve.strip() for cve in row.get("CVEIds", "").split(",") if cve.strip())
