"""Facts of a made-up run for tests of the report and of the page: short to write where a test does not care."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.campaign import evidence, report
from patchwave.campaign.approval import Decision, Verdict
from patchwave.campaign.report import Report
from patchwave.campaign.rollout import HostRow, HostState
from patchwave.campaign.values import Cell, HostId, RunId, StageName
from patchwave.ledger.store import Run, RunOutcome, StageRow, StageState, WaitRow

BEGAN = datetime(2026, 6, 2, 20, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(hours=6)
RUN = RunId("weekly-linux/manual__2026-06-02T20:00:00+00:00")
CELL = Cell(account="123456789012", region="eu-central-1")


def a_run(**changes: Any) -> Run:
    """A run that has succeeded."""
    facts: dict[str, Any] = {
        "id": RUN,
        "campaign": "weekly-linux",
        "dag_id": "weekly-linux",
        "dag_run_id": "manual__2026-06-02T20:00:00+00:00",
        "began_at": BEGAN,
        "definition": {"name": "weekly-linux"},
        "definition_digest": "d" * 64,
        "policy": {},
        "params": {"dry_run": False},
        "requested_by": "olga",
        "outcome": RunOutcome.SUCCEEDED,
        "ended_at": NOW,
    }
    return Run(**{**facts, **changes})


def host_id(number: int) -> HostId:
    return HostId(f"i-{number:017x}")


def a_plan(**hosts_of_stage: Iterable[int]) -> dict[str, Any]:
    """A plan as the ledger has it: ``a_plan(dev=[1, 2], prod=[3])``."""
    return {
        "campaign": "weekly-linux",
        "run": RUN,
        "created": BEGAN.isoformat(),
        "stages": [
            {
                "name": stage,
                "hosts": [
                    {
                        "id": host_id(number),
                        "cell": {"account": CELL.account, "region": CELL.region},
                        "name": f"{stage}-{number}",
                        "platform": "Amazon Linux 2023",
                        "covered": True,
                    }
                    for number in numbers
                ],
            }
            for stage, numbers in hosts_of_stage.items()
        ],
        "exclusions": [],
    }


def a_row(stage: str, number: int, state: HostState, **changes: Any) -> HostRow:
    facts: dict[str, Any] = {
        "run": RUN,
        "stage": StageName(stage),
        "host": host_id(number),
        "cell": CELL,
        "name": f"{stage}-{number}",
        "platform": "Amazon Linux 2023",
        "domains": (f"stage:{stage}",),
        "state": state,
        "reason": f"it is {state.value}",
        "since": BEGAN,
    }
    return HostRow(**{**facts, **changes})


def a_stage(stage: str, position: int, state: StageState, reason: str = "") -> StageRow:
    return StageRow(run=RUN, stage=StageName(stage), position=position, state=state, reason=reason)


def a_decision(plan: Mapping[str, Any], stage: str, verdict: Verdict = Verdict.APPROVED, author: str = "uma") -> Decision:
    return Decision(
        run=RUN, stage=StageName(stage), plan=evidence.digest(plan), verdict=verdict, author=author, at=BEGAN + timedelta(hours=1)
    )


def a_wait(subject: str = "prod", **changes: Any) -> WaitRow:
    facts: dict[str, Any] = {"run": RUN, "subject": subject, "reason": "5 of 5 places are taken", "ends": "a host settles",
                             "since": BEGAN + timedelta(hours=2), "until": BEGAN + timedelta(hours=3)}  # fmt: skip
    return WaitRow(**{**facts, **changes})


def an_assessment(number: int, host: int, **changes: Any) -> dict[str, Any]:
    """A finding as the triage in the ledger has it."""
    return {
        "finding": f"arn:aws:inspector2:eu-central-1:123456789012:finding/{number:032x}",
        "cell": {"account": CELL.account, "region": CELL.region},
        "resource": host_id(host),
        "host": host_id(host),
        "vulnerability": f"CVE-2026-{number:05d}",
        "severity": "high",
        "track": "standard",
        "packages": ["openssl"],
        "first_seen": (BEGAN - timedelta(days=10)).isoformat(),
        "deadline": (BEGAN + timedelta(days=20)).isoformat(),
        "overdue": False,
        "reason": "row 2 of policy standard",
        "not_selected": None,
        **changes,
    }


def with_managed(
    plan: dict[str, Any],
    *,
    databases: Sequence[Mapping[str, Any]] = (),
    functions: Sequence[Mapping[str, Any]] = (),
    services: Sequence[str] = ("rds", "lambda"),
) -> dict[str, Any]:
    """The plan, with databases and functions in its first stage, each by its name and what it has."""
    cell = {"account": CELL.account, "region": CELL.region}
    first = plan["stages"][0]
    first["managed"] = {
        "services": list(services),
        "databases": [{"arn": an_arn("rds", one["name"]), "cell": cell, "engine": "postgres", "version": "16.3", **one}
                      for one in databases],
        "functions": [{"arn": an_arn("lambda", one["name"]), "cell": cell, "runtime": "python3.12", "version": "v1", **one}
                      for one in functions],
    }  # fmt: skip
    return plan


def an_arn(service: str, name: str) -> str:
    kind = "db" if service == "rds" else "function"
    return f"arn:aws:{service}:{CELL.region}:{CELL.account}:{kind}:{name}"


def a_settled(service: str, name: str, state: str, reason: str = "") -> dict[str, Any]:
    """A row of the document ``managed_services:STAGE``."""
    return {"id": an_arn(service, name), "state": state, "reason": reason, "after": "new"}


def a_look(**verdicts: Iterable[int]) -> dict[str, Any]:
    """Compliance as the ledger has it: ``a_look(compliant=[1], unknown=[2])``."""
    return {
        "at": NOW.isoformat(),
        "hosts": [
            {"host": host_id(number), "cell": str(CELL), "stage": "dev", "verdict": verdict, "reason": f"it is {verdict}"}
            for verdict, numbers in verdicts.items()
            for number in numbers
        ],
    }


def a_report(
    *,
    run: Run | None = None,
    stages: Sequence[StageRow] = (),
    hosts: Sequence[HostRow] = (),
    decisions: Sequence[Decision] = (),
    waits: Sequence[WaitRow] = (),
    calls: Mapping[str, int] | None = None,
    problems: Sequence[str] = (),
    why: str = "",
    **documents: Any,
) -> Report:
    """A report; documents by name with ``_`` for ``.``: ``a_report(plan=..., findings_after=...)``."""
    named = {name if ":" in name else name.replace("_", ".", 1): content for name, content in documents.items()}
    return report.build(
        run or a_run(), stages, hosts, decisions, waits, (), calls or {}, problems, named, now=NOW, journal_head="f" * 64, why=why
    )
