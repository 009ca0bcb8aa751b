"""Databases and functions as the domain's tests need them, and an RDS and a Lambda that take what they are told."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from patchwave.campaign import databases, functions, managed_services
from patchwave.campaign.databases import Database, Kind, Pending, PlannedDatabase, Target
from patchwave.campaign.functions import Function, Mode
from patchwave.campaign.managed_services import Decision, Done, Halt, ManagedPlan, Rules, Seen, Terms
from patchwave.campaign.settling import Row, Service
from tests.domain.builders import CELL, NOW

RULES = Rules()
SETTLING = timedelta(minutes=2)


def arn_of(name: str, kind: Kind = Kind.INSTANCE) -> str:
    return f"arn:aws:rds:{CELL.region}:{CELL.account}:{kind.value}:{name}"


def function_arn(name: str) -> str:
    return f"arn:aws:lambda:{CELL.region}:{CELL.account}:function:{name}"


def a_database(name: str = "orders", *, kind: Kind = Kind.INSTANCE, **facts: Any) -> Database:
    """A PostgreSQL that could go from 16.3 to 16.4 by itself, to 16.6 if asked, and to 17.1 never."""
    values: dict[str, Any] = {
        "arn": arn_of(name, kind), "cell": CELL, "name": name, "kind": kind, "engine": "postgres", "version": "16.3",
        "status": "available", "tags": {"PatchGroup": "linux-prod"}, "automatic": False,
        "targets": (
            Target(version="16.4", automatic=True, major=False), Target(version="16.6", automatic=False, major=False),
            Target(version="17.1", automatic=False, major=True),
        ),
    }  # fmt: skip
    return Database(**values | facts)


def a_function(name: str = "checkout", **facts: Any) -> Function:
    """A function that Lambda patches when it is updated."""
    values: dict[str, Any] = {
        "arn": function_arn(name), "cell": CELL, "name": name, "runtime": "python3.13", "tags": {"Owner": "shop"},
        "mode": "Auto", "version": "runtime:1", "modified": "first",
    }  # fmt: skip
    return Function(**values | facts)


def a_plan(
    found: list[Database], its: list[Function] | None = None, *, rules: Rules = RULES, places: int = 1, **facts: Any
) -> ManagedPlan:
    """All of them in one stage that changes both services."""
    return ManagedPlan(
        services=(Service.RDS, Service.LAMBDA),
        databases=databases.planned(found, [one.arn for one in found], rules.databases, deadlines={}, **facts),
        functions=functions.planned(its or [], rules.functions, [], deadlines={}, now=NOW),
        database_places=places,
        function_places=places,
    )


class World:
    """RDS and Lambda as far as a rollout sees them: what is asked for takes some minutes, and answers may be lost.

    Attributes:
        begun: every call that had an effect, in order, with the moment.
        stuck: names of those that never come back.
        broken: names of those that end badly.
    """

    def __init__(self, found: list[Database], its: list[Function] | None = None, *, seed: int = 0) -> None:
        self.databases = {one.arn: one for one in found}
        self.functions = {one.arn: one for one in its or []}
        self.snapshots: dict[str, tuple[datetime, str]] = {}
        self.random = random.Random(seed)
        self.begun: list[tuple[datetime, str, str]] = []
        self.ends: dict[str, tuple[datetime, Any]] = {}
        self.stuck: set[str] = set()
        self.broken: set[str] = set()
        self.lossy = 0.0

    def seen(self, now: datetime, **facts: Any) -> Seen:
        for arn, (at, after) in list(self.ends.items()):
            if now >= at and after.name not in self.stuck:
                (self.databases if arn in self.databases else self.functions)[arn] = after
                del self.ends[arn]
        snapshots = {name: "available" if now >= at else "creating" for name, (at, _) in self.snapshots.items()}
        return Seen(databases=dict(self.databases), functions=dict(self.functions), snapshots=snapshots, **facts)

    def take(self, step: managed_services.Step, now: datetime) -> None:
        """The call; its effect comes, or the request was never heard."""
        if self.random.random() < self.lossy:
            return
        later = now + timedelta(minutes=self.random.randint(1, 20))
        match step:
            case databases.TakeSnapshot(database=one, name=name):
                if name not in self.snapshots:
                    self.snapshots[name] = (later, one.saved)
                    self.begun.append((now, "snapshot", one.saved))
            case databases.ApplyMaintenance(database=one, action=action):
                its = self.databases[one.arn]
                left = tuple(pending for pending in its.pending if pending.action != action)
                self._change(one, replace(its, pending=left), f"maintenance {action}", now, later)
            case databases.Upgrade(database=one):
                its = self.databases[one.arn]
                self._change(one, replace(its, version=one.target), "upgrade", now, later)
            case databases.SetAutomatic(database=one):
                self.databases[one.arn] = replace(self.databases[one.arn], automatic=one.automatic)
            case functions.SetMode(function=of, mode=mode, version=version):
                pin = {"mode": mode.value, "pinned": version, "update": "Successful", **({"version": version} if version else {})}
                self.functions[of.arn] = replace(self.functions[of.arn], **pin)  # type: ignore[arg-type]
                self.begun.append((now, f"mode {mode.value}", of.name))
            case functions.Update(function=of):
                had = self.functions[of.arn]
                self.begun.append((now, "update", of.name))
                to = "runtime:2" if had.mode != Mode.MANUAL else had.version
                ended = "Failed" if of.name in self.broken else "Successful"
                self.functions[of.arn] = replace(had, update="InProgress", modified=f"{now}")
                self.ends[of.arn] = (later, replace(had, version=to, update=ended, modified=f"{now}"))

    def _change(self, one: PlannedDatabase, after: Database, what: str, now: datetime, later: datetime) -> None:
        its = self.databases[one.arn]
        assert its.status == "available", f"{what} of {one.name} while it is {its.status}"
        self.begun.append((now, what, one.name))
        self.databases[one.arn] = replace(its, status="upgrading", pending=after.pending)
        status = "incompatible-parameters" if one.name in self.broken else "available"
        self.ends[one.arn] = (later, replace(after, status=status, automatic=its.automatic))


def to_the_end(
    plan: ManagedPlan, world: World, *, rules: Rules = RULES, failures: int = 0, forget: float = 0.0,
    every: timedelta = timedelta(minutes=1), **facts: Any,
) -> tuple[Done | Halt, dict[str, Row]]:  # fmt: skip
    """Play a stage; `forget` is how often whoever carries it out is killed after the rows and before the calls, `every` how much
    time lies between two looks."""
    now = NOW
    terms = Terms(run="run", stage="prod", rules=rules, failures=failures, settling=SETTLING)
    rows = managed_services.rows(plan, now=now)
    for _ in range(2000):
        decision: Decision = managed_services.decide(plan, rows, world.seen(now, **facts), terms, now=now)
        rows |= {row.id: row for row in decision.rows}
        away = {one.unit for one in plan.databases if rows[one.arn].state.value in {"saving", "changing"}}
        assert len(away) <= plan.database_places
        if world.random.random() >= forget:
            for step in decision.steps:
                world.take(step, now)
        if isinstance(decision.rest, Done | Halt):
            return decision.rest, rows
        now += every
    raise AssertionError(f"it never ends: {rows}")


def pending(action: str = "system-update", **facts: Any) -> Pending:
    return Pending(action=action, **facts)
