"""What is going on with a database instance or cluster, and what is AWS going to do to it, when?

`Databases` keeps, beside moto's models, what is pending and what is being changed. A change begins while the status is
`available`, moves it to `upgrading` or `maintenance`, and ends it on the virtual clock, unless a fault keeps it in `modifying`.
Automatic minor upgrades and dated maintenance happen by themselves in the maintenance window. In an AWS without a world,
databases are moto's alone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from awsim import engines, estate_rds
from awsim.clock import iso, moment
from awsim.faults import Kind
from awsim.journal import Cause, Event
from awsim.registry import on_world
from awsim.services import events
from awsim.world import NOBODY, World
from awsim.world_file import Database, DatabaseCluster, Rds, Spread

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(\w{3}):(\d\d):(\d\d)-\w{3}:\d\d:\d\d")
UPGRADE = "db-upgrade"


@dataclass(kw_only=True, slots=True, eq=False)
class Action:
    """A pending maintenance action; the moments are epoch seconds."""

    name: str
    description: str
    version: str | None = None
    """What an upgrade leads to."""
    automatic: bool = False
    """There because automatic minor upgrades are on."""
    auto_applied_after: float | None = None
    forced: float | None = None
    opt_in: str | None = None
    opted: float = 0.0


@dataclass(kw_only=True, slots=True, eq=False)
class Resource:
    """An instance or cluster; faults and the journal see it as they see a host."""

    account: str
    region: str
    made: Any
    """moto's model of it."""
    actions: dict[str, Action] = field(default_factory=dict)
    changing: str | None = None
    """What is being done to it: the name of a maintenance action, or `modify`."""
    wanted: str | None = None
    """The engine version that a modification asked for and that has not begun."""
    automatic_from: float = 0.0
    """When AWS begins to apply an automatic minor upgrade, in the next window."""

    @property
    def arn(self) -> str:
        return str(self.made.arn)

    @property
    def id(self) -> str:
        return str(self.made.resource_id)

    @property
    def name(self) -> str:
        return self.id

    @property
    def zone(self) -> str:
        return str(getattr(self.made, "availability_zone", ""))

    @property
    def is_cluster(self) -> bool:
        return ":cluster:" in self.arn

    @property
    def status(self) -> str:
        return str(self.made.status)

    def tags(self) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.made.get_tags()}

    def window(self, after: float) -> float:
        """When its next maintenance window begins."""
        return next_window(str(self.made.preferred_maintenance_window), after)


class Databases:
    """What awsim knows of the databases of a cell beyond moto, by ARN."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.changes = 0
        """Numbers the draws of durations."""


def next_window(text: str, after: float) -> float:
    """The next beginning, at or after a moment, of a weekly window such as `sun:03:00-sun:03:30` (UTC)."""
    found = _WINDOW.fullmatch(text.lower())
    if found is None:
        return after
    day, hour, minute = _DAYS.index(found[1]), int(found[2]), int(found[3])
    now = moment(after)
    begins = now.replace(hour=hour, minute=minute, second=0, microsecond=0) + timedelta(days=(day - now.weekday()) % 7)
    if begins < now:
        begins += timedelta(days=7)
    return begins.timestamp()


# --- the beginning ---


@on_world
def attach(world: World) -> None:
    """The databases of a world file, made long before the start."""
    if world.file is None:
        return
    for told in world.file.clusters:
        for identifier in told.identifiers():
            _make_cluster(world, told, identifier)
    for single in world.file.databases:
        for identifier in single.identifiers():
            _settle_in(
                world, single, estate_rds.make_instance(single.account, single.region, **_facts(world, single, identifier))
            )


def _facts(world: World, told: Database, identifier: str) -> dict[str, Any]:
    age = world.random("database", identifier).uniform(60, 400) * 86_400
    return {
        "db_instance_identifier": identifier,
        "db_instance_class": told.instance_class,
        "engine": told.engine,
        "engine_version": told.version,
        "multi_az": told.multi_az,
        "auto_minor_version_upgrade": told.auto_minor_upgrade,
        "preferred_maintenance_window": told.maintenance_window,
        "preferred_backup_window": "00:10-00:40",
        "allocated_storage": 100,
        "storage_type": "gp3",
        "master_username": "admin",
        "master_user_password": "not-a-secret",
        "tags": [{"Key": key, "Value": value} for key, value in told.tags.items()],
        "at": world.clock.base - age,
    }


def _make_cluster(world: World, told: DatabaseCluster, identifier: str) -> None:
    facts = _facts(world, told, identifier)
    shared = ("engine", "engine_version", "auto_minor_version_upgrade", "preferred_maintenance_window", "preferred_backup_window",
              "master_username", "master_user_password", "tags", "at")  # fmt: skip
    made = estate_rds.make_cluster(
        told.account, told.region, db_cluster_identifier=identifier, **{key: facts[key] for key in shared}
    )
    for number in range(1, told.instances + 1):
        estate_rds.make_instance(
            told.account,
            told.region,
            db_instance_identifier=f"{identifier}-instance-{number}",
            db_cluster_identifier=identifier,
            **{key: facts[key] for key in ("db_instance_class", "engine", "auto_minor_version_upgrade", "tags", "at")},
        )
    _settle_in(world, told, made)


def _settle_in(world: World, told: Database, made: Any) -> None:
    resource = known(world, told.account, told.region, made)
    base = world.clock.base
    for pending in told.pending:
        action = Action(
            name=pending.action,
            description=pending.description,
            version=pending.version,
            auto_applied_after=base + pending.auto_applied_after if pending.auto_applied_after is not None else None,
            forced=base + pending.forced if pending.forced is not None else None,
        )
        world.at(base + pending.appears, _appearing(world, resource, action))
    refresh(world, resource)


def _appearing(world: World, resource: Resource, action: Action) -> Callable[[float], None]:
    def appear(_: float) -> None:
        if exists(resource):
            resource.actions.setdefault(action.name, action)
            plan(world, resource)

    return appear


# --- what is known ---


def find(world: World, account: str, region: str, arn: str) -> Resource | None:
    made = estate_rds.by_arn(account, region, arn)
    return known(world, account, region, made) if made is not None else None


def known(world: World, account: str, region: str, made: Any) -> Resource:
    """The record of one of moto's databases; a new one for what callers have made, or made again."""
    databases = world.state(account, region, Databases)
    resource = databases.resources.get(made.arn)
    if resource is None or resource.made is not made:
        from_file = rds(world).auto_minor_after
        resource = Resource(account=account, region=region, made=made, automatic_from=world.clock.base + from_file)
        databases.resources[made.arn] = resource
    return resource


