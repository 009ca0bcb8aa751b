"""Go on, wait or stop: the laws of a stage, whatever AWS, hosts and people do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchwave.campaign import rollout
from patchwave.campaign.errors import IllegalMove
from patchwave.campaign.fleet import Host, InstanceState, Ping
from patchwave.campaign.rollout import (
    DispatchState,
    Done,
    Halt,
    HostRow,
    HostState,
    Invocation,
    Move,
    Observation,
    Outcome,
    PatchState,
    StepKind,
    Wait,
)
from patchwave.campaign.windows import Span
from tests.domain.builders import CELL, FAR, NOW, RUN, STAGE, a_dispatch, a_host, a_report, a_row, host_id, later, the_rules
from tests.domain.rollout_story import Player, Story, Turn, holding

S, O = HostState, Outcome  # noqa: E741


@st.composite
def stories(draw: st.DrawFn, *, most_clears: int = 2) -> Story:
    """A stage played to its end."""
    choose = draw(st.randoms(use_true_random=False))
    return Player(
        choose, hosts=draw(st.integers(1, 9)), kindness=draw(st.sampled_from([0.3, 0.7, 0.9, 1.0])),
        clears=draw(st.integers(0, most_clears)),
    ).play()  # fmt: skip


played = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def sends(turn: Turn, *steps: StepKind) -> list[rollout.Dispatch]:
    return [one for one in turn.decision if one.step in steps] if isinstance(turn.decision, tuple) else []


# --- whatever happens -------------------------------------------------------------------------------------------------------
@played
@given(stories())
def test_never_more_hosts_are_in_flight_than_there_are_places(story: Story) -> None:
    """In every failure domain and in the stage, at every moment (rule 1)."""
    for turn in story.turns:
        flying = [row for row in story.rows_after(turn) if row.state in rollout.IN_FLIGHT]
        for domain, places in story.rules.places.items():
            assert sum(1 for row in flying if domain in row.domains) <= places


@played
@given(stories())
def test_no_install_is_sent_into_a_place_that_a_failed_host_holds(story: Story) -> None:
    """Failed, unreachable and not rebooted hosts, and those unhealthy before we came, keep their place until they are well:
    in each of a host's domains, of which one that appeared meanwhile may have some that the plan does not know (rule 1)."""
    for turn in story.turns:
        begun = {host for one in sends(turn, StepKind.INSTALL) for host in one.hosts}
        after = story.rows_after(turn)
        before, held = holding(turn.rows, turn), holding(after, turn)
        for row in after:
            for domain in row.domains if row.host in begun else ():
                # Who is missing in a domain already takes nothing more from it.
                if row.host not in before.get(domain, ()):
                    assert len(held[domain]) <= story.rules.places.get(domain, 1)


@played
@given(stories())
def test_nothing_further_is_begun_once_the_error_budget_is_spent(story: Story) -> None:
    """Judged before each further Scan or Install; what has begun still gets its reboot and its Scan."""
    for turn in story.turns:
        spent = [
            row for row in turn.rows
            if row.state in rollout.ERRORS and (turn.errors_since is None or row.since > turn.errors_since)
        ]  # fmt: skip
        if sends(turn, StepKind.SCAN, StepKind.INSTALL):
            assert len(spent) <= story.rules.error_budget


@played
@given(stories())
def test_no_host_gets_a_second_install(story: Story) -> None:
    """A refused command touched nobody; every other Install is the host's only one."""
    installed = [host for row in story.sent(StepKind.INSTALL) for host in row.hosts]
    assert len(installed) == len(set(installed))


@played
@given(stories())
def test_every_host_ends_in_exactly_one_class_and_the_classes_sum_to_the_hosts(story: Story) -> None:
    """A stage is done only when each planned host is settled (rule 2)."""
    if isinstance(story.end, Done):
        assert all(row.state in rollout.TERMINAL for row in story.rows.values())
        assert sum(story.end.classes.values()) == len(story.rows)
        assert set(story.end.classes) <= rollout.TERMINAL


@played
@given(stories())
def test_a_halted_stage_leaves_nobody_in_flight(story: Story) -> None:
    """What has begun is brought to its end before the stage reports that it stopped."""
    if isinstance(story.end, Halt):
        assert not [row for row in story.rows.values() if row.state in rollout.IN_FLIGHT or row.state is S.SCANNING]
        assert story.end.hosts
        assert story.end.reason
        assert story.end.advice


@played
@given(stories())
def test_terminal_classes_are_final(story: Story) -> None:
    """No move leaves one: what a report says today it says tomorrow; only who replaces a terminated host is named later."""
    left = [(move.before, move.after) for move in story.moves if move.before in rollout.TERMINAL]
    assert set(left) <= {(S.TERMINATED, S.REPLACED)}


@played
@given(stories())
def test_a_patched_host_has_a_scan_after_its_install_that_found_nothing(story: Story) -> None:
    """The class is the world's truth, not the command's status (rule 3)."""
    for host, row in story.rows.items():
        if row.state is S.PATCHED:
            proof = story.truth[host].scanned_after_install
            install = next(one for one in story.sent(StepKind.INSTALL) if host in one.hosts)
            assert proof is not None
            assert proof.compliant
            assert install.requested_at is not None
            assert proof.ended > install.requested_at


@played
@given(stories())
def test_every_wait_names_its_reason_and_its_end(story: Story) -> None:
    """A wait without a moment, or until a moment that has passed, explains nothing (rule 11)."""
    for turn in story.turns:
        if isinstance(turn.decision, Wait):
            assert turn.decision.reason
            assert turn.decision.ends
            assert turn.decision.until >= turn.at


