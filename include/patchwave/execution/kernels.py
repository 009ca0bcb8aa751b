"""Which kernel updates would a host get where it must not get one? Patch Manager is asked, host by host.

A stage without a window installs no kernel where the policy says so (rule 7 of a rollout). The plan leaves out whoever has a
finding about one; this is about all others, for an Install takes everything that the baseline approves, found or not. The
executor asks when a Scan has ended, the remediation before it begins a remedy; what follows `rollout` decides.

A kernel that is published between a host's Scan and its Install comes with it all the same: AWS takes no list of what is not to
be installed beside an account's baseline. So the executor asks after an Install, too, and who got one is not rebooted into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from patchwave.aws.gateway import Gateway
from patchwave.campaign.lockfile import Lockfile
from patchwave.campaign.policy import Kernel
from patchwave.campaign.rollout import HostRow, HostState, PatchState
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
    ended: Sequence[HostRow],
    promotion: Promotion | Witness | None,
) -> dict[HostId, PatchState]:
    """Reports in which hosts say, too, which kernels would come with what they ask for, or wait for a reboot already.

    Args:
        ended: hosts whose Scan or Install has ended.
    """
    lockfile = promotion.lockfile if isinstance(promotion, Promotion) else None

    def ask(row: HostRow) -> tuple[str, ...]:
        if row.state is HostState.SCANNING:
            return waiting(gateway, kernel, row.cell, row.host, platform=row.platform, lockfile=lockfile)
        return _kernels(kernel, (one.id for one in gateway.patches(row.cell, row.host, states=INSTALLED)))

    asking = [
        row
        for row in ended
        if row.host in states
        and (not states[row.host].compliant if row.state is HostState.SCANNING else states[row.host].pending_reboot)
    ]
    found = each(asking, ask)
    return {**states, **{host: replace(states[host], kernels=its) for host, its in found.items()}}


def _kernels(kernel: Kernel, ids: Iterable[str]) -> tuple[str, ...]:
    """Names of those that are a kernel; Patch Manager writes ``name.arch``."""
    names = {one.rpartition(".")[0] or one for one in ids}
    return tuple(sorted(name for name in names if kernel.includes(name)))
