"""Go on, wait or stop? The state machine of one stage.

`patchwave.operators.patch` asks in a loop: `observed` turns what AWS says into moves of hosts, `decide` says what to do
next. Both are pure: plan, ledger rows, observation and now go in, values come out; whoever asks writes them to the ledger
and acts. Nothing here knows how a command is sent, nor what time it is.

A host's way::

    planned -> scanning -> already_compliant
                       \\-> ready -> installing -> needs_reboot -> rebooting -> to_verify -> verifying -> patched
                                             \\----------------------------> to_verify

The Scan before disrupts nobody, so it takes no place in the budget. From `installing` until it is settled a host holds a
place in each of its failure domains; a failed or unreachable one keeps it until it is healthy (rules 1 and 3 of a rollout).
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from patchwave.campaign import fleet
from patchwave.campaign.errors import IllegalMove
from patchwave.campaign.fleet import Host, Readiness
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.campaign.windows import Span

if TYPE_CHECKING:
    from patchwave.campaign.overrides import Override

TOKENS = uuid.UUID("6f3f4ad4-6a3b-5a5e-9a0d-5d0f3f1c7d21")
"""Namespace of every token: the same run, stage, step, attempt and hosts give the same token on any machine."""

SNAPSHOTS = uuid.UUID("3f2c8a52-0f0e-5f0b-9c47-0b8f6f3f7a10")
"""Namespace of patch snapshots."""

LARGEST_DISPATCH = 50
"""SendCommand takes at most 50 instance ids (botocore model of ssm, SendCommand.InstanceIds)."""

MOST_REBOOTS = 2
"""A host whose patches still wait after that many reboots is `pending_reboot`, for a person to look at."""


MOST_CANCELLED = 3
"""Somebody who cancels our commands that often does not want the host touched."""


BUSY_EXITS = frozenset({152, 155})
"""How a Scan ends while another patch run is at work on the host: what was cancelled, its package transaction goes on."""
BUSY_AGAIN = timedelta(minutes=5)
"""Pause until a busy host is scanned again."""
MOST_BUSY = 26
"""Scans of a busy host: until the two hours are over that AWS's document gives an Install."""
_BUSY = "another patch run is at work on the host"


class HostState(StrEnum):
    """Where a host stands in its stage; the last eleven are the terminal classes. The two of a rollback are of no other run."""

    PLANNED = "planned"
    SCANNING = "scanning"
    READY = "ready"
    INSTALLING = "installing"
    NEEDS_REBOOT = "needs_reboot"
    REBOOTING = "rebooting"
    TO_VERIFY = "to_verify"
    VERIFYING = "verifying"
    ROLLING_BACK = "rolling_back"
    PATCHED = "patched"
    ALREADY_COMPLIANT = "already_compliant"
    PENDING_REBOOT = "pending_reboot"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    STOPPED = "stopped"
    EXCEPTED = "excepted"
    OUT_OF_WINDOW = "out_of_window"
    REPLACED = "replaced"
    TERMINATED = "terminated"
    ROLLED_BACK = "rolled_back"


SENTENCES: Mapping[HostState, str] = {
    HostState.PLANNED: "It is in the plan, and nothing has been sent to it yet.",
    HostState.SCANNING: "The Scan before is on its way.",
    HostState.READY: "Patches are missing; it waits for a place in each of its failure domains.",
    HostState.INSTALLING: "The Install is on its way; it does not reboot.",
    HostState.NEEDS_REBOOT: "Patches are installed and count only after a reboot, which is a step of its own.",
    HostState.REBOOTING: "It was told to reboot, and no new boot has been seen yet.",
    HostState.TO_VERIFY: "The Scan after, which tells the truth, is still to be sent.",
    HostState.VERIFYING: "The Scan after is on its way.",
    HostState.PATCHED: "A Scan after the Install found nothing missing and no reboot waiting.",
    HostState.ALREADY_COMPLIANT: "The Scan before found nothing to do.",
    HostState.PENDING_REBOOT: "Patches are installed and do not protect before a reboot: reboot it, then scan it again.",
    HostState.FAILED: "The Scan or the Install failed, or patches are missing all the same: look at its command's output, mend "
    "it, and run the campaign for its stage again.",
    HostState.UNREACHABLE: "Its agent did not answer, or the command was never delivered: look at agent, network and instance "
    "profile, and run the campaign for its stage again.",
    HostState.STOPPED: "The instance is stopped and comes back unpatched: start it and run the campaign for its stage again.",
    HostState.EXCEPTED: "It is left out: by an exception that somebody granted, since nobody has tried patches on its "
    "platform, since its kernel update waits for a window, or since no snapshot of it can be taken; the reason says which, and "
    "the next run looks at it again.",
    HostState.OUT_OF_WINDOW: "It would not have been over before its window closed, so it was not begun: the next run takes it, "
    "or widen the window or the concurrency.",
    HostState.REPLACED: "Another instance stands in its place, and is settled itself.",
    HostState.TERMINATED: "The instance is gone; there is nothing left to patch.",
    HostState.ROLLING_BACK: "It is brought back to what it was before it was patched.",
    HostState.ROLLED_BACK: "It is what it was before it was patched, and lacks the same patches again: they are findings until "
    "a run patches it.",
}
"""What each state means, and for a class that is not the wished one what to do next. Reports and pages show it."""

TERMINAL = frozenset(
    {
        HostState.PATCHED, HostState.ALREADY_COMPLIANT, HostState.PENDING_REBOOT, HostState.FAILED, HostState.UNREACHABLE,
        HostState.STOPPED, HostState.EXCEPTED, HostState.OUT_OF_WINDOW, HostState.REPLACED, HostState.TERMINATED,
        HostState.ROLLED_BACK,
    }
)  # fmt: skip
IN_FLIGHT = frozenset(
    {
        HostState.INSTALLING, HostState.NEEDS_REBOOT, HostState.REBOOTING, HostState.TO_VERIFY, HostState.VERIFYING,
        HostState.ROLLING_BACK,
    }
)  # fmt: skip
"""States that hold a place in the budget and end by themselves."""
HOLDS_PLACE = IN_FLIGHT | {HostState.FAILED, HostState.UNREACHABLE, HostState.PENDING_REBOOT}
ERRORS = frozenset({HostState.FAILED, HostState.UNREACHABLE})
"""States that count against the error budget. SSM itself does not count the undelivered (reference: RunCommand, MaxErrors)."""

