"""How is a stage carried out, apart from Airflow?

`StageExecutor.advance` is called whenever there may be something to do: it resolves what an earlier try left open, looks,
writes what it saw, asks `rollout.decide`, sends what is decided, and looks again, until there is nothing to do but wait. It
may be called at any moment and in any process: intents are written before effects, the lease is checked before each, and a
command whose answer was lost is looked up by its token before anything is sent again.

It knows no Airflow, so a rehearsal can drive it in virtual time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from patchwave.aws.commands import command_for
from patchwave.aws.gateway import Gateway
from patchwave.campaign import rollout
from patchwave.campaign.durations import late_time, usual_time
from patchwave.campaign.errors import AccessDenied, HostsRefused, InvalidRequest, LeaseLost, OutcomeUnknown, Throttled
from patchwave.campaign.fleet import Host, Readiness, readiness, why_not
from patchwave.campaign.policy import Kernel
from patchwave.campaign.rollout import (
    FROM_STATE,
    RUNNING_STATE,
    Decision,
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
from patchwave.execution import kernels
from patchwave.execution.log import Log
from patchwave.execution.overriding import Overriding
from patchwave.execution.promotion import Promotion, Witness
from patchwave.execution.shielding import Shield
from patchwave.execution.snapshots import SnapshotsBefore
from patchwave.execution.surroundings import Surroundings
from patchwave.ledger.store import Lease, Ledger

STALE = timedelta(minutes=5)
"""A host that was heard of within this time is sent something without another look; Systems Manager's own ping lags as much."""
SUSPICIOUS = 3
"""A step that takes this many times what it usually takes is looked into: the host may be stopped or gone."""
STOPPING, STOPPED = "stage.stopping", "stage.stopped"
"""Kinds of records: of one command, before it is cancelled, and of a stage, when nothing of it is in flight any more."""
NOT_BEGUN = frozenset({"Pending", "Delayed"})
"""StatusDetails of a host that has been told nothing yet."""
SETTLING = timedelta(seconds=60)
"""An intent younger than this whose command AWS does not list may still be on its way from another process (the longest
SendCommand takes 20 s with our timeouts, and ListCommands is eventually consistent): it is waited for, then taken back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """What stopping a stage did.

    Attributes:
        commands: ids of the commands that were cancelled.
        begun: hosts on which a step of ours was running when it was cancelled.
        not_begun: hosts that had been sent a step which had not begun there.
        unknown: hosts of which AWS did not say how far they are; the next try looks again.
        going: hosts whose root volume EC2 is replacing, which nobody can stop.
    """

    commands: tuple[str, ...] = ()
    begun: tuple[HostId, ...] = ()
    not_begun: tuple[HostId, ...] = ()
    unknown: tuple[HostId, ...] = ()
    going: tuple[HostId, ...] = ()

    def __str__(self) -> str:
        if not self.commands and not self.unknown and not self.going:
            return "nothing was in flight"
        parts = [f"{len(self.commands)} commands cancelled"]
        for hosts, what in (
            (self.begun, "had begun"), (self.not_begun, "had not begun"), (self.unknown, "not known yet"),
            (self.going, "get another root volume, which EC2 lets nobody stop"),
        ):  # fmt: skip
            if hosts:
                named = ", ".join(hosts[:10]) + (f" and {len(hosts) - 10} more" if len(hosts) > 10 else "")
                parts.append(f"{len(hosts)} hosts {what} ({named})")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class StageExecutor:
    """Carries one stage out, under a lease.

    Attributes:
        now: the campaign's time.
        settling: `SETTLING` in the campaign's time (a rehearsal's clock runs faster).
        errors_since: moment of the last halt that a person cleared.
        look_again: asked before a wait is returned; True if its end is so near that handing the wait over costs more.
        campaign: its name, for the Comment of commands.
        surroundings: who was unhealthy before, who appears, and when the window is; None: nothing but the rows is looked at.
        promotion: the lockfile from which alone the stage is patched, or who writes down what the first stage lacked; None: each
            host gets what its baseline approves.
        overriding: who has Installs made by the policy's baselines; None: they go by the accounts'.
        kernel: which packages are a kernel, where the stage must install none, for it has no window; None: it may.
        snapshots: who takes a snapshot of each host before its Install; None: nobody does.
        told: invocations that a trigger has read a moment ago, by command id; the first look takes them and asks no second time.
        looked: when each command was looked at last, by its id. Those named at the beginning have nothing new to tell, and the
            first look leaves them alone; each look of this executor is added.
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
    surroundings: Surroundings | None = None
    promotion: Promotion | Witness | None = None
    overriding: Overriding | None = None
    kernel: Kernel | None = None
    snapshots: SnapshotsBefore | None = None
    told: Mapping[str, Sequence[Invocation]] = field(default_factory=dict)
    looked: dict[str, datetime] = field(default_factory=dict)
    _shield: Shield = field(init=False, repr=False)
    _told: dict[str, Sequence[Invocation]] = field(init=False, repr=False)
    _quiet: set[str] = field(init=False, repr=False)
    _heard_of: dict[HostId, datetime] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shield = Shield(ledger=self.ledger, gateway=self.gateway, lease=self.lease, now=self.now, log=self.log)
        object.__setattr__(self, "_shield", shield)
        object.__setattr__(self, "_told", dict(self.told))
        object.__setattr__(self, "_quiet", set(self.looked))

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
            if self.surroundings is not None:
                self.surroundings.begin(self._rows())
            decision = self._decide()
            while isinstance(decision, tuple) or (isinstance(decision, Wait) and self._look_around_if_due()):
                held = self._held_back(decision) if isinstance(decision, tuple) else ()
                if isinstance(held, Wait):
                    decision = held
                    break
                delayed = self._send_all(held)
                if delayed is not None:
                    return delayed
                decision = self._decide()  # what was sent a moment ago has nothing to say yet
            last = self._last_look(decision)
            if last is None:
                continue
            decision = last
            match decision:
                case Wait() if self.look_again(decision):
                    continue
                case Wait() | Halt() | Done():
                    return decision
                case _:
                    assert_never(decision)

    def _held_back(self, decided: tuple[Dispatch, ...]) -> tuple[Dispatch, ...] | Wait:
        """Of what is due that which may be sent: no Install without its snapshot. A wait if nothing else is to be done."""
        installs = tuple(one for one in decided if one.step is StepKind.INSTALL)
        if self.snapshots is None or not installs:
            return decided
        held = self.snapshots.hold(installs)
        self._move(held.moves)
        sent = tuple(one for one in decided if one not in installs) + held.ready
        if sent or held.moves or held.wait is None:
            return sent
        waiting = {host for one in installs for host in one.hosts}
        others = self._decided([row for row in self._rows() if row.host not in waiting])
        if not isinstance(others, Wait) or not others.tokens:
            return held.wait
        reason = f"{others.reason}; {held.wait.reason}"
        return replace(others, reason=reason, until=min(others.until, held.wait.until), look=held.wait.look)

    def _decide(self) -> Decision:
        if self.promotion is not None:
            self._move(self.promotion.excepted(self._rows()))
        self._move(rollout.out_of_time(self._rules(), self._rows(), now=self.now()))
        return self._decided(self._rows())

    def _decided(self, rows: Sequence[HostRow]) -> Decision:
        around = self.surroundings
        return rollout.decide(
            self._rules(),
            rows,
            self._dispatches(),
            unhealthy_before=around.before if around else None,
            recovered=around.recovered if around else (),
            errors_since=self.errors_since,
            now=self.now(),
        )

    def _rules(self) -> StageRules:
        return self.surroundings.rules(self.rules) if self.surroundings else self.rules

    def _look_around_if_due(self) -> bool:
        """Newcomers, replacements, the health of others: before each wait that follows on a long time without a look.

        Returns:
            Whether there was a look, so that it is to be decided anew.
        """
        if self.surroundings is None or not self.surroundings.due:
            return False
        self.surroundings.look(self.rules, self._rows())
        return True

    def _last_look(self, decision: Wait | Halt | Done) -> Wait | Halt | Done | None:
        """Before a stage ends: has somebody appeared, or does somebody serve again who holds a place?

        Returns:
            What is to be done; None if it is to be decided anew.
        """
        answer: Wait | bool = False
        if self.surroundings is not None and isinstance(decision, Done):
            answer = self.surroundings.at_the_end(self.rules, self._rows())
        elif self.surroundings is not None and isinstance(decision, Halt) and decision.rule == rollout.NO_PLACE:
            answer = self.surroundings.at_a_full_domain(decision, self._rows())
        if isinstance(answer, bool):
            return None if answer else self._released(self._compared(decision))
        return answer

    def _released(self, decision: Wait | Halt | Done) -> Wait | Halt | Done:
        """No stage ends while a group's health checks are suspended because of it."""
        waits = self._shield.release(self._rows())
        return decision if waits is None or isinstance(decision, Wait) else waits

    def _compared(self, decision: Wait | Halt | Done) -> Wait | Halt | Done:
        """A stage that ends, whatever else ends it, is halted by name if a host has not what the lockfile says."""
        if self.promotion is None or isinstance(decision, Wait):
            return decision
        drift = self.promotion.halt(self._rows())
        if drift is None or isinstance(decision, Done):
            return drift or decision
        return replace(
            drift,
            reason=f"{drift.reason}. Besides, {decision.rule}: {decision.reason}",
            hosts=tuple(dict.fromkeys((*drift.hosts, *decision.hosts))),
        )

    def stop(self, *, looks: int, pause: Callable[[], None]) -> Stopped:
        """Cancel every command in flight, and look until AWS says of each of its hosts how far it came.

        Nothing is sent any more. A command whose answer was lost is found by its token and cancelled, too; an intent that
        is certain never to have been sent is taken back.

        Args:
            looks: how often to look at most; each after a `pause`, which lets real time pass.

        Raises:
            LeaseLost: another process has taken the stage over.
            AwsUnavailable, Throttled, AccessDenied: AWS does not let us; what is not cancelled is still in the ledger.
        """
        cancelled: dict[str, str] = {}  # command id by token
        before, begun = self._stopped_before()
        for look in range(looks):
            self._adopt_or_take_back()
            running = [row for row in self._rows() if row.state in RUNNING_STATE.values()]
            if not running:
                break
            # One that is marked as cancelled may not be so in AWS: whoever marked it may have been killed before the call.
            stoppable = (DispatchState.SENT, DispatchState.CANCELLED)
            sent = {row.token: row for row in self._dispatches().values() if row.state in stoppable and row.command}
            for token in sorted({row.token for row in running if row.token in sent and row.token not in cancelled}):
                self._cancel(sent[token], begun)
                cancelled[token] = sent[token].command or ""
            self._look()
            if look + 1 < looks and any(row.state in RUNNING_STATE.values() for row in self._rows()):
                pause()
        left = tuple(row.host for row in self._rows() if row.state in RUNNING_STATE.values() and row.host not in begun)
        self._shield.release_all()
        return Stopped(
            commands=tuple((before | cancelled).values()),
            begun=tuple(host for host, had in begun.items() if had),
            not_begun=tuple(host for host, had in begun.items() if not had),
            unknown=left,
            going=tuple(row.host for row in self._rows() if row.state is HostState.ROLLING_BACK),
        )

    def _stopped_before(self) -> tuple[dict[str, str], dict[HostId, bool]]:
        """What a stopper that was killed over it had cancelled, or was about to: command ids by token, and which hosts had begun.

        AWS does not say that any more: of a command that is cancelled, all hosts look the same.
        """
        commands: dict[str, str] = {}
        begun: dict[HostId, bool] = {}
        for entry in self.ledger.journal(self.lease.run):
            if entry.kind == STOPPED and entry.data["stage"] == self.lease.stage:
                commands, begun = {}, {}  # that stop came to its end
            elif entry.kind == STOPPING and entry.data["stage"] == self.lease.stage:
                commands[entry.data["token"]] = entry.data["command"]
                begun |= dict.fromkeys(map(HostId, entry.data["not_begun"]), False)
                begun |= dict.fromkeys(map(HostId, entry.data["begun"]), True)
        return commands, begun

    def _adopt_or_take_back(self) -> None:
        """Find out what became of each intent, without sending it."""
        for row in self._dispatches().values():
            if row.state is not DispatchState.INTENDED:
                continue
            found = self.gateway.find_command(row.cell, row.token, since=row.intended_at)
            if found is not None:
                self._mark_sent(row.token, found.id, found.requested_at, "adopted, to be cancelled")
            elif self.now() >= row.intended_at + self.settling:
                self._never_sent(row)
        self._put_back()

    def _cancel(self, dispatch: DispatchRow, begun: dict[HostId, bool]) -> None:
        """Cancel one command, and note on which of its open hosts it had begun."""
        if dispatch.command is None:
            return
        seen = {
            one.host: begun.get(one.host, False) or one.details not in NOT_BEGUN
            for one in self.gateway.invocations(dispatch.cell, dispatch.command, dispatch.token)
            if one.outcome is Outcome.RUNNING
        }
        begun |= seen
        # Before the call, as every intent: whoever goes on after us must know why these Installs ended half-way, and where.
        reason = "stopped by a person"
        self.ledger.mark_dispatch(self.lease, dispatch.token, DispatchState.CANCELLED, at=self.now(), reason=reason)
        data = {
            "stage": self.lease.stage,
            "token": dispatch.token,
            "command": dispatch.command,
            "begun": [host for host, had in seen.items() if had],
            "not_begun": [host for host, had in seen.items() if not had],
        }
        self.ledger.record(self.lease.run, STOPPING, data, at=self.now())
        self.gateway.cancel(dispatch.cell, dispatch.command)
        hosts = len(dispatch.hosts)
        self.log.info("Cancelled the %s of %d hosts in %s: %s", dispatch.step.value, hosts, dispatch.cell, dispatch.command)

    # --- the ledger's view ----------------------------------------------------------------------------------------------
    def _rows(self) -> Sequence[HostRow]:
        return self.ledger.hosts(self.lease.run, self.lease.stage)

    def _dispatches(self) -> Mapping[str, DispatchRow]:
        return {row.token: row for row in self.ledger.dispatches(self.lease.run, self.lease.stage)}

    # --- what an earlier try, or a lost answer, left open ---------------------------------------------------------------
    def _resolve_intents(self) -> Wait | None:
        """Adopt, or take back, every dispatch that was intended and is not known to be sent."""
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
            self._never_sent(row)
        self._put_back()
        return None

    def _never_sent(self, row: DispatchRow) -> None:
        """An intent that came to nothing is over, and what its hosts need is decided anew, under a token of its own.

        It is not sent again as it was: whoever finds it next would take it for one that has been waited for long enough, and
        send it beside us; and the window may have closed since, or the error budget been spent.
        """
        self.log.info("The %s of %d hosts was never sent (%s)", row.step.value, len(row.hosts), row.token)
        self.ledger.mark_dispatch(self.lease, row.token, DispatchState.CANCELLED, at=self.now(), reason="never sent")

    def _put_back(self) -> None:
        """Hosts whose command AWS never had stand where they stood, also when whoever learned that was killed over it."""
        dispatches = self._dispatches()
        moves = []
        for row in self._rows():
            dispatch = dispatches.get(row.token or "")
            if dispatch is None or dispatch.command is not None or dispatch.state in rollout.OPEN:
                continue
            if row.state is RUNNING_STATE[dispatch.step]:
                reason = f"its {dispatch.step.value} was never sent"
                moves.append(Move(host=row.host, before=row.state, after=FROM_STATE[dispatch.step], reason=reason))
        self._move(moves)

    # --- looking --------------------------------------------------------------------------------------------------------
    def _look(self) -> None:
        dispatches = self._dispatches()
        quiet = {token for token, row in dispatches.items() if row.command in self._quiet}
        self._quiet.clear()
        # Of whom nothing was asked nothing is judged, either, above all not that no word of it came in time.
        rows = [row for row in self._rows() if row.state not in rollout.TERMINAL and not _is_in(row, quiet)]
        if not rows:
            return
        seen = self._observe(rows, dispatches)
        moves = rollout.observed(self.rules, rows, dispatches, seen, now=self.now())
        self._cancel_overdue(moves, rows, dispatches, seen)
        self._move(moves)
        for token in seen.complete:
            if dispatches[token].state is DispatchState.SENT:
                over = [one.ended for one in seen.invocations.values() if one.token == token and one.ended is not None]
                self.ledger.mark_dispatch(self.lease, token, DispatchState.ENDED, at=self.now(), over_at=max(over, default=None))

    def _move(self, moves: Sequence[Move]) -> None:
        if moves:
            self.ledger.move_hosts(self.lease, moves, at=self.now())
        for move in moves:
            self.log.info("%s: %s -> %s: %s", move.host, move.before.value, move.after.value, move.reason)

    def _observe(self, rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]) -> Observation:
        """What the commands in flight say; and the facts of those hosts only of which a command says nothing good."""
        running = [row for row in rows if row.token in dispatches and row.state in RUNNING_STATE.values()]
        invocations, complete = self._commands(running, dispatches)
        doubtful = [row for row in running if self._is_doubtful(row, dispatches[row.token or ""], invocations, complete)]
        return Observation(
            hosts=self._facts(doubtful),
            looked_at=frozenset(row.host for row in doubtful),
            invocations=invocations,
            patch_states=self._patch_states(rows, dispatches, invocations),
            complete=complete,
        )

    def _is_doubtful(
        self,
        row: HostRow,
        dispatch: DispatchRow,
        invocations: Mapping[tuple[str, HostId], Invocation],
        complete: frozenset[str],
    ) -> bool:
        """Whether EC2 and Systems Manager are worth asking: the command did not reach it, or takes suspiciously long."""
        invocation = invocations.get((dispatch.token, row.host))
        if invocation is not None and invocation.outcome in (Outcome.UNDELIVERED, Outcome.DENIED):
            return True
        if invocation is None and dispatch.token in complete:
            return True
        settled = invocation is not None and invocation.outcome is not Outcome.RUNNING
        return not settled and self.now() - row.since > SUSPICIOUS * rollout.EXPECTED[dispatch.step]

    def _commands(
        self, running: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]
    ) -> tuple[dict[tuple[str, HostId], Invocation], frozenset[str]]:
        """How the commands of these hosts stand, and the invocations of those that have news."""
        invocations: dict[tuple[str, HostId], Invocation] = {}
        complete = set()
        open_hosts = Counter(row.token for row in running)
        long_since = {row.token for row in running if self.now() - row.since > SUSPICIOUS * _expected(dispatches, row)}
        late_after = {step: late_time(step, dispatches.values()) for step in StepKind}
        late = {row.token for row in running if self.now() - row.since > late_after[dispatches[row.token or ""].step]}
        by_cell: dict[Cell, list[DispatchRow]] = {}
        for token in sorted(token for token in open_hosts if token is not None):
            if dispatches[token].command is not None:
                by_cell.setdefault(dispatches[token].cell, []).append(dispatches[token])
        for cell, watched in by_cell.items():
            self.looked.update({one.command: self.now() for one in watched if one.command is not None})
            for one in [one for one in watched if one.command in self._told]:
                found = self._told.pop(one.command or "")
                watched.remove(one)
                invocations.update({(one.token, each.host): each for each in found})
                if {each.host for each in found if each.outcome is not Outcome.RUNNING} >= set(one.hosts):
                    complete.add(one.token)
            if not watched:
                continue
            statuses = self.gateway.commands(cell, [one.command for one in watched if one.command])
            for one in watched:
                status = statuses.get(one.command or "")
                if status is None or one.command is None:
                    continue  # AWS does not list it yet
                if status.complete:
                    complete.add(one.token)
                accounted = len(one.hosts) - open_hosts[one.token]
                # Hosts of one command go on together: what has ended on some of them waits for the others, for a while.
                if status.complete or one.token in long_since or (status.completed > accounted and one.token in late):
                    for invocation in self.gateway.invocations(cell, one.command, one.token):
                        invocations[one.token, invocation.host] = invocation
        return invocations, frozenset(complete)

    def _facts(self, rows: Iterable[HostRow], listed: Mapping[Cell, Mapping[HostId, Host]] | None = None) -> dict[HostId, Host]:
        """How these hosts are.

        Args:
            listed: what EC2 said of the stage's hosts a moment ago; it is not asked about those again.
        """
        facts: dict[HostId, Host] = {}
        for cell, ids in _by_cell(rows).items():
            there = (listed or {}).get(cell, {})
            known, unknown = [there[one] for one in ids if one in there], [one for one in ids if one not in there]
            facts.update({host.id: host for host in self.gateway.with_agents(cell, known)})
            facts.update({host.id: host for host in self.gateway.hosts(cell, unknown, groups=False)})
            self._heard_of.update(dict.fromkeys(ids, self.now()))
        return facts

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
        if self.promotion is not None:
            states = self.promotion.judged(states, ended, dispatches)
        if self.overriding is not None:
            states = self.overriding.judged(states, ended, dispatches)
        if self.kernel is not None:
            states = kernels.marked(self.gateway, self.kernel, states, ended, self.promotion)
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
        """Send what is decided, unless a host of it turns out to be away, or AWS refuses: then it is to be decided anew."""
        if self._look_before(decided):
            return None
        rebooting = {host for one in decided if one.step is StepKind.REBOOT for host in one.hosts}
        if rebooting:
            self._shield.hold(row for row in self._rows() if row.host in rebooting)
        for one in decided:
            # Before the intent: to lay it down may take long, and what goes wrong with it has touched nobody.
            listed = baselines = ""
            if self.promotion is not None and one.step is StepKind.INSTALL:
                listed = self.promotion.address(one.cell, one.platform)
            if self.overriding is not None and one.step is StepKind.INSTALL and not listed:
                baselines = self.overriding.address(one.cell, one.platform)
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
                platform=one.platform,
            )
            # What a failed Install said stays the host's reason until the Scan after it has spoken.
            self.ledger.intend(self.lease, row, reason="" if one.step is StepKind.VERIFY else f"{one.step.value} sent")
            delayed = self._send(row, listed, baselines)
            if delayed is not None:
                return delayed
            if self._dispatches()[one.token].state is DispatchState.REFUSED:
                return None  # its hosts may have spent the error budget: no further one before that is judged
        return None

    def _look_before(self, decided: Sequence[Dispatch]) -> bool:
        """Look at hosts that are about to be sent something and have not been heard of for a while.

        A stopped host takes a command and keeps it open for an hour; one that is gone has the whole command refused. With
        the same call EC2 tells who has appeared in the stage, or has gone.

        Returns:
            Whether it is to be decided anew, for one of them moved, or somebody joined, or has become unwell.
        """
        about_to = {host for one in decided for host in one.hosts}
        rows = [row for row in self._rows() if row.host in about_to]
        stale = [row for row in rows if self.now() - self._last_heard(row) > STALE]
        if not stale:
            return False
        around = self.surroundings
        changed = around is not None and around.look(self.rules, self._rows())
        facts = self._facts(stale, around.listed if around is not None else None)
        seen = Observation(hosts=facts, looked_at=frozenset(row.host for row in stale))
        moves = rollout.observed(self.rules, stale, {}, seen, now=self.now())
        self._move(moves)
        return bool(moves) or changed

    def _last_heard(self, row: HostRow) -> datetime:
        # A host of the plan was last heard of when the plan was made: nobody knows how long ago. Any other one answered then.
        answered = row.since if row.state is not HostState.PLANNED else datetime.min.replace(tzinfo=UTC)
        return max(answered, self._heard_of.get(row.host, answered))

    def _send(self, row: DispatchRow, listed: str, baselines: str) -> Wait | None:
        """Make the call that `row` intends.

        Args:
            listed: address of the list that an Install takes; empty for what the baseline approves.
            baselines: address of the baselines that hold for an Install in place of the account's; empty for that.

        Returns:
            None when it is known what became of it; a wait when it is not, or when AWS asks for patience.
        """
        self.ledger.check(self.lease)
        if self.now() - row.intended_at > self.settling / 4:
            return Wait(
                reason=f"writing down the {row.step.value} of {len(row.hosts)} hosts took so long that another process may "
                "soon take it for lost; it is not sent",
                ends="it is decided anew",
                until=row.intended_at + self.settling,
            )
        try:
            spec = command_for(
                row, campaign=self.campaign, stage=row.stage, override_list=listed, baseline_override=baselines
            )
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
        try:
            self._mark_sent(row.token, sent.id, sent.requested_at, "sent")
        except LeaseLost:
            self._disown(row, sent.id)
            raise
        self.log.info("Sent %s to %d hosts in %s: command %s (%s)", row.step.value, len(row.hosts), row.cell, sent.id, row.token)
        return None

    def _disown(self, row: DispatchRow, command: str) -> None:
        """We were held up between the check of the lease and AWS's answer, and another process has taken the stage over.

        One that still waits for word of this intent adopts the command by its token. One that has taken it for never sent
        may send the step again: then ours is cancelled at once, while AWS is still delivering it.
        """
        known = self._dispatches().get(row.token)
        if known is not None and (known.command == command or known.state is DispatchState.INTENDED):
            return
        self.gateway.cancel(row.cell, command)
        reason = "the stage had been taken over while it was sent, so it was cancelled at once"
        self.log.info("Cancelled the %s of %d hosts, command %s: %s", row.step.value, len(row.hosts), command, reason)
        data = {"stage": row.stage, "token": row.token, "command": command, "hosts": list(row.hosts), "reason": reason}
        self.ledger.record(self.lease.run, "dispatch.disowned", data, at=self.now())

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


