"""Where does a database or a function stand on its way to a terminal class?

`databases` and `functions` decide how each goes on, `managed_services` puts both into a stage. The words for the classes are
those of hosts, so that all three stand in one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from patchwave.campaign.values import Cell


class Service(StrEnum):
    """A service of AWS whose resources a campaign may change, as the campaign file names it."""

    RDS = "rds"
    LAMBDA = "lambda"


class State(StrEnum):
    """Where one stands."""

    PLANNED = "planned"
    SAVING = "saving"  # its snapshot is taken
    CHANGING = "changing"  # it holds a place
    PATCHED = "patched"
    ALREADY_COMPLIANT = "already_compliant"
    FAILED = "failed"
    UNREACHABLE = "unreachable"  # somebody else keeps it busy
    STOPPED = "stopped"
    EXCEPTED = "excepted"
    OUT_OF_WINDOW = "out_of_window"
    TERMINATED = "terminated"

    @property
    def settled(self) -> bool:
        """Whether it is a terminal class."""
        return self not in {State.PLANNED, State.SAVING, State.CHANGING}


BAD = frozenset({State.FAILED, State.UNREACHABLE})
"""Classes that count against the stage's error budget, and keep their place."""
IN_FLIGHT = frozenset({State.SAVING, State.CHANGING})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One database or function in a stage, as the ledger has it.

    Attributes:
        id: its ARN.
        since: of the state.
        began: when it was begun; None: it was not.
        step: the call that was made last, or was about to be; empty for none.
        intended_at: when.
        tries: how often that call was made.
        before, after: version of the engine, or ARN of the runtime's version, then and in the end.
        note: what is to be compared later (a function's last modification before the call).
    """

    id: str
    service: Service
    cell: Cell
    name: str
    state: State
    since: datetime
    reason: str = ""
    began: datetime | None = None
    step: str = ""
    intended_at: datetime | None = None
    tries: int = 0
    before: str = ""
    after: str = ""
    note: str = ""

    def to(self, state: State, reason: str, *, at: datetime, **facts: Any) -> Row:
        """It, in another state."""
        began = at if state in IN_FLIGHT and self.began is None else self.began
        return replace(self, **{"state": state, "reason": reason, "since": at, "began": began, **facts})

    def intending(self, step: str, *, at: datetime, **facts: Any) -> Row:
        """It, with a call about to be made."""
        tries = self.tries + 1 if self.step == step else 1
        return replace(self, step=step, intended_at=at, tries=tries, **facts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Why one of them waits.

    Attributes:
        until: at the latest.
    """

    reason: str
    ends: str
    until: datetime


_ROWS = TypeAdapter(tuple[Row, ...])


def to_json(rows: Iterable[Row]) -> Any:
    """As the ledger stores them."""
    return _ROWS.dump_python(tuple(rows), mode="json")


def from_json(content: Any) -> dict[str, Row]:
    """What `to_json` wrote, by ARN."""
    return {row.id: row for row in _ROWS.validate_python(content)}


def settled(rows: Mapping[str, Row]) -> bool:
    """Whether each is in a terminal class."""
    return all(row.state.settled for row in rows.values())
