"""Which world do the journeys happen in? What all share (``worlds/common.yaml``) and a file per journey, joined into one.

A journey's file names its region, which is its own, and what there is in it: each entry of its lists (``fleets``) gets that
region and the one account, its mappings (``templates``) are added to those of all. So nobody who adds a journey changes a file
of somebody else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

WORLDS = Path(__file__).parent / "worlds"
COMMON = "common.yaml"
ACCOUNT = "111111111111"


class NotAlone(AssertionError):
    """Two journeys want to have the same thing for themselves."""


def common(folder: Path = WORLDS) -> dict[str, Any]:
    """What every journey finds: timings, baselines, templates; no region and no fleet."""
    return {**_read(folder / COMMON), "regions": [], "fleets": []}


def joined(folder: Path = WORLDS) -> dict[str, Any]:
    """The world of all journeys, in the order of their files' names.

    Raises:
        NotAlone: two files name the same region, or give different things the same name.
    """
    world = common(folder)
    homes: dict[str, Path] = {}
    for file in sorted(path for path in folder.glob("*.yaml") if path.name != COMMON):
        journey = _read(file)
        region = journey.pop("region")
        if region in homes:
            raise NotAlone(f"{file.name}: region {region} is that of {homes[region].name}; take one that no file names")
        homes[region] = file
        world["regions"].append(region)
        for key, value in journey.items():
            if isinstance(value, dict):
                twice = sorted(set(value) & set(world.get(key, {})))
                if twice:
                    raise NotAlone(f"{file.name}: {key} {', '.join(twice)} stands in another file already")
                world[key] = {**world.get(key, {}), **value}
            else:
                world[key] = [*world.get(key, []), *({"account": ACCOUNT, "region": region, **entry} for entry in value)]
    return world


def write(file: Path) -> Path:
    """Write the world of all journeys into `file`, and return that."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(joined(), sort_keys=False), encoding="utf-8")
    return file


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content
