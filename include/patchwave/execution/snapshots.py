"""How does each host come to have its snapshot before patches are installed on it?

The executor hands over the Installs that are due. What comes back may be sent: hosts whose snapshot is as far as the policy wants
it. For the others one is begun, intent first, under a token that is its tag in AWS; whoever resumes finds it by that. A host
that gets none in time is not patched. What was taken stands in a document of the run, for `campaign.rollback` and for whoever
deletes it in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from patchwave.aws.errors import code_of
from patchwave.aws.gateway import Gateway
from patchwave.campaign import rollout, snapshots
from patchwave.campaign.errors import InvalidRequest, OutcomeUnknown, Permanent, Throttled
from patchwave.campaign.rollout import Dispatch, HostState, Move, StepKind, Wait
from patchwave.campaign.snapshots import Snapshots, State, Taken
from patchwave.campaign.values import Cell, Count, HostId
from patchwave.execution.log import Log
from patchwave.ledger.store import Lease, Ledger

LOOK = timedelta(minutes=1)
"""EC2 tells the progress of a snapshot about that often."""
BUSY = frozenset({"ConcurrentSnapshotLimitExceeded", "SnapshotCreationPerVolumeRateExceeded"})
"""Error codes: others are making snapshots of that volume."""
BEGINNING, TAKEN = "snapshot.beginning", "snapshot.taken"
"""Kinds of records: which snapshots are about to be begun, and how one went on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What may be sent now, who is settled without it, and what the others wait for (None: nobody does)."""

    ready: tuple[Dispatch, ...]
    moves: tuple[Move, ...] = ()
    wait: Wait | None = None


@dataclass(kw_only=True)
class SnapshotsBefore:
    """Snapshots of one stage, under its lease.

    Attributes:
        settling: how long a snapshot that EC2 does not list may still be on its way from another process.
    """

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    rule: Snapshots
    now: Callable[[], datetime]
    log: Log
    settling: timedelta

    def hold(self, installs: Sequence[Dispatch]) -> Held:
        """Begin and look at the snapshots of these Installs' hosts.

        Raises:
            LeaseLost: another process has taken the stage over.
            AwsUnavailable: looking failed.
        """
        taken = read(self.ledger, self.lease)
        moves: list[Move] = []
        waiting: list[Taken] = []
        enough = snapshots.enough(self.rule)
        for cell, hosts in _by_cell(installs).items():
            missing = [host for host in hosts if host not in taken or taken[host].state not in enough]
            if missing:
                moves += self._advance(cell, missing, taken, enough)
        settled = {move.host for move in moves}
        good = {host for host, one in taken.items() if one.state in enough}
        for install in installs:
            waiting += [taken[host] for host in install.hosts if host not in good and host not in settled]
        some = [_only(one, [host for host in one.hosts if host in good], self.lease) for one in installs]
        ready = tuple(one for one in some if one is not None)
        return Held(ready=ready, moves=tuple(moves), wait=self._wait(waiting) if waiting else None)

    def _advance(
        self, cell: Cell, hosts: Sequence[HostId], taken: dict[HostId, Taken], enough: frozenset[State]
    ) -> list[Move]:
        """Adopt, look, begin; hosts that get no snapshot any more are settled."""
        found = self.gateway.snapshots_of(cell, self.lease.run)
        before = dict(taken)
        for one in [taken[host] for host in hosts if host in taken]:
            there = found.get(one.token)
            if there is not None:
                taken[one.host] = replace(one, id=there.id, state=there.state, why=there.why)
            elif one.state is State.PENDING:
                taken[one.host] = replace(one, state=State.ERROR, why="EC2 does not list it any more")
        due = [host for host in hosts if host not in taken or self._was_never_begun(taken[host])]
        moves = self._begin(cell, due, taken)
        self._note(before, taken)
        for one in [taken[host] for host in hosts if host in taken and taken[host].state not in enough]:
            late = self.now() >= one.since + self.rule.timeout
            if one.state is State.ERROR:
                moves.append(_unpatched(one.host, f"its snapshot failed: {one.why or 'EC2 gives no reason'}"))
            elif late:
                moves.append(_unpatched(one.host, f"its snapshot {one.id} was not {self.rule.until.value} in time"))
        return moves

    def _was_never_begun(self, one: Taken) -> bool:
        return one.state is State.INTENDED and self.now() >= one.intended_at + self.settling

    def _begin(self, cell: Cell, hosts: Sequence[HostId], taken: dict[HostId, Taken]) -> list[Move]:
        if not hosts:
            return []
        disks = {one.host: one for one in self.gateway.root_volumes(cell, hosts)}
        without = [host for host in hosts if host not in disks or not disks[host].volume]
        begun = [host for host in hosts if host not in without]
        for host in begun:
            disk, first = disks[host], taken.get(host)
            taken[host] = Taken(
                host=host,
                cell=cell,
                token=snapshots.token(self.lease.run, self.lease.stage, host),
                volume=disk.volume,
                gib=disk.gib,
                state=State.INTENDED,
                since=first.since if first is not None else self.now(),
                intended_at=self.now(),
                keep_until=self.now() + self.rule.keep,
            )
        self.ledger.check(self.lease)
        self.ledger.record(self.lease.run, BEGINNING, {"stage": self.lease.stage, "hosts": list(begun)}, at=self.now())
        self._write(taken)
        for host in begun:
            self._create(taken, host)
        self._write(taken)
        return [
            Move(host=host, before=HostState.READY, after=HostState.EXCEPTED,
                 reason="it is not patched without a snapshot, and its root device is no EBS volume")
            for host in without
        ]  # fmt: skip

    def _create(self, taken: dict[HostId, Taken], host: HostId) -> None:
        one = taken[host]
        self.ledger.check(self.lease)
        try:
            made = self.gateway.create_snapshot(
                one.cell, volume=one.volume, host=host, run=self.lease.run, token=one.token, keep=one.keep_until
            )
        except (OutcomeUnknown, Throttled) as error:
            self.log.info("The snapshot of %s: %s; it is looked for by its token", host, error)
        except InvalidRequest as error:
            if code_of(error) in BUSY:  # no other volume waits longer than the policy says, either
                self.log.info("The snapshot of %s is tried again: %s", host, error)
            else:
                taken[host] = replace(one, state=State.ERROR, why=str(error))
        except Permanent as error:
            taken[host] = replace(one, state=State.ERROR, why=str(error))
        else:
            taken[host] = replace(one, id=made.id, state=made.state, why=made.why)

    def _note(self, before: dict[HostId, Taken], taken: dict[HostId, Taken]) -> None:
        changed = [one for host, one in taken.items() if before.get(host) != one and one.id]
        if not changed:
            return
        self.ledger.check(self.lease)
        for one in changed:
            data = {"stage": self.lease.stage, "host": one.host, "snapshot": one.id, "volume": one.volume,
                    "state": one.state.value, "keep_until": one.keep_until.isoformat()}  # fmt: skip
            self.ledger.record(self.lease.run, TAKEN, data, at=self.now())
            self.log.info("Snapshot %s of %s: %s", one.id, one.host, one.state.value)
        self._write(taken)

    def _write(self, taken: dict[HostId, Taken]) -> None:
        self.ledger.put_document(
            self.lease.run, snapshots.document(self.lease.stage), snapshots.to_json(taken.values()), at=self.now()
        )

    def _wait(self, waiting: Sequence[Taken]) -> Wait:
        first = min(one.since for one in waiting)
        return Wait(
            reason=f"{Count(len(waiting))} wait for the snapshot before patching, since {first:%H:%M} UTC",
            ends=f"EC2 calls it {self.rule.until.value}; a host without it by then is not patched",
            until=max(self.now() + timedelta(seconds=1), first + self.rule.timeout),
            look=LOOK,
        )


def read(ledger: Ledger, lease: Lease) -> dict[HostId, Taken]:
    """The stage's snapshots as the ledger has them."""
    try:
        return snapshots.from_json(ledger.document(lease.run, snapshots.document(lease.stage)))
    except KeyError:
        return {}


def _unpatched(host: HostId, why: str) -> Move:
    return Move(
        host=host, before=HostState.READY, after=HostState.FAILED, reason=f"nothing was installed, for {why}"
    )


def _by_cell(installs: Sequence[Dispatch]) -> dict[Cell, list[HostId]]:
    cells: dict[Cell, list[HostId]] = {}
    for one in installs:
        cells.setdefault(one.cell, []).extend(one.hosts)
    return cells


def _only(install: Dispatch, hosts: Sequence[HostId], lease: Lease) -> Dispatch | None:
    """The Install of some of its hosts."""
    if not hosts or len(hosts) == len(install.hosts):
        return install if hosts else None
    token = rollout.token(lease.run, lease.stage, StepKind.INSTALL, install.attempt, hosts)
    return replace(install, hosts=tuple(hosts), token=token)
