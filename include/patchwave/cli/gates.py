"""Who answers a gate of the run, the terminal, `APPROVE=yes` or somebody in the browser?

Whoever is first. The answer goes through Airflow's REST API as a named user, exactly as the browser's does; what it opens
is decided by the ledger, not here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from patchwave.campaign.errors import Permanent
from patchwave.cli.rest import Refused

SETTLING = 3.0
"""Seconds between a request's appearance and a program's answer; an answer given within the first two can fail the task."""


class NobodyMayAnswer(Permanent):
    """None of the demo's users is among those whom the gate asks."""


class RequestsApi(Protocol):
    """What is needed of `rest.Airflow`."""

    user: str

    def open_requests(self, dag: str, run: str) -> Sequence[Any]: ...

    def request_of(self, dag: str, run: str, task: str, map_index: int = -1) -> Any: ...

    def answer(
        self, dag: str, run: str, task: str, option: str, *, map_index: int = -1, inputs: Mapping[str, Any] | None = None
    ) -> Any: ...

    def task(self, dag: str, run: str, task: str, map_index: int = -1) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One request to people that waits at this moment.

    Attributes:
        attempt: id of the task instance; a retry asks under another one.
        seen: when we first saw it (monotonic seconds).
        may: login names that may answer; empty means anybody with the right to.
    """

    task: str
    map_index: int
    attempt: str
    subject: str
    body: str
    options: tuple[str, ...]
    may: tuple[str, ...]
    seen: float
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def option(self, *, approve: bool) -> str:
        """The gate's own word for yes or no."""
        word = "approve" if approve else "reject"
        for option in self.options:
            if option.casefold() == word:
                return option
        return self.options[0 if approve else -1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A gate was answered.

    Attributes:
        by: login name.
        ours: False if somebody else was first.
        state: of the gate's task a moment later.
    """

    gate: Gate
    option: str
    by: str
    ours: bool
    state: str


class Gates:
    """The gates of one run."""

    def __init__(
        self,
        *,
        dag: str,
        run: str,
        users: Mapping[str, RequestsApi],
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            users: clients by login name, the preferred one first; the first also reads.
        """
        self._dag = dag
        self._run = run
        self._users = users
        self._reader = next(iter(users.values()))
        self._now = now
        self._pause = pause
        self._seen: dict[str, float] = {}

    def waiting(self) -> tuple[Gate, ...]:
        """The gates that wait for an answer now."""
        return tuple(self._gate(one) for one in self._reader.open_requests(self._dag, self._run))

    def _gate(self, one: Mapping[str, Any]) -> Gate:
        task = one["task_instance"]
        attempt = str(task["id"])
        seen = self._seen.setdefault(attempt, self._now())
        return Gate(
            task=str(task["task_id"]),
            map_index=int(task.get("map_index", -1)),
            attempt=attempt,
            subject=str(one["subject"]),
            body=str(one.get("body") or ""),
            options=tuple(one["options"]),
            may=tuple(str(user["id"]) for user in one.get("assigned_users") or ()),
            seen=seen,
            inputs={
                name: value["value"] if isinstance(value, dict) and "value" in value else value
                for name, value in (one.get("params") or {}).items()
            },
        )

    def settled(self, gate: Gate) -> bool:
        """Whether an answer is safe by now."""
        return self._now() - gate.seen >= SETTLING

    def answerer(self, gate: Gate) -> str:
        """As whom we answer: our first user whom the gate asks.

        Raises:
            NobodyMayAnswer: it asks none of ours.
        """
        for name in self._users:
            if not gate.may or name in gate.may:
                return name
        raise NobodyMayAnswer(f"{gate.task} asks {', '.join(gate.may)}; here there are {', '.join(self._users)}")

    def answer(self, gate: Gate, *, approve: bool) -> Answered:
        """Answer, and look at what became of it. Waits until an answer is safe."""
        name = self.answerer(gate)
        self._pause(max(0.0, SETTLING - (self._now() - gate.seen)))
        option = gate.option(approve=approve)
        try:
            said = self._users[name].answer(
                self._dag, self._run, gate.task, option, map_index=gate.map_index, inputs=gate.inputs
            )
        except Refused as refusal:
            # Answered meanwhile (409; after a lost answer of Airflow's it may have been ours), or its task has ended.
            if refusal.status not in (404, 409):
                raise
            return self.answered(gate)
        by = str((said.get("responded_by") or {}).get("id") or name)
        return Answered(gate=gate, option=option, by=by, ours=True, state=self._state(gate))

    def answered(self, gate: Gate) -> Answered:
        """Who answered a gate that waits no longer, and what."""
        try:
            said = self._reader.request_of(self._dag, self._run, gate.task, gate.map_index)
        except Refused:
            said = {}
        by = str((said.get("responded_by_user") or {}).get("id") or "-")
        option = ", ".join(said.get("chosen_options") or ()) or "no answer"
        return Answered(gate=gate, option=option, by=by, ours=False, state=self._state(gate))

    def _state(self, gate: Gate) -> str:
        state = ""
        for _ in range(20):
            state = str(self._reader.task(self._dag, self._run, gate.task, gate.map_index).get("state"))
            if state not in ("awaiting_input", "deferred", "scheduled", "queued"):
                break
            self._pause(0.5)
        return state
