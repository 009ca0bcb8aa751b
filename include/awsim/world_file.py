"""What is written in a world file, and is it right?

`load(path)` reads the YAML into `WorldFile`; whatever is wrong is said with file, line, field and what is allowed
(`WorldFileError`). `world.py` makes the running world of it. All timings are seconds, as a range [least, most] or another
distribution (`Spread`) from which each host draws by the seed.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from math import log
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from awsim import engines, runtimes
from awsim.catalogue import Catalogue, locked_until
from awsim.faults import Fault, Throttle


class WorldFileError(ValueError):
    """The world file cannot be used; the message names file, field and what is allowed."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Agent(StrEnum):
    ONLINE = "online"
    CONNECTION_LOST = "connection_lost"
    NOT_REGISTERED = "not_registered"


class InstanceState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"


Seconds = Annotated[float, Field(ge=0, le=86_400 * 7)]
AccountId = Annotated[str, Field(pattern=r"^\d{12}$")]


class Lognormal(_Part):
    """Most hosts near the median, a few take many times as long: how installs are."""

    median: Annotated[float, Field(gt=0)]
    sigma: Annotated[float, Field(gt=0, le=3)] = Field(0.5, description="0.5: one host in forty takes more than 2.7 medians")


class Normal(_Part):
    mean: Annotated[float, Field(gt=0)]
    deviation: Annotated[float, Field(ge=0)]


class Exponential(_Part):
    mean: Annotated[float, Field(gt=0)]


class Part(_Part):
    """So large a share of the hosts draws from this range."""

    share: Annotated[float, Field(gt=0, le=1)]
    range: tuple[Seconds, Seconds]


class Spread(_Part):
    """How a duration is distributed over the hosts: one of the five. `[60, 180]` and `90` are short for a range."""

    range: tuple[Seconds, Seconds] | None = None
    lognormal: Lognormal | None = None
    normal: Normal | None = None
    exponential: Exponential | None = None
    parts: list[Part] | None = Field(None, description="e.g. 95 in a hundred quick, the others slow")
    least: Seconds = 0
    most: Seconds = 86_400 * 7

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        if isinstance(data, (list, tuple)):
            return {"range": data}
        return {"range": (data, data)} if isinstance(data, (int, float)) and not isinstance(data, bool) else data

    @model_validator(mode="after")
    def _one_and_in_order(self) -> "Spread":
        forms = ("range", "lognormal", "normal", "exponential", "parts")
        if sum(getattr(self, form) is not None for form in forms) != 1:
            raise ValueError(f"give exactly one of {', '.join(forms)}, or [least, most]")
        for least, most in [
            *([self.range] if self.range else []),
            *(part.range for part in self.parts or []),
            (self.least, self.most),
        ]:
            if least > most:
                raise ValueError(f"[{least}, {most}] is not a range; write [least, most] in seconds")
        if self.parts is not None and abs(sum(part.share for part in self.parts) - 1) > 0.001:
            raise ValueError(f"parts: the shares add up to {sum(part.share for part in self.parts):g}, not to 1")
        return self

    def draw(self, chance: Random) -> float:
        """Seconds, from `least` to `most`."""
        if self.range is not None:
            drawn = chance.uniform(*self.range)
        elif self.lognormal is not None:
            drawn = chance.lognormvariate(log(self.lognormal.median), self.lognormal.sigma)
        elif self.normal is not None:
            drawn = chance.gauss(self.normal.mean, self.normal.deviation)
        elif self.exponential is not None:
            drawn = chance.expovariate(1 / self.exponential.mean)
        else:
            parts = self.parts or []
            (part,) = chance.choices(parts, weights=[part.share for part in parts])
            drawn = chance.uniform(*part.range)
        return min(max(drawn, self.least), self.most)


def _between(least: float, most: float) -> Spread:
    return Spread(range=(least, most))


