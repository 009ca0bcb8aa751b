"""Which kernel updates would a host get where it must not get one? Patch Manager is asked, host by host.

A stage without a window installs no kernel where the policy says so (rule 7 of a rollout). The plan leaves out whoever has a
finding about one; this is about all others, for an Install takes everything that the baseline approves, found or not. The
executor asks when a Scan has ended, the remediation before it begins a remedy; what follows `rollout` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from patchwave.aws.gateway import Gateway
from patchwave.campaign.lockfile import Lockfile
from patchwave.campaign.policy import Kernel
from patchwave.campaign.rollout import HostRow, PatchState
from patchwave.campaign.values import Cell, HostId
from patchwave.execution.promotion import Promotion, Witness, each

COMING = ("Missing", "Failed")
"""States of patches that an Install would bring."""
INSTALLED = ("InstalledPendingReboot",)
"""States of patches that are installed, and that the next reboot activates."""


def waiting(
    gateway: Gateway, kernel: Kernel, cell: Cell, host: HostId, *, platform: str = "", lockfile: Lockfile | None = None
) -> tuple[str, ...]:
    """Names of the kernel packages that an Install would bring to a host, or the reboot after it activate.

    Args:
        lockfile: what alone is installed; one without a kernel brings none, whatever the baseline says. None: the baseline.
    """
    locked = lockfile.on(platform) if lockfile is not None else None
    none_comes = locked is not None and not _kernels(kernel, (patch.id for patch in locked.patches))
    rows = gateway.patches(cell, host, states=INSTALLED if none_comes else (*COMING, *INSTALLED))
    return _kernels(kernel, (row.id for row in rows))


def marked(
    gateway: Gateway,
    kernel: Kernel,
    states: Mapping[HostId, PatchState],
    scanned: Sequence[HostRow],
    promotion: Promotion | Witness | None,
) -> dict[HostId, PatchState]:
    """Reports in which hosts that ask for something say, too, which kernels would come with it.

    Args:
        scanned: hosts whose Scan before has ended.
    """
    lockfile = promotion.lockfile if isinstance(promotion, Promotion) else None
    asking = [row for row in scanned if row.host in states and not states[row.host].compliant]
    found = each(
        asking, lambda row: waiting(gateway, kernel, row.cell, row.host, platform=row.platform, lockfile=lockfile)
    )
    return {**states, **{host: replace(states[host], kernels=its) for host, its in found.items()}}


def _kernels(kernel: Kernel, ids: Iterable[str]) -> tuple[str, ...]:
    """Names of those that are a kernel; Patch Manager writes ``name.arch``."""
    names = {one.rpartition(".")[0] or one for one in ids}
    return tuple(sorted(name for name in names if kernel.includes(name)))
