"""Kill means stop: who cancels what, when a person ends a stage's task, and when nobody did. Judged by the world's journal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from patchwave.aws.commands import comment_for
from patchwave.campaign.errors import AwsUnavailable, LeaseLost, OutcomeUnknown
from patchwave.campaign.rollout import DispatchState, Done, StepKind, Wait
from patchwave.campaign.rollout import HostState as S
from patchwave.execution import stopping
from patchwave.execution.executor import StageExecutor
from patchwave.execution.stopping import STOPPER, StillHalted, Stopper, Try, refuse_unless_cleared
from patchwave.ledger.store import StageRow, StageState, StopWish
from patchwave.listeners import ended_by_hand
from tests.operators.stage import RUN, STAGE, Killed, Stage, Watched
from tests.simulator.conftest import Aws

FIRST = str(Try(task_instance="try-1", most=3))
LOG = logging.getLogger("stopping")


@pytest.fixture
def stage(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage(aws, "web")
    monkeypatch.setattr(stopping, "rules_of", lambda *_: (stage.rules, "weekly-linux"))
    return stage


def pausing(stage: Stage, seconds: float = 2.0) -> Callable[[float], None]:
    return lambda _: stage.aws.advance(seconds)


def installing(stage: Stage, holder: str = FIRST) -> StageExecutor:
    """A stage whose three hosts install."""
    executor = stage.executor(holder)
    stage.ledger.set_stage(executor.lease, StageState.PATCHING, reason="", at=stage.now)
    stage.until_step(executor, StepKind.INSTALL)
    stage.aws.advance(10)
    return executor


def wish(stage: Stage, holder: str = FIRST) -> StopWish:
    stage.ledger.wish_stop(RUN, STAGE, holder, at=stage.now, reason="the task was marked failed by hand")
    return next(one for one in stage.ledger.stop_wishes(RUN) if one.holder == holder)


def stopper(stage: Stage, *, gateway: Any = None, **changes: Any) -> Stopper:
    given = {"now": lambda: stage.now, "log": LOG, "pause": pausing(stage), **changes}
    return Stopper(ledger=stage.ledger, gateway=lambda: gateway or stage.gateway, **given)


def carry_out(stage: Stage, one: StopWish, **changes: Any) -> str:
    return stopper(stage, **changes).carry_out(one)


def cancelled(stage: Stage) -> list[str]:
    """What the world's own commands say."""
    rows = [row for row in stage.ledger.dispatches(RUN, STAGE) if row.command]
    return [
        row.step.value
        for row in rows
        if stage.gateway.commands(row.cell, [row.command])[row.command].status in ("Cancelled", "Cancelling")
    ]


def test_a_wish_cancels_what_is_in_flight_and_says_which_hosts_had_begun(stage: Stage) -> None:
    """And leaves each host in a state that the next try goes on from, the stage halted."""
    installing(stage)
    said = carry_out(stage, wish(stage))
    assert cancelled(stage) == ["install"]
    assert said.startswith("1 commands cancelled; 3 hosts had begun")
    row = stage.ledger.stage(RUN, STAGE)
    assert row.state is StageState.HALTED
    assert "marked failed by hand" in row.reason
    (entry,) = [one for one in stage.ledger.journal(RUN) if one.kind == "stage.stopped"]
    assert sorted(entry.data["begun"]) == sorted(stage.hosts)
    assert set(stage.states.values()) <= {S.TO_VERIFY, S.NEEDS_REBOOT}
    assert stage.ledger.stop_wishes(open_only=True) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_is_killed_while_it_stops_leaves_no_host_called_failed(stage: Stage, when: str) -> None:
    """Just before AWS is told to cancel, or just after: the next try knows why those Installs ended half-way."""
    installing(stage)

    def die(name: str) -> None:
        raise Killed(name)

    dying: Any = {when: die}
    stopper = stage.executor("try-2", gateway=Watched(stage.gateway, frozenset({"cancel"}), **dying))
    with pytest.raises(Killed):
        stopper.stop(looks=1, pause=lambda: None)
    (install,) = [row for row in stage.ledger.dispatches(RUN, STAGE) if row.step is StepKind.INSTALL]
    assert install.state is DispatchState.CANCELLED
    again = stage.executor("try-3")
    again.stop(looks=3, pause=lambda: stage.aws.advance(2))
    assert cancelled(stage) == ["install"]
    assert stage.to_the_end(again) == Done(classes={S.PATCHED: 3})


