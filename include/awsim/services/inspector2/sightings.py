"""What did Inspector see on a host, and since when?

Findings are derived from the world, host by host: at each inventory before which something changed (a package, a boot, a new
advisory), what is vulnerable then is compared with what was. A finding closes at the first inventory after its package was
fixed, of a kernel after the boot into the new one. Between inventories nothing moves, whatever happens on the host. The tag
`InspectorEc2Exclusion` closes a host's findings; Inspector notices it when it is asked next.
"""

import hashlib
from dataclasses import dataclass, field

from awsim.catalogue import Cve, Update
from awsim.host import Host
from awsim.services.functions.functions import Function
from awsim.services.inspector2 import accounts
from awsim.world import World
from awsim.world_file import CodeWeakness

DAY = 86_400.0
KEPT_CLOSED = 30 * DAY
KEPT_OF_TERMINATED = 3 * DAY
CLOSED_AFTER_TERMINATION = 300.0
STALE_AFTER = 7 * DAY
EXCLUSION_TAG = "InspectorEc2Exclusion"
EC2 = "AWS_EC2_INSTANCE"
LAMBDA = "AWS_LAMBDA_FUNCTION"
PACKAGE = "PACKAGE_VULNERABILITY"
CODE = "CODE_VULNERABILITY"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vulnerable:
    """One package of a host that a vulnerability is in."""

    name: str
    arch: str
    evr: str
    manager: str
    fixed_in: str | None
    path: str = ""
    update: Update | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class Sighting:
    """One vulnerability on one host or in one function: what a finding is made of."""

    host: Host | Function
    cve: Cve
    arn: str
    first: float
    changed: float
    """When its state moved last."""
    last: float
    packages: tuple[Vulnerable, ...]
    state: str = "ACTIVE"
    suppressed: float | None = None
    """Since when a filter suppresses it."""
    weakness: CodeWeakness | None = None
    """Of code that somebody wrote, in place of packages."""

    @property
    def resource_type(self) -> str:
        return LAMBDA if isinstance(self.host, Function) else EC2

    @property
    def type(self) -> str:
        return PACKAGE if self.weakness is None else CODE

    @property
    def status(self) -> str:
        return "SUPPRESSED" if self.state == "ACTIVE" and self.suppressed is not None else self.state

    @property
    def updated(self) -> float:
        return max(self.changed, self.suppressed or 0.0)

    @property
    def severity(self) -> str:
        return severity_of(self.cve.score)

    @property
    def title(self) -> str:
        if self.weakness is not None:
            return f"{self.weakness.cwe} - {self.weakness.title}"
        names = ", ".join(package.name for package in self.packages[:3])
        more = f" and {len(self.packages) - 3} more" if len(self.packages) > 3 else ""
        return f"{self.cve.id} - {names}{more}"

    @property
    def fix(self) -> str:
        fixed = sum(package.fixed_in is not None for package in self.packages)
        return "NO" if not fixed else "YES" if fixed == len(self.packages) else "PARTIAL"

    @property
    def update(self) -> Update | None:
        return next((package.update for package in self.packages if package.update is not None), None)

    @property
    def source(self) -> str:
        return self.host.platform.vulnerability_source if any(package.manager == "OS" for package in self.packages) else "NVD"


@dataclass(kw_only=True, slots=True)
class Dossier:
    """What Inspector knows of a host, up to the inventory that was looked at last."""

    looked: float | None = None
    since: float | None = None
    """Scanning began (again) then; None: it always did."""
    excluded: float | None = None
    """Since when the exclusion tag is known."""
    sightings: dict[str, Sighting] = field(default_factory=dict)


@dataclass(slots=True)
class Dossiers:
    """Of a cell, by instance id."""

    of: dict[str, Dossier] = field(default_factory=dict)


def severity_of(score: float) -> str:
    """Inspector's bands of the CVSS score."""
    for least, name in ((9.0, "CRITICAL"), (7.0, "HIGH"), (4.0, "MEDIUM"), (0.1, "LOW")):
        if score >= least:
            return name
    return "INFORMATIONAL"


# --- what is vulnerable, and since when ---


def vulnerable_at(world: World, host: Host, at: float) -> dict[str, tuple[Cve, tuple[Vulnerable, ...]]]:
    """By CVE: the packages that have it, as an inventory at that moment shows them; of the kernel the running one counts."""
    levels = host.levels_at(at)
    kernel = host.platform.kernel
    if kernel in levels:
        levels[kernel] = min(levels[kernel], host.running_kernel_at(at))
    found: dict[str, tuple[Cve, dict[str, Vulnerable]]] = {}
    for name, level in sorted(levels.items()):
        package = host.platform.packages[name]
        for update in package.updates[level:]:
            if world.released(update) > at:
                break
            for cve in update.cves:
                row = Vulnerable(
                    name=name, arch=package.arch, evr=package.evr(level), manager="OS", fixed_in=update.evr, update=update
                )
                found.setdefault(cve.id, (cve, {}))[1][name] = row
    for outside in host.not_patchable:
        row = Vulnerable(
            name=outside.package,
            arch="",
            evr=outside.version,
            manager=outside.manager,
            fixed_in=outside.fixed_in,
            path=outside.path,
        )
        found.setdefault(outside.cve.id, (outside.cve, {}))[1][f"{outside.manager} {outside.package}"] = row
    return {name: (cve, tuple(rows.values())) for name, (cve, rows) in found.items()}


