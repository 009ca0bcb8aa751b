"""Who may ask for the accounts of the organization, and which are there?

The accounts of a world with more than one are an organization of the first (`groups.make_organization`); everything else is
moto's. As in AWS, only the management account may list; a member is refused.
"""

from typing import Any

from awsim import groups
from awsim.registry import AwsError, Context, on_world, operation
from awsim.wire import Answer
from awsim.world import DAY, World

_ONLY_MANAGEMENT = "You don't have permissions to access this resource."


@on_world
def attach(world: World) -> None:
    accounts = world.file.accounts if world.file else []
    if len(accounts) > 1:
        first, *rest = accounts
        members = [(one.id, one.name or f"account-{one.id}") for one in rest]
        groups.make_organization(first.id, first.name, members, since=world.clock.base - 400 * DAY)


def _managed(ctx: Context) -> None:
    management = groups.management_account(ctx.account)
    if management is None:
        raise AwsError("AWSOrganizationsNotInUseException", "Your account is not a member of an organization.")
    if management != ctx.account and not groups.is_delegated(management, ctx.account):
        raise AwsError("AccessDeniedException", _ONLY_MANAGEMENT)


@operation("organizations", "ListAccounts")
def list_accounts(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    """At most 20 a page."""
    if ctx.world.file is None:
        return ctx.moto_answer()
    _managed(ctx)
    rows = groups.organization_accounts(groups.management_account(ctx.account) or ctx.account)
    listed, token = ctx.page(rows, params, default=20)
    return {"Accounts": listed, "NextToken": token}


@operation("organizations", "DescribeAccount", check=False)
def describe_account(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    if ctx.world.file is None:
        return ctx.moto_answer()
    _managed(ctx)
    told = ctx.call_moto()
    rows = groups.organization_accounts(groups.management_account(ctx.account) or ctx.account)
    return {"Account": next((row for row in rows if row["Id"] == params["AccountId"]), told["Account"])}


@operation("organizations", "ListRoots", check=False)
def list_roots(ctx: Context, params: dict[str, Any]) -> Answer:
    if ctx.world.file is not None:
        _managed(ctx)
    return ctx.moto_answer()
