"""Runs, hosts and dispatches as the ledger's tests need them, without the noise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.images.promotion import Level, PromotedImage
from patchwave.campaign.rollout import DispatchRow, DispatchState, HostRow, HostState, Move, StepKind
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.ledger.store import Lease, Ledger, Run, WaitRow

RUN = RunId("patch_weekly-linux/manual__2026-03-03")
DEV, PROD = StageName("dev"), StageName("prod")
CELL = Cell(account="111122223333", region="eu-central-1")
AT = datetime(2026, 3, 3, 22, 0, 0, 123456, tzinfo=UTC)
A, B, C = HostId("i-0aaaaaaaaaaaaaaaa"), HostId("i-0bbbbbbbbbbbbbbbb"), HostId("i-0cccccccccccccccc")


def later(minutes: float) -> datetime:
    return AT + timedelta(minutes=minutes)


def a_run(run: RunId = RUN, **changed: Any) -> Run:
    dag_id, _, dag_run_id = run.partition("/")
    values: dict[str, Any] = {
        "id": run,
        "campaign": "weekly-linux",
        "dag_id": dag_id,
        "dag_run_id": dag_run_id,
        "began_at": AT,
        "definition": {"name": "weekly-linux", "stages": [{"name": "dev"}, {"name": "prod"}]},
        "definition_digest": "d" * 64,
        "policy": {"days": {"critical": 15}},
        "params": {"dry_run": False, "stages": ["dev", "prod"]},
        "requested_by": "uma",
        "speed": 0.1,
    }
    return Run(**values | changed)


def a_host(host: HostId = A, stage: StageName = DEV, state: HostState = HostState.PLANNED, run: RunId = RUN) -> HostRow:
    return HostRow(
        run=run,
        stage=stage,
        host=host,
        cell=CELL,
        name=f"web-{host[-2:]}",
        platform="Amazon Linux",
        domains=("asg:web", f"stage:{stage}"),
        state=state,
        since=AT,
    )


def a_move(host: HostId, before: HostState, after: HostState, **counts: int) -> Move:
    return Move(host=host, before=before, after=after, reason=f"{before} is over", **counts)


def a_dispatch(
    token: str = "t1", hosts: tuple[HostId, ...] = (A,), step: StepKind = StepKind.SCAN, run: RunId = RUN, attempt: int = 1
) -> DispatchRow:
    return DispatchRow(
        token=token,
        run=run,
        stage=DEV,
        step=step,
        cell=CELL,
        hosts=hosts,
        attempt=attempt,
        state=DispatchState.INTENDED,
        fencing=1,
        intended_at=later(1),
        snapshot="snap-1",
    )


def a_decision(verdict: Verdict = Verdict.APPROVED, author: str = "olga", plan: str = "p" * 64, minute: float = 5) -> Decision:
    return Decision(run=RUN, stage=PROD, plan=plan, verdict=verdict, author=author, at=later(minute), comment="go")


def an_image(level: Level = Level.CANDIDATE, version: str = "1.0.0/1", run: RunId = RUN, minute: float = 5) -> PromotedImage:
    return PromotedImage(
        image="web",
        version=version,
        manifest="m" * 64,
        amis={"eu-central-1": "ami-0aaaaaaaaaaaaaaaa", "eu-west-1": "ami-0bbbbbbbbbbbbbbbb"},
        level=level,
        at=later(minute),
        run=run,
        by="uma",
        reason="its findings are within the policy",
    )


def a_wait(reason: str = "3 hosts installing", minute: float = 0, until: float | None = 10, subject: str = "dev") -> WaitRow:
    return WaitRow(
        run=RUN,
        subject=subject,
        reason=reason,
        ends="the commands in flight end",
        since=later(minute),
        until=None if until is None else later(until),
    )


def begun(ledger: Ledger, *hosts: HostId, holder: str = "try-1") -> Lease:
    """A run whose stage dev is held by `holder` and has `hosts` planned."""
    ledger.open_run(a_run(), [DEV, PROD])
    lease = ledger.acquire(RUN, DEV, holder, at=AT)
    ledger.add_hosts(lease, [a_host(host) for host in hosts])
    return lease


def everything(ledger: Ledger, run: RunId = RUN) -> dict[str, object]:
    """All that a ledger says of a run: what did not change, did not happen."""
    return {
        "run": ledger.run(run),
        "stages": list(ledger.stages(run)),
        "hosts": list(ledger.hosts(run)),
        "dispatches": list(ledger.dispatches(run)),
        "decisions": list(ledger.decisions(run)),
        "images": [record for record in ledger.image_records("web") if record.run == run],
        "waits": list(ledger.waits(run)),
        "wishes": list(ledger.stop_wishes(run)),
        "documents": dict(ledger.documents(run)),
        "journal": list(ledger.journal(run)),
        "calls": dict(ledger.calls(run)),
    }
