"""How does a stage install by the policy's baselines, and what does AWS say of it afterwards?

The executor asks `Overriding` where the file lies before an Install, and has Scans after one judged by it. AWS's own word on an
Install is its invocation on the host, which is asked for once more then: the report that would say it is not uploaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from patchwave.aws.gateway import Gateway
from patchwave.campaign import overrides
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.overrides import Override
from patchwave.campaign.rollout import DispatchRow, HostRow, Invocation, Outcome, PatchState, StepKind
from patchwave.campaign.values import Cell, HostId
from patchwave.execution.promotion import each

LACKING = ("Missing", "Failed")
INSTALLED = ("Installed", "InstalledOther", "InstalledPendingReboot", "InstalledRejected")
CLOCKS_APART = timedelta(minutes=2)
"""How much a host's clock may be behind AWS's; what was installed so short before counts as having come with the Install, and is
rebooted into, rather than the other way round."""


@dataclass(kw_only=True)
class Overriding:
    """A stage whose Installs go by other baselines than the accounts' own.

    Attributes:
        bucket: name of the bucket in which hosts of a region read it; empty if the connection names none.
    """

    gateway: Gateway
    override: Override
    bucket: Callable[[str], str]

    def address(self, cell: Cell, platform: str) -> str:
        """Lay the file down for an Install that is about to be sent, and say where it lies; empty where the account's own
        baseline holds.

        Raises:
            InvalidRequest: the connection names no bucket for the region.
            AccessDenied: the credentials may not write there.
        """
        if self.override.on(platform) is None:
            return ""
        name = self.bucket(cell.region)
        if not name:
            raise InvalidRequest(
                f"the connection's extra names no bucket for lists of patches in {cell.region} (patchwave_lists_bucket), and "
                "without one hosts cannot be told by which baselines they are patched"
            )
        return self.gateway.lay_down_override(cell, name, self.override.text)

    def judged(
        self, states: Mapping[HostId, PatchState], rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]
    ) -> dict[HostId, PatchState]:
        """Reports, of Scans after an Install by what that Install was made by.

        Args:
            rows: hosts whose Scan or Install has ended.
        """
        verified = [
            row
            for row in rows
            if row.host in states
            and self.override.on(row.platform) is not None
            and (dispatch := dispatches.get(row.token or "")) is not None
            and dispatch.step is StepKind.VERIFY
        ]
        if not verified:
            return dict(states)
        last = self._installs(verified, dispatches)
        lacking = each(
            [row for row in verified if states[row.host].missing + states[row.host].failed],
            lambda row: self.gateway.patches(row.cell, row.host, states=LACKING),
        )
        received = self._received(verified, dispatches)
        found = dict(states)
        for row in verified:
            baseline = self.override.on(row.platform)
            if baseline is not None:
                found[row.host] = overrides.judged(
                    baseline, states[row.host], lacking.get(row.host, ()), unproven=_unproven(last.get(row.host)),
                    received=received.get(row.host),
                )  # fmt: skip
        return found

    def _received(self, rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]) -> dict[HostId, int]:
        """How many patches came with the last Install, by the moments that the host's package manager gives; of a host that has
        been rebooted since nobody needs to know."""
        installs = newest(dispatches, StepKind.INSTALL)
        reboots = newest(dispatches, StepKind.REBOOT)
        booted = self._outcomes([row for row in rows if row.host in reboots], reboots)
        asked = [
            row
            for row in rows
            if row.host in installs
            and not (
                row.host in reboots
                and reboots[row.host].intended_at > installs[row.host].intended_at
                and (its := booted.get(row.host)) is not None
                and its.outcome is Outcome.SUCCEEDED  # the script has seen another boot id
            )
        ]

        def count(row: HostRow) -> int:
            began = installs[row.host].requested_at or installs[row.host].intended_at
            there = self.gateway.patches(row.cell, row.host, states=INSTALLED)
            return sum(one.installed_at is not None and one.installed_at >= began - CLOCKS_APART for one in there)

        return each(asked, count)

    def _installs(
        self, rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]
    ) -> dict[HostId, Invocation | None]:
        """How the last Install of each of these hosts went on it; None where AWS lists nothing of it."""
        return self._outcomes(rows, newest(dispatches, StepKind.INSTALL))

    def _outcomes(
        self, rows: Sequence[HostRow], last: Mapping[HostId, DispatchRow]
    ) -> dict[HostId, Invocation | None]:
        wanted = {last[row.host].token: last[row.host] for row in rows if row.host in last}
        told = {
            (token, found.host): found
            for token, one in wanted.items()
            for found in self.gateway.invocations(one.cell, str(one.command), token)
        }
        return {row.host: told.get((last[row.host].token, row.host)) for row in rows if row.host in last}


def newest(dispatches: Mapping[str, DispatchRow], step: StepKind) -> dict[HostId, DispatchRow]:
    """The last dispatch of a step that AWS has, by host."""
    found: dict[HostId, DispatchRow] = {}
    for one in sorted(dispatches.values(), key=lambda one: one.intended_at):
        if one.step is step and one.command is not None:
            found.update(dict.fromkeys(one.hosts, one))
    return found


def _unproven(install: Invocation | None) -> str:
    if install is None:
        return "whether its Install succeeded is not known, and AWS keeps no report of it"
    if install.outcome is Outcome.SUCCEEDED:
        return ""
    code = f", exit code {install.exit_code}" if install.exit_code is not None else ""
    return f"its Install did not succeed ({install.details}{code}), and AWS keeps no report of what it did"
