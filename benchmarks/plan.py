"""How long does it take to classify a million findings and to plan 100,000 hosts, and in how much memory?
`python -m benchmarks.plan [--hosts N] [--findings N]`, or `make bench-plan`.

Each way is a process of its own, measured from outside (`os.wait4`):

- Patchwave: `severity.classify`, which takes the findings one at a time as they are made up, then `plan.build` and `plan.digest`,
  by a policy with days by severity and by one with a decision table;
- the floor: the same findings and hosts, and nothing but a group-by of them: by host and severity, with the earliest moment. It
  is done with `dict`s and by sqlite3; neither polars nor pandas is among our requirements.
- the rows alone: what it costs to make them up, which every way pays.

A Markdown table is printed, for `docs/benchmarks.md`. Ends with status 1 when a target is missed. Judged is processor time, which
is what the wall would be on a machine with nothing else to do, for all of it is one thread; less that of the rows alone, which is
this benchmark's own work.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

HOSTS = 100_000
FINDINGS = 1_000_000
SECONDS = 30.0
MEBIBYTES = 1024.0
"""Targets for so many hosts and findings; fewer are held to them, too."""

WAYS = {
    "standard": "Patchwave, days by severity",
    "bod-26-04": "Patchwave, decision table BOD 26-04",
    "dict": "group-by with dicts",
    "sqlite": "group-by with sqlite3",
    "rows": "the rows alone",
}
JUDGED = frozenset({"standard", "bod-26-04"})
POLICIES = Path(__file__).parents[1] / "include" / "policies"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One process.

    Attributes:
        processor: seconds that processors worked for it.
        memory: the most that it ever had, in MiB.
        parts: seconds of processor time by part, as the process says itself.
        said: what came out, in words.
        tree: where the measured code is.
    """

    way: str
    wall: float
    processor: float
    memory: float
    parts: dict[str, float]
    said: str
    tree: str = ""

    def row(self) -> str:
        """A line of the table."""
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.parts.items())
        return f"| {WAYS[self.way]} | {self.wall:.1f} s | {self.processor:.1f} s | {self.memory:,.0f} MiB | {parts} |"

    def missed(self, rows: float) -> list[str]:
        """Targets that are not kept, in sentences; a floor has none.

        Args:
            rows: seconds of processor time that the rows alone take.
        """
        found = []
        if self.way in JUDGED and self.processor - rows > SECONDS:
            found.append(f"{self.way}: {self.processor - rows:.1f} s of processor time beside the rows, wanted are {SECONDS:g} s")
        if self.way in JUDGED and self.memory > MEBIBYTES:
            found.append(f"{self.way}: {self.memory:,.0f} MiB, wanted are {MEBIBYTES:,.0f} MiB")
        return found


HEAD = """\
| way | wall | of it processor | memory, at most | processor by part |
|---|---|---|---|---|"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """What a process took, measured from outside.

    Attributes:
        processor: seconds that processors worked for it.
        memory: the most that it ever had, in MiB.
        printed: its last line, as JSON.
    """

    wall: float
    processor: float
    memory: float
    printed: dict[str, Any]


ROOT = Path(__file__).parents[1]


def process(module: str, arguments: list[str]) -> Process:
    """Run a module of this tree in a process of its own.

    An environment may have another tree installed, so the process is told to look here first.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "include"), str(ROOT)])}
    begun = time.perf_counter()
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)  # noqa: S603 - our own command line
    text = started.stdout.read() if started.stdout else ""
    _, status, used = os.wait4(started.pid, 0)
    wall = time.perf_counter() - begun
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {started.returncode}")
    return Process(
        wall=wall, processor=used.ru_utime + used.ru_stime, memory=used.ru_maxrss / 1024,  # KiB, on Linux
        printed=json.loads(text.splitlines()[-1]),
    )  # fmt: skip


def measured(way: str, *, hosts: int, findings: int) -> Measured:
    """One way, in a process of its own."""
    took = process("benchmarks.plan", ["--hosts", str(hosts), "--findings", str(findings), "--way", way])
    return Measured(
        way=way, wall=took.wall, processor=took.processor, memory=took.memory,
        parts=took.printed["parts"], said=took.printed["said"], tree=took.printed["tree"],
    )  # fmt: skip


# --- inside the process -----------------------------------------------------------------------------------------------------


