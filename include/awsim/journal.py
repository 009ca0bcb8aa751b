"""What really happened to each host, and when? Written by the world's own events and by nothing that a caller says.

`Journal.write` is called from `world.py` and `runcommand.py` only. `/_awsim/journal` prints the lines, `summary` answers the two
questions every test asks: how many hosts were in flight at once, and how many commands did a host get?
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

    def since(self, number: int) -> list[Line]:
        """The lines after the first `number` ones."""
        return self._lines[number:]


def summary(lines: Iterable[Line]) -> dict[str, Any]:
    """`max_in_flight` per tag (`Key=Value`; the Auto Scaling group is its tag `aws:autoscaling:groupName`) and in all.

    A host is in flight from the `command_begun` of an Install to its `command_ended`, and while it reboots.
    """
    in_flight: dict[str, set[str]] = defaultdict(set)
    reasons: dict[str, set[str]] = defaultdict(set)
    peak: dict[str, int] = defaultdict(int)
    commands: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for line in lines:
        groups = ["*", *(f"{key}={value}" for key, value in line.tags.items())]
        _move(reasons[line.host], line)
        if line.event is Event.COMMAND_BEGUN:
            commands[line.host][line.operation or "?"] += 1
        for group in groups:
            (in_flight[group].add if reasons[line.host] else in_flight[group].discard)(line.host)
            peak[group] = max(peak[group], len(in_flight[group]))
    return {
        "max_in_flight": {group: count for group, count in sorted(peak.items()) if not group.startswith("Name=")},
        "commands_per_host": {host: dict(sorted(count.items())) for host, count in sorted(commands.items())},
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