@pytest.mark.parametrize("when", ["before", "after", "after the hosts moved"])
def test_the_successor_of_a_stopper_that_was_killed_knows_which_hosts_had_begun(stage: Stage, when: str) -> None:
    """AWS says Cancelled of all of them alike then; it was written down before the call, and is in the one record that counts."""
    installing(stage)
    one = wish(stage)

    def die(name: str) -> None:
        raise Killed(name)

    dying: Any = {when.split()[0]: die}
    watched = frozenset({"record"}) if when == "after the hosts moved" else frozenset({"cancel"})
    if when == "after the hosts moved":
        records: list[str] = []
        dying = {"before": lambda name: records.append(name) if not records else die(name)}
    killed = Stopper(
        ledger=Watched(stage.ledger, watched, **dying), gateway=lambda: Watched(stage.gateway, watched, **dying),
        now=lambda: stage.now, log=LOG, pause=pausing(stage),
    )  # fmt: skip
    with pytest.raises(Killed):
        killed.carry_out(one)
    assert [entry.kind for entry in stage.ledger.journal(RUN) if entry.kind.startswith("stage.stop")] == ["stage.stopping"]
    stage.aws.advance(10)
    said = carry_out(stage, one)
    assert said.startswith("1 commands cancelled; 3 hosts had begun")
    (entry,) = [one for one in stage.ledger.journal(RUN) if one.kind == "stage.stopped"]
    assert sorted(entry.data["begun"]) == sorted(stage.hosts)
    assert len(entry.data["commands"]) == 1
    assert cancelled(stage) == ["install"]


def test_a_try_that_took_the_stage_after_the_stopper_looked_keeps_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person marked the task and cleared it at once: the wish is of the try before, and whoever looks next says so."""
    installing(stage)
    one, second = wish(stage), str(Try(task_instance="try-2", most=6))

    def taken_meanwhile(*_: Any) -> tuple[Any, str]:
        stage.ledger.acquire(RUN, STAGE, second, at=stage.now)
        return stage.rules, "weekly-linux"

    monkeypatch.setattr(stopping, "rules_of", taken_meanwhile)
    assert carry_out(stage, one) == ""
    assert stage.ledger.stage(RUN, STAGE).holder == second
    assert cancelled(stage) == []
    assert carry_out(stage, one).startswith("another try has the stage since")


def test_a_second_stop_does_not_tell_of_the_first_one(stage: Stage) -> None:
    """The stage was cleared in between: what had begun then is the first record's."""
    installing(stage)
    carry_out(stage, wish(stage))
    second = str(Try(task_instance="try-2", most=6))
    executor = stage.executor(second)
    stage.ledger.set_stage(executor.lease, StageState.PATCHING, reason="", at=stage.now)
    assert carry_out(stage, wish(stage, second)) == "nothing was in flight"


def test_after_a_stop_nothing_more_is_sent_until_somebody_clears(stage: Stage) -> None:
    """The killed try may still be alive: it loses the lease before its next effect."""
    orphan = installing(stage)
    carry_out(stage, wish(stage))
    sent = len(stage.ledger.dispatches(RUN, STAGE))
    with pytest.raises(LeaseLost):
        orphan.advance()
    assert len(stage.ledger.dispatches(RUN, STAGE)) == sent
    end = stage.to_the_end(stage.executor(str(Try(task_instance="try-2", most=6))))
    assert isinstance(end, Done)
    assert set(stage.states.values()) == {S.PATCHED}


