"""Databases: what AWS wants to do to them, and how they change on the virtual clock."""

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from awsim.services.rds.databases import next_window
from tests.simulator.conftest import FEW, Aws

WORLD = (
    FEW
    + """
databases:
  - name: orders
    account: "111111111111"
    region: eu-central-1
    engine: postgres
    version: "16.3"
    auto_minor_upgrade: false
    maintenance_window: "tue:03:00-tue:03:30"
    tags: {Environment: dev}
    pending: [{action: system-update}]
  - {name: stock, account: "111111111111", region: eu-central-1, count: 2, engine: mysql, version: 8.0.36}
clusters:
  - name: ledger
    account: "111111111111"
    region: eu-central-1
    engine: aurora-postgresql
    version: "16.2"
    instances: 2
    auto_minor_upgrade: false
rds: {begins: [10, 10], upgrade: [600, 600], maintenance: [300, 300], snapshot: [120, 120]}
"""
)
ORDERS = "arn:aws:rds:eu-central-1:111111111111:db:orders"


@pytest.fixture
def aws(start):
    return start(WORLD)


@pytest.fixture
def rds(aws):
    return aws.client("rds")


def database(rds: Any, name: str = "orders") -> dict[str, Any]:
    (row,) = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
    return dict(row)


def cluster(rds: Any, name: str = "ledger") -> dict[str, Any]:
    (row,) = rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]
    return dict(row)


def pending(rds: Any, **request: Any) -> dict[str, list[dict[str, Any]]]:
    rows = rds.describe_pending_maintenance_actions(**request)["PendingMaintenanceActions"]
    return {row["ResourceIdentifier"].rpartition(":")[2]: row["PendingMaintenanceActionDetails"] for row in rows}


def code(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**request)
    return str(refused.value.response["Error"]["Code"])


def apply(rds: Any, opt_in: str = "immediate", action: str = "system-update", arn: str = ORDERS) -> dict[str, Any]:
    return dict(rds.apply_pending_maintenance_action(ResourceIdentifier=arn, ApplyAction=action, OptInType=opt_in))


def upgrade(rds: Any, version: str, name: str = "orders", **request: Any) -> dict[str, Any]:
    request.setdefault("ApplyImmediately", True)
    return dict(rds.modify_db_instance(DBInstanceIdentifier=name, EngineVersion=version, **request)["DBInstance"])


def maintained(aws: Aws) -> list[tuple[str, str, str, str]]:
    """Event, database, kind of change and version, from the journal."""
    lines = [line for line in aws.journal() if line["event"].startswith("maintenance")]
    return [(line["event"], line["database"], line["operation"], line["version"]) for line in lines]


def test_what_has_nothing_pending_is_not_listed(rds):
    """No automatic minor upgrades, no declared action: absent."""
    told = pending(rds)
    assert set(told) == {"orders", "stock-01", "stock-02"}
    assert [row["Action"] for row in told["orders"]] == ["system-update"]
    assert [row["Description"] for row in told["stock-01"]] == ["Automatic minor version upgrade to mysql 8.0.41"]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("db-instance-id", "orders", {"orders"}),
        ("db-instance-id", ORDERS, {"orders"}),
        ("db-cluster-id", "orders", set()),
        ("db-instance-id", "nobody", set()),
    ],
)
def test_a_filter_names_instances_or_clusters(rds, name, value, found):
    """By identifier or ARN."""
    assert set(pending(rds, Filters=[{"Name": name, "Values": [value]}])) == found


def test_an_unknown_resource_is_refused(rds):
    """By both operations, with the code of the model."""
    unknown = ORDERS.replace("orders", "nobody")
    assert code(rds.describe_pending_maintenance_actions, ResourceIdentifier=unknown) == "ResourceNotFoundFault"
    request = {"ApplyAction": "system-update", "OptInType": "immediate"}
    assert code(rds.apply_pending_maintenance_action, ResourceIdentifier=unknown, **request) == "ResourceNotFoundFault"
    assert code(rds.apply_pending_maintenance_action, ResourceIdentifier=ORDERS, **{**request, "ApplyAction": "os-upgrade"})
    assert code(rds.describe_pending_maintenance_actions, MaxRecords=10) == "InvalidParameterValue"


def test_an_immediate_action_leaves_available_a_moment_later(aws, rds):
    """Who polls at once sees `available` still; then maintenance, and the action is gone."""
    told = apply(rds)["ResourcePendingMaintenanceActions"]["PendingMaintenanceActionDetails"]
    assert told[0]["OptInStatus"] == "immediate"
    assert database(rds)["DBInstanceStatus"] == "available"
    aws.advance(20)
    assert database(rds)["DBInstanceStatus"] == "maintenance"
    assert code(rds.modify_db_instance, DBInstanceIdentifier="orders", MultiAZ=True) == "InvalidDBInstanceState"
    aws.advance(300)
    assert database(rds)["DBInstanceStatus"] == "available"
    assert "orders" not in pending(rds)
    assert maintained(aws) == [
        ("maintenance_begun", "orders", "system-update", "16.3"),
        ("maintenance_ended", "orders", "system-update", "16.3"),
    ]


