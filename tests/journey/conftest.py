"""One Airflow and one awsim for all journeys; every journey that is selected begins at once and is judged when it is over."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from patchwave.cli.environment import Places
from patchwave.cli.stack import Stack
from tests.journey import world
from tests.journey.runs import FollowedRun, Stage, policies_at_any_time
from tests.ledger import postgres

HERE = Path(__file__).parent
SPEED = 300
"""Fast, and slow enough that stages defer while hosts install: what is shorter than a second is waited out in place."""
LISTS = "patch-lists"
"""The bucket in which hosts read what Dev received: every world has it."""
STAGE = pytest.StashKey[Stage]()
AT_ONCE = 6
"""So many journeys go on beside each other: with 25 of them and two browsers Airflow's api-server answered nobody any more,
and with 8, two of them in browsers, one began a day late by its clock, which runs 300 times as fast."""
PATIENCE = 2400
"""Seconds that a journey's first test may wait, for it waits for the journeys before it, too."""


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Everything up, in a home of its own that is removed at the end."""
    with ExitStack() as ending:
        home = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="pw-journey-", ignore_cleanup_errors=True)))
        campaigns = home / "campaigns"
        shutil.copytree(HERE / "campaigns", campaigns)
        policies = policies_at_any_time(home / "policies")
        shutil.copytree(HERE / "policies", policies, dirs_exist_ok=True)
        stack = ending.enter_context(
            Stack(
                places=Places(home=home / "airflow", runs=home / "runs", campaigns=campaigns, policies=policies),
                port=0,
                awsim_port=0,
                world=world.write(home / "world.yaml"),
                speed=SPEED,
                environment={
                    **_database(ending),
                    # Two cores start that many tasks at once quicker than more of them.
                    "AIRFLOW__CORE__PARALLELISM": "4",
                },
                tell=print,
            )
        )
        made = Stage(stack=stack, campaigns=campaigns)
        request.config.stash[STAGE] = made
        yield made


def _database(ending: ExitStack) -> dict[str, str]:
    """PostgreSQL for Airflow where there is one: SQLite answers many tasks and clients at once with 500 now and then."""
    try:
        server = ending.enter_context(postgres.server())
    except postgres.NoServer:
        return {}
    url = ending.enter_context(postgres.database(server)).set(drivername="postgresql+psycopg2")
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.render_as_string(hide_password=False)}


class Journeys:
    """The journeys that go on: what people do in each of them, in a thread of its own."""

    def __init__(self, stage: Stage, modules: list[ModuleType], pool: ThreadPoolExecutor) -> None:
        self._runs: dict[str, FollowedRun] = {}
        self._going: dict[str, Future[Any]] = {}
        self._told: set[str] = set()
        self._judged: set[str] = set()
        for module in modules:
            run = stage.follow(module.CAMPAIGN, region=module.REGION)
            self._runs[module.__name__] = run
            self._going[module.__name__] = pool.submit(module.drive, run)

    def over(self, module: ModuleType) -> FollowedRun:
        """The module's journey when nobody does anything in it any more; raises what went wrong, at length only once.

        Every journey is judged by the rule checker, too, whatever its own tests look at.
        """
        name = module.__name__
        problem = self._going[name].exception()
        if problem is not None and name in self._told:
            pytest.fail("the journey itself went wrong, see the first test of this module", pytrace=False)
        if problem is not None:
            self._told.add(name)
            raise problem
        if name not in self._judged:
            self._judged.add(name)
            broken = self._runs[name].rules_broken
            assert not broken, "\n".join(map(str, broken))
        return self._runs[name]


@pytest.fixture(scope="session")
def journeys(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Journeys]:
    """All journeys of this session: the long ones begin first, the others as soon as fewer than `AT_ONCE` go on."""
    modules = list(dict.fromkeys(item.module for item in request.session.items if hasattr(item, "module")))
    chosen = [module for module in modules if module.__name__.startswith(__package__) and hasattr(module, "drive")]
    chosen.sort(key=lambda module: not getattr(module, "IS_LONG", False))
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="journey") as pool:
        yield Journeys(stage, chosen, pool)


@pytest.fixture
def journey(journeys: Journeys, request: pytest.FixtureRequest) -> FollowedRun:
    """The module's own journey, over."""
    return journeys.over(request.module)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever waits for a journey waits for those before it, too."""
    for item in items:
        if item.get_closest_marker("journey"):
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows the run it is about."""
    outcome: Any = yield
    report = outcome.get_result()
    stage = item.config.stash.get(STAGE, None)
    module = getattr(item, "module", None)
    if report.when == "call" and report.failed and stage is not None and hasattr(module, "REGION"):
        picture: Callable[[], str] = stage.follow(module.CAMPAIGN, region=module.REGION).picture
        report.sections.append(("the run", picture()))
