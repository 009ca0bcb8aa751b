"""Hosts, campaigns and stages as the domain's tests need them, without the noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.campaign import definition
from patchwave.campaign import plan as plans
from patchwave.campaign.definition import Campaign
from patchwave.campaign.fleet import Host, InstanceState, Ping
from patchwave.campaign.plan import Plan, Restriction
from patchwave.campaign.rollout import DispatchRow, DispatchState, HostRow, HostState, PatchState, StageRules, StepKind
from patchwave.campaign.severity import Triage
from patchwave.campaign.values import Cell, HostId, RunId, StageName

NOW = datetime(2026, 3, 3, 22, 0, tzinfo=UTC)
RUN = RunId("weekly-linux/manual__2026-03-03")
STAGE = StageName("prod")
CELL = Cell(account="111111111111", region="eu-central-1")
FAR = Cell(account="111111111111", region="us-east-1")


def later(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def host_id(number: int) -> HostId:
    return HostId(f"i-{number:017x}")


def a_host(number: int = 1, *, group_tag: str | None = "linux-prod", **facts: Any) -> Host:
    """A running instance whose agent answers."""
    values: dict[str, Any] = {
        "id": host_id(number),
        "cell": CELL,
        "name": f"prod-{number}",
        "state": InstanceState.RUNNING,
        "ping": Ping.ONLINE,
        "platform": "Amazon Linux 2023",
        "zone": "eu-central-1a",
        "tags": {} if group_tag is None else {"PatchGroup": group_tag},
    }
    return Host(**values | facts)


def a_row(number: int = 1, state: HostState = HostState.PLANNED, *, domain: str = "", **facts: Any) -> HostRow:
    """A host of the stage; `domain` names another failure domain that it is in beside the stage."""
    values: dict[str, Any] = {
        "run": RUN,
        "stage": STAGE,
        "host": host_id(number),
        "cell": CELL,
        "name": f"prod-{number}",
        "platform": "Amazon Linux 2023",
        "domains": (domain, "stage:prod") if domain else ("stage:prod",),
        "state": state,
        "since": NOW,
    }
    return HostRow(**values | facts)


def a_dispatch(step: StepKind, *numbers: int, state: DispatchState = DispatchState.SENT, **facts: Any) -> DispatchRow:
    """A command that AWS took at `NOW`."""
    values: dict[str, Any] = {
        "token": "t" * 32,
        "run": RUN,
        "stage": STAGE,
        "step": step,
        "cell": CELL,
        "hosts": tuple(host_id(number) for number in numbers or (1,)),
        "attempt": 1,
        "state": state,
        "fencing": 1,
        "intended_at": NOW,
        "command": "c-1",
        "requested_at": NOW,
    }
    return DispatchRow(**values | facts)


def a_report(number: int = 1, operation: str = "Scan", **facts: Any) -> PatchState:
    """A patch report of five minutes after `NOW` that finds nothing wrong."""
    values: dict[str, Any] = {
        "host": host_id(number), "operation": operation, "ended": later(5), "snapshot": "", "installed": 100, "missing": 0,
        "failed": 0, "pending_reboot": 0, "rejected": 0,
    }  # fmt: skip
    return PatchState(**values | facts)


def the_rules(rows: Iterable[HostRow], *, places: Mapping[str, int] | int = 2, total: int = 100, **facts: Any) -> StageRules:
    """The rules of a stage with these rows.

    Args:
        places: of each failure domain, or of every one; a stage whose hosts are in no other domain has them itself.
        total: of the whole stage at most.
    """
    rows = list(rows)
    stage = f"stage:{facts.get('stage', STAGE)}"
    if isinstance(places, int):
        places = dict.fromkeys(
            (domain for row in rows for domain in row.domains if len(row.domains) == 1 or domain != stage), places
        )
    places = {**places, stage: min(total, places.get(stage, total))}
    values: dict[str, Any] = {
        "run": RUN, "stage": STAGE, "order": tuple(row.host for row in rows), "places": places,
        "error_budget": 100,
    }  # fmt: skip
    return StageRules(**values | facts)


CAMPAIGN = """
name: weekly-linux
description: Weekly patches
owner: platform
scope:
  cells: [{account: "111111111111", regions: [eu-central-1, us-east-1]}]
policy: standard
stages:
  - {name: dev, select: {patch_groups: [linux-dev]}, concurrency: 100%, error_budget: 2, soak: 30m}
  - name: staging
    select: {patch_groups: [linux-staging]}
    concurrency: 50%
    error_budget: 1
    approval: {required: true, approvers: [olga, ana]}
  - name: prod
    select: {patch_groups: [linux-prod]}
    concurrency: 10%
    error_budget: 0
    approval: {required: true, approvers: [olga]}
remediate: {stages: [dev]}
"""


def a_campaign(text: str = CAMPAIGN) -> Campaign:
    return definition.parse(text, file="weekly-linux.yaml")


def no_findings() -> Triage:
    """Inspector has found nothing, and scans nobody."""
    from patchwave.campaign import policy, severity

    return severity.classify([], policy.Policy.model_validate(_policy()), now=NOW, coverage=[])


def _policy() -> Any:
    from pathlib import Path

    import yaml

    return yaml.safe_load((Path(__file__).parents[2] / "include/policies/standard.yaml").read_text(encoding="utf-8"))


def a_plan(hosts: Iterable[Host], triage: Triage | None = None, *, campaign: Campaign | None = None, **facts: Any) -> Plan:
    campaign = campaign or a_campaign()
    values: dict[str, Any] = {
        "run": RUN, "now": NOW, "dry_run": False, "restriction": Restriction(), "definition": campaign.digest,
        "requested_by": "olga",
    }  # fmt: skip
    return plans.build(campaign, list(hosts), triage or no_findings(), **values | facts)
