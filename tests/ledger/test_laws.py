"""What holds of every ledger: the twin, SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta, timezone

import pytest

from patchwave.campaign import evidence
from patchwave.campaign.approval import Verdict
from patchwave.campaign.errors import IllegalMove, ImageRefused, LeaseLost
from patchwave.campaign.images.promotion import Level
from patchwave.campaign.rollout import TERMINAL, DispatchState, HostState, StepKind
from patchwave.campaign.values import HostId, RunId, StageName
from patchwave.ledger import sql
from patchwave.ledger.store import Lease, Ledger, RunOutcome, StageState
from tests.ledger.builders import (
    AT,
    DEV,
    PROD,
    RUN,
    A,
    B,
    C,
    a_decision,
    a_dispatch,
    a_host,
    a_move,
    a_run,
    a_wait,
    an_image,
    begun,
    everything,
    later,
)

UNKNOWN = RunId("patch_weekly-linux/never")


# runs


def test_a_run_comes_back_as_it_was_stored(ledger: Ledger):
    """Nothing is lost or rounded on the way: microseconds, floats and nested JSON included."""
    stored = ledger.open_run(a_run(), [DEV, PROD])
    assert stored == a_run()
    assert ledger.run(RUN) == a_run()
    assert [(row.stage, row.position, row.state, row.fencing) for row in ledger.stages(RUN)] == [
        ("dev", 0, StageState.WAITING, 0),
        ("prod", 1, StageState.WAITING, 0),
    ]


def test_a_run_is_frozen_at_the_first_opening(ledger: Ledger):
    """A file that was edited since changes nothing in a run that has begun."""
    ledger.open_run(a_run(), [DEV, PROD])
    before = everything(ledger)
    edited = a_run(definition={"name": "edited"}, definition_digest="e" * 64, began_at=later(60), requested_by="vic")
    assert ledger.open_run(edited, [PROD]) == a_run()
    assert everything(ledger) == before


def test_what_a_ledger_hands_out_cannot_change_what_it_keeps(ledger: Ledger):
    """The definition is a mapping, and a caller may write into its own."""
    mine = a_run()
    ledger.open_run(mine, [DEV])
    mine.definition["stages"].append("mine")
    ledger.run(RUN).definition["stages"].clear()
    ledger.journal(RUN)[0].data["stages"].clear()
    assert ledger.run(RUN) == a_run()
    assert evidence.verify(ledger.journal(RUN)) == []


def test_moments_of_another_zone_are_the_same_moments(ledger: Ledger):
    """Vienna's 23:00 is 22:00 in UTC, in rows as in hashes."""
    vienna = timezone(timedelta(hours=1))
    ledger.open_run(a_run(began_at=AT.astimezone(vienna)), [DEV])
    began = ledger.run(RUN).began_at
    assert (began, began.tzinfo) == (AT, UTC)
    assert ledger.journal(RUN)[0].at.tzinfo is UTC


def test_a_datetime_without_zone_is_refused(ledger: Ledger):
    """Nobody knows which moment it means."""
    ledger.open_run(a_run(), [DEV])
    with pytest.raises(ValueError, match="no time zone"):
        ledger.record(RUN, "note", {}, at=AT.replace(tzinfo=None))
    with pytest.raises(ValueError, match="no time zone"):
        ledger.open_run(a_run(UNKNOWN, began_at=AT.replace(tzinfo=None)), [DEV])
    assert len(ledger.journal(RUN)) == 1


def test_a_stage_that_is_named_twice_opens_no_run(ledger: Ledger):
    with pytest.raises(ValueError, match="names a stage twice"):
        ledger.open_run(a_run(), [DEV, DEV])
    with pytest.raises(KeyError):
        ledger.run(RUN)


def test_runs_are_listed_with_the_youngest_first(ledger: Ledger):
    for number in range(4):
        campaign = "weekly-linux" if number != 2 else "other"
        ledger.open_run(a_run(RunId(f"dag/{number}"), began_at=later(number), campaign=campaign), [DEV])
    assert [run.id for run in ledger.runs()] == ["dag/3", "dag/2", "dag/1", "dag/0"]
    assert [run.id for run in ledger.runs(campaign="weekly-linux", limit=2)] == ["dag/3", "dag/1"]


def test_the_last_outcome_counts_and_all_of_them_stand_in_the_journal(ledger: Ledger):
    """A cleared report judges again; that it had judged otherwise is not forgotten."""
    ledger.open_run(a_run(), [DEV])
    ledger.end_run(RUN, RunOutcome.FAILED, at=later(1))
    ledger.end_run(RUN, RunOutcome.SUCCEEDED, at=later(2))
    assert (ledger.run(RUN).outcome, ledger.run(RUN).ended_at) == (RunOutcome.SUCCEEDED, later(2))
    assert [entry.data["outcome"] for entry in ledger.journal(RUN) if entry.kind == "run.ended"] == ["failed", "succeeded"]


