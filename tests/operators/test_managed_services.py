"""Databases of a stage on a simulated RDS: judged by what it says was done to them, in which order."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from patchwave.aws.gateway import Gateway
from patchwave.campaign import databases, managed_services
from patchwave.campaign.databases import Automatic, Database, Databases, Minor
from patchwave.campaign.errors import LeaseLost
from patchwave.campaign.managed_services import Done, Halt, ManagedPlan, Rules, Wait
from patchwave.campaign.settling import Row, Service, State
from patchwave.campaign.windows import Span
from patchwave.execution import managed_services as managed
from patchwave.execution.managed_services import ManagedExecutor
from patchwave.ledger.memory import MemoryLedger
from tests.domain.builders import CELL
from tests.gateway.conftest import session_with_keys
from tests.operators.stage import ONCE, RUN, STAGE, Killed, Stage, Watched
from tests.simulator.conftest import AMAZON, Aws

WORLD = f"name: managed{AMAZON}" + """\
fleets: []
databases:
  - name: orders
    account: "111111111111"
    region: eu-central-1
    engine: postgres
    version: "16.3"
    auto_minor_upgrade: false
    tags: {PatchGroup: dev}
    pending: [{action: system-update}]
  - {name: stock, account: "111111111111", region: eu-central-1, engine: postgres, version: "16.3", tags: {PatchGroup: dev}}
clusters:
  - name: ledger
    account: "111111111111"
    region: eu-central-1
    engine: aurora-postgresql
    version: "16.2"
    instances: 3
    auto_minor_upgrade: false
    tags: {PatchGroup: dev}
rds: {begins: [10, 10], upgrade: [600, 600], maintenance: [300, 300], snapshot: [120, 120]}
"""
NEWEST = Databases(minor_versions=Minor.NEWEST)


class Managed(Stage):
    """A stage of databases, and whoever carries it through."""

    def __init__(self, aws: Aws, *names: str, rule: Databases = NEWEST, places: int = 1, errors: int = 0) -> None:
        self.aws = aws
        self.ledger = MemoryLedger()
        self.gateway = Gateway(session_with_keys, endpoint_url=aws.url, reads=ONCE, unrepeated=ONCE)
        self.hosts = []
        self.ledger.open_run(self.a_run(), [STAGE])
        self.managed_rules = Rules.model_validate({"databases": rule})
        self.errors = errors
        everybody = self.gateway.databases(CELL)
        mine = [one.arn for one in everybody if one.name in names or one.cluster in names]
        self.plan = ManagedPlan(
            services=(Service.RDS,), databases=databases.planned(everybody, mine, rule, deadlines={}), database_places=places
        )

    def managed(self, holder: str, *, gateway: Any = None, span: Span | None = None) -> ManagedExecutor:
        return ManagedExecutor(
            ledger=self.ledger, gateway=gateway or self.gateway, lease=self.lease(holder), plan=self.plan,
            rules=self.managed_rules, errors_allowed=self.errors, span=lambda: span, now=lambda: self.now,
            log=logging.getLogger("stage"), settle=timedelta(minutes=1),
        )  # fmt: skip

    def through(self, executor: ManagedExecutor, *, waits: list[str] | None = None) -> Done | Halt:
        """Advance, and let a minute pass at each wait."""
        for _ in range(600):
            decision = executor.advance()
            if not isinstance(decision, Wait):
                return decision
            if waits is not None:
                waits.append(decision.reason)
            self.aws.advance(60.0)
        raise AssertionError(f"no end: {decision}")

    def row(self, name: str) -> Row:
        return next(row for row in (managed.read(self.ledger, self.lease("look")) or {}).values() if row.name == name)

    def in_rds(self, name: str) -> Database:
        return next(one for one in self.gateway.databases(CELL) if one.name == name)

    def begun(self) -> list[tuple[str, str]]:  # type: ignore[override]
        """Database and kind of change of each maintenance that really began, in order, by the world's own record."""
        return [(one["database"], one["operation"]) for one in self.aws.journal() if one["event"] == "maintenance_begun"]

    def snapshots(self) -> list[str]:
        client = self.gateway.client(CELL, "rds")
        found = client.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
        clusters = client.describe_db_cluster_snapshots(SnapshotType="manual")["DBClusterSnapshots"]
        return sorted([one["DBInstanceIdentifier"] for one in found] + [one["DBClusterIdentifier"] for one in clusters])


