"""The running world: which hosts are there, what happens to them, and who is told?

`World` owns clock, agenda, journal, faults and hosts. It makes the fleets of a world file, moves hosts (reboot, agent, stop,
start, replaced) and writes the journal. It does not know HTTP or operations: `server.py` catches it up (`catch_up`) before each
request, `runcommand.py` and `patching.py` act through it, services read it.

For services: `hosts_in(account, region)`, `host(...)`, `state(...)`, `at(...)`, `random(...)`, `released(update)`,
`last_inventory(host, now)`, `on_report(callback)` (called with host and report at each upload of patch data),
`on_connected(callback)`, `on_event(kind, callback)` (a fault of that kind happens now: an alarm, a group that scales).
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from awsim import baselines, estate, groups, patching
from awsim.agenda import Agenda, call
from awsim.catalogue import Catalogue, Platform, Update, shipped
from awsim.clock import Clock, moment
from awsim.faults import EVENT_KINDS, Fault, Faults, Kind, Throttles
from awsim.host import Host, PatchReport
from awsim.journal import Cause, Event, Journal, Line
from awsim.world_file import Agent, Fleet, ImageTimings, InstanceState, Spread, Template, Timings, Unlike, WorldFile

State = TypeVar("State")
Cell = tuple[str, str]

DAY = 86_400.0
IMAGES_AGE = 61 * DAY
"""The platforms' images are older than the hosts that were launched from them, 20 to 60 days ago."""
NOBODY = Cause()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageContent:
    """What an instance of an image finds on its disk."""

    template: Template
    levels: dict[str, int]


