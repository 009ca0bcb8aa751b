"""What does a later stage get, and did it get that? The lockfile between a campaign's stages.

`Witness` writes down what Dev lacked, `lock` makes the lockfile when Dev is through, `Promotion` carries it through a later
stage: the executor asks it for the address of the list before an Install, has Scans judged by it instead of by the baseline,
and asks before a stage is called done whether any host drifted. What follows from an answer `rollout` and the executor decide.

It reads about five calls a host and Scan: Patch Manager tells versions a host at a time (`aws.patching.host_patches`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter

from patchwave.aws.gateway import Gateway
from patchwave.campaign import lockfile as lockfiles
from patchwave.campaign.errors import InvalidRequest
from patchwave.campaign.findings import Finding
from patchwave.campaign.lockfile import HostPatches, Lockfile, NotLocked, Origin, PatchRow
from patchwave.campaign.rollout import DispatchRow, Halt, HostRow, HostState, Move, Outcome, PatchState, StepKind
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.ledger.store import Lease, Ledger, RunOutcome

T = TypeVar("T")

UNKNOWN_PLATFORM = "unknown"
"""What a host's platform is called while Systems Manager does not know the host (`aws.inventory`)."""
SOURCES = frozenset({HostState.PATCHED, HostState.ALREADY_COMPLIANT, HostState.PENDING_REBOOT})
"""Hosts of Dev whose patches are promoted (what failed there is the last thing that Prod should have), and hosts of later stages
that are compared with them; those on which an Install succeeded in vain are, too."""
RULE = "lockfile"
"""The rule of a halt for drift."""
PATIENCE = timedelta(minutes=50)
"""How long after an Install the next software inventory is waited for: it is taken every half hour, and the Scan's time limit is
an hour (`rollout.StageRules.step_limit`)."""
AT_ONCE = 8
"""Hosts that are read at the same time: their calls are slow one after the other, and adaptive retries slow the cell down."""
MOST_NAMED = 20
"""Differences that a halt spells out; the ledger's document has them all."""


def lock(
    ledger: Ledger,
    gateway: Gateway,
    *,
    run: RunId,
    stage: StageName,
    findings: Iterable[Finding] = (),
    now: datetime,
) -> Lockfile:
    """Make the lockfile of what the hosts of a stage have, and store it with the run.

    A run has one: it is made once, and read from the ledger ever after.

    Args:
        stage: Dev; each host of it is settled.
        findings: active ones of before Dev was patched, which name vulnerabilities and advisories; what a `Witness` wrote
            down names vulnerabilities, too.
    """
    stored = stored_for(ledger, run)
    if stored is not None:
        return stored
    rows = [row for row in ledger.hosts(run, stage) if row.state in SOURCES]
    installs = _installs(ledger.dispatches(run, stage))
    since = ledger.run(run).began_at
    read = _read(gateway, rows, installs, locked=None, since=since)
    made = lockfiles.build(
        read.values(),
        since=since,
        known=lockfiles.advisories(findings, {row.host: row.platform for row in rows}),
        wanted=[one for some in _wanted(ledger, run, stage).values() for one in some],
    )
    origin = Origin(run=run, stage=stage, at=now)
    ledger.put_document(run, lockfiles.DOCUMENT, lockfiles.envelope(made, origin), at=now)
    patches = {one.platform: len(one.patches) for one in made.platforms}
    conflicts = [str(conflict) for one in made.platforms for conflict in one.conflicts]
    silent = sorted(row.name for row in rows if row.host not in read)
    told = {"stage": stage, "digest": made.digest, "patches": patches, "conflicts": conflicts, "unread": silent}
    ledger.record(run, "lockfile.made", told, at=now)
    return made


def stored_for(ledger: Ledger, run: RunId) -> Lockfile | None:
    """The run's lockfile; None if it has none yet.

    Raises:
        InvalidFile: it is not as it was written.
    """
    try:
        data = ledger.document(run, lockfiles.DOCUMENT)
    except KeyError:
        return None
    return lockfiles.opened(data, file=f"the ledger's document {lockfiles.DOCUMENT} of {run}")[0]


def last_promoted(ledger: Ledger, campaign: str) -> tuple[RunId, Lockfile] | None:
    """The newest whole lockfile of a campaign that went through all its stages: what an emergency may be cut from."""
    for run in ledger.runs(campaign=campaign, limit=200):
        if run.outcome is RunOutcome.SUCCEEDED:
            found = stored_for(ledger, run.id)
            if found is not None and found.derived_from is None:
                return run.id, found
    return None


def holding(ledger: Ledger, run: RunId, campaign: str) -> tuple[RunId, Lockfile] | None:
    """The lockfile by which the run's later stages are patched, and the run that made it: this one, or, where it left the first
    stage out, the last that went through."""
    lockfile = stored_for(ledger, run)
    return (run, lockfile) if lockfile is not None else last_promoted(ledger, campaign)


