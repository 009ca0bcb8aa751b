"""Tags of patch baselines and OpsItems, which moto refuses; those of everything else in ssm stay moto's."""

from typing import Any

from awsim import estate, estate_ssm
from awsim.registry import AwsError, Context, operation
from awsim.services.ssm_ops import Items
from awsim.wire import Answer

_LIMIT = 50


def _ours(ctx: Context, params: dict[str, Any]) -> dict[str, str] | None:
    """The tags of a resource of ours; None: the resource is moto's."""
    kind, identifier = params.get("ResourceType"), params.get("ResourceId") or ""
    if kind == "PatchBaseline":
        known = estate.baseline(ctx.account, ctx.region, identifier) is not None
    elif kind == "OpsItem":
        known = identifier in ctx.state(Items).items
    else:
        return None
    if not known:
        raise AwsError("InvalidResourceId", "The resource ID isn't valid. Verify that you entered the correct ID and try again.")
    return estate_ssm.tags(ctx.account, ctx.region, kind, identifier)


@operation("ssm", "AddTagsToResource", check=False)
def add_tags_to_resource(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    found = _ours(ctx, params)
    if found is None:
        return ctx.moto_answer()
    added = {tag["Key"]: tag["Value"] for tag in params.get("Tags") or []}
    if len({**found, **added}) > _LIMIT:
        raise AwsError("TooManyTagsError", f"A resource has at most {_LIMIT} tags.")
    found.update(added)
    return {}


@operation("ssm", "RemoveTagsFromResource", check=False)
def remove_tags_from_resource(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    found = _ours(ctx, params)
    if found is None:
        return ctx.moto_answer()
    for key in params.get("TagKeys") or []:
        found.pop(key, None)
    return {}


@operation("ssm", "ListTagsForResource", check=False)
def list_tags_for_resource(ctx: Context, params: dict[str, Any]) -> dict[str, Any] | Answer:
    found = _ours(ctx, params)
    if found is None:
        return ctx.moto_answer()
    return {"TagList": [{"Key": key, "Value": value} for key, value in found.items()]}
