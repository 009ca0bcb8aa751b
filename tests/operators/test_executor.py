"""How a stage is carried out against a simulated AWS, judged by what that says really happened to its hosts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from patchwave.campaign.errors import AwsUnavailable, InvalidRequest, LeaseLost, LedgerUnavailable
from patchwave.campaign.rollout import DispatchState, Done, Halt, HostState, StepKind, Wait
from patchwave.execution.executor import wait_for
from tests.domain.builders import CELL
from tests.operators.stage import LOOK, RUN, STAGE, Killed, Stage, Watched
from tests.simulator.conftest import Aws

S = HostState
EFFECTS = frozenset({"intend", "mark_dispatch", "move_hosts", "send", "cancel"})


def test_each_host_gets_one_install_one_reboot_and_is_proven_by_a_scan(aws: Aws) -> None:
    """The happy way, as the world saw it."""
    stage = Stage(aws, "web")
    end = stage.to_the_end(stage.executor("try-1"))
    assert end == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Install").values()) == {1}
    assert set(stage.reboots().values()) == {1}
    assert set(stage.begun("Scan").values()) == {2}
    assert all(row.missing_before and row.missing_after == 0 for row in stage.ledger.hosts(RUN, STAGE))


def test_hosts_of_all_sorts_end_in_their_own_class(aws: Aws) -> None:
    """Failed, unreachable, stopped, unknown to Systems Manager, already compliant: each is what it is."""
    stage = Stage(aws, "odd", "web")
    end = stage.to_the_end(stage.executor("try-1"))
    assert isinstance(end, Done)
    assert list(stage.states.values()) == [
        S.UNREACHABLE, S.STOPPED, S.UNREACHABLE, S.FAILED, S.ALREADY_COMPLIANT, S.PATCHED, S.PATCHED, S.PATCHED,
    ]  # fmt: skip
    assert [count for host, count in stage.begun("Install").items()] == [0, 0, 0, 1, 0, 1, 1, 1]
    failed = next(row for row in stage.ledger.hosts(RUN, STAGE) if row.state is S.FAILED)
    assert "missing" in failed.reason
    assert "Install failed" in failed.reason


def test_never_more_hosts_are_away_than_there_are_places(aws: Aws) -> None:
    """By the world's own record: with one place, one Install follows the other's reboot."""
    stage = Stage(aws, "web", places=1)
    stage.to_the_end(stage.executor("try-1"))
    away: set[str] = set()
    most = 0
    for line in aws.journal():
        if line["event"] == "command_begun" and line.get("operation") == "Install":
            away.add(line["host"])
        elif line["event"] == "reboot_ended":
            away.discard(line["host"])
        most = max(most, len(away))
    assert most == 1
    assert set(stage.begun("Install").values()) == {1}


def test_a_spent_error_budget_stops_before_the_next_host(aws: Aws) -> None:
    """Nothing is installed on anybody: the Scan before has spent the budget."""
    stage = Stage(aws, "odd", "web", error_budget=0)
    end = stage.to_the_end(stage.executor("try-1"))
    assert isinstance(end, Halt)
    assert end.rule == "error budget"
    assert set(stage.begun("Install").values()) == {0}
    assert {stage.states[host] for host in stage.hosts[-3:]} <= {S.PLANNED, S.READY}


def test_after_a_halt_that_a_person_cleared_the_others_are_patched(aws: Aws) -> None:
    """Once each: whoever failed before is not tried again."""
    stage = Stage(aws, "odd", "web", error_budget=0)
    stage.to_the_end(stage.executor("try-1"))
    halted = stage.now
    aws.advance(LOOK)
    end = stage.to_the_end(stage.executor("try-2", errors_since=halted))
    while isinstance(end, Halt):  # the host whose Install fails spends the budget again
        halted = stage.now
        aws.advance(LOOK)
        end = stage.to_the_end(stage.executor("try-3", errors_since=halted))
    assert [stage.states[host] for host in stage.hosts[-3:]] == [S.PATCHED] * 3
    assert max(stage.begun("Install").values()) == 1


@pytest.mark.parametrize("step", [StepKind.SCAN, StepKind.INSTALL, StepKind.REBOOT, StepKind.VERIFY])
def test_a_lost_answer_does_not_send_twice(aws: Aws, step: StepKind) -> None:
    """AWS has taken the command and answered 500: it is looked up by its token and adopted."""
    stage = Stage(aws, "web")
    executor = stage.executor("try-1")
    count = list(StepKind).index(step)

    def lose(name: str) -> None:
        if len(stage.ledger.dispatches(RUN, STAGE)) == count + 1:
            aws.control("faults", {"kind": "lost_answer", "service": "ssm", "operation": "SendCommand", "times": 1})

    executor = stage.executor("try-1", gateway=Watched(stage.gateway, frozenset({"send"}), before=lose))
    waits: list[Wait] = []
    assert stage.to_the_end(executor, waits=waits) == Done(classes={S.PATCHED: 3})
    assert any("was lost" in wait.reason for wait in waits)
    assert set(stage.begun("Install").values()) == {1}
    assert set(stage.begun("Scan").values()) == {2}
    assert set(stage.reboots().values()) == {1}
    adopted = [entry for entry in stage.ledger.journal(RUN) if entry.data.get("reason") == "adopted"]
    assert len(adopted) == 1


def test_a_call_that_never_arrived_is_made_again_once_that_is_sure(aws: Aws) -> None:
    """AWS answered 500 and did nothing: the intent is waited for, then sent under the same token."""
    stage = Stage(aws, "web")
    fault = {"kind": "error", "service": "ssm", "operation": "SendCommand", "times": 1, "code": "InternalServerError"}
    aws.control("faults", fault)
    first = stage.executor("try-1").advance()
    assert isinstance(first, Wait)
    soon = stage.executor("try-1").advance()
    assert isinstance(soon, Wait)
    assert "not known yet" in soon.reason
    assert soon.until == stage.ledger.dispatches(RUN, STAGE)[0].intended_at + timedelta(seconds=60)
    assert set(stage.begun("Scan").values()) == {0}
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Scan").values()) == {2}


def test_throttling_is_waited_out_and_said(aws: Aws) -> None:
    """The wait names it, and nothing is sent meanwhile."""
    stage = Stage(aws, "web")
    aws.control("faults", {"kind": "throttle", "service": "ssm", "operation": "SendCommand", "times": 1})
    waits: list[Wait] = []
    assert stage.to_the_end(stage.executor("try-1"), waits=waits) == Done(classes={S.PATCHED: 3})
    assert "throttles SendCommand" in waits[0].reason
    assert waits[0].until == stage.ledger.dispatches(RUN, STAGE)[0].intended_at + timedelta(seconds=30)
    assert set(stage.begun("Install").values()) == {1}


def test_one_bad_id_does_not_keep_the_others_from_their_command(aws: Aws) -> None:
    """AWS refuses the whole call for a host that was terminated a moment ago; it is found, the others go on alone."""
    stage = Stage(aws, "web")
    gone = stage.hosts[1]

    def terminate(_: str) -> None:
        if not stage.ledger.dispatches(RUN, STAGE)[1:]:
            aws.ec2.terminate_instances(InstanceIds=[gone])

    executor = stage.executor("try-1", gateway=Watched(stage.gateway, frozenset({"send"}), before=terminate))
    end = stage.to_the_end(executor)
    assert isinstance(end, Done)
    assert [stage.states[host] for host in stage.hosts if host != gone] == [S.PATCHED, S.PATCHED]
    assert stage.states[gone] in (S.UNREACHABLE, S.TERMINATED)
    assert stage.ledger.dispatches(RUN, STAGE)[0].state is DispatchState.REFUSED


def test_a_refusal_that_names_nobody_is_followed_by_single_sends(aws: Aws) -> None:
    """Each host alone: whoever is refused then is the one."""
    stage = Stage(aws, "web")
    refusal = {"times": 1, "code": "InvalidInstanceId", "status": 400}
    aws.control("faults", {"kind": "error", "service": "ssm", "operation": "SendCommand", **refusal})
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={S.PATCHED: 3})
    scans = [row for row in stage.ledger.dispatches(RUN, STAGE) if row.step is StepKind.SCAN]
    assert [(len(row.hosts), row.attempt) for row in scans] == [(3, 1), (1, 2), (1, 2), (1, 2)]


def test_denied_access_settles_the_hosts_and_spends_the_budget(aws: Aws) -> None:
    """Nobody was touched, and nobody is silently left out."""
    stage = Stage(aws, "web", error_budget=0)
    aws.control("faults", {"kind": "access_denied", "service": "ssm", "operation": "SendCommand"})
    end = stage.to_the_end(stage.executor("try-1"))
    assert isinstance(end, Halt)
    assert set(stage.states.values()) == {S.UNREACHABLE}
    assert set(stage.begun("Scan").values()) == {0}


def test_a_request_that_aws_does_not_understand_is_raised_and_leaves_the_hosts_where_they_were(aws: Aws) -> None:
    """It is our mistake, not the hosts'; a mended version goes on."""
    stage = Stage(aws, "web")
    aws.control(
        "faults",
        {"kind": "error", "service": "ssm", "operation": "SendCommand", "times": 1, "code": "InvalidDocument", "status": 400},
    )
    with pytest.raises(InvalidRequest, match="InvalidDocument"):
        stage.executor("try-1").advance()
    assert set(stage.states.values()) == {S.PLANNED}
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 3})


