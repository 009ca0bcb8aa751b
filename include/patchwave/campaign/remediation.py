"""What is left to do, what may be done about it, and how does it stand?

`choose` picks the hosts that are still not compliant and lie in the stages where the campaign file allows remediation;
for all others it says why nothing is done. `patchwave.aws.automation` and `patchwave.aws.config` make the observed values;
executing a remedy is the operator's business.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from patchwave.campaign.compliance import Judgement, Verdict
from patchwave.campaign.values import Cell, HostId, RunId

RUNBOOK = "Patchwave-Remediate"
"""Our Automation runbook: an Install with reboot, then a Scan, on one host."""

_TOKENS = uuid.UUID("f0c1ad0e-3d6e-5c55-8f1c-3a6c3b0b3d52")


class RemedyState(StrEnum):
    """How a remedy stands. That it succeeded means that it ran through, not that the host is compliant now."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # AWS does not say, or does not know it any more


ENDED = frozenset({RemedyState.SUCCEEDED, RemedyState.FAILED, RemedyState.TIMED_OUT, RemedyState.CANCELLED})


@dataclass(frozen=True, kw_only=True, slots=True)
class AutomationStatus:
    """How an Automation execution stands.

    Attributes:
        state: in our words; `status` is AWS's own.
        failure: AWS's failure message, or that of the step that failed; empty if there is none.
        step: the step it is in, or was in last.
    """

    cell: Cell
    id: str
    state: RemedyState
    status: str
    document: str = ""
    failure: str = ""
    step: str = ""
    began_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """It will not change any more."""
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleRemedy:
    """How Config's remediation of one resource stands.

    Attributes:
        failure: messages of the steps that failed.
        invoked_at: when Config began it.
    """

    cell: Cell
    rule: str
    host: HostId
    state: RemedyState
    failure: str = ""
    invoked_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """What is done about one host, or why nothing is.

    Attributes:
        action: ``automation`` or ``none``.
        token: 36-character UUID, the ClientToken of its Automation execution: a replay starts nothing new.
    """

    host: HostId
    cell: Cell
    stage: str
    action: str
    reason: str
    token: str = ""


def choose(
    run: RunId,
    compliance: Judgement,
    *,
    allowed: Collection[str],
    untouched: Collection[str],
    out_of_reach: Mapping[HostId, str] | None = None,
    left_out: Mapping[HostId, str] | None = None,
    shut: Collection[str] = (),
) -> tuple[Remedy, ...]:
    """A remedy for every host that is not compliant; unknown hosts get none, for nobody knows what ails them.

    Args:
        allowed: stages in which the campaign file permits remediation.
        untouched: stages that this run did not patch (rejected, skipped, halted before): left alone even where allowed.
        out_of_reach: hosts that no command reaches (stopped, unreachable, gone), with the reason.
        left_out: hosts that nothing may be installed on in this run, with the reason.
        shut: stages whose window is shut now: a remedy disrupts as a patch does.
    """
    made = []
    away = out_of_reach or {}
    for host in compliance.hosts:
        if host.verdict is not Verdict.NOT_COMPLIANT:
            continue
        if host.stage in untouched:
            action, reason = "none", f"stage {host.stage} was not patched in this run"
        elif host.stage not in allowed:
            action, reason = "none", f"the campaign file allows no remediation in stage {host.stage or '(none)'}"
        elif host.stage in shut:
            action, reason = "none", f"the window of stage {host.stage} is shut, and nothing is remedied outside of it"
        elif host.host in away:
            action, reason = "none", f"no command reaches it: {away[host.host]}"
        elif left_out and host.host in left_out:
            action, reason = "none", f"it is left out of this run: {left_out[host.host]}"
        else:
            action, reason = "automation", host.reason
        token = str(uuid.uuid5(_TOKENS, f"{run}|{host.host}")) if action == "automation" else ""
        made.append(Remedy(host=host.host, cell=host.cell, stage=host.stage, action=action, reason=reason, token=token))
    return tuple(made)