class World:
    def __init__(self, *, clock: Clock, seed: int, file: WorldFile | None = None, catalogue: Catalogue | None = None) -> None:
        """Make the fleets of `file` in a fresh moto; None makes an empty AWS. moto's state is one a process, so is the world."""
        self.clock = clock
        self.seed = seed
        self.file = file
        self.catalogue = catalogue or shipped()
        self.timings = file.timings if file else Timings()
        self.image_timings = file.image_timings if file else ImageTimings()
        self.agenda = Agenda(clock.now())
        self.journal = Journal()
        self.faults = Faults(self.random, lambda: self.agenda.now)
        self.throttles = Throttles(virtual=lambda: self.agenda.now, real=clock.real_now)
        self._withdrawn: set[tuple[str, str | None, str | None]] = set()
        """Advisories whose updates are gone from the repositories, with the account and region where; None: everywhere."""
        self.cells: dict[Cell, dict[str, Host]] = {}
        self.networks: dict[Cell, estate.Network] = {}
        self.default_account = file.accounts[0].id if file else estate.DEFAULT_ACCOUNT_ID
        self._states: dict[tuple[str, str, Any], Any] = {}
        self._requests = 0
        self.answer: Callable[[dict[str, Any]], Any] | None = None
        """The application that answers requests (WSGI environ -> `wire.Answer`); for `inside.ask`."""
        self._on_report: list[Callable[[Host, PatchReport], None]] = []
        self._on_connected: list[Callable[[Host], None]] = []
        self._on_boot: list[Callable[[Host], None]] = []
        self._on_down: list[Callable[[Host, bool], None]] = []
        self._on_fault: list[Callable[[Fault], None]] = []
        self._on_event: dict[Kind, list[Callable[[Fault], None]]] = {}
        self._on_status: list[Callable[[Any], None]] = []
        self._on_step: list[Callable[[bool], None]] = []
        self.causes: dict[str, Cause] = {}
        """Host -> which call stopped or terminated it, for those who replace it later."""
        self.target_groups_of: Callable[[Host], tuple[str, ...]] = lambda _: ()
        """Names of the target groups that a host serves, or has left to be worked on. Set by `services/elbv2.py`."""
        self.image_content: Callable[[str, str, str], ImageContent | None] = lambda *_: None
        """What is on an image (account, region, id); None: by chance. Set by `services/ec2.py`."""
        self.pipeline_of: Callable[[str, str, str], str | None] = lambda *_: None
        """Which pipeline of Image Builder made an image (account, region, id). Set by `services/imagebuilder`."""
        self._first_faults: list[Fault] = []
        self._approvals = patching.Approvals()
        self._shift = self._release_shift()
        estate.reset(seed)
        if file:
            with _no_garbage_collection():
                self._populate(file)

    # --- what services ask ---

    @property
    def now(self) -> float:
        """The moment of the event that is happening, or of the last one before the request."""
        return self.agenda.now

    def hosts_in(self, account: str, region: str) -> list[Host]:
        """The hosts of a cell in the order of their making, terminated ones included."""
        return list(self.cells.get((account, region), {}).values())

    def host(self, account: str, region: str, identifier: str) -> Host | None:
        return self.cells.get((account, region), {}).get(identifier)

    def all_hosts(self) -> list[Host]:
        return [host for cell in self.cells.values() for host in cell.values()]

    def state(self, account: str, region: str, factory: Callable[[], State]) -> State:
        """One object a cell and factory, made on first use, gone with the world."""
        key = (account, region, factory)
        if key not in self._states:
            self._states[key] = factory()
        found: State = self._states[key]
        return found

    def at(self, moment: float, action: Callable[[float], None]) -> None:
        self.agenda.at(moment, action)

    def random(self, *purpose: object) -> Random:
        return Random(f"{self.seed}/" + "/".join(str(part) for part in purpose))

    def draw(self, host: Host, timing: str, *purpose: object) -> float:
        """Seconds that something takes on this host: drawn from its timing's distribution, by seed and purpose only."""
        spread: Spread = getattr(host.timings, timing)
        return spread.draw(self.random(host.name, timing, *purpose))

    def released(self, update: Update) -> float:
        """When the update appeared in the world's repositories."""
        appears = self.file.catalogue.appears.get(update.advisory) if self.file else None
        return self.clock.base + appears if appears is not None else update.released + self._shift

    def withdrawn(self, update: Update, host: Host) -> bool:
        """Whether the repositories of a host do not have the update any more."""
        return bool(self._withdrawn) and any(
            (update.advisory, account, region) in self._withdrawn
            for account in (None, host.account)
            for region in (None, host.region)
        )

    def available(self, update: Update, host: Host) -> bool:
        """Whether the repositories of a host have the update now: it has appeared and was not withdrawn."""
        return self.released(update) <= self.now and not self.withdrawn(update, host)

    def last_inventory(self, host: Host, now: float) -> float | None:
        """When the host's software inventory last reached Inspector by `now`; None if it never did.

        Every `inspector.inventory_every` seconds (or as its template says), at the host's own offset, while its agent is
        connected; a fault may make Inspector late.
        """
        now -= self.faults.delay(Kind.INSPECTOR_LATE, host)
        every = self._inventory_every(host)
        tick = now - (now - host.inventory_offset) % every
        for began, ended in reversed(_silences(host)):
            if began <= tick < ended:
                tick = began - ((began - host.inventory_offset) % every or every)
        return tick if host.registered is not None and tick >= host.registered else None

    def next_inventory(self, host: Host, after: float) -> float | None:
        """When the host's inventory reaches Inspector for the first time at or after a moment, as far as is known now."""
        if host.registered is None:
            return None
        start, every = max(after, host.registered), self._inventory_every(host)
        tick = start + (host.inventory_offset - start) % every
        for began, ended in _silences(host):
            if began <= tick < ended:
                tick = ended + (host.inventory_offset - ended) % every
        return tick if tick < float("inf") else None

    def _inventory_every(self, host: Host) -> float:
        if host.inventory_every is not None:
            return host.inventory_every
        return self.file.inspector.inventory_every if self.file else 1800.0

    def on_report(self, callback: Callable[[Host, PatchReport], None]) -> None:
        self._on_report.append(callback)

    def on_connected(self, callback: Callable[[Host], None]) -> None:
        """`callback(host)` when an agent answers again: after a boot, a start, or the end of a fault."""
        self._on_connected.append(callback)

    def on_boot(self, callback: Callable[[Host], None]) -> None:
        """`callback(host)` when a machine has booted, before its agent connects."""
        self._on_boot.append(callback)

    def on_down(self, callback: Callable[[Host, bool], None]) -> None:
        """`callback(host, asked_for)` when a machine goes down; `asked_for`: a command on the host asked for this reboot."""
        self._on_down.append(callback)

    def on_fault(self, callback: Callable[[Fault], None]) -> None:
        """`callback(fault)` for each fault that is put in force."""
        self._on_fault.append(callback)

    def on_event(self, kind: Kind, callback: Callable[[Fault], None]) -> None:
        """`callback(fault)` at the moment of a fault of an event kind, in place of what the world would do by itself."""
        self._on_event.setdefault(kind, []).append(callback)

    def on_status(self, callback: Callable[[Any], None]) -> None:
        """`callback(record)` when the status of a command or an invocation may have changed."""
        self._on_status.append(callback)

    def on_step(self, callback: Callable[[bool], None]) -> None:
        """`callback(asked)` after each event, and (`asked`) each request, from the first rule on that somebody put."""
        self._on_step.append(callback)

    def answered(self, service: str) -> None:
        """A request that may have changed something was answered."""
        if service == "events":
            self.agenda.after = self._stepped
        if self.agenda.after is not None:
            for callback in self._on_step:
                callback(True)

    def _stepped(self) -> None:
        for callback in self._on_step:
            callback(False)

    def status_changed(self, record: Any) -> None:
        for callback in self._on_status:
            callback(record)

    def request_id(self) -> str:
        self._requests += 1
        bits = self.random("request", self._requests).getrandbits(128)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-9{text[17:20]}-{text[20:]}"

    # --- time ---

    def catch_up(self) -> None:
        """Let everything happen that is due by now."""
        self.agenda.run_until(self.clock.now())

    # --- what happens to hosts ---

    def record(self, host: Host, event: Event, *, cause: Cause = NOBODY, operation: str | None = None, **details: Any) -> None:
        if event in (Event.IN_SERVICE, Event.OUT_OF_SERVICE, Event.REPLACED):
            details["image"] = host.image
            successor = self.host(host.account, host.region, details.get("replaced_by") or "")
            if successor is not None:
                details["replaced_by_image"] = successor.image
        self.journal.write(
            Line(
                at=self.now,
                real_at=self.clock.real_now(),
                host=host.id,
                account=host.account,
                region=host.region,
                tags=host.tags(),
                event=event,
                operation=operation,
                cause=cause,
                details=details,
                zone=host.zone,
                group=host.group,
                target_groups=self.target_groups_of(host),
            )
        )

    def record_managed(
        self,
        arn: str,
        event: Event,
        *,
        account: str,
        region: str,
        tags: dict[str, str],
        operation: str,
        cause: Cause = NOBODY,
        **details: Any,
    ) -> None:
        """What happens to something that AWS runs (a database, a function): its ARN stands where a host's id does."""
        self.journal.write(
            Line(
                at=self.now,
                real_at=self.clock.real_now(),
                host=arn,
                account=account,
                region=region,
                tags=tags,
                event=event,
                operation=operation,
                cause=cause,
                details=details,
            )
        )

    def report(self, host: Host, report: PatchReport) -> None:
        """Patch data of a host arrives; the newest five stay readable, for services that look back."""
        host.reports.append(report)
        del host.reports[:-5]
        for callback in self._on_report:
            callback(host, report)

    def reboot(self, host: Host, *, cause: Cause, own: bool = False) -> None:
        """The machine goes down now and comes back after its reboot time, unless a fault keeps it down.

        `own`: a command on the host asked for it, and its agent will take the command up again afterwards.
        """
        if host.state != "running" or host.rebooting:
            return
        for callback in self._on_down:
            callback(host, own)
        if not host.out:
            self.record(host, Event.OUT_OF_SERVICE, cause=cause)
        self.record(host, Event.REBOOT_BEGUN, cause=cause)
        self._power_off(host)
        if not host.bricked and self.faults.take_host(Kind.REBOOT_NEVER_RETURNS, host) is None:
            boots = len(host.boots)
            self.at(self.now + self.draw(host, "reboot", boots), lambda _: self._booted(host, boots, cause))

    def _power_off(self, host: Host) -> None:
        host.rebooting = True
        host.disconnected = self.now if host.disconnected is None else host.disconnected

    def _booted(self, host: Host, boots: int, cause: Cause) -> None:
        """The machine is up again; ignored when something else happened to it meanwhile."""
        if not host.rebooting or host.powerless or len(host.boots) != boots or host.state != "running":
            return
        host.rebooting = False
        self._new_boot(host)
        self.record(host, Event.REBOOT_ENDED, cause=cause)
        self._come_back(host, cause)

    def _new_boot(self, host: Host) -> None:
        host.boots.append(self.now)
        host.reboot_pending = self.faults.take_host(Kind.SECOND_REBOOT, host) is not None
        if not host.reboot_pending:
            host.unbooted.clear()
        host.patching = None
        for path in [path for path in host.files if path.startswith(("/run/", "/tmp/"))]:  # noqa: S108 - a simulated file system
            del host.files[path]
        for callback in self._on_boot:
            callback(host)

    def _come_back(self, host: Host, cause: Cause) -> None:
        boots = len(host.boots)
        host.healthy_from = self.now + self.draw(host, "status_check", boots)

        def in_service(_: float) -> None:
            if host.state == "running" and not host.rebooting and len(host.boots) == boots and not host.out:
                self.record(host, Event.IN_SERVICE, cause=cause)

        self.at(host.healthy_from, in_service)
        silent, host.hibernates = host.hibernates, 0.0
        if silent:
            self.agent_dies(host, lasts=silent)
        self.at(self.now + self.random(host.name, "agent", boots).uniform(3, 8), lambda _: self._agent_up(host, boots))

    def _agent_up(self, host: Host, boots: int) -> None:
        if host.connected and len(host.boots) == boots:
            self._connected(host)

    def _connected(self, host: Host) -> None:
        if host.disconnected is not None:
            host.silences.append((host.disconnected, self.now))
        host.disconnected = None
        for callback in self._on_connected:
            callback(host)

    def agent_dies(self, host: Host, *, lasts: float | None = None) -> None:
        if lasts is not None:
            self.at(self.now + lasts, lambda _: self.agent_returns(host))
        host.agent_dead = True
        host.disconnected = self.now if host.disconnected is None else host.disconnected

    def agent_returns(self, host: Host) -> None:
        host.agent_dead = False
        host.registered = self.now if host.registered is None else host.registered
        if host.connected:
            self._connected(host)

    def add_fault(self, fault: Fault) -> Fault:
        """Put a fault in force; an event happens at once, or at its moment, and is forgotten then."""
        if fault.kind not in EVENT_KINDS:
            kept = self.faults.add(fault)
            for callback in self._on_fault:
                callback(kept)
            return kept
        if not fault.after:
            self._happen(fault)
            return fault
        kept = self.faults.add(fault)
        number = kept.id or 0

        def happen(_: float) -> None:
            if self.faults.remove(number):
                self._happen(kept)

        self.at(self.now + fault.after, happen)
        return kept

    def _happen(self, fault: Fault) -> None:
        for callback in self._on_fault:
            callback(fault)
        subscribed = self._on_event.get(fault.kind)
        if subscribed:
            for callback in subscribed:
                callback(fault)
        elif fault.kind is Kind.UPDATE_WITHDRAWN and fault.advisory:
            gone = (fault.advisory, fault.account, fault.region)
            self._withdrawn.add(gone)
            if fault.lasts is not None:
                self.at(self.now + fault.lasts, call(self._withdrawn.discard, gone))
        elif fault.kind is Kind.ALARM_FIRES:
            for account, region in self._cells_of(fault):
                estate.set_alarm(account, region, fault.alarm or "", "ALARM")
        elif fault.group is not None:
            for account, region in self._cells_of(fault):
                estate.change_group(account, region, fault.group, _CHANGE[fault.kind] * fault.number, fault.number)
                self.sync(account, region)
        else:
            for host in self.faults.among(fault, self.all_hosts()):
                self._befall(fault, host)

    def _cells_of(self, fault: Fault) -> list[Cell]:
        return [
            (account, region)
            for account, region in self.cells
            if fault.account in (None, account) and fault.region in (None, region)
        ]

    def _befall(self, fault: Fault, host: Host) -> None:
        """An event happens to one host."""
        if fault.kind is Kind.AGENT_ONLINE:
            self.agent_returns(host)
        elif fault.kind is Kind.AGENT_DEAD:
            self.agent_dies(host, lasts=fault.lasts)
        elif fault.kind is Kind.REBOOT_STORM:
            host.hibernates = 1800.0 if fault.seconds is None else fault.seconds
            self.reboot(host, cause=NOBODY)
        elif fault.kind is Kind.ZONE_LOST:
            self._lose_power(host, fault.lasts)

    def _lose_power(self, host: Host, lasts: float | None) -> None:
        """EC2 goes on calling the machine running; it answers nobody until the zone is back, if ever."""
        if host.state != "running":
            return
        for callback in self._on_down:
            callback(host, False)
        if not host.rebooting and not host.out:
            self.record(host, Event.OUT_OF_SERVICE, reason="zone_lost")
        self._power_off(host)
        host.powerless = True
        if lasts is not None:
            self.at(self.now + lasts, lambda _: self._powered_on(host))

    def _powered_on(self, host: Host) -> None:
        if host.powerless and host.state == "running" and not host.bricked:
            host.rebooting = host.powerless = False
            self._new_boot(host)
            self._come_back(host, NOBODY)

    def arrived(self, account: str, region: str, identifier: str, *, cause: Cause = NOBODY) -> Host:
        """An instance that a service of AWS launched by itself is a host from now on."""
        known = self.host(account, region, identifier)
        if known is not None:
            return known
        machine = estate.machine(account, region, identifier)
        if machine is None:
            raise LookupError(f"awsim: there is no instance {identifier} in {account} {region}")
        return self._found(account, region, machine, cause)

    def retired(self, host: Host, *, cause: Cause, replaced_by: str | None = None) -> None:
        """An instance that a service of AWS terminated by itself, or found terminated, is gone."""
        if host.state != "terminated":
            self._stopped(host, "terminated", cause)
        if replaced_by is not None:
            self.record(host, Event.REPLACED, cause=cause, replaced_by=replaced_by)

    def sync(self, account: str, region: str, cause: Cause = NOBODY) -> None:
        """Notice what a call did to instances: stopped, started, terminated, launched, attached, detached, replaced."""
        cell = self.cells.setdefault((account, region), {})
        present: dict[str, estate.Machine] = {machine.id: machine for machine in estate.machines(account, region)}
        member_of = estate.members(account, region)
        gone: dict[str, list[Host]] = {}
        for host in list(cell.values()):
            machine = present.get(host.id)
            state = machine.state if machine else "terminated"
            if host.state != "terminated" and state in ("terminated", "shutting-down"):
                self._stopped(host, "terminated", cause)
                if host.group is not None and host.id not in member_of:
                    gone.setdefault(host.group, []).append(host)
            elif host.state == "running" and state in ("stopped", "stopping"):
                self._stopped(host, "stopped", cause)
            elif host.state == "stopped" and state in ("running", "pending"):
                self._started(host, cause)
            if host.state != "terminated" and member_of.get(host.id) != host.group:
                if host.group is not None:
                    gone.setdefault(host.group, []).append(host)
                self._moved(host, member_of.get(host.id), cause)
        for machine in present.values():
            if machine.id in cell or machine.state == "terminated":
                continue
            successor = self._found(account, region, machine, cause)
            if gone.get(successor.group or ""):
                self.record(gone[successor.group or ""].pop(0), Event.REPLACED, cause=cause, replaced_by=successor.id)

    def _moved(self, host: Host, group: str | None, cause: Cause) -> None:
        """A host was detached from its group, or attached to another one: it serves as a member only."""
        up = host.state == "running" and not host.rebooting
        if group is None and up and not host.out:
            self.record(host, Event.OUT_OF_SERVICE, cause=cause, reason="detached")
        was_out, host.out, host.group = host.out, group is None, group
        if group is not None and was_out and up:
            self.record(host, Event.IN_SERVICE, cause=cause, reason="attached")

    def _stopped(self, host: Host, state: str, cause: Cause = NOBODY) -> None:
        was_up = host.state == "running" and not host.rebooting
        for callback in self._on_down:
            callback(host, False)
        host.state = state
        host.terminated = self.now if state == "terminated" else None
        host.rebooting = False
        host.disconnected = self.now if host.disconnected is None else host.disconnected
        self.causes[host.id] = cause
        if was_up and not host.out:
            self.record(host, Event.OUT_OF_SERVICE, cause=cause, reason=state)

    def _started(self, host: Host, cause: Cause = NOBODY) -> None:
        host.state, host.powerless = "running", False
        if host.stillborn:
            self._never_up(host)
            return
        if host.bricked:
            host.rebooting = True
            return
        self._new_boot(host)
        self._come_back(host, cause)

    def _found(self, account: str, region: str, machine: estate.Machine, cause: Cause = NOBODY) -> Host:
        """A machine that somebody launched: a managed node after a while, if it has an instance profile."""
        network = self.networks.get((account, region))
        key = next((key for key, image in network.images.items() if image == machine.image), None) if network else None
        content = self.image_content(account, region, machine.image)
        template = content.template if content else Template(os=key or "amazon-linux-2023")
        host = self._host(machine.id, machine.id, account, region, template, Unlike(host=1), self.timings, launched=self.now)
        if content is not None:
            host.levels = dict(content.levels)
        host.group, host.image = estate.group_of(account, region, machine.id), machine.image
        host.address, host.zone = machine.address, machine.zone
        host.disconnected = self.now
        if machine.state in ("stopped", "stopping"):
            host.state = "stopped"
        self.cells[account, region][host.id] = host
        host.healthy_from = self.now + self.draw(host, "status_check", "launch")
        pipeline = self.pipeline_of(account, region, machine.image)
        if self.faults.take_image(Kind.IMAGE_UNHEALTHY, pipeline, account, region, image=machine.image, group=host.group):
            self._never_up(host)
            return host
        if machine.profile or groups.templated_profile(account, region, machine.id):
            host.registered = self.now + self.draw(host, "registration")
            self.at(host.registered, lambda _: self._connected(host) if host.connected else None)

        def in_service(_: float) -> None:
            if host.state == "running" and not host.rebooting and not host.out:
                self.record(host, Event.IN_SERVICE, cause=cause)

        self.at(host.healthy_from, in_service)
        return host

    def _never_up(self, host: Host) -> None:
        """EC2 calls the machine running, and nobody ever hears of it."""
        host.stillborn = True
        for callback in self._on_down:
            callback(host, False)
        self._power_off(host)
        host.powerless = True

    def disk(self, name: str, account: str, region: str, content: ImageContent) -> Host:
        """A machine with this content that is in no cell and never runs: to ask what an image has and lacks."""
        host = self._host(name, name, account, region, content.template, Unlike(host=1), self.timings, launched=self.now)
        host.levels = dict(content.levels)
        return host

    # --- the beginning ---

    def _release_shift(self) -> float:
        age = self.file.catalogue.newest_release_age if self.file else None
        if age is None:
            return 0.0
        appears = self.file.catalogue.appears if self.file else {}
        newest = max(
            update.released
            for platform in self.catalogue.platforms.values()
            for package in platform.packages.values()
            for update in package.updates
            if update.advisory not in appears
        )
        return self.clock.base - age * DAY - newest

    def _populate(self, file: WorldFile) -> None:
        images = {key: platform.image for key, platform in self.catalogue.platforms.items()}
        made_at = moment(self.clock.base - IMAGES_AGE)
        for account in file.accounts:
            for region in file.regions:
                self.cells[account.id, region] = {}
                place = (account.id, region)
                machines = sum(fleet.count for fleet in file.fleets if (fleet.account, fleet.region) == place)
                self.networks[place] = estate.build_network(*place, images, images_made_at=made_at, machines=machines)
                for baseline in file.baselines:
                    baselines.create(account.id, region, baseline)
        for fleet in file.fleets:
            with estate.building(fleet.account, fleet.region):
                self._launch(fleet, file)
        for cell in self.cells:
            for alarm in file.alarms:
                groups.make_alarm(*cell, name=alarm, description="its state changes when a fault says so")
        for bucket in file.buckets:
            estate.create_bucket(file.accounts[0].id, bucket)
        for throttle in file.throttles:
            self.throttles.add(throttle)
        for advisory, seconds in file.catalogue.withdrawn.items():
            self.add_fault(Fault(kind=Kind.UPDATE_WITHDRAWN, advisory=advisory, after=seconds))
        self._first_faults = [fault for fault in file.faults if fault.kind in EVENT_KINDS and not fault.after]
        for fault in file.faults:
            if fault not in self._first_faults:
                self.add_fault(fault)

    def begin(self) -> None:
        """What the world file says of the very first moment happens; called when everybody who listens is there."""
        for fault in self._first_faults:
            self.add_fault(fault)
        self._first_faults = []

    def _launch(self, fleet: Fleet, file: WorldFile) -> None:
        cell, network = self.cells[fleet.account, fleet.region], self.networks[fleet.account, fleet.region]
        unlike = {exception.host: exception for exception in fleet.exceptions}
        made: list[Host] = []
        for number, template_name in enumerate(templates_of(fleet), start=1):
            template, exception = file.templates[template_name], unlike.get(number, Unlike(host=number))
            name = f"{fleet.name}/{number}"
            launched = self.clock.base - self.random(name, "launched").uniform(20, 60) * DAY
            tags = {"Name": f"{fleet.name}-{number:02d}", **fleet.tags, **exception.tags}
            identifier = estate.launch(
                fleet.account,
                fleet.region,
                network,
                subnets=network.subnets_for(len(cell)),
                platform=template.os,
                instance_type=template.instance_type,
                tags=tags,
                number=number,
                zones=fleet.zones,
                launched=launched,
            )
            host = self._host(
                identifier,
                name,
                fleet.account,
                fleet.region,
                template,
                exception,
                exception.timings or file.timings,
                launched=launched,
            )
            host.group = fleet.auto_scaling_group.name if fleet.auto_scaling_group else None
            host.image = network.images[template.os]
            cell[identifier] = host
            made.append(host)
        estate.attach_profile(fleet.account, fleet.region, network, [host.id for host in made])
        if fleet.auto_scaling_group:
            group, first = fleet.auto_scaling_group, file.templates[templates_of(fleet)[0]]
            estate.group_up(
                fleet.account,
                fleet.region,
                network,
                name=group.name,
                least=group.min,
                most=group.max,
                health_check=group.health_check,
                image=network.images[first.os],
                instance_type=first.instance_type,
                ids=[host.id for host in made],
                tags={"Name": fleet.name, **fleet.tags},
            )
        if fleet.target_group:
            service = fleet.target_group
            arn = groups.make_target_group(
                fleet.account,
                fleet.region,
                name=service.name,
                vpc=network.vpc,
                subnets=network.subnets,
                port=service.port,
                delay=service.deregistration_delay,
            )
            if fleet.auto_scaling_group:
                groups.attach_target_group(fleet.account, fleet.region, fleet.auto_scaling_group.name, arn)
            for host in made:
                groups.register_target(fleet.account, fleet.region, arn, host.id)
        machines = {machine.id: machine for machine in estate.machines(fleet.account, fleet.region)}
        for number, host in enumerate(made, start=1):
            host.address, host.zone = machines[host.id].address, machines[host.id].zone
            self._settle_in(host, unlike.get(number, Unlike(host=number)), scanned=fleet.scanned)

    def _settle_in(self, host: Host, exception: Unlike, *, scanned: bool) -> None:
        """The past of a host of the world file: registered long ago, an old scan, perhaps stopped or silent for days."""
        base = self.clock.base
        host.registered = None if exception.agent is Agent.NOT_REGISTERED else host.launched + 120
        host.healthy_from = host.launched + 120
        if exception.agent is Agent.CONNECTION_LOST:
            host.agent_dead, host.disconnected = True, base - 3 * DAY
        if exception.state is InstanceState.STOPPED:
            estate.stop(host.account, host.region, host.id)
            host.state, host.disconnected = "stopped", base - 2 * DAY
        if exception.install_fails:
            fault = Fault(kind=Kind.INSTALL_FAILS, host=host.id, **exception.install_fails.model_dump())
            self.faults.add(fault)
        if scanned and host.registered is not None:
            at = base - self.random(host.name, "old scan").uniform(4, 20) * 3600
            patching.old_scan(self, host, at, self._approvals)

    def _host(
        self,
        identifier: str,
        name: str,
        account: str,
        region: str,
        template: Template,
        exception: Unlike,
        timings: Timings,
        *,
        launched: float,
    ) -> Host:
        platform = self.catalogue.platforms[template.os]
        chance = self.random(name, "made of")
        return Host(
            id=identifier,
            name=name,
            account=account,
            region=region,
            platform=platform,
            agent_version=template.agent_version,
            launched=launched,
            timings=timings,
            seed=str(self.seed),
            boots=[launched],
            levels=self._levels(platform, template, exception, chance),
            not_patchable=tuple(self.catalogue.not_patchable[key] for key in template.not_patchable if not exception.compliant),
            coverage=exception.inspector,
            files={platform.lock_file: template.locked_to} if platform.lock_file and template.locked_to else {},
            ping_offset=chance.uniform(0, 300),
            inventory_offset=chance.uniform(0, 86_400),
            inventory_every=template.inventory_every,
        )

    def newest_levels(self, platform: Platform, moment: float) -> dict[str, int]:
        """All packages of a platform with every update that was out at a moment."""
        packages = platform.packages.items()
        return {name: sum(self.released(update) <= moment for update in package.updates) for name, package in packages}

    def image_levels(self, platform: Platform, template: Template, image: str) -> dict[str, int]:
        """What an image of a template lacks: the same on each of its instances."""
        return self._levels(platform, template, Unlike(host=1), self.random("image", image))

    def _levels(self, platform: Platform, template: Template, exception: Unlike, chance: Random) -> dict[str, int]:
        """All packages up to date but for the chosen ones, which miss one or more updates."""
        base = self.clock.base
        levels = {
            name: sum(self.released(update) <= base for update in package.updates) for name, package in platform.packages.items()
        }
        if exception.compliant:
            return levels
        wanted = template.missing
        candidates = sorted(
            name for name, level in levels.items() if level and name not in wanted.always and name not in wanted.never
        )
        number = max(0, chance.randint(*wanted.count) - len(wanted.always))
        chosen = [*wanted.always, *chance.sample(candidates, min(number, len(candidates)))]
        for name in chosen:
            levels[name] = chance.randrange(levels[name]) if levels[name] else 0
        return levels


_CHANGE = {Kind.GROUP_SCALES_OUT: 1, Kind.GROUP_SCALES_IN: -1, Kind.GROUP_REPLACES: 0}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing that a fleet is made of is garbage; the collector would go through all of it again and again (half of the time)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _silences(host: Host) -> list[tuple[float, float]]:
    """When the agent was silent, oldest first; one that lasts ends at infinity."""
    return host.silences if host.disconnected is None else [*host.silences, (host.disconnected, float("inf"))]


def templates_of(fleet: Fleet) -> list[str]:
    """The template of each host of a fleet: counts first, then shares, spread evenly over the numbers."""
    if fleet.template:
        return [fleet.template] * fleet.count
    rest = fleet.count - sum(part.count or 0 for part in fleet.mix)
    wanted = {part.template: part.count if part.count else round(rest * (part.share or 0)) for part in fleet.mix}
    first = fleet.mix[0].template
    wanted[first] += fleet.count - sum(wanted.values())
    given = dict.fromkeys(wanted, 0)
    order = []
    for number in range(1, fleet.count + 1):
        name = max(wanted, key=lambda template: wanted[template] * number / fleet.count - given[template])
        given[name] += 1
        order.append(name)
    return order