_GONE = frozenset({HostState.TERMINATED, HostState.REPLACED})
_NEVER_REACHED = frozenset({HostState.UNREACHABLE, HostState.STOPPED, HostState.FAILED}) | _GONE
LEGAL: Mapping[HostState, frozenset[HostState]] = {
    HostState.PLANNED: frozenset(
        {HostState.SCANNING, HostState.EXCEPTED, HostState.OUT_OF_WINDOW, HostState.ROLLING_BACK}
    )
    | _NEVER_REACHED,
    HostState.ROLLING_BACK: frozenset({HostState.TO_VERIFY}) | _NEVER_REACHED,
    HostState.SCANNING: frozenset({HostState.READY, HostState.ALREADY_COMPLIANT, HostState.PLANNED, HostState.EXCEPTED})
    | _NEVER_REACHED,
    HostState.READY: frozenset({HostState.INSTALLING, HostState.OUT_OF_WINDOW, HostState.EXCEPTED}) | _NEVER_REACHED,
    HostState.INSTALLING: frozenset({HostState.NEEDS_REBOOT, HostState.TO_VERIFY, HostState.READY}) | _NEVER_REACHED,
    HostState.NEEDS_REBOOT: frozenset({HostState.REBOOTING, HostState.PENDING_REBOOT}) | _NEVER_REACHED,
    HostState.REBOOTING: frozenset({HostState.TO_VERIFY, HostState.PENDING_REBOOT, HostState.NEEDS_REBOOT}) | _NEVER_REACHED,
    HostState.TO_VERIFY: frozenset({HostState.VERIFYING}) | _NEVER_REACHED,
    HostState.VERIFYING: frozenset(
        {
            HostState.PATCHED, HostState.NEEDS_REBOOT, HostState.PENDING_REBOOT, HostState.TO_VERIFY, HostState.READY,
            HostState.ROLLED_BACK,
            HostState.ALREADY_COMPLIANT,  # an Install by the policy's baseline that had nothing to do
        }
    )
    | _NEVER_REACHED,
    **{state: frozenset() for state in TERMINAL},
    HostState.TERMINATED: frozenset({HostState.REPLACED}),  # who stands in its place may appear minutes later
}
"""Which moves are legal; every other one is refused, here and in the ledger. Terminal classes are final within a run, save
that a terminated host becomes a replaced one when the instance in its place appears."""


def check_move(host: HostId, before: HostState, after: HostState) -> None:
    """Nothing, if the move is legal.

    Raises:
        IllegalMove: it is not in `LEGAL`.
    """
    if after not in LEGAL[before]:
        raise IllegalMove(f"{host} cannot go from {before.value} to {after.value}")


class StepKind(StrEnum):
    """What a dispatch does to its hosts."""

    SCAN = "scan"
    INSTALL = "install"
    REBOOT = "reboot"
    VERIFY = "verify"  # the Scan after


RUNNING_STATE: Mapping[StepKind, HostState] = {
    StepKind.SCAN: HostState.SCANNING,
    StepKind.INSTALL: HostState.INSTALLING,
    StepKind.REBOOT: HostState.REBOOTING,
    StepKind.VERIFY: HostState.VERIFYING,
}
FROM_STATE: Mapping[StepKind, HostState] = {
    StepKind.SCAN: HostState.PLANNED,
    StepKind.INSTALL: HostState.READY,
    StepKind.REBOOT: HostState.NEEDS_REBOOT,
    StepKind.VERIFY: HostState.TO_VERIFY,
}


class DispatchState(StrEnum):
    """Where a dispatch stands between us and AWS."""

    INTENDED = "intended"  # written down; the call may or may not have been made
    SENT = "sent"  # AWS has it, under a command id
    ENDED = "ended"  # every host of it is accounted for
    CANCELLED = "cancelled"  # stopped by us; its hosts are in a known state
    REFUSED = "refused"  # AWS refused the call as a whole: no host was touched


EXPECTED: Mapping[StepKind, timedelta] = {
    StepKind.SCAN: timedelta(seconds=60),
    StepKind.INSTALL: timedelta(minutes=6),
    StepKind.REBOOT: timedelta(minutes=2),
    StepKind.VERIFY: timedelta(seconds=60),
}
"""How long a step usually takes on Linux (examples in AWS's guides: Scan 15-60 s, Install 1-10 min, reboot 1-3 min)."""

AT_MOST: Mapping[StepKind, timedelta] = {
    StepKind.SCAN: timedelta(minutes=2),
    StepKind.INSTALL: timedelta(minutes=10),
    StepKind.REBOOT: timedelta(minutes=3),
    StepKind.VERIFY: timedelta(minutes=2),
}
"""How long a step hardly ever takes longer than, until a platform's own times are known: the upper ends of what AWS's guides
show for Linux (Install 1-10 min, reboot 1-3 min)."""
AT_MOST_WINDOWS: Mapping[StepKind, timedelta] = {
    StepKind.SCAN: timedelta(minutes=8),
    StepKind.INSTALL: timedelta(minutes=60),
    StepKind.REBOOT: timedelta(minutes=10),
    StepKind.VERIFY: timedelta(minutes=8),
}
"""The same for Windows (Scan 1-8 min, Install 10-60 min, reboots 3-10 min)."""


def at_most(platform: str) -> Mapping[StepKind, timedelta]:
    """The default of how long each step takes on a platform."""
    return AT_MOST_WINDOWS if "Windows" in platform else AT_MOST


