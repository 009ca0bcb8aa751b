"""Which roles can be assumed, and for how long?

In a world, a role exists where the world file declares it (`accounts[].roles`, a few usual names by default) or where somebody
created it through IAM; any other is refused as AWS refuses both a missing role and a missing trust. Without a world every role
can be assumed, as in moto. A session that was itself made by AssumeRole gets an hour at most. Expirations are in real time,
because the clients' own clocks judge them.
"""

import re
from typing import Any

from awsim import groups
from awsim.registry import AwsError, Context, operation
from awsim.wire import Answer

CHAINED = 3600
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]{1,64})")


@operation("sts", "AssumeRole", check=False)
def assume_role(ctx: Context, params: dict[str, Any]) -> Answer:
    arn = params.get("RoleArn") or ""
    if ctx.world.file is not None:
        _check_role(ctx, arn)
    _check_duration(ctx, arn, params.get("DurationSeconds"))
    return ctx.moto_answer()


def _check_role(ctx: Context, arn: str) -> None:
    parsed = _ROLE.fullmatch(arn)
    if parsed is None:
        raise AwsError("ValidationError", f"{arn} is invalid", status=400)
    account, name = parsed.groups()
    declared = next((one.roles for one in ctx.world.file.accounts if one.id == account), None) if ctx.world.file else None
    if name in (declared or ()) or groups.has_role(account, name):
        return
    raise AwsError(
        "AccessDenied", f"User: {_caller(ctx)} is not authorized to perform: sts:AssumeRole on resource: {arn}", status=403
    )


def _caller(ctx: Context) -> str:
    return (
        f"arn:aws:sts::{ctx.account}:assumed-role/caller/session" if _chained(ctx) else f"arn:aws:iam::{ctx.account}:user/caller"
    )


def _chained(ctx: Context) -> bool:
    return ctx.access_key is not None and groups.is_session(ctx.access_key)


def _check_duration(ctx: Context, arn: str, seconds: int | None) -> None:
    if seconds is None:
        return
    if not 900 <= seconds <= 43_200:
        limit = "greater than or equal to 900" if seconds < 900 else "less than or equal to 43200"
        raise AwsError(
            "ValidationError",
            f"1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy constraint: Member must have"
            f" value {limit}",
            status=400,
        )
    if seconds > CHAINED and _chained(ctx):
        raise AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
            status=400,
        )
    parsed = _ROLE.fullmatch(arn)
    longest = groups.role_limit(*parsed.groups()) if parsed is not None else None
    if ctx.world.file is not None and longest is not None and seconds > longest:
        raise AwsError(
            "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.", status=400
        )