def address(
    gateway: Gateway, lockfile: Lockfile, cell: Cell, platform: str, *, bucket: Callable[[str], str], allowed: bool = False
) -> str:
    """Lay the list of a platform down for an Install that is about to be sent, and say where it lies.

    Args:
        bucket: name of the bucket in which hosts of a region read lists; empty if the connection names none.
        allowed: the policy lets hosts of a platform that Dev did not have be patched by their baseline.

    Returns:
        Its address; empty where the policy lets a platform without lock be patched by its baseline.

    Raises:
        InvalidRequest: the connection names no bucket for the region.
        NotLocked: there is nothing that these hosts may be sent.
    """
    if lockfile.on(platform) is None and allowed:
        return ""
    text = lockfiles.override_list(lockfile, platform)
    name = bucket(cell.region)
    if not name:
        raise InvalidRequest(
            f"the connection's extra names no bucket for lists of patches in {cell.region} (patchwave_lists_bucket), and "
            "without one hosts cannot be told what Dev received"
        )
    return gateway.lay_down(cell, name, text)


def show(ledger: Ledger, run: RunId, stage: StageName, campaign: str, *, now: datetime) -> Lockfile | None:
    """The lockfile that holds now, kept as the one that the people of a stage's gate are shown; None if there is none."""
    found = holding(ledger, run, campaign)
    if found is None:
        return None
    ledger.put_document(run, _shown_in(stage), ledger.document(found[0], lockfiles.DOCUMENT), at=now)
    return found[1]


def shown(ledger: Ledger, run: RunId, stage: StageName) -> Lockfile | None:
    """The lockfile that people were shown who were asked about a stage; None if none was.

    Raises:
        InvalidFile: it is not as it was written.
    """
    try:
        data = ledger.document(run, _shown_in(stage))
    except KeyError:
        return None
    return lockfiles.opened(data, file=f"the ledger's document {_shown_in(stage)} of {run}")[0]


def _shown_in(stage: StageName) -> str:
    return f"{lockfiles.DOCUMENT}.shown:{stage}"


def break_glass(ledger: Ledger, run: RunId, campaign: str, vulnerabilities: Iterable[str], *, now: datetime) -> Lockfile:
    """Cut the run's lockfile from the last one that a campaign carried through all its stages, and store it with the run.

    Raises:
        NotLocked: there is none, or it does not mend one of the vulnerabilities.
    """
    stored = stored_for(ledger, run)
    if stored is not None:
        return stored
    found = last_promoted(ledger, campaign)
    if found is None:
        raise NotLocked(f"no run of {campaign} that went through all its stages has a lockfile, so none can be cut from it")
    source, whole = found
    cut = lockfiles.emergency(whole, vulnerabilities)
    if cut.unmended:
        raise NotLocked(
            f"the lockfile of {source}, the last that {campaign} carried through, has no patch that is known to mend "
            f"{', '.join(cut.unmended)}; leave them out, or use a campaign whose hosts get what their baselines approve"
        )
    before = ledger.document(source, lockfiles.DOCUMENT)
    origin = lockfiles.opened(before, file=f"the ledger's document {lockfiles.DOCUMENT} of {source}")[1]
    ledger.put_document(run, lockfiles.DOCUMENT, lockfiles.envelope(cut.lockfile, origin), at=now)
    told = {"from": source, "digest": cut.lockfile.digest, "vulnerabilities": list(cut.lockfile.vulnerabilities)}
    ledger.record(run, "lockfile.cut", told, at=now)
    return cut.lockfile


_ROWS: TypeAdapter[dict[HostId, tuple[PatchRow, ...]]] = TypeAdapter(dict[HostId, tuple[PatchRow, ...]])


@dataclass(kw_only=True)
class Witness:
    """The stage that comes first: patched by its baseline, and what its hosts lacked is written down.

    Patch Manager names the vulnerabilities of a patch only while it is missing, so that is read at the Scan before: one call
    a host. The executor asks it what it asks a `Promotion`.
    """

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    now: Callable[[], datetime]

    def excepted(self, rows: Sequence[HostRow]) -> tuple[Move, ...]:
        """Nobody."""
        return ()

    def address(self, cell: Cell, platform: str) -> str:
        """No list: what the baseline approves."""
        return ""

    def halt(self, rows: Sequence[HostRow]) -> Halt | None:
        """Nothing that it could be compared with."""
        return None

    def judged(
        self, states: Mapping[HostId, PatchState], rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]
    ) -> dict[HostId, PatchState]:
        """Reports as they are; of those that a Scan before made and that ask for patches, these are written down."""
        lacking = [
            row
            for row in rows
            if (state := states.get(row.host)) is not None
            and state.missing + state.failed
            and (dispatch := dispatches.get(row.token or "")) is not None
            and dispatch.step is StepKind.SCAN
        ]
        if lacking:
            read = each(lacking, lambda row: self.gateway.patches(row.cell, row.host, states=("Missing", "Failed")))
            known = _wanted(self.ledger, self.lease.run, self.lease.stage)
            content = _ROWS.dump_python(known | read, mode="json")
            self.ledger.check(self.lease)
            self.ledger.put_document(self.lease.run, _wanted_in(self.lease.stage), content, at=self.now())
        return dict(states)