@pytest.mark.parametrize(
    "operation", [("ec2", "DescribeInstances"), ("ssm", "DescribeInstanceInformation"), ("ssm", "ListCommandInvocations")]
)
def test_nothing_is_decided_on_half_of_the_facts(aws: Aws, operation: tuple[str, str]) -> None:
    """A look that failed is an error for Airflow's retries, never a host that is gone."""
    stage = Stage(aws, "web")
    executor = stage.executor("try-1")
    if operation[1] == "ListCommandInvocations":
        stage.until_step(executor, StepKind.INSTALL)
        stage.until_over(StepKind.INSTALL)
    before, journal = stage.states, len(aws.journal())
    service, name = operation
    aws.control("faults", {"kind": "error", "service": service, "operation": name, "code": "InternalServerError"})
    with pytest.raises(AwsUnavailable):
        executor.advance()
    assert stage.states == before
    assert len(aws.journal()) == journal


def test_without_the_ledger_nothing_is_sent(aws: Aws) -> None:
    """It fails closed: what cannot be written down is not done."""
    stage = Stage(aws, "web")
    executor = stage.executor("try-1")
    stage.ledger.available = False
    with pytest.raises(LedgerUnavailable):
        executor.advance()
    stage.ledger.available = True
    aws.advance(LOOK)
    assert aws.journal() == []


