"""What goes on around a stage's hosts while they are patched?

The executor asks at the beginning of each leg, and whenever hosts are looked at: who was unhealthy before we came and still is,
which failed hosts serve again, who has appeared and who stands in the place of a host that vanished, and in which span the
stage may act, by `openings`. What is found is written to the ledger, so that a resume sees the same; what follows from it
`rollout` decides.

AWS is asked little: all groups when a stage begins, afterwards those whose places may have changed (Auto Scaling groups of hosts
that are not settled, target groups of hosts that hold a place, and groups that had an unhealthy member); newcomers by EC2's word
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from patchwave.aws.gateway import Gateway
from patchwave.aws.groups import GROUP_TAG, groups_of
from patchwave.campaign import fleet, rollout, waves
from patchwave.campaign.definition import PATCH_GROUP_KEYS, AmbiguousStage, Campaign
from patchwave.campaign.fleet import Group, Host, Ping, Readiness
from patchwave.campaign.plan import Plan, StagePlan
from patchwave.campaign.rollout import TERMINAL, Halt, HostRow, StageRules, Wait
from patchwave.campaign.values import Cell, HostId
from patchwave.campaign.windows import Span
from patchwave.execution.log import Log
from patchwave.execution.openings import Openings
from patchwave.ledger.store import Lease, Ledger

EVERY = timedelta(minutes=15)
"""How long a stage goes on at most without a look at newcomers and the health of others, which costs a call for each thousand
hosts of a cell. Hosts are looked at before they are sent something, too, and before a stage is called done or halts for want of
a place."""
STARTING = timedelta(minutes=15)
"""How long the agent of a fresh instance may take to register; after that it counts as one that does not answer."""


@dataclass(kw_only=True)
class Surroundings:
    """What surrounds one stage, for one leg of its task.

    Attributes:
        campaign: as it was when the run began.
        now: the campaign's time.
        anew: the stage begins, or a person cleared its halt: its window is chosen anew.
        every: how often to look around, and to ask what closes its window (a rehearsal's clock runs faster).
        patience: how long a failed host may take to serve again before its place is a reason to halt.
        listed: what EC2 said of the stage's hosts and their neighbours at the last look of this leg.
    """

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    campaign: Campaign
    plan: Plan
    stage: StagePlan
    now: Callable[[], datetime]
    log: Log
    anew: bool = False
    every: timedelta = EVERY
    patience: timedelta | None = None
    before: dict[str, set[HostId]] = field(default_factory=dict)
    recovered: set[HostId] = field(default_factory=set)
    _places: dict[str, int] = field(default_factory=dict)
    _window: Span | None = None
    _begun: bool = False
    _looked: datetime | None = None
    _asked: datetime | None = None
    listed: dict[Cell, dict[HostId, Host]] = field(default_factory=dict)
    _refused: set[HostId] = field(default_factory=set)

    # --- what the executor asks -----------------------------------------------------------------------------------------
    def rules(self, rules: StageRules) -> StageRules:
        """The stage's rules under what is known now: a group that has shrunk has fewer places, and the window is a span."""
        places = {domain: min(count, self._places.get(domain, count)) for domain, count in rules.places.items()}
        return replace(rules, places=places, window=self._window)

    def begin(self, rows: Sequence[HostRow]) -> None:
        """Before anything is decided in a leg: who was unhealthy before we came, and in which span the stage may act."""
        if not self._begun:
            self._begin(rows)
            self._begun = True
            self._looked = self.ledger.stage(self.lease.run, self.lease.stage).looked_at
            self._ask_for_the_window(anew=self.anew, ask=self.due)

    @property
    def due(self) -> bool:
        """Whether nobody has looked for `every`."""
        return self._looked is None or self.now() - self._looked >= self.every

    def look(self, rules: StageRules, rows: Sequence[HostRow]) -> bool:
        """Newcomers, replacements, and whose health has changed.

        Returns:
            Whether anything of that makes a difference to what is to be done next.
        """
        was = self.before, set(self.recovered), dict(self._places), self._window, list(self._rows())
        self.before = {domain: set(hosts) for domain, hosts in self.before.items()}
        self._note_look()
        self._ask_for_the_window()
        self.join(rules, rows)
        self.reconsider(rows)
        return (self.before, self.recovered, self._places, self._window, list(self._rows())) != was

    def _note_look(self) -> None:
        self._looked = self.now()
        self.ledger.note_look(self.lease, at=self._looked)

    def at_the_end(self, rules: StageRules, rows: Sequence[HostRow]) -> Wait | bool:
        """The last look, when each host is settled.

        Returns:
            Whether somebody joined, so that the stage goes on; a wait while somebody who appeared is still starting.
        """
        self._note_look()
        before = list(self._rows())
        starting = self.join(rules, rows)
        if list(self._rows()) != before:
            return True
        if starting:
            until = min(starting.values()) + STARTING
            return Wait(
                reason=f"{len(starting)} hosts appeared in the stage and are starting: {', '.join(sorted(starting)[:10])}",
                ends="their agents register with Systems Manager",
                until=max(until, self.now() + timedelta(minutes=1)),
                expected=timedelta(minutes=1),
            )
        return False

    def at_a_full_domain(self, halt: Halt, rows: Sequence[HostRow]) -> Wait | bool:
        """Before a stage halts because every place is held: do the holders serve again?

        Returns:
            Whether somebody does, so that it is decided anew; a wait while one of them may still be on its way back.
        """
        was = self.before, set(self.recovered)
        self.before = {domain: set(hosts) for domain, hosts in self.before.items()}
        self.reconsider(rows)
        if (self.before, self.recovered) != was:
            return True
        patience = self.stage.health_timeout if self.patience is None else self.patience
        # Who is no host of the stage has been unhealthy since before it began.
        began = self.ledger.stage(self.lease.run, self.lease.stage).began_at or self.now()
        since = {row.host: row.since for row in rows}
        until = max((since.get(host, began) + patience for host in halt.hosts), default=self.now())
        if until <= self.now():
            return False
        return Wait(
            reason=f"{halt.reason}; whether they serve again is looked at",
            ends="one of them is healthy again",
            until=min(until, self.now() + self.every),
        )

    # --- the beginning --------------------------------------------------------------------------------------------------
    @property
    def _document(self) -> str:
        return f"unhealthy:{self.stage.name}"

    def _begin(self, rows: Sequence[HostRow]) -> None:
        """Who was unhealthy before we came: asked once, and read from the ledger by every later leg."""
        known = self._read(self._document)
        if known is None:
            groups = self._groups(domain for row in rows for domain in row.domains)
            self._places = self._places_of(groups)
            self.before = self._unhealthy(groups, mine={row.host for row in rows})
            self._store()
        else:
            self._places = {str(domain): int(count) for domain, count in known["places"].items()}
            self.before = {domain: {HostId(host) for host in hosts} for domain, hosts in known["before"].items()}
            self.recovered = {HostId(host) for host in known["recovered"]}

    def _ask_for_the_window(self, *, anew: bool = False, ask: bool = True) -> None:
        """In which span the stage may act; AWS is not asked twice in one leg but after `every`."""
        openings = Openings(
            ledger=self.ledger, gateway=self.gateway, lease=self.lease, campaign=self.campaign, plan=self.plan, stage=self.stage,
            log=self.log, every=self.every,
        )  # fmt: skip
        now = self.now()
        ask = anew or (ask and (self._asked is None or now - self._asked >= self.every))
        self._window = openings.current(now=now, anew=anew, ask=ask)
        if ask:
            self._asked = now

    def _read(self, name: str) -> Any:
        try:
            return self.ledger.document(self.lease.run, name)
        except KeyError:
            return None

    def _store(self) -> None:
        content = {
            "before": {domain: sorted(hosts) for domain, hosts in sorted(self.before.items()) if hosts},
            "recovered": sorted(self.recovered),
            "places": dict(sorted(self._places.items())),
        }
        self.ledger.check(self.lease)
        self.ledger.put_document(self.lease.run, self._document, content, at=self.now())

    # --- health ---------------------------------------------------------------------------------------------------------
    def _groups(self, domains: Iterable[str]) -> tuple[Group, ...]:
        """The Auto Scaling and target groups among these domains, as AWS has them now."""
        named = set(domains)
        found: list[Group] = []
        for cell in self.campaign.cells:
            found += self.gateway.groups(cell, groups_of(named, cell, "asg"))
            found += self.gateway.target_groups(cell, groups_of(named, cell, "target"))
        return tuple(found)

    def _places_of(self, groups: Iterable[Group]) -> dict[str, int]:
        concurrency = waves.concurrency(self.stage.concurrency)
        return {one.domain: waves.places(concurrency, len(one.members), minimum=one.minimum) for one in groups}

    def _unhealthy(self, groups: Iterable[Group], *, mine: Collection[HostId]) -> dict[str, set[HostId]]:
        """By domain: members that the group calls unhealthy, and members outside the stage whose agent has gone silent."""
        groups = list(groups)
        outside: dict[Cell, set[HostId]] = {}
        for group in groups:
            cell = Cell.parse(group.domain.partition(":")[2].rpartition("/")[0])
            outside.setdefault(cell, set()).update(group.members - set(mine))
        lost = {host.id for cell, ids in outside.items() if ids for host in self.gateway.hosts(cell, ids) if _is_lost(host)}
        found = {group.domain: set(group.unhealthy) | (set(group.members) & lost) for group in groups}
        return {domain: hosts for domain, hosts in found.items() if hosts}

    def reconsider(self, rows: Sequence[HostRow]) -> None:
        """Who was unhealthy before, or failed meanwhile, and serves now, gives its place back; asked only while somebody
        may want it."""
        if all(row.state in TERMINAL for row in rows):
            return
        was = ({domain: set(hosts) for domain, hosts in self.before.items()}, set(self.recovered), dict(self._places))
        held = [row for row in rows if row.state in TERMINAL and rollout.holds_place(row)]
        domains = {domain for row in held for domain in row.domains if domain.startswith("target:")} | self.before.keys()
        scaling = {domain for row in rows if row.state not in TERMINAL for domain in row.domains if domain.startswith("asg:")}
        groups = self._groups(domains | scaling)
        places = self._places_of(group for group in groups if group.domain in scaling)
        if self.before:
            asked = [group for group in groups if group.domain in self.before]
            now = self._unhealthy(asked, mine={row.host for row in rows})
            self.before = {domain: still for domain, hosts in self.before.items() if (still := hosts & now.get(domain, set()))}
        self.recovered = self._healthy(held, {host for group in groups for host in group.unhealthy})
        self._places.update(places)  # a group that shrinks meanwhile has fewer to spare
        if (self.before, self.recovered, self._places) == was:
            return
        self._note(rows, was[1])
        self._store()

    def _healthy(self, held: Sequence[HostRow], unhealthy: Collection[HostId]) -> set[HostId]:
        cells: dict[Cell, list[HostId]] = {}
        for row in held:
            cells.setdefault(row.cell, []).append(row.host)
        return {
            health.host
            for cell, ids in cells.items()
            for health in self.gateway.health(cell, ids)
            if health.healthy and health.host not in unhealthy
        }

    def _note(self, rows: Sequence[HostRow], was: Collection[HostId]) -> None:
        by_host = {row.host: row for row in rows}
        for host in sorted(self.recovered ^ set(was)):
            back = host in self.recovered
            row = by_host[host]
            reason = "it serves again by every check" if back else "it is not healthy any more"
            self.log.info("%s (%s): its place is %s: %s", host, row.state.value, "given back" if back else "taken again", reason)
            data = {"stage": self.stage.name, "host": host, "state": row.state.value, "domains": row.domains, "reason": reason}
            self.ledger.record(self.lease.run, "host.recovered" if back else "host.unwell", data, at=self.now())

    # --- newcomers ------------------------------------------------------------------------------------------------------
    def _rows(self) -> Sequence[HostRow]:
        return self.ledger.hosts(self.lease.run, self.lease.stage)

    def join(self, rules: StageRules, rows: Sequence[HostRow]) -> dict[HostId, datetime]:
        """Add hosts that appeared in the stage to it, and name those that replace a host that is gone.

        Returns:
            Hosts that appeared and whose agent has not registered yet, with their launch; they are added when it has.
        """
        if self.plan.restriction.by_finding:
            return {}  # nobody knows their findings, and the run is about hosts that have some
        listed = self.listed = {cell: self._listed(cell, rows) for cell in self.campaign.cells}
        known = {host.id for host in self.plan.hosts} | {one.host for one in self.plan.exclusions} | self._refused
        known |= {row.host for row in self.ledger.hosts(self.lease.run)}
        starting: dict[HostId, datetime] = {}
        for cell, there in listed.items():
            new = [one.id for one in there.values() if one.id not in known and self._belongs(cell, one.id, one.tags, rows)]
            joining = []
            for host in self.gateway.hosts(cell, new) if new else ():
                launched = there[host.id].launched
                ready = fleet.readiness(host)
                if ready in (Readiness.STOPPED, Readiness.TERMINATED):
                    continue
                if ready is Readiness.UNREACHABLE and launched is not None and self.now() < launched + STARTING:
                    starting[host.id] = launched
                else:
                    joining.append(host)
            self._add(rules, rows, joining)
        self._replace(rows, listed)
        return starting

    def _listed(self, cell: Cell, rows: Sequence[HostRow]) -> dict[HostId, Host]:
        """Who is there that may be the stage's: one call for the keys that its hosts or its groups' members carry."""
        select = self.campaign.stage(self.stage.name).select
        groups = {GROUP_TAG} if any(domain.startswith(f"asg:{cell}/") for row in rows for domain in row.domains) else set()
        return self.gateway.listed(
            cell, self.campaign.scope.tags, keys={*(PATCH_GROUP_KEYS if select.patch_groups else ()), *select.tags, *groups}
        )

    def _belongs(self, cell: Cell, host: HostId, tags: Mapping[str, str], rows: Sequence[HostRow]) -> bool:
        """Whether a host that appeared is this stage's: its tags say so, or it is in one of its groups and in no stage."""
        try:
            stage = self.campaign.stage_of(tags, host=host)
        except AmbiguousStage as error:
            self._refused.add(host)
            self.log.info("%s appeared and is left alone: %s", host, error)
            return False
        if stage is not None:
            return stage.name == self.stage.name
        group = fleet.group_domain(cell, tags.get(GROUP_TAG, ""))
        return any(group in row.domains for row in rows)

    def _add(self, rules: StageRules, rows: Sequence[HostRow], hosts: Sequence[Host]) -> None:
        if not hosts:
            return
        made = []
        for host in hosts:
            # Who is launched into a group is registered in its target groups, as its siblings are.
            group = fleet.group_domain(host.cell, host.group) if host.group else ""
            targets = {
                domain.rpartition("/")[2]
                for row in rows
                if group in row.domains
                for domain in row.domains
                if domain.startswith(f"target:{host.cell}/")
            }
            domains = fleet.failure_domains(replace(host, target_groups=tuple(targets)), stage=self.stage.name)
            made.append(rollout.late_joiner(rules, host, domains, now=self.now()))
        self.ledger.add_hosts(self.lease, made)
        for row in made:
            self.log.info("%s (%s) joins the stage: %s", row.host, row.name, row.reason)

    def _replace(self, rows: Sequence[HostRow], listed: Mapping[Cell, Mapping[HostId, Host]]) -> None:
        if not any(row.state is rollout.HostState.TERMINATED for row in rows):
            return
        planned = {host.id for host in self.stage.hosts}
        newcomers = [host for there in listed.values() for host in there.values() if host.id not in planned]
        moves = rollout.replacements(self._rows(), newcomers)
        if moves:
            self.ledger.move_hosts(self.lease, moves, at=self.now())
        for move in moves:
            self.log.info("%s: %s", move.host, move.reason)


def _is_lost(host: Host) -> bool:
    """Whether a host that we do not patch is missing where it serves: stopped, gone, or its agent has gone silent. One that
    Systems Manager has never known is none of ours to judge."""
    ready = fleet.readiness(host)
    silent = ready is Readiness.UNREACHABLE and host.ping is not Ping.UNMANAGED
    return silent or ready in (Readiness.STOPPED, Readiness.TERMINATED)
