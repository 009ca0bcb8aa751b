"""Config's rules and what they say: operations on rules, evaluations, and compliance by rule and by resource."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from awsim import estate, estate_config
from awsim.clock import moment
from awsim.estate import ConfigRule
from awsim.registry import AwsError, Context, operation
from awsim.services.config import remediation
from awsim.services.config.evaluation import Asked, ConfigState, Result, asked_of, evaluating, results, rules_of, times_of

CALM = 60.0
"""So long after an evaluation was asked for nobody may ask again."""
PAGE = 25


def named_rules(ctx: Context, names: Iterable[str] | None) -> list[ConfigRule]:
    """The named rules, or all.

    Raises:
        AwsError: one of them does not exist.
    """
    known = rules_of(ctx.world, ctx.account, ctx.region)
    if not names:
        return list(known.values())
    for name in names:
        if name not in known:
            raise AwsError(
                "NoSuchConfigRuleException",
                f"The ConfigRule '{name}' provided in the request is invalid. Please check the configRule name",
            )
    return [known[name] for name in dict.fromkeys(names)]


def wanted_types(params: dict[str, Any], *allowed: str) -> set[str]:
    wanted = set(params.get("ComplianceTypes") or [])
    wrong = wanted - set(allowed)
    if wrong:
        raise AwsError(
            "InvalidParameterValueException",
            f"The compliance type {', '.join(sorted(wrong))} is not valid here. Valid values: {', '.join(allowed)}",
        )
    return wanted


# --- rules ---


@operation("config", "PutConfigRule", check=False)
def put_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    before = set(estate.config_rules(ctx.account, ctx.region))
    changed = str((params.get("ConfigRule") or {}).get("ConfigRuleName"))
    _not_of_a_pack(ctx, changed)
    try:
        answer = ctx.call_moto()
    except (KeyError, TypeError, AttributeError) as unread:  # moto does not check what it reads
        raise AwsError("InvalidParameterValueException", f"The rule cannot be read: {unread}.") from unread
    asked = ctx.state(ConfigState).asked
    for name in estate.config_rules(ctx.account, ctx.region):
        if name not in before:
            asked[name] = Asked(created=ctx.at)
            remediation.after_evaluation(ctx.world, ctx.account, ctx.region, name)
    if changed in before:
        asked_of(ctx.world, ctx.account, ctx.region, changed).changes.append(ctx.at)
        remediation.after_evaluation(ctx.world, ctx.account, ctx.region, changed)
    return answer


@operation("config", "DeleteConfigRule", check=False)
def delete_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    name = str(params.get("ConfigRuleName"))
    _not_of_a_pack(ctx, name)
    if name in ctx.state(remediation.Remediations).configurations:
        raise AwsError("ResourceInUseException", f"The rule {name} has a remediation configuration; delete that first.")
    answer = ctx.call_moto()
    for kept in (ctx.state(ConfigState).asked, ctx.state(ConfigState).put, ctx.state(ConfigState).cleared):
        kept.pop(name, None)
    return answer


def _not_of_a_pack(ctx: Context, name: str) -> None:
    if name in ctx.state(ConfigState).pack_rules:
        raise AwsError("ResourceInUseException", f"The rule {name} belongs to a conformance pack; change or delete the pack.")


@operation("config", "DescribeConfigRules")
def describe_config_rules(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    packs = ctx.state(ConfigState).pack_rows
    if packs:
        rows = [
            dict(packs[rule.name]) if rule.name in packs else estate_config.config_rule_row(ctx.account, ctx.region, rule.name)
            for rule in sorted(named_rules(ctx, params.get("ConfigRuleNames")), key=lambda rule: rule.name)
        ]
        page, token = ctx.page(rows, params, default=PAGE)
        answer: dict[str, Any] = {"ConfigRules": page, "NextToken": token}
    else:
        answer = ctx.call_moto()
    for row in answer.get("ConfigRules", []):
        if evaluating(ctx.world, ctx.account, ctx.region, row["ConfigRuleName"]):
            row["ConfigRuleState"] = "EVALUATING"
    return answer


@operation("config", "DescribeConfigRuleEvaluationStatus")
def describe_config_rule_evaluation_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rules = named_rules(ctx, params.get("ConfigRuleNames"))
    page, token = ctx.page(rules, params, default=50, size="Limit")
    return {"ConfigRulesEvaluationStatus": [_evaluation_status(ctx, rule) for rule in page], "NextToken": token}


def _evaluation_status(ctx: Context, rule: ConfigRule) -> dict[str, Any]:
    asked = asked_of(ctx.world, ctx.account, ctx.region, rule.name)
    takes = times_of(ctx.world).evaluation_takes
    done = [start for start in asked.moments if start + takes <= ctx.at]
    found = results(ctx.world, ctx.account, ctx.region, rule)
    invoked = max([*done, *(result.invoked for result in found)], default=None)
    ended = max([*(start + takes for start in done), *(result.recorded for result in found)], default=None)
    return {
        "ConfigRuleName": rule.name,
        "ConfigRuleArn": rule.arn,
        "ConfigRuleId": rule.id,
        "LastSuccessfulInvocationTime": moment(invoked) if invoked is not None else None,
        "LastSuccessfulEvaluationTime": moment(ended) if ended is not None else None,
        "FirstActivatedTime": moment(asked.created),
        "FirstEvaluationStarted": True,
    }


@operation("config", "StartConfigRulesEvaluation")
def start_config_rules_evaluation(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    names = params.get("ConfigRuleNames") or []
    if not names:
        raise AwsError("InvalidParameterValueException", "ConfigRuleNames must name at least one rule.")
    rules = named_rules(ctx, names)
    for rule in rules:
        asked = asked_of(ctx.world, ctx.account, ctx.region, rule.name)
        if any(ctx.at - start < CALM for start in [*asked.changes, *asked.starts]):
            raise AwsError(
                "LimitExceededException",
                f"An evaluation of the rule {rule.name} is in progress, or one was started less than a minute ago.",
            )
    for rule in rules:
        asked_of(ctx.world, ctx.account, ctx.region, rule.name).starts.append(ctx.at)
        remediation.after_evaluation(ctx.world, ctx.account, ctx.region, rule.name)
    return {}


# --- compliance ---


@operation("config", "GetComplianceDetailsByConfigRule")
def get_compliance_details_by_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "NOT_APPLICABLE")
    [rule] = named_rules(ctx, [params["ConfigRuleName"]])
    rows = [result for result in results(ctx.world, ctx.account, ctx.region, rule) if not wanted or result.compliance in wanted]
    page, token = ctx.page(rows, params, default=10, size="Limit")
    return {"EvaluationResults": [row_of(result) for result in page], "NextToken": token}


@operation("config", "GetComplianceDetailsByResource")
def get_compliance_details_by_resource(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "NOT_APPLICABLE")
    kind, identifier = params.get("ResourceType"), params.get("ResourceId")
    if not kind or not identifier:
        raise AwsError("InvalidParameterValueException", "ResourceType and ResourceId are required.")
    rows = [
        result
        for result in all_results(ctx)
        if (result.resource_type, result.resource_id) == (kind, identifier) and (not wanted or result.compliance in wanted)
    ]
    page, token = ctx.page(rows, params, default=10, size="Limit")
    return {"EvaluationResults": [row_of(result) for result in page], "NextToken": token}


def all_results(ctx: Context) -> list[Result]:
    rules = rules_of(ctx.world, ctx.account, ctx.region).values()
    return [result for rule in rules for result in results(ctx.world, ctx.account, ctx.region, rule)]


def row_of(result: Result) -> dict[str, Any]:
    return {
        "EvaluationResultIdentifier": {
            "EvaluationResultQualifier": {
                "ConfigRuleName": result.rule.name,
                "ResourceType": result.resource_type,
                "ResourceId": result.resource_id,
                "EvaluationMode": "DETECTIVE",
            },
            "OrderingTimestamp": moment(result.item),
        },
        "ComplianceType": result.compliance,
        "ResultRecordedTime": moment(result.recorded),
        "ConfigRuleInvokedTime": moment(result.invoked),
        "Annotation": result.annotation or None,
    }


def _chosen(verdicts: Iterable[tuple[dict[str, Any], dict[str, Any]]], wanted: set[str]) -> list[dict[str, Any]]:
    """Rows with their verdicts, of the wanted compliance types only."""
    return [{**row, "Compliance": verdict} for row, verdict in verdicts if not wanted or verdict["ComplianceType"] in wanted]


def verdict_of(found: list[Result]) -> dict[str, Any]:
    bad = sum(result.compliance == "NON_COMPLIANT" for result in found)
    if bad:
        return {"ComplianceType": "NON_COMPLIANT", "ComplianceContributorCount": capped(bad)}
    return {"ComplianceType": "COMPLIANT" if found else "INSUFFICIENT_DATA"}


def capped(number: int, most: int = 25) -> dict[str, Any]:
    return {"CappedCount": min(number, most), "CapExceeded": number > most}


@operation("config", "DescribeComplianceByConfigRule")
def describe_compliance_by_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "INSUFFICIENT_DATA")
    verdicts = (
        ({"ConfigRuleName": rule.name}, verdict_of(results(ctx.world, ctx.account, ctx.region, rule)))
        for rule in named_rules(ctx, params.get("ConfigRuleNames"))
    )
    rows = _chosen(verdicts, wanted)
    page, token = ctx.page(rows, params, default=25, size="Limit")
    return {"ComplianceByConfigRules": page, "NextToken": token}


@operation("config", "DescribeComplianceByResource")
def describe_compliance_by_resource(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "INSUFFICIENT_DATA")
    kind, identifier = params.get("ResourceType"), params.get("ResourceId")
    if identifier and not kind:
        raise AwsError("InvalidParameterValueException", "ResourceId needs a ResourceType.")
    verdicts = (
        ({"ResourceType": key[0], "ResourceId": key[1]}, verdict_of(found))
        for key, found in _by_resource(ctx).items()
        if kind in (None, "", key[0]) and identifier in (None, "", key[1])
    )
    rows = _chosen(verdicts, wanted)
    page, token = ctx.page(rows, params, default=10, size="Limit")
    return {"ComplianceByResources": page, "NextToken": token}


def _by_resource(ctx: Context) -> dict[tuple[str, str], list[Result]]:
    grouped: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in all_results(ctx):
        grouped[result.resource_type, result.resource_id].append(result)
    return grouped


def summary_of(ctx_at: float, verdicts: Iterable[str], most: int) -> dict[str, Any]:
    """How many are compliant and how many are not, of rules (capped at 25) or resources (at 100)."""
    counted = list(verdicts)
    return {
        "CompliantResourceCount": capped(counted.count("COMPLIANT"), most),
        "NonCompliantResourceCount": capped(counted.count("NON_COMPLIANT"), most),
        "ComplianceSummaryTimestamp": moment(ctx_at),
    }


@operation("config", "GetComplianceSummaryByConfigRule")
def get_compliance_summary_by_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    verdicts = (
        verdict_of(results(ctx.world, ctx.account, ctx.region, rule))["ComplianceType"] for rule in named_rules(ctx, None)
    )
    return {"ComplianceSummary": summary_of(ctx.at, verdicts, 25)}


@operation("config", "GetComplianceSummaryByResourceType")
def get_compliance_summary_by_resource_type(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """Without types one summary of all resources, which names no type."""
    verdicts = {key: str(verdict_of(found)["ComplianceType"]) for key, found in _by_resource(ctx).items()}
    kinds = params.get("ResourceTypes") or []
    if not kinds:
        return {"ComplianceSummariesByResourceType": [{"ComplianceSummary": summary_of(ctx.at, verdicts.values(), 100)}]}
    return {
        "ComplianceSummariesByResourceType": [
            {
                "ResourceType": kind,
                "ComplianceSummary": summary_of(ctx.at, (told for key, told in verdicts.items() if key[0] == kind), 100),
            }
            for kind in kinds
        ]
    }
