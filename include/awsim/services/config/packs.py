"""Conformance packs, and those of an organization.

A template (CloudFormation's form: parameters, conditions, rules, remediation configurations) becomes rules whose names get the
suffix `-conformance-pack-<id>`, some seconds after PutConformancePack has accepted it. An organization pack does so in every
member account of the organization, in the region where it was put.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from awsim import estate, estate_config, inside
from awsim.clock import moment
from awsim.estate import ConfigRule
from awsim.inside import Unaskable
from awsim.registry import AwsError, Context, operation
from awsim.services.config import remediation
from awsim.services.config.evaluation import Asked, ConfigState, Result, results
from awsim.services.config.operations import row_of, verdict_of
from awsim.services.config.templates import BadTemplate, expanded
from awsim.world import World

MADE_AFTER = 15.0
DELETED_AFTER = 10.0
MOST_PACKS = 50
MOST_RULES = 130
_S3 = re.compile(r"s3://([^/]+)/(.+)")


@dataclass(kw_only=True, slots=True, eq=False)
class Pack:
    """A conformance pack of a cell."""

    name: str
    id: str
    arn: str
    stack: str
    requested: float
    request: dict[str, Any]
    state: str = "CREATE_IN_PROGRESS"
    reason: str = ""
    completed: float | None = None
    created_by: str | None = None
    rules: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Packs:
    by_name: dict[str, Pack] = field(default_factory=dict)


@dataclass(slots=True)
class OrganizationPacks:
    """Of the managing cell: pack -> the member accounts and the names of their packs."""

    members: dict[str, dict[str, str]] = field(default_factory=dict)


def _mark(world: World, *purpose: object) -> str:
    chance = world.random("conformance pack", *purpose)
    return "".join(chance.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(9))


# --- making ---


def _template(ctx: Context, params: dict[str, Any]) -> str:
    """The text of the template, wherever it is.

    Raises:
        AwsError: none, more than one, or unreadable.
    """
    given = [name for name in ("TemplateBody", "TemplateS3Uri", "TemplateSSMDocumentDetails") if params.get(name)]
    if len(given) != 1:
        raise AwsError(
            "InvalidParameterValueException", "Give exactly one of TemplateBody, TemplateS3Uri and TemplateSSMDocumentDetails."
        )
    if given == ["TemplateBody"]:
        return str(params["TemplateBody"])
    if given == ["TemplateSSMDocumentDetails"]:
        details = params["TemplateSSMDocumentDetails"]
        name = str(details["DocumentName"]).rpartition("/")[2]
        found = estate.document(ctx.account, ctx.region, name, details.get("DocumentVersion"))
        if found is None:
            raise AwsError("ConformancePackTemplateValidationException", f"The document {name} does not exist.")
        return json.dumps(found["Content"])
    match = _S3.fullmatch(str(params["TemplateS3Uri"]))
    content = estate.s3_object(ctx.account, match.group(1), match.group(2)) if match else None
    if content is None:
        raise AwsError("InsufficientPermissionsException", f"The template {params['TemplateS3Uri']} cannot be read.")
    return content.decode()


@operation("config", "PutConformancePack")
def put_conformance_pack(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    text = _template(ctx, params)
    pack = put(ctx.world, ctx.account, ctx.region, params["ConformancePackName"], text, params)
    return {"ConformancePackArn": pack.arn}


def put(
    world: World,
    account: str,
    region: str,
    name: str,
    template: str,
    request: dict[str, Any],
    *,
    created_by: str | None = None,
) -> Pack:
    """Accept a pack; its rules come some seconds later.

    Raises:
        AwsError: the template is not valid, another change of the pack is in progress, or there are too many.
    """
    kept = world.state(account, region, Packs).by_name
    pack = kept.get(name)
    if pack is not None and pack.state.endswith("IN_PROGRESS"):
        raise AwsError("ResourceInUseException", f"The conformance pack {name} is {pack.state}.")
    if pack is None and len(kept) >= MOST_PACKS:
        raise AwsError("MaxNumberOfConformancePacksExceededException", f"There are {MOST_PACKS} conformance packs already.")
    given = {entry["ParameterName"]: entry["ParameterValue"] for entry in request.get("ConformancePackInputParameters") or []}
    try:
        rules, remedies = _resources(template, given, account, region)
    except BadTemplate as wrong:
        raise AwsError("ConformancePackTemplateValidationException", str(wrong)) from wrong
    if len(rules) > MOST_RULES:
        raise AwsError("MaxNumberOfConfigRulesExceededException", f"A conformance pack has at most {MOST_RULES} rules.")
    if pack is None:
        mark = _mark(world, account, region, name)
        arn = f"arn:aws:config:{region}:{account}:conformance-pack/{name}/conformance-pack-{mark}"
        stack = f"arn:aws:cloudformation:{region}:{account}:stack/awsconfigconforms-{name}-conformance-pack-{mark}/{mark}"
        pack = Pack(name=name, id=f"conformance-pack-{mark}", arn=arn, stack=stack, requested=world.now, request=request)
        pack.created_by = created_by
        kept[name] = pack
    else:
        pack.state, pack.request, pack.requested, pack.completed = "UPDATE_IN_PROGRESS", request, world.now, None
    made = pack

    def complete(_: float) -> None:
        if kept.get(name) is made and made.state.endswith("IN_PROGRESS") and not made.state.startswith("DELETE"):
            _make(world, account, region, made, rules, remedies)
            made.state, made.completed = made.state.replace("IN_PROGRESS", "COMPLETE"), world.now
            if made.state.startswith("UPDATE"):
                made.state = "UPDATE_COMPLETE"

    world.at(world.now + MADE_AFTER + 0.1 * len(rules), complete)
    return pack


def _resources(
    text: str, given: dict[str, str], account: str, region: str
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Rules by their names in the template, and remediation configurations."""
    rules: dict[str, dict[str, Any]] = {}
    remedies: list[dict[str, Any]] = []
    for logical, resource in expanded(text, given, account=account, region=region).items():
        properties = resource.get("Properties") or {}
        if resource.get("Type") == "AWS::Config::ConfigRule":
            if not (properties.get("Source") or {}).get("Owner"):
                raise BadTemplate(f"The rule {logical} has no Source.")
            rules[str(properties.get("ConfigRuleName") or logical)] = {
                **properties,
                "InputParameters": _inputs(logical, properties),
            }
        elif resource.get("Type") == "AWS::Config::RemediationConfiguration":
            given_parameters = properties.get("Parameters") or {}
            if not properties.get("TargetId") or not all(isinstance(value, dict) for value in given_parameters.values()):
                raise BadTemplate(f"The remediation {logical} has no TargetId, or parameters of another form.")
            remedies.append(properties)
        else:
            raise BadTemplate(f"{logical}: resources of type {resource.get('Type')} are not allowed in a conformance pack.")
    if not rules:
        raise BadTemplate("The template has no rules.")
    wrong = [str(entry.get("ConfigRuleName")) for entry in remedies if str(entry.get("ConfigRuleName")) not in rules]
    if wrong:
        raise BadTemplate(f"Remediation of rules that the template does not have: {', '.join(wrong)}.")
    return rules, remedies


