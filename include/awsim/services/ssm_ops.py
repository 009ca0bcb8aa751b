"""OpsCenter: OpsItems, and what is related to them. They live here only; moto has none."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from awsim import estate_ssm
from awsim.clock import moment
from awsim.registry import AwsError, Context, operation

_TIMES = ("ActualStartTime", "ActualEndTime", "PlannedStartTime", "PlannedEndTime")
_TEXTS = ("Title", "Description", "Priority", "Category", "Severity", "Notifications", "RelatedOpsItems", *_TIMES)
_CHANGE = "/aws/changerequest"
_TEXT_FILTERS = {
    "Status": "Status",
    "OpsItemId": "OpsItemId",
    "Title": "Title",
    "Source": "Source",
    "CreatedBy": "CreatedBy",
    "Category": "Category",
    "Severity": "Severity",
    "OpsItemType": "OpsItemType",
    "Priority": "Priority",
}
_TIME_FILTERS = ("CreatedTime", "LastModifiedTime", *_TIMES)
_ONLY_EQUAL = {"Status", "Priority", "Category", "Severity", "OpsItemType", "ResourceId", "AccountId"}
_FILTERS = frozenset(
    {*_TEXT_FILTERS, *_TIME_FILTERS, "OperationalDataKey", "OperationalDataValue", "OperationalData", "ResourceId", "AccountId"}
)


@dataclass(slots=True)
class Items:
    """The OpsItems of a cell in the order of their making, and their related items: association id -> row."""

    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    related: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: int = 0


def _item(ctx: Context, identifier: str) -> dict[str, Any]:
    found = ctx.state(Items).items.get(identifier)
    if found is None:
        raise AwsError("OpsItemNotFoundException", f"OpsItem {identifier} does not exist.")
    return found


def _identity(ctx: Context) -> str:
    return f"arn:aws:iam::{ctx.account}:root"


@operation("ssm", "CreateOpsItem")
def create_ops_item(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """One with a dedup string that an open item of the account carries already is refused with that item's id."""
    state = ctx.state(Items)
    data = params.get("OperationalData") or {}
    _check(ctx, params, data)
    twin = _twin(state, data)
    if twin is not None:
        raise AwsError("OpsItemAlreadyExistsException", f"Similar OpsItem {twin} already exists and is open.", OpsItemId=twin)
    state.made += 1
    identifier = f"oi-{ctx.random('ops item', ctx.account, ctx.region, state.made).getrandbits(48):012x}"
    kept = {name: params[name] for name in (*_TEXTS, "Source") if name in params}
    state.items[identifier] = {
        **kept,
        "Notifications": params.get("Notifications") or [],
        "RelatedOpsItems": params.get("RelatedOpsItems") or [],
        "OpsItemType": params.get("OpsItemType") or "/aws/issue",
        "OperationalData": {name: {"Type": "String", **value} for name, value in data.items()},
        "Status": "PendingApproval" if params.get("OpsItemType") == _CHANGE else "Open",
        "OpsItemId": identifier,
        "OpsItemArn": _arn(ctx, identifier),
        "Version": "1",
        "CreatedBy": _identity(ctx),
        "CreatedTime": moment(ctx.at),
        "LastModifiedBy": _identity(ctx),
        "LastModifiedTime": moment(ctx.at),
    }
    given = {tag["Key"]: tag["Value"] for tag in params.get("Tags") or []}
    estate_ssm.tags(ctx.account, ctx.region, "OpsItem", identifier).update(given)
    return {"OpsItemId": identifier, "OpsItemArn": _arn(ctx, identifier)}


def _arn(ctx: Context, identifier: str) -> str:
    return f"arn:aws:ssm:{ctx.region}:{ctx.account}:opsitem/{identifier}"