class Timings(_Part):
    """How long things take on a host, in seconds."""

    delivery: Spread = _between(1, 3)
    scan: Spread = _between(15, 60)
    install: Spread = _between(120, 420)
    reboot: Spread = _between(60, 180)
    status_check: Spread = _between(20, 60)
    """After a reboot, until EC2's status checks say ok and the host is in service again."""
    registration: Spread = _between(60, 180)
    """After the launch of an instance, until its agent is a managed node."""


class Missing(_Part):
    """Which updates of the catalogue a host lacks: all of `always`, and more by chance up to a number within `count`."""

    count: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (5, 12)
    always: list[str] = Field(default_factory=list, description="package names, e.g. kernel")
    never: list[str] = Field(default_factory=list, description="package names")

    @model_validator(mode="after")
    def _count_is_a_range(self) -> "Missing":
        if self.count[0] > self.count[1]:
            raise ValueError(f"count: {list(self.count)} is not a range; write [least, most]")
        return self


class Template(_Part):
    """What the hosts of a fleet are made of."""

    os: str = Field(description="a platform of the catalogue, e.g. amazon-linux-2023")
    instance_type: str = "t3.medium"
    missing: Missing = Missing()
    not_patchable: list[str] = Field(
        default_factory=list, description="ids of the catalogue's findings that an OS patch cannot fix"
    )
    agent_version: str = "3.3.3050.0"
    inventory_every: Annotated[float, Field(ge=60)] | None = Field(
        None, description="seconds; None means inspector.inventory_every"
    )
    locked_to: str | None = Field(
        None,
        description="the release (Amazon Linux 2023: `2023.6.20241010`) or snapshot (Ubuntu: `20241015T000000Z`) of the"
        " repositories that the hosts see; AWS's own images are locked so until somebody changes it; None means the newest",
    )

    @field_validator("locked_to")
    @classmethod
    def _has_a_day(cls, text: str | None) -> str | None:
        if text is not None and locked_until(text) is None:
            raise ValueError(
                f"{text!r} has no day; write a release such as 2023.6.20241010 or a snapshot such as 20241015T000000Z"
            )
        return text


