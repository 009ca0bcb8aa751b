"""Where is Inspector on, since when, and whose findings does an account see?

In a world of a world file it is on from the beginning, unless the file says otherwise; Enable and Disable take a minute. In an
empty AWS moto's own answers stand. An administrator sees its members, who see themselves only.
"""

from dataclasses import dataclass, field
from typing import Any

from awsim.clock import moment
from awsim.registry import AwsError, Context, operation
from awsim.services.inspector2 import moto_state
from awsim.world import World

TAKES = 60.0
"""Enabling and disabling."""
KINDS = {"EC2": "ec2", "ECR": "ecr", "LAMBDA": "lambda", "LAMBDA_CODE": "lambdaCode", "CODE_REPOSITORY": "codeRepository"}


@dataclass(slots=True)
class Switches:
    """Of a cell: resource type -> (since when, on)."""

    changed: dict[str, tuple[float, bool]] = field(default_factory=dict)
    scan_mode: str = "EC2_HYBRID"


def _default(world: World, kind: str) -> bool:
    return (world.file.inspector.enabled if world.file else True) and kind == "EC2"


def _status(world: World, account: str, region: str, kind: str) -> str:
    found = world.state(account, region, Switches).changed.get(kind)
    if found is None:
        return "ENABLED" if _default(world, kind) else "DISABLED"
    at, on = found
    if world.now < at + TAKES:
        return "ENABLING" if on else "DISABLING"
    return "ENABLED" if on else "DISABLED"


def scanning_since(world: World, account: str, region: str) -> float | None:
    """Since when instances are scanned; None: they are not."""
    status = _status(world, account, region, "EC2")
    if status in ("DISABLED", "ENABLING"):
        return None
    found = world.state(account, region, Switches).changed.get("EC2")
    return found[0] + TAKES if found is not None and found[1] else 0.0


def visible(world: World, account: str, region: str) -> list[str]:
    """The account and, of an administrator, its members."""
    return list(dict.fromkeys([account, *moto_state.members(account, region)]))


def _asked(ctx: Context, params: dict[str, Any]) -> list[str]:
    return list(params.get("accountIds") or [ctx.account])


def _row(ctx: Context, account: str) -> dict[str, Any]:
    states = {kind: _status(ctx.world, account, ctx.region, kind) for kind in KINDS}
    return {
        "accountId": account,
        "status": _whole(states),
        "resourceStatus": {KINDS[kind]: status for kind, status in states.items()},
    }


def _whole(states: dict[str, str]) -> str:
    return next((name for name in ("ENABLED", "ENABLING", "DISABLING") if name in states.values()), "DISABLED")


def _switch(ctx: Context, params: dict[str, Any], *, on: bool) -> dict[str, Any]:
    kinds = params.get("resourceTypes") or list(KINDS)
    rows, failed = [], []
    allowed = visible(ctx.world, ctx.account, ctx.region)
    for account in _asked(ctx, params):
        if account not in allowed:
            refused = {
                "accountId": account,
                "errorCode": "ACCESS_DENIED",
                "errorMessage": "Invoking account does not have access.",
            }
            failed.append(refused)
            continue
        for kind in kinds:
            if (_status(ctx.world, account, ctx.region, kind) in ("ENABLED", "ENABLING")) != on:
                ctx.world.state(account, ctx.region, Switches).changed[kind] = (ctx.at, on)
        rows.append(_row(ctx, account))
    return {"accounts": rows, "failedAccounts": failed}


@operation("inspector2", "Enable")
def enable(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    return ctx.call_moto() if ctx.world.file is None else _switch(ctx, params, on=True)


@operation("inspector2", "Disable")
def disable(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    return ctx.call_moto() if ctx.world.file is None else _switch(ctx, params, on=False)


@operation("inspector2", "BatchGetAccountStatus")
def batch_get_account_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    if ctx.world.file is None:
        return ctx.call_moto()
    allowed = visible(ctx.world, ctx.account, ctx.region)
    rows, failed = [], []
    for account in _asked(ctx, params):
        if account not in allowed:
            failed.append({"accountId": account, "errorCode": "ACCESS_DENIED", "errorMessage": "The account is not a member."})
            continue
        row = _row(ctx, account)
        states = {name: {"status": status} for name, status in row["resourceStatus"].items()}
        rows.append({"accountId": account, "state": {"status": row["status"]}, "resourceState": states})
    return {"accounts": rows, "failedAccounts": failed}


@operation("inspector2", "EnableDelegatedAdminAccount")
def enable_delegated_admin_account(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """One administrator an organization."""
    wanted = params["delegatedAdminAccountId"]
    others = [one for one in moto_state.named_administrators(ctx.account, ctx.region) if one != wanted]
    if others and ctx.world.file is not None:
        raise AwsError(
            "ConflictException",
            f"The account {others[0]} is the delegated administrator already.",
            resourceId=others[0],
            resourceType="DELEGATED_ADMIN",
        )
    return ctx.call_moto()


@operation("inspector2", "GetDelegatedAdminAccount")
def get_delegated_admin_account(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    found = moto_state.administrator(ctx.account, ctx.region)
    if found is None:
        raise AwsError("ResourceNotFoundException", "There is no delegated administrator.")
    return {"delegatedAdmin": {"accountId": found, "relationshipStatus": "ENABLED"}}


@operation("inspector2", "ListMembers")
def list_members(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = ctx.call_moto().get("members") or []
    if params.get("onlyAssociated", True):
        rows = [row for row in rows if row.get("relationshipStatus") == "ENABLED"] if ctx.world.file else rows
    page, token = ctx.page(rows, params, default=50, tokens="nextToken", size="maxResults")
    return {"members": page, "nextToken": token}


@operation("inspector2", "ListAccountPermissions")
def list_account_permissions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    pairs = [("ECR", "SCANNING"), ("ECR", "REPOSITORY"), ("EC2", "SCANNING"), ("LAMBDA", "SCANNING")]
    rows = [
        {"operation": f"{verb}_{what}", "service": service}
        for service, what in pairs
        for verb in ("ENABLE", "DISABLE")
        if params.get("service") in (None, service)
    ]
    page, token = ctx.page(rows, params, default=50, tokens="nextToken", size="maxResults")
    return {"permissions": page, "nextToken": token}


@operation("inspector2", "GetConfiguration")
def get_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    mode = ctx.state(Switches).scan_mode
    rescan = {
        "rescanDuration": "DAYS_30",
        "pullDateRescanDuration": "DAYS_90",
        "status": "SUCCESS",
        "updatedAt": moment(ctx.world.clock.base),
    }
    return {
        "ec2Configuration": {"scanModeState": {"scanMode": mode, "scanModeStatus": "SUCCESS"}},
        "ecrConfiguration": {"rescanDurationState": rescan},
    }


@operation("inspector2", "UpdateConfiguration")
def update_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    mode = (params.get("ec2Configuration") or {}).get("scanMode")
    if mode:
        ctx.state(Switches).scan_mode = mode
    return {}
