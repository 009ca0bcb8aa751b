"""What does Inspector see in a Lambda function, and since when?

Two kinds: what its runtime version brings along (packages of the system, closed by a newer runtime version) and what its code
does (packages below /var/task, and weaknesses of what somebody wrote; closed by new code, which is its owner's). Inspector looks
again a few minutes after a function or an advisory has changed. Runtimes that are deprecated are not scanned.
"""

from typing import Any

from awsim import runtimes
from awsim.catalogue import Cve
from awsim.runtimes import Release
from awsim.services.functions import functions
from awsim.services.functions.functions import Function
from awsim.services.inspector2 import accounts
from awsim.services.inspector2.sightings import (
    DAY,
    EXCLUSION_TAG,
    KEPT_CLOSED,
    Dossier,
    Dossiers,
    Sighting,
    Vulnerable,
    arn_of,
    dossier,
)
from awsim.world import World
from awsim.world_file import CodeWeakness

LOOKS_AFTER = 180.0
"""Seconds until a change of a function has been scanned."""
Seen = dict[str, tuple[Cve, tuple[Vulnerable, ...], CodeWeakness | None]]


def sightings(world: World, account: str, region: str) -> list[Sighting]:
    """All findings of a cell, in the order of its hosts, then of its functions."""
    found = [sighting for host in world.hosts_in(account, region) for sighting in dossier(world, host).sightings.values()]
    for function in _functions(world, account, region):
        found += _dossier(world, function).sightings.values()
    return found


def covered(world: World, account: str, region: str) -> list[tuple[Function, str, str, float | None]]:
    """Function, status code, reason, and when it was scanned last."""
    rows: list[tuple[Function, str, str, float | None]] = []
    for function in _functions(world, account, region):
        told = runtimes.shipped().get(function.runtime)
        if EXCLUSION_TAG in function.tags():
            rows.append((function, "INACTIVE", "EXCLUDED_BY_TAG", None))
        elif told is None or told.deprecated < world.now:
            rows.append((function, "INACTIVE", "UNSUPPORTED_RUNTIME", None))
        else:
            rows.append((function, "ACTIVE", "SUCCESSFUL", _dossier(world, function).looked))
    return rows


def _functions(world: World, account: str, region: str) -> list[Function]:
    return functions.all_of(world, account, region) if functions.paced(world) else []


def _dossier(world: World, function: Function) -> Dossier:
    kept = world.state(function.account, function.region, Dossiers).of.setdefault(function.id, Dossier())
    told = runtimes.shipped().get(function.runtime)
    on = accounts.scanning_since(world, function.account, function.region)
    if on is None:
        kept.sightings.clear()
        kept.looked = None
        return kept
    if EXCLUSION_TAG in function.tags() or told is None or told.deprecated < world.now:
        _see(world, function, kept, {}, world.now)
        return kept
    for moment in _looks(world, function, kept, max(on, world.clock.base)):
        _see(world, function, kept, _vulnerable(world, function, moment), moment)
        kept.looked = moment
    for name, sighting in list(kept.sightings.items()):
        if sighting.state == "CLOSED" and world.now >= sighting.changed + KEPT_CLOSED:
            del kept.sightings[name]
    return kept


def _looks(world: World, function: Function, kept: Dossier, on: float) -> list[float]:
    """When Inspector looked since it did last."""
    changes = [at for at, _ in function.history] + [function.code_since]
    appears = world.file.catalogue.appears.values() if world.file else ()
    points = {at + LOOKS_AFTER for at in [*changes, *(world.clock.base + after for after in appears)]}
    if kept.looked is None:
        first = on if function.code_since <= on else function.code_since + LOOKS_AFTER
        return sorted({moment for moment in {first, *points} if first <= moment <= world.now})
    return sorted(moment for moment in points if kept.looked < moment <= world.now)


def _vulnerable(world: World, function: Function, moment: float) -> Seen:
    """By CVE, as a scan at that moment shows it."""
    found: Seen = {}
    release = next((one for at, one in reversed(function.history) if at <= moment), None)
    if release is not None:
        for cve, package in _of_runtime(world, function, release, moment):
            rows = found[cve.id][1] if cve.id in found else ()
            found[cve.id] = (cve, (*rows, package), None)
    if function.code_since <= moment:
        for outside in function.code:
            package = Vulnerable(
                name=outside.package,
                arch="",
                evr=outside.version,
                manager=outside.manager,
                fixed_in=outside.fixed_in,
                path=f"/var/task{outside.path.removeprefix('/opt/app')}",
            )
            found[outside.cve.id] = (outside.cve, (package,), None)
        for weakness in function.weaknesses:
            key = f"{weakness.cwe} {weakness.file}:{weakness.line}"
            found[key] = (Cve(id=key, score=weakness.score), (), weakness)
    return found


def _of_runtime(world: World, function: Function, release: Release, moment: float) -> list[tuple[Cve, Vulnerable]]:
    told, rows = runtimes.shipped()[release.runtime], []
    for name in told.packages:
        package = function.platform.packages.get(name)
        if package is None:
            continue
        level = sum(world.released(update) <= release.built for update in package.updates)
        for update in package.updates[level:]:
            if world.released(update) <= moment:
                row = Vulnerable(
                    name=name, arch=package.arch, evr=package.evr(level), manager="OS", fixed_in=update.evr, update=update
                )
                rows += [(cve, row) for cve in update.cves]
    return rows


def _see(world: World, function: Function, kept: Dossier, seen: Seen, moment: float) -> None:
    for name, (cve, packages, weakness) in seen.items():
        known = kept.sightings.get(name)
        if known is None:
            first = moment if kept.looked is not None else _first_seen(world, function, cve, moment)
            kept.sightings[name] = Sighting(
                host=function,
                cve=cve,
                arn=arn_of(world, function, cve),
                first=first,
                changed=first,
                last=moment,
                packages=packages,
                weakness=weakness,
            )
        elif known.packages != packages or known.state != "ACTIVE":
            known.packages, known.state, known.changed = packages, "ACTIVE", moment
        kept.sightings[name].last = moment
    for name, sighting in kept.sightings.items():
        if name not in seen and sighting.state == "ACTIVE":
            sighting.state, sighting.changed = "CLOSED", moment


def _first_seen(world: World, function: Function, cve: Cve, moment: float) -> float:
    """Some days back, for what was there when the world began."""
    back = world.random(function.arn, cve.id, "first observed").uniform(1, 14) * DAY
    return min(moment, max(function.code_since, world.clock.base - back))


def resource_of(function: Function) -> dict[str, Any]:
    """The member `details` of a finding's resource."""
    made = function.made
    return {
        "awsLambdaFunction": {
            "functionName": function.name,
            "runtime": runtime_of(function),
            "codeSha256": str(made.code_sha_256),
            "version": "$LATEST",
            "executionRoleArn": str(made.role),
            "layers": [],
            "packageType": "ZIP",
            "architectures": ["X86_64"],
        }
    }


def runtime_of(function: Function) -> str:
    """As Inspector spells it: PYTHON_3_12, NODEJS_20_X."""
    name = function.runtime.replace(".", "_").upper()
    for family in ("PYTHON", "NODEJS", "JAVA", "RUBY", "DOTNET"):
        if name.startswith(family):
            return f"{family}_{name.removeprefix(family)}"
    return name
