"""How is a stage carried out, apart from Airflow?

`StageExecutor.advance` is called whenever there may be something to do: it resolves what an earlier try left open, looks,
writes what it saw, asks `rollout.decide`, sends what is decided, and looks again, until there is nothing to do but wait. It
may be called at any moment and in any process: intents are written before effects, the lease is checked before each, and a
command whose answer was lost is looked up by its token before anything is sent again.

It knows no Airflow, so a rehearsal can drive it in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, assert_never

from patchwave.aws.commands import command_for
from patchwave.aws.gateway import Gateway
from patchwave.campaign import rollout
from patchwave.campaign.errors import AccessDenied, HostsRefused, InvalidRequest, OutcomeUnknown, Throttled
from patchwave.campaign.fleet import Host, Readiness, readiness, why_not
from patchwave.campaign.rollout import (
    FROM_STATE,
    RUNNING_STATE,
    Dispatch,
    DispatchRow,
    DispatchState,
    Done,
    Halt,
    HostRow,
    HostState,
    Invocation,
    Move,
    Observation,
    Outcome,
    PatchState,
    StageRules,
    StepKind,
    Wait,
)
from patchwave.campaign.values import Cell, HostId
from patchwave.ledger.store import Lease, Ledger

SETTLING = timedelta(seconds=60)
"""An intent younger than this whose command AWS does not list may still be on its way from another process (the longest
SendCommand takes 20 s with our timeouts, and ListCommands is eventually consistent): it is waited for, then sent."""


class Log(Protocol):
    """As much of a logger as is needed."""

    def info(self, msg: str, *args: object) -> None:
        """One line."""
        ...


@dataclass(frozen=True, kw_only=True)
class StageExecutor:
    """Carries one stage out, under a lease.

    Attributes:
        now: the campaign's time.
        settling: `SETTLING` in the campaign's time (a rehearsal's clock runs faster).
        errors_since: moment of the last halt that a person cleared.
        look_again: asked before a wait is returned; True if its end is so near that handing the wait over costs more.
        campaign: its name, for the Comment of commands.
    """

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    rules: StageRules
    campaign: str
    now: Callable[[], datetime]
    log: Log
    settling: timedelta = SETTLING
    errors_since: datetime | None = None
    look_again: Callable[[Wait], bool] = lambda _: False

    def advance(self) -> Wait | Halt | Done:
        """Do whatever can be done now.

        Raises:
            LeaseLost: another process has taken the stage over.
            AwsUnavailable, Throttled: looking failed; nothing was decided on half of the facts.
            InvalidRequest: AWS refuses a command as it was made; its hosts are where they were.
        """
        while True:
            unresolved = self._resolve_intents()
            if unresolved is not None:
                return unresolved
            self._look()
            decision = rollout.decide(
                self.rules, self._rows(), self._dispatches(), errors_since=self.errors_since, now=self.now()
            )
            match decision:
                case tuple():
                    delayed = self._send_all(decision)
                    if delayed is not None:
                        return delayed
                case Wait() if self.look_again(decision):
                    continue
                case Wait() | Halt() | Done():
                    return decision
                case _:
                    assert_never(decision)

    # --- the ledger's view ----------------------------------------------------------------------------------------------
    def _rows(self) -> Sequence[HostRow]:
        return self.ledger.hosts(self.lease.run, self.lease.stage)

    def _dispatches(self) -> Mapping[str, DispatchRow]:
        return {row.token: row for row in self.ledger.dispatches(self.lease.run, self.lease.stage)}

    # --- what an earlier try, or a lost answer, left open ---------------------------------------------------------------
    def _resolve_intents(self) -> Wait | None:
        """Adopt or send every dispatch that was intended and is not known to be sent."""
        for row in self._dispatches().values():
            if row.state is not DispatchState.INTENDED:
                continue
            found = self.gateway.find_command(row.cell, row.token, since=row.intended_at)
            if found is not None:
                self.log.info("Adopting command %s: it is dispatch %s of an earlier try", found.id, row.token)
                self._mark_sent(row.token, found.id, found.requested_at, "adopted")
                continue
            due = row.intended_at + self.settling
            if self.now() < due:
                return Wait(
                    reason=f"whether AWS has taken the {row.step.value} of {len(row.hosts)} hosts is not known yet",
                    ends="AWS lists the command, or enough time has passed to be sure that it was never sent",
                    until=due,
                )
            delayed = self._send(row)
            if delayed is not None:
                return delayed
        return None

    # --- looking --------------------------------------------------------------------------------------------------------
    def _look(self) -> None:
        rows = [row for row in self._rows() if row.state not in rollout.TERMINAL]
        if not rows:
            return
        dispatches = self._dispatches()
        seen = self._observe(rows, dispatches)
        moves = rollout.observed(self.rules, rows, dispatches, seen, now=self.now())
        self._cancel_overdue(moves, rows, dispatches, seen)
        if moves:
            self.ledger.move_hosts(self.lease, moves, at=self.now())
            for move in moves:
                self.log.info("%s: %s -> %s: %s", move.host, move.before.value, move.after.value, move.reason)
        for token in seen.complete:
            if dispatches[token].state is DispatchState.SENT:
                self.ledger.mark_dispatch(self.lease, token, DispatchState.ENDED, at=self.now())

    def _observe(self, rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]) -> Observation:
        hosts: dict[HostId, Host] = {}
        for cell, ids in _by_cell(rows).items():
            hosts.update({host.id: host for host in self.gateway.hosts(cell, ids)})
        running = {row.token for row in rows if row.token and row.state in RUNNING_STATE.values()}
        watched = [
            dispatches[token]
            for token in sorted(running)
            if token in dispatches and dispatches[token].state in (DispatchState.SENT, DispatchState.ENDED)
        ]
        invocations, complete = self._commands(watched)
        return Observation(
            hosts=hosts,
            invocations=invocations,
            patch_states=self._patch_states(rows, dispatches, invocations),
            complete=complete,
        )

    def _commands(self, watched: Sequence[DispatchRow]) -> tuple[dict[tuple[str, HostId], Invocation], frozenset[str]]:
        invocations: dict[tuple[str, HostId], Invocation] = {}
        complete = set()
        by_cell: dict[Cell, list[DispatchRow]] = {}
        for dispatch in watched:
            by_cell.setdefault(dispatch.cell, []).append(dispatch)
        for cell, dispatches in by_cell.items():
            statuses = self.gateway.commands(cell, [one.command for one in dispatches if one.command])
            for one in dispatches:
                status = statuses.get(one.command or "")
                if status is None or one.command is None:
                    continue  # AWS does not list it yet
                if status.complete:
                    complete.add(one.token)
                for invocation in self.gateway.invocations(cell, one.command, one.token):
                    invocations[one.token, invocation.host] = invocation
        return invocations, frozenset(complete)

    def _patch_states(
        self,
        rows: Sequence[HostRow],
        dispatches: Mapping[str, DispatchRow],
        invocations: Mapping[tuple[str, HostId], Invocation],
    ) -> dict[HostId, PatchState]:
        """Reports of hosts whose Scan or Install has ended; all others have nothing new to say."""
        ended = [
            row
            for row in rows
            if row.token is not None
            and row.token in dispatches
            and dispatches[row.token].step is not StepKind.REBOOT
            and (found := invocations.get((row.token, row.host))) is not None
            and found.outcome is Outcome.SUCCEEDED
        ]
        states: dict[HostId, PatchState] = {}
        for cell, ids in _by_cell(ended).items():
            states.update(self.gateway.patch_states(cell, ids))
        return states

    def _cancel_overdue(
        self, moves: Iterable[Move], rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow], seen: Observation
    ) -> None:
        """A step that we give up must not go on behind our back."""
        by_host = {row.host: row for row in rows}
        for move in moves:
            row = by_host[move.host]
            dispatch = dispatches.get(row.token or "")
            if move.before not in RUNNING_STATE.values() or dispatch is None or dispatch.command is None:
                continue
            invocation = seen.invocations.get((dispatch.token, move.host))
            if move.after is HostState.UNREACHABLE and (invocation is None or invocation.outcome is Outcome.RUNNING):
                self.ledger.check(self.lease)
                self.gateway.cancel(dispatch.cell, dispatch.command, [move.host])

    # --- acting ---------------------------------------------------------------------------------------------------------
    def _send_all(self, decided: Sequence[Dispatch]) -> Wait | None:
        for one in decided:
            row = DispatchRow(
                token=one.token,
                run=self.lease.run,
                stage=self.lease.stage,
                step=one.step,
                cell=one.cell,
                hosts=one.hosts,
                attempt=one.attempt,
                state=DispatchState.INTENDED,
                fencing=self.lease.fencing,
                intended_at=self.now(),
                snapshot=one.snapshot,
            )
            # What a failed Install said stays the host's reason until the Scan after it has spoken.
            self.ledger.intend(self.lease, row, reason="" if one.step is StepKind.VERIFY else f"{one.step.value} sent")
            delayed = self._send(row)
            if delayed is not None:
                return delayed
        return None

    def _send(self, row: DispatchRow) -> Wait | None:
        """Make the call that `row` intends.

        Returns:
            None when it is known what became of it; a wait when it is not, or when AWS asks for patience.
        """
        self.ledger.check(self.lease)
        try:
            spec = command_for(row, campaign=self.campaign, stage=row.stage)
            sent = self.gateway.send(
                row.cell,
                document=spec.document,
                parameters=spec.parameters,
                hosts=row.hosts,
                comment=spec.comment,
                timeout=spec.timeout,
            )
        except OutcomeUnknown as error:
            return Wait(
                reason=f"the answer to the {row.step.value} of {len(row.hosts)} hosts was lost ({error})",
                ends="AWS lists the command, or enough time has passed to be sure that it was never sent",
                until=row.intended_at + self.settling,
            )
        except Throttled as error:
            return Wait(
                reason=f"AWS throttles SendCommand in {row.cell} ({error})",
                ends="the pause is over",
                until=self.now() + self.settling / 2,
            )
        except HostsRefused as error:
            self._take_back(row, str(error))
            return None
        except AccessDenied as error:
            self._refuse(row, dict.fromkeys(row.hosts, f"AWS denies access: {error}"), str(error))
            return None
        except InvalidRequest as error:
            self._refuse(row, {}, str(error))
            raise
        self._mark_sent(row.token, sent.id, sent.requested_at, "sent")
        self.log.info("Sent %s to %d hosts in %s: command %s (%s)", row.step.value, len(row.hosts), row.cell, sent.id, row.token)
        return None

    def _mark_sent(self, token: str, command: str, requested_at: datetime, reason: str) -> None:
        self.ledger.mark_dispatch(
            self.lease,
            token,
            DispatchState.SENT,
            at=self.now(),
            command=command,
            requested_at=requested_at,
            reason=reason,
        )

    def _take_back(self, row: DispatchRow, message: str) -> None:
        """AWS refuses a command because of one host and does not say which: find it, and send to the others."""
        facts = {host.id: host for host in self.gateway.hosts(row.cell, row.hosts)}
        guilty: dict[HostId, str] = {}
        for host in row.hosts:
            fact = facts.get(host)
            if fact is None:
                guilty[host] = "EC2 no longer lists the instance"
            elif readiness(fact) is not Readiness.READY:
                guilty[host] = why_not(fact)
        if not guilty and len(row.hosts) == 1:
            guilty[row.hosts[0]] = f"AWS refuses commands to it: {message}"
        self._refuse(row, guilty, message)

    def _refuse(self, row: DispatchRow, guilty: Mapping[HostId, str], message: str) -> None:
        """The whole call was refused: nobody was touched. The guilty are settled, the others stand where they stood."""
        running = RUNNING_STATE[row.step]
        self.log.info("AWS refused the %s of %d hosts: %s", row.step.value, len(row.hosts), message)
        moves = [
            Move(
                host=host,
                before=running,
                after=HostState.UNREACHABLE if host in guilty else FROM_STATE[row.step],
                reason=guilty.get(host, f"AWS refused the command as a whole: {message}"),
            )
            for host in row.hosts
        ]
        self.ledger.mark_dispatch(self.lease, row.token, DispatchState.REFUSED, at=self.now(), reason=message)
        self.ledger.move_hosts(self.lease, moves, at=self.now())


def _by_cell(rows: Iterable[HostRow]) -> dict[Cell, list[HostId]]:
    cells: dict[Cell, list[HostId]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row.host)
    return cells


def wait_for(wait: Wait, dispatches: Iterable[DispatchRow]) -> dict[str, list[str]]:
    """Commands that a wait is for, by cell: what a trigger watches."""
    watched: dict[str, list[str]] = {}
    for row in dispatches:
        if row.token in wait.tokens and row.command is not None and row.state is DispatchState.SENT:
            watched.setdefault(str(row.cell), []).append(row.command)
    return watched
