"""Which runtime version does a function run on, since when, and how is that managed?

`Auto` functions are updated by AWS some days after a version appeared, `FunctionUpdate` ones when their code or configuration is
updated, `Manual` ones stay where they are pinned. Nothing else moves a version: AWS has no call that lists them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from awsim import estate_lambda, runtimes
from awsim.catalogue import NotPatchable, Platform
from awsim.journal import Cause, Event
from awsim.registry import on_world
from awsim.runtimes import Release
from awsim.world import DAY, NOBODY, World
from awsim.world_file import CodeWeakness, Lambda
from awsim.world_file import Function as Told

AUTO, ON_UPDATE, MANUAL = "Auto", "FunctionUpdate", "Manual"


@dataclass(kw_only=True, slots=True, eq=False)
class Function:
    """A function, as Inspector and the journal see it: like a host."""

    account: str
    region: str
    made: Any
    """moto's model of it."""
    platform: Platform
    mode: str = AUTO
    history: list[tuple[float, Release]] = field(default_factory=list)
    """Since when it has had which runtime version, oldest first; empty for runtimes that AWS does not manage."""
    busy_until: float = 0.0
    code: tuple[NotPatchable, ...] = ()
    """Vulnerable packages that its code brings along, until the code is updated."""
    weaknesses: tuple[CodeWeakness, ...] = ()
    code_since: float = 0.0

    @property
    def name(self) -> str:
        return str(self.made.function_name)

    @property
    def arn(self) -> str:
        return str(self.made.function_arn)

    @property
    def id(self) -> str:
        """As Inspector names it."""
        return f"{self.arn}:$LATEST"

    @property
    def runtime(self) -> str:
        return str(self.made.run_time or "")

    @property
    def release(self) -> Release | None:
        return self.history[-1][1] if self.history else None

    def tags(self) -> dict[str, str]:
        return dict(self.made.tags or {})

    def busy(self, now: float) -> bool:
        return now < self.busy_until


class Functions:
    """Of a cell, by name."""

    def __init__(self) -> None:
        self.known: dict[str, Function] = {}
        self.changes = 0
        """Numbers the draws of durations."""


# --- runtimes ---


def releases(world: World, runtime: str) -> list[Release]:
    """The versions of a runtime that have appeared by now, oldest first."""
    return [release for release in _all_releases(world, runtime) if release.at <= world.now]


def _all_releases(world: World, runtime: str) -> list[Release]:
    known = runtimes.shipped().get(runtime)
    if known is None:
        return []
    later = [told.after for told in world.file.runtime_releases if told.runtime == runtime] if world.file else []
    moments = sorted(world.clock.base + at for at in [*(-age * DAY for age in known.ages), *later])
    supported = [at for at in moments if at <= known.deprecated] or moments[:1]
    return [Release(runtime=runtime, number=number, at=at) for number, at in enumerate(supported, start=1)]


# --- the beginning ---


@on_world
def attach(world: World) -> None:
    """The functions of a world file; and AWS begins to update functions whenever a runtime version appears."""
    if world.file is None:
        return
    for told in world.file.functions:
        for name in told.names():
            _settle_in(world, told, name)
    for release in world.file.runtime_releases:
        world.at(world.clock.base + release.after, _released(world, release.runtime))


def _settle_in(world: World, told: Told, name: str) -> None:
    age = world.random("function", name).uniform(60, 300) * DAY
    made = estate_lambda.make_function(
        told.account,
        told.region,
        name=name,
        runtime=told.runtime,
        tags={**told.tags, **({"Owner": told.owner} if told.owner else {})},
        at=world.clock.base - age,
    )
    function = _new(world, told.account, told.region, made)
    function.mode = told.mode
    there = releases(world, told.runtime)
    chosen = there[max(0, len(there) - 1 - told.behind)]
    function.history = [(max(chosen.at, world.clock.base - age), chosen)]
    catalogue = world.catalogue.not_patchable
    function.code = tuple(catalogue[identifier] for identifier in told.code)
    function.weaknesses = tuple(told.weaknesses)
    function.code_since = world.clock.base - age
    _await_aws(world, function)


