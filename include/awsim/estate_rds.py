"""What does moto keep of RDS? Databases, clusters and snapshots, whose state `services/rds` moves on the virtual clock."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.rds.models import DBInstanceClustered, rds_backends


@dataclass(frozen=True, kw_only=True, slots=True)
class RdsEvent:
    """A row of DescribeEvents, with the names of moto's own."""

    source_identifier: str
    source_type: str
    source_arn: str
    message: str
    event_categories: list[str]
    date: datetime


def instance(account: str, region: str, identifier: str) -> Any | None:
    backend = _backend(account, region)
    wanted = identifier.lower()
    return next((made for made in backend.databases.values() if made.db_instance_identifier == wanted), None)


def cluster(account: str, region: str, identifier: str) -> Any | None:
    backend = _backend(account, region)
    wanted = identifier.lower()
    return next((made for made in backend.clusters.values() if made.db_cluster_identifier == wanted), None)


def by_arn(account: str, region: str, arn: str) -> Any | None:
    """The instance or cluster of an ARN."""
    _, _, named = arn.rpartition(":rds:")
    kind, _, identifier = ":".join(named.split(":")[2:]).partition(":")
    look_up = {"db": instance, "cluster": cluster}.get(kind)
    made = look_up(account, region, identifier) if look_up is not None else None
    return made if made is not None and made.arn == arn else None


def all_of(account: str, region: str) -> list[Any]:
    """Clusters and instances of a cell."""
    backend = _backend(account, region)
    return [*backend.clusters.values(), *backend.databases.values()]


def is_member(made: Any) -> bool:
    """Whether an instance belongs to a cluster, which owns its version."""
    return isinstance(made, DBInstanceClustered)


def make_instance(account: str, region: str, *, at: float, **told: Any) -> Any:
    made = _backend(account, region).create_db_instance(told)
    made.created = made.instance_create_time = _naive(at)
    return made


def make_cluster(account: str, region: str, *, at: float, **told: Any) -> Any:
    made = _backend(account, region).create_db_cluster(told)
    made.created = made.cluster_create_time = _naive(at)
    made.status = "available"
    return made


def snapshot(account: str, region: str, identifier: str) -> Any | None:
    found = _backend(account, region).database_snapshots.values()
    return next((one for one in found if one.db_snapshot_identifier == identifier.lower()), None)


def cluster_snapshot(account: str, region: str, identifier: str) -> Any | None:
    found = _backend(account, region).cluster_snapshots.values()
    return next((one for one in found if one.db_cluster_snapshot_identifier == identifier.lower()), None)


def begin_snapshot(made: Any, at: float) -> None:
    made.status, made.percent_progress, made.created = "creating", 0, _naive(at)


def end_snapshot(made: Any) -> None:
    made.status, made.percent_progress = "available", 100


def add_event(account: str, region: str, event: RdsEvent) -> None:
    _backend(account, region).events.append(event)


def _backend(account: str, region: str) -> Any:
    return rds_backends[account][region]


def _naive(at: float) -> datetime:
    """moto's convention: UTC, without saying so."""
    return datetime.fromtimestamp(round(at, 3), tz=UTC).replace(tzinfo=None)
