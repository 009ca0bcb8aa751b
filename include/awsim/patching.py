"""What do Scan and Install of AWS-RunPatchBaseline find and change on a host?

`evaluate` compares the host with its baseline and makes the rows of a report; `install` changes package levels. Both act at one
moment; `runcommand.py` gives them their duration, the reboot and the exit code. Snapshots (`approved_at`) freeze what is
approved, so that every wave of a campaign sees the same set.
"""

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from awsim.baselines import Baseline, for_node
from awsim.catalogue import Update
from awsim.faults import Kind
from awsim.host import Change, Host, PatchReport, PatchRow, PatchState

if TYPE_CHECKING:
    from awsim.world import World

DAY = 86_400.0
SNAPSHOT_LIFE = 3 * DAY


@dataclass(slots=True)
class Snapshots:
    """Snapshot id and baseline -> when it was taken; a cell's state."""

    taken: dict[tuple[str, str], float] = field(default_factory=dict)

    def approved_at(self, snapshot_id: str, baseline_id: str, now: float) -> float:
        """The moment at which this snapshot froze the approved set; after three days the id means a new evaluation."""
        key = (snapshot_id, baseline_id)
        if key not in self.taken or now - self.taken[key] >= SNAPSHOT_LIFE:
            self.taken[key] = now
        return self.taken[key]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of the payload on one host."""

    operation: str
    baseline: Baseline
    patch_group: str
    snapshot_id: str
    approved_at: float
    reboot_option: str = "RebootIfNeeded"
    override_list: str = ""
    wanted: tuple[tuple[str, str | None], ...] | None = None
    """Of InstallOverrideList: (id pattern, title or None); None means what the baseline approves."""
    overridden: bool = False
    """BaselineOverride: the result goes to stdout only."""


def begin(
    world: "World", host: Host, *, operation: str, snapshot_id: str, reboot_option: str, baseline: Baseline | None = None
) -> Run:
    """What holds for a run that starts now: patch group and baseline are those of this moment."""
    group = host.patch_group()
    used = baseline or for_node(host.account, host.region, group, host.platform.operating_system)
    snapshot = snapshot_id or f"{world.random('snapshot', host.name, world.now).getrandbits(128):032x}"
    if not snapshot_id:
        snapshot = f"{snapshot[:8]}-{snapshot[8:12]}-4{snapshot[13:16]}-a{snapshot[17:20]}-{snapshot[20:]}"
    taken = world.state(host.account, host.region, Snapshots).approved_at(snapshot, used.id, world.now)
    return Run(
        operation=operation,
        baseline=used,
        patch_group=group,
        snapshot_id=snapshot,
        approved_at=taken,
        reboot_option=reboot_option,
        overridden=baseline is not None,
    )


def replace_wanted(run: Run, url: str, wanted: tuple[tuple[str, str | None], ...]) -> Run:
    """The same run, limited to what an InstallOverrideList names."""
    return replace(run, override_list=url, wanted=wanted)


def approved_level(world: "World", host: Host, package: str, run: Run) -> tuple[int, str]:
    """The newest approved level of a package (0: nothing is) and the compliance level of the rule.

    What the host's repositories do not show, because it is locked to a release or snapshot, is no update to it.
    """
    seen = host.sees_until()
    for update in reversed(host.platform.packages[package].updates):
        released = world.released(update)
        if released > run.approved_at or world.withdrawn(update, host) or update.released >= seen:
            continue
        level = run.baseline.approval(update, host.platform, released=released, at=run.approved_at)
        if level is not None:
            return update.level, level
    return 0, "UNSPECIFIED"


def missing(world: "World", host: Host, run: Run) -> list[Update]:
    """What an Install of this run would install, in the order of the package manager."""
    found = []
    for package, level in sorted(host.levels.items()):
        target = approved_level(world, host, package, run)[0] if run.wanted is None else _wanted_level(world, host, package, run)
        if target > level:
            found.append(host.platform.packages[package].updates[target - 1])
    return found


def _wanted_level(world: "World", host: Host, package: str, run: Run) -> int:
    """Of an InstallOverrideList: the newest update of the package that the list names (and, with a title, exactly that one).

    What the repositories do not have (any more) is no candidate: the run installs the rest, and calls itself a success.
    """
    for update in reversed(host.platform.packages[package].updates):
        if world.available(update, host) and update.released < host.sees_until() and _listed(update, run.wanted or ()):
            return update.level
    return 0


def _listed(update: Update, wanted: tuple[tuple[str, str | None], ...]) -> bool:
    """Whether an InstallOverrideList names the update. A title counts on Linux only, where it may leave the name away."""
    version = f"{update.version}-{update.release}" if update.release else update.version
    titles = (update.title, f"{update.kb_id}:{update.evr}", update.evr, version)
    return any(
        (fnmatchcase(update.kb_id, pattern) or fnmatchcase(update.package, pattern))
        and (title is None or bool(update.kb) or any(fnmatchcase(one, title) for one in titles))
        for pattern, title in wanted
    )


def install(world: "World", host: Host, updates: list[Update], *, no_reboot: bool) -> None:
    """The package manager's transaction: levels move now; a new kernel runs only after a boot."""
    for update in updates:
        host.changes.append(Change(at=world.now, package=update.package, before=host.levels[update.package], after=update.level))
        host.bricked = host.bricked or world.faults.take_host(Kind.INSTALL_BRICKS, host) is not None
        host.levels[update.package] = update.level
        if no_reboot:
            host.unbooted[update.package] = world.now
    if updates and no_reboot:
        host.last_no_reboot_install = world.now