def test_a_run_or_stage_that_is_not_there_is_named(ledger: Ledger):
    """Reading or writing under an unknown id is a mistake of the caller, and never creates anything."""
    ledger.open_run(a_run(), [DEV])
    nowhere = Lease(run=UNKNOWN, stage=DEV, holder="h", fencing=1)
    for call in (
        lambda: ledger.run(UNKNOWN),
        lambda: ledger.end_run(UNKNOWN, RunOutcome.FAILED, at=AT),
        lambda: ledger.put_document(UNKNOWN, "plan", {}, at=AT),
        lambda: ledger.document(UNKNOWN, "plan"),
        lambda: ledger.acquire(UNKNOWN, DEV, "h", at=AT),
        lambda: ledger.check(nowhere),
        lambda: ledger.set_stage(nowhere, StageState.PATCHING, reason="", at=AT),
        lambda: ledger.skip_stage(UNKNOWN, DEV, reason="", at=AT),
        lambda: ledger.add_hosts(nowhere, [a_host(run=UNKNOWN)]),
        lambda: ledger.record_decision(replace(a_decision(), run=UNKNOWN)),
        lambda: ledger.record_image(an_image(run=UNKNOWN)),
        lambda: ledger.wait(replace(a_wait(), run=UNKNOWN)),
        lambda: ledger.end_wait(UNKNOWN, "dev", at=AT),
        lambda: ledger.record(UNKNOWN, "note", {}, at=AT),
        lambda: ledger.count_calls(UNKNOWN, {"ssm:SendCommand": 1}),
    ):
        with pytest.raises(KeyError, match="never"):
            call()
    for call in (
        lambda: ledger.stage(RUN, StageName("nonesuch")),
        lambda: ledger.acquire(RUN, StageName("nonesuch"), "h", at=AT),
        lambda: ledger.skip_stage(RUN, StageName("nonesuch"), reason="", at=AT),
        lambda: ledger.document(RUN, "nonesuch"),
        lambda: ledger.mark_dispatch(ledger.acquire(RUN, DEV, "h", at=AT), "nonesuch", DispatchState.SENT, at=AT),
    ):
        with pytest.raises(KeyError, match="nonesuch"):
            call()
    assert (list(ledger.stages(UNKNOWN)), list(ledger.journal(UNKNOWN)), dict(ledger.calls(UNKNOWN))) == ([], [], {})
    assert (list(ledger.hosts(UNKNOWN)), dict(ledger.documents(UNKNOWN)), list(ledger.waits(UNKNOWN))) == ([], {}, [])


# documents


def test_a_document_comes_back_under_its_digest(ledger: Ledger):
    ledger.open_run(a_run(), [DEV])
    content = {"b": [1, 2.5, None, True], "a": {"Zürich": "\U0001f600", "nul": "\x00", "quote": '"\\'}}
    digest = ledger.put_document(RUN, "triage", content, at=AT)
    assert digest == evidence.digest(content)
    assert ledger.document(RUN, "triage") == content
    assert ledger.documents(RUN) == {"triage": digest}


def test_a_name_means_its_newest_content(ledger: Ledger):
    """And content that comes again under its name, or another's, is stored once."""
    ledger.open_run(a_run(), [DEV])
    first = ledger.put_document(RUN, "compliance", {"n": 1}, at=AT)
    second = ledger.put_document(RUN, "compliance", {"n": 2}, at=later(1))
    assert ledger.document(RUN, "compliance") == {"n": 2}
    assert ledger.put_document(RUN, "other", {"n": 2}, at=later(1)) == second
    assert ledger.put_document(RUN, "compliance", {"n": 1}, at=later(2)) == first
    assert ledger.documents(RUN) == {"compliance": first, "other": second}
    assert [entry.data["digest"] for entry in ledger.journal(RUN)[1:]] == [first, second, second, first]


def test_a_plan_cannot_be_replaced(ledger: Ledger):
    """What was approved is what is carried out; the same plan put again by a retry is nothing."""
    ledger.open_run(a_run(), [DEV])
    digest = ledger.put_document(RUN, "plan", {"hosts": [A, B]}, at=AT)
    assert ledger.put_document(RUN, "plan", {"hosts": [A, B]}, at=later(1)) == digest
    before = everything(ledger)
    with pytest.raises(IllegalMove, match="cannot be replaced"):
        ledger.put_document(RUN, "plan", {"hosts": [A, B, C]}, at=later(2))
    assert everything(ledger) == before
    assert ledger.document(RUN, "plan") == {"hosts": [A, B]}