def test_a_clear_during_a_package_transaction_waits_for_its_end(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS says Cancelled at once; on the host the transaction goes on, and a Scan meanwhile ends with the lock's exit code."""
    stage = Stage(aws, "web", error_budget=0)
    monkeypatch.setattr(stopping, "rules_of", lambda *_: (stage.rules, "weekly-linux"))
    installing(stage)
    stage.aws.advance(40)
    carry_out(stage, wish(stage), pause=pausing(stage, 5))
    second = stage.executor(str(Try(task_instance="try-2", most=6)))
    second.advance()
    stage.aws.advance(25)
    wait = second.advance()
    assert isinstance(wait, Wait)
    assert "another patch run is at work on 3" in wait.reason
    assert isinstance(stage.to_the_end(second), Done)
    assert set(stage.states.values()) == {S.PATCHED}
    assert stage.begun("Install") == dict.fromkeys(stage.hosts, 1)


def test_a_host_that_had_not_begun_is_told_apart(stage: Stage) -> None:
    """Its agent is silent, so the Install still waits for it."""
    executor = stage.executor(FIRST)
    stage.ledger.set_stage(executor.lease, StageState.PATCHING, reason="", at=stage.now)
    silent = stage.hosts[0]
    executor.advance()
    stage.aws.advance(120)
    stage.aws.control("faults", {"kind": "agent_dead", "host": silent})
    executor.advance()
    stage.aws.advance(10)
    carry_out(stage, wish(stage))
    (entry,) = [one for one in stage.ledger.journal(RUN) if one.kind == "stage.stopped"]
    assert entry.data["not_begun"] == [silent]
    assert sorted(entry.data["begun"]) == sorted(set(stage.hosts) - {silent})


def test_a_command_whose_answer_was_lost_is_found_and_cancelled(stage: Stage) -> None:
    """The intent stands in the ledger, AWS has the command: killed in between, it must not go on unseen."""
    send = stage.gateway.send

    def lost(*args: Any, **kwargs: Any) -> Any:
        send(*args, **kwargs)
        raise OutcomeUnknown("the connection was reset")

    executor = stage.executor(FIRST, gateway=SimpleGateway(stage, send=lost))
    stage.ledger.set_stage(executor.lease, StageState.PATCHING, reason="", at=stage.now)
    executor.advance()
    assert [row.state for row in stage.ledger.dispatches(RUN, STAGE)] == [DispatchState.INTENDED]
    stage.aws.advance(5)
    carry_out(stage, wish(stage))
    assert cancelled(stage) == ["scan"]
    assert set(stage.states.values()) == {S.PLANNED}


def test_an_intent_that_was_never_sent_is_taken_back(stage: Stage) -> None:
    """Once it is certain; the next try then begins it anew, under another token."""

    def never(*args: Any, **kwargs: Any) -> Any:
        raise OutcomeUnknown("the connection was reset")

    executor = stage.executor(FIRST, gateway=SimpleGateway(stage, send=never))
    stage.ledger.set_stage(executor.lease, StageState.PATCHING, reason="", at=stage.now)
    executor.advance()
    carry_out(stage, wish(stage), pause=pausing(stage, 20))
    assert [row.state for row in stage.ledger.dispatches(RUN, STAGE)] == [DispatchState.CANCELLED]
    assert set(stage.states.values()) == {S.PLANNED}
    assert isinstance(stage.to_the_end(stage.executor("try-2#6")), Done)


class SimpleGateway:
    """The stage's gateway with some methods replaced."""

    def __init__(self, stage: Stage, **replaced: Any) -> None:
        self._stage, self._replaced = stage, replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(self._stage.gateway, name)


def test_a_wish_of_a_try_that_has_a_successor_is_void(stage: Stage) -> None:
    """The clear that followed has taken the stage over; what it does is its own."""
    installing(stage)
    one = wish(stage)
    stage.lease("try-2#6")
    assert "another try" in carry_out(stage, one)
    assert cancelled(stage) == []


def test_a_stop_that_aws_refuses_stays_wished(stage: Stage) -> None:
    """Whoever looks next tries again."""
    installing(stage)
    one = wish(stage)

    def down(*_: Any, **__: Any) -> Any:
        raise AwsUnavailable("down")

    assert stopper(stage, gateway=SimpleGateway(stage, cancel=down)).sweep() == []
    assert stage.ledger.stop_wishes(open_only=True) == [one]
    (said,) = stopper(stage).sweep()
    assert said.startswith("1 commands cancelled")


# --- a process is told to stop ----------------------------------------------------------------------------------------------
def told(stage: Stage, *, task_state: Callable[[], str | None] | None = None, patience: int = 3) -> str:
    return stopper(stage).after_kill(RUN, STAGE, FIRST, task_state=task_state, patience=patience)


def test_told_to_stop_while_nobody_acted_stops_nothing(stage: Stage) -> None:
    """A stalled triggerer that wakes up gets `on_kill`, too; the task is deferred as before."""
    installing(stage)
    assert told(stage, task_state=lambda: "deferred") == ""
    assert told(stage) == ""
    assert cancelled(stage) == []


def test_told_to_stop_with_a_wish_carries_it_out(stage: Stage) -> None:
    """The wish may come a moment later than the word to stop."""
    installing(stage)
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            wish(stage)
        stage.aws.advance(2)

    said = stopper(stage, pause=pause).after_kill(RUN, STAGE, FIRST, patience=3)
    assert "3 hosts had begun" in said
    assert cancelled(stage) == ["install"]


def test_a_task_that_ended_without_a_wish_is_stopped_all_the_same(stage: Stage) -> None:
    """Where the listener is not there, Airflow's word of the state is proof enough."""
    installing(stage)
    assert "cancelled" in told(stage, task_state=lambda: "failed")
    assert cancelled(stage) == ["install"]


def test_told_to_stop_after_a_clear_leaves_it_to_the_new_try(stage: Stage) -> None:
    """The new try may begin before the old trigger is told (reference: triggers, on_kill)."""
    installing(stage)
    stage.lease("try-2#6")
    assert told(stage, task_state=lambda: "failed") == ""
    assert cancelled(stage) == []


@pytest.mark.parametrize(("before", "now", "cleared"), [
    (None, "b#3", False),
    ("a#3", "a#3", False),  # the same try, after a deferral
    ("a#3", "b#3", False),  # a retry, or a reset by Airflow
    ("a#3", "b#6", True),
    ("stop of a#3", "b#6", True),
    ("somebody", "b#6", False),
])  # fmt: skip
def test_a_clear_is_told_from_a_retry(before: str | None, now: str, cleared: bool) -> None:
    """Airflow lets a cleared task have more tries; a retry or a reset does not change that number."""
    assert stopping.was_cleared(before, now) is cleared


def test_stopping_and_sending_cannot_pass_each_other(stage: Stage) -> None:
    """Whatever the killed try is about to do, once the stopper has the lease it does it no more."""
    executor = stage.executor(FIRST)
    stage.ledger.set_stage(executor.lease, StageState.PATCHING, reason="", at=stage.now)
    one = wish(stage)
    ledger = Watched(stage.ledger, frozenset({"check"}), before=lambda _: carry_out(stage, one))
    late = StageExecutor(
        ledger=ledger, gateway=stage.gateway, lease=executor.lease, rules=stage.rules, campaign="weekly-linux",
        now=lambda: stage.now, log=LOG,
    )  # fmt: skip
    with pytest.raises(LeaseLost):
        late.advance()
    stage.aws.advance(120)
    assert sum(stage.begun("Scan").values()) == 0


# --- the listener -------------------------------------------------------------------------------------------------------------
def an_instance(**changes: Any) -> Any:
    given = {
        "operator": "PatchStageOperator", "dag_id": "weekly-linux", "run_id": "manual__2026-01-05", "task_id": "dev.patch",
        "id": "try-1", "max_tries": 3, **changes,
    }  # fmt: skip
    return SimpleNamespace(**given)


@pytest.fixture
def noticed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(ended_by_hand.Ended, "carry_on", lambda self: found.append(self))
    return found


@pytest.mark.parametrize("call", [
    lambda ti: ended_by_hand.on_task_instance_failed(previous_state=None, task_instance=ti, error="set"),
    lambda ti: ended_by_hand.on_task_instance_success(previous_state=None, task_instance=ti),
    lambda ti: ended_by_hand.on_task_instance_skipped(previous_state=None, task_instance=ti),
])  # fmt: skip
def test_a_mark_of_a_person_is_noticed(noticed: list[Any], call: Callable[[Any], None]) -> None:
    """Under the name that the try gives itself in the ledger."""
    call(an_instance())
    (one,) = noticed
    assert (one.run, one.stage, one.holder) == (RUN, STAGE, FIRST)


def test_what_ends_by_itself_is_no_wish(noticed: list[Any]) -> None:
    """Workers and the scheduler call the same hooks, with the state before; and other tasks have nothing in flight."""
    ended_by_hand.on_task_instance_failed(previous_state="running", task_instance=an_instance(), error="broke")
    ended_by_hand.on_task_instance_success(previous_state=None, task_instance=an_instance(operator="SoakOperator"))
    assert noticed == []


@pytest.fixture
def naps(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The api-server at this stage; how long it slept."""
    found: list[float] = []
    nap = SimpleNamespace(sleep=lambda seconds: (found.append(seconds), stage.aws.advance(seconds)))
    monkeypatch.setattr(ended_by_hand, "time", nap)
    monkeypatch.setattr("patchwave.hooks.ledger.ledger", lambda: stage.ledger)
    monkeypatch.setattr("patchwave.hooks.clock.now", lambda: stage.now)
    monkeypatch.setattr("patchwave.hooks.aws.PatchwaveAwsHook", lambda: SimpleNamespace(gateway=lambda: stage.gateway))
    return found


def test_the_api_server_does_it_when_nobody_else_has(stage: Stage, naps: list[float]) -> None:
    """No triggerer, no worker: it waits for them first, and not so long that the stop would not be over within 30 s."""
    installing(stage)
    ended_by_hand.Ended(run=RUN, stage=STAGE, task_instance="try-1", most=3, how="marked failed").carry_on()
    assert naps[0] == ended_by_hand.OTHERS_FIRST
    assert sum(naps) < 30
    assert cancelled(stage) == ["install"]
    assert stage.ledger.stage(RUN, STAGE).state is StageState.HALTED


def test_the_api_server_leaves_whoever_has_begun_alone(stage: Stage, naps: list[float]) -> None:
    """For as long as a stop takes; if it is not over then, its process has died, and the api-server goes on with it."""
    installing(stage)
    stage.ledger.acquire(RUN, STAGE, stopping.STOPPER + FIRST, at=stage.now)
    ended_by_hand.Ended(run=RUN, stage=STAGE, task_instance="try-1", most=3, how="marked failed").carry_on()
    looks = [pause for pause in naps if pause not in (0.0, stopping.BETWEEN)]
    assert looks[:2] == [ended_by_hand.OTHERS_FIRST, ended_by_hand.AGAIN[1]]
    assert looks[1] > stopping.LOOKS * stopping.BETWEEN
    assert cancelled(stage) == ["install"]


def test_a_triggerer_carries_out_what_is_left(stage: Stage, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The api-server wrote the wish and died; a younger wish is still somebody else's."""
    monkeypatch.setattr("patchwave.hooks.clock.speed", lambda: 1.0)
    installing(stage)
    wish(stage)
    ended_by_hand.sweep_what_is_left()
    assert cancelled(stage) == []
    stage.aws.advance(ended_by_hand.LEFT.total_seconds())
    assert sum(ended_by_hand.AGAIN, ended_by_hand.OTHERS_FIRST) < ended_by_hand.LEFT.total_seconds()
    ended_by_hand.sweep_what_is_left()
    assert cancelled(stage) == ["install"]
    assert stage.ledger.stage(RUN, STAGE).state is StageState.HALTED


def test_only_a_triggerer_looks_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow calls the hook in the scheduler, in the DAG processor and in each task, too."""
    begun: list[str] = []
    monkeypatch.setattr(ended_by_hand.threading.Thread, "start", lambda thread: begun.append(thread.name))
    for command in ("scheduler", "triggerer", "dag-processor"):
        monkeypatch.setattr("sys.argv", ["airflow", command, "--skip-serve-logs"])
        ended_by_hand.on_starting(component=None)
    assert begun == ["stop what is left"]


def test_the_comment_says_whose_command_it_is() -> None:
    """So that a person in AWS's console knows whom to ask before cancelling it there."""
    assert comment_for("a" * 32, campaign="weekly-linux", stage="dev", step=StepKind.SCAN).split()[0] == "patchwave"


# --- who may begin a halted stage again ---------------------------------------------------------------------------------------
def a_halted_stage(holder: str) -> StageRow:
    return StageRow(
        run=RUN, stage=STAGE, position=0, state=StageState.HALTED, reason="error budget: 3 hosts failed", fencing=4, holder=holder
    )


@pytest.mark.parametrize("stopped", ["", STOPPER])
def test_only_a_clear_opens_a_halted_stage_again(stopped: str) -> None:
    """Airflow begins tasks again by itself, when it lost the end of a try; that is nobody's word that the errors are mended."""
    before = a_halted_stage(stopped + str(Try(task_instance="b", most=60)))
    refuse_unless_cleared(before, str(Try(task_instance="c", most=61)))
    for same in ("b", "c"):
        with pytest.raises(StillHalted, match=r"nobody has cleared its task since\. error budget: 3 hosts failed"):
            refuse_unless_cleared(before, str(Try(task_instance=same, most=60)))


def test_an_orphan_of_before_the_clear_does_not_pass_for_a_clear() -> None:
    """The stage was cleared and has halted once more; a try that slept through all of that wakes up."""
    with pytest.raises(StillHalted):
        refuse_unless_cleared(a_halted_stage(str(Try(task_instance="c", most=61))), str(Try(task_instance="a", most=60)))


def test_a_stage_that_is_not_halted_is_anybodys_to_go_on_with() -> None:
    """A retry, a reset, a second triggerer: the lease decides between them."""
    for state in set(StageState) - {StageState.HALTED}:
        refuse_unless_cleared(replace(a_halted_stage("b#60"), state=state), "c#60")


def test_a_halted_stage_is_not_taken_by_a_try_that_read_it_before(stage: Stage) -> None:
    """Between reading and taking the stage was stopped: what was read is not true any more."""
    installing(stage)
    before = stage.ledger.stage(RUN, STAGE)
    carry_out(stage, wish(stage))
    with pytest.raises(LeaseLost, match="has been taken by"):
        stage.ledger.acquire(RUN, STAGE, "try-9#60", at=stage.now, seen=before.fencing)
    now = stage.ledger.stage(RUN, STAGE)
    assert stage.ledger.acquire(RUN, STAGE, "try-9#61", at=stage.now, seen=now.fencing).fencing == now.fencing + 1