def _check(ctx: Context, params: dict[str, Any], data: dict[str, Any]) -> None:
    if params.get("AccountId") not in (None, ctx.account):
        raise AwsError("OpsItemAccessDeniedException", f"OpsItems of account {params['AccountId']} cannot be made from here.")
    for name, value in data.items():
        reserved = name.startswith(("aws", "amazon", "amzn", "ssm", "/aws", "/amazon", "/amzn", "/ssm"))
        if reserved and name not in ("/aws/dedup", "/aws/resources", "/aws/automations"):
            raise AwsError(
                "OpsItemInvalidParameterException",
                f"OperationalData: the key {name!r} begins with a reserved word.",
                ParameterNames=["OperationalData"],
            )
        if name in ("/aws/dedup", "/aws/resources", "/aws/automations"):
            try:
                json.loads(value.get("Value") or "")
            except ValueError:
                raise AwsError(
                    "OpsItemInvalidParameterException",
                    f"OperationalData: the value of {name} is not JSON.",
                    ParameterNames=["OperationalData"],
                ) from None
    for related in params.get("RelatedOpsItems") or []:
        if related["OpsItemId"] not in ctx.state(Items).items:
            raise AwsError(
                "OpsItemInvalidParameterException",
                f"RelatedOpsItems: {related['OpsItemId']} does not exist.",
                ParameterNames=["RelatedOpsItems"],
            )


def _dedup(data: dict[str, Any]) -> str | None:
    value = (data.get("/aws/dedup") or {}).get("Value")
    return json.dumps(json.loads(value), sort_keys=True) if value else None


def _twin(state: Items, data: dict[str, Any]) -> str | None:
    wanted = _dedup(data)
    if wanted is None:
        return None
    return next(
        (
            identifier
            for identifier, item in state.items.items()
            if item["Status"] in ("Open", "InProgress") and _dedup(item["OperationalData"]) == wanted
        ),
        None,
    )


