"""Which findings do filters suppress?

moto keeps the filters; the moments of their making and changing are kept here, on the virtual clock. A suppressed finding stays
what it is for the world and is told as SUPPRESSED, from the moment the filter came.
"""

from dataclasses import dataclass, field
from typing import Any

from awsim.clock import moment
from awsim.estate import Machine
from awsim.registry import AwsError, Context, operation
from awsim.services.inspector2 import moto_state
from awsim.services.inspector2.criteria import check_entries, passes
from awsim.services.inspector2.sightings import Sighting
from awsim.world import World


@dataclass(slots=True)
class Filters:
    """Of a cell: filter ARN -> (created, updated); and when anything changed last."""

    times: dict[str, tuple[float, float]] = field(default_factory=dict)
    changed: float = 0.0


def apply(world: World, account: str, region: str, found: list[Sighting], machines: dict[str, Machine]) -> None:
    """Mark what the account's filters, and those of its administrator, suppress."""
    owners = [account]
    above = moto_state.administrator(account, region)
    if above is not None and above != account:
        owners.append(above)
    rules: list[tuple[float, dict[str, Any]]] = []
    last = 0.0
    for owner in owners:
        kept = world.state(owner, region, Filters)
        last = max(last, kept.changed)
        for row in moto_state.filters(owner, region):
            if row["action"] == "SUPPRESS":
                rules.append((kept.times.get(row["arn"], (0.0, 0.0))[1], row["criteria"] or {}))
    for sighting in found:
        before, sighting.suppressed = sighting.suppressed, None
        since = [at for at, criteria in rules if passes(sighting, criteria, machines)]
        if since:
            sighting.suppressed = before if before is not None else max(min(since), sighting.first)
        elif before is not None:
            sighting.changed = max(sighting.changed, last)


@operation("inspector2", "CreateFilter")
def create_filter(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    check_entries(_criteria(params))
    answer = ctx.call_moto()
    kept = ctx.state(Filters)
    kept.times[answer["arn"]] = (ctx.at, ctx.at)
    kept.changed = ctx.at
    return answer


def _criteria(params: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {key: entries for key, entries in (params.get("filterCriteria") or {}).items() if entries}


@operation("inspector2", "UpdateFilter")
def update_filter(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    criteria = _criteria(params)
    check_entries(criteria)
    arn = params["filterArn"]
    changed = moto_state.change_filter(
        ctx.account,
        ctx.region,
        arn,
        action=params.get("action"),
        description=params.get("description"),
        filter_criteria=criteria or None,
        name=params.get("name"),
        reason=params.get("reason"),
    )
    if not changed:
        raise AwsError("ResourceNotFoundException", f"The filter {arn} does not exist.")
    kept = ctx.state(Filters)
    kept.times[arn] = (kept.times.get(arn, (ctx.at, ctx.at))[0], ctx.at)
    kept.changed = ctx.at
    return {"arn": arn}


@operation("inspector2", "DeleteFilter")
def delete_filter(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kept = ctx.state(Filters)
    if ctx.world.file is not None and params["arn"] not in kept.times:
        raise AwsError("ResourceNotFoundException", f"The filter {params['arn']} does not exist.")
    answer = ctx.call_moto()
    kept.times.pop(params["arn"], None)
    kept.changed = ctx.at
    return answer


@operation("inspector2", "ListFilters")
def list_filters(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kept, wanted = ctx.state(Filters).times, params.get("arns") or []
    rows = []
    for row in moto_state.filters(ctx.account, ctx.region):
        if (wanted and row["arn"] not in wanted) or params.get("action") not in (None, row["action"]):
            continue
        created, updated = kept.get(row["arn"], (ctx.at, ctx.at))
        rows.append({**row, "createdAt": moment(created), "updatedAt": moment(updated)})
    page, token = ctx.page(rows, params, default=100, tokens="nextToken", size="maxResults")
    return {"filters": page, "nextToken": token}