OPEN = frozenset({DispatchState.INTENDED, DispatchState.SENT})
"""Dispatches that AWS may still be working on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostRow:
    """A host of a stage as the ledger has it.

    Attributes:
        domains: the failure domains whose budgets it counts in, all at once (`fleet.failure_domains`); the stage is the last.
        reason: one sentence: why it is in this state.
        token: the dispatch that it is in, or was in last.
        since: when it came into this state.
        installed: patches that the Install put on it, as far as a report said so.
    """

    run: RunId
    stage: StageName
    host: HostId
    cell: Cell
    name: str
    platform: str
    domains: tuple[str, ...]
    state: HostState
    reason: str = ""
    token: str | None = None
    since: datetime
    installed: int | None = None
    missing_before: int | None = None
    missing_after: int | None = None

    @property
    def domain(self) -> str:
        """The narrowest of its failure domains, for people."""
        return self.domains[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class DispatchRow:
    """One command to at most 50 hosts as the ledger has it; `token` is its Comment in AWS.

    Attributes:
        fencing: the lease under which it was intended.
        requested_at: AWS's own time of the command; None until it is known.
        command: AWS's command id; None until it is known.
        platform: of its hosts; a dispatch has one, so that the ledger can tell how long a step takes on it.
    """

    token: str
    run: RunId
    stage: StageName
    step: StepKind
    cell: Cell
    hosts: tuple[HostId, ...]
    attempt: int
    state: DispatchState
    fencing: int
    intended_at: datetime
    snapshot: str = ""
    command: str | None = None
    requested_at: datetime | None = None
    ended_at: datetime | None = None
    platform: str = ""


def token(run: RunId, stage: StageName, step: StepKind, attempt: int, hosts: Iterable[HostId]) -> str:
    """32 hex digits that name this intent and no other; the same wherever and however often it is computed."""
    return uuid.uuid5(TOKENS, "|".join((run, stage, step.value, str(attempt), *sorted(hosts)))).hex


def snapshot(run: RunId, cell: Cell, platform: str) -> str:
    """The patch snapshot of a run for one cell and platform: every wave sees the same approved patches (AWS: SnapshotId)."""
    return str(uuid.uuid5(SNAPSHOTS, f"{run}|{cell}|{platform}"))


class Outcome(StrEnum):
    """How the invocation of a command on one host stands, from its StatusDetails and nothing else."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the script ended with a non-zero code, or ran out of its execution time
    UNDELIVERED = "undelivered"  # timed out in delivery, undeliverable, terminated before it was sent
    DENIED = "denied"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """What AWS says of one command on one host.

    Attributes:
        details: AWS's StatusDetails, for people.
        exit_code: of the script; None while it runs or if it never ran.
        ended: when its last step had ended, by AWS's clock; None while it runs, and where AWS says nothing of it.
    """

    token: str
    host: HostId
    outcome: Outcome
    details: str
    exit_code: int | None = None
    ended: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchState:
    """A node's row of DescribeInstancePatchStates: the last report, which a Scan overwrites.

    Attributes:
        operation: ``Scan`` or ``Install``.
        ended: OperationEndTime, AWS's clock.
        note: what is missing, in words, where it was judged by a lockfile.
        kernels: kernel packages that an Install would bring, or a reboot activate; empty in stages that may do both.
        patched_at: when Patch Manager last installed something without rebooting, as all our Installs do (AWS's clock); later
            Scans keep it. None: never.
        unproven: why what was installed before it is not known to be all; empty where the report itself tells.
        received: how many patches came with the Install before it, where they were counted by themselves; None: they were not.
    """

    host: HostId
    operation: str
    ended: datetime
    snapshot: str
    installed: int
    missing: int
    failed: int
    pending_reboot: int
    rejected: int
    critical_missing: int = 0
    security_missing: int = 0
    note: str = ""
    kernels: tuple[str, ...] = ()
    patched_at: datetime | None = None
    unproven: str = ""
    received: int | None = None

    @property
    def compliant(self) -> bool:
        """Nothing missing, failed, rejected, waiting for a reboot (AWS: patch compliance states) or unproven."""
        return self.missing + self.failed + self.rejected + self.pending_reboot == 0 and not self.unproven

    @property
    def wrong(self) -> str:
        """What is not right, in words."""
        parts = (
            (self.missing, "missing"), (self.failed, "failed"), (self.rejected, "rejected but installed"),
            (self.pending_reboot, "waiting for a reboot"),
        )  # fmt: skip
        told = [f"{count} {word}" for count, word in parts if count]
        counted = ", ".join([*told, self.unproven] if self.unproven else told) or "nothing"
        return f"{counted} ({self.note})" if self.note else counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What AWS says at one moment about a stage's hosts and commands.

    Attributes:
        hosts: facts by id.
        looked_at: hosts that AWS was asked about: one of them that is absent from `hosts` is gone, of any other nothing new
            is known. None: all were asked about.
        invocations: by (token, host); absent while AWS does not list them yet.
        patch_states: by host; absent means never reported, which is unknown and not compliant.
        complete: tokens whose command is over: no invocation of it will change any more.
    """

    hosts: Mapping[HostId, Host]
    invocations: Mapping[tuple[str, HostId], Invocation] = field(default_factory=dict)
    patch_states: Mapping[HostId, PatchState] = field(default_factory=dict)
    complete: frozenset[str] = frozenset()
    looked_at: frozenset[HostId] | None = None

    def gone(self, host: HostId) -> bool:
        """Whether AWS was asked about `host` and does not list it."""
        return host not in self.hosts and (self.looked_at is None or host in self.looked_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRules:
    """What the plan fixes for a stage.

    Attributes:
        places: how many hosts of each failure domain may be away at once, by domain, the stage's among them. A domain that
            is not in it (a zone that only a late joiner is in) has one place.
        error_budget: hosts that may fail or be unreachable before nothing further is sent; 0 stops at the first.
        step_limit: how long a step and its patch report may take; after that the host counts as unreachable or failed.
        reboot: whether hosts reboot whose patches wait for it; if not, they end as `pending_reboot`.
        snapshots: the patch snapshot of each ``cell|platform``: all waves of a run see the same approved patches.
        window: the span in which hosts may be disrupted; None: at any time.
        override: baselines that hold in place of the accounts'; None: the accounts' own do.
        expected: how long each step takes at most in nineteen of twenty cases, by platform; `at_most` where it is absent.
    """

    run: RunId
    stage: StageName
    order: tuple[HostId, ...]
    places: Mapping[str, int]
    error_budget: int
    snapshots: Mapping[str, str] = field(default_factory=dict)  # by "cell|platform"
    reboot: bool = True
    window: Span | None = None
    override: Override | None = None
    expected: Mapping[str, Mapping[StepKind, timedelta]] = field(default_factory=dict)
    step_limit: Mapping[StepKind, timedelta] = field(
        default_factory=lambda: {
            StepKind.SCAN: timedelta(hours=1),
            StepKind.INSTALL: timedelta(hours=4),
            StepKind.REBOOT: timedelta(hours=2),
            StepKind.VERIFY: timedelta(hours=1),
        }
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """A host goes from one state to another, and why."""

    host: HostId
    before: HostState
    after: HostState
    reason: str
    installed: int | None = None
    missing_before: int | None = None
    missing_after: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """Send this step to these hosts (one cell, one platform, at most 50).

    A reboot is a dispatch like any other (`StepKind.REBOOT`): it is a command with a token, an intent before it and an
    outcome of its own, and a second kind of value for it would have every reader ask twice.
    """

    token: str
    step: StepKind
    cell: Cell
    platform: str
    hosts: tuple[HostId, ...]
    attempt: int
    snapshot: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Nothing to do before `until`, or before what `commands` names has ended.

    Attributes:
        reason: one sentence for people.
        ends: what would end the wait.
        tokens: the dispatches that are waited for.
        expected: how long it usually takes; None where nobody knows.
        look: when to look again at the latest, where no command tells that it is time; None: as with any wait.
    """

    reason: str
    ends: str
    until: datetime
    tokens: tuple[str, ...] = ()
    expected: timedelta | None = None
    look: timedelta | None = None


