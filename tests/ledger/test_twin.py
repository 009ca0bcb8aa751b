"""The twin says what the database says, whatever is asked of both: random campaigns, compared step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from patchwave.campaign import evidence
from patchwave.campaign.approval import Verdict
from patchwave.campaign.errors import PatchwaveError
from patchwave.campaign.images.promotion import Level
from patchwave.campaign.rollout import LEGAL, DispatchState, HostState, Move, StepKind
from patchwave.campaign.values import RunId
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.memory import MemoryLedger
from patchwave.ledger.store import Ledger, RunOutcome, StageState
from tests.ledger.builders import DEV, PROD, A, B, C, a_decision, a_dispatch, a_host, a_run, a_wait, an_image, everything, later

HOSTS = [A, B, C]
STAGES = [DEV, PROD]
HOLDERS = ["try-1", "try-2"]
minutes = st.integers(0, 60)
few_hosts = st.lists(st.sampled_from(HOSTS), min_size=1, max_size=3)
numbers = count()


class Twins(RuleBasedStateMachine):
    """Each rule asks both ledgers the same; answers, refusals and everything that is stored must be equal."""

    database: Ledger

    def __init__(self) -> None:
        super().__init__()
        self.twin = MemoryLedger()
        self.run = RunId(f"dag/{next(numbers)}")
        self.leases: list[Any] = []

    def both(self, ask: Callable[[Ledger], Any]) -> Any:
        answers = []
        for ledger in (self.twin, self.database):
            try:
                answers.append(ask(ledger))
            except (PatchwaveError, KeyError, ValueError) as refusal:
                answers.append((type(refusal), str(refusal)))
        assert answers[0] == answers[1]
        return answers[0]

    def lease(self, index: int) -> Any:
        """Mostly the newest lease; sometimes one that may be lost."""
        return self.leases[-1 - index % len(self.leases)]

    @initialize()
    def begin(self) -> None:
        self.both(lambda ledger: ledger.open_run(a_run(self.run), STAGES))
        self.acquire(DEV, "try-1")
        self.both(lambda ledger: ledger.add_hosts(self.leases[0], [a_host(host, run=self.run) for host in HOSTS[:2]]))

    @rule(stage=st.sampled_from(STAGES), holder=st.sampled_from(HOLDERS))
    def acquire(self, stage: Any, holder: str) -> None:
        self.leases.append(self.both(lambda ledger: ledger.acquire(self.run, stage, holder, at=later(0))))

    @rule(index=st.integers(0, 3), state=st.sampled_from(list(StageState)), minute=minutes)
    def set_stage(self, index: int, state: StageState, minute: int) -> None:
        self.both(lambda ledger: ledger.set_stage(self.lease(index), state, reason="because", at=later(minute)))

    @rule(stage=st.sampled_from(STAGES), minute=minutes)
    def skip_stage(self, stage: Any, minute: int) -> None:
        self.both(lambda ledger: ledger.skip_stage(self.run, stage, reason="no", at=later(minute)))

    @rule(index=st.integers(0, 3), hosts=few_hosts)
    def add_hosts(self, index: int, hosts: list[Any]) -> None:
        lease = self.lease(index)
        self.both(lambda ledger: ledger.add_hosts(lease, [a_host(host, lease.stage, run=self.run) for host in hosts]))

    @rule(index=st.integers(0, 2), data=st.data(), minute=minutes, legally=st.sampled_from([True, True, True, False]))
    def move_hosts(self, index: int, data: st.DataObject, minute: int, legally: bool) -> None:
        """Legal moves of hosts that are there, for the most part; else any move of any host."""
        lease = self.lease(index)
        there = [row for row in self.twin.hosts(self.run, lease.stage) if LEGAL[row.state]]
        moves = []
        for _ in range(data.draw(st.integers(1, 2))):
            host, before = data.draw(st.sampled_from([(row.host, row.state) for row in there] or [(C, HostState.PLANNED)]))
            after = data.draw(st.sampled_from(sorted(LEGAL[before]) if legally else sorted(HostState)))
            number = data.draw(st.none() | st.integers(0, 9))
            moves.append(Move(host=host, before=before, after=after, reason="so", installed=number, missing_after=number))
        self.both(lambda ledger: ledger.move_hosts(lease, moves, at=later(minute)))

    @rule(index=st.integers(0, 2), step=st.sampled_from(list(StepKind)), hosts=few_hosts, token=st.sampled_from("abcd"))
    def intend(self, index: int, step: StepKind, hosts: list[Any], token: str) -> None:
        lease = self.lease(index)
        dispatch = replace(a_dispatch(token, tuple(hosts), step, self.run), stage=lease.stage)
        self.both(lambda ledger: ledger.intend(lease, dispatch, reason="go"))

    @rule(
        index=st.integers(0, 2),
        token=st.sampled_from("abcd"),
        state=st.sampled_from(list(DispatchState)),
        command=st.sampled_from([None, "c-1", "c-1", "c-2"]),
        minute=minutes,
    )
    def mark_dispatch(self, index: int, token: str, state: DispatchState, command: str | None, minute: int) -> None:
        requested_at = later(minute) if command else None
        self.both(
            lambda ledger: ledger.mark_dispatch(
                self.lease(index), token, state, at=later(minute), command=command, requested_at=requested_at
            )
        )

    @rule(verdict=st.sampled_from(list(Verdict)), plan=st.sampled_from("pq"), minute=minutes)
    def record_decision(self, verdict: Verdict, plan: str, minute: int) -> None:
        decision = replace(a_decision(verdict, plan=plan, minute=minute), run=self.run)
        self.both(lambda ledger: ledger.record_decision(decision))

    @rule(level=st.sampled_from(list(Level)), version=st.sampled_from("12"), minute=minutes)
    def record_image(self, level: Level, version: str, minute: int) -> None:
        record = an_image(level, f"{self.run}.{version}", self.run, minute)
        self.both(lambda ledger: ledger.record_image(record))

    @rule(subject=st.sampled_from(["dev", "verify"]), reason=st.sampled_from("xy"), minute=minutes, until=st.none() | minutes)
    def wait(self, subject: str, reason: str, minute: int, until: int | None) -> None:
        row = replace(a_wait(reason, minute, until, subject), run=self.run)
        self.both(lambda ledger: ledger.wait(row))

    @rule(subject=st.sampled_from(["dev", "verify"]), minute=minutes)
    def end_wait(self, subject: str, minute: int) -> None:
        self.both(lambda ledger: ledger.end_wait(self.run, subject, at=later(minute)))

    @rule(name=st.sampled_from(["plan", "report"]), content=st.sampled_from([{"n": 1}, {"n": 2}, [1.5, None, "ü"]]))
    def put_document(self, name: str, content: Any) -> None:
        self.both(lambda ledger: ledger.put_document(self.run, name, content, at=later(0)))
        self.both(lambda ledger: ledger.document(self.run, name))

    @rule(name=st.sampled_from(["plan", "triage"]), rows=st.sampled_from([[], [1.5, None, "ü"], [{"n": 1}] * 3]))
    def put_rows(self, name: str, rows: list[Any]) -> None:
        self.both(lambda ledger: ledger.put_rows(self.run, name, iter(rows), at=later(0), head={"by": "p"}, of="rows"))
        self.both(lambda ledger: (list(ledger.rows(self.run, name, of="rows")), ledger.rows(self.run, name, of="rows").head))
        self.both(lambda ledger: ledger.document(self.run, name))

    @rule(stage=st.sampled_from(STAGES), holder=st.sampled_from(HOLDERS))
    def wish_stop(self, stage: Any, holder: str) -> None:
        self.both(lambda ledger: ledger.wish_stop(self.run, stage, holder, at=later(0), reason="killed"))

    @rule(outcome=st.sampled_from(list(RunOutcome)), minute=minutes)
    def end_run(self, outcome: RunOutcome, minute: int) -> None:
        self.both(lambda ledger: ledger.end_run(self.run, outcome, at=later(minute)))

    @rule(calls=st.dictionaries(st.sampled_from("ab"), st.integers(1, 9)))
    def count_calls(self, calls: dict[str, int]) -> None:
        self.both(lambda ledger: ledger.count_calls(self.run, calls))

    @rule(open_only=st.booleans(), index=st.integers(0, 3))
    def look(self, open_only: bool, index: int) -> None:
        self.both(lambda ledger: list(ledger.waits(self.run, open_only=open_only)))
        self.both(lambda ledger: ledger.check(self.lease(index)))

    @invariant()
    def the_same_is_stored(self) -> None:
        self.both(lambda ledger: everything(ledger, self.run))

    def teardown(self) -> None:
        assert evidence.verify(self.twin.journal(self.run)) == []


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 20), ("postgres", 8)])
def test_the_twin_and_the_database_agree_on_random_campaigns(kind: str, examples: int, request: pytest.FixtureRequest):
    """Same answers, same refusals in the same words, same rows and the same hashes after every step."""

    class Pair(Twins):
        database = ledger_at(request.getfixturevalue(f"{kind}_url"))

    run_state_machine_as_test(
        Pair,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
        ),
    )
