"""What does an aggregator see of many accounts and regions? The same verdicts, some minutes later.

Only COMPLIANT and NON_COMPLIANT exist here. Another account's data come only when that account has authorized the aggregator
(PutAggregationAuthorization) or the aggregator is the organization's. `SelectAggregateResourceConfig` answers the SQL subset of
`query.py` over instances, patch compliance and rule compliance.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from awsim import estate, estate_config
from awsim.clock import iso, moment
from awsim.registry import AwsError, Context, operation
from awsim.services.config import packs, query
from awsim.services.config.evaluation import (
    INSTANCE,
    INVENTORY,
    PATCH_COMPLIANCE,
    Result,
    results,
    rules_of,
)
from awsim.services.config.operations import row_of, summary_of, verdict_of

LAG = 180.0
"""Data of a source arrive so much later."""


def _aggregator(ctx: Context, name: str) -> dict[str, Any]:
    found = estate_config.aggregator(ctx.account, ctx.region, name)
    if found is None:
        raise AwsError("NoSuchConfigurationAggregatorException", f"The configuration aggregator {name} does not exist.")
    return found


def _sources(ctx: Context, aggregator: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """(source id, type, region, allowed) of every account and region."""
    found = []
    regions = sorted({region for _, region in ctx.world.cells} | {ctx.region})
    for source in aggregator.get("AccountAggregationSources") or []:
        there = regions if source.get("AllAwsRegions") else source.get("AwsRegions") or []
        for account in source.get("AccountIds") or []:
            for region in there:
                own = account == ctx.account
                allowed = own or estate_config.aggregation_allowed(account, region, ctx.account, ctx.region)
                found.append((account, "ACCOUNT", region, allowed))
    organization = aggregator.get("OrganizationAggregationSource")
    if organization:
        there = regions if organization.get("AllAwsRegions") else organization.get("AwsRegions") or []
        known = packs.members(ctx.world, ctx.account, ctx.region) or sorted({account for account, _ in ctx.world.cells})
        found += [(account, "ORGANIZATION", region, True) for account in known for region in there]
    return [row for row in found if estate_config.has_region(row[2])]


def _cells(ctx: Context, name: str, filters: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    """The accounts and regions whose data the aggregator has, and that the filter wants."""
    wanted = filters or {}
    cells = [
        (account, region)
        for account, _, region, allowed in _sources(ctx, _aggregator(ctx, name))
        if allowed and wanted.get("AccountId") in (None, account) and wanted.get("AwsRegion") in (None, region)
    ]
    return list(dict.fromkeys(cells))


def _verdicts(ctx: Context, account: str, region: str) -> Iterator[tuple[str, dict[str, Any], list[Result]]]:
    for name, rule in rules_of(ctx.world, account, region).items():
        found = results(ctx.world, account, region, rule, now=ctx.at - LAG)
        verdict = verdict_of(found)
        if verdict["ComplianceType"] != "INSUFFICIENT_DATA":
            yield name, verdict, found


@operation("config", "DescribeConfigurationAggregatorSourcesStatus")
def describe_configuration_aggregator_sources_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = params.get("UpdateStatus") or []
    rows = []
    for source, kind, region, allowed in _sources(ctx, _aggregator(ctx, params["ConfigurationAggregatorName"])):
        status = "SUCCEEDED" if allowed else "FAILED"
        if not wanted or status in wanted:
            rows.append(
                {
                    "SourceId": source,
                    "SourceType": kind,
                    "AwsRegion": region,
                    "LastUpdateStatus": status,
                    "LastUpdateTime": moment(ctx.at - LAG),
                    "LastErrorCode": None if allowed else "NotAuthorized",
                    "LastErrorMessage": None if allowed else "The source account has not authorized the aggregator.",
                }
            )
    page, token = ctx.page(rows, params, default=100, size="Limit")
    return {"AggregatedSourceStatusList": page, "NextToken": token}


@operation("config", "DescribeAggregateComplianceByConfigRules")
def describe_aggregate_compliance_by_config_rules(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    filters = params.get("Filters") or {}
    rows = [
        {"ConfigRuleName": name, "Compliance": verdict, "AccountId": account, "AwsRegion": region}
        for account, region in _cells(ctx, params["ConfigurationAggregatorName"], filters)
        for name, verdict, _ in _verdicts(ctx, account, region)
        if filters.get("ConfigRuleName") in (None, name) and filters.get("ComplianceType") in (None, verdict["ComplianceType"])
    ]
    page, token = ctx.page(rows, params, default=100, size="Limit")
    return {"AggregateComplianceByConfigRules": page, "NextToken": token}


@operation("config", "GetAggregateComplianceDetailsByConfigRule")
def get_aggregate_compliance_details_by_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = params.get("ComplianceType")
    if wanted == "INSUFFICIENT_DATA":
        raise AwsError("ValidationException", "INSUFFICIENT_DATA is not a compliance type of aggregated results.")
    account, region = params["AccountId"], params["AwsRegion"]
    cells = _cells(ctx, params["ConfigurationAggregatorName"], {"AccountId": account, "AwsRegion": region})
    rule = rules_of(ctx.world, account, region).get(params["ConfigRuleName"]) if cells else None
    found = results(ctx.world, account, region, rule, now=ctx.at - LAG) if rule is not None else []
    rows = [row for row in found if wanted in (None, row.compliance)]
    page, token = ctx.page(rows, params, default=50, size="Limit")
    told = [{**row_of(row), "AccountId": account, "AwsRegion": region} for row in page]
    return {"AggregateEvaluationResults": told, "NextToken": token}


@operation("config", "GetAggregateConfigRuleComplianceSummary")
def get_aggregate_config_rule_compliance_summary(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Rules counted, in all or by account or region."""
    by = params.get("GroupByKey")
    groups: dict[str, list[str]] = defaultdict(list)
    for account, region in _cells(ctx, params["ConfigurationAggregatorName"], params.get("Filters")):
        for _, verdict, _ in _verdicts(ctx, account, region):
            key = account if by == "ACCOUNT_ID" else region if by == "AWS_REGION" else ""
            groups[key].append(str(verdict["ComplianceType"]))
    rows = [
        {"GroupName": name or None, "ComplianceSummary": summary_of(ctx.at - LAG, verdicts, 10_000)}
        for name, verdicts in sorted(groups.items())
    ]
    page, token = ctx.page(rows, params, default=100, size="Limit")
    return {"GroupByKey": by, "AggregateComplianceCounts": page, "NextToken": token}