NO_PLACE = "disruption budget"
"""The rule of a halt for want of a place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt:
    """Nothing further is sent in this stage, by the rule named.

    Attributes:
        rule: which rule stopped it.
        hosts: those that made it stop.
        advice: what a person can do.
    """

    rule: str
    reason: str
    hosts: tuple[HostId, ...]
    advice: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """Each host of the stage is settled; `classes` counts them and sums to the stage's hosts."""

    classes: Mapping[HostState, int]


Decision = tuple[Dispatch, ...] | Wait | Halt | Done


class _MoveMaker(Protocol):
    """Makes a move of the host that is looked at."""

    def __call__(
        self,
        after: HostState,
        reason: str,
        *,
        installed: int | None = None,
        missing_before: int | None = None,
        missing_after: int | None = None,
    ) -> Move: ...


def _fresh(state: PatchState | None, dispatch: DispatchRow, operation: str) -> PatchState | None:
    """`state`, if it is the report of this very command and not of an earlier one."""
    if state is None or dispatch.requested_at is None or state.operation != operation:
        return None
    return state if state.ended >= dispatch.requested_at else None


def observed(
    rules: StageRules,
    rows: Sequence[HostRow],
    dispatches: Mapping[str, DispatchRow],
    seen: Observation,
    *,
    now: datetime,
) -> tuple[Move, ...]:
    """What the observation says about each host that is not settled, as moves to be written to the ledger.

    A host's outcome comes from its own invocation and a Scan after it, never from the command's status.
    """
    moves = (_observed_host(rules, row, dispatches, seen, now=now) for row in rows)
    return tuple(move for move in moves if move is not None)


def _observed_host(
    rules: StageRules, row: HostRow, dispatches: Mapping[str, DispatchRow], seen: Observation, *, now: datetime
) -> Move | None:
    if row.state in TERMINAL:
        return None

    def move(
        after: HostState,
        reason: str,
        *,
        installed: int | None = None,
        missing_before: int | None = None,
        missing_after: int | None = None,
    ) -> Move:
        return Move(
            host=row.host,
            before=row.state,
            after=after,
            reason=reason,
            installed=installed,
            missing_before=missing_before,
            missing_after=missing_after,
        )

    if seen.gone(row.host):
        return move(HostState.TERMINATED, "EC2 no longer lists the instance")
    host = seen.hosts.get(row.host)
    ready = fleet.readiness(host) if host is not None else None
    if host is not None and ready is Readiness.TERMINATED:
        return move(HostState.TERMINATED, fleet.why_not(host))
    if row.state not in RUNNING_STATE.values():
        return _not_running(row, host, ready, move) if host is not None and ready is not None else None
    dispatch = dispatches.get(row.token or "")
    if dispatch is None or dispatch.state is DispatchState.INTENDED:
        return None  # not known to be sent: the executor looks it up by its token first
    return _running(rules, dispatches, row, dispatch, host, seen, move, now=now)


def _not_running(row: HostRow, host: Host, ready: Readiness, move: _MoveMaker) -> Move | None:
    """A host that waits for its next step, and cannot take it."""
    if ready is Readiness.STOPPED:
        return move(HostState.STOPPED, fleet.why_not(host))
    if ready is Readiness.UNREACHABLE:
        after = {
            HostState.NEEDS_REBOOT: "; the patches are installed and no reboot has been seen",
            HostState.TO_VERIFY: "; what the Install left behind is not known",
        }.get(row.state, "")
        return move(HostState.UNREACHABLE, fleet.why_not(host) + after)
    return None


def _running(
    rules: StageRules,
    dispatches: Mapping[str, DispatchRow],
    row: HostRow,
    dispatch: DispatchRow,
    host: Host | None,
    seen: Observation,
    move: _MoveMaker,
    *,
    now: datetime,
) -> Move | None:
    """A host with a command of ours on its way."""
    invocation = seen.invocations.get((dispatch.token, row.host))
    late = now > _limit(rules, row, dispatch)
    if invocation is None:
        if dispatch.token in seen.complete:
            return move(HostState.UNREACHABLE, "the command ended without ever reaching this host")
        return move(HostState.UNREACHABLE, f"no word of the {dispatch.step.value} within its time limit") if late else None
    match invocation.outcome:
        case Outcome.RUNNING:
            if late:
                return move(
                    HostState.UNREACHABLE,
                    f"the {dispatch.step.value} has not ended within {rules.step_limit[dispatch.step]} ({invocation.details})",
                )
            return None
        case Outcome.UNDELIVERED:
            return _undelivered(dispatch, invocation, host, move)
        case Outcome.DENIED:
            return move(HostState.UNREACHABLE, "AWS denied access to this host (AccessDenied)")
        case Outcome.CANCELLED:
            others = {name: one for name, one in dispatches.items() if one.state is not DispatchState.CANCELLED}
            return _cancelled(row, dispatch, attempts(others, dispatch.step, row.host), move)
        case Outcome.FAILED | Outcome.SUCCEEDED:
            return _ended(rules, dispatches, row, dispatch, invocation, seen, move, late=late)


