"""What does each operation change, and what does the journal say of it?

Pure: rows before in, rows after and notes for the journal out. `sql.SqlLedger` and `memory.MemoryLedger` load rows, ask this
module and store the answer, so that the twin cannot come to another verdict than the database. Transactions, locks and
whether a row exists are theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from patchwave.campaign import evidence, rollout
from patchwave.campaign.approval import Decision
from patchwave.campaign.errors import IllegalMove, ImageRefused, LeaseLost
from patchwave.campaign.images import promotion
from patchwave.campaign.images.promotion import Level, PromotedImage
from patchwave.campaign.rollout import DispatchRow, DispatchState, HostRow, Move
from patchwave.campaign.values import HostId, RunId, StageName
from patchwave.ledger.store import Entry, Lease, Run, RunOutcome, StageRow, StageState, WaitRow

EXPLAINED = "halt.explained"
"""Kind of the record that tells why a stage halts: rule, reason, hosts and what to do, apart from each other."""

PLAN = "plan"
"""The document that cannot be replaced within a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """What is to be written to the journal."""

    kind: str
    data: Mapping[str, Any]


def utc(at: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        ValueError: it has no time zone, so nobody knows which moment it is.
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; the ledger takes aware datetimes only")
    return at.astimezone(UTC)


def utc_or_none(at: datetime | None) -> datetime | None:
    return None if at is None else utc(at)


def as_json(content: Any) -> Any:
    """`content` as it comes back from JSON: what the ledger hands out never shares anything with what it was given."""
    return json.loads(evidence.canonical(content))


def entries(run: RunId, last: tuple[int, str] | None, notes: Iterable[Note], *, at: datetime) -> tuple[Entry, ...]:
    """The notes as records, linked to the journal's last one.

    Args:
        last: sequence and hash of the last record; None when there is none.
    """
    sequence, before = last or (0, evidence.FIRST)
    moment = utc(at)
    made: list[Entry] = []
    for note in notes:
        sequence += 1
        data = as_json(dict(note.data))
        linked = evidence.link(run, sequence, moment, note.kind, data, before)
        made.append(Entry(run=run, sequence=sequence, at=moment, kind=note.kind, data=data, before=before, hash=linked))
        before = linked
    return tuple(made)


# runs -------------------------------------------------------------------------------------------------------------------


def opened(run: Run, stages: Sequence[StageName]) -> tuple[Run, tuple[StageRow, ...], Note]:
    """A run that begins, with its stages.

    Raises:
        ValueError: a stage is named twice.
    """
    if len(set(stages)) != len(stages):
        raise ValueError(f"run {run.id} names a stage twice: {', '.join(stages)}")
    frozen = replace(
        run,
        began_at=utc(run.began_at),
        ended_at=utc_or_none(run.ended_at),
        definition=as_json(dict(run.definition)),
        policy=as_json(dict(run.policy)),
        params=as_json(dict(run.params)),
    )
    rows = tuple(
        StageRow(run=run.id, stage=stage, position=position, state=StageState.WAITING) for position, stage in enumerate(stages)
    )
    note = Note(
        kind="run.began",
        data={
            "campaign": run.campaign,
            "dag_id": run.dag_id,
            "dag_run_id": run.dag_run_id,
            "file": run.definition_digest,
            "definition": evidence.digest(frozen.definition),
            "policy": evidence.digest(frozen.policy),
            "params": frozen.params,
            "requested_by": run.requested_by,
            "speed": run.speed,
            "stages": list(stages),
        },
    )
    return frozen, rows, note


def ended(run: Run, outcome: RunOutcome, *, at: datetime) -> tuple[Run, Note]:
    """A run that ends, or ends otherwise than it did."""
    over = outcome is not RunOutcome.RUNNING
    note = Note(kind="run.ended" if over else "run.resumed", data={"outcome": outcome.value})
    return replace(run, outcome=outcome, ended_at=utc(at) if over else None), note


def document_put(run: RunId, name: str, stored: str | None, new: str) -> Note | None:
    """A document put under a name; None when that name means it already.

    Raises:
        IllegalMove: it is the plan, and the run has another one.
    """
    if stored == new:
        return None
    if name == PLAN and stored is not None:
        raise IllegalMove(f"run {run} has the plan {stored[:12]}; it cannot be replaced by {new[:12]}")
    return Note(kind="plan.made" if name == PLAN else "document.put", data={"name": name, "digest": new})


# stages -----------------------------------------------------------------------------------------------------------------


def check_lease(row: StageRow, lease: Lease) -> None:
    """Nothing, if the lease still holds.

    Raises:
        LeaseLost: somebody else has acquired the stage.
    """
    if (row.holder, row.fencing) != (lease.holder, lease.fencing):
        raise LeaseLost(
            f"stage {lease.stage} of run {lease.run} was taken over by {row.holder} (fencing {row.fencing}); "
            f"{lease.holder} holds fencing {lease.fencing}"
        )


def acquired(row: StageRow, holder: str, seen: int | None = None) -> tuple[StageRow, Note | None]:
    """A stage with a new lease; a holder that only renews its own makes no note.

    Args:
        seen: the fencing number under which the holder has read the stage; None: it concluded nothing from it.

    Raises:
        LeaseLost: somebody has taken the stage since.
    """
    if seen is not None and row.fencing != seen:
        raise LeaseLost(f"stage {row.stage} has been taken by {row.holder} since {holder} looked at it")
    after = replace(row, holder=holder, fencing=row.fencing + 1)
    if row.holder == holder:
        return after, None
    data = {"stage": row.stage, "holder": holder, "before": row.holder, "fencing": after.fencing}
    return after, Note(kind="stage.acquired", data=data)


def stage_set(row: StageRow, state: StageState, *, reason: str, at: datetime) -> tuple[StageRow, Note] | None:
    """A stage in its new state; None when nothing changes. A halt is always a new one, for its moment counts."""
    if row.state is state and row.reason == reason and state is not StageState.HALTED:
        return None
    moment = utc(at)
    after = replace(row, state=state, reason=reason)
    match state:
        case StageState.PATCHING:
            after = replace(after, began_at=row.began_at or moment, ended_at=None)
        case StageState.HALTED:
            after = replace(after, ended_at=moment, halted_at=moment)
        case StageState.PATCHED | StageState.SKIPPED:
            after = replace(after, ended_at=moment)
        case StageState.WAITING:
            after = replace(after, ended_at=None)
    return after, Note(kind=f"stage.{state.value}", data={"stage": row.stage, "before": row.state.value, "reason": reason})


def explained(stage: str, rule: str, reason: str, hosts: Iterable[str], advice: str) -> dict[str, Any]:
    """Why a stage halts, for the journal."""
    return {"stage": stage, "rule": rule, "reason": reason, "hosts": list(hosts), "advice": advice}


def stage_skipped(row: StageRow, *, reason: str, at: datetime) -> tuple[StageRow, Note] | None:
    """A waiting stage that is skipped; None when it is already.

    Raises:
        IllegalMove: it has begun.
    """
    if row.state is StageState.SKIPPED:
        return None
    if row.state is not StageState.WAITING:
        raise IllegalMove(f"stage {row.stage} of run {row.run} is {row.state.value}; only a waiting stage can be skipped")
    return stage_set(row, StageState.SKIPPED, reason=reason, at=at)


# hosts and dispatches ---------------------------------------------------------------------------------------------------


def check_place(lease: Lease, what: str, run: RunId, stage: StageName) -> None:
    """Nothing, if `what` belongs to the stage of the lease.

    Raises:
        ValueError: it belongs elsewhere.
    """
    if (run, stage) != (lease.run, lease.stage):
        raise ValueError(f"{what} belongs to stage {stage} of run {run}; the lease is for stage {lease.stage} of {lease.run}")


def hosts_added(lease: Lease, there: Iterable[HostId], rows: Sequence[HostRow]) -> tuple[tuple[HostRow, ...], Note | None]:
    """The rows that are new to the stage."""
    known = set(there)
    new: list[HostRow] = []
    for row in rows:
        check_place(lease, f"host {row.host}", row.run, row.stage)
        if row.host not in known:
            known.add(row.host)
            new.append(replace(row, since=utc(row.since)))
    if not new:
        return (), None
    hosts = [{"host": row.host, "state": row.state.value, "reason": row.reason, "domains": list(row.domains)} for row in new]
    return tuple(new), Note(kind="hosts.added", data={"stage": lease.stage, "hosts": hosts})


def hosts_moved(
    lease: Lease, rows: Mapping[HostId, HostRow], moves: Sequence[Move], *, at: datetime
) -> tuple[dict[HostId, HostRow], tuple[Note, ...]]:
    """The hosts that move, after their moves.

    Raises:
        IllegalMove: a move is not legal, or a host is not where the move says it is.
    """
    after: dict[HostId, HostRow] = {}
    notes: list[Note] = []
    moment = utc(at)
    for move in moves:
        row = after.get(move.host) or rows.get(move.host)
        if row is None:
            raise IllegalMove(f"{move.host} is not in stage {lease.stage} of run {lease.run}")
        if row.state is not move.before:
            raise IllegalMove(f"{move.host} is {row.state.value} and not {move.before.value}; it cannot go to {move.after.value}")
        rollout.check_move(move.host, move.before, move.after)
        counts = {
            name: count
            for name, count in (
                ("installed", move.installed),
                ("missing_before", move.missing_before),
                ("missing_after", move.missing_after),
            )
            if count is not None
        }
        after[move.host] = replace(
            row,
            state=move.after,
            reason=move.reason,
            since=moment,
            installed=counts.get("installed", row.installed),
            missing_before=counts.get("missing_before", row.missing_before),
            missing_after=counts.get("missing_after", row.missing_after),
        )
        notes.append(_moved(lease.stage, after[move.host], move.before, counts))
    return after, tuple(notes)


def _moved(stage: StageName, row: HostRow, before: rollout.HostState, counts: Mapping[str, int]) -> Note:
    data = {
        "stage": stage,
        "host": row.host,
        "before": before.value,
        "after": row.state.value,
        "reason": row.reason,
        "token": row.token,
        **counts,
    }
    return Note(kind="host.moved", data=data)


def intended(
    lease: Lease, rows: Mapping[HostId, HostRow], dispatch: DispatchRow, *, reason: str
) -> tuple[DispatchRow, dict[HostId, HostRow], tuple[Note, ...]]:
    """A dispatch that is about to be sent, and its hosts in the step's running state.

    Raises:
        IllegalMove: a host cannot take that step now.
        ValueError: it belongs to another stage, or names no host.
    """
    check_place(lease, f"dispatch {dispatch.token}", dispatch.run, dispatch.stage)
    if not dispatch.hosts:
        raise ValueError(f"dispatch {dispatch.token} names no host")
    row = replace(
        dispatch,
        state=DispatchState.INTENDED,
        fencing=lease.fencing,
        intended_at=utc(dispatch.intended_at),
        requested_at=utc_or_none(dispatch.requested_at),
        ended_at=None,
    )
    notes = [
        Note(
            kind="dispatch.intended",
            data={
                "stage": row.stage,
                "token": row.token,
                "step": row.step.value,
                "cell": str(row.cell),
                "hosts": list(row.hosts),
                "attempt": row.attempt,
                "fencing": row.fencing,
                "snapshot": row.snapshot,
                "reason": reason,
            },
        )
    ]
    moved: dict[HostId, HostRow] = {}
    start, running = rollout.FROM_STATE[row.step], rollout.RUNNING_STATE[row.step]
    for host in row.hosts:
        one = moved.get(host) or rows.get(host)
        if one is None:
            raise IllegalMove(f"{host} is not in stage {row.stage} of run {row.run}")
        if one.state is not start:
            raise IllegalMove(f"{host} is {one.state.value}; a {row.step.value} begins from {start.value}")
        rollout.check_move(host, start, running)
        moved[host] = replace(one, state=running, reason=reason or one.reason, token=row.token, since=row.intended_at)
        notes.append(_moved(row.stage, moved[host], start, {}))
    return row, moved, tuple(notes)


def marked(
    row: DispatchRow,
    state: DispatchState,
    *,
    at: datetime,
    command: str | None,
    requested_at: datetime | None,
    over_at: datetime | None,
    reason: str,
) -> tuple[DispatchRow, Note] | None:
    """A dispatch that went on; None when nothing changes.

    Raises:
        IllegalMove: it is over already or goes backwards, or it runs under another command id.
    """
    if state is not row.state and (state is DispatchState.INTENDED or (state in rollout.OPEN and row.state not in rollout.OPEN)):
        raise IllegalMove(f"dispatch {row.token} is {row.state.value} and cannot become {state.value} again")
    if command is not None and row.command is not None and command != row.command:
        raise IllegalMove(f"dispatch {row.token} is command {row.command}; it cannot be command {command} as well")
    after = replace(
        row,
        state=state,
        command=command or row.command,
        requested_at=utc_or_none(requested_at) or row.requested_at,
        ended_at=row.ended_at if state is row.state or state in rollout.OPEN else utc(over_at or at),
    )
    if after == row:
        return None
    data = {
        "stage": row.stage,
        "token": row.token,
        "command": after.command,
        "requested_at": after.requested_at.isoformat() if after.requested_at else None,
        "reason": reason,
    }
    return after, Note(kind=f"dispatch.{state.value}", data=data)


# decisions, waits, wishes -----------------------------------------------------------------------------------------------


def decided(decision: Decision) -> tuple[Decision, Note]:
    """A decision that stands."""
    after = replace(decision, at=utc(decision.at), comment=_legible(decision.comment))
    data = {
        "stage": after.stage,
        "plan": after.plan,
        "verdict": after.verdict.value,
        "author": after.author,
        "comment": after.comment,
    } | ({"lockfile": after.lockfile} if after.lockfile else {})
    return after, Note(kind="decision.made", data=data)


def _legible(words: str) -> str:
    """What people typed, without what a database or UTF-8 cannot hold: NUL and halves of surrogate pairs."""
    return "".join("\ufffd" if letter == "\0" or "\ud800" <= letter <= "\udfff" else letter for letter in words)


def image_recorded(there: Sequence[PromotedImage], record: PromotedImage) -> tuple[PromotedImage, Note]:
    """A promotion or a quarantine that may be appended to `there`, the image's records so far.

    Raises:
        ImageRefused: it may not.
    """
    refusal = promotion.refused(there, record)
    if refusal is not None:
        raise ImageRefused(refusal.reason)
    after = replace(record, at=utc(record.at), amis=dict(record.amis), by=_legible(record.by), reason=_legible(record.reason))
    data = {
        "image": after.image,
        "version": after.version,
        "level": after.level.value,
        "manifest": after.manifest,
        "amis": after.amis,
        "by": after.by,
        "reason": after.reason,
    }
    return after, Note(kind="image.quarantined" if after.level is Level.QUARANTINED else "image.promoted", data=data)


def same_record(there: Sequence[PromotedImage], record: PromotedImage) -> PromotedImage | None:
    """The record of that version and level which stands already."""
    return next((one for one in there if (one.version, one.level) == (record.version, record.level)), None)


def waiting(row: WaitRow) -> WaitRow:
    """A wait that begins."""
    return replace(row, since=utc(row.since), until=utc_or_none(row.until), ended_at=None)


def wished(stage: StageName, holder: str, reason: str) -> Note:
    """Somebody killed a try."""
    return Note(kind="stop.wished", data={"stage": stage, "holder": holder, "reason": reason})


def wish_ended(stage: StageName, holder: str, outcome: str) -> Note:
    """That wish was carried out, or was void."""
    return Note(kind="stop.ended", data={"stage": stage, "holder": holder, "outcome": outcome})