@operation("config", "DescribeAggregateComplianceByConformancePacks")
def describe_aggregate_compliance_by_conformance_packs(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    filters = params.get("Filters") or {}
    rows = []
    for account, region in _cells(ctx, params["ConfigurationAggregatorName"], filters):
        for pack in ctx.world.state(account, region, packs.Packs).by_name.values():
            verdicts = packs.rule_verdicts(ctx.world, account, region, pack, now=ctx.at - LAG)
            told = packs.whole_verdict(verdicts)
            if filters.get("ConformancePackName") not in (None, pack.name) or filters.get("ComplianceType") not in (None, told):
                continue
            counts = list(verdicts.values())
            compliance = {
                "ComplianceType": told,
                "CompliantRuleCount": counts.count("COMPLIANT"),
                "NonCompliantRuleCount": counts.count("NON_COMPLIANT"),
                "TotalRuleCount": len(counts),
            }
            rows.append({"ConformancePackName": pack.name, "Compliance": compliance, "AccountId": account, "AwsRegion": region})
    page, token = ctx.page(rows, params, default=100, size="Limit")
    return {"AggregateComplianceByConformancePacks": page, "NextToken": token}


# --- advanced queries ---


def _base(account: str, region: str, kind: str, identifier: str, at: float) -> dict[str, Any]:
    return {
        "accountId": account,
        "awsRegion": region,
        "resourceType": kind,
        "resourceId": identifier,
        "configurationItemCaptureTime": iso(at),
        "configurationItemStatus": "ResourceDiscovered",
    }


def _resources(ctx: Context, account: str, region: str) -> Iterator[dict[str, Any]]:
    """Configuration items of a cell, as they were LAG ago where their history is known."""
    world, seen = ctx.world, ctx.at - LAG
    hosts = {host.id: host for host in world.hosts_in(account, region)}
    for machine in estate.machines(account, region):
        if machine.state == "terminated":
            continue
        tags = estate.tags_of(account, region, machine.id)
        yield {
            **_base(account, region, INSTANCE, machine.id, seen),
            "arn": f"arn:aws:ec2:{region}:{account}:instance/{machine.id}",
            "resourceName": None,
            "availabilityZone": machine.zone,
            "resourceCreationTime": iso(machine.launched),
            "tags": [{"tag": f"{key}={value}", "key": key, "value": value} for key, value in sorted(tags.items())],
            "configuration": {
                "instanceId": machine.id,
                "instanceType": machine.instance_type,
                "imageId": machine.image,
                "privateIpAddress": machine.address,
                "subnetId": machine.subnet,
                "vpcId": machine.vpc,
                "state": {"name": machine.state},
                "placement": {"availabilityZone": machine.zone},
            },
        }
        host = hosts.get(machine.id)
        if host is None or host.registered is None or host.registered > seen:
            continue
        yield {
            **_base(account, region, INVENTORY, host.id, seen),
            "configuration": {
                "AWS:InstanceInformation": {
                    "Content": {
                        host.id: {
                            "AgentVersion": host.agent_version,
                            "ComputerName": f"ip-{host.address.replace('.', '-')}.{region}.compute.internal",
                            "InstanceId": host.id,
                            "InstanceStatus": "Active",
                            "IpAddress": host.address,
                            "PlatformName": host.platform.name,
                            "PlatformVersion": host.platform.version,
                            "ResourceType": "EC2Instance",
                        }
                    },
                    "SchemaVersion": "1.0",
                }
            },
        }
        report = host.report_at(seen)
        if report is not None:
            failing = report.failing()
            content = {
                "InstanceId": host.id,
                "Patch": {
                    "ComplianceType": "Patch",
                    "ComplianceStatus": "NON_COMPLIANT" if failing else "COMPLIANT",
                    "NonCompliantCount": len(failing),
                    "PatchBaselineId": report.baseline_id,
                    "PatchGroup": report.patch_group,
                    "ExecutionTime": iso(report.ended),
                },
            }
            yield {
                **_base(account, region, PATCH_COMPLIANCE, f"{INVENTORY}/{host.id}", report.uploaded),
                "configuration": {"AWS:ComplianceItem": {"Content": content, "SchemaVersion": "1.0"}},
            }
    yield from _compliances(ctx, account, region)


def _compliances(ctx: Context, account: str, region: str) -> Iterator[dict[str, Any]]:
    """`AWS::Config::ResourceCompliance`: what all rules say of a resource."""
    grouped: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for rule in rules_of(ctx.world, account, region).values():
        for result in results(ctx.world, account, region, rule, now=ctx.at - LAG):
            grouped[result.resource_type, result.resource_id].append(result)
    for (kind, identifier), found in grouped.items():
        yield {
            **_base(account, region, "AWS::Config::ResourceCompliance", f"{kind}/{identifier}", max(r.recorded for r in found)),
            "configuration": {
                "targetResourceType": kind,
                "targetResourceId": identifier,
                "complianceType": verdict_of(found)["ComplianceType"],
                "configRuleList": [
                    {"configRuleName": row.rule.name, "configRuleArn": row.rule.arn, "complianceType": row.compliance}
                    for row in found
                ],
            },
        }


@operation("config", "SelectAggregateResourceConfig")
def select_aggregate_resource_config(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    cells = _cells(ctx, params["ConfigurationAggregatorName"])
    try:
        asked = query.parse(params["Expression"])
        found = query.run(asked, (row for account, region in cells for row in _resources(ctx, account, region)))
    except query.BadQuery as wrong:
        raise AwsError("InvalidExpressionException", str(wrong)) from wrong
    size = "Limit" if params.get("Limit") else "MaxResults"
    page, token = ctx.page([json.dumps(row) for row in found], params, default=25, size=size)
    return {
        "Results": page,
        "QueryInfo": {"SelectFields": [{"Name": name} for name in asked.fields]},
        "NextToken": token,
    }


@operation("config", "GetAggregateDiscoveredResourceCounts")
def get_aggregate_discovered_resource_counts(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    filters = params.get("Filters") or {}
    cells = _cells(
        ctx, params["ConfigurationAggregatorName"], {"AccountId": filters.get("AccountId"), "AwsRegion": filters.get("Region")}
    )
    names = {"ACCOUNT_ID": "accountId", "AWS_REGION": "awsRegion", "RESOURCE_TYPE": "resourceType"}
    by = params.get("GroupByKey")
    counts: dict[str, int] = defaultdict(int)
    total = 0
    for account, region in cells:
        for row in _resources(ctx, account, region):
            if filters.get("ResourceType") in (None, row["resourceType"]):
                total += 1
                counts[str(row[names[by]]) if by in names else ""] += 1
    rows = [{"GroupName": name, "ResourceCount": count} for name, count in sorted(counts.items())] if by else []
    page, token = ctx.page(rows, params, default=100, size="Limit")
    return {"TotalDiscoveredResources": total, "GroupByKey": by, "GroupedResourceCounts": page, "NextToken": token}
