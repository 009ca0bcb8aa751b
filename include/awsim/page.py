"""What does a person see who opens `/_awsim/` in a browser? The clock, the fleet by state, commands, faults, the newest events.

One template beside this module; nothing is loaded from elsewhere, and every value is escaped: tags, comments and names are
whatever callers wrote. `control.py` calls `render`.
"""

from collections import Counter, defaultdict
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined, Template

from awsim import runcommand
from awsim.clock import moment
from awsim.faults import Fault, Throttle
from awsim.host import Host
from awsim.journal import Line

if TYPE_CHECKING:
    from awsim.world import World

STATES = {
    "compliant": "compliant",
    "missing": "misses patches",
    "patching": "is being patched",
    "rebooting": "reboots",
    "lost": "agent lost",
    "unknown": "never scanned",
    "off": "stopped or gone",
}
SHOWN_HOSTS = 400
"""Of a fleet; the others are counted."""
SHOWN_COMMANDS = 20
SHOWN_LINES = 40


def render(world: "World") -> str:
    hosts = world.all_hosts()
    now = world.now
    states = {host.id: state_of(host, now) for host in hosts}
    return _template().render(
        world=world.file.name if world.file else None,
        seed=world.seed,
        total=len(hosts),
        now=f"{moment(world.clock.now()):%Y-%m-%d %H:%M:%S} UTC",
        speed=world.clock.speed,
        elapsed=_elapsed(world.clock.now() - world.clock.base),
        scheduled=len(world.agenda),
        states=STATES,
        counts=Counter(states.values()),
        fleets=_fleets(hosts, states),
        commands=_commands(world),
        faults=[_fault(fault) for fault in world.faults.all()],
        throttles=[_limit(limit) for limit in world.throttles.all()],
        lines=[_line(line) for line in world.journal.last(SHOWN_LINES)],
        refresh_after=2000 if len(hosts) < 5000 else 15_000,
    )


def state_of(host: Host, now: float) -> str:
    """One of `STATES`: what matters most about the host at this moment."""
    if host.state != "running":
        return "off"
    if host.rebooting:
        return "rebooting"
    if host.patching is not None:
        return "patching"
    if host.registered is None or host.ping_status(now) != "Online":
        return "lost"
    if host.report is None:
        return "unknown"
    return "compliant" if host.report.compliant else "missing"


@cache
def _template() -> Template:
    source = (files("awsim") / "templates" / "page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)


def _fleets(hosts: list[Host], states: dict[str, str]) -> list[dict[str, Any]]:
    by_fleet: dict[tuple[str, str, str], list[Host]] = defaultdict(list)
    for host in hosts:
        name = host.name.rpartition("/")[0] or (f"Auto Scaling group {host.group}" if host.group else "launched by callers")
        by_fleet[name, host.account, host.region].append(host)
    fleets = []
    for (name, account, region), members in by_fleet.items():
        shown, rest = members[:SHOWN_HOSTS], members[SHOWN_HOSTS:]
        fleets.append(
            {
                "name": name,
                "account": account,
                "region": region,
                "size": len(members),
                "group": members[0].group if "/" in members[0].name else None,
                "shown": [{"state": states[host.id], "title": _title(host, states[host.id])} for host in shown],
                "more": len(rest),
                "rest": sorted(Counter(states[host.id] for host in rest).items()),
            }
        )
    return fleets


def _title(host: Host, state: str) -> str:
    missing = len(host.report.failing()) if host.report is not None else None
    told = [host.id, host.name if host.name != host.id else "", host.platform.key, host.zone, STATES[state]]
    if missing:
        told.append(f"{missing} patches not in order")
    return ", ".join(part for part in told if part)


def _commands(world: "World") -> list[dict[str, Any]]:
    sent = [command for account, region in world.cells for command in runcommand.book(world, account, region).commands.values()]
    newest = sorted(sent, key=lambda command: command.requested, reverse=True)[:SHOWN_COMMANDS]
    return [
        {
            "id": command.id,
            "at": f"{moment(command.requested):%m-%d %H:%M:%S}",
            "document": command.document.rpartition("document/")[2] or command.document,
            "operation": (command.parameters.get("Operation") or [""])[0],
            "status": command.status()[1],
            "targets": command.target_count,
            "done": command.completed(),
            "errors": command.errors(),
            "comment": command.comment,
        }
        for command in newest
    ]


def _fault(fault: Fault) -> dict[str, Any]:
    facts = fault.model_dump(mode="json", exclude_defaults=True, exclude={"kind", "id", "struck"})
    return {"id": fault.id, "kind": fault.kind.value, "struck": fault.struck, "match": _told(facts) or "everything"}


def _limit(limit: Throttle) -> dict[str, Any]:
    facts = limit.model_dump(mode="json", exclude_defaults=True, exclude={"id", "refused"})
    return {"id": limit.id, "refused": limit.refused, "match": _told(facts)}


def _line(line: Line) -> dict[str, Any]:
    return {
        "at": f"{moment(line.at):%m-%d %H:%M:%S}",
        "host": line.host,
        "event": line.event.value,
        "operation": line.operation or "",
        "details": _told(line.details),
        "cause": line.cause.comment or line.cause.command_id or line.cause.automation_id or line.cause.request_id or "",
    }


def _told(facts: dict[str, Any]) -> str:
    plain = {name: f"{value:g}" if isinstance(value, float) else _listed(value) for name, value in facts.items()}
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _listed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h {minutes} min" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
