"""How does one take a run back from the command line? Airflow is asked to: plan, approval and all the rest are its tasks'."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from patchwave.campaign.errors import PatchwaveError, Permanent
from patchwave.campaign.rollback import DAG
from patchwave.cli.plan import password_of
from patchwave.cli.ports import HOST
from patchwave.cli.rest import Airflow

TRIGGERED, IMPOSSIBLE = 0, 2


class NoRollback(Permanent):
    """Airflow cannot begin one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the caller may choose.

    Attributes:
        run: ``<dag id>/<dag run id>``, or a dag run id that only one run has.
        stages, hosts: only these; none means all on whom the run installed something.
        dry_run: make the plan and change nothing.
    """

    run: str
    stages: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    dry_run: bool = False
    airflow: str = f"http://{HOST}:8080"
    user: str = "ana"


def rollback(options: Options, console: Console) -> int:
    """Have Airflow begin a rollback, and say where it goes on.

    Returns:
        0; 2 if it could not be begun.
    """
    try:
        run = _trigger(options)
    except (PatchwaveError, OSError) as problem:
        console.print(Text(f"nothing is rolled back: {problem}", style="red"), soft_wrap=True)
        return IMPOSSIBLE
    console.print(Text(f"{options.airflow}/dags/{DAG}/runs/{quote(run, safe='')}"), soft_wrap=True)
    what = "makes the plan of a rollback" if options.dry_run else "makes the plan, and asks for approval before anything is done"
    console.print(Text(f"{run} {what}"), soft_wrap=True)
    return TRIGGERED


def _trigger(options: Options) -> str:
    airflow = Airflow(options.airflow, user=options.user, password=password_of(options.user), attempts=3)
    try:
        dag = airflow.dag(DAG)
        if dag is None:
            raise NoRollback(f"Airflow at {options.airflow} has no DAG {DAG}; it comes with dags/rollback.py")
        if dag.get("is_paused"):
            raise NoRollback(f"the DAG {DAG} is paused, so its runs wait for ever; unpause it in Airflow")
        run = f"rollback-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        conf = {"run": options.run, "dry_run": options.dry_run}
        conf |= {"stages": list(options.stages)} if options.stages else {}
        conf |= {"hosts": list(options.hosts)} if options.hosts else {}
        airflow.trigger(DAG, run, conf)
        return run
    finally:
        airflow.close()