class _Parts:
    """Processor time by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.process_time()

    def ends(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] = now - self._since
        self._since = now


def _patchwave(policy_name: str, hosts: int, findings: int) -> dict[str, Any]:
    from benchmarks import estate
    from patchwave.campaign import plan as plans
    from patchwave.campaign import policy, severity

    parts = _Parts()
    by = policy.read(POLICIES / f"{policy_name}.yaml")
    campaign, there = estate.campaign(), estate.hosts(hosts)
    groups = estate.groups(there)
    parts.ends("hosts")
    known = estate.known(there) if policy_name == "bod-26-04" else severity.catalogues.NOTHING
    triage = severity.classify(
        estate.findings(findings, hosts=hosts), by, now=estate.NOW, coverage=estate.coverage(there), known=known
    )
    parts.ends("findings and classify")
    plan = plans.build(
        campaign, there, triage, run=estate.RUN, now=estate.NOW, dry_run=True, restriction=plans.Restriction(),
        definition=campaign.digest, requested_by=None, groups=groups,
    )  # fmt: skip
    parts.ends("plan")
    digest = plans.digest(plan)
    parts.ends("digest")
    return {"parts": parts.seconds, "said": f"plan {digest[:12]}: {plans.summary(plan)}"}


def _with_dicts(hosts: int, findings: int) -> dict[str, Any]:
    from benchmarks import estate

    parts = _Parts()
    estate.groups(estate.hosts(hosts))
    parts.ends("hosts")
    counted: dict[tuple[str, str], int] = {}
    earliest: dict[tuple[str, str], datetime] = {}
    for one in estate.findings(findings, hosts=hosts):
        key = one.resource, one.severity.value
        counted[key] = counted.get(key, 0) + 1
        if key not in earliest or one.first_seen < earliest[key]:
            earliest[key] = one.first_seen
    parts.ends("findings and group-by")
    return {"parts": parts.seconds, "said": f"{len(counted)} groups"}


def _with_sqlite(hosts: int, findings: int) -> dict[str, Any]:
    from benchmarks import estate

    parts = _Parts()
    estate.groups(estate.hosts(hosts))
    parts.ends("hosts")
    database = sqlite3.connect(":memory:")
    database.execute("create table finding (resource text, severity text, first_seen real)")
    rows = ((one.resource, one.severity.value, one.first_seen.timestamp()) for one in estate.findings(findings, hosts=hosts))
    database.executemany("insert into finding values (?, ?, ?)", rows)
    found = database.execute("select resource, severity, count(*), min(first_seen) from finding group by 1, 2").fetchall()
    parts.ends("findings and group-by")
    return {"parts": parts.seconds, "said": f"{len(found)} groups"}


def _rows(hosts: int, findings: int) -> dict[str, Any]:
    from benchmarks import estate

    parts = _Parts()
    estate.groups(estate.hosts(hosts))
    parts.ends("hosts")
    count = sum(1 for _ in estate.findings(findings, hosts=hosts))
    parts.ends("findings")
    return {"parts": parts.seconds, "said": f"{count} rows"}


def _inside(way: str, hosts: int, findings: int) -> dict[str, Any]:
    others: dict[str, Callable[[int, int], dict[str, Any]]] = {"dict": _with_dicts, "sqlite": _with_sqlite, "rows": _rows}
    return others[way](hosts, findings) if way in others else _patchwave(way, hosts, findings)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say whether all targets are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description="Measure classify and plan.")
    parser.add_argument("--hosts", type=int, default=HOSTS, help="default: %(default)s")
    parser.add_argument("--findings", type=int, default=FINDINGS, help="default: %(default)s")
    parser.add_argument("--way", choices=sorted(WAYS), help="only this one, in this process, and its figures as JSON")
    options = parser.parse_args(arguments)
    if options.way:
        from patchwave import campaign

        print(json.dumps(_inside(options.way, options.hosts, options.findings) | {"tree": campaign.__path__[0]}))
        return 0
    print(HEAD, flush=True)
    results = []
    for way in WAYS:
        results.append(measured(way, hosts=options.hosts, findings=options.findings))
        print(results[-1].row(), flush=True)
    print()
    print("\n".join(f"{one.way}: {one.said}" for one in results))
    rows = next(one.processor for one in results if one.way == "rows")
    broken = [sentence for one in results for sentence in one.missed(rows)]
    for sentence in broken:
        print(sentence, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