@played
@given(stories())
def test_a_dispatch_has_one_cell_one_platform_and_at_most_fifty_hosts(story: Story) -> None:
    """SendCommand goes to one cell and takes 50 ids; a snapshot holds for one platform."""
    for turn in story.turns:
        of = {row.host: row for row in turn.rows}
        for one in sends(turn, *StepKind):
            assert 1 <= len(one.hosts) <= 50
            assert len(set(one.hosts)) == len(one.hosts)
            assert {of[host].cell for host in one.hosts} == {one.cell}
            assert {of[host].platform for host in one.hosts} == {one.platform}


@played
@given(stories())
def test_who_is_asked_twice_says_the_same(story: Story) -> None:
    """`decide` is a function of what is written down: whoever resumes decides as the one before would have."""
    for turn in story.turns[::3]:
        again = rollout.decide(
            story.rules,
            tuple(reversed(turn.rows)),
            _dispatches_at(story, turn),
            unhealthy_before=turn.unhealthy,
            recovered=turn.recovered,
            errors_since=turn.errors_since,
            now=turn.at,
        )
        assert type(again) is type(turn.decision)
        if isinstance(again, tuple):
            assert again == turn.decision


def _dispatches_at(story: Story, turn: Turn) -> dict[str, rollout.DispatchRow]:
    tokens = {one.token for earlier in story.turns[: story.turns.index(turn)] for one in sends(earlier, *StepKind)}
    return {token: row for token, row in story.dispatches.items() if token in tokens}


@played
@given(stories())
def test_no_host_is_begun_or_rebooted_that_would_not_be_through_before_the_window_closes(story: Story) -> None:
    """Before it opens nothing is sent that disrupts anybody, nor the Scan that would be the beginning of it (rule 7)."""
    window = story.rules.window
    for turn in story.turns:
        of = {row.host: row for row in turn.rows}
        for one in sends(turn, StepKind.SCAN, StepKind.INSTALL, StepKind.REBOOT) if window else ():
            assert window is not None
            assert window.opens <= turn.at
            assert all(turn.at + rollout.still_takes(story.rules, of[host]) <= window.closes for host in one.hosts)


@played
@given(stories())
def test_a_host_out_of_its_window_was_never_touched_and_says_what_comes_next(story: Story) -> None:
    """It is no error: nobody waited for it longer than it could have helped."""
    touched = {host for row in story.sent(StepKind.INSTALL) for host in row.hosts}
    for host, row in story.rows.items():
        if row.state is S.OUT_OF_WINDOW:
            assert story.rules.window is not None
            assert host not in touched
            assert "the next run takes it" in row.reason


@played
@given(stories())
def test_late_joiners_are_settled_like_all_others(story: Story) -> None:
    """They come last, in places of their own domains, and a stage is done only when they are settled, too (rule 2)."""
    if isinstance(story.end, Done):
        assert all(story.rows[host].state in rollout.TERMINAL for host in story.newcomers)
    for turn in story.turns:
        for one in sends(turn, StepKind.INSTALL):
            late = [host in story.newcomers for host in one.hosts]
            assert late == sorted(late)


@played
@given(stories())
def test_a_replaced_host_vanished_first_and_names_one_newcomer_of_its_group(story: Story) -> None:
    """Nobody stands in two places."""
    named = []
    for move in story.moves:
        if move.after is S.REPLACED:
            assert move.before is S.TERMINATED
            (new,) = [host for host in story.newcomers if host in move.reason]
            assert f"asg:{CELL}/web" in story.rows[move.host].domains
            assert story.newcomers[new].group == "web"
            named.append(new)
    assert len(named) == len(set(named))


