"""A stage played to its end in virtual time: AWS, hosts and people do whatever a source of choices says.

It drives `rollout.decide` and `rollout.observed` as the stage executor does, keeps what happened in a `Story`, and judges
nothing: the laws stand in `test_rollout`. It has its own record of what really became of a host, which the rollout never sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

from patchwave.campaign import fleet, rollout
from patchwave.campaign.fleet import Host, InstanceState, Ping
from patchwave.campaign.rollout import (
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
from patchwave.campaign.values import HostId
from patchwave.campaign.windows import Span
from tests.domain.builders import CELL, FAR, NOW, a_host, a_row, the_rules

DETAILS = {
    Outcome.SUCCEEDED: ("Success",),
    Outcome.FAILED: ("Failed", "ExecutionTimedOut"),
    Outcome.UNDELIVERED: ("DeliveryTimedOut", "Undeliverable", "Terminated"),
    Outcome.DENIED: ("AccessDenied",),
    Outcome.CANCELLED: ("Cancelled",),
}
MOST_TURNS = 3000


@dataclass
class Truth:
    """What really is on a host, known to the story alone."""

    missing: int
    pending: int = 0
    installs: int = 0
    report: PatchState | None = None
    scanned_after_install: PatchState | None = None


@dataclass
class Turn:
    """One question to `decide` and its answer."""

    at: datetime
    rows: tuple[HostRow, ...]
    decision: Decision
    errors_since: datetime | None
    unhealthy: dict[str, frozenset[HostId]]
    recovered: frozenset[HostId]


@dataclass
class Story:
    """What happened, in order."""

    rules: StageRules
    turns: list[Turn] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    rows: dict[HostId, HostRow] = field(default_factory=dict)
    dispatches: dict[str, DispatchRow] = field(default_factory=dict)
    truth: dict[HostId, Truth] = field(default_factory=dict)
    newcomers: dict[HostId, Host] = field(default_factory=dict)
    end: Done | Halt | None = None

    def sent(self, step: StepKind) -> list[DispatchRow]:
        return [row for row in self.dispatches.values() if row.step is step and row.state is not DispatchState.REFUSED]

    def rows_after(self, turn: Turn) -> list[HostRow]:
        """The stage as it stood once the decided dispatches were intended."""
        begun = {host: one.step for one in turn.decision for host in one.hosts} if isinstance(turn.decision, tuple) else {}
        return [replace(row, state=rollout.RUNNING_STATE[begun[row.host]]) if row.host in begun else row for row in turn.rows]


@dataclass
class _Fate:
    """What becomes of one command on one host: when AWS says what, and what that leaves on the host."""

    listed_at: datetime
    ends_at: datetime | None
    outcome: Outcome
    details: str
    visible_at: datetime | None  # of the patch report


class Player:
    """Plays one stage; `choose` is hypothesis' source of randomness, so that a failing story shrinks."""

    def __init__(self, choose: Random, *, hosts: int, kindness: float, clears: int = 0) -> None:
        self.choose = choose
        self.kindness = kindness
        self.clears = clears
        self.cancels = 3
        self.now = NOW
        self.errors_since: datetime | None = None
        self.hosts: dict[HostId, Host] = {}
        self.fates: dict[tuple[str, HostId], _Fate] = {}
        self.joiners = choose.choice([3, 1, 0, 0])
        self.recovered: set[HostId] = set()
        rows = []
        for number in range(1, hosts + 1):
            group = choose.choice(["web", None, "web", "api"])
            cell = choose.choice([CELL, CELL, FAR])
            platform = choose.choice(["Amazon Linux 2023", "Ubuntu 24.04"])
            targets = choose.choice([(), (), ("shop",)])
            host = a_host(number, cell=cell, platform=platform, group=group, target_groups=targets, zone=choose.choice("ab"))
            rows.append(a_row(number, cell=cell, platform=platform, domains=fleet.failure_domains(host, stage="prod")))
            self.hosts[rows[-1].host] = host
        domains = sorted({domain for row in rows for domain in row.domains})
        rules = the_rules(
            rows,
            places={domain: choose.randint(1, 3) for domain in domains},
            total=choose.randint(1, 5),
            error_budget=choose.choice([0, 1, 2, hosts]),
            window=self._window() if kindness < 1 else None,
        )
        self.unhealthy = self._unhealthy(rows, domains) if kindness < 1 else {}
        self.story = Story(rules=rules, rows={row.host: row for row in rows})
        self.story.truth = {row.host: Truth(missing=choose.choice([0, 3, 5])) for row in rows}

    def play(self) -> Story:
        story = self.story
        for _ in range(MOST_TURNS):
            self._look()
            rows = tuple(story.rows.values())
            unhealthy = {domain: frozenset(hosts) for domain, hosts in self.unhealthy.items()}
            recovered = frozenset(self.recovered)
            decision = rollout.decide(
                story.rules,
                rows,
                story.dispatches,
                unhealthy_before=unhealthy,
                recovered=recovered,
                errors_since=self.errors_since,
                now=self.now,
            )
            story.turns.append(Turn(self.now, rows, decision, self.errors_since, unhealthy, recovered))
            match decision:
                case tuple():
                    for dispatch in decision:
                        self._send(dispatch)
                case Wait():
                    self._pass_time(decision)
                case Halt() if self.clears > 0:
                    self.clears -= 1
                    self.errors_since = self.now  # a person clears the task; what failed until now is spent
                    self.now += timedelta(minutes=1)
                case Done() if self._join():
                    pass  # the last look found somebody
                case Halt() | Done():
                    story.end = decision
                    return story
        raise AssertionError(f"no end after {MOST_TURNS} turns; last: {story.turns[-1].decision}")

    def _window(self) -> Span | None:
        # Chosen from a list, for hypothesis' `random()` is far from evenly spread; it likes what stands first.
        minutes = self.choose.choice([None, None, (-60, 30), (0, 10), (0, 25), (0, 40), (45, 90), (0, 300)])
        if minutes is None:
            return None
        return Span(opens=NOW + timedelta(minutes=minutes[0]), closes=NOW + timedelta(minutes=minutes[1]))

    def _unhealthy(self, rows: Sequence[HostRow], domains: Sequence[str]) -> dict[str, set[HostId]]:
        """Hosts of the stage and others that are unhealthy before we come."""
        domain = self.choose.choice(domains)
        inside = self.choose.choice([row.host for row in rows if domain in row.domains])
        return self.choose.choice([{domain: {HostId("i-outside")}}, {domain: {inside, HostId("i-outside")}}, {}])

    def _join(self) -> bool:
        """Perhaps somebody appears: in a group or in none; who vanished from that group is replaced by it."""
        if self.joiners <= 0 or self.choose.choice([True, False]):
            return False
        self.joiners -= 1
        number = 1000 + self.joiners
        host = a_host(number, group=self.choose.choice(["web", None]), zone=self.choose.choice("abc"), launched=self.now)
        story = self.story
        row = rollout.late_joiner(story.rules, host, fleet.failure_domains(host, stage="prod"), now=self.now)
        self.hosts[host.id] = story.newcomers[host.id] = host
        story.rows[host.id] = row
        story.truth[host.id] = Truth(missing=self.choose.choice([0, 3]))
        self._move(rollout.replacements(tuple(story.rows.values()), list(story.newcomers.values())))
        return True

    def _kind(self) -> bool:
        return self.choose.random() < self.kindness

    # --- AWS ------------------------------------------------------------------------------------------------------------
    def _send(self, dispatch: Dispatch) -> None:
        assert dispatch.token not in self.story.dispatches, "the same intent twice"
        row = DispatchRow(
            token=dispatch.token, run=self.story.rules.run, stage=self.story.rules.stage, step=dispatch.step,
            cell=dispatch.cell, hosts=dispatch.hosts, attempt=dispatch.attempt, state=DispatchState.SENT, fencing=1,
            intended_at=self.now, snapshot=dispatch.snapshot, command=f"c-{dispatch.token[:8]}", requested_at=self.now,
        )  # fmt: skip
        self._move([
            Move(host=host, before=self.story.rows[host].state, after=rollout.RUNNING_STATE[dispatch.step], reason="sent")
            for host in dispatch.hosts
        ])  # fmt: skip
        for host in dispatch.hosts:
            self.story.rows[host] = replace(self.story.rows[host], token=dispatch.token)
        refused = not self._kind() and self.choose.random() < 0.3
        self.story.dispatches[row.token] = replace(row, state=DispatchState.REFUSED) if refused else row
        if refused:
            self._refuse(dispatch)
            return
        for host in dispatch.hosts:
            self.fates[row.token, host] = self._fate(dispatch.step, host)

    def _refuse(self, dispatch: Dispatch) -> None:
        """As a whole, for one host; that one is found, or the command was for it alone."""
        guilty = dispatch.hosts[0] if len(dispatch.hosts) == 1 or self.choose.random() < 0.5 else None
        self._move([
            Move(
                host=host, before=rollout.RUNNING_STATE[dispatch.step], reason="refused",
                after=HostState.UNREACHABLE if host == guilty else rollout.FROM_STATE[dispatch.step],
            )
            for host in dispatch.hosts
        ])  # fmt: skip

    def _fate(self, step: StepKind, host: HostId) -> _Fate:
        truth = self.story.truth[host]
        outcome = Outcome.SUCCEEDED if self._kind() else self.choose.choice([*DETAILS, Outcome.RUNNING])
        if outcome is Outcome.CANCELLED:
            self.cancels -= 1
            outcome = Outcome.CANCELLED if self.cancels >= 0 else Outcome.SUCCEEDED
        ends = None if outcome is Outcome.RUNNING else self.now + timedelta(minutes=self.choose.randint(1, 30))
        details = "InProgress" if outcome is Outcome.RUNNING else self.choose.choice(DETAILS[outcome])
        visible = None
        if ends is not None and outcome is Outcome.SUCCEEDED and (self._kind() or self.choose.random() < 0.5):
            visible = ends + timedelta(minutes=self.choose.choice([0, 0, 3]))
        if step is StepKind.INSTALL and (outcome is Outcome.SUCCEEDED or self.choose.random() < 0.5):
            truth.installs += 1
            truth.missing = 0 if self._kind() else self.choose.choice([0, 2])
            truth.pending = self.choose.choice([0, 1])
        if step is StepKind.REBOOT and outcome is Outcome.SUCCEEDED and self._kind():
            truth.pending = 0
        return _Fate(self.now + timedelta(seconds=self.choose.choice([0, 30])), ends, outcome, details, visible)

    def _look(self) -> None:
        """Observe, and write down what follows."""
        story, invocations, states, complete = self.story, {}, {}, set()
        for (token, host), fate in self.fates.items():
            dispatch = story.dispatches[token]
            over = fate.ends_at is not None and fate.ends_at <= self.now
            if fate.listed_at <= self.now:
                invocations[token, host] = Invocation(
                    token=token, host=host, outcome=fate.outcome if over else Outcome.RUNNING,
                    details=fate.details if over else "InProgress", exit_code=0 if over else None,
                )  # fmt: skip
            if fate.visible_at is not None and fate.visible_at <= self.now:
                self._report(dispatch, host, fate)
        for token in story.dispatches:
            of_it = [fate for (its, _), fate in self.fates.items() if its == token]
            if of_it and all(fate.ends_at is not None and fate.ends_at <= self.now for fate in of_it):
                complete.add(token)
        states = {host: truth.report for host, truth in story.truth.items() if truth.report is not None}
        seen = Observation(hosts=self.hosts, invocations=invocations, patch_states=states, complete=frozenset(complete))
        rows = tuple(story.rows.values())
        self._move(rollout.observed(story.rules, rows, story.dispatches, seen, now=self.now))
        self._move(rollout.out_of_time(story.rules, tuple(story.rows.values()), now=self.now))
        for token in complete:
            if story.dispatches[token].state is DispatchState.SENT:
                story.dispatches[token] = replace(story.dispatches[token], state=DispatchState.ENDED)

    def _report(self, dispatch: DispatchRow, host: HostId, fate: _Fate) -> None:
        truth = self.story.truth[host]
        assert fate.ends_at is not None
        if dispatch.step is StepKind.REBOOT or (truth.report is not None and truth.report.ended >= fate.ends_at):
            return
        truth.report = PatchState(
            host=host, operation="Install" if dispatch.step is StepKind.INSTALL else "Scan", ended=fate.ends_at, snapshot="",
            installed=10, missing=truth.missing, failed=0, pending_reboot=truth.pending, rejected=0,
        )  # fmt: skip
        if dispatch.step is StepKind.VERIFY:
            truth.scanned_after_install = truth.report

    def _pass_time(self, wait: Wait) -> None:
        moments = [wait.until]
        for fate in self.fates.values():
            moments += [one for one in (fate.listed_at, fate.ends_at, fate.visible_at) if one is not None]
        self.now = min([moment for moment in moments if moment > self.now], default=self.now + timedelta(minutes=1))
        if not self._kind() and self.choose.choice([True, False, False]):
            self._mishap()
        match self.choose.choice(["join", None, None, "well"]):
            case "join":
                self._join()
            case "well":
                self._get_well()

    def _get_well(self) -> None:
        """Somebody who failed serves again, or somebody who was unhealthy before."""
        failed = [row.host for row in self.story.rows.values() if row.state in rollout.HOLDS_PLACE - rollout.IN_FLIGHT]
        if failed and self.choose.choice([True, False]):
            self.recovered.add(self.choose.choice(failed))
        elif self.unhealthy:
            self.unhealthy.pop(self.choose.choice(sorted(self.unhealthy)))

    def _mishap(self) -> None:
        host = self.choose.choice(sorted(self.story.rows))
        match self.choose.choice(["terminated", "gone", "stopped", "silent"]):
            case "gone":
                self.hosts.pop(host, None)
            case word if host in self.hosts:
                changes = {
                    "stopped": {"state": InstanceState.STOPPED, "ping": Ping.CONNECTION_LOST},
                    "silent": {"ping": Ping.CONNECTION_LOST},
                    "terminated": {"state": InstanceState.TERMINATED},
                }[word]
                self.hosts[host] = replace(self.hosts[host], **changes)  # type: ignore[arg-type]

    # --- the ledger -----------------------------------------------------------------------------------------------------
    def _move(self, moves: Sequence[Move]) -> None:
        for move in moves:
            row = self.story.rows[move.host]
            assert row.state is move.before, f"{move.host} is {row.state}, not {move.before}"
            rollout.check_move(move.host, move.before, move.after)
            self.story.rows[move.host] = replace(row, state=move.after, since=self.now, reason=move.reason)
            self.story.moves.append(move)


def holding(rows: Sequence[HostRow], turn: Turn) -> dict[str, set[HostId]]:
    """Hosts that hold a place, by failure domain: in flight, failed and not well again, or unhealthy before we came."""
    held: dict[str, set[HostId]] = {domain: set(hosts) for domain, hosts in turn.unhealthy.items()}
    for row in rows:
        if row.state in rollout.IN_FLIGHT or (row.state in rollout.HOLDS_PLACE and row.host not in turn.recovered):
            for domain in row.domains:
                held.setdefault(domain, set()).add(row.host)
    return held