# --- two at once ------------------------------------------------------------------------------------------------------------
def test_whoever_lost_the_lease_steps_back_before_its_next_effect(aws: Aws) -> None:
    """Two tries of one task: the younger holds the stage, the older sends nothing any more."""
    stage = Stage(aws, "web")
    old = stage.executor("try-1")
    stage.until_step(old, StepKind.SCAN)
    aws.advance(LOOK)
    new = stage.executor("try-2")
    with pytest.raises(LeaseLost):
        old.advance()
    aws.advance(LOOK)
    assert set(stage.begun("Install").values()) == {0}
    assert stage.to_the_end(new) == Done(classes={S.PATCHED: 3})
    with pytest.raises(LeaseLost):
        stage.ledger.check(old.lease)


def test_a_take_over_between_intent_and_call_sends_once(aws: Aws) -> None:
    """The old one sees it in its last check; the new one waits until it is sure, and sends."""
    stage = Stage(aws, "web")

    def take_over(_: str) -> None:
        if any(row.step is StepKind.INSTALL for row in stage.ledger.dispatches(RUN, STAGE)):
            stage.lease("try-2")

    old = stage.executor("try-1", ledger=Watched(stage.ledger, frozenset({"intend"}), after=take_over))
    with pytest.raises(LeaseLost):
        stage.to_the_end(old)
    aws.advance(LOOK)  # a command that was sent after all would have begun by now
    assert set(stage.begun("Install").values()) == {0}
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Install").values()) == {1}