def test_each_run_has_its_own_plan(ledger: Ledger):
    other = RunId("patch_weekly-linux/other")
    ledger.open_run(a_run(), [DEV])
    ledger.open_run(a_run(other), [DEV])
    assert ledger.put_document(RUN, "plan", {"n": 1}, at=AT) == ledger.put_document(other, "plan", {"n": 1}, at=AT)
    with pytest.raises(IllegalMove):
        ledger.put_document(other, "plan", {"n": 2}, at=AT)


@pytest.mark.parametrize("content", [{1: "a"}, {"a": float("nan")}, {"a": {1, 2}}, "\ud800"])
def test_what_is_no_json_is_refused_and_not_bent(ledger: Ledger, content: object):
    ledger.open_run(a_run(), [DEV])
    before = everything(ledger)
    with pytest.raises(evidence.NotJson):
        ledger.put_document(RUN, "triage", content, at=AT)
    with pytest.raises(evidence.NotJson):
        ledger.record(RUN, "note", {"content": content}, at=AT)
    assert everything(ledger) == before


# stages and leases


def test_each_lease_has_a_higher_fencing_number(ledger: Ledger):
    """The same holder's included: a try that runs beside its own orphan must lose it, too."""
    ledger.open_run(a_run(), [DEV])
    leases = [ledger.acquire(RUN, DEV, holder, at=AT) for holder in ("try-1", "try-1", "try-2")]
    assert [lease.fencing for lease in leases] == [1, 2, 3]
    assert (ledger.stage(RUN, DEV).holder, ledger.stage(RUN, DEV).fencing) == ("try-2", 3)
    ledger.check(leases[2])
    for lost in leases[:2]:
        with pytest.raises(LeaseLost, match="try-2"):
            ledger.check(lost)


def test_a_lease_by_an_old_reading_is_refused(ledger: Ledger):
    """Whoever concludes from a stage that it may go on must not go on when the stage was taken, and perhaps halted, since."""
    ledger.open_run(a_run(), [DEV])
    seen = ledger.stage(RUN, DEV).fencing
    ledger.acquire(RUN, DEV, "try-1", at=AT)
    with pytest.raises(LeaseLost, match="try-1"):
        ledger.acquire(RUN, DEV, "try-2", at=AT, seen=seen)
    assert (ledger.stage(RUN, DEV).holder, ledger.stage(RUN, DEV).fencing) == ("try-1", 1)
    assert ledger.acquire(RUN, DEV, "try-2", at=AT, seen=1).fencing == 2


