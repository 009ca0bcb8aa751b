"""What can be written down, and what holds of it? The protocol of the ledger.

Two implementations keep it, and one test suite holds them to it: `sql.SqlLedger` (SQLite and PostgreSQL) and
`memory.MemoryLedger` (its twin for tests). Operators, the dashboard and the command line know this protocol only.

What every implementation guarantees:

- A method is one transaction: all of it happens, or nothing (`put_rows` says what holds for it).
- Writes that belong to a stage take a `Lease` and are refused with `LeaseLost` when another holder has taken the stage
  since: the check and the write are one transaction.
- Moves of hosts that `rollout.LEGAL` does not list are refused with `IllegalMove`.
- The journal is append-only and hash-linked per run.
- When the database does not answer: `LedgerUnavailable`.

All datetimes are aware and in UTC; they come from the caller, for the ledger has no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from patchwave.campaign.approval import Decision
from patchwave.campaign.images.promotion import PromotedImage
from patchwave.campaign.rollout import DispatchRow, DispatchState, HostRow, Move, StepKind
from patchwave.campaign.values import RunId, StageName
from patchwave.ledger.rows import Rows


class RunOutcome(StrEnum):
    """How a run ended, as the report says it."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"  # every stage that was to be patched was, within its error budget
    REJECTED = "rejected"  # a person (or their silence) said no; what was done before stands
    FAILED = "failed"  # a stage halted, or a task failed
    DRY_RUN = "dry_run"  # the plan was the result


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a campaign, frozen as it was when it began.

    Attributes:
        id: ``<dag id>/<dag run id>``.
        definition: the campaign file as it was read, with its policy resolved (JSON).
        definition_digest: sha256 of the campaign file's content then; the newest file may have another one.
        params: the trigger form's values, resolved (dry_run, stages, severities, vulnerabilities).
        requested_by: login name of who triggered it by hand; None when the schedule did.
        speed: of the rehearsal clock; 1.0 is real time. A report says when it was another.
    """

    id: RunId
    campaign: str
    dag_id: str
    dag_run_id: str
    began_at: datetime
    definition: Mapping[str, Any]
    definition_digest: str
    policy: Mapping[str, Any]
    params: Mapping[str, Any]
    requested_by: str | None = None
    speed: float = 1.0
    outcome: RunOutcome = RunOutcome.RUNNING
    ended_at: datetime | None = None


class StageState(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"  # not begun: an approval or an earlier stage is awaited
    PATCHING = "patching"
    PATCHED = "patched"  # each host settled, error budget kept
    HALTED = "halted"  # a rule stopped it
    SKIPPED = "skipped"  # not chosen, rejected, or behind a rejection


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRow:
    """One stage of a run.

    Attributes:
        position: 0-based order in the campaign.
        fencing: number of the newest lease; 0 before the first.
        holder: who has it (the id of a task instance).
        halted_at: when it was last halted; None if it was not, or before.
        looked_at: when somebody last looked around for hosts that appeared; None if nobody has.
    """

    run: RunId
    stage: StageName
    position: int
    state: StageState
    reason: str = ""
    fencing: int = 0
    holder: str | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    halted_at: datetime | None = None
    looked_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to write to a stage, until somebody else takes it.

    Attributes:
        fencing: grows by one with each acquisition, the same holder's included.
    """

    run: RunId
    stage: StageName
    holder: str
    fencing: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitRow:
    """Something is waited for, and why.

    Attributes:
        subject: the stage or task that waits (``prod``, ``verify``, ``approve prod``).
        until: latest moment, or None: until a person answers.
        ends: what would end it.
        ended_at: None while it lasts.
    """

    run: RunId
    subject: str
    reason: str
    ends: str
    since: datetime
    until: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StopWish:
    """A person ended a try (marked its task, cleared it, failed the run): what it has in flight is to be cancelled.

    Attributes:
        holder: the try, as it names itself when it takes the lease.
        ended_at: when it was carried out, or found void; None while it is open.
        outcome: what became of it, in one sentence.
    """

    run: RunId
    stage: StageName
    holder: str
    at: datetime
    reason: str
    ended_at: datetime | None = None
    outcome: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One record of the journal: the evidence.

    Attributes:
        sequence: from 1 within its run, without gaps.
        kind: e.g. ``run.began``, ``plan.made``, ``decision.made``, ``dispatch.sent``, ``host.moved``, ``stage.halted``.
        before: hash of the record before; 64 zeros for the first.
        hash: sha256 over the canonical JSON of run, sequence, at, kind, data and `before`.
    """

    run: RunId
    sequence: int
    at: datetime
    kind: str
    data: Mapping[str, Any]
    before: str
    hash: str


class Ledger(Protocol):
    """The ledger, as everybody else sees it."""

    # runs -----------------------------------------------------------------------------------------------------------
    def open_run(self, run: Run, stages: Sequence[StageName]) -> Run:
        """Store `run` with its stages (state WAITING) and journal it; if it is there already, change nothing.

        Returns:
            The run as it is stored: the first caller's, which is what "frozen" means.
        """
        ...

    def run(self, run: RunId) -> Run:
        """That run.

        Raises:
            KeyError: there is none.
        """
        ...

    def runs(self, *, campaign: str | None = None, limit: int = 50) -> Sequence[Run]:
        """Runs, the youngest first."""
        ...

    def end_run(self, run: RunId, outcome: RunOutcome, *, at: datetime) -> None:
        """Write its outcome; a later call (a cleared task) overwrites it, and both stand in the journal."""
        ...

    # documents ------------------------------------------------------------------------------------------------------
    def put_document(self, run: RunId, name: str, content: Any, *, at: datetime) -> str:
        """Store JSON under a name within the run and return its digest (sha256 of its canonical JSON).

        Content is stored once however often it is put. A name can be put again and then means the newer content, save
        ``plan``: putting another plan under a run that has one raises `IllegalMove`, putting the same again is nothing.
        """
        ...

    def document(self, run: RunId, name: str) -> Any:
        """The newest content under that name, as a whole; of what `put_rows` stored, with all rows at once.

        Raises:
            KeyError: there is none.
            EvidenceBroken: it is not what was stored.
        """
        ...

    def put_rows(
        self,
        run: RunId,
        name: str,
        rows: Iterable[Any],
        *,
        at: datetime,
        head: Mapping[str, Any] | None = None,
        of: str | None = None,
    ) -> str:
        """Store a document of many rows, which are taken one at a time, and return its digest.

        This one is not one transaction but many, for other writers must not wait for a million rows: the rows are there first,
        and the last transaction puts the document under its name. Who is killed before leaves what the name meant before.

        Args:
            head: the document without its rows, where it is a mapping; None where it is nothing but a list.
            of: the rows' own key in that mapping.
        """
        ...

    def rows(self, run: RunId, name: str, *, of: str | None = None) -> Rows:
        """A document of many rows, which come one at a time and are proven against its digest chunk by chunk.

        Args:
            of: where the rows stand in a document that `put_document` stored; one that is a list needs none.

        Raises:
            KeyError: there is none of that name.
            EvidenceBroken: it is not what was stored; also while one goes through the rows.
        """
        ...

    def documents(self, run: RunId) -> Mapping[str, str]:
        """Digest of each name."""
        ...

    # stages and leases ----------------------------------------------------------------------------------------------
    def stages(self, run: RunId) -> Sequence[StageRow]:
        """The run's stages in order."""
        ...

    def stage(self, run: RunId, stage: StageName) -> StageRow:
        """One stage.

        Raises:
            KeyError: there is none.
        """
        ...

    def acquire(self, run: RunId, stage: StageName, holder: str, *, at: datetime, seen: int | None = None) -> Lease:
        """Take the stage over; whoever held it before gets `LeaseLost` at its next write. Never waits.

        Args:
            seen: the stage's fencing number when it was read, if something was concluded from that.

        Raises:
            LeaseLost: somebody else has taken the stage since then, and what was read may not be true any more.
        """
        ...

    def check(self, lease: Lease) -> None:
        """Nothing, if the lease still holds.

        Raises:
            LeaseLost: somebody else has acquired the stage.
        """
        ...

    def set_stage(self, lease: Lease, state: StageState, *, reason: str, at: datetime) -> None:
        """Change a stage's state under its lease (sets began_at, ended_at and halted_at as the state says)."""
        ...

    def note_look(self, lease: Lease, *, at: datetime) -> None:
        """Remember when somebody last looked around for hosts that appeared; that is no evidence, so no record is made."""
        ...

    def skip_stage(self, run: RunId, stage: StageName, *, reason: str, at: datetime) -> None:
        """Mark a WAITING stage as SKIPPED; nothing if it is SKIPPED.

        Raises:
            IllegalMove: it has begun.
        """
        ...

    # hosts ----------------------------------------------------------------------------------------------------------
    def add_hosts(self, lease: Lease, rows: Sequence[HostRow]) -> None:
        """Add hosts to a stage; one that is there already stays as it is."""
        ...

    def hosts(self, run: RunId, stage: StageName | None = None) -> Sequence[HostRow]:
        """Hosts of a stage, or of the whole run, ordered by stage position and host id."""
        ...

    def move_hosts(self, lease: Lease, moves: Sequence[Move], *, at: datetime) -> None:
        """Carry out moves: state, reason, since, and the counts that a move names; each is journalled (``host.moved``).

        Raises:
            IllegalMove: one of them is not legal, or the host is not in the state `before`; then none is carried out.
        """
        ...

    # dispatches -----------------------------------------------------------------------------------------------------
    def intend(self, lease: Lease, dispatch: DispatchRow, *, reason: str) -> None:
        """Write the intent and move its hosts into the step's running state, in one transaction, before the call is made.

        A dispatch with that token that is there already stays as it is (adoption), without an error.

        Args:
            reason: of each host's new state; empty keeps the one it has.

        Raises:
            IllegalMove: a host cannot take that step now.
        """
        ...

    def mark_dispatch(
        self,
        lease: Lease,
        token: str,
        state: DispatchState,
        *,
        at: datetime,
        command: str | None = None,
        requested_at: datetime | None = None,
        over_at: datetime | None = None,
        reason: str = "",
    ) -> None:
        """Write how a dispatch went on (``dispatch.sent``, ``dispatch.ended``, ... in the journal).

        Args:
            command, requested_at: AWS's id of it, and AWS's time of its acceptance.
            over_at: when it had ended on the last of its hosts, by AWS's clock; None: nobody said, and `at` stands for it.
        """
        ...

    def dispatches(self, run: RunId, stage: StageName | None = None) -> Sequence[DispatchRow]:
        """Dispatches in the order in which they were intended."""
        ...

    def durations(self, platform: str, *, newest: int = 200) -> Mapping[StepKind, Sequence[timedelta]]:
        """How long the steps of ended dispatches took on a platform, in the runs of any campaign: from AWS's acceptance to
        the end on the last host, both by AWS's clock. A step that nobody has taken there is absent.

        Args:
            newest: so many of each step, the newest ones.
        """
        ...

    # decisions ------------------------------------------------------------------------------------------------------
    def record_decision(self, decision: Decision) -> Decision:
        """Store a decision; the first one for a run, stage and plan stands.

        Returns:
            The decision that stands.
        """
        ...

    def decisions(self, run: RunId) -> Sequence[Decision]:
        """All decisions of a run, the oldest first."""
        ...

    # images ---------------------------------------------------------------------------------------------------------
    def record_image(self, record: PromotedImage) -> PromotedImage:
        """Append a promotion or a quarantine and journal it in its run; the first one of a version and level stands.

        Returns:
            The record that stands.

        Raises:
            ImageRefused: `promotion.refused` says why.
            KeyError: there is no such run.
        """
        ...

    def image_records(self, image: str) -> Sequence[PromotedImage]:
        """All records of that image, in the order in which they were appended; empty: nothing of it was ever promoted."""
        ...

    # waits ----------------------------------------------------------------------------------------------------------
    def wait(self, row: WaitRow) -> bool:
        """Say that `row.subject` waits. Ends its wait before, unless that has the same reason (then only `until` moves).

        Returns:
            Whether this is a change worth a line in the task's log.
        """
        ...

    def end_wait(self, run: RunId, subject: str, *, at: datetime) -> None:
        """End the subject's wait, if it waits."""
        ...

    def waits(self, run: RunId, *, open_only: bool = False) -> Sequence[WaitRow]:
        """Waits, the oldest first."""
        ...

    # wishes to stop -------------------------------------------------------------------------------------------------
    def wish_stop(self, run: RunId, stage: StageName, holder: str, *, at: datetime, reason: str) -> None:
        """Note that a person ended the try `holder`; whoever notices first carries it out. Quick, never refused, noted once."""
        ...

    def end_stop_wish(self, run: RunId, stage: StageName, holder: str, *, outcome: str, at: datetime) -> None:
        """Write what became of a wish; nothing if it has ended, or if there is none."""
        ...

    def stop_wishes(self, run: RunId | None = None, *, open_only: bool = False) -> Sequence[StopWish]:
        """Wishes of a run, or of all runs, the oldest first."""
        ...

    # evidence -------------------------------------------------------------------------------------------------------
    def record(self, run: RunId, kind: str, data: Mapping[str, Any], *, at: datetime) -> Entry:
        """Append one record to the run's journal."""
        ...

    def journal(self, run: RunId) -> Sequence[Entry]:
        """The run's records in order."""
        ...

    def count_calls(self, run: RunId, calls: Mapping[str, int]) -> None:
        """Add to the number of AWS calls by operation (``ssm:SendCommand``)."""
        ...

    def calls(self, run: RunId) -> Mapping[str, int]:
        """AWS calls of the run by operation."""
        ...