def evaluate(
    world: "World", host: Host, run: Run, *, failed: frozenset[str] = frozenset(), known: dict[str, tuple[int, str]] | None = None
) -> tuple[PatchRow, ...]:
    """A row a package of the host, in the state that section "decision per package" of Patch Manager gives it.

    `known`: approved levels that are computed already.
    """
    rows = []
    for package, level in sorted(host.levels.items()):
        updates = host.platform.packages[package].updates
        approved, compliance = known[package] if known is not None else approved_level(world, host, package, run)
        if level and run.baseline.rejects(updates[level - 1]):
            rows.append(_row(host, updates[level - 1], PatchState.REJECTED, compliance))
        elif approved > level:
            state = PatchState.FAILED if package in failed else PatchState.MISSING
            cves = tuple(dict.fromkeys(cve.id for update in updates[level:approved] for cve in update.cves))
            rows.append(_row(host, updates[approved - 1], state, compliance, cves))
        elif package in host.unbooted:
            rows.append(_row(host, updates[level - 1], PatchState.PENDING_REBOOT, compliance))
        elif approved:
            rows.append(_row(host, updates[level - 1], PatchState.INSTALLED, compliance))
        elif level or host.platform.type != "Windows":  # a KB that was never installed is no row on Windows
            known_as = updates[level - 1].kb if level else ""
            kb_id = known_as or f"{package}.{host.platform.packages[package].arch}"
            rows.append(PatchRow(kb_id=kb_id, state=PatchState.INSTALLED_OTHER, installed_at=host.installed_at(package)))
    rows.extend(
        PatchRow(kb_id=name, state=PatchState.INSTALLED_OTHER, installed_at=host.launched)
        for name in host.platform.other_packages
    )
    return tuple(rows)


def _row(host: Host, update: Update, state: PatchState, level: str, cves: tuple[str, ...] = ()) -> PatchRow:
    absent = state in (PatchState.MISSING, PatchState.FAILED)
    installed = 0.0 if absent else host.installed_at(update.package)
    return PatchRow(kb_id=update.kb_id, state=state, installed_at=installed, update=update, cves=cves, level=level)


