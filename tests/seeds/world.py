"""A fleet, its faults and the way to it, drawn from a seed: awsim in this process, asked without HTTP.

`SeededGateway` is the gateway itself, down to paging and the translation of errors; only the wire between botocore and awsim is
left out (`tests/gateway` has that), for it costs ten times as much as all the rest. awsim's own handlers answer, its world and
its journal are the real ones. EC2's and Auto Scaling's rows are made from the world's hosts, for moto needs 30 ms a page.

On top of awsim's faults the wire is harder than awsim: fresh commands and patch reports are listed late, answers take time, and
each call is a moment at which a process can be killed or overtaken (`Point`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import yaml
from botocore.exceptions import ClientError, ConnectionClosedError

from awsim import constraints, inside, registry, wire
from awsim.faults import CALL_KINDS, Fault, Kind
from awsim.registry import AwsError, Context
from awsim.server import Simulator
from patchwave.aws import errors
from patchwave.aws.gateway import Gateway
from patchwave.aws.operations import OPERATIONS, Operation
from patchwave.campaign.values import Cell

ACCOUNT = "111111111111"
REGIONS = ("eu-central-1", "us-east-1")
BASE = 1_767_600_000.0  # 2026-01-05T08:00:00Z
STAGES = ("dev", "staging", "prod")

Point = Callable[[str, str], None]
"""Told of ``("before" | "after", what)`` each call; may never return."""

PLATFORMS = ("amazon-linux-2023", "ubuntu-24.04")


class World:
    """awsim, made from a seed.

    Attributes:
        faulted: hosts that something was done to, or will be; nobody promises how those end.
        meddled: those of them that somebody else stops, reboots or terminates.
        told: what was drawn, for the story.
    """

    def __init__(self, chance: Random, *, seed: int, calm: bool = False, fleets: list[dict[str, Any]] | None = None) -> None:
        self.chance = chance
        self.faulted: set[str] = set()
        self.meddled: set[str] = set()
        self._odd_ones: set[tuple[str, int]] = set()
        self.told: list[str] = []
        self.deeds: list[tuple[float, str, Callable[[], None]]] = []
        self.stages = STAGES[: chance.choice([1, 1, 1, 2, 2, 3])]
        if fleets is not None:
            self.stages = tuple(stage for stage in STAGES if any(fleet["name"].startswith(stage) for fleet in fleets))
        self._listed: dict[str, float] = {}
        self._reported: dict[tuple[str, Any], float] = {}
        self._reports: dict[str, Mapping[str, Any]] = {}
        self.late_lists = 0.0 if calm else chance.choice([0.0, 0.0, 3.0, 15.0])
        self.late_reports = 0.0 if calm else chance.choice([0.0, 0.0, 0.0, 90.0])
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            yaml.safe_dump(self._drawn(fleets), file)
            file.flush()
            self.simulator = Simulator(world=Path(file.name), speed=0, seed=seed, base=BASE)
        self.cells = tuple(Cell(account=account, region=region) for account, region in self.simulator.world.cells)
        for host in self.simulator.world.all_hosts():
            fleet, _, number = host.name.rpartition("/")
            if (fleet, int(number)) in self._odd_ones:
                self.faulted.add(host.id)
        if not calm:
            self._draw_faults()

    # --- what is there --------------------------------------------------------------------------------------------------
    def _drawn(self, fleets: list[dict[str, Any]] | None) -> dict[str, Any]:
        regions = REGIONS[: self.chance.choice([1, 1, 2])]
        return {
            "name": "seeded",
            "accounts": [{"id": ACCOUNT}],
            "regions": list(regions),
            "timings": {
                "delivery": [1, 3],
                "scan": [15, 60],
                "install": [60, 400],
                "reboot": [30, 180],
                "status_check": [20, 60],
            },
            "templates": {
                "amazon": {"os": "amazon-linux-2023", "missing": {"count": [2, 3], "always": ["kernel"]}},
                "app": {"os": "amazon-linux-2023", "missing": {"count": [1, 3], "never": ["kernel"]}},
                "ubuntu": {"os": "ubuntu-24.04", "missing": {"count": [1, 3]}},
            },
            "fleets": self._fleets(regions) if fleets is None else fleets,
        }

    def _fleets(self, regions: tuple[str, ...]) -> list[dict[str, Any]]:
        chance = self.chance
        fleets = []
        for stage in self.stages:
            for number in range(chance.choice([1, 1, 2])):
                count = chance.randint(1, 6)
                fleet: dict[str, Any] = {
                    "name": f"{stage}-{number}", "account": ACCOUNT, "region": chance.choice(regions), "count": count,
                    "template": chance.choice(["amazon", "amazon", "app", "ubuntu"]), "tags": {"PatchGroup": f"linux-{stage}"},
                }  # fmt: skip
                if chance.random() < 0.4:
                    fleet["auto_scaling_group"] = {"name": f"{stage}-{number}", "min": 1, "desired": count, "max": count + 3}
                fleets.append(fleet)
        if chance.random() < 0.3:  # hosts that are none of ours
            fleets.append({
                "name": "strangers", "account": ACCOUNT, "region": regions[0], "count": 1, "template": "app",
                "tags": {"PatchGroup": "others"},
            })  # fmt: skip
        for fleet in fleets:
            odd = [self._odd(fleet["name"], number) for number in range(1, fleet["count"] + 1)]
            grouped = "auto_scaling_group" in fleet  # which replaces what is stopped at once
            fleet["exceptions"] = [one for one in odd if one and not (grouped and one.get("state") == "stopped")]
        return fleets

    def _odd(self, fleet: str, number: int) -> dict[str, Any] | None:
        draw = self.chance.random()
        if draw < 0.06:
            return {"host": number, "compliant": True}
        if draw < 0.17:
            self._odd_ones.add((fleet, number))
        if draw < 0.10:
            return {"host": number, "agent": self.chance.choice(["connection_lost", "not_registered"])}
        if draw < 0.13:
            return {"host": number, "state": "stopped"}
        if draw < 0.17:
            return {"host": number, "install_fails": {"exit_code": 1, "times": 1}}
        return None

    # --- what goes wrong ------------------------------------------------------------------------------------------------
    def _draw_faults(self) -> None:
        chance = self.chance
        for host in self.simulator.world.all_hosts():
            if chance.random() < 0.12:
                self._spoil(host)
        for _ in range(chance.choice([0, 0, 1, 2, 3])):
            self._trouble_calls()
        if chance.random() < 0.25:
            self._trouble_group()

    def _spoil(self, host: Any) -> None:
        chance = self.chance
        kind = chance.choice([
            "agent_dead", "agent_lost", "agent_late", "undeliverable", "install_fails", "disk_full", "package_manager_locked",
            "second_reboot", "reboot_never_returns", "stop", "terminate", "foreign_reboot",
        ])  # fmt: skip
        after = chance.uniform(0, 2400)
        self.faulted.add(host.id)
        cell = Cell(account=host.account, region=host.region)
        if kind in ("stop", "terminate", "foreign_reboot"):
            self.meddled.add(host.id)
        match kind:
            case "stop":
                self._later(
                    after, f"{host.id} is stopped", lambda: self._ask(cell, "ec2", "StopInstances", InstanceIds=[host.id])
                )
            case "terminate":
                what = lambda: self._ask(cell, "ec2", "TerminateInstances", InstanceIds=[host.id])  # noqa: E731
                self._later(after, f"{host.id} is terminated", what)
            case "foreign_reboot":
                what = lambda: self._ask(cell, "ec2", "RebootInstances", InstanceIds=[host.id])  # noqa: E731
                self._later(after, f"{host.id} is rebooted by somebody", what)
            case "agent_dead":
                lasts = chance.choice([None, chance.uniform(60, 3000)])
                self._fault(kind=kind, host=host.id, after=after, lasts=lasts)
            case "agent_lost":
                lasts = chance.choice([None, chance.uniform(60, 3000)])
                self._fault(kind=kind, host=host.id, seconds=chance.uniform(1, 200), times=1, lasts=lasts)
            case "agent_late":
                self._fault(kind=kind, host=host.id, seconds=chance.uniform(60, 400), times=chance.randint(1, 3))
            case "disk_full" | "undeliverable":
                self._fault(kind=kind, host=host.id, times=chance.choice([None, 1, 2]))
            case _:
                self._fault(kind=kind, host=host.id, times=chance.choice([1, 1, 2]))

    def _trouble_calls(self) -> None:
        chance = self.chance
        after, lasts = chance.uniform(0, 3000), chance.uniform(30, 600)
        match chance.choice(
            ["throttle", "error", "lost_answer", "connection_reset", "access_denied", "expired_credentials", "down"]
        ):
            case "throttle":
                operation = chance.choice(["SendCommand", "ListCommands", "ListCommandInvocations", None])
                rate = chance.choice([1.0, 0.5])
                self._fault(kind="throttle", service="ssm", operation=operation, probability=rate, after=after, lasts=lasts)
            case "error":
                self._fault(kind="error", service="ssm", probability=0.3, after=after, lasts=lasts)
            case "lost_answer":
                rate = chance.choice([1.0, 0.5])
                self._fault(
                    kind="lost_answer", service="ssm", operation="SendCommand", probability=rate, times=chance.randint(1, 4)
                )
            case "connection_reset":
                effect = chance.choice(["before", "after"])
                times = chance.randint(1, 4)
                self._fault(kind="connection_reset", service="ssm", operation="SendCommand", effect=effect, times=times)
            case "access_denied":
                operation = chance.choice(["SendCommand", "ListCommandInvocations"])
                self._fault(kind="access_denied", service="ssm", operation=operation, after=after, lasts=lasts)
            case "expired_credentials":
                self._fault(kind="expired_credentials", after=after, lasts=lasts)
            case "down":
                region = chance.choice([cell.region for cell in self.cells])
                self._fault(kind="error", region=region, code="ServiceUnavailable", status=503, after=after, lasts=600)

    def _trouble_group(self) -> None:
        groups = sorted({host.group for host in self.simulator.world.all_hosts() if host.group})
        if not groups:
            return
        group = self.chance.choice(groups)
        members = [host.id for host in self.simulator.world.all_hosts() if host.group == group]
        kind = self.chance.choice(["group_scales_out", "group_scales_in", "group_replaces"])
        if kind != "group_scales_out":
            self.faulted.update(members)
        self._fault(kind=kind, group=group, number=1, after=self.chance.uniform(0, 2400))

    def _fault(self, **fields: Any) -> None:
        given = {name: value for name, value in fields.items() if value is not None}
        self.told.append("fault: " + ", ".join(f"{name} {value}" for name, value in given.items()))
        self.simulator.world.add_fault(Fault.model_validate(given))

    def unproven(self, host: str) -> str:
        """What speaks against calling that host patched, on its own disk; empty if nothing does."""
        found = next(one for one in self.simulator.world.all_hosts() if one.id == host)
        report = found.report
        if report is None or not report.compliant:
            return "its last report finds patches missing, failed or waiting for a reboot"
        waits = found.unbooted or found.reboot_pending
        return "its patches wait for a reboot" if waits and host not in self.meddled else ""

    def _later(self, after: float, what: str, deed: Callable[[], None]) -> None:
        self.told.append(f"{what} after {after:.0f} s")
        self._do_at(BASE + after, what, deed)

    def _do_at(self, at: float, what: str, deed: Callable[[], None]) -> None:
        self.deeds.append((at, what, deed))
        self.deeds.sort(key=lambda one: one[0])

    def _ask(self, cell: Cell, service: str, operation: str, **params: Any) -> None:
        inside.ask(self.simulator.world, cell.account, cell.region, service, operation, params)

    # --- time -----------------------------------------------------------------------------------------------------------
    @property
    def now(self) -> float:
        return self.simulator.world.clock.now()

    def pass_time(self, seconds: float) -> list[str]:
        """Let it pass; what people did to hosts meanwhile."""
        end, done = self.now + seconds, []
        while self.deeds and self.deeds[0][0] <= end:
            at, what, deed = self.deeds.pop(0)
            self.simulator.advance(max(0.0, at - self.now))
            try:
                deed()
                done.append(what)
            except AwsError:  # AWS is down for people, too
                self._do_at(at + 120, what, deed)
        self.simulator.advance(max(0.0, end - self.now))
        return done

    def journal(self) -> list[dict[str, Any]]:
        return [line.as_json() for line in self.simulator.world.journal]

    # --- calls ----------------------------------------------------------------------------------------------------------
    def answer(self, cell: Cell, operation: Operation, params: dict[str, Any]) -> Mapping[str, Any]:
        """What AWS answers now.

        Raises:
            ClientError, ConnectionClosedError: as botocore does.
        """
        world = self.simulator.world
        world.catch_up()
        facts = {"service": operation.service, "operation": operation.name, "account": cell.account, "region": cell.region}
        struck = world.faults.take_call(*CALL_KINDS, **facts)
        if struck is not None:
            raise _refused(operation, *_code_of(struck, operation.service))
        if world.faults.take_reset("before", **facts) is not None:
            raise ConnectionClosedError(endpoint_url=f"https://{operation.service}.{cell.region}")
        answer = self._handled(cell, operation, params)
        if world.faults.take_reset("after", **facts) is not None:
            raise ConnectionClosedError(endpoint_url=f"https://{operation.service}.{cell.region}")
        lost = world.faults.take_call(Kind.LOST_ANSWER, **facts)
        if lost is not None:
            raise _refused(operation, "InternalServerError", 500)
        return answer

    def _handled(self, cell: Cell, operation: Operation, params: dict[str, Any]) -> Mapping[str, Any]:
        match operation.id:
            case "ec2:DescribeInstances":
                return self._instances(cell, params)
            case "autoscaling:DescribeAutoScalingInstances":
                return self._members(cell, params)
            case "ec2:DescribeInstanceStatus":
                return self._statuses(cell, params)
        found = registry.find(operation.service, operation.name)
        world = self.simulator.world
        if found is None or operation.service != "ssm":
            try:
                return inside.ask(world, cell.account, cell.region, operation.service, operation.name, params)
            except AwsError as error:
                raise _refused(operation, error.code, error.status or 400, str(error)) from error
        model = wire.operation_model(operation.service, operation.name)
        wrong = constraints.violations(operation.service, params, model.input_shape)
        if wrong:
            raise _refused(operation, "ValidationException", 400, constraints.sentence(wrong))
        context = Context(
            world=world, service=operation.service, operation=operation.name, account=cell.account, region=cell.region,
            request_id=world.request_id(), at=world.now, params=params, _call=None,  # type: ignore[arg-type]
        )  # fmt: skip
        try:
            answer = dict(found.handler(context, params) or {})
        except AwsError as error:
            raise _refused(operation, error.code, error.status or 400, str(error)) from error
        return self._late(operation, params, answer)

    def _late(self, operation: Operation, params: dict[str, Any], answer: dict[str, Any]) -> Mapping[str, Any]:
        """Lists that lag behind, as AWS's do."""
        if operation.name == "SendCommand":
            self._listed[answer["Command"]["CommandId"]] = self.now + self.chance.uniform(0, self.late_lists)
        elif operation.name == "ListCommands":
            answer["Commands"] = [row for row in answer["Commands"] if self._is_listed(row["CommandId"])]
        elif operation.name == "ListCommandInvocations":
            if not self._is_listed(params.get("CommandId", "")):
                raise _refused(operation, "InvalidCommandId", 400)
        elif operation.name == "DescribeInstancePatchStates" and self.late_reports:
            answer["InstancePatchStates"] = [one for row in answer["InstancePatchStates"] if (one := self._report(row))]
        return answer

    def _is_listed(self, command: str) -> bool:
        return self._listed.get(command, 0.0) <= self.now

    def _report(self, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        key = (row["InstanceId"], row["OperationEndTime"])
        ended = row["OperationEndTime"].timestamp()
        visible = self._reported.setdefault(key, ended + self.chance.uniform(0, self.late_reports))
        if visible <= self.now:
            self._reports[row["InstanceId"]] = row
        return self._reports.get(row["InstanceId"])

    def _instances(self, cell: Cell, params: dict[str, Any]) -> Mapping[str, Any]:
        filters = {one["Name"]: one["Values"] for one in params.get("Filters") or []}
        rows = []
        for host in self.simulator.world.hosts_in(cell.account, cell.region):
            if host.terminated is not None and host.terminated < self.now - 3600:
                continue  # EC2 forgets it after about an hour
            tags = host.tags()
            facts = {
                "instance-id": {host.id}, "instance-state-name": {host.state}, "tag-key": set(tags),
                **{f"tag:{key}": {value} for key, value in tags.items()},
            }  # fmt: skip
            if any(facts.get(name, set()).isdisjoint(values) for name, values in filters.items()):
                continue
            rows.append({
                "InstanceId": host.id, "State": {"Name": host.state}, "ImageId": "ami-1", "LaunchTime": moment(host.launched),
                "Placement": {"AvailabilityZone": host.zone},
                "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            })  # fmt: skip
        return {"Reservations": [{"Instances": rows}]}

    def _statuses(self, cell: Cell, params: dict[str, Any]) -> Mapping[str, Any]:
        rows = []
        for host in self.simulator.world.hosts_in(cell.account, cell.region):
            if host.id in params["InstanceIds"] and host.state != "terminated":
                status = {"Status": host.status_check(self.now) if host.state == "running" else "not-applicable"}
                state = {"Name": host.state}
                rows.append({"InstanceId": host.id, "InstanceState": state, "InstanceStatus": status, "SystemStatus": status})
        return {"InstanceStatuses": rows}

    def _members(self, cell: Cell, params: dict[str, Any]) -> Mapping[str, Any]:
        wanted = params.get("InstanceIds")
        rows = [
            {
                "InstanceId": host.id, "AutoScalingGroupName": host.group, "AvailabilityZone": host.zone,
                "LifecycleState": "InService", "HealthStatus": "HEALTHY" if host.state == "running" else "UNHEALTHY",
            }
            for host in self.simulator.world.hosts_in(cell.account, cell.region)
            if host.group is not None and host.state != "terminated" and (not wanted or host.id in wanted)
        ]  # fmt: skip
        return {"AutoScalingInstances": rows}


def _refused(operation: Operation, code: str, status: int, message: str = "") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message or code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation.name
    )


def _code_of(fault: Fault, service: str) -> tuple[str, int]:
    match fault.kind:
        case Kind.THROTTLE:
            return ("RequestLimitExceeded", 503) if service == "ec2" else ("ThrottlingException", 400)
        case Kind.EXPIRED_CREDENTIALS:
            return ("RequestExpired" if service == "ec2" else "ExpiredTokenException"), 400
        case Kind.ACCESS_DENIED:
            return "AccessDeniedException", 400
        case _:
            return fault.code or "InternalServerError", fault.status


class SeededGateway(Gateway):
    """One process' gateway: every call takes time, and is a moment at which the process may be gone."""

    def __init__(self, world: World, point: Point, passing: Callable[[float], None]) -> None:
        super().__init__(lambda cell: world)  # type: ignore[arg-type,return-value]
        self._world, self._point, self._passing = world, point, passing

    def call(self, cell: Cell, operation_id: str, **parameters: Any) -> Mapping[str, Any]:
        """Make one call, without a wire."""
        operation = OPERATIONS[operation_id]
        chance = self._world.chance
        self._point("before", operation_id)
        slow = operation.name == "SendCommand" and chance.random() < 0.1
        self._passing(chance.uniform(0, 12) if slow else chance.uniform(0.02, 0.3))
        try:
            answer = self._world.answer(cell, operation, parameters)
        except (ClientError, ConnectionClosedError) as error:
            raise errors.translated(error, operation) from error
        finally:
            self._count(operation, 1)
        self._passing(chance.uniform(0.02, 0.3))
        self._point("after", operation_id)
        return answer


def moment(epoch: float) -> datetime:
    """As the campaign's clock says it."""
    return datetime.fromtimestamp(epoch, UTC)