def exists(resource: Resource) -> bool:
    return estate_rds.by_arn(resource.account, resource.region, resource.arn) is resource.made


def rds(world: World) -> Rds:
    return world.file.rds if world.file else Rds()


def paced(world: World) -> bool:
    """Whether changes take their time; in an AWS without a world they are moto's."""
    return world.file is not None


def draw(world: World, resource: Resource, spread: Spread, purpose: str) -> float:
    databases = world.state(resource.account, resource.region, Databases)
    databases.changes += 1
    return spread.draw(world.random("rds", resource.arn, purpose, databases.changes))


def refresh(world: World, resource: Resource) -> None:
    """What automatic minor upgrades want appears, and goes when they are switched off or the version is reached."""
    made = resource.made
    if estate_rds.is_member(made):
        return  # its cluster owns the version
    goal = engines.automatic(made.engine, made.engine_version) if made.auto_minor_version_upgrade else None
    for name, action in list(resource.actions.items()):
        newer = [one.version for one in engines.targets(made.engine, made.engine_version)]
        superfluous = action.automatic and (goal is None or action.version != goal.version)
        if superfluous or (action.version is not None and action.version not in newer):
            del resource.actions[name]
    if goal is not None and paced(world) and UPGRADE not in resource.actions:
        resource.actions[UPGRADE] = Action(
            name=UPGRADE,
            description=f"Automatic minor version upgrade to {made.engine} {goal.version}",
            version=goal.version,
            automatic=True,
            auto_applied_after=resource.automatic_from,
        )
    plan(world, resource)


def date(resource: Resource, action: Action) -> float | None:
    """When AWS will do it by itself, as things are; None: not before somebody asks."""
    dates = [action.forced] if action.forced is not None else []
    if action.opt_in == "next-maintenance":
        dates.append(resource.window(action.opted))
    elif action.auto_applied_after is not None:
        dates.append(resource.window(action.auto_applied_after))
    return min(dates, default=None)


def plan(world: World, resource: Resource) -> None:
    """Come back when something is due by itself."""
    for action in resource.actions.values():
        due = date(resource, action)
        if due is not None and due > world.now:
            world.at(due, _due(world, resource, action))


def _due(world: World, resource: Resource, action: Action) -> Callable[[float], None]:
    def due(now: float) -> None:
        still = exists(resource) and resource.actions.get(action.name) is action
        planned = date(resource, action) if still else None
        if planned is None or planned > now:
            return
        if resource.status == "available":
            apply(world, resource, action, NOBODY)
        else:  # busy: in the window after this one
            world.at(resource.window(now + 1), due)

    return due


# --- changes ---


def apply(world: World, resource: Resource, action: Action, cause: Cause) -> None:
    """Carry out a pending action now."""
    status, spread = ("upgrading", rds(world).upgrade) if action.version else ("maintenance", rds(world).maintenance)
    _change(world, resource, action.name, status=status, version=action.version, spread=spread, cause=cause)


def upgrade(world: World, resource: Resource, version: str, cause: Cause) -> None:
    """Carry out a modification of the engine version now, or when what goes on has ended."""
    if resource.wanted != version or not exists(resource):
        return
    if resource.status != "available":
        world.at(world.now + 60, lambda _: upgrade(world, resource, version, cause))
        return
    resource.wanted = None
    _change(world, resource, "modify", status="upgrading", version=version, spread=rds(world).upgrade, cause=cause)