def _released(world: World, runtime: str) -> Callable[[float], None]:
    def appeared(_: float) -> None:
        for account, region in list(world.cells):
            for function in all_of(world, account, region):
                if function.runtime == runtime:
                    _await_aws(world, function)

    return appeared


# --- what is known ---


def paced(world: World) -> bool:
    """Whether runtime versions are managed; in an AWS without a world, functions are moto's alone."""
    return world.file is not None


def all_of(world: World, account: str, region: str) -> list[Function]:
    return [known(world, account, region, made) for made in estate_lambda.functions(account, region)]


def known(world: World, account: str, region: str, made: Any) -> Function:
    """The record of one of moto's functions; one that callers made has the newest runtime version."""
    latest = estate_lambda.function(account, region, made.function_name) or made
    function = world.state(account, region, Functions).known.get(str(made.function_name))
    return function if function is not None and function.made is latest else _new(world, account, region, latest)


def _new(world: World, account: str, region: str, made: Any) -> Function:
    told = runtimes.shipped().get(str(made.run_time or ""))
    function = Function(
        account=account,
        region=region,
        made=made,
        platform=world.catalogue.platforms[told.platform if told else "amazon-linux-2023"],
        history=[(world.now, release) for release in releases(world, str(made.run_time or ""))[-1:]],
        code_since=world.now,
    )
    world.state(account, region, Functions).known[str(made.function_name)] = function
    return function


def timings(world: World) -> Lambda:
    return world.file.functions_timings if world.file else Lambda()


def _draw(world: World, function: Function, timing: str) -> float:
    kept = world.state(function.account, function.region, Functions)
    kept.changes += 1
    drawn: float = getattr(timings(world), timing).draw(world.random("lambda", function.arn, timing, kept.changes))
    return drawn


# --- changes ---


def _await_aws(world: World, function: Function) -> None:
    """AWS gets to a function some days after the version appeared."""

    def update(_: float) -> None:
        if function.mode == AUTO and _exists(function):
            newest = releases(world, function.runtime)[-1:]
            if newest and function.release != newest[0]:
                _run_on(world, function, newest[0], NOBODY)

    if function.mode == AUTO and function.release not in releases(world, function.runtime)[-1:]:
        world.at(world.now + _draw(world, function, "auto_update"), update)


def _exists(function: Function) -> bool:
    return any(made is function.made for made in estate_lambda.functions(function.account, function.region))


def manage(world: World, function: Function, mode: str, pinned: Release | None, cause: Cause) -> None:
    """The mode holds at once; a version that it leads to runs once the function's update is through."""
    function.mode = mode
    newest = releases(world, function.runtime)[-1:]
    wanted = pinned if mode == MANUAL else newest[0] if mode == AUTO and newest else None
    update(world, function, wanted, cause)


def update(world: World, function: Function, release: Release | None, cause: Cause) -> None:
    """The function is busy for a while; then it runs on that version (None: on what it has)."""
    function.busy_until = world.now + _draw(world, function, "update")

    def done(_: float) -> None:
        if release is not None and release != function.release and _exists(function):
            _run_on(world, function, release, cause)

    world.at(function.busy_until, done)


def updated(world: World, function: Function, cause: Cause, *, code: bool) -> None:
    """A caller updated code or configuration: what waits for that gets the newest version; new code has no old findings."""
    if code:
        function.code, function.weaknesses, function.code_since = (), (), world.now
    newest = releases(world, function.runtime)[-1:]
    changed = function.release is None or function.release.runtime != function.runtime
    wanted = newest[0] if newest and (function.mode != MANUAL or changed) else None
    update(world, function, wanted, cause)


def _run_on(world: World, function: Function, release: Release, cause: Cause) -> None:
    before = function.release
    function.history.append((world.now, release))
    world.record_managed(
        function.arn,
        Event.MAINTENANCE_ENDED,
        account=function.account,
        region=function.region,
        tags=function.tags(),
        operation="runtime-update",
        cause=cause,
        function=function.name,
        before=before.label if before is not None else None,
        version=release.label,
        mode=function.mode,
    )