class Share(_Part):
    """A part of a fleet: so many hosts of a template, or that share of the rest."""

    template: str
    count: Annotated[int, Field(ge=1)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "Share":
        if (self.count is None) == (self.share is None):
            raise ValueError("give either count (hosts) or share (0 to 1), not both")
        return self


class Coverage(_Part):
    """Whether Inspector scans the host, and the reason that its coverage gives."""

    covered: bool = True
    reason: str = Field(
        "SUCCESSFUL", description="Inspector's scan status reason, e.g. EXCLUDED_BY_TAG, NO_INVENTORY, UNSUPPORTED_OS"
    )


class InstallFault(_Part):
    exit_code: Annotated[int, Field(ge=1, le=255)] = 1
    times: Annotated[int, Field(ge=1)] | None = Field(None, description="only the first attempts fail; None means always")


class Unlike(_Part):
    """One host of a fleet that is not like the others; `host` is its number in the fleet, counted from 1."""

    host: Annotated[int, Field(ge=1)]
    state: InstanceState = InstanceState.RUNNING
    agent: Agent = Agent.ONLINE
    compliant: bool = Field(False, description="nothing is missing")
    install_fails: InstallFault | None = None
    inspector: Coverage = Coverage()
    tags: dict[str, str] = Field(default_factory=dict)
    timings: Timings | None = None


class AutoScalingGroup(_Part):
    name: Annotated[str, Field(min_length=1, max_length=255)]
    min: Annotated[int, Field(ge=0)]
    desired: Annotated[int, Field(ge=0)] | None = Field(None, description="None means the fleet's count")
    max: Annotated[int, Field(ge=0)]
    health_check: Annotated[str, Field(pattern="^(EC2|ELB)$")] = "EC2"


class TargetGroup(_Part):
    """The fleet's hosts are targets behind a load balancer of the same name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$", max_length=32)]
    port: Annotated[int, Field(ge=1, le=65_535)] = 80
    deregistration_delay: Annotated[int, Field(ge=0, le=3600)] = Field(300, description="seconds that a target drains")


class Fleet(_Part):
    """So many hosts of one or several templates in one account and region."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    account: AccountId
    region: str
    count: Annotated[int, Field(ge=1, le=200_000)]
    template: str | None = None
    mix: list[Share] = Field(default_factory=list)
    tags: dict[str, str] = Field(default_factory=dict)
    auto_scaling_group: AutoScalingGroup | None = None
    target_group: TargetGroup | None = None
    zones: Annotated[int, Field(ge=1, le=6)] = 3
    scanned: bool = Field(True, description="an earlier Scan has reported; false: no patch state until somebody scans")
    exceptions: list[Unlike] = Field(default_factory=list)

    @model_validator(mode="after")
    def _adds_up(self) -> "Fleet":
        if (self.template is None) == (not self.mix):
            raise ValueError("give either template or mix, not both and not neither")
        counted = sum(part.count or 0 for part in self.mix)
        if counted > self.count:
            raise ValueError(f"mix: the counts add up to {counted}, more than the fleet's {self.count} hosts")
        shares = sum(part.share or 0 for part in self.mix)
        if self.mix and (shares > 1.0001 or (shares == 0 and counted != self.count)):
            raise ValueError(
                f"mix: shares add up to {shares:g} and counts to {counted}; shares are at most 1, counts alone {self.count}"
            )
        for exception in self.exceptions:
            if exception.host > self.count:
                raise ValueError(f"exceptions: host {exception.host} does not exist, the fleet has {self.count}")
        group = self.auto_scaling_group
        if group is not None and not group.min <= self.count <= group.max:
            raise ValueError(f"auto_scaling_group: {self.count} hosts are outside min {group.min} .. max {group.max}")
        return self


class Rule(_Part):
    """An approval rule of a patch baseline: filter keys as SSM spells them."""

    filters: dict[str, list[str]]
    approve_after_days: Annotated[int, Field(ge=0, le=360)] = 0
    compliance_level: Annotated[str, Field(pattern="^(CRITICAL|HIGH|MEDIUM|LOW|INFORMATIONAL|UNSPECIFIED)$")] = "UNSPECIFIED"
    enable_non_security: bool = False


class Baseline(_Part):
    """A patch baseline that exists in every account and region of the world, registered for the patch groups."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_\-.]{3,128}$")]
    operating_system: str = Field(description="e.g. AMAZON_LINUX_2023, UBUNTU")
    patch_groups: list[str] = Field(default_factory=list)
    rules: list[Rule]
    rejected: list[str] = Field(default_factory=list)
    description: str = ""


class Inspector(_Part):
    """Times of Inspector, in seconds."""

    inventory_every: Annotated[float, Field(ge=60)] = 1800
    """Each host has its own offset in this rhythm, drawn by the seed."""
    enabled: bool = True


class Config(_Part):
    """Times of AWS Config, in seconds after the patch state was uploaded."""

    recorded_after: Seconds = 60
    evaluated_after: Seconds = 120
    evaluation_takes: Seconds = 20


class ConfigRule(_Part):
    """A managed rule of AWS Config that exists since long before the start."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    source_identifier: Annotated[str, Field(pattern=r"^[A-Z0-9_]+$")] = "EC2_MANAGEDINSTANCE_PATCH_COMPLIANCE_STATUS_CHECK"
    accounts: list[AccountId] = Field(default_factory=list, description="none means all")
    regions: list[str] = Field(default_factory=list, description="none means all")


class ImageTimings(_Part):
    """How long the states of an image build take."""

    pending: Spread = _between(30, 30)
    creating: Spread = _between(30, 30)
    building: Spread = _between(900, 900)
    testing: Spread = _between(300, 300)
    distributing: Spread = _between(120, 120)
    integrating: Spread = _between(30, 30)
    scan: Spread = Field(_between(300, 300), description="added to testing, where the pipeline has the image scanned")


class ImagePipeline(_Part):
    """A pipeline of Image Builder that is there from the beginning, with recipe and configurations of its name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,126}[a-z0-9]$")]
    account: AccountId
    region: str
    os: str = Field(description="the parent image: the world's own of that platform, e.g. amazon-linux-2023")
    updates: bool = Field(True, description="a component installs what is released; else the parent's packages stay")
    regions: list[str] = Field(default_factory=list, description="where the AMI goes; none means the pipeline's own region")
    accounts: list[AccountId] = Field(default_factory=list, description="accounts that get a copy besides the pipeline's")
    scanning: bool = Field(True, description="Inspector looks at each image")


class CatalogueUse(_Part):
    newest_release_age: Annotated[float, Field(ge=0)] | None = Field(
        8.0, description="days; all release dates are moved so that the newest update is so old at the start; None leaves them"
    )
    appears: dict[str, float] = Field(
        default_factory=dict,
        description="advisory id -> seconds after the start at which the update appears in the repositories; negative: before",
    )
    withdrawn: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="advisory id -> seconds after the start at which the update is withdrawn"
    )


class Account(_Part):
    """The first one is the management account of the world's organization, and the one that unknown credentials mean."""

    id: AccountId
    name: str = ""
    roles: list[str] = Field(
        default=["PatchwaveRole", "OrganizationAccountAccessRole", "AWS-SystemsManager-AutomationExecutionRole"],
        description="names of roles that can be assumed; those that callers create come on top",
    )


class PendingMaintenance(_Part):
    """Something that AWS wants to do to a database; the dates are seconds after the start."""

    action: Literal["system-update", "os-upgrade", "db-upgrade", "hardware-maintenance", "ca-certificate-rotation"] = (
        "system-update"
    )
    description: str = "New Operating System update is available"
    appears: Annotated[float, Field(ge=0)] = 0.0
    auto_applied_after: Annotated[float, Field(ge=0)] | None = Field(
        None, description="AWS does it by itself in the first maintenance window after that; None: only when it is asked to"
    )
    forced: Annotated[float, Field(ge=0)] | None = Field(None, description="AWS does it then, window or not")
    version: str | None = Field(None, description="of db-upgrade: the engine version that it leads to")

    @model_validator(mode="after")
    def _version_belongs_to_an_upgrade(self) -> "PendingMaintenance":
        if (self.version is not None) != (self.action == "db-upgrade"):
            raise ValueError("version belongs to db-upgrade, and db-upgrade needs one")
        return self


class Database(_Part):
    """A database instance of RDS; several of the same kind with `count` (`name-01`, `name-02`, ...)."""

    name: Annotated[str, Field(pattern=r"^[a-z](-?[a-z0-9])*$", max_length=60)]
    account: AccountId
    region: str
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    engine: str = Field(description="e.g. postgres, mysql, mariadb; of clusters aurora-postgresql, aurora-mysql")
    version: str = Field(description="e.g. 16.3")
    instance_class: str = "db.r6g.large"
    multi_az: bool = False
    auto_minor_upgrade: bool = True
    maintenance_window: Annotated[
        str, Field(pattern=r"^(mon|tue|wed|thu|fri|sat|sun):\d\d:\d\d-(mon|tue|wed|thu|fri|sat|sun):\d\d:\d\d$")
    ] = Field("sun:03:00-sun:03:30", description="UTC")
    tags: dict[str, str] = Field(default_factory=dict)
    pending: list[PendingMaintenance] = Field(default_factory=list)

    def identifiers(self) -> list[str]:
        return [self.name] if self.count == 1 else [f"{self.name}-{number:02d}" for number in range(1, self.count + 1)]

    @model_validator(mode="after")
    def _version_is_known(self) -> "Database":
        _in(self.engine, engines.shipped(), "engine")
        _in(self.version, [one.version for one in engines.shipped()[self.engine]], "version")
        for number, pending in enumerate(self.pending):
            if pending.version is not None:
                wanted = [one.version for one in engines.targets(self.engine, self.version)]
                _in(pending.version, wanted or ["(there is no newer one)"], f"pending.{number}.version")
        return self


class DatabaseCluster(Database):
    """A cluster of Aurora with so many instances, the first of which writes."""

    instances: Annotated[int, Field(ge=1, le=15)] = 2


class Rds(_Part):
    """How long things take to databases, in seconds."""

    begins: Spread = _between(5, 25)
    """After the answer to a call that applies something immediately, until the status leaves `available`."""
    upgrade: Spread = _between(480, 1200)
    maintenance: Spread = _between(300, 900)
    snapshot: Spread = _between(120, 420)
    auto_minor_after: Annotated[float, Field(ge=0)] = 14 * 86_400
    """After the start, until AWS upgrades by itself in a maintenance window, where automatic minor upgrades are on."""


class CodeWeakness(_Part):
    """What Inspector's code scan finds in the code that somebody wrote."""

    cwe: Annotated[str, Field(pattern=r"^CWE-\d+$")]
    title: str
    score: Annotated[float, Field(gt=0, le=10)] = 7.5
    file: str = "app.py"
    line: Annotated[int, Field(ge=1)] = 1


class Function(_Part):
    """A Lambda function; several of the same kind with `count` (`name-01`, `name-02`, ...)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=60)]
    account: AccountId
    region: str
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    runtime: str = "python3.12"
    mode: Literal["Auto", "FunctionUpdate", "Manual"] = Field(
        "Auto", description="how its runtime version is managed; Manual pins the one that it has at the start"
    )
    behind: Annotated[int, Field(ge=0)] = Field(0, description="how many runtime versions it is behind the newest at the start")
    owner: str | None = Field(None, description="its tag Owner")
    tags: dict[str, str] = Field(default_factory=dict)
    code: list[str] = Field(
        default_factory=list, description="ids of the catalogue's findings that an OS patch cannot fix, for packages in its code"
    )
    weaknesses: list[CodeWeakness] = Field(default_factory=list)

    def names(self) -> list[str]:
        return [self.name] if self.count == 1 else [f"{self.name}-{number:02d}" for number in range(1, self.count + 1)]

    @field_validator("runtime")
    @classmethod
    def _runtime_is_known(cls, runtime: str) -> str:
        if runtime not in runtimes.shipped():
            raise ValueError(f"{runtime!r} is not one of {', '.join(sorted(runtimes.shipped()))}")
        return runtime


class RuntimeRelease(_Part):
    """A version of a runtime appears, with the updates of the day before."""

    runtime: str
    after: Annotated[float, Field(ge=0)] = Field(description="seconds after the start")

    @field_validator("runtime")
    @classmethod
    def _runtime_is_known(cls, runtime: str) -> str:
        return Function._runtime_is_known(runtime)


class Lambda(_Part):
    """How long things take to functions, in seconds."""

    update: Spread = _between(5, 20)
    """After a call that changes a function, while its last update is in progress."""
    auto_update: Spread = _between(3 * 86_400, 6 * 86_400)
    """After a runtime version appeared, until AWS has come to a function in the mode Auto."""


class WorldFile(_Part):
    """A whole world."""

    name: str
    description: str = ""
    accounts: Annotated[list[Account], Field(min_length=1)]
    regions: Annotated[list[str], Field(min_length=1)]
    catalogue: CatalogueUse = CatalogueUse()
    timings: Timings = Timings()
    inspector: Inspector = Inspector()
    config: Config = Config()
    config_rules: list[ConfigRule] = Field(default_factory=list)
    baselines: list[Baseline] = Field(default_factory=list)
    templates: dict[str, Template]
    fleets: list[Fleet]
    databases: list[Database] = Field(default_factory=list)
    clusters: list[DatabaseCluster] = Field(default_factory=list)
    rds: Rds = Rds()
    functions: list[Function] = Field(default_factory=list)
    functions_timings: Lambda = Lambda()
    runtime_releases: list[RuntimeRelease] = Field(
        default_factory=list, description="further versions of Lambda's runtimes, that appear while the world runs"
    )
    alarms: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default_factory=list, description="CloudWatch alarms of every cell; the fault alarm_fires moves them"
    )
    buckets: list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]] = Field(
        default_factory=lambda: ["patch-lists"],
        description="S3 buckets of the first account, where hosts read lists of patches (InstallOverrideList)",
    )
    faults: list[Fault] = Field(default_factory=list)
    throttles: list[Throttle] = Field(default_factory=list)
    image_timings: ImageTimings = ImageTimings()
    image_pipelines: list[ImagePipeline] = Field(default_factory=list)

    @field_validator("regions")
    @classmethod
    def _regions_look_like_regions(cls, regions: list[str]) -> list[str]:
        for region in regions:
            if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
                raise ValueError(f"{region!r} is no region name such as eu-central-1")
        return regions

    @model_validator(mode="after")
    def _names_meet(self) -> "WorldFile":
        accounts = {account.id for account in self.accounts}
        for number, rule in enumerate(self.config_rules):
            for account in rule.accounts:
                _in(account, accounts, f"config_rules.{number}.accounts")
            for region in rule.regions:
                _in(region, self.regions, f"config_rules.{number}.regions")
        seen: set[str] = set()
        for number, fleet in enumerate(self.fleets):
            where = f"fleets.{number} ({fleet.name})"
            if fleet.name in seen:
                raise ValueError(f"{where}: another fleet has this name already")
            seen.add(fleet.name)
            _in(fleet.account, accounts, f"{where}.account")
            _in(fleet.region, self.regions, f"{where}.region")
            for name in [fleet.template] if fleet.template else [part.template for part in fleet.mix]:
                _in(name, self.templates, f"{where}.template")
        managed: dict[str, Sequence[Database | Function]] = {
            "databases": self.databases,
            "clusters": self.clusters,
            "functions": self.functions,
        }
        for field, made in managed.items():
            for number, one in enumerate(made):
                where = f"{field}.{number} ({one.name})"
                _in(one.account, accounts, f"{where}.account")
                _in(one.region, self.regions, f"{where}.region")
        for number, pipeline in enumerate(self.image_pipelines):
            where = f"image_pipelines.{number} ({pipeline.name})"
            for account in [pipeline.account, *pipeline.accounts]:
                _in(account, accounts, f"{where}.account")
            for region in [pipeline.region, *pipeline.regions]:
                _in(region, self.regions, f"{where}.region")
        self._faults_meet()
        return self

    def _faults_meet(self) -> None:
        sizes = {fleet.name: fleet.count for fleet in self.fleets}
        groups = {fleet.auto_scaling_group.name for fleet in self.fleets if fleet.auto_scaling_group}
        for index, fault in enumerate(self.faults):
            where = f"faults.{index}"
            for name in fault.hosts():
                fleet, _, number = name.partition("/")
                if not name.startswith(("i-", "mi-")) and not (number.isdigit() and 1 <= int(number) <= sizes.get(fleet, 0)):
                    raise ValueError(
                        f"{where}.host: {name!r} is no host of the world; write fleet/number, e.g. {next(iter(sizes), 'web')}/1"
                    )
            if fault.group is not None:
                _in(fault.group, groups or {"(there is no Auto Scaling group)"}, f"{where}.group")
            if fault.alarm is not None:
                _in(fault.alarm, self.alarms or {"(there is no alarm)"}, f"{where}.alarm")
            if fault.account is not None:
                _in(fault.account, {account.id for account in self.accounts}, f"{where}.account")
            if fault.region is not None:
                _in(fault.region, self.regions, f"{where}.region")


def _in(value: str, allowed: Any, where: str) -> None:
    if value not in allowed:
        raise ValueError(f"{where}: {value!r} is not one of {', '.join(sorted(allowed))}")


def load(path: Path, catalogue: Catalogue) -> WorldFile:
    """Read and check a world file.

    Raises:
        WorldFileError: one line per mistake, each with the file, the line and the field.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Loader=_LOADER)  # noqa: S506 - one of the two safe loaders
    except OSError as missing:
        raise WorldFileError(f"{path}: cannot be read: {missing.strerror}") from missing
    except UnicodeDecodeError as foreign:
        raise WorldFileError(f"{path}: is not UTF-8: {foreign.reason} at byte {foreign.start}") from foreign
    except yaml.YAMLError as broken:
        mark = getattr(broken, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise WorldFileError(f"{path}{line}: is not YAML: {str(broken).replace(chr(10), ' ')}") from broken
    if not isinstance(data, dict):
        raise WorldFileError(f"{path}: must be a mapping with name, accounts, regions, templates and fleets")
    try:
        world = WorldFile.model_validate(data)
    except ValidationError as wrong:
        raise WorldFileError("\n".join(_told(path, text, error) for error in wrong.errors())) from wrong
    _check_catalogue(path, text, world, catalogue)
    return world


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _told(path: Path, text: str, error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    given = "" if error["type"] in ("missing", "value_error") else f" (given: {error['input']!r})"
    within = message.partition(":")[0].partition(" (")[0] if error["type"] == "value_error" else ""
    line = line_of(text, ".".join(part for part in (field, within) if part and " " not in part))
    return f"{path}:{line}: {field or '(file)'}: {message}{given}"


def line_of(text: str, field: str) -> int:
    """The line of a field such as `fleets.0.count`, or of what encloses it when it is not there."""
    node, line = yaml.compose(text, Loader=_LOADER), 1
    rest = field
    while rest and node is not None:
        if isinstance(node, yaml.SequenceNode):
            head, _, rest = rest.partition(".")
            if not head.isdigit() or int(head) >= len(node.value):
                break
            node = node.value[int(head)]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if f"{rest}.".startswith(f"{key.value}.")), None)
            if found is None:
                break
            key, node = found
            rest = rest[len(str(key.value)) + 1 :]
            line = key.start_mark.line + 1
        else:
            break
    return line


