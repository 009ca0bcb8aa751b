"""The world that the journeys share: each file adds a region of its own, and awsim can read what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from awsim.catalogue import shipped
from awsim.world_file import load
from tests.journey import world


def test_every_fleet_stands_in_the_region_of_its_file(tmp_path: Path) -> None:
    """A journey is judged by its region, so nothing of another may be there."""
    made = load(world.write(tmp_path / "world.yaml"), shipped())
    files = [path for path in world.WORLDS.glob("*.yaml") if path.name != world.COMMON]
    assert len({fleet.region for fleet in made.fleets}) == len(files)


def test_two_journeys_cannot_have_the_same_region(tmp_path: Path) -> None:
    """Or each would be judged by the other's hosts, too; the message names both files."""
    (tmp_path / world.COMMON).write_text("name: two\n", encoding="utf-8")
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text("region: eu-west-1\nfleets: []\n", encoding="utf-8")
    with pytest.raises(world.NotAlone, match=r"second\.yaml: region eu-west-1 is that of first\.yaml"):
        world.joined(tmp_path)
