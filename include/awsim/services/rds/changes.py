"""ModifyDBInstance, ModifyDBCluster, CreateDBSnapshot, CreateDBClusterSnapshot: moto answers, then time has to pass.

Only the engine version is changed by and by (at once, or in the maintenance window); all else that a modification asks for is
moto's, at once.
"""

from typing import Any

from awsim import engines, estate_rds
from awsim.journal import Cause
from awsim.registry import AwsError, Context, operation
from awsim.services.rds import databases
from awsim.services.rds.databases import Resource
from awsim.wire import Answer


@operation("rds", "ModifyDBInstance", check=False)
def modify_db_instance(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    made = estate_rds.instance(ctx.account, ctx.region, params.get("DBInstanceIdentifier") or "")
    if made is None or not databases.paced(ctx.world):
        return ctx.moto_answer()
    if params.get("EngineVersion") and estate_rds.is_member(made):
        raise AwsError(
            "InvalidParameterCombination",
            "The specified DB Instance is a member of a cluster. Modify database engine version for the cluster using the"
            " ModifyDBCluster API",
        )
    return _modified(ctx, params, databases.known(ctx.world, ctx.account, ctx.region, made), "DBInstance")


@operation("rds", "ModifyDBCluster", check=False)
def modify_db_cluster(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    identifier = params.get("DBClusterIdentifier") or ""
    made = estate_rds.cluster(ctx.account, ctx.region, identifier)
    if made is None:
        raise AwsError("DBClusterNotFoundFault", f"DBCluster {identifier} not found.")
    if not databases.paced(ctx.world):
        return ctx.moto_answer()
    return _modified(ctx, params, databases.known(ctx.world, ctx.account, ctx.region, made), "DBCluster")


def _modified(ctx: Context, params: dict[str, Any], resource: Resource, member: str) -> dict[str, Any]:
    _check_available(resource)
    made, before, wanted = resource.made, str(resource.made.engine_version), params.get("EngineVersion")
    if wanted:
        _check_version(made.engine, before, wanted, allowed=bool(params.get("AllowMajorVersionUpgrade")))
    told = ctx.call_moto()
    if wanted:
        made.engine_version = told[member]["EngineVersion"] = before
    if wanted and wanted != before:
        _plan(ctx, resource, wanted, at_once=bool(params.get("ApplyImmediately")))
        told[member]["PendingModifiedValues"] = {"EngineVersion": wanted}
    databases.refresh(ctx.world, resource)
    return told


def _check_available(resource: Resource) -> None:
    if resource.status != "available":
        if resource.is_cluster:
            raise AwsError("InvalidDBClusterStateFault", f"The DB cluster {resource.id} is not in available state.")
        raise AwsError("InvalidDBInstanceState", "Database instance is not in available state.")


def _check_version(engine: str, before: str, wanted: str, *, allowed: bool) -> None:
    if wanted == before or engine not in engines.shipped():
        return
    target = engines.find(engine, wanted)
    if target is None:
        raise AwsError("InvalidParameterCombination", f"Cannot find version {wanted} for {engine}")
    current = engines.find(engine, before)
    if current is not None and target not in engines.targets(engine, before):
        raise AwsError("InvalidParameterCombination", f"Cannot upgrade {engine} from {before} to {wanted}")
    if current is not None and target.major != current.major and not allowed:
        raise AwsError(
            "InvalidParameterCombination",
            "The AllowMajorVersionUpgrade flag must be present when upgrading to a new major version.",
        )


def _plan(ctx: Context, resource: Resource, wanted: str, *, at_once: bool) -> None:
    world, cause = ctx.world, Cause(request_id=ctx.request_id)
    resource.wanted = wanted
    databases.show_pending(resource, wanted)
    begins = ctx.at + databases.draw(world, resource, databases.rds(world).begins, "begins")
    world.at(begins if at_once else resource.window(ctx.at), lambda _: databases.upgrade(world, resource, wanted, cause))


# --- snapshots ---


@operation("rds", "CreateDBSnapshot", check=False)
def create_db_snapshot(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """The instance is `backing-up` meanwhile and takes no other change."""
    made = estate_rds.instance(ctx.account, ctx.region, params.get("DBInstanceIdentifier") or "")
    if made is None or not databases.paced(ctx.world):
        return ctx.moto_answer()
    resource = databases.known(ctx.world, ctx.account, ctx.region, made)
    taken = estate_rds.snapshot(ctx.account, ctx.region, params.get("DBSnapshotIdentifier") or "")
    if taken is None:
        _check_available(resource)
    told = ctx.call_moto()
    snapshot = estate_rds.snapshot(ctx.account, ctx.region, told["DBSnapshot"]["DBSnapshotIdentifier"])
    databases.set_status(resource, "backing-up")
    databases.tell(ctx.world, resource, "backup", "Backing up DB instance")
    _take(ctx, resource, snapshot, told["DBSnapshot"])
    return told


@operation("rds", "CreateDBClusterSnapshot", check=False)
def create_db_cluster_snapshot(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """The cluster stays available: its storage is what is copied."""
    made = estate_rds.cluster(ctx.account, ctx.region, params.get("DBClusterIdentifier") or "")
    if made is None or not databases.paced(ctx.world):
        return ctx.moto_answer()
    resource = databases.known(ctx.world, ctx.account, ctx.region, made)
    taken = estate_rds.cluster_snapshot(ctx.account, ctx.region, params.get("DBClusterSnapshotIdentifier") or "")
    if taken is None:
        _check_available(resource)
    told = ctx.call_moto()
    snapshot = estate_rds.cluster_snapshot(ctx.account, ctx.region, told["DBClusterSnapshot"]["DBClusterSnapshotIdentifier"])
    _take(ctx, resource, snapshot, told["DBClusterSnapshot"])
    return told


def _take(ctx: Context, resource: Resource, snapshot: Any, row: dict[str, Any]) -> None:
    world = ctx.world
    estate_rds.begin_snapshot(snapshot, ctx.at)
    row["Status"], row["PercentProgress"], row["SnapshotCreateTime"] = "creating", 0, ctx.now
    takes = databases.draw(world, resource, databases.rds(world).snapshot, "snapshot")
    databases.tell(world, resource, "creation", "Creating manual snapshot", arn=str(snapshot.arn))

    def complete(_: float) -> None:
        estate_rds.end_snapshot(snapshot)
        databases.tell(world, resource, "creation", "Manual snapshot created", arn=str(snapshot.arn))
        if databases.exists(resource) and resource.status == "backing-up":
            databases.set_status(resource, "available")
            databases.tell(world, resource, "backup", "Finished DB instance backup")

    world.at(ctx.at + takes, complete)