@pytest.fixture
def aws(start: Any) -> Aws:
    made: Aws = start(WORLD)
    return made


def test_a_database_is_saved_maintained_upgraded_and_proven(aws: Aws) -> None:
    """One snapshot, then each change once; RDS itself has the version in the end."""
    stage = Managed(aws, "orders")
    (one,) = stage.plan.databases
    assert (one.actions, one.version) == (("system-update",), "16.3")
    waits: list[str] = []
    assert stage.through(stage.managed("try-1"), waits=waits) == Done(classes={"patched": 1})
    assert stage.snapshots() == ["orders"]
    assert [what for _, what in stage.begun()] == ["system-update", "modify"]
    assert stage.in_rds("orders").version == one.target == stage.row("orders").after
    assert one.target.startswith("16.")
    assert any("snapshot is creating" in why for why in waits)
    assert any("RDS says upgrading" in why for why in waits)


def test_a_cluster_is_upgraded_once_and_its_members_with_it(aws: Aws) -> None:
    """By ModifyDBCluster; its snapshot is the cluster's."""
    stage = Managed(aws, "ledger")
    assert isinstance(stage.through(stage.managed("try-1")), Done)
    assert stage.begun() == [("ledger", "modify")]
    assert stage.snapshots() == ["ledger"]
    target = next(one.target for one in stage.plan.databases if one.target)
    assert {one.version for one in stage.gateway.databases(CELL) if "ledger" in (one.name, one.cluster)} == {target}


def test_two_databases_with_one_place_are_changed_one_after_the_other(aws: Aws) -> None:
    """The budget of hosts holds for databases."""
    stage = Managed(aws, "orders", "stock")
    stage.through(stage.managed("try-1"))
    away = 0
    for line in aws.journal():
        away += {"maintenance_begun": 1, "maintenance_ended": -1}.get(line["event"], 0)
        assert away <= 1
    assert {name for name, _ in stage.begun()} == {"orders", "stock"}


