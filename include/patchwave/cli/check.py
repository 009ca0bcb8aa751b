"""Did a rehearsal keep the rules of a rollout? Fetches awsim's journal and the ledger, and prints what the rule checker says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from patchwave.campaign import audit, lockfile, overrides
from patchwave.campaign import plan as plans
from patchwave.campaign.audit import Broken, Rule, RunTrace
from patchwave.campaign.baselines import Apply
from patchwave.campaign.definition import Campaign
from patchwave.campaign.errors import PatchwaveError
from patchwave.campaign.folders import run_folder
from patchwave.campaign.policy import Policy
from patchwave.campaign.values import HostId, RunId
from patchwave.cli.environment import REPOSITORY, Places
from patchwave.cli.ports import HOST
from patchwave.cli.simulator import Awsim
from patchwave.ledger.connect import ledger_at
from patchwave.ledger.store import Ledger, Run, RunOutcome

LATEST = "latest"
STALL = timedelta(seconds=2)
"""How long a rehearsal on a busy machine may stand still, in real time: its clock runs on meanwhile."""
MOST_RUNS = 500

KEPT, BROKEN, IMPOSSIBLE = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the caller may choose; the defaults are those of ``make demo``.

    Attributes:
        run: ``latest``, a dag run id, or ``<dag id>/<dag run id>``.
        ledger: its address, as `ledger.connect.ledger_at` takes it.
        runs: where the reports' folders are; a journal that was saved there is read when awsim has stopped.
    """

    run: str = LATEST
    awsim: str = f"http://{HOST}:5005"
    ledger: str = Places(home=REPOSITORY / "var" / "demo").ledger_url
    runs: Path = REPOSITORY / "var" / "runs"


def check(options: Options, console: Console) -> int:
    """Print the rules with what was seen.

    Returns:
        0 if all were kept, 1 if one was broken, 2 if that could not be found out.
    """
    try:
        ledger = existing_ledger(options.ledger)
        run = _chosen(ledger, options.run)
        lines, source = _journal(options, run)
        trace = trace_of(ledger, run.id, lines)
    except (PatchwaveError, LookupError, OSError) as problem:
        console.print(Text(f"this run cannot be checked: {problem}", style="red"), soft_wrap=True)
        return IMPOSSIBLE
    except ValidationError:
        console.print(Text("this run cannot be checked: another version of Patchwave made its plan", style="red"), soft_wrap=True)
        return IMPOSSIBLE
    found = audit.broken(trace)
    console.print(_table(found))
    for one in found:
        console.print(Text(f"{one.rule.value}: {one.subject}: {one.seen}", style="red"), soft_wrap=True)
        for place in one.where:
            console.print(Text(f"    {place}", style="dim"), soft_wrap=True)
    console.print(Text(summary(run, trace, found), style="red" if found else "green"), soft_wrap=True)
    console.print(Text(f"judged by {source} and by the ledger", style="dim"), soft_wrap=True)
    return BROKEN if found else KEPT


def summary(run: Run, trace: RunTrace, found: Sequence[Broken]) -> str:
    """One line."""
    broken = len({one.rule for one in found})
    begun = sum(1 for one in trace.events if one.event == "command_begun")
    word = "" if trace.ended else ", which still goes on"
    facts = f"{len(trace.hosts)} hosts, {begun} commands that began on hosts, {len(trace.records)} records"
    return f"{len(Rule)} rules, {broken} broken: run {run.id}{word}; {facts}"


def in_one_line(ledger: Ledger, run: RunId, journal: str) -> tuple[str, bool]:
    """The summary and the first break of a rule; whether there is one.

    Args:
        journal: awsim's, as it is printed.
    """
    trace = trace_of(ledger, run, lines_of(journal))
    found = audit.broken(trace)
    first = f"; first: {found[0]}" if found else ""
    return summary(ledger.run(run), trace, found) + first, bool(found)