def _inputs(logical: str, properties: dict[str, Any]) -> dict[str, Any]:
    found = properties.get("InputParameters") or {}
    try:
        parameters = json.loads(found) if isinstance(found, str) else found
    except ValueError:
        parameters = None
    if not isinstance(parameters, dict):
        raise BadTemplate(f"InputParameters of the rule {logical} are no mapping.")
    return parameters


def _make(
    world: World,
    account: str,
    region: str,
    pack: Pack,
    rules: dict[str, dict[str, Any]],
    remedies: list[dict[str, Any]],
) -> None:
    _remove(world, account, region, pack)
    state = world.state(account, region, ConfigState)
    for name, properties in rules.items():
        full = f"{name}-{pack.id}"
        identifier = f"config-rule-{_mark(world, account, region, full)[:6]}"
        arn = f"arn:aws:config:{region}:{account}:config-rule/aws-service-rule/config-conforms.amazonaws.com/{identifier}"
        parameters = properties["InputParameters"]
        source = dict(properties["Source"])
        state.pack_rules[full] = ConfigRule(
            name=full,
            arn=arn,
            id=identifier,
            source_identifier=str(source.get("SourceIdentifier") or ""),
            parameters={key: str(value) for key, value in parameters.items()},
        )
        state.pack_rows[full] = {
            "ConfigRuleName": full,
            "ConfigRuleArn": arn,
            "ConfigRuleId": identifier,
            "Description": properties.get("Description"),
            "Scope": properties.get("Scope"),
            "Source": source,
            "InputParameters": json.dumps(parameters) if parameters else None,
            "MaximumExecutionFrequency": properties.get("MaximumExecutionFrequency"),
            "ConfigRuleState": "ACTIVE",
            "CreatedBy": "config-conforms.amazonaws.com",
            "EvaluationModes": [{"Mode": "DETECTIVE"}],
        }
        state.asked[full] = Asked(created=world.now)
        pack.rules.append(full)
    for entry in remedies:
        full = f"{entry['ConfigRuleName']}-{pack.id}"
        remediation.put(world, account, region, full, {**entry, "ConfigRuleName": full})
    for full in pack.rules:
        remediation.after_evaluation(world, account, region, full)


