"""Which Auto Scaling groups would bring an unpatched host back, as AWS and the ledger say it now?

`operators.compliance` asks when a run is verified; what counts is `campaign.stale_images`' question.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from patchwave.aws.gateway import Gateway
from patchwave.aws.groups import groups_of
from patchwave.campaign import stale_images
from patchwave.campaign.errors import Permanent
from patchwave.campaign.rollout import HostRow, HostState
from patchwave.campaign.stale_images import Origin, Patched, StaleImage, StaleImages

IN_PLACE = frozenset({HostState.PATCHED, HostState.ALREADY_COMPLIANT, HostState.PENDING_REBOOT})
"""Classes of hosts that have their patches, from this run or an earlier one."""


def stale_images_of(
    gateway: Gateway, rows: Iterable[HostRow], rule: StaleImages | None, *, now: datetime
) -> tuple[tuple[StaleImage, ...], str]:
    """The groups of these hosts that would bring an unpatched one back.

    Returns:
        Them, and why AWS could not be asked: then nobody knows, and there are none.

    Raises:
        Transient: AWS does not answer at the moment.
    """
    scaling = [
        (row.cell, group, row.host)
        for row in rows
        if row.state in IN_PLACE
        for group in groups_of(row.domains, row.cell, "asg")
    ]
    origins: list[Origin] = []
    patched: list[Patched] = []
    try:
        for cell in sorted({cell for cell, _, _ in scaling}):
            its = [(group, host) for of, group, host in scaling if of == cell]
            origins += gateway.origins(cell, {group for group, _ in its})
            states = gateway.patch_states(cell, [host for _, host in its])
            patched += [
                Patched(host=host, cell=cell, group=group, at=at)
                for group, host in its
                if host in states and (at := states[host].patched_at) is not None
            ]
    except Permanent as error:
        return (), str(error)
    return stale_images.found(origins, patched, rule, now=now), ""