def upload(
    world: "World", host: Host, run: Run, rows: tuple[PatchRow, ...], *, started: float, command_id: str | None, execution_id: str
) -> PatchReport:
    """Patch data reaches SSM now and replaces what was there."""
    report = PatchReport(
        operation=run.operation,
        started=started,
        ended=world.now,
        uploaded=world.now,
        baseline_id=run.baseline.short_id,
        patch_group=run.patch_group,
        snapshot_id=run.snapshot_id,
        reboot_option=run.reboot_option,
        install_override_list=run.override_list,
        last_no_reboot_install=host.last_no_reboot_install,
        command_id=command_id,
        execution_id=execution_id,
        rows=rows,
    )
    world.report(host, report)
    return report


class Approvals:
    """What a baseline approved at a moment of the past; many hosts ask the same, so each answer is computed once.

    An approval changes only when an update reaches the age that a rule demands: between two such moments all are alike.
    """

    def __init__(self) -> None:
        self._turns: dict[tuple[str, str], list[float]] = {}
        self._levels: dict[tuple[str, str, int, float], dict[str, tuple[int, str]]] = {}

    def levels(self, world: "World", host: Host, run: Run) -> dict[str, tuple[int, str]]:
        place = (run.baseline.id, host.platform.key)
        if place not in self._turns:
            self._turns[place] = sorted(_turns(world, host, run))
        key = (*place, bisect_right(self._turns[place], run.approved_at), host.sees_until())
        if key not in self._levels:
            packages = host.platform.packages
            self._levels[key] = {package: approved_level(world, host, package, run) for package in packages}
        return self._levels[key]


def _turns(world: "World", host: Host, run: Run) -> set[float]:
    rules = (run.baseline.definition.get("ApprovalRules") or {}).get("PatchRules") or []
    ages = {0.0, *(float(rule.get("ApproveAfterDays") or 0) * DAY for rule in rules)}
    updates = [update for package in host.platform.packages.values() for update in package.updates]
    return {world.released(update) + age for update in updates for age in ages}


def old_scan(world: "World", host: Host, at: float, approvals: Approvals) -> None:
    """A scan of before the world began (the nightly one of some maintenance window)."""
    group = host.patch_group()
    baseline = for_node(host.account, host.region, group, host.platform.operating_system)
    snapshot = f"{world.random('old snapshot', host.account, host.region, host.platform.key).getrandbits(128):032x}"
    snapshot = f"{snapshot[:8]}-{snapshot[8:12]}-4{snapshot[13:16]}-a{snapshot[17:20]}-{snapshot[20:]}"
    run = Run(
        operation="Scan", baseline=baseline, patch_group=group, snapshot_id=snapshot, approved_at=at, reboot_option="NoReboot"
    )
    rows = evaluate(world, host, run, known=approvals.levels(world, host, run))
    host.reports.append(
        PatchReport(
            operation="Scan",
            started=at - 30,
            ended=at,
            uploaded=at,
            baseline_id=baseline.short_id,
            patch_group=group,
            snapshot_id=snapshot,
            reboot_option="NoReboot",
            install_override_list="",
            last_no_reboot_install=None,
            command_id=None,
            execution_id=snapshot,
            rows=rows,
        )
    )


def critical(report: PatchReport) -> int:
    """CriticalNonCompliantCount: by compliance level, not by the vendor's severity."""
    return sum(row.level == "CRITICAL" for row in report.failing())


def security(report: PatchReport) -> int:
    """SecurityNonCompliantCount: by classification; on Debian's kin, what a security notice brought."""
    return sum(_is_security(row) for row in report.failing())


def other(report: PatchReport) -> int:
    return sum(row.level != "CRITICAL" and not _is_security(row) for row in report.failing())


def _is_security(row: PatchRow) -> bool:
    return row.update is not None and (
        row.update.classification in ("Security", "SecurityUpdates") or row.update.advisory.startswith(("USN-", "DSA-"))
    )
