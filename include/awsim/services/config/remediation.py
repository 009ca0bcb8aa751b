"""What does Config do about what a rule finds: remediation configurations, executions of their runbooks, and exceptions?

`StartRemediationExecution` starts a runbook a resource; an automatic configuration does so by itself after each evaluation that
finds a resource NON_COMPLIANT, again after a failure, and gives up after MaximumAutomaticAttempts failures: then Config puts an
exception on the resource, which keeps it from automatic remediation until somebody deletes it or it expires.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from awsim.clock import moment
from awsim.host import Host, PatchReport
from awsim.registry import AwsError, Context, on_world, operation
from awsim.services import automation
from awsim.services.config.evaluation import ConfigState, Result, results, rules_of, times_of
from awsim.world import World

STARTS_AFTER = 2.0
"""A remediation is QUEUED until then."""
RETRIES_AFTER = 10.0
"""An automatic remediation that failed is tried again so much later."""
ROLE = "AWSServiceRoleForConfigRemediation"


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Exempt:
    """A remediation exception."""

    rule: str
    resource_type: str
    resource_id: str
    message: str = ""
    expires: float | None = None


@dataclass(slots=True)
class Remediations:
    """Of a cell."""

    configurations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rule -> its remediation configuration."""
    remedies: dict[str, dict[tuple[str, str], Remedy]] = field(default_factory=dict)
    exempt: dict[tuple[str, str, str], Exempt] = field(default_factory=dict)
    failures: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """Failed automatic attempts in a row."""

    def excepted(self, rule: str, kind: str, identifier: str, now: float) -> bool:
        found = self.exempt.get((rule, kind, identifier))
        return found is not None and (found.expires is None or found.expires > now)


@on_world
def attach(world: World) -> None:
    """A patch report is judged a while later; then automatic remediation looks."""

    def reported(host: Host, report: PatchReport) -> None:
        kept = world.state(host.account, host.region, Remediations).configurations
        for name in [name for name, configuration in kept.items() if configuration.get("Automatic")]:
            at = report.uploaded + times_of(world).evaluated_after + 0.1
            world.at(at, lambda _, name=name: _sweep(world, host.account, host.region, name))  # type: ignore[misc]

    world.on_report(reported)


def after_evaluation(world: World, account: str, region: str, rule: str) -> None:
    """An evaluation of everything begins now; when it has ended, automatic remediation looks."""
    at = world.now + times_of(world).evaluation_takes + 0.1
    world.at(at, lambda _: _sweep(world, account, region, rule))


def _sweep(world: World, account: str, region: str, name: str) -> None:
    """Remedy what is NON_COMPLIANT, neither excepted nor being remedied."""
    state = world.state(account, region, Remediations)
    configuration, rule = state.configurations.get(name), rules_of(world, account, region).get(name)
    if configuration is None or rule is None or not configuration.get("Automatic"):
        return
    for result in results(world, account, region, rule):
        if result.compliance == "NON_COMPLIANT":
            _remedy_one(world, account, region, name, result.resource_type, result.resource_id)
        else:
            state.failures.pop((name, result.resource_type, result.resource_id), None)


def _remedy_one(world: World, account: str, region: str, name: str, kind: str, identifier: str) -> None:
    state = world.state(account, region, Remediations)
    running = state.remedies.setdefault(name, {}).get((kind, identifier))
    if running is not None and running.state() in ("QUEUED", "IN_PROGRESS"):
        return
    if not state.excepted(name, kind, identifier, world.now):
        _queue(world, account, region, name, kind, identifier, automatic=True, request_id=None)


def _failed_once(world: World, account: str, region: str, name: str, kind: str, identifier: str) -> None:
    """Count an automatic attempt that failed; after too many Config puts an exception by itself."""
    state = world.state(account, region, Remediations)
    configuration, key = state.configurations.get(name), (name, kind, identifier)
    if configuration is None or not configuration.get("Automatic"):
        return
    state.failures[key] = state.failures.get(key, 0) + 1
    most = int(configuration.get("MaximumAutomaticAttempts") or 5)
    if state.failures[key] >= most:
        state.failures.pop(key)
        state.exempt[key] = Exempt(
            rule=name,
            resource_type=kind,
            resource_id=identifier,
            message=f"AWS Config added this exception after {most} failed remediation attempts.",
        )
        return

    def again(_: float) -> None:
        rule = rules_of(world, account, region).get(name)
        found = results(world, account, region, rule) if rule is not None else []
        if any((row.resource_type, row.resource_id, row.compliance) == (kind, identifier, "NON_COMPLIANT") for row in found):
            _remedy_one(world, account, region, name, kind, identifier)

    world.at(world.now + RETRIES_AFTER, again)


