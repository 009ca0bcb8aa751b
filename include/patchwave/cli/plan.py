"""What is planned, and what would be done otherwise than in another run?

Plans come from the ledger, where every run and every dry run leaves one. A fresh one needs AWS, which the command line does not
have: Airflow is asked for a dry run then, so that a plan is made in one place only and with the rights of that place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from patchwave.campaign import difference
from patchwave.campaign import plan as plans
from patchwave.campaign.errors import PatchwaveError, Permanent
from patchwave.campaign.plan import Plan
from patchwave.campaign.values import RunId
from patchwave.cli import passwords
from patchwave.cli.check import LATEST, existing_ledger
from patchwave.cli.environment import REPOSITORY, Places
from patchwave.cli.ports import HOST
from patchwave.cli.rest import Airflow
from patchwave.ledger import approved
from patchwave.ledger.store import Ledger, Run

APPROVED = "approved"
"""Instead of a run: the plan of the same campaign that was approved last."""
PASSWORD = "PATCHWAVE_PASSWORD"  # noqa: S105 - the name of a variable
MOST_RUNS = 500
POLL = 2.0

SAME, DIFFERENT, IMPOSSIBLE = 0, 1, 2


class NoPlan(Permanent):
    """There is no such plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the caller may choose; the defaults are those of ``make demo``.

    Attributes:
        name: a campaign (its newest plan), ``latest``, a dag run id, or ``<dag id>/<dag run id>``.
        against: as `name`, or ``approved``; None: the plan itself is printed.
        fresh: ask Airflow for a dry run of the campaign `name` first, and take its plan.
        exit_code: 1 if there is a difference.
        patience: seconds that a dry run may take.
    """

    name: str = LATEST
    against: str | None = None
    fresh: bool = False
    markdown: bool = False
    exit_code: bool = False
    ledger: str = Places(home=REPOSITORY / "var" / "demo").ledger_url
    airflow: str = f"http://{HOST}:8080"
    user: str = "ana"
    patience: float = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A plan, and the run that made it."""

    run: Run
    plan: Plan


def plan(options: Options, console: Console, *, pause: Callable[[float], None] = time.sleep) -> int:
    """Print a plan, or what it has otherwise than another.

    Returns:
        0; 2 if it could not be found; with `exit_code` 1 if the two differ.
    """
    try:
        ledger = existing_ledger(options.ledger)
        name = _dry_run(options, ledger, pause) if options.fresh else options.name
        chosen = _chosen(ledger, name)
        other = None if options.against is None else _other(ledger, options.against, chosen)
    except (PatchwaveError, LookupError, OSError) as problem:
        console.print(Text(f"this plan cannot be shown: {problem}", style="red"), soft_wrap=True)
        return IMPOSSIBLE
    if other is None:
        console.print(Text(plans.markdown(chosen.plan)), soft_wrap=True)
        return SAME
    found = difference.between(
        other.plan, chosen.plan, policies=(approved.policy_digest(other.run), approved.policy_digest(chosen.run))
    )
    if options.markdown:
        console.print(Text(difference.markdown(found, title=f"Difference of {chosen.run.id}", most=None)), soft_wrap=True)
    else:
        styles = {"+": "green", "-": "red", "~": "yellow"}
        for line in difference.text(found).splitlines():
            console.print(Text(line, style=styles.get(line[:1], "")), soft_wrap=True)
    return DIFFERENT if found and options.exit_code else SAME


def _chosen(ledger: Ledger, name: str) -> Found:
    runs = ledger.runs(limit=MOST_RUNS)
    named = [run for run in runs if name in (LATEST, run.id, run.dag_run_id, run.campaign)]
    if not named:
        known = ", ".join(dict.fromkeys(run.campaign for run in runs)) or "none"
        raise NoPlan(f"the ledger has no run and no campaign {name}; it has runs of: {known}")
    for run in named:
        if names := plans.plan_names(ledger.documents(run.id)):
            return Found(run=run, plan=_read(ledger, run.id, names[-1]))
    raise NoPlan(f"no run of that name has a plan yet: {', '.join(run.id for run in named[:10])}")


def _read(ledger: Ledger, run: RunId, name: str) -> Plan:
    try:
        return plans.from_json(ledger.document(run, name))
    except ValidationError as error:
        raise NoPlan(f"another version of Patchwave made the plan of {run}") from error


def _other(ledger: Ledger, name: str, chosen: Found) -> Found:
    if name == APPROVED:
        found = approved.newest(ledger, chosen.run.campaign, before=chosen.run.id)
        if found is None:
            raise NoPlan(f"no plan of {chosen.run.campaign} was approved before {chosen.run.id}")
        return Found(run=found.run, plan=found.plan)
    return _chosen(ledger, name)


def _dry_run(options: Options, ledger: Ledger, pause: Callable[[float], None]) -> RunId:
    """Have Airflow make a plan, and wait for it."""
    airflow = Airflow(options.airflow, user=options.user, password=password_of(options.user), attempts=3, pause=pause)
    try:
        dag = airflow.dag(options.name)
        if dag is None:
            raise NoPlan(f"Airflow at {options.airflow} has no DAG {options.name}; --fresh takes the name of a campaign")
        if dag.get("is_paused"):
            raise NoPlan(f"the DAG {options.name} is paused, so it makes no plan; unpause it in Airflow")
        before = [run["dag_run_id"] for run in airflow.runs_in_flight(options.name)]
        if before:
            raise NoPlan(f"one run of a campaign at a time: {before[0]} has not ended; without --fresh its plan is shown")
        run = f"plan-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        airflow.trigger(options.name, run, {"dry_run": True})
        for _ in range(max(1, round(options.patience / POLL))):
            state = str(airflow.run(options.name, run)["state"])
            if state == "success":
                return RunId(f"{options.name}/{run}")
            if state == "failed":
                raise NoPlan(f"the dry run {run} failed; its log in Airflow says why")
            pause(POLL)
        airflow.fail_run(options.name, run)
        raise NoPlan(f"the dry run {run} did not end within {options.patience:.0f} s, and was stopped")
    finally:
        airflow.close()


def password_of(user: str) -> str:
    """The password of somebody who signs in to Airflow: from the environment, or make demo's.

    Raises:
        NoPlan: nobody has said it.
    """
    given = os.environ.get(PASSWORD)
    if given:
        return given
    file = Places(home=REPOSITORY / "var" / "demo").passwords
    known = passwords.ensure(file) if file.is_file() else {}
    if user not in known:
        raise NoPlan(f"there is no password of {user}: put it into the environment as {PASSWORD}")
    return known[user]