def test_a_take_over_during_the_call_adopts_the_command(aws: Aws) -> None:
    """The call is on its way when the lease changes hands: it is found by its token and not made again."""
    stage = Stage(aws, "web")

    def take_over(_: str) -> None:
        if any(row.step is StepKind.INSTALL for row in stage.ledger.dispatches(RUN, STAGE)):
            stage.lease("try-2")

    old = stage.executor("try-1", gateway=Watched(stage.gateway, frozenset({"send"}), before=take_over))
    with pytest.raises(LeaseLost):
        stage.to_the_end(old)
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Install").values()) == {1}


# --- killed at any moment ------------------------------------------------------------------------------------------------------
def test_a_process_killed_at_any_effect_is_continued_without_sending_anything_twice(start: Callable[[], Aws]) -> None:
    """Rule 5: after the n-th write or call, for every n, the next process ends the stage with one Install a host."""
    point = 0
    while True:
        point += 1
        stage = Stage(start(), "web")
        left = point

        def kill(name: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed(name)

        dying = stage.executor(
            "try-1", ledger=Watched(stage.ledger, EFFECTS, after=kill), gateway=Watched(stage.gateway, EFFECTS, after=kill)
        )
        where = f"killed after effect {point}"
        try:
            assert stage.to_the_end(dying) == Done(classes={S.PATCHED: 3})
            break
        except Killed as killed:
            where = f"killed after effect {point}, {killed}"
        assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 3}), where
        assert set(stage.begun("Install").values()) == {1}, where
        assert set(stage.begun("Scan").values()) == {2}, where
        assert set(stage.reboots().values()) == {1}, where
    assert point > 15, "the stage has fewer effects than this test was written for"


def test_a_process_that_is_killed_again_and_again_still_ends_the_stage(aws: Aws) -> None:
    """A worker that dies after every fourth effect."""
    stage = Stage(aws, "web")
    effects = 0

    def kill(name: str) -> None:
        nonlocal effects
        effects += 1
        if effects % 4 == 0:
            raise Killed(name)

    for number in range(100):
        ledger, gateway = (Watched(one, EFFECTS, after=kill) for one in (stage.ledger, stage.gateway))
        try:
            end = stage.to_the_end(stage.executor(f"try-{number}", ledger=ledger, gateway=gateway))
            break
        except Killed:
            continue
    assert end == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Install").values()) == {1}
    assert set(stage.reboots().values()) == {1}


def test_a_third_process_waits_for_the_second_ones_call(aws: Aws) -> None:
    """What the first intended came to nothing, the second is about to send: the third must not send beside it."""
    stage = Stage(aws, "web")

    def die(name: str) -> None:
        raise Killed(name)

    for holder in ("try-1", "try-2"):
        with pytest.raises(Killed):
            stage.executor(holder, gateway=Watched(stage.gateway, frozenset({"send"}), before=die)).advance()
        aws.advance(61 if holder == "try-1" else 1)
    third = stage.executor("try-3")
    waits = third.advance()
    assert isinstance(waits, Wait)
    assert "not known yet" in waits.reason
    aws.advance(5)
    assert set(stage.begun("Scan").values()) == {0}
    assert stage.to_the_end(third) == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Install").values()) == {1}


def test_a_process_killed_over_a_refusal_leaves_no_host_behind(aws: Aws) -> None:
    """AWS refused the command, and whoever learned that died before it moved the hosts: they are begun again, not given up."""
    stage = Stage(aws, "web")
    aws.control("faults", {"kind": "access_denied", "service": "ssm", "operation": "SendCommand", "times": 1})

    def die(name: str) -> None:
        if any(row.state is DispatchState.REFUSED for row in stage.ledger.dispatches(RUN, STAGE)):
            raise Killed(name)

    with pytest.raises(Killed):
        stage.executor("try-1", ledger=Watched(stage.ledger, frozenset({"mark_dispatch"}), after=die)).advance()
    assert set(stage.states.values()) == {S.SCANNING}
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 3})