def _limit(rules: StageRules, row: HostRow, dispatch: DispatchRow) -> datetime:
    """Until when a step may take: counted from AWS's own time of it, for an intent may have waited long to be sent."""
    return max(row.since, dispatch.requested_at or row.since) + rules.step_limit[dispatch.step]


def _undelivered(dispatch: DispatchRow, invocation: Invocation, host: Host | None, move: _MoveMaker) -> Move:
    """Delivery failed. After an Install that may still mean that it runs: AWS says `DeliveryTimedOut` for silence, too."""
    if dispatch.step is StepKind.INSTALL and invocation.details == "DeliveryTimedOut":
        return move(HostState.TO_VERIFY, "the Install was not heard of again (DeliveryTimedOut); a Scan will tell what it did")
    if dispatch.step is StepKind.REBOOT:
        return move(HostState.UNREACHABLE, f"it was told to reboot and has not come back ({invocation.details})")
    if host is not None and fleet.readiness(host) is Readiness.STOPPED:
        return move(HostState.STOPPED, fleet.why_not(host))
    return move(HostState.UNREACHABLE, f"the command was not delivered ({invocation.details})")


def _cancelled(row: HostRow, dispatch: DispatchRow, times: int, move: _MoveMaker) -> Move:
    """A cancelled command: what had begun is looked at by a Scan, what disrupts nobody may begin again, but not for ever."""
    if times >= MOST_CANCELLED and dispatch.step is not StepKind.INSTALL:
        return move(HostState.FAILED, f"its {dispatch.step.value} was cancelled {times} times, by nobody here")
    match row.state:
        case HostState.SCANNING:
            return move(HostState.PLANNED, "its Scan was cancelled")
        case HostState.INSTALLING:
            return move(HostState.TO_VERIFY, "its Install was cancelled; a Scan will tell how far it had come")
        case HostState.REBOOTING:
            return move(HostState.TO_VERIFY, "its reboot was cancelled; a Scan will tell whether it took place")
        case _:
            return move(HostState.TO_VERIFY, "its Scan was cancelled")


def _ended(
    rules: StageRules,
    dispatches: Mapping[str, DispatchRow],
    row: HostRow,
    dispatch: DispatchRow,
    invocation: Invocation,
    seen: Observation,
    move: _MoveMaker,
    *,
    late: bool,
) -> Move | None:
    ok = invocation.outcome is Outcome.SUCCEEDED
    how = f"{invocation.details}, exit code {invocation.exit_code}" if invocation.exit_code is not None else invocation.details
    state = seen.patch_states.get(row.host)
    match dispatch.step:
        case StepKind.INSTALL if not ok:
            return move(HostState.TO_VERIFY, f"the Install failed ({how}); a Scan will tell what is missing")
        case StepKind.INSTALL if _is_overridden(rules, row):
            return move(HostState.TO_VERIFY, "installed by the policy's baseline, of which AWS keeps no report")
        case StepKind.INSTALL:
            report = _fresh(state, dispatch, "Install")
            if report is None:
                return _no_report(late, dispatch, move, HostState.TO_VERIFY)
            if report.kernels:
                named = ", ".join(report.kernels)
                return move(HostState.TO_VERIFY, f"installed, and with it a kernel ({named}) that its Scan did not show")
            if report.pending_reboot and rules.reboot:
                count = report.pending_reboot
                return move(HostState.NEEDS_REBOOT, f"{count} patches wait for a reboot", installed=count)
            return move(HostState.TO_VERIFY, "installed; no reboot needed")
        case StepKind.REBOOT if not ok:
            return move(HostState.TO_VERIFY, f"the reboot failed ({how}); a Scan will tell whether patches still wait for it")
        case StepKind.REBOOT:
            return move(HostState.TO_VERIFY, "a new boot was seen")
        case StepKind.VERIFY if invocation.exit_code in BUSY_EXITS and attempts(dispatches, dispatch.step, row.host) < MOST_BUSY:
            return move(HostState.TO_VERIFY, f"{_BUSY} (exit code {invocation.exit_code})")
        case StepKind.SCAN | StepKind.VERIFY if not ok:
            return move(HostState.FAILED, f"the Scan failed ({how})")
        case StepKind.SCAN:
            report = _fresh(state, dispatch, "Scan")
            if report is None:
                return _no_report(late, dispatch, move, HostState.FAILED)
            return _scanned(rules, row, report, move)
        case StepKind.VERIFY:
            report = _fresh(state, dispatch, "Scan")
            if report is None:
                return _no_report(late, dispatch, move, HostState.FAILED)
            # A command that AWS refused as a whole, or never got, rebooted nobody.
            sent = {
                name: one
                for name, one in dispatches.items()
                if one.command is not None and one.state is not DispatchState.REFUSED
            }
            reboots = attempts(sent, StepKind.REBOOT, row.host)
            return _verified(rules, row, report, move, reboots=reboots, stopped=_was_stopped(dispatches, row.host))


def _no_report(late: bool, dispatch: DispatchRow, move: _MoveMaker, after: HostState) -> Move | None:
    """The command ended well, but its report is not there: wait for it, then call it what it is."""
    return move(after, f"the {dispatch.step.value} ended, but its patch report never became visible") if late else None


def waits_for_window(stage: str, kernels: Sequence[str] = ()) -> str:
    """Why a host with a kernel update is left out of a stage without a window (rule 7), and what to do about it.

    Args:
        kernels: the packages, where a Scan has named them.
    """
    named = f" ({', '.join(kernels)})" if kernels else ""
    return (
        f"its kernel update{named} waits for a maintenance window, and stage {stage} has none: give the stage a `window`, or "
        "patch the host in a campaign whose stage has one"
    )


def _is_overridden(rules: StageRules, row: HostRow) -> bool:
    """Whether its Install goes by another baseline than the Scans do."""
    return rules.override is not None and rules.override.on(row.platform) is not None