def test_a_lost_lease_writes_nothing(ledger: Ledger):
    """Every write that belongs to a stage is refused to a holder that was overtaken, and leaves no trace."""
    old = begun(ledger, A)
    ledger.intend(old, a_dispatch(), reason="the Scan before")
    ledger.acquire(RUN, DEV, "try-2", at=later(1))
    before = everything(ledger)
    for write in (
        lambda: ledger.check(old),
        lambda: ledger.set_stage(old, StageState.PATCHING, reason="", at=later(2)),
        lambda: ledger.add_hosts(old, [a_host(B)]),
        lambda: ledger.move_hosts(old, [a_move(A, HostState.SCANNING, HostState.READY)], at=later(2)),
        lambda: ledger.move_hosts(old, [], at=later(2)),
        lambda: ledger.intend(old, a_dispatch("t2", (A,), StepKind.INSTALL), reason="go"),
        lambda: ledger.intend(old, a_dispatch(), reason="again"),
        lambda: ledger.mark_dispatch(old, "t1", DispatchState.SENT, at=later(2), command="c-1"),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert everything(ledger) == before


def test_a_lease_of_one_stage_says_nothing_of_another(ledger: Ledger):
    lease = begun(ledger, A)
    ledger.acquire(RUN, PROD, "other", at=AT)
    ledger.check(lease)
    with pytest.raises(ValueError, match="belongs to stage prod"):
        ledger.add_hosts(lease, [a_host(B, PROD)])
    with pytest.raises(ValueError, match="belongs to stage prod"):
        ledger.intend(lease, replace(a_dispatch(), stage=PROD), reason="go")
    assert [row.host for row in ledger.hosts(RUN)] == [A]


def test_a_stage_keeps_the_moments_of_its_states(ledger: Ledger):
    """It begins once, though it is halted and goes on; the last halt is remembered after it went on."""
    lease = begun(ledger)
    seen = []
    for minute, state in enumerate(
        (StageState.PATCHING, StageState.HALTED, StageState.PATCHING, StageState.HALTED, StageState.PATCHING, StageState.PATCHED)
    ):
        ledger.set_stage(lease, state, reason=f"because {minute}", at=later(minute))
        row = ledger.stage(RUN, DEV)
        seen.append((row.state, row.began_at, row.ended_at, row.halted_at, row.reason))
    assert seen == [
        (StageState.PATCHING, later(0), None, None, "because 0"),
        (StageState.HALTED, later(0), later(1), later(1), "because 1"),
        (StageState.PATCHING, later(0), None, later(1), "because 2"),
        (StageState.HALTED, later(0), later(3), later(3), "because 3"),
        (StageState.PATCHING, later(0), None, later(3), "because 4"),
        (StageState.PATCHED, later(0), later(5), later(3), "because 5"),
    ]


def test_a_state_said_twice_is_journalled_once(ledger: Ledger):
    """Each resume of a task says that it patches."""
    lease = begun(ledger)
    for minute in range(3):
        ledger.set_stage(lease, StageState.PATCHING, reason="go", at=later(minute))
    assert [entry.at for entry in ledger.journal(RUN) if entry.kind == "stage.patching"] == [later(0)]


def test_a_look_around_is_remembered_and_no_evidence(ledger: Ledger):
    """Who resumes need not look again at once; whoever lost the lease remembers nothing."""
    lease = begun(ledger, A)
    before = len(ledger.journal(RUN))
    ledger.note_look(lease, at=later(3))
    assert ledger.stage(RUN, DEV).looked_at == later(3)
    assert len(ledger.journal(RUN)) == before
    ledger.acquire(RUN, DEV, "try-2", at=later(4))
    with pytest.raises(LeaseLost):
        ledger.note_look(lease, at=later(5))
    assert ledger.stage(RUN, DEV).looked_at == later(3)


def test_only_a_stage_that_waits_can_be_skipped(ledger: Ledger):
    lease = begun(ledger)
    ledger.skip_stage(RUN, PROD, reason="rejected by olga", at=later(1))
    ledger.skip_stage(RUN, PROD, reason="again", at=later(2))
    row = ledger.stage(RUN, PROD)
    assert (row.state, row.reason, row.ended_at) == (StageState.SKIPPED, "rejected by olga", later(1))
    for state in (StageState.PATCHING, StageState.HALTED, StageState.PATCHED):
        ledger.set_stage(lease, state, reason="", at=later(3))
        with pytest.raises(IllegalMove, match="only a waiting stage"):
            ledger.skip_stage(RUN, DEV, reason="too late", at=later(4))


# hosts


def test_hosts_are_ordered_by_stage_and_then_by_code_point(ledger: Ledger):
    """Not by name of the stage, and not by a database's own idea of the alphabet."""
    stages = [StageName("b"), StageName("a")]
    ledger.open_run(a_run(), stages)
    ids = [HostId(host) for host in ("i-b", "i-B", "i-a", "i-A", "mi-1")]
    for stage in stages:
        lease = ledger.acquire(RUN, stage, "h", at=AT)
        ledger.add_hosts(lease, [a_host(host, stage) for host in ids])
    assert [(row.stage, row.host) for row in ledger.hosts(RUN)] == [(stage, host) for stage in "ba" for host in sorted(ids)]
    assert [row.host for row in ledger.hosts(RUN, StageName("a"))] == sorted(ids)


def test_a_host_that_is_there_stays_as_it_is(ledger: Ledger):
    """The plan is put again by each try; a host that has gone on is not sent back."""
    lease = begun(ledger, A)
    ledger.intend(lease, a_dispatch(), reason="the Scan before")
    scanning = ledger.hosts(RUN)
    ledger.add_hosts(lease, [a_host(A), a_host(B), a_host(B)])
    assert list(ledger.hosts(RUN)) == [*scanning, a_host(B)]
    ledger.add_hosts(lease, [])


def test_a_move_brings_state_reason_moment_and_counts(ledger: Ledger):
    """A count that a move does not name stays what it was."""
    lease = begun(ledger, A)
    ledger.intend(lease, a_dispatch(), reason="the Scan before")
    ledger.move_hosts(lease, [a_move(A, HostState.SCANNING, HostState.READY, missing_before=7)], at=later(2))
    ledger.intend(lease, a_dispatch("t2", step=StepKind.INSTALL), reason="go")
    ledger.move_hosts(lease, [a_move(A, HostState.INSTALLING, HostState.TO_VERIFY, installed=0)], at=later(3))
    (row,) = ledger.hosts(RUN)
    assert (row.state, row.reason, row.since, row.token) == (HostState.TO_VERIFY, "installing is over", later(3), "t2")
    assert (row.missing_before, row.installed, row.missing_after) == (7, 0, None)
    ledger.move_hosts(lease, [a_move(A, HostState.TO_VERIFY, HostState.UNREACHABLE, missing_after=2)], at=later(4))
    (row,) = ledger.hosts(RUN)
    assert (row.missing_before, row.installed, row.missing_after) == (7, 0, 2)
    moves = [entry.data for entry in ledger.journal(RUN) if entry.kind == "host.moved"]
    assert [(move["before"], move["after"]) for move in moves] == [
        ("planned", "scanning"),
        ("scanning", "ready"),
        ("ready", "installing"),
        ("installing", "to_verify"),
        ("to_verify", "unreachable"),
    ]


def test_one_illegal_move_undoes_all_of_them(ledger: Ledger):
    lease = begun(ledger, A, B)
    before = everything(ledger)
    good = a_move(A, HostState.PLANNED, HostState.UNREACHABLE)
    for bad in (
        a_move(B, HostState.PLANNED, HostState.INSTALLING),  # nobody installs before the Scan
        a_move(B, HostState.SCANNING, HostState.READY),  # it is not there
        a_move(A, HostState.PLANNED, HostState.FAILED),  # it was, before the first of the moves
        a_move(C, HostState.PLANNED, HostState.UNREACHABLE),  # not in this stage
    ):
        with pytest.raises(IllegalMove, match=bad.host):
            ledger.move_hosts(lease, [good, bad], at=later(1))
        assert everything(ledger) == before


@pytest.mark.parametrize("terminal", sorted(TERMINAL))
def test_a_terminal_class_is_final(ledger: Ledger, terminal: HostState):
    """Each host is in exactly one of them, for good; only a terminated one may still get the name of who replaces it."""
    lease = begun(ledger)
    ledger.add_hosts(lease, [a_host(A, state=terminal)])
    for after in set(HostState) - ({HostState.REPLACED} if terminal is HostState.TERMINATED else set()):
        with pytest.raises(IllegalMove):
            ledger.move_hosts(lease, [a_move(A, terminal, after)], at=later(1))


# dispatches


def test_an_intent_and_its_hosts_are_written_together(ledger: Ledger):
    """The intent carries the lease that it was made under; its hosts are in the step's running state and name its token."""
    begun(ledger, A, B)
    lease = ledger.acquire(RUN, DEV, "try-2", at=AT)
    ledger.intend(lease, a_dispatch(hosts=(B, A)), reason="the Scan before")
    assert list(ledger.dispatches(RUN)) == [replace(a_dispatch(hosts=(B, A)), fencing=2)]
    assert [(row.state, row.token, row.since, row.reason) for row in ledger.hosts(RUN)] == [
        (HostState.SCANNING, "t1", later(1), "the Scan before")
    ] * 2


def test_an_intent_with_a_known_token_changes_nothing(ledger: Ledger):
    """A try that resumes intends again what it finds already intended, and adopts it."""
    lease = begun(ledger, A)
    ledger.intend(lease, a_dispatch(), reason="the Scan before")
    ledger.mark_dispatch(lease, "t1", DispatchState.SENT, at=later(2), command="c-1", requested_at=later(1.5))
    before = everything(ledger)
    ledger.intend(lease, replace(a_dispatch(), intended_at=later(9)), reason="again")
    assert everything(ledger) == before


def test_an_intent_with_one_host_that_cannot_take_the_step_is_refused_whole(ledger: Ledger):
    lease = begun(ledger, A, B)
    ledger.move_hosts(lease, [a_move(B, HostState.PLANNED, HostState.STOPPED)], at=AT)
    before = everything(ledger)
    for dispatch in (
        a_dispatch(hosts=(A, B)),  # B is settled
        a_dispatch(hosts=(A, C)),  # C is not in the stage
        a_dispatch(hosts=(A, A)),  # nobody is scanned twice by one command
        a_dispatch(hosts=(A,), step=StepKind.INSTALL),  # A was not scanned
    ):
        with pytest.raises(IllegalMove):
            ledger.intend(lease, dispatch, reason="go")
        assert everything(ledger) == before
    with pytest.raises(ValueError, match="names no host"):
        ledger.intend(lease, a_dispatch(hosts=()), reason="go")
    assert everything(ledger) == before


def test_dispatches_keep_the_order_of_their_intents(ledger: Ledger):
    hosts = [HostId(f"i-{number}") for number in range(12)]
    lease = begun(ledger, *hosts)
    tokens = [f"t{9 - number}" if number < 10 else f"t{number}" for number in range(12)]
    for token, host in zip(tokens, hosts, strict=True):
        ledger.intend(lease, a_dispatch(token, (host,)), reason="go")
    ledger.mark_dispatch(lease, tokens[0], DispatchState.SENT, at=later(2), command="c-1")
    assert [row.token for row in ledger.dispatches(RUN, DEV)] == tokens
    assert list(ledger.dispatches(RUN, PROD)) == []


def test_how_long_steps_took_is_known_by_platform_and_step(ledger: Ledger):
    """Of dispatches that ended, the newest first; one that was refused or is still open took no time that says anything."""
    lease = begun(ledger, A, B, C)
    for token, host, platform, state, minutes in (
        ("t1", A, "Ubuntu 24.04", DispatchState.ENDED, 3),
        ("t2", B, "Ubuntu 24.04", DispatchState.ENDED, 5),
        ("t3", C, "Amazon Linux 2023", DispatchState.REFUSED, 1),
    ):
        ledger.intend(lease, replace(a_dispatch(token, (host,)), platform=platform), reason="")
        ledger.mark_dispatch(lease, token, state, at=later(1 + minutes))
    assert ledger.durations("Ubuntu 24.04") == {StepKind.SCAN: [timedelta(minutes=5), timedelta(minutes=3)]}
    assert ledger.durations("Ubuntu 24.04", newest=1) == {StepKind.SCAN: [timedelta(minutes=5)]}
    assert ledger.durations("Amazon Linux 2023") == {}
    assert {row.token: row.platform for row in ledger.dispatches(RUN)}["t1"] == "Ubuntu 24.04"


def test_a_terminated_host_becomes_a_replaced_one_when_the_other_appears(ledger: Ledger):
    """The one move that leaves a class; the journal tells both."""
    lease = begun(ledger, A)
    ledger.move_hosts(lease, [a_move(A, HostState.PLANNED, HostState.TERMINATED)], at=later(1))
    ledger.move_hosts(lease, [a_move(A, HostState.TERMINATED, HostState.REPLACED)], at=later(2))
    assert [row.state for row in ledger.hosts(RUN)] == [HostState.REPLACED]
    assert [entry.data["after"] for entry in ledger.journal(RUN) if entry.kind == "host.moved"] == ["terminated", "replaced"]


def test_a_dispatch_goes_forward_only(ledger: Ledger):
    """What is over does not begin again, and one token is one command."""
    lease = begun(ledger, A)
    ledger.intend(lease, a_dispatch(), reason="go")
    ledger.mark_dispatch(lease, "t1", DispatchState.SENT, at=later(2), command="c-1", requested_at=later(1.5))
    ledger.mark_dispatch(lease, "t1", DispatchState.SENT, at=later(3), command="c-1", requested_at=later(1.5))
    with pytest.raises(IllegalMove, match="cannot be command c-2"):
        ledger.mark_dispatch(lease, "t1", DispatchState.SENT, at=later(3), command="c-2")
    ledger.mark_dispatch(lease, "t1", DispatchState.ENDED, at=later(4), reason="all accounted for")
    for back in (DispatchState.INTENDED, DispatchState.SENT):
        with pytest.raises(IllegalMove, match="is ended"):
            ledger.mark_dispatch(lease, "t1", back, at=later(5))
    (row,) = ledger.dispatches(RUN)
    assert (row.state, row.command, row.requested_at, row.ended_at) == (DispatchState.ENDED, "c-1", later(1.5), later(4))
    assert [entry.kind for entry in ledger.journal(RUN) if entry.kind.startswith("dispatch")] == [
        "dispatch.intended",
        "dispatch.sent",
        "dispatch.ended",
    ]


# images


def test_image_records_come_back_in_the_order_in_which_they_were_appended(ledger: Ledger):
    """By the ledger's order, whatever the moments say; another image has none of them."""
    ledger.open_run(a_run(), [DEV, PROD])
    records = [an_image(), an_image(Level.DEV, minute=1), an_image(Level.QUARANTINED, minute=3)]
    assert [ledger.record_image(record) for record in records] == records
    assert list(ledger.image_records("web")) == records
    assert list(ledger.image_records("db")) == []
    assert [entry.kind for entry in ledger.journal(RUN)[1:]] == ["image.promoted", "image.promoted", "image.quarantined"]
    assert ledger.journal(RUN)[-1].data["reason"] == records[-1].reason


def test_a_version_comes_to_a_level_once(ledger: Ledger):
    """A retry, or another run, gets the record that stands, and nothing is journalled twice."""
    ledger.open_run(a_run(), [DEV, PROD])
    first = ledger.record_image(an_image())
    assert ledger.record_image(replace(an_image(minute=9), by="olga")) == first
    assert list(ledger.image_records("web")) == [first]
    assert [entry.kind for entry in ledger.journal(RUN)].count("image.promoted") == 1


def test_a_refused_image_leaves_nothing_behind(ledger: Ledger):
    """A version that has not been at the level before, or is quarantined, is neither stored nor journalled."""
    ledger.open_run(a_run(), [DEV, PROD])
    for record in (an_image(), an_image(Level.DEV), an_image(Level.QUARANTINED)):
        ledger.record_image(record)
    before = everything(ledger)
    for bad in (an_image(Level.STAGING), an_image(Level.PROD, "2.0.0/1"), an_image(Level.QUARANTINED, "2.0.0/1")):
        with pytest.raises(ImageRefused, match=bad.version):
            ledger.record_image(bad)
    assert everything(ledger) == before


# decisions


def test_the_first_decision_on_a_plan_stands(ledger: Ledger):
    """Nobody is asked twice, and nobody overrules an answer by giving another one."""
    ledger.open_run(a_run(), [DEV, PROD])
    first = a_decision(Verdict.REJECTED, "uma", minute=5)
    assert ledger.record_decision(first) == first
    assert ledger.record_decision(a_decision(Verdict.APPROVED, "olga", minute=1)) == first
    assert list(ledger.decisions(RUN)) == [first]
    assert [entry.data["author"] for entry in ledger.journal(RUN) if entry.kind == "decision.made"] == ["uma"]


def test_a_decision_names_the_lockfile_that_was_shown_with_the_plan(ledger: Ledger):
    """In its row, and in the record that proves it."""
    ledger.open_run(a_run(), [DEV, PROD])
    ledger.record_decision(replace(a_decision(), lockfile="c" * 64))
    assert [one.lockfile for one in ledger.decisions(RUN)] == ["c" * 64]
    (record,) = [entry for entry in ledger.journal(RUN) if entry.kind == "decision.made"]
    assert record.data["lockfile"] == "c" * 64


def test_another_plan_is_another_question(ledger: Ledger):
    ledger.open_run(a_run(), [DEV, PROD])
    late = ledger.record_decision(a_decision(plan="b" * 64, minute=9))
    early = ledger.record_decision(a_decision(Verdict.EXPIRED, "-", plan="a" * 64, minute=3))
    assert list(ledger.decisions(RUN)) == [early, late]


def test_a_comment_of_any_characters_is_kept_legibly(ledger: Ledger):
    """People paste what they like into a form; PostgreSQL takes no NUL, UTF-8 no half of a pair. The answer must stand."""
    ledger.open_run(a_run(), [DEV, PROD])
    stands = ledger.record_decision(replace(a_decision(), comment="ok\x00 \ud83d \U0001f600 'quoted'; DROP TABLE runs"))
    assert stands.comment == "ok\ufffd \ufffd \U0001f600 'quoted'; DROP TABLE runs"
    assert list(ledger.decisions(RUN)) == [stands]


# waits


def test_a_wait_with_the_same_reason_goes_on(ledger: Ledger):
    """Only its end moves, and nothing new is said."""
    ledger.open_run(a_run(), [DEV])
    assert ledger.wait(a_wait(minute=0, until=10)) is True
    assert ledger.wait(a_wait(minute=3, until=20)) is False
    assert list(ledger.waits(RUN)) == [a_wait(minute=0, until=20)]


def test_another_reason_ends_the_wait_before(ledger: Ledger):
    """A subject waits for one thing at a time; what it waited for before is not forgotten."""
    ledger.open_run(a_run(), [DEV])
    ledger.wait(a_wait("first", 0))
    ledger.wait(a_wait("olga", 1, until=None, subject="approve prod"))
    assert ledger.wait(a_wait("second", 5)) is True
    assert list(ledger.waits(RUN)) == [
        replace(a_wait("first", 0), ended_at=later(5)),
        a_wait("olga", 1, until=None, subject="approve prod"),
        a_wait("second", 5),
    ]
    assert [row.reason for row in ledger.waits(RUN, open_only=True)] == ["olga", "second"]


def test_a_wait_that_ended_begins_anew(ledger: Ledger):
    ledger.open_run(a_run(), [DEV])
    ledger.end_wait(RUN, "dev", at=AT)
    ledger.wait(a_wait(minute=0))
    ledger.end_wait(RUN, "dev", at=later(1))
    ledger.end_wait(RUN, "dev", at=later(2))
    assert ledger.wait(a_wait(minute=3)) is True
    assert list(ledger.waits(RUN)) == [replace(a_wait(minute=0), ended_at=later(1)), a_wait(minute=3)]


# wishes to stop


def test_a_wish_to_stop_names_the_try_once(ledger: Ledger):
    """It needs no lease: whoever kills a try does not hold it."""
    begun(ledger)
    for holder in ("try-2", "try-1", "try-2"):
        ledger.wish_stop(RUN, DEV, holder, at=later(1), reason="marked failed")
    assert [(wish.stage, wish.holder) for wish in ledger.stop_wishes(RUN)] == [(DEV, "try-2"), (DEV, "try-1")]
    assert list(ledger.stop_wishes(UNKNOWN)) == []
    assert [entry.data["holder"] for entry in ledger.journal(RUN) if entry.kind == "stop.wished"] == ["try-2", "try-1"]


def test_a_wish_ends_once(ledger: Ledger):
    """The first outcome stands, and an ended wish is open no more; ending what nobody wished is nothing."""
    begun(ledger)
    ledger.wish_stop(RUN, DEV, "try-1", at=AT, reason="marked failed")
    assert [wish.holder for wish in ledger.stop_wishes(open_only=True)] == ["try-1"]
    ledger.end_stop_wish(RUN, DEV, "try-1", outcome="2 commands cancelled", at=later(1))
    ledger.end_stop_wish(RUN, DEV, "try-1", outcome="another word", at=later(2))
    ledger.end_stop_wish(RUN, DEV, "try-9", outcome="nobody wished it", at=later(2))
    (wish,) = ledger.stop_wishes(RUN)
    assert (wish.outcome, wish.at, wish.ended_at) == ("2 commands cancelled", AT, later(1))
    assert list(ledger.stop_wishes(open_only=True)) == []
    assert [entry.data["outcome"] for entry in ledger.journal(RUN) if entry.kind == "stop.ended"] == ["2 commands cancelled"]


def test_a_wish_to_stop_is_never_refused(ledger: Ledger):
    """Whatever the ledger knows of the run."""
    ledger.wish_stop(UNKNOWN, DEV, "try-1", at=AT, reason="killed")
    assert [wish.holder for wish in ledger.stop_wishes(UNKNOWN)] == ["try-1"]
    ledger.end_stop_wish(UNKNOWN, DEV, "try-1", outcome="nobody holds it", at=later(1))
    assert list(ledger.stop_wishes(open_only=True)) == []
    assert list(ledger.journal(UNKNOWN)) == []


# evidence


def test_the_journal_is_a_chain_without_gaps(ledger: Ledger):
    lease = begun(ledger, A, B)
    ledger.intend(lease, a_dispatch(hosts=(A, B)), reason="the Scan before")
    entry = ledger.record(RUN, "report.made", {"path": "report.html", "count": 2}, at=later(3))
    journal = list(ledger.journal(RUN))
    assert [one.sequence for one in journal] == list(range(1, len(journal) + 1))
    assert journal[-1] == entry
    assert journal[0].before == evidence.FIRST
    assert evidence.verify(journal) == []


def test_calls_add_up_by_operation(ledger: Ledger):
    ledger.open_run(a_run(), [DEV])
    ledger.count_calls(RUN, {"ssm:SendCommand": 2, "ec2:DescribeInstances": 1})
    ledger.count_calls(RUN, {"ssm:SendCommand": 3})
    ledger.count_calls(RUN, {})
    assert dict(ledger.calls(RUN)) == {"ec2:DescribeInstances": 1, "ssm:SendCommand": 5}


def test_many_hosts_move_as_few_do(ledger: Ledger):
    """A command's hosts are looked up by name, a whole stage's are not; nobody sees a difference."""
    hosts = [HostId(f"i-{number:017x}") for number in range(sql.FEW + 1)]
    lease = begun(ledger, *hosts)
    for some, reason in ((hosts, "all"), (hosts[:2], "two")):
        before = ledger.hosts(RUN, DEV)[0].state
        after = HostState.SCANNING if before is HostState.PLANNED else HostState.READY
        ledger.move_hosts(lease, [replace(a_move(host, before, after), reason=reason) for host in some], at=later(1))
    states = [(row.state, row.reason) for row in ledger.hosts(RUN, DEV)]
    assert states == [(HostState.READY, "two")] * 2 + [(HostState.SCANNING, "all")] * (sql.FEW - 1)
