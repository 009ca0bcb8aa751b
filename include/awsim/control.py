"""What can a test or a person do with the simulation itself? Everything below `/_awsim/`.

GET  (nothing: a page for people), health, clock, hosts, faults, operations
     journal[?since=N], journal/summary, both with host=, domain=, operation=, comment=, command=, account=, region=, from=,
     until=; throttle
POST advance {"seconds": n}, clock {"speed": x} or {"paused": true|false}, faults {...}, reset,
     throttle {"service": s, "operation": o, "rate": n, "burst": m} or {"profile": name}
DELETE faults, faults/N, throttle
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from pydantic import ValidationError

from awsim import journal, page, registry
from awsim.clock import iso
from awsim.faults import PROFILES, Fault, Throttle
from awsim.wire import Answer

if TYPE_CHECKING:
    from awsim.server import Simulator

PREFIX = "/_awsim/"


class BadRequest(Exception):
    """The control request cannot be carried out; the message says which field and what is allowed."""


def answer(simulator: "Simulator", environ: dict[str, Any], body: bytes) -> Answer:
    path = environ.get("PATH_INFO", "")[len(PREFIX) :].strip("/")
    method = environ.get("REQUEST_METHOD", "GET")
    query = {key: values[-1] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    try:
        if method == "DELETE" and path.startswith("faults/"):
            return _delete_fault(simulator, path.partition("/")[2])
        handler = _ROUTES.get((method, path))
        if handler is None:
            known = ", ".join(sorted(f"{verb} {PREFIX}{name}" for verb, name in _ROUTES))
            return _json({"error": f"{method} {PREFIX}{path} is unknown; there are {known}"}, 404)
        return handler(simulator, query, _parsed(body))
    except BadRequest as bad:
        return _json({"error": str(bad)}, 400)


def _parsed(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        data = json.loads(body)
    except ValueError as broken:
        raise BadRequest(f"body: is not JSON: {broken}") from broken
    if not isinstance(data, dict):
        raise BadRequest("body: must be a JSON object")
    return data


def _page(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        (
            "Content-Security-Policy",
            "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:",
        ),
        ("Cache-Control", "no-store"),
    ]
    return Answer(status=200, headers=headers, body=page.render(simulator.world).encode())


def _health(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    world = simulator.world
    return _json(
        {
            "status": "ok",
            "world": world.file.name if world.file else None,
            "hosts": len(world.all_hosts()),
            "now": iso(world.clock.now()),
        }
    )


def _clock(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    clock = simulator.world.clock
    return _json(
        {
            "now": iso(clock.now()),
            "epoch": round(clock.now(), 3),
            "base": iso(clock.base),
            "speed": clock.speed,
            "paused": clock.speed == 0,
            "scheduled": len(simulator.world.agenda),
        }
    )


def _set_clock(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    unknown = set(body) - {"speed", "paused"}
    if unknown or not body:
        raise BadRequest(f"body: give speed (a number) or paused (true or false), not {sorted(unknown) or 'nothing'}")
    if "speed" in body:
        simulator.set_speed(_number(body["speed"], "speed"))
    if "paused" in body:
        if not isinstance(body["paused"], bool):
            raise BadRequest("paused: must be true or false")
        simulator.pause(body["paused"])
    return _clock(simulator, query, {})


def _advance(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    seconds = _number(body.get("seconds"), "seconds")
    try:
        simulator.advance(seconds)
    except ValueError as wrong:
        raise BadRequest(str(wrong)) from wrong
    return _clock(simulator, query, {})


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise BadRequest(f"{field}: must be a number >= 0, not {value!r}")
    return float(value)


def _journal(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    try:
        since = int(query.get("since", "0"))
    except ValueError:
        raise BadRequest(f"since: must be the number of lines already read, not {query['since']!r}") from None
    question = _question(query, {"since"})
    lines = [
        line
        for line in simulator.world.journal.since(max(since, 0))
        if question.meant(line) and question.operation in (None, line.operation)
    ]
    text = "".join(json.dumps(line.as_json(), sort_keys=False) + "\n" for line in lines)
    return Answer(status=200, headers=[("Content-Type", "application/x-ndjson")], body=text.encode())


def _summary(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    return _json(journal.summary(simulator.world.journal, _question(query, set())))


_QUESTIONS = ("host", "domain", "operation", "comment", "command", "account", "region", "from", "until", "event")


def _question(query: dict[str, str], besides: set[str]) -> journal.Question:
    unknown = sorted(set(query) - set(_QUESTIONS) - besides)
    if unknown:
        raise BadRequest(f"{unknown[0]}: is no parameter; there are {', '.join([*sorted(besides), *_QUESTIONS])}")
    domain, event = query.get("domain"), query.get("event")
    if domain is not None and domain != "*" and "=" not in domain:
        places = "account=ID, region=NAME, zone=NAME, group=NAME, target_group=NAME"
        raise BadRequest(f"domain: {domain!r} is not *, {places} or a tag's Key=Value")
    if event is not None and event not in set(journal.Event):
        raise BadRequest(f"event: {event!r} is not one of {', '.join(journal.Event)}")
    return journal.Question(
        hosts=frozenset(query["host"].split(",")) if "host" in query else None,
        operation=query.get("operation"),
        comment=query.get("comment"),
        command=query.get("command"),
        account=query.get("account"),
        region=query.get("region"),
        domain=domain,
        begin=_epoch(query, "from"),
        end=_epoch(query, "until"),
        event=event,
    )


def _epoch(query: dict[str, str], field: str) -> float | None:
    if field not in query:
        return None
    try:
        told = datetime.fromisoformat(query[field])
    except ValueError:
        raise BadRequest(f"{field}: {query[field]!r} is no moment such as 2026-01-05T08:00:00Z") from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


def _hosts(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    world = simulator.world
    return _json({"hosts": [host.as_json(world.now) for host in world.all_hosts()]})


def _faults(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    return _json({"faults": [fault.model_dump(mode="json", exclude_none=True) for fault in simulator.world.faults.all()]})


def _add_fault(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    try:
        fault = Fault.model_validate(body)
    except ValidationError as wrong:
        raise BadRequest(_told(wrong)) from wrong
    return _json(simulator.world.add_fault(fault).model_dump(mode="json", exclude_none=True), 201)


def _told(wrong: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in wrong.errors())


def _throttles(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    limits = simulator.world.throttles.all()
    return _json({"throttles": [limit.model_dump(mode="json", exclude_none=True) for limit in limits]})


def _add_throttle(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    throttles = simulator.world.throttles
    if "profile" in body:
        if set(body) != {"profile"} or body["profile"] not in PROFILES:
            raise BadRequest(f"profile: must be one of {', '.join(sorted(PROFILES))}, and alone")
        for limit in PROFILES[body["profile"]]:
            throttles.add(limit)
        answer = _throttles(simulator, query, body)
        answer.status = 201
        return answer
    try:
        limit = Throttle.model_validate(body)
    except ValidationError as wrong:
        raise BadRequest(_told(wrong)) from wrong
    return _json(throttles.add(limit).model_dump(mode="json", exclude_none=True), 201)


def _clear_throttles(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    simulator.world.throttles.clear()
    return _json({"throttles": []})


def _clear_faults(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    simulator.world.faults.clear()
    return _json({"faults": []})


def _delete_fault(simulator: "Simulator", number: str) -> Answer:
    if not number.isdigit() or not simulator.world.faults.remove(int(number)):
        return _json({"error": f"there is no fault {number!r}"}, 404)
    return _json({"removed": int(number)})


def _reset(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    simulator.restart()
    return _health(simulator, query, {})


def _operations(simulator: "Simulator", query: dict[str, str], body: dict[str, Any]) -> Answer:
    return _json({"operations": [f"{service}:{name}" for service, name in registry.registered()]})


def _json(data: dict[str, Any], status: int = 200) -> Answer:
    return Answer(
        status=status, headers=[("Content-Type", "application/json")], body=(json.dumps(data, indent=1) + "\n").encode()
    )


_ROUTES: dict[tuple[str, str], Callable[["Simulator", dict[str, str], dict[str, Any]], Answer]] = {
    ("GET", ""): _page,
    ("GET", "health"): _health,
    ("GET", "clock"): _clock,
    ("POST", "clock"): _set_clock,
    ("POST", "advance"): _advance,
    ("GET", "journal"): _journal,
    ("GET", "journal/summary"): _summary,
    ("GET", "hosts"): _hosts,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _clear_faults,
    ("GET", "throttle"): _throttles,
    ("POST", "throttle"): _add_throttle,
    ("DELETE", "throttle"): _clear_throttles,
    ("POST", "reset"): _reset,
    ("GET", "operations"): _operations,
}
