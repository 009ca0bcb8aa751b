"""Which campaigns are run while processes are killed, and how would each of them end if nobody were?

Every campaign has a region of its own and the same three stages; what is odd about a host stands in `FLEETS`, and what has to
become of it in `expected`. The rest of the world is that of the journeys.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.journey import world as journeys

ACCOUNT = "111111111111"
REGIONS = (
    "eu-central-1", "eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
    "ca-central-1", "ap-south-1", "sa-east-1",
)  # fmt: skip
"""As many campaigns as one stack has."""

FLEETS: Mapping[str, Mapping[str, Any]] = {
    "dev": {
        "count": 4,
        "mix": [{"template": "amazon", "count": 3}, {"template": "ubuntu", "count": 1}],
        "exceptions": [{"host": 2, "compliant": True}, {"host": 3, "state": "stopped"}],
    },
    "staging": {
        "count": 6,
        "mix": [{"template": "amazon", "count": 3}, {"template": "app", "count": 3}],
        "exceptions": [{"host": 1, "install_fails": {"exit_code": 1}}],
    },
    "prod": {"count": 8, "mix": [{"template": "amazon", "count": 5}, {"template": "ubuntu", "count": 3}]},
}
ODD = {"dev/2": "already_compliant", "dev/3": "stopped", "staging/1": "failed"}
"""By stage and number: the class of a host that is not to be patched."""
INSTALLED_ANYWAY = frozenset({"staging/1"})

CAMPAIGN = """\
name: {name}
description: Processes are killed while it runs
owner: tests
scope: {{cells: [{{account: "{account}", regions: [{region}]}}]}}
policy: standard
stages:
  - {{name: dev, select: {{patch_groups: [linux-dev]}}, concurrency: 100%, soak: 5m}}
  - name: staging
    select: {{patch_groups: [linux-staging]}}
    concurrency: 50%
    error_budget: 1
    soak: 5m
    approval: {{required: false}}
  - name: prod
    select: {{patch_groups: [linux-prod]}}
    concurrency: 50%
    soak: 5m
    approval: {{approvers: [olga]}}
"""

REMEDY = "remediate: {stages: [staging]}\n"


def name_of(region: str) -> str:
    """The campaign of that region."""
    return f"crash-{region}"


def write(
    folder: Path,
    *,
    timings: Mapping[str, Any] | None = None,
    slow: Mapping[str, list[int]] | None = None,
    remedied: Collection[str] = (),
) -> Path:
    """Write the campaign files into `folder`/campaigns, and the world; returns the world's file.

    Args:
        remedied: regions whose campaign remedies what is left over in staging.
    """
    campaigns = folder / "campaigns"
    campaigns.mkdir(parents=True)
    world = journeys.common() | {"name": "crashes", "description": "A region is a campaign", "regions": list(REGIONS)}
    world["timings"] |= timings or {}
    for region in REGIONS:
        name = name_of(region)
        text = CAMPAIGN.format(name=name, account=ACCOUNT, region=region) + (REMEDY if region in remedied else "")
        (campaigns / f"{name}.yaml").write_text(text, encoding="utf-8")
        for stage, fleet in FLEETS.items():
            tags = {"Environment": stage, "Patch Group": f"linux-{stage}"}
            given = {"name": f"{region}-{stage}", "account": ACCOUNT, "region": region, "tags": tags, **fleet}
            if slow and region in slow:
                given["exceptions"] = _slow(given, slow[region])
            world["fleets"].append(given)
    file = folder / "world.yaml"
    file.write_text(yaml.safe_dump(world, sort_keys=False), encoding="utf-8")
    return file


def _slow(fleet: Mapping[str, Any], install: list[int]) -> list[dict[str, Any]]:
    odd = {one["host"]: one for one in fleet.get("exceptions", ())}
    return [{"host": number, **odd.get(number, {}), "timings": {"install": install}} for number in range(1, fleet["count"] + 1)]


def expected(name: str, *, stages: Collection[str]) -> tuple[str, int]:
    """Class and number of Installs of a host, by its name in the world (``region-stage/number``); none in other stages."""
    fleet, _, number = name.rpartition("/")
    stage = fleet.rpartition("-")[2]
    if stage not in stages:
        return "", 0
    place = f"{stage}/{int(number)}"
    return ODD.get(place, "patched"), int(place not in ODD or place in INSTALLED_ANYWAY)
