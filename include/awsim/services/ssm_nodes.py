"""SSM managed nodes: DescribeInstanceInformation, GetConnectionStatus."""

import re
from typing import Any

from awsim.clock import moment
from awsim.host import Host
from awsim.registry import AwsError, Context, operation

_LATEST_AGENT = "3.3.3050.0"
_IDS = re.compile(r"i-[0-9a-f]{8}|i-[0-9a-f]{17}|mi-[0-9a-f]{17}")
_KEYS = frozenset(
    {
        "InstanceIds",
        "AgentVersion",
        "PingStatus",
        "PlatformTypes",
        "ActivationIds",
        "IamRole",
        "ResourceType",
        "AssociationStatus",
        "SourceIds",
        "SourceTypes",
    }
)


@operation("ssm", "DescribeInstanceInformation")
def describe_instance_information(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    filters = _filters(params)
    rows = [host for host in ctx.world.hosts_in(ctx.account, ctx.region) if _listed(host, ctx.at)]
    for key, values in filters:
        if key == "InstanceIds":
            _check_ids(values)
        rows = [host for host in rows if _matches(host, key, values, ctx.at)]
    page, token = ctx.page(rows, params, default=10)
    return {"InstanceInformationList": [_information(host, ctx.at) for host in page], "NextToken": token or ""}


@operation("ssm", "GetConnectionStatus")
def get_connection_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    host = ctx.world.host(ctx.account, ctx.region, params["Target"])
    up = host is not None and host.connected and _listed(host, ctx.at)
    return {"Target": params["Target"], "Status": "connected" if up else "notconnected"}


def _listed(host: Host, now: float) -> bool:
    """Stopped and terminated machines are not told, nor what never registered."""
    return host.state == "running" and host.registered is not None and host.registered <= now


def _filters(params: dict[str, Any]) -> list[tuple[str, list[str]]]:
    new, old = params.get("Filters") or [], params.get("InstanceInformationFilterList") or []
    if new and old:
        raise AwsError("ValidationException", "Filters and InstanceInformationFilterList cannot be used together")
    filters = [(entry["Key"], entry["Values"]) for entry in new] + [(entry["key"], entry["valueSet"]) for entry in old]
    for key, values in filters:
        if key not in _KEYS and not key.startswith("tag:") and key != "tag-key":
            raise AwsError("InvalidFilterKey", f"The specified key isn't valid: {key}")
        if key == "PingStatus" and not set(values) <= {"Online", "ConnectionLost", "Inactive"}:
            raise AwsError(
                "InvalidInstanceInformationFilterValue", f"PingStatus: {values} are not Online, ConnectionLost or Inactive"
            )
        if key == "PlatformTypes" and not set(values) <= {"Windows", "Linux", "MacOS"}:
            raise AwsError("InvalidInstanceInformationFilterValue", f"PlatformTypes: {values} are not Windows, Linux or MacOS")
    tagged = [key for key, _ in filters if key.startswith("tag")]
    if tagged and len(tagged) < len(filters):
        raise AwsError("ValidationException", "Tag filters cannot be combined with other filter types.")
    return filters


def _check_ids(values: list[str]) -> None:
    wrong = [value for value in values if _IDS.fullmatch(value) is None]
    if wrong:
        raise AwsError("InvalidInstanceId", f"Instances [[{', '.join(wrong)}]] are not valid ids")


def _matches(host: Host, key: str, values: list[str], now: float) -> bool:
    if key.startswith("tag:"):
        return host.tags().get(key[4:]) in values
    if key == "tag-key":
        return any(name in values for name in host.tags())
    facts = {
        "InstanceIds": host.id,
        "AgentVersion": host.agent_version,
        "PingStatus": host.ping_status(now),
        "PlatformTypes": host.platform.type,
        "ResourceType": "EC2Instance",
        "AssociationStatus": "Success",
        "SourceIds": host.id,
        "SourceTypes": "AWS::EC2::Instance",
    }
    value = facts.get(key)
    return value in values or (key == "ResourceType" and "ManagedInstance" in values and host.id.startswith("mi-"))


def _information(host: Host, now: float) -> dict[str, Any]:
    last = moment(host.last_ping(now))
    return {
        "InstanceId": host.id,
        "PingStatus": host.ping_status(now),
        "LastPingDateTime": last,
        "AgentVersion": host.agent_version,
        "IsLatestVersion": host.agent_version == _LATEST_AGENT,
        "PlatformType": host.platform.type,
        "PlatformName": host.platform.name,
        "PlatformVersion": host.platform.version,
        "ResourceType": "EC2Instance",
        "IPAddress": host.address,
        "ComputerName": f"ip-{host.address.replace('.', '-')}.{host.region}.compute.internal",
        "AssociationStatus": "Success",
        "LastAssociationExecutionDate": last,
        "LastSuccessfulAssociationExecutionDate": last,
        "AssociationOverview": {"DetailedStatus": "Success", "InstanceAssociationStatusAggregatedCount": {"Success": 1}},
        "SourceId": host.id,
        "SourceType": "AWS::EC2::Instance",
    }
