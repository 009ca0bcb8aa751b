"""What does AWS Config say of the hosts' patch compliance, when was that judged, and how does its remediation stand?

Rules live in moto (PutConfigRule and DeleteConfigRule are moto's, watched here); those with the source identifier of the
patch rule are evaluated. A patch report becomes a configuration item after `config.recorded_after`, the change triggers an
evaluation of that host after `config.evaluated_after`; StartConfigRulesEvaluation judges all hosts by what is recorded at
that moment, so too early it repeats the old result with new times. Remediation starts Automation executions
(`automation.py`).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from awsim import estate
from awsim.clock import moment
from awsim.estate import ConfigRule
from awsim.faults import Kind
from awsim.host import Host, PatchReport
from awsim.registry import AwsError, Context, on_world, operation
from awsim.services import automation
from awsim.world import World
from awsim.world_file import Config as Times

PATCH_RULE = "EC2_MANAGEDINSTANCE_PATCH_COMPLIANCE_STATUS_CHECK"
PATCH_COMPLIANCE = "AWS::SSM::PatchCompliance"
INVENTORY = "AWS::SSM::ManagedInstanceInventory"
"""Ids of `AWS::SSM::PatchCompliance` resources begin with it."""
CALM = 60.0
"""So long after an evaluation was asked for nobody may ask again."""
LONG_AGO = 30 * 86_400.0
STARTS_AFTER = 2.0
"""A remediation is QUEUED until then."""


@dataclass(kw_only=True, slots=True)
class Asked:
    """When a rule came to be, and when it was asked to evaluate everything."""

    created: float
    starts: list[float] = field(default_factory=list)


@dataclass(kw_only=True, slots=True, eq=False)
class Remedy:
    """The last remediation of one resource under one rule."""

    resource_type: str
    resource_id: str
    invoked: float
    execution: automation.Execution | None = None
    refused: str = ""

    def state(self) -> str:
        if self.refused:
            return "FAILED"
        if self.execution is None or self.execution.status == "Pending":
            return "QUEUED"
        if not self.execution.terminal:
            return "IN_PROGRESS"
        return "SUCCEEDED" if self.execution.status == "Success" else "FAILED"


@dataclass(slots=True)
class ConfigState:
    """Of a cell: what moto does not keep."""

    asked: dict[str, Asked] = field(default_factory=dict)
    remediations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rule -> its remediation configuration."""
    remedies: dict[str, dict[tuple[str, str], Remedy]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a rule says of a host."""

    rule: ConfigRule
    host: Host
    compliance: str
    item: float
    """When the configuration item was recorded that was judged."""
    invoked: float
    recorded: float

    @property
    def resource_id(self) -> str:
        return f"{INVENTORY}/{self.host.id}"


@on_world
def attach(world: World) -> None:
    """The rules of the world file exist from the beginning."""
    if world.file is None:
        return
    for account, region in world.cells:
        for rule in world.file.config_rules:
            if (not rule.accounts or account in rule.accounts) and (not rule.regions or region in rule.regions):
                estate.create_config_rule(account, region, rule.name, rule.source_identifier)
                kept = world.state(account, region, ConfigState)
                kept.asked[rule.name] = Asked(created=world.clock.base - LONG_AGO)


# --- evaluation, as a function of time ---


def _times(world: World, host: Host | None = None) -> Times:
    times = world.file.config if world.file else Times()
    late = world.faults.delay(Kind.CONFIG_LATE, host) if host is not None else 0.0
    if not late:
        return times
    return times.model_copy(
        update={"recorded_after": times.recorded_after + late, "evaluated_after": times.evaluated_after + late}
    )


def _asked(world: World, account: str, region: str, rule: str) -> Asked:
    return world.state(account, region, ConfigState).asked.setdefault(rule, Asked(created=world.clock.base))


def _recorded(host: Host, by: float, times: Times) -> PatchReport | None:
    """The newest report that is a configuration item by that moment."""
    return next((report for report in reversed(host.reports) if report.uploaded + times.recorded_after <= by), None)


def evaluated(world: World, rule: ConfigRule, host: Host) -> Result | None:
    """The rule's last word on a host by now; None if it has none: never reported, or gone."""
    if rule.source_identifier != PATCH_RULE or host.state == "terminated":
        return None
    times, now = _times(world, host), world.now
    asked = _asked(world, host.account, host.region, rule.name)
    evaluations = [(start + times.evaluation_takes, start, start) for start in [asked.created, *asked.starts]]
    for report in host.reports:
        end = report.uploaded + times.evaluated_after
        evaluations.append((end, max(report.uploaded + times.recorded_after, end - 1), end))
    for recorded, invoked, judged in sorted(evaluations, reverse=True):
        if recorded > now or judged < asked.created:
            continue
        item = _recorded(host, judged, times)
        if item is not None:
            verdict = "COMPLIANT" if item.compliant else "NON_COMPLIANT"
            since = item.uploaded + times.recorded_after
            return Result(rule=rule, host=host, compliance=verdict, item=since, invoked=invoked, recorded=recorded)
    return None


def results(world: World, account: str, region: str, rule: ConfigRule) -> list[Result]:
    found = (evaluated(world, rule, host) for host in world.hosts_in(account, region))
    return [result for result in found if result is not None]


def _evaluating(world: World, account: str, region: str, rule: str) -> bool:
    asked = _asked(world, account, region, rule)
    return any(start <= world.now < start + _times(world).evaluation_takes for start in [asked.created, *asked.starts])


def _rules(ctx: Context, names: Iterable[str] | None) -> list[ConfigRule]:
    """The named rules, or all.

    Raises:
        AwsError: one of them does not exist.
    """
    known = estate.config_rules(ctx.account, ctx.region)
    if not names:
        return list(known.values())
    for name in names:
        if name not in known:
            raise AwsError(
                "NoSuchConfigRuleException",
                f"The ConfigRule '{name}' provided in the request is invalid. Please check the configRule name",
            )
    return [known[name] for name in dict.fromkeys(names)]


def _wanted_types(params: dict[str, Any], *allowed: str) -> set[str]:
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
    answer = ctx.call_moto()
    asked = ctx.state(ConfigState).asked
    for name in estate.config_rules(ctx.account, ctx.region):
        if name not in before:
            asked[name] = Asked(created=ctx.at)
    changed = str((params.get("ConfigRule") or {}).get("ConfigRuleName"))
    if changed in before:
        _asked(ctx.world, ctx.account, ctx.region, changed).starts.append(ctx.at)
    return answer


@operation("config", "DeleteConfigRule", check=False)
def delete_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    state, name = ctx.state(ConfigState), str(params.get("ConfigRuleName"))
    if name in state.remediations:
        raise AwsError("ResourceInUseException", f"The rule {name} has a remediation configuration; delete that first.")
    answer = ctx.call_moto()
    state.asked.pop(name, None)
    return answer


@operation("config", "DescribeConfigRules")
def describe_config_rules(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    answer = ctx.call_moto()
    for row in answer.get("ConfigRules", []):
        if _evaluating(ctx.world, ctx.account, ctx.region, row["ConfigRuleName"]):
            row["ConfigRuleState"] = "EVALUATING"
    return answer


@operation("config", "DescribeConfigRuleEvaluationStatus")
def describe_config_rule_evaluation_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    rules = _rules(ctx, params.get("ConfigRuleNames"))
    page, token = ctx.page(rules, params, default=50, size="Limit")
    return {"ConfigRulesEvaluationStatus": [_evaluation_status(ctx, rule) for rule in page], "NextToken": token}


def _evaluation_status(ctx: Context, rule: ConfigRule) -> dict[str, Any]:
    asked = _asked(ctx.world, ctx.account, ctx.region, rule.name)
    takes = _times(ctx.world).evaluation_takes
    done = [start for start in [asked.created, *asked.starts] if start + takes <= ctx.at]
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
    rules = _rules(ctx, names)
    for rule in rules:
        asked = _asked(ctx.world, ctx.account, ctx.region, rule.name)
        if any(ctx.at - start < CALM for start in asked.starts):
            raise AwsError(
                "LimitExceededException",
                f"An evaluation of the rule {rule.name} is in progress, or one was started less than a minute ago.",
            )
    for rule in rules:
        _asked(ctx.world, ctx.account, ctx.region, rule.name).starts.append(ctx.at)
    return {}


# --- compliance ---


@operation("config", "GetComplianceDetailsByConfigRule")
def get_compliance_details_by_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = _wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "NOT_APPLICABLE")
    [rule] = _rules(ctx, [params["ConfigRuleName"]])
    rows = [result for result in results(ctx.world, ctx.account, ctx.region, rule) if not wanted or result.compliance in wanted]
    page, token = ctx.page(rows, params, default=10, size="Limit")
    return {"EvaluationResults": [_row(result) for result in page], "NextToken": token}


@operation("config", "GetComplianceDetailsByResource")
def get_compliance_details_by_resource(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = _wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "NOT_APPLICABLE")
    kind, identifier = params.get("ResourceType"), params.get("ResourceId")
    if not kind or not identifier:
        raise AwsError("InvalidParameterValueException", "ResourceType and ResourceId are required.")
    rows = [
        result
        for result in _all_results(ctx)
        if kind == PATCH_COMPLIANCE and result.resource_id == identifier and (not wanted or result.compliance in wanted)
    ]
    page, token = ctx.page(rows, params, default=10, size="Limit")
    return {"EvaluationResults": [_row(result) for result in page], "NextToken": token}


def _all_results(ctx: Context) -> list[Result]:
    rules = estate.config_rules(ctx.account, ctx.region).values()
    return [result for rule in rules for result in results(ctx.world, ctx.account, ctx.region, rule)]


def _row(result: Result) -> dict[str, Any]:
    return {
        "EvaluationResultIdentifier": {
            "EvaluationResultQualifier": {
                "ConfigRuleName": result.rule.name,
                "ResourceType": PATCH_COMPLIANCE,
                "ResourceId": result.resource_id,
                "EvaluationMode": "DETECTIVE",
            },
            "OrderingTimestamp": moment(result.item),
        },
        "ComplianceType": result.compliance,
        "ResultRecordedTime": moment(result.recorded),
        "ConfigRuleInvokedTime": moment(result.invoked),
    }


def _chosen(verdicts: Iterable[tuple[dict[str, Any], dict[str, Any]]], wanted: set[str]) -> list[dict[str, Any]]:
    """Rows with their verdicts, of the wanted compliance types only."""
    return [{**row, "Compliance": verdict} for row, verdict in verdicts if not wanted or verdict["ComplianceType"] in wanted]


def _verdict(found: list[Result]) -> dict[str, Any]:
    bad = sum(result.compliance == "NON_COMPLIANT" for result in found)
    if bad:
        return {
            "ComplianceType": "NON_COMPLIANT",
            "ComplianceContributorCount": {"CappedCount": min(bad, 25), "CapExceeded": bad > 25},
        }
    return {"ComplianceType": "COMPLIANT" if found else "INSUFFICIENT_DATA"}


@operation("config", "DescribeComplianceByConfigRule")
def describe_compliance_by_config_rule(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = _wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "INSUFFICIENT_DATA")
    verdicts = (
        ({"ConfigRuleName": rule.name}, _verdict(results(ctx.world, ctx.account, ctx.region, rule)))
        for rule in _rules(ctx, params.get("ConfigRuleNames"))
    )
    rows = _chosen(verdicts, wanted)
    page, token = ctx.page(rows, params, default=25, size="Limit")
    return {"ComplianceByConfigRules": page, "NextToken": token}


@operation("config", "DescribeComplianceByResource")
def describe_compliance_by_resource(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    wanted = _wanted_types(params, "COMPLIANT", "NON_COMPLIANT", "INSUFFICIENT_DATA")
    kind, identifier = params.get("ResourceType"), params.get("ResourceId")
    if identifier and not kind:
        raise AwsError("InvalidParameterValueException", "ResourceId needs a ResourceType.")
    grouped: dict[str, list[Result]] = defaultdict(list)
    for result in _all_results(ctx):
        if kind in (None, "", PATCH_COMPLIANCE) and identifier in (None, "", result.resource_id):
            grouped[result.resource_id].append(result)
    verdicts = (
        ({"ResourceType": PATCH_COMPLIANCE, "ResourceId": resource}, _verdict(found)) for resource, found in grouped.items()
    )
    rows = _chosen(verdicts, wanted)
    page, token = ctx.page(rows, params, default=10, size="Limit")
    return {"ComplianceByResources": page, "NextToken": token}


# --- remediation ---


@operation("config", "PutRemediationConfigurations")
def put_remediation_configurations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    state = ctx.state(ConfigState)
    failed = []
    for entry in params["RemediationConfigurations"]:
        name = entry["ConfigRuleName"]
        if name not in estate.config_rules(ctx.account, ctx.region):
            failed.append({"FailureMessage": f"The rule {name} does not exist.", "FailedItems": [entry]})
            continue
        if entry.get("Automatic") and not (
            entry.get("MaximumAutomaticAttempts")
            and entry.get("RetryAttemptSeconds")
            and "AutomationAssumeRole" in (entry.get("Parameters") or {})
        ):
            raise AwsError(
                "InvalidParameterValueException",
                "Automatic remediation needs MaximumAutomaticAttempts, RetryAttemptSeconds and AutomationAssumeRole.",
            )
        mark = f"{ctx.random('remediation', ctx.account, ctx.region, name).getrandbits(128):032x}"
        arn = f"arn:aws:config:{ctx.region}:{ctx.account}:remediation-configuration/{name}/{mark}"
        state.remediations[name] = {"Automatic": False, **entry, "Arn": arn}
    return {"FailedBatches": failed}


@operation("config", "DescribeRemediationConfigurations")
def describe_remediation_configurations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kept = ctx.state(ConfigState).remediations
    return {"RemediationConfigurations": [kept[name] for name in params["ConfigRuleNames"] if name in kept]}


@operation("config", "DeleteRemediationConfiguration")
def delete_remediation_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    state, name = ctx.state(ConfigState), params["ConfigRuleName"]
    _configuration(ctx, name)
    if any(remedy.state() in ("QUEUED", "IN_PROGRESS") for remedy in state.remedies.get(name, {}).values()):
        raise AwsError("RemediationInProgressException", f"A remediation of the rule {name} is in progress.")
    del state.remediations[name]
    return {}


def _configuration(ctx: Context, rule: str) -> dict[str, Any]:
    found = ctx.state(ConfigState).remediations.get(rule)
    if found is None:
        raise AwsError("NoSuchRemediationConfigurationException", f"No remediation configuration for the rule {rule} exists.")
    return found


@operation("config", "StartRemediationExecution")
def start_remediation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    name = params["ConfigRuleName"]
    configuration = _configuration(ctx, name)
    [rule] = _rules(ctx, [name])
    known = {result.resource_id for result in results(ctx.world, ctx.account, ctx.region, rule)}
    remedies = ctx.state(ConfigState).remedies.setdefault(name, {})
    failed, reasons = [], set()
    for key in params["ResourceKeys"]:
        kind, identifier = key["resourceType"], key["resourceId"]
        running = remedies.get((kind, identifier))
        if kind != PATCH_COMPLIANCE or identifier not in known:
            failed.append(key)
            reasons.add("The rule has no evaluation result for the resource.")
        elif running is not None and running.state() in ("QUEUED", "IN_PROGRESS"):
            failed.append(key)
            reasons.add("A remediation of the resource is in progress.")
        else:
            _queue(ctx, configuration, remedies, kind, identifier)
    return {"FailureMessage": " ".join(sorted(reasons)) or None, "FailedItems": failed}


def _queue(
    ctx: Context, configuration: dict[str, Any], remedies: dict[tuple[str, str], Remedy], kind: str, identifier: str
) -> None:
    """The runbook gets Config's own id of the resource, also where it wants an instance id."""
    remedy = Remedy(resource_type=kind, resource_id=identifier, invoked=ctx.at)
    remedies[kind, identifier] = remedy
    parameters = {}
    for parameter, value in (configuration.get("Parameters") or {}).items():
        static = (value.get("StaticValue") or {}).get("Values")
        parameters[parameter] = list(static) if static is not None else [identifier]
    world, account, region, request_id = ctx.world, ctx.account, ctx.region, ctx.request_id

    def begin(_: float) -> None:
        try:
            remedy.execution = automation.start(
                world,
                account,
                region,
                document=configuration["TargetId"],
                version=configuration.get("TargetVersion"),
                parameters=parameters,
                request_id=request_id,
                executed_by=f"arn:aws:sts::{account}:assumed-role/AWSServiceRoleForConfigRemediation/config",
            )
        except AwsError as refused:
            remedy.refused = str(refused)

    world.at(ctx.at + STARTS_AFTER, begin)


_STEP_STATES = {
    "Success": "SUCCEEDED",
    "Pending": "PENDING",
    "InProgress": "IN_PROGRESS",
    "Failed": "FAILED",
    "TimedOut": "FAILED",
}


@operation("config", "DescribeRemediationExecutionStatus")
def describe_remediation_execution_status(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    name = params["ConfigRuleName"]
    _configuration(ctx, name)
    remedies = ctx.state(ConfigState).remedies.get(name, {})
    keys = [(key["resourceType"], key["resourceId"]) for key in params.get("ResourceKeys") or []]
    found = [remedies[key] for key in keys if key in remedies] if keys else list(remedies.values())
    page, token = ctx.page(found, params, default=10, size="Limit")
    return {"RemediationExecutionStatuses": [_remedy_row(remedy) for remedy in page], "NextToken": token}


def _remedy_row(remedy: Remedy) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    updated = remedy.invoked
    if remedy.refused:
        updated += STARTS_AFTER
        steps = [
            {"Name": "StartAutomationExecution", "State": "FAILED", "ErrorMessage": remedy.refused, "StartTime": moment(updated)}
        ]
    elif remedy.execution is not None:
        updated = remedy.execution.changed
        steps = [
            {
                "Name": step.name,
                "State": _STEP_STATES.get(step.status, "EXITED"),
                "ErrorMessage": step.failure or None,
                "StartTime": moment(step.started) if step.started is not None else None,
                "StopTime": moment(step.ended) if step.ended is not None else None,
            }
            for step in remedy.execution.steps
        ]
    return {
        "ResourceKey": {"resourceType": remedy.resource_type, "resourceId": remedy.resource_id},
        "State": remedy.state(),
        "StepDetails": steps,
        "InvocationTime": moment(remedy.invoked),
        "LastUpdatedTime": moment(updated),
    }