def _scanned(rules: StageRules, row: HostRow, report: PatchState, move: _MoveMaker) -> Move:
    if _is_overridden(rules, row) and not report.kernels and report.missing + report.failed == 0:
        reason = "the account's baseline misses nothing; what the policy's approves beyond it the Install will find"
        return move(HostState.READY, reason, missing_before=0)
    if report.compliant:
        return move(HostState.ALREADY_COMPLIANT, "the Scan found nothing to do", missing_before=0, missing_after=0)
    if report.kernels:
        reason = waits_for_window(rules.stage, report.kernels)
        return move(HostState.EXCEPTED, reason, missing_before=report.missing + report.failed)
    if report.missing + report.failed == 0:
        # It goes the whole way, for a reboot needs a place in the budget as an Install does.
        return move(HostState.READY, f"nothing missing, but: {report.wrong} since before", missing_before=0)
    missing = report.missing + report.failed
    return move(HostState.READY, f"{missing} patches missing", missing_before=missing)


def _was_stopped(dispatches: Mapping[str, DispatchRow], host: HostId) -> bool:
    """Whether the last Install of this host was cancelled by us, because a person ended the stage's task."""
    installs = [one for one in dispatches.values() if one.step is StepKind.INSTALL and host in one.hosts and one.command]
    return bool(installs) and max(installs, key=lambda one: one.attempt).state is DispatchState.CANCELLED


def _verified(rules: StageRules, row: HostRow, report: PatchState, move: _MoveMaker, *, reboots: int, stopped: bool) -> Move:
    missing = report.missing + report.failed
    if stopped and missing:
        return move(HostState.READY, f"its Install was stopped half-way: {missing} patches still missing")
    if stopped and report.unproven:
        return move(HostState.READY, "its Install was stopped half-way, and how far it had come is not known")
    if report.compliant and _is_overridden(rules, row) and report.received == 0:
        reason = "its Install by the policy's baseline found nothing to install, and a Scan after it misses nothing of that"
        return move(HostState.ALREADY_COMPLIANT, reason, missing_after=0)
    if report.compliant and _is_overridden(rules, row):
        more = f" ({report.note})" if report.note else ""
        reason = f"its Install by the policy's baseline succeeded, and a Scan after it misses nothing that this approves{more}"
        return move(HostState.PATCHED, reason, missing_after=0)
    if report.compliant:
        return move(HostState.PATCHED, "a Scan after the Install found nothing missing", missing_after=0)
    if missing == 0 and report.rejected == 0 and not report.unproven and report.pending_reboot:
        if report.kernels:
            return move(
                HostState.PENDING_REBOOT,
                f"a kernel ({', '.join(report.kernels)}) was published after its Scan and came with its Install, and stage "
                f"{rules.stage} has no window to reboot into it; reboot the host in a maintenance window and scan it again",
                missing_after=0,
            )
        if rules.reboot and reboots < MOST_REBOOTS:
            return move(HostState.NEEDS_REBOOT, f"{report.pending_reboot} patches wait for a reboot", missing_after=0)
        return move(
            HostState.PENDING_REBOOT,
            f"{report.pending_reboot} patches still wait for a reboot; reboot the host and scan it again",
            missing_after=0,
        )
    before = f" ({row.reason})" if row.reason else ""
    return move(HostState.FAILED, f"the Scan after the Install says: {report.wrong}{before}", missing_after=missing)


def decide(
    rules: StageRules,
    rows: Sequence[HostRow],
    dispatches: Mapping[str, DispatchRow],
    *,
    unhealthy_before: Mapping[str, Collection[HostId]] | None = None,
    recovered: Collection[HostId] = (),
    errors_since: datetime | None = None,
    now: datetime,
) -> Decision:
    """What to do next, from the ledger's rows after `observed` was applied.

    Args:
        unhealthy_before: hosts by failure domain that were unhealthy before we came and still are, whoever patches them.
        recovered: hosts that failed, could not be reached or wait for a reboot, and serve again: they give their place back.
        errors_since: the moment of the last halt that a person cleared; errors up to it are spent no second time, but
            their hosts keep their places.
        now: the campaign's time.

    Returns:
        Dispatches to intend and send; or one of `Wait`, `Halt`, `Done`.
    """
    spent = [row for row in rows if row.state in ERRORS and (errors_since is None or row.since > errors_since)]
    in_flight = [row for row in rows if row.state in IN_FLIGHT or row.state is HostState.SCANNING]
    unhealthy = unhealthy_before or {}
    halt = _over_budget(rules, spent)
    # What disrupts nobody, or ends a disruption that has begun, goes on even in a halted stage.
    busy = {row.host for row in rows if _is_busy(row) and now < row.since + BUSY_AGAIN}
    due = steps_due(rules, [row for row in rows if row.host not in busy], dispatches, StepKind.VERIFY, now=now)
    due += steps_due(rules, rows, dispatches, StepKind.REBOOT, now=now)
    if halt is None:
        due += steps_due(rules, rows, dispatches, StepKind.SCAN, now=now)
        due += _installs(rules, rows, dispatches, unhealthy, recovered, now=now)
    if due:
        return due
    if in_flight:
        return _wait(rules, in_flight, dispatches, halt, now=now)
    if halt is not None:
        return halt
    if all(row.state in TERMINAL for row in rows):
        return Done(classes=Counter(row.state for row in rows))
    if rules.window is not None and now < rules.window.opens:
        return Wait(
            reason=_opens(rules.window),
            ends="the window opens",
            until=rules.window.opens,
        )
    if any(not in_time(rules, row, now=now) for row in rows):
        return Wait(  # `out_of_time` has not been asked since this became true
            reason="hosts no longer fit into the window",
            ends="they are settled as out_of_window",
            until=now,
            expected=timedelta(),
        )
    return _no_place(rules, rows, unhealthy, recovered)


def _opens(window: Span) -> str:
    """When it opens, and why no earlier, if anything stood in the way: a freeze, a closed calendar."""
    because = f" ({window.because})" if window.because else ""
    return f"the stage's window opens at {window.opens:%Y-%m-%d %H:%M} UTC{because}"


_STILL: Mapping[HostState, tuple[StepKind, ...]] = {
    HostState.PLANNED: (StepKind.SCAN, StepKind.INSTALL, StepKind.REBOOT, StepKind.VERIFY),
    HostState.READY: (StepKind.INSTALL, StepKind.REBOOT, StepKind.VERIFY),
    HostState.NEEDS_REBOOT: (StepKind.REBOOT,),
}
"""What is still before a host that is not begun, or not rebooted. What is on its way is brought to its end."""