def test_an_intent_that_took_long_to_write_down_is_not_sent(aws: Aws) -> None:
    """Whoever takes over would soon take it for lost, and send beside us; so it is decided anew."""
    stage = Stage(aws, "web")
    slow = Watched(stage.ledger, frozenset({"intend"}), after=lambda _: aws.advance(20))
    waits = stage.executor("try-1", ledger=slow).advance()
    assert isinstance(waits, Wait)
    assert "not sent" in waits.reason
    aws.advance(10)
    assert set(stage.begun("Scan").values()) == {0}
    assert stage.to_the_end(stage.executor("try-2")) == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Scan").values()) == {2}


def test_a_command_that_was_sent_after_somebody_had_given_it_up_is_cancelled_at_once(aws: Aws) -> None:
    """The process slept between the last check of its lease and the call; its successor takes the intent for never sent and
    sends the step again. AWS knows no token, so the late command is taken back while it is still being delivered."""
    stage = Stage(aws, "web")
    stage.until_step(stage.executor("try-1"), StepKind.SCAN)
    aws.advance(LOOK)

    def sleep(name: str) -> None:
        aws.advance(1)
        successor = stage.executor("try-2", settling=timedelta(seconds=0))
        assert isinstance(successor.advance(), Wait)

    with pytest.raises(LeaseLost):
        stage.executor("try-1b", gateway=Watched(stage.gateway, frozenset({"send"}), before=sleep)).advance()
    mine, late = [row for row in aws.ssm.list_commands()["Commands"] if "install" in row["Comment"]][::-1]
    assert stage.to_the_end(stage.executor("try-3")) == Done(classes={S.PATCHED: 3})
    assert list(aws.details(late["CommandId"]).values()) == ["Cancelled"] * 3
    assert set(stage.begun("Install").values()) == {1}
    assert set(aws.details(mine["CommandId"]).values()) == {"Success"}
    (disowned,) = [entry.data for entry in stage.ledger.journal(RUN) if entry.kind == "dispatch.disowned"]
    assert disowned["command"] == late["CommandId"]


def test_a_command_that_its_successor_has_adopted_goes_on(aws: Aws) -> None:
    """The process lost its lease after the call was made: the command is the successor's, and nobody cancels it."""
    stage = Stage(aws, "web")

    def overtake(name: str) -> None:
        aws.advance(5)
        assert isinstance(stage.executor("try-2").advance(), Wait)

    with pytest.raises(LeaseLost):
        stage.executor("try-1", gateway=Watched(stage.gateway, frozenset({"send"}), after=overtake)).advance()
    assert stage.to_the_end(stage.executor("try-3")) == Done(classes={S.PATCHED: 3})
    assert set(stage.begun("Scan").values()) == {2}
    assert set(stage.begun("Install").values()) == {1}


# --- what a trigger has read ------------------------------------------------------------------------------------------------
def test_what_a_trigger_has_read_is_not_asked_for_again(aws: Aws) -> None:
    """Its invocations are AWS's words of a moment ago; those that ended stay as they are."""
    stage = Stage(aws, "web")
    stage.until_step(stage.executor("try-1"), StepKind.INSTALL)
    (row,) = [row for row in stage.ledger.dispatches(RUN, STAGE) if row.step is StepKind.INSTALL]
    stage.until_over(StepKind.INSTALL)
    told = {row.command: stage.gateway.invocations(CELL, row.command, row.token)}
    stage.gateway.take_calls()
    stage.executor("try-1", told=told).advance()
    calls = stage.gateway.take_calls()
    assert calls == {"ssm:DescribeInstancePatchStates": 1, "ssm:SendCommand": 1}
    assert set(stage.states.values()) == {S.REBOOTING}
    (row,) = [row for row in stage.ledger.dispatches(RUN, STAGE) if row.step is StepKind.INSTALL]
    assert row.ended_at == max(one.ended for one in told[row.command])


def test_a_command_without_news_is_left_alone_at_the_first_look_only(aws: Aws) -> None:
    """The trigger looked a moment ago; whoever looks again later asks."""
    stage = Stage(aws, "web")
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.SCAN)
    (row,) = stage.ledger.dispatches(RUN, STAGE)
    aws.advance(LOOK)
    stage.gateway.take_calls()
    later = stage.executor("try-1", looked={row.command: stage.now})
    assert isinstance(later.advance(), Wait)
    assert not stage.gateway.take_calls()
    assert later.looked == {row.command: stage.now}
    later.advance()
    assert stage.gateway.take_calls()["ssm:ListCommands"] == 1
    assert set(stage.states.values()) == {S.INSTALLING}