@operation("ssm", "GetOpsItem")
def get_ops_item(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    return {"OpsItem": _item(ctx, params["OpsItemId"])}


@operation("ssm", "UpdateOpsItem")
def update_ops_item(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """OperationalData is merged key by key; the lists are replaced as a whole."""
    item = _item(ctx, params["OpsItemId"])
    data = params.get("OperationalData") or {}
    _check(ctx, params, data)
    if params.get("Status") in ("PendingApproval", "Approved", "Rejected", "Scheduled") and item["OpsItemType"] != _CHANGE:
        raise AwsError(
            "OpsItemInvalidParameterException",
            f"Status: {params['Status']} is a status of change requests only.",
            ParameterNames=["Status"],
        )
    item.update({name: params[name] for name in (*_TEXTS, "Status") if name in params})
    for name in params.get("OperationalDataToDelete") or []:
        item["OperationalData"].pop(name, None)
    item["OperationalData"].update({name: {"Type": "String", **value} for name, value in data.items()})
    item["Version"] = str(int(item["Version"]) + 1)
    item["LastModifiedTime"] = moment(ctx.at)
    return {}


@operation("ssm", "DeleteOpsItem")
def delete_ops_item(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """One that does not exist is no error."""
    state = ctx.state(Items)
    state.items.pop(params["OpsItemId"], None)
    state.related = {key: row for key, row in state.related.items() if row["OpsItemId"] != params["OpsItemId"]}
    return {}


@operation("ssm", "DescribeOpsItems")
def describe_ops_items(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = list(reversed(ctx.state(Items).items.values()))
    for wanted in params.get("OpsItemFilters") or []:
        rows = [row for row in rows if _matches(ctx, row, wanted)]
    page, token = ctx.page(rows, params, default=50)
    hidden = ("Description", "Notifications", "RelatedOpsItems", "Version", "OpsItemArn")
    return {
        "OpsItemSummaries": [{key: value for key, value in row.items() if key not in hidden} for row in page],
        "NextToken": token,
    }


def _matches(ctx: Context, row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    key, values, how = wanted["Key"], wanted["Values"], wanted["Operator"]
    if key not in _FILTERS:
        raise AwsError("ValidationException", f"OpsItemFilters: key {key!r} is not one of {', '.join(sorted(_FILTERS))}")
    if key in _TIME_FILTERS:
        return _time_matches(row.get(key), key, how, values)
    if how in ("GreaterThan", "LessThan") or (how == "Contains" and key in _ONLY_EQUAL):
        raise AwsError("ValidationException", f"OpsItemFilters: {key} cannot be compared with {how}.")
    data = row["OperationalData"]
    searchable = {name: entry for name, entry in data.items() if entry.get("Type") == "SearchableString"}
    if key in _TEXT_FILTERS:
        found = [str(row.get(_TEXT_FILTERS[key], ""))]
    elif key == "OperationalDataKey":
        found = list(data)
    elif key == "OperationalDataValue":
        found = [str(entry.get("Value", "")) for entry in searchable.values()]
    elif key == "OperationalData":
        return any(_pair_matches(searchable, value) for value in values)
    elif key == "ResourceId":
        return any(value in str((data.get("/aws/resources") or {}).get("Value", "")) for value in values)
    else:
        found = [ctx.account]
    if how == "Contains":
        return any(value.lower() in text.lower() for value in values for text in found)
    return any(value in found for value in values)


def _pair_matches(data: dict[str, Any], value: str) -> bool:
    """Of the filter OperationalData: `{"key":"...","value":"..."}`."""
    try:
        pair = json.loads(value)
        return bool((data.get(pair["key"]) or {}).get("Value") == pair["value"])
    except (ValueError, KeyError, TypeError):
        raise AwsError("ValidationException", f'OpsItemFilters: {value!r} is not {{"key":"...","value":"..."}}') from None


def _time_matches(found: datetime | None, key: str, how: str, values: list[str]) -> bool:
    if how not in ("GreaterThan", "LessThan"):
        raise AwsError("ValidationException", f"OpsItemFilters: {key} is compared with GreaterThan or LessThan, not {how}.")
    limits = []
    for value in values:
        try:
            limit = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise AwsError("ValidationException", f"OpsItemFilters: {key}: {value!r} is not an ISO 8601 moment.") from None
        limits.append(limit if limit.tzinfo else limit.replace(tzinfo=UTC))
    return found is not None and any(found > limit if how == "GreaterThan" else found < limit for limit in limits)


# --- related items ---


@operation("ssm", "AssociateOpsItemRelatedItem")
def associate_ops_item_related_item(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    _item(ctx, params["OpsItemId"])
    state = ctx.state(Items)
    for identifier, row in state.related.items():
        if row["OpsItemId"] == params["OpsItemId"] and row["ResourceUri"] == params["ResourceUri"]:
            raise AwsError(
                "OpsItemRelatedItemAlreadyExistsException",
                "The related item is associated already.",
                ResourceUri=row["ResourceUri"],
                OpsItemId=row["OpsItemId"],
                AssociationId=identifier,
            )
    bits = f"{ctx.random('related', params['OpsItemId'], len(state.related)).getrandbits(128):032x}"
    identifier = f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"
    by = {"Arn": _identity(ctx)}
    state.related[identifier] = {
        "OpsItemId": params["OpsItemId"],
        "AssociationId": identifier,
        "ResourceType": params["ResourceType"],
        "AssociationType": params["AssociationType"],
        "ResourceUri": params["ResourceUri"],
        "CreatedBy": by,
        "CreatedTime": moment(ctx.at),
        "LastModifiedBy": by,
        "LastModifiedTime": moment(ctx.at),
    }
    return {"AssociationId": identifier}


@operation("ssm", "DisassociateOpsItemRelatedItem")
def disassociate_ops_item_related_item(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    _item(ctx, params["OpsItemId"])
    related = ctx.state(Items).related
    if params["AssociationId"] not in related:
        raise AwsError("OpsItemRelatedItemAssociationNotFoundException", "The association does not exist.")
    del related[params["AssociationId"]]
    return {}


@operation("ssm", "ListOpsItemRelatedItems")
def list_ops_item_related_items(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = list(ctx.state(Items).related.values())
    if params.get("OpsItemId"):
        rows = [row for row in rows if row["OpsItemId"] == params["OpsItemId"]]
    for wanted in params.get("Filters") or []:
        rows = [row for row in rows if row[wanted["Key"]] in wanted["Values"]]
    page, token = ctx.page(rows, params, default=50)
    return {"Summaries": page, "NextToken": token}