def _change(
    world: World, resource: Resource, name: str, *, status: str, version: str | None, spread: Spread, cause: Cause
) -> None:
    before = str(resource.made.engine_version)
    resource.changing = name
    set_status(resource, status)
    _journal(world, resource, Event.MAINTENANCE_BEGUN, name, cause, before, version)
    kind = "cluster" if resource.is_cluster else "instance"
    tell(world, resource, "maintenance", f"DB {kind} {'engine version upgrade' if version else 'maintenance'} started.")
    if getattr(resource.made, "multi_az", False) and not resource.is_cluster and version is None:
        tell(world, resource, "failover", "Multi-AZ instance failover started.")
    takes = draw(world, resource, spread, name)

    def end(_: float) -> None:
        if exists(resource):
            _end(world, resource, name, version, before, cause)

    world.at(world.now + takes, end)


def _end(world: World, resource: Resource, name: str, version: str | None, before: str, cause: Cause) -> None:
    """A change would be complete now, but for the faults."""
    stuck = world.faults.take_host(Kind.DATABASE_STUCK, resource)
    if stuck is not None:
        set_status(resource, "modifying")
        if stuck.seconds is not None:
            world.at(world.now + stuck.seconds, lambda _: _finish(world, resource, name, version, before, cause))
        return
    _finish(world, resource, name, version, before, cause)


def _finish(world: World, resource: Resource, name: str, version: str | None, before: str, cause: Cause) -> None:
    if not exists(resource):
        return
    made, kind = resource.made, "cluster" if resource.is_cluster else "instance"
    fails = version is not None and world.faults.take_host(Kind.DATABASE_UPGRADE_FAILS, resource) is not None
    resource.changing = None
    set_status(resource, "available")
    resource.actions.pop(name, None)
    if fails:
        tell(
            world, resource, "maintenance", f"Database {kind} could not be upgraded to {version}: the pre-upgrade checks failed."
        )
    elif version is not None:
        made.engine_version = version
        tell(world, resource, "maintenance", f"DB {kind} engine version upgraded from {before} to {version}.")
    else:
        if getattr(made, "multi_az", False) and not resource.is_cluster:
            tell(world, resource, "failover", "Multi-AZ instance failover completed")
        tell(world, resource, "maintenance", f"Finished applying maintenance to DB {kind}.")
    clear_pending(resource)
    _journal(world, resource, Event.MAINTENANCE_ENDED, name, cause, before, str(made.engine_version), failed=fails)
    refresh(world, resource)


def set_status(resource: Resource, status: str) -> None:
    """Members of a cluster go with it."""
    resource.made.status = status
    for member in resource.made.members if resource.is_cluster else ():
        member.status = status


def show_pending(resource: Resource, version: str) -> None:
    resource.made.pending_modified_values = {"EngineVersion": version}


def clear_pending(resource: Resource) -> None:
    if resource.wanted is None:
        resource.made.__dict__.pop("pending_modified_values", None)


def _journal(
    world: World, resource: Resource, event: Event, name: str, cause: Cause, before: str, version: str | None, **more: Any
) -> None:
    details = {"database": resource.id, "before": before, "version": version or before, **{k: v for k, v in more.items() if v}}
    world.record_managed(
        resource.arn,
        event,
        account=resource.account,
        region=resource.region,
        tags=resource.tags(),
        operation=name,
        cause=cause,
        **details,
    )


def tell(world: World, resource: Resource, category: str, message: str, *, arn: str | None = None) -> None:
    """An event: for DescribeEvents, and for rules that wait for it. `arn`: of a snapshot, in place of the database."""
    source = arn or resource.arn
    kind = source.rpartition(":rds:")[2].split(":")[2]
    spoken = {"db": "db-instance", "cluster": "db-cluster", "snapshot": "db-snapshot", "cluster-snapshot": "db-cluster-snapshot"}
    source_type = spoken[kind]
    identifier = source.rpartition(":")[2]
    row = estate_rds.RdsEvent(
        source_identifier=identifier,
        source_type=source_type,
        source_arn=source,
        message=message,
        event_categories=[category],
        date=moment(world.now),
    )
    estate_rds.add_event(resource.account, resource.region, row)
    titles = {"db-instance": "DB Instance", "db-cluster": "DB Cluster", "db-snapshot": "DB Snapshot"}
    events.emit(
        world,
        resource.account,
        resource.region,
        source="aws.rds",
        detail_type=f"RDS {titles.get(source_type, 'DB Cluster Snapshot')} Event",
        resources=[source],
        detail={
            "EventCategories": [category],
            "SourceType": source_type.removeprefix("db-").upper().replace("-", "_"),
            "SourceArn": source,
            "Date": iso(world.now),
            "SourceIdentifier": identifier,
            "Message": message,
        },
    )
