"""What is the state of one host, now and at any earlier moment?

A record with questions, no behaviour: `world.py` moves it (reboots, agents, stops), `patching.py` installs into it. Past states
stay answerable (`levels_at`, `running_kernel_at`, `reports`), because Inspector and Config look at a host as it was a while ago.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from awsim import estate
from awsim.catalogue import NotPatchable, Platform, Update, locked_until
from awsim.world_file import Coverage, Timings


class PatchState(StrEnum):
    """As they are spelled on the wire (the model's enum says INSTALLED and so on; AWS does not)."""

    INSTALLED = "Installed"
    INSTALLED_OTHER = "InstalledOther"
    PENDING_REBOOT = "InstalledPendingReboot"
    REJECTED = "InstalledRejected"
    MISSING = "Missing"
    FAILED = "Failed"
    NOT_APPLICABLE = "NotApplicable"


_FAILING = frozenset({PatchState.MISSING, PatchState.FAILED, PatchState.REJECTED, PatchState.PENDING_REBOOT})


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A package went from one level to another."""

    at: float
    package: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchRow:
    """One package in a patch report. `update` None: a package outside every rule (InstalledOther)."""

    kb_id: str
    state: PatchState
    installed_at: float
    update: Update | None = None
    cves: tuple[str, ...] = ()
    level: str = "UNSPECIFIED"
    """Compliance level from the rule that approved it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchReport:
    """What a Scan or Install uploaded; the newest one is what DescribeInstancePatchStates answers."""

    operation: str
    started: float
    ended: float
    uploaded: float
    baseline_id: str
    patch_group: str
    snapshot_id: str
    reboot_option: str
    install_override_list: str
    last_no_reboot_install: float | None
    command_id: str | None
    execution_id: str
    rows: tuple[PatchRow, ...]
    _counted: dict[PatchState, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Filled when first asked for: fleets are listed much more often than reports arrive."""

    def count(self, state: PatchState) -> int:
        if not self._counted:
            self._counted.update(dict.fromkeys(PatchState, 0))
            for row in self.rows:
                self._counted[row.state] += 1
        return self._counted[state]

    def failing(self) -> list[PatchRow]:
        """Rows that make the node NON_COMPLIANT."""
        if not any(self.count(state) for state in _FAILING):
            return []
        return [row for row in self.rows if row.state in _FAILING]

    @property
    def compliant(self) -> bool:
        return not self.failing()


@dataclass(kw_only=True, slots=True, eq=False)
class Host:
    id: str
    name: str
    """`fleet/number` of the world file, or the instance id for machines that callers launched."""
    account: str
    region: str
    platform: Platform
    agent_version: str
    launched: float
    timings: Timings
    seed: str
    levels: dict[str, int]
    """Package -> level now (see `catalogue.Update.level`); a package that is not a key is not on the host."""
    not_patchable: tuple[NotPatchable, ...] = ()
    coverage: Coverage = field(default_factory=Coverage)
    group: str | None = None
    image: str = ""
    """The AMI that its root volume was made of."""
    state: str = "running"
    registered: float | None = None
    """Since when SSM knows the agent; None: never."""
    agent_dead: bool = False
    disconnected: float | None = None
    """Since when the agent is silent; None while it is connected."""
    silences: list[tuple[float, float]] = field(default_factory=list)
    """From when to when the agent was silent before, oldest first."""
    terminated: float | None = None
    """When EC2 said that the instance is gone."""
    rebooting: bool = False
    out: bool = False
    """Taken out of service on purpose (standby, on its way out of its group): the journal has said so already."""
    healthy_from: float = 0.0
    """EC2's status checks say ok from this moment on (if the host runs)."""
    boots: list[float] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    reports: list[PatchReport] = field(default_factory=list)
    unbooted: dict[str, float] = field(default_factory=dict)
    """Package -> when it was installed with NoReboot since the last boot."""
    last_no_reboot_install: float | None = None
    patching: str | None = None
    """Which invocation holds the package manager and the patch download folder."""
    files: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    address: str = ""
    zone: str = ""
    hibernates: float = 0.0
    """How many seconds longer than usual the agent stays silent after the next boot."""
    powerless: bool = False
    """Its Availability Zone is lost."""
    stillborn: bool = False
    """Its image makes no machine that ever comes up."""
    bricked: bool = False
    """What was installed does not boot: it never comes back until its root volume is replaced."""
    reboot_pending: bool = False
    """The last boot was not enough: something still waits for another one."""
    ping_offset: float = 0.0
    inventory_offset: float = 0.0
    inventory_every: float | None = None
    """None: as often as those of the world."""

    def sees_until(self) -> float:
        """Updates that the distribution published from this moment on are not in the release or snapshot of this host."""
        path = self.platform.lock_file
        text = self.files.get(path) if path is not None else None
        found = locked_until(text) if text is not None else None
        return float("inf") if found is None else found

    def tags(self) -> dict[str, str]:
        """The instance's tags as they are at this moment in EC2."""
        return estate.tags_of(self.account, self.region, self.id)

    def patch_group(self) -> str:
        tags = self.tags()
        return tags.get("Patch Group", tags.get("PatchGroup", ""))

    @property
    def connected(self) -> bool:
        """Whether the agent answers at this moment."""
        return self.state == "running" and self.registered is not None and not self.agent_dead and not self.rebooting

    def acceptable(self, now: float) -> bool:
        """Whether SendCommand takes the id: registered, and neither terminated nor unknown. Stopped hosts are taken."""
        return self.state != "terminated" and self.registered is not None and self.registered <= now

    def last_ping(self, now: float) -> float:
        """The agent says hello every five minutes."""
        until = now if self.disconnected is None else self.disconnected
        ping = until - (until - self.ping_offset) % 300
        booted = self.boots[-1] if self.boots else ping
        return max(ping, booted, self.registered or 0) if self.disconnected is None else ping

    def ping_status(self, now: float) -> str:
        """Online for up to five minutes after the agent fell silent: SSM learns of it late."""
        return "Online" if self.disconnected is None or now - self.disconnected < 300 else "ConnectionLost"

    def status_check(self, now: float) -> str:
        """EC2's instance status: ok, initializing (booting) or impaired (down longer than a reboot should take)."""
        if self.rebooting:
            return "impaired"
        return "ok" if now >= self.healthy_from else "initializing"

    def boot_id(self) -> str:
        digest = _hex(f"{self.seed} boot {self.id} {len(self.boots)}")
        return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"

    def levels_at(self, moment: float) -> dict[str, int]:
        """Package levels as they were at a moment (on disk)."""
        levels = dict(self.levels)
        for change in reversed(self.changes):
            if change.at <= moment:
                break
            levels[change.package] = change.before
        return levels

    def running_kernel_at(self, moment: float) -> int:
        """Level of the kernel that was booted, not merely installed, at a moment."""
        booted = max((boot for boot in self.boots if boot <= moment), default=self.launched)
        return self.levels_at(booted).get(self.platform.kernel, 0)

    def installed_at(self, package: str) -> float:
        return next((change.at for change in reversed(self.changes) if change.package == package), self.launched)

    def report_at(self, moment: float) -> PatchReport | None:
        """The newest patch report that was uploaded by that moment."""
        return next((report for report in reversed(self.reports) if report.uploaded <= moment), None)

    @property
    def report(self) -> PatchReport | None:
        return self.reports[-1] if self.reports else None

    def as_json(self, now: float) -> dict[str, Any]:
        report = self.report
        return {
            "host": self.id,
            "name": self.name,
            "account": self.account,
            "region": self.region,
            "platform": self.platform.key,
            "tags": self.tags(),
            "auto_scaling_group": self.group,
            "state": self.state,
            "ping": self.ping_status(now) if self.registered is not None else None,
            "status_check": self.status_check(now),
            "rebooting": self.rebooting,
            "zone": self.zone,
            "boots": len(self.boots),
            "patching": self.patching is not None,
            "installed_by_commands": len(self.changes),
            "inspector": {"covered": self.coverage.covered, "reason": self.coverage.reason},
            "patch_report": None
            if report is None
            else {
                "operation": report.operation,
                "compliant": report.compliant,
                "missing": report.count(PatchState.MISSING),
                "failed": report.count(PatchState.FAILED),
                "pending_reboot": report.count(PatchState.PENDING_REBOOT),
            },
        }


def _hex(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()