@given(st.integers(1, 30), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_where_nothing_goes_wrong_everybody_is_patched_or_was_compliant(hosts: int, seed: int) -> None:
    """The rules never strand a host that AWS treats well."""
    story = Player(Random(seed), hosts=hosts, kindness=1.0).play()
    assert isinstance(story.end, Done)
    assert set(story.end.classes) <= {S.PATCHED, S.ALREADY_COMPLIANT}


# --- what an invocation and a report mean --------------------------------------------------------------------------------------
FRESH_CLEAN, FRESH_MISSING = a_report(), a_report(missing=2)
FRESH_REBOOT = a_report(pending_reboot=1)
STALE_CLEAN = a_report(ended=later(-1))
AFTER_INSTALL, AFTER_INSTALL_REBOOT = a_report(operation="Install"), a_report(operation="Install", pending_reboot=1)
STALE_INSTALL = a_report(operation="Install", ended=later(-1))

TABLE: list[tuple[StepKind, str, Outcome, PatchState | None, HostState | None]] = [
    # step, StatusDetails, outcome, report -> state (None: no word yet)
    (StepKind.SCAN, "InProgress", O.RUNNING, FRESH_CLEAN, None),
    (StepKind.SCAN, "Success", O.SUCCEEDED, FRESH_CLEAN, S.ALREADY_COMPLIANT),
    (StepKind.SCAN, "Success", O.SUCCEEDED, FRESH_MISSING, S.READY),
    (StepKind.SCAN, "Success", O.SUCCEEDED, FRESH_REBOOT, S.READY),
    (StepKind.SCAN, "Success", O.SUCCEEDED, STALE_CLEAN, None),
    (StepKind.SCAN, "Success", O.SUCCEEDED, AFTER_INSTALL, None),
    (StepKind.SCAN, "Success", O.SUCCEEDED, None, None),
    (StepKind.SCAN, "Failed", O.FAILED, FRESH_CLEAN, S.FAILED),
    (StepKind.SCAN, "ExecutionTimedOut", O.FAILED, None, S.FAILED),
    (StepKind.SCAN, "DeliveryTimedOut", O.UNDELIVERED, FRESH_CLEAN, S.UNREACHABLE),
    (StepKind.SCAN, "Undeliverable", O.UNDELIVERED, None, S.UNREACHABLE),
    (StepKind.SCAN, "Terminated", O.UNDELIVERED, None, S.UNREACHABLE),
    (StepKind.SCAN, "AccessDenied", O.DENIED, FRESH_CLEAN, S.UNREACHABLE),
    (StepKind.SCAN, "Cancelled", O.CANCELLED, FRESH_CLEAN, S.PLANNED),
    (StepKind.INSTALL, "InProgress", O.RUNNING, AFTER_INSTALL, None),
    (StepKind.INSTALL, "Success", O.SUCCEEDED, AFTER_INSTALL, S.TO_VERIFY),
    (StepKind.INSTALL, "Success", O.SUCCEEDED, AFTER_INSTALL_REBOOT, S.NEEDS_REBOOT),
    (StepKind.INSTALL, "Success", O.SUCCEEDED, STALE_INSTALL, None),
    (StepKind.INSTALL, "Success", O.SUCCEEDED, FRESH_CLEAN, None),
    (StepKind.INSTALL, "Success", O.SUCCEEDED, None, None),
    (StepKind.INSTALL, "Failed", O.FAILED, AFTER_INSTALL, S.TO_VERIFY),
    (StepKind.INSTALL, "ExecutionTimedOut", O.FAILED, None, S.TO_VERIFY),
    (StepKind.INSTALL, "DeliveryTimedOut", O.UNDELIVERED, None, S.TO_VERIFY),
    (StepKind.INSTALL, "Undeliverable", O.UNDELIVERED, None, S.UNREACHABLE),
    (StepKind.INSTALL, "Terminated", O.UNDELIVERED, None, S.UNREACHABLE),
    (StepKind.INSTALL, "AccessDenied", O.DENIED, None, S.UNREACHABLE),
    (StepKind.INSTALL, "Cancelled", O.CANCELLED, None, S.TO_VERIFY),
    (StepKind.REBOOT, "InProgress", O.RUNNING, None, None),
    (StepKind.REBOOT, "Success", O.SUCCEEDED, None, S.TO_VERIFY),
    (StepKind.REBOOT, "Failed", O.FAILED, None, S.TO_VERIFY),
    (StepKind.REBOOT, "DeliveryTimedOut", O.UNDELIVERED, None, S.UNREACHABLE),
    (StepKind.REBOOT, "Cancelled", O.CANCELLED, None, S.TO_VERIFY),
    (StepKind.VERIFY, "Success", O.SUCCEEDED, FRESH_CLEAN, S.PATCHED),
    (StepKind.VERIFY, "Success", O.SUCCEEDED, FRESH_MISSING, S.FAILED),
    (StepKind.VERIFY, "Success", O.SUCCEEDED, FRESH_REBOOT, S.NEEDS_REBOOT),
    (StepKind.VERIFY, "Success", O.SUCCEEDED, STALE_CLEAN, None),
    (StepKind.VERIFY, "Success", O.SUCCEEDED, AFTER_INSTALL, None),
    (StepKind.VERIFY, "Success", O.SUCCEEDED, None, None),
    (StepKind.VERIFY, "Failed", O.FAILED, FRESH_CLEAN, S.FAILED),
    (StepKind.VERIFY, "DeliveryTimedOut", O.UNDELIVERED, FRESH_CLEAN, S.UNREACHABLE),
    (StepKind.VERIFY, "Cancelled", O.CANCELLED, FRESH_CLEAN, S.TO_VERIFY),
]


def report_word(report: PatchState | None) -> str:
    if report is None:
        return "no report"
    return f"{'fresh' if report.ended > NOW else 'stale'} {report.operation} with {report.wrong}"


def look(
    step: StepKind, outcome: Outcome | None, details: str = "", report: PatchState | None = None, *, minutes: float = 10,
    complete: bool = False, requested: bool = True, host: object = ...,
) -> Move | None:  # fmt: skip
    """What one look says of host 1, which has `step` on its way since `NOW`."""
    row = a_row(1, rollout.RUNNING_STATE[step], token="t" * 32, reason="before")
    dispatch = a_dispatch(step) if requested else a_dispatch(step, requested_at=None)
    hosts = {row.host: a_host(1)} if host is ... else {row.host: host} if host is not None else {}
    seen = Observation(
        hosts=hosts,  # type: ignore[arg-type]
        invocations={} if outcome is None else {
            (dispatch.token, row.host): Invocation(token=dispatch.token, host=row.host, outcome=outcome, details=details)
        },
        patch_states={} if report is None else {row.host: report},
        complete=frozenset({dispatch.token}) if complete else frozenset(),
    )  # fmt: skip
    moves = rollout.observed(the_rules([row]), [row], {dispatch.token: dispatch}, seen, now=later(minutes))
    for move in moves:
        rollout.check_move(move.host, move.before, move.after)
    return moves[0] if moves else None


@pytest.mark.parametrize(
    ("step", "details", "outcome", "report", "after"), TABLE,
    ids=[f"{step.value}, {details}, {report_word(report)}" for step, details, _, report, _ in TABLE],
)  # fmt: skip
def test_an_outcome_comes_from_the_invocation_and_a_fresh_report(
    step: StepKind, details: str, outcome: Outcome, report: PatchState | None, after: HostState | None
) -> None:
    """Neither a report from before the command, nor one of the other operation, says anything (rule 3)."""
    move = look(step, outcome, details, report)
    assert (move.after if move else None) is after
    assert move is None or move.reason


@pytest.mark.parametrize("step", list(StepKind))
def test_a_command_that_ended_without_naming_the_host_never_reached_it(step: StepKind) -> None:
    """A complete command lists everybody it was for; silence until then says nothing."""
    silent = look(step, None)
    ended = look(step, None, complete=True)
    assert silent is None
    assert ended is not None
    assert ended.after is S.UNREACHABLE


@pytest.mark.parametrize(
    ("step", "after"),
    [
        (StepKind.SCAN, S.FAILED),
        (StepKind.INSTALL, S.TO_VERIFY),
        (StepKind.VERIFY, S.FAILED),
    ],
)
def test_a_report_that_never_comes_is_waited_for_and_then_called_what_it_is(step: StepKind, after: HostState) -> None:
    """Success without a report is never taken for success."""
    limit = the_rules([]).step_limit[step] / timedelta(minutes=1)
    within = look(step, O.SUCCEEDED, "Success", None, minutes=limit)
    beyond = look(step, O.SUCCEEDED, "Success", None, minutes=limit + 1)
    assert within is None
    assert beyond is not None
    assert beyond.after is after
    assert "report" in beyond.reason


@pytest.mark.parametrize("step", list(StepKind))
@pytest.mark.parametrize("outcome", [None, O.RUNNING])
def test_a_step_that_does_not_end_is_given_up(step: StepKind, outcome: Outcome | None) -> None:
    """Beyond the step's limit the host is unreachable: it is not waited for without end."""
    limit = the_rules([]).step_limit[step] / timedelta(minutes=1)
    assert look(step, outcome, "InProgress", minutes=limit) is None
    given_up = look(step, outcome, "InProgress", minutes=limit + 1)
    assert given_up is not None
    assert given_up.after is S.UNREACHABLE


def test_a_step_that_waited_long_to_be_sent_has_its_whole_time_from_then_on() -> None:
    """Its intent was written, then nobody could send it for two hours: the limit counts from AWS's own time of the command."""
    sent = replace(a_dispatch(StepKind.SCAN), requested_at=later(120))
    row = a_row(state=S.SCANNING, token=sent.token)
    rules = the_rules([row])
    invocation = Invocation(token=sent.token, host=row.host, outcome=O.RUNNING, details="InProgress")
    seen = Observation(hosts={row.host: a_host()}, invocations={(sent.token, row.host): invocation})
    for minutes, moves in ((121, 0), (179, 0), (181, 1)):
        assert len(rollout.observed(rules, [row], {sent.token: sent}, seen, now=later(minutes))) == moves
    wait = rollout.decide(rules, [row], {sent.token: sent}, now=later(121))
    assert isinstance(wait, Wait)
    assert wait.until == later(180)


def test_a_report_of_a_command_whose_time_aws_has_not_told_counts_for_nothing() -> None:
    """Without AWS's own time of the command nobody can say whether the report is younger."""
    assert look(StepKind.SCAN, O.SUCCEEDED, "Success", FRESH_CLEAN, requested=False) is None


def test_an_intent_that_is_not_known_to_be_sent_is_left_to_its_token() -> None:
    """Whether it ran is looked up first; until then the host stays where it is."""
    row = a_row(1, S.INSTALLING, token="t" * 32)
    dispatch = a_dispatch(StepKind.INSTALL, state=DispatchState.INTENDED, requested_at=None, command=None)
    seen = Observation(hosts={row.host: a_host(1)})
    assert rollout.observed(the_rules([row]), [row], {dispatch.token: dispatch}, seen, now=later(9999)) == ()


@pytest.mark.parametrize("state", [state for state in HostState if state not in rollout.TERMINAL])
def test_an_instance_that_ec2_no_longer_lists_is_terminated(state: HostState) -> None:
    """In whatever state it was: nobody waits for a host that is gone."""
    row = a_row(1, state)
    (move,) = rollout.observed(the_rules([row]), [row], {}, Observation(hosts={}), now=NOW)
    assert move.after is S.TERMINATED
    rollout.check_move(move.host, move.before, move.after)


@pytest.mark.parametrize("state", [S.PLANNED, S.READY, S.NEEDS_REBOOT, S.TO_VERIFY])
def test_a_stopped_host_is_stopped_and_a_silent_one_unreachable(state: HostState) -> None:
    """Somebody stopped the first, and it comes back unpatched; the second counts as an error."""
    row = a_row(1, state)
    stopped = Observation(hosts={row.host: a_host(1, state=InstanceState.STOPPED)})
    silent = Observation(hosts={row.host: a_host(1, ping=Ping.CONNECTION_LOST)})
    (one,) = rollout.observed(the_rules([row]), [row], {}, stopped, now=NOW)
    (other,) = rollout.observed(the_rules([row]), [row], {}, silent, now=NOW)
    assert (one.after, other.after) == (S.STOPPED, S.UNREACHABLE)


def test_a_host_that_loses_its_agent_during_a_reboot_is_not_unreachable() -> None:
    """Rebooting is silence by design: only the command's own end, or its limit, says otherwise."""
    assert look(StepKind.REBOOT, O.RUNNING, "InProgress", host=a_host(1, ping=Ping.CONNECTION_LOST)) is None


def test_a_host_that_reboots_twice_in_vain_is_pending_reboot() -> None:
    """After that a person looks: a third reboot would not do what two did not."""
    row = a_row(1, S.VERIFYING, token="v")
    verify = a_dispatch(StepKind.VERIFY, token="v")
    seen = Observation(
        hosts={row.host: a_host(1)}, patch_states={row.host: FRESH_REBOOT},
        invocations={("v", row.host): Invocation(token="v", host=row.host, outcome=O.SUCCEEDED, details="Success")},
    )  # fmt: skip
    after = []
    for reboots in (0, 1, 2):
        known = {"v": verify} | {f"r{n}": a_dispatch(StepKind.REBOOT, token=f"r{n}", attempt=n) for n in range(reboots)}
        (move,) = rollout.observed(the_rules([row]), [row], known, seen, now=later(10))
        after.append(move.after)
    assert after == [S.NEEDS_REBOOT, S.NEEDS_REBOOT, S.PENDING_REBOOT]


@pytest.mark.parametrize(("step", "after"), [(StepKind.INSTALL, S.TO_VERIFY), (StepKind.VERIFY, S.PENDING_REBOOT)])
def test_where_the_policy_reboots_nobody_who_needs_it_ends_as_pending_reboot(step: StepKind, after: HostState) -> None:
    """It is scanned all the same, so that the class is proven; it is neither rebooted nor called patched."""
    row = a_row(1, rollout.RUNNING_STATE[step], token="v")
    report = FRESH_REBOOT if step is StepKind.VERIFY else replace(FRESH_REBOOT, operation="Install")
    seen = Observation(
        hosts={row.host: a_host(1)}, patch_states={row.host: report},
        invocations={("v", row.host): Invocation(token="v", host=row.host, outcome=O.SUCCEEDED, details="Success")},
    )  # fmt: skip
    rules = replace(the_rules([row]), reboot=False)
    (move,) = rollout.observed(rules, [row], {"v": a_dispatch(step, token="v")}, seen, now=later(10))
    assert move.after is after


def test_a_reboot_that_aws_refused_is_no_reboot() -> None:
    """A command refused as a whole touched nobody, so it is none of the two reboots that a host gets."""
    row = a_row(1, S.VERIFYING, token="v")
    known = {
        "v": a_dispatch(StepKind.VERIFY, token="v"),
        "r1": a_dispatch(StepKind.REBOOT, 1, 2, token="r1", state=DispatchState.REFUSED),
        "r2": a_dispatch(StepKind.REBOOT, token="r2", attempt=2, state=DispatchState.ENDED),
    }
    seen = Observation(
        hosts={row.host: a_host(1)}, patch_states={row.host: FRESH_REBOOT},
        invocations={("v", row.host): Invocation(token="v", host=row.host, outcome=O.SUCCEEDED, details="Success")},
    )  # fmt: skip
    (move,) = rollout.observed(the_rules([row]), [row], known, seen, now=later(10))
    assert move.after is S.NEEDS_REBOOT


def test_what_a_failed_install_said_stays_with_the_host() -> None:
    """The Scan after it says that patches are missing; why they are, the Install said."""
    row = a_row(1, S.VERIFYING, token="t" * 32, reason="the Install failed (Failed, exit code 1)")
    dispatch = a_dispatch(StepKind.VERIFY)
    seen = Observation(
        hosts={row.host: a_host(1)}, patch_states={row.host: FRESH_MISSING},
        invocations={
            (dispatch.token, row.host): Invocation(token=dispatch.token, host=row.host, outcome=O.SUCCEEDED, details="Success")
        },
    )  # fmt: skip
    (move,) = rollout.observed(the_rules([row]), [row], {dispatch.token: dispatch}, seen, now=later(10))
    assert move.after is S.FAILED
    assert "2 missing" in move.reason
    assert "exit code 1" in move.reason


@pytest.mark.parametrize("code", sorted(rollout.BUSY_EXITS))
def test_a_host_on_which_another_patch_run_is_at_work_is_scanned_again(code: int) -> None:
    """A cancelled Install goes on to its end on the host: the Scan after finds the lock, which says nothing of the patches."""
    row = a_row(1, S.VERIFYING, token="v")
    busy = Invocation(token="v", host=row.host, outcome=O.FAILED, details="Failed", exit_code=code)
    known = {"v": a_dispatch(StepKind.VERIFY, token="v")}
    seen = Observation(hosts={row.host: a_host(1)}, invocations={("v", row.host): busy})
    (move,) = rollout.observed(the_rules([row]), [row], known, seen, now=later(1))
    assert move.after is S.TO_VERIFY
    waiting = replace(row, state=S.TO_VERIFY, reason=move.reason, since=later(1))
    rules = the_rules([waiting])
    wait = rollout.decide(rules, [waiting], known, now=later(2))
    assert isinstance(wait, Wait)
    assert wait.until == later(1) + rollout.BUSY_AGAIN
    assert "another patch run" in wait.reason
    (again,) = sends_of(rollout.decide(rules, [waiting], known, now=wait.until))
    assert again.step is StepKind.VERIFY
    many = {f"v{n}": a_dispatch(StepKind.VERIFY, token=f"v{n}", attempt=n) for n in range(1, rollout.MOST_BUSY)}
    (move,) = rollout.observed(the_rules([row]), [row], {**many, **known}, seen, now=later(1))
    assert move.after is S.FAILED


# --- what is decided --------------------------------------------------------------------------------------------------------
def sends_of(decision: rollout.Decision) -> tuple[rollout.Dispatch, ...]:
    assert isinstance(decision, tuple)
    return decision


def decide(rows: list[HostRow], *, dispatches: dict[str, rollout.DispatchRow] | None = None, **rules: object) -> rollout.Decision:
    return rollout.decide(the_rules(rows, **rules), rows, dispatches or {}, now=NOW)  # type: ignore[arg-type]


def test_a_stage_without_hosts_is_done_at_once() -> None:
    """Nothing to do is done, not a wait without end."""
    assert decide([]) == Done(classes={})


def test_everybody_is_scanned_at_once_since_a_scan_disrupts_nobody() -> None:
    """The Scan before takes no place, however few places there are; a command still takes 50 ids at most."""
    decision = decide([a_row(number) for number in range(1, 121)], places=1, total=1)
    assert isinstance(decision, tuple)
    assert {one.step for one in decision} == {StepKind.SCAN}
    assert sorted(len(one.hosts) for one in decision) == [20, 50, 50]


def test_installs_fill_the_free_places_in_the_order_of_the_plan() -> None:
    """What the plan showed is what happens."""
    rows = [a_row(number, S.READY) for number in (4, 2, 3, 1)]
    decision = decide(rows, places=2)
    assert isinstance(decision, tuple)
    assert [one.hosts for one in decision] == [(host_id(4), host_id(2))]


@pytest.mark.parametrize("state", sorted(rollout.HOLDS_PLACE - {S.ROLLING_BACK}))  # of a rollback, which decides for itself
def test_a_host_that_is_away_or_broken_keeps_the_place_of_the_next_one(state: HostState) -> None:
    """One place, taken: the ready host is not begun."""
    decision = decide([a_row(1, state, token="t"), a_row(2, S.READY)], places=1)
    assert not isinstance(decision, tuple) or StepKind.INSTALL not in {one.step for one in decision}


def test_a_host_that_stopped_under_our_hands_holds_its_place_and_one_that_was_stopped_before_does_not() -> None:
    """The first served until we came; the second never did, and is in no domain's size."""
    waiting = a_row(2, S.READY)
    ours, before = a_row(1, S.STOPPED, token="i" * 32), a_row(1, S.STOPPED)
    assert isinstance(decide([ours, waiting], total=1), Halt)
    assert [one.hosts for one in sends_of(decide([before, waiting], total=1))] == [(waiting.host,)]


@pytest.mark.parametrize(("times", "after"), [(1, S.PLANNED), (2, S.PLANNED), (3, S.FAILED)])
def test_a_scan_that_somebody_keeps_cancelling_is_not_sent_for_ever(times: int, after: HostState) -> None:
    """Whoever cancels it three times does not want the host touched, and the report says so."""
    row = a_row(1, S.SCANNING, token="s1")
    seen = Observation(
        hosts={row.host: a_host(1)},
        invocations={("s1", row.host): Invocation(token="s1", host=row.host, outcome=O.CANCELLED, details="Cancelled")},
    )
    known = {f"s{n}": a_dispatch(StepKind.SCAN, token=f"s{n}", attempt=n) for n in range(1, times + 1)}
    (move,) = rollout.observed(the_rules([row]), [row], known, seen, now=later(10))
    assert move.after is after


def test_hosts_unhealthy_before_we_came_hold_places_too() -> None:
    """The domain has only so many to spare, whoever took them (rule 1)."""
    rows = [a_row(1, S.READY), a_row(2, S.READY)]
    both = rollout.decide(the_rules(rows, places=2), rows, {}, now=NOW)
    one = rollout.decide(the_rules(rows, places=2), rows, {}, unhealthy_before={"stage:prod": {host_id(8)}}, now=NOW)
    none = rollout.decide(the_rules(rows, places=2), rows, {}, unhealthy_before={"stage:prod": {host_id(8), host_id(9)}}, now=NOW)
    assert isinstance(both, tuple)
    assert isinstance(one, tuple)
    assert (len(both[0].hosts), len(one[0].hosts)) == (2, 1)
    assert isinstance(none, Halt)
    assert none.rule == "disruption budget"


def test_a_full_domain_does_not_hold_up_the_others() -> None:
    """A budget protects its own domain only."""
    rows = [a_row(1, S.FAILED, domain="a"), a_row(2, S.READY, domain="a"), a_row(3, S.READY, domain="b")]
    decision = decide(rows, places={"a": 1, "b": 1})
    assert isinstance(decision, tuple)
    assert [one.hosts for one in decision] == [(host_id(3),)]


def test_a_budget_of_no_errors_stops_at_the_first() -> None:
    """0 means none."""
    rows = [a_row(1, S.UNREACHABLE), a_row(2, S.READY), a_row(3)]
    decision = decide(rows, places=3, error_budget=0)
    assert isinstance(decision, Halt)
    assert decision.rule == "error budget"
    assert decision.hosts == (host_id(1),)


def test_a_budget_of_one_error_goes_on_after_the_first() -> None:
    """The budget is what may fail, not what may not."""
    rows = [a_row(1, S.FAILED), a_row(2, S.READY)]
    assert isinstance(decide(rows, places=3, error_budget=1), tuple)


@pytest.mark.parametrize(("state", "step"), [(S.NEEDS_REBOOT, StepKind.REBOOT), (S.TO_VERIFY, StepKind.VERIFY)])
def test_a_halted_stage_brings_to_its_end_what_it_has_begun(state: HostState, step: StepKind) -> None:
    """A host left between Install and reboot would be neither old nor new."""
    rows = [a_row(1, S.FAILED), a_row(2, state), a_row(3, S.READY), a_row(4)]
    decision = decide(rows, places=9, error_budget=0)
    assert isinstance(decision, tuple)
    assert [(one.step, one.hosts) for one in decision] == [(step, (host_id(2),))]


def test_a_halted_stage_with_hosts_in_flight_waits_and_says_why_nothing_else_is_sent() -> None:
    """Whoever looks sees both: what is waited for, and that the stage will stop."""
    rows = [a_row(1, S.FAILED), a_row(2, S.INSTALLING, token="t" * 32), a_row(3, S.READY)]
    decision = decide(rows, dispatches={"t" * 32: a_dispatch(StepKind.INSTALL, 2)}, places=9, error_budget=0)
    assert isinstance(decision, Wait)
    assert "nothing further is sent" in decision.reason
    assert decision.tokens == ("t" * 32,)


def test_a_stage_whose_last_host_failed_beyond_the_budget_is_halted_not_done() -> None:
    """Everybody is settled, and it still went wrong."""
    assert isinstance(decide([a_row(1, S.FAILED), a_row(2, S.PATCHED)], error_budget=0), Halt)
    assert isinstance(decide([a_row(1, S.FAILED), a_row(2, S.PATCHED)], error_budget=1), Done)


def test_errors_that_a_person_has_looked_at_are_spent_no_second_time_but_keep_their_places() -> None:
    """Clearing the task goes on with the others, in what places are left."""
    rows = [a_row(1, S.FAILED, since=NOW), a_row(2, S.READY), a_row(3, S.READY)]
    rules = the_rules(rows, places=2, error_budget=0)
    decision = rollout.decide(rules, rows, {}, errors_since=NOW, now=later(1))
    assert isinstance(decision, tuple)
    assert [one.hosts for one in decision] == [(host_id(2),)]


def test_after_a_refusal_each_host_goes_alone() -> None:
    """AWS refuses a command for one bad id and does not say which."""
    rows = [a_row(number, S.READY) for number in (1, 2, 3)]
    refused = a_dispatch(StepKind.INSTALL, 1, 2, 3, state=DispatchState.REFUSED)
    decision = decide(rows, dispatches={refused.token: refused}, places=3)
    assert isinstance(decision, tuple)
    assert [(one.hosts, one.attempt) for one in decision] == [((host_id(n),), 2) for n in (1, 2, 3)]
    assert len({one.token for one in decision} | {refused.token}) == 4


def test_a_refused_scan_says_nothing_about_installs() -> None:
    """Steps are refused one by one."""
    rows = [a_row(number, S.READY) for number in (1, 2)]
    refused = a_dispatch(StepKind.SCAN, 1, 2, state=DispatchState.REFUSED)
    decision = decide(rows, dispatches={refused.token: refused})
    assert isinstance(decision, tuple)
    assert [one.hosts for one in decision] == [(host_id(1), host_id(2))]


def test_cells_and_platforms_get_commands_and_snapshots_of_their_own() -> None:
    """A snapshot of patches holds for one platform of one cell."""
    rows = [
        a_row(1, S.READY), a_row(2, S.READY, cell=FAR), a_row(3, S.READY, platform="Ubuntu 24.04"), a_row(4, S.READY)
    ]  # fmt: skip
    rules = replace(the_rules(rows, places=9), snapshots={f"{CELL}|Amazon Linux 2023": "s1", f"{FAR}|Amazon Linux 2023": "s2"})
    decision = rollout.decide(rules, rows, {}, now=NOW)
    assert isinstance(decision, tuple)
    assert [(one.cell, one.platform, one.snapshot, len(one.hosts)) for one in decision] == [
        (CELL, "Amazon Linux 2023", "s1", 2), (FAR, "Amazon Linux 2023", "s2", 1),
        (CELL, "Ubuntu 24.04", rollout.snapshot(RUN, CELL, "Ubuntu 24.04"), 1),
    ]  # fmt: skip


def test_a_token_names_run_stage_step_attempt_and_hosts_and_nothing_else() -> None:
    """Whoever computes it again finds the command; another intent never has the same one."""
    one = rollout.token(RUN, STAGE, StepKind.SCAN, 1, [host_id(1), host_id(2)])
    assert one == rollout.token(RUN, STAGE, StepKind.SCAN, 1, [host_id(2), host_id(1)])
    others = {
        rollout.token(RUN, STAGE, StepKind.VERIFY, 1, [host_id(1), host_id(2)]),
        rollout.token(RUN, STAGE, StepKind.SCAN, 2, [host_id(1), host_id(2)]),
        rollout.token(RUN, STAGE, StepKind.SCAN, 1, [host_id(1)]),
        rollout.token(RUN, type(STAGE)("dev"), StepKind.SCAN, 1, [host_id(1), host_id(2)]),
    }
    assert len(others | {one}) == 5
    assert len(one) == 32


@given(st.sampled_from(HostState), st.sampled_from(HostState))
def test_moves_that_are_not_listed_are_refused(before: HostState, after: HostState) -> None:
    """In the domain and in the ledger alike."""
    if after in rollout.LEGAL[before]:
        rollout.check_move(host_id(1), before, after)
    else:
        with pytest.raises(IllegalMove, match=r"cannot go from"):
            rollout.check_move(host_id(1), before, after)


def a_span(opens: float, closes: float) -> Span:
    return Span(opens=later(opens), closes=later(closes))


def test_a_window_that_is_still_shut_is_waited_for() -> None:
    """Nothing is begun, and the wait says when it opens; what is installed already is verified all the same."""
    wait = decide([a_row(1), a_row(2, S.READY)], window=a_span(30, 300))
    assert isinstance(wait, Wait)
    assert wait.until == later(30)
    assert "window opens" in wait.reason
    shut = decide([a_row(1)], window=replace(a_span(30, 300), because="calendar change-freeze is closed"))
    assert isinstance(shut, Wait)
    assert shut.reason.endswith("UTC (calendar change-freeze is closed)")
    sent = sends_of(decide([a_row(1), a_row(2, S.TO_VERIFY)], window=a_span(30, 300)))
    assert [one.step for one in sent] == [StepKind.VERIFY]


def test_a_host_that_is_to_reboot_waits_for_the_window_and_not_for_its_install() -> None:
    """A freeze began behind its Install, and whoever was to mark that as ended was killed: the wait lasts until the window
    opens, and the stage is not looked at again and again meanwhile."""
    install = a_dispatch(StepKind.INSTALL, 1)
    row = a_row(1, S.NEEDS_REBOOT, token=install.token, since=later(-300))
    wait = decide([row], dispatches={install.token: install}, window=a_span(600, 900))
    assert isinstance(wait, Wait)
    assert wait.until == later(600)
    assert wait.tokens == ()
    assert "1 waiting to reboot; the stage's window opens at" in wait.reason


@pytest.mark.parametrize(
    ("state", "closes", "after"),
    [
        (S.PLANNED, 17, None),  # Scan 2, Install 10, reboot 3, Scan 2
        (S.PLANNED, 16, S.OUT_OF_WINDOW),
        (S.READY, 15, None),
        (S.READY, 14, S.OUT_OF_WINDOW),
        (S.NEEDS_REBOOT, 3, None),
        (S.NEEDS_REBOOT, 2, S.PENDING_REBOOT),
        (S.INSTALLING, 1, None),
        (S.TO_VERIFY, 0, None),
    ],
)
def test_a_host_is_begun_while_all_that_is_before_it_fits_into_the_window(
    state: HostState, closes: float, after: HostState | None
) -> None:
    """To the minute; what is on its way is brought to its end, and an installed host is not rebooted outside."""
    row = a_row(1, state)
    rules = the_rules([row], window=a_span(-60, closes))
    moves = rollout.out_of_time(rules, [row], now=NOW)
    assert [move.after for move in moves] == ([after] if after else [])
    assert all("window closes at" in move.reason for move in moves)
    decision = rollout.decide(rules, [row], {}, now=NOW)
    assert (after is None) or not isinstance(decision, tuple)


def test_a_platform_that_is_known_to_be_slow_is_begun_earlier() -> None:
    """What was learned from earlier runs counts, by platform."""
    rows = [a_row(1, S.READY), a_row(2, S.READY, platform="Ubuntu 24.04")]
    slow = {"Ubuntu 24.04": {**rollout.AT_MOST, StepKind.INSTALL: timedelta(minutes=40)}}
    (move,) = rollout.out_of_time(the_rules(rows, window=a_span(-60, 30), expected=slow), rows, now=NOW)
    assert move.host == host_id(2)
    assert "45 minutes" in move.reason


def test_each_newcomer_stands_in_one_place_and_the_first_to_vanish_is_replaced_first() -> None:
    """Two vanished, one appeared: who vanished later is terminated until a second one appears."""
    web = (f"asg:{CELL}/web", "stage:prod")
    rows = [a_row(n, S.TERMINATED, domains=web, since=later(n)) for n in (1, 2)]
    one, two = (a_host(n, group="web", launched=later(n)) for n in (8, 9))
    (move,) = rollout.replacements(rows, [one])
    assert (move.host, move.after) == (host_id(1), S.REPLACED)
    assert one.id in move.reason
    rows[0] = replace(rows[0], state=S.REPLACED, reason=move.reason)
    assert rollout.replacements(rows, [one]) == ()
    assert [move.host for move in rollout.replacements(rows, [one, two])] == [host_id(2)]


@pytest.mark.parametrize(
    "newcomer",
    [
        a_host(9, group="api", launched=later(60)), a_host(9, group=None, launched=later(60)),
        a_host(9, group="web", launched=later(-60)), a_host(9, group="web", launched=None),
    ],
    ids=["another group", "no group", "launched long before", "nobody knows when"],
)  # fmt: skip
def test_who_was_there_before_or_serves_elsewhere_replaces_nobody(newcomer: Host) -> None:
    """Only an instance that the same group launched after the other one vanished."""
    row = a_row(1, S.TERMINATED, domains=(f"asg:{CELL}/web", "stage:prod"))
    assert rollout.replacements([row], [newcomer]) == ()


def test_late_joiners_come_after_the_hosts_of_the_plan() -> None:
    """Whoever approved an order gets it; newcomers take what places are left."""
    rows = [a_row(9, S.READY), a_row(3, S.READY), a_row(4, S.READY)]
    rules = replace(the_rules(rows, places=2), order=(host_id(4), host_id(3)))
    (one,) = sends_of(rollout.decide(rules, rows, {}, now=NOW))
    assert one.hosts == (host_id(4), host_id(3))


def test_a_recovered_host_gives_its_place_back_in_all_of_its_domains() -> None:
    """It failed, and serves again: the next one may go; the error budget has not forgotten it."""
    rows = [a_row(1, S.FAILED, domain="a"), a_row(2, S.READY, domain="a")]
    rules = the_rules(rows, places=1, total=1)
    assert isinstance(rollout.decide(rules, rows, {}, now=NOW), Halt)
    assert isinstance(rollout.decide(rules, rows, {}, recovered={host_id(1)}, now=NOW), tuple)
    spent = replace(rules, error_budget=0)
    halt = rollout.decide(spent, rows, {}, recovered={host_id(1)}, now=NOW)
    assert isinstance(halt, Halt)
    assert halt.rule == "error budget"


def test_a_host_that_was_unhealthy_itself_may_be_patched_in_its_own_place() -> None:
    """Taking it away takes nothing more from a domain in which it is missing already."""
    rows = [a_row(1, S.READY, domain="a"), a_row(2, S.READY, domain="a")]
    rules = the_rules(rows, places=1, total=1)
    (one,) = sends_of(rollout.decide(rules, rows, {}, unhealthy_before={"a": {host_id(1)}}, now=NOW))
    assert one.hosts == (host_id(1),)


def test_every_state_has_a_sentence_and_a_class_to_be_acted_on_says_what_to_do() -> None:
    """Reports and pages show them; a person who reads only that knows what comes next."""
    assert set(rollout.SENTENCES) == set(S)
    assert all(sentence.endswith(".") for sentence in rollout.SENTENCES.values())
    assert "reboot it, then scan it again" in rollout.SENTENCES[S.PENDING_REBOOT]
    for state in (S.FAILED, S.UNREACHABLE, S.STOPPED, S.OUT_OF_WINDOW):
        assert " run" in rollout.SENTENCES[state]


def test_every_state_that_is_not_final_has_a_way_to_an_end() -> None:
    """No state is a trap."""
    ends = set(rollout.TERMINAL)
    for _ in HostState:
        ends |= {state for state in HostState if rollout.LEGAL[state] & ends}
    assert ends == set(HostState)


def test_a_report_that_is_not_visible_yet_is_waited_for_with_a_short_end() -> None:
    """The command is over; its report follows within moments."""
    rows = [a_row(1, S.SCANNING, token="t" * 32)]
    ended = a_dispatch(StepKind.SCAN, state=DispatchState.ENDED)
    decision = decide(rows, dispatches={ended.token: ended})
    assert isinstance(decision, Wait)
    assert "not visible yet" in decision.reason
    assert NOW < decision.until <= later(2)
