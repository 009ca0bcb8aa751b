"""What really happened to each host, and when? Written by the world's own events and by nothing that a caller says.

`Journal.write` is called from `world.py` and `runcommand.py` only. `/_awsim/journal` prints the lines, `summary` answers the
three questions every test asks: how many hosts were in flight at once, how many commands did a host get, and who came first?
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from awsim.clock import iso


class Event(StrEnum):
    COMMAND_BEGUN = "command_begun"
    PACKAGE_INSTALLED = "package_installed"
    COMMAND_ENDED = "command_ended"
    REBOOT_BEGUN = "reboot_begun"
    REBOOT_ENDED = "reboot_ended"
    IN_SERVICE = "in_service"
    OUT_OF_SERVICE = "out_of_service"
    REPLACED = "replaced"
    ROOT_VOLUME_REPLACED = "root_volume_replaced"
    MAINTENANCE_BEGUN = "maintenance_begun"
    MAINTENANCE_ENDED = "maintenance_ended"
    """These two are of a database or function; its ARN stands for the host, the kind of change for the operation."""
    IMAGE_STATE = "image_state"
    IMAGE_REGISTERED = "image_registered"
    """These two are of an image of Image Builder; its ARN stands for the host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Which call set this in motion; all None for what the world did by itself."""

    request_id: str | None = None
    command_id: str | None = None
    comment: str | None = None
    automation_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    at: float
    real_at: float
    host: str
    account: str
    region: str
    tags: dict[str, str]
    event: Event
    operation: str | None
    cause: Cause
    details: dict[str, Any] = field(default_factory=dict)
    zone: str = ""
    group: str | None = None
    """Its Auto Scaling group."""
    target_groups: tuple[str, ...] = ()
    """Names of the target groups that it serves, or has left for now."""

    def as_json(self) -> dict[str, Any]:
        return {
            "at": iso(self.at),
            "real_at": iso(self.real_at),
            "host": self.host,
            "account": self.account,
            "region": self.region,
            "tags": self.tags,
            "event": self.event.value,
            "operation": self.operation,
            "cause": {
                "request_id": self.cause.request_id,
                "command_id": self.cause.command_id,
                "comment": self.cause.comment,
                **({"automation_id": self.cause.automation_id} if self.cause.automation_id else {}),
            },
            "zone": self.zone,
            "auto_scaling_group": self.group,
            "target_groups": list(self.target_groups),
            **self.details,
        }


class Journal:
    def __init__(self) -> None:
        self._lines: list[Line] = []

    def write(self, line: Line) -> None:
        self._lines.append(line)

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def last(self, number: int) -> list[Line]:
        """The newest lines, newest first."""
        return self._lines[: -number - 1 : -1]

    def since(self, number: int) -> list[Line]:
        """The lines after the first `number` ones."""
        return self._lines[number:]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Which lines are meant; None means all."""

    hosts: frozenset[str] | None = None
    operation: str | None = None
    """Scan, Install or Shell: of the commands that are counted and put in order."""
    comment: str | None = None
    """What the comment of the causing command begins with."""
    command: str | None = None
    account: str | None = None
    region: str | None = None
    domain: str | None = None
    """`*`, `account=`, `region=`, `zone=`, `group=`, `target_group=` or a tag's `Key=Value`: hosts in it, and the only one whose
    peak is told."""
    begin: float | None = None
    end: float | None = None
    event: str | None = None

    def meant(self, line: Line) -> bool:
        return (
            (self.hosts is None or line.host in self.hosts)
            and (self.comment is None or (line.cause.comment or "").startswith(self.comment))
            and (self.command is None or line.cause.command_id == self.command)
            and (self.account is None or line.account == self.account)
            and (self.region is None or line.region == self.region)
            and (self.domain is None or self.domain in domains(line))
            and (self.begin is None or line.at >= self.begin)
            and (self.end is None or line.at < self.end)
            and (self.event is None or line.event.value == self.event)
        )


def domains(line: Line) -> list[str]:
    tags = (f"{key}={value}" for key, value in line.tags.items())
    places = [f"account={line.account}", f"region={line.region}", *([f"zone={line.zone}"] if line.zone else [])]
    if line.group is not None:
        places.append(f"group={line.group}")
    return ["*", *places, *(f"target_group={name}" for name in line.target_groups), *tags]


def summary(lines: Iterable[Line], question: Question | None = None) -> dict[str, Any]:
    """What the journal says, in four answers.

    `max_in_flight` a domain: everything (`*`), account, region, zone, Auto Scaling group, target group, and tag (`Key=Value`).
    A host is in flight from the `command_begun` of an Install to its `command_ended`, and while it reboots. `peak` says when that
    was reached for the first time, and by whom. `order` has each host once, when its first command began.
    """
    asked = question or Question()
    in_flight: dict[str, set[str]] = defaultdict(set)
    reasons: dict[str, set[str]] = defaultdict(set)
    peak: dict[str, int] = defaultdict(int)
    reached: dict[str, dict[str, Any]] = {}
    commands: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    order: dict[str, dict[str, Any]] = {}
    for line in lines:
        if not asked.meant(line):
            continue
        _move(reasons[line.host], line)
        if line.event is Event.COMMAND_BEGUN and asked.operation in (None, line.operation):
            commands[line.host][line.operation or "?"] += 1
            begun = {"host": line.host, "at": iso(line.at), "operation": line.operation, "comment": line.cause.comment}
            order.setdefault(line.host, begun)
        for domain in domains(line):
            (in_flight[domain].add if reasons[line.host] else in_flight[domain].discard)(line.host)
            if len(in_flight[domain]) > peak[domain]:
                reached[domain] = {"at": iso(line.at), "hosts": sorted(in_flight[domain])}
            peak[domain] = max(peak[domain], len(in_flight[domain]))
    told = {domain: count for domain, count in sorted(peak.items()) if not domain.startswith("Name=")}
    if asked.domain is not None:
        told = {asked.domain: peak.get(asked.domain, 0)}
    return {
        "max_in_flight": told,
        "peak": {domain: reached[domain] for domain in told if domain in reached and (asked.domain or domain == "*")},
        "commands_per_host": {host: dict(sorted(count.items())) for host, count in sorted(commands.items())},
        "order": list(order.values()),
    }


def _move(reasons: set[str], line: Line) -> None:
    """Which reasons does this line add to, or take from, a host's being in flight?"""
    command = f"install {line.cause.command_id}"
    if line.event is Event.COMMAND_BEGUN and line.operation == "Install":
        reasons.add(command)
    elif line.event is Event.COMMAND_ENDED:
        reasons.discard(command)
    elif line.event is Event.REBOOT_BEGUN:
        reasons.add("reboot")
    elif line.event in (Event.REBOOT_ENDED, Event.REPLACED):
        reasons.discard("reboot")
