"""Which subcommand was called, with which options?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

UNATTENDED = 1800.0
"""Seconds after which a demo that nobody attends (``--approve --exit``) gives up rather than hang in a build for ever."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and call; the exit status."""
    options = _parser().parse_args(arguments)
    call: Callable[[argparse.Namespace, Console], int] = options.call
    return call(options, Console())


def _demo(options: argparse.Namespace, console: Console) -> int:
    from patchwave.cli.demo import Options, demo  # Airflow's requirements are loaded for this only

    limit = options.time_limit
    if limit is None and options.approve and options.leave:
        limit = UNATTENDED
    chosen = {
        name: getattr(options, name)
        for name in ("port", "awsim_port", "speed", "seed", "campaign", "world", "home", "runs")
        if getattr(options, name) is not None
    }
    return demo(Options(approve=options.approve, leave=options.leave, time_limit=limit, **chosen), console)


def _check(options: argparse.Namespace, console: Console) -> int:
    from patchwave.cli.check import Options, check

    chosen = {name: getattr(options, name) for name in ("awsim", "ledger", "runs") if getattr(options, name) is not None}
    return check(Options(run=options.run, **chosen), console)


def _plan(options: argparse.Namespace, console: Console) -> int:
    from patchwave.cli.plan import Options, plan

    names = ("name", "against", "ledger", "airflow", "user")
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return plan(Options(fresh=options.fresh, markdown=options.markdown, exit_code=options.exit_code, **chosen), console)


def _rollback(options: argparse.Namespace, console: Console) -> int:
    from patchwave.cli.rollback import Options, rollback

    chosen = {name: getattr(options, name) for name in ("airflow", "user") if getattr(options, name) is not None}
    stages, hosts = tuple(options.stage or ()), tuple(options.host or ())
    return rollback(Options(run=options.run, stages=stages, hosts=hosts, dry_run=options.dry_run, **chosen), console)


def _validate(options: argparse.Namespace, console: Console) -> int:
    from patchwave.cli.validate import validate

    return validate(options.files, console)