def test_immediate_cannot_be_undone_and_next_maintenance_can(aws, rds):
    """The window of the database is Tuesday at three."""
    told = apply(rds, "next-maintenance")["ResourcePendingMaintenanceActions"]["PendingMaintenanceActionDetails"][0]
    assert told["CurrentApplyDate"] == datetime(2026, 1, 6, 3, tzinfo=UTC)
    apply(rds, "undo-opt-in")
    aws.advance(24 * 3600)
    assert "orders" in pending(rds)
    apply(rds)
    request = {"ResourceIdentifier": ORDERS, "ApplyAction": "system-update", "OptInType": "undo-opt-in"}
    assert code(rds.apply_pending_maintenance_action, **request) == "InvalidDBInstanceState"


def test_next_maintenance_happens_in_the_window(aws, rds):
    """Not before, and by itself."""
    apply(rds, "next-maintenance")
    aws.advance(19 * 3600 - 60)  # it is 02:59
    assert database(rds)["DBInstanceStatus"] == "available"
    aws.advance(120)
    assert database(rds)["DBInstanceStatus"] == "maintenance"
    aws.advance(300)
    assert "orders" not in pending(rds)


def test_a_minor_version_is_applied_at_once(aws, rds):
    """Pending first, then upgrading, then there."""
    told = upgrade(rds, "16.8")
    assert (told["EngineVersion"], told["PendingModifiedValues"]) == ("16.3", {"EngineVersion": "16.8"})
    assert database(rds)["PendingModifiedValues"] == {"EngineVersion": "16.8"}
    aws.advance(60)
    assert (database(rds)["DBInstanceStatus"], database(rds)["EngineVersion"]) == ("upgrading", "16.3")
    aws.advance(600)
    row = database(rds)
    assert (row["DBInstanceStatus"], row["EngineVersion"]) == ("available", "16.8")
    assert not row.get("PendingModifiedValues")
    assert maintained(aws)[-1] == ("maintenance_ended", "orders", "modify", "16.8")


def test_without_apply_immediately_the_window_is_waited_for(aws, rds):
    """Tuesday at three."""
    upgrade(rds, "16.8", ApplyImmediately=False)
    aws.advance(18 * 3600)
    assert database(rds)["EngineVersion"] == "16.3"
    assert database(rds)["PendingModifiedValues"] == {"EngineVersion": "16.8"}
    aws.advance(2 * 3600)
    assert database(rds)["EngineVersion"] == "16.8"


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("17.5", "AllowMajorVersionUpgrade"), ("15.8", "Cannot upgrade"), ("16.99", "Cannot find version")],
)
def test_a_version_that_cannot_be_reached_is_refused(rds, version, sentence):
    """A major version needs its flag; nothing goes back; nothing is invented."""
    with pytest.raises(ClientError, match=sentence) as refused:
        upgrade(rds, version)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterCombination"
    assert database(rds)["EngineVersion"] == "16.3"


def test_a_major_version_with_its_flag_is_carried_out(aws, rds):
    """Whether that is wise is the caller's business."""
    upgrade(rds, "17.5", AllowMajorVersionUpgrade=True)
    aws.advance(700)
    assert database(rds)["EngineVersion"] == "17.5"


def test_upgrade_targets_say_what_is_major_and_what_is_automatic(rds):
    """As the version that is asked for sees them."""
    (row,) = rds.describe_db_engine_versions(Engine="postgres", EngineVersion="16.4")["DBEngineVersions"]
    targets = {target["EngineVersion"]: target for target in row["ValidUpgradeTarget"]}
    assert not {"16.3", "16.4"} & set(targets)
    assert [version for version, target in targets.items() if target["AutoUpgrade"]] == ["16.8"]
    assert {version for version, target in targets.items() if target["IsMajorVersionUpgrade"]} == {"17.2", "17.4", "17.5"}


def test_automatic_minor_upgrades_happen_by_themselves_in_a_window(aws, rds):
    """Two weeks after the start, on a Sunday at three; not where they are switched off."""
    rds.modify_db_instance(DBInstanceIdentifier="stock-02", AutoMinorVersionUpgrade=False)
    assert "stock-02" not in pending(rds)
    aws.advance(14 * 86_400)
    assert database(rds, "stock-01")["EngineVersion"] == "8.0.36"
    aws.advance(6 * 86_400)
    assert database(rds, "stock-01")["EngineVersion"] == "8.0.41"
    assert database(rds, "stock-02")["EngineVersion"] == "8.0.36"
    assert set(pending(rds)) == {"orders"}


