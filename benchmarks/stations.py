"""How much memory and time do the real tasks need for a million findings, from Inspector's pages to the stored plan and report?
`python -m benchmarks.stations [--hosts N] [--findings N]`, the second half of `make bench-plan`.

`benchmarks.plan` measures the pure functions; here each task is a process of its own, as in Airflow, and works on a ledger in an
SQLite file: `scan_findings` gets pages of a hundred findings as botocore would hand them out, `classify` and `plan` go on from
the ledger, then `verify` compares with all pages again (half of the findings are gone) and `report` writes its files. Left out
are Airflow's own supervisor and everything that AWS takes; the first line is a process that only loads the tasks.

A Markdown table is printed, for `docs/benchmarks.md`. Ends with status 1 when a task takes more memory than is wanted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.plan import FINDINGS, HOSTS, MEBIBYTES, POLICIES, Process, process

TASKS = ("nothing", "scan_findings", "classify", "plan", "verify", "report")
PAGE = 100
HEAD = """\
| task | wall | of it processor | memory, at most |
|---|---|---|---|"""


def row(task: str, took: Process) -> str:
    """A line of the table."""
    name = "the tasks' modules loaded, nothing done" if task == "nothing" else f"`{task}`"
    return f"| {name} | {took.wall:.1f} s | {took.processor:.1f} s | {took.memory:,.0f} MiB |"


def missed(task: str, took: Process) -> list[str]:
    """The target if it is not kept, in a sentence."""
    return [f"{task}: {took.memory:,.0f} MiB, wanted are {MEBIBYTES:,.0f} MiB"] if took.memory > MEBIBYTES else []


def measured(home: Path, *, hosts: int, findings: int) -> Iterator[tuple[str, Process]]:
    """Each task in turn, with ledger and files below `home`."""
    for task in TASKS:
        arguments = ["--hosts", str(hosts), "--findings", str(findings), "--task", task, "--home", str(home)]
        yield task, process("benchmarks.stations", arguments)


# --- inside the process -----------------------------------------------------------------------------------------------------


def _gateway(hosts: int, findings: int, *, again: bool) -> Any:
    """Inspector's and EC2's part: pages that are made up while they are read.

    Args:
        again: the second look, at which every other finding is gone.
    """
    from benchmarks import estate
    from patchwave.aws.inspector import Inspector
    from patchwave.campaign.fleet import Group, Host
    from patchwave.campaign.values import Cell

    class Made(Inspector):
        def __init__(self) -> None:
            self.asked = 0
            self._hosts: list[Host] = []

        def pages(self, cell: Cell, operation_id: str, **_: Any) -> Iterator[Mapping[str, Any]]:  # type: ignore[override]
            if operation_id == "inspector2:ListFindings":
                number = estate.CELLS.index(cell)
                count = findings // len(estate.CELLS)
                found = estate.findings(count, hosts=hosts, seed=1 + number, within=cell)
                rows = (estate.on_the_wire(one) for place, one in enumerate(found) if not (again and place % 2))
                key = "findings"
            else:
                rows, key = estate.covered(cell, hosts), "coveredResources"
            while page := [one for _, one in zip(range(PAGE), rows, strict=False)]:
                self.asked += 1
                yield {key: page}

        def take_calls(self) -> dict[str, int]:
            return {"inspector2:ListFindings": self.asked}

        def fleet(self, cell: Cell, _tags: Any) -> list[Host]:
            self._hosts = self._hosts or estate.hosts(hosts)
            return [host for host in self._hosts if host.cell == cell]

        def surroundings(self, _cell: Cell, of: list[Host]) -> tuple[list[Host], list[Group]]:
            return of, estate.groups(of)

        def patch_states(self, _cell: Cell, _ids: Any) -> dict[Any, Any]:
            return {}

        def rule_compliance(self, _cell: Cell, _rule: str) -> tuple[Any, ...]:
            return ()

        def root_volumes(self, _cell: Cell, _ids: Any) -> tuple[Any, ...]:
            return ()

        def calendar_closures(self, *_: Any, **__: Any) -> tuple[Any, ...]:
            return ()

    return Made()


def _operator(task: str) -> Any:
    from benchmarks import estate
    from patchwave.campaign import policy
    from patchwave.operators import compliance, findings, plan, report

    if task == "scan_findings":
        read = policy.read(POLICIES / "standard.yaml").model_dump_json(by_alias=True)
        return findings.ScanFindingsOperator(task_id=task, campaign_json=estate.campaign().to_json(), policy_json=read)
    makers: Mapping[str, Any] = {
        "classify": findings.ClassifyOperator,
        "plan": plan.PlanOperator,
        "report": report.ReportOperator,
        "verify": lambda task_id: compliance.VerifyComplianceOperator(task_id=task_id, document="compliance.after"),
    }
    return makers[task](task_id=task)


def _inside(task: str, hosts: int, findings: int, home: Path) -> dict[str, Any]:
    from patchwave.ledger.connect import ledger_at

    logging.disable(logging.INFO)
    ledger = ledger_at(f"sqlite:///{home / 'ledger.db'}")
    operator = _operator("classify" if task == "nothing" else task)
    if task == "nothing":
        return {"said": "nothing"}
    gateway = _gateway(hosts, findings, again=task == "verify")
    hook = SimpleNamespace(gateway=lambda: gateway, lists_bucket=lambda _region: "lists")
    dag_run = SimpleNamespace(
        dag_id="whole-company", run_id="manual__1", run_type="manual", triggering_user_name="uma", logical_date=None,
        run_after=datetime.now(UTC),
    )  # fmt: skip
    ti = SimpleNamespace(id="try-1", map_index=-1, max_tries=0, get_task_states=lambda **_: {})
    context = {"dag_run": dag_run, "ti": ti, "task_instance": ti, "params": {"dry_run": False}, "task": operator}
    os.environ["PATCHWAVE_RUNS_DIR"] = str(home / "runs")
    with ExitStack() as stack:
        stack.enter_context(patch("patchwave.operators.base.open_ledger", lambda _: ledger))
        stack.enter_context(patch("patchwave.operators.base.PatchwaveAwsHook", lambda **_: hook))
        return {"said": str(operator.execute(context))}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say whether the target is kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stations", description="Measure the tasks of a large campaign.")
    parser.add_argument("--hosts", type=int, default=HOSTS, help="default: %(default)s")
    parser.add_argument("--findings", type=int, default=FINDINGS, help="default: %(default)s")
    parser.add_argument("--task", choices=TASKS, help="only this one, in this process")
    parser.add_argument("--home", type=Path, help="where the ledger and the files are; given with --task")
    options = parser.parse_args(arguments)
    if options.task:
        print(json.dumps(_inside(options.task, options.hosts, options.findings, options.home)))
        return 0
    broken = []
    with tempfile.TemporaryDirectory(prefix="pw-stations-") as home:
        print(HEAD, flush=True)
        for task, took in measured(Path(home), hosts=options.hosts, findings=options.findings):
            print(row(task, took), flush=True)
            broken += missed(task, took)
        size = sum(file.stat().st_size for file in Path(home).glob("ledger.db*")) / 2**20
        print(f"\n{options.findings:,} findings, {options.hosts:,} hosts; the ledger has {size:,.0f} MiB on disk")
    for sentence in broken:
        print(sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