def _compose(options: argparse.Namespace, console: Console) -> int:
    from patchwave.campaign.errors import PatchwaveError
    from patchwave.cli import compose

    try:
        if options.what == "up":
            compose.up(lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
        else:
            compose.down()
    except PatchwaveError as problem:
        console.print(f"{type(problem).__name__}: {problem}", style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _schema(_options: argparse.Namespace, _console: Console) -> int:
    from patchwave.campaign.definition import schema_text

    sys.stdout.write(schema_text())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m patchwave", description="Patch campaigns on AWS as Airflow DAGs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="start Airflow and a simulated AWS, run one campaign, show its result",
        description="Start Airflow and awsim on this machine, run one campaign, show what happens and its result.",
    )
    demo.add_argument("--approve", action="store_true", help="answer every gate with yes")
    demo.add_argument("--exit", action="store_true", dest="leave", help="stop everything when the campaign has ended")
    demo.add_argument("--port", type=_port, metavar="N", help="of Airflow's UI (8080)")
    demo.add_argument("--awsim-port", type=_port, metavar="N", help="of the simulated AWS (5005)")
    demo.add_argument("--speed", type=_speed, metavar="X", help="seconds of the campaign in one second of yours (240)")
    demo.add_argument("--seed", type=int, metavar="N", help="the same seed makes the same world (1)")
    demo.add_argument("--campaign", metavar="NAME", help="campaign to run (weekly-linux)")
    demo.add_argument(
        "--world", type=_file, metavar="FILE",
        help="fleet of the simulated AWS (in include/worlds: the one named as the campaign, else small.yaml)",
    )  # fmt: skip
    demo.add_argument("--home", type=_folder, metavar="DIR", help="Airflow's home, kept between runs (var/demo)")
    demo.add_argument("--runs", type=_folder, metavar="DIR", help="where reports go (var/runs)")
    demo.add_argument(
        "--time-limit", type=float, metavar="S",
        help=f"seconds that the campaign may take (unlimited; with --approve --exit {UNATTENDED:g})",
    )  # fmt: skip
    demo.set_defaults(call=_demo)

    check = commands.add_parser(
        "check",
        help="check a rehearsal against the rules of a rollout",
        description="Compare what really happened to the hosts of a rehearsal (awsim's journal) with the ledger, and say which "
        "rules of a rollout were broken. Exit status: 0 none, 1 at least one, 2 it could not be found out.",
    )
    check.add_argument("run", nargs="?", default="latest", metavar="RUN", help="a dag run id, or latest (latest)")
    check.add_argument("--awsim", metavar="URL", help="of the simulated AWS (http://127.0.0.1:5005, as make demo starts it)")
    check.add_argument("--ledger", metavar="URL", help="of the ledger, as SQLAlchemy writes it (make demo's)")
    check.add_argument(
        "--runs", type=_folder, metavar="DIR", help="where reports are, and journals of demos that ended (var/runs)"
    )
    check.set_defaults(call=_check)

    plan = commands.add_parser(
        "plan",
        help="show the plan of a run, or what it has otherwise than another",
        description="Show a plan of the ledger, or its difference from another plan: + added, - removed, ~ changed, the counts "
        "last. Exit status: 0, or 2 if a plan could not be found; with --exit-code 1 if there is a difference.",
    )
    plan.add_argument(
        "name", nargs="?", metavar="CAMPAIGN", help="a campaign (its newest plan), a dag run id, or latest (latest)"
    )
    plan.add_argument(
        "--against",
        metavar="RUN",
        help="what it is compared with: a dag run id, a campaign, or approved (approved last before it)",
    )
    plan.add_argument("--fresh", action="store_true", help="have Airflow make a new plan of the campaign first, by a dry run")
    plan.add_argument("--markdown", action="store_true", help="for a page or a ticket")
    plan.add_argument("--exit-code", action="store_true", help="exit with 1 if there is a difference")
    plan.add_argument("--ledger", metavar="URL", help="of the ledger, as SQLAlchemy writes it (make demo's)")
    plan.add_argument("--airflow", metavar="URL", help="for --fresh (http://127.0.0.1:8080)")
    plan.add_argument(
        "--user", metavar="NAME", help="for --fresh; the password is taken from PATCHWAVE_PASSWORD (ana, make demo's)"
    )
    plan.set_defaults(call=_plan)

    rollback = commands.add_parser(
        "rollback",
        help="take back what a run did, by the snapshots that it took",
        description="Have Airflow begin the campaign `rollback` for a run: it makes a plan, asks for approval, and brings hosts "
        "back by the snapshots that were taken before they were patched. Exit status: 0 it is begun, 2 it could not be.",
    )
    rollback.add_argument("run", metavar="RUN", help="CAMPAIGN/RUN-ID, or a dag run id that only one run has")
    rollback.add_argument("--stage", action="append", metavar="NAME", help="only hosts of this stage; may be given several times")
    rollback.add_argument("--host", action="append", metavar="ID", help="only this host, by id or name; several times, too")
    rollback.add_argument("--dry-run", action="store_true", help="make the plan and change nothing")
    rollback.add_argument("--airflow", metavar="URL", help="(http://127.0.0.1:8080)")
    rollback.add_argument("--user", metavar="NAME", help="the password is taken from PATCHWAVE_PASSWORD (ana, make demo's)")
    rollback.set_defaults(call=_rollback)

    validate = commands.add_parser(
        "validate",
        help="check campaign files, policies, tables and catalogues",
        description="Check campaign files, policies, decision tables and what deadlines are decided by (CISA's catalogue and CVE "
        "records as JSON, EPSS as CSV); every problem with file, line and field.",
    )
    validate.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: all campaigns, policies and tables")
    validate.set_defaults(call=_validate)

    compose = commands.add_parser("compose", help="start or stop the containers (make up, make down)")
    compose.add_argument("what", choices=("up", "down"))
    compose.set_defaults(call=_compose)

    schema = commands.add_parser("schema", help="print the JSON schema of campaign files, for editors")
    schema.set_defaults(call=_schema)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; 1 to 65535 is")
    return int(text)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no speed; a number above 0 is, 1 being real time")
    return speed


def _file(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def _folder(text: str) -> Path:
    return Path(text).resolve()


if __name__ == "__main__":
    sys.exit(main())