@pytest.mark.parametrize("operation", ["CreateDBSnapshot", "ApplyPendingMaintenanceAction", "ModifyDBInstance"])
def test_a_lost_answer_does_nothing_twice(aws: Aws, operation: str) -> None:
    """There is no token: the call is adopted by what RDS shows."""
    stage = Managed(aws, "orders")
    aws.control("faults", {"kind": "lost_answer", "service": "rds", "operation": operation, "times": 1})
    assert stage.through(stage.managed("try-1")) == Done(classes={"patched": 1})
    assert [what for _, what in stage.begun()] == ["system-update", "modify"]
    assert stage.snapshots() == ["orders"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_resumes_after_a_kill_changes_nothing_twice(aws: Aws, moment: str) -> None:
    """Killed at each call in turn, between the intent and the call, or behind it."""
    stage = Managed(aws, "orders")

    def kill(_: str) -> None:
        raise Killed

    done: Any = None
    for number in range(20):
        watched = Watched(stage.gateway, frozenset({"change_database"}), **{moment: kill})
        # Every other try lives: one that dies before each of its calls would never get anywhere.
        executor = stage.managed(f"try-{number}", gateway=watched if number % 2 == 0 else stage.gateway)
        try:
            done = stage.through(executor) if number > 6 else executor.advance()
        except Killed:
            continue
        if isinstance(done, Done):
            break
        aws.advance(300.0)
    assert done == Done(classes={"patched": 1})
    assert [what for _, what in stage.begun()] == ["system-update", "modify"]
    assert stage.snapshots() == ["orders"]


def test_an_orphan_makes_no_call(aws: Aws) -> None:
    """Another process has the stage: its lease is refused before the first effect."""
    stage = Managed(aws, "orders")
    orphan = stage.managed("try-1")
    stage.managed("try-2")
    with pytest.raises(LeaseLost):
        orphan.advance()
    assert stage.snapshots() == []


def test_a_database_stuck_in_modifying_halts_the_stage_and_the_other_is_left_alone(aws: Aws) -> None:
    """After the policy's time-out, with an error budget of none; the ledger says what RDS said."""
    aws.control("faults", {"kind": "database_stuck", "database": "orders", "times": 1, "seconds": 86_400})
    stage = Managed(aws, "orders", "stock", rule=Databases(minor_versions=Minor.NEWEST, timeout=timedelta(hours=1)))
    halted = stage.through(stage.managed("try-1"))
    assert isinstance(halted, Halt)
    assert "still modifying" in stage.row("orders").reason
    assert stage.row("stock").state is State.PLANNED
    assert "stock" not in {name for name, _ in stage.begun()}


def test_an_upgrade_that_rds_gives_up_fails_with_the_version_that_it_has(aws: Aws) -> None:
    """RDS calls the database available again, and says nothing else of it."""
    aws.control("faults", {"kind": "database_upgrade_fails", "database": "stock", "times": 2})
    stage = Managed(aws, "stock")
    assert isinstance(stage.through(stage.managed("try-1")), Halt)
    assert "its version is 16.3" in stage.row("stock").reason


def test_a_window_that_is_shut_is_waited_for_and_one_too_short_is_not_used(aws: Aws) -> None:
    """Nothing is begun outside, not even a snapshot."""
    stage = Managed(aws, "orders")
    opens = stage.now + timedelta(hours=2)
    decision = stage.managed("try-1", span=Span(opens=opens, closes=opens + timedelta(hours=4), because="night")).advance()
    assert isinstance(decision, Wait)
    assert (decision.reason, decision.until) == ("night", opens)
    short = Span(opens=stage.now, closes=stage.now + timedelta(minutes=5))
    assert stage.managed("try-2", span=short).advance() == Done(classes={"out_of_window": 1})
    assert stage.snapshots() == []


def test_automatic_minor_upgrade_is_set_as_the_policy_wants_it(aws: Aws) -> None:
    """Without a snapshot where nothing else is done."""
    rule = Databases(minor_versions=Minor.NONE, maintenance=(), automatic_minor_upgrade=Automatic.ON)
    stage = Managed(aws, "orders", rule=rule)
    assert stage.through(stage.managed("try-1")) == Done(classes={"patched": 1})
    assert stage.in_rds("orders").automatic is True
    assert stage.snapshots() == []


def test_a_stop_says_what_goes_on_and_the_next_try_finds_it(aws: Aws) -> None:
    """RDS takes nothing back."""
    stage = Managed(aws, "orders")
    executor = stage.managed("try-1")
    executor.advance()
    told = managed.stop(stage.ledger, executor.lease, now=stage.now)
    assert "cannot be stopped" in told
    assert "orders" in told
    assert stage.through(stage.managed("try-2")) == Done(classes={"patched": 1})
    assert stage.snapshots() == ["orders"]


def test_each_change_of_a_row_is_a_record(aws: Aws) -> None:
    """The evidence names service, version before and after."""
    stage = Managed(aws, "orders")
    stage.through(stage.managed("try-1"))
    moved = [one.data for one in stage.ledger.journal(RUN) if one.kind == managed.MOVED]
    assert [one["state"] for one in moved] == ["planned", "saving", "changing", "patched"]
    assert moved[-1]["service"] == "rds"
    steps = [one.data["step"].split(" ")[0] for one in stage.ledger.journal(RUN) if one.kind == managed.INTENDED]
    assert steps == ["snapshot", "maintenance", "upgrade"]
    assert managed_services.document(STAGE) in stage.ledger.documents(RUN)
