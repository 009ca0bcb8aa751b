"""How is a host kept in its Auto Scaling group while it only reboots?

A group replaces an instance whose status checks or load balancer say that it is ill, and an instance that reboots looks so for
minutes: it would come back as another one, unpatched (EC2 Auto Scaling user guide, "Suspend and resume processes"). So the two
processes that would do that are suspended from before a reboot is sent until the Scan after it is over and the host serves again.
What is to be suspended is written down first, so whoever goes on after a crash, or stops the stage, resumes exactly that; what
somebody else had suspended is not ours to resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from patchwave.aws.gateway import Gateway
from patchwave.aws.groups import groups_of
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.rollout import HostRow, HostState, Wait
from patchwave.campaign.values import Cell, HostId
from patchwave.execution.log import Log
from patchwave.ledger.store import Lease, Ledger

PROCESSES = ("HealthCheck", "ReplaceUnhealthy")
"""HealthCheck marks instances and ReplaceUnhealthy ends them; a mark that was made once would stay after the reboot."""
AWAY = frozenset({HostState.REBOOTING, HostState.TO_VERIFY, HostState.VERIFYING})
"""A host that was rebooted is not known to be back before the Scan after it is over."""
GRACE = timedelta(minutes=10)
"""How long after that Scan a host may take to serve its target groups; then its group judges it again."""
LOOK = timedelta(seconds=30)
SUSPENDING, RESUMED = "group.suspending", "group.resumed"
"""Kinds of records."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspended:
    """A group some of whose processes are suspended by us, or were about to be."""

    cell: str
    group: str
    processes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shield:
    """The Auto Scaling groups of one stage's hosts, under its lease."""

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    now: Callable[[], datetime]
    log: Log
    _done: set[tuple[str, str]] = field(default_factory=set, repr=False)
    """Cells and groups whose processes this very process has suspended."""

    def hold(self, rows: Iterable[HostRow]) -> None:
        """Before these hosts are sent a reboot: suspend what would replace them.

        Raises:
            LeaseLost: another process has taken the stage over.
            PatchwaveError: AWS does not let us; then nobody is to be rebooted.
        """
        held = {(one.cell, one.group): one for one in self.held()}
        for cell, group in _groups(rows):
            key = str(cell), group
            if key not in held:
                running = self.gateway.running_processes(cell, group, PROCESSES)
                if not running:
                    continue  # the group is gone, or somebody else has suspended both
                held[key] = Suspended(cell=str(cell), group=group, processes=running)
                self._write(tuple(held.values()), SUSPENDING, held[key])
            if key in self._done:
                continue
            # Where the ledger has it already, too: whoever wrote that may have been killed before the call.
            processes = held[key].processes
            self.ledger.check(self.lease)
            self.gateway.suspend_processes(cell, group, processes)
            self._done.add(key)
            self.log.info("Suspended %s of group %s in %s while hosts reboot", " and ".join(processes), group, cell)

    def release(self, rows: Sequence[HostRow]) -> Wait | None:
        """Resume the processes of groups of which no host is rebooting any more.

        Returns:
            What is waited for before the last of them can be resumed; None if nothing of ours is suspended, or hosts of the
            group are on their way still, which is waited for anyway.
        """
        wait: Wait | None = None
        for one in self.held():
            its = [row for row in rows if (Cell.parse(one.cell), one.group) in _groups([row])]
            if any(row.state in AWAY for row in its):
                continue
            ill = self._not_serving_yet(its)
            if ill:
                until = max(row.since for row in its if row.host in ill) + GRACE
                wait = Wait(
                    reason=f"health checks of Auto Scaling group {one.group} stay suspended until {len(ill)} rebooted hosts "
                    f"serve their target groups again: {', '.join(sorted(ill)[:10])}",
                    ends="the load balancer calls them healthy, or their time is over and the group judges them again",
                    until=min(until, self.now() + LOOK),
                )
                continue
            self._resume(one)
        return wait

    def release_all(self) -> None:
        """Resume everything of ours: the stage is being stopped, and nobody comes after us."""
        for one in self.held():
            self._resume(one)

    def held(self) -> tuple[Suspended, ...]:
        """What of this stage is suspended by us, by what the ledger says."""
        try:
            rows = self.ledger.document(self.lease.run, self._name)
        except KeyError:
            return ()
        return tuple(Suspended(cell=row["cell"], group=row["group"], processes=tuple(row["processes"])) for row in rows)

    @property
    def _name(self) -> str:
        return f"suspended.{self.lease.stage}"

    def _not_serving_yet(self, rows: Sequence[HostRow]) -> set[HostId]:
        """Hosts that ended well a short while ago, and that a target group does not call healthy yet."""
        fresh = [row for row in rows if row.state is HostState.PATCHED and self.now() < row.since + GRACE]
        ill: set[HostId] = set()
        for cell in {row.cell for row in fresh}:
            its = [row for row in fresh if row.cell == cell]
            names = {name for row in its for name in groups_of(row.domains, cell, "target")}
            for group in self.gateway.target_groups(cell, names):
                ill |= {row.host for row in its if row.host in group.unhealthy and group.domain in row.domains}
        return ill

    def _resume(self, one: Suspended) -> None:
        cell = Cell.parse(one.cell)
        self.ledger.check(self.lease)
        self._done.discard((one.cell, one.group))
        try:
            self.gateway.resume_processes(cell, one.group, one.processes)
        except InvalidRequest:
            if self.gateway.groups(cell, [one.group]):
                raise
            self.log.info("Group %s in %s is gone", one.group, cell)
        self._write([other for other in self.held() if other != one], RESUMED, one)
        self.log.info("Resumed %s of group %s in %s", " and ".join(one.processes), one.group, cell)

    def _write(self, held: Sequence[Suspended], kind: str, one: Suspended) -> None:
        self.ledger.check(self.lease)
        self.ledger.record(self.lease.run, kind, {"stage": self.lease.stage, **asdict(one)}, at=self.now())
        self.ledger.put_document(self.lease.run, self._name, [asdict(other) for other in held], at=self.now())


def _groups(rows: Iterable[HostRow]) -> list[tuple[Cell, str]]:
    return sorted({(row.cell, name) for row in rows for name in groups_of(row.domains, row.cell, "asg")})