def test_of_whom_nothing_was_asked_nothing_is_judged(aws: Aws) -> None:
    """The step's limit has passed since the trigger looked: whoever did not look himself does not know that no word came."""
    stage = Stage(aws, "web", step_limit=dict.fromkeys(StepKind, timedelta(minutes=10)))
    stage.until_step(stage.executor("try-1"), StepKind.SCAN)
    (row,) = stage.ledger.dispatches(RUN, STAGE)
    looked = stage.now
    aws.advance(3600)
    stage.executor("try-1", looked={row.command: looked}).advance()
    assert set(stage.states.values()) == {S.SCANNING}
    stage.executor("try-1").advance()
    assert set(stage.states.values()) == {S.INSTALLING}


# --- waits ------------------------------------------------------------------------------------------------------------------
def test_what_is_given_up_is_cancelled_too(aws: Aws) -> None:
    """A step beyond its limit does not go on behind our back, and the host counts as unreachable, not as patched."""
    limits = dict.fromkeys(StepKind, timedelta(hours=1)) | {StepKind.INSTALL: timedelta(seconds=30)}
    stage = Stage(aws, "web", step_limit=limits)
    executor = stage.executor("try-1")
    stage.until_step(executor, StepKind.INSTALL)
    aws.advance(40)
    executor.advance()
    assert set(stage.states.values()) == {S.UNREACHABLE}
    (install,) = [row for row in stage.ledger.dispatches(RUN, STAGE) if row.step is StepKind.INSTALL]
    assert set(aws.details(str(install.command)).values()) <= {"Cancelling", "Cancelled"}


def test_a_host_that_does_not_come_back_from_its_reboot_is_not_patched(aws: Aws) -> None:
    """One of three: it is unreachable and says why, the others are patched."""
    stage = Stage(aws, "web")
    aws.control("faults", {"kind": "reboot_never_returns", "times": 1})
    assert stage.to_the_end(stage.executor("try-1")) == Done(classes={S.PATCHED: 2, S.UNREACHABLE: 1})
    (lost,) = [row for row in stage.ledger.hosts(RUN, STAGE) if row.state is S.UNREACHABLE]
    assert "reboot" in lost.reason


def test_a_short_wait_is_looked_at_again_in_place(aws: Aws) -> None:
    """Where a deferral would cost more than the wait: the answer of `look_again` decides."""
    stage = Stage(aws, "web")
    asked: list[Wait] = []

    def look_again(wait: Wait) -> bool:
        asked.append(wait)
        aws.advance(LOOK)
        return True

    assert stage.executor("try-1", look_again=look_again).advance() == Done(classes={S.PATCHED: 3})
    assert asked
    assert all(wait.reason and wait.ends for wait in asked)


def test_a_wait_names_the_commands_that_a_trigger_watches(aws: Aws) -> None:
    """By cell, and only what AWS has: of what has ended nothing is left to watch."""
    stage = Stage(aws, "web")
    wait = stage.executor("try-1").advance()
    assert isinstance(wait, Wait)
    (row,) = stage.ledger.dispatches(RUN, STAGE)
    watched = wait_for(wait, [row], stage.ledger.hosts(RUN, STAGE))
    assert {cell: {command: one["known"] for command, one in its.items()} for cell, its in watched.items()} == {
        "111111111111/eu-central-1": {row.command: 0}
    }
    stage.until_over(StepKind.SCAN)
    later = stage.executor("try-1").advance()
    assert isinstance(later, Wait)
    scan, install = stage.ledger.dispatches(RUN, STAGE)
    for one, open_ones in ((wait, set()), (later, {install.command})):
        watched = wait_for(one, [scan, install], stage.ledger.hosts(RUN, STAGE))
        assert {command for ids in watched.values() for command in ids} == open_ones