def still_takes(rules: StageRules, row: HostRow) -> timedelta:
    """How long it takes at most, in nineteen of twenty cases, until a host that now begins its next step is through."""
    known, usual = rules.expected.get(row.platform, {}), at_most(row.platform)
    return sum((known.get(step, usual[step]) for step in _STILL.get(row.state, ())), timedelta())


def in_time(rules: StageRules, row: HostRow, *, now: datetime) -> bool:
    """Whether a host that begins its next step now is expected to be through before the window closes (rule 7)."""
    if rules.window is None or row.state not in _STILL:
        return True
    return now + still_takes(rules, row) <= rules.window.closes


def out_of_time(rules: StageRules, rows: Sequence[HostRow], *, now: datetime) -> tuple[Move, ...]:
    """Hosts that no longer fit into the window, which only gets shorter: not begun, they are `out_of_window`; installed and
    not rebooted, `pending_reboot`."""
    moves = []
    for row in rows:
        if rules.window is None or in_time(rules, row, now=now):
            continue
        minutes = math.ceil(still_takes(rules, row) / timedelta(minutes=1))
        closes = f"{rules.window.closes:%Y-%m-%d %H:%M} UTC"
        if row.state is HostState.NEEDS_REBOOT:
            after = HostState.PENDING_REBOOT
            reason = f"installed, but a reboot of {minutes} minutes would not be over before the window closes at {closes}; "
            reason += "reboot it and scan it again"
        else:
            after = HostState.OUT_OF_WINDOW
            reason = f"not begun: it takes up to {minutes} minutes on {row.platform}, and the window closes at {closes}; "
            reason += "the next run takes it"
        moves.append(Move(host=row.host, before=row.state, after=after, reason=reason))
    return tuple(moves)


def late_joiner(rules: StageRules, host: Host, domains: tuple[str, ...], *, now: datetime) -> HostRow:
    """A host that appeared while the stage ran, as it enters the ledger."""
    by = f", launched by group {host.group}" if host.group else ""
    return HostRow(
        run=rules.run,
        stage=rules.stage,
        host=host.id,
        cell=host.cell,
        name=host.name,
        platform=host.platform,
        domains=domains,
        state=HostState.PLANNED,
        reason=f"late joiner: appeared at {now:%Y-%m-%d %H:%M} UTC{by}",
        since=now,
    )


NOTICED = timedelta(minutes=20)
"""How much earlier than we noticed a host may have vanished: a stage is looked at every quarter of an hour at least."""


def replacements(rows: Sequence[HostRow], newcomers: Sequence[Host]) -> tuple[Move, ...]:
    """Terminated hosts in whose Auto Scaling group an instance was launched after they vanished: that one replaces them.

    Args:
        newcomers: hosts that appeared while the stage ran; each stands in one place at most.
    """
    named = " ".join(row.reason for row in rows if row.state is HostState.REPLACED)
    free = [host for host in newcomers if host.group and host.launched is not None and host.id not in named]
    moves = []
    for row in sorted(rows, key=lambda row: (row.since, row.host)):
        if row.state is not HostState.TERMINATED:
            continue
        its = [
            host
            for host in free
            if fleet.group_domain(host.cell, str(host.group)) in row.domains
            and host.launched is not None
            and host.launched >= row.since - NOTICED
        ]
        if its:
            new = min(its, key=lambda host: (host.launched, host.id))
            free.remove(new)
            moves.append(
                Move(
                    host=row.host,
                    before=row.state,
                    after=HostState.REPLACED,
                    reason=f"replaced by {new.id}, which group {new.group} launched at {new.launched:%Y-%m-%d %H:%M} UTC",
                )
            )
    return tuple(moves)


def _over_budget(rules: StageRules, spent: Sequence[HostRow]) -> Halt | None:
    if len(spent) <= rules.error_budget:
        return None
    return Halt(
        rule="error budget",
        reason=f"{len(spent)} hosts failed or could not be reached, {rules.error_budget} may",
        hosts=tuple(row.host for row in spent),
        advice="look at the hosts named, mend or except them, then clear this task: it goes on with those not settled",
    )


def _no_place(
    rules: StageRules, rows: Sequence[HostRow], unhealthy: Mapping[str, Collection[HostId]], recovered: Collection[HostId]
) -> Halt:
    """Hosts are ready, nothing is on its way that could make room for them, and no domain of theirs can miss one more."""
    used = _used(rows, unhealthy, recovered)
    waiting = [row for row in rows if row.state not in TERMINAL]
    full = sorted({domain for row in waiting for domain in row.domains if not _has_place(rules, used, row, domain)})
    stuck = [row.host for row in rows if holds_place(row, recovered) and not set(full).isdisjoint(row.domains)]
    outside = sorted({host for domain in full for host in used.get(domain, ())} - set(stuck))
    return Halt(
        rule=NO_PLACE,
        reason=f"every place of {', '.join(full)} is held by a host that failed, is unreachable or was unhealthy before",
        hosts=(*stuck, *outside),
        advice="bring those hosts back to health, then clear this task: it goes on with the hosts not settled",
    )


def _used(
    rows: Iterable[HostRow], unhealthy: Mapping[str, Collection[HostId]], recovered: Collection[HostId]
) -> dict[str, set[HostId]]:
    """Who holds the places of each failure domain."""
    used: dict[str, set[HostId]] = {domain: set(hosts) for domain, hosts in unhealthy.items()}
    sick = {host for hosts in unhealthy.values() for host in hosts}
    for row in rows:
        # A host of the stage that was unhealthy in one of its domains is missing in all of them.
        if row.host in sick or holds_place(row, recovered):
            for domain in row.domains:
                used.setdefault(domain, set()).add(row.host)
    return used


def holds_place(row: HostRow, recovered: Collection[HostId] = ()) -> bool:
    """Whether a host is away because of us, or went away while we were at it, and is not healthy again.

    One that was stopped before we came never served, and takes nothing from the share; one that stopped or vanished after a
    command of ours did.
    """
    if row.state in IN_FLIGHT:
        return True
    if row.host in recovered:
        return False
    return row.state in HOLDS_PLACE or (row.state in (HostState.STOPPED, HostState.TERMINATED) and row.token is not None)