def _remove(world: World, account: str, region: str, pack: Pack) -> None:
    state = world.state(account, region, ConfigState)
    kept = world.state(account, region, remediation.Remediations).configurations
    for name in pack.rules:
        for table in (state.pack_rules, state.pack_rows, state.asked, kept):
            table.pop(name, None)
    pack.rules = []


@operation("config", "DeleteConformancePack")
def delete_conformance_pack(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    [pack] = _packs(ctx, [params["ConformancePackName"]])
    if pack.created_by is not None:
        raise AwsError("ResourceInUseException", f"The conformance pack {pack.name} belongs to an organization pack.")
    delete(ctx.world, ctx.account, ctx.region, pack)
    return {}


def delete(world: World, account: str, region: str, pack: Pack) -> None:
    if pack.state.endswith("IN_PROGRESS"):
        raise AwsError("ResourceInUseException", f"The conformance pack {pack.name} is {pack.state}.")
    pack.state = "DELETE_IN_PROGRESS"

    def gone(_: float) -> None:
        kept = world.state(account, region, Packs).by_name
        if kept.get(pack.name) is pack:
            _remove(world, account, region, pack)
            del kept[pack.name]

    world.at(world.now + DELETED_AFTER, gone)


# --- reading ---


def _packs(ctx: Context, names: list[str] | None) -> list[Pack]:
    kept = ctx.state(Packs).by_name
    missing = [name for name in names or [] if name not in kept]
    if missing:
        raise AwsError(
            "NoSuchConformancePackException", f"One or more conformance packs do not exist: {', '.join(sorted(missing))}."
        )
    return [kept[name] for name in dict.fromkeys(names)] if names else list(kept.values())


@operation("config", "DescribeConformancePacks")
def describe_conformance_packs(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    page, token = ctx.page(_packs(ctx, params.get("ConformancePackNames")), params, default=10, size="Limit")
    rows = [
        {
            "ConformancePackName": pack.name,
            "ConformancePackArn": pack.arn,
            "ConformancePackId": pack.id,
            "DeliveryS3Bucket": pack.request.get("DeliveryS3Bucket"),
            "DeliveryS3KeyPrefix": pack.request.get("DeliveryS3KeyPrefix"),
            "ConformancePackInputParameters": pack.request.get("ConformancePackInputParameters") or [],
            "LastUpdateRequestedTime": moment(pack.requested),
            "CreatedBy": pack.created_by,
            "TemplateSSMDocumentDetails": pack.request.get("TemplateSSMDocumentDetails"),
        }
        for pack in page
    ]
    return {"ConformancePackDetails": rows, "NextToken": token}


@operation("config", "DescribeConformancePackStatus")
def describe_conformance_pack_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kept, names = ctx.state(Packs).by_name, params.get("ConformancePackNames")
    found = [kept[name] for name in names if name in kept] if names else list(kept.values())
    page, token = ctx.page(found, params, default=10, size="Limit")
    rows = [
        {
            "ConformancePackName": pack.name,
            "ConformancePackId": pack.id,
            "ConformancePackArn": pack.arn,
            "ConformancePackState": pack.state.replace("UPDATE_", "CREATE_"),
            "StackArn": pack.stack,
            "ConformancePackStatusReason": pack.reason or None,
            "LastUpdateRequestedTime": moment(pack.requested),
            "LastUpdateCompletedTime": moment(pack.completed) if pack.completed is not None else None,
        }
        for pack in page
    ]
    return {"ConformancePackStatusDetails": rows, "NextToken": token}


def rule_verdicts(world: World, account: str, region: str, pack: Pack, *, now: float | None = None) -> dict[str, str]:
    """COMPLIANT, NON_COMPLIANT or INSUFFICIENT_DATA by rule of the pack."""
    rules = world.state(account, region, ConfigState).pack_rules
    found = {name: results(world, account, region, rules[name], now=now) for name in pack.rules}
    return {name: str(verdict_of(rows)["ComplianceType"]) for name, rows in found.items()}


def whole_verdict(verdicts: dict[str, str]) -> str:
    told = set(verdicts.values())
    return "NON_COMPLIANT" if "NON_COMPLIANT" in told else "COMPLIANT" if "COMPLIANT" in told else "INSUFFICIENT_DATA"


def _named(pack: Pack, filters: dict[str, Any]) -> list[str]:
    """The pack's rules that the filter wants.

    Raises:
        AwsError: the pack does not have one of them.
    """
    wanted = filters.get("ConfigRuleNames") or []
    missing = sorted(set(wanted) - set(pack.rules))
    if missing:
        sentence = f"The conformance pack {pack.name} has no rule {', '.join(missing)}."
        raise AwsError("NoSuchConfigRuleInConformancePackException", sentence)
    return [name for name in pack.rules if not wanted or name in wanted]


@operation("config", "DescribeConformancePackCompliance")
def describe_conformance_pack_compliance(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    [pack] = _packs(ctx, [params["ConformancePackName"]])
    filters = params.get("Filters") or {}
    names, verdicts = _named(pack, filters), rule_verdicts(ctx.world, ctx.account, ctx.region, pack)
    rows = [
        {"ConfigRuleName": name, "ComplianceType": verdicts[name], "Controls": []}
        for name in names
        if filters.get("ComplianceType") in (None, verdicts[name])
    ]
    page, token = ctx.page(rows, params, default=1000, size="Limit")
    return {"ConformancePackName": pack.name, "ConformancePackRuleComplianceList": page, "NextToken": token}


@operation("config", "GetConformancePackComplianceDetails")
def get_conformance_pack_compliance_details(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    [pack] = _packs(ctx, [params["ConformancePackName"]])
    filters = params.get("Filters") or {}
    if filters.get("ResourceIds") and not filters.get("ResourceType"):
        raise AwsError("InvalidParameterValueException", "ResourceIds needs a ResourceType.")
    rules = ctx.state(ConfigState).pack_rules
    found = [row for name in _named(pack, filters) for row in results(ctx.world, ctx.account, ctx.region, rules[name])]

    def wanted(row: Result) -> bool:
        return (
            filters.get("ComplianceType") in (None, row.compliance)
            and filters.get("ResourceType") in (None, row.resource_type)
            and (not filters.get("ResourceIds") or row.resource_id in filters["ResourceIds"])
        )

    page, token = ctx.page([row for row in found if wanted(row)], params, default=10, size="Limit")
    return {
        "ConformancePackName": pack.name,
        "ConformancePackRuleEvaluationResults": [row_of(row) for row in page],
        "NextToken": token,
    }


@operation("config", "GetConformancePackComplianceSummary")
def get_conformance_pack_compliance_summary(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "ConformancePackName": pack.name,
            "ConformancePackComplianceStatus": whole_verdict(rule_verdicts(ctx.world, ctx.account, ctx.region, pack)),
        }
        for pack in _packs(ctx, params["ConformancePackNames"])
    ]
    page, token = ctx.page(rows, params, default=20, size="Limit")
    return {"ConformancePackComplianceSummaryList": page, "NextToken": token}


@operation("config", "ListConformancePackComplianceScores")
def list_conformance_pack_compliance_scores(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The share of rule-resource combinations that are compliant, as a string."""
    wanted = (params.get("Filters") or {}).get("ConformancePackNames")
    rules = ctx.state(ConfigState).pack_rules
    rows = []
    for pack in _packs(ctx, None):
        if wanted and pack.name not in wanted:
            continue
        found = [row for name in pack.rules for row in results(ctx.world, ctx.account, ctx.region, rules[name])]
        good = sum(row.compliance == "COMPLIANT" for row in found)
        score = f"{100 * good / len(found):.2f}" if found else "INSUFFICIENT_DATA"
        last = max((row.recorded for row in found), default=pack.requested)
        rows.append({"Score": score, "ConformancePackName": pack.name, "LastUpdatedTime": moment(last)})
    down = params.get("SortOrder") == "DESCENDING"
    rows.sort(key=lambda row: float(str(row["Score"])) if row["Score"] != "INSUFFICIENT_DATA" else -1.0, reverse=down)
    page, token = ctx.page(rows, params, default=20, size="Limit")
    return {"ConformancePackComplianceScores": page, "NextToken": token}


# --- organizations ---


def members(world: World, account: str, region: str) -> list[str]:
    """The active accounts of the caller's organization; none without an organization."""
    try:
        answer = inside.ask(world, account, region, "organizations", "ListAccounts", {})
    except (AwsError, Unaskable):
        return []
    return [str(row["Id"]) for row in answer.get("Accounts") or [] if row.get("Status") == "ACTIVE"]


@operation("config", "PutOrganizationConformancePack")
def put_organization_conformance_pack(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """moto keeps the record; where there is an organization, its accounts get the pack."""
    name = params["OrganizationConformancePackName"]
    accounts = members(ctx.world, ctx.account, ctx.region)
    if params.get("TemplateBody") and not params.get("TemplateS3Uri"):
        arn = estate_config.put_organization_pack(ctx.account, ctx.region, name, params)
    else:
        arn = str(ctx.call_moto()["OrganizationConformancePackArn"])
    if not accounts:
        return {"OrganizationConformancePackArn": arn}
    text = _template(ctx, params)
    kept = ctx.state(OrganizationPacks).members
    before, mark = kept.get(name, {}), _mark(ctx.world, ctx.account, ctx.region, "organization", name)[:8]
    there = [one for one in accounts if one not in (params.get("ExcludedAccounts") or [])]
    for one in there:
        own = before.get(one, f"OrgConformsPack-{name}-{mark}")
        put(ctx.world, one, ctx.region, own, text, params, created_by="config-multiaccountsetup.amazonaws.com")
        before = {**before, one: own}
    for one in [one for one in before if one not in there]:
        _drop(ctx.world, one, ctx.region, before.pop(one))
    kept[name] = before
    return {"OrganizationConformancePackArn": arn}


def _drop(world: World, account: str, region: str, name: str) -> None:
    pack = world.state(account, region, Packs).by_name.get(name)
    if pack is not None:
        pack.state = "CREATE_COMPLETE"
        delete(world, account, region, pack)


@operation("config", "DeleteOrganizationConformancePack")
def delete_organization_conformance_pack(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    answer = ctx.call_moto()
    for account, own in ctx.state(OrganizationPacks).members.pop(params["OrganizationConformancePackName"], {}).items():
        _drop(ctx.world, account, ctx.region, own)
    return answer


def _member_state(ctx: Context, account: str, own: str) -> Pack | None:
    return ctx.world.state(account, ctx.region, Packs).by_name.get(own)


def _spelled(state: str) -> str:
    return state.replace("_COMPLETE", "_SUCCESSFUL")


@operation("config", "DescribeOrganizationConformancePackStatuses")
def describe_organization_conformance_pack_statuses(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    answer = ctx.call_moto()
    kept = ctx.state(OrganizationPacks).members
    for row in answer.get("OrganizationConformancePackStatuses") or []:
        packs = [
            _member_state(ctx, account, own) for account, own in kept.get(row["OrganizationConformancePackName"], {}).items()
        ]
        if any(pack is not None and pack.state.endswith("IN_PROGRESS") for pack in packs):
            row["Status"] = next(pack.state for pack in packs if pack is not None and pack.state.endswith("IN_PROGRESS"))
    rows = answer.get("OrganizationConformancePackStatuses") or []
    page, token = ctx.page(rows, params, default=100, size="Limit")
    return {"OrganizationConformancePackStatuses": page, "NextToken": token}


@operation("config", "GetOrganizationConformancePackDetailedStatus")
def get_organization_conformance_pack_detailed_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    answer = ctx.call_moto()
    kept = ctx.state(OrganizationPacks).members.get(params["OrganizationConformancePackName"])
    if kept is None:
        return answer
    filters = params.get("Filters") or {}
    rows = []
    for account, own in sorted(kept.items()):
        pack = _member_state(ctx, account, own)
        if pack is None:
            continue
        row = {
            "AccountId": account,
            "ConformancePackName": own,
            "Status": _spelled(pack.state),
            "LastUpdateTime": moment(pack.completed or pack.requested),
        }
        if filters.get("AccountId") in (None, account) and filters.get("Status") in (None, row["Status"]):
            rows.append(row)
    page, token = ctx.page(rows, params, default=100, size="Limit")
    return {"OrganizationConformancePackDetailedStatuses": page, "NextToken": token}
