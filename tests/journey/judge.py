"""What really happened to the hosts? awsim's journal, read for one journey's region.

The tests judge a campaign by this; the campaign's own word (ledger, report) is then compared with it. Nothing of Patchwave
is imported here, so that a mistake there cannot hide itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

TOUCHING = frozenset({"command_begun", "package_installed", "command_ended", "reboot_begun", "reboot_ended"})
"""What happens to a host only because somebody did something to it."""

REMEDY = "patchwave remediate"
"""How the Comment of an automation's commands begins; those of a stage carry the dispatch's token instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One line of the journal.

    Attributes:
        stage: the host's tag ``Environment`` at that moment.
        comment: of the command that caused it; empty if none did.
        package: what was installed, as ``name:epoch:version-release``; empty for all other events.
    """

    at: datetime
    host: str
    stage: str
    event: str
    operation: str
    comment: str
    automated: bool
    exit_code: int | None
    package: str = ""

    @property
    def begins_install(self) -> bool:
        """An Install has begun on the host."""
        return self.event == "command_begun" and self.operation == "Install"


@dataclass(frozen=True, kw_only=True, slots=True)
class Journal:
    """The records of one region, in the order in which they happened."""

    records: tuple[Record, ...]

    def of(self, stage: str) -> Journal:
        """Only the hosts of a stage."""
        return Journal(records=tuple(one for one in self.records if one.stage == stage))

    def by_the_stages(self) -> Journal:
        """Without what the remediation did."""
        return Journal(records=tuple(one for one in self.records if not one.automated))

    def by_remediation(self) -> Journal:
        """Only what the remediation did."""
        return Journal(records=tuple(one for one in self.records if one.automated))

    @property
    def commands(self) -> tuple[Record, ...]:
        """Every command that began on a host, Scans included."""
        return tuple(one for one in self.records if one.event == "command_begun")

    @property
    def installs(self) -> Mapping[str, int]:
        """How many Installs began on each host; hosts without one are not in it."""
        return Counter(one.host for one in self.records if one.begins_install)

    @property
    def packages(self) -> frozenset[str]:
        """What was installed on any of the hosts, with its version."""
        return frozenset(one.package for one in self.records if one.package)

    @property
    def touched(self) -> frozenset[str]:
        """Hosts to which anything was done."""
        return frozenset(one.host for one in self.records if one.event in TOUCHING)

    @property
    def began(self) -> datetime:
        """When the first Install began."""
        return min(one.at for one in self.records if one.begins_install)

    @property
    def ended(self) -> datetime:
        """When the last thing was done."""
        return max(one.at for one in self.records if one.event in TOUCHING)

    def exit_codes(self, host: str) -> list[int | None]:
        """How the host's Installs ended, in order."""
        return [
            one.exit_code
            for one in self.records
            if one.host == host and one.event == "command_ended" and one.operation == "Install"
        ]

    @property
    def most_away(self) -> int:
        """Most hosts away at one moment: from the first Install's begin until it, and any reboot after it, has ended."""
        begins: dict[str, datetime] = {}
        ends: dict[str, datetime] = {}  # those without one are still away
        for one in self.records:
            if one.begins_install:
                begins.setdefault(one.host, one.at)
                ends.pop(one.host, None)
            elif one.event == "reboot_begun":
                ends.pop(one.host, None)
            elif one.host in begins and (one.operation == "Install" or one.event == "reboot_ended"):
                ends[one.host] = one.at
        # An end counts before a begin at the same moment.
        edges = sorted([(begin, 1) for begin in begins.values()] + [(end, -1) for end in ends.values()])
        most = now = 0
        for _, change in edges:
            now += change
            most = max(most, now)
        return most


def read(text: str, *, region: str) -> Journal:
    """The journal as awsim prints it (JSON lines), one region of it."""
    lines = (json.loads(line) for line in text.splitlines() if line.strip())
    return Journal(records=tuple(_records(lines, region)))


def _records(lines: Iterable[Mapping[str, Any]], region: str) -> Iterable[Record]:
    for line in lines:
        if line["region"] != region:
            continue
        cause = line["cause"]
        comment = str(cause.get("comment") or "")
        yield Record(
            at=datetime.fromisoformat(line["at"]),
            host=str(line["host"]),
            stage=str(line["tags"].get("Environment", "")),
            event=str(line["event"]),
            operation=str(line.get("operation") or ""),
            comment=comment,
            automated=comment.startswith(REMEDY) or bool(cause.get("automation_id")),
            exit_code=line.get("exit_code"),
            package=f"{line['package']}:{line['version']}" if "package" in line else "",
        )
