"""Which databases are there, what does RDS want to do to them, and how is it told to? One cell at a time.

No call here takes a client token. A snapshot's name, an action that is pending no more and a version that is there already make
the second call change nothing; whoever lost an answer asks `databases` what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from patchwave.aws.calls import Calls
from patchwave.aws.errors import code_of
from patchwave.aws.snapshots import RUN_TAG
from patchwave.campaign.databases import (
    ApplyMaintenance,
    Database,
    Kind,
    Pending,
    SetAutomatic,
    Step,
    TakeSnapshot,
    Target,
    Upgrade,
)
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.values import Cell, RunId

LARGEST_PAGE = 100
"""RDS API reference: MaxRecords 20 to 100."""
TAKEN = frozenset({"DBSnapshotAlreadyExists", "DBClusterSnapshotAlreadyExistsFault"})
BUSY = frozenset({"InvalidDBInstanceState", "InvalidDBClusterStateFault", "InvalidDBInstanceStateFault"})
"""Codes of a refusal that time mends: something else is being done to it."""


class ManagedDatabases(Calls):
    """RDS."""

    def databases(self, cell: Cell, *, versions: bool = True) -> tuple[Database, ...]:
        """Every instance and cluster of the cell, in any status.

        Args:
            versions: whether to ask what each could be upgraded to; not needed to see how a change goes on.
        """
        pending = {
            row["ResourceIdentifier"]: tuple(_pending(its) for its in row.get("PendingMaintenanceActionDetails", ()))
            for page in self._rds_pages(cell, "rds:DescribePendingMaintenanceActions")
            for row in page.get("PendingMaintenanceActions", ())
        }
        clusters = [row for page in self._rds_pages(cell, "rds:DescribeDBClusters") for row in page.get("DBClusters", ())]
        instances = [row for page in self._rds_pages(cell, "rds:DescribeDBInstances") for row in page.get("DBInstances", ())]
        engines = {(row["Engine"], row["EngineVersion"]) for row in (*clusters, *instances)} if versions else set()
        targets = {one: self._upgrade_targets(cell, *one) for one in sorted(engines)}
        writers = {
            (row["DBClusterIdentifier"], its["DBInstanceIdentifier"])
            for row in clusters
            for its in row.get("DBClusterMembers", ())
            if its.get("IsClusterWriter")
        }
        made = [_cluster(cell, row, pending, targets) for row in clusters]
        made += [_instance(cell, row, pending, targets, writers) for row in instances]
        return tuple(sorted(made, key=lambda one: (one.kind, one.name)))

    def _rds_pages(self, cell: Cell, operation: str) -> Iterator[Mapping[str, Any]]:
        return self.pages(cell, operation, cursor="Marker", MaxRecords=LARGEST_PAGE)

    def _upgrade_targets(self, cell: Cell, engine: str, version: str) -> tuple[Target, ...]:
        answer = self.call(cell, "rds:DescribeDBEngineVersions", Engine=engine, EngineVersion=version)
        return tuple(
            Target(
                version=row["EngineVersion"], automatic=bool(row.get("AutoUpgrade")),
                # What RDS does not say is taken for a major one: it is never installed.
                major=bool(row.get("IsMajorVersionUpgrade", True)),
            )
            for found in answer.get("DBEngineVersions", ())
            for row in found.get("ValidUpgradeTarget", ())
        )  # fmt: skip

    def database_snapshots(self, cell: Cell, names: Iterable[tuple[Kind, str]]) -> dict[str, str]:
        """Status of these snapshots by name; one that is not there is absent."""
        found: dict[str, str] = {}
        for kind, name in sorted(set(names)):
            if kind is Kind.CLUSTER:
                filters = [{"Name": "db-cluster-snapshot-id", "Values": [name]}]
                answer = self.call(cell, "rds:DescribeDBClusterSnapshots", Filters=filters)
                found |= {row["DBClusterSnapshotIdentifier"]: row["Status"] for row in answer.get("DBClusterSnapshots", ())}
            else:
                filters = [{"Name": "db-snapshot-id", "Values": [name]}]
                answer = self.call(cell, "rds:DescribeDBSnapshots", Filters=filters)
                found |= {row["DBSnapshotIdentifier"]: row["Status"] for row in answer.get("DBSnapshots", ())}
        return found

    def change_database(self, cell: Cell, step: Step, *, run: RunId) -> None:
        """Carry out one step.

        Raises:
            InvalidRequest: RDS refuses it; `errors.code_of` in `BUSY` if time mends that.
            AwsUnavailable: the answer was lost; what came of it `databases` tells.
        """
        match step:
            case TakeSnapshot(database=one, name=name):
                self._take_database_snapshot(cell, one.saved_kind, one.saved, name, run)
            case ApplyMaintenance(database=one, action=action):
                self.call(
                    cell, "rds:ApplyPendingMaintenanceAction", ResourceIdentifier=one.arn, ApplyAction=action,
                    OptInType="immediate",
                )  # fmt: skip
            case Upgrade(database=one) if one.kind is Kind.CLUSTER:
                self.call(
                    cell, "rds:ModifyDBCluster", DBClusterIdentifier=one.name, EngineVersion=one.target,
                    AllowMajorVersionUpgrade=False, ApplyImmediately=True,
                )  # fmt: skip
            case Upgrade(database=one):
                self.call(
                    cell, "rds:ModifyDBInstance", DBInstanceIdentifier=one.name, EngineVersion=one.target,
                    AllowMajorVersionUpgrade=False, ApplyImmediately=True,
                )  # fmt: skip
            case SetAutomatic(database=one):
                self.call(
                    cell, "rds:ModifyDBInstance", DBInstanceIdentifier=one.name,
                    AutoMinorVersionUpgrade=bool(one.automatic), ApplyImmediately=True,
                )  # fmt: skip

    def _take_database_snapshot(self, cell: Cell, kind: Kind, of: str, name: str, run: RunId) -> None:
        tags = [{"Key": RUN_TAG, "Value": run}]
        try:
            if kind is Kind.CLUSTER:
                self.call(
                    cell, "rds:CreateDBClusterSnapshot", DBClusterSnapshotIdentifier=name, DBClusterIdentifier=of, Tags=tags
                )
            else:
                self.call(cell, "rds:CreateDBSnapshot", DBSnapshotIdentifier=name, DBInstanceIdentifier=of, Tags=tags)
        except InvalidRequest as error:
            if code_of(error) not in TAKEN:
                raise


def _pending(row: Mapping[str, Any]) -> Pending:
    moments = [row[name] for name in ("AutoAppliedAfterDate", "ForcedApplyDate", "CurrentApplyDate") if row.get(name)]
    return Pending(
        action=row.get("Action", ""), description=row.get("Description", ""), by_itself=_moment(min(moments, default=None)),
        opted=row.get("OptInStatus", ""),
    )  # fmt: skip


def _moment(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)


def _tags(row: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in row.get("TagList", ())}


def _cluster(
    cell: Cell, row: Mapping[str, Any], pending: Mapping[str, tuple[Pending, ...]], targets: Mapping[Any, tuple[Target, ...]]
) -> Database:
    arn = row["DBClusterArn"]
    return Database(
        arn=arn, cell=cell, name=row["DBClusterIdentifier"], kind=Kind.CLUSTER, engine=row["Engine"],
        version=row["EngineVersion"], status=row.get("Status", ""), tags=_tags(row),
        # A cluster that replicates another region's, or is its source, is no unit of one stage: each is its own.
        coming=(row.get("PendingModifiedValues") or {}).get("EngineVersion", ""),
        pending=pending.get(arn, ()), targets=targets.get((row["Engine"], row["EngineVersion"]), ()),
    )  # fmt: skip


def _instance(
    cell: Cell,
    row: Mapping[str, Any],
    pending: Mapping[str, tuple[Pending, ...]],
    targets: Mapping[Any, tuple[Target, ...]],
    writers: set[tuple[str, str]],
) -> Database:
    arn, cluster = row["DBInstanceArn"], row.get("DBClusterIdentifier") or ""
    return Database(
        arn=arn, cell=cell, name=row["DBInstanceIdentifier"], kind=Kind.INSTANCE, engine=row["Engine"],
        version=row["EngineVersion"], status=row.get("DBInstanceStatus", ""), tags=_tags(row),
        automatic=row.get("AutoMinorVersionUpgrade"), cluster=cluster, writer=(cluster, row["DBInstanceIdentifier"]) in writers,
        source=row.get("ReadReplicaSourceDBInstanceIdentifier") or "",
        replicas=tuple(row.get("ReadReplicaDBInstanceIdentifiers", ())),
        coming=(row.get("PendingModifiedValues") or {}).get("EngineVersion", ""),
        pending=pending.get(arn, ()), targets=targets.get((row["Engine"], row["EngineVersion"]), ()),
    )  # fmt: skip