# --- configurations ---


@operation("config", "PutRemediationConfigurations")
def put_remediation_configurations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    packs = ctx.state(ConfigState).pack_rules
    failed = []
    for entry in params["RemediationConfigurations"]:
        name = entry["ConfigRuleName"]
        if name in packs:
            failed.append({"FailureMessage": f"The rule {name} belongs to a conformance pack.", "FailedItems": [entry]})
            continue
        if name not in rules_of(ctx.world, ctx.account, ctx.region):
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
        put(ctx.world, ctx.account, ctx.region, name, entry)
    return {"FailedBatches": failed}


def put(world: World, account: str, region: str, name: str, entry: dict[str, Any]) -> None:
    mark = f"{world.random('remediation', account, region, name).getrandbits(128):032x}"
    arn = f"arn:aws:config:{region}:{account}:remediation-configuration/{name}/{mark}"
    kept = world.state(account, region, Remediations).configurations
    kept[name] = {"Automatic": False, **entry, "ConfigRuleName": name, "Arn": arn}


@operation("config", "DescribeRemediationConfigurations")
def describe_remediation_configurations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    kept = ctx.state(Remediations).configurations
    return {"RemediationConfigurations": [kept[name] for name in params["ConfigRuleNames"] if name in kept]}


@operation("config", "DeleteRemediationConfiguration")
def delete_remediation_configuration(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    state, name = ctx.state(Remediations), params["ConfigRuleName"]
    _configuration(ctx, name)
    if any(remedy.state() in ("QUEUED", "IN_PROGRESS") for remedy in state.remedies.get(name, {}).values()):
        raise AwsError("RemediationInProgressException", f"A remediation of the rule {name} is in progress.")
    del state.configurations[name]
    return {}


def _configuration(ctx: Context, rule: str) -> dict[str, Any]:
    found = ctx.state(Remediations).configurations.get(rule)
    if found is None:
        raise AwsError("NoSuchRemediationConfigurationException", f"No remediation configuration for the rule {rule} exists.")
    return found


def _results(ctx: Context, name: str) -> list[Result]:
    rule = rules_of(ctx.world, ctx.account, ctx.region).get(name)
    if rule is None:
        raise AwsError("NoSuchConfigRuleException", f"The ConfigRule '{name}' provided in the request is invalid.")
    return results(ctx.world, ctx.account, ctx.region, rule)


# --- executions ---


@operation("config", "StartRemediationExecution")
def start_remediation_execution(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    name = params["ConfigRuleName"]
    _configuration(ctx, name)
    known = {(result.resource_type, result.resource_id) for result in _results(ctx, name)}
    remedies = ctx.state(Remediations).remedies.setdefault(name, {})
    failed, reasons = [], set()
    for key in params["ResourceKeys"]:
        kind, identifier = key["resourceType"], key["resourceId"]
        running = remedies.get((kind, identifier))
        if (kind, identifier) not in known:
            failed.append(key)
            reasons.add("The rule has no evaluation result for the resource.")
        elif running is not None and running.state() in ("QUEUED", "IN_PROGRESS"):
            failed.append(key)
            reasons.add("A remediation of the resource is in progress.")
        else:
            _queue(ctx.world, ctx.account, ctx.region, name, kind, identifier, automatic=False, request_id=ctx.request_id)
    return {"FailureMessage": " ".join(sorted(reasons)) or None, "FailedItems": failed}


def _queue(
    world: World,
    account: str,
    region: str,
    name: str,
    kind: str,
    identifier: str,
    *,
    automatic: bool,
    request_id: str | None,
) -> None:
    """The runbook gets Config's own id of the resource, also where it wants an instance id."""
    state = world.state(account, region, Remediations)
    configuration = state.configurations[name]
    remedy = Remedy(resource_type=kind, resource_id=identifier, invoked=world.now)
    state.remedies.setdefault(name, {})[kind, identifier] = remedy
    parameters = {}
    for parameter, value in (configuration.get("Parameters") or {}).items():
        static = (value.get("StaticValue") or {}).get("Values")
        parameters[parameter] = list(static) if static is not None else [identifier]

    def ended() -> None:
        if remedy.state() == "FAILED":
            _failed_once(world, account, region, name, kind, identifier)

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
                executed_by=f"arn:aws:sts::{account}:assumed-role/{ROLE}/config",
            )
        except AwsError as refused:
            remedy.refused = str(refused)
            if automatic:
                ended()
            return
        if automatic:
            remedy.execution.on_end = ended

    world.at(world.now + STARTS_AFTER, begin)


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
    remedies = ctx.state(Remediations).remedies.get(name, {})
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


# --- exceptions ---


def _keys(params: dict[str, Any]) -> list[tuple[str, str]]:
    """Type and id of the resources; the model requires neither, the service both."""
    keys = params.get("ResourceKeys") or []
    if any(not key.get("ResourceType") or not key.get("ResourceId") for key in keys):
        raise AwsError("InvalidParameterValueException", "Each resource key needs a ResourceType and a ResourceId.")
    return [(key["ResourceType"], key["ResourceId"]) for key in keys]


@operation("config", "PutRemediationExceptions")
def put_remediation_exceptions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """For resources that the rule finds NON_COMPLIANT only; the others are told back."""
    name, state = params["ConfigRuleName"], ctx.state(Remediations)
    bad = {(result.resource_type, result.resource_id) for result in _results(ctx, name) if result.compliance == "NON_COMPLIANT"}
    expires = _epoch(params.get("ExpirationTime"))
    if expires is not None and expires <= ctx.at:
        raise AwsError("InvalidParameterValueException", "ExpirationTime must lie in the future.")
    failed = []
    for kind, identifier in _keys(params):
        exempt = Exempt(
            rule=name,
            resource_type=kind,
            resource_id=identifier,
            message=params.get("Message") or "",
            expires=expires,
        )
        if (exempt.resource_type, exempt.resource_id) in bad:
            state.exempt[name, exempt.resource_type, exempt.resource_id] = exempt
        else:
            failed.append(_exempt_row(exempt))
    message = "Exceptions can be put on resources that the rule finds NON_COMPLIANT only."
    return {"FailedBatches": [{"FailureMessage": message, "FailedItems": failed}] if failed else []}


def _epoch(when: Any) -> float | None:
    if isinstance(when, datetime):
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return None if when is None else float(when)


@operation("config", "DescribeRemediationExceptions")
def describe_remediation_exceptions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    state, name = ctx.state(Remediations), params["ConfigRuleName"]
    keys = set(_keys(params))
    rows = [
        _exempt_row(found)
        for found in state.exempt.values()
        if found.rule == name
        and state.excepted(name, found.resource_type, found.resource_id, ctx.at)
        and (not keys or (found.resource_type, found.resource_id) in keys)
    ]
    page, token = ctx.page(rows, params, default=10, size="Limit")
    return {"RemediationExceptions": page, "NextToken": token}


def _exempt_row(exempt: Exempt) -> dict[str, Any]:
    return {
        "ConfigRuleName": exempt.rule,
        "ResourceType": exempt.resource_type,
        "ResourceId": exempt.resource_id,
        "Message": exempt.message or None,
        "ExpirationTime": moment(exempt.expires) if exempt.expires is not None else None,
    }


@operation("config", "DeleteRemediationExceptions")
def delete_remediation_exceptions(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    state, name = ctx.state(Remediations), params["ConfigRuleName"]
    keys = [(name, kind, identifier) for kind, identifier in _keys(params)]
    if not any(key in state.exempt for key in keys):
        raise AwsError("NoSuchRemediationExceptionException", f"The rule {name} has no remediation exception for the resources.")
    missing = [key for key in params["ResourceKeys"] if (name, key["ResourceType"], key["ResourceId"]) not in state.exempt]
    for key in keys:
        state.exempt.pop(key, None)
    told = {"FailureMessage": "There is no exception for the resource.", "FailedItems": missing}
    return {"FailedBatches": [told] if missing else []}
