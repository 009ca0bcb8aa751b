"""How does a stage install by the policy's baselines, and what does AWS say of it afterwards?

The executor asks `Overriding` where the file lies before an Install, and has Scans after one judged by it. AWS's own word on an
Install is its invocation on the host, which is asked for once more then: the report that would say it is not uploaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from patchwave.aws.gateway import Gateway
from patchwave.campaign import overrides
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.overrides import Override
from patchwave.campaign.rollout import DispatchRow, HostRow, Invocation, Outcome, PatchState, StepKind
from patchwave.campaign.values import Cell, HostId
from patchwave.execution.promotion import each

LACKING = ("Missing", "Failed")


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
        found = dict(states)
        for row in verified:
            baseline = self.override.on(row.platform)
            if baseline is not None:
                rest = lacking.get(row.host, ())
                found[row.host] = overrides.judged(baseline, states[row.host], rest, unproven=_unproven(last.get(row.host)))
        return found

    def _installs(
        self, rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]
    ) -> dict[HostId, Invocation | None]:
        """How the last Install of each of these hosts went on it; None where AWS lists nothing of it."""
        newest: dict[HostId, DispatchRow] = {}
        for one in sorted(dispatches.values(), key=lambda one: one.intended_at):
            if one.step is StepKind.INSTALL and one.command is not None:
                newest.update(dict.fromkeys(one.hosts, one))
        wanted = {newest[row.host].token: newest[row.host] for row in rows if row.host in newest}
        told = {
            (token, found.host): found
            for token, one in wanted.items()
            for found in self.gateway.invocations(one.cell, str(one.command), token)
        }
        return {row.host: told.get((newest[row.host].token, row.host)) for row in rows if row.host in newest}


def _unproven(install: Invocation | None) -> str:
    if install is None:
        return "whether its Install succeeded is not known, and AWS keeps no report of it"
    if install.outcome is Outcome.SUCCEEDED:
        return ""
    code = f", exit code {install.exit_code}" if install.exit_code is not None else ""
    return f"its Install did not succeed ({install.details}{code}), and AWS keeps no report of what it did"
