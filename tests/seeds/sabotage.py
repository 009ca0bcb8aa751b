"""Bugs to put in on purpose: the seeds have to find each of them, or they prove nothing.

Each entry breaks the code of its own process for good, and is named for what is no longer done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from patchwave.campaign import rollout
from patchwave.campaign.rollout import Dispatch, DispatchRow, DispatchState, Wait
from patchwave.execution import executor, openings
from patchwave.execution.executor import StageExecutor
from patchwave.ledger import changes


def _no_intent() -> None:
    """A command is sent first and written down afterwards."""

    def send_all(self: StageExecutor, decided: Sequence[Dispatch]) -> Wait | None:
        for one in decided:
            row = DispatchRow(
                token=one.token, run=self.lease.run, stage=self.lease.stage, step=one.step, cell=one.cell, hosts=one.hosts,
                attempt=one.attempt, state=DispatchState.INTENDED, fencing=self.lease.fencing, intended_at=self.now(),
                snapshot=one.snapshot,
            )  # fmt: skip
            spec = executor.command_for(row, campaign=self.campaign, stage=row.stage)
            sent = self.gateway.send(
                row.cell, document=spec.document, parameters=spec.parameters, hosts=row.hosts, comment=spec.comment,
                timeout=spec.timeout,
            )  # fmt: skip
            self.ledger.intend(self.lease, row, reason="sent")
            self._mark_sent(row.token, sent.id, sent.requested_at, "sent")
        return None

    _put(StageExecutor, "_send_all", send_all)


def _no_lease() -> None:
    """Whoever had the stage before goes on writing to it."""
    _put(changes, "check_lease", lambda row, lease: None)


def _no_budget() -> None:
    """Every host that is ready is begun."""
    _put(rollout, "_fits", lambda rules, used, row: True)


def _no_error_budget() -> None:
    """However many hosts have failed, the next one is begun."""
    _put(rollout, "_over_budget", lambda rules, spent: None)


def _no_place_held() -> None:
    """A host that failed gives its place to the next one."""
    _put(rollout, "holds_place", lambda row, recovered=(): row.state in rollout.IN_FLIGHT)


def _no_doubt() -> None:
    """A lost answer is taken for a refusal."""
    send = StageExecutor._send

    def sure(self: StageExecutor, row: DispatchRow) -> Wait | None:
        answer = send(self, row)
        if answer is not None and "was lost" in answer.reason:
            self._never_sent(row)
            self._put_back()
            return None
        return answer

    _put(StageExecutor, "_send", sure)


def _no_settling() -> None:
    """An intent whose command is not listed at this moment is taken for never sent."""
    _put(executor, "SETTLING", timedelta())
    init = StageExecutor.__init__

    def hasty(self: StageExecutor, **facts: Any) -> None:
        init(self, **facts | {"settling": timedelta(seconds=1)})

    _put(StageExecutor, "__init__", hasty)


def _no_new_token() -> None:
    """An intent that came to nothing is sent again as it was, by everybody who finds it."""
    _put(StageExecutor, "_never_sent", lambda self, row: self._send(row))


def _no_fresh_report() -> None:
    """The last patch report is believed, whichever command it is of."""
    _put(rollout, "_fresh", lambda state, dispatch, operation: state)


def _no_reboot() -> None:
    """What waits for a reboot is called patched."""
    _put(rollout.PatchState, "compliant", property(lambda self: self.missing + self.failed + self.rejected == 0))


def _no_return() -> None:
    """Hosts of a command that was never sent stay where they are."""
    _put(StageExecutor, "_put_back", lambda self: None)


def _no_freeze() -> None:
    """Windows are kept, and freezes forgotten."""
    _put(openings, "closures", lambda *_, **__: ())


def _put(where: Any, name: str, what: Any) -> None:
    setattr(where, name, what)


SABOTAGE: dict[str, Callable[[], None]] = {
    "intent": _no_intent,
    "lease": _no_lease,
    "budget": _no_budget,
    "error-budget": _no_error_budget,
    "place-held": _no_place_held,
    "doubt": _no_doubt,
    "settling": _no_settling,
    "new-token": _no_new_token,
    "fresh-report": _no_fresh_report,
    "reboot": _no_reboot,
    "return": _no_return,
    "freeze": _no_freeze,
}
"""By what is no longer done."""