def _wanted_in(stage: StageName) -> str:
    return f"wanted:{stage}"


def _wanted(ledger: Ledger, run: RunId, stage: StageName) -> dict[HostId, tuple[PatchRow, ...]]:
    try:
        return _ROWS.validate_python(ledger.document(run, _wanted_in(stage)))
    except KeyError:
        return {}


@dataclass(kw_only=True)
class Promotion:
    """A stage that is patched by a lockfile and by nothing else.

    Attributes:
        bucket: name of the bucket in which hosts of a region read lists; empty if the connection names none.
        allowed: the policy lets hosts of a platform that Dev did not have be patched by their baseline.
        now: the campaign's time.
    """

    ledger: Ledger
    gateway: Gateway
    lease: Lease
    lockfile: Lockfile
    bucket: Callable[[str], str]
    now: Callable[[], datetime]
    allowed: bool = False

    # --- before ---------------------------------------------------------------------------------------------------------
    def excepted(self, rows: Sequence[HostRow]) -> tuple[Move, ...]:
        """Hosts whose platform is not in the lockfile are left out before anything is installed on them, and say so.

        One of which nobody knew the platform is scanned first: it may not be reachable at all, which counts otherwise.
        """
        before = {
            row.host: row
            for row in rows
            if row.state is HostState.READY or (row.state is HostState.PLANNED and row.platform != UNKNOWN_PLATFORM)
        }
        platforms = {host: row.platform for host, row in before.items()}
        return tuple(
            Move(host=host, before=before[host].state, after=HostState.EXCEPTED, reason=reason)
            for host, reason in lockfiles.unlocked(self.lockfile, platforms, allowed=self.allowed).items()
        )

    def address(self, cell: Cell, platform: str) -> str:
        """Where the platform's list lies, laid down a moment ago (`promotion.address`)."""
        return address(self.gateway, self.lockfile, cell, platform, bucket=self.bucket, allowed=self.allowed)

    # --- Scans ----------------------------------------------------------------------------------------------------------
    def judged(
        self, states: Mapping[HostId, PatchState], rows: Sequence[HostRow], dispatches: Mapping[str, DispatchRow]
    ) -> dict[HostId, PatchState]:
        """Reports of Scans, by the lockfile instead of by the baseline; those of Installs as they are.

        A host of which nobody can say yet what it has is left out, as if its report were not visible: it is asked about again,
        and the Scan's time limit ends that.
        """
        scanned = [
            row
            for row in rows
            if row.host in states
            and self.lockfile.on(row.platform) is not None
            and (dispatch := dispatches.get(row.token or "")) is not None
            and dispatch.step in (StepKind.SCAN, StepKind.VERIFY)
        ]
        installs = _installs(dispatches.values())
        read = _read(self.gateway, scanned, installs, locked=self.lockfile, since=None)
        found = dict(states)
        for row in scanned:
            del found[row.host]
            host, locked = read.get(row.host), self.lockfile.on(row.platform)
            if locked is None or host is None:
                continue
            final = host.ended is not None and self.now() - host.ended > PATIENCE
            state = lockfiles.judged(locked, states[row.host], host, final=final)
            if state is not None:
                found[row.host] = state
        return found

    # --- after ----------------------------------------------------------------------------------------------------------
    @property
    def _document(self) -> str:
        return f"{lockfiles.COMPARED}{self.lease.stage}"

    def halt(self, rows: Sequence[HostRow]) -> Halt | None:
        """Before a stage ends: every host that was or needed not be patched is compared with the lockfile, and every one that
        lacks something of it though AWS calls its Install a success.

        What was found is stored; who was as locked is not read again by a later try, who drifted is.
        """
        known = self._known()
        settled = [row for row in rows if self.lockfile.on(row.platform) is not None]
        compared = [row for row in settled if row.state in SOURCES] + self._in_vain(settled)
        open_ones = [row for row in compared if known.get(row.host) != []]
        installs = _installs(self.ledger.dispatches(self.lease.run, self.lease.stage))
        began = self.ledger.stage(self.lease.run, self.lease.stage).began_at
        read = _read(self.gateway, open_ones, installs, locked=self.lockfile, since=began)
        found: dict[HostId, list[str]] = {host: said for host, said in known.items() if said == []}
        for row in open_ones:
            found[row.host] = self._said(row, read.get(row.host), began)
        self.ledger.check(self.lease)
        content = {"lockfile": self.lockfile.digest, "hosts": dict(sorted(found.items()))}
        self.ledger.put_document(self.lease.run, self._document, content, at=self.now())
        drifted = {host: said for host, said in sorted(found.items()) if said}
        if not drifted:
            return None
        sentences = [sentence for said in drifted.values() for sentence in said]
        more = f" and {len(sentences) - MOST_NAMED} more" if len(sentences) > MOST_NAMED else ""
        return Halt(
            rule=RULE,
            reason=f"{len(drifted)} hosts have not what Dev received: {'; '.join(sentences[:MOST_NAMED])}{more}",
            hosts=tuple(drifted),
            advice="bring these hosts to the locked versions, then clear this task: they are compared again. An update that was "
            "withdrawn needs a run that begins with Dev",
        )

    def _in_vain(self, rows: Sequence[HostRow]) -> list[HostRow]:
        """Hosts that lack patches after an Install that succeeded: the repositories had not all that the list names.

        No error budget pays for that. An Install that failed by itself is what the budget is for.
        """
        failed = [row for row in rows if row.state is HostState.FAILED and row.missing_after]
        last: dict[HostId, DispatchRow] = {}
        if failed:
            for one in _by_age(self.ledger.dispatches(self.lease.run, self.lease.stage), StepKind.INSTALL):
                last.update(dict.fromkeys(one.hosts, one))
        good = {
            (found.token, found.host)
            for one in {last[row.host].token: last[row.host] for row in failed if row.host in last}.values()
            for found in self.gateway.invocations(one.cell, str(one.command), one.token)
            if found.outcome is Outcome.SUCCEEDED
        }
        return [row for row in failed if row.host in last and (last[row.host].token, row.host) in good]

    def _said(self, row: HostRow, host: HostPatches | None, began: datetime | None) -> list[str]:
        if host is None:
            return [f"{row.name} ({row.host}): Systems Manager has no patch report of it any more"]
        return [str(one) for one in lockfiles.drift(self.lockfile, row.platform, [host], since=began)]

    def _known(self) -> dict[HostId, list[str]]:
        try:
            data: Any = self.ledger.document(self.lease.run, self._document)
        except KeyError:
            return {}
        if data.get("lockfile") != self.lockfile.digest:
            return {}
        return {HostId(host): list(said) for host, said in data["hosts"].items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Install:
    """When a host's last Install was taken by AWS, and by when it was over."""

    began: datetime | None
    ended: datetime | None


def _installs(dispatches: Iterable[DispatchRow]) -> dict[HostId, _Install]:
    """By host. The Scan after is sent when the Install is over, so whichever is known to be earlier counts."""
    dispatches = list(dispatches)
    verified: dict[HostId, datetime] = {}
    for one in dispatches:
        if one.step is StepKind.VERIFY and one.command is not None and one.requested_at is not None:
            verified.update(dict.fromkeys(one.hosts, one.requested_at))
    installs: dict[HostId, _Install] = {}
    for one in _by_age(dispatches, StepKind.INSTALL):
        for host in one.hosts:
            ends = [end for end in (one.ended_at, verified.get(host)) if end is not None]
            installs[host] = _Install(began=one.requested_at, ended=min(ends, default=None))
    return installs


def _by_age(dispatches: Iterable[DispatchRow], step: StepKind) -> list[DispatchRow]:
    """Those of a step that AWS has, oldest first."""
    return sorted((one for one in dispatches if one.step is step and one.command is not None), key=lambda one: one.intended_at)


def _read(
    gateway: Gateway,
    rows: Sequence[HostRow],
    installs: Mapping[HostId, _Install],
    *,
    locked: Lockfile | None,
    since: datetime | None,
) -> dict[HostId, HostPatches]:
    """What is on these hosts; absent is who never reported, or is gone."""
    nothing = _Install(began=None, ended=None)

    def one(row: HostRow) -> HostPatches | None:
        install = installs.get(row.host, nothing)
        return gateway.host_patches(
            row.cell,
            row.host,
            name=row.name,
            platform=row.platform,
            locked=locked.on(row.platform) if locked is not None else None,
            since=since,
            began=install.began,
            ended=install.ended,
        )

    return {host: found for host, found in each(rows, one).items() if found is not None}


def each(rows: Sequence[HostRow], read: Callable[[HostRow], T]) -> dict[HostId, T]:
    """What is read of each host, some at the same time."""
    if not rows:
        return {}
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(rows)), thread_name_prefix="patchwave") as pool:
        return dict(zip([row.host for row in rows], pool.map(read, rows), strict=True))