def _has_place(rules: StageRules, used: Mapping[str, Collection[HostId]], row: HostRow, domain: str) -> bool:
    """Whether `row` may be taken away from `domain`; one that is missing there already takes nothing more from it."""
    holding = used.get(domain, ())
    return row.host in holding or len(holding) < rules.places.get(domain, 1)


def _fits(rules: StageRules, used: Mapping[str, Collection[HostId]], row: HostRow) -> bool:
    return all(_has_place(rules, used, row, domain) for domain in row.domains)


def _is_busy(row: HostRow) -> bool:
    """Whether its Scan after has ended because another patch run was at work there; it is due again."""
    return row.state is HostState.TO_VERIFY and row.reason.startswith(_BUSY)


def _installs(
    rules: StageRules,
    rows: Sequence[HostRow],
    dispatches: Mapping[str, DispatchRow],
    unhealthy: Mapping[str, Collection[HostId]],
    recovered: Collection[HostId],
    *,
    now: datetime,
) -> tuple[Dispatch, ...]:
    """As many Installs as there are places in every domain of a host, in the order of the plan."""
    used = _used(rows, unhealthy, recovered)
    chosen = []
    for row in _startable(rules, rows, HostState.READY, now=now):
        if _fits(rules, used, row):
            chosen.append(row)
            for domain in row.domains:
                used.setdefault(domain, set()).add(row.host)
    return _grouped(rules, chosen, dispatches, StepKind.INSTALL)


def steps_due(
    rules: StageRules, rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow], step: StepKind, *, now: datetime
) -> tuple[Dispatch, ...]:
    """Dispatches of a step for everybody who stands before it and may take it now."""
    return _grouped(rules, _startable(rules, rows, FROM_STATE[step], now=now), dispatches, step)


def _startable(rules: StageRules, rows: Iterable[HostRow], state: HostState, *, now: datetime) -> list[HostRow]:
    """Hosts in that state whose next step may begin now, in order."""
    closed = state in _STILL and rules.window is not None and now < rules.window.opens
    return [] if closed else [row for row in _in_order(rules, rows, state) if in_time(rules, row, now=now)]


def _in_order(rules: StageRules, rows: Iterable[HostRow], state: HostState) -> list[HostRow]:
    """Hosts in that state in the order of the plan; late joiners, which it does not know, come last."""
    place = {host: number for number, host in enumerate(rules.order)}
    chosen = [row for row in rows if row.state is state]
    return sorted(chosen, key=lambda row: (place.get(row.host, len(place)), row.host))


def attempts(dispatches: Mapping[str, DispatchRow], step: StepKind, host: HostId) -> int:
    """How often this step was already begun for this host, AWS's refusals included."""
    return sum(1 for dispatch in dispatches.values() if dispatch.step is step and host in dispatch.hosts)


def _grouped(
    rules: StageRules, rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow], step: StepKind
) -> tuple[Dispatch, ...]:
    """One dispatch per cell, platform and attempt: a snapshot holds for one platform of one cell (AWS: SnapshotId)."""
    groups: dict[tuple[Cell, str, int], list[HostId]] = {}
    refused = {
        host for one in dispatches.values() if one.state is DispatchState.REFUSED and one.step is step for host in one.hosts
    }
    for row in rows:
        attempt = attempts(dispatches, step, row.host) + 1
        groups.setdefault((row.cell, row.platform, attempt), []).append(row.host)
    made = []
    for (cell, platform, attempt), hosts in groups.items():
        # AWS refuses a whole command for one host and does not say which: after that each goes alone.
        size = 1 if refused.intersection(hosts) else LARGEST_DISPATCH
        for start in range(0, len(hosts), size):
            chunk = tuple(hosts[start : start + size])
            made.append(
                Dispatch(
                    token=token(rules.run, rules.stage, step, attempt, chunk),
                    step=step,
                    cell=cell,
                    platform=platform,
                    hosts=chunk,
                    attempt=attempt,
                    snapshot=rules.snapshots.get(f"{cell}|{platform}") or snapshot(rules.run, cell, platform),
                )
            )
    return tuple(made)


_DOING = {
    HostState.SCANNING: "being scanned",
    HostState.INSTALLING: "installing",
    HostState.REBOOTING: "rebooting",
    HostState.VERIFYING: "being scanned again",
    HostState.NEEDS_REBOOT: "waiting to reboot",
    HostState.TO_VERIFY: "waiting for the Scan after",
}


def _wait(
    rules: StageRules,
    in_flight: Sequence[HostRow],
    dispatches: Mapping[str, DispatchRow],
    halt: Halt | None,
    *,
    now: datetime,
) -> Wait:
    counts = Counter(row.state for row in in_flight)
    doing = ", ".join(f"{count} {_DOING[state]}" for state, count in counts.items())
    before = f"{halt.reason}; nothing further is sent; " if halt else ""
    running = [row for row in in_flight if row.state in RUNNING_STATE.values()]
    # Of a host between two steps the dispatch says nothing: whoever was to mark it as ended may have been killed.
    open_ones = {
        row.token: dispatches[row.token]
        for row in running
        if row.token and row.token in dispatches and dispatches[row.token].state in OPEN
    }
    busy = [row for row in in_flight if _is_busy(row)]
    if busy and not running:
        return Wait(
            reason=f"{before}hosts: {doing}; another patch run is at work on {len(busy)} of them",
            ends="they are scanned again",
            until=max(now, min(row.since for row in busy) + BUSY_AGAIN),
            expected=BUSY_AGAIN,
        )
    if not running and rules.window is not None and now < rules.window.opens:
        return Wait(
            reason=f"{before}hosts: {doing}; {_opens(rules.window)}",
            ends="the window opens",
            until=rules.window.opens,
        )
    if not open_ones:
        return Wait(
            reason=f"{before}hosts: {doing}; their commands have ended, their patch reports are not visible yet",
            ends="the reports become visible",
            until=now + timedelta(minutes=1),
            expected=timedelta(seconds=30),
        )
    limits = [_limit(rules, row, open_ones[row.token]) for row in running if row.token and row.token in open_ones]
    return Wait(
        reason=f"{before}hosts: {doing}",
        ends="the commands in flight end",
        until=max(now, min(limits)),
        tokens=tuple(sorted(open_ones)),
        expected=max(EXPECTED[one.step] for one in open_ones.values()),
    )