def test_a_cluster_is_upgraded_with_its_members(aws, rds):
    """A member has no version of its own."""
    request = {"DBInstanceIdentifier": "ledger-instance-1", "EngineVersion": "16.6", "ApplyImmediately": True}
    assert code(rds.modify_db_instance, **request) == "InvalidParameterCombination"
    rds.modify_db_cluster(DBClusterIdentifier="ledger", EngineVersion="16.6", ApplyImmediately=True)
    assert cluster(rds)["PendingModifiedValues"] == {"EngineVersion": "16.6"}
    aws.advance(60)
    assert cluster(rds)["Status"] == database(rds, "ledger-instance-2")["DBInstanceStatus"] == "upgrading"
    again = {"DBClusterIdentifier": "ledger", "EngineVersion": "16.8", "ApplyImmediately": True}
    assert code(rds.modify_db_cluster, **again) == "InvalidDBClusterStateFault"
    aws.advance(600)
    assert (cluster(rds)["Status"], cluster(rds)["EngineVersion"]) == ("available", "16.6")
    assert database(rds, "ledger-instance-2")["EngineVersion"] == "16.6"


def test_a_snapshot_takes_its_time_and_the_instance_is_busy(aws, rds):
    """Its identifier is what makes it idempotent."""
    told = rds.create_db_snapshot(DBInstanceIdentifier="orders", DBSnapshotIdentifier="before")["DBSnapshot"]
    assert (told["Status"], told["PercentProgress"]) == ("creating", 0)
    assert database(rds)["DBInstanceStatus"] == "backing-up"
    again = {"DBInstanceIdentifier": "orders", "DBSnapshotIdentifier": "before"}
    assert code(rds.create_db_snapshot, **again) == "DBSnapshotAlreadyExists"
    assert code(rds.modify_db_instance, DBInstanceIdentifier="orders", MultiAZ=True) == "InvalidDBInstanceState"
    aws.advance(130)
    (row,) = rds.describe_db_snapshots(DBSnapshotIdentifier="before")["DBSnapshots"]
    assert (row["Status"], row["EngineVersion"]) == ("available", "16.3")
    assert row["SnapshotCreateTime"] == datetime(2026, 1, 5, 8, tzinfo=UTC)
    assert database(rds)["DBInstanceStatus"] == "available"
    told = rds.create_db_cluster_snapshot(DBClusterIdentifier="ledger", DBClusterSnapshotIdentifier="all")["DBClusterSnapshot"]
    assert told["Status"] == "creating"
    aws.advance(130)
    (row,) = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier="all")["DBClusterSnapshots"]
    assert row["Status"] == "available"


def test_a_stuck_database_stays_in_modifying(aws, rds):
    """Forever, or so long as the fault says; only the one that the fault names."""
    aws.control("faults", {"kind": "database_stuck", "database": "orders", "times": 1, "seconds": 7200})
    upgrade(rds, "16.8")
    upgrade(rds, "8.0.42", "stock-01")
    aws.advance(3600)
    assert database(rds)["DBInstanceStatus"] == "modifying"
    assert database(rds, "stock-01")["EngineVersion"] == "8.0.42"
    assert code(rds.create_db_snapshot, DBInstanceIdentifier="orders", DBSnapshotIdentifier="now") == "InvalidDBInstanceState"
    aws.advance(7200)
    assert (database(rds)["DBInstanceStatus"], database(rds)["EngineVersion"]) == ("available", "16.8")


def test_an_upgrade_may_fail(aws, rds):
    """Back to available, the version as it was; an event and the journal say so."""
    aws.control("faults", {"kind": "database_upgrade_fails", "tag": "Environment=dev"})
    upgrade(rds, "16.8")
    aws.advance(700)
    assert (database(rds)["DBInstanceStatus"], database(rds)["EngineVersion"]) == ("available", "16.3")
    told = rds.describe_events(SourceIdentifier="orders", SourceType="db-instance")["Events"]
    assert "could not be upgraded" in told[-1]["Message"]
    assert aws.journal()[-1]["failed"] is True


def test_events_tell_what_happened(aws, rds):
    """With the moments of the virtual clock."""
    upgrade(rds, "16.8")
    aws.advance(700)
    told = rds.describe_events(SourceIdentifier="orders", SourceType="db-instance")["Events"]
    assert [row["Message"] for row in told[-2:]] == [
        "DB instance engine version upgrade started.",
        "DB instance engine version upgraded from 16.3 to 16.8.",
    ]
    assert told[-1]["Date"] == datetime(2026, 1, 5, 8, 10, 10, tzinfo=UTC)


def test_a_world_file_names_engine_and_version(start):
    """The message says which ones there are."""
    with pytest.raises(ValueError, match=r"databases\.0.*version: '16.33' is not one of .*16\.3"):
        start(WORLD.replace('version: "16.3"', 'version: "16.33"'))


@pytest.mark.parametrize(
    ("window", "begins"),
    [("mon:08:00-mon:08:30", 0), ("mon:07:59-mon:08:30", 7 * 86_400 - 60), ("sun:23:45-mon:00:15", 6 * 86_400 + 15.75 * 3600)],
)
def test_the_next_window_is_never_behind(window, begins):
    """It is Monday, eight o'clock."""
    now = datetime(2026, 1, 5, 8, tzinfo=UTC).timestamp()
    assert next_window(window, now) - now == begins
