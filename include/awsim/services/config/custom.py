"""What does a custom rule say? What callers put: PutEvaluations, and forgetting it again.

No function is invoked, so nobody is given a result token: the token of a custom rule is its name, id or ARN (chosen). Without
TestMode the evaluations count as those of a managed rule do; what nobody put is INSUFFICIENT_DATA.
"""

from datetime import UTC, datetime
from typing import Any

from awsim.registry import AwsError, Context, operation
from awsim.services.config import remediation
from awsim.services.config.evaluation import JUDGES, ConfigState, Result, rules_of
from awsim.services.config.operations import named_rules


@operation("config", "PutEvaluations")
def put_evaluations(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """All of them or none; NOT_APPLICABLE takes a resource out of the rule's results."""
    given, token = params.get("Evaluations") or [], params["ResultToken"]
    if not given:
        raise AwsError(
            "InvalidParameterValueException",
            "The Evaluations object in your request cannot be null.Add the required parameters and try again.",
        )
    if not token:
        raise AwsError("InvalidResultTokenException", "The resultToken provided is invalid")
    if any(entry["ComplianceType"] == "INSUFFICIENT_DATA" for entry in given):
        raise AwsError("InvalidParameterValueException", "The ComplianceType INSUFFICIENT_DATA is not valid for PutEvaluations.")
    if params.get("TestMode"):
        return {"FailedEvaluations": []}
    known = rules_of(ctx.world, ctx.account, ctx.region).values()
    rule = next((rule for rule in known if token in (rule.name, rule.id, rule.arn)), None)
    if rule is None or not rule.source_identifier.startswith("arn:"):
        raise AwsError("InvalidResultTokenException", "The resultToken provided is invalid")
    kept = ctx.state(ConfigState).put.setdefault(rule.name, {})
    for entry in given:
        key = entry["ComplianceResourceType"], entry["ComplianceResourceId"]
        ordered = _epoch(entry["OrderingTimestamp"])
        if key in kept and kept[key].item > ordered:
            continue  # an older word comes late
        kept.pop(key, None)
        if entry["ComplianceType"] != "NOT_APPLICABLE":
            kept[key] = Result(
                rule=rule,
                resource_type=key[0],
                resource_id=key[1],
                compliance=entry["ComplianceType"],
                item=ordered,
                invoked=ctx.at,
                recorded=ctx.at,
                annotation=entry.get("Annotation") or "",
            )
    remediation.after_evaluation(ctx.world, ctx.account, ctx.region, rule.name)
    return {"FailedEvaluations": []}


def _epoch(given: Any) -> float:
    if isinstance(given, datetime):
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    return float(given)


@operation("config", "DeleteEvaluationResults")
def delete_evaluation_results(ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
    """The rule has no results until something is evaluated again."""
    (rule,) = named_rules(ctx, [params["ConfigRuleName"]])
    state = ctx.state(ConfigState)
    state.put.pop(rule.name, None)
    if rule.source_identifier in JUDGES:
        state.cleared[rule.name] = ctx.at
    return {}
