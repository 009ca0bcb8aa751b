"""Which EventBridge events does the simulated AWS emit, and when do rules deliver them?

Rules and targets are moto's (PutRule, PutTargets). `emit` makes an event in the shape of AWS's documentation and hands it to the
enabled rules of the cell's default bus; called by this module for Run Command, by `autoscaling.py` for instance refreshes and
by `cloudwatch.py` for alarms. Delivery to SQS queues, log groups and other buses is moto's.
"""

import json
from collections.abc import Mapping
from typing import Any

from awsim import groups
from awsim.clock import iso
from awsim.registry import on_world
from awsim.runcommand import Command, Invocation
from awsim.world import World

INVOCATION_CHANGED = "EC2 Command Invocation Status-change Notification"
COMMAND_CHANGED = "EC2 Command Status-change Notification"


class Told:
    """The last status of each command and invocation that an event told of, and how many events there were."""

    def __init__(self) -> None:
        self.commands: dict[str, str] = {}
        self.invocations: dict[tuple[str, str], str] = {}
        self.number = 0


def emit(
    world: World, account: str, region: str, *, source: str, detail_type: str, resources: list[str], detail: Mapping[str, Any]
) -> None:
    """Deliver an event to whoever has a rule for it; nothing is kept where nobody listens."""
    if not groups.listens(account, region):
        return
    told = world.state(account, region, Told)
    told.number += 1
    bits = f"{world.random('event', account, region, told.number).getrandbits(128):032x}"
    groups.deliver_event(
        account,
        region,
        {
            "version": "0",
            "id": f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}",
            "detail-type": detail_type,
            "source": source,
            "account": account,
            "time": float(int(world.now)),
            "region": region,
            "resources": list(resources),
            "detail": json.loads(json.dumps(detail)),
        },
    )


@on_world
def attach(world: World) -> None:
    world.on_status(lambda record: _status_changed(world, record))


def _status_changed(world: World, record: Any) -> None:
    if not isinstance(record, Invocation) or not groups.listens(record.command.account, record.command.region):
        return
    command, told = record.command, world.state(record.command.account, record.command.region, Told)
    key = (command.id, record.host.id)
    if told.invocations.get(key) != record.status:
        told.invocations[key] = record.status
        _emit_invocation(world, record)
    status = command.status()[0]
    if told.commands.get(command.id) != status:
        told.commands[command.id] = status
        _emit_command(world, command, status)


def _arn(command: Command, identifier: str) -> str:
    return f"arn:aws:ec2:{command.region}:{command.account}:instance/{identifier}"


def _emit_invocation(world: World, invocation: Invocation) -> None:
    command = invocation.command
    emit(
        world,
        command.account,
        command.region,
        source="aws.ssm",
        detail_type=INVOCATION_CHANGED,
        resources=[_arn(command, invocation.host.id)],
        detail={
            "command-id": command.id,
            "document-name": command.document,
            "instance-id": invocation.host.id,
            "requested-date-time": iso(command.requested),
            "status": invocation.status,
        },
    )


def _emit_command(world: World, command: Command, status: str) -> None:
    emit(
        world,
        command.account,
        command.region,
        source="aws.ssm",
        detail_type=COMMAND_CHANGED,
        resources=[_arn(command, identifier) for identifier in command.invocations],
        detail={
            "command-id": command.id,
            "document-name": command.document,
            "expire-after": iso(command.expires),
            "parameters": command.parameters,
            "requested-date-time": iso(command.requested),
            "status": status,
        },
    )
