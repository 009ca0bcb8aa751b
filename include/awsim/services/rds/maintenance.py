"""DescribePendingMaintenanceActions and ApplyPendingMaintenanceAction."""

from typing import Any

from awsim import estate_rds
from awsim.clock import moment
from awsim.journal import Cause
from awsim.registry import AwsError, Context, operation
from awsim.services.rds import databases
from awsim.services.rds.databases import Action, Resource

_FILTERS = {"db-instance-id": False, "db-cluster-id": True}
"""Filter -> whether it means clusters."""


@operation("rds", "DescribePendingMaintenanceActions")
def describe_pending_maintenance_actions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """What has nothing pending is not in the list."""
    check_page_size(params)
    resources = [databases.known(ctx.world, ctx.account, ctx.region, made) for made in estate_rds.all_of(ctx.account, ctx.region)]
    if params.get("ResourceIdentifier"):
        resources = [_resource(ctx, params["ResourceIdentifier"])]
    for given in params.get("Filters") or []:
        if given["Name"] not in _FILTERS:
            raise AwsError("InvalidParameterValue", f"Unrecognized filter name: {given['Name']}")
        clusters, values = _FILTERS[given["Name"]], {value.lower() for value in given["Values"]}
        resources = [one for one in resources if one.is_cluster is clusters and {one.id, one.arn.lower()} & values]
    rows = [_row(resource) for resource in resources if resource.actions]
    page, marker = ctx.page(rows, params, default=100, tokens="Marker", size="MaxRecords")
    return {"PendingMaintenanceActions": page, "Marker": marker}


@operation("rds", "ApplyPendingMaintenanceAction")
def apply_pending_maintenance_action(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """`immediate` leaves `available` a moment after the answer, and cannot be undone."""
    resource = _resource(ctx, params["ResourceIdentifier"])
    opt_in, action = params["OptInType"], resource.actions.get(params["ApplyAction"])
    if opt_in not in ("immediate", "next-maintenance", "undo-opt-in"):
        raise AwsError("InvalidParameterValue", f"Invalid opt-in type: {opt_in}")
    if action is None:
        raise AwsError(
            "ResourceNotFoundFault", f"No pending maintenance action {params['ApplyAction']} for resource {resource.arn}"
        )
    if resource.status != "available" or action.opt_in == "immediate":
        code = "InvalidDBClusterStateFault" if resource.is_cluster else "InvalidDBInstanceState"
        raise AwsError(code, f"{resource.id} is not in an available state, or {action.name} is being applied already.")
    action.opt_in, action.opted = (None if opt_in == "undo-opt-in" else opt_in), ctx.at
    if opt_in == "immediate":
        _soon(ctx, resource, action)
    else:
        databases.plan(ctx.world, resource)
    return {"ResourcePendingMaintenanceActions": _row(resource)}


def _soon(ctx: Context, resource: Resource, action: Action) -> None:
    world, cause = ctx.world, Cause(request_id=ctx.request_id)
    begins = databases.draw(world, resource, databases.rds(world).begins, "begins") if databases.paced(world) else 0.0

    def begin(now: float) -> None:
        if not databases.exists(resource) or resource.actions.get(action.name) is not action:
            return
        if resource.status == "available":
            databases.apply(world, resource, action, cause)
        else:
            world.at(now + 60, begin)

    world.at(ctx.at + begins, begin)


def check_page_size(params: dict[str, Any]) -> None:
    size = params.get("MaxRecords")
    if size is not None and not 20 <= size <= 100:
        raise AwsError("InvalidParameterValue", f"Invalid value {size} for MaxRecords. Must be between 20 and 100")


def _resource(ctx: Context, arn: str) -> Resource:
    found = databases.find(ctx.world, ctx.account, ctx.region, arn)
    if found is None:
        raise AwsError("ResourceNotFoundFault", f"The specified resource {arn} was not found.")
    return found


def _row(resource: Resource) -> dict[str, Any]:
    return {
        "ResourceIdentifier": resource.arn,
        "PendingMaintenanceActionDetails": [_details(resource, action) for action in resource.actions.values()],
    }


def _details(resource: Resource, action: Action) -> dict[str, Any]:
    due = action.opted if action.opt_in == "immediate" else databases.date(resource, action)
    return {
        "Action": action.name,
        "AutoAppliedAfterDate": moment(action.auto_applied_after) if action.auto_applied_after is not None else None,
        "ForcedApplyDate": moment(action.forced) if action.forced is not None else None,
        "OptInStatus": action.opt_in,
        "CurrentApplyDate": moment(due) if due is not None else None,
        "Description": action.description,
    }