def _check_catalogue(path: Path, text: str, world: WorldFile, catalogue: Catalogue) -> None:
    wrong: list[str] = []
    for name, template in world.templates.items():
        if template.os not in catalogue.platforms:
            wrong.append(f"templates.{name}.os: {template.os!r} is not one of {', '.join(sorted(catalogue.platforms))}")
            continue
        platform = catalogue.platforms[template.os]
        for field, packages in (("always", template.missing.always), ("never", template.missing.never)):
            wrong.extend(
                f"templates.{name}.missing.{field}: the catalogue of {template.os} has no update of package {package!r}"
                for package in packages
                if package not in platform.packages
            )
        wrong.extend(
            f"templates.{name}.not_patchable: {identifier!r} is not one of {', '.join(sorted(catalogue.not_patchable))}"
            for identifier in template.not_patchable
            if identifier not in catalogue.not_patchable
        )
        if template.locked_to is not None and platform.lock_file is None:
            wrong.append(f"templates.{name}.locked_to: {template.os} has no releases or snapshots that a host can be locked to")
    for number, function in enumerate(world.functions):
        wrong.extend(
            f"functions.{number}.code: {identifier!r} is not one of {', '.join(sorted(catalogue.not_patchable))}"
            for identifier in function.code
            if identifier not in catalogue.not_patchable
        )
    wrong.extend(
        f"image_pipelines.{number}.os: {pipeline.os!r} is not one of {', '.join(sorted(catalogue.platforms))}"
        for number, pipeline in enumerate(world.image_pipelines)
        if pipeline.os not in catalogue.platforms
    )
    advisories = catalogue.advisories()
    named = [(f"catalogue.{field}", key) for field in ("appears", "withdrawn") for key in getattr(world.catalogue, field)]
    named += [(f"faults.{number}.advisory", fault.advisory) for number, fault in enumerate(world.faults) if fault.advisory]
    wrong.extend(f"{field}: the catalogue has no advisory {key!r}" for field, key in named if key not in advisories)
    if wrong:
        raise WorldFileError("\n".join(f"{path}:{line_of(text, sentence.partition(':')[0])}: {sentence}" for sentence in wrong))
