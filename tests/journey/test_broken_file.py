"""A broken campaign file beside good ones is named, and takes none of them away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journey.runs import Stage, until

BROKEN = """\
name: broken
description: It says 250 % where at most 100 % is allowed
owner: tests
scope: {cells: [{account: "111111111111", regions: [eu-west-3]}]}
policy: standard
stages:
  - name: dev
    select: {patch_groups: [linux-dev]}
    concurrency: 250%
    sooak: 10m
"""

GOOD = ("happy", "rejected-at-prod", "budget-spent", "dry-run", "marked-by-hand", "edited", "asked-once", "wrong-person")

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def error(stage: Stage) -> Iterator[str]:
    """The import error, seen after all the good campaigns were; the file is gone afterwards."""
    for dag in GOOD:
        stage.dag_ready(dag)
    file = stage.campaigns / "broken.yaml"
    file.write_text(BROKEN)

    def named() -> str:
        return next((one for one in stage.users["vic"].import_errors() if "broken.yaml" in one), "")

    yield until(named, "an import error names the broken file", picture=stage.picture)
    file.unlink()
    until(lambda: not named(), "the import error goes with the file", picture=stage.picture)


def test_the_import_error_names_file_line_and_field(error: str) -> None:
    """Both mistakes, each at its place, with what is allowed."""
    share = next(line for line in error.splitlines() if "concurrency" in line)
    assert "broken.yaml:9" in share
    assert "100%" in share
    field = next(line for line in error.splitlines() if "sooak" in line)
    assert "broken.yaml:10" in field
    assert "soak" in field


def test_the_good_campaigns_stay(stage: Stage, error: str) -> None:
    """An import error of their own file would make all of them stale."""
    parsed = {dag: stage.users["vic"].dag(dag)["last_parsed_time"] for dag in GOOD}

    def parsed_again() -> bool:
        return all(stage.users["vic"].dag(dag)["last_parsed_time"] > moment for dag, moment in parsed.items())

    until(parsed_again, "the good campaigns are parsed beside the broken one", picture=stage.picture)
    assert {dag: stage.users["vic"].dag(dag)["is_stale"] for dag in GOOD} == dict.fromkeys(GOOD, False)


def test_the_broken_one_is_no_dag(stage: Stage, error: str) -> None:
    """Half of a campaign is none."""
    assert stage.users["vic"].dag("broken") is None