def excluded_from_birth(world: World, host: Host) -> bool:
    """Whether the fleet of the world file bears the exclusion tag."""
    fleet = host.name.rpartition("/")[0]
    return world.file is not None and any(row.name == fleet and EXCLUSION_TAG in row.tags for row in world.file.fleets)


def dossier(world: World, host: Host) -> Dossier:
    """The host's findings as of its last inventory. None are left when Inspector is off; an exclusion tag closes them."""
    kept = world.state(host.account, host.region, Dossiers).of.setdefault(host.id, Dossier())
    on = accounts.scanning_since(world, host.account, host.region)
    if on is None:
        kept.sightings.clear()
        kept.looked, kept.since, kept.excluded = None, None, None
        return kept
    tagged = EXCLUSION_TAG in host.tags()
    if not host.coverage.covered or (tagged and excluded_from_birth(world, host)):
        return kept
    if not tagged and kept.excluded is not None:
        kept.excluded, kept.since, kept.looked = None, world.now, None
    elif on > world.clock.base and (kept.since is None or kept.since < on):
        kept.since = on
    if kept.excluded is None:
        _catch_up(world, host, kept)
    if tagged and kept.excluded is None:
        kept.excluded = world.now
        for sighting in kept.sightings.values():
            if sighting.state == "ACTIVE":
                sighting.state, sighting.changed = "CLOSED", world.now
    _bury(host, kept, world.now)
    return kept


def _catch_up(world: World, host: Host, kept: Dossier) -> None:
    last = world.last_inventory(host, world.now)
    if last is None:
        return
    for tick in _inventories(world, host, kept.looked, last, kept.since):
        _look(world, host, kept, tick)
    if kept.looked is not None and kept.looked < last:
        kept.looked = last


def _inventories(world: World, host: Host, looked: float | None, last: float, begun: float | None) -> list[float]:
    """The inventories up to `last` that can differ from the ones before them."""
    ticks: set[float] = set()
    since = looked
    if since is None:
        base = world.clock.base
        first = world.last_inventory(host, base) if host.launched < base else None
        since = first if first is not None else world.next_inventory(host, host.registered or host.launched)
        if begun is not None:
            since = world.next_inventory(host, max(begun, host.registered or host.launched))
        if since is None or since > last:
            return []
        ticks.add(since)
    points = [change.at for change in host.changes] + host.boots + _later_releases(world)
    for point in points:
        if since < point <= last:
            tick = world.next_inventory(host, point)
            if tick is not None and tick <= last:
                ticks.add(tick)
    return sorted(ticks)


def _later_releases(world: World) -> list[float]:
    return [world.clock.base + after for after in world.file.catalogue.appears.values()] if world.file else []


def _look(world: World, host: Host, kept: Dossier, tick: float) -> None:
    first_look = kept.looked is None
    before = kept.looked if kept.looked is not None else tick
    previous = world.last_inventory(host, tick - 1)
    seen = vulnerable_at(world, host, tick)
    for name, (cve, packages) in seen.items():
        known = kept.sightings.get(name)
        if known is None:
            first = _first_seen(world, host, cve, packages, tick) if first_look and kept.since is None else tick
            kept.sightings[name] = Sighting(
                host=host, cve=cve, arn=arn_of(world, host, cve), first=first, changed=first, last=tick, packages=packages
            )
        elif known.packages != packages or known.state != "ACTIVE":
            known.packages, known.state, known.changed = packages, "ACTIVE", tick
    for name, sighting in kept.sightings.items():
        if name not in seen and sighting.state == "ACTIVE":
            sighting.state, sighting.changed, sighting.last = "CLOSED", tick, max(before, previous or before)
    kept.looked = tick


def _bury(host: Host, kept: Dossier, now: float) -> None:
    """A terminated instance's findings close soon after it; closed ones are deleted in the end."""
    closing = host.terminated + CLOSED_AFTER_TERMINATION if host.terminated is not None else None
    for name, sighting in list(kept.sightings.items()):
        if sighting.state == "ACTIVE":
            sighting.last = kept.looked if kept.looked is not None else sighting.last
            if closing is not None and closing <= now:
                sighting.state, sighting.changed = "CLOSED", closing
        life = KEPT_CLOSED if closing is None else KEPT_OF_TERMINATED
        if sighting.state == "CLOSED" and now >= sighting.changed + life:
            del kept.sightings[name]


def _first_seen(world: World, host: Host, cve: Cve, packages: tuple[Vulnerable, ...], tick: float) -> float:
    """Before the world began: some days back, but neither before the advisory nor before the host."""
    chance = world.random(host.name, cve.id, "first observed")
    released = min((world.released(package.update) for package in packages if package.update), default=0.0)
    earliest = max(host.launched + 600, released + chance.uniform(600, DAY / 2))
    return min(tick, max(earliest, world.clock.base - chance.uniform(1, 14) * DAY))


def arn_of(world: World, host: Host | Function, cve: Cve) -> str:
    digest = hashlib.sha256(f"{world.seed} finding {host.id} {cve.id}".encode()).hexdigest()[:32]
    return f"arn:aws:inspector2:{host.region}:{host.account}:finding/{digest}"
