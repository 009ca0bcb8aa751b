"""Which updates exist in the world, and which findings can no update of the operating system fix?

One YAML file a platform beside this module (`amazon-linux-2023.yaml`, ...), and `not-patchable.yaml`. Each speaks its platform's
own vocabulary: classifications and severities as its baselines filter them, EVRs or KB numbers. Package names and CVE ids are
real; the head of each file says what else is. Times in the files are dates; the world may move all of them by the same amount
(`WorldFile.catalogue.newest_release_age`), so that a rehearsal never deals with advisories of years ago.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Cve:
    id: str
    score: float
    """CVSS base score, approximate."""
    exploited: bool = False
    """An exploit is known (CISA KEV or a public one)."""
    epss: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """A newer build of one package, as an advisory brings it."""

    package: str
    arch: str
    epoch: int
    version: str
    release: str
    advisory: str
    classification: str
    severity: str
    """The platform's own word: Amazon Linux Critical/Important/Medium/Low, Ubuntu a priority."""
    released: float
    """Epoch seconds, as the file says; `World.released(update)` is the moment in the world."""
    needs_reboot: bool
    cves: tuple[Cve, ...]
    level: int
    """1-based position among the updates of its package, oldest first; a host at level 0 has the build before all of them."""
    kb: str = ""
    """Windows: `KB5046616`."""
    name: str = ""
    """Windows: the update's title."""

    @property
    def evr(self) -> str:
        if self.kb:
            return self.version
        return f"{self.epoch}:{self.version}-{self.release}" if self.release else f"{self.epoch}:{self.version}"

    @property
    def kb_id(self) -> str:
        """How SSM names an update: `name.arch` on Linux, the KB on Windows."""
        return self.kb or f"{self.package}.{self.arch}"

    @property
    def title(self) -> str:
        """Of a Linux package with its version, in which apt writes no epoch of zero."""
        version = self.evr.removeprefix("0:") if self.arch in ("amd64", "all") else self.evr
        return self.name or f"{self.kb_id}:{version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A package of a platform and its updates, oldest first."""

    name: str
    arch: str
    before: str
    """EVR of the build before the first update."""
    updates: tuple[Update, ...]

    def evr(self, level: int) -> str:
        return self.updates[level - 1].evr if level else self.before


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    key: str
    name: str
    version: str
    operating_system: str
    """SSM's enum: AMAZON_LINUX_2023, UBUNTU."""
    product: str
    """SSM's PRODUCT filter value."""
    package_manager: str
    vulnerability_source: str
    """Inspector's `source` of the platform's vulnerabilities."""
    advisory_url: str
    image: str
    """Name of the AMI."""
    kernel: str
    other_packages: tuple[str, ...]
    """`name.arch` of installed packages that no rule approves: InstalledOther."""
    packages: dict[str, Package]
    type: str = "Linux"
    """SSM's PlatformType: Linux, Windows."""
    lock_file: str | None = None
    """Where a host says which release or snapshot of the repositories it sees; None: always the newest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotPatchable:
    """A finding that no OS patch removes."""

    id: str
    package: str
    version: str
    fixed_in: str | None
    """None: no fix is available."""
    manager: str
    """Inspector's packageManager: GOBINARY, PYTHONPKG, OS, ..."""
    path: str
    cve: Cve
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    platforms: dict[str, Platform]
    not_patchable: dict[str, NotPatchable]

    def advisories(self) -> frozenset[str]:
        return frozenset(u.advisory for p in self.platforms.values() for package in p.packages.values() for u in package.updates)

    def newest_release(self) -> float:
        return max(u.released for p in self.platforms.values() for package in p.packages.values() for u in package.updates)


@cache
def shipped() -> Catalogue:
    """The catalogue that comes with awsim."""
    platforms: dict[str, Platform] = {}
    outside: dict[str, NotPatchable] = {}
    for file in sorted(files(__name__).iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".yaml"):
            continue
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        if file.name == "not-patchable.yaml":
            outside = {item["id"]: _not_patchable(item) for item in data["findings"]}
        else:
            for platform in _platforms(data):
                platforms[platform.key] = platform
    return Catalogue(platforms=platforms, not_patchable=outside)


def _platforms(data: dict[str, Any]) -> list[Platform]:
    packages = {name: _package(name, entry) for name, entry in data["packages"].items()}
    return [
        Platform(
            key=variant["key"],
            name=data["name"],
            version=variant["version"],
            operating_system=data["operating_system"],
            product=variant["product"],
            package_manager=data["package_manager"],
            vulnerability_source=data["vulnerability_source"],
            advisory_url=data["advisory_url"],
            image=variant["image"],
            kernel=data["kernel"],
            type=data.get("type", "Linux"),
            lock_file=data.get("lock_file"),
            other_packages=tuple(data["other_packages"]),
            packages={
                name: package
                for name, package in packages.items()
                if variant["key"] in data["packages"][name].get("only", [variant["key"]])
            },
        )
        for variant in data["variants"]
    ]


def _package(name: str, entry: dict[str, Any]) -> Package:
    arch = entry.get("arch", "x86_64")
    updates = tuple(
        Update(
            package=name,
            arch=arch,
            epoch=item.get("epoch", 0),
            version=str(item["version"]),
            release=str(item.get("release", "")),
            advisory=item["advisory"],
            classification=item["classification"],
            severity=item["severity"],
            released=_epoch(item["released"]),
            needs_reboot=item.get("needs_reboot", False),
            cves=tuple(_cve(cve) for cve in item.get("cves", [])),
            level=level,
            kb=item.get("kb", ""),
            name=item.get("title", ""),
        )
        for level, item in enumerate(entry["updates"], start=1)
    )
    return Package(name=name, arch=arch, before=str(entry["before"]), updates=updates)


def _cve(item: dict[str, Any]) -> Cve:
    return Cve(id=item["id"], score=float(item["score"]), exploited=item.get("exploited", False), epss=item.get("epss"))


def _not_patchable(item: dict[str, Any]) -> NotPatchable:
    return NotPatchable(
        id=item["id"],
        package=item["package"],
        version=str(item["version"]),
        fixed_in=item.get("fixed_in"),
        manager=item["manager"],
        path=item.get("path", ""),
        cve=_cve(item["cve"]),
        reason=item["reason"],
    )


def locked_until(text: str) -> float | None:
    """Until which day (epoch) the repositories show updates, by what a lock file says; None: the newest ones, too.

    AL2023's release (`2023.6.20241010`, `latest`), or Ubuntu's snapshot (`APT::Snapshot "20241015T000000Z";`).
    """
    found = re.search(r"(?<!\d)(20\d{2})(\d{2})(\d{2})(?:T(\d{2})(\d{2})(\d{2})Z)?", text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    try:
        exact = datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return exact if found.group(4) else exact + 86_400  # a release has the updates of its own day


def _epoch(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