def trace_of(ledger: Ledger, run: RunId, lines: Sequence[Mapping[str, Any]]) -> RunTrace:
    """All that is known of a run, from the ledger and awsim's journal.

    Raises:
        KeyError: the ledger does not know it.
    """
    row = ledger.run(run)
    documents = ledger.documents(run)
    names = plans.plan_names(documents)
    plan = plans.from_json(ledger.document(run, names[-1])) if names else None
    order = [stage.name for stage in plan.stages] if plan else []
    others = [one.id for one in ledger.runs(limit=MOST_RUNS) if one.id != run]
    freezes = Campaign.model_validate(row.definition).freezes if row.definition else ()
    return RunTrace(
        run=run,
        closures=tuple(freeze.closure for freeze in freezes),
        campaign=row.campaign,
        plan=plan,
        stages=ledger.stages(run),
        hosts=ledger.hosts(run),
        dispatches=ledger.dispatches(run),
        decisions=ledger.decisions(run),
        records=ledger.journal(run),
        lines=lines,
        waits=ledger.waits(run),
        ended=row.outcome is not RunOutcome.RUNNING,
        elsewhere=frozenset(dispatch.token for other in others for dispatch in ledger.dispatches(other)),
        began=row.began_at,
        apart=max(timedelta(minutes=1), STALL * row.speed),
        made=_digest(ledger, run, names[0]) if names else None,
        asked={stage: _digest(ledger, run, plans.in_force(documents, order, stage=stage)) for stage in order},
        overridden=_overridden(ledger, row),
    )


def _overridden(ledger: Ledger, run: Run) -> frozenset[HostId]:
    """Hosts whose Installs went by the policy's baselines; what a lockfile holds for is patched by that alone."""
    if run.policy.get("apply_baselines") != Apply.OVERRIDE.value:
        return frozenset()
    override = overrides.of(Policy.model_validate(run.policy), window=True)
    campaign = Campaign.model_validate(run.definition)
    locked: set[str] = set()
    if lockfile.DOCUMENT in ledger.documents(run.id):
        made, _ = lockfile.opened(ledger.document(run.id, lockfile.DOCUMENT), file=f"the ledger's lockfile of {run.id}")
        locked = {one.platform for one in made.platforms}
    return frozenset(
        row.host
        for row in ledger.hosts(run.id)
        if override is not None
        and override.on(row.platform) is not None
        and not (campaign.is_locked(row.stage) and row.platform in locked)
    )


def _digest(ledger: Ledger, run: RunId, name: str) -> str:
    """As the operators reckon it: of the plan as this version reads it."""
    return plans.digest(plans.from_json(ledger.document(run, name)))


def lines_of(text: str) -> list[dict[str, Any]]:
    """awsim's journal as it is printed."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def existing_ledger(url: str) -> Ledger:
    """The ledger at that address.

    Raises:
        FileNotFoundError: it would be made only now.
    """
    file = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
    if file and not Path(file).is_file():
        raise FileNotFoundError(f"there is no ledger at {file}; rehearse first (make demo), or say where it is (--ledger)")
    return ledger_at(url)


def _chosen(ledger: Ledger, name: str) -> Run:
    runs = ledger.runs(limit=1 if name == LATEST else MOST_RUNS)
    if name == LATEST and runs:
        return runs[0]
    found = [run for run in runs if name in (run.id, run.dag_run_id)]
    if not found:
        known = ", ".join(run.id for run in runs[:10]) or "none"
        raise LookupError(f"the ledger has no run {name}; it has {known}")
    return found[0]


def _journal(options: Options, run: Run) -> tuple[list[dict[str, Any]], str]:
    """awsim's journal: from awsim itself, or as the demo has saved it; whose words it is."""
    saved = run_folder(options.runs, run.id) / "journal.jsonl"
    awsim = Awsim(options.awsim)
    try:
        lines = lines_of(awsim.journal())
    except httpx.HTTPError as silence:
        if not saved.is_file():
            raise LookupError(f"awsim does not answer at {options.awsim} ({silence}), and there is no {saved}") from silence
        return lines_of(saved.read_text(encoding="utf-8")), f"awsim's journal as it was saved in {saved}"
    finally:
        awsim.close()
    return lines, f"awsim's journal at {options.awsim}"


def _table(found: Sequence[Broken]) -> Table:
    table = Table(title="Rules of a rollout", title_justify="left")
    table.add_column("rule")
    table.add_column("")
    table.add_column("what it says")
    for rule in Rule:
        times = sum(1 for one in found if one.rule is rule)
        word = Text(f"broken, {times} x", style="red") if times else Text("kept", style="green")
        table.add_row(rule.value, word, audit.MEANING[rule])
    return table