def _is_in(row: HostRow, tokens: Collection[str]) -> bool:
    """Whether a step of one of these dispatches is on its way on that host."""
    return row.state in RUNNING_STATE.values() and row.token in tokens


def _expected(dispatches: Mapping[str, DispatchRow], row: HostRow) -> timedelta:
    return rollout.EXPECTED[dispatches[row.token or ""].step]


def _by_cell(rows: Iterable[HostRow]) -> dict[Cell, list[HostId]]:
    cells: dict[Cell, list[HostId]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row.host)
    return cells


def wait_for(
    wait: Wait, dispatches: Iterable[DispatchRow], rows: Iterable[HostRow], looked: Mapping[str, datetime] | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Commands that a wait is for, by cell and command id, for a trigger to watch.

    Args:
        looked: when they were looked at last, by command id.

    Returns:
        Of each: ``token``; ``hosts``, how many it has; ``known``, on how many of them it has ended that we know of; ``since``,
        AWS's time of it (ISO 8601); ``usual``, seconds that it usually takes, and ``learned``, whether this stage showed that;
        ``late``, seconds after which hosts on which it has ended go on without the others; ``looked``, when it was looked at
        last (ISO 8601, or None).
    """
    dispatches = list(dispatches)
    open_hosts = Counter(row.token for row in rows if row.state in RUNNING_STATE.values())
    watched: dict[str, dict[str, dict[str, Any]]] = {}
    for one in dispatches:
        if one.token in wait.tokens and one.command is not None and one.state is DispatchState.SENT:
            usual, learned = usual_time(one.step, dispatches, hosts=len(one.hosts))
            watched.setdefault(str(one.cell), {})[one.command] = {
                "token": one.token,
                "hosts": len(one.hosts),
                "known": len(one.hosts) - open_hosts[one.token],
                "since": (one.requested_at or one.intended_at).isoformat(),
                "usual": usual.total_seconds(),
                "learned": learned,
                "late": late_time(one.step, dispatches).total_seconds(),
                "looked": at.isoformat() if (at := (looked or {}).get(one.command)) else None,
            }
    return watched
